"""Every way in which files hold images, and what belongs to an image."""

import bz2
import gzip
import logging
import lzma
import shutil
import tarfile
import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from astrogan.exceptions import (
    AstroganWarning,
    ImageReadError,
    InputError,
    RangeWarning,
    UncertaintyWarning,
    UnitError,
)
from astrogan.image._hdu_roles import kind_in_name
from astrogan.image._headers import parse_unit
from astrogan.image.read import read_bands, read_image
from astrogan.image.wcs import wcs_equal

DATA = np.random.default_rng(5).normal(10, 3, (12, 17)).astype("f4")

SKY = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0,
    "CRVAL2": 2.0,
    "CRPIX1": 8.5,
    "CRPIX2": 6.5,
    "CD1_1": -1e-4,
    "CD1_2": 0.0,
    "CD2_1": 0.0,
    "CD2_2": 1e-4,
}


def header(**cards):
    return fits.Header({"BUNIT": "adu"} | cards)


def write(path, *hdus):
    """A file of (class, data, header) or HDUs."""
    fits.HDUList(list(hdus)).writeto(path)
    return path


def primary(data=None, **cards):
    return fits.PrimaryHDU(data, header(**cards) if data is not None else fits.Header(cards))


def extension(data, name=None, **cards):
    return fits.ImageHDU(data, fits.Header(cards), name=name)


# ---- packings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", ["plain", "gz", "bz2", "xz", "wrong suffix"])
def test_packed_files(tmp_path, packing):
    raw = write(tmp_path / "a.fits", primary(DATA, **SKY)).read_bytes()
    path = tmp_path / ("a.fits" if packing in ("plain", "wrong suffix") else f"a.fits.{packing}")
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "wrong suffix": gzip.compress}
    path.write_bytes(pack.get(packing, bytes)(raw))
    image = read_image(path)
    np.testing.assert_array_equal(image.data, DATA)
    assert image.data.dtype == np.float32
    assert image.data.dtype.isnative
    assert image.data.flags.writeable
    assert image.unit == u.adu
    assert image.mask is None
    assert image.uncertainty is None
    assert image.wcs.naxis == 2
    assert read_image(str(path)).shape == (12, 17)


@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"])
@pytest.mark.parametrize("dtype", ["i2", "i4", "u1"])
def test_tile_compressed_integers_are_exact(tmp_path, compression, dtype):
    data = (np.arange(40 * 50).reshape(40, 50) % 251).astype(dtype)
    hdu = fits.CompImageHDU(data, header(BAND="r", **SKY), compression_type=compression, tile_shape=(8, 50))
    image = read_image(write(tmp_path / "a.fits", fits.PrimaryHDU(), hdu))
    np.testing.assert_array_equal(image.data, data.astype("f8"))
    assert image.meta["BAND"] == "r"
    assert image.wcs.pixel_shape == (50, 40)
    assert not [key for key in image.meta if key.startswith(("Z", "TFORM", "TTYPE"))]
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits", section=np.s_[5:23, 7:40]).data, data[5:23, 7:40])


@pytest.mark.parametrize("quantize", [0, 16])
def test_tile_compressed_floats_are_what_astropy_reads(tmp_path, quantize):
    data = np.random.default_rng(0).normal(0, 1, (2, 40, 50)).astype("f4")
    data[0, 3, 4] = np.nan
    hdu = fits.CompImageHDU(
        data,
        header(),
        compression_type="RICE_1" if quantize else "GZIP_2",
        quantize_level=quantize,
        tile_shape=(1, 7, 50),
    )
    image = read_image(write(tmp_path / "a.fits", fits.PrimaryHDU(), hdu))
    np.testing.assert_array_equal(image.data, fits.getdata(tmp_path / "a.fits", 1))
    assert image.mask.sum() == 1
    assert image.mask[0, 3, 4]


def test_large_images_are_read_in_strips(tmp_path, monkeypatch):
    cube = np.arange(3 * 12 * 17, dtype="i4").reshape(3, 12, 17)
    path = write(tmp_path / "a.fits", primary(cube))
    packed = write(tmp_path / "b.fits", fits.PrimaryHDU(), fits.CompImageHDU(cube, header(), tile_shape=(1, 3, 17)))
    for chunk in (1, 200, 500):
        monkeypatch.setattr("astrogan.image._fits_file._CHUNK", chunk)
        for name in (path, packed):
            np.testing.assert_array_equal(read_image(name).data, cube)
            np.testing.assert_array_equal(read_image(name, section=np.s_[2:9, 3:5]).data, cube[:, 2:9, 3:5])


# ---- numbers -----------------------------------------------------------------------------------------------------


