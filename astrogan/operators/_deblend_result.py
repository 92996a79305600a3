"""`DeblendResult`: the sources of an image, their catalog, and what is left; writing it to FITS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from astrogan.api import Template
from astrogan.exceptions import InputError

__all__ = ["FLAGS", "DeblendResult"]

FLAGS = {
    "EDGE": 1,
    "MASKED": 2,
    "BLENDED": 4,
    "EMPTY": 8,
    "SATURATED": 16,
    "FAILED": Template.FAILED,
    "CLOSE": 64,
    "NOFIT": Template.NOFIT,
}
"""Bits of the catalog's ``flags``: the source's light reaches the image's edge; it falls on masked pixels; it is
shared with another source; there is none; it falls on saturated pixels; the backend could not model the source;
another source is too near to tell the two apart; the backend's fit did not settle."""


_SHOWN_ROWS = 10


class Cutouts(Sequence):
    """Images of a result's sources, each made when it is first asked for, and kept then.

    A field has thousands, and the header and WCS of each take more time and memory than its pixels. It is a sequence
    like a list that cannot be changed; copies and pickles of it are lists.

    Parameters
    ----------
    make : callable
        ``make(i)`` gives image ``i``.
    count : int
    """

    def __init__(self, make, count):
        self._make = make
        self._count = count
        self._made = {}

    def __len__(self):
        return self._count

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(self._count))]
        i = range(self._count)[i]
        if i not in self._made:
            return self._made.setdefault(i, self._make(i))  # the first one, should two threads make it
        return self._made[i]

    def passing(self):
        """All in turn; those that nobody asked for are not kept."""
        for i in range(self._count):
            yield self._made[i] if i in self._made else self._make(i)

    def __eq__(self, other):
        return list(self) == list(other) if isinstance(other, list | Cutouts) else NotImplemented

    __hash__ = None

    def __reduce__(self):
        return list, (list(self),)

    def __repr__(self):
        return f"<{self._count} images>"


@dataclass(frozen=True, repr=False)
class DeblendResult:
    """The sources of an image, and what is left.

    Attributes
    ----------
    sources : sequence of `~astropy.nddata.CCDData`
        Cut-outs of the image with one source's light each, 2-D or (band, y, x), with the WCS of the cut-out. They are
        made when they are asked for.
    models : sequence of `~astropy.nddata.CCDData`
        The templates on the same cut-outs: what each source looks like without the noise.
    residual : `~astropy.nddata.CCDData`
        What belongs to no source, on the full frame; masked pixels keep their values here. Its uncertainty is the
        image's.
    catalog : `~astropy.table.QTable`
        A row a source: ``id``; ``x``, ``y`` (0-based pixels); ``ra``, ``dec`` where there is a WCS; ``flux_<band>``
        and ``flux_err_<band>``; ``bbox_xmin``, ``bbox_xmax``, ``bbox_ymin``, ``bbox_ymax`` (inclusive); ``area``
        (pixels of its segment); ``a``, ``b``, ``theta`` (standard deviations in pixels along the axes of the model,
        and the angle from x to y); ``blendedness``, 1 - sum(T^2) / sum(T S) of its template T and the sum S of all
        (Bosch et al. 2018, equation 2 gives its kin); ``flags`` (bits, see `~astrogan.operators.deblender.FLAGS`).
    segmentation : `numpy.ndarray` of int32
        (y, x): the ``id`` of the source that a pixel belongs to first, 0 for none.
    """

    sources: Sequence
    models: Sequence
    residual: Any
    catalog: Any
    segmentation: np.ndarray
    _origins: tuple = field(default=(), repr=False)

    def __len__(self):
        return len(self.sources)

    def __repr__(self):
        count = len(self.sources)
        return f"<DeblendResult: {count} source{'' if count == 1 else 's'} in an image of {self.residual.shape}>"

    def _repr_html_(self):
        from astrogan.operators._html import html_table, paragraph

        count = len(self.catalog)
        text = paragraph(repr(self)[1:-1]) + html_table(_shown_columns(self.catalog), most=_SHOWN_ROWS)
        return text + (paragraph(f"and {count - _SHOWN_ROWS} more in .catalog") if count > _SHOWN_ROWS else "")

    def full(self, i):
        """Source ``i`` (0-based) in the full frame, zero around it.

        Returns
        -------
        `~astropy.nddata.CCDData`
            With the residual's WCS.

        Raises
        ------
        InputError
            If there is no such source.
        """
        if not isinstance(i, int | np.integer) or not -len(self.sources) <= i < len(self.sources):
            raise InputError(f"i={i!r} names no source; there are {len(self.sources)}, counted from 0")
        data = np.zeros_like(self.residual.data)
        source = self.sources[i]
        data[self._window(i, source)] = source.data
        return self._framed(data, source.meta)

    def recompose(self):
        """The sum of all sources and the residual: the image.

        Returns
        -------
        `~astropy.nddata.CCDData`
        """
        data = np.array(self.residual.data, np.float64)
        for i, source in enumerate(_passing(self.sources)):
            data[self._window(i, source)] += source.data
        return self._framed(data.astype(self.residual.data.dtype), self.residual.meta)

    def write(self, path, overwrite=False):
        """Write everything into one FITS file.

        After an empty primary HDU come ``RESIDUAL``, ``SEGMENTATION``, ``CATALOG``, and ``SOURCE_<id>`` and
        ``MODEL_<id>`` of each source, each with its header and WCS; masks, uncertainties and PSFs follow their image as
        ``<name>_MASK``, ``<name>_UNCERT`` and ``<name>_PSFIMAGE``, so that
        ``read_image(path, hdu="SOURCE_1")`` gives the source back as it was.

        Parameters
        ----------
        path : str or path-like
        overwrite : bool
            Whether an existing file may be replaced; it is only once the new one is complete.

        Raises
        ------
        ImageWriteError
            If the name is not that of a FITS file, the file exists, or it cannot be written.
        """
        from astrogan.image.write import _stream, _write_hdu, atomic_path, check_fits_name

        check_fits_name(path)
        with atomic_path(path, overwrite=overwrite) as temporary, _stream(temporary) as stream:
            _leading_hdus(self).writeto(stream)
            # There may be thousands; as HDU objects, astropy would check each of them once more.
            for header, array in _source_hdus(self):
                _write_hdu(stream, header, array)

    def _window(self, i, source):
        y, x = self._origins[i]
        height, width = source.shape[-2:]
        return (..., slice(y, y + height), slice(x, x + width))

    def _framed(self, data, meta):
        from astropy.nddata import CCDData

        residual = self.residual
        mask = None if residual.mask is None else residual.mask.copy()
        wcs = None if residual.wcs is None else residual.wcs.deepcopy()
        return CCDData(data, unit=residual.unit, mask=mask, wcs=wcs, meta=meta.copy())


