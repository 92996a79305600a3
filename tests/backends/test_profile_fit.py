"""Joint profile fits: derivatives, truth-known blends, permutation, translation, scaling, hostile inputs."""

import numpy as np
import pytest

from astrogan.api import BackendSpec, Blend, Observation
from astrogan.backends.classic import _profile_model as model
from astrogan.backends.classic._blend_fit import Options
from astrogan.backends.classic._varpro import fluxes
from astrogan.backends.classic.profile_fit import ProfileFit, fit_blend
from astrogan.backends.classic.watershed import Watershed
from astrogan.exceptions import InputError, PSFError
from astrogan.testing import check_backend

SPEC = BackendSpec("deblender", "profile-fit", "astrogan.backends.classic.profile_fit:ProfileFit")
SHAPE = (44, 48)
POSITIONS = np.array([(18.3, 21.6), (26.1, 19.2), (24.4, 29.7)])


def moffat(fwhm, beta, size=21):
    y, x = np.mgrid[-(size // 2) : size // 2 + 1, -(size // 2) : size // 2 + 1]
    scale = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    kernel = (1 + (x**2 + y**2) / scale**2) ** -beta
    return kernel / kernel.sum()


PSF = np.stack([moffat(3.0, 3.0), moffat(3.8, 2.5)])


def galaxy(x, y, radius, index, q, angle, shape=SHAPE, psf=PSF, over=5):
    """A Sersic galaxy convolved with the PSF by oversampling and FFT: nothing of the code under test; (band, y, x)."""
    rows, columns = (np.arange(n * over) / over - (over - 1) / 2 / over for n in shape)
    dx, dy = columns[None] - x, rows[:, None] - y
    along, across = dx * np.cos(angle) + dy * np.sin(angle), -dx * np.sin(angle) + dy * np.cos(angle)
    r = np.hypot(along * np.sqrt(q), across / np.sqrt(q)) / radius
    sersic = np.exp(-(2 * index - 1 / 3) * r ** (1 / index))
    image = sersic.reshape(shape[0], over, shape[1], over).mean(axis=(1, 3))
    size = psf.shape[1]
    full = (shape[0] + size, shape[1] + size)
    image = np.fft.irfft2(np.fft.rfft2(image, full) * np.fft.rfft2(psf, full), full)
    half = size // 2
    image = image[:, half : half + shape[0], half : half + shape[1]]
    return image / image.sum(axis=(1, 2), keepdims=True)


@pytest.fixture(scope="module")
def truth():
    units = [galaxy(*POSITIONS[0], 3.2, 1.0, 0.6, 0.4), galaxy(*POSITIONS[1], 2.0, 1.8, 0.8, 2.0)]
    units.append(galaxy(*POSITIONS[2], 0.05, 0.6, 1.0, 0.0))
    flux = np.array([(3000, 2000), (900, 1800), (700, 500)])
    return np.stack(units) * flux[:, :, None, None]


def observed(truth, noise=1.0, seed=1):
    scene = truth.sum(axis=0)
    data = scene + np.random.default_rng(seed).normal(0, noise, scene.shape)
    return Observation(data, variance=np.full(data.shape, noise**2), psf=PSF)


def errors(models, truth):
    return np.abs(models.sum(axis=(2, 3)) / truth.sum(axis=(2, 3)) - 1)


def cosines(models, truth):
    """Pixel by pixel, (source, band); 0 for a model of no light."""
    power = (models.astype(np.float64) ** 2).sum(axis=(2, 3)) * (truth**2).sum(axis=(2, 3))
    return np.divide((models * truth).sum(axis=(2, 3)), np.sqrt(power), out=np.zeros(power.shape), where=power > 0)


def whole(templates, shape):
    out = np.zeros((len(templates), *shape))
    for image, t in zip(out, templates, strict=True):
        y, x = t.origin
        image[:, y : y + t.data.shape[1], x : x + t.data.shape[2]] = t.data
    return out


@pytest.mark.parametrize("index", [0.5, 1.0, 2.0, 4.0])
def test_gaussians_make_a_sersic_profile(index):
    variance, _, weight, _ = model.profile_terms(np.log(index))
    assert (weight > -3e-3).all()
    radius = np.linspace(0, 4, 400)
    inside = (weight * (1 - np.exp(-0.5 * radius[:, None] ** 2 / variance))).sum(axis=1)
    assert inside[100] == pytest.approx(0.5, abs=0.02)
    from scipy.special import gammainc, gammaincinv

    exact = gammainc(2 * index, gammaincinv(2 * index, 0.5) * radius ** (1 / index))
    assert np.abs(inside - exact).max() < 0.03


def test_unit_models_match_an_oversampled_rendering():
    psf = model.psf_mixture(PSF)
    box = (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
    theta = np.array([20.3, 22.6, np.log(3.0), 0.5 * np.log(1 / 0.6), 0.0, 0.0])
    ours = (model.unit_models(theta, psf, box)[:, 0] + model.correction(theta, psf, box)).reshape(2, *SHAPE)
    # b_n = 2 n - 1/3 is 1.678 to 0.7 %, and radii there are of the circle of equal area.
    exact = galaxy(20.3, 22.6, 3.0, 1.0, 0.6, 0.0)
    assert np.abs(ours - exact).sum(axis=(1, 2)).max() < 0.03


@pytest.mark.parametrize("names", [model.SINGLE, model.DOUBLE])
def test_derivatives_are_those_of_finite_differences(names):
    psf = model.psf_mixture(PSF)
    box = (slice(3, 40), slice(5, 45))
    theta = np.array([20.3, 22.6, 0.9, 0.25, -0.1, 0.2, -0.3, -0.1, 0.2, 0.7, -0.5])[: len(names)]
    exact = model.source_model(theta, psf, box)
    for i, name in enumerate(names):
        step = np.zeros(len(theta))
        step[i] = 2e-3
        up, down = (model.source_model(theta + s, psf, box)[:, 0].astype(float) for s in (step, -step))
        slope = (up - down) / 4e-3
        assert np.abs(slope - exact[:, 1 + i]).max() < 3e-3 * np.abs(slope).max(), name


def test_fluxes_are_non_negative_least_squares(rng):
    basis = rng.normal(size=(3, 30, 4))
    data = rng.normal(size=(3, 30))
    from scipy.optimize import nnls

    ours = fluxes(basis.transpose(0, 2, 1) @ basis, np.einsum("bps,bp->bs", basis, data))
    exact = [nnls(a, d)[0] for a, d in zip(basis, data, strict=True)]
    assert (ours == 0).any()
    assert np.allclose(ours, exact, atol=1e-4)


def test_fluxes_of_a_blend(truth):
    observation = observed(truth)
    models, variance = fit_blend(observation, POSITIONS)
    assert models.dtype == np.float32
    assert models.shape == truth.shape
    assert (models >= 0).all()
    error = errors(models, truth)
    assert np.median(error) < 0.03
    assert error.max() < 0.15
    assert cosines(models, truth).min() > 0.99
    # The errors are of the size that the variance says.
    pull = (models - truth).sum(axis=(2, 3)) / np.sqrt(variance)
    assert np.abs(pull).max() < 3.5
    assert 0.2 < np.sqrt(np.mean(pull**2)) < 2.0


def test_far_better_than_a_watershed(truth):
    observation = observed(truth)
    ours = errors(whole(ProfileFit()(observation, POSITIONS).templates, observation.shape), truth)
    theirs = errors(whole(Watershed()(observation, POSITIONS).templates, observation.shape), truth)
    assert np.median(ours) < 0.4 * np.median(theirs)


def test_centres_that_are_off_are_found(truth):
    off = POSITIONS + np.array([(0.5, -0.4), (-0.5, 0.3), (0.3, 0.5)])
    models, _ = fit_blend(observed(truth), off)
    assert np.median(errors(models, truth)) < 0.05


def test_variances_grow_with_blending(truth):
    near, far = np.array([(20.0, 22.0), (22.0, 22.0)]), np.array([(12.0, 22.0), (36.0, 22.0)])
    sharing = []
    for xy in (near, far):
        scene = np.stack([500 * galaxy(x, y, 2.0, 1.0, 0.9, 0.0) for x, y in xy])
        templates = ProfileFit()(observed(scene), xy).templates
        assert all(t.flux_variance.shape == (2,) for t in templates)
        sharing.append(np.mean([t.flux_variance for t in templates]))
    assert sharing[0] > 100 * sharing[1]


def test_order_of_positions_changes_no_bit(truth):
    observation = observed(truth)
    models, variance = fit_blend(observation, POSITIONS)
    order = [2, 0, 1]
    again, variance_again = fit_blend(observation, POSITIONS[order])
    assert np.array_equal(again, models[order])
    assert np.array_equal(variance_again, variance[order])


def test_whole_pixel_shifts_shift_the_models(truth):
    observation = observed(truth)
    rolled = Observation(np.roll(observation.data, (2, -3), (1, 2)), variance=observation.variance, psf=PSF)
    models, _ = fit_blend(observation, POSITIONS)
    again, _ = fit_blend(rolled, POSITIONS + (-3, 2))
    inner = (slice(None), slice(None), slice(6, -6), slice(6, -6))
    assert np.abs(np.roll(models, (2, -3), (2, 3)) - again)[inner].max() < 0.02 * models.max()


def test_scale(truth):
    observation = observed(truth)
    models, variance = fit_blend(observation, POSITIONS)
    scaled = observation.replace(data=observation.data * 1e-6, variance=observation.variance * 1e-12)
    again, variance_again = fit_blend(scaled, POSITIONS)
    assert np.abs(again * 1e6 - models).max() < 1e-3 * models.max()
    assert np.allclose(variance_again * 1e12, variance, rtol=0.05)


def test_masked_pixels_are_not_read(truth):
    observation = observed(truth)
    data, valid = observation.data.copy(), np.ones(observation.shape, bool)
    valid[:, 20:24, 17:20] = False
    valid[0, 29, 24] = False
    one = Observation(data, valid=valid, variance=observation.variance, psf=PSF)
    data[~valid] = 1e5
    other = Observation(data, valid=valid, variance=observation.variance, psf=PSF)
    a, b = fit_blend(one, POSITIONS)[0], fit_blend(other, POSITIONS)[0]
    assert np.array_equal(a, b)
    assert np.median(errors(a, truth)) < 0.06


@pytest.mark.parametrize(
    "positions",
    [
        [(0.0, 0.0), (47.4, 43.4)],
        [(20.0, 20.0), (20.3, 20.0)],
        [(20.0, 20.0), (20.001, 20.0), (20.002, 20.0)],
        [(30.0, 8.0)],
    ],
)
def test_hostile_positions(truth, positions):
    models, variance = fit_blend(observed(truth), positions)
    assert np.isfinite(models).all()
    assert (models >= 0).all()
    assert np.isfinite(variance).all()
    assert (variance > 0).all()


def test_hostile_images(truth):
    observation = observed(truth)
    nothing = observation.replace(data=np.zeros(observation.shape))
    below = observation.replace(data=-np.abs(observation.data))
    blind = observation.replace(valid=np.zeros(observation.shape, bool))
    one_band = observation.replace(valid=np.stack([np.ones(SHAPE, bool), np.zeros(SHAPE, bool)]))
    sharp = observation.replace(psf=np.ones((2, 1, 1)))
    for hostile in (nothing, below, blind, one_band, sharp, observation.replace(variance=None)):
        models, variance = fit_blend(hostile, POSITIONS)
        assert np.isfinite(models).all()
        assert (models >= 0).all()
        assert np.isfinite(variance).all()


def test_every_labelled_pixel_has_an_owner(truth):
    observation = observed(truth)
    labels = np.zeros(SHAPE, np.int32)
    labels[:, :24], labels[:, 24:] = 1, 2
    order = np.lexsort((POSITIONS[:2, 0], POSITIONS[:2, 1]))
    blend = Blend(observation, POSITIONS[:2][order], labels)
    total = whole(ProfileFit().separate(blend, rng=None), observation.shape).sum(axis=0)
    assert (total > 0).all()


def test_no_sources(truth):
    observation = observed(truth)
    assert fit_blend(observation, np.empty((0, 2)))[0].shape == (0, *observation.shape)
    empty = observation.replace(data=np.random.default_rng(3).normal(0, 0.01, observation.shape))
    assert ProfileFit()(empty).templates == ()


def test_one_profile_is_an_option(truth):
    observation = observed(truth)
    assert not np.array_equal(
        fit_blend(observation, POSITIONS, options=Options(two_from=np.inf))[0], fit_blend(observation, POSITIONS)[0]
    )
    assert ProfileFit(profiles=1).options.two_from == np.inf


def test_a_psf_is_needed(truth):
    observation = observed(truth).replace(psf=None)
    for call in (lambda: ProfileFit()(observation, POSITIONS), lambda: fit_blend(observation, POSITIONS)):
        with pytest.raises(PSFError, match="give psf="):
            call()


@pytest.mark.parametrize(
    "options", [{"profiles": 3}, {"model_error": -1}, {"position_error": 0}, {"iterations": 0}, {"threshold": 0}]
)
def test_options_out_of_range(options):
    with pytest.raises(InputError, match=next(iter(options))):
        ProfileFit(**options)


def test_contract():
    check_backend(SPEC)


@pytest.mark.data
@pytest.mark.parametrize(("name", "most"), [("matched", 0.15), ("unmatched", 0.20)])
def test_simulated_survey_blends(data_dir, name, most):
    """Every source of two published blends whose parts are known, with one configuration."""
    with np.load(data_dir / "hsc_hst_scarlet" / f"psf_{name}_sim.npz", allow_pickle=True) as file:
        images, psf, bands, catalog = (file[k] for k in ("images", "psfs", "filters", "catalog"))
    parts = np.array([[row[f"intensity_{b}"] for b in bands] for row in catalog], np.float64)
    xy = np.stack([catalog["x"], catalog["y"]], axis=1)
    positions, source = np.unique(xy, axis=0, return_inverse=True)
    truth = np.zeros((len(positions), *images.shape))
    np.add.at(truth, source.ravel(), parts)
    light = truth.sum(axis=0)
    noise = [(i - t)[t < np.percentile(t, 30)].var() for i, t in zip(images, light, strict=True)]
    psf = np.maximum(psf, 0)
    observation = Observation(
        images,
        variance=np.broadcast_to(np.array(noise)[:, None, None], images.shape),
        psf=psf / psf.sum(axis=(1, 2), keepdims=True),
    )
    models, _ = fit_blend(observation, positions)
    assert errors(models, truth).mean() < most
    assert np.median(cosines(models, truth)) > 0.97
