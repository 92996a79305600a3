"""Galaxies as two surveys see them: light, noise, PSF, place and colours are those that the numbers say."""

from itertools import islice

import numpy as np
import pytest
from astropy.nddata import CCDData

from astrogan.exceptions import InputError
from astrogan.image.psf import psf_fwhm
from astrogan.operators.translator import TargetSpec, Translator
from astrogan.simulate.surveys import (
    BENCHMARK_SEED,
    Filter,
    Survey,
    benchmark_pairs,
    get_survey,
    noise_kernel,
    simulate_pair,
    simulate_pairs,
    simulate_stamp,
)
from astrogan.simulate.surveys._canvas import Canvas, Ellipse, Knots, Moffats, Painting
from astrogan.simulate.surveys._spectra import COLOUR_TERMS, Spectrum

pytest.importorskip("surveycodex")

WIDE = ((200, 200), (420, 420))


@pytest.fixture(scope="module")
def pairs():
    """Some pairs with all bands."""
    return [simulate_pair(seed) for seed in range(24)]


@pytest.fixture(scope="module")
def wide():
    """Galaxies that wide stamps hold whole, with nothing beside them."""
    made = (simulate_pair(seed, bands="gr", shapes=WIDE, neighbours=0, colour_terms=False) for seed in range(100))
    return list(islice((pair for pair in made if pair.galaxy["half_light_radius"] < 1.6), 6))


def _residuals(stamp):
    """Noise in units of its standard deviation."""
    return (stamp.data - stamp.truth) / np.sqrt(stamp.variance)


# --------------------------------------------------------------------------------------------------------- light


def test_a_pair_is_what_it_says(pairs):
    pair = pairs[0]
    for stamp, shape, scale in ((pair.first, (64, 64), 0.396), (pair.second, (136, 136), 0.187)):
        assert stamp.bands == tuple("ugriz")
        assert stamp.pixel_scale == scale
        for array in (stamp.data, stamp.truth, stamp.variance):
            assert array.shape == (5, *shape)
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
            assert np.isfinite(array).all()
        assert (stamp.truth >= 0).all()
        assert stamp.sigma.shape == stamp.fwhm.shape == (5,)
        assert stamp.observation.bands == stamp.bands
    assert (pair.first.survey, pair.second.survey) == ("sdss", "cfhtls")


def test_light_on_a_wide_stamp_is_the_catalogues(wide):
    for pair in wide:
        for stamp, magnitudes in (
            (pair.first, pair.galaxy["magnitudes"]),
            (pair.second, pair.galaxy["magnitudes_second"]),
        ):
            expected = 10 ** (0.4 * (22.5 - np.array([magnitudes[b] for b in stamp.bands])))
            np.testing.assert_allclose(stamp.truth.sum(axis=(1, 2), dtype=float), expected, rtol=1e-3)


def test_galaxies_have_the_magnitudes_that_show_in_sdss(pairs):
    magnitudes = np.array([pair.galaxy["r_magnitude"] for pair in pairs])
    assert 16.5 <= magnitudes.min() < magnitudes.max() <= 20.5
    for pair in pairs:
        assert pair.galaxy["magnitudes"]["r"] == pytest.approx(pair.galaxy["r_magnitude"], abs=0.02)
        x, y = np.round(pair.galaxy["positions"][0]).astype(int)
        box = pair.first.data[2, y - 3 : y + 4, x - 3 : x + 4]
        assert box.sum() > 7 * 3 * pair.first.sigma[2]  # three sigma in seven by seven pixels


def test_profiles_are_those_of_galsim():
    galsim = pytest.importorskip("galsim")
    scale, middle = 0.4, (33.3, 28.8)
    psfs = Moffats(np.array([1.3]), 3.0, (0.03, -0.02), scale)
    canvas = Canvas((64, 64), scale, 20.0, psfs.k_max)
    y, x = canvas.at(*middle)
    seen = galsim.Moffat(beta=3.0, scale_radius=psfs.core[0]).shear(g1=0.03, g2=-0.02)
    disc = galsim.Exponential(half_light_radius=1.5 * 0.3**0.5).shear(q=0.3, beta=0.7 * galsim.radians)
    knots = Knots([(0.5, 0.2), (-1.0, 1.1)], [0.2, 0.3], [1.0, 3.0])
    theirs = galsim.Gaussian(sigma=0.2).shift(0.5, 0.2) * 0.25 + galsim.Gaussian(sigma=0.3).shift(-1.0, 1.1) * 0.75
    for profile, other in ((Ellipse(1, 1.5, 0.3, 0.7), disc), (knots, theirs)):
        transform = profile.transform(canvas.ky, canvas.kx) * (y * x) * psfs.transforms(canvas)
        shift = middle[0] - 31.5, middle[1] - 31.5
        expected = galsim.Convolve(other, seen).drawImage(nx=64, ny=64, scale=scale, offset=shift)
        assert np.abs(canvas.images(transform)[0] - expected.array).max() < 1e-3 * expected.array.max()


