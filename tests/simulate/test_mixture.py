"""The batch renderer against GalSim, against sums worked out by hand, and against itself."""

import numpy as np
import pytest
import torch
from scipy.special import gammainc, gammaincinv

from astrogan.exceptions import InputError
from astrogan.simulate.mixture import MixtureRenderer, moffat_mixture, sersic_mixture


@pytest.fixture(scope="module")
def renderer():
    return MixtureRenderer(shape=(48, 56), bands=3, sources=(1, 4))


@pytest.fixture(scope="module")
def batch(renderer):
    return renderer(3, 5, 12)


def enclosed(mixture, radius):
    weights, sigmas = mixture
    return sum(w * -np.expm1(-0.5 * (radius / s) ** 2) for w, s in zip(weights, sigmas, strict=True))


@pytest.mark.parametrize(
    ("index", "components", "allowed"),
    [(0.5, 1, 1e-6), (1.0, 3, 0.005), (1.5, 5, 0.003), (2.5, 5, 0.006), (4.0, 5, 0.01), (4.0, 6, 0.005)],
)
def test_sersic_mixture_encloses_the_same_light(index, components, allowed):
    radius = np.geomspace(0.05, 14, 80)
    exact = gammainc(2 * index, gammaincinv(2 * index, 0.5) * radius ** (1 / index))
    mixture = sersic_mixture(index, components)
    assert np.abs(enclosed(mixture, radius) - exact).max() < allowed
    assert sum(mixture[0]) == pytest.approx(1)


@pytest.mark.parametrize("beta", [2.5, 3.5, 4.5])
def test_moffat_mixture_encloses_the_same_light(beta):
    radius = np.geomspace(0.05, 5, 80)
    core = 0.5 / np.sqrt(2 ** (1 / beta) - 1)
    exact = 1 - (1 + (radius / core) ** 2) ** (1 - beta)
    assert np.abs(enclosed(moffat_mixture(beta), radius) - exact).max() < 0.005


@pytest.mark.parametrize("index", [1.0, 4.0])
def test_rendered_sersic_profile_is_galsims(index):
    """An inclined galaxy through a Gaussian PSF: flux in apertures to 1.5 %, and no pixel off by 2 % of the peak."""
    galsim = pytest.importorskip("galsim")
    size, half_light, q, angle, psf = 96, 4.0, 0.5, 0.6, 1.6
    weights, sigmas = (torch.tensor(v) for v in sersic_mixture(index, 6))
    cos, sin = np.cos(angle), np.sin(angle)
    shape = torch.tensor([cos**2 + q**2 * sin**2, (1 - q**2) * sin * cos, sin**2 + q**2 * cos**2])
    covariance = (half_light * sigmas)[:, None] ** 2 * shape + torch.tensor([psf**2, 0.0, psf**2])
    renderer = MixtureRenderer(shape=size)
    centre = torch.full((1, 2, 6), 0.5)
    ours = renderer._draw((weights[None], centre, covariance[None]), renderer._basis).reshape(size, size).numpy()

    profile = galsim.Sersic(n=index, half_light_radius=half_light)
    # GalSim keeps the area of a sheared profile; here the major axis is the given one.
    profile = profile.dilate(np.sqrt(q)).shear(q=q, beta=angle * galsim.radians)
    image = galsim.ImageD(size, size, scale=1.0, xmin=0, ymin=0)
    place = galsim.PositionD(size / 2, size / 2)
    params = galsim.GSParams(folding_threshold=5e-4, maximum_fft_size=8192)
    drawn = galsim.Convolve(profile, galsim.Gaussian(sigma=psf), gsparams=params)
    drawn.drawImage(image, center=place, method="no_pixel")
    y, x = np.indices((size, size)) - size / 2
    for radius in (3, 6, 12, 24, 40):
        inside = np.hypot(x, y) <= radius
        assert ours[inside].sum() == pytest.approx(image.array[inside].sum(), rel=0.015)
    assert np.abs(ours - image.array).max() < 0.02 * image.array.max()


def test_shapes_and_types(renderer, batch):
    shapes = {
        "data": (12, 3, 48, 56),
        "variance": (12, 3, 48, 56),
        "truth": (12, 4, 3, 48, 56),
        "smooth": (12, 4, 3, 48, 56),
        "present": (12, 4),
        "positions": (12, 4, 2),
        "kinds": (12, 4),
        "psf": (12, 3, 33, 33),
    }
    assert {name: tuple(value.shape) for name, value in batch.items()} == shapes
    for name in ("data", "variance", "truth", "smooth", "positions", "psf"):
        assert batch[name].dtype == torch.float32
        assert torch.isfinite(batch[name]).all()
    assert batch["present"].dtype == torch.bool


def test_data_are_the_sum_of_truths_and_noise_of_the_stated_variance(batch):
    light = batch["truth"].sum(dim=1)
    pulls = (batch["data"] - light) / batch["variance"].sqrt()
    # 97,000 independent pulls.
    assert abs(pulls.mean().item()) < 0.015
    assert abs(pulls.var().item() - 1) < 0.02
    bright = light > 10
    assert bright.sum() > 1000
    assert abs(pulls[bright].var().item() - 1) < 0.15
    # Variance is background plus a number times light.
    for i in range(3):
        sky = batch["variance"][i] - batch["variance"][i].amin(dim=(1, 2), keepdim=True)
        extra = light[i] - light[i].amin(dim=(1, 2), keepdim=True)
        ratio = sky.sum() / extra.sum()
        assert torch.allclose(sky, ratio * extra, atol=1e-3 * sky.max().item())


