"""What a header says after an operation is true of the new pixels."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, NDData

from astrogan import Degrader, Restorer, Translator
from astrogan.image.prepare import prepare
from astrogan.image.provenance import without_stale_keywords
from astrogan.operators.translator import TargetSpec

WIDTHS = {"SEEING", "FWHM", "ESO QC PSF FWHM", "FWHMBETA"}
OTHERS = {"OBJECT", "GAIN", "ESO TEL AMBI FWHM START"}


def header():
    meta = fits.Header()
    meta["OBJECT"], meta["GAIN"] = "NGC 6976", 2.0
    meta["SEEING"] = 1.2
    meta["FWHM"] = (6.0, "[pixels]")
    meta["HIERARCH ESO QC PSF FWHM"] = 1.1
    meta["HIERARCH ESO TEL AMBI FWHM START"] = 0.8
    meta["FWHMBETA"] = 2.5
    meta["PSF_P0"] = 1.0
    meta["SATURATE"], meta["PIXSCALE"], meta["SECPIX1"] = 60000.0, 0.2, 0.2
    return meta


def image(size=40):
    y, x = np.mgrid[:size, :size]
    data = 100 * np.exp(-((x - 18) ** 2 + (y - 21) ** 2) / 18)
    return NDData(data + np.random.default_rng(0).normal(size=data.shape), unit="adu", meta=header())


@pytest.mark.parametrize("kind", [fits.Header, dict])
def test_stale_keywords_leave_and_the_rest_stays(kind):
    meta = header() if kind is fits.Header else dict(header())
    before = meta.copy()
    out = without_stale_keywords(meta, regridded=True, pixel_scale=0.4)
    assert type(out) is kind
    assert set(out) == OTHERS | {"PIXSCALE"}
    assert out["PIXSCALE"] == 0.4
    assert list(meta.items()) == list(before.items())


def test_widths_on_the_sky_outlive_new_pixels():
    out = without_stale_keywords(header(), widths=False, regridded=True)
    assert set(out) == OTHERS | WIDTHS - {"FWHM"}


@pytest.mark.parametrize(
    ("operate", "kept", "scale"),
    [
        (lambda i: Restorer("wiener", psf=3.0)(i), set(), 0.2),
        (lambda i: Restorer("identity")(i), WIDTHS | {"SATURATE", "PSF_P0"}, 0.2),
        (lambda i: Degrader(4.0, match=False)(i), set(), 0.2),
        (lambda i: Degrader(4.0, match=False, rebin=2)(i), set(), 0.4),
        (lambda i: Degrader(rebin=2)(i), WIDTHS - {"FWHM"}, 0.4),
        (lambda i: Degrader(noise=2.0)(i), WIDTHS | {"SATURATE", "PSF_P0"}, 0.2),
        (lambda i: Degrader(noise=2.0, saturation=50.0)(i), WIDTHS | {"PSF_P0"}, 0.2),
        (lambda i: Translator(target=TargetSpec(pixel_scale=0.3, psf=4.0), psf=3.0)(i), set(), 0.3),
        (lambda i: Translator(target=TargetSpec(pixel_scale=0.3), psf=3.0)(i), WIDTHS - {"FWHM"}, 0.3),
    ],
)
def test_operators_leave_true_headers(operate, kept, scale):
    meta = operate(image()).meta
    said = {key for key in meta if key in header()}
    assert said - OTHERS - {"PIXSCALE", "SECPIX1"} == kept
    assert meta["PIXSCALE"] == pytest.approx(scale, rel=1e-7)
    assert ("SECPIX1" in meta) == (scale == 0.2)


def test_the_next_step_does_not_find_the_old_psf_or_scale():
    before = image(120)
    assert prepare(before).notes["AGPSF"] == "header"
    degraded = Degrader(4.0, match=False, rebin=2)(before)
    assert prepare(degraded).notes["AGPSF"] == "attached to the image"
    degraded.psf = None
    after = prepare(degraded)
    assert after.psf is None
    assert after.observation.pixel_scale == pytest.approx(0.4)


def test_a_grid_without_wcs_gets_its_pixel_scale_written_down():
    plain = CCDData(image().data, unit="adu")
    degraded = Degrader(rebin=2)(plain, pixel_scale=0.2)
    assert degraded.meta["PIXSCALE"] == pytest.approx(0.4)
