"""Deblending as Usaid, Ahmed & Jamal (2019) proposed: segment, and let a GAN complete what others hide."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from astrogan.api import Blend, Observation, Separation, Template
from astrogan.backends.classic._detection import MERGE, Detector, integer
from astrogan.backends.gan._device import device_of, exact_matmul
from astrogan.backends.gan._network import LazyNetwork
from astrogan.backends.gan._pictures import red_first
from astrogan.exceptions import InputError
from astrogan.image.blends import solve_blends
from astrogan.image.stretch import GalaxyGAN2017Stretch

__all__ = ["Usaid2019"]

_SHIPPED = "usaid2019-stable"
_COMPLETIONS = ("encoder", "inversion")
_SIZE = 64

# Stamps of Galaxy Zoo: the sky's level and a typical galaxy's peak in the flux of `GalaxyGAN2017Stretch`, and the edge
# of the picture over the radius that holds half of the light above the detection threshold (medians of 20 stamps).
_SKY, _PEAK = -0.08, 2.1
_EDGE = 8.5
_SMALLEST = 12.0

# A pixel of the picture is known where more than this part of its area is.
_KNOWN = 0.5

# A source's own segment never has a template below this part of the noise, so that no detected light is left over.
_FLOOR = 1e-3


class Usaid2019:
    """Cut every source out of the blend, and complete it with the GAN of Usaid, Ahmed & Jamal (2019).

    It is here to be compared with; the default deblender is much better in flux. A source is seen as a colour picture
    of 64 x 64 pixels in a stretched domain, as the paper's were; the pixels that other sources have are hidden; the
    generator makes the whole picture; and that, in linear flux again, is the source's template.

    Parameters
    ----------
    weights : str or path, optional
        Name (``astrogan weights list``) or path of weights that the recipes ``usaid2019`` or ``usaid2019-stable``
        train; "auto" takes those that come with the package.
    completion : {'encoder', 'inversion'}, optional
        How the segmented picture enters the generator: through the encoder; or by gradient descent on z until the
        generator's picture agrees with the known pixels, started by the encoder where there is one.
    steps : int, optional
        Of the inversion.
    keep_known : bool, optional
        Keep the image's own pixels where they are known, and the generator's elsewhere.
    device : str, optional
        "auto" (CUDA where there is one, else the CPU) or a device of torch.
    threshold, min_area, levels, contrast, grow, merge
        Detection; see `~astrogan.backends.classic.watershed.Watershed`.

    Raises
    ------
    InputError
        If an option is out of range, the weights are for another backend or have no encoder where one is asked for;
        and at the call, if the image has not three bands.
    CheckpointError
        If the weights are damaged.

    Notes
    -----
    Readings of what the paper leaves open, and what differs from it:

    - How a segmented galaxy enters a generator that takes noise is not documented. The encoder and the inversion are
      readings of ours.
    - The paper segments by the inverse of its own blending rule, which needs the galaxies before they were blended.
      Here a pixel belongs to the source that the detection gives it to: the generalisation of "the brighter one has
      the pixel" to any number of sources.
    - Images are linear: each band is divided by its noise, the brightest band's peak of the source brought to 2.1 and
      the sky to -0.08, medians of the stamps of Galaxy Zoo in the flux of
      `~astrogan.image.stretch.GalaxyGAN2017Stretch`, whose y (not clipped) is the picture. The way back is exact.
      The unit therefore does not matter.
    - The paper takes 424 pixels of the SDSS to 64 whatever the galaxy. Here the window has 8.5 times the radius of half
      the source's light, as the stamps have, at least 12 pixels, and is resampled to 64 and back.
    - Red, green and blue are the bands in their order, or, where all are named u, g, r, i, z or y, by falling
      wavelength.
    - Pixels that are masked or off the image are hidden, too. Beyond the blend's own surroundings there is sky.
    - Templates end where the grown detection footprint ends. The deblender shares the image out by them, while the
      paper's galaxies are the generator's pictures.

    The generator knows no photometry: there is no variance.
    """

    bands = 3
    margin = 6
    needs_psf = False
    needs_variance = True

    def __init__(
        self,
        weights="auto",
        *,
        completion="encoder",
        steps=100,
        keep_known=False,
        device="auto",
        threshold=1.5,
        min_area=5,
        levels=32,
        contrast=0.005,
        grow=4.0,
        merge=MERGE,
    ):
        if not isinstance(weights, str | os.PathLike):
            raise InputError(f"weights={weights!r} must be 'auto', a name or a path")
        if completion not in _COMPLETIONS:
            raise InputError(f"completion={completion!r} must be one of {', '.join(_COMPLETIONS)}")
        if not isinstance(keep_known, bool | np.bool_):
            raise InputError(f"keep_known={keep_known!r} must be True or False")
        if not isinstance(device, str):
            raise InputError(f"device={device!r} must be 'auto' or the name of a device of torch, e.g. 'cpu'")
        self.weights, self.completion, self.device = weights, completion, device
        self.steps = integer("steps", steps, 1, "100")
        self.keep_known = bool(keep_known)
        self._detect = Detector(threshold, min_area, levels, contrast, grow, merge)
        self._network = LazyNetwork(_SHIPPED if weights == "auto" else weights, "usaid2019", _build, device, _check)

    def __repr__(self):
        return f"Usaid2019(weights={self.weights!r}, completion={self.completion!r})"

    def __call__(self, observation: Observation, positions=None, *, rng=None) -> Separation:
        """Templates of the sources at ``positions``, or of those detected; ``rng`` starts an inversion."""
        rng = np.random.default_rng(0) if rng is None else rng
        return solve_blends(self, observation, positions, rng=rng)

    def detect(self, observation, positions=None):
        """Sources and the pixels that belong to them; see `~astrogan.api.DeblenderBackend`."""
        _check_bands(observation)
        found = self._detect(observation, positions)
        return _Found(found.labels, found.positions, self._facts())

    def _facts(self):
        network, weights = self._network.get()
        if self.completion == "encoder" and network.encoder is None:
            raise InputError(
                f"completion='encoder': weights={str(self.weights)!r} have no encoder; give completion='inversion', or "
                "weights of usaid2019-stable"
            )
        return {"weights": weights.name, "sha256": weights.sha256[:12]}

    def separate(self, blend: Blend, *, rng=None) -> tuple[Template, ...]:
        """Templates of the sources of one blend."""
        _check_bands(blend.observation)
        order = red_first(blend.observation.bands)
        scene = _Scene.of(blend, order)
        pictures = [scene.picture(i) for i in range(len(blend.positions))]
        lit = [i for i, picture in enumerate(pictures) if picture.scale > 0]
        completed = dict(zip(lit, self._completed([pictures[i] for i in lit], rng), strict=True)) if lit else {}
        return tuple(
            scene.template(i, picture, completed.get(i), keep_known=self.keep_known, back=np.argsort(order))
            for i, picture in enumerate(pictures)
        )

    def _completed(self, pictures, rng):
        return self.complete([p.levels for p in pictures], [p.mask for p in pictures], rng=rng)

    def complete(self, pictures, masks, *, rng=None):
        """What the generator makes of segmented pictures.

        Parameters
        ----------
        pictures : array_like
            (n, 3, 64, 64), stretched, nominally in [0, 1].
        masks : array_like
            (n, 64, 64), true where a picture is known.
        rng : `numpy.random.Generator`, optional
            For an inversion that has no encoder to start from.

        Returns
        -------
        `numpy.ndarray`
            (n, 3, 64, 64) in [0, 1].

        Raises
        ------
        InputError, CheckpointError
            If the weights cannot be used.
        """
        import torch

        from astrogan.nn.dcgan import invert

        self._facts()
        network, _ = self._network.get()
        device = device_of(self.device)
        seen = torch.from_numpy(2 * np.asarray(pictures, np.float32) - 1).to(device)
        mask = torch.from_numpy(np.asarray(masks, np.float32)[:, None]).to(device)
        with exact_matmul(device), torch.no_grad():
            if self.completion == "encoder":
                made = network.complete(seen, mask)
            else:
                start = None if network.encoder is None else network.encoder(seen, mask)
                rng = np.random.default_rng(0) if rng is None else rng
                seed = torch.Generator().manual_seed(int(rng.integers(2**63)))
                made, _ = invert(network.generator, seen, mask, steps=self.steps, seed=seed, start=start)
        return (made.cpu().numpy().astype(np.float64) + 1) / 2


def _build(**architecture):
    from astrogan.nn.dcgan import CompletionGAN

    return CompletionGAN(**architecture)


def _check(network, _, weights):
    bands = network.architecture["bands"]
    if bands != Usaid2019.bands:
        raise InputError(f"weights={weights!r} are for {bands} bands; this backend needs {Usaid2019.bands}")


class _Found(NamedTuple):
    """What `~astrogan.image.blends.solve_blends` wants of a detection."""

    labels: np.ndarray
    positions: np.ndarray
    info: dict


def _check_bands(observation):
    if len(observation.data) != Usaid2019.bands:
        raise InputError(
            f"image has {len(observation.data)} bands; usaid2019 works on colour pictures of three: give three bands "
            "(e.g. image[:3]), or use the backend hybrid, which takes any number"
        )


@dataclass(frozen=True)
class _Picture:
    """A source as the network sees it, and what leads back.

    ``levels`` (3, 64, 64) are 0 where ``mask`` (64, 64) is not set; ``scale`` is the flux, in units of the noise, that
    becomes one (0 where there is no light); ``pixels`` is the size of a picture's pixel in those of the image.
    """

    levels: np.ndarray
    mask: np.ndarray
    scale: float
    pixels: float


@dataclass(frozen=True)
class _Scene:
    """A blend in units of its noise, bands in the order red, green, blue."""

    image: np.ndarray
    sigma: np.ndarray
    valid: np.ndarray
    labels: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, blend, order):
        observation = blend.observation
        sigma = _sky_noise(observation)[order]
        image = observation.data[order].astype(np.float64) / sigma[:, None, None]
        return cls(image, sigma, observation.valid.all(axis=0), np.asarray(blend.labels), blend.positions)

    def picture(self, i):
        """Source ``i``, the pixels of others hidden."""
        own = self._own(i)
        y, x = np.nonzero(own)
        px, py = self.positions[i]
        light = np.maximum(self.image[:, y, x].sum(0), 0)
        radius = np.hypot(y - py, x - px)
        edge = max(_SMALLEST, _EDGE * _half_light(radius, light))
        pixels = edge / _SIZE
        known = self.valid & (own | (self.labels == 0))
        data, area = self._resampled(self.image * known, (px, py), pixels), self._area(known, (px, py), pixels)
        mask = area > _KNOWN
        data = np.divide(data, area, out=np.zeros_like(data), where=mask)
        near = mask & (_distance() * pixels <= max(edge / _EDGE, 1.5))
        peak = data[:, near].max(initial=0.0)
        if not peak > 0:
            return _Picture(np.zeros_like(data), mask, 0.0, pixels)
        scale = peak / (_PEAK - _SKY)
        levels = GalaxyGAN2017Stretch(clip=False).forward(data / scale + _SKY)
        return _Picture(levels * mask, mask, scale, pixels)

    def _own(self, i):
        """The source's pixels; those around its position where it has none."""
        own = (self.labels == i + 1) & self.valid
        if own.any():
            return own
        px, py = self.positions[i]
        y, x = np.ogrid[: own.shape[0], : own.shape[1]]
        return (y - py) ** 2 + (x - px) ** 2 <= max(2.0, (py % 1 - 0.5) ** 2 + 1)

    def _matrices(self, position, pixels):
        (px, py), (height, width) = position, self.labels.shape
        return _weights(height, py, pixels), _weights(width, px, pixels)

    def _resampled(self, image, position, pixels):
        rows, columns = self._matrices(position, pixels)
        return rows @ image @ columns.T

    def _area(self, known, position, pixels):
        """How much of each pixel of the picture is known; the sky beyond the cut-out is, if it is not the image's edge.

        A cut-out has a margin around its labels but where the image ends.
        """
        inside = self._resampled(known.astype(np.float64), position, pixels)
        rows, columns = self._matrices(position, pixels)
        lit = self.labels > 0
        ends = lit[0].any(), lit[-1].any(), lit[:, 0].any(), lit[:, -1].any()
        within_y, within_x = rows.sum(1), columns.sum(1)
        open_y, open_x = (_beyond(within_y, *ends[:2]), _beyond(within_x, *ends[2:]))
        all_known = np.outer(open_y, open_x)
        return inside + all_known - np.outer(within_y, within_x).clip(max=all_known)

    def template(self, i, picture, completed, *, keep_known, back):
        """The template of source ``i`` on the pixels of its window and its own segment."""
        own = self._own(i)
        rows, columns = (np.flatnonzero(own.any(axis=a)) for a in (1, 0))
        half = picture.pixels * _SIZE / 2
        centre, shape = self.positions[i][::-1], self.labels.shape
        box = tuple(
            slice(max(min(int(np.ceil(c - half)), lit[0]), 0), min(max(int(c + half) + 1, lit[-1] + 1), n))
            for c, lit, n in zip(centre, (rows, columns), shape, strict=True)
        )
        own = own[box]
        image = np.maximum(self.image[:, *box], 0)
        if completed is None:
            data = np.zeros_like(image)
        else:
            flux = (GalaxyGAN2017Stretch(clip=False).inverse(completed) - _SKY) * picture.scale
            up, across = (_back(s, c, picture.pixels) for s, c in zip(box, centre, strict=True))
            data = np.maximum(up @ flux @ across.T, 0)
            outside = np.outer(up.sum(1), across.sum(1)) == 0
            kept = own & (outside | keep_known)
            data = np.where(kept, image, data)
        data = data * (self.labels[box] > 0) + _FLOOR * own
        data = (data * self.sigma[:, None, None])[back].astype(np.float32)
        origin = int(box[0].start), int(box[1].start)
        return Template(origin, data, tuple(map(float, self.positions[i])))


