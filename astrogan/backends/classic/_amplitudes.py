"""The level of the noise as it varies from image to image, jointly in all bands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["Amplitudes"]

_LILLIEFORS = 1.035
"""Of the Kolmogorov-Smirnov distance to a normal law with fitted moments, times the root of the number: 1 % level."""

_KNOTS = 512


@dataclass(frozen=True)
class Amplitudes:
    """Standard deviations of an image's noise: normal deviates, correlated between bands, through each band's law.

    Parameters
    ----------
    mean, scatter : `numpy.ndarray`
        Of the logarithm of the standard deviation, (band,).
    correlation : `numpy.ndarray`
        Of the normal deviates, (band, band).
    table : `numpy.ndarray`, optional
        Quantiles of the logarithm at equal steps of probability, (band, knot), in place of the log-normal law.

    Notes
    -----
    Lin et al. (2021) learn a law a band, drawn on its own; that bands go up and down together (with air mass,
    moonlight and the number of exposures) is ours.
    """

    mean: np.ndarray
    scatter: np.ndarray
    correlation: np.ndarray
    table: np.ndarray | None = None

    @classmethod
    def fit(cls, stds, sampling, law="auto"):
        """Learn from measured standard deviations, less the scatter that measuring them on few pixels adds.

        Parameters
        ----------
        stds : array_like
            (image, band), positive.
        sampling : array_like
            (band, band): covariance of the error of their logarithms.
        law : {'auto', 'log-normal', 'empirical'}
            'auto': log-normal, unless a test finds the difference at the 1 % level.

        Returns
        -------
        Amplitudes or None
            `None` for a single image, which tells nothing of scatter.
        """
        if law not in ("auto", "log-normal", "empirical"):
            raise InputError(f"law={law!r} must be 'auto', 'log-normal' or 'empirical'")
        logs = np.log(np.asarray(stds, np.float64))
        if len(logs) < 2:
            return None
        total = np.atleast_2d(np.cov(logs.T))
        intrinsic = _positive(total - sampling)
        mean, scatter = logs.mean(axis=0), np.sqrt(np.diag(intrinsic))
        norm = np.maximum(scatter, 1e-12)
        correlation = intrinsic / np.outer(norm, norm)
        np.fill_diagonal(correlation, 1.0)
        table = None
        if law == "empirical" or (law == "auto" and _differ_from_normal(logs)):
            shrunk = mean + (logs - mean) * (scatter / np.sqrt(np.maximum(np.diag(total), 1e-30)))
            knots = min(len(logs), _KNOTS)
            table = np.quantile(shrunk, (np.arange(knots) + 0.5) / knots, axis=0, method="hazen").T
        return cls(mean, scatter, correlation, table)

    def draw(self, bands, rng):
        """Standard deviations (band,) of one image.

        Parameters
        ----------
        bands : int
        rng : `numpy.random.Generator`

        Returns
        -------
        `numpy.ndarray`
            Of an instance with one band, so many independent ones.
        """
        return self.at(self.deviates(bands, rng))

    def deviates(self, bands, rng):
        """The normal deviates (band,) behind one image's standard deviations."""
        deviates = rng.standard_normal(bands)
        if len(self.mean) == 1:
            return deviates
        if len(self.mean) != bands:
            raise InputError(f"amplitudes were learned for {len(self.mean)} bands; the shape asks for {bands}")
        return matrix_root(self.correlation) @ deviates

    def at(self, deviates):
        """Standard deviations of normal deviates (..., band)."""
        deviates = np.asarray(deviates, np.float64)
        if self.table is None:
            return np.exp(self.mean + self.scatter * deviates)
        from scipy.special import ndtr

        knots = self.table.shape[1]
        p = ndtr(deviates) * knots - 0.5
        tables = np.broadcast_to(self.table, (deviates.shape[-1], knots))
        logs = [np.interp(p[..., b], np.arange(knots), table) for b, table in enumerate(tables)]
        return np.exp(np.stack(logs, axis=-1))


def matrix_root(matrix):
    """A square root of a covariance, lower triangular where it is positive definite; rounding below zero is cut."""
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
        return vectors * np.sqrt(np.maximum(values, 0))


def _positive(matrix):
    """The nearest matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def nearest_correlation(matrix):
    """A correlation matrix near ``matrix``."""
    matrix = _positive(matrix)
    norm = np.sqrt(np.maximum(np.diag(matrix), 1e-12))
    return matrix / np.outer(norm, norm)


def _differ_from_normal(logs):
    """Whether some band's values, standardised, are not of a normal law (Lilliefors' test; needs about 30)."""
    from scipy.special import ndtr

    n = len(logs)
    if n < 30:
        return False
    z = np.sort((logs - logs.mean(axis=0)) / np.maximum(logs.std(axis=0, ddof=1), 1e-30), axis=0)
    steps = np.arange(n)[:, np.newaxis] / n
    p = ndtr(z)
    distance = np.maximum(p - steps, steps + 1 / n - p).max(axis=0)
    # One test a band: the level is divided among them, on which the critical distance depends little.
    return bool((distance * np.sqrt(n) > _LILLIEFORS + 0.1 * np.log(logs.shape[1])).any())
