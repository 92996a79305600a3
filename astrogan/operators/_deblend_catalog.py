"""From templates to sources: an image shared out exactly, and the catalog of what came of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from astrogan.api import Observation
from astrogan.operators._deblend_result import FLAGS, Cutouts, DeblendResult

__all__ = ["share_out"]

# A source that gives less than this part of its light to others is not called blended.
_ALONE = 1e-3

# Nearer than half the PSF's FWHM, or than this many pixels where that is less or unknown, centres are not told apart.
_CLOSE = 1.5


def share_out(prepared, observation, separation, notes):
    """Share an image out among the templates of its sources.

    Parameters
    ----------
    prepared : `~astrogan.image.prepare.Prepared`
    observation : `~astrogan.api.Observation`
        What is shared out: that of ``prepared``, or that less its background.
    separation : `~astrogan.api.Separation`
        Checked.
    notes : dict
        Provenance, by FITS keyword.

    Returns
    -------
    `~astrogan.operators.deblender.DeblendResult`
    """
    from astrogan.image.finish import to_ccd

    templates = separation.templates
    order = _order(templates)
    total = np.zeros(observation.shape)
    for i in order:
        total[_box(templates[i])] += templates[i].data
    shared = (total > 0) & observation.valid
    labels = _segmentation(separation, observation, order)
    scene = _Scene(prepared, observation, total, shared, labels, _close(templates, prepared.psf))
    cuts, rows = [], []
    for i, template in enumerate(templates):
        cut, row = _extract(scene, template, i)
        cuts.append(cut)
        rows.append(row)
    residual = to_ccd(
        prepared,
        _residual(prepared, observation, shared),
        variance=observation.variance if prepared.had_uncertainty else None,
        operation="deblend",
        notes=notes,
    )
    maker = _Maker(prepared, notes, tuple(cuts))
    return DeblendResult(
        Cutouts(maker.source, len(cuts)),
        Cutouts(maker.model, len(cuts)),
        residual,
        _catalog(rows, prepared, notes),
        labels,
        tuple(cut.origin for cut in cuts),
    )


def _order(templates):
    """Indices by place, so that rounding does not depend on the order of the positions."""
    return sorted(range(len(templates)), key=lambda i: (templates[i].position[::-1], templates[i].origin))


def _box(template):
    y, x = template.origin
    height, width = np.shape(template.data)[1:]
    return (slice(None), slice(y, y + height), slice(x, x + width))


def _segmentation(separation, observation, order):
    """The backend's labels, or the source with the largest template at each pixel."""
    if separation.segmentation is not None:
        return np.array(separation.segmentation, np.int32)
    labels = np.zeros(observation.shape[1:], np.int32)
    largest = np.zeros(labels.shape)
    for i in order:
        template = separation.templates[i]
        box = _box(template)[1:]
        height = np.sum(template.data, axis=0, dtype=np.float64)
        wins = height > largest[box]
        largest[box][wins] = height[wins]
        labels[box][wins] = i + 1
    return labels


def _close(templates, psf):
    """Whether each template has another one too near."""
    from scipy.spatial import cKDTree

    close = np.zeros(len(templates), bool)
    if len(templates) > 1:
        radius = _CLOSE if psf is None else max(_CLOSE, 0.5 * float(np.mean(psf.fwhm)))
        pairs = cKDTree([template.position for template in templates]).query_pairs(radius, output_type="ndarray")
        close[pairs.ravel()] = True
    return close


@dataclass(frozen=True)
class _Scene:
    """What all sources of an image have in common."""

    prepared: Any
    observation: Observation
    total: np.ndarray
    shared: np.ndarray
    labels: np.ndarray
    close: np.ndarray

    def __post_init__(self):
        variance, valid = self.observation.variance, self.observation.valid
        # A window of a mosaic may have a band without any valid pixel.
        noise = [np.sqrt(np.median(v[good] if good.any() else v)) for v, good in zip(variance, valid, strict=True)]
        object.__setattr__(self, "weight", 1 / np.square(np.array(noise, np.float64))[:, None, None])
        object.__setattr__(self, "areas", np.bincount(self.labels.ravel(), minlength=len(self.close) + 1))


