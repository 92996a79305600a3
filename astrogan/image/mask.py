"""Masks: filling what is under them, growing them, finding saturated pixels, and flags that say why.

Here, as in `astropy.nddata`, a *mask* is True where a pixel is bad; *valid* is its opposite.
"""

from __future__ import annotations

import enum

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["RestorationFlag", "fill_invalid", "grow_mask", "restoration_flags", "saturation_mask"]

# A pixel is lost where more than this part of what its PSF gathers was invalid.
_LOST = 0.25


class RestorationFlag(enum.IntFlag):
    """Bits that say why a pixel of a restored image deserves less trust; the companion of its mask.

    Attributes
    ----------
    INVALID
        1: the input was masked, not finite, saturated or without weight there. Masked.
    LOST
        2: more than a quarter of the light that the PSF spreads such a pixel's flux over fell on invalid ones. Masked.
    OUT_OF_RANGE
        4: the pixel is far brighter, in units of the noise, than any in the training of a learned method.
    INCONSISTENT
        8: seen through the PSF again, the result contradicts the data around it. Set by diagnostics alone.
    SATURATED
        16: at or above the saturation level that was given, or beside such a pixel. Masked, being invalid too.
    UNTRUSTED
        32: the method itself says that its result is not to be trusted there. Masked.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.image.mask import RestorationFlag
    >>> flags = np.array([0, 5, 8], np.uint8)
    >>> (flags & RestorationFlag.OUT_OF_RANGE) != 0
    array([False,  True, False])
    >>> RestorationFlag(5)
    <RestorationFlag.INVALID|OUT_OF_RANGE: 5>
    """

    INVALID = 1
    LOST = 2
    OUT_OF_RANGE = 4
    INCONSISTENT = 8
    SATURATED = 16
    UNTRUSTED = 32


def restoration_flags(valid, psf=None, saturated=None):
    """What an observation alone says of the pixels of any result.

    Parameters
    ----------
    valid : array_like of bool
        False where a pixel is invalid, (band, y, x).
    psf : array_like, optional
        (band, k, k), each band of sum one. Without it no pixel is called lost.
    saturated : array_like of bool, optional
        (band, y, x).

    Returns
    -------
    `numpy.ndarray` of uint8
        `RestorationFlag` bits INVALID, LOST and SATURATED, (band, y, x).

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.image.mask import restoration_flags
    >>> restoration_flags([[[True, False, True]]], np.full((1, 3, 3), 1 / 9))
    array([[[2, 3, 2]]], dtype=uint8)
    """
    valid = np.asarray(valid, bool)
    flags = np.zeros(valid.shape, np.uint8)
    flags[~valid] = RestorationFlag.INVALID
    if saturated is not None:
        flags[np.asarray(saturated, bool)] |= np.uint8(RestorationFlag.SATURATED)
    if psf is not None and not valid.all():
        from astrogan.image.psf import convolve

        for plane, good, kernel in zip(flags, valid, psf, strict=True):
            lost = convolve((~good).astype(np.float32), kernel) > _LOST
            plane[lost] |= np.uint8(RestorationFlag.LOST)
    return flags


def fill_invalid(data, valid, *, depth=None, beyond=None):
    """Fill invalid pixels smoothly from their valid neighbours.

    Averages of the valid pixels are handed down a pyramid of half-sized images until no pixel is empty, and pulled
    back up by bilinear interpolation, into invalid pixels only (push-pull; Gortler et al. 1996, SIGGRAPH, section
    3.4). Small holes take their rim's values, large ones blend into the wider surroundings.

    Parameters
    ----------
    data : array_like
        Image of shape (y, x) or (band, y, x). Values under ``valid == False`` may be anything, NaN and infinity
        included: they are never read.
    valid : array_like of bool
        False where a pixel is to be filled, same shape.
    depth : int, optional
        At most so many halvings: what is filled then depends on nothing further away than 2**(depth + 1) pixels.
        Default: until no pixel is empty.
    beyond : float or array_like, optional
        With ``depth``: the value, one for all or one a band, of what is empty even then.

    Returns
    -------
    `numpy.ndarray`
        A new array; float32 for float32 data, float64 for float64 ones and integers.

    Raises
    ------
    InputError
        If the shapes differ, or, without ``depth``, an image (a band) has no valid pixel at all.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.image.mask import fill_invalid
    >>> image = np.array([[1.0, 1.0, 1.0], [1.0, np.nan, 1.0], [1.0, 1.0, 1.0]])
    >>> fill_invalid(image, np.isfinite(image))[1, 1]
    np.float64(1.0)
    """
    data, valid = np.asarray(data), np.asarray(valid, dtype=bool)
    if data.shape != valid.shape:
        raise InputError(f"valid has shape {valid.shape}; it must be that of data, {data.shape}")
    if data.ndim not in (2, 3):
        raise InputError(f"data has shape {data.shape}; it must be (y, x) or (band, y, x)")
    dtype = np.float32 if data.dtype.newbyteorder("=") == np.float32 else np.float64
    filled = np.zeros(data.shape, dtype)
    np.copyto(filled, data, where=valid, casting="same_kind")
    if data.ndim == 2:
        _fill_band(filled, valid, "data", depth, beyond)
    else:
        levels = np.broadcast_to(beyond, len(filled)) if depth is not None else [None] * len(filled)
        for i in range(len(filled)):
            _fill_band(filled[i], valid[i], f"band {i} of data", depth, levels[i])
    return filled


