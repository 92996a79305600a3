"""Symmetric monotone templates, shared light: after the deblender of the SDSS."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from astrogan.api import Separation, Template
from astrogan.backends.classic._detection import MERGE, Detector, integer, number

__all__ = ["Symmetric", "monotone"]

# A source's own segment never has a template below this part of the noise, so that no detected light is left over.
_FLOOR = 1e-3

# How much of the light on another's segment a source yields to it at first. With 0 a source between two others may
# keep the light of both, which is symmetric about it, too; with 1 bright galaxies lose what they have under others.
_YIELD = 0.75

# A template that changes by less than this part of its flux has settled.
_SETTLED = 1e-3


class Symmetric:
    """Divide a blend by templates that are symmetric about each source's centre and fall off outwards.

    A source's template is made band by band: a pixel is averaged with its partner on the other side of the centre,
    and where the two differ by more than the noise the fainter one counts, because a neighbour can only add light
    (Lupton 2005; the symmetry of scarlet, Melchior et al. 2018, section 3.2). Then it is made radially
    non-increasing (``monotone``). The image is shared among the sources in proportion to their templates, and new
    templates are made from the shares, until they settle: light that a template wrongly claimed under a neighbour goes
    back to it, because such a share is neither symmetric nor falling.

    Parameters
    ----------
    iterations : int
        Most rounds of sharing and making new templates; 0 keeps those of the image itself, as the SDSS does.
    tolerance : float
        How many standard deviations partners may differ before the fainter one counts.
    smoothing : float
        Sigma in pixels of a Gaussian that smooths the image for the templates where its signal-to-noise ratio in a
        pixel is low; bright pixels stay as they are.
    threshold, min_area, levels, contrast, grow, merge
        Detection; see `~astrogan.backends.classic.watershed.Watershed`.

    Raises
    ------
    InputError
        If an option is out of range.

    Notes
    -----
    Templates end where the grown detection footprint ends. In a masked pixel the partner stands in; where both are
    masked the value inwards does, or, at a masked centre, the brightest around it. No PSF is needed; one sets the
    smoothing of the detection image.

    The limits: sources closer than about the PSF's FWHM; galaxies that are not symmetric, which lose to their
    neighbours what differs; a faint source midway between two alike ones, whose light is symmetric about it, too, and
    which may keep part of it.
    """

    def __init__(
        self,
        *,
        iterations=50,
        tolerance=2.0,
        smoothing=0.7,
        threshold=1.5,
        min_area=5,
        levels=32,
        contrast=0.005,
        grow=4.0,
        merge=MERGE,
    ):
        self.iterations = integer("iterations", iterations, 0, "50")
        self.tolerance = number("tolerance", tolerance, 0, np.inf, "2")
        self.smoothing = number("smoothing", smoothing, 0, 10, "0.7")
        self._detect = Detector(threshold, min_area, levels, contrast, grow, merge)

    def __call__(self, observation, positions=None, *, rng=None):
        """Templates of the sources at ``positions``, or of those detected; ``rng`` is not used."""
        found = self._detect(observation, positions)
        # A fixed order of computation: that of the positions then changes no bit.
        order = np.lexsort(found.positions.T)
        image, noise = self._denoised(found)
        extents = found.extents
        sources = [_source(i, found.positions[i], extents[i], image.shape) for i in order]
        templates = self._templates(sources, image, noise, observation.valid, found)
        out = [None] * len(sources)
        for i, source, data in zip(order, sources, templates, strict=True):
            out[i] = Template(source.origin, data.astype(np.float32), tuple(map(float, found.positions[i])))
        return Separation(tuple(out), found.labels)

    def _denoised(self, found):
        """The image, smoothed where it is faint, and its noise."""
        image = found.data.astype(np.float64)
        if not self.smoothing:
            return image, found.noise
        smooth = np.stack([ndimage.gaussian_filter(plane, self.smoothing) for plane in image])
        power = np.square(np.maximum(smooth, 0) / found.noise)
        weight = power / (power + 1)
        image = weight * image + (1 - weight) * smooth
        # The noise of white noise smoothed by a Gaussian (for sigmas from half a pixel on).
        left = min(1.0, 1 / (2 * np.sqrt(np.pi) * self.smoothing))
        return image, found.noise * (weight + (1 - weight) * left)

    def _templates(self, sources, image, noise, valid, found):
        """Alternate between sharing the image and making templates of the shares."""
        make = [_Maker(source, noise, valid, found.labels) for source in sources]
        templates = [m(image[s.box], self.tolerance) for m, s in zip(make, sources, strict=True)]
        if not self.iterations:
            return templates
        templates = self._yielded(templates, make, sources, image)
        total = _sum(templates, sources, image.shape)
        active = range(len(sources))
        for _ in range(self.iterations):
            changes = {i: make[i](_share(templates[i], sources[i], image, total), self.tolerance) for i in active}
            active = [i for i, new in changes.items() if not _settled(templates[i], new)]
            for i, new in changes.items():
                total[sources[i].box] += new - templates[i]
                templates[i] = new
            if not active:
                break
        return templates

    def _yielded(self, templates, make, sources, image):
        """Templates of what remains of the image where it belongs to other sources first."""
        owned = np.zeros(image.shape)
        for m, source, template in zip(make, sources, templates, strict=True):
            owned[source.box] += template * m.own
        return [
            m(image[s.box] - _YIELD * owned[s.box] * ~m.own, self.tolerance) for m, s in zip(make, sources, strict=True)
        ]


def _sum(templates, sources, shape):
    total = np.zeros(shape)
    for source, template in zip(sources, templates, strict=True):
        total[source.box] += template
    return total


def _share(template, source, image, total):
    total = total[source.box]
    return np.divide(image[source.box] * template, total, out=np.zeros(template.shape), where=total > 0)


def _settled(old, new):
    return np.abs(new - old).sum() <= _SETTLED * old.sum()


@dataclass(frozen=True)
class _Source:
    """A source's number, centre and the box of its template."""

    number: int
    centre: tuple[int, int]
    offset: tuple[float, float]
    radius: int
    box: tuple

    @property
    def origin(self):
        return self.box[1].start, self.box[2].start


