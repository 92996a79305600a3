"""Noise learned from images and drawn again: levels, correlations, bands, light, masks, and other pixels."""

import pickle

import numpy as np
import pytest
from astropy.wcs import WCS

from astrogan.api import sample_noise
from astrogan.backends.classic._amplitudes import Amplitudes
from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.backends.classic.galsim_noise import GalSimNoise
from astrogan.backends.classic.physical_degrader import PhysicalDegrader
from astrogan.backends.classic.white_noise import WhiteNoise
from astrogan.bench.noise import known_noise
from astrogan.exceptions import InputError
from astrogan.metrics import compare_noise, noise_statistics

SHAPE = (5, 64, 64)


def draws(model, number, seed, light=None):
    rng = np.random.default_rng(seed)
    return np.stack([model.sample(SHAPE, signal=light, rng=rng) for _ in range(number)])


@pytest.fixture(scope="module")
def skies():
    """To fit to, to compare with, and once more."""
    return [draws(known_noise(), number, seed) for number, seed in ((200, 0), (150, 1), (150, 2))]


@pytest.mark.parametrize("cls", [CorrelatedNoise, GalSimNoise])
def test_noise_is_what_it_was_fitted_to(cls, skies):
    made = draws(cls.fit(skies[0]), 150, 3)
    floor, found = (compare_noise(noise_statistics(skies[1]), noise_statistics(other)) for other in (skies[2], made))
    # The mean distance of two samples of 150 of the same law is 0.1.
    assert found.ks_std.mean() < 2 * min(floor.ks_std.mean(), 0.1)
    assert np.abs(found.autocorrelation).max() < 0.015
    assert np.abs(found.correlation).max() < 0.015
    assert np.abs(found.amplitude_correlation).max() < 0.2


def test_variance_grows_with_the_light_as_it_did():
    truth = known_noise()
    y, x = np.mgrid[:64, :64] - 31.5
    light = 300 * np.exp(-(x**2 + y**2) / 40) * truth.sigma[:, None, None]
    images = draws(truth, 120, 4, light) + light
    fitted = CorrelatedNoise.fit(images, signal=np.broadcast_to(light, images.shape))
    np.testing.assert_allclose(fitted.signal_slope, truth.signal_slope, rtol=0.05)
    np.testing.assert_allclose(fitted.amplitudes.scatter, 0.15, atol=0.03)
    np.testing.assert_allclose(fitted.autocorrelation(3), truth.autocorrelation(3), atol=0.02)
    again = draws(fitted, 120, 5, light)
    core = light[0] > 100 * truth.sigma[0]
    np.testing.assert_allclose(again[:, 0, core].var(), (images - light)[:, 0, core].var(), rtol=0.1)


@pytest.mark.parametrize("unit", [1e-20, 1e20])
def test_any_unit_of_flux_will_do(unit, rng):
    truth = CorrelatedNoise(np.ones((3, 3)), signal_slope=0.5)
    light = np.broadcast_to(np.linspace(0, 30, 40), (10, 1, 40, 40))
    images = light + np.stack([truth.sample((1, 40, 40), signal=light[0], rng=rng) for _ in range(10)])
    one, other = (CorrelatedNoise.fit(images * f, signal=light * f) for f in (1, unit))
    np.testing.assert_allclose(other.kernel, one.kernel, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other.sigma, one.sigma * unit, rtol=1e-6)
    np.testing.assert_allclose(other.signal_slope, one.signal_slope * unit, rtol=1e-6)
    fields = [
        m.sample((1, 40, 40), signal=light[0] * f, rng=np.random.default_rng(1)) / f
        for m, f in ((one, 1), (other, unit))
    ]
    np.testing.assert_allclose(fields[1], fields[0], rtol=1e-4, atol=1e-4)


def test_masked_sources_do_not_count(rng):
    truth = CorrelatedNoise(np.ones((3, 3)))
    images = np.stack([truth.sample((2, 48, 48), sigma=[1, 3], rng=rng) for _ in range(30)])
    mask = np.zeros(images.shape, bool)
    mask[:, :, 15:30, 15:30] = True
    hit = images.copy()
    hit[mask] = 500
    clean, found = CorrelatedNoise.fit(images), CorrelatedNoise.fit(hit, mask)
    np.testing.assert_allclose(found.sigma, clean.sigma, rtol=0.03)
    np.testing.assert_allclose(found.autocorrelation(2), clean.autocorrelation(2), atol=0.02)
    assert (images == hit)[~mask].all()


