"""Spatial frequencies: white noise, known filters, known crossings."""

import numpy as np
import pytest

from astrogan.exceptions import InputError
from astrogan.metrics import (
    fourier_ring_correlation,
    power_spectrum,
    power_spectrum_2d,
    power_spectrum_ratio,
)


def _noise(seed, shape=(128, 128), scale=1.0):
    return np.random.default_rng(seed).normal(scale=scale, size=shape)


@pytest.mark.parametrize("window", ["hann", None])
def test_white_noise_has_its_variance_at_every_frequency(window):
    power = np.mean([power_spectrum(_noise(s, scale=3.0), window=window)[1] for s in range(30)], axis=0)
    np.testing.assert_allclose(power[2:], 9.0, rtol=0.25)
    assert power[20:].mean() == pytest.approx(9.0, rel=0.01)


def test_parseval():
    image = _noise(1, (2, 33, 40))
    power = power_spectrum_2d(image, window=None)
    np.testing.assert_allclose(power.mean(axis=(1, 2)), image.var(axis=(1, 2)), rtol=1e-12)


@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (64, 101), (5, 4)])
def test_frequencies(shape):
    frequency, power = power_spectrum(_noise(1, shape))
    assert frequency.shape == power.shape == (min(shape) // 2,)
    assert (np.diff(frequency) > 0).all()
    assert frequency[0] > 0
    assert frequency[-1] <= 0.5


def test_a_wave_lands_in_its_ring():
    x = np.arange(64)
    image = np.sin(2 * np.pi * 10 * x / 64) * np.ones((64, 1))
    frequency, power = power_spectrum(image, window=None)
    assert power.argmax() == 9
    assert frequency[9] == pytest.approx(10 / 64, abs=0.5 / 64)
    assert power[np.arange(32) != 9].max() < 1e-20


def test_ratio_of_a_gaussian_filter():
    from scipy.ndimage import fourier_gaussian

    image = _noise(1)
    sigma = 1.5
    smooth = np.fft.ifft2(fourier_gaussian(np.fft.fft2(image), sigma)).real
    frequency, ratio = power_spectrum_ratio(image, smooth, window=None)
    expected = np.exp(-4 * (np.pi * frequency * sigma) ** 2)
    np.testing.assert_allclose(ratio[3:40], expected[3:40], rtol=0.05)
    assert power_spectrum_ratio(np.stack([image, image]), np.stack([image, smooth]))[1].shape == (2, 64)
    assert np.isnan(power_spectrum_ratio(0 * image, image)[1]).all()


def test_correlation_of_equal_opposite_and_unrelated_images():
    image = _noise(1)
    np.testing.assert_allclose(fourier_ring_correlation(image, 2 * image + 5).correlation, 1.0)
    np.testing.assert_allclose(fourier_ring_correlation(image, -image).correlation, -1.0)
    other = fourier_ring_correlation(image, _noise(2))
    assert np.abs(other.correlation[10:]).max() < 0.5
    assert np.sqrt(np.mean(other.correlation[10:] ** 2)) < 0.15
    assert np.isnan(fourier_ring_correlation(image, 0 * image).correlation).all()


def test_correlation_by_its_definition():
    a, b = _noise(1, (32, 32)), _noise(2, (32, 32))
    b += a
    result = fourier_ring_correlation(a, b, window=None)
    fa, fb = np.fft.fft2(a - a.mean()), np.fft.fft2(b - b.mean())
    k = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32)) * 32
    ring = (k >= 4.5) & (k < 5.5)
    expected = (fa * fb.conj())[ring].sum().real / np.sqrt((abs(fa[ring]) ** 2).sum() * (abs(fb[ring]) ** 2).sum())
    assert result.correlation[4] == pytest.approx(expected, rel=1e-12)


def test_expected_correlation_and_crossing():
    """Signal of power P(k) and independent white noise of variance s^2 in each: FRC = P / (P + s^2)."""
    from scipy.ndimage import fourier_gaussian

    sigma, amplitude = 2.0, 12.0
    curves = []
    for seed in range(12):
        signal = np.fft.ifft2(fourier_gaussian(np.fft.fft2(amplitude * _noise(seed)), sigma)).real
        result = fourier_ring_correlation(signal + _noise(100 + seed), signal + _noise(200 + seed), window=None)
        curves.append(result.correlation)
    power = amplitude**2 * np.exp(-4 * (np.pi * result.frequency * sigma) ** 2)
    np.testing.assert_allclose(np.mean(curves, axis=0), power / (power + 1), atol=0.06)
    crossing = np.sqrt(np.log(6 * amplitude**2)) / (2 * np.pi * sigma)  # P = 1/6 where the FRC is 1/7
    assert result.resolution == pytest.approx(1 / crossing, rel=0.08)


def test_criteria():
    image = _noise(1)
    assert fourier_ring_correlation(image, image).resolution == 2.0
    np.testing.assert_allclose(fourier_ring_correlation(image, image).threshold, 1 / 7)
    half_bit = fourier_ring_correlation(image, image, criterion="half-bit").threshold
    assert half_bit[2] > half_bit[10] > half_bit[30] > half_bit[50]  # rings hold more and more pixels
    half_bit = fourier_ring_correlation(image, image, criterion="half-bit", window=None).threshold
    n = np.sqrt(8 / 2)  # the first ring: (0, 1), (1, 0), (1, 1) and their mirrors
    assert half_bit[0] == pytest.approx((0.2071 + 1.9102 / n) / (1.2071 + 0.9102 / n), rel=1e-12)
    assert fourier_ring_correlation(image, -image, criterion=0.5).resolution == np.inf


def test_resolution_per_band_and_that_of_a_blurred_image():
    from scipy.ndimage import gaussian_filter

    scene = 30 * gaussian_filter(_noise(1), 1.0)
    pairs = [(gaussian_filter(scene, w) + _noise(2), gaussian_filter(scene, w) + _noise(3)) for w in (0.5, 3.0)]
    a, b = (np.stack(p) for p in zip(*pairs, strict=True))
    sharp, blurred = fourier_ring_correlation(a, b).resolution
    assert 2 <= sharp < blurred


@pytest.mark.parametrize("function", [fourier_ring_correlation, power_spectrum_ratio])
def test_nothing_under_the_mask_matters(function):
    a, b = _noise(1), _noise(2)
    mask = np.zeros(a.shape, bool)
    mask[:, 40] = True

    def values(x, y):
        result = function(x, y, mask=mask)
        return result[1] if isinstance(result, tuple) else result.correlation

    expected = values(a, b)
    for under in (0, 1e30, np.nan):
        np.testing.assert_array_equal(values(np.where(mask, under, a), np.where(mask, -under, b)), expected)


def test_errors():
    image = np.zeros((16, 16))
    with pytest.raises(InputError, match="criterion"):
        fourier_ring_correlation(image, image, criterion="1/2")
    with pytest.raises(InputError, match="criterion"):
        fourier_ring_correlation(image, image, criterion=2.0)
    with pytest.raises(InputError, match="window='x'"):
        power_spectrum(image, window="x")
    with pytest.raises(InputError, match="at least 4"):
        power_spectrum(image[:3])
    with pytest.raises(InputError, match="shape"):
        power_spectrum_ratio(image, image[:8])
