"""A FITS file in the making: its size is set at once, windows are written in, and it is renamed at last."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astrogan.exceptions import ImageWriteError, InputError
from astrogan.image._lock import LOCK_NAME, FolderLock
from astrogan.image.finish import in_unit_of_image
from astrogan.image.write import _big_endian as big_endian
from astrogan.image.write import _hdus as image_hdus
from astrogan.image.write import _publish as publish
from astrogan.image.write import _target as target_of
from astrogan.image.write import check_fits_name

__all__ = ["MosaicFile", "layer_windows"]

_BLOCK = 2880
_BINARY = getattr(os, "O_BINARY", 0)  # of Windows
_SPARE_CARDS = 72  # room for what is known only when the last window is done
_LAYERS = {"MASK": "mask", "UNCERT": "uncertainty", "FLAGS": "flags"}


@dataclass(frozen=True)
class _Plane:
    """Where one layer of one image lies in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype


class MosaicFile:
    """The output of a mosaic, and the journal of what is done of it.

    ``OUT.partial`` is a folder beside the output with the image so far, a journal and a lock. When all is written the
    image takes the output's name, and the folder goes. After a kill the same call goes on from there.

    Parameters
    ----------
    path : path
        The output, a FITS file.
    template : `~astropy.nddata.NDData`, list or dict
        A small image of the form of the result: its headers and layers (mask, uncertainty, flags) are the output's.
    shape_yx : tuple of int
        Of the output.
    description : dict
        What makes the result: texts and numbers. A partial output is taken up only if all of it is the same.
    overwrite : bool
        Whether an existing output is replaced, at the end.
    resume : bool
        Whether a partial output is taken up; else it is thrown away.

    Raises
    ------
    ImageWriteError
        If the output exists and is not to be replaced, its folder is missing, the disk is too small, or the system
        refuses to write.
    InputError
        If another process writes the same output, or a partial output is of something else.
    """

    def __init__(self, path, template, shape_yx, description, *, overwrite=False, resume=True):
        check_fits_name(path)
        if Path(path).name.lower().endswith(".gz"):
            raise ImageWriteError(f"output={str(path)!r}: a packed file cannot be written by windows; leave .gz out")
        self.path, self._overwrite, self._shape = target_of(path, overwrite), overwrite, tuple(shape_yx)
        self.folder = self.path.with_name(self.path.name + ".partial")
        self._image, self._journal_path = self.folder / "image.fits", self.folder / "journal.jsonl"
        self._template = template
        self._descriptor = self._journal = None
        with _writing(path):
            self.folder.mkdir(exist_ok=True)
        self._lock = FolderLock(self.folder, what="the output")
        try:
            with _writing(path):
                self._open(description, resume)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- what is done ------------------------------------------------------------------------------------------------

    def put(self, index, windows, record) -> None:
        """Write the windows of one piece of work, and then note that it is done.

        Parameters
        ----------
        index : int
            The piece's number.
        windows : list of tuple
            (layer, y, x, array): "data", "uncertainty", "mask" or "flags", two slices, and (band, y, x).
        record : dict
            What the journal keeps of it, in JSON's types.
        """
        with _writing(self.path):
            for layer, y, x, array in windows:
                self._write_window(layer, y, x, array)
            os.fsync(self._descriptor)
            self._note({"done": index, **record})
        self.done[index] = record

    def read(self, layer, y, x) -> np.ndarray:
        """A window as it was written.

        Parameters
        ----------
        layer : str
        y, x : slice

        Returns
        -------
        `numpy.ndarray`
            (band, y, x), in native byte order.
        """
        planes = [place for (name, _), place in sorted(self._planes.items()) if name == layer]
        return np.stack([self._read_plane(place, y, x) for place in planes])

    def finish(self, template) -> Path:
        """Give the output its name.

        Parameters
        ----------
        template : `~astropy.nddata.NDData`, list or dict
            As when the file was made, with what is known now in its headers.

        Returns
        -------
        `pathlib.Path`
        """
        with _writing(self.path):
            headers = _sized_headers(template, self._shape)
            for (offset, length, _, _), header in zip(self._places, headers, strict=True):
                _write_all(self._descriptor, _padded(header, length), offset)
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
            publish(self._image, self.path, self._overwrite)
            self._remove()
        return self.path

    def close(self):
        """Let go of the output. A partial one stays if anything of it is done."""
        for name in ("_descriptor", "_journal"):
            descriptor = getattr(self, name)
            if descriptor is not None:
                setattr(self, name, None)
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        if self.folder.is_dir() and not getattr(self, "done", None) and getattr(self, "_own", False):
            self._remove()
        self._lock.release()

    # ---- the files ---------------------------------------------------------------------------------------------------

    def _open(self, description, resume):
        known = self._read_journal()
        self._own = not known
        if known and resume:
            self._check_same(known[0], description)
        self.done = {line.pop("done"): line for line in known[1:] if "done" in line} if resume else {}
        self._own = True
        headers = _sized_headers(self._template, self._shape)
        self._places, size = _layout(headers)
        self._planes = self._find_planes()
        if not (known and resume):
            self._start(headers, size, description)
        else:
            self._descriptor = os.open(self._image, os.O_RDWR | _BINARY)
            if os.fstat(self._descriptor).st_size != size:
                raise InputError(
                    f"{str(self._image)!r} has another size than it was given; resume=False (--restart) begins again"
                )
            self._journal = os.open(self._journal_path, os.O_WRONLY | os.O_APPEND)

    def _start(self, headers, size, description):
        for stale in (self._journal_path, self._image):
            stale.unlink(missing_ok=True)
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise ImageWriteError(
                f"output={str(self.path)!r} takes {size} bytes; {free} are free on that disk: free some, or name a "
                "file on another"
            )
        self._descriptor = os.open(self._image, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
        os.ftruncate(self._descriptor, size)
        for (offset, length, _, _), header in zip(self._places, headers, strict=True):
            _write_all(self._descriptor, _padded(header, length), offset)
        os.fsync(self._descriptor)
        self._journal = os.open(self._journal_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        self._note(description)

    def _note(self, line):
        os.write(self._journal, json.dumps(line).encode() + b"\n")
        os.fsync(self._journal)

    def _read_journal(self):
        """The lines written so far; a last one that a kill cut off is dropped, and from the file too."""
        if not self._journal_path.exists() or not self._image.exists():
            return []
        raw = self._journal_path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise InputError(
                f"{str(self._journal_path)!r} is damaged; give resume=False (--restart) to begin again"
            ) from error
        if len(whole) < len(raw):
            os.truncate(self._journal_path, len(whole))
        return lines

    def _check_same(self, before, now):
        now = json.loads(json.dumps(now))
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if changed:
            key = changed[0]
            raise InputError(
                f"{str(self.folder)!r} holds a part of another result: {key} was {_short(before.get(key))} and is now "
                f"{_short(now.get(key))}; give resume=False (--restart) to begin again, or name another output"
            )

    def _remove(self):
        for path in (self._image, self._journal_path, self.folder / LOCK_NAME):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    # ---- windows -----------------------------------------------------------------------------------------------------

    def _find_planes(self):
        """(layer, band) -> where it lies. Images of several bands are cubes, or an HDU for each band."""
        planes = {}
        band = -1
        for _, _, offset, header in self._places:
            if header.get("NAXIS", 0) < 2:
                continue
            name = str(header.get("EXTNAME", "")).upper()
            layer = next((_LAYERS[key] for key in _LAYERS if name == key or name.endswith(f"_{key}")), None)
            if layer is None and (name == "PSFIMAGE" or name.endswith("_PSFIMAGE")):
                continue
            band += layer is None
            layer = layer or "data"
            shape = tuple(header[f"NAXIS{n}"] for n in range(header["NAXIS"], 0, -1))
            dtype = np.dtype({8: "u1", 32: ">i4", -32: ">f4", -64: ">f8"}[header["BITPIX"]])
            each = math.prod(shape[-2:]) * dtype.itemsize
            for plane in range(shape[0] if len(shape) == 3 else 1):
                planes[layer, band + plane] = _Plane(offset + plane * each, shape[-2:], dtype)
        return planes

    def _write_window(self, layer, y, x, array):
        for band, plane in enumerate(array):
            place = self._planes[layer, band]
            if place.dtype.itemsize == 1 and not plane.any():
                continue  # the file is empty there, and stays so
            rows = np.frombuffer(big_endian(np.asarray(plane, place.dtype.newbyteorder("="))), np.uint8)
            rows = rows.reshape(len(plane), -1)
            for number, row in enumerate(rows):
                start = place.offset + ((y.start + number) * place.shape[1] + x.start) * place.dtype.itemsize
                _write_all(self._descriptor, row, start)

    def _read_plane(self, place, y, x):
        size = place.dtype.itemsize
        starts = (place.offset + (row * place.shape[1] + x.start) * size for row in range(y.start, y.stop))
        with _writing(self.path):
            rows = [_read_all(self._descriptor, (x.stop - x.start) * size, start) for start in starts]
        return np.stack([np.frombuffer(row, place.dtype) for row in rows]).astype(place.dtype.newbyteorder("="))


def layer_windows(y, x, scale, kind, data, variance, mask):
    """What `~astrogan.mosaic.MosaicFile.put` takes of a cell.

    Parameters
    ----------
    y, x : slice
        Of the output.
    scale : float
        Of the observation's flux, in the image's unit.
    kind : `~astropy.nddata.NDUncertainty` or None
        The image's, or an empty one of its class.
    data, variance, mask : `numpy.ndarray`
        (band, y, x), in the observation's flux; ``variance`` may be None.

    Yields
    ------
    tuple
        (layer, y, x, array).
    """
    yield "data", y, x, in_unit_of_image(data, scale)
    yield "mask", y, x, mask
    if variance is not None:
        from astrogan.image.uncertainty import to_uncertainty

        yield "uncertainty", y, x, np.asarray(to_uncertainty(in_unit_of_image(variance, scale**2), kind).array)


def _write_all(descriptor, content, start):
    """Write all bytes at a place. One thread has the file, so that seeking will do, which every system knows."""
    os.lseek(descriptor, start, os.SEEK_SET)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_all(descriptor, size, start):
    os.lseek(descriptor, start, os.SEEK_SET)
    parts = []
    while size and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


@contextlib.contextmanager
def _writing(path):
    """What the system refuses becomes an error that says what is kept."""
    try:
        yield
    except OSError as error:
        raise ImageWriteError(
            f"output={str(path)!r} could not be written: {error.strerror or error}; what was there before is "
            "untouched. Free space, or name a file in a folder that you may write to; what is done is kept, and the "
            "same call goes on from there"
        ) from error


def _sized_headers(template, shape_yx):
    """(header, is an image of the mosaic's size) of each HDU that the template would be written as."""
    small = _yx_of(template)
    headers = []
    for header, array in image_hdus(template):
        if array is not None and array.shape[-2:] == small:
            header["NAXIS1"], header["NAXIS2"] = shape_yx[1], shape_yx[0]
            array = None
        headers.append((header, array))
    return headers


def _yx_of(template):
    first = next(iter(template.values())) if isinstance(template, dict) else template
    first = first[0] if isinstance(first, list) else first
    return tuple(first.data.shape[-2:])


def _layout(headers):
    """(offset and length of the header, offset of the data, header) of each HDU, and the size of the file."""
    places, position = [], 0
    for header, _ in headers:
        cards = len(header.cards) + _SPARE_CARDS + 1
        length = -(-cards * 80 // _BLOCK) * _BLOCK
        naxis = header.get("NAXIS", 0)
        size = abs(header["BITPIX"]) // 8 * math.prod(header[f"NAXIS{n + 1}"] for n in range(naxis)) if naxis else 0
        places.append((position, length, position + length, header))
        position += length + -(-size // _BLOCK) * _BLOCK
    return places, position


def _padded(entry, length):
    """A header as bytes of that length: blank cards stand before END. Small arrays come with it."""
    header, array = entry
    text = header.tostring(padding=False, endcard=False)
    if len(text) + 80 > length:
        # Only what was learnt on the way can be too long.
        header = header.copy()
        header.remove("AGINFO", ignore_missing=True, remove_all=True)
        text = header.tostring(padding=False, endcard=False)
    text = text.ljust(length - 80) + "END".ljust(80)
    return text.encode("ascii") + (b"" if array is None else bytes(big_endian(array.reshape(-1, array.shape[-1]))))


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
