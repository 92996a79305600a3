"""`Translator`: grids, PSFs, noise, units, forms and provenance, on simulated and on real images."""

import glob
import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import angular_separation
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, NDData, StdDevUncertainty
from astropy.wcs import WCS, Sip

from astrogan import Translator
from astrogan.api import Estimate
from astrogan.exceptions import BackendError, InputError, PSFWarning, UncertaintyWarning, UnitError, WCSError
from astrogan.image.psf import gaussian_psf, moffat_psf, psf_fwhm
from astrogan.image.read import read_image
from astrogan.image.wcs import cube_wcs, pixel_scale, wcs_equal, wcs_from_header
from astrogan.operators.translator import TargetSpec

CFHT, SDSS = 0.187, 0.396


def tan(scale=CFHT, angle=0.0, flip=True, shape=(136, 150)):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = (215.0, 52.0), (np.array(shape[::-1]) + 1) / 2 + (3.3, -7.1)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[c, -s], [s, c]]) @ np.diag([-1 if flip else 1, 1]) * scale / 3600
    wcs.pixel_shape = shape[::-1]
    return wcs


def sip(**keywords):
    wcs = tan(**keywords)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    a, b = np.zeros((3, 3)), np.zeros((3, 3))
    a[2, 0], b[1, 1] = 1e-4, -5e-5
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    return wcs


WCSS = {
    "plain": tan(),
    "rotated": tan(angle=35.0),
    "flipped": tan(angle=-80.0, flip=False),
    "sip": sip(angle=10.0),
}


@pytest.fixture(params=WCSS)
def wcs(request):
    return WCSS[request.param].deepcopy()


def ccd(data=None, wcs=None, shape=(136, 150), unit="nmgy", **keywords):
    data = np.zeros(shape) if data is None else data
    return CCDData(np.asarray(data, np.float32), unit=unit, wcs=wcs, **keywords)


def spots(shape, positions, fwhm=6.0, flux=100.0):
    y, x = np.indices(shape)
    sigma2 = (fwhm / 2.3548) ** 2
    return sum(
        flux * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma2)) / (2 * np.pi * sigma2) for px, py in positions
    )


def centroid(image):
    y, x = np.indices(image.shape)
    return np.array([(x * image).sum(), (y * image).sum()]) / image.sum()


def separation(sky_a, sky_b):
    return np.degrees(angular_separation(*np.radians([*sky_a, *sky_b]))).max() * 3600


