"""Training of the networks of Lin et al. (2021): what each step and each variant changes, and by which losses."""

import copy
import math

import lightning
import numpy as np
import pytest
import torch
from torch.nn import functional

from astrogan.exceptions import InputError
from astrogan.nn.lin2020 import regridded, rescaled
from astrogan.train._lin2020_report import border_noise
from astrogan.train.gan import dropout_generator
from astrogan.train.lin2020 import VARIANTS, Lin2020Module, evaluation, sheet
from astrogan.train.recipe import read_recipe
from astrogan.train.tasks import task_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]

SIGMA = {"x": 0.05, "y": 0.002}


class Stream:
    """Round galaxies, paired and not, in two surveys of different noise; not simulations, but as shaped."""

    def __init__(self, number=2):
        self.number = number

    def batch(self, step):
        rng = np.random.default_rng(step)
        batch = {}
        for pair, single in (("x", "u"), ("y", "v")):
            for place, name in enumerate((pair, single)):
                batch |= self._stamps(name, pair, rng, np.random.default_rng((step, place)))
        return batch

    def _stamps(self, name, survey, rng, galaxies):
        edge, scale = {"x": (64, 0.396), "y": (136, 0.187)}[survey]
        y, x = (np.mgrid[:edge, :edge] - (edge - 1) / 2) * scale
        width = galaxies.uniform(0.8, 2, (self.number, 1, 1, 1))
        flux = galaxies.uniform(30, 100, (self.number, 5, 1, 1))
        truth = flux * scale**2 * np.exp(-(x**2 + y**2) / (2 * width**2)) / (2 * np.pi * width**2)
        data = truth + rng.normal(0, SIGMA[survey], truth.shape)
        return {name: data.astype(np.float32), f"{name}_truth": truth.astype(np.float32)}


def tensors(step=0, number=2):
    return {key: torch.from_numpy(value) for key, value in Stream(number).batch(step).items()}


def module(variant="lin2020", **options):
    network = {"width": 2} | options.pop("network", {})
    return Lin2020Module(network, variant=variant, **{"steps": 4, "noise_steps": 2} | options)


def loop(net, batches, optimisers=None):
    """Steps without a trainer: the losses of each."""
    rows, optimisers = [], optimisers or net.configure_optimizers()
    net.optimizers, net.manual_backward = lambda: optimisers, lambda loss: loss.backward()
    net.log_dict = lambda values, **_: rows.append({key: float(value) for key, value in values.items()})
    net.train()
    for batch in batches:
        net.training_step(batch, 0)
    return rows


def state(net):
    return {key: value.clone() for key, value in net.state_dict().items()}


def changed(net, before):
    """Which of the networks have other weights than before."""
    after = net.state_dict()
    names = {key for key in after if not torch.equal(after[key], before[key])} - {"steps_done"}
    return {key.split(".")[0].replace("translator", key.split(".")[1]) for key in names}


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ---- what is trained, by what ---------------------------------------------------------------------------------------


def test_first_step_learns_noise_and_second_translates():
    net = module()
    before = state(net)
    rows = loop(net, [tensors(number=1)])
    assert changed(net, before) == {"autoencoders", "discriminator", "noise"}
    assert set(rows[0]) == {"loss/autoencoders", "loss/discriminator", "loss/noise"}
    loop(net, [tensors(1, number=1)])
    before = state(net)
    rows = loop(net, [tensors(2, number=1)])
    assert changed(net, before) == {"generators"}
    assert set(rows[0]) == {"loss/cycle", "loss/paired"}
    assert int(net.steps_done) == 3
    assert all(p.requires_grad for p in net.discriminator.parameters())


EXPECTED = {
    "pix2pix": {"paired", "adversarial", "discriminator"},
    "cyclegan": {"cycle", "adversarial", "discriminator"},
    "cyclegan-identity": {"cycle", "identity", "adversarial", "discriminator"},
    "cyclegan-paired": {"cycle", "paired", "adversarial", "discriminator"},
    "pixelshuffle": {"cycle", "paired", "adversarial", "discriminator"},
    "no-autoencoder": {"cycle", "paired", "discriminator", "noise"},
    "cyclegan-regridded": {"cycle", "adversarial", "discriminator"},
    "augcgan": {"cycle", "paired", "adversarial", "latent", "discriminator"},
}


def test_all_variants_are_expected():
    assert {"lin2020", *EXPECTED} == set(VARIANTS)


