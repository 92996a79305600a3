"""Which parts of a split blend are clumps of one galaxy: arms and knots go back to the galaxy they belong to."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import ndimage

__all__ = ["merge_clumps"]

# Asymmetric over symmetric light beyond these counts as these: a chain of like galaxies is symmetric about the one in
# the middle, too, and nothing is wholly without a partner in noise.
_LEAST_ODDS, _MOST_ODDS = 0.05, 50.0

# A valley this much below the fainter peak, as a part of it, is deep.
_DEPTH = 0.15

# How far from the place opposite, as a part of the distance, a partner is looked for.
_REACH = 0.1

# Half of the eight neighbours, as steps (y, x); the other half sees the same pairs.
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


def merge_clumps(image, labels, limit):
    """Join segments that are not distinct enough to be sources of their own.

    Neighbouring segments are compared in the order of the saddles between them, highest first, as by a falling water
    level. Of two, the one with the fainter peak is the fragment F, the other the parent P, and F is joined to P if

        D = (area of F / area of P) x sqrt(light of F above the saddle / light of P) x A x V < limit.

    The first two factors say how much of a galaxy of its own F is beside P. A is the ratio of asymmetric to symmetric
    light in F: what F has in excess of the light at the place opposite, seen from the peak of P (the brightest within
    a tenth of the distance, because no arm is quite the mirror image of the other), is asymmetric, the rest symmetric;
    A counts as 0.05 at least and 50 at most. V is 1 where the valley between the two is deep, 15 % or more below the
    peak of F, and falls to 0 with its depth. Arms and knots of a spiral are small, ride on a disk and mostly have a
    partner; a neighbour has a profile of its own and no partner. Joined segments go on as one, so that the knots of
    an arm end up in it, and it in its galaxy. A distinct pair stays apart, unless one of them is joined to a third:
    what is distinct from a knot may still be a clump of the knot's galaxy.

    Parameters
    ----------
    image : `numpy.ndarray`
        Detection image of shape (y, x), less its background, smoothed; positive on the segments.
    labels : `numpy.ndarray` of int
        (y, x); segments from 1 on, 0 elsewhere.
    limit : float
        Smallest D of a source of its own. With 0 nothing is joined.

    Returns
    -------
    `numpy.ndarray` of int32
        Labels from 1 on without gaps, in the order of the joined segments' first labels.
    """
    first, second, saddles = _saddles(image, labels)
    if not limit or not len(first):
        return labels
    segments = _Segments(image, labels)
    pairs = list(zip(first.tolist(), second.tolist(), saddles.tolist(), strict=True))
    while segments.join_clumps(pairs, limit):
        pass
    _, renumbered = np.unique(segments.roots(), return_inverse=True)
    return renumbered.astype(np.int32)[labels]


def _saddles(image, labels):
    """Pairs of touching segments and the height of the saddle between them, from the highest on."""
    padded = np.pad(labels, 1)
    inside = np.flatnonzero(padded)
    padded, heights = padded.ravel(), np.pad(image, 1).ravel()
    width, top = labels.shape[1] + 2, int(labels.max(initial=0)) + 1
    own, height = padded[inside], heights[inside]
    pairs, values = [], []
    for dy, dx in _STEPS:
        there = inside + dy * width + dx
        border = np.flatnonzero((padded[there] > 0) & (padded[there] != own))
        low, high = np.sort([own[border], padded[there[border]]], axis=0).astype(np.int64)
        pairs.append(low * top + high)
        values.append(np.minimum(height[border], heights[there[border]]))
    pairs, values = np.concatenate(pairs), np.concatenate(values)
    order = np.lexsort((-values, pairs))
    pairs, values = pairs[order], values[order]
    highest = np.flatnonzero(np.diff(pairs, prepend=-1))
    pairs, values = pairs[highest], values[highest]
    order = np.lexsort((pairs, -values))
    return *np.divmod(pairs[order], top), values[order]


class _Segments:
    """Segments that are being joined: a forest, each root with its pixels, light and peak."""

    def __init__(self, image, labels):
        self._width = labels.shape[1]
        self._image = image
        flat = labels.ravel()
        count = int(flat.max()) + 1
        inside = np.flatnonzero(flat)
        order = inside[np.argsort(flat[inside], kind="stable")]
        bounds = np.searchsorted(flat[order], np.arange(count + 1))
        self._pixels = [order[a:b] for a, b in pairwise(bounds)]
        values = image.ravel()
        self._peak = [p[np.argmax(values[p])] if len(p) else -1 for p in self._pixels]
        self._height = [values[p] for p in self._peak]
        self._light = np.bincount(flat, np.where(flat > 0, values, 0.0), minlength=count).tolist()
        self._parent = list(range(count))
        self._distinct = [set() for _ in range(count)]

    def join_clumps(self, pairs, limit):
        """One pass over the pairs, from the highest saddle on; whether any were joined."""
        joined = False
        for i, j, saddle in pairs:
            fragment, parent = self.ordered(i, j)
            if fragment == parent or parent in self._distinct[fragment]:
                continue
            if self.distinctness(fragment, parent, saddle) < limit:
                self.join(fragment, parent)
                joined = True
            else:
                self.separate(fragment, parent)
        return joined

    def root(self, i):
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def roots(self):
        return [self.root(i) for i in range(len(self._parent))]

    def ordered(self, i, j):
        """The roots of both, that with the fainter peak first."""
        i, j = self.root(i), self.root(j)
        return (i, j) if (self._height[i], -i) < (self._height[j], -j) else (j, i)

    def separate(self, i, j):
        self._distinct[i].add(j)
        self._distinct[j].add(i)

    def join(self, fragment, parent):
        self._parent[fragment] = parent
        self._pixels[parent] = np.concatenate([self._pixels[parent], self._pixels[fragment]])
        self._light[parent] += self._light[fragment]
        # What was distinct from the fragment alone may be a clump of the whole.
        for other in self._distinct[fragment]:
            self._distinct[other].discard(fragment)

    def distinctness(self, fragment, parent, saddle):
        pixels, centre = self._pixels[fragment], self._peak[parent]
        light = self._image.ravel()[pixels]
        area = len(pixels) / len(self._pixels[parent])
        above = np.maximum(light - saddle, 0).sum() / self._light[parent]
        partner, known = self._opposite(pixels, centre, self._distance(self._peak[fragment], centre))
        odds = 1.0  # the image ends before the place opposite: nothing speaks for or against
        if known.any():
            asymmetric = np.maximum(light - partner, 0)[known].sum()
            symmetric = max(light[known].sum() - asymmetric, asymmetric / _MOST_ODDS)
            odds = max(asymmetric / symmetric, _LEAST_ODDS)
        peak = self._height[fragment]
        return area * np.sqrt(above) * odds * min(1, (peak - saddle) / (_DEPTH * peak))

    def _distance(self, one, other):
        return float(np.hypot(*np.subtract(divmod(one, self._width), divmod(other, self._width))))

    def _opposite(self, pixels, centre, distance):
        """The light at the places opposite to ``pixels``, and whether they are in the image."""
        shape = np.array(self._image.shape)[:, np.newaxis]
        places = 2 * np.array(divmod(centre, self._width))[:, np.newaxis] - np.divmod(pixels, self._width)
        known = ((places >= 0) & (places < shape)).all(axis=0)
        if not known.any():
            return np.zeros(len(pixels)), known
        reach = round(_REACH * distance)
        low = np.maximum(places[:, known].min(axis=1) - reach, 0)
        high = places[:, known].max(axis=1) + reach + 1
        window = ndimage.maximum_filter(self._image[low[0] : high[0], low[1] : high[1]], 2 * reach + 1)
        y, x = np.where(known, places - low[:, np.newaxis], 0)
        return np.maximum(window[y, x], 0), known
