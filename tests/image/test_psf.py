import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.convolution import Gaussian2DKernel
from astropy.io import fits
from astropy.modeling.models import Const2D, Gaussian2D, Moffat2D
from astropy.nddata import CCDData, NDData
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from photutils.psf import CircularGaussianPRF, CircularGaussianPSF, GaussianPSF, GriddedPSFModel, ImagePSF, MoffatPSF
from scipy.special import ndtr

from astrogan.exceptions import PSFError, PSFWarning
from astrogan.image._kernels import centroid
from astrogan.image.psf import (
    GridPSF,
    PSFModel,
    as_psf,
    convolve,
    gaussian_psf,
    moffat_psf,
    psf_fwhm,
    resample_psf,
    trim_psf,
)

FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


def gaussian_at(fwhm, shape, x, y):
    """A pixel-integrated Gaussian anywhere on any array, by another road than the library's."""
    sigma = fwhm / FWHM_PER_SIGMA
    line_x = np.diff(ndtr((np.arange(shape[1] + 1) - 0.5 - x) / sigma))
    line_y = np.diff(ndtr((np.arange(shape[0] + 1) - 0.5 - y) / sigma))
    return np.outer(line_y, line_x)


def off_centre(model):
    """Largest distance of a band's windowed centroid from its middle pixel."""
    middle = model.size // 2
    return max(np.hypot(x - middle, y - middle) for x, y in map(centroid, model.kernels))


def assert_is_psf(model, n_bands=1):
    kernels = model.kernels
    assert kernels.shape == (n_bands, model.size, model.size)
    assert kernels.dtype == np.float32
    assert model.size % 2 == 1
    assert not kernels.flags.writeable
    assert np.isfinite(kernels).all()
    assert np.allclose(kernels.sum(axis=(1, 2), dtype=float), 1, atol=1e-6)
    assert off_centre(model) < 0.01


