from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from astrogan.api import Observation
from astrogan.backends.classic._fourier import profile_width
from astrogan.backends.classic.blind_richardson_lucy import BlindRichardsonLucy
from astrogan.backends.classic.richardson_lucy import RichardsonLucy
from astrogan.exceptions import InputError
from astrogan.image.tiling import run_tiled


def gaussian(fwhm, size=25):
    offset = np.arange(size) - size // 2
    profile = np.exp(-4 * np.log(2) * (offset / fwhm) ** 2)
    kernel = np.outer(profile, profile)
    return kernel / kernel.sum()


def starry(psf, shape=(140, 150), seed=0, noise=1.0, n=60):
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape)
    y, x = (rng.integers(15, size - 15, n) for size in shape)
    truth[y, x] = 500 * 10 ** rng.uniform(0, 1.3, n)
    data = fftconvolve(truth, psf, mode="same") + noise * rng.standard_normal(shape)
    return Observation(data[None], variance=np.full((1, *shape), max(noise, 1e-6) ** 2))


def restore(observation, **options):
    return BlindRichardsonLucy(**options)(observation, rng=np.random.default_rng(0))


@pytest.mark.parametrize("fwhm", [2.5, 3.5, 5.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_psf_of_a_star_field_is_found(fwhm, seed):
    psf = gaussian(fwhm)
    estimate = restore(starry(psf, seed=seed))
    assert estimate.info["psf_fwhm"] == pytest.approx(profile_width(psf[None]), rel=0.12)
    assert estimate.info["iterations"] == 10


@pytest.mark.parametrize("initial", [4.0, 6.0])
def test_the_estimate_comes_nearer_than_the_guess(initial):
    observation = starry(gaussian(3.5))
    found = restore(observation, initial_fwhm=initial).info["psf_fwhm"]
    assert abs(found - 3.5) < 0.6 * abs(initial - 3.5)
    kept = restore(observation, initial_fwhm=initial, psf_iterations=0).info["psf_fwhm"]
    assert kept == pytest.approx(initial, rel=0.03)


def test_a_given_psf_is_where_it_starts():
    psf = gaussian(3.5)
    observation = starry(psf).replace(psf=psf[None])
    result = restore(observation, psf_iterations=0)
    same = RichardsonLucy(iterations=10)(observation, rng=np.random.default_rng(0))
    assert np.array_equal(result.data, same.data)
    assert result.info["psf_fwhm"] == pytest.approx(3.5, rel=0.02)
    assert restore(observation).info["psf_fwhm"] == pytest.approx(3.5, rel=0.1)
    wider = observation.replace(psf=gaussian(4.2)[None])
    assert 3.3 < restore(wider).info["psf_fwhm"] < 3.9


def test_the_psf_is_symmetric_normalised_and_positive():
    settled = BlindRichardsonLucy().for_image(starry(gaussian(3.5)))
    psf = settled._psf
    assert psf.sum() == pytest.approx(1, abs=1e-5)
    assert (psf >= 0).all()
    assert np.allclose(psf, psf[:, ::-1, ::-1])
    assert psf.shape[1] % 2 == 1


def test_flux_and_positions_stay():
    observation = starry(gaussian(3.5), n=12)
    result = restore(observation).data[0].astype(float)
    data = observation.data[0].astype(float)
    assert result.sum() == pytest.approx(data.sum(), rel=0.01)
    assert result.min() > -5
    psf = gaussian(3.5)
    single = np.pad([[1e4]], 40)
    star = Observation(fftconvolve(single, psf, mode="same")[None])
    result = restore(star).data[0].astype(float)
    y, x = np.mgrid[:81, :81]
    assert (result * y).sum() / result.sum() == pytest.approx(40, abs=0.01)
    assert (result * x).sum() / result.sum() == pytest.approx(40, abs=0.01)
    assert result.max() > 1.5 * star.data.max()


def test_tiles_equal_the_whole_image():
    observation = starry(gaussian(3.0), (150, 260))
    backend = BlindRichardsonLucy()
    whole = restore(observation)
    tiled = run_tiled(backend, observation, rng=np.random.default_rng(0), tile=130, workers=2)
    assert np.abs(tiled.data - whole.data).max() < 1e-5 * whole.data.max()
    assert tiled.info == whole.info
    assert backend.halo == -1


def test_of_a_large_image_the_brightest_part_counts():
    psf = gaussian(3.5)
    part = starry(psf, (160, 160), n=80)
    data = np.random.default_rng(9).standard_normal((1, 200, 700))
    data[:, 20:180, 520:680] = part.data
    found = restore(Observation(data)).info["psf_fwhm"]
    assert found == pytest.approx(profile_width(psf[None]), rel=0.12)


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_constant_images_are_fixed_points(value):
    result = restore(Observation(np.full((1, 40, 31), value)))
    assert np.abs(result.data - value).max() <= 1e-3 * abs(value)


def test_pure_noise_is_survived():
    rng = np.random.default_rng(0)
    estimate = restore(Observation(rng.normal(size=(1, 80, 80))))
    assert estimate.info["psf_fwhm"] == pytest.approx(3.9, rel=0.05)
    assert estimate.data.min() > -5


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_flux_scales(scale):
    observation = starry(gaussian(3.0), (90, 90), n=15)
    scaled = observation.replace(data=observation.data * scale, variance=observation.variance * scale**2)
    result = restore(observation).data
    assert np.allclose(restore(scaled).data / scale, result, atol=1e-3 * result.max())


def test_values_under_the_mask_change_no_bit():
    observation = starry(gaussian(3.0), (90, 90), n=15)
    valid = np.ones(observation.shape, bool)
    valid[0, 30:34, 40:60] = valid[0, :, 70] = False
    results = []
    for fill in (0.0, 1e30, -40.0):
        filled = np.where(valid, observation.data, fill)
        results.append(restore(observation.replace(data=filled, valid=valid)))
    for other in results[1:]:
        assert np.array_equal(results[0].data[valid], other.data[valid])
        assert results[0].info == other.info


def test_bands_have_their_own_psf():
    first, second = (starry(gaussian(fwhm), (110, 110), n=25) for fwhm in (2.5, 4.5))
    both = Observation(np.concatenate([first.data, second.data]), bands=("g", "r"))
    estimate = restore(both)
    assert estimate.info["psf_fwhm_g"] < 3.0 < 4.0 < estimate.info["psf_fwhm_r"]


@settings(max_examples=25)
@given(st.tuples(st.integers(1, 70), st.integers(1, 70)), st.integers(0, 9))
def test_any_size(shape, seed):
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(1, *shape))
    data[0, shape[0] // 2, shape[1] // 2] += 300
    result = restore(Observation(data), iterations=3, psf_iterations=2).data
    assert result.shape == data.shape
    assert np.isfinite(result).all()


def test_threads_equal_serial():
    images = [starry(gaussian(3.0), (60, 60), seed=i, n=8) for i in range(4)]
    backend = BlindRichardsonLucy(iterations=4, psf_iterations=2)
    serial = [backend(image, rng=np.random.default_rng(0)).data for image in images]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda image: backend(image, rng=np.random.default_rng(0)).data, images * 2))
    for i, result in enumerate(threaded):
        assert np.array_equal(result, serial[i % 4])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"iterations": -1}, "iterations=-1"),
        ({"psf_iterations": -1}, "psf_iterations=-1"),
        ({"initial_fwhm": 0}, "initial_fwhm=0"),
        ({"psf_size": 8}, "psf_size=8"),
        ({"background": "dark"}, "background='dark'"),
    ],
)
def test_wrong_options_are_refused(options, word):
    with pytest.raises(InputError, match=word):
        BlindRichardsonLucy(**options)
