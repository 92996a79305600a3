"""Training of the branched deblender: batches, schedules, losses, and that a resumed run is the same run."""

import math

import lightning
import numpy as np
import pytest
import torch

from astrogan.exceptions import InputError
from astrogan.image.stretch import GalaxyGAN2017Stretch
from astrogan.nn.branched import BranchedGenerator
from astrogan.train.branched import BranchedModule, BranchedStream, burn_in_losses, evaluation, sheet
from astrogan.train.recipe import Recipe, read_recipe
from astrogan.train.sources import Sample, Source

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]

NETWORK = {"features": 4, "shared_blocks": 1, "branch_blocks": 1}


class Galaxies(Source):
    """Round galaxies on a dark sky, each of its own width and colour."""

    bands = ("i", "r", "g")

    def __init__(self, count=5, size=244):
        self.count, self.size, self.loaded = count, size, 0

    def __len__(self):
        return self.count

    def name(self, i):
        return f"galaxy {i}"

    def load(self, i):
        self.loaded += 1
        y, x = np.mgrid[: self.size, : self.size] - (self.size - 1) / 2
        plane = np.exp(-np.hypot(x, (1 + 0.2 * i) * y) / (20 + 8 * i))
        levels = np.stack([0.8 * plane, 0.6 * plane, 0.4 * plane]) + 0.1
        return Sample(GalaxyGAN2017Stretch().inverse(levels.astype(np.float32)))

    def describe(self):
        return {"kind": "test", "images": self.count, "objects": self.count}


def recipe(**changes):
    return Recipe(**{"name": "tiny", "data": [{"kind": "stamps"}], "batch": 2, "crop": 80, "seed": 3} | changes)


def stream(part="train", count=5, **changes):
    return BranchedStream(Galaxies(count), recipe(**changes), part)


def module(**options):
    return BranchedModule(NETWORK, **{"steps": 8, "burn_in": 3, "discriminator_width": 2} | options)


def tensors(batch):
    return {key: torch.from_numpy(value) for key, value in batch.items()}


class Batches(torch.utils.data.Dataset):
    def __init__(self, steps):
        self.steps, self.stream = steps, stream()

    def __len__(self):
        return len(self.steps)

    def __getitem__(self, i):
        return self.stream.batch(self.steps[i])


def fit(net, folder, steps, resume=None):
    losses = []

    class Losses(lightning.Callback):
        def on_train_epoch_end(self, trainer, *_):
            losses.append({key: float(value) for key, value in trainer.callback_metrics.items()})

    trainer = lightning.Trainer(
        max_epochs=1 if resume is None else 2,
        accelerator="cpu",
        logger=False,
        callbacks=[Losses()],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    loaders = [torch.utils.data.DataLoader(Batches(numbers), batch_size=None) for numbers in (steps, range(1))]
    trainer.fit(net, *loaders, ckpt_path=resume, weights_only=None if resume is None else True)
    return trainer, losses


def loop(net, batch, steps):
    """Steps without a trainer: the losses of each."""
    rows, optimisers = [], net.configure_optimizers()
    net.optimizers, net.manual_backward = lambda: optimisers, lambda loss: loss.backward()
    net.log_dict = lambda values, **_: rows.append({key: float(value) for key, value in values.items()})
    net.train()
    for i in range(steps):
        net.training_step(batch, i)
    return rows, optimisers


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ---- the stream ------------------------------------------------------------------------------------------------------


def test_batches_depend_on_seed_and_step_alone():
    whole, again = stream(), stream()
    batches = [whole.batch(step) for step in range(3)]
    for step in (2, 0, 1):
        assert all(np.array_equal(again.batch(step)[key], batches[step][key]) for key in batches[step])
    other = stream(seed=4).batch(0)
    assert not np.array_equal(other["blended"], batches[0]["blended"])
    assert not np.array_equal(batches[1]["blended"], batches[0]["blended"])
    assert not np.array_equal(stream("validation").batch(0)["second"], batches[0]["second"])


def test_blends_are_the_larger_of_two_galaxies():
    batch = stream(batch=4).batch(0)
    assert set(batch) == {"blended", "first", "second"}
    for image in batch.values():
        assert image.shape == (4, 3, 80, 80)
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
    np.testing.assert_array_equal(batch["blended"], np.maximum(batch["first"], batch["second"]))
    # The first is in the middle; the second 10 to 50 pixels off it, of which three become one.
    for first, second in zip(batch["first"][:, 0], batch["second"][:, 0], strict=True):
        assert np.abs(np.array(np.unravel_index(first.argmax(), first.shape)) - 39.5).max() <= 1
        move = np.abs(np.array(np.unravel_index(second.argmax(), second.shape)) - 39.5)
        assert (move > 10 / 3 - 1.5).all()
        assert (move < 50 / 3 + 1.5).all()


def test_validation_takes_the_galaxies_in_turn():
    validation = stream("validation")
    firsts = np.concatenate([validation.batch(step)["first"] for step in range(3)])
    assert len({image.tobytes() for image in firsts[:5]}) == 5
    np.testing.assert_array_equal(firsts[5], firsts[0])


def test_stamps_are_decoded_once_and_stay_behind_in_copies(monkeypatch):
    import copy

    one = stream()
    batches = [one.batch(step) for step in range(4)]
    assert one.source.loaded <= 5
    assert not copy.copy(one)._levels
    monkeypatch.setattr("astrogan.train.branched._CACHE_BYTES", 0)
    none = stream()
    again = none.batch(2)
    assert all(np.array_equal(again[key], batches[2][key]) for key in again)
    assert not none._levels
    assert none.source.loaded == 4


def test_blends_of_the_other_paper_are_mixed_in():
    batch = stream(degradation={"rule": "paper2019", "share": 1.0}, batch=3).batch(0)
    for first, second in zip(batch["first"][:, 0], batch["second"][:, 0], strict=True):
        assert np.abs(np.array(np.unravel_index(first.argmax(), first.shape)) - 39.5).max() <= 1
        row, column = np.unravel_index(second.argmax(), second.shape)
        assert abs(row - 39.5) <= 1
        assert column == pytest.approx(39.5 + 50 / 3, abs=1)
    taken = np.where(first.sum() >= 0, batch["blended"], 0)
    assert (np.minimum(abs(taken - batch["first"]), abs(taken - batch["second"])) < 0.2).all()
    half = stream(degradation={"rule": "paper2019"}, batch=12).batch(0)["second"][:, 0]
    right = [abs(np.unravel_index(image.argmax(), image.shape)[0] - 39.5) <= 1 for image in half]
    assert 2 <= sum(right) <= 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 128}, "crop=128 must be 80"),
        ({"degradation": {"fwhm": [1, 2]}}, "unknown keys fwhm"),
        ({"degradation": {"rule": "sum"}}, "degradation.rule='sum'"),
        ({"degradation": {"share": 2}}, "degradation.share=2"),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        stream(**changes)


