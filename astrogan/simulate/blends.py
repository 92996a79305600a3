"""Blends with a known truth: galaxies and stars that overlap as light does, by adding up.

`simulate_blend` draws them with GalSim, `add_blend` makes them from real stamps, and `benchmark_blends` is a frozen set
on which deblenders are compared. How the papers on learned deblending made theirs, by keeping the brighter pixel, is
in `astrogan.simulate.paper_blends`.
"""

from __future__ import annotations

import hashlib
import numbers
import os
from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import InputError
from astrogan.simulate import _galsim_blends as sky
from astrogan.simulate._stamp_blends import BlendScene, add_blend
from astrogan.simulate.paper_blends import add_noise, branched_blend, paper_blend, paper_segments

__all__ = [
    "BENCHMARK_VERSION",
    "BlendScene",
    "add_blend",
    "add_noise",
    "benchmark_blends",
    "branched_blend",
    "paper_blend",
    "paper_segments",
    "simulate_blend",
]

BENCHMARK_VERSION = 1
"""Of `benchmark_blends`; figures of different versions must not be compared."""

_BENCHMARK_KEY = int(hashlib.sha256(f"astrogan benchmark blends {BENCHMARK_VERSION}".encode()).hexdigest()[:32], 16)
_LARGEST_SEED = 2**64  # what is beyond belongs to the benchmark
_MARGIN = 8  # pixels between a centre and the edge of the frame


def simulate_blend(
    seed,
    *,
    bands=("g", "r", "i"),
    shape=(80, 80),
    sources=None,
    data=None,
    real=0.3,
    stars=0.2,
    spirals=0.2,
    psf_fwhm=(3.0, 5.0),
    radius=(1.5, 7.0),
    snr=(8.0, 1000.0),
    separation=(0.8, 5.0),
):
    """A blend of galaxies and stars, drawn with GalSim.

    Parameters
    ----------
    seed : int
        From 0 to 2**64 - 1. The global random generators are not used.
    bands : sequence of str, optional
        Names, from blue to red; they say how many there are.
    shape : tuple of int, optional
        (y, x), at least 32 each.
    sources : int, optional
        How many. Default: two to eight, evenly.
    data : path-like, optional
        The folder of real images (``ASTROGAN_DATA``): some galaxies are then real ones, seen by JWST and HST; those
        that `benchmark_blends` uses are not among them. Default: none are.
    real, stars, spirals : float, optional
        Expected fractions of the sources; the others are bulge and disk. Without ``data`` no galaxy is real.
    psf_fwhm : sequence of float, optional
        Range of the mean over bands in pixels; a band differs by up to 15 %.
    radius : sequence of float, optional
        Range of half-light radii before the PSF in pixels.
    snr : sequence of float, optional
        Range of a source's S/N alone, all bands and pixels weighted at best; even in the logarithm.
    separation : sequence of float, optional
        Range of the distance to an earlier source, for half of the sources in units of the PSF's FWHM, for the others
        in units of both half-light radii together (of up to half the range).

    Returns
    -------
    `BlendScene`

    Raises
    ------
    InputError
        If an argument is out of range.
    MissingDependencyError
        If GalSim is not installed.

    Notes
    -----
    Galaxies are a Sersic bulge and an exponential disk, each of its colour; spirals have arms and knots besides; stars
    are points; the PSFs are Moffats. Light adds up, nothing hides anything. Noise is a Poisson draw of the sources'
    photons plus a Gaussian background, and the variance is the expected one, so (data - sum of truths) /
    sqrt(variance) has unit variance.

    Examples
    --------
    >>> from astrogan.simulate.blends import simulate_blend
    >>> scene = simulate_blend(3, sources=2)
    >>> scene.truth.shape, scene.positions.shape
    ((2, 3, 80, 80), (2, 2))
    """
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or not 0 <= seed < _LARGEST_SEED:
        raise InputError(f"seed={seed!r} must be an integer from 0 to 2**64 - 1")
    settings = _Settings(
        bands=_checked_bands(bands),
        shape=_checked_shape(shape),
        sources=_checked_number(sources),
        fractions=_checked_fractions(real if data is not None else 0.0, stars, spirals),
        psf_fwhm=_checked_range("psf_fwhm", psf_fwhm, 1.5),
        radius=_checked_range("radius", radius, 0.3),
        snr=_checked_range("snr", snr, 0.1),
        separation=_checked_range("separation", separation, 0.1),
    )
    return _scene(int(seed), settings, _galaxies(data, reserved=False))


