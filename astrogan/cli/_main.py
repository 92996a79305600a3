"""The command as a whole: its groups, its exit status, and what happens when it is stopped."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from contextlib import contextmanager

import click

from astrogan._text import visible
from astrogan.cli._bench import bench
from astrogan.cli._deblend import deblend
from astrogan.cli._degrade import degrade
from astrogan.cli._demo import demo
from astrogan.cli._evaluate import evaluate
from astrogan.cli._fetch import fetch
from astrogan.cli._plugins import backends, plugin
from astrogan.cli._restore import restore
from astrogan.cli._simulate import simulate
from astrogan.cli._train import train
from astrogan.cli._translate import translate
from astrogan.cli._weights import weights
from astrogan.exceptions import AstroganError, AstroganWarning

__all__ = ["cli", "main"]


def main(argv=None):
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : list of str, optional
        Default: ``sys.argv[1:]``.

    Returns
    -------
    int
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in argv
    with warnings.catch_warnings(), _terminable():
        warnings.simplefilter("default", AstroganWarning)
        warnings.showwarning = _warnings_once()
        try:
            cli.main(args=argv, prog_name="astrogan", standalone_mode=False)
        except click.exceptions.Abort:
            return _fail("interrupted", 130)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except KeyboardInterrupt:
            return _fail("interrupted", 130)
        except _Terminated:
            return _fail("terminated", 143)
        except BrokenPipeError:
            sys.stderr.close()
            return 1
        except AstroganError as error:
            if debug:
                raise
            return _fail(f"error: {error}", 1)
        except Exception as error:
            if debug:
                raise
            return _fail(f"error: {_explained(error)} (traceback: astrogan --debug COMMAND ...)", 1)
    return 0


class _Terminated(BaseException):
    """SIGTERM as an exception, so that temporary files go; no ``Exception``, which a backend might take for its own."""


@contextmanager
def _terminable():
    """While a command runs, SIGTERM ends it as Ctrl-C does; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def end(number, _):
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != process:  # a worker that was forked: it has nothing to clean up
            os.kill(os.getpid(), number)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _explained(error):
    """One line for an error that is not astrogan's own."""
    reason = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "can't allocate memory" in reason:
        remedy = "use smaller tiles (--tile), fewer threads (--workers) or a part of the image"
        return f"out of memory: {reason[:200] or 'nothing more can be allocated'}; {remedy}"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{str(error.filename)!r}: {error.strerror}"
    return f"{type(error).__name__}: {reason}"


def _fail(message, status):
    click.echo(f"astrogan: {visible(message)}", err=True)
    return status


class _Visible(logging.Formatter):
    """Log messages quote what other libraries say of a file, which may be a quote of the file."""

    def format(self, record):
        return visible(super().format(record))


def _warnings_once():
    """A ``showwarning`` that says each thing once, though a command may read its input twice."""
    said = set()

    def show(message, category, filename, lineno, file=None, line=None):
        if str(message) not in said:
            said.add(str(message))
            click.echo(f"astrogan: warning: {visible(str(message))}", err=True)

    return show


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks and log messages.")
@click.version_option(package_name="astrogan", message="%(prog)s %(version)s")
def cli(debug):
    """Restore, degrade, deblend and translate astronomical images."""
    if debug:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Visible("%(name)s: %(message)s"))
        logging.basicConfig(level=logging.DEBUG, handlers=[handler])
        logging.getLogger("matplotlib").setLevel(logging.WARNING)


_COMMANDS = (
    restore,
    degrade,
    deblend,
    translate,
    backends,
    plugin,
    train,
    weights,
    simulate,
    evaluate,
    bench,
    fetch,
    demo,
)
for _command in _COMMANDS:
    cli.add_command(_command)
