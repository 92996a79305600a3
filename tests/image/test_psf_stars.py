import numpy as np
import pytest

from astrogan.exceptions import InputError, PSFError
from astrogan.image._kernels import centroid
from astrogan.image.mask import saturation_mask
from astrogan.image.psf import as_psf, convolve, estimate_psf, gaussian_psf, moffat_psf, psf_fwhm

FINE = 5


def moffat_star(fwhm, beta, half, x, y, shear=(0.0, 0.0)):
    """A Moffat profile at a sub-pixel position, integrated over pixels by brute force; unit flux."""
    core = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    fine = (np.arange((2 * half + 1) * FINE) + 0.5) / FINE - half - 0.5
    u, v = fine[None, :] - x, fine[:, None] - y
    e1, e2 = shear
    r2 = ((1 - e1) * u - e2 * v) ** 2 + ((1 + e1) * v - e2 * u) ** 2
    profile = (1 + r2 / core**2) ** -beta
    stamp = profile.reshape(2 * half + 1, FINE, 2 * half + 1, FINE).sum(axis=(1, 3))
    return stamp / (np.pi * core**2 / (beta - 1) * FINE**2)


def field(
    rng, n=400, stars=30, galaxies=80, fwhm=3.5, beta=3.0, shear=(0.0, 0.0), noise=1.0, flux=(300, 1e5), sky=50.0
):
    """Stars and galaxies (exponential discs of all inclinations, seen through the PSF) on a noisy sky."""
    image = np.zeros((n, n))
    for _ in range(galaxies):
        size, ratio, angle = np.exp(rng.uniform(0, 1.6)), rng.uniform(0.3, 1), rng.uniform(0, np.pi)
        x, y = rng.uniform(0, n, 2)
        cx, cy = round(x), round(y)
        ys, xs = np.mgrid[max(cy - 30, 0) : min(cy + 31, n), max(cx - 30, 0) : min(cx + 31, n)]
        along = (xs - x) * np.cos(angle) + (ys - y) * np.sin(angle)
        across = ((ys - y) * np.cos(angle) - (xs - x) * np.sin(angle)) / ratio
        disc = np.exp(-np.hypot(along, across) / size)
        image[ys, xs] += np.exp(rng.uniform(*np.log([200, 2e4]))) * disc / (2 * np.pi * size**2 * ratio)
    image = convolve(image, moffat_psf(fwhm, beta))
    half = 50
    padded = np.pad(image, half)
    for _ in range(stars):
        x, y = rng.uniform(0, n - 1, 2)
        cx, cy = round(x), round(y)
        star = moffat_star(fwhm, beta, half, x - cx, y - cy, shear)
        padded[cy : cy + 2 * half + 1, cx : cx + 2 * half + 1] += np.exp(rng.uniform(*np.log(flux))) * star
    image = padded[half:-half, half:-half]
    return image + sky + rng.normal(0, noise, image.shape)


