"""One band of a tile, or of two, on the grid that Richardson-Lucy works on, with the sky and the weights that it needs.

See `astrogan.backends.classic.richardson_lucy`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from astrogan.api import Observation
from astrogan.backends.classic._cache import Cache
from astrogan.backends.classic._fourier import Blur, effective_radius, good_size, trimmed
from astrogan.exceptions import PSFError

__all__ = ["Field", "Sky", "checked_psf", "measure_sky"]

SKY_LEVEL = 3.0  # in sigma: where the background puts the sky
SEEN = 1e-3  # part of a pixel's light that must fall on valid data for the pixel to be restored
TAIL = 5e-3  # part of a pixel's light that may come from beyond the margin, on each side
WEIGHT_FLOOR = 0.01  # smallest weight of a valid pixel: float32 transforms leave no room for less
SAMPLE = 2**16  # pixels that the sky's statistics are taken from

TINY = float(np.finfo(np.float32).tiny)

_domains = Cache(32 * 2**20)


@dataclass(frozen=True)
class Sky:
    """What the whole image says about one band.

    Parameters
    ----------
    background : float
        Constant added to the data before, and taken off after, the iteration.
    level : float
        Where the sky lies with ``background`` added.
    variance : float
        Variance of a sky pixel.
    floor : float
        Smallest model value that data are divided by.
    flat : bool
        Whether all valid pixels are equal, so that there is nothing to restore.
    peak : float
        The brightest valid pixel with ``background`` added.
    scale : float
        What data are divided by, after ``background`` was added. ``level``, ``variance`` and ``floor`` are of the data
        divided.
    """

    background: float
    level: float
    variance: float
    floor: float
    flat: bool = False
    peak: float = 1.0
    scale: float = 1.0

    def scaled(self) -> Sky:
        """With the peak at one: for images that travel together, or the rounding of one would be noise to the other."""
        if not TINY < self.peak < np.inf:
            return self
        factor = 1 / self.peak
        floor = max(self.floor * factor, TINY)
        level, variance = self.level * factor, self.variance * factor**2
        return replace(self, level=level, variance=variance, floor=floor, scale=self.peak)


def measure_sky(observation: Observation, band: int, background="auto") -> Sky:
    """Sky level and noise of a band from its valid pixels, and the background that puts the sky where it is safe.

    With ``background="auto"`` the sky is raised to ``3 sigma``, or to the level at which Poisson noise as strong as
    that of the sources, ``var = g (d + b)``, explains the variance of the sky, where that is lower (but not below
    1 sigma). A sky that is higher already stays as it is.
    """
    data, valid = observation.data[band].ravel(), observation.valid[band].ravel()
    step = max(data.size // SAMPLE, 1)
    while math.gcd(step, observation.shape[2]) > 1:  # or only some columns would be looked at
        step += 1
    chosen = np.flatnonzero(valid[::step]) * step
    if chosen.size == 0:
        chosen = np.flatnonzero(valid)
    if chosen.size == 0:
        return Sky(0.0, 0.0, 0.0, TINY, flat=True)
    sample = data[chosen]
    sky, below = _quantiles(sample, 0.5, 0.158655)
    if observation.variance is None:
        # The spread below the median: sources lie above it.
        variance = (sky - below) ** 2
        poisson_level = np.inf
    else:
        noise = observation.variance[band].ravel()[chosen]
        (variance,) = _quantiles(noise, 0.5)
        poisson_level = _poisson_level(sample - sky, noise - variance, variance)
    sigma = np.sqrt(variance)
    if background == "auto":
        level = float(np.clip(poisson_level, sigma, SKY_LEVEL * sigma))
        background = max(level - sky, 0.0)
    where = {} if valid.all() else {"where": valid}  # much slower, but without a copy
    brightest = float(np.max(data, initial=-np.inf, **where))
    faintest = float(np.min(data, initial=np.inf, **where))
    level = sky + background
    # Far below the sky where there is one, but not below what float32 transforms of the brightest star resolve.
    peak = brightest + background
    floor = max(min(1e-7 * peak, 1e-2 * level), 1e-9 * peak, TINY)
    return Sky(float(background), level, variance, floor, flat=brightest == faintest, peak=peak)


def _quantiles(values: np.ndarray, *fractions: float) -> list[float]:
    """Quantiles by linear interpolation, without sorting all values."""
    positions = [q * (len(values) - 1) for q in fractions]
    neighbours = [(int(x), min(int(x) + 1, len(values) - 1)) for x in positions]
    ordered = np.partition(values, sorted({i for pair in neighbours for i in pair}))
    low, high = np.array([ordered[list(pair)] for pair in neighbours], np.float64).T
    return (low + (np.array(positions) % 1) * (high - low)).tolist()


def _poisson_level(signal: np.ndarray, excess: np.ndarray, variance: float) -> float:
    """``variance / g`` for the gain g in ``excess = g signal``; infinite where sources add no variance."""
    bright = signal > 5 * np.sqrt(variance)
    gain = float(np.median(excess[bright] / signal[bright])) if bright.sum() >= 16 else 0.0
    return variance / gain if gain > 0 else np.inf


class Field:
    """One band of one tile, or of two that share a PSF, laid on a grid with a margin that has no data.

    The tile begins at the grid's first pixel; the margins before and after it are one and the same strip of the
    periodic grid. It is wide enough that nothing reaches from one side's data to the other's. With ``keep`` what
    depends on the shapes alone is kept for the next image of the kind.
    """

    def __init__(self, observations, band, cuts, skies, weighting, device="cpu", *, keep=False):
        self.skies = list(skies)
        self.floor = min(sky.floor for sky in self.skies)
        self.band = band
        self.observations = observations
        self.shapes = [o.shape[1:] for o in observations]
        kernel = trimmed(checked_psf(observations[0])[band])
        margin = effective_radius(kernel[None], TAIL)
        grid = _grid_shape(self.shapes, cuts, len(kernel) // 2, margin)
        self.blur = Blur(kernel, grid, packed=len(observations) == 2, device=device)
        data, self.carry = self._shifted()
        valid = self._pack(o.valid[band] for o in observations)
        self.weight = valid
        if weighting and self.observations[0].variance is not None and any(sky.level > 0 for sky in self.skies):
            self.weight = self._noise_weight(data, valid)
        self.weighted = data.mul_(self.weight)
        self.reach, self.inverse_exposure = self._domain(valid, cuts, margin, keep)

    def _shifted(self) -> tuple[torch.Tensor, list[np.ndarray | None]]:
        """The data with background, never negative; and what was below zero then, which is carried over."""
        carry = []

        def shifted():
            for o, sky in zip(self.observations, self.skies, strict=True):
                data = o.data[self.band] + np.float32(sky.background)
                if sky.scale != 1:
                    data /= np.float32(sky.scale)
                data[~o.valid[self.band]] = 0
                below = np.minimum(data, 0)
                carry.append(below if below.any() else None)
                yield np.maximum(data, 0, out=data)

        return self._pack(shifted()), carry

    def _noise_weight(self, data: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        noise = self._pack(self._variances()).mul_(valid)
        plain = [
            sky.level <= 0 or bool(part.max() <= 1.01 * sky.variance)
            for part, sky in zip(self._parts(noise), self.skies, strict=True)
        ]
        if all(plain):
            return valid
        level = self._each(max(sky.level, TINY) for sky in self.skies)
        # Smoothed, because a variance that was computed from the data would otherwise prefer the pixels that noise
        # made faint; and sky counted as no less than its level, so that fluctuations of the sky change nothing.
        expected = self.blur(torch.maximum(data, level).mul_(valid)).div_(level)
        measured = self.blur(noise).div_(self._each(max(sky.variance, TINY) for sky in self.skies))
        weight = expected.div_(measured.clamp_(min=TINY)).clamp_(min=WEIGHT_FLOOR, max=1).mul_(valid)
        if self.skies[0] != self.skies[-1]:  # images that have nothing to do with each other
            for part, without, is_plain in zip(self._parts(weight), self._parts(valid), plain, strict=True):
                if is_plain:
                    part.copy_(without)
        return weight

    def _variances(self):
        """The variance of each tile, in the units of the grid."""
        for o, sky in zip(self.observations, self.skies, strict=True):
            variance = o.variance[self.band]
            yield variance if sky.scale == 1 else variance / np.float32(sky.scale) / np.float32(sky.scale)

    def _each(self, values) -> torch.Tensor:
        """A number for each tile, to be combined with a grid."""
        values = torch.tensor(list(values), dtype=torch.float32, device=self.blur.device)
        return values if self.blur.packed else values[0]

    def _domain(self, valid: torch.Tensor, cuts, margin: int, keep: bool) -> tuple:
        """``reach`` and ``1 / H^T w``, which depend on the shapes alone where all data count alike."""
        if self.weight.min() == 1:
            return None, None
        complete = self.weight is valid and all(o.valid[self.band].all() for o in self.observations)
        if not (keep and complete):
            return self._found_domain(valid, cuts, margin)
        key = (self.blur.key, tuple(self.shapes), tuple(tuple(map(tuple, cut)) for cut in cuts), margin)
        return _domains.get(key, lambda: self._found_domain(valid, cuts, margin))

    def _found_domain(self, valid: torch.Tensor, cuts, margin: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Which pixels are restored, how much of its model a datum loses by the others, and ``1 / H^T w``.

        With a model that is divided by ``reach``, the PSF's part inside the domain, a constant is an exact fixed
        point although the margin is finite. The division cancels from the iteration; only the start and the
        exposure have it.
        """
        domain = self.blur.adjoint(valid).gt_(SEEN)
        for shape, cut, part in zip(self.shapes, cuts, self._parts(domain), strict=True):
            y, x = (_beyond(*axis, margin) for axis in zip(self.blur.shape, shape, cut, strict=True))
            part[y] = 0
            part[:, x] = 0
        reach = self.blur(domain).clamp_(min=0.1)
        exposure = self.blur.adjoint(self.weight / reach)
        return reach, domain.div_(exposure.clamp_(min=1e-2 * SEEN * WEIGHT_FLOOR))

    def start(self, weighted: torch.Tensor) -> torch.Tensor:
        """The first iteration's estimate: the model of a constant is known, so it takes one convolution."""
        return self.correction(weighted if self.reach is None else weighted / self.reach)

    def correction(self, ratio: torch.Tensor) -> torch.Tensor:
        """``H^T ratio / H^T w``; zero where hardly any data see a pixel."""
        # Rounding, or a PSF with negative pixels, can make it negative; a negative estimate would run away.
        out = self.blur.adjoint(ratio).clamp_(min=0)
        return out if self.inverse_exposure is None else out.mul_(self.inverse_exposure)

    def reduced_chi2(self, model: torch.Tensor) -> float:
        """Mean over the valid pixels of ``(model - data)^2 / variance``; for data that are not scaled."""
        total = count = 0.0
        parts = self._parts(model.cpu())
        for o, sky, (h, w), fitted in zip(self.observations, self.skies, self.shapes, parts, strict=True):
            valid = o.valid[self.band]
            noise = sky.variance if o.variance is None else o.variance[self.band][valid]
            data = np.maximum(o.data[self.band][valid] + np.float32(sky.background), 0)
            residual = fitted[:h, :w].numpy()[valid] - data
            total += float(np.sum(np.square(residual, dtype=np.float64) / noise)) if np.all(noise) else 0.0
            count += float(valid.sum())
        return total / max(count, 1.0)

    def noisy(self, rngs) -> torch.Tensor:
        """The weighted data with noise drawn from the variance added."""
        data = []
        for o, sky, rng in zip(self.observations, self.skies, rngs, strict=True):
            valid, scale = o.valid[self.band], np.float32(sky.scale)
            variance = sky.variance * sky.scale**2 if o.variance is None else o.variance[self.band]
            noise = np.sqrt(np.where(valid, variance, 0), dtype=np.float32)
            noise *= rng.standard_normal(o.shape[1:], np.float32)
            shifted = (o.data[self.band] + np.float32(sky.background) + noise) / scale
            data.append(np.where(valid, np.maximum(shifted, 0), 0))
        return self._pack(data).mul_(self.weight)

    def unpack(self, estimate: torch.Tensor, into) -> None:
        """Write the tiles' parts of the grid in the image's unit, the background taken off."""
        unseen = None if self.inverse_exposure is None else self._parts((self.inverse_exposure == 0).cpu())
        parts = self._parts(estimate.cpu())
        for i, ((h, w), sky, part, out) in enumerate(zip(self.shapes, self.skies, parts, into, strict=True)):
            out[...] = part[:h, :w].numpy()
            if sky.scale != 1:
                out *= np.float32(sky.scale)
            out -= np.float32(sky.background)
            if self.carry[i] is not None:
                out += self.carry[i] * np.float32(sky.scale)
            if unseen is not None:
                # Deep inside a mask nothing is known; the filling is as good as anything, and the mask says so.
                hidden = unseen[i][:h, :w].numpy()
                out[hidden] = self.observations[i].data[self.band][hidden]

    def unpack_squares(self, squares: torch.Tensor, into) -> None:
        """Write the tiles' parts of a grid that holds squares, of errors say."""
        for (h, w), sky, part, out in zip(self.shapes, self.skies, self._parts(squares.cpu()), into, strict=True):
            out[...] = part[:h, :w].numpy()
            if sky.scale != 1:
                out *= np.float32(sky.scale) * np.float32(sky.scale)

    def _pack(self, arrays) -> torch.Tensor:
        """One image a tile, laid on the grid, zero elsewhere."""
        grid = torch.zeros(self.blur.image_shape)
        for array, (h, w), part in zip(arrays, self.shapes, self._parts(grid), strict=True):
            part.numpy()[:h, :w] = array
        return grid.to(self.blur.device)

    def _parts(self, grid: torch.Tensor) -> list[torch.Tensor]:
        return [grid[..., 0], grid[..., 1]] if self.blur.packed else [grid]


def _grid_shape(shapes, cuts, radius: int, margin: int) -> tuple[int, int]:
    """A quick grid that holds the tiles and, where one ends with the image, its margin.

    A margin is as far from the data on its other side as the PSF reaches. Where a tile is cut on both sides none is
    needed: what wraps around there is the halo's to absorb.
    """

    def needed(axis):
        sizes = zip(shapes, cuts, strict=True)
        return good_size(max(shape[axis] + (0 if all(cut[axis]) else margin + radius) for shape, cut in sizes))

    return needed(0), needed(1)


def _beyond(grid: int, size: int, cut: tuple[bool, bool], margin: int) -> slice:
    """The part of an axis of the grid that belongs neither to the tile nor to its margins."""
    if all(cut):
        return slice(0, 0)
    return slice(size + (0 if cut[1] else margin), grid - (0 if cut[0] else margin))


def checked_psf(observation: Observation) -> np.ndarray:
    if observation.psf is None:
        raise PSFError("psf=None: Richardson-Lucy needs the PSF; give psf=, or use 'blind-richardson-lucy'")
    return observation.psf
