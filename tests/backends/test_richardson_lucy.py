from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from astrogan.api import Observation
from astrogan.backends.classic._cache import Cache
from astrogan.backends.classic._fourier import (
    Blur,
    effective_radius,
    good_size,
    profile_width,
    transfer_function,
    trimmed,
)
from astrogan.backends.classic._richardson_lucy_field import _domains
from astrogan.backends.classic.richardson_lucy import RichardsonLucy, halo_width, measure_sky
from astrogan.exceptions import InputError, PSFError
from astrogan.image.tiling import run_tiled


def gaussian(fwhm, size):
    offset = np.arange(size) - size // 2
    profile = np.exp(-4 * np.log(2) * (offset / fwhm) ** 2)
    kernel = np.outer(profile, profile)
    return kernel / kernel.sum()


def moffat(fwhm, size, beta=3.0):
    offset = np.arange(size) - size // 2
    scale = 0.5 * fwhm / np.sqrt(2 ** (1 / beta) - 1)
    kernel = (1 + (offset[:, None] ** 2 + offset**2) / scale**2) ** -beta
    return kernel / kernel.sum()


def lopsided(size=7):
    kernel = gaussian(3, size)
    kernel *= np.linspace(0.2, 1.8, size)
    kernel[0] *= 3
    return kernel / kernel.sum()


