"""Surveys in numbers."""

import pickle
import sys

import numpy as np
import pytest

from astrogan.exceptions import InputError, MissingDependencyError
from astrogan.simulate.surveys import Filter, Survey, get_survey, list_surveys

# FWHM, sky (mag/arcsec2), zero point (e/s), exposure (s), electrons per nanomaggy, sigma (nanomaggies per pixel)
SDSS = {
    "u": (1.55, 22.01, 23.58, 54.1, 146, 0.0546),
    "g": (1.43, 21.84, 25.73, 54.1, 1060, 0.0171),
    "r": (1.32, 20.84, 25.62, 54.1, 958, 0.0280),
    "i": (1.25, 20.16, 25.28, 54.1, 700, 0.0480),
    "z": (1.18, 18.96, 23.30, 54.1, 113, 0.195),
}
CFHTLS = {
    "u": (0.85, 21.20, 25.78, 3000, 6.15e4, 0.00137),
    "g": (0.78, 21.30, 27.11, 2500, 1.75e5, 0.00078),
    "r": (0.71, 20.80, 26.74, 2000, 9.93e4, 0.00130),
    "i": (0.64, 20.30, 26.22, 4305, 1.32e5, 0.00142),
    "z": (0.68, 19.40, 25.02, 3600, 3.67e4, 0.00407),
}


@pytest.mark.parametrize(("name", "table", "scale"), [("sdss", SDSS, 0.396), ("cfhtls", CFHTLS, 0.187)])
def test_table_of_sdss_and_cfhtls(name, table, scale):
    pytest.importorskip("surveycodex")
    survey = get_survey(name)
    assert survey.pixel_scale == pytest.approx(scale)
    assert survey.bands == tuple(table)
    for band, (fwhm, sky, zero_point, exposure, electrons, sigma) in table.items():
        f = survey[band]
        assert (f.fwhm, f.sky_brightness) == pytest.approx((fwhm, sky))
        assert (f.zero_point, f.exposure_time) == pytest.approx((zero_point, exposure))
        assert f.electrons_per_nanomaggy == pytest.approx(electrons, rel=0.005)
        assert f.sigma == pytest.approx(sigma, rel=0.012)


def test_arithmetic_of_a_filter():
    """One nanomaggy is 22.5 mag; sigma^2 = (sky + read^2) / (e / nmgy)^2."""
    f = Filter("x", 1.0, sky_brightness=20.0, zero_point=25.0, exposure_time=100, pixel_scale=0.5, read_noise=30.0)
    assert f.electrons_per_nanomaggy == pytest.approx(1000)
    assert f.sky_electrons == pytest.approx(100 * 100 * 0.25)
    assert f.sigma == pytest.approx(np.sqrt(2500 + 900) / 1000)
    pixels = np.pi * 1.0 / 0.25
    assert f.depth() == pytest.approx(22.5 - 2.5 * np.log10(5 * f.sigma * np.sqrt(pixels)))


def test_kids_reproduces_its_published_depth():
    """Kuijken et al. (2019): 5 sigma in 2 arcsec apertures."""
    kids = get_survey("kids")
    assert kids.pixel_scale == 0.2
    depths = [kids[band].depth() for band in "ugri"]
    np.testing.assert_allclose(depths, [24.23, 25.12, 25.02, 23.68], atol=1e-6)
    assert all(18.5 < kids[band].sky_brightness < 22.8 for band in "ugri")


def test_decals_is_as_deep_as_published():
    """The 5 sigma depth for a point source is near the survey's 24.0, 23.4, 22.5 for small galaxies."""
    decals = get_survey("decals")
    for band, published in zip("grz", (24.0, 23.4, 22.5), strict=True):
        f = decals[band]
        beam = 4 * np.pi * (f.fwhm / 2.355 / f.pixel_scale) ** 2  # effective pixels of a Gaussian
        depth = 22.5 - 2.5 * np.log10(5 * f.sigma * np.sqrt(beam))
        assert published < depth < published + 0.9


def test_every_survey_has_sane_numbers():
    pytest.importorskip("surveycodex")
    for name in list_surveys():
        survey = get_survey(name)
        assert survey.filters
        assert survey.references
        assert len(set(survey.bands)) == len(survey.bands)
        for f in survey.filters:
            assert 0.02 < f.pixel_scale == survey.pixel_scale < 0.5
            assert 0.05 < f.fwhm < 2
            assert 17 < f.sky_brightness < 24
            assert 1e-4 < f.sigma < 0.3
            assert f.read_noise > 0
            assert f.gain > 0
    for name in ("sdss", "cfhtls", "kids", "hsc", "decals", "lsst", "euclid"):
        assert name in list_surveys()


def test_names_of_surveys_and_bands():
    kids = get_survey("KiDS")
    assert kids == get_survey("kids") == get_survey(kids)
    assert kids["r"] is kids["SDSS.r"]
    assert kids["R"] is kids["r"]
    with pytest.raises(InputError, match="band 'H' is none of kids's: u, g, r, i"):
        kids["H"]
    with pytest.raises(InputError, match="survey='des2' is unknown; there are: cfhtls"):
        get_survey("des2")


def test_frozen_hashable_and_picklable():
    kids = get_survey("kids")
    assert pickle.loads(pickle.dumps(kids)) == kids
    assert hash(kids) == hash(get_survey("kids"))
    with pytest.raises(AttributeError):
        kids.name = "other"


def test_scaled():
    kids, deep = get_survey("kids"), get_survey("kids").scaled(exposure=4, fwhm=2)
    assert deep["r"].fwhm == 2 * kids["r"].fwhm
    assert deep["r"].electrons_per_nanomaggy == pytest.approx(4 * kids["r"].electrons_per_nanomaggy)
    assert deep["r"].sigma == pytest.approx(kids["r"].sigma / 2, rel=0.03)
    with pytest.raises(InputError, match="exposure=0"):
        kids.scaled(exposure=0)


def test_missing_surveycodex_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "surveycodex", None)
    with pytest.raises(MissingDependencyError, match="pip install surveycodex"):
        get_survey("sdss")
    assert isinstance(get_survey("kids"), Survey)
