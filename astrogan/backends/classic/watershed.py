"""Multi-threshold detection and watershed: each pixel belongs to one source."""

from __future__ import annotations

import numpy as np

from astrogan.api import Separation, Template
from astrogan.backends.classic._detection import MERGE, Detector

__all__ = ["Watershed"]

# Every pixel of a segment, negative ones too, gets a template of at least this part of the noise.
_FLOOR = 1e-3


class Watershed:
    """Divide a blend along its valleys, as SExtractor and photutils do.

    Sources are detected on the inverse-variance weighted sum of the bands (each in units of its noise), smoothed by
    a Gaussian about as wide as the PSF, and split by photutils' multi-threshold watershed (Bertin & Arnouts 1996,
    section 5.2 and 6.1). Where positions are given, a watershed that starts from them divides the detected pixels
    instead, and a faint source that is not detected keeps a small disk. Each pixel then belongs to one source in all
    bands.

    Parameters
    ----------
    threshold : float
        Standard deviations of the noise in a pixel, before smoothing, above which a pixel is detected.
    min_area : int
        Fewest connected pixels of a source.
    levels : int
        Thresholds, spaced exponentially between a source's faintest and brightest pixel, at which it may split.
    contrast : float
        Smallest part of a source's flux that makes a component a source of its own, 0 to 1.
    grow : float
        Pixels by which segments are grown beyond the threshold, so that they hold the wings' flux. With 0 fluxes are
        isophotal.
    merge : float
        How distinct a part has to be to be a source of its own, not an arm or a knot of its neighbour. Higher values
        join more; 0 turns it off. Given positions are never joined.

    Raises
    ------
    InputError
        If an option is out of range.

    Notes
    -----
    The image needs no sky subtraction to be searched, but a template holds what sky there is. Without a variance the
    noise is measured on the background.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import Observation
    >>> from astrogan.backends.classic.watershed import Watershed
    >>> y, x = np.mgrid[:30, :40]
    >>> image = sum(99 * np.exp(-((x - x0) ** 2 + (y - 15) ** 2) / 8) for x0 in (15, 24))
    >>> blend = Observation(image[np.newaxis], variance=np.ones((1, 30, 40)))
    >>> [tuple(round(p) for p in t.position) for t in Watershed()(blend).templates]
    [(15, 15), (24, 15)]
    """

    def __init__(self, *, threshold=1.5, min_area=5, levels=32, contrast=0.005, grow=4.0, merge=MERGE):
        self._detect = Detector(threshold, min_area, levels, contrast, grow, merge)

    def __call__(self, observation, positions=None, *, rng=None):
        """Templates of the sources at ``positions``, or of those detected; ``rng`` is not used."""
        found = self._detect(observation, positions)
        templates = []
        for i, ((rows, columns), position) in enumerate(zip(found.extents, found.positions, strict=True)):
            box = (slice(None), rows, columns)
            inside = found.labels[rows, columns] == i + 1
            flux = np.maximum(found.data[box], _FLOOR * found.noise[box]) * inside
            templates.append(
                Template((rows.start, columns.start), flux.astype(np.float32), tuple(map(float, position)))
            )
        return Separation(tuple(templates), found.labels)
