"""The tile engine: any restorer backend on an image of any size, in little memory, one worker a core.

An image is cut into *cores* that cover it exactly once. A backend sees each core with a *halo* of context around it,
clipped at the image's border, and only the core of what it returns is kept. With a halo as wide as the method's reach
the result does not show where the cuts were.

A backend may do more than the plain call; `run_tiled` looks for these optional attributes:

``halo_for(observation) -> int``
    The halo for this image, used instead of ``halo``; -1 asks for the whole image at once.
``tile_size``
    Outer edge of a tile, halo included, at which the method is quickest (512).
``tile_align`` (a number, or a method of the observation that gives one)
    Tiles begin and, inside the image, end at multiples of it: for methods that work on coarser grids.
``for_image(observation) -> backend``
    A backend with everything settled that belongs to the whole image (its sky level, say), so that no tile decides
    such a thing by itself.
``tiles_per_call`` and ``call_tiles(observations, *, cuts, rngs) -> list of Estimate``
    Several tiles in one call, for methods that gain by it. ``cuts`` holds, for each tile, ``((y0, y1), (x0, x1))``:
    True where the image goes on beyond that side, False where the tile ends with the image.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from numbers import Integral

import numpy as np

from astrogan.api import Estimate, Observation
from astrogan.exceptions import AstroganError, BackendError, InputError

__all__ = ["Tile", "TileWork", "available_cores", "plan_tiles", "plan_work", "run_tiled", "single_torch_thread"]

DEFAULT_TILE = 512


@dataclass(frozen=True)
class Tile:
    """One tile of an image; each field is a pair of slices (y, x).

    Parameters
    ----------
    core : tuple of slice
        What the tile answers for, in the image.
    outer : tuple of slice
        The core with its halo, clipped at the image's border, in the image.
    inner : tuple of slice
        The core inside ``outer``.
    """

    core: tuple[slice, slice]
    outer: tuple[slice, slice]
    inner: tuple[slice, slice]

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) of the core's centre, 0-based, pixel centres at integers."""
        y, x = self.core
        return 0.5 * (x.start + x.stop - 1), 0.5 * (y.start + y.stop - 1)

    def cuts(self, shape_yx) -> tuple[tuple[bool, bool], tuple[bool, bool]]:
        """``((y0, y1), (x0, x1))``: True for each side at which the image goes on beyond the tile."""
        y, x = ((s.start > 0, s.stop < size) for s, size in zip(self.outer, shape_yx, strict=True))
        return y, x


def _axis_tiles(size: int, tile: int, halo: int, align: int) -> list[tuple[slice, slice, slice]]:
    """(core, outer, inner) along one axis; the cores differ by one pixel at most, so there is no sliver at the end."""
    # A core narrower than two halos would spend most of the work on context, so a wide halo widens the tile.
    core = max(tile - 2 * halo, 2 * halo, 1)
    n = 1 if halo < 0 or size <= tile else math.ceil(size / core)
    if n > 2:
        # One tile fewer, slightly wider, where that spares much context.
        narrow, wide = (math.ceil(size / k) + 2 * halo for k in (n, n - 1))
        n -= int(wide <= 1.1 * tile and (n - 1) * wide < 0.96 * n * narrow)
    edges = [(i * size) // n for i in range(n + 1)]
    tiles = []
    for start, stop in pairwise(edges):
        low, high = (0, size) if n == 1 else (max(start - halo, 0), min(stop + halo, size))
        low, high = low - low % align, min(high + -high % align, size)
        tiles.append((slice(start, stop), slice(low, high), slice(start - low, stop - low)))
    return tiles


def plan_tiles(shape_yx, tile, halo, align=1) -> list[Tile]:
    """Cut an image into tiles whose cores cover it exactly once.

    Parameters
    ----------
    shape_yx : tuple of int
        Shape (y, x) of the image.
    tile : int or tuple of int
        Wanted outer edge of a tile in pixels, halo included; a pair gives (y, x). The cores are made equal to within
        a pixel, which may widen a tile by a tenth, and at least two halos wide.
    halo : int
        Pixels of context on each side of a core; -1 asks for one tile, the whole image.
    align : int, optional
        Tiles with their halos begin and, inside the image, end at multiples of it; halos grow by less than it.

    Returns
    -------
    list of Tile
        In row-major order.

    Raises
    ------
    `~astrogan.exceptions.InputError`
        If a number is not a positive integer (``halo``: not an integer of at least -1).

    Examples
    --------
    >>> from astrogan.image.tiling import plan_tiles
    >>> tiles = plan_tiles((100, 1000), tile=320, halo=32)
    >>> [(t.core[1].start, t.core[1].stop) for t in tiles]
    [(0, 250), (250, 500), (500, 750), (750, 1000)]
    """
    pair = (tile, tile) if isinstance(tile, Integral) else tuple(tile)
    for name, values in (("shape_yx", tuple(shape_yx)), ("tile", pair)):
        if len(values) != 2 or not all(isinstance(v, Integral) and v > 0 for v in values):
            raise InputError(f"{name}={values!r} must hold two positive integers (y, x), e.g. (512, 512)")
    if not isinstance(halo, Integral) or halo < -1:
        raise InputError(f"halo={halo!r} must be a number of pixels, or -1 for the whole image")
    if not isinstance(align, Integral) or align < 1:
        raise InputError(f"align={align!r} must be a positive number of pixels")
    axes = [_axis_tiles(int(n), int(t), int(halo), int(align)) for n, t in zip(shape_yx, pair, strict=True)]
    return [Tile(*zip(y, x, strict=True)) for y, x in product(*axes)]


def available_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_torch_threads_lock = threading.Lock()


def use_one_torch_thread() -> int:
    """Let torch use one thread for what the calling thread does from here on; returns how many it used before.

    ``torch.set_num_threads`` sets the calling thread's count and, at the same time, the count that threads get when
    they first use torch. Only the former is wanted, so a throwaway thread puts the latter back at once.
    """
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "set_num_threads"):
        return 1
    with _torch_threads_lock:
        before = torch.get_num_threads()
        if before != 1:
            torch.set_num_threads(1)
            restore = threading.Thread(target=torch.set_num_threads, args=(before,))
            restore.start()
            restore.join()
    return before


