"""Cutouts from SDSS frames, field by field."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from astrogan.datasets._sdss_frame import PIXEL_SCALE, cut_out, read_frame
from astrogan.datasets._transport import DownloadError
from astrogan.exceptions import ImageReadError, InputError


class Cutting:
    """Cutouts of galaxies, field by field."""

    def __init__(self, files, galaxies, bands, size, min_coverage):
        self._files, self._galaxies, self._bands, self._size = files, galaxies, bands, size
        self._least = min_coverage
        self._reference = "r" if "r" in bands else bands[0]

    def field(self, frames, rows):
        """Cut out the galaxies of a field; ``frames`` has the path and the record of each band's frame."""
        records = dict(zip(self._bands, (record for _, record in frames), strict=True))
        urls = " ".join(record["url"] for record in records.values() if record["url"])
        reasons = [record["reason"] for record in records.values() if record["status"] == "failed"]
        opened = {}
        for k in rows:
            name, row = str(self._galaxies["name"][k]), self._galaxies[k]
            try:
                if reasons:  # the frames' own manifest counts the failures
                    raise DownloadError(reasons[0])
                opened = opened or self._open([path for path, _ in frames], row)
                self._one(name, row, opened, records, urls)
            except (DownloadError, ImageReadError, InputError) as error:
                self._files.failed(name, error, urls, counts=False)

    def _open(self, paths, row):
        """The frames of a field, whose gain and dark variance all its galaxies have."""
        opened = {}
        for band, path in zip(self._bands, paths, strict=True):
            gain, dark = (_number(row, f"{column}_{band}") for column in ("gain", "darkvariance"))
            known = gain is not None and dark is not None and gain > 0
            opened[band] = read_frame(path, *((gain, dark) if known else ()))
        return opened

    def _one(self, name, row, frames, records, urls):
        from astrogan.image.write import write_image

        cutouts = cut_out(frames, self._reference, float(row["ra"]), float(row["dec"]), self._size)
        coverage = float(np.mean(np.all([np.isfinite(data) for data, *_ in cutouts.values()], axis=0)))
        if coverage < self._least:
            reason = f"coverage {coverage:.2f} is below {self._least:.2f}: the galaxy lies at the edge of its field"
            self._files.left_out(name, reason, coverage=coverage, url=urls)
            return
        psfs = _psfs([_number(row, f"psfwidth_{band}") for band in self._bands])
        images = {
            band: _image(cutouts[band], frames[band], band, psf, name, row, records[band])
            for band, psf in zip(self._bands, psfs, strict=True)
        }
        write_image(images, self._files.path(name), overwrite=True)
        self._files.done(name, urls, coverage=coverage)


def _image(cutout, frame, band, psf, name, row, origin):
    """A band as CCDData."""
    from astropy.io import fits
    from astropy.nddata import CCDData, StdDevUncertainty

    data, variance, wcs = cutout
    meta = fits.Header()
    meta["OBJECT"] = (name, "SDSS objID, or the sample's name")
    meta["BAND"] = (band, "SDSS band")
    meta["RA_OBJ"], meta["DEC_OBJ"] = (float(row["ra"]), "[deg]"), (float(row["dec"]), "[deg]")
    redshift = _number(row, "z")
    if redshift is not None:
        meta["REDSHIFT"] = (redshift, "spectroscopic redshift")
    for key in ("RUN", "CAMCOL", "FRAME", "DATE-OBS", "TAIHMS", "EXPTIME", "NMGY"):
        if key in frame.header:
            meta[key] = (frame.header[key], frame.header.comments[key])
    meta["HISTORY"] = f"astrogan: cut from {origin['url']}"
    meta["HISTORY"] = f"astrogan: SHA-256 {origin['sha256']}"
    bad = ~np.isfinite(data)
    uncertainty = None
    if variance is not None:
        uncertainty = StdDevUncertainty(np.sqrt(np.where(np.isfinite(variance), variance, 0)).astype(np.float32))
    return CCDData(
        np.where(bad, 0, data).astype(np.float32),
        unit="nmgy",
        wcs=wcs,
        mask=bad if bad.any() else None,
        uncertainty=uncertainty,
        psf=psf,
        meta=meta,
    )


def _psfs(widths):
    """A kernel a band, all of one size; `None` for all if one is not known."""
    if any(width is None or not 0.3 < width < 10 for width in widths):
        return [None] * len(widths)
    kernels = [_psf(width) for width in widths]
    edge = max(len(kernel) for kernel in kernels)
    return [np.pad(kernel, (edge - len(kernel)) // 2) for kernel in kernels]


@lru_cache(maxsize=16)
def _psf(width):
    """The kernel of a width in arcsec; galaxies of one field share it."""
    from astrogan.image._psf_header import moffat_with_measured_fwhm

    return moffat_with_measured_fwhm(width / PIXEL_SCALE)


def checked_cutout(path, bands, size):
    """Refuse what is no whole cutout of this kind; its coverage."""
    from astrogan.image.read import read_image

    image = read_image(path)
    shape = (size, size) if len(bands) == 1 else (len(bands), size, size)
    if image.shape != shape:
        raise ValueError(f"{path} has shape {image.shape}, not {shape}")
    bad = np.zeros(shape, bool) if image.mask is None else np.broadcast_to(image.mask, shape)
    return {"coverage": float(1 - np.mean(bad.reshape(-1, size, size).any(axis=0)))}


def _number(row, column):
    """A number of a row, or `None` where the table does not have it."""
    if column not in row.colnames or np.ma.is_masked(row[column]):
        return None
    value = float(row[column])
    return value if math.isfinite(value) else None
