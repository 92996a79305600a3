"""How quickly training images come, beside what training takes: ``astrogan bench loading``.

For each recipe the real stream delivers batches, with several numbers of worker processes; the training step consumes
them on this machine. What an H200 would take is not measured but computed from the step's operations. Reading FITS
files one by one with astropy is the peer. With ``--memory`` a tiny training runs for many steps and its resident memory
is watched. Set ``OMP_NUM_THREADS`` to choose the threads.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from astrogan.exceptions import AstroganError, InputError

__all__ = ["file_rates", "main", "memory_slope", "stream_rates"]

RECIPES = ("nafnet-linear", "nafnet-galaxyzoo")
_PEER = "fits.getdata, file by file"
H200_FLOPS = 989e12
"""Dense bfloat16 operations a second of an NVIDIA H200, as its data sheet says."""
H200_PART = 0.1
"""Part of them that small convolutional networks are taken to reach."""


def stream_rates(recipes=RECIPES, data=".", *, workers=(0, 1, 2), seconds=5.0):
    """Samples a second that recipes' streams deliver, and that their training step takes.

    Parameters
    ----------
    recipes : sequence of str, path or `~astrogan.train.recipe.Recipe`
        One whose data are not there is left out, and named in the table's ``missing``.
    data : path
        The folder below which their files lie.
    workers : sequence of int
        Numbers of processes that prepare batches; 0 is the training process itself.
    seconds : float
        That each rate is measured for, after a first batch that does not count.

    Returns
    -------
    `~astropy.table.Table`
        A row for each recipe and number of workers: ``delivered`` and ``consumed`` (samples a second; the latter of
        the forward and backward pass and the optimiser on the CPU), ``gflop`` a sample, ``h200`` (samples a second that
        ``H200_PART`` of an H200's peak would take) and ``busy``, the part of that which is delivered.

    Raises
    ------
    InputError
        If a number cannot be, or no recipe's data are there.
    """
    from astropy.table import Table

    if not seconds > 0:
        raise InputError(f"seconds={seconds!r} must be positive")
    rows, missing = [], []
    for recipe in recipes:
        try:
            job = _job(recipe, data)
        except AstroganError as error:
            missing.append(f"{recipe}: {error}")
            continue
        rate, gflop = _consumed(job, seconds)
        needed = H200_PART * H200_FLOPS / (gflop * 1e9)
        for count in workers:
            delivered = _delivered(job, count, seconds)
            rows.append((job.recipe.name, count, delivered, rate, gflop, needed, delivered / needed))
    if not rows:
        raise InputError(f"data={str(data)!r} has none of the recipes' images: {'; '.join(missing)}")
    table = Table(rows=rows, names=("recipe", "workers", "delivered", "consumed", "gflop", "h200", "busy"))
    for name, digits in (("delivered", 1), ("consumed", 1), ("gflop", 2), ("h200", 0), ("busy", 4)):
        table[name].info.format = f".{digits}f"
    table.meta["missing"] = missing
    table.meta["caption"] = (
        f"Samples a second. h200 is computed, not measured: {H200_PART:.0%} of {H200_FLOPS / 1e12:.0f} TFLOP/s over "
        "the operations of a sample's training step."
    )
    return table


def _job(recipe, data):
    from astrogan.train import Recipe, read_recipe
    from astrogan.train._loop import prepare

    return prepare(recipe if isinstance(recipe, Recipe) else read_recipe(recipe), Path(data))


def _delivered(job, workers, seconds):
    from astrogan.train._loop import _loader

    batches = iter(_loader(job.training, range(1_000_000), workers))
    next(batches)
    # What workers have prepared while the first was waited for was not made in the time measured.
    for _ in range(3 * workers):
        next(batches)
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        next(batches)
        count += 1
    del batches
    return count * job.recipe.batch / passed


def _consumed(job, seconds):
    """Samples a second of the training step alone, and operations of one sample (1e9)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    batch = {key: torch.from_numpy(value) for key, value in job.training.batch(0).items()}
    step = _step(job.module)
    with torch.random.fork_rng(devices=[]):
        with FlopCounterMode(display=False) as counter:
            step(batch)
        rate = _rate(lambda _: step(batch), 1, seconds)
    return rate * job.recipe.batch, counter.get_total_flops() / job.recipe.batch / 1e9


def _step(module):
    """A module's training step without Lightning's loop."""
    optimisers = module.configure_optimizers()
    module.optimizers = lambda: optimisers
    module.manual_backward = lambda loss: loss.backward()
    module.log_dict = module.log = lambda *_, **__: None
    return lambda batch: module.training_step(batch, 0)


def file_rates(count=200, *, size=64, bands=3, seconds=2.0):
    """Samples a second from a folder of FITS files: ours, and `astropy.io.fits.getdata` file by file.

    Parameters
    ----------
    count, size, bands : int
        Files, pixels along their edges, and bands of the float32 cube in each.
    seconds : float
        That each rate is measured for.

    Returns
    -------
    `~astropy.table.Table`
        ``reader``, ``rate`` (samples a second) and ``over`` (the rate over the peer's, the first row). The source's
        first pass checks and prepares every file; the passes after it find it in memory.
    """
    from astropy.io import fits
    from astropy.table import Table

    from astrogan.train.sources import FitsFolder

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"g{i:05d}.fits" for i in range(count)]
        for path in paths:
            fits.PrimaryHDU(rng.standard_normal((bands, size, size), np.float32)).writeto(path)
        rates = {_PEER: _rate(lambda i: np.asarray(fits.getdata(paths[i])).sum(), count, seconds)}
        start = time.perf_counter()
        source = FitsFolder(folder, bands="all")
        rates["FitsFolder, first pass"] = count / (time.perf_counter() - start)
        rates["FitsFolder, later passes"] = _rate(lambda i: source.load(i).data.sum(), count, seconds)
    peer = rates[_PEER]
    table = Table(rows=[(name, rate, rate / peer) for name, rate in rates.items()], names=("reader", "rate", "over"))
    table["rate"].info.format, table["over"].info.format = ".0f", ".2f"
    return table


