"""What a survey makes of a scene: its seeing, its noise and its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrogan.api import sample_noise
from astrogan.simulate.surveys._canvas import Canvas, Moffats, Sampled

_NOISE_SCATTER = 0.15  # log-normal, of a stamp's noise
_SHARED = 0.8  # correlation between bands of what scatters: seeing and noise
_WINGS = 6.0  # half of a PSF image in nominal FWHM
_BORDER = 1  # pixels around a stamp, for the noise's kernel
_MANY = 1000.0  # electrons of sky, with which Poisson's distribution is as good as normal
_TAPS = np.array([0.2, 1.0, 0.2]) / np.sqrt(1.08)


def noise_kernel():
    """What correlates the noise of a stamp: (3, 3), its squares summing to one.

    Returns
    -------
    `numpy.ndarray`

    Notes
    -----
    The correlation of neighbours is 0.37, that of diagonal ones 0.14, and that two pixels apart 0.04: about what
    resampling to pixels of much the same size leaves.
    """
    return np.multiply.outer(_TAPS, _TAPS)


@dataclass(frozen=True)
class Options:
    """What all stamps of a pair share."""

    bands: tuple[str, ...]
    colour_terms: bool
    seeing_scatter: float
    resampled: bool


class _PSFs:
    """Of a stamp's bands: Moffat profiles, but for filters with PSFs of their own."""

    def __init__(self, filters, fwhm, beta, ellipticity, scale):
        plain = np.array([f.psf is None for f in filters])
        self.plain = np.flatnonzero(plain)
        self.moffats = Moffats(fwhm[plain], beta, ellipticity, scale) if plain.any() else None
        self.own = {
            b: Sampled(filters[b].kernel(), scale, fwhm[b] / filters[b].fwhm) for b in np.flatnonzero(~plain).tolist()
        }
        self.k_max = max([psf.k_max for psf in self.own.values()] + ([self.moffats.k_max] if plain.any() else []))

    def transforms(self, canvas):
        """(band, ky, kx)."""
        if not self.own:
            return self.moffats.transforms(canvas)
        out = np.empty((len(self.plain) + len(self.own), len(canvas.ky), len(canvas.kx)), np.complex64)
        if self.moffats:
            out[self.plain] = self.moffats.transforms(canvas)
        for b, psf in self.own.items():
            out[b] = psf.transform(canvas)
        return out