class TestGrid:
    @pytest.mark.parametrize("scale", [SDSS, CFHT, 0.1, 0.25])
    def test_centre_and_scale(self, wcs, scale):
        out = Translator(target=TargetSpec(pixel_scale=scale))(ccd(wcs=wcs))
        factor = pixel_scale(wcs, (136, 150)) / scale
        assert out.shape == tuple(int(np.ceil(n * factor - 1e-6)) for n in (136, 150))
        assert pixel_scale(out.wcs, out.shape) == pytest.approx(scale, rel=1e-4)
        middle_in, middle = ((np.array(s[::-1]) - 1) / 2 for s in ((136, 150), out.shape))
        here, there = wcs.all_pix2world(*middle_in, 0), out.wcs.all_pix2world(*middle, 0)
        assert separation(here, there) < 1e-6

    def test_corners(self, wcs):
        """An output corner lies at the sky position that the common centre and the scale put it at."""
        out = Translator(target=TargetSpec(pixel_scale=SDSS))(ccd(wcs=wcs))
        factor = pixel_scale(wcs, (136, 150)) / SDSS
        for cy in (-0.5, out.shape[0] - 0.5):
            for cx in (-0.5, out.shape[1] - 0.5):
                x = (cx - (out.shape[1] - 1) / 2) / factor + (150 - 1) / 2
                y = (cy - (out.shape[0] - 1) / 2) / factor + (136 - 1) / 2
                assert separation(out.wcs.all_pix2world(cx, cy, 0), wcs.all_pix2world(x, y, 0)) < 1e-6

    def test_there_and_back(self, wcs, rng):
        """SDSS -> CFHTLS -> SDSS: the same sky in every pixel to a millionth of a pixel."""
        there = Translator(target=TargetSpec(pixel_scale=CFHT))(ccd(wcs=wcs))
        back = Translator(target=(wcs, (136, 150)))(there)
        assert back.shape == (136, 150)
        x, y = rng.uniform(0, 149, 100), rng.uniform(0, 135, 100)
        assert separation(back.wcs.all_pix2world(x, y, 0), wcs.all_pix2world(x, y, 0)) < 1e-6 * CFHT

    @pytest.mark.parametrize("name", WCSS)
    def test_sources_stay_on_the_sky(self, wcs, name):
        """Off-centre sources, from every kind of grid to every other."""
        positions = [(40.3, 50.8), (111.7, 60.2), (70.0, 100.4)]
        target = WCSS[name].deepcopy()
        target.wcs.cd *= 2.1
        target.wcs.crpix = (35.0, 45.0)
        if target.sip is not None:
            target.sip = Sip(target.sip.a, target.sip.b, None, None, target.wcs.crpix)
        for x, y in positions:
            out = Translator(target=(target, (90, 80)))(ccd(spots((136, 150), [(x, y)]), wcs=wcs))
            expected = target.all_world2pix(*wcs.all_pix2world(x, y, 0), 0, tolerance=1e-8)
            assert np.abs(centroid(out.data) - expected).max() < 0.05
            assert out.data.sum() == pytest.approx(100, rel=2e-3)

    def test_forms_of_grid(self):
        grid = tan(0.4, 20.0, shape=(60, 50))
        header = grid.to_header()
        header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 2, 50, 60
        image = ccd(wcs=tan())
        for target in (grid, (grid, (60, 50)), header, TargetSpec(wcs=grid), ccd(wcs=grid, shape=(60, 50))):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PSFWarning)
                out = Translator("psf-matching", target=target, noise=False, match=False)(image)
            assert out.shape == (60, 50)
            assert wcs_equal(out.wcs, grid, (60, 50), 1e-6)

    def test_given_shape(self):
        out = Translator(target=TargetSpec(pixel_scale=SDSS, shape=(20, 30)))(ccd(wcs=tan()))
        assert out.shape == (20, 30)
        assert separation(out.wcs.all_pix2world(14.5, 9.5, 0), tan().all_pix2world(74.5, 67.5, 0)) < 1e-6

    def test_without_wcs(self):
        image = ccd(spots((100, 120), [(59.5, 49.5)]))
        out = Translator(target=TargetSpec(pixel_scale=0.4))(image, pixel_scale=0.2 * u.arcsec)
        assert out.wcs is None
        assert out.shape == (50, 60)
        np.testing.assert_allclose(centroid(out.data), [29.5, 24.5], rtol=0, atol=1e-3)
        assert out.meta["PIXSCALE"] == 0.4
        back = Translator(target=TargetSpec(pixel_scale=0.2))(out)
        assert back.shape == (100, 120)

    def test_only_psf(self):
        image = ccd(spots((100, 120), [(40.0, 50.0)], fwhm=4.0))
        out = Translator(target=TargetSpec(psf=6.0), psf=4.0)(image)
        assert out.shape == (100, 120)
        assert out.data.sum() == pytest.approx(100, rel=1e-4)
        assert psf_fwhm(out.data[35:66, 25:56]) == pytest.approx(6.0, rel=0.01)

    def test_errors(self):
        translate = Translator(target=TargetSpec(pixel_scale=0.4))
        with pytest.raises(InputError, match="pixel_scale=None.*arcsec"):
            translate(ccd())
        with pytest.raises(WCSError, match="image has no celestial WCS"):
            Translator(target=tan())(ccd())
        far = tan()
        far.wcs.crval = (10.0, -40.0)
        with pytest.raises(InputError, match=r"no pixel of its grid|no position on the image"):
            Translator(target=far)(ccd(wcs=tan()))
        bare = tan()
        bare.pixel_shape = None
        with pytest.raises(InputError, match="without a size"):
            Translator(target=bare)
        with pytest.raises(WCSError, match="without celestial axes"):
            Translator(target=WCS(naxis=2))
        with pytest.raises(WCSError, match="without a celestial WCS"):
            Translator(target=fits.Header())
        with pytest.raises(InputError, match="is not understood"):
            Translator(target=3.0)
        with pytest.raises(InputError, match="survey='hubble-deep'"):
            Translator(target="hubble-deep")
        with pytest.raises(InputError, match="must be None when wcs is given"):
            TargetSpec(wcs=tan(), pixel_scale=0.3)
        with pytest.raises(WCSError, match="wcs of the target"):
            TargetSpec(wcs=WCS(naxis=2))
        for scale in (0, -1, np.nan, "small", 3 * u.s):
            with pytest.raises(InputError, match="pixel_scale="):
                TargetSpec(pixel_scale=scale)
        for shape in (5, (0, 3), (1.5, 2)):
            with pytest.raises(InputError, match="shape="):
                TargetSpec(shape=shape)


