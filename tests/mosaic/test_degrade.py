"""`Degrader.process`: blur as in one piece, noise that belongs to places, whatever the windows and the workers."""

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

from astrogan import Degrader, read_image, write_image
from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.exceptions import ImageWriteError, InputError, PSFError
from astrogan.image.psf import gaussian_psf
from astrogan.mosaic import MosaicFile, sketch
from astrogan.operators import _mosaic_degrade

SHAPE = (300, 420)
MOFFAT = 1 / (1 + (np.hypot(*np.mgrid[-9:10, -9:10]) / 2.0) ** 2) ** 2.5


@pytest.fixture(autouse=True)
def _small_cells(monkeypatch):
    """Cells of 100 pixels, so that a small image has many."""
    monkeypatch.setattr(_mosaic_degrade, "CELL", 100)


def sky(shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(0.5, 1.0, shape)
    stamp = gaussian_psf(3.0, size=15)
    for y, x in zip(rng.integers(10, shape[-2] - 10, 60), rng.integers(10, shape[-1] - 10, 60), strict=True):
        image[..., y - 7 : y + 8, x - 7 : x + 8] += 3000 * rng.uniform() * stamp
    return image.astype(np.float32)


def image(data=None, **more):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [150.0, 2.0], [200.5, 140.5], [-1e-4, 1e-4]
    return CCDData(sky() if data is None else data, unit="adu", wcs=wcs, meta={"OBJECT": "field"}, **more)


@pytest.fixture
def files(tmp_path):
    write_image(image(), tmp_path / "in.fits")
    return tmp_path / "in.fits", tmp_path / "out.fits"


def assert_close(result, expected):
    scale = np.abs(expected.data).max()
    np.testing.assert_allclose(result.data, expected.data, rtol=0, atol=1e-6 * scale)
    assert result.unit == expected.unit
    assert (result.uncertainty is None) == (expected.uncertainty is None)
    if expected.uncertainty is not None:
        assert type(result.uncertainty) is type(expected.uncertainty)
        np.testing.assert_allclose(result.uncertainty.array, expected.uncertainty.array, rtol=1e-5)
    masks = [None if each.mask is None or not each.mask.any() else each.mask for each in (result, expected)]
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("psf", [4.0, MOFFAT], ids=["separable", "by FFT"])
@pytest.mark.parametrize("rebin", [1, 3, 2.5])
def test_blur_and_larger_pixels_are_those_of_a_call(files, psf, rebin):
    data = sky()
    data[98:103, 200:207] = np.nan
    write_image(image(data, uncertainty=StdDevUncertainty(np.full(SHAPE, 1.1, np.float32))), files[0], overwrite=True)
    degrader = Degrader(psf=psf, match=False, rebin=rebin)
    degrader.process(*files)
    result, expected = read_image(files[1]), degrader(files[0])
    assert result.shape == tuple(int(n / rebin) for n in SHAPE)
    if rebin == 2.5 and psf is MOFFAT:
        # Of a rebinning that is not whole the variance is approximate, by a mean over the phases of the pixels.
        result.uncertainty = expected.uncertainty = None
    assert_close(result, expected)
    pixels = [[0, 0], [result.shape[1] - 1, 7]]
    np.testing.assert_allclose(result.wcs.all_pix2world(pixels, 0), expected.wcs.all_pix2world(pixels, 0), atol=1e-9)
    for key in ("OBJECT", "AGBACK", "AGOP", "AGSEED", "AGNBAD", "AGVERS"):
        assert result.meta[key] == expected.meta[key]
    assert sorted(os.listdir(files[0].parent)) == ["in.fits", "out.fits"]


def test_a_psf_that_is_matched_and_that_of_the_result(files):
    degrader = Degrader(psf=5.0, rebin=2)
    degrader.process(*files, psf=3.0)
    result, expected = read_image(files[1]), degrader(files[0], psf=3.0)
    assert_close(result, expected)
    np.testing.assert_allclose(result.psf, expected.psf, atol=1e-6)
    write_image(image(np.zeros(SHAPE, np.float32)), files[0], overwrite=True)
    with pytest.raises(PSFError, match="match=False"):
        Degrader(psf=5.0).process(*files, overwrite=True)


def noisy(files, degrader, **options):
    degrader.process(*files, overwrite=True, **options)
    return read_image(files[1]).data


CORRELATED = CorrelatedNoise(kernel=np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1]), sigma=2.0)