class TestProfiles:
    @pytest.mark.parametrize("fwhm", [0.8, 1.5, 2.5, 4.0, 9.3])
    def test_gaussian(self, fwhm):
        kernel = gaussian_psf(fwhm)
        truth = gaussian_at(fwhm, kernel.shape, len(kernel) // 2, len(kernel) // 2)
        assert np.abs(kernel - truth).max() < 1e-6
        assert kernel.sum(dtype=float) == pytest.approx(1, abs=1e-6)
        assert 1 - truth.sum() < 3e-6
        for turned in (kernel[::-1], kernel[:, ::-1], kernel.T):
            assert np.array_equal(kernel, turned)

    @pytest.mark.parametrize(("fwhm", "beta"), [(1.0, 3.0), (2.5, 2.5), (3.5, 4.765), (8.0, 3.0), (3.0, 1.5)])
    def test_moffat_against_fine_subpixels(self, fwhm, beta):
        kernel = moffat_psf(fwhm, beta, size=21)
        n = 41
        core = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
        x = (np.arange(21 * n) + 0.5) / n - 10.5
        fine = (1 + (x[None] ** 2 + x[:, None] ** 2) / core**2) ** -beta
        truth = fine.reshape(21, n, 21, n).sum(axis=(1, 3))
        assert np.abs(kernel - truth / truth.sum()).max() < 2e-4 * kernel.max()
        assert np.array_equal(kernel, kernel.T)
        assert np.array_equal(kernel, kernel[::-1])

    def test_moffat_holds_its_flux(self):
        core = 3.0 / (2 * np.sqrt(2 ** (1 / 3) - 1))
        half = len(moffat_psf(3.0)) // 2
        assert (1 + (half / core) ** 2) ** -2 < 1.1e-3

    @pytest.mark.parametrize("fwhm", [0, -1, np.nan, np.inf, "wide", None])
    def test_bad_fwhm(self, fwhm):
        for profile in (gaussian_psf, moffat_psf):
            with pytest.raises(PSFError, match="fwhm="):
                profile(fwhm)

    def test_bad_size_and_beta(self):
        with pytest.raises(PSFError, match="size=10"):
            gaussian_psf(3.0, size=10)
        with pytest.raises(PSFError, match="beta=1"):
            moffat_psf(3.0, beta=1)


class TestFWHM:
    @pytest.mark.parametrize("fwhm", [1.5, 2.0, 3.0, 5.5, 12.0])
    def test_gaussian(self, fwhm):
        """A pixel adds its variance of 1/12."""
        expected = np.sqrt(fwhm**2 + FWHM_PER_SIGMA**2 / 12)
        assert psf_fwhm(gaussian_psf(fwhm)) == pytest.approx(expected, rel=0.005)

    def test_elliptical_is_the_mean(self):
        kernel = np.outer(gaussian_psf(5.0).sum(axis=0), gaussian_psf(7.0).sum(axis=0)[2:-2])
        size = min(kernel.shape)
        assert 5 < psf_fwhm(kernel[: size - 1 + size % 2, : size - 1 + size % 2]) < 7.2

    def test_any_normalisation(self):
        kernel = moffat_psf(3.0)
        assert psf_fwhm(1e-20 * kernel.astype(float)) == pytest.approx(psf_fwhm(kernel), rel=1e-6)

    def test_point_and_plateau(self):
        assert 1 < psf_fwhm(np.ones((1, 1))) < 1.4
        assert psf_fwhm(np.ones((9, 9))) == pytest.approx(9 * np.sqrt(4 / np.pi), abs=0.5)  # a disc of equal area

    def test_not_a_centred_kernel(self):
        kernel = np.zeros((21, 21))
        kernel[0, 0] = 1
        with pytest.raises(PSFError, match="centre"):
            psf_fwhm(kernel)
        with pytest.raises(PSFError, match="shape"):
            psf_fwhm(np.ones((2, 3, 3)))


def gridded_model(fwhm=4.0):
    """photutils' grid of four PSFs, twice oversampled, of one width."""
    y, x = np.mgrid[:51, :51] - 25.0
    stamp = np.exp(-0.5 * (x**2 + y**2) / (2 * fwhm / FWHM_PER_SIGMA) ** 2)
    positions = [(0, 0), (100, 0), (0, 100), (100, 100)]
    data = np.stack([stamp] * 4)
    return GriddedPSFModel(NDData(data, meta={"grid_xypos": positions, "oversampling": 2}))


def image_psf(fwhm=4.0, oversampling=1):
    y, x = np.mgrid[: 40 * oversampling + 1, : 40 * oversampling + 1] - 20.0 * oversampling
    sigma = oversampling * fwhm / FWHM_PER_SIGMA
    return ImagePSF(np.exp(-0.5 * (x**2 + y**2) / sigma**2), oversampling=oversampling)


SIGMA4 = 4.0 / FWHM_PER_SIGMA
FORMS = {
    "int": 4,
    "float": 4.0,
    "numpy scalar": np.float32(4),
    "0-d array": np.array(4.0),
    "text in pixels": "4 pix",
    "text in arcsec": "2 arcsec",
    "pixels": 4 * u.pix,
    "arcsec": 2 * u.arcsec,
    "degrees": (2 / 3600) * u.deg,
    "mas": 2000 * u.mas,
    "array": gaussian_psf(4.0),
    "unnormalised float64": 1e7 * gaussian_psf(4.0).astype(float),
    "big-endian": gaussian_psf(4.0).astype(">f4"),
    "read-only negative stride": gaussian_psf(4.0)[::-1, ::-1],
    "list of lists": gaussian_psf(4.0).astype(float).tolist(),
    "dimensionless quantity": u.Quantity(gaussian_psf(4.0)),
    "NDData": NDData(gaussian_psf(4.0)),
    "CCDData": CCDData(gaussian_psf(4.0), unit="adu"),
    "Kernel2D": Gaussian2DKernel(SIGMA4, x_size=25),
    "Gaussian2D": Gaussian2D(7.0, 100.3, -20.7, SIGMA4, SIGMA4),
    "Gaussian2D in arcsec": Gaussian2D(1.0, 3 * u.arcsec, 0 * u.arcsec, SIGMA4 / 2 * u.arcsec, SIGMA4 / 2 * u.arcsec),
    "CircularGaussianPSF": CircularGaussianPSF(fwhm=4.0),
    "GaussianPSF": GaussianPSF(x_fwhm=4.0, y_fwhm=4.0, theta=30),
    "CircularGaussianPRF": CircularGaussianPRF(fwhm=4.0),
    "ImagePSF": image_psf(),
    "ImagePSF oversampled": image_psf(oversampling=4),
    "GriddedPSFModel": gridded_model(),
    "function": lambda x, y: gaussian_psf(4.0),
    "GridPSF": GridPSF([(0, 0), (9, 9)], [4.0, gaussian_psf(4.0)]),
    "PSFModel": PSFModel(gaussian_psf(4.0)[None]),
    "list": [4.0],
    "dict": {"r": 4.0},
    "1-d array": np.array([4.0]),
    "1-d quantity": [2.0] * u.arcsec,
}
# Samples of a Gaussian taken as they are have not been broadened by the pixel.
NOT_INTEGRATED = {"Kernel2D", "ImagePSF", "ImagePSF oversampled", "GriddedPSFModel"}


class TestForms:
    @pytest.mark.parametrize("form", FORMS)
    def test_every_form_gives_the_same_psf(self, form):
        model = as_psf(FORMS[form], pixel_scale=0.5, shape=(101, 101))
        assert_is_psf(model)
        expected = 4.0 if form in NOT_INTEGRATED else np.hypot(4.0, FWHM_PER_SIGMA / np.sqrt(12))
        assert model.fwhm[0] == pytest.approx(expected, rel=0.004)

    @pytest.mark.parametrize("form", FORMS)
    def test_for_several_bands(self, form):
        model = as_psf(FORMS[form], n_bands=3, pixel_scale=0.5)
        assert_is_psf(model, 3)
        assert np.array_equal(model.kernels[0], model.kernels[2])
        assert model.at(3, 4).shape == model.kernels.shape

    @pytest.mark.parametrize("model", [Moffat2D(1.0, 2.2, 9.9, 3.0, 3.0), MoffatPSF(alpha=3.0, beta=3.0)])
    def test_moffat_models(self, model):
        fwhm = 2 * 3.0 * np.sqrt(2 ** (1 / 3) - 1)
        expected = moffat_psf(fwhm, 3.0)
        found = as_psf(model)
        assert_is_psf(found)
        size = min(found.size, len(expected))
        difference = found.resized(size).kernels[0] - PSFModel(expected[None]).resized(size).kernels[0]
        assert np.abs(difference).max() < 1e-3 * expected.max()

    def test_elliptical_and_compound_models(self):
        model = as_psf(Gaussian2D(1, 5, 5, 3.0, 1.5, theta=np.pi / 2))
        variance = [
            np.sum(model.kernels[0] * np.square(g)) for g in np.indices(model.kernels[0].shape) - model.size // 2
        ]
        assert variance[0] == pytest.approx(9 + 1 / 12, rel=0.01)
        assert variance[1] == pytest.approx(2.25 + 1 / 12, rel=0.01)
        both = as_psf(Gaussian2D(1, 5, 5, 1.5, 1.5) + Gaussian2D(0.1, 5, 5, 6, 6))
        assert_is_psf(both)
        assert both.size > as_psf(Gaussian2D(1, 5, 5, 1.5, 1.5)).size

    @pytest.mark.parametrize("suffix", [".fits", ".fits.gz", ".npy"])
    def test_files(self, tmp_path, suffix):
        path = tmp_path / f"psf{suffix}"
        kernel = moffat_psf(3.0)
        if suffix == ".npy":
            np.save(path, kernel)
        else:
            fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(kernel)]).writeto(path)
        for form in (path, str(path)):
            model = as_psf(form)
            assert_is_psf(model)
            assert np.allclose(model.kernels[0], kernel, atol=1e-7)

    def test_file_without_an_image(self, tmp_path):
        table = tmp_path / "t.fits"
        Table({"a": [1]}).write(table)
        for path, match in ((table, "no image"), (tmp_path / "absent.fits", "cannot be read")):
            with pytest.raises(PSFError, match=match):
                as_psf(path)

    def test_one_per_band(self):
        model = as_psf([2.0, 4.0, moffat_psf(3.0)], n_bands=3)
        assert_is_psf(model, 3)
        alone = [as_psf(p).fwhm[0] for p in (2.0, 4.0, moffat_psf(3.0))]
        assert np.allclose(model.fwhm, alone, rtol=1e-4)
        assert np.allclose(as_psf(np.array([2.0, 4.0]), n_bands=2).fwhm, alone[:2], rtol=1e-4)
        assert np.allclose(as_psf([1, 2] * u.arcsec, n_bands=2, pixel_scale=0.5).fwhm, alone[:2], rtol=1e-4)
        stack = as_psf(np.stack([gaussian_psf(2.0, 21), gaussian_psf(4.0, 21)]), n_bands=2)
        assert np.allclose(stack.fwhm, alone[:2], rtol=1e-4)

    def test_dict_goes_by_the_names_of_the_bands(self):
        psf = {"g": 3.0, "r": 2.0, "i": 5.0}
        by_name = as_psf(psf, n_bands=2, bands=("r", "g"))
        assert np.allclose(by_name.fwhm, as_psf([2.0, 3.0], n_bands=2).fwhm)
        with pytest.raises(PSFError, match=r"no entry for \['z'\]"):
            as_psf(psf, n_bands=2, bands=("r", "z"))

    def test_units(self):
        with pytest.raises(PSFError, match="pixel_scale="):
            as_psf(1.2 * u.arcsec)
        with pytest.raises(PSFError, match="angle"):
            as_psf(1.2 * u.s)
        assert as_psf(1.2 * u.arcsec, pixel_scale=0.4 * u.arcsec / u.pix).size == as_psf(3.0).size
        for scale in (0, -1, np.nan):
            with pytest.raises(PSFError, match="pixel_scale="):
                as_psf(1.2 * u.arcsec, pixel_scale=scale)

    def test_result_is_independent_of_the_input(self):
        kernel = gaussian_psf(3.0)
        before = kernel.copy()
        model = as_psf(kernel)
        kernel[:] = 0
        assert model.kernels.sum() == pytest.approx(1)
        kernel[:] = before
        as_psf(kernel)
        assert np.array_equal(kernel, before)


