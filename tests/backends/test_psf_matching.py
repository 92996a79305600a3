"""Translation by PSF matching: accuracy, flux, position, variance, noise, masks, geometry."""

import warnings

import numpy as np
import pytest
from astropy.wcs import WCS, Sip
from hypothesis import given, settings
from hypothesis import strategies as st

from astrogan.api import Observation, Target, TranslatorBackend
from astrogan.backends.classic._resampling import METHODS, Taps, grid_of, resample
from astrogan.backends.classic.psf_matching import PSFMatching, psf_on_input
from astrogan.exceptions import InputError, PSFError, PSFWarning
from astrogan.image.psf import convolve, gaussian_psf, moffat_psf, psf_fwhm
from astrogan.image.wcs import pixel_mapping, rescale_wcs

CFHT, SDSS = 0.187, 0.396  # arcsec per pixel


def affine(shape_in, shape, ratio, angle=0.0, flip=False, shift=(0.0, 0.0)):
    """A target whose pixels are ``ratio`` input pixels wide, turned by ``angle`` degrees about the common centre."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    matrix = np.array([[c, -s], [s, c]]) @ np.diag([-1 if flip else 1, 1]) * ratio
    inverse = np.linalg.inv(matrix)
    centre_in = (np.array(shape_in[::-1]) - 1) / 2 + shift
    centre = (np.array(shape[::-1]) - 1) / 2

    def to_input(x, y):
        d = np.array([np.asarray(x, float) - centre[0], np.asarray(y, float) - centre[1]])
        return tuple(np.tensordot(matrix, d, 1) + centre_in.reshape(2, *[1] * (d.ndim - 1)))

    def to_output(x, y):
        d = np.array([np.asarray(x, float) - centre_in[0], np.asarray(y, float) - centre_in[1]])
        return tuple(np.tensordot(inverse, d, 1) + centre.reshape(2, *[1] * (d.ndim - 1)))

    return Target(shape=shape, to_input=to_input, to_output=to_output, area_ratio=ratio**2)


def tan(scale, angle, shape):
    """A gnomonic WCS with its reference in the middle, north turned by ``angle`` degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = (150.0, 2.0), (np.array(shape[::-1]) + 1) / 2
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[c, -s], [s, c]]) @ np.diag([-1, 1]) * scale / 3600
    wcs.pixel_shape = shape[::-1]
    return wcs


def sip(scale, shape, strength=1.0):
    """Pixels whose area changes by some per cent over the image."""
    wcs = tan(scale, 0.0, shape)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    a, b = np.zeros((3, 3)), np.zeros((3, 3))
    a[2, 0], b[1, 1] = 1e-4 * strength, -5e-5 * strength
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    return wcs


def with_psf(target, kernels, noise=None):
    """The target with a PSF and noise."""
    fields = {name: getattr(target, name) for name in target.__dataclass_fields__}
    return Target(**fields | {"psf": np.asarray(kernels), "noise": noise})


def run(observation, target, seed=0, **options):
    return PSFMatching(**options)(observation, target, rng=np.random.default_rng(seed))


def gaussian_spot(shape, x, y, fwhm, flux=100.0):
    """A round source, integrated over the pixels."""
    from scipy.special import erf

    sigma = fwhm / 2.3548200450309493
    edges_x, edges_y = (np.arange(n + 1) - 0.5 for n in shape[::-1])
    fx, fy = (np.diff(0.5 * erf((e - c) / (sigma * np.sqrt(2)))) for e, c in ((edges_x, x), (edges_y, y)))
    return (flux * np.outer(fy, fx)).astype(np.float32)


def centroid(image):
    y, x = np.indices(image.shape)
    return np.array([(x * image).sum(), (y * image).sum()]) / image.sum()


def test_protocol():
    assert isinstance(PSFMatching(), TranslatorBackend)


