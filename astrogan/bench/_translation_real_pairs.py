"""Five galaxies that two surveys saw, each image translated to the other survey and compared with what that one saw."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from astrogan.bench._linear_common import gaussian_kernel, gaussian_sigma
from astrogan.bench._linear_real import KIDS_SCALE, load_pairs, reference_of
from astrogan.exceptions import AstroganError, AstroganWarning

UNIT = "nmgy"
FLOOR = "real noise"
"""The row of what two images of the very same survey would differ by."""
_INNER = 2.0
"""Arcsec: radius of the smaller aperture."""
_MAGGY = 1e9
_CENTRE = 150.0, 0.0


@dataclass(frozen=True)
class View:
    """A galaxy as one survey saw it: nanomaggies per pixel, (y, x)."""

    survey: str
    data: np.ndarray
    sigma: np.ndarray
    valid: np.ndarray
    galaxy: np.ndarray
    blank: np.ndarray
    psf: np.ndarray
    wcs: Any
    scale: float


@dataclass(frozen=True)
class Galaxy:
    """Both views, on one flux scale and one sky; ``notes`` say what was measured to bring them there."""

    name: str
    kids: View
    sdss: View
    notes: dict

    def views(self, direction):
        """(image to translate, what it is to become)."""
        return (self.kids, self.sdss) if direction == DIRECTIONS[0] else (self.sdss, self.kids)


DIRECTIONS = ("KiDS to SDSS", "SDSS to KiDS")


class Result(NamedTuple):
    """A translated view without added noise, and, where the method has any, with it; (y, x)."""

    data: np.ndarray
    variance: np.ndarray | None
    valid: np.ndarray
    noisy: np.ndarray


# ---- the galaxies ---------------------------------------------------------------------------------------------------


def load_galaxies(data, limit=None):
    """The galaxies of ``kids_sdss_pairs``. Nothing may be trained on them."""
    return [_galaxy(pair, Path(data) / "kids_sdss_pairs") for pair in load_pairs(data, limit)]


def _galaxy(pair, folder):
    """Both images on one scale and one sky.

    The files have no WCS, and the surveys differ by a few per cent in flux and a little in sky. All that, and the
    Gaussian that the broader image is blurred by beyond the sharper one, is fitted to the two images as observed,
    before and apart from any translation.
    """
    from astropy.io import fits

    def read(survey, kind):
        return np.asarray(fits.getdata(folder / survey / f"{pair.name}{kind}.fits"), np.float64)

    reference = reference_of(pair)
    ratio = pair.scale / pair.sharp_scale
    kids_psf = np.maximum(read("KiDS", "psfim"), 0)
    kids_psf /= kids_psf.sum()
    segments = read("KiDS", "segim")
    middle = segments[pair.sharp.shape[0] // 2, pair.sharp.shape[1] // 2]
    kids = View(
        "KiDS",
        reference.flux_scale * pair.sharp + reference.sky / ratio**2,
        reference.flux_scale * _MAGGY * read("KiDS", "sigma"),
        pair.sharp_valid,
        (segments == middle) & (middle > 0),
        (segments == 0) & pair.sharp_valid,
        kids_psf,
        _wcs(pair.sharp.shape, KIDS_SCALE),
        pair.sharp_scale,
    )
    sdss = View(
        "SDSS",
        pair.broad,
        pair.sigma,
        pair.valid,
        pair.galaxy,
        (read("SDSS", "segim") == 0) & pair.valid,
        broader_psf(kids_psf, ratio, reference.fwhm),
        _wcs(pair.broad.shape, pair.scale, reference.shift),
        pair.scale,
    )
    notes = {
        "flux_scale": reference.flux_scale,
        "sky": reference.sky,
        "dx": reference.shift[1] * pair.scale,
        "dy": reference.shift[0] * pair.scale,
        "blur": reference.fwhm * pair.scale,
        "chi2": reference.reduced_chi2,
    }
    return Galaxy(pair.name, kids, sdss, notes)


def _wcs(shape, scale, shift=(0.0, 0.0)):
    """A WCS with the middle of the image, moved by ``shift`` (y, x), on one place of the sky."""
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], _CENTRE
    wcs.wcs.crpix = [(shape[1] + 1) / 2 + shift[1], (shape[0] + 1) / 2 + shift[0]]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    wcs.pixel_shape = shape[::-1]
    return wcs


def broader_psf(psf, ratio, fwhm):
    """A PSF on pixels ``ratio`` times as large: averaged over them, and blurred by a Gaussian of ``fwhm`` of them."""
    from scipy.signal import fftconvolve

    from astrogan.backends.classic.psf_matching import psf_on_input

    # The average over a large pixel is as good as a Gaussian of its variance; that over a small one is in the kernel.
    width = np.sqrt((fwhm * ratio) ** 2 + ratio**2 / 12 / gaussian_sigma(1.0) ** 2)
    out = psf_on_input(fftconvolve(np.pad(psf, 12), gaussian_kernel(width)), np.eye(2) / ratio)
    out = np.maximum(out, 0)
    return out / out.sum()


# ---- translations ---------------------------------------------------------------------------------------------------


def translate(backend, options, image, target, *, seed=0):
    """A view as the other survey would have it, without and with that survey's noise."""
    from astropy.nddata import CCDData, StdDevUncertainty

    from astrogan.operators.translator import TargetSpec, Translator

    ccd = CCDData(
        image.data.astype(np.float32),
        unit=UNIT,
        uncertainty=StdDevUncertainty(image.sigma.astype(np.float32)),
        mask=~image.valid,
        wcs=image.wcs,
        meta={"BAND": "r"},
    )
    wanted = {"wcs": target.wcs, "shape": target.data.shape, "psf": target.psf, "name": target.survey.lower()}
    with warnings.catch_warnings():
        # That the target is sharper, that a method has no uncertainty: the tables are there to show it.
        warnings.simplefilter("ignore", AstroganWarning)
        clean = Translator(backend, target=TargetSpec(**wanted), psf=image.psf, **options)(ccd, rng=seed)
        wanted |= {"noise": blank_noise(target), "noise_model": _noise_model(target)}
        noisy = Translator(backend, target=TargetSpec(**wanted), psf=image.psf, **options)(ccd, rng=seed)
    variance = None
    if clean.uncertainty is not None:
        variance = np.asarray(clean.uncertainty.represent_as(StdDevUncertainty).array, np.float64) ** 2
    valid = np.ones(clean.shape, bool) if clean.mask is None else ~np.asarray(clean.mask)
    return Result(np.asarray(clean.data, np.float64), variance, valid, np.asarray(noisy.data, np.float64))


