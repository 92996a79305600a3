"""Real images degraded, and real pairs: the parts ``stamps``, ``field`` and ``pairs`` of the linear benchmark."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astrogan.bench._linear_common import (
    UNIT,
    Coverage,
    as_table,
    blur,
    find_sources,
    flux_columns,
    gaussian_kernel,
    gaussian_sigma,
    load_methods,
    psnr_pair,
    restore,
    shape_columns,
    shape_errors,
    shapes_of,
)
from astrogan.exceptions import InputError

CEERS_BANDS = {"f150w": 1, "f277w": 3, "f444w": 6}
FIELD_BANDS = ("g", "r", "i")
FIELD_ROWS = slice(2000, 2600)
"""Rows of the KiDS field that no training may see."""
FIELD_BAD_COLUMNS = slice(845, 890)
"""A CCD's edge, that all of the field's sky is wrong at."""
KIDS_SCALE, SDSS_SCALE = 0.2, 0.339
_MAGGY = 1e9  # maggies are tiny numbers; tables are in nanomaggies


# ---- degraded galaxies ----------------------------------------------------------------------------------------------


def stamps(
    images,
    methods=None,
    *,
    fwhms=(3.0, 4.0, 5.0),
    peak_snrs=(10, 30, 100, 300),
    apertures=(1.0, 2.0, 3.0),
    realisations=2,
    seed=0,
):
    """Galaxies in the middle of images, blurred by one more Gaussian and put into white noise; what comes back."""
    from astrogan.metrics import aperture_flux

    methods = load_methods(methods)
    rows = []
    for level, snr in enumerate(peak_snrs):
        found = {method.label: defaultdict(list) for method in methods}
        coverage = {method.label: Coverage() for method in methods}
        for number, truth in enumerate(images):
            truth = np.asarray(truth, np.float64)
            for realisation in range(realisations):
                fwhm = fwhms[(number + realisation) % len(fwhms)]
                kernel = gaussian_kernel(fwhm)
                centre, peak = _middle_source(truth, kernel)
                noise = peak / snr
                degraded = _degraded(truth, kernel, noise, np.random.default_rng([seed, level, number, realisation]))
                radii = [factor * fwhm for factor in apertures]
                before = [aperture_flux(truth, centre, radius) for radius in radii]
                shape = shapes_of(truth, [centre], fwhm)
                truth_noise = _sky_noise(truth)
                for method in methods:
                    restored = restore(method, degraded, noise, kernel)
                    notes = found[method.label]
                    after = [aperture_flux(restored.data, centre, radius) for radius in radii]
                    notes["ratio"].append(np.divide(after, before))
                    notes["psnr"].append(psnr_pair(truth, restored.data))
                    notes["e"].extend(shape_errors(shape, shapes_of(restored.data, [centre], fwhm)))
                    notes["seconds"].append(restored.seconds)
                    coverage[method.label].add(truth, restored, np.s_[:], truth_sigma=truth_noise)
        for label, notes in found.items():
            rows.append(
                {"peak_snr": snr, "method": label, "n": len(notes["ratio"])}
                | dict(zip(("psnr", "psnr_asinh"), np.mean(notes["psnr"], axis=0), strict=True))
                | flux_columns(np.array(notes["ratio"]))
                | shape_columns(notes["e"])
                | coverage[label].columns
                | {"ms": 1e3 * np.mean(notes["seconds"])}
            )
    return as_table(rows, _STAMPS_CAPTION.format(apertures=apertures, fwhms=fwhms), _FORMATS)


_FORMATS = {
    "e_error": ".4f",
    "ms": ".1f",
    "in_68": ".1f",
    "in_95": ".1f",
    "in_68_noise": ".1f",
    "scale": ".3f",
    "flux": ".4f",
}
_STAMPS_CAPTION = (
    "Galaxies blurred by a Gaussian of {fwhms} px, with white noise of the blurred peak over peak_snr; the truth is "
    "the image before. PSNR in dB over the truth's peak, linear and of asinh(10 x / peak) / asinh(10), mean. flux_1..: "
    "median bias of the flux within {apertures} FWHM, per cent, err_1..: its standard error. e_error: median modulus "
    "of the difference in ellipticity (adaptive moments; no solution counts as infinite), e_failed: per cent without. "
    "in_68, in_95: per cent of pixels within 1 and 1.96 sigma of the method's uncertainty; in_68_noise: with the "
    "truth's own noise added to it, which is right for methods whose uncertainty does not hold it (nafnet's does)."
)


def _middle_source(truth, kernel):
    """(x, y) and height of the peak of the blurred image within a tenth of the edge from the middle."""
    blurred = blur(truth, kernel)
    y0, x0 = (n // 2 for n in truth.shape)
    reach = max(3, truth.shape[0] // 10)
    y, x = y0 - reach, x0 - reach
    part = blurred[y : y0 + reach + 1, x : x0 + reach + 1]
    dy, dx = np.unravel_index(part.argmax(), part.shape)
    return (float(x + dx), float(y + dy)), float(part.max())


def _degraded(truth, kernel, noise, rng):
    from astropy import units as u
    from astropy.nddata import CCDData

    from astrogan.operators.degrader import Degrader

    degrader = Degrader(kernel, noise * u.Unit(UNIT), match=False, noiseless_input=True)
    return np.asarray(degrader(CCDData(truth, unit=UNIT), rng=rng).data, np.float64)


def _sky_noise(image):
    """Noise of the sky: the scatter of second differences, that smooth light has no part in."""
    mixed = image[1:, 1:] - image[1:, :-1] - image[:-1, 1:] + image[:-1, :-1]
    return 1.482602218505602 * np.median(np.abs(mixed)) / 2


def load_stamps(data, limit=None, *, least_snr=50):
    """Planes of the CEERS galaxies of the test part, in nJy; only those far above their own noise."""
    from astropy.io import fits

    images = []
    for path in _unseen(sorted((Path(data) / "jwst_ceers_stamps").glob("*.fits.gz"))):
        cube = np.asarray(fits.getdata(path), np.float64)
        for plane in CEERS_BANDS.values():
            image = cube[plane]
            if not np.isfinite(image).all():
                continue
            _, peak = _middle_source(image, gaussian_kernel(3.0))
            if peak > least_snr * _sky_noise(image):
                images.append(image)
    if not images:
        raise InputError(f"data={str(data)!r} has no jwst_ceers_stamps/*.fits.gz to test on")
    return _spread(images, limit)


def _unseen(paths):
    """Files of the test part that show no sky that a file of another part shows: stamps of neighbours overlap."""
    from astrogan.bench._sky_overlap import overlap, read_footprint
    from astrogan.train.split import object_name, part_of

    parts = {path: part_of(object_name(path.name)) for path in paths}
    seen = [read_footprint(path) for path in paths if parts[path] != "test"]
    tested = {path: read_footprint(path) for path in paths if parts[path] == "test"}
    return [path for path, own in tested.items() if not any(overlap(own, other) for other in seen)]


def _spread(items, limit):
    """As many as asked for, evenly from all of them."""
    if limit is None or limit >= len(items):
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


# ---- a degraded field ------------------------------------------------------------------------------------------------


def field(
    cube,
    methods=None,
    *,
    fwhm=None,
    factors=(1, 2, 5, 10),
    broadening=1.5,
    apertures=(1.0, 2.0),
    exclude=None,
    least_snr=10.0,
    seed=0,
):
    """A real field (band, y, x) made broader and noisier, restored, and compared source by source with itself."""
    from astropy.nddata import CCDData, StdDevUncertainty

    from astrogan.image.psf import estimate_psf, psf_fwhm
    from astrogan.operators.degrader import Degrader

    methods = load_methods(methods)
    cube = np.asarray(cube, np.float32)
    exclude = np.zeros(cube.shape[1:], bool) if exclude is None else np.asarray(exclude, bool)
    if fwhm is None:
        fwhm = [psf_fwhm(estimate_psf(band).kernels[0]) for band in cube]
    fwhm = np.broadcast_to(np.asarray(fwhm, np.float64), len(cube))
    kernels = [gaussian_kernel(width * np.sqrt(broadening**2 - 1)) for width in fwhm]
    noise = np.array([_robust_noise(band) for band in cube])
    level = np.broadcast_to(noise[:, None, None], cube.shape)
    sources, on_source = _field_sources(cube, noise, fwhm, exclude, apertures, broadening)
    image = CCDData(cube, unit=UNIT, uncertainty=StdDevUncertainty(level.astype(np.float32)))
    masks = [exclude | _bright(band) for band in cube]
    rows = []
    for number, factor in enumerate(factors):
        degraded = Degrader(kernels, float(factor), match=False)(image, rng=np.random.default_rng([seed, number]))
        seen = np.asarray(degraded.data, np.float64)
        truth = _SourceFigures(cube, sources, noise * factor, fwhm * broadening, apertures, least_snr)
        for method in methods:
            restored = restore(method, seen, factor * level, kernels)
            coverage = Coverage()
            coverage.add(cube, restored, np.broadcast_to(on_source, cube.shape), truth_sigma=level)
            psnrs = [
                psnr_pair(band, result, mask=mask)
                for band, result, mask in zip(cube, restored.data, masks, strict=True)
            ]
            ratios, errors = truth.compare(restored.data)
            rows.append(
                {"noise": float(factor), "method": method.label, "n": len(ratios)}
                | dict(zip(("psnr", "psnr_asinh"), np.mean(psnrs, axis=0), strict=True))
                | flux_columns(ratios)
                | shape_columns(errors)
                | coverage.columns
                | {"ms": 1e3 * restored.seconds}
            )
    return as_table(rows, _FIELD_CAPTION.format(broadening=broadening, apertures=apertures, snr=least_snr), _FORMATS)


_FULL_SCALE = 0.999
"""Part of a field's pixels that PSNR is about: a few stars would outweigh all the rest."""
_SHAPE_SNR = 2.0
"""Shapes need sources brighter by this than fluxes do, or the truth's own noise is all that is seen."""
_FIELD_CAPTION = (
    "A real field with its PSF {broadening:g} times broader and its noise multiplied; the truth is the field before. "
    "Sources: isolated, found on the original, and with a true flux of at least {snr:g} sigma in the first aperture at "
    "this noise (for shapes twice that); all bands together. PSNR without the brightest 0.1 per cent of the pixels and "
    "their surroundings, over the largest value that is left. flux_1..: median bias of the flux within {apertures} "
    "FWHM (of the broadened PSF), per cent. in_68, in_95: coverage on the sources' pixels; "
    "in_68_noise: with the original's own noise added to the uncertainty (nafnet's holds it already)."
)


