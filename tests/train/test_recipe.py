"""Recipes: read, changed, written, refused."""

import numpy as np
import pytest

from astrogan.exceptions import InputError
from astrogan.train import Recipe, list_recipes, read_recipe

DATA = [{"kind": "simulated", "length": 5}]


def test_shipped_recipes():
    assert {"nafnet-galaxyzoo", "nafnet-linear", "galaxygan2017", "galaxygan2017-narrow"} <= set(list_recipes())


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_written_is_the_recipe_read(name, tmp_path):
    recipe = read_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    path = tmp_path / "copy.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert read_recipe(path) == recipe
    assert read_recipe(str(path)).to_toml() == recipe.to_toml()


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_hold_no_unknown_keys(name):
    from astrogan.train.stream import Degradation
    from astrogan.train.tasks import task_of

    recipe = read_recipe(name)
    assert recipe.epoch_steps <= recipe.steps
    if recipe.task in ("restoration", "galaxygan2017"):
        degradation = Degradation(**recipe.degradation)
        assert degradation.fwhm[0] <= degradation.fwhm[1]
        assert recipe.steps % recipe.epoch_steps == 0
    pytest.importorskip("lightning")
    if not recipe.data:
        task_of(recipe).stream(recipe, None, "train")
    for table in ("network", "training"):
        with pytest.raises(InputError, match=rf"\[{table}\] has unknown keys windth"):
            task_of(recipe).module(recipe.with_overrides({f"{table}.windth": 1}))


def test_awkward_values_survive(tmp_path):
    text = 'a "quoted" \\ back\\nslash\n\ttab \x01\x7f é 🌌'
    data = [{"kind": "fits", "paths": {"f814w.x": "a b", "g": "c"}, "box": [1, 2.5, True], "n": 1e-30, "m": -0.0}]
    recipe = Recipe("odd-1", data=data, summary=text, card={"notes": text, "ünd": "x", "": "empty"})
    path = tmp_path / "odd.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert read_recipe(path) == recipe


def test_numbers_of_numpy_and_paths_are_written_as_toml(tmp_path):
    training = {"a": np.float64(0.5), "b": np.int64(3), "c": (1, 2), "d": np.bool_(True).item(), "e": float("inf")}
    recipe = Recipe("np", data=[{"kind": "fits", "path": tmp_path}], training=training, steps=np.int64(7))
    path = tmp_path / "np.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    again = read_recipe(path)
    assert again.training == {"a": 0.5, "b": 3, "c": [1, 2], "d": True, "e": float("inf")}
    assert (again.data[0]["path"], again.steps) == (str(tmp_path), 7)


def test_what_toml_does_not_know_is_refused():
    with pytest.raises(InputError, match="band_names=None cannot be written"):
        Recipe("x", data=DATA, card={"band_names": None}).to_toml()


def test_overrides():
    recipe = read_recipe("nafnet-galaxyzoo")
    changed = recipe.with_overrides({"steps": 7, "training.warmup": 3, "training.loss": "linear", "card.new": "x"})
    assert (changed.steps, changed.training["warmup"], changed.training["loss"]) == (7, 3, "linear")
    assert changed.training["learning_rate"] == recipe.training["learning_rate"]
    assert changed.card["new"] == "x"
    assert recipe == read_recipe("nafnet-galaxyzoo")  # not changed
    assert recipe.with_overrides(None) == recipe.with_overrides({}) == recipe
    whole = recipe.with_overrides({"training": {"loss": "linear"}, "training.warmup": 5})
    assert whole.training == {"loss": "linear", "warmup": 5}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"stpes": 1}, "'stpes' is unknown; there are accumulate, batch, card"),
        ({"steps.x": 1}, "'steps.x' is unknown"),
        ({"training.": 1}, "'training.' is unknown"),
        ({"data.kind": "fits"}, "'data.kind' is unknown"),
        ({"training": 3}, r"training=3 must be a table"),
        ({"data": []}, "names no data"),
        ({"data": ["x"]}, "must be tables"),
        ({"steps": 0}, "steps=0 must be an integer of at least 1"),
        ({"steps": 2.0}, r"steps=2.0 must be an integer"),
        ({"batch": True}, "batch=True must be an integer"),
        ({"crop": "32"}, "crop='32' must be an integer"),
        ({"seed": -1}, "seed=-1 must be an integer of at least 0"),
        ({"images": 1.5}, "images=1.5 must be an integer"),
        ({"folds": 1}, "folds=1 >= 2"),
        ({"folds": 3, "fold": 3}, "fold=3 must be from 0 to folds - 1"),
        ({"name": "Upper"}, "lower-case"),
        ({"name": ""}, "lower-case"),
        ({"name": "../x"}, "lower-case"),
        ({"name": 3}, "lower-case"),
        ({"task": "painting"}, "must be one of restoration, galaxygan2017"),
        ({"start_from": 1}, "start_from=1 must be text"),
    ],
)
def test_wrong_values_are_named(overrides, message):
    with pytest.raises(InputError, match=message):
        read_recipe("nafnet-linear").with_overrides(overrides)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name = ", "no valid TOML"),
        ('name = "x"\nstep = 3\n[[data]]\n', "unknown keys step; there are name, task"),
        ("[[data]]\n", "has no name"),
        ('name = "x"\n', "names no data"),
    ],
)
def test_files_that_are_no_recipe(tmp_path, content, message):
    path = tmp_path / "x.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_recipe(path)


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "x.toml"
    with pytest.raises(InputError, match="neither a .toml file nor one of branched-gan"):
        read_recipe(path)
    with pytest.raises(InputError, match="neither a .toml file nor one of"):
        read_recipe("nothing")
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(path)


def test_reading_recipes_needs_no_lightning():
    import subprocess
    import sys

    code = "import sys, astrogan.train as t; t.read_recipe(t.list_recipes()[0]); print('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
