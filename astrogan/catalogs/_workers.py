"""Who works on the chunks: this process, processes of its own, or a pool of the user's."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ProcessPoolExecutor, wait

from astrogan.exceptions import InputError

__all__ = ["as_executor", "died", "in_processes", "in_this_process", "on_executor", "packed"]

_JOBS = {}


def packed(work):
    """What a worker does, as bytes, and the name by which it keeps it."""
    try:
        blob = pickle.dumps(work)
    except Exception as error:
        raise InputError(
            f"the operator cannot be sent to worker processes ({type(error).__name__}: {error}); give workers=1"
        ) from error
    return hashlib.sha256(blob).hexdigest(), blob


def in_this_process(work, chunks):
    """(chunk, record) one after the other; ``chunks`` holds the rows by number."""
    for chunk, rows in chunks.items():
        yield chunk, work.chunk(chunk, rows)


def in_processes(work, chunks, workers):
    """(chunk, record) as processes finish them; a process that is killed costs nothing but its time.

    Each process is a pool of one, so that it is known which chunk one was at when it died. Its chunk is tried in a new
    process. Where that dies as well, the rows of the chunk are worked on one by one, and a row at which the process
    dies again is flagged.
    """
    job = packed(work)
    pending, deaths, running = deque(chunks), {}, {}
    slots = [_Process(*job) for _ in range(min(workers, len(pending)))]
    free = deque(slots)
    try:
        if slots:
            slots[0].check()
        while pending or running:
            while pending and free:
                slot, chunk = free.popleft(), pending.popleft()
                running[slot.submit(_chunk, job[0], None, chunk, chunks[chunk])] = slot, chunk
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                slot, chunk = running.pop(future)
                try:
                    record = future.result()
                except BrokenExecutor:
                    slot.renew()
                    deaths[chunk] = deaths.get(chunk, 0) + 1
                    if deaths[chunk] < 2:
                        pending.appendleft(chunk)
                        free.append(slot)
                        continue
                    record = work.written(chunk, chunks[chunk], [_alone(slot, job, row) for row in chunks[chunk]])
                free.append(slot)
                yield chunk, record
    finally:
        for slot in slots:
            slot.close()


def _alone(slot, job, row):
    """One row in a process of its own; `None` where that dies."""
    try:
        return slot.submit(_row, job[0], None, row).result()
    except BrokenExecutor:
        slot.renew()
        return None


class _Process:
    """A pool of one process."""

    def __init__(self, name, blob):
        self._pool, self._job = None, (name, blob)

    def submit(self, function, *arguments):
        if self._pool is None:
            # A process that is forked may inherit locks that threads of torch hold; one that is spawned has none.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=self._job)
        try:
            return self._pool.submit(function, *arguments)
        except BrokenExecutor:  # it died while it had nothing to do
            self.renew()
            return self.submit(function, *arguments)

    def check(self):
        """Whether a process can be started at all."""
        try:
            self.submit(os.getpid).result()
        except BrokenExecutor as error:
            raise InputError(
                "workers: the first worker process ended as it began; a script must start its work below "
                "if __name__ == '__main__':, or give workers=1"
            ) from error

    def renew(self):
        self.close()
        self._pool = None

    def close(self):
        if self._pool is not None:
            processes = list((getattr(self._pool, "_processes", None) or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()


def _begin(name, blob):
    """Keep the job, and leave when the process that started this one is gone: nobody would read the results."""
    _work_of(name, blob)
    parent = multiprocessing.parent_process()

    def watch():
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True, name="astrogan-parent").start()


# ---- pools of the user's -------------------------------------------------------------------------------------------


def as_executor(client):
    """A pool with `submit`, whatever the user gives.

    Parameters
    ----------
    client : `concurrent.futures.Executor` or `distributed.Client`

    Returns
    -------
    `concurrent.futures.Executor`
    """
    if hasattr(client, "get_executor"):
        return client.get_executor(pure=False)
    if not hasattr(client, "submit"):
        raise InputError(
            f"client={client!r} must be a dask.distributed Client or a concurrent.futures.Executor, or None"
        )
    return client


def on_executor(work, chunks, executor):
    """(chunk, record) as the user's pool finishes them; a chunk that kills its workers is tried row by row."""
    job = packed(work)
    running = {executor.submit(_chunk, *job, chunk, rows): chunk for chunk, rows in chunks.items()}
    try:
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                chunk = running.pop(future)
                try:
                    record = future.result()
                except Exception as error:
                    if not died(error):
                        raise
                    alone = [executor.submit(_row, *job, row) for row in chunks[chunk]]
                    record = work.written(chunk, chunks[chunk], [_result_of(row) for row in alone])
                yield chunk, record
    finally:
        for future in running:
            future.cancel()


def _result_of(future):
    try:
        return future.result()
    except Exception as error:
        if not died(error):
            raise
        return None


def died(error):
    """Whether an error says that workers were killed, and that others go on."""
    return type(error).__name__ == "KilledWorker"


# ---- what runs in a worker -----------------------------------------------------------------------------------------


def _work_of(name, blob):
    if name not in _JOBS:
        _JOBS.clear()
        _JOBS[name] = pickle.loads(blob)  # noqa: S301 - of the process that started this one
    return _JOBS[name]


def _chunk(name, blob, chunk, rows):
    return _work_of(name, blob).chunk(chunk, rows)


def _row(name, blob, row):
    return _work_of(name, blob).row(row)