def _bright(band):
    """The brightest pixels and what they spread to."""
    from scipy.ndimage import binary_dilation

    return binary_dilation(band > np.quantile(band, _FULL_SCALE), np.ones((3, 3)), iterations=8)


class _SourceFigures:
    """Fluxes and shapes of the truth's sources, and how those of a result differ."""

    def __init__(self, cube, sources, noise, fwhm, apertures, least_snr):
        from astrogan.metrics import aperture_flux

        self.radii = [[factor * width for factor in apertures] for width in fwhm]
        self.fwhm, self.chosen, self.flux, self.shaped, self.shapes = fwhm, [], [], [], []
        for band, sigma, radii, width in zip(cube, noise, self.radii, fwhm, strict=True):
            flux = np.stack([aperture_flux(band, sources, radius) for radius in radii], axis=-1)
            bright = flux[:, 0] > least_snr * sigma * np.sqrt(np.pi) * radii[0]
            self.chosen.append(sources[bright])
            self.flux.append(flux[bright])
            self.shaped.append(flux[bright, 0] > _SHAPE_SNR * least_snr * sigma * np.sqrt(np.pi) * radii[0])
            shapes = shapes_of(np.asarray(band, np.float64), sources[bright][self.shaped[-1]], width / 2)
            self.shapes.append(shapes)

    def compare(self, cube):
        from astrogan.metrics import aperture_flux

        ratios, errors = [np.empty((0, len(self.radii[0])))], []
        for band, sources, radii, flux, shaped, shape, width in zip(
            cube, self.chosen, self.radii, self.flux, self.shaped, self.shapes, self.fwhm, strict=True
        ):
            if len(sources):
                after = np.stack([aperture_flux(band, sources, radius) for radius in radii], axis=-1)
                ratios.append(after / flux)
                errors.extend(shape_errors(shape, shapes_of(band, sources[shaped], width / 2)))
        return np.concatenate(ratios), errors