class TestSimulatedGalaxies:
    """CFHT r to SDSS r: Sersic profiles under Moffat PSFs, drawn by GalSim in both surveys, free of noise."""

    @pytest.fixture(scope="class")
    @staticmethod
    def pairs():
        galsim = pytest.importorskip("galsim")
        rng = np.random.default_rng(11)
        shape_in, shape = (221, 221), (104, 104)
        sharp = galsim.GSParams(folding_threshold=1e-3, maximum_fft_size=16384)

        def draw(galaxy, fwhm, scale, shape):
            psf = galsim.Moffat(3, fwhm=fwhm, gsparams=sharp)
            image = galsim.Image(shape[1], shape[0], scale=scale, dtype=float)
            return galsim.Convolve(galaxy, psf).drawImage(image).array

        images = []
        for _ in range(6):
            radius = rng.uniform(0.4, 1.6)
            galaxy = galsim.Sersic(rng.uniform(0.6, 3.5), half_light_radius=radius, trunc=5 * radius, flux=100)
            galaxy = galaxy.shear(g1=rng.uniform(-0.4, 0.4), g2=rng.uniform(-0.4, 0.4)).shift(*rng.uniform(-5, 5, 2))
            images.append((draw(galaxy, 0.71, CFHT, shape_in), draw(galaxy, 1.32, SDSS, shape)))
        observation = Observation(
            data=np.array([a for a, _ in images]),
            psf=np.repeat(moffat_psf(0.71 / CFHT)[None], len(images), axis=0),
            pixel_scale=CFHT,
        )
        target = affine(shape_in, shape, SDSS / CFHT)
        target = with_psf(target, np.repeat(moffat_psf(1.32 / SDSS)[None], len(images), axis=0))
        return observation, target, np.array([b for _, b in images])

    @staticmethod
    def errors(result, truth):
        l2 = np.sqrt(((result - truth) ** 2).sum(axis=(1, 2)) / (truth**2).sum(axis=(1, 2)))
        flux = result.sum(axis=(1, 2), dtype=float) / truth.sum(axis=(1, 2))
        return l2, np.abs(flux - 1)

    def test_default(self, pairs):
        observation, target, truth = pairs
        result = run(observation, target)
        l2, flux = self.errors(result.data, truth)
        assert result.info["resampling_0"] == "bicubic"
        assert l2.max() < 1e-3, l2
        assert flux.max() < 1e-4, flux
        np.testing.assert_allclose(result.data.max(axis=(1, 2)), truth.max(axis=(1, 2)), rtol=1e-3)
        for got, expected in zip(result.data, truth, strict=True):
            assert np.abs(centroid(got) - centroid(expected)).max() < 0.01

    @pytest.mark.parametrize(("method", "worst"), [("bilinear", 0.01), ("exact", 0.03), ("adaptive", 0.1)])
    def test_other_methods(self, pairs, method, worst):
        observation, target, truth = pairs
        l2, flux = self.errors(run(observation, target, resampling=method).data, truth)
        best, _ = self.errors(run(observation, target).data, truth)
        assert (best < l2).all()
        assert l2.max() < worst, l2
        assert flux.max() < 3e-3, flux

    def test_rotated_and_mirrored_grid(self, pairs):
        observation, target, truth = pairs
        # Turned by 90 degrees and mirrored, the output's pixels have the truth's transposed.
        turned = affine(observation.shape[1:], target.shape, SDSS / CFHT, angle=90.0, flip=True)
        result = run(observation, with_psf(turned, target.psf))
        l2, _ = self.errors(result.data, truth.transpose(0, 2, 1)[:, ::-1, ::-1])
        assert l2.max() < 3e-3, l2


