"""The folded network: the trained one's numbers, and with bfloat16 nearly."""

import pytest
import torch

from astrogan.nn._folded import FoldedBlock, asinh
from astrogan.nn.naf import NAFBlock
from astrogan.nn.nafnet import FoldedNAFNet, RestorationNAFNet


def drawn(module, seed=0):
    """With all weights drawn, those that start at zero or one, too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.3 * torch.randn(parameter.shape, generator=generator))
    return module.requires_grad_(False)


def network(bands=1, seed=0):
    with torch.random.fork_rng(devices=[]):
        net = RestorationNAFNet(bands, widths=(8, 16, 24), blocks=(1, 2, 1, 1, 1), balances=(0.1, 10.0), radius=8)
    return drawn(net, seed).eval()


def inputs(n, bands, height, width, seed=1):
    generator = torch.Generator().manual_seed(seed)
    data = 20 * torch.randn(n, bands, height, width, generator=generator)
    noise = 1 + torch.rand(n, bands, height, width, generator=generator)
    estimates = 20 * torch.randn(n, bands, 2, height, width, generator=generator)
    return data, noise, torch.full((n, bands), 3.0), estimates


def test_asinh():
    x = torch.tensor([0.0, -0.0, 1e-20, 1e-4, -3.0, 70.0, -1e6, 1e15, 3e38])
    torch.testing.assert_close(asinh(x)[:-1], torch.asinh(x.double()).float()[:-1], rtol=2e-6, atol=0)
    assert torch.isfinite(asinh(x)).all()
    torch.testing.assert_close(asinh(-x), -asinh(x), rtol=0, atol=0)


@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_a_block(offset):
    """Also where a pixel's channels have a mean far from zero."""
    block = drawn(NAFBlock(24))
    x = torch.randn(2, 24, 9, 11, generator=torch.Generator().manual_seed(1)) + offset
    before = x.clone()
    found = FoldedBlock(block, torch.float32)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, block(x), rtol=1e-4, atol=1e-4 if offset else 1e-5)
    assert torch.equal(x, before)


@pytest.mark.parametrize("shape", [(1, 1, 40, 56), (2, 3, 33, 17), (1, 1, 1, 1)])
def test_the_same_result(shape):
    net = network(shape[1])
    folded = FoldedNAFNet(net)
    assert (folded.halo, folded.stride, folded.bands) == (net.halo, net.stride, net.bands)
    for one, other in zip(folded(*inputs(*shape)), net(*inputs(*shape)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def test_bfloat16_rounds_the_inside_alone():
    net, batch = network(), inputs(1, 1, 48, 48)
    exact, rounded = net(*batch)[0], FoldedNAFNet(net, torch.bfloat16)(*batch)[0]
    assert rounded.dtype == torch.float32
    part = float((rounded - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    assert 1e-6 < part < 0.1


def test_the_sum_is_in_full_precision():
    """A mixture of equal estimates is exact: with bfloat16 anywhere on its way it would have three digits."""
    net = network()
    with torch.no_grad():
        correction = slice(4 * 2, 4 * 3)
        net.head.weight[correction] = 0
        net.head.bias[correction] = 0
    data, noise, fwhm, estimates = inputs(1, 1, 16, 16)
    estimates = torch.full_like(estimates, 1234.567)
    mean = FoldedNAFNet(net, torch.bfloat16)(data, noise, fwhm, estimates)[0]
    torch.testing.assert_close(mean, torch.full_like(mean, 1234.567), rtol=1e-6, atol=0)


def test_the_network_stays_as_it_was():
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    FoldedNAFNet(net, torch.bfloat16)(*inputs(1, 1, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