def _field_sources(cube, noise, fwhm, exclude, apertures, broadening):
    """Isolated sources away from edges and bad columns, and the pixels that belong to any source."""
    from scipy.ndimage import binary_dilation, gaussian_filter

    best = int(np.argmin(noise)) if len(cube) < 3 else 1
    width = gaussian_sigma(fwhm[best])
    smooth = gaussian_filter(cube[best].astype(np.float64), width)
    threshold = 5 * noise[best] / (2 * np.sqrt(np.pi) * width)
    positions, labels = find_sources(smooth, threshold, minimum_pixels=5)
    reach = max(apertures) * broadening * fwhm.max()
    border = int(np.ceil(reach)) + 8
    height, wide = cube.shape[1:]
    x, y = positions.T
    good = (x > border) & (x < wide - 1 - border) & (y > border) & (y < height - 1 - border)
    forbidden = binary_dilation(exclude, iterations=border) if exclude.any() else exclude
    rounded = np.rint(positions).astype(int)
    good &= ~forbidden[rounded[:, 1].clip(0, height - 1), rounded[:, 0].clip(0, wide - 1)]
    return positions[good & _isolated(positions, 1.5 * reach)], (labels > 0) & ~exclude


def _isolated(positions, distance):
    from scipy.spatial import cKDTree

    if len(positions) < 2:
        return np.ones(len(positions), bool)
    return cKDTree(positions).query(positions, k=2)[0][:, 1] > distance


