"""Writing two files that belong together, so that a kill at any moment leaves a whole pair: the old or the new one."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
from pathlib import Path

from astrogan.exceptions import ImageWriteError


def write_pair(path, card_path, data, card_data, old_sha256, *, overwrite):
    """Write tensors and card; nothing is changed before both are on the disk whole.

    Two names cannot be renamed at once. The old tensors are therefore kept under `previous_path`, which their card
    leads to, until the new card is there: between the two renames the old card and the kept tensors are the pair.
    ``old_sha256`` is that of the old card, None where there is no pair to be kept.
    """
    path, card_path = checked_target(path, overwrite), checked_target(card_path, overwrite)
    token = secrets.token_hex(8)
    temporary, temporary_card = (p.with_name(f".{token}.{p.name[-60:]}") for p in (path, card_path))
    kept = previous_path(path, old_sha256 or token)
    try:
        _write(temporary, data)
        _write(temporary_card, card_data)
        _exchange(path, card_path, temporary, temporary_card, kept, overwrite)
    except ImageWriteError:
        raise
    except OSError as error:
        raise ImageWriteError(
            f"{str(path)!r} could not be written: {error.strerror or error}; what was there before is untouched. "
            "Free space, or name a file in a folder that you may write to"
        ) from error
    finally:
        for leftover in (temporary, temporary_card):
            _remove(leftover)
    _forget(path)


def write_alone(path, data, *, overwrite):
    """Write one file under a temporary name, flush it, and give it its own."""
    path = checked_target(path, overwrite)
    temporary = path.with_name(f".{secrets.token_hex(8)}.{path.name[-60:]}")
    try:
        _write(temporary, data)
        _publish(temporary, path, overwrite)
        _flush_folder(path)
    except ImageWriteError:
        raise
    except OSError as error:
        raise ImageWriteError(
            f"{str(path)!r} could not be written: {error.strerror or error}; free space, or name a file in a folder "
            "that you may write to"
        ) from error
    finally:
        _remove(temporary)


def previous_path(path, sha256):
    """Where the tensors that a card tells of lie while a save takes their place."""
    path = Path(os.path.realpath(path))
    return path.with_name(f".{path.stem}.{sha256[:16]}.previous")


def _exchange(path, card_path, temporary, temporary_card, kept, overwrite):
    """Give both finished files their names, or leave all as it was."""
    # What a killed save has kept is the true pair of the old card, and what lies at ``path`` is not.
    keep = overwrite and path.is_file() and not kept.exists()
    try:
        if keep:
            _keep(path, kept, temporary)
            _flush_folder(path)
        _publish(temporary, path, overwrite)
        _flush_folder(path)
        _publish(temporary_card, card_path, overwrite)
        _flush_folder(path)
    except BaseException:
        if _is_published(temporary, path) and not _is_published(temporary_card, card_path):
            _take_back(path, kept)
        elif keep:
            _remove(kept)
        raise


def checked_target(path, overwrite):
    """The file itself, behind any symbolic link, after the checks that can be made before the work."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ImageWriteError(f"path={str(path)!r} is no regular file; name one")
    if target.exists() and not overwrite:
        raise ImageWriteError(_exists(path))
    if not target.parent.is_dir():
        raise ImageWriteError(f"path={str(path)!r}: there is no folder {str(target.parent)!r}; create it first")
    return target


def _exists(path):
    return f"path={str(path)!r} exists; give overwrite=True (--overwrite) to replace it, or name another file"


def _write(path, data):
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _keep(path, kept, temporary):
    """A second name for the old tensors; a copy where the file system has no hard links."""
    try:
        os.link(path, kept)
    except OSError:
        copy = temporary.with_name(f"{temporary.name}.copy")
        try:
            shutil.copyfile(path, copy)
            os.replace(copy, kept)
        finally:
            _remove(copy)


def _publish(temporary, target, overwrite):
    """Give a finished file its name. A hard link fails where the name is taken, which a rename does not."""
    if overwrite:
        with contextlib.suppress(OSError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)
    except FileExistsError as error:
        raise ImageWriteError(_exists(target)) from error
    except OSError:  # a file system without hard links
        if target.exists():
            raise ImageWriteError(_exists(target)) from None
        os.replace(temporary, target)


def _is_published(temporary, target):
    return not temporary.exists() or (target.exists() and temporary.samefile(target))


def _take_back(path, kept):
    """The card could not be published: the old tensors again, or none."""
    with contextlib.suppress(OSError):
        if kept.exists():
            os.replace(kept, path)
        else:
            path.unlink()


def _forget(path):
    """Remove the tensors that this save has kept, and any save that was killed."""
    name = re.compile(rf"\.{re.escape(path.stem)}\.[0-9a-f]{{16}}\.previous")
    with contextlib.suppress(OSError):
        for file in [file for file in path.parent.iterdir() if name.fullmatch(file.name)]:
            _remove(file)


def _remove(path):
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _flush_folder(path):
    """The names have to reach the disk too. Not every system lets one do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