@given(
    data=st.sampled_from(["u1", "i2", "i4", "i8", "u2", "u4", "u8", "f4", "f8"]).flatmap(
        lambda dtype: arrays(np.dtype(dtype), st.tuples(st.integers(1, 9), st.integers(1, 9)))
    )
)
def test_every_bitpix_gives_its_values(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bitpix") / "a.fits"
    fits.writeto(path, data)
    image = read_image(path, unit="adu")
    small = data.dtype.itemsize <= 2 or data.dtype == np.float32
    assert image.data.dtype == (np.float32 if small else np.float64)
    np.testing.assert_array_equal(image.data, data.astype(image.data.dtype))
    bad = ~np.isfinite(data)
    assert (image.mask is None) == (not bad.any())
    if bad.any():
        np.testing.assert_array_equal(image.mask, bad)


@given(
    stored=st.sampled_from(["u1", ">i2", ">i4", ">i8", ">f4", ">f8"]).flatmap(
        lambda dtype: arrays(
            np.dtype(dtype),
            (3, 4),
            elements=st.integers(0, 120) if dtype[-2:] in ("u1",) else st.integers(-120, 120),
        )
    ),
    scale=st.sampled_from([1.0, 2.92273835509, -0.5, 1e-3]),
    zero=st.sampled_from([0.0, 3713.66692596, 32768.0, -1.5]),
    blank=st.one_of(st.none(), st.integers(0, 5)),
)
def test_scaled_and_blank_numbers(tmp_path_factory, stored, scale, zero, blank):
    """BSCALE, BZERO and BLANK, unsigned integers with BLANK included, which astropy leaves as they are."""
    path = tmp_path_factory.mktemp("scaled") / "a.fits"
    cards = {"BSCALE": scale, "BZERO": zero, "BUNIT": "adu"}
    whole = stored.dtype.kind != "f"
    if blank is not None and whole:
        cards["BLANK"] = blank
    raw_header = fits.PrimaryHDU(stored).header
    raw_header.update(cards)
    block = stored.tobytes()
    path.write_bytes(raw_header.tostring().encode() + block + b"\0" * (-len(block) % 2880))
    image = read_image(path)
    expected = stored.astype("f8") * scale + zero
    np.testing.assert_allclose(image.data, expected, rtol=1e-7 if image.data.dtype == "f4" else 1e-15, atol=1e-12)
    expected_mask = (stored == blank) if blank is not None and whole else np.zeros((3, 4), bool)
    np.testing.assert_array_equal(np.zeros((3, 4), bool) if image.mask is None else image.mask, expected_mask)
    assert "BLANK" not in image.meta
    assert "BSCALE" not in image.meta


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("zero", [0, 32768])
def test_blank_is_masked(tmp_path, compressed, zero):
    stored = np.array([[1, -5, 3], [-5, 0, 7]], ">i2")
    hdu = fits.PrimaryHDU(stored)
    hdu.header.update({"BLANK": -5, "BUNIT": "adu", "BZERO": zero})
    raw = hdu.header.tostring().encode() + stored.tobytes()
    (tmp_path / "a.fits").write_bytes(raw + b"\0" * (-len(raw) % 2880))
    path = tmp_path / "a.fits"
    if compressed:
        with fits.open(path, do_not_scale_image_data=True) as hdus:
            packed = fits.CompImageHDU(np.asarray(hdus[0].data), header(BLANK=-5))
            packed.header["BZERO"] = zero
        path = write(tmp_path / "b.fits", fits.PrimaryHDU(), packed)
        with fits.open(path, mode="update", disable_image_compression=True) as hdus:
            hdus[1].header["ZBLANK"] = -5
            hdus[1].header["BZERO"] = zero
    image = read_image(path)
    np.testing.assert_array_equal(image.mask, stored == -5)
    np.testing.assert_array_equal(image.data[stored != -5], stored[stored != -5].astype("f4") + zero)


def test_nan_and_infinity_are_masked(tmp_path):
    data = DATA.copy()
    data[1, 2], data[3, 4], data[5, 6] = np.nan, np.inf, -np.inf
    image = read_image(write(tmp_path / "a.fits", primary(data)))
    assert image.mask.sum() == 3
    np.testing.assert_array_equal(image.data, data)


def test_byte_order_is_native_everywhere(tmp_path):
    image = read_image(
        write(
            tmp_path / "a.fits",
            primary(DATA),
            extension(DATA**2, "VAR"),
            extension((DATA > 11).astype("u1"), "MASK"),
            extension(np.ones((3, 3), "f4") / 9, "PSF"),
        )
    )
    for array in (image.data, image.uncertainty.array, image.mask, image.psf):
        assert array.dtype.isnative


# ---- units -------------------------------------------------------------------------------------------------------

SPELLINGS = {
    "nanomaggies": u.nmgy,
    "nanomaggy": u.nmgy,
    "nmgy": u.nmgy,
    "nMgy": u.nmgy,
    "NANOMAGGIES": u.nmgy,
    "maggies": u.mgy,
    "counts": u.ct,
    "COUNTS": u.ct,
    "count": u.ct,
    "DN": u.DN,
    "dn": u.DN,
    "DN/s": u.DN / u.s,
    "ADU": u.adu,
    "Adu": u.adu,
    "ADU/s": u.adu / u.s,
    "e-": u.electron,
    "e-/s": u.electron / u.s,
    "E-/S": u.electron / u.s,
    "ELECTRONS": u.electron,
    "ELECTRONS/S": u.electron / u.s,
    "electrons/sec": u.electron / u.s,
    "COUNTS/S": u.ct / u.s,
    "cps": u.ct / u.s,
    "MJy/sr": u.MJy / u.sr,
    "mJy": u.mJy,
    "JY/beam": u.Jy / u.beam,
    "uJy": u.uJy,
    "erg/s/cm2/A": u.erg / u.s / u.cm**2 / u.AA,
    "erg/cm^2/s/Ang": u.erg / u.s / u.cm**2 / u.AA,
    "1E-17 erg/cm^2/s/Ang": u.Unit(1e-17 * u.erg / u.s / u.cm**2 / u.AA),
    "10**(-20)*erg/s/cm**2/Angstrom": u.Unit(1e-20 * u.erg / u.s / u.cm**2 / u.AA),
    "electron s-1": u.electron / u.s,
    "DN / pixel": u.DN / u.pix,
    "DN/S": u.DN / u.s,
    "1e-3 e-/s": u.Unit(1e-3 * u.electron / u.s),
    "A": u.A,
    "": u.dimensionless_unscaled,
    "unitless": u.dimensionless_unscaled,
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_spellings_of_units(text):
    assert parse_unit(text) == SPELLINGS[text]


@pytest.mark.parametrize("text", ["parrots", "e-e-", "???", "flux", "1 2 3 x"])
def test_unknown_units(text):
    with pytest.raises(UnitError, match="unit=.*'adu'"):
        parse_unit(text)


@given(st.text(max_size=20))
def test_any_text_is_a_unit_or_an_error_that_says_so(text):
    try:
        assert isinstance(parse_unit(text), u.UnitBase | u.FunctionUnitBase)
        message = repr(text)
    except UnitError as error:
        message = str(error)
    assert repr(text) in message


def test_bunit_is_read_overruled_or_missed(tmp_path, caplog):
    path = write(tmp_path / "a.fits", primary(DATA, BUNIT="nanomaggies"))
    assert read_image(path).unit == u.nmgy
    with caplog.at_level(logging.INFO, "astrogan"):
        assert read_image(path, unit="nmgy").unit == u.nmgy
        assert caplog.text == ""
        image = read_image(path, unit=u.Jy)
    assert image.unit == u.Jy
    assert "unit=Jy is used instead of BUNIT='nanomaggies'" in caplog.text
    assert "BUNIT was 'nanomaggies'" in str(image.meta["HISTORY"])
    assert "BUNIT" not in image.meta
    assert read_image(path, unit="").unit == u.dimensionless_unscaled


@pytest.mark.parametrize("bunit", [None, "", "   "])
def test_without_a_unit_the_remedy_is_named(tmp_path, bunit):
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(DATA, fits.Header({} if bunit is None else {"BUNIT": bunit})))
    with pytest.raises(UnitError, match=r"a\.fits.*no BUNIT.*unit='adu' \(--unit adu\)"):
        read_image(path)
    assert read_image(path, unit="DN").unit == u.DN


def test_unknown_units_are_named_with_the_remedy(tmp_path):
    path = write(tmp_path / "a.fits", primary(DATA, BUNIT="parrots"))
    with pytest.raises(UnitError, match=r"BUNIT='parrots'.*unit='adu' \(--unit adu\)"):
        read_image(path)
    assert read_image(path, unit="DN").unit == u.DN
    with pytest.raises(UnitError, match="unit='geese'"):
        read_image(path, unit="geese")
    with pytest.raises(UnitError, match="unit="):
        read_image(path, unit=object())


# ---- HDUs --------------------------------------------------------------------------------------------------------


def test_the_first_image_is_taken_unless_another_is_asked_for(tmp_path, caplog):
    path = write(
        tmp_path / "a.fits",
        primary(),
        fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])]),
        extension(DATA, "SCI", BUNIT="adu"),
        extension(DATA * 2, "DEEP", BUNIT="DN"),
    )
    np.testing.assert_array_equal(read_image(path).data, DATA)
    for hdu in (3, np.int64(3), "DEEP", "deep"):
        image = read_image(path, hdu=hdu)
        np.testing.assert_array_equal(image.data, DATA * 2)
        assert image.unit == u.DN
    with pytest.raises(ImageReadError, match=r"hdu=9 is not in.*1: table; 2 'SCI': image 12 x 17"):
        read_image(path, hdu=9)
    with pytest.raises(ImageReadError, match=r"hdu='ERR' is not in"):
        read_image(path, hdu="ERR")
    with pytest.raises(ImageReadError, match=r"HDU 1 holds no image \(table\).*give hdu="):
        read_image(path, hdu=1)
    with pytest.raises(ImageReadError, match=r"HDU 0 holds no image"):
        read_image(path, hdu=0)