def _robust_noise(band):
    """Scatter of the sky after clipping, for a field that is mostly sky."""
    values = np.asarray(band, np.float64).ravel()
    values = values - np.median(values)
    return 1.482602218505602 * np.median(np.abs(values[values < 0]))


def load_field(data, limit=None):
    """(cube (3, y, x) in nanomaggies, excluded pixels) of the part of the KiDS field that no training may see."""
    from astropy.io import fits

    folder = Path(data) / "kids_viking_field"
    rows = FIELD_ROWS if limit is None else slice(FIELD_ROWS.start, FIELD_ROWS.start + min(600, limit))
    planes = []
    for band in FIELD_BANDS:
        path = folder / f"{band}.fits"
        if not path.is_file():
            raise InputError(f"data={str(data)!r} has no kids_viking_field/{band}.fits")
        planes.append(np.asarray(fits.getdata(path, 1)[rows], np.float32) * np.float32(_MAGGY))
    cube = np.stack(planes)
    exclude = np.zeros(cube.shape[1:], bool)
    exclude[:, FIELD_BAD_COLUMNS] = True
    return cube, exclude


# ---- real pairs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A galaxy as two surveys saw it: a sharp deep image, and a broader, noisier one on larger pixels.

    ``valid`` is on the broad image's pixels and ``sharp_valid`` on the sharp one's; ``galaxy`` marks the galaxy.
    """

    name: str
    broad: np.ndarray
    sigma: np.ndarray
    valid: np.ndarray
    galaxy: np.ndarray
    sharp: np.ndarray
    sharp_valid: np.ndarray
    scale: float
    sharp_scale: float


@dataclass(frozen=True)
class Reference:
    """The sharp image on the broad one's pixels and in its flux, and the Gaussian that takes one to the other."""

    image: np.ndarray
    valid: np.ndarray
    fwhm: float
    flux_scale: float
    sky: float
    shift: tuple[float, float]
    reduced_chi2: float


def pairs(pairs_, methods=None):
    """Broad images restored and compared with the sharp ones."""
    methods = load_methods(methods)
    rows = []
    for pair in pairs_:
        reference = reference_of(pair)
        kernel = gaussian_kernel(reference.fwhm)
        mask = ~reference.valid
        galaxy = mask | ~pair.galaxy
        for method in methods:
            restored = restore(
                method, pair.broad, pair.sigma, kernel, mask=~pair.valid if not pair.valid.all() else None
            )
            linear, stretched = psnr_pair(reference.image, restored.data, mask=mask)
            inside, _ = psnr_pair(reference.image, restored.data, mask=galaxy)
            rows.append(
                {
                    "pair": pair.name,
                    "fwhm": reference.fwhm,
                    "scale": reference.flux_scale,
                    "chi2": reference.reduced_chi2,
                    "method": method.label,
                    "psnr": linear,
                    "psnr_asinh": stretched,
                    "psnr_galaxy": inside,
                    "flux": restored.data[~galaxy].sum() / reference.image[~galaxy].sum(),
                }
            )
    for method in methods:
        own = [row for row in rows if row["method"] == method.label and row["pair"] != "mean"]
        rows.append({"pair": "mean", "method": method.label} | {k: np.mean([r[k] for r in own]) for k in _PAIR_FIGURES})
    return as_table(rows, _PAIRS_CAPTION, _FORMATS)


