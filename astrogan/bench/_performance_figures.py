"""What the parts of `astrogan.bench.performance` give back: a figure beside its peer's, and whether a target is met."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Figure", "Job", "Target", "absent", "faster", "installed", "seconds_row", "smaller"]


@dataclass(frozen=True)
class Target:
    """A bound on a ratio, or on our own figure.

    Parameters
    ----------
    bound : float
    least : bool
        Whether it is a lower bound.
    of : {'ratio', 'ours'}
        What is held to it.
    needs : str
        What the machine must have for it to count, as in ``machine_has``; empty: nothing.
    """

    bound: float
    least: bool = True
    of: str = "ratio"
    needs: str = ""

    def __str__(self):
        what = "" if self.of == "ratio" else " (ours)"
        return f"{'>=' if self.least else '<='} {self.bound:g}{what}"

    def verdict(self, ratio, ours) -> str:
        """``yes``, ``no``, or why it does not apply."""
        if self.needs and not machine_has(self.needs):
            return f"not applicable: no {self.needs.upper()}"
        value = ratio if self.of == "ratio" else ours
        if not np.isfinite(value):
            return "not measured"
        return "yes" if (value >= self.bound if self.least else value <= self.bound) else "no"


@dataclass(frozen=True)
class Figure:
    """A row of the table.

    Parameters
    ----------
    part, case : str
    unit : str
        Of ``ours`` and ``peer``.
    ours, peer : float
        NaN where there is none.
    ratio : float
        How many times better, or, where less than one is wanted (``notes`` or the target say so), our figure over the
        peer's.
    target : Target, optional
    notes : str
    met : str
        Default: from the target; a dash without one.
    """

    part: str
    case: str
    unit: str
    ours: float
    peer: float
    ratio: float
    target: Target | None = None
    notes: str = ""
    met: str = ""

    def row(self):
        """The figure as a row of the table."""
        verdict = self.met or ("-" if self.target is None else self.target.verdict(self.ratio, self.ours))
        return {
            "part": self.part,
            "case": self.case,
            "unit": self.unit,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ratio,
            "target": "-" if self.target is None else str(self.target),
            "met": verdict,
            "notes": self.notes,
        }


@dataclass
class Job:
    """What all parts are told.

    Parameters
    ----------
    full : bool
        Whether to measure the large sizes.
    repeats : int
        Runs of each function that count.
    clock : {'wall', 'cpu'}
    scale : float
        Factor on the sizes, for tests.
    seed : int
    say : callable
        Called with a line of text as the work goes on.
    """

    full: bool = False
    repeats: int = 3
    clock: str = "wall"
    scale: float = 1.0
    seed: int = 0
    say: Callable = field(default=lambda text: None)

    def size(self, pixels, *, multiple=32):
        """An edge in pixels, scaled."""
        return max(multiple, round(pixels * self.scale / multiple) * multiple)


def faster(part, case, ours, peer, bound=None, *, unit="ms", factor=1e3, needs="", notes=""):
    """A `Figure` of two times in seconds; the ratio says how many times faster ours is."""
    target = None if bound is None else Target(bound, needs=needs)
    return Figure(part, case, unit, factor * ours, factor * peer, peer / ours, target, notes)


def seconds_row(part, case, ours, peer, bound, *, notes=""):
    """A `Figure` of two times in seconds; the ratio is ours over the peer's and must not be above ``bound``."""
    return Figure(part, case, "ms", 1e3 * ours, 1e3 * peer, ours / peer, Target(bound, least=False), notes)


def smaller(part, case, ours, peer, bound=None, *, unit, notes=""):
    """A `Figure` of which little is wanted, as of memory; the bound is on ours, the ratio is ours over the peer's."""
    target = None if bound is None else Target(bound, least=False, of="ours")
    return Figure(part, case, unit, ours, peer, ours / peer, target, notes)


def absent(part, case, package, target=None):
    """The row of a peer that is not installed."""
    nan = float("nan")
    return Figure(part, case, "", nan, nan, nan, target, f"{package} is not installed", "not installed")


def installed(package) -> bool:
    """Whether a package can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def machine_has(name) -> bool:
    """Whether the machine has ``amx`` (bfloat16 tiles), ``avx512_bf16``, or ``cuda``."""
    if name == "cuda":
        import torch

        return torch.cuda.is_available()
    from astrogan.backends.gan._device import processor_flags

    return {"amx": "amx_bf16"}.get(name, name) in processor_flags()
