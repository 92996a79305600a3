"""Training of the deblending network: batches by step, losses, figures; the first models are stand-ins."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from astrogan.exceptions import InputError
from astrogan.train import deblending, fit
from astrogan.train.deblending import DeblendingModule, DeblendingStream, evaluation, flux_errors, sheet, small_row
from astrogan.train.recipe import parse_recipe, read_recipe
from astrogan.weights import load_weights

TOML = """
name = "tiny"
task = "deblending"
seed = 5
steps = 4
batch = 2
crop = 32
epoch_steps = 2
validate_every = 1
validation_images = 4

[network]
stem = 8
widths = [8, 12]
blocks = [1, 1, 1]

[training]
learning_rate = 1e-2
warmup = 1

[degradation]
groups = 3
sources = [2, 3]
models = 6
bands = 2
symmetric = 0.5
"""


@pytest.fixture
def recipe():
    return parse_recipe(TOML)


@pytest.fixture(autouse=True)
def quick_models(monkeypatch):
    """Blurred Gaussians at the positions stand in for fits, which would take most of the time."""

    def models(observation, positions, starts=("profile-fit", "symmetric")):
        def gaussians(sigma):
            out = np.zeros((len(positions), *observation.shape), np.float32)
            for model, (x, y) in zip(out, np.floor(positions + 0.5).astype(int), strict=True):
                model[:, min(max(y, 0), 31), min(max(x, 0), 31)] = 300
            return ndimage.gaussian_filter(out, (0, 0, sigma, sigma))

        return {name: gaussians(2.0 + i) for i, name in enumerate(starts)}

    monkeypatch.setattr(deblending, "first_models", models)


def tensors(stream, step=0):
    return {name: torch.from_numpy(value) for name, value in stream.batch(step).items()}


def test_a_batch_is_a_pure_function_of_the_step(recipe):
    one, other = DeblendingStream(None, recipe, "train"), DeblendingStream(None, recipe, "train")
    for step in (7, 0, 2):
        other.batch(step)
    a, b = one.batch(2), other.batch(2)
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(one.batch(2 + 3)["data"], a["data"])


def test_all_groups_come_once_a_round(recipe):
    stream = DeblendingStream(None, recipe, "validation")
    assert stream.groups == 2
    counts = sorted(stream.batch(step)["truth"].shape[1] for step in range(2))
    assert counts == [2, 3]
    again = [stream.batch(step + 2)["truth"].sum() for step in range(2)]
    assert sorted(again) == pytest.approx(sorted(stream.batch(step)["truth"].sum() for step in range(2)))


def test_parts_of_the_split_have_no_blend_in_common(recipe):
    parts = [DeblendingStream(None, recipe, part).batch(0)["truth"].sum() for part in ("train", "validation", "test")]
    assert len({float(total) for total in parts}) == 3


def test_turning_keeps_sources_where_their_light_is(recipe):
    stream = DeblendingStream(None, recipe, "train")
    for step in range(8):
        batch = stream.batch(step)
        for truth, positions in zip(batch["truth"], batch["positions"], strict=True):
            for light, (x, y) in zip(truth, positions, strict=True):
                rows, columns = np.indices(light.shape[1:])
                total = light.sum(0)
                at = (total * columns).sum() / total.sum(), (total * rows).sum() / total.sum()
                assert np.hypot(at[0] - x, at[1] - y) < 2.5


def test_units_are_those_of_the_noise(recipe):
    batch = DeblendingStream(None, recipe, "validation").batch(0)
    left = (batch["data"] - batch["truth"].sum(1)) / batch["noise"]
    assert np.std(left) == pytest.approx(1, abs=0.05)
    assert np.median(batch["noise"]) == pytest.approx(1, abs=0.05)


def test_the_loss_falls_on_one_batch(recipe):
    stream = DeblendingStream(None, recipe, "validation")
    module = DeblendingModule(recipe.network, steps=60, warmup=1, learning_rate=1e-2, average=0.5, seed=1)
    batch = tensors(stream)
    optimiser = torch.optim.Adam(module.network.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        terms = module._losses(batch, *deblending.shares(module.network, batch))
        losses.append(float((terms["flux"] + terms["ratio"]).detach()))
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
    assert np.mean(losses[-5:]) < 0.7 * losses[0]


def test_true_models_cost_nothing(recipe):
    batch = tensors(DeblendingStream(None, recipe, "validation"))
    batch["models"] = batch["truth"].clone()
    module = DeblendingModule(recipe.network, steps=1)
    terms = module._losses(batch, *deblending.shares(module.network, batch))
    assert terms["flux"] < 0.03
    assert terms["ratio"] < 0.01
    errors = flux_errors(module.network, batch)
    # "start" spreads a thousandth of the noise over all sources
    assert torch.allclose(errors["network"], errors["start"], atol=1e-2)
    assert errors["oracle"].median() < 0.1


def test_fit_writes_weights_that_say_what_they_are(recipe, tmp_path):
    path = fit(recipe, data=tmp_path, out=tmp_path / "run")
    weights = load_weights(path)
    card = weights.card
    assert (card["backend"], card["role"], card["bands"]) == ("ratio-net", "deblender", None)
    assert card["data"][0]["origin"].startswith("blends drawn by")
    assert set(card["calibration"]) == {"scale", "scale95", "coverage68", "coverage95"}
    row = card["metrics"][0]
    assert row["fluxes"] > 0
    assert [row["part"] for row in card["metrics"]] == ["validation", "test"]
    assert {"flux_error_median_network", "flux_error_median_start", "flux_error_median_oracle"} <= set(row)
    assert list((tmp_path / "run" / "samples").glob("*.png"))


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(recipe, tmp_path):
    whole = load_weights(fit(recipe, data=tmp_path, out=tmp_path / "whole")).tensors
    assert fit(recipe, data=tmp_path, out=tmp_path / "parts", stop_after=1) is None
    parts = load_weights(fit(recipe, data=tmp_path, out=tmp_path / "parts", resume=True)).tensors
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_evaluation_and_sheet(recipe):
    stream = DeblendingStream(None, recipe, "validation")
    module = DeblendingModule(recipe.network, steps=1)
    found = evaluation(module, recipe, stream)
    assert found["metrics"][1] == {"part": "test", **small_row(module.average, recipe)}
    assert found["ranges"]["fwhm"][0] < found["ranges"]["fwhm"][1]
    assert 0 <= found["calibration"]["coverage68"] <= found["calibration"]["coverage95"] <= 1
    rows, titles = sheet(module, tensors(stream))
    assert len(rows[0]) == len(titles)
    assert all(0 <= image.min() <= image.max() <= 1 for image in rows[0])


@pytest.mark.parametrize("change", [{"groups": 0}, {"sources": []}, {"symmetric": 2.0}, {"psf_fwm": 3}])
def test_settings_that_cannot_be_used_are_refused(recipe, tmp_path, change):
    with pytest.raises(InputError, match="degradation"):
        fit(
            recipe.with_overrides({f"degradation.{k}": v for k, v in change.items()}), data=tmp_path, out=tmp_path / "r"
        )


def test_the_recipe_that_comes_with_astrogan_builds():
    recipe = read_recipe("ratio-net")
    module = DeblendingModule(recipe.network, steps=recipe.steps, **recipe.training)
    assert sum(p.numel() for p in module.exported.parameters()) < 2e6
