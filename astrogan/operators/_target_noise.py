"""One noise model for a target, of one a band or of one for all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from astrogan.api import sample_noise

__all__ = ["target_model"]


def target_model(model, bands, key_of):
    """The noise model of an image's bands.

    The level that is wanted is always given to `~astrogan.api.sample_noise` as ``sigma``, so that the unit that a model
    was fitted in does not matter.

    Parameters
    ----------
    model : noise backend, dict of them by band, or None
    bands : sequence of str
    key_of : callable
        ``key_of(band, mapping, what)``: the key of a band.

    Returns
    -------
    noise backend or None
    """
    if not isinstance(model, Mapping):
        return model
    return _ByBand([model[key_of(band, model, "noise_model")] for band in bands])


class _ByBand:
    """A model for each band; bands are drawn apart, and are independent."""

    def __init__(self, models):
        self.models = models

    def sample(self, shape, *, sigma, wcs=None, rng):
        """(band, y, x), of standard deviation ``sigma``, (band, y, x)."""
        sigma = np.broadcast_to(sigma, shape)
        planes = [
            sample_noise(model, (1, *shape[1:]), sigma=sigma[i : i + 1], wcs=wcs, rng=rng)
            for i, model in enumerate(self.models)
        ]
        return np.concatenate(planes)
