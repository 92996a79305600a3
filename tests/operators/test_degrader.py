"""`Degrader`: containers, units, WCS, masks, presets, batches."""

import sys
from concurrent.futures import ThreadPoolExecutor

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData, InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from astrogan import Degrader
from astrogan.api import Estimate
from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.backends.classic.physical_degrader import PhysicalDegrader
from astrogan.exceptions import (
    BackendError,
    InputError,
    MissingDependencyError,
    PSFError,
    UncertaintyWarning,
    UnitError,
)
from astrogan.image.psf import gaussian_psf, moffat_psf, psf_fwhm
from astrogan.operators._degrader_frame import listed
from astrogan.simulate.surveys import get_survey

NMGY = u.def_unit("a_nanomaggy", 3.631e-6 * u.Jy)


def sky_wcs(scale=0.2, naxis=2):
    wcs = WCS(naxis=naxis)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN", "WAVE"][:naxis]
    wcs.wcs.crval = [150.1, 2.3, 5e-7][:naxis]
    wcs.wcs.crpix = [31.0, 28.5, 1][:naxis]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600, 1e-7][:naxis]
    return wcs


def galaxy(shape=(66, 75), flux=500.0, fwhm=4.0):
    """A Gaussian source off the middle, and its pixel position (x, y)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    sigma = fwhm / 2.3548
    x0, y0 = shape[1] * 0.45, shape[0] * 0.52
    return flux * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2), (x0, y0)


def ccd(data=None, unit="nmgy", **keywords):
    return CCDData(galaxy()[0] if data is None else data, unit=unit, **({"wcs": sky_wcs()} | keywords))


# ---- containers --------------------------------------------------------------------------------------------------


def test_form_unit_and_meta_come_back():
    image = ccd(meta={"OBJECT": "M31"})
    before = image.data.copy()
    out = Degrader(psf=1.5 * u.arcsec, match=False)(image)
    assert type(out) is CCDData
    assert out.unit == image.unit
    assert out.meta["OBJECT"] == "M31"
    assert out.meta["AGOP"] == "degrade"
    assert out.meta["AGBACK"] == "astrogan:physical"
    assert np.array_equal(image.data, before)
    assert "AGOP" not in image.meta
    cube = CCDData(np.stack([before] * 2), unit="adu", wcs=sky_wcs(naxis=3))
    assert Degrader(psf=3.0, match=False, rebin=2)(cube).shape == (2, 33, 37)
    pair = [ccd(), ccd()]
    seen = Degrader(psf=3.0, match=False)(pair)
    assert isinstance(seen, list)
    assert len(seen) == 2
    named = Degrader(psf=3.0, match=False)({"g": ccd(), "r": ccd()})
    assert list(named) == ["g", "r"]
    bare = Degrader(psf=3.0, match=False)(NDData(before))
    assert type(bare) is NDData
    assert bare.unit is None


def test_a_file(tmp_path):
    path = tmp_path / "image.fits"
    ccd(uncertainty=StdDevUncertainty(np.ones((66, 75)))).write(path)
    assert Degrader(psf=3.0, match=False, rebin=3)(path).shape == (22, 25)


def test_nothing_asked_nothing_done():
    image = ccd(galaxy()[0].astype(np.float32))
    assert np.array_equal(Degrader()(image).data, image.data)


def test_operator_says_what_it_is():
    assert repr(Degrader(psf=3.0, rebin=2)) == "Degrader('astrogan:physical', psf=3.0, rebin=2)"
    assert "survey='kids'" in repr(Degrader.preset("kids"))


# ---- PSF ---------------------------------------------------------------------------------------------------------


def test_matched_to_a_fwhm_on_the_sky():
    """The image has 4 pixels, 0.8 arcsec; the result has 1.6 arcsec."""
    point = np.zeros((1, 81, 81))
    point[0, 40 - 15 : 41 + 15, 40 - 15 : 41 + 15] = gaussian_psf(4.0, size=31)
    out = Degrader(psf=1.6 * u.arcsec)(ccd(point[0]), psf=0.8 * u.arcsec)
    assert psf_fwhm(out.data) == pytest.approx(psf_fwhm(gaussian_psf(8.0)), rel=0.005)
    assert out.data.sum() == pytest.approx(1, abs=1e-4)
    # The result knows its PSF.
    assert psf_fwhm(np.squeeze(out.psf)) == pytest.approx(psf_fwhm(gaussian_psf(8.0)), rel=0.005)


def test_added_blur_adds_in_quadrature():
    out = Degrader(psf=6.0, match=False)(ccd(), psf=4.0)
    assert psf_fwhm(np.squeeze(out.psf)) == pytest.approx(np.hypot(6, 4), rel=0.02)


def test_a_psf_per_band_by_name():
    image = {"g": ccd(), "r": ccd()}
    out = Degrader(psf={"r": 3.0, "g": 8.0}, match=False)(image)
    assert out["r"].data.max() > 1.5 * out["g"].data.max()


def test_kernel_on_other_pixels():
    """A kernel sampled at half the image's scale is what the FWHM in arcsec is."""
    one = Degrader(psf=gaussian_psf(8.0), psf_scale=0.1 * u.arcsec, match=False)(ccd())
    other = Degrader(psf=0.8 * u.arcsec, match=False)(ccd())
    assert np.abs(one.data - other.data).max() < 0.01 * other.data.max()


