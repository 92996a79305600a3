"""Hard segments: detection, markers, order, masks, sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrogan.api import Observation
from astrogan.backends.builtin import astrogan_backends
from astrogan.backends.classic._detection import Detector
from astrogan.backends.classic.watershed import Watershed
from astrogan.exceptions import InputError
from astrogan.testing import check_backend


def gaussians(sources, shape, sigma=1.8):
    """Pixel values of round Gaussians, (flux, x, y) each."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return sum(
        f / (2 * np.pi * sigma**2) * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * sigma**2)) for f, a, b in sources
    )


def observe(scene, noise=1.0, seed=0, bands=1, **fields):
    """A noisy observation of a scene, the same in all bands."""
    rng = np.random.default_rng(seed)
    data = scene + rng.normal(0, noise, (bands, *scene.shape))
    return Observation(data, variance=np.full(data.shape, noise**2), **fields)


PAIR = [(3000, 20.3, 22.6), (1500, 28.1, 20.2)]


def test_contract():
    check_backend(next(s for s in astrogan_backends() if s.name == "watershed"))


def test_detects_a_blended_pair_and_places_it():
    found = Watershed()(observe(gaussians(PAIR, (45, 50))))
    positions = np.array([t.position for t in found.templates])
    assert len(positions) == 2
    positions = positions[np.argsort(positions[:, 0])]
    assert np.hypot(*(positions - np.array(PAIR)[:, 1:]).T).max() < 0.15


@pytest.mark.parametrize("positions", [None, np.array(PAIR)[:, 1:]])
def test_each_pixel_has_one_owner(positions):
    found = Watershed()(observe(gaussians(PAIR, (45, 50)), bands=3), positions)
    owners = np.zeros((45, 50), int)
    for i, template in enumerate(found.templates):
        y, x = template.origin
        _, height, width = template.data.shape
        lit = template.data > 0
        assert (lit == lit[0]).all()  # in all bands alike
        window = (slice(y, y + height), slice(x, x + width))
        assert np.array_equal(lit[0], found.segmentation[window] == i + 1)
        owners[window] += lit[0]
    assert owners.max() == 1
    assert np.array_equal(owners > 0, found.segmentation > 0)


def test_order_of_positions_is_kept_and_does_not_matter():
    observation = observe(gaussians([*PAIR, (40, 8.0, 8.0)], (45, 50)))
    positions = np.array([*np.array(PAIR)[:, 1:], (8.0, 8.0)])
    forward = Watershed()(observation, positions)
    for order in ([2, 0, 1], [1, 2, 0]):
        shuffled = Watershed()(observation, positions[order])
        for template, i in zip(shuffled.templates, order, strict=True):
            assert template.position == forward.templates[i].position
            assert template.origin == forward.templates[i].origin
            assert np.array_equal(template.data, forward.templates[i].data)


def test_positions_in_one_pixel_both_get_pixels():
    observation = observe(gaussians(PAIR, (45, 50)))
    found = Watershed()(observation, np.array([[20.1, 22.9], [20.4, 23.2], [19.9, 22.7]]))
    assert np.bincount(found.segmentation.ravel(), minlength=4)[1:].min() >= 1


def test_a_faint_source_that_is_not_detected_keeps_a_disk():
    observation = observe(np.zeros((40, 40)))
    found = Watershed(grow=0.0)(observation, np.array([[10.0, 12.0]]))
    rows, columns = np.nonzero(found.segmentation)
    assert len(rows) == 9
    assert np.hypot(columns - 10, rows - 12).max() < 1.5


def test_a_detected_source_that_no_position_claims_stays_unclaimed():
    observation = observe(gaussians([(3000, 12, 20), (3000, 38, 20)], (40, 50)))
    found = Watershed()(observation, np.array([[12.0, 20.0]]))
    assert found.segmentation[20, 12] == 1
    assert found.segmentation[20, 38] == 0


def test_isophotal_without_growing():
    observation = observe(gaussians([(3000, 20, 20)], (41, 41)))
    areas = [np.count_nonzero(Watershed(grow=g)(observation).segmentation) for g in (0.0, 2.0, 5.0)]
    assert areas[0] < areas[1] < areas[2]


def test_bands_count_by_their_noise_whatever_their_unit():
    scene = gaussians(PAIR, (45, 50))
    plain = observe(scene, bands=2)
    factor = np.array([1.0, 1e6])[:, None, None]
    mixed = plain.replace(data=plain.data * factor, variance=plain.variance * factor**2)
    assert np.array_equal(Watershed()(plain).segmentation, Watershed()(mixed).segmentation)


