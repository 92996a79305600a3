"""``astrogan train``."""

import pytest

from astrogan.cli import main
from astrogan.train import list_recipes, read_recipe

RECIPE = """
name = "tiny"
steps = 4
batch = 2
crop = 32
epoch_steps = 2
validation_images = 2

[network]
widths = [4]
blocks = [1]
balances = [0.1, 10.0]
radius = 8

[training]
loss = "linear"

[degradation]
kind = "physical"
fwhm = [3.0, 3.0]
noise_ratio = [20.0, 20.0]

[[data]]
kind = "simulated"
seed = 5
size = 32
length = 40
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def run(capsys, *argv):
    status = main(["train", *map(str, argv)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_list(capsys):
    status, out, err = run(capsys, "--list")
    assert (status, err) == (0, "")
    assert [line.partition(":")[0] for line in out.splitlines()] == list(list_recipes())
    assert read_recipe("nafnet-linear").summary in out


@pytest.mark.parametrize(
    ("argv", "missing"),
    [
        ((), "RECIPE, --data, --out must be given"),
        (("nafnet-linear", "--out", "x"), "--data must be given"),
        (("nafnet-linear", "--data", "."), "--out must be given"),
        (("--resume", "--data", "."), "--out must be given"),
    ],
)
def test_what_is_missing_is_named(capsys, argv, missing):
    status, _, err = run(capsys, *argv)
    assert status == 2
    assert missing in err


@pytest.mark.parametrize(
    "wrong", [("--set", "steps"), ("--folds", "1"), ("--epochs", "0"), ("--workers", "-1"), ("--data", "nowhere")]
)
def test_wrong_options(capsys, tmp_path, recipe, wrong):
    status, _, err = run(capsys, recipe, "--data", tmp_path, "--out", tmp_path / "run", *wrong)
    assert status == 2
    assert wrong[1] in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("nothing",), "recipe='nothing' is neither"),
        (("{recipe}", "--set", "stpes=3"), "'stpes' is unknown"),
        (("{recipe}", "--set", "training.rate=3"), "[training] has unknown keys rate"),
        (("{recipe}", "--set", "steps=many"), "steps='many' must be an integer"),
        (("nafnet-galaxyzoo",), "--data"),
        (("--resume",), "is no folder"),
    ],
)
def test_what_is_wrong_with_recipe_or_data_is_said(capsys, tmp_path, recipe, argv, message):
    argv = [str(recipe) if word == "{recipe}" else word for word in argv]
    status, _, err = run(capsys, *argv, "--data", tmp_path, "--out", tmp_path / "run")
    assert status == 1
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_run_stopped_and_resumed(capsys, tmp_path, recipe):
    where = ("--data", tmp_path, "--out", tmp_path / "run", "--accelerator", "cpu")
    settings = ("--set", "seed=5", "--set", "training.learning_rate=1e-3", "--set", "card.notes=as text")
    status, out, err = run(capsys, recipe, *where, *settings, "--epochs", 1)
    assert (status, err) == (0, "")
    assert out.startswith("stopped; go on with: astrogan train")
    kept = read_recipe(tmp_path / "run" / "recipe.toml")
    assert (kept.seed, kept.training, kept.card) == (5, {"loss": "linear", "learning_rate": 1e-3}, {"notes": "as text"})

    status, _, err = run(capsys, recipe, *where)
    assert status == 1
    assert "exists; resume" in err

    status, _, err = run(capsys, *where, "--resume", "--set", "steps=6")
    assert status == 1
    assert "must be left out with resume" in err

    status, out, err = run(capsys, *where, "--resume")
    assert (status, err) == (0, "")
    assert out.strip() == str(tmp_path / "run" / "tiny.safetensors")
    assert main(["weights", "verify", out.strip()]) == 0


WITHOUT_DATA = """
name = "tiny-ratios"
task = "deblending"
steps = 2
batch = 1
epoch_steps = 1
validate_every = 9
validation_images = 1

[network]
stem = 8
widths = [8]
blocks = [1]
"""


def test_a_recipe_without_data_needs_no_folder(capsys, tmp_path, monkeypatch):
    from astrogan.train import _fit

    asked = []
    monkeypatch.setattr(_fit, "_trained", lambda run, job, *_, **__: asked.append(job.source))
    recipe, out = tmp_path / "ratios.toml", tmp_path / "run"
    recipe.write_text(WITHOUT_DATA)
    status, said, err = run(capsys, recipe, "--out", out, "--accelerator", "cpu")
    assert (status, err) == (0, "")
    assert said == f"stopped; go on with: astrogan train --out {out} --resume\n"
    status, said, err = run(capsys, "--out", out, "--resume", "--accelerator", "cpu")
    assert (status, err) == (0, "")
    assert asked == [None, None]


def test_a_run_that_needs_its_data_says_so(capsys, tmp_path, recipe):
    where = ("--out", tmp_path / "run", "--accelerator", "cpu")
    assert run(capsys, recipe, "--data", tmp_path, *where, "--epochs", 1)[0] == 0
    status, _, err = run(capsys, *where, "--resume")
    assert status == 1
    assert "data=None (--data) must be the folder" in err


def test_folds(capsys, tmp_path, recipe):
    where = ("--data", tmp_path, "--out", tmp_path / "run", "--accelerator", "cpu")
    status, out, err = run(capsys, recipe, *where, "--folds", 2, "--set", "steps=2")
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["fold", "images", "psnr", "psnr_identity", "psnr_gaussian"]
    assert [line[0] for line in lines[-4:]] == ["0", "1", "mean", "std"]
    assert (tmp_path / "run" / "fold-1" / "tiny.safetensors").exists()
    status, again, err = run(capsys, recipe, *where, "--folds", 2, "--set", "steps=2", "--resume")
    assert (status, err, again) == (0, "", out)
