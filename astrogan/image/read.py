"""Reading images: FITS with all that belongs to an image, and pictures."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astrogan.exceptions import ImageReadError, InputError, UnitError
from astrogan.image._fits_file import FitsFile, file_kind, header_value
from astrogan.image._fits_image import distinct, read_fits_image
from astrogan.image._hdu_roles import UNCERTAINTIES, band_of, science
from astrogan.image._headers import SATURATION, parse_unit, safe_header

__all__ = ["read_bands", "read_image"]


def read_image(
    path,
    *,
    hdu=None,
    unit=None,
    uncertainty=None,
    uncertainty_type=None,
    mask=None,
    saturation=None,
    max_pixels=2**30,
    section=None,
):
    """Read an image from a FITS file or a picture.

    Parameters
    ----------
    path : path
        FITS, plain or packed with gzip, bzip2 or xz, its images plain or compressed by tiles (Rice and the others);
        or JPEG, PNG or TIFF. The content decides, not the suffix.
    hdu : int or str, optional
        HDU of the image: its number, its EXTNAME or the band that its header names. Default: the first HDU with an
        image that is not a mask, an uncertainty or the like. If the file has several, of one shape and one WCS, and
        the header of each names another band (BAND or FILTER), they are read as one cube.
    unit : str or `~astropy.units.Unit`, optional
        Unit of the pixels; it takes precedence over the header's BUNIT. ``""`` is dimensionless.
    uncertainty : int, str, tuple or False, optional
        Where the uncertainty is: an HDU (number or EXTNAME), another file, or ``(file, hdu)``. Default: the HDU that
        belongs to the image by name (UNCERT, ERR, SIGMA, RMS, VAR, IVAR, INVVAR, ...) or by a keyword such as
        IMAGETYP. `False`: none. A weight map (WHT, WEIGHT) is taken as an inverse variance only where it is asked
        for, since many are relative or exposure times; by itself it masks the pixels of weight zero.
    uncertainty_type : {'std', 'var', 'ivar'}, optional
        What it is. Default: what its name or header says.
    mask : int, str, tuple or False, optional
        Where the mask is, as for ``uncertainty``; not zero is bad. Default: the HDU that belongs to the image (MASK,
        DQ, FLAGS, ...). Of the bits of Rubin/HSC (``MP_`` keywords) and JWST masks only those that say that a pixel
        is not usable count.
    saturation : float, `~astropy.units.Quantity` or 'header', optional
        Pixels at or above this level are masked, with their neighbours. ``"header"`` takes SATURATE or SATLEVEL.
    max_pixels : int
        Larger images are refused before they are read or unpacked.
    section : tuple of slice, optional
        Window (y, x) to read from a large image, without a step.

    Returns
    -------
    `~astropy.nddata.CCDData`
        2-D, or 3-D with axes (band, y, x); ``meta["AGBANDS"]`` names the bands where the file does. Data are float32
        or float64 (for float64 and for integers of more than 16 bits) in native byte order. ``mask`` is True where
        a pixel is not finite, BLANK or bad, or `None` if none is. ``flags`` are those that
        `~astrogan.image.write.write_image` wrote with the image, else `None`. ``wcs`` is `None` where there is none on
        the sky. ``meta`` is the header without the keywords of the WCS and of how the pixels are stored. ``psf`` is the
        HDU ``PSFIMAGE`` or ``PSF``, if there is one. Rows of a picture keep its order, the topmost first, and
        ``meta["AGLINEAR"]`` is False: its numbers are not linear in flux.

    Raises
    ------
    ImageReadError
        If there is no such file or HDU, it holds no image, is damaged, truncated or larger than ``max_pixels``.
    UnitError
        If the file does not say its unit and none is given, or it is unknown.
    InputError
        If an argument cannot be used.

    Warns
    -----
    AstroganWarning
        If the header's WCS contradicts itself; the image is read without it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from astrogan import read_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "image.fits"
    ...     fits.writeto(path, np.array([[1, np.nan]], dtype="f4"))
    ...     image = read_image(path, unit="nanomaggies")
    >>> image.unit, image.mask
    (Unit("nmgy"), array([[False,  True]]))
    """
    options = _Options.checked(hdu, unit, uncertainty, uncertainty_type, mask, saturation, max_pixels, section)
    path = _path(path)
    kind = file_kind(path)
    if kind == "FITS":
        with FitsFile(path, max_pixels) as file:
            image = read_fits_image(file, options)
    else:
        image = _picture(path, kind, options)
    if saturation is not None:
        saturated = _saturated(image, saturation)
        image.mask |= saturated
        image.meta["AGNSAT"] = (int(saturated.sum()), "pixels masked as saturated on input")
    if not image.mask.any():
        image.mask = None
    return image


def read_bands(paths, **options):
    """Read several bands, each as an image of its own.

    Parameters
    ----------
    paths : list, dict or path
        Paths, or ``(path, hdu)``; a dict names the bands. One path: all bands of that file.
    **options
        As for `read_image`; they hold for every band.

    Returns
    -------
    dict
        `~astropy.nddata.CCDData` by band. The names are the dict's, else what the headers say (BAND or FILTER), else
        what tells the file names apart, else numbers.

    Raises
    ------
    ImageReadError, UnitError, InputError
        As `read_image`.
    """
    if isinstance(paths, str | os.PathLike):
        return _bands_of_file(paths, options)
    if not isinstance(paths, Mapping | list | tuple) or not paths:
        raise InputError(f"paths={paths!r} must be a list or dict of paths or (path, hdu), with at least one")
    items = list(paths.values()) if isinstance(paths, Mapping) else list(paths)
    items = [item if isinstance(item, tuple) else (item, options.get("hdu")) for item in items]
    if any(len(item) != 2 for item in items):
        raise InputError(f"paths={paths!r} must hold paths or (path, hdu)")
    options.pop("hdu", None)
    images = [read_image(path, hdu=hdu, **options) for path, hdu in items]
    names = [str(key) for key in paths] if isinstance(paths, Mapping) else _names(images, [Path(p) for p, _ in items])
    return dict(zip(names, images, strict=True))


def _bands_of_file(path, options):
    hdu = options.pop("hdu", None)
    if hdu is not None:
        raise InputError(f"hdu={hdu!r} names one HDU; read it with read_image, or several as [(path, hdu), ...]")
    checked = _path(path)
    if file_kind(checked) != "FITS":
        raise InputError(f"paths={str(path)!r} is a picture; read it with read_image")
    with FitsFile(checked, options.get("max_pixels", 2**30)) as file:
        hdus = science(file.hdus)
        names = [band_of(hdu) for hdu in hdus]
        names = names if distinct(names) else [str(hdu.index) for hdu in hdus]
    if not hdus:
        raise ImageReadError(f"{str(path)!r} holds no image: {file.listing()}")
    return {name: read_image(path, hdu=hdu.index, **options) for name, hdu in zip(names, hdus, strict=True)}


def _names(images, paths):
    """Headers' names, else what differs between the file names, else numbers."""
    headers = [str(image.meta.get("BAND") or image.meta.get("FILTER") or "").strip() for image in images]
    if distinct(headers):
        return headers
    stems = [path.name.split(".")[0] for path in paths]
    first = _common_length(stems)
    last = _common_length([stem[first:][::-1] for stem in stems])
    differing = [stem[first : len(stem) - last].strip("_-. ") for stem in stems]
    return differing if distinct(differing) else [str(number) for number in range(len(images))]


