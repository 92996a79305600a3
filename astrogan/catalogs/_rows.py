"""From a catalog to rows: where, in which image, under which name."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astrogan.exceptions import ImageReadError, InputError

__all__ = ["Row", "read_catalog", "rows_of_catalog", "rows_of_images"]


@dataclass(frozen=True)
class Row:
    """One row of work.

    Attributes
    ----------
    index : int
        From 0; the random numbers of the row belong to it.
    id : int or str
        The user's name for it.
    place : tuple of float or None
        ``(x, y)`` in pixels, or ``(ra, dec)`` in degrees (ICRS). `None`: the whole image.
    image : str or None
        Path of its image; `None` where all rows share one.
    name : str
        What its file is called, where each has its own; without the suffix.
    """

    index: int
    id: object
    place: tuple[float, float] | None
    image: str | None
    name: str


def read_catalog(catalog):
    """A table, and the folder that paths in it start from.

    Parameters
    ----------
    catalog : `~astropy.table.Table`, `~astropy.coordinates.SkyCoord`, array_like or path
        An array is (n, 2), each row (x, y).

    Returns
    -------
    table : `~astropy.table.Table`
    folder : `pathlib.Path`
    """
    from astropy.coordinates import SkyCoord
    from astropy.table import QTable, Table

    if isinstance(catalog, str | os.PathLike):
        path = Path(catalog).expanduser()
        try:
            return QTable.read(path), path.absolute().parent
        except FileNotFoundError as error:
            raise ImageReadError(f"catalog={str(catalog)!r} does not exist; check the path") from error
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"catalog={str(catalog)!r} cannot be read as a table ({reason}); use ECSV, FITS, VOTable or CSV"
            ) from error
    if isinstance(catalog, SkyCoord):
        return QTable({"position": catalog.reshape(-1)}), Path.cwd()
    if isinstance(catalog, Table):
        return catalog, Path.cwd()
    array = np.asarray(catalog)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "fiu":
        raise InputError(f"catalog={type(catalog).__name__} must be a Table, its path, a SkyCoord, or an array (n, 2)")
    return QTable({"x": array[:, 0], "y": array[:, 1]}), Path.cwd()


def rows_of_catalog(table, folder, *, sky=None, xy=None, image_column=None, id_column=None):
    """The rows, and whether their places are on the sky.

    Parameters
    ----------
    table : `~astropy.table.Table`
    folder : path
        What paths in ``image_column`` are relative to.
    sky : str or pair of str, optional
        Column of `~astropy.coordinates.SkyCoord`, or of right ascension and declination.
    xy : pair of str, optional
        Columns of 0-based pixels.
    image_column, id_column : str, optional
        Columns of paths, and of names.

    Returns
    -------
    rows : list of Row
    on_sky : bool
    """
    from astropy.coordinates import SkyCoord

    from astrogan.operators.deblender import _from_table

    if len(table) == 0:
        raise InputError("catalog has no row")
    places = _from_table(_chosen(table, sky, xy))
    on_sky = isinstance(places, SkyCoord)
    if on_sky:
        places = places.icrs
        places = np.stack([places.ra.deg, places.dec.deg], axis=-1)
    ids = _ids(table, id_column)
    images = [None] * len(table) if image_column is None else _paths(_column(table, image_column), folder)
    names = _file_names(ids)
    places = [(float(a), float(b)) for a, b in np.asarray(places, np.float64)]
    return [Row(i, *items) for i, items in enumerate(zip(ids, places, images, names, strict=True))], on_sky


def rows_of_images(paths):
    """A row an image, named by its file.

    Parameters
    ----------
    paths : sequence of path

    Returns
    -------
    list of Row
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    paths = [Path(path).expanduser().absolute() for path in paths]
    if not paths:
        raise InputError("paths names no image; give at least one")
    stems = [re.sub(r"(\.(fits?|fts|fz|gz|bz2|xz|png|jpe?g|tiff?))+$", "", path.name.lower()) for path in paths]
    stems = [path.name[: len(stem)] for path, stem in zip(paths, stems, strict=True)]
    twice = [stem for stem, count in Counter(stem.lower() for stem in stems).items() if count > 1]
    if twice:
        same = [str(path) for path, stem in zip(paths, stems, strict=True) if stem.lower() == twice[0]]
        raise InputError(
            f"paths: {same[0]!r} and {same[1]!r} would both be written as {twice[0]}.fits; use a folder for each"
        )
    return [Row(i, stem, None, str(path), stem) for i, (path, stem) in enumerate(zip(paths, stems, strict=True))]


def _chosen(table, sky, xy):
    """The columns of the position alone, under the names by which they are known."""
    from astropy.table import QTable

    if sky is not None and xy is not None:
        raise InputError(f"sky={sky!r} and xy={xy!r} both say where the positions are; give one of them")
    if sky is None and xy is None:
        return table
    if isinstance(sky, str):
        return QTable({"position": _column(table, sky)})
    names, argument = (("ra", "dec"), "sky") if xy is None else (("x", "y"), "xy")
    given = sky if xy is None else xy
    if isinstance(given, str) or len(given) != 2:
        raise InputError(f"{argument}={given!r} must be the names of two columns, e.g. {names!r}")
    return QTable({name: _column(table, column) for name, column in zip(names, given, strict=True)}, copy=False)


def _column(table, name):
    if name not in table.colnames:
        raise InputError(f"catalog has no column {name!r}; it has {', '.join(table.colnames)}")
    return table[name]


def _ids(table, id_column):
    if id_column is None:
        return list(range(len(table)))
    values = [value.item() if hasattr(value, "item") else value for value in _column(table, id_column)]
    values = [value.decode() if isinstance(value, bytes) else value for value in values]
    if not all(isinstance(value, int | str) for value in values):
        raise InputError(f"id_column={id_column!r} must hold integers or text, none of them masked")
    return values


def _paths(column, folder):
    paths = [value.decode() if isinstance(value, bytes) else str(value) for value in column]
    return [str(Path(folder) / Path(path).expanduser()) for path in paths]


def _file_names(ids):
    """The ids where they are file names that differ, else with the row's number."""
    names = [re.sub(r"[^A-Za-z0-9._+-]", "_", str(value)).strip(".")[:100] or "row" for value in ids]
    counts = Counter(name.lower() for name in names)
    return [name if counts[name.lower()] == 1 else f"{name}-row{i}" for i, name in enumerate(names)]
