"""Grouping sources into blends, and solving blends one at a time: nothing depends on order, workers or neighbours."""

import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrogan.api import Blend, Observation, Separation, Template
from astrogan.exceptions import AstroganWarning, BackendError, InputError
from astrogan.image.blends import group_blends, solve_blends


def observation(labels, bands=2, seed=0, **fields):
    data = np.random.default_rng(seed).normal(10, 1, (bands, *np.shape(labels)))
    return Observation(data, variance=np.ones(data.shape), **fields)


def centres(labels):
    """The mean (x, y) of each label."""
    return np.array([np.argwhere(labels == i + 1).mean(axis=0)[::-1] for i in range(np.max(labels))])


def squares(shape, corners, size=3):
    labels = np.zeros(shape, int)
    for i, (y, x) in enumerate(corners):
        labels[y : y + size, x : x + size] = i + 1
    return labels


# Two that touch along an edge, one that touches them at a corner, one beyond a gap of a pixel, one at the border.
LABELS = squares((24, 30), [(6, 5), (6, 8), (9, 11), (6, 12), (21, 27)])
POSITIONS = centres(LABELS)


class Segments:
    """Templates: the image on the source's own pixels; noise of its own generator in ``variance``."""

    name = "segments"
    margin = 2

    def __init__(self, labels=LABELS, positions=POSITIONS):
        self.labels, self.positions = labels, positions
        self.seen = []

    def detect(self, observation, positions):
        if positions is None:
            return SimpleNamespace(labels=self.labels, positions=self.positions)
        known = {tuple(p): i + 1 for i, p in enumerate(self.positions)}
        labels = np.zeros_like(self.labels)
        for i, position in enumerate(positions):
            labels[self.labels == known[tuple(position)]] = i + 1
        return SimpleNamespace(labels=labels, positions=positions, info={"weights": "none"})

    def separate(self, blend, *, rng):
        self.seen.append(blend)
        noise = rng.uniform(size=blend.observation.shape)
        return tuple(
            Template((0, 0), np.maximum(blend.observation.data, 0) * (blend.labels == j + 1), tuple(p), variance=noise)
            for j, p in enumerate(blend.positions)
        )


# ---- grouping --------------------------------------------------------------------------------------------------------


def test_sources_that_touch_are_a_blend():
    groups = group_blends(observation(LABELS), POSITIONS, LABELS)
    assert [members.tolist() for _, members, _ in groups] == [[0, 1, 3, 2], [4]]
    assert [origin for _, _, origin in groups] == [(2, 1), (17, 23)]
    for blend, members, (y, x) in groups:
        assert isinstance(blend, Blend)
        assert np.allclose(blend.positions + (x, y), POSITIONS[members])
        for j, i in enumerate(members):
            assert np.array_equal(np.argwhere(blend.labels == j + 1) + (y, x), np.argwhere(i + 1 == LABELS))


def test_cut_outs_have_the_margin_and_end_with_the_image():
    image = observation(LABELS, psf=np.ones((2, 1, 1)), pixel_scale=0.2, bands=2)
    for margin in (0, 1, 7):
        (first, _, _), (last, _, origin) = group_blends(image, POSITIONS, LABELS, margin)
        top, left = max(6 - margin, 0), max(5 - margin, 0)
        assert first.labels.shape == (min(12 + margin, 24) - top, min(15 + margin, 30) - left)
        assert last.labels.shape == (3 + margin, 3 + margin)
        assert origin == (21 - margin, 27 - margin)
        assert first.observation.psf is not None
        assert first.observation.pixel_scale == 0.2
        assert np.array_equal(first.observation.variance, np.ones(first.observation.shape))


def test_a_cut_out_hides_other_blends():
    labels = squares((9, 12), [(3, 2), (3, 6)])
    image = observation(labels)
    data = np.array(image.data)
    data[:, labels == 2] = 1e6
    (left, _, (y, x)), _ = group_blends(image.replace(data=data), centres(labels), labels, margin=4)
    other = labels[y : y + left.labels.shape[0], x : x + left.labels.shape[1]] == 2
    assert other.any()
    assert not left.observation.valid[:, other].any()
    assert left.observation.valid[:, ~other].all()
    assert left.observation.data.max() < 20
    assert not left.labels[other].any()


