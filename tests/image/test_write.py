"""What is written comes back, whoever reads it; and a file is the old one or the new one."""

import datetime
import gzip
import os
import stat
import threading

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDData,
    NDDataRef,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.table import QTable, Table
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from astrogan.exceptions import ImageWriteError, InputError
from astrogan.image._headers import safe_header, unit_text
from astrogan.image.read import read_bands, read_image
from astrogan.image.wcs import cube_wcs, wcs_equal
from astrogan.image.write import atomic_path, write_image, write_table


def tan(sip=False, tpv=False):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = (
        ["RA---TAN-SIP", "DEC--TAN-SIP"] if sip else ["RA---TPV", "DEC--TPV"] if tpv else ["RA---TAN", "DEC--TAN"]
    )
    wcs.wcs.crval = [150.123456789012, 2.20987654321]
    wcs.wcs.crpix = [10.25, 7.75]
    wcs.wcs.cd = [[-7.27777777777778e-05, 1.2345678e-07], [1.3456789e-07, 7.27777777777778e-05]]
    if sip:
        from astropy.wcs import Sip

        a, b = np.zeros((4, 4)), np.zeros((4, 4))
        a[2, 0], a[1, 1], b[0, 2], b[3, 0] = 2.3e-5, -1.1e-6, 3.1e-5, 4e-8
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    if tpv:
        wcs.wcs.set_pv([(1, 1, 1.0), (1, 5, 0.3), (2, 1, 1.0), (2, 6, -0.2)])
    wcs.wcs.set()
    return wcs


def ccd(shape=(16, 20), seed=0, **keywords):
    data = np.random.default_rng(seed).normal(10, 1, shape).astype("f4")
    return CCDData(data, **({"unit": "adu", "wcs": tan()} | keywords))


# ---- round trips -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
@pytest.mark.parametrize("shape", [(16, 20), (3, 16, 20)])
def test_everything_comes_back(tmp_path, kind, shape):
    image = ccd(shape, unit=u.nmgy)
    image.mask = np.zeros(shape, bool)
    image.mask[..., 3, 4] = True
    image.uncertainty = kind(np.random.default_rng(1).uniform(0.5, 2, shape))
    image.psf = np.full((5, 5), 1 / 25.0)
    image.meta["OBJECT"] = "NGC 6976"
    before = image.copy()
    path = tmp_path / "image.fits"
    write_image(image, path)
    back = read_image(path)
    np.testing.assert_array_equal(back.data, image.data)
    assert back.data.dtype == np.float32
    np.testing.assert_array_equal(back.mask, image.mask)
    assert type(back.uncertainty) is kind
    np.testing.assert_array_equal(back.uncertainty.array, image.uncertainty.array)
    np.testing.assert_array_equal(back.psf, image.psf)
    assert back.unit == u.nmgy
    assert back.meta["OBJECT"] == "NGC 6976"
    assert back.wcs.naxis == len(shape)
    assert wcs_equal(back.wcs, image.wcs, shape, 1e-8)
    # the input is as it was
    np.testing.assert_array_equal(image.data, before.data)
    assert image.data.dtype.isnative
    assert dict(image.meta) == dict(before.meta)


def test_ccddata_reads_it(tmp_path):
    image = ccd(uncertainty=VarianceUncertainty(np.full((16, 20), 4.0)), mask=np.eye(16, 20, dtype=bool))
    write_image(image, tmp_path / "image.fits")
    back = CCDData.read(tmp_path / "image.fits")
    np.testing.assert_array_equal(back.data, image.data)
    np.testing.assert_array_equal(back.mask, image.mask)
    assert type(back.uncertainty) is VarianceUncertainty
    np.testing.assert_array_equal(back.uncertainty.array, 4.0)
    assert back.unit == u.adu
    assert wcs_equal(back.wcs, image.wcs, (16, 20), 1e-8)
    with fits.open(tmp_path / "image.fits") as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "MASK", "UNCERT"]
        assert hdus["UNCERT"].header["UTYPE"] == "VarianceUncertainty"
        assert hdus["MASK"].data.dtype == np.uint8


