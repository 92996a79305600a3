"""`Translator.process`: cells of the target's grid give what the whole gives."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS

from astrogan import Translator, read_image, write_image
from astrogan.api import Estimate
from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.exceptions import InputError
from astrogan.image.psf import gaussian_psf
from astrogan.mosaic import sketch
from astrogan.operators import _mosaic_translate
from astrogan.operators.translator import TargetSpec

SHAPE = (240, 300)


@pytest.fixture(autouse=True)
def _small_cells(monkeypatch):
    """Cells of 90 pixels, so that a small image has many."""
    monkeypatch.setattr(_mosaic_translate, "CELL", 90)


def sky(shape=SHAPE, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    image = rng.normal(0.0, noise, shape)
    stamp = gaussian_psf(3.0, size=15)
    for y, x in zip(rng.integers(10, shape[-2] - 10, 60), rng.integers(10, shape[-1] - 10, 60), strict=True):
        image[..., y - 7 : y + 8, x - 7 : x + 8] += 3000 * rng.uniform() * stamp
    return image.astype(np.float32)


def grid(scale, crpix, angle=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], crpix
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * scale / 3600
    return wcs


def image(data=None, **more):
    return CCDData(
        sky() if data is None else data, unit="adu", wcs=grid(0.2, [150.5, 120.5]), meta={"OBJECT": "field"}, **more
    )


TURNED = TargetSpec(wcs=grid(0.3, [130.5, 110.5], angle=25.0), shape=(230, 260), psf=4.0)


@pytest.fixture
def files(tmp_path):
    write_image(image(), tmp_path / "in.fits")
    return tmp_path / "in.fits", tmp_path / "out.fits"


def translator(target=TURNED, backend="psf-matching", **options):
    return Translator(backend, target=target, psf=3.0, **options)


def assert_close(result, expected, atol=1e-6):
    scale = np.abs(expected.data).max()
    np.testing.assert_allclose(result.data, expected.data, rtol=0, atol=atol * scale)
    assert result.unit == expected.unit
    assert (result.uncertainty is None) == (expected.uncertainty is None)
    if expected.uncertainty is not None:
        assert type(result.uncertainty) is type(expected.uncertainty)
        np.testing.assert_allclose(result.uncertainty.array, expected.uncertainty.array, rtol=1e-4)
    np.testing.assert_array_equal(result.mask, expected.mask)


@pytest.mark.parametrize(
    "target",
    [
        TURNED,
        TargetSpec(pixel_scale=0.35, psf=4.0),
        TargetSpec(pixel_scale=0.15),
        TargetSpec(wcs=grid(0.2, [-60.5, 20.5]), shape=(233, 250), psf=4.0),
        TargetSpec(wcs=grid(0.5, [60.5, 50.5], angle=170.0), shape=(110, 130)),
    ],
    ids=["turned", "larger pixels", "finer pixels", "beside the image", "turned, averaged"],
)
def test_psf_matching_is_that_of_a_call(files, target):
    data = sky()
    data[98:103, 200:207] = np.nan
    write_image(image(data, uncertainty=StdDevUncertainty(np.full(SHAPE, 1.1, np.float32))), files[0], overwrite=True)
    translate = translator(target)
    translate.process(*files)
    result, expected = read_image(files[1]), translate(files[0])
    assert 0 < expected.mask.mean() < 1
    assert_close(result, expected)
    pixels = [[0, 0], [result.shape[1] - 1, 7]]
    np.testing.assert_allclose(result.wcs.all_pix2world(pixels, 0), expected.wcs.all_pix2world(pixels, 0), atol=1e-9)
    for key in ("OBJECT", "AGBACK", "AGOP", "AGSEED", "AGNBAD", "AGTARGET", "AGVERS"):
        assert result.meta[key] == expected.meta[key]
    assert (result.psf is None) == (expected.psf is None)
    assert sorted(os.listdir(files[0].parent)) == ["in.fits", "out.fits"]


CORRELATED = CorrelatedNoise(kernel=np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1]))


@pytest.mark.parametrize("model", [None, CORRELATED], ids=["white", "correlated"])
def test_noise_reaches_the_targets_whatever_the_windows(files, model):
    write_image(image(np.random.default_rng(5).normal(0, 1, SHAPE).astype(np.float32)), files[0], overwrite=True)
    target = TargetSpec(pixel_scale=0.2, psf=4.0, noise=2.0 * u.adu, noise_slope=0.1 * u.adu, noise_model=model)
    translate = translator(target)
    results = []
    for options in ({"workers": 1}, {"workers": 3, "tile": 130}, {"tile": 64}):
        translate.process(*files, rng=3, overwrite=True, **options)
        results.append(read_image(files[1]).data)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    field = results[0][10:-10, 10:-10]
    assert np.std(field) == pytest.approx(np.std(translate(files[0], rng=3).data[10:-10, 10:-10]), rel=0.02)
    cells = _mosaic_translate.plan_tiles(SHAPE, 90 + 2 * 60, 60, 16)
    edges = sorted({cell.core[0].start for cell in cells})[1:]
    neighbours = np.corrcoef(*(np.concatenate([results[0][edge + k] for edge in edges]) for k in (-1, 0)))[0, 1]
    inside = np.corrcoef(*(np.concatenate([results[0][edge + 30 + k] for edge in edges]) for k in (-1, 0)))[0, 1]
    assert neighbours == pytest.approx(inside, abs=0.15)


def test_an_image_of_one_cell_is_that_of_a_call_with_its_noise(files, monkeypatch):
    monkeypatch.setattr(_mosaic_translate, "CELL", 1000)
    translate = translator(TargetSpec(pixel_scale=0.3, psf=4.0, noise=2.0 * u.adu))
    translate.process(*files, rng=9)
    assert_close(read_image(files[1]), translate(files[0], rng=9))


def small_sketch(monkeypatch):
    for name, value in (("LARGEST", 200), ("_PATCH", 64), ("_SPACING", 100), ("_BOX", 64)):
        monkeypatch.setattr(sketch, name, value)


def test_levels_measured_on_patches(files, monkeypatch):
    translate = translator(TargetSpec(wcs=TURNED.wcs, shape=TURNED.shape, psf=4.0, noise=2.0 * u.adu))
    translate.process(*files)
    whole = read_image(files[1])
    small_sketch(monkeypatch)
    translate.process(*files, overwrite=True)
    result = read_image(files[1])
    # The same noise is drawn; how much of it is needed is measured a little differently.
    assert np.std((result.data - whole.data)[~whole.mask]) < 0.05
    assert result.uncertainty is None
    np.testing.assert_array_equal(result.mask, whole.mask)


def test_surface_brightness_and_bands(tmp_path):
    paths = {band: tmp_path / f"{band}.fits" for band in "gr"}
    for seed, path in enumerate(paths.values()):
        more = image(sky(seed=seed))
        write_image(CCDData(more.data, unit="MJy / sr", wcs=more.wcs), path)
    translate = translator(TargetSpec(pixel_scale=0.3, psf={"g": 4.0, "r": 5.0}))
    translate.process(paths, tmp_path / "out.fits")
    result = read_image(tmp_path / "out.fits")
    expected = translate({band: str(path) for band, path in paths.items()})
    assert result.meta["AGBANDS"] == "g,r"
    for plane, band in zip(result.data, "gr", strict=True):
        np.testing.assert_allclose(plane, expected[band].data, rtol=0, atol=1e-6 * plane.max())


@pytest.mark.parametrize("sharper", [True, False])
def test_the_network_is_that_of_a_call(tmp_path, sharper):
    shape = (224, 320)
    files = tmp_path / "in.fits", tmp_path / "out.fits"
    write_image(image(sky(shape)), files[0])
    target = TargetSpec(pixel_scale=0.2, psf=2.2 if sharper else 4.0, noise=0.5 * u.adu)
    translate = translator(target, "surveynet", noise=False, ensemble=False)
    expected = translate(files[0]).data
    translate.process(*files)
    np.testing.assert_allclose(read_image(files[1]).data, expected, rtol=0, atol=3e-5 * expected.max())


class Whole:
    """A method that needs the whole image."""

    def __call__(self, observation, target, *, rng):
        return Estimate(np.full((len(observation.data), *target.shape), observation.data.mean(), np.float32))


def test_a_method_that_needs_the_whole_image(files, monkeypatch):
    translate = Translator(Whole(), target=TargetSpec(pixel_scale=0.4))
    translate.process(*files)
    np.testing.assert_array_equal(read_image(files[1]).data, translate(files[0]).data)
    small_sketch(monkeypatch)
    with pytest.raises(InputError, match="needs the whole image"):
        translate.process(*files, overwrite=True)


def test_what_cannot_be_is_refused(files):
    with pytest.raises(InputError, match="rng="):
        translator().process(*files, rng=None)
    far = TargetSpec(wcs=grid(0.2, [9000.5, 20.5]), shape=(100, 100), psf=4.0)
    with pytest.raises(InputError, match="no pixel of its grid lies on the image"):
        translator(far).process(*files)
    assert os.listdir(files[0].parent) == ["in.fits"]


_SCRIPT = """
import sys, time
from astrogan import Translator
from astrogan.mosaic import MosaicFile
from astrogan.operators import _mosaic_translate
from astrogan.operators.translator import TargetSpec