def test_invalid_pixels_stay_invalid_and_a_band_without_a_valid_one_does_not_matter():
    labels = squares((9, 12), [(3, 2), (3, 6)])
    valid = np.ones((2, 9, 12), bool)
    valid[0, :, :6] = False
    valid[1, 4, 3] = False
    (left, _, (y, x)), _ = group_blends(observation(labels, valid=valid), centres(labels), labels, margin=1)
    assert not left.observation.valid[0].any()
    assert not left.observation.valid[1, 4 - y, 3 - x]
    assert np.isfinite(left.observation.data).all()


def test_a_source_without_pixels_gets_its_own_or_joins_whose_it_lies_on():
    labels = squares((20, 20), [(2, 2)])
    positions = [(3, 3), (3.2, 3.4), (12, 12), (12.2, 12.1), (16, 12)]
    groups = group_blends(observation(labels), positions, labels)
    assert [members.tolist() for _, members, _ in groups] == [[0, 1], [2, 3], [4]]
    pair = groups[1][0]
    assert np.bincount(pair.labels.ravel()).tolist()[1:] == [1]  # one pixel for two
    assert np.argwhere(groups[2][0].labels == 1).tolist() == [[4, 4]]


def test_a_torn_label_holds_its_blend_together():
    labels = squares((10, 30), [(3, 2), (3, 12), (3, 22)])
    labels[labels == 3] = 1
    groups = group_blends(observation(labels), [(3, 4), (13, 4)], labels)
    assert [members.tolist() for _, members, _ in groups] == [[0], [1]]
    assert groups[0][0].labels.shape[1] == 29  # from one piece to the other
    labels[3, 14:23] = 1
    assert len(group_blends(observation(labels), [(3, 4), (13, 4)], labels)) == 1


@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    count=st.integers(0, 12),
    margin=st.integers(0, 5),
    seed=st.integers(0, 2**31),
)
def test_every_source_is_in_one_blend_and_no_two_blends_touch(shape, count, margin, seed):
    from scipy.ndimage import grey_dilation

    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, int)
    positions = rng.uniform(-0.5, 0.5, (count, 2)) + rng.integers(0, shape[::-1], (count, 2))
    for i, (x, y) in enumerate(np.floor(positions + 0.5).astype(int)):
        size = rng.integers(0, 5)
        labels[y : y + size, x : x + size] = i + 1
    groups = group_blends(observation(labels), positions, labels, margin)
    assert sorted(i for _, members, _ in groups for i in members) == list(range(count))
    number = np.zeros(shape, int)
    first = []
    for k, (blend, members, (y, x)) in enumerate(groups):
        height, width = blend.labels.shape
        assert 0 <= y <= shape[0] - height
        assert 0 <= x <= shape[1] - width
        inside = (blend.positions >= -0.5) & (blend.positions < (width - 0.5, height - 0.5))
        assert inside.all()
        lit = blend.labels > 0
        assert not number[y : y + height, x : x + width][lit].any()
        number[y : y + height, x : x + width][lit] = k + 1
        assert np.array_equal(members, members[np.lexsort(positions[members].T)])
        first.append(np.flatnonzero(number == k + 1)[0])
        assert blend.observation.valid[:, lit].all()
    assert first == sorted(first)
    assert ((number > 0) >= (labels > 0)).all()
    spread = grey_dilation(number, size=(3, 3))
    assert (spread[number > 0] == number[number > 0]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((3, 3), int)}, r"labels has shape \(3, 3\)"),
        ({"labels": LABELS.astype(float)}, "dtype float64; it must be integers"),
        ({"positions": POSITIONS[:3]}, "labels run from 0 to 5; there are 3 positions"),
        ({"labels": -LABELS}, "labels run from -5 to 0"),
        ({"margin": -1}, "margin=-1 must be"),
        ({"positions": POSITIONS * np.nan}, "not all finite"),
    ],
)
def test_what_does_not_agree_is_named(change, message):
    arguments = {"positions": POSITIONS, "labels": LABELS} | change
    with pytest.raises(InputError, match=message):
        group_blends(observation(LABELS), **arguments)


