"""Images and their variances on another pixel grid, with interpolation weights that are known.

A resampled pixel is a weighted sum of input pixels, so that its variance is that of the input with squared weights.
The weights depend on the method and on where in an input pixel the output pixel's centre falls (its phase); they are
tabulated by phase, once per grid. Where a convolution came first, the input pixels are correlated, and the table
takes the correlation in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import InputError
from astrogan.image.wcs import pixel_corners

__all__ = ["METHODS", "Grid", "Taps", "grid_of", "resample"]

METHODS = ("bilinear", "bicubic", "exact", "adaptive")

# An output pixel whose edge lies on the image's edge is inside it, whatever the last bits say.
_EDGE = 1e-6
_MARGIN = 14
# reproject's adaptive kernel: a Gaussian whose width 1.3 spans -sigma to +sigma, cut at 4 output pixels' width.
_ADAPTIVE_SIGMA, _ADAPTIVE_REACH = 0.65, 2.0


@dataclass(frozen=True)
class Grid:
    """Where the pixels of an output grid lie on the input.

    Attributes
    ----------
    x, y : `numpy.ndarray`
        Centres in input pixels, shape of the output; far outside where there is no sky.
    area : `numpy.ndarray`
        Area of each output pixel in input pixels; 0 where its centre is outside the input.
    covered : `numpy.ndarray` of bool
        Whether the whole pixel lies inside the input.
    jacobian : `numpy.ndarray`
        d(x, y of the input) / d(x, y of the output) at the output's centre, (2, 2).
    affine : `numpy.ndarray` or None
        Constant term of the mapping, (2,), where it is affine over the field to a thousandth of a pixel.
    shape_in : tuple of int
        (y, x) of the input.
    """

    x: np.ndarray
    y: np.ndarray
    area: np.ndarray
    covered: np.ndarray
    jacobian: np.ndarray
    affine: np.ndarray | None
    shape_in: tuple[int, int]

    @property
    def separable(self):
        """Whether the output's axes run along the input's."""
        off_axis = np.abs([self.jacobian[0, 1], self.jacobian[1, 0]]).max() * max(self.x.shape)
        return self.affine is not None and off_axis < 1e-6


def grid_of(to_input, shape, shape_in):
    """The `Grid` of ``shape`` (y, x) that ``to_input`` maps onto an input of ``shape_in``."""
    height, width = shape
    x, y = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    x_in, y_in = (np.where(np.isfinite(p), p, -1e9) for p in to_input(x, y))
    corner_x, corner_y, area = pixel_corners(to_input, shape)
    # Comparisons with NaN are False: a corner off the sky leaves its pixels uncovered.
    good = (np.abs(corner_x - (shape_in[1] - 1) / 2) <= shape_in[1] / 2 + _EDGE) & (
        np.abs(corner_y - (shape_in[0] - 1) / 2) <= shape_in[0] / 2 + _EDGE
    )
    covered = good[1:, 1:] & good[1:, :-1] & good[:-1, 1:] & good[:-1, :-1]
    inside = (np.abs(x_in - (shape_in[1] - 1) / 2) <= shape_in[1] / 2 + _EDGE) & (
        np.abs(y_in - (shape_in[0] - 1) / 2) <= shape_in[0] / 2 + _EDGE
    )
    jacobian = _jacobian(to_input, (width - 1) / 2, (height - 1) / 2)
    constant = np.ravel(to_input((width - 1) / 2, (height - 1) / 2)) - jacobian @ [(width - 1) / 2, (height - 1) / 2]
    linear = np.einsum("ij,jyx->iyx", jacobian, [x, y]) + constant[:, None, None]
    affine = constant if np.abs(linear - [x_in, y_in]).max() < 1e-3 else None
    area = np.where(inside & np.isfinite(area), area, 0.0)
    return Grid(x_in, y_in, area, covered & inside, jacobian, affine, tuple(shape_in))


def _jacobian(to_input, x, y):
    """Central differences over a pixel."""
    xs, ys = to_input(x + np.array([0.5, -0.5, 0, 0]), y + np.array([0, 0, 0.5, -0.5]))
    jacobian = np.array([[xs[0] - xs[1], xs[2] - xs[3]], [ys[0] - ys[1], ys[2] - ys[3]]])
    if not np.isfinite(jacobian).all() or abs(np.linalg.det(jacobian)) < 1e-12:
        raise InputError("target: the centre of its grid has no position on the image; check both WCSs")
    return jacobian


def resample(image, grid, method, wcs_in=None, wcs_out=None):
    """The image's values (per input pixel) at the pixels of the grid, float64; 0 outside the image.

    ``"bilinear"`` and ``"bicubic"`` read the image at the pixels' centres, as `reproject.reproject_interp` does;
    ``"exact"`` averages over the pixels' area and ``"adaptive"`` under a Gaussian, with reproject.
    """
    if method == "exact" and grid.separable:
        # Overlaps of rectangles are products, which is quicker than polygons on the sphere.
        out = Taps(method, grid.jacobian).gather(image, grid)
    elif method in ("bilinear", "bicubic"):
        from scipy.ndimage import map_coordinates

        order = 1 if method == "bilinear" else 3
        # Pixels outside read the corner pixel, and are set to 0 below. The spline's own boundary is only nearly a
        # mirror, which shows on small images: its mistakes die out within the mirrored margin.
        at = [np.clip(grid.y, -0.5, grid.shape_in[0] - 0.5), np.clip(grid.x, -0.5, grid.shape_in[1] - 0.5)]
        image = np.pad(np.asarray(image, np.float64), _MARGIN, mode="symmetric")
        out = map_coordinates(image, [p + _MARGIN for p in at], order=order, mode="nearest")
    else:
        out = _reproject(image, grid, method, wcs_in, wcs_out)
    return np.where(grid.area > 0, out, 0.0)


def _reproject(image, grid, method, wcs_in, wcs_out):
    from reproject import reproject_adaptive, reproject_exact

    if grid.affine is not None:
        # Also where both WCSs are known: spherical polygons of pixels below 0.05 arcsec lose their last digits.
        wcs_in, wcs_out = _affine_pair(grid)
    elif wcs_in is None or wcs_out is None:
        raise InputError(f"resampling={method!r} needs the WCSs of a target that is not affine; use 'bicubic'")
    image = np.asarray(image, np.float64)
    shape = grid.x.shape
    if method == "exact":
        out = reproject_exact((image, wcs_in), wcs_out, shape_out=shape, return_footprint=False)
    else:
        out = reproject_adaptive(
            (image, wcs_in),
            wcs_out,
            shape_out=shape,
            return_footprint=False,
            boundary_mode="nearest",
            roundtrip_coords=False,
        )
    return np.where(np.isfinite(out), out, 0.0)


def _affine_pair(grid):
    """Two gnomonic WCSs on one tangent plane that are related as the two grids are."""
    from astropy.wcs import WCS

    pair = []
    centre = (np.array(grid.shape_in[::-1]) - 1) / 2
    inverse = np.linalg.inv(grid.jacobian)
    for matrix, reference in ((np.eye(2), centre), (grid.jacobian, inverse @ (centre - grid.affine))):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.cd = matrix @ np.eye(2) / 3600
        wcs.wcs.crpix = reference + 1
        pair.append(wcs)
    return pair


class Taps:
    """Weights of the input pixels around an output pixel's centre.

    They are tabulated by phase (where in an input pixel the centre falls); for grids whose axes are the input's they
    are products of weights along the axes, which need no table.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    jacobian : `numpy.ndarray`
        As in `Grid`; it matters to ``"exact"`` and ``"adaptive"``, for which it is taken as constant over the field.
    """

    def __init__(self, method, jacobian):
        self.method = method
        self.jacobian = np.asarray(jacobian, float)
        self._first_and_table = None

    @property
    def first(self):
        """Offset of the first weight from the pixel that the centre is in or just above."""
        return self._tabulated()[0]

    @property
    def table(self):
        """(phase y, phase x, y, x)."""
        return self._tabulated()[1]

    def _tabulated(self):
        if self._first_and_table is None:
            if self.method in _PROFILES:
                first, size = _PROFILES[self.method][1:]
                line = self._line(_phases(size), 1.0)[1]
                self._first_and_table = first, line[:, None, :, None] * line[None, :, None, :]
            else:
                self._first_and_table = (_overlaps if self.method == "exact" else _gaussian)(self.jacobian)
        return self._first_and_table

    def _line(self, centres, width):
        """Pixels around each centre along one axis and their weights, for output pixels of this width."""
        if self.method in _PROFILES:
            profile, first, size = _PROFILES[self.method]
        else:
            reach = width / 2 if self.method == "exact" else _ADAPTIVE_REACH * max(width, 1.0)
            first = -int(np.ceil(reach + 0.5))
            size = 2 * -first + 2
        pixels = np.floor(centres).astype(int)[:, None] + first + np.arange(size)
        offset = centres[:, None] - pixels
        if self.method in _PROFILES:
            return pixels, profile(offset)
        if self.method == "exact":
            weights = np.clip(np.minimum(offset + width / 2, 0.5) - np.maximum(offset - width / 2, -0.5), 0, None)
        else:
            u = offset / max(width, 1.0)
            weights = np.where(np.abs(u) <= _ADAPTIVE_REACH, np.exp(-(u**2) / (2 * _ADAPTIVE_SIGMA**2)), 0.0)
        return pixels, weights / weights.sum(axis=1, keepdims=True)

    def _matrix(self, centres, width, n):
        """`_line` as a sparse matrix (output, input); what falls off the image counts for the pixel at its edge."""
        from scipy.sparse import coo_array

        pixels, weights = self._line(np.clip(centres, -0.5, n - 0.5), abs(width))
        rows = np.broadcast_to(np.arange(len(centres))[:, None], pixels.shape)
        entries = weights.ravel(), (rows.ravel(), np.clip(pixels, 0, n - 1).ravel())
        return coo_array(entries, shape=(len(centres), n)).tocsr()

    def gather(self, image, grid, weight=np.positive):
        """Sum of ``weight(weights)`` times the image around each pixel of the grid; edge pixels are repeated.

        ``weight`` is the identity, `numpy.square` or `numpy.abs`.
        """
        image = np.asarray(image, np.float64)
        if grid.separable:
            along_y = self._matrix(grid.y[:, 0], self.jacobian[1, 1], grid.shape_in[0])
            along_x = self._matrix(grid.x[0], self.jacobian[0, 0], grid.shape_in[1])
            for matrix in (along_y, along_x):
                matrix.data = weight(matrix.data)
            return (along_x @ (along_y @ image).T).T
        table, first = _trimmed(weight(self.table), self.first)
        out = np.empty(grid.x.shape)
        # In blocks that stay in the cache: every weight reads all of a block's pixels.
        step = max(1, 2**15 // out.shape[1])
        for start in range(0, len(out), step):
            rows = slice(start, start + step)
            out[rows] = _gather_block(image, table, first, grid.x[rows], grid.y[rows])
        return out

    def correlated(self, kernel):
        """Variance of a pixel resampled from white noise convolved with ``kernel``, over that of the convolved noise.

        By phase, (phase, phase). The sum of w_m w_n R(m - n) / R(0) over pairs of weights, with R the kernel's
        autocorrelation, taken in Fourier space.
        """
        from scipy import fft

        kernel = np.asarray(kernel, np.float64)
        size = self.table.shape[-1]
        lag, n = size - 1, 2 * size
        full = fft.next_fast_len(len(kernel) + size + 1, real=True)
        spectrum = np.abs(fft.rfft2(kernel, (full, full))) ** 2
        autocorrelation = fft.irfft2(spectrum, (full, full))
        index = np.arange(-lag, lag + 1)
        wrapped = np.zeros((n, n))
        wrapped[np.ix_(index % n, index % n)] = autocorrelation[np.ix_(index % full, index % full)]
        power = np.abs(fft.fft2(self.table, (n, n))) ** 2
        return (power * fft.fft2(wrapped).real).mean(axis=(2, 3)) / autocorrelation[0, 0]

    def at(self, by_phase, grid):
        """Values of a (phase, phase) table at the phases of the grid's pixels."""
        n = len(self.table)
        phase = (np.clip(((p - np.floor(p)) * n).astype(int), 0, n - 1) for p in (grid.y, grid.x))
        return by_phase[tuple(phase)]


