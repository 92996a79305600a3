"""White noise: independent from pixel to pixel, and what all noise backends share: levels, slopes and bands."""

from __future__ import annotations

import numpy as np

from astrogan.backends.classic._amplitudes import Amplitudes, matrix_root
from astrogan.backends.classic._random import standard_normal
from astrogan.exceptions import InputError

__all__ = ["WhiteNoise"]

_NEGLIGIBLE = 1e-3
"""Correlation between bands below which planes are drawn without any."""


class NoiseLevels:
    """Standard deviation, its scatter from image to image, its growth with the signal, and how bands go together.

    Parameters
    ----------
    sigma : float or array_like
        Standard deviation on blank sky: one number, or one per band.
    signal_slope : float or array_like, optional
        Growth of the variance with the signal, 1 / gain for photon noise: one number, or one per band.
    band_correlation : array_like, optional
        (band, band): correlation of the white planes of two bands, before any filter. Default: none.
    amplitudes : `Amplitudes`, optional
        Law of the standard deviation from image to image; it comes before ``sigma`` where noise is drawn.

    Raises
    ------
    InputError
        If a number is negative or not finite, or the correlation is none.
    """

    def __init__(self, sigma=1.0, *, signal_slope=None, band_correlation=None, amplitudes=None):
        self.sigma = checked_sigma(sigma)
        self.signal_slope = None if signal_slope is None else checked_sigma(signal_slope, "signal_slope")
        self.band_correlation = _checked_correlation(band_correlation)
        self.amplitudes = amplitudes

    def draw_sigma(self, bands, rng):
        """Standard deviations on blank sky for one image, drawn for all bands together.

        Parameters
        ----------
        bands : int
        rng : `numpy.random.Generator`

        Returns
        -------
        `numpy.ndarray`
            (band,); ``sigma`` itself where no scatter was learned.
        """
        if self.amplitudes is not None:
            return self.amplitudes.draw(bands, rng)
        if self.sigma.ndim and len(self.sigma) != bands:
            raise InputError(f"sigma has {len(self.sigma)} bands; the shape asks for {bands}")
        return np.broadcast_to(self.sigma, (bands,))

    def levels(self, shape, sigma, signal, rng):
        """Standard deviation of each pixel, float32, broadcasting to ``shape``."""
        level = spread_sigma(self.draw_sigma(shape[0], rng) if sigma is None else sigma, shape)
        if signal is None or self.signal_slope is None:
            return level
        signal = np.asarray(signal, np.float32)
        if signal.shape != shape:
            raise InputError(f"signal has shape {signal.shape}; it must be that of the noise, {shape}")
        if not np.isfinite(signal).all():
            raise InputError("signal holds NaN or inf; fill such pixels first (astrogan.image.mask.fill_invalid)")
        slope = spread_sigma(self.signal_slope, shape, "signal_slope")
        # In double precision: squares of fluxes in cgs units are no single-precision numbers.
        variance = level.astype(np.float64) ** 2 + slope * np.maximum(signal.astype(np.float64), 0)
        return np.sqrt(variance).astype(np.float32)

    def white(self, shape, rng):
        """Unit white noise, correlated between bands as those were."""
        return mixed(standard_normal(shape, rng), self.band_correlation)