class TestFluxAndUnits:
    @pytest.mark.parametrize("scale", [SDSS, 0.1])
    def test_flux_is_per_pixel(self, scale):
        image = ccd(spots((136, 150), [(70.0, 66.0)]), wcs=tan())
        out = Translator(target=TargetSpec(pixel_scale=scale))(image)
        assert out.data.sum() == pytest.approx(100, rel=1e-3)

    @pytest.mark.parametrize("unit", ["MJy / sr", "nmgy / arcsec2"])
    def test_surface_brightness_is_not(self, unit):
        image = ccd(np.full((136, 150), 7.0), wcs=sip(), unit=unit, uncertainty=StdDevUncertainty(np.ones((136, 150))))
        out = Translator(target=TargetSpec(pixel_scale=SDSS))(image)
        good = ~out.mask
        np.testing.assert_allclose(out.data[good], 7.0, rtol=1e-4)
        # Averages over w = 2.12 pixels along each axis have (w - 1/3) / w^2 of the variance.
        width = SDSS / pixel_scale(sip(), (136, 150))
        assert np.median(out.uncertainty.array[good]) == pytest.approx((width - 1 / 3) / width**2, rel=0.02)

    def test_same_unit_and_kind_of_uncertainty(self):
        image = ccd(wcs=tan(), unit="adu", uncertainty=InverseVariance(np.full((136, 150), 4.0)))
        out = Translator(target=TargetSpec(pixel_scale=2 * CFHT))(image)
        assert out.unit == u.adu
        assert isinstance(out.uncertainty, InverseVariance)
        np.testing.assert_allclose(out.uncertainty.array[5:-5, 5:-5], 1.0, rtol=1e-3)

    def test_extreme_units(self):
        image = ccd(spots((60, 60), [(30.0, 30.0)]) * 1e-29, unit="erg / (s cm2 Hz)")
        image.data = image.data.astype(np.float64)
        image.data = spots((60, 60), [(30.0, 30.0)]) * 1e-29
        out = Translator(target=TargetSpec(pixel_scale=0.4, noise=3e-29))(image, pixel_scale=0.2)
        assert out.data.std() == pytest.approx(3e-29, rel=0.1)
        out = Translator(target=TargetSpec(pixel_scale=0.4))(image, pixel_scale=0.2)
        assert out.data.sum() == pytest.approx(1e-27, rel=1e-3)