def test_waves_beyond_nyquists_frequency_alias_as_in_a_camera():
    """Pixels are samples: every fourth of a frame with pixels a quarter as wide is the coarse frame's."""
    images = []
    for scale in (0.4, 0.1):
        canvas = Canvas((round(16 / scale),) * 2, scale, 8.0, 14.0)
        assert np.pi / 0.4 < canvas.kx.max() < 2 * np.pi / 0.4
        y, x = canvas.at(7.72 / scale, 8.24 / scale)
        blurred = np.exp(-0.5 * 0.2**2 * np.add.outer(canvas.ky**2, canvas.kx**2))
        images.append(canvas.images((blurred * y * x)[None])[0] / scale**2)
    np.testing.assert_allclose(images[0], images[1][::4, ::4], atol=1e-4 * images[0].max())
    grid = np.arange(40) * 0.4
    expected = np.exp(-0.5 * np.add.outer((grid - 8.24) ** 2, (grid - 7.72) ** 2) / 0.2**2) / (2 * np.pi * 0.2**2)
    np.testing.assert_allclose(images[0], expected, atol=0.03 * expected.max())


def test_a_painting_is_its_image():
    image = np.zeros((21, 31))
    image[5, 25], image[10, 15] = 3.0, 1.0
    k = np.array([0.0, 0.5, -1.0], np.float32)
    got = Painting(image, 0.2).transform(k, k)
    places, shares = [(2.0, -1.0), (0.0, 0.0)], [3, 1]
    np.testing.assert_allclose(got, Knots(places, [0.12, 0.12], shares).transform(k, k), atol=1e-6)


# --------------------------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize("which", ["first", "second"])
def test_noise_of_blank_sky_is_sigma(pairs, which):
    ratios, pulls = [], []
    for stamp in (getattr(pair, which) for pair in pairs):
        pulls.append([r.std() for r in _residuals(stamp)])
        noise = (stamp.data - stamp.truth) / stamp.sigma[:, None, None]
        blank = stamp.variance < 1.01 * stamp.sigma[:, None, None] ** 2
        ratios.append([n[b].std() if b.sum() > 1000 else np.nan for n, b in zip(noise, blank, strict=True)])
    assert np.abs(np.nanmean(ratios, axis=0) - 1).max() < 0.012
    assert np.abs(np.mean(pulls, axis=0) - 1).max() < 0.01


def test_noise_is_correlated_by_its_kernel(pairs):
    kernel = noise_kernel()
    assert np.sum(kernel**2) == pytest.approx(1)
    padded = np.pad(kernel, 3)
    residuals = np.concatenate([_residuals(pair.second) for pair in pairs])
    for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 2), (0, 3)):
        expected = np.sum(padded * np.roll(padded, (dy, dx), (0, 1)))
        got = np.mean(residuals[:, dy:, dx:] * residuals[:, : 136 - dy, : 136 - dx])
        assert got == pytest.approx(expected, abs=0.006), (dy, dx)


def test_noise_is_white_where_nothing_was_resampled():
    residuals = np.concatenate([_residuals(simulate_pair(s, resampled=False).second) for s in range(6)])
    assert residuals.std() == pytest.approx(1, abs=0.01)
    assert np.mean(residuals[:, :, 1:] * residuals[:, :, :-1]) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("noise_scale", [1.0, 2.0])
