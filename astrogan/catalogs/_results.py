"""What a run has left in its folder, stamp by stamp."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from astrogan.catalogs._journal import RESULTS
from astrogan.exceptions import ImageReadError, InputError

__all__ = ["Results"]


class Results:
    """The stamps and the table of a folder that `process_catalog` or `process_images` has filled.

    Parameters
    ----------
    folder : path

    Attributes
    ----------
    table : `~astropy.table.Table`
        A row a row of the catalog, in its order.

    Raises
    ------
    ImageReadError
        If the folder holds no finished results.

    Notes
    -----
    ``len(results)`` is the number of rows; ``results[i]`` is the stamp of row ``i``, or `None` where it has none.
    """

    def __init__(self, folder):
        from astropy.table import Table

        self.folder = Path(folder).expanduser()
        if not (self.folder / RESULTS).is_file():
            raise ImageReadError(
                f"{str(folder)!r} holds no finished results ({RESULTS}); run it to its end, with the same arguments"
            )
        self.table = Table.read(self.folder / RESULTS)
        for name in ("id", "file", "status", "error", "unit", "weights"):  # empty texts are read as missing
            if hasattr(self.table[name], "filled") and self.table[name].dtype.kind == "U":
                self.table[name] = self.table[name].filled("")
        self._name, self._cube = None, None

    def __len__(self):
        return len(self.table)

    def __getitem__(self, row):
        """The stamp of a row, a `~astropy.nddata.CCDData`, or `None`."""
        if isinstance(row, bool) or not isinstance(row, int | np.integer) or not -len(self) <= row < len(self):
            raise InputError(f"row={row!r} must be an integer below {len(self)}")
        name, plane = str(self.table["file"][row]), int(self.table["plane"][row])
        if not name:
            return None
        if plane < 0:
            from astrogan.image.read import read_image

            return read_image(self.folder / name, unit=str(self.table["unit"][row]) or None)
        return _stamp(self._open(name), plane, str(self.table["unit"][row]))

    def _open(self, name):
        from astropy.io import fits

        if self._name != name:
            with fits.open(self.folder / name, memmap=True) as hdus:
                self._cube = {hdu.name if i else "DATA": hdu.data for i, hdu in enumerate(hdus)}
            self._name = name
        return self._cube


def _stamp(cube, plane, unit):
    from astropy import nddata
    from astropy.io import fits

    from astrogan.image.wcs import cube_wcs, wcs_from_header

    layers = {name: np.array(cube[name][plane]) for name in cube if name != "STAMPS"}
    data = layers["DATA"].astype(np.float32)
    text = cube["STAMPS"]["wcs"][plane]
    wcs = wcs_from_header(fits.Header.fromstring(text), naxis=2) if text else None
    if wcs is not None and data.ndim == 3:
        wcs = cube_wcs(wcs, len(data))
    kind = cube["STAMPS"]["uncert"][plane] if "UNCERT" in layers else ""
    mask = layers.get("MASK")
    return nddata.CCDData(
        data,
        unit=unit,
        mask=None if mask is None or not mask.any() else mask.astype(bool),
        uncertainty=getattr(nddata, kind)(layers["UNCERT"].astype(np.float32)) if kind else None,
        flags=layers.get("FLAGS"),
        wcs=wcs,
    )
