"""`Deblender.process`: each source once, whatever the windows, and labels that hold for all of them."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from astrogan import Deblender, read_image, write_image
from astrogan.exceptions import ImageWriteError, InputError
from astrogan.image.psf import GridPSF, gaussian_psf
from astrogan.mosaic import sketch
from astrogan.operators import _mosaic_deblend

SHAPE = (600, 600)


@pytest.fixture(autouse=True, scope="module")
def _small_cells():
    """Parts of 200 pixels, so that a small image has nine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_mosaic_deblend, "CELL", 200)
        yield


def field(shape=SHAPE, seed=0, number=260, noise=1.0):
    """Galaxies, a third of them in pairs, and some on the borders of parts, on a sky with noise."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(12, np.array(shape) - 12, (number, 2))
    places[: number // 3] = places[-(number // 3) :] + rng.uniform(5, 9, (number // 3, 2)) * rng.choice(
        [-1, 1], (number // 3, 2)
    )
    places[:20, 1] = 199.5 + rng.uniform(-1, 1, 20)
    image = rng.normal(0, noise, shape)
    y, x = np.mgrid[-25:26, -25:26]
    for row, column in np.clip(places, 5, np.array(shape) - 6):
        size, flux = rng.uniform(1.6, 2.6), rng.uniform(3000, 20000)
        y0, x0 = round(row), round(column)
        stamp = np.exp(-((y - row + y0) ** 2 + (x - column + x0) ** 2) / (2 * size**2)) * flux / (2 * np.pi * size**2)
        top, left = max(0, y0 - 25), max(0, x0 - 25)
        part = image[top : y0 + 26, left : x0 + 26]
        part += stamp[top - y0 + 25 :, left - x0 + 25 :][: part.shape[0], : part.shape[1]]
    return image.astype(np.float32)


def image(data=None, **more):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [150.0, 2.0], [200.5, 140.5], [-1e-4, 1e-4]
    data = field() if data is None else data
    more.setdefault("uncertainty", StdDevUncertainty(np.ones(data.shape, np.float32)))
    return CCDData(data, unit="adu", wcs=wcs, meta={"OBJECT": "field"}, **more)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("field") / "in.fits"
    write_image(image(), path)
    return path


def watershed(**options):
    return Deblender("watershed", psf=4.0, threshold=3.0, **options)


@pytest.fixture(scope="module")
def called(source):
    return watershed()(source)


@pytest.fixture(scope="module")
def by_windows(source):
    return watershed().process(source, source.parent / "out", overlap=64)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An image of four windows, and what comes of it."""
    path = tmp_path_factory.mktemp("small") / "in.fits"
    write_image(image(field((340, 340), number=60)), path)
    return path, watershed().process(path, path.parent / "out", overlap=40)


def assert_same_sources(catalog, expected):
    assert len(catalog) == len(expected)
    places, wanted = (np.stack([table["x"], table["y"]], axis=-1) for table in (catalog, expected))
    distance, nearest = cKDTree(places).query(wanted)
    assert distance.max() < 0.05
    assert len(set(nearest)) == len(wanted)
    ordered = catalog[nearest]
    for name in [name for name in expected.colnames if name.startswith("flux")]:
        np.testing.assert_allclose(ordered[name].value, expected[name].value, rtol=0.01)
    for name in ("ra", "dec"):
        np.testing.assert_allclose(ordered[name].value, expected[name].value, rtol=0, atol=1e-6)
    # The background under the detection is each window's: segments may differ by a pixel of their rim.
    for name in ("bbox_xmin", "bbox_ymax", "area"):
        assert np.abs(ordered[name] - expected[name]).max() <= 4, name
    assert np.mean(ordered["flags"] == expected["flags"]) > 0.98
    return nearest


def test_sources_labels_and_residual_are_those_of_a_call(by_windows, called):
    assert sorted(os.listdir(by_windows)) == ["catalog.ecsv", "residual.fits", "segmentation.fits"]
    catalog = QTable.read(by_windows / "catalog.ecsv")
    assert catalog.colnames == called.catalog.colnames
    nearest = assert_same_sources(catalog, called.catalog)
    assert catalog["id"].tolist() == list(range(1, len(catalog) + 1))
    assert catalog["flux_0"].unit == "adu"
    labels = read_image(by_windows / "segmentation.fits")
    assert labels.data.min() == 0
    table = np.concatenate([[0], catalog["id"][nearest]])
    assert np.mean(table[called.segmentation] == labels.data) > 0.999
    found = read_image(by_windows / "residual.fits")
    assert found.unit == "adu"
    assert isinstance(found.uncertainty, StdDevUncertainty)
    assert np.mean(np.isclose(found.data, called.residual.data, atol=1e-2)) > 0.999
    for key in ("OBJECT", "AGBACK", "AGOP", "AGSEED", "AGNBAD"):
        assert found.meta[key] == called.residual.meta[key]
    np.testing.assert_allclose(found.wcs.all_pix2world([[3, 4]], 0), called.residual.wcs.all_pix2world([[3, 4]], 0))