@dataclass(frozen=True)
class _Cut:
    """The pixels of a source, (band, y, x), in the observation's flux."""

    origin: tuple[int, int]
    position: tuple[float, float]
    light: np.ndarray
    variance: np.ndarray | None
    model: np.ndarray
    model_variance: np.ndarray | None
    mask: np.ndarray


def _extract(scene, template, i):
    """One source's pixels, and its row of the catalog."""
    prepared, observation = scene.prepared, scene.observation
    box = _box(template)
    data, total, shared = np.asarray(template.data, np.float64), scene.total[box], scene.shared[box]
    ratio = np.divide(data, total, out=np.zeros(data.shape), where=shared)
    light, variance = observation.data[box] * ratio, observation.variance[box] * ratio
    # Where the image's unit makes flux too large or too small for float32, it is scaled in float64 later.
    dtype = np.float32 if prepared.scale == 1 else np.float64
    cut = _Cut(
        (box[1].start, box[2].start),
        tuple(map(float, template.position)),
        light.astype(dtype),
        variance.astype(dtype) if prepared.had_uncertainty else None,
        np.asarray(template.data, dtype),
        template.variance,
        ~observation.valid[box],
    )
    flux_variance = variance.sum(axis=(1, 2))
    if getattr(template, "flux_variance", None) is not None:
        flux_variance += template.flux_variance
    row = {"id": i + 1, "x": cut.position[0], "y": cut.position[1]}
    row["flux"] = light.sum(axis=(1, 2)) * prepared.scale
    row["flux_err"] = np.sqrt(flux_variance) * prepared.scale
    row["bbox_xmin"], row["bbox_xmax"] = box[2].start, box[2].stop - 1
    row["bbox_ymin"], row["bbox_ymax"] = box[1].start, box[1].stop - 1
    row["area"] = int(scene.areas[i + 1])
    row |= _shape(np.einsum("byx,b->yx", data, np.sqrt(scene.weight[:, 0, 0])))
    row["blendedness"] = _blendedness(data, total, scene.weight)
    row["flags"] = _flags(scene, template, box, cut.mask, row["blendedness"]) | FLAGS["CLOSE"] * int(scene.close[i])
    return cut, row


def _shape(height):
    """Standard deviations along the axes, and the angle, of a non-negative image."""
    total = height.sum()
    if not total > 0:
        return {"a": np.nan, "b": np.nan, "theta": np.nan}
    along_y, along_x = height.sum(axis=1) / total, height.sum(axis=0) / total
    y, x = np.arange(len(along_y)), np.arange(len(along_x))
    y, x = y - along_y @ y, x - along_x @ x
    yy, xx, xy = along_y @ y**2, along_x @ x**2, y @ height @ x / total
    mean, split = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    return {
        "a": np.sqrt(mean + split),
        "b": np.sqrt(max(mean - split, 0.0)),
        "theta": np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)),
    }


def _blendedness(template, total, weight):
    weighted = weight * template
    everything = np.sum(weighted * total)
    return max(float(1 - np.sum(weighted * template) / everything), 0.0) if everything > 0 else 0.0


def _flags(scene, template, box, mask, blendedness):
    """All flags but CLOSE."""
    lit = np.asarray(template.data) > 0
    height, width = scene.observation.shape[1:]
    rows, columns = lit.any(axis=(0, 2)), lit.any(axis=(0, 1))
    edge = (
        (box[1].start == 0 and rows[0])
        or (box[2].start == 0 and columns[0])
        or (box[1].stop == height and rows[-1])
        or (box[2].stop == width and columns[-1])
    )
    x, y = np.clip(np.floor(np.add(template.position, 0.5)).astype(int), 0, (width - 1, height - 1))
    saturated = scene.prepared.saturated
    bits = {
        "EDGE": edge,
        "MASKED": (lit & mask).any() or not scene.observation.valid[:, y, x].all(),
        "BLENDED": blendedness > _ALONE,
        "EMPTY": not (lit & scene.shared[box]).any(),
        "SATURATED": saturated is not None and (lit & saturated[box]).any(),
    }
    return sum(FLAGS[name] for name, is_set in bits.items() if is_set) | int(getattr(template, "flags", 0))


