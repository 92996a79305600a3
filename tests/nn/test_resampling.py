"""Differentiable cubic splines, against scipy's."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from astrogan.nn.resampling import resample_separable, spline_coefficients, spline_matrix, spline_sample


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(size=(40, 33))


def reference(image, y, x):
    padded = np.pad(image, 14, mode="symmetric")
    return map_coordinates(padded, [y + 14, x + 14], order=3, mode="nearest")


def test_anywhere(image):
    rng = np.random.default_rng(1)
    y, x = rng.uniform(-0.5, 39.5, (20, 21)), rng.uniform(-0.5, 32.5, (20, 21))
    out = spline_sample(spline_coefficients(torch.from_numpy(image)), torch.from_numpy(x), torch.from_numpy(y))
    assert np.abs(out.numpy() - reference(image, y, x)).max() < 1e-6


def test_along_the_axes(image):
    y, x = np.linspace(-0.5, 39.5, 77), np.linspace(0, 32, 50)
    matrices = spline_matrix(y, 40), spline_matrix(x, 33)
    out = resample_separable(torch.from_numpy(image).float(), *matrices)
    assert np.abs(out.numpy() - reference(image, *np.meshgrid(y, x, indexing="ij"))).max() < 3e-6


def test_pixels_themselves_come_back(image):
    out = resample_separable(
        torch.from_numpy(image).float(), spline_matrix(range(40), 40), spline_matrix(range(33), 33)
    )
    assert np.abs(out.numpy() - image).max() < 1e-5


def test_beyond_the_edge_the_edge_is_read(image):
    edge = spline_matrix([39.5], 40) @ torch.from_numpy(image).float()
    assert torch.equal(spline_matrix([45.0], 40) @ torch.from_numpy(image).float(), edge)


def test_rows_sum_to_one():
    assert torch.allclose(spline_matrix(np.linspace(-1, 20, 50), 20).sum(1), torch.ones(50), atol=1e-6)


def test_gradients_go_through(image):
    images = torch.from_numpy(image[:8, :9]).requires_grad_()
    y, x = torch.tensor([[1.3, 4.0]]), torch.tensor([[2.2, 7.9]])
    assert torch.autograd.gradcheck(lambda values: spline_sample(spline_coefficients(values), x, y), images, atol=1e-4)
