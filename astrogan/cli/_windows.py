"""Images larger than memory: the options of a command that goes by windows, and going by them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from astrogan.cli._input import input_of
from astrogan.exceptions import InputError, MissingDependencyError

__all__ = ["Windows", "dask_client", "mosaic_options", "process_file"]


def mosaic_options(function):
    """Options for images larger than memory."""
    for option in reversed(
        (
            click.option("--mosaic", is_flag=True, help="Go by windows of the file, for images larger than memory."),
            click.option(
                "--window",
                type=click.IntRange(min=64),
                help="Edge of the windows in pixels; default: 768, of other commands 2048.",
            ),
            click.option("--restart", is_flag=True, help="Do not go on from what a killed run left."),
            click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers do it."),
        )
    ):
        function = option(function)
    return function


@dataclass(frozen=True)
class Windows:
    """The values of `mosaic_options`.

    Parameters
    ----------
    mosaic : bool
        Whether to go by windows.
    window : int or None
    restart : bool
    scheduler : str or None
    """

    mosaic: bool
    window: int | None
    restart: bool
    scheduler: Any

    @classmethod
    def taken_from(cls, keywords, *, shared=()):
        """Take the values out of a command's keywords.

        Without --mosaic the others are refused, but for those in ``shared``, which mean something without it, too.
        """
        values = {name: keywords.pop(name) for name in ("mosaic", "window", "restart", "scheduler")}
        given = [f"--{name}" for name, value in values.items() if value and name not in shared]
        if given and not values["mosaic"]:
            raise click.UsageError(f"{', '.join(given)}: for images that are done by windows; add --mosaic")
        return cls(**values)


def process_file(operator, images, output, overwrite, windows, reading, **keywords):
    """An operator from file to file, by windows."""
    image, read = input_of(images[:1], **reading)
    read.pop("max_pixels", None)
    with dask_client(windows.scheduler) as client:
        operator.process(
            image if len(images) == 1 else _named(images),
            output,
            tile=windows.window,
            client=client,
            overwrite=overwrite,
            resume=not windows.restart,
            **keywords,
            **read,
        )
    click.echo(str(output))


def _named(paths):
    """Paths by what tells their names apart, as bands."""
    from astrogan.image.read import read_bands

    corner = (slice(0, 1), slice(0, 1))
    return dict(zip(read_bands(list(paths), unit="adu", section=corner), paths, strict=True))


@contextmanager
def dask_client(address):
    """The client of a dask scheduler; `None` without an address."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingDependencyError("--scheduler needs dask: pip install 'astrogan[dask]'") from error
    try:
        client = Client(address, timeout="20s")
    except (OSError, ValueError) as error:
        raise InputError(f"--scheduler {address!r}: no scheduler answers there: {error}") from error
    with client:
        yield client
