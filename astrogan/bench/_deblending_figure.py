"""Figures of the deblending benchmark."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from astrogan.exceptions import MissingDependencyError

__all__ = ["draw_bars", "draw_blend", "draw_errors", "draw_spirals"]

_STYLES = {
    "hard-labels": ("0.6", "x"),
    "watershed": ("#1f77b4", "s"),
    "symmetric": ("#2ca02c", "^"),
    "usaid2019": ("#e377c2", "v"),
    "branched-gan": ("#9467bd", "D"),
    "profile-fit": ("#ff7f0e", "<"),
    "ratio-net": ("#17becf", ">"),
    "default": ("#d62728", "o"),
    "truth-ratio": ("k", "*"),
}
_OTHERS = ("#8c564b", "#bcbd22", "#7f7f7f")


def _figure(width, height):
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("figures need matplotlib: pip install 'astrogan[plot]'") from error
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _save(figure, path):
    from astrogan.image.write import atomic_path

    with atomic_path(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=120, format="png", metadata={"Software": "astrogan"})


def _style(name, k):
    colour, marker = _STYLES.get(name, (_OTHERS[k % len(_OTHERS)], "p"))
    return {"color": colour, "marker": marker, "lw": 2.2 if name == "default" else 1.3, "ms": 5.5}


def draw_errors(path, results):
    """Median flux error of each row by blendedness, S/N and separation, true and detected centres.

    Parameters
    ----------
    path : path
        Of the PNG.
    results : dict
        {row name: list of results}, see `astrogan.bench._deblending_tables.gather`.
    """
    from astrogan.bench._deblending_tables import gather

    kinds = ("blendedness", "snr", "separation")
    figure = _figure(12.5, 8.2)
    panels = figure.subplots(2, 3, sharey=True)
    handles = {}
    for axes_of_row, centres in zip(panels, ("true", "detected"), strict=True):
        columns = {name: gather(scenes, centres) for name, scenes in results.items()}
        columns = {name: value for name, value in columns.items() if value}
        for axes, kind in zip(axes_of_row, kinds, strict=True):
            edges = _edges([c[kind] for c in columns.values()])
            for k, (name, own) in enumerate(columns.items()):
                points = _binned(own[kind], own["flux_error"], edges)
                handles[name] = axes.plot(*points, label=name, **_style(name, k))[0]
            axes.set_yscale("log")
            axes.set_xscale("linear" if kind == "blendedness" else "log")
            axes.set_xlabel(_AXES[kind])
            axes.grid(color="0.9", lw=0.6, which="both")
        axes_of_row[0].set_ylabel(f"median |F / F$_{{true}}$ - 1|, {centres} centres")
    figure.legend(handles.values(), handles.keys(), loc="upper center", ncol=5, frameon=False)
    figure.subplots_adjust(left=0.07, right=0.99, bottom=0.07, top=0.9, hspace=0.22, wspace=0.05)
    _save(figure, path)


_AXES = {
    "blendedness": "blendedness (part of the light under the source that is others')",
    "snr": "S/N of the source, all bands",
    "separation": "nearest source / FWHM of the PSF",
}


def _edges(values):
    values = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.array([0.0, 1.0])
    return np.unique(np.quantile(values, np.linspace(0, 1, 7))) if values.size else np.array([0.0, 1.0])


def _binned(x, y, edges):
    """Medians of x and of y between the edges."""
    middles, medians = [], []
    for k, (low, high) in enumerate(pairwise(edges)):
        inside = (x >= low) & ((x <= high) if k == len(edges) - 2 else (x < high)) & ~np.isnan(y)
        if inside.any():
            middles.append(np.median(x[inside]))
            medians.append(np.median(y[inside]))
    return middles, medians


def draw_blend(path, scene, found):
    """A blend: the image, the truth, and of each row every source (its part of the image) beside what is wrong with it.

    Parameters
    ----------
    path : path
        Of the PNG.
    scene : Scene
        With a truth.
    found : dict
        {row name: Deblended}, with the true centres.
    """
    count = len(scene.positions)
    columns = 2 * len(found) + 1
    figure = _figure(1.35 * columns + 0.3, 1.42 * (count + 1) + 0.5)
    panels = figure.subplots(count + 1, columns, squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    limit = 3 * float(scene.sigma.mean())
    _image(panels[0, 0], scene.data, scene, "blend")
    for (x, y), label in zip(scene.positions, "abcdefghijklmnopqrstuvwxyz", strict=False):
        panels[0, 0].text(x, y, label, color="w", fontsize=7, ha="center", va="center")
    for column, (name, own) in enumerate(found.items()):
        _image(panels[0, 2 * column + 1], own.models.sum(axis=0), scene, f"{name}\nsum of models")
        _difference(panels[0, 2 * column + 2], scene.data - own.models.sum(axis=0), limit, "image - that")
    for i in range(count):
        title = f"{chr(97 + i)}: {scene.kinds[i] if scene.kinds else 'truth'}"
        _image(panels[i + 1, 0], scene.truth[i], scene, title)
        for column, own in enumerate(found.values()):
            error = float(np.mean(np.abs(own.flux[i] / scene.flux[i] - 1)))
            _image(panels[i + 1, 2 * column + 1], own.sources[i], scene, f"|dF/F| {100 * error:.1f} %")
            _difference(panels[i + 1, 2 * column + 2], own.sources[i] - scene.truth[i], limit, "source - truth")
    note = "left of a pair: asinh stretch, one for all; right: band mean within 3 sigma of the sky, red is too bright"
    figure.text(0.01, 0.004, note, fontsize=8)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.03, top=0.95, hspace=0.2, wspace=0.03)
    _save(figure, path)


def _image(axes, cube, scene, title):
    """Colours from the last, middle and first band: asinh of the flux in units of the noise."""
    scaled = np.asarray(cube, np.float64) / scene.sigma
    peak = np.arcsinh(np.percentile(scene.data / scene.sigma, 99.8) / 2)
    planes = [scaled[-1], scaled[len(scaled) // 2], scaled[0]] if len(scaled) > 1 else [scaled[0]] * 3
    shown = np.clip(np.arcsinh(np.stack(planes, axis=-1) / 2) / peak * 0.95 + 0.05, 0, 1)
    axes.imshow(shown, origin="lower", interpolation="nearest")
    axes.set_title(title, fontsize=7, pad=2)


def _difference(axes, cube, limit, title):
    mean = np.mean(cube, axis=0)
    axes.imshow(mean, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_title(title, fontsize=7, pad=2)


def draw_bars(path, table, label, groups, measures):
    """Bars of some columns of a table, a panel a measure.

    Parameters
    ----------
    path : path
        Of the PNG.
    table : `~astropy.table.Table`
    label : str
        Column that names the bars.
    groups : str or None
        Column by which panels are divided further.
    measures : dict
        {column: text}.
    """
    parts = [None] if groups is None else list(dict.fromkeys(table[groups]))
    figure = _figure(3.6 * len(measures), 0.8 + 2.6 * len(parts))
    panels = figure.subplots(len(parts), len(measures), squeeze=False)
    for row, part in zip(panels, parts, strict=True):
        lines = table if part is None else table[table[groups] == part]
        names = [str(name) for name in lines[label]]
        for axes, (column, text) in zip(row, measures.items(), strict=True):
            values = np.nan_to_num(np.asarray(lines[column], np.float64), posinf=0.0)
            colours = [_style(name, k)["color"] for k, name in enumerate(names)]
            axes.barh(range(len(names)), values, color=colours)
            for k, value in enumerate(values):
                axes.text(value, k, f" {value:.3g}", va="center", fontsize=7)
            axes.set_yticks(range(len(names)), names if axes is row[0] else [""] * len(names), fontsize=8)
            axes.invert_yaxis()
            axes.margins(x=0.2)
            axes.tick_params(axis="x", labelsize=7)
            axes.set_title(text if part is None else f"{part}: {text}", fontsize=8)
    figure.subplots_adjust(left=0.12, right=0.985, bottom=0.09, top=0.92, hspace=0.35, wspace=0.1)
    _save(figure, path)


def draw_spirals(path, examples):
    """Galaxies with the centres that were found, the one that counts as a split in red.

    Parameters
    ----------
    path : path
        Of the PNG.
    examples : list of dict
        ``name``, ``picture`` (3, y, x) in [0, 1], and by method ``centres`` and ``split`` (indices), with the galaxy's
        ``ellipse`` (x, y, a, b, theta in radians).
    """
    from matplotlib.patches import Ellipse

    methods = list(examples[0]["centres"])
    figure = _figure(1.75 * len(examples) + 0.2, 1.85 * len(methods) + 0.3)
    panels = figure.subplots(len(methods), len(examples), squeeze=False)
    for row, method in zip(panels, methods, strict=True):
        for axes, example in zip(row, examples, strict=True):
            axes.imshow(np.moveaxis(example["picture"], 0, -1).clip(0, 1), interpolation="nearest")
            x, y, a, b, theta = example["ellipse"]
            axes.add_patch(Ellipse((x, y), 2 * a, 2 * b, angle=np.degrees(theta), fill=False, ec="cyan", lw=0.8))
            centres, split = example["centres"][method], example["split"][method]
            colours = ["red" if k in split else "yellow" for k in range(len(centres))]
            axes.scatter(*centres.T, s=14, marker="+", c=colours, linewidths=0.9)
            axes.set_axis_off()
            axes.set_title(f"{method}  {example['name']}", fontsize=6.5, pad=2)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.95, hspace=0.1, wspace=0.03)
    _save(figure, path)


def draw_pictures(path, lines):
    """Pictures side by side.

    Parameters
    ----------
    path : path
        Of the PNG.
    lines : list of dict
        {title: ((3, y, x) in [0, 1], PSNR or None)}, of the same titles.
    """
    titles = list(lines[0])
    figure = _figure(1.45 * len(titles), 1.6 * len(lines) + 0.2)
    for row, line in zip(figure.subplots(len(lines), len(titles), squeeze=False), lines, strict=True):
        for axes, title in zip(row, titles, strict=True):
            axes.set_axis_off()
            if title not in line:
                continue
            picture, score = line[title]
            axes.imshow(np.moveaxis(picture, 0, -1).clip(0, 1), interpolation="nearest")
            axes.set_title(title if score is None else f"{title}  {score:.1f} dB", fontsize=7, pad=2)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.97, hspace=0.15, wspace=0.03)
    _save(figure, path)