def _common_length(texts):
    """Characters that texts have in common at their start."""
    columns = zip(*texts, strict=False)
    return next((i for i, letters in enumerate(columns) if len(set(letters)) > 1), min(map(len, texts)))


# ---- arguments ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Options:
    """The arguments of `read_image`, checked."""

    hdu: Any
    unit: Any
    uncertainty: Any
    uncertainty_type: str | None
    mask: Any
    saturation: Any
    max_pixels: int
    section: tuple[slice, slice] | None

    @classmethod
    def checked(cls, hdu, unit, uncertainty, uncertainty_type, mask, saturation, max_pixels, section):
        if isinstance(max_pixels, bool) or not isinstance(max_pixels, numbers.Integral) or max_pixels < 1:
            raise InputError(f"max_pixels={max_pixels!r} must be a positive integer, e.g. 2**30")
        if uncertainty_type not in (None, *UNCERTAINTIES):
            raise InputError(f"uncertainty_type={uncertainty_type!r} must be one of 'std', 'var', 'ivar'")
        if uncertainty_type is not None and uncertainty is False:
            raise InputError(f"uncertainty_type={uncertainty_type!r} contradicts uncertainty=False; give one of them")
        _check_hdu("hdu", hdu)
        for name, source in (("uncertainty", uncertainty), ("mask", mask)):
            _check_source(name, source)
        if isinstance(saturation, str) and saturation != "header":
            raise InputError(f"saturation={saturation!r} must be a number, a Quantity, 'header' or None")
        unit = None if unit is None else parse_unit(unit)
        return cls(hdu, unit, uncertainty, uncertainty_type, mask, saturation, int(max_pixels), _window(section))


