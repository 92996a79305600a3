"""Noise with a correlation between neighbouring pixels, as resampled and stacked images have, in closed form."""

from __future__ import annotations

import numpy as np

from astrogan.backends.classic._random import standard_normal
from astrogan.backends.classic.white_noise import checked_shape, checked_sigma, spread_sigma
from astrogan.exceptions import InputError

__all__ = ["CorrelatedNoise"]

_STACK = ((0.05, 0.2, 0.05), (0.2, 1.0, 0.2), (0.05, 0.2, 0.05))
"""Neighbours correlated by 0.39 and 0.14 (diagonally): about what bilinear or Lanczos resampling leaves in a stack."""


class CorrelatedNoise:
    """Gaussian noise made by convolving white noise with a small kernel.

    Any stationary Gaussian noise is its power spectrum, and white noise convolved with a kernel has the squared
    transform of the kernel for one. The kernel is normalised to unit sum of squares, so the standard deviation is
    ``sigma`` exactly in expectation, at every pixel: the noise is drawn with a margin, no boundary comes in.

    Parameters
    ----------
    kernel : array_like, optional
        (k, k), or (band, k, k) for a kernel per band, k odd; of any normalisation. Default: a 3 x 3 kernel that is
        typical of a resampled stack.
    autocorrelation : array_like, optional
        Instead of a kernel: correlation coefficients, (k, k) or (band, k, k), k odd, centred, point-symmetric.
        Negative parts of its power spectrum are set to zero, which changes a correlation that cannot be.
    sigma : float or array_like, optional
        Standard deviation where `sample` is given none: one number, or one per band.

    Attributes
    ----------
    kernel : `numpy.ndarray`
        (k, k) or (band, k, k), float64, sum of squares 1.
    sigma : `numpy.ndarray`
        () or (band,).

    Raises
    ------
    InputError
        If a kernel or autocorrelation has a wrong shape or is all zero, or both are given.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.backends.classic.correlated_noise import CorrelatedNoise
    >>> noise = CorrelatedNoise(kernel=np.ones((3, 3)))
    >>> noise.autocorrelation(1)[1].round(3).tolist()
    [0.667, 1.0, 0.667]
    """

    def __init__(self, kernel=None, *, autocorrelation=None, sigma=1.0):
        if kernel is not None and autocorrelation is not None:
            raise InputError("autocorrelation must be None when kernel is given: each determines the other")
        if autocorrelation is not None:
            acf = _checked_kernel(autocorrelation, "autocorrelation")
            kernel = _kernel_of_spectrum(_spectrum_of_autocorrelation(acf), acf.shape[-1])
        self.kernel = _normalised(_checked_kernel(_STACK if kernel is None else kernel, "kernel"))
        self.sigma = checked_sigma(sigma)

    @classmethod
    def fit(cls, images, mask=None, *, size=7):
        """Learn kernel and sigma from images of empty sky.

        The kernel is the transform of the square root of the mean power spectrum, cut to ``size``: the shortest
        symmetric filter that makes noise of that spectrum from white noise.

        Parameters
        ----------
        images : array_like
            (y, x), (n, y, x) or (n, band, y, x): sky, background subtracted or not (each plane's mean is).
        mask : array_like of bool, optional
            True where a pixel is not sky (sources, defects); same shape as ``images``. Masked pixels are left out
            of the mean products of neighbours that the spectrum is made of.
        size : int
            Odd edge of the kernel in pixels.

        Returns
        -------
        CorrelatedNoise
            With a kernel and a sigma a band where ``images`` has bands, else one of each.

        Raises
        ------
        InputError
            If shapes do not agree, images are smaller than 2 ``size`` pixels, or too few pixels are unmasked.
        """
        images = np.asarray(images, dtype=np.float64)
        if images.ndim not in (2, 3, 4) or min(images.shape[-2:]) < 2 * size:
            raise InputError(
                f"images has shape {images.shape}; it must be (y, x), (n, y, x) or (n, band, y, x) with at least "
                f"{2 * size} pixels along y and x"
            )
        if not isinstance(size, int | np.integer) or size < 1 or size % 2 == 0:
            raise InputError(f"size={size!r} must be an odd number of pixels, e.g. 7")
        bad = np.zeros(images.shape, bool) if mask is None else np.asarray(mask, bool)
        if bad.shape != images.shape:
            raise InputError(f"mask has shape {bad.shape}; it must be that of images, {images.shape}")
        bad = bad | ~np.isfinite(images)
        stacks = _per_band(images, bad)
        fits = [_fit_band(planes, weights, size) for planes, weights in stacks]
        kernels, sigmas = np.stack([k for k, _ in fits]), np.array([s for _, s in fits])
        return cls(kernels, sigma=sigmas) if images.ndim == 4 else cls(kernels[0], sigma=sigmas[0])

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
        if self.kernel.ndim == 3 and len(self.kernel) not in (1, shape[0]):
            raise InputError(f"kernel has {len(self.kernel)} bands, shape={shape} asks for {shape[0]}")
        margin = self.kernel.shape[-1] - 1
        white = standard_normal((shape[0], shape[1] + margin, shape[2] + margin), rng)
        field = _filtered(white, self.kernel, shape)
        field *= spread_sigma(self.sigma if sigma is None else sigma, shape)
        return field

    def autocorrelation(self, reach=None):
        """Correlation coefficients (2 reach + 1, 2 reach + 1), or (band, ...), that the kernel gives the noise.

        Parameters
        ----------
        reach : int, optional
            Largest lag in pixels. Default: the kernel's, beyond which the noise is uncorrelated.

        Returns
        -------
        `numpy.ndarray`
            1 in the middle.
        """
        from scipy.signal import correlate

        kernels = self.kernel.reshape(-1, *self.kernel.shape[-2:])
        full = np.stack([correlate(k, k, mode="full", method="direct") for k in kernels])
        half = full.shape[-1] // 2
        reach = half if reach is None else int(reach)
        if reach <= half:
            full = full[:, half - reach : half + reach + 1, half - reach : half + reach + 1]
        else:
            full = np.pad(full, ((0, 0), (reach - half,) * 2, (reach - half,) * 2))
        return full if self.kernel.ndim == 3 else full[0]