def field(shape=(96, 110), psf=None, seed=0, noise=1.0, brightest=3000.0, margin=0):
    """Stars and noise on a sky of zero; sources stay ``margin`` pixels inside the border."""
    rng = np.random.default_rng(seed)
    psf = moffat(3.5, 21) if psf is None else psf
    truth = np.zeros(shape)
    n = max(shape[0] * shape[1] // 400, 1)
    y, x = (rng.integers(margin, max(size - margin, margin + 1), n) for size in shape)
    truth[y, x] = np.minimum(100 * rng.pareto(1.0, n), brightest) + 50
    data = fftconvolve(truth, psf, mode="same") + noise * rng.standard_normal(shape)
    return Observation(data[None], psf=psf[None]), truth


def restore(observation, seed=0, **options):
    return RichardsonLucy(**options)(observation, rng=np.random.default_rng(seed))


def tiled(backend, observation, **options):
    return run_tiled(backend, observation, rng=np.random.default_rng(0), **options)


def dense(data, weight, psf, iterations, margin):
    """The iteration with matrices, in double precision, on a domain ``margin`` pixels wider than the data."""
    (ny, nx), half = data.shape, len(psf) // 2
    rows, columns = ny + 2 * margin, nx + 2 * margin
    matrix = np.zeros((ny, nx, rows, columns))
    for y in range(ny):
        for x in range(nx):
            for j in range(rows):
                for i in range(columns):
                    dy, dx = y + margin - j + half, x + margin - i + half
                    if 0 <= dy < len(psf) and 0 <= dx < len(psf):
                        matrix[y, x, j, i] = psf[dy, dx]
    matrix = matrix.reshape(ny * nx, rows * columns)
    d, w = data.ravel().astype(float), weight.ravel().astype(float)
    seen = matrix.T @ w > 1e-3
    matrix = matrix[:, seen]
    reach = matrix.sum(axis=1)
    exposure = matrix.T @ (w / reach)
    estimate = np.ones(seen.sum())
    for k in range(iterations):
        model = reach if k == 0 else matrix @ estimate
        estimate = estimate * (matrix.T @ (w * d / model)) / exposure
    out = np.zeros(rows * columns)
    out[seen] = estimate
    return out.reshape(rows, columns)[margin : margin + ny, margin : margin + nx]


# ---- the iteration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [1, 2, 12])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_iteration_with_matrices(iterations, masked):
    rng = np.random.default_rng(1)
    psf = lopsided(5)
    data = rng.random((13, 16)) * 10 + 0.5
    valid = np.ones(data.shape, bool)
    if masked:
        valid[3:5, 6:9] = False
        valid[10, 0] = False
    observation = Observation(data[None], valid=valid[None], psf=psf[None])
    result = restore(observation, iterations=iterations, background=None).data[0]
    margin = effective_radius(psf[None], 5e-3)
    expected = dense(observation.data[0], valid, observation.psf[0], iterations, margin)
    assert np.allclose(result, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("psf", [gaussian(3, 15), lopsided()], ids=["gaussian", "lopsided"])
def test_equals_scikit_image_inside_a_padded_image(psf):
    from skimage.restoration import richardson_lucy

    truth = np.full((64, 60), 1e-6)
    truth[30, 28], truth[33, 35], truth[25:28, 30:34] = 50, 20, 5
    data = np.maximum(fftconvolve(truth, psf, mode="same"), 1e-6)
    theirs = richardson_lucy(data, psf, num_iter=15, clip=False)
    ours = restore(Observation(data[None], psf=psf[None]), iterations=15, background=None).data[0]
    assert np.abs(ours - theirs)[12:-12, 12:-12].max() < 2e-5 * theirs.max()


def test_a_background_is_added_and_taken_off():
    observation, _ = field()
    lifted = observation.replace(data=observation.data + 40)
    low = restore(observation, background=50.0)
    high = restore(lifted, background=10.0)
    assert np.allclose(low.data + 40, high.data, atol=2e-3)
    assert low.info == {"background": 50.0, "iterations": 30}


def test_bands_are_restored_each_with_its_own_psf():
    first, _ = field(seed=1)
    second, _ = field(seed=2, psf=gaussian(5, 21))
    both = Observation(
        np.concatenate([first.data, second.data]), psf=np.concatenate([first.psf, second.psf]), bands=("g", "r")
    )
    estimate = restore(both)
    assert np.array_equal(estimate.data[0], restore(first).data[0])
    assert np.array_equal(estimate.data[1], restore(second).data[0])
    assert set(estimate.info) == {"background_g", "background_r", "iterations_g", "iterations_r"}


def test_it_sharpens():
    observation, truth = field(margin=12)
    result = restore(observation, iterations=60).data[0]
    y, x = np.unravel_index(truth.argmax(), truth.shape)
    assert result[y, x] > 4 * observation.data[0, y, x]


def test_noise_free_deconvolution_converges_to_the_truth():
    psf = gaussian(2.0, 11)
    y, x = np.mgrid[:64, :64]
    truth = 100 * np.exp(-((y - 30) ** 2 + (x - 33) ** 2) / 30)
    data = fftconvolve(truth, psf, mode="same")
    result = restore(Observation(data[None], psf=psf[None]), iterations=200).data[0]
    assert np.abs(result - truth).max() < 0.01 * truth.max()


@pytest.mark.parametrize(("iterations", "fewer"), [(10, 7), (30, 13), (60, 19), (100, 25)])
def test_momentum_reaches_the_likelihood_sooner(iterations, fewer):
    observation, _ = field(margin=12)

    def misfit(**options):
        estimate = restore(observation, background=5.0, **options).data[0].astype(float) + 5.0
        model = fftconvolve(estimate, observation.psf[0], mode="same")[15:-15, 15:-15]
        counts = np.maximum(observation.data[0] + 5, 0)[15:-15, 15:-15]
        return np.sum(model - counts * np.log(model))

    start, plain = misfit(iterations=1), misfit(iterations=iterations)
    assert start - misfit(iterations=fewer, acceleration="nesterov") > 0.98 * (start - plain)
    assert misfit(iterations=fewer, acceleration="nesterov") < misfit(iterations=fewer)


# ---- what makes it safe on the sky --------------------------------------------------------------------------------


@pytest.mark.parametrize("acceleration", [None, "nesterov"])
@pytest.mark.parametrize("value", [0.0, 3.5, -7.0, 1e5])
@pytest.mark.parametrize("background", ["auto", None])
@pytest.mark.parametrize("with_variance", [False, True])
def test_constant_images_stay(value, acceleration, background, with_variance):
    data = np.full((1, 40, 53), value)
    variance = np.ones(data.shape) if with_variance else None
    observation = Observation(data, variance=variance, psf=moffat(4, 31)[None])
    result = restore(observation, background=background, acceleration=acceleration).data
    assert np.array_equal(result, observation.data)


@pytest.mark.parametrize("acceleration", [None, "nesterov"])
@pytest.mark.parametrize("value", [0.0, 3.5, -7.0, 1e5])
@pytest.mark.parametrize("psf", [moffat(4, 31), gaussian(2, 9), lopsided()], ids=["moffat", "gaussian", "lopsided"])
def test_a_constant_is_a_fixed_point_of_the_iteration(value, psf, acceleration):
    data = np.full((1, 40, 53), value)
    data[0, 20, 20] += 1e-6 * max(abs(value), 10)  # or nothing would be done
    observation = Observation(data, variance=np.ones(data.shape), psf=psf[None])
    result = restore(observation, acceleration=acceleration).data
    assert not np.array_equal(result, observation.data)
    assert np.abs(result - value).max() <= 1e-3 * max(abs(value), 3)
    assert np.abs(result[:, 5:-5, 5:-5] - value).max() <= 2e-4 * max(abs(value), 3)


def test_what_lies_below_the_background_is_carried_over():
    observation = Observation(np.full((1, 20, 20), -7.0), psf=gaussian(3, 9)[None])
    assert np.array_equal(restore(observation, background=None).data, observation.data)


@pytest.mark.parametrize("with_variance", [False, True])
@pytest.mark.parametrize(("iterations", "acceleration"), [(30, None), (100, None), (13, "nesterov"), (30, "nesterov")])
def test_negative_sky(with_variance, acceleration, iterations):
    observation, _ = field((128, 128), margin=24, seed=5)
    if with_variance:
        observation = observation.replace(variance=np.ones(observation.shape))
    assert observation.data.min() < -3
    result = restore(observation, iterations=iterations, acceleration=acceleration).data
    assert result.min() > -5
    assert result.min() >= observation.data.min() - 1e-3
    assert result.sum() == pytest.approx(observation.data.sum(), rel=0.01)


def test_oversubtracted_sky():
    observation, _ = field(margin=20)
    low = observation.replace(data=observation.data - 100)
    difference = restore(low).data + 100 - restore(observation).data
    assert np.abs(difference).max() < 1e-3 * restore(observation).data.max()


@pytest.mark.parametrize("acceleration", [None, "nesterov"])
def test_flux_is_conserved(acceleration):
    psf = moffat(3.5, 21)
    rng = np.random.default_rng(3)
    truth = np.zeros((120, 120))
    truth[50:70, 50:70] = rng.random((20, 20)) * 50
    data = fftconvolve(truth, psf, mode="same")
    for noise in (0.0, 0.3):
        noisy = data + noise * rng.standard_normal(data.shape)
        noisy -= noise * (noisy - data).mean()
        observation = Observation(noisy[None], psf=psf[None])
        result = restore(observation, acceleration=acceleration).data
        assert result.sum(dtype=float) == pytest.approx(observation.data.sum(dtype=float), rel=1e-3 + 0.01 * noise)
        inner = np.s_[0, 35:85, 35:85]
        assert result[inner].sum(dtype=float) == pytest.approx(truth.sum(), rel=0.01)


def test_positions_do_not_move():
    psf = moffat(3.5, 25)
    y, x = np.mgrid[:61, :61]
    for cy, cx in ((30.0, 30.0), (30.3, 29.6)):
        star = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 4.0)
        observation = Observation(1e3 * fftconvolve(star, psf, mode="same")[None], psf=psf[None])
        result = restore(observation).data[0].astype(float)
        assert (result * y).sum() / result.sum() == pytest.approx(cy, abs=0.01)
        assert (result * x).sum() / result.sum() == pytest.approx(cx, abs=0.01)


def test_nothing_is_clipped():
    observation, _ = field()
    data = observation.data.copy()
    data[0, 10:31, 10:31] += 1e6 * observation.psf[0]
    data[0, 50, 50] = -4000.0
    result = restore(observation.replace(data=data)).data
    assert result[0, 20, 20] > 3 * data[0, 20, 20] > 1e5
    assert result[0, 50, 50] < -3900


@pytest.mark.parametrize("options", [{}, {"acceleration": "nesterov"}, {"uncertainty": "bootstrap", "samples": 2}])
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_flux_scales(scale, options):
    observation, _ = field()
    observation = observation.replace(variance=np.ones(observation.shape) + 0.01 * np.maximum(observation.data, 0))
    result = restore(observation, **options)
    scaled = observation.replace(data=observation.data * scale, variance=observation.variance * scale**2)
    other = restore(scaled, **options)
    assert np.allclose(other.data / scale, result.data, rtol=1e-4, atol=1e-4 * result.data.max())
    if result.variance is not None:
        assert np.allclose(other.variance / scale**2, result.variance, rtol=1e-3, atol=1e-3 * result.variance.max())


# ---- masks --------------------------------------------------------------------------------------------------------


def masked_pair(fill_first, fill_second):
    observation, _ = field(seed=7)
    valid = np.ones(observation.shape, bool)
    valid[0, 20:24, 30:40] = False
    valid[0, :, 70] = False
    valid[0, 0, 0] = valid[0, 60, 61] = False
    variance = 1 + 0.1 * np.maximum(observation.data, 0)
    return [
        Observation(
            np.where(valid, observation.data, fill),
            valid=valid,
            variance=np.where(valid, variance, value),
            psf=observation.psf,
        )
        for fill, value in ((fill_first, 1.0), (fill_second, 1e12))
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"acceleration": "nesterov"},
        {"background": None},
        {"weighting": None},
        {"stop": "chi2", "chi2": 1.5},
        {"uncertainty": "bootstrap", "samples": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("fill", [1e30, -1e30, 12.0])
def test_values_under_the_mask_change_no_bit(fill, options):
    first, second = masked_pair(0.0, fill)
    one, two = restore(first, **options), restore(second, **options)
    assert np.array_equal(one.data[first.valid], two.data[first.valid])
    assert one.info == two.info
    if one.variance is not None:
        assert np.array_equal(one.variance[first.valid], two.variance[first.valid])
    backend = RichardsonLucy(**options)
    one, two = (tiled(backend, o, tile=80, workers=2).data for o in (first, second))
    assert np.array_equal(one[first.valid], two[first.valid])


def test_a_mask_changes_little_far_from_it():
    whole, _ = field(seed=7)
    valid = np.ones(whole.shape, bool)
    valid[0, 40:43, 50:53] = False
    result = restore(whole).data
    masked = restore(whole.replace(valid=valid)).data
    difference = np.abs(masked - result)[0]
    far = np.ones(difference.shape, bool)
    halo = RichardsonLucy().halo_for(whole)
    far[max(41 - halo, 0) : 42 + halo, max(51 - halo, 0) : 52 + halo] = False
    assert difference[far].max() < 1e-5 * result.max()


def test_a_saturated_core_is_restored_from_its_wings():
    psf = moffat(4, 25)
    data = 1e5 * fftconvolve(np.pad([[1.0]], 40), psf, mode="same")
    valid = data < 0.5 * data.max()
    filled = np.where(valid, data, 0.5 * data.max())
    observation = Observation(filled[None], valid=valid[None], psf=psf[None])
    result = restore(observation, iterations=150).data[0]
    assert filled[35:46, 35:46].sum() < 0.82e5
    assert result[35:46, 35:46].sum() == pytest.approx(1e5, rel=0.08)


def test_deep_inside_a_mask_the_filling_stays():
    observation, _ = field()
    valid = np.ones(observation.shape, bool)
    valid[0, 20:80, 20:80] = False
    data = np.where(valid, observation.data, 5.0)
    result = restore(observation.replace(data=data, valid=valid)).data
    assert (result[0, 45:55, 45:55] == 5.0).all()
    assert np.isfinite(result).all()


def test_an_image_without_a_valid_pixel_stays_as_it_is():
    observation = Observation(np.full((1, 9, 9), 2.0), valid=np.zeros((1, 9, 9), bool), psf=gaussian(2, 5)[None])
    assert np.array_equal(restore(observation).data, observation.data)


# ---- weights, background, stopping, uncertainty -------------------------------------------------------------------


def test_even_noise_gives_even_weights():
    observation, _ = field()
    even = observation.replace(variance=np.ones(observation.shape))
    assert np.array_equal(restore(even).data, restore(even, weighting=None).data)


def test_poisson_noise_changes_the_flux_no_more_than_without_weights():
    rng = np.random.default_rng(2)
    psf = moffat(3.5, 21)
    truth = np.zeros((150, 150))
    truth[30:120:15, 30:120:15] = 3000
    sky, gain = 400.0, 1.0
    counts = rng.poisson(fftconvolve(truth, psf, mode="same") + sky) - sky
    observation = Observation(counts[None], variance=(counts + sky)[None] * gain, psf=psf[None])
    result = restore(observation).data
    assert result.sum(dtype=float) == pytest.approx(counts.sum(), rel=2e-3)


def test_a_noisy_region_weighs_less():
    psf = gaussian(4, 17)
    errors = {"variance": [], None: []}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        sigma = np.where(np.arange(90) < 60, 1.0, 8.0) * np.ones((80, 1))
        truth = np.zeros(sigma.shape)
        truth[10:70:10, 57] = 100.0
        data = fftconvolve(truth, psf, mode="same") + sigma * rng.standard_normal(sigma.shape)
        observation = Observation(data[None], variance=sigma[None] ** 2, psf=psf[None])
        for weighting, values in errors.items():
            result = restore(observation, weighting=weighting, background=40.0).data[0]
            smooth = fftconvolve(result - truth, gaussian(4, 9), mode="same")
            values.append(np.square(smooth[8:-8, 50:62]).mean())
    assert np.mean(errors["variance"]) < 0.85 * np.mean(errors[None])


def test_background_is_chosen_from_sky_and_noise():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((1, 200, 200))
    assert measure_sky(Observation(noise), 0).background == pytest.approx(3, rel=0.02)
    assert measure_sky(Observation(noise - 20), 0).background == pytest.approx(23, rel=0.02)
    assert measure_sky(Observation(noise + 50), 0).background == 0
    assert measure_sky(Observation(noise, variance=np.full(noise.shape, 4.0)), 0).background == pytest.approx(
        6, rel=0.02
    )
    assert measure_sky(Observation(np.zeros((1, 5, 5))), 0).background == 0


def test_background_follows_poisson_noise():
    rng = np.random.default_rng(0)
    # Four counts of sky a pixel: sigma is 2, and Poisson noise is right at a level of 4, two sigma.
    rate = np.where(rng.random((1, 200, 200)) < 0.05, 200.0, 4.0)
    data = rng.poisson(rate) - 4.0
    sky = measure_sky(Observation(data, variance=rate), 0)
    assert sky.level == pytest.approx(4.0, rel=0.1)


def test_large_images_are_sampled_in_every_column():
    data = np.zeros((1, 1024, 1024), np.float32)
    data[:, :, ::2] = 1.0
    data += np.linspace(0, 1e-3, 1024, dtype=np.float32)
    assert measure_sky(Observation(data), 0).variance > 0.1


def test_stopping_at_a_chi2():
    observation, _ = field()
    observation = observation.replace(variance=np.ones(observation.shape))
    backend = RichardsonLucy(iterations=200, stop="chi2", chi2=1.1)
    assert backend.halo == backend.halo_for(observation) == -1
    estimate = tiled(backend, observation, tile=50)
    done = estimate.info["iterations"]
    assert 2 < done < 200
    assert np.array_equal(estimate.data, restore(observation, iterations=done).data)

    def chi2(iterations):
        model = fftconvolve(restore(observation, iterations=iterations).data[0], observation.psf[0], mode="same")
        return np.mean(np.square(model - observation.data[0])[12:-12, 12:-12])

    assert chi2(1) > chi2(done)
    assert restore(observation, iterations=3, stop="chi2", chi2=1e-6).info["iterations"] == 3
    assert restore(observation, stop="chi2", chi2=1e9).info["iterations"] == 1


def test_uncertainty_is_none_unless_asked_for_and_then_right():
    psf = moffat(3.0, 15)
    _, truth = field((60, 60), psf=psf, margin=8)
    clean = fftconvolve(truth, psf, mode="same")
    rng = np.random.default_rng(8)
    variance = np.full((1, 60, 60), 4.0)
    runs = []
    for _ in range(60):
        observation = Observation(
            (clean + 2 * rng.standard_normal(clean.shape))[None], variance=variance, psf=psf[None]
        )
        runs.append(restore(observation, iterations=10, background=10.0).data[0])
    scatter = np.var(runs, axis=0)
    assert restore(observation).variance is None
    estimate = restore(observation, iterations=10, background=10.0, uncertainty="bootstrap", samples=40)
    assert np.median(estimate.variance[0] / scatter) == pytest.approx(1, abs=0.25)
    assert np.array_equal(estimate.data, restore(observation, iterations=10, background=10.0).data)
    again = restore(observation, iterations=10, background=10.0, uncertainty="bootstrap", samples=40)
    assert np.array_equal(again.variance, estimate.variance)
    other = restore(observation, seed=1, iterations=10, background=10.0, uncertainty="bootstrap", samples=40)
    assert not np.array_equal(other.variance, estimate.variance)


# ---- tiles, threads, sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("psf", "options"),
    [
        (moffat(4, 41), {}),
        (gaussian(2, 9), {}),
        (lopsided(), {"iterations": 60}),
        (gaussian(5, 25), {"iterations": 10}),
        (moffat(3, 25, beta=2.5), {"iterations": 13, "acceleration": "nesterov"}),
    ],
    ids=["moffat", "narrow", "lopsided", "wide", "nesterov"],
)
def test_tiles_equal_the_whole_image(psf, options):
    observation, _ = field((280, 333), psf=psf, seed=11)
    valid = np.ones(observation.shape, bool)
    valid[0, 100:110, 90:200] = False
    observation = observation.replace(valid=valid, variance=1 + 0.05 * np.maximum(observation.data, 0))
    backend = RichardsonLucy(**options)
    halo = backend.halo_for(observation)
    assert halo < 60
    whole = restore(observation, **options).data
    for tile in (2 * halo + 64, 2 * halo + 100):
        cut = tiled(backend, observation, tile=tile, workers=2).data
        assert np.abs(cut - whole)[valid].max() < 1e-5 * whole[valid].max()


def test_uneven_psfs_of_two_tiles_are_not_mixed():
    observation, _ = field((100, 300), seed=3)
    narrow, wide = gaussian(2, 21), gaussian(4, 21)

    def psf_at(x, y):
        return (narrow if x < 150 else wide)[None].astype(np.float32)

    out = tiled(RichardsonLucy(), observation, tile=200, psf_at=psf_at).data
    parts = [restore(observation.replace(psf=psf[None])).data for psf in (narrow, wide)]
    assert np.abs(out - parts[0])[:, :, :100].max() < 1e-4 * parts[0].max()
    assert np.abs(out - parts[1])[:, :, 200:].max() < 1e-4 * parts[1].max()


def test_halo_grows_with_psf_and_iterations():
    psfs = [gaussian(fwhm, 41)[None] for fwhm in (2, 4, 8)]
    assert sorted(halo_width(psf, 30) for psf in psfs) == [halo_width(psf, 30) for psf in psfs]
    halos = [halo_width(psfs[1], n) for n in (5, 10, 30, 100, 300)]
    assert halos == sorted(halos)
    assert halo_width(psfs[1], 13, "nesterov") > halo_width(psfs[1], 13)
    spike = gaussian(2, 41)
    spike[20, 0] = 0.01
    assert halo_width(spike[None] / spike.sum(), 30) >= 20


def test_the_same_every_time_whatever_the_workers():
    observation, _ = field((150, 170))
    backend = RichardsonLucy(iterations=5)
    results = [tiled(backend, observation, tile=90, workers=w).data for w in (1, 2, 4)]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_eight_threads_equal_serial():
    backend = RichardsonLucy(iterations=8)
    images = [field((70, 90), psf=moffat(2 + 0.2 * i, 15), seed=i)[0] for i in range(8)]
    serial = [restore(image, iterations=8).data for image in images]
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda image: backend(image, rng=np.random.default_rng(0)).data, images * 3))
    for i, result in enumerate(threaded):
        assert np.array_equal(result, serial[i % 8])
    assert torch.get_num_threads() == threads


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    size=st.sampled_from([1, 3, 9, 21]),
    iterations=st.integers(1, 6),
    acceleration=st.sampled_from([None, "nesterov"]),
    seed=st.integers(0, 99),
)
def test_any_size(shape, size, iterations, acceleration, seed):
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(1, *shape)) + 20 * (rng.random((1, *shape)) < 0.02)
    valid = rng.random(data.shape) < 0.95
    observation = Observation(data, valid=valid, psf=moffat(3, size)[None])
    result = restore(observation, iterations=iterations, acceleration=acceleration).data
    assert result.shape == data.shape
    assert np.isfinite(result).all()
    assert (result[valid].min() if valid.any() else 0) >= min(data.min(), -5) - 1e-3


