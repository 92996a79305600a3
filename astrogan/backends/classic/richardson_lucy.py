"""Richardson-Lucy deconvolution that is safe on images of the sky.

The textbook iteration (Richardson 1972, JOSA 62, 55; Lucy 1974, AJ 79, 745) wants positive data, a dark sky and
nothing beyond the border. Here instead

- the data term is weighted: masked pixels have no weight, noisier ones less, and the correction is divided by
  ``H^T w`` (the exposure map of Snyder et al. 1993, JOSA A 10, 1014);
- the image goes on beyond its border into a margin without weight, so corners do not darken (Bertero & Boccacci
  2005, A&A 437, 369);
- it runs on ``d + b`` with a constant background ``b``, which a normalised PSF leaves as it is, so negative sky is no
  trouble; what lies even below ``-b`` is carried over as it is, so nothing is clipped and flux is conserved.
"""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch

from astrogan.api import Estimate, Observation
from astrogan.backends.classic._fourier import Blur, effective_radius, good_size, profile_width, trimmed
from astrogan.exceptions import InputError, PSFError
from astrogan.image.tiling import single_torch_thread

__all__ = ["RichardsonLucy"]

SKY_LEVEL = 3.0  # in sigma: where the background puts the sky
SEEN = 1e-3  # part of a pixel's light that must fall on valid data for the pixel to be restored
TAIL = 5e-3  # part of a pixel's light that may come from beyond the margin, on each side
WEIGHT_FLOOR = 0.01  # smallest weight of a valid pixel: float32 transforms leave no room for less
SAMPLE = 2**16  # pixels that the sky's statistics are taken from
THREADED_PIXELS = 2**18  # images up to this many pixels are transformed by one thread: more only slow it down

TINY = float(np.finfo(np.float32).tiny)

NO_CUTS = ((False, False), (False, False))


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
    """

    background: float
    level: float
    variance: float
    floor: float
    flat: bool = False


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
    sky = _quantile(sample, 0.5)
    if observation.variance is None:
        # The spread below the median: sources lie above it.
        variance = (sky - _quantile(sample, 0.158655)) ** 2
        poisson_level = np.inf
    else:
        noise = observation.variance[band].ravel()[chosen]
        variance = _quantile(noise, 0.5)
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
    return Sky(float(background), level, variance, floor, flat=brightest == faintest)


def _quantile(sample: np.ndarray, q: float) -> float:
    """The quantile by linear interpolation; sorting float32 is quicker than numpy's own selection."""
    ordered = np.sort(sample)
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low]) + (position - low) * (float(ordered[high]) - float(ordered[low]))


def _poisson_level(signal: np.ndarray, excess: np.ndarray, variance: float) -> float:
    """``variance / g`` for the gain g in ``excess = g signal``; infinite where sources add no variance."""
    bright = signal > 5 * np.sqrt(variance)
    gain = float(np.median(excess[bright] / signal[bright])) if bright.sum() >= 16 else 0.0
    return variance / gain if gain > 0 else np.inf


