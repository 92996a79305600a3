"""Results open in what astronomers look at images with: DS9 (by what it asks of a file), glue and jdaviz."""

import re
import warnings
from collections import Counter

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable
from astropy.wcs import WCS

from astrogan import Deblender, Restorer, write_image

BLOCK = 2880


def sky():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ("RA---TAN", "DEC--TAN"), (150.1, 2.2), (20.5, 16.0)
    wcs.wcs.cdelt, wcs.wcs.radesys = (-1e-4, 1e-4), "ICRS"
    wcs.wcs.set()
    return wcs


def image(seed=0):
    y, x = np.mgrid[:32, :40]
    data = 90 * np.exp(-((x - 18) ** 2 + (y - 15) ** 2) / 8) + np.random.default_rng(seed).normal(size=x.shape)
    mask = np.zeros(data.shape, bool)
    mask[3, 4] = True
    return CCDData(data, unit="nmgy", wcs=sky(), mask=mask, uncertainty=StdDevUncertainty(np.ones(data.shape)))


def restored():
    return Restorer("gaussian", psf=2.5)(image())


def restored_bands():
    return Restorer("gaussian", psf=2.5)({"g": image(), "r": image(1)})


def restored_cube():
    one = image()
    cube = CCDData(np.stack([one.data, one.data]), unit=one.unit, wcs=one.wcs, mask=np.stack([one.mask] * 2),
                   uncertainty=StdDevUncertainty(np.ones((2, *one.shape))))  # fmt: skip
    return Restorer("gaussian", psf=2.5)(cube)


@pytest.fixture(params=["image", "bands", "cube", "sources"])
def written(request, tmp_path):
    """A file of each kind of result."""
    path = tmp_path / f"{request.param}.fits"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a method gives no uncertainty is another test's matter
        if request.param == "sources":
            Deblender("watershed")({"g": image(), "r": image(1)}).write(path)
        else:
            write_image({"image": restored, "bands": restored_bands, "cube": restored_cube}[request.param](), path)
    return path


def images_of(hdus):
    return [hdu for hdu in hdus if hdu.is_image and hdu.header["NAXIS"] >= 2]


def test_file_is_valid_fits(written):
    raw = written.read_bytes()
    assert len(raw) % BLOCK == 0
    with fits.open(written) as hdus:
        hdus.verify("exception")
        for hdu in hdus:
            start, end = hdu.fileinfo()["hdrLoc"], hdu.fileinfo()["datLoc"]
            cards = [raw[k : k + 80] for k in range(start, end, 80)]
            assert all(32 <= byte < 127 for byte in b"".join(cards))
            assert cards[0][:8] == (b"SIMPLE  " if hdu is hdus[0] else b"XTENSION")
            words = Counter(card.keyword for card in hdu.header.cards if card.keyword not in ("", "COMMENT", "HISTORY"))
            assert set(words.values()) == {1}
            assert not re.search(rb"= +(NaN|INF|nan|inf)", b"".join(cards))
            if hdu.is_image and hdu.header["BITPIX"] > 0:
                assert "BLANK" not in hdu.header or hdu.header["BLANK"] != 0
        assert hdus[0].header["EXTEND"] is True


def test_first_image_is_the_result_with_its_sky(written):
    """What a viewer shows when it is given the file's name alone."""
    with fits.open(written) as hdus:
        first = images_of(hdus)[0]
        assert first.header["CTYPE1"] == "RA---TAN"
        assert first.header["CTYPE2"] == "DEC--TAN"
        assert u.Unit(first.header["BUNIT"], parse_strict="silent").to_string() == "nmgy"
        grid = WCS(first.header).celestial
        there, expected = grid.pixel_to_world(7, 9), sky().pixel_to_world(7, 9)
        assert there.separation(expected) < 1e-6 * u.arcsec
        assert first.data.shape[-2:] == (32, 40)
        assert first.data.dtype.kind == "f"


def test_names_of_extensions_can_be_asked_for(written):
    """``file.fits[NAME]``: brackets, commas and blanks end a name there, and a number is the place in the file."""
    with fits.open(written) as hdus:
        names = [hdu.name for hdu in hdus[1:]]
        assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_+\-]*", name) for name in names), names
        assert len({name.upper() for name in names}) == len(names)
        for name in names:
            assert hdus[name].name == name


def test_sky_of_all_bands_agrees(written):
    """Frames matched by WCS in a viewer show the same place."""
    with fits.open(written) as hdus:
        whole = [hdu for hdu in images_of(hdus) if "CTYPE1" in hdu.header and hdu.data.shape[-2:] == (32, 40)]
        assert whole
        for hdu in whole:
            there = WCS(hdu.header).celestial.pixel_to_world(7, 9)
            assert there.separation(sky().pixel_to_world(7, 9)) < 1e-6 * u.arcsec


def test_masks_and_uncertainties_have_the_shape_of_their_image(written):
    with fits.open(written) as hdus:
        companions = [hdu for hdu in images_of(hdus) if hdu.name.endswith(("MASK", "UNCERT"))]
        assert companions
        for hdu in companions:
            owner = hdu.name.rpartition("_")[0] or 0
            assert hdu.data.shape == hdus[owner].data.shape
            assert (hdu.data.dtype.kind == "u") == hdu.name.endswith("MASK")


def test_catalog_opens_as_a_table(tmp_path):
    Deblender("watershed")(image()).write(tmp_path / "sources.fits")
    catalog = QTable.read(tmp_path / "sources.fits", hdu="CATALOG")
    assert {"id", "x", "y", "ra", "dec", "flux_0"} <= set(catalog.colnames)
    assert catalog["ra"].unit == u.deg


# ---- glue and jdaviz, where they are installed ----------------------------------------------------------------------


def test_glue_loads_the_file(written):
    pytest.importorskip("glue")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from glue.core.data_factories import load_data

        loaded = load_data(str(written))
        loaded = loaded if isinstance(loaded, list) else [loaded]
        with fits.open(written) as hdus:
            first = images_of(hdus)[0]
            shown = next(data for data in loaded if data.shape == first.data.shape)
            np.testing.assert_array_equal(shown[shown.main_components[0]], first.data)
    assert "Right Ascension" in [component.label for component in shown.world_component_ids]


def test_glue_takes_the_result_itself():
    pytest.importorskip("glue_astronomy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import glue_astronomy
        from glue.core import DataCollection

        glue_astronomy.setup()
        collection, result = DataCollection(), restored()
        collection["restored"] = result
        back = collection["restored"].get_object(CCDData, attribute="data")
    np.testing.assert_array_equal(back.data, result.data)
    assert back.wcs.pixel_to_world(7, 9).separation(sky().pixel_to_world(7, 9)) < 1e-6 * u.arcsec


@pytest.mark.parametrize("way", ["file", "object"])
def test_imviz_loads_the_result(way, tmp_path):
    pytest.importorskip("jdaviz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from jdaviz import Imviz

        result = restored()
        write_image(result, tmp_path / "restored.fits")
        viewer = Imviz()
        viewer.load_data(str(tmp_path / "restored.fits") if way == "file" else result, data_label="restored")
        labels = [data.label for data in viewer.app.data_collection]
        shown = next(data for data in viewer.app.data_collection if data.label.startswith("restored"))
        values = shown[shown.main_components[0]]
    assert labels
    np.testing.assert_allclose(values, result.data)
    assert "Right Ascension" in [component.label for component in shown.world_component_ids]
