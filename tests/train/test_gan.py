"""GalaxyGAN's training: its losses by hand, crops, and runs that fit, repeat and resume bit by bit."""

import math

import numpy as np
import pytest
import torch

from astrogan.exceptions import InputError
from astrogan.nn.pix2pix import PatchGAN, UNet256, resize

lightning = pytest.importorskip("lightning")

from astrogan.train.gan import (  # noqa: E402  after the check that Lightning is there
    GalaxyGAN2017Module,
    GANStep,
    discriminator_loss,
    dropout_generator,
    generator_loss,
    training_crop,
)

# Lightning's own: it uses what torch will drop, and advises more processes for the data.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


def pair(seed=0):
    """A smooth pattern, and the same with noise: (n, band, y, x) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    original = resize(torch.rand((1, 3, 16, 16), generator=generator) * 1.6 - 0.8, 256)
    noise = 0.1 * torch.randn((1, 3, 256, 256), generator=generator)
    return {"degraded": (original + noise).clamp(-1, 1), "original": original}


class Pairs(torch.utils.data.Dataset):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {key: image[0] for key, image in pair(index).items()}


class Losses(lightning.Callback):
    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, *_):
        self.rows.append({key: float(value) for key, value in trainer.callback_metrics.items()})


def fit(module, folder, *, steps, resume=None, count=4):
    """Batches of one image; ``steps`` counts those of both optimisers."""
    losses = Losses()
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=[losses],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.fit(module, torch.utils.data.DataLoader(Pairs(count)), ckpt_path=resume)
    return trainer, losses.rows


def tiny(**options):
    return GalaxyGAN2017Module(**{"width": 4, "ndf": 4} | options)


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_losses_by_hand():
    even = torch.zeros(1, 1, 30, 30)
    assert float(discriminator_loss(even, even)) == pytest.approx(math.log(2))
    assert float(discriminator_loss(even + 3, even - 3)) == pytest.approx(math.log1p(math.exp(-3)))
    image = torch.zeros(1, 3, 8, 8)
    total, adversarial, l1 = generator_loss(even + 2, image + 0.25, image)
    assert float(adversarial) == pytest.approx(math.log1p(math.exp(-2)))
    assert float(l1) == 0.25
    assert float(total) == pytest.approx(float(adversarial) + 25)


def test_each_loss_reaches_its_own_network():
    step = GANStep(UNet256(width=2), PatchGAN(width=2))
    batch = pair()
    fake = step.fake(batch["degraded"], dropout_generator(0, 0))
    step.discriminator_loss(**batch, fake=fake).backward()
    assert all(p.grad is not None for p in step.discriminator.parameters())
    assert all(p.grad is None for p in step.generator.parameters())
    before = [p.grad.clone() for p in step.discriminator.parameters()]
    step.generator_loss(**batch, fake=fake)[0].backward()
    assert all(p.grad is not None for p in step.generator.parameters())
    assert all(torch.equal(p.grad, b) for p, b in zip(step.discriminator.parameters(), before, strict=True))
    assert all(p.requires_grad for p in step.discriminator.parameters())


def test_dropout_depends_on_seed_step_and_rank():
    numbers = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    draws = {n: tuple(torch.rand(4, generator=dropout_generator(*n)).tolist()) for n in numbers}
    assert len(set(draws.values())) == 4
    assert draws[0, 1, 0] == tuple(torch.rand(4, generator=dropout_generator(0, 1)).tolist())


def test_crops_are_of_one_place_in_both_images(rng):
    y, x = torch.meshgrid(*2 * [torch.arange(286.0)], indexing="ij")
    image = torch.stack([y, x])
    seen, mirrored = set(), 0
    for _ in range(300):
        one, other = training_crop(image, image[:1] + 1000, rng)
        assert torch.equal(one[:1] + 1000, other)
        assert one.shape == (2, 256, 256)
        mirror = bool(one[1, 0, 0] > one[1, 0, 1])
        seen |= {int(one[0, 0, 0]), int(one[1].min())}
        mirrored += mirror
    assert seen == set(range(1, 31))
    assert 110 < mirrored < 190


def test_crop_resizes_and_repeats_by_its_generator():
    image = torch.rand((3, 424, 424), generator=torch.Generator().manual_seed(1))
    one, other = (training_crop(image, image, np.random.default_rng(2))[0] for _ in range(2))
    assert torch.equal(one, other)
    whole = training_crop(image, image, np.random.default_rng(1), load=256)[0]
    assert torch.equal(whole, resize(image, 256)) or torch.equal(whole, resize(image, 256).flip(-1))


def test_crops_that_cannot_be_are_refused(rng):
    image = torch.zeros(3, 64, 64)
    with pytest.raises(InputError, match=r"original has shape \(3, 63, 64\)"):
        training_crop(image, image[:, 1:], rng)
    with pytest.raises(InputError, match=r"load=200 must be at least size=256"):
        training_crop(image, image, rng, load=200)


def test_one_pair_is_learned(tmp_path):
    module = tiny(width=8, lr=2e-3, dropout=0.0)
    judge = [p.detach().clone() for p in module.discriminator.parameters()]
    _, rows = fit(module, tmp_path, steps=30, count=1)  # an epoch a step
    assert not any(torch.equal(p, before) for p, before in zip(module.discriminator.parameters(), judge, strict=True))
    assert set(rows[0]) == {"loss/g_gan", "loss/l1", "loss/d"}
    assert len(rows) == 15
    assert rows[-1]["loss/l1"] < 0.6 * rows[0]["loss/l1"]
    assert rows[0]["loss/d"] == pytest.approx(math.log(2), abs=0.2)


def test_training_repeats_and_leaves_the_global_generator_alone(tmp_path):
    ends = []
    for seed in (1, 1, 2):
        module = tiny(seed=seed)
        fit(module, tmp_path, steps=4)
        ends.append(module)
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])
    state = torch.get_rng_state()
    step = GANStep(ends[0].generator, ends[0].discriminator)
    step.fake(pair()["degraded"], dropout_generator(0, 0))
    assert torch.equal(state, torch.get_rng_state())


def test_resumed_training_is_the_same_bit_by_bit(tmp_path, monkeypatch):
    numbers = []
    monkeypatch.setattr(
        "astrogan.train.gan.dropout_generator", lambda *keys: numbers.append(keys) or dropout_generator(*keys)
    )
    whole, first, second = tiny(), tiny(), tiny()
    fit(whole, tmp_path, steps=8, count=1)  # one pair: which batch comes next is the data stream's to remember
    trainer, _ = fit(first, tmp_path, steps=4, count=1)
    assert trainer.global_step == 4
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    fit(second, tmp_path, steps=8, resume=tmp_path / "half.ckpt", count=1)
    assert same(whole, second)
    assert not same(whole, first)
    assert numbers == [(0, step, 0) for step in (0, 1, 2, 3, 0, 1, 2, 3)]  # the whole run, then its two halves


def test_checkpoint_loads_into_a_module(tmp_path):
    module = tiny(width=2, bottleneck_norm=False)
    trainer, _ = fit(module, tmp_path, steps=2)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    again = GalaxyGAN2017Module.load_from_checkpoint(tmp_path / "end.ckpt", map_location="cpu")
    assert same(module, again)
    assert again.hparams.bottleneck_norm is False


def test_what_is_exported_builds_the_generator_again():
    module = tiny(dropout=0.3)
    state = module.generator_state()
    net = UNet256(**module.architecture)
    net.load_state_dict(state)
    net.eval()
    module.eval()
    images = pair()["degraded"]
    with torch.no_grad():
        assert torch.equal(net(images), module(images))
    state["encoder.0.conv.weight"].zero_()
    assert module.generator.encoder[0].conv.weight.any()


def test_optimisers_are_the_recipes():
    generator, discriminator = tiny(lr=1e-3).configure_optimizers()
    for optimizer, net in ((generator, "generator"), (discriminator, "discriminator")):
        assert type(optimizer) is torch.optim.Adam
        assert optimizer.defaults["betas"] == (0.5, 0.999)
        assert optimizer.defaults["lr"] == 1e-3
        assert len(optimizer.param_groups[0]["params"]) == len(list(getattr(tiny(), net).parameters()))
    assert GalaxyGAN2017Module(width=1, ndf=1).hparams.lr == 2e-4


@pytest.mark.parametrize("options", [{"lr": -1}, {"l1_weight": math.nan}, {"width": 0}, {"ndf": 0}])
def test_bad_hyperparameters_are_named(options):
    name = {"ndf": "width"}.get(next(iter(options)), next(iter(options)))
    with pytest.raises(InputError, match=f"{name}="):
        tiny(**options)
