"""The training pictures of Usaid, Ahmed & Jamal (2019): stamps blended by the brighter pixel, segmented, made small."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from astrogan.exceptions import InputError
from astrogan.image.stretch import GalaxyGAN2017Stretch
from astrogan.nn.dcgan import SIZE

__all__ = ["PaperBlends", "Usaid2019Stream", "segmented", "shrink"]

_RULES = ("mean", "maximum")

# Stamps that are kept in memory, in bytes; all others are read again.
_CACHE = 1 << 30

# A pixel of the small picture is known where more than this part of its area is.
_KNOWN = 0.5


@dataclass(frozen=True)
class PaperBlends:
    """How stamps are blended, segmented and made small.

    Parameters
    ----------
    rule : {'mean', 'maximum'}
        Which galaxy has a pixel: the one with the larger mean of the bands, which gives the whole pixel (the authors'
        program); or per band the larger value, the pixel being known where the galaxy wins most bands (the text).
    shift : tuple of float
        Range of the distance between the galaxies, in pixels of the stamps; 50 in the paper.
    turn : bool
        In any direction; otherwise to the right.
    field : tuple of float
        Range of the edge of the middle part, in pixels of the stamps, that becomes 64 pixels by means over areas. The
        paper does not say how 424 pixels became 64. 256 pixels hold 2.6 times the radius of 90 % of the light to each
        side in stamps of Galaxy Zoo, which are as wide as 8.5 of these radii.
    noise : tuple of float
        Range of the standard deviation of the Gaussian noise, in the picture's range of 0 to 1; not given in the paper.
    neighbours : tuple of int
        Range of the number of galaxies over each; 1 in the paper.
    augment : bool
        Turn and mirror each stamp first.

    Raises
    ------
    InputError
        If a value cannot be.
    """

    rule: str = "mean"
    shift: tuple[float, float] = (50, 50)
    turn: bool = False
    field: tuple[float, float] = (256, 256)
    noise: tuple[float, float] = (0.03, 0.03)
    neighbours: tuple[int, int] = (1, 1)
    augment: bool = False

    def __post_init__(self):
        if self.rule not in _RULES:
            raise InputError(f"degradation rule={self.rule!r} must be one of {', '.join(_RULES)}")
        for name, least in (("shift", 0), ("field", SIZE), ("noise", 0), ("neighbours", 1)):
            value = tuple(map(float, getattr(self, name)))
            if len(value) != 2 or not least <= value[0] <= value[1] < math.inf:
                raise InputError(f"degradation {name}={getattr(self, name)!r} must be two numbers, {least} <= a <= b")
            object.__setattr__(self, name, value)

    @property
    def extent(self):
        """Edge in pixels of the part of a stamp that may be needed."""
        return 2 * (math.ceil(self.field[1] / 2) + math.ceil(self.shift[1]))


class Usaid2019Stream:
    """Batches of segmented galaxies and their truth. A batch is a pure function of (seed, step).

    Galaxies are blended at the stamps' own resolution, in the stretched domain; the one that is asked for stays in the
    middle, also when it is the second of a blend.

    Parameters
    ----------
    source : `~astrogan.train.sources.Source`
        Three bands in nanomaggies (as `~astrogan.train.sources.StampTar` gives), a galaxy in the middle of each.
    recipe : `~astrogan.train.recipe.Recipe`
        ``batch``, ``seed`` and ``degradation`` (see `PaperBlends`).
    part : {'train', 'validation', 'test'}
        Of which ``source`` is. Only the training part is augmented.

    Raises
    ------
    InputError
        If the source has not three bands, or the recipe's values cannot be.
    """

    def __init__(self, source, recipe, part="train"):
        if len(source.bands) != 3:
            raise InputError(f"source has {len(source.bands)} bands; usaid2019 needs colour pictures of three")
        self.source, self.part = source, part
        try:
            self.blends = PaperBlends(**recipe.degradation)
        except TypeError as error:
            raise InputError(f"recipe [degradation] cannot be used: {error}") from error
        self.size = int(recipe.batch)
        self.seed = int(recipe.seed) + (0 if part == "train" else 1_000_003)
        self._stretch = GalaxyGAN2017Stretch()
        self._stamps = {}

    def __getstate__(self):
        return vars(self) | {"_stamps": {}}  # a worker reads its own

    def batch(self, step):
        """One batch.

        Parameters
        ----------
        step : int

        Returns
        -------
        dict of `numpy.ndarray`
            float32: ``image``, (n, 3, 64, 64), the galaxy alone in [0, 1]; ``segmented``, same shape, 0 where hidden
            but for the noise, which may lead out of [0, 1]; ``mask``, (n, 1, 64, 64), 1 where known. Outside the
            training part also ``blended`` and ``preblended2``, (n, 3, 64, 64): the blend, and its (first) other galaxy
            where it lies in it.
        """
        rng = np.random.default_rng((self.seed, int(step)))
        stamps = [self._stamp(self._number(rng, step, i), rng) for i in range(self.size)]
        fields = rng.uniform(*self.blends.field, self.size)
        offsets = [self._offset(rng) for _ in range(self.size)]
        samples = [self._sample(i, stamps, offsets, fields[i], rng) for i in range(self.size)]
        return {key: np.stack([sample[key] for sample in samples]).astype(np.float32) for key in samples[0]}

    def _number(self, rng, step, i):
        if self.part == "train":
            return self.source.draw(rng)
        return (int(step) * self.size + i) % len(self.source)

    def _offset(self, rng):
        """(y, x) from a galaxy to the one over it, in whole pixels of the stamps."""
        distance = rng.uniform(*self.blends.shift)
        angle = rng.uniform(0, 2 * np.pi) if self.blends.turn else 0.0
        return np.round([distance * np.sin(angle), distance * np.cos(angle)]).astype(int)

    def _sample(self, i, stamps, offsets, field, rng):
        # Galaxies are blended in pairs, and either one is a sample: the second sees the first on its other side.
        pair, side = i // 2, i % 2
        partner = (i ^ 1) % len(stamps)
        others = [(stamps[partner], (-1) ** side * offsets[2 * pair])]
        low, high = map(int, self.blends.neighbours)
        for k in range(1, int(rng.integers(low, high, endpoint=True))):
            others.append((stamps[(i + 2 * k) % len(stamps)], self._offset(rng)))
        side = 2 * (int(field) // 2)
        own = _middle(stamps[i], side)
        neighbours = [_middle(stamp, side, offset) for stamp, offset in others]
        sigma = rng.uniform(*self.blends.noise)
        noise = sigma * rng.standard_normal((3, SIZE, SIZE), dtype=np.float32)
        blend, known = segmented(own, neighbours, self.blends.rule)
        small, mask = shrink(blend, known)
        sample = {"image": shrink(own)[0], "segmented": small + noise, "mask": mask[None]}
        if self.part != "train":
            sample |= {"blended": shrink(blend)[0], "preblended2": shrink(neighbours[0])[0]}
        return sample

    def _stamp(self, number, rng):
        """The middle of a stamp, stretched, 8 bits deep as the pictures are: (3, y, x) in [0, 1]."""
        kept = self._stamps.get(number)
        if kept is None:
            kept = self._read(number)
            if (len(self._stamps) + 1) * kept.nbytes <= _CACHE:
                self._stamps[number] = kept
        if self.part == "train" and self.blends.augment:
            kept = np.rot90(kept[:, :, :: rng.choice((-1, 1))], rng.integers(4), (1, 2))
        return kept.astype(np.float32) / np.float32(255)

    def _read(self, number):
        data = self.source.load(number).data
        need = self.blends.extent
        if min(data.shape[1:]) < need:
            raise InputError(
                f"image {self.source.name(number)!r} has {data.shape[1]} x {data.shape[2]} pixels and {need} are "
                "needed for [degradation] field and shift; make these smaller, or give larger stamps (size = 424)"
            )
        levels = self._stretch.forward(_middle(data, need))
        return np.round(255 * np.clip(levels, 0, 1)).astype(np.uint8)


def segmented(own, neighbours, rule="mean"):
    """Blend galaxies by the brighter pixel, and see which pixels are the first one's.

    Parameters
    ----------
    own : `numpy.ndarray`
        (3, y, x), stretched.
    neighbours : sequence of `numpy.ndarray`
        Of the same shape, where they lie over it.
    rule : {'mean', 'maximum'}
        See `PaperBlends`.

    Returns
    -------
    blended : `numpy.ndarray`
        (3, y, x).
    known : `numpy.ndarray` of bool
        (y, x), where the blend shows the first galaxy.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.train._usaid2019_blends import segmented
    >>> own, other = np.zeros((3, 1, 2)), np.zeros((3, 1, 2))
    >>> own[:, 0, 0], other[:, 0, 1] = 0.5, 0.7
    >>> blended, known = segmented(own, [other])
    >>> blended[0].tolist(), known.tolist()
    ([[0.5, 0.7]], [[True, False]])
    """
    blend = own
    if rule == "mean":
        best = own.mean(0)
        known = np.ones(best.shape, bool)
        for other in neighbours:
            level = other.mean(0)
            wins = level > best
            known &= ~wins
            best = np.where(wins, level, best)
            blend = np.where(wins, other, blend)
        return blend, known
    for other in neighbours:
        blend = np.maximum(blend, other)
    return blend, (own >= blend).sum(0) > len(own) / 2


def shrink(picture, known=None):
    """Means over areas to 64 x 64 pixels, of the known pixels alone; and where enough are known.

    Parameters
    ----------
    picture : `numpy.ndarray`
        (band, y, x).
    known : `numpy.ndarray` of bool, optional
        (y, x).

    Returns
    -------
    small : `numpy.ndarray`
        (band, 64, 64) float32; 0 where most of the area is not known.
    mask : `numpy.ndarray`
        (64, 64) float32: 1 where most of it is, 0 elsewhere.
    """
    if known is None:
        return _area(picture), np.ones((SIZE, SIZE), np.float32)
    part = _area(known[None].astype(np.float32))
    mask = part > _KNOWN
    small = np.divide(_area(picture * known), part, out=np.zeros((len(picture), SIZE, SIZE), np.float32), where=mask)
    return small, mask[0].astype(np.float32)


def _area(picture):
    tensor = torch.from_numpy(np.ascontiguousarray(picture, np.float32))
    return functional.adaptive_avg_pool2d(tensor, SIZE).numpy()


def _middle(image, size, offset=(0, 0)):
    """A square of ``size`` pixels whose middle is that of the image less ``offset``."""
    y, x = ((n - size) // 2 - int(d) for n, d in zip(image.shape[-2:], offset, strict=True))
    return image[..., y : y + size, x : x + size]
