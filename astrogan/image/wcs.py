"""World coordinate systems that follow the pixels: crop, rescale, compare, and put a band axis in front.

Every function takes 2-D celestial WCSs and 3-D ones (celestial first two pixel axes, band axis last), keeps SIP,
TPV/PV, look-up tables, CD, PC + CDELT and CROTA, returns new objects and maps `None` to `None`. Pixel positions are
(x, y), 0-based, with pixel centres at integers.

Cropping and rescaling are the same thing to a WCS: a new pixel coordinate ``p' = s p + t`` on both axes. The linear
terms (CD, or PC and CDELT) are divided by ``s``; SIP polynomials live in pixels, so that ``A'_pq = A_pq s^(1-p-q)``
(and the same for B and for the inverse AP, BP); look-up tables hold pixels, and scale with ``s``; PV terms of TPV and
of other projections live in degrees, and stay.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from astrogan.exceptions import InputError, WCSError

if TYPE_CHECKING:
    from collections.abc import Callable

    from astropy.io.fits import Header
    from astropy.wcs import WCS

__all__ = [
    "celestial",
    "crop_wcs",
    "cube_wcs",
    "local_scale",
    "pixel_corners",
    "pixel_mapping",
    "pixel_scale",
    "replace_celestial",
    "rescale_wcs",
    "wcs_equal",
    "wcs_from_header",
]

# Distorted systems have no closed inverse. astropy's default of 1e-4 pixels is too coarse for a resampling grid.
_INVERSE_TOLERANCE = 1e-9
_INVERSE_ITERATIONS = 100


def celestial(wcs) -> WCS | None:
    """The celestial part of a WCS.

    Parameters
    ----------
    wcs : `astropy.wcs.WCS` or None
        With any number of axes; a slice of one, as ``NDData`` keeps it, is resolved.

    Returns
    -------
    `astropy.wcs.WCS` or None
        A new 2-D WCS; `None` for `None` and for a WCS without sky coordinates.

    Raises
    ------
    `~astrogan.exceptions.WCSError`
        If the sky is not on the first two pixel axes, or ``wcs`` is not a FITS WCS.
    """
    from astropy.wcs import WCS

    if wcs is None:
        return None
    wcs = _fits_wcs(wcs)
    if wcs.naxis < 2 or not wcs.has_celestial:
        return None
    if {wcs.wcs.lng, wcs.wcs.lat} != {0, 1}:
        raise WCSError(
            f"wcs has its celestial axes at {wcs.wcs.lng + 1} and {wcs.wcs.lat + 1}; they must be the first two "
            "FITS axes: transpose the cube to (band, y, x) with its WCS"
        )
    if wcs.naxis == 2 and type(wcs) is WCS:
        out = _copy(wcs)
        if out.pixel_shape is not None:
            out.pixel_shape = out.pixel_shape[:2]  # longer where two axes were read from a cube's header
        return out
    # Not WCS.celestial: it copies the whole cube's WCS first, which wcslib refuses for TPV with three axes.
    out = WCS(naxis=2)
    out.wcs = wcs.wcs.sub([1, 2])
    out.sip, out.cpdis1, out.cpdis2, out.det2im1, out.det2im2 = _distortions(wcs)
    if wcs.pixel_shape is not None:
        out.pixel_shape = wcs.pixel_shape[:2]
    if wcs.pixel_bounds is not None:
        out.pixel_bounds = wcs.pixel_bounds[:2]
    return out


def local_scale(wcs: WCS, x: float, y: float, step: float = 8.0) -> float:
    """Arcsec per pixel at one place: the square root of a pixel's area on the sky, distortions included.

    Parameters
    ----------
    wcs : `astropy.wcs.WCS`
        2-D and celestial.
    x, y : float
        Position in pixels.
    step : float
        Half the baseline of the finite differences, in pixels.

    Returns
    -------
    float
        NaN where the sky is not defined.
    """
    lon, lat = np.radians(wcs.all_pix2world([x + step, x - step, x, x], [y, y, y + step, y - step], 0))
    points = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    along_x, along_y = (points[:, ::2] - points[:, 1::2]).T / (2 * step)
    return float(np.degrees(np.sqrt(np.linalg.norm(np.cross(along_x, along_y)))) * 3600)


def pixel_scale(wcs, shape: tuple[int, ...] | None = None) -> float | None:
    """Arcsec per pixel, the square root of a pixel's area on the sky, at the image's centre.

    Parameters
    ----------
    wcs : `astropy.wcs.WCS` or None
        2-D or 3-D.
    shape : tuple of int, optional
        Shape of the image, (y, x) or (band, y, x). Default: the WCS's own ``array_shape``; where it has none, the
        scale is that at CRPIX.

    Returns
    -------
    float or None
        `None` without a celestial WCS.
    """
    wcs = celestial(wcs)
    if wcs is None:
        return None
    shape = wcs.array_shape if shape is None else tuple(shape)[-2:]
    x, y = wcs.wcs.crpix - 1 if shape is None else ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    scale = local_scale(wcs, x, y)
    if np.isfinite(scale) and scale > 0:
        return scale
    from astropy.wcs.utils import proj_plane_pixel_area

    return float(np.sqrt(proj_plane_pixel_area(wcs)) * 3600)


def crop_wcs(wcs, x0: float, y0: float, shape: tuple[int, ...] | None = None) -> WCS | None:
    """The WCS of a cut-out whose first pixel is (x0, y0) of the image.

    Parameters
    ----------
    wcs : `astropy.wcs.WCS` or None
        2-D or 3-D.
    x0, y0 : float
        0-based; negative ones describe a padded image, fractions a shifted one.
    shape : tuple of int, optional
        Shape of the cut-out, (y, x); without it the result's ``pixel_shape`` is not set.

    Returns
    -------
    `astropy.wcs.WCS` or None
        A new WCS.
    """
    if wcs is None:
        return None
    return _transform(_fits_wcs(wcs), 1.0, np.array([-float(x0), -float(y0)]), shape)


def rescale_wcs(
    wcs,
    factor: float,
    shape_in: tuple[int, ...],
    shape_out: tuple[int, ...] | None = None,
    *,
    anchor: str = "corner",
) -> WCS | None:
    """The WCS of an image on a finer or coarser pixel grid of the same orientation.

    Parameters
    ----------
    wcs : `astropy.wcs.WCS` or None
        2-D or 3-D.
    factor : float
        Pixel scale before over pixel scale after: 2 gives twice as many pixels along an axis, 1 / 3 is what remains
        after summing blocks of 3 x 3.
    shape_in : tuple of int
        Shape before, (y, x) or (band, y, x).
    shape_out : tuple of int, optional
        Shape after, (y, x). Default: as many whole pixels as fit, ``floor(shape_in * factor)``.
    anchor : {"corner", "centre"}
        What stays in place. With ``"corner"`` the outer corner of the first pixel does, whatever remainder was dropped
        or added at the far edges: rebinning, zooming. With ``"centre"`` the middle of the field does. The two agree
        where ``shape_out`` is ``shape_in * factor`` exactly.

    Returns
    -------
    `astropy.wcs.WCS` or None
        A new WCS.

    Raises
    ------
    `~astrogan.exceptions.InputError`
        If ``factor`` is not positive or ``anchor`` is unknown.

    Notes
    -----
    In FITS pixels, ``crpix' = (crpix - 1/2) s + 1/2`` for the corner, and
    ``crpix' = (crpix - (N_in + 1) / 2) s + (N_out + 1) / 2`` for the centre.
    """
    if not (np.isscalar(factor) and np.isfinite(factor) and factor > 0):
        raise InputError(f"factor={factor!r} must be a positive number, e.g. 2 for twice as many pixels")
    if anchor not in ("corner", "centre"):
        raise InputError(f"anchor={anchor!r} is unknown; use 'corner' or 'centre'")
    if wcs is None:
        return None
    shape_in = tuple(shape_in)[-2:]
    if shape_out is None:
        # The small allowance keeps a factor such as 0.1 + 0.2 from losing the last pixel to rounding.
        shape_out = tuple(max(1, int(np.floor(n * factor * (1 + 1e-12) + 1e-9))) for n in shape_in)
    shape_out = tuple(shape_out)[-2:]
    if anchor == "corner":
        shift = np.full(2, 0.5 - 0.5 * factor)
    else:
        shift = (np.array(shape_out[::-1]) + 1) / 2 - (np.array(shape_in[::-1]) + 1) / 2 * factor
    return _transform(_fits_wcs(wcs), float(factor), shift, shape_out)


def cube_wcs(wcs, n_bands: int) -> WCS | None:
    """Put a linear band axis behind a celestial WCS; the world coordinate along it is the band's number from 0.

    Parameters
    ----------
    wcs : `astropy.wcs.WCS` or None
        2-D; of a 3-D one the celestial part is taken.
    n_bands : int
        Length of the new axis.

    Returns
    -------
    `astropy.wcs.WCS` or None
        With three axes, so that it fits data of shape (band, y, x).

    Raises
    ------
    `~astrogan.exceptions.WCSError`
        If ``wcs`` is not celestial.

    Notes
    -----
    astropy evaluates SIP and look-up tables in two dimensions only, and cannot copy a three-dimensional TPV system.
    For such systems the result is a subclass of `~astropy.wcs.WCS` that does both. Its FITS header is an ordinary
    one; read it back with `wcs_from_header`.
    """
    if wcs is None:
        return None
    if not (isinstance(n_bands, int | np.integer) and n_bands > 0):
        raise InputError(f"n_bands={n_bands!r} must be a positive integer")
    sky = celestial(wcs)
    if sky is None:
        raise WCSError("wcs has no celestial axes, so that it cannot be that of a cube of images; leave it None")
    axis = {"ctype": "BAND", "cunit": "", "crpix": 1.0, "crval": 0.0, "cdelt": 1.0}
    return _attach_axis(sky, axis, None if sky.pixel_shape is None else int(n_bands))


def replace_celestial(wcs, sky) -> WCS | None:
    """A WCS with another celestial part: ``sky`` itself for a 2-D one, ``sky`` and the third axis for a 3-D one.

    Parameters
    ----------
    wcs : `astropy.wcs.WCS` or None
        2-D or 3-D, its celestial axes first.
    sky : `astropy.wcs.WCS` or None
        2-D; `None` gives `None`.

    Returns
    -------
    `astropy.wcs.WCS` or None
        A new WCS.
    """
    sky = celestial(sky)
    if sky is None or wcs is None:
        return sky
    wcs = _fits_wcs(wcs)
    if wcs.naxis == 2:
        return sky
    return _attach_axis(sky, _third_axis(wcs), None if wcs.pixel_shape is None else wcs.pixel_shape[2])


def wcs_equal(a, b, shape: tuple[int, ...], tol_arcsec: float = 1e-6) -> bool:
    """Whether two WCSs give the same sky over an image.

    Parameters
    ----------
    a, b : `astropy.wcs.WCS` or None
        Only their celestial parts are compared.
    shape : tuple of int
        Shape of the image, (y, x) or (band, y, x).
    tol_arcsec : float
        Largest separation allowed, over the outer corners and an 8 x 8 grid.

    Returns
    -------
    bool
        `True` also when neither has a celestial part.
    """
    a, b = celestial(a), celestial(b)
    if a is None or b is None:
        return a is None and b is None
    height, width = tuple(shape)[-2:]
    x, y = np.meshgrid(np.linspace(-0.5, width - 0.5, 8), np.linspace(-0.5, height - 0.5, 8))
    sky_a, sky_b = a.all_pix2world(x, y, 0), b.all_pix2world(x, y, 0)
    sky_a = _change_frame(a, b)(*sky_a)
    if not np.array_equal(np.isfinite(sky_a), np.isfinite(sky_b)):
        return False
    separation = _separation(*sky_a, *sky_b)
    return bool(np.all(separation[np.isfinite(separation)] * 3600 <= tol_arcsec))


def pixel_mapping(source, destination) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Pixels of one image to pixels of another, through the sky.

    Parameters
    ----------
    source, destination : `astropy.wcs.WCS`
        Celestial; their reference frames may differ.

    Returns
    -------
    callable
        ``mapping(x, y) -> (x, y)``, arrays of any shape, NaN where the sky is not on the other image's projection.
        Inverse distortions are iterated to 1e-9 pixels.

    Raises
    ------
    `~astrogan.exceptions.WCSError`
        If one of them is not celestial.
    """
    a, b = celestial(source), celestial(destination)
    if a is None or b is None:
        raise WCSError("both images need a celestial WCS to be mapped onto each other")
    change = _change_frame(a, b)
    for wcs in (a, b):
        wcs.wcs.set()  # so that the mapping only reads, and may be shared by threads

    def mapping(x, y):
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        lon, lat = change(*a.all_pix2world(x.ravel(), y.ravel(), 0))
        return tuple(p.reshape(x.shape) for p in _world_to_pixel(b, lon, lat))

    return mapping


