"""`fit`: a recipe, a folder of data, and a run directory; Lightning does the loop."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import warnings
from pathlib import Path

from astrogan.exceptions import CheckpointError, InputError, MissingDependencyError
from astrogan.train.recipe import Recipe, read_recipe

__all__ = ["fit"]


def fit(
    recipe,
    *,
    data=None,
    out,
    overrides=None,
    resume=False,
    accelerator="cpu",
    devices=1,
    num_nodes=1,
    strategy="auto",
    precision="32-true",
    workers=0,
    progress=False,
    stop_after=None,
):
    """Train what a recipe describes.

    Parameters
    ----------
    recipe : str, path or `~astrogan.train.recipe.Recipe`
        A name (`~astrogan.train.recipe.list_recipes`), a TOML file, or a recipe.
    data : path, optional
        The folder below which the recipe's files lie; may be left out where the recipe has no ``[[data]]``.
    out : path
        The run directory. It must not exist, unless ``resume``.
    overrides : dict, optional
        Other values for some of the recipe's keys, ``{"steps": 100, "training.learning_rate": 1e-3}``. Not with
        ``resume``: a run keeps its recipe.
    resume : bool
        Go on with the run in ``out`` from its last good checkpoint. The result is the one that an uninterrupted run
        gives, bit by bit on the CPU with the same number of threads. A run that is finished keeps its weights and card
        as they are; they are written again only if they are missing or damaged.
    accelerator, devices, num_nodes, strategy, precision
        Lightning's: see `lightning.Trainer`. ``precision="bf16-mixed"`` halves the time on most processors since 2022.
        With several devices or nodes every process draws batches of its own, and gradients are averaged (DDP); the
        first of them keeps the run directory, which all must see.
    workers : int
        Processes that prepare batches, beside the one that trains. The batches do not depend on it.
    progress : bool
        Show a progress bar.
    stop_after : int, optional
        End the process's part of the run after so many epochs, with a checkpoint; resume it later.

    Returns
    -------
    `pathlib.Path` or None
        The final weights ``OUT/<name>.safetensors``, their card beside them; `None` where the run has been stopped
        before its end.

    Raises
    ------
    InputError
        If the recipe, the data or the folder cannot be used, the data are others than the run began with, or another
        process holds the run.
    CheckpointError
        If no checkpoint of the run is intact.
    KeyboardInterrupt
        If it is interrupted; resume it later.
    MissingDependencyError
        If Lightning is not installed.
    """
    try:
        import lightning  # noqa: F401 - the rest of the package needs it, too
    except ImportError as error:
        raise MissingDependencyError("training needs Lightning: pip install 'astrogan[train]'") from error
    from astrogan.train._data_digest import check_data
    from astrogan.train._distributed import hold

    if str(precision) in ("16", "16-mixed", "16-true"):
        raise InputError(f"precision={precision!r} overflows in training; use 'bf16-mixed' or '32-true'")
    if any(name in str(strategy) for name in ("fsdp", "deepspeed")):
        raise InputError(f"strategy={strategy!r} shards the weights, whose average is kept; use 'ddp'")
    if resume and overrides:
        raise InputError(f"overrides={overrides!r} must be left out with resume: a run keeps its recipe")
    if not resume:
        recipe = (recipe if isinstance(recipe, Recipe) else read_recipe(recipe)).with_overrides(overrides)
        recipe.to_toml()  # what cannot be written is found before the folder is made
        _check_given(recipe, data)
    options = {
        "accelerator": accelerator,
        "devices": devices,
        "num_nodes": num_nodes,
        "strategy": strategy,
        "precision": precision,
        "enable_progress_bar": bool(progress),
    }
    with hold(out, resume=resume) as run, _quiet():
        if resume:
            recipe = _kept(run)
            _check_given(recipe, data)
            check_data(run.folder, recipe, data)
        else:
            run.write_text("recipe.toml", recipe.to_toml())
        job = _prepared(run, recipe, data, new=not resume)
        return _trained(run, job, options, workers, stop_after, resume=resume)


def _kept(run):
    """The recipe of a run that goes on."""
    path = run.folder / "recipe.toml"
    if not path.is_file():
        raise InputError(f"out={str(run.folder)!r} holds no recipe.toml: it never began; start it in another folder")
    return read_recipe(path)


def _check_given(recipe, data):
    if recipe.data and data is None:
        raise InputError(
            f"data={data!r} (--data) must be the folder below which the files of recipe {recipe.name!r} lie; give one"
        )


def _prepared(run, recipe, data, *, new):
    from astrogan.train._data_digest import keep_digest
    from astrogan.train._distributed import leads
    from astrogan.train._loop import prepare

    try:
        job = prepare(recipe, data)
        if new:
            keep_digest(run, recipe, data)
        return job
    except BaseException:
        if new and leads():  # a recipe or data that cannot be used leave no folder in the way of the next try
            _remove_beginning(run)
        raise


def _remove_beginning(run):
    """Take back the folder of a run that has not begun."""
    from astrogan.image._lock import LOCK_NAME
    from astrogan.train._data_digest import DIGEST_NAME

    run.close()
    with contextlib.suppress(OSError):
        for name in ("recipe.toml", DIGEST_NAME, LOCK_NAME):
            (run.folder / name).unlink(missing_ok=True)
        run.folder.rmdir()


def _trained(run, job, options, workers, stop_after, *, resume):
    from astrogan.train._loop import train

    trainer, damaged = train(run, job, options, workers, stop_after, resume=resume)
    if int(job.module.steps_done) < job.recipe.steps:
        return None
    path = run.path(f"{job.recipe.name}.safetensors")
    if trainer.is_global_zero and not (resume and _whole(path)):
        _export(run, path, job, damaged)
    trainer.strategy.barrier()  # no process goes on before the weights are there
    return path


def _whole(path):
    """Whether a run has its weights and card, as they were written."""
    from astrogan.weights import load_weights

    try:
        load_weights(path)
    except (CheckpointError, InputError):
        return False
    return True


@contextlib.contextmanager
def _quiet():
    """Lightning's advice on workers and loggers, and what torch says of its own internals, is not for users."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        _ignore_advice()
        try:
            for logger in loggers:
                logger.setLevel(logging.WARNING)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _ignore_advice():
    for message in (
        ".*does not have many workers.*",
        ".*num_workers.*",
        ".*LeafSpec.*",
        ".*isinstance\\(treespec.*",
        ".*Trying to infer the `batch_size`.*",
        ".*lr_scheduler.*",
        ".*tensorboardX.*",
        ".*logging_interval.*",
        ".*log_every_n_steps.*",
        ".*Checkpoint directory.*",
        ".*GPU available.*",
        ".*weights_only.*",
        ".*pin_memory.*",
        ".*sync_dist=True.*",
        ".*Grad strides do not match bucket view strides.*",
        ".*in eval mode at the start of training.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def _export(run, path, job, damaged):
    """Write the final weights with their card, and a sheet of samples."""
    import astrogan
    from astrogan.train._loop import sheet
    from astrogan.train.tasks import task_of
    from astrogan.weights import save_weights

    recipe, module, stream = job.recipe, job.module, job.validation
    task = task_of(recipe)
    measured = task.evaluation(module, recipe, stream)
    sheet(run, task, module, stream, recipe.steps)
    card = {
        "name": recipe.name,
        "backend": task.backend,
        "role": task.role,
        "architecture": module.architecture,
        "bands": module.architecture.get("bands", module.architecture.get("in_bands", task.bands)),
        "band_names": recipe.card.get("band_names"),
        "ranges": measured["ranges"],
        "stretch": task.stretch,
        "calibration": measured["calibration"],
        "metrics": measured["metrics"],
        "data": _described(job.source or stream),
        "recipe": recipe.to_toml(),
        "seed": recipe.seed,
        "steps": recipe.steps,
        "git_revision": _git_revision(),
        "astrogan_version": astrogan.__version__,
        "licence": recipe.card.get("licence", "BSD-3-Clause"),
        "citation": recipe.card.get("citation", ""),
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "notes": _notes(recipe, damaged),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in module.exported.state_dict().items()}
    save_weights(path, tensors, card, overwrite=True)


def _notes(recipe, damaged):
    """The recipe's notes, and what images are missing from the training."""
    notes = recipe.card.get("notes", "")
    if not damaged:
        return notes
    named = ", ".join(sorted(damaged)[:10]) + (", ..." if len(damaged) > 10 else "")
    return f"{notes} Damaged images, left out of the training: {len(damaged)} ({named}).".strip()


def _described(source):
    """The sources as a card lists them."""
    described = source.describe()
    rows = described.get("sources", [described])
    return [
        row
        | {
            "name": row["kind"],
            "origin": row.get("origin") or "simulated",
            "licence": row.get("licence") or "not stated",
        }
        for row in rows
    ]


def _git_revision():
    """The revision of astrogan's own checkout, or nothing where it is installed without one."""
    import subprocess

    def git(*arguments):
        here = Path(__file__)
        return subprocess.run(  # noqa: S603 - fixed arguments
            ["git", *arguments],  # noqa: S607
            cwd=here.parent,
            check=True,
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.strip()

    try:
        # Installed below somebody's own checkout, the revision would be theirs.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def take(source, recipe, part):
    """The images of a source that belong to a part of a recipe's split, by the name of their object.

    Parameters
    ----------
    source : `~astrogan.train.sources.Source`
    recipe : `~astrogan.train.recipe.Recipe`
        With ``folds`` above zero, the fold is the test, and a tenth of the rest validates. With ``images``, training
        sees so many only, and validation ``validation_images``: the same for every run, those of the objects whose
        names hash lowest, one of each object before a second of any, so that 10 images are among 100. Several sources
        share them by their weights.
    part : {'train', 'validation', 'test'}

    Returns
    -------
    `~astrogan.train.sources.Source`

    Raises
    ------
    InputError
        If no image is left.
    """
    from astrogan.train.sources import Mix, Subset

    mixed = isinstance(source, Mix)
    sources, weights = (source.sources, source.weights) if mixed else ([source], [1.0])
    parts = [(_belonging(each, recipe, part), each, weight) for each, weight in zip(sources, weights, strict=True)]
    parts = [(own, each, weight) for own, each, weight in parts if own and weight > 0]
    wanted = {"train": recipe.images, "validation": recipe.validation_images}.get(part, 0)
    shares = _shares([len(own) for own, *_ in parts], [weight for *_, weight in parts], wanted)
    subsets = [(Subset(each, _lowest(each, own, n)), w) for (own, each, w), n in zip(parts, shares, strict=True) if n]
    if subsets:
        return Mix(*zip(*subsets, strict=True)) if mixed else subsets[0][0]
    raise InputError(f"no image of the {len(source)} belongs to the {part} part; give more data, or fewer folds")


def _belonging(source, recipe, part):
    """Numbers of the images of a part."""
    from astrogan.train.split import fold_of, part_of

    def part_in_fold(name):
        if fold_of(name, recipe.folds) == recipe.fold:
            return "test"
        return part_of(f"fold {recipe.fold}: {name}", test=0.0, validation=0.1)

    own = part_in_fold if recipe.folds else part_of
    return [index for index in range(len(source)) if own(source.name(index)) == part]


def _shares(sizes, weights, wanted):
    """How many images each source gives, if ``wanted`` (0: all) are shared by weight (Sainte-Lague's method)."""
    if not wanted or wanted >= sum(sizes):
        return sizes
    shares = [0] * len(sizes)
    for _ in range(wanted):
        open_ones = [k for k, size in enumerate(sizes) if shares[k] < size]
        shares[max(open_ones, key=lambda k: weights[k] / (2 * shares[k] + 1))] += 1
    return shares


def _lowest(source, numbers, count):
    """As many objects as there can be, those whose names hash lowest, in the source's order.

    Objects take turns, an image each: the first ``count`` would otherwise be all boxes of a few cells of a field.
    """
    if count >= len(numbers):
        return numbers
    images = {}
    for number in numbers:
        images.setdefault(source.name(number), []).append(number)
    turns = []
    for name, own in images.items():
        # Which of an object's images comes first is drawn, too: in the source's order it is the same band of all.
        drawn = sorted(range(len(own)), key=lambda k, name=name: _hashed(f"subset:{name}:{k}"))
        turns += [(turn, _hashed(f"subset:{name}"), own[k]) for turn, k in enumerate(drawn)]
    return sorted(number for *_, number in sorted(turns)[:count])


def _hashed(text):
    return hashlib.sha256(text.encode()).digest()
