"""What the linear and variational restorers share: boundaries, filling, noise, spectra, finite filters.

Everything works on one band (y, x) unless it says otherwise, reflects at the edges (half-sample symmetric, so the
sum over the image is kept by any symmetric kernel), and is equivariant: no constant in here has a unit.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from scipy import fft, sparse

from astrogan.api import Observation
from astrogan.exceptions import InputError, PSFError

MAD_TO_SIGMA = 1.4826022185056018
"""Standard deviation of a normal distribution over its median absolute deviation."""

FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))
"""Standard deviation of a Gaussian over its full width at half maximum."""

_B3 = (1 / 16, 4 / 16, 6 / 16)
"""Half of the B3-spline kernel; symmetric."""


# ---------------------------------------------------------------------------------------------- arguments


def positive(name: str, value, *, example, zero=False) -> float:
    """``value`` as a finite float > 0 (>= 0 with ``zero``), or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputError(f"{name}={value!r} must be a number, e.g. {example}")
    if not np.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise InputError(f"{name}={value!r} must be {'zero or more' if zero else 'positive'}, e.g. {example}")
    return float(value)


def positive_or_auto(name: str, value, *, example, zero=False):
    """``"auto"``, a number, or a tuple of numbers (one a band)."""
    if isinstance(value, str):
        if value != "auto":
            raise InputError(f"{name}={value!r} must be 'auto' or a number, e.g. {example}")
        return value
    if isinstance(value, (tuple, list, np.ndarray)) and np.ndim(value) == 1 and len(value) > 0:
        return tuple(positive(name, v, example=example, zero=zero) for v in value)
    return positive(name, value, example=example, zero=zero)


def whole(name: str, value, *, example, least=1) -> int:
    """``value`` as an int >= ``least``, or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name}={value!r} must be an integer of at least {least}, e.g. {example}")
    return int(value)


def per_band(name: str, value, n_bands: int) -> list:
    """A number or a tuple as a list with one number a band."""
    if not isinstance(value, tuple):
        return [value] * n_bands
    if len(value) != n_bands:
        raise InputError(f"{name} has {len(value)} values and the image has {n_bands} bands; give one a band")
    return list(value)


def band_info(name: str, values, bands) -> dict:
    """``{name: value}`` for one band or equal values, else ``{name_band: value}``."""
    values = [float(v) for v in values]
    if len(set(values)) == 1:
        return {name: values[0]}
    return {f"{name}_{band}": value for band, value in zip(bands, values, strict=True)}


def need_psf(observation: Observation, method: str) -> np.ndarray:
    """The observation's PSF, or an error that says which method asks."""
    if observation.psf is None:
        raise PSFError(f"psf=None: {method} needs the point-spread function; give psf=, a FWHM or a kernel")
    return observation.psf


# ---------------------------------------------------------------------------------------------- boundaries


def reflect_index(n: int, before: int, after: int) -> np.ndarray:
    """Indices into an axis of length ``n`` that continue it by reflection, as often as it takes."""
    i = np.arange(-before, n + after) % (2 * n)
    return np.minimum(i, 2 * n - 1 - i)


def reflect_pad(plane: np.ndarray, y: tuple[int, int], x: tuple[int, int]) -> np.ndarray:
    """``plane`` continued by reflection with ``(before, after)`` pixels along each axis; any amount."""
    ny, nx = plane.shape
    out = np.empty((ny + sum(y), nx + sum(x)), plane.dtype)
    core = out[y[0] : y[0] + ny]
    core[:, x[0] : x[0] + nx] = plane
    if sum(x):
        index = reflect_index(nx, *x)
        core[:, : x[0]] = plane[:, index[: x[0]]]
        core[:, x[0] + nx :] = plane[:, index[x[0] + nx :]]
    if sum(y):
        index = reflect_index(ny, *y) + y[0]
        out[: y[0]] = out[index[: y[0]]]
        out[y[0] + ny :] = out[index[y[0] + ny :]]
    return out


def fast_length(n: int) -> int:
    """The next even length for which a real FFT is quick."""
    n = fft.next_fast_len(int(n), real=True)
    return n if n % 2 == 0 else fft.next_fast_len(n + 1, real=True) if n > 1 else 2


