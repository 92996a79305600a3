"""From every form of image to an Observation and back."""

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from astrogan.exceptions import InputError, PSFError, PSFWarning, UnitError
from astrogan.image.finish import finish, to_ccd
from astrogan.image.prepare import prepare


def sky(naxis=2, crval=(150.0, 2.0)):
    wcs = WCS(naxis=naxis)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN", "LINEAR"][:naxis]
    wcs.wcs.crval = [*crval, 0.0][:naxis]
    wcs.wcs.crpix = [10.5, 8.5, 1.0][:naxis]
    wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600, 1.0][:naxis]
    wcs.wcs.set()
    return wcs


def ccd(shape=(16, 20), seed=0, **keywords):
    data = np.random.default_rng(seed).normal(10, 1, shape)
    return CCDData(data, **({"unit": "adu", "wcs": sky(len(shape))} | keywords))


def test_observation_is_what_backends_are_promised():
    image = ccd()
    before = image.data.copy()
    observation = prepare(image).observation
    assert observation.shape == (1, 16, 20)
    assert observation.data.dtype == np.float32
    assert observation.data.dtype.isnative
    assert observation.data.flags.c_contiguous
    assert not observation.data.flags.writeable
    assert observation.pixel_scale == pytest.approx(0.2)
    assert observation.variance is None
    np.testing.assert_allclose(observation.data[0], before, rtol=1e-6)
    np.testing.assert_array_equal(image.data, before)


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", "<f8", ">i2", "<i4", "u2", "f2"])
@pytest.mark.parametrize("layout", ["plain", "reversed", "read-only", "strided"])
def test_byte_order_and_layout_do_not_matter(dtype, layout):
    values = np.arange(12 * 10).reshape(12, 10) % 50
    array = values.astype(dtype)
    if layout == "reversed":
        array = array[::-1][::-1].copy()[::-1][::-1]
    elif layout == "strided":
        array = np.repeat(array, 2, axis=1)[:, ::2]
    elif layout == "read-only":
        array.setflags(write=False)
    observation = prepare(NDData(array)).observation
    np.testing.assert_array_equal(observation.data[0], values.astype(np.float32))


