"""Losses against their definitions."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from astrogan.image.stretch import GalaxyGAN2017Stretch
from astrogan.nn.losses import aperture_loss, coverage_loss, psnr_loss, stretched_2017, weighted_charbonnier


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_stretch_is_that_of_the_image_package(rng):
    flux = np.concatenate([rng.uniform(-1, 6, 1000), [-0.1, 0.0, 4.0]]).astype(np.float32)
    expected = GalaxyGAN2017Stretch().forward(flux)
    np.testing.assert_allclose(stretched_2017(torch.from_numpy(flux)).numpy(), expected, rtol=0, atol=3e-7)


@pytest.mark.parametrize("data_range", [1.0, 2.5])
def test_psnr_is_that_of_scikit_image(rng, data_range):
    truth = rng.uniform(0, 1, (3, 2, 16, 16))
    images = truth + np.array([0.01, 0.05, 0.3])[:, None, None, None] * rng.normal(size=truth.shape)
    expected = np.mean(
        [peak_signal_noise_ratio(a, b, data_range=data_range) for a, b in zip(truth, images, strict=True)]
    )
    loss = psnr_loss(torch.from_numpy(images), torch.from_numpy(truth), data_range)
    assert float(loss) == pytest.approx(-expected, abs=2e-3)


def test_psnr_of_equal_images_is_finite_with_its_gradient():
    images = torch.zeros(1, 1, 4, 4, requires_grad=True)
    loss = psnr_loss(images, torch.zeros(1, 1, 4, 4))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-80)
    assert torch.isfinite(images.grad).all()


def test_charbonnier_is_square_below_its_knee_and_absolute_beyond():
    unit, zero = torch.full((1, 1, 1, 1), 2.0), torch.zeros(1, 1, 1, 1)
    small, large = torch.full_like(zero, 0.02), torch.full_like(zero, 2e4)
    assert float(weighted_charbonnier(small.double(), zero.double(), unit, 3.0)) == pytest.approx(
        0.01**2 / (2 * 3), rel=1e-3
    )
    assert float(weighted_charbonnier(large, zero, unit, 3.0)) == pytest.approx(1e4 - 3, rel=1e-5)
    assert float(weighted_charbonnier(zero, zero, unit)) == 0
    assert float(weighted_charbonnier(large, zero, unit)) == float(weighted_charbonnier(-large, zero, unit))


def test_aperture_loss_counts_sums_over_boxes():
    target = torch.zeros(1, 1, 32, 32)
    moved = target.clone()
    moved[..., 3, 3], moved[..., 4, 4] = 5.0, -5.0  # in one box: its flux is right
    assert float(aperture_loss(moved, target, 8)) == 0
    split = target.clone()
    split[..., 7, 7], split[..., 8, 8] = 5.0, -5.0  # in two boxes
    assert float(aperture_loss(split, target, 8)) == pytest.approx(2 / 16 * np.log1p((5 / 8) ** 2), rel=1e-5)


def test_aperture_loss_of_noise_does_not_depend_on_the_box():
    noise, target = normal(8, 1, 128, 128), torch.zeros(8, 1, 128, 128)
    small, large = (float(aperture_loss(noise, target, size)) for size in (4, 16))
    assert small == pytest.approx(large, rel=0.1)


def test_aperture_loss_forgives_in_proportion_to_flux():
    faint, bright = torch.full((1, 1, 8, 8), 0.1), torch.full((1, 1, 8, 8), 1000.0)
    assert float(aperture_loss(bright * 1.001, bright, 8)) < float(aperture_loss(faint + 1, faint, 8)) / 100


@pytest.mark.parametrize("quantile", [0.3, 0.6827, 0.95])
def test_coverage_loss_is_least_at_the_quantile(quantile):
    errors = normal(1, 1, 100, 100).double()
    widths = torch.linspace(0.05, 3, 150, dtype=torch.float64)
    losses = torch.stack([coverage_loss(errors, w.expand_as(errors), quantile) for w in widths])
    best = float(widths[losses.argmin()])
    assert best == pytest.approx(float(errors.abs().quantile(quantile)), abs=0.03)


def test_coverage_loss_moves_the_spread_only():
    errors, spread = normal(1, 1, 8, 8).requires_grad_(True), torch.ones(1, 1, 8, 8, requires_grad=True)
    coverage_loss(errors, spread).backward()
    assert errors.grad is None
    assert spread.grad.abs().min() > 0
    assert torch.isfinite(coverage_loss(torch.zeros(1), torch.zeros(1)))
