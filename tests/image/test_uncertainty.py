import warnings

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from hypothesis import given
from hypothesis import strategies as st

from astrogan.exceptions import InputError, UnitError
from astrogan.image.uncertainty import background_rms, to_uncertainty, variance_of

SIGMAS = hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(1e-6, 1e6))


class TestVarianceOf:
    @given(sigma=SIGMAS)
    def test_three_classes_agree(self, sigma):
        results = [
            variance_of(StdDevUncertainty(sigma), sigma.shape),
            variance_of(VarianceUncertainty(sigma**2), sigma.shape),
            variance_of(InverseVariance(sigma**-2), sigma.shape),
        ]
        for variance, bad in results:
            assert variance.dtype == np.float64
            assert np.allclose(variance, sigma**2, rtol=1e-12)
            assert not bad.any()

    @pytest.mark.parametrize("cls", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
    @pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf, -1.0])
    def test_what_says_nothing_is_bad(self, cls, value):
        array = np.full((3, 4), 4.0)
        array[1, 2] = value
        variance, bad = variance_of(cls(array), (3, 4))
        assert bad.sum() == 1
        assert bad[1, 2]
        assert np.isfinite(variance).all()
        assert (variance > 0).all()
        assert np.unique(variance).size == 1

    def test_all_bad(self):
        variance, bad = variance_of(InverseVariance(np.zeros((2, 2))), (2, 2))
        assert bad.all()
        assert (variance == 1).all()

    @pytest.mark.parametrize("ivar", [1e-320, 1e-310])
    def test_overflowing_inverse_is_bad(self, ivar):
        variance, bad = variance_of(InverseVariance(np.array([[1.0, ivar]])), (1, 2))
        assert bad.tolist() == [[False, True]]
        assert np.isfinite(variance).all()

    @pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", ">i2"])
    def test_byte_order(self, dtype):
        variance, _ = variance_of(StdDevUncertainty(np.full((2, 3), 2).astype(dtype)), (2, 3))
        assert variance.dtype == np.float64
        assert variance.dtype.isnative
        assert (variance == 4).all()

    def test_scalar_and_per_band(self):
        assert (variance_of(StdDevUncertainty(2.0), (3, 3))[0] == 4).all()
        variance, _ = variance_of(StdDevUncertainty(np.array([1.0, 2.0])), (2, 3, 3))
        assert (variance[0] == 1).all()
        assert (variance[1] == 4).all()
        variance, _ = variance_of(StdDevUncertainty(np.full((3, 3), 3.0)), (2, 3, 3))
        assert variance.shape == (2, 3, 3)
        assert (variance == 9).all()

    @pytest.mark.parametrize(
        ("uncertainty", "factor"),
        [
            (StdDevUncertainty(np.ones((2, 2)), unit="mJy"), 1e-6),
            (VarianceUncertainty(np.ones((2, 2)), unit="mJy2"), 1e-6),
            (InverseVariance(np.ones((2, 2)), unit="mJy-2"), 1e-6),
            (StdDevUncertainty(np.ones((2, 2)), unit="Jy"), 1.0),
            (StdDevUncertainty(np.ones((2, 2))), 1.0),
        ],
    )
    def test_units_convert(self, uncertainty, factor):
        assert np.allclose(variance_of(uncertainty, (2, 2), unit="Jy")[0], factor)

    def test_unit_of_a_ccddata(self):
        ccd = CCDData(np.ones((2, 2)), unit="adu", uncertainty=StdDevUncertainty(np.full((2, 2), 3.0)))
        assert (variance_of(ccd.uncertainty, (2, 2), unit=u.adu)[0] == 9).all()

    def test_wrong_unit(self):
        with pytest.raises(UnitError, match=r"adu.*Jy"):
            variance_of(StdDevUncertainty(np.ones((2, 2)), unit="adu"), (2, 2), unit="Jy")

    def test_wrong_class_shape_and_none(self):
        with pytest.raises(InputError, match="UnknownUncertainty"):
            variance_of(UnknownUncertainty(np.ones((2, 2))), (2, 2))
        with pytest.raises(InputError, match="ndarray"):
            variance_of(np.ones((2, 2)), (2, 2))
        with pytest.raises(InputError, match=r"\(3, 2\).*\(2, 2\)"):
            variance_of(StdDevUncertainty(np.ones((3, 2))), (2, 2))

    def test_input_untouched(self):
        array = np.array([[0.0, 2.0]])
        variance, bad = variance_of(StdDevUncertainty(array), (1, 2))
        variance[:] = 7
        bad[:] = True
        assert array.tolist() == [[0.0, 2.0]]


