"""The restoration benchmark's figure: PSNR against noise for each blur, and three galaxies through every method."""

from __future__ import annotations

from math import ceil

import numpy as np

from astrogan.bench._paper_tables import paper_psnr
from astrogan.bench._restoration_scores import levels
from astrogan.bench._restoration_tables import CEILING, NOISE_LIMIT

__all__ = ["draw"]

_GAP, _LEFT, _TOP = 0.05, 0.62, 0.35  # inches
_SMALLEST, _LARGEST = 1.5, 2.1  # edge of an image
_PANEL, _CURVES = 2.75, 2.7
_COLOURS = ("#d62728", "#9467bd", "#e377c2", "#17becf", "#ff7f0e")
_STYLES = {
    "identity": {"color": "0.55", "marker": "x", "ls": "-"},
    "gaussian": {"color": "#2ca02c", "marker": "s", "ls": "-"},
    "wiener": {"color": "#1f77b4", "marker": "^", "ls": "-"},
    "richardson-lucy": {"color": "#8c564b", "marker": "v", "ls": "-"},
    "richardson-lucy (tuned)": {"color": "#8c564b", "marker": "v", "ls": "--", "mfc": "white"},
    "blind-richardson-lucy": {"color": "#bcbd22", "marker": "D", "ls": "-"},
    CEILING: {"color": "k", "ls": "-.", "marker": ""},
    NOISE_LIMIT: {"color": "k", "ls": ":", "marker": ""},
}


