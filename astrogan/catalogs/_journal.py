"""What a folder of results remembers: the configuration it belongs to, and the chunks that are done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from astrogan.exceptions import ImageWriteError, InputError
from astrogan.image._lock import FolderLock
from astrogan.image.write import atomic_path

__all__ = ["RESULTS", "Journal", "described"]

RESULTS = "results.ecsv"
_CONFIGURATION, _CHUNKS = "run.json", "journal"
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\..+")
_MOST_SHOWN = 4


class Journal:
    """The folder of a run, held for one process at a time.

    Parameters
    ----------
    folder : path
    """

    def __init__(self, folder):
        self.folder = Path(folder).expanduser().absolute()
        try:
            (self.folder / _CHUNKS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageWriteError(
                f"output={str(folder)!r} cannot be made: {error.strerror or error}; name a folder that you may write"
            ) from error
        self._lock = FolderLock(self.folder, what="the results")

    def close(self):
        """Give the folder free."""
        self._lock.release()

    def begin(self, configuration, *, resume, overwrite):
        """Go on with the run that the folder holds, or begin one.

        Parameters
        ----------
        configuration : dict
            What the results depend on: texts by name.
        resume : bool
            Whether to go on; else what is there is removed.
        overwrite : bool
            Whether finished results may be removed.

        Raises
        ------
        InputError
            If the folder holds a run of another configuration.
        ImageWriteError
            If it holds results, which may not be replaced.
        """
        self._clean()
        earlier = self._read(_CONFIGURATION)
        finished = (self.folder / RESULTS).exists()
        if earlier is not None and resume:
            self._compare(earlier, configuration)
        elif finished and not overwrite:
            raise ImageWriteError(
                f"output={str(self.folder)!r} holds results; give overwrite=True (--overwrite) to replace them, or "
                "name another folder"
            )
        else:
            self._forget()
            self._write(_CONFIGURATION, configuration)

    def done(self, chunk):
        """The record of a chunk whose files are as they were written; else `None`."""
        record = self._read(_chunk_name(chunk))
        if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
            return None
        return record if all(self._is_whole(name, *sums) for name, sums in record["files"].items()) else None

    def finish(self, chunk, record):
        """Keep the record of a chunk; it is done from now on."""
        self._write(_chunk_name(chunk), record)

    # ---- files -------------------------------------------------------------------------------------------------------

    def _is_whole(self, name, size, digest):
        path = self.folder / name
        try:
            if path.stat().st_size != size:
                return False
            with open(path, "rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest() == digest
        except OSError:
            return False

    def _read(self, name):
        try:
            return json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            return None

    def _write(self, name, content):
        with atomic_path(self.folder / name, overwrite=True) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")

    def _clean(self):
        """Remove what a process left half written when it was killed; it holds the lock no longer."""
        for folder in (self.folder, self.folder / _CHUNKS):
            for path in folder.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    def _forget(self):
        """Remove an earlier run's files, and no others."""
        names = {RESULTS, _CONFIGURATION}
        for path in (self.folder / _CHUNKS).glob("*.json"):
            record = self._read(f"{_CHUNKS}/{path.name}")
            names |= set(record.get("files", {})) if isinstance(record, dict) else set()
            names.add(f"{_CHUNKS}/{path.name}")
        names |= {path.name for path in self.folder.glob("stamps-[0-9][0-9][0-9][0-9][0-9].fits")}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).unlink()

    def _compare(self, earlier, configuration):
        keys = [key for key in (*configuration, *earlier) if earlier.get(key) != configuration.get(key)]
        keys = list(dict.fromkeys(keys))
        if not keys:
            return
        changes = [f"{key} (was {_short(earlier.get(key))}, is {_short(configuration.get(key))})" for key in keys]
        more = f" and {len(changes) - _MOST_SHOWN} more" if len(changes) > _MOST_SHOWN else ""
        raise InputError(
            f"output={str(self.folder)!r} holds a run of another configuration: {', '.join(changes[:_MOST_SHOWN])}"
            f"{more}; give resume=False (--restart) to begin anew, or name another folder"
        )


def _chunk_name(chunk):
    return f"{_CHUNKS}/{chunk:05d}.json"


def _short(value):
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- what results depend on --------------------------------------------------------------------------------------


def described(value):
    """A text that is the same in every process, and another for another value.

    Parameters
    ----------
    value : object
        Numbers, texts, arrays, tables, images, paths, and objects made of such.

    Returns
    -------
    str
    """
    return _described(value, ())


def _described(value, seen):
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value)
    if any(value is other for other in seen):
        return "..."
    seen = (*seen, value)
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, os.PathLike):
        return repr(str(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_described(item, seen)}" for key, item in sorted(value.items(), key=str)) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        items = [_described(item, seen) for item in value]
        return "[" + ", ".join(sorted(items) if isinstance(value, set | frozenset) else items) + "]"
    if isinstance(value, np.ndarray):
        unit = f" {value.unit}" if hasattr(value, "unit") else ""
        array = np.ascontiguousarray(np.asarray(value))
        if array.ndim == 0:
            return f"{array.item()}{unit}"
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        return f"array{array.shape} {array.dtype} {digest}{unit}"
    if hasattr(value, "to_header_string"):
        return hashlib.sha256(value.to_header_string().encode()).hexdigest()[:16]
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    names = [*getattr(value, "__dict__", {}), *getattr(type(value), "__slots__", ())]
    own = {name: getattr(value, name, None) for name in names if not str(name).startswith("_")}
    if hasattr(value, "unit") and not own:
        return str(value)
    if hasattr(value, "data") and hasattr(value, "mask"):  # an image keeps everything under private names
        own = {name: getattr(value, name, None) for name in ("data", "mask", "unit", "psf")}
        own["uncertainty"] = getattr(getattr(value, "uncertainty", None), "array", None)
    return f"{type(value).__module__}.{type(value).__qualname__}{_described(own, seen) if own else ''}"