def test_a_delta_psf_changes_nothing():
    observation, _ = field()
    delta = np.zeros((1, 5, 5))
    delta[0, 2, 2] = 1
    result = restore(observation.replace(psf=delta)).data
    assert np.abs(result - observation.data).max() < 1e-5 * observation.data.max()


def test_a_psf_with_negative_pixels_is_survived():
    psf = gaussian(3, 15) - 0.1 * gaussian(6, 15)
    observation, _ = field(psf=psf / psf.sum(), margin=20)
    result = restore(observation, iterations=50).data
    assert result.sum() == pytest.approx(observation.data.sum(), rel=0.02)
    assert result.min() > -5


def test_the_input_is_not_changed():
    observation, _ = field()
    data = observation.data.copy()
    restore(observation)
    assert np.array_equal(observation.data, data)


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"iterations": 0}, "iterations=0"),
        ({"iterations": 2.5}, "iterations=2.5"),
        ({"iterations": True}, "iterations=True"),
        ({"background": "sky"}, "background='sky'"),
        ({"background": np.nan}, "background=nan"),
        ({"acceleration": "fast"}, "acceleration='fast'"),
        ({"stop": "soon"}, "stop='soon'"),
        ({"chi2": 0}, "chi2=0"),
        ({"weighting": 1}, "weighting=1"),
        ({"uncertainty": "yes"}, "uncertainty='yes'"),
        ({"samples": -3}, "samples=-3"),
    ],
)
def test_wrong_options_are_refused(options, word):
    with pytest.raises(InputError, match=word):
        RichardsonLucy(**options)


