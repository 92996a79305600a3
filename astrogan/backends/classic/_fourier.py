"""Convolution with a PSF: fast sizes, cached transfer functions, and two images for the price of one.

Everything is float32 through torch's FFT (MKL where torch has it), which is about half again as quick as pocketfft.
Two real images that share a PSF travel as the real and the imaginary part of one complex image: convolution with a
real kernel keeps the parts apart, so nothing has to be unpacked, and a complex transform of two images costs little
more than half of what two real ones do.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from astrogan.backends.classic._cache import Cache

__all__ = ["Blur", "effective_radius", "good_size", "profile_width", "trimmed"]

_CACHE_BYTES = 256 * 2**20


_transfers = Cache(_CACHE_BYTES)


def grid_key(kernel: np.ndarray, shape: tuple[int, int], *, packed: bool, device="cpu") -> tuple:
    """What names a kernel on a grid in a cache."""
    return hashlib.blake2b(kernel.tobytes(), digest_size=16).digest(), kernel.shape, shape, packed, str(device)


def transfer_function(
    kernel: np.ndarray, shape: tuple[int, int], *, packed: bool, device="cpu", cache=_transfers
) -> torch.Tensor:
    """The transfer function of a kernel on a periodic grid, from the cache where it is there."""
    key = grid_key(kernel, shape, packed=packed, device=device)
    return cache.get(key, lambda: torch.from_numpy(_transfer(kernel, shape, packed=packed)).to(device))


def _transfer(kernel: np.ndarray, shape: tuple[int, int], *, packed: bool) -> np.ndarray:
    """Discrete Fourier transform of a centred kernel laid on a periodic grid, computed in double precision."""
    grid = np.zeros(shape)
    rows, columns = (np.arange(n) - n // 2 for n in kernel.shape)
    # A kernel wider than the grid wraps around and adds up, as a periodic convolution asks.
    np.add.at(grid, np.ix_(rows % shape[0], columns % shape[1]), kernel.astype(np.float64))
    # Column by column, as torch leaves the spectra of real images that it is multiplied with.
    half = np.asfortranarray(np.fft.rfft2(grid), np.complex64)
    if not packed:
        return half
    full = np.empty(shape, np.complex64)
    full[:, : half.shape[1]] = half
    # The kernel is real, so the other half is the first one's complex conjugate at the opposite frequencies.
    mirrored = half[:, 1 : (shape[1] + 1) // 2]
    full[0, half.shape[1] :] = mirrored[0, ::-1].conj()
    full[1:, half.shape[1] :] = mirrored[:0:-1, ::-1].conj()
    return full


def good_size(n: int) -> int:
    """The smallest length from ``n`` up at which the transforms are quick.

    Lengths are products of 2, 3, 5 and 7. From 128 on they are multiples of 16 as well: the others were measured to
    be 20 to 60 % slower a pixel.
    """
    n = max(int(n), 1)
    step = 16 if n > 112 else 4 if n > 16 else 1
    size = -(-n // step) * step
    while not _is_smooth(size):
        size += step
    return size


def _is_smooth(n: int) -> bool:
    for prime in (2, 3, 5, 7):
        while n % prime == 0:
            n //= prime
    return n == 1


def _profiles(psf: np.ndarray) -> np.ndarray:
    """The PSF of each band summed over rows, and over columns; each normalised by what it adds up to."""
    weight = np.abs(np.asarray(psf, np.float64))
    profiles = np.concatenate([weight.sum(axis=axis).reshape(-1, psf.shape[-1]) for axis in (-1, -2)])
    return profiles / profiles.sum(axis=1, keepdims=True)


def effective_radius(psf: np.ndarray, tail: float) -> int:
    """The smallest radius in pixels beyond which a row or column profile of the PSF holds at most ``tail`` of it.

    The profiles are those of `profile_width`, each side by itself; the largest radius is returned.
    """
    profiles, half = _profiles(psf), psf.shape[-1] // 2
    sides = np.concatenate([profiles[:, half + 1 :], profiles[:, :half][:, ::-1]])
    outside = sides[:, ::-1].cumsum(axis=1)[:, ::-1]  # [:, i]: what lies at radius i + 1 and beyond
    return int((outside > tail).sum(axis=1).max(initial=0))


def profile_width(psf: np.ndarray) -> float:
    """Full width at half maximum, in pixels, of the PSF (band, k, k) summed over rows or columns: the largest.

    It is between the outermost crossings, so also right for a PSF with several peaks, and at least one pixel.
    """
    widths = [1.0]
    for profile in _profiles(psf):
        profile = np.concatenate([[0.0], profile, [0.0]])
        level = 0.5 * profile.max()
        above = np.flatnonzero(profile >= level)
        low, high = above[0], above[-1]
        left = low - (profile[low] - level) / (profile[low] - profile[low - 1])
        right = high + (profile[high] - level) / (profile[high] - profile[high + 1])
        widths.append(right - left)
    return float(max(widths))


def trimmed(kernel: np.ndarray) -> np.ndarray:
    """The kernel (k, k) without the frame of zeros that it may have; odd and centred as before."""
    half = len(kernel) // 2
    offsets = np.argwhere(kernel) - half
    radius = int(np.abs(offsets).max(initial=0))
    return kernel[half - radius : half + radius + 1, half - radius : half + radius + 1]


class Blur:
    """Periodic convolution with a PSF, and its adjoint, on a fixed grid.

    Parameters
    ----------
    kernel : `numpy.ndarray`
        PSF (k, k), k odd, centred.
    shape : tuple of int
        Grid (y, x).
    packed : bool
        False: images are float32 tensors (y, x). True: two images at once, (y, x, 2).
    device : str or `torch.device`
        Where the images are.
    """

    def __init__(self, kernel: np.ndarray, shape: tuple[int, int], *, packed: bool = False, device="cpu"):
        self.shape = tuple(shape)
        self.packed = packed
        self.device = device
        self.image_shape = (*self.shape, 2) if packed else self.shape
        kernel = np.ascontiguousarray(kernel, np.float32)
        self._kernel = kernel
        self._transfer = transfer_function(kernel, self.shape, packed=packed, device=device)
        self._adjoint = None if packed else self._transfer.conj().resolve_conj()

    @property
    def key(self) -> tuple:
        """What names the PSF on its grid in a cache."""
        return grid_key(self._kernel, self.shape, packed=self.packed, device=self.device)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """The image convolved with the PSF."""
        if not self.packed:
            return self._real(image, self._transfer)
        spectrum = torch.fft.fft2(torch.view_as_complex(image), norm="forward")
        return torch.view_as_real(torch.fft.ifft2(spectrum.mul_(self._transfer), norm="forward"))

    def adjoint(self, image: torch.Tensor) -> torch.Tensor:
        """The image correlated with the PSF."""
        if not self.packed:
            return self._real(image, self._adjoint)
        # With the two transforms exchanged the product with the same function is a correlation (the kernel is
        # real), which spares the cache a second function.
        spectrum = torch.fft.ifft2(torch.view_as_complex(image))
        return torch.view_as_real(torch.fft.fft2(spectrum.mul_(self._transfer)))

    def _real(self, image: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
        # Axis by axis: torch's own two-dimensional inverse copies more.
        spectrum = torch.fft.fft(torch.fft.rfft(image, norm="forward"), dim=0, norm="forward")
        spectrum = torch.fft.ifft(spectrum.mul_(transfer), dim=0, norm="forward")
        return torch.fft.irfft(spectrum, n=self.shape[1], norm="forward")
