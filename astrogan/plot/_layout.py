"""Panels placed in inches, so that images of one grid are drawn in one size and nothing runs into anything."""

from __future__ import annotations

from math import ceil
from typing import Any, NamedTuple

import numpy as np

from astrogan.exceptions import InputError, MissingDependencyError

__all__ = [
    "ASPECTS",
    "BAR",
    "BOTTOM",
    "GAP",
    "LEFT",
    "RIGHT",
    "TICKS",
    "TITLE",
    "Box",
    "columns_of",
    "open_panels",
    "panel_size",
    "rows_of",
]

LEFT, RIGHT, BOTTOM, TITLE = 1.12, 0.12, 0.55, 0.30  # inches; the title's is above each row of panels
GAP, BAR = 0.10, 1.00  # to the next panel, without and with a colour bar between
TICKS = 8  # points
ASPECTS = 0.4, 4.0
"""Least and largest height over width that is drawn with square pixels; longer images are squeezed."""
_SMALLEST = 0.75


class Box(NamedTuple):
    """Where a panel is, in inches from the upper left corner, and its sky."""

    x: float
    y: float
    width: float
    height: float
    wcs: Any = None


def panel_size(shape, columns):
    """Width and height in inches of a panel for images of such a shape, so many side by side."""
    ratio = float(np.clip(shape[0] / shape[1], *ASPECTS))
    width = 4.2 if columns == 1 else 3.0 if columns == 2 else 2.3
    width = max(min(width, 1.6 * width / ratio), 1.15 / ratio)
    return width, width * ratio


def rows_of(count):
    """How many panels go side by side, so that no row is nearly empty."""
    return ceil(count / ceil(count / 4))


def columns_of(width, bars, left=LEFT):
    """Left edges of columns of equal width; ``bars`` says of each whether a colour bar follows it."""
    edges, x = [], left
    for bar in bars:
        edges.append(x)
        x += width + (BAR if bar else GAP)
    return edges, x - (0 if bars[-1] else GAP) + (0 if bars[-1] else RIGHT)


def open_panels(size, boxes, fig=None, axes=None):
    """A figure and its empty panels.

    Parameters
    ----------
    size : tuple of float
        Width and height in inches that the boxes are laid out for.
    boxes : list of Box
    fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
        To draw into; boxes are scaled to its size.
    axes : axes or sequence of those, optional
        To draw into, one a box.

    Returns
    -------
    figure : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`
    axes : list of `~matplotlib.axes.Axes`
    """
    figure_class, canvas = _matplotlib()
    if axes is not None:
        return _given_axes(axes, len(boxes), fig)
    if fig is None:
        fig = figure_class(figsize=size, facecolor="white")
        canvas(fig)
    elif not hasattr(fig, "add_axes"):
        raise InputError(f"fig is {type(fig).__name__}; it must be a matplotlib Figure or SubFigure")
    pixels = fig.bbox.size / fig.dpi
    scale = float(min(pixels / size))
    if scale < _SMALLEST:
        needed = " x ".join(f"{_SMALLEST * n:.1f}" for n in size)
        raise InputError(
            f"fig is {pixels[0]:.1f} x {pixels[1]:.1f} inches; these panels need at least {needed}: make it larger "
            "(figsize=), show fewer bands, or leave fig out"
        )
    return fig, [_add(fig, box, scale, pixels, size) for box in boxes]


def _matplotlib():
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "astrogan.plot needs matplotlib: run `pip install 'astrogan[plot]'` (or `pip install matplotlib`)"
        ) from error
    return Figure, FigureCanvasAgg


def _given_axes(axes, count, fig):
    if fig is not None:
        raise InputError("fig and axes are both given; give the axes alone, they know their figure")
    axes = list(np.ravel(np.asarray(axes, dtype=object)))
    if not all(hasattr(ax, "imshow") for ax in axes):
        raise InputError(f"axes holds {sorted({type(ax).__name__ for ax in axes})}; it must hold matplotlib axes")
    if len(axes) != count:
        raise InputError(f"axes has {len(axes)} axes; this figure has {count} panels: give so many, or leave axes out")
    return axes[0].figure, axes


def _add(fig, box, scale, pixels, size):
    """Axes at a box, the layout scaled about the middle of the figure."""
    (width, height), left, top = pixels, *((pixels - scale * np.array(size)) / 2)
    place = (
        (left + scale * box.x) / width,
        1 - (top + scale * (box.y + box.height)) / height,
        scale * box.width / width,
        scale * box.height / height,
    )
    if box.wcs is None:
        return fig.add_axes(place)
    from astropy.visualization.wcsaxes import WCSAxes

    return fig.add_axes(place, axes_class=WCSAxes, wcs=box.wcs)