def test_images_that_are_no_bands_are_not_stacked(tmp_path, caplog):
    path = write(tmp_path / "a.fits", primary(DATA), extension(DATA * 2), extension(DATA * 3))
    with caplog.at_level(logging.INFO, "astrogan"):
        np.testing.assert_array_equal(read_image(path).data, DATA)
    assert "give hdu= for one of [1, 2]" in caplog.text


BANDS = {
    "same shape and sky": ({}, {}, True),
    "another sky": ({}, {"CRVAL1": 150.001}, False),
    "a hair apart": ({}, {"CRVAL1": 150.0 + 1e-8}, True),
    "no sky": ({"CTYPE1": "", "CTYPE2": ""}, {}, False),
    "same name": ({}, {"BAND": "g"}, False),
    "no name": ({}, {"BAND": ""}, False),
}


@pytest.mark.parametrize("case", BANDS)
def test_bands_in_one_file_become_a_cube(tmp_path, case):
    first, second, stacked = BANDS[case]
    path = write(
        tmp_path / "a.fits",
        primary(),
        extension(DATA, **SKY | {"BUNIT": "nmgy", "BAND": "g"} | first),
        extension(DATA * 2, **SKY | {"BUNIT": "nmgy", "BAND": "r"} | second),
    )
    image = read_image(path)
    if stacked:
        np.testing.assert_array_equal(image.data, [DATA, DATA * 2])
        assert image.meta["AGBANDS"] == "g,r"
        assert "BAND" not in image.meta
        assert image.wcs.naxis == 3
        assert image[:, 2:, 3:].wcs.celestial.wcs.crpix[0] == 5.5
        assert read_image(path, hdu="r").data[0, 0] == DATA[0, 0] * 2
    else:
        np.testing.assert_array_equal(image.data, DATA)


def test_bands_of_another_shape_are_not_stacked(tmp_path):
    path = write(tmp_path / "a.fits", primary(DATA, BAND="g"), extension(DATA[1:], BAND="r"))
    assert read_image(path).shape == (12, 17)


@pytest.mark.parametrize(
    ("cards", "names"),
    [
        ({"BAND1": "f115w", "BAND2": "f150w", "BAND3": "f200w"}, "f115w,f150w,f200w"),
        ({"BAND0": "g", "BAND1": "r", "BAND2": "z"}, "g,r,z"),
        ({"BANDS": "grz"}, "g,r,z"),
        ({"BANDS": "g, r, z"}, "g,r,z"),
        ({"BANDS": "g r z"}, "g,r,z"),
        ({"FILTER1": "CLEAR", "FILTER2": "F814W"}, None),
        ({"BAND1": "g", "BAND2": "g", "BAND3": "g"}, None),
        ({"AGBANDS": "a,b,c", "BANDS": "grz"}, "a,b,c"),
        ({}, None),
    ],
)
def test_names_of_a_cubes_bands(tmp_path, cards, names):
    image = read_image(write(tmp_path / "a.fits", primary(np.ones((3, 4, 5), "f4"), **SKY | cards)))
    assert image.meta.get("AGBANDS") == names
    assert image.wcs.naxis == 3
    assert image[:, 1:, 2:].shape == (3, 3, 3)


@pytest.mark.parametrize(
    "third", [{}, {"CTYPE3": "WAVE"}, {"CRPIX3": 1.0}, {"CTYPE3": "WAVE", "CD3_3": 2.0, "CRVAL3": 5.0, "CRPIX3": 1.0}]
)
def test_cubes_whose_third_axis_is_described_by_half(tmp_path, third):
    """A CD matrix without its third row is singular; the cut-outs of the Legacy Surveys have one."""
    image = read_image(write(tmp_path / "a.fits", primary(np.ones((3, 12, 17), "f4"), **SKY | third)))
    flat = read_image(write(tmp_path / "b.fits", primary(DATA, **SKY)))
    assert image.wcs.naxis == 3
    assert image.wcs.pixel_shape == (17, 12, 3)
    assert wcs_equal(image.wcs, flat.wcs, (12, 17), 1e-9)
    if "CD3_3" in third:
        assert image.wcs.wcs_pix2world([[0, 0, 1]], 0)[0, 2] == 7


def test_axes_of_length_one_go(tmp_path):
    image = read_image(write(tmp_path / "a.fits", primary(np.ones((1, 1, 4, 5), "f4"))))
    assert image.shape == (1, 4, 5)
    with pytest.raises(ImageReadError, match=r"\(2, 3, 4, 5\).*band, y, x"):
        read_image(write(tmp_path / "b.fits", primary(np.ones((2, 3, 4, 5), "f4"))))


# ---- companions --------------------------------------------------------------------------------------------------

SIGMA = np.random.default_rng(6).uniform(1, 2, DATA.shape).astype("f4")

