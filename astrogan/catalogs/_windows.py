"""Windows of an image: its header is understood once, and its pixels are read where they are asked for."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping

import numpy as np

from astrogan.exceptions import ImageReadError, InputError
from astrogan.image._fits_file import _DTYPES, FitsFile, file_kind
from astrogan.image._fits_image import (
    _masks,
    _merged_header,
    _pixels,
    _Source,
    _uncertainty,
    choose_hdus,
    read_fits_image,
)
from astrogan.image._headers import SATURATION
from astrogan.image.read import _Options, read_image

__all__ = ["Image", "open_image"]

OF_FILES = ("hdu", "unit", "uncertainty", "uncertainty_type", "mask", "max_pixels")
"""Keywords of a call that say how a file is read; the others are for the operator."""


@contextlib.contextmanager
def open_image(image, reading):
    """An `Image` of whatever operators take: a path, an image, or a list or dict of them, one a band.

    Parameters
    ----------
    image : path, `~astropy.nddata.NDData`, list or dict
    reading : dict
        Keywords of `~astrogan.image.read.read_image`.

    Yields
    ------
    Image
    """
    with contextlib.ExitStack() as stack:
        if isinstance(image, Mapping | list | tuple):
            items = list(image.values()) if isinstance(image, Mapping) else list(image)
            parts = [stack.enter_context(_part(item, reading)) for item in items]
            keys = list(image) if isinstance(image, Mapping) else None
            yield Image(parts, keys, single=False)
        else:
            yield Image([stack.enter_context(_part(image, reading))], None, single=True)


class Image:
    """An image of which windows are read.

    Attributes
    ----------
    shape : tuple of int
        (y, x).
    wcs : `~astropy.wcs.WCS` or None
        Celestial, of the whole image.
    pixel_scale : float or None
        Arcsec per pixel.
    n_bands : int
    unit : `~astropy.units.Unit` or None
    """

    def __init__(self, parts, keys, *, single):
        from astrogan.image.wcs import celestial, pixel_scale

        self._parts, self._keys, self._single = parts, keys, single
        first = parts[0].template
        shapes = {part.shape[-2:] for part in parts}
        if len(shapes) > 1:
            raise InputError(f"the bands have shapes {sorted(shapes)}; resample them onto one grid first")
        self.shape = shapes.pop()
        self.n_bands = len(parts) if len(parts[0].shape) == 2 else parts[0].shape[0]
        self.unit = first.unit
        self.wcs = celestial(getattr(first.wcs, "low_level_wcs", first.wcs))
        self.pixel_scale = None if self.wcs is None else float(pixel_scale(self.wcs))
        if self.pixel_scale is None and isinstance(first.meta.get("PIXSCALE"), int | float):
            self.pixel_scale = float(first.meta["PIXSCALE"]) or None
        self._header = None

    @property
    def templates(self):
        """An image a part, with its unit, meta and PSF."""
        return [part.template for part in self._parts]

    def read(self, rows, columns, *, wcs=True):
        """The window as an operator takes it, in the form that the image has.

        Parameters
        ----------
        rows, columns : slice
            Inside the image.
        wcs : bool
            Whether the window has a WCS and the whole header; they take longer than the pixels.
        """
        images = [part.read(rows, columns, wcs=wcs) for part in self._parts]
        if self._single:
            return images[0]
        return images if self._keys is None else dict(zip(self._keys, images, strict=True))

    def header_at(self, x0, y0):
        """The WCS of a cut-out whose first pixel is (x0, y0), as the text of a FITS header."""
        if self.wcs is None:
            return ""
        if self._header is None:
            self._header = _header_parts(self.wcs)
        (crpix1, crpix2), rest = self._header
        return _number("CRPIX1", crpix1 - x0) + _number("CRPIX2", crpix2 - y0) + rest


def _header_parts(wcs):
    from astrogan.image._headers import quiet

    with quiet():
        header = wcs.to_header(relax=True)
    for key in ("CRPIX1", "CRPIX2"):
        header.remove(key, ignore_missing=True)
    return tuple(float(value) for value in wcs.wcs.crpix), header.tostring(endcard=False, padding=False)


def _number(key, value):
    from astropy.io import fits

    return fits.Card(key, float(value)).image


# ---- one file, or one image in memory ------------------------------------------------------------------------------


@contextlib.contextmanager
def _part(image, reading):
    if not isinstance(image, str | os.PathLike):
        yield _InMemory(_checked(image))
    elif file_kind(image) != "FITS":
        yield _InMemory(read_image(image, **reading))
    else:
        options = {"hdu": None, "unit": None, "uncertainty": None, "uncertainty_type": None, "mask": None}
        options |= {"saturation": None, "max_pixels": 2**30, "section": np.s_[0:1, 0:1]} | reading
        with _MappedFile(image, options["max_pixels"]) as file:
            if file._packed:  # to go back in it means to unpack it again from its start
                yield _InMemory(read_image(image, **reading))
            else:
                yield _InFile(file, options)


def _checked(image):
    from astropy.nddata import NDData

    if not isinstance(image, NDData):
        raise InputError(f"image is {type(image).__name__}; it must be a path, CCDData or NDData")
    return image


class _InMemory:
    """An image that is there already."""

    def __init__(self, image):
        self.template = image
        self.shape = np.shape(image.data)

    def read(self, rows, columns, *, wcs):
        from astropy.nddata import CCDData

        image = self.template
        pick = (..., rows, columns)
        uncertainty = image.uncertainty
        if uncertainty is not None:
            uncertainty = type(uncertainty)(np.asarray(uncertainty.array)[pick], unit=uncertainty.unit)
        mask = image.mask
        if mask is not None:
            mask = np.array(np.broadcast_to(mask, self.shape)[pick])
        return CCDData(
            np.array(image.data[pick]),
            unit=image.unit or "",
            mask=mask,
            uncertainty=uncertainty,
            wcs=_cut(image.wcs, rows, columns) if wcs else None,
            meta=_meta(image, wcs),
        )


class _MappedFile(FitsFile):
    """A FITS file whose plain images are mapped to memory: a small window is then one copy, not a read a row."""

    def _strips(self, hdu, window):
        if self._packed:
            yield from super()._strips(hdu, window)
            return
        maps = self.__dict__.setdefault("_maps", {})
        if hdu.index not in maps:
            shape = (math.prod(hdu.shape[:-2]), *hdu.shape[-2:])
            maps[hdu.index] = np.memmap(self.path, _DTYPES[hdu.bitpix], "r", hdu.offset, shape)
        for plane, whole in enumerate(maps[hdu.index]):
            yield (plane, slice(None)), whole[window]


class _Known(_Source):
    """A `_Source` that looks for an image's companions once, not once a window."""

    found: dict

    def companions(self, kinds):
        if kinds not in self.found:
            self.found[kinds] = super().companions(kinds)
        return self.found[kinds]


