"""The DCGAN of Usaid et al. (2019), its encoder, and inversion."""

import pytest
import torch

from astrogan.exceptions import InputError
from astrogan.nn.dcgan import CompletionGAN, Discriminator, Encoder, Generator, invert


@pytest.fixture(autouse=True)
def _own_generator():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        yield


def channels(module, kind):
    return [(layer.in_channels, layer.out_channels) for layer in module.modules() if isinstance(layer, kind)]


def test_the_layers_are_those_published():
    up = [(100, 512), (512, 256), (256, 128), (128, 64), (64, 3)]
    assert channels(Generator(), torch.nn.ConvTranspose2d) == up
    down = [(3, 64), (64, 128), (128, 256), (256, 512), (512, 1)]
    assert channels(Discriminator(), torch.nn.Conv2d) == down
    slopes = {m.negative_slope for m in Discriminator(width=16).modules() if isinstance(m, torch.nn.LeakyReLU)}
    assert slopes == {0.2}


def test_weights_start_from_the_published_distribution():
    for net in (Generator(), Discriminator()):
        weights = [
            m.weight.detach() for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
        ]
        for weight in weights[1:-1]:
            assert abs(float(weight.std()) - 0.02) < 0.001
            assert abs(float(weight.mean())) < 0.001


def test_shapes_and_range():
    generator = Generator(width=16)
    z = torch.randn(3, 100)
    picture = generator(z)
    assert picture.shape == (3, 3, 64, 64)
    assert picture.abs().max() <= 1
    assert torch.equal(generator.eval()(z), generator(z[:, :, None, None]))
    assert Discriminator(width=16)(picture).shape == (3,)
    assert Encoder(width=16, latent=7)(picture, torch.ones(3, 1, 64, 64)).shape == (3, 7)


def test_spectral_discriminator_has_no_batch_statistics_and_is_bounded():
    net = Discriminator(width=16, spectral=True)
    assert not [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    pictures = torch.randn(4, 3, 64, 64)
    for _ in range(20):
        net(pictures)
    net.eval()
    assert torch.allclose(net(pictures)[:1], net(pictures[:1]), atol=1e-5)
    step = 1e-2 * torch.randn_like(pictures)
    moved = (net(pictures + step) - net(pictures)).abs()
    # Each layer's matrix has norm one; a convolution's is at most its 16 taps' worth of that.
    assert (moved <= 4**5 * step.flatten(1).norm(dim=1)).all()


def test_encoder_does_not_see_what_is_hidden():
    encoder = Encoder(width=16).eval()
    picture, mask = torch.randn(2, 3, 64, 64), torch.ones(2, 1, 64, 64)
    mask[:, :, :, 32:] = 0
    other = torch.where(mask > 0, picture, 5.0)
    assert torch.equal(encoder(picture, mask), encoder(other, mask))
    assert not torch.allclose(encoder(picture, mask), encoder(picture, torch.ones_like(mask)))


def test_encoder_gives_z_of_unit_variance_in_training():
    z = Encoder(width=16)(torch.randn(8, 3, 64, 64), torch.ones(8, 1, 64, 64))
    assert torch.allclose(z.mean(0), torch.zeros(100), atol=1e-4)
    assert torch.allclose(z.var(0, unbiased=False), torch.ones(100), atol=0.05)


def trained_by_hand(width=16):
    """A generator whose pictures have contrast, and whose running statistics fit its weights."""
    generator = Generator(width=width)
    for layer in generator.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        generator.layers[-2].weight *= 10
        for _ in range(3):
            generator(torch.randn(16, 100))
    return generator.eval()


def test_inversion_finds_a_picture_that_agrees_where_it_is_known():
    generator = trained_by_hand()
    with torch.no_grad():
        image = generator(torch.randn(2, 100))
    mask = torch.ones(2, 1, 64, 64)
    mask[:, :, :, 40:] = 0
    seen = torch.where(mask > 0, image, -1.0)

    def error(picture, where):
        return float(((picture - image).square() * where).sum() / where.expand_as(image).sum())

    start, _ = invert(generator, seen, mask, steps=1, rate=1e-9)
    found, z = invert(generator, seen, mask, steps=60, rate=0.2, prior_weight=0.0)
    assert error(found, mask) < 0.2 * error(start, mask)
    assert error(found, 1 - mask) < error(start, 1 - mask)
    assert z.shape == (2, 100)


def test_inversion_is_deterministic_and_leaves_its_inputs_and_the_global_generator_alone():
    generator = trained_by_hand()
    image, mask = torch.zeros(2, 3, 64, 64), torch.ones(2, 1, 64, 64)
    before, state = {k: v.clone() for k, v in generator.state_dict().items()}, torch.get_rng_state()
    with torch.inference_mode():
        runs = [
            invert(generator, image, mask, steps=4, seed=torch.Generator().manual_seed(seed))[1] for seed in (3, 3, 4)
        ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(torch.get_rng_state(), state)
    assert not image.any()
    assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())
    assert all(p.grad is None for p in generator.parameters())


def test_images_are_inverted_each_by_itself():
    generator = trained_by_hand()
    image, mask, start = torch.randn(3, 3, 64, 64).tanh(), torch.ones(3, 1, 64, 64), torch.randn(3, 100)
    together = invert(generator, image, mask, steps=5, start=start)[1]
    alone = invert(generator, image[1:2], mask[1:2], steps=5, start=start[1:2])[1]
    assert torch.allclose(together[1:2], alone, atol=0.02)


def test_discriminator_prior_changes_what_is_found():
    generator, net = trained_by_hand(), Discriminator(width=16).eval()
    image, mask = torch.zeros(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    plain = invert(generator, image, mask, steps=5)[1]
    judged = invert(generator, image, mask, steps=5, discriminator=net, prior_weight=10.0)[1]
    assert not torch.allclose(plain, judged, atol=1e-3)


def test_what_a_card_says_rebuilds_the_network():
    gan = CompletionGAN(width=16, latent=12, encoder=8)
    other = CompletionGAN(**gan.architecture)
    other.load_state_dict(gan.state_dict())
    picture, mask = torch.randn(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    assert torch.equal(gan.eval().complete(picture, mask), other.eval().complete(picture, mask))


def test_faults_are_named():
    with pytest.raises(InputError, match="width=12 must be a multiple of 8"):
        Generator(width=12)
    with pytest.raises(InputError, match="latent=0"):
        Generator(latent=0)
    with pytest.raises(InputError, match="no encoder"):
        CompletionGAN(width=8).complete(torch.zeros(1, 3, 64, 64), torch.ones(1, 1, 64, 64))
