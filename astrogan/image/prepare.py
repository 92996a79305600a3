"""From what an astronomer has (a path, `~astropy.nddata.CCDData`, a list of bands) to what a backend sees."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from astrogan.api import Observation
from astrogan.exceptions import InputError, PSFError, PSFWarning, UnitError
from astrogan.image._arguments import positive_arcsec
from astrogan.image._headers import SATURATION, parse_unit

__all__ = ["Form", "Prepared", "prepare"]

# Beyond these a float32 variance could overflow or lose its last bits; a power of two is then taken out.
_LARGEST, _SMALLEST = 1e15, 1e-12


@dataclass(frozen=True)
class Form:
    """How an image came, so that the result can go back the same way.

    Attributes
    ----------
    kind : str
        ``"single"``, ``"list"`` or ``"dict"``.
    keys : tuple
        Keys of a dict.
    images : tuple of `~astropy.nddata.NDData`
        The images themselves, one or one per band. They are read, never changed.
    cube : bool
        Whether a single image is 3-D.
    """

    kind: str
    images: tuple
    keys: tuple = ()
    cube: bool = False


@dataclass(frozen=True)
class Prepared:
    """An image on its way through an operator: the clean arrays, and all that has to come back.

    Attributes
    ----------
    observation : `~astrogan.api.Observation`
        What the backend sees.
    form : `Form`
        How the image came.
    wcs : `~astropy.wcs.WCS` or None
        As it came (2-D or 3-D).
    celestial : `~astropy.wcs.WCS` or None
        Its celestial 2-D part.
    unit : `~astropy.units.Unit` or None
    psf : `~astrogan.image.psf.PSFModel` or None
        The PSF over the field; ``observation.psf`` is the one at the centre.
    meta : tuple of mapping
        One per band (a cube's is repeated).
    notes : dict
        Provenance keywords gathered so far.
    saturated : `numpy.ndarray` of bool or None
        (band, y, x).
    had_uncertainty : bool
        Whether the image brought one (rather than one estimated here).
    scale : float
        A power of two: flux in the image's unit = ``scale`` times the observation's. One, unless the values would
        not fit float32 (fluxes in cgs units do not).
    typical_variance : `numpy.ndarray` or None
        (band,), in the observation's flux: the median of the valid pixels, which stands under the mask; `None` where
        nothing is masked.
    level : `numpy.ndarray` or None
        (band,), in the observation's flux: what stands in large masked regions of windows (``like`` of `prepare`).
    """

    observation: Observation
    form: Form
    wcs: Any = None
    celestial: Any = None
    unit: Any = None
    psf: Any = None
    meta: tuple = ()
    notes: dict = field(default_factory=dict)
    saturated: np.ndarray | None = None
    had_uncertainty: bool = False
    scale: float = 1.0
    typical_variance: np.ndarray | None = None
    level: np.ndarray | None = None

    def replace(self, **changes) -> Prepared:
        """A copy with some fields changed."""
        return replace(self, **changes)


def prepare(
    image,
    *,
    psf=None,
    unit=None,
    hdu=None,
    uncertainty=None,
    uncertainty_type=None,
    mask=None,
    saturation=None,
    pixel_scale=None,
    needs_psf=False,
    needs_variance=False,
    psf_default=None,
    max_pixels=2**30,
    like=None,
):
    """Bring an image into the form that backends see.

    Parameters
    ----------
    image : path, `~astropy.nddata.NDData`, list or dict
        A path to a file; a 2-D image; a 3-D one with axes (band, y, x); or equal-shaped 2-D ones (or paths), one a
        band. Never changed.
    psf : optional
        Any form that `~astrogan.image.psf.as_psf` takes. Default: the image's own ``psf``, else the header's, else,
        where ``needs_psf``, one built from the image's stars.
    unit : str or `~astropy.units.Unit`, optional
        Unit of an image that names none; for a file it takes precedence over BUNIT.
    hdu : int or str, optional
        HDU of a file.
    uncertainty : optional
        For files see `~astrogan.image.read.read_image`; else an `~astropy.nddata.NDUncertainty` or an array, whose
        kind is ``uncertainty_type``. Default: the image's own.
    uncertainty_type : {'std', 'var', 'ivar'}, optional
        Kind of an uncertainty that does not say.
    mask : array of bool or path, optional
        True where a pixel is bad, (y, x) or (band, y, x); added to the image's own.
    saturation : float, `~astropy.units.Quantity` or 'header', optional
        Pixels at or above it are masked, and the mask grown by two pixels.
    pixel_scale : float or `~astropy.units.Quantity`, optional
        Arcsec per pixel, where there is no WCS.
    needs_psf, needs_variance : bool
        Whether one is estimated from the image where it is missing.
    psf_default : float, optional
        FWHM in pixels of the Gaussian that stands in, with a warning, for a PSF that is needed and cannot be estimated.
    max_pixels : int
        Largest file, in pixels, that is read.
    like : `Prepared`, optional
        Of a larger image that ``image`` is a window of, or of one that stands for it. Its PSF, its scale, and its level
        and variance under the mask are taken, so that no window decides such a thing by itself, and a window without
        any valid pixel is no error.

    Returns
    -------
    `Prepared`

    Raises
    ------
    InputError
        If the image is of no such form, bands differ in shape or grid, or a band has no valid pixel.
    UnitError
        If a file has no unit and none is given, bands differ in unit, or ``unit`` is not that of the image.
    PSFError
        If a PSF is needed, none is given, none can be estimated and there is no default.

    Warns
    -----
    PSFWarning
        If ``psf_default`` is used.
    """
    from_file = {"unit": unit, "hdu": hdu, "max_pixels": max_pixels}
    if uncertainty is not None and _is_source(uncertainty):
        from_file |= {"uncertainty": uncertainty, "uncertainty_type": uncertainty_type}
        uncertainty = None
    elif uncertainty_type is not None and uncertainty is None:
        from_file["uncertainty_type"] = uncertainty_type
    if mask is not None and _is_source(mask):
        from_file["mask"] = mask
        mask = None
    form = _form_of(image, from_file)
    images = form.images

    data, valid = _stack_data(form)
    shape = data.shape
    if mask is not None:
        valid &= ~_broadcast(mask, shape, bool, "mask")
    wcs, celestial = _common_wcs(images, shape)
    unit = _common_unit(images, unit)
    saturated = _saturated(form, data, saturation, unit)
    if saturated is not None:
        valid &= ~saturated

    variance, bad, had_uncertainty = _stack_variance(form, shape, unit, uncertainty, uncertainty_type)
    if bad is not None:
        valid &= ~bad
    scale = _power_of_two(data, valid) if like is None else like.scale
    if scale != 1:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is masked below
            data = data / scale
            variance = None if variance is None else variance / scale / scale
    if data.dtype != np.float32 or scale != 1:
        with np.errstate(over="ignore", invalid="ignore"):
            valid &= np.isfinite(data.astype(np.float32))
    if variance is not None:
        with np.errstate(over="ignore"):
            valid &= np.isfinite(variance.astype(np.float32))
    bands = _band_names(form, shape[0])
    if like is None:
        _check_any_valid(valid, bands)
    filled = _filled(data, valid, like)

    notes = {"AGNBAD": int((~valid).sum())}
    if saturated is not None:
        notes["AGNSAT"] = int(saturated.sum())
    if scale != 1:
        notes["AGSCALE"] = scale
    if variance is not None:
        notes["AGVAR"] = "given"
    elif needs_variance:
        variance = _estimated_variance(filled, valid)
        notes["AGVAR"] = "estimated from the background"
    if variance is not None:
        variance, typical = _filled_variance(variance, valid, None if like is None else like.typical_variance)
        variance = variance.astype(np.float32)
        # A weight that float32 rounds to nothing would be one of infinite size.
        variance = np.maximum(variance, np.finfo(np.float32).tiny)

    arcsec = _pixel_scale(celestial, pixel_scale, images)
    if like is None:
        model, psf_notes = _psf_model(psf, form, filled, valid, variance, arcsec, needs_psf, psf_default)
    else:
        model, psf_notes = like.psf, {}
    observation = Observation(
        data=filled,
        valid=valid,
        variance=variance,
        psf=None if model is None else model.kernels,
        pixel_scale=arcsec,
        bands=bands,
        measured_noise=variance is not None and not had_uncertainty,
    )
    return Prepared(
        observation=observation,
        form=form,
        wcs=wcs,
        celestial=celestial,
        unit=unit,
        psf=model,
        meta=tuple(_meta_of(form, i) for i in range(shape[0])),
        notes=notes | psf_notes,
        saturated=saturated,
        had_uncertainty=had_uncertainty,
        scale=scale,
        typical_variance=None if variance is None else typical,
    )


def _is_path(value):
    return isinstance(value, str | os.PathLike)


def _is_source(value):
    """Whether ``value`` says where in a file something lies: a path, an HDU, or both."""
    return _is_path(value) or isinstance(value, int) or (isinstance(value, tuple) and len(value) == 2)


def _form_of(image, from_file):
    from astropy.nddata import NDData

    def loaded(item, label):
        if _is_path(item):
            from astrogan.image.read import read_image

            return read_image(item, **from_file)
        if isinstance(item, NDData):
            for name in ("hdu", "uncertainty", "mask"):
                if from_file.get(name) is not None:
                    raise InputError(f"{name}={from_file[name]!r} says where in a file to look; {label} is no path")
            return item
        remedy = ": wrap it in CCDData(array, unit=...)" if isinstance(item, np.ndarray) else ""
        if hasattr(item, "header"):
            remedy = ": give the file's path, with hdu= where it has several images"
        raise InputError(
            f"{label} is {type(item).__name__}; it must be a path, CCDData or NDData, "
            f"or a list or dict of 2-D ones{remedy}"
        )

    if isinstance(image, Mapping | list | tuple):
        items = list(image.values()) if isinstance(image, Mapping) else list(image)
        names = list(image) if isinstance(image, Mapping) else list(range(len(items)))
        if not items:
            raise InputError("image is empty; give at least one band")
        images = tuple(loaded(item, f"image[{name!r}]") for name, item in zip(names, items, strict=True))
        for name, band in zip(names, images, strict=True):
            if np.ndim(band.data) != 2:
                raise InputError(
                    f"image[{name!r}] has shape {np.shape(band.data)}; each band of a list or dict must be 2-D"
                )
            if band.data.shape != images[0].data.shape:
                raise InputError(
                    f"image[{name!r}] has shape {band.data.shape}; the first band has {images[0].data.shape}: "
                    "resample the bands onto one grid first"
                )
        return Form("dict" if isinstance(image, Mapping) else "list", images, tuple(names))
    single = loaded(image, "image")
    if np.ndim(single.data) not in (2, 3) or 0 in np.shape(single.data):
        raise InputError(f"image has shape {np.shape(single.data)}; it must be (y, x) or (band, y, x), no axis empty")
    return Form("single", (single,), (), np.ndim(single.data) == 3)


def _planes(form, array):
    """A (band, y, x) view of one image's array, or of the bands' arrays stacked."""
    return array if array.ndim == 3 else array[np.newaxis]


def _stack_data(form):
    """Flux (band, y, x) and where it is valid. A copy, always; float32 where that holds the image's type exactly."""
    arrays = [np.asarray(image.data) for image in form.images]
    for array in arrays:
        if array.dtype.kind not in "fiu":
            raise InputError(f"image has dtype {array.dtype}; it must be real numbers")
    exact = all(np.can_cast(array.dtype, np.float32) for array in arrays)
    shape = _planes(form, arrays[0]).shape
    n_bands = shape[0] if form.cube else len(arrays)
    data = np.empty((n_bands, *shape[1:]), np.float32 if exact else np.float64)
    for band, array in enumerate(arrays):
        data[band if len(arrays) > 1 else slice(None)] = array
    valid = np.isfinite(data)
    for band, image in enumerate(form.images):
        mask = getattr(image, "mask", None)
        if mask is not None and np.any(mask):
            part = slice(band, band + 1) if len(arrays) > 1 else slice(None)
            valid[part] &= ~_broadcast(mask, valid[part].shape, bool, "image.mask")
    return data, valid


def _broadcast(value, shape, dtype, name):
    array = np.asarray(value)
    if array.shape not in ((), shape, shape[1:]):
        raise InputError(f"{name} has shape {array.shape}; it must be {shape[1:]} or {shape}")
    return np.broadcast_to(array.astype(dtype), shape)


def _common_wcs(images, shape):
    """The first image's WCS and its celestial part; the bands must share one grid."""
    from astrogan.image.wcs import celestial, wcs_equal

    wcs = getattr(images[0], "wcs", None)
    wcs = getattr(wcs, "low_level_wcs", wcs)
    sky = celestial(wcs)
    for number, image in enumerate(images[1:], start=1):
        other = celestial(getattr(getattr(image, "wcs", None), "low_level_wcs", getattr(image, "wcs", None)))
        if (other is None) != (sky is None) or (
            sky is not None and not wcs_equal(sky, other, shape[1:], _tolerance(sky))
        ):
            raise InputError(
                f"band {number} has another WCS than band 0; resample the bands onto one grid first (reproject does)"
            )
    return wcs, sky


def _tolerance(sky):
    """A hundredth of a pixel, in arcsec."""
    from astrogan.image.wcs import pixel_scale

    return 0.01 * pixel_scale(sky)


def _common_unit(images, unit):
    units = {image.unit for image in images}
    if len(units) > 1:
        raise UnitError(f"bands have units {sorted(map(str, units))}; convert them to one (CCDData.convert_unit_to)")
    own = units.pop()
    if unit is None:
        return own
    wanted = parse_unit(unit)
    if own is not None and own != wanted:
        raise UnitError(
            f"unit={str(unit)!r} contradicts the image's own, {str(own)!r}; leave it out, or change the image's"
        )
    return wanted


def _saturated(form, data, saturation, unit):
    """Where pixels are saturated, grown by two pixels, or `None` if no level is given."""
    if saturation is None:
        return None
    from astropy import units as u

    from astrogan.image.mask import saturation_mask

    level = saturation
    if isinstance(saturation, str):
        if saturation != "header":
            raise InputError(f"saturation={saturation!r} must be a number, a Quantity, 'header' or None")
        levels = [_header_value(image.meta, SATURATION) for image in form.images]
        if None in levels:
            raise InputError("saturation='header' finds no SATURATE or SATLEVEL in the header; give the level itself")
        levels = np.broadcast_to(levels, len(data))
        return np.stack([saturation_mask(plane, level) for plane, level in zip(data, levels, strict=True)])
    if isinstance(level, u.Quantity):
        try:
            level = level.to_value(unit if unit is not None else u.dimensionless_unscaled)
        except u.UnitConversionError as error:
            raise UnitError(f"saturation={saturation} does not convert to the image's unit {unit}") from error
    if isinstance(level, bool) or not np.isscalar(level) or not np.isfinite(level):
        raise InputError(f"saturation={saturation!r} must be one finite number")
    return np.stack([saturation_mask(plane, float(level)) for plane in data])


def _header_value(meta, keys):
    for key in keys:
        value = meta.get(key) if hasattr(meta, "get") else None
        if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
            return float(value)
    return None


def _stack_variance(form, shape, unit, uncertainty, uncertainty_type):
    """Variance as float64 (band, y, x), where it is no good, and whether the image brought it."""
    from astropy.nddata import InverseVariance, NDUncertainty, StdDevUncertainty, VarianceUncertainty

    from astrogan.image.uncertainty import variance_of

    if uncertainty is not None:
        kinds = {"std": StdDevUncertainty, "var": VarianceUncertainty, "ivar": InverseVariance}
        if uncertainty_type not in (None, *kinds):
            raise InputError(f"uncertainty_type={uncertainty_type!r} must be one of {', '.join(kinds)}")
        if not isinstance(uncertainty, NDUncertainty):
            own_unit = getattr(uncertainty, "unit", None)
            try:
                array = np.asarray(getattr(uncertainty, "value", uncertainty), dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise InputError("uncertainty must be an array of numbers, or an NDUncertainty") from error
            if array.shape not in (shape, shape[1:]):
                raise InputError(f"uncertainty has shape {array.shape}; it must be {shape[1:]} or {shape}")
            uncertainty = kinds[uncertainty_type or "std"](np.broadcast_to(array, shape), unit=own_unit)
        variance, bad = variance_of(uncertainty, shape, unit)
        return variance, bad, True
    own = [image.uncertainty for image in form.images]
    if all(item is None or type(item).__name__ == "UnknownUncertainty" for item in own):
        return None, None, False
    if any(item is None for item in own):
        missing = [i for i, item in enumerate(own) if item is None]
        raise InputError(f"bands {missing} have no uncertainty while others have; give all of them one, or none")
    pairs = [variance_of(item, np.shape(image.data), unit) for item, image in zip(own, form.images, strict=True)]
    variance = np.concatenate([_planes(form, np.asarray(v)) for v, _ in pairs])
    bad = np.concatenate([_planes(form, np.asarray(b)) for _, b in pairs])
    return variance, bad, True


def _power_of_two(data, valid):
    """What to divide by so that the data and their squares fit float32; one unless they do not.

    The brightest thousandth (but not in images of a few pixels) is left out, so that absurd values do not push all
    others below what float32 resolves.
    """
    # A million pixels, spread over the image, tell it as well as all of them.
    step = max(1, data.size // 1_000_000)
    sample = np.abs(data.ravel()[::step][valid.ravel()[::step]], dtype=np.float64)
    sample = sample if sample.size else np.abs(data[valid], dtype=np.float64)
    last = -1 - -(-sample.size // 1000) if sample.size > 100 else -1
    bright = np.partition(sample, last)[last] if sample.size else 0.0
    if bright == 0 and (data != 0).any():
        # A few points of light on an empty sky: the brightest counts.
        bright = float(np.abs(data[valid], dtype=np.float64).max(initial=0))
    if bright == 0 or _SMALLEST < bright < _LARGEST:
        return 1.0
    return float(2.0 ** np.floor(np.log2(bright)))


def _band_names(form, n_bands):
    if form.kind == "dict":
        return tuple(str(key) for key in form.keys)
    if form.kind == "list":
        return _distinct([_band_of(image.meta) for image in form.images])
    names = form.images[0].meta.get("AGBANDS") if hasattr(form.images[0].meta, "get") else None
    if isinstance(names, str):
        names = names.split(",")
    if names is not None and len(names) == n_bands:
        return _distinct([str(name).strip() for name in names])
    one = _band_of(form.images[0].meta)
    return (one,) if n_bands == 1 and one else tuple(map(str, range(n_bands)))


def _band_of(meta):
    for key in ("BAND", "FILTER"):
        value = meta.get(key) if hasattr(meta, "get") else None
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _distinct(names):
    """The names, or numbers where headers do not tell the bands apart (FILTER is wrong more often than one thinks)."""
    return tuple(names) if all(names) and len(set(names)) == len(names) else tuple(map(str, range(len(names))))


def _check_any_valid(valid, bands):
    for band, good in zip(bands, valid, strict=True):
        if not good.any():
            raise InputError(f"image has no valid pixel in band {band!r}: all are masked, not finite or without weight")


# A window's fill must not depend on what lies beyond it: it looks no further than 128 pixels.
FILL_DEPTH = 6


def _filled(data, valid, like=None):
    from astrogan.image.mask import fill_invalid

    local = {} if like is None else {"depth": FILL_DEPTH}
    out = np.empty(data.shape, np.float32)
    for band, (plane, good) in enumerate(zip(data, valid, strict=True)):
        if local:
            local["beyond"] = like.level[band]
        out[band] = plane if good.all() else fill_invalid(np.where(good, plane, plane.dtype.type(0)), good, **local)
    return out


def _estimated_variance(data, valid):
    from astrogan.image.uncertainty import background_rms

    return np.stack([background_rms(plane, good)[1] ** 2 for plane, good in zip(data, valid, strict=True)])


def _filled_variance(variance, valid, typical=None):
    """Variance with the band's median under the mask, and that median, unless it is known or nothing is masked.

    Convolved with a kernel, any other number would leak out.
    """
    if valid.all():
        return variance, typical
    if typical is None:
        typical = np.array([np.median(plane[good]) for plane, good in zip(variance, valid, strict=True)])
    return np.where(valid, variance, np.reshape(typical, (-1, 1, 1))), typical


def _pixel_scale(celestial, given, images):
    from astrogan.image import wcs as wcs_tools

    if given is not None:
        return positive_arcsec(given, "pixel_scale")
    if celestial is not None:
        return float(wcs_tools.pixel_scale(celestial))
    for image in images:
        value = image.meta.get("PIXSCALE") if hasattr(image.meta, "get") else None
        if isinstance(value, int | float) and value > 0:
            return float(value)
    return None


def _psf_model(psf, form, data, valid, variance, arcsec, needs_psf, default):
    """The PSF over the field and what to say of it; in the order given, the image's own, header, stars."""
    from astrogan.image.psf import as_psf

    n_bands, shape = len(data), data.shape[1:]
    model, source = None, None
    if psf is not None:
        model, source = as_psf(psf, n_bands=n_bands, pixel_scale=arcsec, shape=shape), "given"
    elif all(getattr(image, "psf", None) is not None for image in form.images):
        own = [image.psf for image in form.images]
        own = own[0] if form.kind == "single" else own
        model, source = as_psf(own, n_bands=n_bands, pixel_scale=arcsec, shape=shape), "attached to the image"
    else:
        model = _psf_of_headers(form, n_bands, arcsec, shape, needs_psf)
        source = "header" if model is not None else None
    if model is None and needs_psf:
        try:
            model, source = _psf_of_stars(data, valid, variance, shape)
        except PSFError as error:
            if default is None:
                raise
            warnings.warn(f"{error}. A Gaussian of {default} pixels FWHM stands in for it", PSFWarning, stacklevel=5)
            model, source = as_psf(float(default), n_bands=n_bands, pixel_scale=arcsec, shape=shape), "assumed"
    if model is None:
        return None, {}
    return model, {"AGPSF": source, "AGFWHM": round(float(np.mean(model.fwhm)), 4)}


def _psf_of_headers(form, n_bands, arcsec, shape, needs_psf):
    from astrogan.image.psf import as_psf, psf_from_header

    try:
        models = [psf_from_header(image.meta, pixel_scale=arcsec) for image in form.images]
        if any(model is None for model in models):
            return None
        return as_psf(models[0] if form.kind == "single" else models, n_bands=n_bands, pixel_scale=arcsec, shape=shape)
    except PSFError:
        # A header that is wrong, or a stamp too small for its seeing, matters only to methods that use a PSF.
        if needs_psf:
            raise
        return None


def _psf_of_stars(data, valid, variance, shape):
    from astrogan.image.psf import as_psf, estimate_psf

    models = []
    for band in range(len(data)):
        try:
            models.append(
                estimate_psf(data[band], valid=valid[band], variance=None if variance is None else variance[band])
            )
        except PSFError as error:
            raise PSFError(
                f"the method needs a PSF; none is given, the header has none, and none can be built from the image's "
                f"stars: {error}"
            ) from error
    stars = min(getattr(model, "n_stars", 0) or 0 for model in models)
    return as_psf(models, n_bands=len(data), shape=shape), f"built from the image's stars (at least {stars} a band)"


def _meta_of(form, band):
    return form.images[band if form.kind != "single" else 0].meta
