"""Imaging surveys in numbers: pixel scale, seeing, zero point, sky, exposure and read noise, a filter at a time.

Numbers come from surveycodex (each with its reference there) where it has them; KiDS and DECaLS, which it does not
have, are here with their references, and so is the read noise of all. `Survey.from_fits` measures those of a survey
of one's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from astrogan.exceptions import InputError, MissingDependencyError

__all__ = ["Filter", "Survey", "get_survey", "list_surveys"]

_NANOMAGGY = 22.5
"""AB magnitude of one nanomaggy (3.631 micro-Jansky)."""


@dataclass(frozen=True)
class Filter:
    """One filter of a survey, at the depth of its final images.

    Parameters
    ----------
    name : str
    fwhm : float
        Of the delivered PSF, pixels included, in arcsec.
    sky_brightness : float
        AB mag per square arcsec.
    zero_point : float
        AB magnitude that gives one electron per second.
    exposure_time : float
        Seconds, all exposures together.
    pixel_scale : float
        Arcsec per pixel.
    read_noise : float
        Electrons per pixel (standard deviation), all exposures together.
    gain : float
        Electrons per count of the detector.
    psf : optional
        The PSF on the survey's pixels, in any form that `~astrogan.image.psf.as_psf` takes for one band; it takes
        precedence over ``fwhm``, which stays as its number. Default: a Moffat profile of that FWHM. It has no part in
        whether two filters are equal, nor has ``noise_model``.
    noise_sigma : float, optional
        Noise of blank sky per pixel in nanomaggies, as measured. Default: what sky and read noise give.
    noise_model : `~astrogan.api.NoiseBackend`, optional
        What blank sky looks like, in nanomaggies. Default: nothing is known but its standard deviation.

    Raises
    ------
    InputError
        If ``noise_sigma`` is not a positive number.
    """

    name: str
    fwhm: float
    sky_brightness: float
    zero_point: float
    exposure_time: float
    pixel_scale: float
    read_noise: float = 0.0
    gain: float = 1.0
    psf: Any = field(default=None, compare=False, repr=False)
    noise_sigma: float | None = None
    noise_model: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self):
        if self.noise_sigma is not None and not (np.isfinite(self.noise_sigma) and self.noise_sigma > 0):
            raise InputError(
                f"noise_sigma={self.noise_sigma!r} of band {self.name!r} must be a positive number of nanomaggies, or "
                "None to have it from sky and read noise"
            )

    @property
    def electrons_per_nanomaggy(self) -> float:
        """Electrons from a source of one nanomaggy (22.5 mag AB) in the whole exposure."""
        return self.exposure_time * 10 ** (0.4 * (self.zero_point - _NANOMAGGY))

    @property
    def sky_electrons(self) -> float:
        """Electrons of the sky per pixel in the whole exposure."""
        rate = 10 ** (0.4 * (self.zero_point - self.sky_brightness))
        return self.exposure_time * rate * self.pixel_scale**2

    @property
    def sigma(self) -> float:
        """Noise of blank sky per pixel (standard deviation) in nanomaggies: ``noise_sigma`` where there is one."""
        if self.noise_sigma is not None:
            return float(self.noise_sigma)
        return float(np.sqrt(self.sky_electrons + self.read_noise**2)) / self.electrons_per_nanomaggy

    def depth(self, radius: float = 1.0, n_sigma: float = 5.0) -> float:
        """AB magnitude at ``n_sigma`` in an aperture of ``radius`` arcsec, for noise that is white."""
        pixels = np.pi * (radius / self.pixel_scale) ** 2
        return float(_NANOMAGGY - 2.5 * np.log10(n_sigma * self.sigma * np.sqrt(pixels)))

    def kernel(self) -> np.ndarray:
        """The PSF on the survey's pixels, their response included: (k, k), k odd, summing to one.

        Returns
        -------
        `numpy.ndarray`
            ``psf`` where there is one, else a Moffat profile (beta 3) of ``fwhm``.
        """
        if self.psf is None:
            from astrogan.image._psf_header import moffat_with_measured_fwhm

            return moffat_with_measured_fwhm(self.fwhm / self.pixel_scale)
        from astrogan.image.psf import as_psf

        return as_psf(self.psf, pixel_scale=self.pixel_scale).kernels[0]


@dataclass(frozen=True)
class Survey:
    """An imaging survey.

    Parameters
    ----------
    name : str
    pixel_scale : float
        Arcsec per pixel.
    filters : tuple of `Filter`
        In order of wavelength.
    description : str
    references : tuple of str
        Where the numbers come from.

    Examples
    --------
    >>> from astrogan.simulate.surveys import get_survey
    >>> survey = get_survey("decals")
    >>> survey.bands
    ('g', 'r', 'z')
    >>> round(survey["r"].electrons_per_nanomaggy), round(survey["r"].sigma, 4)
    (7150, 0.0066)
    """

    name: str
    pixel_scale: float
    filters: tuple[Filter, ...]
    description: str = ""
    references: tuple[str, ...] = ()

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the filters."""
        return tuple(f.name for f in self.filters)

    def __getitem__(self, band) -> Filter:
        """A filter by name; what precedes the last dot does not matter, nor does case where only one fits.

        Raises
        ------
        InputError
            If the survey has no such filter; the message lists those it has.
        """
        bare = str(band).strip().rsplit(".", 1)[-1]
        found = [f for f in self.filters if f.name == bare] or [
            f for f in self.filters if f.name.lower() == bare.lower()
        ]
        if len(found) != 1:
            raise InputError(f"band {band!r} is none of {self.name}'s: {', '.join(self.bands)}")
        return found[0]

    def scaled(self, *, exposure: float = 1.0, fwhm: float = 1.0) -> Survey:
        """The survey with exposure times and seeing multiplied by factors: a shallower field, a worse night.

        A noise that was measured goes with the square root of the exposure, as the sky's does. A PSF that was measured
        gives way, where the seeing changes, to a Moffat profile of its FWHM times the factor.
        """
        for name, value in (("exposure", exposure), ("fwhm", fwhm)):
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{name}={value!r} must be a positive factor")
        return replace(self, filters=tuple(_scaled(f, exposure, fwhm) for f in self.filters))

    @classmethod
    def from_fits(
        cls,
        name,
        images,
        *,
        psf=None,
        zero_point=None,
        noise=None,
        pixel_scale=None,
        noise_model=None,
        gain=None,
        sky_brightness=None,
        unit=None,
        description="",
    ) -> Survey:
        """A survey by example: what is not given is measured on an image a band.

        Parameters
        ----------
        name : str
        images : dict
            {band: image}, in order of wavelength; an image is a path, ``(path, hdu)``, or 2-D
            `~astropy.nddata.NDData`. Some 200 x 200 pixels with blank sky and a few stars are enough.
        psf : optional
            In any form that `~astrogan.image.psf.as_psf` takes, or a dict of those by band. Default: the image's own,
            its header's, or one built from its stars.
        zero_point : float or dict, optional
            AB magnitude of one unit of the image. Default: what the unit says (nanomaggies, Jansky and their
            multiples), else the header (MAGZERO, ZEROPNT, PHOTZP, FLUXMAG0, PHOTFLAM and their like).
        noise : float, `~astropy.units.Quantity` or dict, optional
            Standard deviation of blank sky in a pixel, plain numbers in the image's unit. Default: measured.
        pixel_scale : float or `~astropy.units.Quantity`, optional
            Arcsec per pixel. Default: of the image's WCS.
        noise_model : class or noise backend, optional
            A class with ``fit(images, mask=...)``, e.g.
            `~astrogan.backends.classic.correlated_noise.CorrelatedNoise`, is fitted to the sky of each band, in
            nanomaggies; an instance is kept as it is. Default: none.
        gain : float or dict, optional
            Electrons of one unit of the image, for the photon noise of sources. Default: the header's GAIN, where it
            is possible (below).
        sky_brightness : float or dict, optional
            AB mag per square arcsec, used where there is no gain. Default: a dark sky (u 22, g 22, r 21, i 20.2, z 19,
            others 21).
        unit : str or `~astropy.units.Unit`, optional
            Of files that do not name theirs.
        description : str, optional

        Returns
        -------
        `Survey`
            Each filter with its ``psf`` (a kernel) and ``noise_sigma``, and with its ``noise_model`` if one was asked
            for.

        Raises
        ------
        InputError
            If ``images`` is empty, an argument by band names a band that is not there, the pixel scale is unknown or
            differs between bands, or too little sky is left to measure.
        UnitError
            If the zero point is unknown.
        PSFError
            If there is no PSF and too few stars to build one.

        Notes
        -----
        The noise is the clipped scatter of what is left of the image without its background and without its sources,
        for a single pixel; that of resampled images is correlated, and only a ``noise_model`` knows it.

        Sources have photon noise besides. It needs the number of electrons, which few headers tell truly: GAIN is
        believed where the noise of the sky, were it all photons, means a sky between 16 and 24.5 mag per square
        arcsec. Otherwise the electrons are those with which a sky of ``sky_brightness`` makes the noise that there is.

        Examples
        --------
        >>> import numpy as np
        >>> from astropy.nddata import CCDData
        >>> from astrogan.simulate.surveys import Survey
        >>> sky = CCDData(np.random.default_rng(1).normal(0, 5.0, (128, 128)), unit="adu")
        >>> survey = Survey.from_fits("mine", {"r": sky}, psf=3.0, zero_point=27.5, pixel_scale=0.25)
        >>> round(survey["r"].fwhm, 2), round(survey["r"].sigma, 2)  # one count is a hundredth of a nanomaggy
        (0.77, 0.05)
        """
        from astrogan.simulate.surveys._from_fits import survey_from_fits

        options = {
            "psf": psf,
            "zero_point": zero_point,
            "noise": noise,
            "gain": gain,
            "sky_brightness": sky_brightness,
        }
        filters, scale, notes = survey_from_fits(
            images, options, pixel_scale=pixel_scale, noise_model=noise_model, unit=unit
        )
        return cls(str(name), scale, filters, description, notes)


