"""The translation network and the classic estimates that it starts from."""

import numpy as np
import pytest
import torch

from astrogan.image.psf import gaussian_psf
from astrogan.nn.surveynet import SurveyNet, matched_estimates

BALANCES = (3e-4, 0.02, 0.5, 8.0)


def tensor(array):
    return torch.from_numpy(np.asarray(array, np.float32))


def gaussian(fwhm, size=41):
    return tensor(gaussian_psf(fwhm, size))[None, None]


def star(fwhm, shape=(51, 64), at=(25, 31)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    width = fwhm / 2.354820
    return tensor(np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 2 / width**2) / 2 / np.pi / width**2)[None, None]


class TestEstimates:
    def test_a_broader_psf_is_reached_by_all_balances(self):
        found = matched_estimates(star(3.0), gaussian(3.0), gaussian(6.0), BALANCES[:2])
        error = (found - star(6.0)[:, :, None]).norm(dim=(-2, -1)) / star(6.0).norm()
        assert error.max() < 0.01

    def test_a_sharper_one_by_the_smallest(self):
        found = matched_estimates(star(5.0), gaussian(5.0), gaussian(3.5), BALANCES)[0, 0]
        error = ((found - star(3.5)[0]).norm(dim=(-2, -1)) / star(3.5).norm()).tolist()
        as_it_is = ((star(5.0) - star(3.5)).norm() / star(3.5).norm()).item()
        assert error == sorted(error)
        assert error[0] < 0.5 * as_it_is

    @pytest.mark.parametrize("fwhm", [2.5, 7.0])
    def test_flux_and_sky_stay(self, fwhm):
        found = matched_estimates(star(4.0) + 2.0, gaussian(4.0), gaussian(fwhm), BALANCES)
        assert torch.allclose(found.mean((-2, -1)), (star(4.0) + 2.0).mean(), rtol=1e-4)

    def test_wings_wider_than_the_image(self):
        found = matched_estimates(star(3.0, (12, 13), (6, 6)), gaussian(3.0, 101), gaussian(4.0, 101), BALANCES)
        assert torch.isfinite(found).all()


@pytest.fixture
def network():
    torch.manual_seed(0)
    net = SurveyNet(widths=(8, 16), blocks=(1, 1, 1), directions=(("a", "b"), ("b", "a")), band_names=("g", "r"))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return net.eval().requires_grad_(False)


def inputs(shape=(1, 2, 4, 30, 37), seed=1):
    estimates = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    estimates[..., 10:20, 10:20] += 20
    one = torch.ones(shape[:2])
    return estimates, one, 7 * one, 4 * one, 0.3 * one


def test_it_starts_as_a_mixture_of_the_estimates():
    net = SurveyNet(widths=(8, 16), blocks=(1, 1, 1))
    estimates, *rest = inputs()
    same = estimates[:, :, :1].expand_as(estimates).clone()
    with torch.no_grad():
        mean = net(same, *rest)[0]
    # Four of the five candidates are equal; the fifth has its flux from the same light.
    assert (mean - same[:, :, 0]).abs().max() < 0.25 * same.abs().max()
    flux = mean[..., 5:25, 5:25].sum() / same[:, :, 0, 5:25, 5:25].sum()
    assert abs(flux - 1) < 0.05


def test_a_broader_target_gets_the_first_estimate(network):
    estimates, unit, fwhm_in, _, noise = inputs()
    wider = torch.tensor([[3.0, 8.0]])
    mean = network(estimates, unit, fwhm_in, wider, noise)[0]
    assert not torch.allclose(mean[:, 0], estimates[:, 0, 0])
    assert torch.allclose(mean[:, 1], estimates[:, 1, 0])


@pytest.mark.parametrize("direction", [None, 0])
def test_scale_of_the_flux_goes_through(network, direction):
    estimates, unit, fwhm_in, fwhm_out, noise = inputs()
    mean, spread = network(estimates, unit, fwhm_in, fwhm_out, noise, direction)
    other, other_spread = network(1e3 * estimates, 1e3 * unit, fwhm_in, fwhm_out, 1e3 * noise, direction)
    assert torch.allclose(other, 1e3 * mean, rtol=1e-4, atol=1e-2)
    assert torch.allclose(other_spread, 1e3 * spread, rtol=1e-4, atol=1e-2)
    assert (spread > 0).all()


def test_bands_have_no_order(network):
    estimates, *rest = inputs()
    mean = network(estimates, *rest)[0]
    swapped = network(estimates.flip(1), *rest)[0]
    assert torch.allclose(swapped, mean.flip(1), atol=1e-4)


def test_one_band_and_odd_sizes(network):
    estimates, *rest = inputs((2, 1, 4, 19, 23))
    mean, spread = network(estimates, *rest)
    assert mean.shape == spread.shape == (2, 1, 19, 23)


def test_filters_differ_by_a_power_of_the_colour():
    net = SurveyNet(widths=(8, 16), blocks=(1, 1, 1), directions=(("a", "b"),), band_names=("g", "r"))
    with torch.no_grad():
        net.colour[0] = torch.tensor([[0.2, -0.2], [0.0, 0.0]])
        net.zero_point[0, 1] = 0.1
    flux = torch.tensor([3e3, 9e3])
    estimates = flux[None, :, None, None, None].expand(1, 2, 4, 24, 24)
    one = torch.ones(1, 2)
    arguments = estimates, one, 2 * one, 3 * one, one
    with torch.no_grad():
        ratio = (net(*arguments, 0)[0] / net(*arguments)[0])[0, :, 12, 12]
    assert torch.allclose(ratio, torch.tensor([(3e3 / 9e3) ** 0.2, np.exp(0.1)]).float(), rtol=1e-3)


def test_numbers_of_scales_and_blocks_must_agree():
    with pytest.raises(ValueError, match="must hold 3 numbers for 2 scales"):
        SurveyNet(widths=(8, 16), blocks=(1, 1))


def test_architecture_builds_the_same(network):
    twin = SurveyNet(**network.architecture)
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(*inputs())[0], network(*inputs())[0])