@pytest.mark.parametrize("variant", EXPECTED)
def test_variants_have_their_losses(variant):
    net = module(variant)
    before = state(net)
    rows = loop(net, [tensors(number=1)])
    assert set(rows[0]) == {f"loss/{name}" for name in EXPECTED[variant]}
    assert all(math.isfinite(value) for value in rows[0].values())
    parts = {"generators", "discriminator"}
    parts |= {"noise"} if variant == "no-autoencoder" else {"encoders"} if variant == "augcgan" else set()
    assert changed(net, before) == parts
    assert net.architecture["noise"] == (variant == "no-autoencoder")
    assert net.exported.architecture == net.architecture


def test_second_steps_losses_by_hand():
    net = module(noise_steps=0, seed=7)
    made, batch = copy.deepcopy(net.translator), tensors()
    rows = loop(net, [batch])
    images = {name: rescaled(batch[name]) for name in "xyuv"}
    generator = dropout_generator(7, 0)
    with torch.no_grad():
        forth, back = made.generators["x_to_y"], made.generators["y_to_x"]
        noisy = forth(images["u"])
        noisy = noisy + made.noise["y"].sample(2, (136, 136), generator)
        other = back(images["v"])
        other = other + made.noise["x"].sample(2, (64, 64), generator)
        cycle = functional.mse_loss(back(noisy), images["u"]) + functional.mse_loss(forth(other), images["v"])
        paired = functional.mse_loss(forth(images["x"]), images["y"])
        paired = paired + functional.mse_loss(back(images["y"]), images["x"])
    assert rows[0]["loss/cycle"] == pytest.approx(float(cycle), rel=1e-4)
    assert rows[0]["loss/paired"] == pytest.approx(float(paired), rel=1e-4)


def test_losses_of_the_first_step_by_hand():
    net = module(seed=7)
    old, batch = copy.deepcopy(net), tensors()
    row = loop(net, [batch])[0]
    real = {"x": rescaled(batch["u"]), "y": rescaled(batch["v"])}
    generator = dropout_generator(7, 0)
    with torch.no_grad():
        error = sum(functional.mse_loss(old.autoencoders[s](real[s]), real[s]) for s in "xy")
        # The autoencoders have learned when the discriminators look, and these when the emulators do.
        smooth = {s: net.autoencoders[s](real[s]) for s in "xy"}
        emulated = [{s: old.translator.noise[s].sample(2, real[s].shape[2:], generator) for s in "xy"} for _ in "ab"]

        def entropy(judge, images, label):
            logits = judge(images)
            assert logits.shape == (2, 5)
            return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

        judged = sum(
            entropy(old.discriminator[s], real[s], 1.0) + entropy(old.discriminator[s], smooth[s] + emulated[0][s], 0.0)
            for s in "xy"
        )
        fooled = sum(entropy(net.discriminator[s], smooth[s] + emulated[1][s], 1.0) for s in "xy")
    assert row["loss/autoencoders"] == pytest.approx(float(error), rel=1e-4)
    assert row["loss/discriminator"] == pytest.approx(float(judged), rel=1e-3)
    assert row["loss/noise"] == pytest.approx(float(fooled), rel=1e-3)


def test_images_weigh_a_thousand_times_the_adversary():
    net = module("cyclegan-identity")
    old, batch = copy.deepcopy(net.translator), tensors()
    row = loop(net, [batch])[0]
    u, v = rescaled(batch["u"]), rescaled(batch["v"])
    ratio = 0.396 / 0.187
    with torch.no_grad():
        forth, back = old.generators["x_to_y"](u), old.generators["y_to_x"](v)
        cycle = functional.mse_loss(old.generators["y_to_x"](forth), u)
        cycle = cycle + functional.mse_loss(old.generators["x_to_y"](back), v)

        def shrink(images):  # every 2.125th pixel, by linear interpolation
            at = torch.arange(64) * 2.125
            left, part = at.long(), at - at.long()
            images = images[..., left] * (1 - part) + images[..., left + 1] * part
            return images[..., left, :] * (1 - part[:, None]) + images[..., left + 1, :] * part[:, None]

        pseudo = functional.mse_loss(ratio * shrink(forth), u) + functional.mse_loss(back, ratio * shrink(v))
    assert row["loss/cycle"] == pytest.approx(1000 * float(cycle), rel=1e-3)
    assert row["loss/identity"] == pytest.approx(1000 * float(pseudo), rel=1e-3)
    assert row["loss/adversarial"] < 20


