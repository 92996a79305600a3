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
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from numbers import Integral, Real

import numpy as np
import torch

from astrogan.api import Estimate, Observation
from astrogan.backends.classic._fourier import effective_radius, profile_width
from astrogan.backends.classic._richardson_lucy_field import Field, Sky, checked_psf, measure_sky
from astrogan.backends.gan._device import device_of
from astrogan.exceptions import InputError
from astrogan.image.tiling import available_cores, single_torch_thread

__all__ = ["RichardsonLucy"]

THREADED_PIXELS = 2**18  # images up to this many pixels are transformed by one thread: more only slow it down
KEPT_PIXELS = 2**21  # what tiles of larger images have in common is little of their work, and not kept
TILE, TILE_ON_GPU = 336, 2048  # what is quickest: in a core's cache, and to keep a GPU busy

NO_CUTS = ((False, False), (False, False))


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
    device : str
        Where the transforms are made: "cpu", "cuda", "cuda:<number>", or "auto" (CUDA where torch finds it).

    Raises
    ------
    `~astrogan.exceptions.InputError`
        If an option has a value that it cannot have, or there is no such device.

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
        device="cpu",
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
        self.device = device
        self._device = device_of(device)
        self._skies: tuple[Sky, ...] | None = None
        self._keep = True

    @property
    def halo(self) -> int:
        """-1, for want of a PSF; `halo_for` knows it."""
        return -1

    @property
    def tile_size(self) -> int:
        """Outer edge in pixels of the tiles at which it is quickest."""
        return TILE if self._device.type == "cpu" else TILE_ON_GPU

    def halo_for(self, observation: Observation) -> int:
        """Context in pixels at which valid pixels agree with the whole image to 1e-5 of its peak; -1 with ``stop``."""
        if self.stop:
            return -1
        return halo_width(checked_psf(observation), self.iterations, self.acceleration)

    def for_image(self, observation: Observation) -> RichardsonLucy:
        """This method with the background and noise of the whole image settled, so that no tile decides by itself."""
        settled = copy.copy(self)
        bands = range(len(observation.data))
        settled._skies = tuple(measure_sky(observation, band, self.background) for band in bands)
        settled._keep = observation.shape[1] * observation.shape[2] <= KEPT_PIXELS
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
            return self._restore(observations, cuts, rngs, [self._skies] * len(observations))

    def batch(self, observations, *, rngs, workers=None) -> list[Estimate]:
        """Restore many images that have nothing to do with each other, as stamps of a catalog.

        Parameters
        ----------
        observations : list of `~astrogan.api.Observation`
            Those that follow one another with equal shapes and PSFs share their transforms, two by two.
        rngs : list of `numpy.random.Generator`
            One an image.
        workers : int, optional
            Threads. Default: one for each core that the process may use.

        Returns
        -------
        list of `~astrogan.api.Estimate`
            What each image gives by itself, to within rounding: 1e-5 of its peak.
        """
        skies = [self.for_image(observation)._skies for observation in observations]
        jobs = self._pairs(observations, skies)

        def work(job):
            chosen = [observations[i] for i in job]
            own = [tuple(sky.scaled() for sky in skies[i]) if len(job) == 2 else skies[i] for i in job]
            with single_torch_thread():
                return self._restore(chosen, [NO_CUTS] * len(job), [rngs[i] for i in job], own)

        pool = ThreadPoolExecutor(workers or available_cores(), thread_name_prefix="astrogan-stamp")
        try:
            return [estimate for done in pool.map(work, jobs) for estimate in done]
        finally:
            pool.shutdown(cancel_futures=True)

    def _pairs(self, observations, skies) -> list[tuple[int, ...]]:
        """Indices of the images that are restored together: one or two."""
        alone = [bool(self.stop) or any(sky.flat for sky in own) for own in skies]
        jobs, i = [], 0
        while i < len(observations):
            two = i + 1 < len(observations) and not alone[i] and not alone[i + 1]
            two = two and _alike(observations[i], observations[i + 1])
            jobs.append((i, i + 1) if two else (i,))
            i += len(jobs[-1])
        return jobs

    def _restore(self, observations, cuts, rngs, skies) -> list[Estimate]:
        data = [np.empty(o.shape, np.float32) for o in observations]
        variance = [np.empty(o.shape, np.float32) if self.uncertainty else None for o in observations]
        infos = [{} for _ in observations]
        bands = observations[0].bands
        for band, name in enumerate(bands):
            own = [each[band] for each in skies]
            field = Field(observations, band, cuts, own, self.weighting, self._device, keep=self._keep)
            estimate = field.start(field.weighted)
            if not self.uncertainty:
                field.weight = field.reach = None  # a sixth of what a tile needs
            estimate, done = self._iterate(field, field.weighted, estimate)
            field.unpack(estimate, into=[d[band] for d in data])
            for sky, d, o in zip(field.skies, data, observations, strict=True):
                if sky.flat:  # nothing to restore, and rounding should leave no trace
                    d[band] = o.data[band]
            if self.uncertainty:
                self._bootstrap(field, estimate, rngs, into=[v[band] for v in variance])
            suffix = "" if len(bands) == 1 else f"_{name}"
            for info, sky in zip(infos, field.skies, strict=True):
                info[f"background{suffix}"] = sky.background
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
                    point = momentum.clamp_(min=field.floor)
                previous, estimate = estimate, torch.empty_like(estimate) if previous is None else previous
            model = field.blur(point)
            if self.stop and field.reduced_chi2(model) <= self.chi2:
                return point, k
            correction = field.correction(torch.div(weighted, model.clamp_(min=field.floor), out=model))
            estimate = torch.mul(point, correction, out=estimate)
        return estimate, self.iterations

    def _bootstrap(self, field: Field, estimate: torch.Tensor, rngs, into) -> None:
        total = torch.zeros_like(estimate)
        for _ in range(self.samples):
            noisy = field.noisy(rngs)
            change = self._iterate(field, noisy, field.start(noisy))[0].sub_(estimate)
            total.addcmul_(change, change)
        field.unpack_squares(total.div_(self.samples), into=into)


def _alike(one: Observation, other: Observation) -> bool:
    """Whether two images may share their transforms."""
    same = one.shape == other.shape and (one.variance is None) == (other.variance is None)
    return same and one.psf is not None and np.array_equal(one.psf, other.psf)


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
