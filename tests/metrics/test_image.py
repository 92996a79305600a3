"""Pixelwise metrics against scikit-image and against their definitions."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrogan.exceptions import InputError
from astrogan.metrics import mse, psnr, ssim


def _pair(shape, seed=1, noise=0.1):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=shape).cumsum(axis=-1)
    return truth, truth + noise * rng.normal(size=shape)


@pytest.mark.parametrize("shape", [(40, 51), (3, 40, 51)])
def test_mse_and_psnr_equal_scikit_image(shape):
    from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

    truth, image = _pair(shape)
    assert mse(truth, image) == pytest.approx(mean_squared_error(truth, image), rel=1e-12)
    expected = peak_signal_noise_ratio(truth, image, data_range=7.0)
    assert psnr(truth, image, data_range=7.0) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gaussian", [True, False])
def test_ssim_equals_scikit_image(gaussian):
    from skimage.metrics import structural_similarity

    truth, image = _pair((40, 51), noise=1.0)
    expected = structural_similarity(
        truth, image, data_range=5.0, gaussian_weights=gaussian, use_sample_covariance=False
    )
    assert ssim(truth, image, data_range=5.0, sigma=1.5 if gaussian else None) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_a_cube_is_the_mean_over_bands():
    from skimage.metrics import structural_similarity

    truth, image = _pair((3, 40, 51), noise=1.0)
    expected = structural_similarity(
        truth, image, data_range=5.0, channel_axis=0, gaussian_weights=True, use_sample_covariance=False
    )
    assert ssim(truth, image, data_range=5.0) == pytest.approx(expected, abs=1e-12)
    per_band = ssim(truth, image, data_range=5.0, per_band=True)
    assert per_band.shape == (3,)
    assert per_band.mean() == pytest.approx(expected, abs=1e-12)
    assert per_band[1] == pytest.approx(ssim(truth[1], image[1], data_range=5.0), abs=1e-14)


def test_ssim_leaves_out_exactly_the_windows_that_touch_a_masked_pixel():
    from skimage.metrics import structural_similarity

    truth, image = _pair((30, 34), noise=1.0)
    mask = np.zeros(truth.shape, bool)
    mask[12, 20] = mask[3, 4] = True
    whole = structural_similarity(truth, image, data_range=5.0, win_size=7, use_sample_covariance=False, full=True)[1]
    usable = np.zeros(truth.shape, bool)
    usable[3:-3, 3:-3] = True
    for y, x in np.argwhere(mask):
        usable[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = False
    image[mask] = np.nan
    assert ssim(truth, image, data_range=5.0, sigma=None, mask=mask) == pytest.approx(whole[usable].mean(), abs=1e-12)


@pytest.mark.parametrize("under", [0.0, 1e30, np.nan, np.inf])
@pytest.mark.parametrize("metric", [mse, partial(psnr, data_range=3.0), partial(ssim, data_range=3.0)])
def test_nothing_under_the_mask_matters(metric, under):
    truth, image = _pair((2, 32, 32))
    mask = np.zeros((32, 32), bool)
    mask[5:9, 4] = True
    expected = metric(truth, image, mask=mask)
    assert np.isfinite(expected)
    spoilt, spoilt_truth = image.copy(), truth.copy()
    spoilt[:, mask], spoilt_truth[:, mask] = under, -under
    assert metric(spoilt_truth, spoilt, mask=mask) == expected


def test_masked_mse_is_the_mean_over_the_rest():
    truth, image = _pair((20, 21))
    mask = np.random.default_rng(2).random(truth.shape) < 0.3
    assert mse(truth, image, mask=mask) == pytest.approx(((truth - image)[~mask] ** 2).mean(), rel=1e-12)
    assert np.isnan(mse(truth, image, mask=np.ones(truth.shape, bool)))
    assert np.isnan(ssim(truth, image, data_range=1.0, mask=np.ones(truth.shape, bool)))


def test_per_band_range_and_values():
    truth = np.zeros((2, 16, 16))
    image = truth + np.array([0.1, 1.0])[:, None, None]
    assert psnr(truth, image, data_range=[1.0, 10.0]) == pytest.approx(20.0)
    np.testing.assert_allclose(psnr(truth, image, data_range=1.0, per_band=True), [20.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(mse(truth, image, per_band=True), [0.01, 1.0])
    same = ssim(truth, image, data_range=[1.0, 10.0], per_band=True)
    assert same[0] == pytest.approx(same[1])


def test_equal_images():
    truth, _ = _pair((20, 20))
    assert psnr(truth, truth, data_range=1.0) == np.inf
    assert ssim(truth, truth, data_range=1.0) == pytest.approx(1.0, abs=1e-12)


@settings(deadline=None, max_examples=25)
@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 100))
def test_psnr_and_ssim_do_not_depend_on_the_unit(scale, seed):
    truth, image = _pair((24, 24), seed=seed)
    for metric in (psnr, ssim):
        expected = metric(truth, image, data_range=4.0)
        assert metric(scale * truth, scale * image, data_range=4.0 * scale) == pytest.approx(expected, rel=1e-7)


def test_byte_order_and_type_do_not_matter():
    truth, image = (np.round(100 * a) for a in _pair((24, 24)))
    expected = ssim(truth, image, data_range=400.0)
    for dtype in (">f4", "<f4", ">f8", ">i2", "i8"):
        assert ssim(truth.astype(dtype), image.astype(dtype)[::-1][::-1], data_range=400.0) == expected


def test_inputs_are_not_changed():
    truth, image = _pair((24, 24))
    mask = np.zeros(truth.shape, bool)
    mask[3, 3] = True
    before = truth.copy(), image.copy(), mask.copy()
    for array in (truth, image, mask):
        array.setflags(write=False)
    mse(truth, image, mask=mask)
    ssim(truth, image, data_range=1.0, mask=mask)
    for a, b in zip(before, (truth, image, mask), strict=True):
        np.testing.assert_array_equal(a, b)


def test_errors_name_the_argument():
    image = np.zeros((20, 20))
    with pytest.raises(InputError, match=r"image has shape \(20, 21\)"):
        mse(image, np.zeros((20, 21)))
    with pytest.raises(InputError, match="it must be"):
        mse(np.zeros(4), np.zeros(4))
    with pytest.raises(InputError, match="give mask="):
        mse(image, np.full((20, 20), np.nan))
    with pytest.raises(InputError, match="mask has dtype"):
        mse(image, image, mask=np.zeros((20, 20), int))
    with pytest.raises(InputError, match="mask has shape"):
        mse(image, image, mask=np.zeros((20, 2), bool))
    with pytest.raises(InputError, match="real numbers"):
        mse(image.astype(complex), image.astype(complex))
    for bad in (0, -1.0, np.nan, [[1.0]]):
        with pytest.raises(InputError, match="data_range"):
            psnr(image, image, data_range=bad)
    with pytest.raises(InputError, match="data_range holds 2"):
        psnr(image, image, data_range=[1.0, 2.0])
    with pytest.raises(TypeError, match="data_range"):
        psnr(image, image)
    with pytest.raises(InputError, match="larger than the image"):
        ssim(image[:8], image[:8], data_range=1.0)
    with pytest.raises(InputError, match="odd positive"):
        ssim(image, image, data_range=1.0, window_size=4)
    with pytest.raises(InputError, match="sigma"):
        ssim(image, image, data_range=1.0, sigma=-1)
