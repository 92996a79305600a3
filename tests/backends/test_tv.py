import numpy as np
import pytest
from scipy.signal import fftconvolve

from astrogan.api import Observation
from astrogan.backends.classic.tv import TotalVariation
from astrogan.exceptions import InputError


def gaussian(fwhm=3.0, size=15):
    r2 = np.sum(np.square(np.mgrid[-(size // 2) : size // 2 + 1, -(size // 2) : size // 2 + 1]), axis=0)
    kernel = np.exp(-4 * np.log(2) * r2 / fwhm**2)
    return kernel / kernel.sum()


def blocks(size=64):
    truth = np.zeros((size, size))
    truth[10:30, 12:40] = 10
    truth[35:55, 30:50] = 25
    truth[40:48, 8:16] = -8
    return truth


@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_equals_chambolle_without_psf_mask_and_weights(rng, strength):
    from skimage.restoration import denoise_tv_chambolle

    sigma = 2.0
    data = (blocks() + rng.normal(0, sigma, (64, 64)))[None]
    one = Observation(data, variance=np.full(data.shape, sigma**2))
    ours = TotalVariation(strength, iterations=500)(one).data[0]
    theirs = sigma * denoise_tv_chambolle(data[0] / sigma, weight=strength, eps=1e-9, max_num_iter=3000)
    np.testing.assert_allclose(ours, theirs, atol=0.05 * sigma)


def test_default_iterations_have_converged(rng):
    sigma = 1.0
    seen = fftconvolve(blocks(), gaussian(), mode="same") + rng.normal(0, sigma, (64, 64))
    for psf in (None, gaussian()[None]):
        one = Observation(seen[None], variance=np.ones((1, 64, 64)), psf=psf)
        first = TotalVariation()(one)
        long = TotalVariation(first.info["strength"], iterations=2000)(one)
        assert np.abs(first.data - long.data).std() < 0.1 * sigma


@pytest.mark.parametrize("with_psf", [True, False])
def test_chosen_strength_is_near_the_best_with_the_truth(rng, with_psf):
    truth = blocks()
    seen = fftconvolve(truth, gaussian(), mode="same") if with_psf else truth
    one = Observation(
        (seen + rng.normal(0, 2, truth.shape))[None],
        variance=np.full((1, 64, 64), 4.0),
        psf=gaussian()[None] if with_psf else None,
    )
    inner = slice(6, -6)

    def error(strength):
        return ((TotalVariation(strength)(one).data[0] - truth)[inner, inner] ** 2).mean()

    errors = {s: error(s) for s in (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5)}
    # a cartoon is harder than a sky: the linear filter that sets the number of parameters needs more of them
    assert error("auto") < (1.5 if with_psf else 3) * min(errors.values())
    assert error("auto") < 0.5 * ((one.data[0] - truth)[inner, inner] ** 2).mean()


def test_edges_of_the_image_do_not_touch(rng):
    """Opposite edges at very different levels do not pull on each other."""
    ramp = np.zeros((1, 48, 48))
    ramp[0, :, 24:] = 100
    noisy = ramp + rng.normal(size=ramp.shape)
    result = TotalVariation(1.0)(Observation(noisy, variance=np.ones_like(ramp))).data
    assert np.abs(result[0, :, :3].mean()) < 0.3
    assert np.abs(result[0, :, -3:].mean() - 100) < 0.3


def test_a_hot_pixel_of_known_variance_is_ignored_pixel_by_pixel(rng):
    data, variance = rng.normal(size=(1, 40, 40)), np.ones((1, 40, 40))
    data[0, 20, 20], variance[0, 20, 20] = 500, 1e6
    result = TotalVariation(1.0, weighting="pixel")(Observation(data, variance=variance)).data
    assert np.abs(result[0, 20, 20]) < 2


def test_no_variance_is_given(rng):
    data = rng.normal(size=(1, 16, 16))
    assert TotalVariation()(Observation(data, variance=np.ones_like(data))).variance is None


def test_bad_arguments():
    with pytest.raises(InputError, match="strength"):
        TotalVariation(0)
    with pytest.raises(InputError, match="iterations"):
        TotalVariation(iterations=0)
    with pytest.raises(InputError, match="weighting"):
        TotalVariation(weighting="poisson")
