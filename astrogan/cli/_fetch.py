"""``astrogan fetch``."""

from __future__ import annotations

import click

__all__ = ["fetch"]


class _Fetches(click.Group):
    """A command a survey; imported when it is asked for."""

    def list_commands(self, ctx):
        return ["galaxy-zoo", "legacy", "sdss"]

    def get_command(self, ctx, name):
        from astrogan.datasets._command import COMMANDS

        return COMMANDS.get(name)


@click.group(cls=_Fetches)
def fetch():
    """Fetch survey images: SDSS cutouts, Galaxy Zoo's stamps, Legacy Surveys cutouts."""
