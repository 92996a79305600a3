"""The methods that the restoration benchmark compares: trivial, classic and tuned ones, and any backend."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import secrets
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from astrogan.exceptions import AstroganError, AstroganWarning, InputError

__all__ = ["BLIND", "CLASSIC", "Restoration", "Row", "backend_row", "backend_rows", "classic_rows", "tune"]

_SPEC = re.compile(r"(?P<name>.+?)(?::(?P<options>\w+=.*))?")
_CACHE: dict[str, str] = {}


@dataclass(frozen=True)
class Row:
    """A method of the table.

    Parameters
    ----------
    name : str
        As printed.
    kind : {"none", "classic", "backend"}
        What it is.
    backend : str, object or None
        For `~astrogan.Restorer`; None leaves the image as it is.
    options : dict
        Of the backend. In strings ``{fwhm}``, ``{noise}`` and ``{convention}`` stand for the cell's.
    tuned : str or None
        The option that is chosen with the truth, see `tune`.
    most : int or None
        Largest number of images, for slow ones.
    run : str
        The run that it is measured in: all that tells an instance from another.
    """

    name: str
    kind: str
    backend: Any = None
    options: dict = field(default_factory=dict)
    tuned: str | None = None
    most: int | None = None
    run: str = ""

    def options_for(self, cell):
        """The options, with the cell's values filled in."""
        places = {"fwhm": f"{cell.fwhm:g}", "noise": f"{cell.noise:g}", "convention": cell.convention}
        filled = {}
        for name, value in self.options.items():
            if isinstance(value, str):
                for place, text in places.items():
                    value = value.replace("{" + place + "}", text)
            filled[name] = value
        return filled

    def fingerprint(self, cell):
        """What a stored result of this row depends on, the contents of weights and files included.

        Where that cannot be told, of an instance for one, it is the run alone, so that no other run takes the result.
        """
        options = self.options_for(cell)
        named = isinstance(self.backend, str | None)
        texts = {name: _text(value) for name, value in sorted(options.items())}
        contents = _contents(self.backend, options) if named else {}
        known = named and None not in texts.values() and None not in contents.values()
        run = None if known else self.run or secrets.token_hex(8)
        return [self.name, self.backend if named else None, texts, contents, self.tuned, self.most, run]


def _text(value):
    """An option's value as text that no other value has; None of an object."""
    try:
        return json.dumps(str(value) if isinstance(value, Path) else value)
    except (TypeError, ValueError):
        return None


def _contents(backend, options):
    """{option or name: SHA-256} of all weights and files that a named backend with these options may read."""
    found = {name: _digest(value) for name, value in options.items() if isinstance(value, str | Path)}
    weights = options.get("weights", "auto")
    if weights in (None, "auto"):
        found |= _shipped(backend)
    elif options.get("perceptual"):
        found["perceptual weights"] = _digest(_companion(weights))
    return {name: digest for name, digest in found.items() if digest != ""}


def _shipped(backend):
    """Those for a backend that come with the package: "auto" may take any of them."""
    from astrogan.weights import list_weights

    names = list_weights(backend=backend.rpartition(":")[2]) if backend else ()
    return {name: _digest(name) for name in names}


def _companion(weights):
    """Name or path of the weights that ``perceptual`` blends with others."""
    from astrogan.backends.gan._nafnet_model import PERCEPTUAL

    path = str(weights.expanduser().resolve() if isinstance(weights, Path) else weights)
    name = path.removesuffix(".safetensors")
    return f"{name}{PERCEPTUAL}{path[len(name) :]}"


def _digest(value):
    """SHA-256 of the card of weights, which holds that of the tensors, or of another file.

    "" of what names neither; None of a folder that is not one of weights, since nobody knows what of it is read.
    """
    from astrogan.weights import read_card

    try:
        return read_card(value)["card_sha256"]
    except AstroganError:  # nothing of the kind, or a plugin's own format
        path = os.path.expanduser(value)
    if os.path.isfile(path):
        return _sha256(path)
    return None if os.path.isdir(path) else ""


