"""A mosaic on disk, read window by window."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from astrogan.exceptions import ImageReadError, InputError

__all__ = ["MosaicSource"]

_FROM_FILE = ("unit", "hdu", "uncertainty", "uncertainty_type", "mask")
_LATER = ("saturation", "pixel_scale")


@dataclass(frozen=True)
class MosaicSource:
    """An image in one or several files, of which windows are read.

    Made by `open`; it holds no open file, so it can be sent to other processes and machines that see the same files.

    Attributes
    ----------
    paths : tuple of str
        One file, or one a band.
    names : tuple of str or None
        Bands, where they are files of their own and came as a dict.
    shape : tuple of int
        (band, y, x).
    kind : str
        How the image came: ``"single"``, ``"list"`` or ``"dict"``.
    options : dict
        For `~astrogan.image.read.read_image`.
    later : dict
        For `~astrogan.image.prepare.prepare`.
    """

    paths: tuple[str, ...]
    names: tuple[str, ...] | None
    shape: tuple[int, int, int]
    kind: str
    options: dict = field(default_factory=dict)
    later: dict = field(default_factory=dict)

    @classmethod
    def open(cls, image, **reading) -> MosaicSource:
        """Look at the headers of a mosaic.

        Parameters
        ----------
        image : path, list or dict of paths
            A FITS file, plain or compressed by tiles, or a Zarr array; or equal-shaped 2-D ones, one a band.
        **reading
            ``unit``, ``hdu``, ``uncertainty``, ``uncertainty_type``, ``mask``, ``saturation``, ``pixel_scale``, as in
            `~astrogan.image.prepare.prepare`; uncertainty and mask are HDUs or files here, not arrays.

        Returns
        -------
        `MosaicSource`

        Raises
        ------
        InputError
            If ``image`` is no path, the bands differ in shape, or a keyword cannot be used.
        ImageReadError
            If a file is missing, damaged, or holds no image.
        """
        kind, names, paths = _paths_of(image)
        unknown = sorted(set(reading) - {*_FROM_FILE, *_LATER})
        if unknown:
            raise InputError(
                f"{unknown[0]}={reading[unknown[0]]!r} is no keyword of process; these say how the image is read: "
                f"{', '.join((*_FROM_FILE, *_LATER))}"
            )
        options = {name: value for name, value in reading.items() if name in _FROM_FILE and value is not None}
        for name in ("uncertainty", "mask"):
            if hasattr(options.get(name), "shape"):
                raise InputError(f"{name} is an array; a mosaic's is read by windows too: name its file or HDU")
        later = {name: value for name, value in reading.items() if name in _LATER and value is not None}
        shapes = [_shape_of(path, options.get("hdu")) for path in paths]
        if len(set(shapes)) > 1:
            other = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
            raise InputError(
                f"image[{other}] has shape {shapes[other]}; the first band has {shapes[0]}: resample the bands onto "
                "one grid first"
            )
        if kind != "single" and len(shapes[0]) != 2:
            raise InputError(f"image[0] has shape {shapes[0]}; each band of a list or dict must be 2-D")
        bands = len(paths) if kind != "single" else shapes[0][0] if len(shapes[0]) == 3 else 1
        return cls(paths, names, (bands, *shapes[0][-2:]), kind, options, later)

    def window(self, y: slice, x: slice):
        """The image inside two slices, in the form in which `~astrogan.image.prepare.prepare` takes an image.

        Parameters
        ----------
        y, x : slice
            Rows and columns, with start and stop inside the image.

        Returns
        -------
        `~astropy.nddata.CCDData`, or a list or dict of them
        """
        from astrogan.image.read import read_image

        images = [
            _zarr_window(path, y, x, self.options)
            if _is_zarr(path)
            else read_image(path, section=(y, x), **self.options)
            for path in self.paths
        ]
        if self.kind == "single":
            return images[0]
        return images if self.kind == "list" else dict(zip(self.names, images, strict=True))

    def fingerprint(self) -> str:
        """What changes when a file does: the SHA-256 of names, sizes and times, without reading the pixels."""
        digest = hashlib.sha256(repr((self.names, self.shape, self.kind)).encode())
        extra = [value for key in ("uncertainty", "mask") for value in [self.options.get(key)] if value is not None]
        files = [Path(path) for path in self.paths] + [Path(p) for value in extra for p in _files_in(value)]
        for path in files:
            status = path.stat()
            digest.update(repr((str(path.resolve()), status.st_size, status.st_mtime_ns)).encode())
        return digest.hexdigest()


def _paths_of(image):
    if isinstance(image, str | os.PathLike):
        return "single", None, (_absolute(image),)
    if isinstance(image, Mapping) and image:
        return "dict", tuple(map(str, image)), tuple(_absolute(path) for path in image.values())
    if isinstance(image, list | tuple) and image:
        return "list", None, tuple(_absolute(path) for path in image)
    raise InputError(
        f"image={image!r} must be a path, or a list or dict of paths, one a band; "
        "call the operator itself for an image in memory"
    )


def _absolute(path):
    if not isinstance(path, str | os.PathLike) or isinstance(path, bytes):
        raise InputError(f"image={path!r} is {type(path).__name__}; process reads files: give a path")
    # Workers may run in other folders.
    return os.path.abspath(os.path.expanduser(path))


def _files_in(value):
    if isinstance(value, tuple):
        value = value[0]
    if isinstance(value, os.PathLike):
        return [value]
    # A text may be the EXTNAME of an HDU.
    return [value] if isinstance(value, str) and os.path.exists(value) else []


def _shape_of(path, hdu):
    """(y, x) or (band, y, x), from the header alone."""
    if _is_zarr(path):
        return tuple(_zarr_array(path).shape)
    from astrogan.image._fits_file import FitsFile, file_kind
    from astrogan.image._fits_image import choose_hdus

    kind = file_kind(Path(path))
    if kind != "FITS":
        raise ImageReadError(f"{path!r} is a {kind} picture; process reads FITS files and Zarr arrays")
    with FitsFile(path, 2**62) as file:
        hdus = choose_hdus(file, hdu)
        for each in hdus:
            file.check(each)
        shape = hdus[0].shape
        if len(shape) not in (2, 3) or 0 in shape:
            raise ImageReadError(f"{path!r} has an image of shape {shape}; it must be (y, x) or (band, y, x)")
        return shape if len(hdus) == 1 else (len(hdus), *shape)


# ---- Zarr --------------------------------------------------------------------------------------------------------


def _is_zarr(path):
    return os.path.isdir(path) and any(os.path.exists(os.path.join(path, name)) for name in (".zarray", "zarr.json"))


def _zarr_array(path):
    try:
        import zarr
    except ImportError as error:
        from astrogan.exceptions import MissingDependencyError

        raise MissingDependencyError(f"{path!r} is a Zarr array; pip install 'astrogan[zarr]' reads such") from error
    opened = zarr.open(path, mode="r")
    if not hasattr(opened, "shape") or len(opened.shape) not in (2, 3):
        raise ImageReadError(f"{path!r} is a Zarr group, or no image; name an array in it of 2 or 3 axes")
    return opened


def _zarr_window(path, y, x, options):
    """A window of a Zarr array as an image. Its attributes may hold a FITS header as text (``header``) and ``unit``."""
    import numpy as np
    from astropy.io import fits
    from astropy.nddata import CCDData

    from astrogan.exceptions import UnitError
    from astrogan.image._headers import parse_unit, safe_header
    from astrogan.image.wcs import crop_wcs, wcs_from_header

    array = _zarr_array(path)
    for name in ("hdu", "uncertainty", "mask"):
        if options.get(name) not in (None, False):
            raise InputError(f"{name}={options[name]!r}: {path!r} is one Zarr array, without any; leave it out")
    header = fits.Header.fromstring(str(array.attrs.get("header", "")), sep="\n")
    unit = options.get("unit", array.attrs.get("unit", header.get("BUNIT")))
    if unit is None:
        raise UnitError(f"{path!r} does not say its unit; give unit= (--unit), e.g. unit='adu'")
    wcs = wcs_from_header(header) if "CTYPE1" in header else None
    data = np.asarray(array[..., y, x])
    bad = ~np.isfinite(data)
    return CCDData(
        data,
        unit=parse_unit(unit),
        mask=bad if bad.any() else None,
        wcs=crop_wcs(wcs, x.start, y.start, data.shape[-2:]),
        meta=safe_header(header),
    )
