import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from astrogan.api import Observation
from astrogan.exceptions import InputError
from astrogan.operators.diagnostics import Diagnostics, diagnose


def gaussian(fwhm=3.0, size=13):
    r2 = np.sum(np.square(np.mgrid[-(size // 2) : size // 2 + 1, -(size // 2) : size // 2 + 1]), axis=0)
    kernel = np.exp(-4 * np.log(2) * r2 / fwhm**2)
    return kernel / kernel.sum()


def reflected(plane, kernel):
    return fftconvolve(np.pad(plane, len(kernel) // 2, mode="symmetric"), kernel, mode="valid")


@pytest.fixture
def scene(rng):
    """(truth, observation) of two bands of unequal noise."""
    truth = np.zeros((2, 80, 90))
    truth[:, rng.integers(10, 70, 15), rng.integers(10, 80, 15)] = 4000
    sigma = np.array([2.0, 8.0])[:, None, None]
    data = np.stack([reflected(p, gaussian()) for p in truth]) + rng.normal(size=truth.shape) * sigma
    variance = np.broadcast_to(sigma**2, truth.shape)
    return truth, Observation(data, variance=variance, psf=np.stack([gaussian()] * 2), bands=("g", "r"))


def test_the_truth_fits(scene):
    truth, observed = scene
    report = diagnose(observed, truth)
    assert report.reduced_chi2 == pytest.approx(1, abs=0.04)
    assert all(abs(c - 1) < 0.06 for c in report.reduced_chi2_per_band)
    assert not report.flags.any()
    assert report.residual.shape == report.chi2.shape == observed.shape
    assert report.residual.std() == pytest.approx(1, abs=0.02)
    assert report.border == 6
    assert report.out_of_range is None


def test_residual_is_in_sigma_and_has_the_sign_of_the_model(scene):
    truth, observed = scene
    report = diagnose(observed, truth + np.array([2.0, 8.0])[:, None, None] * 3)
    np.testing.assert_allclose(report.residual - diagnose(observed, truth).residual, 3, atol=1e-4)
    assert report.reduced_chi2 == pytest.approx(10, rel=0.05)


def test_a_lost_star_is_flagged_where_it_was(scene):
    truth, observed = scene
    wrong = truth.copy()
    y, x = np.argwhere((truth[0] > 0) & (np.add.outer(np.arange(80), np.arange(90)) > 0))[7]
    wrong[0, y, x] = 0
    report = diagnose(observed, wrong)
    assert report.flags[0, y, x]
    assert not report.flags[1].any()
    flagged = np.argwhere(report.flags[0])
    assert np.abs(flagged - [y, x]).max() < 12


def test_what_the_psf_hides_is_not_found(scene):
    """The documented limit: an invented pixel-to-pixel pattern leaves no trace."""
    truth, observed = scene
    pattern = 100 * (-1.0) ** np.add.outer(np.arange(80), np.arange(90))
    report = diagnose(observed, truth + pattern)
    assert report.reduced_chi2 == pytest.approx(diagnose(observed, truth).reduced_chi2, abs=1e-3)
    assert "cannot" in Diagnostics.__doc__


def test_false_alarms_are_as_rare_as_stated(rng):
    noise = rng.normal(size=(1, 1000, 1000))
    report = diagnose(Observation(noise, variance=np.ones_like(noise)), np.zeros_like(noise))
    assert report.flags.mean() < 5e-5
    assert 1.5 < report.threshold < 2.5


def test_false_alarms_are_as_rare_beside_edges_and_masks(rng):
    """Ever so many small images with holes: no place gives more of them."""
    noise = rng.normal(size=(300, 24, 24))
    valid = rng.random(noise.shape) > 0.4
    report = diagnose(Observation(noise, valid=valid, variance=np.ones_like(noise)), np.zeros_like(noise))
    assert report.flags.mean() < 1e-4


def test_invalid_pixels_and_border_take_no_part(scene):
    truth, observed = scene
    valid = np.ones(observed.shape, bool)
    valid[:, 30:40, 30:40] = False
    data = np.where(valid, observed.data, np.float32(1e9))
    wrong = truth.copy()
    report = diagnose(observed.replace(data=data, valid=valid), wrong)
    assert report.reduced_chi2 == pytest.approx(1, abs=0.05)
    assert (report.residual[~valid] == 0).all()
    assert not report.flags[~valid].any()
    edge = np.zeros(valid.shape, bool)
    edge[:, :6] = edge[:, -6:] = True
    edge[:, :, :6] = edge[:, :, -6:] = True
    data = np.where(edge, np.float32(1e6), observed.data)
    report = diagnose(observed.replace(data=data), truth)
    assert report.reduced_chi2 == pytest.approx(1, abs=0.05)
    assert not report.flags[edge].any()


def test_convolution_reflects(rng):
    flat = Observation(np.full((1, 20, 20), 7.0), variance=np.ones((1, 20, 20)), psf=gaussian()[None])
    np.testing.assert_allclose(diagnose(flat, np.full((1, 20, 20), 7.0)).residual, 0, atol=1e-5)


def test_psf_argument_overrides_and_no_psf_compares_directly(scene):
    truth, observed = scene
    wide = diagnose(observed, truth, gaussian(4.5))
    assert wide.reduced_chi2 > 1.3
    direct = diagnose(observed.replace(psf=None), observed.data)
    assert direct.reduced_chi2 == 0
    assert direct.border == 0


def test_missing_variance_is_measured_and_said(scene):
    truth, observed = scene
    report = diagnose(observed.replace(variance=None), truth)
    assert report.variance_estimated
    assert report.reduced_chi2 == pytest.approx(1, abs=0.25)
    assert "estimated" in report.summary()
    with pytest.raises(InputError, match="shows no noise"):
        diagnose(Observation(np.zeros((1, 9, 9))), np.zeros((1, 9, 9)))


def test_summary_and_html(scene):
    truth, observed = scene
    report = diagnose(observed.replace(bands=("<g>", "r")), truth)
    assert report.summary().startswith(f"reduced chi2 {report.reduced_chi2:.3f} (<g> ")
    assert str(report) == report.summary()
    html = report._repr_html_()
    assert "&lt;g&gt;" in html
    assert "<g>" not in html


def test_bad_arguments(scene):
    truth, observed = scene
    with pytest.raises(InputError, match="restored has shape"):
        diagnose(observed, truth[0])
    with pytest.raises(InputError, match="NaN or inf"):
        diagnose(observed, np.where(truth > 0, np.nan, truth))
    with pytest.raises(InputError, match="psf has shape"):
        diagnose(observed, truth, np.ones((4, 4)) / 16)
    with pytest.raises(InputError, match="positive sum"):
        diagnose(observed, truth, np.zeros((5, 5)))


@settings(max_examples=25)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 5), st.booleans())
def test_any_size(ny, nx, reach, masked):
    rng = np.random.default_rng(ny * 71 + nx)
    data = rng.normal(size=(1, ny, nx))
    valid = rng.random(data.shape) > (0.3 if masked else -1)
    psf = gaussian(2.0, 2 * reach + 1)[None]
    report = diagnose(Observation(data, valid=valid, variance=np.ones_like(data), psf=psf), np.zeros_like(data))
    assert report.flags.shape == data.shape
    assert np.isnan(report.reduced_chi2) == (not valid[0, reach : ny - reach, reach : nx - reach].any())
    report.summary()
