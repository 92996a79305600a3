"""Cards and tensors of every kind, with right checksums and with wrong ones: weights, or a `CheckpointError`."""

import json
import random
import sys

import pytest
from fuzz_targets import change_json, change_tensors, load_file, weight_seed
from hypothesis import given, settings
from hypothesis import strategies as st

from astrogan.exceptions import CheckpointError
from astrogan.weights import Weights, validate_card
from astrogan.weights.card import parse_card

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
seeds = st.integers(0, 2**32).map(random.Random)


def good():
    card, tensors = weight_seed()
    return json.dumps(card).encode(), tensors


def expect(found):
    assert isinstance(found, Weights | CheckpointError), repr(found)


def test_the_good_ones_are_good():
    assert isinstance(load_file(*good()), Weights)


@settings(max_examples=150)
@given(seeds, st.integers(1, 3), st.booleans())
def test_changed_cards(rng, count, sealed):
    card, tensors = weight_seed()
    for _ in range(count):
        card = change_json(card, rng)
    expect(load_file(json.dumps(card).encode(), tensors, sealed=sealed))


@settings(max_examples=100)
@given(st.sampled_from(sorted(validate_card(weight_seed()[0]))), json_values)
def test_cards_with_any_value_for_a_key(key, value):
    card, tensors = weight_seed()
    expect(load_file(json.dumps(card | {key: value}).encode(), tensors))


@settings(max_examples=40)
@given(json_values)
def test_cards_that_are_any_json(value):
    expect(load_file(json.dumps(value).encode(), weight_seed()[1]))


@settings(max_examples=150)
@given(seeds, st.integers(1, 3))
def test_changed_headers_of_tensors(rng, count):
    """Lying offsets, huge shapes, other types, with a card whose checksum is right."""
    card, tensors = good()
    for _ in range(count):
        try:
            tensors = change_tensors(tensors, rng)
        except (ValueError, TypeError):  # a header that lies about its length cannot be changed again
            break
    expect(load_file(card, tensors))


@settings(max_examples=80)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=4), st.booleans())
def test_turned_bits(flips, in_card):
    card, tensors = map(bytearray, good())
    for place, bit in flips:
        target = card if in_card else tensors
        target[int(place * len(target))] ^= 1 << bit
    expect(load_file(bytes(card), bytes(tensors)))


@settings(max_examples=40)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes(card, tensors):
    expect(load_file(card, tensors, sealed=False))
    expect(load_file(good()[0], tensors))


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_cards(opening):
    """One that the parser could just follow was too deep for the writer that compares it: a RecursionError."""
    closing = "]" if opening == "[" else "}"
    limit = sys.getrecursionlimit()
    for depth in (20, 100, *range(limit // 2, limit + 10), 10 * limit, 100 * limit):
        text = f'{{"name": {opening * depth}1{closing * depth}}}'
        with pytest.raises(CheckpointError, match="card 'x'"):
            parse_card(text.encode(), "x")
