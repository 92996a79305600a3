"""What all sources have in common, and sources made of others."""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["Mix", "Sample", "Source", "Subset"]


@dataclass(frozen=True)
class Sample:
    """One image for training.

    Attributes
    ----------
    data : `numpy.ndarray`
        (band, y, x) float32, linear flux, finite: what was masked is filled from its neighbours.
    variance : `numpy.ndarray` or None
        Of the noise, in the unit of ``data`` squared; same shape and type.
    pixel_scale : float or None
        Arcsec.
    psf_fwhm : float or None
        Of the image as it is, in pixels; the mean of the bands.
    unit : str or None
        Of the flux; `None` where the numbers have none that could be trusted.
    """

    data: np.ndarray
    variance: np.ndarray | None = None
    pixel_scale: float | None = None
    psf_fwhm: float | None = None
    unit: str | None = None


class Source(ABC):
    """Images by number, each of an object with a name. Sources can be pickled, for worker processes.

    Attributes
    ----------
    bands : tuple of str
        Names of the bands of each sample. ``("any",)`` where each band of an object is a sample of its own.
    """

    bands: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self):
        """How many images there are."""

    @abstractmethod
    def name(self, i):
        """Name of the object in image ``i``; images of one object, or that share pixels, have the same."""

    @abstractmethod
    def load(self, i):
        """Image ``i`` as a `Sample`, always the same."""

    @abstractmethod
    def describe(self):
        """What a model card says of the source: ``kind``, ``origin``, ``licence``, ``images``, ``objects``."""

    def draw(self, rng):
        """Number of an image drawn at random.

        Parameters
        ----------
        rng : `numpy.random.Generator`

        Returns
        -------
        int
        """
        return int(rng.integers(len(self)))

    def _checked(self, i):
        if isinstance(i, bool) or not isinstance(i, numbers.Integral) or not 0 <= i < len(self):
            raise InputError(f"i={i!r} must be the number of an image, from 0 to {len(self) - 1}")
        return int(i)


class Subset(Source):
    """Some images of a source.

    Parameters
    ----------
    source : Source
    indices : sequence of int
        Their numbers in it.

    Raises
    ------
    InputError
        If there are none, or one is out of range.
    """

    def __init__(self, source, indices: Sequence[int]):
        self.source = source
        self.indices = np.asarray(indices, np.int64)
        self.bands = source.bands
        if self.indices.ndim != 1 or not len(self.indices):
            raise InputError("indices hold no image; take another seed, larger fractions, or more data")
        if self.indices.min() < 0 or self.indices.max() >= len(source):
            raise InputError(f"indices run from {self.indices.min()} to {self.indices.max()}; there are {len(source)}")

    def __len__(self):
        return len(self.indices)

    def name(self, i):
        """Name of the object in image ``i``."""
        return self.source.name(int(self.indices[self._checked(i)]))

    def load(self, i):
        """Image ``i`` as a `Sample`."""
        return self.source.load(int(self.indices[self._checked(i)]))

    def describe(self):
        """The source's description, with the numbers of this subset."""
        objects = len({self.name(i) for i in range(len(self))})
        return self.source.describe() | {"images": len(self), "objects": objects}


class Mix(Source):
    """Several sources one after the other, drawn from with given weights.

    Parameters
    ----------
    sources : sequence of Source
        Of as many bands each.
    weights : sequence of float, optional
        How often `draw` takes each, relative to one another. Default: as often as it has images.

    Raises
    ------
    InputError
        If there is none, bands differ in number, or the weights do not fit.

    Examples
    --------
    >>> from astrogan.train.sources import Mix, SimulatedStream
    >>> mix = Mix([SimulatedStream(seed=1, length=10), SimulatedStream(seed=2, length=1000)], weights=[3, 1])
    >>> len(mix), mix.name(10)
    (1010, 'simulated 2-0')
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float] | None = None):
        self.sources = tuple(sources)
        if not self.sources:
            raise InputError("sources is empty; give at least one")
        counts = sorted({len(source.bands) for source in self.sources})
        if len(counts) > 1:
            raise InputError(
                f"sources have {counts} bands; give those with several bands = 'each', or mix like with like"
            )
        self.bands = self.sources[0].bands
        if any(source.bands != self.bands for source in self.sources):
            self.bands = ("any",) if counts == [1] else tuple(str(n) for n in range(counts[0]))
        self._starts = np.cumsum([0, *map(len, self.sources)])
        self.weights = self._checked_weights(weights)

    def _checked_weights(self, weights):
        values = np.asarray([len(s) for s in self.sources] if weights is None else list(weights), np.float64)
        good = values.shape == (len(self.sources),) and np.isfinite(values).all() and (values >= 0).all()
        if not good or values.sum() <= 0:
            raise InputError(f"weights={weights!r} must be {len(self.sources)} numbers, none negative and not all zero")
        return values / values.sum()

    def __len__(self):
        return int(self._starts[-1])

    def _of(self, i):
        i = self._checked(i)
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.sources[number], i - int(self._starts[number])

    def name(self, i):
        """Name of the object in image ``i``."""
        source, i = self._of(i)
        return source.name(i)

    def load(self, i):
        """Image ``i`` as a `Sample`."""
        source, i = self._of(i)
        return source.load(i)

    def draw(self, rng):
        """Number of an image: a source by its weight, then one of its images.

        Parameters
        ----------
        rng : `numpy.random.Generator`

        Returns
        -------
        int
        """
        number = int(rng.choice(len(self.sources), p=self.weights))
        return int(self._starts[number]) + self.sources[number].draw(rng)

    def describe(self):
        """Descriptions of the sources with their weights under ``sources``, and the numbers of all."""
        parts = [
            source.describe() | {"weight": round(float(weight), 6)}
            for source, weight in zip(self.sources, self.weights, strict=True)
        ]
        return {
            "kind": "mix",
            "images": len(self),
            "objects": sum(part["objects"] for part in parts),
            "sources": parts,
        }
