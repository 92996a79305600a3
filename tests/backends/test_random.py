"""Deviates against the laws that they are to follow."""

import numpy as np
import pytest
from scipy import stats

from astrogan.backends.classic._random import poisson, standard_normal


def test_normal_deviates_are_normal(rng):
    sample = standard_normal((400_000,), rng)
    assert sample.dtype == np.float32
    assert stats.kstest(sample, "norm").pvalue > 1e-3
    assert abs(stats.kurtosis(sample)) < 0.05
    assert abs(np.corrcoef(sample[:-1], sample[1:])[0, 1]) < 0.006


@pytest.mark.parametrize("shape", [(1,), (3, 5), (16385,), (2, 3, 128, 128)])
def test_normal_shapes_and_seeds(shape):
    one = standard_normal(shape, np.random.default_rng(4))
    assert one.shape == shape
    assert np.array_equal(one, standard_normal(shape, np.random.default_rng(4)))
    assert not np.array_equal(one, standard_normal(shape, np.random.default_rng(5)))


def test_generator_advances(rng):
    assert not np.array_equal(standard_normal((8,), rng), standard_normal((8,), rng))


@pytest.mark.parametrize("mean", [0.3, 4.0, 9.99, 10.0, 11.3, 25.0, 300.0, 4321.5])
def test_poisson_deviates_are_poisson(mean, rng):
    """Chi-square over all values that are expected at least 20 times."""
    sample = poisson(np.full(500_000, mean), rng)
    low, high = stats.poisson.ppf([1e-9, 1 - 1e-9], mean)
    edges = np.arange(max(low, 0), high + 2) - 0.5
    expected = stats.poisson(mean).pmf(edges[:-1] + 0.5) * sample.size
    counted = np.histogram(sample, edges)[0]
    enough = expected > 20
    chi2 = ((counted - expected)[enough] ** 2 / expected[enough]).sum()
    assert stats.chi2(enough.sum() - 1).sf(chi2) > 1e-3
    assert np.array_equal(sample, np.floor(sample))


def test_poisson_of_mixed_means_keeps_each_in_place(rng):
    mean = np.array([[0.0, 5.0, 50.0], [5e3, 0.0, 1e6]])
    sample = np.stack([poisson(mean, rng) for _ in range(4000)])
    assert (sample[:, mean == 0] == 0).all()
    error = np.sqrt(np.maximum(mean, 1e-9) / 4000)
    assert (np.abs(sample.mean(axis=0) - mean) < 5 * error + 1e-6).all()
    np.testing.assert_allclose(sample.var(axis=0)[mean > 0], mean[mean > 0], rtol=0.15)


def test_poisson_is_deterministic():
    mean = np.linspace(0, 100, 30_000)
    one, other = (poisson(mean, np.random.default_rng(2)) for _ in range(2))
    assert np.array_equal(one, other)