def test_more_bands_find_fainter_sources():
    scene = gaussians([(42, 20, 20)], (41, 41))
    found = [sum(len(Watershed()(observe(scene, seed=s, bands=n)).templates) for s in range(10)) for n in (1, 5)]
    assert found[0] < found[1]
    assert found[1] >= 9


def test_noise_alone_gives_nothing():
    found = [Watershed()(observe(np.zeros((200, 200)), seed=s, bands=2)) for s in range(3)]
    assert [len(f.templates) for f in found] == [0, 0, 0]
    assert not found[0].segmentation.any()


@pytest.mark.parametrize("level", [0.0, 100.0])
def test_a_constant_image_holds_no_source(level):
    data = np.full((1, 60, 60), level)
    assert Watershed()(Observation(data)).templates == ()
    assert Watershed()(Observation(data, variance=np.ones(data.shape))).templates == ()


def test_the_sky_level_does_not_matter_for_detection():
    observation = observe(gaussians(PAIR, (90, 100)))
    raised = observation.replace(data=observation.data + 500)
    assert len(Watershed()(raised).templates) == len(Watershed()(observation).templates) == 2


def test_noise_is_measured_where_no_variance_is_given():
    observation = observe(gaussians(PAIR, (90, 100)), noise=0.01)
    assert len(Watershed()(observation.replace(variance=None)).templates) == 2


def test_masked_values_are_not_read():
    observation = observe(gaussians(PAIR, (45, 50)))
    valid = np.ones(observation.shape, bool)
    valid[:, 20:23, 24:30] = False
    outcomes = []
    for value in (0.0, 1e4):
        data = np.where(valid, observation.data, value)
        found = Watershed()(observation.replace(data=data, valid=valid))
        outcomes.append(found)
        assert not found.segmentation[20:23, 24:30].any()
    assert np.array_equal(outcomes[0].segmentation, outcomes[1].segmentation)
    for one, other in zip(*(o.templates for o in outcomes), strict=True):
        assert np.array_equal(one.data, other.data)


def test_all_masked_gives_nothing_and_fails_not():
    data = np.zeros((2, 20, 20))
    observation = Observation(data, valid=np.zeros(data.shape, bool))
    assert Watershed()(observation).templates == ()
    assert len(Watershed()(observation, np.array([[3.0, 4.0]])).templates) == 1


def test_a_band_without_a_valid_pixel_is_left_out():
    observation = observe(gaussians(PAIR, (45, 50)), bands=2)
    valid = np.ones(observation.shape, bool)
    valid[1] = False
    found = Watershed()(observation.replace(valid=valid))
    alone = Watershed()(observation.crop(slice(None), slice(None)).replace(valid=valid))
    assert len(found.templates) == 2
    assert np.array_equal(found.segmentation, alone.segmentation)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 3), st.integers(0, 4), st.integers(0, 2**31))
def test_any_size_any_bands_any_number(height, width, bands, count, seed):
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 1, (count, 2)) * (width - 1, height - 1)
    scene = gaussians([(rng.uniform(50, 5000), x, y) for x, y in positions] or [(0, 0, 0)], (height, width))
    observation = observe(scene, seed=seed, bands=bands)
    for where in (None, positions):
        found = Watershed()(observation, where)
        assert where is None or len(found.templates) == count
        assert found.segmentation.shape == (height, width)
        assert found.segmentation.max(initial=0) <= len(found.templates)
        for template in found.templates:
            assert (template.data >= 0).all()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("threshold", 0),
        ("threshold", np.nan),
        ("threshold", "high"),
        ("min_area", 0),
        ("min_area", 2.5),
        ("levels", 0),
        ("contrast", 1.5),
        ("contrast", -0.1),
        ("grow", -1),
        ("grow", True),
    ],
)
def test_bad_options_are_named(option, value):
    with pytest.raises(InputError, match=f"{option}={value!r} must be"):
        Watershed(**{option: value})


def test_centres_are_good_to_a_twentieth_of_a_pixel_on_bright_sources():
    worst = 0
    for dx in (-0.45, -0.2, 0.1, 0.35):
        scene = gaussians([(1e5, 20 + dx, 20 - dx)], (41, 41))
        position = Detector()(observe(scene)).positions[0]
        worst = max(worst, np.abs(position - (20 + dx, 20 - dx)).max())
    assert worst < 0.05
