"""How much training data is worth: Table 1d of Schawinski et al. (2017).

``python -m astrogan.bench.training_size`` scores weights that were trained on 5, 10, 100 and 2000 images on one test
set, or trains them first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrogan.bench._paper_tables import TRAINING_SIZES
from astrogan.exceptions import InputError

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["TrainingSizes", "main", "run"]

_BASELINES = ("identity", "gaussian", "wiener")


@dataclass(frozen=True)
class TrainingSizes:
    """What a run found.

    Parameters
    ----------
    table : `~astropy.table.Table`
        A line a number of training images (``training_images``, 0 for the baselines, whose name is ``row``): ``psnr``
        in the paper's domain with ``psnr_low`` and ``psnr_high``, ``gain`` over the best classic row with its
        interval, and ``paper``.
    markdown : str
        The same for reading.
    weights : dict
        {number of training images: weights used}.
    files : tuple of `pathlib.Path`
        Written, if a folder was given.
    """

    table: Table
    markdown: str
    weights: dict
    files: tuple[Path, ...] = ()


def run(
    data,
    *,
    weights=None,
    recipe=None,
    sizes=tuple(TRAINING_SIZES),
    backend="galaxygan2017",
    fwhm=1.8,
    noise_ratio=5.0,
    out=None,
    train=None,
    size_key="images",
    train_data=None,
    overrides=None,
    **grid,
):
    """Score networks that were trained on different numbers of images on the same test images.

    Parameters
    ----------
    data : path or sequence of paths
        As for `astrogan.bench.restoration.run`; the test is on the objects that the split keeps from training.
    weights : dict, optional
        {number of training images: weights (path or name), or a restorer instance}. Nothing is trained then.
    recipe : str or path, optional
        Recipe to train with, once for each of ``sizes``.
    sizes : sequence of int
        Numbers of training images.
    backend : str
        Restorer that takes the weights.
    fwhm, noise_ratio : float
        The degradation; the paper does not name the one of its table.
    out : path, optional
        Folder for runs (``n5`` and so on) and tables. A run that has its weights is not trained again, one that was
        interrupted is resumed; one of another recipe, or with other overrides, is an error. Needed for training.
    train : callable, optional
        ``train(recipe, data=..., out=..., overrides=...)``, or with ``resume=True`` in place of the overrides. Default:
        `astrogan.train.fit`. Of another, folders without a ``recipe.toml`` are taken as they are.
    size_key : str
        The recipe's key of the number of training images.
    train_data : path, optional
        The folder that the recipe's files lie in. Default: ``data``.
    overrides : dict, optional
        More keys of the recipe to replace.
    **grid
        Further options of `astrogan.bench.restoration.run`, such as ``images``.

    Returns
    -------
    TrainingSizes

    Raises
    ------
    InputError
        If neither weights nor a recipe with a folder are given, a number of images is not positive, or a folder holds
        a run of another recipe.
    """
    from astrogan.bench import restoration
    from astrogan.bench._restoration_rows import Row

    sizes = tuple(weights) if weights else sizes
    _check(weights, recipe, sizes, out)
    if not weights:
        weights = _trained(recipe, sizes, train_data or data, Path(out), train or _fit, size_key, overrides or {})
    rows = [Row(_name(n), "backend", *_backend(backend, weights[n])) for n in sorted(weights)]
    result = restoration.run(
        data,
        fwhms=(fwhm,),
        noise_ratios=(noise_ratio,),
        backends=rows,
        out=None if out is None else Path(out) / "evaluation",
        **{"classic": _BASELINES} | grid,
    )
    table = _table(result.table, weights)
    text = _markdown(table, result.table)
    files = () if out is None else _write(Path(out), table, text)
    return TrainingSizes(table, text, weights, files)


def _check(weights, recipe, sizes, out):
    if not weights and (recipe is None or out is None):
        raise InputError("give weights={number of images: path}, or recipe= and out= to train them")
    wrong = [n for n in sizes if isinstance(n, bool) or not isinstance(n, int) or n < 1]
    if wrong or not sizes:
        raise InputError(f"sizes={tuple(sizes)!r} must be positive numbers of training images, e.g. (5, 10, 100)")


def _trained(recipe, sizes, data, out, train, size_key, overrides):
    weights = {}
    for n in sorted(sizes):
        folder, own = out / f"n{n}", overrides | {size_key: n}
        _check_run(folder, recipe, own, data, needed=train is _fit)
        if not _found(folder):
            how = {"resume": True} if folder.exists() else {"overrides": own}
            train(recipe, data=data, out=folder, **how)
        found = _found(folder)
        if not found:
            raise InputError(f"recipe={str(recipe)!r} left no .safetensors in {str(folder)!r}")
        weights[n] = found[-1]
    return weights


def _check_run(folder, recipe, overrides, data, *, needed):
    """Refuse a folder that is there but of another run, or, where a recipe is ``needed``, of one that nobody knows."""
    from astrogan.train._same import check_same
    from astrogan.train.recipe import Recipe, read_recipe

    if (folder / "recipe.toml").exists():
        recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
        check_same(recipe.with_overrides(overrides), folder, data, "out")
    elif needed and _found(folder):
        raise InputError(
            f"out: {str(folder)!r} has weights and no recipe.toml, so that nobody knows how they were trained; name "
            "another folder, or give them as weights="
        )


def _found(folder):
    """Weights in a run's folder, the newest last; checkpoints of the run are in folders of their own."""
    return sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)