def test_what_ccddata_writes_is_read(tmp_path):
    image = ccd(uncertainty=InverseVariance(np.full((16, 20), 4.0)), mask=np.eye(16, 20, dtype=bool), unit="electron/s")
    image.psf = np.ones((3, 3)) / 9
    image.write(tmp_path / "image.fits")
    back = read_image(tmp_path / "image.fits")
    np.testing.assert_array_equal(back.data, image.data)
    np.testing.assert_array_equal(back.mask, image.mask)
    assert type(back.uncertainty) is InverseVariance
    assert back.unit == u.electron / u.s
    np.testing.assert_array_equal(back.psf, image.psf)


@pytest.mark.parametrize("form", ["list", "dict", "named list"])
def test_bands_go_to_one_file_and_come_back_as_a_cube(tmp_path, form):
    images = [
        ccd(seed=i, uncertainty=StdDevUncertainty(np.full((16, 20), i + 1.0)), mask=np.arange(320).reshape(16, 20) == i)
        for i in range(3)
    ]
    names = ["g", "r", "i"]
    if form == "named list":
        for image, name in zip(images, names, strict=True):
            image.meta["BAND"] = name
    path = tmp_path / "bands.fits"
    write_image(dict(zip(names, images, strict=True)) if form == "dict" else images, path)
    expected = ["0", "1", "2"] if form == "list" else names
    with fits.open(path) as hdus:
        hdus.verify("exception")
        first, second = ("BAND0", "BAND1") if form == "list" else names[:2]
        assert [hdu.name for hdu in hdus[1:4]] == [first, f"{first}_MASK", f"{first}_UNCERT"]
        np.testing.assert_array_equal(hdus[second].data, images[1].data)
    assert CCDData.read(path, hdu=second, hdu_uncertainty=f"{second}_UNCERT").uncertainty.array[0, 0] == 2
    np.testing.assert_array_equal(read_image(path, hdu=second).data, images[1].data)
    cube = read_image(path)
    assert cube.shape == (3, 16, 20)
    assert cube.meta["AGBANDS"] == ",".join(expected)
    bands = read_bands(path)
    assert list(bands) == expected
    for number, (image, back) in enumerate(zip(images, bands.values(), strict=True)):
        for array in (cube.data[number], back.data):
            np.testing.assert_array_equal(array, image.data)
        np.testing.assert_array_equal(back.mask, image.mask)
        np.testing.assert_array_equal(cube.mask[number], image.mask)
        np.testing.assert_array_equal(back.uncertainty.array, image.uncertainty.array)
        np.testing.assert_array_equal(cube.uncertainty.array[number], image.uncertainty.array)
        assert wcs_equal(back.wcs, image.wcs, (16, 20), 1e-8)
    assert cube.wcs.naxis == 3
    assert wcs_equal(cube.wcs, images[0].wcs, (16, 20), 1e-8)
    one = read_image(path, hdu=expected[1])
    np.testing.assert_array_equal(one.data, images[1].data)
    np.testing.assert_array_equal(one.uncertainty.array, 2.0)
    assert "AGBANDS" not in one.meta
    assert one.meta["BAND"] == expected[1]


