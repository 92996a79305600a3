"""The DESI Legacy Imaging Surveys: cutouts of the coadds, with inverse variance."""

from __future__ import annotations

import re

import numpy as np

from astrogan.datasets._collection import Collection, as_sample, limited, whole_number
from astrogan.datasets._transport import Downloader, DownloadError, need_pooch, server_url
from astrogan.exceptions import InputError

__all__ = ["fetch_legacy_cutouts"]

VIEWER = "https://www.legacysurvey.org/viewer"
# The service makes anything larger this large without a word.
_LARGEST = 3000


def fetch_legacy_cutouts(
    folder,
    sample,
    *,
    size=256,
    pixel_scale=0.262,
    bands="grz",
    layer="ls-dr10",
    inverse_variance=True,
    limit=None,
    server=VIEWER,
    downloader=None,
    progress=None,
):
    """Fetch calibrated cutouts from the coadds of the Legacy Surveys (DECaLS, BASS, MzLS).

    Parameters
    ----------
    folder : path
        Where the cutouts go: ``<name>.fits``, and ``manifest.ecsv``.
    sample : `~astropy.table.Table`, path, `~astropy.coordinates.SkyCoord` or list of (ra, dec)
        Positions, deg; in a table with ``objid`` or ``name`` if they are known.
    size : int, optional
        Edge in pixels, 8 to 3000.
    pixel_scale : float, optional
        Arcsec per pixel; 0.262 is the coadds' own. Larger ones are made by the service from averaged pixels.
    bands : str, optional
        Letters of ``griz``; ``i`` is in DR10 only, and not everywhere.
    layer : str, optional
        As the survey's viewer names it: ``"ls-dr10"``, ``"ls-dr9"``, ``"ls-dr9-north"``, ...
    inverse_variance : bool, optional
        Ask for it, too. Layers that have none are taken without.
    limit : int, optional
        Only the first so many.
    server : str, optional
        Address of the viewer.
    downloader : `Downloader`, optional
        Timeouts, retries and rate. The service draws each cutout when it is asked for, which takes seconds.
    progress : callable, optional
        Called with (done, total).

    Returns
    -------
    `~astropy.table.Table`
        The sample, with the columns of the manifest: ``file``, ``bytes``, ``sha256``, ``url``, ``fetched``, ``status``
        (``"ok"``, ``"left out"`` or ``"failed"``), ``reason``, ``coverage`` (part of the pixels that all bands have)
        and ``has_ivar``.

    Raises
    ------
    InputError
        If an argument cannot be used, or the folder holds cutouts of another kind.
    DownloadError
        If five cutouts in a row could not be had.
    ImageWriteError
        If the disk is full or the folder cannot be written to.
    MissingDependencyError
        If pooch is not installed.

    Warns
    -----
    AstroganWarning
        If some cutouts could not be had.

    Notes
    -----
    Each file has an extension a band in nanomaggies per pixel, with WCS, inverse variance and a mask of the pixels
    without data; it reads back as a cube with `astrogan.read_image`. The service resamples coadds to a tangential
    projection centred on the position, with north up, so that the noise of neighbours is correlated; the inverse
    variance is that of single pixels. Positions outside of the survey are left out.
    """
    kind = _Kind.checked(size, pixel_scale, bands, layer, inverse_variance)
    need_pooch()
    server, downloader = server_url(server), downloader or Downloader()
    galaxies = limited(as_sample(sample), limit)
    extra = {"coverage": 0.0, "has_ivar": False}
    with Collection(folder, galaxies, kind.settings, ".fits", extra) as files:
        todo = files.missing(kind.checked_file)
        for done, k in enumerate(todo, len(galaxies) - len(todo)):
            if progress is not None:
                progress(done, len(galaxies))
            _one(files, kind, k, server, downloader)
        if progress is not None:
            progress(len(galaxies), len(galaxies))
    return files.finish()


def _one(files, kind, k, server, downloader):
    """Fetch one cutout, and write it in our form."""
    from astrogan.image.write import write_image

    name, row = files.name(k), files.sample[k]
    url = kind.url(server, float(row["ra"]), float(row["dec"]))
    raw = files.folder / f".{name}.part"
    try:
        downloader.fetch(url, raw, check=kind.answer)
        images, coverage = kind.images(kind.answer(raw), name, url)
    except DownloadError as error:
        files.failed(name, error, url)
        return
    finally:
        raw.unlink(missing_ok=True)
    if coverage == 0:
        files.left_out(name, "the layer has no data here", url=url)
        return
    write_image(images, files.path(name), overwrite=True)
    has_ivar = next(iter(images.values())).uncertainty is not None
    files.done(name, url, coverage=coverage, has_ivar=has_ivar)


