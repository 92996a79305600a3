"""Deblender: what comes back adds up to what went in, with its WCS, units, masks and uncertainties."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty
from astropy.table import QTable, Table
from astropy.wcs import WCS, Sip
from hypothesis import given
from hypothesis import strategies as st

from astrogan import Deblender, DeblendResult, read_image
from astrogan.api import Separation, Template
from astrogan.exceptions import BackendError, ImageWriteError, InputError, PSFWarning, UnitError, WCSError
from astrogan.metrics import conservation_error
from astrogan.operators.deblender import FLAGS

SHAPE = (46, 58)
POSITIONS = np.array([(20.3, 22.6), (28.1, 20.2), (45.0, 34.5)])
BACKENDS = ["watershed", "symmetric"]


def scene(positions=POSITIONS, fluxes=(3000, 1500, 800), shape=SHAPE, sigma=1.8):
    y, x = np.mgrid[: shape[0], : shape[1]]
    out = np.zeros(shape)
    for f, (a, b) in zip(fluxes, positions, strict=True):
        out += f / (2 * np.pi * sigma**2) * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * sigma**2))
    return out


def sky(sip=False, naxis3=False):
    wcs = WCS(naxis=2)
    wcs.wcs.crpix, wcs.wcs.crval = [20.5, 31.0], [150.1, 2.2]
    wcs.wcs.cd = np.array([[-5e-5, 1e-5], [1e-5, 5e-5]])
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    if sip:
        wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], b[1, 1] = 2e-5, -3e-5
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def image(bands=None, seed=0, noise=1.0, **keywords):
    """A noisy image with WCS and uncertainty, (y, x) or (band, y, x)."""
    rng = np.random.default_rng(seed)
    clean = scene() if bands is None else scene() * np.linspace(1, 0.4, bands)[:, None, None]
    keywords = {"unit": "nJy", "uncertainty": StdDevUncertainty(np.full(clean.shape, noise))} | keywords
    if bands is None:
        keywords.setdefault("wcs", sky())
    return CCDData(clean + rng.normal(0, noise, clean.shape), **keywords)


def total_of(result):
    """Sum of all, by hand and in float64, through the catalogue's boxes."""
    total = np.array(result.residual.data, np.float64)
    for row, source in zip(result.catalog, result.sources, strict=True):
        box = (..., slice(row["bbox_ymin"], row["bbox_ymax"] + 1), slice(row["bbox_xmin"], row["bbox_xmax"] + 1))
        total[box] += source.data
    return total


# ---- conservation ----------------------------------------------------------------------------------------------------


@given(
    backend=st.sampled_from(BACKENDS),
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    bands=st.integers(1, 3),
    count=st.one_of(st.none(), st.integers(0, 8)),
    masked=st.sampled_from([0.0, 0.05, 0.5]),
    level=st.sampled_from([1e-20, 1e-3, 1.0, 1e6]),
    seed=st.integers(0, 2**31),
)
def test_sources_and_residual_add_up_to_the_image(backend, shape, bands, count, masked, level, seed):
    rng = np.random.default_rng(seed)
    height, width = shape
    positions = rng.uniform(-0.5, 0.5, (count or 3, 2)) + rng.integers(0, (width, height), (count or 3, 2))
    data = scene(positions, 10 ** rng.uniform(1, 4, len(positions)), shape) + rng.normal(0, 2, (bands, *shape))
    mask = rng.random(data.shape) < masked
    mask[:, rng.integers(height), rng.integers(width)] = False
    ccd = CCDData(data * level, unit="adu", mask=mask)
    result = Deblender(backend)(ccd, None if count is None else positions[:count])
    assert count is None or len(result) == count
    assert np.abs(total_of(result) - ccd.data).max() <= 1e-6 * np.abs(ccd.data).max()
    assert np.abs(result.recompose().data - ccd.data).max() <= 1e-6 * np.abs(ccd.data).max()
    for source in result.sources:
        assert not source.data[source.mask].any()  # what is masked is in the residual
    assert np.array_equal(result.residual.data[mask], ccd.data[mask].astype(result.residual.data.dtype))


