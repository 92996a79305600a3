"""Timing of several functions in turn, which a machine's moods hit alike."""

from __future__ import annotations

import time

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["CLOCKS", "alternate", "best_of"]

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""Seconds on the clock on the wall, or of all cores that this process has used: those are what is left to compare where
others use the machine too, but they give nothing for working on two cores at once."""


def alternate(functions, repeats, *, clock="wall", warm=1):
    """Run functions in turn, several times.

    Parameters
    ----------
    functions : dict
        Callables without arguments, by name.
    repeats : int
        Runs of each that count.
    clock : {'wall', 'cpu'}
        See `CLOCKS`.
    warm : int
        Runs of each before those, for caches and imports.

    Returns
    -------
    dict of `numpy.ndarray`
        Seconds of each run, by name.

    Raises
    ------
    InputError
        If ``repeats`` is below one or there is no such clock.

    Examples
    --------
    >>> from astrogan.bench._timing import alternate
    >>> seconds = alternate({"sum": lambda: sum(range(10)), "list": lambda: list(range(10))}, 3)
    >>> {name: len(runs) for name, runs in seconds.items()}
    {'sum': 3, 'list': 3}
    """
    if clock not in CLOCKS:
        raise InputError(f"clock={clock!r} must be one of {', '.join(CLOCKS)}")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise InputError(f"repeats={repeats!r} must be a positive integer")
    now = CLOCKS[clock]
    seconds = {name: [] for name in functions}
    for repeat in range(warm + repeats):
        for name, function in functions.items():
            start = now()
            function()
            if repeat >= warm:
                seconds[name].append(now() - start)
    return {name: np.array(runs) for name, runs in seconds.items()}


def best_of(functions, repeats, *, clock="wall", warm=1):
    """The shortest run of each function, in seconds: see `alternate`.

    Parameters
    ----------
    functions, repeats, clock, warm
        As for `alternate`.

    Returns
    -------
    dict of float
        Seconds by name.
    """
    runs = alternate(functions, repeats, clock=clock, warm=warm)
    # The clock may not have moved, and a ratio must not divide by zero.
    return {name: max(float(seconds.min()), 1e-9) for name, seconds in runs.items()}