def test_files_whose_extensions_are_bare_numbers_are_still_read(tmp_path):
    """As lists of bands without names were written before."""
    path = tmp_path / "old.fits"
    primary = fits.PrimaryHDU(header=fits.Header({"AGBANDS": "0,1"}))
    hdus = [primary]
    for number in "01":
        header = fits.Header({"BAND": number, "BUNIT": "adu"})
        hdus.append(fits.ImageHDU(np.full((3, 4), int(number), "f4"), header, name=number))
        hdus.append(
            fits.ImageHDU(np.full((3, 4), 2.0), fits.Header({"UTYPE": "StdDevUncertainty"}), f"{number}_UNCERT")
        )
    fits.HDUList(hdus).writeto(path)
    cube = read_image(path)
    assert cube.meta["AGBANDS"] == "0,1"
    np.testing.assert_array_equal(cube.data[:, 0, 0], [0, 1])
    assert cube.uncertainty.array.shape == (2, 3, 4)
    assert list(read_bands(path)) == ["0", "1"]


def test_numbered_bands_must_not_meet_named_ones(tmp_path):
    with pytest.raises(InputError, match=r"\['1', 'band1'\].*names that differ"):
        write_image({"1": ccd(), "band1": ccd()}, tmp_path / "bands.fits")


def test_a_cube_that_was_read_can_be_written_again(tmp_path):
    write_image({"g": ccd(), "r": ccd(seed=1)}, tmp_path / "a.fits")
    write_image(read_image(tmp_path / "a.fits"), tmp_path / "b.fits")
    back = read_image(tmp_path / "b.fits")
    assert back.meta["AGBANDS"] == "g,r"
    np.testing.assert_array_equal(back.data, read_image(tmp_path / "a.fits").data)


@pytest.mark.parametrize("form", ["plain", "sip", "tpv"])
@pytest.mark.parametrize("cube", [False, True])
def test_distorted_wcs_survives(tmp_path, form, cube):
    wcs = tan(sip=form == "sip", tpv=form == "tpv")
    shape = (2, 64, 50) if cube else (64, 50)
    image = CCDData(np.ones(shape, "f4"), unit="adu", wcs=cube_wcs(wcs, 2) if cube else wcs)
    write_image(image, tmp_path / "image.fits")
    back = read_image(tmp_path / "image.fits")
    x, y = np.random.default_rng(0).uniform(0, 50, (2, 100))
    np.testing.assert_allclose(
        np.array(back.wcs.celestial.all_pix2world(x, y, 0)) * 3600,
        np.array(wcs.all_pix2world(x, y, 0)) * 3600,
        atol=1e-6,
    )
    if cube:
        assert back[:, 10:, 5:].shape == (2, 54, 45)


def with_lookup_tables():
    from astropy.wcs import DistortionLookupTable

    wcs = tan()
    table = np.random.default_rng(0).normal(0, 0.5, (5, 6)).astype("f4")
    wcs.cpdis1 = DistortionLookupTable(table, (1.0, 1.0), (1.0, 1.0), (4.0, 4.0))
    wcs.cpdis2 = DistortionLookupTable(-table, (1.0, 1.0), (1.0, 1.0), (4.0, 4.0))
    wcs.wcs.set()
    return wcs


def test_look_up_tables_go_along(tmp_path):
    image = CCDData(np.ones((16, 20), "f4"), unit="adu", wcs=with_lookup_tables(), mask=np.eye(16, 20, dtype=bool))
    write_image(image, tmp_path / "image.fits")
    back = read_image(tmp_path / "image.fits")
    x, y = np.random.default_rng(0).uniform(1, 14, (2, 100))
    assert np.abs(np.array(tan().all_pix2world(x, y, 0)) - image.wcs.all_pix2world(x, y, 0)).max() > 1e-6
    np.testing.assert_allclose(back.wcs.all_pix2world(x, y, 0), image.wcs.all_pix2world(x, y, 0), rtol=0, atol=1e-10)
    np.testing.assert_array_equal(back.mask, image.mask)
    with pytest.raises(ImageWriteError, match="look-up tables.*its own file"):
        write_image([image, image], tmp_path / "bands.fits")