def test_own_psf_missing_or_broader():
    with pytest.raises(PSFError, match="match=False"):
        Degrader(psf=1.0 * u.arcsec)(ccd())
    with pytest.raises(PSFError, match="broader target"):
        Degrader(psf=0.5 * u.arcsec)(ccd(), psf=1 * u.arcsec)


# ---- pixels and WCS ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"rebin": 2}, {"rebin": 3}, {"pixel_scale": 0.6}, {"pixel_scale": 0.47 * u.arcsec}]
)
def test_wcs_follows_the_pixels_to_1e_10_degrees(options):
    """The corner of the image stays where it is, and so does every other point, in units of the new pixels."""
    image = ccd()
    out = Degrader(psf=4.0, match=False, **options)(image)
    factor = options.get("rebin") or u.Quantity(options["pixel_scale"], u.arcsec).value / 0.2
    assert out.shape == tuple(int(n / factor + 1e-9) for n in image.shape)
    ny, nx = out.shape
    x, y = np.array([-0.5, nx - 0.5, -0.5, nx - 0.5]), np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
    new = out.wcs.pixel_to_world(x, y)
    old = image.wcs.pixel_to_world((x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5)
    assert new.separation(old).deg.max() < 1e-10
    assert out.data.sum() == pytest.approx(image.data[: round(ny * factor), : round(nx * factor)].sum(), rel=1e-4)


@pytest.mark.parametrize("scale", [0.4, 0.5, 0.74])
def test_source_stays_where_it_is_on_the_sky(scale):
    image = ccd()
    _, (x0, y0) = galaxy()
    out = Degrader(pixel_scale=scale)(image)
    y, x = np.mgrid[: out.shape[0], : out.shape[1]]
    centre = out.wcs.pixel_to_world((out.data * x).sum() / out.data.sum(), (out.data * y).sum() / out.data.sum())
    assert centre.separation(image.wcs.pixel_to_world(x0, y0)).arcsec < 0.01 * scale


def test_cube_wcs_follows_too():
    cube = CCDData(np.stack([galaxy()[0]] * 2), unit="adu", wcs=sky_wcs(naxis=3))
    out = Degrader(rebin=2)(cube)
    assert out.wcs.naxis == 3
    corner = out.wcs.celestial.pixel_to_world(-0.5, -0.5)
    assert corner.separation(cube.wcs.celestial.pixel_to_world(-0.5, -0.5)).deg < 1e-10


def test_scales_that_are_the_same_or_finer_or_unknown():
    image = ccd()
    assert Degrader(pixel_scale=0.2003)(image).shape == image.shape
    with pytest.raises(InputError, match="finer than the image's"):
        Degrader(pixel_scale=0.1)(image)
    with pytest.raises(InputError, match="pixel_scale= at the call"):
        Degrader(pixel_scale=0.4)(ccd(wcs=None))
    assert Degrader(pixel_scale=0.4)(ccd(wcs=None), pixel_scale=0.2).shape == (33, 37)


@settings(max_examples=25)
@given(ny=st.integers(1, 70), nx=st.integers(1, 70), rebin=st.sampled_from([1, 2, 3, 1.5]))
def test_any_shape(ny, nx, rebin):
    """floor(shape / rebin) pixels, or an error that names the minimum."""
    from astrogan.exceptions import ImageTooSmallError

    image = CCDData(np.ones((ny, nx)), unit="adu")
    degrade = Degrader(psf=2.5, match=False, rebin=rebin, noise=0.1 * u.adu)
    if min(ny, nx) < rebin:
        with pytest.raises(ImageTooSmallError):
            degrade(image)
        return
    assert degrade(image).shape == (int(ny / rebin), int(nx / rebin))


# ---- noise and its units -----------------------------------------------------------------------------------------


def flat(value=0.0, unit="nmgy", shape=(200, 200), sigma=None, **keywords):
    """A flat image with known noise."""
    rng = np.random.default_rng(8)
    data = np.full(shape, value) + (0 if sigma is None else rng.normal(0, sigma, shape))
    uncertainty = None if sigma is None else StdDevUncertainty(np.full(shape, sigma))
    return ccd(data, unit=unit, uncertainty=uncertainty, **keywords)


@pytest.mark.parametrize(
    ("noise", "expected"),
    [(0.3 * u.nmgy, 0.3), (1e-6 * u.Jy, 1 / 3.631), (3e-10 * u.mgy, 0.3)],
)
def test_sigma_in_any_unit_of_flux(noise, expected):
    assert Degrader(noise=noise)(flat()).data.std() == pytest.approx(expected, rel=0.02)


def test_factor_of_the_own_noise_with_its_uncertainty():
    image = flat(sigma=0.02)
    out = Degrader(psf=4.0, noise=2.0, match=False)(image)
    assert out.data.std() == pytest.approx(0.04, rel=0.02)
    np.testing.assert_allclose(out.uncertainty.array, 0.04, rtol=1e-3)
    assert isinstance(out.uncertainty, StdDevUncertainty)


def test_factor_without_uncertainty_measures_the_noise():
    image = flat(sigma=0.02)
    image.uncertainty = None
    out = Degrader(noise=3.0)(image)
    assert out.data.std() == pytest.approx(0.06, rel=0.06)
    assert out.meta["AGVAR"] == "estimated from the background"


@pytest.mark.parametrize(
    "make", [lambda v: StdDevUncertainty(np.sqrt(v)), VarianceUncertainty, lambda v: InverseVariance(1 / v)]
)
def test_kinds_of_uncertainty_agree(make):
    variance = np.random.default_rng(1).uniform(1, 2, (66, 75))
    out = Degrader(psf=3.0, match=False, rebin=2)(ccd(uncertainty=make(variance)))
    assert type(out.uncertainty) is type(make(variance))
    reference = Degrader(psf=3.0, match=False, rebin=2)(ccd(uncertainty=VarianceUncertainty(variance)))
    values = out.uncertainty.represent_as(VarianceUncertainty).array
    np.testing.assert_allclose(values, reference.uncertainty.array, rtol=1e-5)


def test_uncertainty_is_that_of_the_noise_for_noiseless_input():
    assert Degrader(noise=0.1 * u.nmgy)(flat()).uncertainty is None
    out = Degrader(noise=0.1 * u.nmgy, noiseless_input=True)(flat())
    np.testing.assert_allclose(out.uncertainty.array, 0.01, rtol=1e-5)


def test_electrons_in_all_their_forms():
    """1000 e / nmgy, 500 e of sky a pixel, 20 e of read noise: one answer however it is said."""
    area = 0.04
    brightness = 22.5 - 2.5 * np.log10(0.5 / area)
    forms = [
        {"gain": 1000, "sky": 500, "read_noise": 20},
        {"gain": 1000 * u.electron / u.nmgy, "sky": 500 * u.electron, "read_noise": 20 * u.electron},
        {"gain": 1000, "sky": 0.5 * u.nmgy, "read_noise": 20},
        {"gain": 1000, "sky": brightness * u.mag / u.arcsec**2, "read_noise": 20},
        {"gain": 10, "exposure": 100 * u.s, "sky": 500, "read_noise": 20},
    ]
    results = [Degrader(**form)(flat(2.0), rng=4).data for form in forms]
    assert results[0].std() == pytest.approx(np.sqrt(2000 + 500 + 400) / 1000, rel=0.02)
    assert results[0].mean() == pytest.approx(2.0, abs=0.002)
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=1e-5)


