"""How well the light of a blend was divided."""

from __future__ import annotations

import numpy as np

from astrogan.exceptions import InputError
from astrogan.metrics._checks import as_image, as_pair

__all__ = [
    "blendedness",
    "colour_error",
    "conservation_error",
    "cosine_similarity",
    "flux_error",
    "intersection_over_union",
]


def flux_error(truth, image, *, mask=None):
    """Relative error of a source's flux in each band, (image - truth) / truth.

    Parameters
    ----------
    truth, image : array_like
        A source alone, of one shape, (y, x) or (band, y, x).
    mask : array_like of bool, optional
        True where a pixel is left out.

    Returns
    -------
    float or `numpy.ndarray`
        Shape () or (band,); NaN where the truth has no flux.

    Raises
    ------
    InputError
        If shapes differ, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import flux_error
    >>> round(float(flux_error(np.ones((4, 4)), np.full((4, 4), 1.1))), 6)
    0.1
    """
    truth, image, _ = as_pair(truth, image, mask)
    return _divide((image - truth).sum(axis=(-2, -1)), truth.sum(axis=(-2, -1)))


def colour_error(truth, image, *, mask=None):
    """Error of a source's colours in magnitudes, one per pair of neighbouring bands.

    Parameters
    ----------
    truth, image : array_like
        A source alone, (band, y, x), of one shape.
    mask : array_like of bool, optional
        True where a pixel is left out.

    Returns
    -------
    `numpy.ndarray`
        Of image minus truth, shape (band - 1,), each the magnitude of a band minus that of the next; NaN where a flux
        is not positive.

    Raises
    ------
    InputError
        If shapes differ or are not (band, y, x), or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import colour_error
    >>> truth = np.ones((2, 4, 4))
    >>> colour_error(truth, truth * np.array([1.0, 100.0])[:, None, None]).round(6)
    array([5.])
    """
    truth, image, _ = as_pair(truth, image, mask)
    if truth.ndim != 3:
        raise InputError(f"truth has shape {truth.shape}; colours need (band, y, x)")
    before, after = truth.sum(axis=(1, 2)), image.sum(axis=(1, 2))
    ratio = np.where((before > 0) & (after > 0), _divide(after, before), np.nan)
    return -2.5 * (np.log10(ratio[:-1]) - np.log10(ratio[1:]))


def cosine_similarity(truth, image, *, mask=None):
    r"""Cosine of the angle between two images as vectors, :math:`\sum T I / \sqrt{\sum T^2 \sum I^2}`.

    Parameters
    ----------
    truth, image : array_like
        Of one shape, (y, x) or (band, y, x).
    mask : array_like of bool, optional
        True where a pixel is left out.

    Returns
    -------
    float
        Over all bands together; NaN where an image is zero. It does not see a wrong flux: give `flux_error` with it.

    Raises
    ------
    InputError
        If shapes differ, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import cosine_similarity
    >>> round(cosine_similarity(np.eye(4), 3 * np.eye(4)), 12)
    1.0
    """
    truth, image, _ = as_pair(truth, image, mask)
    norm = np.linalg.norm(truth) * np.linalg.norm(image)
    return float(np.vdot(truth, image) / norm) if norm > 0 else np.nan


def blendedness(source, total, *, mask=None):
    r"""How much of the light on a source is others', :math:`1 - \sum T^2 / \sum T S`.

    Parameters
    ----------
    source, total : array_like
        The source alone (T) and all sources (S), without noise, of one shape, (y, x) or (band, y, x).
    mask : array_like of bool, optional
        True where a pixel is left out.

    Returns
    -------
    float or `numpy.ndarray`
        0 for a source alone, towards 1 for one lost in its neighbours; shape () or (band,).

    Raises
    ------
    InputError
        If shapes differ, or a pixel that is not masked is not finite.

    References
    ----------
    Bosch, J. et al. 2018, PASJ 70, S5, section 4.9.11.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import blendedness
    >>> round(float(blendedness(np.ones((3, 3)), np.full((3, 3), 4.0))), 6)
    0.75
    """
    source, total, _ = as_pair(source, total, mask)
    return 1 - _divide((source**2).sum(axis=(-2, -1)), (source * total).sum(axis=(-2, -1)))


def conservation_error(image, parts, *, mask=None):
    """Largest departure of the sum of all parts from the image, relative to the image's largest value.

    Parameters
    ----------
    image : array_like
        (y, x) or (band, y, x).
    parts : iterable of array_like
        Sources and residual, each of the image's shape.
    mask : array_like of bool, optional
        True where a pixel is left out.

    Returns
    -------
    float
        0 where every bit of light is accounted for; the absolute departure for an image of zeros.

    Raises
    ------
    InputError
        If shapes differ, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import conservation_error
    >>> conservation_error(np.ones((3, 3)), [np.full((3, 3), 0.25), np.full((3, 3), 0.75)])
    0.0
    """
    total = np.zeros(as_image(image).shape)
    for part in parts:
        part = as_image(part, "parts")
        if part.shape != total.shape:
            raise InputError(f"a part has shape {part.shape}; it must be that of image, {total.shape}")
        total += part
    image, total, _ = as_pair(image, total, mask)
    largest = np.abs(image).max()
    return float(np.abs(image - total).max() / (largest if largest > 0 else 1))


def intersection_over_union(truth, found):
    """Overlap of two footprints: pixels in both over pixels in either.

    Parameters
    ----------
    truth, found : array_like of bool
        Of one shape.

    Returns
    -------
    float
        Between 0 and 1; NaN where both are empty.

    Raises
    ------
    InputError
        If shapes differ.

    Examples
    --------
    >>> from astrogan.metrics import intersection_over_union
    >>> round(intersection_over_union([[True, True, False]], [[False, True, True]]), 3)
    0.333
    """
    truth, found = np.asarray(truth, bool), np.asarray(found, bool)
    if truth.shape != found.shape:
        raise InputError(f"found has shape {found.shape}; it must be that of truth, {truth.shape}")
    union = np.count_nonzero(truth | found)
    return float(np.count_nonzero(truth & found) / union) if union else np.nan


def _divide(a, b):
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b != 0)[()]
