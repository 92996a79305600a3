"""Training pairs from real images of two surveys: cut-outs on each survey's own pixels, and what lies between them.

Nothing is resampled. A cut-out begins at a whole pixel, and the transform from one to the other, through both WCSs,
goes with it for a network's own resampler to use: an image that was interpolated first has lost detail, and its noise
is no longer that of the survey.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np

from astrogan.api import Observation, Target
from astrogan.exceptions import InputError
from astrogan.simulate.surveys._fits_fields import Field, centroid, check_overlap, positions_of, window_of

__all__ = ["FitsPair", "pairs_from_fits"]

_LARGEST = 2**26
"""Pixels of a cut-out."""


@dataclass(frozen=True)
class FitsPair:
    """One place on the sky as two surveys saw it.

    Parameters
    ----------
    first, second : `~astrogan.api.Observation`
        In each image's own flux, pixels and depth. Where a cut-out reaches over its image's edge it is 0 and not
        valid.
    first_wcs, second_wcs : `~astropy.wcs.WCS`
        Of the cut-outs.
    position : tuple of float
        (ra, dec) in degrees, ICRS: what the cut-outs are centred on, to half a pixel.
    corners : tuple of tuple of int
        (x, y) of each cut-out's first pixel in its image.
    footprint : float
        The smallest of: the parts of each cut-out that lie on its own image, and on the other's.
    masked : float
        The larger part of the pixels of a cut-out that are not valid, in the band where that is most.
    offset : float
        Arcsec between the centroids that the two surveys give the source; NaN where one has no solution.
    reasons : tuple of str
        Why the pair should not be used; empty for a good one.
    """

    first: Observation
    second: Observation
    first_wcs: object
    second_wcs: object
    position: tuple[float, float]
    corners: tuple[tuple[int, int], tuple[int, int]]
    footprint: float
    masked: float
    offset: float
    reasons: tuple[str, ...] = ()

    @property
    def quarantined(self) -> bool:
        """Whether there is a reason not to use it."""
        return bool(self.reasons)

    def to_second(self, x, y):
        """Pixels of the first cut-out to those of the second, through the sky; arrays (x, y), 0-based."""
        return _mapping(self.first_wcs, self.second_wcs)(x, y)

    def to_first(self, x, y):
        """Pixels of the second cut-out to those of the first."""
        return _mapping(self.second_wcs, self.first_wcs)(x, y)

    @property
    def affine(self) -> np.ndarray:
        """`to_second` about the middle of the first cut-out: (2, 3), with (x', y') = ``affine`` (x, y, 1)."""
        return local_affine(self.to_second, self.first.shape[1:])

    def target(self, noise=None, *, reverse=False) -> Target:
        """The second cut-out's grid and PSF as the target of a translation of the first one.

        Parameters
        ----------
        noise : array_like, optional
            Standard deviation of the target's blank sky, (band,).
        reverse : bool, optional
            The first as the target of the second.

        Returns
        -------
        `~astrogan.api.Target`
        """
        source, wanted = (self.second, self.first) if reverse else (self.first, self.second)
        wcs_in, wcs_out = (self.second_wcs, self.first_wcs) if reverse else (self.first_wcs, self.second_wcs)
        to_input, to_output = (self.to_second, self.to_first) if reverse else (self.to_first, self.to_second)
        linear = local_affine(to_input, wanted.shape[1:])[:, :2]
        return Target(
            shape=wanted.shape[1:],
            to_input=to_input,
            to_output=to_output,
            area_ratio=float(abs(np.linalg.det(linear))),
            pixel_scale=wanted.pixel_scale,
            psf=wanted.psf if wanted.psf is None or len(wanted.psf) == len(source.data) else None,
            noise=None if noise is None else np.asarray(noise, float),
            wcs_in=wcs_in,
            wcs_out=wcs_out,
        )


def pairs_from_fits(
    first,
    second,
    positions=None,
    *,
    size=25.0,
    shapes=None,
    first_psf=None,
    second_psf=None,
    max_offset=0.1,
    max_masked=0.0,
    min_footprint=1.0,
    threshold=10.0,
    limit=None,
    first_options=None,
    second_options=None,
):
    """Cut-outs of the same places from images of two surveys.

    Parameters
    ----------
    first, second : path, `~astropy.nddata.NDData`, list or dict
        One band, or several, as for `~astrogan.image.prepare.prepare`; each with a celestial WCS. Never changed.
    positions : optional
        A `~astropy.coordinates.SkyCoord`, a table with ``ra`` and ``dec``, or (n, 2) in degrees (ICRS). Those whose
        middle is not on both images are left out. Default: the sources found on the first image that are brighter
        than ``threshold`` and lie on the second, too, the brightest first.
    size : float or `~astropy.units.Quantity`, optional
        Edge of the cut-outs in arcsec; each has as many whole pixels as cover it.
    shapes : tuple, optional
        ((y, x), (y, x)) in pixels, in place of ``size``.
    first_psf, second_psf : optional
        In any form that `~astrogan.image.psf.as_psf` takes. Default: the image's own or its header's, or none. One that
        varies over the field is taken at the cut-out.
    max_offset : float or `~astropy.units.Quantity`, optional
        Largest distance between the centroids, in arcsec.
    max_masked : float, optional
        Largest part of a cut-out's pixels that may be invalid.
    min_footprint : float, optional
        Smallest part of a cut-out that must lie on both images.
    threshold : float, optional
        Of detection: the peak over the noise after smoothing.
    limit : int, optional
        At most so many pairs.
    first_options, second_options : dict, optional
        ``unit``, ``hdu``, ``mask``, ``uncertainty``, ``saturation`` ... of each image: see
        `~astrogan.image.prepare.prepare`.

    Returns
    -------
    list of `FitsPair`
        Good ones and those in quarantine (``pair.quarantined``, ``pair.reasons``), in the order of the positions. Both
        cut-outs have a variance: the image's own, or that of its background.

    Raises
    ------
    WCSError
        If an image has no celestial WCS, or the two have no sky in common.
    InputError
        If no position lies on both, nothing is detected, or an option is out of range.

    Notes
    -----
    Centroids are windowed (a round Gaussian that follows the source, as SExtractor's XWIN_IMAGE), on the sum of the
    bands in units of their noise, with a window of one width on the sky for both images: that of the broader PSF, or
    of three pixels of the coarser one where PSFs are unknown. Of a faint source the offset is the noise of its
    centroids, and its pair is set aside as well.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astropy.wcs import WCS
    >>> from astrogan.simulate.surveys.fits_pairs import pairs_from_fits
    >>> def image(scale, n):
    ...     wcs = WCS(naxis=2)
    ...     wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150, 2]
    ...     wcs.wcs.crpix, wcs.wcs.cdelt = [(n + 1) / 2] * 2, [-scale / 3600, scale / 3600]
    ...     y, x = (np.mgrid[:n, :n] - (n - 1) / 2) * scale
    ...     noise = np.random.default_rng(n).normal(0, 0.5, (n, n))
    ...     return CCDData(100 * np.exp(-(x**2 + y**2) / 2) + noise, unit="adu", wcs=wcs)
    >>> (pair,) = pairs_from_fits(image(0.4, 80), image(0.2, 160), [(150, 2)], size=20)
    >>> pair.first.shape, pair.second.shape, pair.quarantined
    ((1, 50, 50), (1, 100, 100), False)
    >>> pair.affine.round(6)
    array([[2. , 0. , 0.5],
           [0. , 2. , 0.5]])
    """
    from astrogan.image._arguments import positive_arcsec

    max_offset = positive_arcsec(max_offset, "max_offset")
    _check_part(max_masked, "max_masked")
    _check_part(min_footprint, "min_footprint")
    images = (
        Field.of(first, "first", first_psf, first_options),
        Field.of(second, "second", second_psf, second_options),
    )
    check_overlap(*images)
    shapes = _shapes(shapes, size, images)
    ra, dec = positions_of(positions, images, threshold)
    places = [image.pixels(ra, dec) for image in images]
    inside = np.logical_and(*(image.holds(x, y) for image, (x, y) in zip(images, places, strict=True)))
    if not inside.any():
        raise InputError(f"none of the {len(ra)} positions lies on both images; give others, or None to detect sources")
    window = window_of(images)
    chosen = np.flatnonzero(inside)[:limit]
    limits = (max_offset, float(max_masked), float(min_footprint))
    return [
        _pair((float(ra[i]), float(dec[i])), images, [(x[i], y[i]) for x, y in places], shapes, window, limits)
        for i in chosen
    ]


def local_affine(mapping, shape):
    """The affine map (2, 3) that a mapping of pixels is about the middle of an image of ``shape`` (y, x)."""
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    u, v = mapping(np.array([x, x + 0.5, x - 0.5, x, x]), np.array([y, y, y, y + 0.5, y - 0.5]))
    matrix = np.array([[u[1] - u[2], u[3] - u[4]], [v[1] - v[2], v[3] - v[4]]])
    return np.column_stack([matrix, np.array([u[0], v[0]]) - matrix @ [x, y]])


def _mapping(source, destination):
    from astrogan.image.wcs import pixel_mapping

    return pixel_mapping(source, destination)


def _shapes(shapes, size, images):
    from astrogan.image._arguments import positive_arcsec

    if shapes is None:
        size = positive_arcsec(size, "size")
        shapes = tuple((int(np.ceil(size / image.scale - 1e-6)),) * 2 for image in images)
    try:
        (ya, xa), (yb, xb) = shapes
        found = tuple((int(y), int(x)) for y, x in ((ya, xa), (yb, xb)))
    except (TypeError, ValueError):
        found = ((0, 0),)
    if min(min(shape) for shape in found) < 1 or max(y * x for y, x in found) > _LARGEST:
        raise InputError(f"shapes={shapes!r} must be ((y, x), (y, x)) in pixels, e.g. ((64, 64), (136, 136))")
    return found


def _check_part(value, name):
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
        raise InputError(f"{name}={value!r} must be a part between 0 and 1")


# ---- a pair ---------------------------------------------------------------------------------------------------------


def _pair(position, images, places, shapes, window, limits):
    from astrogan.image.wcs import crop_wcs

    cuts = [_cut(image, place, shape) for image, place, shape in zip(images, places, shapes, strict=True)]
    wcs = [crop_wcs(image.wcs, *corner, shape) for image, (_, corner), shape in zip(images, cuts, shapes, strict=True)]
    footprint = min(_covered(wcs[k], shapes[k], image) for k in (0, 1) for image in images)
    masked = max(float((~cut.valid).mean(axis=(1, 2)).max()) for cut, _ in cuts)
    offset = _offset(images, places, window)
    return FitsPair(
        first=cuts[0][0],
        second=cuts[1][0],
        first_wcs=wcs[0],
        second_wcs=wcs[1],
        position=position,
        corners=(cuts[0][1], cuts[1][1]),
        footprint=footprint,
        masked=masked,
        offset=offset,
        reasons=_reasons(footprint, masked, offset, limits),
    )


def _cut(image, place, shape):
    """(observation, (x0, y0)): whole pixels, the place within half a pixel of the middle."""
    x0, y0 = (int(np.floor(p - (n - 1) / 2 + 0.5)) for p, n in zip(place, shape[::-1], strict=True))
    whole, scale = image.observation, image.prepared.scale
    # Parts outside of the image are empty and not valid.
    inside, within = _windows((y0, x0), shape, image.shape)
    data, valid, variance = (np.zeros((len(whole.data), *shape), t) for t in (np.float32, bool, np.float32))
    data[:, *within] = whole.data[:, *inside] * scale
    valid[:, *within] = whole.valid[:, *inside]
    variance[:, *within] = whole.variance[:, *inside] * scale**2
    psf = whole.psf
    if image.prepared.psf is not None and image.prepared.psf.varies:
        psf = image.prepared.psf.at(*place)
    cut = Observation(
        data=data,
        valid=valid,
        variance=variance,
        psf=psf,
        pixel_scale=whole.pixel_scale,
        bands=whole.bands,
        measured_noise=whole.measured_noise,
    )
    return cut, (x0, y0)


def _windows(corner, shape, whole):
    """Slices (y, x) of the image that a cut-out holds, and where they go in the cut-out."""
    inside, within = [], []
    for first, n, full in zip(corner, shape, whole, strict=True):
        a, b = np.clip([first, first + n], 0, full)
        inside.append(slice(int(a), int(b)))
        within.append(slice(int(a) - first, int(b) - first))
    return tuple(inside), tuple(within)


def _covered(wcs, shape, image):
    """The part of a cut-out's pixels whose every corner lies on an image."""
    x, y = np.meshgrid(np.arange(shape[1] + 1) - 0.5, np.arange(shape[0] + 1) - 0.5)
    x, y = _mapping(wcs, image.wcs)(x, y)
    # A hair of room, because the way through the sky and back is not exact.
    good = np.isfinite(x) & image.holds(np.round(x, 6), np.round(y, 6))
    return float((good[1:, 1:] & good[:-1, 1:] & good[1:, :-1] & good[:-1, :-1]).mean())


def _offset(images, places, window):
    """Arcsec between the centroids of the two images."""
    from astrogan.image.wcs import _separation

    found = [centroid(i.light, place, window / i.scale) for i, place in zip(images, places, strict=True)]
    if not np.isfinite(found).all():
        return float("nan")
    (ra, dec), (ra2, dec2) = (image.sky(*centre) for image, centre in zip(images, found, strict=True))
    return float(_separation(ra, dec, ra2, dec2)) * 3600


def _reasons(footprint, masked, offset, limits):
    max_offset, max_masked, min_footprint = limits
    reasons = []
    if footprint < min_footprint:
        reasons.append(f"footprint {footprint:.4f} is less than {min_footprint:g}")
    if masked > max_masked:
        reasons.append(f"masked part {masked:.4f} is more than {max_masked:g}")
    if not np.isfinite(offset):
        reasons.append("the source has no centroid in one of the images")
    elif offset > max_offset:
        reasons.append(f"centroids are {offset:.3f} arcsec apart, more than {max_offset:g}")
    return tuple(reasons)