def test_counts_with_a_zero_point():
    """The sky in magnitudes needs the zero point of counts."""
    degrader = Degrader(gain=2.0, sky=21.0 * u.mag / u.arcsec**2, zero_point=27.5)
    electrons = 2.0 * 10 ** (0.4 * (27.5 - 21.0)) * 0.04
    assert degrader(flat(unit="adu")).data.std() == pytest.approx(np.sqrt(electrons) / 2, rel=0.02)
    with pytest.raises(UnitError, match="zero_point="):
        Degrader(gain=2.0, sky=21.0 * u.mag / u.arcsec**2)(flat(unit="adu"))


def test_units_that_do_not_convert():
    with pytest.raises(UnitError, match=r"noise=3.0 s does not convert.*nmgy"):
        Degrader(noise=3 * u.s)(flat())
    with pytest.raises(UnitError, match="is not electrons"):
        Degrader(gain=3 * u.electron / u.adu)(flat())
    with pytest.raises(UnitError, match="read_noise"):
        Degrader(gain=3, read_noise=3 * u.s)(flat())
    with pytest.raises(UnitError, match="surface brightness"):
        Degrader(rebin=2)(flat(unit="MJy/sr"))
    assert Degrader(noise=0.1 * u.MJy / u.sr)(flat(unit="MJy/sr")).data.std() == pytest.approx(0.1, rel=0.02)