def benchmark_blends(number=600, data=None):
    """The blends on which deblenders are compared: always the same ones.

    Parameters
    ----------
    number : int, optional
        The first so many.
    data : path-like, optional
        The folder of real images (``ASTROGAN_DATA``): three in ten sources are then real galaxies. Without it all are
        drawn, and the set is another one; say which of the two a figure is of.

    Yields
    ------
    `BlendScene`

    Raises
    ------
    InputError
        If an argument cannot be used.
    MissingDependencyError
        If GalSim is not installed.

    Notes
    -----
    Frozen: seeds follow from a hash of the version and lie beyond those that `simulate_blend` takes, and the half of
    the real galaxies that is used here is never used there, so that no training sees them. Any change of what comes
    out, however small, needs another `BENCHMARK_VERSION`.
    """
    if isinstance(number, bool) or not isinstance(number, numbers.Integral) or number < 1:
        raise InputError(f"number={number!r} must be a positive integer")
    sky.galsim_module()
    galaxies = _galaxies(data, reserved=True)
    settings = _Settings(fractions=(0.0 if data is None else 0.3, 0.2, 0.2))
    return (_scene(_BENCHMARK_KEY * _LARGEST_SEED + i, settings, galaxies) for i in range(int(number)))


@dataclass(frozen=True)
class _Settings:
    """Checked arguments; the defaults are those of the benchmark."""

    bands: tuple[str, ...] = ("g", "r", "i")
    shape: tuple[int, int] = (80, 80)
    sources: int | None = None
    fractions: tuple[float, float, float] = (0.0, 0.2, 0.2)
    psf_fwhm: tuple[float, float] = (3.0, 5.0)
    radius: tuple[float, float] = (1.5, 7.0)
    snr: tuple[float, float] = (8.0, 1000.0)
    separation: tuple[float, float] = (0.8, 5.0)


