"""A deblender on a mosaic: overlapping windows, each source from one of them, and labels that hold for all."""

from __future__ import annotations

import contextlib
import copy
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from astrogan.exceptions import ImageWriteError, InputError
from astrogan.image.finish import to_ccd
from astrogan.image.tiling import plan_tiles
from astrogan.image.write import write_table
from astrogan.mosaic import Block, MosaicFile, MosaicSource, Piece, Sketch, run_blocks
from astrogan.mosaic.engine import checked_seed
from astrogan.mosaic.sketch import prepare_window
from astrogan.operators._deblend_catalog import _catalog as catalog_of
from astrogan.operators._deblend_catalog import _residual as residual_of
from astrogan.operators._mosaic import _plain as plain
from astrogan.operators._mosaic_cells import WINDOW, blocks_of, cell_rng, described, digest_of, little_like

__all__ = ["deblend_mosaic"]

CELL = 1024
"""Edge in pixels of the part of the image that a window answers for."""

_ALIGN = 64  # of the windows: the grid on which masked pixels are filled
_NEAR = 2.0  # pixels from a border within which two windows may both, or neither, call a source theirs
_SAME = 1.0  # pixels within which what two windows see is one source


def deblend_mosaic(
    deblender, image, output, positions, *, psf, rng, overlap, table, tile, client, overwrite, resume, **reading
):
    """What `astrogan.Deblender.process` does.

    Parameters
    ----------
    deblender : `~astrogan.Deblender`
    image, output, positions, psf, rng, overlap, table, tile, client, overwrite, resume, **reading
        See there.

    Returns
    -------
    `pathlib.Path`
    """
    seed = checked_seed(rng)
    if not isinstance(overlap, int | np.integer) or isinstance(overlap, bool) or overlap < 1:
        raise InputError(f"overlap={overlap!r} must be a positive number of pixels, e.g. 128")
    source = MosaicSource.open(image, **reading)
    folder, again = _folder(output, table, overwrite)
    default = getattr(deblender.backend, "psf_default", None)
    sketch = Sketch.of(source, psf=psf, needs_psf=deblender._needs("psf"), needs_variance=True, psf_default=default)
    prepared = sketch.prepared
    deblender._check_size(source.shape)
    deblender._check_bands(prepared.observation)
    if positions is not None:
        from astrogan.operators.deblender import _pixel_positions as pixel_positions

        positions = pixel_positions(positions, prepared.celestial, source.shape)
    cells = plan_tiles(source.shape[1:], CELL + 2 * int(overlap), int(overlap), _ALIGN)
    worker = copy.copy(deblender)
    # A window has its PSF already, and neither that nor who is told of progress can always be sent.
    worker.psf, worker.progress, worker.workers = None, None, 1
    task = _Task(source, sketch.like, sketch.noise, worker, tuple(cells), positions, seed)
    description = described(
        deblender,
        source,
        seed,
        reading,
        settled=digest_of(deblender.options, deblender.background, positions, sketch.like.scale, *_seen(prepared)),
        windows=[list(source.shape), len(cells), str(cells[0])],
    )
    template, small = _templates(deblender, prepared, seed, {})
    made = {"overwrite": again, "resume": resume}
    shape = source.shape[1:]
    folder.mkdir(exist_ok=True)
    try:
        with (
            MosaicFile(folder / "residual.fits", template, shape, description, **made) as residual,
            MosaicFile(folder / "segmentation.fits", small, shape, description, **made) as segments,
        ):
            _work(deblender, task, cells, sketch.psf, residual, segments, tile or WINDOW, client)
            records = [residual.done[number] for number in range(len(cells))]
            whole = _Whole.of(records, cells, shape, positions)
            for number, cell in enumerate(cells):
                labels = whole.relabelled(number, segments.read("data", *cell.core))
                segments.put(number, [("data", *cell.core, labels)], {})
            info = _info(records)
            counts = {name: sum(record[name] for record in records) for name in ("AGNBAD", "AGNSAT")}
            if prepared.saturated is None:
                del counts["AGNSAT"]
            template, small = _templates(deblender, prepared, seed, info, counts)
            catalog = catalog_of(whole.rows, prepared, deblender._noted(seed, info, prepared.observation))
            write_table(catalog, folder / f"catalog.{table}", overwrite=True)
            residual.finish(template)
            segments.finish(small)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # where nothing was written
    return folder


