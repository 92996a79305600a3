import pickle

import numpy as np
import pytest
from scipy.signal import fftconvolve

from astrogan.api import Observation
from astrogan.backends.classic.unsupervised_wiener import UnsupervisedWiener
from astrogan.backends.classic.wiener import Wiener, wiener_filter
from astrogan.bench.wiener import compare, main
from astrogan.exceptions import InputError, PSFError


def moffat(fwhm=3.0, size=21, q=1.0, shift=0.0):
    y, x = np.mgrid[-(size // 2) : size // 2 + 1, -(size // 2) : size // 2 + 1]
    a = fwhm / 2 / np.sqrt(2 ** (1 / 3) - 1)
    kernel = (1 + (((x - shift) / q) ** 2 + y**2) / a**2) ** -3.0
    return kernel / kernel.sum()


def stars(rng, shape=(120, 128), psf=None, sky=1.0, count=60):
    truth = np.zeros(shape)
    truth[rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)] = rng.pareto(1.2, count) * 200
    seen = fftconvolve(truth, moffat() if psf is None else psf, mode="same")
    return (seen + rng.normal(0, sky, shape)).astype(np.float32)


@pytest.mark.parametrize("balance", [1e-3, 0.01, 0.3, 3.0])
@pytest.mark.parametrize("psf", [moffat(), moffat(4.5, 31), moffat(3.0, 21, q=0.6, shift=0.7)])
def test_agrees_with_skimage_away_from_the_edges(rng, balance, psf):
    from skimage.restoration import wiener

    image = stars(rng, psf=psf)
    ours = Wiener(balance, slope=4)(Observation(image[None], psf=psf[None])).data[0]
    theirs = wiener(image.astype(float), psf, balance, clip=False)
    inner = slice(45, -45)
    np.testing.assert_allclose(ours[inner, inner], theirs[inner, inner], rtol=0, atol=2e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("balance", [1e-4, 0.01, 1.0, 100.0])
@pytest.mark.parametrize("slope", [2.0, 3.0, 4.0])
def test_filter_passes_the_mean_exactly_and_is_finite(balance, slope):
    band_filter = wiener_filter(moffat(), balance, slope)
    assert band_filter.kernel.sum() == pytest.approx(1, abs=1e-12)
    assert band_filter.radius <= 128


@pytest.mark.parametrize("shape", [(1, 1), (2, 70), (65, 3), (37, 41), (330, 5), (700, 90)])
@pytest.mark.parametrize("radius", [0, 1, 4, 26])
def test_blocks_equal_direct_convolution(rng, shape, radius):
    """Any plane, any kernel: overlap-save by blocks against the plain sum on a reflected plane."""
    from astrogan.backends.classic._linear import FiniteFilter

    kernel, plane = rng.normal(size=(2 * radius + 1,) * 2), rng.normal(size=shape).astype(np.float32)
    expected = fftconvolve(np.pad(plane.astype(float), radius, mode="symmetric"), kernel, mode="valid")
    result = FiniteFilter(kernel)(plane)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * np.abs(kernel).sum() + 1e-6)


def test_flux_and_centroid_are_kept(rng):
    psf = moffat(3.0, 21, q=0.7)
    image = np.zeros((1, 81, 81))
    image[0, 30:51, 30:51] = 1000 * psf
    result = Wiener(0.01)(Observation(image - 20, psf=psf[None])).data[0] + 20
    assert result.sum() == pytest.approx(1000, rel=1e-3)
    core = result[33:48, 33:48]
    offset = np.arange(-7, 8)
    assert abs((core.sum(0) * offset).sum() / core.sum()) < 0.01
    assert abs((core.sum(1) * offset).sum() / core.sum()) < 0.01


def test_an_asymmetric_psf_is_undone_and_not_doubled():
    psf = moffat(3.0, 21, shift=2.0)
    image = np.zeros((1, 61, 61))
    image[0, 20:41, 20:41] = psf
    result = Wiener(1e-3)(Observation(image, psf=psf[None])).data[0]
    assert np.unravel_index(result.argmax(), result.shape) == (30, 30)


@pytest.mark.parametrize("shape", [(13, 17), (40, 9)])
def test_variance_is_exact_up_to_the_corners(rng, shape):
    """Against the dense matrix: exact but for pixels in the very corners."""
    psf = moffat(1.8, 7)
    variance = rng.uniform(0.5, 2, shape)
    backend = Wiener(0.1)
    n = shape[0] * shape[1]
    matrix = np.empty((n, n))
    for i in range(n):
        impulse = np.zeros(shape)
        impulse.flat[i] = 1
        matrix[:, i] = backend(Observation(impulse[None], psf=psf[None])).data.ravel()
    expected = (matrix**2 @ variance.ravel()).reshape(shape)
    observation = Observation(np.zeros((1, *shape)), variance=variance[None], psf=psf[None])
    ratio = backend(observation).variance[0] / expected
    corner = np.zeros(shape, bool)
    corner[np.ix_([0, 1, -2, -1], [0, 1, -2, -1])] = True
    np.testing.assert_allclose(ratio[~corner], 1, atol=0.03)
    np.testing.assert_allclose(ratio[corner], 1, atol=0.3)


@pytest.mark.parametrize("sky", [3.0, 10.0])
def test_balance_is_near_the_best_with_the_truth(rng, sky):
    y, x = np.mgrid[:128, :128]
    truth = sum(
        f * np.exp(-np.hypot(x - a, (y - b) / q) / r)
        for f, a, b, q, r in zip(
            rng.uniform(10, 60, 9),
            *rng.uniform(15, 113, (2, 9)),
            rng.uniform(0.4, 1, 9),
            rng.uniform(1, 5, 9),
            strict=True,
        )
    )
    data = fftconvolve(truth, moffat(), mode="same") + rng.normal(0, sky, truth.shape)
    observation = Observation(data[None], psf=moffat()[None], variance=np.full((1, 128, 128), sky**2))
    inner = slice(15, -15)

    def error(balance):
        return ((Wiener(balance)(observation).data[0] - truth)[inner, inner] ** 2).mean()

    best = min(error(float(b)) for b in 10 ** np.arange(-5, 3, 0.25))
    assert error("auto") < 1.1 * best
    # without the variance the noise is measured, and little changes
    unknown = Wiener()(observation.replace(variance=None))
    assert unknown.info["balance"] == pytest.approx(Wiener()(observation).info["balance"], rel=0.5)
    assert unknown.variance is None


def test_a_bright_star_does_not_let_the_noise_through(rng):
    """The balance is that of the typical source: one star of 1e5 sigma does not make the filter pass all noise."""
    scene = fftconvolve(rng.normal(size=(200, 200)), moffat(8.0, 41), mode="same")
    image = 3 * scene / scene.std() + rng.normal(size=scene.shape)
    observation = Observation(image[None], psf=moffat()[None], variance=np.ones((1, 200, 200)))
    balance = Wiener()(observation).info["balance"]
    image[50:71, 50:71] += 1e5 / moffat().max() * moffat()
    with_star = Wiener()(observation.replace(data=image[None])).info["balance"]
    assert balance / 20 < with_star < 5 * balance


def test_uneven_background_and_edges_are_left_alone():
    y, x = np.mgrid[:64, :64]
    plane = (5.0 + 0.01 * x + 0.02 * y)[None]
    result = Wiener(0.1)(Observation(plane, psf=moffat()[None])).data
    np.testing.assert_allclose(result[0, 25:-25, 25:-25], plane[0, 25:-25, 25:-25], rtol=1e-3)
    assert np.abs(result - plane).max() < 0.2


def test_filters_are_cached_and_instances_pickle(rng):
    psf, image = moffat(), stars(rng)
    observation = Observation(image[None], psf=psf[None])
    backend = Wiener(0.02)
    first = backend(observation)
    kernel = observation.psf[0]
    assert backend._filter(kernel, 0.02) is backend._filter(kernel.copy(), 0.02)
    again = pickle.loads(pickle.dumps(backend))
    np.testing.assert_array_equal(again(observation).data, first.data)
    assert backend.halo_for(observation) == backend._filter(kernel, 0.02).radius
    assert Wiener().halo_for(observation) == -1
    assert Wiener().for_image(observation).halo_for(observation) > 5


def test_bad_arguments(rng):
    for balance in (0, -1, "best", np.nan, None):
        with pytest.raises(InputError, match="balance"):
            Wiener(balance)
    for slope in (0, 9, "steep"):
        with pytest.raises(InputError, match="slope"):
            Wiener(slope=slope)
    for backend in (Wiener(), UnsupervisedWiener()):
        with pytest.raises(PSFError, match="psf=None"):
            backend(Observation(np.zeros((1, 5, 5))), rng=rng)


def test_bench(capsys):
    row = compare(128, repeats=2)
    assert row["difference"] < 2e-5
    assert row["ratio"] > 0
    main(["--sizes", "64", "--repeats", "1"])
    assert "ratio" in capsys.readouterr().out
