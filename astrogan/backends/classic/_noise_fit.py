"""What can be measured of noise on masked images: its level in each, its correlations, its growth with the signal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrogan.backends.classic._amplitudes import nearest_correlation
from astrogan.exceptions import InputError

__all__ = ["Measured", "filter_overlaps", "kernel_of_spectrum", "measure", "spectrum_of_autocorrelation"]

_ROUNDS = 4


@dataclass(frozen=True)
class Measured:
    """What `measure` finds.

    Parameters
    ----------
    stds : `numpy.ndarray`
        Standard deviation on blank sky, (image, band).
    autocorrelation : `numpy.ndarray`
        (band, 2 r + 1, 2 r + 1), 1 in the middle, faded to nothing at the largest lags.
    cross : `numpy.ndarray`
        Correlation of the same pixel in two bands, (band, band).
    slope : `numpy.ndarray` or None
        Growth of the variance with the signal, (band,); `None` without a signal.
    pixels : float
        Mean number of good pixels of a plane.
    by_band : bool
        Whether images had an axis for bands.
    planes : `numpy.ndarray`
        The noise alone, brought to the level it has on blank sky, in units of ``stds``; 0 where bad. float32,
        (image, band, y, x).
    good : `numpy.ndarray` of bool
        Which pixels counted.
    """

    stds: np.ndarray
    autocorrelation: np.ndarray
    cross: np.ndarray
    slope: np.ndarray | None
    pixels: float
    by_band: bool
    planes: np.ndarray
    good: np.ndarray

    @property
    def sigma(self):
        """Root mean square over all images, (band,), or () where there were no bands."""
        sigma = np.sqrt((self.stds**2).mean(axis=0))
        return sigma if self.by_band else sigma[0]


def measure(images, mask=None, signal=None, size=7):
    """Level, correlations and slope of the noise in images.

    Parameters
    ----------
    images : array_like
        (y, x), (n, y, x) or (n, band, y, x).
    mask : array_like of bool, optional
        True where a pixel is left out.
    signal : array_like, optional
        Noise-free images.
    size : int
        Odd edge of the kernel that will be made of it; lags are measured to twice that.

    Returns
    -------
    Measured
    """
    planes, good, light, by_band = _stacks(images, mask, signal, size)
    slope = None if light is None else _slopes(planes, good, light)
    extra = 0.0 if light is None else slope[:, None, None] * light
    stds = _levels(planes, good, extra)
    if not (stds > 0).all():
        raise InputError("images are constant in a band: there is no noise to learn")
    planes /= np.sqrt(stds[:, :, None, None] ** 2 + extra)
    acf = np.stack([_autocorrelation(planes[:, b], good[:, b], size) for b in range(planes.shape[1])])
    pixels = float(good.sum(axis=(-2, -1)).mean())
    return Measured(stds, acf, _cross(planes, good), slope, pixels, by_band, planes.astype(np.float32), good)


def _stacks(images, mask, signal, size):
    """Residuals without their means (0 where bad), where they are good, and the light, all (n, band, y, x)."""
    images = np.asarray(images, dtype=np.float64)
    if images.ndim not in (2, 3, 4) or min(images.shape[-2:]) < 2 * size:
        raise InputError(
            f"images has shape {images.shape}; it must be (y, x), (n, y, x) or (n, band, y, x) with at least "
            f"{2 * size} pixels along y and x"
        )
    by_band = images.ndim == 4
    shape = images.shape if by_band else (-1, 1, *images.shape[-2:])
    bad = np.zeros(images.shape, bool) if mask is None else np.asarray(mask, bool)
    if bad.shape != images.shape:
        raise InputError(f"mask has shape {bad.shape}; it must be that of images, {images.shape}")
    light = None
    if signal is not None:
        light = np.asarray(signal, dtype=np.float64)
        if light.shape != images.shape:
            raise InputError(f"signal has shape {light.shape}; it must be that of images, {images.shape}")
        images = images - light
        light = np.maximum(light, 0)
    good = (~bad & np.isfinite(images)).reshape(shape)
    images = images.reshape(shape)
    count = good.sum(axis=(-2, -1), keepdims=True)
    # A plane that is all masked says nothing; more than a few such, and the counts of pairs tell.
    kept = (count[:, :, 0, 0] > 1).all(axis=1)
    if not kept.any():
        raise InputError(f"mask leaves {int(good.sum())} pixels, too few to measure noise on; give more images")
    images, good, count = images[kept], good[kept], count[kept]
    mean = np.where(good, images, 0).sum(axis=(-2, -1), keepdims=True) / count
    planes = np.where(good, images - mean, 0)
    if light is not None:
        light = np.where(good, light.reshape(shape)[kept], 0)
    return planes, good, light, by_band


def _levels(planes, good, extra):
    """Standard deviation on blank sky of each plane, given how much of the variance of each pixel is the signal's."""
    if np.ndim(extra) == 0:
        return np.sqrt((planes**2).sum(axis=(-2, -1)) / good.sum(axis=(-2, -1)))
    return np.sqrt([_variances(*parts) for parts in zip(planes, good, extra, strict=True)])


def _variances(planes, good, extra):
    """Of one image's bands (band,): the mean excess, weighted as its scatter asks for."""
    excess = planes**2 - extra
    total = _mean(planes**2, good)
    if not (total > 0).all():
        return total
    # Units may make fluxes of any size: floors are relative.
    variance = np.maximum(_mean(excess, good), 1e-4 * total)
    for _ in range(_ROUNDS):
        weight = good / (variance[:, None, None] + extra) ** 2
        variance = np.maximum(_mean(excess, weight), 1e-2 * variance)
    return variance