class _InFile:
    """An image in a FITS file that is open: what its headers say is read once."""

    def __init__(self, file, options):
        self._file, self._options = file, _Options.checked(**options)
        self.template = read_fits_image(file, self._options)
        self._hdus = choose_hdus(file, self._options.hdu)
        shape = self._hdus[0].shape
        while len(shape) > 3 and shape[0] == 1:
            shape = shape[1:]
        self.shape = shape if len(self._hdus) == 1 else (len(self._hdus), *shape)
        self._header = _merged_header(file, self._hdus[0])
        self._found = {}

    def read(self, rows, columns, *, wcs):
        from astropy.nddata import CCDData

        window, options = (rows, columns), self._options
        data, mask = _pixels(self._file, self._hdus, window)
        source = _Known(self._file, self._hdus, window, data.shape, self._header, self.template.unit)
        source.found = self._found
        uncertainty = _uncertainty(source, options.uncertainty, options.uncertainty_type)
        for bad in _masks(source, options.mask):
            mask |= bad
        return CCDData(
            data,
            unit=self.template.unit,
            mask=mask if mask.any() else None,
            uncertainty=uncertainty,
            wcs=_cut(self.template.wcs, rows, columns) if wcs else None,
            meta=_meta(self.template, wcs),
        )


# What of a header an operator looks at, where the PSF and the pixel scale are given.
_NEEDED = ("BAND", "FILTER", "AGBANDS", *SATURATION)


def _meta(image, whole):
    if whole:
        return image.meta
    return {key: image.meta[key] for key in _NEEDED if key in image.meta}


def _cut(wcs, rows, columns):
    from astrogan.image.wcs import crop_wcs

    wcs = getattr(wcs, "low_level_wcs", wcs)
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    return crop_wcs(wcs, columns.start, rows.start, shape)


def check_readable(path):
    """Raise at once where the one image of all rows is not there."""
    if isinstance(path, str | os.PathLike) and not os.path.exists(path):
        raise ImageReadError(f"there is no file {str(path)!r}; check the path")