# ---- solving ---------------------------------------------------------------------------------------------------------


def solve(backend, positions=POSITIONS, image=None, **options):
    image = observation(LABELS) if image is None else image
    return solve_blends(backend, image, positions, rng=np.random.default_rng(3), **options)


def same(one, other):
    fields = ("origin", "position", "flags")
    arrays = ("data", "variance", "flux_variance")
    return all(getattr(one, f) == getattr(other, f) for f in fields) and all(
        np.array_equal(getattr(one, a), getattr(other, a)) for a in arrays
    )


def test_templates_come_back_in_the_image():
    image = observation(LABELS)
    result = solve(Segments(), image=image)
    assert isinstance(result, Separation)
    assert np.array_equal(result.segmentation, LABELS)
    assert result.info == {"weights": "none", "blends": 2, "largest_blend": 4}
    total = np.zeros(image.shape)
    for i, template in enumerate(result.templates):
        (y, x), (_, height, width) = template.origin, template.data.shape
        assert template.position == tuple(POSITIONS[i])
        total[:, y : y + height, x : x + width] += template.data
    assert np.allclose(total, image.data * (LABELS > 0))


def test_neither_workers_nor_the_order_of_positions_change_a_bit():
    straight = solve(Segments())
    for workers in (1, 2, 4, None):
        other = solve(Segments(), workers=workers)
        assert all(map(same, straight.templates, other.templates))
    order = [3, 0, 4, 2, 1]
    shuffled = solve(Segments(), POSITIONS[order])
    for k, i in enumerate(order):
        assert same(shuffled.templates[k], straight.templates[i])
        assert np.array_equal(shuffled.segmentation == k + 1, straight.segmentation == i + 1)


def test_detected_sources_are_those_of_the_same_positions():
    assert all(map(same, solve(Segments(), None).templates, solve(Segments()).templates))


def test_a_shift_by_whole_pixels_is_followed():
    labels, shift = np.roll(LABELS, (-3, -3), axis=(0, 1)), np.array([-3.0, -3.0])
    image = observation(LABELS)
    valid = np.random.default_rng(1).random(image.shape) > 0.1
    here = solve(Segments(), image=image.replace(valid=valid))
    data, valid = (np.roll(a, (-3, -3), axis=(1, 2)) for a in (image.data, valid))
    there = solve(Segments(labels, POSITIONS + shift), POSITIONS + shift, Observation(data, valid))
    for one, other in zip(here.templates, there.templates, strict=True):
        _, height, width = one.data.shape
        assert np.array_equal(one.data, other.data[:, :height, :width])  # the fifth has less context at the border
        assert np.subtract(other.origin, one.origin).tolist() == [-3, -3]
        assert np.allclose(np.subtract(other.position, one.position), shift)


def test_no_positions_need_no_backend():
    result = solve(object(), np.empty((0, 2)))
    assert result.templates == ()
    assert not result.segmentation.any()
    nothing = Segments(np.zeros_like(LABELS), np.empty((0, 2)))
    assert solve(nothing, None).info == {"blends": 0, "largest_blend": 0}


def test_each_blend_has_the_psf_of_its_place():
    def psf_at(x, y):
        return np.stack([[[x / 100, 0, 0], [0, 1 - x / 100 - y / 100, 0], [0, 0, y / 100]]] * 2)

    backend = Segments()
    solve(backend, psf_at=psf_at)
    first, second = backend.seen
    assert np.allclose([first.observation.psf[0, 0, 0], first.observation.psf[0, 2, 2]], [0.095, 0.085])
    assert second.observation.psf[0, 0, 0] > 0.25


def test_progress_counts_sources_in_the_calling_thread():
    seen = []

    def progress(done, total):
        seen.append((done, total, threading.current_thread() is threading.main_thread()))

    for workers in (1, 3):
        seen.clear()
        solve(Segments(), workers=workers, progress=progress)
        assert seen[-1] == (5, 5, True)
        assert len(seen) == 2


