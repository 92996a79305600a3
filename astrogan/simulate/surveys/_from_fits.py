"""What an image of a survey tells about it: pixel scale, PSF, zero point, noise."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np

from astrogan.exceptions import InputError, PSFError, UnitError

_NANOMAGGY = 22.5
_DARK_SKY = {"u": 22.0, "g": 22.0, "r": 21.0, "i": 20.2, "z": 19.0}
_SOME_SKY = 21.0
_POSSIBLE_SKY = 16.0, 24.5
"""AB mag per square arcsec: between a bright twilight or a near infrared sky, and what can be seen from space."""
_LEAST_SKY = 400
"""Pixels without which neither a scatter nor a correlation is worth its name."""
_SAME_SCALE = 1e-3

_ZERO_POINT_KEYS = (
    "MAGZERO",
    "MAGZPT",
    "MAGZP",
    "ZEROPNT",
    "ZEROPOINT",
    "PHOTZP",
    "PHOTZPT",
    "ABMAGZP",
    "MAG_ZP",
    "ZPAB",
    "ZPT",
    "ZP",
)
"""AB magnitude of one unit of the image, in the order in which they are believed."""


def survey_from_fits(images, options, *, pixel_scale, noise_model, unit):
    """(filters, pixel scale, notes) of {band: image}; ``options`` are arguments that may be dicts by band."""
    wanted = "fit" if isinstance(noise_model, type) else "sample"
    if noise_model is not None and not hasattr(noise_model, wanted):
        raise InputError(
            f"noise_model={noise_model!r} must be a class with fit(images, mask=...), e.g. CorrelatedNoise, an "
            "instance with sample(...), or None"
        )
    if not isinstance(images, Mapping) or not images:
        raise InputError(f"images={images!r} must name the image of each band, e.g. {{'r': 'field_r.fits'}}")
    for name, value in options.items():
        strangers = set(value) - set(images) if isinstance(value, Mapping) else set()
        if strangers:
            raise InputError(f"{name} names {sorted(strangers)}, which images has not: {', '.join(map(str, images))}")
    filters, notes = [], []
    for band, image in images.items():
        own = {name: value.get(band) if isinstance(value, Mapping) else value for name, value in options.items()}
        try:
            one, note = _filter(str(band), image, own, pixel_scale, noise_model, unit)
        except (UnitError, PSFError, InputError) as error:
            raise type(error)(f"band {band!r}: {error}") from error
        filters.append(one)
        notes.append(f"{band}: {note}")
    scales = [one.pixel_scale for one in filters]
    if max(scales) > (1 + _SAME_SCALE) * min(scales):
        listed = ", ".join(f"{one.name} {one.pixel_scale:.4f}" for one in filters)
        raise InputError(f"images differ in pixel scale (arcsec): {listed}; a survey has one, so make one for each")
    return tuple(filters), scales[0], tuple(notes)


def _filter(band, image, options, pixel_scale, noise_model, unit):
    """A `Filter` measured on one image, and a line that says how."""
    from astrogan.image.prepare import prepare
    from astrogan.image.psf import psf_fwhm
    from astrogan.simulate.surveys.catalog import Filter

    image = _loaded(image, unit)
    if np.ndim(image.data) != 2:
        raise InputError(f"the image has shape {np.shape(image.data)}; give one band at a time, (y, x)")
    prepared = prepare(image, psf=options["psf"], pixel_scale=pixel_scale, needs_psf=True)
    observation, scale = prepared.observation, prepared.observation.pixel_scale
    if scale is None:
        raise InputError("pixel_scale=None, and the image has no WCS; give pixel_scale= in arcsec")
    data = np.asarray(observation.data[0], np.float64) * prepared.scale
    kernel = observation.psf[0]
    factor, calibration = nanomaggies_per_unit(options["zero_point"], prepared.unit, image.meta, scale)
    sigma, model = options["noise"], noise_model
    if sigma is None or isinstance(noise_model, type):
        residual, sky = _sky(data, observation.valid[0])
        sigma = _scatter(residual, sky) if sigma is None else sigma
        if isinstance(noise_model, type):
            model = noise_model.fit(np.where(sky, residual * factor, 0.0), mask=~sky)
    sigma = _checked_noise(sigma, prepared.unit) * factor
    electrons, counted = _electrons(options, image.meta, sigma, factor, scale, band)
    # One second of exposure, so that the zero point says it all: the magnitude of one electron.
    zero_point = _NANOMAGGY + 2.5 * np.log10(electrons)
    sky_brightness = _NANOMAGGY - 2.5 * np.log10(sigma**2 * electrons / scale**2)
    one = Filter(
        name=band,
        fwhm=float(psf_fwhm(kernel)) * scale,
        sky_brightness=float(sky_brightness),
        zero_point=float(zero_point),
        exposure_time=1.0,
        pixel_scale=float(scale),
        psf=kernel,
        noise_sigma=float(sigma),
        noise_model=model,
    )
    noise = "given" if options["noise"] is not None else "of the image's sky"
    return one, f"PSF {prepared.notes['AGPSF']}; zero point {calibration}; noise {noise}; electrons {counted}"


def _loaded(image, unit):
    """A path, (path, hdu) or image as `~astropy.nddata.NDData`."""
    import os

    from astropy.nddata import NDData

    from astrogan.image.read import read_image

    if isinstance(image, NDData):
        return image
    path, hdu = image if isinstance(image, tuple) and len(image) == 2 else (image, None)
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"image={image!r} must be a path, (path, hdu) or NDData")
    try:
        return read_image(path, hdu=hdu, unit=unit)
    except UnitError:
        if unit is not None:
            raise
        # Counts of whatever kind: the zero point says what they are.
        return read_image(path, hdu=hdu, unit="adu")


def nanomaggies_per_unit(zero_point, unit, header, pixel_scale):
    """(nanomaggies of one unit of an image's pixel, how that is known).

    Parameters
    ----------
    zero_point : float or None
        AB magnitude of one unit.
    unit : `~astropy.units.Unit` or None
    header : mapping
    pixel_scale : float
        Arcsec, for units of surface brightness.

    Returns
    -------
    float, str

    Raises
    ------
    UnitError
        If nothing of it says so.
    """
    if zero_point is not None:
        try:
            zero_point = float(getattr(zero_point, "value", zero_point))
        except (TypeError, ValueError):
            zero_point = np.nan
        if not np.isfinite(zero_point):
            raise InputError("zero_point must be an AB magnitude, e.g. 22.5 for nanomaggies, or a dict of them by band")
        return 10 ** (0.4 * (_NANOMAGGY - zero_point)), f"{zero_point:g}, given"
    factor = _of_unit(unit, pixel_scale)
    if factor is not None:
        return factor, f"of the unit, {unit}"
    zero_point, key = zero_point_of_header(header)
    if zero_point is not None:
        return 10 ** (0.4 * (_NANOMAGGY - zero_point)), f"{zero_point:g}, the header's {key}"
    raise UnitError(
        f"the zero point is unknown: the image's unit, {unit}, does not convert to nanomaggies, and its header has "
        f"none of {', '.join(_ZERO_POINT_KEYS[:6])}, FLUXMAG0; give zero_point=, the AB magnitude of one unit"
    )


def _of_unit(unit, pixel_scale):
    """Nanomaggies of one unit, or `None` where it is no flux."""
    from astropy import units as u

    if unit is None:
        return None
    ab = u.zero_point_flux(3631 * u.Jy)
    for quantity in (1 * unit, 1 * unit * (pixel_scale * u.arcsec) ** 2):
        with contextlib.suppress(u.UnitConversionError):
            return float(quantity.to_value(u.Jy, ab)) / 3.631e-6
    return None


def zero_point_of_header(header):
    """(AB magnitude of one unit, keyword), or (None, None) where a header does not say."""
    names = {str(key).upper().rsplit(" ", 1)[-1]: key for key in header}

    def number(key):
        try:
            value = float(header[names[key]])
        except (KeyError, TypeError, ValueError):
            return None
        return value if np.isfinite(value) else None

    for key in _ZERO_POINT_KEYS:
        value = number(key)
        # KiDS writes 0 for maggies; the largest are of counts per hour.
        if value is not None and 0 <= value < 40:
            return value, key
    value = number("FLUXMAG0")
    if value is not None and value > 0:
        return 2.5 * np.log10(value), "FLUXMAG0"
    flam, pivot = number("PHOTFLAM"), number("PHOTPLAM")
    if flam and pivot and flam > 0 and pivot > 0:
        return -2.5 * np.log10(flam) - 5 * np.log10(pivot) - 2.408, "PHOTFLAM"
    return None, None


def _sky(data, valid):
    """(image without its background, where it is sky)."""
    from astrogan.image.mask import grow_mask
    from astrogan.image.uncertainty import _BOX_MAX, _BOX_MIN, _sources, background_rms

    background, rms = background_rms(data, valid)
    residual = data - background
    box = min(_BOX_MAX, min(data.shape) // 4)
    sources = _sources(np.where(valid, residual / rms, 0.0), valid, None if box < _BOX_MIN else box)
    sky = valid & ~grow_mask(sources, 2)
    if sky.sum() < _LEAST_SKY:
        raise InputError(
            f"only {int(sky.sum())} of {data.size} pixels are blank sky, {_LEAST_SKY} are needed to measure its noise; "
            "give a larger image, or noise= and no noise_model="
        )
    return residual, sky


def _scatter(residual, sky):
    from astrogan.image.uncertainty import location_and_scale

    return float(location_and_scale(residual[sky])[1])


def _checked_noise(noise, unit):
    """A noise as a number in the image's unit."""
    from astropy import units as u

    if hasattr(noise, "unit"):
        try:
            noise = noise.to_value(unit or u.dimensionless_unscaled, u.zero_point_flux(3631 * u.Jy))
        except u.UnitConversionError as error:
            raise UnitError(f"noise={noise} does not convert to the image's unit, {unit}; give it in that") from error
    if isinstance(noise, bool) or not np.isscalar(noise) or not (np.isfinite(noise) and noise > 0):
        raise InputError(
            f"noise={noise!r} must be a positive number in the image's unit, a Quantity, or a dict by band"
        )
    return float(noise)


def _electrons(options, header, sigma, factor, scale, band):
    """(electrons of one nanomaggy, how that is known)."""
    gain = options["gain"]
    if gain is not None:
        gain = getattr(gain, "value", gain)
        if not (np.isscalar(gain) and np.isfinite(gain) and gain > 0):
            raise InputError(f"gain={gain!r} must be a positive number of electrons, or a dict of them by band")
        return float(gain) / factor, "by the gain given"
    if options["sky_brightness"] is None:
        electrons = _gain_of_header(header) / factor
        if electrons > 0:
            sky = _NANOMAGGY - 2.5 * np.log10(sigma**2 * electrons / scale**2)
            if _POSSIBLE_SKY[0] < sky < _POSSIBLE_SKY[1]:
                return electrons, "by the header's GAIN"
    sky, source = options["sky_brightness"], "given"
    if sky is None:
        sky, source = _DARK_SKY.get(band.rsplit(".", 1)[-1].lower()[:1], _SOME_SKY), "assumed"
    if not (np.isscalar(sky) and np.isfinite(sky)):
        raise InputError(f"sky_brightness={sky!r} must be in AB mag per square arcsec, or a dict of them by band")
    nanomaggies = 10 ** (0.4 * (_NANOMAGGY - sky)) * scale**2
    return nanomaggies / sigma**2, f"by a sky of {sky:g} mag/arcsec2, {source}"


def _gain_of_header(header):
    try:
        gain = float(header["GAIN"])
    except (KeyError, TypeError, ValueError):
        return 0.0
    return gain if np.isfinite(gain) and gain > 0 else 0.0
