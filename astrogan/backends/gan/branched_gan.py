"""The branched deblending GAN (Reiman & Gohre 2019) on images of any size, with any number of sources."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import numpy as np

from astrogan.api import Observation, Separation, Template
from astrogan.backends.classic._detection import MERGE, Detector
from astrogan.backends.gan._device import device_of, exact_matmul
from astrogan.backends.gan._network import built
from astrogan.backends.gan._pictures import red_first
from astrogan.exceptions import InputError
from astrogan.image.stretch import GalaxyGAN2017Stretch

__all__ = ["BranchedGAN"]

# Pixels along an edge of what the network sees, and where the galaxy of the first branch is in it.
_STAMP, _MIDDLE = 80, 39.5

# Of the stamps that the network is trained on (the Galaxy Zoo challenge's SDSS stamps, 240 pixels made 80; medians):
# the radius in their pixels that holds 90 per cent of a galaxy's light, and sky and noise in linear flux.
_R90, _SKY, _SIGMA = 24.0, -0.08, 0.016

# The brightest of the training; a source's own peak is brought down to it.
_PEAK = 3.4

# A source's 90 per cent radius is never taken for less, in pixels of the image: a point is not enlarged without end.
_LEAST_R90 = 2.0

# A source's own segment never has a template below this part of the noise, so that no detected light is left over.
_FLOOR = 1e-3

_WINDOWS = 32  # in one pass of the network


class BranchedGAN:
    """Divide a blend by the branched GAN of Reiman & Gohre (2019, MNRAS 485, 2617).

    The published network takes a picture of two galaxies and gives two: the one at the centre (branch 1) and the other
    (branch 2). For an image with any number of sources a window is centred on each in turn, and branch 1 gives its
    template: this, all sources at once, is our generalisation. The steps:

    1. Detection, or a footprint for each position given (`~astrogan.backends.classic.watershed.Watershed`).
    2. A window of 80 x 80 network pixels about the source, resampled so that the radius which holds 90 per cent of the
       light of its segment is 24 network pixels, as in the training: means over areas where they are larger than the
       image's, linear interpolation where smaller. Beyond the image there is sky.
    3. Into the levels of the training's pictures: d, in units of its band's noise in the window, becomes
       x = 0.016 d - 0.08, the noise and the sky of the stamps, and y = asinh(10 u) / 3 with u = (x + 0.1) / 4.1 (the
       stretch of Schawinski et al. 2017), clipped to [0, 1]. A source whose peak lies above x = 3.4, d = 218, is made
       fainter to be there, all bands by one factor.
    4. The network, and the way back: stretch, levels, pixels. The template is zero outside the footprints.

    Multiplying the image by a number multiplies the templates by it.

    Parameters
    ----------
    weights : str or path, optional
        Name or path of weights for this backend; "auto" takes those that come with the package.
    device : str, optional
        "auto" (CUDA where there is one, else the CPU) or a device of torch.
    precision : {'float32', 'bfloat16'}, optional
        bfloat16 is quicker on GPUs and on processors that have it, and less exact.
    threshold, min_area, levels, contrast, grow, merge
        Detection; see `~astrogan.backends.classic.watershed.Watershed`.

    Raises
    ------
    InputError
        If an option is out of range, and at the call, if there are no such weights, they are for another backend, or
        the image has not three bands.
    CheckpointError
        At the call, if the weights are damaged.

    Notes
    -----
    It is here to be compared with. Its training blends are pictures in which the brighter of two galaxies hides the
    other, which is not how light adds up, and it knows neither PSF nor noise; where sources overlap evenly, templates
    are too faint, of both alike. The operator shares the image out by the templates' ratio, so that flux is conserved
    all the same. Branch 2 is not used, but see ``pictures``.
    """

    bands = 3
    needs_psf = False

    def __init__(
        self,
        weights="auto",
        *,
        device="auto",
        precision="float32",
        threshold=1.5,
        min_area=5,
        levels=32,
        contrast=0.005,
        grow=4.0,
        merge=MERGE,
    ):
        if not isinstance(weights, str | os.PathLike):
            raise InputError(f"weights={weights!r} must be 'auto', a name or a path")
        if not isinstance(device, str):
            raise InputError(f"device={device!r} must be 'auto' or the name of a device of torch, e.g. 'cpu'")
        if precision not in ("float32", "bfloat16"):
            raise InputError(f"precision={precision!r} must be 'float32' or 'bfloat16'")
        self.weights = os.fspath(weights)
        self.device = device
        self.precision = precision
        self._detect = Detector(threshold, min_area, levels, contrast, grow, merge)
        self._forget()

    def __repr__(self):
        return f"BranchedGAN(weights={self.weights!r}, precision={self.precision!r})"

    def __getstate__(self):
        """Options only: the network is read again where the copy is used."""
        return {key: value for key, value in vars(self).items() if key not in ("_loaded", "_lock")}

    def __setstate__(self, state):
        vars(self).update(state)
        self._forget()

    def _forget(self):
        self._loaded = None
        self._lock = threading.Lock()

    def __call__(self, observation: Observation, positions=None, *, rng=None) -> Separation:
        """Templates of the sources at ``positions``, or of those detected.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
            Data (3, y, x), sky subtracted. Bands named after filters (g, r, i, ...) are put in order; others must come
            reddest first, as in the training.
        positions : (source, 2) array, optional
            (x, y), 0-based pixels inside the image.
        rng : `numpy.random.Generator`, optional
            Not used.

        Returns
        -------
        `~astrogan.api.Separation`
            ``info``: ``weights`` (name) and ``sha256`` (first 12 digits).

        Raises
        ------
        InputError
            If there are not three bands, no such weights, or weights for another backend.
        CheckpointError
            If the weights are damaged.
        """
        if len(observation.data) != self.bands:
            raise InputError(
                f"image has {len(observation.data)} bands; branched-gan was made for colour pictures of three (i, r, "
                "g): give three bands, or use another backend"
            )
        net, facts = self._network()
        found = self._detect(observation, positions)
        # A fixed order of computation: that of the positions then changes no bit.
        order = np.lexsort(found.positions.T)
        colours = red_first(observation.bands)
        back = np.argsort(colours)
        templates = [None] * len(order)
        for start in range(0, len(order), _WINDOWS):
            chosen = order[start : start + _WINDOWS]
            windows = [_Window.of(found, int(i)) for i in chosen]
            first, _ = self._separated(net, np.stack([window.levels(found)[colours] for window in windows]))
            for i, window, image in zip(chosen, windows, first, strict=True):
                templates[i] = window.template(image[back], found, observation.valid)
        return Separation(tuple(templates), found.labels, facts)

    def pictures(self, blended):
        """What the network makes of pictures as it was trained on, without detection, windows or noise.

        Parameters
        ----------
        blended : array_like
            (n, 3, y, x) in [0, 1]; 80 x 80 pixels in the training.

        Returns
        -------
        first, second : `numpy.ndarray`
            The galaxy at the centre and the other one, float32, of the same shape, in [0, 1].

        Raises
        ------
        InputError
            If the shape is another, or the weights cannot be used.
        CheckpointError
            If the weights are damaged.
        """
        blended = np.asarray(blended, np.float32)
        if blended.ndim != 4 or blended.shape[1] != self.bands:
            raise InputError(f"blended has shape {blended.shape}; it must be (n, 3, y, x)")
        net, _ = self._network()
        parts = [self._separated(net, blended[i : i + _WINDOWS]) for i in range(0, len(blended), _WINDOWS)]
        if not parts:
            return blended.copy(), blended.copy()
        return tuple(np.concatenate(images) for images in zip(*parts, strict=True))

    def _separated(self, net, levels):
        """Both branches, in [0, 1], of some pictures in [0, 1]."""
        import torch

        device = next(net.parameters()).device
        with torch.inference_mode(), exact_matmul(device):
            seen = torch.from_numpy(2 * levels - 1).to(device).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                images = net(seen)
            return tuple(np.ascontiguousarray(((image + 1) / 2).cpu().numpy()) for image in images)

    # ---- weights ----------------------------------------------------------------------------------------------------

    def _network(self):
        """(network on its device, facts for ``info``), read once."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self):
        import torch

        from astrogan.nn.branched import BranchedGenerator
        from astrogan.weights import load_weights

        weights = load_weights(self._name())
        net = built(weights, self.weights, "branched-gan", BranchedGenerator)
        if net.bands != self.bands:
            raise InputError(f"weights={self.weights!r} are for {net.bands} bands; this backend needs {self.bands}")
        net = net.eval().requires_grad_(False).to(device_of(self.device), memory_format=torch.channels_last)
        return net, {"weights": weights.name, "sha256": weights.sha256[:12]}

    def _name(self):
        """Name or path of the weights; of several that come with the package, the first by name."""
        from astrogan.weights import list_weights

        if self.weights != "auto":
            return self.weights
        names = sorted(list_weights(backend="branched-gan"))
        if not names:
            raise InputError(
                "weights='auto' finds none for branched-gan; train them with 'astrogan train branched-gan-narrow "
                "--data ... --out RUN' and give weights='RUN/branched-gan-narrow.safetensors'"
            )
        return names[0]


