"""The learned translator: geometry, flux, units, options and errors, with an untrained network."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import CCDData
from astropy.wcs import WCS

from astrogan import Translator
from astrogan.api import Observation, Target
from astrogan.backends.gan.surveynet import SurveyNetTranslator
from astrogan.exceptions import InputError, PSFError
from astrogan.image.psf import gaussian_psf
from astrogan.metrics import centroid
from astrogan.nn.surveynet import SurveyNet
from astrogan.operators.translator import TargetSpec
from astrogan.simulate.surveys import Filter, Survey
from astrogan.testing import check_backend
from astrogan.weights import save_weights

SCALE, FINE = 0.396, 0.187


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small network as it is before its first step, with a little of everything that training adds."""
    torch.manual_seed(0)
    net = SurveyNet(
        widths=(8, 16), blocks=(1, 1, 1), directions=(("sdss", "cfhtls"), ("cfhtls", "sdss")), band_names=("g", "r")
    )
    with torch.no_grad():
        net.zero_point[0] = torch.tensor([0.2, 0.0])
        net.colour[0] = torch.tensor([[0.0, 0.0], [0.1, -0.1]])
        net.head.weight += 0.01 * torch.randn(net.head.weight.shape)
    card = {
        "name": "small",
        "backend": "surveynet",
        "role": "translator",
        "architecture": net.architecture,
        "ranges": {"fwhm": [2.0, 8.0], "peak_snr": [0.0, 1e4]},
        "calibration": {"scale": 1.0, "scales": [2.0, 1.0], "error_kernels": [[[1.0]], [[1.0]]]},
    }
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, dict(net.state_dict()), card)
    return str(path)


def gaussian(shape, at, fwhm, flux=1.0):
    y, x = np.mgrid[: shape[0], : shape[1]]
    width = fwhm / 2.354820
    return flux * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 2 / width**2) / 2 / np.pi / width**2


