"""The restoration network: what it may look at, what it weighs, and that all of it learns."""

import pytest
import torch

from astrogan.nn.nafnet import RestorationNAFNet
from astrogan.train.recipe import list_recipes, read_recipe


def network(seed=0, **settings):
    """A small network in which every block does something; the weights that start at zero are drawn, too."""
    settings = {"widths": (4, 8, 8), "blocks": (1, 1, 2, 1, 1), "balances": (0.1, 10.0), "radius": 8} | settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = RestorationNAFNet(**settings)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if "weight1" in name or "weight2" in name:
                    parameter.normal_()
    return net


def inputs(*shape, seed=1, filters=2):
    generator = torch.Generator().manual_seed(seed)
    n, bands = shape[:2]
    data = 5 * torch.randn(*shape, generator=generator)
    noise = 1 + torch.rand(*shape, generator=generator)
    estimates = 5 * torch.randn(n, bands, filters, *shape[2:], generator=generator)
    return data, noise, torch.full((n, bands), 3.0), estimates


def cropped(batch, y, x):
    data, noise, fwhm, estimates = batch
    return data[..., y, x], noise[..., y, x], fwhm, estimates[..., y, x]


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 17, 40), (1, 2, 64, 9)])
def test_shapes_of_any_size(shape):
    mean, spread = network(bands=shape[1])(*inputs(*shape))
    assert mean.shape == spread.shape == shape
    assert mean.dtype == spread.dtype == torch.float32
    assert torch.isfinite(mean).all()
    assert (spread > 0).all()


def test_scales_and_blocks_must_agree():
    with pytest.raises(ValueError, match="must hold 3 numbers for 2 scales"):
        RestorationNAFNet(widths=(4, 8), blocks=(1, 1))


@torch.no_grad()
def test_a_new_network_mixes_the_estimates():
    # The last layer starts near zero, so that the first result is already about the mean of the estimates.
    net = RestorationNAFNet(widths=(8, 8), blocks=(1, 1, 1), balances=(0.1, 10.0), radius=8)
    batch = inputs(1, 1, 32, 32)
    mean = net(*batch)[0]
    middle = batch[3].mean(2)
    assert float((mean - middle).std() / middle.std()) < 0.3


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"widths": (4, 8), "blocks": (1, 3, 2)}, {"widths": (4,), "blocks": (2,)}])
def test_halo_bounds_what_a_pixel_depends_on(settings):
    net = network(**settings)
    size = 4 * net.halo
    batch = inputs(1, 1, size, size)
    before = net(*batch)
    y, x = size // 2 + 1, size // 2 - 2
    batch[0][..., y, x] += 1e4
    batch[1][..., y, x] += 1e4
    batch[3][..., y, x] += 1e4
    after = net(*batch)
    rows, columns = torch.arange(size)[:, None] - y, torch.arange(size)[None] - x
    distance = torch.maximum(rows.abs(), columns.abs())
    changed = (before[0] != after[0]) | (before[1] != after[1])
    # The filters are applied before the network, so the network itself has the halo without their radius.
    assert int(distance[changed[0, 0]].max()) <= net.halo - net.radius
    assert int(distance[changed[0, 0]].max()) > 2  # the test sees something
    assert net.halo % net.stride == 0


@torch.no_grad()
def test_crops_that_begin_on_the_stride_agree_inside_the_halo():
    net = network()
    halo, stride = net.halo, net.stride
    size = 2 * halo + 6 * stride
    batch = inputs(1, 1, size, size + 3)
    whole = net(*batch)
    part = net(*cropped(batch, slice(2 * stride, None), slice(stride, None)))
    for a, b in zip(whole, part, strict=True):
        inner = a[..., 2 * stride + halo :, stride + halo :]
        torch.testing.assert_close(b[..., halo:, halo:], inner, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_images_of_a_batch_do_not_see_each_other():
    net = network(bands=2)
    batch = inputs(3, 2, 24, 24)
    together = net(*batch)[0]
    alone = net(*(part[1:2] for part in batch))[0]
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in list_recipes() if read_recipe(n).task == "restoration"])
def test_shipped_networks_are_small(name):
    with torch.device("meta"), torch.no_grad():
        net = RestorationNAFNet(**read_recipe(name).network)
    count = sum(p.numel() for p in net.parameters())
    assert 1e5 < count <= 4e6


@torch.no_grad()
def test_architecture_builds_the_same_network():
    import json

    net = network(bands=2, softening=3.5)
    card = json.loads(json.dumps(net.architecture))
    again = RestorationNAFNet(**card)
    assert again.architecture == net.architecture
    again.load_state_dict(net.state_dict())
    batch = inputs(1, 2, 20, 20)
    assert torch.equal(again(*batch)[0], net(*batch)[0])
    assert (again.halo, again.stride) == (net.halo, net.stride)


def gradients(net, batch, loss):
    net.zero_grad()
    loss(*net(*batch)).backward()
    return {name: p.grad for name, p in net.named_parameters()}


def test_gradients_reach_every_parameter():
    net = network(bands=2)
    found = gradients(net, inputs(2, 2, 32, 32), lambda mean, spread: mean.square().mean() + spread.mean())
    silent = [name for name, gradient in found.items() if gradient is None or not gradient.abs().sum() > 0]
    # each pixel's softmax does not feel what all its inputs share, but every weight feels something
    assert silent == []


def test_the_spread_takes_nothing_from_the_mean():
    net = network()
    batch = inputs(1, 1, 32, 32)
    alone = gradients(net, batch, lambda mean, spread: mean.square().mean())
    both = gradients(net, batch, lambda mean, spread: mean.square().mean() + 1e3 * spread.mean())
    for name, gradient in both.items():
        if name.startswith("spread"):
            assert alone[name] is None
            assert gradient.abs().sum() > 0
        else:
            assert torch.equal(gradient, alone[name]), name


@torch.no_grad()
def test_a_mixture_keeps_what_the_estimates_share():
    net = network()
    batch = inputs(1, 1, 16, 16)
    correction = slice(4 * 2, 4 * 3)
    net.head.weight[correction] = 0
    net.head.bias[correction] = 0
    same = torch.full_like(batch[3], 7.25)
    mean = net(batch[0], batch[1], batch[2], same)[0]
    torch.testing.assert_close(mean, torch.full_like(mean, 7.25), rtol=1e-6, atol=0)
