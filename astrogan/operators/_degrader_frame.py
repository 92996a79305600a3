"""From what users say (angles, magnitudes, electrons per count) to pixels, electrons and flux of one image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from astrogan.exceptions import InputError, UnitError
from astrogan.image._arguments import positive_arcsec, positive_in

_NANOMAGGY_JY = 3.631e-6


@dataclass(frozen=True)
class Frame:
    """What options are resolved against: bands, pixel scale and unit of an image."""

    n_bands: int
    arcsec: float | None
    unit: Any
    scale: float
    bands: tuple

    @classmethod
    def of(cls, prepared):
        observation = prepared.observation
        return cls(observation.shape[0], observation.pixel_scale, prepared.unit, prepared.scale, observation.bands)

    def in_unit(self, name, value):
        """A Quantity as a number of the image's unit."""
        from astropy import units as u

        unit = u.dimensionless_unscaled if self.unit is None else self.unit
        try:
            return value.to_value(unit, equivalencies=_ab())
        except u.UnitConversionError as error:
            raise UnitError(
                f"{name}={value} does not convert to the image's unit, {_say(self.unit)}; give it in that unit, or say "
                "unit= where the image names none"
            ) from error

    def flux(self, name, value):
        """A number or Quantity in the flux of the observation."""
        if value is None:
            return None
        number = self.in_unit(name, value) if hasattr(value, "unit") else as_numbers(value, name)
        return number / self.scale

    def nanomaggies(self, zero_point, what):
        """Nanomaggies per unit of the image's flux, a number or one per band."""
        from astropy import units as u

        if zero_point is not None:
            zero = np.asarray(getattr(zero_point, "value", zero_point), float)
            if zero.ndim > 1 or zero.size not in (1, self.n_bands) or not np.isfinite(zero).all():
                raise InputError(
                    f"zero_point={zero_point!r} must be an AB magnitude, or one for each of {self.n_bands} bands"
                )
            return 10 ** (0.4 * (22.5 - zero))
        unit = u.dimensionless_unscaled if self.unit is None else self.unit
        try:
            return unit.to(u.Jy, equivalencies=_ab()) / _NANOMAGGY_JY
        except u.UnitConversionError as error:
            raise UnitError(
                f"{what} needs fluxes in nanomaggies or Jansky, and the image is in {_say(self.unit)}: give "
                "zero_point=, the AB magnitude of one such unit, e.g. zero_point=30.0"
            ) from error

    def nanomaggy_of_recipe(self):
        """One nanomaggy in the observation's flux; images in other units are taken as they are, as the recipe did."""
        try:
            return 1 / (self.nanomaggies(None, "") * self.scale)
        except UnitError:
            return 1 / self.scale

    def electrons_per_unit(self, gain, exposure):
        """A gain with a unit (electron / adu) as electrons per unit of flux."""
        from astropy import units as u

        unit = u.dimensionless_unscaled if self.unit is None else self.unit
        seconds = 1 if exposure is None else as_seconds(exposure) * u.s
        try:
            return (gain * seconds * unit).to_value(u.electron, equivalencies=_ab())
        except (u.UnitConversionError, u.UnitTypeError) as error:
            raise UnitError(
                f"gain={gain} times the image's unit, {_say(self.unit)}, is not electrons; give gain in electron / "
                f"({_say(self.unit)}), and exposure= for an image in flux per second"
            ) from error

    def refuse_surface_brightness(self, why):
        if self.unit is None or not any(base.name == "rad" for base in self.unit.decompose().bases):
            return
        raise UnitError(
            f"the image's unit, {self.unit}, is a surface brightness, and {why}; multiply the image by the area of its "
            "pixels first"
        )


def listed(bands):
    """Names of bands from "g,r,i", "gri" or a sequence."""
    if isinstance(bands, str):
        parts = bands.split(",") if "," in bands else [bands]
        if len(parts) == 1 and bands.isalpha() and (bands.islower() or len(bands) == 1):
            parts = list(bands)
        return [part.strip() for part in parts]
    if not isinstance(bands, Iterable):
        raise InputError(f"bands={bands!r} must be names, e.g. 'gri' or ['g', 'r', 'i']")
    return [str(band) for band in bands]


def as_arcsec(value, name):
    return None if value is None else positive_arcsec(value, name)


def as_numbers(value, name):
    try:
        return np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}={value!r} must be a number, a Quantity, or one per band") from error


def as_seconds(exposure):
    return positive_in(exposure, "s", "exposure", "a time, or a number of seconds")


def fwhm_pixels(fwhm, arcsec):
    """FWHM in pixels from pixels, an angle, or text such as "1.8 arcsec"."""
    from astropy import units as u

    if fwhm is None:
        raise InputError("psf=None; the 2017 recipe needs a FWHM, e.g. 1.8*u.arcsec")
    try:
        quantity = u.Quantity(fwhm)
        if quantity.unit == u.dimensionless_unscaled:
            return float(quantity.value)
        if quantity.unit.is_equivalent(u.pix):
            return float(quantity.to_value(u.pix))
        angle = float(quantity.to_value(u.arcsec))
    except (u.UnitConversionError, TypeError, ValueError) as error:
        raise InputError(f"fwhm={fwhm!r} must be one FWHM: an angle, or a number of pixels") from error
    if arcsec is None:
        raise InputError(
            f"fwhm={fwhm} needs the pixel scale, and the image has no WCS: give pixel_scale= at the call, e.g. "
            "0.396 for SDSS"
        )
    return angle / arcsec


def surface_magnitude(sky):
    """A sky brightness in mag / arcsec2 as numbers, or `None` if it is none."""
    from astropy import units as u

    try:
        return (sky * u.arcsec**2).to_value(u.mag)
    except (u.UnitConversionError, u.UnitTypeError):
        return None


def _ab():
    """AB maggies and Jansky are one thing."""
    from astropy import units as u

    return u.zero_point_flux(3631 * u.Jy)


def _say(unit):
    return "none" if unit is None else str(unit) or "dimensionless"
