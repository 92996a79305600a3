"""A restorer on a mosaic: windows, tiles, and a journal."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from astrogan.api import Estimate
from astrogan.exceptions import InputError
from astrogan.image.finish import finish
from astrogan.image.mask import RestorationFlag, restoration_flags
from astrogan.image.prepare import FILL_DEPTH
from astrogan.image.tiling import TileWork, merged_info, plan_work
from astrogan.mosaic import Block, MosaicFile, MosaicSource, Piece, Sketch, run_blocks
from astrogan.mosaic.engine import checked_seed
from astrogan.mosaic.output import layer_windows
from astrogan.mosaic.sketch import prepare_window

__all__ = ["restore_mosaic"]

WINDOW, FEWEST = 768, 16
"""Edge of the windows that are read at once, in pixels, and how many there are at least: work for all workers."""


def restore_mosaic(
    restorer, image, output, *, psf, rng, tile, client, overwrite, resume, masked, progress=None, **reading
):
    """What `astrogan.Restorer.process` does.

    Parameters
    ----------
    restorer : `~astrogan.Restorer`
    masked : int
        `RestorationFlag` bits that go into the mask.
    image, output, psf, rng, tile, client, overwrite, resume, progress, **reading
        See there.

    Returns
    -------
    `pathlib.Path`
    """
    rng, backend = checked_seed(rng), restorer.backend
    needs = {name: bool(getattr(backend, name, False)) for name in ("needs_psf", "needs_variance")}
    source = MosaicSource.open(image, **reading)
    sketch = Sketch.of(source, psf=psf, psf_default=getattr(backend, "psf_default", None), **needs)
    work = restorer._run(
        plan_work,
        backend,
        sketch.prepared.observation,
        rng=np.random.default_rng(rng),
        tile=restorer.tile,
        shape_yx=source.shape[1:],
    )
    if work.in_one_piece and not sketch.whole:
        raise InputError(
            f"{restorer.backend_name} needs the whole image at once, and {source.paths[0]!r} has {source.shape} pixels"
            ": call the operator itself where that fits into memory, or name another backend"
        )
    trial = _trial(restorer, work, sketch)
    task = _Task(source, sketch.like, sketch.noise, work, _margin(sketch), trial.variance is not None, masked)
    describe = functools.partial(_template, restorer, sketch, trial, masked, rng)
    description = {
        "input": source.fingerprint(),
        "method": restorer._notes(rng),
        "reading": {key: str(value) for key, value in sorted(reading.items())},
        "model": {key: trial.info[key] for key in ("weights", "sha256") if key in trial.info},
        "settled": _digest(sketch),
        "tiles": [list(source.shape), len(work.tiles), work.tiles[0].outer[0].stop, work.tiles[0].outer[1].stop],
    }
    with MosaicFile(output, describe([]), source.shape[1:], description, overwrite=overwrite, resume=resume) as file:
        total, done = len(work.tiles), sum(len(work.groups[i]) for i in file.done)

        def put(piece):
            nonlocal done
            file.put(piece.number, piece.windows, piece.record)
            done += len(work.groups[piece.number])
            if progress is not None:
                progress(done, total)

        if progress is not None:
            progress(done, total)
        blocks = _blocks(work, sketch, set(file.done), tile or _window(source.shape))
        restorer._run(run_blocks, task, blocks, put, workers=restorer.workers, client=client)
        records = [file.done[i] for i in sorted(file.done)]
        info = merged_info([each for record in records for each in record["infos"]])
        restorer._warn_no_uncertainty(sketch.prepared.had_uncertainty, trial.variance)
        restorer._warn_out_of_range(sketch.prepared.observation, info)
        return file.finish(describe(records))


@dataclass(frozen=True)
class _Task:
    """What a worker does with a block: read, restore tile by tile, and say what goes where."""

    source: MosaicSource
    like: object
    noise: object
    work: TileWork
    margin: int
    has_variance: bool
    masked: int

    def __call__(self, block: Block) -> list[Piece]:
        tiles = [self.work.tiles[i] for number in block.pieces for i in self.work.groups[number]]
        y, x = (_span([tile.outer[axis] for tile in tiles], self.margin, self.work.shape[1 + axis]) for axis in (0, 1))
        prepared = prepare_window(self.source, self.like, self.noise, y, x)
        observation = prepared.observation
        flags = restoration_flags(observation.valid, observation.psf, prepared.saturated)
        if hasattr(self.work.backend, "pixel_flags"):
            flags |= self.work.backend.pixel_flags(observation)
        return [self._piece(number, block.extra, prepared, flags, y, x) for number in block.pieces]

    def _piece(self, number, psfs, prepared, flags, y, x):
        group = self.work.groups[number]
        tiles = [self.work.tiles[i] for i in group]
        observations = [
            prepared.observation.crop(*_moved(tile.outer, y, x), psf=None if psfs is None else psfs[i])
            for i, tile in zip(group, tiles, strict=True)
        ]
        windows, counts = [], {"bad": 0, "saturated": 0}
        estimates = self.work.estimates(group, observations)
        for tile, estimate in zip(tiles, estimates, strict=True):
            core = (slice(None), *_moved(tile.core, y, x))
            inside = (slice(None), *tile.inner)
            bits = flags[core].copy()
            if estimate.flags is not None:
                bits[estimate.flags[inside]] |= np.uint8(RestorationFlag.UNTRUSTED)
            windows += self._windows(tile, prepared, estimate, bits, inside)
            counts["bad"] += int((~prepared.observation.valid[core]).sum())
            counts["saturated"] += 0 if prepared.saturated is None else int(prepared.saturated[core].sum())
        infos = [_plain(estimate.info) for estimate in estimates]
        return Piece(number, windows, {"infos": infos, **counts})

    def _windows(self, tile, prepared, estimate, bits, inside):
        variance = estimate.variance[inside] if self.has_variance else None
        kind, mask = _kind_of(prepared.form.images[0].uncertainty), (bits & self.masked) != 0
        yield from layer_windows(*tile.core, prepared.scale, kind, estimate.data[inside], variance, mask)
        yield "flags", *tile.core, bits


def _kind_of(uncertainty):
    """An empty uncertainty of the same class; `None` for none."""
    return None if uncertainty is None else type(uncertainty)(np.ones(1))


def _moved(slices, y, x):
    return tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip(slices, (y, x), strict=True))


def _span(slices, margin, size):
    """From the first to the last pixel and a margin; along the grid on which masked pixels are filled."""
    step = 2**FILL_DEPTH
    first, last = min(s.start for s in slices) - margin, max(s.stop for s in slices) + margin
    return slice(max(0, first - first % step), min(size, last + -last % step))


def _margin(sketch):
    """Pixels around a block: what a fill looks at, a PSF's radius for the flags, and what saturation grows by."""
    radius = 0 if sketch.psf is None else sketch.psf.kernels.shape[-1] // 2
    return max(radius, 2 ** (FILL_DEPTH + 1)) + 4