def test_tiny_fluxes_are_the_same_to_a_factor():
    """Fluxes in cgs units do not fit float32 squared; the answer is the same."""
    options = {"psf": 4.0, "match": False, "noise": 2.0}
    small = ccd(galaxy()[0] * 1e-20, unit="adu", uncertainty=StdDevUncertainty(np.full((66, 75), 1e-20)))
    one = ccd(galaxy()[0], unit="adu", uncertainty=StdDevUncertainty(np.ones((66, 75))))
    np.testing.assert_allclose(Degrader(**options)(small).data * 1e20, Degrader(**options)(one).data, atol=1e-4)
    quantity = Degrader(noise=3e-20 * u.adu, gain=1e22, sky=10.0)(small)
    np.testing.assert_allclose(quantity.data * 1e20, Degrader(noise=3 * u.adu, gain=100.0, sky=10)(one).data, atol=1e-3)


def test_noise_backends_by_name_instance_and_fit(rng):
    fitted = CorrelatedNoise.fit(CorrelatedNoise(np.ones((3, 3))).sample((20, 64, 64), sigma=0.5, rng=rng))
    for noise, level, sigma in (
        ("correlated", 0.2 * u.nmgy, 0.2),
        ("white", 2.0, 0.04),
        (CorrelatedNoise(np.ones((3, 3))), 0.2 * u.nmgy, 0.2),
        (fitted, None, 0.5),
    ):
        image = flat(sigma=0.02) if level == 2.0 else flat()
        out = Degrader(noise=noise, noise_level=level)(image)
        assert out.data.std() == pytest.approx(sigma, rel=0.04)
        neighbours = (out.data[:, 1:] * out.data[:, :-1]).mean() / out.data.var()
        assert (neighbours > 0.3) == (noise != "white")


def test_noise_learned_from_many_images_is_drawn_with_their_levels_in_any_unit(rng):
    """Levels scatter as they did; photon noise grows with the flux; all in the image's unit, however small."""
    truth = CorrelatedNoise(np.ones((3, 3)), signal_slope=0.5)
    light = np.broadcast_to(np.linspace(0, 30, 40), (40, 40, 40))
    levels = np.exp(0.3 * rng.normal(size=40))
    sky = np.stack([truth.sample((1, 40, 40), sigma=s, signal=light[:1], rng=rng)[0] for s in levels])
    for factor in (1.0, 1e-20):
        fitted = CorrelatedNoise.fit((sky + light) * factor, signal=light * factor)
        degrade = Degrader(noise=fitted)
        stds = [degrade(flat(0.0, shape=(40, 40), unit="adu"), rng=seed).data.std() / factor for seed in range(40)]
        assert np.std(np.log(stds)) == pytest.approx(np.std(np.log(levels)), rel=0.35)
        lit = degrade(flat(200 * factor, shape=(300, 300), unit="adu"), rng=1).data / factor
        assert lit.var() == pytest.approx(1 + 0.5 * 200, rel=0.1)


def test_noise_of_the_sky_follows_the_wcs_of_the_result(rng):
    pytest.importorskip("galsim")
    from astrogan.backends.classic.galsim_noise import GalSimNoise

    acf = CorrelatedNoise(np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]])).autocorrelation()
    image = flat(shape=(200, 200))
    scale = np.sqrt(abs(np.linalg.det(image.wcs.pixel_scale_matrix))) * 3600
    noise = GalSimNoise(acf, wcs=scale, sigma=1.0)
    # Correlations reach two of the image's pixels, and so one of the result's.
    for rebin, expected in ((1, 2 / 3), (2, 1 / 3)):
        out = Degrader(noise=noise, noise_level=1 * u.nmgy, rebin=rebin)(image).data
        out = out - out.mean()
        along = [(out[:, 1:] * out[:, :-1]).mean(), (out[1:] * out[:-1]).mean()]
        assert max(along) / out.var() == pytest.approx(expected, abs=0.05)


