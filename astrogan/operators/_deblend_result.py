"""`DeblendResult`: the sources of an image, their catalogue, and what is left; writing it to FITS."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["FLAGS", "DeblendResult"]

FLAGS = {
    "EDGE": 1,
    "MASKED": 2,
    "BLENDED": 4,
    "EMPTY": 8,
    "SATURATED": 16,
}
"""Bits of the catalogue's ``flags``: the source's light reaches the image's edge; it falls on masked pixels; it is
shared with another source; there is none; it falls on saturated pixels."""


@dataclass(frozen=True, repr=False)
class DeblendResult:
    """The sources of an image, and what is left.

    Attributes
    ----------
    sources : list of `~astropy.nddata.CCDData`
        Cut-outs of the image with one source's light each, 2-D or (band, y, x), with the WCS of the cut-out.
    models : list of `~astropy.nddata.CCDData`
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

    sources: list
    models: list
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
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{self.catalog._repr_html_()}"

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
        data[self._window(i)] = self.sources[i].data
        return self._framed(data, self.sources[i].meta)

    def recompose(self):
        """The sum of all sources and the residual: the image.

        Returns
        -------
        `~astropy.nddata.CCDData`
        """
        data = np.array(self.residual.data, np.float64)
        for i, source in enumerate(self.sources):
            data[self._window(i)] += source.data
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

    def _window(self, i):
        y, x = self._origins[i]
        height, width = self.sources[i].shape[-2:]
        return (..., slice(y, y + height), slice(x, x + width))

    def _framed(self, data, meta):
        from astropy.nddata import CCDData

        residual = self.residual
        mask = None if residual.mask is None else residual.mask.copy()
        wcs = None if residual.wcs is None else residual.wcs.deepcopy()
        return CCDData(data, unit=residual.unit, mask=mask, wcs=wcs, meta=meta.copy())


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
    for number, source, model in zip(result.catalog["id"], result.sources, result.models, strict=True):
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