def target_of(shape_in, shape, step=FINE / SCALE, angle=0.0, fwhm=4.0, bands=1, noise=None, **about):
    """A turned and rescaled grid with the same centre."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre_in, centre = (np.array(s[::-1])[:, None, None] / 2 - 0.5 for s in (shape_in, shape))

    def to_input(x, y):
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        moved = np.tensordot(turn * step, np.stack([x.ravel(), y.ravel()]) - centre.reshape(2, 1), 1)
        return tuple((moved + centre_in.reshape(2, 1)).reshape(2, *x.shape))

    def to_output(x, y):
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        moved = np.tensordot(turn.T / step, np.stack([x.ravel(), y.ravel()]) - centre_in.reshape(2, 1), 1)
        return tuple((moved + centre.reshape(2, 1)).reshape(2, *x.shape))

    psf = np.repeat(gaussian_psf(fwhm, 31)[None], bands, 0)
    noise = None if noise is None else np.full(bands, noise)
    return Target(shape, to_input, to_output, step**2, psf=psf, noise=noise, **about)


def observation_of(image, fwhm=3.3, sigma=1e-3, **about):
    image = np.asarray(image, np.float32).reshape(-1, *np.shape(image)[-2:])
    psf = np.repeat(gaussian_psf(fwhm, 25)[None], len(image), 0)
    return Observation(image, variance=np.full(image.shape, sigma**2, np.float32), psf=psf, **about)


def run(backend, observation, target, seed=1):
    return backend(observation, target, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("angle", [0.0, 0.4])
@pytest.mark.parametrize("at", [(31.5, 31.5), (14.2, 44.9), (49.0, 20.0)])
def test_sources_stay_where_they_are(weights, angle, at):
    target = target_of((64, 64), (150, 150), angle=angle)
    out = run(SurveyNetTranslator(weights), observation_of(gaussian((64, 64), at, 3.3, 5.0)), target)
    expected = np.ravel(target.to_output(*at))
    assert np.abs(centroid(out.data[0].astype(float)) - expected).max() < 0.1
    assert abs(out.data.sum() / 5.0 - 1) < 0.05


def test_pixels_outside_are_zero_and_flagged(weights):
    target = target_of((64, 64), (200, 180))
    out = run(SurveyNetTranslator(weights), observation_of(gaussian((64, 64), (31, 33), 3.3)), target)
    assert out.flags[0, 0].all()
    assert not out.flags[0, 100, 90]
    assert (out.data[0, :20] == 0).all()


@pytest.mark.parametrize("unit", [1e-12, 1e9])
def test_any_unit_of_flux(weights, unit):
    image = gaussian((40, 40), (19, 20), 3.3, 3.0)
    target = target_of((40, 40), (85, 85))
    backend = SurveyNetTranslator(weights)
    one = run(backend, observation_of(image), target)
    other = run(backend, observation_of(image * unit, sigma=1e-3 * unit), target)
    assert np.allclose(other.data / unit, one.data, rtol=1e-3, atol=1e-6)
    assert np.allclose(other.variance / unit**2, one.variance, rtol=1e-3)


def test_sky_is_carried(weights):
    image = gaussian((40, 40), (19, 20), 3.3, 3.0)
    target = target_of((40, 40), (85, 85))
    plain = run(SurveyNetTranslator(weights), observation_of(image), target)
    lifted = run(SurveyNetTranslator(weights), observation_of(image + 0.5), target)
    good = ~plain.flags
    assert np.abs((lifted.data - plain.data)[good] - 0.5 * (FINE / SCALE) ** 2).max() < 2e-3


def test_broader_target_is_psf_matching(weights):
    """There is nothing to learn in that direction."""
    observation = observation_of(gaussian((136, 136), (67, 66), 3.8, 9.0), fwhm=3.8)
    target = target_of((136, 136), (64, 64), step=SCALE / FINE, fwhm=3.3)
    ours = run(SurveyNetTranslator(weights), observation, target)
    from astrogan.backends.classic.psf_matching import PSFMatching

    assert np.array_equal(ours.data, run(PSFMatching(), observation, target).data)


def test_noise_reaches_the_targets(weights):
    rng = np.random.default_rng(3)
    image = rng.normal(0, 1e-2, (64, 64))
    target = target_of((64, 64), (136, 136), noise=0.05)
    backend = SurveyNetTranslator(weights)
    out = run(backend, observation_of(image, sigma=1e-2), target)
    inner = out.data[0, 20:-20, 20:-20]
    assert abs(inner.std() / 0.05 - 1) < 0.05
    assert (run(backend, observation_of(image, sigma=1e-2), target).data == out.data).all()
    assert (run(backend, observation_of(image, sigma=1e-2), target, seed=2).data != out.data).any()
    assert run(SurveyNetTranslator(weights, noise=False), observation_of(image, sigma=1e-2), target).data.std() < 0.02


def test_photon_noise(weights):
    image = gaussian((64, 64), (31, 32), 8.0, 500.0)
    target = target_of((64, 64), (136, 136), noise=1e-3, noise_slope=np.array([0.1]))
    mean = run(SurveyNetTranslator(weights, noise=False), observation_of(image), target).data
    draws = [run(SurveyNetTranslator(weights), observation_of(image), target, seed).data - mean for seed in range(30)]
    bright = mean > 0.5 * mean.max()
    assert abs(np.var(draws, axis=0)[bright].mean() / (0.1 * mean[bright]).mean() - 1) < 0.15


def test_what_is_not_known_can_be_drawn(weights):
    image = gaussian((64, 64), (31, 32), 5.0, 50.0)
    target = target_of((64, 64), (136, 136))
    drawn = SurveyNetTranslator(weights, draw_error=True)
    mean = run(SurveyNetTranslator(weights), observation_of(image), target)
    draws = np.stack([run(drawn, observation_of(image), target, seed).data - mean.data for seed in range(20)])
    bright = mean.data > 0.3 * mean.data.max()
    assert draws.std(axis=0)[bright].mean() > 0.5 * np.sqrt(mean.variance)[bright].mean()
    assert draws.std(axis=0)[:, :20].max() < 0.2 * draws.std(axis=0)[bright].mean()


def test_ensemble_turns_with_the_image(weights):
    """The mean of eight turned images does not care how the image was turned; a network by itself does."""
    image = gaussian((40, 46), (25, 17), 5.0, 50.0) + gaussian((40, 46), (18, 22), 3.5, 20.0)
    target, turned = target_of((40, 46), (84, 96)), target_of((46, 40), (96, 84))
    changes = {}
    for ensemble in (False, True):
        backend = SurveyNetTranslator(weights, ensemble=ensemble)
        out = run(backend, observation_of(image), target)
        other = run(backend, observation_of(np.rot90(image)), turned)
        changes[ensemble] = np.abs(np.rot90(out.data, axes=(1, 2)) - other.data)[~other.flags].max() / out.data.max()
    assert changes[True] < 1e-4 < changes[False]


class TestFilters:
    def images(self, order=(0, 1), unit=1.0):
        """Noise that differs between the bands: colours are of fluxes, not of signal-to-noise ratios."""
        bands = unit * np.stack([gaussian((64, 64), (31, 32), 12.0, flux) for flux in (1e4, 3e4)])
        names = np.array(["g", "r"])[list(order)]
        seen = observation_of(bands[list(order)], fwhm=3.3, bands=tuple(names))
        variance = unit**2 * np.array([1e-6, 1e-4])[list(order), None, None]
        return seen.replace(variance=np.broadcast_to(variance, seen.shape))

    @pytest.mark.parametrize("unit", [1.0, 1e-10])
    def test_learned_difference(self, weights, unit):
        target = target_of((64, 64), (136, 136), bands=2, name="cfhtls")
        plain = run(SurveyNetTranslator(weights), self.images(unit=unit), target)
        known = run(SurveyNetTranslator(weights, source="SDSS"), self.images(unit=unit), target)
        ratio = known.data[:, 68, 66] / plain.data[:, 68, 66]
        assert np.allclose(ratio, [np.exp(0.2), (1 / 3) ** 0.1], rtol=0.02)
        assert known.info["filters_translated"]
        assert not plain.info["filters_translated"]

    def test_any_order(self, weights):
        target = target_of((64, 64), (136, 136), bands=2, name="cfhtls")
        backend = SurveyNetTranslator(weights, source="sdss")
        straight, swapped = (run(backend, self.images(order), target).data for order in ((0, 1), (1, 0)))
        assert np.allclose(swapped[::-1], straight, atol=1e-4 * straight.max())

    @pytest.mark.parametrize("name", ["kids", ""])
    def test_unknown_pair(self, weights, name):
        target = target_of((64, 64), (136, 136), bands=2, name=name)
        with pytest.raises(InputError, match="no pair of the weights: sdss -> cfhtls"):
            run(SurveyNetTranslator(weights, source="sdss"), self.images(), target)

    def test_missing_band(self, weights):
        target = target_of((64, 64), (136, 136), bands=1, name="cfhtls")
        observation = observation_of(gaussian((64, 64), (31, 32), 4.0), bands=("r",))
        with pytest.raises(InputError, match=r"must be g, r .*leave source=None"):
            run(SurveyNetTranslator(weights, source="sdss"), observation, target)


def test_masked_pixels_are_flagged(weights):
    image = gaussian((64, 64), (31, 32), 4.0)
    valid = np.ones((1, 64, 64), bool)
    valid[0, 40:44, 20:24] = False
    observation = observation_of(image).replace(valid=valid)
    out = run(SurveyNetTranslator(weights), observation, target_of((64, 64), (130, 130)))
    x, y = np.round(target_of((64, 64), (130, 130)).to_output(21.5, 41.5)).astype(int)
    assert out.flags[0, y, x]
    assert not out.flags[0, y, x + 40]


def test_outside_the_training(weights):
    target = target_of((64, 64), (136, 136), fwhm=4.0)
    bright = run(SurveyNetTranslator(weights), observation_of(gaussian((64, 64), (31, 32), 4.0, 1e4)), target)
    inside = run(SurveyNetTranslator(weights), observation_of(gaussian((64, 64), (31, 32), 4.0, 1.0)), target)
    assert bright.info["out_of_range"] > 1
    assert inside.info["out_of_range"] == 0


def test_no_psf(weights):
    observation = Observation(np.ones((1, 20, 20)), variance=np.ones((1, 20, 20)))
    with pytest.raises(PSFError, match="psf=None"):
        run(SurveyNetTranslator(weights), observation, target_of((20, 20), (40, 40)))


def test_nothing_in_common(weights):
    target = target_of((20, 20), (10, 10))
    away = Target((10, 10), lambda x, y: (x + 500, y), lambda x, y: (x - 500, y), 1.0, psf=target.psf)
    with pytest.raises(InputError, match="no pixel of its grid lies on the image"):
        run(SurveyNetTranslator(weights), observation_of(np.ones((20, 20))), away)


@pytest.mark.parametrize(
    "option", [{"noise": 2}, {"draw_error": "yes"}, {"ensemble": 1}, {"source": 3}, {"mask_threshold": 0}]
)
def test_bad_options(option):
    with pytest.raises(InputError, match=next(iter(option))):
        SurveyNetTranslator(**option)


def test_weights_of_another_backend():
    backend = SurveyNetTranslator("ratio-net")
    with pytest.raises(InputError, match="are for the backend 'ratio-net'"):
        run(backend, observation_of(np.ones((20, 20))), target_of((20, 20), (40, 40)))


def test_through_the_operator(weights):
    """A survey of one's own in ten lines, a CCDData with a WCS in, one on the survey's pixels out."""
    own = Survey("mine", 0.2, (Filter("r", 0.7, 20.8, 25.0, 2000.0, 0.2),))
    sky = WCS(naxis=2)
    sky.wcs.ctype, sky.wcs.crval, sky.wcs.crpix = ["RA---TAN", "DEC--TAN"], [30, 5], [32, 30]
    sky.wcs.cd = np.array([[0.1, 0.99], [-0.99, 0.1]]) * SCALE / 3600
    rng = np.random.default_rng(0)
    image = CCDData(gaussian((64, 64), (40, 22), 3.4, 200.0) + rng.normal(0, 0.02, (64, 64)), unit="nmgy", wcs=sky)
    out = Translator(weights=weights, target=own, bands="r")(image, psf=1.35 * u.arcsec, rng=3)
    assert out.unit == u.nmgy
    assert out.meta["AGTARGET"] == "mine"
    x, y = np.ravel(centroid(out.data, position=np.ravel(out.wcs.world_to_pixel(sky.pixel_to_world(40, 22)))))
    assert out.wcs.pixel_to_world(x, y).separation(sky.pixel_to_world(40, 22)).arcsec < 0.03
    several = Translator(weights=weights, target=own, bands="r")(image, psf=1.35 * u.arcsec, n_samples=2)
    assert (several[0].data != several[1].data).any()


def test_only_a_pixel_scale(weights):
    image = CCDData(gaussian((40, 40), (20, 20), 4.0, 9.0), unit="adu")
    out = Translator(weights=weights, target=TargetSpec(pixel_scale=0.1))(image, psf=4.0, pixel_scale=0.2)
    assert out.data.shape == (80, 80)
    assert abs(out.data.sum() / 9 - 1) < 1e-3


def test_contract(weights):
    from astrogan.api import BackendSpec

    spec = BackendSpec("translator", "surveynet", "astrogan.backends.gan.surveynet:SurveyNetTranslator")
    check_backend(spec, options={"weights": weights})
