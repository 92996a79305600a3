"""What a translated image lacks of its target's noise."""

from __future__ import annotations

import numpy as np

from astrogan.api import sample_noise

__all__ = ["add_target_noise"]

_SMOOTH = 5
"""Edge in pixels of the mean from which the light is read that makes photon noise: the image may be noisy itself."""


def add_target_noise(data, target, present, *, where, rng, bands, excess=0.0):
    """Add what an image lacks of its target's noise.

    Parameters
    ----------
    data : `numpy.ndarray`
        (band, y, x), changed in place.
    target : `~astrogan.api.Target`
        With ``noise``; its ``noise_slope`` and ``noise_model`` count where it has them.
    present : array_like
        (band,), the variance that the image's background has already.
    where : `numpy.ndarray` of bool
        (y, x), pixels that get noise.
    rng : `numpy.random.Generator`
    bands : sequence of str
        Their names.
    excess : `numpy.ndarray` or float, optional
        (band, y, x), by how much the image's variance is larger than its background's where there is light.

    Returns
    -------
    variance : `numpy.ndarray`
        (band, y, x), of what was added.
    info : dict
        ``noise_<band>``, the standard deviation that was added to the background, and ``noisier``, the bands that have
        more noise than the target and got none.
    """
    wanted, present = np.square(np.asarray(target.noise, np.float64)), np.asarray(present, np.float64)
    missing = np.maximum(wanted - present, 0.0)
    variance = np.broadcast_to(missing[:, None, None], data.shape).copy()
    if target.noise_slope is not None:
        light = np.asarray(target.noise_slope, np.float64)[:, None, None] * _light(data)
        variance += np.maximum(light - np.maximum(excess, 0.0), 0.0)
    noisier = present > wanted
    variance[noisier] = 0.0
    variance *= where
    if variance.any():
        data += _drawn(target, np.sqrt(variance), rng) * where
    info = {
        f"noise_{name}": float(np.sqrt(m)) for name, m, more in zip(bands, missing, noisier, strict=True) if not more
    }
    names = [name for name, more in zip(bands, noisier, strict=True) if more]
    return variance, info | ({"noisier": ",".join(names)} if names else {})


def _light(data):
    """The light that is surely there, smoothed."""
    from scipy.ndimage import uniform_filter

    return np.stack([np.maximum(uniform_filter(band.astype(np.float64), _SMOOTH), 0.0) for band in data])


def _drawn(target, sigma, rng):
    if target.noise_model is None:
        return rng.normal(size=sigma.shape) * sigma
    return sample_noise(target.noise_model, sigma.shape, sigma=sigma, wcs=target.wcs_out, rng=rng)
