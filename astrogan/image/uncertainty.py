"""Uncertainties: any of astropy's classes to variance and back, and a noise map where none is given."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from astrogan.exceptions import InputError, UnitError
from astrogan.image._quiet import quiet
from astrogan.image.mask import grow_mask

__all__ = ["background_rms", "to_uncertainty", "variance_of"]


def variance_of(uncertainty, shape, unit=None):
    """The variance that an uncertainty stands for.

    Parameters
    ----------
    uncertainty : `astropy.nddata.NDUncertainty`
        A `~astropy.nddata.StdDevUncertainty`, `~astropy.nddata.VarianceUncertainty` or
        `~astropy.nddata.InverseVariance`. Its array has the image's shape, or is one number, or one per band.
    shape : tuple of int
        Shape of the image, (y, x) or (band, y, x).
    unit : unit-like, optional
        Unit of the image. An uncertainty with a unit of its own is converted to it (to its square).

    Returns
    -------
    variance : `numpy.ndarray`
        float64, in ``unit`` squared, positive and finite everywhere; where ``bad`` it holds the median of the
        good variances (1 if there are none), a value without meaning.
    bad : `numpy.ndarray` of bool
        True where the uncertainty says nothing: inverse variance 0, NaN, infinite or negative; standard
        deviation or variance 0, NaN, infinite or negative (a negative standard deviation is no number's root).

    Raises
    ------
    InputError
        If the class of uncertainty or its shape does not fit.
    UnitError
        If its unit does not convert to ``unit``.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import InverseVariance
    >>> from astrogan.image.uncertainty import variance_of
    >>> variance, bad = variance_of(InverseVariance(np.array([[4.0, 0.0]])), (1, 2))
    >>> variance
    array([[0.25, 0.25]])
    >>> bad
    array([[False,  True]])
    """
    values = _array_of(uncertainty, tuple(shape))
    kind = uncertainty.uncertainty_type
    good = np.isfinite(values) & (values > 0)
    good_values = values[good] * _unit_factor(uncertainty, unit)
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        good_variance = {"std": np.square, "var": np.positive, "ivar": np.reciprocal}[kind](good_values)
    usable = np.isfinite(good_variance) & (good_variance > 0)
    if not usable.all():
        good[good] = usable
        good_variance = good_variance[usable]
    variance = np.full(values.shape, np.median(good_variance) if good_variance.size else 1.0)
    variance[good] = good_variance
    return variance, ~good


def _array_of(uncertainty, shape):
    """The uncertainty's array as float64 of the image's shape."""
    kind = getattr(uncertainty, "uncertainty_type", None)
    if kind not in ("std", "var", "ivar"):
        raise InputError(
            f"uncertainty of type {type(uncertainty).__name__} cannot be used; give a StdDevUncertainty, "
            "VarianceUncertainty or InverseVariance from astropy.nddata"
        )
    if uncertainty.array is None:
        raise InputError(f"uncertainty is a {type(uncertainty).__name__} without an array; give it one, or None")
    values = np.asarray(uncertainty.array, dtype=np.float64)
    if values.shape != shape:
        if values.ndim == 1 and len(shape) == 3 and len(values) == shape[0]:
            values = values[:, None, None]
        try:
            values = np.broadcast_to(values, shape)
        except ValueError:
            raise InputError(
                f"uncertainty has shape {np.shape(uncertainty.array)}; it must be that of the image, {shape}"
            ) from None
    return values


def _unit_factor(uncertainty, unit):
    """What takes the uncertainty's values from its own unit to the one that belongs to ``unit``."""
    own = uncertainty.unit
    if unit is None or own is None:
        return 1.0
    from astropy import units as u

    power = {"std": 1, "var": 2, "ivar": -2}[uncertainty.uncertainty_type]
    try:
        wanted = u.Unit(unit) ** power
        return own.to(wanted)
    except (u.UnitConversionError, ValueError, TypeError):
        raise UnitError(
            f"uncertainty has unit {own}; it does not convert to that of the image, {unit} (power {power})"
        ) from None


def to_uncertainty(variance, like=None):
    """Variance as an uncertainty of the class that the input had.

    Parameters
    ----------
    variance : array_like or None
        Variance in the image's unit squared; None stays None.
    like : `astropy.nddata.NDUncertainty`, a class of those, or None, optional
        Whose class to use. None and classes other than standard deviation and inverse variance give
        `~astropy.nddata.VarianceUncertainty`.

    Returns
    -------
    `astropy.nddata.NDUncertainty` or None
        float32 for a float32 variance, else float64. Where the variance is not finite or not positive, an inverse
        variance is 0, a standard deviation or variance NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import InverseVariance
    >>> from astrogan.image.uncertainty import to_uncertainty
    >>> to_uncertainty(np.array([4.0, np.nan]), InverseVariance).array
    array([0.25, 0.  ])
    """
    if variance is None:
        return None
    from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty

    variance = np.array(variance)
    if variance.dtype.newbyteorder("=") != np.float32:
        variance = variance.astype(np.float64)
    good = np.isfinite(variance) & (variance > 0)
    cls = like if isinstance(like, type) else type(like)
    if issubclass(cls, InverseVariance):
        inverse = np.divide(1, variance, out=np.zeros_like(variance), where=good)
        return InverseVariance(inverse)
    variance[~good] = np.nan
    if issubclass(cls, StdDevUncertainty):
        return StdDevUncertainty(np.sqrt(variance))
    return VarianceUncertainty(variance)


def background_rms(data, valid=None):
    """Background and noise maps of one image, with the sources masked.

    Sources are what stands more than 3 sigma above or below the sky after smoothing by a few pixels, grown by 4
    pixels; the rest goes through `photutils.background.Background2D` (sigma-clipped median and median absolute
    deviation in boxes, median-filtered, interpolated). Images that do not hold 4 x 4 boxes of 16 pixels get one
    robust value.

    Parameters
    ----------
    data : array_like
        Image of shape (y, x), any unit.
    valid : array_like of bool, optional
        False where a pixel is to be ignored.

    Returns
    -------
    background, rms : `numpy.ndarray`
        float64 maps of shape (y, x), in the unit of ``data``; ``rms`` is positive everywhere, even on a constant
        image (the resolution of float32 there).

    Raises
    ------
    InputError
        If the image is not 2-D or has no valid pixel.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.image.uncertainty import background_rms
    >>> sky = np.random.default_rng(1).normal(10.0, 2.0, (128, 128))
    >>> background, rms = background_rms(sky)
    >>> bool(abs(background.mean() - 10) < 0.1), bool(abs(rms.mean() - 2) < 0.1)
    (True, True)
    """
    data = np.asarray(data)
    if data.ndim != 2:
        raise InputError(f"data has shape {data.shape}; background_rms takes one image, (y, x), at a time")
    valid = np.ones(data.shape, bool) if valid is None else np.asarray(valid, dtype=bool)
    if valid.shape != data.shape:
        raise InputError(f"valid has shape {valid.shape}; it must be that of data, {data.shape}")
    valid = valid & np.isfinite(data)
    if not valid.any():
        raise InputError(f"data of shape {data.shape} has no valid pixel to measure the background on")
    # In units of the scatter nothing overflows or underflows, be the flux in W / m^2 or in electrons.
    level, scale = location_and_scale(data[valid])
    image = _normalised(data, valid, level, scale)
    plane = _plane(image, valid)
    image -= plane
    image[~valid] = 0
    background, rms = _maps(image, valid)
    del image
    background = np.add(background, plane, dtype=np.float64)
    background *= scale
    background += level
    return background, np.multiply(rms, scale, dtype=np.float64)


def _normalised(data, valid, level, scale):
    """The image in units of its scatter: numbers about one, for which float32 is enough, with half the memory."""
    image = np.subtract(data, level, dtype=np.float64)
    image /= scale
    image[~valid] = 0
    return np.clip(image, -1e15, 1e15, out=image).astype(np.float32)


_BOX_MIN, _BOX_MAX = 16, 64


def _maps(image, valid):
    """Background and rms maps of an image whose scatter is about one."""
    box = min(_BOX_MAX, min(image.shape) // 4)
    sources = _sources(image, valid, None if box < _BOX_MIN else box)
    sky = valid & ~sources
    # A stamp that is all source still has a sky level in its fainter pixels.
    if sky.sum() < max(0.1 * valid.sum(), 16):
        sky = valid
    level, scale = location_and_scale(image[sky])
    constant = np.broadcast_to(level, image.shape), np.broadcast_to(scale, image.shape)
    if box < _BOX_MIN:
        return constant
    background, _ = _background_2d(image, sky, box)
    if background is None:
        return constant
    # A slope inside the boxes would pass for noise: what is left after the first map gives the rms.
    _, rms = _background_2d(image - background, sky, box, step=2)
    if rms is None:
        return constant
    return background, np.maximum(rms, 0.1 * scale)


def _plane(image, valid):
    """The plane through the lower values of 8 x 8 boxes, without those that lie off: a first guess at a sloping sky.

    Maps made of boxes are flat in the outer half of the outermost ones: what slopes there would pass for a source.
    """
    if min(image.shape) < 4 * _BOX_MIN:
        return np.zeros(image.shape)
    edges_y, edges_x = (np.linspace(0, n, 9).astype(int) for n in image.shape)
    points = []
    for y0, y1 in pairwise(edges_y):
        for x0, x1 in pairwise(edges_x):
            box = image[y0:y1, x0:x1][valid[y0:y1, x0:x1]]
            if box.size > 0.3 * (y1 - y0) * (x1 - x0):
                # A low quantile: a median rises where sources fill a good part of a box.
                points.append(
                    (1.0, (x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2, np.quantile(box[:: box.size // 4000 + 1], 0.3))
                )
    if len(points) < 16:
        return np.zeros(image.shape)
    points = np.array(points)
    terms, values = points[:, :3], points[:, 3]
    use = np.ones(len(points), bool)
    for _ in range(5):
        plane = np.linalg.lstsq(terms[use], values[use], rcond=None)[0]
        rest = values - terms @ plane
        middle, spread = location_and_scale(rest[use])
        use = np.abs(rest - middle) < 3 * spread
        if use.sum() < 12:
            return np.zeros(image.shape)
    y, x = np.arange(image.shape[0])[:, None], np.arange(image.shape[1])[None, :]
    return (plane[1] * (x - x.mean()) + plane[2] * (y - y.mean())).astype(np.float32)


def _background_2d(image, sky, box, step=1):
    """Background and rms from photutils' boxes, or (None, None) where too little sky is left for them.

    ``step`` 2 takes every other row and column where boxes have plenty of them.
    """
    from astropy.stats import SigmaClip
    from photutils.background import Background2D, MADStdBackgroundRMS, MedianBackground

    step = step if box >= _BOX_MAX else 1
    with quiet():
        try:
            boxes = Background2D(
                image[::step, ::step],
                box // step,
                mask=~sky[::step, ::step],
                exclude_percentile=80.0,
                sigma_clip=SigmaClip(sigma=3.0, maxiters=5),
                bkg_estimator=MedianBackground(),
                bkg_rms_estimator=MADStdBackgroundRMS(),
            )
            background, rms = np.asarray(boxes.background_mesh), np.asarray(boxes.background_rms_mesh)
        except ValueError:  # every box is mostly masked
            return None, None
    if not (np.isfinite(background).all() and np.isfinite(rms).all()):
        return None, None
    return _from_boxes(background, image.shape, box, 3), _from_boxes(rms, image.shape, box, 1)


def _from_boxes(mesh, shape, box, degree):
    """A spline through the values at the boxes' centres, constant beyond the outermost ones.

    Two small matrix products: a tenth of the time of the general interpolation in photutils' own maps.
    """
    from scipy.interpolate import make_interp_spline

    matrices = []
    for n_boxes, n in zip(mesh.shape, shape, strict=True):
        edges = np.minimum(np.arange(n_boxes + 1) * box, n)
        centres = (edges[:-1] + edges[1:] - 1) / 2
        if n_boxes == 1:
            matrices.append(np.ones((n, 1)))
            continue
        spline = make_interp_spline(centres, np.eye(n_boxes), k=min(degree, n_boxes - 1))
        matrices.append(spline(np.clip(np.arange(n), centres[0], centres[-1])))
    return (matrices[0] @ mesh).astype(np.float32) @ matrices[1].T.astype(np.float32)


def _sources(image, valid, box):
    """True on sources: 3 sigma from the sky after smoothing, grown."""
    from scipy.ndimage import gaussian_filter

    if min(image.shape) < 8:
        return np.zeros(image.shape, bool)
    smooth = gaussian_filter(image, 1.5, mode="reflect")
    if box is not None:
        # Finding sources needs no fine maps, and the time goes with the number of boxes.
        box = 2 * box if min(image.shape) >= 8 * _BOX_MAX else box
        # A first map, sources and all, takes out what would pass for sources or hide them.
        first, _ = _background_2d(image, valid, box, step=2)
        if first is not None:
            smooth -= first
        smooth /= _relative_noise(image, valid, box)
    sources = np.zeros(image.shape, bool)
    for _ in range(3):  # the sky is known better once the brightest are out
        sky = valid & ~sources
        if not sky.any():
            break
        level, scale = location_and_scale(smooth[sky])
        sources = grow_mask(np.abs(smooth - level) > 3 * scale, 4)
    return sources & valid


def _relative_noise(image, valid, box):
    """How the noise varies over the image (median 1), from differences of neighbours, which know little of sources."""
    difference = image - 0.5 * (np.roll(image, 1, axis=0) + np.roll(image, 1, axis=1))
    usable = valid & np.roll(valid, 1, axis=0) & np.roll(valid, 1, axis=1)
    usable[0] = usable[:, 0] = False
    _, rms = _background_2d(difference, usable, box, step=2)
    if rms is None or not np.median(rms) > 0:
        return 1.0
    return np.clip(rms / np.median(rms), 0.1, 10)


def location_and_scale(values):
    """Median and standard deviation of the sky by 3-sigma clipping about the median; the scale is never zero."""
    # Every n-th of some 300,000 values tells the median to 0.2 % of the scatter; n is odd, as columns come in pairs.
    values = values[:: 2 * (len(values) // 600_000) + 1].astype(np.float64)
    kept = values
    level = scale = 0.0
    for _ in range(10):
        level = np.median(kept)
        scale = 1.482602218505602 * np.median(np.abs(kept - level))
        inside = np.abs(kept - level) <= 3 * scale
        if scale == 0 or inside.all():
            break
        kept = kept[inside]
    if scale == 0:  # more than half the pixels are equal: quantised, noise-free or padded
        scale = np.std(values[values != level] - level) if (values != level).any() else 0.0
    if not scale > 0:
        scale = np.finfo(np.float32).eps * abs(level) or 1.0
    return float(level), float(scale)
