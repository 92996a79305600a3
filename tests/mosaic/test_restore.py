"""`Restorer.process`: from file to file, the same as in one piece, whatever the windows, the workers and the kills."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS

from astrogan import Restorer, read_image, write_image
from astrogan.exceptions import ImageWriteError, InputError, UnitError
from astrogan.image.psf import GridPSF, gaussian_psf
from astrogan.mosaic import MosaicSource, Sketch, sketch
from astrogan.operators import _mosaic

SHAPE = (300, 420)


def sky(shape=SHAPE, seed=0, noise=1.0):
    """Stars of three pixels FWHM on a sky with noise."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0.5, noise, shape)
    stamp = gaussian_psf(3.0, size=15)
    for y, x in zip(rng.integers(10, shape[-2] - 10, 60), rng.integers(10, shape[-1] - 10, 60), strict=True):
        image[..., y - 7 : y + 8, x - 7 : x + 8] += 3000 * rng.uniform() * stamp
    return image.astype(np.float32)


def grid():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [150.0, 2.0], [200.5, 140.5], [-1e-4, 1e-4]
    a, b = np.zeros((3, 3)), np.zeros((3, 3))
    a[2, 0], b[0, 2] = 1e-6, -2e-6
    from astropy.wcs import Sip

    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    return wcs


def image(data=None, **more):
    data = sky() if data is None else data
    return CCDData(data, unit="adu", wcs=grid(), meta={"OBJECT": "field", "EXPTIME": 30.0}, **more)


@pytest.fixture
def files(tmp_path):
    write_image(image(), tmp_path / "in.fits")
    return tmp_path / "in.fits", tmp_path / "out.fits"


def assert_equal(result, expected):
    np.testing.assert_array_equal(result.data, expected.data)
    assert result.unit == expected.unit
    assert (result.uncertainty is None) == (expected.uncertainty is None)
    if expected.uncertainty is not None:
        assert type(result.uncertainty) is type(expected.uncertainty)
        np.testing.assert_array_equal(result.uncertainty.array, expected.uncertainty.array)
    # A file says nothing of a mask without a masked pixel.
    masks = [None if each.mask is None or not each.mask.any() else each.mask for each in (result, expected)]
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("window", [None, 100, 250])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_result_is_that_of_a_call(files, window, workers):
    data = sky()
    data[100:104, 200:207] = np.nan  # across the border of two tiles
    write_image(image(data, uncertainty=StdDevUncertainty(np.full(SHAPE, 1.1, np.float32))), files[0], overwrite=True)
    restorer = Restorer("wiener", psf=3.0, balance=0.05, tile=128, workers=workers)
    restorer.process(*files, tile=window)
    assert_equal(read_image(files[1]), restorer(files[0]))
    assert sorted(os.listdir(files[0].parent)) == ["in.fits", "out.fits"]


@pytest.mark.parametrize("backend", ["richardson-lucy", "nafnet", "gaussian"])
def test_methods_that_measure_the_whole_image(files, backend):
    options = {"iterations": 5} if backend == "richardson-lucy" else {}
    restorer = Restorer(backend, psf=3.0, tile=128 if backend != "nafnet" else 256, **options)
    restorer.process(*files, tile=130)
    assert_equal(read_image(files[1]), restorer(files[0]))


def test_header_wcs_and_provenance_are_those_of_a_call(files):
    data = sky()
    data[5, 5] = np.nan
    data[50, 60] = 1e6
    write_image(image(data), files[0], overwrite=True)
    restorer = Restorer("wiener", psf=3.0, balance=0.05, tile=128)
    restorer.process(*files, saturation=1e5, rng=7)
    result, expected = read_image(files[1]), restorer(files[0], saturation=1e5, rng=7)
    pixels = np.array([[0, 0], [419, 0], [419, 299], [33, 222]])
    np.testing.assert_allclose(
        result.wcs.all_pix2world(pixels, 0), expected.wcs.all_pix2world(pixels, 0), rtol=0, atol=1e-9
    )
    assert result.meta["AGNBAD"] == expected.meta["AGNBAD"] > 1
    assert result.meta["AGNSAT"] == expected.meta["AGNSAT"] > 0
    assert dict(result.meta)["AGSEED"] == 7
    for key in ("OBJECT", "EXPTIME", "AGBACK", "AGOP", "AGPSF", "AGFWHM", "AGVERS"):
        assert result.meta[key] == expected.meta[key]
    np.testing.assert_array_equal(result.flags, expected.flags)
    assert "" not in result.meta
    with fits.open(files[1]) as opened:
        opened.verify("exception")


