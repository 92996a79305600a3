"""Colour pictures have red first; images of several bands mostly have blue first."""

from __future__ import annotations

import numpy as np

__all__ = ["red_first"]

_FROM_BLUE = "ugrizyjhk"


def red_first(names):
    """Indices of the bands that are taken for red, green and blue.

    Parameters
    ----------
    names : sequence of str
        Of the bands.

    Returns
    -------
    `numpy.ndarray` of int
        From the longest wavelength to the shortest where all are among u, g, r, i, z, y, J, H and K; else as they come.
    """
    letters = [str(name).strip().lower() for name in names]
    if len(set(letters)) == len(letters) and all(len(n) == 1 and n in _FROM_BLUE for n in letters):
        return np.argsort([-_FROM_BLUE.index(n) for n in letters])
    return np.arange(len(letters))