def test_shared_planes_are_identical_and_default_ones_are_not():
    image = [flat(), flat(), flat()]
    shared = Degrader(noise=0.1 * u.nmgy, shared_band_noise=True)(image, rng=3)
    assert np.array_equal(shared[0].data, shared[1].data)
    assert np.array_equal(shared[0].data, shared[2].data)
    apart = Degrader(noise=0.1 * u.nmgy)(image, rng=3)
    assert abs(np.corrcoef(apart[0].data.ravel(), apart[1].data.ravel())[0, 1]) < 0.02


def test_seeds_and_generators():
    degrade = Degrader(noise=0.1 * u.nmgy)
    one, same, other = (degrade(flat(), rng=seed).data for seed in (5, 5, 6))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.array_equal(degrade(flat(), rng=np.random.default_rng(5)).data, one)
    assert degrade(flat(), rng=5).meta["AGSEED"] == 5
    with pytest.raises(InputError, match="rng=None"):
        degrade(flat(), rng=None)


def test_threads_give_what_serial_calls_give():
    degrade = Degrader(psf=3.0, match=False, gain=100.0, sky=10, noise=0.1 * u.nmgy)
    images = [flat(value, shape=(40, 40)) for value in range(8)]
    serial = [degrade(image, rng=i).data for i, image in enumerate(images)]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda pair: degrade(pair[1], rng=pair[0]).data, enumerate(images)))
    for a, b in zip(serial, threaded, strict=True):
        assert np.array_equal(a, b)


# ---- masks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1e30, np.nan, np.inf])
def test_what_lies_under_a_mask_does_not_matter(value):
    data = galaxy()[0]
    mask = np.zeros(data.shape, bool)
    mask[30:33, 40:42] = True
    data[mask] = value
    out = Degrader(psf=3.0, match=False)(ccd(data, mask=mask))
    data[mask] = 7.0
    reference = Degrader(psf=3.0, match=False)(ccd(data, mask=mask))
    assert np.array_equal(out.data, reference.data)
    assert np.array_equal(out.mask, reference.mask)
    assert out.mask[mask].all()
    assert mask.sum() < out.mask.sum() < mask.sum() + 120


def test_saturation_of_input_stays_flagged_and_of_output_cuts():
    image = ccd()
    peak = image.data.max()
    out = Degrader(psf=3.0, match=False, rebin=2)(image, saturation=0.8 * peak)
    top = np.argwhere(image.data >= 0.8 * peak) // 2
    assert out.mask[tuple(top.T)].all()
    level = 0.5 * peak
    cut = Degrader(saturation=level * u.nmgy)(image)
    assert cut.data.max() == pytest.approx(level)
    assert np.array_equal(cut.mask, image.data >= level)


# ---- presets -----------------------------------------------------------------------------------------------------


def test_recipe_of_2017():
    rng = np.random.default_rng(0)
    bands = {b: ccd(rng.normal(0, 0.02, (100, 100)), wcs=sky_wcs(0.396)) for b in "irg"}
    degrader = Degrader.preset("galaxygan2017", fwhm=1.8 * u.arcsec, noise_ratio=2.0)
    out = degrader(bands, rng=1)
    assert out["i"].meta["AGBACK"] == "astrogan:galaxygan2017"
    s = np.std([b.data for b in bands.values()], ddof=1)
    for band in bands:
        assert out[band].data.std() == pytest.approx(2 * s, rel=0.03)
        assert out[band].unit == u.nmgy
    noise = {b: out[b].data - Degrader.preset("galaxygan2017", noise_ratio=1e-3)(bands, rng=1)[b].data for b in bands}
    np.testing.assert_allclose(noise["i"], noise["g"], atol=1e-6)
    apart = Degrader.preset("galaxygan2017", shared_band_noise=False)(bands, rng=1)
    assert abs(np.corrcoef(apart["i"].data.ravel(), apart["g"].data.ravel())[0, 1]) < 0.03


