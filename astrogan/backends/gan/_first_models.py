"""What the deblending network starts from: the same in training and in use."""

from __future__ import annotations

import numpy as np

__all__ = ["equivalent_fwhm", "first_models"]


def first_models(observation, positions, start):
    """Models of the sources of one blend by a classic backend.

    Parameters
    ----------
    observation : `~astrogan.api.Observation`
    positions : `numpy.ndarray`
        (source, 2).
    start : {'profile-fit', 'symmetric'}

    Returns
    -------
    models : `numpy.ndarray`
        (source, band, y, x), in the image's unit.
    flux_variance : `numpy.ndarray` or None
        (source, band), where the backend knows it.
    """
    if start == "profile-fit":
        from astrogan.backends.classic.profile_fit import fit_blend

        return fit_blend(observation, positions)
    from astrogan.backends.classic.symmetric import Symmetric

    models = np.zeros((len(positions), *observation.shape), np.float32)
    templates = Symmetric(iterations=2)(observation, positions).templates
    for model, template in zip(models, templates, strict=True):
        (y, x), (_, height, width) = template.origin, template.data.shape
        model[:, y : y + height, x : x + width] = template.data
    return models, None


def equivalent_fwhm(psf):
    """FWHM in pixels of the Gaussian with the same sum of squares, of kernels (..., k, k)."""
    area = 1 / np.square(psf, dtype=np.float64).sum(axis=(-2, -1))
    return (2.3548 * np.sqrt(area / (4 * np.pi))).astype(np.float32)
