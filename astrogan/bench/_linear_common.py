"""What the parts of `astrogan.bench.restoration_linear` share: methods by name, one restoration, figures of merit."""

from __future__ import annotations

import ast
import time
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from astrogan.exceptions import AstroganError, AstroganWarning, InputError

DEFAULTS = ("identity", "gaussian", "wiener", "richardson-lucy")
LEARNED = ("nafnet",)
"""Taken along by default where they load."""

UNIT = "adu"
PERCENT = 100.0
_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))


@dataclass(frozen=True)
class Method:
    """A restorer under the label that the tables show."""

    label: str
    restorer: Any


class Restored(NamedTuple):
    """Data, predicted standard deviation or `None`, and the seconds that it took."""

    data: np.ndarray
    sigma: np.ndarray | None
    seconds: float


def parse_method(text):
    """``"name"`` or ``"name:key=value,key=value"`` to (name, options); values are Python literals, else text."""
    name, _, rest = str(text).partition(":")
    options = {}
    for item in _items(rest):
        key, equals, value = item.partition("=")
        if not (equals and key.strip().isidentifier()):
            raise InputError(f"backend {text!r}: {item!r} must be key=value, e.g. 'richardson-lucy:iterations=10'")
        try:
            options[key.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            options[key.strip()] = value.strip()
    return name.strip(), options


def _items(text):
    """Split at the commas outside of brackets."""
    items, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            items.append(text[start:at])
            start = at + 1
    return [item for item in (*items, text[start:]) if item.strip()]


def load_methods(backends=None):
    """One `Method` per backend; by default the classics, and the learned ones that load."""
    from astrogan.operators.restorer import Restorer

    if backends is None:
        return [*load_methods(DEFAULTS), *_those_that_load(LEARNED)]
    methods = []
    for backend in backends:
        if isinstance(backend, Method):
            methods.append(backend)
            continue
        name, options = parse_method(backend)
        methods.append(Method(str(backend), Restorer(name, **options)))
    return methods


def _those_that_load(names):
    methods = []
    for name in names:
        try:
            methods += load_methods([name])
        except (AstroganError, ImportError, FileNotFoundError):
            continue  # weights or package are not there: the table simply has no such row
    return methods


def restore(method, image, noise, psf, *, mask=None, tile=None):
    """One restoration of (y, x) or (band, y, x): noise a standard deviation, psf a kernel or one a band."""
    from astropy.nddata import CCDData, StdDevUncertainty

    noise = np.broadcast_to(np.asarray(noise, np.float32), image.shape)
    observed = CCDData(np.asarray(image, np.float32), unit=UNIT, uncertainty=StdDevUncertainty(noise.copy()), mask=mask)
    restorer = method.restorer
    if tile is not None:
        restorer = _tiled(restorer, tile)
    with warnings.catch_warnings():
        # That a classic method has no uncertainty, or that a frame of noise lies outside of a training range, is
        # what the table is there to show.
        warnings.simplefilter("ignore", AstroganWarning)
        start = time.perf_counter()
        result = restorer(observed, psf=psf)
        seconds = time.perf_counter() - start
    sigma = None
    if result.uncertainty is not None:
        sigma = np.asarray(result.uncertainty.represent_as(StdDevUncertainty).array, np.float64)
    return Restored(np.asarray(result.data, np.float64), sigma, seconds)


def _tiled(restorer, tile):
    import copy

    restorer = copy.copy(restorer)
    restorer.tile = tile
    return restorer


def gaussian_kernel(fwhm):
    """Kernel of a Gaussian PSF."""
    from astrogan.image.psf import gaussian_psf

    return gaussian_psf(float(fwhm))


def blur(image, kernel):
    """Convolution, reflecting at the edges."""
    from astrogan.image.psf import convolve

    return np.asarray(convolve(np.asarray(image, np.float32), kernel), np.float64)


def asinh_stretch(image, peak):
    """asinh(10 x / peak) / asinh(10): one at the peak, linear below a tenth of it."""
    return np.arcsinh(10 * np.asarray(image, np.float64) / peak) / np.arcsinh(10.0)


def psnr_pair(truth, image, *, mask=None):
    """PSNR in decibels over the truth's peak, linear and in the asinh domain (range 1)."""
    from astrogan.metrics import psnr

    peak = float(np.max(truth if mask is None else truth[~mask]))
    linear = psnr(truth, image, data_range=peak, mask=mask)
    return linear, psnr(asinh_stretch(truth, peak), asinh_stretch(image, peak), data_range=1.0, mask=mask)


def median_bias(ratios):
    """(bias, its standard error) in per cent, from the median of ratios, NaN left out."""
    ratios = np.asarray(ratios, np.float64)
    ratios = ratios[np.isfinite(ratios)]
    if not ratios.size:
        return np.nan, np.nan
    median = np.median(ratios)
    scatter = 1.482602218505602 * np.median(np.abs(ratios - median))
    return PERCENT * (median - 1), PERCENT * 1.2533 * scatter / np.sqrt(ratios.size)


def flux_columns(ratios):
    """flux_1, err_1, ... from ratios of shape (source, aperture)."""
    columns = {}
    for number, ratio in enumerate(ratios.T, 1):
        columns[f"flux_{number}"], columns[f"err_{number}"] = median_bias(ratio)
    return columns


def shape_columns(errors):
    """e_error and e_failed from the errors of `shape_errors`."""
    errors = np.asarray(errors, np.float64)
    if not errors.size:
        return {"e_error": np.nan, "e_failed": np.nan}
    return {"e_error": float(np.median(errors)), "e_failed": PERCENT * np.mean(np.isinf(errors))}


def shapes_of(image, positions, sigma):
    """Rows (e1, e2), NaN where adaptive moments have no solution; GalSim's where it is there, for it is faster."""
    from astrogan.metrics import moments

    method = _moments_method()
    rows = []
    for position in positions:
        near = _around(image.shape, position, int(np.ceil(8 * sigma)))
        shape = moments(image[near], np.subtract(position, (near[1].start, near[0].start)), sigma=sigma, method=method)
        rows.append((shape.e1, shape.e2))
    return np.array(rows).reshape(-1, 2)


def _moments_method():
    try:
        import galsim  # noqa: F401
    except ImportError:
        return "adaptive"
    return "hsm"


def _around(shape, position, radius):
    x, y = np.rint(position).astype(int)
    return slice(max(0, y - radius), min(shape[0], y + radius + 1)), slice(
        max(0, x - radius), min(shape[1], x + radius + 1)
    )


def shape_errors(truth, shapes):
    """Modulus of the difference in ellipticity; infinite where the restored image has no shape, so medians count it."""
    good = np.isfinite(truth).all(axis=1)
    error = np.hypot(*(np.asarray(shapes)[good] - truth[good]).T)
    return np.where(np.isfinite(error), error, np.inf)


class Coverage:
    """How much of the truth lies within the 68 and the 95 per cent interval, counted over many images."""

    def __init__(self):
        self.n, self.inside = 0, np.zeros(3)

    def add(self, truth, restored, use, *, truth_sigma=0.0):
        """Count the pixels of ``use``, for the interval as it is and for one widened by the truth's own noise."""
        if restored.sigma is None:
            return
        error = np.abs(restored.data - truth)[use]
        sigma = np.broadcast_to(restored.sigma, np.shape(truth))[use]
        wider = np.sqrt(np.square(restored.sigma) + truth_sigma**2)
        wider = np.broadcast_to(wider, np.shape(truth))[use]
        self.n += error.size
        self.inside += [np.count_nonzero(error <= limit) for limit in (sigma, 1.96 * sigma, wider)]

    @property
    def parts(self):
        """Per cent within one and 1.96 sigma, and within one sigma with the truth's noise; NaN without intervals."""
        return tuple(PERCENT * self.inside / self.n) if self.n else (np.nan,) * 3

    @property
    def columns(self):
        """The same for a row of a table."""
        return dict(zip(("in_68", "in_95", "in_68_noise"), self.parts, strict=True))


def as_table(rows, caption, formats=None):
    """Rows of dicts as a Table with readable columns."""
    from astropy.table import Table

    table = Table(rows=rows)
    for name in table.colnames:
        if table[name].dtype.kind == "f":
            table[name].info.format = (formats or {}).get(name, ".2f")
    table.meta["caption"] = caption
    return table


def find_sources(image, threshold, *, minimum_pixels=1):
    """(n, 2) positions (x, y) of the peaks of the groups of pixels above a threshold, and the groups' map."""
    from scipy import ndimage

    labels, n = ndimage.label(image > threshold, np.ones((3, 3), int))
    if not n:
        return np.empty((0, 2)), labels
    index = np.arange(1, n + 1)
    index = index[np.bincount(labels.ravel(), minlength=n + 1)[1:] >= minimum_pixels]
    peaks = np.array(ndimage.maximum_position(image, labels, index), float).reshape(-1, 2)[:, ::-1]
    return peaks, labels


def gaussian_sigma(fwhm):
    """Standard deviation of a Gaussian of this FWHM."""
    return fwhm * _TO_SIGMA
