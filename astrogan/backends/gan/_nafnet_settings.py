"""What `astrogan.backends.gan.nafnet` measures on a whole image: its levels, and how far it is from the training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from astrogan.exceptions import PSFError
from astrogan.image.psf import psf_fwhm

__all__ = ["Measured", "Settings", "fwhms_of", "kernels_of", "largest_distance", "same_bands"]

_DEEPEST = 10.0
"""Per cent of the pixels that may be less noisy than the unit."""


@dataclass(frozen=True)
class Measured:
    """What an image says about itself: arrays of one value a band.

    Parameters
    ----------
    sky, sigma : `numpy.ndarray`
        Level and noise of the sky, float32.
    peak_snr : `numpy.ndarray`
        The valid pixel furthest from the sky, above or below, in units of the sky's noise.
    fwhm : `numpy.ndarray` or None
        Of the PSF in pixels, where there is one.
    """

    sky: np.ndarray
    sigma: np.ndarray
    peak_snr: np.ndarray
    fwhm: np.ndarray | None

    @classmethod
    def of(cls, observation):
        """Measure an image."""
        sky, sigma = _levels(observation)
        planes = zip(observation.data, _known(observation), sky, strict=True)
        peaks = np.array([np.abs(plane[good] - level).max() for plane, good, level in planes])
        return cls(sky, sigma, peaks / sigma, None if observation.psf is None else fwhms_of(observation))

    def beside(self, card):
        """(value, low, high) of each quantity that a card has a range of, in the band furthest outside."""
        values = {"peak_snr": self.peak_snr} | ({} if self.fwhm is None else {"fwhm": self.fwhm})
        ranges = {quantity: card["ranges"][quantity] for quantity in values if quantity in card["ranges"]}
        return {
            quantity: max(((float(value), low, high) for value in values[quantity]), key=lambda item: _distance(*item))
            for quantity, (low, high) in ranges.items()
        }


@dataclass(frozen=True)
class Settings:
    """What belongs to a whole image: weights, levels, and how far it is from what they know.

    Parameters
    ----------
    weights : str
        Name or path.
    sky, sigma : `numpy.ndarray`
        Of each band.
    blank : `numpy.ndarray` of bool
        Bands without any structure.
    out_of_range : float
    """

    weights: str
    sky: np.ndarray
    sigma: np.ndarray
    blank: np.ndarray
    out_of_range: float

    @classmethod
    def of(cls, observation, found, weights, card):
        """Settings of an image that has been measured."""
        # A band without any structure has nothing to restore, and is not given what the network makes of none.
        blank = (observation.data == found.sky[:, None, None]).all(axis=(1, 2))
        return cls(weights, found.sky, found.sigma, blank, largest_distance(found.beside(card)))


def _levels(observation):
    """Sky level and noise of each band, float32: over the valid pixels of the whole image, the median and a low value.

    The unit is the noise of the deepest part: the network knows pixels that are noisier than its unit, and none that
    are less so.
    """
    sky, sigma = [], []
    for plane, good, variance in zip(observation.data, _known(observation), observation.variance, strict=True):
        sky.append(np.median(plane[good]))
        sigma.append(np.sqrt(np.percentile(variance[good], _DEEPEST)))
    # An image without noise has no unit of its own: any does that keeps squares within float32.
    largest = np.maximum(np.abs(observation.data).max(axis=(1, 2)), np.float32(1e-25))
    return np.asarray(sky, np.float32), np.maximum(np.asarray(sigma, np.float32), np.float32(1e-12) * largest)


def _known(observation):
    """The valid pixels of each band, or all of one that has none."""
    return [valid if valid.any() else np.ones_like(valid) for valid in observation.valid]


def _distance(value, low, high):
    """Distance from a range, as the logarithm of a factor; 0 inside."""
    value, low, high = np.log(np.maximum([value, low, high], 1e-6))
    return max(float(low - value), float(value - high), 0.0)


def largest_distance(report):
    """The distance of the quantity that lies furthest outside, from what `Measured.beside` gives."""
    return max((_distance(*item) for item in report.values()), default=0.0)


def fwhms_of(observation):
    """FWHM of the PSF of each band in pixels."""
    return np.array([_fwhm(kernel.tobytes(), kernel.shape) for kernel in kernels_of(observation)])


@lru_cache(maxsize=32)
def _fwhm(pixels, shape):
    """Stamps of a catalog share their PSF, and it takes longer to measure than a stamp to restore."""
    return psf_fwhm(np.frombuffer(pixels).reshape(shape))


def kernels_of(observation):
    """The PSF, (band, k, k) float64."""
    if observation.psf is None:
        raise PSFError("psf is missing: nafnet deconvolves; give one, e.g. psf=2.5 (FWHM in pixels)")
    return np.asarray(observation.psf, np.float64)


def same_bands(card, names):
    """Whether an image has the bands of a card: as many, and in the same order where both have names."""
    unnamed = all(name.isdigit() for name in names) or card["band_names"] is None
    return card["bands"] == len(names) and (unnamed or list(names) == card["band_names"])