def _rate(function, count, seconds):
    """Calls a second of ``function(i)``, i from 0 to ``count - 1`` again and again."""
    start, done, passed = time.perf_counter(), 0, 0.0
    while passed < seconds:
        function(done % count)
        done, passed = done + 1, time.perf_counter() - start
    return done / passed


# ---- memory ----------------------------------------------------------------------------------------------------------


def memory_slope(steps=10_000, *, points=20, workers=0):
    """Resident memory of a tiny training on files, step by step.

    Parameters
    ----------
    steps : int
        Of the training; at least ``points``.
    points : int
        How often memory is looked at, at equal distances.
    workers : int
        Processes that prepare batches; the memory is that of the training process.

    Returns
    -------
    `~astropy.table.Table`
        ``step`` and ``rss`` (bytes); ``meta["slope"]`` is the bytes a step of a straight line through the second half,
        when all caches are full.

    Raises
    ------
    InputError
        If there are fewer steps than points.
    """
    from astropy.table import Table

    from astrogan.train import fit

    if points < 4 or steps < points:
        raise InputError(f"steps={steps!r} and points={points!r}: take at least 4 points, and a step for each")
    with tempfile.TemporaryDirectory() as folder:
        _stamps(Path(folder) / "stamps")
        recipe = _tiny(steps, points)
        seen, done = [], threading.Event()
        watcher = threading.Thread(target=_watch, args=(Path(folder) / "run" / "metrics.csv", seen, done))
        watcher.start()
        try:
            fit(recipe, data=folder, out=Path(folder) / "run", workers=workers)
        finally:
            done.set()
            watcher.join()
    table = Table(rows=seen, names=("step", "rss"))
    late = table[len(table) // 2 :]
    table.meta["slope"] = float(np.polyfit(late["step"], late["rss"], 1)[0]) if len(late) > 1 else np.nan
    return table


def _stamps(folder, count=64):
    from astropy.io import fits

    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40] - 20
    for i in range(count):
        image = rng.uniform(20, 200) * np.exp(-np.hypot(x, y) / rng.uniform(2, 6)) + rng.normal(0, 1, (40, 40))
        fits.PrimaryHDU(image.astype(np.float32)).writeto(folder / f"g{i:03d}.fits")


def _tiny(steps, points):
    from astrogan.train import Recipe

    return Recipe(
        "tiny",
        steps=steps,
        batch=1,
        crop=16,
        epoch_steps=max(1, steps // points),
        validate_every=max(1, points // 4),
        validation_images=2,
        network={"widths": [4], "blocks": [1], "balances": [0.1], "radius": 4},
        training={"loss": "linear"},
        degradation={"kind": "physical", "fwhm": [2.0, 4.0]},
        data=[{"kind": "fits", "path": "stamps"}],
    )


def _watch(metrics, seen, done):
    """Note the memory whenever a line is added to the metrics."""
    epochs = 0
    while not done.wait(0.02):
        try:
            lines = metrics.read_text().splitlines()
        except OSError:
            continue
        if len(lines) - 1 > epochs and "step" in lines[0]:
            epochs = len(lines) - 1
            step = lines[-1].split(",")[lines[0].split(",").index("step")]
            seen.append((int(float(step)), resident()))


def resident():
    """Bytes of this process that lie in memory."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError as error:
        raise InputError("resident memory is read from /proc, which this system does not have") from error


def main(arguments=None) -> None:
    """Print the tables.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    parser = argparse.ArgumentParser(prog="astrogan bench loading", description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("ASTROGAN_DATA", "."), help="Folder below which the data lie.")
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--workers", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--memory", action="store_true", help="Watch the memory of a tiny training instead.")
    parser.add_argument("--steps", type=int, default=10_000)
    options = parser.parse_args(arguments)
    if options.memory:
        table = memory_slope(options.steps)
        print("\n".join(table.pformat(max_lines=-1)))
        print(f"{table.meta['slope']:.1f} bytes a step in the second half")
        return
    table = file_rates(seconds=min(options.seconds, 2.0))
    print("\n".join(table.pformat(max_lines=-1)))
    table = stream_rates(options.recipes, options.data, workers=options.workers, seconds=options.seconds)
    print("\n".join(["", *table.pformat(max_lines=-1, max_width=-1), table.meta["caption"]]))
    for line in table.meta["missing"]:
        print(f"left out: {line}")


if __name__ == "__main__":
    main()
