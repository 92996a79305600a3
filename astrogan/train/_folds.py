"""k-fold cross validation, as in Schawinski et al. (2017, section 2): every image is tested once."""

from __future__ import annotations

import numbers
from pathlib import Path

import numpy as np

from astrogan.exceptions import InputError
from astrogan.train._same import check_same
from astrogan.train.recipe import Recipe, read_recipe

__all__ = ["cross_validate"]


def cross_validate(recipe, *, out, data, folds=10, overrides=None, resume=False, images=0, **options):
    """Train a model for each fold on the others, and measure it on the fold.

    Parameters
    ----------
    recipe, data, overrides
        As for `astrogan.train.fit`.
    out : path
        Folder of the runs, ``OUT/fold-0`` and so on.
    folds : int
        How many.
    resume : bool
        Leave finished folds as they are, go on with the one that was interrupted. The recipe must be the same.
    images : int
        Test on so many images of each fold at most (0: all).
    **options
        As for `astrogan.train.fit`, but for ``stop_after``: folds are trained to their end.

    Returns
    -------
    `~astropy.table.Table`
        A row a fold, and the mean over the folds with the standard deviation between them: PSNR in the recipe's
        domain of the network, of the images as they are, and of Gaussian smoothing with the width that the truth
        prefers.

    Raises
    ------
    InputError
        As `astrogan.train.fit`, or if there is one fold only, the task is another than "restoration" or
        "galaxygan2017", or a run to go on with has another recipe or other data.
    """
    from astropy.table import Table

    from astrogan.train._fit import fit
    from astrogan.train.evaluate import check_scored, score_test_part
    from astrogan.weights import load_weights

    if isinstance(folds, bool) or not isinstance(folds, numbers.Integral) or folds < 2:
        raise InputError(f"folds={folds!r} must be an integer of at least 2")
    if options.pop("stop_after", None) is not None:
        raise InputError("stop_after (--epochs) must be left out with folds; interrupt the run and resume it instead")
    recipe = (recipe if isinstance(recipe, Recipe) else read_recipe(recipe)).with_overrides(overrides)
    check_scored(recipe)
    if recipe.start_from:
        raise InputError(
            f"recipe start_from={recipe.start_from!r} must be empty with folds: those weights may have seen the images "
            "that a fold tests on; give --set 'start_from=\"\"', or train without folds"
        )
    table = Table(
        names=("fold", "images", "psnr", "psnr_identity", "psnr_gaussian"), dtype=(str, int, float, float, float)
    )
    for fold in range(folds):
        part = recipe.with_overrides({"folds": folds, "fold": fold})
        run = Path(out) / f"fold-{fold}"
        weights = run / f"{recipe.name}.safetensors"
        begun = resume and run.exists()
        if begun:
            check_same(part, run, data, "resume")
        if not (begun and weights.exists() and weights.with_suffix(".json").exists()):
            fit(part, data=data, out=run, resume=begun, **options)
        row = score_test_part(load_weights(weights), part, data, images=images)
        table.add_row((str(fold), row["images"], row["psnr"], row["psnr_identity"], row["psnr_gaussian"]))
    values = [np.asarray(table[name]) for name in table.colnames[2:]]
    table.add_row(("mean", int(np.sum(table["images"])), *(float(v.mean()) for v in values)))
    table.add_row(("std", folds, *(float(v.std(ddof=1)) for v in values)))
    for name in table.colnames[2:]:
        table[name].info.format = ".3f"
    return table