def _phases(size):
    """Middles of the intervals that an input pixel is divided into; fewer where many pixels are averaged."""
    n = 64 if size <= 10 else 32 if size <= 16 else 8
    return (np.arange(n) + 0.5) / n


def _triangle(u):
    return np.maximum(1 - np.abs(u), 0)


def _cardinal_spline(u):
    """The cubic spline that is 1 at 0 and 0 at all other integers: B-splines through the inverse filter's taps."""
    pole = np.sqrt(3) - 2
    out = np.zeros_like(u)
    for m in range(-12, 13):
        out += -6 * pole / (1 - pole**2) * pole ** abs(m) * _b_spline(u - m)
    return out


def _b_spline(u):
    u = np.abs(u)
    return np.where(u < 1, 2 / 3 - u**2 + u**3 / 2, np.maximum(2 - u, 0) ** 3 / 6)


def _trimmed(table, first):
    """A (phase, phase, y, x) table without outer weights that hold less than 5e-4 of the sum, as (phases, y, x)."""
    share = np.abs(table).mean(axis=(0, 1))
    while len(share) > 2 and share[1:-1, 1:-1].sum() > (1 - 5e-4) * share.sum():
        share, table, first = share[1:-1, 1:-1], table[:, :, 1:-1, 1:-1], first + 1
    return np.ascontiguousarray(table).reshape(-1, *share.shape), first