class TestCentring:
    @given(
        fwhm=st.floats(1.8, 6.0),
        dx=st.floats(-2, 2),
        dy=st.floats(-2, 2),
        ny=st.integers(26, 41),
        nx=st.integers(26, 41),
    )
    def test_any_offset_any_parity(self, fwhm, dx, dy, ny, nx):
        array = gaussian_at(fwhm, (ny, nx), (nx - 1) / 2 + dx, (ny - 1) / 2 + dy)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PSFWarning)
            model = as_psf(array)
        assert_is_psf(model)
        truth = gaussian_psf(fwhm, model.size)
        # What is sampled coarsely, no interpolation moves exactly.
        assert np.abs(model.kernels[0] - truth).max() < (0.003 if fwhm > 2.5 else 0.04) * truth.max()

    @given(dx=st.floats(-0.5, 0.5), dy=st.floats(-0.5, 0.5), even=st.booleans())
    def test_a_star_stays_where_it_is(self, dx, dy, even):
        """By first moments, which know nothing of how the library measures centres."""
        n = 26 if even else 25
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PSFWarning)
            kernel = as_psf(gaussian_at(3.0, (n, n), (n - 1) / 2 + dx, (n - 1) / 2 + dy)).kernels[0]
        star = gaussian_at(3.0, (81, 81), 40.2, 39.7)
        seen = convolve(star, kernel)
        y, x = np.indices(seen.shape)
        assert (seen * x).sum() / seen.sum() == pytest.approx(40.2, abs=0.01)
        assert (seen * y).sum() / seen.sum() == pytest.approx(39.7, abs=0.01)

    @pytest.mark.parametrize("centre", [(31.5, 31.5), (32, 32), (31, 32), (31.8, 30.9)])
    def test_even_arrays_are_made_odd_with_a_warning(self, centre):
        array = gaussian_at(4.0, (64, 64), *centre)
        with pytest.warns(PSFWarning, match=r"even 64 x 64 array.*31\.5"):
            model = as_psf(array)
        assert_is_psf(model)
        assert np.abs(model.kernels[0] - gaussian_psf(4.0, model.size)).max() < 1e-4

    def test_small_shifts_are_silent_and_larger_ones_are_not(self):
        as_psf(gaussian_at(4.0, (25, 25), 12.04, 12))
        with pytest.warns(PSFWarning, match=r"\(12\.06, 12\.00\)"):
            as_psf(gaussian_at(4.0, (25, 25), 12.06, 12))

    def test_not_recentred_on_request(self):
        array = gaussian_at(4.0, (19, 19), 9.4, 9)
        model = as_psf(array, recentre=False)
        assert np.allclose(model.kernels[0], array / array.sum(), atol=1e-7)
        with pytest.warns(PSFWarning, match="even"):
            model = as_psf(gaussian_at(4.0, (26, 26), 12.9, 12.5), recentre=False)
        x, y = centroid(model.kernels[0])
        assert x - model.size // 2 == pytest.approx(0.4, abs=1e-3)
        assert y - model.size // 2 == pytest.approx(0, abs=1e-3)

    def test_oblong_arrays_become_square(self):
        model = as_psf(gaussian_at(3.0, (31, 21), 10, 15))
        assert_is_psf(model)
        assert np.abs(model.kernels[0] - gaussian_psf(3.0, model.size)).max() < 1e-6

    def test_zero_borders_go(self):
        model = as_psf(np.pad(gaussian_psf(3.0), 50))
        assert model.size == len(gaussian_psf(3.0))

    def test_many_kernels_one_warning(self):
        stack = np.stack([gaussian_at(4.0, (25, 25), 12.3, 12)] * 5)
        with pytest.warns(PSFWarning, match="4 more kernels") as record:
            as_psf(stack, n_bands=5)
        assert len(record) == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("array", "match"),
        [
            (np.zeros((5, 5)), "sums to 0"),
            (-gaussian_psf(3.0), "sums to -1"),
            (gaussian_psf(3.0) - 0.008, "negative"),
            (np.where(np.eye(5) > 0, np.nan, 1.0), "5 NaN or infinite"),
            (np.where(np.eye(5) > 0, np.inf, 1.0), "5 NaN or infinite"),
            (np.zeros((0, 0)), "shape"),
            (np.ones((2, 3, 4, 5)), "shape"),
            (np.array([["a", "b"], ["c", "d"]]), "no PSF"),
        ],
    )
    def test_what_is_no_psf(self, array, match):
        with pytest.raises(PSFError, match=match):
            as_psf(array)

    @pytest.mark.parametrize("fwhm", [0, -3.0, np.nan, np.inf, "0 arcsec", -1 * u.pix])
    def test_fwhm_out_of_range(self, fwhm):
        with pytest.raises(PSFError, match="positive number of pixels"):
            as_psf(fwhm, pixel_scale=0.4)

    def test_fwhm_of_absurd_size(self):
        with pytest.raises(PSFError, match="check its unit"):
            as_psf(5 * u.deg, pixel_scale=0.4)

    @pytest.mark.parametrize("thing", [None, True, object(), "seeing", dict, {"a"}])
    def test_unknown_forms(self, thing):
        with pytest.raises(PSFError, match="psf="):
            as_psf(thing)

    def test_wrong_number_of_bands(self):
        for psf in ([3.0, 4.0], np.stack([gaussian_psf(3.0)] * 2), {"g": 3.0, "r": 4.0}, np.array([3.0, 4.0])):
            with pytest.raises(PSFError, match=r"2.*3"):
                as_psf(psf, n_bands=3)
        with pytest.raises(PSFError, match="one band"):
            as_psf([np.stack([gaussian_psf(3.0)] * 2), 3.0], n_bands=2)
        with pytest.raises(PSFError, match="n_bands=0"):
            as_psf(3.0, n_bands=0)

    def test_masked_pixels(self):
        mask = np.zeros((15, 15), bool)
        mask[0, 0] = True
        with pytest.raises(PSFError, match="1 masked"):
            as_psf(NDData(gaussian_psf(3.0), mask=mask))

    def test_no_model_sets_and_no_flat_models(self):
        with pytest.raises(PSFError, match="set of models"):
            as_psf(Gaussian2D([1, 1], [0, 0], [0, 0], [2, 2], [2, 2], [0, 0], n_models=2))
        for value in (0.0, 1.0):
            with pytest.raises(PSFError, match="does not fall"):
                as_psf(Const2D(value))

    def test_slightly_negative_wings_pass(self):
        kernel = gaussian_psf(4.0).astype(float)
        kernel -= 0.02 / kernel.size
        model = as_psf(kernel)
        assert_is_psf(model)
        kernel -= 0.1 / kernel.size
        with pytest.warns(PSFWarning, match=r"\d+% negative"):
            as_psf(kernel)

    @pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
    def test_any_scale(self, scale):
        model = as_psf(scale * gaussian_psf(3.0).astype(float))
        assert np.allclose(model.kernels[0], gaussian_psf(3.0), atol=1e-7)


