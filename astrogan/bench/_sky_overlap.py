"""Which images overlap others on the sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from astrogan.exceptions import ImageReadError

__all__ = ["Footprint", "overlap", "read_footprint"]


@dataclass(frozen=True)
class Footprint:
    """Where an image lies.

    Parameters
    ----------
    wcs : `astropy.wcs.WCS`
        Celestial.
    shape : tuple of int
        (y, x), pixels.
    """

    wcs: Any
    shape: tuple[int, int]


def read_footprint(path):
    """Where the first image of a FITS file lies; an image that does not say is an error, since nothing can be known."""
    from astropy.io import fits

    from astrogan.image.wcs import wcs_from_header

    with fits.open(path) as hdus:
        header = next((hdu.header for hdu in hdus if hdu.header.get("NAXIS", 0) >= 2), None)
    wcs = None if header is None else wcs_from_header(header, naxis=2)
    if wcs is None:
        raise ImageReadError(
            f"{str(path)!r} has no image with a celestial WCS, so that nobody knows which others show the same sky; "
            "get the file again, or take it out of the data"
        )
    return Footprint(wcs, (header["NAXIS2"], header["NAXIS1"]))


def overlap(one, other):
    """Whether the middle of any pixel of one image lies on the other.

    Parameters
    ----------
    one, other : Footprint

    Returns
    -------
    bool
    """
    from astrogan.image.wcs import pixel_mapping

    if not _are_near(one, other):
        return False
    y, x = np.indices(one.shape)
    x, y = pixel_mapping(one.wcs, other.wcs)(x, y)
    height, width = other.shape
    return bool(((x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)).any())


def _are_near(one, other):
    """Whether the circles around two images meet; the mapping of all pixels takes far longer."""
    (a, reach), (b, other_reach) = _circle(one), _circle(other)
    return a.separation(b) <= 1.01 * (reach + other_reach)


def _circle(footprint):
    """Middle of an image, and the distance of its farthest corner."""
    from astropy.wcs.utils import pixel_to_skycoord

    height, width = footprint.shape
    x = [(width - 1) / 2, -0.5, width - 0.5, -0.5, width - 0.5]
    y = [(height - 1) / 2, -0.5, -0.5, height - 0.5, height - 0.5]
    points = pixel_to_skycoord(x, y, footprint.wcs)
    return points[0], points[0].separation(points[1:]).max()