def _gather_block(image, table, first, x, y):
    """Sums over the weights of each pixel of a block."""
    n, size = int(np.sqrt(len(table))), table.shape[-1]
    height, width = image.shape
    below_x, below_y = np.floor(x).astype(int), np.floor(y).astype(int)
    phase = np.clip(((y - below_y) * n).astype(int), 0, n - 1) * n
    phase += np.clip(((x - below_x) * n).astype(int), 0, n - 1)
    flat = image.ravel()
    columns = [np.clip(below_x + first + i, 0, width - 1) for i in range(size)]
    out = np.zeros(x.shape)
    for j in range(size):
        row = np.clip(below_y + first + j, 0, height - 1) * width
        for i, column in enumerate(columns):
            out += table[:, j, i].take(phase) * flat.take(row + column)
    return out


# Profile, first weight and number of weights of what reads the image at a point. The spline's go on for ever; those
# beyond ten are less than 1e-3 of their sum.
_PROFILES = {"bilinear": (_triangle, 0, 2), "bicubic": (_cardinal_spline, -4, 10)}


def _table(first, size, points, weights, phases):
    """Weights of the pixels that ``points`` (2, n), relative to the output pixel's centre, fall into."""
    n = len(phases)
    table = np.zeros((n, n, size, size))
    for j, phase_y in enumerate(phases):
        row = np.floor(points[1] + phase_y + 0.5).astype(int) - first
        for i, phase_x in enumerate(phases):
            column = np.floor(points[0] + phase_x + 0.5).astype(int) - first
            counts = np.bincount(row * size + column, weights=weights, minlength=size * size)
            table[j, i] = counts.reshape(size, size)
    return table / table.sum(axis=(2, 3), keepdims=True)


