"""Wiener-Hunt deconvolution with one finite, cached filter a PSF."""

from __future__ import annotations

import numpy as np
from scipy import fft

from astrogan.api import Estimate, Observation
from astrogan.backends.classic._cache import Cache
from astrogan.backends.classic._linear import (
    FiniteFilter,
    band_info,
    fast_length,
    field_balance,
    fill,
    laplacian_symbol,
    level_of,
    need_psf,
    per_band,
    positive,
    positive_or_auto,
    variance_plane,
    wrapped,
)
from astrogan.backends.gan._device import device_of
from astrogan.exceptions import InputError
from astrogan.image.tiling import DEFAULT_TILE

__all__ = ["Wiener", "wiener_filter"]

_MAX_RADIUS = 128
_TILE_ON_GPU = 2048


class Wiener:
    """Deconvolve each band with the Wiener filter of a power-law scene.

    In Fourier space the filter is ``conj(H) / (|H|^2 + balance * L^(slope / 2))`` with H the PSF's transfer function
    and L = 4 - 2 cos(ky) - 2 cos(kx) the Laplacian's. The last term is the noise over the power spectrum of the scene,
    taken as k^-slope: 3 suits fields of galaxies, 4 is Hunt's Laplacian penalty, the one of
    `skimage.restoration.wiener`. L is zero at zero frequency, so the gain there is exactly one: sky and flux are kept.

    Parameters
    ----------
    balance : float, tuple of float, or "auto"
        Strength of the regularisation, one for all bands or one a band. "auto" takes the one with the least Stein's
        unbiased risk estimate, from the data and their variance alone.
    slope : float
        Logarithmic slope of the scene's power spectrum, above 0 and at most 8.
    device : str
        Where the transforms are made: "cpu", "cuda", "cuda:<number>", or "auto" (CUDA where torch finds it).

    Raises
    ------
    InputError
        If ``balance`` is neither "auto" nor positive, ``slope`` is outside its range, or there is no such device.
    PSFError
        When called without a PSF.

    Notes
    -----
    The exact filter reaches everywhere; it is cut where its response to a star has fallen to 1e-5 of the peak and 1e-4
    of its absolute weight is left outside (at most at 128 pixels), and its sum is set to one again. What is applied is
    therefore a finite convolution with a known halo: tiles agree with the whole image, edges reflect and nothing
    wraps round. Filters are cached per PSF and balance, their transforms per shape.

    Masked pixels are filled smoothly from valid neighbours before the filter, so the region within the PSF's reach
    of a large hole holds less information than its variance says.

    ``variance`` is the input's through the squared filter (independent pixels, balance taken as given; exact but for
    the corner pixels). The noise that it describes is correlated, over about the PSF's
    width. It holds the noise only, not the bias of regularisation.

    SURE for the blurred image [1]_: with power P and transfer ``T = |H|^2 / (|H|^2 + balance L^(slope/2))`` in each
    mode, the risk is ``sum(P (1 - T)^2 + 2 v T)``, v the mean variance. P is measured after what is brighter than 10
    sigma has been cut to that: a stationary filter serves the whole image, and the power of a few stars would otherwise
    decide how much noise is let through on the sky and in galaxies. The balance is then lowered until the residual is
    noise nearly everywhere, so that no galaxy is left blurred. Where bright peaks matter most, give a smaller balance.

    References
    ----------
    .. [1] C. Stein, 1981, Annals of Statistics 9, 1135.
    .. [2] B. R. Hunt, 1973, IEEE Trans. Computers C-22, 805.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import Observation
    >>> psf = np.outer([1, 2, 1], [1, 2, 1])[None] / 16
    >>> star = np.pad(psf, ((0, 0), (15, 15), (15, 15)))
    >>> result = Wiener(balance=1e-3)(Observation(star, psf=psf), rng=np.random.default_rng(0))
    >>> bool(result.data.max() > 2 * star.max()), round(float(result.data.sum()), 4)
    (True, 1.0)
    """

    needs_psf = True

    def __init__(self, balance="auto", *, slope: float = 3.0, device: str = "cpu"):
        self.balance = positive_or_auto("balance", balance, example=0.01)
        self.slope = positive("slope", slope, example=3.0)
        if self.slope > 8:
            raise InputError(f"slope={slope!r} must be at most 8, e.g. 3.0")
        self.device = device
        # torch is loaded for nothing but a device that is not the CPU, until there is something to transform
        self._device = None if device == "cpu" else device_of(device)
        self._filters = Cache(64 * 2**20)

    @property
    def tile_size(self) -> int:
        """Outer edge in pixels of the tiles at which it is quickest."""
        return DEFAULT_TILE if self._device is None or self._device.type == "cpu" else _TILE_ON_GPU

    def __repr__(self):
        return f"Wiener(balance={self.balance!r}, slope={self.slope})"

    halo = -1

    def halo_for(self, observation: Observation) -> int:
        """Radius of the filters for this PSF; -1 for a balance of "auto", which looks at the whole image."""
        if self.balance == "auto":
            return -1
        psf = need_psf(observation, "wiener")
        balances = per_band("balance", self.balance, len(psf))
        return max(self._filter(k, b).radius for k, b in zip(psf, balances, strict=True))

    def for_image(self, observation: Observation) -> Wiener:
        """A `Wiener` with the balances that "auto" takes for this observation; its halo is finite."""
        if self.balance != "auto":
            return self
        psf = need_psf(observation, "wiener")
        balances = tuple(self._choose(observation, band, kernel) for band, kernel in enumerate(psf))
        chosen = Wiener(balances, slope=self.slope, device=self.device)
        chosen._filters = self._filters
        return chosen

    def __call__(self, observation: Observation, *, rng=None) -> Estimate:
        """Deconvolve the observation.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
            Data (band, y, x) with a PSF.
        rng : `numpy.random.Generator`, optional
            Not used.

        Returns
        -------
        `~astrogan.api.Estimate`
            ``info`` has ``balance`` or ``balance_<band>``; ``variance`` where the observation has one.

        Raises
        ------
        PSFError
            If the observation has no PSF.
        """
        psf = need_psf(observation, "wiener")
        balances = per_band("balance", self.for_image(observation).balance, len(psf))
        filters = [self._filter(kernel, balance) for kernel, balance in zip(psf, balances, strict=True)]
        data, variance = apply_filters(filters, observation, self._device)
        return Estimate(data, variance, info=band_info("balance", balances, observation.bands))

    def _filter(self, kernel, balance):
        key = (kernel.tobytes(), kernel.shape, balance)
        return self._filters.get(key, lambda: wiener_filter(kernel, balance, self.slope))

    def _choose(self, observation, band, kernel):
        valid = observation.valid[band]
        if not valid.any():
            return 1.0
        plane = fill(observation.data[band], valid)
        noise = float(variance_plane(observation, band)[valid].mean(dtype=np.float64))
        return field_balance(plane - level_of(plane, valid), kernel, noise, self.slope)


