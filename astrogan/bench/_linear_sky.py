"""Blank sky, injected sources and two laws: the parts of the linear benchmark that know their truth exactly."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np

from astrogan.bench._linear_common import (
    PERCENT,
    Coverage,
    as_table,
    blur,
    find_sources,
    flux_columns,
    gaussian_kernel,
    gaussian_sigma,
    load_methods,
    restore,
)

_THRESHOLD = 5.0
_SKY, _READ = 20.0, 3.0  # electrons a pixel
_MEGAPIXEL = 1e6


# ---- blank sky -------------------------------------------------------------------------------------------------------


def blank(methods=None, *, frames=8, size=256, fwhm=4.0, kinds=("white", "photons"), seed=0):
    """Frames of nothing but noise, restored: what a detection finds there."""
    methods = load_methods(methods)
    rows = []
    for number, kind in enumerate(kinds):
        counts = defaultdict(_BlankFigures)
        kernel = gaussian_kernel(fwhm)
        for frame in range(frames):
            noise, sigma = _noise_frame(kind, size, np.random.default_rng([seed, number, frame]))
            counts["(input)"].add(noise, sigma, fwhm)
            for method in methods:
                counts[method.label].add(restore(method, noise, sigma, kernel).data, sigma, fwhm)
        rows += [{"noise": kind, "method": label} | figures.columns for label, figures in counts.items()]
    return as_table(rows, _BLANK_CAPTION.format(fwhm=fwhm, sky=_SKY, read=_READ), {"std": ".4f", "peak": ".2f"})


_BLANK_CAPTION = (
    "Pure noise, restored with a PSF of {fwhm:g} px; groups of pixels beyond five sigma, per million pixels, three "
    "ways. pixel: sigma is the input's noise in a pixel. matched: both images are smoothed with the PSF, and sigma is "
    "the noise of the smoothed input: the matched filter, at one threshold for input and output. own: smoothed "
    "likewise, and sigma is the robust noise of the smoothed result: a user who knows nothing but the result. "
    "..._minus: groups below -5 sigma. peak: the largest pixel, std: the scatter, in the input's sigma. noise: white, "
    "or photons of {sky:g} electrons of sky with read noise {read:g}."
)


def _noise_frame(kind, size, rng):
    """(image, sigma); the sky's level is taken off."""
    if kind == "white":
        return rng.standard_normal((size, size)), 1.0
    electrons = rng.poisson(_SKY, (size, size)) + rng.normal(0, _READ, (size, size))
    return electrons - _SKY, float(np.sqrt(_SKY + _READ**2))


class _BlankFigures:
    """False detections of one method over frames."""

    def __init__(self):
        self.pixels, self.counts, self.peak, self.square = 0, np.zeros(6), -np.inf, 0.0

    def add(self, image, sigma, fwhm):
        from astrogan.metrics import false_detections

        smoothed_noise = sigma / (2 * np.sqrt(np.pi) * gaussian_sigma(fwhm))
        found = [
            false_detections(image, threshold=_THRESHOLD, sigma=sigma),
            false_detections(image, threshold=_THRESHOLD, sigma=smoothed_noise, fwhm=fwhm),
            # A result that is exactly flat has no noise of its own, and nothing to find.
            false_detections(image, threshold=_THRESHOLD, fwhm=fwhm) if np.ptp(image) > 0 else None,
        ]
        self.counts += [n for one in found for n in ((one.positive, one.negative) if one else (0, 0))]
        self.pixels += image.size
        self.peak = max(self.peak, float(image.max()) / sigma)
        self.square += float((image**2).sum()) / sigma**2

    @property
    def columns(self):
        names = [name + sign for name in ("pixel", "matched", "own") for sign in ("", "_minus")]
        rates = dict(zip(names, self.counts * _MEGAPIXEL / self.pixels, strict=True))
        return rates | {"peak": self.peak, "std": float(np.sqrt(self.square / self.pixels))}


# ---- injected sources ------------------------------------------------------------------------------------------------


