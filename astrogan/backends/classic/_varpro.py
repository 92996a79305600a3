"""Joint least squares of a blend: shapes by Levenberg-Marquardt, fluxes eliminated (variable projection)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from astrogan.backends.classic._profile_model import source_model

__all__ = ["Scene", "State", "crop", "flux_covariance", "fluxes", "gram_matrix", "minimise"]

# Relative ridge on the fluxes: what two centres in one place need to share their light.
_RIDGE = 1e-5


@dataclass
class Scene:
    """What is fitted: whitened data, the sources' boxes and priors.

    Attributes
    ----------
    data, root : `numpy.ndarray`
        (band, y, x) float32: the image times ``root``, and the root of its inverse variance (0 where invalid).
    psf : PSFMixture
    boxes : list of tuple of slice
        Rows and columns of each source.
    sizes : list of int
        Parameters of each source.
    mean, precision, low, high, step : `numpy.ndarray`
        (parameter,): the prior's mean and inverse variance, bounds, and the longest step in one iteration.
    corrections : list
        (band, pixel) of each source, what the PSF's Gaussians leave out; None for nothing.
    """

    data: np.ndarray
    root: np.ndarray
    psf: object
    boxes: list
    sizes: list
    mean: np.ndarray
    precision: np.ndarray
    low: np.ndarray
    high: np.ndarray
    step: np.ndarray
    corrections: list
    _roots: list = field(default_factory=list)
    _spare: list = field(default_factory=list)

    def __post_init__(self):
        self._roots = [crop(self.root, box) for box in self.boxes]
        self._spare = [[] for _ in self.boxes]
        self.parts = np.split(np.arange(len(self.mean)), np.cumsum(self.sizes)[:-1])
        # In the Gram matrix each source has its model, then its derivatives.
        self.first = np.cumsum([0, *(size + 1 for size in self.sizes)])
        self.slots = np.delete(np.arange(self.first[-1]), self.first[:-1])
        self.source = np.repeat(np.arange(len(self.sizes)), self.sizes)

    def models(self, theta, before=None, still=()):
        """Whitened models of unit flux and their derivatives, a list of (band, 1 + parameters, pixel).

        Those of the sources in ``still`` are taken from the state ``before``.
        """
        out = []
        for i, box in enumerate(self.boxes):
            if i in still:
                out.append(before.models[i])
                continue
            buffer = self._spare[i].pop() if self._spare[i] else None
            model = source_model(theta[self.parts[i]], self.psf, box, out=buffer)
            if self.corrections[i] is not None:
                model[:, 0] += self.corrections[i]
            model *= self._roots[i][:, None]
            out.append(model)
        return out

    def release(self, state, kept):
        """Let a later call of `models` use the arrays of a state that ``kept``, the one that stays, does not use."""
        for spare, model, used in zip(self._spare, state.models, kept.models, strict=True):
            if model is not used:
                spare.append(model)

    def evaluate(self, theta, before=None, still=()):
        """The `State` at these parameters, which for the sources in ``still`` are those of ``before``."""
        models = self.models(theta, before, still)
        gram = gram_matrix(models, self.boxes, None if before is None else before.gram, still)
        firsts = self.first[:-1]
        linear = np.stack(
            [np.einsum("bp,bp->b", m[:, 0], crop(self.data, b)) for m, b in zip(models, self.boxes, strict=True)], 1
        )
        flux = fluxes(gram[:, firsts[:, None], firsts], linear)
        residual = self.data.copy()
        for model, f, box in zip(models, flux.T, self.boxes, strict=True):
            part = residual[(slice(None), *box)]
            part -= (model[:, 0] * f[:, None].astype(np.float32)).reshape(part.shape)
        flat = residual.ravel()
        chi2 = float(flat @ flat)
        penalty = float(np.sum(self.precision * (theta - self.mean) ** 2))
        return State(theta, flux, gram, models, residual, chi2, chi2 + penalty)

    def normal(self, state):
        """Gradient and Hessian of half the objective by the parameters, fluxes eliminated (Kaufman 1975)."""
        gradient = self.precision * (state.theta - self.mean)
        for i, (model, box) in enumerate(zip(state.models, self.boxes, strict=True)):
            inner = np.einsum("bkp,bp->bk", model[:, 1:], crop(state.residual, box))
            gradient[self.parts[i]] -= state.flux[:, i] @ inner
        hessian = np.diag(self.precision)
        firsts = self.first[:-1]
        for flux, gram in zip(state.flux, state.gram, strict=True):
            scale = flux[self.source]
            hessian += scale[:, None] * gram[np.ix_(self.slots, self.slots)] * scale
            free = firsts[flux > 0]
            if len(free):
                cross = scale[:, None] * gram[np.ix_(self.slots, free)]
                hessian -= cross @ np.linalg.solve(_ridged(gram[np.ix_(free, free)]), cross.T)
        return gradient, hessian


@dataclass
class State:
    """A point of the fit.

    Attributes
    ----------
    theta : `numpy.ndarray`
        (parameter,), source after source.
    flux : `numpy.ndarray`
        (band, source).
    gram : `numpy.ndarray`
        (band, n, n): inner products of whitened models and derivatives.
    models : list of `numpy.ndarray`
    residual : `numpy.ndarray`
        (band, y, x), whitened.
    chi2, objective : float
    """

    theta: np.ndarray
    flux: np.ndarray
    gram: np.ndarray
    models: list
    residual: np.ndarray
    chi2: float
    objective: float


def crop(array, box):
    """(band, pixel) of a box."""
    part = array[(slice(None), *box)]
    return np.ascontiguousarray(part).reshape(len(array), -1)


def gram_matrix(models, boxes, before=None, still=()):
    """Inner products of all rows of all models.

    Parameters
    ----------
    models : list of `numpy.ndarray`
        (band, row, pixel) each.
    boxes : list of tuple of slice
    before : `numpy.ndarray`, optional
        An earlier result that holds for pairs of models both in ``still``.
    still : set of int

    Returns
    -------
    `numpy.ndarray`
        (band, n, n), n the rows of all models together.
    """
    first = np.cumsum([0, *(m.shape[1] for m in models)])
    gram = np.zeros((len(models[0]), first[-1], first[-1])) if before is None else before.copy()
    for i, model in enumerate(models):
        here = slice(first[i], first[i + 1])
        if i not in still:
            gram[:, here, here] = model @ model.transpose(0, 2, 1)
        for j in range(i):
            if i in still and j in still:
                continue
            a, b = _common(model, boxes[i], models[j], boxes[j])
            if a is None:
                continue
            there = slice(first[j], first[j + 1])
            product = a @ b.transpose(0, 2, 1)
            gram[:, here, there] = product
            gram[:, there, here] = product.transpose(0, 2, 1)
    return gram


def _common(a, box_a, b, box_b):
    """Both arrays where the boxes meet; (None, None) where they do not."""
    if box_a == box_b:
        return a, b
    meet = []
    for s, t in zip(box_a, box_b, strict=True):
        start, stop = max(s.start, t.start), min(s.stop, t.stop)
        if start >= stop:
            return None, None
        meet.append(slice(start, stop))
    return _part(a, box_a, meet), _part(b, box_b, meet)


def _part(array, box, meet):
    rows, columns = box
    if tuple(meet) == tuple(box):
        return array
    shaped = array.reshape(*array.shape[:2], rows.stop - rows.start, columns.stop - columns.start)
    inner = tuple(slice(m.start - s.start, m.stop - s.start) for m, s in zip(meet, box, strict=True))
    return np.ascontiguousarray(shaped[(..., *inner)]).reshape(*array.shape[:2], -1)


def _ridged(gram):
    """A copy with a small ridge; sources without weight get a one."""
    out = np.array(gram)
    diagonal = np.diag_indices(len(out))
    values = out[diagonal]
    out[diagonal] = np.where(values > 0, values * (1 + _RIDGE), 1.0)
    return out


def fluxes(gram, linear):
    """Non-negative least squares for each band.

    Parameters
    ----------
    gram : `numpy.ndarray`
        (band, source, source): inner products of the whitened unit models.
    linear : `numpy.ndarray`
        (band, source): theirs with the data.

    Returns
    -------
    `numpy.ndarray`
        (band, source), >= 0.
    """
    out = np.empty(linear.shape)
    for band, (g, c) in enumerate(zip(gram, linear, strict=True)):
        g = _ridged(g)
        # Models in units of their own norm: bands and sources of all brightnesses look alike.
        norm = 1 / np.sqrt(np.diag(g))
        g, c = g * norm[:, None] * norm, c * norm
        out[band] = _nonnegative(g, c) * norm
    return out


def _nonnegative(gram, linear):
    solution = np.linalg.solve(gram, linear)
    if (solution >= 0).all():
        return solution
    from scipy.optimize import nnls

    # By eigenvalues: centres in one place leave the matrix on the verge of having no root.
    values, vectors = np.linalg.eigh(gram)
    root = np.sqrt(np.maximum(values, _RIDGE))
    try:
        return nnls(root[:, None] * vectors.T, (vectors.T @ linear) / root, maxiter=30 * len(gram))[0]
    except RuntimeError:
        return np.maximum(solution, 0)


def minimise(scene, theta, *, iterations, tolerance=0.05, relative=2e-4):
    """Levenberg-Marquardt.

    Parameters
    ----------
    scene : `Scene`
    theta : `numpy.ndarray`
        (parameter,), where to start.
    iterations : int
        Most evaluations.
    tolerance : float
        The fit ends when a step lowers the objective by less than this
    relative : float
        Plus this part of it.

    Returns
    -------
    `State`
    """
    state = scene.evaluate(np.clip(theta, scene.low, scene.high))
    damping = 1e-2
    gradient = None
    for _ in range(iterations):
        if gradient is None:
            gradient, hessian = scene.normal(state)
        enough = tolerance + relative * state.objective
        step = _step(state.theta, gradient, hessian, damping, scene)
        still = _still(step, gradient, scene, 0.1 * enough)
        trial = scene.evaluate(np.clip(state.theta + step, scene.low, scene.high), state, still)
        gain = state.objective - trial.objective
        if gain > 0:
            scene.release(state, trial)
            state, gradient = trial, None
            damping = max(damping * 0.2, 1e-4)
            if gain < enough:
                break
        else:
            scene.release(trial, state)
            if -gain < 0.1 * tolerance or damping > 1e4:
                break
            damping *= 8
    return state


def _still(step, gradient, scene, little):
    """Sources whose step promises next to nothing; it is not taken, and sets ``step`` to zero there."""
    gains = [-step[part] @ gradient[part] for part in scene.parts]
    still = {i for i, gain in enumerate(gains) if gain < little / len(gains)}
    if len(still) == len(gains):
        return set()
    for i in still:
        step[scene.parts[i]] = 0
    return still


def _step(theta, gradient, hessian, damping, scene):
    """The damped step, with parameters that a bound holds left out, no longer than allowed."""
    held = ((theta <= scene.low) & (gradient > 0)) | ((theta >= scene.high) & (gradient < 0))
    free = ~held
    system = hessian[np.ix_(free, free)]
    system[np.diag_indices(len(system))] *= 1 + damping
    step = np.zeros(len(theta))
    step[free] = -np.linalg.solve(system, gradient[free])
    # Each source by its own factor: one that leaps must not hold up the others.
    longest = np.abs(step) / scene.step
    for part in scene.parts:
        step[part] /= max(1.0, longest[part].max())
    return step


def flux_covariance(state, scene):
    """Covariances of the fluxes, that of the shapes included.

    Parameters
    ----------
    state : `State`
    scene : `Scene`

    Returns
    -------
    `numpy.ndarray`
        (band, source, source).
    """
    _, hessian = scene.normal(state)
    shapes = np.linalg.pinv(hessian, hermitian=True)
    firsts = scene.first[:-1]
    out = []
    for flux, gram in zip(state.flux, state.gram, strict=True):
        inverse = _inverse(_ridged(gram[np.ix_(firsts, firsts)]))
        slope = inverse @ (flux[scene.source][:, None] * gram[np.ix_(scene.slots, firsts)]).T
        out.append(inverse + slope @ shapes @ slope.T)
    return np.array(out)


def _inverse(gram):
    """Of a positive matrix, also where rounding made it less than that."""
    norm = 1 / np.sqrt(np.diag(gram))
    values, vectors = np.linalg.eigh(gram * norm[:, None] * norm)
    return (vectors / np.maximum(values, _RIDGE)) @ vectors.T * norm[:, None] * norm
