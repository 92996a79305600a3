"""Several processes that train together: the first holds the run directory, the others look on."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from astrogan.exceptions import CheckpointError
from astrogan.train.run_directory import RunDirectory, _fault

__all__ = ["Follower", "hold", "leads"]


def leads():
    """Whether this process is the first of those that train together, or the only one.

    Before Lightning connects them only the environment tells: torchrun, SLURM and Lightning itself number processes,
    over all machines or on one, and machines.
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        rank = os.environ.get(name, "")
        if rank.isdigit():
            if int(rank) > 0:
                return False
            if name != "LOCAL_RANK":
                return True
            break
    return not any(os.environ.get(name, "0") not in ("", "0") for name in ("NODE_RANK", "GROUP_RANK"))


@contextlib.contextmanager
def hold(path, *, resume):
    """The run directory, new or to go on with, in the first process; in the others, a view of it."""
    if not leads():
        yield Follower(path)
        return
    with RunDirectory.open(path) if resume else RunDirectory.create(path) as run:
        yield run


class Follower(RunDirectory):
    """What a process that does not lead sees of a run directory: it holds no lock and writes nothing.

    Parameters
    ----------
    folder : path
        The folder, on a file system that all processes share.
    """

    def __init__(self, folder):
        self.folder = Path(folder).expanduser()

    def close(self):
        """Nothing is held."""

    def write_text(self, name, text):
        """The first process writes."""

    def append_metrics(self, row):
        """The first process writes."""

    def save_checkpoint(self, step, writer):
        """Take part in what all processes do to save; the first one's file is the one that is written."""
        writer(self.folder / "checkpoints" / "unused.ckpt")

    def resume(self):
        """The checkpoint that the first process goes on from: the newest that is whole."""
        found = self._checkpoints()
        for checkpoint in reversed(found):
            if _fault(checkpoint.path) is None:
                return checkpoint
        if found:
            raise CheckpointError(f"no checkpoint in {str(self.folder)!r} is whole; start anew in another folder")
        return None
