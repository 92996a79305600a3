"""The networks of Lin et al. (2021): sizes as published, and the arithmetic around them."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from astrogan.exceptions import InputError
from astrogan.nn.cyclegan import LatentDiscriminator, LatentEncoder, PatchDiscriminator, ResidualGenerator
from astrogan.nn.lin2020 import (
    PIXEL_SCALES,
    Autoencoder,
    Lin2020Translator,
    StampGenerator,
    _Mirror,
    regridded,
    rescaled,
    shrunk,
    unscaled,
)

EDGES = {"x": 64, "y": 136}


def count(network):
    return sum(p.numel() for p in network.parameters())


def translator(seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Lin2020Translator(**{"width": 2} | options).eval()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def stamps(survey, seed=0, number=2):
    return torch.rand(number, 5, EDGES[survey], EDGES[survey], generator=generator(seed))


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_parameters_are_as_many_as_published():
    with torch.device("meta"):
        assert count(Autoencoder()) == 2_162_501
        assert count(StampGenerator("x_to_y")) == 1_425_093
        assert count(StampGenerator("y_to_x")) == 1_019_269
        whole = Lin2020Translator()
        # The layers after each of the four, and two, enlargements see a quarter of the channels.
        shuffled = (
            StampGenerator("x_to_y", upsampling="pixelshuffle"),
            StampGenerator("y_to_x", upsampling="pixelshuffle"),
        )
    assert count(whole) == 1_425_093 + 1_019_269 + 2 * 22_010
    inputs = 3 * 3 * 128 * (256 + 128 + 128) + 5 * 5 * 64 * 128, 3 * 3 * 128 * 256 + 5 * 5 * 64 * 128
    assert [count(net) for net in shuffled] == [1_425_093 - inputs[0] * 3 // 4, 1_019_269 - inputs[1] * 3 // 4]


def test_layers_see_what_the_table_says():
    sizes = []
    net = StampGenerator("y_to_x", width=2)
    for layer in net.layers:
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:])))
    net(stamps("y", number=1))
    edges = [(2, 136), (2, 68), (4, 34), (8, 17), (4, 34), (2, 64), (2, 64), (5, 64)]
    assert sizes == [(channels, edge, edge) for channels, edge in edges]


@pytest.mark.parametrize(
    "options", [{}, {"upsampling": "pixelshuffle"}, {"generators": "cyclegan"}, {"generators": "augcgan"}]
)
def test_stamps_come_out_with_the_other_surveys_shape(options):
    net = translator(**options)
    for of, to in ("xy", "yx"):
        made = net.translated(stamps(of), f"{of}_to_{to}", generator=generator())
        assert made.shape == (2, 5, EDGES[to], EDGES[to])
        assert torch.isfinite(made).all()
    again = Lin2020Translator(**net.architecture)
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again.translated(stamps("y"), "y_to_x", generator=generator()), made)


@pytest.mark.parametrize(
    "make", [Autoencoder, lambda **o: StampGenerator("x_to_y", **o), lambda **o: ResidualGenerator(5, o["width"])]
)
def test_weights_are_xavier_and_biases_a_tenth(make):
    for layer in make(width=8).modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            fans = layer.weight[0].numel() + layer.weight[:, 0].numel()
            bound = (6 / fans) ** 0.5
            assert 0.8 * bound < float(layer.weight.detach().abs().max()) <= bound * (1 + 1e-6)
            assert (layer.bias == 0.1).all()


def test_networks_that_are_compared_with():
    images = stamps("x")
    assert PatchDiscriminator(5, 4)(images).shape == (2, 1, 8, 8)
    code = LatentEncoder(5, 4)(images, images)
    assert code.shape == (2, 32)
    assert LatentDiscriminator()(code).shape == (2, 1)
    net = ResidualGenerator(5, 4, 32)
    one, other = (net(images, torch.full((2, 32), value)) for value in (-1.0, 1.0))
    assert not torch.allclose(one, other)
    # Normalised images do not know the input's level: the code and the picture alone count.
    plain = ResidualGenerator(5, 4).layers[1]
    out = plain(torch.rand(2, 4, 64, 64, generator=generator()))
    torch.testing.assert_close(out.mean((2, 3)), torch.zeros(2, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var((2, 3), correction=0), torch.ones(2, 8), atol=1e-3, rtol=0)


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def test_rescaling_and_its_inverse():
    flux = torch.tensor([-1e4, -3, -1e-6, 0, 1e-6, 0.01, 8, 1e5], dtype=torch.float64)
    wanted = torch.sign(flux) * (torch.sqrt(flux.abs() + 1) - 1)
    torch.testing.assert_close(rescaled(flux), wanted, rtol=1e-9, atol=1e-16)
    torch.testing.assert_close(unscaled(rescaled(flux)), flux, rtol=1e-12, atol=0)
    small = torch.tensor([1e-6, -3e-5])
    torch.testing.assert_close(unscaled(rescaled(small)), small, rtol=1e-6, atol=0)


def test_regridding_is_bilinear_about_the_centre():
    image = np.random.default_rng(0).normal(size=(136, 136))
    ratio = PIXEL_SCALES["x"] / PIXEL_SCALES["y"]
    at = (np.arange(64) - 31.5) * ratio + 67.5
    wanted = map_coordinates(image, np.meshgrid(at, at, indexing="ij"), order=1, mode="nearest") * ratio**2
    np.testing.assert_allclose(regridded(torch.from_numpy(image), (64, 64), ratio).numpy(), wanted, atol=1e-10)
    y, x = np.mgrid[:136, :136] - 67.5
    galaxy = torch.from_numpy(np.exp(-(x**2 + y**2) / 200))
    back = regridded(regridded(galaxy, (64, 64), ratio), (136, 136), 1 / ratio)
    assert float(back.sum() / galaxy.sum()) == pytest.approx(1, abs=1e-3)
    assert float((back - galaxy).abs().max()) < 0.02


def test_shrinking_begins_at_the_first_pixels_centre():
    ramp = torch.arange(136.0).expand(1, 136, 136)
    small = shrunk(ramp, 64)
    torch.testing.assert_close(small[0, 0], torch.arange(64) * 2.125)
    torch.testing.assert_close(shrunk(ramp.mT, 64), small.mT)


def test_mirror_images_repeat_the_edge():
    image = np.random.default_rng(0).normal(size=(5, 7))
    out = _Mirror(2)(torch.from_numpy(image)[None, None])
    np.testing.assert_array_equal(out[0, 0].numpy(), np.pad(image, 2, mode="symmetric"))


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_noise_is_the_generators_and_can_be_left_out():
    net = translator()
    first, again, other = (net.translated(stamps("x"), "x_to_y", generator=generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    smooth = [net(rescaled(stamps("x")), "x_to_y", generator=generator(s), noise=False) for s in (1, 2)]
    assert torch.equal(*smooth)
    noisy = net(rescaled(stamps("x")), "x_to_y", generator=generator(1))
    torch.testing.assert_close(noisy - smooth[0], net.noise["y"].sample(2, (136, 136), generator(1)))
    silent = translator(noise=False)
    assert torch.equal(*(silent.translated(stamps("y"), "y_to_x", generator=generator(s)) for s in (1, 2)))


def test_codes_of_augmented_cyclegan_are_drawn_or_given():
    net = translator(generators="augcgan", noise=False)
    images = rescaled(stamps("x"))
    drawn = net(images, "x_to_y", generator=generator(5))
    torch.testing.assert_close(drawn, net(images, "x_to_y", latent=net.draw_latent(2, generator(5))))
    assert not torch.allclose(drawn, net(images, "x_to_y", generator=generator(6)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width=0"),
        ({"width": 3}, "width=3 must be a positive even integer"),
        ({"bands": 2.5}, "bands=2.5"),
        ({"upsampling": "bilinear"}, "upsampling='bilinear'"),
        ({"generators": "unet"}, "generators='unet'"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(InputError, match=message):
        translator(**options)
