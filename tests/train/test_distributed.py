"""Two processes, several batches a step, one large batch: the same images give the same training."""

import csv
import os
import subprocess
import sys

import pytest
import torch

from astrogan.exceptions import InputError
from astrogan.train import Recipe, fit, read_recipe
from astrogan.train._loop import _Steps, network_module
from astrogan.train.restoration import RestorationModule
from astrogan.weights import load_weights

pytest.importorskip("lightning")

TINY = Recipe(
    "tiny",
    steps=4,
    batch=2,
    crop=32,
    epoch_steps=2,
    validate_every=9,
    validation_images=2,
    seed=3,
    network={"widths": [4, 8], "blocks": [1, 1, 1], "balances": [0.1, 10.0], "radius": 8},
    training={"loss": "linear", "warmup": 2},
    degradation={"kind": "physical", "fwhm": [2.0, 4.0]},
    data=[{"kind": "simulated", "size": 32, "length": 40}],
)
TWICE = TINY.with_overrides({"accumulate": 2})


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def same(path, other, tolerance):
    a, b = (load_weights(p).tensors for p in (path, other))
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
    for one, two in zip(rows(path.parent), rows(other.parent), strict=True):
        assert one == pytest.approx(two, rel=10 * tolerance)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process that takes two batches a step."""
    return fit(TWICE, data=".", out=tmp_path_factory.mktemp("alone") / "run")


@pytest.mark.parametrize(("accumulate", "world"), [(1, 1), (1, 4), (4, 1), (2, 2)])
def test_a_step_has_the_same_batches_however_they_are_shared_out(accumulate, world):
    from types import SimpleNamespace

    recipe = TINY.with_overrides({"accumulate": accumulate, "epoch_steps": 3, "steps": 5})
    share = accumulate * world
    for done, expected in ((0, range(3 * share)), (3, range(3 * share, 5 * share))):
        module = SimpleNamespace(steps_done=done)
        samplers = [_Steps(recipe, SimpleNamespace(world_size=world, global_rank=r), module) for r in range(world)]
        numbers = [list(sampler) for sampler in samplers]
        assert sorted(n for each in numbers for n in each) == list(expected)
        assert [len(sampler) for sampler in samplers] == [len(each) for each in numbers]


def gradients(module, batches):
    """After the batches of one step, without the step itself."""
    taken = []
    module.accumulate = len(batches)
    module.optimizers = lambda: module.optimiser
    module.manual_backward = lambda loss: loss.backward()
    module.log_dict = lambda *_, **__: None
    module.optimiser = torch.optim.SGD(module.network.parameters(), 0.0)
    module.optimiser.step = lambda: taken.append({n: p.grad.clone() for n, p in module.network.named_parameters()})
    module.clip = float("inf")
    for number, batch in enumerate(batches):
        module.training_step(batch, number)
    (found,) = taken
    assert int(module.steps_done) == 1
    return found


def test_accumulated_batches_are_one_large_batch():
    generator = torch.Generator().manual_seed(1)
    whole = {
        "degraded": torch.randn(6, 1, 32, 32, generator=generator),
        "original": torch.randn(6, 1, 32, 32, generator=generator),
        "noise": torch.ones(6, 1, 32, 32),
        "sigma": torch.ones(6, 1),
        "sky": torch.zeros(6, 1),
        "fwhm": torch.full((6, 1), 3.0),
        "shape": torch.zeros(6),
    }
    parts = [{key: value[i : i + 2] for key, value in whole.items()} for i in (0, 2, 4)]
    modules = [RestorationModule(TINY.network, steps=4, seed=1, **TINY.training) for _ in range(3)]
    large, accumulated, first = (
        gradients(module, batches) for module, batches in zip(modules, ([whole], parts, parts[:1]), strict=True)
    )
    for name, gradient in large.items():
        torch.testing.assert_close(accumulated[name], gradient, rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(first[name], gradient, rtol=1e-2) for name, gradient in large.items())


def test_a_run_counts_optimiser_steps(alone):
    assert [row["step"] for row in rows(alone.parent)] == [2, 4]
    assert read_recipe(alone.parent / "recipe.toml") == TWICE
    assert network_module(TWICE).accumulate == 2


def test_stopped_and_resumed_between_accumulated_steps(alone, tmp_path):
    assert fit(TWICE, data=".", out=tmp_path / "run", stop_after=1) is None
    same(alone, fit(None, data=".", out=tmp_path / "run", resume=True), 0)


def test_tasks_whose_networks_take_turns_cannot_accumulate():
    with pytest.raises(InputError, match="accumulate=2 is for the tasks restoration, deblending, translation"):
        TINY.with_overrides({"task": "galaxygan2017", "accumulate": 2})


def test_mixed_precision_keeps_weights_in_full(alone, tmp_path):
    path = fit(TWICE, data=".", out=tmp_path / "run", precision="bf16-mixed")
    assert all(value.dtype == torch.float32 for value in load_weights(path).tensors.values())
    for row, exact in zip(rows(path.parent), rows(alone.parent), strict=True):
        assert row == pytest.approx(exact, rel=0.1)
    assert rows(path.parent) != rows(alone.parent)


PROGRAM = """
import sys
from astrogan.train import fit
fit(sys.argv[1], data=".", out=sys.argv[2], devices=2, strategy="ddp")
"""


def run(command, folder):
    """In a process of its own, which starts the second, or is started with it."""
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    environment |= {"OMP_NUM_THREADS": "1", "ASTROGAN_DISABLE_PLUGINS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run" / "tiny.safetensors"


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(alone, tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY.to_toml())
    (tmp_path / "program.py").write_text(PROGRAM)
    path = run([sys.executable, "program.py", "tiny.toml", "run"], tmp_path)
    same(alone, path, 1e-4)
    assert not (path.parent / "damaged.txt").exists()


@pytest.mark.slow
def test_torchrun(alone, tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY.to_toml())
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "astrogan"]
    options = ["train", "tiny.toml", "--data", ".", "--out", "run"]
    options += ["--accelerator", "cpu", "--devices", "2", "--strategy", "ddp"]
    same(alone, run([sys.executable, *launcher, *options], tmp_path), 1e-4)