class TestToUncertainty:
    @pytest.mark.parametrize("cls", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
    def test_round_trip(self, cls):
        variance = np.array([[1.0, 4.0], [9.0, 0.25]])
        for like in (cls, cls(np.ones((2, 2)))):
            uncertainty = to_uncertainty(variance, like)
            assert type(uncertainty) is cls
            back, bad = variance_of(uncertainty, (2, 2))
            assert np.allclose(back, variance)
            assert not bad.any()

    @pytest.mark.parametrize("cls", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
    @pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
    def test_bad_pixels_stay_bad(self, cls, value):
        variance = np.array([[1.0, value]])
        back, bad = variance_of(to_uncertainty(variance, cls), (1, 2))
        assert bad.tolist() == [[False, True]]
        assert back[0, 0] == 1
        assert np.array_equal(variance, [[1.0, value]], equal_nan=True)

    def test_defaults(self):
        assert to_uncertainty(None) is None
        assert type(to_uncertainty(np.ones((2, 2)))) is VarianceUncertainty
        assert type(to_uncertainty(np.ones((2, 2)), UnknownUncertainty(np.ones((2, 2))))) is VarianceUncertainty
        assert to_uncertainty(np.ones((2, 2), np.float32)).array.dtype == np.float32


class TestBackgroundRMS:
    @pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 5), (20, 33), (64, 64), (130, 257), (300, 100)])
    def test_any_size(self, shape):
        data = np.random.default_rng(0).normal(10, 2, shape)
        background, rms = background_rms(data)
        assert background.shape == rms.shape == shape
        assert np.isfinite(background).all()
        assert (rms > 0).all()
        if data.size >= 400:
            assert background.mean() == pytest.approx(10, abs=0.3)
            assert rms.mean() == pytest.approx(2, rel=0.08)

    def test_gradient_sources_and_noise_levels(self):
        rng = np.random.default_rng(1)
        y, x = np.mgrid[:512, :512].astype(float)
        sky = 100 + 0.1 * x
        noise = np.where(y < 256, 1.0, 3.0)
        data = sky + noise * rng.normal(size=sky.shape)
        for cx, cy in rng.uniform(0, 512, (60, 2)):
            data += 50 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 4.0**2))
        background, rms = background_rms(data)
        assert np.abs(background - sky).max() < 3
        assert np.sqrt(np.mean((background - sky) ** 2)) < 0.6
        assert np.median(rms[:200]) == pytest.approx(1, rel=0.08)
        assert np.median(rms[-200:]) == pytest.approx(3, rel=0.08)

    @pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e4, 1e25])
    def test_scales_with_the_data(self, scale):
        data = np.random.default_rng(2).normal(3, 1, (96, 96))
        b1, r1 = background_rms(data)
        b2, r2 = background_rms(scale * data)
        assert np.allclose(b2, scale * b1, rtol=1e-6)
        assert np.allclose(r2, scale * r1, rtol=1e-6)

    def test_values_under_the_mask_are_never_read(self):
        data = np.random.default_rng(3).normal(0, 1, (100, 120))
        valid = np.random.default_rng(4).random(data.shape) > 0.1
        valid[40:60, 50:90] = False
        expected = background_rms(np.where(valid, data, 0), valid)
        for junk in (1e30, np.nan, -np.inf):
            result = background_rms(np.where(valid, data, junk), valid)
            assert np.array_equal(result[0], expected[0])
            assert np.array_equal(result[1], expected[1])

    def test_nan_is_masked_by_itself(self):
        data = np.random.default_rng(3).normal(0, 1, (50, 50))
        data[3, 4] = np.nan
        background, rms = background_rms(data)
        assert np.isfinite(background).all()
        assert np.isfinite(rms).all()

    @pytest.mark.parametrize("value", [0.0, 5.0, -3e-20])
    @pytest.mark.parametrize("shape", [(9, 9), (90, 90)])
    def test_constant_image_has_positive_rms(self, value, shape):
        background, rms = background_rms(np.full(shape, value))
        assert np.allclose(background, value, rtol=1e-6)
        assert (rms > 0).all()

    def test_quantised_and_padded_images(self):
        data = np.zeros((64, 64))
        data[10:20, 10:20] = np.random.default_rng(0).normal(0, 1, (10, 10))
        assert (background_rms(data)[1] > 0).all()
        data = np.random.default_rng(0).poisson(0.01, (64, 64))
        assert (background_rms(data)[1] > 0).all()

    def test_a_stamp_full_of_galaxy_keeps_its_sky(self):
        y, x = np.mgrid[:100, :100] - 50.0
        rng = np.random.default_rng(5)
        data = 1000 * np.exp(-np.hypot(x, y) / 8) + rng.normal(20, 1, (100, 100))
        background, rms = background_rms(data)
        assert np.median(background) == pytest.approx(20, abs=3)  # the galaxy fills the stamp
        assert np.median(rms) < 1.6

    def test_bad_input(self):
        with pytest.raises(InputError, match="2-?D|\\(y, x\\)"):
            background_rms(np.zeros((2, 3, 3)))
        with pytest.raises(InputError, match=r"valid has shape \(3, 3\)"):
            background_rms(np.zeros((5, 5)), np.ones((3, 3), bool))
        with pytest.raises(InputError, match="no valid pixel"):
            background_rms(np.full((5, 5), np.nan))

    def test_sextractors_maps(self, data_dir):
        from astropy.io import fits

        maps = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the file of 1992 has cards that are no longer standard
            for name in ("image", "back", "rms"):
                with fits.open(data_dir / "sep_ref" / f"{name}.fits") as hdus:
                    maps.append(hdus[0].data.astype(float))
        data, back, rms = maps
        background, noise = background_rms(data)
        assert np.abs(background - back).mean() < 0.1 * rms.mean()
        assert np.median(noise) == pytest.approx(np.median(rms), rel=0.05)
