"""JPEG, PNG and TIFF: images for people's eyes, not linear in flux, which some stamps exist only as."""

from __future__ import annotations

import warnings

import numpy as np

from astrogan.exceptions import ImageReadError, RangeWarning
from astrogan.image._fits_file import reading
from astrogan.image._headers import quiet

__all__ = ["read_picture"]


def read_picture(path, kind, max_pixels):
    """Values and mask of a picture.

    Parameters
    ----------
    path : path
    kind : {'JPEG', 'PNG', 'TIFF'}
    max_pixels : int
        Compared with the size in the file's header before anything is unpacked.

    Returns
    -------
    data : `numpy.ndarray`
        float32, (y, x), or (band, y, x) in the order R, G, B; numbers as they are in the file.
    mask : `numpy.ndarray` of bool or None
        Where the picture is transparent; same shape.
    """
    with reading(path):
        pixels = _tiff(path, max_pixels) if kind == "TIFF" else None
        if pixels is None:
            pixels = _by_pillow(path, kind, max_pixels)
    return _planes(pixels, path)


def _check_size(path, shape, max_pixels):
    count = int(np.prod([int(n) for n in shape], dtype=object))
    if count > max_pixels:
        raise ImageReadError(
            f"{str(path)!r} has {' x '.join(map(str, shape))} pixels, more than max_pixels={max_pixels}; "
            "raise max_pixels= (--max-pixels) if the file is to be trusted"
        )


def _tiff(path, max_pixels):
    """A TIFF of any depth; `None` where it is compressed in a way that tifffile needs a further package for."""
    import tifffile

    with quiet(), tifffile.TiffFile(path) as file:
        page = file.pages[0]
        _check_size(path, page.shape, max_pixels)
        try:
            pixels = page.asarray()
        except ValueError:
            return None
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            return None
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind == "u":
            pixels = np.iinfo(pixels.dtype).max - pixels
    if pixels.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels


def _by_pillow(path, kind, max_pixels):
    with quiet(), _opened(path, kind) as picture:
        _check_size(path, (picture.height, picture.width, len(picture.getbands())), max_pixels)
        shallow = kind == "PNG" and picture.mode.startswith("RGB") and _png_depth(path) == 16
        if picture.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV"):
            picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
        elif picture.mode == "1":
            picture = picture.convert("L")
        pixels = np.asarray(picture)
    if shallow:
        warnings.warn(
            f"{str(path)!r} has 16 bits a colour, of which 8 are read; save it as TIFF or FITS to keep all",
            RangeWarning,
            stacklevel=2,
        )
    return pixels


def _opened(path, kind):
    from PIL import Image

    try:
        return Image.open(path, formats=(kind,))
    except Image.DecompressionBombError as error:  # a limit of Pillow's own, whatever max_pixels is
        raise ImageReadError(
            f"{str(path)!r} has more pixels than Pillow unpacks ({error}); save it as FITS, or as TIFF without "
            "compression, if it is to be trusted"
        ) from error


def _png_depth(path):
    with open(path, "rb") as stream:
        return stream.read(25)[24]


def _planes(pixels, path):
    """Colours first, transparency as a mask."""
    if pixels.dtype.kind not in "uif" or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise ImageReadError(
            f"{str(path)!r} has pixels of type {pixels.dtype} and shape {pixels.shape}; save it as FITS"
        )
    data = np.array(pixels, np.float32)
    if data.ndim == 2:
        return data, None
    colours = np.ascontiguousarray(np.moveaxis(data, -1, 0))
    clear = colours[-1] == 0 if len(colours) in (2, 4) else None
    colours = colours[:-1] if clear is not None else colours
    mask = None if clear is None or not clear.any() else np.broadcast_to(clear, colours.shape).copy()
    if len(colours) == 1:
        return colours[0], None if mask is None else mask[0]
    return colours, mask