FORMS = {
    "ccd": lambda: ccd(),
    "nddata": lambda: NDData(np.ones((16, 20)), unit="adu", wcs=sky()),
    "cube": lambda: ccd((3, 16, 20)),
    "cube with 2-D WCS": lambda: CCDData(np.ones((2, 16, 20)), unit="adu", wcs=sky()),
    "list": lambda: [ccd(seed=i) for i in range(3)],
    "tuple": lambda: tuple(ccd(seed=i) for i in range(2)),
    "dict": lambda: {band: ccd(seed=i) for i, band in enumerate("gri")},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_result_has_the_form_of_the_image(form):
    image = FORMS[form]()
    prepared = prepare(image)
    out = finish(prepared, prepared.observation.data * 2)
    assert type(out) is (list if form == "tuple" else type(image))
    singles = [(image, out)]
    if isinstance(image, list | tuple):
        singles = list(zip(image, out, strict=True))
    elif isinstance(image, dict):
        assert list(out) == list(image)
        assert prepared.observation.bands == ("g", "r", "i")
        singles = [(image[band], out[band]) for band in image]
    for before, after in singles:
        assert type(after) is type(before)
        assert after.unit == before.unit
        assert after.data.shape == before.data.shape
        np.testing.assert_allclose(after.data, 2 * before.data, rtol=1e-6)
        corner = [0.0] * before.wcs.naxis
        moved = after.wcs.all_pix2world([corner], 0) - before.wcs.all_pix2world([corner], 0)
        assert np.abs(moved).max() < 1e-12
        assert after.wcs is not before.wcs
        assert after.uncertainty is None
        assert "AGOP" not in before.meta
        assert "HISTORY" in after.meta


def test_path_gives_ccddata(tmp_path):
    ccd().write(tmp_path / "image.fits")
    prepared = prepare(tmp_path / "image.fits")
    out = finish(prepared, prepared.observation.data)
    assert isinstance(out, CCDData)
    assert out.unit == u.adu
    assert "astrogan" in str(out.meta["HISTORY"])
    prepared = prepare({"g": str(tmp_path / "image.fits"), "r": tmp_path / "image.fits"})
    assert prepared.observation.shape == (2, 16, 20)


def test_to_ccd_makes_one_sliceable_cube():
    prepared = prepare([ccd(seed=i) for i in range(3)])
    cube = to_ccd(prepared, prepared.observation.data)
    assert cube.shape == (3, 16, 20)
    cut = cube[:, 4:, 3:]
    np.testing.assert_allclose(
        cut.wcs.celestial.all_pix2world([[0, 0]], 0), sky().all_pix2world([[3, 4]], 0), atol=1e-12
    )
    assert to_ccd(prepare(ccd()), np.ones((1, 16, 20))).shape == (16, 20)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_are_not_finite_are_masked(bad):
    image = ccd()
    image.data[3, 4] = bad
    prepared = prepare(image)
    assert not prepared.observation.valid[0, 3, 4]
    assert prepared.observation.valid.sum() == 16 * 20 - 1
    assert prepared.observation.data[0, 3, 4] == pytest.approx(10, abs=3)
    out = finish(prepared, prepared.observation.data)
    assert out.mask[3, 4]
    assert out.mask.sum() == 1


def test_masks_add_up_and_what_is_under_them_is_never_seen():
    mask = np.zeros((16, 20), bool)
    mask[2:5, 2:5] = True
    extra = np.zeros((16, 20), bool)
    extra[10] = True
    results = []
    for hidden in (0.0, 1e30, np.nan):
        image = ccd()
        image.data[mask | extra] = hidden
        image.mask = mask
        results.append(prepare(image, mask=extra).observation)
    for other in results[1:]:
        np.testing.assert_array_equal(other.data, results[0].data)
        np.testing.assert_array_equal(other.valid[0], ~(mask | extra))


def test_the_three_kinds_of_uncertainty_agree():
    sigma = np.random.default_rng(1).uniform(0.5, 2, (16, 20))
    kinds = StdDevUncertainty(sigma), VarianceUncertainty(sigma**2), InverseVariance(sigma**-2)
    for kind in kinds:
        prepared = prepare(ccd(uncertainty=kind))
        np.testing.assert_allclose(prepared.observation.variance[0], sigma**2, rtol=1e-6)
        assert prepared.had_uncertainty
        out = finish(prepared, prepared.observation.data, variance=prepared.observation.variance * 4)
        assert type(out.uncertainty) is type(kind)
        np.testing.assert_allclose(out.uncertainty.represent_as(StdDevUncertainty).array, 2 * sigma, rtol=1e-5)
    for name, array in (("std", sigma), ("var", sigma**2), ("ivar", sigma**-2)):
        prepared = prepare(ccd(), uncertainty=array, uncertainty_type=name)
        np.testing.assert_allclose(prepared.observation.variance[0], sigma**2, rtol=1e-6)


def test_no_weight_is_masked_and_gives_no_infinity():
    weight = np.ones((16, 20))
    weight[5, 5] = 0
    observation = prepare(ccd(uncertainty=InverseVariance(weight))).observation
    assert not observation.valid[0, 5, 5]
    assert np.isfinite(observation.variance).all()


def test_noise_is_estimated_where_it_is_needed_and_said():
    image = CCDData(np.random.default_rng(3).normal(0, 2.0, (128, 128)), unit="adu")
    prepared = prepare(image, needs_variance=True)
    assert np.sqrt(np.median(prepared.observation.variance)) == pytest.approx(2, rel=0.06)
    assert "estimated" in prepared.notes["AGVAR"]
    assert not prepared.had_uncertainty


def test_saturated_pixels_are_masked_grown_and_counted():
    image = ccd()
    image.data[8, 9] = 1000
    prepared = prepare(image, saturation=500)
    assert not prepared.observation.valid[0, 7:10, 8:11].all()
    assert prepared.notes["AGNSAT"] >= 1
    assert prepare(image, saturation=500 * u.adu).saturated.sum() == prepared.saturated.sum()
    image.meta["SATURATE"] = 500.0
    assert prepare(image, saturation="header").saturated.sum() == prepared.saturated.sum()
    with pytest.raises(UnitError, match="saturation=.*adu"):
        prepare(image, saturation=5 * u.Jy)
    with pytest.raises(InputError, match="SATURATE"):
        prepare(ccd(), saturation="header")
    with pytest.raises(InputError, match="saturation='high'"):
        prepare(ccd(), saturation="high")


@given(exponent=st.integers(-30, 30))
def test_any_flux_scale_survives(exponent):
    """cgs fluxes of 1e-20, whose variance float32 cannot hold, come back as they went."""
    factor = 10.0**exponent
    image = ccd(uncertainty=StdDevUncertainty(np.full((16, 20), 0.5)))
    scaled = CCDData(image.data * factor, unit="adu", uncertainty=StdDevUncertainty(np.full((16, 20), 0.5 * factor)))
    prepared = prepare(scaled)
    assert prepared.observation.valid.all()
    ratio = np.sqrt(prepared.observation.variance[0]) / prepared.observation.data[0]
    np.testing.assert_allclose(ratio, 0.5 / image.data, rtol=1e-5)
    out = finish(prepared, prepared.observation.data, variance=prepared.observation.variance)
    np.testing.assert_allclose(out.data / factor, image.data, rtol=1e-5)
    np.testing.assert_allclose(out.uncertainty.array / factor, 0.5, rtol=1e-5)


# What lies more than thirteen orders of magnitude below the brightest pixel is below what float32 resolves beside it.
VALUES = st.floats(-1e3, 1e3, width=32).map(lambda value: value if abs(value) > 1e-10 else 0.0)


@given(arrays(np.float32, st.tuples(st.integers(1, 70), st.integers(1, 70)), elements=VALUES))
def test_any_shape_and_value_goes_round(data):
    prepared = prepare(NDData(data))
    np.testing.assert_array_equal(prepared.observation.data[0].astype("f8") * prepared.scale, data)
    np.testing.assert_array_equal(finish(prepared, prepared.observation.data).data, data)


def test_psf_comes_from_where_it_is_given():
    kernel = np.outer(*[np.exp(-(np.arange(-4, 5) ** 2) / 2)] * 2)
    image = ccd((64, 64))
    image.psf = kernel
    attached = prepare(image)
    np.testing.assert_allclose(attached.observation.psf[0].sum(), 1, rtol=1e-5)
    assert attached.notes["AGPSF"] == "attached to the image"
    given_one = prepare(image, psf=1 * u.arcsec)
    assert given_one.notes["AGPSF"] == "given"
    assert given_one.notes["AGFWHM"] == pytest.approx(5.0, rel=0.02)
    image.psf = None
    image.meta["SEEING"] = 0.8
    assert prepare(image).notes["AGPSF"] == "header"
    assert prepare(ccd()).observation.psf is None
    tiny = ccd((9, 9), meta={"SEEING": 1.0})
    assert prepare(tiny).observation.psf is None
    with pytest.raises(PSFError, match="9"):
        prepare(tiny, needs_psf=True)
    with pytest.raises(PSFError, match="psf="):
        prepare(ccd(), needs_psf=True)


def test_provenance_is_fits_safe(tmp_path):
    prepared = prepare(ccd())
    notes = {"AGOPTS": {"a": np.float32(1), "b": "ä\n"}}
    out = finish(prepared, prepared.observation.data, operation="test", notes=notes)
    again = finish(prepare(out), np.ones((1, 16, 20)), operation="second")
    out.write(tmp_path / "a.fits")
    again.write(tmp_path / "b.fits")
    header = fits.getheader(tmp_path / "b.fits")
    assert "second" in str(header["HISTORY"])
    assert "test" in str(header["HISTORY"])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.ones((5, 5)), "CCDData\\(array, unit"),
        (3, "image is int"),
        ([], "image is empty"),
        ({}, "image is empty"),
        ([NDData(np.ones((3, 3))), NDData(np.ones((3, 4)))], r"image\[1\] has shape \(3, 4\)"),
        ([NDData(np.ones((2, 3, 3)))], r"image\[0\] has shape \(2, 3, 3\)"),
        ([NDData(np.ones((3, 3))), "x"], "x"),
        (NDData(np.ones(4)), r"shape \(4,\)"),
        (NDData(np.ones((0, 4))), "no axis empty"),
        (NDData(np.full((4, 4), np.nan)), "no valid pixel in band '0'"),
        (NDData(np.ones((4, 4), complex)), "complex128"),
        ([NDData(np.ones((3, 3)), unit="Jy"), NDData(np.ones((3, 3)), unit="adu")], "units"),
    ],
)
def test_images_that_cannot_be_used_are_refused_with_a_reason(image, message):
    with pytest.raises((InputError, OSError), match=message):
        prepare(image)