NAMES = {
    "ERR": StdDevUncertainty,
    "ERROR": StdDevUncertainty,
    "SIGMA": StdDevUncertainty,
    "RMS": StdDevUncertainty,
    "UNCERT": StdDevUncertainty,
    "VAR": VarianceUncertainty,
    "VARIANCE": VarianceUncertainty,
    "IVAR": InverseVariance,
    "INVVAR": InverseVariance,
    "SCI_IVAR": InverseVariance,
    "sci-sigma": StdDevUncertainty,
}


@pytest.mark.parametrize("name", NAMES)
def test_uncertainty_is_found_by_name(tmp_path, name):
    path = write(tmp_path / "a.fits", primary(), extension(DATA, "SCI", BUNIT="adu"), extension(SIGMA, name))
    image = read_image(path)
    assert type(image.uncertainty) is NAMES[name]
    np.testing.assert_array_equal(image.uncertainty.array, SIGMA)
    assert read_image(path, uncertainty=False).uncertainty is None
    assert type(read_image(path, uncertainty_type="var").uncertainty) is VarianceUncertainty


@pytest.mark.parametrize(
    ("cards", "kind"),
    [
        ({"UTYPE": "InverseVariance"}, InverseVariance),
        ({"IMAGETYP": "invvar"}, InverseVariance),
        ({"IMTYPE": "ivar"}, InverseVariance),
        ({"EXTTYPE": "SIGMA"}, StdDevUncertainty),
        ({"HDUCLAS2": "ERROR"}, StdDevUncertainty),
        ({"HDUCLAS2": "ERROR", "HDUCLAS3": "MSE"}, VarianceUncertainty),
    ],
)
def test_uncertainty_is_found_by_keyword(tmp_path, cards, kind):
    path = write(tmp_path / "a.fits", primary(DATA), extension(SIGMA, **cards))
    assert type(read_image(path).uncertainty) is kind


def test_nothing_is_taken_for_an_uncertainty_that_does_not_say_so(tmp_path):
    for name in ("VAR_POISSON", "VAR_RNOISE", "AREA", "CON", "MODEL", "WHT", "g_IVAR", None):
        image = read_image(write(tmp_path / f"{name}.fits", primary(DATA, EXTNAME="SCI"), extension(SIGMA, name)))
        assert image.uncertainty is None, name
    small = read_image(write(tmp_path / "small.fits", primary(DATA), extension(SIGMA[1:], "ERR")))
    assert small.uncertainty is None


def test_where_there_are_several_kinds_one_is_taken(tmp_path):
    path = write(tmp_path / "a.fits", primary(DATA), extension(SIGMA**-2, "IVAR"), extension(SIGMA, "ERR"))
    assert type(read_image(path).uncertainty) is StdDevUncertainty
    assert type(read_image(path, uncertainty="IVAR").uncertainty) is InverseVariance
    np.testing.assert_array_equal(read_image(path, uncertainty="ivar").uncertainty.array, SIGMA**-2)


def test_each_image_has_its_own_companions(tmp_path):
    """As HST and JWST write several detectors, and as DECaLS and HSC write several bands."""
    hdus, levels = [primary()], {1: 10, 2: 15}
    for version in (1, 2):
        cards = {"EXTVER": version}
        hdus += [
            extension(DATA * version, "SCI", BUNIT="ELECTRONS", **cards),
            extension(SIGMA * version, "ERR", BUNIT="ELECTRONS", **cards),
            extension((levels[version] < DATA).astype("i2"), "DQ", **cards),
        ]
    path = write(tmp_path / "a.fits", *hdus)
    for hdu, version in ((None, 1), (1, 1), (4, 2)):
        image = read_image(path, hdu=hdu)
        np.testing.assert_array_equal(image.data, DATA * version)
        np.testing.assert_array_equal(image.uncertainty.array, SIGMA * version)
        np.testing.assert_array_equal(image.mask, levels[version] < DATA)
    assert read_image(path, hdu=2).uncertainty is None


def test_bands_without_all_their_uncertainties_have_none_and_say_so(tmp_path):
    path = write(
        tmp_path / "a.fits",
        primary(),
        extension(DATA, BAND="g", BUNIT="adu"),
        extension(SIGMA, BAND="g", IMAGETYP="invvar"),
        extension(DATA, BAND="r", BUNIT="adu"),
    )
    with pytest.warns(UncertaintyWarning, match="one by one with hdu="):
        assert read_image(path).uncertainty is None
    assert type(read_image(path, hdu="g").uncertainty) is InverseVariance


@pytest.mark.parametrize("form", ["number", "name", "path", "str path", "tuple", "str tuple"])
def test_uncertainty_and_mask_from_elsewhere(tmp_path, form):
    bad = DATA > 12
    path = write(tmp_path / "a.fits", primary(DATA), extension(SIGMA), extension(bad.astype("u1"), "ODD"))
    other = write(tmp_path / "b.fits", primary(SIGMA))
    third = write(tmp_path / "c.fits", primary(), extension(bad.astype("f4"), "FIRST"), extension(~bad * 1.0, "SECOND"))
    uncertainty, mask = {
        "number": (1, 2),
        "name": (1, "odd"),
        "path": (other, third),
        "str path": (str(other), str(third)),
        "tuple": ((other, 0), (third, "FIRST")),
        "str tuple": ((str(other), 0), (str(third), 1)),
    }[form]
    image = read_image(path, uncertainty=uncertainty, uncertainty_type="var", mask=mask)
    assert type(image.uncertainty) is VarianceUncertainty
    np.testing.assert_array_equal(image.uncertainty.array, SIGMA)
    np.testing.assert_array_equal(image.mask, bad)


def test_the_name_of_the_file_may_say_what_the_uncertainty_is(tmp_path):
    path = write(tmp_path / "G1fitim.fits", primary(DATA))
    write(tmp_path / "G1sigma.fits", primary(SIGMA))
    assert type(read_image(path, uncertainty=tmp_path / "G1sigma.fits").uncertainty) is StdDevUncertainty
    shutil.copy(tmp_path / "G1sigma.fits", tmp_path / "G1x.fits")
    with pytest.raises(InputError, match=r"G1x.*uncertainty_type='std', 'var' or 'ivar'"):
        read_image(path, uncertainty=tmp_path / "G1x.fits")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("G265911sigma.fits", "std"),
        ("legacysurvey-0591m305-invvar-r.fits.fz", "ivar"),
        ("image.rms.fits", "std"),
        ("coadd_var.fits", "var"),
        ("tile.weight.fits", "ivar"),
        ("image_ivar.fits", "ivar"),
        ("variable_star.fits", None),
        ("galaxy.fits", None),
    ],
)
def test_kinds_in_file_names(name, kind):
    assert kind_in_name(name) == kind


