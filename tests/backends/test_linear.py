import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from astrogan.api import Observation
from astrogan.backends.classic._cache import Cache
from astrogan.backends.classic._linear import (
    Spectrum,
    fast_length,
    fill,
    grid_minimum,
    local_median,
    noise_sigma,
    reflect_pad,
    variance_plane,
    whole,
    wrapped,
)
from astrogan.exceptions import InputError


@given(st.integers(1, 9), st.integers(1, 9), *[st.integers(0, 25)] * 4)
def test_reflect_pad_is_numpys(ny, nx, top, bottom, left, right):
    plane = np.arange(ny * nx, dtype=np.float32).reshape(ny, nx)
    expected = np.pad(plane, ((top, bottom), (left, right)), mode="symmetric")
    np.testing.assert_array_equal(reflect_pad(plane, (top, bottom), (left, right)), expected)


def test_filling_is_smooth_local_and_blind_to_what_it_replaces(rng):
    plane = gaussian_filter(rng.normal(size=(90, 100)), 12).astype(np.float32)
    valid = np.ones(plane.shape, bool)
    valid[40:50, 40:55] = False
    valid[:, 20] = False
    results = [fill(np.where(valid, plane, np.float32(v)), valid) for v in (0, 1e30, -5)]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[0][valid], plane[valid])
    assert np.abs(results[0] - plane).max() < 0.25 * np.ptp(plane)
    # cutting the image a little way from the hole changes next to nothing
    part = np.s_[13:77, 5:91]
    cut = fill(plane[part], valid[part])
    # (where the masked column meets the cut, its filling reflects: leave that out)
    np.testing.assert_allclose(cut[8:-8], results[0][part][8:-8], atol=1e-6)
    assert fill(plane, np.ones_like(valid)) is plane
    np.testing.assert_array_equal(fill(plane, np.zeros_like(valid)), 0)


def test_fills_everything_from_a_single_pixel():
    valid = np.zeros((70, 1), bool)
    valid[3] = True
    np.testing.assert_array_equal(fill(np.full((70, 1), 4.5, np.float32), valid), 4.5)


@pytest.mark.parametrize("shape", [(200, 200), (1, 4000), (4000, 1)])
def test_noise_is_measured_through_sources_and_slopes(rng, shape):
    noise = rng.normal(0, 3, shape)
    x = np.arange(shape[0])[:, None] + np.arange(shape[1])
    sources = gaussian_filter((rng.random(shape) > 0.998) * 1e4, 3)
    measured = noise_sigma((noise + 0.01 * x + sources).astype(np.float32), np.ones(shape, bool))
    assert measured == pytest.approx(3, rel=0.1)


def test_noise_of_nothing():
    assert noise_sigma(np.ones((1, 1), np.float32), np.ones((1, 1), bool)) == 0
    assert noise_sigma(np.ones((5, 5), np.float32), np.zeros((5, 5), bool)) == 0
    constant = Observation(np.full((1, 4, 4), 2.0))
    np.testing.assert_array_equal(variance_plane(constant, 0), 0)
    model = Observation(np.eye(30)[None])
    np.testing.assert_allclose(variance_plane(model, 0), 1e-8)


@given(st.integers(1, 5000))
def test_fast_lengths(n):
    length = fast_length(n)
    assert n <= length <= max(1.3 * n + 8, 2)
    assert length % 2 == 0
    for prime in (2, 3, 5, 7):
        while length % prime == 0:
            length //= prime
    assert length == 1


def test_white_noise_has_a_flat_spectrum(rng):
    spectrum = Spectrum(rng.normal(0, 2, (256, 200)).astype(np.float32))
    assert spectrum.count.sum() == 256 * 200 - 1
    # each ring's mean of n squared normal coefficients scatters by sqrt(2 / n)
    pull = (spectrum.power / 4 - 1) / np.sqrt(2 / spectrum.count)
    assert np.abs(pull[spectrum.count > 30]).max() < 5


def test_wrapped_kernels_wrap_and_add_up():
    kernel = np.arange(25.0).reshape(5, 5)
    grid = wrapped(kernel, (3, 8))
    assert grid.sum() == kernel.sum()
    assert grid[0, 0] == kernel[2, 2]
    assert grid[1, 0] == kernel[3, 2] + kernel[0, 2]


def test_grid_minimum_of_a_parabola():
    grid = np.linspace(-2, 2, 21)
    assert grid_minimum((grid - 0.33) ** 2, grid) == pytest.approx(0.33)
    assert grid_minimum(grid, grid) == -2


def test_local_median_follows_depth_and_not_sources(rng):
    depth = np.where(np.arange(128) < 64, 1.0, 9.0) * np.ones((128, 1))
    variance = depth.copy()
    variance[20:28, 20:28] += 500
    steady = local_median(variance)
    np.testing.assert_allclose(steady[:, :40], 1)
    np.testing.assert_allclose(steady[:, 88:], 9)


def test_cache_is_bounded_and_makes_each_value_once():
    cache = Cache(max_bytes=1000)
    made = []

    def make(key):
        made.append(key)
        return np.full(50, key, np.float64)

    for key in (1, 2, 1, 3, 1):
        assert cache.get(key, lambda key=key: make(key))[0] == key
    assert made == [1, 2, 3]
    cache.get(2, lambda: make(2))
    assert made == [1, 2, 3, 2]  # 400 bytes each: two fit, the one used longest ago went
    results = []
    threads = [threading.Thread(target=lambda: results.append(cache.get(9, lambda: np.zeros(3)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(r) for r in results}) == 1


@pytest.mark.parametrize("value", [0, 1.5, True, "3", None])
def test_whole_numbers(value):
    with pytest.raises(InputError, match="steps="):
        whole("steps", value, example=3)