def test_bands_on_other_grids_are_refused():
    with pytest.raises(InputError, match="band 1 has another WCS"):
        prepare([ccd(), ccd(wcs=sky(crval=(150.001, 2.0)))])
    with pytest.raises(InputError, match="band 1 has another WCS"):
        prepare([ccd(), ccd(wcs=None)])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"mask": np.ones((3, 3), bool)}, r"mask has shape \(3, 3\)"),
        ({"uncertainty": np.ones((3, 3))}, r"uncertainty has shape \(3, 3\)"),
        ({"uncertainty": np.ones((16, 20)), "uncertainty_type": "sigma"}, "uncertainty_type='sigma'"),
        ({"pixel_scale": -1}, "pixel_scale=-1"),
        ({"pixel_scale": 3 * u.m}, "pixel_scale"),
        ({"hdu": 2}, "hdu=2"),
    ],
)
def test_arguments_are_checked_by_name(keywords, message):
    with pytest.raises(InputError, match=message):
        prepare(ccd(), **keywords)


def test_unknown_unit_is_named():
    with pytest.raises(UnitError, match="unit='parrots'"):
        prepare(NDData(np.ones((3, 3))), unit="parrots")


def test_finish_refuses_arrays_that_do_not_fit():
    prepared = prepare(ccd())
    with pytest.raises(InputError, match="give the new grid's wcs"):
        finish(prepared, np.ones((1, 8, 8)))
    with pytest.raises(InputError, match="variance has shape"):
        finish(prepared, np.ones((1, 16, 20)), variance=np.ones((16, 20)))
    with pytest.raises(InputError, match="band, y, x"):
        finish(prepared, np.ones((16, 20)))


