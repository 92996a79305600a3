"""Mosaics larger than memory, from file to file: ``astrogan bench mosaic``.

A simulated field of stars and galaxies with noise, repeated over the mosaic, is restored with `Restorer.process
<astrogan.Restorer.process>` in processes of their own, whose peak memory is read from the system. Four questions: does
the time a pixel stay what it is as the mosaic grows (``sizes``); what does a second worker bring (``workers``); does a
run that is killed in the middle end as if it had not been, and equal what the method gives in one piece on a part that
lies across the borders of tiles (``kill``); and is the result the same whatever the windows (``windows``). Seconds are
of one machine; ratios count.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["METHODS", "PARTS", "main", "run"]

PARTS = ("sizes", "workers", "kill", "windows")
METHODS = {
    "wiener": {"balance": 0.03},
    "richardson-lucy": {"iterations": 30},
    "nafnet": {"precision": "auto"},
}
"""Methods and their options."""

_FIELD, _FWHM = 2048, 3.5
_BANDS = ("r",)
_KILL_AT, _PART = 0.4, 1400  # of the tiles; edge of what is compared with one piece, in pixels

_CHILD = """
import json, sys, time
from astrogan.bench.mosaic import child
print(json.dumps(child(**json.loads(sys.argv[1]))))
"""


def run(*, sizes=(2048, 4096), methods=("wiener", "richardson-lucy"), parts=PARTS, out=None, seed=0, progress=None):
    """Measure.

    Parameters
    ----------
    sizes : sequence of int
        Edges of the mosaics in pixels; ``workers``, ``kill`` and ``windows`` take the largest.
    methods : sequence of str
        Of ``METHODS``.
    parts : sequence of str
        Of ``PARTS``.
    out : path, optional
        Folder for the mosaics and the tables; it needs about 14 bytes of disk a pixel. Default: a temporary one.
    seed : int
    progress : callable, optional
        ``progress(text)``.

    Returns
    -------
    dict of `~astropy.table.Table`
        By part.

    Raises
    ------
    InputError
        If a part or a method is unknown, or a size is smaller than 512.
    """
    for name, given, known in (("parts", parts, PARTS), ("methods", methods, METHODS)):
        wrong = [each for each in given if each not in known]
        if wrong or not given:
            raise InputError(f"{name}={list(given)!r}: choose of {', '.join(known)}")
    if not sizes or min(sizes) < 512:
        raise InputError(f"sizes={list(sizes)!r} must be edges of at least 512 pixels")
    say = progress or (lambda text: None)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        folder = Path(scratch)
        largest = max(sizes)
        functions = {
            "sizes": lambda: _sizes(folder, sizes, methods, seed, say),
            "workers": lambda: _workers(folder, largest, methods, seed, say),
            "kill": lambda: _kills(folder, largest, methods, seed, say),
            "windows": lambda: _windows(folder, largest, methods, seed, say),
        }
        tables = {part: functions[part]() for part in PARTS if part in parts}
    if out is not None:
        _write(Path(out), tables)
    return tables


# ---- the parts ---------------------------------------------------------------------------------------------------


def _sizes(folder, sizes, methods, seed, say):
    rows = []
    for size in sorted(sizes):
        path = _mosaic(folder, size, seed)
        for method in methods:
            found = _restored(path, folder / "out.fits", method)
            say(f"{method}, {size} x {size}: {found['seconds']:.1f} s, {found['peak'] / 1e6:.0f} MB")
            rows.append((method, size, found["seconds"], 1e6 * found["cpu"] / size**2, found["peak"] / 1e6))
        path.unlink()
    first = {}
    for method, _, _, cpu, _ in rows:
        first.setdefault(method, cpu)
    rows = [(*row[:4], row[3] / first[row[0]], row[4]) for row in rows]
    table = _table(rows, ("method", "size", "seconds", "cpu_us_per_pixel", "over_smallest", "peak_mb"))
    table.meta["caption"] = (
        "CPU time a pixel with all cores at work (us), over that of the smallest mosaic, and the peak of resident "
        "memory of the whole process (MB), Python and its libraries included."
    )
    return table


def _workers(folder, size, methods, seed, say):
    path = _mosaic(folder, size, seed)
    rows = []
    for method in methods:
        seconds = [_restored(path, folder / "out.fits", method, workers=n)["seconds"] for n in (1, 2)]
        say(f"{method}: {seconds[0]:.1f} s with one worker, {seconds[1]:.1f} s with two")
        rows.append((method, size, *seconds, seconds[0] / seconds[1]))
    path.unlink()
    table = _table(rows, ("method", "size", "seconds_1", "seconds_2", "speedup"))
    table.meta["caption"] = "Wall time with one and with two workers, and their ratio."
    return table


def _kills(folder, size, methods, seed, say):
    path = _mosaic(folder, size, seed)
    rows = []
    for method in methods:
        output = folder / "out.fits"
        killed = _restored(path, output, method, kill_at=_KILL_AT)
        journal = output.with_name(output.name + ".partial") / "journal.jsonl"
        before = len(journal.read_text().splitlines()) - 1
        found = _restored(path, output, method, keep=True)
        error = _against_one_piece(path, output, method)
        say(f"{method}: killed after {killed['done']} tiles, peak {found['peak'] / 1e6:.0f} MB, error {error:.2g}")
        peak = max(killed["peak"], found["peak"]) / 1e6
        rows.append((method, size, killed["done"], found["total"], before, found["skipped"], error, peak))
        output.unlink()
    path.unlink()
    names = ("method", "size", "killed_after", "tiles", "pieces_kept", "tiles_not_redone", "error", "peak_mb")
    table = _table(rows, names)
    table.meta["caption"] = (
        "A run is ended by SIGKILL, and the same call goes on. error: the largest difference from the method in one "
        f"piece on {_PART} x {_PART} pixels across tile borders, over the peak of the image."
    )
    return table


def _windows(folder, size, methods, seed, say):
    path = _mosaic(folder, size, seed)
    rows = []
    for method in methods:
        digests = [
            _restored(path, folder / "out.fits", method, workers=workers, window=window, digest=True)["digest"]
            for workers, window in ((2, None), (1, 1000))
        ]
        say(f"{method}: {'the same bytes' if len(set(digests)) == 1 else 'other bytes'}")
        rows.append((method, size, digests[0][:12], digests[1][:12], len(set(digests)) == 1))
    path.unlink()
    table = _table(rows, ("method", "size", "two_workers_2048", "one_worker_1000", "same"))
    table.meta["caption"] = "SHA-256 of the output file with other windows and another number of workers."
    return table


# ---- one run -----------------------------------------------------------------------------------------------------


def _restored(path, output, method, *, kill_at=None, keep=False, **options):
    """What `child` measured in a process of its own; one that was killed says how far it had come."""
    job = {"path": str(path), "output": str(output), "method": method, "kill_at": kill_at, **options}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", _CHILD, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # noqa: S603 - our own
    lines = done.stdout.splitlines()
    if kill_at is not None and done.returncode == -signal.SIGKILL:
        return json.loads(lines[-1])
    if done.returncode:
        raise InputError(f"{method} on {path.name} failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    if not keep:
        output.unlink()
    return json.loads(lines[-1])


def child(path, output, method, *, kill_at=None, workers=None, window=None, digest=False):
    """Restore a mosaic in this process.

    Returns
    -------
    dict
        Seconds of wall and CPU time, peak of resident memory in bytes, tiles in all and those not done again.
    """
    from astrogan import Restorer

    state = {"done": 0, "total": 0, "skipped": None}

    def progress(done, total):
        state.update(done=done, total=total)
        if state["skipped"] is None:
            state["skipped"] = done
        if kill_at is not None and done >= kill_at * total:
            print(json.dumps(state | {"peak": _peak()}), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    start, cpu = time.perf_counter(), time.process_time()
    restorer = Restorer(method, psf=_FWHM, workers=workers, progress=progress, **METHODS[method])
    restorer.process(path, output, tile=window)
    result = state | {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "peak": _peak()}
    if digest:
        with open(output, "rb") as stream:
            result["digest"] = hashlib.file_digest(stream, "sha256").hexdigest()
    return result


def _peak():
    """Largest resident memory of this process so far, in bytes."""
    try:
        # Of this program alone: what getrusage says begins with the size of the process that started it.
        with open("/proc/self/status") as stream:
            return 1024 * next(int(line.split()[1]) for line in stream if line.startswith("VmHWM"))
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _against_one_piece(path, output, method):
    """Largest difference, over the peak, from the method in one call on a part that holds borders of tiles."""
    from astrogan import Restorer, read_image
    from astrogan.image.tiling import plan_work
    from astrogan.mosaic import MosaicSource, Sketch

    restorer = Restorer(method, psf=_FWHM, **METHODS[method])
    source = MosaicSource.open(path)
    needs = {name: bool(getattr(restorer.backend, name, False)) for name in ("needs_psf", "needs_variance")}
    sketch = Sketch.of(source, psf=_FWHM, **needs)
    rng = np.random.default_rng(0)
    work = plan_work(restorer.backend, sketch.prepared.observation, rng=rng, shape_yx=source.shape[1:])
    # Around the first corner that is not of the mosaic's edge, on the method's own grid.
    middle = [next(t.core[axis].stop for t in work.tiles) for axis in (0, 1)]
    align = 64
    spans = [
        slice(max(0, m - _PART // 2) // align * align, min(n, m + _PART // 2))
        for m, n in zip(middle, source.shape[1:], strict=True)
    ]
    prepared = sketch.window(source, *spans)
    whole = work.backend(prepared.observation, rng=rng).data * np.float32(prepared.scale)
    halo = max(s.stop - t.stop for tile in work.tiles[:1] for s, t in zip(tile.outer, tile.core, strict=True))
    inside = tuple(slice(0 if s.start == 0 else halo, (s.stop - s.start) - halo) for s in spans)
    result = read_image(output, section=tuple(spans)).data
    difference = np.abs(whole[(0, *inside)] - result[inside])
    return float(difference.max() / np.abs(result).max())


# ---- the mosaic --------------------------------------------------------------------------------------------------


def _mosaic(folder, size, seed):
    """A file with a simulated field, repeated; written row by row."""
    from astropy.io import fits

    from astrogan.simulate.field import simulate_field

    field = simulate_field((min(size, _FIELD),) * 2, bands=_BANDS, seed=seed).images[_BANDS[0]]
    tile = np.ascontiguousarray(np.nan_to_num(field.data), dtype=">f4")
    header = fits.PrimaryHDU(np.zeros((1, 1), np.float32)).header
    header["BUNIT"] = "nmgy"
    header["NAXIS1"] = header["NAXIS2"] = size
    path = folder / "mosaic.fits"
    repeats = -(-size // tile.shape[1])
    with open(path, "wb") as stream:
        stream.write(header.tostring().encode("ascii"))
        for row in range(size):
            stream.write(np.tile(tile[row % len(tile)], repeats)[:size].tobytes())
        stream.write(b"\0" * (-(4 * size**2) % 2880))
    return path


def _table(rows, names):
    from astropy.table import Table

    return Table(rows=rows, names=names)


def _write(folder, tables):
    from astrogan.image.write import write_table

    for part, table in tables.items():
        write_table(table, folder / f"mosaic-{part}.ecsv", overwrite=True)


def main(arguments=None) -> None:
    """Print the tables.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    parser = argparse.ArgumentParser(prog="astrogan bench mosaic", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096], help="edges in pixels")
    parser.add_argument("--methods", nargs="+", default=["wiener", "richardson-lucy"], help=", ".join(METHODS))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", help="folder for the tables, and for the mosaics while it works")
    given = parser.parse_args(arguments)
    if given.output:
        Path(given.output).mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(given.output or tempfile.gettempdir()).free < 16 * max(given.sizes) ** 2:
        raise InputError(
            f"--sizes {max(given.sizes)} needs {16 * max(given.sizes) ** 2} bytes of disk; name -o on a larger one"
        )
    tables = run(
        sizes=given.sizes,
        methods=given.methods,
        parts=given.parts,
        out=given.output,
        seed=given.seed,
        progress=lambda text: print(text, file=sys.stderr, flush=True),
    )
    for part, table in tables.items():
        print(f"\n{part}\n" + "\n".join(table.pformat(max_lines=-1, max_width=-1)))
        print(table.meta["caption"])
