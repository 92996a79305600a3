"""Learned deblenders: a network corrects the shares that simple models of the sources give."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from astrogan.api import Blend, Observation, Separation, Template
from astrogan.backends.classic._detection import MERGE, Detector
from astrogan.backends.gan._device import device_of, exact_matmul
from astrogan.backends.gan._first_models import equivalent_fwhm, first_models
from astrogan.backends.gan._network import LazyNetwork
from astrogan.exceptions import CheckpointError, InputError
from astrogan.image.blends import solve_blends

__all__ = ["Hybrid", "RatioNet"]

_SHIPPED = "ratio-net"

# Pixels of the window in which the network looks at a source: what it was trained on; larger for larger sources.
_WINDOW = 64

# Numbers in the planes of the sources that the network sees at once: about 100 MB.
_AT_ONCE = 24_000_000

# A template ends where it would get less than this part of the light, and less than this part of the noise.
_LEAST_SHARE, _LEAST_LIGHT = 1e-3, 1e-2

# Every pixel of a source's own segment, and so its light, has an owner.
_FLOOR = 1e-6


class RatioNet:
    """Divide the light of blends with a network that was trained on simulated ones.

    Sources are detected, and each gets a simple first model: by default the symmetric part of the image around it. A
    small network (`~astrogan.nn.ratio_net.RatioUNet`) then looks at each source in turn: at the image, the model, the
    models of all others, what is left, and the image turned by 180 degrees. It corrects the shares and adds to the
    models what they miss. It works in units of the noise, with weights that all sources and bands have in common: any
    number of either will do, their order does not matter, and multiplying the image by a number multiplies the result.

    Parameters
    ----------
    weights : str or path, optional
        Name (``astrogan weights list``) or path of weights; "auto" takes those that come with the package.
    start : {'symmetric', 'profile-fit'}, optional
        The backend that makes the first models. `Hybrid` starts from fits, which takes longer and is better.
    device : str, optional
        "auto" (CUDA where there is one, else the CPU) or a device of torch.
    threshold, min_area, levels, contrast, grow, merge
        Detection; see `~astrogan.backends.classic.watershed.Watershed`.

    Raises
    ------
    InputError
        If an option is out of range, or the weights are for another backend.
    CheckpointError
        If the weights are damaged.

    Notes
    -----
    ``flux_variance`` of a template is the network's own estimate of how wrong its share of the flux is; it was
    calibrated on simulations that it was not trained on, of which the card tells. Where the first models are fits, it
    is the mean of that and of the fit's own. Templates end where the grown detection footprint ends.

    A source's template never has less than a thousandth of the noise in the pixels of its own segment.
    """

    needs_psf = True
    needs_variance = True
    psf_default = 2.5
    margin = 8

    def __init__(
        self,
        weights="auto",
        *,
        start="symmetric",
        device="auto",
        threshold=1.5,
        min_area=5,
        levels=32,
        contrast=0.005,
        grow=6.0,
        merge=MERGE,
    ):
        if start not in ("symmetric", "profile-fit"):
            raise InputError(f"start={start!r} must be 'symmetric' or 'profile-fit'")
        self.weights, self.start, self.device = weights, start, device
        self._detect = Detector(threshold, min_area, levels, contrast, grow, merge)
        self._network = LazyNetwork(_SHIPPED if weights == "auto" else weights, "ratio-net", _build, device, _check)

    def __repr__(self):
        return f"{type(self).__name__}(weights={self.weights!r}, start={self.start!r})"

    def __call__(self, observation: Observation, positions=None, *, rng=None) -> Separation:
        """Templates of the sources at ``positions``, or of those detected; ``rng`` is not used."""
        return solve_blends(self, observation, positions, rng=np.random.default_rng(0))

    def detect(self, observation, positions=None):
        """Sources and the pixels that belong to them; see `~astrogan.api.DeblenderBackend`."""
        found = self._detect(observation, positions)
        return _Found(found.labels, found.positions, self._facts())

    def _facts(self):
        _, weights = self._network.get()
        return {"weights": weights.name, "sha256": weights.sha256[:12]}

    def separate(self, blend: Blend, *, rng=None) -> tuple[Template, ...]:
        """Templates of the sources of one blend."""
        observation = blend.observation
        sigma = _sky_noise(observation)
        first, fitted = first_models(observation, blend.positions, self.start)
        models = np.maximum(first / sigma[:, None, None], 0).astype(np.float32)
        if len(models) == 1:  # all the light is its own, whatever the model
            return _templates(blend, np.ones_like(models), models, None, sigma)
        ratio, templates, spread = self._divided(blend, models, sigma)
        footprint = blend.labels > 0
        _, weights = self._network.get()
        scale = (weights.card["calibration"] or {}).get("scale", 1.0)
        doubt = np.square(scale * sigma * (spread * footprint).sum((-2, -1)))
        if fitted is not None:
            # The network knows simulations only, the fit its own covariance only: neither sees all that can be wrong.
            doubt = 0.5 * (doubt + fitted)
        return _templates(blend, ratio, templates, doubt, sigma)

    def _divided(self, blend, models, sigma):
        """Ratio, template and spread, (source, band, y, x), in units of the sky's noise."""
        import torch

        from astrogan.nn.ratio_net import combined

        network, _ = self._network.get()
        device = device_of(self.device)
        scene = _Scene.of(blend, models, sigma)
        logit = np.zeros_like(models)
        addition, width = np.zeros_like(models), np.full_like(models, math.log(2))
        with torch.inference_mode(), exact_matmul(device):
            for group in _batches(scene.windows, len(sigma)):
                found = network.corrections(scene.planes(group, device))
                for part, whole in zip(found, (logit, addition, width), strict=True):
                    for i, values in zip(group, part.cpu().numpy(), strict=True):
                        whole[i][:, *scene.windows[i]] = values
            arrays = (torch.from_numpy(array) for array in (models, logit, addition, width))
            return [array.numpy() for array in combined(*arrays)]


