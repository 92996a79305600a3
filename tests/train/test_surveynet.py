"""Training of the translation network: its data, its losses, its card, and the way to the operator."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("galsim")
pytest.importorskip("lightning")

from astrogan.exceptions import InputError
from astrogan.train import fit
from astrogan.train.recipe import read_recipe
from astrogan.train.survey_stream import SurveyStream
from astrogan.train.surveynet import SurveyNetModule, _alone, estimates, evaluation, sheet, translate

SMALL = {
    "batch": 2,
    "steps": 2,
    "epoch_steps": 2,
    "validate_every": 1,
    "validation_images": 2,
    "degradation.pairs": 3,
    "degradation.unpaired": 3,
    "degradation.bands": ["g", "r"],
    "degradation.shapes": [[40, 40], [84, 84]],
    "network.band_names": ["g", "r"],
    "network.widths": [8, 16],
    "network.blocks": [1, 1, 1],
    "training.crop": 40,
}


@pytest.fixture(scope="module")
def recipe():
    return read_recipe("surveynet-sdss-cfhtls").with_overrides(SMALL)


@pytest.fixture(scope="module")
def stream(recipe):
    return SurveyStream(None, recipe, "train")


def torch_batch(stream, step=0):
    return {key: torch.from_numpy(value) for key, value in stream.batch(step).items()}


class TestStream:
    def test_shapes(self, stream):
        batch = stream.batch(0)
        for name in "xu":
            assert batch[name].shape == (2, 2, 40, 40)
        for name in "yv":
            assert batch[name].shape == (2, 2, 84, 84)
        assert batch["x_sigma"].shape == batch["v_fwhm"].shape == (2, 2)
        assert batch["x_at"].shape == (2, 2)
        assert all(value.dtype == np.float32 for value in batch.values())

    def test_a_function_of_the_step(self, recipe, stream):
        again = SurveyStream(None, recipe, "train")
        again.batch(1)
        for key, value in stream.batch(4).items():
            assert np.array_equal(value, again.batch(4)[key]), key

    def test_every_galaxy_before_any_comes_again(self, stream):
        seen = [n for step in range(3) for n in stream._numbers("pair", step)]
        assert sorted(seen[:3]) == sorted(seen[3:]) == [0, 1, 2]

    def test_parts_and_kinds_share_no_galaxy(self, recipe, stream):
        validation = SurveyStream(None, recipe, "validation")
        images = [s.batch(0)[name] for s in (stream, validation) for name in "xu"]
        for i, one in enumerate(images):
            for other in images[i + 1 :]:
                assert not any(np.array_equal(a, b) for a in one for b in other)

    def test_pairs_show_the_same_sky(self, stream):
        """Whatever the turn, the classic estimate of one stamp lies on the other."""
        for step in range(4):
            batch = torch_batch(stream, step)
            found = estimates((3e-4,), batch, batch["y_truth"], "y", "x")[:, :, 0]
            error = (found - batch["x_truth"]).norm(dim=(-2, -1)) / batch["x_truth"].norm(dim=(-2, -1))
            # Filters differ by up to 17 % in g; a shift of a pixel would be 40 %.
            assert error.max() < 0.2

    def test_kernels_are_those_of_the_noise(self, stream):
        kernel = stream.batch(0)["x_kernel"]
        assert kernel.shape == (2, 7, 7)
        assert np.allclose((kernel**2).sum((1, 2)), 1, atol=1e-5)

    @pytest.mark.parametrize("key", ["pairs", "unpaired"])
    def test_bad_numbers(self, recipe, key):
        with pytest.raises(InputError, match=f"{key}=0"):
            SurveyStream(None, recipe.with_overrides({f"degradation.{key}": 0}), "train")


def gradient(module, batch, done=1):
    """Gradients of one step's losses by name of the loss."""
    out = {}
    for name, _, loss in module._parts(batch, done):
        module.zero_grad()
        sum(loss().values()).backward()
        out[name] = {n: p.grad.abs().sum().item() for n, p in module.network.named_parameters() if p.grad is not None}
    return out


def module_of(recipe, **training):
    keys = {k: v for k, v in recipe.training.items() if k not in training}
    return SurveyNetModule(recipe.network, steps=100, seed=1, **(keys | training))