def test_regridded_variants_see_small_stamps_of_both():
    net = module("cyclegan-regridded")
    seen = net._seen(tensors())
    assert {image.shape for image in seen.values()} == {(2, 5, 64, 64)}
    wanted = rescaled(regridded(tensors()["y"], (64, 64), 0.396 / 0.187))
    torch.testing.assert_close(seen["y"], wanted)
    torch.testing.assert_close(seen["x"], rescaled(tensors()["x"]))


# ---- schedule -------------------------------------------------------------------------------------------------------


def test_published_rates():
    recipe = read_recipe("lin2020")
    with torch.device("meta"):
        net = task_of(recipe).module(recipe)
    marks = (0, 19_999, 20_000, 40_000, 59_999, 60_000, 80_000, 119_999)
    wanted = [1e-4 / 5**n for n in (0, 0, 1, 2, 2, 0, 1, 2)]
    assert [net.rate(step) for step in marks] == pytest.approx(wanted)
    assert (net.clip, recipe.batch, net.autoencoder_steps, net.noise_start) == (5.0, 24, 0, False)
    count = sum(p.numel() for p in net.parameters())
    assert count == 2 * 2_162_501 + 1_425_093 + 1_019_269 + 2 * (5 * 771_969 + 22_010)
    short = module(steps=9, noise_steps=3)
    assert [round(1e-4 / short.rate(step)) for step in range(9)] == [1, 5, 25, 1, 1, 5, 5, 25, 25]
    assert module("cyclegan", steps=9, noise_steps=3).noise_steps == 0


def test_narrow_recipe_builds_and_takes_every_variant():
    recipe = read_recipe("lin2020-narrow")
    assert task_of(recipe).role == "translator"
    for variant in VARIANTS:
        chosen = recipe.with_overrides({"training.variant": variant, "network.width": 2})
        assert task_of(chosen).module(chosen).variant is VARIANTS[variant]
    net = task_of(recipe).module(recipe)
    assert sum(value.nbytes for value in net.exported.state_dict().values()) < 1.2e6
    assert list(net._groups()) == ["autoencoders", "discriminator", "noise", "generators"]


def test_rate_of_the_contest_and_of_the_rest():
    net = module(learning_rate=1e-3, contest_rate=1e-4)
    optimisers = net.configure_optimizers()
    loop(net, [tensors(number=1)], optimisers)
    assert [o.param_groups[0]["lr"] for o in optimisers] == pytest.approx([1e-3, 1e-4, 1e-4, 1e-3])


def test_autoencoders_may_begin_alone_and_noise_at_the_right_level():
    net = module(autoencoder_steps=1, noise_start=True, noise_steps=2, learning_rate=1e-9)
    before = state(net)
    rows = loop(net, [tensors(number=1)])
    assert set(rows[0]) == {"loss/autoencoders"}
    assert changed(net, before) == {"autoencoders"}
    batch = tensors(1, number=3)
    loop(net, [batch])
    for survey, single in (("x", "u"), ("y", "v")):
        wanted = border_noise(rescaled(batch[single])).median(0).values
        noise = net.translator.noise[survey].sample(200, (24, 24), torch.Generator().manual_seed(0))
        ratio = noise.std((-2, -1)).median(0).values / wanted
        assert (ratio.log().abs() < 0.1).all()


def test_gradients_are_bounded():
    net = module(noise_steps=0, clip=1e-3, learning_rate=1.0)
    before = [p.detach().clone() for p in net.translator.generators.parameters()]
    optimisers = [torch.optim.SGD(group.parameters(), lr=1.0) for group in net._groups().values()]
    loop(net, [tensors()], optimisers)
    moved = sum((p - b).square().sum() for p, b in zip(net.translator.generators.parameters(), before, strict=True))
    assert float(moved.detach().sqrt()) == pytest.approx(1e-3, rel=1e-3)


def test_a_batch_that_is_not_finite_changes_nothing():
    net = module(noise_steps=0)
    before = state(net)
    batch = tensors()
    batch["u"][0, 0, 0, 0] = torch.nan
    loop(net, [batch])
    assert changed(net, before) == set()
    assert int(net.steps_done) == 1


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_one_batch_is_learned():
    net = module(noise_steps=0, steps=60, learning_rate=1e-2, decay=1.0, network={"width": 4})
    batch = tensors(number=1)
    rows = loop(net, [batch] * 20)
    assert rows[-1]["loss/paired"] < 0.3 * rows[0]["loss/paired"]
    assert rows[-1]["loss/cycle"] < 0.3 * rows[0]["loss/cycle"]


