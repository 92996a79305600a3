"""Symmetric monotone templates: truth-known blends, permutation, translation, masks, sizes."""

import numpy as np
import pytest
from astropy.modeling.models import Sersic2D
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from astrogan.api import Observation
from astrogan.backends.builtin import astrogan_backends
from astrogan.backends.classic.symmetric import Symmetric, monotone
from astrogan.backends.classic.watershed import Watershed
from astrogan.exceptions import InputError
from astrogan.testing import check_backend

OVER = 5


def sersic(flux, x, y, shape, r_eff=3.0, n=1.0, ellip=0.3, theta=0.5, psf=1.5):
    """A Sersic galaxy of a given flux, convolved with a Gaussian PSF (sigma in pixels), on the pixel grid."""
    profile = Sersic2D(1.0, r_eff * OVER, n, (x + 0.5) * OVER - 0.5, (y + 0.5) * OVER - 0.5, ellip, theta)
    rows, columns = np.mgrid[: shape[0] * OVER, : shape[1] * OVER]
    fine = gaussian_filter(profile(columns, rows), psf * OVER, mode="constant")
    image = fine.reshape(shape[0], OVER, shape[1], OVER).mean(axis=(1, 3))
    return flux * image / image.sum()


def observe(truth, noise=1.0, seed=0):
    """An observation of (source, band, y, x) truths."""
    scene = truth.sum(axis=0)
    data = scene + np.random.default_rng(seed).normal(0, noise, scene.shape)
    return Observation(data, variance=np.full(data.shape, noise**2))


def shares(observation, templates):
    """The image shared in proportion to the templates, (source, band, y, x)."""
    full = np.zeros((len(templates), *observation.shape))
    for image, template in zip(full, templates, strict=True):
        y, x = template.origin
        image[:, y : y + template.data.shape[1], x : x + template.data.shape[2]] = template.data
    total = full.sum(axis=0)
    return observation.data * np.divide(full, total, out=np.zeros_like(full), where=total > 0)


def flux_errors(backend, observation, positions, truth):
    light = shares(observation, backend(observation, positions).templates)
    return np.abs(light.sum(axis=(2, 3)) / truth.sum(axis=(2, 3)) - 1)


SHAPE = (50, 56)


@pytest.fixture(scope="module")
def pair():
    """Two overlapping galaxies, three to one, of opposite colours, 7 pixels apart; the PSF's FWHM is 3.5 pixels."""
    positions = np.array([(24.2, 25.7), (31.0, 24.1)])
    colours = np.array([(1.0, 0.5), (0.5, 1.0)])
    shapes = [{"r_eff": 4.0, "n": 1.0, "theta": 1.2}, {"r_eff": 2.0, "n": 2.0, "theta": 0.3}]
    truth = [
        flux * colour[:, None, None] * sersic(1, *position, SHAPE, **s)
        for flux, colour, position, s in zip((9000, 3000), colours, positions, shapes, strict=True)
    ]
    return np.array(truth), positions


def test_contract():
    check_backend(next(s for s in astrogan_backends() if s.name == "symmetric"))


def test_beats_the_watershed_on_two_overlapping_galaxies(pair):
    """Mean flux errors over ten noise realisations, true centres."""
    truth, positions = pair
    observations = [observe(truth, seed=s) for s in range(10)]
    ours = np.mean([flux_errors(Symmetric(), o, positions, truth) for o in observations], axis=0)
    theirs = np.mean([flux_errors(Watershed(), o, positions, truth) for o in observations], axis=0)
    print(f"mean |dF/F|: symmetric {ours.ravel().round(3)}, watershed {theirs.ravel().round(3)}")
    assert ours.max() < 0.05
    assert theirs.mean() > 0.07
    assert ours.mean() < 0.4 * theirs.mean()


def test_templates_look_like_the_truth(pair):
    truth, positions = pair
    templates = Symmetric()(observe(truth), positions).templates
    for template, image in zip(templates, truth, strict=True):
        y, x = template.origin
        cut = image[:, y : y + template.data.shape[1], x : x + template.data.shape[2]]
        cosine = (template.data * cut).sum() / np.sqrt((template.data**2).sum() * (image**2).sum())
        assert cosine > 0.99