def _sky_noise(observation):
    """(band,): the noise of a pixel without a source, or of as faint a one as there is."""
    pairs = zip(observation.variance, observation.valid, strict=True)
    noise = np.sqrt([np.median(v[good]) if good.any() else 0.0 for v, good in pairs])
    return np.where(noise > 0, noise, 1.0)


def _half_light(radius, light):
    """The radius that holds half of the light."""
    order = np.argsort(radius, kind="stable")
    total = np.cumsum(light[order])
    if not total[-1] > 0:
        return 0.0
    return float(radius[order][np.searchsorted(total, 0.5 * total[-1])])


def _distance():
    """Distance of the picture's pixels from its middle, in its pixels."""
    offset = np.arange(_SIZE) - (_SIZE - 1) / 2
    return np.hypot(offset[:, None], offset)


def _weights(size, centre, pixels):
    """Weights (64, size) of an image's pixels in those of a picture, linear, as wide as shrinking needs.

    A row's sum is one, or less where the picture leaves the image.
    """
    places = centre + pixels * (np.arange(_SIZE) - (_SIZE - 1) / 2)
    return _triangles(places, size, max(pixels, 1.0))


def _triangles(places, size, width):
    reach = int(np.ceil(width)) + 1
    first = np.floor(places).astype(int)
    grid = first[:, None] + np.arange(-reach, reach + 1)
    weight = np.maximum(1 - np.abs(grid - places[:, None]) / width, 0)
    weight /= weight.sum(1, keepdims=True)
    out = np.zeros((len(places), size))
    row, column = np.nonzero((grid >= 0) & (grid < size))
    out[row, grid[row, column]] = weight[row, column]
    return out


def _back(box, centre, pixels):
    """Weights (n, 64) of a picture's pixels in those of an image from ``box.start`` to ``box.stop``; 0 beyond it."""
    places = (np.arange(box.start, box.stop) - centre) / pixels + (_SIZE - 1) / 2
    weights = _triangles(np.clip(places, 0, _SIZE - 1), _SIZE, max(1 / pixels, 1.0))
    weights /= weights.sum(1, keepdims=True)
    return weights * (np.abs(places - (_SIZE - 1) / 2) <= _SIZE / 2)[:, None]


def _beyond(within, ends_low, ends_high):
    """How much of the picture's rows is known if what is beyond the image is, but for the sides on which it ends."""
    open_ = np.ones(_SIZE)
    low, high = np.arange(_SIZE) < _SIZE // 2, np.arange(_SIZE) >= _SIZE // 2
    if ends_low:
        open_[low] = within[low]
    if ends_high:
        open_[high] = within[high]
    return open_