_mosaic_translate.CELL = 90
put = MosaicFile.put
def slow(self, *args):
    put(self, *args)
    print(len(self.done), flush=True)
    time.sleep(0.2)
MosaicFile.put = slow
target = TargetSpec(pixel_scale=0.3, psf=4.0, noise=30.0)
Translator("psf-matching", target=target, psf=3.0).process(*sys.argv[1:], tile=64, workers=1, rng=3)
"""


def test_a_killed_run_goes_on_where_it_was(files, monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", _SCRIPT, *map(str, files)], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == 3:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    partial = files[1].with_name("out.fits.partial")
    done = [json.loads(line)["done"] for line in (partial / "journal.jsonl").read_text().splitlines()[1:]]
    assert 3 <= len(done) <= 5
    with pytest.raises(InputError, match="target was .* resume=False"):
        translator(TargetSpec(pixel_scale=0.3, psf=4.0, noise=31.0)).process(*files, rng=3)
    translate = translator(TargetSpec(pixel_scale=0.3, psf=4.0, noise=30.0))
    worked = []
    original = _mosaic_translate._Task._piece
    monkeypatch.setattr(_mosaic_translate._Task, "_piece", lambda self, n: worked.append(n) or original(self, n))
    translate.process(*files, rng=3)
    assert worked
    assert not set(worked) & set(done)
    assert not partial.exists()
    other = files[1].with_name("whole.fits")
    translate.process(files[0], other, rng=3)
    assert other.read_bytes() == files[1].read_bytes()


def test_processes_do_the_same_and_progress_is_told(files):
    seen = []
    translate = translator(TargetSpec(wcs=TURNED.wcs, shape=TURNED.shape, psf=4.0, noise=2.0, noise_model=CORRELATED))
    translate.process(*files, progress=lambda *counts: seen.append(counts))
    expected = read_image(files[1]).data
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] > 4
    with ProcessPoolExecutor(1) as pool:
        translate.process(*files, client=pool, overwrite=True)
    np.testing.assert_array_equal(read_image(files[1]).data, expected)
