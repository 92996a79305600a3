"""The simulated field: its truth, its noise, its defects, and that a seed fixes it."""

import subprocess
import sys

import numpy as np
import pytest

from astrogan.exceptions import InputError, MissingDependencyError
from astrogan.metrics import aperture_flux, centroid, fourier_ring_correlation
from astrogan.simulate.field import FIELD_BANDS, _bleed, simulate_field

pytest.importorskip("galsim")


@pytest.fixture(scope="module")
def simulated():
    return simulate_field((256, 240), seed=3)


def test_containers(simulated):
    assert list(simulated.images) == ["g", "r", "i"]
    assert simulated.truth.shape == simulated.truth_sharp.shape == (3, 256, 240)
    for image, psf in zip(simulated.images.values(), simulated.psfs, strict=True):
        assert image.shape == (256, 240)
        assert image.unit.to_string() == "nmgy"
        assert image.data.dtype == np.float32
        assert image.uncertainty.uncertainty_type == "var"
        assert image.mask.dtype == bool
        np.testing.assert_array_equal(image.psf, psf)
        assert np.isfinite(image.data).all()
        assert (image.uncertainty.array > 0).all()
    assert simulated.mask.shape == simulated.variance.shape == (3, 256, 240)


def test_fits_round_trip(simulated, tmp_path):
    from astropy.nddata import CCDData

    image = simulated.images["r"]
    image.write(tmp_path / "r.fits")
    back = CCDData.read(tmp_path / "r.fits")
    np.testing.assert_array_equal(back.data, image.data)
    np.testing.assert_array_equal(back.mask, image.mask)
    assert back.unit == image.unit
    assert back.meta["FILTER"] == "r"
    assert back.meta["SATURATE"] == 15.0
    np.testing.assert_allclose(back.wcs.pixel_to_world_values(3, 4), image.wcs.pixel_to_world_values(3, 4), atol=1e-12)


