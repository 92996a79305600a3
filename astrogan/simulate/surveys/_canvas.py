"""A frame of pixels in Fourier space, the PSFs on it, and the profiles of galaxies as transforms.

All lengths are in arcsec and wave numbers in radians per arcsec, so that a scene knows nothing of pixels. Only waves
that a PSF passes are reckoned with; those beyond the pixels' Nyquist frequency fold as they do in a camera.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from astrogan.exceptions import InputError
from astrogan.simulate._gaussians import sersic_mixture

_PASSED = 3e-5  # waves that the sharpest band damps to less are left out
_CORE = 1.67834699  # half-light radius of an exponential in scale lengths


class Canvas:
    """A periodic frame at least ``shape`` + ``pad`` pixels large, pixel (0, 0) in its corner.

    Parameters
    ----------
    shape : tuple of int
        (y, x), what is wanted of it.
    scale : float
        Arcsec per pixel.
    pad : float
        Arcsec beyond the shape before light comes in again at the other side.
    k_max : float
        Largest wave number needed.
    """

    def __init__(self, shape, scale, pad, k_max):
        from scipy.fft import next_fast_len

        self.shape, self.scale = shape, scale
        extra = int(np.ceil(pad / scale))
        self.frame = tuple(2 * next_fast_len((n + extra + 1) // 2, real=True) for n in shape)
        steps = [2 * np.pi / (n * scale) for n in self.frame]
        most = [min(int(k_max / step) + 1, n - 1) for step, n in zip(steps, self.frame, strict=True)]
        self._rows = np.concatenate([np.arange(most[0] + 1), np.arange(-most[0], 0)])
        self.ky = (self._rows * steps[0]).astype(np.float32)
        self.kx = (np.arange(most[1] + 1) * steps[1]).astype(np.float32)

    def at(self, x, y):
        """Phases that put a source at a pixel (x, y), which may be a fraction, as factors (ky, 1) and (1, kx)."""
        return _wave(self.ky, y * self.scale)[:, None], _wave(self.kx, x * self.scale)[None, :]

    def pixel(self):
        """Transform of a square pixel."""
        y, x = (np.sinc(k * (self.scale / (2 * np.pi))).astype(np.float32) for k in (self.ky, self.kx))
        return y[:, None] * x

    def images(self, transforms):
        """Flux in the pixels, (band, y, x) float32, of transforms (band, ky, kx) at unit flux."""
        from scipy.fft import irfft2

        ny, nx = self.frame
        top = len(self.ky) // 2
        folded = np.zeros((len(transforms), ny, len(self.kx)), np.complex64)
        folded[:, : top + 1] += transforms[:, : top + 1]
        folded[:, ny - top :] += transforms[:, top + 1 :]
        half = np.zeros((len(transforms), ny, nx // 2 + 1), np.complex64)
        known = min(len(self.kx), nx // 2 + 1)
        half[:, :, :known] = folded[:, :, :known]
        beyond = np.arange(nx // 2, len(self.kx))  # kx here is -(nx - kx) after sampling: the conjugate's
        if len(beyond):
            mirrored = folded[:, -np.arange(ny) % ny][:, :, beyond]
            half[:, :, nx - beyond] += mirrored.conj()
        return irfft2(half, s=self.frame, axes=(1, 2), overwrite_x=True)[:, : self.shape[0], : self.shape[1]]


def _wave(k, place):
    # In double precision: phases are many turns.
    return np.exp(-1j * k.astype(np.float64) * place).astype(np.complex64)


# ------------------------------------------------------------------------------------------------------ profiles


class Ellipse:
    """A Sersic profile of unit flux; the half-light radius is along the major axis.

    Parameters
    ----------
    index : float
        1 is an exact exponential, others are sums of Gaussians (`sersic_mixture`).
    radius : float
        Arcsec.
    q, angle : float
        Axis ratio, and direction of the major axis in radians from x to y.
    """

    def __init__(self, index, radius, q=1.0, angle=0.0):
        self.index, self.radius, self.q, self.angle = float(index), float(radius), float(q), float(angle)

    def transform(self, ky, kx):
        """Real, (ky, kx) float32."""
        major, minor = self.radius**2, (self.radius * self.q) ** 2
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        xx, yy = cos**2 * major + sin**2 * minor, sin**2 * major + cos**2 * minor
        xy = cos * sin * (major - minor)
        square = np.multiply.outer(np.float32(2 * xy) * ky, kx)
        square += (np.float32(yy) * ky**2)[:, None]
        square += np.float32(xx) * kx**2
        if self.index == 1:
            square /= np.float32(_CORE**2)
            square += 1
            return 1 / (square * np.sqrt(square))
        # In the root of the wave number the table is smooth, and fine enough at both ends.
        return _read(_sersic_table(self.index), _ROOT_STEP, np.sqrt(np.sqrt(square)))

    def within(self, radius):
        """Share of the light within ellipses of some major axes (arcsec)."""
        r = np.asarray(radius, float) / self.radius
        if self.index == 1:
            return 1 - (1 + _CORE * r) * np.exp(-_CORE * r)
        weights, sigmas = map(np.array, sersic_mixture(self.index, 8))
        return 1 - np.exp(-0.5 * (r[..., None] / sigmas) ** 2) @ weights


class Point:
    """A star."""

    radius = 0.0

    def transform(self, ky, kx):
        """One everywhere."""
        return np.ones((len(ky), len(kx)), np.float32)


class Knots:
    """Round Gaussians at places (x, y), with widths, in arcsec; shares of the flux with a sum of one."""

    def __init__(self, places, widths, shares):
        self.places, self.widths = np.asarray(places, float), np.asarray(widths, float)
        self.shares = np.asarray(shares, float) / np.sum(shares)

    def transform(self, ky, kx):
        """Complex, (ky, kx): a matrix product, as Gaussians are separable."""
        y = _waves(ky, self.places[:, 1], self.widths) * self.shares.astype(np.float32)
        return y @ _waves(kx, self.places[:, 0], self.widths).T


def _waves(k, places, widths):
    """(k, place): transforms of Gaussians on a line."""
    damped = np.exp(-0.5 * np.multiply.outer(k, widths.astype(np.float32)) ** 2)
    return damped * np.exp(-1j * np.multiply.outer(k, places.astype(np.float32)))


class Painting:
    """An image of square ``step`` about its middle pixel, smoothed by a Gaussian of 0.6 steps; of unit flux."""

    def __init__(self, image, step):
        self.image, self.step = (image / image.sum(dtype=np.float64)).astype(np.float32), float(step)

    def transform(self, ky, kx):
        """Complex, (ky, kx)."""
        ny, nx = self.image.shape
        width = np.full(1, 0.6 * self.step)
        y = np.exp(-1j * np.multiply.outer(ky, _grid(ny, self.step)))
        x = np.exp(-1j * np.multiply.outer(_grid(nx, self.step), kx))
        y *= np.abs(_waves(ky, np.zeros(1), width))
        x *= np.abs(_waves(kx, np.zeros(1), width)).T
        return (y @ self.image) @ x


def _grid(n, step):
    return ((np.arange(n) - (n - 1) / 2) * step).astype(np.float32)


@lru_cache(maxsize=16)
def _sersic_table(index):
    weights, sigmas = map(np.array, sersic_mixture(index, 8))
    roots = np.arange(int(20 / _ROOT_STEP)) * _ROOT_STEP
    return (np.exp(-0.5 * roots[:, None] ** 4 * sigmas**2) @ weights).astype(np.float32)


_ROOT_STEP = 0.004


def _read(table, step, places):
    """Linear interpolation in a table at 0, step, ...; beyond its end there is nothing."""
    places = places * np.float32(1 / step)
    index = np.minimum(places, np.float32(len(table) - 2)).astype(np.int32)
    places -= index
    value = table[index]
    value += np.minimum(places, 1) * (table[1:] - table[:-1])[index]
    return value


# ---------------------------------------------------------------------------------------------------------- PSFs


class Moffats:
    """PSFs of a stamp: a Moffat a band, with the FWHM that pixels of ``scale`` show, elliptical alike.

    Parameters
    ----------
    fwhm : `numpy.ndarray`
        (band,), arcsec, pixels included.
    beta : float
        Rounded to a tenth.
    ellipticity : tuple of float
        Two components, (1 - q) / (1 + q) long.
    scale : float
        Arcsec per pixel.
    """

    def __init__(self, fwhm, beta, ellipticity, scale):
        self.beta, self.ellipticity = round(float(beta), 1), ellipticity
        self.core = _cores(np.asarray(fwhm, float), self.beta, scale)

    @property
    def k_max(self):
        """Where the sharpest passes next to nothing."""
        waves, values = _moffat_table(self.beta)
        # An ellipse's minor axis lets more through.
        return waves[np.argmax(values < _PASSED)] / self.core.min() * (1 + np.hypot(*self.ellipticity))

    def transforms(self, canvas):
        """With the pixel's response, (band, ky, kx) float32."""
        e1, e2 = self.ellipticity
        norm = 1 / (1 - e1**2 - e2**2)
        xx, yy, xy = ((1 + e1) ** 2 + e2**2) * norm, ((1 - e1) ** 2 + e2**2) * norm, 2 * e2 * norm
        length = np.multiply.outer(np.float32(2 * xy) * canvas.ky, canvas.kx)
        length += (np.float32(yy) * canvas.ky**2)[:, None]
        length += np.float32(xx) * canvas.kx**2
        np.sqrt(length, out=length)
        waves, values = _moffat_table(self.beta)
        values, pixel = values.astype(np.float32), canvas.pixel()
        return np.stack([_read(values, waves[1], length * np.float32(core)) * pixel for core in self.core])


