"""`plot_grid` and `plot_ablation`: tables of benchmarks."""

from __future__ import annotations

from functools import partial
from math import ceil

import numpy as np

from astrogan.exceptions import InputError
from astrogan.plot import _panel as panel
from astrogan.plot._layout import BAR, BOTTOM, GAP, TICKS, TITLE, Box, open_panels, rows_of

__all__ = ["plot_ablation", "plot_grid"]

__doctest_requires__ = {"*": ["matplotlib"]}

_HIGHER = ("psnr", "ssim", "cosine", "iou", "completeness", "purity", "gain", "correlation")
_LOWER = ("error", "mse", "rms", "w1", "fourier", "dmag", "centroid", "colour", "size", "ellipticity", "energy",
          "flux_distribution", "seconds", "failed", "false")  # fmt: skip
_LINE, _FIRST = 0.27, "#D55E00"


def plot_grid(
    table,
    *,
    value="psnr",
    method="row",
    fwhm="fwhm",
    noise="noise",
    methods=None,
    relative_to=None,
    digits=None,
    fig=None,
    axes=None,
):
    """Draw a measure over a grid of seeing and noise, a panel a method.

    Parameters
    ----------
    table : `~astropy.table.Table`
        A line a method and cell, as ``astrogan bench restoration`` writes it.
    value : str
        Column of the measure.
    method, fwhm, noise : str
        Columns of the method's name, of the seeing and of the noise.
    methods : sequence of str, optional
        Which are drawn, in this order. Default: all that have a number, in the order of the table.
    relative_to : str, optional
        A method whose values are taken off those of the others.
    digits : int, optional
        Decimals in the cells. Default: as many as the spread of the values asks for.
    fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
        To draw into. Default: a new one.
    axes : sequence of `~matplotlib.axes.Axes`, optional
        To draw into, one a method.

    Returns
    -------
    `~matplotlib.figure.Figure`
        All panels share one colour scale. Cells that the table does not have are grey.

    Raises
    ------
    InputError
        If the table has no such column or method, no number, or several lines for a cell.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from astrogan.plot import plot_grid
    >>> lines = [("wiener", f, n, 34 - 2 * f - n) for f in (1.4, 1.8) for n in (1.0, 2.0, 5.0)]
    >>> table = Table(rows=lines, names=("row", "fwhm", "noise", "psnr"))
    >>> [text.get_text() for text in plot_grid(table).axes[0].texts]
    ['30.2', '29.2', '26.2', '29.4', '28.4', '25.4']
    """
    columns = _columns(table, {"value": value, "method": method, "fwhm": fwhm, "noise": noise}, {"method"})
    names = _methods(columns, methods, relative_to)
    y, x = (np.unique(columns[axis]) for axis in ("fwhm", "noise"))
    cells = {name: _cells(columns, name, y, x, method) for name in [*names, *_also(relative_to)]}
    if relative_to is not None:
        base = cells[relative_to]
        cells = {name: cells[name] - base for name in names}
    values = [cells[name] for name in names]
    figure, panels = _open_grid(len(names), len(y), len(x), fig, axes)
    scale, colours = _grid_scale(values, relative_to is not None)
    digits = _digits(values) if digits is None else digits
    across = rows_of(len(names))
    for k, (ax, name, data) in enumerate(zip(panels, names, values, strict=True)):
        mappable = panel.draw(ax, data, scale, colours)
        ax.set_aspect("auto")
        _write_cells(ax, data, mappable, digits, signed=relative_to is not None)
        bottom = k + across >= len(names)
        _cell_ticks(ax, x, y, bottom=bottom or axes is not None, left=k % across == 0 or axes is not None)
        if bottom or axes is not None:
            ax.set_xlabel(_axis_text(table, noise), fontsize=TICKS + 0.5, labelpad=2)
        if k % across == 0 or axes is not None:
            ax.set_ylabel(_axis_text(table, fwhm), fontsize=TICKS + 0.5, labelpad=2)
        panel.title(ax, panel.plain(name))
        if k % across == across - 1 or k == len(names) - 1:
            text = _measure(value) + ("" if relative_to is None else f" − that of {panel.plain(relative_to)}")
            panel.colour_bar(ax, mappable, values, text, panel.unit_label(table[value].unit))
    return figure


