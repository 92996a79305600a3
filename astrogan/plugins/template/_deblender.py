"""A deblender: plain arrays in, plain arrays out. It works as it is; put your own method in its place."""

import numpy as np
from scipy.ndimage import center_of_mass, gaussian_filter, label, maximum_filter

from astrogan.api import Separation, Template
from astrogan.exceptions import InputError


class MyBackend:
    """A round template a source: the median of the pixels at each distance from it, made to fall outwards.

    Parameters
    ----------
    radius : int
        Of a template, in pixels.
    threshold : float
        Of the detection, in standard deviations of the smoothed noise; used where no positions are given.
    """

    def __init__(self, radius=20, threshold=5.0):
        if not isinstance(radius, int) or radius < 1:
            raise InputError(f"radius={radius!r} must be a positive integer, in pixels, e.g. 20")
        if not 0 < threshold < np.inf:
            raise InputError(f"threshold={threshold!r} must be a positive number, e.g. 5.0")
        self.radius = radius
        self.threshold = threshold

    def __call__(self, observation, positions, *, rng):
        """A template for each row (x, y) of ``positions``, in their order; `None` asks to detect."""
        if positions is None:
            positions = self._detect(observation)
        return Separation(tuple(self._template(observation, x, y) for x, y in positions))

    def _template(self, observation, x, y):
        """What the source would be by itself. The operator divides the image in proportion to the templates."""
        box = tuple(_around(p, self.radius, size) for p, size in zip((y, x), observation.shape[1:], strict=True))
        rows, columns = np.mgrid[box]
        distance = np.hypot(columns - x, rows - y)
        planes = zip(observation.data[:, *box], observation.valid[:, *box], strict=True)
        data = np.stack([self._round(plane, good, distance) for plane, good in planes])
        return Template(origin=(box[0].start, box[1].start), data=data, position=(float(x), float(y)))

    def _round(self, plane, valid, distance):
        ring = np.where(valid, np.rint(distance), -1)
        radii = [r for r in range(self.radius + 1) if (ring == r).any()]
        if not radii:
            return np.zeros(plane.shape, np.float32)
        profile = [max(np.median(plane[ring == r]), 0) for r in radii]
        falling = np.minimum.accumulate(profile)
        return np.where(distance <= self.radius, np.interp(distance, radii, falling), 0).astype(np.float32)

    def _detect(self, observation):
        """Peaks of all bands together, (source, 2); the operator always gives a variance."""
        sigma = np.sqrt(np.where(observation.valid, observation.variance, np.inf))
        snr = (observation.data / sigma).sum(axis=0) / len(sigma) ** 0.5
        width = 1.5
        # Smoothing lowers white noise by this factor.
        smooth = gaussian_filter(snr, width) * (2 * np.pi**0.5 * width)
        peaks, number = label((smooth == maximum_filter(smooth, 5)) & (smooth > self.threshold), np.ones((3, 3)))
        found = center_of_mass(peaks > 0, peaks, range(1, number + 1))
        return np.reshape(found, (-1, 2))[:, ::-1]


def _around(position, radius, size):
    """A slice of ``radius`` pixels to either side, cut at the image's edges."""
    middle = int(np.clip(np.rint(position), 0, size - 1))
    return slice(max(0, middle - radius), min(size, middle + radius + 1))
