"""Noise on source-free sky: its size and its correlation between neighbours."""

from __future__ import annotations

import numpy as np

from astrogan.exceptions import InputError
from astrogan.metrics._checks import as_masked, by_band

__all__ = ["noise_autocorrelation", "noise_std"]


def noise_std(image, *, mask=None):
    """Robust standard deviation, 1.4826 times the median absolute deviation.

    Parameters
    ----------
    image : array_like
        (y, x) or (band, y, x).
    mask : array_like of bool, optional
        True where a pixel is left out, e.g. on sources.

    Returns
    -------
    float or `numpy.ndarray`
        Shape () or (band,), in the image's unit; NaN where every pixel is masked.

    Raises
    ------
    InputError
        If a shape cannot be used, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import noise_std
    >>> round(noise_std(np.random.default_rng(1).normal(scale=2, size=(300, 300))), 1)
    2.0
    """
    image, mask = as_masked(image, mask)
    image, undo = by_band(image)
    values = np.where(mask.reshape(image.shape), np.nan, image).reshape(len(image), -1)
    stds = np.full(len(image), np.nan)
    for b, band in enumerate(values):
        band = band[~np.isnan(band)]
        if band.size:
            stds[b] = 1.482602218505602 * np.median(np.abs(band - np.median(band)))
    stds = undo(stds)
    return float(stds) if np.ndim(stds) == 0 else stds


def noise_autocorrelation(image, lags=((0, 1), (1, 1), (0, 2), (0, 3)), *, mask=None):
    r"""Correlation of the noise between pixels some way apart.

    Parameters
    ----------
    image : array_like
        (y, x) or (band, y, x).
    lags : sequence of (int, int), optional
        (dy, dx) in pixels.
    mask : array_like of bool, optional
        True where a pixel is left out; pairs with a masked pixel are too.

    Returns
    -------
    `numpy.ndarray`
        Shape (lag,) or (band, lag): covariance of the pairs over the product of their standard deviations.

    Raises
    ------
    InputError
        If a lag is not two integers or is as large as the image, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import noise_autocorrelation
    >>> white = np.random.default_rng(1).normal(size=(301, 300))
    >>> noise_autocorrelation(white[1:] + white[:-1], [(1, 0), (0, 2)]).round(1) + 0.0
    array([0.5, 0. ])
    """
    image, mask = as_masked(image, mask)
    image, undo = by_band(image)
    mask = mask.reshape(image.shape)
    lags = [_lag(lag, image.shape[-2:]) for lag in lags]
    return undo(np.array([[_pair_correlation(b, m, *lag) for lag in lags] for b, m in zip(image, mask, strict=True)]))


def _lag(lag, shape):
    dy, dx = lag if np.shape(lag) == (2,) else (None, None)
    if not all(isinstance(d, int | np.integer) for d in (dy, dx)) or abs(dy) >= shape[0] or abs(dx) >= shape[1]:
        raise InputError(f"lag {lag!r} must be two integers (dy, dx) smaller than the image, {shape}")
    return (dy, dx) if dy >= 0 else (-dy, -dx)


def _pair_correlation(band, mask, dy, dx):
    ny, nx = band.shape
    first = slice(0, ny - dy), slice(max(0, -dx), nx - max(0, dx))
    second = slice(dy, ny), slice(max(0, dx), nx + min(0, dx))
    use = ~(mask[first] | mask[second])
    a, b = band[first][use], band[second][use]
    if a.size < 2:
        return np.nan
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return a @ b / norm if norm > 0 else np.nan
