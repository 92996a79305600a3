"""Speed and memory beside every peer, in one run: ``astrogan bench performance``.

Parts: ``rl`` (Richardson-Lucy, beside scikit-image and beside its own transforms), ``rl-stamps``, ``wiener``, ``tv``,
``degradation`` (astropy, GalSim, deepinv), ``inference`` and ``training`` (networks), ``mosaic`` (tiles beside the
whole image, with memory), ``loading`` (stamps for training), ``deblending`` (photutils) and ``import``. Ours and the
peer run in turn in the same process, or each in a process of its own where memory is measured; the shortest run counts.
Seconds are of this machine; the ratios are what counts, and the targets are for two quiet cores. A peer that is not
installed has a row that says so.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astrogan.bench._performance_figures import Figure, Job
from astrogan.bench._timing import CLOCKS
from astrogan.exceptions import AstroganError, ImageWriteError, InputError

__all__ = ["PARTS", "PerformanceBenchmark", "main", "run"]

_CLASSIC, _NETWORKS, _DATA = (f"astrogan.bench._performance_{name}" for name in ("classic", "networks", "data"))
_FUNCTIONS = {
    "rl": (_CLASSIC, "rl"),
    "rl-stamps": (_CLASSIC, "rl_stamps"),
    "wiener": (_CLASSIC, "wiener"),
    "tv": (_CLASSIC, "tv"),
    "degradation": (_CLASSIC, "degradation"),
    "inference": (_NETWORKS, "inference"),
    "training": (_NETWORKS, "training"),
    "mosaic": (_NETWORKS, "mosaic"),
    "loading": (_DATA, "loading"),
    "deblending": (_DATA, "deblending"),
    "import": (_DATA, "start"),
}
PARTS = tuple(_FUNCTIONS)


@dataclass(frozen=True)
class PerformanceBenchmark:
    """What a run found.

    Parameters
    ----------
    table : `~astropy.table.Table`
        ``part``, ``case`` (what, and after the last comma beside what), ``unit`` of ``ours`` and ``peer``, ``ratio``
        (how many times faster; where ``notes`` say so, ours over theirs), ``target``, ``met`` (``yes``, ``no``, ``-``
        without a target, or why it does not apply) and ``notes``.
    files : tuple of `pathlib.Path`
        Written, if a folder was given.
    """

    table: object
    files: tuple[Path, ...] = ()

    @property
    def failed(self) -> tuple[str, ...]:
        """Parts that ended with an error."""
        return tuple(str(row["part"]) for row in self.table if row["met"] == "failed")


def run(parts=PARTS, *, full=False, repeats=3, clock="wall", scale=1.0, seed=0, out=None, progress=None):
    """Measure the parts.

    Parameters
    ----------
    parts : sequence of str
        Of ``PARTS``.
    full : bool
        With the large sizes: 4096 x 4096 pixels, a mosaic of 8192 x 8192.
    repeats : int
        Runs of each function that count.
    clock : {'wall', 'cpu'}
        Time on the wall, or that of all cores that a process has used: for busy machines; it gives nothing for working
        on two cores at once.
    scale : float
        Factor on sizes and numbers, for trying it out. The targets hold for one.
    seed : int
    out : path, optional
        Folder for ``performance.ecsv`` and ``performance.md``.
    progress : callable, optional
        Called with a line of text.

    Returns
    -------
    PerformanceBenchmark

    Raises
    ------
    InputError
        If an argument is out of range.
    ImageWriteError
        If ``out`` cannot be written.
    """
    parts = tuple(dict.fromkeys(parts))
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise InputError(f"parts={parts!r} must be of: {', '.join(PARTS)}")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise InputError(f"repeats={repeats!r} must be a positive integer")
    if clock not in CLOCKS:
        raise InputError(f"clock={clock!r} must be one of {', '.join(CLOCKS)}")
    if not 0 < scale <= 1:
        raise InputError(f"scale={scale!r} must be above 0 and at most 1")
    job = Job(full, repeats, clock, scale, seed, progress or (lambda text: None))
    figures = []
    for part in parts:
        job.say(part)
        figures += _measure(part, job)
    table = _table(figures, job)
    return PerformanceBenchmark(table, () if out is None else _write(Path(out), table))


def _measure(part, job):
    """The figures of a part, those found before an error included: ten minutes of others must not be lost with it."""
    import importlib

    module, name = _FUNCTIONS[part]
    figures = []
    try:
        for figure in getattr(importlib.import_module(module), name)(job):
            figures.append(figure)
            job.say(_line(figure.row()))
    except MemoryError:
        figures.append(_failed(part, "out of memory"))
    except (AstroganError, ImportError, OSError, RuntimeError, ValueError) as error:
        figures.append(_failed(part, f"{type(error).__name__}: {error}"))
    return figures


def _failed(part, why):
    nan = float("nan")
    return Figure(part, "-", "", nan, nan, nan, notes=" ".join(why.split())[:300], met="failed")


def _line(row):
    return f"{row['part']}  {row['case']}  {row['ratio']:.3g}  {row['target']}  {row['met']}"


def _table(figures, job):
    import platform

    from astropy.table import Table

    from astrogan.image.tiling import available_cores

    table = Table(rows=[figure.row() for figure in figures])
    for name in ("ours", "peer", "ratio"):
        table[name] = np.asarray(table[name], float)
        table[name].info.format = ".4g" if name != "ratio" else ".3g"
    clock = "time on the wall" if job.clock == "wall" else "processor time"
    scaled = "" if job.scale == 1 else f"; sizes scaled by {job.scale:g}, so the targets do not hold"
    table.meta["caption"] = (
        f"{platform.machine()}, {available_cores()} cores, Python {platform.python_version()}; shortest of "
        f"{job.repeats} runs, {clock}{scaled}."
    )
    return table


def markdown(table):
    """The table for reading.

    Parameters
    ----------
    table : `~astropy.table.Table`

    Returns
    -------
    str
    """
    from astrogan.bench._restoration_tables import markdown_table, number

    def text(row, name):
        return number(row[name], table[name].info.format) if name in ("ours", "peer", "ratio") else str(row[name])

    body = [[text(row, name).replace("|", "/") for name in table.colnames] for row in table]
    return f"# Performance\n\n{markdown_table(table.colnames, body)}\n\n{table.meta['caption']}\n"


def _write(folder, table):
    from astrogan.image.write import atomic_path, write_table

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageWriteError(f"out={str(folder)!r} cannot be made: {error.strerror}; name another folder") from error
    files = (folder / "performance.ecsv", folder / "performance.md")
    write_table(table, files[0], overwrite=True)
    with atomic_path(files[1], overwrite=True) as temporary:
        temporary.write_text(markdown(table), encoding="utf-8")
    return files


def main(arguments=None) -> None:
    """Measure, print the table and save it.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    import sys

    parser = argparse.ArgumentParser(
        prog="astrogan bench performance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--full", action="store_true", help="also 4096 x 4096 pixels, and a mosaic of 8192 x 8192")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for machines that others use, too")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on sizes, for trying it out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", help="folder for performance.ecsv and performance.md")
    options = vars(parser.parse_args(arguments))
    found = run(**options, progress=lambda text: print(text, file=sys.stderr, flush=True))
    print("\n".join(found.table.pformat(max_lines=-1, max_width=-1)))
    print(found.table.meta["caption"])
    for path in found.files:
        print(path)
    if found.failed:
        raise SystemExit(f"failed: {', '.join(found.failed)}")


if __name__ == "__main__":
    main()
