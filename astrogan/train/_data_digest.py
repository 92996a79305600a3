"""A digest of the files that a run is trained on, so that it does not go on with others."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Mapping

import numpy as np

from astrogan.exceptions import InputError
from astrogan.train.sources import FitsFolder
from astrogan.train.sources.fits import _files as _fits_files
from astrogan.train.sources.spec import _located
from astrogan.train.sources.stamps import _in_folder

__all__ = ["DIGEST_NAME", "check_data", "keep_digest"]

DIGEST_NAME = "data.sha256"
_PATTERN = inspect.signature(FitsFolder).parameters["pattern"].default
_LOOKED_INTO = 256  # files
_PLACES, _BYTES = 4, 4096  # in each of them


def keep_digest(run, recipe, data):
    """Write the digest of a new run's files; without files there is none."""
    digest = _digest(recipe, data)
    if digest:
        run.write_text(DIGEST_NAME, f"{digest}\n")


def check_data(folder, recipe, data):
    """Refuse to go on with a run whose files were others; one that has no digest is older than they are.

    Parameters
    ----------
    folder : `pathlib.Path`
        Of the run.
    recipe : `~astrogan.train.recipe.Recipe`
        The run's.
    data : `pathlib.Path` or None
        The folder of the data as it is given now.

    Raises
    ------
    InputError
        If they differ.
    """
    path = folder / DIGEST_NAME
    if path.is_file() and path.read_text(encoding="utf-8").split()[:1] != [_digest(recipe, data)]:
        raise InputError(
            f"data={str(data)!r} (--data) holds other files than those that the run in {str(folder)!r} began with; "
            "give the folder that it began with, or start a new run in another folder"
        )


def _digest(recipe, data):
    """Of names, sizes and a few bytes: files that were made anew have the same size, and all of them take too long."""
    files = [file for spec in recipe.data for file in _files_of(spec, data)]
    if not files:
        return None
    looked_into = set(np.linspace(0, len(files) - 1, min(len(files), _LOOKED_INTO)).astype(int).tolist())
    digest = hashlib.sha256()
    for number, file in enumerate(files):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode(errors="surrogateescape"))
        if number in looked_into:
            digest.update(_samples(file, size))
    return digest.hexdigest()


def _samples(file, size):
    """Bytes from the middle of each quarter; none of a file that cannot be read, which training leaves out."""
    parts = []
    with contextlib.suppress(OSError), open(file, "rb", buffering=0) as stream:
        for place in range(_PLACES):
            stream.seek(max(0, (2 * place + 1) * size // (2 * _PLACES) - _BYTES // 2))
            parts.append(stream.read(_BYTES))
    return b"".join(parts)


def _files_of(spec, data):
    """The files that a source reads, in its order."""
    key = "paths" if "paths" in spec else "path"
    if key not in spec:
        return []
    located = _located(spec[key], data, key)
    if spec["kind"] == "fits":
        return _fits_files(located, spec.get("pattern", _PATTERN))
    if spec["kind"] == "stamps" and located.is_dir():
        return [file for _, file, *_ in _in_folder(located)]
    if isinstance(located, Mapping):
        located = list(located.values())
    return located if isinstance(located, list) else [located]