class RichardsonLucy:
    """Richardson-Lucy deconvolution with mask, weights, background and free boundary.

    Parameters
    ----------
    iterations : int
        Number of iterations; the largest number where ``stop`` is set.
    background : "auto", float or None
        Constant added to the data for the iteration, in the image's unit. The result does not fall below its
        negative, or below the data where those do. ``"auto"`` raises the sky to 3 sigma, or to the level that makes
        the Poisson weights fit the variance of sky and sources where that is lower; sigma is from the variance where
        there is one, else from the spread of the pixels below the median. `None` or 0: the data as they are.
    acceleration : None or "nesterov"
        ``"nesterov"`` extrapolates with fixed momentum (Nesterov 1983; clipped to stay positive as in Biggs & Andrews
        1997, Appl. Opt. 36, 1766). 7, 13, 19, 25 iterations then reach the likelihood of 10, 30, 60, 100 plain
        ones; at equal likelihood the images differ by a few per cent rms.
    stop : None or "chi2"
        ``"chi2"`` ends a band's iteration once its reduced chi^2 is at most ``chi2`` (Morozov's discrepancy
        principle). That is decided over the whole image, which is therefore not cut into tiles. Without a variance
        the sky's own is used.
    chi2 : float
        The reduced chi^2 at which to stop.
    weighting : "variance" or None
        ``"variance"`` gives less weight to pixels that are noisier than Poisson noise over the sky explains (edges
        of a mosaic, say): ``w = min(1, (H y / level) (sky variance / H var))``, where ``y >= level`` are the data
        with background. `None`: only the mask counts.
    uncertainty : None or "bootstrap"
        ``"bootstrap"`` repeats the restoration with noise drawn from the variance (the sky's own without one) added
        to the data, and gives the mean square of what changes. That is the noise's part of the error alone: not the
        bias of an unfinished iteration, nor an error of the PSF. Adding noise to data that are noisy already
        overestimates it a little. `None`: the result has no variance.
    samples : int
        Number of repetitions; the standard deviation is good to ``1 / sqrt(2 samples)``.

    Raises
    ------
    `~astrogan.exceptions.InputError`
        If an option has a value that it cannot have.

    Notes
    -----
    One iteration multiplies the estimate ``u`` by ``H^T(w y / H u) / H^T w``; it conserves ``sum(w H u)``, so total
    flux where the weights are one. The start is constant, as in the textbook. Each band has its own PSF and is
    restored by itself.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import Observation
    >>> from astrogan.backends.classic.richardson_lucy import RichardsonLucy
    >>> psf = np.full((1, 3, 3), 1 / 9)
    >>> flat = Observation(np.full((1, 16, 16), -2.0), psf=psf)
    >>> restored = RichardsonLucy(iterations=10)(flat, rng=np.random.default_rng(0)).data
    >>> bool(np.allclose(restored, -2.0))
    True
    """

    name = "richardson-lucy"
    needs_psf = True
    needs_variance = False
    min_size = 1
    tile_size = 320
    tiles_per_call = 2

    def __init__(
        self,
        iterations=30,
        *,
        background="auto",
        acceleration=None,
        stop=None,
        chi2=1.0,
        weighting="variance",
        uncertainty=None,
        samples=16,
    ):
        self.iterations = positive_int("iterations", iterations, 30)
        self.samples = positive_int("samples", samples, 16)
        self.background = checked_background(background)
        self.acceleration = one_of("acceleration", acceleration, (None, "nesterov"))
        self.stop = one_of("stop", stop, (None, "chi2"))
        self.weighting = one_of("weighting", weighting, (None, "variance"))
        self.uncertainty = one_of("uncertainty", uncertainty, (None, "bootstrap"))
        if isinstance(chi2, bool) or not isinstance(chi2, Real) or not 0 < chi2 < np.inf:
            raise InputError(f"chi2={chi2!r} must be a positive number, e.g. 1.0")
        self.chi2 = float(chi2)
        self._skies: tuple[Sky, ...] | None = None

    @property
    def halo(self) -> int:
        """-1, for want of a PSF; `halo_for` knows it."""
        return -1

    def halo_for(self, observation: Observation) -> int:
        """Context in pixels at which valid pixels agree with the whole image to 1e-5 of its peak; -1 with ``stop``."""
        if self.stop:
            return -1
        return halo_width(_checked_psf(observation), self.iterations, self.acceleration)

    def for_image(self, observation: Observation) -> RichardsonLucy:
        """This method with the background and noise of the whole image settled, so that no tile decides by itself."""
        settled = copy.copy(self)
        bands = range(len(observation.data))
        settled._skies = tuple(measure_sky(observation, band, self.background) for band in bands)
        return settled

    def __call__(self, observation: Observation, *, rng: np.random.Generator) -> Estimate:
        """Restore a whole image, or what is to be treated as one."""
        settled = self if self._skies is not None else self.for_image(observation)
        return settled.call_tiles([observation], cuts=[NO_CUTS], rngs=[rng])[0]

    def call_tiles(self, observations, *, cuts, rngs) -> list[Estimate]:
        """Restore one or two tiles at once.

        Parameters
        ----------
        observations : list of `~astrogan.api.Observation`
            One or two; their shapes may differ, the PSFs too (then each is restored by itself).
        cuts : list
            For each tile, along y and x, whether the image goes on before and behind it; see `astrogan.image.tiling`.
        rngs : list of `numpy.random.Generator`
            One a tile.

        Returns
        -------
        list of `~astrogan.api.Estimate`
        """
        small = all(np.prod(o.shape[1:]) <= THREADED_PIXELS for o in observations)
        with single_torch_thread() if small else nullcontext():
            if len(observations) > 1 and not np.array_equal(observations[0].psf, observations[1].psf):
                each = zip(observations, cuts, rngs, strict=True)
                return [self.call_tiles([o], cuts=[c], rngs=[r])[0] for o, c, r in each]
            return self._restore(observations, cuts, rngs)

    def _restore(self, observations, cuts, rngs) -> list[Estimate]:
        data = [np.empty(o.shape, np.float32) for o in observations]
        variance = [np.empty(o.shape, np.float32) if self.uncertainty else None for o in observations]
        infos = [{} for _ in observations]
        bands = observations[0].bands
        for band, name in enumerate(bands):
            field = Field(observations, band, cuts, self._skies[band], self.weighting)
            estimate = field.start(field.weighted)
            if not self.uncertainty:
                field.weight = field.reach = None  # a sixth of what a tile needs
            estimate, done = self._iterate(field, field.weighted, estimate)
            field.unpack(estimate, field.carry, into=[d[band] for d in data])
            if field.sky.flat:  # nothing to restore, and rounding should leave no trace
                for d, o in zip(data, observations, strict=True):
                    d[band] = o.data[band]
            if self.uncertainty:
                self._bootstrap(field, estimate, rngs, into=[v[band] for v in variance])
            suffix = "" if len(bands) == 1 else f"_{name}"
            for info in infos:
                info[f"background{suffix}"] = field.sky.background
                info[f"iterations{suffix}"] = done
        return [Estimate(d, variance=v, info=i) for d, v, i in zip(data, variance, infos, strict=True)]

    def _iterate(self, field: Field, weighted: torch.Tensor, estimate: torch.Tensor) -> tuple[torch.Tensor, int]:
        """From the first iteration's ``estimate`` (overwritten) to the last one's, and the number of those done."""
        previous = momentum = None
        for k in range(1, self.iterations):
            point = estimate
            if self.acceleration:
                if previous is not None:
                    # Kept just above zero: a pixel at zero could never return.
                    momentum = torch.lerp(previous, estimate, 1 + (k - 1) / (k + 2), out=momentum)
                    point = momentum.clamp_(min=field.sky.floor)
                previous, estimate = estimate, torch.empty_like(estimate) if previous is None else previous
            model = field.blur(point)
            if self.stop and field.reduced_chi2(model) <= self.chi2:
                return point, k
            correction = field.correction(torch.div(weighted, model.clamp_(min=field.sky.floor), out=model))
            estimate = torch.mul(point, correction, out=estimate)
        return estimate, self.iterations

    def _bootstrap(self, field: Field, estimate: torch.Tensor, rngs, into) -> None:
        total = torch.zeros_like(estimate)
        for _ in range(self.samples):
            noisy = field.noisy(rngs)
            change = self._iterate(field, noisy, field.start(noisy))[0].sub_(estimate)
            total.addcmul_(change, change)
        field.unpack(total.div_(self.samples), None, into=into)


