"""Agreement and power by spatial frequency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import InputError
from astrogan.metrics._checks import as_masked, as_pair, by_band

__all__ = [
    "RingCorrelation",
    "fourier_ring_correlation",
    "power_spectrum",
    "power_spectrum_2d",
    "power_spectrum_ratio",
]


@dataclass(frozen=True)
class RingCorrelation:
    """Correlation of two images in rings of spatial frequency.

    Parameters
    ----------
    frequency : `numpy.ndarray`
        Mean frequency of each ring, in cycles per pixel, shape (ring,).
    correlation : `numpy.ndarray`
        Between -1 and 1, shape (ring,) or (band, ring); NaN where an image has no power.
    threshold : `numpy.ndarray`
        Criterion, shape (ring,).
    resolution : float or `numpy.ndarray`
        Period (pixels a cycle) at which the correlation first falls below the threshold; 2, that of the Nyquist
        frequency, where it never does, and infinite where it starts below. Shape () or (band,).
    """

    frequency: np.ndarray
    correlation: np.ndarray
    threshold: np.ndarray
    resolution: float | np.ndarray


def fourier_ring_correlation(truth, image, *, criterion="1/7", window="hann", mask=None):
    r"""Fourier ring correlation of two images, and the resolution at which they cease to agree.

    Parameters
    ----------
    truth, image : array_like
        Of one shape, (y, x) or (band, y, x): two independent images of one field, or a reference and a result.
    criterion : {"1/7", "half-bit"} or float, optional
        Threshold. Both named ones are made for two images of equal noise; against a reference without noise 0.5
        stands for a signal-to-noise ratio of one third.
    window : {"hann", None}, optional
        Taper against the jump between opposite borders.
    mask : array_like of bool, optional
        True where a pixel is left out: it takes the mean of the others. A masked area is equal in both images, so a
        large one raises the correlation.

    Returns
    -------
    `RingCorrelation`

    Raises
    ------
    InputError
        If shapes differ, an option is unknown, or a pixel that is not masked is not finite.

    Notes
    -----
    :math:`\mathrm{FRC}(k) = \sum \mathrm{Re}(A B^*) / \sqrt{\sum |A|^2 \sum |B|^2}`, sums over the ring k. Rings are as
    wide as the shorter axis resolves and end at the Nyquist frequency. The half-bit curve counts the independent
    values in a ring: half of its pixels, times :math:`(\sum w^2)^2 / (N \sum w^4)` for a window w.

    References
    ----------
    Saxton, W. O., Baumeister, W. 1982, J. Microscopy 127, 127; van Heel, M., Schatz, M. 2005, J. Struct. Biol. 151,
    250, eq. 17 (half-bit); Rosenthal, P. B., Henderson, R. 2003, J. Mol. Biol. 333, 721 (1/7); Nieuwenhuizen, R. P. J.
    et al. 2013, Nature Methods 10, 557.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import fourier_ring_correlation
    >>> image = np.random.default_rng(1).normal(size=(64, 64))
    >>> result = fourier_ring_correlation(image, 3 * image + 1)
    >>> round(float(result.correlation.min()), 6), result.resolution
    (1.0, 2.0)
    """
    truth, image, mask = as_pair(truth, image, mask)
    rings = _Rings(truth.shape[-2:])
    taper = _taper(window, truth.shape[-2:])
    truth, undo = by_band(truth)
    image, mask = image.reshape(truth.shape), mask.reshape(truth.shape)
    correlation = []
    for t, i, m in zip(truth, image, mask, strict=True):
        a, b = _transform(t, m, taper), _transform(i, m, taper)
        cross = rings.sum((a * b.conj()).real)
        power = np.sqrt(rings.sum(np.abs(a) ** 2) * rings.sum(np.abs(b) ** 2))
        correlation.append(np.divide(cross, power, out=np.full(cross.shape, np.nan), where=power > 0))
    threshold = _threshold(criterion, rings.count / 2 * _independent(taper))
    resolution = undo(np.array([_crossing(rings.frequency, c, threshold) for c in correlation]))
    resolution = float(resolution) if np.ndim(resolution) == 0 else resolution
    return RingCorrelation(rings.frequency, undo(np.array(correlation)), threshold, resolution)


def power_spectrum(image, *, window="hann", mask=None):
    r"""Power averaged over rings of spatial frequency.

    Parameters
    ----------
    image : array_like
        (y, x) or (band, y, x).
    window, mask
        As for `fourier_ring_correlation`.

    Returns
    -------
    frequency : `numpy.ndarray`
        Mean frequency of each ring in cycles per pixel, shape (ring,), up to the Nyquist frequency.
    power : `numpy.ndarray`
        Shape (ring,) or (band, ring), in the image's unit squared.

    Raises
    ------
    InputError
        If a shape or option cannot be used, or a pixel that is not masked is not finite.

    Notes
    -----
    :math:`P(k) = \langle |\mathcal{F}[w (I - \bar I)]|^2 \rangle / \sum w^2` with window w and the mean weighted by
    :math:`w`, so that white noise has :math:`P = \sigma^2` at every k.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import power_spectrum
    >>> noise = np.random.default_rng(1).normal(scale=3, size=(256, 256))
    >>> frequency, power = power_spectrum(noise)
    >>> round(float(power[10:].mean()))
    9
    """
    image, mask = as_masked(image, mask)
    rings = _Rings(image.shape[-2:])
    power = power_spectrum_2d(image, window=window, mask=mask)
    power, undo = by_band(power)
    return rings.frequency, undo(np.array([rings.sum(p) / rings.count for p in power]))


def power_spectrum_2d(image, *, window="hann", mask=None):
    """Power by (ky, kx), in the order of `numpy.fft.fft2` and the norm of `power_spectrum`.

    Artefacts of a network or of a detector often sit on the axes, kx = 0 or ky = 0, where a mean over rings hides
    them.

    Parameters
    ----------
    image : array_like
        (y, x) or (band, y, x).
    window, mask
        As for `fourier_ring_correlation`.

    Returns
    -------
    `numpy.ndarray`
        Of the image's shape, in its unit squared.

    Raises
    ------
    InputError
        If a shape or option cannot be used, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import power_spectrum_2d
    >>> image = np.cos(2 * np.pi * 4 * np.arange(32) / 32) + np.zeros((32, 1))
    >>> np.unravel_index(power_spectrum_2d(image, window=None).argmax(), image.shape)
    (np.int64(0), np.int64(4))
    """
    image, mask = as_masked(image, mask)
    taper = _taper(window, image.shape[-2:])
    image, undo = by_band(image)
    mask = mask.reshape(image.shape)
    power = [np.abs(_transform(band, bad, taper)) ** 2 for band, bad in zip(image, mask, strict=True)]
    return undo(np.array(power) / (taper**2).sum())


def power_spectrum_ratio(truth, image, *, window="hann", mask=None):
    """Power of an image over that of the truth, by spatial frequency: below 1 blur, above 1 noise or invention.

    Parameters
    ----------
    truth, image : array_like
        Of one shape, (y, x) or (band, y, x).
    window, mask
        As for `fourier_ring_correlation`.

    Returns
    -------
    frequency : `numpy.ndarray`
        In cycles per pixel, shape (ring,).
    ratio : `numpy.ndarray`
        Shape (ring,) or (band, ring); NaN where the truth has no power.

    Raises
    ------
    InputError
        If shapes differ, an option is unknown, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import power_spectrum_ratio
    >>> image = np.random.default_rng(1).normal(size=(64, 64))
    >>> frequency, ratio = power_spectrum_ratio(image, 2 * image)
    >>> bool(np.allclose(ratio, 4))
    True
    """
    truth, image, mask = as_pair(truth, image, mask)
    frequency, before = power_spectrum(truth, window=window, mask=mask)
    after = power_spectrum(image, window=window, mask=mask)[1]
    return frequency, np.divide(after, before, out=np.full(before.shape, np.nan), where=before > 0)


class _Rings:
    """Rings of equal width in cycles per pixel, the zero frequency and the corners beyond Nyquist left out."""

    def __init__(self, shape):
        if min(shape) < 4:
            raise InputError(f"image is {shape[0]} x {shape[1]} pixels; spatial frequencies need at least 4 each way")
        k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
        width = 1 / min(shape)
        self._n = min(shape) // 2
        self._index = np.floor(k / width + 0.5).astype(int) - 1
        self._index[(self._index < 0) | (self._index >= self._n) | (k > 0.5 + 1e-12)] = self._n
        self.count = np.bincount(self._index.ravel(), minlength=self._n + 1)[: self._n]
        self.frequency = self.sum(k) / self.count

    def sum(self, values):
        return np.bincount(self._index.ravel(), values.ravel(), minlength=self._n + 1)[: self._n]


def _taper(window, shape):
    if window is None:
        return np.ones(shape)
    if window != "hann":
        raise InputError(f"window={window!r} must be 'hann' or None")
    # Periodic form, half a pixel in, so that no pixel has weight zero.
    y, x = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in shape)
    return y[:, None] * x


def _independent(taper):
    """Part of the transform's values that a window leaves independent of one another."""
    return (taper**2).sum() ** 2 / (taper.size * (taper**4).sum())


