"""The linear part of an observation: blur by a PSF, then integration over larger pixels; with its variance and mask.

Images that are small enough, with separable kernels (every Gaussian is), go through two matrix products A X B^T, in
which blur, boundary and rebinning are one; all others through FFTs.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np

__all__ = ["Forward", "rebinned_shape", "separable"]

_MATRIX_SIZE = 1024
"""Longest edge for matrix products; beyond it FFTs are quicker."""

_RANK_ONE = 3e-7
"""A kernel is separable if the product of its factors differs by less from it, relative to its peak."""

_PAD_MODE = {"reflect": "symmetric", "replicate": "edge"}


def rebinned_shape(shape, rebin):
    """(y, x) in whole output pixels; what is left over at the far edges is dropped."""
    return tuple(int(n / rebin + 1e-9) for n in shape)


def separable(kernel):
    """Factors (u, v) with outer(u, v) = kernel, or `None` where there are none."""
    kernel = np.asarray(kernel, dtype=np.float64)
    peak = np.unravel_index(np.argmax(np.abs(kernel)), kernel.shape)
    if kernel[peak] == 0:
        return None
    row, column = kernel[peak[0]], kernel[:, peak[1]] / kernel[peak]
    if np.abs(np.outer(column, row) - kernel).max() > _RANK_ONE * abs(kernel[peak]):
        return None
    # Sums over the other axis are free of the single row's rounding errors.
    u, v = kernel.sum(axis=1), kernel.sum(axis=0)
    total = u.sum()
    return None if abs(total) < 0.1 * np.abs(kernel).sum() else (u, v / total)


class Forward:
    """Blur and rebin images of one shape.

    Parameters
    ----------
    kernels : `numpy.ndarray` or None
        (band, k, k) or (1, k, k), k odd; `None` does not blur.
    shape : tuple of int
        (y, x) of the images.
    rebin : float
        Input pixels along an edge of an output pixel, >= 1; need not be whole.
    boundary : {'reflect', 'replicate'}
        How images continue outside: as their mirror image (which conserves the flux), or with their last pixel.

    Notes
    -----
    The variance is that of each output pixel, correlation between the input pixels that blur brings in included;
    output pixels stay correlated with their neighbours.
    """

    def __init__(self, kernels, shape, rebin=1, boundary="reflect"):
        self.kernels = None if kernels is None else np.asarray(kernels, dtype=np.float64)
        self.shape = tuple(shape)
        self.rebin = float(rebin)
        self.boundary = boundary
        self.shape_out = rebinned_shape(shape, rebin)
        self._matrices = self._separable_matrices()

    def _separable_matrices(self):
        """(A, B), float32, (band or 1, out, in) each, so that an output is A X B^T; `None` where there are none."""
        if max(self.shape) > _MATRIX_SIZE:
            return None
        ny, nx = self.shape
        if self.kernels is None:
            return _matrix(None, ny, self.rebin, self.boundary)[None], _matrix(None, nx, self.rebin, self.boundary)[
                None
            ]
        factors = [separable(kernel) for kernel in self.kernels]
        if any(pair is None for pair in factors):
            return None
        rows = [_matrix(u.tobytes(), ny, self.rebin, self.boundary) for u, _ in factors]
        columns = [_matrix(v.tobytes(), nx, self.rebin, self.boundary) for _, v in factors]
        return np.stack(rows), np.stack(columns)

    def apply(self, data, torch=None):
        """Blurred and rebinned data: (..., band, y, x) float32 to (..., band, y', x') float32.

        ``torch``, the module, does the matrix products with it rather than with numpy (a quarter faster for batches).
        """
        if self.kernels is None and self.rebin == 1:
            return np.array(data, dtype=np.float32)
        if self._matrices is not None:
            return _sandwich(*self._matrices, data, torch)
        blurred = data if self.kernels is None else _convolve(data, self.kernels, self.boundary)
        return _rebin(blurred, self.rebin)

    def variance(self, variance):
        """Variance of `apply`'s result, for uncorrelated input: each weight squared."""
        if self.kernels is None and self.rebin == 1:
            return np.array(variance, dtype=np.float32)
        if self._matrices is not None:
            return _sandwich(*(matrix**2 for matrix in self._matrices), variance, None)
        if self.kernels is None:
            return _rebin(variance, self.rebin, power=2)
        return self._variance_by_fft(variance)

    def _variance_by_fft(self, variance):
        squared, first = self._squared_weights()
        spread = np.maximum(_convolve(variance, squared, self.boundary), 0)
        rows, columns = (np.rint(first + self.rebin * np.arange(n)).astype(int) for n in self.shape_out)
        return np.ascontiguousarray(spread[..., rows[:, np.newaxis], columns])

    def _squared_weights(self):
        """Squares of the kernel of blur and sum together, odd, and the input pixel at its middle for output pixel 0."""
        if self.rebin == int(self.rebin):
            kernels = _with_box(self.kernels, np.ones(int(self.rebin)), np.ones(int(self.rebin)))
            if kernels.shape[-1] % 2:
                return kernels**2, (self.rebin - 1) / 2
            return np.pad(kernels, ((0, 0), (1, 0), (1, 0))) ** 2, self.rebin / 2
        # Edges of output pixels fall anywhere within an input pixel; the mean over five places an axis stands for all.
        reach = int(np.ceil(self.rebin / 2))
        pixel = np.arange(-reach, reach + 1)
        boxes = []
        for place in np.linspace(-0.4, 0.4, 5):
            low, high = place - self.rebin / 2, place + self.rebin / 2
            boxes.append(np.clip(np.minimum(pixel + 0.5, high) - np.maximum(pixel - 0.5, low), 0, 1))
        squared = [_with_box(self.kernels, one, other) ** 2 for one in boxes for other in boxes]
        return np.mean(squared, axis=0), (self.rebin - 1) / 2

    def spread(self, invalid, threshold):
        """Output pixels of which more than ``threshold`` of the weight, or any of the area, is invalid."""
        invalid = np.asarray(invalid, bool)
        if not invalid.any():
            return np.zeros(invalid.shape[:-2] + self.shape_out, bool)
        grown = invalid
        if self.kernels is not None:
            weight = np.abs(self.kernels)
            weight /= weight.sum(axis=(1, 2), keepdims=True)
            blur = Forward(weight, self.shape, 1, self.boundary)
            grown = invalid | (blur.apply(invalid.astype(np.float32)) > max(threshold, 1e-5))
        if self.rebin == 1:
            return grown
        return _rebin(grown.astype(np.float32), self.rebin) > 1e-6


