"""Stamps that exist as JPEG or PNG only, in a tar archive or a folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np

from astrogan.exceptions import ImageReadError, InputError, MissingDependencyError
from astrogan.image.stretch import GalaxyGAN2017Stretch
from astrogan.train.sources.base import Sample, Source
from astrogan.train.split import object_name

__all__ = ["StampTar"]

_SUFFIXES = (".jpg", ".jpeg", ".png")

# More are no stamp, but a file that says more than it holds: a few kilobytes of PNG unpack to gigabytes.
_MOST_PIXELS = 2**24


class StampTar(Source):
    """Colour stamps, made linear by undoing the stretch that they were drawn with.

    A value v of 0 to 255 is taken for y = v / 255 of `~astrogan.image.stretch.GalaxyGAN2017Stretch`. The result is
    linear only as far as that holds, and 8 bits deep: good for learning shapes, not for photometry; unit and pixel
    scale are not given for that reason.

    Parameters
    ----------
    path : path
        A tar archive (not compressed) or a folder; its ``.jpg``, ``.jpeg`` and ``.png`` are taken, by name.
    size : int or None, optional
        Stamps are resampled to ``size`` x ``size`` pixels (bilinear, with as wide a kernel as shrinking needs), before
        they are made linear; `None` leaves them as they are. Pictures of more than 4096 x 4096 pixels are not unpacked,
        and count as damaged.
    bands : {'all', 'each'}, optional
        All colours as the bands of one sample, or each as a sample of its own.
    band_names : sequence of str, optional
        Of red, green and blue.
    origin, licence : str, optional
        For the model card.

    Raises
    ------
    ImageReadError
        If there is no such archive or folder, or it cannot be read.
    InputError
        If it holds no stamp or an argument cannot be used.
    MissingDependencyError
        If Pillow is not installed.
    """

    def __init__(self, path, size=256, *, bands="all", band_names=("i", "r", "g"), origin=None, licence=None):
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 8):
            raise InputError(f"size={size!r} must be an integer of at least 8, or None for the stamps' own")
        if bands not in ("all", "each"):
            raise InputError(f"bands={bands!r} must be 'all' (one sample a stamp) or 'each' (one a colour)")
        if len(band_names) != 3:
            raise InputError(f"band_names={band_names!r} must name red, green and blue")
        self._path = Path(path).expanduser()
        self._size = size
        self._each = bands == "each"
        self.bands = ("any",) if self._each else tuple(map(str, band_names))
        self._about = {"origin": origin or self._path.name, "licence": licence}
        self._entries = _in_folder(self._path) if self._path.is_dir() else _in_tar(self._path)
        if not self._entries:
            raise InputError(f"path={str(path)!r} holds no {', '.join(_SUFFIXES)}; name an archive or folder that does")
        _pillow()
        self._stretch = GalaxyGAN2017Stretch()

    def __len__(self):
        return len(self._entries) * (3 if self._each else 1)

    def name(self, i):
        """Name of the object: the file's up to the first dot that a letter follows."""
        return self._entry(i)[0][0]

    def load(self, i):
        """Image ``i`` as a `Sample`; it is decoded anew each time, which takes some milliseconds."""
        (name, file, start, length), colour = self._entry(i)
        with open(file, "rb") as stream:
            stream.seek(start)
            content = stream.read(length)
        try:
            values = self._decoded(content)
        except MemoryError:  # says nothing of the file
            raise
        except Exception as error:  # what Pillow raises for damaged pictures, and for huge ones, has no common base
            raise ImageReadError(f"stamp {name!r} in {str(self._path)!r} cannot be read: {error}") from error
        values = values if colour is None else values[colour : colour + 1]
        return Sample(self._stretch.inverse(values / np.float32(255)))

    def describe(self):
        """What a model card says of the source."""
        return {"kind": "stamps", **self._about, "images": len(self), "objects": len({e[0] for e in self._entries})}

    def _entry(self, i):
        i = self._checked(i)
        return (self._entries[i // 3], i % 3) if self._each else (self._entries[i], None)

    def _decoded(self, content):
        """(3, y, x) float32, 0 to 255. Colours are resampled as floats, so that no second rounding comes in."""
        pillow = _pillow()
        with pillow.open(io.BytesIO(content), formats=("JPEG", "PNG")) as picture:
            check_pixels(picture)
            colours = picture.convert("RGB").split()
        if self._size is not None and colours[0].size != (self._size, self._size):
            shape, bilinear = (self._size, self._size), pillow.Resampling.BILINEAR
            colours = [colour.convert("F").resize(shape, bilinear) for colour in colours]
        return np.stack([np.asarray(colour, np.float32) for colour in colours])


def check_pixels(picture):
    """Refuse a picture that would unpack to more than a stamp can be."""
    if picture.width * picture.height > _MOST_PIXELS:
        raise ImageReadError(f"it has {picture.width} x {picture.height} pixels, {_MOST_PIXELS} at most are read")


def _pillow():
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(
            "stamps in JPEG or PNG need Pillow: run `pip install 'astrogan[plot]'` (or `pip install pillow`)"
        ) from error
    return Image


def _in_folder(folder):
    """(name, file, start, length) of each stamp."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
    return [(object_name(path.name), path, 0, -1) for path in files]


def _in_tar(path):
    """The same, from an archive that is only looked through: files are read where they lie in it."""
    if not path.is_file():
        raise ImageReadError(f"path={str(path)!r}: there is no such archive or folder; name one, or get the data first")
    try:
        with tarfile.open(path, "r:") as archive:
            members = [m for m in archive if m.isfile() and m.name.lower().endswith(_SUFFIXES)]
    except tarfile.TarError as error:
        raise ImageReadError(
            f"path={str(path)!r} is no plain tar archive ({error}); unpack a compressed one, or name a folder"
        ) from error
    members.sort(key=lambda member: member.name)
    return [(object_name(PurePosixPath(m.name).name), path, m.offset_data, m.size) for m in members]
