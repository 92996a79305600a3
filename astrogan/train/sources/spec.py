"""Sources from what a recipe says of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

from astrogan.exceptions import ImageReadError, InputError
from astrogan.train.sources.base import Mix, Source
from astrogan.train.sources.cube import FitsCube
from astrogan.train.sources.field import Field
from astrogan.train.sources.fits import FitsFolder
from astrogan.train.sources.simulated import SimulatedStream
from astrogan.train.sources.stamps import StampTar

__all__ = ["open_source", "open_sources"]

_KINDS = {"stamps": StampTar, "fits": FitsFolder, "cube": FitsCube, "field": Field, "simulated": SimulatedStream}


def open_source(spec: Mapping, data: Path | str | None = None, *, max_damaged: float = 0.0) -> Source:
    """The source that a table of a recipe describes.

    Parameters
    ----------
    spec : mapping
        ``kind`` is ``"stamps"`` (`StampTar`), ``"fits"`` (`FitsFolder`), ``"cube"`` (`FitsCube`), ``"field"``
        (`Field`) or ``"simulated"`` (`SimulatedStream`); the other keys are the arguments of that class. ``weight`` is
        left to `open_sources`.
    data : path, optional
        The folder that relative paths start from.
    max_damaged : float, optional
        Part of a source's files that may be damaged and left out, where it finds that at once (`FitsFolder`) and the
        table does not say.

    Returns
    -------
    Source

    Raises
    ------
    InputError
        If the kind or a key is unknown, or a value cannot be used.
    ImageReadError
        If data are missing or cannot be read.

    Examples
    --------
    >>> from astrogan.train.sources import open_source
    >>> len(open_source({"kind": "simulated", "seed": 1, "length": 10}))
    10
    """
    if not isinstance(spec, Mapping):
        raise InputError(f"spec={spec!r} is {type(spec).__name__}; it must be a table with 'kind' and its arguments")
    options = {key: value for key, value in spec.items() if key != "weight"}
    kind = options.pop("kind", None)
    if kind not in _KINDS:
        raise InputError(f"kind={kind!r} is unknown; use one of {', '.join(map(repr, _KINDS))}")
    parameters = inspect.signature(_KINDS[kind]).parameters
    unknown = sorted(set(options) - set(parameters))
    if unknown:
        raise InputError(
            f"{', '.join(map(repr, unknown))} of kind={kind!r} is unknown; it takes {', '.join(parameters)}"
        )
    for key in ("path", "paths"):
        if key in options:
            options[key] = _located(options[key], data, key)
        elif key in parameters:
            raise InputError(
                f"spec of kind={kind!r} has no {key!r}; say where the data are, relative to the data folder"
            )
    if max_damaged and "max_damaged" in parameters:
        options.setdefault("max_damaged", max_damaged)
    return _KINDS[kind](**options)


def open_sources(specs: Sequence[Mapping], data: Path | str | None = None, *, max_damaged: float = 0.0) -> Source:
    """The sources of a recipe as one.

    Parameters
    ----------
    specs : sequence of mapping
        As for `open_source`; with ``weight``, how often images are drawn from it relative to the others (given for all
        or for none: then by the number of images).
    data : path, optional
        The folder that relative paths start from.
    max_damaged : float, optional
        Part of a source's files that may be damaged and left out, where it finds that at once (`FitsFolder`) and the
        table does not say.

    Returns
    -------
    Source
        The one, or a `Mix`.

    Raises
    ------
    InputError
        If there is none, only some have a weight, or as `open_source`.
    ImageReadError
        As `open_source`.
    """
    if isinstance(specs, Mapping) or not specs:
        raise InputError(f"specs={specs!r} must be a list of tables, [[data]] in a recipe, with at least one")
    weighted = ["weight" in spec for spec in specs]
    if any(weighted) and not all(weighted):
        raise InputError(f"only {sum(weighted)} of {len(weighted)} tables have a 'weight'; give it to all or to none")
    sources = [open_source(spec, data, max_damaged=max_damaged) for spec in specs]
    if len(sources) == 1:
        return sources[0]
    return Mix(sources, [spec["weight"] for spec in specs] if all(weighted) else None)


def _located(value, data, key):
    """Paths below the data folder."""
    if isinstance(value, Mapping):
        return {name: _located(path, data, key) for name, path in value.items()}
    if isinstance(value, list | tuple):
        return [_located(path, data, key) for path in value]
    if not isinstance(value, str | Path):
        raise InputError(f"{key}={value!r} must be a path, relative to the data folder")
    path = Path(value).expanduser()
    path = path if path.is_absolute() or data is None else Path(data) / path
    if not path.exists():
        raise ImageReadError(
            f"{key}={str(value)!r}: there is no {str(path)!r}; name the folder of the data with --data "
            "(or ASTROGAN_DATA), or leave this source out of the recipe"
        )
    return path