def test_losses_by_mode(recipe, stream):
    batch = torch_batch(stream)
    names = lambda **weights: [name for name, *_ in module_of(recipe, **weights)._parts(batch, 50)]  # noqa: E731
    assert names() == ["pair_x", "pair_y", "cycle_down", "cycle_up"]
    assert names(cycle_weight=0) == ["pair_x", "pair_y"]
    assert names(pair_weight=0) == ["cycle_down", "cycle_up"]
    assert [name for name, *_ in module_of(recipe)._parts(batch, 0)] == ["pair_x", "pair_y"]
    with pytest.raises(InputError, match="must be positive"):
        module_of(recipe, pair_weight=0, cycle_weight=0)


def test_every_loss_reaches_the_network(recipe, stream):
    found = gradient(module_of(recipe), torch_batch(stream), done=50)
    assert set(found) == {"pair_x", "pair_y", "cycle_down", "cycle_up"}
    for name, gradients in found.items():
        # Towards the broader PSF only the filters and the error's width are learned.
        assert (gradients["head.weight"] > 0) == (name != "pair_y"), name
        assert (gradients.get("colour", 0) > 0) == name.startswith("pair"), name
        assert gradients["spread.0.weight"] > 0, name


def test_cycles_see_only_unpaired_images(recipe, stream):
    batch = torch_batch(stream)
    alone = _alone(batch)
    assert torch.equal(alone["x"], batch["u"])
    assert torch.equal(alone["y_sigma"], batch["v_sigma"])
    assert torch.equal(alone["y_kernel"], batch["y_kernel"])
    spoiled = batch | {name: batch[name] + 100 for name in ("x", "y")}
    losses = []
    for each in (batch, spoiled):
        module = module_of(recipe, pair_weight=0)
        losses.append([float(sum(loss().values()).detach()) for _, _, loss in module._parts(each, 50)])
    assert losses[0] == losses[1]


def test_learns_the_filters(recipe, stream):
    """Colour terms are nothing but a few numbers: pairs find them in some dozen steps."""
    module = module_of(recipe, cycle_weight=0, learning_rate=0.02, warmup=1)
    optimiser = torch.optim.Adam([module.network.colour, module.network.zero_point], lr=0.03)
    batches = [torch_batch(stream, step) for step in range(2)]

    def bias():
        out = []
        with torch.no_grad():
            for batch in batches:
                mean = translate(module.network, batch, batch["y_truth"], "y", "x")[0]
                out.append(mean.sum((-2, -1)) / batch["x_truth"].sum((-2, -1)) - 1)
        return torch.cat(out).abs().mean(0)

    before = bias()
    for step in range(24):
        batch = batches[step % 2]
        optimiser.zero_grad()
        mean = translate(module.network, batch, batch["y_truth"], "y", "x")[0]
        target = batch["x_truth"]
        ((mean - target).square().sum() / target.square().sum()).backward()
        optimiser.step()
    assert before[0] > 0.04
    assert bias()[0] < 0.5 * before[0]


def test_card_and_sheet(recipe, stream):
    module = module_of(recipe)
    validation = SurveyStream(None, recipe, "validation")
    found = evaluation(module, recipe, validation)
    json.dumps(found)
    assert set(found["ranges"]) == {"fwhm", "fwhm_ratio", "scale_ratio", "peak_snr"}
    assert len(found["calibration"]["scales"]) == len(found["calibration"]["error_kernels"]) == 2
    rows = {row["part"]: row for row in found["metrics"]}
    assert rows["test"]["network_error_sdss-cfhtls"] > 0
    assert rows["test"]["classic_error_cfhtls-sdss"] < rows["test"]["classic_error_sdss-cfhtls"]
    images, titles = sheet(module, torch_batch(stream))
    assert len(images) == 2
    assert len(images[0]) == len(titles) == 4
    assert all(image.min() >= 0 and image.max() <= 1 for row in images for image in row)


def test_from_recipe_to_translator(recipe, tmp_path):
    from astrogan import Translator
    from astrogan.simulate.surveys import simulate_stamp

    path = fit("surveynet-sdss-cfhtls", data=tmp_path, out=tmp_path / "run", overrides=SMALL, workers=0)
    stamp = simulate_stamp(5, "sdss", bands="gr", shape=(64, 64))
    images = stamp.to_ccd()
    translate_it = Translator(weights=str(path), source="sdss", target="cfhtls", bands=("g", "r"))
    out = translate_it(images, psf=list(stamp.psf), rng=1)
    assert out[0].shape == (136, 136)
    assert out[0].meta["AGTARGET"] == "cfhtls"
    assert np.isfinite([image.data for image in out]).all()