def _work(deblender, task, cells, psf, residual, segments, edge, client):
    """Separate the sources of all windows that are not done."""

    def report():
        if deblender.progress is not None:
            deblender.progress(len(residual.done), len(cells))

    def put(piece):
        segments.put(piece.number, piece.windows[-1:], {})
        residual.put(piece.number, piece.windows[:-1], piece.record)
        report()

    report()
    blocks = _with_psfs(blocks_of(cells, set(residual.done) & set(segments.done), edge), cells, psf)
    deblender._run(run_blocks, task, blocks, put, workers=deblender.workers, client=client)


@dataclass(frozen=True)
class _Task:
    """What a worker does with a block: read a window, separate its sources, and say which are its own."""

    source: MosaicSource
    like: object
    noise: object
    deblender: object
    cells: tuple
    positions: np.ndarray | None
    seed: int

    def __call__(self, block: Block) -> list[Piece]:
        return [self._piece(number, None if block.extra is None else block.extra[number]) for number in block.pieces]

    def _piece(self, number, psf):
        cell = self.cells[number]
        prepared = prepare_window(self.source, self.like, self.noise, *cell.outer)
        if psf is not None:
            from astrogan.image.psf import PSFModel

            prepared = prepared.replace(psf=PSFModel(psf), observation=prepared.observation.replace(psf=psf))
        corner = np.array([cell.outer[1].start, cell.outer[0].start])
        given, positions = None, None
        if self.positions is not None:
            given = _inside(self.positions, cell.outer)
            positions = self.positions[given] - corner
        rng = cell_rng(self.seed, self.cells, number)
        if prepared.observation.valid.any():
            result, separation = self.deblender._deblended(prepared, positions, rng, self.seed)
            found = np.array([template.position for template in separation.templates], float).reshape(-1, 2)
            info = separation.info
        else:
            result, found, info = _nothing(prepared), np.empty((0, 2)), {}
            given = None if given is None else given[:0]
        places = found + corner if given is None else self.positions[given]
        inside = tuple(cell.inner)
        core = tuple(cell.core)
        labels = np.where(result.segmentation[inside] > 0, -result.segmentation[inside], 0)
        own = [int(i) for i in _inside(places, core, _NEAR)]
        record = {
            # Of each source that has pixels here: where it is, and which of those given it is.
            "labels": {int(k): _named(k - 1, places, given) for k in np.unique(-labels[labels < 0])},
            "rows": [_row(result.catalog[i], corner) | {"given": _named(i, places, given)} for i in own],
            "info": plain(info),
            "AGNBAD": int((~prepared.observation.valid[:, *inside]).sum()),
            "AGNSAT": 0 if prepared.saturated is None else int(prepared.saturated[:, *inside].sum()),
        }
        windows = [*_layers(result.residual, core, inside), ("data", *core, labels[np.newaxis].astype(np.int32))]
        return Piece(number, windows, record)


def _layers(residual, core, inside):
    """What is written of a residual."""

    def cut(array):
        return np.reshape(array, (-1, *np.shape(array)[-2:]))[:, *inside]

    yield "data", *core, cut(residual.data)
    yield "mask", *core, cut(np.zeros(residual.shape, bool) if residual.mask is None else residual.mask)
    if residual.uncertainty is not None:
        yield "uncertainty", *core, cut(residual.uncertainty.array)


