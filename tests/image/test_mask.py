import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from astrogan.exceptions import InputError
from astrogan.image.mask import fill_invalid, grow_mask, saturation_mask

SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 70))


def holes(seed, shape, fraction):
    valid = np.random.default_rng(seed).random(shape) > fraction
    valid.flat[0] |= not valid.any()
    return valid


class TestFillInvalid:
    @pytest.mark.parametrize("junk", [0.0, 1e30, -1e38, np.nan, np.inf])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_values_under_the_mask_are_never_read(self, junk, dtype):
        rng = np.random.default_rng(1)
        data = rng.normal(5, 1, (47, 33)).astype(dtype)
        valid = holes(2, data.shape, 0.3)
        expected = fill_invalid(data, valid)
        spoiled = np.where(valid, data, dtype(junk))
        result = fill_invalid(spoiled, valid)
        assert result.dtype == dtype
        assert np.array_equal(result, expected)
        assert np.array_equal(result[valid], data[valid])

    @given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), fraction=st.floats(0, 0.99))
    def test_stays_between_the_valid_extremes_in_any_shape(self, shape, seed, fraction):
        data = np.random.default_rng(seed).normal(0, 10, shape)
        valid = holes(seed, shape, fraction)
        result = fill_invalid(data, valid)
        low, high = data[valid].min(), data[valid].max()
        assert result.shape == shape
        assert (result >= low - 1e-9).all()
        assert (result <= high + 1e-9).all()
        assert np.array_equal(result[valid], data[valid])

    @given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), value=st.floats(-1e6, 1e6, width=32))
    def test_constant_stays_constant(self, shape, seed, value):
        data = np.full(shape, value, np.float32)
        result = fill_invalid(data, holes(seed, shape, 0.7))
        assert np.allclose(result, value, rtol=1e-6, atol=0)

    @pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e4, 1e30])
    def test_scales_with_the_data(self, scale):
        data = np.random.default_rng(0).normal(1, 1, (40, 50))
        valid = holes(3, data.shape, 0.5)
        assert np.allclose(fill_invalid(scale * data, valid), scale * fill_invalid(data, valid), rtol=1e-12, atol=0)

    def test_follows_a_gradient_across_holes(self):
        y, x = np.mgrid[:128, :128].astype(float)
        data = 3 * x - 2 * y
        valid = np.ones(data.shape, bool)
        valid[60:66, 40:46] = False
        valid[:, 90] = False
        result = fill_invalid(data, valid)
        assert np.abs(result - data).max() < 6

    def test_a_large_hole_is_smooth(self):
        rng = np.random.default_rng(4)
        data = rng.normal(100, 1, (128, 128))
        valid = np.ones(data.shape, bool)
        valid[30:94, 30:94] = False
        inside = fill_invalid(data, valid)[30:94, 30:94]
        assert np.abs(inside - 100).max() < 2
        assert np.abs(np.diff(inside, axis=0)).max() < 1
        assert inside[24:40, 24:40].std() < 0.2

    def test_bands_are_filled_apart(self):
        data = np.stack([np.full((9, 9), 1.0), np.full((9, 9), 7.0)])
        valid = np.ones(data.shape, bool)
        valid[0, 4, 4] = valid[1, 2, 2] = False
        assert np.array_equal(fill_invalid(np.where(valid, data, np.nan), valid), data)

    def test_input_is_left_alone_and_nothing_to_do_gives_a_copy(self):
        data = np.arange(12.0).reshape(3, 4)
        valid = np.ones((3, 4), bool)
        before = data.copy()
        result = fill_invalid(data, valid)
        result[0, 0] = -1
        assert np.array_equal(data, before)
        valid[1, 1] = False
        fill_invalid(data, valid)
        assert np.array_equal(data, before)

    @pytest.mark.parametrize("dtype", [">f4", "<f4", ">i2", ">f8", "u1"])
    def test_byte_orders_and_integers(self, dtype):
        data = np.arange(30).reshape(5, 6)
        valid = holes(5, (5, 6), 0.4)
        expected = fill_invalid(data.astype(float), valid)
        result = fill_invalid(data.astype(dtype)[:, ::-1], valid[:, ::-1])[:, ::-1]
        assert result.dtype.isnative
        assert np.allclose(fill_invalid(data.astype(dtype), valid), expected, rtol=1e-6)

    def test_nothing_valid(self):
        with pytest.raises(InputError, match="no valid pixel"):
            fill_invalid(np.ones((4, 4)), np.zeros((4, 4), bool))
        valid = np.ones((2, 4, 4), bool)
        valid[1] = False
        with pytest.raises(InputError, match="band 1"):
            fill_invalid(np.ones((2, 4, 4)), valid)

    def test_shapes_must_agree(self):
        with pytest.raises(InputError, match=r"\(3, 4\).*\(4, 4\)"):
            fill_invalid(np.ones((4, 4)), np.ones((3, 4), bool))
        with pytest.raises(InputError, match=r"\(4,\)"):
            fill_invalid(np.ones(4), np.ones(4, bool))


class TestGrowMask:
    @given(
        mask=hnp.arrays(bool, SHAPES, elements=st.sampled_from([True] + [False] * 30)),
        radius=st.floats(0, 40),
    )
    def test_equals_the_distance_transform(self, mask, radius):
        grown = grow_mask(mask, radius)
        expected = distance_transform_edt(~mask) <= radius if mask.any() else mask
        assert np.array_equal(grown, expected)

    def test_wide_radius_on_a_wide_image(self):
        mask = np.zeros((3, 1000), bool)
        mask[1, 0] = True
        assert grow_mask(mask, 700).sum() == 2 * 700 + 701

    def test_bands_apart_and_input_untouched(self):
        mask = np.zeros((2, 9, 9), bool)
        mask[0, 4, 4] = True
        grown = grow_mask(mask, 2)
        assert grown[0].sum() == 13
        assert not grown[1].any()
        assert mask.sum() == 1

    @pytest.mark.parametrize("radius", [-1, np.nan, np.inf])
    def test_bad_radius(self, radius):
        with pytest.raises(InputError, match="radius="):
            grow_mask(np.zeros((3, 3), bool), radius)


class TestSaturationMask:
    def test_marks_and_grows(self):
        data = np.zeros((11, 11))
        data[5, 5] = 100
        data[0, 0] = np.inf
        data[10, 10] = np.nan
        assert saturation_mask(data, 100, grow=0).sum() == 2
        assert saturation_mask(data, 100.1, grow=0).sum() == 1
        assert saturation_mask(data, 100, grow=1).sum() == 5 + 3
        assert saturation_mask(data, 100).sum() == 13 + 6

    def test_level_per_band(self):
        data = np.full((2, 3, 3), 10.0)
        mask = saturation_mask(data, [5, 20])
        assert mask[0].all()
        assert not mask[1].any()

    @pytest.mark.parametrize("level", [np.nan, [1, 2, 3]])
    def test_bad_level(self, level):
        with pytest.raises(InputError, match="level"):
            saturation_mask(np.zeros((2, 3, 3)), level)
