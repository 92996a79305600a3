import numpy as np
import pytest
from scipy.signal import fftconvolve

from astrogan.api import Observation
from astrogan.backends.classic._linear import WeightedProblem
from astrogan.backends.classic.tikhonov import Tikhonov
from astrogan.backends.classic.wiener import Wiener
from astrogan.exceptions import InputError, PSFError


def gaussian(fwhm=3.0, size=15):
    r2 = np.sum(np.square(np.mgrid[-(size // 2) : size // 2 + 1, -(size // 2) : size // 2 + 1]), axis=0)
    kernel = np.exp(-4 * np.log(2) * r2 / fwhm**2)
    return kernel / kernel.sum()


def scene(rng, size=80, sky=1.0, depth=None, flux=(200, 3000)):
    truth = np.zeros((size, size))
    truth[tuple(rng.integers(12, size - 12, (2, 14)))] = rng.uniform(*flux, 14)
    truth = fftconvolve(truth, gaussian(2.0), mode="same")
    variance = np.full(truth.shape, sky**2) if depth is None else depth
    seen = fftconvolve(truth, gaussian(), mode="same")
    data = seen + rng.normal(size=truth.shape) * np.sqrt(variance)
    return truth, Observation(data[None], variance=variance[None], psf=gaussian()[None])


def test_equal_weights_give_the_wiener_filter_inside(rng):
    _, one = scene(rng)
    ours, wiener = Tikhonov(0.05)(one).data[0], Wiener(0.05, slope=4)(one).data[0]
    inner = slice(25, -25)
    np.testing.assert_allclose(ours[inner, inner], wiener[inner, inner], atol=1e-3 * np.abs(wiener).max())


def test_solves_the_normal_equations(rng):
    """Against a dense solution of the same weighted problem."""
    size = 12
    valid = rng.random((1, size, size)) > 0.2
    variance = rng.uniform(0.5, 2, (1, size, size))
    one = Observation(rng.normal(size=(1, size, size)) * 5, valid=valid, variance=variance, psf=gaussian(2.0, 5)[None])
    backend = Tikhonov(0.2, weighting="pixel", tolerance=1e-7)
    result = backend(one).data[0]

    problem = WeightedProblem(one, 0, "pixel")
    n = problem.grid[0] * problem.grid[1]
    columns = np.eye(n, dtype=np.float32).reshape(n, *problem.grid)
    blur = np.stack([problem.blur(c).ravel() for c in columns], axis=1).astype(float)
    laplacian = np.stack([4 * c - sum(np.roll(c, s, a) for s in (1, -1) for a in (0, 1)) for c in columns]).reshape(
        n, n
    )
    weight = problem.weight.ravel().astype(float)
    matrix = blur.T @ (weight[:, None] * blur) + 0.2 * laplacian.T @ laplacian
    exact = np.linalg.solve(matrix, blur.T @ (weight * problem.data.ravel())).reshape(problem.grid)
    np.testing.assert_allclose(result, problem.finish(exact), atol=2e-3)


def test_discrepancy_reaches_chi2_of_one(rng):
    _, one = scene(rng)
    info = Tikhonov("discrepancy")(one).info
    assert info["reduced_chi2"] == pytest.approx(1, abs=0.01)
    assert info["strength"] > Tikhonov()(one).info["strength"]


def test_uneven_depth_is_weighed(rng):
    """One half of the image ten times as noisy: in units of the noise it beats the best Wiener filter."""
    depth = np.full((80, 80), 1.0)
    depth[:, 40:] = 100.0
    truth, one = scene(rng, depth=depth, flux=(50, 150))
    inner = np.s_[10:-10, 10:-10]

    def error(backend):
        return ((backend(one).data[0] - truth) ** 2 / depth)[inner].mean()

    strengths = np.geomspace(1e-4, 10, 11).tolist()
    weighted, plain = (min(error(make(s)) for s in strengths) for make in (Tikhonov, lambda s: Wiener(s, slope=4)))
    assert weighted < 0.9 * plain


def test_a_hole_is_bridged(rng):
    """Stars beside a masked column keep their flux; a method that zero-fills would lose it."""
    truth = np.zeros((61, 61))
    truth[30, 30] = 1000.0
    truth = fftconvolve(truth, gaussian(2.0), mode="same")
    seen = fftconvolve(truth, gaussian(), mode="same")
    valid = np.ones((1, 61, 61), bool)
    valid[0, :, 32] = False
    one = Observation(seen[None], valid=valid, variance=np.full((1, 61, 61), 0.01), psf=gaussian()[None])
    backend = Tikhonov(1e-3)
    result = backend(one).data[0]
    assert result.sum() == pytest.approx(1000, rel=0.01)
    whole = backend(one.replace(valid=None)).data[0]
    assert np.abs(result - whole).max() < 0.1 * truth.max()


def test_no_dark_edges(rng):
    flat = np.full((1, 40, 40), 50.0) + rng.normal(0, 0.5, (1, 40, 40))
    result = Tikhonov()(Observation(flat, variance=np.full(flat.shape, 0.25), psf=gaussian()[None])).data
    assert np.abs(result - 50).max() < 3


def test_variance_against_the_dense_operator(rng):
    """Smoothly varying depth: every pixel's reported variance within 15 % of the exact one, edges within a factor 2."""
    size = 20
    depth = np.add.outer(np.linspace(1, 3, size), np.linspace(0, 1, size))[None]
    psf = gaussian(2.2, 7)[None]
    backend = Tikhonov(0.3, weighting="pixel")
    matrix = np.empty((size**2, size**2))
    for i in range(size**2):
        impulse = np.zeros((1, size, size))
        impulse.flat[i] = 1
        matrix[:, i] = backend(Observation(impulse, variance=depth, psf=psf)).data.ravel()
    exact = (matrix**2 @ depth.ravel()).reshape(size, size)
    ratio = backend(Observation(np.ones_like(depth), variance=depth, psf=psf)).variance[0] / exact
    assert np.abs(ratio[4:-4, 4:-4] - 1).max() < 0.15
    assert ratio.min() > 0.4
    assert ratio.max() < 2.5


def test_bad_arguments():
    for strength in (0, -1, "gcv", np.inf):
        with pytest.raises(InputError, match="strength"):
            Tikhonov(strength)
    with pytest.raises(InputError, match="weighting"):
        Tikhonov(weighting="none")
    with pytest.raises(InputError, match="tolerance"):
        Tikhonov(tolerance=0)
    with pytest.raises(InputError, match="iterations"):
        Tikhonov(iterations=2.5)
    with pytest.raises(PSFError, match="psf=None"):
        Tikhonov()(Observation(np.zeros((1, 4, 4))))
