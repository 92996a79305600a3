"""One process at a time in a folder, without a lock that outlives its holder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
from pathlib import Path

from astrogan.exceptions import ImageWriteError, InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["LOCK_NAME", "FolderLock"]

LOCK_NAME = "run.lock"
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


class FolderLock:
    """Holds a lock file in a folder, ``run.lock`` where no other name is given; in the file it says who it is.

    The kernel's lock on the file decides (``flock``): it goes with the process, however that ends. Where the system or
    the file system has none, what the file says decides: a process that is gone from this machine holds nothing.
    """

    def __init__(self, folder, name=LOCK_NAME, *, what="the run"):
        self._path, self._what = Path(folder) / name, what
        self._pid = os.getpid()
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ImageWriteError(
                f"{str(self._path)!r} could not be opened: {error.strerror or error}; name a folder that you may write"
            ) from error
        try:
            self._acquire()
        except BaseException:
            os.close(self._file)
            self._file = None
            raise

    def _acquire(self):
        if not self._flock():
            holder = self._holder()
            if holder and _is_alive(holder):
                raise InputError(self._held(holder))
        self._write(_identity())

    def _flock(self):
        """Whether the kernel's lock is ours; False where there is no such thing."""
        if fcntl is None:
            return False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(self._held(self._holder())) from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise
        return True

    def _holder(self):
        """What the file says about its holder; empty where it says nothing that can be read."""
        try:
            holder = json.loads(os.pread(self._file, 4096, 0) if hasattr(os, "pread") else self._path.read_bytes())
        except (ValueError, OSError):
            return {}
        return holder if isinstance(holder, dict) else {}

    def _held(self, holder):
        if not holder:
            who, remedy = "another process", "Wait for it to end"
        elif holder.get("host") == platform.node() and not _is_alive(holder):
            who = f"a process that process {holder.get('pid')} started before it ended"
            remedy = "Wait for it to end, or end it"
        else:
            who = f"process {holder.get('pid')} on {holder.get('host')}"
            remedy = "Wait for it to end, or end it"
        return (
            f"{self._what} in {str(self._path.parent)!r} is held by {who}. {remedy}, or name another folder; "
            f"if it no longer runs anywhere, delete {str(self._path)!r}"
        )

    def _write(self, record):
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        if record:
            os.write(self._file, json.dumps(record).encode() + b"\n")
            os.fsync(self._file)

    def release(self):
        """Give the folder free; only the process that took it does, not one that it forked."""
        if self._file is None or os.getpid() != self._pid:
            return
        with contextlib.suppress(OSError):
            self._write(None)
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)  # for forked processes, too, which share the open file
        os.close(self._file)
        self._file = None


def _identity():
    pid = os.getpid()
    return {"pid": pid, "host": platform.node(), "boot": _boot(), "started": _started(pid)}


def _boot():
    """What tells this boot of the machine from others; `None` where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _started(pid):
    """When a process began, in ticks since boot, so that a pid used again is told apart; `None` where unknown."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _is_alive(holder):
    """Whether the process of a record may still run. One on another machine may; so may one that cannot be asked."""
    pid = holder.get("pid")
    if holder.get("host") != platform.node() or not isinstance(pid, int) or pid <= 0 or os.name == "nt":
        return True
    if holder.get("boot") != _boot():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return holder.get("started") == _started(pid)