@contextmanager
def single_torch_thread() -> Iterator[None]:
    """Let torch use one thread for what the calling thread does inside; nothing where torch is not loaded."""
    before = use_one_torch_thread()
    try:
        yield
    finally:
        if before != 1:
            with _torch_threads_lock:
                sys.modules["torch"].set_num_threads(before)


def run_tiled(
    backend,
    observation: Observation,
    *,
    rng: np.random.Generator,
    tile: int | None = None,
    workers: int | None = None,
    psf_at: Callable[[float, float], np.ndarray] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Estimate:
    """Run a restorer backend over an image, by tiles where the method allows it.

    Parameters
    ----------
    backend : `~astrogan.api.RestorerBackend`
        What to run. Its ``halo_for(observation)`` or ``halo`` says how much context a pixel needs.
    observation : `~astrogan.api.Observation`
        The image.
    rng : `numpy.random.Generator`
        Source of randomness. Every tile gets a generator of its own, keyed by the tile's index.
    tile : int, optional
        Outer edge of a tile in pixels, halo included. Default: the backend's ``tile_size``, or 512.
    workers : int, optional
        Threads that work on tiles. Default: one for each core that the process may use. The result does not depend
        on it.
    psf_at : callable, optional
        ``psf_at(x, y)`` gives the PSF (band, k, k) at a pixel position, for a PSF that varies over the field; a tile
        uses that of its centre.
    progress : callable, optional
        ``progress(done, total)``, called from the calling thread as tiles are finished.

    Returns
    -------
    `~astrogan.api.Estimate`
        float32 arrays of the observation's shape. ``info`` holds what the tiles agree on; numbers on which they
        differ are averaged, and of differing texts the first is kept.

    Raises
    ------
    `~astrogan.exceptions.BackendError`
        If the backend fails, or returns something of a wrong shape or type or that is not finite; the message names
        it.
    `~astrogan.exceptions.InputError`
        If ``tile`` or ``workers`` is not a positive integer.
    """
    for name, value in (("tile", tile), ("workers", workers)):
        if value is not None and (not isinstance(value, Integral) or value < 1):
            raise InputError(f"{name}={value!r} must be a positive integer or None")
    plan = plan_work(backend, observation, rng=rng, tile=tile)
    if plan.in_one_piece:
        if psf_at is not None:
            observation = observation.replace(psf=psf_at(*plan.tiles[0].center))
        estimate = _checked(plan.label, _guarded(plan.label, plan.backend, observation, rng=rng), observation.shape)
        if progress is not None:
            progress(1, 1)
        return estimate
    return _Job(plan, observation, psf_at).run(workers or available_cores(), progress)


def plan_work(backend, observation: Observation, *, rng: np.random.Generator, tile=None, shape_yx=None) -> TileWork:
    """Settle what belongs to a whole image, and cut the image into tiles.

    Parameters
    ----------
    backend : `~astrogan.api.RestorerBackend`
    observation : `~astrogan.api.Observation`
        The image, or, where ``shape_yx`` is given, a part of a larger one that stands for the whole.
    rng : `numpy.random.Generator`
        Gives the seed of the tiles' generators. It is not touched where there is one tile only.
    tile : int, optional
        As in `run_tiled`.
    shape_yx : tuple of int, optional
        Shape of the larger image.

    Returns
    -------
    `TileWork`

    Raises
    ------
    `~astrogan.exceptions.BackendError`
        If the backend fails to settle, or its halo or alignment is no number of pixels.
    """
    label = _label(backend)
    if hasattr(backend, "for_image"):
        backend = _guarded(label, backend.for_image, observation)
    shape = (len(observation.data), *(shape_yx or observation.shape[1:]))
    tiles = plan_tiles(
        shape[1:],
        tile or getattr(backend, "tile_size", DEFAULT_TILE),
        _halo(label, backend, observation),
        _align(label, backend, observation),
    )
    return TileWork(label, backend, shape, tuple(tiles), int(rng.integers(2**63)) if len(tiles) > 1 else 0)


@dataclass(frozen=True)
class TileWork:
    """The tiles of one image, and the method with everything settled that belongs to the whole of it.

    Tiles are worked on in `groups`, which depend on nothing but the image's shape and the method: a group's result is
    the same to the last bit wherever and whenever it is made.

    Parameters
    ----------
    label : str
        The backend, for error messages.
    backend : object
        Settled.
    shape : tuple of int
        (band, y, x) of the image.
    tiles : tuple of `Tile`
        Row by row.
    seed : int
        Of the tiles' generators.
    """

    label: str
    backend: object
    shape: tuple[int, int, int]
    tiles: tuple[Tile, ...]
    seed: int

    @property
    def in_one_piece(self) -> bool:
        """Whether there is one tile only, the whole image."""
        return len(self.tiles) == 1

    @cached_property
    def groups(self) -> list[range]:
        """Indices of the tiles that the backend is given in one call; none runs over the end of a row of tiles."""
        batch = int(getattr(self.backend, "tiles_per_call", 1)) if hasattr(self.backend, "call_tiles") else 1
        columns = sum(tile.core[0] == self.tiles[0].core[0] for tile in self.tiles)
        rows = range(0, len(self.tiles), columns)
        return [range(i, min(i + batch, row + columns)) for row in rows for i in range(row, row + columns, batch)]

    def estimates(self, group: range, observations: list[Observation]) -> list[Estimate]:
        """Call the backend on a group of tiles, in a thread that is the caller's own.

        Parameters
        ----------
        group : range
            One of `groups`.
        observations : list of `~astrogan.api.Observation`
            Each tile with its halo (``tile.outer``).

        Returns
        -------
        list of `~astrogan.api.Estimate`
            Of the shapes of the observations; arrays are float32 and bool.

        Raises
        ------
        `~astrogan.exceptions.BackendError`
            If the backend fails or breaks its contract.
        """
        rngs = [np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(i,))) for i in group]
        if hasattr(self.backend, "call_tiles"):
            cuts = [self.tiles[i].cuts(self.shape[1:]) for i in group]
            estimates = _guarded(self.label, self.backend.call_tiles, observations, cuts=cuts, rngs=rngs)
        else:
            pairs = zip(observations, rngs, strict=True)
            estimates = [_guarded(self.label, self.backend, each, rng=rng) for each, rng in pairs]
        if len(estimates) != len(group):
            raise BackendError(f"{self.label} returned {len(estimates)} estimates for {len(group)} tiles")
        pairs = zip(estimates, observations, strict=True)
        return [_checked(self.label, estimate, observation.shape) for estimate, observation in pairs]


