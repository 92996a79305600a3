"""``astrogan demo``."""

from __future__ import annotations

import click

from astrogan.cli._output import show_files, show_table

__all__ = ["demo"]


@click.group(invoke_without_command=True)
@click.pass_context
@click.option(
    "-o", "--output", default="astrogan-demo", show_default=True, type=click.Path(file_okay=False), help="Folder."
)
@click.option("--size", type=click.IntRange(min=128), default=384, show_default=True, help="Pixels along each axis.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def demo(context, output, size, seed, overwrite):
    """Simulate a field, degrade, restore, deblend and translate it; write FITS files, a figure and tables.

    With a name: the pipeline of a paper.
    """
    if context.invoked_subcommand:
        return
    from astrogan.demo import run_demo

    say = lambda text: click.echo(text, err=True)  # noqa: E731 - one line, used once
    result = run_demo(output, size=size, seed=seed, overwrite=overwrite, progress=say)
    for title, table in result.tables.items():
        show_table(table, title)
        click.echo(click.wrap_text(table.meta["caption"], 110))
    show_files(result.files)


@demo.command("usaid2019")
@click.argument("pictures", nargs=-1, type=click.Path(exists=True, dir_okay=False), metavar="[FIRST SECOND]")
@click.option(
    "-o", "--output", default="astrogan-usaid2019", show_default=True, type=click.Path(file_okay=False), help="Folder."
)
@click.option("--rule", type=click.Choice(["mean", "maximum"]), default="mean", show_default=True, help="Of the blend.")
@click.option("--shift", type=int, default=50, show_default=True, help="Pixels to the right of the second galaxy.")
@click.option("--noise", type=click.FloatRange(min=0), default=0.03, show_default=True, help="On the segments.")
@click.option("--weights", default="auto", show_default=True, help="Name or path.")
@click.option("--completion", type=click.Choice(["encoder", "inversion"]), default="encoder", show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=200, show_default=True, help="Of the inversion.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def demo_usaid2019(pictures, output, **options):
    """Blend two galaxies, segment the blend, complete the halves: the pipeline of Usaid et al. (2019), in one figure.

    FIRST and SECOND are colour pictures of one galaxy each (JPEG, PNG, or FITS with three bands); without them two are
    simulated.
    """
    from astrogan.demo_usaid2019 import run_pipeline

    if len(pictures) not in (0, 2):
        raise click.UsageError("give two pictures, FIRST and SECOND, or none")
    say = lambda text: click.echo(text, err=True)  # noqa: E731 - one line, used once
    result = run_pipeline(*pictures, out=output, progress=say, **options)
    show_table(result.table)
    show_files(result.files)
