"""What tells a translated image from a real one: where its light is, its Fourier map, its scatter.

Lin et al. 2021 (arXiv:2101.07389, figures 5 and 6) compare radial flux distributions and stacked Fourier maps without
printing formulas; those here, and all others, are our own. Sets of images have a leading axis: (image, y, x) or
(image, band, y, x). The truth, or the real image, comes first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import InputError
from astrogan.metrics._checks import as_image, as_mask, as_pair, as_positions, by_band
from astrogan.metrics.fourier import _Rings, _taper
from astrogan.metrics.translation_noise import as_set, mean_of_known

__all__ = [
    "Coverage",
    "FourierComparison",
    "chi2_coverage",
    "compare_fourier_maps",
    "energy_score",
    "flux_distribution_error",
    "magnitude_difference",
    "radial_flux_fractions",
    "radial_wasserstein",
    "ring_weights",
    "stacked_fourier_map",
]

# ---- where the light is ---------------------------------------------------------------------------------------------


def ring_weights(shape, position, edges):
    """Part of each pixel that lies in each ring around a position.

    Parameters
    ----------
    shape : tuple of int
        (y, x).
    position : array_like
        (x, y) in pixels.
    edges : array_like
        Radii in pixels, increasing, at least two.

    Returns
    -------
    `numpy.ndarray`
        (ring, y, x), between 0 and 1. A circle's edge is taken as straight within a pixel, which is good to 2 % of
        the area for a radius of one pixel, and to 0.3 % from two pixels on.

    Raises
    ------
    InputError
        If the position is not one (x, y), or the edges do not increase.

    Examples
    --------
    >>> from astrogan.metrics import ring_weights
    >>> ring_weights((21, 21), (10, 10), [0, 2, 5]).sum(axis=(1, 2)).round(1)
    array([12.5, 66. ])
    """
    positions, single = as_positions(position, "position")
    edges = np.asarray(edges, np.float64)
    if not single:
        raise InputError(f"position has shape {np.shape(position)}; it must be one (x, y)")
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all() or edges[0] < 0:
        raise InputError(f"edges={edges.tolist()!r} must be at least two increasing radii, the first 0 or more")
    (x, y) = positions[0]
    dy, dx = np.arange(shape[0])[:, None] - y, np.arange(shape[1]) - x
    inside = np.array([_disc(dy, dx, edge) for edge in edges])
    return np.diff(inside, axis=0)


def _disc(dy, dx, edge):
    """Part of each pixel within a circle whose edge is taken as straight across the pixel."""
    radius = np.hypot(dy, dx)
    if edge < 0.5:  # too small to be straight
        return np.where((np.abs(dy) <= 0.5) & (np.abs(dx) <= 0.5), np.pi * edge**2, 0) * (radius == radius.min())
    away = np.maximum(radius, 1e-9)
    long, short = np.maximum(np.abs(dy), np.abs(dx)) / away, np.minimum(np.abs(dy), np.abs(dx)) / away
    long, short = np.where(radius < 1e-9, 1, long), np.maximum(short, 1e-9)
    # A square cut by a line at a distance from its centre: a trapezium's integral. The curve adds 1 / (24 R).
    distance = edge - radius - 1 / (24 * edge)
    reach, flat = (long + short) / 2, (long - short) / 2
    gap = np.clip(reach - np.abs(distance), 0, None)
    part = np.where(np.abs(distance) <= flat, 0.5 - np.abs(distance) / long, gap**2 / (2 * long * short))
    return np.where(distance > 0, 1 - part, part)


def radial_flux_fractions(image, position, edges, *, mask=None):
    r"""Part of the flux that is in each ring around a position.

    Parameters
    ----------
    image : array_like
        (y, x) or (band, y, x), background already subtracted.
    position : array_like
        (x, y) in pixels.
    edges : array_like
        Radii of the rings' edges in pixels, increasing.
    mask : array_like of bool, optional
        True where a pixel counts as nothing.

    Returns
    -------
    `numpy.ndarray`
        (ring,) or (band, ring): :math:`f_i = \sum_{\rm ring\,i} I / \sum_{\rm all\,rings} I`. NaN where the whole
        flux is not positive. The running sum is the curve of growth.

    Raises
    ------
    InputError
        If a shape, the position or the edges cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import radial_flux_fractions
    >>> y, x = np.mgrid[:41, :41] - 20
    >>> radial_flux_fractions(np.exp(-(x**2 + y**2) / 18), (20, 20), [0, 3, 6, 12]).round(2)
    array([0.39, 0.47, 0.14])
    """
    image = as_image(image)
    mask = as_mask(mask, image.shape)
    weights = ring_weights(image.shape[-2:], position, edges)
    flux = np.tensordot(np.where(mask, 0, image), weights, axes=((-2, -1), (1, 2)))
    return _fractions(flux)


def _fractions(flux):
    total = flux.sum(axis=-1, keepdims=True)
    return np.divide(flux, total, out=np.full(flux.shape, np.nan), where=total > 0)


def flux_distribution_error(truth, image, position, edges, *, mask=None):
    """Mean absolute difference of two images' `radial_flux_fractions`, over the rings.

    Parameters
    ----------
    truth, image : array_like
        Of one shape, (y, x) or (band, y, x).
    position, edges, mask
        As for `radial_flux_fractions`.

    Returns
    -------
    float or `numpy.ndarray`
        Shape () or (band,). Independent of the images' fluxes.

    Raises
    ------
    InputError
        If a shape, the position or the edges cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import flux_distribution_error
    >>> y, x = np.mgrid[:41, :41] - 20
    >>> truth = np.exp(-(x**2 + y**2) / 18)
    >>> round(flux_distribution_error(truth, 3 * truth, (20, 20), [0, 3, 6, 12]), 6)
    0.0
    """
    truth, image, mask = as_pair(truth, image, mask)
    before, after = (radial_flux_fractions(i, position, edges, mask=mask) for i in (truth, image))
    return _scalar(np.abs(after - before).mean(axis=-1))


def radial_wasserstein(truth, image, edges):
    """First Wasserstein distance between two radial distributions of light: how far outward it has moved.

    Parameters
    ----------
    truth, image : array_like
        `radial_flux_fractions` of both, (..., ring).
    edges : array_like
        The rings' edges, (ring + 1,), in the unit that the answer is to have.

    Returns
    -------
    float or `numpy.ndarray`
        (...): the area between both curves of growth, which is the distance also where noise makes fractions negative.

    Raises
    ------
    InputError
        If the numbers of rings and edges do not agree.

    Examples
    --------
    >>> from astrogan.metrics import radial_wasserstein
    >>> radial_wasserstein([1, 0, 0], [0, 0, 1], [0, 2, 4, 6])
    4.0
    """
    truth, image, edges = (np.asarray(a, np.float64) for a in (truth, image, edges))
    if edges.ndim != 1 or truth.shape[-1:] != image.shape[-1:] or truth.shape[-1] != len(edges) - 1:
        raise InputError(
            f"edges has {edges.size} values for {truth.shape[-1]} and {image.shape[-1]} rings; it must have one more"
        )
    growth = np.cumsum(image - truth, axis=-1)[..., :-1]
    middle = (edges[1:] + edges[:-1]) / 2  # all light of a ring counts as at its middle
    return _scalar((np.abs(growth) * np.diff(middle)).sum(axis=-1))


def magnitude_difference(truth, image, position, radius, *, mask=None):
    """Magnitude of an image minus that of the truth, in a circle.

    Parameters
    ----------
    truth, image : array_like
        Of one shape, (y, x) or (band, y, x), background already subtracted.
    position : array_like
        (x, y) in pixels.
    radius : float
        In pixels.
    mask : array_like of bool, optional
        True where a pixel counts as nothing.

    Returns
    -------
    float or `numpy.ndarray`
        Shape () or (band,); NaN where either flux is not positive. The difference of two bands' is the error of
        their colour.

    Raises
    ------
    InputError
        If a shape, the position or the radius cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import magnitude_difference
    >>> round(magnitude_difference(np.ones((21, 21)), 2.511886 * np.ones((21, 21)), (10, 10), 5), 6)
    -1.0
    """
    truth, image, mask = as_pair(truth, image, mask)
    circle = ring_weights(truth.shape[-2:], position, [0, radius])[0]
    before, after = (np.where(mask, 0, i * circle).sum(axis=(-2, -1)) for i in (truth, image))
    good = (before > 0) & (after > 0)
    ratio = np.divide(after, before, out=np.full(np.shape(before), np.nan), where=good)
    return _scalar(-2.5 * np.log10(ratio))


# ---- Fourier maps ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FourierComparison:
    """How two Fourier maps differ; leading axes are those of the maps.

    Parameters
    ----------
    log_ratio : `numpy.ndarray`
        ln(image / truth), (..., ky, kx), zero frequency in the middle as of `numpy.fft.fftshift`, NaN there.
    frequency : `numpy.ndarray`
        Of each ring in cycles per pixel, (ring,).
    profile : `numpy.ndarray`
        Mean of \\|ln ratio\\| around each ring, (..., ring).
    error : float or `numpy.ndarray`
        Mean of ``profile``: every ring up to the Nyquist frequency counts the same.
    axes : `numpy.ndarray`
        (..., 2): geometric mean of the ratio on kx = 0 and on ky = 0, the zero frequency left out.
    """

    log_ratio: np.ndarray
    frequency: np.ndarray
    profile: np.ndarray
    error: float | np.ndarray
    axes: np.ndarray


def stacked_fourier_map(images, *, window="hann", mask=None):
    r"""Mean power of many images by (ky, kx).

    Parameters
    ----------
    images : array_like
        (image, y, x) or (image, band, y, x).
    window : {"hann", None}, optional
        Taper against the jump between opposite borders.
    mask : array_like of bool, optional
        True where a pixel is left out, of the images' shape or one that broadcasts to it; it takes the mean of the
        others. The mask's own transform smears the map.

    Returns
    -------
    `numpy.ndarray`
        (y, x) or (band, y, x), in the order of `numpy.fft.fft2`:
        :math:`F(k) = \langle |\mathcal{F}[w (I - \bar I)]|^2 / \sum w^2 \rangle` with the weighted mean and a weight
        of zero under the mask, so that white noise has :math:`F = \sigma^2`.

    Raises
    ------
    InputError
        If a shape or option cannot be used, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import stacked_fourier_map
    >>> noise = np.random.default_rng(1).normal(scale=3, size=(200, 32, 32))
    >>> stacked_fourier_map(noise)[4:, 4:].mean().round()
    np.float64(9.0)
    """
    images, mask = as_set(images, mask)
    return _power(images, mask, _taper(window, images.shape[-2:])).mean(axis=0)


def _power(images, mask, taper):
    """Power of each image; (..., y, x)."""
    weight = np.where(mask, 0, taper)
    area = weight.sum(axis=(-2, -1), keepdims=True)
    mean = np.divide((weight * images).sum(axis=(-2, -1), keepdims=True), area, out=np.zeros(area.shape),
                     where=area > 0)  # fmt: skip
    square = (weight**2).sum(axis=(-2, -1), keepdims=True)
    power = np.abs(np.fft.fft2(weight * (images - mean))) ** 2
    return np.divide(power, square, out=np.zeros(power.shape), where=square > 0)


def compare_fourier_maps(truth, image):
    """Where in Fourier space two sets of images differ.

    Parameters
    ----------
    truth, image : array_like
        `stacked_fourier_map` of both, of one shape (..., y, x).

    Returns
    -------
    `FourierComparison`

    Raises
    ------
    InputError
        If shapes differ, or a map is negative.

    Notes
    -----
    The axes stand apart because what goes wrong there, stripes along the image's rows and columns, is invisible to a
    high-pass filter whose response is zero on them, and is lost in a mean over rings.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import compare_fourier_maps, stacked_fourier_map
    >>> noise = stacked_fourier_map(np.random.default_rng(1).normal(size=(4, 32, 32)))
    >>> result = compare_fourier_maps(noise, 2 * noise)
    >>> round(result.error, 6), result.axes.round(6)
    (0.693147, array([2., 2.]))
    """
    truth, image = (np.asarray(a, np.float64) for a in (truth, image))
    if truth.shape != image.shape or truth.ndim < 2:
        raise InputError(f"image has shape {image.shape}; it must be that of truth, {truth.shape}, and (..., y, x)")
    if (truth < 0).any() or (image < 0).any():
        raise InputError("truth and image must be maps of power, which are nowhere negative")
    good = (truth > 0) & (image > 0)
    good[..., 0, 0] = False
    ratio = np.divide(image, truth, out=np.full(truth.shape, np.nan), where=good)
    logs = np.log(ratio)
    rings = _Rings(truth.shape[-2:])
    flat = np.abs(logs).reshape(-1, *logs.shape[-2:])
    profile = np.array([_ring_mean(rings, band) for band in flat]).reshape(*logs.shape[:-2], -1)
    axes = np.stack([mean_of_known(logs[..., 1:, 0]), mean_of_known(logs[..., 0, 1:])], axis=-1)
    return FourierComparison(
        np.fft.fftshift(logs, axes=(-2, -1)),
        rings.frequency,
        profile,
        _scalar(mean_of_known(profile)),
        np.exp(axes),
    )


def _ring_mean(rings, values):
    """Mean in each ring of what is not NaN."""
    known = ~np.isnan(values)
    count = rings.sum(known.astype(np.float64))
    total = rings.sum(np.where(known, values, 0))
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


# ---- stochastic output ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coverage:
    """How well stated variances describe the errors; shape () or (band,).

    Parameters
    ----------
    chi2 : float or `numpy.ndarray`
        Mean of the squared error over the variance; 1 where variances are right.
    within_1, within_2 : float or `numpy.ndarray`
        Part of the pixels within 1 and 2 standard deviations; 0.683 and 0.954 for a normal distribution.
    """

    chi2: float | np.ndarray
    within_1: float | np.ndarray
    within_2: float | np.ndarray


def energy_score(samples, truth):
    r"""Score of random images against what was observed; the lower, the closer both in mean and in scatter.

    Parameters
    ----------
    samples : array_like
        (sample, ...), at least two.
    truth : array_like
        (...).

    Returns
    -------
    float
        :math:`\langle |X - y| \rangle - \langle |X - X'| \rangle / 2` with root-mean-square norms over all pixels and
        the second mean over different samples; in the images' unit.

    Raises
    ------
    InputError
        If there are fewer than two samples, or shapes differ.

    References
    ----------
    Gneiting, T., Raftery, A. E. 2007, J. Am. Stat. Assoc. 102, 359, section 4.3.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import energy_score
    >>> draws = np.random.default_rng(1).normal(size=(9, 64, 64))
    >>> round(energy_score(draws[1:], draws[0]), 1), round(energy_score(0 * draws[1:], draws[0]), 1)
    (0.7, 1.0)
    """
    samples, truth = np.asarray(samples, np.float64), np.asarray(truth, np.float64)
    if samples.shape[1:] != truth.shape or len(samples) < 2:
        raise InputError(f"samples has shape {samples.shape}; it must be (at least 2, *{truth.shape})")
    flat, truth = samples.reshape(len(samples), -1), truth.ravel()
    distance = np.sqrt(((flat - truth) ** 2).mean(axis=1)).mean()
    apart = [np.sqrt(((flat[i] - flat[j]) ** 2).mean()) for i in range(len(flat)) for j in range(i)]
    return float(distance - np.mean(apart) / 2)


def chi2_coverage(truth, image, variance, *, mask=None):
    """Whether the errors of an image are as large as its variance says.

    Parameters
    ----------
    truth, image, variance : array_like
        Of one shape, (y, x) or (band, y, x).
    mask : array_like of bool, optional
        True where a pixel is left out. Pixels without a positive variance are too.

    Returns
    -------
    `Coverage`

    Raises
    ------
    InputError
        If shapes differ, or a pixel that is not masked is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.metrics import chi2_coverage
    >>> image = np.random.default_rng(1).normal(scale=2, size=(200, 200))
    >>> found = chi2_coverage(0 * image, image, np.full(image.shape, 4.0))
    >>> round(found.chi2, 1), round(found.within_1, 1)
    (1.0, 0.7)
    """
    truth, image, mask = as_pair(truth, image, mask)
    _, variance, _ = as_pair(truth, variance, mask)
    use = ~mask & (variance > 0)
    squared = np.divide((image - truth) ** 2, variance, out=np.full(truth.shape, np.nan), where=use)
    squared, undo = by_band(squared)
    squared = squared.reshape(len(squared), -1)
    count = np.count_nonzero(~np.isnan(squared), axis=1)
    part = [np.divide((squared <= n**2).sum(axis=1), count, out=np.full(len(count), np.nan), where=count > 0)
            for n in (1, 2)]  # fmt: skip
    return Coverage(*(_scalar(undo(value)) for value in (mean_of_known(squared), *part)))


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _scalar(value):
    return float(value) if np.ndim(value) == 0 else value
