"""Total-variation restoration: weighted least squares that keeps edges."""

from __future__ import annotations

import numpy as np

from astrogan.api import Estimate, Observation
from astrogan.backends.classic._linear import (
    WeightedProblem,
    band_info,
    best_balance,
    check_weighting,
    fill,
    per_band,
    positive_or_auto,
    quick_transforms,
    whole,
)

__all__ = ["TotalVariation"]

_WEAKEST, _STRONGEST = 0.03, 1e3
_FIT = np.float32(0.5)
"""Augmentation of the split H x = u; how fast it converges hardly depends on it."""
_STIFFNESS = {True: 2.0, False: 0.4}
"""Augmentation of the split of the gradient over the strength, without and with a PSF (the quickest of those tried)."""


class TotalVariation:
    """Minimise sum((H x - d)^2 / v) / 2 + strength * TV(x / sigma), TV the isotropic total variation.

    With a PSF it deconvolves, without one H is 1 and it denoises (the model of Rudin, Osher & Fatemi [1]_). v is the
    variance, infinite where a pixel is masked, and sigma its typical square root: the strength has no unit.

    Parameters
    ----------
    strength : float, tuple of float, or "auto"
        Weight of the total variation, one for all bands or one a band; 0.1 to 1 is usual. "auto" takes the one at
        which chi^2 = N - p, with N valid pixels and p the effective number of parameters of the best linear filter
        (by Stein's unbiased risk estimate). The plain discrepancy principle, chi^2 = N, smooths too much.
    weighting : {"local", "pixel"}
        Variance of the data term: the running median over about 50 pixels, or each pixel's own. The latter gives bright
        sources, whose own photons raise their variance, less weight and takes some per cent of their flux.
    iterations : int
        Steps of the alternating direction method of multipliers; "auto" looks for the strength during the first two
        thirds.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    Solved by splitting H x and the gradient off the image [2]_, so that each step is a weighted mean, a
    shrinkage and one division in Fourier space. The edges are free, as in ``tikhonov``. Total variation turns gentle
    slopes into steps and lowers the peaks of faint small sources: use it for detection and display before photometry.
    It is not linear; no variance is given. Without PSF, mask and weights it equals
    `skimage.restoration.denoise_tv_chambolle` with ``weight`` = strength on data over sigma.

    References
    ----------
    .. [1] L. I. Rudin, S. Osher & E. Fatemi, 1992, Physica D 60, 259.
    .. [2] M. V. Afonso, J. M. Bioucas-Dias & M. A. T. Figueiredo, 2011, IEEE Trans. Image Process. 20, 681.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import Observation
    >>> step = np.pad(np.full((1, 32, 16), 20.0), ((0, 0), (0, 0), (16, 0)))
    >>> noisy = step + np.random.default_rng(2).normal(size=step.shape)
    >>> result = TotalVariation(1.0)(Observation(noisy, variance=np.ones_like(noisy)), rng=np.random.default_rng(0))
    >>> bool(abs(result.data - step).mean() < 0.3)
    True
    """

    halo = -1
    needs_psf = False

    def __init__(self, strength="auto", *, weighting: str = "local", iterations: int = 150):
        self.strength = positive_or_auto("strength", strength, example=0.5)
        self.weighting = check_weighting(weighting)
        self.iterations = whole("iterations", iterations, example=120)

    def __repr__(self):
        return f"TotalVariation(strength={self.strength!r}, iterations={self.iterations})"

    def __call__(self, observation: Observation, *, rng=None) -> Estimate:
        """Restore the observation.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
            Data (band, y, x), with a PSF to deconvolve.
        rng : `numpy.random.Generator`, optional
            Not used.

        Returns
        -------
        `~astrogan.api.Estimate`
            ``info`` has ``strength`` and ``reduced_chi2`` (one value, or ``<name>_<band>``); no variance.
        """
        with quick_transforms(observation.data[0].size):
            return self._restore(observation)

    def _restore(self, observation):
        strengths = per_band("strength", self.strength, len(observation.data))
        data, chi2 = np.empty_like(observation.data), []
        for band, strength in enumerate(strengths):
            problem = WeightedProblem(observation, band, self.weighting)
            if problem.trivial:
                data[band] = fill(observation.data[band], observation.valid[band])
                strengths[band] = strength if isinstance(strength, float) else _STRONGEST
                chi2.append(0.0)
                continue
            image, strengths[band], left = self._solve(problem, strength)
            data[band] = problem.finish(image)
            chi2.append(left)
        info = band_info("strength", strengths, observation.bands)
        return Estimate(data, info=info | band_info("reduced_chi2", chi2, observation.bands))

    def _solve(self, problem, strength):
        """(image on the grid, strength used, chi^2 / N)."""
        search = strength == "auto"
        target = best_balance(problem.spectrum, problem.mean_noise, 3.0)[1] if search else None
        strength = 0.3 if search else strength
        weight = problem.weight
        weighted_data = weight * problem.data
        adjoint = np.conj(problem.transfer) if problem.transfer is not None else np.float32(1)
        image, blurred = problem.start, problem.blur(problem.start)
        model, blur_dual = blurred, np.zeros_like(image)
        edges, edge_dual = _gradient(image), np.zeros((2, *image.shape), np.float32)
        stiffness = None
        for i in range(self.iterations):
            if stiffness is None or not 0.5 < stiffness / (_STIFFNESS[problem.transfer is None] * strength) < 2:
                old, stiffness = stiffness, np.float32(_STIFFNESS[problem.transfer is None] * strength)
                edge_dual *= np.float32(1 if old is None else old / stiffness)
                denominator = (_FIT * problem.power + stiffness * problem.laplacian).astype(np.float32)
            right = _FIT * adjoint * problem.forward(model - blur_dual)
            right += stiffness * problem.forward(_gradient_adjoint(edges - edge_dual))
            spectrum = right / denominator
            image = problem.inverse(spectrum)
            blurred = image if problem.transfer is None else problem.inverse(spectrum * problem.transfer)
            shifted = blurred + blur_dual
            model = (weighted_data + _FIT * shifted) / (weight + _FIT)
            blur_dual = shifted - model
            slope = _gradient(image) + edge_dual
            edges = _shrink(slope, strength / stiffness, problem.unseen)
            edge_dual = slope - edges
            if search and 5 < i < 2 * self.iterations / 3:
                ratio = max(target, 0.01) * problem.count / max(problem.chi2(blurred), 1e-3 * problem.count)
                strength = float(np.clip(strength * ratio**0.25, _WEAKEST, _STRONGEST))
        return image, float(strength), problem.chi2(blurred) / problem.count


def _gradient(image):
    """Forward differences along y and x on the periodic grid, (2, y, x)."""
    out = np.empty((2, *image.shape), np.float32)
    for axis, part in enumerate(out):
        np.subtract(np.roll(image, -1, axis), image, out=part)
    return out


def _gradient_adjoint(field):
    out = np.roll(field[0], 1, 0) - field[0]
    out += np.roll(field[1], 1, 1)
    out -= field[1]
    return out


def _shrink(field, threshold, unseen):
    """Shorten each vector by ``threshold``; not where the image is unseen, so that its edges are free."""
    length = np.sqrt(field[0] ** 2 + field[1] ** 2)
    factor = np.maximum(length - np.float32(threshold), 0)
    np.divide(factor, length, out=factor, where=length > 0)
    factor[unseen[0], :] = 1
    factor[:, unseen[1]] = 1
    return field * factor
