"""What every metric asks of its arrays."""

from __future__ import annotations

import numpy as np

from astrogan.exceptions import InputError


def as_image(image, name="image"):
    """The image as native float64, (y, x) or (band, y, x)."""
    array = np.asarray(image)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} has dtype {array.dtype}; it must hold real numbers")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(f"{name} has shape {array.shape}; it must be (y, x) or (band, y, x) with no empty axis")
    return array.astype(np.float64)


def as_mask(mask, shape):
    """The mask as booleans of the image's shape; a (y, x) mask serves every band of a cube."""
    if mask is None:
        return np.zeros(shape, bool)
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise InputError(f"mask has dtype {mask.dtype}; it must be bool, True where a pixel is to be left out")
    if mask.shape not in (shape, shape[-2:]):
        raise InputError(f"mask has shape {mask.shape}; it must be {shape} or {shape[-2:]}")
    return np.broadcast_to(mask, shape)


def as_masked(image, mask=None, name="image"):
    """Image and mask, with zeros under the mask so that no value there can matter; the rest must be finite."""
    image = as_image(image, name)
    mask = as_mask(mask, image.shape)
    image[mask] = 0
    bad = np.count_nonzero(~np.isfinite(image))
    if bad:
        raise InputError(f"{name} has {bad} pixels that are NaN or inf; give mask=, True at those")
    return image, mask


def as_pair(truth, image, mask=None):
    """Two images of one shape and their mask, as `as_masked` gives them."""
    if np.shape(truth) != np.shape(image):
        raise InputError(f"image has shape {np.shape(image)}; it must be that of truth, {np.shape(truth)}")
    truth, mask = as_masked(truth, mask, "truth")
    image, _ = as_masked(image, mask, "image")
    return truth, image, mask


def as_positions(positions, name="positions"):
    """Positions as (n, 2) float64, and whether a single one was given."""
    array = np.asarray(positions, dtype=np.float64)
    if array.size == 0 and array.ndim in (1, 2):
        return np.empty((0, 2)), False
    if array.ndim not in (1, 2) or array.shape[-1] != 2 or not np.isfinite(array).all():
        raise InputError(f"{name} has shape {array.shape}; it must be finite (x, y), or (n, 2) of those")
    return np.atleast_2d(array), array.ndim == 1


def as_positive(value, name):
    """A positive finite number."""
    if np.ndim(value) or not np.isfinite(value) or not value > 0:
        raise InputError(f"{name}={value!r} must be a positive number")
    return float(value)


def by_band(image):
    """The image as (band, y, x), and a function that undoes that for a result with a leading band axis."""
    if image.ndim == 3:
        return image, lambda result: result
    return image[None], lambda result: result[0]
