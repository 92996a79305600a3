"""Noise of sets of images on source-free sky: how it differs between real images and generated ones.

All formulas are our own. Sets of images have a leading axis: (image, y, x) or (image, band, y, x).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["NoiseComparison", "NoiseStatistics", "compare_noise", "noise_statistics", "variance_slope"]

LAGS = ((0, 1), (1, 1), (0, 2), (0, 3))
"""(dy, dx) at which noise is compared."""


@dataclass(frozen=True)
class NoiseStatistics:
    """Noise of each image of a set on its source-free sky.

    Parameters
    ----------
    std : `numpy.ndarray`
        (image, band).
    autocorrelation : `numpy.ndarray`
        (image, band, lag).
    correlation : `numpy.ndarray`
        Between the bands at one pixel, (image, band, band).
    pixels : `numpy.ndarray`
        (image, band, pixel): pixels some way apart, minus the mean and over the std of their image and band; NaN
        under the mask.
    """

    std: np.ndarray
    autocorrelation: np.ndarray
    correlation: np.ndarray
    pixels: np.ndarray

    @classmethod
    def joined(cls, parts):
        """The statistics of several sets as one set's.

        Parameters
        ----------
        parts : sequence of `NoiseStatistics`
            Of the same bands, lags and image shape.

        Returns
        -------
        `NoiseStatistics`
        """
        names = cls.__dataclass_fields__
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __getitem__(self, which):
        """Some of the images, by slice or index array."""
        return type(self)(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class NoiseComparison:
    """How the noise of two sets of images differs.

    Parameters
    ----------
    ks_std, w1_std : `numpy.ndarray`
        Kolmogorov-Smirnov and first Wasserstein distance between the distributions of the images' std, (band,); the
        latter in units of the real sets' median.
    std_ratio : `numpy.ndarray`
        Ratio of the median std, (band,).
    autocorrelation : `numpy.ndarray`
        Difference of the mean autocorrelations, (band, lag).
    ks_pixels : `numpy.ndarray`
        Kolmogorov-Smirnov distance between the whitened pixels, (band,).
    correlation : `numpy.ndarray`
        Difference of the mean correlation between bands, (band, band).
    amplitude_correlation : `numpy.ndarray`
        Difference of the correlation, over images, of log std between bands, (band, band).
    """

    ks_std: np.ndarray
    w1_std: np.ndarray
    std_ratio: np.ndarray
    autocorrelation: np.ndarray
    ks_pixels: np.ndarray
    correlation: np.ndarray
    amplitude_correlation: np.ndarray


def noise_statistics(images, *, mask=None, lags=LAGS, stride=4):
    """Size, correlations and distribution of the noise, image by image.

    Parameters
    ----------
    images : array_like
        (image, y, x) or (image, band, y, x).
    mask : array_like of bool, optional
        True on sources; of the images' shape or one that broadcasts to it.
    lags : sequence of (int, int), optional
        (dy, dx) in pixels, neither negative.
    stride : int, optional
        Pixels between those that are kept for their distribution: beyond the noise's correlation, so that they count
        as independent.

    Returns
    -------
    `NoiseStatistics`
        With one band for (image, y, x). NaN for an image with fewer than two pixels of sky.

    Raises
    ------
    InputError
        If a shape, lag or stride cannot be used, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import noise_statistics
    >>> white = np.random.default_rng(1).normal(size=(20, 65, 64))
    >>> found = noise_statistics(white[:, 1:] + white[:, :-1], lags=[(1, 0), (0, 1)])
    >>> found.autocorrelation.mean(axis=0).round(1) + 0.0
    array([[0.5, 0. ]])
    """
    images, mask = as_set(images, mask)
    if images.ndim == 3:
        images, mask = images[:, None], mask[:, None]
    if isinstance(stride, bool) or not isinstance(stride, int | np.integer) or stride < 1:
        raise InputError(f"stride={stride!r} must be a positive integer")
    lags = [_lag(lag, images.shape[-2:]) for lag in lags]
    sky = ~mask
    count = sky.sum(axis=(-2, -1))
    good = count > 1
    mean = np.divide(np.where(sky, images, 0).sum(axis=(-2, -1)), count, out=np.zeros(count.shape), where=good)
    noise = np.where(sky, images - mean[..., None, None], 0)
    square = np.einsum("...yx,...yx->...", noise, noise)
    std = np.sqrt(np.divide(square, count - 1, out=np.full(count.shape, np.nan), where=good))
    noise /= np.where(std > 0, std, 1)[..., None, None]
    pairs = np.stack([_pairs(noise, sky, *lag) for lag in lags], axis=-1)
    flat, seen = noise.reshape(*noise.shape[:2], -1), sky.reshape(*noise.shape[:2], -1).astype(np.float64)
    both = seen @ seen.swapaxes(-1, -2)
    product = flat @ flat.swapaxes(-1, -2)
    correlation = np.divide(product, both, out=np.full(both.shape, np.nan), where=both > 1)
    thin = (..., slice(stride // 2, None, stride), slice(stride // 2, None, stride))
    pixels = np.where(sky[thin], noise[thin], np.nan).reshape(*noise.shape[:2], -1)
    return NoiseStatistics(std, pairs, correlation, pixels.astype(np.float32))


def _lag(lag, shape):
    dy, dx = lag if np.shape(lag) == (2,) else (None, None)
    if not all(isinstance(d, int | np.integer) and d >= 0 for d in (dy, dx)) or dy >= shape[0] or dx >= shape[1]:
        raise InputError(f"lag {lag!r} must be two integers (dy, dx), not negative and smaller than the image, {shape}")
    return int(dy), int(dx)


def _pairs(noise, sky, dy, dx):
    """Mean product of whitened pixels that are (dy, dx) apart."""
    ny, nx = noise.shape[-2:]
    first, second = (..., slice(0, ny - dy), slice(0, nx - dx)), (..., slice(dy, None), slice(dx, None))
    count = (sky[first] & sky[second]).sum(axis=(-2, -1))
    product = np.einsum("...yx,...yx->...", noise[first], noise[second])
    return np.divide(product, count, out=np.full(count.shape, np.nan), where=count > 0)


def compare_noise(real, generated):
    """How far generated noise is from real noise.

    Parameters
    ----------
    real, generated : `NoiseStatistics`
        Of any numbers of images, with the same bands and lags.

    Returns
    -------
    `NoiseComparison`

    Raises
    ------
    InputError
        If the numbers of bands or lags differ.

    Notes
    -----
    What finite sets of equal noise give is not zero: compare two halves of the real set in the same way.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import compare_noise, noise_statistics
    >>> rng = np.random.default_rng(1)
    >>> a, b = (noise_statistics(rng.normal(scale=s, size=(50, 32, 32))) for s in (1, 1.5))
    >>> result = compare_noise(a, b)
    >>> result.ks_std, result.std_ratio.round(1), result.w1_std.round(1)
    (array([1.]), array([1.5]), array([0.5]))
    """
    if real.autocorrelation.shape[1:] != generated.autocorrelation.shape[1:]:
        raise InputError(
            f"generated has (band, lag) {generated.autocorrelation.shape[1:]}; they must be those of real, "
            f"{real.autocorrelation.shape[1:]}"
        )
    bands = range(real.std.shape[1])
    median = [np.array([_median(s.std[:, b]) for b in bands]) for s in (real, generated)]
    return NoiseComparison(
        ks_std=np.array([_ks(real.std[:, b], generated.std[:, b]) for b in bands]),
        w1_std=np.array([_w1(real.std[:, b], generated.std[:, b]) / median[0][b] for b in bands]),
        std_ratio=median[1] / median[0],
        autocorrelation=_over_images(generated.autocorrelation) - _over_images(real.autocorrelation),
        ks_pixels=np.array([_ks(real.pixels[:, b].ravel(), generated.pixels[:, b].ravel()) for b in bands]),
        correlation=_over_images(generated.correlation) - _over_images(real.correlation),
        amplitude_correlation=_correlation_of_amplitudes(generated.std) - _correlation_of_amplitudes(real.std),
    )


def _over_images(values):
    """Mean over the first axis."""
    return mean_of_known(np.moveaxis(values, 0, -1))


def _median(values):
    values = values[~np.isnan(values)]
    return np.median(values) if values.size else np.nan


def _steps(a, b):
    """All values in order, and both cumulative distributions at each."""
    a, b = (np.sort(v[~np.isnan(v)]) for v in (a, b))
    if not (a.size and b.size):
        return None
    at = np.sort(np.concatenate([a, b]))
    return at, *(np.searchsorted(v, at, side="right") / v.size for v in (a, b))


def _ks(a, b):
    steps = _steps(a, b)
    return np.nan if steps is None else np.abs(steps[1] - steps[2]).max()


def _w1(a, b):
    steps = _steps(a, b)
    return np.nan if steps is None else (np.abs(steps[1] - steps[2])[:-1] * np.diff(steps[0])).sum()


def _correlation_of_amplitudes(std):
    """Correlation of log std between bands; NaN where there is no scatter."""
    usable = std[(std > 0).all(axis=1)]
    if len(usable) < 3:
        return np.full((std.shape[1],) * 2, np.nan)
    logs = np.log(usable) - np.log(usable).mean(axis=0)
    covariance = logs.T @ logs
    norm = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    return np.divide(covariance, norm, out=np.full(norm.shape, np.nan), where=norm > 1e-20)


def variance_slope(signal, residual, *, sigma, bins=12):
    """Rise of the noise's variance with the signal; 1 / gain for photon noise.

    Parameters
    ----------
    signal : array_like
        Flux without noise, any shape.
    residual : array_like
        Noise at the same pixels: an image minus its expectation.
    sigma : float or array_like
        Noise of blank sky; bins reach from 0.5 sigma to the largest signal. One that broadcasts to the signal's shape.
    bins : int, optional
        Logarithmic bins of signal.

    Returns
    -------
    float
        Slope of the variance (robust, bin by bin) in excess of sigma^2 against the signal, in the unit of the flux,
        by least squares with equal relative errors; NaN with fewer than three bins of 20 pixels.

    Raises
    ------
    InputError
        If shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import variance_slope
    >>> rng = np.random.default_rng(1)
    >>> signal = rng.uniform(0, 1000, 200_000)
    >>> residual = rng.normal(size=signal.size) * np.sqrt(9 + 0.5 * signal)
    >>> round(variance_slope(signal, residual, sigma=3.0), 1)
    0.5
    """
    signal, residual = (np.asarray(a, np.float64) for a in (signal, residual))
    if signal.shape != residual.shape:
        raise InputError(f"residual has shape {residual.shape}; it must be that of signal, {signal.shape}")
    sigma = np.broadcast_to(np.asarray(sigma, np.float64), signal.shape).ravel()
    signal, residual = signal.ravel(), residual.ravel()
    use = signal > 0.5 * sigma
    if np.count_nonzero(use) < 60:
        return np.nan
    signal, residual, sigma = signal[use], residual[use], sigma[use]
    edges = np.geomspace(signal.min(), signal.max() * (1 + 1e-9), bins + 1)
    which = np.clip(np.searchsorted(edges, signal, side="right") - 1, 0, bins - 1)
    middle, excess, variance = [], [], []
    for k in range(bins):
        part = which == k
        if np.count_nonzero(part) >= 20:
            # Scaled first: within a bin the blank sky may differ from image to image.
            scatter = 1.4826 * np.median(np.abs(residual[part] - np.median(residual[part])))
            middle.append(signal[part].mean())
            variance.append(scatter**2)
            excess.append(scatter**2 - np.median(sigma[part] ** 2))
    if len(middle) < 3:
        return np.nan
    middle, excess, variance = map(np.array, (middle, excess, variance))
    weight = 1 / np.maximum(variance, 1e-300) ** 2
    return float((weight * middle * excess).sum() / (weight * middle**2).sum())


# ---- helpers ---------------------------------------------------------------------------------------------------------


def as_set(images, mask=None):
    """Images (image, y, x) or (image, band, y, x) as float64, zero under the mask, and the mask in full."""
    images = np.asarray(images)
    if images.dtype.kind not in "biuf" or images.ndim not in (3, 4) or 0 in images.shape:
        raise InputError(
            f"images has shape {images.shape} and dtype {images.dtype}; it must be real, (image, y, x) or "
            "(image, band, y, x)"
        )
    if mask is None:
        mask = np.zeros(images.shape, bool)
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise InputError(f"mask has dtype {mask.dtype}; it must be bool, True where a pixel is to be left out")
    try:
        mask = np.broadcast_to(mask, images.shape)
    except ValueError:
        raise InputError(f"mask has shape {mask.shape}; it must be {images.shape} or broadcast to it") from None
    images = np.where(mask, 0, images).astype(np.float64)
    if not np.isfinite(images).all():
        raise InputError("images has pixels that are NaN or inf; give mask=, True at those")
    return images, mask


def mean_of_known(values):
    """Mean along the last axis of what is not NaN."""
    good = ~np.isnan(values)
    count = good.sum(axis=-1)
    return np.divide(np.where(good, values, 0).sum(axis=-1), count, out=np.full(np.shape(count), np.nan),
                     where=count > 0)  # fmt: skip
