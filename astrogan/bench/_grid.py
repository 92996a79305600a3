"""The cells of the restoration benchmark: each degraded, restored by each row, scored, and kept in a file."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from astrogan.api import Observation
from astrogan.backends.classic.galaxygan2017_degrader import GalaxyGAN2017Degrader
from astrogan.bench._restoration_rows import Restoration, tune
from astrogan.bench._restoration_scores import PHOTOMETRY, Reference, blank_sky_scores
from astrogan.bench._stamps import read_stamps

__all__ = ["CONVENTIONS", "Cell", "Settings", "Workplace", "measure"]

CONVENTIONS = ("independent", "shared")
_FORMAT = 2
"""Changes with what the stored numbers mean; results of another format are measured anew."""

_SKY = ("sky_level", "sky_sigma")
_COLUMNS = ("psnr", "psnr_linear", *PHOTOMETRY)


class Cell(NamedTuple):
    """A point of the grid: noise convention, FWHM of the blur in arcsec, noise ratio."""

    convention: str
    fwhm: float
    noise: float

    def __str__(self):
        return f"{self.convention}-f{self.fwhm:g}-n{self.noise:g}"


@dataclass(frozen=True)
class Settings:
    """All that the numbers depend on but for cells and rows; see `astrogan.bench.restoration.run`."""

    data: object
    images: int | None
    part: str
    split_seed: int
    size: int | None
    order: str
    sky: str
    pixel_scale: float
    seed: int
    tune_images: int
    photometry_images: int
    blank_frames: int
    aperture: float
    give_variance: bool
    name: str | None = None


class Workplace:
    """The images and what is measured of them, read once a process."""

    def __init__(self, settings):
        self.settings = settings

    @cached_property
    def references(self):
        """One a stamp, in their order."""
        s = self.settings
        first = s.order == "degrade-first"
        stamps = read_stamps(
            s.data,
            images=s.images,
            part=s.part,
            split_seed=s.split_seed,
            size=None if first else s.size,
            sky=s.sky,
            name=s.name,
        )
        return [Reference(stamp, s.size if first else None, s.aperture / s.pixel_scale) for stamp in stamps]

    @cached_property
    def content(self):
        """Digest of all images, names included."""
        digest = hashlib.sha256()
        for stamp in (r.stamp for r in self.references):
            digest.update(f"{stamp.name} {stamp.flux.shape} ".encode())
            for plane in (stamp.flux, stamp.sky_level, stamp.sky_sigma, stamp.noise_free):
                digest.update(b"-" if plane is None else np.ascontiguousarray(plane).tobytes())
        return digest.hexdigest()

    def key(self, cell, row):
        """Digest of all that the numbers of a cell and row depend on."""
        s = self.settings
        own = (s.size, s.order, s.sky, s.pixel_scale, s.seed, s.photometry_images, s.blank_frames, s.aperture)
        tuning = s.tune_images if row.tuned else None
        everything = [_FORMAT, self.content, own, tuning, s.give_variance, list(cell), row.fingerprint(cell)]
        return hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:20]

    # ---- degradation ----------------------------------------------------------------------------------------------

    def degrader(self, cell):
        """The recipe of the paper at a cell."""
        fwhm = cell.fwhm / self.settings.pixel_scale
        return GalaxyGAN2017Degrader(fwhm, cell.noise, independent=cell.convention == "independent")

    def degraded(self, cell, number):
        """(image, variance) of one stamp; its noise depends on seed, cell and name alone."""
        stamp = self.references[number].stamp
        return self._degrade(cell, stamp.flux, stamp.sky_sigma, stamp.name)

    def blank_sky(self, cell):
        """Frames of sky alone, with the median stamp's level and noise, degraded: [(image, variance)]."""
        level, sigma = (np.median([getattr(r.stamp, n) for r in self.references], axis=0) for n in _SKY)
        shape = self.references[0].stamp.flux.shape
        frames = []
        for k in range(self.settings.blank_frames):
            sky = self._rng("sky", k).normal(size=shape) * sigma[:, None, None] + level[:, None, None]
            frames.append(self._degrade(cell, sky.astype(np.float32), sigma, f"sky {k}"))
        return frames

    def _degrade(self, cell, flux, sky_sigma, name):
        variance = np.broadcast_to((sky_sigma**2).astype(np.float32)[:, None, None], flux.shape)
        seen = self.degrader(cell)(Observation(flux, variance=variance), rng=self._rng(str(cell), name))
        return seen.data, seen.variance

    def _rng(self, *words):
        digest = hashlib.sha256(" ".join(map(str, words)).encode()).digest()
        return np.random.default_rng([self.settings.seed, int.from_bytes(digest[:8], "little")])

    # ---- a row at a cell --------------------------------------------------------------------------------------------

    def restoration(self, cell, row, **options):
        """The row, made ready for the cell."""
        return Restoration(row, cell, self.degrader(cell).kernel, self.settings.pixel_scale, **options)

    def restored(self, restore, image, variance):
        """One image through a row; its variance is told only where users are to have it."""
        return restore(image, variance if self.settings.give_variance else None, rng=self.settings.seed)

    def tuned(self, cell, row, degraded):
        """The options that are chosen with the truth on the first images, {} for a row without."""
        if row.tuned is None:
            return {}
        few = range(min(self.settings.tune_images, len(self.references)))

        def score(value):
            restore = self.restoration(cell, row, **{row.tuned: value})
            images = [self.restored(restore, *degraded[k]) for k in few]
            return float(np.mean([self.references[k].scores(images[k], False)["psnr"] for k in few]))

        return {row.tuned: tune(row.tuned, score)[0]}

    def table(self, cell, row, degraded):
        """The scores of a row at a cell, an image a line; the rest in ``meta``."""
        from astropy.table import Table

        tuned = self.tuned(cell, row, degraded)
        restore = self.restoration(cell, row, **tuned)
        lines, started = [], time.perf_counter()
        count = len(degraded) if row.most is None else min(row.most, len(degraded))
        seconds = 0.0
        for k in range(count):
            started = time.perf_counter()
            image = self.restored(restore, *degraded[k])
            seconds += time.perf_counter() - started
            scores = self.references[k].scores(image, k < self.settings.photometry_images)
            lines.append({"image": self.references[k].stamp.name, **scores})
        frames = self.blank_sky(cell)[: 1 if row.most else None]
        after = [self.restored(restore, *frame) for frame in frames]
        table = Table(lines)
        for name in _COLUMNS:
            table[name].info.format = ".6g"
        table["psnr"].unit = table["psnr_linear"].unit = "dB"
        table["flux_bias"].unit = "percent"
        table.meta = {
            "key": self.key(cell, row),
            "tuned": {name: float(value) for name, value in tuned.items()},
            "seconds": seconds / max(count, 1),
            "blank_sky": blank_sky_scores([image for image, _ in frames], after) if frames else {},
        }
        return table

    def limits(self):
        """Per image: PSNR of the noise-free truth where known, and what the target's sky noise alone allows."""
        from astropy.table import Table

        rows = [
            {
                "image": r.stamp.name,
                "ceiling": r.ceiling(),
                "noise_limit": r.noise_limit(self._rng("limit", r.stamp.name)),
            }
            for r in self.references
        ]
        return Table(rows)