class WhiteNoise(NoiseLevels):
    """Gaussian white noise.

    Parameters
    ----------
    sigma : float or array_like, optional
        Standard deviation where `sample` is given none: one number, or one per band.
    signal_slope : float or array_like, optional
        Growth of the variance with the signal (1 / gain for photon noise): one number, or one per band.
    band_correlation : array_like, optional
        (band, band): correlation of the noise in two bands. Default: none.
    amplitudes : object, optional
        Law of the standard deviation from image to image, as `fit` learns it.

    Raises
    ------
    InputError
        If a number is negative or not finite, or the correlation is none.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.backends.classic.white_noise import WhiteNoise
    >>> plane = WhiteNoise().sample((1, 200, 200), sigma=3.0, rng=np.random.default_rng(0))
    >>> plane.dtype, bool(abs(plane.std() - 3) < 0.05)
    (dtype('float32'), True)
    """

    @classmethod
    def fit(cls, images, mask=None, *, signal=None, law="auto"):
        """Learn levels, slope and correlation between bands; correlations between pixels are ignored.

        Parameters
        ----------
        images, mask, signal, law
            As in `~astrogan.backends.classic.correlated_noise.CorrelatedNoise.fit`.

        Returns
        -------
        WhiteNoise
        """
        from astrogan.backends.classic._noise_fit import measure, sampling_covariance

        measured = measure(images, mask, signal, size=1)
        kernels = np.ones((measured.stds.shape[1], 1, 1))
        return cls(
            measured.sigma,
            signal_slope=measured.slope if measured.by_band or measured.slope is None else measured.slope[0],
            band_correlation=measured.cross if measured.by_band else None,
            amplitudes=Amplitudes.fit(measured.stds, sampling_covariance(measured, kernels), law),
        )

    def sample(self, shape, *, sigma=None, signal=None, wcs=None, rng):
        """A noise field.

        Parameters
        ----------
        shape : tuple of int
            (band, y, x).
        sigma : float or array_like, optional
            Standard deviation on blank sky: a number, (band,) or (band, y, x). Default: the instance's.
        signal : array_like, optional
            Noise-free flux, (band, y, x); counts where there is a ``signal_slope``.
        wcs : optional
            Not used: white noise looks the same on all pixels.
        rng : `numpy.random.Generator`

        Returns
        -------
        `numpy.ndarray`
            float32.
        """
        shape = checked_shape(shape)
        field = self.white(shape, rng)
        field *= self.levels(shape, sigma, signal, rng)
        return field


def checked_shape(shape):
    """``shape`` as (band, y, x)."""
    shape = tuple(int(n) for n in shape)
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape={shape!r} must be (band, y, x) with no empty axis")
    return shape


def checked_sigma(sigma, name="sigma"):
    """``sigma`` as a non-negative float64 array."""
    try:
        array = np.asarray(sigma, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}={sigma!r} must be a number or an array of numbers") from error
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise InputError(f"{name}={sigma!r} must be finite and not negative")
    return array


def spread_sigma(sigma, shape, name="sigma"):
    """``sigma`` as float32 that broadcasts to (band, y, x)."""
    sigma = checked_sigma(sigma, name)
    if sigma.shape == (shape[0],):
        sigma = sigma[:, np.newaxis, np.newaxis]
    if sigma.shape not in ((), (shape[0], 1, 1), shape):
        raise InputError(f"{name} has shape {sigma.shape}; it must be a number, ({shape[0]},) or {shape}")
    return sigma.astype(np.float32)


def mixed(white, correlation):
    """Independent planes (band, y, x) as planes whose bands are correlated."""
    if correlation is None:
        return white
    if len(correlation) != len(white):
        raise InputError(f"band_correlation has {len(correlation)} bands; the shape asks for {len(white)}")
    return np.einsum("bc,cyx->byx", matrix_root(correlation).astype(np.float32), white)


def _checked_correlation(correlation):
    """As a float64 array, or `None` where it is of no account."""
    if correlation is None:
        return None
    array = np.asarray(correlation, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not np.isfinite(array).all():
        raise InputError(f"band_correlation has shape {array.shape}; it must be (band, band) and finite")
    if np.abs(array - array.T).max() > 1e-6 or np.abs(np.diag(array) - 1).max() > 1e-6:
        raise InputError(f"band_correlation={array.tolist()} must be symmetric with ones on its diagonal")
    if np.linalg.eigvalsh(array).min() < -1e-6:
        raise InputError(f"band_correlation={array.tolist()} has a negative eigenvalue: no planes are correlated so")
    return array if np.abs(array - np.eye(len(array))).max() > _NEGLIGIBLE else None