def test_keywords_describe_the_last_step_only():
    first = finish(prepare(ccd()), np.ones((1, 16, 20)), operation="one", notes={"AGINFO": "kernel=3", "AGSEED": 4})
    second = finish(prepare(first), np.ones((1, 16, 20)), operation="two", notes={"AGOP": "two"})
    assert first.meta["AGINFO"] == "kernel=3"
    assert "AGINFO" not in second.meta
    assert "AGSEED" not in second.meta
    assert "one" in second.meta["HISTORY"]


def test_variance_under_the_mask_is_that_of_the_rest():
    """A number of its own would leak into neighbours wherever variances are convolved, and depend on the unit."""
    mask = np.zeros((16, 20), bool)
    mask[4:7, 5] = True
    sigma = np.where(mask, 1e9, 1e-3)
    image = CCDData(np.ones((16, 20)), unit="adu", mask=mask, uncertainty=StdDevUncertainty(sigma))
    np.testing.assert_allclose(prepare(image).observation.variance, 1e-6, rtol=1e-5)


def test_saturation_from_headers_is_each_bands_own():
    bright, faint = ccd(), ccd(seed=1)
    for image, level in ((bright, 500.0), (faint, 200.0)):
        image.data[5, 5], image.data[10, 15] = 1000.0, 300.0
        image.meta["SATURATE"] = level
    saturated = prepare([bright, faint], saturation="header").saturated
    assert saturated[:, 5, 5].all()
    assert not saturated[0, 10, 15]
    assert saturated[1, 10, 15]
    del faint.meta["SATURATE"]
    with pytest.raises(InputError, match="saturation='header' finds no SATURATE"):
        prepare([bright, faint], saturation="header")


def test_unit_is_read_as_in_files_and_may_not_contradict():
    image = NDData(np.ones((8, 9)))
    assert prepare(image, unit="nanomaggies").unit == u.nmgy
    assert prepare(ccd(), unit="adu").unit == u.adu
    with pytest.raises(UnitError, match="unit='electron' contradicts the image's own, 'adu'"):
        prepare(ccd(), unit="electron")
    with pytest.raises(UnitError, match="unit='furlongs'"):
        prepare(image, unit="furlongs")