def test_negative_noise_is_shared_too():
    """In the shared footprint the residual is zero, and the sources hold the negative pixels."""
    ccd = image(noise=5.0)
    result = Deblender("symmetric")(ccd, POSITIONS)
    inside = result.segmentation > 0
    assert (ccd.data[inside] < 0).sum() > 50
    assert not result.residual.data[inside].any()
    assert np.array_equal(result.residual.data[~inside], ccd.data[~inside].astype("f4"))
    light = sum(result.full(i).data for i in range(3))
    assert np.abs(light - ccd.data)[inside].max() < 1e-6 * ccd.data.max()


def test_invalid_pixels_stay_in_the_residual_as_they_were():
    ccd = image()
    ccd.data[22, 20], ccd.data[20, 28] = np.nan, np.inf
    ccd.data[34, 45] = 1e4
    ccd.mask = np.zeros(SHAPE, bool)
    ccd.mask[34, 45] = True
    result = Deblender("symmetric")(ccd, POSITIONS)
    assert np.isnan(result.residual.data[22, 20])
    assert np.isposinf(result.residual.data[20, 28])
    assert result.residual.data[34, 45] == 1e4
    assert [result.residual.mask[p] for p in ((22, 20), (20, 28), (34, 45))] == [True] * 3
    assert all(np.isfinite(s.data).all() for s in result.sources)
    assert np.allclose(result.recompose().data, ccd.data, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert (result.catalog["flags"] & FLAGS["MASKED"] > 0).all()


def test_the_input_is_never_changed():
    ccd = image()
    copy = ccd.copy()
    ccd.data.setflags(write=False)
    result = Deblender("symmetric")(ccd)
    result.sources[0].data[:] = 0
    result.residual.data[:] = 0
    result.residual.wcs.wcs.crval = [0, 0]
    assert np.array_equal(ccd.data, copy.data)
    assert np.array_equal(ccd.wcs.wcs.crval, copy.wcs.wcs.crval)
    assert ccd.meta == copy.meta


# ---- fluxes, errors --------------------------------------------------------------------------------------------------


def test_fluxes_are_right_and_so_are_their_errors():
    """Pulls (measured - true) / flux_err over noise realisations of an isolated source have unit width."""
    truth, pulls = 800.0, []
    for seed in range(40):
        ccd = image(seed=seed)
        result = Deblender("symmetric", grow=6)(ccd, POSITIONS)
        flux, error = result.catalog["flux_0"][2], result.catalog["flux_err_0"][2]
        pulls.append(((flux - truth * u.nJy) / error).to_value(u.one))
    assert abs(np.mean(pulls)) < 0.4
    assert 0.75 < np.std(pulls) < 1.25


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_catalogue_says_what_the_sources_hold(backend):
    result = Deblender(backend)(image(bands=3), POSITIONS)
    for i, (row, source) in enumerate(zip(result.catalog, result.sources, strict=True)):
        assert row["id"] == i + 1
        assert np.allclose([row["x"], row["y"]], POSITIONS[i])
        for b in range(3):
            assert row[f"flux_{b}"].to_value(u.nJy) == pytest.approx(source.data[b].sum(dtype=float), rel=1e-6)
            variance = np.square(source.uncertainty.array[b].astype(float)).sum()
            assert row[f"flux_err_{b}"].to_value(u.nJy) == pytest.approx(np.sqrt(variance), rel=1e-5)
        assert row["area"] == np.count_nonzero(result.segmentation == i + 1)
        assert source.shape[1:] == (row["bbox_ymax"] - row["bbox_ymin"] + 1, row["bbox_xmax"] - row["bbox_xmin"] + 1)


def test_shapes_are_those_of_the_light():
    y, x = np.mgrid[:60, :60]
    angle, a, b = np.radians(30), 5.0, 2.5
    p = (x - 30) * np.cos(angle) + (y - 28) * np.sin(angle)
    q = (y - 28) * np.cos(angle) - (x - 30) * np.sin(angle)
    data = 500 * np.exp(-0.5 * ((p / a) ** 2 + (q / b) ** 2)) + np.random.default_rng(0).normal(0, 0.5, x.shape)
    row = Deblender("symmetric")(CCDData(data, unit="adu"), [(30, 28)]).catalog[0]
    assert row["a"].to_value(u.pix) == pytest.approx(a, rel=0.05)
    assert row["b"].to_value(u.pix) == pytest.approx(b, rel=0.05)
    assert row["theta"].to_value(u.deg) == pytest.approx(30, abs=1.5)


def test_blendedness_and_flags_tell_blends_from_the_isolated():
    rows = Deblender("symmetric")(image(), POSITIONS).catalog
    assert rows["blendedness"][1] > rows["blendedness"][0] > 1e-3
    assert rows["blendedness"][2] < 1e-6
    assert list(rows["flags"] & FLAGS["BLENDED"] > 0) == [True, True, False]
    hard = Deblender("watershed")(image(), POSITIONS).catalog
    assert (hard["blendedness"] < 1e-12).all()


def test_edge_and_saturation_flags():
    ccd = image()
    level = 0.9 * ccd.data.max()
    flags = Deblender("symmetric")(ccd, [*POSITIONS, (1.0, 1.0)], saturation=level).catalog["flags"]
    assert list(flags & FLAGS["EDGE"] > 0) == [False, False, False, True]
    assert list(flags & FLAGS["MASKED"] > 0) == list(flags & FLAGS["SATURATED"] > 0) == [True, True, False, False]


@pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
def test_variances_add_up_and_keep_their_class(kind):
    variance = np.random.default_rng(1).uniform(0.5, 2, SHAPE)
    array = {"std": np.sqrt(variance), "var": variance, "ivar": 1 / variance}[kind(None).uncertainty_type]
    ccd = image(uncertainty=kind(array))
    result = Deblender("symmetric")(ccd, POSITIONS)
    total = np.zeros(SHAPE)
    for row, source in zip(result.catalog, result.sources, strict=True):
        assert type(source.uncertainty) is kind
        assert source.uncertainty.unit == kind(array, unit=None)._data_unit_to_uncertainty_unit(ccd.unit)
        own = source.uncertainty.array.astype(float)
        assert np.isfinite(own).all()
        with np.errstate(divide="ignore"):
            own = {"std": own**2, "var": own, "ivar": np.where(own > 0, 1 / own, 0)}[
                source.uncertainty.uncertainty_type
            ]
        total[row["bbox_ymin"] : row["bbox_ymax"] + 1, row["bbox_xmin"] : row["bbox_xmax"] + 1] += own
    inside = result.segmentation > 0
    assert np.allclose(total[inside], variance[inside], rtol=1e-5)
    assert np.allclose(result.residual.uncertainty.array, array, rtol=1e-6)


def test_without_an_uncertainty_none_is_made_up():
    ccd = image(uncertainty=None)
    result = Deblender("symmetric")(ccd, POSITIONS)
    assert all(s.uncertainty is None for s in [*result.sources, *result.models, result.residual])
    # The catalogue's errors are those of the background's noise, which is 1.
    given = Deblender("symmetric")(image(), POSITIONS).catalog
    assert np.allclose(result.catalog["flux_err_0"] / given["flux_err_0"], 1, atol=0.1)
    assert result.catalog.meta["AGBACK"] == "astrogan:symmetric"


def test_models_have_less_noise_than_sources():
    ccd = image()
    clean = scene(POSITIONS[2:], [800])
    result = Deblender("symmetric")(ccd, POSITIONS)
    row = result.catalog[2]
    box = (slice(row["bbox_ymin"], row["bbox_ymax"] + 1), slice(row["bbox_xmin"], row["bbox_xmax"] + 1))
    errors = [np.std(cut.data - clean[box]) for cut in (result.models[2], result.sources[2])]
    assert errors[0] < 0.75 * errors[1]


def test_a_sky_level_stays_in_the_residual_when_asked():
    ccd = image()
    raised = ccd.copy()
    raised.data = ccd.data + 500
    flat = Deblender("symmetric")(ccd, POSITIONS)
    result = Deblender("symmetric", background="local")(raised, POSITIONS)
    assert np.abs(total_of(result) - raised.data).max() < 1e-6 * raised.data.max()
    assert abs(np.median(result.residual.data) - 500) < 1
    difference = (result.catalog["flux_0"] - flat.catalog["flux_0"]) / flat.catalog["flux_err_0"]
    assert np.abs(difference).max() < 5
    with pytest.raises(InputError, match="background='sky' must be"):
        Deblender(background="sky")


# ---- order, shifts, forms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_permuting_positions_permutes_the_outputs(backend):
    ccd, order = image(bands=2), [2, 0, 1]
    straight, shuffled = Deblender(backend)(ccd, POSITIONS), Deblender(backend)(ccd, POSITIONS[order])
    for i, j in enumerate(order):
        assert np.array_equal(shuffled.sources[i].data, straight.sources[j].data)
        assert np.array_equal(shuffled.segmentation == i + 1, straight.segmentation == j + 1)
        for name in ("x", "flux_1", "area", "a", "blendedness", "flags"):
            assert shuffled.catalog[name][i] == straight.catalog[name][j]
    assert np.array_equal(shuffled.residual.data, straight.residual.data)


@pytest.mark.parametrize("backend", BACKENDS)
def test_shifting_the_image_shifts_the_result(backend):
    data = np.pad(image().data, 4)
    here = Deblender(backend)(CCDData(data, unit="adu", uncertainty=VarianceUncertainty(np.ones(data.shape))))
    moved = np.roll(data, (3, -2), axis=(0, 1))
    there = Deblender(backend)(CCDData(moved, unit="adu", uncertainty=VarianceUncertainty(np.ones(data.shape))))
    assert len(here) == len(there) == 3
    assert np.array_equal(np.roll(here.segmentation, (3, -2), axis=(0, 1)), there.segmentation)
    assert np.allclose(here.catalog["x"] - 2, there.catalog["x"])
    assert np.allclose(here.catalog["y"] + 3, there.catalog["y"])
    assert np.allclose(here.catalog["flux_0"], there.catalog["flux_0"], rtol=1e-4)


@pytest.mark.parametrize("factor", [1e-3, 1e4, 1e-25])
def test_the_unit_is_no_information(factor):
    ccd = image()
    scaled = CCDData(ccd.data * factor, unit="nJy", uncertainty=StdDevUncertainty(np.full(SHAPE, factor)))
    one, other = Deblender("symmetric")(ccd), Deblender("symmetric")(scaled)
    assert np.array_equal(one.segmentation, other.segmentation)
    assert np.allclose(one.catalog["flux_0"] * factor, other.catalog["flux_0"], rtol=1e-4)
    assert np.allclose(one.catalog["flux_err_0"] * factor, other.catalog["flux_err_0"], rtol=1e-4)


def test_forms_of_image():
    flat = Deblender("symmetric")(image(), POSITIONS)
    assert flat.sources[0].ndim == flat.residual.ndim == 2
    cube = Deblender("symmetric")(image(bands=3), POSITIONS)
    assert cube.sources[0].ndim == cube.residual.ndim == 3
    bands = {name: CCDData(plane, unit="nJy") for name, plane in zip("gri", image(bands=3).data, strict=True)}
    named = Deblender("symmetric")(bands, POSITIONS)
    assert {"flux_g", "flux_err_r", "flux_i"} <= set(named.catalog.colnames)
    assert named.residual.shape == (3, *SHAPE)
    assert named.sources[0].meta["AGBANDS"] == "g,r,i"
    plain = Deblender("symmetric")(NDData(image().data), POSITIONS)
    assert isinstance(plain.sources[0], CCDData)
    assert plain.sources[0].unit == u.dimensionless_unscaled
    assert plain.catalog["flux_0"].unit == u.dimensionless_unscaled


def test_a_path_and_a_mask(tmp_path):
    path = tmp_path / "image.fits"
    image().write(path)
    mask = np.zeros(SHAPE, bool)
    mask[22, 20] = True
    result = Deblender("symmetric")(path, POSITIONS, mask=mask)
    assert result.residual.mask[22, 20]
    assert result.residual.unit == u.nJy
    assert result.residual.wcs.wcs.crval[0] == 150.1


# ---- WCS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sip", [False, True])
@pytest.mark.parametrize("bands", [1, 2])
def test_every_source_is_where_it_was_on_the_sky(sip, bands):
    wcs = sky(sip)
    planes = [image(seed=b, wcs=wcs) for b in range(bands)]
    result = Deblender("symmetric")(planes if bands > 1 else planes[0], POSITIONS)
    rng = np.random.default_rng(0)
    for row, source, model in zip(result.catalog, result.sources, result.models, strict=True):
        for cut in (source, model):
            x, y = rng.uniform(0, cut.shape[-1] - 1, 20), rng.uniform(0, cut.shape[-2] - 1, 20)
            back = wcs.world_to_pixel(cut.wcs.celestial.pixel_to_world(x, y))
            assert np.abs(back[0] - x - row["bbox_xmin"]).max() < 1e-6
            assert np.abs(back[1] - y - row["bbox_ymin"]).max() < 1e-6
        at = wcs.pixel_to_world(row["x"], row["y"])
        assert at.separation(SkyCoord(row["ra"], row["dec"])) < 1e-6 * u.arcsec
    assert np.allclose(result.residual.wcs.celestial.wcs.crpix, wcs.wcs.crpix)


def test_full_puts_a_source_back_in_its_place():
    ccd = image(bands=2)
    result = Deblender("symmetric")(ccd, POSITIONS)
    frames = [result.full(i) for i in range(3)]
    assert all(f.shape == ccd.shape and f.unit == ccd.unit for f in frames)
    for frame, row in zip(frames, result.catalog, strict=True):
        assert frame.data.sum(axis=(1, 2))[0] == pytest.approx(row["flux_0"].value, rel=1e-5)
        y, x = np.unravel_index(frame.data[0].argmax(), SHAPE)
        assert np.hypot(x - row["x"], y - row["y"]) < 1.5
    assert np.array_equal(result.full(-1).data, frames[2].data)
    for bad in (3, -4, 1.5):
        with pytest.raises(InputError, match=f"i={bad} names no source; there are 3"):
            result.full(bad)


def test_full_and_recompose_keep_the_wcs():
    ccd = image()
    result = Deblender("symmetric")(ccd, POSITIONS)
    for frame in (result.full(0), result.recompose()):
        assert np.allclose(frame.wcs.wcs_pix2world([[3, 4]], 0), ccd.wcs.wcs_pix2world([[3, 4]], 0), atol=1e-12)


# ---- positions -------------------------------------------------------------------------------------------------------


def test_forms_of_positions():
    ccd = image()
    expected = Deblender("symmetric")(ccd, POSITIONS)
    coordinates = ccd.wcs.pixel_to_world(*POSITIONS.T)
    x, y = POSITIONS.T
    forms = {
        "list": POSITIONS.tolist(),
        "sky": coordinates,
        "other frame": coordinates.galactic,
        "x and y": Table({"x": x, "y": y}),
        "photutils": QTable({"x_centroid": x, "y_centroid": y}),
        "pixels": QTable({"X": x * u.pix, "Y": y * u.pix}),
        "degrees": Table({"ra": coordinates.ra.deg, "dec": coordinates.dec.deg}),
        "angles": QTable({"RA": coordinates.ra.to(u.hourangle), "DEC": coordinates.dec.to(u.arcmin)}),
        "sky column": QTable({"sky_centroid": coordinates}),
        "catalogue": expected.catalog,
    }
    for form, positions in forms.items():
        result = Deblender("symmetric")(ccd, positions)
        assert np.allclose(result.catalog["x"], x, atol=1e-6), form
        assert np.allclose(result.catalog["flux_0"], expected.catalog["flux_0"], rtol=1e-4), form


def test_one_sky_position_will_do():
    ccd = image()
    result = Deblender("symmetric")(ccd, ccd.wcs.pixel_to_world(45.0, 34.5))
    assert len(result) == 1


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([(3, 4), (np.nan, 5)], r"positions\[1\] = \(nan, 5.0\) is not finite; leave"),
        ([(3, 4), (58, 5)], r"positions\[1\] = \(58, 5\) lies outside the image of 58 x 46 pixels"),
        ([(3, 4), (5, -0.6)], r"positions\[1\] = \(5, -0.6\) lies outside"),
        ([(3, 4), (9, 9), (3, 4)], r"positions\[0\] and positions\[2\] are the same, \(3, 4\); keep one"),
        ([3, 4], r"positions has shape \(2,\); it must be \(source, 2\)"),
        (np.zeros((2, 3)), r"positions has shape \(2, 3\)"),
        ("m31", "must be a .source, 2. array"),
        (Table({"u": [1.0], "v": [2.0]}), "positions has columns u, v; it needs x and y"),
    ],
)
def test_bad_positions_are_named(positions, message):
    with pytest.raises(InputError, match=message):
        Deblender("symmetric")(image(), positions)


