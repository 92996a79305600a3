"""From an image in any form to planes that can be drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from astrogan.exceptions import InputError, UnitError

__all__ = ["Planes", "check_same_bands", "in_unit", "planes_of"]

_META = ("BAND", "FILTER", "AGBANDS", "PIXSCALE")


@dataclass(frozen=True)
class Planes:
    """The planes of an image.

    Parameters
    ----------
    data : `numpy.ndarray`
        (band, y, x), float64, NaN where masked or not finite.
    sigma : `numpy.ndarray` or None
        Standard deviations, same shape, unit and NaN.
    bands : tuple of str
    unit : `~astropy.units.Unit` or None
    wcs : `~astropy.wcs.WCS` or None
        Celestial, 2-D.
    pixel_scale : float or None
        Arcsec per pixel.
    """

    data: np.ndarray
    sigma: np.ndarray | None
    bands: tuple[str, ...]
    unit: Any = None
    wcs: Any = None
    pixel_scale: float | None = None

    @property
    def shape(self):
        """(y, x)."""
        return self.data.shape[1:]

    def index(self, band, name="band"):
        """Number of a band, given by name or number."""
        if isinstance(band, str) and band in self.bands:
            return self.bands.index(band)
        if (
            isinstance(band, int | np.integer)
            and not isinstance(band, bool)
            and -len(self.bands) <= band < len(self.bands)
        ):
            return int(band) % len(self.bands)
        raise InputError(f"{name}={band!r} is no band of the image; it has {', '.join(self.bands)} (or numbers from 0)")

    def only(self, band, name="band"):
        """One band of several; all of them for `None`."""
        if band is None:
            return self
        k = slice(self.index(band, name), self.index(band, name) + 1)
        sigma = None if self.sigma is None else self.sigma[k]
        return replace(self, data=self.data[k], sigma=sigma, bands=self.bands[k])

    def times(self, factor, unit):
        """The same in another unit."""
        sigma = None if self.sigma is None else self.sigma * factor
        return replace(self, data=self.data * factor, sigma=sigma, unit=unit)


def planes_of(image, name="image"):
    """The planes of an image.

    Parameters
    ----------
    image : path, `~astropy.nddata.NDData`, array, `~astropy.units.Quantity`, list or dict
        (y, x) or (band, y, x), or 2-D ones, one a band.
    name : str
        What errors call it.

    Returns
    -------
    `Planes`
    """
    from astrogan.image.prepare import prepare

    try:
        prepared = prepare(_bare(image))
    except InputError as error:
        raise type(error)(str(error) if name == "image" else f"{name}: {error}") from error
    seen = prepared.observation
    hidden = ~seen.valid
    data = np.where(hidden, np.nan, seen.data.astype(np.float64) * prepared.scale)
    sigma = seen.variance
    if sigma is not None:
        sigma = np.where(hidden, np.nan, np.sqrt(sigma.astype(np.float64)) * prepared.scale)
    return Planes(data, sigma, tuple(seen.bands), prepared.unit, prepared.celestial, seen.pixel_scale)


def _bare(image):
    """Without PSF and with little of its header: neither is drawn, and reading them takes time and may warn."""
    import os

    from astropy.nddata import NDData

    if isinstance(image, Mapping):
        return {key: _bare(item) for key, item in image.items()}
    if isinstance(image, list | tuple):
        return [_bare(item) for item in image]
    if isinstance(image, str | os.PathLike):
        from astrogan.image.read import read_image

        image = read_image(image)
    if isinstance(image, np.ndarray) and image.dtype.names is None:
        return NDData(image)
    if not isinstance(image, NDData):
        return image  # prepare says what is wrong with it
    meta = {key: image.meta[key] for key in _META if hasattr(image.meta, "get") and image.meta.get(key) is not None}
    mask, unit, wcs = image.mask, image.unit, image.wcs
    return NDData(image.data, mask=mask, unit=unit, wcs=wcs, uncertainty=_known(image.uncertainty), meta=meta)


def _known(uncertainty):
    """Without those that say nothing (`~astropy.nddata.UnknownUncertainty`)."""
    from astropy.nddata import UnknownUncertainty

    return None if isinstance(uncertainty, UnknownUncertainty) else uncertainty


def in_unit(planes, unit, name):
    """Planes in the unit of another image; an image without a unit is taken to be in that of the other."""
    if planes.unit is None or unit is None or planes.unit == unit:
        return planes
    try:
        return planes.times(planes.unit.to(unit), unit)
    except ValueError as error:
        raise UnitError(
            f"{name} has unit {planes.unit}, which does not convert to {unit}; convert it first, or show it alone"
        ) from error


def check_same_bands(first, second, names):
    """Bands that go together have the same names, or at least the same number."""
    if len(first.bands) != len(second.bands):
        raise InputError(
            f"{names[1]} has {len(second.bands)} bands ({', '.join(second.bands)}) and {names[0]} "
            f"{len(first.bands)} ({', '.join(first.bands)}); give both the same, or one band of each"
        )
    if set(first.bands) != set(second.bands) or first.bands == second.bands:
        return second
    order = [second.bands.index(band) for band in first.bands]
    sigma = None if second.sigma is None else second.sigma[order]
    return replace(second, data=second.data[order], sigma=sigma, bands=first.bands)