def test_a_2d_wcs_of_a_cube_becomes_one_that_can_be_sliced(tmp_path):
    write_image(CCDData(np.ones((2, 16, 20)), unit="adu", wcs=tan()), tmp_path / "cube.fits")
    cut = read_image(tmp_path / "cube.fits")[:, 4:, 3:]
    np.testing.assert_allclose(
        cut.wcs.celestial.all_pix2world([[0, 0]], 0), tan().all_pix2world([[3, 4]], 0), atol=1e-11
    )


def test_a_sliced_ndcube_wcs_is_resolved(tmp_path):
    image = NDDataRef(np.ones((16, 20)), unit="adu", wcs=tan())[4:, 3:]
    write_image(image, tmp_path / "cut.fits")
    back = read_image(tmp_path / "cut.fits")
    np.testing.assert_allclose(back.wcs.all_pix2world([[0, 0]], 0), tan().all_pix2world([[3, 4]], 0), atol=1e-11)


def test_no_wcs_stays_none_whatever_meta_says(tmp_path):
    image = ccd(wcs=None, meta={"CRVAL1": 3.0, "CTYPE1": "RA---TAN", "CD1_1": 1.0, "PSF_P0": 0.5, "CDELT2A": 1.0})
    write_image(image, tmp_path / "image.fits")
    back = read_image(tmp_path / "image.fits")
    assert back.wcs is None
    assert "CTYPE1" not in fits.getheader(tmp_path / "image.fits")
    assert back.meta["PSF_P0"] == 0.5