def test_bands_of_a_cube_and_bands_in_files_of_their_own(tmp_path):
    planes = [sky(seed=k) for k in range(3)]
    restorer = Restorer("wiener", psf=[3.0, 3.2, 3.4], balance=0.05, tile=128)
    cube = tmp_path / "cube.fits"
    write_image(CCDData(np.stack(planes), unit="adu"), cube)
    restorer.process(cube, tmp_path / "out.fits", tile=150)
    expected = restorer(cube)
    np.testing.assert_array_equal(read_image(tmp_path / "out.fits").data, expected.data)
    paths = {}
    for band, plane in zip("gri", planes, strict=True):
        paths[band] = tmp_path / f"{band}.fits"
        write_image(image(plane), paths[band])
    restorer.process(paths, tmp_path / "bands.fits")
    result = read_image(tmp_path / "bands.fits")
    assert result.meta["AGBANDS"] == "g,r,i"
    np.testing.assert_array_equal(result.data, expected.data)


def test_a_psf_that_varies_is_that_of_each_tile(files):
    points = [(50.0, 50.0), (370.0, 50.0), (50.0, 250.0), (370.0, 250.0)]
    psf = GridPSF(points, [gaussian_psf(width, size=15) for width in (2.5, 3.0, 3.5, 4.0)])
    restorer = Restorer("wiener", psf=psf, balance=0.05, tile=128)
    restorer.process(*files, tile=130)
    np.testing.assert_array_equal(read_image(files[1]).data, restorer(files[0]).data)


# ---- larger than a sketch ---------------------------------------------------------------------------------------


@pytest.fixture
def small_sketch(monkeypatch):
    """Images of 200 pixels count as large."""
    monkeypatch.setattr(sketch, "LARGEST", 200)
    monkeypatch.setattr(sketch, "_PATCH", 64)
    monkeypatch.setattr(sketch, "_SPACING", 100)
    monkeypatch.setattr(sketch, "_BOX", 64)


@pytest.mark.usefixtures("small_sketch")
def test_a_large_image_is_that_of_a_call_where_nothing_is_measured(files):
    data = image(uncertainty=StdDevUncertainty(np.full(SHAPE, 1.1, np.float32)))
    write_image(data, files[0], overwrite=True)
    restorer = Restorer("wiener", psf=3.0, balance=0.05, tile=128)
    restorer.process(*files)
    assert_equal(read_image(files[1]), restorer(files[0]))


@pytest.mark.usefixtures("small_sketch")
@pytest.mark.parametrize("backend", ["richardson-lucy", "nafnet"])
def test_a_large_image_is_nearly_that_of_a_call_where_it_is_measured_on_patches(files, backend):
    restorer = Restorer(backend, psf=3.0, tile=128 if backend != "nafnet" else 256)
    results = []
    for window in (None, 140):
        restorer.process(*files, tile=window, overwrite=True)
        results.append(read_image(files[1]).data)
    np.testing.assert_array_equal(*results)
    expected = restorer(files[0]).data
    # Another sky and noise level by some per cent, of a noise of one.
    assert np.abs(results[0] - expected).max() < 0.02 * np.abs(expected).max()
    assert np.std(results[0] - expected) < 0.2


@pytest.mark.usefixtures("small_sketch")
def test_the_noise_map_follows_the_noise(tmp_path):
    data = np.random.default_rng(1).normal(0, 1, (800, 400)) * np.where(np.arange(800) < 400, 1.0, 3.0)[:, None]
    write_image(CCDData(data.astype(np.float32), unit="adu"), tmp_path / "in.fits")
    source = MosaicSource.open(tmp_path / "in.fits")
    found = Sketch.of(source, needs_variance=True)
    assert not found.whole
    above = found.window(source, slice(700, 800), slice(0, 100)).observation
    below = found.window(source, slice(0, 100), slice(300, 400)).observation
    assert above.measured_noise
    assert np.sqrt(np.median(above.variance)) == pytest.approx(3.0, rel=0.1)
    assert np.sqrt(np.median(below.variance)) == pytest.approx(1.0, rel=0.1)


@pytest.mark.usefixtures("small_sketch")
def test_fields_that_are_mostly_empty(tmp_path):
    data = np.full((600, 600), np.nan, np.float32)
    data[30:300, 250:600] = sky((270, 350))
    write_image(CCDData(data, unit="adu"), tmp_path / "in.fits")
    restorer = Restorer("richardson-lucy", psf=3.0, iterations=3, tile=128)
    restorer.process(tmp_path / "in.fits", tmp_path / "out.fits", tile=128)
    result = read_image(tmp_path / "out.fits")
    np.testing.assert_array_equal(result.mask[np.isnan(data)], True)
    assert np.isfinite(result.data).all()
    inside = result.data[60:270, 280:570]
    np.testing.assert_allclose(inside, restorer(tmp_path / "in.fits").data[60:270, 280:570], atol=0.05 * inside.max())
    write_image(CCDData(np.full((600, 600), np.nan, np.float32), unit="adu"), tmp_path / "empty.fits")
    with pytest.raises(InputError, match="no valid pixel"):
        restorer.process(tmp_path / "empty.fits", tmp_path / "none.fits")
    assert not list(tmp_path.glob("none*"))


