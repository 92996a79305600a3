"""Parts of `astrogan.bench.performance`: reading stamps for training, deblending a field, and starting."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from astrogan.bench._performance_figures import Figure, Target, absent, faster, installed, smaller
from astrogan.bench._timing import best_of

__all__ = ["deblending", "loading", "start"]

_SHAPE = (3, 64, 64)
_FILES, _LOADS = 256, 4096


# ---- reading stamps -------------------------------------------------------------------------------------------------


def loading(job):
    """Stamps from one FITS cube, as training reads them, beside a file a stamp."""
    from astropy.io import fits
    from astropy.nddata import CCDData

    from astrogan.train.sources import FitsFolder
    from astrogan.train.sources.cube import FitsCube

    count, loads = (max(4, round(n * job.scale)) for n in (_FILES, _LOADS))
    order = np.random.default_rng(job.seed).integers(0, count, loads)
    with tempfile.TemporaryDirectory() as folder:
        files = _write_stamps(Path(folder), count, job.seed)
        cube = FitsCube(Path(folder) / "cube.fits", bands=("g", "r", "i"))
        separate = FitsFolder(Path(folder) / "stamps", bands="all", unit="adu")
        functions = {
            "cube": (lambda: _load_all(cube, order), loads),
            "folder": (lambda: _load_all(separate, order), loads),
            "getdata": (lambda: [np.asarray(fits.getdata(file), np.float32) for file in files], count),
            "ccddata": (lambda: [CCDData.read(file, unit="adu").data for file in files[::4]], len(files[::4])),
        }
        seconds = best_of({name: f for name, (f, _) in functions.items()}, job.repeats, clock=job.clock)
    each = {name: seconds[name] / functions[name][1] for name in functions}
    size = " x ".join(map(str, _SHAPE))
    unit = {"unit": "us a stamp", "factor": 1e6}
    yield faster("loading", f"{size}, FITS cube, fits.getdata a file", each["cube"], each["getdata"], 30.0, **unit)
    yield faster("loading", f"{size}, FITS cube, CCDData.read a file", each["cube"], each["ccddata"], **unit)
    notes = "files of up to 512 MB in all are kept in memory"
    case = f"{size}, folder of files, fits.getdata a file"
    yield faster("loading", case, each["folder"], each["getdata"], **unit, notes=notes)


def _load_all(source, order):
    """One after the other, none kept: what is timed is the source, not the memory."""
    for i in order:
        source.load(i)


def _write_stamps(folder, count, seed):
    """The same stamps in one cube and in a file each; the files' paths."""
    from astropy.io import fits

    stamps = np.random.default_rng(seed).standard_normal((count, *_SHAPE), np.float32)
    fits.writeto(folder / "cube.fits", stamps)
    (folder / "stamps").mkdir()
    files = [folder / "stamps" / f"{k:05d}.fits" for k in range(count)]
    for file, stamp in zip(files, stamps, strict=True):
        fits.writeto(file, stamp)
    return files


# ---- deblending -----------------------------------------------------------------------------------------------------


def deblending(job):
    """A crowded field in three bands beside photutils' own detection, deblending and catalog."""
    if not installed("galsim"):
        yield absent("deblending", "crowded field", "galsim")
        return
    from astrogan.bench._deblending_field import PEER, field_table
    from astrogan.bench._deblending_rows import named_rows

    size = job.size(2048)
    table = field_table(named_rows(["watershed"]), size, seed=job.seed, progress=job.say)
    rows = {row["row"]: row for row in table}
    ours, theirs = rows["watershed"], rows[PEER]
    notes = "; ".join(str(row["why"]) for row in (ours, theirs) if row["why"])
    notes = notes or f"ours over theirs; {ours['sources']:.0f} and {theirs['sources']:.0f} sources"
    case = f"{size}², watershed with sources, photutils"
    for measure, unit in (("seconds", "s"), ("megabytes", "MB")):
        yield smaller("deblending", f"{case}, {measure}", ours[measure], theirs[measure], unit=unit, notes=notes)


# ---- starting -------------------------------------------------------------------------------------------------------


def start(job):
    """What an import takes beyond a bare interpreter."""
    codes = {
        "bare": "pass",
        "astrogan": "import astrogan",
        "list_backends": "import astrogan; astrogan.list_backends()",
        "astropy.io.fits": "import astropy.io.fits",
        "torch": "import torch",
    }
    functions = {name: lambda code=code: _python(code) for name, code in codes.items()}
    seconds = best_of(functions, job.repeats, clock=job.clock) if job.clock == "wall" else _cpu(codes, job)
    beyond = {name: 1e3 * max(s - seconds["bare"], 0.0) for name, s in seconds.items()}
    peer, nan = beyond["astropy.io.fits"], float("nan")
    target = Target(150, least=False, of="ours")
    notes = "beyond bare Python; peer: import astropy.io.fits"
    yield Figure(
        "import", "import astrogan", "ms", beyond["astrogan"], peer, beyond["astrogan"] / (peer or nan), target, notes
    )
    for name in ("list_backends", "torch"):
        yield Figure("import", name, "ms", beyond[name], peer, beyond[name] / (peer or nan), None, notes)


def _python(code):
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)  # noqa: S603 - our own code


def _cpu(codes, job):
    """Seconds of the processor that the interpreters took."""
    best = dict.fromkeys(codes, np.inf)
    for _ in range(job.repeats):
        for name, code in codes.items():
            before = os.times()
            _python(code)
            after = os.times()
            spent = after.children_user - before.children_user + after.children_system - before.children_system
            best[name] = min(best[name], spent)
    return best