def _checked_kernel(kernel, name):
    kernel = np.asarray(kernel, dtype=np.float64)
    if kernel.ndim not in (2, 3) or kernel.shape[-1] != kernel.shape[-2] or kernel.shape[-1] % 2 == 0:
        raise InputError(f"{name} has shape {kernel.shape}; it must be (k, k) or (band, k, k) with k odd")
    if not np.isfinite(kernel).all() or not (np.abs(kernel).sum(axis=(-2, -1)) > 0).all():
        raise InputError(f"{name} must be finite and not all zero")
    return kernel


def _normalised(kernel):
    return kernel / np.sqrt((kernel**2).sum(axis=(-2, -1), keepdims=True))


def _spectrum_of_autocorrelation(acf):
    """Power spectrum on a grid fine enough for the kernel, negative parts set to zero."""
    n = 4 * acf.shape[-1] + 1
    half = acf.shape[-1] // 2
    padded = np.zeros((*acf.shape[:-2], n, n))
    padded[..., : acf.shape[-1], : acf.shape[-1]] = acf
    spectrum = np.fft.fft2(np.roll(padded, (-half, -half), (-2, -1))).real
    return np.maximum(spectrum, 0)


def _kernel_of_spectrum(spectrum, size):
    """The zero-phase filter whose squared transform is the spectrum, cut to size."""
    filters = np.fft.fftshift(np.fft.ifft2(np.sqrt(spectrum)).real, axes=(-2, -1))
    middle, half = spectrum.shape[-1] // 2, size // 2
    return filters[..., middle - half : middle + half + 1, middle - half : middle + half + 1]


def _per_band(images, bad):
    """For each band, planes (n, y, x) and where they are good; a mean is taken off each plane."""
    if images.ndim == 2:
        images, bad = images[np.newaxis], bad[np.newaxis]
    if images.ndim == 3:
        images, bad = images[:, np.newaxis], bad[:, np.newaxis]
    good = ~bad
    count = np.maximum(good.sum(axis=(-2, -1), keepdims=True), 1)
    mean = np.where(good, images, 0).sum(axis=(-2, -1), keepdims=True) / count
    planes = np.where(good, images - mean, 0)
    return [(planes[:, band], good[:, band]) for band in range(planes.shape[1])]


def _fit_band(planes, good, size):
    """Kernel and sigma from the mean product of pixels at each lag, over pairs of which both are good."""
    from scipy import fft

    # Lags of twice the kernel, so that the spectrum is smooth and yet not cut short.
    reach = min(2 * size, (min(planes.shape[-2:]) - 1) // 2)
    shape = [fft.next_fast_len(n + reach, real=True) for n in planes.shape[-2:]]
    products = _lagged(planes, shape, reach)
    pairs = _lagged(good.astype(np.float64), shape, reach)
    if pairs.min() < 100:
        raise InputError(
            f"mask leaves {int(good.sum())} pixels in a band, too few to measure correlations; give more images"
        )
    covariance = products / pairs
    variance = covariance[reach, reach]
    if not variance > 0:
        raise InputError("images are constant in a band: there is no noise to learn")
    # Far lags hold nothing but their own error; a taper keeps it out of the spectrum.
    distance = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) / (reach + 1)
    taper = np.where(distance < 1, 0.5 * (1 + np.cos(np.pi * np.minimum(distance, 1))), 0.0)
    spectrum = _spectrum_of_autocorrelation(covariance * np.sqrt(taper))
    return _kernel_of_spectrum(spectrum, size), np.sqrt(variance)


def _lagged(planes, shape, reach):
    """Sums over pixel pairs at lags up to ``reach``, (2 reach + 1, 2 reach + 1), over all planes."""
    from scipy import fft

    total = np.zeros((2 * reach + 1, 2 * reach + 1))
    for plane in planes:
        sums = fft.irfft2(np.abs(fft.rfft2(plane, shape)) ** 2, shape)
        total += np.roll(sums, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    return total


def _filtered(white, kernel, shape):
    """Valid part of the convolution of (band, y + k - 1, x + k - 1)."""
    from scipy.ndimage import convolve

    half = kernel.shape[-1] // 2
    out = np.empty(shape, np.float32)
    for band, plane in enumerate(white):
        one = kernel if kernel.ndim == 2 else kernel[band % len(kernel)]
        inside = slice(half, half + shape[1]), slice(half, half + shape[2])
        out[band] = convolve(plane, one, mode="constant")[inside]
    return out
