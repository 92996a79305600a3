"""The backend: plain arrays in, plain arrays out."""

import numpy as np
from scipy.ndimage import convolve

from astrogan.api import Estimate
from astrogan.exceptions import InputError


class VanCittert:
    """Van Cittert deconvolution: x <- x + r (d - PSF (*) x).

    Parameters
    ----------
    iterations : int
        Each amplifies noise; a few are enough.
    relaxation : float
        Step r, in (0, 1].
    """

    needs_psf = True

    def __init__(self, iterations=4, relaxation=0.5):
        if not isinstance(iterations, int) or iterations < 1:
            raise InputError(f"iterations={iterations!r} must be a positive integer, e.g. 4")
        if not 0 < relaxation <= 1:
            raise InputError(f"relaxation={relaxation!r} must lie in (0, 1], e.g. 0.5")
        self.iterations = iterations
        self.relaxation = relaxation

    @property
    def halo(self):
        """Without a PSF nobody can say; `halo_for` is asked first."""
        return -1

    def halo_for(self, observation):
        """A pixel sees one PSF radius further with each iteration."""
        return self.iterations * (observation.psf.shape[-1] // 2)

    def __call__(self, observation, *, rng):
        """Restore one observation; nothing here is random."""
        planes = [self._restore(d, k) for d, k in zip(observation.data, observation.psf, strict=True)]
        return Estimate(np.stack(planes), info={"iterations": self.iterations})

    def _restore(self, data, kernel):
        estimate = data
        for _ in range(self.iterations):
            residual = data - convolve(estimate, kernel, mode="reflect")
            estimate = estimate + np.float32(self.relaxation) * residual
        return estimate
