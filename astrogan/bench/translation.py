"""Survey-to-survey translators beside the classic one and a second exposure: ``astrogan bench translation``.

Five parts, on simulated galaxies as SDSS and CFHTLS see them in u g r i z:

- ``pairs``: a frozen set of test pairs, both ways; where the light is, Fourier maps, magnitudes, colours, centroids,
  sizes, ellipticities, energy score and coverage, each beside what a second exposure of the same galaxy scores.
- ``noise``: the noise of each row's images, and of each noise model, on source-free sky beside the surveys' own.
- ``fields``: centroids of a bright compact source placed anywhere in the stamp.
- ``fractions``: the same scores by how much of the training was paired, with the scatter over seeds.
- ``wcs``: round trips through both grids, conserved flux, and the classic path against a noise-free truth, for
  rotated, mirrored, distorted and incommensurate grids.

All need GalSim's numbers of the surveys (surveycodex). Rows whose weights are not there are left out, and named.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from astrogan.bench._translation_rows import DIRECTIONS
from astrogan.exceptions import ImageWriteError, InputError

__all__ = ["DIRECTIONS", "PARTS", "TranslationBenchmark", "main", "run"]

PARTS = ("pairs", "noise", "fields", "fractions", "wcs")
_CHUNKS = 20


@dataclass(frozen=True)
class TranslationBenchmark:
    """What a run found.

    Parameters
    ----------
    tables : dict of str to `~astropy.table.Table`
        ``meta["caption"]`` says what the columns are.
    lines : tuple of str
        The default beside the other rows, and the noise beside its limits, in a sentence each.
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

    rows: list
    runs: list
    directions: tuple
    number: int
    samples: int
    sampled: int
    pairs: Any
    jobs: int
    say: Any
    bands: tuple
    scales: dict
    gans: dict
    skipped: dict
    tables: dict = field(default_factory=dict)
    lines: list = field(default_factory=list)
    figures: dict = field(default_factory=dict)
    kept: dict = field(default_factory=dict)


def run(
    *,
    parts=PARTS,
    rows=None,
    weights=None,
    fractions=None,
    number=500,
    directions=DIRECTIONS,
    samples=4,
    sampled=50,
    out=None,
    jobs=1,
    progress=None,
):
    """Make the tables.

    Parameters
    ----------
    parts : sequence of str
        Of `PARTS`; ``fractions`` is passed over where the argument of that name is not given.
    rows : sequence of str, optional
        Of second-exposure, psf-matching, lin2020, its variants as lin2020-pix2pix, and surveynet, or any translator
        with options, as in ``"psf-matching:resampling=exact"``. Default: all; those that do not load are reported in
        ``skipped``.
    weights : dict, optional
        {row: name or path of weights}, for rows above or for more of them, e.g. ``{"surveynet-mine": path}``;
        ``noise-gan-sdss`` and ``noise-gan-cfhtls`` are those of the noise model ``gan``.
    fractions : path or dict, optional
        Folder of training runs (or {name: path}) named ``<backend>-<mode>-<seed>``, as ``surveynet-semi-0``.
    number : int
        Test pairs; fewer are part of more.
    directions : sequence of str
        Of `DIRECTIONS`.
    samples, sampled : int
        Random images for the energy score, and pairs on which it is taken.
    out : path, optional
        Folder for tables, Markdown and figures.
    jobs : int
        Processes.
    progress : callable, optional
        Called with a line of text.

    Returns
    -------
    TranslationBenchmark

    Raises
    ------
    InputError
        If an argument is out of range, or no row is left.
    """
    from astrogan.bench._translation_rows import available, named_rows, stamps_of
    from astrogan.bench._translation_sets import benchmark
    from astrogan.bench._translation_tables import markdown

    parts, directions = tuple(dict.fromkeys(parts)), tuple(dict.fromkeys(directions))
    _check(parts, directions, number=number, samples=samples, sampled=sampled, jobs=jobs)
    say = progress or (lambda text: None)
    runs = _runs(fractions) if "fractions" in parts and fractions is not None else []
    gans = {survey: path for name, path in (weights or {}).items() if (survey := _gan_of(name))}
    weights = {name: path for name, path in (weights or {}).items() if not _gan_of(name)}
    trial = next(iter(benchmark(0, 1)))
    working, skipped = available(named_rows(rows, weights), trial, directions)
    ready, missing = available([run.row for run in runs], trial, directions)
    skipped |= missing
    for name, why in skipped.items():
        say(f"{name} is left out: {why}")
    if not working:
        raise InputError(f"rows={rows!r}: none can be used; {'; '.join(skipped.values())}")
    names = {row.name for row in ready}
    scales = {d: stamps_of(trial, d)[1].pixel_scale for d in directions}
    runs = [run for run in runs if run.row.name in names]
    job = _Job(working, runs, directions, number, samples, sampled, benchmark, jobs, say, trial.first.bands, scales,
               gans, skipped)  # fmt: skip
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) if out is None else Path(out)
        for part in parts:
            say(part)
            _PARTS[part](job)
        text = markdown(job.tables, job.lines, skipped)
        files = () if out is None else _write(folder, job, text)
    return TranslationBenchmark(job.tables, tuple(job.lines), skipped, files)


