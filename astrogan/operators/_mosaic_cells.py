"""Fixed cells of an output grid, on which the operators work that draw noise or change the grid.

The cells depend on nothing but the output's shape and the method, so that a cell's result, noise included, is the same
to the last bit wherever and whenever it is made. How many of them a worker is given at a time is another matter.
"""

from __future__ import annotations

import copy
import hashlib
import numbers
import pickle
from itertools import product
from pathlib import Path

import numpy as np

from astrogan.mosaic import Block, MosaicFile, run_blocks

__all__ = [
    "WINDOW",
    "as_sent",
    "blocks_of",
    "cell_rng",
    "described",
    "digest_of",
    "in_one_piece",
    "in_window",
    "little_like",
    "process_cells",
    "settled_levels",
]

WINDOW = 2048
"""Edge in pixels of what a worker is given at a time, where the context of each window is worked through again."""
_PATCH = 128
"""Edge of the squares of white noise that have a seed each."""

_BEFORE_ZERO = 2**20
"""Of a square's number, so that those of squares before the image's first pixel are positive."""


# ---- work ----------------------------------------------------------------------------------------------------------


def process_cells(
    operator,
    task,
    cells,
    output,
    template,
    shape_yx,
    description,
    *,
    edge,
    workers=None,
    client=None,
    overwrite=False,
    resume=True,
    progress=None,
):
    """Work through the cells of an output, and write it.

    Parameters
    ----------
    operator : `~astrogan.operators.base.Operator`
    task : callable
        ``task(block) -> list of Piece``; a block's ``pieces`` are numbers of cells.
    cells : sequence of `~astrogan.image.tiling.Tile`
    output : path
    template : callable
        ``template(records)``: a small image with the layers and headers of the result.
    shape_yx : tuple of int
        Of the output.
    description : dict
        See `~astrogan.mosaic.MosaicFile`.
    edge : int
        Of the square of cells that a worker is given at a time, in pixels of the output.
    workers, client, overwrite, resume, progress
        As for `astrogan.Restorer.process`.

    Returns
    -------
    `pathlib.Path`
    """
    description = description | {"cells": [list(shape_yx), len(cells), str(cells[0])]}
    with MosaicFile(output, template([]), shape_yx, description, overwrite=overwrite, resume=resume) as file:

        def put(piece):
            file.put(piece.number, piece.windows, piece.record)
            report()

        def report():
            if progress is not None:
                progress(len(file.done), len(cells))

        report()
        operator._run(run_blocks, task, blocks_of(cells, set(file.done), edge), put, workers=workers, client=client)
        return file.finish(template([file.done[i] for i in sorted(file.done)]))


def described(operator, source, seed, reading, **more):
    """What makes a result, for `~astrogan.mosaic.MosaicFile`; options come with what is settled, by their content."""
    return {
        "input": source.fingerprint(),
        "method": {key: value for key, value in operator._notes(seed).items() if key != "AGOPTS"},
        "reading": {key: str(value) for key, value in sorted(reading.items())},
        **more,
    }


def blocks_of(cells, done, edge):
    """Neighbouring cells together, as many as cover a square of that edge."""
    size = cells[0].core[0].stop, cells[0].core[1].stop
    groups = {}
    for number, cell in enumerate(cells):
        # By cells, not pixels: where an edge is hardly more than a cell's every cell would be a block else.
        place = (round(axis.start / n) // max(1, round(edge / n)) for axis, n in zip(cell.core, size, strict=True))
        groups.setdefault(tuple(place), []).append(number)
    for members in groups.values():
        left = tuple(number for number in members if number not in done)
        if left:
            yield Block(left)


def as_sent(wcs):
    """A WCS as another process gets it: to twelve digits, so that threads have to make do with those, too."""
    return pickle.loads(pickle.dumps(wcs))  # noqa: S301 - made here


def little_like(prepared, counts):
    """An image of a few pixels with everything else of a large one, and its counts of pixels.

    Its shape is none that a PSF has, so that the two are told apart in the file.
    """
    notes = {key: value for key, value in prepared.notes.items() if key not in ("AGNBAD", "AGNSAT")}
    data = np.zeros((len(prepared.observation.data), 2, 3), np.float32)
    observation = prepared.observation.replace(data=data, valid=np.ones(data.shape, bool), variance=None)
    return prepared.replace(notes=notes | counts, observation=observation)


def in_one_piece(operator, source, output, psf, seed, overwrite):
    """A call, for methods that need the whole image, from file to file."""
    from astrogan.image.write import write_image

    image = source.window(*(slice(0, n) for n in source.shape[1:]))
    write_image(operator(image, psf=psf, rng=seed, **source.later), output, overwrite=overwrite)
    return Path(output)


# ---- random numbers ------------------------------------------------------------------------------------------------


def cell_rng(seed, cells, number):
    """The generator of a cell; that of a call where there is only one."""
    if len(cells) == 1:
        return np.random.default_rng(seed)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, number)))