def test_units_of_the_uncertainty(tmp_path):
    def read(own, name, bunit, **options):
        path = tmp_path / "a.fits"
        path.unlink(missing_ok=True)
        write(path, primary(DATA, BUNIT=own), extension(SIGMA, name, BUNIT=bunit))
        return read_image(path, **options).uncertainty.array / SIGMA

    np.testing.assert_allclose(read("Jy", "ERR", "mJy"), 1e-3, rtol=1e-6)
    np.testing.assert_allclose(read("Jy", "VAR", "mJy2"), 1e-6, rtol=1e-6)
    np.testing.assert_allclose(read("Jy", "IVAR", "1/mJy2"), 1e6, rtol=1e-6)
    np.testing.assert_allclose(read("Jy", "VAR", "Jy"), 1)
    np.testing.assert_allclose(read("Jy", "ERR", "parrots"), 1)
    np.testing.assert_allclose(read("adu", "ERR", "adu", unit="electron"), 1)


def test_weights_mask_where_they_are_zero_and_are_used_only_when_asked(tmp_path):
    weight = SIGMA.copy()
    weight[2:4, 5] = 0
    weight[7, 7] = np.nan
    path = write(tmp_path / "a.fits", primary(), extension(DATA, "SCI", BUNIT="adu"), extension(weight, "WHT"))
    image = read_image(path)
    assert image.uncertainty is None
    assert image.mask.sum() == 3
    assert image.mask[2:4, 5].all()
    assert read_image(path, mask=False).mask is None
    assert type(read_image(path, uncertainty="WHT").uncertainty) is InverseVariance


def test_masks_of_surveys_mean_what_they_say(tmp_path):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 64, DATA.shape).astype("i4")
    planes = {"MP_BAD": 0, "MP_SAT": 1, "MP_INTRP": 2, "MP_CR": 3, "MP_EDGE": 4, "HIERARCH MP_DETECTED": 5}
    hsc = write(
        tmp_path / "hsc.fits", primary(), extension(DATA, "IMAGE", BUNIT="nmgy"), extension(bits, "MASK", **planes)
    )
    np.testing.assert_array_equal(read_image(hsc).mask, (bits & 0b011011) != 0)
    jwst = write(
        tmp_path / "jwst.fits",
        primary(TELESCOP="JWST"),
        extension(DATA, "SCI", BUNIT="MJy/sr"),
        extension(bits.astype("u4"), "DQ"),
    )
    np.testing.assert_array_equal(read_image(jwst).mask, (bits & 1) != 0)
    hst = write(
        tmp_path / "hst.fits", primary(TELESCOP="HST"), extension(DATA, "SCI", BUNIT="ELECTRONS"), extension(bits, "DQ")
    )
    np.testing.assert_array_equal(read_image(hst).mask, bits != 0)


def test_a_2d_mask_is_that_of_all_bands(tmp_path):
    cube = np.stack([DATA, DATA])
    path = write(tmp_path / "a.fits", primary(cube), extension((DATA > 12).astype("u1"), "MASK"))
    np.testing.assert_array_equal(read_image(path).mask, np.stack([DATA > 12] * 2))


@pytest.mark.parametrize("argument", ["uncertainty", "mask"])
def test_companions_that_do_not_fit(tmp_path, argument):
    path = write(tmp_path / "a.fits", primary(DATA), extension(SIGMA[1:], "ODD"))
    with pytest.raises(InputError, match=rf"{argument}='1' has shape \(11, 17\).*\(12, 17\)"):
        read_image(path, **{argument: 1, "uncertainty_type": "std"} if argument == "uncertainty" else {argument: 1})
    with pytest.raises(ImageReadError, match=rf"{argument}='NOPE' is no file, and no HDU of.*1 'ODD'"):
        read_image(path, **{argument: "NOPE"})
    with pytest.raises(ImageReadError, match=rf"{argument}=7 is not in"):
        read_image(path, **{argument: 7})
    with pytest.raises(ImageReadError, match="no file"):
        read_image(path, **{argument: tmp_path / "missing.fits"})
    empty = write(tmp_path / "empty.fits", primary())
    with pytest.raises(ImageReadError, match="holds no image"):
        read_image(path, **{argument: empty})


def test_a_type_without_an_uncertainty_is_an_error(tmp_path):
    path = write(tmp_path / "a.fits", primary(DATA), extension(SIGMA))
    with pytest.raises(InputError, match=r"uncertainty_type='ivar'.*1: image 12 x 17.*uncertainty="):
        read_image(path, uncertainty_type="ivar")


def test_the_psf_comes_along(tmp_path):
    kernel = np.ones((5, 5), "f4") / 25
    for name in ("PSF", "PSFIMAGE"):
        image = read_image(write(tmp_path / f"{name}.fits", primary(DATA), extension(kernel, name)))
        np.testing.assert_array_equal(image.psf, kernel)
    assert read_image(write(tmp_path / "a.fits", primary(DATA))).psf is None


# ---- saturation --------------------------------------------------------------------------------------------------


def test_saturation_is_masked_only_when_asked(tmp_path):
    data = DATA.copy()
    data[6, 8] = 5000
    path = write(tmp_path / "a.fits", primary(data, SATURATE=1000.0))
    assert read_image(path).mask is None
    for level in (1000, 1000.0, 1000 * u.adu, "header"):
        image = read_image(path, saturation=level)
        assert image.mask[6, 8]
        assert image.mask[5:8, 7:10].all()
        assert image.mask.sum() < 40
        assert image.meta["AGNSAT"] == image.mask.sum()
    assert read_image(path, saturation=1e6).mask is None
    assert read_image(path, saturation=1e6).meta["AGNSAT"] == 0
    with pytest.raises(UnitError, match="saturation=.*adu"):
        read_image(path, saturation=5 * u.Jy)
    with pytest.raises(InputError, match="saturation='high'"):
        read_image(path, saturation="high")
    for bad in (float("nan"), [1, 2], True):
        with pytest.raises(InputError, match="saturation="):
            read_image(path, saturation=bad)
    with pytest.raises(InputError, match="SATURATE"):
        read_image(write(tmp_path / "b.fits", primary(data)), saturation="header")


# ---- WCS, headers, windows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cards", [{}, {"CTYPE1": "", "CTYPE2": "", "CRPIX1": 3.0}, {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}]
)
def test_no_sky_no_wcs(tmp_path, cards):
    assert read_image(write(tmp_path / "a.fits", primary(DATA, **cards))).wcs is None