def _source(i, position, extent, shape):
    """The box that holds the segment of source ``i`` and its mirror image."""
    x, y = position
    row = min(max(int(np.floor(y + 0.5)), 0), shape[1] - 1)
    column = min(max(int(np.floor(x + 0.5)), 0), shape[2] - 1)
    rows, columns = extent
    reach = max(
        abs(row - rows.start), abs(rows.stop - 1 - row), abs(column - columns.start), abs(columns.stop - 1 - column)
    )
    radius = int(reach) + 1
    box = (
        slice(None),
        slice(max(row - radius, 0), min(row + radius + 1, shape[1])),
        slice(max(column - radius, 0), min(column + radius + 1, shape[2])),
    )
    return _Source(i + 1, (row, column), (y - row, x - column), radius, box)


class _Maker:
    """Makes templates of one source from its light; holds what stays the same between rounds."""

    def __init__(self, source, noise, valid, labels):
        row, column = source.centre
        y, x = source.box[1:]
        self.pad = (
            (0, 0),
            (source.radius - (row - y.start), source.radius - (y.stop - 1 - row)),
            (source.radius - (column - x.start), source.radius - (x.stop - 1 - column)),
        )
        self.clipped = any(any(p) for p in self.pad)
        self.window = (
            slice(None),
            slice(self.pad[1][0], self.pad[1][0] + y.stop - y.start),
            slice(self.pad[2][0], self.pad[2][0] + x.stop - x.start),
        )
        self.taps = [_taps(2 * offset) for offset in source.offset]
        seen = np.pad(valid[source.box], self.pad)
        self.seen, self.partner_seen = seen, seen[:, ::-1, ::-1]
        self.all_seen = seen.all()
        variance = np.pad(np.square(noise[source.box]), self.pad, mode="edge")
        self.noise = np.sqrt(variance + variance[:, ::-1, ::-1])
        inside = labels[source.box[1:]]
        self.inside = inside > 0
        self.own = inside == source.number
        self.floor = _FLOOR * noise[source.box] * (self.own & valid[source.box])

    def __call__(self, light, tolerance):
        light = np.pad(light, self.pad, mode="edge") if self.clipped else light
        partner = light[:, ::-1, ::-1]
        for axis, taps in zip((1, 2), self.taps, strict=True):
            if taps is not None:
                partner = ndimage.correlate1d(partner, taps, axis=axis, mode="nearest")
        excess = np.abs(light - partner) - tolerance * self.noise
        template = 0.5 * (light + partner - np.maximum(excess, 0))
        if not self.all_seen:
            alone = np.where(self.seen, light, np.where(self.partner_seen, partner, np.inf))
            template = np.where(self.seen & self.partner_seen, template, alone)
        template = monotone(template)[self.window]
        if not self.all_seen:
            template = _with_core(template)
        return np.maximum(template, 0) * self.inside + self.floor


