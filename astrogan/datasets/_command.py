"""The commands of ``astrogan fetch``."""

from __future__ import annotations

import sys
from contextlib import contextmanager

import click

_TABLE = click.Path(exists=True, dir_okay=False)


def _shared(function):
    """Options of all of them."""
    for option in reversed(
        (
            click.option("-o", "--output", required=True, type=click.Path(file_okay=False), help="Folder to fill."),
            click.option("--limit", type=click.IntRange(min=1), help="Only the first so many objects."),
            click.option("--timeout", type=click.FloatRange(min=1), default=60, show_default=True, help="Seconds."),
            click.option("--retries", type=click.IntRange(min=0), default=4, show_default=True, help="Of each file."),
            click.option(
                "--rate", type=click.FloatRange(min=0.01), default=3, show_default=True, help="Requests a second."
            ),
            click.option("--server", help="Address of the service or of a mirror."),
        )
    ):
        function = option(function)
    return function


def _run(fetch, output, *arguments, timeout, retries, rate, **options):
    """Fetch, with a bar on a terminal; say what came of it."""
    from astrogan.datasets import Downloader

    options = {name: value for name, value in options.items() if value is not None}
    downloader = Downloader(timeout=timeout, retries=retries, rate=rate)
    with _progress() as progress:
        table = fetch(output, *arguments, downloader=downloader, progress=progress, **options)
    statuses = [str(status) for status in table["status"]]
    said = [f"{statuses.count(status)} {status}" for status in ("ok", "left out", "failed") if status in statuses]
    click.echo(f"{', '.join(said)}, {sum(table['bytes']) / 1e6:.1f} MB: {output}/manifest.ecsv")
    if "ok" not in statuses:
        raise click.exceptions.Exit(1)


@contextmanager
def _progress():
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fetching", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@click.command()
@_shared
@click.option("--sample", type=_TABLE, help="Table with ra, dec, run, rerun, camcol, field. Default: the query's.")
@click.option(
    "--redshift", nargs=2, type=float, default=(0.01, 0.02), show_default=True, metavar="LOW HIGH", help="Of the query."
)
@click.option("--size", type=int, default=256, show_default=True, help="Edge in pixels of 0.396 arcsec.")
@click.option("--bands", default="gri", show_default=True, help="Letters of ugriz.")
@click.option("--data-release", type=int, default=12, show_default=True)
@click.option(
    "--min-coverage", type=float, default=0.5, show_default=True, help="Of a galaxy at the edge of its field."
)
@click.option("--keep-frames", is_flag=True, help="Keep the frames, too; some 3 MB each.")
@click.option("--cache", type=click.Path(file_okay=False), help="Folder of the frames. Default: pooch's cache.")
@click.option("--print-query", is_flag=True, help="Print the SQL and fetch nothing.")
def sdss(output, sample, print_query, **options):
    """Fetch calibrated cutouts from SDSS frames: by default the GalaxyGAN paper's 0.01 < z < 0.02."""
    from astrogan.datasets import fetch_sdss_sample, sdss_query

    if print_query:
        click.echo(sdss_query(options["redshift"], bands=options["bands"], limit=options["limit"]))
        return
    _run(fetch_sdss_sample, output, sample, **options)


@click.command("galaxy-zoo")
@_shared
@click.option("--sample", type=_TABLE, help="Table with ra, dec, petror90_r. Default: Galaxy Zoo 2's.")
@click.option("--size", type=int, default=424, show_default=True, help="Edge in pixels.")
@click.option("--pixel-scale", type=float, help="Arcsec per pixel. Default: 0.02 petror90_r.")
@click.option("--data-release", type=int, default=17, show_default=True)
@click.option("--archive", is_flag=True, help="Fetch Galaxy Zoo 2's own stamps instead: one archive of 3.4 GB.")
def galaxy_zoo(output, archive, **options):
    """Fetch colour stamps (JPEG) as Galaxy Zoo's volunteers saw them."""
    from astrogan.datasets import Downloader, fetch_galaxy_zoo, fetch_galaxy_zoo_archive

    sample = options.pop("sample")
    if not archive:
        _run(fetch_galaxy_zoo, output, sample, **options)
        return
    if sample or options["limit"]:
        raise click.UsageError("--archive has all stamps; leave out --sample and --limit")
    downloader = Downloader(timeout=options["timeout"], retries=options["retries"], rate=options["rate"])
    server = {"server": options["server"]} if options["server"] else {}
    for path in fetch_galaxy_zoo_archive(output, downloader=downloader, **server).values():
        click.echo(str(path))


@click.command()
@click.argument("sample", type=_TABLE)
@_shared
@click.option("--size", type=int, default=256, show_default=True, help="Edge in pixels.")
@click.option("--pixel-scale", type=float, default=0.262, show_default=True, help="Arcsec per pixel.")
@click.option("--bands", default="grz", show_default=True, help="Letters of griz.")
@click.option("--layer", default="ls-dr10", show_default=True, help="As the survey's viewer names it.")
@click.option("--inverse-variance/--no-inverse-variance", default=True, show_default=True)
def legacy(sample, output, **options):
    """Fetch cutouts of the Legacy Surveys (DECaLS, BASS, MzLS) around the positions of the table SAMPLE."""
    from astrogan.datasets import fetch_legacy_cutouts

    _run(fetch_legacy_cutouts, output, sample, **options)


COMMANDS = {"galaxy-zoo": galaxy_zoo, "legacy": legacy, "sdss": sdss}
