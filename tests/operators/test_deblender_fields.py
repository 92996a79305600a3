"""Deblender on fields: a blend at a time in several threads, flags, errors of fluxes, and awkward input."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS

from astrogan import Deblender
from astrogan.api import Separation, Template
from astrogan.backends.classic._detection import Detector
from astrogan.exceptions import AstroganWarning, BackendError, ImageTooSmallError, InputError, PSFError
from astrogan.image.psf import GridPSF, gaussian_psf
from astrogan.operators.deblender import FLAGS

BACKENDS = ["watershed", "symmetric"]


class Blobs:
    """A blend at a time: a Gaussian of fixed width at each position, on the blend's pixels."""

    name = "blobs"
    margin = 3

    def __init__(self, error=None, extra=None):
        self.error, self.extra = error, extra or {}
        self.seen = []
        self._detect = Detector()

    def detect(self, observation, positions):
        return self._detect(observation, positions)

    def separate(self, blend, *, rng):
        self.seen.append(blend)
        if self.error is not None and len(blend.positions) > 1:
            raise self.error
        return tuple(self._template(blend, position, rng) for position in blend.positions)

    def _template(self, blend, position, rng):
        y0, x0 = (max(int(at) - 15, 0) for at in position[::-1])
        lit = blend.labels[y0 : y0 + 32, x0 : x0 + 32] > 0
        y, x = np.indices(lit.shape)
        blob = np.exp(-((x + x0 - position[0]) ** 2 + (y + y0 - position[1]) ** 2) / 8) * (1 + 1e-3 * rng.uniform())
        data = np.broadcast_to(blob * lit, (blend.observation.shape[0], *lit.shape))
        return Template((y0, x0), data, tuple(position), **self.extra)

    def __call__(self, observation, positions=None, *, rng):
        raise AssertionError("the operator works blend by blend")


def field(shape=(90, 120), positions=None, seed=0, bands=None, sigma=1.5):
    """Sources of flux 1000 over noise of 1, and where they are."""
    rng = np.random.default_rng(seed)
    if positions is None:
        positions = rng.uniform(5, np.array(shape[::-1]) - 6, (24, 2))
    y, x = np.mgrid[: shape[0], : shape[1]]
    data = rng.normal(0, 1, (bands or 1, *shape))
    for a, b in positions:
        data += 1000 / (2 * np.pi * sigma**2) * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * sigma**2))
    data = data if bands else data[0]
    return CCDData(data, unit="adu", uncertainty=VarianceUncertainty(np.ones(data.shape))), np.array(positions)


def conserved(result, image):
    finite = np.isfinite(image)
    worst = np.abs(result.recompose().data - image)[finite].max(initial=0)
    return worst <= 1e-6 * np.abs(image[finite]).max(initial=0)


# ---- blend by blend --------------------------------------------------------------------------------------------------


def test_a_field_is_solved_blend_by_blend():
    image, positions = field(bands=2)
    backend = Blobs()
    result = Deblender(backend)(image, positions)
    assert len(result) == 24
    assert 5 < len(backend.seen) < 24
    assert sum(len(blend.positions) for blend in backend.seen) == 24
    assert all(blend.observation.shape[1] < 90 for blend in backend.seen)
    assert conserved(result, image.data)
    assert "blends=" in str(result.residual.meta["AGINFO"])
    isolated = (result.catalog["blendedness"] < 1e-3) & (result.catalog["flags"] == 0)
    assert isolated.sum() > 3
    assert np.allclose(result.catalog["flux_0"][isolated].value, 1000, rtol=0.1)


def test_workers_change_no_bit():
    image, positions = field(bands=2)
    results = [Deblender(Blobs(), workers=workers)(image, positions) for workers in (1, 4)]
    for one, other in zip(*(r.sources for r in results), strict=True):
        assert np.array_equal(one.data, other.data)
    assert np.array_equal(results[0].segmentation, results[1].segmentation)
    assert np.array_equal(results[0].catalog["flux_1"], results[1].catalog["flux_1"])
    for bad in (0, 2.5, True):
        with pytest.raises(InputError, match=f"workers={bad} must be"):
            Deblender(workers=bad)


def test_permuted_positions_permute_the_sources_of_a_field():
    image, positions = field()
    order = np.random.default_rng(1).permutation(len(positions))
    straight, shuffled = Deblender(Blobs())(image, positions), Deblender(Blobs())(image, positions[order])
    for k, i in enumerate(order):
        assert np.array_equal(shuffled.sources[k].data, straight.sources[i].data)
        for name in ("flux_0", "flux_err_0", "a", "blendedness", "flags"):
            assert shuffled.catalog[name][k] == straight.catalog[name][i]
    assert np.array_equal(shuffled.residual.data, straight.residual.data)