class Hybrid(RatioNet):
    """Fit profiles to the sources of a blend, then correct the shares with a network: the default deblender.

    The fit (`~astrogan.backends.classic.profile_fit.ProfileFit`) knows the PSF, any signal-to-noise ratio and any
    number of bands; the network (`RatioNet`) knows what galaxies have that profiles have not: spiral arms, clumps,
    bars and rings.

    Parameters
    ----------
    weights, device
        See `RatioNet`.
    threshold, min_area, levels, contrast, grow, merge
        Detection; see `~astrogan.backends.classic.watershed.Watershed`.

    Raises
    ------
    InputError
        If an option is out of range, or the weights are for another backend.
    CheckpointError
        If the weights are damaged.
    """

    def __init__(
        self,
        weights="auto",
        *,
        device="auto",
        threshold=1.5,
        min_area=5,
        levels=32,
        contrast=0.005,
        grow=6.0,
        merge=MERGE,
    ):
        super().__init__(
            weights,
            start="profile-fit",
            device=device,
            threshold=threshold,
            min_area=min_area,
            levels=levels,
            contrast=contrast,
            grow=grow,
            merge=merge,
        )


class _Found(NamedTuple):
    """What `~astrogan.image.blends.solve_blends` wants of a detection."""

    labels: np.ndarray
    positions: np.ndarray
    info: dict


def _build(**architecture):
    from astrogan.nn.ratio_net import RatioUNet

    return RatioUNet(**architecture)


def _check(_, card, weights):
    scale = (card["calibration"] or {}).get("scale", 1.0)
    if isinstance(scale, list):
        raise CheckpointError(
            f"weights={weights!r}: the card's calibration has the scale {scale!r:.80}; it must be one number"
        )


def _sky_noise(observation):
    """(band,): the noise of a pixel without a source, or of as faint a one as there is."""
    pairs = zip(observation.variance, observation.valid, strict=True)
    noise = np.sqrt([np.median(v[good]) if good.any() else 0.0 for v, good in pairs])
    return np.where(noise > 0, noise, 1.0).astype(np.float32)