class TestNoise:
    def noise_of(self, image, target, **keywords):
        reading = {"pixel_scale": 0.2} if image.wcs is None else {}
        out = Translator(target=target, **keywords)(image, **reading)
        return out.data[4:-4, 4:-4].std()

    def test_reaches_the_targets(self, rng):
        image = ccd(rng.normal(0, 0.01, (420, 430)), wcs=tan(shape=(420, 430)))
        for noise in (0.05, 0.05 * u.Unit("nmgy"), 0.05 * 3.631e-6 * u.Jy):
            got = self.noise_of(image, TargetSpec(pixel_scale=SDSS, noise=noise))
            assert got == pytest.approx(0.05, rel=0.02)

    def test_zero_point(self, rng):
        image = ccd(rng.normal(0, 1.0, (420, 430)), wcs=tan(shape=(420, 430)), unit="adu")
        target = TargetSpec(pixel_scale=SDSS, noise=0.05 * u.Unit("nmgy"), name="sdss")
        # Zero point 30: a nanomaggy (22.5) is 1000 counts.
        assert self.noise_of(image, target, zero_point=30.0) == pytest.approx(50, rel=0.02)
        assert self.noise_of(image, target, zero_point=[30.0]) == pytest.approx(50, rel=0.02)
        with pytest.raises(UnitError, match=r"'sdss'.*adu; give zero_point="):
            Translator(target=target)(image)
        with pytest.raises(InputError, match="zero_point=nan"):
            Translator(target=target, zero_point=np.nan)(image)

    def test_surface_brightness(self):
        image = ccd(shape=(300, 300), unit="nmgy / arcsec2")
        for noise in (0.05 * u.Unit("nmgy"), 0.05 / 0.16):
            got = self.noise_of(image, TargetSpec(pixel_scale=0.4, noise=noise))
            assert got == pytest.approx(0.05 / 0.16, rel=0.03)

    def test_samples_differ_and_repeat(self):
        translate = Translator(target=TargetSpec(pixel_scale=0.4, noise=1.0))
        first = translate(ccd(), n_samples=3, rng=5, pixel_scale=0.2)
        assert len(first) == 3
        assert (first[0].data != first[1].data).any()
        again = translate(ccd(), n_samples=3, rng=np.random.default_rng(5), pixel_scale=0.2)
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a.data, b.data)

    @pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
    def test_bad_samples(self, n):
        with pytest.raises(InputError, match="n_samples="):
            Translator(target=TargetSpec(psf=None))(ccd(), n_samples=n)

    def test_uncertainty_is_only_the_inputs(self):
        target = TargetSpec(pixel_scale=0.4, noise=1.0)
        assert Translator(target=target)(ccd(), pixel_scale=0.2).uncertainty is None
        given = ccd(uncertainty=StdDevUncertainty(np.full((136, 150), 0.1)))
        out = Translator(target=target)(given, pixel_scale=0.2)
        np.testing.assert_allclose(out.uncertainty.array[5:-5, 5:-5], 1.0, rtol=1e-3)

    def test_noisier_image_is_noted(self, rng):
        image = ccd(rng.normal(0, 1.0, (100, 100)))
        out = Translator(target=TargetSpec(pixel_scale=0.4, noise=0.1))(image, pixel_scale=0.2)
        assert "noisier=0" in out.meta["AGINFO"]

    @pytest.mark.parametrize("noise", [-1.0, np.nan, [1.0, 2.0]])
    def test_bad_noise(self, noise):
        with pytest.raises(InputError, match="noise"):
            Translator(target=TargetSpec(noise=noise))(ccd())


class TestSurvey:
    @pytest.fixture(autouse=True)
    def _codex(self):
        pytest.importorskip("surveycodex")

    def test_sdss(self, rng):
        shape = (400, 400)
        # A star that falls onto the middle of output pixel (57, 110).
        x, y = ((p - 94) * SDSS / CFHT + 199.5 for p in (57, 110))
        data = rng.normal(0, 0.0013, shape) + spots(shape, [(x, y)], fwhm=0.71 / CFHT, flux=1000.0)
        image = ccd(data, wcs=tan(shape=shape), meta={"FILTER": "r.MP9601"})
        out = Translator(target="sdss", psf=spots((31, 31), [(15, 15)], fwhm=0.71 / CFHT))(image)
        assert out.shape == (189, 189)
        assert pixel_scale(out.wcs, out.shape) == pytest.approx(SDSS, rel=1e-6)
        assert out.data[:60, 100:].std() == pytest.approx(0.028, rel=0.02)
        np.testing.assert_allclose(
            out.wcs.all_world2pix(*image.wcs.all_pix2world(x, y, 0), 0), [57, 110], rtol=0, atol=1e-6
        )
        around = out.data[95:126, 42:73]
        np.testing.assert_allclose(centroid(around), [15, 15], rtol=0, atol=0.03)
        assert psf_fwhm(around) * SDSS == pytest.approx(1.32, rel=0.01)
        assert around.sum() == pytest.approx(1000, rel=0.01)
        assert out.meta["AGTARGET"] == "sdss"
        assert psf_fwhm(out.psf) * SDSS == pytest.approx(1.32, rel=0.01)

    def test_bands(self):
        cube = ccd(np.zeros((3, 100, 100)), unit="nmgy")
        with pytest.raises(InputError, match="band '0' is none of.*bands="):
            Translator(target="cfhtls", psf=4.0)(cube, pixel_scale=0.4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PSFWarning)
            out = Translator("psf-matching", target="cfhtls", psf=4.0, bands=("g", "r", "i"))(cube, pixel_scale=0.4)
        assert out.shape[0] == 3
        named = {band: ccd(shape=(100, 100)) for band in ("G", "SDSS r")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PSFWarning)
            out = Translator(target="sdss", psf=2.0)(named, pixel_scale=0.4)
        assert list(out) == ["G", "SDSS r"]
        ratio = out["G"].data[5:-5, 5:-5].std() / out["SDSS r"].data[5:-5, 5:-5].std()
        assert ratio == pytest.approx(0.0171 / 0.028, rel=0.05)
        with pytest.raises(InputError, match="names 2 bands; the image has 3"):
            Translator(target="sdss", bands=("g", "r"), psf=4.0)(cube, pixel_scale=0.4)

    def test_sharper_survey_warns_and_resamples(self):
        image = ccd(spots((60, 60), [(29.5, 29.5)], fwhm=3.3), wcs=tan(SDSS, shape=(60, 60)), meta={"FILTER": "r"})
        with pytest.warns(PSFWarning, match="no convolution sharpens"):
            out = Translator("psf-matching", target="cfhtls", psf=gaussian_psf(3.3), noise=False)(image)
        assert out.data.sum() == pytest.approx(100, rel=2e-3)
        assert out.psf is None
        assert "unmatched=r" in out.meta["AGINFO"]
        assert psf_fwhm(out.data[50:-50, 50:-50]) * pixel_scale(out.wcs) == pytest.approx(3.3 * SDSS, rel=0.02)


