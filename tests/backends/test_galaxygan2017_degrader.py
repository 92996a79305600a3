"""The 2017 recipe, step by step."""

import io

import numpy as np
import pytest
from scipy import ndimage

from astrogan.api import BackendSpec, Observation
from astrogan.backends.classic.galaxygan2017_degrader import GalaxyGAN2017Degrader
from astrogan.exceptions import InputError
from astrogan.testing import check_backend


@pytest.fixture
def image(rng):
    y, x = np.mgrid[:80, :90]
    galaxy = 3 * np.exp(-np.hypot(x - 45, y - 40) / 6)
    return Observation(np.array([1, 0.7, 0.4])[:, None, None] * galaxy + rng.normal(0, 0.02, (3, 80, 90)))


def run(observation, seed=1, **options):
    return GalaxyGAN2017Degrader(**options)(observation, rng=np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("arcsec", "sigma", "size"), [(1.4, 1.501, 9), (1.8, 1.930, 9), (2.2, 2.359, 11), (2.5, 2.681, 13)]
)
def test_kernel_width_and_support(arcsec, sigma, size):
    """sigma = FWHM / 0.396 / 2.355 and 2 ceil(2 sigma) + 1 pixels, sampled at pixel centres."""
    kernel = GalaxyGAN2017Degrader(fwhm=arcsec / 0.396).kernel
    assert kernel.shape == (size, size)
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    half = size // 2
    measured = np.sqrt(-0.5 / np.log(kernel[half, half + 1] / kernel[half, half]))
    assert measured == pytest.approx(sigma, abs=5e-4)


def test_blur_repeats_edge_pixels(image):
    """Beyond its noise the result is ndimage's convolution with the nearest pixel outside."""
    degrader = GalaxyGAN2017Degrader(fwhm=4.5)
    seen = run(image, fwhm=4.5)
    plane = seen.data - np.stack(
        [ndimage.convolve(d.astype(float), degrader.kernel, mode="nearest") for d in image.data]
    )
    np.testing.assert_allclose(plane[0], plane[1], atol=2e-6)
    np.testing.assert_allclose(plane[0], plane[2], atol=2e-6)


@pytest.mark.parametrize("ratio", [1.0, 1.2, 2.0, 5.0, 10.0])
def test_variance_added(image, ratio):
    """max((ratio s)^2 - s2^2, 1e-8), s and s2 from pixels within 0.1 of zero, all bands pooled."""
    degrader = GalaxyGAN2017Degrader(fwhm=4.5, noise_ratio=ratio)
    blurred = np.stack([ndimage.convolve(d.astype(float), degrader.kernel, mode="nearest") for d in image.data])
    s, s2 = (np.std(d[np.abs(d) < 0.1], ddof=1, dtype=float) for d in (image.data, blurred))
    expected = max((ratio * s) ** 2 - s2**2, 1e-8)
    assert run(image, fwhm=4.5, noise_ratio=ratio).info["added_sigma"] == pytest.approx(np.sqrt(expected), rel=1e-5)


def test_floor_of_the_variance():
    seen = run(Observation(np.zeros((3, 100, 100))))
    assert seen.info["added_sigma"] == pytest.approx(1e-4)
    assert seen.data[0].std() == pytest.approx(1e-4, rel=0.03)


def test_one_plane_for_all_bands_unless_independent():
    blank = Observation(np.zeros((3, 60, 60)))
    shared, apart = run(blank).data, run(blank, independent=True).data
    assert np.array_equal(shared[0], shared[1])
    assert np.array_equal(shared[0], shared[2])
    assert abs(np.corrcoef(apart[0].ravel(), apart[1].ravel())[0, 1]) < 0.06


def test_linear_by_default_clip_and_stretch_only_when_asked(image):
    linear = run(image, noise_ratio=10.0)
    assert linear.data.min() < -0.1
    clipped = run(image, noise_ratio=10.0, output="clipped").data
    assert np.array_equal(clipped, np.clip(linear.data, -0.1, 4))
    stretched = run(image, noise_ratio=10.0, output="stretched").data
    np.testing.assert_allclose(stretched, np.arcsinh(10 * (clipped + 0.1) / 4.1) / 3, atol=1e-6)
    assert 0 <= stretched.min() <= stretched.max() <= 0.9995


def test_jpeg_is_pillows(image):
    from PIL import Image

    jpeg = run(image, output="jpeg").data
    levels = np.rint(run(image, output="stretched").data * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0))).save(file, "JPEG", quality=75)
    expected = np.asarray(Image.open(io.BytesIO(file.getvalue()))).transpose(2, 0, 1)
    np.testing.assert_allclose(jpeg * 255, expected, atol=1e-4)
    assert np.abs(jpeg - levels / 255).max() > 0.01  # it is lossy
    one = run(Observation(image.data[:1]), output="jpeg").data
    assert one.shape == (1, 80, 90)
    with pytest.raises(InputError, match="one or three bands"):
        run(Observation(image.data[:2]), output="jpeg")


def test_limits_follow_the_unit(image):
    """With nanomaggy= the recipe does the same to an image in other units."""
    other = Observation(image.data * 500)
    for output in ("linear", "clipped"):
        np.testing.assert_allclose(
            run(other, nanomaggy=500.0, output=output).data, run(image, output=output).data * 500, rtol=1e-3, atol=2e-3
        )
    with pytest.raises(InputError, match="no pixels with"):
        run(Observation(np.full((3, 30, 30), 50.0)))


def test_invalid_pixels_have_no_say_and_are_flagged(image):
    data, valid = np.array(image.data), np.ones(image.shape, bool)
    data[:, :20] = 0.09
    valid[:, :20] = False
    masked = run(Observation(data, valid))
    untouched = run(Observation(data[:, 20:]))
    assert masked.info["added_sigma"] == pytest.approx(untouched.info["added_sigma"], rel=0.05)
    assert masked.flags[:, :20].all()
    assert masked.flags[:, 20:22].all()
    assert not masked.flags[:, 40:].any()


def test_variance_is_carried(image):
    seen = run(image.replace(variance=np.full(image.shape, 4e-4)))
    kernel = GalaxyGAN2017Degrader().kernel
    expected = 4e-4 * (kernel**2).sum() + seen.info["added_sigma"] ** 2
    np.testing.assert_allclose(seen.variance[:, 10:-10, 10:-10], expected, rtol=1e-4)
    assert run(image).variance is None


def test_batch_draws_for_each_stamp(image):
    stamps = np.stack([image.data] * 4)
    seen = GalaxyGAN2017Degrader(fwhm=4.5).batch(stamps, rng=np.random.default_rng(1))
    assert seen.shape == stamps.shape
    np.testing.assert_allclose(seen[0], run(image, fwhm=4.5).data, atol=1e-6)
    assert not np.array_equal(seen[0], seen[1])
    with pytest.raises(InputError, match="NaN"):
        GalaxyGAN2017Degrader().batch(stamps * np.nan, rng=np.random.default_rng(1))


def test_conformance():
    target = "astrogan.backends.classic.galaxygan2017_degrader:GalaxyGAN2017Degrader"
    spec = BackendSpec(role="degrader", name="galaxygan2017", target=target)
    assert not check_backend(spec).failed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fwhm": 0}, "fwhm=0"),
        ({"noise_ratio": -1}, "noise_ratio=-1"),
        ({"output": "png"}, "output='png'"),
        ({"quality": 0}, "quality=0"),
        ({"nanomaggy": np.nan}, "nanomaggy=nan"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        GalaxyGAN2017Degrader(**options)