def _scaled(one, exposure, fwhm):
    """A filter with its exposure time and seeing multiplied."""
    return replace(
        one,
        exposure_time=one.exposure_time * exposure,
        fwhm=one.fwhm * fwhm,
        psf=one.psf if fwhm == 1 else None,
        noise_sigma=None if one.noise_sigma is None else one.noise_sigma / float(np.sqrt(exposure)),
    )


def list_surveys() -> tuple[str, ...]:
    """Names that `get_survey` knows.

    Examples
    --------
    >>> from astrogan.simulate.surveys import list_surveys
    >>> list_surveys()
    ('cfhtls', 'cosmos', 'decals', 'des', 'euclid', 'euclid-nisp', 'hsc', 'kids', 'lsst', 'panstarrs', 'sdss')
    """
    return tuple(sorted([*_CODEX, *_OWN]))


def get_survey(name) -> Survey:
    """A survey by name.

    Parameters
    ----------
    name : str or `Survey`
        One of `list_surveys`, in any case; a `Survey` comes back as it is.

    Returns
    -------
    `Survey`

    Raises
    ------
    InputError
        If the name is unknown.
    MissingDependencyError
        If the survey's numbers are surveycodex's and that is not installed.
    """
    if isinstance(name, Survey):
        return name
    key = str(name).strip().lower().replace("_", "-")
    if key in _OWN:
        return _OWN[key]()
    if key in _CODEX:
        return _from_codex(key)
    raise InputError(f"survey={name!r} is unknown; there are: {', '.join(list_surveys())}")


