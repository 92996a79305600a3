"""From a backend's arrays back to the container that the image came in."""

from __future__ import annotations

import copy

import numpy as np

from astrogan.exceptions import InputError
from astrogan.image.mask import RestorationFlag
from astrogan.image.prepare import Prepared
from astrogan.image.provenance import KEYWORDS, add_provenance, describe

__all__ = ["KEEP", "finish", "to_ccd"]

KEEP = object()
"""Default of ``wcs``: the grid did not change."""


def finish(
    prepared: Prepared,
    data,
    *,
    variance=None,
    mask=None,
    flags=None,
    wcs=KEEP,
    psf=None,
    operation="restore",
    notes=None,
):
    """Put a result into the form that the image came in.

    Parameters
    ----------
    prepared : `~astrogan.image.prepare.Prepared`
        What `~astrogan.image.prepare.prepare` made of the image.
    data : `numpy.ndarray`
        (band, y, x), in the observation's flux.
    variance : `numpy.ndarray`, optional
        Same shape; `None` gives an output without uncertainty.
    mask : `numpy.ndarray` of bool, optional
        True where a pixel is bad. Default: the input's invalid pixels, where the shape is the input's.
    flags : `numpy.ndarray` of uint8, optional
        `~astrogan.image.mask.RestorationFlag` bits, same shape. They become ``flags`` of `~astropy.nddata.CCDData`,
        and ``meta["AGFLAGS"]`` says what the bits mean; plain `~astropy.nddata.NDData` has no place for them.
    wcs : `~astropy.wcs.WCS` or None
        For an output on another grid.
    psf : `~astrogan.image.psf.PSFModel` or (band, k, k) array, optional
        PSF of the result, where it is known.
    operation : str
        For provenance.
    notes : dict, optional
        More provenance, by FITS keyword.

    Returns
    -------
    Same form as the image: `~astropy.nddata.CCDData` (also for a path), `~astropy.nddata.NDData`, list or dict.
    """
    data, variance, mask = _checked(prepared, data, variance, mask, wcs)
    if flags is not None and np.shape(flags) != data.shape:
        raise InputError(f"flags has shape {np.shape(flags)}; it must be that of data, {data.shape}")
    kernels = getattr(psf, "kernels", psf)
    form = prepared.form
    if form.kind == "single":
        pick = slice(None) if form.cube else 0
        out = _container(form.images[0], prepared, 0, data, variance, mask, kernels, pick, wcs, operation, notes)
        return _flagged(out, flags, pick)
    results = [
        _flagged(
            _container(image, prepared, band, data, variance, mask, kernels, band, wcs, operation, notes), flags, band
        )
        for band, image in enumerate(form.images)
    ]
    return results if form.kind == "list" else dict(zip(form.keys, results, strict=True))


def to_ccd(prepared: Prepared, data, *, variance=None, mask=None, wcs=KEEP, psf=None, operation="deblend", notes=None):
    """One `~astropy.nddata.CCDData` of a result: 2-D if the image came as one 2-D image, else (band, y, x).

    A cube gets a 3-D WCS, because `~astropy.nddata.CCDData` can slice only that.

    Parameters
    ----------
    prepared, data, variance, mask, wcs, psf, operation, notes
        As for `finish`.

    Returns
    -------
    `~astropy.nddata.CCDData`
    """
    from astropy.nddata import CCDData

    from astrogan.image.wcs import cube_wcs

    data, variance, mask = _checked(prepared, data, variance, mask, wcs)
    kernels = getattr(psf, "kernels", psf)
    flat = len(data) == 1 and not prepared.form.cube
    grid = prepared.wcs if wcs is KEEP else wcs
    if not flat and grid is not None and grid.naxis == 2:
        grid = cube_wcs(grid, len(data))
    pick = 0 if flat else slice(None)
    like = prepared.form.images[0]
    return _container(like, prepared, 0, data, variance, mask, kernels, pick, grid, operation, notes, cls=CCDData)


def _checked(prepared, data, variance, mask, wcs):
    observation = prepared.observation
    data = np.asarray(data)
    if data.ndim != 3:
        raise InputError(f"data has shape {data.shape}; it must be (band, y, x)")
    same_grid = data.shape == observation.shape
    if not same_grid and wcs is KEEP and prepared.wcs is not None:
        raise InputError(f"data has shape {data.shape}, the image {observation.shape}; give the new grid's wcs")
    for name, array in (("variance", variance), ("mask", mask)):
        if array is not None and np.shape(array) != data.shape:
            raise InputError(f"{name} has shape {np.shape(array)}; it must be that of data, {data.shape}")
    if mask is None:
        mask = ~observation.valid if same_grid else np.zeros(data.shape, bool)
    scale = prepared.scale
    with np.errstate(over="ignore"):
        data = in_unit_of_image(data, scale)
        variance = None if variance is None else in_unit_of_image(variance, scale**2)
    return data, variance, np.asarray(mask, bool)


def in_unit_of_image(array, scale):
    """An array times the scale that was taken out; float32, unless the values are too small or too large for it."""
    return np.asarray(array, np.float32) if scale == 1 else np.asarray(array, np.float64) * scale


def _container(like, prepared, band, data, variance, mask, kernels, pick, wcs, operation, notes, cls=None):
    from astropy.nddata import CCDData, NDData

    cls = cls or (CCDData if isinstance(like, CCDData) else NDData)
    grid = _grid_of(like) if wcs is KEEP else wcs
    notes = dict(notes or {})
    meta = add_provenance(prepared.meta[band], prepared.notes | notes, _history(operation, notes))
    keywords = {"unit": prepared.unit, "wcs": copy.deepcopy(grid), "meta": meta}
    if mask[pick].any() or like.mask is not None:
        keywords["mask"] = mask[pick].copy()
    if variance is not None:
        keywords["uncertainty"] = _uncertainty(like.uncertainty, variance[pick])
    if cls is CCDData and keywords["unit"] is None:
        from astropy import units as u

        keywords["unit"] = u.dimensionless_unscaled
    out = cls(data[pick].copy(), **keywords)
    if kernels is not None and hasattr(out, "psf"):
        out.psf = np.array(kernels[pick])
    return out


def _flagged(out, flags, pick):
    """A container with its flags, where it can have any, and with what their bits mean."""
    if flags is None or not hasattr(out, "flags"):
        return out
    out.flags = np.array(flags[pick], np.uint8)
    meaning = ", ".join(f"{bit.name}={bit.value}" for bit in RestorationFlag)
    out.meta["AGFLAGS"] = (meaning, KEYWORDS["AGFLAGS"]) if hasattr(out.meta, "add_history") else meaning
    return out


def _grid_of(like):
    wcs = getattr(like, "wcs", None)
    return getattr(wcs, "low_level_wcs", wcs)


def _uncertainty(like, variance):
    """The variance as the input's class of uncertainty; as `VarianceUncertainty` where it had none."""
    from astrogan.image.uncertainty import to_uncertainty

    return to_uncertainty(variance, like)


def _history(operation, notes):
    import astrogan

    parts = [f"astrogan {astrogan.__version__}: {operation}"]
    if "AGBACK" in notes:
        parts.append(f"with {notes['AGBACK']}")
    if notes.get("AGOPTS"):
        parts.append(f"({describe(notes['AGOPTS'])})")
    return " ".join(parts)
