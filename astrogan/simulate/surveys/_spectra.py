"""Colours: a few spectra in AB magnitudes, redshifted, and the colour terms between SDSS and MegaCam.

The spectra are smooth curves with the 4000 Angstrom break where it belongs, close to the colours of old, spiral and
young galaxies at low redshift (Coleman, Wu & Weedman 1980, ApJS 43, 393; Fukugita et al. 1995, PASP 107, 945).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import InputError

# Effective wavelengths in Angstrom; those of SDSS for the five that all share.
WAVELENGTHS = {
    "u": 3551.0,
    "g": 4686.0,
    "r": 6166.0,
    "i": 7480.0,
    "z": 8932.0,
    "y": 9750.0,
    "w": 6130.0,
    "ie": 7100.0,
    "f814w": 8040.0,
    "ye": 10800.0,
    "je": 13700.0,
    "he": 17700.0,
    "j": 12500.0,
    "h": 16500.0,
    "k": 21500.0,
    "ks": 21500.0,
}
REFERENCE = WAVELENGTHS["r"]

# AB magnitudes relative to r by rest wavelength.
_REST = np.array([1200, 2000, 2500, 3000, 3500, 3800, 4080, 4400, 4750, 5500, 6170, 7480, 8930, 12500, 17000, 22000.0])
_TEMPLATES = {
    "old": [6.5, 5.2, 4.4, 3.3, 2.45, 2.15, 1.32, 1.02, 0.73, 0.33, 0.0, -0.36, -0.62, -0.98, -1.2, -1.0],
    "disc": [3.0, 2.5, 2.25, 2.0, 1.65, 1.38, 0.85, 0.65, 0.45, 0.2, 0.0, -0.2, -0.34, -0.55, -0.65, -0.5],
    "young": [0.9, 0.85, 0.85, 0.8, 0.72, 0.55, 0.3, 0.2, 0.1, 0.04, 0.0, 0.02, 0.02, -0.02, -0.05, 0.1],
}

# MegaCam minus SDSS magnitude is the factor times a colour in SDSS magnitudes; i is that of the first i filter.
COLOUR_TERMS = {
    "u": (-0.241, "u", "g"),
    "g": (-0.153, "g", "r"),
    "r": (-0.024, "g", "r"),
    "i": (-0.085, "r", "i"),
    "z": (0.074, "i", "z"),
}


@dataclass(frozen=True)
class Spectrum:
    """Colours of light of one kind.

    Parameters
    ----------
    kind : {"old", "disc", "young", "star"}
    redshift : float
    tilt : float
        Magnitudes a factor of e in wavelength: what age, metals and dust add to the colours; redder where positive.
    temperature : float
        Kelvin, of a star.
    """

    kind: str
    redshift: float = 0.0
    tilt: float = 0.0
    temperature: float = 5500.0

    def magnitudes(self, bands):
        """AB magnitudes relative to that at the wavelength of r, (band,)."""
        wave = np.array([wavelength(band) for band in bands])
        curve = self._curve(wave) - self._curve(np.array([REFERENCE]))
        return curve - self.tilt * np.log(wave / REFERENCE)

    def colours(self, bands, megacam=False):
        """The same, through MegaCam's filters where asked."""
        magnitudes = self.magnitudes(bands)
        return magnitudes + self._terms(bands) if megacam else magnitudes

    def _terms(self, bands):
        out = np.zeros(len(bands))
        for i, band in enumerate(bands):
            if _bare(band) in COLOUR_TERMS:
                factor, blue, red = COLOUR_TERMS[_bare(band)]
                out[i] = -factor * np.diff(self.magnitudes((blue, red)))[0]
        return out

    def _curve(self, wave):
        if self.kind == "star":  # a black body, with the Balmer and metal absorption in the blue
            x = 1.4388e8 / (wave * self.temperature)
            return 2.5 * np.log10(wave**3 * np.expm1(x)) + 0.9 * np.clip((4000 - wave) / 400, 0, 1)
        return np.interp(np.log(wave / (1 + self.redshift)), np.log(_REST), _TEMPLATES[self.kind])


def wavelength(band):
    """Effective wavelength of a filter in Angstrom, by name."""
    try:
        return WAVELENGTHS[_bare(band)]
    except KeyError:
        raise InputError(
            f"band {band!r} has no wavelength to give galaxies their colours; there are: {', '.join(WAVELENGTHS)}"
        ) from None


def _bare(band):
    return str(band).strip().rsplit(".", 1)[-1].lower()
