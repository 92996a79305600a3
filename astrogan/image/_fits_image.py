"""An image out of a FITS file: its pixels, and the unit, WCS, mask, uncertainty, PSF and header that go with them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import warnings
from pathlib import Path

import numpy as np

from astrogan.exceptions import (
    AstroganError,
    AstroganWarning,
    ImageReadError,
    InputError,
    UncertaintyWarning,
    UnitError,
    WCSError,
)
from astrogan.image._fits_file import FitsFile, Hdu, file_kind, header_text, header_value
from astrogan.image._hdu_roles import UNCERTAINTIES, band_of, companion, kind_in_name, role_of, science
from astrogan.image._headers import parse_unit, quiet, safe_header

__all__ = ["choose_hdus", "distinct", "read_fits_image"]

logger = logging.getLogger("astrogan")


# ---- which HDU ---------------------------------------------------------------------------------------------------


def choose_hdus(file: FitsFile, hdu=None) -> list[Hdu]:
    """The image HDUs to read: the one that is asked for; else the first image, or one for each band of a cube."""
    if hdu is not None:
        return [_find(file, hdu, "hdu")]
    if not file.images:
        raise ImageReadError(f"{str(file.path)!r} holds no image: {file.listing()}")
    hdus = science(file.hdus)
    if len(hdus) == 1 or _are_bands(file, hdus):
        return hdus
    others = [other.index for other in hdus[1:]]
    logger.info("%s: HDU %d is read; give hdu= for one of %s", file.path, hdus[0].index, others)
    return hdus[:1]


def _find(file, wanted, argument):
    """One HDU, by number, EXTNAME or band."""
    if isinstance(wanted, str):
        name = wanted.strip().upper()
        matches = [hdu for hdu in file.hdus if hdu.name.upper() == name]
        matches = matches or [hdu for hdu in file.hdus if name == "PRIMARY" and hdu.index == 0]
        matches = matches or [hdu for hdu in science(file.hdus) if band_of(hdu) == wanted.strip()]
    else:
        matches = [hdu for hdu in file.hdus if hdu.index == wanted]
    if not matches:
        raise ImageReadError(f"{argument}={wanted!r} is not in {str(file.path)!r}, which holds {file.listing()}")
    return matches[0]


def _are_bands(file, hdus):
    """Whether images are the bands of one field: one shape, one WCS, and a name of its own for each."""
    from astrogan.image.wcs import pixel_scale, wcs_equal

    if len(hdus[0].shape) != 2 or len({hdu.shape for hdu in hdus}) > 1 or not distinct([band_of(h) for h in hdus]):
        return False
    try:
        first, *others = [_wcs(file, hdu, 2) for hdu in hdus]
    except AstroganError:
        return False
    if first is None:
        return all(other is None for other in others)
    tolerance = 0.01 * pixel_scale(first)
    return all(other is not None and wcs_equal(first, other, hdus[0].shape, tolerance) for other in others)


def distinct(names):
    """Whether every image has a name, and no two the same."""
    return all(names) and len(set(names)) == len(names)


# ---- the image ---------------------------------------------------------------------------------------------------


def read_fits_image(file: FitsFile, options):
    """The image that `~astrogan.image.read.read_image` returns, without saturation.

    Parameters
    ----------
    file : `FitsFile`
    options
        The arguments of ``read_image``: hdu, unit (parsed), uncertainty, uncertainty_type, mask, section.

    Returns
    -------
    `~astropy.nddata.CCDData`
        Its ``mask`` is an array always.
    """
    from astropy.nddata import CCDData

    hdus = choose_hdus(file, options.hdu)
    window = _window(options.section, hdus[0])
    _check_total(file, hdus, window)
    header = _merged_header(file, hdus[0])
    unit = _unit(header, options.unit, f"{str(file.path)!r}: HDU {hdus[0].index}")  # before the pixels: it is quick

    data, mask = _pixels(file, hdus, window)
    source = _Source(file, hdus, window, data.shape, header, unit)
    uncertainty = _uncertainty(source, options.uncertainty, options.uncertainty_type)
    for bad in _masks(source, options.mask):
        mask |= bad
    meta = safe_header(header)
    _note_unit(meta, header, options.unit, file.path)
    _name_bands(meta, header, hdus, data.shape)
    wcs = _image_wcs(source)
    flags = _flags(source)
    return CCDData(
        data, unit=unit, mask=mask, uncertainty=uncertainty, flags=flags, wcs=wcs, meta=meta, psf=_psf(source)
    )


class _Source:
    """What is known of an image once its pixels are read; its companions are looked for with it."""

    def __init__(self, file, hdus, window, shape, header, unit):
        self.file, self.hdus, self.window = file, hdus, window
        self.shape, self.header, self.unit = shape, header, unit

    def companions(self, kinds):
        """(HDU, kind) for each of the image's HDUs; `None` where there is no such companion."""
        return [companion(self.file.hdus, hdu, kinds) for hdu in self.hdus]