def _check_hdu(name, hdu):
    if hdu is None or isinstance(hdu, str):
        return
    if isinstance(hdu, bool) or not isinstance(hdu, numbers.Integral) or hdu < 0:
        raise InputError(f"{name}={hdu!r} must be the number (from 0) or the EXTNAME of an HDU")


def _check_source(name, source):
    if source is None or source is False or isinstance(source, os.PathLike):
        return
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], str | os.PathLike):
        _check_hdu(f"{name}[1]", source[1])
        return
    try:
        _check_hdu(name, source)
    except InputError as error:
        raise InputError(
            f"{name}={source!r} must be an HDU (number or EXTNAME), a path, (path, hdu), or False for none"
        ) from error


def _window(section):
    if section is None:
        return None
    good = isinstance(section, tuple) and len(section) == 2 and all(isinstance(part, slice) for part in section)
    if not good or any(part.step not in (None, 1) for part in section):
        raise InputError(f"section={section!r} must be two slices (y, x) without a step, e.g. np.s_[100:200, 50:150]")
    return section


def _path(path):
    if not isinstance(path, str | os.PathLike) or isinstance(path, bytes) or "\0" in str(path):
        raise InputError(f"path={path!r} is {type(path).__name__}; it must be the path of a file")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"path={str(path)!r}: {error}; write the folder out") from error


# ---- saturation --------------------------------------------------------------------------------------------------


def _saturated(image, level):
    """Where pixels are at or above the level, and their neighbours."""
    from astropy import units as u

    from astrogan.image.mask import saturation_mask

    given = level
    if isinstance(level, str):
        values = [header_value(image.meta, key) for key in SATURATION]
        level = next((v for v in values if isinstance(v, int | float) and not isinstance(v, bool)), None)
        if level is None:
            raise InputError("saturation='header' finds no SATURATE or SATLEVEL in the header; give the level itself")
    if isinstance(level, u.Quantity):
        try:
            level = level.to_value(image.unit)
        except u.UnitConversionError as error:
            raise UnitError(f"saturation={given} does not convert to the image's unit {image.unit}") from error
    if np.ndim(level) or isinstance(level, bool) or not isinstance(level, numbers.Real) or not np.isfinite(level):
        raise InputError(f"saturation={given!r} must be one finite number, a Quantity or 'header'")
    return saturation_mask(image.data, float(level))


# ---- pictures ----------------------------------------------------------------------------------------------------


def _picture(path, kind, options):
    from astropy.nddata import CCDData

    from astrogan.image._pictures import read_picture

    for name in ("hdu", "uncertainty", "mask", "section"):
        value = getattr(options, name)
        if value not in (None, False):
            raise InputError(f"{name}={value!r} cannot be used: {str(path)!r} is a {kind} picture; leave it out")
    data, clear = read_picture(path, kind, options.max_pixels)
    unit = parse_unit("") if options.unit is None else options.unit
    meta = safe_header({"AGLINEAR": (False, "pixel values are not linear in flux")})
    if data.ndim == 3:
        meta["AGBANDS"] = ("R,G,B", "bands, in order")
    mask = ~np.isfinite(data) if clear is None else ~np.isfinite(data) | clear
    return CCDData(data, unit=unit, mask=mask, meta=meta)