def test_a_shifted_field_has_shifted_sources():
    positions = np.random.default_rng(0).uniform(18, 44, (6, 2))
    image, _ = field((62, 62), positions)  # small: one background for all
    moved = CCDData(np.roll(image.data, (5, -7), axis=(0, 1)), unit="adu", uncertainty=image.uncertainty)
    here, there = Deblender(Blobs())(image, positions), Deblender(Blobs())(moved, positions + (-7, 5))
    for one, other in zip(here.sources, there.sources, strict=True):
        assert np.allclose(one.data, other.data, rtol=1e-6, atol=1e-6)
    assert np.array_equal(here.catalog["bbox_xmin"] - 7, there.catalog["bbox_xmin"])
    assert np.array_equal(np.roll(here.segmentation, (5, -7), axis=(0, 1)), there.segmentation)


def test_a_blend_has_the_psf_of_its_place():
    image, positions = field(positions=[(10, 45), (110, 45)])
    psf = GridPSF([(10, 45), (110, 45)], [gaussian_psf(2.5), gaussian_psf(5.0)])
    backend = Blobs()
    result = Deblender(backend, psf=psf)(image, positions)
    left, right = (blend.observation.psf[0].max() for blend in backend.seen)
    assert left > 2.5 * right
    assert result.sources[0].psf.max() > 2.5 * result.sources[1].psf.max()


def test_progress_is_reported():
    image, positions = field()
    seen = []
    Deblender(Blobs(), progress=lambda done, total: seen.append((done, total)))(image, positions)
    assert seen == sorted(seen)
    assert seen[-1] == (24, 24)
    assert len(seen) > 4
    seen.clear()
    Deblender("watershed", progress=lambda done, total: seen.append((done, total)))(image, positions)
    assert len(seen) >= 1
    assert seen[-1][0] == seen[-1][1]


def test_a_blend_that_cannot_be_solved_is_flagged_and_the_others_are_there():
    image, positions = field(positions=[(20, 20), (24, 21), (80, 60)])
    with pytest.warns(AstroganWarning, match="'blobs' failed on 1 of 2 blends.*LinAlgError: singular"):
        result = Deblender(Blobs(np.linalg.LinAlgError("singular")))(image, positions)
    assert (result.catalog["flags"] & FLAGS["FAILED"] > 0).tolist() == [True, True, False]
    assert conserved(result, image.data)
    assert np.allclose(result.catalog["flux_0"].value, 1000, rtol=0.2)  # along the valley between the two
    with pytest.raises(BackendError, match="'[^']*blobs' failed|Blobs.* failed: KeyError"):
        Deblender(Blobs(KeyError("bug")))(image, positions)


def test_light_without_a_variance_of_the_template_has_that_of_the_noise():
    image, positions = field(bands=2)
    plain = Deblender(Blobs())(image, positions).catalog
    more = Deblender(Blobs(extra={"flux_variance": np.array([900.0, 0.0])}))(image, positions).catalog
    assert np.allclose(more["flux_err_0"].value, np.hypot(plain["flux_err_0"].value, 30))
    assert np.array_equal(more["flux_err_1"], plain["flux_err_1"])
    # In units that float32 cannot hold, too.
    tiny = CCDData(image.data * 1e-25, unit="erg", uncertainty=VarianceUncertainty(np.full(image.shape, 1e-50)))
    extra = {"flux_variance": np.array([900.0, 0.0]) * 2.0**-2}
    scaled = Deblender(Blobs(extra=extra))(tiny, positions).catalog
    assert (scaled["flux_err_0"] > plain["flux_err_0"].value * 1e-25 * u.erg).all()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"flux_variance": np.ones(3)}, r"flux_variance of template 0 has shape \(3,\); it must be \(1,\)"),
        ({"flux_variance": -np.ones(1)}, "flux_variance of template 0 is negative or not finite"),
        ({"variance": np.ones((1, 2, 2))}, r"variance of template 0 has shape \(1, 2, 2\)"),
        ({"flags": 4}, "flags of template 0 are 4; they may be"),
    ],
)
def test_what_a_template_says_besides_is_checked(extra, message):
    image, _ = field()
    with pytest.raises(BackendError, match=message):
        Deblender(Blobs(extra=extra))(image, [(60.0, 45.0)])


def test_a_template_with_a_position_that_is_no_number_is_named():
    class Lost:
        def __call__(self, observation, positions, *, rng):
            return Separation((Template((0, 0), np.ones((1, 2, 2)), (np.nan, 3.0)),))

    with pytest.raises(BackendError, match="position of template 0"):
        Deblender(Lost())(field()[0])