def _window(section, hdu):
    """The window in an HDU, with start and stop."""
    if section is None or not hdu.is_image:
        return None
    window = tuple(slice(*part.indices(n)[:2]) for part, n in zip(section, hdu.shape[-2:], strict=True))
    if any(part.stop <= part.start for part in window):
        raise InputError(f"section={section!r} is empty in an image of shape {hdu.shape}; give rows and columns in it")
    return window


def _check_total(file, hdus, window):
    for hdu in hdus:
        file.check(hdu, window)
    total = sum(math.prod(hdu.shape) for hdu in hdus)
    if window is None and total > file.max_pixels:
        raise ImageReadError(
            f"{str(file.path)!r} has {total} pixels in {len(hdus)} bands, more than max_pixels={file.max_pixels}; "
            "raise max_pixels= (--max-pixels), or read a band with hdu="
        )


def _merged_header(file, hdu):
    """The HDU's header and, behind it, what only the primary one says: most keywords of an extension's image."""
    header, first = hdu.header.copy(), file.hdus[0].header
    if hdu.index > 0:
        with quiet():
            header.extend(safe_header(first), unique=True, update=False)
            if "BUNIT" not in header and header_text(first, "BUNIT"):
                header["BUNIT"] = first["BUNIT"]
    return header


def _pixels(file, hdus, window):
    """(y, x) or (band, y, x), and what is no number in them."""
    parts = [file.pixels(hdu, window) for hdu in hdus]
    bads = [~np.isfinite(data) if blank is None else ~np.isfinite(data) | blank for data, blank in parts]
    if len(parts) > 1:
        return np.stack([data for data, _ in parts]), np.stack(bads)
    data, bad = parts[0][0], bads[0]
    while data.ndim > 3 and data.shape[0] == 1:  # polarisation and other axes of length one
        data, bad = data[0], bad[0]
    if data.ndim > 3:
        raise ImageReadError(
            f"{str(file.path)!r}: HDU {hdus[0].index} has shape {data.shape}; images have axes (y, x) or (band, y, x)"
        )
    return data, bad


# ---- unit and names ----------------------------------------------------------------------------------------------


def _unit(header, given, label):
    if given is not None:
        return given
    text = header_text(header, "BUNIT")
    if text:
        try:
            return parse_unit(text)
        except UnitError as error:
            raise UnitError(
                f"{label} has BUNIT={text!r}, which astropy.units does not know; "
                "say the unit, e.g. unit='adu' (--unit adu)"
            ) from error
    if "BUNIT" in header and "dimensionless" in header.comments["BUNIT"]:  # as `write_image` says it
        return parse_unit("")
    raise UnitError(
        f"{label} has no BUNIT; say the unit of its pixels, e.g. unit='adu' (--unit adu), or unit='' for none"
    )


def _note_unit(meta, header, given, path):
    """Say it where the user's unit is another than the file's."""
    text = header_text(header, "BUNIT")
    if given is None or not text:
        return
    try:
        same = parse_unit(text) == given
    except UnitError:
        same = False
    if not same:
        logger.info("%s: unit=%s is used instead of BUNIT=%r", path, given, text)
        meta.extend(safe_header({"HISTORY": f"astrogan: unit '{given}' given, BUNIT was '{text}'"}))


