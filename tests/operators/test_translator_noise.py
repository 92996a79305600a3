"""What a target's noise looks like: models, photon noise, units, and by which backend it is added."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData

from astrogan import Translator
from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.exceptions import InputError
from astrogan.metrics import noise_autocorrelation
from astrogan.operators.translator import TargetSpec
from astrogan.simulate.surveys import Filter, Survey

LAG = ((0, 1),)
STACK = np.outer([1, 2, 1], [1, 2, 1])


def correlation(image):
    return float(np.ravel(noise_autocorrelation(np.asarray(image, float), LAG))[0])


def blank(shape=(150, 150), unit="nmgy", level=0.0):
    return CCDData(np.full(shape, level), unit=unit)


@pytest.fixture
def model():
    return CorrelatedNoise(kernel=STACK)


def test_model_gives_the_noise_its_look(model):
    grid = {"pixel_scale": 0.2, "noise": 0.3}
    seen = Translator(target=TargetSpec(**grid, noise_model=model))(blank(), pixel_scale=0.2, rng=1)
    white = Translator(target=TargetSpec(**grid))(blank(), pixel_scale=0.2, rng=1)
    assert correlation(seen.data) == pytest.approx(model.autocorrelation(1)[1, 2], abs=0.03)
    assert abs(correlation(white.data)) < 0.03
    assert seen.data.std() == pytest.approx(0.3, rel=0.05)


def test_model_by_band(model):
    target = TargetSpec(
        pixel_scale=0.2, noise={"g": 0.1, "r": 0.4}, noise_model={"r": model, "g": CorrelatedNoise(kernel=[[1.0]])}
    )
    out = Translator(target=target)({"r": blank(), "g": blank()}, pixel_scale=0.2, rng=2)
    assert correlation(out["r"].data) > 0.5
    assert abs(correlation(out["g"].data)) < 0.03
    assert out["g"].data.std() == pytest.approx(0.1, rel=0.05)


def test_old_models_will_do():
    class Old:
        def sample(self, shape, *, sigma=1.0, rng):
            return sigma * rng.choice([-1.0, 1.0], size=shape)

    target = TargetSpec(pixel_scale=0.2, noise=0.5, noise_model=Old())
    out = Translator(target=target)(blank(), pixel_scale=0.2, rng=2)
    assert set(np.round(np.unique(out.data), 5)) == {-0.5, 0.5}


@pytest.mark.parametrize(("unit", "factor"), [("nmgy", 1.0), ("uJy", 3.631), ("mJy", 3.631e-3)])
def test_photon_noise_of_a_survey(unit, factor):
    """1 nanomaggy is 100 electrons: a pixel of 4 nanomaggies has a variance of 0.04 nanomaggies squared more."""
    own = Survey("mine", 0.2, (Filter("r", 0.8, 21.0, 27.5, 1.0, 0.2, noise_sigma=0.05),))
    assert own["r"].electrons_per_nanomaggy == pytest.approx(100)
    translate = Translator(target=own, bands="r")
    inner = {}
    for level in (0.0, 4.0):
        out = translate(blank(unit=unit, level=level * factor), psf=2.0, pixel_scale=0.2)
        inner[level] = out.data[30:-30, 30:-30] / factor
    assert inner[0.0].var() == pytest.approx(0.05**2, rel=0.1)
    assert inner[4.0].var() == pytest.approx(0.05**2 + 0.04, rel=0.1)
    assert inner[4.0].mean() == pytest.approx(4.0, rel=1e-2)


def test_an_image_that_is_as_noisy_gets_none(model):
    rng = np.random.default_rng(0)
    image = CCDData(rng.normal(0, 0.5, (100, 100)), unit="nmgy")
    out = Translator(target=TargetSpec(pixel_scale=0.2, noise=0.3, noise_model=model))(image, pixel_scale=0.2)
    assert np.allclose(out.data, image.data, atol=1e-6)


@pytest.mark.parametrize("field", [{"noise_model": CorrelatedNoise()}, {"noise_slope": 0.1}])
def test_a_level_must_be_given(field):
    with pytest.raises(InputError, match="needs noise="):
        TargetSpec(**field)


def test_no_model():
    with pytest.raises(InputError, match="must have a method sample"):
        TargetSpec(noise=1.0, noise_model="white")


def test_band_without_model(model):
    target = TargetSpec(pixel_scale=0.2, noise=0.3, noise_model={"z": model})
    with pytest.raises(InputError, match="none of those of the target's noise_model: z"):
        Translator(target=target, bands="r")(blank(), pixel_scale=0.2)


def test_bad_slope():
    with pytest.raises(InputError, match="noise_slope"):
        Translator(target=TargetSpec(pixel_scale=0.2, noise=1.0 * u.nmgy, noise_slope=-0.1))(blank(), pixel_scale=0.2)
