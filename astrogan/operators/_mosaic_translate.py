"""A translator on a mosaic: cells of the target's grid, each with the window of the image that it lies on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from astrogan.api import Target
from astrogan.exceptions import BackendError, InputError
from astrogan.image.prepare import FILL_DEPTH
from astrogan.image.tiling import _checked as checked_estimate
from astrogan.image.tiling import _guarded as guarded
from astrogan.image.tiling import merged_info, plan_tiles
from astrogan.image.wcs import crop_wcs, pixel_mapping
from astrogan.mosaic import Block, MosaicSource, Piece, Sketch
from astrogan.mosaic.engine import checked_seed
from astrogan.mosaic.output import layer_windows
from astrogan.mosaic.sketch import prepare_window
from astrogan.operators._mosaic import _kind_of as kind_of
from astrogan.operators._mosaic import _moved as moved
from astrogan.operators._mosaic import _plain as plain
from astrogan.operators._mosaic import _span as span
from astrogan.operators._mosaic_cells import (
    WINDOW,
    as_sent,
    cell_rng,
    described,
    digest_of,
    in_one_piece,
    in_window,
    little_like,
    process_cells,
)
from astrogan.operators.translator import _about_the_centre as about_the_centre
from astrogan.operators.translator import _factor as factor_of
from astrogan.operators.translator import _per_pixel as per_pixel

__all__ = ["translate_mosaic"]

CELL = 1024
"""Edge of the cells in pixels of the output, without what the method looks at around them."""

_TRIAL = 256
_MESH = 32  # pixels between the places at which a cell is followed into the image
_MOST_PIXELS = 2**36  # of a target; beyond, a unit is wrong


def translate_mosaic(
    translator, image, output, *, psf, rng, tile, workers, client, overwrite, resume, progress, **reading
):
    """What `astrogan.Translator.process` does.

    Parameters
    ----------
    translator : `~astrogan.Translator`
    image, output, psf, rng, tile, workers, client, overwrite, resume, progress, **reading
        See there.

    Returns
    -------
    `pathlib.Path`
    """
    seed = checked_seed(rng)
    source = MosaicSource.open(image, **reading)
    default = getattr(translator.backend, "psf_default", None)
    sketch = Sketch.of(source, psf_default=default, **translator._needed(psf))
    translator._check_size(source.shape)
    prepared, target, wcs = translator._aimed(sketch.prepared, source.shape[1:], _MOST_PIXELS)
    if not hasattr(translator.backend, "halo_for"):
        if not sketch.whole:
            raise InputError(
                f"{translator.backend_name} needs the whole image at once, and {source.paths[0]!r} has {source.shape} "
                "pixels: call the operator itself where that fits into memory, or use psf-matching or surveynet"
            )
        return in_one_piece(translator, source, output, psf, seed, overwrite)
    stand_in = target if sketch.whole else _about_the_middle(target, prepared.observation.shape[1:])
    backend, halo = _settled(translator, prepared.observation, stand_in)
    cells = plan_tiles(target.shape, CELL + 2 * halo, halo, int(getattr(backend, "stride", 16)))
    factor = None if translator.target.wcs is not None else factor_of(translator.target, prepared.observation)[0]
    mapping = _Mapping(factor, source.shape[1:], target)
    windows = tuple(mapping.window(cell, halo) for cell in cells)
    if not any(windows):
        raise InputError("target: no pixel of its grid lies on the image; check both WCSs")
    trial = _trial(translator, backend, prepared.observation, stand_in)
    variance = trial.variance if prepared.had_uncertainty else None
    translator._warn_no_uncertainty(prepared.had_uncertainty, variance)
    task = _Task(
        source,
        sketch.like,
        sketch.noise,
        backend,
        _sent(target),
        mapping,
        tuple(cells),
        windows,
        prepared.observation.bands,
        _quiet(sketch.prepared, prepared),
        seed,
        variance is not None,
        kind_of(prepared.form.images[0].uncertainty),
    )

    def template(records):
        info = merged_info([record["info"] for record in records if record["info"]]) if records else trial.info
        if records:
            translator._warn_out_of_range(prepared.observation, info)
        # How many pixels of the image are bad is known only where all of it was looked at.
        counts = {
            name: prepared.notes[name] for name in ("AGNBAD", "AGNSAT") if sketch.whole and name in prepared.notes
        }
        small = little_like(prepared, counts)
        data = small.observation.data
        layers = data, None if variance is None else np.ones_like(data), np.ones(data.shape, bool)
        return translator._finished(small, target, wcs, layers, info, seed)

    description = described(
        translator,
        source,
        seed,
        reading,
        model={key: trial.info[key] for key in ("weights", "sha256") if key in trial.info},
        target=digest_of(_sent(target)),
        settled=digest_of(translator.options, prepared.observation.data, prepared.observation.psf, sketch.like.scale),
    )
    return process_cells(
        translator,
        task,
        cells,
        output,
        template,
        target.shape,
        description,
        edge=tile or WINDOW,
        workers=workers,
        client=client,
        overwrite=overwrite,
        resume=resume,
        progress=progress,
    )


@dataclass(frozen=True)
class _Task:
    """What a worker does with a block: read a cell's window, translate it, and say what goes where."""

    source: MosaicSource
    like: object
    noise: object
    backend: object
    target: Target
    mapping: _Mapping
    cells: tuple
    windows: tuple
    bands: tuple
    quiet: tuple
    seed: int
    has_variance: bool
    kind: object

    def __call__(self, block: Block) -> list[Piece]:
        return [self._piece(number) for number in block.pieces]

    def _piece(self, number):
        cell, window = self.cells[number], self.windows[number]
        if window is None:
            return self._empty(number, cell)
        # What a fill looks at, and what saturation grows by.
        margin = 2 ** (FILL_DEPTH + 1) + 4
        wide = tuple(span([each], margin, size) for each, size in zip(window, self.source.shape[1:], strict=True))
        prepared = prepare_window(self.source, self.like, self.noise, *wide)
        observation = self._silenced(prepared.observation).crop(*moved(window, *wide)).replace(bands=self.bands)
        target = self._target(cell.outer, window)
        shape = (len(self.bands), *target.shape)
        label = f"translator {type(self.backend).__name__}"
        rng = cell_rng(self.seed, self.cells, number)
        estimate = checked_estimate(label, guarded(label, self.backend, observation, target, rng=rng), shape)
        if self.has_variance and estimate.variance is None:
            raise BackendError(f"{label} returned variance for some cells and not for others")
        variance = estimate.variance if self.has_variance else None
        data, variance = per_pixel(prepared.unit, target, estimate.data, variance)
        mask = np.zeros(shape, bool) if estimate.flags is None else estimate.flags
        inside = (slice(None), *cell.inner)
        layers = [None if layer is None else layer[inside] for layer in (data, variance, mask)]
        return Piece(
            number, list(layer_windows(*cell.core, prepared.scale, self.kind, *layers)), {"info": plain(estimate.info)}
        )

    def _empty(self, number, cell):
        """Where the target lies beside the image: masked, and nothing else."""
        shape = (len(self.bands), *(s.stop - s.start for s in cell.core))
        zeros = np.zeros(shape, np.float32)
        variance = zeros if self.has_variance else None
        layers = layer_windows(*cell.core, self.like.scale, self.kind, zeros, variance, np.ones(shape, bool))
        return Piece(number, list(layers), {"info": {}})

    def _silenced(self, observation):
        """The observation with bands without any scatter as good as free of noise."""
        if not any(self.quiet):
            return observation
        variance = np.array(observation.variance)
        variance[list(self.quiet)] = np.finfo(np.float32).tiny
        return observation.replace(variance=variance)

    def _target(self, outer, window):
        """The target of a cell, for the window of the image that it lies on."""
        (y, x), (top, left) = ([s.start for s in slices] for slices in (outer, window))
        shape = tuple(s.stop - s.start for s in outer)
        to_input, to_output = self.mapping.functions()
        model = self.target.noise_model
        return replace(
            self.target,
            shape=shape,
            to_input=lambda u, v: _shifted(to_input(np.add(u, x), np.add(v, y)), left, top),
            to_output=lambda u, v: _shifted(to_output(np.add(u, left), np.add(v, top)), x, y),
            wcs_in=crop_wcs(self.target.wcs_in, left, top, [s.stop - s.start for s in window]),
            wcs_out=crop_wcs(self.target.wcs_out, x, y, shape),
            noise_model=None if model is None else in_window(model, self.seed, y, x, shape),
        )