class _Job:
    """One image being worked on: the tiles, the output they are written to, and the calls that fill it."""

    def __init__(self, work: TileWork, observation, psf_at):
        self.work = work
        self.observation = observation
        self.psf_at = psf_at
        self.data = np.empty(observation.shape, np.float32)
        self.optional: dict[str, np.ndarray | None] = {}
        self.lock = threading.Lock()

    def run(self, workers: int, progress) -> Estimate:
        total = len(self.work.tiles)
        groups = self.work.groups
        infos: list[dict] = [{}] * total
        done = 0
        pool = ThreadPoolExecutor(min(workers, len(groups)), thread_name_prefix="astrogan-tile")
        try:
            futures = {pool.submit(self._do, group): group for group in groups}
            for future in as_completed(futures):
                for index, info in zip(futures[future], future.result(), strict=True):
                    infos[index] = info
                    done += 1
                if progress is not None:
                    progress(done, total)
        finally:
            # On an error or an interrupt the tiles not yet begun are dropped.
            pool.shutdown(cancel_futures=True)
        optional = {name: self.optional.get(name) for name in ("variance", "flags")}
        return Estimate(self.data, **optional, info=merged_info(infos))

    def _do(self, group: range) -> list[dict]:
        tiles = [self.work.tiles[i] for i in group]
        use_one_torch_thread()  # this thread is the pool's own, and gone with it
        estimates = self.work.estimates(group, [self._crop(tile) for tile in tiles])
        for tile, estimate in zip(tiles, estimates, strict=True):
            self._write(tile, estimate)
        return [dict(estimate.info) for estimate in estimates]

    def _crop(self, tile: Tile) -> Observation:
        psf = None if self.psf_at is None else self.psf_at(*tile.center)
        return self.observation.crop(*tile.outer, psf=psf)

    def _write(self, tile: Tile, estimate: Estimate) -> None:
        self.data[:, *tile.core] = estimate.data[:, *tile.inner]
        for name, dtype in (("variance", np.float32), ("flags", bool)):
            part = getattr(estimate, name)
            with self.lock:
                if name not in self.optional:
                    self.optional[name] = None if part is None else np.empty(self.observation.shape, dtype)
                whole = self.optional[name]
            if (whole is None) != (part is None):
                raise BackendError(f"{self.work.label} returned {name} for some tiles and not for others")
            if whole is not None:
                whole[:, *tile.core] = part[:, *tile.inner]


