"""Pixelwise agreement: mean squared error, peak signal-to-noise ratio, structural similarity."""

from __future__ import annotations

import numpy as np

from astrogan.exceptions import InputError
from astrogan.metrics._checks import as_pair, as_positive, by_band

__all__ = ["mse", "psnr", "ssim"]


def mse(truth, image, *, mask=None, per_band=False):
    """Mean squared error over all pixels that are not masked.

    Parameters
    ----------
    truth, image : array_like
        Of one shape, (y, x) or (band, y, x).
    mask : array_like of bool, optional
        True where a pixel is left out; of the images' shape, or (y, x) for all bands.
    per_band : bool, optional
        One value per band instead of one over all pixels of all bands.

    Returns
    -------
    float or `numpy.ndarray`
        In the images' unit squared; NaN where every pixel is masked. Shape (band,) with ``per_band`` for a cube.

    Raises
    ------
    InputError
        If shapes differ, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> from astrogan.metrics import mse
    >>> mse([[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 3.0]])
    3.0
    """
    truth, image, mask = as_pair(truth, image, mask)
    return _mean((truth - image) ** 2, mask, per_band)


def psnr(truth, image, *, data_range, mask=None, per_band=False):
    r"""Peak signal-to-noise ratio in decibels, :math:`10 \log_{10}(R^2 / \mathrm{MSE})`.

    Parameters
    ----------
    truth, image : array_like
        Of one shape, (y, x) or (band, y, x), in the same domain (linear or stretched: say which with the figure).
    data_range : float or array_like
        R, the range of values that counts as full scale; one per band of a cube is taken too. It has no default
        because several conventions are in use, and they differ by many decibels on sky images.
    mask, per_band
        As for `mse`.

    Returns
    -------
    float or `numpy.ndarray`
        Infinite where the images are equal. Over a cube the squared errors are averaged, not the decibels.

    Raises
    ------
    InputError
        If shapes differ, ``data_range`` is not positive, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import psnr
    >>> truth = np.zeros((4, 4))
    >>> round(psnr(truth, truth + 0.01, data_range=1.0), 6)
    40.0
    """
    truth, image, mask = as_pair(truth, image, mask)
    scale = _data_range(data_range, truth)
    with np.errstate(divide="ignore"):
        value = -10 * np.log10(_mean(((truth - image) / scale) ** 2, mask, per_band))
    return float(value) if np.ndim(value) == 0 else value


def ssim(truth, image, *, data_range, mask=None, sigma=1.5, window_size=None, k1=0.01, k2=0.03, per_band=False):
    """Mean structural similarity of Wang et al. (2004), over windows inside the image that touch no masked pixel.

    Parameters
    ----------
    truth, image : array_like
        Of one shape, (y, x) or (band, y, x).
    data_range : float or array_like
        Full scale, as for `psnr`; it sets the two stabilising constants.
    mask : array_like of bool, optional
        True where a pixel is left out; every window that holds one is left out with it.
    sigma : float or None, optional
        Width of the Gaussian window in pixels. None weighs all pixels of the window alike.
    window_size : int, optional
        Edge of the square window, odd. Default: 3.5 ``sigma`` to each side (11 for 1.5), or 7 without ``sigma``.
    k1, k2 : float, optional
        The constants of the paper.
    per_band : bool, optional
        One value per band of a cube instead of their mean.

    Returns
    -------
    float or `numpy.ndarray`
        1 for equal images; NaN where no window is free of masked pixels.

    Raises
    ------
    InputError
        If shapes differ, the images are smaller than the window, a parameter is out of range, or a pixel that is not
        masked is not finite.

    Notes
    -----
    The defaults are the paper's: Gaussian window of 1.5 pixels, 11 pixels wide, population covariances. They equal
    ``skimage.metrics.structural_similarity(..., gaussian_weights=True, use_sample_covariance=False)``; with
    ``sigma=None`` it is that function without ``gaussian_weights``.

    References
    ----------
    Wang, Z., Bovik, A. C., Sheikh, H. R., Simoncelli, E. P. 2004, IEEE Trans. Image Processing 13, 600, eq. 13.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import ssim
    >>> image = np.random.default_rng(1).normal(size=(32, 32))
    >>> round(ssim(image, image, data_range=1.0), 12)
    1.0
    """
    truth, image, mask = as_pair(truth, image, mask)
    window = _window(sigma, window_size, truth.shape)
    scale = np.broadcast_to(np.ravel(_data_range(data_range, truth)), len(truth) if truth.ndim == 3 else 1)
    truth, undo = by_band(truth)
    image, mask = image.reshape(truth.shape), mask.reshape(truth.shape)
    values = np.array(
        [
            _ssim_band(t, i, m, window, (k1 * r) ** 2, (k2 * r) ** 2)
            for t, i, m, r in zip(truth, image, mask, scale, strict=True)
        ]
    )
    return undo(values) if per_band else float(values.mean())


def _ssim_band(truth, image, mask, window, c1, c2):
    from scipy.ndimage import binary_dilation, correlate1d

    def smooth(a):
        return correlate1d(correlate1d(a, window, axis=0, mode="nearest"), window, axis=1, mode="nearest")

    mean_t, mean_i = smooth(truth), smooth(image)
    var_t = smooth(truth * truth) - mean_t**2
    var_i = smooth(image * image) - mean_i**2
    cov = smooth(truth * image) - mean_t * mean_i
    numerator = (2 * mean_t * mean_i + c1) * (2 * cov + c2)
    value = numerator / ((mean_t**2 + mean_i**2 + c1) * (var_t + var_i + c2))
    half = len(window) // 2
    usable = ~binary_dilation(mask, np.ones((len(window), len(window)), bool)) if mask.any() else ~mask
    inside = (slice(half, truth.shape[0] - half), slice(half, truth.shape[1] - half))
    value = value[inside][usable[inside]]
    return value.mean() if value.size else np.nan


def _window(sigma, size, shape):
    """Weights along one axis of the square window, summing to one."""
    if size is None:
        size = 7 if sigma is None else 2 * int(3.5 * as_positive(sigma, "sigma") + 0.5) + 1
    if not isinstance(size, int | np.integer) or size < 1 or size % 2 == 0:
        raise InputError(f"window_size={size!r} must be an odd positive integer, e.g. 11")
    if size > min(shape[-2:]):
        raise InputError(f"window_size={size} is larger than the image, {shape[-2]} x {shape[-1]} pixels")
    if sigma is None:
        return np.full(size, 1 / size)
    x = np.arange(size) - size // 2
    window = np.exp(-0.5 * (x / as_positive(sigma, "sigma")) ** 2)
    return window / window.sum()


def _data_range(data_range, image):
    """Full scale ready to divide the image by: a number, or one per band of a cube."""
    scale = np.asarray(data_range, dtype=np.float64)
    if scale.ndim > 1 or not (np.isfinite(scale) & (scale > 0)).all():
        raise InputError(f"data_range={data_range!r} must be a positive number, or one per band")
    if scale.ndim == 0:
        return scale
    if image.ndim != 3 or len(scale) != len(image):
        raise InputError(f"data_range holds {len(scale)} values; the images have shape {image.shape}")
    return scale[:, None, None]


def _mean(values, mask, per_band):
    axes = (-2, -1) if per_band else None
    count = np.count_nonzero(~mask, axis=axes)
    with np.errstate(invalid="ignore"):
        mean = np.where(mask, 0, values).sum(axis=axes) / count
    return float(mean) if np.ndim(mean) == 0 else mean