class Exposure:
    """A survey's stamp of a scene: its seeing, its noise and its pixels."""

    def __init__(self, survey, shape, noise_scale, options, key):
        self.survey, self.shape, self.options, self.key = survey, shape, options, key
        self.filters = [survey[band] for band in options.bands]
        self.megacam = options.colour_terms and survey.name == "cfhtls"
        rng = np.random.default_rng([*key, 0])
        self.subpixel = rng.uniform(-0.5, 0.5, 2)
        fwhm = np.array([f.fwhm for f in self.filters])
        self.fwhm = fwhm * np.exp(options.seeing_scatter * _common(rng, self.filters))
        ellipticity = np.clip(rng.normal(scale=0.012, size=2), -0.04, 0.04)
        beta = np.clip(rng.normal(3.1, 0.25), 2.6, 3.8)
        self.psfs = _PSFs(self.filters, self.fwhm, beta, ellipticity, survey.pixel_scale)
        scatter = np.exp(_NOISE_SCATTER * _common(rng, self.filters))
        self.electrons = np.array([f.electrons_per_nanomaggy for f in self.filters]) / noise_scale**2
        self.sigma = np.array([f.sigma for f in self.filters]) * noise_scale * scatter
        self.read_noise = np.array([f.read_noise for f in self.filters]) / noise_scale

    def take(self, scene, sky, seed):
        """What a `~astrogan.simulate.surveys.SurveyStamp` holds, by name."""
        place, offset = sky
        scale, middle = self.survey.pixel_scale, self.position(offset)
        truth, psf = self._expose(scene, middle + _BORDER)
        data, variance = self._develop(truth)
        inside = (slice(None), slice(_BORDER, -_BORDER), slice(_BORDER, -_BORDER))
        return {
            "data": data,
            "truth": np.ascontiguousarray(truth[inside]),
            "variance": variance,
            "sigma": self.sigma,
            "psf": psf,
            "fwhm": self.fwhm,
            "bands": self.options.bands,
            "pixel_scale": float(scale),
            "survey": self.survey.name,
            "wcs": _wcs(place, middle, scale, self.shape),
            "seed": seed,
        }

    def position(self, offset):
        """(x, y) of the galaxy."""
        return (np.array(self.shape[::-1]) - 1) / 2 + self.subpixel + np.array(offset) / self.survey.pixel_scale

    def fluxes(self, lights):
        """(light, band) in nanomaggies."""
        return np.array([light.fluxes(self.options.bands, self.megacam) for light in lights])

    def _expose(self, scene, middle):
        """Noise-free pixels, a border around them, and the PSFs' images."""
        scale = self.survey.pixel_scale
        half = self._half()
        shape = tuple(max(n + 2 * _BORDER, 2 * half + 1) for n in self.shape)
        pad = max(scene.reach - min(self.shape) * scale / 2, 6.0 * self.fwhm.max())
        canvas = Canvas(shape, scale, pad, min(self.psfs.k_max, 2 * np.pi / scale))
        transforms = self.psfs.transforms(canvas)
        lights = scene.galaxy + scene.neighbours
        spectrum = _mixed(canvas, lights, self.fluxes(lights), middle, scale)
        truth = canvas.images(spectrum * transforms)[:, : self.shape[0] + 2 * _BORDER, : self.shape[1] + 2 * _BORDER]
        y, x = canvas.at(half, half)
        psf = canvas.images(transforms * (y * x))[:, : 2 * half + 1, : 2 * half + 1]
        # Waves that are left out ring at a part in 1e5 of a peak; light is not negative.
        psf = np.maximum(psf, 0)
        return np.maximum(truth, 0), psf / psf.sum(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)

    def _half(self):
        """Half an edge of the PSFs' images: one for all stamps of a survey."""
        return int(np.ceil(_WINGS * max(f.fwhm for f in self.filters) / self.survey.pixel_scale))

    def _develop(self, truth):
        """Data and their variance, without the border."""
        kernel = _TAPS if self.options.resampled else np.array([0.0, 1.0, 0.0])
        variance = _convolved(truth, kernel**2) / self.electrons[:, None, None].astype(np.float32)
        variance += (self.sigma**2).astype(np.float32)[:, None, None]
        data = truth[:, 1:-1, 1:-1].copy()
        for b, f in enumerate(self.filters):
            rng = np.random.default_rng([*self.key, 1 + b])
            if f.noise_model is not None:
                data[b] += sample_noise(f.noise_model, (1, *self.shape), sigma=np.sqrt(variance[b])[None], rng=rng)[0]
            else:
                data[b] += _convolved(self._noise(truth[b], b, rng)[None], kernel)[0]
        return data, variance

    def _noise(self, truth, b, rng):
        """Of photons and readout, in nanomaggies, before it is correlated."""
        electrons = self.electrons[b]
        total = (self.sigma[b] * electrons) ** 2
        readout = min(self.read_noise[b] ** 2, total)
        mean = truth * np.float32(electrons) + np.float32(total - readout)
        if total - readout > _MANY:
            noise = np.sqrt(mean + np.float32(readout)) * rng.standard_normal(truth.shape, np.float32)
        else:
            noise = rng.poisson(mean) - mean
            noise += np.float32(np.sqrt(readout)) * rng.standard_normal(truth.shape, np.float32)
        return (noise / electrons).astype(np.float32)


def _mixed(canvas, lights, fluxes, middle, scale):
    """Transforms of the sum of all lights by band, (band, ky, kx) complex64."""
    shape = len(canvas.ky), len(canvas.kx)
    sources = np.empty((len(lights), *shape), np.complex64)
    phases = {}
    for row, light in zip(sources, lights, strict=True):
        if light.place not in phases:
            y, x = canvas.at(middle[0] + light.place[0] / scale, middle[1] + light.place[1] / scale)
            phases[light.place] = y * x
        np.multiply(light.profile.transform(canvas.ky, canvas.kx), phases[light.place], out=row)
    flat = sources.reshape(len(lights), -1).view(np.float32)
    return (fluxes.T.astype(np.float32) @ flat).view(np.complex64).reshape(-1, *shape)


def _convolved(planes, taps):
    """With (3,) taps along y and x; a pixel is lost at each edge."""
    outer, middle = np.float32(taps[0]), np.float32(taps[1])
    rows = outer * (planes[:, 2:] + planes[:, :-2]) + middle * planes[:, 1:-1]
    return outer * (rows[:, :, 2:] + rows[:, :, :-2]) + middle * rows[:, :, 1:-1]


def _common(rng, filters):
    """A standard normal number a filter, correlated between them."""
    shared = rng.normal()
    return np.sqrt(_SHARED) * shared + np.sqrt(1 - _SHARED) * rng.normal(size=len(filters))


def _wcs(place, middle, scale, shape):
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = place
    wcs.wcs.crpix = [middle[0] + 1, middle[1] + 1]
    wcs.wcs.cd = np.diag([-scale / 3600, scale / 3600])
    wcs.wcs.set()
    wcs.pixel_shape = shape[::-1]
    return wcs
