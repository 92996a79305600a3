"""White and correlated noise: level, correlation, fit, errors."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrogan.api import NoiseBackend
from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.backends.classic.white_noise import WhiteNoise
from astrogan.exceptions import InputError


def measured_correlation(field, dy, dx):
    """Correlation coefficient of pixels (dy, dx) apart."""
    ny, nx = field.shape[-2:]
    one, other = field[..., : ny - dy, : nx - dx], field[..., dy:, dx:]
    return float((one * other).mean() / field.var())


@pytest.mark.parametrize("backend", [WhiteNoise(), CorrelatedNoise()])
def test_protocol_and_determinism(backend):
    assert isinstance(backend, NoiseBackend)
    fields = [backend.sample((2, 33, 20), sigma=3.0, rng=np.random.default_rng(1)) for _ in range(2)]
    assert fields[0].dtype == np.float32
    assert fields[0].shape == (2, 33, 20)
    assert np.array_equal(*fields)
    assert not np.array_equal(fields[0][0], fields[0][1])
    assert np.array_equal(
        pickle.loads(pickle.dumps(backend)).sample((2, 33, 20), sigma=3.0, rng=np.random.default_rng(1)), fields[0]
    )


@pytest.mark.parametrize("backend", [WhiteNoise(), CorrelatedNoise(), CorrelatedNoise(kernel=np.ones((5, 5)))])
def test_sigma_is_the_standard_deviation_in_every_form(backend, rng):
    plane = backend.sample((2, 300, 300), sigma=2.5, rng=rng)
    np.testing.assert_allclose(plane.std(axis=(1, 2)), 2.5, rtol=0.03)
    bands = backend.sample((2, 300, 300), sigma=[1.0, 4.0], rng=rng)
    np.testing.assert_allclose(bands.std(axis=(1, 2)), [1.0, 4.0], rtol=0.03)
    level = np.ones((2, 300, 300))
    level[:, :, 150:] = 10
    pixels = backend.sample((2, 300, 300), sigma=level, rng=rng)
    np.testing.assert_allclose(pixels[:, :, :150].std(), 1.0, rtol=0.03)
    np.testing.assert_allclose(pixels[:, :, 150:].std(), 10.0, rtol=0.03)


def test_own_sigma_is_the_default(rng):
    assert WhiteNoise(sigma=7.0).sample((1, 200, 200), rng=rng).std() == pytest.approx(7.0, rel=0.02)


def test_white_noise_is_uncorrelated(rng):
    field = WhiteNoise().sample((2, 500, 500), rng=rng)
    for lag in ((0, 1), (1, 0), (1, 1), (0, 2)):
        assert abs(measured_correlation(field, *lag)) < 0.008
    assert abs(np.corrcoef(field[0].ravel(), field[1].ravel())[0, 1]) < 0.008


def test_correlated_noise_has_the_correlation_of_its_kernel(rng):
    noise = CorrelatedNoise(kernel=[[0, 1, 0], [1, 3, 1], [0, 1, 0]])
    field = noise.sample((4, 400, 400), rng=rng)
    acf = noise.autocorrelation()
    assert acf[2, 2] == pytest.approx(1)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 2)):
        assert measured_correlation(field, dy, dx) == pytest.approx(acf[2 + dy, 2 + dx], abs=0.01)


def test_level_holds_up_to_the_edges(rng):
    """Margins are drawn, so there is no boundary at which the variance changes."""
    field = CorrelatedNoise().sample((4000, 7, 7), rng=rng)
    np.testing.assert_allclose(field.std(axis=0), 1.0, atol=0.05)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 5]))
def test_autocorrelation_round_trip(seed, size):
    """A kernel's autocorrelation gives a kernel of the same autocorrelation."""
    kernel = np.random.default_rng(seed).normal(size=(size, size))
    kernel += kernel[::-1, ::-1]
    kernel[size // 2, size // 2] += 4 * np.abs(kernel).sum()
    noise = CorrelatedNoise(kernel=kernel)
    reach = size - 1
    again = CorrelatedNoise(autocorrelation=noise.autocorrelation(reach))
    np.testing.assert_allclose(again.autocorrelation(reach), noise.autocorrelation(reach), atol=2e-3)


def test_fit_recovers_level_and_correlation_around_a_mask(rng):
    truth = CorrelatedNoise(kernel=[[0.1, 0.3, 0.1], [0.3, 1, 0.3], [0.1, 0.3, 0.1]])
    sky = truth.sample((40, 64, 64), sigma=2.0, rng=rng) + 100
    mask = np.zeros(sky.shape, bool)
    mask[:, 20:40, 10:30] = True
    sky[mask] = np.nan
    fitted = CorrelatedNoise.fit(sky, mask)
    assert fitted.kernel.shape == (7, 7)
    assert float(fitted.sigma) == pytest.approx(2.0, rel=0.02)
    np.testing.assert_allclose(fitted.autocorrelation(3), truth.autocorrelation(3), atol=0.02)


def test_fit_per_band(rng):
    sky = rng.normal(size=(10, 2, 64, 64)) * np.array([1.0, 5.0])[:, None, None]
    fitted = CorrelatedNoise.fit(sky)
    np.testing.assert_allclose(fitted.sigma, [1, 5], rtol=0.03)
    field = fitted.sample((2, 200, 200), rng=rng)
    np.testing.assert_allclose(field.std(axis=(1, 2)), [1, 5], rtol=0.05)
    with pytest.raises(InputError, match="2 bands"):
        fitted.sample((3, 10, 10), rng=rng)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: WhiteNoise(sigma=-1), "sigma=-1"),
        (lambda rng: WhiteNoise().sample((10, 10), rng=rng), "shape="),
        (lambda rng: WhiteNoise().sample((2, 10, 10), sigma=[1, 2, 3], rng=rng), "sigma has shape"),
        (lambda rng: CorrelatedNoise(kernel=np.ones((4, 4))), "k odd"),
        (lambda rng: CorrelatedNoise(kernel=np.zeros((3, 3))), "all zero"),
        (lambda rng: CorrelatedNoise(np.ones((3, 3)), autocorrelation=np.ones((3, 3))), "must be None"),
        (lambda rng: CorrelatedNoise.fit(np.ones((9, 9))), "at least 14 pixels"),
        (lambda rng: CorrelatedNoise.fit(np.ones((32, 32))), "constant"),
        (lambda rng: CorrelatedNoise.fit(rng.normal(size=(32, 32)), np.ones((32, 32), bool)), "too few"),
        (lambda rng: CorrelatedNoise.fit(rng.normal(size=(32, 32)), size=4), "size=4"),
    ],
)
def test_errors_name_what_is_wrong(call, message, rng):
    with pytest.raises(InputError, match=message):
        call(rng)
