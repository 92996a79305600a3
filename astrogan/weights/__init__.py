"""Weights of networks and the cards that say what they are, loaded on first use.

A model is two files: ``NAME.safetensors`` with the tensors and ``NAME.json``, its card, with what was trained on what,
where it holds, how good it is, and the checksums of both. Nothing that can run code is ever read. Importing this
package and listing what is shipped loads neither torch nor numpy.
"""

from __future__ import annotations

import importlib

_WHERE = {
    "blending": ("blend", "blend_card"),
    "card": ("describe", "validate_card"),
    "onnx": ("export_onnx",),
    "store": ("Weights", "list_weights", "load_weights", "read_card", "save_weights"),
}
_LAZY = {name: module for module, names in _WHERE.items() for name in names}

__all__ = sorted(_LAZY)  # noqa: PLE0605


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'astrogan.weights' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"astrogan.weights.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))
