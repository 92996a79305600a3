"""Noise level and correlation."""

import numpy as np
import pytest

from astrogan.exceptions import InputError
from astrogan.metrics import noise_autocorrelation, noise_std


def test_std_equals_astropy_and_ignores_outliers():
    from astropy.stats import mad_std

    sky = np.random.default_rng(1).normal(scale=2, size=(2, 100, 100))
    np.testing.assert_allclose(noise_std(sky), [mad_std(sky[0]), mad_std(sky[1])], rtol=1e-7)
    mask = np.zeros((100, 100), bool)
    mask[:50] = True
    assert noise_std(sky[0], mask=mask) == pytest.approx(mad_std(sky[0][50:]), rel=1e-7)
    assert np.isnan(noise_std(sky[0], mask=~(mask & False)))


def test_autocorrelation_of_white_and_of_filtered_noise():
    white = np.random.default_rng(1).normal(size=(400, 400))
    np.testing.assert_allclose(noise_autocorrelation(white), 0, atol=0.01)
    kernel = np.array([1.0, 2.0, 1.0])
    filtered = np.apply_along_axis(np.convolve, 1, white, kernel, "valid")
    np.testing.assert_allclose(noise_autocorrelation(filtered), [4 / 6, 0, 1 / 6, 0], atol=0.02)
    np.testing.assert_allclose(noise_autocorrelation(filtered.T, [(1, 0), (-1, 0)]), 4 / 6, atol=0.02)


def test_autocorrelation_equals_corrcoef_and_leaves_out_masked_pairs():
    image = np.random.default_rng(2).normal(size=(20, 22))
    expected = np.corrcoef(image[:-1, 1:].ravel(), image[1:, :-1].ravel())[0, 1]
    assert noise_autocorrelation(image, [(1, -1)])[0] == pytest.approx(expected, rel=1e-12)
    mask = np.zeros(image.shape, bool)
    mask[:, 11:] = True
    spoilt = np.where(mask, np.nan, image)
    assert noise_autocorrelation(spoilt, mask=mask) == pytest.approx(noise_autocorrelation(image[:, :11]))


def test_shape_and_errors():
    image = np.random.default_rng(2).normal(size=(2, 20, 22))
    assert noise_autocorrelation(image, [(0, 1), (1, 0), (1, 1)]).shape == (2, 3)
    assert np.isnan(noise_autocorrelation(np.zeros((5, 5)), [(0, 1)])).all()
    for bad in [(0.5, 1), (0, 30), (1,)]:
        with pytest.raises(InputError, match="lag"):
            noise_autocorrelation(image, [bad])
