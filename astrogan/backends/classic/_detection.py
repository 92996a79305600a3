"""Where the sources are: detection, segments and sub-pixel centres, shared by the classic deblenders."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from astrogan.backends.classic._merging import merge_clumps
from astrogan.exceptions import InputError
from astrogan.image._quiet import quiet
from astrogan.image.mask import fill_invalid
from astrogan.image.uncertainty import background_rms, location_and_scale

__all__ = ["MERGE", "Detection", "Detector", "integer", "number"]

MERGE = 0.007
"""Default of ``merge``: about where simulated neighbours begin to be joined, and most spirals are whole."""

# Neighbouring pixels of the sky that correlate less than this count as independent.
_CORRELATED = 0.3
_SKY_PAIRS = 100

# No PSF is narrower than about twice the grain of its image's noise: that much smoothing costs little.
_GRAINS = 2.0

_CONNECTED = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Detection:
    """Sources and the pixels that belong to them.

    Attributes
    ----------
    image : `numpy.ndarray`
        Detection image of shape (y, x): bands in units of their noise, added and smoothed.
    labels : `numpy.ndarray` of int32
        (y, x); ``i + 1`` where a pixel belongs to source ``i`` before all others, 0 elsewhere.
    positions : `numpy.ndarray`
        (source, 2), each row (x, y), 0-based pixels.
    data : `numpy.ndarray`
        The observation's data, (band, y, x) float32, filled where invalid from valid pixels only.
    noise : `numpy.ndarray`
        Standard deviation of ``data``, same shape.
    """

    image: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    data: np.ndarray
    noise: np.ndarray

    @cached_property
    def extents(self):
        """(rows, columns) slices that bound each source's pixels; those of its position where it has none."""
        slices = ndimage.find_objects(self.labels, max_label=len(self.positions))
        return [
            found or _pixel_of(position, self.labels.shape)
            for found, position in zip(slices, self.positions, strict=True)
        ]


class Detector:
    """Detect sources, or give given ones their pixels.

    The detection image is the inverse-variance weighted sum of the bands, each first divided by its noise so that
    bands in different units or zero points count alike, less their background, smoothed by a Gaussian as wide as the
    PSF (but 1.5 to 3 pixels; 2 where none is known). Sources are connected pixels above ``threshold``, split by
    photutils' multi-threshold watershed where positions are not given, and by a watershed from the positions where
    they are.

    Parameters
    ----------
    threshold : float
        Standard deviations of the noise in a pixel before smoothing, as SExtractor counts them.
    min_area : int
        Fewest connected pixels of a source.
    levels : int
        Thresholds between a source's faintest and brightest pixel at which it may split.
    contrast : float
        Smallest part of a source's flux that makes a component of its own, 0 to 1.
    grow : float
        Pixels by which the segments are grown beyond the threshold, so that they hold the wings' flux.
    merge : float
        How distinct a part has to be to be a source, not an arm or a knot of its neighbour: its area over that of the
        neighbour, times the root of its light above the saddle over the neighbour's light, times the ratio of its
        asymmetric to its symmetric light about the neighbour's centre (see
        `~astrogan.backends.classic._merging.merge_clumps`). Higher values join more, which costs companions; 0 turns
        it off. Given positions are never joined.

    Notes
    -----
    Where the noise is not given but measured, and neighbouring pixels of the sky are correlated, as in pictures and
    resampled images, the image is smoothed by twice the length of that correlation, too, the threshold is set by the
    noise that is left, and ``min_area`` grows with the area that the noise is correlated over.
    """

    def __init__(self, threshold=1.5, min_area=5, levels=32, contrast=0.005, grow=4.0, merge=MERGE):
        self.threshold = number("threshold", threshold, 0, np.inf, "1.5", open_below=True)
        self.min_area = integer("min_area", min_area, 1, "5")
        self.levels = integer("levels", levels, 1, "32")
        self.contrast = number("contrast", contrast, 0, 1, "0.005")
        self.grow = number("grow", grow, 0, np.inf, "4")
        self.merge = number("merge", merge, 0, np.inf, str(MERGE))

    def __call__(self, observation, positions=None):
        """Detect in ``observation``, or assign its pixels to ``positions``.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
        positions : (source, 2) array, optional
            (x, y), 0-based pixels inside the image.

        Returns
        -------
        `Detection`
        """
        data = _filled(observation)
        noise, background = _noise(observation, data)
        image, sigma, seen, grain = _detection_image(observation, data, noise, background)
        above = (image > self.threshold * sigma) & seen
        if positions is None:
            labels = self._split(image, above, math.ceil(self.min_area * grain))
            labels = merge_clumps(image, labels, self.merge)
            positions = _centres(image, labels)
            labels = self._grown(image, labels, above=labels > 0, seen=seen)
        else:
            positions = np.array(positions, np.float64).reshape(-1, 2)
            markers = _markers(positions, image.shape)
            footprint = _with_own_pixels(above, positions, self.grow)
            labels = self._grown(image, markers, above=footprint, seen=np.ones_like(seen))
        return Detection(image, labels, positions, data, noise)

    def _split(self, image, above, min_area):
        """Labels of the sources above threshold, blended ones split."""
        from photutils.segmentation import deblend_sources, detect_sources

        regions, _ = ndimage.label(above, _CONNECTED)
        if np.bincount(regions.ravel())[1:].max(initial=0) < min_area:
            return np.zeros(image.shape, np.int32)
        del regions
        with quiet():  # it warns of sources with very many markers, which it handles
            found = detect_sources(np.where(above, image, 0.0), 0.0, min_area)
            found = deblend_sources(
                image, found, min_area, n_levels=self.levels, contrast=self.contrast, progress_bar=False
            )
        return np.asarray(found.data, np.int32)

    def _grown(self, image, markers, above, seen):
        """The watershed of ``image`` from ``markers`` over what is ``above``, grown by ``grow`` pixels.

        Only pixels that connect to a marker get its label.
        """
        from skimage.segmentation import watershed

        if not markers.any():
            return np.zeros(image.shape, np.int32)
        # Pixels above the threshold come first: a wing must not creep along the sky into another source.
        labels = markers
        if (above & (markers == 0)).any():
            labels = watershed(-image, markers, mask=above | (markers > 0), connectivity=_CONNECTED)
        if self.grow:
            near = ndimage.distance_transform_edt(labels == 0) <= self.grow
            near &= seen & ~above  # detected pixels that no position claims stay unclaimed
            labels = watershed(-image, labels, mask=near | (labels > 0), connectivity=_CONNECTED)
        return labels.astype(np.int32)