def _transform(band, mask, taper):
    """Transform of the tapered image about its (tapered) mean, masked pixels at that mean."""
    weight = np.where(mask, 0, taper)
    total = weight.sum()
    mean = (weight * band).sum() / total if total > 0 else 0.0
    return np.fft.fft2(weight * (band - mean))


def _threshold(criterion, count):
    if isinstance(criterion, str):
        if criterion == "1/7":
            return np.full(len(count), 1 / 7)
        if criterion == "half-bit":
            root = np.sqrt(np.maximum(count, 1))
            return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)
    elif np.ndim(criterion) == 0 and 0 < criterion < 1:
        return np.full(len(count), float(criterion))
    raise InputError(f"criterion={criterion!r} must be '1/7', 'half-bit' or a number between 0 and 1")


def _crossing(frequency, correlation, threshold):
    """Period at which the correlation first falls below the threshold, linear between rings."""
    above = correlation - threshold
    below = np.flatnonzero(~(above >= 0))
    if not below.size:
        return 2.0
    k = below[0]
    if k == 0 or np.isnan(above[k]):
        return np.inf if k == 0 else 1 / frequency[k - 1]
    step = above[k - 1] / (above[k - 1] - above[k])
    return 1 / (frequency[k - 1] + step * (frequency[k] - frequency[k - 1]))