def _name_bands(meta, header, hdus, shape):
    """AGBANDS, for cubes only."""
    known = [name for name in header_text(meta, "AGBANDS").split(",") if name]
    if len(shape) == 3 and len(known) == shape[0]:
        return
    meta.remove("AGBANDS", ignore_missing=True, remove_all=True)
    if len(shape) != 3:
        return
    if len(hdus) > 1:
        names = [band_of(hdu) for hdu in hdus]
        for key in ("BAND", "FILTER"):  # they are those of the first band
            meta.remove(key, ignore_missing=True, remove_all=True)
    else:
        names = _bands_in(header, shape[0])
    if names:
        text = ",".join(name.replace(",", " ") for name in names)
        meta.extend(safe_header({"AGBANDS": (text, "bands, in order")}))


def _bands_in(header, number):
    """Names of a cube's planes: BANDS = 'g,r,i', BAND1 ... or FILTER1 ..., counted from 1 or from 0."""
    text = header_text(header, "BANDS")
    for names in (text.split(","), text.split(), list(text)):
        names = [name.strip() for name in names]
        if len(names) == number and distinct(names):
            return names
    for key in ("BAND", "FILTER", "FILT"):
        for first in (1, 0):
            names = [header_text(header, f"{key}{first + i}") for i in range(number)]
            if distinct(names):
                return names
    return []


# ---- uncertainty -------------------------------------------------------------------------------------------------


def _uncertainty(source, wanted, kind):
    """The uncertainty that is asked for, else the one that belongs to the image, else `None`."""
    from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty

    if wanted is False:
        return None
    if wanted is None:
        found = _own_uncertainty(source, kind)
        if found is None:
            return None
        values, bad, hdu, kind = found
    else:
        values, bad, hdu, name = _from(source, wanted, "uncertainty")
        kind = kind or _kind_of(hdu, name)
        if kind is None:
            raise InputError(
                f"uncertainty={_show(wanted)}: HDU {hdu.index} does not say what it is; "
                "give uncertainty_type='std', 'var' or 'ivar' (--uncertainty-type)"
            )
    if values.shape != source.shape:
        label = f"HDU {hdu.index}" if wanted is None else _show(wanted)
        raise InputError(f"uncertainty={label} has shape {values.shape}; it must be that of the image, {source.shape}")
    values[bad] = np.nan
    classes = {"std": StdDevUncertainty, "var": VarianceUncertainty, "ivar": InverseVariance}
    return classes[kind](_in_unit(values, hdu, kind, source))


def _own_uncertainty(source, kind):
    """Values, what is no number in them, an HDU and the kind, of what belongs to the image."""
    found = source.companions(UNCERTAINTIES)
    if not any(found):
        if kind is None:
            return None
        raise InputError(
            f"uncertainty_type={kind!r} is given, but {str(source.file.path)!r} does not say which HDU the uncertainty "
            f"is: it holds {source.file.listing()}; say it with uncertainty="
        )
    kinds = {item[1] for item in found if item}
    if None in found or len(kinds) > 1:
        warnings.warn(
            f"{str(source.file.path)!r}: some of its bands have an uncertainty of another kind than others, or none, "
            "and so none is read; read them one by one with hdu=",
            UncertaintyWarning,
            stacklevel=5,
        )
        return None
    hdus = [item[0] for item in found]
    return *_pixels(source.file, hdus, source.window), hdus[0], kind or kinds.pop()


def _kind_of(hdu, name):
    """What an uncertainty is, by its HDU or the name of its file; a weight is an inverse variance up to a factor."""
    kind = role_of(hdu).kind
    if kind in UNCERTAINTIES:
        return kind
    return "ivar" if kind == "weight" else kind_in_name(name)


def _in_unit(values, hdu, kind, source):
    """Values in the image's unit, where their own header names another that converts."""
    text = header_text(hdu.header, "BUNIT")
    if not text or text == header_text(source.header, "BUNIT"):
        return values
    power = {"std": 1, "var": 2, "ivar": -2}[kind]
    try:
        factor = parse_unit(text).to(source.unit**power)
    except (UnitError, ValueError, ArithmeticError) as error:  # often the image's BUNIT without its power
        logger.debug("BUNIT=%r of HDU %d is not used: %s", text, hdu.index, error)
        return values
    return values if factor == 1 else values * factor


