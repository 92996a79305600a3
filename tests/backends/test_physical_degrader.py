"""The forward model: convolution, pixels, noise statistics, variance, masks; GALFIT's and SHERA's own results."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from astrogan.api import BackendSpec, Observation
from astrogan.backends.classic._forward import Forward, _overlap, separable_terms
from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.backends.classic.physical_degrader import PhysicalDegrader, clipped_sigma
from astrogan.exceptions import ImageTooSmallError, InputError, PSFError
from astrogan.image.psf import gaussian_psf, moffat_psf, psf_fwhm, resample_psf
from astrogan.testing import check_backend, example_observation


def run(observation, seed=0, **options):
    if isinstance(observation, np.ndarray):
        observation = Observation(observation)
    return PhysicalDegrader(**options)(observation, rng=np.random.default_rng(seed))


def stars(shape=(2, 60, 70)):
    image = np.zeros(shape, np.float32)
    image[:, 30, 35] = 1000
    image[:, 20, 15] = 300
    return image


# ---- the linear part ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rebin", [1, 2, 3, 2.5, 4.4])
@pytest.mark.parametrize(
    "kernel", [gaussian_psf(3.0), moffat_psf(3.0, size=11), None], ids=["gaussian", "moffat", "none"]
)
def test_data_and_variance_are_those_of_the_explicit_matrix(kernel, rebin, rng):
    """Every weight, squared and summed one by one; with FFTs approximately near edges and in fractional bins."""
    data, variance = rng.normal(size=(1, 26, 31)), rng.uniform(1, 2, (1, 26, 31))
    forward = Forward(None if kernel is None else kernel[np.newaxis], data.shape[1:], rebin)
    rows, columns = (_overlap(rebin * np.arange(int(n / rebin) + 1), np.arange(n)) for n in data.shape[1:])

    def by_hand(plane):
        blurred = plane if kernel is None else ndimage.convolve(plane, kernel.astype(float), mode="reflect")
        return rows @ blurred @ columns.T

    np.testing.assert_allclose(forward.apply(data)[0], by_hand(data[0]), atol=3e-6)
    expected = np.zeros(forward.shape_out)
    for i in range(26):
        for j in range(31):
            delta = np.zeros((26, 31))
            delta[i, j] = 1
            expected += variance[0, i, j] * by_hand(delta) ** 2
    by_fft = kernel is not None and separable_terms(kernel) is None
    margin = int(np.ceil(5 / rebin)) if by_fft else 0
    inside = np.s_[margin : expected.shape[0] - margin, margin : expected.shape[1] - margin]
    tolerance = 0.04 if by_fft and rebin % 1 else 1e-4
    np.testing.assert_allclose(forward.variance(variance)[0][inside], expected[inside], rtol=tolerance)


def test_separable_terms_add_up_and_are_few():
    lines = np.exp(-((np.arange(15) - 7) ** 2) / 8), np.exp(-((np.arange(15) - 7) ** 2) / 30)
    two = np.outer(lines[0], lines[0]) + 0.3 * np.outer(lines[1], lines[1])
    for kernel, count in ((np.outer([1.0, 4, 2], [0.5, 1, 3]), 1), (gaussian_psf(4.0), 1), (two, 2)):
        terms = separable_terms(kernel)
        assert len(terms) == count
        total = sum(np.outer(u, v) for u, v in terms)
        np.testing.assert_allclose(total, kernel, atol=1e-6 * kernel.max())
        assert total.sum() == pytest.approx(kernel.sum(dtype=float), rel=1e-12)
    assert separable_terms(moffat_psf(4.0)) is None


@settings(max_examples=40)
@given(
    ny=st.integers(1, 70),
    nx=st.integers(1, 70),
    fwhm=st.floats(0.8, 9.0),
    moffat=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_flux_is_conserved_for_any_shape(ny, nx, fwhm, moffat, seed):
    data = np.random.default_rng(seed).uniform(0, 100, (1, ny, nx))
    psf = moffat_psf(fwhm, size=25) if moffat else gaussian_psf(fwhm)
    out = run(data, psf=psf).data
    assert out.shape == data.shape
    assert out.sum(dtype=float) == pytest.approx(data.sum(), rel=1e-6)


@pytest.mark.parametrize("rebin", [2, 3, 1.7, 5.2])
def test_flux_through_rebinning(rebin):
    image = stars()
    out = run(image, psf=4.0, rebin=rebin).data
    assert out.shape == (2, int(60 / rebin), int(70 / rebin))
    np.testing.assert_allclose(out.sum(axis=(1, 2), dtype=float), image.sum(axis=(1, 2)), rtol=1e-6)


@pytest.mark.parametrize("rebin", [1, 2, 3, 2.5])
def test_ffts_equal_matrix_products(rebin, monkeypatch, rng):
    """FFTs are for kernels that are no short sum of separable ones; here both do the same kernels."""
    import astrogan.backends.classic._forward as module

    data = rng.normal(size=(2, 50, 61)).astype(np.float32) + 1e4
    variance = rng.uniform(1, 2, (2, 50, 61))
    kernels = np.stack([gaussian_psf(2.0, size=25), gaussian_psf(5.0, size=25)])
    by_matrix = Forward(kernels, (50, 61), rebin)
    monkeypatch.setattr(module, "_all_terms", lambda kernels: None)
    by_fft = Forward(kernels, (50, 61), rebin)
    np.testing.assert_allclose(by_fft.apply(data), by_matrix.apply(data), rtol=2e-6)
    margin = int(np.ceil(12 / rebin))
    ratio = (by_fft.variance(variance) / by_matrix.variance(variance))[:, margin:-margin, margin:-margin]
    np.testing.assert_allclose(ratio, 1, atol=0.08 if rebin % 1 else 1e-4)
    assert ratio.mean() == pytest.approx(1, abs=0.02)


def test_large_images_in_blocks(rng):
    """Many blocks along each axis equal ndimage's sum, pixel by pixel."""
    data = rng.normal(size=(1, 401, 333)).astype(np.float32)
    for kernel in (gaussian_psf(3.0), moffat_psf(3.0, size=21)):
        expected = ndimage.convolve(data[0].astype(float), kernel.astype(float), mode="reflect")
        np.testing.assert_allclose(run(data, psf=kernel).data[0], expected, atol=2e-6)