class Field:
    """One band of one tile, or of two that share a PSF, laid on a grid with a margin that has no data.

    The tile begins at the grid's first pixel; the margins before and after it are one and the same strip of the
    periodic grid. It is wide enough that nothing reaches from one side's data to the other's.
    """

    def __init__(self, observations, band, cuts, sky: Sky, weighting):
        self.sky = sky
        self.band = band
        self.observations = observations
        self.shapes = [o.shape[1:] for o in observations]
        kernel = trimmed(_checked_psf(observations[0])[band])
        margin = effective_radius(kernel[None], TAIL)
        grid = _grid_shape(self.shapes, cuts, len(kernel) // 2, margin)
        self.blur = Blur(kernel, grid, packed=len(observations) == 2)
        data, self.carry = self._shifted()
        valid = self._pack(o.valid[band] for o in observations)
        self.weight = valid
        if weighting and self.observations[0].variance is not None and sky.level > 0:
            self.weight = self._noise_weight(data, valid)
        self.weighted = data.mul_(self.weight)
        self._set_domain(valid, cuts, margin)

    def _shifted(self) -> tuple[torch.Tensor, list[np.ndarray | None]]:
        """The data with background, never negative; and what was below zero then, which is carried over."""
        carry = []

        def shifted():
            for o in self.observations:
                data = o.data[self.band] + np.float32(self.sky.background)
                data[~o.valid[self.band]] = 0
                below = np.minimum(data, 0)
                carry.append(below if below.any() else None)
                yield np.maximum(data, 0, out=data)

        return self._pack(shifted()), carry

    def _noise_weight(self, data: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        noise = self._pack(o.variance[self.band] for o in self.observations).mul_(valid)
        if noise.max() <= 1.01 * self.sky.variance:
            return valid
        # Smoothed, because a variance that was computed from the data would otherwise prefer the pixels that noise
        # made faint; and sky counted as no less than its level, so that fluctuations of the sky change nothing.
        expected = self.blur(torch.clamp(data, min=self.sky.level).mul_(valid)).div_(self.sky.level)
        measured = self.blur(noise).div_(self.sky.variance)
        return expected.div_(measured.clamp_(min=TINY)).clamp_(min=WEIGHT_FLOOR, max=1).mul_(valid)

    def _set_domain(self, valid: torch.Tensor, cuts, margin: int) -> None:
        """Find which pixels are restored, how much of its model a datum loses by the others, and ``1 / H^T w``.

        With a model that is divided by ``reach``, the PSF's part inside the domain, a constant is an exact fixed
        point although the margin is finite. The division cancels from the iteration; only the start and the
        exposure have it.
        """
        self.reach = self.inverse_exposure = None
        if self.weight.min() == 1:
            return
        domain = self.blur.adjoint(valid).gt_(SEEN)
        for shape, cut, part in zip(self.shapes, cuts, self._parts(domain), strict=True):
            y, x = (_beyond(*axis, margin) for axis in zip(self.blur.shape, shape, cut, strict=True))
            part[y] = 0
            part[:, x] = 0
        self.reach = self.blur(domain).clamp_(min=0.1)
        exposure = self.blur.adjoint(self.weight / self.reach)
        self.inverse_exposure = domain.div_(exposure.clamp_(min=1e-2 * SEEN * WEIGHT_FLOOR))

    def start(self, weighted: torch.Tensor) -> torch.Tensor:
        """The first iteration's estimate: the model of a constant is known, so it takes one convolution."""
        return self.correction(weighted if self.reach is None else weighted / self.reach)

    def correction(self, ratio: torch.Tensor) -> torch.Tensor:
        """``H^T ratio / H^T w``; zero where hardly any data see a pixel."""
        # Rounding, or a PSF with negative pixels, can make it negative; a negative estimate would run away.
        out = self.blur.adjoint(ratio).clamp_(min=0)
        return out if self.inverse_exposure is None else out.mul_(self.inverse_exposure)

    def reduced_chi2(self, model: torch.Tensor) -> float:
        """Mean over the valid pixels of ``(model - data)^2 / variance``."""
        total = count = 0.0
        for o, (h, w), fitted in zip(self.observations, self.shapes, self._parts(model), strict=True):
            valid = o.valid[self.band]
            noise = self.sky.variance if o.variance is None else o.variance[self.band][valid]
            data = np.maximum(o.data[self.band][valid] + np.float32(self.sky.background), 0)
            residual = fitted[:h, :w].numpy()[valid] - data
            total += float(np.sum(np.square(residual, dtype=np.float64) / noise)) if np.all(noise) else 0.0
            count += float(valid.sum())
        return total / max(count, 1.0)

    def noisy(self, rngs) -> torch.Tensor:
        """The weighted data with noise drawn from the variance added."""
        data = []
        for o, rng in zip(self.observations, rngs, strict=True):
            valid = o.valid[self.band]
            variance = self.sky.variance if o.variance is None else o.variance[self.band]
            noise = np.sqrt(np.where(valid, variance, 0), dtype=np.float32)
            noise *= rng.standard_normal(o.shape[1:], np.float32)
            shifted = o.data[self.band] + np.float32(self.sky.background) + noise
            data.append(np.where(valid, np.maximum(shifted, 0), 0))
        return self._pack(data).mul_(self.weight)

    def unpack(self, estimate: torch.Tensor, carry, into) -> None:
        """Write the tiles' parts of the grid; ``carry`` `None` leaves the background in."""
        unseen = None if self.inverse_exposure is None else self._parts(self.inverse_exposure == 0)
        for i, ((h, w), part, out) in enumerate(zip(self.shapes, self._parts(estimate), into, strict=True)):
            out[...] = part[:h, :w].numpy()
            if carry is None:
                continue
            out -= np.float32(self.sky.background)
            if carry[i] is not None:
                out += carry[i]
            if unseen is not None:
                # Deep inside a mask nothing is known; the filling is as good as anything, and the mask says so.
                hidden = unseen[i][:h, :w].numpy()
                out[hidden] = self.observations[i].data[self.band][hidden]

    def _pack(self, arrays) -> torch.Tensor:
        """One image a tile, laid on the grid, zero elsewhere."""
        grid = torch.zeros(self.blur.image_shape)
        for array, (h, w), part in zip(arrays, self.shapes, self._parts(grid), strict=True):
            part.numpy()[:h, :w] = array
        return grid

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


def halo_width(psf: np.ndarray, iterations: int, acceleration=None) -> int:
    """Pixels of context at which a tile agrees with the whole image to 1e-5 of its peak, where pixels are valid.

    A difference at the edge of a tile falls off by a fixed factor for each width of the PSF and creeps in slowly with
    the iterations. Measured for Gaussians and Moffats of 2 to 9 pixels and 10 to 100 iterations, in the worst case
    (faint sources in noise); around bright ones the agreement is better.
    """
    if acceleration is None:
        plain, reach = iterations, 1.0
    else:
        plain, reach = max(iterations**2 / 5.5, 1.0), 1.25
    width = profile_width(psf)
    width *= (6.6 + 0.07 * width) * reach * (plain / 30) ** 0.125
    return int(np.ceil(max(width, effective_radius(psf, 1e-5))))


def _checked_psf(observation: Observation) -> np.ndarray:
    if observation.psf is None:
        raise PSFError("psf=None: Richardson-Lucy needs the PSF; give psf=, or use 'blind-richardson-lucy'")
    return observation.psf


def positive_int(name: str, value, example: int) -> int:
    """``value`` as int, or an `InputError` that says what it must be."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InputError(f"{name}={value!r} must be a positive integer, e.g. {example}")
    return int(value)


def one_of(name: str, value, choices):
    """``value``, or an `InputError` that lists the choices."""
    if value not in choices:
        raise InputError(f"{name}={value!r} is unknown; use one of {', '.join(map(repr, choices))}")
    return value


def checked_background(value):
    """``"auto"`` or a finite number; `None` is 0."""
    if value is None:
        return 0.0
    if isinstance(value, str) and value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(value):
        raise InputError(f"background={value!r} must be 'auto', None or a finite number in the image's unit")
    return float(value)
