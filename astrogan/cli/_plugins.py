"""``astrogan backends`` and ``astrogan plugin``."""

from __future__ import annotations

import click

from astrogan.cli._output import show_table

__all__ = ["backends", "plugin"]

# As astrogan.api and astrogan.plugins.template have them; spelled out, so that --help need not import numpy.
_ROLES = ("restorer", "degrader", "deblender", "translator", "noise")
_LICENCES = ("BSD-3-Clause", "MIT", "none")


@click.command()
@click.option("--role", help="restorer, degrader, deblender, translator or noise.")
def backends(role):
    """List the installed backends: who brought them and whether they can be used."""
    from astrogan import list_backends

    show_table(list_backends(role))


@click.group()
def plugin():
    """Backends of your own."""


@plugin.command("new")
@click.argument("name", metavar="NAME")
@click.option("--role", type=click.Choice(_ROLES), default="restorer", show_default=True, help="What it is.")
@click.option("--folder", type=click.Path(file_okay=False), default=".", show_default=True, help="Where to write it.")
@click.option("--author", help="'A. Author' or 'A. Author <mail@example.org>'.")
@click.option("--licence", type=click.Choice(_LICENCES), default="BSD-3-Clause", show_default=True)
def plugin_new(name, role, folder, author, licence):
    """Write the folder astrogan-NAME: a package whose backend NAME works, with its entry point and its test."""
    import shlex

    from astrogan.plugins.template import new_plugin

    path = new_plugin(name, folder, role, author, None if licence == "none" else licence)
    click.echo(str(path))
    click.echo(f"next: python -m pip install -e {shlex.quote(str(path))}; astrogan backends --role {role}", err=True)