def plot_ablation(table, *, metrics=None, method="row", methods=None, better=None, reference=None, fig=None, axes=None):
    """Draw methods, or variants of one, against several measures: a line a method, a panel a measure.

    Parameters
    ----------
    table : `~astropy.table.Table`
        A line a method. Columns ``<measure>_low`` and ``<measure>_high`` become error bars.
    metrics : sequence of str, optional
        Columns to draw. Default: all of numbers that do not belong to an interval, six at most.
    method : str
        Column of the names.
    methods : sequence of str, optional
        Which are drawn, from the top. Default: all, in the order of the table.
    better : dict, optional
        ``{measure: "higher" or "lower"}``, for the arrow beside its name. Default: known for the measures of astrogan's
        benchmarks; nothing is said of others.
    reference : str, optional
        The method that a dotted line goes through, the full model of an ablation, say. Default: the first.
    fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
        To draw into. Default: a new one.
    axes : sequence of `~matplotlib.axes.Axes`, optional
        To draw into, one a measure.

    Returns
    -------
    `~matplotlib.figure.Figure`
        Methods without a number have no point.

    Raises
    ------
    InputError
        If the table has no such column or method, or several lines for one.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from astrogan.plot import plot_ablation
    >>> table = Table({"row": ["full", "without PSF"], "psnr": [31.2, 29.8], "w1": [0.11, 0.19]})
    >>> [ax.get_xlabel() for ax in plot_ablation(table).axes]
    ['PSNR  (higher is better)', 'w1  (lower is better)']
    """
    _check_columns(table, {"method": method})
    metrics = _metrics(table, metrics, method)
    columns = _columns(table, {"method": method, **{name: name for name in metrics}}, {"method"})
    names = list(dict.fromkeys(columns["method"])) if methods is None else list(methods)
    rows = [_one_row(columns["method"], name, method) for name in names]
    base = _one_row(columns["method"], names[0] if reference is None else reference, method)
    figure, panels = _open_ablation(len(metrics), names, fig, axes)
    heights = -np.arange(len(rows), dtype=float)
    for k, (ax, name) in enumerate(zip(panels, metrics, strict=True)):
        values = columns[name]
        ax.axvline(values[base], color=_FIRST, lw=0.9, ls=":", zorder=1)
        ax.errorbar(values[rows], heights, xerr=_intervals(table, name, values, rows), ls="", marker="o", ms=5,
                    color="#0072B2", ecolor="0.45", elinewidth=1.0, capsize=2, zorder=2)  # fmt: skip
        if base in rows:
            ax.plot(values[base], heights[rows.index(base)], marker="o", ms=5, color=_FIRST, zorder=3)
        _style_ablation(ax, heights, names, labelled=k == 0 or axes is not None)
        unit = panel.unit_label(table[name].unit)
        power = panel.power_of(np.abs(values[np.isfinite(values)]).max(initial=0))
        ax.xaxis.set_major_formatter(partial(_number, power))
        unit = " ".join(part for part in (f"$10^{{{power}}}$" if power else "", unit) if part)
        text = _measure(name) + (f" [{unit}]" if unit else "")
        ax.set_xlabel(text + _direction(name, better), fontsize=TICKS + 0.5, labelpad=3)
    return figure


# ---- columns --------------------------------------------------------------------------------------------------------


def _check_columns(table, wanted):
    names = getattr(table, "colnames", None)
    if names is None:
        raise InputError(f"table is {type(table).__name__}; it must be an astropy Table")
    for argument, column in wanted.items():
        if column not in names:
            known = f"{argument}={column!r}" if argument != column else f"{column!r}"
            raise InputError(f"{known} is no column of the table; it has {', '.join(names)}")
    if not len(table):
        raise InputError("table has no lines; run the benchmark first")