def _filled(observation):
    if observation.valid.all():
        return observation.data
    # A band without a valid pixel says nothing: zeros, without weight.
    return np.stack(
        [
            fill_invalid(plane, good) if good.any() else np.zeros_like(plane)
            for plane, good in zip(observation.data, observation.valid, strict=True)
        ]
    )


def _noise(observation, data):
    """Standard deviation and background of each band, (band, y, x)."""
    noise, background = np.ones(data.shape), np.zeros(data.shape)
    for band, good in enumerate(observation.valid):
        if not good.any():
            continue
        background[band], rms = background_rms(data[band], good)
        noise[band] = np.maximum(rms, 0.5 * _step(data[band][good]))
        if observation.variance is not None:
            variance = observation.variance[band].astype(np.float64)
            noise[band] = np.sqrt(np.where(good, variance, np.median(variance[good])))
    return noise, background


def _step(values):
    """The step from the median to the next value: that of an 8-bit picture's levels, next to nothing otherwise.

    More than half of the sky of a picture may have the same value; its noise is that of rounding then.
    """
    middle = np.median(values)
    return float(np.min(values, where=values > middle, initial=np.inf) - middle) if values.max() > middle else 0.0


def _detection_image(observation, data, noise, background):
    """The smoothed band sum, its noise before smoothing, where any band is valid, and the noise's grain.

    The grain is the area over which the noise is correlated after smoothing, relative to white noise.
    """
    weight = observation.valid.astype(np.float64)
    unit = np.array([np.median(n[v]) if v.any() else 1.0 for n, v in zip(noise, observation.valid, strict=True)])
    unit = unit[:, None, None]
    total = weight.sum(axis=0)
    seen = total > 0
    total[~seen] = 1
    image = (weight * (data - background) / unit).sum(axis=0) / total
    sigma = np.sqrt((weight * (noise / unit) ** 2).sum(axis=0)) / total
    sigma[~seen] = np.inf
    smoothing = _smoothing(observation)
    grain = _grain(image, sigma, seen) if observation.variance is None or observation.measured_noise else 0.0
    if not grain:
        return _smoothed(image, seen, smoothing), sigma, seen, 1.0
    wide = np.hypot(smoothing, _GRAINS * grain)
    image = _smoothed(image, seen, wide)
    # Correlated noise is not smoothed away like white noise: the threshold has to be above what is left of it.
    sigma = np.maximum(sigma, _upper_scale(image[seen]) / _white_noise_left(smoothing))
    return image, sigma, seen, (wide / smoothing) ** 2


def _smoothed(image, seen, smoothing):
    """Normalised convolution with a Gaussian: unseen pixels take no part."""
    reach = ndimage.gaussian_filter(seen.astype(np.float64), smoothing, mode="constant", truncate=3)
    image = ndimage.gaussian_filter(np.where(seen, image, 0.0), smoothing, mode="constant", truncate=3)
    return np.divide(image, reach, out=np.zeros_like(image), where=reach > 1e-3)


def _grain(image, sigma, seen):
    """Sigma in pixels of the Gaussian that white noise was smoothed with to become that of the image; 0 if it is white.

    From the correlation of neighbouring pixels of the sky. Images that were resampled or compressed have grain.
    """
    sky = seen & (np.abs(image) < 3 * sigma)
    total = power = count = 0.0
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        both = sky[one] & sky[other]
        first, second = image[one][both], image[other][both]
        if first.size < _SKY_PAIRS:
            return 0.0
        middle = 0.5 * (first.mean() + second.mean())
        total += np.sum((first - middle) * (second - middle))
        power += 0.5 * np.sum((first - middle) ** 2 + (second - middle) ** 2)
        count += first.size
    correlation = total / power if power > 0 else 0.0
    return float(np.sqrt(-0.25 / np.log(min(correlation, 0.95)))) if correlation > _CORRELATED else 0.0