def test_variance_grows_with_signal_by_the_electrons(noise_scale):
    """Slope of variance against signal: one over the electrons of a nanomaggy."""
    band = get_survey("cfhtls")["r"]
    excess = signal = stated = 0.0
    for seed in range(40):
        stamp = simulate_pair(seed, bands="r", noise_scale=noise_scale).second
        bright = stamp.truth[0] > 20 * stamp.sigma[0]
        excess += np.sum((stamp.data - stamp.truth)[0][bright] ** 2 - stamp.sigma[0] ** 2)
        stated += np.sum(stamp.variance[0][bright] - stamp.sigma[0] ** 2, dtype=float)
        signal += np.sum(stamp.truth[0][bright], dtype=float)
    assert excess / signal * band.electrons_per_nanomaggy == pytest.approx(noise_scale**2, rel=0.05)
    assert stated / signal * band.electrons_per_nanomaggy == pytest.approx(noise_scale**2, rel=0.02)


def test_noise_and_seeing_scatter_as_said():
    pairs = [simulate_pair(s, bands="gr", shapes=((16, 16), (16, 16)), neighbours=0) for s in range(120)]
    survey = get_survey("sdss")
    for name, scatter in (("sigma", 0.15), ("fwhm", 0.12)):
        logs = np.log([getattr(p.first, name) / [getattr(survey[b], name) for b in "gr"] for p in pairs])
        assert np.abs(np.median(logs, axis=0)).max() < 0.05
        np.testing.assert_allclose(logs.std(axis=0), scatter, rtol=0.2)
        assert np.corrcoef(logs.T)[0, 1] == pytest.approx(0.8, abs=0.1)


# ----------------------------------------------------------------------------------------------- PSF and place


def test_psfs_have_their_fwhm_and_all_of_their_light(pairs):
    for pair in pairs[:8]:
        for stamp, size in ((pair.first, 49), (pair.second, 57)):
            assert stamp.psf.shape == (5, size, size)
            np.testing.assert_allclose(stamp.psf.sum(axis=(1, 2), dtype=float), 1, atol=1e-5)
            measured = [psf_fwhm(kernel) * stamp.pixel_scale for kernel in stamp.psf]
            np.testing.assert_allclose(measured, stamp.fwhm, rtol=0.01)
            edge = stamp.psf[:, [0, -1]].sum(axis=(1, 2)) / stamp.psf.max(axis=(1, 2))
            assert (edge < 5e-3).all()


def test_both_stamps_put_a_galaxy_at_one_place_on_the_sky(wide):
    for pair in wide:
        skies = []
        for stamp, position in zip((pair.first, pair.second), pair.galaxy["positions"], strict=True):
            y, x = np.indices(stamp.truth.shape[1:])
            total = stamp.truth[1].sum(dtype=float)
            centroid = [np.sum(stamp.truth[1] * axis, dtype=float) / total for axis in (x, y)]
            skies.append(stamp.wcs.pixel_to_world(*centroid))
            # The reference point is the nucleus; arms and knots may pull the centroid aside.
            nucleus = stamp.wcs.pixel_to_world(*position)
            assert nucleus.ra.deg == pytest.approx(stamp.wcs.wcs.crval[0], abs=1e-9)
            assert np.abs(np.array(position) - (np.array(stamp.truth.shape[:0:-1]) - 1) / 2).max() <= 0.5
        assert skies[0].separation(skies[1]).arcsec < 0.01


def test_an_offset_moves_the_galaxy_alike_in_both():
    pair, same = (simulate_pair(3, bands="r", offset=offset) for offset in (8.0, 0.0))
    moved = [
        (np.array(a) - b) * stamp.pixel_scale
        for a, b, stamp in zip(
            pair.galaxy["positions"], same.galaxy["positions"], (pair.first, pair.second), strict=True
        )
    ]
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-9)
    assert 0 < np.hypot(*moved[0]) <= 8


def test_images_keep_what_the_stamp_knows(pairs):
    stamp = pairs[1].first
    images = stamp.to_ccd()
    assert all(isinstance(image, CCDData) for image in images)
    np.testing.assert_array_equal(images[2].data, stamp.data[2])
    np.testing.assert_array_equal(images[2].uncertainty.array, stamp.variance[2])
    assert images[2].unit == "nmgy"
    assert images[2].meta["FILTER"] == "r"
    assert stamp.to_ccd(truth=True)[2].uncertainty is None
    images[2].data[:] = 0
    assert stamp.data[2].any()