def test_masked_positions_and_units_are_named():
    table = Table({"x": [3.0, 4.0], "y": [3.0, 9.0]}, masked=True)
    table["x"].mask = [False, True]
    with pytest.raises(InputError, match=r"positions\[1\] = \(nan, 9.0\)"):
        Deblender("symmetric")(image(), table)
    with pytest.raises(UnitError, match="column 'x' has unit arcsec"):
        Deblender("symmetric")(image(), QTable({"x": [3] * u.arcsec, "y": [3] * u.arcsec}))


def test_sky_positions_need_a_wcs():
    with pytest.raises(WCSError, match="no celestial WCS"):
        Deblender("symmetric")(image(wcs=None), SkyCoord(150 * u.deg, 2 * u.deg))


# ---- few, none, all --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("positions", [None, []])
def test_no_source_gives_an_empty_result(backend, positions):
    ccd = CCDData(np.random.default_rng(0).normal(size=(40, 40)), unit="adu", wcs=sky())
    result = Deblender(backend)(ccd, positions)
    assert len(result) == 0
    assert result.sources == result.models == []
    assert np.array_equal(result.residual.data, ccd.data.astype("f4"))
    assert np.array_equal(result.recompose().data, result.residual.data)
    assert len(result.catalog) == 0
    assert {"id", "x", "ra", "flux_0", "flags"} <= set(result.catalog.colnames)
    assert not result.segmentation.any()
    assert repr(result) == "<DeblendResult: 0 sources in an image of (40, 40)>"


