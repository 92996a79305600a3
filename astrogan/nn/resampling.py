"""Cubic-spline resampling that gradients go through: the same values as `scipy.ndimage.map_coordinates`, order 3."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

__all__ = ["resample_separable", "spline_coefficients", "spline_matrix", "spline_sample"]

_MARGIN = 12
"""Mirrored pixels around an image: the spline's response has died out to 1e-7 within them."""


def spline_matrix(centres, size):
    """The matrix that reads a row of pixels at given places with a cubic spline.

    Parameters
    ----------
    centres : array_like
        (out,), places in pixels, 0-based with centres at integers; beyond the outer edges the edge's value is read.
    size : int
        Pixels of the row.

    Returns
    -------
    `torch.Tensor`
        float32, (out, size); each row sums to one.

    Examples
    --------
    >>> from astrogan.nn.resampling import spline_matrix
    >>> spline_matrix([1.0, 1.5], 4).shape
    torch.Size([2, 4])
    """
    centres = np.clip(np.asarray(centres, np.float64), -0.5, size - 0.5) + _MARGIN
    padded = size + 2 * _MARGIN
    first = np.clip(np.floor(centres).astype(int) - 1, 0, padded - 4)
    weights = np.zeros((len(centres), padded))
    for tap in range(4):
        weights[np.arange(len(centres)), first + tap] = _b_spline(centres - first - tap)
    return torch.from_numpy(weights @ _of_pixels(size)).float()


def resample_separable(images, along_y, along_x):
    """Read images on a grid whose axes run along theirs.

    Parameters
    ----------
    images : `torch.Tensor`
        (..., y, x).
    along_y, along_x : `torch.Tensor`
        Of `spline_matrix`, (..., y out, y) and (..., x out, x).

    Returns
    -------
    `torch.Tensor`
        (..., y out, x out): values per input pixel.
    """
    return along_y @ images @ along_x.mT


def spline_coefficients(images):
    """B-spline coefficients of images, with the mirrored margin that `spline_sample` expects.

    Parameters
    ----------
    images : `torch.Tensor`
        (..., y, x).

    Returns
    -------
    `torch.Tensor`
        (..., y + 24, x + 24).
    """
    height, width = images.shape[-2:]
    rows = torch.as_tensor(_mirrored(height), device=images.device)
    columns = torch.as_tensor(_mirrored(width), device=images.device)
    padded = images.index_select(-2, rows).index_select(-1, columns)
    along_y, along_x = (
        torch.as_tensor(_prefilter(n), dtype=images.dtype, device=images.device) for n in padded.shape[-2:]
    )
    return along_y @ padded @ along_x.T


def spline_sample(coefficients, x, y):
    """Read the spline of `spline_coefficients` anywhere: grids may be turned or distorted.

    Parameters
    ----------
    coefficients : `torch.Tensor`
        (..., y + 24, x + 24).
    x, y : `torch.Tensor`
        (y out, x out), places in pixels of the image; beyond the outer edges the edge's value is read. Gradients go
        through the values, not through the places.

    Returns
    -------
    `torch.Tensor`
        (..., y out, x out).
    """
    height, width = coefficients.shape[-2:]
    first_y, weights_y = _taps(y, height)
    first_x, weights_x = _taps(x, width)
    flat = coefficients.flatten(-2)
    out = 0
    for j in range(4):
        for i in range(4):
            index = ((first_y + j) * width + first_x + i).flatten()
            out = out + (weights_y[j] * weights_x[i]) * flat.index_select(-1, index).unflatten(-1, x.shape)
    return out


def _taps(places, padded):
    """Number of the first of four coefficients, and the weights of all, along one axis."""
    size = padded - 2 * _MARGIN
    places = places.double().clamp(-0.5, size - 0.5) + _MARGIN
    first = places.floor().long().clamp(1, padded - 3) - 1
    offset = (places - first).cpu().numpy()
    return first, [torch.as_tensor(_b_spline(offset - tap), device=places.device).float() for tap in range(4)]


def _b_spline(u):
    """The cubic B-spline, of support 4."""
    u = np.abs(u)
    return np.where(u < 1, 2 / 3 - u**2 + u**3 / 2, np.maximum(2 - u, 0) ** 3 / 6)


def _mirrored(size):
    """Numbers of the pixels of a row with its mirrored margins; the edge's pixel is repeated."""
    period = 2 * size
    index = np.arange(-_MARGIN, size + _MARGIN) % period
    return np.where(index < size, index, period - 1 - index)


@lru_cache(maxsize=32)
def _of_pixels(size):
    """The coefficients of a row and its mirrored margins, as a matrix on the row's pixels."""
    index = _mirrored(size)
    folding = np.zeros((len(index), size))
    folding[np.arange(len(index)), index] = 1
    return _prefilter(len(index)) @ folding


@lru_cache(maxsize=32)
def _prefilter(size):
    """Samples to coefficients: the inverse of sampling the B-splines at the pixels, whose outermost are repeated."""
    sampled = (
        np.diag(np.full(size, 2 / 3)) + np.diag(np.full(size - 1, 1 / 6), 1) + np.diag(np.full(size - 1, 1 / 6), -1)
    )
    sampled[0, 0] += 1 / 6
    sampled[-1, -1] += 1 / 6
    return np.linalg.inv(sampled)