def injected(
    methods=None,
    *,
    fields=100,
    sources=10,
    size=160,
    native_fwhm=2.5,
    fwhm=4.0,
    snr_range=(3.0, 100.0),
    edges=(3, 5, 10, 30, 100),
    apertures=(1.0, 2.0),
    sky=None,
    seed=0,
):
    """Stars and galaxies in noise: how many are found, with which flux, and what is found besides.

    ``sky`` is a list of real source-free patches (y, x) of unit noise, used where given besides white noise.
    """
    methods = load_methods(methods)
    kernel = gaussian_kernel(fwhm)
    rows, totals = [], []
    for background in ("white",) if sky is None or not len(sky) else ("white", "real"):
        figures = defaultdict(lambda: _InjectedFigures(apertures))
        for number in range(fields):
            rng = np.random.default_rng([seed, number])
            shape = (size, size) if background == "white" else sky[number % len(sky)].shape
            scene = Scene(shape, sources, native_fwhm, kernel, snr_range, rng)
            noise = rng.standard_normal(shape) if background == "white" else sky[number % len(sky)]
            seen = scene.blurred + noise
            figures["(input)"].add(scene, seen, None)
            for method in methods:
                restored = restore(method, seen, 1.0, kernel)
                figures[method.label].add(scene, restored.data, restored if background == "white" else None)
        for label, one in figures.items():
            rows += [{"sky": background, "method": label} | row for row in one.bins(edges)]
            totals.append({"sky": background, "method": label} | one.totals)
    return (
        as_table(rows, _INJECTED_CAPTION.format(fwhm=fwhm, native=native_fwhm, apertures=apertures)),
        as_table(totals, _TOTALS_CAPTION),
    )


_INJECTED_CAPTION = (
    "Stars and exponential galaxies at a resolution of {native:g} px, blurred by {fwhm:g} px more, by their S/N under "
    "a matched filter in the input. found: per cent with a detection within 3 px; detections are groups above five "
    "times the noise of the smoothed input, after smoothing with the PSF of the input (input and results alike). "
    "flux_1..: median bias, per cent, of the flux within {apertures} FWHM of the blurred image, of all sources whether "
    "found or not, over the true one at the resolution of the truth; err_1..: its standard error."
)
_TOTALS_CAPTION = (
    "Over all those fields: detections that are no injected source, per million pixels, per cent of pixels in the "
    "intervals (against the truth without noise) on sources and everywhere."
)


class Scene:
    """Sources without noise at the truth's resolution, and as the input has them; white noise has sigma one."""

    def __init__(self, shape, count, native_fwhm, kernel, snr_range, rng):
        self.positions = _positions(shape, count, rng)
        self.snr = np.exp(rng.uniform(*np.log(snr_range), len(self.positions)))
        self.sharp, self.blurred = np.zeros(shape), np.zeros(shape)
        self.profiles = []
        total = np.hypot(native_fwhm, _width(kernel))
        self.fwhm = float(total)
        native = gaussian_kernel(native_fwhm)
        for number, position in enumerate(self.positions):
            size = 0.0 if number % 2 else rng.uniform(1.0, 3.0)
            unit = _profile(shape, position, size, rng.uniform(0.3, 1.0), rng.uniform(0, np.pi))
            sharp = blur(unit, native)
            blurred = blur(sharp, kernel)
            flux = self.snr[number] / np.sqrt((blurred**2).sum())
            self.sharp += flux * sharp
            self.blurred += flux * blurred

    def flux_ratios(self, image, apertures, use=np.s_[:]):
        """Flux of an image over the true one, (source, aperture); radii are in FWHM, and ``use`` picks sources."""
        from astrogan.metrics import aperture_flux

        fluxes = (
            [aperture_flux(one, self.positions[use], factor * self.fwhm) for factor in apertures]
            for one in (image, self.sharp)
        )
        return np.divide(*map(np.array, fluxes)).T

    @property
    def smoothed_noise(self):
        return 1 / (2 * np.sqrt(np.pi) * gaussian_sigma(self.fwhm))


def _width(kernel):
    from astrogan.image.psf import psf_fwhm

    return psf_fwhm(kernel)


def _positions(shape, count, rng):
    """Random positions off the edge and apart from one another."""
    chosen = []
    for _ in range(100 * count):
        at = np.array([rng.uniform(14, n - 15) for n in shape[::-1]])
        if all(np.hypot(*(at - other)) > 24 for other in chosen):
            chosen.append(at)
        if len(chosen) == count:
            break
    return np.array(chosen).reshape(-1, 2)


def _profile(shape, position, size, ratio, angle):
    """A point, shared among four pixels, or an exponential disc of this scale length, axis ratio and angle."""
    image = np.zeros(shape)
    if size == 0:
        (x, y), (dx, dy) = np.floor(position).astype(int), position % 1
        image[y : y + 2, x : x + 2] = np.outer([1 - dy, dy], [1 - dx, dx])
        return image
    y, x = np.ogrid[: shape[0], : shape[1]]
    x, y = x - position[0], y - position[1]
    along = x * np.cos(angle) + y * np.sin(angle)
    across = (y * np.cos(angle) - x * np.sin(angle)) / ratio
    image = np.exp(-np.hypot(along, across) / size)
    return image / image.sum()