def _sha256(path):
    stat = Path(path).stat()
    key = f"{path}:{stat.st_size}:{stat.st_mtime_ns}"
    if key not in _CACHE:
        with open(path, "rb") as file:
            _CACHE[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _CACHE[key]


CLASSIC = {
    "identity": Row("identity", "none"),
    "gaussian": Row("gaussian", "classic", "gaussian", tuned="fwhm"),
    "wiener": Row("wiener", "classic", "wiener", tuned="balance"),
    "richardson-lucy": Row("richardson-lucy", "classic", "richardson-lucy", {"iterations": 10}),
    "richardson-lucy (tuned)": Row("richardson-lucy (tuned)", "classic", "richardson-lucy", tuned="iterations"),
}
BLIND = "blind-richardson-lucy"


def classic_rows(names=None, *, blind_images=0):
    """The classic rows wanted; ``blind_images`` of 0 leaves the slow blind one out."""
    names = tuple(CLASSIC) if names is None else tuple(names)
    unknown = [name for name in names if name not in CLASSIC]
    if unknown:
        raise InputError(f"classic={unknown[0]!r} is no row of this table; there are: {', '.join(CLASSIC)}")
    rows = [CLASSIC[name] for name in names]
    if blind_images:
        rows.append(Row(BLIND, "classic", BLIND, {"iterations": 10}, most=blind_images))
    return rows


def backend_row(spec):
    """A row from ``"name"``, ``"name:option=value,option=value"``, ``(label, backend instance)``, or a row."""
    if isinstance(spec, Row):
        return spec
    if not isinstance(spec, str):
        label, backend = spec
        return Row(str(label), "backend", backend)
    match = _SPEC.fullmatch(spec)
    if not match or not match["name"].strip():
        raise InputError(f"backend={spec!r} must have the form NAME or NAME:OPTION=VALUE,OPTION=VALUE")
    options = {}
    for pair in re.split(r",(?=\w+=)", match["options"]) if match["options"] else ():
        name, _, value = pair.partition("=")
        options[name] = _value(value)
    return Row(match["name"], "backend", match["name"], options)


def backend_rows(specs):
    """Rows for several backends; those of one name get their options into it."""
    rows = [(spec, backend_row(spec)) for spec in specs]
    names = [row.name for _, row in rows]
    named = []
    for spec, row in rows:
        if row.name in CLASSIC or row.name == BLIND or (isinstance(spec, str) and names.count(row.name) > 1):
            options = ", ".join(f"{n}={v}" for n, v in row.options.items()) or "defaults"
            row = Row(f"{row.name} ({options})", row.kind, row.backend, row.options)
        named.append(row)
    twice = {row.name for row in named if [other.name for other in named].count(row.name) > 1}
    if twice:
        raise InputError(f"backends has {sorted(twice)[0]!r} twice; leave one out")
    return named


def _value(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


class Restoration:
    """A row at one cell, ready to be applied to images.

    Parameters
    ----------
    row : Row
    cell : object
        Has ``fwhm``, ``noise`` and ``convention``.
    kernel : `numpy.ndarray`
        (k, k), the blur: the true PSF of the degradation.
    pixel_scale : float
        Arcsec.
    options : dict
        In addition to the row's, such as the tuned value.
    """

    def __init__(self, row, cell, kernel, pixel_scale, **options):
        self._restorer = None
        self._kernel, self._scale = kernel, pixel_scale
        if row.backend is not None:
            from astrogan import Restorer

            self._restorer = Restorer(row.backend, workers=1, **(row.options_for(cell) | options))

    def __call__(self, image, variance=None, rng=0):
        """The restored image (band, y, x); ``variance`` None leaves the noise to the library."""
        if self._restorer is None:
            return image
        from astropy.nddata import CCDData, VarianceUncertainty

        uncertainty = None if variance is None else VarianceUncertainty(variance)
        ccd = CCDData(image, unit="nmgy", uncertainty=uncertainty)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstroganWarning)
            restored = self._restorer(ccd, psf=self._kernel, rng=rng, pixel_scale=self._scale)
        return np.asarray(restored.data, np.float32)


# ---- choosing an option with the truth ------------------------------------------------------------------------------

_FWHMS = tuple(np.geomspace(0.8, 12.0, 8))
_BALANCES = tuple(10.0 ** np.arange(-3, 4))
_ITERATIONS = (1, 2, 3, 4, 6, 8, 10, 13, 17, 22, 30, 40, 60)


def tune(option, score):
    """The value of an option with the largest score: what no user can do, since it takes the truth.

    Parameters
    ----------
    option : {"fwhm", "balance", "iterations"}
        Of Gaussian smoothing (0, which does nothing, is among the values), Wiener filter, Richardson-Lucy (10, as in
        the paper, is among them).
    score : callable
        ``score(value)``, larger is better.

    Returns
    -------
    value : float or int
    score : float
        Its score.
    """
    if option == "iterations":
        tried = _climb(_ITERATIONS, score)
        if 10 not in tried:
            tried[10] = score(10)
        best = max(tried, key=tried.get)
        return int(best), tried[best]
    values = _FWHMS if option == "fwhm" else _BALANCES
    tried = {value: score(value) for value in values}
    tried = _extended(tried, score)
    for _ in range(2):
        tried = _refined(tried, score)
    if option == "fwhm":
        tried[0.0] = score(0.0)
    best = max(tried, key=tried.get)
    return float(best), tried[best]


def _climb(values, score, patience=2):
    """Scores of rising values until they have fallen ``patience`` times."""
    tried, best, fallen = {}, -np.inf, 0
    for value in values:
        tried[value] = score(value)
        fallen = 0 if tried[value] > best else fallen + 1
        best = max(best, tried[value])
        if fallen == patience:
            break
    return tried


def _extended(tried, score, most=4):
    """While the best value is the smallest or the largest, a further one beyond it."""
    for _ in range(most):
        values = sorted(tried)
        best = max(tried, key=tried.get)
        if best not in (values[0], values[-1]):
            break
        step = values[1] / values[0]
        value = float(best / step if best == values[0] else best * step)
        tried[value] = score(value)
    return tried


def _refined(tried, score):
    """The geometric means with the best value's two neighbours."""
    values = sorted(tried)
    at = values.index(max(tried, key=tried.get))
    for neighbour in (at - 1, at + 1):
        if 0 <= neighbour < len(values):
            value = float(np.sqrt(values[at] * values[neighbour]))
            tried[value] = score(value)
    return tried