def test_seed_fixes_everything_and_global_generators_stay(simulated):
    before = np.random.get_state()[1].copy()
    again = simulate_field((256, 240), seed=3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    for band in "gri":
        np.testing.assert_array_equal(again.images[band].data, simulated.images[band].data)
        np.testing.assert_array_equal(again.images[band].mask, simulated.images[band].mask)
    np.testing.assert_array_equal(again.truth, simulated.truth)
    assert (again.catalog == simulated.catalog).all()


def test_a_band_does_not_depend_on_the_others(simulated):
    alone = simulate_field((256, 240), ("r",), seed=3)
    np.testing.assert_array_equal(alone.images["r"].data, simulated.images["r"].data)
    np.testing.assert_array_equal(alone.truth[0], simulated.truth[1])


def test_another_seed_is_another_field(simulated):
    other = simulate_field((256, 240), ("r",), seed=4)
    assert np.abs(other.truth[0] - simulated.truth[1]).max() > 100 * simulated.sky_sigma[1]


def test_noise_is_what_the_variance_says(simulated):
    data = np.stack([image.data for image in simulated.images.values()]).astype(float)
    z = (data - simulated.truth) / np.sqrt(simulated.variance)
    for band, mask in zip(z, simulated.mask, strict=True):
        n = np.count_nonzero(~mask)
        assert band[~mask].mean() == pytest.approx(0, abs=5 / np.sqrt(n))
        assert band[~mask].std() == pytest.approx(1, abs=5 / np.sqrt(2 * n))
    sky = simulated.truth[1] < 0.1 * simulated.sky_sigma[1]
    assert np.sqrt(simulated.variance[1][sky].mean()) == pytest.approx(simulated.sky_sigma[1], rel=0.02)


def test_depth():
    """Circles of 2 arcsec on empty sky scatter by a fifth of the limiting flux."""
    simulated = simulate_field(
        (256, 256), ("r",), seed=1, n_spirals=0, n_blends=0, n_stars=0, galaxy_density=1e-9, saturated_star=False,
        bad_column=False,
    )  # fmt: skip
    assert len(simulated.catalog) == 0
    assert not simulated.mask.any()
    y, x = np.mgrid[8:250:11, 8:250:11]
    fluxes = aperture_flux(simulated.images["r"].data, np.column_stack([x.ravel(), y.ravel()]), 5.0)
    limit = 10 ** (0.4 * (22.5 - FIELD_BANDS["r"].depth))
    assert fluxes.std() == pytest.approx(limit / 5, rel=0.1)


def test_catalog_fluxes_and_positions_are_those_of_the_truth():
    simulated = simulate_field(
        (200, 200), ("r",), seed=2, n_spirals=1, n_blends=0, n_stars=0, galaxy_density=1e-9, saturated_star=False,
    )  # fmt: skip
    assert list(simulated.catalog["type"]) == ["spiral", "elliptical"]
    total = simulated.catalog["flux_r"].sum()
    assert simulated.truth.sum(dtype=float) == pytest.approx(total, rel=0.02)
    assert simulated.truth_sharp.sum(dtype=float) == pytest.approx(total, rel=0.02)
    for row in simulated.catalog:
        assert centroid(simulated.truth[0], (row["x"], row["y"])) == pytest.approx((row["x"], row["y"]), abs=0.7)


def test_stars_have_the_psf():
    simulated = simulate_field(
        (128, 128), ("g", "i"), seed=6, n_spirals=0, n_blends=0, n_stars=1, galaxy_density=1e-9, saturated_star=False,
    )  # fmt: skip
    star = simulated.catalog[0]
    assert star["type"] == "star"
    for band, truth, psf in zip("gi", simulated.truth, simulated.psfs, strict=True):
        assert centroid(truth) == pytest.approx((star["x"], star["y"]), abs=2e-3)
        radius = psf.shape[-1] // 2 - 2
        inside = aperture_flux(psf, (psf.shape[-1] // 2,) * 2, radius)
        assert aperture_flux(truth, (star["x"], star["y"]), radius) / star[f"flux_{band}"] == pytest.approx(
            inside, rel=5e-3
        )


def test_psfs(simulated):
    assert simulated.psfs.shape[1] == simulated.psfs.shape[2]
    assert simulated.psfs.shape[1] % 2 == 1
    np.testing.assert_allclose(simulated.psfs.sum(axis=(1, 2)), 1, rtol=1e-6)
    centre = simulated.psfs.shape[1] // 2
    for psf in simulated.psfs:
        assert np.unravel_index(psf.argmax(), psf.shape) == (centre, centre)
        np.testing.assert_allclose(centroid(psf), (centre, centre), atol=1e-3)
    # r has the best seeing, then i, then g
    assert simulated.psfs[1].max() > simulated.psfs[2].max() > simulated.psfs[0].max()


def test_sharp_truth_holds_what_seeing_hides(simulated):
    ring = fourier_ring_correlation(simulated.truth_sharp, simulated.truth, criterion=0.5)
    assert (ring.resolution >= 2).all()
    assert (simulated.truth_sharp.max(axis=(1, 2)) > 1.5 * simulated.truth.max(axis=(1, 2))).all()
    wide = simulate_field((128, 128), ("r",), seed=1, sharp_fwhm=0.68)
    peak = wide.truth_sharp.max() / wide.truth.max()
    assert peak == pytest.approx(1, abs=0.35)  # a Gaussian and a Moffat of one FWHM


def test_saturated_star_bleeds_and_is_masked(simulated):
    assert simulated.catalog["saturated"].sum() >= 1
    star = simulated.catalog[0]
    assert star["type"] == "star"
    x, y = round(star["x"]), round(star["y"])
    for image, truth in zip(simulated.images.values(), simulated.truth, strict=True):
        assert image.data.max() <= 15.0001
        full = image.data >= 14.9999
        assert full[y, x]
        assert image.mask[full].all()
        rows, columns = np.nonzero(full)
        assert np.ptp(rows) > 2 * np.ptp(columns)
        assert truth[y, x] > 15


def test_bleeding_loses_no_charge():
    rng = np.random.default_rng(1)
    image = rng.random((61, 9))
    image[30, 4], image[29:32, 3], image[12, 4] = 90.0, 20.0, 14.0
    bled, full = _bleed(image, 10.0)
    np.testing.assert_allclose(bled.sum(axis=0), image.sum(axis=0), rtol=1e-12)
    assert bled.max() <= 10 + 1e-12
    np.testing.assert_array_equal(bled[:, 5:], image[:, 5:])
    assert full[26:35, 4].all()
    assert not full[:, 0].any()


def test_bad_column(simulated):
    column = int(0.37 * 240)
    assert simulated.mask[:, :, column].all()
    elsewhere = np.delete(simulated.mask, column, axis=2)
    assert elsewhere.mean() < 0.02
    clean = simulate_field((128, 128), ("r",), seed=1, bad_column=False, saturated_star=False)
    assert not clean.mask.any()


def test_blends_are_blended(simulated):
    catalog = simulated.catalog
    for number in set(catalog["blend"]) - {0}:
        members = catalog[catalog["blend"] == number]
        assert len(members) in (2, 3)
        distance = np.hypot(members["x"][1:] - members["x"][0], members["y"][1:] - members["y"][0]) * 0.2
        assert (distance > 0.9).all()
        assert (distance < 3.01 * 0.85).all()
    assert set(catalog["type"]) == {"star", "spiral", "elliptical", "galaxy"}


def test_clumps_are_bluer_than_bulges(simulated):
    spiral = simulated.catalog[simulated.catalog["type"] == "spiral"][0]
    g, _, i = simulated.truth_sharp
    y, x = np.mgrid[:256, :240]
    distance = np.hypot(x - spiral["x"], y - spiral["y"])
    colour = lambda where: -2.5 * np.log10(g[where].sum() / i[where].sum())  # noqa: E731
    arms = (distance > 15) & (distance < 30)
    bright = arms & (g > np.quantile(g[arms], 0.97))
    assert colour(bright) < colour(distance < 2) - 0.3


def test_wcs(simulated):
    ra, dec = simulated.wcs.pixel_to_world_values(119.5, 127.5)
    assert (ra, dec) == pytest.approx((180.5, -0.5), abs=1e-12)
    east, north = simulated.wcs.pixel_to_world_values([118.5, 119.5], [127.5, 128.5])
    assert east[0] > ra
    assert north[1] > dec
    row = simulated.catalog[5]
    assert simulated.wcs.world_to_pixel_values(row["ra"], row["dec"]) == pytest.approx((row["x"], row["y"]), abs=1e-6)


def test_conditions_can_be_set():
    simulated = simulate_field((96, 96), ("r",), seed=1, fwhm={"r": 1.4}, depth=23.0, n_stars=0)
    shallow = FIELD_BANDS["r"].depth - 23.0
    usual = simulate_field((96, 96), ("r",), seed=1, n_stars=0)
    assert simulated.sky_sigma[0] / usual.sky_sigma[0] == pytest.approx(10 ** (0.4 * shallow))
    assert simulated.images["r"].meta["SEEING"] == 1.4
    assert simulated.psfs.max() < 0.4 * usual.psfs.max()


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"shape": (32, 512)}, "shape="),
        ({"shape": (100.5, 512)}, "shape="),
        ({"bands": ("r", "q")}, "bands="),
        ({"bands": ()}, "bands="),
        ({"bands": ("r", "r")}, "bands="),
        ({"pixel_scale": -0.2}, "pixel_scale="),
        ({"seed": -1}, "seed="),
        ({"seed": None}, "seed="),
        ({"n_stars": -1}, "n_stars="),
        ({"fwhm": 0.0}, "fwhm="),
        ({"depth": {"r": np.nan}}, "depth="),
        ({"galaxy_density": np.inf}, "galaxy_density="),
        ({"sharp_fwhm": 0.0}, "sharp_fwhm="),
    ],
)
def test_errors_name_the_argument(keywords, match):
    with pytest.raises(InputError, match=match):
        simulate_field(**{"shape": (64, 64), **keywords})


def test_missing_galsim(monkeypatch):
    monkeypatch.setitem(sys.modules, "galsim", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        simulate_field((64, 64))


def test_importing_is_light():
    code = "import sys, astrogan.simulate.field; print({'galsim', 'scipy', 'astropy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