def _label(backend) -> str:
    return f"backend {getattr(backend, 'name', None) or type(backend).__name__!r}"


def _guarded(label: str, function, *args, **kwargs):
    """Call a part of a backend; what it raises by accident comes back as a `BackendError` that names it."""
    try:
        return function(*args, **kwargs)
    except (AstroganError, MemoryError):
        raise
    except Exception as error:
        raise BackendError(f"{label} failed: {type(error).__name__}: {error}") from error


def _align(label: str, backend, observation: Observation) -> int:
    align = getattr(backend, "tile_align", 1)
    align = _guarded(label, align, observation) if callable(align) else align
    if not isinstance(align, Integral) or align < 1:
        raise BackendError(f"{label} has tile_align {align!r}; it must be a positive number of pixels")
    return int(align)


def _halo(label: str, backend, observation: Observation) -> int:
    if hasattr(backend, "halo_for"):
        halo = _guarded(label, backend.halo_for, observation)
    else:
        halo = getattr(backend, "halo", None)
    if not isinstance(halo, Integral) or halo < -1:
        raise BackendError(f"{label} has halo {halo!r}; it must be a number of pixels, or -1 for the whole image")
    return int(halo)


def _checked(label: str, estimate, shape) -> Estimate:
    """The estimate as float32 and bool arrays, once it is what the contract asks for."""
    if not isinstance(estimate, Estimate):
        raise BackendError(f"{label} returned {type(estimate).__name__}; it must return an astrogan.api.Estimate")
    arrays = {}
    for name, kinds, dtype in (("data", "f", np.float32), ("variance", "f", np.float32), ("flags", "b", bool)):
        array = getattr(estimate, name)
        if array is None and name != "data":
            arrays[name] = None
            continue
        array = np.asarray(array)
        if array.shape != tuple(shape):
            raise BackendError(f"{label} returned {name} of shape {array.shape} for an image of {tuple(shape)}")
        if array.dtype.kind not in kinds:
            raise BackendError(f"{label} returned {name} of type {array.dtype}; it must be {np.dtype(dtype)}")
        if name == "data" and not np.isfinite(array).all():
            raise BackendError(f"{label} returned {int((~np.isfinite(array)).sum())} pixels that are not finite")
        if name == "variance" and not (array >= 0).all():
            raise BackendError(f"{label} returned variance that is negative or NaN")
        arrays[name] = np.ascontiguousarray(array, dtype)
    return Estimate(**arrays, info=dict(estimate.info))


def merged_info(infos: list[dict]) -> dict:
    """One ``info`` from those of the tiles, in the order in which keys first appear."""
    merged = {}
    for key in dict.fromkeys(key for info in infos for key in info):
        values = [info[key] for info in infos if key in info]
        numbers = all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in values)
        if numbers and any(v != values[0] for v in values):
            merged[key] = float(np.mean([float(v) for v in values]))
        else:
            merged[key] = values[0]
    return merged
