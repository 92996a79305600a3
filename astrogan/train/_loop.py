"""The training loop: Lightning's trainer around a module and a stream, with checkpoints in the run directory."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from astrogan.exceptions import InputError, MissingDependencyError
from astrogan.train._fit import take
from astrogan.train.evaluate import evaluating
from astrogan.train.recipe import Recipe
from astrogan.train.sources import Source, Watched, open_sources
from astrogan.train.sources.watched import check_damage
from astrogan.train.tasks import task_of

__all__ = ["Job", "network_module", "prepare", "sheet", "train"]

_DAMAGED = "damaged"  # key of a batch


@dataclass(frozen=True)
class Job:
    """A recipe with all that it describes."""

    recipe: Recipe
    source: Source | None
    training: Any
    validation: Any
    module: Any


def prepare(recipe, data):
    """Open a recipe's data and build its network: what can be wrong with either is found here."""
    module = network_module(recipe)
    source = open_sources(recipe.data, data, max_damaged=recipe.max_damaged) if recipe.data else None
    return Job(recipe, source, _stream(recipe, source, "train"), _stream(recipe, source, "validation"), module)


def train(run, job, trainer_options, workers, stop_after, *, resume):
    """Train until the recipe's last step, or for ``stop_after`` epochs; see `astrogan.train.fit`.

    Returns
    -------
    trainer : `lightning.Trainer`
    damaged : dict
        Images that could not be read, and why.
    """
    recipe, module = job.recipe, job.module
    keeper = _Keeper(run, job, stop_after)
    trainer = lightning.Trainer(
        **trainer_options | {"strategy": _strategy(module, **trainer_options)},
        max_epochs=-(-recipe.steps // recipe.epoch_steps),
        logger=_logger(run),
        callbacks=[keeper],
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=recipe.validate_every,
        log_every_n_steps=50,
    )
    count = max(1, recipe.validation_images // recipe.batch)
    loader = _loader(job.training, _Steps(recipe, trainer, module), workers)
    validation = _loader(job.validation, range(count))
    checkpoint = run.resume() if resume else None
    if checkpoint is None:
        _start(module, recipe)
    with _interruptible():
        trainer.fit(
            module,
            loader,
            validation,
            ckpt_path=None if checkpoint is None else str(checkpoint.path),
            weights_only=True,
        )
    return trainer, keeper.damaged


def _strategy(module, *, strategy, devices, num_nodes, **_):
    """Where two networks learn in turn, one has no gradients while the other has, which DDP must be told of."""
    several = str(devices) != "1" or num_nodes > 1
    if getattr(module, "discriminator", None) is not None and (strategy == "ddp" or (strategy == "auto" and several)):
        return "ddp_find_unused_parameters_true"
    return strategy


def network_module(recipe):
    """The Lightning module of a recipe, as it is before the first step."""
    module = task_of(recipe).module(recipe)
    module.accumulate = recipe.accumulate
    return module


def _start(module, recipe):
    """Load the weights that a recipe starts from."""
    if not recipe.start_from:
        return
    from astrogan.weights import load_weights

    weights = load_weights(recipe.start_from)
    averaged = getattr(module, "average", None) is not None
    networks = (module.network, module.average) if averaged else (module.exported,)
    try:
        for network in networks:
            network.load_state_dict(weights.tensors)
    except RuntimeError as error:
        raise InputError(
            f"recipe start_from={recipe.start_from!r} is of another architecture, {weights.card['architecture']}; "
            f"the recipe's is {module.architecture}"
        ) from error


def _stream(recipe, source, part):
    if source is not None:
        source = Watched(take(source, recipe, part), recipe.max_damaged)
    return task_of(recipe).stream(recipe, source, part)


def _logger(run):
    try:
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(str(run.folder), name="", version="tensorboard")
    except ModuleNotFoundError:
        return False


def _loader(stream, sampler, workers=0):
    # Batches draw from nothing but their step; a generator of its own keeps the loader from using torch's global one.
    return DataLoader(
        _Batches(stream),
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        generator=torch.Generator(),
        multiprocessing_context=_context() if workers else None,
        persistent_workers=workers > 0,
    )


def _context():
    """How worker processes start: threads of torch do not survive a fork."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


@contextlib.contextmanager
def _interruptible():
    """Lightning ends the interpreter where it is interrupted, and leaves the keys that interrupt without effect."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


class _Batches(Dataset):
    """Batches of a stream by number; one during which damaged images were met carries their names."""

    def __init__(self, stream):
        self.stream = stream

    def __getitem__(self, number):
        batch = {key: torch.from_numpy(value) for key, value in self.stream.batch(int(number)).items()}
        reports = self.stream.source.reports() if isinstance(self.stream.source, Watched) else []
        return batch | {_DAMAGED: reports} if reports else batch


class _Steps(Sampler):
    """Numbers of the batches of an epoch; each process of a distributed run has batches of its own.

    A step takes the next ``accumulate`` times as many as there are processes, so that it sees the same images however
    they are shared out.

    They follow from the steps done: Lightning's number of the epoch is one behind when a run goes on, at the moment at
    which workers are told what to prepare.
    """

    def __init__(self, recipe, trainer, module):
        self.epoch_steps, self.steps, self.accumulate = recipe.epoch_steps, recipe.steps, recipe.accumulate
        self.trainer, self.module = trainer, module

    def _range(self):
        first = int(self.module.steps_done)
        return range(first, min((first // self.epoch_steps + 1) * self.epoch_steps, self.steps))

    def __iter__(self):
        for step in self._range():
            for part in range(step * self.accumulate, (step + 1) * self.accumulate):
                yield part * self.trainer.world_size + self.trainer.global_rank

    def __len__(self):
        # A finished run has none left; Lightning warns of that before it sees that it is finished.
        return max(1, len(self._range())) * self.accumulate


class _Keeper(lightning.Callback):
    """At the end of an epoch: a line of metrics and a checkpoint; after a validation, a sheet of samples."""

    def __init__(self, run, job, stop_after):
        self.run, self.stream, self.left = run, job.validation, stop_after
        self.task = task_of(job.recipe)
        self.validated = False
        self.job, self.damaged, self.written = job, {}, 0

    def state_dict(self):
        """What a run that goes on must know of those before it."""
        return {"damaged": self.damaged} if self.damaged else {}

    def load_state_dict(self, state):
        """From a checkpoint."""
        self.damaged = dict(state.get("damaged", {}))

    def on_train_epoch_start(self, trainer, module):
        """Validation comes after the last batch, which Lightning takes to be where it was in the first epoch."""
        trainer.val_check_batch = len(trainer.train_dataloader)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        """Note the damaged images that a batch tells of; the training knows nothing of them."""
        self._note(batch)

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        """As in training."""
        self._note(batch)

    def _note(self, batch):
        found = batch.pop(_DAMAGED, None)
        if found:
            self.damaged |= dict(found)
            check_damage(self.damaged, len(self.job.training.source), self.job.recipe.max_damaged)

    def _write_damage(self, trainer):
        """The list of damaged images beside the metrics, all processes' together."""
        if trainer.world_size > 1:
            everywhere = [None] * trainer.world_size
            torch.distributed.all_gather_object(everywhere, self.damaged)
            self.damaged = {name: fault for each in everywhere for name, fault in each.items()}
        if trainer.is_global_zero and len(self.damaged) > self.written:
            lines = [f"{name}: {' '.join(fault.split())}" for name, fault in sorted(self.damaged.items())]
            self.run.write_text("damaged.txt", "\n".join(lines) + "\n")
            self.written = len(lines)

    def on_train_epoch_end(self, trainer, module):
        step = int(module.steps_done)
        # Lightning keeps what the last validation found for the epochs after it.
        names = [name for name in trainer.callback_metrics if self.validated or not name.startswith("val/")]
        self.validated = False
        self._write_damage(trainer)
        if trainer.is_global_zero:
            row = {"step": step, **{n: float(trainer.callback_metrics[n]) for n in names}}
            self.run.append_metrics(row | ({"damaged": len(self.damaged)} if self.damaged else {}))
        # All processes take part in saving; the first writes.
        self.run.save_checkpoint(step, trainer.save_checkpoint)
        if self.left is not None:
            self.left -= 1
            trainer.should_stop = trainer.should_stop or self.left <= 0

    def on_validation_end(self, trainer, module):
        self.validated = True
        if trainer.is_global_zero:
            sheet(self.run, self.task, module, self.stream, int(module.steps_done))


def sheet(run, task, module, stream, step, rows=4):
    """Write a sheet of samples; none where matplotlib is not installed."""
    from astrogan.train.sheets import sample_sheet

    batch = {key: torch.from_numpy(value) for key, value in stream.batch(0).items()}
    with evaluating(module):
        images, titles = task.sheet(module, batch)
    with contextlib.suppress(MissingDependencyError):
        sample_sheet(run.path(f"samples/step-{step:08d}.png"), images[:rows], titles)
