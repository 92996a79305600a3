"""Work on a mosaic handed out: to threads, to the processes of an executor, or to the workers of a dask cluster."""

from __future__ import annotations

import functools
import hashlib
import numbers
import pickle
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from astrogan.exceptions import InputError
from astrogan.image.tiling import available_cores, single_torch_thread

__all__ = ["Block", "Piece", "checked_seed", "run_blocks"]


@dataclass(frozen=True)
class Block:
    """What one worker is given at a time: pieces that are read in one window.

    Attributes
    ----------
    pieces : tuple
        Their numbers.
    extra : object
        What else the task needs of it.
    """

    pieces: tuple[int, ...]
    extra: Any = None


@dataclass(frozen=True)
class Piece:
    """What comes back: finished windows, and what the journal keeps of them.

    Attributes
    ----------
    number : int
    windows : list of tuple
        (layer, y, x, array), for `MosaicFile.put`.
    record : dict
    """

    number: int
    windows: list
    record: dict = field(default_factory=dict)


def run_blocks(
    task: Callable[[Block], list[Piece]],
    blocks: Iterable[Block],
    put: Callable[[Piece], None],
    *,
    workers: int | None = None,
    client=None,
) -> None:
    """Work through blocks, and hand over each piece as it is done.

    Not more blocks are under way than keep the workers busy, so that memory does not grow with their number. What is
    handed over is done by the calling thread, one piece at a time.

    Parameters
    ----------
    task : callable
        ``task(block)``; for other processes it has to be something that can be pickled.
    blocks : iterable of `Block`
    put : callable
        ``put(piece)``.
    workers : int, optional
        Threads; default: one for each core that the process may use. Not used with a client.
    client : `distributed.Client` or `concurrent.futures.Executor`, optional
        Who does the work instead. Of dask, a worker that dies has its blocks done by another.

    Raises
    ------
    InputError
        If ``client`` is neither.
    """
    if client is None:
        with ThreadPoolExecutor(workers or available_cores(), thread_name_prefix="astrogan-mosaic") as pool:
            _drive(pool, functools.partial(_alone, task), blocks, put, 2 * (workers or available_cores()))
        return
    if isinstance(client, Executor):
        # Every block brings the task with it; a worker unpacks it, and its network's weights, once.
        packed = pickle.dumps(task)
        call = functools.partial(_unpacked, packed, hashlib.sha256(packed).hexdigest())
        _drive(client, call, blocks, put, 2 * (getattr(client, "_max_workers", None) or available_cores()))
        return
    if not hasattr(client, "get_executor"):
        raise InputError(
            f"client={client!r} must be a dask.distributed.Client or a concurrent.futures.Executor, or None for threads"
        )
    handle = client.scatter(task, broadcast=True, hash=False)
    threads = max(1, sum(client.nthreads().values()))
    executor = client.get_executor(pure=False, retries=3)
    _drive(executor, _alone, blocks, put, 2 * threads, first=(handle,))


def checked_seed(rng):
    """A seed that can be written down, and be the same tomorrow.

    Parameters
    ----------
    rng : int

    Returns
    -------
    int

    Raises
    ------
    InputError
        If it is anything else, a generator included.
    """
    if isinstance(rng, numbers.Integral) and not isinstance(rng, bool) and rng >= 0:
        return int(rng)
    raise InputError(f"rng={rng!r} must be a non-negative integer here: a run may be resumed, and has to go on alike")


def _drive(executor, call, blocks, put, most, first=()):
    waiting, blocks = set(), iter(blocks)
    try:
        while True:
            while len(waiting) < most and (block := next(blocks, None)) is not None:
                waiting.add(executor.submit(call, *first, block))
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                for piece in future.result():
                    put(piece)
    finally:
        # On an error or an interrupt the blocks not yet begun are dropped.
        for future in waiting:
            future.cancel()


def _alone(task, block):
    """One block, with one thread to it: the blocks share the cores."""
    with single_torch_thread():
        return task(block)


def _unpacked(packed, digest, block):
    return _alone(_task(digest, _Bytes(packed)), block)


class _Bytes:
    """Bytes that are alike for the cache below, which goes by their digest."""

    def __init__(self, content):
        self.content = content

    def __eq__(self, other):
        return isinstance(other, _Bytes)

    def __hash__(self):
        return 0


@functools.lru_cache(maxsize=2)
def _task(digest, packed):
    return pickle.loads(packed.content)  # noqa: S301 - from the parent process, through its own pipe
