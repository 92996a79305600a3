"""Figures of the translation benchmark, after figures 3 to 6 of Lin et al. 2021."""

from __future__ import annotations

import numpy as np

from astrogan.bench._deblending_figure import _figure, _save
from astrogan.bench._translation_rows import FLOOR, stamps_of
from astrogan.bench._translation_scores import EDGES, REAL, TRUTH, seed_of
from astrogan.exceptions import AstroganError

__all__ = ["draw_examples", "draw_fields", "draw_fourier", "draw_noise", "draw_radial", "draw_variants"]

_COLOURS = {
    FLOOR: "0.55",
    "psf-matching": "#1f77b4",
    "lin2020": "#ff7f0e",
    "surveynet": "#d62728",
}
_OTHERS = ("#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#7f7f7f", "#aec7e8", "#98df8a")
_NAMES = {"sdss": "SDSS", "cfhtls": "CFHTLS"}
_PER_LINE = 7


def _colours(names):
    free = iter(_OTHERS * 9)
    return {name: _COLOURS.get(name) or next(free) for name in names}


def _label(name):
    """A row's name on at most two short lines."""
    for mark in (":", "lin2020-"):
        head, found, tail = name.partition(mark)
        if found and tail:
            return f"{head}{found.rstrip('-:')}\n{tail}"
    return name


def _legend(figure, axes):
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncol=5, frameon=False, fontsize=7.5, columnspacing=1.4)


def _title(direction):
    return " to ".join(_NAMES.get(part, part) for part in direction.split("-"))


# ---- example images -------------------------------------------------------------------------------------------------


def _chosen(pairs, number, count):
    """Some of the brightest, largest of the first pairs."""
    first = list(pairs(0, min(number, 40)))

    def size(pair):
        return pair.galaxy["magnitudes"]["r"] - 2.5 * np.log10(pair.galaxy["half_light_radius"])

    order = sorted(range(len(first)), key=lambda k: size(first[k]))[: 2 * count : 2] or [0]
    return [(k, first[k]) for k in order[:count]]


def _images(pair, k, rows, direction):
    """(title, stamp's bands, cube, pixel scale) of input, real image and all rows."""
    stamp, other = stamps_of(pair, direction)
    made = [("input", stamp.data), ("real", other.data)]
    for row in rows:
        try:
            made.append((row.name, row(stamp, other, np.random.default_rng(seed_of(row.name, k, direction, 0))).data))
        except AstroganError:
            made.append((row.name, None))
    return made


def rgb(cube, sigma, peak):
    """Colours of i, r and g: asinh of their mean over the noise, hue kept.

    Parameters
    ----------
    cube : `numpy.ndarray`
        (3, y, x): red, green, blue.
    sigma : float
        Flux at which the stretch turns from linear to logarithmic.
    peak : float
        Flux that becomes white.

    Returns
    -------
    `numpy.ndarray`
        (y, x, 3) in [0, 1].
    """
    cube = np.asarray(cube, np.float64)
    mean = np.maximum(cube.mean(axis=0), 1e-12)
    scale = np.arcsinh(mean / sigma) / np.arcsinh(peak / sigma) / mean
    shown = np.where(cube.mean(axis=0) > 0, cube * scale, cube / sigma / np.arcsinh(peak / sigma))
    shown = shown / np.maximum(shown.max(axis=0), 1)
    return np.clip(np.moveaxis(0.05 + 0.95 * shown, 0, -1), 0, 1)