def test_varying_psf_is_said_to_be_matched_at_the_centre():
    image = ccd(spots((100, 120), [(59.0, 50.0)], fwhm=4.0))

    def varying(x, y):
        return gaussian_psf(3.0 + x / 59.5, 31)

    with pytest.warns(PSFWarning, match="varies over the field"):
        out = Translator(target=TargetSpec(psf=gaussian_psf(6.0, 31)), psf=varying)(image)
    assert psf_fwhm(out.data[35:66, 44:75]) == pytest.approx(6.0, rel=0.01)


def test_repr_is_short():
    spec = TargetSpec(wcs=tan(), psf=moffat_psf(3.0), noise=0.1)
    assert repr(spec) == "TargetSpec(wcs=<WCS>, psf=<ndarray>, noise=0.1)"
    assert len(repr(Translator(target=spec))) < 80


class TestImageAsTarget:
    def test_grid_psf_and_noise(self, rng):
        reference = ccd(rng.normal(0, 0.2, (80, 90)), wcs=tan(SDSS, 30.0, shape=(80, 90)))
        reference.psf = moffat_psf(3.3)
        image = ccd(wcs=tan(shape=(200, 200)), shape=(200, 200))
        out = Translator(target=reference, psf=gaussian_psf(3.8))(image)
        assert out.shape == (80, 90)
        assert wcs_equal(out.wcs, reference.wcs, (80, 90), 1e-6)
        np.testing.assert_allclose(out.psf, moffat_psf(3.3), rtol=0, atol=1e-6)
        assert out.data[~out.mask].std() == pytest.approx(0.2, rel=0.1)

    def test_stars_or_none(self):
        # Nothing on it to measure a PSF on: its grid and noise count.
        out = Translator(target=ccd(wcs=tan(SDSS, shape=(60, 60)), shape=(60, 60)))(ccd(wcs=tan()))
        assert out.shape == (60, 60)

    def test_path(self, tmp_path):
        pytest.importorskip("astrogan.image.read")
        ccd(wcs=tan(SDSS, shape=(60, 60)), shape=(60, 60)).write(tmp_path / "reference.fits")
        ccd(wcs=tan()).write(tmp_path / "image.fits")
        out = Translator(target=str(tmp_path / "reference.fits"))(tmp_path / "image.fits")
        assert isinstance(out, CCDData)
        assert out.shape == (60, 60)
        assert out.meta["AGTARGET"] == "reference.fits"