# ------------------------------------------------------------------------------------------------ surveycodex's

# Name in surveycodex, and the read noise of the whole exposure in electrons: that of one exposure times the root of
# their number, one for all filters or one a filter.
_CODEX = {
    # Dark variance and gain by camera column in the SDSS DR8 "frame" data model; typical columns. The i chips' is high.
    "sdss": ("SDSS", {"u": 5.3, "g": 4.8, "r": 5.1, "i": 13.5, "z": 4.9}),
    "cfhtls": ("CFHTLS", 5.0 * np.sqrt(5)),
    "hsc": ("HSC", 4.5 * np.sqrt(6)),
    # About 9 electrons of all instrumental sources a visit.
    "lsst": ("LSST", {"u": 66, "g": 111, "r": 169, "i": 169, "z": 157, "y": 157}),
    "euclid": ("Euclid_VIS", 4.2 * np.sqrt(4)),
    "euclid-nisp": ("Euclid_NISP", 6.0 * np.sqrt(4)),
    "des": ("DES", 7.0 * np.sqrt(10)),
    "panstarrs": ("PanSTARRS", 7.0 * np.sqrt(12)),
    "cosmos": ("COSMOS", 5.0 * np.sqrt(4)),
}

# surveycodex has one pointing of Euclid's; the Wide Survey's images are stacks of four (Scaramella et al. 2022, A&A
# 662, A112).
_EXPOSURES = {"euclid": 4, "euclid-nisp": 4}


