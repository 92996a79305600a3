"""The folder of a training run: one process at a time, and nothing in it that a kill or a full disk can leave half."""

from __future__ import annotations

import csv
import hashlib
import io
import numbers
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from astrogan.exceptions import AstroganWarning, CheckpointError, ImageWriteError, InputError
from astrogan.image._lock import LOCK_NAME, FolderLock
from astrogan.image.write import atomic_path

__all__ = ["Checkpoint", "RunDirectory"]

_METRICS = "metrics.csv"
_CHECKPOINTS = "checkpoints"
_CHECKPOINT = re.compile(r"step-(\d{8,})\.ckpt")
# What `atomic_path` calls a file that it has not finished.
_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\..+")


class Checkpoint(NamedTuple):
    """A checkpoint whose bytes are those that were written.

    Parameters
    ----------
    step : int
        Training steps done.
    path : `pathlib.Path`
        The file.
    """

    step: int
    path: Path


class RunDirectory:
    """A run's config, metrics, checkpoints and pictures, held by one process from `create` or `open` until `close`.

    Parameters
    ----------
    folder : path
        An existing folder; use `create` or `open` instead of the class itself.
    keep : int, optional
        How many checkpoints stay; older ones are deleted once a newer one is on the disk.

    Attributes
    ----------
    folder : `pathlib.Path`
        Where it is.

    Raises
    ------
    InputError
        If another process holds the folder, or ``keep`` is not a positive integer.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from astrogan.train.run_directory import RunDirectory
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RunDirectory.create(Path(folder) / "run") as run:
    ...         run.append_metrics({"step": 1, "loss": 0.5})
    ...         checkpoint = run.save_checkpoint(1, lambda path: path.write_bytes(b"weights") and None)
    ...     with RunDirectory.open(Path(folder) / "run") as run:
    ...         run.resume().step, run.read_metrics()
    (1, [{'step': 1.0, 'loss': 0.5}])
    """

    def __init__(self, folder, *, keep=2):
        if isinstance(keep, bool) or not isinstance(keep, numbers.Integral) or keep < 1:
            raise InputError(f"keep={keep!r} must be a positive integer; 2 lets a damaged checkpoint be survived")
        self.folder = Path(folder)
        self._keep = int(keep)
        self._lock = FolderLock(self.folder)
        self._columns = None

    @classmethod
    def create(cls, path, *, keep=2):
        """Make a new folder and hold it.

        Parameters
        ----------
        path : path
            The folder to be; those above it are made, too.
        keep : int, optional
            How many checkpoints stay.

        Returns
        -------
        RunDirectory

        Raises
        ------
        InputError
            If ``path`` exists.
        ImageWriteError
            If the system refuses.
        """
        folder = Path(path).expanduser()
        taken = f"path={str(path)!r} exists; resume the run in it (--resume), or name another folder"
        if folder.exists():
            raise InputError(taken)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except OSError as error:
            if folder.is_dir():  # made by another process just now
                raise InputError(taken) from error
            raise ImageWriteError(
                f"path={str(path)!r} could not be created: {error.strerror or error}; name a folder that you may write"
            ) from error
        return cls(folder, keep=keep)

    @classmethod
    def open(cls, path, *, keep=2):
        """Hold a folder that `create` made, to go on with its run.

        What a killed process left unfinished is removed: temporary files, and a last line of metrics that is not whole.

        Parameters
        ----------
        path : path
            The folder.
        keep : int, optional
            How many checkpoints stay.

        Returns
        -------
        RunDirectory

        Raises
        ------
        InputError
            If there is no such run, or another process holds it.
        """
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise InputError(f"path={str(path)!r} is no folder; start the run first, or name the folder of one")
        if not (folder / LOCK_NAME).exists() and any(folder.iterdir()):
            raise InputError(f"path={str(path)!r} is not the folder of a run (it has no {LOCK_NAME}); name one")
        run = cls(folder, keep=keep)
        try:
            run._remove_unfinished()
            run._mend_metrics()
        except BaseException:
            run.close()
            raise
        return run

    def close(self):
        """Let go of the folder; calling it again does nothing."""
        self._lock.release()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __repr__(self):
        return f"RunDirectory({str(self.folder)!r})"

    def path(self, name):
        """Where a file of the run lies; its folder is made.

        Parameters
        ----------
        name : str
            Relative to the run's folder, e.g. ``"samples/step-100.png"``.

        Returns
        -------
        `pathlib.Path`

        Raises
        ------
        InputError
            If the name leads out of the folder.
        """
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute():
            raise InputError(f"name={name!r} must be a path inside the run's folder, e.g. 'samples/step-100.png'")
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_text(self, name, text):
        """Write a text file, whole or not at all; one that is there is replaced.

        Parameters
        ----------
        name : str
            Relative to the run's folder.
        text : str
            Written as UTF-8.

        Returns
        -------
        `pathlib.Path`
            The file.
        """
        path = self.path(name)
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def save_checkpoint(self, step, writer: Callable[[Path], Any]):
        """Save a checkpoint with its SHA-256 beside it, then delete the oldest beyond ``keep``.

        Parameters
        ----------
        step : int
            Training steps done.
        writer : callable
            Called with a temporary path, to which it writes the one file.

        Returns
        -------
        `Checkpoint`

        Raises
        ------
        InputError
            If ``step`` is not a non-negative integer, or ``writer`` wrote no file.
        ImageWriteError
            If the system refuses to write (the checkpoints before stay); whatever ``writer`` raises goes through.
        """
        path = self.path(f"{_CHECKPOINTS}/step-{_step(step):08d}.ckpt")
        with atomic_path(path, overwrite=True) as temporary:
            writer(temporary)
            if not temporary.is_file():
                raise InputError(f"writer={writer!r} wrote nothing to the path that it was called with")
            # The checksum goes first: a kill between the two leaves one without a file, which nobody looks at.
            self.write_text(f"{_CHECKPOINTS}/{_sidecar(path).name}", f"{_sha256(temporary)}  {path.name}\n")
        for old in self._checkpoints()[: -self._keep]:
            old.path.unlink(missing_ok=True)
            _sidecar(old.path).unlink(missing_ok=True)
        return Checkpoint(int(step), path)

    def latest_checkpoint(self):
        """The newest checkpoint that is as it was written.

        Returns
        -------
        `Checkpoint` or None
            `None` where none was ever saved.

        Raises
        ------
        CheckpointError
            If there are checkpoints and all are damaged.

        Warns
        -----
        AstroganWarning
            If a newer one is damaged; it is renamed to ``<name>.damaged``, so that it does not count as one to keep.
        """
        damaged, found = [], None
        for checkpoint in reversed(self._checkpoints()):
            fault = _fault(checkpoint.path)
            if fault is None:
                found = checkpoint
                break
            damaged.append((checkpoint, fault))
        if damaged and found is None:
            listed = "; ".join(f"{checkpoint.path.name}: {fault}" for checkpoint, fault in damaged)
            raise CheckpointError(
                f"no checkpoint in {str(self.folder)!r} is whole ({listed}); start the run anew in another folder"
            )
        for checkpoint, fault in damaged:
            checkpoint.path.replace(checkpoint.path.with_suffix(".ckpt.damaged"))
            _sidecar(checkpoint.path).unlink(missing_ok=True)
            warnings.warn(
                f"checkpoint {str(checkpoint.path)!r} is damaged ({fault}); the run goes on from step {found.step}",
                AstroganWarning,
                stacklevel=2,
            )
        return found

    def resume(self):
        """The checkpoint to go on from, after cutting off the metrics of the steps that will be done again.

        Returns
        -------
        `Checkpoint` or None
            `None`: nothing was saved, start from the beginning.

        Raises
        ------
        CheckpointError
            As `latest_checkpoint`.
        """
        checkpoint = self.latest_checkpoint()
        self.truncate_metrics(-1 if checkpoint is None else checkpoint.step)
        return checkpoint

    def _checkpoints(self):
        """All checkpoints by step, the newest last."""
        folder = self.folder / _CHECKPOINTS
        names = [(_CHECKPOINT.fullmatch(path.name), path) for path in folder.glob("step-*.ckpt")]
        return sorted(Checkpoint(int(match[1]), path) for match, path in names if match)

    # ---- metrics -----------------------------------------------------------------------------------------------------

    def append_metrics(self, row: Mapping[str, Any]):
        """Add a line to ``metrics.csv``.

        Parameters
        ----------
        row : mapping
            Numbers and short texts by column, ``step`` among them. A column may be left out, and a new one may come
            at any time: the lines before have nothing in it.

        Raises
        ------
        InputError
            If ``step`` is missing or a value spans lines.
        ImageWriteError
            If the system refuses to write; the lines before stay.
        """
        if "step" not in row:
            raise InputError(f"row={dict(row)!r} has no 'step'; add the training step that it belongs to")
        _step(row["step"])
        if any("\n" in str(entry) or "\r" in str(entry) for pair in row.items() for entry in pair):
            raise InputError(f"row={dict(row)!r} holds a line break; one row is one line")
        columns = self._known_columns()
        new = [name for name in row if name not in columns]
        if new:
            self._write_metrics([*columns, *new], self._rows())
        _append(self.folder / _METRICS, _csv_lines([[row.get(name) for name in self._columns]]).encode())

    def read_metrics(self):
        """The lines of ``metrics.csv``.

        Returns
        -------
        list of dict
            A dict a line: float where the text is a number, str where it is not, and no entry where it is empty.
        """
        columns = self._known_columns()
        return [
            {name: _number(text) for name, text in zip(columns, row, strict=True) if text != ""} for row in self._rows()
        ]

    def truncate_metrics(self, step):
        """Cut off the lines that belong to steps after ``step``.

        Parameters
        ----------
        step : int
            The last one that stays; -1 cuts all.
        """
        columns = self._known_columns()
        rows = self._rows()
        kept = [row for row in rows if float(row[columns.index("step")]) <= step]
        if len(kept) < len(rows):
            self._write_metrics(columns, kept)

    def _known_columns(self):
        if self._columns is None:
            lines = self._lines()
            self._columns = lines[0] if lines else []
        return self._columns

    def _rows(self):
        return self._lines()[1:]

    def _lines(self):
        """Header and rows as lists of text; what follows the last line break is not whole and left out."""
        path = self.folder / _METRICS
        if not path.exists():
            return []
        whole = path.read_bytes().rpartition(b"\n")[0]
        return list(csv.reader(whole.decode(errors="replace").splitlines()))

    def _mend_metrics(self):
        """Drop a torn last line, and lines that a power cut left as garbage, with all after them."""
        path = self.folder / _METRICS
        if not path.exists():
            return
        lines = self._lines()
        columns = lines[0] if lines else []
        if "step" not in columns:
            path.unlink()
            return
        good = [columns]
        for line in lines[1:]:
            if len(line) != len(columns) or not isinstance(_number(line[columns.index("step")]), float):
                break
            good.append(line)
        if _csv_lines(good).encode() != path.read_bytes():
            self._write_metrics(columns, good[1:])

    def _write_metrics(self, columns, rows):
        rows = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
        self.write_text(_METRICS, _csv_lines([columns, *rows]))
        self._columns = list(columns)

    def _remove_unfinished(self):
        for path in self.folder.rglob(".*"):
            if _UNFINISHED.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


def _step(step):
    if isinstance(step, bool) or not isinstance(step, numbers.Integral) or step < 0:
        raise InputError(f"step={step!r} must be a non-negative integer")
    return int(step)


def _sidecar(path):
    return path.with_name(path.name + ".sha256")


def _sha256(path):
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fault(path):
    """What is wrong with a checkpoint, or `None`."""
    try:
        expected = _sidecar(path).read_text(encoding="utf-8").split()
        actual = _sha256(path)
    except FileNotFoundError:
        return "its .sha256 file is missing"
    except (OSError, UnicodeDecodeError) as error:
        return f"it cannot be read: {error}"
    return None if expected[:1] == [actual] else "its bytes are not those that were written"


def _csv_lines(rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _append(path, line):
    """Add a line by one write: what a kill can leave is one without its end, which `RunDirectory.open` drops."""
    try:
        with open(path, "ab", buffering=0) as stream:
            before = stream.tell()
            if stream.write(line) < len(line):  # the disk is full
                stream.truncate(before)
                raise OSError("no space left")
    except OSError as error:
        raise ImageWriteError(
            f"{str(path)!r} could not be written: {error.strerror or error}; free space, then resume the run"
        ) from error


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text
