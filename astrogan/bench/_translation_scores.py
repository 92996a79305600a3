"""What is measured of a stamp, real or translated, and kept until the tables are made.

Every image of a target, the real one and the truth included, is measured in the same way and on the same pixels;
the tables compare the measurements.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from astrogan.bench._translation_rows import stamps_of
from astrogan.bench._translation_sets import sky_mask
from astrogan.exceptions import AstroganError

__all__ = ["APERTURE", "EDGES", "LEAST_SKY", "REAL", "TRUTH", "Measured", "axes_power", "measure_chunk", "seed_of",
           "windowed_centroids"]  # fmt: skip

EDGES = np.arange(0.0, 6.25, 0.5)
"""Edges of the rings in arcsec."""

APERTURE = 3.0
"""Radius in arcsec for magnitudes."""

REAL, TRUTH = "real", "truth"

_STRIDE = 8  # pixels between those whose distribution is kept
_SIGNAL_PIXELS = 64
LEAST_SKY = 0.2
"""Part of a stamp that must be sky for its noise to be measured."""

_ITERATIONS, _SETTLED = 60, 1e-4


@dataclass
class Measured:
    """A row's images of one direction, measured; axes (stamp, band, ...), NaN where there is nothing.

    Attributes
    ----------
    fractions : `numpy.ndarray`
        (stamp, band, ring).
    flux : `numpy.ndarray`
        In the aperture, (stamp, band).
    centroid : `numpy.ndarray`
        (stamp, band, 2) in pixels.
    shape : `numpy.ndarray`
        Size, e1 and e2 in r, (stamp, 3).
    power : `numpy.ndarray`
        (chunk, band, y, x // 2 + 1): mean over the chunk's stamps; kx is not negative.
    number : `numpy.ndarray`
        Stamps behind each chunk's power, (chunk,).
    noise : `~astrogan.metrics.NoiseStatistics` or None
        Of stamps with enough sky.
    axes : `numpy.ndarray`
        Power of the noise on kx = 0 and ky = 0, over its variance: (stamp, band, 2, frequency).
    residual : `numpy.ndarray`
        Image minus truth at some pixels with signal, (stamp, band, pixel); of the truth the signal itself.
    sigma : `numpy.ndarray`
        Of the target's blank sky, (stamp, band).
    coverage : `numpy.ndarray`
        chi^2, parts within 1 and 2 sigma of the truth: (stamp, band, 3).
    energy : `numpy.ndarray`
        Energy score in units of the noise, (stamp, band); of the first stamps only.
    failed : int
    """

    fractions: np.ndarray
    flux: np.ndarray
    centroid: np.ndarray
    shape: np.ndarray
    power: np.ndarray
    number: np.ndarray
    noise: object
    axes: np.ndarray
    residual: np.ndarray
    sigma: np.ndarray
    coverage: np.ndarray
    energy: np.ndarray
    failed: int = 0

    @classmethod
    def joined(cls, parts):
        """Several chunks as one.

        Parameters
        ----------
        parts : sequence of Measured

        Returns
        -------
        Measured
        """
        from astrogan.metrics import NoiseStatistics

        values = {}
        for name in cls.__dataclass_fields__:
            own = [getattr(part, name) for part in parts]
            if name == "noise":
                present = [n for n in own if n is not None]
                values[name] = NoiseStatistics.joined(present) if present else None
            elif name == "failed":
                values[name] = sum(own)
            else:
                values[name] = np.concatenate(own)
        return cls(**values)


def seed_of(*words):
    """A seed that depends on all the words and on nothing else.

    Parameters
    ----------
    *words
        Anything with a steady text.

    Returns
    -------
    int
    """
    text = " ".join(map(str, words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


class _Ruler:
    """Everything that all images of one target are measured with."""

    def __init__(self, pair, other, side):
        from astrogan.metrics import ring_weights

        self.other = other
        self.truth = np.asarray(other.truth, np.float64)
        self.sigma = np.asarray(other.sigma, np.float64)
        self.position = np.asarray(pair.galaxy["positions"][side], np.float64)
        shape, scale = self.truth.shape[1:], other.pixel_scale
        self.rings = ring_weights(shape, self.position, EDGES / scale)
        self.circle = ring_weights(shape, self.position, [0, APERTURE / scale])[0]
        self.width = 1.5 * np.asarray(other.fwhm, np.float64) / 2.3548 / scale
        self.mask = sky_mask(other)
        self.has_sky = np.mean(~self.mask) > LEAST_SKY
        self.bright = np.stack([_some(t, s) for t, s in zip(self.truth, self.sigma, strict=True)])
        self.middle = list(other.bands).index("r") if "r" in other.bands else 0

    def at_signal(self, cube):
        """Values at the pixels with signal; NaN where there are too few of them."""
        flat = cube.reshape(len(cube), -1)
        return np.where(self.bright >= 0, np.take_along_axis(flat, np.maximum(self.bright, 0), axis=1), np.nan)


def _some(truth, sigma):
    """Indices of pixels above half a sigma, more of them among the brightest; -1 fills up."""
    order = np.argsort(truth, axis=None)
    order = order[truth.ravel()[order] > 0.5 * sigma]
    chosen = np.full(_SIGNAL_PIXELS, -1)
    if len(order):
        # The brightest have most to say about photon noise, and are few.
        ranks = np.unique(np.geomspace(1, len(order), _SIGNAL_PIXELS).astype(int))
        chosen[: len(ranks)] = order[-ranks]
    return chosen


def _measure(ruler, cube, variance=None, *, noise=True):
    """One image as the fields of `Measured`, without the stamp axis."""
    from astrogan.metrics import chi2_coverage, moments

    bands = len(cube)
    flux = np.tensordot(cube, ruler.rings, axes=((1, 2), (1, 2)))
    total = flux.sum(axis=1, keepdims=True)
    shape = moments(cube[ruler.middle], ruler.position, sigma=ruler.width[ruler.middle])
    found = {
        "fractions": np.divide(flux, total, out=np.full(flux.shape, np.nan), where=total > 0),
        "flux": (cube * ruler.circle).sum(axis=(1, 2)),
        "centroid": windowed_centroids(cube, ruler.position, ruler.width),
        "shape": np.array([shape.size, shape.e1, shape.e2]),
        "coverage": np.full((bands, 3), np.nan),
        "residual": ruler.at_signal(cube - ruler.truth),
        "sigma": ruler.sigma,
        "power": _half_power(cube),
    }
    if variance is not None:
        covered = chi2_coverage(ruler.truth, cube, variance)
        found["coverage"] = np.stack([covered.chi2, covered.within_1, covered.within_2], axis=1)
    found["noise"], found["axes"] = _noise(ruler, cube) if noise and ruler.has_sky else (None, _no_axes(cube))
    return found


def windowed_centroids(cube, position, widths):
    """Centres under round Gaussian weights that follow them, as `~astrogan.metrics.centroid` with ``sigma``, at once.

    Parameters
    ----------
    cube : `numpy.ndarray`
        (band, y, x).
    position : `numpy.ndarray`
        (x, y) to start from.
    widths : `numpy.ndarray`
        Of the weights, in pixels, (band,).

    Returns
    -------
    `numpy.ndarray`
        (band, 2); NaN where there is no solution near the start.
    """
    height, width = cube.shape[1:]
    centre = np.tile(np.asarray(position, np.float64), (len(cube), 1))
    settled = np.zeros(len(cube), bool)
    x, y, widths = np.arange(width), np.arange(height), np.asarray(widths, np.float64)[:, None]
    for _ in range(_ITERATIONS):
        dx, dy = x - centre[:, :1], y - centre[:, 1:]
        wx, wy = np.exp(-0.5 * (dx / widths) ** 2), np.exp(-0.5 * (dy / widths) ** 2)
        along = np.einsum("by,byx->bx", wy, cube)  # the weight is a product, so that one sum serves two
        flux = (along * wx).sum(axis=1)
        step_x = (along * wx * dx).sum(axis=1)
        step_y = (np.einsum("byx,bx->by", cube, wx) * wy * dy).sum(axis=1)
        lost = ~(flux > 0)
        step = 2 * np.stack([step_x, step_y], axis=1) / np.where(lost, 1, flux)[:, None]
        step = np.clip(step, -widths, widths)
        step[lost] = np.nan
        centre = np.where(settled[:, None], centre, centre + step)
        settled |= (np.abs(step) < _SETTLED).all(axis=1)
        if (settled | np.isnan(centre[:, 0])).all():
            break
    outside = ~((centre > -0.5) & (centre < (width - 0.5, height - 0.5))).all(axis=1)
    centre[~settled | outside] = np.nan
    return centre


def _half_power(cube):
    """As `~astrogan.metrics.stacked_fourier_map`, of one image, kx >= 0."""
    taper = _taper(cube.shape[1:])
    mean = (taper * cube).sum(axis=(1, 2), keepdims=True) / taper.sum()
    return (np.abs(np.fft.rfft2(taper * (cube - mean))) ** 2 / (taper**2).sum()).astype(np.float32)


def _taper(shape):
    y, x = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in shape)
    return y[:, None] * x


def _noise(ruler, cube):
    """Statistics of the sky, and its power on the two axes of Fourier space over its variance."""
    from astrogan.metrics import noise_statistics

    statistics = noise_statistics(cube[None], mask=ruler.mask, stride=_STRIDE)
    return statistics, axes_power(cube, ruler.mask, statistics.std[0])


def axes_power(cube, mask, std):
    """Power of the unmasked sky on kx = 0 and on ky = 0, over its variance, the zero frequency left out.

    Parameters
    ----------
    cube : `numpy.ndarray`
        (band, y, x).
    mask : `numpy.ndarray` of bool
        (y, x).
    std : `numpy.ndarray`
        (band,).

    Returns
    -------
    `numpy.ndarray`
        (band, 2, frequency).
    """
    weight = _taper(cube.shape[1:]) * ~mask
    mean = (weight * cube).sum(axis=(1, 2), keepdims=True) / weight.sum()
    tapered = weight * (cube - mean)
    # The transform on an axis is that of the sum along the other.
    norm = (weight**2).sum() * std**2
    power = [np.abs(np.fft.rfft(tapered.sum(axis=axis))) ** 2 / norm[:, None] for axis in (2, 1)]
    shortest = min(p.shape[1] for p in power)
    return np.stack([p[:, 1:shortest] for p in power], axis=1)


def _no_axes(cube):
    return np.full((len(cube), 2, min(cube.shape[1:]) // 2), np.nan)


def measure_chunk(rows, pairs, first, directions, samples, sampled):
    """Measure all rows on some pairs.

    Parameters
    ----------
    rows : sequence of Row
    pairs : callable
        ``pairs(start, number)`` yields pairs. Must be importable where more than one process is used.
    first : tuple of int
        Number of the first pair, and how many.
    directions : sequence of str
    samples : int
        Random images a row for the energy score.
    sampled : int
        Pairs, from the beginning, whose energy score is taken.

    Returns
    -------
    dict
        {direction: {row name, `REAL` or `TRUTH`: Measured}}.
    """
    start, number = first
    kept = {direction: {} for direction in directions}
    failed = {}
    for k, pair in enumerate(pairs(start, number), start):
        for direction in directions:
            stamp, other = stamps_of(pair, direction)
            ruler = _Ruler(pair, other, int(other is pair.second))
            real = np.asarray(other.data, np.float64)
            own = kept[direction]
            _keep(own, REAL, _measure(ruler, real, np.asarray(other.variance, np.float64)))
            _keep(own, TRUTH, _measure(ruler, ruler.truth, noise=False) | {"residual": ruler.at_signal(ruler.truth)})
            for row in rows:
                try:
                    found = _measure_row(row, stamp, other, ruler, (k, direction), samples if k < sampled else 0)
                except AstroganError:
                    failed[direction, row.name] = failed.get((direction, row.name), 0) + 1
                    found = {name: np.full_like(np.asarray(v, float), np.nan) if name != "noise" else None
                             for name, v in own[REAL][-1].items()}  # fmt: skip
                _keep(own, row.name, found)
    return {
        direction: {name: _packed(found, failed.get((direction, name), 0)) for name, found in own.items()}
        for direction, own in kept.items()
    }


def _keep(kept, name, found):
    found.setdefault("energy", np.full(len(found["flux"]), np.nan))
    kept.setdefault(name, []).append(found)


def _measure_row(row, stamp, other, ruler, key, samples):
    from astrogan.metrics import energy_score

    made = [row(stamp, other, np.random.default_rng(seed_of(row.name, *key, s))) for s in range(max(1, samples))]
    found = _measure(ruler, made[0].data, made[0].variance)
    if samples > 1:
        real = np.asarray(other.data, np.float64)
        within = ruler.rings.sum(axis=0) > 0.5
        found["energy"] = np.array(
            [
                energy_score([m.data[b][within] / sigma for m in made], real[b][within] / sigma)
                for b, sigma in enumerate(ruler.sigma)
            ]
        )
    return found


def _packed(found, failed):
    from astrogan.metrics import NoiseStatistics

    noise = [f["noise"] for f in found if f["noise"] is not None]
    power = np.stack([f["power"] for f in found]).astype(np.float64)
    good = np.isfinite(power[:, 0, 0, 0])
    return Measured(
        **{name: np.stack([f[name] for f in found]).astype(np.float32 if name in ("residual", "axes") else np.float64)
           for name in ("fractions", "flux", "centroid", "shape", "axes", "residual", "sigma", "coverage", "energy")},
        power=(power[good].mean(axis=0) if good.any() else np.zeros(power.shape[1:]))[None].astype(np.float32),
        number=np.array([good.sum()]),
        noise=NoiseStatistics.joined(noise) if noise else None,
        failed=failed,
    )  # fmt: skip
