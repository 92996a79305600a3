"""Endless pairs for training: images from a source, degraded on the fly by the `~astrogan.Degrader` that users call.

Every batch is a pure function of (seed, step): any number of workers, and a run that was killed and resumed, see the
same images, the same noise, in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["Degradation", "PairStream", "difference_noise"]

_FWHM_PER_SIGMA = 2.3548
_ATTEMPTS = 20


@dataclass(frozen=True)
class Degradation:
    """What is drawn anew for every image.

    Parameters
    ----------
    kind : {'galaxygan2017', 'physical'}
        The recipe of Schawinski et al. (2017) with noise relative to the image's own, or blur and noise on images in
        arbitrary units.
    fwhm : tuple of float
        Range of the Gaussian blur's FWHM, in pixels; drawn uniformly.
    noise_ratio : tuple of float
        ``galaxygan2017``: noise after degradation in units of the noise before. ``physical``: the same, for images that
        have noise. Drawn uniformly in the logarithm.
    peak_snr : tuple of float
        ``physical``, for images without noise: the blurred peak over the noise; drawn uniformly in the logarithm.
    shared_band_noise : float
        Part of the images whose bands share a plane of noise.
    photon_noise : float
        ``physical``: part of the images with photon noise of the source.
    moffat : float
        ``physical``: part of the images blurred by a Moffat profile instead of a Gaussian.
    uneven : float
        ``physical``: part of the images whose noise differs from place to place, as in a mosaic: by up to ten times, on
        either side of an edge, in a frame of fields or smoothly. The network is told so, in units of the least.
    negative : float
        ``physical``: part of the images with their sign changed, as sources in differences of images may have.

    Raises
    ------
    InputError
        If a range is not one.
    """

    kind: str = "galaxygan2017"
    fwhm: tuple[float, float] = (1.5, 7.0)
    noise_ratio: tuple[float, float] = (1.0, 10.0)
    peak_snr: tuple[float, float] = (5.0, 500.0)
    shared_band_noise: float = 0.0
    photon_noise: float = 0.0
    moffat: float = 0.0
    uneven: float = 0.0
    negative: float = 0.0

    def __post_init__(self):
        if self.kind not in ("galaxygan2017", "physical"):
            raise InputError(f"degradation kind={self.kind!r} must be 'galaxygan2017' or 'physical'")
        for name in ("fwhm", "noise_ratio", "peak_snr"):
            value = tuple(map(float, getattr(self, name)))
            if len(value) != 2 or not 0 < value[0] <= value[1]:
                raise InputError(f"degradation {name}={getattr(self, name)!r} must be two numbers, 0 < low <= high")
            object.__setattr__(self, name, value)
        for name in ("shared_band_noise", "photon_noise", "moffat", "uneven", "negative"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"degradation {name}={getattr(self, name)!r} must be a part, from 0 to 1")


class PairStream:
    """Batches of degraded images and their originals.

    Parameters
    ----------
    source : `~astrogan.train.sources.Source`
        The images to use: one part of the split.
    degradation : `Degradation`
    batch : int
        Images in a batch.
    crop : int
        Edge of the crops in pixels. With the physical degradation smaller images are set into sky of their own level
        and noise first.
    seed : int
    jitter : bool, optional
        Draw the noise level and the sky level that the network is told with an error, as those that users have.
    augment : bool, optional
        Turn and mirror.
    fixed : tuple of float, optional
        (fwhm, noise ratio or peak S/N): one degradation for all, for validation.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.train.sources import Sample, Source
    >>> from astrogan.train.stream import Degradation, PairStream
    >>> class Two(Source):
    ...     def __len__(self):
    ...         return 2
    ...
    ...     def load(self, i):
    ...         noise = np.random.default_rng(i).normal(0, 0.02, (3, 64, 64))
    ...         return Sample(noise.astype(np.float32))
    ...
    ...     name = describe = None
    >>> batch = PairStream(Two(), Degradation(), batch=2, crop=32, seed=1).batch(0)
    >>> batch["degraded"].shape, batch["fwhm"].shape
    ((2, 3, 32, 32), (2, 3))
    """

    def __init__(self, source, degradation, *, batch, crop, seed, jitter=True, augment=True, fixed=None):
        self.source, self.degradation = source, degradation
        self.size, self.crop, self.seed = int(batch), int(crop), int(seed)
        self.jitter, self.augment, self.fixed = jitter, augment, fixed

    def batch(self, step):
        """One batch.

        Parameters
        ----------
        step : int

        Returns
        -------
        dict of `numpy.ndarray`
            float32. ``degraded`` and ``original``, (n, band, y, x), in the source's unit; ``sigma``, ``sky`` and
            ``fwhm``, (n, band): noise and level of the sky in that unit, FWHM of the blur in pixels; ``noise``,
            (n, band, y, x), in units of ``sigma``; ``shape``, (n,), the Moffat exponent of the blur, 0 for a Gaussian.
        """
        pairs = [self._pair(np.random.default_rng((self.seed, step, i)), step, i) for i in range(self.size)]
        return {key: np.stack([pair[key] for pair in pairs]).astype(np.float32) for key in pairs[0]}

    def _pair(self, rng, step, i):
        for attempt in range(_ATTEMPTS):
            number = self.source.draw(rng) if self.augment else (step * self.size + i + attempt) % len(self.source)
            image = self._augmented(np.asarray(self.source.load(number).data, np.float32), rng)
            try:
                degraded, fwhm, noise, shape = self._degraded(image, rng)
                # An option that is off draws nothing, so that what a seed gave before it was there stays.
                if self.degradation.negative and rng.random() < self.degradation.negative:
                    degraded, image = -degraded, -image
                break
            except InputError as error:
                # A stamp without a pixel of sky, say, has no noise to measure: the next one takes its place.
                refusal = error
        else:
            raise refusal
        sigma = np.array([difference_noise(plane) for plane in degraded])
        if self.degradation.uneven and rng.random() < self.degradation.uneven:
            # The unit stays that of the deepest part.
            depth = uneven_depth(degraded.shape[1:], rng)
            more = np.sqrt(depth**2 - 1)
            degraded = degraded + more * sigma[:, None, None] * rng.standard_normal(degraded.shape)
            noise = np.sqrt(noise**2 + more**2)
        sky = np.array([np.median(plane[::2, ::2]) for plane in degraded])
        if self.jitter:
            # A user's noise map comes from a pipeline or from the image; neither is exact, and the sky's level less so.
            sigma = sigma * np.exp(rng.normal(0.03, 0.08, len(sigma)))
            sky = sky + sigma * rng.normal(0, 0.15, len(sky))
        degraded, image, noise = self._cropped((degraded, image, noise), rng)
        return {
            "degraded": degraded,
            "original": image,
            "noise": noise,
            "sigma": sigma,
            "sky": sky,
            "fwhm": np.full(len(image), fwhm),
            "shape": np.float32(shape),
        }

    def _augmented(self, image, rng):
        if self.augment:
            image = np.rot90(image[:, :, :: rng.choice((-1, 1))], rng.integers(4), (1, 2))
        if self.degradation.kind == "physical":
            # The unit does not matter to the network; fluxes in Jansky or maggies would be lost in float32.
            image = self._embedded(image / max(float(np.abs(image).max()), 1e-30), rng)
        return np.ascontiguousarray(image)

    def _degraded(self, image, rng):
        return self._recipe(image, rng) if self.degradation.kind == "galaxygan2017" else self._physical(image, rng)

    def _recipe(self, image, rng):
        from astrogan.operators.degrader import Degrader

        fwhm, ratio = self.fixed or (_uniform(rng, self.degradation.fwhm), _log(rng, self.degradation.noise_ratio))
        shared = bool(rng.random() < self.degradation.shared_band_noise)
        degrader = Degrader.preset("galaxygan2017", fwhm=fwhm, noise_ratio=ratio, shared_band_noise=shared)
        degraded = degrader.batch(image[np.newaxis], rng, unit="nmgy")[0]
        return degraded, fwhm, np.ones_like(degraded), 0.0

    def _physical(self, image, rng):
        from astropy import units as u

        from astrogan.operators.degrader import Degrader

        wanted = self.degradation
        fwhm, level = self.fixed or (_uniform(rng, wanted.fwhm), None)
        shape = float(rng.choice((2.5, 3.0, 4.0))) if rng.random() < wanted.moffat else 0.0
        kernel = blur_kernel(fwhm, shape)
        own = np.array([difference_noise(plane) for plane in image])
        peak = np.maximum(np.quantile(image, 0.999, axis=(1, 2)), 1e-4)
        noisy = own > 1e-3 * peak
        ratio = np.full(len(own), level or _log(rng, wanted.noise_ratio))
        low, high = wanted.peak_snr
        # A fixed level is a noise ratio; to an image without noise it is one of the S/N of the training.
        snr = np.full(len(own), float(np.clip(high / level**2, low, high)) if level else _log(rng, wanted.peak_snr))
        sigma = np.where(noisy, own * ratio, peak / snr)
        gain = None
        if rng.random() < wanted.photon_noise:
            # As much noise from the peak's own photons as from the sky, or up to ten times that, in variance.
            gain = peak / (sigma**2 * _log(rng, (1.0, 10.0)))
        degrader = Degrader(kernel, sigma * u.nmgy, match=False, gain=gain, poisson="gaussian")
        degraded = degrader.batch(image[np.newaxis], rng, unit="nmgy")[0]
        noise = np.ones_like(degraded)
        if gain is not None and rng.random() < 0.7:
            from scipy.ndimage import gaussian_filter

            signal = np.maximum(gaussian_filter(degraded, (0, 1, 1)), 0)
            noise = np.sqrt(1 + signal / (gain * sigma**2)[:, None, None]).astype(np.float32)
        return degraded, fwhm, noise, shape

    def _embedded(self, image, rng):
        """An image smaller than the crop, on a larger sky with its own level and noise."""
        height, width = image.shape[-2:]
        if min(height, width) >= self.crop:
            return image
        shape = len(image), max(height, self.crop), max(width, self.crop)
        edge = np.concatenate(
            [image[:, [0, -1]].reshape(len(image), -1), image[..., [0, -1]].reshape(len(image), -1)], 1
        )
        sigma = np.array([difference_noise(plane) for plane in image])
        sky = np.median(edge, 1)[:, None, None] + sigma[:, None, None] * rng.standard_normal(shape)
        y, x = (n - m for n, m in zip(shape[1:], (height, width), strict=True))
        sky[:, y // 2 : y // 2 + height, x // 2 : x // 2 + width] = image
        return sky.astype(np.float32)

    def _cropped(self, arrays, rng):
        """The same crop of all: around the centre, where the objects are, more often than elsewhere."""
        height, width = arrays[0].shape[-2:]
        if min(height, width) < self.crop:
            raise InputError(
                f"crop={self.crop} is larger than an image of {height} x {width} pixels; take a smaller one"
            )
        corner = []
        for n in (height, width):
            free = n - self.crop
            middle = free / 2 if not self.augment else rng.normal(free / 2, 0.12 * n)
            corner.append(int(np.clip(round(middle), 0, free)))
        y, x = corner
        return [a[:, y : y + self.crop, x : x + self.crop] for a in arrays]


def blur_kernel(fwhm, shape=0.0, radius=20):
    """A round kernel of sum one on 2 radius + 1 pixels: a Gaussian, or a Moffat profile of exponent ``shape``."""
    offset = np.arange(-radius, radius + 1)
    square = offset[:, None] ** 2 + offset**2
    if shape > 0:
        width = fwhm / (2 * np.sqrt(2 ** (1 / shape) - 1))
        kernel = (1 + square / width**2) ** -shape
    else:
        kernel = np.exp(-0.5 * square / (fwhm / _FWHM_PER_SIGMA) ** 2)
    return kernel / kernel.sum()


def uneven_depth(shape, rng):
    """Noise from place to place, in units of the least, as exposures that overlap leave it.

    Parameters
    ----------
    shape : tuple of int
        (y, x).
    rng : `numpy.random.Generator`

    Returns
    -------
    `numpy.ndarray`
        (y, x), at least 1, and 1 somewhere: a slope, one straight edge, or a patchwork of rectangles.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.train.stream import uneven_depth
    >>> depth = uneven_depth((64, 64), np.random.default_rng(2))
    >>> float(depth.min()), bool(depth.max() > 1)
    (1.0, True)
    """
    y, x = np.indices(shape) / max(shape) - 0.5
    most, angle = _log(rng, (1.3, 10.0)), rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    kind = rng.integers(3)
    if kind == 0:
        share = (along - along.min()) / np.ptp(along)
    elif kind == 1:
        share = (along > rng.uniform(-0.35, 0.35)).astype(float)
    else:
        share = np.zeros(shape)
        for _ in range(rng.integers(2, 6)):
            top, left = (int(rng.integers(-n // 4, n)) for n in shape)
            height, width = (int(rng.integers(n // 6, n)) for n in shape)
            share[max(top, 0) : top + height, max(left, 0) : left + width] += rng.uniform(0.2, 1)
        share /= max(share.max(), 1.0)
    depth = most**share
    return depth / depth.min()


def difference_noise(plane):
    """Standard deviation of the white part of an image's noise: robust scatter of mixed second differences.

    Parameters
    ----------
    plane : array_like
        (y, x).

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.train.stream import difference_noise
    >>> bool(abs(difference_noise(np.random.default_rng(1).normal(0, 3, (128, 128))) - 3) < 0.15)
    True
    """
    # A quarter of the differences, none of which share a pixel, tell as much.
    height, width = (n - n % 2 for n in plane.shape)
    even, odd = plane[0:height:2], plane[1:height:2]
    mixed = odd[:, 1:width:2] - even[:, 1:width:2] - odd[:, 0:width:2] + even[:, 0:width:2]
    return float(1.4826 * np.median(np.abs(mixed)) / 2) + 1e-30


def _uniform(rng, bounds):
    return float(rng.uniform(*bounds))


def _log(rng, bounds):
    return float(np.exp(rng.uniform(*np.log(bounds))))
