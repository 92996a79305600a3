"""A degrader: plain arrays in, plain arrays out. It works as it is; put your own model in its place."""

import numpy as np
from scipy.ndimage import convolve1d

from astrogan.api import Estimate
from astrogan.exceptions import InputError


class MyBackend:
    """Blur with a Gaussian, then add white noise.

    `~astrogan.Degrader` has arguments of its own (psf, noise, rebin, ...) for the built-in model; options here need
    other names.

    Parameters
    ----------
    fwhm : float
        Of the Gaussian, in pixels.
    noise_factor : float
        Standard deviation of the noise that is added, in units of the image's own background noise.
    """

    # An image without an uncertainty gets the variance of its background.
    needs_variance = True

    def __init__(self, fwhm=3.0, noise_factor=1.0):
        if not 0 < fwhm < 1000:
            raise InputError(f"fwhm={fwhm!r} must be a positive number of pixels, e.g. 3.0")
        if not 0 <= noise_factor < np.inf:
            raise InputError(f"noise_factor={noise_factor!r} must be zero or a positive number, e.g. 1.0")
        self.fwhm = fwhm
        self.noise_factor = noise_factor

    def __call__(self, observation, *, rng):
        """Degrade one observation; random numbers come from ``rng`` alone."""
        profile = _gaussian(self.fwhm)
        bands = zip(observation.variance, observation.valid, strict=True)
        level = np.array([self._level(variance, valid) for variance, valid in bands])[:, None, None]
        noise = level * rng.standard_normal(observation.shape, dtype=np.float32)
        # The variance of a weighted sum takes the squares of the weights.
        variance = _blurred(observation.variance, profile**2) + level**2
        return Estimate(
            data=_blurred(observation.data, profile) + noise,
            variance=variance,
            flags=_blurred(np.float32(~observation.valid), profile) > 0.01,
            info={"fwhm_pixels": self.fwhm},
        )

    def _level(self, variance, valid):
        """Standard deviation of the noise to add to a band."""
        return np.float32(self.noise_factor * np.sqrt(np.median(variance[valid]))) if valid.any() else np.float32(0)


def _gaussian(fwhm):
    """A Gaussian's profile along one axis, out to four standard deviations."""
    sigma = fwhm / (8 * np.log(2)) ** 0.5
    x = np.arange(-int(np.ceil(4 * sigma)), int(np.ceil(4 * sigma)) + 1)
    profile = np.exp(-(x**2) / (2 * sigma**2))
    return profile / profile.sum()


def _blurred(cube, profile):
    """(band, y, x), convolved with the profile along y and x; beyond the edges the image is mirrored."""
    return convolve1d(convolve1d(cube, profile, axis=1), profile, axis=2)
