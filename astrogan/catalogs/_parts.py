"""Files of stamps: many in a cube, or one each."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from astrogan.catalogs._contents import blank
from astrogan.image.write import atomic_path, write_image

__all__ = ["write_cube", "write_files"]

_COMMENTS = {
    "MASK": "not zero: bad",
    "UNCERT": "uncertainty",
    "FLAGS": "bits of RestorationFlag",
}


def write_cube(path, stamps, shape, notes):
    """Stamps as FITS cubes: the n-th plane of each HDU belongs to the n-th row of the part.

    Parameters
    ----------
    path : path
    stamps : sequence of `~astrogan.catalogs._stamps.Stamp`
    shape : tuple of int
        (band, y, x) of a stamp.
    notes : dict
        Keywords for the header.

    Returns
    -------
    dict
        Size and SHA-256 by name of file.
    """
    from astropy.io import fits

    names = ["DATA"] + [name for name in _COMMENTS if any(name in stamp.layers for stamp in stamps)]
    hdus = []
    for name in names:
        planes = np.stack([_layer(stamp, name, shape) for stamp in stamps])
        planes = planes[:, 0] if shape[0] == 1 else planes
        hdu = fits.PrimaryHDU(planes) if name == "DATA" else fits.ImageHDU(planes, name=name)
        if name in _COMMENTS:
            hdu.header.add_comment(_COMMENTS[name])
        hdus.append(hdu)
    for key, value in notes.items():
        hdus[0].header[key] = value
    hdus.append(_table(stamps))
    with atomic_path(path, overwrite=True) as temporary:
        fits.HDUList(hdus).writeto(temporary)
    return _sums([Path(path)])


def _layer(stamp, name, shape):
    if name in stamp.layers:
        return stamp.layers[name]
    if stamp.layers and name != "UNCERT":
        return np.zeros(shape, np.uint8)
    return blank(name, shape)


def _table(stamps):
    """Row number, name, class of the uncertainty and WCS of each plane."""
    from astropy.io import fits

    width = max(1, *(len(stamp.header) for stamp in stamps))
    ids = [str(stamp.row.id).encode("ascii", "replace").decode() for stamp in stamps]
    columns = [
        fits.Column("row", "K", array=np.array([stamp.row.index for stamp in stamps])),
        fits.Column("id", f"{max(1, *map(len, ids))}A", array=np.array(ids)),
        fits.Column("uncert", "20A", array=np.array([stamp.uncertainty for stamp in stamps])),
        fits.Column("wcs", f"{width}A", array=np.array([stamp.header for stamp in stamps])),
    ]
    return fits.BinTableHDU.from_columns(columns, name="STAMPS")


def write_files(folder, stamps):
    """A FITS file for each row that has a stamp.

    Parameters
    ----------
    folder : path
    stamps : sequence of `~astrogan.catalogs._stamps.Stamp`
        With their ``result``.

    Returns
    -------
    dict
        Size and SHA-256 by name of file.
    """
    paths = []
    for stamp in stamps:
        if stamp.result is not None:
            paths.append(Path(folder) / f"{stamp.row.name}.fits")
            write_image(stamp.result, paths[-1], overwrite=True)
    return _sums(paths)


def _sums(paths):
    sums = {}
    for path in paths:
        with open(path, "rb") as stream:
            sums[path.name] = [path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()]
    return sums