class TestImageSize:
    def test_larger_than_the_image_is_refused(self):
        with pytest.raises(PSFError, match=r"41 x 41.*20 x 30.*at least 35 pixels"):
            as_psf(moffat_psf(6.0, size=41), shape=(20, 30))
        with pytest.warns(PSFWarning, match="cut to 35 x 35"):
            as_psf(moffat_psf(6.0, size=41), shape=(35, 50))

    def test_nearly_fitting_is_cut_with_a_warning(self):
        with pytest.warns(PSFWarning, match=r"41 x 41.*cut to 29 x 29"):
            model = as_psf(moffat_psf(2.5, size=41), shape=(30, 200))
        assert model.size == 29
        assert_is_psf(model)

    def test_sizes_of_our_own_making_are_cut_silently(self):
        assert as_psf(3.0, shape=(11, 11)).size == 11
        assert as_psf(CircularGaussianPSF(fwhm=3.0), shape=(100, 12)).size == 11
        with pytest.raises(PSFError, match="3 x 3"):
            as_psf(3.0, shape=(3, 3))

    @given(n=st.integers(1, 70), m=st.integers(1, 70), fwhm=st.floats(0.5, 8))
    def test_any_image_gets_a_psf_that_fits_or_a_clear_error(self, n, m, fwhm):
        try:
            model = as_psf(fwhm, shape=(n, m))
        except PSFError as error:
            assert f"{n} x {m}" in str(error)  # noqa: PT017
            assert "at least" in str(error)  # noqa: PT017
        else:
            assert model.size <= min(n, m)
            assert_is_psf(model)


