"""Profiles of galaxies and PSFs as sums of Gaussians, fitted to the light within circles."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from astrogan.exceptions import InputError

_RADII = np.geomspace(0.03, 15.0, 120)  # half-light radii


@lru_cache(maxsize=64)
def sersic_mixture(index, components=6):
    """A circular Sersic profile as a sum of Gaussians.

    Parameters
    ----------
    index : float
        Sersic index, 0.5 (one Gaussian) to 6.
    components : int, optional
        How many Gaussians.

    Returns
    -------
    weights, sigmas : tuple of float
        Shares of the flux, with a sum of one, and widths in half-light radii.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    The fit is to the light within circles of 0.03 to 15 half-light radii, for a Sersic profile an incomplete gamma
    function; all light is in the sum. Six Gaussians err by 0.4 % of the flux at most for an index of four.
    """
    from scipy.special import gammainc, gammaincinv

    if not 0.5 <= index <= 6 or components < 1:
        raise InputError(f"index={index!r} must be from 0.5 to 6, and components={components!r} at least 1")
    scale = gammaincinv(2 * index, 0.5)
    return _fit(gammainc(2 * index, scale * _RADII ** (1 / index)), components)


@lru_cache(maxsize=64)
def moffat_mixture(beta, components=3):
    """A circular Moffat profile as a sum of Gaussians.

    Parameters
    ----------
    beta : float
        Exponent, above 1.5.
    components : int, optional
        How many Gaussians.

    Returns
    -------
    weights, sigmas : tuple of float
        Shares of the flux, with a sum of one, and widths in units of the profile's FWHM.

    Raises
    ------
    InputError
        If an argument is out of range.
    """
    if not 1.5 < beta <= 20 or components < 1:
        raise InputError(f"beta={beta!r} must be from 1.5 to 20, and components={components!r} at least 1")
    half_width = np.sqrt(2 ** (1 / beta) - 1)  # over the core radius
    half_light = np.sqrt(2 ** (1 / (beta - 1)) - 1)
    weights, sigmas = _fit(1 - (1 + (_RADII * half_light) ** 2) ** (1 - beta), components)
    return weights, tuple(s * half_light / (2 * half_width) for s in sigmas)


def _fit(enclosed, components):
    """Gaussians with the wanted light within `_RADII`: widths by a search, shares by non-negative least squares."""
    from scipy.optimize import least_squares, nnls

    target = np.append(enclosed, 1.0)
    half = np.log(np.interp(0.5, enclosed, _RADII) / 1.1774)
    inner, outer = (np.log(np.interp(f, enclosed, _RADII) / 1.5) for f in (0.04, 0.97))

    def design(log_sigmas):
        light = -np.expm1(-0.5 * (_RADII[:, None] / np.exp(log_sigmas)) ** 2)
        # That the shares have a sum of one is one more equation, of so much weight that it holds.
        return np.vstack([light, np.full(components, 1e3)])

    right = target * np.append(np.ones(len(_RADII)), 1e3)

    def misfit(log_sigmas):
        matrix = design(log_sigmas)
        return matrix @ nnls(matrix, right)[0] - right

    start = np.linspace(inner, outer, components) if components > 1 else np.array([half])
    sigmas = np.sort(least_squares(misfit, start, max_nfev=100).x)
    weights = nnls(design(sigmas), right)[0]
    return tuple((weights / weights.sum()).tolist()), tuple(np.exp(sigmas).tolist())