class TestKernel:
    def test_elongated_psf_turns_with_the_grid(self):
        # A target PSF that is long along its x; on a grid turned by 90 degrees that is the input's y.
        y, x = np.mgrid[-12:13, -12:13]
        long = np.exp(-(x**2) / (2 * 4.0**2) - y**2 / (2 * 2.5**2))
        long /= long.sum()
        spot = gaussian_spot((81, 81), 40, 40, 3.0)
        observation = Observation(data=spot[None], psf=gaussian_psf(3.0)[None])
        for angle in (0, 90, 30):
            target = with_psf(affine((81, 81), (81, 81), 1.0, angle), long[None])
            result = run(observation, target).data[0]
            np.testing.assert_allclose(result[28:53, 28:53] / 100, long, rtol=0, atol=2e-4)

    def test_psf_on_input_keeps_width_and_centre(self):
        for angle in (0.0, 17.0):
            jacobian = 2.1 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            psf = psf_on_input(gaussian_psf(3.5), jacobian)
            assert psf.shape[0] % 2 == 1
            assert psf.sum() == pytest.approx(1, abs=1e-12)
            assert psf_fwhm(psf) == pytest.approx(2.1 * psf_fwhm(gaussian_psf(3.5)), rel=5e-3)
            half = len(psf) // 2
            np.testing.assert_allclose(centroid(psf), [half, half], rtol=0, atol=1e-3)

    def test_same_grid_and_psf_changes_nothing(self, rng):
        data = convolve(rng.normal(size=(1, 60, 50)), gaussian_psf(3.0)).astype(np.float32)
        observation = Observation(data=data, psf=gaussian_psf(3.0)[None])
        target = with_psf(affine((60, 50), (60, 50), 1.0), gaussian_psf(3.0)[None])
        result = run(observation, target)
        np.testing.assert_allclose(result.data, data, rtol=0, atol=1e-6 * np.abs(data).max())
        assert not result.flags.any()

    def test_sharper_target_is_resampled_only(self):
        spot = gaussian_spot((60, 60), 30, 29, 6.0)
        observation = Observation(data=spot[None], psf=gaussian_psf(6.0)[None], bands=("r",))
        target = with_psf(affine((60, 60), (120, 120), 0.5), gaussian_psf(6.0)[None])
        with pytest.warns(PSFWarning, match="band 'r'.*no convolution sharpens"):
            result = run(observation, target)
        assert result.info["unmatched"] == "r"
        np.testing.assert_allclose(result.data[0], run(observation, target, match=False).data[0], rtol=0, atol=0)
        assert psf_fwhm(result.data[0, 40:79, 42:81] / result.data.sum()) == pytest.approx(12, rel=0.02)

    def test_only_the_bands_that_can_be_matched_are(self):
        spots = np.stack([gaussian_spot((60, 60), 30, 30, fwhm) for fwhm in (3.0, 8.0)])
        kernels = [np.pad(gaussian_psf(3.0), 12)[:39, :39], gaussian_psf(8.0, 39)]
        observation = Observation(data=spots, psf=np.array(kernels), bands=("g", "r"))
        target = with_psf(affine((60, 60), (60, 60), 1.0), np.repeat(gaussian_psf(5.0)[None], 2, axis=0))
        with pytest.warns(PSFWarning, match="band 'r'"):
            result = run(observation, target)
        assert result.info["unmatched"] == "r"
        assert result.data[0].max() < 0.5 * spots[0].max()
        np.testing.assert_allclose(result.data[1], spots[1], rtol=0, atol=1e-4)

    def test_psf_needed(self):
        target = with_psf(affine((9, 9), (9, 9), 1.0), gaussian_psf(2.0)[None])
        with pytest.raises(PSFError, match="match=False"):
            run(Observation(data=np.ones((1, 9, 9))), target)


