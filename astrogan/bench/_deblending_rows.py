"""The methods that the deblending benchmark compares, each through `~astrogan.Deblender`."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from astrogan.api import Separation, Template
from astrogan.exceptions import AstroganError, AstroganWarning, InputError

__all__ = ["ROWS", "Deblended", "HardLabels", "Row", "TruthRatio", "available", "deblend", "named_rows"]

# Every pixel of a segment, negative ones too, gets a template of at least this part of the noise.
_FLOOR = 1e-3


@dataclass(frozen=True)
class Row:
    """A method of the tables.

    Parameters
    ----------
    name : str
        As printed.
    backend : str, type or None
        For `~astrogan.Deblender`; None is its default, `TruthRatio` is made for each scene.
    options : dict
        Of the backend.
    red_first : bool
        Whether it was made for pictures, red before green and blue: it then gets the bands, which scenes have from
        blue to red, the other way round.
    """

    name: str
    backend: Any
    options: dict = field(default_factory=dict)
    red_first: bool = False

    @property
    def needs_truth(self):
        """Whether the method is told the answer."""
        return self.backend is TruthRatio


class Deblended(NamedTuple):
    """What a row made of a scene.

    Attributes
    ----------
    positions : `numpy.ndarray`
        (source, 2).
    sources, models : `numpy.ndarray`
        (source, band, y, x): each source's part of the image, and its template.
    flux, flux_err : `numpy.ndarray`
        (source, band).
    residual : `numpy.ndarray`
        (band, y, x).
    seconds : float
    """

    positions: np.ndarray
    sources: np.ndarray
    models: np.ndarray
    flux: np.ndarray
    flux_err: np.ndarray
    residual: np.ndarray
    seconds: float


class HardLabels:
    """What photutils alone gives: detected pixels, each of them one source's.

    Segments are found at 1.5 sigma of the inverse-variance weighted band sum, smoothed by a Gaussian of 3 pixels FWHM,
    as in photutils' documentation. Their pixels go to the nearest of the positions; without positions,
    ``deblend_sources`` divides them.
    """

    def __call__(self, observation, positions=None, *, rng=None):
        """Templates that are the image's own pixels, segment by segment."""
        segments, plane = photutils_segments(observation, deblended=positions is None)
        if positions is None:
            labels, positions = segments, _centroids(plane, segments)
        else:
            labels = np.where(segments > 0, _nearest(positions, segments.shape) + 1, 0)
        noise = _noise(observation)
        templates = []
        for i, (x, y) in enumerate(positions):
            box = _bounds(labels == i + 1, x, y)
            inside = labels[box] == i + 1
            flux = np.maximum(observation.data[:, box[0], box[1]], _FLOOR * noise) * inside
            templates.append(Template((box[0].start, box[1].start), flux.astype(np.float32), (float(x), float(y))))
        return Separation(tuple(templates), labels.astype(np.int32))


class TruthRatio:
    """The true images as templates: what dividing by ratios can give at best.

    Parameters
    ----------
    truth : `numpy.ndarray`
        (source, band, y, x), in the order of the positions.
    """

    def __init__(self, truth):
        self.truth = np.maximum(np.asarray(truth, np.float32), 0)

    def __call__(self, observation, positions, *, rng=None):
        """The truth, as templates."""
        pairs = zip(self.truth, positions, strict=True)
        return Separation(tuple(Template((0, 0), t, tuple(map(float, p))) for t, p in pairs))


ROWS = (
    Row("hard-labels", HardLabels),
    Row("watershed", "watershed"),
    Row("symmetric", "symmetric"),
    Row("usaid2019", "usaid2019", red_first=True),
    Row("branched-gan", "branched-gan", red_first=True),
    Row("profile-fit", "profile-fit"),
    Row("ratio-net", "ratio-net"),
    Row("default", None),
    Row("truth-ratio", TruthRatio),
)
"""In the order of the tables; "default" is `~astrogan.Deblender` without a name."""


