"""The benchmark of training-set sizes, with a training that is none."""

import numpy as np
import pytest
from PIL import Image

from astrogan.api import Estimate
from astrogan.bench import training_size
from astrogan.exceptions import InputError
from astrogan.train.recipe import read_recipe

FAST = {"part": "all", "size": 40, "tune_images": 1, "photometry_images": 0, "blank_frames": 0, "figure": False}


class Smoother:
    """A network whose result is better the more it was trained."""

    halo = -1

    def __init__(self, weights="5"):
        text = str(weights)
        if text.endswith(".safetensors"):
            with open(text) as file:
                text = file.read()
        self.passes = int(np.log10(float(text)) * 2) + 1

    def __call__(self, observation, *, rng):
        data = observation.data
        for _ in range(self.passes):
            data = (data + np.roll(data, 1, 1) + np.roll(data, -1, 1) + np.roll(data, 1, 2) + np.roll(data, -1, 2)) / 5
        return Estimate(data.astype(np.float32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(2)
    path = tmp_path_factory.mktemp("stamps")
    for k in range(3):
        picture = rng.normal(30, 6, (40, 40, 3))
        picture[14:26, 12:28] += 120
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(path / f"g{k}.png")
    return path


def test_more_training_stands_beside_the_paper(folder, tmp_path):
    weights = {n: Smoother(n) for n in (5, 100, 2000)}
    result = training_size.run(folder, weights=weights, out=tmp_path, **FAST)
    table = result.table
    assert list(table["training_images"]) == [0] * (len(table) - 3) + [5, 100, 2000]
    assert list(table["paper"][-3:]) == [34.6, 37.7, 37.9]
    assert {"identity", "gaussian", "wiener"} <= set(table["row"])
    identity = table["psnr"][table["row"] == "identity"][0]
    assert table["psnr"][-2] > table["psnr"][-3] > identity
    assert (table["psnr_low"] <= table["psnr"]).all()
    lines = [text for text in result.markdown.splitlines() if text.startswith("| 100 ")]
    assert len(lines) == 1
    assert lines[0].endswith("| 37.7 |")
    assert [f.name for f in result.files] == ["training-size.ecsv", "training-size.md"]
    assert all(f.is_file() for f in result.files)


def test_training_is_asked_for_each_size_and_not_again(folder, tmp_path, monkeypatch):
    calls = []

    def train(recipe, *, data, out, overrides=None, resume=False):
        calls.append((recipe, out.name, resume or overrides))
        out.mkdir(parents=True, exist_ok=resume)
        (out / "net.safetensors").write_text(out.name[1:])

    from astrogan.bench import _restoration_rows

    original = _restoration_rows.Restoration.__init__

    def with_smoother(self, row, cell, kernel, pixel_scale, **options):
        if row.backend == "net":
            row = _restoration_rows.Row(row.name, row.kind, Smoother(row.options["weights"]))
        original(self, row, cell, kernel, pixel_scale, **options)

    monkeypatch.setattr(_restoration_rows.Restoration, "__init__", with_smoother)
    options = {"recipe": "gan", "sizes": (100, 5), "out": tmp_path, "train": train, "backend": "net"}
    result = training_size.run(folder, overrides={"seed": 3}, **options, **FAST)
    assert calls == [("gan", "n5", {"seed": 3, "images": 5}), ("gan", "n100", {"seed": 3, "images": 100})]
    assert {n: path.parent.name for n, path in result.weights.items()} == {5: "n5", 100: "n100"}
    assert result.table["psnr"][-1] > result.table["psnr"][-2]
    training_size.run(folder, **options, **FAST)
    assert len(calls) == 2
    (tmp_path / "n5" / "net.safetensors").unlink()
    training_size.run(folder, **options, **FAST)
    assert calls[2:] == [("gan", "n5", True)]


def test_runs_of_another_recipe_are_refused(tmp_path):
    """Weights there, or a run to go on with: either would be measured as if it were of this recipe."""
    calls = []

    def train(recipe, *, data, out, overrides=None, resume=False):
        calls.append(out.name)
        if not resume:
            out.mkdir(parents=True)
            (out / "recipe.toml").write_text(read_recipe(recipe).with_overrides(overrides).to_toml(), encoding="utf-8")
        (out / "net.safetensors").touch()

    def trained(recipe, overrides, train=train):
        return training_size._trained(recipe, (5, 100), tmp_path, tmp_path, train, "images", overrides)

    weights = trained("galaxygan2017-narrow", {"degradation.noise_ratio": [2, 2]})
    assert trained("galaxygan2017-narrow", {"degradation.noise_ratio": [2, 2]}) == weights
    assert calls == ["n5", "n100"]
    for unlinked in (False, True):
        if unlinked:
            weights[100].unlink()
        for recipe, noise in (("galaxygan2017-narrow", [5, 5]), ("nafnet-galaxyzoo", [2, 2])):
            with pytest.raises(InputError, match=r"out: .*n\d+.recipe\.toml' is another recipe.*another folder"):
                trained(recipe, {"degradation.noise_ratio": noise})
    assert calls == ["n5", "n100"]
    assert trained("galaxygan2017-narrow", {"degradation.noise_ratio": [2, 2]}) == weights
    assert calls[2:] == ["n100"]


def test_weights_without_a_recipe_are_refused(folder, tmp_path):
    (tmp_path / "n5").mkdir()
    (tmp_path / "n5" / "net.safetensors").touch()
    with pytest.raises(InputError, match=r"n5' has weights and no recipe\.toml.*weights="):
        training_size.run(folder, recipe="nafnet-galaxyzoo", sizes=(5,), out=tmp_path, **FAST)


def test_objects_are_named_as_the_command_says(folder, tmp_path, monkeypatch):
    class EnoughError(Exception):
        pass

    def run(data, *, name, **options):
        raise EnoughError(name)

    monkeypatch.setattr("astrogan.bench.restoration.run", run)
    with pytest.raises(EnoughError, match="^expression$"):
        training_size.main(
            ["--data", str(folder), "--weights", "5=w", "-o", str(tmp_path / "out"), "--name", "expression"]
        )


def test_refusals(folder, tmp_path):
    with pytest.raises(InputError, match="weights="):
        training_size.run(folder)
    with pytest.raises(InputError, match="sizes="):
        training_size.run(folder, recipe="gan", sizes=(0,), out=tmp_path)
    with pytest.raises(InputError, match=r"left no \.safetensors"):
        training_size.run(folder, recipe="gan", sizes=(5,), out=tmp_path, train=lambda *args, **options: None, **FAST)