class _Kind:
    """What is asked for, and how an answer is read."""

    def __init__(self, size, pixel_scale, bands, layer, inverse_variance):
        self.size, self.scale, self.bands, self.layer, self.ivar = size, pixel_scale, bands, layer, inverse_variance

    @classmethod
    def checked(cls, size, pixel_scale, bands, layer, inverse_variance):
        """The same, of arguments that can be used."""
        size = whole_number("size", size, 8, _LARGEST)
        good = isinstance(pixel_scale, int | float) and not isinstance(pixel_scale, bool)
        if not good or not 0.05 <= pixel_scale <= 30:
            raise InputError(f"pixel_scale={pixel_scale!r} must be 0.05 to 30 arcsec")
        bands = bands if isinstance(bands, str) else "".join(map(str, bands))
        if not bands or set(bands) - set("griz") or len(set(bands)) < len(bands):
            raise InputError(f"bands={bands!r} must be different letters of 'griz'")
        if not isinstance(layer, str) or not re.fullmatch(r"[\w.+-]+", layer, re.ASCII):
            raise InputError(f"layer={layer!r} must be a name such as 'ls-dr10'")
        return cls(size, float(pixel_scale), bands, layer, bool(inverse_variance))

    @property
    def settings(self):
        """For the manifest."""
        return {
            "service": "legacysurvey cutout",
            "layer": self.layer,
            "size": self.size,
            "pixel_scale": self.scale,
            "bands": self.bands,
            "inverse_variance": self.ivar,
        }

    def url(self, server, ra, dec):
        """Where a cutout is asked for."""
        text = f"{server}/fits-cutout?ra={ra:.7f}&dec={dec:.7f}&layer={self.layer}&pixscale={self.scale:g}"
        return f"{text}&bands={self.bands}&size={self.size}" + ("&invvar" if self.ivar else "")

    def answer(self, path):
        """(header, image, inverse variance or `None`) of the service's file, cubes (band, y, x); None without overlap.

        Raises `ValueError` or `OSError` where it is something else.
        """
        from astropy.io import fits

        from astrogan.image._headers import quiet

        with open(path, "rb") as stream:
            if stream.read(9) != b"SIMPLE  =":
                raise ValueError("this is no FITS file")
            # One that ends within an extension's header would else pass for one without this extension.
            if stream.seek(0, 2) % 2880:
                raise ValueError("the FITS file ends too early")
        with quiet(), fits.open(path, memmap=False) as hdus:
            header = hdus[0].header.copy()
            if hdus[0].data is None and header.get("OVERLAP") is False:
                return header, None, None
            image = self._cube(hdus[0], "image")
            found = [hdu for hdu in hdus[1:] if str(hdu.header.get("IMAGETYP", "")).strip().upper() == "INVVAR"]
            ivar = self._cube(found[0], "inverse variance") if found else None
        bands = str(header.get("BANDS", "")).replace(",", "").replace(" ", "")
        if bands and bands != self.bands:
            raise ValueError(f"the cutout has bands {bands!r}, not {self.bands!r}; the layer may not have these")
        return header, image, ivar

    def _cube(self, hdu, what):
        shape = (len(self.bands), self.size, self.size)
        data = hdu.data
        if data is not None and data.ndim == 2:
            data = data[None]
        if data is None or data.shape != shape:
            there = None if data is None else data.shape
            raise ValueError(f"the cutout's {what} has shape {there}, not {shape}")
        return np.ascontiguousarray(data, dtype=np.float32)

    def images(self, answer, name, url):
        """A dict of CCDData, and the part of the pixels that all bands have."""
        from astropy.io import fits
        from astropy.nddata import CCDData, InverseVariance

        from astrogan.image.wcs import celestial, wcs_from_header

        header, image, ivar = answer
        if image is None:
            return {}, 0.0
        wcs = wcs_from_header(header)
        wcs = None if wcs is None else celestial(wcs)
        # Without weights, a pixel without data is exactly zero.
        bad = ~np.isfinite(image) | ((image == 0) if ivar is None else ~(ivar > 0))
        images = {}
        for k, band in enumerate(self.bands):
            meta = fits.Header()
            meta["OBJECT"], meta["BAND"] = name, (band, "band of the Legacy Surveys")
            for key in ("SURVEY", "VERSION"):
                if key in header:
                    meta[key] = (header[key], header.comments[key])
            meta["HISTORY"] = f"astrogan: {url}"
            images[band] = CCDData(
                np.where(bad[k], 0, image[k]),
                unit="nmgy",
                wcs=wcs,
                mask=bad[k] if bad[k].any() else None,
                uncertainty=None if ivar is None else InverseVariance(np.where(bad[k], 0, ivar[k])),
                meta=meta,
            )
        return images, float(np.mean(~bad.any(axis=0)))

    def checked_file(self, path):
        """Refuse what is no whole file of ours of this kind; its coverage."""
        from astrogan.image.read import read_image

        image = read_image(path)
        shape = (self.size, self.size) if len(self.bands) == 1 else (len(self.bands), self.size, self.size)
        if image.shape != shape:
            raise ValueError(f"{path} has shape {image.shape}, not {shape}")
        bad = np.zeros(shape, bool) if image.mask is None else np.broadcast_to(image.mask, shape)
        coverage = float(1 - np.mean(bad.reshape(-1, self.size, self.size).any(axis=0)))
        return {"coverage": coverage, "has_ivar": image.uncertainty is not None}