def test_flags_of_a_template_go_to_the_catalogue():
    result = Deblender(Blobs(extra={"flags": Template.NOFIT}))(*field(positions=[(60, 45)]))
    assert result.catalog["flags"][0] == FLAGS["NOFIT"] == 128
    assert "128 NOFIT" in result.catalog.meta["FLAGBITS"]
    assert FLAGS == {
        "EDGE": 1, "MASKED": 2, "BLENDED": 4, "EMPTY": 8, "SATURATED": 16, "FAILED": 32, "CLOSE": 64, "NOFIT": 128
    }  # fmt: skip


# ---- images are made when asked for ----------------------------------------------------------------------------------


def test_sources_are_made_once_and_stay():
    image, positions = field()
    image.meta["OBJECT"] = "before"
    result = Deblender("watershed")(image, positions)
    image.meta["OBJECT"] = "after"
    image.data[:] = 0
    first = result.sources[0]
    assert first is result.sources[0]
    assert first.meta["OBJECT"] == "before"
    first.meta["NOTE"] = 1
    assert result.sources[0].meta["NOTE"] == 1
    assert result.sources[-1] is result.sources[23]
    assert [s is t for s, t in zip(result.sources[:2], result.sources, strict=False)] == [True, True]
    with pytest.raises(IndexError):
        result.sources[24]
    first.data[:] = 7
    assert result.recompose().data.max() > 6
    assert len(result.sources) == len(list(result.sources)) == 24


def test_a_result_can_be_copied_and_pickled():
    image, positions = field(positions=[(20, 20), (24, 21)])
    image.wcs = WCS(naxis=2)
    result = Deblender("watershed", psf=3.0)(image, positions)
    for twin in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert len(twin) == 2
        assert np.array_equal(twin.sources[1].data, result.sources[1].data)
        assert np.array_equal(twin.recompose().data, result.recompose().data)


def test_a_long_header_is_not_kept_thousands_of_times():
    """300 sources with a header of 400 cards: 600 copies of it would be some 80 MB."""
    positions = np.stack(np.meshgrid(np.arange(20), np.arange(15)), axis=-1).reshape(-1, 2) * 12.0 + 8
    image, _ = field((190, 250), positions)
    image.meta = fits.Header([(f"CARD{i}", i, "a comment") for i in range(400)])
    Deblender("watershed")(*field())
    tracemalloc.start()
    result = Deblender("watershed")(image, positions)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(result) == 300
    assert kept < 10e6
    assert result.sources[299].meta["CARD399"] == 399


# ---- awkward input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [*BACKENDS, Blobs])
@pytest.mark.parametrize("dtype", [">f4", "<f8", ">i2", "u1", "i8"])
def test_number_formats(backend, dtype):
    image, positions = field(positions=[(20, 20), (24, 21)], shape=(40, 45))
    data = np.round(image.data + 20).clip(0, 255).astype(dtype)
    before = data.copy()
    ccd = CCDData(data, unit="adu")
    operator = Deblender(backend if isinstance(backend, str) else backend(), background="local")
    result = operator(ccd, positions)
    native = operator(CCDData(data.astype(float), unit="adu"), positions)
    assert conserved(result, data.astype(float))
    assert np.array_equal(result.sources[0].data, native.sources[0].data)
    assert result.sources[0].data.dtype.isnative
    assert np.array_equal(data, before)


@pytest.mark.parametrize("backend", [*BACKENDS, Blobs])
def test_an_image_of_one_pixel(backend):
    operator = Deblender(backend if isinstance(backend, str) else backend())
    image = CCDData([[5.0]], unit="adu", uncertainty=StdDevUncertainty(np.ones((1, 1))))
    result = operator(image, [(0.2, -0.3)])
    assert result.sources[0].shape == (1, 1)
    assert result.recompose().data == 5
    assert result.catalog["flags"][0] & FLAGS["EDGE"]
    assert len(operator(image, [])) == 0
    assert conserved(operator(image), image.data)


@pytest.mark.parametrize("backend", [*BACKENDS, Blobs])
def test_sources_at_edges_and_in_corners(backend):
    shape = (50, 60)
    positions = [(0, 0), (59.4, -0.4), (-0.5, 49.3), (59, 49), (30, 0), (0, 25), (59.2, 25), (30, 49.4)]
    image, positions = field(shape, positions)
    operator = Deblender(backend if isinstance(backend, str) else backend())
    result = operator(image, positions)
    assert len(result) == 8
    assert conserved(result, image.data)
    assert (result.catalog["flags"] & FLAGS["EDGE"] > 0).all()
    # A quarter of a corner's source is inside, half of one at an edge.
    assert np.allclose(result.catalog["flux_0"][[0, 3]].value, 250 * (1 + 0.27 * 1.5), rtol=0.25)
    assert len(operator(image)) == 8


