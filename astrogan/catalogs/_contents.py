"""What is kept of a result: its layers inside the stamp, and what is measured on it."""

from __future__ import annotations

import contextlib
import math

import numpy as np

from astrogan.catalogs._flags import RowFlag
from astrogan.catalogs._geometry import as_parts, first_part, like_parts
from astrogan.image.mask import RestorationFlag
from astrogan.metrics.photometry import aperture_flux
from astrogan.operators.base import _FAR

__all__ = ["LAYERS", "blank", "cut_image", "layers_in", "measured", "placed"]

_DOUBTFUL = int(RestorationFlag.UNTRUSTED | RestorationFlag.OUT_OF_RANGE)


def _planes(image, get):
    """(band, y, x) of something that every part of an image has; `None` if one has not."""
    arrays = [get(item) for item in as_parts(image)]
    if any(array is None for array in arrays):
        return None
    return np.concatenate([array if np.ndim(array) == 3 else np.asarray(array)[None] for array in arrays])


def layers_in(result, cut):
    """The parts of a result inside a stamp."""
    layers = {
        "DATA": _planes(result, lambda item: np.asarray(item.data)),
        "MASK": _planes(result, lambda item: None if item.mask is None else np.broadcast_to(item.mask, item.shape)),
        "UNCERT": _planes(result, lambda item: getattr(item.uncertainty, "array", None)),
        "FLAGS": _planes(result, lambda item: getattr(item, "flags", None)),
    }
    layers = {name: layer[:, *cut.inside] for name, layer in layers.items() if layer is not None}
    if layers["DATA"].shape[1:] != cut.shape:  # what lies outside is to be masked
        layers.setdefault("MASK", np.zeros(layers["DATA"].shape, bool))
    return layers


LAYERS = {"DATA": np.float32, "MASK": np.uint8, "UNCERT": np.float32, "FLAGS": np.uint8}


def blank(name, shape):
    """A layer where there is no stamp."""
    dtype = LAYERS[name]
    return np.full(shape, np.nan if dtype == np.float32 else name == "MASK", dtype)


def placed(layer, cut, name):
    """A layer in a stamp that may reach beyond it."""
    whole = blank(name, (len(layer), *cut.shape))
    place = tuple(slice(o, o + n) for o, n in zip(cut.offset, layer.shape[1:], strict=True))
    whole[:, *place] = layer
    return whole


def cut_image(result, cut):
    """The result itself, cut; only whole images are written as they are."""
    if tuple(p.stop - p.start for p in cut.inside) == np.shape(first_part(result).data)[-2:]:
        return result
    return like_parts(result, [_cut_one(item, cut) for item in as_parts(result)])


def _cut_one(image, cut):
    from astropy.nddata import CCDData

    from astrogan.image.wcs import crop_wcs

    def place(array, name):
        planes = np.asarray(array).reshape(-1, *np.shape(array)[-2:])[:, *cut.inside]
        return placed(planes, cut, name).reshape(*np.shape(array)[:-2], *cut.shape)

    uncertainty = image.uncertainty
    if uncertainty is not None:
        uncertainty = type(uncertainty)(place(uncertainty.array, "UNCERT"), unit=uncertainty.unit)
    mask = np.zeros(image.shape, bool) if image.mask is None else np.broadcast_to(image.mask, image.shape)
    out = CCDData(
        place(image.data, "DATA"),
        unit=image.unit,
        mask=place(mask, "MASK").astype(bool),
        uncertainty=uncertainty,
        wcs=crop_wcs(image.wcs, cut.first[1], cut.first[0], cut.shape),
        meta=image.meta,
        psf=getattr(image, "psf", None),
    )
    if getattr(image, "flags", None) is not None:
        out.flags = place(image.flags, "FLAGS")
    return out


def measured(job, window, image, result, layers, cut):
    """Flags and numbers of a row."""
    flags = RowFlag.PARTLY_OUTSIDE if window.is_partly_outside else RowFlag(0)
    masked = layers.get("MASK")
    if masked is not None and masked.any():
        flags |= RowFlag.MASKED
    if "FLAGS" in layers and (layers["FLAGS"] & _DOUBTFUL).any():
        flags |= RowFlag.UNTRUSTED
    info = _info(first_part(result).meta)
    score = info.get("out_of_range", math.nan)
    if score > _FAR:
        flags |= RowFlag.OUT_OF_RANGE
    record = {
        "flags": int(flags),
        "error": "",
        "unit": str(first_part(result).unit),
        "masked": 0 if masked is None else int(masked.sum()),
        "out_of_range": score,
        "weights": str(first_part(result).meta.get("AGWEIGHT", "")),
    }
    if job.aperture is None:
        return record
    x, y = (p - r.start for p, r in zip(window.place, window.read[::-1], strict=True))
    if not job.same_grid:
        x, y = (p - f.start for p, f in zip(window.place, window.full[::-1], strict=True))
    record["flux_in"] = _flux(image, x, y, job.aperture)
    sy, sx = cut.scale
    record["flux_out"] = _flux(result, (x + 0.5) * sx - 0.5, (y + 0.5) * sy - 0.5, job.aperture * math.sqrt(sx * sy))
    return record


def _info(meta):
    """Numbers of what the backend reported: ``name=value, ...``."""
    numbers = {}
    for item in str(meta.get("AGINFO", "")).split(", "):
        name, _, value = item.partition("=")
        with contextlib.suppress(ValueError):
            numbers[name] = float(value)
    return numbers


def _flux(image, x, y, radius):
    """Flux in an aperture, band by band; pixels that are masked count as nothing."""
    data = _planes(image, lambda item: np.asarray(item.data))
    mask = _planes(image, lambda item: np.zeros(item.shape, bool) if item.mask is None else item.mask)
    sums = aperture_flux(data, (x, y), radius, mask=mask | ~np.isfinite(data)).tolist()
    return sums if len(sums) > 1 else sums[0]
