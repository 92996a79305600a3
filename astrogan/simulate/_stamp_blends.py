"""What a blend with a known truth is, and blends added up from real stamps."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

import numpy as np

from astrogan.api import Observation
from astrogan.exceptions import InputError


@dataclass(frozen=True)
class BlendScene:
    """A blend as observed, and each source alone.

    Parameters
    ----------
    data : `numpy.ndarray`
        With noise, (band, y, x), float32, in units of the noise of empty sky in the middle band or those of the
        stamps.
    variance : `numpy.ndarray` or None
        The expected one of ``data``, (band, y, x), float32.
    psf : `numpy.ndarray` or None
        (band, k, k), float32, k odd, each band with a sum of one.
    truth : `numpy.ndarray`
        Each source alone, through the PSF and without noise, (source, band, y, x), float32. Data minus their sum
        is noise.
    positions : `numpy.ndarray`
        Centres (x, y), (source, 2), float64, 0-based pixels.
    kinds : tuple of str
        ``"galaxy"``, ``"spiral"``, ``"star"`` or ``"real"`` for each source.
    bands : tuple of str
        Names.
    seed : int
        What it was made from.
    """

    data: np.ndarray
    variance: np.ndarray | None
    psf: np.ndarray | None
    truth: np.ndarray
    positions: np.ndarray
    kinds: tuple[str, ...]
    bands: tuple[str, ...]
    seed: int

    @property
    def observation(self):
        """What a deblender backend sees, an `~astrogan.api.Observation`."""
        valid = None if self.variance is None else self.variance > 0
        return Observation(data=self.data, valid=valid, variance=self.variance, psf=self.psf, bands=self.bands)

    @property
    def images(self):
        """The blend by band as `~astropy.nddata.CCDData` in adu, with variance and PSF where they are known."""
        from astropy.nddata import CCDData, VarianceUncertainty

        images = {}
        for b, band in enumerate(self.bands):
            variance = None if self.variance is None else VarianceUncertainty(self.variance[b].copy())
            psf = None if self.psf is None else self.psf[b].copy()
            meta = {"FILTER": band, "SIMSEED": self.seed}
            images[band] = CCDData(self.data[b].copy(), unit="adu", uncertainty=variance, psf=psf, meta=meta)
        return images

    @property
    def truth_images(self):
        """Each source alone in each band as `~astropy.nddata.CCDData` in adu, by ``"<number>_<band>"``, from 1."""
        from astropy.nddata import CCDData

        pairs = [(i, b) for i in range(len(self.truth)) for b in range(len(self.bands))]
        return {
            f"{i + 1}_{self.bands[b]}": CCDData(self.truth[i, b].copy(), unit="adu", meta={"FILTER": self.bands[b]})
            for i, b in pairs
        }

    @property
    def catalog(self):
        """A row a source: ``id``, ``kind``, ``x``, ``y`` (0-based pixels) and ``flux_<band>``, an astropy table."""
        from astropy.table import Table

        columns = {"id": np.arange(1, len(self.kinds) + 1), "kind": list(self.kinds)}
        columns |= dict(zip("xy", self.positions.T, strict=True))
        fluxes = self.truth.sum(axis=(2, 3), dtype=np.float64).T
        return Table(columns | {f"flux_{band}": flux for band, flux in zip(self.bands, fluxes, strict=True)})


def add_blend(stamps, positions, shape=None, *, noise=0.0, rng=None, centres=None):
    """Add up real stamps at places in a frame: a blend whose parts are known.

    Parameters
    ----------
    stamps : sequence of `~astropy.nddata.CCDData` or array-like
        Linear flux, sky subtracted, (y, x) or (band, y, x), the same bands in all. What there is in a stamp besides
        its source, noise included, becomes a part of the truth.
    positions : array-like
        Where the centres go, (source, 2), each (x, y) in 0-based pixels of the frame. Stamps are not resampled: a
        centre goes to the pixel nearest, and `BlendScene.positions` says where that is.
    shape : tuple of int, optional
        (y, x) of the frame. Default: that of the first stamp. What lies outside is cut off.
    noise : float or array-like, optional
        Standard deviation of Gaussian noise to add, for all bands or (band,).
    rng : `numpy.random.Generator`, optional
        For the noise; needed where there is some.
    centres : array-like, optional
        (x, y) of the source in each stamp. Default: the middle, rounded down to a pixel.

    Returns
    -------
    `BlendScene`
        All of ``kinds`` are ``"real"``; ``psf`` is `None`, since stamps may have different ones. The variance is that
        of the added noise plus those of the stamps, where all have one; `None` where there is neither.

    Raises
    ------
    InputError
        If shapes disagree or a value is not finite.
    """
    if len(stamps) == 0:
        raise InputError("stamps is empty; give at least one")
    cubes, variances, units = zip(*(_stamp(i, stamp) for i, stamp in enumerate(stamps)), strict=True)
    bands = len(cubes[0])
    if any(len(cube) != bands for cube in cubes):
        raise InputError(f"stamps have {[len(c) for c in cubes]} bands; give the same number in all")
    if len(set(units)) > 1:
        raise InputError(f"stamps have units {sorted(set(units))}; convert them to one")
    shape = cubes[0].shape[1:] if shape is None else shape
    if np.shape(shape) != (2,) or not all(isinstance(n, numbers.Integral) and n >= 1 for n in shape):
        raise InputError(f"shape={shape!r} must be two positive integers (y, x)")
    positions = _checked_positions(positions, len(cubes), "positions")
    if centres is None:
        centres = np.array([((c.shape[2] - 1) // 2, (c.shape[1] - 1) // 2) for c in cubes], float)
    centres = _checked_positions(centres, len(cubes), "centres")
    sigma = _checked_noise(noise, bands, rng)

    moves = np.rint(positions - centres).astype(int)
    truth = np.stack([_pasted(cube, move, shape) for cube, move in zip(cubes, moves, strict=True)])
    variance = np.broadcast_to((sigma**2)[:, None, None], (bands, *shape)).copy()
    own = all(v is not None for v in variances)
    if own:
        variance += sum(_pasted(v, move, shape) for v, move in zip(variances, moves, strict=True))
    data = truth.sum(axis=0)
    if sigma.any():
        data += rng.normal(size=data.shape) * sigma[:, None, None]
    return BlendScene(
        data=data.astype(np.float32),
        variance=variance.astype(np.float32) if own or sigma.any() else None,
        psf=None,
        truth=truth.astype(np.float32),
        positions=centres + moves,
        kinds=("real",) * len(cubes),
        bands=tuple(map(str, range(bands))),
        seed=0,
    )


def _stamp(i, stamp):
    """(cube, variance or None, unit) of a stamp, in float64."""
    from astropy.nddata import NDData, VarianceUncertainty

    variance, unit = None, ""
    if isinstance(stamp, NDData):
        unit = str(stamp.unit or "")
        if stamp.uncertainty is not None:
            variance = np.asarray(stamp.uncertainty.represent_as(VarianceUncertainty).array, float)
        stamp = stamp.data
    cube = np.array(stamp, np.float64)
    cube = cube[None] if cube.ndim == 2 else cube
    if cube.ndim != 3 or 0 in cube.shape or not np.isfinite(cube).all():
        raise InputError(f"stamps[{i}] has shape {np.shape(stamp)}; it must be (y, x) or (band, y, x), all finite")
    return cube, None if variance is None else variance.reshape(cube.shape), unit


def _pasted(cube, move, shape):
    """A stamp moved by whole pixels (x, y) into an empty frame."""
    frame = np.zeros((len(cube), *shape))
    inside, there = [], []
    for offset, own, whole in zip(move[::-1], cube.shape[1:], shape, strict=True):
        start, stop = max(0, offset), min(whole, offset + own)
        if start >= stop:
            return frame
        inside.append(slice(start, stop))
        there.append(slice(start - offset, stop - offset))
    frame[(slice(None), *inside)] = cube[(slice(None), *there)]
    return frame


def _checked_noise(noise, bands, rng):
    """Standard deviation by band."""
    sigma = np.broadcast_to(np.asarray(noise, float), (bands,)) if np.shape(noise) in ((), (bands,)) else None
    if sigma is None or not (np.isfinite(sigma).all() and (sigma >= 0).all()):
        raise InputError(f"noise={noise!r} must be a number >= 0, or {bands} of them, one a band")
    if sigma.any() and rng is None:
        raise InputError("rng is None; noise needs a numpy.random.Generator, e.g. numpy.random.default_rng(0)")
    return sigma


def _checked_positions(positions, number, name):
    places = np.asarray(positions, float)
    if places.shape != (number, 2) or not np.isfinite(places).all():
        raise InputError(f"{name} has shape {np.shape(positions)}; it must be ({number}, 2), an (x, y) for each stamp")
    return places