def test_an_old_wcs_in_meta_does_not_win(tmp_path):
    image = ccd(
        meta=fits.Header({"CD1_1": 5.0, "CRVAL1": 1.0, "PC1_1": 7.0, "A_ORDER": 2, "A_2_0": 1.0, "LONPOLE": 3.0})
    )
    write_image(image, tmp_path / "image.fits")
    assert wcs_equal(read_image(tmp_path / "image.fits").wcs, tan(), (16, 20), 1e-8)


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", ">f4", ">f8", "i1", "u1", "i2", ">i2", "u2", "i4", "u4", ">u4", "i8", "u8", "?"]
)
def test_every_dtype_keeps_its_values(tmp_path, dtype):
    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = np.array([[-1.5, 0.0, 3.25], [1e3, -2e4, 0.5]])
    elif kind.kind == "b":
        values = np.array([[0, 1, 1], [1, 0, 0]])
    else:
        limits = np.iinfo(kind)
        values = np.array([[limits.min, limits.max, 0], [1, 2, limits.max // 2]], dtype=kind)
    array = values.astype(dtype)
    write_image(NDData(array, unit="adu"), tmp_path / "image.fits")
    np.testing.assert_array_equal(fits.getdata(tmp_path / "image.fits"), array.astype(kind.newbyteorder("=")))
    np.testing.assert_array_equal(read_image(tmp_path / "image.fits").data, array.astype("f8"))


@pytest.mark.parametrize("layout", ["reversed", "transposed", "strided", "read-only", "broadcast"])
def test_memory_layout_does_not_matter(tmp_path, layout):
    array = np.arange(60.0).reshape(6, 10)
    array = {
        "reversed": array[::-1, ::-1],
        "transposed": array.T,
        "strided": array[::2, 1::3],
        "read-only": array,
        "broadcast": np.broadcast_to(array[0], (4, 10)),
    }[layout]
    if layout == "read-only":
        array.setflags(write=False)
    write_image(NDData(array, unit="adu"), tmp_path / "image.fits")
    np.testing.assert_array_equal(fits.getdata(tmp_path / "image.fits"), array)


def test_large_images_are_written_in_strips(tmp_path, monkeypatch):
    monkeypatch.setattr("astrogan.image.write._CHUNK", 700)
    image = ccd((3, 16, 20))
    write_image(image, tmp_path / "image.fits")
    np.testing.assert_array_equal(fits.getdata(tmp_path / "image.fits"), image.data)


@pytest.mark.parametrize("name", ["a.fits", "a.fit", "a.FITS", "a.fts", "a.fits.gz"])
def test_names_and_the_same_bytes_every_time(tmp_path, name):
    image = ccd(mask=np.eye(16, 20, dtype=bool))
    write_image(image, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    write_image(image, tmp_path / name, overwrite=True)
    assert (tmp_path / name).read_bytes() == first
    np.testing.assert_array_equal(read_image(tmp_path / name).data, image.data)
    if name.endswith("gz"):
        assert first[:2] == b"\x1f\x8b"
        assert len(gzip.decompress(first)) % 2880 == 0


UNITS = [
    "adu",
    "DN",
    "electron / s",
    "nmgy",
    "MJy / sr",
    "erg / (Angstrom s cm2)",
    "1e-20 erg / (Angstrom s cm2)",
    "ct",
    "",
    "K",
    "3.631e-06 Jy",
    "mag / arcsec2",
    "Jy / beam",
    "ph",
]


@pytest.mark.parametrize("unit", UNITS)
def test_units_come_back(tmp_path, unit):
    write_image(NDData(np.ones((3, 3)), unit=unit), tmp_path / "image.fits")
    assert read_image(tmp_path / "image.fits").unit == u.Unit(unit)
    assert u.Unit(unit_text(u.Unit(unit))) == u.Unit(unit)


def test_the_unit_of_the_uncertainty_is_brought_to_the_images(tmp_path):
    image = NDData(np.ones((3, 3)), unit="Jy", uncertainty=StdDevUncertainty(np.full((3, 3), 2.0), unit="mJy"))
    write_image(image, tmp_path / "image.fits")
    np.testing.assert_allclose(read_image(tmp_path / "image.fits").uncertainty.array, 2e-3)
    assert image.uncertainty.array[0, 0] == 2


# ---- headers -----------------------------------------------------------------------------------------------------

NASTY = {
    "SEEING": float("nan"),
    "LIMIT": np.float32("inf"),
    "NOTHING": None,
    "OPTIONS": {"a": 1, "b": [1, 2]},
    "LIST": [1, 2, 3],
    "ARRAY": np.arange(1000),
    "PI_NAME": "Frédéric Müller\n(ESO)",
    "a key that is far too long for FITS": 3.5,
    "an even longer key that leaves little room for its value, really": "x" * 70,
    "k" * 90: 1,
    "LONGTEXT": "word " * 60,
    "EXPOSURE": 3.5 * u.s,
    "BIG": 2**70,
    "FLAG": np.bool_(True),
    "COUNT": np.int64(3),
    "WHEN": datetime.datetime(2026, 1, 1),
    "QUOTE": "it's",
    "a=b": 1,
    "日本": "語",
    5: "five",
    "": "blank",
    "HISTORY": ["one", "two"],
    "COMMENT": "three",
    "header": fits.Header({"NESTED": 1}),
    "SIMPLE": False,
    "NAXIS1": 7,
    "BITPIX": 3,
    "BUNIT": "parrots",
    "EXTNAME": "SCI",
    "CHECKSUM": "x",
}


def test_every_header_can_be_written(tmp_path):
    image = NDData(np.ones((3, 4)), unit="adu", meta=dict(NASTY))
    write_image(image, tmp_path / "image.fits")
    with fits.open(tmp_path / "image.fits") as hdus:
        hdus.verify("exception")
        header = hdus[0].header
    assert (tmp_path / "image.fits").read_bytes()[:2880].isascii()
    assert header["SEEING"] == "nan"
    assert header["LIMIT"] == "inf"
    assert header["NOTHING"] is None or isinstance(header["NOTHING"], fits.card.Undefined)
    assert header["OPTIONS"] == "a=1, b=[1, 2]"
    assert header["ARRAY"] == "array of shape (1000,)"
    assert header["PI_NAME"] == "Frederic Muller (ESO)"
    assert header["a key that is far too long for FITS"] == 3.5
    assert header["LONGTEXT"] == ("word " * 60).rstrip()
    assert header["EXPOSURE"] == "3.5 s"
    assert header["BIG"] == str(2**70)
    assert header["FLAG"] is True
    assert header["COUNT"] == 3
    assert header["QUOTE"] == "it's"
    assert list(header["HISTORY"]) == ["one", "two"]
    assert list(header["COMMENT"]) == ["three"]
    assert header["NESTED"] == 1
    assert header["SIMPLE"] is True
    assert header["NAXIS1"] == 4
    assert header["BUNIT"] == "adu"
    assert image.meta["OPTIONS"] is NASTY["OPTIONS"]
    back = read_image(tmp_path / "image.fits")
    write_image(back, tmp_path / "again.fits")
    assert read_image(tmp_path / "again.fits").meta.tostring() == back.meta.tostring()


@given(
    st.dictionaries(
        st.text(max_size=40),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.complex_numbers(),
            st.text(max_size=200),
            st.binary(max_size=20),
            st.lists(st.integers(), max_size=5),
        ),
        max_size=6,
    )
)
def test_any_meta_gives_a_header_that_reads_as_it_was_written(meta):
    header = safe_header(meta)
    text = header.tostring()
    assert text.isascii()
    assert fits.Header.fromstring(text).tostring() == text
    for key, value in header.items():
        if isinstance(value, float):
            assert np.isfinite(value), key
    for key, value in meta.items():
        if isinstance(value, int | float) and value == value and abs(value) < 2**63 and key.isascii() and key.isalpha():
            kept = header.get(key)
            if key.upper() in ("COMMENT", "HISTORY"):  # astropy gives these as lists of lines
                kept = None if kept is None else {"True": True, "False": False}.get(str(kept[0]), value)
            assert kept is None or kept == value


def test_header_objects_keep_comments_order_and_repeats():
    header = fits.Header()
    header["GAIN"] = (1.5, "electrons per ADU")
    header.add_history("first")
    header["HIERARCH ESO DET CHIP"] = ("abc", "chip")
    header.add_history("second")
    header["CRVAL1"] = 5.0
    header["NOTE"] = "x" * 100
    safe = safe_header(header)
    assert list(safe) == [key for key in header if key != "CRVAL1"]
    assert list(safe["HISTORY"]) == ["first", "second"]
    assert safe.comments["GAIN"] == "electrons per ADU"
    assert safe["NOTE"] == "x" * 100
    assert safe_header(safe).tostring() == safe.tostring()
    assert "CRVAL1" in header


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.TIFF", "a.npy", "a", "a.fits.bz2", "a.txt"])
def test_other_formats_are_refused(tmp_path, name):
    with pytest.raises(ImageWriteError, match=r"\.fits"):
        write_image(ccd(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ImageWriteError, match="neither the flux nor the WCS"):
        write_image(ccd(), tmp_path / "a.png")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.ones((3, 3)), "ndarray.*CCDData"),
        ([], "image is empty"),
        ({}, "image is empty"),
        ([np.ones((3, 3))], r"image\['0'\] is ndarray"),
        ({"g": NDData(np.ones((3, 3))), "G": NDData(np.ones((3, 3)))}, "names that differ"),
        ({"": NDData(np.ones((3, 3)))}, "names that differ"),
        (NDData(np.ones(3)), r"shape \(3,\)"),
        (NDData(np.ones((0, 3))), "no axis empty"),
        (NDData(np.ones((2, 2, 2, 2))), "image has shape"),
        (NDData(np.ones((3, 3), complex)), "complex128"),
        (NDData(np.ones((3, 3)), mask=np.ones((2, 2), bool)), r"mask has shape \(2, 2\)"),
        (NDData(np.ones((3, 3)), uncertainty=StdDevUncertainty(np.ones((2, 2)))), r"uncertainty has shape \(2, 2\)"),
        (NDData(np.ones((3, 3)), uncertainty=UnknownUncertainty(np.ones((3, 3)))), "UnknownUncertainty"),
        (None, "NoneType"),
    ],
)
def test_images_that_cannot_be_written_are_refused_before_a_file_is_made(tmp_path, image, message):
    with pytest.raises(InputError, match=message):
        write_image(image, tmp_path / "a.fits")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_stays_unless_it_is_said(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(b"old")
    with pytest.raises(ImageWriteError, match=r"a\.fits.*overwrite=True \(--overwrite\)"):
        write_image(ccd(), path)
    assert path.read_bytes() == b"old"
    write_image(ccd(), path, overwrite=True)
    assert read_image(path).shape == (16, 20)
    assert [p.name for p in tmp_path.iterdir()] == ["a.fits"]


# ---- atomic files ------------------------------------------------------------------------------------------------


def test_the_temporary_file_is_beside_the_target_with_its_suffixes(tmp_path):
    with atomic_path(tmp_path / "a.fits.gz") as temporary:
        assert temporary.parent == tmp_path.resolve()
        assert temporary.name.endswith("a.fits.gz")
        assert not temporary.exists()
        temporary.write_bytes(b"new")
        assert not (tmp_path / "a.fits.gz").exists()
    assert (tmp_path / "a.fits.gz").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError, GeneratorExit])
