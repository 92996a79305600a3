"""What a PSF is inside the library: kernels at the field's centre and, where it varies, a function of position."""

from __future__ import annotations

import numpy as np

from astrogan.exceptions import PSFError
from astrogan.image._kernels import padded_to, psf_fwhm, trim_psf


class PSFModel:
    """The PSF of an image, band by band, on its pixel grid.

    Parameters
    ----------
    kernels : array_like
        PSF at the field's centre, (band, k, k), k odd, centred, each band summing to one.
    field : callable, optional
        ``field(x, y) -> (band, k, k)`` where the PSF varies over the field; x, y are 0-based pixels.
    origin : str, optional
        Where it came from, for provenance: ``"array"``, ``"header SEEING"``, ``"12 stars"``.
    n_stars : int, optional
        Number of stars it was measured on.
    size_is_free : bool, optional
        Whether the size of the kernels is a default of ours, not the user's: such are cut to a small image silently.

    Attributes
    ----------
    kernels : `numpy.ndarray`
        float32, read-only.
    fwhm : `numpy.ndarray`
        FWHM in pixels, (band,), measured on the kernels (`psf_fwhm`).

    Examples
    --------
    >>> from astrogan.image.psf import as_psf
    >>> as_psf(3.0, n_bands=2)
    <PSFModel: 2 bands, 15 x 15 pixels, FWHM 3.09, 3.09 pixels, from a FWHM>
    """

    def __init__(self, kernels, *, field=None, origin="array", n_stars=None, size_is_free=False):
        kernels = np.array(kernels, dtype=np.float32)
        if kernels.ndim != 3 or 0 in kernels.shape or kernels.shape[1] != kernels.shape[2] or kernels.shape[1] % 2 == 0:
            raise PSFError(f"kernels have shape {kernels.shape}; they must be (band, k, k) with k odd")
        total = kernels.sum(axis=(1, 2), dtype=np.float64)
        if not np.isfinite(total).all() or np.abs(total - 1).max() > 1e-4:
            raise PSFError(f"kernels sum to {total}; each band must sum to 1 (as_psf normalises)")
        kernels.setflags(write=False)
        self.kernels = kernels
        self.origin = origin
        self.n_stars = n_stars
        self.size_is_free = size_is_free
        self._field = field
        self._fwhm = None

    @property
    def fwhm(self):
        """FWHM in pixels, (band,)."""
        if self._fwhm is None:
            self._fwhm = np.array([psf_fwhm(kernel) for kernel in self.kernels])
        return self._fwhm.copy()

    @property
    def varies(self):
        """Whether the PSF changes over the field."""
        return self._field is not None

    @property
    def n_bands(self):
        """Number of bands."""
        return len(self.kernels)

    @property
    def size(self):
        """Edge length k of the kernels in pixels."""
        return self.kernels.shape[-1]

    def at(self, x, y):
        """The PSF at a position: (band, k, k), float32, normalised.

        Parameters
        ----------
        x, y : float
            0-based pixels.

        Returns
        -------
        `numpy.ndarray`
            The kernels themselves where the PSF does not vary.
        """
        if self._field is None:
            return self.kernels
        kernels = padded_to(np.asarray(self._field(float(x), float(y)), dtype=np.float32), self.size)
        return kernels / kernels.sum(axis=(1, 2), keepdims=True)

    def band(self, i):
        """The PSF of band ``i`` alone."""
        field = None if self._field is None else lambda x, y: self._field(x, y)[i : i + 1]
        return self._like(self.kernels[i : i + 1], field)

    def broadcast(self, n_bands):
        """The same PSF for ``n_bands`` bands; a PSF of that many bands is returned as it is.

        Raises
        ------
        PSFError
            If the PSF has another number of bands, not one.
        """
        if self.n_bands == n_bands:
            return self
        if self.n_bands != 1:
            raise PSFError(f"psf has {self.n_bands} bands, the image {n_bands}; give one PSF, or one per band")
        kernels = np.repeat(self.kernels, n_bands, axis=0)
        field = None if self._field is None else lambda x, y: np.repeat(self._field(x, y), n_bands, axis=0)
        return self._like(kernels, field)

    def resized(self, size):
        """The PSF on kernels of another odd edge length: padded with zeros, or cut and normalised again."""
        if int(size) != size or size < 1 or size % 2 == 0:
            raise PSFError(f"size={size!r} must be an odd number of pixels, e.g. {self.size}")
        kernels = padded_to(self.kernels.astype(np.float64), int(size))
        kernels /= kernels.sum(axis=(1, 2), keepdims=True)
        return self._like(kernels, self._field)

    def trimmed(self, flux=0.999):
        """The PSF on the smallest kernels that hold a fraction ``flux`` of every band's flux."""
        return self.resized(max(len(trim_psf(kernel, flux)) for kernel in self.kernels))

    def _like(self, kernels, field):
        """Other kernels, the rest as here."""
        return PSFModel(kernels, field=field, origin=self.origin, n_stars=self.n_stars, size_is_free=self.size_is_free)

    def __repr__(self):
        bands = "1 band" if self.n_bands == 1 else f"{self.n_bands} bands"
        fwhm = ", ".join(f"{width:.2f}" for width in self.fwhm)
        varies = ", varies over the field" if self.varies else ""
        return f"<PSFModel: {bands}, {self.size} x {self.size} pixels, FWHM {fwhm} pixels, from {self.origin}{varies}>"