def _shifted(points, x, y):
    return points[0] - x, points[1] - y


class _Mapping:
    """Pixels of the output to those of the image, and back; unlike functions it can be sent around."""

    def __init__(self, factor, shape_in, target):
        self._factor, self._shape_in, self._shape = factor, tuple(shape_in), tuple(target.shape)
        self._skies = as_sent(target.wcs_out), as_sent(target.wcs_in)
        self._made = None

    def __getstate__(self):
        return self.__dict__ | {"_made": None}

    def functions(self):
        """(to input, to output)."""
        if self._made is None:
            if self._factor is not None:
                self._made = about_the_centre(self._factor, self._shape_in, self._shape)
            else:
                self._made = pixel_mapping(*self._skies), pixel_mapping(*self._skies[::-1])
        return self._made

    def window(self, cell, halo):
        """(y, x) slices of the image that a cell reads; `None` where none of it lies on the image.

        Beyond the output's border, too, the method looks at as much of the image.
        """
        rows, columns = (_mesh(each, halo) for each in cell.core)
        x, y = np.meshgrid(columns, rows)
        found = self.functions()[0](x, y)
        good = np.isfinite(found[0]) & np.isfinite(found[1])
        if not good.any():
            return None
        # In y, then x.
        spans = [(float(p[good].min()), float(p[good].max())) for p in found[::-1]]
        window = []
        for (low, high), size in zip(spans, self._shape_in, strict=True):
            start, stop = max(0, int(np.floor(low)) - 3), min(size, int(np.ceil(high)) + 4)
            if stop <= start:
                return None
            window.append(slice(start, stop))
        inside = all(low > 1 and high < size - 2 for (low, high), size in zip(spans, self._shape_in, strict=True))
        return tuple(window) if (inside and good.all()) or self._touches(cell.outer) else None

    def _touches(self, outer):
        """Whether the centre of any pixel lies on the image; the corner of a turned cell may lie beside it."""
        height, width = self._shape_in
        columns = np.arange(outer[1].start, outer[1].stop, dtype=float)
        for start in range(outer[0].start, outer[0].stop, 64):
            rows = np.arange(start, min(start + 64, outer[0].stop), dtype=float)
            x, y = self.functions()[0](*np.meshgrid(columns, rows))
            if ((np.abs(x - (width - 1) / 2) <= width / 2) & (np.abs(y - (height - 1) / 2) <= height / 2)).any():
                return True
        return False