class TestVarying:
    def test_bilinear_grid(self):
        corners = [(0, 0), (100, 0), (0, 50), (100, 50)]
        widths = [2.0, 3.0, 4.0, 5.0]
        grid = GridPSF(corners, widths)
        model = as_psf(grid, shape=(51, 101))
        assert model.varies
        for (x, y), width in zip(corners, widths, strict=True):
            assert np.abs(model.at(x, y)[0] - as_psf(width).resized(model.size).kernels[0]).max() < 1e-6
        between = model.at(25, 10)[0]
        weights = np.outer([0.8, 0.2], [0.75, 0.25]).ravel()
        expected = sum(w * as_psf(s).resized(model.size).kernels[0] for w, s in zip(weights, widths, strict=True))
        assert np.abs(between - expected).max() < 1e-6
        assert np.allclose(model.at(50, 25), model.kernels, rtol=1e-6)
        assert np.allclose(model.at(-40, -40), model.at(0, 0))

    def test_nearest(self):
        model = as_psf(GridPSF([(0, 0), (10, 0)], [2.0, 4.0], method="nearest"), shape=(11, 11))
        assert np.allclose(model.at(4.9, 3), as_psf(2.0).resized(model.size).kernels, atol=1e-7)
        assert np.allclose(model.at(5.1, 3), as_psf(4.0).resized(model.size).kernels, atol=1e-7)

    @given(seed=st.integers(0, 1000), n=st.integers(1, 12), x=st.floats(-50, 150), y=st.floats(-50, 150))
    def test_scattered_positions(self, seed, n, x, y):
        positions = np.random.default_rng(seed).uniform(0, 100, (n, 2))
        grid = GridPSF(positions, [3.0] * n)
        weights = grid.weights(x, y)
        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0).all()
        if n >= 4 and weights.max() < 1 and 20 < x < 80 and 20 < y < 80 and np.count_nonzero(weights) == 3:
            assert np.allclose(weights @ positions, (x, y), atol=1e-6)

    def test_points_on_a_line(self):
        grid = GridPSF([(0, 0), (10, 10), (20, 20)], [2.0, 3.0, 4.0])
        assert np.allclose(grid.weights(15, 15), [0, 0.5, 0.5])
        assert np.allclose(grid.weights(-5, -5), [1, 0, 0])

    def test_kernels_for_several_bands(self):
        kernels = np.stack([[gaussian_psf(2.0, 21), gaussian_psf(3.0, 21)], [gaussian_psf(4.0, 21)] * 2])
        model = as_psf(GridPSF([(0, 0), (10, 0)], kernels), n_bands=2, shape=(30, 30))
        assert model.kernels.shape == (2, 21, 21)
        assert np.allclose(model.at(0, 0)[1], gaussian_psf(3.0, 21), atol=1e-6)
        assert model.band(1).n_bands == 1
        assert np.allclose(model.band(1).at(0, 0), gaussian_psf(3.0, 21), atol=1e-6)

    def test_function_of_position(self):
        model = as_psf(lambda x, y: gaussian_psf(3.0 + 0.01 * x), n_bands=2, shape=(201, 201))
        assert model.varies
        narrow, middle, wide = (psf_fwhm(model.at(x, 0)[1]) for x in (0, 100, 200))
        assert narrow == pytest.approx(psf_fwhm(gaussian_psf(3.0)), rel=1e-3)
        assert middle == pytest.approx(model.fwhm[0], rel=1e-6)
        assert wide == pytest.approx(psf_fwhm(gaussian_psf(5.0)), rel=0.01)
        for x in (0, 100, 200):
            assert model.at(x, 50).shape == model.kernels.shape
            assert np.allclose(model.at(x, 50).sum(axis=(1, 2)), 1, atol=1e-5)

    def test_function_may_return_any_form(self):
        model = as_psf(lambda x, y: (1.2 + 0.001 * x) * u.arcsec, pixel_scale=0.4, shape=(101, 101))
        assert psf_fwhm(model.at(0, 0)[0]) < model.fwhm[0]

    def test_gridded_model_of_photutils(self):
        y, x = np.mgrid[:41, :41] - 20.0
        stamps = [np.exp(-0.5 * (x**2 + y**2) / s**2) for s in (1.5, 1.5, 2.5, 2.5)]
        meta = {"grid_xypos": [(0, 0), (100, 0), (0, 100), (100, 100)], "oversampling": 1}
        model = as_psf(GriddedPSFModel(NDData(np.array(stamps), meta=meta)), shape=(101, 101))
        assert model.varies
        assert psf_fwhm(model.at(50.3, 0)[0]) == pytest.approx(1.5 * FWHM_PER_SIGMA, rel=0.01)
        assert psf_fwhm(model.at(50.3, 100)[0]) == pytest.approx(2.5 * FWHM_PER_SIGMA, rel=0.01)

    def test_fixed_and_varying_bands_together(self):
        model = as_psf([3.0, GridPSF([(0, 0), (10, 0)], [2.0, 6.0])], n_bands=2, shape=(50, 50))
        assert model.varies
        assert np.allclose(model.at(0, 0)[0], model.at(10, 0)[0])
        assert psf_fwhm(model.at(0, 0)[1]) < psf_fwhm(model.at(10, 0)[1])
        assert model.resized(11).at(10, 0).shape == (2, 11, 11)

    def test_bad_grids(self):
        with pytest.raises(PSFError, match="2 kernels"):
            GridPSF([(0, 0)], [3.0, 4.0])
        with pytest.raises(PSFError, match="shape"):
            GridPSF([0, 0], [3.0, 4.0])
        with pytest.raises(PSFError, match="twice"):
            GridPSF([(0, 0), (0, 0)], [3.0, 4.0])
        with pytest.raises(PSFError, match="method='cubic'"):
            GridPSF([(0, 0)], [3.0], method="cubic")
        with pytest.raises(PSFError, match="vary themselves"):
            as_psf(GridPSF([(0, 0)], [lambda x, y: 3.0]))
        with pytest.raises(PSFError, match="bands"):
            as_psf(lambda x, y: np.stack([gaussian_psf(3.0)] * (1 if x < 50 else 2)), shape=(90, 90)).at(60, 0)