def test_psf_matching_makes_one_survey_of_the_other(pairs):
    """Noise-free light of CFHTLS, convolved and resampled, is that of SDSS."""
    errors = []
    for seed in range(4):
        pair = simulate_pair(seed, colour_terms=False)
        sdss, cfhtls = pair.first, pair.second
        target = TargetSpec(wcs=sdss.wcs, shape=sdss.truth.shape[1:], psf=list(sdss.psf))
        images = Translator("psf-matching", target=target)(cfhtls.to_ccd(truth=True))
        for image, truth in zip(images, sdss.truth, strict=True):
            inside = (slice(4, -4), slice(4, -4))  # a kernel's half: beyond lies light that the image does not have
            errors.append(np.linalg.norm((image.data - truth)[inside]) / np.linalg.norm(truth[inside]))
    assert max(errors) < 0.01
    assert np.median(errors) < 0.002


# ------------------------------------------------------------------------------------------------------- colours


def test_filters_of_cfhtls_differ_by_the_colour_terms(pairs):
    spectrum = Spectrum("disc", 0.15, 0.1)
    sdss = dict(zip("ugriz", spectrum.colours("ugriz"), strict=True))
    megacam = dict(zip("ugriz", spectrum.colours("ugriz", megacam=True), strict=True))
    for band, (factor, blue, red) in COLOUR_TERMS.items():
        assert megacam[band] - sdss[band] == pytest.approx(factor * (sdss[blue] - sdss[red]), abs=1e-12)
    for pair in pairs:  # of parts with colours of their own, so nearly so for the sum
        m, second = pair.galaxy["magnitudes"], pair.galaxy["magnitudes_second"]
        expected = {
            "u": -0.241 * (m["u"] - m["g"]),
            "g": -0.153 * (m["g"] - m["r"]),
            "r": -0.024 * (m["g"] - m["r"]),
            "i": -0.085 * (m["r"] - m["i"]),
            "z": 0.074 * (m["i"] - m["z"]),
        }
        for band, difference in expected.items():
            assert second[band] - m[band] == pytest.approx(difference, abs=0.02), (pair.first.seed, band)


def test_without_colour_terms_magnitudes_agree():
    galaxy = simulate_pair(5, colour_terms=False).galaxy
    assert galaxy["magnitudes"] == galaxy["magnitudes_second"]
    assert simulate_pair(5, "sdss", "kids", bands="ugri").galaxy["magnitudes"] != galaxy["magnitudes"]


def test_colours_are_those_of_galaxies(pairs):
    """Old light is red and young light blue, and both lie where galaxies of low redshift do."""
    for kind, low, high in (
        ("old", (1.5, 0.6, 0.25), (2.2, 1.3, 0.55)),
        ("young", (0.3, -0.1, -0.2), (0.9, 0.3, 0.15)),
    ):
        colours = -np.diff(Spectrum(kind, 0.1).magnitudes("ugri"))
        assert (colours > low).all()
        assert (colours < high).all()
    by_kind = {pair.galaxy["kind"]: pair.galaxy["magnitudes"] for pair in pairs}
    blue, red = by_kind["irregular"], by_kind["elliptical"]
    assert blue["g"] - blue["r"] + 0.3 < red["g"] - red["r"]


# --------------------------------------------------------------------------------------------------------- seeds


