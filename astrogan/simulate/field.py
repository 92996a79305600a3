"""A realistic multi-band field with a known truth, drawn with GalSim.

Spirals with arms and clumps, bulge and disk galaxies, blends, stars, a saturated star with its bleed trail, a hot
column, sky and photon noise, a PSF per band and a TAN WCS. Depth, seeing and sky are those of a wide ground-based
survey.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from astrogan.exceptions import InputError, MissingDependencyError

if TYPE_CHECKING:
    from astropy.nddata import CCDData
    from astropy.table import Table
    from astropy.wcs import WCS

__all__ = ["FIELD_BANDS", "FieldBand", "SimulatedField", "simulate_field"]


class FieldBand(NamedTuple):
    """Observing conditions in one band.

    Parameters
    ----------
    fwhm : float
        Seeing, arcsec.
    depth : float
        AB magnitude of a 5-sigma source in a circle of 2 arcsec diameter.
    sky : float
        Sky brightness, AB magnitude per square arcsec; with the depth it fixes the electrons per nanomaggy.
    """

    fwhm: float
    depth: float
    sky: float


FIELD_BANDS = {
    "u": FieldBand(1.00, 24.2, 22.4),
    "g": FieldBand(0.86, 25.1, 22.0),
    "r": FieldBand(0.68, 25.0, 21.0),
    "i": FieldBand(0.81, 23.7, 19.2),
}
"""Close to the medians of KiDS (Kuijken et al. 2019, A&A 625, A2); i was observed in bright time."""

# Magnitude in each band minus that in r: old and young stars, and what lies between.
_COLOURS = {
    "bulge": {"u": 2.4, "g": 0.80, "r": 0.0, "i": -0.40},
    "disk": {"u": 1.5, "g": 0.48, "r": 0.0, "i": -0.22},
    "clumps": {"u": 0.3, "g": 0.02, "r": 0.0, "i": 0.10},
    "cool": {"u": 3.8, "g": 1.35, "r": 0.0, "i": -0.90},
    "hot": {"u": 1.0, "g": 0.20, "r": 0.0, "i": -0.05},
}
_MOFFAT_BETA = 3.0
_BULGE_EDGE = 15.0  # half-light radii; one number for all, because GalSim tabulates each anew
_ZERO_POINT = 22.5  # nanomaggies
_SATURATION = 15.0  # nanomaggy per pixel: a star of r = 16.5 in median seeing
_BRIGHT = 3.0  # nanomaggies: from here on the usual accuracy of a part in a thousand would show above the noise
_REFERENCE_AREA = 512**2  # pixels, for the numbers of showpieces


@dataclass(frozen=True)
class SimulatedField:
    """A field as observed, and what is really there.

    Parameters
    ----------
    images : dict of str to `~astropy.nddata.CCDData`
        One a band, in nanomaggies, with mask, `~astropy.nddata.VarianceUncertainty`, WCS and PSF.
    truth : `numpy.ndarray`
        The same without noise, saturation and defects, (band, y, x), float32.
    truth_sharp : `numpy.ndarray`
        The noise-free scene at the resolution ``sharp_fwhm`` in every band, (band, y, x), float32.
    catalog : `~astropy.table.Table`
        A row a source: ``id``, ``type``, ``x``, ``y`` (pixels, 0-based), ``ra``, ``dec``, ``flux_<band>``
        (nanomaggies), ``half_light_radius`` (arcsec, 0 for stars), ``blend`` (number of the blend, 0 for none),
        ``saturated``.
    psfs : `numpy.ndarray`
        (band, k, k), odd, each band summing to one.
    wcs : `~astropy.wcs.WCS`
        TAN, north up and east left.
    bands : tuple of str
        Names, in the order of the arrays.
    pixel_scale : float
        Arcsec per pixel.
    sharp_fwhm : float
        Arcsec, of the Gaussian PSF of ``truth_sharp``.
    seed : int
        What it was made from.
    """

    images: dict[str, CCDData]
    truth: np.ndarray
    truth_sharp: np.ndarray
    catalog: Table
    psfs: np.ndarray
    wcs: WCS
    bands: tuple[str, ...]
    pixel_scale: float
    sharp_fwhm: float
    seed: int

    @property
    def mask(self):
        """Masks of all bands, (band, y, x), True where a pixel is bad."""
        return np.stack([image.mask for image in self.images.values()])

    @property
    def variance(self):
        """Variances of all bands, (band, y, x), in square nanomaggies."""
        return np.stack([image.uncertainty.array for image in self.images.values()])

    @property
    def truth_images(self):
        """``truth`` by band as `~astropy.nddata.CCDData`, with unit, WCS and PSF."""
        return {
            b: self._noise_free(data, b, psf) for b, data, psf in zip(self.bands, self.truth, self.psfs, strict=True)
        }

    @property
    def truth_sharp_images(self):
        """``truth_sharp`` by band as `~astropy.nddata.CCDData`, with unit and WCS."""
        return {b: self._noise_free(data, b) for b, data in zip(self.bands, self.truth_sharp, strict=True)}

    def _noise_free(self, data, band, psf=None):
        from astropy.io.fits import Header
        from astropy.nddata import CCDData

        meta = Header({"OBJECT": "simulated field, noise-free", "FILTER": band, "SIMSEED": self.seed})
        return CCDData(data.copy(), unit="nanomaggy", wcs=self.wcs.deepcopy(), psf=psf, meta=meta)

    @property
    def sky_sigma(self):
        """Noise per pixel on empty sky, (band,), in nanomaggies."""
        return np.array([image.meta["SKYSIGMA"] for image in self.images.values()])


@dataclass
class _Source:
    """A source before it is drawn: its components share a place."""

    kind: str
    x: float
    y: float
    flux: dict[str, float]
    parts: list[tuple[object, dict[str, float]]] = field(default_factory=list)
    half_light_radius: float = 0.0
    blend: int = 0


def simulate_field(
    shape=(512, 512),
    bands=("g", "r", "i"),
    pixel_scale=0.2,
    *,
    seed=0,
    fwhm=None,
    depth=None,
    n_spirals=None,
    n_blends=None,
    n_stars=None,
    galaxy_density=35.0,
    saturated_star=True,
    bad_column=True,
    sharp_fwhm=None,
    center=(180.5, -0.5),
):
    """Make a field of galaxies and stars as a wide survey would see it, with the truth behind it.

    Parameters
    ----------
    shape : tuple of int, optional
        (y, x) in pixels, at least 64 each.
    bands : sequence of str, optional
        From `FIELD_BANDS`. The same seed gives the same sources and noise in a band whichever others are made.
    pixel_scale : float, optional
        Arcsec per pixel.
    seed : int, optional
        The global random generators are not used.
    fwhm, depth : float or mapping, optional
        Seeing in arcsec and 5-sigma AB magnitude in a 2-arcsec circle, for all bands or by band. Default:
        `FIELD_BANDS`.
    n_spirals, n_blends, n_stars : int, optional
        Large spirals, blends of two or three galaxies within a few FWHM, and stars. Default: by area, and 3, 5 and 9
        for the default shape.
    galaxy_density : float, optional
        Galaxies of 19 < r < 25 per square arcminute, besides those.
    saturated_star, bad_column : bool, optional
        Whether there is a star beyond saturation, with its bleed trail, and a hot column; both are masked.
    sharp_fwhm : float, optional
        Arcsec; resolution of ``truth_sharp``. Default: two pixels, the finest that the grid samples well, and so what
        a restoration can aim at (Magain, Courbin & Sohy 1998, ApJ 494, 472).
    center : tuple of float, optional
        RA and Dec of the image's centre in degrees.

    Returns
    -------
    `SimulatedField`

    Raises
    ------
    InputError
        If an argument is out of range.
    MissingDependencyError
        If GalSim is not installed.

    Notes
    -----
    Galaxies are bulge + disk + clumps, each with its colours; a spiral's disk is an exponential one modulated along
    logarithmic arms, and its clumps lie on them. Photon counts are Poisson draws of source plus sky; the variance is
    that of the counts' expectation, so (image - truth) / sqrt(variance) is standard normal where nothing is masked.
    """
    galsim = _galsim()
    shape, bands = _checked_shape(shape), _checked_bands(bands)
    sharp_fwhm = 2 * pixel_scale if sharp_fwhm is None else sharp_fwhm
    positive = {"pixel_scale": pixel_scale, "galaxy_density": galaxy_density, "sharp_fwhm": sharp_fwhm}
    for name, value in positive.items():
        if np.ndim(value) or not np.isfinite(value) or value <= 0:
            raise InputError(f"{name}={value!r} must be a positive number")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed={seed!r} must be a non-negative integer")
    conditions = _conditions(bands, fwhm, depth)

    numbers = _numbers(shape, pixel_scale, n_spirals, n_blends, n_stars, galaxy_density)
    layout_seed, noise_seed = np.random.SeedSequence(int(seed)).spawn(2)
    scene = _Scene(galsim, shape, pixel_scale, np.random.default_rng(layout_seed))
    sources = scene.populate(*numbers, saturated_star)

    kernels = [galsim.Moffat(beta=_MOFFAT_BETA, fwhm=c.fwhm).shear(g1=0.01, g2=0.005) for c in conditions]
    truth = np.stack([scene.draw(sources, b, k) for b, k in zip(bands, kernels, strict=True)])
    sharp_psf = galsim.Gaussian(fwhm=sharp_fwhm)
    truth_sharp = np.stack([scene.draw(sources, b, sharp_psf) for b in bands])
    psfs = _pixel_psfs(galsim, kernels, conditions, pixel_scale, shape)

    wcs = _tan_wcs(shape, pixel_scale, center)
    column = int(0.37 * shape[1]) if bad_column else None
    noise_seeds = dict(zip(FIELD_BANDS, noise_seed.spawn(len(FIELD_BANDS)), strict=True))
    images = {}
    for b, condition, band_truth, psf in zip(bands, conditions, truth, psfs, strict=True):
        rng = np.random.default_rng(noise_seeds[b])
        images[b] = _observe(b, condition, band_truth, psf, wcs, pixel_scale, column, seed, rng)
    return SimulatedField(
        images=images,
        truth=truth,
        truth_sharp=truth_sharp,
        catalog=_catalog(sources, bands, wcs, images),
        psfs=psfs,
        wcs=wcs,
        bands=bands,
        pixel_scale=float(pixel_scale),
        sharp_fwhm=float(sharp_fwhm),
        seed=int(seed),
    )


class _Scene:
    """Where sources are, what they are made of, and how they are drawn."""

    def __init__(self, galsim, shape, pixel_scale, rng):
        self.galsim = galsim
        self.shape = shape
        self.scale = pixel_scale
        self.rng = rng
        self._taken = []  # (x, y, radius) of sources that want room

    def populate(self, n_spirals, n_blends, n_stars, n_galaxies, saturated_star):
        """All sources, the conspicuous ones first so that they find room."""
        rng = self.rng
        sources = []
        if saturated_star:
            sources.append(self._saturated_star())
        for k in range(n_spirals):
            sources.append(self._spiral(k))
        for k in range(n_blends):
            sources.extend(self._blend(k + 1, 3 if k % 3 == 0 else 2))
        if n_spirals:
            sources.append(self._elliptical())
        for _ in range(n_stars):
            sources.append(self._star(rng.uniform(17.3, 22.0)))
        magnitudes = 25 + np.log10(rng.uniform(10 ** (-0.35 * 6), 1, n_galaxies)) / 0.35
        sources.extend(self._galaxy(m) for m in magnitudes)
        return sources

    def draw(self, sources, band, psf):
        """The scene in one band through a PSF, (y, x), without noise."""
        galsim = self.galsim
        image = galsim.ImageF(self.shape[1], self.shape[0], xmin=0, ymin=0, scale=self.scale)
        largest = 2 * max(self.shape)
        for source in sources:
            profile = galsim.Convolve(self._profile(source, band), psf)
            if source.kind != "spiral" and source.flux[band] > _BRIGHT:
                profile = profile.withGSParams(maxk_threshold=1e-6, kvalue_accuracy=1e-8)
            size = profile.getGoodImageSize(self.scale)
            # The usual stamp holds 99.5 % of the light; the rest of a bright source would show its edge.
            size = min(2 * size if source.flux[band] > _BRIGHT else size, largest)
            stamp = profile.drawImage(nx=size, ny=size, scale=self.scale, center=galsim.PositionD(source.x, source.y))
            overlap = stamp.bounds & image.bounds
            if overlap.isDefined():
                image[overlap] += stamp[overlap]
        return image.array

    def _profile(self, source, band):
        parts = [profile.withFlux(flux[band]) for profile, flux in source.parts]
        return parts[0] if len(parts) == 1 else self.galsim.Sum(parts)

    def _place(self, radius, margin=None):
        """A free place for a source of some radius (pixels); after many tries the one with most room."""
        margin = radius if margin is None else margin
        margin = min(margin, 0.4 * min(self.shape))
        size = np.array(self.shape[::-1])
        best, best_room = None, -np.inf
        for _ in range(200):
            place = self.rng.uniform(margin, size - 1 - margin)
            room = min((np.hypot(*(place - t[:2])) - t[2] - radius for t in self._taken), default=np.inf)
            if room > best_room:
                best, best_room = place, room
            if room >= 0:
                break
        self._taken.append(np.array([*best, radius]))
        return float(best[0]), float(best[1])

    def _fluxes(self, magnitude, component):
        """Flux of a component by band, from its r magnitude; colours scatter, the same in whichever bands."""
        scatter = 0.06 * self.rng.normal(size=len(FIELD_BANDS))
        table = _COLOURS[component] if isinstance(component, str) else component
        return {
            b: float(10 ** (0.4 * (_ZERO_POINT - magnitude - table[b] - (s if b != "r" else 0))))
            for b, s in zip(FIELD_BANDS, scatter, strict=True)
        }

    def _source(self, kind, place, parts, half_light_radius=0.0, blend=0):
        flux = {b: sum(f[b] for _, f in parts) for b in FIELD_BANDS}
        return _Source(kind, *place, flux, parts, half_light_radius, blend)

    def _star(self, magnitude, place=None):
        t = self.rng.beta(1.2, 1.5)
        table = {b: (1 - t) * _COLOURS["hot"][b] + t * _COLOURS["cool"][b] for b in FIELD_BANDS}
        place = self._place(8, margin=4) if place is None else place
        return self._source("star", place, [(self.galsim.DeltaFunction(), self._fluxes(magnitude, table))])

    def _saturated_star(self):
        """Fainter in a smaller field, where its halo would cover everything."""
        magnitude = 13.0 + 1.25 * np.log10(_REFERENCE_AREA / np.prod(self.shape))
        place = (0.82 * self.shape[1], 0.80 * self.shape[0])
        place = tuple(p + self.rng.uniform(-0.05, 0.05) * min(self.shape) for p in place)
        self._taken.append(np.array([*place, 0.12 * min(self.shape)]))
        return self._star(max(magnitude, 13.0), place)

    def _spiral(self, k):
        rng = self.rng
        scale_length = min(rng.uniform(2.0, 2.9), 0.045 * min(self.shape) * self.scale)
        place = self._place(2.6 * scale_length / self.scale, margin=4 * scale_length / self.scale)
        magnitude = rng.uniform(16.3, 17.1) + 5 * np.log10(2.5 / scale_length)
        return self._arms(place, magnitude, scale_length, axis_ratio=(0.85, 0.6, 0.4)[k % 3])

    def _arms(self, place, magnitude, scale_length, axis_ratio, blend=0):
        """A galaxy of bulge, spiral disk and clumps."""
        rng, galsim = self.rng, self.galsim
        angle = rng.uniform(0, np.pi)
        disk, clumps = _spiral_images(rng, scale_length, axis_ratio, angle, 0.5 * self.scale)
        bulge_part, clump_part = rng.uniform(0.10, 0.22), rng.uniform(0.12, 0.20)
        bulge = galsim.Sersic(n=2.5, half_light_radius=1.0, trunc=_BULGE_EDGE).dilate(0.28 * scale_length)
        bulge = bulge.shear(q=0.5 + 0.5 * axis_ratio, beta=angle * galsim.radians)
        interpolated = [galsim.InterpolatedImage(galsim.ImageF(a, scale=0.5 * self.scale)) for a in (disk, clumps)]
        parts = [
            (bulge, self._fluxes(_part(magnitude, bulge_part), "bulge")),
            (interpolated[0], self._fluxes(_part(magnitude, 1 - bulge_part - clump_part), "disk")),
            (interpolated[1], self._fluxes(_part(magnitude, clump_part), "clumps")),
        ]
        return self._source("spiral", place, parts, 1.5 * scale_length, blend)

    def _elliptical(self):
        rng, galsim = self.rng, self.galsim
        radius = min(rng.uniform(1.2, 1.7), 0.03 * min(self.shape) * self.scale)
        profile = galsim.Sersic(n=3.5, half_light_radius=radius)
        profile = profile.shear(q=rng.uniform(0.6, 0.9), beta=rng.uniform(0, np.pi) * galsim.radians)
        place = self._place(4 * radius / self.scale)
        fluxes = self._fluxes(17.4 + 5 * np.log10(1.5 / radius), "bulge")
        return self._source("elliptical", place, [(profile, fluxes)], radius)

    def _galaxy(self, magnitude, place=None, radius=None, blend=0):
        """A galaxy of bulge and disk; its place need not be free."""
        rng, galsim = self.rng, self.galsim
        if radius is None:
            radius = max(0.55 * 10 ** (-0.13 * (magnitude - 22) + 0.13 * rng.normal()), 0.12)
        if place is None:
            place = tuple(rng.uniform(0, np.array(self.shape[::-1]) - 1))
        bulge_part = rng.beta(1.0, 2.5)
        q, beta = rng.uniform(0.35, 1.0), rng.uniform(0, np.pi) * galsim.radians
        disk = galsim.Exponential(half_light_radius=radius).shear(q=q, beta=beta)
        bulge = galsim.Sersic(n=2.5, half_light_radius=1.0, trunc=_BULGE_EDGE).dilate(0.4 * radius)
        bulge = bulge.shear(q=0.5 + 0.5 * q, beta=beta)
        parts = [
            (bulge, self._fluxes(_part(magnitude, bulge_part), "bulge")),
            (disk, self._fluxes(_part(magnitude, 1 - bulge_part), "disk")),
        ]
        return self._source("galaxy", place, parts, radius, blend)

    def _blend(self, number, members):
        """Galaxies within 1.2 to 3 FWHM of the first; that of the first blend, which is easier, is a small spiral."""
        rng = self.rng
        seeing = np.median([band.fwhm for band in FIELD_BANDS.values()]) / self.scale
        x, y = self._place(6 * seeing)
        primary = rng.uniform(18.8, 20.3)
        if number == 1:
            scale_length = min(0.9, 0.03 * min(self.shape) * self.scale)
            sources = [self._arms((x, y), 18.4, scale_length, 0.75, number)]
        else:
            sources = [self._galaxy(primary, (x, y), rng.uniform(0.6, 1.0), number)]
        angle = rng.uniform(0, 2 * np.pi)
        for _ in range(members - 1):
            angle += rng.uniform(1.6, 2.6)
            separation = seeing * rng.uniform(2.0 if number == 1 else 1.2, 3.0)
            place = x + separation * np.cos(angle), y + separation * np.sin(angle)
            sources.append(self._galaxy(primary + rng.uniform(0.0, 1.2), place, rng.uniform(0.4, 0.8), number))
        return sources


def _part(magnitude, fraction):
    """Magnitude of a part of the light."""
    return magnitude - 2.5 * np.log10(max(fraction, 1e-3))


def _spiral_images(rng, scale_length, axis_ratio, angle, scale):
    """Surface brightness of a spiral's disk and of its clumps, without PSF, on a grid of ``scale`` arcsec.

    The disk is exponential in the radius R of its own plane and modulated along logarithmic arms,
    phi = ln(R / h) / tan(pitch); the modulation keeps the mean over each ring.
    """
    from scipy.ndimage import gaussian_filter
    from scipy.special import i0e

    arms, pitch = 2, np.deg2rad(rng.uniform(16, 24)) * rng.choice([-1, 1])
    contrast, sharpness, phase = rng.uniform(0.55, 0.75), rng.uniform(1.5, 2.5), rng.uniform(0, 2 * np.pi)
    half = int(np.ceil(5.0 * scale_length / scale))
    v, u = np.mgrid[-half : half + 1, -half : half + 1] * scale
    cos, sin = np.cos(angle), np.sin(angle)
    major, minor = u * cos + v * sin, (v * cos - u * sin) / axis_ratio
    radius = np.hypot(major, minor)
    azimuth = np.arctan2(minor, major)

    wound = np.log(np.maximum(radius, 0.05 * scale_length) / scale_length) / np.tan(pitch)
    arm = np.exp(sharpness * (np.cos(arms * (azimuth - wound) - phase) - 1)) / i0e(sharpness)
    strength = contrast * (1 - np.exp(-((radius / (0.7 * scale_length)) ** 2)))
    texture = gaussian_filter(rng.normal(size=radius.shape), 0.10 * scale_length / scale)
    texture = np.exp(0.18 * texture / texture.std())
    edge = np.clip((radius - 3.8 * scale_length) / (1.1 * scale_length), 0, 1)
    taper = 0.5 * (1 + np.cos(np.pi * edge))
    disk = np.exp(-radius / scale_length) * (1 + strength * (arm - 1)) * texture * taper

    clumps = np.zeros_like(disk)
    n = int(rng.integers(45, 70))
    r = np.clip(rng.gamma(3.0, 0.55, n), 0.5, 3.2) * scale_length
    along = np.log(r / scale_length) / np.tan(pitch) + (phase + 2 * np.pi * rng.integers(arms, size=n)) / arms
    along += rng.normal(scale=0.16, size=n)
    a, b = r * np.cos(along), axis_ratio * r * np.sin(along)
    for x, y, width, flux in zip(
        a * cos - b * sin,
        a * sin + b * cos,
        scale_length * rng.uniform(0.03, 0.07, n),
        rng.lognormal(sigma=0.9, size=n),
        strict=True,
    ):
        width = max(width, scale)
        gauss_x, gauss_y = (np.exp(-0.5 * ((g - p) / width) ** 2) for g, p in ((u[0], x), (v[:, 0], y)))
        clumps += flux / width**2 * gauss_y[:, None] * gauss_x
    clumps *= taper
    return (disk / disk.sum()).astype(np.float32), (clumps / clumps.sum()).astype(np.float32)


def _observe(band, condition, truth, psf, wcs, pixel_scale, column, seed, rng):
    """One band as the camera gives it: photon noise, saturation and bleed, the hot column, and its masks."""
    from astropy.nddata import CCDData, VarianceUncertainty

    sigma, sky, gain = _noise(condition, pixel_scale)
    expected = np.maximum(truth.astype(np.float64), 0) + sky
    data = rng.poisson(expected * gain) / gain - sky
    variance = expected / gain
    data, saturated = _bleed(data, _SATURATION)
    mask = _grown(saturated)
    variance[saturated] = _SATURATION / gain
    if column is not None:
        data[:, column] = 0.3 * _SATURATION * rng.uniform(0.7, 1.0, len(data))
        mask[:, column] = True
    meta = {
        "OBJECT": "simulated field",
        "FILTER": band,
        "SEEING": (condition.fwhm, "arcsec, FWHM of the PSF"),
        "MAGZERO": (_ZERO_POINT, "AB magnitude of one nanomaggy"),
        "GAIN": (round(gain, 3), "electrons per nanomaggy"),
        "SATURATE": (_SATURATION, "nanomaggy per pixel"),
        "SKYSIGMA": (sigma, "nanomaggy per pixel, noise of empty sky"),
        "SIMSEED": (int(seed), "seed of the simulation"),
    }
    from astropy.io.fits import Header

    header = Header()
    for key, value in meta.items():
        header[key] = value
    return CCDData(
        data.astype(np.float32),
        unit="nanomaggy",
        mask=mask,
        uncertainty=VarianceUncertainty(variance.astype(np.float32)),
        wcs=wcs.deepcopy(),
        psf=psf.copy(),
        meta=header,
    )


def _noise(condition, pixel_scale):
    """Sky noise and sky level in nanomaggies per pixel, and electrons per nanomaggy."""
    aperture = np.pi / pixel_scale**2  # pixels in a circle of 2 arcsec diameter
    sigma = 10 ** (0.4 * (_ZERO_POINT - condition.depth)) / 5 / np.sqrt(aperture)
    sky = 10 ** (0.4 * (_ZERO_POINT - condition.sky)) * pixel_scale**2
    return float(sigma), float(sky), float(sky / sigma**2)


def _bleed(image, level):
    """Charge above full well runs along its column, up and down alike, until it finds room; no charge is lost."""
    image = image.copy()
    for x in np.flatnonzero((image > level).any(axis=0)):
        column = image[:, x]
        full = np.flatnonzero(column > level)
        for run in np.split(full, np.flatnonzero(np.diff(full) > 1) + 1):
            excess = (column[run] - level).sum()
            column[run] = level
            centre = run.mean()
            order = np.argsort(np.abs(np.arange(len(column)) - centre), kind="stable")
            room = np.maximum(level - column[order], 0)
            filled = np.cumsum(room)
            column[order] += np.clip(excess - (filled - room), 0, room)
    return image, image >= level * (1 - 1e-6)


def _grown(mask):
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask, np.ones((3, 3), bool)) if mask.any() else mask.copy()


def _pixel_psfs(galsim, kernels, conditions, pixel_scale, shape):
    """PSFs integrated over pixels, on one odd stamp that holds six FWHM to each side where the image allows it."""
    size = 2 * int(np.ceil(6 * max(c.fwhm for c in conditions) / pixel_scale)) + 1
    size = min(size, (min(shape) - 1) // 2 * 2 - 1)
    psfs = np.stack([k.drawImage(nx=size, ny=size, scale=pixel_scale).array for k in kernels]).astype(np.float64)
    return (psfs / psfs.sum(axis=(1, 2), keepdims=True)).astype(np.float32)


def _tan_wcs(shape, pixel_scale, center):
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = center
    wcs.wcs.crpix = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    wcs.wcs.cdelt = -pixel_scale / 3600, pixel_scale / 3600
    wcs.wcs.cunit = "deg", "deg"
    wcs.wcs.radesys = "ICRS"
    wcs.array_shape = shape
    wcs.wcs.set()
    return wcs


def _catalog(sources, bands, wcs, images):
    from astropy.table import Table

    x, y = np.array([s.x for s in sources]), np.array([s.y for s in sources])
    ra, dec = wcs.pixel_to_world_values(x, y)
    table = Table()
    table["id"] = np.arange(1, len(sources) + 1)
    table["type"] = [s.kind for s in sources]
    for name, values, unit in (("x", x, "pix"), ("y", y, "pix"), ("ra", ra, "deg"), ("dec", dec, "deg")):
        table[name] = values
        table[name].unit = unit
    for b in bands:
        table[f"flux_{b}"] = [s.flux[b] for s in sources]
        table[f"flux_{b}"].unit = "nanomaggy"
    table["half_light_radius"] = [s.half_light_radius for s in sources]
    table["half_light_radius"].unit = "arcsec"
    table["blend"] = [s.blend for s in sources]
    table["saturated"] = _touches_saturated(x, y, images)
    return table


def _touches_saturated(x, y, images):
    """Whether a source's own pixel is at full well in any band."""
    full = np.any([image.data >= _SATURATION * (1 - 1e-6) for image in images.values()], axis=0)
    rows, columns = (np.clip(np.rint(p).astype(int), 0, n - 1) for p, n in zip((y, x), full.shape, strict=True))
    return full[rows, columns]


