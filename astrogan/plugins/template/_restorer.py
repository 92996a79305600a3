"""A restorer: plain arrays in, plain arrays out. It works as it is; put your own method in its place."""

import numpy as np
from scipy.ndimage import convolve

from astrogan.api import Estimate
from astrogan.exceptions import InputError


class MyBackend:
    """Landweber iteration, x <- x + r K' (v (d - K x)): K blurs with the PSF, v is 1 where a pixel is valid.

    Parameters
    ----------
    iterations : int
        Each sharpens and amplifies the noise; a few are enough.
    relaxation : float
        Step r, in (0, 2).

    References
    ----------
    Landweber 1951, Am. J. Math. 73, 615.
    """

    # Where an image has no PSF, one is built from its stars, or the user is told to give one.
    needs_psf = True
    # Pixels of context that an output pixel depends on; -1 is the whole image. Here halo_for knows better.
    halo = -1

    def __init__(self, iterations=5, relaxation=1.0):
        if not isinstance(iterations, int) or iterations < 1:
            raise InputError(f"iterations={iterations!r} must be a positive integer, e.g. 5")
        if not 0 < relaxation < 2:
            raise InputError(f"relaxation={relaxation!r} must lie between 0 and 2, e.g. 1.0")
        self.iterations = iterations
        self.relaxation = relaxation

    def halo_for(self, observation):
        """Each iteration looks two radii of the PSF further: once through K, once through its transpose."""
        return 2 * self.iterations * (observation.psf.shape[-1] // 2)

    def __call__(self, observation, *, rng):
        """Restore one observation; nothing here is random, so ``rng`` is not used."""
        bands = zip(observation.data, observation.valid, observation.psf, strict=True)
        data = np.stack([self._restore(*band) for band in bands])
        # No variance: none is better than a wrong one. The result's uncertainty is then None.
        return Estimate(data, info={"iterations": self.iterations})

    def _restore(self, data, valid, kernel):
        estimate = data
        for _ in range(self.iterations):
            residual = np.where(valid, data - convolve(estimate, kernel, mode="reflect"), np.float32(0))
            step = convolve(residual, kernel[::-1, ::-1], mode="reflect")
            estimate = estimate + np.float32(self.relaxation) * step
        return estimate
