"""Deblenders beside their peers, the papers' GANs and the truth: ``astrogan bench deblending``.

Six parts, with the trivial methods always beside the others:

- ``blends``: a frozen set of simulated blends; flux, colour, shape, likeness, coverage, by how hard a source is.
- ``truth-files``: simulated HSC blends with known sources.
- ``conservation``: real blends; whether the light adds up, and whether order or place matter.
- ``paper``: the two GAN papers' own experiment, on stretched pictures.
- ``spirals``: how often a spiral galaxy is taken for several sources.
- ``field``: time and memory on a crowded field, beside photutils.

``blends`` and ``field`` need GalSim; all but those two need the folder of real images, which ``--data`` or the
environment variable ASTROGAN_DATA names. With it, ``blends`` has real galaxies among its sources.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from astrogan.exceptions import ImageWriteError, InputError

__all__ = ["PARTS", "DeblendingBenchmark", "main", "run"]

PARTS = ("blends", "truth-files", "conservation", "paper", "spirals", "field")
_SHOWN_BLENDEDNESS = 0.3
_NEED_DATA = ("truth-files", "conservation", "paper", "spirals")


@dataclass(frozen=True)
class DeblendingBenchmark:
    """What a run found.

    Parameters
    ----------
    tables : dict of str to `~astropy.table.Table`
        ``meta["caption"]`` says what the columns are.
    lines : tuple of str
        The default beside the other rows, in a sentence each.
    skipped : dict
        {row: why it is not there}.
    files : tuple of `pathlib.Path`
        Written, if a folder was given.
    """

    tables: dict
    lines: tuple[str, ...]
    skipped: dict
    files: tuple[Path, ...] = ()


@dataclass
class _Job:
    """What all parts are told, and what they add."""

    data: Any
    rows: list
    digests: dict
    number: int
    pairs: int
    spirals: int
    field_size: int
    seed: int
    folder: Path
    jobs: int
    say: Any
    tables: dict = field(default_factory=dict)
    lines: list = field(default_factory=list)
    figures: dict = field(default_factory=dict)


def run(
    data=None,
    *,
    parts=PARTS,
    rows=None,
    number=600,
    pairs=300,
    spirals=60,
    field_size=2048,
    out=None,
    seed=0,
    jobs=1,
    progress=None,
):
    """Make the tables.

    Parameters
    ----------
    data : path, optional
        Folder of the real images. Default: the environment variable ASTROGAN_DATA.
    parts : sequence of str
        Of `PARTS`.
    rows : sequence of str, optional
        Of hard-labels, watershed, symmetric, usaid2019, branched-gan, profile-fit, ratio-net, default and truth-ratio,
        or any backend with options, as in ``"watershed:grow=2"``. Default: all; those that do not load are reported in
        ``skipped``.
    number : int
        Simulated blends; fewer are part of more.
    pairs : int
        Pairs of pictures for the papers' experiment.
    spirals : int
        Spiral galaxies.
    field_size : int
        Edge of the crowded field in pixels; it holds about 2,000 sources at 2048.
    out : path, optional
        Folder for tables, Markdown and figures, and for ``scenes/``, from which an interrupted run goes on.
    seed : int
        Of the pairs and the field. The simulated blends are always the same.
    jobs : int
        Processes, for the simulated blends.
    progress : callable, optional
        Called with a line of text.

    Returns
    -------
    DeblendingBenchmark

    Raises
    ------
    InputError
        If an argument is out of range, or there is no data for a part that needs it.
    """
    from astrogan.bench._deblending_rows import available, named_rows
    from astrogan.bench._deblending_tables import markdown

    data = data or os.environ.get("ASTROGAN_DATA") or None
    parts = tuple(dict.fromkeys(parts))
    _check(data, parts, number=number, pairs=pairs, spirals=spirals, field_size=field_size, jobs=jobs)
    say = progress or (lambda text: None)
    working, skipped, digests = available(named_rows(rows))
    for name, why in skipped.items():
        say(f"{name} is left out: {why}")
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) if out is None else Path(out)
        job = _Job(data, working, digests, number, pairs, spirals, field_size, seed, folder, jobs, say)
        for part in parts:
            say(part)
            _PARTS[part](job)
        text = markdown(job.tables, job.lines, skipped)
        files = () if out is None else _write(folder, job, text)
    return DeblendingBenchmark(job.tables, tuple(job.lines), skipped, files)


def _check(data, parts, **counts):
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise InputError(f"parts={parts!r} must be of: {', '.join(PARTS)}")
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value!r} must be a positive integer")
    needy = [part for part in parts if part in _NEED_DATA]
    if data is None and needy:
        raise InputError(f"data=None: the parts {', '.join(needy)} need the folder of real images; give data=, set "
                         "ASTROGAN_DATA, or leave them out")  # fmt: skip


def _write(folder, job, text):
    """A table a file, all of them as Markdown, and the figures."""
    from astrogan.image.write import atomic_path, write_table

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for title, table in job.tables.items():
        files.append(folder / f"deblending-{title}.ecsv")
        write_table(table, files[-1], overwrite=True)
    files.append(folder / "deblending.md")
    with atomic_path(files[-1], overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for name, draw in job.figures.items():
        files.append(folder / f"deblending-{name}.png")
        draw(files[-1])
    return tuple(files)


# ---- parts ----------------------------------------------------------------------------------------------------------


def _blends(job):
    from astrogan.bench._deblending_figure import draw_blend, draw_errors
    from astrogan.bench._deblending_grid import blend_scenes, measure
    from astrogan.bench._deblending_rows import deblend
    from astrogan.bench._deblending_tables import acceptance, blends_table

    results = measure(
        job.rows, job.digests, job.number, job.folder / "scenes", data=job.data, jobs=job.jobs, progress=job.say
    )
    job.tables["blends"] = blends_table(results)
    job.lines += acceptance(results)
    job.figures["flux-error"] = lambda path: draw_errors(path, results)

    def example(path):
        scene = _example(blend_scenes(min(job.number, 24), job.data))
        draw_blend(path, scene, {row.name: deblend(row, scene, scene.positions) for row in job.rows})

    job.figures["example"] = example


def _example(scenes):
    """Of the first few, a scene of three to five sources with a middling overlap."""
    from astrogan.bench._deblending_scores import scene_facts

    def badness(scene):
        facts = scene_facts(scene)
        mean = sum(f["blendedness"] for f in facts) / len(facts)
        return (not 3 <= len(facts) <= 5, abs(mean - _SHOWN_BLENDEDNESS))

    return min(scenes, key=badness)


def _truth_files(job):
    from astrogan.bench._deblending_figure import draw_bars
    from astrogan.bench._deblending_real import truth_table

    job.tables["truth-files"] = table = truth_table(job.rows, job.data)
    job.figures["truth-files"] = lambda path: draw_bars(
        path, table, "row", "file",
        {"median": "median |dF/F|", "mean_bright": "mean |dF/F|, S/N > 5", "cosine": "median cosine"},
    )  # fmt: skip


def _conservation(job):
    from astrogan.bench._deblending_real import conservation_table

    rows = [row for row in job.rows if not row.needs_truth]
    job.tables["conservation"] = conservation_table(rows, job.data)


def _paper(job):
    from astrogan.bench._deblending_paper import paper_sheet, paper_tables

    table, sheet = paper_tables(job.rows, job.data, pairs=job.pairs, seed=job.seed, jobs=job.jobs, progress=job.say)
    job.tables["paper"] = table
    job.figures["paper"] = lambda path: paper_sheet(path, *sheet)


def _spirals(job):
    from astrogan.bench._deblending_figure import draw_spirals
    from astrogan.bench._deblending_spirals import split_spirals

    table, galaxies, examples = split_spirals(job.data, job.spirals, jobs=job.jobs, progress=job.say)
    job.tables |= {"spirals": table, "spirals-single": galaxies}
    job.figures["spirals"] = lambda path: draw_spirals(path, examples)


def _field(job):
    from astrogan.bench._deblending_field import field_table
    from astrogan.bench._deblending_figure import draw_bars

    rows = [row for row in job.rows if not row.needs_truth]
    job.tables["field"] = table = field_table(rows, job.field_size, seed=job.seed, progress=job.say)
    job.figures["field"] = lambda path: draw_bars(
        path, table, "row", None, {"seconds": "seconds", "megabytes": "peak memory beyond the start, MB"}
    )


_PARTS = dict(zip(PARTS, (_blends, _truth_files, _conservation, _paper, _spirals, _field), strict=True))


# ---- command line ---------------------------------------------------------------------------------------------------


@click.command("deblending")
@click.option("--data", type=click.Path(exists=True), help="Folder of the real images; default: ASTROGAN_DATA.")
@click.option(
    "--parts", multiple=True, type=click.Choice(PARTS), help="Part; repeatable. Default: all that the data allow."
)
@click.option("-r", "--row", "rows", multiple=True, metavar="NAME[:OPTION=VALUE,...]", help="Row; repeatable.")
@click.option("--number", type=click.IntRange(1), default=600, show_default=True, help="Simulated blends.")
@click.option("--pairs", type=click.IntRange(1), default=300, show_default=True, help="Pairs of pictures.")
@click.option("--spirals", type=click.IntRange(1), default=60, show_default=True, help="Spiral galaxies.")
@click.option("--field-size", type=click.IntRange(64), default=2048, show_default=True, help="Pixels of an edge.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("-o", "--output", "out", required=True, type=click.Path(file_okay=False), help="Folder for the results.")
def command(data, parts, rows, out, **options):
    """Deblend simulated, real and stretched blends: flux errors and more, beside watershed, GANs and the truth.

    An interrupted run goes on where it was, from OUTPUT/scenes.
    """
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise ImageWriteError(f"output {out!r} is no folder; give another")
    path.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(text):
        click.echo(f"{time.monotonic() - started:7.0f} s  {text}", err=True)

    has_data = bool(data or os.environ.get("ASTROGAN_DATA"))
    parts = parts or [part for part in PARTS if has_data or part not in _NEED_DATA]
    result = run(data, parts=parts, rows=rows or None, out=out, progress=say, **options)
    from astrogan.bench._deblending_tables import shown

    for title, table in result.tables.items():
        click.echo(f"\n{title}\n" + "\n".join(shown(table).pformat(max_lines=-1, max_width=-1)))
        click.echo(click.wrap_text(table.meta["caption"], 110))
    for line in (*result.lines, *(f"{name} is left out: {why}" for name, why in result.skipped.items())):
        click.echo(line)
    for file in result.files:
        click.echo(str(file))


def main(arguments=None):
    """Run the benchmark from the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    command.main(args=arguments, prog_name="python -m astrogan.bench.deblending", standalone_mode=False)


if __name__ == "__main__":
    main()