def _check(parts, directions, **counts):
    for name, given, known in (("parts", parts, PARTS), ("directions", directions, DIRECTIONS)):
        if not given or [one for one in given if one not in known]:
            raise InputError(f"{name}={given!r} must be of: {', '.join(known)}")
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value!r} must be a positive integer")


def _gan_of(name):
    """The survey whose noise the weights of that name make, if any."""
    survey = str(name).removeprefix("noise-gan-")
    return survey if survey != str(name) else None


def _runs(fractions):
    from astrogan.bench._translation_fractions import find_runs

    return find_runs(fractions)


def _write(folder, job, text):
    """A table a file, all of them as Markdown, and the figures."""
    from astrogan.image.write import atomic_path, write_table

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for title, table in job.tables.items():
        files.append(folder / f"translation-{title}.ecsv")
        write_table(table, files[-1], overwrite=True)
    files.append(folder / "translation.md")
    with atomic_path(files[-1], overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for name, draw in job.figures.items():
        files.append(folder / f"translation-{name}.png")
        draw(files[-1])
    return tuple(files)


# ---- parts ----------------------------------------------------------------------------------------------------------


def _measured(job):
    """All rows on all pairs; done once, for whichever parts need it."""
    if job.kept:
        return job.kept
    from astrogan.bench._deblending_grid import in_processes
    from astrogan.bench._translation_scores import Measured

    size = max(1, -(-job.number // _CHUNKS))
    chunks = [(start, min(size, job.number - start)) for start in range(0, job.number, size)]
    rows = [*job.rows, *(run.row for run in job.runs)]
    work = ((rows, job.pairs, chunk, job.directions, job.samples, job.sampled) for chunk in chunks)
    parts = []
    for done, part in enumerate(in_processes(_numbered, work, job.jobs), 1):
        parts.append(part)
        job.say(f"{min(done * size, job.number)}/{job.number} pairs")
    parts = [part for _, part in sorted(parts, key=lambda numbered: numbered[0])]
    job.kept = {
        direction: {name: Measured.joined([part[direction][name] for part in parts]) for name in parts[0][direction]}
        for direction in job.directions
    }
    return job.kept


def _numbered(*arguments):
    """A chunk with its first number: processes do not finish in order."""
    from astrogan.bench._translation_scores import measure_chunk

    return arguments[2][0], measure_chunk(*arguments)


def _of_rows(job, rows):
    """What was measured, of some rows and of the real images and the truth."""
    names = {row.name for row in rows} | {"real", "truth"}
    return {d: {name: own for name, own in kept.items() if name in names} for d, kept in _measured(job).items()}


def _pairs(job):
    from astrogan.bench._translation_figure import draw_examples, draw_fourier, draw_radial, draw_variants
    from astrogan.bench._translation_tables import headline_table, score_table, sentences

    kept = _of_rows(job, job.rows)
    scores = score_table(kept, job.bands, job.scales)
    job.tables |= {"headline": headline_table(scores), "scores": scores}
    job.lines += sentences(scores)
    for direction in job.directions:
        job.figures |= {
            f"examples-{direction}": lambda path, d=direction: draw_examples(path, job.pairs, job.rows, d, job.number),
            f"variants-{direction}": lambda path, d=direction: draw_variants(path, job.pairs, job.rows, d, job.number),
            f"radial-{direction}": lambda path, d=direction: draw_radial(path, kept[d], job.bands, d),
            f"fourier-{direction}": lambda path, d=direction: draw_fourier(path, kept[d], job.bands, d, job.scales[d]),
        }


def _noise(job):
    from astrogan.bench._translation_figure import draw_noise
    from astrogan.bench._translation_noise import model_table, noise_sentences, noise_table
    from astrogan.bench._translation_tables import HALVES

    kept = _of_rows(job, job.rows)
    job.tables["noise"] = table = noise_table(kept, job.bands)
    if len(table):
        job.lines += noise_sentences(table, ("direction", "row"), HALVES, larger=2**0.5)
    surveys = dict.fromkeys(direction.partition("-")[2] for direction in job.directions)
    models, skipped = model_table(surveys, job.number, job.gans, job.say, job.bands)
    job.tables["noise-models"] = models
    job.lines += noise_sentences(models, ("survey", "model"), "real again")
    job.skipped |= skipped
    for direction in job.directions:
        job.figures[f"noise-{direction}"] = lambda path, d=direction: draw_noise(path, kept[d], job.bands, d)


def _fields(job):
    from astrogan.bench._translation_fields import field_tables
    from astrogan.bench._translation_figure import draw_fields

    summary, places = field_tables(job.rows, job.pairs, job.directions)
    job.tables |= {"fields": summary, "fields-places": places}
    job.figures["fields"] = lambda path: draw_fields(path, places)


def _fractions(job):
    from astrogan.bench._translation_fractions import fraction_table
    from astrogan.bench._translation_tables import score_table

    if not job.runs:
        job.say("fractions: no runs were given")
        return
    scores = score_table(_of_rows(job, [run.row for run in job.runs]), job.bands, job.scales)
    job.tables |= {"fractions": fraction_table(scores, job.runs), "fractions-runs": scores}


def _wcs(job):
    from astrogan.bench._translation_wcs import grid_table, noise_free_table

    job.tables["wcs"] = grid_table()
    job.tables["noise-free"] = noise_free_table()


_PARTS = dict(zip(PARTS, (_pairs, _noise, _fields, _fractions, _wcs), strict=True))


# ---- command line ---------------------------------------------------------------------------------------------------


def _named(context, parameter, values):
    """``NAME=PATH`` options as a dict."""
    pairs = [value.partition("=") for value in values]
    wrong = [name + equals + path for name, equals, path in pairs if not (name and equals and path)]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} must be NAME=PATH, e.g. lin2020=runs/lin2020/lin2020.safetensors")
    return {name: path for name, _, path in pairs}


@click.command("translation")
@click.option("--parts", multiple=True, type=click.Choice(PARTS), help="Part; repeatable. Default: all.")
@click.option("-r", "--row", "rows", multiple=True, metavar="NAME[:OPTION=VALUE,...]", help="Row; repeatable.")
@click.option(
    "-w", "--weights", multiple=True, metavar="NAME=PATH", callback=_named, help="Weights of a row; repeatable."
)
@click.option(
    "--fractions",
    type=click.Path(exists=True, file_okay=False),
    help="Folder of training runs named <backend>-<mode>-<seed>, e.g. surveynet-semi-0.",
)
@click.option("--number", type=click.IntRange(1), default=500, show_default=True, help="Test pairs.")
@click.option("--direction", "directions", multiple=True, type=click.Choice(DIRECTIONS), help="Default: both.")
@click.option("--samples", type=click.IntRange(2), default=4, show_default=True, help="Images for the energy score.")
@click.option("--sampled", type=click.IntRange(1), default=50, show_default=True, help="Pairs for the energy score.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("-o", "--output", "out", required=True, type=click.Path(file_okay=False), help="Folder for the results.")
def command(parts, rows, weights, directions, out, **options):
    """Translate simulated SDSS and CFHTLS galaxies both ways: light, noise and shapes, beside a second exposure."""
    from astrogan.bench._translation_tables import shown

    path = Path(out)
    if path.exists() and not path.is_dir():
        raise ImageWriteError(f"output {out!r} is no folder; give another")
    path.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(text):
        click.echo(f"{time.monotonic() - started:7.0f} s  {text}", err=True)

    result = run(
        parts=parts or PARTS,
        rows=rows or None,
        weights=weights,
        directions=directions or DIRECTIONS,
        out=out,
        progress=say,
        **options,
    )
    for title, table in result.tables.items():
        click.echo(f"\n{title}\n" + "\n".join(shown(table).pformat(max_lines=-1, max_width=-1)))
        click.echo(click.wrap_text(table.meta.get("caption", ""), 110))
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
    command.main(args=arguments, prog_name="python -m astrogan.bench.translation", standalone_mode=False)


if __name__ == "__main__":
    main()