class TestModel:
    def test_bad_kernels(self):
        for kernels in (np.ones((3, 3)), np.ones((1, 4, 4)), np.ones((1, 3, 5)), np.ones((0, 3, 3))):
            with pytest.raises(PSFError, match="shape"):
                PSFModel(kernels)
        with pytest.raises(PSFError, match="sum to"):
            PSFModel(np.ones((1, 3, 3)))

    def test_trimmed_and_resized(self):
        model = as_psf([moffat_psf(2.0, size=61), moffat_psf(4.0, size=61)], n_bands=2)
        small = model.trimmed(0.98)
        assert small.size < 61
        for band in range(2):
            inside = model.resized(small.size)
            assert np.allclose(inside.kernels, small.kernels)
            cut = slice(30 - small.size // 2, 31 + small.size // 2)
            assert model.kernels[band][cut, cut].sum() > 0.98
        assert model.resized(81).size == 81
        with pytest.raises(PSFError, match="size=8"):
            model.resized(8)

    def test_broadcast(self):
        model = as_psf(3.0)
        assert model.broadcast(1) is model
        assert model.broadcast(3).n_bands == 3
        with pytest.raises(PSFError, match="2 bands"):
            model.broadcast(2).broadcast(3)

    def test_repr(self):
        assert repr(as_psf(3.0)) == "<PSFModel: 1 band, 15 x 15 pixels, FWHM 3.09 pixels, from a FWHM>"


class TestTrim:
    def test_keeps_the_flux(self):
        kernel = moffat_psf(3.0, size=101)
        for flux in (0.5, 0.9, 0.99, 0.999):
            trimmed = trim_psf(kernel, flux)
            half = len(trimmed) // 2
            assert kernel[50 - half : 51 + half, 50 - half : 51 + half].sum() >= flux - 1e-6
            inner = kernel[51 - half : 50 + half, 51 - half : 50 + half].sum()
            assert inner < flux
            assert trimmed.sum() == pytest.approx(1, abs=1e-5)

    def test_bad_arguments(self):
        for flux in (0, 1.1, -1, np.nan):
            with pytest.raises(PSFError, match="flux="):
                trim_psf(gaussian_psf(3.0), flux)
        with pytest.raises(PSFError, match="odd"):
            trim_psf(np.ones((4, 4)))


class TestResample:
    @pytest.mark.parametrize("ratio", [0.5, 0.7, 1.0, 1.3, 2.0, 4.0, 13.2])
    def test_gaussian(self, ratio):
        """Onto larger pixels the result is what the profile gives when it is integrated over these."""
        fwhm_in = 4.0 * max(ratio, 1.0)
        out = resample_psf(gaussian_psf(fwhm_in), 0.1, 0.1 * ratio)
        assert out.sum(dtype=float) == pytest.approx(1, abs=1e-6)
        assert len(out) % 2 == 1
        assert max(abs(np.subtract(centroid(out), len(out) // 2))) < 1e-4
        wanted = gaussian_psf(fwhm_in / ratio, len(out))
        if ratio >= 1:
            assert np.abs(out - wanted).max() < 2e-3 * wanted.max()
        else:  # the broad pixel stays in it
            assert psf_fwhm(out) * ratio == pytest.approx(psf_fwhm(gaussian_psf(fwhm_in)), rel=0.01)

    def test_equal_scales_change_nothing(self):
        kernel = moffat_psf(3.0)
        assert np.abs(resample_psf(kernel, 0.2, 0.2) - kernel).max() < 1e-7

    def test_quantities(self):
        a = resample_psf(gaussian_psf(9.0), 0.1 * u.arcsec, 200 * u.mas)
        assert np.array_equal(a, resample_psf(gaussian_psf(9.0), 1, 2))

    @pytest.mark.parametrize("scales", [(0, 1), (1, 0), (1, -1), (np.nan, 1)])
    def test_bad_scales(self, scales):
        with pytest.raises(PSFError, match="scale_in="), np.errstate(all="ignore"):
            resample_psf(gaussian_psf(3.0), *scales)

    def test_bad_kernel(self):
        with pytest.raises(PSFError, match="odd"):
            resample_psf(np.ones((4, 4)), 1, 2)


REAL = [
    *(f"psf_emp_sdss/PSF/psf_emp_sdss_{b}.fits.gz" for b in "ugriz"),
    *(f"psf_emp_sdss/PSF/psf_emp_2mass_{b}.fits.gz" for b in "jhk"),
    *(f"psf_emp_sdss/PSF/psf_emp_galex_{b}.fits.gz" for b in ("fuv", "nuv")),
    *(f"splus_pygalfitm/images/psf_test_{b}.fits" for b in ("u", "g", "r", "i", "z", "j0515", "j0660", "j0861")),
    "decals_pysersic/copsf_59.1067_-30.4848.fits",
    *(f"decals_pysersic/gal{i}_psf.npy" for i in (1, 2, 3)),
    *(
        f"kids_sdss_pairs/{s}/G{i}psfim.fits"
        for s in ("KiDS", "SDSS")
        for i in (265911, 265940, 266033, 266662, 278109)
    ),
    *(
        f"jwst_galfits/10735/PSF/{b}_hybrid.fits"
        for b in ("F115W", "F150W", "F200W", "F277W", "F356W", "F410M", "F444W")
    ),
    "galfit_refs/petrofit/f105w_psf.fits.gz",
    "cosmos_hst_galsim/galsim/tests/real_comparison_images/shera_target_PSF.fits",
]


class TestRealPSFs:
    @pytest.mark.parametrize("name", REAL)
    def test_come_out_normalised_odd_and_centred(self, data_dir, name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = as_psf(Path(data_dir) / name)
        assert_is_psf(model)
        assert 1.5 < model.fwhm[0] < 25
        assert model.trimmed(0.95).size < model.size

    def test_known_widths(self, data_dir):
        folder = data_dir / "psf_emp_sdss" / "PSF"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PSFWarning)
            fwhm = {b: 0.25 * as_psf(folder / f"psf_emp_sdss_{b}.fits.gz").fwhm[0] for b in "ugriz"}
        assert fwhm["u"] == pytest.approx(1.40, abs=0.03)
        assert fwhm["r"] == pytest.approx(1.38, abs=0.03)
        assert fwhm["i"] == pytest.approx(1.04, abs=0.03)

    def test_off_centre_even_one_is_reported(self, data_dir):
        with pytest.warns(PSFWarning, match=r"even 50 x 50.*\(23\.68, 24\.12\)"):
            as_psf(data_dir / "galfit_refs" / "petrofit" / "f105w_psf.fits.gz")

    def test_kids_psfs_are_partly_negative_and_said_to_be(self, data_dir):
        with pytest.warns(PSFWarning, match="19% negative"):
            as_psf(data_dir / "kids_sdss_pairs" / "KiDS" / "G278109psfim.fits")

    def test_one_hundred_at_once(self, data_dir):
        stack = np.load(data_dir / "sf_deconvolve" / "example_psfs.npy")
        with pytest.warns(PSFWarning, match="99 more"):
            model = as_psf(stack, n_bands=100)
        assert_is_psf(model, 100)
        assert np.all(np.abs(model.fwhm - 2.1) < 0.15)


def test_complex_kernels_are_refused():
    with pytest.raises(PSFError, match="psf has complex values"):
        as_psf(np.ones((5, 5)) * (1 + 1j))
