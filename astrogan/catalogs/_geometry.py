"""Where a stamp lies: in its image, with its context, and in what the operator makes of that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Cut", "Window", "any_valid", "as_parts", "first_part", "like_parts", "padded"]


@dataclass(frozen=True)
class Window:
    """A stamp and its context in an image.

    Attributes
    ----------
    place : tuple of float
        (x, y) in the image.
    stamp : tuple of slice
        (y, x) in the image; may reach beyond it.
    full : tuple of slice
        With the context; may reach beyond it.
    read : tuple of slice
        The part of ``full`` in the image.
    """

    place: tuple[float, float]
    stamp: tuple[slice, slice]
    full: tuple[slice, slice]
    read: tuple[slice, slice]

    @classmethod
    def around(cls, x, y, size, shape, margin, align):
        """The stamp whose centre is nearest to a place: as `~astropy.nddata.Cutout2D` has it."""
        stamp, full, read = [], [], []
        for centre, n, length in zip((y, x), size, shape, strict=True):
            first = math.ceil(min(max(centre, -1e9), 1e9) - n / 2)
            low, high = first - margin, first + n + margin
            low, high = low - low % align, high + -high % align
            stamp.append(slice(first, first + n))
            full.append(slice(low, high))
            read.append(slice(min(max(low, 0), length), max(min(high, length), 0)))
        return cls((x, y), tuple(stamp), tuple(full), tuple(read))

    @classmethod
    def whole(cls, shape):
        """The whole image."""
        everything = tuple(slice(0, n) for n in shape)
        return cls(((shape[1] - 1) / 2, (shape[0] - 1) / 2), everything, everything, everything)

    @property
    def centre(self):
        """(x, y) of the stamp's middle in the image."""
        rows, columns = self.stamp
        return (columns.start + columns.stop - 1) / 2, (rows.start + rows.stop - 1) / 2

    @property
    def inside(self):
        """The part of the stamp in the image, in pixels of what is read."""
        return tuple(
            slice(max(s.start, r.start) - r.start, max(min(s.stop, r.stop), r.start) - r.start)
            for s, r in zip(self.stamp, self.read, strict=True)
        )

    @property
    def is_outside(self):
        """Whether no pixel of the stamp lies in the image."""
        return any(part.stop <= part.start for part in (*self.read, *self.inside))

    @property
    def is_partly_outside(self):
        """Whether some do not."""
        return any(i.stop - i.start < s.stop - s.start for i, s in zip(self.inside, self.stamp, strict=True))

    def record(self):
        """What the table says of it."""
        rows, columns = self.stamp
        return {"x": self.place[0], "y": self.place[1], "x0": columns.start, "y0": rows.start}

    def cut_of(self, image, result, same_grid):
        """Where the stamp lies in a result."""
        if same_grid:
            inside = self.inside
            offset = tuple(r.start + i.start - s.start for r, i, s in zip(self.read, inside, self.stamp, strict=True))
            first = tuple(i.start - o for i, o in zip(inside, offset, strict=True))
            return Cut(inside, tuple(s.stop - s.start for s in self.stamp), offset, first, (1.0, 1.0))
        before, after = np.shape(first_part(image).data)[-2:], np.shape(first_part(result).data)[-2:]
        parts, first, scales = [], [], []
        for full, stamp, n, m in zip(self.full, self.stamp, before, after, strict=True):
            scale = m / n
            low = round((stamp.start - full.start) * scale)
            size = max(1, round((stamp.stop - stamp.start) * scale))
            low = max(0, min(low, m - size))
            parts.append(slice(low, low + size))
            first.append(low)
            scales.append(scale)
        return Cut(tuple(parts), tuple(p.stop - p.start for p in parts), (0, 0), tuple(first), tuple(scales))


@dataclass(frozen=True)
class Cut:
    """Where a stamp lies in a result, and where that part lies in the stamp.

    Attributes
    ----------
    inside : tuple of slice
        In the result.
    shape : tuple of int
        Of the stamp.
    offset : tuple of int
        Of the part in the stamp.
    first : tuple of int
        (y, x) of the stamp's first pixel in the result; may be negative.
    scale : tuple of float
        Pixels of the result to one of the image, (y, x).
    """

    inside: tuple
    shape: tuple
    offset: tuple
    first: tuple
    scale: tuple


def first_part(image):
    """The image, or its first band."""
    if isinstance(image, dict):
        return next(iter(image.values()))
    return image[0] if isinstance(image, list | tuple) else image


def as_parts(image):
    """The image, or its bands, in a list."""
    if isinstance(image, dict):
        return list(image.values())
    return list(image) if isinstance(image, list | tuple) else [image]


def like_parts(image, parts):
    """A list of parts in the form that an image has."""
    if isinstance(image, dict):
        return dict(zip(image, parts, strict=True))
    return parts if isinstance(image, list) else parts[0]


def padded(image, window):
    """The window with masked pixels where the image ends, so that all results have one grid."""
    if window.full == window.read:
        return image
    pads = tuple((r.start - f.start, f.stop - r.stop) for f, r in zip(window.full, window.read, strict=True))
    parts = [_padded_one(item, pads) for item in as_parts(image)]
    return like_parts(image, parts)


def _padded_one(image, pads):
    from astropy.nddata import CCDData

    from astrogan.image.wcs import crop_wcs

    shape = image.data.shape
    pads_all = ((0, 0),) * (len(shape) - 2) + pads
    mask = np.zeros(shape, bool) if image.mask is None else np.broadcast_to(image.mask, shape)
    uncertainty = image.uncertainty
    if uncertainty is not None:
        uncertainty = type(uncertainty)(np.pad(uncertainty.array, pads_all, mode="edge"), unit=uncertainty.unit)
    data = np.pad(np.asarray(image.data), pads_all)
    wcs = None if image.wcs is None else crop_wcs(image.wcs, -pads[1][0], -pads[0][0], data.shape[-2:])
    mask = np.pad(mask, pads_all, constant_values=True)
    return CCDData(data, unit=image.unit, mask=mask, uncertainty=uncertainty, wcs=wcs, meta=image.meta)


def any_valid(image, window):
    """Whether every band has a pixel in the stamp that can be used."""
    inside = window.inside
    for item in as_parts(image):
        full = np.shape(item.data)[-2:] == tuple(f.stop - f.start for f in window.full)
        shift = tuple(r.start - f.start if full else 0 for r, f in zip(window.read, window.full, strict=True))
        pick = (..., *(slice(i.start + s, i.stop + s) for i, s in zip(inside, shift, strict=True)))
        good = np.isfinite(np.asarray(item.data)[pick])
        if item.mask is not None:
            good = good & ~np.broadcast_to(item.mask, np.shape(item.data))[pick]
        if not good.reshape(-1, *good.shape[-2:]).any(axis=(1, 2)).all():
            return False
    return True