def test_each_pixel_of_a_source_on_a_border_has_its_label(by_windows):
    catalog, labels = QTable.read(by_windows / "catalog.ecsv"), read_image(by_windows / "segmentation.fits").data
    area = np.bincount(labels.ravel().astype(int), minlength=len(catalog) + 1)[1:]
    crossing = (catalog["bbox_xmin"] < 200) & (catalog["bbox_xmax"] >= 200)
    assert crossing.sum() > 10
    # As far as the two windows agree on its rim.
    assert np.abs(area - catalog["area"])[crossing].max() <= 4


def test_one_window_is_a_call(source, tmp_path, called, monkeypatch):
    monkeypatch.setattr(_mosaic_deblend, "CELL", 1000)
    out = watershed().process(source, tmp_path / "out", table="fits")
    catalog = QTable.read(out / "catalog.fits")
    for name in called.catalog.colnames:
        np.testing.assert_array_equal(np.asarray(catalog[name]), np.asarray(called.catalog[name]))
    np.testing.assert_array_equal(read_image(out / "segmentation.fits").data, called.segmentation)
    np.testing.assert_array_equal(read_image(out / "residual.fits").data, called.residual.data)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


def test_the_bytes_do_not_depend_on_workers_and_windows(small, tmp_path):
    expected = contents(small[1])
    seen = []
    many = watershed(workers=3, progress=lambda *counts: seen.append(counts))
    assert contents(many.process(small[0], tmp_path / "b", overlap=40, tile=300)) == expected
    assert seen[0] == (0, 4)
    assert seen[-1] == (4, 4)
    with ProcessPoolExecutor(1) as pool:
        assert contents(watershed().process(small[0], tmp_path / "c", overlap=40, client=pool)) == expected


def test_positions_that_are_given_keep_their_order(source, tmp_path, called):
    order = np.random.default_rng(1).permutation(len(called.catalog))
    positions = np.stack([called.catalog["x"], called.catalog["y"]], axis=-1)[order]
    positions[0] = 199.5, 333.0  # on a border, where there may be nothing
    expected = watershed()(source, positions)
    out = watershed().process(source, tmp_path / "out", positions, overlap=64)
    catalog = QTable.read(out / "catalog.ecsv")
    np.testing.assert_allclose(catalog["x"], expected.catalog["x"], atol=0.05)
    np.testing.assert_array_equal(catalog["id"], expected.catalog["id"])
    np.testing.assert_allclose(catalog["flux_0"].value[1:], expected.catalog["flux_0"].value[1:], rtol=0.01)
    assert np.mean(read_image(out / "segmentation.fits").data == expected.segmentation) > 0.999


def test_a_blend_at_a_time_with_a_psf_that_varies_and_bands(tmp_path):
    data = np.stack([field(seed=2, number=40), 2 * field(seed=2, number=40)])[:, :300, :450]
    write_image(CCDData(data, unit="adu"), tmp_path / "in.fits")
    points = [(50.0, 50.0), (400.0, 50.0), (50.0, 250.0), (400.0, 250.0)]
    psf = GridPSF(points, [gaussian_psf(width, size=15) for width in (3.0, 3.2, 3.4, 3.6)])
    deblender = Deblender("symmetric", psf=psf, threshold=4.0)
    out = deblender.process(tmp_path / "in.fits", tmp_path / "out", overlap=64)
    catalog, expected = QTable.read(out / "catalog.ecsv"), deblender(tmp_path / "in.fits").catalog
    assert len(catalog) == len(expected) > 10
    for name in ("flux_0", "flux_1"):
        np.testing.assert_allclose(np.sort(catalog[name].value), np.sort(expected[name].value), rtol=0.05)
    assert read_image(out / "residual.fits").shape == data.shape