def _slopes(planes, good, light):
    """Growth of the variance with the light, (band,)."""
    return np.array([_slope(planes[:, b], good[:, b], light[:, b]) for b in range(planes.shape[1])])


def _slope(planes, good, light):
    """Of one band: least squares in each image about its own level, weighted.

    The square of a normal deviate has a variance of twice its own mean squared; the weights are the inverse of that.
    """
    squares, slope = planes**2, 0.0
    total = variance = _mean(squares, good)
    for _ in range(_ROUNDS):
        weight = good / (variance[:, None, None] + slope * light) ** 2
        mean = _mean(light, weight)
        about = weight * (light - mean[:, None, None])
        power = np.vdot(about, light)
        # The weighted mean of what is summed with ``about`` plays no part: its own is zero.
        slope = max(np.vdot(about, squares) / power, 0.0) if power > 0 else 0.0
        variance = np.maximum(_mean(squares, weight) - slope * mean, 1e-4 * total)
    return slope


def _mean(values, weight):
    return np.einsum("...yx,...yx->...", values, weight) / np.maximum(weight.sum(axis=(-2, -1)), 1e-300)


def _cross(planes, good):
    """Correlation of two bands in the same pixel, over pixels that are good in both."""
    bands = planes.shape[1]
    flat, use = (a.transpose(1, 0, 2, 3).reshape(bands, -1) for a in (planes, good))
    use = use.astype(np.float64)
    covariance = (flat @ flat.T) / np.maximum(use @ use.T, 1)
    norm = np.sqrt(np.diag(covariance))
    return covariance / np.outer(norm, norm)


def _autocorrelation(planes, good, size):
    """Mean product of pixels at each lag, over pairs of which both are good, over that at lag zero."""
    from scipy import fft

    # Lags of twice the kernel, so that the spectrum is smooth and yet not cut short.
    reach = min(2 * size, (min(planes.shape[-2:]) - 1) // 2)
    shape = [fft.next_fast_len(n + reach, real=True) for n in planes.shape[-2:]]
    products = _lagged(planes, shape, reach)
    pairs = _lagged(good.astype(np.float64), shape, reach, same=bool(good.all()))
    if pairs.min() < 100:
        raise InputError(
            f"mask leaves {int(good.sum())} pixels in a band, too few to measure correlations; give more images"
        )
    covariance = products / pairs
    # Far lags hold nothing but their own error; a taper from a third of the reach on keeps it out of the spectrum.
    distance = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) / (reach + 1)
    taper = 0.5 * (1 + np.cos(np.pi * np.clip(1.5 * distance - 0.5, 0, 1)))
    return covariance / covariance[reach, reach] * taper


def _lagged(planes, shape, reach, same=False):
    """Sums over pixel pairs at lags up to ``reach``, (2 reach + 1, 2 reach + 1), over all planes."""
    from scipy import fft

    power = 0.0
    for plane in planes[:1] if same else planes:
        power = power + np.abs(fft.rfft2(plane, shape)) ** 2
    sums = fft.irfft2(power * (len(planes) if same else 1), shape)
    return np.roll(sums, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]


def spectrum_of_autocorrelation(acf):
    """Power spectrum on a grid fine enough for the kernel, negative parts set to zero."""
    n = 4 * acf.shape[-1] + 1
    half = acf.shape[-1] // 2
    padded = np.zeros((*acf.shape[:-2], n, n))
    padded[..., : acf.shape[-1], : acf.shape[-1]] = acf
    spectrum = np.fft.fft2(np.roll(padded, (-half, -half), (-2, -1))).real
    return np.maximum(spectrum, 0)


def kernel_of_spectrum(spectrum, size):
    """The zero-phase filter whose squared transform is the spectrum, cut to size."""
    filters = np.fft.fftshift(np.fft.ifft2(np.sqrt(spectrum)).real, axes=(-2, -1))
    middle, half = spectrum.shape[-1] // 2, size // 2
    return filters[..., middle - half : middle + half + 1, middle - half : middle + half + 1]


def filter_overlaps(kernels):
    """What filtering leaves of the correlation of two white planes, (band, band), for kernels of unit norm."""
    flat = kernels.reshape(len(kernels), -1)
    return flat @ flat.T


def latent_correlation(cross, kernels):
    """Correlation of white planes that, filtered, are correlated as ``cross``."""
    overlap = filter_overlaps(kernels)
    return nearest_correlation(cross / np.where(np.abs(overlap) < 0.1, np.inf, overlap))


def sampling_covariance(measured, kernels):
    """Covariance of the error of ``log(std)`` of one image, (band, band), from its pixels' correlations.

    For Gaussian noise the covariance of two mean squares is twice the sum over lags of the squared covariance, over
    the number of pixels; half a logarithm of a variance is that of a standard deviation.
    """
    from scipy.signal import fftconvolve

    latent = latent_correlation(measured.cross, kernels)
    bands = len(kernels)
    out = np.zeros((bands, bands))
    for b in range(bands):
        for c in range(b + 1):
            lags = latent[b, c] * fftconvolve(kernels[b], kernels[c][::-1, ::-1])
            out[b, c] = out[c, b] = (lags**2).sum() / (2 * measured.pixels)
    return out
