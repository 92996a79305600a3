import warnings

import numpy as np
import pytest
from astropy.io import fits

from astrogan.image._kernels import centroid
from astrogan.image.psf import as_psf, psf_from_header


def header(key, value, comment=""):
    h = fits.Header()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # HIERARCH cards say that they are
        h[key] = (value, comment)
    return h


class TestFWHMKeywords:
    @pytest.mark.parametrize(
        "key",
        ["SEEING", "FWHM", "PSF_FWHM", "IQFINAL", "SEEING_MEAN", "HIERARCH ESO QC PSF FWHM", "HIERARCH chip.seeing"],
    )
    def test_arcsec_by_default(self, key):
        model = psf_from_header(header(key, 1.2), pixel_scale=0.4)
        assert model.fwhm[0] == pytest.approx(3.0, rel=0.005)
        assert model.origin.startswith("header ")
        assert model.kernels.sum() == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize(
        ("value", "comment", "fwhm"),
        [
            (3.2, "[pixel] Average FWHM", 3.2),
            (3.2, "Median FWHM in pixels", 3.2),
            (1.2, "[arcsec] seeing", 3.0),
            (1.2, '" seeing, 3 pixels', 3.0),
            (1.2 / 3600, "[deg] FWHM", 3.0),
            (1200.0, "[mas] FWHM", 3.0),
        ],
    )
    def test_units_from_comments(self, value, comment, fwhm):
        assert psf_from_header(header("SEEING", value, comment), pixel_scale=0.4).fwhm[0] == pytest.approx(
            fwhm, rel=0.005
        )

    def test_pixels_need_no_scale_and_angles_do(self):
        assert psf_from_header(header("SEEING", 3.2, "pixels")).fwhm[0] == pytest.approx(3.2, rel=0.005)
        assert psf_from_header(header("SEEING", 1.2)) is None

    @pytest.mark.parametrize("value", [0, -1.0, 99.0, 1e-5, "good", True, ""])
    def test_nonsense_is_passed_over(self, value):
        h = header("SEEING", value)
        assert psf_from_header(h, pixel_scale=0.4) is None
        h["FWHM"] = 2.0
        assert psf_from_header(h, pixel_scale=0.4).fwhm[0] == pytest.approx(5.0, rel=0.005)

    def test_what_is_not_the_images_own_is_passed_over(self):
        for key in ("HIERARCH ESO TEL AMBI FWHM", "HIERARCH ESO TEL GUID FWHM", "HIERARCH DIMM SEEING"):
            assert psf_from_header(header(key, 0.8), pixel_scale=0.2) is None

    def test_measured_on_the_image_goes_first(self):
        h = header("SEEING", 2.0)
        h["PSF_FWHM"] = 1.0
        model = psf_from_header(h, pixel_scale=0.25)
        assert model.fwhm[0] == pytest.approx(4.0, rel=0.005)
        assert model.origin == "header PSF_FWHM"

    def test_plain_mappings_and_empty_headers(self):
        assert psf_from_header({"SEEING": 1.2}, pixel_scale=0.4).n_bands == 1
        for empty in ({}, fits.Header(), {"OBJECT": "M 31"}):
            assert psf_from_header(empty, pixel_scale=0.4) is None

    def test_narrow_seeing(self):
        """Less than a pixel can hold: the narrowest kernel there is."""
        assert psf_from_header({"SEEING": 0.3}, pixel_scale=0.4).fwhm[0] < 1.5

    def test_is_cut_silently_to_small_images(self):
        model = psf_from_header({"SEEING": 1.2}, pixel_scale=0.4)
        assert as_psf(model, shape=(25, 25)).size == 25

    def test_splus(self, data_dir):
        folder = data_dir / "splus_pygalfitm" / "images"
        for band in "gri":
            model = psf_from_header(fits.getheader(folder / f"test_{band}.fits"), pixel_scale=0.55)
            assert "FWHMSEXT" in model.origin
            assert model.fwhm[0] == pytest.approx(as_psf(folder / f"psf_test_{band}.fits").fwhm[0], rel=0.07)

    def test_cfhtls(self, data_dir):
        model = psf_from_header(
            fits.getheader(data_dir / "humvi_multisurvey" / "CFHTLS-test_r.fits"), pixel_scale=0.186
        )
        assert model.fwhm[0] == pytest.approx(0.879 / 0.186, rel=0.005)


def sdss_header(**changes):
    p = [0.7, 0.25, 0.05, 0.01, -0.02, 0.05, 0.1, -0.1, 0.2, 2.0, 1.8, 0.1, 6.5, 7.0, -0.2, 45.0, 46.0, -1.0]
    return {f"PSF_P{i}": v for i, v in enumerate(p)} | changes


class TestSDSS:
    def test_mixture(self):
        model = psf_from_header(sdss_header())
        kernel = model.kernels[0].astype(float)
        assert model.origin == "header PSF_P*"
        assert kernel.sum() == pytest.approx(1, abs=1e-6)
        assert max(abs(np.subtract(centroid(kernel), model.size // 2))) < 0.01
        # Second moments of the core, by hand from the amplitudes and covariances.
        y, x = np.indices(kernel.shape) - model.size // 2
        xx, yy, xy = ((kernel * a * b).sum() for a, b in ((x, x), (y, y), (x, y)))
        assert xx == pytest.approx(0.7 * 2.0 + 0.25 * 6.5 + 0.05 * 45, rel=0.02)
        assert yy == pytest.approx(0.7 * 1.8 + 0.25 * 7.0 + 0.05 * 46, rel=0.02)
        assert xy == pytest.approx(0.7 * 0.1 - 0.25 * 0.2 - 0.05 * 1.0, abs=0.03)

    @pytest.mark.parametrize("changes", [{"PSF_P9": -1.0}, {"PSF_P0": np.nan}, {"PSF_P11": 9.0}, {"PSF_P3": "x"}])
    def test_what_is_no_mixture_is_ignored(self, changes):
        assert psf_from_header(sdss_header(**changes)) is None

    def test_incomplete(self):
        h = sdss_header()
        del h["PSF_P17"]
        assert psf_from_header(h) is None

    def test_real_stamps(self, data_dir):
        """Amplitudes sum to one in normalised PSFs, and widths are those of the survey's seeing."""
        found = []
        for path in sorted((data_dir / "sdss_stamps_ugriz" / "stamps").glob("stamp-*.fits.gz")):
            with fits.open(path) as hdus:
                for hdu in hdus[::2]:
                    amplitudes = sum(hdu.header[f"PSF_P{i}"] for i in range(3))
                    assert amplitudes == pytest.approx(1, abs=0.06)
                    model = psf_from_header(hdu.header)
                    assert as_psf(model, shape=hdu.shape).size <= 51
                    found.append(0.396 * model.fwhm[0])
        assert len(found) > 20
        assert min(found) > 0.95
        assert max(found) < 1.7
        assert np.median(found) == pytest.approx(1.3, abs=0.15)