_PAIR_FIGURES = ("fwhm", "scale", "chi2", "psnr", "psnr_asinh", "psnr_galaxy", "flux")
_PAIRS_CAPTION = (
    "One survey's images restored and compared with a sharper survey's, brought to the same pixels. For each pair, and "
    "for all methods alike, five numbers are fitted to the images as observed: offset (y, x), flux scale, sky, and the "
    "width (fwhm, px) of the Gaussian that blurs the sharp image to the broad one, which is the PSF that the methods "
    "are told. PSNR in dB over the reference's peak: in all valid pixels, linear and asinh; and in the galaxy alone."
)


def reference_of(pair):
    """Bring the sharp image to the broad one's pixels, flux, sky and position; fit what blurs one to the other."""
    from scipy.ndimage import binary_erosion, gaussian_filter, shift
    from scipy.optimize import minimize

    sharp, covered = _regridded(pair)
    # The fit moves the image by up to a pixel and blurs it: pixels next to missing ones would know of them.
    valid = pair.valid & binary_erosion(covered, np.ones((3, 3)), iterations=3)
    weight = 1 / pair.sigma[valid]
    target = pair.broad[valid] * weight

    def fitted(parameters):
        dy, dx, width = parameters
        moved = shift(sharp, (dy, dx), order=3, mode="nearest")
        blurred = gaussian_filter(moved, abs(width), mode="nearest")[valid]
        design = np.stack([blurred * weight, weight], axis=1)
        solution = np.linalg.lstsq(design, target, rcond=None)[0]
        return float(((design @ solution - target) ** 2).mean()), solution, moved

    starts = [(0.0, 0.0, 1.0), (0.5, -0.5, 1.0), (-0.5, 0.5, 1.0)]
    simplex = np.vstack([np.zeros(3), np.diag([0.3, 0.3, 0.3])])
    options = {"xatol": 1e-3, "fatol": 1e-5}
    best = min(
        (
            minimize(
                lambda p: fitted(p)[0],
                start,
                method="Nelder-Mead",
                options=options | {"initial_simplex": start + simplex},
            )
            for start in starts
        ),
        key=lambda result: result.fun,
    )
    chi2, (flux_scale, sky), moved = fitted(best.x)
    fwhm = max(abs(best.x[2]) / gaussian_sigma(1.0), 0.5)
    shift_ = (float(best.x[0]), float(best.x[1]))
    return Reference(flux_scale * moved + sky, valid, float(fwhm), float(flux_scale), float(sky), shift_, chi2)


def _regridded(pair):
    """(sharp image summed onto the broad one's pixels, where it reaches), their middles together."""
    from astropy.nddata import CCDData

    from astrogan.operators.translator import TargetSpec, Translator

    mask = None if pair.sharp_valid.all() else ~pair.sharp_valid
    target = TargetSpec(pixel_scale=pair.scale, shape=pair.broad.shape)
    translate = Translator("psf-matching", target=target)
    out = translate(CCDData(pair.sharp, unit=UNIT, mask=mask), pixel_scale=pair.sharp_scale)
    covered = np.ones(out.shape, bool) if out.mask is None else ~np.asarray(out.mask)
    return np.where(covered, out.data, 0).astype(np.float64), covered


def load_pairs(data, limit=None):
    """The five galaxies of ``kids_sdss_pairs``, in nanomaggies. Nothing may be trained on them."""
    from astropy.io import fits

    folder = Path(data) / "kids_sdss_pairs"

    def read(survey, name, kind):
        return np.asarray(fits.getdata(folder / survey / f"{name}{kind}.fits"), np.float64)

    names = sorted(path.name.removesuffix("fitim.fits") for path in (folder / "SDSS").glob("*fitim.fits"))
    if not names:
        raise InputError(f"data={str(data)!r} has no kids_sdss_pairs/SDSS/*fitim.fits")
    found = []
    for name in names[:limit]:
        broad, segments = read("SDSS", name, "fitim"), read("SDSS", name, "segim")
        middle = segments[broad.shape[0] // 2, broad.shape[1] // 2]
        found.append(
            Pair(
                name,
                _MAGGY * broad,
                _MAGGY * read("SDSS", name, "sigma"),
                read("SDSS", name, "mskim") == 0,
                segments == middle,
                _MAGGY * read("KiDS", name, "fitim"),
                read("KiDS", name, "mskim") == 0,
                SDSS_SCALE,
                KIDS_SCALE,
            )
        )
    return found
