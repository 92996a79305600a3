"""The linear part of an observation: blur by a PSF, then integration over larger pixels; with its variance and mask.

Separable kernels (every Gaussian along the axes is one), and sums of two such, go through matrix products A X B^T, in
which blur, boundary and rebinning are one; the matrices are banded, and only blocks around the band are multiplied.
All other kernels go through FFTs.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np

__all__ = ["Forward", "Scratch", "rebinned_shape", "separable_terms"]

_MAX_TERMS = 2
"""More products than this cost more than FFTs do."""

_TERM_ERROR = 1e-6
"""Largest error of a sum of separable terms, relative to the kernel's peak."""

_SHORT = 512
"""Longest edge at which FFTs of lengths with factors 7 and 11 are worth their shortness."""

_LARGEST_PRODUCT = 2**18
"""Multiplications in one matrix product. Above it OpenBLAS shares the work among threads, which for products of a few
tens of microseconds gains little, and on busy cores costs a hundred times as much."""

_PAD_MODE = {"reflect": "symmetric", "replicate": "edge"}


def rebinned_shape(shape, rebin):
    """(y, x) in whole output pixels; what is left over at the far edges is dropped."""
    return tuple(int(n / rebin + 1e-9) for n in shape)


class Scratch:
    """float32 arrays that one computation after the other writes to: what the system maps anew costs a page fault each
    4 kB, as much as the computation itself. Belongs to one call, never to two threads."""

    def __init__(self):
        self._arrays = {}

    def array(self, name, shape):
        """An uninitialised array; the same memory for the same name and shape."""
        key = name, tuple(shape)
        if key not in self._arrays:
            self._arrays[key] = np.empty(shape, np.float32)
        return self._arrays[key]


def separable_terms(kernel):
    """Pairs (u, v) such that the sum of outer(u, v) is the kernel, or `None` where that takes too many.

    The terms are those of the singular value decomposition, scaled so that the kernel's sum is kept.
    """
    kernel = np.asarray(kernel, dtype=np.float64)
    u, s, v = np.linalg.svd(kernel)
    peak, total = np.abs(kernel).max(), kernel.sum()
    for rank in range(1, min(_MAX_TERMS, len(s)) + 1):
        approximation = (u[:, :rank] * s[:rank]) @ v[:rank]
        if np.abs(approximation - kernel).max() <= _TERM_ERROR * peak:
            scale = total / approximation.sum() if abs(total) > 0.1 * np.abs(kernel).sum() else 1.0
            return [(u[:, i] * s[i] * scale, v[i]) for i in range(rank)]
    return None


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
    output pixels stay correlated with their neighbours. It is exact for sums of separable terms; for other kernels it
    is approximate within half a kernel of the edges, and where the rebinning is not by a whole number.
    """

    def __init__(self, kernels, shape, rebin=1, boundary="reflect"):
        self.kernels = None if kernels is None else _without_margins(np.asarray(kernels, dtype=np.float64))
        self.shape = tuple(shape)
        self.rebin = float(rebin)
        self.boundary = boundary
        self.shape_out = rebinned_shape(shape, rebin)
        terms = None if self.kernels is None else _all_terms(self.kernels)
        # For each kernel, for each of its terms, the matrices along y and along x; None where FFTs are to be used.
        self._matrices = terms and [[self._along_axes(u, v) for u, v in pairs] for pairs in terms]

    def apply(self, data, out=None, scratch=None):
        """Blurred and rebinned data: (..., band, y, x) to (..., band, y', x'), float32.

        ``out`` and ``scratch`` save allocations where they are given and the kernel is one separable term; use what is
        returned in any case.
        """
        if scratch is not None and self._matrices and len(self._matrices) == 1 == len(self._matrices[0]):
            rows, columns = self._matrices[0][0]
            data = np.ascontiguousarray(data, dtype=np.float32)
            middle = scratch.array("rows", (*data.shape[:-2], rows.shape[0], data.shape[-1]))
            return columns.from_right(rows.from_left(data, middle), out)
        if self.kernels is None:
            return _rebin(data, self.rebin)
        if self._matrices is None:
            blurred = _convolve(data, self.kernels, self.boundary)
            return blurred if self.rebin == 1 else _rebin(blurred, self.rebin)
        return self._band_by_band(data, lambda matrices: matrices)

    def variance(self, variance):
        """Variance of `apply`'s result, for uncorrelated input: each weight squared."""
        if self.kernels is None:
            return _rebin(variance, self.rebin, power=2)
        if self._matrices is None:
            return self._variance_by_fft(variance)

        def squares(matrices):
            for i, (rows, columns) in enumerate(matrices):
                for j, (other_rows, other_columns) in enumerate(matrices[: i + 1]):
                    # The square of a sum: every mixed product comes twice.
                    yield rows.times(other_rows, 1 if i == j else 2), columns.times(other_columns)

        return np.maximum(self._band_by_band(variance, squares), 0)

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

    def _along_axes(self, u, v):
        """The matrices of one term: along y and along x."""
        return tuple(
            _banded(kernel.tobytes(), size, self.rebin, self.boundary)
            for kernel, size in zip((u, v), self.shape, strict=True)
        )

    def _band_by_band(self, data, products):
        """Sum of A X B^T over the pairs (A, B) that ``products`` makes of a band's matrices."""
        data = np.ascontiguousarray(data, dtype=np.float32)
        if len(self._matrices) == 1:
            return _sum_of_products(products(self._matrices[0]), data)
        out = np.empty((*data.shape[:-2], *self.shape_out), np.float32)
        for band, matrices in enumerate(self._matrices):
            out[..., band, :, :] = _sum_of_products(products(matrices), np.ascontiguousarray(data[..., band, :, :]))
        return out

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


