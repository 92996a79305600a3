"""Noise with a correlation between neighbouring pixels, as resampled and stacked images have, in closed form."""

from __future__ import annotations

import numpy as np

from astrogan.backends.classic._amplitudes import Amplitudes
from astrogan.backends.classic._noise_fit import (
    kernel_of_spectrum,
    latent_correlation,
    measure,
    sampling_covariance,
    spectrum_of_autocorrelation,
)
from astrogan.backends.classic.white_noise import NoiseLevels, checked_shape
from astrogan.exceptions import InputError

__all__ = ["CorrelatedNoise"]

_STACK = ((0.05, 0.2, 0.05), (0.2, 1.0, 0.2), (0.05, 0.2, 0.05))
"""Neighbours correlated by 0.39 and 0.14 (diagonally): about what bilinear or Lanczos resampling leaves in a stack."""


class CorrelatedNoise(NoiseLevels):
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
    signal_slope : float or array_like, optional
        Growth of the variance with the signal (1 / gain for photon noise): one number, or one per band.
    band_correlation : array_like, optional
        (band, band): correlation of the white planes of two bands, before they are filtered. Default: none.
    amplitudes : object, optional
        Law of the standard deviation from image to image, as `fit` learns it.

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

    Notes
    -----
    The noise emulator of Lin et al. (2021, arXiv:2101.07389) is of this form, with a symmetric 7 x 7 kernel and an
    amplitude for each band and image; they learn it by contest, here it is measured.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.backends.classic.correlated_noise import CorrelatedNoise
    >>> noise = CorrelatedNoise(kernel=np.ones((3, 3)))
    >>> noise.autocorrelation(1)[1].round(3).tolist()
    [0.667, 1.0, 0.667]
    """

    def __init__(
        self,
        kernel=None,
        *,
        autocorrelation=None,
        sigma=1.0,
        signal_slope=None,
        band_correlation=None,
        amplitudes=None,
    ):
        if kernel is not None and autocorrelation is not None:
            raise InputError("autocorrelation must be None when kernel is given: each determines the other")
        if autocorrelation is not None:
            acf = _checked_kernel(autocorrelation, "autocorrelation")
            kernel = kernel_of_spectrum(spectrum_of_autocorrelation(acf), acf.shape[-1])
        self.kernel = _normalised(_checked_kernel(_STACK if kernel is None else kernel, "kernel"))
        super().__init__(sigma, signal_slope=signal_slope, band_correlation=band_correlation, amplitudes=amplitudes)

    @classmethod
    def fit(cls, images, mask=None, *, signal=None, size=7, law="auto"):
        """Learn kernel, levels, slope and correlation between bands from images.

        The kernel is the transform of the square root of the mean power spectrum, cut to ``size``: the shortest
        symmetric filter that makes noise of that spectrum from white noise. From two images on, the standard
        deviation of each is taken as drawn from a law that the bands share (see ``law``), and drawn anew by `sample`.

        Parameters
        ----------
        images : array_like
            (y, x), (n, y, x) or (n, band, y, x): sky, background subtracted or not (each plane's mean is).
        mask : array_like of bool, optional
            True where a pixel is not sky (sources, defects); same shape as ``images``. Masked pixels are left out
            of the mean products of neighbours that the spectrum is made of.
        signal : array_like, optional
            The same images without noise, where they are known (a simulation) or modelled; same shape. They are
            taken off, and the growth of the variance with them is ``signal_slope``.
        size : int
            Odd edge of the kernel in pixels.
        law : {'auto', 'log-normal', 'empirical'}
            Of the standard deviation from image to image. 'auto': log-normal, unless a test at the 1 % level finds
            that it is not. Either way the bands are correlated as they were.

        Returns
        -------
        CorrelatedNoise
            With a kernel and a sigma a band where ``images`` has bands, else one of each.

        Raises
        ------
        InputError
            If shapes do not agree, images are smaller than 2 ``size`` pixels, or too few pixels are unmasked.
        """
        if not isinstance(size, int | np.integer) or size < 1 or size % 2 == 0:
            raise InputError(f"size={size!r} must be an odd number of pixels, e.g. 7")
        measured = measure(images, mask, signal, size)
        kernels = _normalised(kernel_of_spectrum(spectrum_of_autocorrelation(measured.autocorrelation), size))
        return cls(
            kernels if measured.by_band else kernels[0],
            sigma=measured.sigma,
            signal_slope=measured.slope if measured.by_band or measured.slope is None else measured.slope[0],
            band_correlation=latent_correlation(measured.cross, kernels) if measured.by_band else None,
            amplitudes=Amplitudes.fit(measured.stds, sampling_covariance(measured, kernels), law),
        )

    def sample(self, shape, *, sigma=None, signal=None, wcs=None, rng):
        """A noise field.

        Parameters
        ----------
        shape : tuple of int
            (band, y, x).
        sigma : float or array_like, optional
            Standard deviation on blank sky: a number, (band,) or (band, y, x). Default: the instance's, drawn where
            it varies from image to image.
        signal : array_like, optional
            Noise-free flux, (band, y, x); counts where there is a ``signal_slope``.
        wcs : optional
            Not used: the kernel is in pixels. The backend ``galsim`` uses it.
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
        white = self.white((shape[0], shape[1] + margin, shape[2] + margin), rng)
        field = _filtered(white, self.kernel, shape)
        field *= self.levels(shape, sigma, signal, rng)
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