@lru_cache(maxsize=64)
def _matrix(kernel, size, rebin, boundary):
    """(out, in) float32 weights along one axis: convolution, boundary and rebinning."""
    matrix = np.eye(size) if kernel is None else _convolution_matrix(np.frombuffer(kernel), size, boundary)
    if rebin != 1:
        matrix = _rebin_matrix(size, rebin) @ matrix
    matrix = matrix.astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def _convolution_matrix(kernel, size, boundary):
    half = len(kernel) // 2
    out, tap = np.indices((size, len(kernel)))
    source = _inside(out + half - tap, size, boundary)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (out, source), kernel[tap])
    return matrix


def _inside(index, size, boundary):
    """The pixel that stands for one outside the image."""
    if boundary == "replicate":
        return np.clip(index, 0, size - 1)
    index = np.mod(index, 2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def _rebin_matrix(size, rebin):
    """(out, in): the part of each input pixel that lies in each output pixel."""
    edges = rebin * np.arange(int(size / rebin + 1e-9) + 1)
    low, high = edges[:-1, np.newaxis], edges[1:, np.newaxis]
    pixel = np.arange(size)
    return np.clip(np.minimum(pixel + 1, high) - np.maximum(pixel, low), 0, 1)


def _sandwich(left, right, data, torch):
    """left X right^T for each band; one pair of matrices for all bands, or a pair each."""
    if len(left) == 1:
        left, right = left[0], right[0]
    right = np.swapaxes(right, -1, -2)
    data = np.ascontiguousarray(data, dtype=np.float32)
    if torch is None:
        return np.matmul(left, np.matmul(data, right))
    # torch warns of read-only arrays.
    left, right, data = (torch.from_numpy(np.require(a, requirements="W")) for a in (left, right, data))
    return torch.matmul(left, torch.matmul(data, right)).numpy()


def _with_box(kernels, rows, columns):
    from scipy.signal import fftconvolve

    return fftconvolve(kernels, np.outer(rows, columns)[np.newaxis], axes=(1, 2))


def _convolve(data, kernels, boundary):
    """FFT convolution of (..., band, y, x) with (band or 1, k, k), a few planes at a time."""
    from scipy import fft

    data = np.asarray(data, dtype=np.float32)
    ny, nx = data.shape[-2:]
    half = kernels.shape[-1] // 2
    shape = [fft.next_fast_len(n + 2 * half, real=True) for n in (ny, nx)]
    transfer = fft.rfft2(kernels, shape).astype(np.complex64)
    stacks = data.reshape(-1, data.shape[-3], ny, nx)
    out = np.empty_like(stacks)
    for stack, result in zip(stacks, out, strict=True):
        # Rounding errors follow the largest value in a transform: take a pedestal off first.
        level = np.median(stack, axis=(1, 2), keepdims=True)
        padded = np.pad(stack - level, ((0, 0), (half, half), (half, half)), mode=_PAD_MODE[boundary])
        spectrum = fft.rfft2(padded, shape)
        spectrum *= transfer
        image = fft.irfft2(spectrum, shape)[:, 2 * half : 2 * half + ny, 2 * half : 2 * half + nx]
        np.add(image, level * kernels.sum(axis=(1, 2), keepdims=True).astype(np.float32), out=result)
    return out.reshape(data.shape)


def _rebin(data, rebin, power=1):
    """Sum over the pixels of larger ones; ``power=2`` squares the weights, for variances."""
    if rebin == 1:
        return np.array(data, dtype=np.float32)
    ny, nx = rebinned_shape(data.shape[-2:], rebin)
    if rebin == int(rebin):
        whole = int(rebin)
        blocks = data[..., : ny * whole, : nx * whole].reshape(*data.shape[:-2], ny, whole, nx, whole)
        return blocks.sum(axis=(-3, -1), dtype=np.float64).astype(np.float32)
    rows, columns = (_sparse_rebin(n, rebin, power) for n in data.shape[-2:])
    planes = np.asarray(data, np.float64).reshape(-1, *data.shape[-2:])
    out = np.stack([(columns @ (rows @ plane).T).T for plane in planes])
    return out.reshape(*data.shape[:-2], ny, nx).astype(np.float32)


@lru_cache(maxsize=16)
def _sparse_rebin(size, rebin, power):
    from scipy import sparse

    out = int(size / rebin + 1e-9)
    edges = rebin * np.arange(out + 1)
    rows, columns, weights = [], [], []
    for i, (low, high) in enumerate(pairwise(edges)):
        pixel = np.arange(int(low), min(int(np.ceil(high)), size))
        rows.append(np.full(pixel.size, i))
        columns.append(pixel)
        weights.append((np.minimum(pixel + 1, high) - np.maximum(pixel, low)) ** power)
    entries = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_array(entries, shape=(out, size))