def _fit(recipe, **options):
    from astrogan.train import fit

    return fit(recipe, **options)


def _name(n):
    return f"trained on {n}"


def _backend(backend, weights):
    """Backend and options of a row."""
    if isinstance(weights, str | Path):
        return backend, {"weights": str(weights)}
    return weights, {}


def _table(results, weights):
    from astropy.table import Table

    sizes = {_name(n): n for n in weights}
    lines = [
        {
            "training_images": sizes.get(str(line["row"]), 0),
            **{name: line[name] for name in ("row", "images", "psnr", "psnr_low", "psnr_high")},
            **{name: line[name] for name in ("gain", "gain_low", "gain_high")},
            "paper": TRAINING_SIZES.get(sizes.get(str(line["row"])), float("nan")),
        }
        for line in results
    ]
    table = Table(sorted(lines, key=lambda line: line["training_images"]))
    for name in table.colnames[3:]:
        table[name].unit = "dB"
        table[name].info.format = ".1f" if name == "paper" else ".2f"
    return table


def _markdown(table, results):
    from astrogan.bench._restoration_tables import cell_title, markdown_table, number

    body = [
        [
            str(line["training_images"] or line["row"]),
            f"{number(line['psnr'], '.2f')} [{number(line['psnr_low'], '.2f')}, {number(line['psnr_high'], '.2f')}]",
            number(line["gain"], "+.2f"),
            number(line["paper"], ".1f"),
        ]
        for line in table
    ]
    head = ("training images", "PSNR [95 % interval]", "to best classic", "the paper's GAN (1d)")
    return (
        "# Size of the training set\n\n"
        f"{max(table['images'])} test images that no training saw, {cell_title(results[0])}; PSNR in dB in the paper's "
        "domain. Gaussian smoothing and the Wiener filter are tuned with the truth. The paper does not name the "
        "degradation of its table, and its images were others.\n\n" + markdown_table(head, body) + "\n"
    )


def _write(out, table, text):
    from astrogan.image.write import atomic_path, write_table

    files = (out / "training-size.ecsv", out / "training-size.md")
    write_table(table, files[0], overwrite=True)
    with atomic_path(files[1], overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return files


# ---- command line ---------------------------------------------------------------------------------------------------


def _weights(context, parameter, pairs):
    weights = {}
    for pair in pairs:
        n, _, path = pair.partition("=")
        if not n.isdigit() or not path:
            raise click.BadParameter(
                f"{pair!r} must have the form N=PATH, e.g. 100=runs/n100/galaxygan2017.safetensors"
            )
        weights[int(n)] = path
    return weights or None


@click.command("training-size")
@click.option("--data", required=True, type=click.Path(exists=True), help="Folder or tar file of images.")
@click.option("--weights", multiple=True, callback=_weights, metavar="N=PATH", help="Trained on N images; repeatable.")
@click.option("--recipe", help="Recipe to train with instead.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="With --recipe: another value, as for astrogan train."
)
@click.option("--train-data", type=click.Path(exists=True), help="Folder of the recipe's files; default: DATA.")
@click.option(
    "--sizes", multiple=True, type=click.IntRange(1), help="With --recipe; repeatable. Default: 5 10 100 2000."
)
@click.option("-b", "--backend", default="galaxygan2017", show_default=True, help="Restorer of the weights.")
@click.option("--fwhm", type=float, default=1.8, show_default=True, help="Blur in arcsec.")
@click.option("--noise", "noise_ratio", type=float, default=5.0, show_default=True, help="Noise ratio.")
@click.option(
    "--noise-convention", type=click.Choice(["independent", "shared"]), default="independent", show_default=True
)
@click.option("--images", type=click.IntRange(1), default=300, show_default=True, help="Largest number of test images.")
@click.option("--name", metavar="REGEX", help="Finds the object's name in the file's, as in the recipe.")
@click.option("-o", "--output", "out", required=True, type=click.Path(file_okay=False), help="Folder for the results.")
def command(data, out, sizes, settings, **options):
    """PSNR by the number of training images, beside Table 1d of the 2017 paper.

    A recipe for one blur and noise must be told those of the test: --fwhm 1.8 is degradation.fwhm=[4.545,4.545] in
    pixels, --noise 5 degradation.noise_ratio=[5,5].
    """
    from astrogan.train import overrides_of

    Path(out).mkdir(parents=True, exist_ok=True)
    result = run(data, out=out, sizes=sizes or tuple(TRAINING_SIZES), overrides=overrides_of(settings), **options)
    click.echo(result.markdown, nl=False)
    for file in result.files:
        click.echo(str(file))


def main(arguments=None):
    """Run the benchmark from the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    command.main(args=arguments, prog_name="python -m astrogan.bench.training_size", standalone_mode=False)


if __name__ == "__main__":
    main()