class _InjectedFigures:
    """Completeness, flux and false detections of one method over fields."""

    def __init__(self, apertures):
        self.apertures = apertures
        self.snr, self.found, self.ratio = [], [], []
        self.false, self.pixels = 0, 0
        self.on_source, self.everywhere = Coverage(), Coverage()

    def add(self, scene, image, restored):
        from scipy.ndimage import gaussian_filter

        from astrogan.metrics import match_positions

        smooth = gaussian_filter(np.asarray(image, np.float64), gaussian_sigma(scene.fwhm))
        detections, _ = find_sources(smooth, _THRESHOLD * scene.smoothed_noise)
        matches = match_positions(scene.positions, detections, radius=3.0)
        found = np.zeros(len(scene.positions), bool)
        found[matches.truth] = True
        self.snr.extend(scene.snr)
        self.found.extend(found)
        self.ratio.extend(scene.flux_ratios(image, self.apertures))
        self.false += len(detections) - len(matches.found)
        self.pixels += image.size
        if restored is not None:
            self.on_source.add(scene.sharp, restored, scene.sharp > 1)
            self.everywhere.add(scene.sharp, restored, np.s_[:])

    def bins(self, edges):
        snr, found, ratio = np.array(self.snr), np.array(self.found), np.array(self.ratio)
        rows = []
        for low, high in pairwise(edges):
            use = (snr >= low) & (snr < high)
            part = PERCENT * found[use].mean() if use.any() else np.nan
            rows.append({"snr": f"{low}-{high}", "n": int(use.sum()), "found": part} | flux_columns(ratio[use]))
        return rows

    @property
    def totals(self):
        names = ("source_68", "source_95", "all_68", "all_95")
        parts = dict(zip(names, (*self.on_source.parts[:2], *self.everywhere.parts[:2]), strict=True))
        return {"false": self.false * _MEGAPIXEL / self.pixels} | parts


def empty_patches(cube, exclude=None, *, size=160, limit=100):
    """Patches of a real field (band, y, x), with their sources taken out, less the median, of unit noise."""
    patches = []
    for band in np.asarray(cube, np.float64):
        for y in range(0, band.shape[0] - size + 1, size):
            for x in range(0, band.shape[1] - size + 1, size):
                patch = band[y : y + size, x : x + size]
                if exclude is not None and exclude[y : y + size, x : x + size].any():
                    continue
                patches.append(_cleaned(patch))
    return patches[:limit]


def _cleaned(patch):
    """Unit noise around zero, with sky of the patch itself in the place of every source above three sigma."""
    from scipy.ndimage import binary_dilation, gaussian_filter

    width = 2.0
    sky = patch - np.median(patch)
    sky = sky / (1.482602218505602 * np.median(np.abs(sky[sky < 0])))
    bad = binary_dilation(gaussian_filter(sky, width) > 3 / (2 * np.sqrt(np.pi) * width), iterations=4)
    # The median of all pixels counts the sources' wings as sky; what is left after them is what apertures sit on.
    sky = _patched(sky - sky[~bad].mean(), bad)
    return (sky - sky.mean()) / sky.std()


def _patched(sky, bad):
    """Bad pixels from the patch rolled until good sky lies on each of them."""
    sky, bad = sky.copy(), bad.copy()
    for shift in range(1, len(sky)):
        if not bad.any():
            break
        moved, still = np.roll(sky, (shift * 7, shift * 11), (0, 1)), np.roll(bad, (shift * 7, shift * 11), (0, 1))
        use = bad & ~still
        sky[use] = moved[use]
        bad &= ~use
    sky[bad] = 0
    return sky


# ---- laws ------------------------------------------------------------------------------------------------------------


def laws(methods=None, *, size=256, fwhm=4.0, factors=(1e-9, 1e-3, 1e5), tile=128, seed=0):
    """Whether a method is linear in the flux's unit, and blind to how an image is cut."""
    methods = load_methods(methods)
    kernel = gaussian_kernel(fwhm)
    rng = np.random.default_rng(seed)
    scene = Scene((size, size), 30, 2.5, kernel, (10.0, 1000.0), rng)
    seen = scene.blurred + rng.standard_normal(scene.blurred.shape)
    rows = []
    for method in methods:
        whole = restore(method, seen, 1.0, kernel, tile=8 * size).data
        peak = np.abs(whole).max()
        scaled = [
            np.abs(restore(method, factor * seen, factor, kernel, tile=8 * size).data / factor - whole).max()
            for factor in factors
        ]
        tiled = np.abs(restore(method, seen, 1.0, kernel, tile=tile).data - whole).max()
        rows.append({"method": method.label, "scale_error": max(scaled) / peak, "tile_error": tiled / peak})
    return as_table(rows, _LAWS_CAPTION.format(factors=factors, tile=tile), {"scale_error": ".1e", "tile_error": ".1e"})


_LAWS_CAPTION = (
    "Largest differences over the result's peak. scale_error: f(s x) / s against f(x), image and noise times each of "
    "{factors}. tile_error: tiles of {tile} px against the whole image."
)
