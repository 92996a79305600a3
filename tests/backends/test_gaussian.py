import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from astrogan.api import Observation
from astrogan.backends.classic.gaussian import Gaussian
from astrogan.exceptions import InputError

FWHM = 2.3548200450309493


def blobs(rng, size=96, sigma=3.0, amplitude=30.0, count=12):
    truth = np.zeros((size, size))
    truth[tuple(rng.integers(8, size - 8, (2, count)))] = amplitude * 2 * np.pi * sigma**2
    return gaussian_filter(truth, sigma)


def test_equals_scipy_without_a_mask(rng):
    data = rng.normal(size=(1, 40, 53)).astype(np.float32)
    smooth = Gaussian(1.7 * FWHM)(Observation(data)).data[0]
    np.testing.assert_allclose(smooth, gaussian_filter(data[0].astype(float), 1.7, radius=7), atol=2e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2), (12, 15)])
@pytest.mark.parametrize("holes", [False, True])
def test_variance_is_exact_for_independent_pixels(rng, shape, holes):
    """Against the dense matrix of the operation, edges and masks included."""
    valid = np.ones(shape, bool)
    if holes and valid.size > 1:
        valid.flat[rng.integers(0, valid.size, valid.size // 5 + 1)] = False
        valid.flat[0] = True
    variance = rng.uniform(0.5, 3, shape)
    backend = Gaussian(2.5)
    matrix = np.empty((valid.size, valid.size))
    for i in range(valid.size):
        impulse = np.zeros(shape)
        impulse.flat[i] = 1
        matrix[:, i] = backend(Observation(impulse[None], valid=valid[None])).data.ravel()
    matrix[:, ~valid.ravel()] = 0
    reported = backend(Observation(np.zeros((1, *shape)), valid=valid[None], variance=variance[None])).variance[0]
    expected = (matrix**2 @ variance.ravel()).reshape(shape)
    np.testing.assert_allclose(reported[valid], expected[valid], rtol=1e-4)


@pytest.mark.parametrize("sigma", [1.0, 4.0, 12.0])
def test_width_is_near_the_best_with_the_truth(rng, sigma):
    truth = blobs(rng)
    observation = Observation(
        (truth + rng.normal(0, sigma, truth.shape))[None], variance=np.full((1, 96, 96), sigma**2)
    )
    error = {w: ((Gaussian(w)(observation).data[0] - truth) ** 2).mean() for w in np.arange(0, 14, 0.25)}
    tuned = Gaussian()(observation)
    assert ((tuned.data[0] - truth) ** 2).mean() < 1.03 * min(error.values())


def test_risk_is_unbiased(rng):
    """The estimate of the squared error that the width is chosen by, on average over noise, is the squared error."""
    truth, sigma = blobs(rng, size=48), 5.0
    difference = []
    widths = np.exp(np.linspace(np.log(0.4), np.log(16.0), 60))
    for _ in range(60):
        observation = Observation(
            (truth + rng.normal(0, sigma, truth.shape))[None], variance=np.full((1, 48, 48), sigma**2)
        )
        risk = Gaussian._risk(observation, 0)[30] * sigma**2
        error = ((Gaussian(float(widths[30]))(observation).data[0] - truth) ** 2).sum()
        difference.append((risk - error) / error)
    assert abs(np.mean(difference)) < 4 * np.std(difference) / np.sqrt(60) + 0.01


def test_noise_is_found_without_a_variance(rng):
    truth = blobs(rng)
    observation = Observation((truth + rng.normal(0, 4, truth.shape))[None])
    given = observation.replace(variance=np.full((1, 96, 96), 16.0))
    assert Gaussian()(observation).info["fwhm"] == pytest.approx(Gaussian()(given).info["fwhm"], rel=0.05)
    assert Gaussian()(observation).variance is None


def test_width_is_a_band_or_shared(rng):
    truth = blobs(rng)
    data = np.stack([truth + rng.normal(0, s, truth.shape) for s in (1, 10)])
    observation = Observation(data, variance=np.stack([np.full((96, 96), s**2.0) for s in (1, 10)]), bands=("g", "r"))
    info = Gaussian()(observation).info
    assert info["fwhm_g"] < 0.7 * info["fwhm_r"]
    shared = Gaussian(shared=True)(observation).info["fwhm"]
    assert info["fwhm_g"] < shared < info["fwhm_r"]


def test_masked_pixels_take_no_part_and_sources_keep_their_level(rng):
    data = np.full((1, 40, 40), 100.0)
    valid = np.ones(data.shape, bool)
    valid[0, 10:14, 10:14] = False
    data[~valid] = -1e6
    np.testing.assert_array_equal(Gaussian(4.0)(Observation(data, valid=valid)).data, 100)


def test_noise_free_is_left_nearly_alone(rng):
    truth = blobs(rng)
    result = Gaussian()(Observation(truth[None]))
    assert np.abs(result.data[0] - truth).max() < 0.01 * truth.max()


def test_zero_width_is_the_identity(rng):
    data = rng.normal(size=(1, 5, 5)).astype(np.float32)
    np.testing.assert_array_equal(Gaussian(0)(Observation(data)).data, data)


def test_halo_and_tuned():
    assert Gaussian().halo == -1
    assert Gaussian(2.0).halo == 4
    assert Gaussian((1.0, 3.0)).halo == 6
    noise = np.random.default_rng(0).normal(size=(1, 64, 64))
    tuned = Gaussian().for_image(Observation(noise))
    assert tuned.halo > 10
    np.testing.assert_array_equal(tuned(Observation(noise)).data, Gaussian()(Observation(noise)).data)


@pytest.mark.parametrize("fwhm", [-1, np.nan, np.inf, "best", True, None, (1.0, -2.0)])
def test_bad_widths_are_refused(fwhm):
    with pytest.raises(InputError, match="fwhm"):
        Gaussian(fwhm)


def test_wrong_number_of_bands():
    with pytest.raises(InputError, match="2 values and the image has 1"):
        Gaussian((1.0, 2.0))(Observation(np.zeros((1, 4, 4))))
    with pytest.raises(InputError, match="shared"):
        Gaussian(shared="yes")
