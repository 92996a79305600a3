"""Many stamps through one restorer at once: what `astrogan.Restorer.batch` does."""

from __future__ import annotations

import numpy as np

from astrogan.api import Observation
from astrogan.exceptions import InputError, PSFError

__all__ = ["restore_stamps"]


def restore_stamps(restorer, stamps, *, psf, variance, generator, pixel_scale, bands):
    """Restore plain arrays.

    Parameters
    ----------
    restorer : `~astrogan.Restorer`
    stamps : array_like
        (n, band, y, x), finite.
    psf : optional
        In any form that `~astrogan.image.psf.as_psf` takes; one for all stamps.
    variance : array_like or None
        Broadcasting to ``stamps``.
    generator : `numpy.random.Generator`
    pixel_scale : float, `~astropy.units.Quantity` or None
    bands : sequence of str or None

    Returns
    -------
    data, variance : `numpy.ndarray`
        float32, (n, band, y, x); the variance is `None` where the method gives none.

    Raises
    ------
    InputError
        If an array has a wrong shape, or is not finite.
    PSFError
        If the method needs a PSF and there is none.
    BackendError
        If the backend breaks its contract.
    """
    shape = np.shape(stamps)
    if len(shape) != 4 or 0 in shape[1:]:
        raise InputError(f"stamps has shape {shape}; it must be (n, band, y, x) with no empty axis")
    restorer._check_size(shape[1:])
    observations = list(_observations(restorer, np.asarray(stamps), psf, variance, pixel_scale, bands))
    # Spawned, so that the numbers of a stamp do not depend on those before it, nor on the threads.
    estimates = _estimates(restorer, observations, generator.spawn(len(observations)))
    for estimate in estimates:
        restorer._check_estimate(estimate, shape[1:])
    data, variances = np.empty(shape, np.float32), None
    if estimates and all(estimate.variance is not None for estimate in estimates):
        variances = np.empty(shape, np.float32)
    for i, estimate in enumerate(estimates):
        data[i] = estimate.data
        if variances is not None:
            variances[i] = estimate.variance
    return data, variances


def _observations(restorer, stamps, psf, variance, pixel_scale, bands):
    from astrogan.image.psf import as_psf
    from astrogan.operators._degrader_frame import as_arcsec, listed

    shape, arcsec = stamps.shape, as_arcsec(pixel_scale, "pixel_scale")
    names = tuple(map(str, range(shape[1]))) if bands is None else tuple(listed(bands))
    if psf is None and restorer._needs("psf"):
        raise PSFError(f"psf=None: {restorer.backend_name} needs the PSF of the stamps; give psf=")
    kernels = None
    if psf is not None:
        kernels = as_psf(psf, n_bands=shape[1], pixel_scale=arcsec, bands=names).kernels
    measured = variance is None and restorer._needs("variance")
    if variance is not None:
        try:
            variance = np.broadcast_to(np.asarray(variance, np.float32), shape)
        except ValueError as error:
            raise InputError(f"variance has shape {np.shape(variance)}; it must broadcast to {shape}") from error
    for i, stamp in enumerate(stamps):
        noise = _measured(stamp) if measured else None if variance is None else variance[i]
        try:
            yield Observation(
                stamp, variance=noise, psf=kernels, pixel_scale=arcsec, bands=names, measured_noise=measured
            )
        except ValueError as error:
            raise InputError(f"stamp {i}: {error}") from error


def _measured(stamp):
    """The variance of the background, which is what an image without uncertainty is given, too."""
    from astrogan.image.prepare import _estimated_variance

    data = np.asarray(stamp, np.float32)
    return np.maximum(_estimated_variance(data, np.ones(data.shape, bool)), np.finfo(np.float32).tiny)


def _estimates(restorer, observations, generators):
    backend = restorer.backend
    if hasattr(backend, "batch"):
        return restorer._run(backend.batch, observations, rngs=generators, workers=restorer.workers)
    pairs = zip(observations, generators, strict=True)
    return [restorer._run(backend, observation, rng=generator) for observation, generator in pairs]