def named_rows(names=None):
    """The rows wanted.

    Parameters
    ----------
    names : sequence of str, optional
        Of `ROWS`, or any backend with options, as in ``"watershed:grow=2"``. Default: all of `ROWS`.

    Returns
    -------
    list of Row
    """
    from astrogan.bench._linear_common import parse_method

    if names is None:
        return list(ROWS)
    ours = {row.name: row for row in ROWS}
    rows = []
    for name in dict.fromkeys(names):
        backend, options = parse_method(name)
        rows.append(ours[name] if name in ours else Row(str(name), backend, options))
    if not rows:
        raise InputError(f"rows={names!r} must not be empty")
    return rows


def available(rows):
    """Those that work here, tried on a small blend.

    Parameters
    ----------
    rows : sequence of Row

    Returns
    -------
    rows : list of Row
    skipped : dict
        {name: why}.
    digests : dict
        {name: digest of the method and of what it made of that blend}. It changes with the weights and, mostly, with
        the code.
    """
    working, skipped, digests = [], {}, {}
    for row in rows:
        try:
            digests[row.name] = _digest(row)
        except (AstroganError, ImportError, FileNotFoundError) as error:
            skipped[row.name] = " ".join(str(error).split())
        else:
            working.append(row)
    return working, skipped, digests


def _digest(row):
    scene = _trial()
    found = deblend(row, scene, scene.positions)
    made = [f"{value:.3g}" for value in found.flux.ravel()]
    everything = [row.name, str(row.backend), {k: str(v) for k, v in sorted(row.options.items())}, made]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:20]


def _trial():
    """Two overlapping Gaussians in three bands, with noise."""
    from astrogan.bench._deblending_sets import Scene
    from astrogan.image.psf import gaussian_psf

    y, x = np.indices((48, 48))
    positions = np.array([(19.0, 24.0), (29.0, 22.0)])
    shapes = [np.exp(-((x - px) ** 2 + (y - py) ** 2) / 18) for px, py in positions]
    truth = np.array([[height * b * shape for b in range(1, 4)] for height, shape in zip((9, 5), shapes, strict=True)])
    noise = np.random.default_rng(0).normal(0, 0.5, truth.shape[1:])
    psf = np.stack([gaussian_psf(4.0)] * 3)
    return Scene("trial", truth.sum(axis=0) + noise, np.full(truth.shape[1:], 0.25), psf, positions, truth,
                 truth.sum(axis=(2, 3)), tuple("gri"))  # fmt: skip


# ---- one scene through one row --------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _operator(backend, options):
    from astrogan.operators.deblender import Deblender

    options = dict(options)
    if backend is None:
        return Deblender(**options)
    return Deblender(backend if isinstance(backend, str) else backend(), **options)


def operator(row):
    """A row's `~astrogan.Deblender`, made once a process."""
    return _operator(row.backend, tuple(sorted(row.options.items())))


def deblend(row, scene, positions=None, *, seed=0):
    """A scene through a row.

    Parameters
    ----------
    row : Row
    scene : Scene
    positions : (source, 2) array, optional
        Default: the row detects.
    seed : int
        For methods that draw random numbers.

    Returns
    -------
    Deblended
    """
    from astrogan.operators.deblender import Deblender

    deblender = Deblender(TruthRatio(scene.truth)) if row.needs_truth else operator(row)
    turn = slice(None, None, -1 if row.red_first else None)
    image, psf = scene.as_ccd(turn), scene.psf if scene.psf is None else scene.psf[turn]
    with warnings.catch_warnings():
        # That an image lies outside of a network's training range is what the tables are there to show.
        warnings.simplefilter("ignore", AstroganWarning)
        started = time.perf_counter()
        result = deblender(image, positions, psf=psf, rng=seed)
        seconds = time.perf_counter() - started
    return _full(result, image.shape, seconds, turn)


