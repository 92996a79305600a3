"""Recipes: everything that a training run depends on but the data's place, as a small TOML file."""

from __future__ import annotations

import json
import math
import numbers
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path

from astrogan.exceptions import InputError

__all__ = ["Recipe", "list_recipes", "overrides_of", "parse_recipe", "read_recipe"]

TASKS = ("restoration", "galaxygan2017", "deblending", "usaid2019", "branched-gan", "translation", "lin2020")
_WITHOUT_DATA = ("deblending", "translation", "lin2020")  # they draw their own
_ACCUMULATING = ("restoration", "deblending", "translation")  # the others step one network between the losses of two
_POSITIVE = ("steps", "batch", "accumulate", "crop", "epoch_steps", "validate_every", "validation_images")
_TABLES = ("network", "training", "degradation", "card")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Recipe:
    """A training run's settings.

    Parameters
    ----------
    name : str
        Also of the weights: lower-case letters, digits and hyphens.
    task : {'restoration', 'galaxygan2017', 'deblending', 'usaid2019', 'branched-gan', 'translation', 'lin2020'}
        Which network, losses and treatment of the data.
    data : list of dict
        Sources, see `astrogan.train.sources.open_source`; a source's ``weight`` is its share of the images.
    summary : str
        One line.
    seed : int
        Of everything random.
    steps, batch, crop : int
        Optimiser steps, images in a batch, pixels along an edge.
    accumulate : int
        Batches in an optimiser step: gradients are averaged over them, and memory is that of one. For the tasks
        "restoration", "deblending" and "translation".
    epoch_steps : int
        Steps between two checkpoints.
    validate_every : int
        Epochs between two validations.
    validation_images : int
        Images of the validation part that are looked at.
    max_damaged : float
        Images that cannot be read are left out and counted; training stops where they are more than this part of all
        (one is always borne).
    images : int
        Use so many training images only (0: all).
    folds, fold : int
        k-fold cross validation: with ``folds`` above zero, fold ``fold`` is the test and the rest is for training.
    start_from : str
        Weights to start from: a name or a path.
    network, training, degradation : dict
        Keyword arguments of the network, the Lightning module and `~astrogan.train.stream.Degradation`.
    card : dict
        For the model card: citation, licence, notes, band_names.
    """

    name: str
    task: str = "restoration"
    data: list = field(default_factory=list)
    summary: str = ""
    seed: int = 0
    steps: int = 1000
    batch: int = 8
    crop: int = 128
    accumulate: int = 1
    epoch_steps: int = 200
    validate_every: int = 5
    validation_images: int = 32
    max_damaged: float = 0.05
    images: int = 0
    folds: int = 0
    fold: int = 0
    start_from: str = ""
    network: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    degradation: dict = field(default_factory=dict)
    card: dict = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.name, str) or not re.fullmatch(r"[a-z0-9-]+", self.name):
            raise InputError(f"recipe name={self.name!r} must be lower-case letters, digits and hyphens")
        if self.task not in TASKS:
            raise InputError(f"recipe task={self.task!r} must be one of {', '.join(TASKS)}")
        for name in _TABLES:
            if not isinstance(getattr(self, name), dict):
                raise InputError(f"recipe {name}={getattr(self, name)!r} must be a table, [{name}]")
        if not isinstance(self.data, list | tuple) or not all(isinstance(source, dict) for source in self.data):
            raise InputError(f"recipe data={self.data!r} must be tables, [[data]]")
        if not self.data and self.task not in _WITHOUT_DATA:
            raise InputError(f"recipe {self.name!r} names no data; add a [[data]] table")
        for name in (*_POSITIVE, "seed", "images", "folds", "fold"):
            value, low = getattr(self, name), int(name in _POSITIVE)
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
                raise InputError(f"recipe {name}={value!r} must be an integer of at least {low}")
        if self.accumulate > 1 and self.task not in _ACCUMULATING:
            raise InputError(
                f"recipe accumulate={self.accumulate} is for the tasks {', '.join(_ACCUMULATING)}; {self.task!r} steps "
                "one network between the losses of two: take a larger batch"
            )
        limit = self.max_damaged
        if isinstance(limit, bool) or not isinstance(limit, numbers.Real) or not 0 <= limit <= 1:
            raise InputError(f"recipe max_damaged={limit!r} must be a part of the images, from 0 to 1")
        for name in ("summary", "start_from"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"recipe {name}={getattr(self, name)!r} must be text")
        if self.folds and not (self.folds >= 2 and 0 <= self.fold < self.folds):
            raise InputError(f"recipe fold={self.fold!r} must be from 0 to folds - 1, and folds={self.folds!r} >= 2")

    def with_overrides(self, overrides):
        """A recipe with other values: ``{"steps": 100, "training.learning_rate": 1e-3}``.

        Parameters
        ----------
        overrides : dict or None
            Values by name; a dot goes into a table.

        Returns
        -------
        Recipe

        Raises
        ------
        InputError
            If a name is unknown, or a value cannot be.
        """
        changes = {}
        for key, value in (overrides or {}).items():
            name, dot, inner = str(key).partition(".")
            if name not in _NAMES or (dot and not (inner and name in _TABLES)):
                raise InputError(f"recipe key {key!r} is unknown; there are {', '.join(sorted(_NAMES))}")
            changes[name] = (changes.get(name, getattr(self, name)) | {inner: value}) if inner else value
        return replace(self, **changes)

    def to_toml(self):
        """The recipe as TOML text; `read_recipe` gives the same recipe back."""
        lines = _pairs({name: getattr(self, name) for name in _NAMES if name not in (*_TABLES, "data")})
        for name in _TABLES:
            lines += ["", f"[{name}]", *_pairs(getattr(self, name))]
        for source in self.data:
            lines += ["", "[[data]]", *_pairs(source)]
        return "\n".join(lines) + "\n"


