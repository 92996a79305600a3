"""What a FITS file holds, learnt from its headers alone, and its pixels, read a few rows at a time.

A file from elsewhere may be truncated, may claim to be larger than it is, or may unpack to a thousand times its size.
So headers are read first, with bounds; nothing is allocated before the claim has been compared with the file and with
the largest image that the caller accepts; and pixels go straight into the array that is handed on.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import logging
import lzma
import math
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astrogan.exceptions import AstroganError, ImageReadError
from astrogan.image._headers import quiet

__all__ = ["FitsFile", "Hdu", "file_kind", "header_text", "header_value", "reading"]

logger = logging.getLogger("astrogan")

_BLOCK = 2880
_MOST_HEADER_BYTES = 2**24  # 200,000 cards
_MOST_HDUS = 4096
_CHUNK = 2**22
_LARGE_TABLE = 2**24

_DTYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_OF_TABLES = re.compile(r"(TTYPE|TFORM|TUNIT|TNULL|TSCAL|TZERO|TDIM|TDISP)\d+|TFIELDS|THEAP|NAXIS\d+")
_UNPACK = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_PICTURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"II*\x00": "TIFF", b"MM\x00*": "TIFF"}
_OTHERS = {
    b"PK\x03\x04": "a ZIP or NumPy .npz archive; unpack it first",
    b"\x93NUMPY": "a NumPy array; load it with numpy.load and wrap it in CCDData(array, unit=...)",
    b"#ASDF": "an ASDF file; save the image as FITS",
    b"\x89HDF": "an HDF5 file; save the image as FITS",
    b"GIF8": "a GIF; JPEG, PNG and TIFF pictures are read",
    b"%PDF": "a PDF",
}


@contextlib.contextmanager
def reading(path, what="the file"):
    """Turn whatever goes wrong while damaged bytes are read into an `ImageReadError` that names the file."""
    try:
        yield
    except (AstroganError, ImportError, NameError):  # the latter two say nothing about the file
        raise
    except PermissionError as error:
        raise ImageReadError(f"{str(path)!r} may not be read; change its permissions") from error
    except MemoryError as error:
        raise ImageReadError(
            f"{str(path)!r}: {what} does not fit the memory; read a window with section=, or lower max_pixels="
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageReadError(
            f"{str(path)!r}: {what} cannot be read ({reason}); the file is damaged or truncated: fetch it again"
        ) from error


def file_kind(path):
    """``"FITS"``, or the name of a picture format, from the file's first bytes.

    Raises
    ------
    ImageReadError
        If there is no such file, or it is no image.
    """
    with reading(path):
        _check_regular(path)
        with open(path, "rb") as stream:
            start = stream.read(512)
        for magic, name in _PICTURES.items():
            if start.startswith(magic):
                return name
        unpack = _unpacker(start)
        if unpack is not None:
            with unpack(path, "rb") as stream:
                start = stream.read(80)
    if start.startswith(b"SIMPLE  ="):
        return "FITS"
    raise ImageReadError(f"{str(path)!r} {_what_else(start)}")


def _check_regular(path):
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        remedy = "; download it first" if str(path).startswith(("http:", "https:", "ftp:", "s3:")) else ""
        raise ImageReadError(f"there is no file {str(path)!r}{remedy}; check the path") from error
    except OSError as error:
        raise ImageReadError(f"{str(path)!r} cannot be opened: {error.strerror or error}; check the path") from error
    if stat.S_ISDIR(mode):
        raise ImageReadError(f"{str(path)!r} is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise ImageReadError(f"{str(path)!r} is no regular file; save the image to one")


def _unpacker(start):
    return next((opener for magic, opener in _UNPACK.items() if start.startswith(magic)), None)


def _what_else(start):
    if not start:
        return "is empty; fetch it again"
    for magic, name in _OTHERS.items():
        if start.startswith(magic):
            return f"is {name}"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"{", b"<head")):
        return "is a web page or an answer in text, not an image: the download failed; fetch it again"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the image itself; run 'git lfs pull'"
    return "is no FITS file (it does not start with SIMPLE), and no JPEG, PNG or TIFF picture; check the path"


# ---- HDUs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hdu:
    """One HDU, as its header describes it.

    Attributes
    ----------
    index : int
    header : `astropy.io.fits.Header`
        Of the image itself where it is compressed.
    shape : tuple of int
        Of the image, numpy's order; empty where there is none.
    kind : str
        ``"image"``, ``"compressed image"`` or what else it is.
    offset, size : int
        Where the data are in the (unpacked) file, in bytes; padding not counted.
    bitpix : int
    complete : bool
        Whether the file is long enough.
    table : `astropy.io.fits.Header` or None
        Of the table that holds a compressed image.
    """

    index: int
    header: object
    shape: tuple[int, ...]
    kind: str
    offset: int
    size: int
    bitpix: int
    complete: bool = True
    table: object = None

    @property
    def name(self):
        """EXTNAME, or ``""``."""
        return header_text(self.header, "EXTNAME")

    @property
    def version(self):
        """EXTVER."""
        value = header_value(self.header, "EXTVER")
        return value if isinstance(value, int) else 1

    @property
    def is_image(self):
        """Whether it has at least two axes, none of them empty."""
        return self.kind in ("image", "compressed image") and len(self.shape) >= 2 and 0 not in self.shape

    def describe(self):
        """For the list in an error message."""
        name = f" {self.name!r}" if self.name else ""
        kind = "empty" if self.kind == "image" and not self.shape else self.kind
        return f"{self.index}{name}: {kind} {' x '.join(map(str, self.shape))}".rstrip()


def header_value(header, key):
    """The value of a keyword; `None` where it is missing or cannot be understood."""
    try:
        with quiet():
            return header.get(key)
    except Exception:
        return None


def header_text(header, key):
    """The text of a keyword; ``""`` where it is missing or no text."""
    value = header_value(header, key)
    return value.strip() if isinstance(value, str) else ""


class FitsFile:
    """A FITS file, plain or packed with gzip, bzip2 or xz.

    Parameters
    ----------
    path : path
    max_pixels : int
        No image larger than this is unpacked.

    Attributes
    ----------
    hdus : list of `Hdu`
    """

    def __init__(self, path, max_pixels):
        self.path = Path(path)
        self.max_pixels = max_pixels
        self._stream = None
        with reading(path):
            with open(path, "rb") as stream:
                unpack = _unpacker(stream.read(6))
            self._packed = unpack is not None
            self._stream = (unpack or open)(path, "rb")
            self._length = None if self._packed else os.stat(path).st_size
            try:
                self.hdus = self._scan()
            except BaseException:
                self.close()
                raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    @property
    def images(self):
        """The HDUs that hold images."""
        return [hdu for hdu in self.hdus if hdu.is_image]

    def listing(self):
        """What the file holds, for an error message."""
        text = "; ".join(hdu.describe() for hdu in self.hdus[:20])
        return text + (f"; and {len(self.hdus) - 20} more" if len(self.hdus) > 20 else "")

    # -- headers

    def _scan(self):
        """All headers, up to the first that is damaged. Data are stepped over."""
        hdus, position = [], 0
        while len(hdus) < _MOST_HDUS:
            try:
                if not self._seek(position):
                    break
                hdu, position = self._next(len(hdus), position)
            except Exception as error:
                if not hdus:
                    raise
                logger.debug("%s: what follows HDU %d is not read: %s", self.path, len(hdus) - 1, error)
                break
            if hdu is None:
                break
            hdus.append(hdu)
            if not hdu.complete or (self._packed and hdu.offset + hdu.size > 8 * self.max_pixels):
                break  # what follows is not there, or too far away to be unpacked for a look
        return hdus

    def _seek(self, position):
        """Whether there is such a position."""
        if self._length is not None and position >= self._length:
            return False
        return self._stream.seek(position) == position

    def _next(self, index, position):
        from astropy.io import fits

        with quiet():
            window = _Window(self._stream, _MOST_HEADER_BYTES)
            try:
                header = fits.Header.fromfile(window, endcard=True, padding=False)
            except EOFError:
                if index == 0:
                    raise
                return None, position
            first = "SIMPLE" if index == 0 else "XTENSION"
            if next(iter(header), "") != first:
                raise ValueError(f"HDU {index} does not start with {first}")
            offset = position + window.taken
            size, end = _data_size(header)
            if size < 0 or size > 2**62:
                raise ValueError(f"HDU {index} claims {size} bytes")
            kind, header, shape, bitpix, table = _content(header, index)
        complete = self._length is None or offset + size <= self._length
        return Hdu(index, header, shape, kind, offset, size, bitpix, complete, table), offset + end

    # -- pixels

    def check(self, hdu, window=None):
        """Whether an image may be read: it is there, whole and not too large.

        Raises
        ------
        ImageReadError
        """
        label = f"{str(self.path)!r}: HDU {hdu.index}"
        if not hdu.is_image:
            raise ImageReadError(f"{label} holds no image ({hdu.kind}); the file holds {self.listing()}: give hdu=")
        pixels = math.prod(hdu.shape) if window is None else math.prod((*hdu.shape[:-2], *_sizes(window)))
        if pixels > self.max_pixels:
            raise ImageReadError(
                f"{label} has {' x '.join(map(str, hdu.shape))} pixels, more than max_pixels={self.max_pixels}; "
                "raise max_pixels= (--max-pixels) if the file is to be trusted, or read a window with section="
            )
        if not hdu.complete:
            raise ImageReadError(
                f"{label} claims {hdu.size} bytes of data at byte {hdu.offset}, the file ends at {self._length}: "
                "it is truncated or its header is wrong; fetch it again"
            )
        if hdu.kind == "compressed image" and hdu.size > 8 * self.max_pixels + _MOST_HEADER_BYTES:
            raise ImageReadError(f"{label} claims {hdu.size} bytes for an image that is compressed; fetch it again")
        if hdu.bitpix not in _DTYPES:
            raise ImageReadError(f"{label} has BITPIX={hdu.bitpix}; FITS knows {', '.join(map(str, _DTYPES))}")

    def pixels(self, hdu, window=None):
        """The image, physical values in native float32 or float64.

        Parameters
        ----------
        hdu : `Hdu`
        window : tuple of slice, optional
            (y, x), with start and stop, inside the image.

        Returns
        -------
        data : `numpy.ndarray`
            float64 for float64 and integers of more than 16 bits, float32 else.
        blank : `numpy.ndarray` of bool or None
            Where an integer is the one that BLANK names.
        """
        self.check(hdu, window)
        with reading(self.path, f"HDU {hdu.index}"):
            scaling = _Scaling.of(hdu)
            window = window or tuple(slice(0, n) for n in hdu.shape[-2:])
            strips = self._strips(hdu, window) if hdu.kind == "image" else self._unpacked_strips(hdu, window)
            shape = (math.prod(hdu.shape[:-2]), *_sizes(window))
            data = np.empty(shape, scaling.dtype)
            blank = None if scaling.blank is None else np.zeros(shape, bool)
            for where, raw in strips:
                scaling.apply(raw, data[where])
                if blank is not None:
                    np.equal(raw, scaling.blank, out=blank[where])
        shape = (*hdu.shape[:-2], *shape[1:])
        return data.reshape(shape), None if blank is None or not blank.any() else blank.reshape(shape)

    def _strips(self, hdu, window):
        """Some rows at a time of an image that is stored plainly: where they go, and what they hold."""
        dtype = np.dtype(_DTYPES[hdu.bitpix])
        height, width = hdu.shape[-2:]
        rows, columns = window
        # A narrow window of a wide image is read a row at a time, which a packed file cannot do any quicker.
        whole = self._packed or 2 * (columns.stop - columns.start) > width
        first, last = (0, width) if whole else (columns.start, columns.stop)
        step = max(1, _CHUNK // (width * dtype.itemsize)) if whole else 1
        for plane in range(math.prod(hdu.shape[:-2])):
            for y in range(rows.start, rows.stop, step):
                count = min(step, rows.stop - y)
                self._stream.seek(hdu.offset + ((plane * height + y) * width + first) * dtype.itemsize)
                raw = np.frombuffer(self._take(count * (last - first) * dtype.itemsize), dtype)
                strip = raw.reshape(count, last - first)
                yield (plane, slice(y - rows.start, y - rows.start + count)), strip[:, columns] if whole else strip

    def _unpacked_strips(self, hdu, window):
        """The like for one compressed by tiles, a row of tiles at a time."""
        rows, columns = window
        with quiet(), self._opened(hdu) as image:
            tile = image.tile_shape
            if math.prod(tile) > self.max_pixels or math.prod(image.shape) != math.prod(hdu.shape):
                raise ImageReadError(f"{str(self.path)!r}: HDU {hdu.index} has tiles of {tile} pixels")
            high = max(1, tile[-2])
            step = high * max(1, _CHUNK // (hdu.shape[-1] * high * 8))
            for plane in range(math.prod(hdu.shape[:-2])):
                index = np.unravel_index(plane, hdu.shape[:-2]) if len(hdu.shape) > 2 else ()
                for y in range(rows.start - rows.start % high, rows.stop, step):
                    cut = slice(max(y, rows.start), min(y + step, rows.stop))
                    raw = image.section[(*map(int, index), cut, columns)]
                    yield (plane, slice(cut.start - rows.start, cut.stop - rows.start)), raw

    @contextlib.contextmanager
    def _opened(self, hdu):
        """An image compressed by tiles as astropy has it; a large one stays on the disk: few tiles may be wanted."""
        from astropy.io import fits

        if self._packed or hdu.size < _LARGE_TABLE:
            self._stream.seek(hdu.offset)
            source, index = io.BytesIO(_as_file(fits, hdu, self._take(hdu.size))), 1
        else:
            source, index = self.path, hdu.index
        with fits.open(source, do_not_scale_image_data=True, memmap=source is self.path) as opened:
            yield opened[index]

    def _take(self, size):
        """Exactly so many bytes."""
        parts, missing = [], size
        while missing:
            part = self._stream.read(min(missing, _CHUNK))
            if not part:
                raise ImageReadError(
                    f"{str(self.path)!r} ends {missing} bytes too early: it is truncated or its header is wrong; "
                    "fetch it again"
                )
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Window:
    """The next bytes of a stream, as many as a header may have. astropy reads from it block by block."""

    mode, closed = "rb", False

    def __init__(self, stream, most):
        self._stream, self._most, self.taken = stream, most, 0

    def read(self, size=-1):
        """Bytes."""
        if size < 0 or self.taken + size > self._most:
            raise ValueError(f"a header is longer than {self._most} bytes")
        out = self._stream.read(size)
        self.taken += len(out)
        return out


def _sizes(window):
    return tuple(part.stop - part.start for part in window)


def _axes(header, prefix=""):
    """Shape, in numpy's order."""
    naxis = _whole(header, f"{prefix}NAXIS")
    if not 0 <= naxis <= 999:
        raise ValueError(f"NAXIS={naxis} is not from 0 to 999")
    axes = [_whole(header, f"{prefix}NAXIS{n}") for n in range(naxis, 0, -1)]
    if any(n < 0 for n in axes):
        raise ValueError(f"axes of {axes} pixels are negative")
    return tuple(axes)


