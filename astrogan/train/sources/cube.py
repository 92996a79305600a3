"""Many stamps in one FITS cube, read where they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from astrogan.exceptions import ImageReadError, InputError
from astrogan.train.sources.base import Sample, Source
from astrogan.train.sources.fits import positive_or_none

__all__ = ["FitsCube"]

_FLOATS = {-32: ">f4", -64: ">f8"}
_MOST_PIXELS = 2**40  # nothing is read but the stamps that are asked for


class FitsCube(Source):
    """Equal stamps in one image of a FITS file, mapped into memory: the quickest source, however large the file.

    A file a stamp costs the opening of a file each time; of a cube only the pixels of the stamp are read, and the
    system keeps in memory what there is room for, once for all worker processes.

    Parameters
    ----------
    path : path
        The file: floating-point, not compressed, with axes (stamp, band, y, x) or (stamp, y, x), in numpy's order.
    hdu : int, optional
        Number of the HDU. Default: the first with three or four axes.
    variance_hdu : int, optional
        Number of the HDU that holds the variance, of the same shape.
    bands : {'all', 'each'} or sequence of str, optional
        All bands in one sample, their names, or each band as a sample of its own.
    names : sequence of str, optional
        Name of each stamp's object. Default: the file's name and the stamp's number. Give them where an object has
        several stamps, or it ends up on both sides of the split.
    pixel_scale, psf_fwhm : float, optional
        Arcsec, and pixels.
    unit : str, optional
        Of the flux. Default: the header's BUNIT.
    origin, licence : str, optional
        For the model card.

    Raises
    ------
    ImageReadError
        If there is no such file, or it is damaged or truncated.
    InputError
        If it holds no such cube or an argument cannot be used.

    Notes
    -----
    Pixels that are not finite are filled from their neighbours as a stamp is loaded; a stamp without a finite pixel in
    a band is an error when it is loaded.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from astrogan.train.sources.cube import FitsCube
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fits.writeto(Path(folder) / "cube.fits", np.zeros((10, 3, 16, 16), np.float32))
    ...     source = FitsCube(Path(folder) / "cube.fits", bands="gri")
    ...     len(source), source.load(4).data.shape
    (10, (3, 16, 16))
    """

    def __init__(
        self,
        path,
        *,
        hdu=None,
        variance_hdu=None,
        bands="all",
        names=None,
        pixel_scale=None,
        psf_fwhm=None,
        unit=None,
        origin=None,
        licence=None,
    ):
        for label, value in (("pixel_scale", pixel_scale), ("psf_fwhm", psf_fwhm)):
            positive_or_none(label, value)
        self._path = Path(path).expanduser()
        self._about = {"origin": origin or self._path.name, "licence": licence}
        self._cube, header_unit = _layout(self._path, hdu)
        self._variance = None if variance_hdu is None else _layout(self._path, variance_hdu)[0]
        if self._variance is not None and self._variance[0] != self._cube[0]:
            raise InputError(f"variance_hdu={variance_hdu!r} has shape {self._variance[0]}; the data {self._cube[0]}")
        self._each = isinstance(bands, str) and bands == "each"
        self.bands = _band_names(bands, self._cube[0][1])
        self._names = None if names is None else tuple(map(str, names))
        if self._names is not None and len(self._names) != self._cube[0][0]:
            raise InputError(f"names has {len(self._names)} entries; the cube has {self._cube[0][0]} stamps")
        self._known = {"pixel_scale": pixel_scale, "psf_fwhm": psf_fwhm, "unit": unit or header_unit}
        self._open()

    def _open(self):
        layouts = (self._cube, self._variance)
        self._maps = [None if layout is None else _mapped(self._path, *layout) for layout in layouts]

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "_maps"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open()

    def __len__(self):
        stamps, bands = self._cube[0][:2]
        return stamps * bands if self._each else stamps

    def name(self, i):
        """Name of the stamp's object."""
        stamp = self._where(i)[0]
        return f"{self._path.stem} {stamp}" if self._names is None else self._names[stamp]

    def load(self, i):
        """Image ``i`` as a `Sample`."""
        where = self._where(i)
        data = self._maps[0][where].astype(np.float32)
        # A NaN or an infinity makes the sum of squares one, in a fraction of the time that looking for them takes.
        flat = data.ravel()
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.dot(flat, flat)
        if not np.isfinite(total):
            data = self._filled(data, i)
        variance = None if self._maps[1] is None else self._maps[1][where].astype(np.float32)
        if variance is not None and not (np.isfinite(variance) & (variance > 0)).all():
            variance = self._filled(np.where(variance > 0, variance, np.nan).astype(np.float32), i)
        return Sample(data, variance, **self._known)

    def describe(self):
        """What a model card says of the source."""
        objects = self._cube[0][0] if self._names is None else len(set(self._names))
        return {"kind": "cube", **self._about, "images": len(self), "objects": objects}

    def _where(self, i):
        """(stamp, bands) of image ``i``, as an index into the cube."""
        i = self._checked(i)
        if not self._each:
            return i, slice(None)
        stamp, band = divmod(i, self._cube[0][1])
        return stamp, slice(band, band + 1)

    def _filled(self, data, i):
        from astrogan.image.mask import fill_invalid

        finite = np.isfinite(data)
        if finite.all():  # so bright that its square is none
            return data
        if not finite.any(axis=(1, 2)).all():
            raise ImageReadError(f"{str(self._path)!r}: stamp {i} has a band without a finite pixel; leave it out")
        return fill_invalid(data, finite)


def _layout(path, number):
    """(((stamps, bands, y, x), dtype, offset in bytes), unit) of an HDU."""
    from astrogan.image._fits_file import FitsFile
    from astrogan.image._headers import quiet

    with FitsFile(path, _MOST_PIXELS) as opened, quiet():
        cubes = [hdu for hdu in opened.images if hdu.kind == "image" and len(hdu.shape) in (3, 4)]
        chosen = [hdu for hdu in cubes if number is None or hdu.index == number]
        if not chosen:
            raise InputError(
                f"hdu={number!r}: {str(path)!r} has no such uncompressed image with axes (stamp, band, y, x) or "
                f"(stamp, y, x); it holds {opened.listing()}"
            )
        hdu = chosen[0]
        opened.check(hdu)
        scaled = hdu.header.get("BSCALE", 1) != 1 or hdu.header.get("BZERO", 0) != 0
        if opened._packed or hdu.bitpix not in _FLOATS or scaled:
            raise InputError(
                f"{str(path)!r}: HDU {hdu.index} is packed, scaled or of integers (BITPIX={hdu.bitpix}) and cannot be "
                "read where it lies; save it as uncompressed float32"
            )
        shape = hdu.shape if len(hdu.shape) == 4 else (hdu.shape[0], 1, *hdu.shape[1:])
        return (shape, _FLOATS[hdu.bitpix], hdu.offset), hdu.header.get("BUNIT") or None


def _mapped(path, shape, dtype, offset):
    try:
        return np.memmap(path, dtype, "r", offset, shape).view(np.ndarray)
    except (OSError, ValueError) as error:
        raise ImageReadError(f"{str(path)!r} cannot be mapped into memory ({error}); fetch it again") from error


def _band_names(bands, count):
    if isinstance(bands, str) and bands == "each":
        return ("any",)
    if isinstance(bands, str) and bands == "all":
        return tuple(map(str, range(count)))
    names = tuple(map(str, bands))
    if len(names) != count:
        raise InputError(f"bands={bands!r} names {len(names)} bands; the cube has {count}")
    return names