def test_a_psf_is_needed():
    with pytest.raises(PSFError, match="psf"):
        restore(Observation(np.ones((1, 5, 5))))
    with pytest.raises(PSFError, match="psf"):
        tiled(RichardsonLucy(), Observation(np.ones((1, 5, 5))))


# ---- helpers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(32, 40), (45, 36), (11, 9)])
def test_blur_is_a_periodic_convolution_and_has_its_adjoint(packed, shape):
    rng = np.random.default_rng(0)
    kernel = lopsided()
    blur = Blur(kernel, shape, packed=packed)
    images = rng.random((2, *blur.image_shape), np.float32)
    first, second = (torch.from_numpy(image) for image in images)
    blurred = blur(first).numpy()
    one = images[0][..., 1] if packed else images[0]
    expected = sum(kernel[j, i] * np.roll(one, (j - 3, i - 3), axis=(0, 1)) for j in range(7) for i in range(7))
    assert np.allclose(blurred[..., 1] if packed else blurred, expected, atol=1e-5)
    assert float((blurred * images[1]).sum()) == pytest.approx(
        float((blur.adjoint(second).numpy() * images[0]).sum()), rel=1e-5
    )


def test_transfer_functions_are_cached_within_bounds():
    cache = Cache(100_000)
    kernel = gaussian(2, 5).astype(np.float32)
    first = transfer_function(kernel, (32, 32), packed=False, cache=cache)
    assert transfer_function(kernel.copy(), (32, 32), packed=False, cache=cache) is first
    assert transfer_function(kernel, (32, 32), packed=True, cache=cache) is not first
    for n in range(20, 60):
        transfer_function(kernel, (n, n), packed=False, cache=cache)
    assert cache._bytes <= 100_000
    assert cache._bytes == sum(8 * t.numel() for t, _ in cache._items.values())
    assert transfer_function(kernel, (32, 32), packed=False, cache=cache) is not first


