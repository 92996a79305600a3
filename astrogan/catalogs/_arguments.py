"""The arguments of `process_catalog` and `process_images`, checked."""

from __future__ import annotations

import math
import numbers

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["checked_operator", "one_of", "only_for_restorers", "positive", "seed_of", "size_of", "whole"]


def checked_operator(operator):
    """An operator that gives an image for an image, on a grid that follows it."""
    role = getattr(operator, "role", None)
    if role not in ("restorer", "translator", "degrader"):
        raise InputError(f"operator={operator!r} must be a configured Restorer, Translator or Degrader")
    if role == "translator" and operator.target.wcs is not None:
        raise InputError(
            "operator translates to a grid of its own, which would be the same for all stamps; give it a target "
            "without one: a survey, or TargetSpec(pixel_scale=...)"
        )
    return operator


def only_for_restorers(diagnose, operator):
    """``diagnose``, where the operator has it."""
    if diagnose and operator.role != "restorer":
        raise InputError(f"diagnose={diagnose!r} is for restorers; leave it out")
    return bool(diagnose)


def seed_of(rng):
    """A seed from a seed or a generator."""
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**63))
    if isinstance(rng, bool) or not isinstance(rng, numbers.Integral) or rng < 0:
        raise InputError(f"rng={rng!r} must be a non-negative integer seed or a numpy.random.Generator")
    return int(rng)


def size_of(size):
    """(y, x) from an integer or a pair."""
    pair = (size, size) if isinstance(size, numbers.Integral) else tuple(size) if np.iterable(size) else ()
    if len(pair) != 2:
        raise InputError(f"size={size!r} must be an integer, or two (y, x), e.g. 64")
    return tuple(whole("size", n) for n in pair)


def whole(name, value, least=1):
    """An integer that is large enough."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"{name}={value!r} must be an integer of at least {least}")
    return int(value)


def positive(name, value):
    """A positive number of pixels."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < value < math.inf:
        raise InputError(f"{name}={value!r} must be a positive number of pixels")
    return float(value)


def one_of(name, value, choices):
    """One of several texts."""
    if value not in choices:
        raise InputError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}")
    return value
