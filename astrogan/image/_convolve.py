"""Convolution with a PSF, and the kernel that takes one PSF to another."""

from __future__ import annotations

import numpy as np

from ..exceptions import InputError, PSFError
from ._kernels import checked, padded_to, psf_fwhm, without_zero_borders

DIRECT_SIZE = 5
"""Kernels up to this edge are summed directly: quicker than transforming the image twice."""


def convolve(data, kernel):
    """Convolve an image with a kernel; outside its border the image continues as its mirror image.

    The mirror has the border between pixels (d c b a | a b c d | d c b a), so that a symmetric kernel conserves the
    total flux and a constant image stays what it is.

    Parameters
    ----------
    data : array_like
        Shape (y, x) or (band, y, x), finite; fill masked pixels first (`astrogan.image.mask.fill_invalid`).
    kernel : array_like
        Shape (k, k), or (band, k, k) for data of that many bands, k odd. It is used as given, without
        normalisation: the square of a PSF is as welcome, for variances.

    Returns
    -------
    `numpy.ndarray`
        Same shape; float32 for float32 data, else float64.

    Raises
    ------
    InputError
        If the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.image.psf import convolve, gaussian_psf
    >>> image = np.zeros((32, 32), np.float32)
    >>> image[16, 16] = 100.0
    >>> round(float(convolve(image, gaussian_psf(3.0)).sum()), 3)
    100.0
    """
    data, kernel = np.asarray(data), np.asarray(kernel)
    if data.ndim not in (2, 3):
        raise InputError(f"data has shape {data.shape}; it must be (y, x) or (band, y, x)")
    if kernel.ndim not in (2, 3) or kernel.shape[-1] % 2 == 0 or kernel.shape[-2] % 2 == 0:
        raise InputError(f"kernel has shape {kernel.shape}; it must be (k, k) or (band, k, k) with k odd")
    if kernel.ndim == 3 and len(kernel) == 1:
        kernel = kernel[0]
    if kernel.ndim == 3 and (data.ndim == 2 or len(kernel) != len(data)):
        raise InputError(f"kernel has shape {kernel.shape}, data {data.shape}; the number of bands must agree")
    dtype = np.float32 if data.dtype.newbyteorder("=") == np.float32 else np.float64
    data = data.astype(dtype, copy=False)
    if data.ndim == 2:
        return _convolve_band(data, kernel)
    out = np.empty(data.shape, dtype)
    for i, band in enumerate(data):
        out[i] = _convolve_band(band, kernel if kernel.ndim == 2 else kernel[i])
    return out


def _convolve_band(image, kernel):
    if max(kernel.shape) <= DIRECT_SIZE:
        from scipy.ndimage import convolve as direct

        return direct(image, kernel.astype(np.float64), mode="reflect")
    return _convolve_fft(image, kernel)


def _convolve_fft(image, kernel):
    """Through real transforms in the image's own precision."""
    from scipy import fft

    ky, kx = kernel.shape[0] // 2, kernel.shape[1] // 2
    # Rounding errors of a transform scale with the largest value: take the pedestal off first.
    level = float(np.median(image))
    padded = np.pad(image - image.dtype.type(level), ((ky, ky), (kx, kx)), mode="symmetric")
    shape = [fft.next_fast_len(n, real=True) for n in padded.shape]
    spectrum = fft.rfft2(padded, shape, overwrite_x=True)
    spectrum *= fft.rfft2(kernel.astype(image.dtype), shape)
    out = fft.irfft2(spectrum, shape, overwrite_x=True)
    ny, nx = image.shape
    out = out[2 * ky : 2 * ky + ny, 2 * kx : 2 * kx + nx]
    return out + image.dtype.type(level * kernel.sum(dtype=np.float64))


def matching_kernel(source, target, *, regularisation=1e-6, tolerance=0.02):
    """The kernel K with which the PSF ``source`` becomes the PSF ``target``: source (*) K ~ target.

    In Fourier space :math:`K = T S^* / (|S|^2 + \\epsilon)`, with epsilon relative to the central frequency.

    Parameters
    ----------
    source, target : array_like
        Centred PSFs of odd shapes (k, k), on pixels of one size.
    regularisation : float, optional
        epsilon: how small a squared response still counts as signal.
    tolerance : float, optional
        Largest residual of the match, in units of the target's peak, that is accepted.

    Returns
    -------
    `numpy.ndarray`
        float32, (k, k) with k odd, sum 1.

    Raises
    ------
    PSFError
        If the target is sharper than the source (that would be a deconvolution), or the match is worse than
        ``tolerance``.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.image.psf import gaussian_psf, matching_kernel, psf_fwhm
    >>> kernel = matching_kernel(gaussian_psf(3.0), gaussian_psf(5.0))
    >>> round(psf_fwhm(kernel), 2)
    4.0
    """
    from scipy import fft

    source, target = checked(source, "source"), checked(target, "target")
    for name, psf in (("source", source), ("target", target)):
        if psf.shape[0] != psf.shape[1] or len(psf) % 2 == 0:
            raise PSFError(f"{name} has shape {psf.shape}; it must be (k, k) with k odd (as_psf makes it so)")
    width_source, width_target = psf_fwhm(source), psf_fwhm(target)
    if width_target < 0.99 * width_source:
        raise _sharper(width_source, width_target)
    size = max(len(source), len(target))
    n = fft.next_fast_len(2 * size, real=True)
    source, target = padded_to(source / source.sum(), size), padded_to(target / target.sum(), size)
    S, T = (fft.rfft2(np.roll(padded_to(p, n | 1)[:n, :n], (-(n // 2),) * 2, (0, 1))) for p in (source, target))
    K = T * S.conj() / (np.abs(S) ** 2 + regularisation)
    K /= K[0, 0].real
    kernel = np.roll(fft.irfft2(K, (n, n)), (size // 2,) * 2, (0, 1))[:size, :size]
    kernel = kernel / kernel.sum()
    residual = np.abs(fft.irfft2(K * S - T, (n, n))).max() / target.max()
    if residual > tolerance:
        raise PSFError(
            f"source (FWHM {width_source:.2f} px) cannot be brought to target (FWHM {width_target:.2f} px): the match "
            f"is off by {residual:.1%} of the peak; give a broader target"
        )
    return without_zero_borders(kernel).astype(np.float32)


def _sharper(width_source, width_target):
    return PSFError(
        f"target has a FWHM of {width_target:.2f} px, source {width_source:.2f} px: no convolution sharpens an image; "
        "give a broader target, or restore the image first (Restorer)"
    )