def _overlaps(jacobian):
    """Parts of an output pixel's area that fall on the input pixels."""
    reach = 0.5 * np.abs(jacobian).sum(axis=1).max()
    first = -int(np.ceil(reach + 0.5))
    size = 2 * -first + 2
    n = max(32, int(np.ceil(8 * reach)))
    line = (np.arange(n) + 0.5) / n - 0.5
    points = jacobian @ np.array(np.meshgrid(line, line)).reshape(2, -1)
    return first, _table(first, size, points, np.ones(n * n), _phases(size))


def _gaussian(jacobian):
    """Weights of reproject's adaptive resampling, which never looks at less than one input pixel."""
    u, stretch, v = np.linalg.svd(jacobian)
    jacobian = u @ np.diag(np.maximum(stretch, 1)) @ v
    reach = _ADAPTIVE_REACH * np.abs(jacobian).sum(axis=1).max()
    first = -int(np.ceil(reach))
    size = 2 * -first + 2
    phases = _phases(size)
    offset = np.arange(first, first + size)
    dx = offset[None, None, None, :] - phases[None, :, None, None]
    dy = offset[None, None, :, None] - phases[:, None, None, None]
    inverse = np.linalg.inv(jacobian)
    a, b = inverse[0, 0] * dx + inverse[0, 1] * dy, inverse[1, 0] * dx + inverse[1, 1] * dy
    weights = np.exp(-(a**2 + b**2) / (2 * _ADAPTIVE_SIGMA**2))
    weights = np.where((np.abs(a) <= _ADAPTIVE_REACH) & (np.abs(b) <= _ADAPTIVE_REACH), weights, 0.0)
    return first, weights / weights.sum(axis=(2, 3), keepdims=True)
