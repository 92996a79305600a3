"""``astrogan weights``."""

from __future__ import annotations

from pathlib import Path

import click

from astrogan.cli._output import show_json, show_table
from astrogan.exceptions import AstroganError, CheckpointError

__all__ = ["weights"]


@click.group()
def weights():
    """List, show, check and blend the weights of networks."""


@weights.command("list")
@click.option("--role", help="restorer, degrader, deblender, translator or noise.")
@click.option("--backend", help="Only those for this backend.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def weights_list(role, backend, form):
    """List the weights that come with the package."""
    from astrogan.weights import list_weights, read_card

    # A damaged card must not hide the others.
    cards, damaged = [], []
    for name in list_weights(role, backend):
        try:
            cards.append(read_card(name))
        except CheckpointError as error:
            damaged.append(error)
    if form == "json":
        show_json(cards)
    elif cards:
        from astropy.table import Table

        names = ("name", "role", "backend", "bands", "size", "licence")
        show_table(
            Table(rows=[["" if card[n] is None else str(card[n]) for n in names] for card in cards], names=names)
        )
    elif not damaged:
        click.echo("no weights of this kind come with the package", err=True)
    if damaged:
        raise CheckpointError("; ".join(map(str, damaged)))


@weights.command("show")
@click.argument("name", metavar="NAME")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def weights_show(name, form):
    """Show the card of NAME: shipped weights, a .safetensors file or a folder with one."""
    from astrogan.weights import describe, read_card

    card = read_card(name)
    if form == "json":
        show_json(card)
    else:
        click.echo(describe(card))


@weights.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def weights_verify(names):
    """Check every byte of the weights NAME, of all shipped ones by default."""
    from astrogan.weights import list_weights, load_weights

    names = names or list_weights()
    bad = 0
    for name in names:
        try:
            found = load_weights(name)
        except AstroganError as error:
            bad += 1
            click.echo(f"{name}: {error}")
        else:
            click.echo(f"{name}: ok, {sum(t.numel() for t in found.tensors.values())} numbers, sha256 {found.sha256}")
    if not names:
        click.echo("no weights come with the package", err=True)
    if bad:
        raise CheckpointError(f"{bad} of {len(names)} weights cannot be used")


@weights.command("blend")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--alpha", type=float, default=0.5, show_default=True, help="Share of B, from 0 to 1.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help=".safetensors file to write.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT and its card if they exist.")
def weights_blend(first, second, alpha, output, overwrite):
    """Write weights between A and B, two of the same architecture, with a card that names both."""
    from astrogan.weights import blend, blend_card, load_weights, save_weights

    a, b = load_weights(first), load_weights(second)
    tensors = blend(a, b, alpha)
    save_weights(output, tensors, blend_card(a, b, alpha, Path(output).stem), overwrite=overwrite)
    click.echo(output)


@weights.command("export")
@click.argument("name", metavar="NAME")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help=".onnx file to write.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def weights_export(name, output, overwrite):
    """Write the network of NAME as an ONNX model."""
    from astrogan.weights import export_onnx

    click.echo(str(export_onnx(name, output, overwrite=overwrite)))
