"""Stamps in one FITS cube: what is read is what was written, wherever it lies, and what cannot be is named."""

import pickle

import numpy as np
import pytest
from astropy.io import fits

from astrogan.exceptions import ImageReadError, InputError
from astrogan.train.sources.cube import FitsCube


@pytest.fixture
def stamps(rng):
    return rng.normal(3, 1, (5, 3, 12, 10)).astype(np.float32)


def written(path, *images, **header):
    hdus = [fits.PrimaryHDU()] + [fits.ImageHDU(image, fits.Header(list(header.items()))) for image in images]
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_bands_in_a_sample(tmp_path, stamps, dtype):
    source = FitsCube(written(tmp_path / "s.fits", stamps.astype(dtype), BUNIT="nmgy"), bands="gri", psf_fwhm=3.0)
    assert (len(source), source.bands) == (5, ("g", "r", "i"))
    for i in (0, 4):
        sample = source.load(i)
        assert sample.data.dtype == np.float32
        assert sample.data.dtype.isnative
        np.testing.assert_array_equal(sample.data, stamps[i])
        sample.data[:] = 0  # the caller's own
        np.testing.assert_array_equal(source.load(i).data, stamps[i])
    assert (sample.unit, sample.psf_fwhm, sample.pixel_scale, sample.variance) == ("nmgy", 3.0, None, None)
    assert [source.name(i) for i in (0, 4)] == ["s 0", "s 4"]
    about = {"kind": "cube", "origin": "s.fits", "licence": None, "images": 5, "objects": 5}
    assert source.describe() == about


def test_each_band_and_each_name(tmp_path, stamps):
    names = ["a", "b", "a", "c", "d"]
    source = FitsCube(written(tmp_path / "s.fits", stamps), bands="each", names=names, unit="adu")
    assert (len(source), source.bands) == (15, ("any",))
    np.testing.assert_array_equal(source.load(7).data, stamps[2, 1:2])
    assert source.name(7) == "a"
    assert source.describe()["objects"] == 4
    assert source.load(0).unit == "adu"


def test_a_cube_without_a_band_axis_in_the_first_hdu(tmp_path, stamps):
    fits.writeto(tmp_path / "s.fits", stamps[:, 0])
    source = FitsCube(tmp_path / "s.fits")
    assert (len(source), source.bands) == (5, ("0",))
    np.testing.assert_array_equal(source.load(3).data, stamps[3, :1])


def test_variance_and_what_is_not_finite(tmp_path, stamps):
    variance = np.full_like(stamps, 2.0)
    variance[1, 0, 3, 3] = 0
    broken = stamps.copy()
    broken[1, 0, 3, 3] = np.nan
    broken[2, 1] = np.inf
    broken[3] = 1e30  # its square is no float32
    source = FitsCube(written(tmp_path / "s.fits", broken, variance), hdu=1, variance_hdu=2)
    sample = source.load(1)
    assert np.isfinite(sample.data).all()
    np.testing.assert_array_equal(np.delete(sample.data.ravel(), 33), np.delete(stamps[1].ravel(), 33))
    np.testing.assert_allclose(sample.variance, 2.0)
    with pytest.raises(ImageReadError, match="stamp 2 has a band without a finite pixel"):
        source.load(2)
    np.testing.assert_array_equal(source.load(3).data, broken[3])


def test_it_is_pickled_without_its_pixels(tmp_path, rng):
    cube = rng.normal(size=(64, 1, 32, 32)).astype(np.float32)
    source = FitsCube(written(tmp_path / "s.fits", cube))
    content = pickle.dumps(source)
    assert len(content) < 2000
    np.testing.assert_array_equal(pickle.loads(content).load(60).data, cube[60])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hdu": 0}, "hdu=0"),
        ({"hdu": 2}, "no such uncompressed image"),
        ({"bands": "gr"}, "names 2 bands; the cube has 3"),
        ({"names": ["a"]}, "names has 1 entries"),
        ({"psf_fwhm": -1}, "psf_fwhm"),
        ({"variance_hdu": 3}, "variance_hdu=3 has shape"),
        ({"hdu": 4}, "BITPIX=16"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, stamps, options, message):
    images = (stamps, stamps[0, 0], stamps[:2], stamps.astype(np.int16))
    with pytest.raises(InputError, match=message):
        FitsCube(written(tmp_path / "s.fits", *images), **options)


def test_files_that_cannot_be_used(tmp_path, stamps):
    with pytest.raises(ImageReadError, match="there is no file|No such file|cannot be read|may not"):
        FitsCube(tmp_path / "none.fits")
    path = written(tmp_path / "s.fits", stamps)
    cut = tmp_path / "cut.fits"
    cut.write_bytes(path.read_bytes()[:7000])
    with pytest.raises(ImageReadError, match="truncated"):
        FitsCube(cut)
    import gzip

    packed = tmp_path / "s.fits.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="packed"):
        FitsCube(packed)
    source = FitsCube(path)
    with pytest.raises(InputError, match="i=5"):
        source.load(5)
