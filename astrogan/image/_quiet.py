"""Other libraries without their warnings, on any thread."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings

__all__ = ["quiet"]

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