def settled_levels(backend, bands, seed):
    """A degrader whose noise has one level for the whole image, where it would draw one for each that it sees."""
    noise = getattr(backend, "noise", None)
    open_level = all(getattr(backend, name, 0) is None for name in ("sigma", "noise_factor"))
    if not (open_level and hasattr(noise, "draw_sigma")):
        return backend
    backend = copy.copy(backend)
    backend.sigma = np.asarray(noise.draw_sigma(bands, np.random.default_rng(seed)), float) / backend.noise_unit
    return backend


def in_window(noise, seed, y, x, shape_yx):
    """A noise backend for one window of a field, such that windows agree where they overlap.

    That is so where the backend shapes white noise which it draws with its method ``white(shape, rng)``: the white
    noise then belongs to places, and has a seed for each square of 128 x 128 pixels. Other backends are as they were.

    Parameters
    ----------
    noise : noise backend
    seed : int
    y, x : int
        First pixel of the window.
    shape_yx : tuple of int
        Of the window.

    Returns
    -------
    noise backend
    """
    if hasattr(noise, "models"):  # one a band
        out = copy.copy(noise)
        out.models = [in_window(model, [seed, band], y, x, shape_yx) for band, model in enumerate(noise.models)]
        return out
    if not hasattr(noise, "white"):
        return noise
    out = copy.copy(noise)
    # In place of the method of the class. One that asks for more than the window gets as much more on all sides.

    def white(shape, rng):
        start = [first - (n - size) // 2 for first, n, size in zip((y, x), shape[1:], shape_yx, strict=True)]
        return _white(noise, seed, start, shape)

    out.white = white
    return out


def _white(noise, seed, start, shape):
    """White noise (band, y, x) whose first pixel lies at ``start`` of the field."""
    out = np.empty(shape, np.float32)
    ranges = [range(a // _PATCH, (a + n - 1) // _PATCH + 1) for a, n in zip(start, shape[1:], strict=True)]
    for place in product(*ranges):
        key = (1, *(index + _BEFORE_ZERO for index in place))
        rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=key)))
        square = noise.white((shape[0], _PATCH, _PATCH), rng)
        to, of = zip(*(_overlap(i, a, n) for i, a, n in zip(place, start, shape[1:], strict=True)), strict=True)
        out[:, *to] = square[:, *of]
    return out


def _overlap(index, start, size):
    """Slices of the field's part and of the square that show the same pixels."""
    first = index * _PATCH
    low, high = max(first, start), min(first + _PATCH, start + size)
    return slice(low - start, high - start), slice(low - first, high - first)


# ---- what makes a result -------------------------------------------------------------------------------------------


def digest_of(*values):
    """SHA-256 of numbers, texts, arrays, and objects made of such."""
    digest = hashlib.sha256()
    _feed(digest, values, 0)
    return digest.hexdigest()


def _feed(digest, value, depth):
    if depth > 8:
        return
    if isinstance(value, np.ndarray):
        digest.update(
            repr((type(value).__name__, value.shape, str(value.dtype), str(getattr(value, "unit", "")))).encode()
        )
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _feed(digest, value[key], depth + 1)
    elif isinstance(value, list | tuple):
        digest.update(f"[{len(value)}".encode())
        for each in value:
            _feed(digest, each, depth + 1)
    elif hasattr(value, "to_header_string"):
        digest.update(value.to_header_string(relax=True).encode())
    elif value is None or isinstance(value, str | bytes | bool | numbers.Number | np.generic):
        digest.update(repr(value).encode())
    else:
        # Of functions and the like only the kind: their text holds an address.
        digest.update(type(value).__qualname__.encode())
        _feed(digest, getattr(value, "__dict__", {}), depth + 1)
