"""A CFHTLS field in g, r and i as KiDS would have seen it, beside cut-outs of another field by KiDS itself.

No place was seen by both, so that nothing can be compared pixel by pixel. What can be: the blank sky's scatter and
correlations, the width of the sharpest sources against the PSF that was wanted, and the fluxes before and after.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astrogan.exceptions import AstroganError, AstroganWarning, InputError

BANDS = ("g", "r", "i")
_ZERO_POINT = 30.0
_COUNT = 10 ** (0.4 * (22.5 - _ZERO_POINT))
"""Nanomaggies of a count of CFHTLS."""
_APERTURE = 2.0
_FWHM_PER_SIGMA = np.sqrt(8 * np.log(2))
_SHARPEST = 3
_ISOLATED = 14
"""Pixels of CFHTLS without another source."""
_BRIGHT = 15
"""Sigma after smoothing."""
_LAGS = ((0, 1), (1, 0), (1, 1))

CAPTION = (
    "CFHTLS translated to KiDS. The target's PSF is a Moffat profile of the seeing that the header of KiDS states, "
    "its noise is fitted to that image's sky; the PSF of CFHTLS is one as wide as the field's three sharpest isolated "
    "sources. sharp_in, sharp, sharp_wanted: median width of those sources before and after, and of the wanted PSF by "
    "the same measure (2.355 times the adaptive-moment size, arcsec); matched: no where the target is sharper and the "
    "method says that it can do nothing about it. sky, sky_real: scatter of blank sky, nanomaggies per pixel; acf_0, "
    "acf_1 and their _real: correlation with direct and with diagonal neighbours. dmag, dmag_scatter: median and "
    "scatter of the magnitudes of isolated sources in apertures of 2 arcsec radius, after - before, both without "
    "added noise and with the light that a broader PSF takes out of the aperture."
)


@dataclass(frozen=True)
class Fields:
    """CFHTLS and KiDS images by band, in nanomaggies, and the survey that the latter define.

    Of CFHTLS, besides: PSFs, images without background, and (sharpest, isolated) sources.
    """

    images: dict
    real: dict
    survey: Any
    psf: dict
    flat: dict
    sources: dict


def load_fields(data):
    """The images of ``humvi_multisurvey``."""
    from astrogan.backends.classic.correlated_noise import CorrelatedNoise
    from astrogan.image._psf_header import moffat_with_measured_fwhm
    from astrogan.simulate.surveys import Survey

    folder = Path(data) / "humvi_multisurvey"
    paths = {survey: {band: folder / f"{survey}-test_{band}.fits" for band in BANDS} for survey in ("CFHTLS", "KiDS")}
    for path in (path for one in paths.values() for path in one.values()):
        if not path.is_file():
            raise InputError(f"data={str(data)!r} has no humvi_multisurvey/{path.name}")
    images = {band: _image(path, _COUNT, band, saturation="header") for band, path in paths["CFHTLS"].items()}
    real = {band: _image(path, 1e9, band) for band, path in paths["KiDS"].items()}
    survey = Survey.from_fits(
        "kids",
        real,
        psf={band: moffat_with_measured_fwhm(image.meta["PSF_RAD"] / _scale(image)) for band, image in real.items()},
        noise_model=CorrelatedNoise,
    )
    flat = {band: _flat(image) for band, image in images.items()}
    sources = {band: _sources(image, flat[band]) for band, image in images.items()}
    psf = {band: _sharpest_psf(flat[band], sources[band][0]) for band in images}
    return Fields(images, real, survey, psf, flat, sources)


def _sharpest_psf(flat, sharpest):
    """A Moffat PSF as wide as the sharpest sources; too few stand alone for more."""
    from astrogan.image._psf_header import moffat_with_measured_fwhm

    wanted = fwhm = _widths(flat, sharpest)
    for _ in range(4):
        kernel = moffat_with_measured_fwhm(fwhm)
        fwhm *= wanted / _width(kernel, ((len(kernel) - 1) / 2,) * 2)
    return kernel


def _image(path, nanomaggies, band, **options):
    """A file in nanomaggies, without its sky."""
    from astropy.nddata import CCDData

    from astrogan.image.read import read_image
    from astrogan.image.uncertainty import location_and_scale

    image = read_image(path, unit="adu", **options)
    data = np.asarray(image.data, np.float64) * nanomaggies
    good = np.isfinite(data) if image.mask is None else np.isfinite(data) & ~image.mask
    data -= location_and_scale(data[good])[0]
    meta = {key: image.meta[key] for key in ("IQIMAGE", "PSF_RAD") if key in image.meta} | {"BAND": band}
    return CCDData(data.astype(np.float32), unit="nmgy", wcs=image.wcs, mask=image.mask, meta=meta)


def translate_fields(fields, backend, options, *, seed=0):
    """({band: image}, {band: image with the survey's noise})."""
    from astrogan.operators.translator import TargetSpec, Translator, _spec_of_survey

    spec = _spec_of_survey(fields.survey)
    clean = TargetSpec(pixel_scale=spec.pixel_scale, psf=spec.psf, name=spec.name)
    psf = [fields.psf[band] for band in BANDS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstroganWarning)
        return tuple(
            Translator(backend, target=target, psf=psf, **options)(fields.images, rng=seed) for target in (clean, spec)
        )


def score_fields(fields, rows, progress=None):
    """(lines of the table, {row: noisy images}, {row: why it was left out})."""
    lines, results, skipped = [], {}, {}
    for name, (backend, options) in rows.items():
        if progress is not None:
            progress(f"CFHTLS to KiDS: {name}")
        try:
            clean, noisy = translate_fields(fields, backend, options)
        except (AstroganError, ImportError, FileNotFoundError) as error:
            skipped[name] = " ".join(str(error).split())
            continue
        results[name] = noisy
        left = BANDS if options.get("match") is False else _unmatched(clean)
        lines += [{"row": name, "band": band} | _line(fields, band, clean[band], noisy[band], left) for band in BANDS]
    return lines, results, skipped


def _line(fields, band, clean, noisy, left):
    image, wanted = fields.images[band], fields.survey[band]
    sharpest, isolated = fields.sources[band]
    flat = fields.flat[band], _flat(clean)
    before, after = (
        _widths(data, _moved(image, one, sharpest)) for data, one in zip(flat, (image, clean), strict=True)
    )
    sky, acf = _sky_figures(noisy)
    sky_real, acf_real = _sky_figures(fields.real[band])
    flux = [
        _fluxes(data, _moved(image, one, isolated), _scale(one)) for data, one in zip(flat, (image, clean), strict=True)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        change = -2.5 * np.log10(flux[1] / flux[0])
    change = change[np.isfinite(change)]
    kernel = wanted.kernel()
    middle = ((len(kernel) - 1) / 2,) * 2
    return {
        "matched": "no" if band in left else "yes",
        "sharp_in": before * _scale(image),
        "sharp": after * wanted.pixel_scale,
        "sharp_wanted": _width(kernel, middle) * wanted.pixel_scale,
        "sky": sky,
        "sky_real": sky_real,
        "acf_0": float(np.mean(acf[:2])),
        "acf_0_real": float(np.mean(acf_real[:2])),
        "acf_1": float(acf[2]),
        "acf_1_real": float(acf_real[2]),
        "dmag": float(np.median(change)) if change.size else np.nan,
        "dmag_scatter": 1.4826 * float(np.median(np.abs(change - np.median(change)))) if change.size else np.nan,
        "sources": int(change.size),
    }


def _unmatched(images):
    """The bands that the backend says it could not match."""
    said = str(images[BANDS[0]].meta.get("AGINFO", ""))
    found = re.search(r"unmatched=((?:\w+(?:,|$))*\w*)", said)
    return found.group(1).split(",") if found else ()


def _scale(image):
    from astrogan.image.wcs import pixel_scale

    return pixel_scale(image.wcs, image.shape)


def _moved(image, other, positions):
    """Pixels of one image as pixels of another."""
    from astrogan.image.wcs import pixel_mapping

    if not len(positions):
        return positions
    return np.transpose(pixel_mapping(image.wcs, other.wcs)(*np.transpose(positions)))


# ---- sources and sky ------------------------------------------------------------------------------------------------


def _sources(image, flat):
    """((x, y) of the sharpest sources, (x, y) of isolated ones), bright and away from masked pixels and edges."""
    from scipy.ndimage import binary_dilation, gaussian_filter

    from astrogan.bench._linear_common import find_sources
    from astrogan.image.uncertainty import location_and_scale

    mask = np.zeros(image.shape, bool) if image.mask is None else np.asarray(image.mask)
    smooth = gaussian_filter(flat / location_and_scale(flat[~mask])[1], 1.5)
    noise = 1 / (2 * np.sqrt(np.pi) * 1.5)
    positions, _ = find_sources(smooth, 5 * noise, minimum_pixels=5)
    x, y = np.rint(positions).astype(int).T
    height, width = image.shape
    edge = 20
    good = (x > edge) & (x < width - 1 - edge) & (y > edge) & (y < height - 1 - edge)
    # The halo of a saturated star is nobody's sky.
    good &= ~binary_dilation(mask, iterations=25)[y, x] if mask.any() else True
    good &= smooth[y, x] > _BRIGHT * noise
    distance = np.hypot(*(positions[:, None] - positions[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    isolated = positions[good & (distance.min(axis=1) > _ISOLATED)]
    widths = np.array([_width(flat, place) for place in isolated])
    order = np.argsort(np.where(np.isfinite(widths), widths, np.inf))
    return isolated[order[:_SHARPEST]], isolated


def _width(data, place):
    """FWHM in pixels of the Gaussian that fits a source best."""
    from astrogan.metrics import moments

    return _FWHM_PER_SIGMA * moments(np.asarray(data, np.float64), place, sigma=2.0).size


def _widths(data, positions):
    """Median over sources, in pixels."""
    values = [_width(data, place) for place in positions]
    values = [value for value in values if np.isfinite(value)]
    return float(np.median(values)) if values else np.nan


def _fluxes(data, positions, scale):
    from astrogan.metrics import aperture_flux

    if not len(positions):
        return np.empty(0)
    return np.atleast_1d(aperture_flux(data, positions, _APERTURE / scale))


def _flat(image):
    """Data without background; masked pixels are zero."""
    from astrogan.image.uncertainty import background_rms

    valid = np.ones(image.shape, bool) if image.mask is None else ~np.asarray(image.mask)
    data = np.asarray(image.data, np.float64)
    return np.where(valid, data - background_rms(data, valid)[0], 0.0)


def blank_sky(image):
    """(image without background, where it is blank sky)."""
    from astrogan.simulate.surveys._from_fits import _sky

    valid = np.ones(image.shape, bool) if image.mask is None else ~np.asarray(image.mask)
    return _sky(np.where(valid, np.asarray(image.data, np.float64), 0.0), valid)


def _sky_figures(image):
    """(scatter, correlations at the lags) of blank sky."""
    from astrogan.image.uncertainty import location_and_scale
    from astrogan.metrics import noise_autocorrelation

    residual, sky = blank_sky(image)
    return float(location_and_scale(residual[sky])[1]), np.asarray(
        noise_autocorrelation(residual, lags=_LAGS, mask=~sky)
    )