def test_sharing_again_helps(pair):
    truth, positions = pair
    observation = observe(truth)
    errors = [flux_errors(Symmetric(iterations=n), observation, positions, truth).mean() for n in (0, 30)]
    assert errors[1] < errors[0]


def test_detected_centres_do_as_well():
    positions = np.array([(22.2, 25.7), (33.0, 23.1)])
    truth = np.array([[sersic(f, *p, SHAPE, r_eff=2.5)] for f, p in zip((9000, 5000), positions, strict=True)])
    observation = observe(truth)
    found = Symmetric()(observation)
    assert len(found.templates) == 2
    detected = np.array([t.position for t in found.templates])
    order = np.argsort(detected[:, 0])
    assert np.hypot(*(detected[order] - positions).T).max() < 0.15
    light = shares(observation, [found.templates[i] for i in order])
    assert np.abs(light.sum(axis=(2, 3)) / truth.sum(axis=(2, 3)) - 1).max() < 0.06


def test_permuting_the_positions_permutes_the_templates(pair):
    truth, positions = pair
    observation = observe(truth)
    positions = np.array([*positions, (8.0, 40.0), (45.0, 10.5)])
    forward = Symmetric()(observation, positions).templates
    for order in ([3, 1, 0, 2], [2, 3, 1, 0]):
        shuffled = Symmetric()(observation, positions[order]).templates
        for template, i in zip(shuffled, order, strict=True):
            assert template.origin == forward[i].origin
            assert np.array_equal(template.data, forward[i].data)


@pytest.mark.parametrize("shift", [(4, -3), (-2, 4)])
def test_shifting_the_image_shifts_the_templates(pair, shift):
    truth, positions = pair
    dx, dy = shift
    scene = truth.sum(axis=0)
    data = np.pad(scene + np.random.default_rng(3).normal(size=scene.shape), ((0, 0), (5, 5), (5, 5)))
    here = Symmetric()(Observation(data, variance=np.ones(data.shape)), positions + 5).templates
    moved = np.roll(data, (dy, dx), axis=(1, 2))
    there = Symmetric()(Observation(moved, variance=np.ones(data.shape)), positions + 5 + (dx, dy)).templates
    for a, b in zip(here, there, strict=True):
        assert (b.origin[0] - a.origin[0], b.origin[1] - a.origin[1]) == (dy, dx)
        assert np.allclose(a.data, b.data, rtol=1e-4, atol=1e-4)


def test_half_pixel_centres_do_as_well_as_whole_ones():
    errors = []
    for x in (20.0, 20.25, 20.5):
        truth = np.array([[sersic(8000, x, 21.0, (44, 50))], [sersic(4000, x + 7, 21.5, (44, 50))]])
        errors.append(flux_errors(Symmetric(), observe(truth), np.array([(x, 21.0), (x + 7, 21.5)]), truth).mean())
    assert max(errors) < 0.07


def test_an_isolated_source_keeps_its_light_and_its_template_follows_it():
    truth = np.array([[sersic(20000, 24.3, 24.8, (50, 50))]])
    observation = observe(truth)
    (template,) = Symmetric()(observation, np.array([(24.3, 24.8)])).templates
    light = shares(observation, [template]).sum()
    assert abs(light / 20000 - 1) < 0.02
    assert abs(template.data.sum() / 20000 - 1) < 0.03


def test_three_in_a_bent_row():
    """The one in the middle has neighbours on both sides, whose light symmetry alone would let it keep."""
    positions = np.array([(16.0, 20.0), (24.5, 22.5), (33.0, 20.0)])
    truth = np.array([[sersic(f, *p, (42, 50), r_eff=2.5)] for f, p in zip((6000, 2500, 6000), positions, strict=True)])
    observation = observe(truth)
    alone = flux_errors(Symmetric(iterations=0), observation, positions, truth)
    shared = flux_errors(Symmetric(), observation, positions, truth)
    assert alone[1, 0] > 0.5
    assert shared.max() < 0.1