def reflecting_matrix(kernel: np.ndarray, n: int) -> sparse.csr_array:
    """Convolution with a 1-D kernel under the reflecting boundary, as a sparse (n, n) matrix."""
    radius = len(kernel) // 2
    rows = np.repeat(np.arange(n), len(kernel))
    columns = reflect_index(n, radius, radius)[np.add.outer(np.arange(n), np.arange(len(kernel)))].ravel()
    return sparse.coo_array((np.tile(kernel[::-1], n), (rows, columns)), shape=(n, n)).tocsr()


def b3_smooth(plane: np.ndarray, step: int) -> np.ndarray:
    """One level of the a trous transform: the B3 spline with holes of ``step`` pixels, along both axes."""
    for axis in (0, 1):
        n, reach = plane.shape[axis], 2 * step
        pad = ((reach, reach), (0, 0)) if axis == 0 else ((0, 0), (reach, reach))
        wide = reflect_pad(plane, *pad)

        def part(shift, wide=wide, axis=axis, n=n, reach=reach):
            window = slice(reach + shift, reach + shift + n)
            return wide[window] if axis == 0 else wide[:, window]

        smooth = part(-step) + part(step)
        smooth *= _B3[1]
        far = part(-reach) + part(reach)
        far *= _B3[0]
        smooth += far
        np.multiply(part(0), _B3[2], out=far)
        smooth += far
        plane = smooth
    return plane


# ---------------------------------------------------------------------------------------------- masks and noise


def level_of(plane: np.ndarray, valid: np.ndarray) -> np.float32:
    """Mean of the valid pixels: subtracted before a transform so that constants come back to the last bit."""
    if valid.all():
        return np.float32(plane.mean(dtype=np.float64))
    return np.float32(plane[valid].mean(dtype=np.float64)) if valid.any() else np.float32(0)


