"""What commands write and print."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

import click

from astrogan._text import visible
from astrogan.exceptions import ImageWriteError

__all__ = ["check_outputs", "progress_bar", "show_files", "show_json", "show_table", "write_one"]


def check_outputs(overwrite, images=(), tables=()):
    """Whether the files can be written: said before the work rather than after it."""
    from astrogan.image.write import check_fits_name, check_table_name

    for path in images:
        check_fits_name(path)
    for path in tables:
        check_table_name(path)
    paths = [Path(path) for path in (*images, *tables)]
    if len({path.absolute() for path in paths}) < len(paths):
        raise click.UsageError(f"{str(paths[-1])!r} is to be written twice; give each output a file of its own")
    for path in paths:
        if path.exists() and not overwrite:
            raise ImageWriteError(f"output {str(path)!r} exists; add --overwrite to replace it, or name another file")
        if not path.absolute().parent.is_dir():
            raise ImageWriteError(f"output {str(path)!r}: there is no folder {str(path.parent)!r}; create it first")


def write_one(image, path, overwrite):
    from astrogan.image.write import write_image

    write_image(image, path, overwrite=overwrite)
    click.echo(str(path))


@contextmanager
def progress_bar(label):
    """``progress(done, total)`` for a terminal; silent elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_table(table, title=None):
    """A table on standard output, as wide as it needs to be: nothing is cut."""
    if title:
        click.echo(f"\n{title}")
    lines = table.pformat(max_lines=-1, max_width=-1, show_unit=False, align=_alignment(table))
    click.echo("\n".join(map(visible, lines)))


def _alignment(table):
    return [">" if column.dtype.kind in "fiub" else "<" for column in table.itercols()]


def show_json(value):
    import json

    click.echo(json.dumps(value, indent=2))


def show_files(files):
    click.echo("\nFiles:")
    for path in files:
        click.echo(f"  {path}")