# ---- masks -------------------------------------------------------------------------------------------------------


def _masks(source, wanted):
    """The mask that is asked for; else those that belong to the image, and where its weight is zero."""
    if wanted is False:
        return
    if wanted is not None:
        values, blank, hdu, _ = _from(source, wanted, "mask")
        bad = _bad_pixels(values, blank, hdu, source.header)
        if bad.shape not in (source.shape, source.shape[-2:]):
            raise InputError(
                f"mask={_show(wanted)} has shape {bad.shape}; it must be that of the image, {source.shape}"
            )
        yield bad
        return
    masks = [_companion_mask(source, item) for item in source.companions(("mask",))]
    weights = [_zero_weight(source, item) for item in source.companions(("weight",))]
    for planes in (masks, weights):
        if len(planes) == 1 and planes[0] is not None:
            yield planes[0]
        elif any(plane is not None for plane in planes):
            yield np.stack([np.zeros(source.shape[-2:], bool) if plane is None else plane for plane in planes])


def _companion_mask(source, item):
    if item is None:
        return None
    return _bad_pixels(*_pixels(source.file, [item[0]], source.window), item[0], source.header)


def _zero_weight(source, item):
    """Where a weight map says that nothing was measured; as an uncertainty it is read only where that is asked for."""
    if item is None:
        return None
    weight, bad = _pixels(source.file, [item[0]], source.window)
    return bad | (weight <= 0)


def _bad_pixels(values, blank, hdu, image_header):
    """Where a mask says that a pixel is not usable."""
    bits = _bad_bits(hdu, image_header)
    if bits is None:
        return blank | (values != 0)
    return blank | ((np.where(blank, 0, values).astype(np.int64) & bits) != 0)


def _bad_bits(hdu, image_header):
    """The bits of a mask that make a pixel useless, where a convention says so; `None`: all."""
    planes = {key[3:]: header_value(hdu.header, key) for key in hdu.header if key.startswith("MP_")}
    if planes:  # Rubin and HSC; among them is DETECTED, which is every galaxy
        useless = [planes.get(name) for name in ("BAD", "SAT", "CR", "NO_DATA", "EDGE", "UNMASKEDNAN", "SUSPECT")]
        return sum(1 << bit for bit in useless if isinstance(bit, int) and 0 <= bit < 62)
    if hdu.name.upper() == "DQ" and header_text(image_header, "TELESCOP").upper() in ("JWST", "ROMAN"):
        return 1  # DO_NOT_USE
    return None


# ---- other HDUs, other files -------------------------------------------------------------------------------------


def _from(source, wanted, argument):
    """Values, what is no number in them, the HDU and the file's name, from where the user says."""
    path, hdu = wanted if isinstance(wanted, tuple) else (None, wanted)
    names = {hdu.name.upper() for hdu in source.file.hdus}
    if isinstance(wanted, os.PathLike) or (isinstance(wanted, str) and wanted.strip().upper() not in names):
        path, hdu = wanted, None
    if path is None:
        found = _find(source.file, hdu, argument)
        return *_pixels(source.file, [found], source.window), found, ""
    path = Path(path).expanduser()
    if isinstance(wanted, str) and not path.exists():
        raise ImageReadError(
            f"{argument}={wanted!r} is no file, and no HDU of {str(source.file.path)!r}, "
            f"which holds {source.file.listing()}"
        )
    if file_kind(path) != "FITS":
        raise ImageReadError(f"{argument}={_show(wanted)} is a picture; it must be FITS")
    with FitsFile(path, source.file.max_pixels) as file:
        hdus = [_find(file, hdu, argument)] if hdu is not None else file.images[:1]
        if not hdus:
            raise ImageReadError(f"{argument}={_show(wanted)} holds no image: {file.listing()}")
        if hdu is None and len(source.shape) == 3 and len(hdus[0].shape) == 2 and len(file.images) == source.shape[0]:
            hdus = file.images  # one a band
        return *_pixels(file, hdus, source.window), hdus[0], path.name