def fit(net, folder, steps, resume=None):
    class Batches(torch.utils.data.Dataset):
        def __getitem__(self, step):
            return tensors(step, number=1)

    trainer = lightning.Trainer(
        max_epochs=1 if resume is None else 2,
        accelerator="cpu",
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    loaders = [
        torch.utils.data.DataLoader(Batches(), batch_size=None, sampler=numbers) for numbers in (steps, range(1))
    ]
    trainer.fit(net, *loaders, ckpt_path=resume, weights_only=None if resume is None else True)
    return trainer


def test_resumed_training_is_the_same_bit_by_bit(tmp_path):
    options = {"steps": 4, "noise_steps": 2, "autoencoder_steps": 1, "noise_start": True}
    whole, first, second = (module(**options) for _ in range(3))
    fit(whole, tmp_path, range(4))
    trainer = fit(first, tmp_path, range(1))
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    fit(second, tmp_path, range(1, 4), resume=tmp_path / "part.ckpt")
    assert int(second.steps_done) == 4
    assert same(whole, second)
    assert not same(whole, first)


def test_global_generator_is_left_alone_and_the_seed_decides():
    before = torch.get_rng_state()
    nets = [module("augcgan", seed=seed) for seed in (1, 1, 2)]
    for net in nets:
        loop(net, [tensors(number=1)])
    assert torch.equal(before, torch.get_rng_state())
    assert same(nets[0], nets[1])
    assert not same(nets[0], nets[2])


def test_half_precision_is_for_convolutions_only():
    nets = [module(noise_steps=1, steps=2) for _ in range(2)]
    rows = [loop(nets[0], [tensors(number=1)] * 2)]
    with torch.autocast("cpu", torch.bfloat16):
        rows.append(loop(nets[1], [tensors(number=1)] * 2))
    for exact, half in zip(*rows, strict=True):
        for name in exact:
            assert half[name] == pytest.approx(exact[name], rel=0.15)
    assert all(value.dtype != torch.bfloat16 for value in nets[1].state_dict().values())


# ---- looking on ------------------------------------------------------------------------------------------------------


def test_validation_evaluation_and_sheet():
    net, recipe = module(), read_recipe("lin2020-narrow").with_overrides({"batch": 2, "validation_images": 4})
    logged = {}
    net.log_dict = lambda values, **_: logged.update(values)
    net.validation_step(tensors(), 0)
    assert float(logged["val/mean"]) == pytest.approx((float(logged["val/x"]) + float(logged["val/y"])) / 2)
    assert float(logged["val/x_resampled"]) < 0.1 < float(logged["val/x"])
    net.train()
    measured = evaluation(net, recipe, Stream())
    assert net.training
    assert measured["calibration"] is None
    assert [row["direction"] for row in measured["metrics"]] == ["x_to_y", "y_to_x"]
    for row, survey in zip(measured["metrics"], "yx", strict=True):
        assert row["stamps"] == 4
        assert row["relative_l2_resampled"] < row["relative_l2_network"]
        assert row["flux_error_resampled"] < 0.05 < row["flux_error_network"]
        assert len(row["noise_ratio"]) == 5
        low, high = measured["ranges"][f"noise_{survey}_3"]
        assert low <= high
        assert low == pytest.approx(SIGMA[survey], rel=0.2)
    rows, titles = sheet(net, tensors())
    assert [len(row) for row in rows] == 4 * [len(titles)]
    np.testing.assert_array_equal(rows[0][2], tensors()["y"][0, [3, 2, 1]].numpy())
    assert rows[1][1].shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "unit"}, "variant='unit' must be one of lin2020, pix2pix"),
        ({"network": {"upsampling": "nearest"}}, "upsampling, which the variant says"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"contest_rate": math.nan}, "contest_rate=nan"),
        ({"clip": -1.0}, "clip=-1.0"),
        ({"noise_steps": 1.5}, "noise_steps=1.5"),
        ({"decay_every": -1}, "decay_every=-1"),
        ({"network": {"width": 5}}, "width=5"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(InputError, match=message):
        module(**options)
