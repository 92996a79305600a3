"""Files of images with every kind of damage: an image comes out, or an error that astrogan raises on purpose."""

import gzip
import tracemalloc

import pytest
from fuzz_targets import BLOCK, KEYWORDS, OPTIONS, VALUES, image_seeds, read_file, set_card
from hypothesis import given, settings
from hypothesis import strategies as st

from astrogan.exceptions import AstroganError, ImageReadError
from astrogan.image.read import read_bands

FITS = [name for name, data in image_seeds().items() if data.startswith(b"SIMPLE")]
PICTURES = ["JPEG", "PNG", "TIFF"]

edits = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(KEYWORDS), st.sampled_from(VALUES)), min_size=1, max_size=4
)
options = st.sampled_from(OPTIONS)


def edited(data, edits):
    for hdu, keyword, value in edits:
        data = set_card(data, hdu, keyword, value)
    return data


def peak(function):
    """The largest memory that was held during a call, in bytes, and what it returned."""
    tracemalloc.start()
    try:
        found = function()
        return tracemalloc.get_traced_memory()[1], found
    finally:
        tracemalloc.stop()


def test_the_good_files_are_good():
    for name, data in image_seeds().items():
        assert not isinstance(read_file(data), AstroganError), name


def test_a_card_is_set_where_it_is_and_else_added():
    data = set_card(image_seeds()["image"], 0, "NAXIS1", "10")
    assert b"NAXIS1  =                   10" in data[:BLOCK]
    assert data.count(b"NAXIS1  =") == image_seeds()["image"].count(b"NAXIS1  =")
    data = set_card(data, 1, "BLANK", "7")
    assert b"BLANK   =                    7" in data
    assert len(data) % BLOCK == 0


@settings(max_examples=250)
@given(st.sampled_from(FITS), edits, options)
def test_changed_cards(name, edits, options):
    """Lying NAXIS, BITPIX, BSCALE, TFORM, ZTILE ... in any of the HDUs."""
    read_file(edited(image_seeds()[name], edits), options)


@settings(max_examples=60)
@given(st.sampled_from(["bands", "image", "quantized"]), edits)
def test_changed_cards_of_bands(name, edits):
    read_file(edited(image_seeds()[name], edits), {"unit": "adu"}, read_bands)


@settings(max_examples=40)
@given(st.sampled_from(FITS), edits)
def test_no_claim_costs_memory(name, edits):
    """100,000 pixels of 8 bytes and their masks are a few megabytes, whatever the header claims."""
    data = edited(image_seeds()[name], edits)
    read_file(data)  # imports are not counted
    memory, _ = peak(lambda: read_file(data))
    assert memory < 30e6


@settings(max_examples=60)
@given(st.sampled_from(["image", "bands"]), st.permutations(range(6)), st.integers(0, 5), options)
def test_hdus_in_another_order_missing_or_twice(name, order, count, options):
    data = image_seeds()[name]
    starts = [i for i in range(0, len(data), BLOCK) if data[i : i + 9] in (b"SIMPLE  =", b"XTENSION=")]
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    body = b"".join(parts[i % len(parts)] for i in order[:count])
    read_file(parts[0] + body, options)
    read_file(body, options)


damage = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8)


def damaged(data, damage, cut):
    data = bytearray(data)
    for place, byte in damage:
        data[int(place * len(data))] = byte
    return bytes(data[: int(cut * len(data))])


@settings(max_examples=150)
@given(st.sampled_from([*FITS, "gz", *PICTURES]), damage, st.floats(0.5, 1) | st.just(1.0), options)
def test_changed_bytes_and_early_ends(name, damage, cut, options):
    read_file(damaged(image_seeds()[name], damage, cut), options)


@settings(max_examples=40)
@given(st.sampled_from(FITS), edits, damage)
def test_packed_files(name, edits, damage):
    packed = gzip.compress(edited(image_seeds()[name], edits), 1, mtime=0)
    read_file(packed)
    read_file(damaged(packed, damage, 1.0))


@pytest.mark.parametrize("keyword", ["NAXIS1", "PCOUNT", "GCOUNT"])
def test_packed_files_that_claim_and_hold_much(keyword):
    """A small packed file of a hundred megabytes of zeros."""
    data = set_card(image_seeds()["doubles"], 0, keyword, "1000000")
    packed = gzip.compress(data + bytes(10**8), 1, mtime=0)
    memory, found = peak(lambda: read_file(packed))
    assert isinstance(found, ImageReadError) or keyword != "NAXIS1"
    assert memory < 30e6


# ---- what was found ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hdu", [0, 2], ids=["image", "uncertainty"])
@pytest.mark.parametrize("unit", ["1PB(99999999)", "1e300 nmgy"])
def test_units_beyond_any_number(hdu, unit):
    """Powers and factors that no float holds ended in OverflowError when they were converted."""
    data = set_card(set_card(image_seeds()["image"], 0, "BUNIT", "'1e300 adu'"), hdu, "BUNIT", f"'{unit}'")
    for options in ({}, {"unit": "adu"}):
        read_file(data, options)


def test_a_window_of_a_cube_whose_wcs_has_two_axes():
    """It ended in a ValueError of astropy."""
    image = read_file(image_seeds()["cube"], {"unit": "adu", "section": (slice(1, 4), slice(2, 5))})
    assert image.shape == (3, 3, 3)
    assert image.wcs.naxis == 3
    assert image.wcs.celestial.wcs.crpix.tolist() == [3.0, 4.0]
