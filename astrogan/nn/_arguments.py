"""Bounds of what networks are built from: a card may be a stranger's, and a recipe may have a slip of the pen.

They leave room for any network that is of use, and none for one that takes minutes to be built.
"""

from __future__ import annotations

from numbers import Integral, Real

from astrogan.exceptions import InputError

__all__ = ["check_positive", "check_scales", "check_whole"]

_MOST_SCALES, _MOST_BLOCKS = 8, 64
_LEAST, _MOST = 1e-20, 1e20  # squares are within float32


def check_whole(name, value, low, high=None):
    """Refuse what is no integer within bounds.

    Parameters
    ----------
    name : str
        Of the argument.
    value : object
    low, high : int
        Both may be reached; without ``high`` there is no bound.

    Raises
    ------
    InputError
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        wanted = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
        raise InputError(f"{name}={value!r:.80} must be {wanted}")


def check_positive(name, values):
    """Refuse numbers that are not positive, or have no square in single precision.

    Parameters
    ----------
    name : str
        Of the argument.
    values : object
        A number, or a sequence of some.

    Raises
    ------
    InputError
    """
    several = isinstance(values, list | tuple)
    for value in values if several else (values,):
        if isinstance(value, bool) or not isinstance(value, Real) or not _LEAST <= value <= _MOST:
            wanted = "positive numbers" if several else "a positive number"
            raise InputError(f"{name}={values!r:.80} must be {wanted} from {_LEAST:g} to {_MOST:g}")


def check_scales(widths, blocks):
    """Refuse a U-shaped network whose scales and blocks do not agree, or are too many.

    Parameters
    ----------
    widths : sequence of int
        Channels of each scale.
    blocks : sequence of int
        At each scale on the way down, then on the way up.

    Raises
    ------
    InputError
    """
    if not 1 <= len(widths) <= _MOST_SCALES:
        raise InputError(f"widths={widths!r:.80} must hold 1 to {_MOST_SCALES} numbers, one for each scale")
    if len(blocks) != 2 * len(widths) - 1:
        raise InputError(f"blocks={blocks!r:.80} must hold {2 * len(widths) - 1} numbers for {len(widths)} scales")
    for i, width in enumerate(widths):
        check_whole(f"widths[{i}]", width, 1)
    for i, number in enumerate(blocks):
        check_whole(f"blocks[{i}]", number, 0, _MOST_BLOCKS)
