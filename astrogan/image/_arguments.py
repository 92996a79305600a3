"""Checks of arguments that the way in and the operators share."""

from __future__ import annotations

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["positive_arcsec", "positive_in"]


def positive_in(value, unit, name, expected):
    """A positive float in ``unit`` from a number already in it, or a Quantity; the error names the argument."""
    from astropy import units as u

    try:
        number = float(value.to_value(unit) if isinstance(value, u.Quantity) else value)
    except (u.UnitConversionError, TypeError, ValueError) as error:
        raise InputError(f"{name}={value!r} must be {expected}") from error
    if not (np.isfinite(number) and number > 0):
        raise InputError(f"{name}={value!r} must be positive")
    return number


def positive_arcsec(value, name):
    """Arcsec from a number of them, or an angle."""
    return positive_in(value, "arcsec", name, "a number of arcsec or an angle")
