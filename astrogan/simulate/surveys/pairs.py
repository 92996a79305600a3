"""The same galaxies as two imaging surveys would see them, with the truth behind the noise."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from astrogan.api import Observation
from astrogan.exceptions import InputError
from astrogan.simulate.surveys._exposure import Exposure, Options, noise_kernel
from astrogan.simulate.surveys._scene import draw_scene
from astrogan.simulate.surveys.catalog import get_survey

if TYPE_CHECKING:
    from astropy.nddata import CCDData
    from astropy.wcs import WCS

__all__ = [
    "BENCHMARK_SEED",
    "SurveyPair",
    "SurveyStamp",
    "benchmark_pairs",
    "noise_kernel",
    "simulate_pair",
    "simulate_pairs",
    "simulate_stamp",
]

BENCHMARK_SEED = 2**40
"""First seed of the pairs that methods are compared on; they and the 2**20 from it on are for nothing else."""

_BENCHMARK_SEEDS = 2**20
_PAIR, _STAMP = 1, 2  # first numbers of their seeds: objects are never shared
_SKY, _FIRST, _SECOND = range(3)


@dataclass(frozen=True)
class SurveyStamp:
    """A galaxy as a survey sees it.

    Parameters
    ----------
    data : `numpy.ndarray`
        (band, y, x) float32, nanomaggies per pixel, sky subtracted.
    truth : `numpy.ndarray`
        The same without noise.
    variance : `numpy.ndarray`
        Of ``data``: of sky, readout and the source.
    sigma : `numpy.ndarray`
        (band,) float64, noise of a pixel of blank sky (standard deviation).
    psf : `numpy.ndarray`
        (band, k, k) float32, pixels included, each band summing to one; k is the same for all stamps of a survey.
    fwhm : `numpy.ndarray`
        (band,), arcsec, pixels included.
    bands : tuple of str
    pixel_scale : float
        Arcsec.
    survey : str
    wcs : `~astropy.wcs.WCS`
        TAN, north up and east left, about the galaxy.
    seed : int
    """

    data: np.ndarray
    truth: np.ndarray
    variance: np.ndarray
    sigma: np.ndarray
    psf: np.ndarray
    fwhm: np.ndarray
    bands: tuple[str, ...]
    pixel_scale: float
    survey: str
    wcs: WCS
    seed: int

    @property
    def observation(self) -> Observation:
        """The stamp as backends see images."""
        return Observation(
            data=self.data, variance=self.variance, psf=self.psf, pixel_scale=self.pixel_scale, bands=self.bands
        )

    def to_ccd(self, truth=False) -> list[CCDData]:
        """An image a band, in nanomaggies, with WCS, PSF and (but for the truth) uncertainty.

        Parameters
        ----------
        truth : bool, optional
            Whether to leave out the noise.

        Returns
        -------
        list of `~astropy.nddata.CCDData`
        """
        from astropy.io.fits import Header
        from astropy.nddata import CCDData, VarianceUncertainty

        images = []
        for b, band in enumerate(self.bands):
            meta = Header({"TELESCOP": self.survey, "FILTER": band, "SIMSEED": self.seed})
            meta["SKYSIGMA"] = (float(self.sigma[b]), "noise of blank sky, nanomaggies")
            meta["SEEING"] = (float(self.fwhm[b]), "FWHM, arcsec")
            images.append(
                CCDData(
                    (self.truth if truth else self.data)[b].copy(),
                    unit="nanomaggy",
                    uncertainty=None if truth else VarianceUncertainty(self.variance[b].copy()),
                    wcs=self.wcs.deepcopy(),
                    psf=self.psf[b],
                    meta=meta,
                )
            )
        return images


@dataclass(frozen=True)
class SurveyPair:
    """The same galaxy in two surveys.

    Parameters
    ----------
    first, second : `SurveyStamp`
    galaxy : dict
        ``kind``, ``redshift``, ``magnitudes`` and ``magnitudes_second`` (AB, by band, in either survey's filters),
        ``positions`` ((x, y) in either stamp, 0-based), ``half_light_radius`` (arcsec along the major axis),
        ``axis_ratio``, ``angle`` (degrees from x to y), ``bulge_fraction``, ``neighbours`` (their number).
    """

    first: SurveyStamp
    second: SurveyStamp
    galaxy: dict[str, Any]


def simulate_pair(
    seed,
    first="sdss",
    second="cfhtls",
    *,
    bands="ugriz",
    shapes=((64, 64), (136, 136)),
    noise_scale=1.0,
    colour_terms=True,
    seeing_scatter=0.12,
    resampled=True,
    offset=0.0,
    neighbours=3.0,
) -> SurveyPair:
    """Make a galaxy, and show it as two surveys would see it.

    Parameters
    ----------
    seed : int
        From 0 on. The same seed gives the same galaxy whichever the surveys.
    first, second : str or `Survey`, optional
        Names that `get_survey` knows, or surveys of one's own.
    bands : str or sequence of str, optional
        Filters that both surveys have.
    shapes : tuple, optional
        (y, x) of either stamp in pixels.
    noise_scale : float or pair of float, optional
        Factor on the noise of blank sky, for both surveys or each: exposures shorter by its square. CFHTLS as
        published is 1.5 to 2 times as noisy as its exposure times say.
    colour_terms : bool, optional
        Whether CFHTLS's filters differ from those of SDSS.
    seeing_scatter : float, optional
        Log-normal, about the survey's FWHM; mostly common to a stamp's bands.
    resampled : bool, optional
        Whether the noise is correlated by `noise_kernel`, as after resampling, or white.
    offset : float, optional
        The galaxy is up to so many arcsec off the stamps' middle, alike in both. Besides that its place in its pixel
        is random in either stamp.
    neighbours : float, optional
        Mean number of other sources brighter than r = 24 on the larger stamp.

    Returns
    -------
    `SurveyPair`

    Raises
    ------
    InputError
        If an argument is out of range, or a survey lacks a band.
    MissingDependencyError
        If a survey's numbers are surveycodex's and that is not installed.

    Notes
    -----
    What a stamp shows is flux in pixels: bulge, disc, bar, arms and knots of the galaxy, each with colours of its own
    that redden with redshift, and neighbours, convolved with a Moffat PSF and the pixel, all in Fourier space. The
    stamp's light, sky and readout make electrons by the survey's numbers; the noise is drawn in them, convolved by a
    short kernel, and scaled such that the variance stays sigma^2 + flux / (electrons per nanomaggy), the flux being
    blurred by the squared kernel. The noise of blank sky scatters by 15 % from stamp to stamp, as skies do. Both
    scatters are correlated by 0.8 between the bands of a stamp. Colour terms (SDSS to MegaCam, with the first of the
    two i filters) go to each part of a galaxy. The priors are ours and no survey's selection.

    Examples
    --------
    >>> from astrogan.simulate.surveys import simulate_pair
    >>> pair = simulate_pair(0, "kids", "decals", bands="gr", shapes=((96, 96), (72, 72)))
    >>> pair.first.data.shape, pair.second.data.shape
    ((2, 96, 96), (2, 72, 72))
    """
    surveys = _surveys((first, second))
    bands = _bands(bands, surveys)
    shapes = tuple(_shape(shape) for shape in _two("shapes", shapes))
    scales = [_positive("noise_scale", v) for v in (noise_scale if np.ndim(noise_scale) else (noise_scale,) * 2)]
    if len(scales) != 2:
        raise InputError(f"noise_scale={noise_scale!r} must be a number or one a survey")
    field = _field(surveys, shapes)
    seed = _seed(seed)
    options = Options(bands, bool(colour_terms), _not_negative("seeing_scatter", seeing_scatter), bool(resampled))
    scene, sky = _draw_sky((_PAIR, seed), field, offset, neighbours)
    exposures = [
        Exposure(survey, shape, scale, options, (_PAIR, seed, role))
        for survey, shape, scale, role in zip(surveys, shapes, scales, (_FIRST, _SECOND), strict=True)
    ]
    stamps = [SurveyStamp(**exposure.take(scene, sky, seed)) for exposure in exposures]
    return SurveyPair(*stamps, _facts(scene, exposures, sky))


def simulate_stamp(
    seed,
    survey,
    *,
    bands="ugriz",
    shape=None,
    noise_scale=1.0,
    colour_terms=True,
    seeing_scatter=0.12,
    resampled=True,
    offset=0.0,
    neighbours=3.0,
) -> SurveyStamp:
    """Make a galaxy as one survey would see it: of the same priors as those of `simulate_pair`, and never one of them.

    Parameters
    ----------
    seed : int
        Stamps of different surveys are of different galaxies though their seeds be the same.
    survey : str or `Survey`
    shape : tuple of int, optional
        (y, x) in pixels. Default: about 25 arcsec, (64, 64) for SDSS and (136, 136) for CFHTLS.
    bands, noise_scale, colour_terms, seeing_scatter, resampled, offset, neighbours
        As for `simulate_pair`.

    Returns
    -------
    `SurveyStamp`

    Raises
    ------
    InputError
        If an argument is out of range, or the survey lacks a band.
    """
    (survey,) = _surveys((survey,))
    bands = _bands(bands, (survey,))
    shape = _shape((2 * round(12.7 / survey.pixel_scale),) * 2 if shape is None else shape)
    seed = _seed(seed)
    options = Options(bands, bool(colour_terms), _not_negative("seeing_scatter", seeing_scatter), bool(resampled))
    key = (_STAMP, seed, zlib.crc32(survey.name.encode()))
    scene, sky = _draw_sky(key, _field((survey,), (shape,)), offset, neighbours)
    exposure = Exposure(survey, shape, _positive("noise_scale", noise_scale), options, (*key, _FIRST))
    return SurveyStamp(**exposure.take(scene, sky, seed))


def simulate_pairs(number, seed=0, first="sdss", second="cfhtls", **options) -> Iterator[SurveyPair]:
    """Pairs of the seeds from one on.

    Parameters
    ----------
    number : int
    seed : int, optional
        Of the first pair; those of `benchmark_pairs` are refused.
    first, second : str or `Survey`, optional
    **options
        As for `simulate_pair`.

    Yields
    ------
    `SurveyPair`

    Raises
    ------
    InputError
        If seeds would be the benchmark's, or as for `simulate_pair`.
    """
    number, seed = _count(number), _seed(seed)
    if seed < BENCHMARK_SEED + _BENCHMARK_SEEDS and seed + number > BENCHMARK_SEED:
        raise InputError(f"seed={seed} to {seed + number - 1}: those from {BENCHMARK_SEED} on are benchmark_pairs'")
    return (simulate_pair(s, first, second, **options) for s in range(seed, seed + number))


def benchmark_pairs(number=500, first="sdss", second="cfhtls", **options) -> Iterator[SurveyPair]:
    """The pairs that methods are compared on, never to be trained on: seeds from `BENCHMARK_SEED` on.

    Parameters
    ----------
    number : int, optional
    first, second : str or `Survey`, optional
    **options
        As for `simulate_pair`.

    Yields
    ------
    `SurveyPair`

    Raises
    ------
    InputError
        As for `simulate_pair`.
    """
    number = _count(number)
    if number > _BENCHMARK_SEEDS:
        raise InputError(f"number={number} must be at most {_BENCHMARK_SEEDS}")
    return (simulate_pair(BENCHMARK_SEED + i, first, second, **options) for i in range(number))


# ---------------------------------------------------------------------------------------------------- the making


def _draw_sky(key, field, offset, neighbours):
    """The scene, and where it is: (RA, Dec) of the galaxy, and (x, y) arcsec of it from the stamps' middle."""
    rng = np.random.default_rng([*key, _SKY, 7])
    offset, neighbours = _not_negative("offset", offset), _not_negative("neighbours", neighbours)
    place = rng.uniform(0, 360), float(np.rad2deg(np.arcsin(rng.uniform(-0.6, 0.9))))
    turn, distance = rng.uniform(0, 2 * np.pi), offset * np.sqrt(rng.uniform())
    scene = draw_scene(rng, field, neighbours)
    return scene, (place, (distance * np.cos(turn), distance * np.sin(turn)))


def _facts(scene, exposures, sky):
    """What `SurveyPair.galaxy` tells."""
    bands = exposures[0].options.bands
    magnitudes = [22.5 - 2.5 * np.log10(e.fluxes(scene.galaxy).sum(axis=0)) for e in exposures]
    return {
        **scene.facts,
        "magnitudes": dict(zip(bands, magnitudes[0].tolist(), strict=True)),
        "magnitudes_second": dict(zip(bands, magnitudes[1].tolist(), strict=True)),
        "positions": tuple(tuple(e.position(sky[1]).tolist()) for e in exposures),
        "neighbours": len(scene.neighbours),
    }


# ------------------------------------------------------------------------------------------------------ arguments


def _surveys(given):
    return tuple(get_survey(survey) for survey in given)


def _field(surveys, shapes):
    """(y, x) arcsec of the larger stamp along either axis."""
    return tuple(max(s.pixel_scale * n[axis] for s, n in zip(surveys, shapes, strict=True)) for axis in (0, 1))


def _bands(bands, surveys):
    if isinstance(bands, str):
        bands = (bands,) if all(bands in survey.bands for survey in surveys) else tuple(bands)
    bands = tuple(map(str, bands))
    if not bands or len(set(bands)) != len(bands):
        raise InputError(f"bands={bands!r} must name one filter or more, each once")
    for survey in surveys:
        for band in bands:
            survey[band]
    return bands


def _shape(shape):
    whole = np.ndim(shape) == 1 and len(shape) == 2 and all(_is_whole(n) and n >= 8 for n in shape)
    if not whole:
        raise InputError(f"shape={shape!r} must be (y, x) of 8 pixels or more each")
    return int(shape[0]), int(shape[1])


def _two(name, value):
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError(f"{name}={value!r} must be two, one a survey, e.g. ((64, 64), (136, 136))")
    return value


def _is_whole(value):
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _seed(seed):
    if not _is_whole(seed) or not 0 <= seed < 2**63:
        raise InputError(f"seed={seed!r} must be a whole number from 0 on")
    return int(seed)


def _count(number):
    if not _is_whole(number) or number < 0:
        raise InputError(f"number={number!r} must be a whole number, zero or more")
    return int(number)


def _positive(name, value):
    if _not_negative(name, value) == 0:
        raise InputError(f"{name}={value!r} must be positive")
    return float(value)


def _not_negative(name, value):
    good = isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value)
    if not good or value < 0:
        raise InputError(f"{name}={value!r} must be a number, zero or positive")
    return float(value)
