"""What the linear and variational restorers share: boundaries, filling, noise, spectra, finite filters.

Everything works on one band (y, x) unless it says otherwise, reflects at the edges (half-sample symmetric, so the
sum over the image is kept by any symmetric kernel), and is equivariant: no constant in here has a unit.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from scipy import fft, ndimage, sparse

from astrogan.api import Observation
from astrogan.backends.classic._cache import Cache
from astrogan.exceptions import InputError, PSFError
from astrogan.image.tiling import single_torch_thread

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


@lru_cache(maxsize=4096)
def fast_length(n: int) -> int:
    """The next length at which FFTs are quick: no prime factor above 7, and a multiple of 8 from 64 on."""
    step = 8 if n > 64 else 2
    length = max(-(-n // step) * step, 2)
    while not _is_smooth(length):
        length += step
    return length


def _is_smooth(n):
    for prime in (2, 3, 5, 7):
        while n % prime == 0:
            n //= prime
    return n == 1


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
    """Roughly the mean of the valid pixels: taken off before a transform, so that constants come back exactly."""
    if valid.all():
        step = max(min(plane.shape) // 64, 1)
        return np.float32(plane[::step, ::step].mean(dtype=np.float64))
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
    """Variance of one band, smoothly filled under the mask; a robust constant where none is given.

    Data that show no noise (a model on an empty sky) count as good to 1e-4 of their range, so that a method still has
    something to weigh its prior against; the variance is 0 only for a constant image.
    """
    valid, plane = observation.valid[band], observation.data[band]
    if observation.variance is None:
        sigma = noise_sigma(plane, valid)
        if sigma == 0 and valid.any():
            sigma = 1e-4 * float(np.ptp(plane[valid]))
        return np.full(valid.shape, sigma**2, np.float32)
    return fill(observation.variance[band], valid)


def local_median(plane: np.ndarray, block: int = 16) -> np.ndarray:
    """A smooth map of medians over about three blocks, which small sources do not show in."""
    if plane.min() == plane.max():
        return plane
    ny, nx = (-(-n // block) for n in plane.shape)
    wide = reflect_pad(plane, (0, ny * block - plane.shape[0]), (0, nx * block - plane.shape[1]))
    coarse = np.median(wide.reshape(ny, block, nx, block).swapaxes(1, 2).reshape(ny, nx, -1), axis=-1)
    coarse = ndimage.median_filter(coarse, 3, mode="reflect")
    grid = np.meshgrid(*((np.arange(n) + 0.5) / block - 0.5 for n in plane.shape), indexing="ij")
    return ndimage.map_coordinates(coarse, grid, order=1, mode="nearest")


def check_weighting(weighting: str) -> str:
    """``weighting`` if it is one of the two, or an error.

    A source's own photons raise the variance of its pixels. Weighting pixel by pixel then trusts a source the less the
    brighter it is; together with a penalty that takes flux from it (2 to 8 % of a field's in our tests). "local" weighs
    by the running median, which follows the depth of the exposure and not the sources.
    """
    if weighting not in ("local", "pixel"):
        raise InputError(f"weighting={weighting!r} must be 'local' or 'pixel'")
    return weighting


SURE_GRID = np.linspace(-6, 4, 81)
"""log10 of the balances that `best_balance` tries."""


BRIGHT = 10.0
"""In sigma from the sky: what is brighter counts as this bright when a stationary filter is tuned. The power of a few
stars would otherwise decide how much noise is let through everywhere."""


def best_balance(spectrum: Spectrum, noise: float, slope: float) -> tuple[float, float]:
    """(balance, residual share) of the Wiener filter with the least Stein's unbiased risk estimate.

    With power P, the squared PSF transfer h, the Laplacian's symbol L and gain T = h / (h + balance L^(slope/2)) the
    risk is sum(P (1 - T)^2 + 2 noise T). The residual share is 1 - sum(T) / N: what an estimate with sum(T)
    effective parameters leaves of chi^2 / N.
    """
    if len(spectrum.count) == 0 or not spectrum.power.any():
        return 10.0 ** SURE_GRID[-1], 1.0
    balances = np.multiply.outer(10**SURE_GRID, spectrum.laplacian ** (slope / 2))
    gain = spectrum.transfer / (spectrum.transfer + balances)
    risk = (spectrum.power * (1 - gain) ** 2 + 2 * noise * gain) @ spectrum.count
    left = 1 - gain[np.argmin(risk)] @ spectrum.count / (spectrum.count.sum() + 1)
    return float(10 ** grid_minimum(risk, SURE_GRID)), float(left)


_AGREES = 1.15
_HALVINGS = 3
_OUTLIER = 20.0


def field_balance(plane: np.ndarray, psf: np.ndarray | None, noise: float, slope: float) -> float:
    """The balance that serves most of an image: SURE of what is typical, as far as the data agree with the result.

    A stationary filter has one strength for all. Where SURE is told of a few stars it lets noise through everywhere;
    where bright pixels are cut to `BRIGHT` sigma first it may blur a galaxy that fills the image. So the balance found
    with the cut is halved, `_HALVINGS` times at the most, until the residual (1 - T) d is noise nearly everywhere: its
    square, no pixel counting for more than `_OUTLIER` sigma, is at most `_AGREES` on average.

    Parameters
    ----------
    plane : `numpy.ndarray`
        (y, x), sky-subtracted, holes filled.
    psf : `numpy.ndarray`, optional
        (k, k).
    noise, slope : float
        Mean variance, and the logarithmic slope of the scene's power spectrum.
    """
    blocks = _blocks(plane)
    bright = BRIGHT * np.sqrt(noise)
    spectra = [Spectrum(np.clip(block, -bright, bright), psf) for block in blocks]
    spectrum = spectra[0]
    spectrum.power = np.mean([one.power for one in spectra], axis=0)
    balance, _ = best_balance(spectrum, noise, slope)
    if noise <= 0 or len(spectrum.count) == 0:
        return balance
    symbol = laplacian_symbol(blocks[0].shape, dct=True)
    transfer = np.interp(symbol, spectrum.laplacian, spectrum.transfer)
    penalty = symbol ** (slope / 2)
    coefficients = [fft.dctn(block, type=2, norm="ortho") for block in blocks]
    for _ in range(_HALVINGS):
        left = balance * penalty
        keep = left / np.maximum(transfer + left, 1e-30)
        residuals = (fft.idctn(part * keep, type=2, norm="ortho") for part in coefficients)
        if np.mean([np.minimum(r**2, _OUTLIER**2 * noise).mean() for r in residuals]) <= _AGREES * noise:
            break
        balance /= 2
    return balance


_WHOLE = 1536**2


def _blocks(plane):
    """The plane, or, where it is large, up to 16 blocks spread evenly over it: as telling, and bounded in memory."""
    if plane.size <= _WHOLE:
        return [plane]
    edges = [min(n, 512) for n in plane.shape]
    starts = [np.unique(np.linspace(0, n - edge, 4).astype(int)) for n, edge in zip(plane.shape, edges, strict=True)]
    return [plane[y : y + edges[0], x : x + edges[1]] for y in starts[0] for x in starts[1]]


# ---------------------------------------------------------------------------------------------- Fourier


@contextmanager
def quick_transforms(pixels: int = 0):
    """Keep torch from spreading transforms of few ``pixels`` over threads, which then wait for one another.

    On a quiet machine that hardly matters; on busy cores a block of 0.5 ms was seen to take 90.
    """
    import torch  # noqa: F401  the next function does nothing before torch is there

    with single_torch_thread() if pixels < 2**19 else nullcontext():
        yield


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
    Planes go block by block (overlap-save): a block's transform stays in the cache of one core, and no padded copy of
    the whole plane is made. Two blocks travel as the real and the imaginary part of one complex block, which a real
    kernel keeps apart; that takes little more than half the time of two real transforms. The result does not depend
    on the blocks beyond rounding.
    """

    largest_block = 320

    def __init__(self, kernel: np.ndarray):
        self.kernel = np.asarray(kernel, np.float64)
        self.radius = self.kernel.shape[0] // 2
        self._transfers = Cache(64 * 2**20)

    @property
    def nbytes(self) -> int:
        """Memory of the kernel; that of the transfer functions is bounded apart."""
        return self.kernel.nbytes

    @cached_property
    def squared(self) -> FiniteFilter:
        """The filter that carries variance: this kernel, squared."""
        return FiniteFilter(self.kernel**2)

    def __call__(self, plane: np.ndarray, level: float = 0.0, out: np.ndarray | None = None, device=None) -> np.ndarray:
        """The filtered plane, float32; ``level`` is taken off before and added again after, for accuracy.

        With a ``device`` (a `torch.device`) other than the CPU the plane is transformed there, in one piece.
        """
        if device is not None and device.type != "cpu":
            return self._apply_whole(plane, level, out, device)
        with quick_transforms():
            return self._apply(plane, level, out)

    def _apply_whole(self, plane, level, out, device):
        import torch

        r, (ny, nx) = self.radius, plane.shape
        shape = (fast_length(ny + 2 * r), fast_length(nx + 2 * r))
        image = torch.from_numpy(np.subtract(plane, np.float32(level), dtype=np.float32)).to(device)
        for axis, (n, length) in enumerate(zip((ny, nx), shape, strict=True)):
            index = torch.from_numpy(reflect_index(n, r, length - n - r)).to(device)
            image = image.index_select(axis, index)
        transfer = self._transfers.get((*shape, str(device)), lambda: self._half_transfer(shape, device))
        # The kernel is stored with its centre at [0, 0], so a pixel comes out where it went in; what the FFT wraps
        # round stays in the margins.
        image = torch.fft.irfft2(torch.fft.rfft2(image).mul_(transfer), s=shape)
        filtered = image[r : r + ny, r : r + nx].cpu().numpy()
        return np.add(filtered, np.float32(level), out=np.empty(plane.shape, np.float32) if out is None else out)

    def _half_transfer(self, shape, device):
        import torch

        return torch.from_numpy(fft.rfft2(wrapped(self.kernel, shape, np.float64)).astype(np.complex64)).to(device)

    def _apply(self, plane, level, out):
        import torch  # on use: its FFT is nearly twice as quick as scipy's, and most of this module does without

        out = np.empty(plane.shape, np.float32) if out is None else out
        level, r = np.float32(level), self.radius
        (rows, height), (columns, width) = (
            _windows(n, multiple, r, self.largest_block) for n, multiple in zip(plane.shape, (2, 1), strict=True)
        )
        transfer = self._transfer((height, width))
        windows = [(y, x) for x in columns for y in rows]
        block = np.zeros((height, width, 2), np.float32)
        image = torch.view_as_complex(torch.from_numpy(block))
        for pair in zip(windows[::2], windows[1::2], strict=True):
            # A block starts at its margin and the kernel is stored with its centre at [0, 0], so the core comes out at
            # [radius, radius]; what the FFT wraps round stays in the margins.
            for part, (y, x) in enumerate(pair):
                _copy_reflected(plane, level, y, x, block[..., part])
            spectrum = torch.fft.fft2(image, norm="forward").mul_(transfer)
            filtered = torch.view_as_real(torch.fft.ifft2(spectrum, norm="forward")).numpy()
            for part, ((core_y, *_), (core_x, *_)) in enumerate(pair):
                ny, nx = core_y.stop - core_y.start, core_x.stop - core_x.start
                np.add(filtered[r : r + ny, r : r + nx, part], level, out=out[core_y, core_x])
        return out

    def _transfer(self, shape):
        import torch

        def make():
            return torch.from_numpy(fft.fft2(wrapped(self.kernel, shape, np.float64)).astype(np.complex64))

        return self._transfers.get(shape, make)

    def variance(self, variance: np.ndarray, device=None) -> np.ndarray:
        """Variance of the filtered plane when the plane's pixels are independent.

        Away from the edges it is the kernel squared, convolved. Beside an edge a pixel enters together with its
        mirror image, and their weights add before they are squared; the cross terms are added along each edge (the
        fourfold ones in the very corners are left out).
        """
        out = self.squared(variance, device=device).astype(np.float64)
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


@lru_cache(maxsize=64)
def _windows(n: int, multiple: int, r: int, largest: int):
    """(pieces of an axis, their length for the FFT) for a kernel of radius ``r``.

    A piece is (core, the part of the axis that it reads, the reflected indices before that, those after). Their number
    is a multiple of ``multiple``, some may be empty.
    """
    most = max(largest, 6 * r)

    def lengths(count):
        return fast_length(-(-n // count) + 2 * r)

    counts = multiple * np.arange(1, max(n // (multiple * 64), 1) + 2 * n // (most * multiple) + 2)
    allowed = [int(c) for c in counts if lengths(int(c)) <= most] or [int(counts[-1])]
    count = min(allowed, key=lambda c: c * lengths(c))
    index = reflect_index(n, r, r)
    pieces = []
    for start, stop in pairwise(n * i // count for i in range(count + 1)):
        low, high = max(start - r, 0), min(stop + r, n)
        pieces.append((slice(start, stop), slice(low, high), index[start : low + r], index[high + r : stop + 2 * r]))
    return tuple(pieces), lengths(count)


def _copy_reflected(plane, level, y, x, block):
    """``plane - level`` for one block, with its reflected margins."""
    (core_y, part_y, top, bottom), (core_x, part_x, left, right) = y, x
    height = part_y.stop - part_y.start + len(top) + len(bottom)
    width = part_x.stop - part_x.start + len(left) + len(right)
    if core_y.stop == core_y.start or core_x.stop == core_x.start:
        return
    rows = block[len(top) : height - len(bottom)]
    np.subtract(plane[part_y, part_x], level, out=rows[:, len(left) : width - len(right)])
    if len(left):
        rows[:, : len(left)] = rows[:, len(left) + left - part_x.start]
    if len(right):
        rows[:, width - len(right) : width] = rows[:, len(left) + right - part_x.start]
    block[: len(top)] = rows[top - part_y.start]
    block[height - len(bottom) : height] = rows[bottom - part_y.start]


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


# ---------------------------------------------------------------------------------------------- weighted problems


def _light_radius(psf, outside):
    """Half width of the box that holds all but a part of the PSF."""
    offset = np.abs(np.arange(len(psf)) - len(psf) // 2)
    ring = np.maximum.outer(offset, offset).ravel()
    inside = np.cumsum(np.bincount(ring, np.abs(psf).ravel())) / np.abs(psf).sum()
    return int(np.argmax(inside > 1 - outside))


class WeightedProblem:
    """One band of a weighted least-squares problem on a periodic grid wider than the image.

    The grid holds the image and a margin in which the scene goes on but nothing was observed (weight zero), as under
    a mask: no assumption is made about what lies outside, and what the transforms wrap round is never compared with
    data. Values are in units of the typical noise, with the level of the sky taken off.

    Parameters
    ----------
    observation : `~astrogan.api.Observation`
        The image; without a PSF nothing is convolved.
    band : int
        Which band.
    weighting : {"local", "pixel"}
        Weights from the variance's running median, or pixel by pixel (see `check_weighting`).

    Attributes
    ----------
    trivial : bool
        Nothing valid, or a constant without noise: the image is its own solution and the rest is not set.
    data, weight : `numpy.ndarray`
        float32 on the grid; 0 where nothing was observed. The mean weight of valid pixels is 1.
    start : `numpy.ndarray`
        The data continued by reflection and smoothly filled, a start for iterations.
    inverse_variance : `numpy.ndarray`
        Of each pixel of the image, in the same units.
    unseen : tuple of slice
        Rows and columns in the margin that are too far from the image to shine into it.
    mean_noise : float
        Mean variance of the valid pixels, in the same units.
    count : int
        Number of valid pixels.
    """

    def __init__(self, observation: Observation, band: int, weighting: str = "local"):
        valid = observation.valid[band]
        psf = None if observation.psf is None else observation.psf[band].astype(np.float64)
        variance = variance_plane(observation, band)
        self.shape, self.count = valid.shape, int(valid.sum())
        self.trivial = not (valid.any() and variance[valid].min() > 0)
        if self.trivial:
            return
        variance = variance.astype(np.float64)
        steady = variance if weighting == "pixel" else local_median(variance)
        inverse = np.where(valid, 1 / steady, 0)
        self.noise = 1 / (inverse.sum() / self.count)
        self.mean_noise = float(variance[valid].mean() / self.noise)
        self.sigma = np.float32(np.sqrt(self.noise))
        self.level = level_of(observation.data[band], valid)
        # a pixel of next to no weight is a hole to the start and the spectrum, though it takes part later
        plane = fill(observation.data[band], valid & (self.noise < 100 * steady) & (steady < 100 * self.noise))
        plane = (plane - self.level) / self.sigma
        margin = 16 if psf is None else max(len(psf) - 1, 16)
        self.grid = tuple(fast_length(n + margin) for n in valid.shape)
        self.core = tuple(slice(0, n) for n in valid.shape)
        ahead = [(0, (g - n + 1) // 2, (g - n) // 2) for g, n in zip(self.grid, valid.shape, strict=True)]
        # the second half of the margin continues the image's first edge, round the corner
        (_, down, up), (_, right, left) = ahead
        self.start = np.roll(reflect_pad(plane, (up, down), (left, right)), (-up, -left), (0, 1))
        # rows and columns that next to no light of the image comes from
        reach = 0 if psf is None else _light_radius(psf, 0.05)
        self.unseen = tuple(slice(n + reach, g - reach) for n, g in zip(valid.shape, self.grid, strict=True))
        self.weight = np.zeros(self.grid, np.float32)
        self.weight[self.core] = inverse * self.noise
        self.inverse_variance = np.where(valid, self.noise / variance, 0).astype(np.float32)
        self.data = np.where(self.weight > 0, self.start, np.float32(0))
        self.plane, self.psf = plane, psf
        self.spectrum = Spectrum(np.clip(plane, -BRIGHT, BRIGHT), psf)
        self.transfer = None if psf is None else fft.rfft2(wrapped(psf / psf.sum(), self.grid, np.float64))
        self.transfer = None if psf is None else self.transfer.astype(np.complex64)
        self.laplacian = laplacian_symbol(self.grid).astype(np.float32)
        self.power = np.float32(1) if psf is None else np.abs(self.transfer) ** 2

    def blur(self, image: np.ndarray) -> np.ndarray:
        """H image."""
        return image if self.transfer is None else self.inverse(self.forward(image) * self.transfer)

    def adjoint(self, image: np.ndarray) -> np.ndarray:
        """H^T image."""
        return image if self.transfer is None else self.inverse(self.forward(image) * np.conj(self.transfer))

    def forward(self, image: np.ndarray) -> np.ndarray:
        """Real FFT of an image on the grid."""
        import torch

        return torch.fft.rfft2(torch.from_numpy(image)).numpy()

    def inverse(self, spectrum: np.ndarray) -> np.ndarray:
        """The image of a real FFT."""
        import torch

        return torch.fft.irfft2(torch.from_numpy(spectrum), s=self.grid).numpy()

    def chi2(self, blurred: np.ndarray) -> float:
        """Sum of (blurred - data)^2 / variance over the valid pixels."""
        residual = blurred[self.core] - self.data[self.core]
        return float(np.einsum("yx,yx,yx->", residual, residual, self.inverse_variance, dtype=np.float64))

    def finish(self, image: np.ndarray) -> np.ndarray:
        """The image's own pixels, in its unit."""
        return image[self.core] * self.sigma + self.level
