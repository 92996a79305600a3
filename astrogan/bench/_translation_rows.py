"""The methods that the translation benchmark compares: one stamp of a pair on the other's pixels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from astrogan.api import Target
from astrogan.bench._translation_sets import noise_of, second_exposure
from astrogan.exceptions import AstroganError, AstroganWarning, InputError

__all__ = ["DIRECTIONS", "FLOOR", "ROWS", "VARIANTS", "Row", "Translated", "available", "named_rows", "stamps_of",
           "target_of"]  # fmt: skip

DIRECTIONS = ("sdss-cfhtls", "cfhtls-sdss")

VARIANTS = (
    "pix2pix",
    "cyclegan",
    "cyclegan-identity",
    "cyclegan-paired",
    "pixelshuffle",
    "no-autoencoder",
    "cyclegan-regridded",
    "augcgan",
)
"""Baselines of Lin et al. 2021, each with weights of its own."""

FLOOR = "second-exposure"
"""Name of the row whose images are the truth with the target's noise drawn once more."""


class Translated(NamedTuple):
    """What a row made of a stamp.

    Attributes
    ----------
    data : `numpy.ndarray`
        (band, y, x), float64.
    variance : `numpy.ndarray` or None
    """

    data: np.ndarray
    variance: np.ndarray | None


@dataclass(frozen=True)
class Row:
    """A method of the tables.

    Parameters
    ----------
    name : str
        As printed.
    backend : str, object or None
        Translator backend; None is the second exposure.
    options : dict
        Of the backend.
    """

    name: str
    backend: object
    options: dict = field(default_factory=dict)

    def __call__(self, stamp, other, rng):
        """The stamp as the other survey would have it.

        Parameters
        ----------
        stamp, other : `~astrogan.simulate.surveys.SurveyStamp`
            Of the other's nothing but the grid, the PSF and the noise level is used, except by the second exposure.
        rng : `numpy.random.Generator`

        Returns
        -------
        Translated
        """
        if self.backend is None:
            again = second_exposure(other, rng)
            return Translated(np.asarray(again.data, np.float64), np.asarray(again.variance, np.float64))
        with warnings.catch_warnings():
            # A sharper target's PSF cannot be matched by the classic backend, which the tables show.
            warnings.simplefilter("ignore", AstroganWarning)
            backend = _instance(self.name, self.backend, _frozen(self, stamp.survey))
            estimate = backend(stamp.observation, target_of(stamp, other), rng=rng)
        data = np.asarray(estimate.data, np.float64)
        if data.shape != other.data.shape or not np.isfinite(data).all():
            raise InputError(f"{self.name} returned shape {data.shape}, or NaN; it must be finite {other.data.shape}")
        variance = None if estimate.variance is None else np.asarray(estimate.variance, np.float64)
        return Translated(data, variance)


def _frozen(row, survey):
    """The row's options as a tuple; the default translator is told where the image comes from."""
    options = dict(row.options)
    if row.backend == "surveynet":
        options.setdefault("source", survey)
    return tuple(sorted(options.items()))


@lru_cache(maxsize=32)
def _instance(name, backend, options):
    """The row's backend, loaded once in a process."""
    from astrogan.plugins.registry import load_backend

    return load_backend("translator", backend, dict(options))[0]


_LATEST = {}


def target_of(stamp, other):
    """The other stamp's grid, PSF and noise, for a translator backend.

    Parameters
    ----------
    stamp, other : `~astrogan.simulate.surveys.SurveyStamp`
        With WCSs.

    Returns
    -------
    `~astrogan.api.Target`
    """
    from astrogan.image.wcs import pixel_mapping

    known = _LATEST.get("target")
    if known is not None and known[0] is stamp and known[1] is other:
        return known[2]
    model, slope = noise_of(other.survey, other.bands)
    target = Target(
        shape=other.data.shape[1:],
        to_input=_Remembered(pixel_mapping(other.wcs, stamp.wcs)),
        to_output=_Remembered(pixel_mapping(stamp.wcs, other.wcs)),
        area_ratio=float(other.pixel_scale / stamp.pixel_scale) ** 2,
        pixel_scale=float(other.pixel_scale),
        psf=other.psf,
        noise=np.asarray(other.sigma, np.float64),
        wcs_in=stamp.wcs,
        wcs_out=other.wcs,
        noise_slope=slope,
        noise_model=model,
        name=other.survey,
    )
    _LATEST["target"] = stamp, other, target
    return target