def test_fields_that_are_partly_empty(tmp_path, monkeypatch):
    for name, value in (("LARGEST", 200), ("_PATCH", 64), ("_SPACING", 100), ("_BOX", 64)):
        monkeypatch.setattr(sketch, name, value)
    data = field()
    data[:, 200:] = np.nan
    write_image(image(data, uncertainty=None), tmp_path / "in.fits")
    out = watershed().process(tmp_path / "in.fits", tmp_path / "out", overlap=64)
    catalog, expected = QTable.read(out / "catalog.ecsv"), watershed()(tmp_path / "in.fits").catalog
    assert abs(len(catalog) - len(expected)) <= 2
    assert catalog["x"].max() < 205
    found = read_image(out / "residual.fits")
    np.testing.assert_array_equal(found.mask, np.isnan(data))
    assert not read_image(out / "segmentation.fits").data[:, 210:].any()
    write_image(image(np.zeros(SHAPE, np.float32)), tmp_path / "blank.fits")
    out = watershed().process(tmp_path / "blank.fits", tmp_path / "none")
    assert len(QTable.read(out / "catalog.ecsv")) == 0


_SCRIPT = """
import sys, time
from astrogan import Deblender
from astrogan.mosaic import MosaicFile
from astrogan.operators import _mosaic_deblend

_mosaic_deblend.CELL = 200
put = MosaicFile.put
def slow(self, *args):
    put(self, *args)
    if self.path.name == "residual.fits":
        print(len(self.done), flush=True)
        time.sleep(0.2)
MosaicFile.put = slow
Deblender("watershed", psf=4.0, threshold=3.0, workers=1).process(*sys.argv[1:], tile=200, overlap=40)
"""


def test_a_killed_run_goes_on_where_it_was(small, tmp_path, monkeypatch):
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(small[0]), str(out)], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if int(line) == 1:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    journal = out / "residual.fits.partial" / "journal.jsonl"
    done = [json.loads(line)["done"] for line in journal.read_text().splitlines()[1:]]
    assert 1 <= len(done) <= 3
    with pytest.raises(InputError, match="windows was .* resume=False"):
        watershed().process(small[0], out, overlap=128)
    worked = []
    original = _mosaic_deblend._Task._piece
    monkeypatch.setattr(
        _mosaic_deblend._Task, "_piece", lambda self, n, psf: worked.append(n) or original(self, n, psf)
    )
    watershed().process(small[0], out, overlap=40)
    assert worked
    assert not set(worked) & set(done)
    assert contents(out) == contents(small[1])


@pytest.mark.parametrize("last", ["relabelled", "segmentation", "catalog"])
def test_a_run_that_ends_at_the_very_end_is_finished(small, tmp_path, monkeypatch, last):
    from astrogan.mosaic import MosaicFile

    def stop(self, *args):
        raise KeyboardInterrupt

    finish, count = MosaicFile.finish, []
    with monkeypatch.context() as patch:
        if last == "relabelled":
            original = _mosaic_deblend._Whole.relabelled
            patch.setattr(
                _mosaic_deblend._Whole,
                "relabelled",
                lambda self, n, labels: stop(self) if n == 2 else original(self, n, labels),
            )
        elif last == "catalog":
            patch.setattr(MosaicFile, "finish", stop)
        else:
            patch.setattr(
                MosaicFile, "finish", lambda self, t: stop(self) if count else count.append(1) or finish(self, t)
            )
        with pytest.raises(KeyboardInterrupt):
            watershed().process(small[0], tmp_path / "out2", overlap=40)
    watershed().process(small[0], tmp_path / "out2", overlap=40)
    assert contents(tmp_path / "out2") == contents(small[1])


def test_what_cannot_be_is_refused(small, tmp_path):
    before = contents(small[1])
    with pytest.raises(ImageWriteError, match="overwrite=True"):
        watershed().process(*small)
    for options, what in (({"overlap": 0}, "overlap=0"), ({"table": "csv"}, "table='csv'"), ({"rng": None}, "rng=")):
        with pytest.raises(InputError, match=what):
            watershed().process(small[0], tmp_path / "new", **options)
    with pytest.raises(ImageWriteError, match="is a file"):
        watershed().process(small[0], small[0])
    with pytest.raises(ImageWriteError, match="create it first"):
        watershed().process(small[0], tmp_path / "no" / "folder")
    with pytest.raises(InputError, match="outside the image"):
        watershed().process(small[0], tmp_path / "new", [(700.0, 3.0)])
    assert contents(small[1]) == before
    assert not (tmp_path / "new").exists()
    watershed().process(*small, overwrite=True, overlap=40)
    assert contents(small[1]) == before
