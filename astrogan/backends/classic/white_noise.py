"""White noise: independent from pixel to pixel and from band to band."""

from __future__ import annotations

import numpy as np

from astrogan.backends.classic._random import standard_normal
from astrogan.exceptions import InputError

__all__ = ["WhiteNoise"]


class WhiteNoise:
    """Gaussian white noise.

    Parameters
    ----------
    sigma : float or array_like, optional
        Standard deviation where `sample` is given none: one number, or one per band.

    Raises
    ------
    InputError
        If ``sigma`` is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.backends.classic.white_noise import WhiteNoise
    >>> plane = WhiteNoise().sample((1, 200, 200), sigma=3.0, rng=np.random.default_rng(0))
    >>> plane.dtype, bool(abs(plane.std() - 3) < 0.05)
    (dtype('float32'), True)
    """

    def __init__(self, sigma=1.0):
        self.sigma = checked_sigma(sigma)

    def sample(self, shape, *, sigma=None, rng):
        """A noise field.

        Parameters
        ----------
        shape : tuple of int
            (band, y, x).
        sigma : float or array_like, optional
            Standard deviation: a number, (band,) or (band, y, x). Default: the instance's.
        rng : `numpy.random.Generator`

        Returns
        -------
        `numpy.ndarray`
            float32.
        """
        shape = checked_shape(shape)
        field = standard_normal(shape, rng)
        field *= spread_sigma(self.sigma if sigma is None else sigma, shape)
        return field


def checked_shape(shape):
    """``shape`` as (band, y, x)."""
    shape = tuple(int(n) for n in shape)
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape={shape!r} must be (band, y, x) with no empty axis")
    return shape


def checked_sigma(sigma):
    """``sigma`` as a non-negative float64 array."""
    try:
        array = np.asarray(sigma, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"sigma={sigma!r} must be a number or an array of numbers") from error
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise InputError(f"sigma={sigma!r} must be finite and not negative")
    return array


def spread_sigma(sigma, shape):
    """``sigma`` as float32 that broadcasts to (band, y, x)."""
    sigma = checked_sigma(sigma)
    if sigma.shape == (shape[0],):
        sigma = sigma[:, np.newaxis, np.newaxis]
    if sigma.shape not in ((), (shape[0], 1, 1), shape):
        raise InputError(f"sigma has shape {sigma.shape}; it must be a number, ({shape[0]},) or {shape}")
    return sigma.astype(np.float32)
