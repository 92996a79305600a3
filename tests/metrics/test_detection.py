"""Matching, completeness and purity, false detections."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrogan.exceptions import InputError
from astrogan.metrics import completeness_purity, false_detections, match_positions

_points = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=5)


def _best(truth, found, radius):
    """(number, total distance) of the best matching, by trying all."""
    best = (0, 0.0)
    if not (truth and found):
        return best
    swap = len(truth) > len(found)
    short, long = (found, truth) if swap else (truth, found)
    for chosen in itertools.permutations(range(len(long)), len(short)):
        d = [np.hypot(*np.subtract(s, long[c])) for s, c in zip(short, chosen, strict=True)]
        d = [v for v in d if v <= radius]
        best = max(best, (len(d), -sum(d)))
    return best


@settings(deadline=None, max_examples=60)
@given(truth=_points, found=_points, radius=st.floats(0.5, 8))
def test_hungarian_finds_the_best_matching(truth, found, radius):
    matches = match_positions(truth, found, radius=radius)
    number, total = _best(truth, found, radius)
    assert len(matches.truth) == number
    assert matches.distance.sum() == pytest.approx(-total, abs=1e-9)
    assert len(set(matches.truth)) == len(set(matches.found)) == number


@settings(deadline=None, max_examples=40)
@given(truth=_points, found=_points, radius=st.floats(0.5, 8))
def test_nearest_takes_the_nearest_pair_first(truth, found, radius):
    matches = match_positions(truth, found, radius=radius, method="nearest")
    assert (matches.distance <= radius).all()
    assert len(set(matches.truth)) == len(set(matches.found)) == len(matches.truth)
    if truth and found:
        nearest = min(np.hypot(*np.subtract(t, f)) for t in truth for f in found)
        assert (matches.distance.min(initial=np.inf) == pytest.approx(nearest)) == (nearest <= radius)


def test_methods_differ_where_they_should():
    truth, found = [(0, 0), (2, 0)], [(1.2, 0), (3, 0)]
    assert match_positions(truth, found, radius=1.5).found.tolist() == [0, 1]
    nearest = match_positions(truth, found, radius=1.5, method="nearest")
    assert (nearest.truth.tolist(), nearest.found.tolist()) == ([1], [0])


def test_many_sources_quickly_and_in_any_order():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0, 3000, (20_000, 2))
    order = rng.permutation(len(truth))
    found = truth[order] + rng.normal(scale=0.1, size=truth.shape)
    matches = match_positions(truth, found, radius=2.0)
    assert len(matches.truth) == len(truth)
    assert (order[matches.found] == matches.truth).mean() > 0.999
    np.testing.assert_array_equal(matches.truth, np.arange(len(truth)))


def test_completeness_and_purity():
    score = completeness_purity([(1, 1), (5, 5), (9, 9)], [(1, 1.5), (5.2, 5), (30, 30), (5, 5.4)], radius=1)
    assert (score.n_truth, score.n_found, score.n_matched) == (3, 4, 2)
    assert score.completeness == pytest.approx(2 / 3)
    assert score.purity == pytest.approx(0.5)
    empty = completeness_purity([], [], radius=1)
    assert np.isnan(empty.completeness)
    assert np.isnan(empty.purity)
    assert completeness_purity([], [(1, 1)], radius=1).purity == 0
    assert completeness_purity([(1, 1)], [], radius=1).completeness == 0


def test_false_detections_of_gaussian_noise():
    from scipy.stats import norm

    sky = np.random.default_rng(1).normal(size=(2, 1000, 1000))
    result = false_detections(sky, threshold=4.0)
    expected = 2e6 * norm.sf(4.0)
    assert result.sigma == pytest.approx(1, rel=0.01)
    assert result.n_pixels == 2_000_000
    assert abs(result.positive - expected) < 4 * np.sqrt(expected)
    assert abs(result.negative - expected) < 4 * np.sqrt(expected)
    assert false_detections(sky, threshold=5.0).positive <= 4


def test_false_detections_equal_photutils():
    from photutils.segmentation import detect_sources

    rng = np.random.default_rng(2)
    sky = rng.normal(size=(200, 200))
    for y, x in rng.integers(5, 195, (30, 2)):
        sky[y : y + rng.integers(1, 4), x : x + rng.integers(1, 4)] += 8
    for n in (1, 2, 4):
        found = detect_sources(sky, 5.0, n, connectivity=8)
        assert false_detections(sky, sigma=1.0, n_connected=n).positive == found.n_labels


def test_false_detections_mask_and_smoothing():
    sky = np.zeros((64, 64))
    sky[20, 20], sky[40, 40] = 100.0, -100.0
    mask = np.zeros(sky.shape, bool)
    mask[20, 20] = True
    assert false_detections(sky, sigma=1.0)[:2] == (1, 1)
    assert false_detections(np.where(mask, np.nan, sky), sigma=1.0, mask=mask)[:2] == (0, 1)
    # A Gaussian of FWHM 4 has a central value of 0.0552: 5.5 sigma and no more.
    assert false_detections(sky, sigma=1.0, fwhm=4.0)[:2] == (1, 1)
    assert false_detections(sky, sigma=1.0, fwhm=4.0, threshold=5.6)[:2] == (0, 0)


def test_errors():
    for bad in (0, -1, np.nan, [1, 2]):
        with pytest.raises(InputError, match="radius"):
            match_positions([(0, 0)], [(0, 0)], radius=bad)
    with pytest.raises(InputError, match="method='x'"):
        match_positions([(0, 0)], [(0, 0)], radius=1, method="x")
    with pytest.raises(InputError, match="truth has shape"):
        match_positions((0, 0), [(0, 0)], radius=1)
    with pytest.raises(InputError, match="n_connected"):
        false_detections(np.zeros((9, 9)), n_connected=0)
    with pytest.raises(InputError, match="threshold"):
        false_detections(np.zeros((9, 9)), threshold=-5)