@pytest.mark.parametrize(
    "cards",
    [
        {"CD1_1": 0.0, "CD2_2": 0.0},
        {"CTYPE2": "DEC--SIN"},
        {"A_ORDER": 30000, "B_ORDER": 30000, "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"},
        {"WCSAXES": 10**6},
        {"CUNIT1": "parrots"},
        {"CPDIS1": "LOOKUP", "CPDIS2": "LOOKUP", "DP1.EXTVER": 7.0},
    ],
)
def test_a_wrong_wcs_is_left_out_with_a_warning(tmp_path, cards):
    raw = fits.PrimaryHDU(DATA, header(**SKY)).header
    raw.update(cards)
    (tmp_path / "a.fits").write_bytes(raw.tostring().encode() + DATA.astype(">f4").tobytes() + b"\0" * 2880)
    with pytest.warns(AstroganWarning, match=r"a\.fits.*without its WCS"):
        image = read_image(tmp_path / "a.fits")
    assert image.wcs is None
    np.testing.assert_array_equal(image.data, DATA)
    assert "CRVAL1" not in image.meta


def test_sip_is_kept_and_windows_move_it(tmp_path):
    cards = SKY | {
        "CTYPE1": "RA---TAN-SIP",
        "CTYPE2": "DEC--TAN-SIP",
        "A_ORDER": 2,
        "B_ORDER": 2,
        "A_2_0": 1e-4,
        "B_1_1": -2e-4,
    }
    path = write(tmp_path / "a.fits", primary(DATA, **cards))
    whole, part = read_image(path), read_image(path, section=np.s_[3:, 5:11])
    np.testing.assert_array_equal(part.data, DATA[3:, 5:11])
    x, y = np.meshgrid(np.arange(6.0), np.arange(9.0))
    np.testing.assert_allclose(
        part.wcs.all_pix2world(x, y, 0), whole.wcs.all_pix2world(x + 5, y + 3, 0), rtol=0, atol=1e-11
    )
    assert whole.wcs.sip is not None
    with fits.open(path) as hdus:
        assert wcs_equal(whole.wcs, WCS(hdus[0].header), DATA.shape, 1e-9)
    assert not [key for key in whole.meta if key.startswith(("A_", "CRPIX", "CD1"))]


def test_windows_take_companions_along(tmp_path):
    path = write(
        tmp_path / "a.fits", primary(DATA), extension(SIGMA, "ERR"), extension((DATA > 12).astype("u1"), "MASK")
    )
    for section in (np.s_[2:9, 3:12], np.s_[:, :5], np.s_[-4:, -3:], np.s_[0:100, 0:100]):
        image = read_image(path, section=section)
        np.testing.assert_array_equal(image.data, DATA[section])
        np.testing.assert_array_equal(image.uncertainty.array, SIGMA[section])
        np.testing.assert_array_equal(image.mask, (DATA > 12)[section])
    with pytest.raises(InputError, match="section=.*empty"):
        read_image(path, section=np.s_[50:60, :])
    for bad in (3, np.s_[1:2], np.s_[::2, :], (1, 2)):
        with pytest.raises(InputError, match="section="):
            read_image(path, section=bad)


def test_headers_are_merged_cleaned_and_keep_history(tmp_path):
    path = write(
        tmp_path / "a.fits",
        primary(TELESCOP="HST", FILTER="F814W", GAIN=1.0, CRVAL1=3.0),
        extension(DATA, "SCI", BUNIT="adu", GAIN=2.0, HISTORY="done", **SKY),
    )
    meta = read_image(path).meta
    assert isinstance(meta, fits.Header)
    assert (meta["TELESCOP"], meta["FILTER"], meta["GAIN"]) == ("HST", "F814W", 2.0)
    assert list(meta["HISTORY"]) == ["done"]
    for key in ("SIMPLE", "XTENSION", "NAXIS1", "BITPIX", "EXTNAME", "CRVAL1", "CTYPE1", "BUNIT", "PCOUNT"):
        assert key not in meta


def test_the_unit_may_stand_in_the_primary_header_only(tmp_path):
    path = write(tmp_path / "a.fits", primary(BUNIT="nmgy"), extension(DATA), extension(DATA, BUNIT="Jy"))
    assert read_image(path).unit == u.nmgy
    assert read_image(path, hdu=2).unit == u.Jy


def test_invalid_cards_do_no_harm(tmp_path):
    """As ESO-MIDAS wrote them: no keyword at all, nulls, other alphabets, no END padding."""
    raw = fits.PrimaryHDU(DATA, header(GOOD=1)).header.tostring(endcard=False, padding=False).encode()
    for card in (
        b"ESO-LOG 00:00:00> DATE = '1992-10-26' / Mon",
        b"OBSERVER= 'M\xfcller'",
        b"BROKEN  = 'no end",
        b"X\0Y = 3",
    ):
        raw += card.ljust(80)
    raw += b"END".ljust(80)
    raw += b" " * (-len(raw) % 2880)
    (tmp_path / "a.fits").write_bytes(raw + DATA.astype(">f4").tobytes())
    image = read_image(tmp_path / "a.fits")
    np.testing.assert_array_equal(image.data, DATA)
    assert image.meta["GOOD"] == 1
    assert image.meta.tostring().isascii()
    image.write(tmp_path / "b.fits")


# ---- several files -----------------------------------------------------------------------------------------------


def test_several_files_are_bands(tmp_path):
    paths = [write(tmp_path / f"img_{band}_v2.fits", primary(DATA * i, FILTER="g")) for i, band in enumerate("gri")]
    bands = read_bands(paths)
    assert list(bands) == ["g", "r", "i"]
    np.testing.assert_array_equal(bands["i"].data, DATA * 2)
    assert list(read_bands(dict(zip("xyz", paths, strict=True)))) == ["x", "y", "z"]
    named = [write(tmp_path / f"{i}.fits", primary(DATA, BAND=band)) for i, band in enumerate("gri")]
    assert list(read_bands(named)) == ["g", "r", "i"]
    both = write(tmp_path / "both.fits", primary(DATA), extension(DATA * 2, BUNIT="adu"))
    twice = read_bands([(both, 0), (both, 1)])
    assert list(twice) == ["0", "1"]
    np.testing.assert_array_equal(twice["1"].data, DATA * 2)
    assert list(read_bands(paths[:1])) == ["g"]
    assert all(image.unit == u.DN for image in read_bands(paths, unit="DN").values())