def test_recipe_in_other_units_pixels_and_forms():
    rng = np.random.default_rng(0)
    data = rng.normal(0, 0.02, (60, 60))
    one = Degrader.preset("galaxygan2017", fwhm=4.5)(ccd(data), rng=1)
    microjansky = Degrader.preset("galaxygan2017", fwhm=4.5)(ccd(data * 3.631, unit="uJy"), rng=1)
    np.testing.assert_allclose(microjansky.data / 3.631, one.data, atol=1e-6)
    text = Degrader.preset("galaxygan2017", fwhm="0.9 arcsec")(ccd(data), rng=1)
    np.testing.assert_allclose(text.data, one.data, atol=1e-6)
    stretched = Degrader.preset("galaxygan2017", fwhm=4.5, output="stretched")(ccd(data), rng=1)
    assert stretched.unit == u.dimensionless_unscaled
    assert stretched.meta["AGLINEAR"] is False
    with pytest.raises(InputError, match="0.396 for SDSS"):
        Degrader.preset("galaxygan2017")(ccd(data, wcs=None))
    with pytest.warns(UncertaintyWarning, match="None"):
        assert Degrader.preset("galaxygan2017", fwhm=4.5, output="stretched")(flat(sigma=0.01)).uncertainty is None
    with pytest.raises(InputError, match="no such step"):
        Degrader.preset("galaxygan2017", gain=3.0)


def test_survey_brings_pixels_psf_and_noise():
    """A deep image as KiDS would see it: 0.2 arcsec, 0.7 arcsec seeing, the survey's noise."""
    deep = flat(shape=(240, 240), wcs=sky_wcs(0.1))
    out = Degrader.preset("kids", bands="r")(deep, psf=0.3 * u.arcsec, rng=1)
    assert out.shape == (120, 120)
    kids = get_survey("kids")["r"]
    assert out.data.std() == pytest.approx(kids.sigma, rel=0.03)
    point = np.zeros((240, 240))
    point[105:136, 105:136] = gaussian_psf(3.0, size=31)
    quiet = Degrader.preset("kids", bands="r", gain=1e12)(ccd(point, wcs=sky_wcs(0.1)), psf=0.3 * u.arcsec)
    assert psf_fwhm(np.squeeze(quiet.psf)) == pytest.approx(0.7 / 0.2, rel=0.04)
    assert quiet.data.sum() == pytest.approx(1, abs=2e-3)


def test_survey_noise_in_every_unit():
    """Nanomaggies, micro-Jansky and counts with a zero point are one image."""
    sigma = get_survey("kids")["g"].sigma
    options = {"bands": "g", "pixel_scale": None, "match": False}
    for image, extra, per in (
        (flat(), {}, 1.0),
        (flat(unit="uJy"), {}, 3.631),
        (flat(unit="adu"), {"zero_point": 30.0}, 1000.0),
        (flat(unit=""), {"zero_point": 22.5}, 1.0),
    ):
        out = Degrader.preset("kids", **options, **extra)(image)
        assert out.data.std() == pytest.approx(sigma * per, rel=0.02)
    with pytest.raises(UnitError, match="zero_point="):
        Degrader.preset("kids", **options)(flat(unit="adu"))
    with pytest.raises(UnitError, match="surface brightness"):
        Degrader.preset("kids", **options)(flat(unit="MJy/sr"))


def test_survey_sky_scales_with_the_pixels_kept():
    """With pixels of twice the survey's edge the sky has four times the electrons."""
    kids = get_survey("kids")["r"]
    image = flat(wcs=sky_wcs(0.4))
    out = Degrader.preset("kids", bands="r", pixel_scale=None, match=False)(image)
    expected = np.sqrt(4 * kids.sky_electrons + kids.read_noise**2) / kids.electrons_per_nanomaggy
    assert out.data.std() == pytest.approx(expected, rel=0.02)


def test_survey_noise_by_band_name():
    image = {"g": flat(), "i": flat()}
    out = Degrader.preset("kids", match=False)(image)
    for band in image:
        assert out[band].data.std() == pytest.approx(get_survey("kids")[band].sigma, rel=0.02)
    with pytest.raises(InputError, match="Say which filters"):
        Degrader.preset("kids", match=False)([flat(), flat()])
    with pytest.raises(InputError, match="names 3 bands"):
        Degrader.preset("kids", match=False, bands="gri")([flat(), flat()])


@pytest.mark.parametrize("name", ["sdss", "cfhtls", "kids", "hsc", "decals", "lsst", "euclid"])
def test_every_survey_preset_runs(name):
    if name not in ("kids", "decals"):
        pytest.importorskip("surveycodex")
    band = {"euclid": "IE"}.get(name, "r")
    out = Degrader.preset(name, bands=[band])(flat(shape=(120, 120), wcs=sky_wcs(0.05)), psf=0.12 * u.arcsec)
    survey = get_survey(name)
    assert out.shape == tuple(2 * [int(120 * 0.05 / survey.pixel_scale + 1e-9)])
    assert out.data.std() == pytest.approx(survey[band].sigma, rel=0.4)


