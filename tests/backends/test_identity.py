import numpy as np

from astrogan.api import Observation
from astrogan.backends.classic.identity import Identity


def test_returns_copies_of_data_and_variance(rng):
    data = rng.normal(size=(2, 5, 7)).astype(np.float32)
    observation = Observation(data, variance=np.full(data.shape, 2.0))
    estimate = Identity()(observation, rng=rng)
    np.testing.assert_array_equal(estimate.data, data)
    np.testing.assert_array_equal(estimate.variance, 2.0)
    assert estimate.data.flags.writeable
    assert not np.shares_memory(estimate.data, observation.data)
    assert Identity.halo == 0


def test_no_variance_is_made_up(rng):
    assert Identity()(Observation(np.zeros((1, 3, 3))), rng=rng).variance is None
