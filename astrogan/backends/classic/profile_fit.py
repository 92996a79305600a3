"""Joint fit of PSF-convolved galaxy profiles to a blend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from astrogan.api import Template
from astrogan.backends.classic._detection import Detector, integer, number
from astrogan.backends.classic._profile_model import INDICES, SINGLE, profiles, psf_mixture, source_correction
from astrogan.backends.classic._varpro import Scene, crop, flux_covariance, fluxes, gram_matrix, minimise
from astrogan.exceptions import PSFError
from astrogan.image.uncertainty import background_rms

__all__ = ["ProfileFit", "fit_blend"]

# A source's own segment never has a template below this part of the noise, so that no detected light is left over.
_FLOOR = 1e-3

# Templates end where every band is fainter than this part of the noise.
_EDGE = 0.01


@dataclass(frozen=True)
class Options:
    """How freely sources may vary; standard deviations of Gaussian priors."""

    position: float = 0.5
    size: float = 1.0
    ellipticity: float = 0.3
    index: float = 0.4
    model_error: float = 0.05
    first: int = 12
    later: tuple = (10,)
    split: float = 30.0
    split_size: float = 0.3
    outer: float = 2.5
    inner: float = 0.8
    outer_spread: float = 0.5
    inner_spread: float = 0.5
    inner_index: float = 2.0
    disk_index: float = 0.3
    fraction: float = -1.0
    fraction_spread: float = 1.5
    colour: float = 1.0
    shrink: int = 1


_DEFAULT = Options()


class ProfileFit:
    """Fit profiles to all sources of a blend at once."""

    needs_psf = True
    needs_variance = True
    margin = 6

    def __init__(
        self,
        *,
        model_error=0.05,
        position_error=0.5,
        iterations=12,
        threshold=1.5,
        min_area=5,
        levels=32,
        contrast=0.005,
        grow=4.0,
    ):
        self.options = Options(
            position=number("position_error", position_error, 0, 100, "0.5", open_below=True),
            model_error=number("model_error", model_error, 0, 1, "0.05"),
            first=integer("iterations", iterations, 1, "12"),
        )
        self.detect = Detector(threshold, min_area, levels, contrast, grow)

    def __call__(self, observation, positions=None, *, rng=None):
        """Templates of the sources at ``positions``, or of those detected; ``rng`` is not used."""
        from astrogan.image.blends import solve_blends

        rng = np.random.default_rng(0) if rng is None else rng
        return solve_blends(self, observation, positions, rng=rng)

    def separate(self, blend, *, rng=None):
        """Templates of the sources of one `~astrogan.api.Blend`."""
        observation = blend.observation
        models, variance = fit_blend(observation, blend.positions, options=self.options)
        noise = np.sqrt(_variance(observation))
        templates = []
        for i, (position, model) in enumerate(zip(blend.positions, models, strict=True)):
            own = blend.labels == i + 1
            box = _extent((model > _EDGE * noise).any(axis=0) | own, position)
            data = model[(slice(None), *box)] + _FLOOR * noise[(slice(None), *box)] * own[box]
            data = data.astype(np.float32)
            origin = (box[0].start, box[1].start)
            templates.append(Template(origin, data, tuple(map(float, position)), flux_variance=variance[i]))
        return tuple(templates)


def _extent(mask, position):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        at = np.clip(np.floor(position[::-1] + 0.5).astype(int), 0, np.array(mask.shape) - 1)
        return tuple(slice(int(a), int(a) + 1) for a in at)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def fit_blend(observation, positions, *, options=_DEFAULT):
    """Fit profiles to the sources of one blend.

    Parameters
    ----------
    observation : `~astrogan.api.Observation`
        The blend, with a PSF; without a variance the noise of the background is measured.
    positions : array_like
        (source, 2), each row (x, y) in 0-based pixels.
    options : `Options`, optional

    Returns
    -------
    models : `numpy.ndarray`
        (source, band, y, x) float32, each source alone, >= 0, convolved with the PSF.
    flux_variance : `numpy.ndarray`
        (source, band): variance of each model's flux.
    """
    positions = np.asarray(positions, np.float64).reshape(-1, 2)
    if observation.psf is None:
        raise PSFError("psf=None: profile-fit needs the PSF; give psf=, or use 'symmetric'")
    if not len(positions):
        return np.zeros((0, *observation.shape), np.float32), np.zeros((0, observation.shape[0]))
    # A fixed order of computation: that of the positions then changes no bit.
    order = np.lexsort(positions.T)
    fit = _Fit(observation, positions[order], options)
    models, variance = np.empty((len(order), *observation.shape), np.float32), np.empty((len(order), len(fit.scale)))
    models[order], variance[order] = fit.models(), fit.flux_variance()
    return models, variance


def _variance(observation):
    """(band, y, x) float64, positive everywhere."""
    if observation.variance is None:
        rms = [background_rms(p, v)[1] if v.any() else 1.0 for p, v in zip(observation.data, observation.valid)]
        level = np.square(np.array(rms, np.float64))[:, None, None]
        return np.broadcast_to(np.where(level > 0, level, 1.0), observation.shape)
    variance = observation.variance.astype(np.float64)
    usual = [np.median(v[good]) if good.any() else 1.0 for v, good in zip(variance, observation.valid)]
    return np.where(observation.valid, variance, np.array(usual)[:, None, None])


class _Fit:
    """One blend's fit, in units of each band's noise."""

    def __init__(self, observation, positions, options):
        self.options = options
        self.valid = observation.valid
        variance = _variance(observation)
        self.scale = np.sqrt(np.median(variance, axis=(1, 2)))
        self.variance = variance / np.square(self.scale)[:, None, None]
        self.data = observation.data * self.valid / self.scale[:, None, None]
        self.psf = psf_mixture(observation.psf)
        self._solve(positions)

    def _solve(self, positions):
        o = self.options
        smooth = np.stack([ndimage.gaussian_filter(plane, 1.0) for plane in self.data])
        start = self._start(positions)
        size = np.log(max(self.psf.sigma, 1.0))
        priors = [self._single_prior(xy, size) for xy in positions]
        boxes = [self._box(theta[:2], 6 * np.exp(theta[2]) + 5 * self.psf.sigma + 4) for theta in start]
        scene = self._scene(smooth, boxes, priors)
        state = minimise(scene, np.concatenate(start), iterations=o.first)
        for count in o.later:
            start = self._second_profiles(state, scene, priors)
            model = self._render(state, scene)
            boxes = [self._reach(m, xy) for m, xy in zip(model, positions, strict=True)]
            scene = self._scene(model.sum(axis=0), boxes, priors)
            scene.corrections = [source_correction(t, self.psf, b) for t, b in zip(start, boxes, strict=True)]
            state = minimise(scene, np.concatenate(start), iterations=count)
        self.scene, self.state = scene, state

    def _box(self, position, radius):
        """The part of the image within a radius, never empty."""
        box = []
        for at, size in zip(position[::-1], self.data.shape[1:], strict=True):
            start = min(max(int(np.floor(at - radius)), 0), size - 1)
            box.append(slice(start, min(max(int(np.ceil(at + radius)) + 1, start + 1), size)))
        return tuple(box)

    def _reach(self, model, position):
        """The box beyond which a model is fainter than a small part of the noise."""
        y, x = np.nonzero((model > 0.03).any(axis=0))
        radius = 2 * self.psf.sigma
        if len(y):
            radius = max(radius, np.abs(y - position[1]).max(), np.abs(x - position[0]).max())
        return self._box(position, 1.25 * radius + 3)

    def _single_prior(self, position, size):
        """Mean and spread of the parameters of one profile."""
        o = self.options
        return (
            np.array([*position, size, 0.0, 0.0, np.log(1.2)]),
            np.array([o.position, o.position, o.size, o.ellipticity, o.ellipticity, o.index]),
        )

    def _scene(self, model, boxes, priors):
        error = self.options.model_error * np.maximum(model, 0)
        root = (self.valid / np.sqrt(self.variance + error * error)).astype(np.float32)
        largest = np.log(max(root.shape[1:]) / 2 + 1)
        shape = [(np.log(0.05), -1, -1, np.log(INDICES[0])), (largest, 1, 1, np.log(INDICES[1]))]
        steps = [0.7, 0.7, 0.7, 0.35, 0.35, 0.5, 0.7, 0.35, 0.35, 0.5, 1.0]
        low, high = [], []
        for mean, _ in priors:
            two = len(mean) > len(SINGLE)
            low.append([mean[0] - 1.5, mean[1] - 1.5, *shape[0] * (1 + two), *[-5.0] * two])
            high.append([mean[0] + 1.5, mean[1] + 1.5, *shape[1] * (1 + two), *[5.0] * two])
        sizes = [len(mean) for mean, _ in priors]
        return Scene(
            data=(self.data * root).astype(np.float32),
            root=root,
            psf=self.psf,
            boxes=boxes,
            sizes=sizes,
            mean=np.concatenate([mean for mean, _ in priors]),
            precision=1 / np.square(np.concatenate([spread for _, spread in priors])),
            low=np.concatenate(low),
            high=np.concatenate(high),
            step=np.concatenate([steps[:size] for size in sizes]),
            corrections=[None] * len(boxes),
        )

    def _start(self, positions):
        """Initial parameters: half-light radii of the light nearest to each centre."""
        y, x = np.mgrid[: self.data.shape[1], : self.data.shape[2]]
        light = self.data.sum(axis=0)
        distance = np.hypot(x - positions[:, 0, None, None], y - positions[:, 1, None, None])
        nearest = distance.argmin(axis=0)
        bright = light > 1.5 * np.sqrt(len(self.data))
        sigma = self.psf.sigma
        out = []
        for i, position in enumerate(positions):
            own = (nearest == i) & bright
            radius, flux = distance[i][own], light[own]
            half = sigma
            if len(radius) > 3:
                order = np.argsort(radius)
                total = np.cumsum(flux[order])
                half = radius[order][np.searchsorted(total, 0.5 * total[-1])]
            size = 0.5 * np.log(max(half**2 - 1.386 * sigma**2, (0.4 * sigma) ** 2))
            out.append(np.array([*position, size, 0, 0, np.log(1.2)]))
        return out

    def _second_profiles(self, state, scene, priors):
        """Parameters to go on from: bright and large sources get a second profile; ``priors`` change, too."""
        o = self.options
        firsts = scene.first[:-1]
        power = np.einsum("bs,bs->s", state.flux**2, state.gram[:, firsts, firsts])
        out = []
        for i, part in enumerate(scene.parts):
            theta = state.theta[part]
            if len(theta) > len(SINGLE) or power[i] < o.split**2 or theta[2] < np.log(o.split_size * self.psf.sigma):
                out.append(theta)
                continue
            two = np.concatenate([theta, theta[2:], [o.fraction]])
            two[2] += np.log(o.outer)
            two[6] += np.log(o.inner)
            two[7:9] *= 0.5
            two[5], two[9] = 0.0, np.log(o.inner_index)
            out.append(two)
            mean, spread = priors[i]
            mean = np.concatenate([mean, [two[6], 0, 0, two[9], two[10]]])
            mean[2], mean[5] = two[2], 0.0
            spread = np.concatenate(
                [spread, [o.inner_spread, o.ellipticity, o.ellipticity, o.index, o.fraction_spread]]
            )
            spread[2], spread[5] = o.outer_spread, o.disk_index
            priors[i] = mean, spread
        return out

    def _render(self, state, scene):
        """(source, band, y, x), in units of the noise."""
        out = np.zeros((len(scene.boxes), *self.data.shape))
        for i, (part, box) in enumerate(zip(scene.parts, scene.boxes, strict=True)):
            unit = profiles(state.theta[part], self.psf, box).sum(axis=0)
            inside = out[(i, slice(None), *box)]
            inside[:] = (unit * state.flux[:, i, None]).reshape(inside.shape)
        return out

    def models(self):
        """(source, band, y, x) in the image's unit: each profile with its own colour, if the image asks for it."""
        scene, state = self.scene, self.state
        parts = [profiles(state.theta[p], self.psf, box) for p, box in zip(scene.parts, scene.boxes, strict=True)]
        white = [
            np.ascontiguousarray((p * crop(scene.root, box)).transpose(1, 0, 2))
            for p, box in zip(parts, scene.boxes, strict=True)
        ]
        gram = gram_matrix(white, scene.boxes)
        linear = np.concatenate(
            [np.einsum("bkp,bp->bk", w, crop(scene.data, box)) for w, box in zip(white, scene.boxes, strict=True)], 1
        )
        at = 0
        for i, w in enumerate(white):
            if w.shape[1] == 2:
                tie = 1 / np.square(self.options.colour * np.maximum(state.flux[:, i], 1e-3))
                gram[:, at, at] += tie
                gram[:, at + 1, at + 1] += tie
                gram[:, at, at + 1] -= tie
                gram[:, at + 1, at] -= tie
            at += w.shape[1]
        flux = fluxes(gram, linear)
        shrink = self._shrinkage()
        out = np.zeros((len(parts), *self.data.shape), np.float32)
        at = 0
        for i, (p, box) in enumerate(zip(parts, scene.boxes, strict=True)):
            f = flux[:, at : at + len(p)] * (self.scale * shrink[:, i])[:, None]
            at += len(p)
            inside = out[(i, slice(None), *box)]
            inside[:] = np.einsum("kbp,bk->bp", p, f).reshape(inside.shape)
        return out

    def _shrinkage(self):
        variance = np.diagonal(flux_covariance(self.state, self.scene), axis1=1, axis2=2)
        power = self.state.flux**2 / np.maximum(variance, 1e-30)
        if self.options.shrink == 1:
            return np.maximum(power - 1, 0) / np.maximum(power, 1e-30)
        if self.options.shrink == 2:
            return power / (1 + power)
        if self.options.shrink == 3:
            return power**2 / (1 + power**2)
        return np.ones_like(power)

    def flux_variance(self):
        """(source, band) in the image's unit squared."""
        covariance = flux_covariance(self.state, self.scene)
        variance = np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0)
        variance = variance + np.square(self.options.model_error * self.state.flux)
        return (variance * np.square(self.scale)[:, None]).T
