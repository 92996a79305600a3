"""Devices for networks."""

from __future__ import annotations

import threading
from contextlib import contextmanager

from astrogan.exceptions import InputError

__all__ = ["device_of", "exact_matmul"]


def device_of(name):
    """The `torch.device` that a name stands for; "auto" is CUDA where there is one."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device={name!r} must be 'auto', 'cpu', 'cuda' or 'cuda:<number>'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={name!r} is asked for and torch finds no CUDA; use device='auto'")
    return device


_LOCK = threading.Lock()
_INSIDE: list[tuple[str, str]] = []


@contextmanager
def exact_matmul(device):
    """Convolutions without TF32 inside, so that a GPU gives what the CPU gives; the last thread out restores it."""
    import torch

    if device.type != "cuda":
        yield
        return
    parts = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    with _LOCK:
        _INSIDE.append(_INSIDE[0] if _INSIDE else tuple(part.fp32_precision for part in parts))
        for part in parts:
            part.fp32_precision = "ieee"
    try:
        yield
    finally:
        with _LOCK:
            before = _INSIDE.pop()
            if not _INSIDE:
                for part, value in zip(parts, before, strict=True):
                    part.fp32_precision = value