def blank_noise(view):
    """Scatter of a view's blank sky."""
    from astrogan.image.uncertainty import location_and_scale

    return float(location_and_scale(view.data[view.blank])[1])


def _noise_model(view):
    """What a view's blank sky looks like."""
    from astrogan.backends.classic.correlated_noise import CorrelatedNoise

    return CorrelatedNoise.fit(view.data, mask=~view.blank, size=5)


def usable_rows(rows, galaxy):
    """(rows that load, {name: why not}), tried on one galaxy."""
    good, skipped = {}, {}
    for name, (backend, options) in rows.items():
        try:
            for direction in DIRECTIONS:
                translate(backend, options, *galaxy.views(direction))
        except (AstroganError, ImportError, FileNotFoundError) as error:
            skipped[name] = " ".join(str(error).split())
            continue
        good[name] = (backend, options)
    return good, skipped


# ---- scores ---------------------------------------------------------------------------------------------------------

FIGURES = (
    "psnr",
    "rel_l2",
    "dmag_in",
    "dmag_all",
    "offset",
    "size",
    "ellipticity",
    "chi2",
    "noise",
    "acf",
)
CAPTION = (
    "Each image translated to the pixels of the other survey's image and compared with it. Before, and alike for all "
    "rows, offset, flux scale, sky and the difference of the PSFs were fitted to each pair (table alignment). psnr: dB "
    "over the peak of the galaxy, all valid pixels. Within the galaxy's segment: rel_l2: |difference| / |real|; chi2: "
    "mean of difference^2 / (variance of the real image + that of the result, where it has one). dmag_in, dmag_all: "
    "result - real in apertures of 2 arcsec and of the segment's area. offset: centroids, arcsec. size: ratio of "
    "adaptive-moment sizes - 1; ellipticity: modulus of the difference. noise: scatter of blank sky of the result with "
    "the noise that a model fitted to the real image's sky adds, over the real one's; acf: its correlation of "
    "horizontal and vertical neighbours - the real one's. Row "
    f"'{FLOOR}': what the noise of the real image alone makes of a perfect translation. Lines 'mean' have medians of "
    "moduli for dmag, size and ellipticity, else means. From KiDS to SDSS the PSF becomes broader; there surveynet "
    "leaves the work to psf-matching."
)