class GridPSF:
    """A PSF known at some positions of the field, blended in between.

    Parameters
    ----------
    positions : array_like
        (n, 2), each row (x, y) in 0-based pixels of the image.
    kernels : sequence
        n PSFs in any form that `as_psf` takes and that does not vary itself; an array of shape (n, k, k) or
        (n, band, k, k) will do.
    method : {"linear", "nearest"}, optional
        Linear: bilinear where the positions fill a rectangular grid, else linear on the Delaunay triangles. Outside
        of the positions the value at the nearest point of the border holds on.

    Raises
    ------
    PSFError
        If positions and kernels do not agree.

    Examples
    --------
    >>> from astrogan.image.psf import GridPSF, as_psf, gaussian_psf, psf_fwhm
    >>> psf = as_psf(GridPSF([(0, 50), (100, 50)], [gaussian_psf(3.0), gaussian_psf(4.0)]), shape=(101, 101))
    >>> [round(psf_fwhm(psf.at(x, 50)[0]), 2) for x in (0, 50, 100)]
    [3.09, 3.39, 4.06]
    """

    def __init__(self, positions, kernels, method="linear"):
        positions = np.array(positions, dtype=np.float64)
        if positions.ndim != 2 or positions.shape[1] != 2 or not len(positions) or not np.isfinite(positions).all():
            raise PSFError(f"positions have shape {positions.shape}; they must be (n, 2), finite (x, y) in pixels")
        kernels = list(kernels)
        if len(kernels) != len(positions):
            raise PSFError(f"{len(kernels)} kernels were given at {len(positions)} positions; one each, please")
        if len(np.unique(positions, axis=0)) != len(positions):
            raise PSFError("positions hold the same (x, y) twice; give each position once")
        if method not in ("linear", "nearest"):
            raise PSFError(f"method={method!r} is unknown; use 'linear' or 'nearest'")
        self.positions = positions
        self.kernels = kernels
        self.method = method
        self._weights = _interpolator(positions, method)

    def weights(self, x, y):
        """Weight of each position's kernel at (x, y); they sum to one."""
        return self._weights(float(x), float(y))


def _interpolator(positions, method):
    """``f(x, y) -> (n,)`` weights."""
    if method == "nearest" or len(positions) == 1:
        return lambda x, y: _nearest_weights(positions, x, y)
    xs, ix = np.unique(positions[:, 0], return_inverse=True)
    ys, iy = np.unique(positions[:, 1], return_inverse=True)
    if len(xs) * len(ys) == len(positions):
        return lambda x, y: _line_weights(xs, x)[ix] * _line_weights(ys, y)[iy]
    return _triangle_weights(positions)


def _nearest_weights(positions, x, y):
    weights = np.zeros(len(positions))
    weights[np.argmin(np.hypot(*(positions - (x, y)).T))] = 1
    return weights


def _line_weights(nodes, x):
    """Linear interpolation weights on sorted nodes, clamped outside."""
    weights = np.zeros(len(nodes))
    i = int(np.clip(np.searchsorted(nodes, x) - 1, 0, max(len(nodes) - 2, 0)))
    if len(nodes) == 1:
        weights[0] = 1
        return weights
    t = np.clip((x - nodes[i]) / (nodes[i + 1] - nodes[i]), 0, 1)
    weights[i], weights[i + 1] = 1 - t, t
    return weights


def _triangle_weights(positions):
    """Barycentric weights on the Delaunay triangles; outside, those of the nearest point on the convex hull."""
    from scipy.spatial import Delaunay, QhullError

    try:
        triangles = Delaunay(positions)
    except QhullError:  # all on a line: along it
        centre = positions.mean(axis=0)
        direction = np.linalg.svd(positions - centre)[2][0]
        along = (positions - centre) @ direction
        order = np.argsort(along)

        def on_line(x, y):
            weights = np.empty(len(positions))
            weights[order] = _line_weights(along[order], (np.array([x, y]) - centre) @ direction)
            return weights

        return on_line

    def weights_at(x, y):
        point = np.array([x, y])
        index = int(triangles.find_simplex(point))
        if index < 0:
            return _hull_weights(positions, triangles.convex_hull, point)
        transform = triangles.transform[index]
        b = transform[:2] @ (point - transform[2])
        weights = np.zeros(len(positions))
        weights[triangles.simplices[index]] = np.clip([*b, 1 - b.sum()], 0, 1)
        return weights / weights.sum()

    return weights_at


def _hull_weights(positions, edges, point):
    """Weights of the point on the hull's edges that lies nearest."""
    start, end = positions[edges[:, 0]], positions[edges[:, 1]]
    along = end - start
    t = np.clip(((point - start) * along).sum(axis=1) / (along**2).sum(axis=1), 0, 1)
    nearest = np.argmin(np.hypot(*(start + t[:, None] * along - point).T))
    weights = np.zeros(len(positions))
    weights[edges[nearest, 0]], weights[edges[nearest, 1]] = 1 - t[nearest], t[nearest]
    return weights
