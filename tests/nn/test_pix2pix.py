"""The networks of pix2pix: their sizes, their randomness, and the resizing that came with them."""

import numpy as np
import pytest
import torch

from astrogan.exceptions import InputError
from astrogan.nn.pix2pix import PatchGAN, UNet256, from_network_range, resize, to_network_range


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.fixture
def images():
    return torch.rand((1, 3, 256, 256), generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.fixture(scope="module")
def net():
    return UNet256(width=4).eval()


def masks(seed=0):
    return torch.Generator().manual_seed(seed)


def test_parameters_are_those_of_the_papers():
    assert count(UNet256()) == pytest.approx(54.4e6, rel=1e-3)
    assert count(UNet256(width=16)) == pytest.approx(3.4e6, rel=2e-3)
    assert count(PatchGAN()) == pytest.approx(2.77e6, rel=1e-3)


def test_initial_weights():
    net = UNet256(width=16, seed=3)
    for level in [*net.encoder, *net.decoder]:
        weight = level.conv.weight
        if weight.numel() > 1e5:
            assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.01)
            assert abs(float(weight.detach().mean())) < 2e-4
    scales = torch.cat([level.norm.weight.detach() for level in net.encoder if level.norm is not None])
    assert float(scales.mean()) == pytest.approx(1, abs=0.005)
    assert float(scales.std()) == pytest.approx(0.02, rel=0.15)
    assert not any(level.norm.bias.any() for level in net.encoder if level.norm is not None)


def test_weights_come_from_the_seed_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    same, other = UNet256(width=2, seed=1).state_dict(), UNet256(width=2, seed=2).state_dict()
    again = UNet256(width=2, seed=1).state_dict()
    assert all(torch.equal(same[key], again[key]) for key in same)
    assert not torch.equal(same["encoder.0.conv.weight"], other["encoder.0.conv.weight"])
    assert torch.equal(state, torch.get_rng_state())


def by_hand(net, x, generator, slope=0.2):
    """The stochastic pass written out, level by level."""
    f = torch.nn.functional
    state = net.state_dict()

    def normalised(x, name):
        if f"{name}.norm.weight" not in state:
            return x
        weight, bias = (state[f"{name}.norm.{part}"][:, None, None] for part in ("weight", "bias"))
        spread = x.var((0, 2, 3), unbiased=False, keepdim=True)
        return (x - x.mean((0, 2, 3), keepdim=True)) / (spread + 1e-5).sqrt() * weight + bias

    down = []
    for i in range(8):
        x = torch.where(x > 0, x, slope * x) if i else x
        x = normalised(f.conv2d(x, state[f"encoder.{i}.conv.weight"], stride=2, padding=1), f"encoder.{i}")
        down.append(x)
    for i in range(8):
        x = f.conv_transpose2d(x.clamp(min=0), state[f"decoder.{i}.conv.weight"], stride=2, padding=1)
        x = normalised(x, f"decoder.{i}")
        if i < 3:
            x = 2 * x * (torch.rand(x.shape, generator=generator) >= 0.5)
        if i < 7:
            x = torch.cat([x, down[6 - i]], 1)
    return x.tanh()