def _from_codex(key):
    try:
        import surveycodex
    except ImportError as error:
        raise MissingDependencyError(
            f"survey {key!r} needs surveycodex: pip install surveycodex, or pip install 'astrogan[sim]'"
        ) from error
    name, read_noise = _CODEX[key]
    theirs = surveycodex.get_survey(name)
    scale = float(theirs.pixel_scale.to_value("arcsec"))
    filters = []
    for band in theirs.available_filters:
        entry = theirs.get_filter(band)
        filters.append(
            Filter(
                name=band,
                fwhm=float(entry.psf_fwhm.to_value("arcsec")),
                sky_brightness=float(entry.sky_brightness.value),
                zero_point=float(entry.zeropoint.value),
                exposure_time=float(entry.full_exposure_time.to_value("s")) * _EXPOSURES.get(key, 1),
                pixel_scale=scale,
                read_noise=float(read_noise[band] if isinstance(read_noise, dict) else read_noise),
                gain=float(theirs.gain.value),
            )
        )
    return Survey(key, scale, tuple(filters), theirs.description, (f"surveycodex {version('surveycodex')}: {name}",))


# ------------------------------------------------------------------------------------------------ those it lacks


def _decals():
    # exposure (s), zero point (e-/s), sky, FWHM
    numbers = {"g": (166, 26.610, 22.04, 1.29), "r": (134, 26.818, 20.91, 1.18), "z": (200, 26.484, 18.46, 1.11)}
    filters = tuple(
        Filter(band, fwhm, sky, zero, time, 0.262, read_noise=7.0 * np.sqrt(2), gain=4.0)
        for band, (time, zero, sky, fwhm) in numbers.items()
    )
    return Survey(
        "decals",
        0.262,
        filters,
        "Dark Energy Camera Legacy Survey, two of three passes",
        (
            "Dey et al. 2019, AJ 157, 168: survey, seeing",
            "https://www.legacysurvey.org/decamls: total exposures in median conditions",
            "legacysurvey obsbot, nominal DECam calibration: pixel scale, zero points in electrons/s, sky brightness",
        ),
    )


def _kids():
    # exposure (s), exposures, zero point (e-/s), depth (5 sigma, 2 arcsec aperture), FWHM
    numbers = {
        "u": (1000, 4, 24.0, 24.23, 1.00),
        "g": (900, 5, 25.7, 25.12, 0.90),
        "r": (1800, 5, 25.7, 25.02, 0.70),
        "i": (1200, 5, 25.1, 23.68, 0.80),
    }
    filters = []
    for band, (time, exposures, zero, depth, fwhm) in numbers.items():
        read_noise = 5.0 * np.sqrt(exposures)
        sky = _sky_of_depth(depth, 1.0, time, zero, 0.2, read_noise)
        filters.append(Filter(band, fwhm, sky, zero, time, 0.2, read_noise=read_noise, gain=2.5))
    return Survey(
        "kids",
        0.2,
        tuple(filters),
        "Kilo-Degree Survey with OmegaCAM on the VST. The noise is that of the published depths, from which the sky "
        "brightness is derived; the zero points in electrons are good to about 0.2 mag",
        (
            "Kuijken et al. 2019, A&A 625, A2: depths, r seeing",
            "de Jong et al. 2013, Exp. Astron. 35, 25: exposures, pixel scale, seeing by filter",
        ),
    )


def _sky_of_depth(depth, radius, time, zero_point, pixel_scale, read_noise):
    """Sky brightness that gives a 5-sigma depth in an aperture of ``radius`` arcsec."""
    pixels = np.pi * (radius / pixel_scale) ** 2
    per_nanomaggy = time * 10 ** (0.4 * (zero_point - _NANOMAGGY))
    sigma = 10 ** (0.4 * (_NANOMAGGY - depth)) / 5 / np.sqrt(pixels) * per_nanomaggy
    electrons = sigma**2 - read_noise**2
    return float(zero_point - 2.5 * np.log10(electrons / time / pixel_scale**2))


_OWN = {"decals": _decals, "kids": _kids}