def draw(path, table, rows, place, cell, tuned):
    """Draw both parts and write a PNG.

    Parameters
    ----------
    path : path
    table : `~astropy.table.Table`
        The summary of one noise convention.
    rows : list of Row
    place : Workplace
    cell : Cell
        Whose images are shown.
    tuned : dict
        {row name: options chosen with the truth} at that cell.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from astrogan.image.write import atomic_path

    fwhms = sorted(set(map(float, table["fwhm"])))
    columns = 2 + sum(row.backend is not None for row in rows)
    per_line = columns if columns <= 9 else ceil(columns / 2)
    galaxies = _galaxies(place)
    lines = ceil(columns / per_line)
    width = max(_LEFT + per_line * (_SMALLEST + _GAP), _LEFT + len(fwhms) * _PANEL) + 0.15
    edge = min((width - _LEFT - 0.15) / per_line - _GAP, _LARGEST)
    legend = 0.22 * ceil((len(set(table["row"])) + 2) / 4) + 0.2
    sheet = _TOP + _CURVES + 0.55 + legend + 0.3
    height = sheet + len(galaxies) * (lines * (edge + _GAP) + 0.08) + 0.05
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)

    def panel(x, y, w, h):
        return figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))

    _draw_curves(figure, panel, table, rows, fwhms, (width - _LEFT - 0.15) / len(fwhms))
    where = f'{cell.fwhm:g}" blur, {cell.noise:g} x noise, {_WORDS[cell.convention]}'
    figure.text(
        _LEFT / width,
        1 - (sheet - 0.08) / height,
        f"b   three galaxies at {where}: the paper's asinh stretch; PSNR of each image in dB",
        fontsize=10.5,
        va="bottom",
    )
    shown = [(number, _through(number, rows, place, cell, tuned)) for number in galaxies]
    for line, (number, images) in enumerate(shown):
        top = sheet + line * (lines * (edge + _GAP) + 0.08)
        reference = place.references[number]
        for k, (name, image) in enumerate(images):
            axes = panel(_LEFT + k % per_line * (edge + _GAP), top + k // per_line * (edge + _GAP), edge, edge)
            score = None if k == 0 else reference.scores(image, False)["psnr"]
            _draw_image(axes, image, reference, name, score)
        figure.text(
            (_LEFT - 0.08) / width, 1 - (top + edge / 2) / height, reference.stamp.name,
            fontsize=7.5, rotation=90, va="center", ha="right",
        )  # fmt: skip
    with atomic_path(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=130, format="png", metadata={"Software": "astrogan"})


_WORDS = {"independent": "independent in each band", "shared": "shared between bands"}


# ---- curves ---------------------------------------------------------------------------------------------------------


def _draw_curves(figure, panel, table, rows, fwhms, step):
    styles = _styles(rows)
    finite = np.asarray(table["psnr"], float)
    low, high = np.nanmin(finite) - 1.5, np.nanmax(finite) + 1.5
    handles = {}
    for k, fwhm in enumerate(fwhms):
        axes = panel(_LEFT + k * step, _TOP, step - 0.12, _CURVES)
        part = table[table["fwhm"] == fwhm]
        for name in dict.fromkeys(table["row"]):
            handles[name] = _curve(axes, part[part["row"] == name], styles[name])
        handles |= _paper_curves(axes, fwhm, sorted(set(map(float, part["noise"]))))
        axes.set_xscale("log")
        axes.set_ylim(low, high)
        axes.set_xlabel("noise / original noise", fontsize=9, labelpad=1)
        ticks = sorted(set(map(float, part["noise"])))
        axes.set_xticks([t for t in ticks if t != 1.2 or len(ticks) < 4], minor=False)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.minorticks_off()
        axes.grid(color="0.9", lw=0.6)
        axes.tick_params(labelsize=8.5, direction="in", labelleft=k == 0)
        axes.text(0.04, 0.05, f'FWHM {fwhm:g}"', transform=axes.transAxes, fontsize=9.5)
        if k == 0:
            axes.set_ylabel("PSNR (8-bit asinh)  [dB]", fontsize=9, labelpad=2)
            axes.set_title(
                f"a   PSNR on the paper's grid, noise {_WORDS[table['convention'][0]]}; 95 % intervals of the mean",
                loc="left", fontsize=10.5,
            )  # fmt: skip
    width, height = figure.get_size_inches()
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="upper left",
        bbox_to_anchor=(_LEFT / width, 1 - (_TOP + _CURVES + 0.42) / height),
        bbox_transform=figure.transFigure,
        ncol=4,
        fontsize=8.5,
        frameon=False,
        borderaxespad=0,
        columnspacing=1.5,
    )


def _styles(rows):
    networks = [row.name for row in rows if row.name not in _STYLES]
    own = {name: {"color": _COLOURS[k % len(_COLOURS)], "marker": "o", "lw": 2.0} for k, name in enumerate(networks)}
    return _STYLES | own


def _curve(axes, lines, style):
    style = {"lw": 1.3, "ms": 4.5, "mew": 1.0} | style
    order = np.argsort(lines["noise"])
    x, y = (np.asarray(lines[c], float)[order] for c in ("noise", "psnr"))
    error = [np.asarray(lines[c], float)[order] for c in ("psnr_low", "psnr_high")]
    if style["marker"]:
        return axes.errorbar(x, y, yerr=[y - error[0], error[1] - y], elinewidth=0.8, capsize=1.5, **style)
    # Limits do not depend on the degradation; a cell alone would not show as a line.
    return axes.axhline(np.nanmean(y), color=style["color"], ls=style["ls"], lw=1.2)


def _paper_curves(axes, fwhm, noises):
    handles = {}
    for method, label, colour in (
        ("galaxygan2017", "GAN, as printed in 2017", "0.15"),
        ("richardson-lucy", "Lucy-Richardson, as printed in 2017", "#c49c94"),
    ):
        points = [(n, paper_psnr(method, fwhm, n)) for n in noises if paper_psnr(method, fwhm, n) is not None]
        if points:
            handles[label] = axes.plot(*zip(*points, strict=True), ls="", marker="*", ms=7, color=colour, mec="none")[0]
    return handles


# ---- galaxies -------------------------------------------------------------------------------------------------------


def _galaxies(place):
    """Three that differ in size, by the area of their segments: a middling, a large and a very large one.

    Objects that reach the border, as those in the glare of a bright star do, are shown only where there are no others.
    """
    inner = np.s_[2:-2, 2:-2]
    whole = [np.count_nonzero(r.segment) == np.count_nonzero(r.segment[inner]) for r in place.references]
    areas = [np.count_nonzero(r.segment) for r in place.references]
    order = sorted(range(len(areas)), key=lambda k: (not whole[k], areas[k]))
    last = max(sum(whole) - 1, min(2, len(order) - 1))
    places = {round(q * last) for q in (0.5, 0.75, 0.95)} | set(range(last, -1, -1)[:3])
    return [order[p] for p in sorted(places)[:3]]


def _through(number, rows, place, cell, tuned):
    """(title, image) of the original, the degraded one, and every row's result."""
    image, variance = place.degraded(cell, number)
    images = [("original", place.references[number].stamp.flux), ("degraded", image)]
    for row in rows:
        if row.backend is not None:
            restore = place.restoration(cell, row, **tuned.get(row.name, {}))
            images.append((row.name, place.restored(restore, image, variance)))
    return images


def _draw_image(axes, image, reference, name, score):
    seen = levels(image)
    seen = seen if len(seen) == 3 else np.repeat(seen[:1], 3, axis=0)
    y, x = _window(reference.segment)
    axes.imshow(np.moveaxis(seen, 0, -1)[y, x], interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    short = name if len(name) <= 26 else f"{name[:25]}\u2026"
    text = short if score is None else f"{short}\n{score:.2f}"
    axes.text(0.03, 0.97, text, transform=axes.transAxes, color="white", fontsize=7.5, va="top", ha="left",
              linespacing=1.25, bbox={"facecolor": "black", "alpha": 0.45, "pad": 1.2, "lw": 0})  # fmt: skip


def _window(segment):
    """A square around the object with some sky, the same for all images of it."""
    rows, columns = np.flatnonzero(segment.any(axis=1)), np.flatnonzero(segment.any(axis=0))
    half = int(0.65 * max(np.ptp(rows), np.ptp(columns), min(segment.shape) // 4)) + 4
    half = min(half, min(segment.shape) // 2)
    centre = [
        int(np.clip((r[0] + r[-1]) // 2, half, n - half)) for r, n in zip((rows, columns), segment.shape, strict=True)
    ]
    return tuple(slice(c - half, c + half) for c in centre)