def _columns(table, wanted, words):
    """{argument: values}: words as text, all else as float with NaN for what is missing."""
    _check_columns(table, wanted)
    out = {}
    for argument, column in wanted.items():
        if argument in words:
            out[argument] = [str(value) for value in table[column]]
            continue
        try:
            values = table[column]
            filled = values.filled(np.nan) if hasattr(values, "filled") and values.dtype.kind == "f" else values
            out[argument] = np.asarray(getattr(filled, "value", filled), float)
        except (TypeError, ValueError) as error:
            raise InputError(f"column {column!r} of the table is not of numbers; name one that is") from error
    return out


def _also(name):
    return () if name is None else (name,)


def _methods(columns, methods, relative_to):
    """Names to draw: those asked for, or all that have a number."""
    there = list(dict.fromkeys(columns["method"]))
    for name in [*(methods or ()), *_also(relative_to)]:
        if name not in there:
            raise InputError(f"{name!r} is no method of the table; it has {', '.join(there)}")
    if methods is not None:
        return list(methods)
    has = {n for n, v in zip(columns["method"], columns["value"], strict=True) if np.isfinite(v)} - {relative_to}
    names = [name for name in there if name in has]
    if not names:
        raise InputError("table has no number to draw; name another value= or other methods=")
    return names


def _cells(columns, name, y, x, method):
    """(seeing, noise) of one method, NaN where there is no line."""
    out = np.full((len(y), len(x)), np.nan)
    seen = set()
    for n, f, s, value in zip(columns["method"], columns["fwhm"], columns["noise"], columns["value"], strict=True):
        if n != name:
            continue
        if (f, s) in seen:
            raise InputError(
                f"table has several lines with {method}={name!r}, fwhm {f:g} and noise {s:g}; choose one kind first, "
                "such as table[table['convention'] == 'independent']"
            )
        seen.add((f, s))
        out[np.searchsorted(y, f), np.searchsorted(x, s)] = value
    return out


def _metrics(table, metrics, method):
    if metrics is not None:
        metrics = [metrics] if isinstance(metrics, str) else list(metrics)
        if metrics:
            return metrics
        raise InputError("metrics=[] is empty; name columns of the table, or leave it out")
    numbers = [c for c in table.colnames if table[c].dtype.kind in "fiu" and table[c].ndim == 1 and c != method]
    ends = {f"{name}_{end}" for name in numbers for end in ("low", "high")}
    found = [name for name in numbers if name not in ends and np.isfinite(np.asarray(table[name], float)).any()][:6]
    if not found:
        raise InputError(f"table has no column of numbers; it has {', '.join(table.colnames)}")
    return found


def _one_row(names, name, method):
    rows = [k for k, own in enumerate(names) if own == name]
    if not rows:
        raise InputError(f"{name!r} is no method of the table; it has {', '.join(dict.fromkeys(names))}")
    if len(rows) > 1:
        raise InputError(f"table has {len(rows)} lines with {method}={name!r}; choose one line a method first")
    return rows[0]


# ---- the grid -------------------------------------------------------------------------------------------------------


