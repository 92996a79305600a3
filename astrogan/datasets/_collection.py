"""A folder of files, one for each object of a sample, and the manifest that tells which of them are good."""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from astrogan.datasets._transport import DownloadError, make_folder, sha256
from astrogan.exceptions import AstroganError, AstroganWarning, ImageReadError, InputError

MANIFEST = "manifest.ecsv"
# Objects in a row that a service fails on before the rest is not asked for any more.
_GIVE_UP = 5
# The manifest is written when this many files or seconds have gone by; files that a killed process did not record are
# checked by their content.
_SAVE_FILES, _SAVE_SECONDS = 100, 60.0
_RECORD = {"file": "", "bytes": 0, "sha256": "", "url": "", "fetched": "", "status": "missing", "reason": ""}


class Collection:
    """Files of a sample in a folder.

    Parameters
    ----------
    folder : path
        Made if need be.
    sample : `~astropy.table.Table`
        With a column ``name``.
    settings : dict
        What the files are like (service, size, bands, ...); a folder with other ones is refused.
    suffix : str
        Of the files.
    extra : dict, optional
        Further columns of the manifest, and their value for a file that is missing.
    passing : bool, optional
        Whether files that come do not stay, so that no manifest is written.
    """

    def __init__(self, folder, sample, settings, suffix, extra=None, *, passing=False):
        self.folder, self.sample, self.settings, self.suffix = Path(folder).expanduser(), sample, settings, suffix
        make_folder(self.folder)
        self._passing = passing
        self._empty = _RECORD | (extra or {})
        self._rows = {}
        self._failed_in_a_row, self._unsaved, self._saved = 0, 0, time.monotonic()
        self._old = self._read()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is None:
            self.save()
        else:
            with contextlib.suppress(AstroganError):  # what stopped the work is what the user has to hear of
                self.save()

    def path(self, name):
        """The file of an object."""
        return self.folder / f"{name}{self.suffix}"

    def missing(self, check, rows=None):
        """Rows (of ``rows``, or all) whose file is not there or not good; good ones are noted.

        A file is good if it has the checksum that the manifest has, or is in no manifest and ``check`` does not raise.
        """
        bad = []
        for k in range(len(self.sample)) if rows is None else rows:
            name = self.name(k)
            record = self._good(name, check)
            if record is None:
                bad.append(k)
            else:
                self._rows[name] = record
        return bad

    def name(self, k):
        """Name of an object."""
        return str(self.sample["name"][k])

    def record(self, name):
        """What the manifest has of an object."""
        return self._rows.get(name, self._empty)

    def _good(self, name, check):
        path, record = self.path(name), self._old.get(name)
        if not path.is_file():
            return None
        if record is not None and record["sha256"]:
            return record if path.stat().st_size == record["bytes"] and sha256(path) == record["sha256"] else None
        try:
            extra = check(path) or {}
        except (AstroganError, OSError, ValueError, EOFError):
            return None
        return self._record(path, "", extra)

    def done(self, name, url, **extra):
        """Note a file that has come."""
        self._rows[name] = self._record(self.path(name), url, extra)
        self._failed_in_a_row = 0
        self._count()

    def failed(self, name, error, url="", *, counts=True):
        """Note an object without a file; give up if the service fails on one after the other (those that count)."""
        self._rows[name] = self._empty | {"url": url, "status": "failed", "reason": " ".join(str(error).split())[:300]}
        self._count()
        # A position outside of the survey says nothing of the service.
        if not counts or not isinstance(error, DownloadError) or error.status == 404:
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= _GIVE_UP:
            raise DownloadError(
                f"{self._failed_in_a_row} objects in a row could not be had, the last because of: {error}",
                error.status,
            ) from error

    def left_out(self, name, reason, **extra):
        """Note an object that no file is made for."""
        self._rows[name] = self._empty | {"status": "left out", "reason": reason} | extra
        self._failed_in_a_row = 0
        self._count()

    def finish(self):
        """The manifest, with a warning if objects have no file."""
        table = self.table()
        failed = table[table["status"] == "failed"]
        if len(failed):
            warnings.warn(
                f"{len(failed)} of {len(table)} objects could not be had, the first, {failed['name'][0]}, because of: "
                f"{failed['reason'][0]}. Call again for another attempt; {str(self.folder / MANIFEST)!r} names them",
                AstroganWarning,
                stacklevel=3,
            )
        return table

    def table(self):
        """The sample with the columns of the manifest beside its own."""
        table = self.sample.copy()
        table.meta = {**self.sample.meta, "settings": dict(self.settings)}
        records = [self._rows.get(str(name), self._empty) for name in self.sample["name"]]
        for column, empty in self._empty.items():
            values = [record.get(column, empty) for record in records]
            table[column] = np.array(values, dtype=str if isinstance(empty, str) else type(empty))
        return table

    def save(self):
        """Write the manifest, with what it had of objects that are not in this sample."""
        if self._passing:
            return
        from astropy.table import Table, vstack

        from astrogan.image.write import write_table

        table = self.table()
        others = sorted(set(self._old) - {str(name) for name in self.sample["name"]})
        if others:
            rows = {"name": others} | {column: [self._old[o][column] for o in others] for column in self._empty}
            table = vstack([table, Table(rows)], metadata_conflicts="silent")
        write_table(table, self.folder / MANIFEST, overwrite=True)
        self._unsaved, self._saved = 0, time.monotonic()

    def _count(self):
        self._unsaved += 1
        if self._unsaved >= _SAVE_FILES or time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def _record(self, path, url, extra):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        own = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path), "url": url, "fetched": now}
        return self._empty | own | {"status": "ok"} | extra

    def _read(self):
        """Records of the manifest that is there, by name."""
        path = self.folder / MANIFEST
        if not path.exists():
            return {}
        table = read_ecsv(path)
        if "name" not in table.colnames or not set(_RECORD) <= set(table.colnames):
            raise ImageReadError(f"{str(path)!r} is no manifest of astrogan's; name another folder")
        there = table.meta.get("settings", {})
        differ = sorted(key for key in self.settings if there.get(key) != self.settings[key])
        if differ:
            key = differ[0]
            raise InputError(
                f"folder={str(self.folder)!r} holds files with {key}={there.get(key)!r}, and {key}="
                f"{self.settings[key]!r} is asked for; name another folder"
            )
        columns = [c for c in self._empty if c in table.colnames]
        return {str(row["name"]): self._empty | {c: _plain(row[c], self._empty[c]) for c in columns} for row in table}


