"""A bright compact source anywhere in the stamp: whether it comes out where the WCS says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from astrogan.bench._translation_rows import stamps_of
from astrogan.bench._translation_scores import seed_of, windowed_centroids
from astrogan.bench._translation_sets import second_exposure
from astrogan.exceptions import AstroganError

__all__ = ["field_tables", "with_source"]

_MAGNITUDES = {"u": 18.3, "g": 17.2, "r": 16.5, "i": 16.1, "z": 15.9}
_SIZE = 0.3  # arcsec, the standard deviation of the source before the PSF
_EDGE = 2.5  # arcsec between the outermost places and the stamps' edges
_LIMIT = 0.1  # pixels
_ACROSS = 7


def field_tables(rows, pairs, directions, across=None):
    """Centroid errors in r by place.

    Parameters
    ----------
    rows : sequence of Row
    pairs : callable
        ``pairs(start, number)``; the first pair lends its grids, PSFs and noise.
    directions : sequence of str
    across : int, optional
        Places along either axis; 7 by default.

    Returns
    -------
    summary : `~astropy.table.Table`
        A line a direction and row.
    places : `~astropy.table.Table`
        A line a direction, row and place.
    """
    from astropy.table import Table

    pair = next(iter(pairs(0, 1)))
    lines = []
    for direction in directions:
        stamp, other = stamps_of(pair, direction)
        for k, (x, y) in enumerate(_places(pair, across or _ACROSS)):
            before, after = (with_source(one, *_pixel(pair, one, x, y)) for one in (stamp, other))
            seen = second_exposure(before, np.random.default_rng(seed_of("field", direction, k)))
            expected = _centre(after, after.truth, _pixel(pair, after, x, y))
            for row in rows:
                try:
                    made = row(seen, after, np.random.default_rng(seed_of(row.name, "field", direction, k))).data
                    dx, dy = _centre(after, made, expected) - expected
                except AstroganError:
                    dx = dy = np.nan
                line = {"direction": direction, "row": row.name, "x": x, "y": y, "dx": dx, "dy": dy}
                lines.append(line | {"error": float(np.hypot(dx, dy))})
    places = Table(rows=lines, names=list(lines[0]))
    places.meta["caption"] = (
        "Centroid in r of a compact source (r = 16.5, 0.3 arcsec before the PSF) with the survey's noise, minus that "
        "of the truth, in pixels of the target; x, y: its place in arcsec from the stamp's middle."
    )
    for name in ("x", "y", "dx", "dy", "error"):
        places[name].info.format = ".4g"
    places.meta["shown"] = ["direction", "row", "x", "y", "error"]
    return _summary(places), places


def _summary(places):
    from astropy.table import Table

    lines = []
    for direction in dict.fromkeys(places["direction"]):
        for row in dict.fromkeys(places["row"]):
            part = places[(places["direction"] == direction) & (places["row"] == row)]
            error = np.asarray(part["error"], np.float64)
            lost = np.isnan(error)
            known = error[~lost] if (~lost).any() else np.array([np.nan])
            lines.append(
                {
                    "direction": str(direction),
                    "row": str(row),
                    "places": len(error),
                    "lost": int(lost.sum()),
                    "median": float(np.median(known)),
                    "worst": float(known.max()),
                    "mean_dx": float(np.nanmean(part["dx"]) if not lost.all() else np.nan),
                    "mean_dy": float(np.nanmean(part["dy"]) if not lost.all() else np.nan),
                    "within": float((known < _LIMIT).sum() / len(error)),
                }
            )
    table = Table(rows=lines, names=list(lines[0]))
    for name in ("median", "worst", "mean_dx", "mean_dy", "within"):
        table[name].info.format = ".3g"
    table.meta["caption"] = (
        "Centroid error in pixels of the target of a bright compact source over a grid of places that reaches within "
        f"{_EDGE} arcsec of the stamp's edges; within: part of the places below {_LIMIT} pixels; lost: without a "
        "centroid."
    )
    return table


def _places(pair, across):
    """(x, y) in arcsec from the middle of the first stamp."""
    half = min(min(s.data.shape[1:]) * s.pixel_scale for s in (pair.first, pair.second)) / 2 - _EDGE
    line = np.linspace(-half, half, across)
    # Not on a lattice of pixels.
    rng = np.random.default_rng(seed_of("places"))
    return [tuple(np.array([x, y]) + rng.uniform(-0.2, 0.2, 2)) for y in line for x in line]


def _pixel(pair, stamp, x, y):
    """Pixel of a stamp that is at a place given from the middle of the pair's first stamp."""
    from astrogan.image.wcs import pixel_mapping

    first = pair.first
    middle = (np.array(first.data.shape[:0:-1]) - 1) / 2
    at = middle + np.array([x, y]) / first.pixel_scale
    if stamp.wcs is first.wcs:
        return at
    return np.array([float(v) for v in pixel_mapping(first.wcs, stamp.wcs)(*at)])


def with_source(stamp, x, y):
    """The stamp with a compact source as its only truth, and the variance of that.

    Parameters
    ----------
    stamp : `~astrogan.simulate.surveys.SurveyStamp`
    x, y : float
        Pixels.

    Returns
    -------
    `~astrogan.simulate.surveys.SurveyStamp`
        Its data are those of the truth.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    from astrogan.bench._translation_sets import photon_slope

    rows, columns = np.indices(stamp.data.shape[1:], dtype=float)
    truth = np.empty(stamp.data.shape)
    for b, (band, psf) in enumerate(zip(stamp.bands, stamp.psf, strict=True)):
        flux = 10 ** (0.4 * (22.5 - _MAGNITUDES.get(band, 16.5)))
        kernel = gaussian_filter(np.pad(np.asarray(psf, np.float64), 8), _SIZE / stamp.pixel_scale)
        half = len(kernel) // 2
        truth[b] = flux * map_coordinates(kernel, [rows - y + half, columns - x + half], order=5, mode="constant")
    truth = np.maximum(truth, 0).astype(np.float32)
    slope = photon_slope(stamp.survey, stamp.bands)[:, None, None]
    variance = (np.square(stamp.sigma)[:, None, None] + slope * truth).astype(np.float32)
    return replace(stamp, data=truth, truth=truth, variance=variance)


def _centre(stamp, cube, start):
    b = list(stamp.bands).index("r") if "r" in stamp.bands else 0
    width = 1.5 * np.asarray(stamp.fwhm)[b : b + 1] / 2.3548 / stamp.pixel_scale
    return windowed_centroids(np.asarray(cube[b : b + 1], np.float64), np.asarray(start), width)[0]
