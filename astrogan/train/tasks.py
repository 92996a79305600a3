"""What a recipe's ``task`` stands for: its network, its batches, its figures, and the backend that uses its weights."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from astrogan.exceptions import AstroganError, InputError

__all__ = ["Task", "task_of"]


@dataclass(frozen=True)
class Task:
    """How a kind of network is trained.

    Attributes
    ----------
    backend, role : str
        What uses the weights.
    module : callable
        ``module(recipe)``: the Lightning module as it is before the first step. It has ``exported``, the network whose
        weights are kept, ``architecture``, its keyword arguments, and ``steps_done``.
    stream : callable
        ``stream(recipe, source, part)``: batches by step for a part of the split; ``source`` holds its images only,
        and is `None` where the recipe names no data.
    evaluation : callable
        ``evaluation(module, recipe, stream)``: ``ranges``, ``calibration`` and ``metrics`` of the card.
    sheet : callable
        ``sheet(module, batch)``: rows of images (band, y, x), and the columns' titles.
    stretch : dict or None
        Of the images that the network sees, for the card.
    bands : int or None
        That the network takes, where its architecture does not say; `None` for any number.
    """

    backend: str
    role: str
    module: Callable[[Any], Any]
    stream: Callable[[Any, Any, str], Any]
    evaluation: Callable[[Any, Any, Any], dict]
    sheet: Callable[[Any, dict], tuple]
    stretch: dict | None = None
    bands: int | None = 3


def task_of(recipe):
    """The task of a recipe.

    Parameters
    ----------
    recipe : `~astrogan.train.recipe.Recipe`

    Returns
    -------
    Task
    """
    return _TASKS[recipe.task]()


def _restoration():
    from astrogan.train.evaluate import evaluation

    def module(recipe):
        from astrogan.nn.nafnet import RestorationNAFNet
        from astrogan.train.restoration import RestorationModule

        return _built(recipe, RestorationModule, RestorationNAFNet)

    return Task("nafnet", "restorer", module, _pairs, evaluation, _restored)


def _galaxygan2017():
    from astrogan.train.evaluate import evaluation

    def module(recipe):
        from astrogan.train.galaxygan import GalaxyGANModule
        from astrogan.train.gan import GalaxyGAN2017Module

        for table in ("network", "training"):
            taken = ("steps", "seed", "settings")
            check_keys(table, getattr(recipe, table), GalaxyGANModule, GalaxyGAN2017Module, taken=taken)
        with faults_of("network", "training"):
            return GalaxyGANModule(seed=recipe.seed, steps=recipe.steps, **(recipe.network | recipe.training))

    stretch = {"stretch": "galaxygan2017", "clip": True}
    return Task("galaxygan2017", "restorer", module, _pairs, evaluation, _restored, stretch)


def _own(module_name, prefix, network, backend, role="deblender", **about):
    """A task whose parts are all in one module of this package."""
    own = importlib.import_module(f"astrogan.train.{module_name}")
    where, _, name = network.partition(":")

    def module(recipe):
        return _built(recipe, getattr(own, f"{prefix}Module"), getattr(importlib.import_module(where), name))

    def stream(recipe, source, part):
        with faults_of("degradation"):
            return getattr(own, f"{prefix}Stream")(source, recipe, part)

    return Task(backend, role, module, stream, own.evaluation, own.sheet, **about)


_PICTURE = {"stretch": "galaxygan2017", "clip": True}
_TASKS = {
    "restoration": _restoration,
    "galaxygan2017": _galaxygan2017,
    "usaid2019": lambda: _own(
        "usaid2019", "Usaid2019", "astrogan.nn.dcgan:CompletionGAN", "usaid2019", stretch=_PICTURE
    ),
    "branched-gan": lambda: _own(
        "branched", "Branched", "astrogan.nn.branched:BranchedGenerator", "branched-gan", stretch=_PICTURE
    ),
    "deblending": lambda: _own("deblending", "Deblending", "astrogan.nn.ratio_net:RatioUNet", "ratio-net", bands=None),
    "translation": lambda: _own(
        "surveynet", "SurveyNet", "astrogan.nn.surveynet:SurveyNet", "surveynet", "translator", bands=None
    ),
    "lin2020": lambda: _own(
        "lin2020", "Lin2020", "astrogan.nn.lin2020:Lin2020Translator", "lin2020", "translator", bands=5
    ),
}


def _built(recipe, module, network):
    check_keys("network", recipe.network, network)
    check_keys("training", recipe.training, module, taken=("network", "steps", "seed"))
    with faults_of("network", "training"):
        return module(recipe.network, steps=recipe.steps, seed=recipe.seed, **recipe.training)


def check_keys(table, settings, *takers, taken=()):
    """Refuse keys of a recipe's table that none of the callables ``takers`` knows."""
    known = [name for taker in takers for name in inspect.signature(taker).parameters if name not in taken]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise InputError(f"recipe [{table}] has unknown keys {', '.join(unknown)}; there are {', '.join(known)}")


@contextlib.contextmanager
def faults_of(*tables):
    """Values that a network or a loss cannot take are the recipe's fault."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        # A network's own InputError names its argument; those of other kinds, and of the recipe, say where it stands.
        if isinstance(error, AstroganError) and (type(error) is not InputError or str(error).startswith("recipe")):
            raise
        where = " or ".join(f"[{table}]" for table in tables)
        raise InputError(f"recipe {where} holds a value that cannot be used: {error}") from error


def _pairs(recipe, source, part):
    from astrogan.train.stream import Degradation, PairStream

    check_keys("degradation", recipe.degradation, Degradation)
    with faults_of("degradation"):
        degradation = Degradation(**recipe.degradation)
    return PairStream(
        source,
        degradation,
        batch=recipe.batch,
        crop=recipe.crop,
        seed=recipe.seed + (0 if part == "train" else 1_000_003),
        jitter=part == "train",
        augment=part == "train",
    )


def _restored(module, batch):
    restored = module.restored({key: value.to(module.device) for key, value in batch.items()}).float().cpu()
    columns = (batch["degraded"], restored, batch["original"])
    rows = [[np.asarray(column[i]) for column in columns] for i in range(len(torch.as_tensor(restored)))]
    return rows, ("degraded", "restored", "original")
