"""`~astrogan.Deblender`: an image's sources, one image each, that add up to it exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from astrogan.api import Separation
from astrogan.exceptions import BackendError, InputError, UnitError, WCSError
from astrogan.operators._deblend_result import FLAGS, DeblendResult
from astrogan.operators.base import Operator, as_generator

__all__ = ["FLAGS", "DeblendResult", "Deblender"]

# Positions nearer than this, in pixels, are the same one.
_SAME = 1e-3

# A source that gives less than this part of its light to others is not called blended.
_ALONE = 1e-3


class Deblender(Operator):
    """Separate overlapping sources.

    Parameters
    ----------
    backend : str or object, optional
        A name from ``list_backends("deblender")``, ``"distribution:name"``, or an instance.
    psf : optional
        PSF of the images, in any form that `~astrogan.image.psf.as_psf` takes. Default: the image's own, else its
        header's, else, where the backend needs one, one built from its stars.
    background : None or 'local', optional
        With `None` the image is taken to be sky-subtracted. With ``"local"`` the background is measured (see
        `~astrogan.image.uncertainty.background_rms`) and left out of the sources: it stays in the residual.
    **options
        For the backend, e.g. ``threshold=2``.

    Raises
    ------
    InputError
        If an option is unknown or out of range.

    Notes
    -----
    The backend gives each source i a template m_i >= 0; the source's image is c_i = image m_i / sum_j m_j, computed in
    float64, where that sum is positive and the pixel is valid. All else is the residual, so the sources and the
    residual add up to the image whatever the templates, noise included, positive and negative. The templates
    themselves, which have no noise of the image's own, are the ``models``.

    A source's variance is the share m_i / sum_j m_j of the image's: as if photons were dealt out, so that the
    variances add up, too. How uncertain the templates are is not in it. Without an uncertainty in the image, sources
    have none, and ``flux_err`` comes from the noise of the background.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astrogan import Deblender
    >>> y, x = np.mgrid[:40, :60]
    >>> flux = sum(f * np.exp(-((x - x0) ** 2 + (y - 20) ** 2) / 8) for f, x0 in ((100, 25), (50, 33)))
    >>> image = CCDData(flux + np.random.default_rng(0).normal(0, 0.5, flux.shape), unit="adu")
    >>> result = Deblender()(image)
    >>> result
    <DeblendResult: 2 sources in an image of (40, 60)>
    >>> bool(np.allclose(result.recompose().data, image.data, atol=1e-4))
    True
    """

    role = "deblender"
    operation = "deblend"

    def __init__(self, backend="symmetric", *, psf=None, background=None, **options):
        super().__init__(backend, **options)
        if background not in (None, "local"):
            raise InputError(f"background={background!r} must be None (the image is sky-subtracted) or 'local'")
        self.psf = psf
        self.background = background

    def __call__(self, image, positions=None, *, psf=None, rng=0, **reading):
        """Separate the sources of one image.

        Parameters
        ----------
        image : path, `~astropy.nddata.NDData`, list or dict
            2-D, or 3-D with axes (band, y, x), or equal-shaped 2-D ones, one a band. Never changed.
        positions : optional
            Where the sources are: an array of shape (source, 2) with (x, y) in 0-based pixels, a
            `~astropy.coordinates.SkyCoord`, or a `~astropy.table.Table` with columns ``x`` and ``y`` (pixels) or
            ``ra`` and ``dec`` (degrees, unless they have a unit). Default: they are detected.
        psf : optional
            Overrides the operator's.
        rng : int or `numpy.random.Generator`
            For backends that draw random numbers.
        **reading
            ``unit``, ``hdu``, ``uncertainty``, ``uncertainty_type``, ``mask``, ``saturation``, ``pixel_scale``,
            ``max_pixels``: see `~astrogan.image.prepare.prepare`.

        Returns
        -------
        `DeblendResult`
            With one source per position, in their order; empty, with the image as residual, where none is detected.

        Raises
        ------
        InputError, UnitError, PSFError, ImageReadError
            If the image cannot be used, or a position is not finite, outside the image or there twice.
        WCSError
            If positions are on the sky and the image has no WCS.
        BackendError
            If the backend breaks its contract.
        """

        seed, generator = rng, as_generator(rng)

        prepared = self._read(
            image,
            reading,
            psf=self.psf if psf is None else psf,
            needs_psf=self._needs("psf"),
            needs_variance=True,
        )
        observation = _less_background(prepared.observation) if self.background else prepared.observation
        self._check_size(observation.shape)
        if positions is not None:
            positions = _pixel_positions(positions, prepared.celestial, observation.shape)
        if positions is not None and len(positions) == 0:
            separation = Separation(())
        else:
            separation = self._run(self.backend, observation, positions, rng=generator)
            self._check_separation(separation, observation, positions)
        notes = self._notes(seed, separation.info)
        if len(observation.bands) > 1:
            notes["AGBANDS"] = ",".join(observation.bands)
        return _result(prepared, observation, separation, notes)

    def _check_separation(self, separation, observation, positions):
        """Hold a backend's `~astrogan.api.Separation` to the contract."""
        who = f"{self.role} {self.backend_name!r}"
        if not hasattr(separation, "templates"):
            raise BackendError(f"{who} returned {type(separation).__name__}; it must return a Separation")
        if positions is not None and len(separation.templates) != len(positions):
            raise BackendError(f"{who} returned {len(separation.templates)} templates for {len(positions)} positions")
        bands, height, width = observation.shape
        for i, template in enumerate(separation.templates):
            data = np.asarray(template.data)
            if data.ndim != 3 or len(data) != bands or 0 in data.shape or data.dtype.kind != "f":
                raise BackendError(
                    f"{who}: template {i} has shape {data.shape} and dtype {data.dtype}; it must be ({bands}, height, "
                    "width) floats"
                )
            (y, x), (h, w) = template.origin, data.shape[1:]
            if not (0 <= y <= height - h and 0 <= x <= width - w):
                raise BackendError(
                    f"{who}: template {i}, {h} x {w} pixels at (y, x) = ({y}, {x}), leaves the image of "
                    f"{height} x {width}"
                )
            for name in ("data", "variance"):
                array = getattr(template, name)
                if array is not None and not (np.isfinite(array).all() and (np.asarray(array) >= 0).all()):
                    raise BackendError(f"{who}: {name} of template {i} is negative or not finite somewhere")
        labels = separation.segmentation
        if labels is not None and np.shape(labels) != (height, width):
            raise BackendError(f"{who}: segmentation has shape {np.shape(labels)}; it must be {(height, width)}")


