"""The steps of one blend's fit: start, one profile a source, two where they pay, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from astrogan.backends.classic._profile_model import INDICES, SINGLE, profiles, psf_mixture, source_correction
from astrogan.backends.classic._varpro import Scene, crop, flux_covariance, fluxes, gram_matrix, minimise
from astrogan.image.uncertainty import background_rms

__all__ = ["BlendFit", "Options", "noise_variance"]

# A source moves no further than this from the position given, in pixels.
_LEASH = 1.5

# Longest step in one iteration of each parameter, as in DOUBLE.
_STEPS = (0.7, 0.7, 0.7, 0.35, 0.35, 0.5, 0.7, 0.35, 0.35, 0.5, 1.0)


@dataclass(frozen=True)
class Options:
    """Priors and limits of the fit.

    Attributes
    ----------
    position, size, ellipticity, index : float
        Spread of the priors: pixels; log of the half-light radius, about the PSF's sigma; each component of
        ellipticity, about round; log of the Sersic index, about 1.2.
    model_error : float
        Standard deviation of galaxies about their models, as a part of the light in a pixel.
    first, second : int
        Most iterations with one profile a source, and with two.
    rough, fine : float
        A fit ends when a step gains less than this part of the objective, with one profile, and with two.
    two_from : float
        S/N of all bands together from which a source gets two profiles.
    two_size : float
        Its least half-light radius for that, in sigma of the PSF.
    outer, inner : float
        Half-light radii of two profiles at first, in that of the one.
    outer_spread, inner_spread, outer_index, inner_index : float
        Spread of their logs; spread of the log of the outer index, about one; mean of the inner index.
    fraction, fraction_spread : float
        Prior of the logit of the inner profile's part of the flux.
    colour : float
        By how much, as a part of the flux, the balance of two profiles may differ between bands.
    own_error, other_error : float
        What galaxies have and profiles do not, for the variances: as a part of a source's own flux, and of the light
        of others under its profile.
    edge : float
        Sources are fitted out to where their model is this faint, in units of the noise, and a little further.
    """

    position: float = 0.5
    size: float = 1.0
    ellipticity: float = 0.3
    index: float = 0.4
    model_error: float = 0.05
    first: int = 12
    second: int = 10
    rough: float = 1e-3
    fine: float = 5e-4
    two_from: float = 30.0
    two_size: float = 0.3
    outer: float = 2.5
    inner: float = 0.8
    outer_spread: float = 0.5
    inner_spread: float = 0.5
    outer_index: float = 0.3
    inner_index: float = 2.0
    fraction: float = -1.0
    fraction_spread: float = 1.5
    colour: float = 1.0
    own_error: float = 0.015
    other_error: float = 0.17
    edge: float = 0.1


def noise_variance(observation):
    """The variance of an observation, positive everywhere; that of its background where it has none.

    Parameters
    ----------
    observation : `~astrogan.api.Observation`

    Returns
    -------
    `numpy.ndarray`
        (band, y, x) float64.
    """
    if observation.variance is None:
        pairs = zip(observation.data, observation.valid, strict=True)
        rms = [background_rms(p, good)[1] if good.any() else np.ones(p.shape) for p, good in pairs]
        level = np.square(np.stack([np.broadcast_to(r, observation.shape[1:]) for r in rms]).astype(np.float64))
        return np.where(level > 0, level, 1.0)
    variance = observation.variance.astype(np.float64)
    pairs = zip(variance, observation.valid, strict=True)
    usual = np.array([np.median(v[good]) if good.any() else 1.0 for v, good in pairs])
    return np.where(observation.valid, variance, usual[:, None, None])


class BlendFit:
    """One blend's fit, in units of each band's noise.

    Parameters
    ----------
    observation : `~astrogan.api.Observation`
        With a PSF.
    positions : `numpy.ndarray`
        (source, 2), at least one.
    options : `Options`
    """

    def __init__(self, observation, positions, options):
        self.options = options
        self.noise_variance = noise_variance(observation)
        self.valid = observation.valid
        self.scale = np.sqrt(np.median(self.noise_variance, axis=(1, 2)))
        self.variance = self.noise_variance / np.square(self.scale)[:, None, None]
        self.data = observation.data * self.valid / self.scale[:, None, None]
        self.psf = psf_mixture(observation.psf)
        self._solve(positions)

    def _solve(self, positions):
        o = self.options
        start = self._start(positions)
        priors = [self._prior(position) for position in positions]
        boxes = [self._box(theta[:2], 6 * np.exp(theta[2]) + 5 * self.psf.sigma + 4) for theta in start]
        smooth = np.stack([ndimage.gaussian_filter(plane, 1.0) for plane in self.data])
        scene = self._scene(smooth, boxes, priors)
        state = minimise(scene, np.concatenate(start), iterations=o.first, relative=o.rough)
        # Once more: with the exact PSF, weights from the model, boxes that fit, and second profiles.
        start = self._second_profiles(state, scene, priors)
        model = self._render(state, scene)
        boxes = [self._reach(m, position) for m, position in zip(model, positions, strict=True)]
        scene = self._scene(model.sum(axis=0), boxes, priors)
        scene.corrections = [source_correction(t, self.psf, b) for t, b in zip(start, boxes, strict=True)]
        self.scene = scene
        self.state = minimise(scene, np.concatenate(start), iterations=o.second, relative=o.fine)

    def _box(self, position, radius):
        """The part of the image within a radius, never empty."""
        box = []
        for at, size in zip(position[::-1], self.data.shape[1:], strict=True):
            start = min(max(int(np.floor(at - radius)), 0), size - 1)
            box.append(slice(start, min(max(int(np.ceil(at + radius)) + 1, start + 1), size)))
        return tuple(box)

    def _reach(self, model, position):
        """The box beyond which a model is fainter than a small part of the noise."""
        y, x = np.nonzero((model > self.options.edge).any(axis=0))
        radius = 2 * self.psf.sigma
        if len(y):
            radius = max(radius, np.abs(y - position[1]).max(), np.abs(x - position[0]).max())
        return self._box(position, 1.1 * radius + 3)

    def _prior(self, position):
        """Mean and spread of the parameters of one profile."""
        o = self.options
        size = np.log(max(self.psf.sigma, 1.0))
        mean = np.array([*position, size, 0.0, 0.0, np.log(1.2)])
        return mean, np.array([o.position, o.position, o.size, o.ellipticity, o.ellipticity, o.index])

    def _scene(self, model, boxes, priors):
        """The problem to solve, its weights set for a model (band, y, x) of all light."""
        error = self.options.model_error * np.maximum(model, 0)
        root = (self.valid / np.sqrt(self.variance + error * error)).astype(np.float32)
        largest = np.log(max(root.shape[1:]) / 2 + 1)
        least, most = (np.log(0.05), -1, -1, np.log(INDICES[0])), (largest, 1, 1, np.log(INDICES[1]))
        low, high = [], []
        for mean, _ in priors:
            two = len(mean) > len(SINGLE)
            low.append([*mean[:2] - _LEASH, *least * (1 + two), *[-5.0] * two])
            high.append([*mean[:2] + _LEASH, *most * (1 + two), *[5.0] * two])
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
            step=np.concatenate([_STEPS[:size] for size in sizes]),
            corrections=[None] * len(boxes),
        )

    def _start(self, positions):
        """Initial parameters: half-light radii of the light nearest to each centre."""
        light = self.data.sum(axis=0)
        y, x = np.nonzero(light > 1.5 * np.sqrt(len(self.data)))
        light = light[y, x]
        nearest, distance = _nearest(x, y, positions)
        sigma = self.psf.sigma
        out = []
        for i, position in enumerate(positions):
            radius, flux = distance[nearest == i], light[nearest == i]
            half = sigma
            if len(radius) > 3:
                order = np.argsort(radius, kind="stable")
                total = np.cumsum(flux[order])
                half = radius[order][np.searchsorted(total, 0.5 * total[-1])]
            # Less the half-light radius of the PSF, in quadrature.
            size = 0.5 * np.log(max(half**2 - 1.386 * sigma**2, (0.4 * sigma) ** 2))
            out.append(np.array([*position, size, 0, 0, np.log(1.2)]))
        return out

    def _second_profiles(self, state, scene, priors):
        """Parameters to go on from: bright and large sources get a second profile; ``priors`` change, too."""
        o = self.options
        models = scene.first[:-1]
        power = np.einsum("bs,bs->s", state.flux**2, state.gram[:, models, models])
        out = []
        for i, part in enumerate(scene.parts):
            theta = state.theta[part]
            if power[i] >= o.two_from**2 and theta[2] >= np.log(o.two_size * self.psf.sigma):
                theta, priors[i] = self._divided(theta, *priors[i])
            out.append(theta)
        return out

    def _divided(self, theta, mean, spread):
        """Two profiles in place of one, and their prior."""
        o = self.options
        two = np.concatenate([theta, theta[2:], [o.fraction]])
        two[2] += np.log(o.outer)
        two[6] += np.log(o.inner)
        two[7:9] *= 0.5
        two[5], two[9] = 0.0, np.log(o.inner_index)
        mean = np.concatenate([mean, [two[6], 0, 0, two[9], two[10]]])
        mean[2], mean[5] = two[2], 0.0
        inner = [o.inner_spread, o.ellipticity, o.ellipticity, o.index, o.fraction_spread]
        spread = np.concatenate([spread, inner])
        spread[2], spread[5] = o.outer_spread, o.outer_index
        return two, (mean, spread)

    def _render(self, state, scene):
        """(source, band, y, x), in units of the noise."""
        out = np.zeros((len(scene.boxes), *self.data.shape))
        for i, (part, box) in enumerate(zip(scene.parts, scene.boxes, strict=True)):
            unit = profiles(state.theta[part], self.psf, box).sum(axis=0)
            inside = out[(i, slice(None), *box)]
            inside[:] = (unit * state.flux[:, i, None]).reshape(inside.shape)
        return out

    def models(self):
        """Each source alone, (source, band, y, x) float32 in the image's unit."""
        scene = self.scene
        parts = [profiles(self.state.theta[p], self.psf, box) for p, box in zip(scene.parts, scene.boxes, strict=True)]
        flux = self._coloured(parts)
        out = np.zeros((len(parts), *self.data.shape), np.float32)
        for i, (part, f, box) in enumerate(zip(parts, flux, scene.boxes, strict=True)):
            f = f * (self.scale * self._kept[i])[:, None]
            inside = out[(i, slice(None), *box)]
            inside[:] = np.einsum("kbp,bk->bp", part, f).reshape(inside.shape)
        return out

    def _coloured(self, parts):
        """Fluxes of each profile, a list of (band, profile): each has its own colour, if the image asks for it."""
        scene = self.scene
        white = [
            np.ascontiguousarray((part * crop(scene.root, box)).transpose(1, 0, 2))
            for part, box in zip(parts, scene.boxes, strict=True)
        ]
        gram = gram_matrix(white, scene.boxes)
        pairs = zip(white, scene.boxes, strict=True)
        linear = np.concatenate([np.einsum("bkp,bp->bk", w, crop(scene.data, box)) for w, box in pairs], axis=1)
        ends = np.cumsum([len(part) for part in parts])
        for i, (part, end) in enumerate(zip(parts, ends, strict=True)):
            if len(part) == 2:
                tie = 1 / np.square(self.options.colour * np.maximum(self.state.flux[:, i], 1e-3))
                gram[:, end - 2 : end, end - 2 : end] += tie[:, None, None] * np.array([[1, -1], [-1, 1]])
        return np.split(fluxes(gram, linear), ends[:-1], axis=1)

    @cached_property
    def _kept(self):
        """(source, band): what is kept of a flux; less than all where only other bands show the source."""
        power = np.square(self.state.flux.T) / np.maximum(self._fitted_variance + self._lack, 1e-30)
        step = np.clip(0.5 * power - 1, 0, 1)
        return np.where(power.max(axis=1, keepdims=True) > 25, step * step * (3 - 2 * step), 1.0)

    @cached_property
    def _fitted_variance(self):
        """(source, band): of the fluxes, the shapes' uncertainty included."""
        return np.maximum(np.diagonal(flux_covariance(self.state, self.scene), axis1=1, axis2=2), 0).T

    @cached_property
    def _others(self):
        """(source, band): by how much the light of others would raise a flux that took no account of it."""
        models = self.scene.first[:-1]
        gram = self.state.gram[:, models[:, None], models]
        own = np.diagonal(gram, axis1=1, axis2=2)
        total = np.einsum("bij,bj->bi", gram, self.state.flux)
        return np.maximum(np.where(own > 0, total / np.where(own > 0, own, 1) - self.state.flux, 0), 0).T

    @property
    def _lack(self):
        """(source, band): variance for what galaxies have and profiles do not."""
        o = self.options
        return np.square(o.own_error * self.state.flux.T) + np.square(o.other_error * self._others)

    def flux_variance(self):
        """Of the models' fluxes, (source, band), in the image's unit squared."""
        return (self._fitted_variance + self._lack) * np.square(self.scale)

    def sharing_variance(self):
        """Of the fluxes that the image gives when shared by the models, less its own noise, (source, band)."""
        model = self._render(self.state, self.scene)
        total = model.sum(axis=0)
        flux = model.sum(axis=(2, 3))
        share = np.divide(model, total, out=np.zeros_like(model), where=total > 0)
        contested = 1 - np.divide((model * share).sum(axis=(2, 3)), flux, out=np.ones_like(flux), where=flux > 0)
        lack = np.square(self.options.other_error * self._others)
        return (np.clip(contested, 0, 1) * self._fitted_variance + lack) * np.square(self.scale)


def _nearest(x, y, positions):
    """The nearest position to each pixel, and how far it is."""
    from scipy.spatial import cKDTree

    distance, nearest = cKDTree(positions).query(np.stack([x, y], axis=1).astype(np.float64))
    return nearest, distance
