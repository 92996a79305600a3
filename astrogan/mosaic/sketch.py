"""A small image that stands for a mosaic where something has to be measured on all of it: sky, noise, PSF, balance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import InputError
from astrogan.image.prepare import Prepared, prepare
from astrogan.mosaic.source import MosaicSource

__all__ = ["NoiseMap", "Sketch"]

LARGEST = 2048
"""Edge, in pixels, of the largest image that is its own sketch."""

_PATCH = 512
_CANDIDATES = 8  # places along an axis at which patches are looked at
_SPACING, _BOX, _MOST_BOXES = 1024, 192, 32  # of the noise map


@dataclass(frozen=True)
class NoiseMap:
    """Variance over a mosaic: numbers on a coarse mesh, with straight lines between them.

    Attributes
    ----------
    values : `numpy.ndarray`
        (band, ny, nx), in the square of the image's unit.
    y, x : `numpy.ndarray`
        Rows and columns of the mesh points.
    """

    values: np.ndarray
    y: np.ndarray
    x: np.ndarray

    def window(self, y: slice, x: slice) -> np.ndarray:
        """The variance inside two slices, (band, y, x)."""
        rows = _weights(np.arange(y.start, y.stop), self.y)
        columns = _weights(np.arange(x.start, x.stop), self.x)
        return rows @ self.values @ columns.T


@dataclass(frozen=True)
class _WholeMap:
    """The like, where the whole map is at hand."""

    values: np.ndarray

    def window(self, y, x):
        return self.values[:, y, x]


@dataclass(frozen=True)
class Sketch:
    """What is measured once for a whole mosaic.

    An image of up to 2048 x 2048 pixels is its own sketch. Of a larger one 16 patches of 512 x 512 pixels, spread over
    where it has data, are put together; where the noise has to be measured it is measured on a mesh of its own, every
    1024 pixels (or more, with at most 32 points along an axis).

    Attributes
    ----------
    prepared : `~astrogan.image.prepare.Prepared`
        Of the patches; WCS and headers are the mosaic's.
    like : `~astrogan.image.prepare.Prepared`
        The part of it that the windows share: scale, PSF, typical variance.
    noise : object or None
        Where the variance is estimated, and not read: ``window(y, x)`` gives that of the sky inside two slices.
    psf : `~astrogan.image.psf.PSFModel` or None
        Over the mosaic.
    whole : bool
        Whether ``prepared`` is the mosaic itself.
    """

    prepared: Prepared
    like: Prepared
    noise: NoiseMap | _WholeMap | None
    psf: object
    whole: bool

    @classmethod
    def of(cls, source: MosaicSource, *, psf=None, needs_psf=False, needs_variance=False, psf_default=None) -> Sketch:
        """Measure on a mosaic what belongs to the whole of it.

        Parameters
        ----------
        source : `MosaicSource`
        psf, needs_psf, needs_variance, psf_default
            As for `~astrogan.image.prepare.prepare`. A PSF that varies is one over the mosaic.

        Returns
        -------
        `Sketch`

        Raises
        ------
        InputError
            If no place of the mosaic that was looked at has valid pixels.
        UnitError, PSFError, ImageReadError
            As `~astrogan.image.prepare.prepare`.
        """
        needs = {"needs_psf": needs_psf, "psf_default": psf_default}
        whole = max(source.shape[1:]) <= LARGEST
        if whole:
            image = source.window(*(slice(0, n) for n in source.shape[1:]))
            prepared = prepare(image, psf=psf, needs_variance=needs_variance, **needs, **source.later)
            model = prepared.psf
        else:
            image, corner = _patchwork(source), source.window(slice(0, 1), slice(0, 1))
            model = _given_psf(psf, corner, source)
            patch_psf = None if model is None else model.kernels
            prepared = prepare(image, psf=patch_psf, needs_variance=needs_variance, **needs, **source.later)
            model = prepared.psf if model is None else model
            prepared = _with_grid_of(prepared, corner, source)
        noise = None
        if prepared.observation.variance is not None and not prepared.had_uncertainty:
            variance = prepared.observation.variance.astype(np.float64) * prepared.scale**2
            noise = _WholeMap(variance) if whole else _measured_noise(source, prepared)
        return cls(prepared, _shared(prepared, model), noise, model, whole)

    def window(self, source: MosaicSource, y: slice, x: slice) -> Prepared:
        """A window of the mosaic as an operator takes it, with nothing decided by the window itself.

        Parameters
        ----------
        source : `~astrogan.mosaic.MosaicSource`
        y, x : slice
            Rows and columns, with start and stop inside the mosaic.

        Returns
        -------
        `~astrogan.image.prepare.Prepared`
        """
        return prepare_window(source, self.like, self.noise, y, x)


def prepare_window(source, like, noise, y, x) -> Prepared:
    """`Sketch.window` from its parts, which are small enough to be sent around."""
    given = {} if noise is None else {"uncertainty": noise.window(y, x), "uncertainty_type": "var"}
    prepared = prepare(source.window(y, x), like=like, **given, **source.later)
    if noise is None:
        return prepared
    return prepared.replace(had_uncertainty=False, observation=prepared.observation.replace(measured_noise=True))


def _shared(prepared, model):
    """What the windows need of the whole, without its arrays."""
    from astrogan.image.psf import PSFModel

    observation, typical = prepared.observation, prepared.typical_variance
    if typical is None and observation.variance is not None:
        typical = np.median(observation.variance, axis=(1, 2))
    level = np.array([np.median(plane[good]) for plane, good in zip(observation.data, observation.valid, strict=True)])
    # One that varies comes with functions, which cannot be sent; the tiles are given theirs.
    constant = None if model is None else PSFModel(model.kernels)
    return Prepared(None, None, psf=constant, scale=prepared.scale, typical_variance=typical, level=level)


# ---- patches -----------------------------------------------------------------------------------------------------


def _patchwork(source):
    """Sixteen patches of the mosaic, side by side, in the form of an image."""
    edges = [min(_PATCH, n) for n in source.shape[1:]]
    starts = [
        np.unique(np.linspace(0, n - edge, min(_CANDIDATES, max(1, n // edge))).round().astype(int))
        for n, edge in zip(source.shape[1:], edges, strict=True)
    ]
    spots = [(int(y), int(x)) for y in starts[0] for x in starts[1]]

    def patch(y, x):
        return source.window(slice(y, y + edges[0]), slice(x, x + edges[1]))

    fractions = [_valid_fraction(patch(*spot)) for spot in spots]
    usable = [spot for spot, fraction in zip(spots, fractions, strict=True) if fraction > 0.5]
    if not usable and max(fractions) > 0:
        usable = [spots[int(np.argmax(fractions))]]
    if not usable:
        raise InputError(
            f"image {source.paths[0]!r} has no valid pixel in any of {len(spots)} windows over the field: all are "
            "masked, not finite or without weight"
        )
    columns = math.isqrt(min(16, len(usable)))
    picked = np.linspace(0, len(usable) - 1, columns**2).round().astype(int)
    return _joined([patch(*usable[i]) for i in picked], columns)


def _bands(image):
    return list(image.values()) if isinstance(image, dict) else image if isinstance(image, list) else [image]


def _valid_fraction(image):
    masks = [np.zeros(1) if each.mask is None else each.mask for each in _bands(image)]
    return 1.0 - max(float(np.mean(mask)) for mask in masks)


def _joined(windows, columns):
    """Windows of one shape as one image, ``columns`` in a row."""
    if isinstance(windows[0], dict):
        return {name: _joined([window[name] for window in windows], columns) for name in windows[0]}
    if isinstance(windows[0], list):
        return [_joined([window[i] for window in windows], columns) for i in range(len(windows[0]))]
    from astropy.nddata import CCDData

    def tiled(arrays):
        rows = [np.concatenate(arrays[i : i + columns], axis=-1) for i in range(0, len(arrays), columns)]
        return np.concatenate(rows, axis=-2)

    first = windows[0]
    mask = None
    if any(window.mask is not None for window in windows):
        mask = tiled([np.zeros(w.data.shape, bool) if w.mask is None else w.mask for w in windows])
    uncertainty = None
    if first.uncertainty is not None:
        uncertainty = type(first.uncertainty)(tiled([window.uncertainty.array for window in windows]))
    return CCDData(
        tiled([window.data for window in windows]),
        unit=first.unit,
        mask=mask,
        uncertainty=uncertainty,
        wcs=first.wcs,
        meta=first.meta,
        psf=first.psf,
    )


def _given_psf(psf, corner, source):
    """The PSF over the mosaic where one is given; the image's own and the header's are found with the patches."""
    if psf is None:
        return None
    from astrogan.image.psf import as_psf

    # Of the corner's pixel: its WCS is the mosaic's.
    scale = prepare(_filled_corner(corner), **source.later).observation.pixel_scale
    return as_psf(psf, n_bands=source.shape[0], pixel_scale=scale, shape=source.shape[1:])


def _filled_corner(corner):
    """The corner's pixel with a value, whatever it had: only its header counts."""
    from astropy.nddata import CCDData

    def filled(image):
        return CCDData(np.ones(image.data.shape, np.float32), unit=image.unit, wcs=image.wcs, meta=image.meta)

    if isinstance(corner, dict):
        return {name: filled(image) for name, image in corner.items()}
    return [filled(image) for image in corner] if isinstance(corner, list) else filled(corner)


