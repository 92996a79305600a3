"""A noise backend: it draws noise, and learns it from images of sky. It works as it is; put your own in its place."""

import numpy as np

from astrogan.exceptions import InputError


class MyBackend:
    """White noise and stripes: each row has an offset of its own, as read-out electronics give it.

    Parameters
    ----------
    sigma : float or array_like
        Standard deviation, stripes included; one number, or one per band.
    stripes : float
        Share of the variance that is the rows', from 0 to 1.
    signal_slope : float, optional
        Growth of the variance with the flux in a pixel, 1 / gain for the noise of photons.
    """

    def __init__(self, sigma=1.0, stripes=0.1, signal_slope=0.0):
        sigma = np.asarray(sigma, float)
        if not (np.isfinite(sigma).all() and (sigma >= 0).all() and sigma.ndim < 2):
            raise InputError(f"sigma={sigma.tolist()} must be zero or positive, one number or one per band")
        if not 0 <= stripes <= 1:
            raise InputError(f"stripes={stripes!r} must lie between 0 and 1, e.g. 0.1")
        if not 0 <= signal_slope < np.inf:
            raise InputError(f"signal_slope={signal_slope!r} must be zero or a positive number, e.g. 0.5")
        self.sigma = sigma
        self.stripes = float(stripes)
        self.signal_slope = float(signal_slope)

    @classmethod
    def fit(cls, images, mask=None):
        """Learn level and stripes from sky: (y, x), (n, y, x) or (n, band, y, x); ``mask`` is True where it is none."""
        images = np.asarray(images, float)
        good = np.ones(images.shape, bool) if mask is None else ~np.asarray(mask, bool)
        if images.ndim < 2 or good.shape != images.shape or not np.isfinite(images[good]).all():
            raise InputError(f"images has shape {images.shape}; it must be (..., y, x), finite, and that of mask")
        images, good = (array.reshape(-1, *images.shape[-2:]) for array in (images, good))
        counts = good.sum(axis=2)
        rows = counts > 1
        if not rows.any():
            raise InputError("mask=True nearly everywhere: there is no sky to learn from")
        level = (images * good).sum(axis=(1, 2)) / np.maximum(good.sum(axis=(1, 2)), 1)
        residual = np.where(good, images - level[:, None, None], 0)
        total = (residual**2).sum() / good.sum()
        # White noise of variance w gives the mean of n pixels the variance w / n.
        means, shares = residual.sum(axis=2)[rows] / counts[rows], (1 / counts[rows]).mean()
        stripes = ((means**2).mean() - total * shares) / (1 - shares)
        return cls(total**0.5, float(np.clip(stripes / total, 0, 1)) if total > 0 else 0.0)

    def sample(self, shape, *, sigma=None, signal=None, wcs=None, rng):
        """Noise of shape (band, y, x), float32; ``sigma`` is a number, (band,) or a map (band, y, x)."""
        bands, height, width = shape
        level = np.asarray(self.sigma if sigma is None else sigma, np.float32)
        level = level[:, None, None] if level.ndim == 1 else level
        if level.ndim not in (0, 3):
            raise InputError(f"sigma has shape {level.shape}; it must be a number, ({bands},) or {tuple(shape)}")
        white = rng.standard_normal((bands, height, width), dtype=np.float32)
        rows = rng.standard_normal((bands, height, 1), dtype=np.float32)
        # Numbers of Python's own leave float32 as it is.
        noise = level * ((1 - self.stripes) ** 0.5 * white + self.stripes**0.5 * rows)
        if signal is not None and self.signal_slope:
            photons = self.signal_slope * np.maximum(np.asarray(signal, np.float32), 0)
            noise += photons**0.5 * rng.standard_normal((bands, height, width), dtype=np.float32)
        return noise