class TestForms:
    target = TargetSpec(pixel_scale=SDSS)

    def test_cube(self):
        cube = CCDData(np.zeros((3, 136, 150)), unit="nmgy", wcs=cube_wcs(sip(), 3))
        out = Translator(target=self.target)(cube)
        assert out.shape[0] == 3
        assert out.wcs.naxis == 3
        flat = Translator(target=self.target)(ccd(wcs=sip()))
        assert wcs_equal(out.wcs, flat.wcs, flat.shape, 1e-9)
        np.testing.assert_allclose(out[:, 5:, 5:].wcs.all_pix2world(1, 2, 2, 0)[2], 2.0)

    def test_lists_dicts_nddata(self):
        image = ccd(spots((136, 150), [(60.0, 70.0)]), wcs=tan())
        translate = Translator(target=self.target)
        single = translate(image)
        many = translate([image, image])
        assert isinstance(many, list)
        np.testing.assert_array_equal(many[1].data, single.data)
        named = translate({"g": image})
        assert list(named) == ["g"]
        out = translate(NDData(image.data, unit="nmgy", wcs=tan()))
        assert type(out) is NDData
        assert wcs_equal(out.wcs, single.wcs, single.shape, 1e-9)

    def test_input_is_untouched(self):
        image = ccd(np.ones((136, 150)), wcs=sip(), meta={"SEEING": 0.7, "PSF_P0": 1.0})
        image.mask = np.zeros((136, 150), bool)
        before = image.copy()
        header = image.wcs.to_header(relax=True).tostring()
        Translator(target=TargetSpec(pixel_scale=SDSS, psf=1.3 * u.arcsec, noise=0.1), psf=0.7 * u.arcsec)(image)
        np.testing.assert_array_equal(image.data, before.data)
        np.testing.assert_array_equal(image.mask, before.mask)
        assert image.meta == before.meta
        assert image.wcs.to_header(relax=True).tostring() == header

    def test_old_psf_leaves_the_header(self):
        image = ccd(np.ones((136, 150)), wcs=tan(), meta={"SEEING": 0.7, "OBJECT": "blank"})
        out = Translator(target=TargetSpec(pixel_scale=SDSS, psf=1.3 * u.arcsec), psf=0.7 * u.arcsec)(image)
        assert "SEEING" not in out.meta
        assert out.meta["OBJECT"] == "blank"
        assert "SEEING" in Translator(target=self.target)(image).meta

    def test_masks(self):
        mask = np.zeros((136, 150), bool)
        mask[60:70, 80:90] = True
        data = np.ones((136, 150), np.float32)
        data[mask] = np.nan
        out = Translator(target=TargetSpec(pixel_scale=2 * CFHT))(ccd(data, wcs=tan(), mask=mask))
        assert out.mask[30:35, 40:45].all()
        assert not out.mask[:25].any()
        np.testing.assert_allclose(out.data, 4.0, rtol=1e-5)

    def test_value_under_the_mask_has_no_say(self):
        mask = np.zeros((60, 60), bool)
        mask[20:25, 30:33] = True
        results = []
        for value in (0.0, 1e30, np.nan):
            data = spots((60, 60), [(33.0, 30.0)])
            data[mask] = value
            results.append(Translator(target=TargetSpec(pixel_scale=0.4))(ccd(data, mask=mask), pixel_scale=0.2).data)
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[0], results[2])

    def test_provenance(self):
        out = Translator("psf-matching", target=TargetSpec(pixel_scale=SDSS, name="coarse"), resampling="bilinear")(
            ccd(wcs=tan()), rng=7
        )
        assert out.meta["AGOP"] == "translate"
        assert out.meta["AGTARGET"] == "coarse"
        assert out.meta["AGSEED"] == 7
        assert "resampling=bilinear" in out.meta["AGOPTS"]

    def test_through_fits(self, tmp_path):
        out = Translator(target=self.target)(ccd(np.ones((136, 150)), wcs=sip()))
        out.write(tmp_path / "out.fits")
        again = CCDData.read(tmp_path / "out.fits")
        assert wcs_equal(again.wcs, out.wcs, out.shape, 1e-6)