def apply_filters(filters, observation, device=None):
    """(data, variance or None) of an observation through one `FiniteFilter` a band, on a device of torch."""
    data = np.empty_like(observation.data)
    variance = None if observation.variance is None else np.empty_like(data)
    for band, band_filter in enumerate(filters):
        valid = observation.valid[band]
        plane = fill(observation.data[band], valid)
        band_filter(plane, level_of(plane, valid), out=data[band], device=device)
        if variance is not None:
            variance[band] = band_filter.variance(fill(observation.variance[band], valid), device)
    return data, variance


def wiener_filter(psf: np.ndarray, balance: float, slope: float = 4.0) -> FiniteFilter:
    """The Wiener-Hunt filter of one PSF as a finite kernel whose sum is one.

    Parameters
    ----------
    psf : `numpy.ndarray`
        (k, k), k odd.
    balance, slope : float
        As for `Wiener`.

    Returns
    -------
    FiniteFilter
        The kernel and the number of pixels that it reaches.
    """
    psf = np.asarray(psf, np.float64)
    psf = psf / psf.sum()
    n = fast_length(max(256, 4 * len(psf)))
    while True:
        kernel, response = _ideal_filter(psf, balance, slope, n)
        radius = _support(kernel, response)
        if radius is not None or n >= 1024:
            break
        n *= 2
    radius = min(radius or _MAX_RADIUS, _MAX_RADIUS)
    core = slice(n // 2 - radius, n // 2 + radius + 1)
    kernel = kernel[core, core]
    return FiniteFilter(kernel + (1 - kernel.sum()) / kernel.size)


def _ideal_filter(psf, balance, slope, n):
    """The filter and its response to a star, centred on a periodic grid of n x n pixels."""
    transfer = fft.rfft2(wrapped(psf, (n, n), np.float64))
    power = np.abs(transfer) ** 2
    denominator = power + balance * laplacian_symbol((n, n)) ** (slope / 2)
    # where the PSF passes nothing and the penalty is tiny, nothing is passed on
    inverse = np.divide(1, denominator, out=np.zeros_like(denominator), where=denominator > 0)
    return tuple(fft.fftshift(fft.irfft2(part * inverse, (n, n))) for part in (np.conj(transfer), power))


def _support(kernel, response):
    """Smallest radius outside which little is left, None where that is more than a quarter of the grid."""
    n = len(kernel)
    offset = np.abs(np.arange(n) - n // 2)
    ring = np.maximum.outer(offset, offset).ravel()
    weight = np.bincount(ring, np.abs(kernel).ravel())
    outside = weight.sum() - np.cumsum(weight)
    order = np.argsort(ring, kind="stable")
    starts = np.searchsorted(ring[order], np.arange(n // 2 + 1))
    largest = np.maximum.reduceat(np.abs(response).ravel()[order], starts)
    beyond = np.append(np.maximum.accumulate(largest[::-1])[::-1][1:], 0)
    good = (outside < 1e-4 * weight.sum()) & (beyond < 1e-5 * np.abs(response).max())
    radius = int(np.argmax(good))
    return radius if good.any() and radius <= n // 4 else None
