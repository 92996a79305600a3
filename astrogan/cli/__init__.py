"""The ``astrogan`` command: the operators in the words of `astrogan`'s Python interface.

Exit status: 0 if all went well, 1 if data or files are at fault, 2 if the command line is, 130 if interrupted, 143 if
terminated.
Tracebacks are for ``--debug``. Nothing is overwritten without ``--overwrite``. Heavy imports wait until a command
runs, so ``astrogan --help`` answers at once.
"""

from astrogan.cli._main import cli, main

__all__ = ["cli", "main"]