def _upper_scale(values):
    """Standard deviation of the sky from the side above its median.

    The sky of pictures is skewed: what is below black is cut off.
    """
    level, scale = location_and_scale(values)
    middle, upper = np.quantile(values[values < level + 3 * scale], (0.5, 0.841))
    return max(scale, float(upper - middle))


def _white_noise_left(smoothing):
    """Standard deviation of white noise of unit variance after the smoothing."""
    impulse = np.zeros(2 * int(3 * smoothing + 0.5) + 1)
    impulse[len(impulse) // 2] = 1
    return np.sum(ndimage.gaussian_filter1d(impulse, smoothing, truncate=3) ** 2)


def _smoothing(observation):
    """Sigma in pixels of the detection's smoothing."""
    fwhm = 2.0
    if observation.psf is not None:
        # A PSF's equivalent width: that of the Gaussian with the same sum of squares.
        area = [1 / np.sum(np.square(kernel, dtype=np.float64)) for kernel in observation.psf]
        fwhm = 2.3548 * np.sqrt(np.mean(area) / (4 * np.pi))
    return float(np.clip(fwhm, 1.5, 3.0)) / 2.3548


def _centres(image, labels):
    """Sub-pixel peaks: the vertex of a parabola along each axis through the brightest pixel of each label."""
    count = int(labels.max(initial=0))
    if count == 0:
        return np.empty((0, 2))
    inside = np.flatnonzero(labels)
    own = labels.ravel()[inside]
    order = np.lexsort((-image.ravel()[inside], own))
    y, x = np.divmod(inside[order][np.searchsorted(own[order], np.arange(1, count + 1))], image.shape[1])
    return np.stack([_vertex(image, x, y, axis=1), _vertex(image, x, y, axis=0)], axis=1)


def _vertex(image, x, y, axis):
    size = image.shape[axis]
    at = x if axis == 1 else y
    inside = (at > 0) & (at < size - 1)

    def value(step):
        moved = np.clip(at + step, 0, size - 1)
        return image[y, moved] if axis == 1 else image[moved, x]

    left, middle, right = value(-1), value(0), value(1)
    curvature = 2 * middle - left - right
    usable = inside & (curvature > 0)
    shift = np.divide(right - left, 2 * curvature, out=np.zeros(len(at)), where=usable)
    return at + np.clip(shift, -0.5, 0.5)


def _markers(positions, shape):
    """One pixel per position, labelled by its number; positions in one pixel share it out among its neighbours.

    The pixel goes to the nearest position, so that the order of the positions does not matter.
    """
    markers = np.zeros(shape, np.int32)
    pixels = np.clip(np.floor(positions[:, ::-1] + 0.5).astype(np.intp), 0, np.array(shape) - 1)
    offset = np.hypot(*(positions[:, ::-1] - pixels).T)
    for i in np.lexsort((positions[:, 0], positions[:, 1], offset)):
        y, x = pixels[i]
        if markers[y, x]:
            y, x = _nearest_free(markers, positions[i])
        if y >= 0:
            markers[y, x] = i + 1
    return markers


def _nearest_free(markers, position):
    """The free pixel nearest to a position, or (-1, -1) if a whole neighbourhood is taken."""
    x, y = np.floor(position + 0.5).astype(int)
    y0, x0 = max(y - 3, 0), max(x - 3, 0)
    free = np.argwhere(markers[y0 : y + 4, x0 : x + 4] == 0) + (y0, x0)
    if not len(free):
        return -1, -1
    return tuple(free[np.argmin(np.hypot(*(free - position[::-1]).T))])


def _with_own_pixels(above, positions, radius):
    """The footprint, with a small disk around each position: a faint source has pixels, too."""
    out = above.copy()
    radius = max(radius, 1.5)
    for x, y in positions:
        y0, x0 = max(int(y - radius), 0), max(int(x - radius), 0)
        box = out[y0 : int(y + radius) + 2, x0 : int(x + radius) + 2]
        rows, columns = np.ogrid[y0 : y0 + box.shape[0], x0 : x0 + box.shape[1]]
        box |= (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return out


def number(name, value, low, high, example, *, open_below=False):
    good = isinstance(value, numbers.Real) and not isinstance(value, bool) and np.isfinite(value)
    if not good or not low <= value <= high or (open_below and value == low):
        bounds = f"from {low} to {high}" if np.isfinite(high) else ("positive" if open_below else f"at least {low}")
        raise InputError(f"{name}={value!r} must be a number, {bounds}, e.g. {example}")
    return float(value)


def integer(name, value, low, example):
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < low:
        raise InputError(f"{name}={value!r} must be an integer of at least {low}, e.g. {example}")
    return int(value)


def _pixel_of(position, shape):
    row, column = np.clip(np.floor(position[::-1] + 0.5).astype(int), 0, np.array(shape) - 1)
    return slice(row, row + 1), slice(column, column + 1)