class _Remembered:
    """A mapping that knows its last answers: all rows ask for the same pixels of the same grid."""

    def __init__(self, mapping):
        self._mapping = mapping
        self._known = {}

    def __call__(self, x, y):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        key = x.shape, y.shape, x.tobytes(), y.tobytes()
        if key not in self._known:
            if len(self._known) >= 8:
                self._known.clear()
            self._known[key] = tuple(np.asarray(p, np.float64) for p in self._mapping(x, y))
        return tuple(p.copy() for p in self._known[key])


def stamps_of(pair, direction):
    """The input and the target of a pair.

    Parameters
    ----------
    pair : `~astrogan.simulate.surveys.SurveyPair`
        SDSS first.
    direction : str
        Of `DIRECTIONS`.

    Returns
    -------
    stamp, other : `~astrogan.simulate.surveys.SurveyStamp`
    """
    return (pair.first, pair.second) if direction == DIRECTIONS[0] else (pair.second, pair.first)


# ------------------------------------------------------------------------------------------------ which rows there are

ROWS = (
    Row(FLOOR, None),
    Row("psf-matching", "psf-matching"),
    Row("lin2020", "lin2020"),
    *(Row(f"lin2020-{variant}", "lin2020", {"weights": f"lin2020-{variant}"}) for variant in VARIANTS),
    Row("surveynet", "surveynet"),
)
"""In the order of the tables."""


def named_rows(names=None, weights=None):
    """The rows wanted.

    Parameters
    ----------
    names : sequence of str, optional
        Of `ROWS`, or any translator backend with options, as in ``"psf-matching:resampling=exact"``. Default: all of
        `ROWS`, and those that ``weights`` names.
    weights : dict, optional
        {row: name or path of weights}; a name that is no row makes one of the backend that its beginning names
        (``lin2020`` or ``surveynet``).

    Returns
    -------
    list of Row
    """
    from astrogan.bench._linear_common import parse_method

    weights = {str(name): str(path) for name, path in (weights or {}).items()}
    ours = {row.name: row for row in ROWS}
    if names is None:
        names = [*ours, *weights]
    rows = []
    for name in dict.fromkeys(map(str, names)):
        if name in ours:
            row = ours[name]
        elif name in weights:
            row = Row(name, _backend_of(name))
        else:
            row = Row(name, *parse_method(name))
        if name in weights:
            row = Row(row.name, row.backend, row.options | {"weights": weights[name]})
        rows.append(row)
    if not rows:
        raise InputError(f"rows={names!r} must not be empty")
    unused = sorted(set(weights) - {row.name for row in rows})
    if unused:
        raise InputError(f"weights={unused!r} are of no row; rows: {', '.join(row.name for row in rows)}")
    return rows


def _backend_of(name):
    for backend in ("lin2020", "surveynet"):
        if name.startswith(backend):
            return backend
    raise InputError(f"weights: {name!r} names no row, and does not begin with lin2020 or surveynet")


def available(rows, pair, directions):
    """Those that work here, tried on a pair.

    Parameters
    ----------
    rows : sequence of Row
    pair : `~astrogan.simulate.surveys.SurveyPair`
    directions : sequence of str

    Returns
    -------
    rows : list of Row
    skipped : dict
        {name: why}.
    """
    working, skipped = [], {}
    for row in rows:
        try:
            for direction in directions:
                row(*stamps_of(pair, direction), np.random.default_rng(0))
        except (AstroganError, ImportError, OSError) as error:
            skipped[row.name] = " ".join(str(error).split())
        else:
            working.append(row)
    return working, skipped
