"""Restore, degrade, deblend and translate astronomical images.

Everything here is imported on first use, so ``import astrogan`` costs almost nothing and loads neither torch nor
photutils nor matplotlib.
"""

from __future__ import annotations

import importlib

_LAZY = {
    "DeblendResult": "astrogan.operators.deblender",
    "Deblender": "astrogan.operators.deblender",
    "Degrader": "astrogan.operators.degrader",
    "Diagnostics": "astrogan.operators.diagnostics",
    "Restorer": "astrogan.operators.restorer",
    "Translator": "astrogan.operators.translator",
    "list_backends": "astrogan.plugins",
    "read_image": "astrogan.image.read",
    "write_image": "astrogan.image.write",
}
_MODULES = (
    "bench",
    "catalogs",
    "datasets",
    "exceptions",
    "metrics",
    "mosaic",
    "plot",
    "plugins",
    "simulate",
    "testing",
    "train",
    "weights",
)

__all__ = [
    "DeblendResult",
    "Deblender",
    "Degrader",
    "Diagnostics",
    "Restorer",
    "Translator",
    "__version__",
    "list_backends",
    "read_image",
    "write_image",
]


def __getattr__(name):
    if name == "__version__":
        value = _read_version()
    elif name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"astrogan.{name}")
    else:
        raise AttributeError(f"module 'astrogan' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted((*__all__, *_MODULES))


# Not called _version: that would be overwritten by the module of this name once it is imported.
def _read_version():
    try:
        from astrogan._version import version
    except ImportError:  # a source tree that was never built or installed
        return "0.1.dev0"
    return version
