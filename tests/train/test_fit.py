"""A run from its recipe to its weights: killed and resumed, with workers or without, it comes to the same."""

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch

from astrogan.exceptions import CheckpointError, InputError
from astrogan.train import Recipe, fit, read_recipe
from astrogan.train._averaging import update_average
from astrogan.train._fit import take
from astrogan.train.run_directory import RunDirectory
from astrogan.train.sources import Mix, Sample, SimulatedStream, Source, Watched
from astrogan.weights import load_weights

pytest.importorskip("lightning")

TINY = Recipe(
    "tiny",
    steps=6,
    batch=2,
    crop=32,
    epoch_steps=2,
    validate_every=2,
    validation_images=4,
    seed=3,
    network={"widths": [4, 8], "blocks": [1, 1, 1], "balances": [0.1, 10.0], "radius": 8},
    training={"loss": "linear", "warmup": 2},
    degradation={"kind": "physical", "fwhm": [2.0, 4.0]},
    card={"citation": "somebody", "notes": "a test"},
    data=[{"kind": "simulated", "size": 32, "length": 40}],
)
ADVERSARIAL = TINY.with_overrides({"training.adversarial_weight": 0.1, "training.adversarial_start": 0.4})
GAN = TINY.with_overrides(
    {
        "task": "galaxygan2017",
        "steps": 2,
        "batch": 1,
        "epoch_steps": 1,
        "validation_images": 1,
        "network": {"width": 2, "ndf": 2},
        "training": {"load": 258},
        "degradation": {"fwhm": [3.0, 3.0], "noise_ratio": [2.0, 2.0]},
        "data": [{"kind": "simulated", "size": 256, "bands": 3, "length": 40}],
        "crop": 256,
    }
)


def plain(source, i):
    """Instead of a simulated scene, which takes half a second at 256 pixels."""
    rng = np.random.default_rng(source._checked(i))
    y, x = np.indices((256, 256)) - 128
    galaxy = 2 * np.exp(-np.hypot(x, y) / rng.uniform(5, 20))
    return Sample((galaxy + rng.normal(0, 0.01, (3, 256, 256))).astype(np.float32))