@dataclass(frozen=True)
class _Window:
    """A source and the 80 x 80 network pixels about it.

    Attributes
    ----------
    number : int
        Of the source; its label less one.
    centre : tuple of float
        (y, x) in pixels of the image.
    scale : float
        Pixels of the image along an edge of a network pixel.
    box : tuple of slice
        Rows and columns of the image that hold the window and the source's segment.
    unit : `numpy.ndarray`
        (band, 1, 1): the flux a pixel that becomes one unit of the stamps' linear flux.
    """

    number: int
    centre: tuple[float, float]
    scale: float
    box: tuple[slice, slice]
    unit: np.ndarray

    @classmethod
    def of(cls, found, i):
        """The window of source ``i`` of a detection."""
        x, y = found.positions[i]
        extent = found.extents[i]
        own = found.labels[extent] == i + 1
        scale = _radius(found.image[extent], own, extent, (y, x)) / _R90
        half = 0.5 * _STAMP * scale + 1
        box = tuple(
            slice(max(0, min(part.start, int(at - half))), min(n, max(part.stop, int(at + half) + 2)))
            for part, at, n in zip(extent, (y, x), found.labels.shape, strict=True)
        )
        # Means over several pixels are less noisy; interpolated ones hardly.
        noise = np.median(found.noise[:, *box], axis=(1, 2)) / max(scale, 1.0)
        unit = noise / _SIGMA
        light = found.data[:, *extent][:, own]
        brightest = float((light / unit[:, None]).max()) if light.size else 0.0
        unit = unit * max(1.0, brightest / (_PEAK - _SKY))
        return cls(i, (float(y), float(x)), scale, box, unit[:, None, None])

    def levels(self, found):
        """The window in the levels of the training's pictures, (band, 80, 80) float32 in [0, 1]."""
        rows, columns = self._axes()
        flux = rows @ found.data[:, *self.box].astype(np.float64) @ columns.T
        return np.clip(GalaxyGAN2017Stretch(clip=False).forward(flux / self.unit + _SKY), 0, 1).astype(np.float32)

    def template(self, image, found, valid):
        """The source's `~astrogan.api.Template` from what the network made of its window."""
        rows, columns = self._axes(back=True)
        flux = GalaxyGAN2017Stretch(clip=False).inverse(image.astype(np.float64)) - _SKY
        labels = found.labels[self.box]
        data = np.maximum(rows @ flux @ columns.T * self.unit, 0) * (labels > 0)
        own = (labels == self.number + 1) & valid[:, *self.box]
        data = np.maximum(data, _FLOOR * found.noise[:, *self.box] * own)
        origin = tuple(part.start for part in self.box)
        return Template(origin, data.astype(np.float32), (self.centre[1], self.centre[0]))

    def _axes(self, *, back=False):
        """Matrices that bring (row, column) of the box to the window, or back; zero is what lies outside."""
        network = np.arange(_STAMP) - _MIDDLE
        matrices = []
        for part, at in zip(self.box, self.centre, strict=True):
            image = (np.arange(part.start, part.stop) - at) / self.scale
            size = 1 / self.scale
            matrices.append(_resampling(network, 1.0, image, size) if back else _resampling(image, size, network, 1.0))
        return matrices


def _radius(image, own, extent, centre):
    """The radius about a source's centre that holds 90 per cent of the light of its segment."""
    y, x = np.nonzero(own)
    light = np.maximum(image[own], 0)
    if not light.sum() > 0:
        return _LEAST_R90
    distance = np.hypot(y + extent[0].start - centre[0], x + extent[1].start - centre[1])
    order = np.argsort(distance, kind="stable")
    held = np.cumsum(light[order])
    return max(_LEAST_R90, float(distance[order][np.searchsorted(held, 0.9 * held[-1])]))


def _resampling(before, size, after, new_size):
    """What each pixel gives to each new one along an axis: (new, old).

    Parameters
    ----------
    before, after : `numpy.ndarray`
        Centres of the pixels, on one scale.
    size, new_size : float
        Their widths on it.

    Returns
    -------
    `numpy.ndarray`
        Rows sum to one where the old pixels cover the new one: means over larger pixels, linear interpolation to
        smaller ones.
    """
    width = max(size, new_size)
    low = np.maximum(after[:, None] - width / 2, before - size / 2)
    high = np.minimum(after[:, None] + width / 2, before + size / 2)
    return np.maximum(high - low, 0) / width