def _residual(prepared, observation, shared):
    """What is not shared: all of the image there, its own values under the mask, and the background."""
    image = np.array(prepared.observation.data, np.float32 if prepared.scale == 1 else np.float64)
    if observation is prepared.observation:
        image[shared] = 0
    else:
        image[shared] -= observation.data[shared]
    if not observation.valid.all():
        for plane, own, good in zip(image, _own_planes(prepared), observation.valid, strict=True):
            plane[~good] = np.asarray(own[~good], np.float64) / prepared.scale
    return image


def _own_planes(prepared):
    """Each band as it came."""
    for image in prepared.form.images:
        data = np.asarray(image.data)
        yield from data if data.ndim == 3 else (data,)


class _Maker:
    """Makes the images of the sources; holds what is common to them, and nothing of the image's size."""

    def __init__(self, prepared, notes, cuts):
        self._cuts = cuts
        self._notes = notes
        bands = prepared.observation.shape[0]
        image = prepared.form.images[0]
        uncertainty = image.uncertainty
        like = SimpleNamespace(
            mask=None if image.mask is None else True,
            uncertainty=None if uncertainty is None else type(uncertainty)(np.zeros(1)),
        )
        # The header and the WCS may be the caller's own, who may change them.
        self._prepared = prepared.replace(
            observation=Observation(np.zeros((bands, 1, 1), np.float32)),
            form=type(prepared.form)("single", (like,), cube=prepared.form.cube),
            wcs=copy.deepcopy(prepared.wcs),
            celestial=None,
            meta=(copy.deepcopy(prepared.meta[0]),),
            saturated=None,
        )

    def source(self, i):
        """The light of source ``i``."""
        cut = self._cuts[i]
        return self._image(cut, cut.light, cut.variance)

    def model(self, i):
        """The template of source ``i``."""
        cut = self._cuts[i]
        return self._image(cut, cut.model, cut.model_variance)

    def _image(self, cut, data, variance):
        from astrogan.image.finish import to_ccd
        from astrogan.image.wcs import crop_wcs

        y, x = cut.origin
        psf = self._prepared.psf
        image = to_ccd(
            self._prepared,
            data,
            variance=variance,
            mask=cut.mask,
            wcs=crop_wcs(self._prepared.wcs, x, y, data.shape[1:]),
            psf=None if psf is None else psf.at(*cut.position),
            operation="deblend",
            notes=self._notes,
        )
        _zero_variance(image)
        return image


def _zero_variance(image):
    """Where a source has no light its value, zero, is exact: deviation and variance are 0 there, too, and not NaN."""
    uncertainty = image.uncertainty
    if uncertainty is not None and uncertainty.uncertainty_type in ("std", "var"):
        uncertainty.array[np.isnan(uncertainty.array)] = 0


def _catalog(rows, prepared, notes):
    from astropy import units as u
    from astropy.table import QTable

    unit = u.dimensionless_unscaled if prepared.unit is None else prepared.unit

    def column(name):
        dtype = int if name in ("id", "area", "flags") or name.startswith("bbox") else float
        return np.array([row[name] for row in rows], dtype)

    table = QTable()
    for name in ("id", "x", "y"):
        table[name] = column(name)
    if prepared.celestial is not None:
        table["ra"], table["dec"] = _sky(prepared.celestial, table["x"], table["y"])
    for b, band in enumerate(prepared.observation.bands):
        for name in ("flux", "flux_err"):
            values = np.array([row[name][b] for row in rows], float)
            table[f"{name}_{band}"] = values * unit
    for name in ("bbox_xmin", "bbox_xmax", "bbox_ymin", "bbox_ymax", "area"):
        table[name] = column(name)
    table["a"], table["b"] = column("a") * u.pix, column("b") * u.pix
    table["theta"] = column("theta") * u.deg
    table["blendedness"], table["flags"] = column("blendedness"), column("flags")
    table.meta |= {key: value if isinstance(value, int | float | str) else str(value) for key, value in notes.items()}
    table.meta["FLAGBITS"] = ", ".join(f"{bit} {name}" for name, bit in FLAGS.items())
    return table


def _sky(wcs, x, y):
    """ICRS right ascension and declination; the WCS's own first two angles where it has no equatorial frame."""
    from astropy import units as u

    if len(x) == 0:
        return np.empty(0) * u.deg, np.empty(0) * u.deg
    sky = wcs.pixel_to_world(x, y).icrs
    return sky.ra.to(u.deg), sky.dec.to(u.deg)