def tensors(path):
    return load_weights(path).tensors


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def _torch_generator_untouched():
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(before, torch.random.get_rng_state()), "torch's global random generator was used"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run without interruption."""
    out = tmp_path_factory.mktemp("fit") / "run"
    return fit(TINY, data=".", out=out)


def test_what_a_run_leaves(whole):
    run = whole.parent
    assert whole.name == "tiny.safetensors"
    assert read_recipe(run / "recipe.toml") == TINY
    assert [float(row["step"]) for row in rows(run)] == [2, 4, 6]
    assert all(float(row["loss/charbonnier"]) > 0 for row in rows(run))
    # validated after the second of three epochs, and not said again for the third
    assert [bool(row["val/psnr"]) for row in rows(run)] == [False, True, False]
    assert {path.name for path in (run / "samples").iterdir()} == {"step-00000004.png", "step-00000006.png"}
    assert (run / "samples" / "step-00000006.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(path.name for path in (run / "checkpoints").glob("*.ckpt")) == [
        "step-00000004.ckpt",
        "step-00000006.ckpt",
    ]


def test_the_card(whole):
    weights = load_weights(whole)
    card = json.loads(whole.with_suffix(".json").read_text())
    assert (card["name"], card["backend"], card["role"], card["bands"]) == ("tiny", "nafnet", "restorer", 1)
    assert (card["seed"], card["steps"], card["citation"], card["notes"]) == (3, 6, "somebody", "a test")
    assert card["ranges"]["fwhm"] == [2.0, 4.0]
    low, high = card["ranges"]["peak_snr"]
    assert low == 0 < high
    assert card["calibration"]["scale"] > 0
    assert card["calibration"]["scale95"] > card["calibration"]["scale"]
    assert 0 <= card["calibration"]["coverage68"] <= card["calibration"]["coverage95"] <= 1
    assert len(card["metrics"]) == 4
    for row in card["metrics"]:
        assert {"fwhm", "noise_ratio", "images", "psnr", "psnr_identity", "psnr_gaussian"} == set(row)
        assert row["psnr_gaussian"] > row["psnr_identity"] > 0
    assert card["data"][0]["name"] == "simulated"
    assert card["data"][0]["images"] == 40
    assert isinstance(card["git_revision"], str)
    assert card["recipe"] == TINY.to_toml()

    from astrogan.nn.nafnet import RestorationNAFNet

    with torch.random.fork_rng(devices=[]):
        network = RestorationNAFNet(**weights.card["architecture"])
    network.load_state_dict(weights.tensors)


def test_training_does_something(whole):
    from astrogan.train._loop import network_module

    assert not equal(tensors(whole), network_module(TINY).exported.state_dict())
    assert all(torch.isfinite(value).all() for value in tensors(whole).values())


@pytest.mark.parametrize("epochs", [1, 2])
def test_stopped_and_resumed_is_as_if_never_stopped(whole, tmp_path, epochs):
    assert fit(TINY, data=".", out=tmp_path / "run", stop_after=epochs) is None
    assert [float(row["step"]) for row in rows(tmp_path / "run")] == [2, 4][:epochs]
    path = fit(None, data=".", out=tmp_path / "run", resume=True)
    assert equal(tensors(path), tensors(whole))
    assert rows(tmp_path / "run") == rows(whole.parent)
    assert json.loads(path.with_suffix(".json").read_text()) == json.loads(whole.with_suffix(".json").read_text())


@pytest.mark.parametrize("recipe", [ADVERSARIAL, GAN], ids=["adversarial", "galaxygan2017"])
def test_two_optimisers_stopped_and_resumed(whole, tmp_path, recipe, monkeypatch):
    if recipe is GAN:
        monkeypatch.setattr(SimulatedStream, "load", plain)
    straight = fit(recipe, data=".", out=tmp_path / "straight")
    assert fit(recipe, data=".", out=tmp_path / "run", stop_after=1 if recipe is GAN else 2) is None
    path = fit(None, data=".", out=tmp_path / "run", resume=True)
    assert equal(tensors(path), tensors(straight))
    assert rows(tmp_path / "run") == rows(tmp_path / "straight")
    card = load_weights(path).card
    if recipe is GAN:
        assert (card["backend"], card["bands"], card["calibration"]) == ("galaxygan2017", 3, None)
        # nothing that was looked at after the training is in the statistics
        counted = [int(value) for key, value in tensors(path).items() if key.endswith("num_batches_tracked")]
        assert set(counted) == {0, 2}  # 0: the bottleneck of one pixel, which has no statistics
    else:
        assert [bool(row["loss/adversarial"]) for row in rows(tmp_path / "run")] == [False, True, True]
        assert not equal(tensors(path), tensors(whole))


def test_the_average_of_a_gans_generator(tmp_path, monkeypatch):
    monkeypatch.setattr(SimulatedStream, "load", plain)
    averaged = GAN.with_overrides({"training.average": 0.5, "steps": 3, "epoch_steps": 1})
    straight = fit(averaged, data=".", out=tmp_path / "straight")
    assert fit(averaged, data=".", out=tmp_path / "run", stop_after=1) is None
    path = fit(None, data=".", out=tmp_path / "run", resume=True)
    assert equal(tensors(path), tensors(straight))
    last = fit(averaged.with_overrides({"training.average": 0.0}), data=".", out=tmp_path / "last")
    assert not equal(tensors(last), tensors(straight))
    assert tensors(last).keys() == tensors(straight).keys()
    with pytest.raises(InputError, match="average=1.0 must be a number from 0"):
        fit(averaged.with_overrides({"training.average": 1.0}), data=".", out=tmp_path / "wrong")


def test_an_average_of_weights_and_running_statistics():
    new, kept = torch.nn.BatchNorm2d(1), torch.nn.BatchNorm2d(1).requires_grad_(False)
    new.weight.data.fill_(3.0)
    new.running_mean.fill_(8.0)
    new.num_batches_tracked.fill_(7)
    update_average(kept, new, 10.0, 0.9)  # after ten steps the decay is still 10 / 20
    assert (float(kept.weight), float(kept.running_mean), int(kept.num_batches_tracked)) == (2.0, 4.0, 7)
    update_average(kept, new, 1000.0, 0.75)
    assert (float(kept.weight), float(kept.running_mean)) == (2.25, 5.0)


def test_the_grain_of_images():
    from astrogan.train.restoration import graininess

    rng = np.random.default_rng(1)
    y, x = np.indices((96, 96)) - 48
    galaxy = 50 * np.exp(-np.hypot(x, y) / 8)
    images = torch.tensor(galaxy + rng.normal(0, [[[[0.5]], [[2.0]]]], (1, 2, 96, 96)))
    assert graininess(images).tolist()[0] == pytest.approx([0.5, 2.0], rel=0.05)
    assert float(graininess(torch.ones(1, 1, 8, 8))) == 0


def test_a_last_epoch_that_is_shorter(tmp_path):
    recipe = TINY.with_overrides({"steps": 5, "validate_every": 1})
    straight = fit(recipe, data=".", out=tmp_path / "straight")
    assert [float(row["step"]) for row in rows(tmp_path / "straight")] == [2, 4, 5]
    assert all(row["val/psnr"] for row in rows(tmp_path / "straight"))
    assert fit(recipe, data=".", out=tmp_path / "run", stop_after=2) is None
    assert equal(tensors(fit(None, data=".", out=tmp_path / "run", resume=True)), tensors(straight))
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (tmp_path / "straight" / "metrics.csv").read_bytes()


def test_a_finished_run_resumed_writes_its_weights_again(whole, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(whole.parent, run)
    before = rows(run)
    (run / "tiny.safetensors").unlink()
    (run / "tiny.json").unlink()
    path = fit(None, data=".", out=run, resume=True)
    assert equal(tensors(path), tensors(whole))
    assert rows(run) == before


def test_a_finished_run_resumed_keeps_weights_and_card(whole, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(whole.parent, run)
    weights, card = run / "tiny.safetensors", run / "tiny.json"
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in (weights, card)]
    assert fit(None, data=".", out=run, resume=True) == weights
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in (weights, card)] == before
    weights.write_bytes(before[0][0][:-1])
    assert equal(tensors(fit(None, data=".", out=run, resume=True)), tensors(whole))


def cubes(folder, seed):
    """A cube of stamps, the same size whatever the seed."""
    from astropy.io import fits

    folder.mkdir()
    stamps = np.random.default_rng(seed).normal(size=(40, 32, 32)).astype(np.float32)
    fits.writeto(folder / "cube.fits", stamps)
    return folder


CUBE = TINY.with_overrides({"data": [{"kind": "cube", "path": "cube.fits"}], "steps": 4, "epoch_steps": 2})


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    import shutil

    data, other, run = cubes(tmp_path / "data", 1), cubes(tmp_path / "other", 2), tmp_path / "run"
    assert fit(CUBE, data=data, out=run, stop_after=1) is None
    with pytest.raises(InputError, match=r"data='.*other' \(--data\) holds other files than .*run' began with; give"):
        fit(None, data=other, out=run, resume=True)
    shutil.move(data, tmp_path / "moved")
    path = fit(None, data=tmp_path / "moved", out=run, resume=True)
    with pytest.raises(InputError, match="holds other files"):
        fit(None, data=other, out=run, resume=True)
    (run / "data.sha256").unlink()  # a run of before
    assert fit(None, data=other, out=run, resume=True) == path


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda folder: (folder / "c.fits").write_bytes(b"123"), False),
        (lambda folder: (folder / "b.fits").unlink(), False),
        (lambda folder: (folder / "b.fits").write_bytes(b"12345679"), False),
        (lambda folder: (folder / "b.fits").rename(folder / "d.fits"), False),
        (lambda folder: (folder / "notes.txt").write_bytes(b"123"), True),
    ],
)
def test_what_other_data_are(tmp_path, change, same):
    from astrogan.train._data_digest import _digest

    for name in "ab":
        (tmp_path / f"{name}.fits").write_bytes(b"12345678")
    recipe = TINY.with_overrides({"data": [{"kind": "fits", "path": "."}, {"kind": "simulated"}]})
    before = _digest(recipe, tmp_path)
    change(tmp_path)
    assert (_digest(recipe, tmp_path) == before) is same


@pytest.mark.parametrize("kind", ["stamps", "cube", "field", "simulated"])
def test_files_of_the_other_sources(tmp_path, kind):
    from astrogan.train._data_digest import _files_of

    for name in ("a.png", "b.jpg", "c.txt"):
        (tmp_path / name).write_bytes(b"1")
    spec = {
        "stamps": {"path": "."},
        "cube": {"path": "c.txt"},
        "field": {"paths": {"g": "a.png", "r": "b.jpg"}},
        "simulated": {},
    }[kind]
    expected = {"stamps": ["a.png", "b.jpg"], "cube": ["c.txt"], "field": ["a.png", "b.jpg"], "simulated": []}[kind]
    assert [file.name for file in _files_of({"kind": kind, **spec}, tmp_path)] == expected


def test_data_that_are_needed_and_not_given(whole, tmp_path):
    with pytest.raises(InputError, match=r"data=None \(--data\) must be the folder .* of recipe 'tiny'"):
        fit(TINY, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"data=None \(--data\)"):
        fit(None, out=whole.parent, resume=True)


def test_a_damaged_checkpoint_is_passed_over(whole, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(whole.parent, run)
    newest = run / "checkpoints" / "step-00000006.ckpt"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="is damaged"):
        path = fit(None, data=".", out=run, resume=True)
    assert equal(tensors(path), tensors(whole))
    for checkpoint in (run / "checkpoints").glob("*.ckpt"):
        checkpoint.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        fit(None, data=".", out=run, resume=True)


PROGRAM = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
from astrogan.train import fit
fit(sys.argv[2], data=".", out=sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill")
def test_killed_and_resumed_is_as_if_never_killed(whole, tmp_path):
    # More epochs than can pass unseen; the recipe of the run that goes on is the run's own.
    recipe = TINY.with_overrides({"steps": 6000})
    path, run = tmp_path / "tiny.toml", tmp_path / "run"
    path.write_text(recipe.to_toml())
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(torch.get_num_threads()), str(path), str(run)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while process.poll() is None and len(list((run / "checkpoints").glob("*.ckpt"))) < 2:
            time.sleep(0.01)
        assert process.poll() is None, "the process ended before it was killed"
        with pytest.raises(InputError, match=f"is held by process {process.pid}"):
            fit(None, data=".", out=run, resume=True)
    finally:
        process.kill()
        process.wait()
    saved = [int(path.stem[5:]) for path in (run / "checkpoints").glob("step-*.ckpt")]
    epochs = max(saved) // 2 + 1
    assert fit(None, data=".", out=run, resume=True, stop_after=1) is None
    assert fit(recipe, data=".", out=tmp_path / "straight", stop_after=epochs) is None
    states = [
        torch.load(folder / "checkpoints" / f"step-{2 * epochs:08d}.ckpt", weights_only=True)["state_dict"]
        for folder in (run, tmp_path / "straight")
    ]
    assert int(states[0]["steps_done"]) == 2 * epochs
    assert equal(*states)
    assert rows(run) == rows(tmp_path / "straight")


@pytest.mark.slow
def test_workers_change_nothing(whole, tmp_path):
    assert fit(TINY, data=".", out=tmp_path / "run", stop_after=1) is None
    path = fit(None, data=".", out=tmp_path / "run", workers=1, resume=True)
    assert equal(tensors(path), tensors(whole))


def test_start_from(whole, tmp_path):
    recipe = TINY.with_overrides({"start_from": str(whole), "training.learning_rate": 1e-12, "steps": 2})
    path = fit(recipe, data=".", out=tmp_path / "run")
    old, new = tensors(whole), tensors(path)
    assert all(torch.allclose(old[key], new[key], atol=1e-6) for key in old)
    with pytest.raises(InputError, match="start_from=.* is of another architecture"):
        fit(recipe.with_overrides({"network.widths": [4, 16]}), data=".", out=tmp_path / "other")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"training.rate": 1}, r"\[training\] has unknown keys rate; there are loss, learning_rate"),
        ({"training.steps": 1}, r"\[training\] has unknown keys steps"),
        ({"network.depth": 1}, r"\[network\] has unknown keys depth; there are bands, widths"),
        ({"network.blocks": [1, 1]}, r"\[network\].* must hold 3 numbers"),
        ({"network.widths": "wide"}, r"\[network\] or \[training\] holds a value that cannot be used"),
        ({"training.loss": "l3"}, "loss='l3'"),
        ({"training.least_grain": 0}, "least_grain=0 must be"),
        ({"degradation.psf": 1}, r"\[degradation\] has unknown keys psf; there are kind, fwhm"),
        ({"degradation.fwhm": 3}, r"\[degradation\] holds a value"),
        ({"data": [{"kind": "simulated", "sise": 3}]}, "'sise'"),
        ({"data": [{"kind": "simulated", "length": 1}]}, "no image of the 1 belongs to the"),
        ({"task": "galaxygan2017"}, r"\[network\] has unknown keys"),
    ],
)
def test_a_recipe_at_fault_leaves_no_folder(tmp_path, overrides, message):
    with pytest.raises(InputError, match=message):
        fit(TINY, data=".", out=tmp_path / "deep" / "run", overrides=overrides)
    assert not (tmp_path / "deep" / "run").exists()


def test_folders_that_cannot_be_used(whole, tmp_path):
    with pytest.raises(InputError, match="exists; resume"):
        fit(TINY, data=".", out=whole.parent)
    with pytest.raises(InputError, match="is no folder"):
        fit(None, data=".", out=tmp_path / "none", resume=True)
    with pytest.raises(InputError, match="must be left out with resume"):
        fit(None, data=".", out=whole.parent, overrides={"steps": 3}, resume=True)
    RunDirectory.create(tmp_path / "empty").close()
    with pytest.raises(InputError, match=r"holds no recipe.toml"):
        fit(None, data=".", out=tmp_path / "empty", resume=True)


def test_levels_filters_and_handlers_are_left_as_they_were(tmp_path):
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level, list(warnings.filters), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    fit(TINY, data=".", out=tmp_path / "run", stop_after=1)
    after = logger.level, list(warnings.filters), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert after == before


def test_an_interruption_can_be_caught_and_the_run_goes_on(whole, tmp_path, monkeypatch):
    from astrogan.train.restoration import RestorationModule

    step = RestorationModule.training_step

    def interrupted(module, batch, number):
        if int(module.steps_done) == 3:
            raise KeyboardInterrupt
        return step(module, batch, number)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(RestorationModule, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(TINY, data=".", out=tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is handler
    path = fit(None, data=".", out=tmp_path / "run", resume=True)
    assert equal(tensors(path), tensors(whole))


def test_samples_are_left_out_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    path = fit(TINY, data=".", out=tmp_path / "run", overrides={"steps": 2, "validate_every": 1})
    assert path.exists()
    assert not list((tmp_path / "run").glob("samples/*"))


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_which_process_leads(monkeypatch, environment, first):
    from astrogan.train._distributed import leads

    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert leads() is first


def test_networks_in_turn_need_another_strategy():
    from astrogan.train._loop import _strategy, network_module

    one, two = network_module(TINY), network_module(ADVERSARIAL)
    alone, several = {"devices": 1, "num_nodes": 1}, {"devices": 2, "num_nodes": 1}
    other = "ddp_find_unused_parameters_true"
    assert _strategy(one, strategy="ddp", precision="x", **several) == "ddp"
    assert _strategy(two, strategy="ddp", **several) == other
    assert _strategy(two, strategy="auto", **several) == other
    assert _strategy(two, strategy="auto", **alone) == "auto"
    assert _strategy(two, strategy="fsdp", **several) == "fsdp"


def test_processes_that_do_not_lead_write_nothing(whole, tmp_path, monkeypatch):
    from astrogan.train._distributed import Follower, hold

    monkeypatch.setenv("RANK", "1")
    before = {path: path.stat().st_mtime_ns for path in whole.parent.rglob("*")}
    with RunDirectory.open(whole.parent), hold(whole.parent, resume=True) as run:
        assert isinstance(run, Follower)
        assert run.resume().step == 6
        run.write_text("recipe.toml", "other")
        run.append_metrics({"step": 7})
        told = []
        run.save_checkpoint(7, told.append)
        assert len(told) == 1
        assert not told[0].exists()
    lock = whole.parent / "run.lock"
    after = {path: path.stat().st_mtime_ns for path in whole.parent.rglob("*")}
    assert {p: t for p, t in after.items() if p != lock} == {p: t for p, t in before.items() if p != lock}
    with hold(tmp_path / "new", resume=False):
        pass
    assert os.listdir(tmp_path) == []


# ---- parts of the data -------------------------------------------------------------------------------------------


def names(source):
    return [source.name(i) for i in range(len(source))]


def test_parts_share_no_object():
    source = SimulatedStream(length=400)
    parts = [set(names(take(source, TINY, part))) for part in ("train", "test")]
    all_validation = TINY.with_overrides({"validation_images": 400})
    parts.append(set(names(take(source, all_validation, "validation"))))
    assert sum(map(len, parts)) == len(set.union(*parts)) == 400
    assert len(take(source, TINY, "validation")) == 4


def test_fewer_images_are_among_more():
    source = SimulatedStream(length=300)
    sets = [set(names(take(source, TINY.with_overrides({"images": n}), "train"))) for n in (5, 20, 100)]
    assert [len(s) for s in sets] == [5, 20, 100]
    assert sets[0] < sets[1] < sets[2]
    assert sets[2] < set(names(take(source, TINY, "train")))


class Boxes(Source):
    """Images of objects with ``counts`` images each."""

    bands = ("any",)

    def __init__(self, counts):
        self.objects = [name for name, count in counts.items() for _ in range(count)]

    def __len__(self):
        return len(self.objects)

    def name(self, i):
        return self.objects[i]

    def load(self, i):
        rng = np.random.default_rng(i)
        y, x = np.indices((40, 40)) - 20
        return Sample((50 * np.exp(-np.hypot(x, y) / 4) + rng.normal(size=(1, 40, 40))).astype(np.float32))

    def describe(self):
        return {"kind": "boxes", "images": len(self), "objects": len(set(self.objects))}


def test_images_of_many_objects_are_taken_rather_than_many_of_one():
    source = Boxes({f"cell {k}": 1 + 9 * (k % 3) for k in range(60)})
    sets = []
    for count in (10, 30, 100):
        chosen = take(source, TINY.with_overrides({"images": count}), "train")
        counts = [names(chosen).count(name) for name in set(names(chosen))]
        assert len(counts) == min(count, len(set(names(take(source, TINY, "train")))))
        assert max(counts) <= 1 + count // 20
        sets.append(set(chosen.indices.tolist()))
    assert sets[0] < sets[1] < sets[2]


def test_images_of_an_object_each_are_those_that_they_always_were():
    from hashlib import sha256

    source = SimulatedStream(length=300)
    everything = names(take(source, TINY, "train"))
    lowest = sorted(everything, key=lambda name: sha256(f"subset:{name}".encode()).digest())[:50]
    chosen = names(take(source, TINY.with_overrides({"images": 50}), "train"))
    assert chosen == [name for name in everything if name in set(lowest)]


def test_which_of_an_objects_images_comes_first_differs():
    """Of every object the same band otherwise."""
    source = Boxes({f"galaxy {k}": 5 for k in range(80)})
    chosen = take(source, TINY.with_overrides({"images": 40}), "train")
    assert len(set((chosen.indices % 5).tolist())) == 5


# ---- the calibration -----------------------------------------------------------------------------------------------


def pairs(source, batch=4):
    from astrogan.train.stream import Degradation, PairStream

    degradation = Degradation("physical", fwhm=(2.0, 4.0), noise_ratio=(2.0, 5.0))
    return PairStream(source, degradation, batch=batch, crop=32, seed=1, jitter=False, augment=False)


def test_factors_are_scored_on_other_objects():
    """Objects of one half have errors many times those of the other: seen in both, they would be covered."""
    from astrogan.train import evaluate
    from astrogan.train._loop import network_module

    source = Boxes({f"cell {k}": 3 for k in range(4)})
    ratios, shown = evaluate._error_ratios(network_module(TINY), pairs(source), len(source))
    assert shown == source.objects  # each once, though a batch of four goes round
    half = evaluate._halves(shown)
    assert [int((half == k).sum()) for k in (0, 1)] == [6, 6]
    assert not {n for n, h in zip(shown, half, strict=True) if h} & {
        n for n, h in zip(shown, half, strict=True) if not h
    }
    card = evaluate._calibration(network_module(TINY), pairs(source), len(source))
    inner = [np.quantile(ratios[half != k], 0.6827) for k in (0, 1)]  # of the other half
    parts = [(ratios[half == k] <= inner[k]).mean() for k in (0, 1)]
    assert card["coverage68"] == pytest.approx(np.mean(parts))
    assert card["scale"] == pytest.approx(np.quantile(ratios, 0.6827))


def test_halves_are_about_as_large_and_follow_from_names():
    from astrogan.train.evaluate import _halves

    shown = ["a"] * 9 + list("bcdefghij")
    half = _halves(shown)
    assert len(set(half[:9])) == 1
    assert abs(int((half == 0).sum()) - int((half == 1).sum())) <= 9
    order = np.random.default_rng(1).permutation(len(shown))
    assert (_halves([shown[i] for i in order]) == half[order]).all()


def test_one_object_leaves_none_to_test_the_factors(tmp_path):
    from astrogan.train import evaluate
    from astrogan.train._loop import network_module
    from astrogan.weights import describe, validate_card

    found = evaluate._calibration(network_module(TINY), pairs(Boxes({"cell": 5})), 5)
    assert found["scale"] > 0
    assert found["coverage68"] is found["coverage95"] is None
    card = {"name": "mine", "backend": "nafnet", "role": "restorer", "architecture": {}, "calibration": found}
    assert "one object only" in describe(validate_card(card))


def test_images_in_place_of_damaged_ones_are_counted_once():
    from astrogan.exceptions import ImageReadError
    from astrogan.train import evaluate
    from astrogan.train._loop import network_module

    class Torn(Boxes):
        def load(self, i):
            if i == 1:
                raise ImageReadError("torn")
            return super().load(i)

    source = Watched(Torn(dict.fromkeys("abcd", 1)), 0.5)
    ratios, shown = evaluate._error_ratios(network_module(TINY), pairs(source), 4)
    assert shown == ["a", "c", "d"]
    assert len(ratios) == 3


def test_sources_share_what_is_looked_at_by_their_weights():
    mix = Mix([SimulatedStream(seed=s, length=500) for s in (1, 2, 3)], [0.5, 0.375, 0.125])
    recipe = TINY.with_overrides({"validation_images": 8, "images": 16})
    chosen = take(mix, recipe, "validation")
    assert [len(part) for part in chosen.sources] == [4, 3, 1]
    assert chosen.weights.tolist() == [0.5, 0.375, 0.125]
    assert [len(part) for part in take(mix, recipe, "train").sources] == [8, 6, 2]
    everything = take(mix, TINY, "train")
    assert len(everything) > 1000
    small = Mix([SimulatedStream(seed=1, length=20), SimulatedStream(seed=2, length=500)], [0.9, 0.1])
    own = names(take(small, TINY.with_overrides({"validation_images": 500}), "validation").sources[0])
    shares = [len(part) for part in take(small, TINY.with_overrides({"validation_images": 20}), "validation").sources]
    assert shares == [len(own), 20 - len(own)]  # a source gives what it has
