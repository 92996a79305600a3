"""Boxes cut from a big field, around its sources and where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from astrogan.exceptions import InputError
from astrogan.train.sources.base import Sample, Source
from astrogan.train.sources.fits import positive_or_none, read_any_unit

__all__ = ["Field"]

# The noise map is smooth: it is kept at one pixel in this many along each axis.
_COARSE = 16
_SMOOTHING = 1.5
_TRIES = 20


class Field(Source):
    """Boxes of one field, in one band or several on one grid.

    The field is divided into cells, and no box reaches beyond its own: boxes may overlap inside a cell, and all boxes
    of a cell have one name, so that a split by name never puts a pixel on both sides.

    Parameters
    ----------
    paths : path, sequence or dict
        A FITS file, or several with a band each; a dict names them.
    box : int, optional
        Edge of the boxes, in pixels.
    region : sequence of int, optional
        (x0, x1, y0, y1) in pixels, the upper ends exclusive: the part of the field that is read. Default: all of it.
    bands : {'each', 'all'}, optional
        Each band as a sample of its own, or all as the bands of one.
    name : str, optional
        Name of the field, which the names of its cells begin with. Default: that of the folder the files lie in.
    threshold : float, optional
        Sources stand so many sigma above the sky in the smoothed sum of the bands.
    min_area : int, optional
        Fewest connected pixels of a source.
    blank : float, optional
        Boxes without a source (or with as few as can be found), per box with one.
    cell : int, optional
        Smallest edge of a cell. Default: twice ``box``.
    avoid : sequence of sequences of int, optional
        Rectangles (x0, x1, y0, y1) in pixels of the file that no box may touch.
    max_invalid : float, optional
        Boxes of which more than this fraction is masked, in any band, are left out.
    psf_fwhm : float, sequence of float or 'stars', optional
        Native FWHM in pixels: of all bands, of each, or measured on the stars of each.
    pixel_scale : float, optional
        Arcsec, where the files do not say.
    unit : str, optional
        Unit of the flux, where the files do not say.
    seed : int, optional
        Of the boxes' places.
    origin, licence : str, optional
        For the model card.

    Raises
    ------
    ImageReadError
        If a file is missing or cannot be read.
    InputError
        If bands are not on one grid, no box remains, or an argument cannot be used.
    PSFError
        If ``psf_fwhm`` is ``'stars'`` and a band has too few.
    """

    def __init__(
        self,
        paths,
        box=128,
        region=None,
        *,
        bands="each",
        name=None,
        threshold=4.0,
        min_area=8,
        blank=0.15,
        cell=None,
        avoid=(),
        max_invalid=0.02,
        psf_fwhm=None,
        pixel_scale=None,
        unit=None,
        seed=0,
        origin=None,
        licence=None,
    ):
        if isinstance(box, bool) or not isinstance(box, int) or box < 8:
            raise InputError(f"box={box!r} must be an integer of at least 8, in pixels")
        if bands not in ("each", "all"):
            raise InputError(f"bands={bands!r} must be 'each' (one sample a band) or 'all' (one a box)")
        positive_or_none("pixel_scale", pixel_scale)
        files = _named(paths)
        self._box, self._each = box, bands == "each"
        self._name = name or files[0][1].resolve().parent.name
        region = _rectangle("region", region) if region is not None else None
        self._offset = (0, 0) if region is None else (region[0], region[2])
        prepared = _read(files, region, unit)
        observation = prepared.observation
        self._names = tuple(n or band for (n, _), band in zip(files, observation.bands, strict=False))
        if len(self._names) < len(observation.bands):  # one file with several bands
            self._names = observation.bands
        self.bands = ("any",) if self._each else self._names
        self._data = observation.data * np.float32(prepared.scale)
        self._pixel_scale = observation.pixel_scale or pixel_scale
        self._unit = str(prepared.unit) or None
        self._about = {"origin": origin or self._name, "licence": licence}

        valid = observation.valid
        total, self._noise, self._fwhm = self._surveyed(valid, _widths(psf_fwhm, len(self._data)))
        cells = _Cells(self._data.shape[1:], box, 2 * box if cell is None else cell)
        barred = _barred(valid, [_rectangle("avoid", each) for each in avoid], self._offset)
        segments = _segments(total, threshold, min_area)
        self._corners, self._cells = _boxes(segments, barred, cells, box, blank, max_invalid, seed)
        if not len(self._corners):
            raise InputError(
                f"no box of {box} pixels remains in a field of {self._data.shape[1:]}; lower box or threshold"
            )

    def _surveyed(self, valid, widths):
        """Smoothed sum of the bands in units of their noise, coarse noise maps, and the FWHM of each band."""
        from scipy.ndimage import gaussian_filter

        from astrogan.image.psf import estimate_psf
        from astrogan.image.uncertainty import background_rms

        total, noise = np.zeros(self._data.shape[1:], np.float32), []
        for band, (plane, good) in enumerate(zip(self._data, valid, strict=True)):
            sky, rms = background_rms(plane, good)
            total += (plane - sky) / rms
            noise.append(rms[::_COARSE, ::_COARSE])
            if widths[band] == "stars":
                widths[band] = float(estimate_psf(plane, valid=good, variance=rms**2).fwhm[0])
        return gaussian_filter(total, _SMOOTHING), np.stack(noise).astype(np.float32), widths

    def __len__(self):
        return len(self._corners) * (len(self._data) if self._each else 1)

    def name(self, i):
        """Name of the cell that the box lies in."""
        y, x = self._cells[self._where(i)[0]]
        return f"{self._name} x{x + self._offset[0]} y{y + self._offset[1]}"

    def load(self, i):
        """Box ``i`` as a `Sample`; its variance is that of the sky around it."""
        number, bands = self._where(i)
        y, x = self._corners[number]
        rows, columns = np.arange(y, y + self._box) // _COARSE, np.arange(x, x + self._box) // _COARSE
        noise = self._noise[bands][:, rows[:, None], columns]
        widths = self._fwhm[bands]
        return Sample(
            data=self._data[bands, y : y + self._box, x : x + self._box].copy(),
            variance=noise**2,
            pixel_scale=self._pixel_scale,
            psf_fwhm=None if None in widths else float(np.mean(widths)),
            unit=self._unit,
        )

    def describe(self):
        """What a model card says of the source; its objects are the cells."""
        objects = len({tuple(cell) for cell in self._cells.tolist()})
        return {"kind": "field", **self._about, "images": len(self), "objects": objects, "bands": list(self._names)}

    def _where(self, i):
        i = self._checked(i)
        if not self._each:
            return i, slice(None)
        number, band = divmod(i, len(self._data))
        return number, slice(band, band + 1)


class _Cells:
    """A grid of cells that cover the field, each at least ``smallest`` pixels wide where the field is."""

    def __init__(self, shape, box, smallest):
        if isinstance(smallest, bool) or not isinstance(smallest, int) or smallest < box:
            raise InputError(f"cell={smallest!r} must be an integer of at least box={box}")
        if min(shape) < box:
            raise InputError(f"box={box} is larger than the field, {shape[0]} x {shape[1]} pixels; lower it")
        self.edges = [np.linspace(0, n, max(1, n // smallest) + 1).astype(int) for n in shape]

    def around(self, point):
        """Lower and upper corner (y, x) of the cell that holds a point."""
        ends = []
        for edges, p in zip(self.edges, point, strict=True):
            k = int(np.clip(np.searchsorted(edges, p, side="right") - 1, 0, len(edges) - 2))
            ends.append((edges[k], edges[k + 1]))
        return tuple(low for low, _ in ends), tuple(high for _, high in ends)


def _named(paths):
    """(name or `None`, path) of each band."""
    if isinstance(paths, Mapping):
        return [(str(name), Path(path).expanduser()) for name, path in paths.items()] or _no_paths(paths)
    if isinstance(paths, list | tuple):
        return [(None, Path(path).expanduser()) for path in paths] or _no_paths(paths)
    return [(None, Path(paths).expanduser())]


def _no_paths(paths):
    raise InputError(f"paths={paths!r} is empty; give at least one file")


def _rectangle(name, value):
    good = isinstance(value, list | tuple) and len(value) == 4 and all(isinstance(n, int) and n >= 0 for n in value)
    if not good or value[0] >= value[1] or value[2] >= value[3]:
        raise InputError(f"{name}={value!r} must be (x0, x1, y0, y1) in pixels with x0 < x1 and y0 < y1")
    return tuple(value)


def _read(files, region, unit):
    from astrogan.image.prepare import prepare

    section = None if region is None else (slice(region[2], region[3]), slice(region[0], region[1]))
    images = [read_any_unit(path, unit, section=section) for _, path in files]
    if len(images) == 1:
        return prepare(images[0])
    return prepare(dict(zip([name or str(k) for k, (name, _) in enumerate(files)], images, strict=True)))


def _widths(psf_fwhm, count):
    """For each band a FWHM in pixels, ``"stars"``, or `None`."""
    widths = list(psf_fwhm) if isinstance(psf_fwhm, list | tuple) else [psf_fwhm] * count
    if len(widths) != count:
        raise InputError(f"psf_fwhm={psf_fwhm!r} holds {len(widths)} numbers; the field has {count} bands")
    for width in widths:
        if isinstance(width, str) and width != "stars":
            raise InputError(f"psf_fwhm={width!r} must be a number of pixels, one a band, or 'stars'")
        if width != "stars":
            positive_or_none("psf_fwhm", width)
    return widths


def _barred(valid, avoid, offset):
    """(y, x) fraction of bands that are masked; 2 where no box may lie."""
    barred = 1 - valid.mean(axis=0, dtype=np.float32)
    for x0, x1, y0, y1 in avoid:
        x0, x1, y0, y1 = (max(n - o, 0) for n, o in zip((x0, x1, y0, y1), np.repeat(offset, 2), strict=True))
        barred[y0:y1, x0:x1] = np.inf
    return barred


def _segments(total, threshold, min_area):
    """(y, x) labels of the connected pixels that stand out."""
    from photutils.segmentation import detect_sources

    from astrogan.image._quiet import quiet
    from astrogan.image.uncertainty import background_rms

    level, noise = background_rms(total)
    with quiet():  # it warns where it finds none
        found = detect_sources((total - level) / noise, threshold, min_area)
    return np.zeros(total.shape, np.int32) if found is None else np.asarray(found.data, np.int32)


def _boxes(segments, barred, cells, box, blank, max_invalid, seed):
    """Corners (y, x) of the boxes and of their cells, each (n, 2)."""
    rng = np.random.default_rng(seed)
    allowed = _Sums(barred)
    corners, owners = [], []

    def add(corner, owner):
        if allowed.over(corner, box) <= max_invalid * box**2:
            corners.append(corner)
            owners.append(owner)

    for centre in _centres(segments):
        jitter = rng.integers(-(box // 4), box // 4 + 1, 2)
        add(*_placed(np.add(centre, jitter) - box // 2, cells.around(centre), box))
    crowd = _Sums(segments > 0)
    for _ in range(round(blank * len(corners)) if corners else round(100 * blank)):
        points = rng.uniform(0, 1, (_TRIES, 2)) * segments.shape
        tried = [_placed((point - box // 2).astype(int), cells.around(point), box) for point in points]
        add(*min(tried, key=lambda pair: crowd.over(pair[0], box)))
    return np.array(corners, int).reshape(-1, 2), np.array(owners, int).reshape(-1, 2)


def _centres(segments):
    """(y, x) of the middle of each source's extent."""
    from scipy.ndimage import find_objects

    return [[(s.start + s.stop) // 2 for s in found] for found in find_objects(segments) if found]


def _placed(corner, cell, box):
    """The corner moved so that the box lies within the cell, and the cell's own corner."""
    low, high = cell
    return tuple(int(np.clip(c, a, b - box)) for c, a, b in zip(corner, low, high, strict=True)), low


class _Sums:
    """Sums of an image over boxes."""

    def __init__(self, image):
        finite = np.where(np.isfinite(image), image, 1e9)  # a single one of them is more than any box may have
        self._sums = np.pad(finite.cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))

    def over(self, corner, box):
        (y, x), s = corner, self._sums
        return s[y + box, x + box] - s[y, x + box] - s[y + box, x] + s[y, x]