def _fill_band(image, valid, name, depth, beyond):
    """Fill ``image``, zero where not ``valid``, in place."""
    holes = np.flatnonzero(~valid.ravel())
    if holes.size == 0:
        return
    if depth == 0:
        image.ravel()[holes] = beyond
        return
    if depth is None and holes.size == valid.size:
        raise InputError(f"{name} has no valid pixel: nothing to fill {valid.shape} pixels from; check the mask")
    coarse_sum = _sum_blocks(image, image.dtype)
    coarse_count = _sum_blocks(valid, np.uint8)
    coarse_valid = coarse_count > 0
    coarse = np.divide(coarse_sum, coarse_count, out=np.zeros_like(coarse_sum), where=coarse_valid)
    _fill_band(coarse, coarse_valid, name, None if depth is None else depth - 1, beyond)
    image[np.unravel_index(holes, image.shape)] = _bilinear_from_blocks(coarse, holes, image.shape)


def _sum_blocks(image, dtype):
    """Sums over 2 x 2 pixels; the odd last row or column stands alone."""
    ny, nx = image.shape
    rows = image[0::2].astype(dtype)
    rows[: ny // 2] += image[1::2]
    out = rows[:, 0::2].copy()
    out[:, : nx // 2] += rows[:, 1::2]
    return out


def _bilinear_from_blocks(coarse, pixels, shape):
    """Bilinear values of a half-sized image at the flat indices ``pixels`` of the full-sized one."""
    y, x = np.divmod(pixels, shape[1])
    y0, y1, wy = _neighbours(y, coarse.shape[0], coarse.dtype)
    x0, x1, wx = _neighbours(x, coarse.shape[1], coarse.dtype)
    upper = coarse[y0, x0] * (1 - wx) + coarse[y0, x1] * wx
    lower = coarse[y1, x0] * (1 - wx) + coarse[y1, x1] * wx
    return upper * (1 - wy) + lower * wy


def _neighbours(index, n, dtype):
    """The nearer coarse pixel (it holds the fine one), the other one, and the other one's weight, 1/4."""
    near = index // 2
    other = np.clip(near + np.where(index % 2, 1, -1), 0, n - 1)
    return near, other, dtype.type(0.25)


def grow_mask(mask, radius):
    """Grow a mask by a disc: True within ``radius`` pixels (Euclidean, inclusive) of a True pixel.

    Parameters
    ----------
    mask : array_like of bool
        Shape (y, x) or (band, y, x); bands grow separately.
    radius : float
        Pixels, >= 0.

    Returns
    -------
    `numpy.ndarray` of bool
        A new mask of the same shape.

    Raises
    ------
    InputError
        If ``radius`` is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.image.mask import grow_mask
    >>> mask = np.zeros((3, 3), bool)
    >>> mask[1, 1] = True
    >>> grow_mask(mask, 1).sum()
    np.int64(5)
    """
    mask = np.asarray(mask, dtype=bool)
    if not np.isfinite(radius) or radius < 0:
        raise InputError(f"radius={radius!r} must be a number of pixels >= 0")
    if mask.ndim not in (2, 3):
        raise InputError(f"mask has shape {mask.shape}; it must be (y, x) or (band, y, x)")
    if mask.ndim == 3:
        return np.stack([grow_mask(band, radius) for band in mask]) if len(mask) else mask.copy()
    if radius < 1 or not mask.any() or mask.all():
        return mask.copy()
    distance = _distance_along_x(mask, radius)
    grown = np.zeros_like(mask)
    ny = len(mask)
    for dy in range(-min(int(radius), ny - 1), min(int(radius), ny - 1) + 1):
        half_width = int(np.sqrt(radius**2 - dy**2))
        source = slice(max(0, -dy), min(ny, ny - dy))
        target = slice(max(0, dy), min(ny, ny + dy))
        grown[target] |= distance[source] <= half_width
    return grown


def _distance_along_x(mask, radius):
    """Pixels to the nearest True pixel of the same row, in the smallest integer type that holds ``radius``."""
    far = int(radius) + 1
    dtype = np.min_scalar_type(far)
    nx = mask.shape[1]
    x = np.arange(nx, dtype=np.int32)
    left = np.maximum.accumulate(np.where(mask, x, -far), axis=1)
    distance = np.minimum(x - left, far).astype(dtype)
    right = np.minimum.accumulate(np.where(mask, x, nx + far)[:, ::-1], axis=1)[:, ::-1]
    np.minimum(distance, np.minimum(right - x, far).astype(dtype), out=distance)
    return distance


def saturation_mask(data, level, grow=2.0):
    """Pixels at or above the saturation level, and their neighbours.

    Parameters
    ----------
    data : array_like
        Shape (y, x) or (band, y, x). +inf counts as saturated, NaN does not.
    level : float or array_like
        Saturation level in the unit of ``data``, one for all or one per band.
    grow : float, optional
        Radius in pixels by which saturated regions grow, because charge bleeds and interpolation during
        resampling spreads clipped values.

    Returns
    -------
    `numpy.ndarray` of bool
        True where saturated.

    Raises
    ------
    InputError
        If ``level`` is NaN or is not one number or one per band.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.image.mask import saturation_mask
    >>> saturation_mask(np.array([[0.0, 9.0, 70000.0]]), 65535, grow=1)
    array([[False,  True,  True]])
    """
    data, level = np.asarray(data), np.asarray(level, dtype=float)
    if np.isnan(level).any():
        raise InputError(f"level={level!r} must be a number in the unit of the data, or one per band")
    if level.ndim == 1 and data.ndim == 3 and len(level) == len(data):
        level = level[:, None, None]
    elif level.ndim:
        raise InputError(f"level has shape {level.shape}; data of shape {data.shape} take one number, or one per band")
    return grow_mask(data >= level, grow)
