"""Training of the DCGAN of Usaid et al. (2019): its blends, its steps, its figures."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from astrogan.exceptions import InputError
from astrogan.image.stretch import GalaxyGAN2017Stretch
from astrogan.simulate.paper_blends import paper_blend, paper_segments
from astrogan.train._usaid2019_blends import segmented, shrink
from astrogan.train.recipe import read_recipe
from astrogan.train.sources import Sample, Source
from astrogan.train.usaid2019 import PaperBlends, Usaid2019Module, Usaid2019Stream, evaluation, sheet

NETWORK = {"width": 8, "encoder": 8, "latent": 16}
HALF = {"shift": [10, 34], "turn": True, "field": [64, 90], "noise": [0.0, 0.05], "neighbours": [1, 2], "augment": True}


class Galaxies(Source):
    """Gaussian galaxies of several colours and shapes, in nanomaggies, on a dark sky."""

    bands = ("i", "r", "g")

    def __init__(self, size=160, number=6):
        self.size, self.number, self.loads = size, number, 0

    def __len__(self):
        return self.number

    def name(self, i):
        return f"galaxy {i}"

    def load(self, i):
        self.loads += 1
        y, x = np.mgrid[: self.size, : self.size] - (self.size - 1) / 2
        width = 6 + 2 * i
        light = np.exp(-0.5 * ((x / width) ** 2 + (y / (0.5 * width)) ** 2))
        return Sample((np.multiply.outer([2.5, 1.5, 0.5 + 0.3 * i], light) - 0.08).astype(np.float32))

    def describe(self):
        return {"kind": "test", "images": self.number, "objects": self.number}


def recipe(**changes):
    values = {"batch": 4, "seed": 5, "degradation": HALF, "validation_images": 6, "network": NETWORK, "training": {}}
    return SimpleNamespace(**(values | changes))


def stream(part="train", source=None, **changes):
    return Usaid2019Stream(source or Galaxies(), recipe(**changes), part)


def tensors(batch):
    return {key: torch.from_numpy(value) for key, value in batch.items()}


def module(**options):
    out = Usaid2019Module(NETWORK, steps=20, **({"loss": "hinge", "spectral": True, "average": 0.9} | options))
    optimisers = out.configure_optimizers()
    out.optimizers = lambda: optimisers
    out.manual_backward = lambda loss: loss.backward()
    out.losses = {}
    out.log_dict = lambda values, **_: out.losses.update({k: float(v) for k, v in values.items()})
    return out


# ---- blends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["mean", "maximum"])
def test_blends_are_those_of_the_paper(rule):
    rng = np.random.default_rng(1)
    first, second = rng.uniform(0, 1, (2, 3, 40, 60))
    blended = paper_blend(first, second, shift=7, rule=rule)
    moved = np.zeros_like(second)
    moved[:, :, 7:] = second[:, :, :-7]
    mine, known = segmented(first, [moved], rule)
    np.testing.assert_allclose(mine, blended)
    mask, _ = paper_segments(blended, first, second, shift=7, rule=rule)
    np.testing.assert_array_equal(known, mask.sum(0) > 1.5)


def test_of_several_neighbours_the_brightest_has_the_pixel():
    own, one, two = (np.full((3, 1, 3), level) for level in (0.3, 0.2, 0.1))
    one[:, 0, 1], two[:, 0, 1], two[:, 0, 2] = 0.5, 0.6, 0.4
    for rule in ("mean", "maximum"):
        blend, known = segmented(own, [one, two], rule)
        np.testing.assert_allclose(blend[0, 0], [0.3, 0.6, 0.4])
        assert known.tolist() == [[True, False, False]]


def test_published_batch_shows_the_second_galaxy_fifty_pixels_to_the_right():
    settings = {"shift": [50, 50], "field": [256, 256], "noise": [0, 0]}
    source = Galaxies(size=424)
    batch = stream("validation", source, degradation=settings, batch=2).batch(0)
    levels = GalaxyGAN2017Stretch().forward(np.stack([source.load(i).data for i in (0, 1)]))
    levels = np.round(255 * levels.clip(0, 1)).astype(np.float32) / 255
    blend = paper_blend(*levels, shift=50)
    np.testing.assert_allclose(batch["blended"][0], shrink(blend[:, 84:340, 84:340])[0], atol=1e-6)
    # The second sample is the second galaxy, in the middle, with the first on its left.
    np.testing.assert_allclose(batch["blended"][1], shrink(blend[:, 84:340, 134:390])[0], atol=1e-6)
    np.testing.assert_allclose(batch["image"][1], shrink(levels[1][:, 84:340, 84:340])[0], atol=1e-6)
    hidden = batch["mask"][:, 0] == 0
    assert hidden[0, :, 32:].sum() > 0
    assert hidden[0].sum() == hidden[0, :, 32:].sum()
    assert hidden[1].sum() == hidden[1, :, :32].sum()


def test_known_pixels_show_the_galaxy_and_hidden_ones_nothing_but_noise():
    batch = stream("validation", degradation=HALF | {"noise": [0, 0]}).batch(3)
    known = np.broadcast_to(batch["mask"] > 0, batch["image"].shape)
    assert 0.02 < 1 - known.mean() < 0.9
    assert np.all(batch["segmented"][~known] == 0)
    # A pixel that is known in part only is the mean of that part.
    off = np.abs(batch["segmented"] - batch["image"])[known]
    assert np.median(off) < 1e-6
    assert off.max() < 0.2
    noisy = stream("validation", degradation=HALF | {"noise": [0.05, 0.05]}).batch(3)
    assert abs(np.std(noisy["segmented"][~known]) - 0.05) < 0.005


def test_batches_depend_on_seed_and_step_alone():
    one, other = stream(), pickle.loads(pickle.dumps(stream()))
    other.batch(0)
    a, b = one.batch(2), other.batch(2)
    assert all(np.array_equal(a[key], b[key]) for key in a)
    assert not np.array_equal(a["image"], one.batch(3)["image"])
    assert not np.array_equal(a["image"], stream(seed=6).batch(2)["image"])
    assert not np.array_equal(a["image"], stream("validation").batch(2)["image"])
    shapes = {key: (value.shape, value.dtype) for key, value in a.items()}
    pictures = ((4, 3, 64, 64), np.float32)
    assert shapes == {"image": pictures, "segmented": pictures, "mask": ((4, 1, 64, 64), np.float32)}


def test_stamps_are_kept():
    source = Galaxies()
    own = stream(source=source)
    for step in range(8):
        own.batch(step)
    assert source.loads <= len(source)
    assert not pickle.loads(pickle.dumps(own))._stamps


def test_odd_batches_and_one_galaxy_are_possible():
    assert stream(batch=3).batch(0)["image"].shape == (3, 3, 64, 64)
    assert stream(batch=1).batch(0)["image"].shape == (1, 3, 64, 64)


def test_means_over_areas():
    picture = np.arange(3 * 128 * 128, dtype=np.float32).reshape(3, 128, 128)
    np.testing.assert_allclose(shrink(picture)[0], picture.reshape(3, 64, 2, 64, 2).mean((2, 4)), rtol=1e-6)
    known = np.ones((128, 128), bool)
    known[0, 0] = False  # three quarters are known
    known[2, :2] = known[3, :2] = False
    small, mask = shrink(picture, known)
    np.testing.assert_allclose(small[0, 0, 0], picture[0, [0, 1, 1], [1, 0, 1]].mean())
    assert (mask[1, 0], small[0, 1, 0]) == (0, 0)
    assert mask.sum() == 64 * 64 - 1


def test_faults_of_the_data_are_named():
    with pytest.raises(InputError, match="160 x 160 pixels and 356 are needed"):
        stream(degradation={}).batch(0)
    with pytest.raises(InputError, match="rule='sum'"):
        PaperBlends(rule="sum")
    with pytest.raises(InputError, match="shift"):
        PaperBlends(shift=(5, 2))
    with pytest.raises(InputError, match="degradation"):
        stream(degradation={"blur": 1})
    source = Galaxies()
    source.bands = ("r",)
    with pytest.raises(InputError, match="has 1 bands"):
        stream(source=source)


# ---- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "losses"),
    [
        ({}, {"discriminator", "generator", "completion", "hidden"}),
        ({"loss": "bce", "spectral": False, "smoothing": 0.1}, {"discriminator", "generator", "completion", "hidden"}),
    ],
)
def test_a_step_changes_all_networks_and_counts(options, losses):
    own = module(**options)
    before = {key: value.clone() for key, value in own.state_dict().items()}
    own.training_step(tensors(stream().batch(0)), 0)
    changed = {key for key, value in own.state_dict().items() if not torch.equal(value, before[key])}
    assert set(own.losses) == {f"loss/{name}" for name in losses}
    for part in ("network.generator", "network.encoder", "discriminator", "average.generator", "steps_done"):
        assert any(key.startswith(part) for key in changed), part
    assert int(own.steps_done) == 1
    assert own.exported is own.average


def test_as_published_there_is_neither_encoder_nor_average():
    own = Usaid2019Module({"width": 8}, steps=10)
    assert own.exported is own.network
    assert own.architecture == {"width": 8, "latent": 100, "bands": 3, "encoder": 0}
    assert own.rates == (0.006, 0.006)
    assert [o.param_groups[0]["betas"] for o in own.configure_optimizers()] == [(0.5, 0.999)] * 2


def test_a_run_that_goes_on_from_its_state_gives_the_same_weights():
    batches = [tensors(stream().batch(step)) for step in range(4)]
    whole = module(schedule="cosine")
    for batch in batches[:2]:
        whole.training_step(batch, 0)
    state = {key: value.clone() for key, value in whole.state_dict().items()}
    optimisers = [pickle.loads(pickle.dumps(o.state_dict())) for o in whole.optimizers()]
    for batch in batches[2:]:
        whole.training_step(batch, 0)
    resumed = module(schedule="cosine", seed=0)
    resumed.load_state_dict(state)
    for optimiser, kept in zip(resumed.optimizers(), optimisers, strict=True):
        optimiser.load_state_dict(kept)
    for batch in batches[2:]:
        resumed.training_step(batch, 0)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_global_generator_is_not_used():
    state = torch.get_rng_state()
    own = module()
    own.training_step(tensors(stream().batch(0)), 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_learning_makes_completion_better():
    own = module(learning_rate=0.01)
    batch = tensors(stream().batch(0))
    own.training_step(batch, 0)
    first = own.losses["loss/completion"]
    for _ in range(30):
        own.training_step(batch, 0)
    assert own.losses["loss/completion"] < 0.7 * first


def test_completed_pictures_depend_on_known_pixels_only_and_not_on_the_batch():
    own = module()
    batch = tensors(stream().batch(0))
    own.training_step(batch, 0)
    made = own.completed(batch)
    other = batch | {"segmented": torch.where(batch["mask"] > 0, batch["segmented"], 3.0)}
    assert torch.equal(made, own.completed(other))
    alone = own.completed({key: value[:1] for key, value in batch.items()})
    torch.testing.assert_close(made[:1], alone, rtol=1e-4, atol=1e-5)
    assert own.average.training is False
    assert 0 <= float(made.min()) <= float(made.max()) <= 1


def test_validation_and_sheet():
    own = module()
    batch = tensors(stream("validation").batch(0))
    own.validation_step(batch, 0)
    assert set(own.losses) == {f"val/{name}" for name in ("psnr", "psnr_hidden", "identity", "identity_hidden")}
    error = (batch["segmented"] - batch["image"]).square().mean()
    assert own.losses["val/identity"] == pytest.approx(float(-10 * torch.log10(error)), abs=1e-4)
    rows, titles = sheet(own, batch)
    assert titles == ["blended", "segmented", "deblended", "from noise", "preblended 1"]
    assert {image.shape for row in rows for image in row} == {(3, 64, 64)}
    assert len(rows) == 4


def test_figures_have_the_baselines_beside_them():
    own = module(inversion_steps=2)
    found = evaluation(own, recipe(), stream("validation"))
    rows = {row["method"]: row for row in found["metrics"]}
    assert set(rows) == {
        "encoder",
        "encoder + known",
        "inversion",
        "inversion + known",
        "segmented",
        "mean fill",
    }
    assert found["ranges"] == {}
    assert found["calibration"] is None
    assert all(row["images"] == 8 for row in rows.values())
    assert rows["mean fill"]["psnr_hidden"] != rows["segmented"]["psnr_hidden"]
    assert rows["encoder"]["psnr_hidden"] == rows["encoder + known"]["psnr_hidden"]
    published = Usaid2019Module({"width": 8}, steps=10, inversion_steps=2)
    assert not {r["method"] for r in evaluation(published, recipe(), stream("validation"))["metrics"]} & {"encoder"}


def test_recipes_fit_and_the_published_one_is_as_published():
    published, stable = read_recipe("usaid2019"), read_recipe("usaid2019-stable")
    assert (published.steps, published.batch, published.images) == (300_000, 10, 3000)
    assert published.training == {"loss": "bce", "learning_rate": 0.006, "betas": [0.5, 0.999]}
    assert published.network == {"width": 512, "encoder": 0}
    for each in (published, stable):
        settings = PaperBlends(**each.degradation)
        assert settings.extent <= each.data[0]["size"]
    built = Usaid2019Module(stable.network, steps=stable.steps, **stable.training)
    size = 4 * sum(value.numel() for value in built.exported.state_dict().values())
    assert size < 6_000_000


def test_unknown_losses_are_refused():
    with pytest.raises(InputError, match="loss='mse'"):
        Usaid2019Module(NETWORK, steps=1, loss="mse")
    with pytest.raises(InputError, match="schedule='step'"):
        Usaid2019Module(NETWORK, steps=1, schedule="step")


@pytest.mark.data
def test_real_stamps_make_batches(data_dir):
    from astrogan.train.sources import StampTar

    source = StampTar(data_dir / "galaxyzoo_kaggle" / "images.tar", size=424)
    batch = stream("validation", source, degradation={"noise": [0, 0]}, batch=4).batch(0)
    assert batch["image"][:, :, 28:36, 28:36].mean() > 3 * batch["image"][:, :, :4].mean()
    known = np.broadcast_to(batch["mask"] > 0, batch["image"].shape)
    assert 0.05 < 1 - known.mean() < 0.8