def _less_background(observation):
    """The observation without its background."""
    from astrogan.image.uncertainty import background_rms

    background = [background_rms(p, v)[0] for p, v in zip(observation.data, observation.valid, strict=True)]
    return observation.replace(data=observation.data - np.stack(background))


def _pixel_positions(positions, wcs, shape):
    """Positions of any form as a checked (source, 2) array of pixels."""
    from astropy.coordinates import SkyCoord
    from astropy.table import Row, Table

    if isinstance(positions, Row):
        positions = Table(positions)
    if isinstance(positions, Table):
        positions = _from_table(positions)
    if isinstance(positions, SkyCoord):
        positions = _from_sky(positions, wcs)
    try:
        xy = np.array(positions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"positions={type(positions).__name__} must be a (source, 2) array of (x, y), a SkyCoord, or a Table"
        ) from error
    if xy.size == 0:
        return np.empty((0, 2))
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise InputError(f"positions has shape {xy.shape}; it must be (source, 2), each row (x, y) in pixels")
    _check_positions(xy, shape)
    return xy


def _from_table(table):
    """(x, y) or a SkyCoord from a table's columns, whatever their case."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    names = {name.lower(): name for name in table.colnames}
    for x, y in (("x", "y"), ("x_centroid", "y_centroid"), ("xcentroid", "ycentroid")):
        if x in names and y in names:
            return np.stack([_pixels(table[names[axis]], names[axis]) for axis in (x, y)], axis=-1)
    for lon, lat in (("ra", "dec"), ("raj2000", "dej2000")):
        if lon in names and lat in names:
            pair = [table[names[lon]], table[names[lat]]]
            return SkyCoord(*(u.Quantity(_unmasked(c), getattr(c, "unit", None) or u.deg) for c in pair))
    for name in table.colnames:
        if isinstance(table[name], SkyCoord):
            return table[name]
    raise InputError(
        f"positions has columns {', '.join(table.colnames)}; it needs x and y (0-based pixels) or ra and dec"
    )


def _pixels(column, name):
    from astropy import units as u

    unit = getattr(column, "unit", None)
    if unit not in (None, u.pix, u.dimensionless_unscaled):
        raise UnitError(f"positions: column {name!r} has unit {unit}; give pixels, or ra and dec")
    return np.asarray(getattr(_unmasked(column), "value", _unmasked(column)), np.float64)


def _unmasked(column):
    """Masked entries become NaN, which the check of positions names."""
    return column.astype(float).filled(np.nan) if hasattr(column, "filled") else column


def _from_sky(sky, wcs):
    if wcs is None:
        raise WCSError("positions are on the sky and the image has no celestial WCS; give pixels, or add a WCS")
    x, y = wcs.world_to_pixel(sky)
    return np.stack([np.atleast_1d(x), np.atleast_1d(y)], axis=-1)


def _check_positions(xy, shape):
    from scipy.spatial import cKDTree

    height, width = shape[1:]
    for i, (x, y) in enumerate(xy):
        if not (np.isfinite(x) and np.isfinite(y)):
            raise InputError(f"positions[{i}] = ({x}, {y}) is not finite; leave that source out")
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
            raise InputError(
                f"positions[{i}] = ({x:.6g}, {y:.6g}) lies outside the image of {width} x {height} pixels (x, y); "
                "leave that source out, or check the order of x and y"
            )
    pairs = cKDTree(xy).query_pairs(_SAME)
    if pairs:
        i, j = min(pairs)
        raise InputError(
            f"positions[{i}] and positions[{j}] are the same, ({xy[i, 0]:.6g}, {xy[i, 1]:.6g}); keep one of them"
        )


def _result(prepared, observation, separation, notes):
    """Share the image out among the templates."""
    from astrogan.image.finish import to_ccd

    total = np.zeros(observation.shape)
    for template in separation.templates:
        total[_box(template)] += template.data
    shared = (total > 0) & observation.valid
    labels = _segmentation(separation, observation)
    scene = _Scene(prepared, observation, total, shared, labels)
    sources, models, rows = [], [], []
    for i, template in enumerate(separation.templates):
        source, model, row = _extract(scene, template, i + 1, notes)
        sources.append(source)
        models.append(model)
        rows.append(row)
    residual = to_ccd(
        prepared,
        _residual(prepared, observation, shared),
        variance=observation.variance if prepared.had_uncertainty else None,
        operation="deblend",
        notes=notes,
    )
    catalog = _catalog(rows, prepared, scene, notes)
    origins = tuple((int(t.origin[0]), int(t.origin[1])) for t in separation.templates)
    return DeblendResult(sources, models, residual, catalog, labels, origins)


@dataclass(frozen=True)
class _Scene:
    """What all sources of an image have in common."""

    prepared: Any
    observation: Any
    total: np.ndarray
    shared: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        variance, valid = self.observation.variance, self.observation.valid
        noise = [np.sqrt(np.median(v[good])) for v, good in zip(variance, valid, strict=True)]
        object.__setattr__(self, "weight", 1 / np.square(np.array(noise, np.float64))[:, None, None])
        object.__setattr__(self, "areas", np.bincount(self.labels.ravel()))


def _box(template):
    y, x = template.origin
    height, width = np.shape(template.data)[1:]
    return (slice(None), slice(y, y + height), slice(x, x + width))


def _segmentation(separation, observation):
    """The backend's labels, or the source with the largest template at each pixel."""
    if separation.segmentation is not None:
        return np.array(separation.segmentation, np.int32)
    labels = np.zeros(observation.shape[1:], np.int32)
    largest = np.zeros(labels.shape)
    for i, template in enumerate(separation.templates):
        box = _box(template)[1:]
        height = np.sum(template.data, axis=0, dtype=np.float64)
        wins = height > largest[box]
        largest[box][wins] = height[wins]
        labels[box][wins] = i + 1
    return labels


