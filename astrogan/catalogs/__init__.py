"""Catalogues and many images at once: a stamp for every row, in files of many, flagged, measured and resumable.

The names are loaded when they are first used, so that the command line can describe its options without numpy.
"""

__all__ = ["Results", "RowFlag", "process_catalog", "process_images"]

_HOMES = {"Results": "_results", "RowFlag": "_flags", "process_catalog": "_process", "process_images": "_process"}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
