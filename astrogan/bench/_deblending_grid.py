"""All scenes of the deblending benchmark through all rows: in parallel, each kept in a file of its own."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from pathlib import Path

import numpy as np

from astrogan.bench._deblending_rows import deblend
from astrogan.bench._deblending_scores import detection_scores, scene_facts, source_scores
from astrogan.bench._deblending_sets import from_blend
from astrogan.exceptions import AstroganError

__all__ = ["blend_scenes", "conserved", "in_processes", "measure", "measure_scene"]

_FORMAT = 1
"""Changes with what the stored numbers mean; results of another format are measured anew."""


def blend_scenes(number, data=None):
    """The frozen set of simulated blends, one `Scene` at a time.

    Parameters
    ----------
    number : int
    data : path, optional
        Folder of the real images.

    Yields
    ------
    Scene
    """
    from astrogan.simulate.blends import benchmark_blends

    for k, blend in enumerate(islice(benchmark_blends(number, data), number)):
        yield from_blend(blend, f"{k:04d}")


def measure(rows, digests, number, folder, *, data=None, jobs=1, progress=None):
    """Measure what is not in ``folder`` yet, and return all of it.

    Parameters
    ----------
    rows : list of Row
    digests : dict
        Of `astrogan.bench._deblending_rows.available`.
    number : int
        Scenes.
    folder : path
    data : path, optional
    jobs : int
        Processes.
    progress : callable, optional
        Called with a line of text.

    Returns
    -------
    dict
        {row name: [result of `measure_scene`, ...]}.
    """
    folder, say = Path(folder), progress or (lambda text: None)
    first = next(blend_scenes(1, data)).digest  # stands for the whole set
    keys = {row.name: _key(digests[row.name], first) for row in rows}
    todo = {k: [row for row in rows if _stored(folder, row, k, keys) is None] for k in range(number)}
    todo = {k: missing for k, missing in todo.items() if missing}
    say(f"{number} blends, {len(rows)} rows; {number - len(todo)} blends are there already")
    if todo:
        scenes = ((k, scene) for k, scene in enumerate(blend_scenes(max(todo) + 1, data)) if k in todo)
        work = ((folder, k, scene, todo[k], keys) for k, scene in scenes)
        for done, k in enumerate(in_processes(_work, work, jobs), 1):
            if done % max(1, len(todo) // 20) == 0 or done == len(todo):
                say(f"{done}/{len(todo)}  blend {k}")
    return {row.name: [_stored(folder, row, k, keys) for k in range(number)] for row in rows}


def in_processes(function, work, jobs):
    """Do all the work, and yield the results as they come.

    Parameters
    ----------
    function : callable
    work : iterable of tuple
        Arguments. No more than a few are taken beyond those at work.
    jobs : int
        Processes; with 1 it is done here.
    """
    if jobs == 1:
        yield from (function(*each) for each in work)
        return
    import multiprocessing

    # Not forked: torch's threads do not survive that.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_start_worker) as pool:
        waiting = set()
        for each in work:
            waiting.add(pool.submit(function, *each))
            if len(waiting) >= 3 * jobs:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in waiting)


def _start_worker():
    # A core a process: torch, which is not loaded yet, looks here.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _work(folder, k, scene, rows, keys):
    from astrogan.image.write import atomic_path

    for row in rows:
        path = _path(folder, row, k)
        path.parent.mkdir(parents=True, exist_ok=True)
        result = {"key": keys[row.name], "scene": k, **measure_scene(row, scene)}
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(result), encoding="utf-8")
    return k


def _key(*words):
    """Of all that a stored result depends on."""
    return hashlib.sha256(" ".join((str(_FORMAT), *words)).encode()).hexdigest()[:20]


def _path(folder, row, k):
    name = "".join(c if c.isalnum() or c in "-." else "_" for c in row.name)
    if name != row.name:  # two labels must not fall together
        name = f"{name[:50]}-{hashlib.sha256(row.name.encode()).hexdigest()[:6]}"
    return folder / name / f"{k:04d}.json"


def _stored(folder, row, k, keys):
    """The result of an earlier run of the same, or None."""
    path = _path(folder, row, k)
    if not path.is_file():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    return result if result.get("key") == keys[row.name] else None


# ---- a scene through a row ------------------------------------------------------------------------------------------


def measure_scene(row, scene):
    """One scene through one row, with the true centres and with its own.

    Parameters
    ----------
    row : Row
    scene : Scene

    Returns
    -------
    dict
        ``true`` and ``detected``: lists of a dict a source, with what makes it hard and what came out; ``counts`` of
        the detection; ``conservation``, ``seconds`` and ``error`` (text, where the row failed) by kind of centres. A
        row that is told the truth detects nothing.
    """
    facts = scene_facts(scene) if scene.truth is not None else [{} for _ in scene.positions]
    result = {"true": [], "detected": [], "counts": None, "conservation": {}, "seconds": {}, "error": {}}
    for centres in ("true",) if row.needs_truth else ("true", "detected"):
        try:
            found = deblend(row, scene, scene.positions if centres == "true" else None)
        except AstroganError as error:
            result["error"][centres] = " ".join(str(error).split())
            continue
        pairs = [(i, i) for i in range(len(facts))]
        if centres == "detected":
            pairs, result["counts"] = detection_scores(scene, found.positions)
        lines = [{"source": i, **facts[i], **source_scores(scene, i, found, j)} for i, j in pairs]
        result[centres] = lines
        result["conservation"][centres] = conserved(scene, found)
        result["seconds"][centres] = found.seconds
    return result


def conserved(scene, found):
    """Departure of sources and residual from the image, over the image's largest value."""
    from astrogan.metrics import conservation_error

    image = np.asarray(scene.data, np.float32)
    return conservation_error(image, [*found.sources, found.residual], mask=scene.mask)
