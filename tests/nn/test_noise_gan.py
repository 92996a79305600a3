"""The noise emulator and the discriminator with a Fourier branch."""

import pytest
import torch

from astrogan.nn.noise_gan import FourierDiscriminator, NoiseEmulator, high_pass_filter


def test_sizes_are_those_published():
    """3.86 M for five discriminators, 22 k for five emulators."""
    count = sum(p.numel() for p in FourierDiscriminator().parameters())
    assert 5 * count == 3_859_845
    assert sum(p.numel() for p in NoiseEmulator(5).parameters()) == 22_010


def test_high_pass_hides_both_axes_of_the_fourier_plane():
    torch.manual_seed(0)
    net = FourierDiscriminator(4).eval()
    image = torch.randn(1, 1, 48, 48)
    banded = image + torch.randn(1, 1, 48, 1) * 3 + torch.randn(1, 1, 1, 48) * 3
    torch.testing.assert_close(net(image), net(banded), atol=1e-3, rtol=1e-3)
    open_eyed = FourierDiscriminator(4, high_pass=False, orthonormal=True).eval()
    assert (open_eyed(image) - open_eyed(banded)).abs() > 3e-3
    assert high_pass_filter().sum(0).abs().max() == high_pass_filter().sum(1).abs().max() == 0


@pytest.mark.parametrize("shape", [(64, 64), (35, 50)])
@pytest.mark.parametrize("half", [False, True])
def test_any_size_and_bands(shape, half):
    net = FourierDiscriminator(4, high_pass=False, orthonormal=True, half_plane=half, bands=3)
    logits = net(torch.randn(2, 3, *shape))
    assert logits.shape == (2,)
    logits.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_features_of_an_orthonormal_transform_do_not_grow_with_the_image():
    torch.manual_seed(1)
    small, large = torch.randn(4, 1, 32, 32), torch.randn(4, 1, 128, 128)
    for orthonormal, low, high in ((True, 0.7, 1.6), (False, 2.5, 7)):
        torch.manual_seed(1)
        net = FourierDiscriminator(8, high_pass=False, orthonormal=orthonormal)
        transforms = []
        net.fourier[0].register_forward_pre_hook(lambda _, args, kept=transforms: kept.append(args[0].std()))
        net(small), net(large)
        assert low < float(transforms[1] / transforms[0]) < high


def test_emulator_is_a_symmetric_filter_with_an_amplitude():
    torch.manual_seed(2)
    net = NoiseEmulator(2)
    kernel = net.symmetric_kernel()
    for other in (kernel.flip(2), kernel.flip(3), kernel.transpose(2, 3)):
        torch.testing.assert_close(kernel, other)
    assert torch.unique(kernel[0].round(decimals=5)).numel() == 10
    z1, z2 = torch.randn(3, 2), torch.randn(3, 2, 26, 30)
    amplitude = net.amplitude(z1)
    assert (amplitude > 0).all()
    expected = torch.nn.functional.conv2d(z2, kernel, groups=2) * amplitude[:, :, None, None]
    torch.testing.assert_close(net(z1, z2), expected)


def test_bands_of_the_emulator_do_not_mix():
    torch.manual_seed(3)
    net = NoiseEmulator(3)
    z1, z2 = torch.randn(1, 3), torch.randn(1, 3, 14, 14)
    first = net(z1, z2)
    z1[:, 1], z2[:, 1] = 0, 0
    second = net(z1, z2)
    torch.testing.assert_close(first[:, [0, 2]], second[:, [0, 2]])
    assert second[:, 1].abs().max() == 0


def test_sample_is_of_its_generator():
    torch.manual_seed(4)
    net = NoiseEmulator(2)
    one, two = (net.sample(2, (9, 11), torch.Generator().manual_seed(5)) for _ in range(2))
    assert one.shape == (2, 2, 9, 11)
    assert torch.equal(one, two)


def test_half_precision_outside_changes_neither_filter_nor_transform():
    torch.manual_seed(5)
    net = NoiseEmulator(1)
    z1, z2 = torch.randn(1, 1), torch.randn(1, 1, 20, 20)
    with torch.autocast("cpu", torch.bfloat16):
        inside = net(z1, z2)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, net(z1, z2))