class TestGeometry:
    @pytest.mark.parametrize("angle", [0.0, 33.0, -120.0])
    @pytest.mark.parametrize("flip", [False, True])
    @pytest.mark.parametrize("ratio", [2.1176, 1.0, 0.4722])
    def test_sources_land_where_the_mapping_says(self, ratio, angle, flip):
        shape_in = (90, 110)
        shape = tuple(int(n / ratio) for n in shape_in)
        target = affine(shape_in, shape, ratio, angle, flip, shift=(0.3, -0.7))
        x, y = 61.3, 38.9
        observation = Observation(data=gaussian_spot(shape_in, x, y, 5.0)[None])
        result = run(observation, target)
        expected = np.ravel(target.to_output(x, y))
        assert np.abs(centroid(result.data[0]) - expected).max() < 0.02
        assert result.data.sum() == pytest.approx(100, rel=1e-3)

    @settings(max_examples=25)
    @given(ratio=st.floats(0.3, 4), angle=st.floats(-180, 180), flip=st.booleans(), x=st.floats(45, 75))
    def test_flux_and_position(self, ratio, angle, flip, x):
        shape_in = (120, 120)
        shape = (int(120 / ratio),) * 2
        target = affine(shape_in, shape, ratio, angle, flip)
        fwhm = 4 * max(ratio, 1)
        observation = Observation(
            data=gaussian_spot(shape_in, x, 63.2, 4.0)[None], psf=gaussian_psf(4.0)[None].astype(np.float32)
        )
        result = run(observation, with_psf(target, gaussian_psf(1.3 * fwhm / ratio)[None]))
        assert result.data.sum() == pytest.approx(100, rel=1e-3)
        assert np.abs(centroid(result.data[0]) - np.ravel(target.to_output(x, 63.2))).max() < 0.05

    def test_agrees_with_reproject_interp(self, rng):
        from reproject import reproject_interp

        image = convolve(rng.normal(size=(80, 90)), gaussian_psf(5.0))
        a, b = tan(0.2, 10.0, (80, 90)), tan(0.3, -25.0, (50, 50))
        target = Target((50, 50), pixel_mapping(b, a), pixel_mapping(a, b), (0.3 / 0.2) ** 2, wcs_in=a, wcs_out=b)
        for ours, theirs in (("bicubic", "bicubic"), ("bilinear", "bilinear")):
            result = run(Observation(data=image[None]), target, resampling=ours)
            expected, _ = reproject_interp((image.astype(np.float32), a), b, shape_out=(50, 50), order=theirs)
            grid = grid_of(target.to_input, target.shape, (80, 90))
            # Splines feel the edge, where the two do not continue the image alike.
            inside = (np.abs(grid.x - 44.5) < 34) & (np.abs(grid.y - 39.5) < 29)
            assert inside.sum() > 500
            got = result.data[0][inside] / grid.area[inside]
            np.testing.assert_allclose(got, expected[inside], rtol=0, atol=2e-4 * np.abs(image).max())

    @pytest.mark.parametrize("ratio", [2.1176, 1.0, 0.4722])
    def test_products_of_overlaps_are_reprojects(self, ratio, rng):
        from reproject import reproject_exact

        from astrogan.backends.classic._resampling import _affine_pair

        image = rng.normal(size=(40, 50))
        target = affine((40, 50), (int(36 / ratio), int(44 / ratio)), ratio, shift=(0.2, -0.4))
        grid = grid_of(target.to_input, target.shape, (40, 50))
        assert grid.separable
        wcs_in, wcs_out = _affine_pair(grid)
        expected, _ = reproject_exact((image, wcs_in), wcs_out, shape_out=target.shape)
        np.testing.assert_allclose(resample(image, grid, "exact"), expected, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("method", METHODS)
    def test_distortion_conserves_flux(self, method):
        distorted = sip(0.2, (200, 200))
        straight = rescale_wcs(sip(0.2, (200, 200), strength=0.0), 0.5, (200, 200))
        to_input, to_output = pixel_mapping(straight, distorted), pixel_mapping(distorted, straight)
        target = Target((100, 100), to_input, to_output, 4.0, wcs_in=distorted, wcs_out=straight)
        for x, y in ((100, 100), (40, 150), (160, 30)):
            observation = Observation(data=gaussian_spot((200, 200), x, y, 7.0)[None])
            result = run(observation, target, resampling=method)
            # 3 per cent of area from place to place would show.
            assert result.data.sum() == pytest.approx(100, rel=3e-3)
            assert np.abs(centroid(result.data[0]) - np.ravel(to_output(x, y))).max() < 0.05

    def test_exact_needs_a_wcs_where_the_mapping_bends(self):
        target = Target((20, 20), lambda x, y: (x + 1e-3 * x * y, y), lambda x, y: (x, y), 1.0)
        with pytest.raises(InputError, match="resampling='exact'"):
            run(Observation(data=np.ones((1, 30, 30))), target, resampling="exact")

    def test_no_overlap(self):
        target = Target((5, 5), lambda x, y: (x + 1e4, y), lambda x, y: (x - 1e4, y), 1.0)
        with pytest.raises(InputError, match="no pixel of its grid"):
            run(Observation(data=np.ones((1, 30, 30))), target)
        target = Target((5, 5), lambda x, y: (x * np.nan, y), lambda x, y: (x, y), 1.0)
        with pytest.raises(InputError, match="no position on the image"):
            run(Observation(data=np.ones((1, 30, 30))), target)


class TestFlagsAndMasks:
    def test_footprint(self):
        # 30 pixels of 1 are 14 whole pixels of 2.1 and a bit; a 16-pixel grid hangs over on both sides.
        target = affine((30, 30), (16, 16), 2.1)
        result = run(Observation(data=np.ones((1, 30, 30))), target, resampling="bicubic")
        inside = np.zeros((16, 16), bool)
        inside[1:-1, 1:-1] = True
        np.testing.assert_array_equal(~result.flags[0], inside)
        np.testing.assert_allclose(result.data[0][inside], 2.1**2, rtol=1e-6)

    def test_exact_edges_are_inside(self):
        result = run(Observation(data=np.ones((1, 30, 40))), affine((30, 40), (15, 20), 2.0))
        assert not result.flags.any()
        np.testing.assert_allclose(result.data, 4.0, rtol=1e-6)

    def test_far_outside_is_zero(self):
        result = run(Observation(data=np.ones((1, 20, 20))), affine((20, 20), (60, 60), 1.0))
        assert (result.data[0, :19] == 0).all()
        assert result.flags[0, :19].all()

    @pytest.mark.parametrize("psf", [None, 3.0])
    def test_bad_pixels(self, psf):
        valid = np.ones((1, 60, 60), bool)
        valid[0, 20:26, 30:36] = False
        observation = Observation(
            data=np.ones((1, 60, 60)), valid=valid, psf=None if psf is None else gaussian_psf(psf)[None]
        )
        target = affine((60, 60), (30, 30), 2.0)
        target = target if psf is None else with_psf(target, gaussian_psf(3.0)[None])
        flags = run(observation, target).flags[0]
        assert flags[10:13, 15:18].all()
        assert not flags[:5].any()
        assert not flags[:, :8].any()
        assert 9 <= flags.sum() <= 100

    def test_variance_under_the_mask_has_no_say(self, rng):
        valid = rng.random((1, 40, 40)) > 0.1
        variance = np.ones((1, 40, 40), np.float32)
        target = affine((40, 40), (20, 20), 2.0)
        results = []
        for value in (1.0, 1e30):
            other = np.where(valid, variance, value).astype(np.float32)
            results.append(run(Observation(data=np.ones((1, 40, 40)), valid=valid, variance=other), target).variance)
        np.testing.assert_array_equal(*results)


class TestVariance:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("angle", [0.0, 25.0])
    @pytest.mark.parametrize("kernel", [None, 1.2, 4.0])
    def test_against_many_noise_fields(self, method, angle, kernel, rng):
        """Squared weights, correlation by the kernel included: on average and from place to place."""
        shape_in, n = (64, 64), 60 if method == "exact" else 120
        target = affine(shape_in, (24, 24), 1.7, angle)
        grid = grid_of(target.to_input, target.shape, shape_in)
        sigma = 1 + 0.5 * np.sin(np.arange(64) / 9)[:, None] * np.ones(64)
        taps = Taps(method, grid.jacobian)
        psf = None if kernel is None else gaussian_psf(kernel)
        total = np.zeros(target.shape)
        for _ in range(n):
            noise = rng.normal(size=shape_in) * sigma
            noise = noise if psf is None else convolve(noise, psf)
            total += resample(noise, grid, method) ** 2
        from astrogan.backends.classic.psf_matching import _variance

        ratio = total / n / (_variance(sigma**2, psf, grid, taps) / grid.area**2)
        assert ratio.mean() == pytest.approx(1, abs=0.04)
        assert ratio.std() < 1.25 * np.sqrt(2 / n)

    def test_whole_chain(self, rng):
        """From the observation's variance to the estimate's."""
        shape_in = (100, 100)
        target = with_psf(affine(shape_in, (40, 40), 2.1176), moffat_psf(3.3)[None])
        observation = Observation(data=np.zeros((1, 100, 100)), variance=np.full((1, 100, 100), 4.0),
                                  psf=moffat_psf(3.8)[None])  # fmt: skip
        predicted = run(observation, target).variance[0]
        backend, n = PSFMatching(), 40
        total = np.zeros((40, 40))
        for _ in range(n):
            noisy = observation.replace(data=rng.normal(0, 2.0, (1, 100, 100)))
            total += backend(noisy, target, rng=rng).data[0].astype(float) ** 2
        assert (total / n / predicted).mean() == pytest.approx(1, abs=0.03)

    def test_integer_rebinning_is_the_sum(self):
        variance = np.arange(1.0, 37.0).reshape(1, 6, 6)
        result = run(Observation(data=np.ones((1, 6, 6)), variance=variance), affine((6, 6), (3, 3), 2.0))
        np.testing.assert_allclose(result.variance[0], variance[0].reshape(3, 2, 3, 2).sum(axis=(1, 3)), rtol=1e-5)

    def test_none_without(self):
        assert run(Observation(data=np.ones((1, 6, 6))), affine((6, 6), (3, 3), 2.0)).variance is None


class TestNoise:
    def test_reaches_the_target(self, rng):
        shape_in = (300, 300)
        observation = Observation(
            data=rng.normal(0, 0.5, (2, *shape_in)),
            variance=np.full((2, *shape_in), 0.25),
            psf=np.repeat(gaussian_psf(4.0)[None], 2, axis=0),
        )
        target = affine(shape_in, (140, 140), 2.1)
        target = with_psf(target, np.repeat(gaussian_psf(3.0)[None], 2, axis=0), noise=np.array([3.0, 0.9]))
        result = run(observation, target)
        inner = result.data[:, 5:-5, 5:-5]
        np.testing.assert_allclose(inner.std(axis=(1, 2)), [3.0, 0.9], rtol=0.02)
        np.testing.assert_allclose(np.median(result.variance, axis=(1, 2)), [9.0, 0.81], rtol=1e-3)
        assert result.info["noise_0"] < 3.0

    def test_noisier_already(self, rng):
        observation = Observation(data=rng.normal(size=(1, 50, 50)), variance=np.ones((1, 50, 50)), bands=("u",))
        target = with_psf(affine((50, 50), (25, 25), 2.0), gaussian_psf(2.0)[None], noise=np.array([0.1]))
        result = run(observation, target, match=False)
        assert result.info["noisier"] == "u"
        np.testing.assert_array_equal(result.data, run(observation, target, match=False, noise=False).data)

    def test_without_variance_the_image_is_free_of_noise(self):
        target = with_psf(affine((200, 200), (100, 100), 2.0), gaussian_psf(2.0)[None], noise=np.array([2.0]))
        result = run(Observation(data=np.zeros((1, 200, 200))), target, match=False)
        assert result.data.std() == pytest.approx(2.0, rel=0.02)
        assert result.variance is None

    def test_seeds(self):
        target = with_psf(affine((20, 20), (20, 20), 1.0), gaussian_psf(2.0)[None], noise=np.array([2.0]))
        observation = Observation(data=np.zeros((1, 20, 20)))
        a, b, c = (run(observation, target, seed, match=False).data for seed in (1, 1, 2))
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


class TestContract:
    @pytest.mark.parametrize("factor", [1e-3, 1e4])
    def test_scaling(self, factor, rng):
        data = rng.normal(size=(1, 50, 40)).astype(np.float32)
        target = with_psf(affine((50, 40), (24, 19), 2.1, 10.0), gaussian_psf(3.0)[None])
        observation = Observation(data=data, variance=np.ones_like(data), psf=gaussian_psf(4.0)[None])
        scaled = observation.replace(data=data * factor, variance=observation.variance * factor**2)
        a, b = run(observation, target), run(scaled, target)
        np.testing.assert_allclose(b.data / factor, a.data, rtol=0, atol=1e-5)
        np.testing.assert_allclose(b.variance / factor**2, a.variance, rtol=1e-4)

    @pytest.mark.parametrize("value", [0.0, 1.0, -3e6])
    def test_constant(self, value):
        target = with_psf(affine((50, 40), (20, 16), 2.1), gaussian_psf(3.0)[None])
        observation = Observation(data=np.full((1, 50, 40), value), psf=gaussian_psf(4.0)[None])
        result = run(observation, target)
        assert not result.flags.any()
        np.testing.assert_allclose(result.data, value * 2.1**2, rtol=1e-5)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2), (5, 5)])
    def test_tiny(self, shape):
        result = run(Observation(data=np.ones((1, *shape)), variance=np.ones((1, *shape))), affine(shape, shape, 1.0))
        np.testing.assert_allclose(result.data, 1.0, rtol=1e-6)
        np.testing.assert_allclose(result.variance, 1.0, rtol=0.05)

    def test_threads(self, rng):
        from concurrent.futures import ThreadPoolExecutor

        observation = Observation(data=rng.normal(size=(1, 64, 64)), psf=gaussian_psf(3.0)[None])
        target = with_psf(affine((64, 64), (30, 30), 2.0), gaussian_psf(3.0)[None])
        backend = PSFMatching()
        expected = backend(observation, target, rng=rng).data
        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(backend, observation, target, rng=np.random.default_rng(0)) for _ in range(8)]:
                np.testing.assert_array_equal(future.result().data, expected)

    @pytest.mark.parametrize(
        "options",
        [
            {"resampling": "lanczos"},
            {"regularisation": 0},
            {"tolerance": 2.0},
            {"mask_threshold": "1 %"},
            {"match": "yes"},
            {"noise": 1},
        ],
    )
    def test_bad_options(self, options):
        with pytest.raises(InputError, match=next(iter(options)) + "="):
            PSFMatching(**options)

    def test_no_stray_warning(self, rng):
        observation = Observation(data=rng.normal(size=(1, 30, 30)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for method in METHODS:
                run(observation, affine((30, 30), (12, 12), 2.1, 5.0), resampling=method)