def assert_recovers(model, fwhm, beta, shear=(0.0, 0.0), width=0.03, peak=0.03):
    kernel = model.kernels[0].astype(float)
    truth = moffat_star(fwhm, beta, model.size // 2, 0, 0, shear)
    truth /= truth.sum()
    assert model.n_bands == 1
    assert model.kernels.sum(dtype=float) == pytest.approx(1, abs=1e-5)
    assert max(abs(np.subtract(centroid(kernel), model.size // 2))) < 0.01
    assert psf_fwhm(kernel) == pytest.approx(psf_fwhm(truth), rel=width)
    assert np.abs(kernel - truth).max() < peak * truth.max()


class TestSimulatedFields:
    @pytest.mark.parametrize(
        ("fwhm", "beta", "shear"),
        [(1.8, 2.5, (0, 0)), (2.5, 3.0, (0, 0)), (3.5, 3.0, (0, 0)), (3.5, 2.5, (0.06, -0.04)), (6.0, 3.5, (0, 0))],
    )
    def test_width_and_profile(self, rng, fwhm, beta, shear):
        model = estimate_psf(field(rng, fwhm=fwhm, beta=beta, shear=shear))
        assert model.n_stars >= 8
        assert model.origin == f"{model.n_stars} stars"
        assert_recovers(model, fwhm, beta, shear)

    def test_few_stars_among_many_galaxies(self, rng):
        model = estimate_psf(field(rng, stars=8, galaxies=150, flux=(2e3, 1e5)))
        assert 3 <= model.n_stars <= 8
        assert_recovers(model, 3.5, 3.0, peak=0.06)

    def test_crowded(self, rng):
        model = estimate_psf(field(rng, stars=150, galaxies=200))
        assert model.n_stars > 20
        assert_recovers(model, 3.5, 3.0, peak=0.02)

    def test_broad_psf_gets_a_larger_kernel(self, rng):
        model = estimate_psf(field(rng, n=512, stars=25, galaxies=20, fwhm=9.0, flux=(1e4, 1e6)))
        assert model.size >= 55
        assert_recovers(model, 9.0, 3.0, peak=0.06)

    @pytest.mark.parametrize("marked", [False, True])
    def test_saturated_stars(self, rng, marked):
        image = np.minimum(field(rng, stars=40, galaxies=30), 1500)
        valid = ~saturation_mask(image, 1500) if marked else None
        assert_recovers(estimate_psf(image, valid=valid), 3.5, 3.0)

    def test_hot_pixels_and_cosmic_rays_are_not_stars(self, rng):
        image = field(rng)
        image[tuple(rng.integers(0, 400, (2, 200)))] += rng.uniform(100, 5000, 200)
        assert_recovers(estimate_psf(image), 3.5, 3.0, peak=0.05)

    def test_gradient_and_high_sky(self, rng):
        y, x = np.mgrid[:400, :400]
        assert_recovers(estimate_psf(field(rng, sky=2000.0) + 0.05 * x - 0.02 * y), 3.5, 3.0)


class TestInvariance:
    def test_unit_and_pedestal(self, rng):
        image = field(rng, n=300)
        first = estimate_psf(image)
        for scale in (1e-25, 1e-3, 1e4, 1e20):
            again = estimate_psf(scale * image)
            assert again.n_stars == first.n_stars
            assert np.abs(again.kernels - first.kernels).max() < 1e-6
        assert np.abs(estimate_psf(image - 500).kernels - first.kernels).max() < 1e-6

    def test_values_under_the_mask_are_never_read(self, rng):
        image = field(rng, n=300)
        valid = rng.random(image.shape) > 0.002
        valid[:, 120] = False
        results = [estimate_psf(np.where(valid, image, junk), valid=valid) for junk in (0.0, 1e30, np.nan, -np.inf)]
        for other in results[1:]:
            assert np.array_equal(other.kernels, results[0].kernels)
        assert_recovers(results[0], 3.5, 3.0)

    def test_nan_need_no_mask_and_the_input_is_left_alone(self, rng):
        image = field(rng, n=300)
        image[100:104, 50] = np.nan
        before = image.copy()
        model = estimate_psf(image)
        assert_recovers(model, 3.5, 3.0, peak=0.05)
        assert np.array_equal(image, before, equal_nan=True)

    def test_variance_map(self, rng):
        noise = np.ones((400, 400))
        noise[200:] = 5
        image = field(rng, stars=40, noise=noise)
        assert_recovers(estimate_psf(image, variance=noise**2), 3.5, 3.0)

    def test_deterministic_and_any_byte_order(self, rng):
        image = field(rng, n=300).astype(np.float32)
        first = estimate_psf(image)
        assert np.array_equal(estimate_psf(image).kernels, first.kernels)
        assert np.array_equal(estimate_psf(image.astype(">f4")).kernels, first.kernels)

    def test_size_and_number_of_stars(self, rng):
        image = field(rng)
        assert estimate_psf(image).size >= 25
        model = estimate_psf(image, size=15, max_stars=5)
        assert model.size == 15
        assert model.n_stars <= 5

    def test_restores_as_a_psf(self, rng):
        model = estimate_psf(field(rng, n=300))
        assert as_psf(model, n_bands=3, shape=(21, 300)).kernels.shape == (3, 21, 21)


class TestRefusals:
    @pytest.mark.parametrize(
        "image",
        [
            np.zeros((100, 100)),
            np.full((64, 64), 7.0),
            np.random.default_rng(0).normal(0, 1, (200, 200)),
            np.ones((5, 5)),
            np.ones((1, 1)),
            np.full((50, 50), np.nan),
        ],
        ids=["zero", "constant", "noise", "tiny", "one pixel", "nothing valid"],
    )
    def test_no_stars(self, image):
        with pytest.raises(PSFError, match=r"usable stars.*psf="):
            estimate_psf(image)

    def test_one_galaxy_on_a_stamp(self):
        y, x = np.mgrid[:101, :101] - 50.0
        rng = np.random.default_rng(1)
        with pytest.raises(PSFError, match="psf="):
            estimate_psf(1000 * np.exp(-np.hypot(x, 2 * y) / 8) + rng.normal(20, 1, x.shape))

    def test_two_stars_are_too_few(self):
        image = np.zeros((200, 200))
        image[50, 60] = image[150, 120] = 1e4
        image = convolve(image, gaussian_psf(4.0)) + np.random.default_rng(2).normal(0, 1, image.shape)
        with pytest.raises(PSFError, match="only"):
            estimate_psf(image)

    def test_large_galaxies_alone(self):
        """Of many sizes and shapes, none of them a star."""
        refused = 0
        for seed in range(4):
            rng = np.random.default_rng(seed)
            try:
                estimate_psf(field(rng, stars=0, galaxies=60))
            except PSFError:
                refused += 1
        assert refused >= 3

    def test_bad_arguments(self):
        image = np.zeros((50, 50))
        with pytest.raises(InputError, match="one band"):
            estimate_psf(np.zeros((2, 50, 50)))
        with pytest.raises(InputError, match=r"valid has shape"):
            estimate_psf(image, valid=np.ones((5, 5), bool))
        with pytest.raises(InputError, match=r"variance has shape"):
            estimate_psf(image, variance=np.ones((5, 5)))
        for size in (24, 3, 0):
            with pytest.raises(InputError, match="size="):
                estimate_psf(image, size=size)
        with pytest.raises(InputError, match="max_stars=2"):
            estimate_psf(image, max_stars=2)


def test_the_simulated_star_has_the_flux_of_the_analytic_one():
    assert moffat_star(3.0, 3.0, 60, 0.3, -0.2).sum() == pytest.approx(1, abs=2e-3)


class TestKidsViking:
    @pytest.mark.parametrize(("band", "fwhm", "at_least"), [("r", 2.53, 40), ("Z", 3.46, 40)])
    def test_field(self, data_dir, band, fwhm, at_least):
        from astropy.io import fits

        data = fits.getdata(data_dir / "kids_viking_field" / f"{band}.fits", 1)
        model = estimate_psf(data)
        assert model.n_stars >= at_least
        assert model.fwhm[0] == pytest.approx(fwhm, rel=0.03)
        assert max(abs(np.subtract(centroid(model.kernels[0]), model.size // 2))) < 0.01
        assert (model.kernels >= -1e-3 * model.kernels.max()).all()
