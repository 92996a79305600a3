"""Metrics of separated sources, from their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrogan.exceptions import InputError
from astrogan.metrics import (
    blendedness,
    colour_error,
    conservation_error,
    cosine_similarity,
    flux_error,
    intersection_over_union,
)


@pytest.fixture
def source():
    return np.random.default_rng(1).random((3, 12, 13))


def test_flux_error(source):
    np.testing.assert_allclose(
        flux_error(source, source * np.array([1, 0.9, 1.2])[:, None, None]), [0, -0.1, 0.2], atol=1e-12
    )
    assert flux_error(source[0], 2 * source[0]) == pytest.approx(1.0)
    assert np.isnan(flux_error(0 * source[0], source[0]))


def test_colour_error_is_in_magnitudes_and_blind_to_a_common_factor(source):
    np.testing.assert_allclose(colour_error(source, 3 * source), [0, 0], atol=1e-12)
    tinted = source * np.array([1, 10 ** (-0.4 * 0.3), 1])[:, None, None]
    np.testing.assert_allclose(colour_error(source, tinted), [-0.3, 0.3], atol=1e-12)
    assert np.isnan(colour_error(source, -source)).all()


@settings(deadline=None, max_examples=20)
@given(factor=st.floats(1e-3, 1e3))
def test_cosine(factor):
    a, b = np.random.default_rng(2).normal(size=(2, 9, 9))
    expected = np.dot(a.ravel(), b.ravel()) / np.linalg.norm(a) / np.linalg.norm(b)
    assert cosine_similarity(a, factor * b) == pytest.approx(expected, abs=1e-12)
    assert cosine_similarity(a, factor * a) == pytest.approx(1.0)
    assert np.isnan(cosine_similarity(a, 0 * a))


def test_blendedness(source):
    np.testing.assert_allclose(blendedness(source, source), 0, atol=1e-12)
    np.testing.assert_allclose(blendedness(source, 4 * source), 0.75)


def test_conservation(source):
    assert conservation_error(source, [0.25 * source, 0.75 * source]) < 1e-15
    leak = source.copy()
    leak[0, 0, 0] -= 0.01 * source.max()
    assert conservation_error(source, [leak]) == pytest.approx(0.01)
    assert conservation_error(0 * source, [0 * source]) == 0
    mask = np.zeros(source.shape, bool)
    mask[0, 0, 0] = True
    assert conservation_error(source, [np.where(mask, np.nan, source)], mask=mask) == 0


def test_intersection_over_union():
    a = np.zeros((4, 4), bool)
    a[:2] = True
    assert intersection_over_union(a, a) == 1
    assert intersection_over_union(a, ~a) == 0
    assert intersection_over_union(a, a.T) == pytest.approx(4 / 12)
    assert np.isnan(intersection_over_union(a & ~a, a & ~a))


def test_errors(source):
    with pytest.raises(InputError, match="colours need"):
        colour_error(source[0], source[0])
    with pytest.raises(InputError, match="a part has shape"):
        conservation_error(source, [source[0]])
    with pytest.raises(InputError, match="found has shape"):
        intersection_over_union(np.zeros((2, 2), bool), np.zeros(2, bool))
