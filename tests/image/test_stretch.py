import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrogan.exceptions import InputError
from astrogan.image.stretch import AsinhSigmaStretch, GalaxyGAN2017Stretch, LinearStretch, stretch_from_dict

MAGNITUDES = st.floats(-3, 6)
SIGNS = st.sampled_from([-1.0, 1.0])


class TestAsinhSigma:
    @given(exponent=MAGNITUDES, sign=SIGNS, sigma=st.floats(1e-6, 1e6), softening=st.floats(0.3, 10))
    def test_round_trip_in_float32(self, exponent, sign, sigma, softening):
        stretch = AsinhSigmaStretch(sigma, softening)
        x = np.float32(sign * sigma * 10**exponent)
        y = stretch.forward(x)
        back = stretch.inverse(y)
        assert y.dtype == back.dtype == np.float32
        assert abs(float(back) / float(x) - 1) < 1e-6

    def test_round_trip_on_a_grid_of_both_signs(self):
        x = np.geomspace(1e-3, 1e6, 20001)
        x = np.concatenate([-x[::-1], [0], x]).astype(np.float32)[None, None]
        stretch = AsinhSigmaStretch([1.0])
        back = stretch.inverse(stretch.forward(x))
        assert np.abs(back - x).max() <= 1e-6 * np.abs(x).max()
        nonzero = x != 0
        assert np.abs(back[nonzero] / x[nonzero] - 1).max() < 1e-6
        assert back[~nonzero] == 0

    def test_float64_round_trip_is_exact_to_rounding(self):
        x = np.geomspace(1e-6, 1e12, 1000)
        stretch = AsinhSigmaStretch(0.3)
        assert np.abs(stretch.inverse(stretch.forward(x)) / x - 1).max() < 1e-13

    def test_is_odd_monotonic_and_linear_in_the_noise(self):
        stretch = AsinhSigmaStretch(2.0)
        x = np.linspace(-1000, 1000, 999)
        assert np.allclose(stretch.forward(-x), -stretch.forward(x), rtol=0, atol=1e-14)
        assert (np.diff(stretch.forward(x)) > 0).all()
        assert stretch.forward(0.02) == pytest.approx(0.01, rel=1e-4)

    def test_sigma_per_band(self):
        data = np.ones((2, 3, 4))
        stretch = AsinhSigmaStretch([1.0, 2.0])
        y = stretch.forward(data)
        assert np.allclose(y[0], np.arcsinh(1))
        assert np.allclose(y[1], np.arcsinh(0.5))
        batch = np.stack([data, 5 * data])
        assert np.allclose(stretch.inverse(stretch.forward(batch)), batch)

    def test_scaling_image_and_sigma_changes_nothing(self):
        x = np.random.default_rng(0).normal(0, 100, (5, 5))
        assert np.allclose(AsinhSigmaStretch(1e4).forward(1e4 * x), AsinhSigmaStretch(1.0).forward(x), rtol=1e-12)

    def test_input_untouched(self):
        x = np.ones((4, 4))
        AsinhSigmaStretch(2.0).forward(x)
        assert (x == 1).all()

    @pytest.mark.parametrize("sigma", [0, -1, np.nan, np.inf, [], [1, 0]])
    def test_bad_sigma(self, sigma):
        with pytest.raises(InputError, match="sigma="):
            AsinhSigmaStretch(sigma)

    def test_bad_softening_and_wrong_bands(self):
        with pytest.raises(InputError, match="softening="):
            AsinhSigmaStretch(1.0, softening=0)
        with pytest.raises(InputError, match="2 bands"):
            AsinhSigmaStretch([1.0, 2.0]).forward(np.ones((3, 4, 4)))
        with pytest.raises(InputError, match="2 bands"):
            AsinhSigmaStretch([1.0, 2.0]).forward(np.ones((2, 4)))


class TestLinear:
    @given(x=st.floats(-1e6, 1e6), scale=st.floats(1e-3, 1e3), offset=st.floats(-10, 10))
    def test_round_trip(self, x, scale, offset):
        stretch = LinearStretch(scale, offset)
        assert stretch.inverse(stretch.forward(x)) == pytest.approx(x, rel=1e-12, abs=1e-12)

    def test_bad_parameters(self):
        with pytest.raises(InputError, match="scale="):
            LinearStretch(0)
        with pytest.raises(InputError, match="offset="):
            LinearStretch(1, offset=np.nan)


class TestGalaxyGAN2017:
    def test_values_of_the_paper(self):
        stretch = GalaxyGAN2017Stretch()
        assert stretch.forward(-0.1) == 0
        assert stretch.forward(4.0) == pytest.approx(0.9994, abs=5e-5)
        assert stretch.forward(0.0) == pytest.approx(np.arcsinh(1 / 4.1) / 3, rel=1e-12)

    def test_clip_loses_and_says_so(self):
        stretch = GalaxyGAN2017Stretch()
        assert stretch.lossless is False
        assert stretch.inverse(stretch.forward(-3.0)) == pytest.approx(-0.1)
        assert stretch.inverse(stretch.forward(50.0)) == pytest.approx(4.0)
        inside = np.linspace(-0.1, 4, 1001)
        assert np.allclose(stretch.inverse(stretch.forward(inside)), inside, rtol=0, atol=1e-12)

    def test_without_clip_it_is_invertible(self):
        stretch = GalaxyGAN2017Stretch(clip=False)
        assert stretch.lossless is True
        x = np.concatenate([-np.geomspace(1e-3, 1e6, 500), np.geomspace(1e-3, 1e6, 500)])
        assert np.abs(stretch.inverse(stretch.forward(x)) / x - 1).max() < 1e-10


class TestCards:
    @pytest.mark.parametrize(
        "stretch",
        [
            LinearStretch(2.0, 0.5),
            LinearStretch([1.0, 2.0]),
            AsinhSigmaStretch(0.1),
            AsinhSigmaStretch([0.1, 0.2], softening=3.0),
            GalaxyGAN2017Stretch(),
            GalaxyGAN2017Stretch(clip=False),
        ],
    )
    def test_to_dict_and_back_through_json(self, stretch):
        card = json.loads(json.dumps(stretch.to_dict()))
        again = stretch_from_dict(card)
        assert again == stretch == type(stretch).from_dict(card)
        assert hash(again) == hash(stretch)
        assert repr(again) == repr(stretch)
        x = np.random.default_rng(0).normal(0, 1, (2, 3, 3))
        assert np.array_equal(again.forward(x), stretch.forward(x))

    def test_different_ones_differ(self):
        assert LinearStretch(1.0) != LinearStretch(2.0)
        assert LinearStretch(1.0) != AsinhSigmaStretch(1.0)

    def test_bad_cards(self):
        with pytest.raises(InputError, match="'sqrt' is unknown"):
            stretch_from_dict({"stretch": "sqrt"})
        with pytest.raises(InputError, match="does not describe"):
            stretch_from_dict({"stretch": "linear", "gamma": 2})
        with pytest.raises(InputError, match="not a LinearStretch"):
            LinearStretch.from_dict(AsinhSigmaStretch(1.0).to_dict())
