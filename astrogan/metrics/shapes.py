"""Centroids and adaptive second moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import InputError, MissingDependencyError
from astrogan.metrics._checks import as_masked, as_pair, as_positions, as_positive, by_band

__all__ = ["Moments", "centroid", "centroid_offset", "moments"]

_ITERATIONS = 500
_TOLERANCE = 1e-8  # in units of the weight's width
_REACH = 6.0  # the weight is summed this many widths out, where it is 1.5e-8


@dataclass(frozen=True)
class Moments:
    r"""Flux, position, size and ellipticity of a source; arrays of shape (band,) for a cube, NaN where it failed.

    Parameters
    ----------
    flux : float or `numpy.ndarray`
        Flux of the elliptical Gaussian that fits best, in the image's unit times pixel.
    x, y : float or `numpy.ndarray`
        Centre in pixels, 0-based.
    size : float or `numpy.ndarray`
        :math:`(\det M)^{1/4}` in pixels, the standard deviation for a round Gaussian.
    e1, e2 : float or `numpy.ndarray`
        Distortion :math:`(M_{xx} - M_{yy}, 2 M_{xy}) / (M_{xx} + M_{yy})`, of modulus
        :math:`(a^2 - b^2) / (a^2 + b^2)` for axes a and b.
    """

    flux: float | np.ndarray
    x: float | np.ndarray
    y: float | np.ndarray
    size: float | np.ndarray
    e1: float | np.ndarray
    e2: float | np.ndarray


def moments(image, position=None, *, mask=None, sigma=3.0, method="adaptive"):
    """Adaptive moments: those of the elliptical Gaussian weight that matches the source.

    Parameters
    ----------
    image : array_like
        (y, x) or (band, y, x), background already subtracted.
    position : array_like, optional
        (x, y) to start from. Default: the brightest pixel of the image, smoothed a little.
    mask : array_like of bool, optional
        True where a pixel is left out; of the image's shape, or (y, x) for all bands.
    sigma : float, optional
        Size to start from, in pixels.
    method : {"adaptive", "hsm"}, optional
        Our own, or GalSim's ``hsm.FindAdaptiveMom`` (needs GalSim). They agree to GalSim's tolerance, except under a
        mask: ours fills masked pixels with the current Gaussian, so that a bad column does not bias the result, where
        GalSim takes them as empty.

    Returns
    -------
    `Moments`
        All NaN for a source that has no solution: negative flux, no convergence, much narrower than a pixel, wider
        than the image.

    Raises
    ------
    InputError
        If a shape or an option cannot be used, or a pixel that is not masked is not finite.
    MissingDependencyError
        If ``method="hsm"`` and GalSim is not installed.

    References
    ----------
    Bernstein, G. M., Jarvis, M. 2002, AJ 123, 583, section 3.1; Hirata, C., Seljak, U. 2003, MNRAS 343, 459, eq. 5.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import moments
    >>> y, x = np.mgrid[:41, :41]
    >>> image = np.exp(-0.5 * (((x - 20.25) / 4) ** 2 + ((y - 19) / 2) ** 2))
    >>> result = moments(image)
    >>> round(result.x, 6), round(result.y, 6), round(result.e1, 6)
    (20.25, 19.0, 0.6)
    """
    measure = {"adaptive": _adaptive, "hsm": _hsm}.get(method)
    if measure is None:
        raise InputError(f"method={method!r} must be 'adaptive' or 'hsm'")
    image, mask = as_masked(image, mask)
    start = _start(position)
    sigma = as_positive(sigma, "sigma")
    image, undo = by_band(image)
    mask = mask.reshape(image.shape)
    rows = np.array(
        [
            measure(band, bad, _brightest(band) if start is None else start, sigma)
            for band, bad in zip(image, mask, strict=True)
        ]
    )
    flux, x, y, mxx, myy, mxy = rows.T
    trace = mxx + myy
    size = (mxx * myy - mxy**2) ** 0.25
    values = (flux, x, y, size, (mxx - myy) / trace, 2 * mxy / trace)
    return Moments(*(_scalar(undo(value)) for value in values))


def centroid(image, position=None, *, mask=None, sigma=None):
    """Centre of a source under a Gaussian weight that follows it.

    Parameters
    ----------
    image : array_like
        (y, x) or (band, y, x), background already subtracted.
    position : array_like, optional
        (x, y) to start from, or (n, 2) for as many sources. Default: the brightest pixel of the image, smoothed a
        little.
    mask : array_like of bool, optional
        True where a pixel is left out; of the image's shape, or (y, x) for all bands.
    sigma : float, optional
        Width of a round weight in pixels (as SExtractor's XWIN_IMAGE). Default: the weight adapts to the source's
        size and shape, as in `moments`.

    Returns
    -------
    `numpy.ndarray`
        (x, y) in the last axis: shape (2,), (n, 2), (band, 2) or (band, n, 2); NaN where there is no solution.

    Raises
    ------
    InputError
        If a shape or an option cannot be used, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import centroid
    >>> y, x = np.mgrid[:41, :41]
    >>> centroid(np.exp(-((x - 21.5) ** 2 + (y - 18.25) ** 2) / 18)).round(6)
    array([21.5 , 18.25])
    """
    image, mask = as_masked(image, mask)
    image, undo = by_band(image)
    mask = mask.reshape(image.shape)
    if sigma is not None:
        sigma = as_positive(sigma, "sigma")
    starts, single = ([None], True) if position is None else as_positions(position, "position")
    measured = np.empty((len(image), len(starts), 2))
    for b, (band, bad) in enumerate(zip(image, mask, strict=True)):
        for n, start in enumerate(starts):
            start = _brightest(band) if start is None else start
            if sigma is None:
                measured[b, n] = _adaptive(band, bad, start, 3.0)[1:3]
            else:
                measured[b, n] = _windowed(band, bad, start, sigma)
    return undo(measured[:, 0] if single else measured)


def centroid_offset(truth, image, position=None, *, mask=None, sigma=None):
    """Distance between the centroids of a source in the truth and in an image.

    Parameters
    ----------
    truth, image : array_like
        Of one shape, (y, x) or (band, y, x).
    position, mask, sigma
        As for `centroid`; without ``position`` both start from the truth's brightest pixel.

    Returns
    -------
    float or `numpy.ndarray`
        In pixels, shape (), (n,), (band,) or (band, n); NaN where a centroid has no solution.

    Raises
    ------
    InputError
        If a shape or an option cannot be used, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import centroid_offset
    >>> y, x = np.mgrid[:41, :41]
    >>> truth = np.exp(-((x - 20) ** 2 + (y - 20) ** 2) / 18)
    >>> image = np.exp(-((x - 20.3) ** 2 + (y - 20.4) ** 2) / 18)
    >>> round(centroid_offset(truth, image), 6)
    0.5
    """
    truth, image, mask = as_pair(truth, image, mask)
    if position is None:
        position = _brightest(truth if truth.ndim == 2 else truth.sum(axis=0))
    before = centroid(truth, position, mask=mask, sigma=sigma)
    after = centroid(image, position, mask=mask, sigma=sigma)
    return _scalar(np.hypot(*np.moveaxis(after - before, -1, 0)))


def _scalar(value):
    return float(value) if np.ndim(value) == 0 else value


def _start(position):
    if position is None:
        return None
    positions, single = as_positions(position, "position")
    if not single:
        raise InputError(f"position has shape {np.shape(position)}; it must be one (x, y)")
    return positions[0]


def _brightest(band):
    from scipy.ndimage import gaussian_filter

    y, x = np.unravel_index(gaussian_filter(band, 1.0, mode="constant").argmax(), band.shape)
    return np.array([x, y], float)


def _weighted(band, mask, centre, matrix):
    """Sums under a Gaussian weight: flux of a matched Gaussian, mean offset, and second moments about the centre.

    Masked pixels are filled with the Gaussian that fits the others best (in amplitude), the "E" step of an EM
    algorithm whose fixed point is the fit to the valid pixels alone.
    """
    (x0, y0), (mxx, myy, mxy) = centre, matrix
    determinant = mxx * myy - mxy**2
    ny, nx = band.shape
    rx, ry = _REACH * np.sqrt(mxx), _REACH * np.sqrt(myy)
    xs = slice(max(0, int(np.ceil(x0 - rx))), min(nx, int(np.floor(x0 + rx)) + 1))
    ys = slice(max(0, int(np.ceil(y0 - ry))), min(ny, int(np.floor(y0 + ry)) + 1))
    dx = np.arange(xs.start, xs.stop) - x0
    dy = (np.arange(ys.start, ys.stop) - y0)[:, None]
    weight = np.exp(-0.5 * (myy * dx**2 - 2 * mxy * dx * dy + mxx * dy**2) / determinant)
    light, bad = band[ys, xs], mask[ys, xs]
    if bad.any():
        good = np.where(bad, 0, weight)
        square = (good**2).sum()
        amplitude = (good * light).sum() / square if square > 0 else np.nan
        light = np.where(bad, amplitude * weight, light)
    light = weight * light
    total = light.sum()
    if not total > 0:
        return None
    offset = np.array([(light * dx).sum(), (light * dy).sum()]) / total
    second = np.array([(light * dx**2).sum(), (light * dy**2).sum(), (light * dx * dy).sum()]) / total
    return 2 * total, offset, second


def _adaptive(band, mask, start, sigma):
    """(flux, x, y, Mxx, Myy, Mxy) of the weight W that reproduces itself: W is twice the moments measured under W."""
    failed = np.full(6, np.nan)
    centre, matrix = np.array(start, float), np.array([sigma**2, sigma**2, 0.0])
    largest = max(band.shape) ** 2
    for _ in range(_ITERATIONS):
        sums = _weighted(band, mask, centre, matrix)
        if sums is None:
            return failed
        flux, offset, second = sums
        # Under a matched weight a Gaussian's moments are half its own, and so is the offset of its centre; what the
        # offset adds to the second moments is no part of the source's shape.
        step, updated = 2 * offset, 2 * (second - _outer(offset))
        width = np.sqrt(matrix[0] + matrix[1])
        change = np.abs(updated - matrix).max() / width**2 + np.abs(step).max() / width
        centre, matrix = centre + np.clip(step, -width, width), updated
        if not _possible(centre, matrix, band.shape, largest):
            return failed
        if change < _TOLERANCE:
            return np.array([flux, *centre, *matrix])
    return failed


def _windowed(band, mask, start, sigma):
    """(x, y) where the light's mean offset under a round weight vanishes."""
    centre, matrix = np.array(start, float), np.array([sigma**2, sigma**2, 0.0])
    for _ in range(_ITERATIONS):
        sums = _weighted(band, mask, centre, matrix)
        if sums is None:
            break
        step = np.clip(2 * sums[1], -sigma, sigma)
        centre = centre + step
        if not _possible(centre, matrix, band.shape, np.inf):
            break
        if np.abs(step).max() < _TOLERANCE * sigma:
            return centre
    return np.full(2, np.nan)


def _outer(offset):
    return np.array([offset[0] ** 2, offset[1] ** 2, offset[0] * offset[1]])


def _possible(centre, matrix, shape, largest):
    """Whether the centre is in the image and the weight is an ellipse of a sensible size."""
    mxx, myy, mxy = matrix
    inside = (centre >= -0.5).all() and (centre <= np.array(shape[::-1]) - 0.5).all()
    return inside and mxx * myy - mxy**2 > 1e-4 and 0 < mxx < largest and 0 < myy < largest


def _hsm(band, mask, start, sigma):
    try:
        import galsim
    except ImportError as error:
        raise MissingDependencyError(
            "method='hsm' needs GalSim: run `pip install galsim`, or use method='adaptive'"
        ) from error
    shape = galsim.hsm.FindAdaptiveMom(
        galsim.Image(np.ascontiguousarray(band), xmin=0, ymin=0),
        badpix=galsim.Image(mask.astype(np.int32), xmin=0, ymin=0),
        guess_sig=sigma,
        guess_centroid=galsim.PositionD(*start),
        strict=False,
    )
    if shape.moments_status != 0 or not shape.moments_amp > 0:
        return np.full(6, np.nan)
    e1, e2, sigma2 = shape.observed_e1, shape.observed_e2, shape.moments_sigma**2
    half_trace = sigma2 / np.sqrt(1 - e1**2 - e2**2)
    second = half_trace * (1 + e1), half_trace * (1 - e1), half_trace * e2
    return np.array([shape.moments_amp, shape.moments_centroid.x, shape.moments_centroid.y, *second])