def test_whatever_happens_the_old_file_stays(tmp_path, error):
    path = tmp_path / "a.fits"
    path.write_bytes(b"old")

    def interrupted():
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.fits"]


def test_system_errors_become_write_errors_with_the_reason(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(b"old")
    with pytest.raises(ImageWriteError, match=r"a\.fits.*No space left.*untouched"), atomic_path(path, overwrite=True):
        raise OSError(28, "No space left on device")
    assert path.read_bytes() == b"old"


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(ImageWriteError, match="nothing was written"), atomic_path(tmp_path / "a.fits"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path, umask):
    old = os.umask(umask)
    try:
        write_image(ccd(), tmp_path / "a.fits")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.fits").stat().st_mode) == 0o666 & ~umask


def test_an_overwritten_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_image(ccd(), path, overwrite=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_links_are_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.fits").write_bytes(b"old")
    (tmp_path / "link.fits").symlink_to(tmp_path / "real" / "a.fits")
    write_image(ccd(), tmp_path / "link.fits", overwrite=True)
    assert (tmp_path / "link.fits").is_symlink()
    assert read_image(tmp_path / "real" / "a.fits").shape == (16, 20)


@pytest.mark.parametrize("kind", ["folder", "no folder", "file as folder", "pipe", "too long"])
def test_paths_that_cannot_be_written(tmp_path, kind):
    path = tmp_path / "a.fits"
    if kind == "folder":
        path.mkdir()
    elif kind == "no folder":
        path = tmp_path / "missing" / "a.fits"
    elif kind == "file as folder":
        path.write_bytes(b"old")
        path = path / "b.fits"
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = tmp_path / ("a" * 300 + ".fits")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ImageWriteError, match=r"\.fits"):
        write_image(ccd(), path, overwrite=True)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("path", [None, 3, b"a.fits\0", "a\0.fits"])
def test_what_is_no_path(path):
    with pytest.raises((InputError, ImageWriteError), match="path="):
        write_image(ccd(), path)
    with pytest.raises(InputError, match="path="), atomic_path(path):
        pass


@pytest.mark.parametrize("length", [200, 240, 255])
def test_long_names_work(tmp_path, length):
    name = "é" * ((length - 5) // 2) + "x" * ((length - 5) % 2) + ".fits"
    write_image(ccd(), tmp_path / name)
    assert read_image(tmp_path / name).shape == (16, 20)


def test_of_two_writers_of_a_new_file_one_wins_and_one_hears_of_it(tmp_path):
    """Without overwrite, the file that is there is never replaced, however close the race."""
    path = tmp_path / "a.txt"
    barrier, outcomes, refusals = threading.Barrier(8), [], []

    def write(number):
        try:
            with atomic_path(path) as temporary:
                temporary.write_text(str(number))
                barrier.wait()
            outcomes.append(number)
        except ImageWriteError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(outcomes) == 1
    assert len(refusals) == 7
    assert all("overwrite=True" in text for text in refusals)
    assert path.read_text() == str(outcomes[0])
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_file_systems_without_hard_links(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("astrogan.image.write.os.link", refused)
    write_image(ccd(), tmp_path / "a.fits")
    assert read_image(tmp_path / "a.fits").shape == (16, 20)

    def beaten():
        with atomic_path(tmp_path / "b.fits") as temporary:
            temporary.write_bytes(b"mine")
            (tmp_path / "b.fits").write_bytes(b"theirs")

    with pytest.raises(ImageWriteError, match="exists"):
        beaten()
    assert (tmp_path / "b.fits").read_bytes() == b"theirs"


def test_many_writers_with_overwrite_leave_one_whole_file(tmp_path):
    path = tmp_path / "a.fits"
    images = [NDData(np.full((64, 64), float(number)), unit="adu") for number in range(4)]
    seen = []

    def write(image):
        for _ in range(5):
            write_image(image, path, overwrite=True)
            seen.append(np.unique(read_image(path).data))

    threads = [threading.Thread(target=write, args=(image,)) for image in images]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(seen) == 20
    assert all(len(values) == 1 for values in seen)
    assert [p.name for p in tmp_path.iterdir()] == ["a.fits"]


# ---- tables ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ecsv", ".fits", ".csv"])
def test_tables_come_back(tmp_path, suffix):
    table = Table(
        {"id": [1, 2], "flux": [1.5, 2.5], "name": ["a", "é"]}, meta={"SEEING": float("nan"), "a long keyword": "b"}
    )
    path = tmp_path / f"table{suffix}"
    write_table(table, path)
    back = Table.read(path)
    np.testing.assert_array_equal(back["flux"], [1.5, 2.5])
    assert list(back["name"]) == (["a", "?"] if suffix == ".fits" else ["a", "é"])
    assert table.meta["a long keyword"] == "b"
    assert list(table["name"]) == ["a", "é"]
    with pytest.raises(ImageWriteError, match="overwrite=True"):
        write_table(table, path)
    write_table(table[:1], path, overwrite=True)
    assert len(Table.read(path)) == 1


@pytest.mark.parametrize("suffix", [".ecsv", ".fits", ".csv"])
def test_catalogues_with_sky_positions_and_units(tmp_path, suffix):
    from astropy.coordinates import SkyCoord

    table = QTable({"flux": [1.0, 2.0] * u.nmgy, "sky": SkyCoord([1, 2] * u.deg, [3, 4] * u.deg)})
    path = tmp_path / f"table{suffix}"
    write_table(table, path)
    assert path.stat().st_size > 0
    if suffix == ".ecsv":
        back = QTable.read(path)
        assert back["flux"].unit == u.nmgy
        np.testing.assert_allclose(back["sky"].dec.deg, [3, 4])


def test_tables_that_cannot_be_written(tmp_path):
    with pytest.raises(ImageWriteError, match=r"\.ecsv"):
        write_table(Table({"a": [1]}), tmp_path / "table.txt")
    with pytest.raises(InputError, match=r"\.ecsv keeps everything"):
        write_table(Table({"a": np.ones((2, 3))}), tmp_path / "table.csv")
    assert list(tmp_path.iterdir()) == []


def test_arguments_the_wrong_way_round(tmp_path):
    with pytest.raises(InputError, match=r"path=CCDData.*\(image, path\)"):
        write_image(tmp_path / "x.fits", CCDData(np.ones((3, 3)), unit="adu"))
