"""A bank of Wiener filters, as differentiable finite convolutions: the classic estimates that a network starts from."""

from __future__ import annotations

import torch
from torch.nn import functional

from astrogan.nn._arguments import check_positive, check_whole

__all__ = ["MOST_RADIUS", "apply_bank", "wiener_bank"]

_GRID = 128
_TAPER = 6

MOST_RADIUS = _GRID // 2 - 1
"""Pixels that a filter can reach at most, on the grid that it is computed on."""


def wiener_bank(psf, balances, radius=24):
    """Wiener-Hunt filters of one PSF for several strengths of regularisation, each of sum one.

    In Fourier space a filter is ``conj(H) / (|H|^2 + balance L^2)``, L the Laplacian's transfer function (Hunt 1973):
    small balances deconvolve, large ones smooth, and all keep the sky's level and the flux.

    Parameters
    ----------
    psf : `torch.Tensor`
        (k, k), k odd and at most 127, of sum one.
    balances : sequence of float
        Positive.
    radius : int
        Pixels that a filter reaches, at most 63; over the last six it fades to nothing.

    Returns
    -------
    `torch.Tensor`
        float32, (balance, 2 radius + 1, 2 radius + 1).

    Raises
    ------
    InputError
        If a balance is not positive, or the radius is not from 0 to 63.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.filters import wiener_bank
    >>> bank = wiener_bank(torch.full((3, 3), 1 / 9), (0.1, 10.0), radius=8)
    >>> bank.shape, round(float(bank[0].sum()), 5)
    (torch.Size([2, 17, 17]), 1.0)
    """
    check_positive("balances", list(balances))
    check_whole("radius", radius, 0, MOST_RADIUS)
    psf = torch.as_tensor(psf, dtype=torch.float64)
    half = psf.shape[-1] // 2
    if half > MOST_RADIUS:  # only the far wings of a PSF are that wide
        cut = half - MOST_RADIUS
        psf = psf[cut:-cut, cut:-cut]
        half = psf.shape[-1] // 2
    grid = torch.zeros(_GRID, _GRID, dtype=torch.float64)
    grid[: psf.shape[0], : psf.shape[1]] = psf / psf.sum()
    transfer = torch.fft.fft2(torch.roll(grid, (-half, -half), (0, 1)))
    wave = 2 - 2 * torch.cos(2 * torch.pi * torch.fft.fftfreq(_GRID, dtype=torch.float64))
    laplacian = wave[:, None] + wave[None, :]
    taper = ((radius + 1 - torch.arange(-radius, radius + 1, dtype=torch.float64).abs()) / _TAPER).clamp(0, 1)
    core = slice(_GRID // 2 - radius, _GRID // 2 + radius + 1)
    filters = []
    for balance in balances:
        response = transfer.conj() / (transfer.abs() ** 2 + balance * laplacian**2 + 1e-12)
        kernel = torch.fft.fftshift(torch.fft.ifft2(response).real)[core, core] * taper[:, None] * taper
        filters.append(kernel / kernel.sum())
    return torch.stack(filters).float()


def apply_bank(images, banks):
    """Convolve images with a bank of filters; edges reflect.

    Parameters
    ----------
    images : `torch.Tensor`
        (n, band, y, x).
    banks : `torch.Tensor`
        (n, band, filter, k, k), k odd; n and band may be one.

    Returns
    -------
    `torch.Tensor`
        (n, band, filter, y, x).
    """
    radius = banks.shape[-1] // 2
    height, width = images.shape[-2:]
    padded = _reflected(images, radius)
    size = [_fast_length(length) for length in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(padded, s=size)[:, :, None] * torch.fft.rfft2(banks, s=size)
    full = torch.fft.irfft2(spectrum, s=size)
    return full[..., 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]


def _reflected(images, radius):
    """Padded by reflection, in steps where an image is smaller than the radius."""
    while radius > 0:
        step = min(radius, min(images.shape[-2:]) - 1)
        if step < 1:
            return functional.pad(images, [radius] * 4, mode="replicate")
        images = functional.pad(images, [step] * 4, mode="reflect")
        radius -= step
    return images


def _fast_length(n):
    """The next length whose only prime factors are 2, 3 and 5, and even."""
    n += n % 2
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 2
