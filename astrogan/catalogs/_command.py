"""What ``astrogan restore``, ``degrade`` and ``translate`` do with a catalog, or with many images."""

from __future__ import annotations

import os
from pathlib import Path

import click

__all__ = ["catalog_options", "run_many", "taken_over"]


def catalog_options(function):
    """Options of a command that also works on catalogs; `taken_over` takes them out of its keywords."""
    options = (
        click.option(
            "--catalog", type=click.Path(dir_okay=False), help="Table of places: a stamp a row; -o: a folder."
        ),
        click.option("--image", multiple=True, metavar="FILE", help="With --catalog: the mosaic; several: one a band."),
        click.option("--size", type=click.IntRange(min=1), help="With --catalog: edge of the stamps in pixels."),
        click.option("--margin", type=click.IntRange(min=0), help="With --catalog: pixels of context."),
        click.option("--sky", help="With --catalog: columns RA,DEC (or of a sky position)."),
        click.option("--xy", help="With --catalog: columns X,Y of 0-based pixels."),
        click.option("--image-column", help="With --catalog: column with a path a row, instead of --image."),
        click.option("--id-column", help="With --catalog: column with the names of the rows."),
        click.option("--layout", type=click.Choice(["cube", "files"]), help="With --catalog: cubes, or a file a row."),
        click.option("--chunk", type=click.IntRange(min=1), help="With --catalog: rows that are recorded together."),
    )
    for option in reversed(options):
        function = option(function)
    return function


_NAMES = ("catalog", "image", "size", "margin", "sky", "xy", "image_column", "id_column", "layout", "chunk")


def taken_over(keywords, images, output):
    """Take the options of `catalog_options` out of a command's keywords.

    Parameters
    ----------
    keywords : dict
        Loses them.
    images : sequence of str
        IN.
    output : str
        Where the results go.

    Returns
    -------
    dict or None
        `None` where the command is for one image: there is no catalog, and OUTPUT is no folder.
    """
    many = {name: keywords.pop(name) for name in _NAMES}
    if many["catalog"] is not None:
        return many
    given = [f"--{name.replace('_', '-')}" for name, value in many.items() if value]
    if given:
        raise click.UsageError(f"{', '.join(given)}: for stamps of a catalog; add --catalog TABLE")
    if not images:
        raise click.UsageError("Missing argument 'IN...'.")
    return many if str(output).endswith(("/", os.sep)) or Path(output).is_dir() else None


def run_many(operator, images, output, many, *, restart=False, seed=0, **options):
    """Work on a catalog, or on images one by one, and say what came of it.

    Parameters
    ----------
    operator : `~astrogan.operators.base.Operator`
    images : sequence of str
        IN; with ``--catalog`` it stands for ``--image`` where that is left out.
    output : str
        The folder.
    many : dict
        From `taken_over`.
    restart : bool
        Begin anew.
    seed : int
    **options
        As for `~astrogan.catalogs.process_catalog`.
    """
    from astrogan.catalogs import process_catalog, process_images

    options |= {"resume": not restart, "rng": seed}
    if many["catalog"] is None:
        table = process_images(operator, images, output, **options)
    else:
        table = process_catalog(operator, **_arguments(images, many), output=output, **options)
    _say(table, output)


def _arguments(images, many):
    """Arguments of `process_catalog` from the options of the command line."""
    files = list(many["image"]) + list(images)
    if many["size"] is None:
        raise click.UsageError("--catalog needs --size, the edge of the stamps in pixels, e.g. --size 64")
    if bool(files) == bool(many["image_column"]):
        raise click.UsageError("--catalog needs --image MOSAIC, or --image-column NAME, one of them")
    own = {name: many[name] for name in _NAMES if many[name] is not None} | {"image": files or None}
    own |= {name: _names(own[name]) for name in ("sky", "xy") if name in own}
    return own | ({"image": files[0]} if len(files) == 1 else {})


def _names(text):
    """One name, or two with a comma between them."""
    names = [name.strip() for name in text.split(",")]
    return names[0] if len(names) == 1 else tuple(names)


def _say(table, output):
    """The results' path, and how often each status occurs; exit status 1 where there is no stamp at all."""
    from collections import Counter

    from astrogan.catalogs._journal import RESULTS

    click.echo(str(Path(output) / RESULTS))
    counts = Counter(str(status) for status in table["status"]).most_common()
    click.echo(f"{len(table)} rows: {', '.join(f'{count} {status}' for status, count in counts)}", err=True)
    if not any(str(name) for name in table["file"]):
        raise click.exceptions.Exit(1)
