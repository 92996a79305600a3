"""A degrader on a mosaic: windows, fixed cells, and noise that belongs to places."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from astrogan.api import Estimate
from astrogan.exceptions import InputError
from astrogan.image.finish import KEEP, finish
from astrogan.image.prepare import FILL_DEPTH
from astrogan.image.tiling import _checked as checked_estimate
from astrogan.image.tiling import _guarded as guarded
from astrogan.image.tiling import plan_tiles
from astrogan.mosaic import Block, MosaicSource, Piece, Sketch
from astrogan.mosaic.engine import checked_seed
from astrogan.mosaic.output import layer_windows
from astrogan.mosaic.sketch import prepare_window
from astrogan.operators._degrader_frame import Frame
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
    settled_levels,
)
from astrogan.operators.degrader import _grid_after as grid_after
from astrogan.operators.degrader import _psf_after as psf_after
from astrogan.operators.degrader import _shape_after as shape_after
from astrogan.operators.degrader import _wcs_after as wcs_after
from astrogan.operators.degrader import _with_true_header as with_true_header

__all__ = ["degrade_mosaic"]

CELL = 1024
"""Edge of the cells in pixels of the input."""

_TRIAL = 256
_MOST_PARTS = 64  # output pixels after which a rebinning that is not whole begins anew at a pixel's edge


def degrade_mosaic(degrader, image, output, *, psf, rng, tile, workers, client, overwrite, resume, progress, **reading):
    """What `astrogan.Degrader.process` does.

    Parameters
    ----------
    degrader : `~astrogan.Degrader`
    image, output, psf, rng, tile, workers, client, overwrite, resume, progress, **reading
        See there.

    Returns
    -------
    `pathlib.Path`
    """
    seed = checked_seed(rng)
    source = MosaicSource.open(image, **reading)
    sketch = degrader._with_psf(lambda **needs: Sketch.of(source, **needs), psf)
    degrader._check_size(source.shape)
    observation = sketch.prepared.observation
    backend = degrader._backend_for(Frame.of(sketch.prepared))
    shape = shape_after(source.shape, backend)
    halo = _halo(degrader, backend, observation)
    if halo < 0:
        if not sketch.whole:
            raise InputError(
                f"{degrader.backend_name} needs the whole image at once, and {source.paths[0]!r} has {source.shape} "
                "pixels: call the operator itself where that fits into memory, or use the physical backend"
            )
        return in_one_piece(degrader, source, output, psf, seed, overwrite)
    cells = _cells(shape, backend, halo, sketch)
    backend = settled_levels(backend, len(observation.data), seed)
    if getattr(backend, "noise", None) is not None and degrader._names_noise():
        backend.noise_wcs = as_sent(wcs_after(sketch.prepared, backend, source.shape[1:], shape))
    trial = _trial(degrader, backend, observation)
    degrader._warn_no_uncertainty(sketch.prepared.had_uncertainty, trial.variance)
    task = _Task(source, sketch.like, sketch.noise, backend, tuple(cells), shape, seed, trial.variance is not None)

    def template(records):
        return _template(degrader, backend, sketch, trial, source, shape, seed, records)

    description = described(
        degrader,
        source,
        seed,
        reading,
        settled=digest_of(backend, observation.data, observation.psf, sketch.like.scale),
    )
    return process_cells(
        degrader,
        task,
        cells,
        output,
        template,
        shape[1:],
        description,
        edge=(tile or WINDOW) / getattr(backend, "rebin", 1),
        workers=workers,
        client=client,
        overwrite=overwrite,
        resume=resume,
        progress=progress,
    )


@dataclass(frozen=True)
class _Task:
    """What a worker does with a block: read, degrade cell by cell, and say what goes where."""

    source: MosaicSource
    like: object
    noise: object
    backend: object
    cells: tuple
    shape: tuple[int, int, int]
    seed: int
    has_variance: bool

    def __call__(self, block: Block) -> list[Piece]:
        outers = [self._of_input(self.cells[number].outer) for number in block.pieces]
        # What a fill looks at, and what saturation grows by.
        margin = 2 ** (FILL_DEPTH + 1) + 4
        y, x = (span([outer[axis] for outer in outers], margin, self.source.shape[1 + axis]) for axis in (0, 1))
        prepared = prepare_window(self.source, self.like, self.noise, y, x)
        return [self._piece(number, outer, prepared, y, x) for number, outer in zip(block.pieces, outers, strict=True)]

    def _of_input(self, slices):
        """The pixels of the input under those of the output; the last ones with what is left over."""
        rebin = getattr(self.backend, "rebin", 1)
        return tuple(
            slice(round(s.start * rebin), whole if s.stop == size else round(s.stop * rebin))
            for s, size, whole in zip(slices, self.shape[1:], self.source.shape[1:], strict=True)
        )

    def _piece(self, number, outer, prepared, y, x):
        cell = self.cells[number]
        observation = prepared.observation.crop(*moved(outer, y, x))
        shape = (self.shape[0], *(s.stop - s.start for s in cell.outer))
        backend = _at(self.backend, self.seed, cell.outer, shape[1:])
        label = f"degrader {type(backend).__name__}"
        rng = cell_rng(self.seed, self.cells, number)
        estimate = checked_estimate(label, guarded(label, backend, observation, rng=rng), shape)
        inside = (slice(None), *cell.inner)
        mask = estimate.flags
        if mask is None:
            mask = ~observation.valid if shape == observation.shape else np.zeros(shape, bool)
        variance = estimate.variance[inside] if self.has_variance else None
        kind = prepared.form.images[0].uncertainty
        windows = list(layer_windows(*cell.core, prepared.scale, kind, estimate.data[inside], variance, mask[inside]))
        core = (slice(None), *moved(self._of_input(cell.core), y, x))
        record = {"bad": int((~prepared.observation.valid[core]).sum()), "info": plain(estimate.info)}
        record["saturated"] = 0 if prepared.saturated is None else int(prepared.saturated[core].sum())
        return Piece(number, windows, record)


def _at(backend, seed, outer, shape_yx):
    """The degrader with the noise that belongs to a place."""
    noise = getattr(backend, "noise", None)
    if noise is None:
        return backend
    from astrogan.image.wcs import crop_wcs

    backend = copy.copy(backend)
    backend.noise = in_window(noise, seed, outer[0].start, outer[1].start, shape_yx)
    if getattr(backend, "noise_wcs", None) is not None:
        backend.noise_wcs = crop_wcs(backend.noise_wcs, outer[1].start, outer[0].start, shape_yx)
    return backend


def _halo(degrader, backend, observation):
    """Input pixels around an output pixel that it depends on; -1 for all."""
    if hasattr(backend, "halo_for"):
        return int(degrader._run(backend.halo_for, observation))
    if not hasattr(backend, "kernels"):
        return int(getattr(backend, "halo", -1))
    kernels = degrader._run(backend.kernels, len(observation.data), observation.psf, observation.pixel_scale)
    return 0 if kernels is None else kernels.shape[-1] // 2


def _cells(shape, backend, halo, sketch):
    rebin = getattr(backend, "rebin", 1)
    align = Fraction(rebin).limit_denominator(_MOST_PARTS)
    if abs(float(align) - rebin) * max(shape[1:]) > 1e-6:
        if sketch.whole:
            return plan_tiles(shape[1:], max(shape[1:]), -1)
        raise InputError(
            f"rebin={rebin!r}: a mosaic is degraded by windows, whose pixels begin together only where rebin is a "
            f"whole number or a fraction such as {align}; give rebin={float(align):.12g}, or "
            "pixel_scale= to match"
        )
    around = 0 if halo == 0 and rebin == 1 else math.ceil((halo + 1) / rebin) + 1
    return plan_tiles(shape[1:], max(1, round(CELL / rebin)) + 2 * around, around, align.denominator)


def _trial(degrader, backend, observation) -> Estimate:
    """A corner of the sketch, degraded: it tells what layers the output has, and what goes wrong, early."""
    edge = max(_TRIAL, math.ceil(4 * getattr(backend, "rebin", 1)))
    small = observation.crop(*(slice(0, min(edge, n)) for n in observation.shape[1:]))
    estimate = degrader._run(backend, small, rng=np.random.default_rng(0))
    return degrader._check_estimate(estimate, shape_after(small.shape, backend))


def _template(degrader, backend, sketch, trial, source, shape, seed, records):
    """A small image with the layers and headers of the result."""
    prepared = with_true_header(sketch.prepared, backend)
    counts = {"AGNBAD": sum(record["bad"] for record in records)}
    if prepared.saturated is not None:
        counts["AGNSAT"] = sum(record["saturated"] for record in records)
    small = little_like(prepared, counts)
    wcs = KEEP
    if getattr(backend, "rebin", 1) != 1:
        wcs = grid_after(prepared, backend, source.shape[1:], shape)
    data = small.observation.data
    return finish(
        small,
        data,
        variance=None if trial.variance is None else np.ones_like(data),
        mask=np.ones(data.shape, bool),
        wcs=wcs,
        psf=psf_after(prepared.observation, backend),
        operation=degrader.operation,
        notes=degrader._notes(seed, records[0]["info"] if records else trial.info),
    )
