"""Other libraries without their warnings, on any thread."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings

__all__ = ["quiet", "recorded"]

# Filters of warnings belong to the whole process. Of two threads that change and restore them at the same time, the
# later one restores the other's: all warnings would be lost from then on. One lock for all, so that none is left out.
_FILTERS = threading.RLock()


@contextlib.contextmanager
def quiet():
    """No warnings, and no notes in astropy's log: it speaks of every oddity in a header, and there are many."""

    def only_warnings(record):
        return record.levelno > logging.INFO

    log = logging.getLogger("astropy")
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.addFilter(only_warnings)
        try:
            yield
        finally:
            log.removeFilter(only_warnings)


class _Listening:
    """Who listens to warnings at the moment; one for the process, as the filters are."""

    threads = 0
    here = threading.local()
    filters = None
    otherwise = None


def _tell(message, category, filename, lineno, file=None, line=None):
    """In place of `warnings.showwarning`: to the list of the thread that warns, where it has one."""
    heard = getattr(_Listening.here, "heard", None)
    if heard is None:
        _Listening.otherwise(message, category, filename, lineno, file, line)
    else:
        heard.append(warnings.WarningMessage(message, category, filename, lineno, file, line))


@contextlib.contextmanager
def recorded():
    """The warnings of this thread, in a list: `warnings.catch_warnings` would hand out those of all threads.

    Yields
    ------
    list of `warnings.WarningMessage`
    """
    before, heard = getattr(_Listening.here, "heard", None), []
    with _FILTERS:
        if not _Listening.threads:
            _Listening.filters = warnings.catch_warnings()
            _Listening.filters.__enter__()
            warnings.simplefilter("always")
            _Listening.otherwise, warnings.showwarning = warnings.showwarning, _tell
        _Listening.threads += 1
    _Listening.here.heard = heard
    try:
        yield heard
    finally:
        _Listening.here.heard = before
        with _FILTERS:
            _Listening.threads -= 1
            if not _Listening.threads:
                _Listening.filters.__exit__(None, None, None)