def _with_core(template):
    """A masked centre takes the brightest value around it; zero where nothing is known."""
    known = np.isfinite(template)
    brightest = np.max(template, axis=(1, 2), keepdims=True, where=known, initial=0.0)
    return np.where(known, template, brightest)


def _taps(shift):
    """Weights of a Lanczos interpolation (a = 3) that moves a line by ``shift`` pixels; None for no move."""
    if abs(shift) < 1e-6:
        return None
    distance = np.arange(-4, 5) + shift
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)
    return weights / weights.sum()


def monotone(template):
    """Lower a template where it rises outwards, so that it falls along every ray from its central pixel.

    Parameters
    ----------
    template : `numpy.ndarray`
        (band, k, k) with k odd.

    Returns
    -------
    `numpy.ndarray`
        A new array; no pixel is above the value where the ray to the centre crosses the next square ring inwards,
        interpolated linearly between that ring's two nearest pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.backends.classic.symmetric import monotone
    >>> monotone(np.array([[[0.0, 2, 1], [1, 1, 3], [0, 0, 1]]]))
    array([[[0., 1., 1.],
            [1., 1., 1.],
            [0., 0., 1.]]])
    """
    bands, size, _ = template.shape
    flat = np.ascontiguousarray(template.reshape(bands, -1).T)
    for pixels, inner, outer, weight in _rays(size // 2):
        limit = flat[inner]
        limit *= 1 - weight
        limit += weight * flat[outer]
        flat[pixels] = np.minimum(flat[pixels], limit)
    return flat.T.reshape(template.shape)


@lru_cache(maxsize=64)
def _rays(radius):
    """For each square ring: its pixels, the two pixels inwards that each one's ray passes between, and the weight."""
    size = 2 * radius + 1
    rings = []
    for r in range(1, radius + 1):
        side = np.arange(-r, r + 1)
        dy = np.concatenate([np.full(2 * r + 1, -r), np.full(2 * r + 1, r), side[1:-1], side[1:-1]])
        dx = np.concatenate([side, side, np.full(2 * r - 1, -r), np.full(2 * r - 1, r)])
        # Along the ring's side the ray moves in by (r - 1) / r; across it, by one pixel.
        y, x = dy * (r - 1) / r, dx * (r - 1) / r
        y0, x0 = np.trunc(y).astype(np.intp), np.trunc(x).astype(np.intp)
        # Never quite 0: an unknown value, infinite, times 0 would be no number.
        weight = np.maximum(np.maximum(np.abs(y - y0), np.abs(x - x0)), 1e-300)
        y1 = y0 + (np.sign(dy) * (np.abs(y - y0) > 1e-9)).astype(np.intp)
        x1 = x0 + (np.sign(dx) * (np.abs(x - x0) > 1e-9)).astype(np.intp)

        def index(a, b):
            return (a + radius) * size + b + radius

        rings.append((index(dy, dx), index(y0, x0), index(y1, x1), weight[:, np.newaxis]))
    return tuple(rings)
