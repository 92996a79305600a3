"""The table of a run, and what is said at its end."""

from __future__ import annotations

import math
import warnings

import numpy as np

import astrogan.exceptions
from astrogan.catalogs._flags import RowFlag, status_of
from astrogan.exceptions import AstroganWarning

__all__ = ["say", "table_of"]


def table_of(job, rows, records, n_bands):
    """A row a row of the catalog, in its order, from the records of the chunks."""
    from astropy.table import MaskedColumn, Table

    lines = [line for record in records for line in record["rows"]]
    table = Table({"row": [row.index for row in rows], "id": [row.id for row in rows]})
    if job.on_sky:
        for axis, name in enumerate(("ra", "dec")):
            table[name] = [row.place[axis] for row in rows]
            table[name].unit = "deg"
    if rows[0].image is not None:
        table["image"] = [row.image for row in rows]
    for name, default in _columns(job, n_bands).items():
        values = [line.get(name, default) for line in lines]
        if name in ("x0", "y0"):
            table[name] = MaskedColumn([value or 0 for value in values], mask=[value is None for value in values])
        else:
            table[name] = values
    table.add_column(
        [status_of(flags) for flags in table["flags"]], index=table.index_column("flags") + 1, name="status"
    )
    for name in ("out_of_range", "flux_in", "flux_out", "reduced_chi2", "x", "y"):
        if name in table.colnames:
            table[name].info.format = ".6g"
    table.meta["seed"] = job.seed
    table.meta["flags"] = {flag.name: int(flag) for flag in RowFlag if flag != RowFlag.NO_STAMP}
    return table


def _columns(job, n_bands):
    """Columns, and what stands in them for a row without a stamp."""
    columns = {} if job.size is None else {"x": math.nan, "y": math.nan, "x0": None, "y0": None}
    columns |= {"file": "", "plane": -1, "flags": 0, "error": "", "unit": "", "masked": 0}
    if job.aperture is not None:
        missing = math.nan if n_bands == 1 else [math.nan] * n_bands
        columns |= {"flux_in": missing, "flux_out": missing}
    columns |= {"out_of_range": math.nan, "weights": ""}
    return columns | ({"reduced_chi2": math.nan} if job.diagnose else {})


def say(records, table):
    """What was warned of in the chunks, once a kind; and what failed."""
    said = {}
    for number in sorted(records):
        for kind, (text, count) in records[number]["warnings"].items():
            said[kind] = [said.get(kind, [text])[0], said.get(kind, [text, 0])[1] + count]
    for kind, (text, count) in said.items():
        category = getattr(astrogan.exceptions, kind, UserWarning)
        more = f" (the like for {count - 1} more rows)" if count > 1 else ""
        warnings.warn(f"{text}{more}", category, stacklevel=5)
    failed = (table["flags"] & int(RowFlag.UNREADABLE | RowFlag.FAILED | RowFlag.WORKER_DIED)) != 0
    if failed.any():
        first = int(np.flatnonzero(failed)[0])
        warnings.warn(
            f"{int(failed.sum())} of {len(table)} rows failed; the column error says why. The first, row {first}: "
            f"{table['error'][first]}",
            AstroganWarning,
            stacklevel=5,
        )