@pytest.mark.parametrize("paths", [[], {}, 3, None, [("a", 1, 2)]])
def test_what_are_no_bands(paths):
    with pytest.raises(InputError, match="paths="):
        read_bands(paths)


# ---- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures(tmp_path, suffix, mode):
    from PIL import Image

    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = 3 * np.arange(30) + 20, 6 * np.arange(20)[:, None], 50
    path = tmp_path / f"a{suffix}"
    Image.fromarray(pixels if mode == "RGB" else pixels[..., 0]).save(
        path, **({"quality": 100} if suffix == ".jpg" else {})
    )
    image = read_image(path)
    expected = np.moveaxis(pixels, -1, 0) if mode == "RGB" else pixels[..., 0]
    assert image.shape == expected.shape
    np.testing.assert_allclose(image.data, expected, atol=6 if suffix == ".jpg" else 0)
    assert image.data.dtype == np.float32
    assert image.meta["AGLINEAR"] is False
    assert image.meta.get("AGBANDS") == ("R,G,B" if mode == "RGB" else None)
    assert image.unit == u.dimensionless_unscaled
    assert image.wcs is None
    assert image.mask is None
    assert read_image(path, unit="adu").unit == u.adu
    with pytest.raises(ImageReadError, match="max_pixels=100"):
        read_image(path, max_pixels=100)
    for argument in ({"hdu": 1}, {"uncertainty": 1}, {"mask": 1}, {"section": np.s_[1:2, 1:2]}):
        with pytest.raises(InputError, match=f"{next(iter(argument))}=.*picture"):
            read_image(path, **argument)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_kept(tmp_path, suffix):
    from PIL import Image

    pixels = np.arange(600, dtype=np.uint16).reshape(20, 30) * 109
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}").data, pixels)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_deep_colour_tiffs(tmp_path, dtype, planar):
    import tifffile

    pixels = np.arange(20 * 30 * 3).reshape(20, 30, 3).astype(dtype)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, np.moveaxis(pixels, -1, 0))


def test_a_picture_larger_than_pillow_unpacks_says_what_to_do(tmp_path):
    from PIL import Image

    Image.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    with pytest.raises(ImageReadError, match="more pixels than Pillow unpacks .*; save it as FITS"):
        read_image(tmp_path / "a.png")
    with pytest.raises(ImageReadError, match="Pillow"):
        read_image(tmp_path / "a.png", max_pixels=2**40)


