"""A survey measured on its images."""

import pickle

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

from astrogan import Translator
from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.exceptions import InputError, PSFError, UnitError
from astrogan.image.psf import moffat_psf, psf_fwhm
from astrogan.simulate.surveys import Filter, Survey, get_survey
from astrogan.simulate.surveys._from_fits import zero_point_of_header

SCALE = 0.25
SIGMA = 4.0  # counts
ZERO_POINT = 27.5  # so that a count is a hundredth of a nanomaggy
FWHM = 3.6


def wcs_of(n, scale=SCALE):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [30, -20], [n / 2, n / 2]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    return wcs


def field(seed=0, n=220, stars=14, correlated=True, sky=200.0, scale=SCALE, **header):
    """Stars and a galaxy on noise that is white, or smoothed."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, (n, n))
    if correlated:
        noise = gaussian_filter(noise, 0.7, mode="wrap")
    data = sky + SIGMA * noise / noise.std()
    kernel = moffat_psf(FWHM, size=41)
    for y, x in rng.integers(25, n - 25, (stars, 2)):
        data[y - 20 : y + 21, x - 20 : x + 21] += rng.uniform(5e3, 5e4) * kernel
    y, x = np.mgrid[:n, :n]
    data += 300 * np.exp(-np.hypot(x - n / 2, y - n / 2) / 6)
    return CCDData(data.astype("f4"), unit="adu", wcs=wcs_of(n, scale), meta=header)


@pytest.fixture(scope="module")
def measured():
    return Survey.from_fits("mine", {"r": field(MAGZERO=ZERO_POINT)}, noise_model=CorrelatedNoise, description="a test")


def test_everything_is_measured(measured):
    band = measured["r"]
    assert (measured.name, measured.bands, measured.description) == ("mine", ("r",), "a test")
    assert measured.pixel_scale == band.pixel_scale == pytest.approx(SCALE)
    assert band.sigma == band.noise_sigma == pytest.approx(SIGMA / 100, rel=0.03)
    assert band.fwhm == pytest.approx(psf_fwhm(moffat_psf(FWHM)) * SCALE, rel=0.03)
    np.testing.assert_array_equal(band.kernel(), band.psf)
    # Sky brightness and electrons are such that photons make the noise: the simulator sees one survey, not two.
    assert np.sqrt(band.sky_electrons) / band.electrons_per_nanomaggy == pytest.approx(band.sigma)
    assert band.sky_brightness == pytest.approx(21.0)
    said = measured.references[0]
    assert "MAGZERO" in said
    assert "stars" in said
    assert "assumed" in said


def test_noise_model_is_fitted_to_the_sky(measured):
    model = measured["r"].noise_model
    assert isinstance(model, CorrelatedNoise)
    assert float(model.sigma) == pytest.approx(SIGMA / 100, rel=0.05)
    truth = np.exp(-1 / (4 * 0.7**2))  # of neighbours under a Gaussian of 0.7 pixels
    correlation = model.autocorrelation(1)
    assert correlation[1, 2] == pytest.approx(truth, abs=0.06)
    assert correlation[1, 0] == pytest.approx(truth, abs=0.06)
    white = Survey.from_fits("w", {"r": field(correlated=False)}, zero_point=27.5, noise_model=CorrelatedNoise)
    assert np.abs(white["r"].noise_model.autocorrelation(1)[1, [0, 2]]).max() < 0.05
    assert white["r"].noise_model is not model


def test_noise_model_that_is_fitted_already_is_kept():
    given = CorrelatedNoise()
    assert Survey.from_fits("k", {"r": field()}, zero_point=25.0, noise_model=given)["r"].noise_model is given
    for wrong in ("correlated", object, 3.0):
        with pytest.raises(InputError, match="noise_model"):
            Survey.from_fits("k", {"r": field()}, zero_point=25.0, noise_model=wrong)


def test_what_is_given_is_taken():
    psf = moffat_psf(5.0)
    survey = Survey.from_fits(
        "given",
        {"g": field(), "r": field(1)},
        psf={"g": psf, "r": 1.0 * u.arcsec},
        zero_point={"g": 27.5, "r": 30.0},
        noise={"g": 10.0, "r": 8.0 * u.adu},
        gain={"g": 2.0},
        sky_brightness={"r": 20.0},
    )
    g, r = survey.filters
    assert g.fwhm == pytest.approx(psf_fwhm(psf) * SCALE, rel=1e-3)
    assert r.fwhm == pytest.approx(1.0, rel=0.02)
    assert (g.sigma, r.sigma) == pytest.approx((0.1, 0.008))
    assert g.electrons_per_nanomaggy == pytest.approx(200)
    assert r.sky_brightness == pytest.approx(20.0)
    assert r.noise_model is None


@pytest.mark.parametrize(
    ("header", "zero_point"),
    [
        ({"MAGZERO": 26.0}, 26.0),
        ({"HIERARCH ESO PHOTZP": 31.2}, 31.2),
        ({"ZEROPNT": 0.0}, 0.0),
        ({"FLUXMAG0": 10**10.8}, 27.0),
        ({"PHOTFLAM": 7.0e-20, "PHOTPLAM": 8060.0}, 25.95),  # ACS F814W has 25.94
        ({"MAGZERO": "unknown"}, None),
        ({"MAGZERO": np.nan, "ZPT": 24.0}, 24.0),
        ({"MAGZERO": -99.0}, None),
        ({}, None),
    ],
)
def test_zero_points_of_headers(header, zero_point):
    found, key = zero_point_of_header(header)
    if zero_point is None:
        assert (found, key) == (None, None)
    else:
        assert found == pytest.approx(zero_point, abs=0.02)


def test_units_tell_the_zero_point_and_a_number_given_overrules_both():
    image = field(MAGZERO=ZERO_POINT, n=128)
    values = {}
    for unit, factor in (
        ("nmgy", 1.0),
        ("uJy", 1 / 3.631),
        ("MJy/sr", (SCALE / 3600 * np.pi / 180) ** 2 * 1e12 / 3.631),
    ):
        one = CCDData(image.data, unit=unit, wcs=image.wcs, meta=image.meta)
        values[unit] = Survey.from_fits("u", {"r": one}, psf=FWHM)["r"].sigma / factor
    assert values == pytest.approx(dict.fromkeys(values, SIGMA), rel=0.05)
    nanomaggies = CCDData(image.data, unit="nmgy", wcs=image.wcs)
    overruled = Survey.from_fits("u", {"r": nanomaggies}, psf=FWHM, zero_point=20.0)["r"].sigma
    assert overruled == pytest.approx(10 * values["nmgy"])


def test_gain_of_the_header_is_believed_where_it_is_possible():
    """Four counts of noise a pixel; with GAIN g the sky is 16 g electrons."""

    def electrons(gain):
        survey = Survey.from_fits("s", {"r": field(GAIN=gain, n=128)}, psf=FWHM, zero_point=ZERO_POINT)
        return survey["r"].electrons_per_nanomaggy, survey.references[0]

    good, said = electrons(40.0)
    assert good == pytest.approx(4000)
    assert "GAIN" in said
    for impossible in (1e-6, 1e9, 0.0, -1.0, "none"):
        value, said = electrons(impossible)
        assert "assumed" in said
        assert value == pytest.approx(10 ** (0.4 * 1.5) * SCALE**2 / (SIGMA / 100) ** 2, rel=0.1)


def test_ten_lines_make_a_target(tmp_path):
    """Files, a survey, and an image seen by it: its pixels, its PSF, its noise."""
    for band in "gr":
        field(seed=ord(band)).write(tmp_path / f"{band}.fits")
    paths = {band: tmp_path / f"{band}.fits" for band in "gr"}
    survey = Survey.from_fits("mine", paths, zero_point=ZERO_POINT)
    assert survey.bands == ("g", "r")
    blank = CCDData(np.zeros((120, 120)), unit="nmgy", wcs=wcs_of(120, 0.1), meta={"BAND": "r"})
    out = Translator("psf-matching", target=survey, psf=0.4 * u.arcsec)(blank, rng=3)
    assert out.shape == (48, 48)
    assert out.meta["AGTARGET"] == "mine"
    inner = out.data[5:-5, 5:-5]
    assert inner.std() == pytest.approx(survey["r"].sigma, rel=0.06)


def test_survey_is_pickled_scaled_and_compared(measured):
    again = pickle.loads(pickle.dumps(measured))
    assert again == measured
    np.testing.assert_array_equal(again["r"].psf, measured["r"].psf)
    shallow = measured.scaled(exposure=0.25)["r"]
    assert shallow.sigma == pytest.approx(2 * measured["r"].sigma)
    np.testing.assert_array_equal(shallow.kernel(), measured["r"].kernel())
    worse = measured.scaled(fwhm=1.5)["r"]
    assert worse.psf is None
    assert psf_fwhm(worse.kernel()) * SCALE == pytest.approx(1.5 * measured["r"].fwhm, rel=0.01)


def test_filter_with_numbers_only_is_as_before():
    band = get_survey("kids")["r"]
    assert band.psf is band.noise_model is band.noise_sigma is None
    assert psf_fwhm(band.kernel()) * 0.2 == pytest.approx(band.fwhm, rel=0.01)
    given = Filter("r", 0.7, 21.0, 26.0, 100, 0.2, psf=0.9 * u.arcsec, noise_sigma=0.01)
    assert given.sigma == 0.01
    assert psf_fwhm(given.kernel()) * 0.2 == pytest.approx(0.9, rel=0.03)
    for sigma in (0, -1.0, np.nan):
        with pytest.raises(InputError, match="noise_sigma"):
            Filter("r", 0.7, 21.0, 26.0, 100, 0.2, noise_sigma=sigma)


def test_bad_input_is_said(tmp_path):
    image = field()
    good = {"psf": FWHM, "zero_point": 25.0}
    with pytest.raises(UnitError, match="band 'r': the zero point is unknown.*MAGZERO.*give zero_point="):
        Survey.from_fits("s", {"r": image}, psf=FWHM)
    with pytest.raises(InputError, match="band 'r': .*pixel_scale="):
        Survey.from_fits("s", {"r": CCDData(image.data, unit="adu")}, **good)
    with pytest.raises(PSFError, match="band 'r': .*stars"):
        Survey.from_fits("s", {"r": field(stars=0)}, zero_point=25.0)
    with pytest.raises(InputError, match="images="):
        Survey.from_fits("s", {}, **good)
    with pytest.raises(InputError, match="images="):
        Survey.from_fits("s", "field.fits", **good)
    with pytest.raises(InputError, match=r"zero_point names \['i'\]"):
        Survey.from_fits("s", {"r": image}, psf=FWHM, zero_point={"i": 25.0})
    with pytest.raises(InputError, match="differ in pixel scale.*r 0.2500, i 0.3000"):
        Survey.from_fits("s", {"r": image, "i": field(scale=0.3)}, **good)
    with pytest.raises(InputError, match="one band at a time"):
        Survey.from_fits("s", {"r": CCDData(np.ones((2, 50, 50)), unit="adu")}, pixel_scale=0.2, **good)
    with pytest.raises(InputError, match="blank sky"):
        Survey.from_fits("s", {"r": CCDData(image.data[:18, :18], unit="adu")}, pixel_scale=0.2, **good)
    with pytest.raises(UnitError, match="noise=.* does not convert"):
        Survey.from_fits("s", {"r": image}, noise=3 * u.Jy, **good)
    for name, value in (
        ("noise", -1.0),
        ("gain", 0.0),
        ("sky_brightness", np.nan),
        ("zero_point", "bright"),
    ):
        with pytest.raises(InputError, match=name):
            Survey.from_fits("s", {"r": image}, **good | {name: value})
    with pytest.raises(InputError, match="path"):
        Survey.from_fits("s", {"r": 7}, **good)
    # A file without BUNIT is counts, if the zero point is known.
    fits.writeto(tmp_path / "no_unit.fits", image.data, image.wcs.to_header())
    survey = Survey.from_fits("s", {"r": tmp_path / "no_unit.fits"}, psf=FWHM, zero_point=ZERO_POINT)
    assert survey["r"].sigma == pytest.approx(SIGMA / 100, rel=0.05)


@pytest.mark.data
def test_real_cfhtls_has_the_noise_that_its_numbers_say(data_dir):
    """The stack's depth is that of the published survey to a third; its seeing is the header's."""
    pytest.importorskip("surveycodex")
    folder = data_dir / "humvi_multisurvey"
    paths = {band: folder / f"CFHTLS-test_{band}.fits" for band in "gri"}
    survey = Survey.from_fits("here", paths, zero_point=30.0, noise_model=CorrelatedNoise)
    published = get_survey("cfhtls")
    for band in "gri":
        assert 0.65 < survey[band].sigma / published[band].sigma < 1.4
        assert 0.6 < survey[band].fwhm < 0.95
        # Lanczos resampling leaves neighbours correlated.
        assert 0.02 < survey[band].noise_model.autocorrelation(1)[1, 2] < 0.5
    assert survey.pixel_scale == pytest.approx(0.186, abs=1e-4)