def test_small_blends_get_what_a_backend_needs():
    backend = Segments()
    backend.min_size = 15
    solve(backend)
    assert all(min(blend.labels.shape) >= 15 for blend in backend.seen)


@pytest.mark.parametrize("error", [np.linalg.LinAlgError("singular"), FloatingPointError("underflow")])
@pytest.mark.parametrize("variance", [True, False])
def test_a_numerical_error_costs_one_blend_not_the_field(error, variance):
    class Fragile(Segments):
        def separate(self, blend, *, rng):
            if len(blend.positions) > 1:
                raise error
            return super().separate(blend, rng=rng)

    image = observation(LABELS)
    image = image if variance else Observation(image.data)
    with pytest.warns(AstroganWarning, match=f"'segments' failed on 1 of 2 blends.*{error}") as caught:
        result = solve(Fragile(), image=image, workers=2)
    assert len(caught) == 1
    assert [t.flags for t in result.templates] == [Template.FAILED] * 4 + [0]
    assert result.info["failed_blends"] == 1
    for i, template in enumerate(result.templates[:4]):
        (y, x), (_, height, width) = template.origin, template.data.shape
        inside = LABELS[y : y + height, x : x + width] == i + 1
        assert np.allclose(template.data, image.data[:, y : y + height, x : x + width] * inside)
        assert template.position == tuple(POSITIONS[i])


def test_stand_ins_for_sources_without_pixels_and_without_light():
    class Fails(Segments):
        def detect(self, observation, positions):
            return SimpleNamespace(labels=np.zeros((6, 6), int), positions=positions)

        def separate(self, blend, *, rng):
            raise ZeroDivisionError("0")

    image = Observation(-np.ones((1, 6, 6)))
    with pytest.warns(AstroganWarning, match="failed on 1 of 1"):
        result = solve(Fails(), np.array([(3.0, 3.0), (3.2, 3.1)]), image)
    one, other = result.templates
    assert one.data.shape == other.data.shape == (1, 1, 1)
    assert one.data > 0
    assert other.data == 0


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("x"), MemoryError()])
def test_other_errors_are_the_backends(error):
    class Buggy(Segments):
        def separate(self, blend, *, rng):
            raise error

    for workers in (1, 2):
        with pytest.raises(type(error)):
            solve(Buggy(), workers=workers)


@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("detect", None, "detect returned NoneType; it must have labels and positions"),
        ("detect", SimpleNamespace(labels=LABELS[1:], positions=POSITIONS), r"labels of shape \(23, 30\)"),
        ("detect", SimpleNamespace(labels=LABELS * 1.0, positions=POSITIONS), "dtype float64"),
        ("detect", SimpleNamespace(labels=LABELS, positions=POSITIONS[:3]), "labels from 0 to 5 for 3 positions"),
        ("detect", SimpleNamespace(labels=LABELS * 0, positions=POSITIONS[:3]), "returned 3 positions for 5"),
        ("separate", (), "separate returned 0 objects for 4 positions"),
        ("separate", None, "separate returned 1 objects for 4 positions"),
        ("separate", (1, 2, 3, 4), "it must return a Template for each"),
    ],
)
def test_a_backend_that_returns_something_else_is_named(method, value, message):
    backend = Segments()
    setattr(backend, method, lambda *args, **keywords: value)
    with pytest.raises(BackendError, match=message):
        solve(backend)


def test_workers_are_checked():
    for bad in (0, 1.5, True):
        with pytest.raises(InputError, match=f"workers={bad}"):
            solve(Segments(), workers=bad)


def test_nothing_warns_or_writes_to_the_image():
    image = observation(LABELS)
    before = image.data.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(Segments(), image=image)
    assert np.array_equal(image.data, before)
    backend = Segments()
    solve(backend)
    with pytest.raises(ValueError, match="read-only"):
        backend.seen[0].labels[0, 0] = 1
    with pytest.raises(ValueError, match=r"labels has shape \(2, 2\)"):
        Blend(image, POSITIONS, np.zeros((2, 2)))