def _residual(prepared, observation, shared):
    """What is not shared: all of the image there, its own values under the mask, and the background."""
    image = prepared.observation.data.astype(np.float64)
    hidden = ~observation.valid
    if hidden.any():
        bands = [np.asarray(band.data, np.float64) for band in prepared.form.images]
        own = np.concatenate([band if band.ndim == 3 else band[np.newaxis] for band in bands])
        image[hidden] = own[hidden] / prepared.scale
    if observation is prepared.observation:
        image[shared] = 0
    else:
        image[shared] -= observation.data[shared]
    return image


def _extract(scene, template, number, notes):
    """One source and its model as CCDData, and its row of the catalogue."""
    from astrogan.image.finish import to_ccd
    from astrogan.image.wcs import crop_wcs

    prepared, observation = scene.prepared, scene.observation
    box = _box(template)
    data = np.asarray(template.data, np.float64)
    ratio = np.divide(data, scene.total[box], out=np.zeros(data.shape), where=scene.shared[box])
    light = observation.data[box] * ratio
    variance = observation.variance[box] * ratio
    common = {
        "mask": ~observation.valid[box],
        "wcs": crop_wcs(prepared.wcs, box[2].start, box[1].start, data.shape[1:]),
        "psf": _psf_at(prepared.psf, template.position),
        "operation": "deblend",
        "notes": notes,
    }
    source = to_ccd(prepared, light, variance=variance if prepared.had_uncertainty else None, **common)
    model = to_ccd(prepared, data, variance=template.variance, **common)
    for image in (source, model):
        _zero_variance(image)
    row = {"id": number, "x": float(template.position[0]), "y": float(template.position[1])}
    row["flux"] = light.sum(axis=(1, 2)) * prepared.scale
    row["flux_err"] = np.sqrt(variance.sum(axis=(1, 2))) * prepared.scale
    row["bbox_xmin"], row["bbox_xmax"] = box[2].start, box[2].stop - 1
    row["bbox_ymin"], row["bbox_ymax"] = box[1].start, box[1].stop - 1
    row["area"] = int(scene.areas[number]) if number < len(scene.areas) else 0
    row |= _shape(np.sum(data * np.sqrt(scene.weight), axis=0))
    row["blendedness"] = _blendedness(data, scene.total[box], scene.weight)
    row["flags"] = _flags(scene, box, data, row["blendedness"])
    return source, model, row


