"""Sources found against sources that exist."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from astrogan.exceptions import InputError
from astrogan.metrics._checks import as_masked, as_positions, as_positive

__all__ = [
    "DetectionScore",
    "FalseDetections",
    "Matches",
    "completeness_purity",
    "false_detections",
    "match_positions",
]


class Matches(NamedTuple):
    """Pairs of matched sources, in the order of the first list.

    Parameters
    ----------
    truth, found : `numpy.ndarray` of int
        Rows of the two lists, shape (match,).
    distance : `numpy.ndarray`
        In pixels, shape (match,).
    """

    truth: np.ndarray
    found: np.ndarray
    distance: np.ndarray


class DetectionScore(NamedTuple):
    """How many sources exist, were found, and match.

    Parameters
    ----------
    completeness : float
        Matches over true sources; NaN where there are none.
    purity : float
        Matches over found sources; NaN where there are none.
    n_truth, n_found, n_matched : int
        The counts.
    """

    completeness: float
    purity: float
    n_truth: int
    n_found: int
    n_matched: int


class FalseDetections(NamedTuple):
    """Groups of pixels beyond a threshold on blank sky.

    Parameters
    ----------
    positive, negative : int
        Groups above ``+threshold`` and below ``-threshold``. Noise makes as many of one as of the other.
    n_pixels : int
        Pixels searched.
    sigma : float
        Noise that the threshold is counted in, in the unit of the (smoothed) image.
    """

    positive: int
    negative: int
    n_pixels: int
    sigma: float


def match_positions(truth, found, *, radius, method="hungarian"):
    """Pair two lists of positions, each source at most once.

    Parameters
    ----------
    truth, found : array_like
        Shapes (n, 2) and (m, 2), each row (x, y) in pixels.
    radius : float
        Largest distance of a pair, in pixels.
    method : {"hungarian", "nearest"}, optional
        The largest possible number of pairs with the least sum of distances among those, or nearest pairs first.

    Returns
    -------
    `Matches`

    Raises
    ------
    InputError
        If a shape, the radius or the method cannot be used.

    References
    ----------
    Kuhn, H. W. 1955, Naval Research Logistics Quarterly 2, 83. The problem is solved apart for each group of sources
    that are in reach of one another, so fields of 10^5 sources are no trouble.

    Examples
    --------
    >>> from astrogan.metrics import match_positions
    >>> match_positions([(0, 0), (2, 0)], [(1.2, 0), (3, 0)], radius=1.5)
    Matches(truth=array([0, 1]), found=array([0, 1]), distance=array([1.2, 1. ]))
    """
    solve = {"hungarian": _hungarian, "nearest": _nearest}.get(method)
    if solve is None:
        raise InputError(f"method={method!r} must be 'hungarian' or 'nearest'")
    truth, found = _several(truth, "truth"), _several(found, "found")
    candidates = _candidates(truth, found, as_positive(radius, "radius"))
    pairs = solve(*candidates, len(truth), len(found))
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    distance = np.hypot(*(truth[pairs[:, 0]] - found[pairs[:, 1]]).T)
    return Matches(pairs[:, 0], pairs[:, 1], distance)


def completeness_purity(truth, found, *, radius, method="hungarian"):
    """Part of the true sources that was found, and part of the found ones that is true.

    Parameters
    ----------
    truth, found, radius, method
        As for `match_positions`.

    Returns
    -------
    `DetectionScore`

    Raises
    ------
    InputError
        As for `match_positions`.

    Examples
    --------
    >>> from astrogan.metrics import completeness_purity
    >>> score = completeness_purity([(0, 0), (9, 9)], [(0.4, 0.3), (20, 3), (5, 30)], radius=1)
    >>> score.completeness, round(score.purity, 3)
    (0.5, 0.333)
    """
    n_matched = len(match_positions(truth, found, radius=radius, method=method).truth)
    n_truth, n_found = len(_several(truth, "truth")), len(_several(found, "found"))
    return DetectionScore(
        n_matched / n_truth if n_truth else np.nan,
        n_matched / n_found if n_found else np.nan,
        n_truth,
        n_found,
        n_matched,
    )


def false_detections(image, *, threshold=5.0, sigma=None, fwhm=None, n_connected=1, mask=None):
    """Count what a detection would find on blank sky: the test for a method that invents sources.

    Parameters
    ----------
    image : array_like
        (y, x), or (band, y, x) whose bands are searched apart and counted together; sky around zero.
    threshold : float, optional
        In units of ``sigma``.
    sigma : float, optional
        Noise of the (smoothed) image. Default: 1.4826 times the median absolute deviation of each band. To ask how
        many false sources a *restored* image holds by the standard of its input, give the input's noise.
    fwhm : float, optional
        Smooth with a Gaussian of this full width at half maximum (pixels) first, as a matched filter does.
    n_connected : int, optional
        Pixels that must touch (sides or corners) to count as one detection.
    mask : array_like of bool, optional
        True where a pixel is left out, e.g. on the true sources; of the image's shape, or (y, x) for all bands.

    Returns
    -------
    `FalseDetections`

    Raises
    ------
    InputError
        If an argument is out of range, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import false_detections
    >>> sky = np.random.default_rng(1).normal(size=(100, 100))
    >>> sky[40, 40] = 20
    >>> false_detections(sky, sigma=1.0)
    FalseDetections(positive=1, negative=0, n_pixels=10000, sigma=1.0)
    """
    image, mask = as_masked(image, mask)
    threshold = as_positive(threshold, "threshold")
    if sigma is not None:
        sigma = as_positive(sigma, "sigma")
    if not isinstance(n_connected, int | np.integer) or n_connected < 1:
        raise InputError(f"n_connected={n_connected!r} must be a positive integer")
    width = None if fwhm is None else as_positive(fwhm, "fwhm") / np.sqrt(8 * np.log(2))
    counts, noise = np.zeros(2, int), []
    for band, bad in zip(image.reshape(-1, *image.shape[-2:]), mask.reshape(-1, *image.shape[-2:]), strict=True):
        band = band if width is None else _smooth(band, bad, width)
        noise.append(_robust_std(band[~bad]) if sigma is None else sigma)
        for k, sign in enumerate((1, -1)):
            counts[k] += _groups(~bad & (sign * band > threshold * noise[-1]), n_connected)
    return FalseDetections(int(counts[0]), int(counts[1]), int(np.count_nonzero(~mask)), float(np.mean(noise)))


def _several(positions, name):
    array, single = as_positions(positions, name)
    if single:
        raise InputError(f"{name} has shape {np.shape(positions)}; it must be (n, 2), rows of (x, y)")
    return array


def _candidates(truth, found, radius):
    """Rows and distances of all pairs within the radius."""
    from scipy.spatial import cKDTree

    if not (len(truth) and len(found)):
        return np.empty(0, int), np.empty(0, int), np.empty(0)
    near = cKDTree(truth).sparse_distance_matrix(cKDTree(found), radius, output_type="ndarray")
    return near["i"].astype(int), near["j"].astype(int), near["v"]


def _nearest(i, j, distance, n_truth, n_found):
    pairs, taken_i, taken_j = [], np.zeros(n_truth, bool), np.zeros(n_found, bool)
    for k in np.lexsort((j, i, distance)):
        if not (taken_i[i[k]] or taken_j[j[k]]):
            taken_i[i[k]] = taken_j[j[k]] = True
            pairs.append((i[k], j[k]))
    return np.array(pairs, int).reshape(-1, 2)


def _hungarian(i, j, distance, n_truth, n_found):
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = n_truth + n_found
    _, group = connected_components(coo_array((np.ones(len(i)), (i, n_truth + j)), shape=(n, n)), directed=False)
    order = np.argsort(group[i], kind="stable")
    edges = np.split(order, np.flatnonzero(np.diff(group[i][order])) + 1) if len(i) else []
    pairs = []
    for edge in edges:
        rows, r = np.unique(i[edge], return_inverse=True)
        columns, c = np.unique(j[edge], return_inverse=True)
        # A pair out of reach costs more than all others together, so as few as possible are taken.
        cost = np.full((len(rows), len(columns)), (1 + distance[edge].max()) * (1 + len(rows) + len(columns)))
        real = np.zeros(cost.shape, bool)
        cost[r, c], real[r, c] = distance[edge], True
        a, b = linear_sum_assignment(cost)
        pairs.extend((rows[p], columns[q]) for p, q in zip(a, b, strict=True) if real[p, q])
    return np.array(pairs, int).reshape(-1, 2)


def _smooth(band, mask, width):
    """Gaussian smoothing that takes masked pixels as empty sky."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(np.where(mask, 0, band), width, mode="reflect")


def _robust_std(values):
    if not values.size:
        return np.nan
    return 1.482602218505602 * np.median(np.abs(values - np.median(values)))


def _groups(above, n_connected):
    from scipy.ndimage import label

    labels, n = label(above, np.ones((3, 3), int))
    return n if n_connected == 1 else int((np.bincount(labels.ravel())[1:] >= n_connected).sum())