_FORMATS = {"id": "d", "x": ".1f", "y": ".1f", "ra": ".5f", "dec": ".5f", "blendedness": ".2f"}


def _shown_columns(catalog):
    """{heading with unit: cells} of what a glance at the catalog needs."""
    few = catalog[:_SHOWN_ROWS]
    columns = {}
    for name in few.colnames:
        flux = name.startswith("flux_") and not name.startswith("flux_err_")
        if flux or name in _FORMATS:
            unit = str(few[name].unit or "")
            form = _FORMATS.get(name, ".4g")
            heading = f"{name} [{unit}]" if unit else name
            columns[heading] = [f"{getattr(value, 'value', value):{form}}" for value in few[name]]
    columns["flags"] = [" ".join(word for word, bit in FLAGS.items() if int(flag) & bit) for flag in few["flags"]]
    return columns


def _passing(images):
    return images.passing() if isinstance(images, Cutouts) else images


def _leading_hdus(result):
    """What comes before the sources."""
    from astropy.io import fits

    from astrogan.image._headers import quiet

    residual = (fits.ImageHDU(array, header=header) for header, array in _image_hdus("RESIDUAL", result.residual))
    hdus = [fits.PrimaryHDU(), *residual]
    grid = result.residual.wcs
    header = None if grid is None else grid.celestial.to_header(relax=True)
    hdus.append(fits.ImageHDU(result.segmentation, header=header, name="SEGMENTATION"))
    with quiet():  # FITS has no word for units such as nmgy; they are written as astropy's own
        catalog = fits.table_to_hdu(result.catalog)
    catalog.name = "CATALOG"
    return fits.HDUList([*hdus, catalog])


def _source_hdus(result):
    """(header, array) of each source and model, and of their companions."""
    images = (_passing(cutouts) for cutouts in (result.sources, result.models))
    for number, source, model in zip(result.catalog["id"], *images, strict=True):
        yield from _image_hdus(f"SOURCE_{number}", source)
        yield from _image_hdus(f"MODEL_{number}", model)


def _image_hdus(name, image):
    """(header, array) of an image and its companions, named as `~astrogan.image.read.read_image` looks for them."""
    from astrogan.image.write import _hdus_of

    hdus = _hdus_of(image, name, band=name)
    header, _ = hdus[0]
    # The name is the source's; a band keeps the name that it came with.
    band = image.meta.get("BAND")
    del header["BAND"]
    if band is not None:
        header["BAND"] = band
    return hdus