def test_a_masked_half_is_filled_from_the_other():
    truth = np.array([[sersic(20000, 24.0, 25.0, (50, 50), ellip=0.0)]])
    observation = observe(truth)
    valid = np.ones(observation.shape, bool)
    valid[:, 22:29, 26:29] = False
    outcomes = []
    for value in (0.0, 1e5):
        data = np.where(valid, observation.data, value)
        outcomes.append(Symmetric()(observation.replace(data=data, valid=valid), np.array([(24.0, 25.0)])).templates[0])
    assert np.array_equal(outcomes[0].data, outcomes[1].data)
    # The footprint leaves masked pixels out only where no band is valid; the light around them is unharmed.
    y, x = outcomes[0].origin
    model = outcomes[0].data[0, 25 - y, 20 - x]
    assert abs(model / truth[0, 0, 25, 20] - 1) < 0.05


def test_a_pixel_masked_in_one_band_keeps_a_template_in_the_other(pair):
    truth, positions = pair
    observation = observe(truth)
    valid = np.ones(observation.shape, bool)
    valid[0, 24:28, 22:27] = False
    template = Symmetric()(observation.replace(valid=valid), positions).templates[0]
    y, x = template.origin
    peaks = template.data[:, 26 - y, 24 - x] / truth[0, :, 26, 24]
    assert 0.4 < peaks[0] < 1.2
    assert abs(peaks[1] - 1) < 0.15


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 3), st.integers(0, 4), st.integers(0, 2**31))
def test_any_size_any_bands_any_number(height, width, bands, count, seed):
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-0.49, 0.49, (count, 2)) + rng.integers(0, (width, height), (count, 2))
    data = rng.normal(0, 1, (bands, height, width))
    y, x = np.mgrid[:height, :width]
    for a, b in positions:
        data += rng.uniform(5, 500) * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 6)
    valid = rng.random(data.shape) > 0.02
    observation = Observation(np.where(valid, data, 0), valid, np.ones(data.shape))
    for where in (None, positions):
        found = Symmetric(iterations=5)(observation, where)
        assert where is None or len(found.templates) == count
        for template in found.templates:
            y0, x0 = template.origin
            assert 0 <= y0 <= height - template.data.shape[1]
            assert 0 <= x0 <= width - template.data.shape[2]
            assert np.isfinite(template.data).all()
            assert (template.data >= 0).all()


def test_every_detected_pixel_is_given_to_someone(pair):
    truth, positions = pair
    observation = observe(truth)
    found = Symmetric()(observation, positions)
    total = np.zeros(observation.shape)
    for template in found.templates:
        y, x = template.origin
        total[:, y : y + template.data.shape[1], x : x + template.data.shape[2]] += template.data
    assert (total[:, found.segmentation > 0] > 0).all()
    assert (total[:, found.segmentation == 0] == 0).all()


def test_all_masked_fails_not():
    data = np.zeros((1, 20, 20))
    observation = Observation(data, valid=np.zeros(data.shape, bool))
    assert Symmetric()(observation).templates == ()
    assert not Symmetric()(observation, np.array([[3.0, 4.0]])).templates[0].data.any()


@pytest.mark.parametrize(
    ("option", "value"),
    [("iterations", -1), ("iterations", 2.0), ("tolerance", -1), ("smoothing", 99), ("grow", np.inf)],
)
def test_bad_options_are_named(option, value):
    with pytest.raises(InputError, match=f"{option}={value!r} must be"):
        Symmetric(**{option: value})


def test_the_monotone_operator_leaves_falling_profiles_alone():
    y, x = np.mgrid[-12:13, -12:13]
    cone = 20 - np.hypot(0.7 * x + 0.2 * y, y)[np.newaxis]
    # Linear interpolation between two pixels of a convex profile is never below it.
    assert np.allclose(monotone(cone), cone, atol=0.02)
    gaussian = np.exp(-(x**2 + y**2) / 18.0)[np.newaxis]
    assert np.allclose(monotone(gaussian), gaussian, atol=1e-2)


@given(st.integers(0, 9), st.integers(0, 2**31))
def test_the_monotone_operator_projects(radius, seed):
    template = np.random.default_rng(seed).normal(size=(2, 2 * radius + 1, 2 * radius + 1))
    before = template.copy()
    once = monotone(template)
    assert np.array_equal(template, before)
    assert (once <= template).all()
    assert np.allclose(monotone(once), once)
    # Along the axes and diagonals rays pass through pixels only.
    for line in (once[:, radius, radius:], once[:, radius:, radius], np.diagonal(once, 0, 1, 2)[:, radius:]):
        assert (np.diff(line) <= 1e-12).all()
