"""A PSF from the image's own stars.

Three steps: find what is bright and point-like (`_candidates`), keep what shares one size and shape (`_locus`), and
average it on one sub-pixel position (`_stack`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import InputError, PSFError
from astrogan.image._kernels import FWHM_PER_SIGMA, clean_kernel
from astrogan.image._psf_model import PSFModel
from astrogan.image._quiet import quiet
from astrogan.image.mask import fill_invalid, grow_mask
from astrogan.image.uncertainty import background_rms, location_and_scale

MIN_STARS = 3
MAX_CANDIDATES = 1500
COARSE = 2.6
"""FWHM in pixels below which shifting a star by half a pixel broadens it visibly (by 2 % at 2.3, 4 % at 2)."""
SIGMA_RANGE = (0.55, 5.0)
"""Gaussian sigma of a star in units of the detection scale; below are cosmic rays and hot pixels."""


def estimate_psf(data, *, valid=None, variance=None, size=None, max_stars=100):
    """Measure the PSF on the stars of an image.

    Peaks of the smoothed image (`photutils.detection.find_peaks`) get Gaussian-weighted moments. Stars are the mode
    of smallest size among them: isolated, unsaturated, of high signal-to-noise ratio, of one size, ellipticity and
    profile. They are moved onto one position in Fourier space, scaled to one flux and averaged with clipping. In the
    wings, where a pixel's signal is lost in noise, the azimuthal average takes over.

    Where the PSF varies over the field this is its mean over the stars. A field without stars but with many small
    round galaxies can deceive: look at ``fwhm``.

    Parameters
    ----------
    data : array_like
        Image of one band, shape (y, x), any unit and background.
    valid : array_like of bool, optional
        False where a pixel is bad, same shape. Saturated stars are recognised by their shape, more safely so if they
        are marked here.
    variance : array_like, optional
        Variance of ``data``; measured on the background if not given.
    size : int, optional
        Odd edge length of the kernel. Default: 25, or more where that is less than 6 FWHM.
    max_stars : int, optional
        The brightest so many are used.

    Returns
    -------
    PSFModel
        One band; ``n_stars`` says on how many stars it rests.

    Raises
    ------
    PSFError
        If fewer than three usable stars are found.
    InputError
        If shapes do not agree.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.image.psf import convolve, estimate_psf, moffat_psf
    >>> rng = np.random.default_rng(3)
    >>> sky = np.zeros((256, 256))
    >>> sky[tuple(rng.integers(20, 236, (2, 15)))] = rng.uniform(2e3, 2e4, 15)
    >>> psf = estimate_psf(convolve(sky, moffat_psf(3.5)) + rng.normal(0, 1, sky.shape))
    >>> psf.n_stars >= 5, round(float(psf.fwhm[0]), 1)
    (True, 3.6)
    """
    image, valid, noise = _prepared(data, valid, variance)
    if size is not None and (int(size) != size or size < 5 or size % 2 == 0):
        raise InputError(f"size={size!r} must be an odd number of pixels >= 5, e.g. 25")
    if int(max_stars) != max_stars or max_stars < MIN_STARS:
        raise InputError(f"max_stars={max_stars!r} must be an integer >= {MIN_STARS}, e.g. 100")
    stars, best = None, 0
    for scale in (1, 2, 4):
        if min(image.shape) < 8 * scale + 9:
            break
        found = _locus(_candidates(image, valid, noise, scale))
        best = max(best, len(found))
        # A locus at the wide end of what this scale can measure may be the narrow end of galaxies: look again.
        if len(found) >= MIN_STARS:
            stars = found
            if np.median(found.sigma) < 0.7 * SIGMA_RANGE[1] * scale:
                break
    if stars is None:
        raise _too_few(best, image.shape)
    fwhm = FWHM_PER_SIGMA * float(np.median(stars.sigma))
    size = int(size) if size is not None else max(25, 2 * int(np.ceil(3 * fwhm)) + 1)
    size = min(size, _odd_below(min(image.shape)))
    kernel, n_stars = _stack(image, valid, noise, stars.brightest(int(max_stars)), fwhm, size)
    if n_stars < MIN_STARS:
        raise _too_few(n_stars, image.shape)
    return PSFModel(kernel[None], origin=f"{n_stars} stars", n_stars=n_stars, size_is_free=True)


def _too_few(n, shape):
    return PSFError(
        f"only {n} usable stars (isolated, unsaturated, of one shape) were found in data of {shape[0]} x {shape[1]} "
        f"pixels, {MIN_STARS} are needed: give psf= (--psf), a FWHM such as 1.2*u.arcsec, a kernel, or a model"
    )


def _odd_below(n):
    return n - 1 + n % 2


def _prepared(data, valid, variance):
    """Background-free image with bad pixels filled, validity, and noise per pixel, in units of the median noise."""
    data = np.asarray(data)
    if data.ndim != 2:
        raise InputError(f"data has shape {data.shape}; estimate_psf takes one band, (y, x), at a time")
    finite = np.isfinite(data)
    valid = finite if valid is None else np.asarray(valid, dtype=bool)
    if valid.shape != data.shape:
        raise InputError(f"valid has shape {valid.shape}; it must be that of data, {data.shape}")
    valid = valid & finite
    if not valid.any():
        raise _too_few(0, data.shape)
    background, rms = background_rms(data, valid)
    if variance is not None:
        variance = np.asarray(variance, dtype=np.float64)
        if variance.shape != data.shape:
            raise InputError(f"variance has shape {variance.shape}; it must be that of data, {data.shape}")
        good = np.isfinite(variance) & (variance > 0)
        rms = np.where(good, np.sqrt(np.where(good, variance, 1.0)), rms)
    unit = np.median(rms)
    image = fill_invalid((np.where(valid, data, 0.0) - background) / unit, valid)
    return image, valid, rms / unit


# ---------------------------------------------------------------------------------------------- candidates


@dataclass(frozen=True)
class _Sources:
    """Measured sources; arrays of one length."""

    x: np.ndarray
    y: np.ndarray
    sigma: np.ndarray
    e1: np.ndarray
    e2: np.ndarray
    flux: np.ndarray
    snr: np.ndarray

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return _Sources(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def brightest(self, n):
        return self[np.argsort(-self.snr, kind="stable")[:n]]


def _candidates(image, valid, noise, scale):
    """Isolated, well-measured, unmasked peaks."""
    from scipy.ndimage import gaussian_filter, uniform_filter

    sigma = 1.2 * scale
    smooth = gaussian_filter(image, sigma, mode="reflect")
    # The smoothing divides white noise by 2 sqrt(pi) sigma; noise that is correlated shows in the scatter of the sky.
    smooth_noise = noise / (2 * np.sqrt(np.pi) * sigma)
    smooth_noise *= max(location_and_scale((smooth / smooth_noise)[valid])[1], 1.0)
    x, y, height, significance = _peaks(smooth, smooth_noise, box=2 * int(2.5 * scale) + 1)
    radius = 6 * scale + 3
    inside = (x >= radius) & (x < image.shape[1] - radius) & (y >= radius) & (y < image.shape[0] - radius)
    # Every pixel of the core must be real.
    core = uniform_filter(valid.astype(np.float32), 4 * scale + 1, mode="constant") > 1 - 1e-4
    alone = _isolated(x, y, height, 9 * scale)
    keep = inside & core[y, x] & alone & (significance > 15)
    x, y = x[keep], y[keep]
    order = np.argsort(-significance[keep], kind="stable")[:MAX_CANDIDATES]
    sources = _moments(image, noise, x[order], y[order], 9 * scale, sigma)
    low, high = SIGMA_RANGE
    good = (sources.snr > 20) & (sources.sigma > low) & (sources.sigma < high * scale)
    good &= np.hypot(sources.e1, sources.e2) < 0.4
    return sources[good]


def _peaks(smooth, smooth_noise, box):
    """Integer positions, heights and significances of local maxima above 5 sigma."""
    from photutils.detection import find_peaks

    with quiet():  # it warns where it finds none
        table = find_peaks(smooth, 5 * smooth_noise, box_size=box)
    if table is None:
        none = np.zeros(0, int)
        return none, none, np.zeros(0), np.zeros(0)
    x, y = np.asarray(table["x_peak"], dtype=int), np.asarray(table["y_peak"], dtype=int)
    return x, y, smooth[y, x], smooth[y, x] / smooth_noise[y, x]


def _isolated(x, y, height, radius):
    """True where no other peak of more than 3 % of the height lies within the radius."""
    from scipy.spatial import cKDTree

    alone = np.ones(len(x), bool)
    if len(x) < 2:
        return alone
    pairs = cKDTree(np.column_stack([x, y])).query_pairs(radius, output_type="ndarray")
    for a, b in ((pairs[:, 0], pairs[:, 1]), (pairs[:, 1], pairs[:, 0])):
        alone[a[height[b] > 0.03 * height[a]]] = False
    return alone


def _moments(image, noise, x, y, radius, sigma):
    """Centroids, sizes and ellipticities by moments under a round Gaussian that adapts to each source.

    For a Gaussian source the covariance C follows from the weighted one, M, and the weight's, W, as
    C^-1 = M^-1 - W^-1 (Bernstein & Jarvis 2002, AJ 123, 583, section 3).
    """
    n = len(x)
    cx, cy = x.astype(float), y.astype(float)
    width = np.full(n, float(sigma))
    stamps, ys, xs = _stamps(image, x, y, radius)
    local_noise = noise[y, x]
    c11 = c22 = np.full(n, sigma**2)
    c12 = np.zeros(n)
    flux = np.zeros(n)
    ok = np.ones(n, bool)
    for _ in range(25):
        dx = xs - cx[:, None]
        dy = ys - cy[:, None]
        wx = np.exp(-0.5 * (dx / width[:, None]) ** 2)
        wy = np.exp(-0.5 * (dy / width[:, None]) ** 2)
        rows = np.einsum("nyx,nx->ny", stamps, wx)
        rows_x = np.einsum("nyx,nx->ny", stamps, wx * dx)
        total = np.einsum("ny,ny->n", rows, wy)
        ok &= total > 0
        total = np.where(ok, total, 1.0)
        mx = np.einsum("ny,ny->n", rows_x, wy) / total
        my = np.einsum("ny,ny->n", rows, wy * dy) / total
        mxx = np.einsum("nyx,nx,ny->n", stamps, wx * dx**2, wy, optimize=True) / total - mx**2
        myy = np.einsum("ny,ny->n", rows, wy * dy**2) / total - my**2
        mxy = np.einsum("ny,ny->n", rows_x, wy * dy) / total - mx * my
        c11, c22, c12, fits = _without_weight(mxx, myy, mxy, width**2)
        ok &= fits
        cx = cx + np.where(ok, np.clip(1.5 * mx, -1, 1), 0)
        cy = cy + np.where(ok, np.clip(1.5 * my, -1, 1), 0)
        wanted = np.sqrt(np.sqrt(np.where(ok, c11 * c22 - c12**2, 1.0)))
        width = np.clip(wanted, 0.7 * width, 1.4 * width)
        width = np.clip(width, 0.4, radius / 2)
        # Under a matched weight a Gaussian shows half its flux.
        flux = 2 * total
    ok &= (np.hypot(cx - x, cy - y) < 2 + sigma) & (width < 0.49 * radius)
    trace = np.where(ok, c11 + c22, 1.0)
    snr = np.where(ok, flux, 0) / (2 * np.sqrt(np.pi) * width * local_noise)
    return _Sources(cx, cy, width, (c11 - c22) / trace, 2 * c12 / trace, flux, snr)[ok]


def _without_weight(mxx, myy, mxy, weight):
    """Covariance of a source from its weighted one; False where that makes no sense (a hole, a slope)."""
    determinant = mxx * myy - mxy**2
    fits = (mxx > 0) & (myy > 0) & (determinant > 0)
    safe = np.where(fits, determinant, 1.0)
    a, b, c = myy / safe - 1 / weight, mxx / safe - 1 / weight, -mxy / safe
    inverse = a * b - c**2
    fits &= (a > 0) & (b > 0) & (inverse > 0)
    inverse = np.where(fits, inverse, 1.0)
    return np.where(fits, b / inverse, 1.0), np.where(fits, a / inverse, 1.0), np.where(fits, -c / inverse, 0.0), fits


def _stamps(image, x, y, radius):
    """Squares around integer positions, zero outside the image, and their coordinates (source, pixel)."""
    padded = np.pad(image, radius)
    offsets = np.arange(-radius, radius + 1)
    ys, xs = y[:, None] + offsets, x[:, None] + offsets
    return padded[(ys + radius)[:, :, None], (xs + radius)[:, None, :]], ys, xs


# ---------------------------------------------------------------------------------------------- the stellar locus


def _locus(sources):
    """The sources that share the size and the ellipticity of the PSF; empty if none stand out as such."""
    nothing = np.zeros(len(sources), bool)
    if len(sources) < MIN_STARS:
        return sources[nothing]
    shape = np.column_stack([np.log(sources.sigma), sources.e1, sources.e2])
    centre = _sharpest_cluster(shape, sources.snr)
    if centre is None:
        return sources[nothing]
    keep = np.hypot(*(shape - centre).T[1:]) < 0.1
    keep &= np.abs(shape[:, 0] - centre[0]) < 0.1
    for _ in range(10):
        if keep.sum() < MIN_STARS:
            break
        middle = np.median(shape[keep], axis=0)
        spread = 1.4826 * np.median(np.abs(shape[keep] - middle), axis=0)
        # Photon noise alone scatters log size and ellipticity by about 1 / (S/N).
        limit = np.hypot(np.clip(2.5 * spread, 0.02, 0.08), 2.5 / sources.snr[:, None])
        wanted = (np.abs(shape - middle) < limit).all(axis=1)
        if (wanted == keep).all():
            break
        keep = wanted
    if keep.sum() < MIN_STARS or _scatter(shape[keep], sources[keep]) > _scatter_allowed(keep.sum()):
        keep = nothing
    return sources[keep]


def _scatter(shape, sources):
    """Scatter in log size and ellipticity together, without that of photon noise and without trends over the field.

    A PSF varies smoothly from place to place; galaxies differ from their neighbours.
    """
    x, y = (2 * (v - v.min()) / max(np.ptp(v), 1) - 1 for v in (sources.x, sources.y))
    one = np.ones_like(x)
    terms = [one, x, y, x * y, x**2, y**2] if len(x) >= 30 else [one, x, y] if len(x) >= 12 else [one]
    terms = np.column_stack(terms)
    rest = shape - terms @ np.linalg.lstsq(terms, shape, rcond=None)[0]
    spread = 1.4826 * np.median(np.abs(rest), axis=0)
    return np.sqrt(max((spread**2).sum() - 3 * np.median(1 / sources.snr**2), 0))


def _scatter_allowed(n):
    """Stars show 0.005 to 0.05, small round galaxies 0.05 to 0.08, and less by chance where they are few."""
    return 0.06 if n >= 30 else 0.05 if n >= 12 else 0.045


def _sharpest_cluster(shape, snr):
    """Middle of the cluster of smallest size in the space of (log size, e1, e2), or None.

    Stars are as alike as the noise lets them; galaxies scatter over sizes and ellipticities, and are not smaller. A
    cluster is believed where it holds clearly more sources than the shell around it leads one to expect.
    """
    width = np.hypot(0.02, 1 / snr)
    distance2 = np.zeros((len(shape), len(shape)))
    spread2 = width[:, None] ** 2 + width[None, :] ** 2
    for values in shape.T:
        distance2 += (values[:, None] - values[None, :]) ** 2 / spread2
    density = (np.exp(-0.5 * distance2) / spread2**1.5).sum(axis=1)
    order = np.argsort(shape[:, 0], kind="stable")
    for i in order[density[order] > 0.3 * density.max()]:
        offset = np.abs(shape - shape[i]).max(axis=1)
        reach = 0.05
        inside = np.count_nonzero(offset < reach)
        shell = np.count_nonzero((offset >= reach) & (offset < 3 * reach))
        # The shell has 26 times the volume; galaxies thicken towards small round ones, hence the factor of 3.
        expected = 3 * shell / 26
        if inside >= MIN_STARS and inside - expected > 3 * np.sqrt(expected):
            return np.median(shape[offset < reach], axis=0)
    return None


# ---------------------------------------------------------------------------------------------- the stack


def _stack(image, valid, noise, stars, fwhm, size):
    """Kernel (size, size) and the number of stars in it."""
    cube, sigma, good = _aligned(image, valid, noise, stars, fwhm, size // 2)
    use = _alike(cube, sigma, fwhm)
    if use.sum() < MIN_STARS:
        return None, int(use.sum())
    # A shift of a coarsely sampled star is inexact: those that need little of it count for more.
    offset = np.hypot(*(v - np.rint(v) for v in (stars.x[use], stars.y[use])))
    favour = 1 / (1 + (offset / 0.2) ** 4) if fwhm < COARSE else np.ones(len(offset))
    mean, error = _clipped_mean(cube[use], sigma[use], good[use], favour)
    return clean_kernel(_smooth_wings(mean, error), name="stack"), int(use.sum())


def _aligned(image, valid, noise, stars, fwhm, half):
    """Stars moved onto the middle pixel, at unit flux; the noise of a pixel of each; where they are undisturbed."""
    from scipy import fft

    rim = 6
    x, y = np.rint(stars.x).astype(int), np.rint(stars.y).astype(int)
    stamps, _, _ = _stamps(image, x, y, half + rim)
    good = _stamps(valid, x, y, half + rim)[0]
    offsets = np.arange(-half - rim, half + rim + 1)
    distance = np.hypot(offsets[:, None], offsets[None, :])
    pixel_noise = noise[y, x]
    for i in range(len(stamps)):
        good[i] &= ~_neighbours(stamps[i], good[i], distance, pixel_noise[i], 1.2 * fwhm)
    stamps = stamps - _sky(stamps, good, stars, (distance > half) & (distance <= half + rim))[:, None, None]
    n = stamps.shape[-1]
    phase_y = np.exp(-2j * np.pi * fft.fftfreq(n) * (y - stars.y)[:, None])
    phase_x = np.exp(-2j * np.pi * fft.rfftfreq(n) * (x - stars.x)[:, None])
    moved = fft.irfft2(fft.rfft2(stamps) * phase_y[:, :, None] * phase_x[:, None, :], (n, n))
    cut = slice(rim, rim + 2 * half + 1)
    moved, good = moved[:, cut, cut], good[:, cut, cut]
    flux = moved[:, distance[cut, cut] <= max(1.5 * fwhm, 2.0)].sum(axis=1)
    flux = np.where(flux > 0, flux, 1e-30)
    return moved / flux[:, None, None], (pixel_noise / flux)[:, None, None], good


def _neighbours(stamp, good, distance, noise, core):
    """True where a star outshines its own azimuthal median by far, outside its core."""
    ring = np.rint(distance).astype(int)
    excess = np.zeros(stamp.shape, bool)
    for r in range(int(np.ceil(core)), ring.max() + 1):
        here = ring == r
        values = stamp[here & good]
        if values.size:
            median = np.median(values)
            excess |= here & (stamp > median + 0.5 * max(median, 0) + 4 * noise)
    return grow_mask(excess, 2.5) & (distance >= core)


def _sky(stamps, good, stars, ring):
    """Sky left around each star. The ring holds wings of the PSF, too, in proportion to flux: these stay."""
    level = np.zeros(len(stamps))
    for i in range(len(stamps)):
        values = stamps[i][ring & good[i]]
        level[i] = np.median(values) if values.size > 20 else 0.0
    bright = np.argsort(-stars.snr, kind="stable")[: max(MIN_STARS, len(stars) // 3)]
    wing = max(np.median(level[bright] / stars.flux[bright]), 0.0)
    return level - wing * stars.flux


def _alike(cube, sigma, fwhm):
    """True for the stars whose core has the profile of most."""
    half = cube.shape[-1] // 2
    offsets = np.arange(-half, half + 1)
    core = np.hypot(offsets[:, None], offsets[None, :]) <= 1.2 * fwhm
    use = np.ones(len(cube), bool)
    for _ in range(3):
        middle = np.median(cube[use], axis=0)
        misfit = ((cube - middle)[:, core] ** 2).mean(axis=1)
        excess = np.sqrt(np.maximum(misfit - sigma[:, 0, 0] ** 2, 0)) / middle.max()
        new = excess < np.clip(3 * np.median(excess[use]), 0.02, 0.06)
        if new.sum() < MIN_STARS or (new == use).all():
            return new
        use = new
    return use


def _clipped_mean(cube, sigma, good, favour):
    """Weighted mean over the stars without what stands out in single ones, and its standard error."""
    # However bright, no star counts for more than one with a noise of 0.1 % of its flux a pixel: the PSF varies.
    weight = good * favour[:, None, None] / (sigma**2 + 1e-6)
    middle = np.median(np.where(good, cube, np.median(cube, axis=0)), axis=0)
    for _ in range(4):
        clip = 3.5 * np.sqrt(sigma**2 + (0.05 * middle) ** 2)
        kept = np.where(np.abs(cube - middle) < clip, weight, 0)
        total = kept.sum(axis=0)
        middle = np.where(total > 0, (kept * cube).sum(axis=0) / np.maximum(total, 1e-30), middle)
    variance = (kept**2 * sigma**2).sum(axis=0) / np.maximum(total, 1e-30) ** 2
    return middle, np.sqrt(np.where(total > 0, variance, np.median(sigma) ** 2))


def _smooth_wings(mean, sigma):
    """Where rings of pixels have little signal, their mean, falling outwards and not negative, replaces the pixels."""
    half = len(mean) // 2
    offsets = np.arange(-half, half + 1)
    radius = np.hypot(offsets[:, None], offsets[None, :])
    ring = np.rint(radius).astype(int)
    count = np.bincount(ring.ravel())
    profile = np.bincount(ring.ravel(), mean.ravel()) / count
    noise = np.sqrt(np.bincount(ring.ravel(), (sigma**2).ravel()) / count) + 1e-12
    falling = np.maximum(np.minimum.accumulate(profile), 0)
    signal = (falling / noise) ** 2
    trust = np.minimum.accumulate(signal / (signal + 25))
    smooth = np.interp(radius, np.arange(len(falling)), falling)
    trust = np.interp(radius, np.arange(len(trust)), trust)
    trust[ring <= 2] = 1
    return trust * mean + (1 - trust) * smooth
