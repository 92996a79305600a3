"""Convolution with a PSF, and the kernel that takes one PSF to another."""

from __future__ import annotations

import numpy as np

from astrogan.exceptions import InputError, PSFError
from astrogan.image._kernels import FWHM_PER_SIGMA, checked, padded_to, psf_fwhm, without_zero_borders

DIRECT_SIZE = 5
"""Kernels up to this edge are summed directly: quicker than transforming the image twice."""

BLOCK = 384
"""Edge of the blocks that large images are transformed in."""


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
    """Through real transforms in the image's own precision, block by block (overlap-save) where the image is large.

    Blocks stay in a core's cache: at 3000 x 3000 with 41 x 41 this takes 0.4 to 0.6 of the time of one transform.
    """
    from scipy import fft

    ky, kx = kernel.shape[0] // 2, kernel.shape[1] // 2
    # Rounding errors of a transform scale with the largest value: take the pedestal off first.
    level = image.mean(dtype=np.float64)
    padded = np.pad(image - image.dtype.type(level), ((ky, ky), (kx, kx)), mode="symmetric")
    block = [_block_length(n, k) for n, k in zip(padded.shape, kernel.shape, strict=True)]
    response = fft.rfft2(kernel.astype(image.dtype), block)
    out = np.empty_like(image)
    step_y, step_x = block[0] - 2 * ky, block[1] - 2 * kx
    for y in range(0, image.shape[0], step_y):
        for x in range(0, image.shape[1], step_x):
            spectrum = fft.rfft2(padded[y : y + block[0], x : x + block[1]], block)
            spectrum *= response
            part = fft.irfft2(spectrum, block, overwrite_x=True)[2 * ky :, 2 * kx :]
            target = out[y : y + step_y, x : x + step_x]
            target[...] = part[: target.shape[0], : target.shape[1]]
    out += image.dtype.type(level * kernel.sum(dtype=np.float64))
    return out


def _block_length(n, kernel):
    """Length of the transforms along an axis of n pixels, margins included."""
    from scipy.fft import next_fast_len

    block = max(BLOCK, 4 * kernel)
    return next_fast_len(n if n < 2 * block else block, real=True)


def matching_kernel(source, target, *, regularisation=None, tolerance=0.02):
    r"""The kernel K with which the PSF ``source`` becomes the PSF ``target``: source (*) K ~ target.

    In Fourier space

    .. math:: K = \frac{T S^* + \epsilon K_0}{|S|^2 + \epsilon}

    where :math:`K_0` is the Gaussian that takes the FWHM of the one to that of the other. A Wiener filter (as in
    `photutils.psf_matching.make_wiener_kernel`) has zero in its place: where the source has no signal left, its
    kernel falls to zero at once and rings for it, and equal PSFs do not give the identity.

    Parameters
    ----------
    source, target : array_like
        Centred PSFs of odd shapes (k, k), on pixels of one size.
    regularisation : float, optional
        :math:`\epsilon`: below which squared response of the source the Gaussian takes over. By default it goes down
        from 1e-4 by tens until the match is good to 1e-3 of the peak, or until the kernel starts to ring (noisy
        PSFs: its negative flux grows by more than 0.1).
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
    >>> round(psf_fwhm(kernel), 1)
    4.0
    """
    source, target = _unit_kernel(source, "source"), _unit_kernel(target, "target")
    if regularisation is not None and not (np.isfinite(regularisation) and regularisation > 0):
        raise InputError(f"regularisation={regularisation!r} must be a small positive number, e.g. 1e-5")
    widths = psf_fwhm(source), psf_fwhm(target)
    if widths[1] < 0.99 * widths[0]:
        raise _sharper(*widths, "no convolution sharpens an image")
    size = max(len(source), len(target))
    S, T = (np.fft.rfft2(np.fft.ifftshift(padded_to(psf, size))) for psf in (source, target))
    K0 = _gaussian_response(size, max(widths[1] ** 2 - widths[0] ** 2, 0.0))
    kernel = residual = None
    for epsilon in (1e-4, 1e-5, 1e-6, 1e-7) if regularisation is None else (regularisation,):
        K = (T * S.conj() + epsilon * K0) / (np.abs(S) ** 2 + epsilon)
        new = np.fft.fftshift(np.fft.irfft2(K, (size, size)))
        if kernel is not None and _negative(new) > _negative(kernel) + 0.1:
            break
        kernel = new / new.sum()
        residual = np.abs(np.fft.irfft2(K * S - T, (size, size))).max() / target.max()
        if residual < 1e-3:
            break
    if residual > tolerance:
        raise _sharper(*widths, f"the match is off by {residual:.1%} of the peak (tolerance={tolerance:g})")
    gain = np.sqrt((kernel**2).sum())
    if gain > MAX_NOISE_GAIN:
        raise _sharper(*widths, f"the kernel would multiply white noise by {gain:.1f}, as a deconvolution does")
    return without_zero_borders(kernel).astype(np.float32)


MAX_NOISE_GAIN = 1.1
"""Of a matching kernel. The identity has 1, what broadens has less."""


def _negative(kernel):
    return -kernel[kernel < 0].sum()


def _unit_kernel(psf, name):
    psf = checked(psf, name)
    if psf.shape[0] != psf.shape[1] or len(psf) % 2 == 0:
        raise PSFError(f"{name} has shape {psf.shape}; it must be (k, k) with k odd (as_psf makes it so)")
    return psf / psf.sum()


def _gaussian_response(size, fwhm2):
    """Fourier transform of a Gaussian whose squared FWHM is given, on the half plane of a real transform."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    return np.exp(-2 * np.pi**2 * (fwhm2 / FWHM_PER_SIGMA**2) * (fy**2 + fx**2))


def _sharper(source, target, why):
    return PSFError(
        f"source (FWHM {source:.2f} px) cannot be brought to target (FWHM {target:.2f} px): {why}; give a broader "
        "target, or restore the image first (Restorer)"
    )
