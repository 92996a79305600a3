"""Devices for networks."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from astrogan.exceptions import InputError, MissingDependencyError

__all__ = ["compiled", "computes_bfloat16", "device_of", "exact_matmul", "processor_flags"]


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


@lru_cache(maxsize=1)
def processor_flags():
    """What the processor can do, as Linux names it; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(word for line in lines if line.startswith("flags") for word in line.partition(":")[2].split())


def computes_bfloat16(device):
    """Whether a device has units for matrix products in bfloat16, so that it gains much and never loses."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and not processor_flags().isdisjoint(("amx_bf16", "avx512_bf16"))


def compiled(network, example):
    """A network through `torch.compile`, tried on an example, so that what is missing is found here.

    Parameters
    ----------
    network : `torch.nn.Module`
    example : tuple of `torch.Tensor`
        Arguments of its ``forward``, of no particular size.

    Returns
    -------
    callable

    Raises
    ------
    MissingDependencyError
        If there is no compiler that works.
    """
    import torch

    fused = torch.compile(network, dynamic=True)
    try:
        with torch.inference_mode():
            fused(*example)
    except Exception as error:
        raise MissingDependencyError(
            f"compile=True cannot be had here ({type(error).__name__}: {str(error).strip().splitlines()[0][:200]}); "
            "torch.compile needs a C++ compiler (e.g. apt install g++), on a GPU Triton; or leave compile out"
        ) from error
    return fused


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