def _numbers(shape, pixel_scale, n_spirals, n_blends, n_stars, galaxy_density):
    """Numbers of spirals, blends, stars and other galaxies."""
    area = np.prod(shape) / _REFERENCE_AREA
    defaults = {"n_spirals": (n_spirals, 3), "n_blends": (n_blends, 5), "n_stars": (n_stars, 9)}
    numbers = []
    for name, (value, usual) in defaults.items():
        value = max(1, round(usual * area)) if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise InputError(f"{name}={value!r} must be a non-negative integer")
        numbers.append(int(value))
    square_arcmin = np.prod(shape) * (pixel_scale / 60) ** 2
    return *numbers, round(galaxy_density * square_arcmin)


def _conditions(bands, fwhm, depth):
    conditions = []
    for b in bands:
        changes = {}
        for name, value in (("fwhm", fwhm), ("depth", depth)):
            value = value.get(b) if isinstance(value, Mapping) else value
            if value is None:
                continue
            if np.ndim(value) or not np.isfinite(value) or value <= 0:
                raise InputError(f"{name}={value!r} in band {b!r} must be a positive number")
            changes[name] = float(value)
        conditions.append(FIELD_BANDS[b]._replace(**changes))
    return conditions


def _checked_shape(shape):
    if np.shape(shape) != (2,) or not all(isinstance(n, int | np.integer) and n >= 64 for n in shape):
        raise InputError(f"shape={shape!r} must be two integers (y, x) of at least 64")
    return int(shape[0]), int(shape[1])


def _checked_bands(bands):
    bands = (bands,) if isinstance(bands, str) else tuple(bands)
    unknown = [b for b in bands if b not in FIELD_BANDS]
    if unknown or not bands or len(set(bands)) < len(bands):
        raise InputError(f"bands={bands!r} must be different ones of {', '.join(FIELD_BANDS)}")
    return bands


def _galsim():
    try:
        import galsim
    except ImportError as error:
        raise MissingDependencyError(
            "simulating a field needs GalSim: run `pip install 'astrogan[sim]'` (or `pip install galsim`)"
        ) from error
    return galsim