def fill(plane: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """``plane`` with its invalid pixels replaced by a local mean of valid ones.

    Each hole pixel takes the normalised B3-spline mean at the smallest scale that holds enough valid pixels, so
    the filling depends on the hole's surroundings only, not on where the image was cut, and never on what was
    under the mask. Returns ``plane`` itself where nothing is invalid.
    """
    if valid.all():
        return plane
    if not valid.any():
        return np.zeros_like(plane)
    level = level_of(plane, valid)
    weight = valid.astype(np.float32)
    total = np.where(valid, plane - level, np.float32(0))
    out = total.copy()
    missing = ~valid
    step = 1
    while missing.any():
        weight, total = b3_smooth(weight, step), b3_smooth(total, step)
        last = step > 2 * max(plane.shape)
        ready = missing & (weight > (0 if last else 0.02))
        out[ready] = total[ready] / weight[ready]
        missing &= ~ready
        if last:
            break
        step *= 2
    out += level
    return np.where(valid, plane, out)


def noise_sigma(plane: np.ndarray, valid: np.ndarray) -> float:
    """Robust standard deviation of white noise: the MAD of mixed second differences.

    The difference ``d[y, x] - d[y, x+1] - d[y+1, x] + d[y+1, x+1]`` is blind to any plane and nearly so to smooth
    sources; a single row or column uses first differences. 0.0 where the data hold no noise to be seen.
    """
    kept = plane.astype(np.float64)
    seen = valid
    scale = 1.0
    for axis in (0, 1):
        if kept.shape[axis] > 1:
            a, b = [slice(None)] * 2, [slice(None)] * 2
            a[axis], b[axis] = slice(1, None), slice(None, -1)
            kept, seen = kept[tuple(a)] - kept[tuple(b)], seen[tuple(a)] & seen[tuple(b)]
            scale /= np.sqrt(2)
    if scale == 1.0 or not seen.any():
        return 0.0
    values = kept if seen.all() else kept[seen]
    return float(MAD_TO_SIGMA * scale * np.median(np.abs(values - np.median(values))))


def variance_plane(observation: Observation, band: int) -> np.ndarray:
    """Variance of one band, smoothly filled under the mask; a robust constant where none is given."""
    valid = observation.valid[band]
    if observation.variance is None:
        sigma = noise_sigma(observation.data[band], valid)
        return np.full(valid.shape, sigma**2, np.float32)
    return fill(observation.variance[band], valid)


# ---------------------------------------------------------------------------------------------- caches


class Cache:
    """A small thread-safe cache of arrays by key, oldest out first, bounded in bytes."""

    def __init__(self, max_bytes: int = 256 * 2**20):
        self.max_bytes = max_bytes
        self._items: OrderedDict = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key, make):
        """The value under ``key``; ``make()`` is called for a new one, outside the lock."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key][0]
        value = make()
        size = sum(getattr(part, "nbytes", 0) for part in (value if isinstance(value, tuple) else (value,)))
        with self._lock:
            if key not in self._items:
                self._items[key] = (value, size)
                self._bytes += size
            while self._bytes > self.max_bytes and len(self._items) > 1:
                self._bytes -= self._items.popitem(last=False)[1][1]
            return self._items[key][0] if key in self._items else value

    def __getstate__(self):
        return {"max_bytes": self.max_bytes}

    def __setstate__(self, state):
        self.__init__(**state)


# ---------------------------------------------------------------------------------------------- Fourier


def wrapped(kernel: np.ndarray, shape: tuple[int, int], dtype=np.float32) -> np.ndarray:
    """A centred odd kernel on a grid of ``shape`` with its centre at [0, 0], wrapping round."""
    out = np.zeros(shape, dtype)
    for i, row in enumerate(kernel, start=-(kernel.shape[0] // 2)):
        np.add.at(out[i % shape[0]], np.arange(-(kernel.shape[1] // 2), kernel.shape[1] // 2 + 1) % shape[1], row)
    return out


def laplacian_symbol(shape: tuple[int, int], *, dct=False) -> np.ndarray:
    """4 - 2 cos(ky) - 2 cos(kx) on the grid of `scipy.fft.rfft2`, or of the type-2 DCT."""
    if dct:
        ky, kx = (np.pi * np.arange(n) / n for n in shape)
    else:
        ky, kx = 2 * np.pi * fft.fftfreq(shape[0]), 2 * np.pi * fft.rfftfreq(shape[1])
    # 2 - 2 cos written as 4 sin^2: exactly zero at zero frequency and no cancellation beside it
    return np.add.outer(4 * np.sin(ky / 2) ** 2, 4 * np.sin(kx / 2) ** 2)


class FiniteFilter:
    """Convolution with a finite kernel under the reflecting boundary, by FFTs with cached transfer functions.

    Parameters
    ----------
    kernel : `numpy.ndarray`
        (2 r + 1, 2 r + 1), centred.

    Notes
    -----
    Large planes go block by block (overlap-save): a block's transform stays in the cache of one core, and no padded
    copy of the whole plane is made. The result does not depend on the blocks beyond rounding.
    """

    block = 512

    def __init__(self, kernel: np.ndarray):
        self.kernel = np.asarray(kernel, np.float64)
        self.radius = self.kernel.shape[0] // 2
        self._transfers = Cache(64 * 2**20)
        self._squared = None

    @property
    def nbytes(self) -> int:
        """Memory of the kernel; that of the transfer functions is bounded apart."""
        return self.kernel.nbytes

    @property
    def squared(self) -> FiniteFilter:
        """The filter that carries variance: this kernel, squared."""
        if self._squared is None:
            self._squared = FiniteFilter(self.kernel**2)
        return self._squared

    def __call__(self, plane: np.ndarray) -> np.ndarray:
        """The filtered plane, float32."""
        if self.radius == 0:
            return np.multiply(plane, self.kernel[0, 0], dtype=np.float32)
        out = np.empty(plane.shape, np.float32)
        rows, columns = (self._cuts(n) for n in plane.shape)
        for y0, y1 in rows:
            iy = self._window(y0, y1, plane.shape[0])
            for x0, x1 in columns:
                self._filter(plane, iy, self._window(x0, x1, plane.shape[1]), out[y0:y1, x0:x1])
        return out

    def _cuts(self, n):
        """Even pieces of an axis whose length with both margins is at most ``block`` (or four margins)."""
        core = max(self.block, 6 * self.radius) - 2 * self.radius
        count = -(-n // core)
        edges = [n * i // count for i in range(count + 1)]
        return list(zip(edges[:-1], edges[1:], strict=True))

    def _window(self, start, stop, n):
        """(slice that lies in the axis, reflected indices before it, reflected indices after it, length)."""
        low, high = max(start - self.radius, 0), min(stop + self.radius, n)
        index = reflect_index(n, self.radius, self.radius)[start : stop + 2 * self.radius]
        before, after = low - (start - self.radius), stop + self.radius - high
        return slice(low, high), index[:before] - low, index[len(index) - after :] - low, stop - start

    def _filter(self, plane, iy, ix, out):
        # The block starts at its left margin; the kernel is stored with its centre at [0, 0], so the core comes out
        # at [radius, radius]. Rows that only repeat others are not transformed along x a second time.
        (sy, top, bottom, ny), (sx, left, right, nx) = iy, ix
        r = self.radius
        shape = fast_length(ny + 2 * r), fast_length(nx + 2 * r)
        inner = plane[sy, sx]
        rows = np.zeros((inner.shape[0], shape[1]), np.float32)
        rows[:, len(left) : len(left) + inner.shape[1]] = inner
        if len(left):
            rows[:, : len(left)] = inner[:, left]
        if len(right):
            rows[:, nx + 2 * r - len(right) : nx + 2 * r] = inner[:, right]
        rows = fft.rfft(rows, axis=1, overwrite_x=True)
        spectrum = np.empty((shape[0], rows.shape[1]), np.complex64)
        spectrum[len(top) : len(top) + len(rows)] = rows
        spectrum[: len(top)] = rows[top]
        spectrum[ny + 2 * r - len(bottom) : ny + 2 * r] = rows[bottom]
        spectrum[ny + 2 * r :] = 0
        spectrum = fft.fft(spectrum, axis=0, overwrite_x=True)
        spectrum *= self._transfer(shape)
        spectrum = fft.ifft(spectrum, axis=0, overwrite_x=True)[r : r + ny]
        out[:] = fft.irfft(spectrum, n=shape[1], axis=1, overwrite_x=True)[:, r : r + nx]

    def _transfer(self, shape):
        def make():
            transfer = fft.rfft2(wrapped(self.kernel, shape, np.float64)).astype(np.complex64)
            transfer[0, 0] = np.float32(self.kernel.sum())
            return transfer

        return self._transfers.get(shape, make)

    def variance(self, variance: np.ndarray) -> np.ndarray:
        """Variance of the filtered plane when the plane's pixels are independent.

        Away from the edges it is the kernel squared, convolved. Beside an edge a pixel enters together with its
        mirror image, and their weights add before they are squared; the cross terms are added along each edge (the
        fourfold ones in the very corners are left out).
        """
        out = self.squared(variance).astype(np.float64)
        reach = self._core_radius()
        for axis in (0, 1):
            for flip in (False, True):
                self._add_mirror_terms(out, variance, axis, flip, reach)
        # round-off of the FFT must not turn a small variance negative
        low = variance.min() * (self.kernel**2).sum()
        return np.maximum(out, 0.5 * low).astype(np.float32)

    def _core_radius(self):
        """Radius beyond which the squared kernel holds less than 1e-4 of its sum."""
        profile = np.cumsum((self.kernel**2).sum(axis=0))
        centre = len(profile) // 2
        for r in range(centre + 1):
            before = profile[centre - r - 1] if r < centre else 0.0
            if profile[centre + r] - before > (1 - 1e-4) * profile[-1]:
                return max(r, 1)
        return max(centre, 1)

    def _add_mirror_terms(self, out, variance, axis, flip, reach):
        kernel = self.kernel if axis == 1 else self.kernel.T
        kernel = kernel[:, ::-1] if flip else kernel
        out = out if axis == 1 else out.T
        variance = variance if axis == 1 else variance.T
        out = out[:, ::-1] if flip else out
        source = np.asarray(variance[:, ::-1] if flip else variance)
        r, n = self.radius, source.shape[1]
        # weights of source column s and of its mirror -1 - s in output column c are kernel[c - s], kernel[c + s + 1]
        columns = min(reach, n)
        source = reflect_pad(source[:, :columns].astype(np.float64), (r, r), (0, 0))
        length = fast_length(source.shape[0] + 2 * r)
        spectrum = fft.rfft(source, length, axis=0)
        for c in range(columns):
            s = np.arange(columns)
            s = s[(np.abs(c - s) <= r) & (c + s + 1 <= r)]
            if len(s) == 0:
                continue
            pair = 2 * kernel[:, r + c - s] * kernel[:, r + c + s + 1]
            term = fft.irfft((spectrum[:, s] * fft.rfft(pair, length, axis=0)).sum(axis=1), length)
            out[:, c] += term[2 * r : 2 * r + out.shape[0]]


# ---------------------------------------------------------------------------------------------- spectra


class Spectrum:
    """Power of a plane in rings of the Laplacian's symbol, with the PSF's power beside it.

    The type-2 cosine transform is the natural one for a reflecting boundary: it has no leakage from a jump between
    opposite edges. With its orthonormal form white noise of variance v has power v in every mode.

    Parameters
    ----------
    plane : `numpy.ndarray`
        (y, x), holes filled.
    psf : `numpy.ndarray`, optional
        (k, k). Default: none, a transfer function of one.
    rings : int
        Number of rings.

    Attributes
    ----------
    count, power, laplacian, transfer : `numpy.ndarray`
        For each ring: number of modes (without the mean), mean power, mean Laplacian symbol, mean squared modulus
        of the PSF's transfer function.
    """

    def __init__(self, plane: np.ndarray, psf: np.ndarray | None = None, rings: int = 96):
        coefficients = fft.dctn(plane, type=2, norm="ortho")
        coefficients *= coefficients
        symbol = laplacian_symbol(plane.shape, dct=True)
        # sqrt of the symbol is close to the wave number; 8 is the symbol's largest value
        edges = np.linspace(0, np.sqrt(8), rings + 1)
        ring = np.clip(np.digitize(np.sqrt(symbol), edges) - 1, 0, rings - 1)
        ring[0, 0] = rings
        ring = ring.ravel()
        count = np.bincount(ring, minlength=rings + 1)[:rings]
        used = count > 0
        self.count = count[used].astype(float)
        self.power = np.bincount(ring, coefficients.ravel(), rings + 1)[:rings][used] / self.count
        self.laplacian = np.bincount(ring, symbol.ravel(), rings + 1)[:rings][used] / self.count
        self.transfer = np.ones_like(self.count)
        if psf is not None:
            self.transfer = _ring_transfer(psf, edges)[used]


def _ring_transfer(psf, edges):
    """Squared modulus of a PSF's transfer function averaged in rings, on a grid of its own."""
    n = max(256, 2 * fast_length(psf.shape[0]))
    power = np.abs(fft.rfft2(wrapped(psf, (n, n), np.float64))) ** 2
    wave = np.sqrt(laplacian_symbol((n, n)))
    weight = np.full(power.shape, 2.0)
    weight[:, [0, -1]] = 1.0
    ring = np.clip(np.digitize(wave, edges) - 1, 0, len(edges) - 2).ravel()
    total = np.bincount(ring, weight.ravel(), len(edges) - 1)
    mean = np.bincount(ring, (weight * power).ravel(), len(edges) - 1) / np.maximum(total, 1)
    centres = (edges[1:] + edges[:-1]) / 2
    return np.interp(centres, centres[total > 0], mean[total > 0])


def grid_minimum(values: np.ndarray, grid: np.ndarray) -> float:
    """Where sampled ``values`` are least on an even ``grid``, refined by the parabola through the lowest three."""
    i = int(np.argmin(values))
    if 0 < i < len(grid) - 1:
        below, here, above = values[i - 1 : i + 2]
        curvature = below - 2 * here + above
        if curvature > 0:
            return float(grid[i] + (grid[1] - grid[0]) * 0.5 * (below - above) / curvature)
    return float(grid[i])