@dataclass(frozen=True)
class _Scene:
    """A blend in units of the sky's noise, and the window of each source."""

    image: np.ndarray
    noise: np.ndarray
    valid: np.ndarray
    models: np.ndarray
    total: np.ndarray
    positions: np.ndarray
    fwhm: np.ndarray
    windows: list

    @classmethod
    def of(cls, blend, models, sigma):
        observation, unit = blend.observation, sigma[:, None, None]
        noise = np.sqrt(np.where(observation.valid, observation.variance, np.square(unit))) / unit
        return cls(
            image=observation.data / unit,
            noise=np.clip(noise, 1e-3, 1e4).astype(np.float32),
            valid=observation.valid.astype(np.float32),
            models=models,
            total=models.sum(0),
            positions=blend.positions,
            fwhm=equivalent_fwhm(observation.psf),
            windows=[_window(p, m, blend.labels == i + 1) for i, (p, m) in enumerate(zip(blend.positions, models))],  # noqa: B905
        )

    def planes(self, group, device):
        """What the network sees of the sources in ``group``, whose windows have one shape."""
        import torch

        from astrogan.nn.ratio_net import source_planes

        def cut(array, *, own=False):
            parts = [(array[i] if own else array)[:, *self.windows[i]] for i in group]
            return torch.from_numpy(np.ascontiguousarray(np.stack(parts), np.float32)).to(device)

        origins = np.array([[w[1].start, w[0].start] for w in (self.windows[i] for i in group)])
        others = np.stack([self._distance(i) for i in group])
        return source_planes(
            cut(self.image),
            cut(self.noise),
            cut(self.models, own=True),
            cut(self.total),
            torch.from_numpy((self.positions[group] - origins).astype(np.float32)).to(device),
            torch.from_numpy(others.astype(np.float32)).to(device),
            cut(self.valid),
            torch.from_numpy(self.fwhm)[None].to(device),
        )

    def _distance(self, i):
        """Distance of the pixels of a source's window to the nearest other source."""
        rows, columns = self.windows[i]
        y, x = np.ogrid[rows, columns]
        nearest = np.full((rows.stop - rows.start, columns.stop - columns.start), np.inf)
        for j, (px, py) in enumerate(self.positions):
            if j != i:
                np.minimum(nearest, (x - px) ** 2 + (y - py) ** 2, out=nearest)
        return np.sqrt(nearest)


def _window(position, model, own):
    """(rows, columns) around a source, inside the cut-out, that hold its segment and what shines of its model."""
    shape = own.shape
    lit = own | (model.max(axis=0) > 0.5)
    x, y = (int(np.floor(p + 0.5)) for p in position)
    half = _WINDOW // 2
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if len(rows):
        reach = max(abs(rows[0] - y), abs(rows[-1] - y), abs(columns[0] - x), abs(columns[-1] - x))
        half = max(half, 16 * math.ceil((reach + 4) / 16))
    return tuple(slice(max(at - half, 0), min(at + half, size)) for at, size in zip((y, x), shape, strict=True))


def _batches(windows, bands):
    """Sources whose windows have one shape, as many as the memory allows."""
    from astrogan.nn.ratio_net import PLANES

    by_shape = {}
    for i, (rows, columns) in enumerate(windows):
        by_shape.setdefault((rows.stop - rows.start, columns.stop - columns.start), []).append(i)
    for (height, width), members in by_shape.items():
        size = max(1, _AT_ONCE // (PLANES * bands * height * width))
        for first in range(0, len(members), size):
            yield members[first : first + size]


def _templates(blend, ratio, templates, flux_variance, sigma):
    """Templates on the boxes that hold them, in the image's unit."""
    footprint = blend.labels > 0
    # A scene of at least a little light everywhere keeps the ratio of templates what the network says it is.
    scene = np.maximum(templates.sum(0), _FLOOR)
    out = []
    for i, (position, share) in enumerate(zip(blend.positions, ratio, strict=True)):
        light = share * scene
        own = blend.labels == i + 1
        keep = footprint & ((share > _LEAST_SHARE) | (light > _LEAST_LIGHT))
        light = np.where(keep | own, light, 0)
        light = np.where(own, np.maximum(light, _FLOOR), light)
        rows, columns = (np.flatnonzero((light > 0).any(axis=axes)) for axes in ((0, 2), (0, 1)))
        if not len(rows):
            rows, columns = (np.clip(np.floor([p + 0.5]).astype(int), 0, n - 1)
                             for p, n in zip(position[::-1], footprint.shape, strict=True))  # fmt: skip
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        out.append(
            Template(
                (int(rows[0]), int(columns[0])),
                (light[:, *box] * sigma[:, None, None]).astype(np.float32),
                (float(position[0]), float(position[1])),
                flux_variance=None if flux_variance is None else flux_variance[i],
            )
        )
    return tuple(out)
