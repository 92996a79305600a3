"""Moments and centroids against analytic sources, GalSim's HSM and photutils."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from astrogan.exceptions import InputError
from astrogan.metrics import centroid, centroid_offset, moments


def _gaussian(shape, x0, y0, a, b, theta=0.0, flux=1.0):
    """Elliptical Gaussian of axes a and b, and its (size, e1, e2)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    c, s = np.cos(theta), np.sin(theta)
    u, v = (x - x0) * c + (y - y0) * s, (y - y0) * c - (x - x0) * s
    image = flux / (2 * np.pi * a * b) * np.exp(-0.5 * ((u / a) ** 2 + (v / b) ** 2))
    e = (a**2 - b**2) / (a**2 + b**2)
    return image, (np.sqrt(a * b), e * np.cos(2 * theta), e * np.sin(2 * theta))


@settings(deadline=None, max_examples=30)
@given(x0=st.floats(35, 45), y0=st.floats(35, 45), a=st.floats(1.5, 6), b=st.floats(1.5, 6), theta=st.floats(0, np.pi))
def test_gaussian_is_measured_exactly(x0, y0, a, b, theta):
    assume(max(a, b) < 3 * min(a, b))
    image, (size, e1, e2) = _gaussian((81, 85), x0, y0, a, b, theta, flux=5.0)
    result = moments(image)
    np.testing.assert_allclose((result.x, result.y), (x0, y0), atol=1e-6)
    np.testing.assert_allclose((result.flux, result.size), (5.0, size), rtol=1e-5)
    np.testing.assert_allclose((result.e1, result.e2), (e1, e2), atol=1e-5)


@pytest.mark.parametrize("profile", ["exponential", "sersic4", "star"])
def test_agrees_with_galsim(profile):
    galsim = pytest.importorskip("galsim")
    shape = galsim.Shear(g1=0.2, g2=-0.1)
    source = {
        "exponential": galsim.Exponential(half_light_radius=4).shear(shape),
        "sersic4": galsim.Sersic(n=4, half_light_radius=5).shear(shape),
        "star": galsim.DeltaFunction(),
    }[profile]
    drawn = galsim.Convolve(source.withFlux(100), galsim.Moffat(beta=3, fwhm=4))
    image = drawn.drawImage(nx=121, ny=111, scale=1, offset=(3.3, -2.2)).array.astype(float)
    ours, theirs = moments(image), moments(image, method="hsm")
    for name in ("flux", "size"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=2e-6)
    for name in ("x", "y", "e1", "e2"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=2e-6)


def test_a_masked_column_does_not_bias_ours():
    image, (size, e1, e2) = _gaussian((61, 61), 30.3, 29.8, 4.0, 3.0, 0.4, flux=7.0)
    mask = np.zeros(image.shape, bool)
    mask[:, 31:33] = True
    result = moments(np.where(mask, 1e30, image), mask=mask)
    np.testing.assert_allclose((result.flux, result.size), (7.0, size), rtol=1e-4)
    np.testing.assert_allclose((result.x, result.y, result.e1, result.e2), (30.3, 29.8, e1, e2), atol=1e-4)
    np.testing.assert_array_equal(centroid(np.where(mask, np.nan, image), mask=mask), [result.x, result.y])


def test_bands_are_measured_apart():
    first, _ = _gaussian((41, 41), 20, 19, 3, 3, flux=2.0)
    second, _ = _gaussian((41, 41), 21, 20, 4, 2, flux=3.0)
    result = moments(np.stack([first, second]))
    np.testing.assert_allclose(result.flux, [2, 3], rtol=1e-5)
    np.testing.assert_allclose(result.x, [20, 21], atol=1e-6)
    np.testing.assert_allclose(result.e1, [0, 0.6], atol=1e-5)
    assert isinstance(moments(first).flux, float)


def test_size_and_flux_scale():
    image, _ = _gaussian((61, 61), 30, 30, 4, 3)
    small, large = moments(1e-9 * image), moments(1e9 * image)
    assert large.flux / small.flux == pytest.approx(1e18)
    assert large.size == pytest.approx(small.size)


@pytest.mark.parametrize(
    "image", [np.zeros((21, 21)), -np.ones((21, 21)), np.pad(np.ones((1, 1)), 10)], ids=["zero", "negative", "pixel"]
)
@pytest.mark.parametrize("method", ["adaptive", "hsm"])
def test_no_solution_is_nan(image, method):
    if method == "hsm":
        pytest.importorskip("galsim")
    result = moments(image, method=method)
    assert np.isnan([result.flux, result.x, result.y, result.size, result.e1, result.e2]).all()


def test_position_chooses_the_source():
    near, _ = _gaussian((61, 61), 15, 20, 2.5, 2.5)
    far, _ = _gaussian((61, 61), 45, 40, 2.5, 2.5, flux=5)
    result = centroid(near + far, [(14, 21), (46, 39)])
    np.testing.assert_allclose(result, [(15, 20), (45, 40)], atol=1e-3)
    np.testing.assert_allclose(centroid(near + far), (45, 40), atol=1e-3)


def test_centroid_agrees_with_photutils():
    from photutils.centroids import centroid_2dg

    image, _ = _gaussian((31, 33), 15.7, 14.2, 3.0, 2.0, 0.3)
    image += np.random.default_rng(1).normal(scale=1e-3 * image.max(), size=image.shape)
    np.testing.assert_allclose(centroid(image), centroid_2dg(image), atol=5e-3)
    np.testing.assert_allclose(centroid(image, sigma=3.0), centroid_2dg(image), atol=5e-3)


def test_windowed_centroid_of_a_symmetric_source_does_not_depend_on_the_window():
    image, _ = _gaussian((61, 61), 30.4, 29.1, 3.0, 3.0)
    for sigma in (1.5, 3.0, 6.0):
        np.testing.assert_allclose(centroid(image, sigma=sigma), (30.4, 29.1), atol=1e-6)


def test_offset():
    truth, _ = _gaussian((2, 61, 61)[1:], 30, 30, 3, 3)
    image, _ = _gaussian((61, 61), 30.3, 30.4, 3, 3)
    assert centroid_offset(truth, image) == pytest.approx(0.5, abs=1e-6)
    assert centroid_offset(truth, truth) == 0
    cube = np.stack([truth, image])
    np.testing.assert_allclose(centroid_offset(np.stack([truth, truth]), cube), [0, 0.5], atol=1e-6)
    np.testing.assert_allclose(centroid_offset(truth, image, [(30, 30), (31, 31)]), [0.5, 0.5], atol=1e-6)


def test_a_source_near_the_border():
    image, _ = _gaussian((41, 41), 1.0, 20.0, 2.0, 2.0)
    result = centroid(image, (1, 20))
    assert result[1] == pytest.approx(20, abs=1e-6)
    assert -0.5 <= result[0] <= 3


def test_errors(monkeypatch):
    image = np.ones((9, 9))
    with pytest.raises(InputError, match="method='x'"):
        moments(image, method="x")
    with pytest.raises(InputError, match="sigma"):
        moments(image, sigma=0)
    with pytest.raises(InputError, match="position"):
        moments(image, [(1, 1), (2, 2)])
    with pytest.raises(InputError, match="sigma"):
        centroid(image, sigma=-3)
    monkeypatch.setitem(__import__("sys").modules, "galsim", None)
    with pytest.raises(ImportError, match="pip install galsim"):
        moments(image, method="hsm")