def _show(wanted):
    return repr(tuple(map(str, wanted)) if isinstance(wanted, tuple) else str(wanted))


def _flags(source):
    """The flags that astrogan has written with the image, as integers; `None` unless each of its HDUs has some."""
    found = source.companions(("flags",))
    if not all(found):
        return None
    values, _ = _pixels(source.file, [hdu for hdu, _ in found], source.window)
    small = all(header_value(hdu.header, "BITPIX") == 8 for hdu, _ in found)
    return values.astype(np.uint8 if small else np.int64) if values.shape == source.shape else None


def _psf(source):
    """The PSF that is stored with the image, if there is one."""
    found = source.companions(("psf",))
    if not all(found):
        return None
    try:
        kernels = [source.file.pixels(hdu)[0] for hdu, _ in found]
    except AstroganError as error:
        logger.info("%s: its PSF is not read: %s", source.file.path, error)
        return None
    if len({kernel.shape for kernel in kernels}) > 1:
        return None
    return kernels[0] if len(kernels) == 1 else np.stack(kernels)


# ---- WCS ---------------------------------------------------------------------------------------------------------


def _image_wcs(source):
    """The WCS of what was read; `None`, with a warning, where the header contradicts itself."""
    from astrogan.image.wcs import crop_wcs, cube_wcs

    hdu, shape = source.hdus[0], source.shape
    try:
        wcs = _wcs(source.file, hdu, 2 if len(source.hdus) > 1 else len(shape))
        if wcs is not None and source.window is not None:
            rows, columns = source.window
            wcs = crop_wcs(wcs, columns.start, rows.start, shape[-2:])
        return cube_wcs(wcs, shape[0]) if wcs is not None and wcs.naxis == 2 and len(shape) == 3 else wcs
    except AstroganError as error:
        warnings.warn(
            f"{str(source.file.path)!r}: HDU {hdu.index} is read without its WCS, which cannot be used: "
            f"{' '.join(str(error).split())}",
            AstroganWarning,
            stacklevel=4,
        )
        return None


def _wcs(file, hdu, naxis):
    """The WCS of an HDU's header; whatever is wrong with it is a `WCSError`."""
    try:
        with quiet():
            return _parsed_wcs(file, hdu, naxis)
    except (AstroganError, ImportError, NameError):
        raise
    except Exception as error:
        raise WCSError(" ".join(str(error).split())[:200] or type(error).__name__) from error


def _parsed_wcs(file, hdu, naxis):
    from astrogan.image.wcs import wcs_from_header

    _check_wcs_size(hdu.header)
    if any(key in hdu.header for key in ("CPDIS1", "CPDIS2", "D2IMDIS1", "D2IMDIS2")):
        return _wcs_with_tables(file, hdu)
    if naxis == 3 and any(key in hdu.header for key in ("CTYPE3", "CRVAL3", "CDELT3", "CD3_3")):
        # Many a third axis is described by half, which makes the whole WCS singular; the sky is still good.
        with contextlib.suppress(WCSError):
            return wcs_from_header(hdu.header, naxis=3)
    return wcs_from_header(hdu.header, naxis=2)


def _wcs_with_tables(file, hdu):
    """The celestial WCS of a header whose look-up tables are other HDUs of the file."""
    from astropy.io import fits
    from astropy.wcs import WCS

    from astrogan.image.wcs import celestial

    with fits.open(file.path, memmap=False) as tables:
        wcs = WCS(hdu.header, tables, naxis=2, relax=True)
    return wcs if celestial(wcs) is not None else None


def _check_wcs_size(header):
    """A header of a few hundred bytes may ask for a polynomial of a billion coefficients."""
    limits = {"WCSAXES": 9, "A_ORDER": 20, "B_ORDER": 20, "AP_ORDER": 20, "BP_ORDER": 20}
    for key, most in limits.items():
        value = header_value(header, key)
        if value is not None and not (isinstance(value, int) and 0 <= value <= most):
            raise WCSError(f"{key}={value!r} is not from 0 to {most}")