def _nothing(prepared):
    """A window without a valid pixel: all of it is residual."""
    shape = prepared.observation.shape
    residual = to_ccd(
        prepared,
        residual_of(prepared, prepared.observation, np.zeros(shape, bool)),
        variance=prepared.observation.variance if prepared.had_uncertainty else None,
    )
    return SimpleNamespace(residual=residual, segmentation=np.zeros(shape[1:], np.int32), catalog=())


def _named(i, places, given):
    x, y = places[int(i)]
    return [float(x), float(y), -1 if given is None else int(given[int(i)])]


def _inside(places, slices, margin=0.0):
    """Numbers of the positions in a part of the image, and so many pixels around."""
    (low_y, high_y), (low_x, high_x) = ((s.start - 0.5 - margin, s.stop - 0.5 + margin) for s in slices)
    x, y = np.reshape(places, (-1, 2)).T
    return np.flatnonzero((x >= low_x) & (x < high_x) & (y >= low_y) & (y < high_y))


def _row(row, corner):
    """A row of a window's catalog as plain numbers in the image's pixels."""
    out = {name: _number(row[name]) for name in row.colnames if not name.startswith("flux_") and name not in _SKY}
    out["x"], out["y"] = out["x"] + float(corner[0]), out["y"] + float(corner[1])
    for axis, first in zip("xy", corner, strict=True):
        for end in ("min", "max"):
            out[f"bbox_{axis}{end}"] += int(first)
    errors = [name for name in row.colnames if name.startswith("flux_err_")]
    out["flux_err"] = [_number(row[name]) for name in errors]
    out["flux"] = [_number(row["flux_" + name.removeprefix("flux_err_")]) for name in errors]
    return out


_SKY = ("ra", "dec")


def _number(value):
    value = getattr(value, "value", value)
    return value.item() if hasattr(value, "item") else value


# ---- windows together ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Whole:
    """The sources of all windows, each once, and what becomes of each window's labels."""

    rows: list
    tables: list

    @classmethod
    def of(cls, records, cells, shape, positions):
        chosen = _chosen(records, cells, shape) if positions is None else _by_number(records, cells, shape)
        number = {key: i + 1 for i, key in enumerate(chosen)}
        rows = [records[n]["rows"][i] | {"id": number[n, i]} for n, i in chosen]
        tables = [_table(record, rows, positions is not None) for record in records]
        return cls(rows, tables)

    def relabelled(self, number, labels):
        """A window's own labels, which are negative, as those of the catalog; what is positive is done already."""
        table = self.tables[number]
        return np.where(labels < 0, table[np.maximum(-labels, 0)], labels).astype(np.int32)


def _table(record, rows, by_number):
    """The catalog's label for each of a window's own; 0 for a source that only this window sees."""
    from scipy.spatial import cKDTree

    known = {int(key): value for key, value in record["labels"].items()}
    table = np.zeros(max(known, default=0) + 1, np.int32)
    if by_number:
        ids = {row["given"][2]: row["id"] for row in rows}
        for label, (_, _, index) in known.items():
            table[label] = ids.get(index, 0)
    elif rows and known:
        tree = cKDTree([row["given"][:2] for row in rows])
        distance, nearest = tree.query([place[:2] for place in known.values()])
        for label, far, i in zip(known, distance, nearest, strict=True):
            table[label] = rows[i]["id"] if far <= _SAME else 0
    return table


def _depth(place, cell, shape):
    """Pixels from a position to the nearest border with another part; negative outside."""
    edges = []
    for value, part, size in zip(place[1::-1], cell.core, shape, strict=True):
        edges.append(np.inf if part.start == 0 else value - (part.start - 0.5))
        edges.append(np.inf if part.stop == size else (part.stop - 0.5) - value)
    return min(edges)