def _plain(value, like):
    """A cell as a plain Python value; an empty one as that of a missing file."""
    return like if np.ma.is_masked(value) else type(like)(value)


def read_ecsv(path):
    """A table that `astrogan.image.write.write_table` wrote."""
    from astropy.table import Table

    try:
        return Table.read(path, format="ascii.ecsv")
    except Exception as error:  # parsers raise what they like
        raise ImageReadError(
            f"{str(path)!r} cannot be read ({' '.join(str(error).split())[:160]}); delete it and call again: the files "
            "beside it are then checked by their content"
        ) from error


# ---- samples ------------------------------------------------------------------------------------------------------


def as_sample(sample, needed=("ra", "dec")):
    """A table of objects with columns ``name``, ``ra``, ``dec`` (deg) and those that it had, in small letters.

    ``sample`` is a table, the path of one, a `~astropy.coordinates.SkyCoord`, or a list of (ra, dec).
    """
    table = _as_table(sample)
    for name in list(table.colnames):
        if name != name.lower():
            if name.lower() in table.colnames:
                raise InputError(f"sample has columns {name!r} and {name.lower()!r}; rename one")
            table.rename_column(name, name.lower())
    lacking = [name for name in needed if name not in table.colnames]
    if lacking:
        raise InputError(
            f"sample has no column {', '.join(lacking)} (it has {', '.join(table.colnames) or 'none'}); add it"
        )
    if not len(table):
        raise InputError("sample is empty; give at least one object")
    for name, least, most in (("ra", 0, 360), ("dec", -90, 90)):
        table[name] = _degrees(table[name], name, least, most)
    table["name"] = _names(table)
    table.columns.move_to_end("name", last=False)
    return table


def _as_table(sample):
    from astropy.coordinates import SkyCoord
    from astropy.table import Table

    if isinstance(sample, Table):
        return Table(sample)
    if isinstance(sample, SkyCoord):
        sky = np.atleast_1d(sample.icrs)
        return Table({"ra": sky.ra.deg, "dec": sky.dec.deg})
    if isinstance(sample, str | Path):
        return read_table(Path(sample).expanduser())
    try:
        positions = np.asarray(sample, float)
        if positions.ndim == 2 and positions.shape[1] == 2:
            return Table({"ra": positions[:, 0], "dec": positions[:, 1]})
    except (TypeError, ValueError):
        pass
    raise InputError(
        f"sample is {type(sample).__name__}; it must be a table with columns ra and dec in degrees, the path of one, a "
        "SkyCoord, or a list of (ra, dec)"
    )


def read_table(path):
    """A table of the user's, in any format that tells itself."""
    from astropy.table import Table

    if not path.is_file():
        raise ImageReadError(f"sample={str(path)!r}: there is no such file")
    try:
        return Table.read(path)
    except Exception as error:
        raise ImageReadError(
            f"sample={str(path)!r} cannot be read as a table ({' '.join(str(error).split())[:160]}); give .ecsv, .csv "
            "or .fits"
        ) from error


def _degrees(column, name, least, most):
    unit = getattr(column, "unit", None)
    try:
        values = np.asarray(column.to_value("deg") if hasattr(column, "to_value") else column, float)
        if unit is not None and not hasattr(column, "to_value"):
            values = (values * unit).to_value("deg")
    except (TypeError, ValueError) as error:
        raise InputError(f"sample's column {name!r} is no angle ({error}); give degrees") from error
    bad = ~((values >= least) & (values <= most))
    if bad.any():
        raise InputError(f"sample's column {name!r} has {values[bad][0]}; it must be {least} to {most} degrees")
    return values


def _names(table):
    """Names that differ and that files can have."""
    for column in ("name", "objid"):
        if column in table.colnames:
            names = [str(value).strip() for value in table[column]]
            break
    else:
        names = [f"J{ra:09.5f}{dec:+09.5f}" for ra, dec in zip(table["ra"], table["dec"], strict=True)]
    bad = [name for name in names if not re.fullmatch(r"[A-Za-z0-9+][\w+.-]*", name, re.ASCII)]
    if bad:
        raise InputError(f"sample has the name {bad[0]!r}; files need letters, digits and . _ + - only")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError(
            f"sample has {twice[0]!r} twice; leave one out, or give a column 'name' with names that differ"
        )
    return names


def whole_number(name, value, least, most):
    """A whole number in a range."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise InputError(f"{name}={value!r} must be a whole number from {least} to {most}")
    return int(value)


def limited(sample, limit):
    """The first objects of a sample."""
    return sample if limit is None else sample[: whole_number("limit", limit, 1, 10**9)]