def draw_examples(path, pairs, rows, direction, number, count=4):
    """Galaxies in g, r and i: the input, the real target, and what each row made, after figure 3 of the poster.

    Parameters
    ----------
    path : path
        Of the PNG.
    pairs : callable
        ``pairs(start, number)``.
    rows : sequence of Row
    direction : str
    number : int
        Pairs there are.
    count : int, optional
        Galaxies.
    """
    chosen = _chosen(pairs, number, count)
    columns = len(rows) + 2
    lines = -(-columns // _PER_LINE)
    across = -(-columns // lines)
    figure = _figure(1.75 * across + 0.1, (1.75 * len(chosen) + 0.42) * lines + 0.5)
    panels = figure.subplots(len(chosen) * lines, across, squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    for line, (k, pair) in enumerate(chosen):
        stamp, other = stamps_of(pair, direction)
        for n, (name, cube) in enumerate(_images(pair, k, rows, direction)):
            axes = panels[(n // across) * len(chosen) + line, n % across]
            seen = stamp if name == "input" else other
            if line == 0:
                axes.set_title(_label(name), fontsize=7.5, pad=3)
            if cube is None:
                axes.text(0.5, 0.5, "failed", ha="center", va="center", transform=axes.transAxes)
                continue
            planes = [list(seen.bands).index(b) if b in seen.bands else 0 for b in "irg"]
            truth = np.asarray(seen.truth)[planes].mean(axis=0)
            stretch = 2 * float(np.mean(seen.sigma[planes]))
            image = rgb(np.asarray(cube)[planes], stretch, max(float(np.percentile(truth, 99.8)), 3 * stretch))
            axes.imshow(image, origin="lower", interpolation="nearest")
            if n == 0:
                axes.text(0.03, 0.96, f"r = {pair.galaxy['magnitudes']['r']:.1f}", color="w", fontsize=7.5,
                          transform=axes.transAxes, va="top")  # fmt: skip
            if n < 2 and line == 0:
                _bar(axes, seen)
    _finish(figure, f"{_title(direction)}: i, r, g as red, green, blue; asinh stretch set by the real image", lines)
    _save(figure, path)


def _bar(axes, stamp):
    length = 5 / stamp.pixel_scale
    height = stamp.data.shape[1]
    axes.plot([0.06 * height, 0.06 * height + length], [0.07 * height] * 2, color="w", lw=1.6)
    axes.text(0.06 * height, 0.1 * height, '5"', color="w", fontsize=7.5)


def _finish(figure, text, lines=1):
    width, height = figure.get_size_inches()
    figure.subplots_adjust(left=0.05 / width, right=1 - 0.05 / width, bottom=0.32 / height, top=1 - 0.36 / height,
                           hspace=0.06 if lines == 1 else 0.2, wspace=0.04)  # fmt: skip
    figure.text(0.1 / width, 0.09 / height, text, fontsize=8.5)


def draw_variants(path, pairs, rows, direction, number):
    """One galaxy in z: the input, the real target, and every row, after figure 4 of the poster.

    Parameters
    ----------
    path, pairs, rows, direction, number
        As for `draw_examples`.
    """
    ((k, pair),) = _chosen(pairs, number, 1)
    stamp, other = stamps_of(pair, direction)
    band = other.bands[-1]
    images = _images(pair, k, rows, direction)
    lines = -(-len(images) // _PER_LINE)
    across = -(-len(images) // lines)
    figure = _figure(1.75 * across + 0.85, 2.02 * lines + 0.5)
    width, height = figure.get_size_inches()
    panels = figure.subplots(lines, across, squeeze=False)
    sigma, scale = float(other.sigma[-1]), (other.pixel_scale / stamp.pixel_scale) ** 2
    top = max(np.percentile(other.truth[-1], 99.9) / sigma, 10)
    for axes in panels.ravel():
        axes.set_axis_off()
    for axes, (name, cube) in zip(panels.ravel(), images, strict=False):
        axes.set_title(_label(name), fontsize=7.5, pad=3)
        if cube is None:
            continue
        # The input's surface brightness, so that one colour bar serves all.
        shown = np.asarray(cube[-1], np.float64) / sigma * (scale if name == "input" else 1)
        drawn = axes.imshow(np.arcsinh(shown), origin="lower", cmap="magma", vmin=np.arcsinh(-3),
                            vmax=np.arcsinh(top), interpolation="nearest")  # fmt: skip
    figure.subplots_adjust(left=0.05 / width, right=1 - 0.85 / width, bottom=0.34 / height, top=1 - 0.36 / height,
                           hspace=0.24, wspace=0.04)  # fmt: skip
    bar = figure.colorbar(drawn, cax=figure.add_axes([1 - 0.75 / width, 0.34 / height, 0.12 / width,
                                                      1 - 0.7 / height]))  # fmt: skip
    ticks = [t for t in (-3, 0, 3, 10, 30, 100, 300, 1000, 3000, 1e4, 3e4) if t <= top]
    bar.set_ticks(np.arcsinh(ticks), labels=[f"{t:g}" for t in ticks], fontsize=7)
    bar.set_label("flux / sky noise of the target", fontsize=7.5)
    text = f"{_title(direction)}, {band} band, r = {pair.galaxy['magnitudes']['r']:.1f}; asinh scale"
    figure.text(0.1 / width, 0.09 / height, text, fontsize=8.5)
    _save(figure, path)


# ---- radial distributions -------------------------------------------------------------------------------------------


def draw_radial(path, kept, bands, direction):
    """Mean radial flux distributions in r and how far they are from the real one's, after figure 5 of the poster.

    Parameters
    ----------
    path : path
    kept : dict
        {row: Measured}.
    bands : sequence of str
    direction : str
    """
    b = list(bands).index("r") if "r" in bands else 0
    middle = (EDGES[1:] + EDGES[:-1]) / 2
    real = kept[REAL].fractions[:, b]
    names = [name for name in kept if name not in (REAL, TRUTH)]
    colours = _colours(names)
    figure = _figure(11.5, 4.6)
    panels = figure.subplots(1, 3)
    low, high = np.nanpercentile(real, (16, 84), axis=0)
    panels[0].fill_between(middle, low, high, color="0.9", label="real, 16 to 84 %")
    panels[0].plot(middle, np.nanmedian(real, axis=0), color="k", lw=2.2, label="real")
    panels[1].plot(EDGES[1:], np.nanmedian(np.cumsum(real, axis=1), axis=0), color="k", lw=2.2)
    for name in names:
        own = kept[name].fractions[:, b]
        style = {"color": colours[name], "lw": 2 if name == "surveynet" else 1.3, "ls": "--" if name == FLOOR else "-"}
        panels[0].plot(middle, np.nanmedian(own, axis=0), label=name, **style)
        panels[1].plot(EDGES[1:], np.nanmedian(np.cumsum(own, axis=1), axis=0), **style)
        panels[2].plot(middle, np.nanmedian(np.abs(own - real), axis=0), **style)
    for axes, text in zip(panels, (f"part of the light in a ring, {bands[b]}", f"part within the radius, {bands[b]}",
                                   "median |difference to the real image|"), strict=True):  # fmt: skip
        axes.set_xlabel("radius (arcsec)")
        axes.set_ylabel(text)
        axes.set_xlim(0, EDGES[-1])
        axes.grid(color="0.92", lw=0.6)
    panels[0].set_ylim(bottom=0)
    panels[2].set_yscale("log")
    _legend(figure, panels[0])
    figure.suptitle(f"{_title(direction)}: radial flux distributions, medians over {len(real)} galaxies", fontsize=10,
                    y=0.03, va="bottom")  # fmt: skip
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.2, top=0.82, wspace=0.26)
    _save(figure, path)


# ---- Fourier maps ---------------------------------------------------------------------------------------------------


def draw_fourier(path, kept, bands, direction, scale):
    """Stacked 2-D Fourier maps in r, and the logarithm of their ratio to the real one, after figure 6 of the poster.

    Parameters
    ----------
    path, kept, bands, direction
        As for `draw_radial`.
    scale : float
        Arcsec per pixel of the target.
    """
    from astrogan.bench._translation_tables import stacked
    from astrogan.metrics import compare_fourier_maps

    b = list(bands).index("r") if "r" in bands else 0
    names = [REAL, *(name for name in kept if name not in (REAL, TRUTH))]
    lines = -(-len(names) // _PER_LINE)
    across = -(-len(names) // lines)
    figure = _figure(1.75 * across + 1.35, 3.95 * lines + 0.75)
    width, height = figure.get_size_inches()
    panels = figure.subplots(2 * lines, across, squeeze=False)
    for axes in panels.ravel():
        axes.set_visible(False)
    maps = {name: stacked(kept[name])[b] for name in names}
    logs = {name: np.log10(np.fft.fftshift(np.maximum(value, 1e-30))) for name, value in maps.items()}
    low, high = np.percentile(logs[REAL], (0.5, 99.9))
    half = 0.5 / scale
    extent = (-half, half, -half, half)
    for n, name in enumerate(names):
        top, below = panels[2 * (n // across), n % across], panels[2 * (n // across) + 1, n % across]
        first = top.imshow(logs[name], origin="lower", extent=extent, cmap="viridis", vmin=low, vmax=high)
        top.set_title(_label(name), fontsize=7.5, pad=3)
        top.set_visible(True)
        if name != REAL:
            ratio = compare_fourier_maps(maps[REAL], maps[name])
            second = below.imshow(ratio.log_ratio, origin="lower", extent=extent, cmap="RdBu_r", vmin=-2, vmax=2)
            below.set_title(f"mean |ln ratio| {ratio.error:.2f}", fontsize=7.5, pad=3)
            below.set_visible(True)
        for axes in (top, below):
            axes.tick_params(labelsize=6.5, length=2)
            if n % across and not (axes is below and n == 1):
                axes.set_yticklabels([])
        if name == REAL:
            top.set_ylabel("k$_y$ (cycles / arcsec)", fontsize=7.5)
        elif n % across == (1 if n < across else 0):
            below.set_ylabel("k$_y$ (cycles / arcsec)", fontsize=7.5)
        below.set_xlabel("k$_x$ (cycles / arcsec)", fontsize=7.5)
    figure.subplots_adjust(left=0.55 / width, right=1 - 0.8 / width, bottom=0.75 / height, top=1 - 0.38 / height,
                           hspace=0.25, wspace=0.08)  # fmt: skip
    for drawn, axes, text in ((first, panels[0, -1], "log$_{10}$ power (nmgy$^2$)"), (second, panels[1, -1],
                                                                                     "ln(power / real)")):  # fmt: skip
        box = axes.get_position()
        bar = figure.colorbar(drawn, cax=figure.add_axes([1 - 0.7 / width, box.y0, 0.1 / width, box.height]))
        bar.ax.tick_params(labelsize=6.5)
        bar.set_label(text, fontsize=7.5)
    text = f"{_title(direction)}, {bands[b]} band: Fourier maps stacked over {int(kept[REAL].number.sum())} galaxies"
    figure.text(0.1 / width, 0.09 / height, text, fontsize=8.5)
    _save(figure, path)


# ---- noise ----------------------------------------------------------------------------------------------------------


def draw_noise(path, kept, bands, direction):
    """Noise on source-free sky: the stamps' std, the autocorrelation and the two Fourier axes, each against the real.

    Parameters
    ----------
    path, kept, bands, direction
        As for `draw_radial`.
    """
    b = list(bands).index("r") if "r" in bands else 0
    names = [name for name in kept if name not in (TRUTH,) and kept[name].noise is not None]
    colours = _colours([n for n in names if n != REAL]) | {REAL: "k"}
    figure = _figure(11.5, 4.3)
    panels = figure.subplots(1, 3)
    if not names:
        figure.text(0.5, 0.5, "no stamp has enough sky", ha="center")
        _save(figure, path)
        return
    real = kept[REAL]
    for name in names:
        own = kept[name]
        style = {"color": colours[name], "lw": 2 if name in (REAL, "surveynet") else 1.3,
                 "ls": "--" if name == FLOOR else "-"}  # fmt: skip
        std = np.sort(own.noise.std[:, b] / np.nanmedian(real.noise.std[:, b]))
        panels[0].step(std, (np.arange(len(std)) + 1) / len(std), where="post", label=name, **style)
        acf = np.nanmean(own.noise.autocorrelation[:, b], axis=0)
        panels[1].plot(range(len(acf)), acf, marker="o", ms=3.5, **style)
        if name != REAL:
            for k, mark in enumerate(("-", ":")):
                ratio = np.nanmean(own.axes[:, b, k], axis=0) / np.nanmean(real.axes[:, b, k], axis=0)
                frequency = np.arange(1, len(ratio) + 1) / (2 * (len(ratio) + 0.5))
                panels[2].plot(frequency, ratio, color=colours[name], lw=1.1, ls=mark)
    panels[0].set_xscale("log")
    panels[0].set_xlim(0.5, max(2.0, 1.1 * panels[0].get_xlim()[1]))
    ticks = [t for t in (0.5, 0.7, 1, 1.4, 2, 3, 5, 7, 10, 20, 50, 100) if t <= panels[0].get_xlim()[1]]
    panels[0].set_xticks(ticks, [f"{t:g}" for t in ticks], fontsize=8)
    panels[0].minorticks_off()
    panels[0].set_xlabel(f"std of the sky / real median, {bands[b]}")
    panels[0].set_ylabel("part of the stamps below")
    panels[1].set_xticks(range(4), ["(0, 1)", "(1, 1)", "(0, 2)", "(0, 3)"])
    panels[1].set_xlabel("lag (dy, dx), pixels")
    panels[1].set_ylabel("autocorrelation")
    panels[2].axhspan(0.9, 1.1, color="0.93")
    panels[2].axhline(1, color="k", lw=0.8)
    panels[2].set_yscale("log")
    panels[2].set_xlabel("frequency (cycles / pixel)")
    panels[2].set_ylabel("power over real; solid k$_x$ = 0, dotted k$_y$ = 0")
    for axes in panels:
        axes.grid(color="0.92", lw=0.6)
    _legend(figure, panels[0])
    figure.text(0.5, 0.02, f"{_title(direction)}: noise of {len(real.noise.std)} stamps", ha="center", fontsize=10)
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.18, top=0.82, wspace=0.26)
    _save(figure, path)


# ---- centroids over the stamp ---------------------------------------------------------------------------------------


def draw_fields(path, table):
    """Error of the centroid of a bright compact source by its place in the stamp.

    Parameters
    ----------
    path : path
    table : `~astropy.table.Table`
        ``direction``, ``row``, ``x``, ``y`` (arcsec from the middle), ``dx``, ``dy`` (target pixels), ``error``.
    """
    directions = list(dict.fromkeys(map(str, table["direction"])))
    rows = list(dict.fromkeys(map(str, table["row"])))
    figure = _figure(1.9 * len(rows) + 1.4, 2.05 * len(directions) + 0.9)
    width, height = figure.get_size_inches()
    panels = figure.subplots(len(directions), len(rows), squeeze=False)
    for line, direction in zip(panels, directions, strict=True):
        for axes, row in zip(line, rows, strict=True):
            part = table[(table["direction"] == direction) & (table["row"] == row)]
            drawn = axes.scatter(part["x"], part["y"], c=np.log10(np.maximum(part["error"], 1e-4)), s=42, marker="s",
                                 cmap="magma_r", vmin=-3, vmax=0.5)  # fmt: skip
            worst = np.nanmax(part["error"]) if np.isfinite(part["error"]).any() else np.nan
            axes.set_title(f"{row}\nworst {worst:.3g} px", fontsize=7.5, pad=3)
            axes.set_aspect("equal")
            axes.tick_params(labelsize=6.5)
            if axes is not line[0]:
                axes.set_yticklabels([])
        line[0].set_ylabel(f"{_title(direction)}\ny (arcsec)", fontsize=7.5)
    for axes in panels[-1]:
        axes.set_xlabel("x (arcsec)", fontsize=7.5)
    figure.subplots_adjust(left=0.75 / width, right=1 - 0.85 / width, bottom=0.5 / height, top=1 - 0.5 / height,
                           hspace=0.35, wspace=0.1)  # fmt: skip
    bar = figure.colorbar(drawn, cax=figure.add_axes([1 - 0.72 / width, 0.5 / height, 0.12 / width, 1 - 1 / height]))
    bar.set_ticks([-3, -2, -1, 0], labels=["0.001", "0.01", "0.1", "1"], fontsize=7)
    bar.set_label("centroid error (target pixels)", fontsize=7.5)
    _save(figure, path)
