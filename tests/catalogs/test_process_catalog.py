"""Stamps of a catalog: the right pixels, and flags for what is wrong."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData, Cutout2D
from astropy.table import QTable, Table
from catalog_backends import SHAPE, mosaic_wcs, noisy, wiener

from astrogan import Degrader, Restorer, Translator, read_image
from astrogan.catalogs import Results, RowFlag, process_catalog, process_images
from astrogan.exceptions import AstroganWarning, ImageReadError, InputError, PSFError
from astrogan.image.psf import gaussian_psf
from astrogan.operators.translator import TargetSpec

POSITIONS = np.array([(60.0, 50.0), (100.4, 70.6), (3.0, 75.0), (215.0, 148.0), (500.0, 20.0), (np.nan, 3.0)])


# ---- pixels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["file", "memory"])
def test_a_stamp_is_the_window_of_the_restored_mosaic(source, path, mosaic, tmp_path):
    image = path if source == "file" else mosaic
    table = process_catalog(wiener(), POSITIONS, image, output=tmp_path / "out", size=(24, 32), workers=1)
    whole = wiener()(path)
    results = Results(tmp_path / "out")
    assert list(table["status"]) == ["ok", "ok", "partly outside", "partly outside", "outside", "no position"]
    for row in range(4):
        cutout = Cutout2D(whole.data, tuple(POSITIONS[row]), (24, 32), mode="partial", fill_value=np.nan)
        stamp = results[row]
        np.testing.assert_allclose(stamp.data, cutout.data, atol=2e-5 * np.abs(whole.data).max())
        assert np.array_equal(np.isnan(stamp.data), np.isnan(cutout.data))
        assert stamp.unit == "nJy"
        x0, y0 = table["x0"][row], table["y0"][row]
        expected = whole.wcs.pixel_to_world(x0 + 5.0, y0 + 7.0)
        assert expected.separation(stamp.wcs.pixel_to_world(5.0, 7.0)) < 1e-6 * u.arcsec
    assert results[4] is None
    assert results[5] is None
    assert np.array_equal(results[2].mask, np.isnan(results[2].data))


def test_context_is_what_makes_it_so(path, tmp_path):
    """Without it the edges of a stamp are others; the automatic margin is not there for nothing."""
    whole = wiener()(path)
    process_catalog(wiener(), POSITIONS[:1], path, output=tmp_path / "out", size=32, margin=0, workers=1)
    stamp = Results(tmp_path / "out")[0]
    cutout = Cutout2D(whole.data, tuple(POSITIONS[0]), 32).data
    assert np.abs(stamp.data - cutout).max() > 1e-3 * np.abs(whole.data).max()


@pytest.mark.parametrize("form", ["radec", "skycoord", "galactic", "fk5", "named", "xy"])
def test_positions_in_any_form(form, path, tmp_path):
    sky = mosaic_wcs().pixel_to_world(POSITIONS[:2, 0], POSITIONS[:2, 1])
    forms = {
        "radec": (Table({"RA": sky.ra.deg, "DEC": sky.dec.deg}), {}),
        "skycoord": (QTable({"where": sky}), {}),
        "galactic": (sky.galactic, {}),
        "fk5": (QTable({"a": sky.fk5, "x": [1.0, 2.0], "y": [1.0, 2.0]}), {"sky": "a"}),
        "named": (QTable({"alpha": sky.ra.to("hourangle"), "delta": sky.dec}), {"sky": ("alpha", "delta")}),
        "xy": (Table({"col": POSITIONS[:2, 0], "row": POSITIONS[:2, 1]}), {"xy": ("col", "row")}),
    }
    catalog, keywords = forms[form]
    table = process_catalog(noisy(), catalog, path, output=tmp_path / "out", size=8, workers=1, **keywords)
    np.testing.assert_allclose(np.stack([table["x"], table["y"]], -1), POSITIONS[:2], atol=1e-4)
    assert ("ra" in table.colnames) == (form != "xy")


def test_a_catalog_of_many_images(mosaic, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(3):
        CCDData(mosaic.data[40 * i : 40 * i + 60], unit="nJy").write(tmp_path / "in" / f"image{i}.fits")
    (tmp_path / "in" / "image1.fits").write_bytes(b"no image")
    names = [f"image{i}.fits" for i in (0, 1, 2, 2, 7)]
    catalog = Table({"x": np.full(5, 30.0), "y": np.full(5, 20.0), "image": names, "name": list("abcde")})
    catalog.write(tmp_path / "in" / "cat.ecsv")
    with pytest.warns(AstroganWarning, match="2 of 5 rows failed"):
        table = process_catalog(
            wiener(),
            tmp_path / "in" / "cat.ecsv",
            output=tmp_path / "out",
            size=16,
            image_column="image",
            id_column="name",
            workers=1,
        )
    assert list(table["flags"] == RowFlag.UNREADABLE) == [False, True, False, False, True]
    assert "image7.fits" in table["error"][4]
    assert list(table["id"]) == list("abcde")
    results = Results(tmp_path / "out")
    assert np.array_equal(results[2].data, results[3].data)
    assert not np.array_equal(results[0].data, results[2].data)


def test_a_psf_that_varies_is_taken_at_each_stamp(path, tmp_path):
    def psf(x, y):
        return gaussian_psf(2.0 + 2.0 * (x > 110), size=15)

    places = [(50.0, 70.0), (170.0, 70.0)]
    restorer = Restorer("wiener", psf=psf, balance=10.0)
    process_catalog(restorer, places, path, output=tmp_path / "out", size=24, margin=30, workers=1)
    for row, fwhm in enumerate((2.0, 4.0)):
        whole = Restorer("wiener", psf=gaussian_psf(fwhm, size=15), balance=10.0)(path)
        stamp = Results(tmp_path / "out")[row]
        cutout = Cutout2D(whole.data, places[row], 24).data
        np.testing.assert_allclose(stamp.data, cutout, atol=1e-3 * np.abs(cutout).max())


def test_bands_and_files(mosaic, tmp_path):
    """A cube gives stamps of all bands, and files of their own hold what operators give."""
    cube = CCDData(np.stack([mosaic.data, 2 * mosaic.data]), unit="nJy")
    table = process_catalog(
        wiener(), POSITIONS[:3], cube, output=tmp_path / "out", size=16, layout="files", diagnose=True, workers=1
    )
    assert list(table["file"]) == ["0.fits", "1.fits", "2.fits"]
    assert table["flux_out"].shape == (3, 2)
    assert np.isfinite(table["reduced_chi2"]).all()
    stamp = Results(tmp_path / "out")[2]
    assert stamp.shape == (2, 16, 16)
    assert stamp.mask[:, :, :5].all()
    assert "HISTORY" in stamp.meta


def test_degraded_and_translated_stamps_have_their_own_grid(path, tmp_path):
    degrader = Degrader(psf=4.0, match=False, rebin=2)
    process_catalog(degrader, POSITIONS[:4], path, output=tmp_path / "a", size=32, workers=1)
    stamp, whole = Results(tmp_path / "a")[0], degrader(path)
    cutout = whole.data[(50 - 16) // 2 : (50 + 16) // 2, (60 - 16) // 2 : (60 + 16) // 2]
    np.testing.assert_allclose(stamp.data, cutout, atol=1e-3)
    assert whole.wcs.pixel_to_world(22, 17).separation(stamp.wcs.pixel_to_world(0, 0)) < 1e-5 * u.arcsec

    translator = Translator("psf-matching", target=TargetSpec(pixel_scale=0.3, psf=3.0), psf=2.0)
    table = process_catalog(translator, POSITIONS[:4], path, output=tmp_path / "b", size=30, workers=1)
    stamps = [Results(tmp_path / "b")[i] for i in range(4)]
    assert {stamp.shape for stamp in stamps} == {(20, 20)}
    x, y = stamps[0].wcs.world_to_pixel(mosaic_wcs().pixel_to_world(60.0, 50.0))
    assert abs(x - 9.5) < 1
    assert abs(y - 9.5) < 1
    assert np.isfinite(table["flux_out"][:2]).all()
    assert stamps[3].mask.any()


def test_fluxes_are_those_of_the_aperture(mosaic, tmp_path):
    flat = CCDData(np.full(SHAPE, 2.0, np.float32), unit="nJy")
    restorer = Restorer("identity")
    table = process_catalog(restorer, [(60.2, 50.7)], flat, output=tmp_path / "o", size=32, aperture=5.0, workers=1)
    np.testing.assert_allclose(table["flux_in"], 2 * np.pi * 25)
    np.testing.assert_allclose(table["flux_out"], 2 * np.pi * 25)


# ---- rows that fail -------------------------------------------------------------------------------------------------


def test_a_row_that_fails_is_flagged_and_the_others_go_on(mosaic, tmp_path):
    mosaic.data[50, 60] = 3000
    mosaic.mask = np.zeros(SHAPE, bool)
    mosaic.mask[100:140, 100:140] = True
    places = [(20.0, 20.0), (60.0, 50.0), (120.0, 120.0), (180.0, 40.0)]
    with pytest.warns(AstroganWarning, match="1 of 4 rows failed.*row 1: .*too bright for me"):
        table = process_catalog(noisy(), places, mosaic, output=tmp_path / "out", size=16, workers=1)
    assert list(table["flags"]) == [0, RowFlag.FAILED, RowFlag.NO_VALID_PIXEL, 0]
    assert list(table["file"] != "") == [True, False, False, True]
    cube = fits.getdata(tmp_path / "out" / "stamps-00000.fits")
    assert list(np.isnan(cube).all((1, 2))) == [False, True, True, False]


def test_what_fails_on_every_row_raises_at_once(path, mosaic, tmp_path):
    with pytest.raises(PSFError, match="give psf="):
        process_catalog(Restorer("wiener"), POSITIONS, mosaic, output=tmp_path / "out", size=16, workers=1)
    with pytest.raises(InputError, match="no row of the catalog"):
        process_catalog(wiener(), [(900.0, 900.0)], path, output=tmp_path / "out", size=16, workers=1)
    with pytest.raises(ImageReadError, match="there is no file"):
        process_catalog(wiener(), POSITIONS, tmp_path / "none.fits", output=tmp_path / "out", size=16, workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"size": 0}, "size=0"),
        ({"margin": -1}, "margin=-1"),
        ({"chunk": 0}, "chunk=0"),
        ({"workers": 0}, "workers=0"),
        ({"layout": "zip"}, "layout='zip'"),
        ({"aperture": -2}, "aperture=-2"),
        ({"rng": -1}, "rng=-1"),
        ({"image_column": "file"}, "one of them"),
        ({"id_column": "who"}, "no column 'who'"),
        ({"sky": "who"}, "no column 'who'"),
        ({"blur": 3}, "blur=3"),
        ({"client": 3}, "client=3"),
    ],
)
def test_wrong_arguments_are_named(keywords, words, path, tmp_path):
    given = {"size": 16, "workers": 1} | keywords
    with pytest.raises(InputError, match=words):
        process_catalog(noisy(), POSITIONS, path, output=tmp_path / "out", **given)


# ---- whole images ---------------------------------------------------------------------------------------------------


def test_many_images(mosaic, tmp_path):
    paths = []
    for i in range(3):
        paths.append(tmp_path / f"field{i}.fits")
        CCDData(mosaic.data[: 50 + 20 * i], unit="nJy", wcs=mosaic.wcs, header={"OBJECT": "M81"}).write(paths[-1])
    paths[1].write_bytes(b"")
    with pytest.warns(AstroganWarning, match="1 of 3 rows failed"):
        table = process_images(wiener(), paths, tmp_path / "out", workers=1)
    assert list(table["status"]) == ["ok", "unreadable", "ok"]
    alone = wiener()(paths[2])
    restored = read_image(tmp_path / "out" / "field2.fits")
    np.testing.assert_allclose(restored.data, alone.data, atol=1e-6)
    assert restored.meta["OBJECT"] == "M81"
    assert Results(tmp_path / "out")[1] is None
    with pytest.raises(InputError, match="would both be written"):
        process_images(wiener(), [paths[0], tmp_path / "else" / "FIELD0.fits.gz"], tmp_path / "out2")


def test_sky_positions_need_a_wcs(mosaic, tmp_path):
    plain = CCDData(mosaic.data, unit="nJy")
    with pytest.raises(InputError, match="no celestial WCS"):
        process_catalog(noisy(), SkyCoord([150.0], [2.0], unit="deg"), plain, output=tmp_path / "o", size=8, workers=1)