def test_requested_levels_replace_the_learned_ones(skies, rng):
    fitted = CorrelatedNoise.fit(skies[0])
    flat = fitted.sample(SHAPE, sigma=[1, 2, 3, 4, 5], rng=rng)
    np.testing.assert_allclose(flat.std(axis=(1, 2)), [1, 2, 3, 4, 5], rtol=0.06)
    weights = np.ones(SHAPE)
    weights[:, :, 32:] = 10
    mapped = fitted.sample(SHAPE, sigma=weights, rng=rng)
    np.testing.assert_allclose(mapped[:, :, 32:].std() / mapped[:, :, :32].std(), 10, rtol=0.05)


def test_levels_of_the_bands_go_together(skies):
    law = CorrelatedNoise.fit(skies[0]).amplitudes
    assert law.table is None
    np.testing.assert_allclose(law.correlation[np.triu_indices(5, 1)], 0.6, atol=0.13)
    drawn = np.log([law.draw(5, rng) for rng in map(np.random.default_rng, range(2000))])
    np.testing.assert_allclose(np.corrcoef(drawn.T), law.correlation, atol=0.06)


def test_scatter_of_measuring_is_no_scatter_of_levels(rng):
    """On few pixels of equal noise the measured levels scatter; none of that is drawn again."""
    law = CorrelatedNoise.fit(CorrelatedNoise().sample((300, 24, 24), rng=rng)).amplitudes
    assert law.scatter[0] < 0.015


def test_a_law_that_is_not_log_normal_is_tabulated(rng):
    levels = np.where(rng.random(400) < 0.3, 3.0, 1.0) * np.exp(0.02 * rng.normal(size=400))
    law = Amplitudes.fit(levels[:, None], np.zeros((1, 1)))
    assert law.table is not None
    drawn = law.draw(5000, rng)
    assert np.mean(drawn > 2) == pytest.approx(np.mean(levels > 2), abs=0.02)
    assert np.mean((drawn > 1.2) & (drawn < 2.5)) < 0.01
    assert Amplitudes.fit(np.exp(0.2 * rng.normal(size=(400, 1))), np.zeros((1, 1))).table is None
    assert Amplitudes.fit(levels[:1, None], np.zeros((1, 1))) is None


def test_white_noise_fits_levels_and_bands(skies, rng):
    fitted = WhiteNoise.fit(skies[0])
    assert np.abs(fitted.band_correlation[0, 1] - 0.29) < 0.03
    again = pickle.loads(pickle.dumps(fitted))
    one, two = (m.sample(SHAPE, rng=np.random.default_rng(1)) for m in (fitted, again))
    assert np.array_equal(one, two)


# ---- other pixels ------------------------------------------------------------------------------------------------


def sky(scale, angle=0.0, mirrored=False, size=400):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (40, 60), (size / 2, size / 2)
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.cd = scale / 3600 * np.array([[-c, s], [s, c]]) * ([-1, 1] if mirrored else [1, 1])
    return wcs


def neighbours(field):
    """Correlation along x, along y, and along both diagonals."""
    pairs = (field[:, 1:], field[:, :-1]), (field[1:], field[:-1])
    pairs += (field[1:, 1:], field[:-1, :-1]), (field[1:, :-1], field[:-1, 1:])
    return np.array([(a * b).mean() for a, b in pairs]) / field.var()


STREAKS = CorrelatedNoise(np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]])).autocorrelation()


@pytest.mark.parametrize(
    ("wcs", "expected"),
    [
        (None, (2 / 3, 0, 0, 0)),
        (sky(0.4), (2 / 3, 0, 0, 0)),
        (sky(0.4, 90), (0, 2 / 3, 0, 0)),
        (sky(0.2), (5 / 6, 1 / 2, 5 / 12, 5 / 12)),
        (sky(0.8), (1 / 3, 0, 0, 0)),
        (0.8, (1 / 3, 0, 0, 0)),
    ],
)
def test_correlations_are_on_the_sky(wcs, expected):
    noise = GalSimNoise(STREAKS, wcs=sky(0.4))
    field = noise.sample((1, 400, 400), wcs=wcs, rng=np.random.default_rng(0))[0]
    # The profile is interpolated linearly between lags, so that half a pixel is halfway.
    np.testing.assert_allclose(neighbours(field), expected, atol=0.02)
    assert field.std() == pytest.approx(1, abs=0.02)