@pytest.mark.parametrize("norm", [True, False])
def test_stochastic_pass_by_hand(images, norm):
    net = UNet256(width=4, bottleneck_norm=norm).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 3  # the initial weights leave the tail of tanh and the slopes of the inner levels untried
        result = net(images, stochastic=True, generator=masks(1))
        expected = by_hand(net, images, masks(1))
    assert float(expected.abs().max()) > 0.9
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_dropout_repeats_by_its_generator_alone(net, images):
    state = torch.get_rng_state()
    with torch.no_grad():
        one, again, other = (net(images, stochastic=True, generator=masks(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert (one - other).abs().max() > 1e-3
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(InputError, match=r"generator=None.*torch.Generator"):
        net(images, stochastic=True)


def test_dropout_keeps_the_mean():
    from astrogan.nn.pix2pix import _drop

    dropped = _drop(torch.ones(4, 8, 64, 64), 0.25, masks())
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.01)


def test_batch_statistics_make_the_scale_of_a_layer_irrelevant(images):
    net = UNet256(width=4, dropout=0).eval()
    with torch.no_grad():
        before = net(images, stochastic=True), net(images)
        net.encoder[2].conv.weight *= 3
        after = net(images, stochastic=True), net(images)
    # to within the 1e-5 that batch normalisation adds to the variance
    assert (before[0] - after[0]).abs().mean() < 0.05 * (before[0] - before[0].mean()).abs().mean()
    assert (before[1] - after[1]).abs().max() > 1e-8


def test_running_statistics_change_in_training_only(images):
    net = UNet256(width=2)
    fresh = {key: value.clone() for key, value in net.state_dict().items()}
    net.eval()
    with torch.no_grad():
        net(images, stochastic=True, generator=masks())
        net(images)
    assert all(torch.equal(fresh[key], value) for key, value in net.state_dict().items())
    net.train()
    with torch.no_grad():
        net(images, generator=masks())
    assert not torch.equal(fresh["encoder.1.norm.running_mean"], net.state_dict()["encoder.1.norm.running_mean"])
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())


def test_normalised_bottleneck_of_one_image_is_a_constant(images):
    """As the authors' program behaves: the innermost filters cannot matter, and get no gradient."""
    for norm in (True, False):
        net = UNet256(width=4, bottleneck_norm=norm)
        net(images, generator=masks()).square().mean().backward()
        gradient = net.encoder[-1].conv.weight.grad
        assert bool(gradient.any()) is not norm
        assert torch.isfinite(gradient).all()
        assert all(p.grad is not None for p in net.parameters())
    net = UNet256(width=4).eval()
    with torch.no_grad():
        before = net(images)
        net.encoder[-1].conv.weight.fill_(1e3)
        assert torch.equal(before, net(images))


def test_skip_connections_reach_the_output(images):
    """One pixel changes its surroundings without the inner levels, which the constant bottleneck alone cannot do."""
    net = UNet256(width=4).eval()
    changed = images.clone()
    changed[0, :, 100, 100] += 1
    with torch.no_grad():
        moved = (net(images) - net(changed)).abs()[0].sum(0)
    assert float(moved[96:106, 96:106].max()) == float(moved.max()) > 0


def test_patches_are_70_pixels():
    net = PatchGAN(width=2).eval()
    with torch.no_grad():
        for level in net.levels:
            level.conv.weight.fill_(0.1)
    pairs = torch.ones(1, 6, 256, 256, requires_grad=True)
    net(pairs)[0, 0, 15, 15].backward()
    rows = pairs.grad[0, 0].abs().sum(1).nonzero().ravel()
    assert int(rows.max() - rows.min()) + 1 == 70


def test_architecture_builds_the_network_again():
    net = UNet256(in_bands=2, out_bands=1, width=2, dropout=0.1, bottleneck_norm=False)
    UNet256(**net.architecture).load_state_dict(net.state_dict())
    judge = PatchGAN(in_bands=3, width=2)
    PatchGAN(**judge.architecture).load_state_dict(judge.state_dict())


@pytest.mark.parametrize("shape", [(1, 3, 255, 256), (1, 2, 256, 256), (3, 256, 256), (1, 3, 0, 256)])
def test_shapes_that_do_not_fit_are_refused(net, shape):
    with pytest.raises(InputError, match=r"images has shape .* multiples of 256"):
        net(torch.zeros(shape))


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"width": 1.5}, {"in_bands": True}, {"dropout": 1.0}, {"dropout": -0.1}]
)
def test_bad_arguments_are_named(options):
    with pytest.raises(InputError, match=f"{next(iter(options))}="):
        UNet256(**options)
    with pytest.raises(InputError, match="width=0"):
        PatchGAN(width=0)


@pytest.mark.parametrize("size", [286, 256, (256, 300), 1])
def test_smaller_is_the_mean_over_the_area(rng, size):
    image = rng.random((2, 424, 424))
    small = resize(torch.from_numpy(image), size).numpy()
    assert small.shape[1:] == (size if isinstance(size, tuple) else (size, size))
    assert small.mean() == pytest.approx(image.mean(), rel=1e-12)
    # along one axis: each pixel cut into as many parts as there are new pixels, each new one the mean of 424 parts
    height = small.shape[1]
    column = resize(torch.from_numpy(image[0, :, :1]), (height, 1)).numpy()[:, 0]
    np.testing.assert_allclose(column, np.repeat(image[0, :, 0], height).reshape(height, 424).mean(1))


def test_larger_is_linear_with_borders_that_agree():
    line = torch.arange(8, dtype=torch.float64)[None]
    large = resize(line, (1, 24))[0].numpy()
    np.testing.assert_allclose(large, np.clip((np.arange(24) + 0.5) / 3 - 0.5, 0, 7))
    image = torch.rand((1, 1, 40, 60), dtype=torch.float64, generator=masks())
    expected = torch.nn.functional.interpolate(image, (97, 60), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resize(image, (97, 60)), expected, atol=1e-12)


def test_there_and_back_keeps_positions():
    y, x = torch.meshgrid(*2 * [torch.arange(424.0)], indexing="ij")
    star = torch.exp(-((x - 300) ** 2 + (y - 90) ** 2) / 200)
    back = resize(resize(star, 256), 424)
    assert float((back * x).sum() / back.sum()) == pytest.approx(300, abs=0.01)
    assert float((back * y).sum() / back.sum()) == pytest.approx(90, abs=0.01)


def test_same_size_is_untouched_and_bad_sizes_are_refused():
    image = torch.rand((3, 5, 7), generator=masks())
    assert torch.equal(resize(image, (5, 7)), image)
    for size in (0, 1.5, (4, 0)):
        with pytest.raises(InputError, match="size="):
            resize(image, size)
    with pytest.raises(InputError, match="images has shape"):
        resize(image[0, 0], 4)


def test_ranges_are_inverse():
    values = np.array([0, 0.25, 1.0])
    np.testing.assert_array_equal(to_network_range(values), [-1, -0.5, 1])
    np.testing.assert_array_equal(from_network_range(to_network_range(values)), values)
