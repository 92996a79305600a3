"""SDSS "frame" files: a field in one band, calibrated and sky-subtracted, and the noise that belongs to it.

After the data model of the survey (BOSS_PHOTOOBJ, frame): HDU 0 the image in nanomaggies, HDU 1 the nanomaggies per
count of each column, HDU 2 the sky in counts on a coarse grid, with the positions in it of each column and row.
"""

from __future__ import annotations

import bz2
from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import ImageReadError

BANDS = "ugriz"
PIXEL_SCALE = 0.396
"""Arcsec per pixel."""


@dataclass(frozen=True)
class Frame:
    """One field in one band.

    ``data`` (y, x) float32 in nanomaggies; ``variance`` the same in their square, or `None`; ``wcs`` and ``header`` of
    the image.
    """

    data: np.ndarray
    variance: np.ndarray | None
    wcs: object
    header: object


def frame_url(server, data_release, *, run, rerun, camcol, field, band):
    """Where a frame lies on the Science Archive Server."""
    folder = "boss" if data_release <= 12 else "eboss" if data_release <= 17 else "prior-surveys/sdss4-dr17-eboss"
    name = frame_name(run=run, camcol=camcol, field=field, band=band)
    return f"{server}/dr{data_release}/{folder}/photoObj/frames/{rerun}/{run}/{camcol}/{name}"


def frame_name(*, run, camcol, field, band):
    """File name of a frame."""
    return f"frame-{band}-{run:06d}-{camcol}-{field:04d}.fits.bz2"


def check_frame(path):
    """Refuse what is no whole bzip2-packed FITS file."""
    with open(path, "rb") as stream:
        if stream.read(3) != b"BZh":
            raise ValueError("this is no bzip2 file")
    with bz2.open(path) as stream:
        if not stream.read(2880).startswith(b"SIMPLE  ="):
            raise ValueError("this is no FITS file")
        while stream.read(2**22):  # the end of the packed stream has a checksum
            pass


def read_frame(path, gain=None, dark_variance=None):
    """Read a frame; with gain (electrons per count) and dark variance (counts squared) also its variance."""
    from astropy.io import fits

    from astrogan.image._headers import quiet
    from astrogan.image.wcs import wcs_from_header

    try:
        with quiet(), fits.open(path, memmap=False) as hdus:
            header = hdus[0].header.copy()
            data = np.ascontiguousarray(hdus[0].data, dtype=np.float32)
            calibration = None if gain is None else np.asarray(hdus[1].data, float).ravel()
            sky = None if gain is None else hdus[2].data[0]
            counts = None if gain is None else _spread(sky["ALLSKY"], sky["XINTERP"], sky["YINTERP"])
    except (OSError, EOFError, TypeError, ValueError, KeyError, IndexError) as error:
        raise ImageReadError(f"{str(path)!r} is no frame of SDSS ({type(error).__name__}: {error})") from error
    wcs = wcs_from_header(header)
    if data.ndim != 2 or wcs is None:
        raise ImageReadError(f"{str(path)!r} is no frame of SDSS: shape {data.shape}, {'no ' * (wcs is None)}WCS")
    variance = None
    if gain is not None:
        if calibration.shape != data.shape[1:] or counts.shape != data.shape:
            raise ImageReadError(f"{str(path)!r} is no frame of SDSS: its calibration and sky do not fit the image")
        counts += data / calibration
        electrons = np.clip(counts, 0, None) / float(gain)
        variance = ((electrons + float(dark_variance)) * calibration**2).astype(np.float32)
    return Frame(data, variance, wcs, header)


def _spread(grid, x, y):
    """A coarse grid, linearly interpolated to all columns and rows."""
    grid, x, y = np.asarray(grid, float), np.asarray(x, float).ravel(), np.asarray(y, float).ravel()
    return _along(_along(grid, y).T, x).T.copy()


def _along(grid, position):
    """Rows of a grid at fractional positions; those of the edge outside of it."""
    position = np.clip(position, 0, len(grid) - 1)
    below = np.minimum(position.astype(int), max(len(grid) - 2, 0))
    share = (position - below)[:, None]
    return grid[below] * (1 - share) + grid[np.minimum(below + 1, len(grid) - 1)] * share


# ---- cutouts ------------------------------------------------------------------------------------------------------


def cut_out(frames, reference, ra, dec, size):
    """The bands of a square of the sky on one pixel grid.

    Parameters
    ----------
    frames : dict
        `Frame` by band.
    reference : str
        The band whose pixels are kept as they are; others are resampled to its grid (bicubic).
    ra, dec : float
        Centre, degrees.
    size : int
        Edge, pixels.

    Returns
    -------
    dict
        (data, variance or `None`, wcs) by band. Not a number where the frame has no pixels.
    """
    from astrogan.image.wcs import crop_wcs

    base = frames[reference]
    x, y = (float(value) for value in base.wcs.celestial.all_world2pix(ra, dec, 0))
    x0, y0 = round(x - (size - 1) / 2), round(y - (size - 1) / 2)
    wcs = crop_wcs(base.wcs, x0, y0, (size, size))
    cutouts = {}
    for band, frame in frames.items():
        if band == reference:
            planes = [_window(plane, x0, y0, size) for plane in (frame.data, frame.variance)]
        else:
            planes = _resampled(frame, wcs, size)
        cutouts[band] = (*planes, wcs)
    return cutouts


def _window(plane, x0, y0, size):
    """A square of a plane, which may reach beyond it."""
    if plane is None:
        return None
    out = np.full((size, size), np.nan, np.float32)
    rows = slice(max(y0, 0), max(min(y0 + size, plane.shape[0]), 0))
    columns = slice(max(x0, 0), max(min(x0 + size, plane.shape[1]), 0))
    part = plane[rows, columns]
    top, left = rows.start - y0, columns.start - x0
    if part.size:
        out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return out


def _resampled(frame, wcs, size):
    """A frame on another grid: flux per pixel, so with the ratio of the pixels' areas."""
    from reproject import reproject_interp

    from astrogan.image._headers import quiet
    from astrogan.image.wcs import crop_wcs, local_scale

    # Only what is near: the spline's coefficients of a whole frame take seconds.
    corner = np.array([-0.5, size - 0.5])
    sky = wcs.all_pix2world(*(axis.ravel() for axis in np.meshgrid(corner, corner)), 0)
    x, y = frame.wcs.celestial.all_world2pix(*sky, 0)
    margin = 16
    x0, y0 = (max(int(np.floor(p.min())) - margin, 0) for p in (x, y))
    rows = slice(y0, max(int(np.ceil(y.max())) + margin, y0))
    columns = slice(x0, max(int(np.ceil(x.max())) + margin, x0))
    if not frame.data[rows, columns].size:
        empty = np.full((size, size), np.nan, np.float32)
        return empty, None if frame.variance is None else empty.copy()
    near = crop_wcs(frame.wcs, x0, y0, frame.data[rows, columns].shape)
    middle = (size - 1) / 2
    ratio = (local_scale(wcs, middle, middle) / local_scale(near, x.mean() - x0, y.mean() - y0)) ** 2
    planes = []
    for plane, order, factor in ((frame.data, "bicubic", ratio), (frame.variance, "bilinear", ratio**2)):
        if plane is None:
            planes.append(None)
            continue
        with quiet():
            values, _ = reproject_interp(
                (plane[rows, columns].astype(float), near), wcs, shape_out=(size, size), order=order
            )
        planes.append((values * factor).astype(np.float32))
    return planes