def test_padding_is_empty(batch):
    absent = ~batch["present"]
    assert absent.any()
    assert batch["present"].any(dim=1).all()
    for name in ("truth", "smooth", "positions"):
        assert (batch[name][absent] == 0).all()
    assert (batch["kinds"][absent] == -1).all()
    assert (batch["kinds"][batch["present"]] >= 0).all()


def test_fluxes_are_those_of_the_terms():
    """In a frame so large that nothing is cut off the sum of a unit image is one in the mean over bands."""
    from astrogan.simulate._mixture_scene import Lots, Scene

    renderer = MixtureRenderer(shape=160, sources=(2, 2), radius=(1, 2), psf_fwhm=(2.5, 3), spirals=0.4)
    scene = Scene(renderer, Lots([(1, 1, i) for i in range(3)]))
    scene.positions = torch.full_like(scene.positions, 79.5)
    body, arms = renderer._images(scene)
    share = scene.arm_share.float()
    assert (share > 0).any()
    assert torch.allclose(
        body.sum(dim=(-1, -2)).mean(dim=-1) + arms.sum(dim=(-1, -2)).mean(dim=-1), torch.ones(3, 2), atol=0.01
    )
    assert torch.allclose(arms.sum(dim=(-1, -2)).mean(dim=-1), share, atol=0.005)


def test_only_spirals_have_arms(batch):
    arms = (batch["truth"] - batch["smooth"]).abs().amax(dim=(2, 3, 4))
    peak = batch["truth"].amax(dim=(2, 3, 4))
    spiral = batch["kinds"] == 1
    assert spiral.any()
    assert (arms[spiral] > 0.01 * peak[spiral]).all()
    assert (arms[~spiral] == 0).all()
    assert (batch["truth"] >= batch["smooth"]).all()


def test_a_star_is_the_psf():
    renderer = MixtureRenderer(shape=65, sources=(1, 1), stars=1.0, spirals=0.0, psf_fwhm=(3, 4), psf_size=61)
    batch = renderer(0, 0, 3)
    for truth, psf, (x, y) in zip(batch["truth"][:, 0], batch["psf"], batch["positions"][:, 0], strict=True):
        grid = torch.arange(65.0)
        for plane, kernel in zip(truth, psf, strict=True):
            total = plane.sum()
            assert (plane.sum(dim=0) @ grid / total).item() == pytest.approx(x.item(), abs=0.1)
            assert (plane.sum(dim=1) @ grid / total).item() == pytest.approx(y.item(), abs=0.1)
            assert ((plane / total) ** 2).sum().item() == pytest.approx((kernel**2).sum().item(), rel=0.01)


def test_signal_to_noise_is_about_what_was_asked_for():
    renderer = MixtureRenderer(shape=64, sources=(1, 1), snr=(100, 100))
    batch = renderer(2, 0, 16)
    snr = (batch["truth"][:, 0] ** 2 / batch["variance"]).sum(dim=(1, 2, 3)).sqrt()
    assert snr.min() > 60
    assert snr.max() < 140


def test_a_blend_depends_on_its_numbers_only(renderer, batch):
    again = renderer(3, 5, 12)
    part = renderer(3, 5, 3, first=6)
    other = renderer(3, 6, 12)
    for name, value in batch.items():
        assert torch.equal(value, again[name])
        assert torch.allclose(value[6:9].float(), part[name].float(), rtol=1e-5, atol=1e-4)
    assert not torch.equal(batch["data"], other["data"])


def test_torchs_global_generator_is_not_used(renderer):
    before = torch.get_rng_state()
    renderer(0, 0, 1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("bands", [1, 5])
def test_any_number_of_bands(bands):
    batch = MixtureRenderer(shape=32, bands=bands, sources=(1, 2))(0, 0, 2)
    assert batch["data"].shape == (2, bands, 32, 32)
    assert torch.isfinite(batch["data"]).all()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"shape": 8}, "shape"),
        ({"bands": 0}, "bands"),
        ({"sources": (0, 3)}, "sources"),
        ({"sources": (4, 3)}, "sources"),
        ({"psf_fwhm": (7, 2)}, "psf_fwhm"),
        ({"radius": 3}, "radius"),
        ({"snr": (-5, 10)}, "snr"),
        ({"stars": 1.5}, "stars"),
        ({"stars": 0.7, "spirals": 0.7}, "spirals"),
        ({"psf_size": 32}, "psf_size"),
    ],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(InputError, match=name):
        MixtureRenderer(**arguments)


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"step": 1.5}, {"batch": 0}, {"first": -2}])
def test_bad_numbers_are_named(renderer, arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        renderer(**{"seed": 0, "step": 0, "batch": 1, **arguments})


@pytest.mark.parametrize("call", [lambda: sersic_mixture(0.3), lambda: sersic_mixture(8.0)])
def test_bad_index_is_named(call):
    with pytest.raises(InputError, match="index"):
        call()


def test_bad_beta_is_named():
    with pytest.raises(InputError, match="beta"):
        moffat_mixture(1.0)