@pytest.mark.usefixtures("small_sketch")
def test_a_method_that_needs_the_whole_image_says_so(files):
    with pytest.raises(InputError, match="needs the whole image at once"):
        Restorer("tv", psf=3.0, strength=0.1).process(*files)
    assert not files[1].exists()


# ---- other stores and other workers -----------------------------------------------------------------------------


def test_compressed_tiles_and_zarr_are_read_by_windows(tmp_path):
    data = sky()
    header = grid().to_header(relax=True)
    fits.CompImageHDU(data, header, compression_type="GZIP_2", quantize_level=0, tile_shape=(64, 64)).writeto(
        tmp_path / "packed.fits"
    )
    restorer = Restorer("wiener", psf=3.0, balance=0.05, tile=128)
    restorer.process(tmp_path / "packed.fits", tmp_path / "a.fits", unit="adu", tile=140)
    expected = restorer(image(data))
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits").data, expected.data)
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(str(tmp_path / "in.zarr"), shape=data.shape, chunks=(64, 64), dtype="f4")
    array[:] = data
    array.attrs.update({"header": header.tostring(sep="\n"), "unit": "adu"})
    restorer.process(tmp_path / "in.zarr", tmp_path / "b.fits")
    result = read_image(tmp_path / "b.fits")
    np.testing.assert_array_equal(result.data, expected.data)
    np.testing.assert_allclose(result.wcs.all_pix2world([[3, 4]], 0), expected.wcs.all_pix2world([[3, 4]], 0))
    del array.attrs["unit"]
    with pytest.raises(UnitError, match="unit="):
        restorer.process(tmp_path / "in.zarr", tmp_path / "c.fits")


def test_processes_do_the_same(files):
    restorer = Restorer("nafnet", psf=3.0, tile=256)
    with ProcessPoolExecutor(1) as pool:
        restorer.process(*files, client=pool)
    assert_equal(read_image(files[1]), restorer(files[0]))


_CLUSTER = """
import os, signal, sys
from distributed import Client, LocalCluster
from astrogan import Restorer

def kill(done, total):
    # In the middle, one of the two workers.
    if done >= 3 and pids:
        os.kill(pids.pop(), signal.SIGKILL)

if __name__ == "__main__":
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        pids = list(client.run(os.getpid).values())[:1]
        restorer = Restorer("wiener", psf=3.0, balance=0.05, tile=128, progress=kill)
        restorer.process(*sys.argv[1:], tile=128, client=client)
    assert not pids
"""


def test_a_dask_cluster_does_the_same_even_if_a_worker_dies(files, tmp_path):
    pytest.importorskip("distributed")
    script = tmp_path / "cluster.py"  # the workers import it
    script.write_text(_CLUSTER)
    subprocess.run([sys.executable, str(script), *map(str, files)], check=True, capture_output=True, timeout=300)
    assert_equal(read_image(files[1]), Restorer("wiener", psf=3.0, balance=0.05, tile=128)(files[0]))


def test_a_client_of_another_kind_is_refused(files):
    with pytest.raises(InputError, match="client="):
        Restorer("wiener", psf=3.0).process(*files, client="cluster")
    assert not list(files[0].parent.glob("out*"))


# ---- kills, locks and errors ------------------------------------------------------------------------------------

_SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell begins without
from astrogan import Restorer
from astrogan.operators import _mosaic
from astrogan.mosaic import MosaicFile

put = MosaicFile.put
def slow(self, *args):
    put(self, *args)
    print(len(self.done), flush=True)
    time.sleep(0.2)
MosaicFile.put = slow
Restorer("wiener", psf=3.0, balance=0.05, tile=128, workers=1).process(*sys.argv[1:], tile=128)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_where_it_was(files, ending, monkeypatch):
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, *map(str, files)], stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    )
    for line in process.stdout:
        if int(line) == 3:
            process.send_signal(ending)
            break
    process.wait()
    process.stdout.close()
    assert not files[1].exists()
    partial = files[1].with_name("out.fits.partial")
    done = [json.loads(line)["done"] for line in (partial / "journal.jsonl").read_text().splitlines()[1:]]
    assert 3 <= len(done) <= 5
    restorer = Restorer("wiener", psf=3.0, balance=0.05, tile=128)
    worked = []
    original = _mosaic._Task._piece
    monkeypatch.setattr(_mosaic._Task, "_piece", lambda self, n, *a: worked.append(n) or original(self, n, *a))
    restorer.process(*files, tile=300)
    assert not set(worked) & set(done)
    assert_equal(read_image(files[1]), restorer(files[0]))
    assert not partial.exists()
    # The same bytes as an uninterrupted run.
    other = files[1].with_name("whole.fits")
    restorer.process(files[0], other)
    assert other.read_bytes() == files[1].read_bytes()