def test_what_shapes_share_is_kept_but_not_for_images_with_holes():
    images = [field((40, 44), seed=seed)[0] for seed in range(2)]
    hole = np.pad(np.ones((1, 3, 3), bool), ((0, 0), (20, 17), (20, 21)))
    holed = Observation(images[0].data, valid=~hole, psf=images[0].psf)
    method = RichardsonLucy(5)
    _domains.__init__()
    first = [method(image, rng=None).data for image in (*images, holed)]
    assert len(_domains._items) == 1  # of the two without a hole
    again = [method(image, rng=None).data for image in (*images, holed)]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.any(first[0] != first[2])


@given(st.integers(1, 3000))
def test_good_sizes(n):
    size = good_size(n)
    assert n <= size < 1.35 * n + 4
    rest = size
    for prime in (2, 3, 5, 7):
        while rest % prime == 0:
            rest //= prime
    assert rest == 1


def test_a_frame_of_zeros_changes_nothing():
    kernel = lopsided()
    assert np.array_equal(trimmed(np.pad(kernel, 4)), kernel)
    assert trimmed(np.zeros((5, 5))).shape == (1, 1)
    observation, _ = field(psf=kernel)
    framed = observation.replace(psf=np.pad(observation.psf, ((0, 0), (4, 4), (4, 4))))
    assert np.array_equal(restore(framed).data, restore(observation).data)


def test_widths_of_a_psf():
    assert profile_width(gaussian(5, 31)[None]) == pytest.approx(5, rel=0.02)
    assert profile_width(np.ones((1, 1, 1))) == 1
    two = np.zeros((1, 21, 21))
    two[0, 10, [4, 16]] = 0.5
    assert profile_width(two) == pytest.approx(13, abs=0.1)
    assert effective_radius(two, 0.01) == 6
    assert effective_radius(np.ones((1, 1, 1)), 0.01) == 0
    delta = np.zeros((2, 9, 9))
    delta[0, 4, 4] = delta[1, 4, 7] = 1
    assert effective_radius(delta, 0.01) == 3


def test_the_benchmark_runs():
    from astrogan.bench.richardson_lucy import run

    table = run(sizes=(64,), iterations=4, psf_size=11, repeats=1, memory=False)
    assert list(table["method"]) == ["skimage", "fft-bound", "astrogan", "astrogan-nesterov"]
    assert (table["best_ms"] > 0).all()
    assert table["times_skimage"][0] == table["of_fft_bound"][1] == 1
    assert table["iterations"][3] <= 4