def pixel_corners(to_input, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the pixels of one grid lie on another.

    Parameters
    ----------
    to_input : callable
        ``to_input(x, y) -> (x, y)``, pixels of the grid to pixels of the other.
    shape : tuple of int
        (y, x) of the grid.

    Returns
    -------
    x, y : `numpy.ndarray`
        The corners on the other grid, each of shape (y + 1, x + 1).
    area : `numpy.ndarray`
        Area of each pixel in pixels of the other grid, shape (y, x).

    Examples
    --------
    >>> from astrogan.image.wcs import pixel_corners
    >>> x, y, area = pixel_corners(lambda x, y: (2 * x + 0.5, 2 * y + 0.5), (2, 3))
    >>> x[0]
    array([-0.5,  1.5,  3.5,  5.5])
    >>> area[0]
    array([4., 4., 4.])
    """
    x, y = np.meshgrid(np.arange(shape[1] + 1) - 0.5, np.arange(shape[0] + 1) - 0.5)
    x, y = to_input(x, y)
    # Half the cross product of the diagonals is the area of any quadrilateral.
    down = x[1:, 1:] - x[:-1, :-1], y[1:, 1:] - y[:-1, :-1]
    up = x[:-1, 1:] - x[1:, :-1], y[:-1, 1:] - y[1:, :-1]
    return x, y, np.abs(down[0] * up[1] - down[1] * up[0]) / 2


def wcs_from_header(header: Header, *, naxis: int | None = None) -> WCS | None:
    """Read a WCS from a FITS header, with fewer surprises than the constructor of `~astropy.wcs.WCS`.

    Parameters
    ----------
    header : `astropy.io.fits.Header`
        Of an image or a cube.
    naxis : int, optional
        Number of axes wanted, 2 or 3. Default: the header's NAXIS (or WCSAXES).

    Returns
    -------
    `astropy.wcs.WCS` or None
        `None` where the header has no usable celestial WCS. Cubes with SIP, which astropy refuses, are read too. The
        corrections that astropy makes to dated or non-standard keywords are made without a warning.

    Raises
    ------
    `~astrogan.exceptions.WCSError`
        If the header's WCS contradicts itself.
    """
    from astropy.wcs import WCS

    from astrogan.image._quiet import quiet

    if naxis is None:
        naxis = int(header.get("NAXIS", 0)) or int(header.get("WCSAXES", 2))
    with quiet():
        try:
            if naxis == 2 or not _is_distorted(header):
                wcs = WCS(header, naxis=naxis, relax=True)
                return wcs if celestial(wcs) is not None else None
            sky = celestial(WCS(header, naxis=2, relax=True))
        except WCSError:
            raise
        except Exception as error:
            raise WCSError(f"the header's WCS cannot be used: {str(error).strip()}; remove or correct it") from error
    if sky is None:
        return None
    axis = {"ctype": header.get("CTYPE3", ""), "cunit": str(header.get("CUNIT3", ""))}
    for name, default in (("crpix", 0.0), ("crval", 0.0), ("cdelt", header.get("CD3_3", 1.0))):
        axis[name] = float(header.get(f"{name.upper()}3", default))
    return _attach_axis(sky, axis, header.get("NAXIS3"))


# ---------------------------------------------------------------------------------------------------------------------


def _copy(wcs):
    """A deep copy whose parameters are set, so that reading them later changes nothing in it."""
    out = wcs.deepcopy()
    out.wcs.set()
    return out


def _fits_wcs(wcs):
    """The FITS WCS inside ``wcs``, which may be wrapped and sliced."""
    from astropy.wcs import WCS
    from astropy.wcs.wcsapi import SlicedLowLevelWCS

    if isinstance(wcs, WCS):
        return wcs
    low = getattr(wcs, "low_level_wcs", wcs)
    if isinstance(low, WCS):
        return low
    if isinstance(low, SlicedLowLevelWCS) and isinstance(low._wcs, WCS):
        cut = low._slices_array[-2:]
        if all(isinstance(item, slice) for item in cut):
            # An integer has taken a band of a cube: what is left is the celestial part.
            base = low._wcs if len(low._slices_array) == low.pixel_n_dim else celestial(low._wcs)
            return base[(slice(None),) * (base.naxis - 2) + tuple(cut)]
    raise WCSError(
        f"wcs of type {type(wcs).__name__} is not a FITS WCS; give an astropy.wcs.WCS, or None to go without"
    )


def _distortions(wcs):
    return wcs.sip, wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2


def _is_distorted(header):
    """Whether a header has SIP, look-up tables or TPV, which astropy takes with two axes only, or cannot copy."""
    keys = ("A_ORDER", "B_ORDER", "CPDIS1", "CPDIS2", "D2IMDIS1", "D2IMDIS2")
    return any(key in header for key in keys) or "TPV" in str(header.get("CTYPE1", ""))


def _transform(wcs, scale, shift, shape):
    """New FITS pixel coordinates ``scale * p + shift`` on the first two axes."""
    out = _copy(wcs)
    crpix = out.wcs.crpix.copy()
    crpix[:2] = scale * crpix[:2] + shift
    out.wcs.crpix = crpix
    if scale != 1:
        _scale_linear_terms(out.wcs, scale)
    if out.sip is not None:
        out.sip = _scale_sip(out.sip, scale, shift)
    for name in ("cpdis1", "cpdis2", "det2im1", "det2im2"):
        if getattr(out, name) is not None:
            setattr(out, name, _scale_table(getattr(out, name), scale, shift))
    # A header may have more axes than the WCS that was made of it.
    rest = None if wcs.pixel_shape is None else wcs.pixel_shape[2 : out.naxis]
    if shape is None or (rest is None and out.naxis > 2):
        out.pixel_shape = None
    else:
        out.pixel_shape = (*tuple(int(n) for n in shape)[-2:][::-1], *(rest or ()))
    if wcs.pixel_bounds is not None:
        # Bounds are 0-based, and FITS pixels are not.
        moved = [
            bound if bound is None else tuple(scale * (value + 1) + t - 1 for value in bound)
            for bound, t in zip(wcs.pixel_bounds[:2], shift, strict=True)
        ]
        out.pixel_bounds = [*moved, *wcs.pixel_bounds[2:]]
    out.wcs.set()
    return out


def _scale_linear_terms(prm, scale):
    if prm.has_cd():
        cd = prm.cd.copy()
        cd[:, :2] /= scale
        prm.cd = cd
        return
    if prm.naxis > 2 and not prm.has_crota():
        # CDELT scales the rows of PC; where the sky and the third axis mix, take that back.
        pc = prm.get_pc().copy()
        pc[:2, 2:] *= scale
        pc[2:, :2] /= scale
        prm.pc = pc
    cdelt = prm.cdelt.copy()
    cdelt[:2] /= scale
    prm.cdelt = cdelt


def _scale_sip(sip, scale, shift):
    from astropy.wcs import Sip

    def scaled(matrix):
        if matrix is None:
            return None
        p, q = np.indices(matrix.shape)
        return matrix * float(scale) ** (1 - p - q)

    return Sip(*map(scaled, (sip.a, sip.b, sip.ap, sip.bp)), scale * np.asarray(sip.crpix) + shift)


def _scale_table(table, scale, shift):
    from astropy.wcs import DistortionLookupTable

    crval, cdelt = np.array(table.crval), np.array(table.cdelt)
    return DistortionLookupTable(
        np.asarray(table.data, np.float32) * np.float32(scale),
        tuple(table.crpix),
        tuple(scale * crval + shift),
        tuple(scale * cdelt),
    )


def _world_to_pixel(wcs, lon, lat):
    """Longitude and latitude, 1-D, to pixels; NaN where the point has none."""
    good = np.isfinite(lon) & np.isfinite(lat)
    pixels = np.full((2, lon.size), np.nan)
    if good.any():
        pixels[:, good] = wcs.all_world2pix(
            lon[good], lat[good], 0, tolerance=_INVERSE_TOLERANCE, maxiter=_INVERSE_ITERATIONS, quiet=True
        )
    return pixels


def _change_frame(a, b):
    """``(lon, lat) -> (lon, lat)`` in degrees from the frame of one celestial WCS to that of another."""
    from astropy.wcs.utils import wcs_to_celestial_frame

    try:
        frame_a, frame_b = wcs_to_celestial_frame(a), wcs_to_celestial_frame(b)
    except ValueError:
        return lambda lon, lat: (lon, lat)  # a frame that astropy does not know (planets, detectors): taken as equal
    order_a, order_b = (1 if w.wcs.lng == 0 else -1 for w in (a, b))

    def change(first, second):
        lon, lat = (first, second)[::order_a]
        if not frame_a.is_equivalent_frame(frame_b):
            from astropy import units as u
            from astropy.coordinates import SkyCoord

            moved = SkyCoord(lon * u.deg, lat * u.deg, frame=frame_a).transform_to(frame_b).spherical
            lon, lat = moved.lon.deg, moved.lat.deg
        return (lon, lat)[::order_b]

    return change


def _separation(lon_a, lat_a, lon_b, lat_b):
    """Angle between points on the sphere, all in degrees, exact for small and large angles (Vincenty)."""
    from astropy.coordinates import angular_separation

    return np.degrees(angular_separation(*np.radians((lon_a, lat_a, lon_b, lat_b))))


def _third_axis(wcs):
    """The keywords of a 3-D WCS's third axis."""
    prm = wcs.wcs
    return {
        "ctype": prm.ctype[2],
        "cunit": str(prm.cunit[2]),
        "crpix": prm.crpix[2],
        "crval": prm.crval[2],
        "cdelt": prm.cd[2, 2] if prm.has_cd() else prm.cdelt[2] * prm.get_pc()[2, 2],
    }


def _attach_axis(sky, axis, length):
    """A 3-D WCS from a celestial one and the third axis's keywords."""
    from astropy.wcs import WCS

    distorted = any(item is not None for item in _distortions(sky)) or "TPV" in sky.wcs.to_header()
    out = (_cube_class() if distorted else WCS)(naxis=3)
    out.wcs = sky.wcs.sub([1, 2, 0])
    out.wcs.ctype[2], out.wcs.cunit[2] = axis["ctype"], axis["cunit"]
    for name in ("crpix", "crval"):
        values = getattr(out.wcs, name).copy()
        values[2] = axis[name]
        setattr(out.wcs, name, values)
    if out.wcs.has_cd():
        cd = out.wcs.cd.copy()
        cd[2] = cd[:, 2] = 0
        cd[2, 2] = axis["cdelt"]
        out.wcs.cd = cd
    else:
        out.wcs.cdelt = [*out.wcs.cdelt[:2], axis["cdelt"]]
    out.sip, out.cpdis1, out.cpdis2, out.det2im1, out.det2im2 = _distortions(sky)
    if sky.pixel_shape is not None and length is not None:
        out.pixel_shape = (*sky.pixel_shape, int(length))
    if sky.pixel_bounds is not None:
        out.pixel_bounds = [*sky.pixel_bounds, None]
    out.wcs.set()
    return out


@lru_cache(maxsize=1)
def _cube_class():
    """The class of distorted cubes, made on first use so that importing this module does not import astropy."""
    from astropy.wcs import WCS

    class CubeWCS(WCS):
        """A celestial WCS with distortions, and a linear third axis: what `~astropy.wcs.WCS` does not evaluate."""

        def _all_pix2world(self, pixel, origin):
            first = celestial(self)._all_pix2world(np.ascontiguousarray(pixel[:, :2]), origin)
            return np.column_stack([first, self.wcs.p2s(pixel, origin)["world"][:, 2]])

        def _all_world2pix(self, world, origin, **options):
            first = celestial(self)._all_world2pix(np.ascontiguousarray(world[:, :2]), origin, **options)
            return np.column_stack([first, self.wcs.s2p(world, origin)["pixcrd"][:, 2]])

        def __deepcopy__(self, memo):
            length = None if self.pixel_shape is None else self.pixel_shape[2]
            out = _attach_axis(celestial(self), _third_axis(self), length)
            out.pixel_bounds = self.pixel_bounds
            return out

        def __reduce__(self):
            length = None if self.pixel_shape is None else self.pixel_shape[2]
            return _attach_axis, (celestial(self), _third_axis(self), length)

        def sub(self, axes=None):
            # The copy that WCS.sub makes would be of this class, whatever axes remain.
            if axes is None or list(axes) in ([1, 2, 3], [1, 2, 0]):
                return self.deepcopy()
            if _is_sky(axes):
                return celestial(self)
            raise NotImplementedError(f"axes={axes!r}: a cube with distortions gives its celestial part only")

        def slice(self, view, numpy_order=True):
            # WCS.slice looks for a SIP origin on the third axis too.
            view = view if isinstance(view, tuple) else (view,)
            view = (*view, *(slice(None),) * (3 - len(view)))
            view = view if numpy_order else view[::-1]
            if not all(isinstance(item, slice) for item in view):
                return super().slice(view)
            bands, axis = range(self.pixel_shape[2] if self.pixel_shape else 2**31)[view[0]], _third_axis(self)
            axis["crpix"], axis["cdelt"] = (
                (axis["crpix"] - 1 - bands.start) / bands.step + 1,
                axis["cdelt"] * bands.step,
            )
            return _attach_axis(celestial(self)[view[1:]], axis, len(bands) if self.pixel_shape else None)

        def to_header(self, relax=None, key=None):
            # WCS.to_header takes the missing "-SIP" of the third axis for a contradiction, and says so.
            header = celestial(self).to_header(relax=relax, key=key)
            header["WCSAXES"] = 3
            for name, value in _third_axis(self).items():
                header[f"{name.upper()}3"] = value
            return header

    return CubeWCS


def _is_sky(axes):
    from astropy.wcs import WCSSUB_CELESTIAL, WCSSUB_LATITUDE, WCSSUB_LONGITUDE

    return list(axes) in ([1, 2], [WCSSUB_CELESTIAL], [WCSSUB_LONGITUDE, WCSSUB_LATITUDE])