@pytest.mark.parametrize(
    "options",
    [
        {"noise": 2.0 * u.adu},
        {"noise": CORRELATED},
        {"gain": 5.0, "sky": 40.0, "read_noise": 3.0},
        {"noise": 3.0},
    ],
    ids=["white", "correlated", "photons", "factor"],
)
def test_noise_does_not_depend_on_windows_and_workers(files, options):
    degrader = Degrader(psf=3.0, match=False, **options)
    first = noisy(files, degrader, workers=1, rng=4)
    np.testing.assert_array_equal(noisy(files, degrader, workers=3, tile=150, rng=4), first)
    np.testing.assert_array_equal(noisy(files, degrader, tile=90, rng=4), first)
    assert (noisy(files, degrader, rng=5) != first).mean() > 0.99
    expected = degrader(files[0], rng=4).data
    added, like = (each - degrader_without_noise(files) for each in (first, expected))
    assert np.std(added) == pytest.approx(np.std(like), rel=0.02)


def degrader_without_noise(files):
    return Degrader(psf=3.0, match=False)(files[0]).data


@pytest.mark.parametrize("bands", [1, 2])
def test_correlated_noise_runs_on_across_the_borders_of_cells(tmp_path, bands):
    write_image(CCDData(np.zeros((bands, 200, 1600), np.float32), unit="adu"), tmp_path / "in.fits")
    noise = CorrelatedNoise(CORRELATED.kernel, sigma=2.0, band_correlation=None if bands == 1 else [[1, 0.5], [0.5, 1]])
    degrader = Degrader(noise=noise)
    field = noisy((tmp_path / "in.fits", tmp_path / "out.fits"), degrader)
    cells = _mosaic_degrade._cells(field.shape, degrader.backend, 0, None)
    assert len(cells) == 32
    edges = sorted({cell.core[1].start for cell in cells})[1:]
    wanted = noise.autocorrelation(1)[1, 2]
    assert wanted > 0.7
    for border in (edges, [edge + 20 for edge in edges]):
        left, right = (np.concatenate([field[0, :, edge + k] for edge in border]) for k in (-1, 0))
        assert np.corrcoef(left, right)[0, 1] == pytest.approx(wanted, abs=0.04)
    if bands == 2:
        assert np.corrcoef(field[0].ravel(), field[1].ravel())[0, 1] == pytest.approx(0.5, abs=0.02)


def test_a_level_that_is_drawn_is_drawn_once(files):
    sky_images = np.random.default_rng(3).normal(size=(6, 40, 40)) * np.array([1, 2, 4, 1, 3, 5])[:, None, None]
    noise = CorrelatedNoise.fit(sky_images, size=3)
    write_image(image(np.zeros(SHAPE, np.float32)), files[0], overwrite=True)
    field = noisy(files, Degrader(noise=noise))
    parts = [field[y : y + 100, x : x + 100].std() for y in (0, 100, 200) for x in (0, 105, 210, 315)]
    assert np.ptp(parts) < 0.1 * np.mean(parts)


def test_an_image_of_one_cell_is_that_of_a_call_with_its_noise(files, monkeypatch):
    monkeypatch.setattr(_mosaic_degrade, "CELL", 1000)
    degrader = Degrader(psf=3.0, match=False, noise=2.0 * u.adu)
    np.testing.assert_array_equal(noisy(files, degrader, rng=9), degrader(files[0], rng=9).data)


def test_noise_measured_on_patches_and_bands_in_files(files, monkeypatch):
    for name, value in (("LARGEST", 200), ("_PATCH", 64), ("_SPACING", 100), ("_BOX", 64)):
        monkeypatch.setattr(sketch, name, value)
    paths = {band: files[0].with_name(f"{band}.fits") for band in "gr"}
    for seed, path in enumerate(paths.values()):
        write_image(image(sky(seed=seed)), path)
    degrader = Degrader(noise=3.0, rebin=2)
    degrader.process(paths, files[1])
    result = read_image(files[1])
    assert result.meta["AGBANDS"] == "g,r"
    expected = Degrader(rebin=2)({band: str(path) for band, path in paths.items()})
    for plane, band in zip(result.data, "gr", strict=True):
        scatter = np.std(plane - expected[band].data)
        assert scatter == pytest.approx(2 * np.sqrt(8), rel=0.1)  # four pixels; nine times the variance, less one