def test_constant_and_zero_images_stay():
    for psf in (gaussian_psf(5.0), moffat_psf(5.0)):
        np.testing.assert_allclose(run(np.full((1, 40, 40), 1234.5), psf=psf).data, 1234.5, rtol=1e-6)
        assert not run(np.zeros((1, 40, 40)), psf=psf).data.any()


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_scaling_of_flux_and_noise_level(scale):
    observation = example_observation()
    larger = observation.replace(data=observation.data * scale, variance=observation.variance * scale**2)
    one, other = (run(o, psf=3.0, noise_factor=2.0, seed=5) for o in (observation, larger))
    np.testing.assert_allclose(other.data, one.data * scale, rtol=2e-5, atol=1e-5 * scale)
    np.testing.assert_allclose(other.variance, one.variance * scale**2, rtol=1e-4)


# ---- matching ----------------------------------------------------------------------------------------------------


def test_matching_gives_the_target():
    own, target = gaussian_psf(2.5, size=31), moffat_psf(5.0, size=31)
    point = np.zeros((1, 81, 81))
    point[0, 25:56, 25:56] = own
    seen = run(Observation(point, psf=own[np.newaxis]), psf=target, match=True).data[0]
    assert np.abs(seen[25:56, 25:56] - target).max() < 0.005 * target.max()