def _scene(seed, settings, galaxies):
    rng = np.random.default_rng([seed])
    count = len(settings.bands)
    number = int(rng.integers(2, 9)) if settings.sources is None else settings.sources
    canvas = sky.Canvas(2 * max(settings.shape))
    psfs, widths = sky.moffats(canvas, rng, settings.psf_fwhm, count)
    sources = [_source(canvas, rng, settings, galaxies) for _ in range(number)]
    positions = _places(rng, [s.radius for s in sources], widths.mean(), settings)

    sigma = np.exp(rng.uniform(-0.3, 0.3, count))
    sigma /= sigma[count // 2]
    gain = _log_uniform(rng, (10.0, 100.0))  # electrons in the unit of flux: a dark sky or a bright one
    background = np.broadcast_to((sigma**2)[:, None, None], (count, *settings.shape))
    truth = np.empty((number, count, *settings.shape), np.float32)
    for i, (source, place) in enumerate(zip(sources, positions, strict=True)):
        unit = sky.draw(canvas, source, place, psfs, settings.shape)
        truth[i] = unit * _flux_for(_log_uniform(rng, settings.snr), unit, background, gain)
    expected = truth.sum(axis=0, dtype=np.float64)
    observed = rng.poisson(expected * gain) / gain + rng.normal(size=expected.shape) * np.sqrt(background)
    return BlendScene(
        data=observed.astype(np.float32),
        variance=(background + expected / gain).astype(np.float32),
        psf=sky.sampled_psfs(canvas, psfs, widths, min(settings.shape)),
        truth=truth,
        positions=positions,
        kinds=tuple(s.kind for s in sources),
        bands=settings.bands,
        seed=seed,
    )


def _source(canvas, rng, settings, galaxies):
    """One source: what it is by lot, and then its size and structure."""
    count, lot = len(settings.bands), rng.uniform()
    real, stars, spirals = np.cumsum(settings.fractions)
    size = _log_uniform(rng, settings.radius)
    if lot < real:
        return sky.real(canvas, rng, count, size, galaxies[rng.integers(len(galaxies))])
    if lot < stars:
        return sky.star(canvas, rng, count)
    if lot < spirals:
        # Arms of a small galaxy drown in the PSF.
        return sky.spiral(canvas, rng, count, _log_uniform(rng, (max(settings.radius[0], 3.0), settings.radius[1])))
    return sky.galaxy(canvas, rng, count, size)


def _places(rng, radii, fwhm, settings):
    """Centres (x, y): the first near the middle of the frame, each other one close to one before it."""
    low, high = _limits(settings.shape)
    middle = (low + high) / 2
    places = [middle + rng.uniform(-3, 3, 2)]
    # A source through the PSF is at least as wide as that.
    sizes = np.hypot(radii, 0.5 * fwhm)
    for i in range(1, len(radii)):
        best, room = None, -1.0
        for _ in range(60):
            j = int(rng.integers(i))
            near, far = settings.separation
            if rng.uniform() < 0.5:
                distance = fwhm * _log_uniform(rng, (near, far))
            else:
                distance = (sizes[i] + sizes[j]) * _log_uniform(rng, (near, max(0.5 * far, near)))
            angle = rng.uniform(0, 2 * np.pi)
            place = np.clip(places[j] + distance * np.array([np.cos(angle), np.sin(angle)]), low, high)
            closest = min(np.hypot(*(place - p)) for p in places)
            if closest > room:
                best, room = place, closest
            if closest >= near * fwhm * (1 - 1e-9):
                best = place
                break
        places.append(best)
    return np.array(places)


def _limits(shape):
    """Where centres may be, (x, y) each."""
    return np.full(2, float(_MARGIN)), np.array(shape[::-1], float) - 1 - _MARGIN


def _flux_for(snr, unit, background, gain):
    """The factor that gives an image of a source its S/N, its own photon noise included."""
    from scipy.optimize import brentq

    signal = unit.reshape(-1).astype(np.float64)
    empty = background.reshape(-1)
    keep = signal > 1e-7 * signal.max()
    signal, empty = signal[keep], empty[keep]

    def excess(log_flux):
        light = np.exp(log_flux) * signal
        return 0.5 * np.log(np.sum(light**2 / (empty + light / gain))) - np.log(snr)

    start = np.log(snr) - 0.5 * np.log(np.sum(signal**2 / empty))
    # Photon noise alone gives S/N^2 = gain * flux, so this much more is enough.
    stop = np.logaddexp(start, 2 * np.log(snr) - np.log(gain * signal.sum())) + 1
    return float(np.exp(brentq(excess, start - 1e-6, stop, xtol=1e-6)))


def _galaxies(data, reserved):
    if data is None:
        return ()
    from astrogan.simulate._real_galaxies import is_reserved, load_galaxies

    chosen = tuple(g for g in load_galaxies(os.fspath(data)) if is_reserved(g.name) == reserved)
    if not chosen:
        raise InputError(f"data={os.fspath(data)!r} has too few galaxies: none is for this use")
    return chosen


def _log_uniform(rng, limits):
    return float(np.exp(rng.uniform(*np.log(limits))))


def _checked_bands(bands):
    bands = (bands,) if isinstance(bands, str) else tuple(map(str, bands))
    if not bands or len(set(bands)) < len(bands):
        raise InputError(f"bands={bands!r} must be different names, at least one")
    return bands


def _checked_shape(shape):
    if np.shape(shape) != (2,) or not all(isinstance(n, numbers.Integral) and n >= 32 for n in shape):
        raise InputError(f"shape={shape!r} must be two integers (y, x) of at least 32")
    return int(shape[0]), int(shape[1])


def _checked_number(sources):
    if sources is None:
        return None
    if isinstance(sources, bool) or not isinstance(sources, numbers.Integral) or not 1 <= sources <= 100:
        raise InputError(f"sources={sources!r} must be an integer from 1 to 100, or None for two to eight")
    return int(sources)


def _checked_fractions(real, stars, spirals):
    for name, value in (("real", real), ("stars", stars), ("spirals", spirals)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value <= 1:
            raise InputError(f"{name}={value!r} must be a fraction from 0 to 1")
    if real + stars + spirals > 1:
        raise InputError(f"real={real!r}, stars={stars!r} and spirals={spirals!r} are more than one together")
    return float(real), float(stars), float(spirals)


def _checked_range(name, value, least):
    pair = np.asarray(value, float) if np.shape(value) == (2,) else np.full(2, np.nan)
    if not np.isfinite(pair).all() or not least <= pair[0] <= pair[1]:
        raise InputError(f"{name}={value!r} must be two numbers of at least {least}, the smaller first")
    return float(pair[0]), float(pair[1])
