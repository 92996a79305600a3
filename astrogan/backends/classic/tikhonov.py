"""Tikhonov deconvolution: weighted least squares with a smoothness penalty."""

from __future__ import annotations

import numpy as np

from astrogan.api import Estimate, Observation
from astrogan.backends.classic._linear import (
    WeightedProblem,
    band_info,
    check_weighting,
    field_balance,
    fill,
    need_psf,
    per_band,
    positive,
    positive_or_auto,
    quick_transforms,
    whole,
)

__all__ = ["Tikhonov"]


class Tikhonov:
    """Minimise ``sum(w (H x - d)^2) + strength * |L x|^2``, H the PSF's convolution and L the Laplacian.

    The weights w are inverse variances over their mean, and 0 where a pixel is masked: holes and the uneven depth of a
    mosaic are taken for what they are, which the Wiener filter cannot do. Outside the image
    nothing is assumed: the scene goes on into a margin that no data constrain.

    Parameters
    ----------
    strength : float, tuple of float, "auto", or "discrepancy"
        Weight of the penalty, in units of the weights' mean; one for all bands or one a band. "auto" takes the one with
        the least Stein's unbiased risk estimate (as ``wiener``, from the spectrum). "discrepancy" takes the one at
        which chi^2 equals the number of valid pixels (Morozov), which is smoother and costs several solutions.
    weighting : {"local", "pixel"}
        Weights from the variance's running median over about 50 pixels, or from each pixel's own variance. The latter
        gives bright sources, whose own photons raise their variance, less weight, so that the penalty takes
        some per cent of their flux.
    tolerance : float
        Conjugate gradients stop at this residual, relative to that of the first right-hand side.
    iterations : int
        At most this many conjugate-gradient steps a solution.

    Raises
    ------
    InputError
        If an argument is out of range.
    PSFError
        When called without a PSF.

    Notes
    -----
    Conjugate gradients run on Fourier coefficients, preconditioned with the solution for equal weights, at two real
    FFTs a step; on equal weights a few steps do. Where the observation has no variance the weights are equal
    and the noise is the robust scatter of second differences.

    ``variance`` is that of the noise alone, with strength and weights taken as given, in the approximation that the
    weights vary slowly over the PSF: at each pixel the solution's variance for equal weights of the local
    (PSF-averaged) value. It holds within a few per cent where weights and noise are smooth, less well beside holes and
    bright stars. It is only given for an observation that has one.

    References
    ----------
    .. [1] A. N. Tikhonov & V. Y. Arsenin, 1977, Solutions of Ill-posed Problems, Winston.
    .. [2] V. A. Morozov, 1966, Soviet Math. Dokl. 7, 414 (the discrepancy principle).

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import Observation
    >>> psf = np.outer([1, 2, 1], [1, 2, 1])[None] / 16
    >>> star = np.pad(psf, ((0, 0), (15, 15), (15, 15)))
    >>> result = Tikhonov(1e-3)(Observation(star, psf=psf), rng=np.random.default_rng(0))
    >>> bool(result.data.max() > 1.9 * star.max())
    True
    """

    halo = -1
    needs_psf = True

    def __init__(self, strength="auto", *, weighting: str = "local", tolerance: float = 1e-5, iterations: int = 100):
        self.strength = strength
        if strength != "discrepancy":
            self.strength = positive_or_auto("strength", strength, example=0.01)
        self.weighting = check_weighting(weighting)
        self.tolerance = positive("tolerance", tolerance, example=1e-5)
        self.iterations = whole("iterations", iterations, example=100)

    def __repr__(self):
        return f"Tikhonov(strength={self.strength!r})"

    def __call__(self, observation: Observation, *, rng=None) -> Estimate:
        """Deconvolve the observation.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
            Data (band, y, x) with a PSF.
        rng : `numpy.random.Generator`, optional
            Not used.

        Returns
        -------
        `~astrogan.api.Estimate`
            ``info`` has ``strength`` and ``reduced_chi2`` (one value, or ``<name>_<band>``).

        Raises
        ------
        PSFError
            If the observation has no PSF.
        """
        need_psf(observation, "tikhonov")
        with quick_transforms(observation.data[0].size):
            return self._restore(observation)

    def _restore(self, observation):
        strengths = per_band("strength", self.strength, len(observation.data))
        data = np.empty_like(observation.data)
        variance = None if observation.variance is None else np.empty_like(data)
        chi2 = []
        for band, strength in enumerate(strengths):
            problem = WeightedProblem(observation, band, self.weighting)
            if problem.trivial:
                data[band] = fill(observation.data[band], observation.valid[band])
                strengths[band] = strength if isinstance(strength, float) else 1.0
                chi2.append(0.0)
                if variance is not None:
                    variance[band] = observation.variance[band]
                continue
            spectrum, strength = self._solution(problem, strength)
            data[band] = problem.finish(problem.inverse(spectrum))
            if variance is not None:
                variance[band] = _variance(problem, strength)
            chi2.append(problem.chi2(problem.inverse(spectrum * problem.transfer)) / problem.count)
            strengths[band] = strength
        info = band_info("strength", strengths, observation.bands) | band_info("reduced_chi2", chi2, observation.bands)
        return Estimate(data, variance, info=info)

    def _solution(self, problem, strength):
        """(Fourier coefficients of the solution, strength used)."""
        if isinstance(strength, float):
            return self._solve(problem, strength), strength
        balance = field_balance(problem.plane, problem.psf, problem.mean_noise, 4.0)
        balance /= problem.mean_noise
        if strength == "auto":
            return self._solve(problem, balance), balance
        return self._discrepancy(problem, balance)

    def _discrepancy(self, problem, strength):
        """Secant steps in log(strength) towards log(chi^2 / N) = 0, from a first guess."""

        def excess(log_strength, start):
            spectrum = self._solve(problem, float(np.exp(log_strength)), start)
            ratio = problem.chi2(problem.inverse(spectrum * problem.transfer)) / problem.count
            return spectrum, np.log(max(ratio, 1e-12))

        here = np.log(strength)
        spectrum, value = excess(here, None)
        slope = 0.15
        for _ in range(12):
            if abs(value) < 0.003:
                break
            # chi^2 grows with the strength; beyond these limits it has levelled off and N is out of reach
            there = np.clip(here - np.clip(value / slope, -3, 3), -20, 25)
            if there == here:
                break
            spectrum, new = excess(there, spectrum)
            slope = max((new - value) / (there - here), 0.01)
            here, value = there, new
        return spectrum, float(np.exp(here))

    def _solve(self, problem, strength, start=None):
        """Preconditioned conjugate gradients for (H^T W H + strength L^T L) x = H^T W d, on real-FFT coefficients."""
        transfer, weight = problem.transfer, problem.weight
        penalty = np.float32(strength) * problem.laplacian**2
        diagonal = problem.power + penalty
        twice = np.full(transfer.shape[1], 2.0)  # a real FFT leaves out the conjugate half of the plane
        twice[0] = 1.0
        if problem.grid[1] % 2 == 0:
            twice[-1] = 1.0

        def dot(a, b):
            return float((a.real * b.real + a.imag * b.imag).sum(axis=0, dtype=np.float64) @ twice)

        def normal(x):
            return np.conj(transfer) * problem.forward(weight * problem.inverse(transfer * x)) + penalty * x

        right = np.conj(transfer) * problem.forward(problem.data * weight)
        if start is None:
            start = np.conj(transfer) * problem.forward(problem.start) / diagonal
        x = start
        residual = right - normal(x)
        step = residual / diagonal
        rho = dot(residual, step)
        enough = self.tolerance**2 * dot(right, right / diagonal)
        for _ in range(self.iterations):
            if rho <= enough:
                break
            applied = normal(step)
            alpha = np.float32(rho / dot(step, applied))
            x = x + alpha * step
            residual = residual - alpha * applied
            preconditioned = residual / diagonal
            rho, before = dot(residual, preconditioned), rho
            step = preconditioned + np.float32(rho / before) * step
        return x


def _variance(problem, strength):
    """Variance of the solution at each pixel, for weights that vary slowly over the PSF."""
    local = problem.adjoint(problem.weight)[problem.core]
    low = max(float(local.min()), 1e-3)
    table = np.geomspace(low, max(float(local.max()), 1.01 * low), 16)
    power, penalty = problem.power, strength * problem.laplacian**2
    twice = np.full(power.shape[1], 2.0)
    twice[0] = 1.0
    twice[-1] -= problem.grid[1] % 2 == 0
    pixels = problem.grid[0] * problem.grid[1]
    values = [float((w * power / (w * power + penalty) ** 2).sum(axis=0) @ twice) / pixels for w in table]
    shape = np.exp(np.interp(np.log(np.maximum(local, low)), np.log(table), np.log(values)))
    # that is for noise of variance 1 / weight; correct for a pixel noise that is larger, seen through the PSF
    weight = problem.weight[problem.core]
    ratio = np.ones(problem.grid, np.float32)
    np.divide(weight, problem.inverse_variance, out=ratio[problem.core], where=weight > 0)
    excess = problem.adjoint(problem.weight * ratio)[problem.core] / np.maximum(local, low)
    return shape * np.maximum(excess, 0.1) * problem.noise