def test_seeds_give_the_same_pair_in_any_order(pairs):
    again = {seed: simulate_pair(seed) for seed in (7, 3)}
    for seed, pair in again.items():
        for one, other in ((pair.first, pairs[seed].first), (pair.second, pairs[seed].second)):
            for name in ("data", "truth", "variance", "sigma", "psf", "fwhm"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert pair.galaxy == pairs[seed].galaxy
    listed = list(simulate_pairs(2, seed=6))
    np.testing.assert_array_equal(listed[1].second.data, pairs[7].second.data)


def test_a_galaxy_is_the_same_for_all_surveys_and_sizes(pairs):
    other = simulate_pair(4, "kids", "decals", bands="gr", neighbours=0).galaxy
    for name in ("kind", "redshift", "half_light_radius", "axis_ratio"):
        assert other[name] == pairs[4].galaxy[name]
    assert other["magnitudes"]["g"] == pytest.approx(pairs[4].galaxy["magnitudes"]["g"])


def test_unpaired_stamps_are_of_other_objects(pairs):
    places = {tuple(pair.first.wcs.wcs.crval) for pair in pairs}
    for survey in ("sdss", "cfhtls"):
        stamps = [simulate_stamp(pair.first.seed, survey, bands="r") for pair in pairs]
        found = {tuple(stamp.wcs.wcs.crval) for stamp in stamps}
        assert len(found) == len(stamps)
        assert not places & found
        places |= found
    assert stamps[0].data.shape == (1, 136, 136)
    np.testing.assert_array_equal(simulate_stamp(2, "cfhtls", bands="r").data, stamps[2].data)


def test_the_benchmarks_seeds_are_its_own():
    options = {"bands": "r", "shapes": ((32, 32), (64, 64))}
    first = next(benchmark_pairs(1, **options))
    assert first.first.seed == BENCHMARK_SEED
    np.testing.assert_array_equal(first.second.data, simulate_pair(BENCHMARK_SEED, **options).second.data)
    for seed in (BENCHMARK_SEED, BENCHMARK_SEED - 1, BENCHMARK_SEED + 1000):
        with pytest.raises(InputError, match="benchmark"):
            simulate_pairs(2, seed=seed)
    simulate_pairs(1, seed=BENCHMARK_SEED - 1)


# ------------------------------------------------------------------------------------------- surveys and arguments


@pytest.mark.parametrize(
    ("first", "second", "bands"), [("kids", "decals", "gr"), ("sdss", "hsc", "griz"), ("des", "lsst", ("g", "Y"))]
)
def test_any_two_surveys_and_shapes(first, second, bands):
    pair = simulate_pair(1, first, second, bands=bands, shapes=((48, 60), (81, 33)))
    assert pair.first.data.shape == (len(bands), 48, 60)
    assert pair.second.data.shape == (len(bands), 81, 33)
    assert (pair.second.survey, pair.second.pixel_scale) == (second, get_survey(second).pixel_scale)
    wcs = pair.first.wcs
    assert wcs.pixel_shape == (60, 48)


def test_sharp_surveys_and_bands_with_long_names():
    stamp = simulate_stamp(1, "euclid", bands="IE", shape=(60, 60))
    assert stamp.bands == ("IE",)
    assert psf_fwhm(stamp.psf[0]) * 0.1 == pytest.approx(stamp.fwhm[0], rel=0.05)


def test_a_survey_of_ones_own_with_its_psf_and_noise():
    grid = np.indices((21, 21)) - 10.0
    kernel = np.exp(-0.5 * (grid[0] ** 2 / 2.0**2 + grid[1] ** 2 / 1.5**2))
    kernel /= kernel.sum()

    class Stripes:
        def sample(self, shape, *, sigma=None, signal=None, wcs=None, rng):
            return np.broadcast_to(sigma * rng.normal(size=(1, 1, shape[2])), shape)

    own = Filter("r", 1.2, 20.8, 25.0, 100.0, 0.3, psf=kernel, noise_sigma=0.02, noise_model=Stripes())
    plain = Filter("g", 1.4, 21.8, 25.0, 100.0, 0.3)
    pair = simulate_pair(0, Survey("mine", 0.3, (plain, own)), "decals", bands="gr", seeing_scatter=0.0)
    expected = np.pad(kernel, (pair.first.psf.shape[1] - 21) // 2)
    np.testing.assert_allclose(pair.first.psf[1], expected, atol=1e-4)
    noise = (pair.first.data - pair.first.truth)[1] / np.sqrt(pair.first.variance[1])
    assert np.ptp(noise, axis=0).max() < 1e-3
    assert 0.5 < pair.first.sigma[1] / 0.02 < 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"second": "kids"}, "band 'z' is none of kids's: u, g, r, i"),
        ({"first": "decals"}, "band 'u' is none of decals's"),
        ({"first": "nowhere"}, "survey='nowhere' is unknown"),
        ({"bands": ""}, "bands"),
        ({"bands": "gg"}, "bands"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.5}, r"seed=1\.5"),
        ({"shapes": (64, 64)}, "shape=64"),
        ({"shapes": ((64, 64),)}, "shapes"),
        ({"noise_scale": 0}, "noise_scale"),
        ({"noise_scale": (1, 2, 3)}, "noise_scale"),
        ({"seeing_scatter": -0.1}, "seeing_scatter"),
        ({"neighbours": np.nan}, "neighbours"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        simulate_pair(**{"seed": 0, **arguments})


def test_a_band_without_a_wavelength_is_named():
    odd = Survey("odd", 0.3, (Filter("n501", 1.0, 21.0, 25.0, 100.0, 0.3),))
    with pytest.raises(InputError, match="n501"):
        simulate_stamp(0, odd, bands=("n501",))