class Sampled:
    """A PSF known by an image of it, on pixels of ``scale`` arcsec and with their response, made ``stretch`` as wide.

    It has no waves beyond the pixels' Nyquist frequency.
    """

    def __init__(self, image, scale, stretch):
        self.image, self.step = image.astype(np.float32), scale * stretch
        self.k_max = np.pi / self.step

    def transform(self, canvas):
        """(ky, kx) complex64."""
        y, x = (_grid(n, self.step) for n in self.image.shape)
        passed = (np.abs(canvas.ky) <= self.k_max)[:, None] & (canvas.kx <= self.k_max)
        waves = (np.exp(-1j * np.multiply.outer(canvas.ky, y)), np.exp(-1j * np.multiply.outer(x, canvas.kx)))
        return (waves[0] @ self.image) @ waves[1] * passed


@lru_cache(maxsize=64)
def _moffat_table(beta):
    """Transform of a Moffat profile of unit core radius."""
    from scipy.special import gamma, kv

    waves = np.linspace(0, 24, 6001)
    order = beta - 1
    values = np.ones_like(waves)
    values[1:] = 2 / gamma(order) * (waves[1:] / 2) ** order * kv(order, waves[1:])
    return waves, values


def _cores(fwhm, beta, scale):
    """Core radii (band,) with which Moffats have a FWHM once pixels have blurred them."""
    pixels, ratios = _blurred_table(beta)  # a pixel's edge in core radii, and that in FWHM
    if (scale / fwhm).max() > ratios[-1]:
        raise InputError(f"fwhm={fwhm.min():.3g} arcsec is too sharp for pixels of {scale:.3g} arcsec to have shown it")
    return scale / np.interp(scale / fwhm, ratios, pixels)


@lru_cache(maxsize=64)
def _blurred_table(beta):
    """FWHM of a Moffat after pixels have blurred it, averaged over angles."""
    from scipy.special import j0

    k, values = (a[::20] for a in _moffat_table(beta))
    pixels = np.linspace(0, 3, 61)
    radius = np.linspace(0, 4, 401)
    waves, angle = j0(np.multiply.outer(radius, k)), (np.arange(6) + 0.5) * np.pi / 12
    ratios = np.zeros(len(pixels))
    for i, pixel in enumerate(pixels[1:], 1):
        across = (np.sinc(pixel / (2 * np.pi) * np.multiply.outer(turn, k)) for turn in (np.cos(angle), np.sin(angle)))
        profile = waves @ (k * values * np.mean(np.prod(list(across), axis=0), axis=0))
        ratios[i] = pixel / (2 * np.interp(-0.5 * profile[0], -profile, radius))
    return pixels, ratios
