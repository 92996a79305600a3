"""Small arrays that are PSFs: centroid, width, centring, trimming, resampling, and analytic profiles on pixels."""

from __future__ import annotations

import numpy as np

from astrogan.exceptions import PSFError

FWHM_PER_SIGMA = 2.3548200450309493  # 2 sqrt(2 ln 2)

LARGEST = 4095
"""Pixels along an edge; what is larger is a mistake in a unit."""

SHIFT_TO_MENTION = 0.05
"""Pixels; what is centred better than this is centred without a word."""

NEGATIVE_TO_MENTION, NEGATIVE_TO_REFUSE = 0.05, 0.3
"""Negative over positive flux. Empirical PSFs have slightly negative wings; one that is a third negative is no PSF."""


# ---------------------------------------------------------------------------------------------- analytic profiles


def gaussian_psf(fwhm, size=None):
    """A circular Gaussian PSF, integrated over pixels.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum in pixels, of the profile before it is integrated over pixels.
    size : int, optional
        Odd edge length of the kernel. Default: 5 sigma to each side (all but 1e-6 of the flux).

    Returns
    -------
    `numpy.ndarray`
        float32, shape (size, size), sum 1, centred.

    Raises
    ------
    PSFError
        If ``fwhm`` is not a positive number, or ``size`` not odd.

    Examples
    --------
    >>> from astrogan.image.psf import gaussian_psf
    >>> gaussian_psf(3.0).shape
    (15, 15)
    """
    from scipy.special import ndtr

    sigma = _positive(fwhm, "fwhm") / FWHM_PER_SIGMA
    half = _half_size(size, max(1, int(np.ceil(5 * sigma))))
    # The upper tail is symmetric to the last bit, unlike differences of the distribution function near one.
    tail = ndtr(-(np.arange(half + 2) - 0.5) / sigma)
    side = tail[:-1] - tail[1:]
    line = np.concatenate([side[:0:-1], side])
    return _normalised(np.outer(line, line))


def moffat_psf(fwhm, beta=3.0, size=None):
    r"""A circular Moffat PSF, :math:`I \propto (1 + (r/a)^2)^{-\beta}`, integrated over pixels.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum in pixels, of the profile before it is integrated over pixels.
    beta : float, optional
        Slope of the wings, > 1 (Moffat 1969, A&A 3, 455); seeing-limited images have 2.5 to 4.5.
    size : int, optional
        Odd edge length of the kernel. Default: what holds 99.9 % of the flux, at most 8 FWHM to each side.

    Returns
    -------
    `numpy.ndarray`
        float32, shape (size, size), sum 1, centred.

    Raises
    ------
    PSFError
        If ``fwhm`` or ``beta`` is out of range, or ``size`` not odd.

    Examples
    --------
    >>> from astrogan.image.psf import moffat_psf
    >>> bool(abs(moffat_psf(3.0, beta=2.5).sum() - 1) < 1e-6)
    True
    """
    fwhm = _positive(fwhm, "fwhm")
    if not np.isfinite(beta) or beta <= 1:
        raise PSFError(f"beta={beta!r} must be > 1 (the flux of the profile is infinite otherwise), e.g. 3.0")
    core = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    radius = core * np.sqrt(1e-3 ** (1 / (1 - beta)) - 1)
    half = _half_size(size, max(1, int(np.ceil(min(radius, 8 * fwhm)))))
    return render_profile(lambda x, y: (1 + (x**2 + y**2) / core**2) ** -beta, half, fwhm, symmetric=True)


def render_profile(profile, half, fwhm, symmetric=False):
    """Mean of ``profile(x, y)`` over each pixel by Gauss-Legendre quadrature, normalised to sum 1.

    ``symmetric`` profiles (even in x and y) are computed on a quadrant, which makes the kernel symmetric to the bit.
    """
    nodes, weights = np.polynomial.legendre.leggauss(int(np.clip(np.ceil(16 / fwhm), 5, 24)))
    pixels = np.arange(0 if symmetric else -half, half + 1)
    x = (pixels[:, None] + nodes / 2).ravel()
    weights = weights / 2
    values = np.empty((len(pixels), len(pixels)))
    for i, row in enumerate(pixels):  # a row at a time: the nodes of all pixels of a wide kernel would not fit
        y = row + nodes / 2
        samples = np.asarray(profile(x[None, :], y[:, None]), dtype=float)
        samples = samples.reshape(len(nodes), len(pixels), len(nodes))
        values[i] = np.einsum("a,apb,b->p", weights, samples, weights)
    if symmetric:
        values = np.concatenate([values[:0:-1], values])
        values = np.concatenate([values[:, :0:-1], values], axis=1)
    return _normalised(values)


