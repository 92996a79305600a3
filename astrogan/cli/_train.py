"""``astrogan train``."""

from __future__ import annotations

import sys

import click

from astrogan.cli._output import show_table
from astrogan.exceptions import InputError

__all__ = ["train"]


@click.command()
@click.argument("recipe", required=False)
@click.option("--data", type=click.Path(exists=True, file_okay=False), help="Folder below which the recipe's data lie.")
@click.option("--out", "-o", type=click.Path(file_okay=False), help="Run directory; must not exist without --resume.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out; RECIPE is the run's own then.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Another value, e.g. training.l1_weight=50."
)
@click.option("--folds", type=click.IntRange(min=2), help="k-fold cross validation: a run for each fold.")
@click.option(
    "--test-images", type=click.IntRange(min=1), help="With --folds: test on so many images of a fold at most."
)
@click.option("--accelerator", default="auto", show_default=True, help="cpu, gpu, ... (Lightning).")
@click.option("--devices", default="1", show_default=True, help="How many, or which (Lightning).")
@click.option("--num-nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Machines (Lightning).")
@click.option("--strategy", default="auto", show_default=True, help="auto, ddp, ... (Lightning).")
@click.option("--precision", default="32-true", show_default=True, help="32-true or bf16-mixed (Lightning).")
@click.option(
    "--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Processes that make batches."
)
@click.option("--epochs", type=click.IntRange(min=1), help="Stop after so many; go on later with --resume.")
@click.option("--list", "show_recipes", is_flag=True, help="List the recipes that come with astrogan.")
def train(recipe, data, out, resume, settings, folds, test_images, show_recipes, epochs, devices, **options):
    """Train a network by RECIPE, a name or a TOML file, on --data; the weights go to OUT/<name>.safetensors.

    --data may be left out where the recipe has no [[data]].
    """
    from astrogan.train import fit, list_recipes, overrides_of, read_recipe
    from astrogan.train._distributed import leads

    if show_recipes:
        for name in list_recipes():
            click.echo(f"{name}: {read_recipe(name).summary}")
        return
    again = resume and not folds
    needed = {"RECIPE": recipe or again, "--data": data or not _wants_data(recipe, again), "--out": out}
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise click.UsageError(f"{', '.join(missing)} must be given")
    if folds and epochs:
        raise click.UsageError("--epochs cannot be given with --folds: a fold is trained to its end")
    options |= {"data": data, "resume": resume, "stop_after": epochs, "progress": sys.stderr.isatty()}
    options["devices"] = int(devices) if devices.isdigit() else devices
    try:
        overrides = overrides_of(settings)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    if folds:
        from astrogan.train import cross_validate

        table = cross_validate(recipe, out=out, folds=folds, overrides=overrides, images=test_images or 0, **options)
        if leads():  # of several processes, one speaks
            show_table(table)
        return
    path = fit(recipe, out=out, overrides=overrides, **options)
    if leads():
        where = f"--data {data} --out {out}" if data else f"--out {out}"
        click.echo(f"stopped; go on with: astrogan train {where} --resume" if path is None else str(path))


def _wants_data(recipe, again):
    """Whether --data must be given, as far as that is known here: `fit` reads the recipe of a run that goes on."""
    from astrogan.train import read_recipe

    return not again and (not recipe or bool(read_recipe(recipe).data))
