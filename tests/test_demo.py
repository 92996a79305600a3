"""The demonstration, on a small field."""

import sys

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from astrogan.demo import _table, run_demo
from astrogan.exceptions import ImageWriteError, InputError, MissingDependencyError

pytest.importorskip("galsim")
pytest.importorskip("matplotlib")

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "results"


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def result(folder, said):
    return run_demo(folder, size=128, seed=1, progress=said.append)


@slow
def test_files(result, folder):
    assert len(result.files) == len(set(result.files)) == len(list(folder.iterdir()))
    for path in result.files:
        assert path.parent == folder
        assert path.stat().st_size > 500
        if path.suffix == ".fits":
            with fits.open(path) as hdus:
                hdus.verify("exception")
        elif path.suffix == ".ecsv":
            assert len(Table.read(path)) > 0
    names = {path.name for path in result.files}
    assert {"original.fits", "degraded.fits", "truth.fits", "restored_richardson-lucy.fits"} <= names
    assert {"deblended_watershed.fits", "deblended_symmetric.ecsv", "translated_psf-matching.fits"} <= names


@slow
def test_nothing_was_left_out(result, said):
    assert not [text for text in said if "left out" in text]
    assert [text.split()[0] for text in said if not text.startswith(" ")][:2] == ["simulating", "degrading"]


@slow
def test_restoration_table(result):
    table = result.tables["Restoration"]
    methods = list(table["method"])
    assert methods[:2] == ["identity", "gaussian"]
    assert methods[-1] == "(the original)"
    own = np.asarray(table["psnr"][2:-1])
    assert (np.diff(own) <= 0).all()
    assert len(own) >= 6
    assert np.isfinite(table["psnr"]).all()
    row = dict(zip(methods, table, strict=True))
    assert row["richardson-lucy"]["psnr"] > row["identity"]["psnr"]
    assert 0.7 < row["richardson-lucy"]["chi2"] < 3
    assert row[methods[-1]]["psnr"] > row["identity"]["psnr"] + 3
    assert table["psnr"].unit == "dB"


@slow
def test_deblending_table(result):
    table = result.tables["Deblending"]
    assert table["method"][0].startswith("apertures")
    assert {"symmetric", "watershed"} <= set(table["method"])
    assert (table["conservation"][1:] < 1e-5).all()
    assert (table["completeness"][1:] > 0.5).all()


@slow
def test_translation_table(result):
    table = result.tables["Translation"]
    assert list(table["band"]) == ["g", "r", "i"] * 2
    assert set(table["method"]) == {"psf-matching", "surveynet"}
    np.testing.assert_allclose(table["scale_out"], 0.396, rtol=1e-3)
    assert (table["fwhm_out"] > table["fwhm_in"]).all()
    assert (table["noise_out"] > 2 * table["noise_in"]).all()


@slow
def test_results_keep_wcs_unit_and_provenance(result, folder):
    from astropy.wcs import WCS

    original, restored = (fits.open(folder / f"{name}.fits") for name in ("original", "restored_richardson-lucy"))
    with original, restored:
        for band in "gri":
            a, b = original[band.upper()].header, restored[band.upper()].header
            corners = np.array([[0, 127, 0, 127], [0, 0, 127, 127]])
            np.testing.assert_allclose(
                WCS(a).pixel_to_world_values(*corners), WCS(b).pixel_to_world_values(*corners), rtol=0, atol=1e-10
            )
            assert a["BUNIT"] == b["BUNIT"]
            assert b["AGBACK"].endswith("richardson-lucy")
            assert any("degrade" in line for line in b["HISTORY"])
            assert any("restore" in line for line in b["HISTORY"])


@slow
def test_figure(result):
    from matplotlib.image import imread

    picture = imread(result.figure)
    assert result.figure.suffix == ".png"
    assert min(picture.shape[:2]) > 1200
    # No wide empty band: every eighth of the height and of the width has something drawn in it.
    dark = picture[..., :3].min(axis=2) < 0.9
    assert all(part.mean() > 0.2 for part in np.array_split(dark, 8, axis=0))
    assert all(part.mean() > 0.2 for part in np.array_split(dark, 8, axis=1))


@slow
def test_pyplot_is_left_alone(result):
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


@slow
def test_existing_files_are_refused_before_any_work(result, folder):
    before = {path: path.read_bytes() for path in folder.glob("*.ecsv")}
    said = []
    with pytest.raises(ImageWriteError, match=r"already holds original\.fits and \d+ more.*overwrite=True"):
        run_demo(folder, size=128, progress=said.append)
    assert said == []
    assert {path: path.read_bytes() for path in folder.glob("*.ecsv")} == before


@slow
def test_same_seed_same_files(result, folder, tmp_path):
    again = run_demo(tmp_path, size=128, seed=1)
    for path in again.files:
        if path.suffix == ".fits":
            assert path.read_bytes() == (folder / path.name).read_bytes(), path.name
    for title, table in again.tables.items():
        first = result.tables[title]
        for name in set(table.colnames) - {"seconds"}:
            np.testing.assert_array_equal(table[name], first[name])


def test_errors(tmp_path, monkeypatch):
    for size in (100, 128.0, True, None):
        with pytest.raises(InputError, match="size="):
            run_demo(tmp_path / "a", size=size)
    for seed in (-1, 1.5, None):
        with pytest.raises(InputError, match="seed="):
            run_demo(tmp_path / "a", seed=seed)
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageWriteError, match="cannot be made"):
        run_demo(tmp_path / "file" / "below", size=128)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        run_demo(tmp_path / "a", size=128)
    assert not (tmp_path / "a").exists()


def test_missing_values_in_a_table():
    table = _table([{"method": "x"}], {"method": (None, None), "found": (None, "d"), "bias": ("s", "+.3f")}, "Caption.")
    assert np.ma.is_masked(table["found"][0])
    assert table.meta["caption"] == "Caption."
    assert np.isnan(table["bias"][0])
