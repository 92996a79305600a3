"""Stamps of a catalog: how many a second, beside a plain loop, and what a killed worker costs.

A simulated mosaic with an uncertainty is written to a temporary folder, and a catalog of places in it. The plain loop
is what one would write: cut the stamp with its context out with `~astropy.nddata.Cutout2D` from the file mapped to
memory, and call the restorer on it; it keeps its results in memory, while `~astrogan.catalogs.process_catalog` writes,
flags and measures them. In the last part a worker is killed in the middle of a run, whose files are then compared with
those of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from astrogan.exceptions import AstroganWarning, InputError

__all__ = ["main", "run", "run_killed", "simulated_mosaic"]

FWHM, SIZE, EDGE = 3.0, 64, 4096
BACKENDS = {"richardson-lucy": {"iterations": 30}, "wiener": {"balance": 10.0}, "nafnet": {}}


def simulated_mosaic(path, *, edge=EDGE, seed=0):
    """Write a mosaic of Gaussian blobs in noise, with its uncertainty and WCS.

    Parameters
    ----------
    path : path
    edge : int
        Pixels along each axis.
    seed : int
    """
    from astropy.nddata import CCDData, StdDevUncertainty
    from astropy.wcs import WCS

    from astrogan.image.write import write_image

    rng = np.random.default_rng(seed)
    data = rng.standard_normal((edge, edge), np.float32)
    y, x = np.mgrid[-24:25, -24:25]
    for row, column in rng.integers(24, edge - 25, (edge**2 // 4000, 2)):
        width = rng.uniform(1.5, 5)
        blob = 10 ** rng.uniform(0.5, 2) * np.exp(-(x**2 + y**2) / (2 * width**2))
        data[row - 24 : row + 25, column - 24 : column + 25] += blob.astype(np.float32)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 2.0]
    wcs.wcs.crpix, wcs.wcs.cdelt = [edge / 2, edge / 2], [-0.2 / 3600, 0.2 / 3600]
    noise = StdDevUncertainty(np.ones(data.shape, np.float32))
    write_image(CCDData(data, unit="nJy", wcs=wcs, uncertainty=noise), path)


def run(*, rows=1000, backends=tuple(BACKENDS), workers=(1, 2), loop_rows=None, seed=0):
    """Time the catalog and the plain loop.

    Parameters
    ----------
    rows : int
        Rows of the catalog.
    backends : sequence of str
        Of ``BACKENDS``.
    workers : sequence of int
        Numbers of processes; each is timed.
    loop_rows : int, optional
        Rows of the plain loop, whose speed does not depend on their number. Default: 200 at most.
    seed : int

    Returns
    -------
    `~astropy.table.Table`
        ``backend``, ``workers``, ``stamps_per_s`` and ``ratio`` over the plain loop by the wall clock;
        ``stamps_per_cpu_s`` and ``cpu_ratio`` by the processor time of all processes, which a busy machine leaves
        alone; ``loop_per_s`` and ``loop_per_cpu_s``; ``without`` (rows without a stamp).

    Raises
    ------
    InputError
        If a backend or a number cannot be used.
    """
    from astropy.table import Table

    _check(rows, backends)
    lines = []
    with tempfile.TemporaryDirectory() as folder, _quiet():
        mosaic = Path(folder) / "mosaic.fits"
        simulated_mosaic(mosaic, seed=seed)
        places = _places(rows, seed)
        for name in backends:
            _timed(name, mosaic, places[:8], Path(folder) / f"warm-{name}", 1)  # weights and imports
            margin = _margin(Path(folder) / f"warm-{name}")
            few = places[: min(rows, 200) if loop_rows is None else loop_rows]
            loop = np.array(_loop(name, mosaic, few, margin)) / len(few)
            for number in workers:
                *seconds, without = _timed(name, mosaic, places, Path(folder) / f"{name}-{number}", number)
                wall, cpu = np.array(seconds) / rows
                own = (1 / wall, loop[0] / wall, 1 / cpu, loop[1] / cpu)
                lines.append((name, number, *own, *(1 / loop), without))
    names = ("stamps_per_s", "ratio", "stamps_per_cpu_s", "cpu_ratio", "loop_per_s", "loop_per_cpu_s")
    table = Table(rows=lines, names=("backend", "workers", *names, "without"))
    for column in names:
        table[column].info.format = ".2f"
    table.meta["caption"] = (
        f"{rows} stamps of {SIZE} x {SIZE} pixels with their context, FWHM {FWHM} pixels, from a mosaic of {EDGE} x "
        f"{EDGE}; the loop has the same windows and writes nothing. More than one worker includes their start."
    )
    return table


def run_killed(*, rows=1000, backend="wiener", seed=0):
    """Kill a worker in the middle of a run, and compare what is there in the end with an undisturbed run.

    Parameters
    ----------
    rows : int
    backend : str
        Of ``BACKENDS``.
    seed : int

    Returns
    -------
    dict
        ``rows``, ``killed`` (workers), ``with_stamp`` (rows), ``equal`` (whether all files have the same bytes),
        ``seconds`` and ``seconds_undisturbed``.
    """
    from astrogan.catalogs import process_catalog

    _check(rows, (backend,))
    killed = []

    def kill(done, total):
        children = multiprocessing.active_children()
        if not killed and children and done < total:
            killed.append(children[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        mosaic = Path(folder) / "mosaic.fits"
        simulated_mosaic(mosaic, seed=seed)
        seconds, places = {}, _places(rows, seed)
        for name, progress in (("whole", None), ("killed", kill)):
            begin = time.perf_counter()
            options = {"size": SIZE, "workers": 2, "chunk": max(1, rows // 10), "rng": seed, "progress": progress}
            table = process_catalog(_restorer(backend), places, mosaic, output=Path(folder) / name, **options)
            seconds[name] = time.perf_counter() - begin
        return {
            "rows": rows,
            "killed": len(killed),
            "with_stamp": int(np.sum(table["file"] != "")),
            "equal": _content(Path(folder) / "whole") == _content(Path(folder) / "killed"),
            "seconds": seconds["killed"],
            "seconds_undisturbed": seconds["whole"],
        }


def _check(rows, backends):
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 10:
        raise InputError(f"rows={rows!r} must be an integer of at least 10")
    for name in backends:
        if name not in BACKENDS:
            raise InputError(f"backends={backends!r}: {name!r} must be one of {', '.join(BACKENDS)}")


@contextlib.contextmanager
def _quiet():
    """Without the warnings of a method about an image that is simulated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstroganWarning)
        yield


