"""Wiener banks keep flux, deconvolve, and are the finite convolution that they say they are."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from astrogan.exceptions import InputError
from astrogan.nn.filters import apply_bank, wiener_bank


def gaussian(fwhm, radius=20):
    offset = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offset[:, None] ** 2 + offset**2) / (fwhm / 2.3548) ** 2)
    return torch.from_numpy(kernel / kernel.sum())


@pytest.mark.parametrize("fwhm", [0.5, 3.0, 9.0])
@pytest.mark.parametrize("radius", [1, 8, 24])
def test_filters_sum_to_one(fwhm, radius):
    bank = wiener_bank(gaussian(fwhm), (1e-3, 0.1, 30.0), radius)
    assert bank.shape == (3, 2 * radius + 1, 2 * radius + 1)
    assert bank.dtype == torch.float32
    torch.testing.assert_close(bank.double().sum((1, 2)), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-5)


def test_filters_of_a_symmetric_psf_are_symmetric():
    bank = wiener_bank(gaussian(3.0), (0.01, 1.0), radius=12)
    for turned in (bank.flip(1), bank.flip(2), bank.transpose(1, 2)):
        torch.testing.assert_close(bank, turned, rtol=0, atol=1e-6)


def test_a_lopsided_psf_is_undone_in_its_own_direction():
    psf = torch.zeros(5, 5)
    psf[2, 3] = 1.0  # shifts images by one pixel to the right, so the filter must shift them back
    bank = wiener_bank(psf, (1e-6,), radius=8)
    assert np.unravel_index(int(bank[0].argmax()), bank[0].shape) == (8, 7)


def test_a_blurred_gaussian_becomes_narrow_again():
    sharp, psf = gaussian(2.5, 31), gaussian(3.0)
    blurred = torch.from_numpy(convolve(sharp.numpy(), psf.numpy(), mode="constant")).float()
    restored = apply_bank(blurred[None, None], wiener_bank(psf, (1e-4, 100.0))[None, None])[0, 0]
    errors = [float((image - sharp).norm() / sharp.norm()) for image in (restored[0], blurred, restored[1])]
    assert errors[0] < 0.1
    assert errors[1] > 0.4
    assert errors[2] > errors[1]  # a large balance smooths


def test_the_bank_is_a_direct_convolution_with_reflected_edges(rng):
    image = rng.normal(size=(2, 3, 30, 41)).astype(np.float32)
    banks = rng.normal(size=(2, 3, 2, 9, 9)).astype(np.float32)
    result = apply_bank(torch.from_numpy(image), torch.from_numpy(banks)).numpy()
    assert result.shape == (2, 3, 2, 30, 41)
    for n in range(2):
        for band in range(3):
            for k in range(2):
                direct = convolve(image[n, band].astype(float), banks[n, band, k].astype(float), mode="mirror")
                np.testing.assert_allclose(result[n, band, k], direct, atol=2e-4)


def test_one_bank_serves_all_images_and_bands(rng):
    images = torch.from_numpy(rng.normal(size=(3, 2, 20, 20)).astype(np.float32))
    bank = wiener_bank(gaussian(3.0), (0.1, 1.0), radius=6)
    shared = apply_bank(images, bank[None, None])
    each = apply_bank(images, bank.expand(3, 2, *bank.shape))
    torch.testing.assert_close(shared, each, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (3, 50), (5, 4)])
def test_images_smaller_than_the_filter(shape):
    bank = wiener_bank(gaussian(4.0), (0.1, 10.0), radius=24)
    result = apply_bank(torch.full((1, 1, *shape), 3.0), bank[None, None])
    assert result.shape == (1, 1, 2, *shape)
    # the filters are negative in places and reach far, so this holds only if every padded pixel has the value
    torch.testing.assert_close(result, torch.full_like(result, 3.0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [127, 129, 301])
def test_kernels_as_wide_as_the_grid_and_wider(size):
    wide = wiener_bank(gaussian(3.0, size // 2), (0.1, 10.0))
    torch.testing.assert_close(wide, wiener_bank(gaussian(3.0), (0.1, 10.0)), rtol=0, atol=1e-6)


def test_the_flux_of_a_star_is_kept():
    image = torch.zeros(1, 1, 121, 121)
    image[0, 0, 40:81, 40:81] = 1e4 * gaussian(3.0).float()
    result = apply_bank(image, wiener_bank(gaussian(3.0), (0.02, 1.0, 30.0))[None, None])
    torch.testing.assert_close(result.sum((-2, -1)), torch.full((1, 1, 3), 1e4), rtol=1e-4, atol=0)
    peaks = result[0, 0].flatten(1).argmax(1)
    assert set(peaks.tolist()) == {60 * 121 + 60}


def test_gradients_reach_the_image():
    image = torch.randn(1, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    image.requires_grad_(True)
    bank = wiener_bank(gaussian(2.0, 4), (0.1,), radius=3).double()[None, None]
    assert torch.autograd.gradcheck(lambda x: apply_bank(x, bank), image)


def test_nothing_is_changed():
    psf, image = gaussian(3.0), torch.ones(1, 1, 20, 20)
    before = psf.clone()
    bank = wiener_bank(psf, (0.1,), radius=5)
    kept = bank.clone()
    apply_bank(image, bank[None, None])
    assert torch.equal(psf, before)
    assert torch.equal(image, torch.ones(1, 1, 20, 20))
    assert torch.equal(bank, kept)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"radius": 64}, "radius=64 must be an integer from 0 to 63"),
        ({"radius": -1}, "radius=-1"),
        ({"radius": 2.5}, "radius=2.5"),
        ({"balances": (0.1, -1.0)}, "balances=.* must be positive numbers"),
        ({"balances": (np.nan,)}, "balances="),
    ],
)
def test_what_no_filter_can_be_made_of_is_named(options, match):
    with pytest.raises(InputError, match=match):
        wiener_bank(gaussian(3.0), **({"balances": (0.1,)} | options))
    assert wiener_bank(gaussian(3.0), (0.1,), radius=63).shape == (1, 127, 127)