def test_small_stamps_are_refused():
    small = BranchedStream(Galaxies(size=200), recipe(), "train")
    with pytest.raises(InputError, match=r"'galaxy \d' has shape \(3, 200, 200\)"):
        small.batch(0)


# ---- the module ------------------------------------------------------------------------------------------------------


def test_shipped_recipes_build_their_networks():
    for name, parameters in (("branched-gan", 1_715_718), ("branched-gan-narrow", 240_518)):
        chosen = read_recipe(name)
        assert chosen.task == "branched-gan"
        BranchedStream(Galaxies(), chosen, "train")
        with torch.device("meta"):
            net = BranchedGenerator(**chosen.network)
        assert sum(p.numel() for p in net.parameters()) == parameters
    net = BranchedModule(chosen.network, steps=chosen.steps, seed=chosen.seed, **chosen.training)
    assert net.architecture == net.exported.architecture
    assert sum(value.nbytes for value in net.exported.state_dict().values()) < 4e6


def test_rates_follow_from_the_step():
    published = module(steps=202_000, burn_in=2000, schedule="step")
    assert [published.rate(step) for step in (0, 2000, 101_999, 102_000, 201_999)] == [1, 1, 1, 0.1, 0.1]
    short = module(steps=100, schedule="cosine", warmup=10)
    assert short.rate(0) == pytest.approx(0.1)
    assert short.rate(50) == pytest.approx(0.5)
    assert short.rate(100) == pytest.approx(0)
    net = module(steps=4, burn_in=2, learning_rate=1e-2)
    _, optimisers = loop(net, tensors(stream().batch(0)), 4)
    assert {group["lr"] for o in optimisers for group in o.param_groups} == {1e-3}


def test_burn_in_has_no_adversary_and_then_there_is_one():
    net = module(burn_in=2)
    judge = [p.detach().clone() for p in net.discriminator.parameters()]
    batch = tensors(stream().batch(0))
    rows, _ = loop(net, batch, 2)
    assert all(set(row) == {"loss/ms_ssim", "loss/l1"} for row in rows)
    assert all(torch.equal(p, before) for p, before in zip(net.discriminator.parameters(), judge, strict=True))
    rows, _ = loop(net, batch, 1)
    assert set(rows[0]) == {"loss/mse", "loss/adversarial", "loss/discriminator"}
    assert rows[0]["loss/adversarial"] == pytest.approx(1e-3 * math.log(2), rel=0.7)
    assert rows[0]["loss/discriminator"] == pytest.approx(2 * math.log(2), rel=0.5)
    assert not all(torch.equal(p, before) for p, before in zip(net.discriminator.parameters(), judge, strict=True))
    assert all(p.requires_grad for p in net.discriminator.parameters())
    assert int(net.steps_done) == 3


def test_losses_by_hand():
    images = torch.zeros(1, 3, 48, 48) + 0.5
    terms = burn_in_losses(images, images - 0.25)
    assert float(terms["l1"]) == pytest.approx(0.16 * 0.25)
    assert 0 < float(terms["ms_ssim"]) < 0.2
    assert float(sum(burn_in_losses(images, images).values())) == pytest.approx(0, abs=1e-6)