def _positive(value, name):
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number) or number <= 0:
        raise PSFError(f"{name}={value!r} must be a positive number of pixels, e.g. 3.0")
    if number > LARGEST / 4:
        raise PSFError(f"{name}={value!r} pixels is too large for a kernel; check its unit and the pixel scale")
    return number


def _half_size(size, default):
    if size is None:
        return default
    if int(size) != size or size < 1 or size % 2 == 0:
        raise PSFError(f"size={size!r} must be an odd number of pixels, e.g. {2 * default + 1}")
    return int(size) // 2


def _normalised(kernel):
    return (kernel / kernel.sum()).astype(np.float32)


# ---------------------------------------------------------------------------------------------- measurements


def centroid(kernel):
    """Windowed centroid (x, y) of a kernel, as indices of the array.

    A Gaussian window of the kernel's own width is moved until the weighted centroid rests in its middle (as
    SExtractor's XWIN; Bertin & Arnouts). First moments without a window would follow the noise in the wings.
    """
    kernel = np.asarray(kernel, dtype=np.float64)
    y, x = _brightest(kernel)
    sigma = max(_half_maximum_width(kernel) / FWHM_PER_SIGMA, 1.5)
    reach = int(np.ceil(6 * sigma))
    ys = np.arange(max(0, int(y) - reach), min(kernel.shape[0], int(y) + reach + 1))
    xs = np.arange(max(0, int(x) - reach), min(kernel.shape[1], int(x) + reach + 1))
    core = kernel[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    for _ in range(60):
        wy = np.exp(-0.5 * ((ys - y) / sigma) ** 2)
        wx = np.exp(-0.5 * ((xs - x) / sigma) ** 2)
        total = wy @ core @ wx
        if not total > 0:
            break
        # 1.5 lies between the exact steps for a point (1) and for a Gaussian as wide as the window (2).
        step_y = 1.5 * ((wy * (ys - y)) @ core @ wx) / total
        step_x = 1.5 * (wy @ core @ (wx * (xs - x))) / total
        y = np.clip(y + step_y, ys[0], ys[-1])
        x = np.clip(x + step_x, xs[0], xs[-1])
        if abs(step_x) + abs(step_y) < 1e-6:
            break
    return float(x), float(y)


def _brightest(kernel):
    """(y, x) of the maximum of the kernel smoothed over 3 x 3 pixels, so that one noisy pixel does not lead."""
    padded = np.pad(kernel, 1)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    smooth = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + kernel
    return np.array(np.unravel_index(np.argmax(smooth), kernel.shape), dtype=float)


def _half_maximum_width(kernel):
    """Diameter of a disc with the area above half maximum: a crude FWHM."""
    return 2 * np.sqrt(np.count_nonzero(kernel >= 0.5 * kernel.max()) / np.pi)


def psf_fwhm(kernel):
    """Full width at half maximum of a kernel, by its azimuthally averaged profile.

    The profile is read off a cubic spline through the pixels on circles around the centre pixel. It is that of the
    kernel as it stands, pixel integration included: `gaussian_psf` of 3 pixels has 3.09.

    Parameters
    ----------
    kernel : array_like
        Centred kernel of odd shape (k, k), any normalisation.

    Returns
    -------
    float
        Pixels. A kernel that never falls to half its centre within the array gets the array's width.

    Raises
    ------
    PSFError
        If the kernel is not 2-D, or not positive at its centre.

    Examples
    --------
    >>> from astrogan.image.psf import gaussian_psf, psf_fwhm
    >>> round(psf_fwhm(gaussian_psf(6.0)), 2)
    6.04
    """
    from scipy.ndimage import map_coordinates, spline_filter

    kernel = np.asarray(kernel, dtype=np.float64)
    if kernel.ndim != 2:
        raise PSFError(f"kernel has shape {kernel.shape}; psf_fwhm takes one band, (k, k), at a time")
    cy, cx = (kernel.shape[0] - 1) / 2, (kernel.shape[1] - 1) / 2
    limit = min(cx, cy) + 1.0
    # The half maximum lies in the core; a wide kernel's wings need no spline.
    reach = int(min(max(4 * _half_maximum_width(kernel), 8), limit + 1))
    y0, x0 = max(0, int(cy) - reach), max(0, int(cx) - reach)
    core = kernel[y0 : int(np.ceil(cy)) + reach + 1, x0 : int(np.ceil(cx)) + reach + 1]
    coefficients = spline_filter(np.pad(core, 6), order=3)
    radius = np.arange(0, limit, 0.02)
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    points = np.array([np.outer(radius, np.sin(angle)) + cy - y0 + 6, np.outer(radius, np.cos(angle)) + cx - x0 + 6])
    profile = map_coordinates(coefficients, points, order=3, prefilter=False).mean(axis=1)
    peak = profile[0]
    if not peak > 0:
        raise PSFError(f"kernel is {peak:.3g} at its centre; a PSF is positive there (is it centred?)")
    below = np.flatnonzero(profile < 0.5 * peak)
    if below.size == 0:
        return float(min(kernel.shape))
    i = below[0]
    fraction = (profile[i - 1] - 0.5 * peak) / (profile[i - 1] - profile[i])
    return float(2 * (radius[i - 1] + 0.02 * fraction))


# ---------------------------------------------------------------------------------------------- cleaning


def clean_kernel(array, *, recentre=True, name="psf", remarks=None):
    """One PSF image as a kernel: checked, odd, square, centred, sum one, empty borders cut off.

    Parameters
    ----------
    array : array_like
        Shape (ny, nx).
    recentre : bool
        Move the windowed centroid onto the middle pixel. Otherwise only even axes are moved, by half a pixel, so
        that their geometric centre falls on a pixel.
    name : str
        What messages call it.
    remarks : list, optional
        Gets (kind, text) of whatever the user should hear about.

    Returns
    -------
    `numpy.ndarray`
        float64, (k, k), k odd.
    """
    remarks = [] if remarks is None else remarks
    kernel = checked(array, name, remarks)
    ny, nx = kernel.shape
    middle = np.array([(nx - 1) / 2, (ny - 1) / 2])
    target = np.array(centroid(kernel)) if recentre else middle
    kernel = _with_centre_at(kernel, *target)
    if recentre:
        kernel = _polish_centre(kernel)
    moved = np.hypot(*(target - middle))
    even = ny % 2 == 0 or nx % 2 == 0
    if moved > SHIFT_TO_MENTION or even:
        at = f"its centre at (x, y) = ({target[0]:.2f}, {target[1]:.2f})"
        wanted = f"({middle[0]:g}, {middle[1]:g})"
        size = f"{len(kernel)} x {len(kernel)}"
        if even:
            text = f"is an even {ny} x {nx} array, whose middle, {wanted}, is no pixel: {at}"
        else:
            text = f"is a {ny} x {nx} array with {at}, not at {wanted}; recentre=False keeps it as it is: it"
        remarks.append(("moved", f"{name} {text} was moved onto the middle pixel of a {size} one"))
    return without_zero_borders(kernel / kernel.sum(), tolerance=1e-9)


def checked(array, name="psf", remarks=None):
    """``array`` as float64 (ny, nx), or a `PSFError` that says why it is no PSF."""
    if np.iscomplexobj(array):
        raise PSFError(f"{name} has complex values; a PSF is real: give its absolute value or its real part")
    kernel = np.array(array, dtype=np.float64)
    if kernel.ndim != 2 or kernel.size == 0:
        raise PSFError(f"{name} has shape {kernel.shape}; a kernel is a 2-D array with an odd number of pixels a side")
    if not np.isfinite(kernel).all():
        raise PSFError(f"{name} has {np.count_nonzero(~np.isfinite(kernel))} NaN or infinite pixels; set them to 0")
    peak = np.abs(kernel).max()
    if peak > 0:
        kernel /= peak  # so that sums and squares neither overflow nor underflow
    total = kernel.sum()
    negative = -kernel[kernel < 0].sum()
    if not total > 0 or negative > NEGATIVE_TO_REFUSE * (total + negative):
        raise PSFError(
            f"{name} sums to {total * peak:.4g}, of which {-negative * peak:.4g} is negative; a PSF is positive "
            "but for slight wings: subtract its background, or check its sign"
        )
    if remarks is not None and negative > NEGATIVE_TO_MENTION * (total + negative):
        share = negative / (total + negative)
        remarks.append(("negative", f"{name} is {share:.0%} negative flux; look at its background subtraction"))
    return kernel


def _with_centre_at(kernel, x, y):
    """An odd square kernel with the point (x, y) of the old one on its middle pixel and all pixels kept."""
    ny, nx = kernel.shape
    px, py = round(x), round(y)
    half = int(max(px, nx - 1 - px, py, ny - 1 - py))
    out = np.zeros((2 * half + 1, 2 * half + 1))
    out[half - py : half - py + ny, half - px : half - px + nx] = kernel
    return shifted(out, px - x, py - y)


def _polish_centre(kernel):
    """Remove what is left of an offset: interpolation moves the centroid of a coarse kernel not quite as told."""
    middle = (len(kernel) - 1) / 2
    dx = dy = 0.0
    moved = kernel
    for _ in range(4):
        x, y = centroid(moved)
        if max(abs(x - middle), abs(y - middle)) < 1e-3:
            break
        dx, dy = dx + middle - x, dy + middle - y
        moved = shifted(kernel, dx, dy)
    return moved


def shifted(kernel, dx, dy):
    """The odd kernel moved by a part of a pixel in Fourier space, its sum kept; what leaves the array is lost.

    Against the truth (half a pixel, Moffat with beta = 2.5 and FWHM 2.5 / 3.5 / 5 pixels) this is off by 1.5 / 0.14 /
    0.004 % of the peak; a quintic spline by 2.4 / 0.40 / 0.03 %, a cubic one by 4.1 / 1.1 / 0.22 %.
    """
    if abs(dx) < 1e-6 and abs(dy) < 1e-6:
        return kernel
    from scipy import fft

    # Zeros keep the wings from coming in again on the other side; an odd length has no Nyquist frequency, whose phase
    # is not defined.
    n = len(kernel) + 2 * 8
    phase_y = np.exp(-2j * np.pi * fft.fftfreq(n) * dy)
    phase_x = np.exp(-2j * np.pi * fft.rfftfreq(n) * dx)
    moved = fft.irfft2(fft.rfft2(kernel, (n, n)) * phase_y[:, None] * phase_x, (n, n))
    out = moved[: len(kernel), : len(kernel)]
    return out * (kernel.sum() / out.sum())


def without_zero_borders(kernel, tolerance=1e-6):
    """The smallest centred square that leaves out no more than ``tolerance`` of the absolute flux."""
    return trim_psf(np.abs(kernel), 1 - tolerance, of=kernel)


def trim_psf(kernel, flux=0.999, *, of=None):
    """Cut a kernel down to the smallest centred square with a fraction of its flux.

    Parameters
    ----------
    kernel : array_like
        Centred kernel, odd shape (k, k).
    flux : float, optional
        Fraction to keep, in (0, 1]. Where wings are negative, the largest square at which the flux differs from the
        total by that much decides.
    of : array_like, optional
        Another kernel of the same shape to be cut instead.

    Returns
    -------
    `numpy.ndarray`
        Normalised to sum 1, same kind of floats.

    Raises
    ------
    PSFError
        If ``flux`` is out of range or the kernel is not odd.

    Examples
    --------
    >>> from astrogan.image.psf import moffat_psf, trim_psf
    >>> trim_psf(moffat_psf(3.0), flux=0.98).shape
    (15, 15)
    """
    kernel = np.asarray(kernel)
    if not 0 < flux <= 1:
        raise PSFError(f"flux={flux!r} must be a fraction in (0, 1], e.g. 0.999")
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or len(kernel) % 2 == 0:
        raise PSFError(f"kernel has shape {kernel.shape}; it must be (k, k) with k odd")
    half = len(kernel) // 2
    inside = enclosed_flux(kernel)
    outside = np.abs(1 - inside / inside[-1])
    keep = np.flatnonzero(outside > 1 - flux + 1e-12)
    new = int(keep[-1]) + 1 if keep.size else 0
    cut = slice(half - new, half + new + 1)
    out = np.asarray(kernel if of is None else of)[cut, cut]
    return (out / out.sum(dtype=np.float64)).astype(out.dtype)


def enclosed_flux(kernel):
    """Flux inside the centred squares of edge 1, 3, 5, ..."""
    half = len(kernel) // 2
    index = np.abs(np.arange(-half, half + 1))
    ring = np.maximum(index[:, None], index[None, :])
    return np.cumsum(np.bincount(ring.ravel(), weights=np.asarray(kernel, dtype=np.float64).ravel()))


def padded_to(kernel, size):
    """A centred kernel with zeros around it, or cut, to (size, size)."""
    half, new = kernel.shape[-1] // 2, size // 2
    if new >= half:
        width = [(0, 0)] * (kernel.ndim - 2) + [(new - half, new - half)] * 2
        return np.pad(kernel, width)
    cut = slice(half - new, half + new + 1)
    return kernel[..., cut, cut]


# ---------------------------------------------------------------------------------------------- another pixel scale


def resample_psf(kernel, scale_in, scale_out):
    """A PSF on pixels of another size, its flux kept.

    A cubic spline through the kernel is integrated over the new pixels. The kernel holds its own pixel's response
    already; the box that is integrated over has the width sqrt(scale_out^2 - scale_in^2), which adds the variance
    that is missing, so that equal scales change nothing. Towards smaller pixels the spline is read as it is: the
    broader pixel's response stays in the PSF.

    Parameters
    ----------
    kernel : array_like
        Centred kernel, odd shape (k, k).
    scale_in, scale_out : float or `~astropy.units.Quantity`
        Size of the old and of the new pixels, in one unit.

    Returns
    -------
    `numpy.ndarray`
        float32, (m, m) with m odd, centred, sum 1.

    Raises
    ------
    PSFError
        If the kernel is no PSF or a scale is not positive.

    Examples
    --------
    >>> from astrogan.image.psf import gaussian_psf, psf_fwhm, resample_psf
    >>> coarse = resample_psf(gaussian_psf(12.0), 0.1, 0.4)
    >>> bool(abs(psf_fwhm(coarse) / psf_fwhm(gaussian_psf(3.0)) - 1) < 0.005)
    True
    """
    from scipy.interpolate import make_interp_spline

    ratio = _ratio(scale_in, scale_out)
    kernel = checked(kernel)
    if kernel.shape[0] != kernel.shape[1] or len(kernel) % 2 == 0:
        raise PSFError(f"kernel has shape {kernel.shape}; it must be (k, k) with k odd (as_psf makes it so)")
    padded = np.pad(kernel, 4)
    half_in = len(padded) // 2
    spline = make_interp_spline(np.arange(-half_in, half_in + 1), np.eye(len(padded)), k=3)
    box = np.sqrt(max(ratio**2 - 1, 0.0))
    half_out = int(np.ceil(half_in / ratio))
    centres = ratio * np.arange(-half_out, half_out + 1)
    if box < 1e-3:
        inside = np.abs(centres) <= half_in
        matrix = np.where(inside[:, None], spline(np.clip(centres, -half_in, half_in)), 0.0)
    else:
        integral = spline.antiderivative()
        low, high = np.clip([centres - box / 2, centres + box / 2], -half_in, half_in)
        matrix = integral(high) - integral(low)
    out = matrix @ padded @ matrix.T
    return without_zero_borders(out / out.sum()).astype(np.float32)


def _ratio(scale_in, scale_out):
    ratio = np.nan
    if np.isfinite(scale_in) and scale_in > 0:
        ratio = scale_out / scale_in
    if hasattr(ratio, "to_value"):
        ratio = ratio.to_value("")
    if not np.isfinite(ratio) or ratio <= 0:
        raise PSFError(f"scale_in={scale_in!r}, scale_out={scale_out!r} must be positive pixel sizes")
    return float(ratio)