def _mesh(edge, halo):
    """Places along an edge and as many pixels on both sides."""
    first, last = edge.start - 0.5 - halo, edge.stop - 0.5 + halo
    return np.linspace(first, last, max(2, int(last - first) // _MESH + 1))


# ---- what is settled on the sketch ---------------------------------------------------------------------------------


def _settled(translator, observation, target):
    """The method with what belongs to the whole image settled, and how far it looks."""
    backend = translator.backend
    if hasattr(backend, "for_image"):
        backend = translator._run(backend.for_image, observation, target)
    halo = translator._run(backend.halo_for, observation, target)
    if not isinstance(halo, int | np.integer) or halo < 0:
        raise BackendError(f"{translator.backend_name}: halo_for gives {halo!r}; it must be a number of pixels")
    return backend, int(halo)


def _about_the_middle(target, shape_small):
    """The target for a small image that stands for a large one: as its grid is in the middle of the target."""
    x, y = ((n - 1) / 2 for n in target.shape[::-1])
    xs, ys = target.to_input(x + np.array([0.5, -0.5, 0, 0]), y + np.array([0, 0, 0.5, -0.5]))
    matrix = np.array([[xs[0] - xs[1], xs[2] - xs[3]], [ys[0] - ys[1], ys[2] - ys[3]]])
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise InputError("target: the centre of its grid has no position on the image; check both WCSs")
    inverse = np.linalg.inv(matrix)
    size = np.ceil(np.abs(inverse) @ shape_small[::-1]).astype(int)
    shape = tuple(int(n) for n in size[::-1])
    centre_in, centre = (np.array(shape_small[::-1]) - 1) / 2, (size - 1) / 2

    def through(matrix, of, to):
        def function(x, y):
            x, y = np.asarray(x, float) - of[0], np.asarray(y, float) - of[1]
            return matrix[0, 0] * x + matrix[0, 1] * y + to[0], matrix[1, 0] * x + matrix[1, 1] * y + to[1]

        return function

    return replace(
        target,
        shape=shape,
        to_input=through(matrix, centre, centre_in),
        to_output=through(inverse, centre_in, centre),
        wcs_in=None,
        wcs_out=None,
    )


def _trial(translator, backend, observation, target):
    """The middle of the sketch, translated: it tells what layers the output has, and what goes wrong, early."""
    parts = [slice((n - min(_TRIAL, n)) // 2, (n + min(_TRIAL, n)) // 2) for n in observation.shape[1:]]
    small = observation.crop(*parts)
    aim = _about_the_middle(target, small.shape[1:])
    estimate = translator._run(backend, small, aim, rng=np.random.default_rng(0))
    return translator._check_estimate(estimate, (len(small.data), *aim.shape))


def _quiet(before, after):
    """Which bands were found to be without any scatter."""
    one, other = before.observation.variance, after.observation.variance
    if one is None or one is other:
        return ()
    return tuple(bool((a != b).any()) for a, b in zip(one, other, strict=True))


def _arrays(observation):
    return observation.data, observation.psf


def _sent(target):
    """The part of a target that can be sent around."""
    return replace(
        target, to_input=None, to_output=None, wcs_in=as_sent(target.wcs_in), wcs_out=as_sent(target.wcs_out)
    )