def test_preset_without_its_package_or_of_no_such_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "surveycodex", None)
    with pytest.raises(MissingDependencyError, match="pip install surveycodex"):
        Degrader.preset("lsst")
    with pytest.raises(InputError, match="preset 'nope' is unknown; there are: galaxygan2017, cfhtls"):
        Degrader.preset("nope")


# ---- batches -----------------------------------------------------------------------------------------------------


def test_batch_equals_calls_and_is_repeatable(rng):
    stamps = rng.uniform(0, 10, (9, 3, 32, 40)).astype(np.float32)
    degrade = Degrader(psf=3.0, match=False, rebin=2)
    together = degrade.batch(stamps)
    alone = [degrade(CCDData(s, unit="adu")).data for s in stamps]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    noisy = Degrader(psf=3.0, match=False, noise=2.0)
    assert np.array_equal(noisy.batch(stamps, rng=1), noisy.batch(stamps, rng=1))
    assert not np.array_equal(noisy.batch(stamps, rng=1), noisy.batch(stamps, rng=2))


def test_batch_with_angles_units_and_a_survey(rng):
    stamps = np.zeros((30, 2, 64, 64))
    out = Degrader(psf=1.2 * u.arcsec, noise=0.1 * u.nmgy).batch(
        stamps, rng=1, psf=0.6 * u.arcsec, pixel_scale=0.2, unit="nmgy"
    )
    assert out.std() == pytest.approx(0.1, rel=0.02)
    survey = Degrader.preset("kids", bands="gr").batch(
        stamps, rng=1, psf=0.4 * u.arcsec, pixel_scale=0.1 * u.arcsec, unit=u.nmgy
    )
    assert survey.shape == (30, 2, 32, 32)
    kids = get_survey("kids")
    np.testing.assert_allclose(survey.std(axis=(0, 2, 3)), [kids["g"].sigma, kids["r"].sigma], rtol=0.03)
    recipe = Degrader.preset("galaxygan2017").batch(stamps, rng=1, pixel_scale=0.396)
    assert np.array_equal(recipe[:, 0], recipe[:, 1])


def test_batch_of_wrong_form():
    with pytest.raises(InputError, match=r"\(n, band, y, x\)"):
        Degrader(psf=3.0, match=False).batch(np.zeros((3, 32, 32)))
    with pytest.raises(PSFError, match="own PSF"):
        Degrader(psf=3.0).batch(np.zeros((2, 1, 32, 32)))


# ---- other backends and errors -----------------------------------------------------------------------------------


class Halve:
    """A backend of somebody else's."""

    rebin = 2

    def __call__(self, observation, *, rng):
        bands, ny, nx = observation.shape
        blocks = observation.data[:, : ny // 2 * 2, : nx // 2 * 2].reshape(bands, ny // 2, 2, nx // 2, 2)
        return Estimate(blocks.sum(axis=(2, 4)))


def test_backend_instances():
    out = Degrader(backend=Halve())(ccd())
    assert out.shape == (33, 37)
    assert out.meta["AGBACK"] == "Halve"
    assert Degrader(backend=Halve()).batch(np.ones((3, 2, 8, 8))).shape == (3, 2, 4, 4)
    physical = Degrader(backend=PhysicalDegrader(psf=moffat_psf(3.0), sigma=0.1))
    assert np.array_equal(physical(ccd(), rng=2).data, physical(ccd(), rng=2).data)
    with pytest.raises(InputError, match="psf must be left out"):
        Degrader(psf=3.0, backend=Halve())


def test_a_backend_that_breaks_its_contract():
    class Wrong(Halve):
        rebin = 3

    with pytest.raises(BackendError, match="Wrong"):
        Degrader(backend=Wrong())(ccd())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rebin": 2, "pixel_scale": 0.4}, "give one of them"),
        ({"rebin": 0}, "rebin=0"),
        ({"pixel_scale": -1}, "pixel_scale=-1"),
        ({"pixel_scale": 3 * u.s}, "pixel_scale"),
        ({"noise": "correlated"}, "noise_level="),
        ({"noise": 2.0, "noise_level": 3.0}, "noise_level=3.0"),
        ({"noise": [object()]}, "noise="),
        ({"sky": 3.0}, "sky=3.0 needs gain="),
        ({"poisson": "no"}, "poisson='no'"),
        ({"survey": "nope"}, "survey='nope'"),
        ({"unknown": 1}, "no option 'unknown'"),
        ({"shared_band_noise": True, "gain": 1.0}, "different photons"),
    ],
)
def test_options_are_checked_at_once(options, message):
    with pytest.raises(InputError, match=message):
        Degrader(**options)