def test_mirror_images_are_told_apart():
    noise = GalSimNoise(STREAKS, wcs=sky(0.4))
    turned, mirrored = (
        neighbours(noise.sample((1, 300, 300), wcs=sky(0.4, 45, flip), rng=np.random.default_rng(0))[0])
        for flip in (False, True)
    )
    assert abs(turned[2] - turned[3]) > 0.3
    np.testing.assert_allclose(turned[[2, 3]], mirrored[[3, 2]], atol=0.02)


def test_wcs_of_galsim_and_astropy_agree():
    import galsim

    wcs = sky(0.3, 30)
    ours, theirs = (GalSimNoise(wcs=w).jacobian for w in (wcs, galsim.AstropyWCS(wcs=wcs)))
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
    np.testing.assert_allclose(GalSimNoise(wcs=0.3).jacobian, GalSimNoise(wcs=sky(0.3)).jacobian, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GalSimNoise(np.ones((2, 2))), "k odd"),
        (lambda: GalSimNoise(np.arange(9.0).reshape(3, 3)), "point-symmetric"),
        (lambda: GalSimNoise(wcs=-1), "positive number of arcsec"),
        (lambda: GalSimNoise(wcs=WCS(naxis=1)), "no celestial axes"),
        (lambda: CorrelatedNoise(band_correlation=[[1, 2], [2, 1]]), "negative eigenvalue"),
        (lambda: CorrelatedNoise(signal_slope=-1), "signal_slope=-1"),
        (lambda: CorrelatedNoise.fit(np.zeros((3, 20, 20)), signal=np.zeros((20, 20))), "signal has shape"),
        (
            lambda: WhiteNoise(signal_slope=1).sample((1, 9, 9), signal=np.ones((9, 9)), rng=np.random.default_rng(0)),
            "signal has shape",
        ),
        (lambda: WhiteNoise.fit(np.ones((9, 9)), law="gamma"), "constant|law='gamma'"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(InputError, match=message):
        call()


# ---- users of the interface --------------------------------------------------------------------------------------


def test_older_backends_get_what_they_take(rng):
    class Old:
        def sample(self, shape, *, sigma=1.0, rng):
            return np.full(shape, sigma, np.float64)

    class Open:
        def sample(self, shape, *, rng, **given):
            return np.full(shape, len(given), np.float32)

    light = np.ones((1, 4, 4))
    out = sample_noise(Old(), (1, 4, 4), signal=light, wcs="any", rng=rng)
    assert out.dtype == np.float32
    assert (out == 1).all()
    assert (sample_noise(Old(), (1, 4, 4), sigma=3, rng=rng) == 3).all()
    assert (sample_noise(Open(), (1, 4, 4), sigma=3, signal=light, rng=rng) == 2).all()


def test_degrader_draws_levels_and_photon_noise(rng):
    """Without a level the learned one is drawn for each stamp; the variance says what was added."""
    law = Amplitudes(np.log([2.0]), np.array([0.3]), np.eye(1))
    noise = WhiteNoise(signal_slope=4.0, amplitudes=law)
    degrade = PhysicalDegrader(noise=noise, noise_unit=2.0, noiseless_input=True)
    dark = degrade.batch(np.zeros((60, 1, 40, 40)), rng=rng)
    levels = np.log(dark.std(axis=(1, 2, 3)))
    assert levels.mean() == pytest.approx(0.0, abs=0.15)
    assert levels.std() == pytest.approx(0.3, abs=0.1)
    from astrogan.api import Observation

    lit = degrade(Observation(np.full((1, 200, 200), 50.0)), rng=rng)
    assert lit.data.var() == pytest.approx(lit.variance.mean(), rel=0.03)
    assert lit.variance.mean() == pytest.approx(100, rel=0.05)
    # A gain is the same photon noise, and the backend's is left out.
    counted = PhysicalDegrader(noise=noise, noise_unit=2.0, gain=0.5, noiseless_input=True)
    assert counted(Observation(np.full((1, 200, 200), 50.0)), rng=rng).variance.mean() == pytest.approx(100, rel=0.05)