def _full(result, shape, seconds, turn):
    """A result in arrays over the whole frame."""
    count, catalog = len(result), result.catalog
    sources, models = np.zeros((2, count, *shape))
    for i in range(count):
        box = tuple(slice(catalog[f"bbox_{a}min"][i], catalog[f"bbox_{a}max"][i] + 1) for a in "yx")
        sources[i][:, box[0], box[1]] = result.sources[i].data[turn]
        models[i][:, box[0], box[1]] = result.models[i].data[turn]
    flux, error = (_columns(catalog, errors)[:, turn] for errors in (False, True))
    positions = np.stack([catalog["x"], catalog["y"]], axis=-1).astype(np.float64)
    return Deblended(positions, sources, models, flux, error, np.asarray(result.residual.data)[turn], seconds)


def _columns(catalog, errors):
    """Fluxes or their errors, (source, band)."""
    names = [n for n in catalog.colnames if n.startswith("flux_") and n.startswith("flux_err_") == errors]
    return np.stack([np.asarray(catalog[name].value, np.float64) for name in names], axis=-1)


# ---- photutils as its users call it ---------------------------------------------------------------------------------


def photutils_segments(observation, *, deblended=True, threshold=1.5, n_pixels=10):
    """Segments by photutils' own detection, as in its documentation's example.

    Parameters
    ----------
    observation : `~astrogan.api.Observation`
    deblended : bool
        Whether `photutils.segmentation.deblend_sources` divides them.
    threshold : float
        In standard deviations of the noise before smoothing.
    n_pixels : int
        Fewest connected pixels.

    Returns
    -------
    segments : `numpy.ndarray` of int
        (y, x), numbered from 1.
    plane : `numpy.ndarray`
        (y, x), the smoothed sum of the bands.
    """
    from astropy.convolution import convolve_fft
    from photutils.segmentation import deblend_sources, detect_sources, make_2dgaussian_kernel

    from astrogan.image.uncertainty import background_rms

    noise = _noise(observation)
    weight = observation.valid / noise**2
    plane = (observation.data * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-30)
    background, rms = background_rms(plane)
    plane = convolve_fft(plane, make_2dgaussian_kernel(3.0, size=5), allow_huge=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing was found, or on very many markers
        found = detect_sources(plane - background, threshold * rms, n_pixels)
        if found is None:
            return np.zeros(plane.shape, int), plane
        if deblended:
            found = deblend_sources(plane - background, found, n_pixels, progress_bar=False)
    found = found.copy()
    found.relabel_consecutive()
    return np.asarray(found.data), plane - background


def _noise(observation):
    """(band, 1, 1)."""
    from astrogan.image.uncertainty import background_rms

    if observation.variance is None:
        typical = [np.median(background_rms(p, v)[1]) for p, v in zip(observation.data, observation.valid, strict=True)]
        return np.asarray(typical)[:, None, None]
    pairs = zip(observation.variance, observation.valid, strict=True)
    return np.sqrt([np.median(v[g]) if g.any() else 1.0 for v, g in pairs])[:, None, None]


def _centroids(plane, labels):
    from scipy.ndimage import center_of_mass

    count = int(labels.max(initial=0))
    if not count:
        return np.empty((0, 2))
    return np.array(center_of_mass(np.maximum(plane, 0) + 1e-12, labels, range(1, count + 1)))[:, ::-1]


def _nearest(positions, shape):
    from scipy.spatial import cKDTree

    y, x = np.indices(shape)
    return cKDTree(positions).query(np.stack([x, y], axis=-1).reshape(-1, 2))[1].reshape(shape)


def _bounds(inside, x, y):
    """(rows, columns) around the true pixels; the position's own pixel where there is none."""
    if not inside.any():
        row, column = (int(np.clip(round(v), 0, n - 1)) for v, n in zip((y, x), inside.shape, strict=True))
        return slice(row, row + 1), slice(column, column + 1)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