def test_the_recipe_works_on_the_whole_image(files, monkeypatch):
    degrader = Degrader.preset("galaxygan2017", fwhm=3.0)
    write_image(CCDData(np.random.default_rng(0).normal(0, 0.02, SHAPE), unit="nmgy"), files[0], overwrite=True)
    np.testing.assert_array_equal(noisy(files, degrader, rng=2), degrader(files[0], rng=2).data)
    monkeypatch.setattr(sketch, "LARGEST", 200)
    monkeypatch.setattr(sketch, "_PATCH", 64)
    with pytest.raises(InputError, match="needs the whole image"):
        degrader.process(*files, overwrite=True)
    with pytest.raises(InputError, match=r"rebin=1.31415"):
        Degrader(rebin=1.31415).process(*files, overwrite=True)


_SCRIPT = """
import sys, time
from astrogan import Degrader
from astrogan.mosaic import MosaicFile
from astrogan.operators import _mosaic_degrade

_mosaic_degrade.CELL = 100
put = MosaicFile.put
def slow(self, *args):
    put(self, *args)
    print(len(self.done), flush=True)
    time.sleep(0.2)
MosaicFile.put = slow
Degrader(psf=4.0, match=False, gain=2.0, rebin=2).process(*sys.argv[1:], tile=100, workers=1, rng=3)
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
    assert not files[1].exists()
    degrader = Degrader(psf=4.0, match=False, gain=2.0, rebin=2)
    with pytest.raises(InputError, match="method was .* resume=False"):
        degrader.process(*files, rng=4)
    with pytest.raises(InputError, match="settled was .* resume=False"):
        Degrader(psf=4.0, match=False, gain=2.1, rebin=2).process(*files, rng=3)
    worked = []
    original = _mosaic_degrade._Task._piece
    monkeypatch.setattr(
        _mosaic_degrade._Task, "_piece", lambda self, n, *rest: worked.append(n) or original(self, n, *rest)
    )
    degrader.process(*files, rng=3, tile=200)
    assert worked
    assert not set(worked) & set(done)
    assert not partial.exists()
    other = files[1].with_name("whole.fits")
    degrader.process(files[0], other, rng=3)
    assert other.read_bytes() == files[1].read_bytes()


def test_processes_do_the_same_and_progress_is_told(files):
    seen = []
    degrader = Degrader(psf=4.0, noise=CORRELATED, match=False)
    expected = noisy(files, degrader, progress=lambda *counts: seen.append(counts))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] > 4
    with ProcessPoolExecutor(1) as pool:
        result = noisy(files, degrader, client=pool)
    np.testing.assert_array_equal(result, expected)


def test_what_cannot_be_is_refused(files):
    degrader = Degrader(psf=4.0, match=False)
    with pytest.raises(InputError, match="rng="):
        degrader.process(*files, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="must be a path"):
        degrader.process(image(), files[1])
    files[1].write_bytes(b"old")
    with pytest.raises(ImageWriteError, match="overwrite=True"):
        degrader.process(*files)
    assert files[1].read_bytes() == b"old"


def test_the_instance_that_was_given_is_left_as_it_is(files):
    from astrogan.backends.classic.physical_degrader import PhysicalDegrader

    backend = PhysicalDegrader(psf=3.0, noise=CORRELATED)
    before = dict(vars(backend))
    Degrader(backend=backend).process(*files)
    assert vars(backend) == before
    assert "white" not in vars(CORRELATED)


def test_nothing_is_left_behind_on_an_error(files, monkeypatch):
    def broken(self, *args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MosaicFile, "_write_window", broken)
    with pytest.raises(ImageWriteError, match="No space left"):
        Degrader(psf=4.0, match=False).process(*files)
    assert os.listdir(files[0].parent) == ["in.fits"]