def _without_margins(kernels):
    """Kernels cut to where any of them is more than 1e-9 of its peak; what is cut is below float32's rounding."""
    size = kernels.shape[-1]
    counts = np.abs(kernels) > 1e-9 * np.abs(kernels).max(axis=(1, 2), keepdims=True)
    (used,) = np.nonzero(counts.any(axis=(0, 1)) | counts.any(axis=(0, 2)))
    margin = min(used[0], size - 1 - used[-1]) if used.size else 0
    return np.ascontiguousarray(kernels[:, margin : size - margin, margin : size - margin])


def _all_terms(kernels):
    """Separable terms of each kernel, or `None` if one has too many."""
    terms = []
    for kernel in kernels:
        terms.append(_cached_terms(kernel.tobytes(), len(kernel)))
        if terms[-1] is None:
            return None
    return terms


@lru_cache(maxsize=32)
def _cached_terms(kernel, size):
    return separable_terms(np.frombuffer(kernel).reshape(size, size))


def _sum_of_products(products, data):
    """Sum of A X B^T over pairs (A, B)."""
    total = None
    for rows, columns in products:
        term = columns.from_right(rows.from_left(data))
        if total is None:
            total = term
        else:
            total += term
    return total


class _Banded:
    """A banded matrix, as blocks of rows of which only the columns that are not zero are held."""

    def __init__(self, blocks, shape):
        self.blocks = blocks  # (first row, last row + 1, first column, last column + 1, float32 array)
        self.shape = shape

    def times(self, other, factor=1):
        """Element by element, with a matrix of the same blocks."""
        pairs = zip(self.blocks, other.blocks, strict=True)
        return _Banded([(*mine[:4], factor * mine[4] * theirs[4]) for mine, theirs in pairs], self.shape)

    def from_left(self, data, out=None):
        """M X for (..., y, x)."""
        out = np.empty((*data.shape[:-2], self.shape[0], data.shape[-1]), np.float32) if out is None else out
        for low, high, first, last, block in self.blocks:
            for columns in _pieces(data.shape[-1], block):
                np.matmul(block, data[..., first:last, columns], out=out[..., low:high, columns])
        return out

    def from_right(self, data, out=None):
        """X M^T for (..., y, x)."""
        out = np.empty((*data.shape[:-1], self.shape[0]), np.float32) if out is None else out
        for low, high, first, last, block in self.blocks:
            for rows in _pieces(data.shape[-2], block):
                np.matmul(data[..., rows, first:last], block.T, out=out[..., rows, low:high])
        return out