def _open_grid(count, ny, nx, fig, axes):
    across = rows_of(count)
    width, height = max(0.5 * nx, 1.7), max(0.32 * ny, 1.1)
    left = 0.75
    # Below a panel that has none beneath it comes the noise axis, which the next row's colour bar must not meet.
    step = height + TITLE + (BOTTOM if count % across else 0.0)
    boxes = [
        Box(left + (k % across) * (width + GAP), TITLE + (k // across) * step, width, height) for k in range(count)
    ]
    size = left + across * (width + GAP) - GAP + BAR, (ceil(count / across) - 1) * step + height + TITLE + BOTTOM
    return open_panels(size, boxes, fig, axes)


def _grid_scale(values, relative):
    from matplotlib.colors import Normalize

    if relative:
        return panel.symmetric([np.asarray(v) for v in values]), panel.RESIDUAL
    finite = np.concatenate([v[np.isfinite(v)] for v in values])
    low, high = float(finite.min()), float(finite.max())
    return Normalize(low, high if high > low else low + 1), panel.SIGMA


def _digits(values):
    finite = np.concatenate([v[np.isfinite(v)] for v in values])
    spread = np.ptp(finite) if finite.size else 0
    return (
        1 if spread <= 1e-9 * np.abs(finite).max(initial=1) else int(np.clip(2 - np.floor(np.log10(spread)) - 1, 0, 4))
    )


def _write_cells(ax, data, mappable, digits, signed):
    """Numbers in the cells, dark on light and light on dark."""
    for (row, column), value in np.ndenumerate(data):
        if np.isfinite(value):
            red, green, blue, _ = mappable.to_rgba(value)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")
            ax.text(column, row, text, ha="center", va="center", fontsize=TICKS, color="white" if dark else "black")


def _cell_ticks(ax, x, y, *, bottom, left):
    ax.set_xticks(range(len(x)), [f"{v:g}" for v in x] if bottom else [""] * len(x), fontsize=TICKS)
    ax.set_yticks(range(len(y)), [f"{v:g}" for v in y] if left else [""] * len(y), fontsize=TICKS)
    ax.tick_params(length=0, pad=3)


def _axis_text(table, column):
    words = {"fwhm": "FWHM", "noise": "noise / original noise"}.get(column, column.replace("_", " "))
    unit = panel.unit_label(table[column].unit)
    return f"{panel.plain(words)} [{unit}]" if unit else panel.plain(words)


# ---- the ablation ---------------------------------------------------------------------------------------------------


def _open_ablation(count, names, fig, axes):
    left = 0.35 + 0.068 * max(len(name) for name in names)
    width, height = 2.1, max(_LINE * (len(names) + 0.6), 0.7)
    boxes = [Box(left + k * (width + 0.22), 0.12, width, height) for k in range(count)]
    return open_panels((left + count * (width + 0.22), 0.12 + height + BOTTOM), boxes, fig, axes)


def _intervals(table, name, values, rows):
    ends = [f"{name}_low", f"{name}_high"]
    if not set(ends) <= set(table.colnames):
        return None
    low, high = (_columns(table, {end: end}, set())[end][rows] for end in ends)
    return np.nan_to_num(np.clip([values[rows] - low, high - values[rows]], 0, None))


def _style_ablation(ax, heights, names, labelled):
    ax.set_ylim(heights[-1] - 0.6, 0.6)
    ax.set_yticks(
        heights, [panel.plain(name) for name in names] if labelled else [""] * len(names), fontsize=TICKS + 0.5
    )
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=TICKS, direction="in")
    ax.locator_params(axis="x", nbins=4)
    ax.margins(x=0.12)
    ax.grid(axis="both", color="0.9", lw=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _number(power, value, _):
    return f"{value / 10.0**power:.6g}".replace("-", "−")


def _measure(name):
    words = {"psnr": "PSNR", "ssim": "SSIM", "mse": "MSE", "iou": "IoU", "psnr_linear": "PSNR, linear"}
    return words.get(name, panel.plain(name.replace("_", " ")))


def _direction(name, better):
    """Which way is better, where that is known."""
    if better is not None and not (hasattr(better, "items") and set(better.values()) <= {"higher", "lower"}):
        raise InputError(f"better={better!r} must be a dict of measure: 'higher' or 'lower'")
    way = (better or {}).get(name)
    if way is None and name.startswith(_HIGHER):
        way = "higher"
    if way is None and (name.startswith(_LOWER) or "error" in name):
        way = "lower"
    return f"  ({way} is better)" if way else ""
