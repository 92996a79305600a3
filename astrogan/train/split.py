"""Which objects are for training, validation and test: decided by name, so that no list has to be kept."""

from __future__ import annotations

import hashlib
import numbers
import re
from collections.abc import Iterable

from astrogan.exceptions import InputError

__all__ = ["PARTS", "fold_of", "object_name", "part_of", "split_names"]

PARTS = ("train", "validation", "test")

_SUFFIXES = re.compile(r"(?<=.)\.(?=[A-Za-z])")
"""What a file's name is cut at: numbers such as 1.5 stay whole, and the dot of a hidden file begins none."""


def object_name(file_name, pattern=None):
    """The object that a file shows; training and benchmarks split by this name.

    Parameters
    ----------
    file_name : str
        Name of the file, without its folder.
    pattern : str or compiled regular expression, optional
        Regular expression with one group, which finds the object's name in the file's. Default: the file's name up to
        the first dot that a letter follows.

    Returns
    -------
    str

    Raises
    ------
    InputError
        If the pattern is no such expression, or does not fit the file's name.

    Examples
    --------
    >>> from astrogan.train.split import object_name
    >>> object_name("100018.jpg"), object_name("NGC7331.SDSS.fits.gz"), object_name("J0102+1.5.fits")
    ('100018', 'NGC7331', 'J0102+1.5')
    >>> object_name("stamp-g-42.fits", "stamp-[ugriz]-(.*)[.]fits")
    '42'
    """
    if pattern is None:
        return _SUFFIXES.split(file_name, maxsplit=1)[0]
    pattern = name_pattern(pattern)
    found = pattern.search(file_name)
    if not found or not found[1]:
        raise InputError(f"name={pattern.pattern!r} does not fit the file {file_name!r}; widen it")
    return found[1]


def name_pattern(name):
    """The regular expression of an object's name, compiled; None for None."""
    if name is None:
        return None
    try:
        pattern = re.compile(name)
    except (re.error, TypeError) as error:
        raise InputError(f"name={name!r} is no regular expression: {error}") from error
    if pattern.groups != 1:
        raise InputError(f"name={name!r} has {pattern.groups} groups; put brackets around the object's name only")
    return pattern


def part_of(name, seed=0, test=0.1, validation=0.1):
    """The part that an object belongs to, now and on every machine.

    A number u in [0, 1) comes from the SHA-256 of ``"<seed>:<name>"``: below ``test`` the object is for the test, below
    ``test + validation`` for validation, otherwise for training. Adding objects moves none of the others, and a larger
    ``validation`` takes from training only.

    Parameters
    ----------
    name : str
        Name of the object. All images of one object must have the same, or they end up on both sides.
    seed : int, optional
        Another seed, another split.
    test, validation : float, optional
        Expected fractions; together less than one.

    Returns
    -------
    str
        One of `PARTS`.

    Raises
    ------
    InputError
        If the name is empty or the fractions cannot be.

    Examples
    --------
    >>> from astrogan.train.split import part_of
    >>> part_of("100018"), part_of("100018", test=0.0, validation=0.0)
    ('train', 'train')
    """
    test, validation = _fractions(test, validation)
    u = _uniform(name, seed)
    if u < test:
        return "test"
    return "validation" if u < test + validation else "train"


def fold_of(name, folds, seed=0):
    """The fold of k-fold cross validation in which an object is tested.

    Parameters
    ----------
    name : str
        Name of the object.
    folds : int
        How many folds, at least two.
    seed : int, optional
        Another seed, other folds.

    Returns
    -------
    int
        From 0 to ``folds - 1``.

    Raises
    ------
    InputError
        If ``folds`` or the name cannot be used.

    Examples
    --------
    >>> from astrogan.train.split import fold_of
    >>> [fold_of(name, folds=5) for name in ("100018", "100052", "100056")]
    [2, 4, 1]
    """
    if isinstance(folds, bool) or not isinstance(folds, numbers.Integral) or folds < 2:
        raise InputError(f"folds={folds!r} must be an integer of at least 2, e.g. 10")
    return int(_uniform(name, seed) * folds)


def split_names(names: Iterable[str], seed=0, test=0.1, validation=0.1):
    """Names by part, each once, in the order in which they first came.

    Parameters
    ----------
    names : iterable of str
        Names of objects; one that comes several times is one object.
    seed, test, validation : optional
        As for `part_of`.

    Returns
    -------
    dict of str to list of str
        By part, in the order of `PARTS`; a part may be empty.

    Raises
    ------
    InputError
        As `part_of`.

    Examples
    --------
    >>> from astrogan.train.split import split_names
    >>> parts = split_names([f"galaxy {i}" for i in range(1000)])
    >>> {part: len(names) for part, names in parts.items()}
    {'train': 801, 'validation': 99, 'test': 100}
    """
    parts = {part: [] for part in PARTS}
    for name in dict.fromkeys(names):
        parts[part_of(name, seed, test, validation)].append(name)
    return parts


def _uniform(name, seed):
    """A number in [0, 1) that only the name and the seed decide; 53 bits of it, since float(2**64 - 1) is 2**64."""
    if not isinstance(name, str) or not name:
        raise InputError(f"name={name!r} must be the name of an object, a string that is not empty")
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise InputError(f"seed={seed!r} must be an integer")
    digits = hashlib.sha256(f"{int(seed)}:{name}".encode()).hexdigest()[:16]
    return (int(digits, 16) >> 11) / 2**53


def _fractions(test, validation):
    for label, value in (("test", test), ("validation", validation)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < 1:
            raise InputError(f"{label}={value!r} must be a fraction from 0 to below 1, e.g. 0.1")
    if test + validation >= 1:
        raise InputError(f"test={test!r} and validation={validation!r} leave nothing for training; take e.g. 0.1 each")
    return float(test), float(validation)