def _pieces(length, block):
    """Slices of the axis that a block is not about, such that no product is large enough for BLAS to use threads."""
    step = max(32, _LARGEST_PRODUCT // block.size)
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


@lru_cache(maxsize=128)
def _banded(kernel, size, rebin, boundary):
    """Convolution along one axis, boundary and rebinning, as a banded matrix."""
    kernel = np.frombuffer(kernel)
    half = len(kernel) // 2
    out = int(size / rebin + 1e-9)
    edges = rebin * np.arange(out + 1)
    # Blocks as high as the band is broad: smaller ones are slower products, larger ones multiply more zeros.
    step = int(np.clip(2 * half / rebin, 32, 64))
    blocks = []
    for low in range(0, out, step):
        high = min(low + step, out)
        rows = np.arange(int(edges[low]), min(int(np.ceil(edges[high] - 1e-9)), size))
        source = _inside(rows[:, np.newaxis] + half - np.arange(len(kernel)), size, boundary)
        first, last = int(source.min()), int(source.max()) + 1
        convolution = np.zeros((len(rows), last - first))
        np.add.at(convolution, (np.arange(len(rows))[:, np.newaxis], source - first), kernel)
        if rebin != 1:
            convolution = _overlap(edges[low : high + 1], rows) @ convolution
        blocks.append((low, high, first, last, np.asfortranarray(convolution, dtype=np.float32)))
    return _Banded(blocks, (out, size))


def _overlap(edges, pixels):
    """(len(edges) - 1, len(pixels)): the part of each input pixel between two edges."""
    low, high = edges[:-1, np.newaxis], edges[1:, np.newaxis]
    return np.clip(np.minimum(pixels + 1, high) - np.maximum(pixels, low), 0, 1)


def _inside(index, size, boundary):
    """The pixel that stands for one outside the image."""
    if boundary == "replicate":
        return np.clip(index, 0, size - 1)
    index = np.mod(index, 2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def _with_box(kernels, rows, columns):
    from scipy.signal import fftconvolve

    return fftconvolve(kernels, np.outer(rows, columns)[np.newaxis], axes=(1, 2))


def _convolve(data, kernels, boundary):
    """FFT convolution of (..., band, y, x) with (band or 1, k, k), a few planes at a time."""
    from scipy import fft

    data = np.asarray(data, dtype=np.float32)
    ny, nx = data.shape[-2:]
    half = kernels.shape[-1] // 2
    # Of short lengths those with factors 7 and 11 are quickest too.
    shape = [fft.next_fast_len(n + 2 * half, real=n > _SHORT) for n in (ny, nx)]
    transfer = fft.rfft2(kernels.astype(np.float32), shape)
    stacks = data.reshape(-1, data.shape[-3], ny, nx)
    out = np.empty_like(stacks)
    for stack, result in zip(stacks, out, strict=True):
        # Rounding errors follow the largest value in a transform: take a pedestal off first.
        level = stack.mean(axis=(1, 2), keepdims=True)
        padded = np.pad(stack - level, ((0, 0), (half, half), (half, half)), mode=_PAD_MODE[boundary])
        spectrum = fft.rfft2(padded, shape, overwrite_x=True)
        spectrum *= transfer
        image = fft.irfft2(spectrum, shape, overwrite_x=True)[:, 2 * half : 2 * half + ny, 2 * half : 2 * half + nx]
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