def score(result, real):
    """Figures of merit of a translated view."""
    from astrogan.metrics import aperture_flux, psnr

    valid = result.valid & real.valid
    galaxy = valid & real.galaxy
    blank = valid & real.blank
    # What is left of the sky is no matter of translation, and of opposite sign in both directions.
    data = result.data - np.median(result.data[blank])
    truth = real.data - np.median(real.data[blank])
    difference = data - truth
    variance = real.sigma**2 + (0 if result.variance is None else result.variance)
    others = ~valid | ~(real.galaxy | real.blank)
    shape, true_shape = (_shape(image, real, others) for image in (data, truth))
    centre = (true_shape.x, true_shape.y)
    fluxes = [
        [aperture_flux(image, centre, radius, mask=others) for image in (data, truth)]
        for radius in (_INNER / real.scale, np.sqrt(real.galaxy.sum() / np.pi))
    ]
    noisy, noise = result.noisy, blank_noise(real)
    return {
        "psnr": psnr(truth, data, data_range=truth[galaxy].max(), mask=~valid),
        "rel_l2": np.sqrt((difference[galaxy] ** 2).sum() / (truth[galaxy] ** 2).sum()),
        "dmag_in": _magnitudes(*fluxes[0]),
        "dmag_all": _magnitudes(*fluxes[1]),
        "offset": np.hypot(shape.x - centre[0], shape.y - centre[1]) * real.scale,
        "size": shape.size / true_shape.size - 1,
        "ellipticity": np.hypot(shape.e1 - true_shape.e1, shape.e2 - true_shape.e2),
        "chi2": (difference[galaxy] ** 2 / variance[galaxy]).mean(),
        "noise": _scatter(noisy[blank]) / noise,
        "acf": _neighbours(noisy, blank) - _neighbours(real.data, blank),
    }


def floor(real):
    """The same figures for a perfect translation: what the real image's noise leaves."""
    peak = (real.data - np.median(real.data[real.blank]))[real.galaxy & real.valid].max()
    galaxy, truth = real.galaxy & real.valid, real.data - np.median(real.data[real.blank])
    power = (real.sigma[galaxy] ** 2).sum()
    return dict.fromkeys(FIGURES, np.nan) | {
        "psnr": 20 * np.log10(peak) - 10 * np.log10((real.sigma[real.valid] ** 2).mean()),
        "rel_l2": np.sqrt(power / max((truth[galaxy] ** 2).sum() - power, power)),
        "chi2": 1.0,
        "noise": 1.0,
        "acf": 0.0,
    }


def _shape(image, real, mask):
    from astrogan.metrics import moments

    return moments(image, _middle(real), mask=mask, sigma=1.5 / real.scale)


def _middle(view):
    """(x, y) of the brightest pixel of the galaxy's segment, smoothed."""
    from scipy.ndimage import gaussian_filter

    smooth = np.where(view.galaxy, gaussian_filter(view.data, 1.0), -np.inf)
    y, x = np.unravel_index(smooth.argmax(), smooth.shape)
    return float(x), float(y)


def _magnitudes(flux, real):
    return -2.5 * np.log10(flux / real) if flux > 0 and real > 0 else np.nan


def _scatter(values):
    from astrogan.image.uncertainty import location_and_scale

    return float(location_and_scale(values)[1])


def _neighbours(image, blank):
    from astrogan.metrics import noise_autocorrelation

    return float(np.mean(noise_autocorrelation(image, lags=((0, 1), (1, 0)), mask=~blank)))


def score_galaxies(galaxies, rows, progress=None):
    """(lines of the table, {(galaxy, direction): {row: result}})."""
    lines, results = [], {}
    for galaxy in galaxies:
        if progress is not None:
            progress(galaxy.name)
        for direction in DIRECTIONS:
            image, real = galaxy.views(direction)
            head = {"direction": direction, "galaxy": galaxy.name}
            found = results[galaxy.name, direction] = {}
            for name, (backend, options) in rows.items():
                found[name] = translate(backend, options, image, real)
                lines.append(head | {"row": name} | score(found[name], real))
            lines.append(head | {"row": FLOOR} | floor(real))
    return _with_means(lines), results


def _with_means(lines):
    out = []
    for direction in DIRECTIONS:
        own = [line for line in lines if line["direction"] == direction]
        out += own
        for row in dict.fromkeys(line["row"] for line in own):
            columns = {key: np.array([line[key] for line in own if line["row"] == row], float) for key in FIGURES}
            for key, values in columns.items():
                moduli = key.startswith("dmag") or key in ("size", "ellipticity")
                columns[key] = float(np.median(np.abs(values)) if moduli else np.mean(values))
            out.append({"direction": direction, "galaxy": "mean", "row": row} | columns)
    return out