@pytest.mark.parametrize("rebin", [2, 3, 4, 2.5])
def test_matched_psf_includes_the_larger_pixels(rebin):
    """What comes out has the FWHM asked for on its own pixels; added blur comes on top of them."""
    own = gaussian_psf(2.0, size=15)
    point = np.zeros((1, 240, 240))
    size = 240 / rebin
    centre = int(size // 2) * rebin + (rebin - 1) / 2  # of an output pixel, in input pixels
    y, x = np.mgrid[:240, :240]
    sigma = 2.0 / 2.3548
    point[0] = np.exp(-((y - centre) ** 2 + (x - centre) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    target = gaussian_psf(5 * rebin)
    seen = run(Observation(point, psf=own[np.newaxis]), psf=target, match=True, rebin=rebin).data[0]
    middle = int(size // 2)
    stamp = seen[middle - 12 : middle + 13, middle - 12 : middle + 13]
    assert psf_fwhm(stamp) == pytest.approx(5.0, rel=0.01)
    assert stamp.sum() == pytest.approx(1, abs=2e-3)


def test_sharper_targets_and_narrow_ones_are_refused():
    observation = Observation(np.ones((1, 40, 40)), psf=gaussian_psf(4.0)[np.newaxis])
    with pytest.raises(PSFError, match="no convolution sharpens"):
        run(observation, psf=3.0, match=True)
    with pytest.raises(PSFError, match="narrower than an output pixel"):
        run(Observation(np.ones((1, 80, 80)), psf=gaussian_psf(1.5)[np.newaxis]), psf=2.0, match=True, rebin=8)
    with pytest.raises(PSFError, match="needs the image's own PSF"):
        run(np.ones((1, 40, 40)), psf=3.0, match=True)


# ---- noise -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poisson", ["exact", "gaussian"])
def test_variance_follows_the_gain_relation(poisson):
    """var = (flux gain + sky + read^2) / gain^2: slope 1 / gain, intercept (sky + read^2) / gain^2."""
    gain, sky, read = 4.0, 60.0, 5.0
    flux = np.repeat(np.linspace(0, 200, 20), 50)[np.newaxis, np.newaxis].repeat(1000, axis=1)
    seen = run(flux, gain=gain, sky=sky, read_noise=read, poisson=poisson, noiseless_input=True)
    residual = (seen.data - flux).reshape(1000, 20, 50)
    level = flux[0, 0].reshape(20, 50)[:, 0]
    slope, intercept = np.polyfit(level, residual.var(axis=(0, 2)), 1)
    assert slope == pytest.approx(1 / gain, rel=0.02)
    assert intercept == pytest.approx((sky + read**2) / gain**2, rel=0.03)
    np.testing.assert_allclose(residual.mean(axis=(0, 2)), 0, atol=0.1)
    np.testing.assert_allclose(seen.variance, (flux * gain + sky + read**2) / gain**2, rtol=1e-5)


def test_exact_poisson_gives_whole_electrons():
    seen = run(np.full((1, 50, 50), 3.0), gain=2.0, sky=10.0)
    electrons = seen.data * 2 + 10
    np.testing.assert_allclose(electrons, np.rint(electrons), atol=1e-4)
    assert (electrons > 0).all()


def test_negative_flux_has_no_photons():
    """Below zero electrons there is no light to be noisy, and nothing is clipped."""
    image = np.full((1, 30, 30), -100.0)
    assert np.array_equal(run(image, gain=1.0, sky=20.0).data, image)
    noisy = run(image, gain=1.0, sky=20.0, read_noise=3.0, poisson="gaussian").data
    assert noisy.mean() == pytest.approx(-100, abs=0.5)
    assert noisy.std() == pytest.approx(3, rel=0.1)


def test_gaussian_noise_has_its_sigma_in_each_band():
    seen = run(np.zeros((2, 300, 300)), sigma=[0.5, 3.0])
    np.testing.assert_allclose(seen.data.std(axis=(1, 2)), [0.5, 3.0], rtol=0.02)
    assert abs(np.corrcoef(seen.data[0].ravel(), seen.data[1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(("factor", "rebin"), [(1.0, 1), (2.0, 1), (3.0, 2), (1.5, 2.5)])
def test_noise_factor_reaches_that_multiple_of_the_own_noise(factor, rebin, rng):
    """On blank sky, noise after is ``factor`` times what rebinning without blur would have left."""
    observation = Observation(rng.normal(0, 2.0, (1, 400, 400)), variance=np.full((1, 400, 400), 4.0))
    seen = run(observation, psf=4.0, noise_factor=factor, rebin=rebin)
    own = (
        2.0 * rebin
        if rebin % 1 == 0
        else np.sqrt(Forward(None, (400, 400), rebin).variance(observation.variance)).mean()
    )
    assert seen.data.std() == pytest.approx(factor * own, rel=0.03)
    np.testing.assert_allclose(np.sqrt(seen.variance).mean(), factor * own, rtol=0.01)


def test_noise_factor_below_what_is_left_adds_nothing(rng):
    observation = Observation(rng.normal(size=(1, 64, 64)), variance=np.ones((1, 64, 64)))
    assert np.array_equal(run(observation, noise_factor=0.5).data, observation.data)


def test_carried_variance_is_the_scatter_of_many_realisations(rng):
    kernel, shape = moffat_psf(3.0, size=15), (1, 40, 40)
    variance = np.linspace(1, 3, 40)[np.newaxis, np.newaxis].repeat(40, axis=1)
    runs = [
        run(
            Observation(rng.normal(size=shape) * np.sqrt(variance), variance=variance),
            seed,
            psf=kernel,
            rebin=2,
            sigma=0.1,
        )
        for seed in range(600)
    ]
    scatter = np.var([r.data[0] for r in runs], axis=0)[5:-5, 5:-5]
    np.testing.assert_allclose(scatter, runs[0].variance[0, 5:-5, 5:-5], rtol=0.35)
    assert scatter.mean() == pytest.approx(runs[0].variance[0, 5:-5, 5:-5].mean(), rel=0.02)


def test_shared_band_noise_is_the_same_plane():
    for options in (
        {"sigma": 1.5},
        {"sigma": 1.0, "noise": CorrelatedNoise()},
        {"gain": 2.0, "sky": 9.0, "poisson": "gaussian"},
    ):
        planes = run(np.zeros((3, 40, 40)), shared_band_noise=True, **options).data
        assert np.array_equal(planes[0], planes[1])
        assert np.array_equal(planes[0], planes[2])
        assert planes.std() > 0
        apart = run(np.zeros((3, 40, 40)), **options).data
        assert abs(np.corrcoef(apart[0].ravel(), apart[1].ravel())[0, 1]) < 0.1
    with pytest.raises(InputError, match="different photons"):
        PhysicalDegrader(shared_band_noise=True, gain=1.0)


def test_correlated_noise_through_a_backend():
    noise = CorrelatedNoise(kernel=np.ones((3, 3)))
    field = run(np.zeros((1, 400, 400)), sigma=2.0, noise=noise).data[0]
    assert field.std() == pytest.approx(2.0, rel=0.03)
    assert (field[:, 1:] * field[:, :-1]).mean() / field.var() == pytest.approx(2 / 3, abs=0.02)


def test_variance_is_none_where_it_is_not_known():
    assert run(np.zeros((1, 20, 20)), sigma=1.0).variance is None
    np.testing.assert_allclose(run(np.zeros((1, 20, 20)), sigma=3.0, noiseless_input=True).variance, 9.0, rtol=1e-6)


def test_same_seed_same_bits_and_others_differ():
    options = {"psf": 3.0, "gain": 2.0, "sky": 10.0, "read_noise": 1.0, "sigma": 0.5}
    one, same, other = (run(stars(), seed=s, **options).data for s in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


# ---- masks -------------------------------------------------------------------------------------------------------


def test_mask_grows_by_the_weight_of_the_psf():
    valid = np.ones((1, 61, 61), bool)
    valid[0, 30, 30] = False
    psf = gaussian_psf(4.0)
    flags = run(Observation(np.zeros((1, 61, 61)), valid), psf=psf, mask_threshold=1e-3).flags[0]
    expected = np.zeros((61, 61), bool)
    half = len(psf) // 2
    expected[30 - half : 31 + half, 30 - half : 31 + half] = psf > 1e-3
    assert np.array_equal(flags, expected)
    assert 20 < flags.sum() < psf.size


def test_invalid_pixels_stay_flagged_however_broad_the_psf_and_through_rebinning():
    valid = np.ones((1, 60, 60), bool)
    valid[0, 31, 33] = False
    broad = run(Observation(np.zeros((1, 60, 60)), valid), psf=gaussian_psf(25.0, size=51), mask_threshold=0.5)
    assert broad.flags[0].sum() == 1
    assert broad.flags[0, 31, 33]
    for rebin, where in ((2, (15, 16)), (2.5, (12, 13))):
        flags = run(Observation(np.zeros((1, 60, 60)), valid), rebin=rebin).flags[0]
        assert flags.sum() == 1
        assert flags[where]


def test_saturation_cuts_and_flags():
    seen = run(stars(), psf=3.0, saturation=[20.0, 1e6])
    assert seen.data[0].max() == 20.0
    assert np.array_equal(seen.flags[0], seen.data[0] == 20.0)
    assert seen.flags[0].sum() > 3
    assert not seen.flags[1].any()


# ---- batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("psf", [gaussian_psf(3.0), moffat_psf(3.0, size=21)], ids=["gaussian", "moffat"])
@pytest.mark.parametrize("rebin", [1, 2, 1.5])
def test_batch_equals_one_by_one_without_noise(psf, rebin, rng):
    stamps = rng.normal(size=(11, 3, 32, 40))
    degrader = PhysicalDegrader(psf, rebin=rebin)
    together = degrader.batch(stamps, rng=rng)
    alone = np.stack([degrader(Observation(s), rng=rng).data for s in stamps])
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=2e-6)


def test_batch_noise_level_and_independence(rng):
    seen = PhysicalDegrader(gain=3.0, sky=300.0, read_noise=4.0).batch(np.zeros((40, 2, 64, 64)), rng=rng)
    np.testing.assert_allclose(seen.std(axis=(2, 3)), np.sqrt(316) / 3, rtol=0.08)
    flat = seen.reshape(80, -1)
    correlation = np.corrcoef(flat) - np.eye(80)
    assert np.abs(correlation).max() < 0.09


def test_batch_measures_own_noise_for_a_factor(rng):
    level = np.array([1.0, 3.0])[None, :, None, None] * np.linspace(1, 2, 6)[:, None, None, None]
    stamps = rng.normal(size=(6, 2, 128, 128)) * level
    stamps[:, :, 60:68, 60:68] += 500
    seen = PhysicalDegrader(psf=3.0, noise_factor=2.0).batch(stamps, rng=rng)
    np.testing.assert_allclose(seen[:, :, :40].std(axis=(2, 3)), 2 * level[..., 0, 0], rtol=0.06)


def test_clipped_sigma_is_right_with_and_without_sources(rng):
    sky = rng.normal(0, 3.0, (4, 200, 200))
    np.testing.assert_allclose(clipped_sigma(sky), 3.0, rtol=0.02)
    sky[:, :40, :40] += rng.exponential(100, (40, 40))
    np.testing.assert_allclose(clipped_sigma(sky), 3.0, rtol=0.05)


def test_batch_refuses_what_it_cannot_use(rng):
    degrader = PhysicalDegrader(psf=2.0)
    with pytest.raises(InputError, match=r"\(n, band, y, x\)"):
        degrader.batch(np.zeros((3, 32, 32)), rng=rng)
    stamps = np.zeros((3, 1, 32, 32))
    stamps[1, 0, 4, 4] = np.nan
    with pytest.raises(InputError, match="NaN"):
        degrader.batch(stamps, rng=rng)
    with pytest.raises(InputError, match="real numbers"):
        degrader.batch(np.zeros((3, 1, 32, 32), complex), rng=rng)


# ---- contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"psf": 3.0},
        {"psf": 6.0, "match": True},
        {"rebin": 2, "psf": moffat_psf(3.0)},
        {"noise_factor": 2.0, "psf": 2.0},
    ],
)
def test_conformance(options):
    target = "astrogan.backends.classic.physical_degrader:PhysicalDegrader"
    assert not check_backend(BackendSpec(role="degrader", name="physical", target=target), options=options).failed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rebin": 0.5}, "rebin=0.5"),
        ({"rebin": True}, "rebin=True"),
        ({"poisson": "fast"}, "poisson='fast'"),
        ({"gain": -1}, "gain=-1"),
        ({"gain": [[1.0]]}, "gain="),
        ({"sky": 5.0}, "gain must be given"),
        ({"sigma": 1, "noise_factor": 1}, "noise_factor=1"),
        ({"noise": 3}, "noise=3"),
        ({"saturation": 0}, "saturation=0"),
        ({"mask_threshold": 2}, "mask_threshold=2"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        PhysicalDegrader(**options)


def test_bands_must_agree_and_images_be_large_enough():
    with pytest.raises(InputError, match="2 values"):
        run(np.zeros((3, 20, 20)), sigma=[1.0, 2.0])
    with pytest.raises(ImageTooSmallError, match="rebin=30"):
        run(np.zeros((1, 20, 20)), rebin=30)
    with pytest.raises(InputError, match="variance is missing"):
        run(np.zeros((1, 20, 20)), noise_factor=2)


# ---- other codes' results ----------------------------------------------------------------------------------------


def read(path, hdu=0):
    from astropy.io import fits

    return fits.getdata(path, hdu).astype(np.float64)


def galfit_kernel(psf):
    """GALFIT's centre of an n x n PSF is pixel n / 2 + 1 (from one); here the middle of n + 1."""
    return np.pad(psf / psf.sum(), ((0, 1), (0, 1)))


@pytest.mark.data
def test_galfit_convolution(data_dir):
    """A de Vaucouleurs profile through GALFIT, without and with an HST/F105W PSF, in a box of 100 x 100 pixels."""
    folder = data_dir / "galfit_refs" / "petrofit"
    sharp, blurred = (read(folder / f"galfit_n4_psf{i}.fits.gz") for i in (0, 1))
    kernel = galfit_kernel(read(folder / "f105w_psf.fits.gz"))
    ours = run(sharp[np.newaxis], psf=kernel).data[0]
    # GALFIT convolves a box and pastes it: its edge shows, by half of the tolerance.
    box, core = np.s_[50:150, 50:150], np.s_[60:140, 60:140]
    error = np.abs(ours - blurred) / blurred.max()
    print(f"largest error in the box over the peak: {error[box].max():.3g}")
    print(f"largest error 10 pixels inside it: {error[core].max():.3g}")
    assert error[box].max() < 5e-4
    assert error[core].max() < 2e-6
    outside = np.ones(sharp.shape, bool)
    outside[49:151, 49:151] = False
    assert np.array_equal(sharp[outside], blurred[outside])


@pytest.mark.data
def test_galfit_convolution_of_a_finer_psf(data_dir):
    """The same with the PSF on pixels of a quarter: our blur on the finer grid, then sums over 4 x 4 pixels.

    GALFIT builds the profile on its finer grid with its own rules at the cusp, so that the comparison leaves the
    innermost pixels out.
    """
    from astropy.modeling.models import Sersic2D

    folder = data_dir / "galfit_refs" / "petrofit"
    blurred = read(folder / "galfit_n4_psf4.fits.gz")
    y, x = (np.mgrid[:800, :800] + 0.5) / 4 - 0.5
    profile = Sersic2D(1.0, 30.0, 4.0, 99.0, 99.0)(x, y)
    kernel = galfit_kernel(read(folder / "f105w_psf.fits.gz"))
    ours = run(profile[np.newaxis], psf=kernel, rebin=4).data[0]
    ring = np.hypot(*(np.mgrid[:200, :200] - 99))
    compare = (ring > 3) & (ring < 35)
    ours *= blurred[compare].sum() / ours[compare].sum()
    error = np.abs(ours - blurred)[compare].max() / blurred.max()
    print(f"largest error over the peak: {error:.3g}")
    assert error < 1e-3


def sheared(image, g1, g2, size, x0=0.0, y0=0.0):
    """An image about its middle pixel, sheared, in a square of another size with its centre moved by (x0, y0)."""
    shear = np.array([[1 + g1, g2], [g2, 1 - g1]]) / np.sqrt(1 - g1**2 - g2**2)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    from_x, from_y = np.tensordot(np.linalg.inv(shear), [x - x0, y - y0], axes=1)
    padded = np.pad(image, 12)
    middle = [n // 2 for n in padded.shape]
    return ndimage.map_coordinates(padded, [from_y + middle[0], from_x + middle[1]], order=5, mode="constant")


@pytest.mark.data
def test_shera_hst_to_sdss(data_dir):
    """SHERA (Mandelbaum et al. 2012) on a COSMOS galaxy: deconvolved, sheared by (0.06, -0.04), SDSS PSF, 0.24 arcsec.

    Shearing image and PSF alike and then matching the PSF is the same operation. SHERA frames its result with the
    galaxy 5 and 2 HST pixels off the centre; nothing else is adjusted but the total flux, which SHERA was told.
    """
    folder = data_dir / "cosmos_hst_galsim" / "galsim" / "tests" / "real_comparison_images"
    galaxy, psf = (read(folder / "test_images.fits", hdu) for hdu in (0, 2))
    target, shera = read(folder / "shera_target_PSF.fits"), read(folder / "shera_result.fits")
    galaxy, psf = sheared(galaxy, 0.06, -0.04, 400, 5.0, 2.0), sheared(psf, 0.06, -0.04, 61)
    observation = Observation(galaxy[np.newaxis], psf=psf[np.newaxis] / psf.sum(), pixel_scale=0.03)
    ours = run(observation, psf=resample_psf(target, 0.24, 0.03), match=True, rebin=8).data[0]
    assert ours.shape == shera.shape
    assert ours.sum(dtype=float) == pytest.approx(galaxy.sum(), rel=1e-5)
    ours, shera = ours / ours.sum(), shera / shera.sum()
    error = np.sqrt(((ours - shera) ** 2).sum() / (shera**2).sum())
    print(f"relative L2: {error:.3g}")
    print(f"largest error over the peak: {np.abs(ours - shera).max() / shera.max():.3g}")
    assert error < 0.005
    assert np.abs(ours - shera).max() < 0.004 * shera.max()
