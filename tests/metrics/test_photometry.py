"""Aperture sums against photutils and against areas that can be worked out."""

import numpy as np
import pytest

from astrogan.exceptions import InputError
from astrogan.metrics import aperture_flux, aperture_flux_ratio, curve_of_growth


@pytest.fixture
def image():
    return np.random.default_rng(3).normal(size=(2, 41, 47)) + 3


def test_equals_photutils(image):
    from photutils.aperture import CircularAperture, aperture_photometry

    positions = [(20.3, 18.7), (5.0, 30.0), (46.0, 40.0)]
    mask = np.random.default_rng(4).random(image.shape) < 0.1
    apertures = CircularAperture(positions, 4.2)
    expected = [
        aperture_photometry(band, apertures, mask=bad)["aperture_sum"] for band, bad in zip(image, mask, strict=True)
    ]
    np.testing.assert_allclose(aperture_flux(image, positions, 4.2, mask=mask), np.array(expected), rtol=1e-12)


def test_equals_a_sum_over_fine_subpixels(image):
    fine = 40
    centres = (np.arange(41 * fine) + 0.5) / fine - 0.5, (np.arange(47 * fine) + 0.5) / fine - 0.5
    inside = np.hypot(centres[0][:, None] - 18.7, centres[1] - 20.3) < 4.2
    overlap = inside.reshape(41, fine, 47, fine).mean(axis=(1, 3))
    expected = (overlap * image).sum(axis=(1, 2))
    np.testing.assert_allclose(aperture_flux(image, (20.3, 18.7), 4.2), expected, rtol=1e-3)


def test_shapes(image):
    assert isinstance(aperture_flux(image[0], (20, 20), 3.0), float)
    assert aperture_flux(image[0], [(20, 20)], 3.0).shape == (1,)
    assert aperture_flux(image, (20, 20), 3.0).shape == (2,)
    assert aperture_flux(image, [(20, 20), (5, 5), (9, 9)], 3.0).shape == (2, 3)
    assert aperture_flux(image, [], 3.0).shape == (2, 0)
    assert curve_of_growth(image[0], (20, 20), [1, 2]).shape == (2,)
    assert curve_of_growth(image, (20, 20), [1, 2, 3]).shape == (2, 3)


def test_area_at_the_border_and_outside():
    ones = np.ones((21, 21))
    assert aperture_flux(ones, (-0.5, 10.0), 4.0) == pytest.approx(np.pi * 8, rel=1e-9)
    assert np.isnan(aperture_flux(ones, (-50, -50), 4.0))


def test_masked_pixels_count_as_nothing():
    ones = np.ones((21, 21))
    mask = np.zeros((21, 21), bool)
    mask[10, 10] = mask[11, 10] = True
    spoilt = np.where(mask, np.nan, ones)
    assert aperture_flux(spoilt, (10, 10), 5.0, mask=mask) == pytest.approx(25 * np.pi - 2)


def test_ratio_of_a_scaled_image_and_of_empty_truth():
    truth = np.zeros((2, 21, 21))
    truth[0] = 1.0
    ratio = aperture_flux_ratio(truth, 0.7 * truth, [(10, 10), (4, 4)], 3.0)
    np.testing.assert_allclose(ratio[0], 0.7)
    assert np.isnan(ratio[1]).all()
    assert aperture_flux_ratio(truth[0], 2 * truth[0], (10, 10), 3.0) == pytest.approx(2.0)


def test_ratio_takes_the_same_mask_in_both():
    rng = np.random.default_rng(5)
    truth = rng.random((21, 21))
    mask = rng.random((21, 21)) < 0.2
    image = np.where(mask, 1e9, 3 * truth)
    assert aperture_flux_ratio(truth, image, (10, 10), 5.0, mask=mask) == pytest.approx(3.0)


def test_curve_of_growth_of_a_gaussian():
    y, x = np.mgrid[:81, :81]
    sigma = 6.0
    image = np.exp(-0.5 * ((x - 40) ** 2 + (y - 40) ** 2) / sigma**2)
    radii = np.array([3.0, 6.0, 12.0, 30.0])
    # The image holds values at pixel centres; the sum over partly covered ones is good to (pixel / sigma)^2 / 24.
    expected = 2 * np.pi * sigma**2 * (1 - np.exp(-0.5 * (radii / sigma) ** 2))
    np.testing.assert_allclose(curve_of_growth(image, (40, 40), radii), expected, rtol=3e-3)
    growth = curve_of_growth(image, (40, 40), radii, normalise=True)
    assert growth[-1] == 1
    assert (np.diff(growth) > 0).all()


def test_errors():
    image = np.zeros((21, 21))
    for bad in (0, -2.0, np.nan, [1, 2]):
        with pytest.raises(InputError, match="radius"):
            aperture_flux(image, (3, 3), bad)
    for bad in (1.0, (1, 2, 3), (np.nan, 1)):
        with pytest.raises(InputError, match="positions"):
            aperture_flux(image, bad, 1.0)
    with pytest.raises(InputError, match="increasing"):
        curve_of_growth(image, (3, 3), [2, 1])
    with pytest.raises(InputError, match="position"):
        curve_of_growth(image, [(3, 3), (4, 4)], [1, 2])
    with pytest.raises(InputError, match="NaN or inf"):
        aperture_flux(np.full((5, 5), np.nan), (2, 2), 1.0)