def _restorer(name):
    from astrogan import Restorer

    return Restorer(name, psf=FWHM, workers=1, **BACKENDS[name])


def _places(rows, seed):
    """(x, y), all stamps and their context inside the mosaic."""
    return np.random.default_rng([seed, 1]).uniform(128, EDGE - 128, (rows, 2))


def _timed(name, mosaic, places, output, workers):
    """Seconds by the wall clock and by the processor's, and rows without a stamp."""
    from astrogan.catalogs import process_catalog

    wall, cpu = _clocks()
    table = process_catalog(_restorer(name), places, mosaic, output=output, size=SIZE, workers=workers)
    now = _clocks()
    return now[0] - wall, now[1] - cpu, int(np.sum(table["file"] == ""))


def _clocks():
    """Seconds on the wall, and of the processor: of this process and of those that it has waited for."""
    times = os.times()
    return time.perf_counter(), times.user + times.system + times.children_user + times.children_system


def _margin(output):
    """The context that a run chose."""
    import json

    return int(json.loads((output / "run.json").read_text())["margin"])


def _loop(name, mosaic, places, margin):
    """Seconds by both clocks of the plain loop over the same windows."""
    from astropy.io import fits
    from astropy.nddata import CCDData, Cutout2D, StdDevUncertainty
    from astropy.wcs import WCS

    restorer, kept = _restorer(name), []
    wall, cpu = _clocks()
    with fits.open(mosaic, memmap=True) as hdus:
        wcs, edge = WCS(hdus[0].header), SIZE + 2 * margin
        for place in places:
            data = Cutout2D(hdus[0].data, place, edge, wcs=wcs, mode="trim")
            noise = StdDevUncertainty(Cutout2D(hdus["UNCERT"].data, place, edge, mode="trim").data)
            kept.append(restorer(CCDData(data.data, unit=hdus[0].header["BUNIT"], wcs=data.wcs, uncertainty=noise)))
    now = _clocks()
    return now[0] - wall, now[1] - cpu


def _content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "run.lock"}


def main(arguments=None) -> None:
    """Print both parts.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m astrogan.bench.catalog", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-kill", action="store_true", help="leave out the part that kills a worker")
    options = parser.parse_args(arguments)
    table = run(rows=options.rows, backends=options.backends, workers=options.workers, seed=options.seed)
    print("\n".join(table.pformat(max_lines=-1, max_width=-1)))
    print(table.meta["caption"])
    if not options.skip_kill:
        came = run_killed(rows=options.rows, seed=options.seed)
        print(
            f"{came['killed']} of 2 workers killed in the middle: {came['with_stamp']} of {came['rows']} rows have a "
            f"stamp; files {'equal' if came['equal'] else 'DIFFER from'} those of an undisturbed run, byte for byte; "
            f"{came['seconds']:.1f} s instead of {came['seconds_undisturbed']:.1f} s"
        )


if __name__ == "__main__":
    main()
