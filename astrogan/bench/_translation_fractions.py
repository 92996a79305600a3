"""What unpaired images are worth: the same scores for runs that were trained on pairs, without, and on both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astrogan.bench._translation_rows import Row
from astrogan.bench._translation_tables import HEADLINE, MEASURES
from astrogan.exceptions import InputError

__all__ = ["Run", "find_runs", "fraction_table"]

_NAME = re.compile(r"(?P<backend>lin2020|surveynet)-(?P<mode>.+)-(?P<seed>\d+)")


@dataclass(frozen=True)
class Run:
    """A training run.

    Parameters
    ----------
    row : Row
    mode : str
        What it was trained on, as its name says.
    seed : int
    """

    row: Row
    mode: str
    seed: int


def find_runs(source):
    """Runs by the names of their folders or files, ``<backend>-<mode>-<seed>``.

    Parameters
    ----------
    source : path or dict
        A folder of run folders or of weight files, or {name: path}.

    Returns
    -------
    list of Run
        By mode, then seed.
    """
    if isinstance(source, Mapping):
        found = {str(name): Path(path) for name, path in source.items()}
        wrong = [name for name in found if not _NAME.fullmatch(name)]
        if wrong:
            raise InputError(f"fractions: {wrong[0]!r} must be <backend>-<mode>-<seed>, as surveynet-semi-0")
    else:
        folder = Path(source)
        if not folder.is_dir():
            raise InputError(f"fractions={str(source)!r} is no folder of training runs")
        found = {p.stem if p.is_file() else p.name: p for p in sorted(folder.iterdir())
                 if p.is_dir() or p.suffix == ".safetensors"}  # fmt: skip
        found = {name: path for name, path in found.items() if _NAME.fullmatch(name)}
    runs = []
    for name, path in found.items():
        parts = _NAME.fullmatch(name)
        row = Row(name, parts["backend"], {"weights": str(_weights(name, path))})
        runs.append(Run(row, parts["mode"], int(parts["seed"])))
    if not runs:
        raise InputError(f"fractions={str(source)!r} has no run named <backend>-<mode>-<seed>, as surveynet-semi-0")
    return sorted(runs, key=lambda run: (run.mode, run.seed))


def _weights(name, path):
    """The weights of a run folder."""
    if path.is_file():
        return path
    files = sorted(path.glob("*.safetensors"))
    if len(files) > 1:
        files = [file for file in files if file.stem in (name, "weights")] or files[:0]
    if len(files) != 1:
        raise InputError(f"fractions: {str(path)!r} must hold one .safetensors file, or one named {name}")
    return files[0]


def fraction_table(scores, runs):
    """Scores by mode: mean and scatter over seeds.

    Parameters
    ----------
    scores : `~astropy.table.Table`
        Of `~astrogan.bench._translation_tables.score_table`, of the runs.
    runs : sequence of Run

    Returns
    -------
    `~astropy.table.Table`
        A line a direction and mode; ``_std`` is the standard deviation over seeds, NaN for one.
    """
    from astropy.table import Table

    mean = scores[scores["band"] == "mean"]
    lines = []
    for direction in dict.fromkeys(map(str, mean["direction"])):
        for backend, mode in dict.fromkeys((run.row.backend, run.mode) for run in runs):
            names = [run.row.name for run in runs if (run.row.backend, run.mode) == (backend, mode)]
            part = mean[(mean["direction"] == direction) & np.isin(mean["row"], names)]
            line = {"direction": direction, "backend": backend, "mode": mode, "seeds": len(part)}
            for measure in HEADLINE:
                values = np.asarray(part[measure], np.float64)
                line[measure] = float(values.mean()) if len(values) else np.nan
                line[f"{measure}_std"] = float(values.std(ddof=1)) if len(values) > 1 else np.nan
            lines.append(line)
    table = Table(rows=lines, names=list(lines[0]))
    for measure in HEADLINE:
        table[measure].info.format = table[f"{measure}_std"].info.format = ".4g"
    table.meta["caption"] = (
        "Means over the bands of the medians over stamps, then mean and standard deviation over seeds. "
        + "; ".join(f"{m}: {MEASURES[m]}" for m in HEADLINE)
        + "."
    )
    return table
