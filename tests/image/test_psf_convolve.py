import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import convolve as signal_convolve
from scipy.signal import fftconvolve

from astrogan.exceptions import InputError, PSFError
from astrogan.image.psf import as_psf, convolve, gaussian_psf, matching_kernel, moffat_psf, psf_fwhm, resample_psf


class TestConvolve:
    @given(
        shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
        half=st.integers(0, 20),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_equals_direct_summation_with_mirrored_border(self, shape, half, seed):
        rng = np.random.default_rng(seed)
        data, kernel = rng.normal(0, 1, shape), rng.random((2 * half + 1, 2 * half + 1))
        # Not scipy.ndimage: before 1.17 it is wrong where the kernel is wider than the image.
        expected = signal_convolve(np.pad(data, half, mode="symmetric"), kernel, mode="valid", method="direct")
        assert np.allclose(convolve(data, kernel), expected, rtol=0, atol=1e-11 * kernel.sum())
        single = convolve(data.astype(np.float32), kernel)
        assert single.dtype == np.float32
        assert np.allclose(single, expected, rtol=0, atol=3e-6 * kernel.sum())

    @pytest.mark.parametrize("shape", [(900, 1000), (1601, 60), (60, 1601), (801, 1200)])
    @pytest.mark.parametrize("size", [7, 41])
    def test_blocks_fit_together(self, shape, size):
        rng = np.random.default_rng(0)
        data, kernel = rng.normal(0, 1, shape), rng.random((size, size)) / size**2
        half = size // 2
        expected = fftconvolve(np.pad(data, half, mode="symmetric"), kernel, mode="valid")
        assert np.abs(convolve(data, kernel) - expected).max() < 1e-12

    @pytest.mark.parametrize("kernel", [moffat_psf(3.0), gaussian_psf(1.0), moffat_psf(6.0)])
    def test_flux_is_conserved_and_a_constant_stays(self, kernel):
        rng = np.random.default_rng(1)
        data = (rng.random((83, 71)) ** 20 * 1e4 - 5).astype(np.float32)
        assert convolve(data, kernel).sum(dtype=float) == pytest.approx(data.sum(dtype=float), rel=1e-5)
        constant = np.full((50, 40), 1234.5, np.float32)
        assert np.abs(convolve(constant, kernel) / 1234.5 - 1).max() < 1e-6
        assert (convolve(np.zeros((50, 40), np.float32), kernel) == 0).all()

    def test_a_high_pedestal_costs_no_precision(self):
        data = np.random.default_rng(2).normal(0, 1, (128, 128)).astype(np.float32)
        kernel = gaussian_psf(5.0)
        assert np.abs(convolve(data + 1e4, kernel) - 1e4 - convolve(data, kernel)).max() < 2e-3

    @pytest.mark.parametrize("scale", [1e-3, 1e4])
    def test_scales(self, scale):
        data = np.random.default_rng(3).normal(0, 1, (64, 64)).astype(np.float32)
        kernel = moffat_psf(3.0)
        np.testing.assert_allclose(
            convolve(np.float32(scale) * data, kernel), scale * convolve(data, kernel), atol=1e-6 * scale
        )

    def test_asymmetric_kernels_are_not_flipped(self):
        data = np.zeros((21, 21))
        data[10, 10] = 1
        kernel = np.random.default_rng(4).random((9, 9))
        assert np.allclose(convolve(data, kernel)[6:15, 6:15], kernel)

    def test_bands(self):
        data = np.random.default_rng(5).normal(0, 1, (3, 40, 30)).astype(np.float32)
        kernels = np.stack([gaussian_psf(f, 21) for f in (2.0, 3.0, 4.0)])
        each = convolve(data, kernels)
        for i in range(3):
            assert np.array_equal(each[i], convolve(data[i], kernels[i]))
        assert np.array_equal(convolve(data, kernels[0])[2], convolve(data[2], kernels[0]))
        assert np.array_equal(convolve(data, kernels[:1])[2], convolve(data[2], kernels[0]))
        assert np.array_equal(convolve(data[0], kernels[:1]), convolve(data[0], kernels[0]))

    @pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", "<f4"])
    def test_byte_order_and_no_mutation(self, dtype):
        data = np.arange(400).reshape(20, 20).astype(dtype)
        data.setflags(write=False)
        result = convolve(data[::-1], gaussian_psf(4.0))
        assert result.dtype.isnative
        assert np.allclose(result, convolve(np.arange(400.0).reshape(20, 20)[::-1], gaussian_psf(4.0)), atol=1e-3)

    def test_bad_shapes(self):
        with pytest.raises(InputError, match=r"data has shape \(5,\)"):
            convolve(np.ones(5), gaussian_psf(3.0))
        with pytest.raises(InputError, match="k odd"):
            convolve(np.ones((5, 5)), np.ones((4, 4)))
        with pytest.raises(InputError, match="number of bands"):
            convolve(np.ones((3, 5, 5)), np.ones((2, 3, 3)))
        with pytest.raises(InputError, match="number of bands"):
            convolve(np.ones((5, 5)), np.ones((2, 3, 3)))


def residual(source, target, kernel):
    """Largest difference of source (*) K and target, over the target's peak, without any periodicity."""
    n = max(len(source), len(target)) + len(kernel)
    n += 1 - n % 2

    def pad(k):
        return np.pad(k.astype(float), (n - len(k)) // 2)

    return np.abs(fftconvolve(pad(source), kernel, mode="same") - pad(target)).max() / target.max()


class TestMatchingKernel:
    @pytest.mark.parametrize(
        ("source", "target"),
        [
            (gaussian_psf(3.0), gaussian_psf(5.0)),
            (gaussian_psf(3.0), gaussian_psf(3.1)),
            (gaussian_psf(2.0), gaussian_psf(6.0)),
            (moffat_psf(3.0), moffat_psf(5.0)),
            (moffat_psf(3.0), moffat_psf(3.3)),
            (moffat_psf(2.5, 2.5), moffat_psf(4.0, 2.5)),
            (moffat_psf(3.8), moffat_psf(7.06)),
            (gaussian_psf(3.0), moffat_psf(4.0)),
            (moffat_psf(3.0), gaussian_psf(5.0)),
        ],
    )
    def test_matches_to_a_thousandth_of_the_peak(self, source, target):
        kernel = matching_kernel(source, target)
        assert kernel.dtype == np.float32
        assert len(kernel) % 2 == 1
        assert kernel.sum(dtype=float) == pytest.approx(1, abs=1e-5)
        assert residual(source, target, kernel) < 1e-3
        assert np.sqrt((kernel.astype(float) ** 2).sum()) < 1

    def test_equal_psfs_give_the_identity(self):
        kernel = matching_kernel(moffat_psf(3.0), moffat_psf(3.0))
        assert kernel.shape == (1, 1)
        assert kernel[0, 0] == pytest.approx(1)

    def test_elliptical_psfs(self):
        narrow = gaussian_psf(3.0, 31).sum(axis=0)
        wide = gaussian_psf(5.0, 31).sum(axis=0)
        broad = gaussian_psf(7.0, 41).sum(axis=0)
        source, target = np.outer(wide, narrow), np.outer(broad, broad)
        kernel = matching_kernel(source, target)
        assert residual(source, target, kernel) < 1e-3
        width_x, width_y = (psf_fwhm(np.outer(line, line)) for line in (kernel.sum(axis=0), kernel.sum(axis=1)))
        assert width_x > width_y

    def test_any_normalisation(self):
        a = matching_kernel(100 * gaussian_psf(3.0), 1e-5 * gaussian_psf(5.0))
        assert np.allclose(a, matching_kernel(gaussian_psf(3.0), gaussian_psf(5.0)), atol=1e-7)

    @pytest.mark.parametrize(
        ("source", "target"),
        [
            (gaussian_psf(4.0), gaussian_psf(3.0)),
            (moffat_psf(4.0), moffat_psf(3.9)),
            (moffat_psf(3.0), gaussian_psf(1.0)),
        ],
    )
    def test_a_sharper_target_is_refused(self, source, target):
        with pytest.raises(PSFError, match=r"no convolution sharpens.*Restorer"):
            matching_kernel(source, target)

    def test_sharper_in_one_direction_only_is_refused(self):
        line = {f: gaussian_psf(f, 51).sum(axis=0) for f in (2.0, 6.0, 4.6)}
        source, target = np.outer(line[6.0], line[2.0]), np.outer(line[4.6], line[4.6])
        assert psf_fwhm(target) > psf_fwhm(source)
        with pytest.raises(PSFError, match="cannot be brought"):
            matching_kernel(source, target)

    def test_bad_arguments(self):
        with pytest.raises(PSFError, match=r"target has shape \(4, 4\)"):
            matching_kernel(gaussian_psf(3.0), np.ones((4, 4)))
        with pytest.raises(PSFError, match="source has 1 NaN"):
            matching_kernel(np.where(np.eye(3) * [1, 0, 0] > 0, np.nan, 1.0), gaussian_psf(3.0))
        for value in (0, -1, np.nan):
            with pytest.raises(InputError, match="regularisation="):
                matching_kernel(gaussian_psf(3.0), gaussian_psf(5.0), regularisation=value)

    @pytest.mark.filterwarnings("ignore::astrogan.exceptions.PSFWarning")
    def test_kids_to_sdss(self, data_dir):
        folder = data_dir / "kids_sdss_pairs"
        kids, sdss = (as_psf(folder / s / "G266033psfim.fits").kernels[0] for s in ("KiDS", "SDSS"))
        target = resample_psf(sdss, 0.339, 0.2)
        kernel = matching_kernel(kids, target)
        assert residual(kids, target, kernel) < 5e-3
        assert np.sqrt((kernel.astype(float) ** 2).sum()) < 0.2

    @pytest.mark.filterwarnings("ignore::astrogan.exceptions.PSFWarning")
    def test_jwst_short_to_long(self, data_dir):
        folder = data_dir / "jwst_galfits" / "10735" / "PSF"
        short, long = (as_psf(folder / f"{b}_hybrid.fits").kernels[0] for b in ("F115W", "F444W"))
        assert residual(short, long, matching_kernel(short, long)) < 0.02
        with pytest.raises(PSFError, match="sharpens"):
            matching_kernel(long, short)
