"""Aperture photometry of a result against the truth, with photutils."""

from __future__ import annotations

import numpy as np

from astrogan.exceptions import InputError
from astrogan.metrics._checks import as_masked, as_pair, as_positions, by_band

__all__ = ["aperture_flux", "aperture_flux_ratio", "curve_of_growth"]


def aperture_flux(image, positions, radius, *, mask=None):
    """Sum of an image inside circles, with the exact overlap of circle and pixels.

    Parameters
    ----------
    image : array_like
        (y, x) or (band, y, x), background already subtracted.
    positions : array_like
        (x, y), or (n, 2) of those, in pixels.
    radius : float
        In pixels.
    mask : array_like of bool, optional
        True where a pixel counts as nothing; of the image's shape, or (y, x) for all bands.

    Returns
    -------
    float or `numpy.ndarray`
        In the image's unit times pixel: shape (), (n,), (band,) or (band, n). The part of a circle outside the image
        counts as nothing; NaN where the whole circle is outside.

    Raises
    ------
    InputError
        If a shape or the radius cannot be used, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import aperture_flux
    >>> round(aperture_flux(np.ones((21, 21)), (10, 10), 3.0) / np.pi, 12)
    9.0
    """
    image, mask = as_masked(image, mask)
    positions, single = as_positions(positions)
    fluxes = _fluxes(image, mask, positions, [_radius(radius)])[..., 0]
    return _scalar(fluxes[..., 0] if single else fluxes)


def aperture_flux_ratio(truth, image, positions, radius, *, mask=None):
    """Flux of an image over that of the truth inside the same circles: 1 where flux is kept.

    Parameters
    ----------
    truth, image : array_like
        Of one shape, (y, x) or (band, y, x).
    positions, radius, mask
        As for `aperture_flux`.

    Returns
    -------
    float or `numpy.ndarray`
        Shape (), (n,), (band,) or (band, n); NaN where the truth has no flux.

    Raises
    ------
    InputError
        As for `aperture_flux`, and if the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import aperture_flux_ratio
    >>> truth = np.ones((21, 21))
    >>> aperture_flux_ratio(truth, 0.5 * truth, [(10, 10), (5, 8)], 3.0)
    array([0.5, 0.5])
    """
    truth, image, mask = as_pair(truth, image, mask)
    before = np.asarray(aperture_flux(truth, positions, radius, mask=mask))
    after = np.asarray(aperture_flux(image, positions, radius, mask=mask))
    ratio = np.full(before.shape, np.nan)
    np.divide(after, before, out=ratio, where=before != 0)
    return _scalar(ratio)


def curve_of_growth(image, position, radii, *, mask=None, normalise=False):
    """Flux inside circles of growing radius around one position.

    Parameters
    ----------
    image : array_like
        (y, x) or (band, y, x), background already subtracted.
    position : array_like
        (x, y) in pixels.
    radii : array_like
        In pixels, increasing.
    mask : array_like of bool, optional
        As for `aperture_flux`.
    normalise : bool, optional
        Divide by the flux inside the largest circle.

    Returns
    -------
    `numpy.ndarray`
        Shape (radius,) or (band, radius), in the image's unit times pixel.

    Raises
    ------
    InputError
        If a shape cannot be used, radii do not increase, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import curve_of_growth
    >>> curve_of_growth(np.ones((21, 21)), (10, 10), [1, 2, 4], normalise=True)
    array([0.0625, 0.25  , 1.    ])
    """
    image, mask = as_masked(image, mask)
    positions, single = as_positions(position, "position")
    radii = np.asarray(radii, dtype=np.float64)
    if not single:
        raise InputError(f"position has shape {np.shape(position)}; it must be one (x, y)")
    if radii.ndim != 1 or not radii.size or not (np.diff(radii) > 0).all():
        raise InputError(f"radii={radii.tolist()!r} must be a list of increasing numbers")
    growth = _fluxes(image, mask, positions, [_radius(r) for r in radii])[..., 0, :]
    if not normalise:
        return growth
    total = growth[..., -1:]
    return np.divide(growth, total, out=np.full(growth.shape, np.nan), where=total != 0)


def _fluxes(image, mask, positions, radii):
    """Fluxes, shape (position, radius) or (band, position, radius)."""
    from photutils.aperture import CircularAperture

    image, undo = by_band(image)
    mask = mask.reshape(image.shape)
    fluxes = np.empty((len(image), len(positions), len(radii)))
    if len(positions):
        for k, radius in enumerate(radii):
            apertures = CircularAperture(positions, radius)
            for b, (band, bad) in enumerate(zip(image, mask, strict=True)):
                fluxes[b, :, k] = apertures.do_photometry(band, mask=bad)[0]
    return undo(fluxes)


def _radius(radius):
    if np.ndim(radius) or not np.isfinite(radius) or not radius > 0:
        raise InputError(f"radius={radius!r} must be a positive number of pixels")
    return float(radius)


def _scalar(values):
    return float(values) if np.ndim(values) == 0 else values
