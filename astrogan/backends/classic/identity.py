"""The image as it came: the baseline that every method has to beat."""

from __future__ import annotations

from astrogan.api import Estimate, Observation

__all__ = ["Identity"]


class Identity:
    """Return the data and their variance unchanged.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import Observation
    >>> from astrogan.backends.classic.identity import Identity
    >>> Identity()(Observation(np.arange(6.0).reshape(1, 2, 3)), rng=np.random.default_rng(0)).data[0, 1]
    array([3., 4., 5.], dtype=float32)
    """

    halo = 0
    keeps_psf = True
    needs_psf = False

    def __call__(self, observation: Observation, *, rng=None) -> Estimate:
        """Copies of ``observation.data`` and of its variance, where it has one."""
        variance = None if observation.variance is None else observation.variance.copy()
        return Estimate(observation.data.copy(), variance)