@pytest.mark.parametrize(
    ("bands", "names"),
    [("gri", ["g", "r", "i"]), ("g,r", ["g", "r"]), ("IE", ["IE"]), ("Y", ["Y"]), (("u", "YE"), ["u", "YE"])],
)
def test_names_of_bands(bands, names):
    assert listed(bands) == names


# ---- real data ---------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_shera_through_the_operator(data_dir):
    """HST to SDSS with files' own PSFs, WCS and scales: as the backend's test, but the PSFs are centred on the way.

    So the result may be shifted by a part of a pixel against SHERA's, who did not centre them; the shift that fits
    best is the only freedom.
    """
    from astropy.io import fits
    from scipy.ndimage import fourier_shift, map_coordinates
    from scipy.optimize import minimize

    from astrogan.exceptions import PSFWarning

    def read(name, hdu=0):
        return fits.getdata(folder / name, hdu).astype(np.float64)

    def sheared(array, size, x0=0.0, y0=0.0, g1=0.06, g2=-0.04):
        back = np.linalg.inv(np.array([[1 + g1, g2], [g2, 1 - g1]]) / np.sqrt(1 - g1**2 - g2**2))
        y, x = np.mgrid[:size, :size] - (size - 1) / 2
        from_x, from_y = np.tensordot(back, [x - x0, y - y0], axes=1)
        where = [from_y + array.shape[0] // 2 + 12, from_x + array.shape[1] // 2 + 12]
        return map_coordinates(np.pad(array, 12), where, order=5)

    folder = data_dir / "cosmos_hst_galsim" / "galsim" / "tests" / "real_comparison_images"
    target, shera = read("shera_target_PSF.fits"), read("shera_result.fits")
    image = ccd(sheared(read("test_images.fits"), 400, 5.0, 2.0), unit="electron/s", wcs=sky_wcs(0.03))
    psf = sheared(read("test_images.fits", 2), 61)
    with pytest.warns(PSFWarning):
        out = Degrader(psf=target, psf_scale=0.24, pixel_scale=0.24)(image, psf=psf)
    assert out.shape == shera.shape
    ours, shera = out.data / out.data.sum(dtype=float), shera / shera.sum()
    spectrum = np.fft.fft2(ours)

    def error(shift):
        return np.sqrt(((np.fft.ifft2(fourier_shift(spectrum, shift)).real - shera) ** 2).sum() / (shera**2).sum())

    best = minimize(error, (0.0, 0.0), method="Nelder-Mead")
    print(f"relative L2 {best.fun:.4f} at a shift of {best.x} pixels; unshifted {error((0, 0)):.4f}")
    assert best.fun < 0.006
    assert np.abs(best.x).max() < 0.2


@pytest.mark.data
def test_ngc_6976_in_three_bands(data_dir):
    """Real SDSS images of 1.188 arcsec a pixel: half the pixels, a broader PSF, more noise; flux and WCS are kept."""
    from astrogan.image.read import read_image

    folder = data_dir / "sdss_ngc6976"
    image = {band: read_image(next(folder.glob(f"*_{band}.fits*"))) for band in "gri"}
    out = Degrader(psf=6.0 * u.arcsec, noise=2.0, rebin=2, match=False)(image, rng=1)
    for band, before in image.items():
        after = out[band]
        ny, nx = (n // 2 for n in before.shape)
        assert after.shape == (ny, nx)
        assert after.unit == before.unit
        corners = after.wcs.pixel_to_world([-0.5, nx - 0.5], [-0.5, ny - 0.5])
        same = before.wcs.pixel_to_world([-0.5, 2 * nx - 0.5], [-0.5, 2 * ny - 0.5])
        assert corners.separation(same).deg.max() < 1e-10
        expected, noise = before.data[: 2 * ny, : 2 * nx].sum(), np.sqrt(after.uncertainty.array.sum())
        assert after.data.sum() == pytest.approx(expected, abs=4 * noise + 1e-3 * abs(expected))


@pytest.mark.parametrize(("name", "word"), [("psf", "fwhm"), ("noise", "noise_ratio"), ("match", "leave it out")])
def test_the_recipes_own_words_are_named(name, word):
    with pytest.raises(InputError, match=f"{name}=1.5: the 2017 recipe .*{word}"):
        Degrader.preset("galaxygan2017", **{name: 1.5})


@pytest.mark.parametrize("name", ["gain", "saturation"])
def test_levels_that_are_no_numbers_are_named(name):
    image = CCDData(np.ones((16, 16)), unit="adu")
    with pytest.raises(InputError, match=f"{name}='high' must be a number"):
        Degrader(**{name: "high"})(image)