def _whole(header, key, default=None):
    value = header_value(header, key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{key}={value!r} is no whole number")
    return value


def _data_size(header):
    """Bytes of data, without and with the padding (FITS standard 4.0, section 4.4.1, equation 2)."""
    axes = _axes(header)
    if not axes:
        return 0, 0
    if axes[-1] == 0 and header_value(header, "GROUPS") is True:
        axes = axes[:-1]
    count = _whole(header, "GCOUNT", 1) * (_whole(header, "PCOUNT", 0) + math.prod(axes))
    size = abs(_whole(header, "BITPIX")) // 8 * count
    return size, -(-size // _BLOCK) * _BLOCK


def _content(header, index):
    """Kind, header, shape and BITPIX of what an HDU holds, and the header of the table around it."""
    extension = "IMAGE" if index == 0 else header_text(header, "XTENSION").upper()
    if extension == "BINTABLE" and header_value(header, "ZIMAGE") is True:
        shape = _axes(header, "Z")
        return "compressed image", _image_header(header, shape), shape, _whole(header, "ZBITPIX"), header
    if extension in ("IMAGE", "IUEIMAGE") and header_value(header, "GROUPS") is not True:
        return "image", header, _axes(header), _whole(header, "BITPIX"), None
    names = {"BINTABLE": "table", "TABLE": "table", "IMAGE": "random groups"}
    return names.get(extension, extension or "unknown"), header, (), _whole(header, "BITPIX"), None


def _image_header(table, shape):
    """The header of an image compressed by tiles: that of the table around it, with the image's own size."""
    header = table.copy()
    for key in [key for key in header if _OF_TABLES.fullmatch(key)]:
        header.remove(key, ignore_missing=True, remove_all=True)
    header["BITPIX"], header["NAXIS"] = table["ZBITPIX"], len(shape)
    for number, length in enumerate(reversed(shape), start=1):
        header.set(f"NAXIS{number}", length, after=f"NAXIS{number - 1}" if number > 1 else "NAXIS")
    if header_text(header, "EXTNAME") == "COMPRESSED_IMAGE":
        del header["EXTNAME"]
    if "BLANK" not in header and isinstance(header_value(table, "ZBLANK"), int):
        header["BLANK"] = table["ZBLANK"]
    return header


def _as_file(fits, hdu, table):
    """A file with nothing but one HDU."""
    header = hdu.table.tostring().encode("ascii", "replace")
    return fits.PrimaryHDU().header.tostring().encode() + header + table + b"\0" * (-len(table) % _BLOCK)


@dataclass(frozen=True)
class _Scaling:
    """From stored numbers to physical values."""

    dtype: np.dtype
    scale: float
    zero: float
    blank: int | None
    unsigned: bool

    @classmethod
    def of(cls, hdu):
        scale, zero = (cls._number(hdu.header, key, default) for key, default in (("BSCALE", 1.0), ("BZERO", 0.0)))
        whole = hdu.bitpix > 0
        blank = header_value(hdu.header, "BLANK") if whole else None
        wide = hdu.bitpix in (32, 64, -64)
        unsigned = hdu.bitpix in (16, 32, 64) and scale == 1 and zero == 2.0 ** (hdu.bitpix - 1)
        return cls(
            np.dtype(np.float64 if wide else np.float32),
            scale,
            zero,
            blank if isinstance(blank, int) and not isinstance(blank, bool) else None,
            unsigned,
        )

    @staticmethod
    def _number(header, key, default):
        value = header_value(header, key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{key}={value!r} is no number")
        return float(value)

    def apply(self, raw, out):
        """Fill ``out``. Arithmetic is in float64, so that float32 results are rounded once."""
        if self.unsigned:
            # Half the range was taken off: flip the highest bit, since float64 would round 64-bit integers first.
            native = raw.astype(raw.dtype.newbyteorder("="))
            unsigned = native.view(f"u{native.dtype.itemsize}")
            out[...] = unsigned ^ unsigned.dtype.type(2 ** (8 * unsigned.dtype.itemsize - 1))
        elif self.scale == 1 and self.zero == 0:
            out[...] = raw
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                out[...] = raw.astype(np.float64) * self.scale + self.zero