def _chosen(records, cells, shape):
    """(window, row) of each source, once; those that two windows see on different sides of a border included."""
    from scipy.spatial import cKDTree

    rows = [(n, i) for n, record in enumerate(records) for i in range(len(record["rows"]))]
    if not rows:
        return []
    places = np.array([records[n]["rows"][i]["given"][:2] for n, i in rows])
    depth = np.array([_depth(place, cells[n], shape) for place, (n, _) in zip(places, rows, strict=True)])
    rivals = [[] for _ in rows]
    for a, b in cKDTree(places).query_pairs(_SAME, output_type="ndarray"):
        if rows[a][0] != rows[b][0]:
            rivals[a].append(b)
            rivals[b].append(a)
    kept = np.zeros(len(rows), bool)
    taken = np.zeros(len(rows), bool)
    # Who sees a source deepest inside its own part has it. One that nobody sees inside, but two do see, is taken, too.
    for k in sorted(range(len(rows)), key=lambda k: (-depth[k], rows[k])):
        if not taken[k] and (depth[k] >= 0 or rivals[k]):
            kept[k] = True
            taken[rivals[k]] = True
    return [row for row, keep in zip(rows, kept, strict=True) if keep]


def _by_number(records, cells, shape):
    """(window, row) of each position that was given, in their order."""
    found = {}
    for n, record in enumerate(records):
        for i, row in enumerate(record["rows"]):
            if _depth(row["given"], cells[n], shape) >= 0:
                found.setdefault(row["given"][2], (n, i))
    return [found[index] for index in sorted(found)]


def _info(records):
    """What the windows note, as one."""
    info = {}
    for record in records:
        for key, value in record["info"].items():
            if key == "failed_blends":
                info[key] = info.get(key, 0) + value
            elif key == "largest_blend":
                info[key] = max(info.get(key, 0), value)
            elif key != "blends":  # those in an overlap would count twice
                info.setdefault(key, value)
    return info


# ---- files ---------------------------------------------------------------------------------------------------------


def _folder(output, table, overwrite):
    """The folder, and whether what is in it may be replaced."""
    if table not in ("ecsv", "fits"):
        raise InputError(f"table={table!r} must be 'ecsv' or 'fits'")
    folder = Path(os.path.abspath(os.path.expanduser(output)))
    if folder.exists() and not folder.is_dir():
        raise ImageWriteError(f"output={str(output)!r} is a file; name a folder, for several files are written")
    if not folder.parent.is_dir():
        raise ImageWriteError(f"output={str(output)!r}: there is no folder {str(folder.parent)!r}; create it first")
    names = [name for name in ("residual.fits", "segmentation.fits", f"catalog.{table}") if (folder / name).exists()]
    # The labels are given their name last: without them the others are those of a run that was killed at the very end.
    unfinished = "segmentation.fits" not in names and (folder / "segmentation.fits.partial").is_dir()
    if names and not (overwrite or unfinished):
        raise ImageWriteError(
            f"output={str(output)!r} holds {names[0]}; give overwrite=True (--overwrite) to replace it, or name another"
        )
    return folder, overwrite or unfinished


def _templates(deblender, prepared, seed, info, counts=None):
    """Small images with the layers and headers of the residual and of the segmentation."""
    from astropy.nddata import CCDData

    small = little_like(prepared, counts or {})
    data = small.observation.data
    residual = to_ccd(
        small,
        data,
        variance=np.ones_like(data) if prepared.had_uncertainty else None,
        mask=np.ones(data.shape, bool),
        operation=deblender.operation,
        notes=deblender._noted(seed, info, prepared.observation),
    )
    labels = np.zeros(data.shape[1:], np.int32)
    return residual, CCDData(labels, unit="", wcs=prepared.celestial, meta=residual.meta.copy())


def _with_psfs(blocks, cells, psf):
    """Blocks with the PSF in the middle of each window, where it varies."""
    for block in blocks:
        varies = psf is not None and psf.varies
        yield Block(block.pieces, {n: psf.at(*cells[n].center) for n in block.pieces} if varies else None)


def _seen(prepared):
    return prepared.observation.data, prepared.observation.psf