def _window(shape):
    return int(min(WINDOW, max(1, (shape[1] * shape[2] / FEWEST) ** 0.5)))


def _blocks(work, sketch, done, edge):
    """Groups of tiles that are read in one window of about that edge."""
    psf_at = sketch.psf.at if sketch.psf is not None and sketch.psf.varies else None
    first = work.tiles[0].core
    rows = max(1, round(edge / (first[0].stop - first[0].start)))
    columns = max(1, round(edge / ((first[1].stop - first[1].start) * len(work.groups[0]))))
    numbers = [number for number in range(len(work.groups)) if number not in done]
    row_of = {
        number: index
        for index, (_, members) in enumerate(groupby(range(len(work.groups)), lambda n: _row(work, n)))
        for number in members
    }
    first_of = {}
    for number, row in row_of.items():
        first_of.setdefault(row, number)

    def cell(number):
        row = row_of[number]
        return row // rows, (number - first_of[row]) // columns

    for _, members in groupby(sorted(numbers, key=cell), cell):
        pieces = tuple(members)
        psfs = None
        if psf_at is not None:
            psfs = {i: psf_at(*work.tiles[i].center) for number in pieces for i in work.groups[number]}
        yield Block(pieces, psfs)


def _row(work, number):
    return work.tiles[work.groups[number][0]].core[0].start


def _trial(restorer, work, sketch) -> Estimate:
    """A tile's worth of the sketch, restored: it tells what layers the output has, and what goes wrong, early."""
    observation = sketch.prepared.observation
    tile = work.tiles[0].outer
    small = observation.crop(
        *(slice(0, min(s.stop - s.start, n)) for s, n in zip(tile, observation.shape[1:], strict=True))
    )
    if sketch.psf is not None:
        small = small.replace(psf=sketch.psf.kernels)
    if hasattr(work.backend, "call_tiles"):
        call = functools.partial(work.backend.call_tiles, cuts=[((False, False), (False, False))])
        estimate = restorer._run(lambda: call([small], rngs=[np.random.default_rng(0)]))[0]
    else:
        estimate = restorer._run(work.backend, small, rng=np.random.default_rng(0))
    return restorer._check_estimate(estimate, small.shape)


def _template(restorer, sketch, trial, masked, rng, records):
    """A small image with the layers and headers of the result; counts and ``info`` are those of the records."""
    shape = trial.data.shape
    prepared = sketch.prepared
    counts = {"AGNBAD": sum(record["bad"] for record in records)}
    if prepared.saturated is not None:
        counts["AGNSAT"] = sum(record["saturated"] for record in records)
    info = merged_info([each for record in records for each in record["infos"]]) if records else dict(trial.info)
    if not getattr(restorer.backend, "keeps_psf", False):
        from astrogan.image.provenance import without_stale_keywords

        prepared = prepared.replace(meta=tuple(without_stale_keywords(meta) for meta in prepared.meta))
    prepared = prepared.replace(notes=prepared.notes | counts, observation=_like_of(prepared, shape))
    flags = np.zeros(shape, np.uint8)
    variance = None if trial.variance is None else np.ones(shape, np.float32)
    return finish(
        prepared,
        np.zeros(shape, np.float32),
        variance=variance,
        mask=np.ones(shape, bool),
        flags=flags,
        operation=restorer.operation,
        notes=restorer._notes(rng, info),
    )


def _like_of(prepared, shape):
    return prepared.observation.crop(*(slice(0, n) for n in shape[1:]))


def _plain(info):
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in info.items()}


def _digest(sketch):
    """Of what was measured on the sketch: the same input gives the same, and so does a resumed run."""
    digest = hashlib.sha256()
    observation = sketch.prepared.observation
    digest.update(observation.data.tobytes())
    if sketch.psf is not None:
        digest.update(sketch.psf.kernels.tobytes())
        if sketch.psf.varies:
            digest.update(np.asarray(sketch.psf.at(0.0, 0.0)).tobytes())
    digest.update(json.dumps(sketch.like.scale).encode())
    return digest.hexdigest()