@pytest.mark.parametrize("backend", [*BACKENDS, Blobs])
def test_a_position_on_a_masked_pixel_is_flagged(backend):
    image, positions = field(positions=[(20, 20), (60, 45), (90, 70)])
    image.data[20, 20] = np.nan
    image.mask = np.zeros(image.shape, bool)
    image.mask[40:51, 55:66] = True
    result = Deblender(backend if isinstance(backend, str) else backend())(image, positions)
    flags = result.catalog["flags"]
    assert (flags & FLAGS["MASKED"] > 0).tolist() == [True, True, False]
    assert np.isnan(result.residual.data[20, 20])
    assert all(np.isfinite(source.data).all() for source in result.sources)
    assert conserved(result, image.data)


@pytest.mark.parametrize("backend", [*BACKENDS, Blobs])
def test_two_positions_in_one_pixel_are_flagged_close(backend):
    positions = [(40.1, 30.1), (40.3, 29.9), (46.0, 30.0), (90, 70)]
    image, positions = field(positions=positions)
    result = Deblender(backend if isinstance(backend, str) else backend())(image, positions)
    assert (result.catalog["flags"] & FLAGS["CLOSE"] > 0).tolist() == [True, True, False, False]
    assert conserved(result, image.data)
    both = result.catalog["flux_0"][:2].value
    assert (both > 0).all()
    assert both.sum() == pytest.approx(2000, rel=0.15)
    blunt = Deblender(backend if isinstance(backend, str) else backend(), psf=13.0)(image, positions)
    assert (blunt.catalog["flags"] & FLAGS["CLOSE"] > 0).tolist() == [True, True, True, False]
    with pytest.raises(InputError, match=r"positions\[0\] and positions\[2\] are the same"):
        Deblender(Blobs())(image, [(40, 30), (50, 30), (40, 30)])


def test_an_image_without_a_number_is_refused():
    with pytest.raises(InputError, match="no valid pixel"):
        Deblender(Blobs())(CCDData(np.full((20, 20), np.nan), unit="adu"), [(5, 5)])


class Choosy(Blobs):
    """Takes three bands of 32 pixels and a PSF, and none else."""

    bands = 3
    min_size = 32
    needs_psf = True

    def detect(self, observation, positions):
        raise AssertionError("nothing may run")


def test_what_a_backend_cannot_take_is_said_before_it_runs():
    image, positions = field(bands=2)
    with pytest.raises(InputError, match=r"image has 2 bands \(0, 1\); .*Choosy.* takes 3"):
        Deblender(Choosy(), psf=3.0)(image, positions)
    with pytest.raises(InputError, match=r"image has 1 band \(0\)"):
        Deblender(Choosy(), psf=3.0)(CCDData(image.data[0], unit="adu"), [])
    small, _ = field((31, 50), positions=[(9, 9)], bands=3)
    with pytest.raises(ImageTooSmallError, match="needs at least 32"):
        Deblender(Choosy(), psf=3.0)(small, [(5, 5)])
    with pytest.raises(PSFError, match="psf"):
        Deblender(Choosy())(CCDData(np.zeros((3, 40, 40)), unit="adu"), [(5, 5)])


@pytest.mark.parametrize("backend", ["watershed", Blobs])
def test_a_thousand_sources(backend):
    rng = np.random.default_rng(5)
    grid = np.stack(np.meshgrid(np.arange(40), np.arange(25)), axis=-1).reshape(-1, 2) * 13.0 + 8
    positions = grid + rng.uniform(-2, 2, grid.shape)
    data = rng.normal(size=(25 * 13 + 4, 40 * 13 + 4))
    y, x = np.mgrid[-6:7, -6:7]
    for a, b in positions:
        row, column = round(b), round(a)
        rows, columns = slice(row - 6, row + 7), slice(column - 6, column + 7)
        data[rows, columns] += (
            60
            * np.exp(-((x + column - a) ** 2 + (y + row - b) ** 2) / 4.5)[
                : data[rows, columns].shape[0], : data[rows, columns].shape[1]
            ]
        )
    wcs = WCS(naxis=2)
    wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.cdelt = [200, 100], [30.0, -40.0], [-5e-5, 5e-5]
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    image = CCDData(data, unit="adu", wcs=wcs, uncertainty=StdDevUncertainty(np.ones(data.shape)))
    result = Deblender(backend if isinstance(backend, str) else backend())(image, positions)
    assert len(result) == 1000
    assert conserved(result, data)
    for i in range(0, 1000, 37):
        row, source = result.catalog[i], result.sources[i]
        at = wcs.world_to_pixel(source.wcs.pixel_to_world(1.0, 2.0))
        assert np.abs(np.subtract(at, (row["bbox_xmin"] + 1, row["bbox_ymin"] + 2))).max() < 1e-6