def interrupted(files, monkeypatch, **options):
    """A run that stops after two pieces."""
    from astrogan.mosaic import MosaicFile

    put = MosaicFile.put

    def stop(self, *args):
        if len(self.done) == 2:
            raise KeyboardInterrupt
        put(self, *args)

    restorer = Restorer("wiener", psf=3.0, balance=0.05, tile=128)
    with monkeypatch.context() as patch:
        patch.setattr(MosaicFile, "put", stop)
        with pytest.raises(KeyboardInterrupt):
            restorer.process(*files, **options)
    return files[1].with_name("out.fits.partial")


def test_a_part_of_something_else_is_not_taken_up(files, monkeypatch):
    partial = interrupted(files, monkeypatch)
    for other, what in (
        (Restorer("wiener", psf=3.0, balance=0.06, tile=128), "method"),
        (Restorer("wiener", psf=3.2, balance=0.05, tile=128), "settled"),
        (Restorer("wiener", psf=3.0, balance=0.05, tile=100), "tiles"),
    ):
        with pytest.raises(InputError, match=rf"{what} was .* resume=False"):
            other.process(*files)
    assert (partial / "image.fits").exists()
    same = Restorer("wiener", psf=3.0, balance=0.05, tile=128)
    os.utime(files[0], ns=(1, 1))
    with pytest.raises(InputError, match="input was"):
        same.process(*files)
    same.process(*files, resume=False)
    assert_equal(read_image(files[1]), same(files[0]))
    assert not partial.exists()


def test_a_journal_cut_off_by_a_kill_is_read_up_to_there(files, monkeypatch):
    partial = interrupted(files, monkeypatch)
    journal = partial / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-7])
    restorer = Restorer("wiener", psf=3.0, balance=0.05, tile=128)
    restorer.process(*files)
    assert_equal(read_image(files[1]), restorer(files[0]))


def test_two_processes_on_one_output(files):
    process = subprocess.Popen([sys.executable, "-c", _SCRIPT, *map(str, files)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline()
    with pytest.raises(InputError, match="is held by process"):
        Restorer("wiener", psf=3.0, balance=0.05, tile=128).process(*files)
    process.stdout.read()
    assert process.wait() == 0
    process.stdout.close()
    assert_equal(read_image(files[1]), Restorer("wiener", psf=3.0, balance=0.05, tile=128)(files[0]))


def test_an_output_that_exists_is_kept(files):
    files[1].write_bytes(b"old")
    restorer = Restorer("gaussian", fwhm=2.0)
    with pytest.raises(ImageWriteError, match="overwrite=True"):
        restorer.process(*files)
    with pytest.raises(ImageWriteError, match=r"\.gz"):
        restorer.process(files[0], files[0].with_name("out.fits.gz"))
    assert files[1].read_bytes() == b"old"
    with pytest.raises(InputError, match="unit"):
        restorer.process(files[0], files[1], overwrite=True, unti="adu")
    assert files[1].read_bytes() == b"old"
    restorer.process(*files, overwrite=True)
    assert read_image(files[1]).shape == SHAPE


def test_a_disk_that_is_too_small_is_named_before_the_work(files, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("usage", (), {"free": 10})())
    with pytest.raises(ImageWriteError, match="10 are free"):
        Restorer("gaussian", fwhm=2.0).process(*files)
    assert os.listdir(files[0].parent) == ["in.fits"]


def test_progress_counts_the_tiles(files):
    seen = []
    restorer = Restorer("gaussian", fwhm=2.0, tile=128, progress=lambda done, total: seen.append((done, total)))
    restorer.process(*files)
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] > 4
    assert seen == sorted(seen)


def test_arrays_and_images_in_memory_are_refused(files):
    restorer = Restorer("gaussian", fwhm=2.0)
    with pytest.raises(InputError, match="must be a path"):
        restorer.process(image(), files[1])
    with pytest.raises(InputError, match="mask is an array"):
        restorer.process(*files, mask=np.zeros(SHAPE, bool))


def test_a_seed_has_to_be_a_number_so_that_a_run_can_go_on(files):
    with pytest.raises(InputError, match="rng="):
        Restorer("gaussian", fwhm=2.0).process(*files, rng=np.random.default_rng(0))


def test_a_partial_image_that_was_cut_is_not_taken_up(files, monkeypatch):
    partial = interrupted(files, monkeypatch)
    os.truncate(partial / "image.fits", 5000)
    restorer = Restorer("wiener", psf=3.0, balance=0.05, tile=128)
    with pytest.raises(InputError, match="another size"):
        restorer.process(*files)
    restorer.process(*files, resume=False)
    assert_equal(read_image(files[1]), restorer(files[0]))