def test_deep_colour_pngs_say_that_they_lose(tmp_path):
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + (np.full((4, 3), 0x1234 * (y + 1) % 65536, ">u2")).tobytes() for y in range(5))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 5, 16, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(png + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    with pytest.warns(RangeWarning, match="16 bits a colour, of which 8"):
        assert read_image(tmp_path / "a.png").shape == (3, 5, 4)


def test_transparency_is_a_mask_and_palettes_are_colours(tmp_path):
    from PIL import Image

    pixels = np.full((4, 5, 4), 255, np.uint8)
    pixels[1, 2, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 4, 5)
    assert image.mask.sum() == 3
    assert image.mask[:, 1, 2].all()
    Image.fromarray(pixels[..., :3]).convert("P").save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png").data, 255)


# ---- arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hdu": -1}, "hdu=-1"),
        ({"hdu": True}, "hdu=True"),
        ({"hdu": 1.5}, "hdu=1.5"),
        ({"uncertainty": 1.5}, "uncertainty=1.5"),
        ({"uncertainty": True}, "uncertainty=True"),
        ({"mask": ("a", "b", "c")}, "mask="),
        ({"mask": np.ones((3, 3))}, "mask="),
        ({"uncertainty_type": "sigma"}, "uncertainty_type='sigma'"),
        ({"uncertainty_type": "std", "uncertainty": False}, "contradicts"),
        ({"max_pixels": 0}, "max_pixels=0"),
        ({"max_pixels": 1e9}, "max_pixels=1000000000.0"),
        ({"max_pixels": True}, "max_pixels=True"),
    ],
)
def test_arguments_are_checked_by_name(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        read_image(write(tmp_path / "a.fits", primary(DATA)), **arguments)


@pytest.mark.parametrize("path", [None, 3, DATA, b"a.fits", "a\0b", ["a.fits"]])
def test_what_is_no_path(path):
    with pytest.raises(InputError, match="path="):
        read_image(path)


def test_home_folders_are_expanded(tmp_path, monkeypatch):
    write(tmp_path / "a.fits", primary(DATA))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_image("~/a.fits").shape == DATA.shape


def test_reading_leaves_the_file_alone(tmp_path):
    path = write(tmp_path / "a.fits", primary(DATA), extension(SIGMA, "ERR"))
    before = path.read_bytes()
    image = read_image(path)
    image.data[:] = 0
    image.meta["NEW"] = 1
    assert path.read_bytes() == before
    np.testing.assert_array_equal(read_image(path).data, DATA)


# ---- real files --------------------------------------------------------------------------------------------------

real = pytest.mark.data

FOLDERS = (
    "cosmos_hst_galsim",
    "decals_pysersic",
    "galfit_refs",
    "galfitm_sdss_ngc",
    "humvi_multisurvey",
    "jwst_ceers_stamps",
    "jwst_galfits",
    "kids_sdss_pairs",
    "kids_viking_field",
    "psf_emp_sdss",
    "sdss_ngc6976",
    "sdss_stamps_ugriz",
    "sep_ref",
    "splus_pygalfitm",
    "statmorph_ref",
)


@real
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_real_image_is_read_as_astropy_reads_it(data_dir, folder):
    """All but the copies: of stamps of one kind, a dozen."""
    paths = [path for path in sorted((data_dir / folder).rglob("*")) if path.name.endswith((".fits", ".gz", ".bz2"))]
    assert paths
    for path in paths[:: max(1, len(paths) // 12)]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path) as hdus:
                images = [i for i, hdu in enumerate(hdus) if hdu.is_image and hdu.data is not None]
                arrays_ = {i: np.array(hdus[i].data, "f8") for i in images[:4]}
        if not images:
            with pytest.raises(ImageReadError, match="holds no image: 0: empty; 1: table"):
                read_image(path, unit="adu")
            continue
        assert read_image(path, unit="adu").unit == u.adu
        for index, expected in arrays_.items():
            image = read_image(path, hdu=index, unit="adu", mask=False)
            np.testing.assert_allclose(image.data, expected, rtol=1e-6, err_msg=str(path))
            np.testing.assert_array_equal(
                np.zeros_like(expected, bool) if image.mask is None else image.mask, ~np.isfinite(expected)
            )


@real
def test_decals_cutout_is_a_cube_with_inverse_variance(data_dir):
    path = data_dir / "decals_pysersic" / "cutout_59.1067_-30.4848.fits"
    with pytest.raises(UnitError, match="no BUNIT"):
        read_image(path)
    image = read_image(path, unit="nanomaggies")
    assert image.shape == (3, 256, 256)
    assert image.meta["AGBANDS"] == "g,r,z"
    assert image.meta["SURVEY"] == "DECaLS"
    assert type(image.uncertainty) is InverseVariance
    with fits.open(path) as hdus:
        for band in range(3):
            np.testing.assert_array_equal(image.data[band], hdus[1 + 2 * band].data)
            np.testing.assert_array_equal(image.uncertainty.array[band], hdus[2 + 2 * band].data)
        corners = np.array([[0, 0], [255, 0], [0, 255], [255, 255]])
        np.testing.assert_allclose(
            image.wcs.celestial.all_pix2world(corners, 0),
            WCS(hdus[1].header).all_pix2world(corners, 0),
            rtol=0,
            atol=1e-10,
        )
    red = read_image(path, hdu="r", unit="nmgy")
    np.testing.assert_array_equal(red.data, image.data[1])
    np.testing.assert_array_equal(red.uncertainty.array, image.uncertainty.array[1])
    assert list(read_bands(path, unit="nmgy")) == ["g", "r", "z"]
    psf = read_image(data_dir / "decals_pysersic" / "copsf_59.1067_-30.4848.fits", unit="")
    assert psf.shape == (3, 63, 63)
    assert psf.meta["AGBANDS"] == "g,r,z"


@real
def test_rice_compressed_kids(data_dir):
    image = read_image(data_dir / "kids_viking_field" / "r.fits", unit="adu")
    assert image.shape == (2600, 1950)
    assert image.data.dtype == np.float32
    assert image.meta["BAND"] == "r"
    assert image.meta["MAGZERO"] == 0
    np.testing.assert_array_equal(image.data, fits.getdata(data_dir / "kids_viking_field" / "r.fits", 1))
    part = read_image(data_dir / "kids_viking_field" / "r.fits", unit="adu", section=np.s_[1000:1100, 700:900])
    np.testing.assert_array_equal(part.data, image.data[1000:1100, 700:900])


@real
def test_kids_galaxy_with_its_sigma_and_mask(data_dir):
    folder = data_dir / "kids_sdss_pairs" / "KiDS"
    image = read_image(
        folder / "G265911fitim.fits",
        unit="adu",
        uncertainty=folder / "G265911sigma.fits",
        mask=folder / "G265911mskim.fits",
    )
    assert type(image.uncertainty) is StdDevUncertainty
    assert (image.uncertainty.array > 0).all()
    with fits.open(folder / "G265911mskim.fits") as hdus:
        expected = hdus[0].data != 0
    np.testing.assert_array_equal(np.zeros(image.shape, bool) if image.mask is None else image.mask, expected)


@real
def test_ceers_cube_names_its_bands(data_dir):
    path = sorted((data_dir / "jwst_ceers_stamps").glob("*.fits.gz"))[0]
    image = read_image(path, unit="MJy/sr")
    assert image.shape == (7, 100, 100)
    assert image.meta["AGBANDS"] == "f115w,f150w,f200w,f277w,f356w,f410m,f444w"
    assert image.wcs.naxis == 3
    cut = image[:, 10:20, 5:15]
    np.testing.assert_allclose(
        cut.wcs.celestial.all_pix2world([[0, 0]], 0),
        image.wcs.celestial.all_pix2world([[5, 10]], 0),
        rtol=0,
        atol=1e-11,
    )


@real
def test_ngc_6976_in_three_files(data_dir):
    paths = sorted((data_dir / "sdss_ngc6976").glob("*.bz2"))
    bands = read_bands(paths)
    assert list(bands) == ["g", "i", "r"]  # FILTER says g in all three
    for path, image in zip(paths, bands.values(), strict=True):
        assert image.unit == u.nmgy
        with fits.open(path) as hdus:
            np.testing.assert_array_equal(image.data, hdus[0].data)
        assert wcs_equal(image.wcs, bands["g"].wcs, image.shape, 1e-6)


@real
def test_sdss_stamps_have_unlabelled_inverse_variances(data_dir):
    path = data_dir / "sdss_stamps_ugriz" / "stamp_catalog" / "stamp-g-0.9103--4.4559.fits.gz"
    image = read_image(path, unit="nanomaggies")
    assert image.uncertainty is None
    assert image.meta["PSF_P0"] == pytest.approx(0.7359, abs=1e-4)
    assert image.wcs.naxis == 2
    with pytest.raises(InputError, match="uncertainty_type="):
        read_image(path, unit="nanomaggies", uncertainty=1)
    image = read_image(path, unit="nanomaggies", uncertainty=1, uncertainty_type="ivar")
    assert type(image.uncertainty) is InverseVariance
    sigma = np.median(image.uncertainty.array) ** -0.5
    assert 0.5 < 1.4826 * np.median(np.abs(image.data - np.median(image.data))) / sigma < 2


@real
def test_galaxy_zoo_jpeg(data_dir, tmp_path):
    with tarfile.open(data_dir / "galaxyzoo_kaggle" / "images.tar") as archive:
        member = archive.next()
        path = tmp_path / "galaxy.jpg"
        path.write_bytes(archive.extractfile(member).read())
    image = read_image(path)
    assert image.shape == (3, 424, 424)
    assert image.meta["AGLINEAR"] is False
    assert image.data.min() >= 0
    assert image.data.max() <= 255
    centre = image.data[:, 180:244, 180:244].mean()
    assert centre > 3 * image.data[:, :40, :40].mean()


@real
def test_real_images_survive_writing(data_dir, tmp_path):
    from astrogan.image.write import write_image

    for name in ("sep_ref/image.fits", "splus_pygalfitm/images/test_g.fits", "humvi_multisurvey/CFHTLS-test_g.fits"):
        image = read_image(data_dir / name, unit="adu")
        write_image(image, tmp_path / "a.fits", overwrite=True)
        back = read_image(tmp_path / "a.fits")
        np.testing.assert_array_equal(back.data, image.data)
        assert back.meta.tostring() == image.meta.tostring()
        assert wcs_equal(back.wcs, image.wcs, image.shape, 1e-6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy's, about dates
            np.testing.assert_array_equal(CCDData.read(tmp_path / "a.fits").data, image.data)