class TestBackends:
    def test_any_instance(self):
        class Zero:
            def __call__(self, observation, target, *, rng):
                return Estimate(np.zeros((len(observation.data), *target.shape), np.float32))

        image = ccd(wcs=tan(), uncertainty=StdDevUncertainty(np.ones((136, 150))))
        translate = Translator(Zero(), target=TargetSpec(pixel_scale=SDSS))
        with pytest.warns(UncertaintyWarning):
            out = translate(image)
        assert out.shape == (65, 71)
        assert out.uncertainty is None

    def test_broken(self):
        class WrongShape:
            def __call__(self, observation, target, *, rng):
                return Estimate(observation.data)

        with pytest.raises(BackendError, match=r"expected \(1, 65, 71\)"):
            Translator(WrongShape(), target=TargetSpec(pixel_scale=SDSS))(ccd(wcs=tan()))

    def test_unknown_option(self):
        with pytest.raises(InputError, match="sharpness"):
            Translator(target=TargetSpec(psf=3.0), sharpness=3)


@pytest.mark.data
class TestRealImages:
    @pytest.mark.parametrize("scale", [SDSS, 0.2])
    def test_cfhtls(self, data_dir, scale):
        """A CFHTLS field on SDSS's and KiDS's pixels: its WCS, its flux, its sources."""
        data = read_image(data_dir / "humvi_multisurvey" / "CFHTLS-test_r.fits", unit="adu")
        out = Translator(target=TargetSpec(pixel_scale=scale))(data)
        assert pixel_scale(out.wcs, out.shape) == pytest.approx(scale, rel=1e-5)
        # The flux in the whole pixels of the output is that in the rectangle that they cover on the input.
        good = ~out.mask
        rows, columns = np.flatnonzero(good.any(axis=1)), np.flatnonzero(good.any(axis=0))
        assert good[np.ix_(rows, columns)].all()
        weights = []
        for inside, n in ((rows, out.shape[0]), (columns, out.shape[1])):
            low, high = ((e - (n - 1) / 2) * scale / 0.186 + 219.5 for e in (inside[0] - 0.5, inside[-1] + 0.5))
            weights.append(np.clip(high - np.arange(440) + 0.5, 0, 1) * np.clip(np.arange(440) + 0.5 - low, 0, 1))
        flux = weights[0] @ data.data.astype(float) @ weights[1]
        assert out.data[good].sum(dtype=float) == pytest.approx(flux, rel=2e-3)
        y, x = np.mgrid[: out.shape[0], : out.shape[1]]
        at = np.rint(data.wcs.all_world2pix(*out.wcs.all_pix2world(x, y, 0), 0)).astype(int).clip(0, 439)
        assert np.corrcoef(data.data[at[1], at[0]][good], out.data[good])[0, 1] > 0.95

    def test_cfhtls_on_the_grid_of_another_survey(self, data_dir):
        """Real WCSs on both sides, with a KiDS header moved onto the field."""
        data = read_image(data_dir / "humvi_multisurvey" / "CFHTLS-test_r.fits", unit="adu")
        kids = wcs_from_header(fits.getheader(data_dir / "humvi_multisurvey" / "KiDS-test_r.fits"))
        kids.wcs.crval = data.wcs.all_pix2world(219.5, 219.5, 0)
        kids.wcs.crpix = (51.0, 51.0)
        out = Translator(target=(kids, (101, 101)))(data)
        assert out.mask is None
        y, x = np.mgrid[:101, :101]
        at = data.wcs.all_world2pix(*out.wcs.all_pix2world(x, y, 0), 0)
        assert np.hypot(at[0][50, 50] - 219.5, at[1][50, 50] - 219.5) < 1e-6
        nearest = data.data[np.rint(at[1]).astype(int), np.rint(at[0]).astype(int)]
        # Undersampled truth, but the same sky: what is bright there is bright here.
        assert np.corrcoef(nearest.ravel(), out.data.ravel())[0, 1] > 0.95

    def test_kids_to_sdss_pairs(self, data_dir):
        """Five galaxies seen by both surveys: KiDS translated is SDSS up to SDSS's noise.

        The two cut-outs differ by a fraction of a pixel and in their sky, which is fitted; and what SDSS's stamps
        give as their PSF is broader than their images are (by 15 to 25 per cent), so that their width is scaled.
        """
        from scipy.ndimage import shift
        from scipy.optimize import minimize

        from astrogan.image._psf_header import moffat_with_measured_fwhm

        folder = data_dir / "kids_sdss_pairs"
        names = sorted(name.split("/")[-1][:7] for name in glob.glob(str(folder / "KiDS" / "*fitim.fits")))
        assert len(names) == 5
        for name in names:
            kids = fits.getdata(folder / "KiDS" / f"{name}fitim.fits")
            sdss, sigma, segments = (
                fits.getdata(folder / "SDSS" / f"{name}{kind}.fits").astype(float)
                for kind in ("fitim", "sigma", "segim")
            )
            widths = []
            for survey in ("KiDS", "SDSS"):
                kernel = np.maximum(fits.getdata(folder / survey / f"{name}psfim.fits"), 0)
                widths.append(psf_fwhm(kernel / kernel.sum()))
            target = TargetSpec(pixel_scale=0.339, shape=sdss.shape, psf=moffat_with_measured_fwhm(0.8 * widths[1]))
            image = CCDData(kids, unit="nJy")
            out = Translator(target=target, psf=moffat_with_measured_fwhm(widths[0]))(image, pixel_scale=0.2)
            galaxy = segments == segments[sdss.shape[0] // 2, sdss.shape[1] // 2]

            def model(p, out=out):
                return p[2] * shift(out.data.astype(float), p[:2], order=3, mode="nearest") + p[3] * 1e-11

            def cost(p, model=model, sdss=sdss, sigma=sigma, galaxy=galaxy):
                return (((model(p) - sdss) / sigma)[galaxy] ** 2).mean()

            steps = np.vstack([np.zeros(4), np.diag([0.3, 0.3, 0.05, 1.0])])
            fits_ = [
                minimize(
                    cost, [dy, dx, 1, 0], method="Nelder-Mead", options={"initial_simplex": [dy, dx, 1, 0] + steps}
                )
                for dy, dx in ((0, 0), (0.5, -0.5))
            ]
            best = min(fits_, key=lambda f: f.fun)
            assert best.fun < 1.6, name
            assert best.x[2] == pytest.approx(1, abs=0.06), name
            assert np.hypot(*best.x[:2]) < 1.0, name
            assert model(best.x)[galaxy].sum() == pytest.approx(sdss[galaxy].sum(), rel=0.03), name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"pixel_scale": 0.2 / 3600}, "target has .* at pixel_scale=5.55556e-05 arcsec, more than"),
        ({"pixel_scale": 0.1, "shape": (10**6, 10**6)}, "1000000 x 1000000 pixels at pixel_scale=0.1"),
        ({"noise": "low"}, "noise='low' of the target must be a number"),
        ({"noise": {}}, "noise={} names no band"),
        ({"psf": {}}, "psf={} names no band"),
    ],
)
def test_targets_that_cannot_be_are_refused(spec, message):
    image = CCDData(np.ones((32, 32)), unit="adu")
    with pytest.raises(InputError, match=message):
        Translator(target=TargetSpec(**spec), psf=3.0)(image, pixel_scale=0.2)


def test_a_target_file_without_unit_is_told_from_the_image(tmp_path):
    from astropy.io import fits

    fits.PrimaryHDU(np.ones((20, 20), "f4")).writeto(tmp_path / "target.fits")
    with pytest.raises(UnitError, match=r"^target: .*no BUNIT.*target=read_image\(path, unit="):
        Translator(target=tmp_path / "target.fits")


@pytest.mark.parametrize("backend", ["psf-matching", "surveynet"])
def test_noise_that_is_not_asked_for_need_not_convert(backend):
    data = np.random.default_rng(0).normal(size=(64, 64)).astype("f4")
    image = CCDData(data, unit="adu", wcs=tan(shape=(64, 64)), meta={"BAND": "r"})
    with pytest.raises(UnitError, match="noise=False"):
        Translator(backend, target="sdss")(image, psf=3.0)
    assert np.isfinite(Translator(backend, target="sdss", noise=False)(image, psf=3.0).data).all()


def test_a_target_is_needed_and_the_first_argument_is_the_backend():
    with pytest.raises(InputError, match="target='sdss'"):
        Translator("sdss")