def test_a_single_star_in_small_units_on_an_empty_sky_keeps_its_variance():
    data = np.zeros((64, 64))
    data[30, 31] = 1e-20
    image = CCDData(data, unit="adu", uncertainty=StdDevUncertainty(np.full(data.shape, 1e-22)))
    prepared = prepare(image)
    restored = finish(prepared, prepared.observation.data, variance=prepared.observation.variance)
    np.testing.assert_allclose(restored.data, data, rtol=1e-6)
    np.testing.assert_allclose(restored.uncertainty.array, 1e-22, rtol=1e-6)


def test_a_variance_beyond_float32_is_no_weight():
    image = ccd(uncertainty=VarianceUncertainty(np.full((16, 20), 1e-300)))
    image.data *= 1e-200
    with pytest.raises(InputError, match="no valid pixel in band '0'"):
        prepare(image)
    image = ccd(uncertainty=StdDevUncertainty(np.full((16, 20), 1e-120)))
    image.data *= 1e-120
    prepared = prepare(image)
    deviation = np.sqrt(prepared.observation.variance.astype(float)) * prepared.scale
    np.testing.assert_allclose(deviation, 1e-120, rtol=1e-6)


def test_an_uncertainty_given_with_a_unit_is_converted():
    image = ccd(unit="Jy")
    prepared = prepare(image, uncertainty=np.full((16, 20), 20.0) * u.mJy)
    np.testing.assert_allclose(prepared.observation.variance, 4e-4, rtol=1e-6)
    ivar = prepare(image, uncertainty=np.full((16, 20), 4.0) / u.Jy**2, uncertainty_type="ivar")
    np.testing.assert_allclose(ivar.observation.variance, 0.25, rtol=1e-6)
    with pytest.raises(UnitError, match="uncertainty has unit s"):
        prepare(image, uncertainty=np.ones((16, 20)) * u.s)
    with pytest.raises(InputError, match="uncertainty must be an array of numbers"):
        prepare(image, uncertainty=np.full((16, 20), "a"))


def test_saturation_is_a_number_and_no_switch():
    with pytest.raises(InputError, match="saturation=True must be one finite number"):
        prepare(ccd(), saturation=True)


def test_the_brighter_of_two_pixels_is_kept():
    data = np.array([[4.0, np.finfo(np.float32).tiny]], np.float32)
    prepared = prepare(NDData(data))
    assert prepared.scale == 1
    assert prepared.observation.valid.all()
    np.testing.assert_array_equal(prepared.observation.data[0], data)


def test_a_few_absurd_pixels_do_not_set_the_scale():
    data = np.random.default_rng(0).normal(1e-18, 1e-19, (64, 64))
    data[3, 4] = 1e30
    prepared = prepare(NDData(data))
    assert not prepared.observation.valid[0, 3, 4]
    assert prepared.observation.valid.sum() == data.size - 1
    assert 1e-19 < prepared.scale < 1e-17


def test_a_pixel_that_float32_cannot_hold_beside_the_others_is_masked():
    data = np.full((9, 13), 1e-38, np.float32)
    data[0, 0] = 4.0
    prepared = prepare(NDData(data))
    assert not prepared.observation.valid[0, 0, 0]
    assert prepared.observation.valid.sum() == data.size - 1
    np.testing.assert_allclose(finish(prepared, prepared.observation.data).data[1:], 1e-38, rtol=1e-6)


def test_a_psf_that_is_needed_and_cannot_be_had_is_assumed_where_that_will_do():
    image = CCDData(np.random.default_rng(0).normal(size=(40, 40)), unit="adu")
    with pytest.raises(PSFError, match="none can be built"):
        prepare(image, needs_psf=True)
    with pytest.warns(PSFWarning, match=r"A Gaussian of 2\.5 pixels FWHM stands in"):
        prepared = prepare(image, needs_psf=True, psf_default=2.5)
    assert prepared.psf.fwhm[0] == pytest.approx(2.5, rel=0.06)
    assert prepared.notes["AGPSF"] == "assumed"
    # one that is given comes first, and a bad one is no reason to assume another
    assert prepare(image, psf=4.0, needs_psf=True, psf_default=2.5).psf.fwhm[0] == pytest.approx(4, rel=0.06)
    with pytest.raises(PSFError):
        prepare(image, psf=-1.0, needs_psf=True, psf_default=2.5)