# ---- all cells, resumable -------------------------------------------------------------------------------------------

_HERE: list = []
"""A worker process's own `Workplace`."""


def measure(settings, cells, rows, folder, *, jobs=1, progress=None):
    """Measure what is not in ``folder`` yet, and return all tables, {(cell, row name): table}.

    Parameters
    ----------
    settings : Settings
    cells : list of Cell
    rows : list of Row
    folder : path
        Where each cell and row keeps its table.
    jobs : int
        Processes.
    progress : callable, optional
        Called with a line of text.

    Returns
    -------
    tables : dict
    workplace : Workplace
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    place = Workplace(settings)
    run = secrets.token_hex(8)
    rows = [replace(row, run=run) for row in rows]
    say = progress or (lambda text: None)
    todo = [(cell, [row for row in rows if _stored(place, folder, cell, row) is None]) for cell in cells]
    todo = [(cell, missing) for cell, missing in todo if missing]
    say(f"{len(place.references)} images, {len(cells)} cells; {len(cells) - len(todo)} of them are there already")
    if jobs == 1 or len(todo) <= 1:
        for number, (cell, missing) in enumerate(todo, 1):
            _measure_cell(place, folder, cell, missing)
            say(f"{number}/{len(todo)}  {cell}")
    else:
        _measure_in_processes(settings, folder, todo, jobs, say)
    tables = {(cell, row.name): _stored(place, folder, cell, row) for cell in cells for row in rows}
    return tables, place


def _measure_in_processes(settings, folder, todo, jobs, say):
    import multiprocessing

    # Not forked: torch's threads do not survive that.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(settings,)) as pool:
        waiting = {pool.submit(_work, folder, cell, missing): cell for cell, missing in todo}
        for number, done in enumerate(as_completed(waiting), 1):
            done.result()
            say(f"{number}/{len(todo)}  {waiting[done]}")


def _start_worker(settings):
    # A core a process: torch, which is not loaded yet, looks here.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _HERE[:] = [Workplace(settings)]


def _work(folder, cell, rows):
    _measure_cell(_HERE[0], folder, cell, rows)


def _measure_cell(place, folder, cell, rows):
    from astrogan.image.write import write_table

    degraded = [place.degraded(cell, k) for k in range(len(place.references))]
    for row in rows:
        write_table(place.table(cell, row, degraded), _path(folder, cell, row), overwrite=True)


def _path(folder, cell, row):
    name = "".join(c if c.isalnum() or c in "-." else "_" for c in row.name)
    if len(name) > 60 or name != row.name:  # two labels must not fall together
        name = f"{name[:50]}-{hashlib.sha256(row.name.encode()).hexdigest()[:6]}"
    return folder / f"{cell}-{name}.ecsv"


def _stored(place, folder, cell, row):
    """The table of an earlier run with the same settings, or None."""
    from astropy.table import Table

    path = _path(folder, cell, row)
    if not path.is_file():
        return None
    table = Table.read(path, format="ascii.ecsv")
    return table if table.meta.get("key") == place.key(cell, row) else None