def _psf_at(psf, position):
    if psf is None:
        return None
    return psf.at(*position) if psf.varies else psf.kernels


def _zero_variance(image):
    """Where a source has no light its value, zero, is exact: deviation and variance are 0 there, too, and not NaN."""
    uncertainty = image.uncertainty
    if uncertainty is not None and uncertainty.uncertainty_type in ("std", "var"):
        uncertainty.array[np.isnan(uncertainty.array)] = 0


def _shape(height):
    """Standard deviations along the axes, and the angle, of a non-negative image."""
    total = height.sum()
    if not total > 0:
        return {"a": np.nan, "b": np.nan, "theta": np.nan}
    y, x = np.indices(height.shape)
    x, y = x - (height * x).sum() / total, y - (height * y).sum() / total
    xx, yy, xy = ((height * product).sum() / total for product in (x * x, y * y, x * y))
    mean, split = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    return {
        "a": np.sqrt(mean + split),
        "b": np.sqrt(max(mean - split, 0.0)),
        "theta": np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)),
    }


def _blendedness(template, total, weight):
    everything = np.sum(weight * template * total)
    return max(float(1 - np.sum(weight * template**2) / everything), 0.0) if everything > 0 else 0.0


def _flags(scene, box, data, blendedness):
    lit = data > 0
    height, width = scene.observation.shape[1:]
    rows, columns = lit.any(axis=(0, 2)), lit.any(axis=(0, 1))
    edge = (
        (box[1].start == 0 and rows[0])
        or (box[2].start == 0 and columns[0])
        or (box[1].stop == height and rows[-1])
        or (box[2].stop == width and columns[-1])
    )
    saturated = scene.prepared.saturated
    bits = {
        "EDGE": edge,
        "MASKED": (lit & ~scene.observation.valid[box]).any(),
        "BLENDED": blendedness > _ALONE,
        "EMPTY": not (lit & scene.shared[box]).any(),
        "SATURATED": saturated is not None and (lit & saturated[box]).any(),
    }
    return sum(FLAGS[name] for name, is_set in bits.items() if is_set)


def _catalog(rows, prepared, scene, notes):
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