def _with_grid_of(prepared, corner, source):
    """The patches as if they lay on the mosaic's grid: WCS and headers of the result come from them."""
    from dataclasses import replace

    scale = {key: value for key, value in source.later.items() if key == "pixel_scale"}
    own = prepare(_filled_corner(corner), **scale)
    images = tuple(_regridded(image, like) for image, like in zip(prepared.form.images, _bands(corner), strict=True))
    form = replace(prepared.form, images=images)
    observation = prepared.observation.replace(pixel_scale=own.observation.pixel_scale)
    return prepared.replace(form=form, wcs=own.wcs, celestial=own.celestial, observation=observation)


def _regridded(image, corner):
    from astropy.nddata import CCDData

    return CCDData(
        image.data, unit=image.unit, mask=image.mask, uncertainty=image.uncertainty, wcs=corner.wcs, meta=image.meta
    )


# ---- noise -------------------------------------------------------------------------------------------------------


def _measured_noise(source, prepared):
    """The variance of the sky on a mesh over the mosaic; of the patches where a mesh point has too little sky."""
    from astrogan.image.uncertainty import background_rms

    height, width = source.shape[1:]
    y, x = (_mesh(n) for n in (height, width))
    typical = np.median(prepared.observation.variance, axis=(1, 2)) * prepared.scale**2
    values = np.empty((source.shape[0], len(y), len(x)))
    for i, row in enumerate(y):
        for j, column in enumerate(x):
            window = source.window(_around(row, height), _around(column, width))
            planes = [plane for image in _bands(window) for plane in image.data.reshape(-1, *image.data.shape[-2:])]
            masks = [mask for image in _bands(window) for mask in _mask_of(image).reshape(-1, *image.data.shape[-2:])]
            for band, (plane, mask) in enumerate(zip(planes, masks, strict=True)):
                enough = not mask.all() and np.mean(~mask) > 0.25
                values[band, i, j] = np.median(background_rms(plane, ~mask)[1]) ** 2 if enough else typical[band]
    return NoiseMap(values, y, x)


def _mask_of(image):
    mask = ~np.isfinite(image.data)
    return mask if image.mask is None else mask | image.mask


def _mesh(size):
    """Rows (or columns) of the mesh points: the middles of equal parts."""
    parts = min(_MOST_BOXES, max(1, round(size / _SPACING)))
    return (np.arange(parts) + 0.5) * size / parts


def _around(middle, size):
    edge = min(_BOX, size)
    start = int(min(max(middle - edge / 2, 0), size - edge))
    return slice(start, start + edge)


def _weights(positions, mesh):
    """(positions, mesh) weights of straight lines between mesh points, constant beyond the outermost."""
    out = np.zeros((len(positions), len(mesh)))
    place = np.clip(np.interp(positions, mesh, np.arange(len(mesh))), 0, len(mesh) - 1)
    low = np.minimum(place.astype(int), max(len(mesh) - 2, 0))
    high = np.minimum(low + 1, len(mesh) - 1)
    rows = np.arange(len(positions))
    np.add.at(out, (rows, low), 1 - (place - low))
    np.add.at(out, (rows, high), place - low)
    return out