_NAMES = tuple(f.name for f in fields(Recipe))


def _pairs(table):
    """Lines ``key = value``."""
    return [f"{_key(key)} = {_toml(value, key)}" for key, value in table.items()]


def _key(key):
    return key if _BARE_KEY.fullmatch(str(key)) else _quoted(str(key))


def _quoted(text):
    # JSON's escapes are TOML's, which wants this one, too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml(value, key):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Path):
        return _quoted(str(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(inner, key) for inner in value)}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(_pairs(value)) + " }"
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        return repr(float(value)) if not math.isnan(value) else "nan"
    raise InputError(f"recipe {key}={value!r} cannot be written as TOML; use numbers, text, lists and tables")


def list_recipes():
    """Names of the recipes that come with astrogan."""
    folder = resources.files("astrogan.train") / "recipes"
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def read_recipe(name_or_path):
    """A recipe by name, or from a TOML file.

    Parameters
    ----------
    name_or_path : str or path
        One of `list_recipes`, or a path that ends in ``.toml``.

    Returns
    -------
    Recipe

    Raises
    ------
    InputError
        If there is no such recipe, it is no TOML, or a key is unknown.

    Examples
    --------
    >>> from astrogan.train.recipe import read_recipe
    >>> read_recipe("galaxygan2017").training["l1_weight"]
    100.0
    """
    text = str(name_or_path)
    if text in list_recipes():
        content = (resources.files("astrogan.train") / "recipes" / f"{text}.toml").read_text(encoding="utf-8")
    elif text.endswith(".toml") and Path(text).expanduser().is_file():
        content = _read(Path(text).expanduser())
    else:
        raise InputError(f"recipe={text!r} is neither a .toml file nor one of {', '.join(list_recipes())}")
    return parse_recipe(content, text)


def parse_recipe(content, where="recipe"):
    """A recipe from TOML text, as a model card has it.

    Parameters
    ----------
    content : str
        TOML.
    where : str, optional
        What to call it in errors.

    Returns
    -------
    Recipe

    Raises
    ------
    InputError
        If it is no TOML, or a key is unknown.
    """
    try:
        table = tomllib.loads(content)
    except (ValueError, RecursionError) as error:  # too many digits and too deep brackets are no TOMLDecodeError
        raise InputError(f"recipe={where!r} is no valid TOML: {error}") from error
    unknown = sorted(set(table) - set(_NAMES))
    if unknown:
        raise InputError(f"recipe={where!r} has unknown keys {', '.join(unknown)}; there are {', '.join(_NAMES)}")
    if "name" not in table:
        raise InputError(f'recipe={where!r} has no name; add name = "...", which the weights will have, too')
    return Recipe(**table)


def _read(path):
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe={str(path)!r} cannot be read: {error}") from error


def overrides_of(pairs):
    """Settings of a recipe from texts, as the command line has them.

    Parameters
    ----------
    pairs : sequence of str
        ``KEY=VALUE``; the value as TOML reads it, else text.

    Returns
    -------
    dict
        For `Recipe.with_overrides`.

    Raises
    ------
    InputError
        If there is no ``=``.

    Examples
    --------
    >>> from astrogan.train import overrides_of
    >>> overrides_of(["steps=100", "training.loss=linear"])
    {'steps': 100, 'training.loss': 'linear'}
    """
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair}: write KEY=VALUE, e.g. --set steps=100")
        try:
            found[key] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found