def test_one_batch_is_learned_by_both_branches():
    settings = {"steps": 60, "burn_in": 10, "warmup": 20, "learning_rate": 3e-3, "average": 0.8}
    net = BranchedModule(NETWORK | {"features": 6}, discriminator_width=2, **settings)
    batch = tensors(stream(batch=1).batch(1))
    rows, _ = loop(net, batch, 40)
    assert rows[9]["loss/ms_ssim"] < 0.98 * rows[0]["loss/ms_ssim"]
    assert rows[-1]["loss/mse"] < 0.4 * rows[10]["loss/mse"]
    net.eval()
    images = dict(zip(("first", "second"), net.separated(batch), strict=True))
    for own, other in (("first", "second"), ("second", "first")):
        error, crossed = ((images[own] - batch[name]).square().mean() for name in (own, other))
        assert error < crossed


def test_resumed_training_is_the_same_bit_by_bit(tmp_path):
    whole, first, second = (module(steps=6, burn_in=2) for _ in range(3))
    fit(whole, tmp_path, range(6))
    trainer, rows = fit(first, tmp_path, range(3))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    assert {"loss/l1", "loss/mse"} <= set(rows[0])
    fit(second, tmp_path, range(3, 6), resume=tmp_path / "half.ckpt")
    assert int(second.steps_done) == 6
    assert same(whole, second)
    assert not same(whole, first)


def test_global_generator_is_left_alone_and_the_seed_decides():
    state = torch.get_rng_state()
    nets = [module(seed=seed) for seed in (1, 1, 2)]
    batch = tensors(stream().batch(0))
    for net in nets:
        loop(net, batch, 4)
    assert torch.equal(state, torch.get_rng_state())
    assert same(nets[0], nets[1])
    assert not same(nets[0], nets[2])


def test_average_follows_weights_and_statistics_and_nothing_else_changes_it():
    net, batch = module(average=0.0), tensors(stream().batch(0))
    loop(net, batch, 4)
    assert same(net.average, net.network)
    images = net.separated(batch)
    assert net.average.training
    assert same(net.average, net.network)
    alone = net.separated({"blended": batch["blended"][:1]})
    torch.testing.assert_close(alone[0], images[0][:1], atol=1e-5, rtol=0)
    slow = module(average=0.999)
    loop(slow, tensors(stream().batch(0)), 4)
    assert not same(slow.average, slow.network)


def test_validation_evaluation_and_sheet():
    net, chosen = module(), recipe(validation_images=4)
    validation = stream("validation")
    logged = {}
    net.log_dict = lambda values, **_: logged.update(values)
    net.eval()
    net.validation_step(tensors(validation.batch(0)), 0)
    net.train()
    assert float(logged["val/psnr"]) == pytest.approx(
        (float(logged["val/psnr_first"]) + float(logged["val/psnr_second"])) / 2
    )
    measured = evaluation(net, chosen, validation)
    assert net.training
    assert measured["calibration"] is None
    assert [row["branch"] for row in measured["metrics"]] == ["first", "second"]
    for row in measured["metrics"]:
        assert row["images"] == 4
        assert row["psnr_identity"] > row["psnr"]  # the network has learned nothing
        assert 0 < row["ssim_identity"] <= 1
    truth = [validation.batch(step) for step in range(2)]
    error = np.concatenate([b["blended"] - b["second"] for b in truth])
    expected = np.mean([-10 * np.log10(np.mean(e.astype(np.float64) ** 2)) for e in error])
    assert measured["metrics"][1]["psnr_identity"] == pytest.approx(expected, abs=1e-3)
    rows, titles = sheet(net, tensors(validation.batch(0)))
    assert [len(row) for row in rows] == 2 * [len(titles)]
    np.testing.assert_array_equal(rows[1][2], validation.batch(0)["first"][1])
    assert all(image.shape == (3, 80, 80) and image.min() >= 0 and image.max() <= 1 for row in rows for image in row)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "linear"}, "schedule='linear'"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"adversarial_weight": math.nan}, "adversarial_weight=nan"),
        ({"average": 1.0}, "average=1.0"),
        ({"burn_in": -1}, "burn_in=-1"),
        ({"warmup": 1.5}, "warmup=1.5"),
        ({"discriminator_width": 0}, "width=0"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(InputError, match=message):
        module(**options)


@pytest.mark.data
def test_real_stamps_become_blends(data_dir):
    from astrogan.train._fit import take
    from astrogan.train.sources import open_sources

    chosen = read_recipe("branched-gan-narrow").with_overrides({"batch": 2})
    validation = BranchedStream(take(open_sources(chosen.data, data_dir), chosen, "validation"), chosen, "validation")
    batch = validation.batch(0)
    assert batch["first"][:, :, 36:44, 36:44].max() > 0.4
    assert np.median(batch["first"]) < 0.15
