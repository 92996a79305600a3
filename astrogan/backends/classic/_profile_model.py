"""Galaxy profiles and PSFs as mixtures of Gaussians: their convolution, with derivatives, in closed form."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy import fft

__all__ = [
    "DOUBLE",
    "SINGLE",
    "PSFMixture",
    "correction",
    "profile_terms",
    "profiles",
    "psf_mixture",
    "shape_terms",
    "source_correction",
    "source_model",
    "unit_models",
]

# Per source: position, log of the half-light radius (geometric mean of the axes), two components of ellipticity, log
# of the Sersic index. The ellipticity's length is half the log of the axis ratio, so that no bound is needed.
SINGLE = ("x", "y", "size", "e1", "e2", "index")

# Of two profiles with one centre: the second's shape, and the logit of its part of the flux, the same in all bands.
DOUBLE = (*SINGLE, "size2", "e1_2", "e2_2", "index2", "fraction")

# Sersic indices of the table, and Gaussians a profile.
INDICES = (0.5, 4.5)
_COMPONENTS = 6

# Beyond this exponent a Gaussian counts as nothing; the bound keeps float32 clear of slow subnormal numbers.
_FAINTEST = -50.0

# A PSF's Gaussians are no narrower than this, in pixels squared: they are sampled, not integrated, over pixels.
_NARROWEST = 0.06


# Large arrays that live for a moment only: to get them from the system each time costs more than to fill them.
_local = threading.local()


def _scratch(name, shape):
    """An uninitialised float32 array, one a name and thread, that the next call with this name overwrites."""
    size = int(np.prod(shape))
    buffer = getattr(_local, name, None)
    if buffer is None or buffer.size < size:
        buffer = np.empty(size, np.float32)
        setattr(_local, name, buffer)
    return buffer[:size].reshape(shape)


@lru_cache(maxsize=1)
def _sersic_table():
    """A spline in the log of the Sersic index: log sigma, in half-light radii, and weight of each Gaussian."""
    from scipy.interpolate import CubicSpline
    from scipy.optimize import nnls
    from scipy.special import gamma, gammaincinv

    radius = np.geomspace(3e-3, 12, 160)
    nodes = np.linspace(np.log(INDICES[0] - 0.05), np.log(INDICES[1] + 0.1), 25)
    sigmas, weights = [], []
    for t in nodes:
        n = max(np.exp(t), 0.5)
        b = gammaincinv(2 * n, 0.5)
        profile = np.exp(-b * radius ** (1 / n)) * b ** (2 * n) / (2 * np.pi * n * gamma(2 * n))
        # The span that serves each index best, as smooth functions of it.
        low = -1.98 - 1.18 * t - 0.10 * t * t
        high = 0.47 + 0.62 * t - 0.10 * t * t
        sigma = np.exp(np.linspace(low, high, _COMPONENTS))
        basis = np.exp(-0.5 * (radius[:, None] / sigma) ** 2) / (2 * np.pi * sigma**2)
        # Weighted to count flux near the half-light radius most; a little ridge makes the weights smooth in n.
        scale = radius**1.5
        system = np.vstack([basis * scale[:, None], 2e-3 * np.eye(_COMPONENTS)])
        weight, _ = nnls(system, np.concatenate([profile * scale, np.zeros(_COMPONENTS)]))
        sigmas.append(np.log(sigma))
        weights.append(weight)
    return CubicSpline(nodes, np.hstack([sigmas, weights]))


def profile_terms(t):
    """Gaussians of a Sersic profile with unit half-light radius, index exp(t).

    Parameters
    ----------
    t : float
        Log of the index.

    Returns
    -------
    variance, variance_slope, weight, weight_slope : `numpy.ndarray`
        Each (component,); slopes are derivatives by t.
    """
    table = _sersic_table()
    # By hand: a call of the spline costs more than all else here.
    knots, coefficients = table.x, table.c
    at = min(max(int((t - knots[0]) / (knots[1] - knots[0])), 0), len(knots) - 2)
    c3, c2, c1, c0 = coefficients[:, at]
    h = t - knots[at]
    value = ((c3 * h + c2) * h + c1) * h + c0
    slope = (3 * c3 * h + 2 * c2) * h + c1
    variance = np.exp(2 * value[:_COMPONENTS])
    return variance, 2 * variance * slope[:_COMPONENTS], value[_COMPONENTS:], slope[_COMPONENTS:]


def shape_terms(e1, e2):
    """The matrix exp(2 (e1, e2; e2, -e1)), whose determinant is one, and its derivatives.

    Returns
    -------
    shape, by_e1, by_e2 : `numpy.ndarray`
        Each (3,): xx, xy, yy.
    """
    u1, u2 = 2 * e1, 2 * e2
    u = np.hypot(u1, u2)
    even, odd = np.cosh(u), np.sinh(u)
    if u < 1e-4:
        ratio, slope = 1.0 + u * u / 6, 1 / 3
    else:
        ratio = odd / u
        slope = (even - ratio) / (u * u)
    shape = np.array([even + ratio * u1, ratio * u2, even - ratio * u1])
    # Of d/du: sinh(u) / u for cosh, and (cosh(u) - sinh(u) / u) / u^2 for sinh(u) / u.
    by_u1 = np.array([ratio * u1 + slope * u1 * u1 + ratio, slope * u1 * u2, ratio * u1 - slope * u1 * u1 - ratio])
    by_u2 = np.array([ratio * u2 + slope * u2 * u1, slope * u2 * u2 + ratio, ratio * u2 - slope * u2 * u1])
    return shape, 2 * by_u1, 2 * by_u2


@dataclass(frozen=True)
class PSFMixture:
    """A PSF of several bands as Gaussians, and what they leave over.

    Attributes
    ----------
    amplitude : `numpy.ndarray`
        (band, gaussian), each band sums to the PSF's flux in the Gaussians.
    covariance : `numpy.ndarray`
        (band, gaussian, 3): xx, xy, yy in pixels squared.
    centre : `numpy.ndarray`
        (band, 2): x, y from the kernel's central pixel.
    residual : `numpy.ndarray`
        (band, k, k): kernel less the Gaussians.
    area : `numpy.ndarray`
        (band,) noise-equivalent area in pixels.
    """

    amplitude: np.ndarray
    covariance: np.ndarray
    centre: np.ndarray
    residual: np.ndarray
    area: np.ndarray
    _spectra: dict = field(default_factory=dict, repr=False)

    @property
    def sigma(self):
        """Pixels: of the Gaussian with the same noise-equivalent area, band average."""
        return float(np.sqrt(self.area.mean() / (4 * np.pi)))

    def residual_spectrum(self, shape):
        """rfft2 of the residual on a canvas, its centre at the first pixel."""
        if shape not in self._spectra:
            half = self.residual.shape[1] // 2
            canvas = np.zeros((len(self.residual), *shape))
            size = self.residual.shape[1]
            canvas[:, :size, :size] = self.residual
            spectrum = fft.rfft2(np.roll(canvas, (-half, -half), axis=(1, 2)))
            if len(self._spectra) > 32:
                self._spectra.clear()
            self._spectra[shape] = spectrum
        return self._spectra[shape]


def psf_mixture(psf):
    """Gaussians that make up a PSF; the last few PSFs are remembered.

    Parameters
    ----------
    psf : `numpy.ndarray`
        (band, k, k), k odd.

    Returns
    -------
    `PSFMixture`
    """
    psf = np.ascontiguousarray(psf, np.float32)
    small = max(4 - psf.shape[1] // 2, 0)
    if small:
        psf = np.pad(psf, ((0, 0), (small, small), (small, small)))
    return _psf_mixture(psf.tobytes(), psf.shape)


@lru_cache(maxsize=16)
def _psf_mixture(raw, shape):
    psf = np.frombuffer(raw, np.float32).reshape(shape).astype(np.float64)
    parts = [_band_mixture(kernel.tobytes(), kernel.shape) for kernel in psf]
    amplitude, covariance, centre, residual = (np.stack(part) for part in zip(*parts, strict=True))
    return PSFMixture(amplitude, covariance, centre, residual, 1 / np.sum(psf**2, axis=(1, 2)))


@lru_cache(maxsize=64)
def _band_mixture(raw, shape):
    """Amplitudes, covariances, centre and residual of one kernel, as two Gaussians of one centre and shape."""
    from scipy.optimize import least_squares

    kernel = np.frombuffer(raw, np.float64).reshape(shape)
    number, half = 2, shape[0] // 2
    positive = np.maximum(kernel, 0)
    # Wings below a ten-thousandth of the peak are left to the residual: fewer pixels, same Gaussians.
    reach = int(np.abs(np.argwhere(kernel > 1e-4 * kernel.max()) - half).max(initial=1)) + 1
    reach = min(max(reach, 4), half)
    cut = slice(half - reach, half + reach + 1)
    target = kernel[cut, cut].ravel()
    y, x = (a.ravel().astype(np.float64) for a in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    sigma = np.sqrt(1 / np.sum(positive**2) / (4 * np.pi)) * positive.sum()
    start = np.concatenate([np.log([0.8, 0.2]), 2 * np.log(sigma * np.array([0.9, 2.0])), [0.0, 0.0, 0.0, 0.0]])
    # Relative to the peak's root: the wings count for more than in plain least squares.
    weight = 1 / np.sqrt(kernel.max() * (np.maximum(target, 0) + 0.01 * kernel.max()))

    def parts(p):
        p = np.clip(p, -12, 12)
        shape_, by1, by2 = shape_terms(p[-4], p[-3])
        v = np.exp(p[number : 2 * number])
        dx, dy = x - p[-2], y - p[-1]
        mono = np.stack([dx * dx, 2 * dx * dy, dy * dy])
        inverse = np.array([shape_[2], -shape_[1], shape_[0]])
        d = inverse @ mono
        e = np.exp(np.maximum(-0.5 * d / v[:, None], _FAINTEST)) * (np.exp(p[:number]) / (2 * np.pi * v))[:, None]
        return v, dx, dy, mono, inverse, by1, by2, d, e

    def residuals(p):
        return (parts(p)[-1].sum(axis=0) - target) * weight

    def jacobian(p):
        v, dx, dy, mono, inverse, by1, by2, d, e = parts(p)
        scaled = (e / v[:, None]).sum(axis=0)
        columns = [*e, *(e * (0.5 * d / v[:, None] - 1))]
        for by in (by1, by2):
            columns.append(-0.5 * scaled * (np.array([by[2], -by[1], by[0]]) @ mono))
        columns.append(scaled * (inverse[0] * dx + inverse[1] * dy))
        columns.append(scaled * (inverse[1] * dx + inverse[2] * dy))
        return np.stack(columns, axis=1) * weight[:, None]

    p = np.clip(least_squares(residuals, start, jacobian, method="lm", max_nfev=60).x, -12, 12)
    amplitude = np.exp(p[:number])
    variance = np.maximum(np.exp(p[number : 2 * number]), _NARROWEST)
    centre = np.clip(p[-2:], -half, half)
    covariance = variance[:, None] * shape_terms(p[-4], p[-3])[0]
    rows, columns = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    dx, dy = columns - centre[0], rows - centre[1]
    fitted = np.zeros(shape)
    for a, (xx, xy, yy) in zip(amplitude, covariance, strict=True):
        det = xx * yy - xy * xy
        d = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / det
        fitted += a / (2 * np.pi * np.sqrt(det)) * np.exp(-0.5 * d)
    return amplitude, covariance, centre, kernel - fitted


def unit_models(theta, psf, box, *, slopes=True, out=None):
    """A source of unit flux, convolved with the PSF's Gaussians, and its derivatives.

    Parameters
    ----------
    theta : `numpy.ndarray`
        (6,), see `SINGLE`.
    psf : `PSFMixture`
    box : tuple of slice
        Rows and columns.
    slopes : bool
        Whether to compute the derivatives.
    out : `numpy.ndarray`, optional
        Where to put the result with slopes.

    Returns
    -------
    `numpy.ndarray`
        (band, 7, pixel) float32: the model and its derivatives by the parameters; (band, 1, pixel) without slopes.
    """
    x0, y0, log_size, e1, e2, t = theta
    variance, variance_slope, weight, weight_slope = profile_terms(t)
    size = np.exp(2 * log_size)
    shape, by_e1, by_e2 = shape_terms(e1, e2)
    bands, number = psf.amplitude.shape
    profile = size * variance[:, None] * shape
    cov = (psf.covariance[:, :, None, :] + profile).reshape(bands, -1, 3)
    det = cov[..., 0] * cov[..., 2] - cov[..., 1] ** 2
    a11, a12, a22 = cov[..., 2] / det, -cov[..., 1] / det, cov[..., 0] / det
    norm = np.repeat(psf.amplitude, len(weight), axis=1) / (2 * np.pi * np.sqrt(det))
    weight, weight_slope = np.concatenate([weight] * number), np.concatenate([weight_slope] * number)
    amplitude = norm * weight
    mono, dx, dy = _monomials(x0, y0, psf.centre, box)
    quadratic = np.stack([-0.5 * a11, -a12, -0.5 * a22], axis=-1)
    exponent = _scratch("exponent", (*det.shape, mono.shape[2]))
    np.matmul(np.ascontiguousarray(quadratic, np.float32), mono, out=exponent)
    np.maximum(exponent, _FAINTEST, out=exponent)
    np.exp(exponent, out=exponent)
    if not slopes:
        return amplitude[:, None, :].astype(np.float32) @ exponent
    rows = np.empty((bands, 20, amplitude.shape[1]), np.float64)
    rows[:, 0] = amplitude
    rows[:, 1:4] = (amplitude * np.stack([a11, a12, a22])).transpose(1, 0, 2)
    for i, change in enumerate(
        (
            2 * profile,
            size * variance[:, None] * by_e1,
            size * variance[:, None] * by_e2,
            size * variance_slope[:, None] * shape,
        )
    ):
        c11, c12, c22 = np.concatenate([change] * number).T
        at = 4 + 4 * i
        rows[:, at] = -0.5 * amplitude * (a11 * c11 + 2 * a12 * c12 + a22 * c22)
        rows[:, at + 1] = 0.5 * amplitude * (a11 * a11 * c11 + 2 * a11 * a12 * c12 + a12 * a12 * c22)
        rows[:, at + 2] = amplitude * (a11 * a12 * c11 + (a11 * a22 + a12 * a12) * c12 + a12 * a22 * c22)
        rows[:, at + 3] = 0.5 * amplitude * (a12 * a12 * c11 + 2 * a12 * a22 * c12 + a22 * a22 * c22)
    rows[:, 16] += norm * weight_slope
    sums = _scratch("sums", (bands, 20, mono.shape[2]))
    np.matmul(rows.astype(np.float32), exponent, out=sums)
    if out is None:
        out = np.empty((bands, 7, mono.shape[2]), np.float32)
    out[:, 0] = sums[:, 0]
    np.multiply(sums[:, 2], dy, out=out[:, 1])
    np.multiply(sums[:, 2], dx, out=out[:, 2])
    out[:, 1] += np.multiply(sums[:, 1], dx, out=sums[:, 1])
    out[:, 2] += np.multiply(sums[:, 3], dy, out=sums[:, 3])
    moments = sums[:, 4:].reshape(bands, 4, 4, -1)
    moments[:, :, 1:] *= mono[:, None]
    moments.sum(axis=2, out=out[:, 3:])
    return out


def _monomials(x0, y0, centre, box):
    """(band, 3, pixel) of dx^2, dx dy, dy^2, and dx, dy (band, pixel)."""
    rows, columns = box
    x = np.arange(columns.start, columns.stop) - x0
    y = np.arange(rows.start, rows.stop) - y0
    shape = (len(centre), len(y), len(x))
    dx = np.broadcast_to((x - centre[:, :1])[:, None, :], shape).astype(np.float32).reshape(shape[0], -1)
    dy = np.broadcast_to((y - centre[:, 1:])[:, :, None], shape).astype(np.float32).reshape(shape[0], -1)
    mono = _scratch("monomials", (shape[0], 3, dx.shape[1]))
    np.multiply(dx, dx, out=mono[:, 0])
    np.multiply(dx, dy, out=mono[:, 1])
    np.multiply(dy, dy, out=mono[:, 2])
    return mono, dx, dy


def correction(theta, psf, box):
    """What the PSF's Gaussians leave out of a source of unit flux.

    The profile's Fourier transform is known in closed form; times that of the PSF's residual it gives the difference
    between the exact model and that of `unit_models`.

    Parameters
    ----------
    theta, psf, box
        As for `unit_models`.

    Returns
    -------
    `numpy.ndarray`
        (band, pixel) float32.
    """
    rows, columns = box
    height, width = rows.stop - rows.start, columns.stop - columns.start
    size = psf.residual.shape[1]
    shape = (fft.next_fast_len(height + size, real=True), fft.next_fast_len(width + size, real=True))
    ky = 2 * np.pi * fft.fftfreq(shape[0])
    kx = 2 * np.pi * fft.rfftfreq(shape[1])
    x0, y0, log_size, e1, e2, t = theta
    variance, _, weight, _ = profile_terms(t)
    xx, xy, yy = np.exp(2 * log_size) * shape_terms(e1, e2)[0]
    form = 0.5 * (xx * kx**2 + 2 * xy * ky[:, None] * kx + yy * ky[:, None] ** 2)
    profile = np.zeros(form.shape)
    for v, w in zip(variance, weight, strict=True):
        profile += w * np.exp(-np.minimum(v * form, -_FAINTEST))
    phase = np.exp(-1j * ky * (y0 - rows.start))[:, None] * np.exp(-1j * kx * (x0 - columns.start))
    spectrum = psf.residual_spectrum(shape) * (profile * phase)
    out = fft.irfft2(spectrum, s=shape)[:, :height, :width]
    return out.reshape(len(out), -1).astype(np.float32)


def _second(theta):
    """Parameters of the second profile, and its part of the flux."""
    return np.concatenate([theta[:2], theta[6:10]]), 1 / (1 + np.exp(-theta[10]))


def source_model(theta, psf, box, *, out=None):
    """A source of one or two profiles, of unit flux, and its derivatives by all parameters.

    Parameters
    ----------
    theta : `numpy.ndarray`
        As `SINGLE` or `DOUBLE`.
    psf, box
        As for `unit_models`.
    out : `numpy.ndarray`, optional
        Where to put the result.

    Returns
    -------
    `numpy.ndarray`
        (band, 1 + parameters, pixel) float32.
    """
    if len(theta) == len(SINGLE):
        return unit_models(theta, psf, box, out=out)
    other, part = _second(theta)
    pixels = (box[0].stop - box[0].start) * (box[1].stop - box[1].start)
    bands = len(psf.amplitude)
    if out is None:
        out = np.empty((bands, 12, pixels), np.float32)
    second = unit_models(other, psf, box, out=_scratch("second", (bands, 7, pixels)))
    first = unit_models(theta[:6], psf, box, out=out[:, :7])
    np.subtract(second[:, 0], first[:, 0], out=out[:, 11])
    first *= np.float32(1 - part)
    second *= np.float32(part)
    out[:, 11] *= np.float32(part * (1 - part))
    out[:, :3] += second[:, :3]
    out[:, 7:11] = second[:, 3:]
    return out


def source_correction(theta, psf, box):
    """`correction` of a source of one or two profiles."""
    if len(theta) == len(SINGLE):
        return correction(theta, psf, box)
    other, part = _second(theta)
    return (1 - part) * correction(theta[:6], psf, box) + part * correction(other, psf, box)


def profiles(theta, psf, box):
    """Each profile of a source, exactly convolved, with its part of the flux, (profile, band, pixel), >= 0."""
    pairs = [(theta, 1.0)]
    if len(theta) > len(SINGLE):
        other, part = _second(theta)
        pairs = [(theta[:6], 1 - part), (other, part)]
    out = [part * (unit_models(t, psf, box, slopes=False)[:, 0] + correction(t, psf, box)) for t, part in pairs]
    return np.maximum(out, 0, dtype=np.float32)