def test_a_single_source():
    ccd = CCDData(scene(POSITIONS[:1], [3000]), unit="adu", uncertainty=VarianceUncertainty(np.ones(SHAPE)))
    result = Deblender("symmetric")(ccd)
    assert len(result) == 1
    assert result.catalog["flux_0"][0].value == pytest.approx(3000, rel=0.01)
    assert result.catalog["flags"][0] == 0


def test_all_masked_is_an_error_that_says_so():
    with pytest.raises(InputError, match="no valid pixel"):
        Deblender("symmetric")(image(mask=np.ones(SHAPE, bool)))


def test_a_source_under_the_mask_is_flagged_empty():
    mask = np.zeros(SHAPE, bool)
    mask[26:44, 34:56] = True
    result = Deblender("symmetric")(image(mask=mask), POSITIONS)
    assert result.catalog["flags"][2] & FLAGS["EMPTY"]
    assert result.catalog["flux_0"][2].value == 0
    assert not result.sources[2].data.any()


def test_many_sources_in_bounded_memory():
    """No array of sources x image: with 140 sources that alone would be 140 times the image."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(14), np.arange(10)), axis=-1).reshape(-1, 2) * (29, 40) + (20, 20)
    positions = grid + rng.uniform(-3, 3, grid.shape)
    data = rng.normal(size=(420, 420))
    y, x = np.mgrid[:420, :420]
    for px, py in positions:
        near = (slice(int(py) - 12, int(py) + 13), slice(max(int(px) - 12, 0), int(px) + 13))
        data[near] += 50 * np.exp(-((x[near] - px) ** 2 + (y[near] - py) ** 2) / 8)
    ccd = CCDData(data, unit="adu")
    Deblender("symmetric")(image())  # what is imported on the way does not count
    tracemalloc.start()
    result = Deblender("symmetric")(ccd, positions)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(result) == 140
    assert peak < 25 * data.nbytes


# ---- the rest --------------------------------------------------------------------------------------------------------


def test_written_and_read_again(tmp_path):
    path = tmp_path / "blend.fits"
    mask = np.zeros(SHAPE, bool)
    mask[22, 20] = True
    result = Deblender("symmetric")(image(mask=mask, meta={"OBJECT": "blend", "BAND": "r"}), POSITIONS, psf=3.0)
    result.write(path)
    with fits.open(path) as hdus:
        names = [hdu.name for hdu in hdus]
        assert np.array_equal(hdus["SEGMENTATION"].data, result.segmentation)
        assert len(WCS(hdus["SEGMENTATION"].header).world_axis_units) == 2
    assert {"RESIDUAL", "SEGMENTATION", "CATALOG", "SOURCE_1", "SOURCE_3", "MODEL_2"} <= set(names)
    for i, source in enumerate(result.sources):
        back = read_image(path, hdu=f"SOURCE_{i + 1}")
        assert np.array_equal(back.data, source.data)
        assert back.unit == source.unit
        assert back.meta["OBJECT"] == "blend"
        assert back.meta["BAND"] == "r"
        assert np.allclose(back.uncertainty.array, source.uncertainty.array)
        assert np.allclose(back.wcs.wcs.crpix, source.wcs.wcs.crpix)
        assert np.allclose(back.psf, source.psf)
        assert np.array_equal(np.zeros(back.shape, bool) if back.mask is None else back.mask, source.mask)
    catalog = QTable.read(path, hdu="CATALOG")
    assert u.allclose(catalog["flux_r"], result.catalog["flux_r"])
    assert catalog.colnames == result.catalog.colnames
    before = path.read_bytes()
    with pytest.raises(ImageWriteError):
        result.write(path)
    assert path.read_bytes() == before
    Deblender("watershed")(image(), POSITIONS).write(path, overwrite=True)
    assert path.read_bytes() != before
    assert [p.name for p in tmp_path.iterdir()] == ["blend.fits"]


def test_an_empty_result_can_be_written(tmp_path):
    result = Deblender("symmetric")(CCDData(np.random.default_rng(0).normal(size=(40, 40)), unit="adu"))
    result.write(tmp_path / "empty.fits")
    assert len(QTable.read(tmp_path / "empty.fits", hdu="CATALOG")) == 0


def test_provenance_and_display():
    result = Deblender("watershed", threshold=2.0)(image(), POSITIONS)
    for ccd in (result.residual, result.sources[0]):
        assert ccd.meta["AGBACK"] == "astrogan:watershed"
        assert ccd.meta["AGOP"] == "deblend"
        assert "threshold=2.0" in str(ccd.meta["AGOPTS"])
    assert repr(result) == "<DeblendResult: 3 sources in an image of (46, 58)>"
    page = result._repr_html_()
    assert "3 sources" in page
    assert "flux_0" in page
    assert isinstance(result, DeblendResult)


def test_the_psf_goes_with_the_sources():
    result = Deblender("symmetric")(image(), POSITIONS, psf=3.0)
    assert result.sources[0].psf.shape[0] % 2 == 1
    assert result.sources[0].psf.sum() == pytest.approx(1, abs=1e-5)
    assert Deblender("symmetric")(image(), POSITIONS).sources[0].psf is None


def test_threads_share_an_operator():
    deblender, images = Deblender("symmetric"), [image(seed=s) for s in range(6)]
    serial = [deblender(i).catalog["flux_0"] for i in images]
    with ThreadPoolExecutor(6) as pool:
        threaded = list(pool.map(lambda i: deblender(i).catalog["flux_0"], images))
    for one, other in zip(serial, threaded, strict=True):
        assert np.array_equal(one, other)


def template(data, origin=(0, 0), **fields):
    return Template(origin, np.asarray(data, float), (1.0, 1.0), **fields)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned NoneType; it must return a Separation"),
        (Separation(()), "returned 0 templates for 1 positions"),
        (Separation((template(np.ones((2, 3, 3))),)), r"template 0 has shape \(2, 3, 3\)"),
        (Separation((template(np.ones((1, 3, 3)), (45, 0)),)), "template 0, 3 x 3 pixels at .* leaves the image"),
        (Separation((template(-np.ones((1, 3, 3))),)), "data of template 0 is negative or not finite"),
        (Separation((template(np.full((1, 3, 3), np.nan)),)), "data of template 0 is negative or not finite"),
        (Separation((template(np.ones((1, 3, 3))),), np.zeros((2, 2))), r"segmentation has shape \(2, 2\)"),
    ],
)
def test_a_backend_that_breaks_its_contract_is_named(returned, message):
    class Bad:
        def __call__(self, observation, positions, *, rng):
            return returned

    with pytest.raises(BackendError, match=message):
        Deblender(Bad())(image(), [(5, 5)])


def test_a_backend_needs_no_segmentation():
    class Halves:
        def __call__(self, observation, positions, *, rng):
            ramp = np.broadcast_to(np.linspace(0, 1, observation.shape[2]), observation.shape)
            return Separation((template(ramp), template(1 - ramp)), info={"steps": 3})

    result = Deblender(Halves())(image())
    assert (result.segmentation[:, :29] == 2).all()
    assert (result.segmentation[:, 29:] == 1).all()
    assert not result.residual.data.any()
    assert "steps=3" in str(result.residual.meta["AGINFO"])


def test_every_image_of_a_result_comes_back_with_its_mask_uncertainty_and_psf(tmp_path):
    y, x = np.mgrid[:40, :60]
    flux = sum(f * np.exp(-((x - x0) ** 2 + (y - 20) ** 2) / 8) for f, x0 in ((100, 25), (50, 33)))
    flux = flux + np.random.default_rng(0).normal(0, 0.5, flux.shape)
    mask = np.zeros(flux.shape, bool)
    mask[18:20, 27] = mask[2, 3] = True
    image = CCDData(flux, unit="adu", mask=mask, uncertainty=StdDevUncertainty(np.full(flux.shape, 0.5)))
    result = Deblender("symmetric", psf=3.0)(image)
    result.write(tmp_path / "result.fits")
    for name, written in (
        ("RESIDUAL", result.residual),
        ("SOURCE_1", result.sources[0]),
        ("MODEL_1", result.models[0]),
        ("SOURCE_2", result.sources[1]),
    ):
        back = read_image(tmp_path / "result.fits", hdu=name)
        np.testing.assert_array_equal(back.data, written.data)
        np.testing.assert_array_equal(back.mask, written.mask)
        assert (back.uncertainty is None) == (written.uncertainty is None) == (name == "MODEL_1")
        if back.uncertainty is not None:
            assert type(back.uncertainty) is type(written.uncertainty)
            np.testing.assert_array_equal(back.uncertainty.array, written.uncertainty.array)
        assert (back.psf is None) == (written.psf is None)
        if back.psf is not None:
            np.testing.assert_array_equal(back.psf, written.psf)


def test_the_default_is_hybrid_and_says_which_psf_it_assumes():
    y, x = np.mgrid[:50, :70]
    scene = sum(f * np.exp(-((x - a) ** 2 + (y - 25) ** 2) / 12) for f, a in ((300, 30), (150, 39)))
    ccd = CCDData(scene + np.random.default_rng(1).normal(size=scene.shape), unit="adu")
    with pytest.warns(PSFWarning, match="stands in"):
        assumed = Deblender()(ccd, [(30, 25), (39, 25)])
    given = Deblender(psf=4.0)(ccd, [(30, 25), (39, 25)])
    assert given.catalog.meta["AGBACK"] == "astrogan:hybrid"
    assert given.catalog.meta["AGWEIGHT"].startswith("ratio-net")
    assert assumed.residual.meta["AGPSF"] == "assumed"
    truth = 12 * np.pi * np.array([300, 150])
    for result in (given, assumed):
        assert result.catalog["flux_0"].value == pytest.approx(truth, rel=0.05)
        assert conservation_error(ccd.data, [result.recompose().data]) < 1e-6
