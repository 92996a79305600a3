"""Does a restored image, seen through the PSF again, agree with what was observed?"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import fft, ndimage, stats

from astrogan.api import Observation
from astrogan.exceptions import InputError
from astrogan.image.mask import RestorationFlag, restoration_flags

__all__ = ["Diagnostics", "diagnose"]

_SMOOTHING = 2.0
_IMPROBABLE = 1e-5


@dataclass(frozen=True)
class Diagnostics:
    """The reconvolution check of a restored image.

    Attributes
    ----------
    residual : `numpy.ndarray`
        (PSF (*) restored - observed) / sigma, shape (band, y, x); 0 where a pixel is invalid.
    chi2 : `numpy.ndarray`
        Local reduced chi^2: the squared residual averaged over valid pixels with a Gaussian of 2 pixels,
        (band, y, x); NaN where no valid pixel is near.
    reduced_chi2 : float
        Mean squared residual of all valid pixels further than ``border`` from the edge; near 1 for an image that
        fits. A little less is expected, because parameters were fitted; much less means that noise was fitted or that
        the variance is too large. NaN where there is no such pixel.
    reduced_chi2_per_band : tuple of float
        The same for each band.
    flags : `numpy.ndarray` of bool
        Where ``chi2`` is improbably high, (band, y, x); see ``threshold``.
    threshold : float
        Local reduced chi^2 that Gaussian noise alone exceeds in a pixel with a probability of 1e-5. Beside edges and
        masks, where fewer pixels are averaged, flags need more, for the same probability.
    border : int
        Pixels along the edges left out of the totals and the flags: the radius of the PSF.
    bands : tuple of str
        Names of the bands.
    out_of_range : float, optional
        How far the image lies outside what a learned method was trained on, as the logarithm of a factor: 0 inside,
        0.41 at a factor 1.5. `None` for classic methods.
    variance_estimated : bool
        The image came without an uncertainty. Its noise was measured on the image itself and is that of the sky, so
        that bright sources, which have photon noise besides, show a larger chi^2 than they should.
    flag_bits : `numpy.ndarray` of uint8, optional
        Bits of `~astrogan.image.mask.RestorationFlag`, (band, y, x): ``flags`` as INCONSISTENT, and what the input and
        the method say of each pixel.
    ensemble_spread : `numpy.ndarray`, optional
        Scatter of the restorations of the turned and mirrored image, (band, y, x), in the image's unit; `None` unless
        it was asked for and the method has it. Where it is far above the uncertainty the detail is the method's own.

    Notes
    -----
    This finds what contradicts the data: lost or invented flux, wrong PSFs, ringing on bright stars. It cannot find
    invention that the PSF hides: any structure finer than the PSF passes may be added without a change of the
    residual. A low chi^2 is necessary for a good restoration, never sufficient.
    """

    residual: np.ndarray
    chi2: np.ndarray
    reduced_chi2: float
    reduced_chi2_per_band: tuple[float, ...]
    flags: np.ndarray
    threshold: float
    border: int
    bands: tuple[str, ...] = field(default=())
    out_of_range: float | None = None
    variance_estimated: bool = False
    flag_bits: np.ndarray | None = None
    ensemble_spread: np.ndarray | None = None

    def summary(self) -> str:
        """A line or two: total, per band, part of the pixels flagged, and what a learned method says of itself."""
        text = f"reduced chi2 {self.reduced_chi2:.3f}"
        if len(self.bands) > 1:
            each = zip(self.bands, self.reduced_chi2_per_band, strict=True)
            text += " (" + ", ".join(f"{band} {value:.3f}" for band, value in each) + ")"
        text += f"; {100 * self.flags.mean():.2f} % of the pixels above local chi2 {self.threshold:.2f}"
        if self.variance_estimated:
            text += "; noise estimated from the image"
        if self.out_of_range is not None:
            text += f"; out of range {self.out_of_range:.2f}"
        for bit, part in self._parts_flagged():
            text += f"; {part} of the pixels {bit.name.lower().replace('_', ' ')}"
        if self.ensemble_spread is not None:
            text += f"; ensemble spread {np.median(self.ensemble_spread):.3g} (median), "
            text += f"{self.ensemble_spread.max():.3g} (largest)"
        return text

    def _parts_flagged(self):
        """The bits that are set anywhere, but for the one that `flags` shows, with the part of the pixels."""
        if self.flag_bits is None:
            return
        for bit in RestorationFlag:
            part = np.mean((self.flag_bits & int(bit)) != 0)
            if part > 0 and bit != RestorationFlag.INCONSISTENT:
                yield bit, f"{100 * part:.2g} %"

    def __str__(self):
        return self.summary()

    def _repr_html_(self):
        from astrogan.operators._html import html_table, paragraph

        columns = {
            "band": self.bands,
            "reduced chi2": (f"{value:.3f}" for value in self.reduced_chi2_per_band),
            "flagged": (f"{100 * value:.2f} %" for value in self.flags.mean(axis=(1, 2))),
        }
        if self.ensemble_spread is not None:
            columns["ensemble spread (median)"] = (f"{np.median(plane):.3g}" for plane in self.ensemble_spread)
        return html_table(columns) + paragraph(self.summary())


def diagnose(observed: Observation, restored, psf=None) -> Diagnostics:
    """Convolve a restored image with the PSF and compare it with the observation.

    Parameters
    ----------
    observed : `~astrogan.api.Observation`
        What the restoration started from. Without a variance, the noise of each band is taken as constant and measured
        as the robust scatter of mixed second differences.
    restored : array_like
        The restored image, (band, y, x), in the observation's unit.
    psf : array_like, optional
        (band, k, k) or (k, k). Default: the observation's; without that, none (the image was denoised only).

    Returns
    -------
    Diagnostics
        Maps and totals.

    Raises
    ------
    InputError
        If shapes do not fit, ``restored`` is not finite in a valid pixel, or a band without variance shows no noise.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import Observation
    >>> sky = np.random.default_rng(3).normal(size=(1, 64, 64))
    >>> observed = Observation(sky, variance=np.ones_like(sky))
    >>> report = diagnose(observed, np.zeros_like(sky))
    >>> bool(abs(report.reduced_chi2 - 1) < 0.1), bool(report.flags.any())
    (True, False)
    """
    data, valid = observed.data, observed.valid
    restored = np.asarray(restored, np.float64)
    if restored.shape != data.shape:
        raise InputError(f"restored has shape {restored.shape}; it must be that of the observation, {data.shape}")
    if not np.isfinite(restored[valid]).all():
        raise InputError("restored holds NaN or inf in valid pixels; mask them in the observation first")
    psf = _kernels(observed.psf if psf is None else psf, len(data))
    variance, estimated = _variance(observed)

    residual = np.zeros(data.shape)
    for band, plane in enumerate(np.where(np.isfinite(restored), restored, 0)):
        seen = plane if psf is None else _convolve(plane, psf[band])
        np.divide(seen - data[band], np.sqrt(variance[band]), out=residual[band], where=valid[band])

    chi2, high = _local_chi2(residual, valid)
    border = 0 if psf is None else psf.shape[-1] // 2
    inside = np.zeros(data.shape, bool)
    inside[:, border : data.shape[1] - border, border : data.shape[2] - border] = True
    inside &= valid
    flag_bits = restoration_flags(valid, psf)
    flag_bits[inside & high] |= np.uint8(RestorationFlag.INCONSISTENT)
    return Diagnostics(
        residual=residual.astype(np.float32),
        chi2=chi2.astype(np.float32),
        reduced_chi2=_mean(residual[inside] ** 2),
        reduced_chi2_per_band=tuple(_mean(r[i] ** 2) for r, i in zip(residual, inside, strict=True)),
        flags=inside & high,
        threshold=float(_threshold()),
        border=border,
        bands=observed.bands,
        variance_estimated=estimated,
        flag_bits=flag_bits,
    )


def _mean(values):
    return float(values.mean()) if values.size else float("nan")


def _kernels(psf, n_bands):
    """(band, k, k) float64 of sum one, or None."""
    if psf is None:
        return None
    psf = np.asarray(psf, np.float64)
    psf = np.broadcast_to(psf, (n_bands, *psf.shape)) if psf.ndim == 2 else psf
    if psf.ndim != 3 or len(psf) != n_bands or psf.shape[1] != psf.shape[2] or psf.shape[1] % 2 == 0:
        raise InputError(f"psf has shape {psf.shape}; it must be ({n_bands}, k, k) with k odd")
    total = psf.sum(axis=(1, 2), keepdims=True)
    if not (np.isfinite(total).all() and (total > 0).all()):
        raise InputError(f"psf sums to {total.ravel()}; each band must have a positive sum")
    return psf / total


def _convolve(plane, kernel):
    """Convolution with the reflecting boundary."""
    reach = len(kernel) // 2
    wide = np.pad(plane, reach, mode="symmetric")
    shape = [fft.next_fast_len(n, real=True) for n in wide.shape]
    spectrum = fft.rfft2(wide, shape) * fft.rfft2(kernel, shape)
    rows, columns = (slice(2 * reach, 2 * reach + n) for n in plane.shape)
    return fft.irfft2(spectrum, shape)[rows, columns]


def _variance(observed):
    """(variance, whether it had to be estimated)."""
    if observed.variance is not None:
        return observed.variance.astype(np.float64), False
    variance = np.empty(observed.shape)
    for band, (plane, valid) in enumerate(zip(observed.data, observed.valid, strict=True)):
        kept, scale = np.where(valid, plane.astype(np.float64), np.nan), 1.0
        for axis in (0, 1):
            if kept.shape[axis] > 1:
                kept = np.diff(kept, axis=axis)
                scale /= np.sqrt(2)
        seen = np.isfinite(kept)
        sigma = scale * stats.median_abs_deviation(kept[seen], scale="normal") if seen.any() and scale < 1 else 0.0
        if not sigma > 0:
            raise InputError(f"variance=None and band {observed.bands[band]!r} shows no noise; give an uncertainty")
        variance[band] = sigma**2
    return variance, True


def _local_chi2(residual, valid):
    """(Gaussian mean of the squared residual over valid pixels, where it is improbably high)."""
    weight = _smooth(valid.astype(np.float64), 1)
    total = _smooth(residual**2, 1)
    chi2 = np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 1e-6)
    high = np.zeros(valid.shape, bool)
    # deep inside a mask next to nothing is averaged: the sums below would be zero
    candidates = np.nonzero((np.nan_to_num(chi2) > _threshold()) & (weight > 0.05))
    if len(candidates[0]):
        # beside edges and masks fewer pixels are averaged, so that more is needed to be improbable
        own = weight[candidates]
        squares = _smooth(valid.astype(np.float64), 2)[candidates] / own**2
        cubes = _smooth(valid.astype(np.float64), 3)[candidates] / own**3
        high[candidates] = chi2[candidates] > _threshold(squares, cubes)
    return chi2, high


def _smooth(planes, power):
    """Convolution with the normalised Gaussian to a power over the sum of that; nothing outside the image."""
    width = _SMOOTHING / np.sqrt(power)
    return ndimage.gaussian_filter(planes, (0, width, width), mode="constant", truncate=5)


def _threshold(squares=1.0, cubes=1.0):
    """Upper quantile of a Gaussian-weighted mean of independent chi^2 variables of one degree of freedom.

    By the chi^2 distribution of equal mean, variance and skewness (Hall 1983, Buckley & Eagleson 1988). ``squares`` and
    ``cubes`` are the sums of squared and cubed weights, relative to those of the whole Gaussian.
    """
    squares = squares / (4 * np.pi * _SMOOTHING**2)
    cubes = cubes / (3 * (2 * np.pi * _SMOOTHING**2) ** 2)
    freedom = squares**3 / cubes**2
    return 1 + (stats.chi2.isf(_IMPROBABLE, freedom) - freedom) * np.sqrt(squares / freedom)
