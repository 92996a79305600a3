"""The split is by object, the same everywhere, and does not move."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrogan.exceptions import InputError
from astrogan.train.split import PARTS, fold_of, object_name, part_of, split_names

NAMES = [f"object {i}" for i in range(4000)]


def test_fixed_names_stay_where_published_results_have_them():
    parts = {part: [n for n in range(100018, 100030) if part_of(str(n)) == part] for part in PARTS[1:]}
    assert parts == {"validation": [100020, 100021, 100022], "test": [100024, 100028]}
    assert [fold_of(str(n), 10) for n in range(100018, 100024)] == [5, 9, 1, 1, 1, 6]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("100008.jpg", "100008"),
        ("gal001.fits", "gal001"),
        ("gal001.fits.fz", "gal001"),
        ("NGC0001.SDSS.fits.gz", "NGC0001"),
        ("J0102+1.5.fits", "J0102+1.5"),
        (".hidden.png", ".hidden"),
        ("no suffix", "no suffix"),
    ],
)
def test_object_of_a_file(file, name):
    assert object_name(file) == name


def test_object_of_a_file_by_an_expression():
    assert object_name("stamp-g-1.5-2.fits", r"stamp-[gr]-(.+)\.fits") == "1.5-2"
    for pattern, message in (("galaxy-(.+)", "does not fit"), ("stamp-(x)?", "does not fit"), ("stamp", "0 groups")):
        with pytest.raises(InputError, match=message):
            object_name("stamp-g-1.fits", pattern)


def test_fractions_are_what_was_asked_for():
    parts = split_names(NAMES, seed=3, test=0.2, validation=0.05)
    assert list(parts) == list(PARTS)
    assert sum(map(len, parts.values())) == len(NAMES)
    # Five standard deviations of a binomial.
    for part, fraction in (("test", 0.2), ("validation", 0.05), ("train", 0.75)):
        assert abs(len(parts[part]) - fraction * 4000) < 5 * np.sqrt(4000 * fraction * (1 - fraction))


def test_objects_that_come_later_move_nobody_and_a_name_counts_once():
    few = split_names(NAMES[:100])
    many = split_names(NAMES + NAMES[:100])
    for part in PARTS:
        assert few[part] == [name for name in many[part] if name in set(NAMES[:100])]
    assert sum(map(len, many.values())) == len(NAMES)


@given(st.text(min_size=1, max_size=20), st.integers(-5, 2**70))
def test_more_validation_never_takes_from_the_test(name, seed):
    first, second = (part_of(name, seed, test=0.1, validation=v) for v in (0.1, 0.4))
    assert (first == "test") == (second == "test")
    assert part_of(name, seed, test=0, validation=0) == "train"


def test_folds_are_even_and_depend_on_the_seed():
    folds = np.array([fold_of(name, 10) for name in NAMES])
    counts = np.bincount(folds, minlength=10)
    assert len(counts) == 10
    assert np.abs(counts - 400).max() < 5 * np.sqrt(400 * 0.9)
    assert np.mean(folds == [fold_of(name, 10, seed=1) for name in NAMES]) < 0.15


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"name": ""}, "name=''"),
        ({"name": 7}, "name=7"),
        ({"name": "a", "seed": 0.5}, "seed=0.5"),
        ({"name": "a", "test": 1.0}, "test=1.0"),
        ({"name": "a", "validation": -0.1}, "validation=-0.1"),
        ({"name": "a", "test": 0.5, "validation": 0.5}, "leave nothing for training"),
    ],
)
def test_bad_arguments_are_named(arguments, match):
    with pytest.raises(InputError, match=match):
        part_of(**arguments)


@pytest.mark.parametrize("folds", [1, 0, 2.0, True])
def test_bad_folds_are_named(folds):
    with pytest.raises(InputError, match="folds="):
        fold_of("a", folds)
