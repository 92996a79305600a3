"""The demonstration's figure: the field, the restorations with their residuals, and one blend taken apart."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np

_COLUMNS = 5  # restorations side by side, beside two columns of truth
_EDGE, _GAP, _BAR = 1.62, 0.06, 0.14  # inches: edge of a small panel, gaps, width of a colour bar
_LEFT, _RIGHT, _TOP = 0.62, 0.72, 0.42
_TITLE = 0.30  # room for a line above a block
_GAINS = (1.35, 1.0, 0.72)  # g, r, i: brings a galaxy of middling colour near white
_SOURCE_COLOURS = ("#4cc9f0", "#f9c74f", "#f472b6")
_RESIDUAL_RANGE = 10.0  # sky sigma
_MASK_GREY = 90


class _Cutout(NamedTuple):
    """A square of the field: its slices, and its edges (left, right, bottom, top) in arcsec from its centre."""

    y: slice
    x: slice
    extent: tuple[float, float, float, float]

    def of(self, cube):
        return cube[..., self.y, self.x]


class _Page:
    """A figure whose panels are placed in inches from its top left corner, so that squares meet exactly."""

    def __init__(self, width, height):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(self.figure)
        self.width, self.height = width, height

    def panel(self, x, y, width, height):
        return self.figure.add_axes(
            (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        )

    def small(self, row, column, top, span=1):
        """A square in the grid of small panels, over ``span`` rows and columns."""
        edge = span * _EDGE + (span - 1) * _GAP
        return self.panel(_LEFT + column * (_EDGE + _GAP), top + row * (_EDGE + _GAP), edge, edge)

    def bar(self, row, top):
        return self.panel(_LEFT + (_COLUMNS + 2) * (_EDGE + _GAP), top + row * (_EDGE + _GAP), _BAR, _EDGE)

    def title(self, text, y):
        self.figure.text(_LEFT / self.width, 1 - (y - 0.07) / self.height, text, fontsize=10.5, va="bottom")


def draw_figure(run, path):
    """Draw all panels and write a PNG.

    Parameters
    ----------
    run : object
        The demonstration's run: ``field``, ``degraded``, ``comparison``, ``restored``, ``deblended``, ``translated``,
        ``tables``.
    path : path-like
        Of the PNG.
    """
    shown = _restoration_panels(run)
    pairs = max(ceil(len(shown) / _COLUMNS), 2)
    width = _LEFT + (_COLUMNS + 2) * (_EDGE + _GAP) + _BAR + _RIGHT
    field_edge = ((_COLUMNS + 2) * (_EDGE + _GAP) - _GAP - 2 * 0.48) / 3
    restorations = _TOP + field_edge + 0.55 + _TITLE
    blends = restorations + 2 * pairs * (_EDGE + _GAP) + 0.12 + _TITLE
    page = _Page(width, blends + len(run.deblended) * (_EDGE + _GAP) + 0.12)
    spiral = _around_spiral(run)
    _draw_fields(page, _TOP, field_edge, run, spiral)
    page.title(
        "d   a spiral of the degraded image, restored; below each, its residual from the truth at the original seeing",
        restorations,
    )
    _draw_restorations(page, restorations, run, spiral, shown)
    if run.deblended and _around_blend(run) is not None:
        page.title("e   a blend of the original taken apart", blends)
        _draw_blends(page, blends, run)
    page.figure.savefig(path, dpi=130, format="png", metadata={"Software": "astrogan"})


# ---- the whole field ----------------------------------------------------------------------------------------------


def _draw_fields(page, top, edge, run, spiral):
    simulated = run.field
    white = _white(simulated)
    extent = _extent(simulated.truth.shape[1:], simulated.pixel_scale)
    panels = [
        ("a   original", simulated.images, simulated.pixel_scale, False),
        ("b   degraded", run.degraded, simulated.pixel_scale, True),
    ]
    for name, images in list(run.translated.items())[:1]:
        panels.append((f"c   as SDSS ({name})", images, _scale(next(iter(images.values())).wcs), True))
    for k, (title, images, scale, hide) in enumerate(panels):
        axes = page.panel(_LEFT + k * (edge + 0.48), top, edge, edge)
        rgb = _rgb(_cube(images) * (simulated.pixel_scale / scale) ** 2, white)
        if hide:
            rgb[_masked(images).all(axis=0)] = _MASK_GREY
        axes.imshow(rgb, origin="lower", extent=_extent(rgb.shape, scale), interpolation="nearest")
        axes.set_xlim(extent[:2])
        axes.set_ylim(extent[2:])
        axes.set_facecolor("0.2")
        axes.set_title(f"{title}, {_seeing(images, scale)}", loc="left", fontsize=10.5)
        axes.tick_params(labelsize=8.5, direction="in", color="white")
        axes.set_xlabel("x  [arcsec]", fontsize=9, labelpad=2)
        if k == 0:
            axes.set_ylabel("y  [arcsec]", fontsize=9, labelpad=0)
            for cut, letter in ((spiral, "d"), (_around_blend(run), "e")):
                if cut is not None:
                    _mark(axes, cut, letter, extent, scale)


def _mark(axes, cut, letter, extent, scale):
    """A square where a block below looks."""
    from matplotlib.patches import Rectangle

    x, y = extent[0] + cut.x.start * scale, extent[2] + cut.y.start * scale
    size = (cut.x.stop - cut.x.start) * scale
    axes.add_patch(Rectangle((x, y), size, size, fill=False, color="white", lw=1))
    _label(axes, letter, xy=(x + 0.02 * extent[1], y + size - 0.02 * extent[1]), data=True, weight="bold", fontsize=10)


# ---- one spiral, restored -----------------------------------------------------------------------------------------


def _restoration_panels(run):
    """(title, cube) of the original and of the restorations, the best ones where there are more than two rows take."""
    shown = [(f"original\n{_ceiling(run):.2f} dB", _cube(run.field.images))]
    for result in run.restored:
        name = "degraded (identity)" if result.name == "identity" else result.name
        shown.append((f"{name}\n{result.psnr:.2f} dB", result.data))
    return shown[: 2 * _COLUMNS]


def _ceiling(run):
    """PSNR of the original, the last row of the first table."""
    rows = next(iter(run.tables.values()))
    return float(rows["psnr"][-1])


def _draw_restorations(page, top, run, spiral, shown):
    simulated, white = run.field, _white(run.field)
    large = [
        (f"truth at {simulated.sharp_fwhm:.1f} arcsec", simulated.truth_sharp),
        ("truth at the original seeing", simulated.truth),
    ]
    for k, (title, cube) in enumerate(large):
        axes = page.small(2 * k, 0, top, span=2)
        _image(axes, _rgb(spiral.of(cube), white), spiral)
        _label(axes, title, fontsize=10.5)
        if k == 0:
            _scale_bar(axes, spiral, 5)
    band = _reference_band(simulated)
    sigma = simulated.sky_sigma[band]
    for k, (title, cube) in enumerate(shown):
        row, column = 2 * (k // _COLUMNS), 2 + k % _COLUMNS
        axes = page.small(row, column, top)
        _image(axes, _rgb(spiral.of(cube), white), spiral)
        _label(axes, title, fontsize=8.5)
        residual = np.where(run.comparison.mask[band], np.nan, cube[band] - simulated.truth[band])
        mappable = _residual(page.small(row + 1, column, top), spiral.of(residual) / sigma, spiral)
        if column == 2:
            label = f"{simulated.bands[band]}: (image $-$ truth) / $\\sigma_{{sky}}$"
            _colour_bar(page, page.bar(row + 1, top), mappable, label)


# ---- a blend, taken apart -----------------------------------------------------------------------------------------


def _draw_blends(page, top, run):
    cut = _around_blend(run)
    members = _blend_members(run)
    for row, deblended in enumerate(run.deblended):
        _draw_blend(page, top, row, deblended, cut, members, run.field)


def _draw_blend(page, top, row, deblended, cut, members, simulated):
    """One deblender: the blend with outlines, its sources (of a pair, then the truth), models, and differences."""
    white, band = _white(simulated), _reference_band(simulated)
    sigma = simulated.sky_sigma[band]
    result, image = deblended.result, cut.of(_cube(simulated.images))
    axes = page.small(row, 0, top)
    _image(axes, _rgb(image, white), cut)
    _label(axes, deblended.name, fontsize=9.5)
    if row == 0:
        _scale_bar(axes, cut, 2)
    for k, found in enumerate(_matched_rows(result, members, simulated)):
        panel = page.small(row, 1 + k, top)
        if found is None:
            _empty(panel, "not found")
            continue
        source, model = (cut.of(_full(result, found, what)) for what in ("sources", "models"))
        _outline(axes, model[band], sigma, cut, _SOURCE_COLOURS[k])
        _image(panel, _rgb(source, white), cut, frame=_SOURCE_COLOURS[k])
        _label(panel, f"source {k + 1}", color=_SOURCE_COLOURS[k])
    if len(members) == 2:
        panel = page.small(row, 3, top)
        _image(panel, _rgb(cut.of(simulated.truth), white), cut)
        _label(panel, "truth")
    models = cut.of(_all_models(result, simulated.truth.shape))
    panel = page.small(row, 4, top)
    _image(panel, _rgb(models, white), cut)
    _label(panel, "all models")
    hidden = cut.of(simulated.mask[band])
    truth = cut.of(simulated.truth[band])
    differences = {"image $-$ models": image[band] - models[band], "models $-$ truth": models[band] - truth}
    for k, (title, difference) in enumerate(differences.items()):
        panel = page.small(row, 5 + k, top)
        mappable = _residual(panel, np.where(hidden, np.nan, difference / sigma), cut)
        _label(panel, title, dark=True)
    _colour_bar(page, page.bar(row, top), mappable, f"{simulated.bands[band]}: difference / $\\sigma_{{sky}}$")


def _matched_rows(result, members, simulated):
    """Rows of the result's catalog for the members of the blend, `None` where there is no match."""
    from astrogan.metrics import match_positions

    found = np.column_stack([np.asarray(result.catalog["x"]), np.asarray(result.catalog["y"])]).reshape(-1, 2)
    matches = match_positions(members, found, radius=1.0 / simulated.pixel_scale)
    rows = [None] * len(members)
    for true, row in zip(matches.truth, matches.found, strict=True):
        rows[true] = int(row)
    return rows


def _full(result, row, what):
    """Source or model in the full frame, (band, y, x)."""
    image = getattr(result, what)[row]
    full = np.zeros(result.residual.shape)
    y, x = (int(result.catalog[f"bbox_{axis}min"][row]) for axis in "yx")
    height, width = image.shape[-2:]
    full[..., y : y + height, x : x + width] = image.data
    return full


def _all_models(result, shape):
    total = np.zeros(shape)
    for row, model in enumerate(result.models):
        y, x = (int(result.catalog[f"bbox_{axis}min"][row]) for axis in "yx")
        height, width = model.shape[-2:]
        total[..., y : y + height, x : x + width] += model.data
    return total


# ---- where to look ------------------------------------------------------------------------------------------------


def _around_spiral(run):
    """A square around the largest spiral that no masked pixel crosses."""
    catalog, shape = run.field.catalog, run.field.truth.shape[1:]
    spirals = catalog[(catalog["type"] == "spiral") & (catalog["blend"] == 0)]
    reach = 3.1 / run.field.pixel_scale
    cuts = [_square(run.field, s["x"], s["y"], 2 * int(reach * s["half_light_radius"])) for s in spirals]
    mask = run.field.mask.any(axis=0)
    cuts.sort(key=lambda c: (c.of(mask).any(), -(c.x.stop - c.x.start)))
    return cuts[0] if cuts else _square(run.field, shape[1] / 2, shape[0] / 2, min(shape) // 3)


def _blend_members(run):
    """Positions of the members of the blend to show, brightest first: off the masks, found by most, of most members."""
    catalog = run.field.catalog
    mask = run.field.mask.any(axis=0)
    flux = catalog[f"flux_{run.field.bands[_reference_band(run.field)]}"]
    best, best_rank = None, None
    for number in sorted(set(catalog["blend"]) - {0}):
        rows = np.flatnonzero(catalog["blend"] == number)
        rows = rows[np.argsort(-np.asarray(flux[rows]))]
        positions = np.column_stack([catalog["x"][rows], catalog["y"][rows]])
        cut = _square(run.field, *positions.mean(axis=0), 40)
        found = [_matched_rows(d.result, positions, run.field) for d in run.deblended]
        missing = sum(row is None for rows_found in found for row in rows_found)
        rank = (bool(cut.of(mask).any()), missing, -len(rows), number)
        if best_rank is None or rank < best_rank:
            best, best_rank = positions, rank
    return best


def _around_blend(run):
    members = _blend_members(run)
    if members is None:
        return None
    reach = np.ptp(members, axis=0).max() / 2 + 3.4 / run.field.pixel_scale
    return _square(run.field, *((members.max(axis=0) + members.min(axis=0)) / 2), 2 * ceil(reach))


def _square(simulated, x, y, size):
    """A square of about ``size`` pixels around a place, moved into the image where it sticks out."""
    ny, nx = simulated.truth.shape[1:]
    size = min(size, ny, nx)
    x0, y0 = (int(np.clip(round(c - size / 2), 0, n - size)) for c, n in ((x, nx), (y, ny)))
    half = 0.5 * size * simulated.pixel_scale
    return _Cutout(slice(y0, y0 + size), slice(x0, x0 + size), (-half, half, -half, half))


# ---- panels -------------------------------------------------------------------------------------------------------


def _image(axes, rgb, cut, frame=None):
    axes.imshow(rgb, origin="lower", extent=cut.extent, interpolation="nearest")
    _bare(axes, frame)


def _residual(axes, values, cut):
    from matplotlib import colormaps

    colours = colormaps["RdBu_r"].with_extremes(bad="0.6")
    shown = axes.imshow(
        values,
        origin="lower",
        extent=cut.extent,
        interpolation="nearest",
        cmap=colours,
        vmin=-_RESIDUAL_RANGE,
        vmax=_RESIDUAL_RANGE,
    )
    _bare(axes)
    return shown


def _bare(axes, frame=None):
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(2.2 if frame else 0.6)
        spine.set_color(frame or "0.3")


def _empty(axes, text):
    _bare(axes)
    axes.set_facecolor("0.93")
    axes.set_box_aspect(1)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=9, color="0.35")


def _colour_bar(page, axes, mappable, label):
    bar = page.figure.colorbar(mappable, cax=axes, extend="both", ticks=[-10, -5, 0, 5, 10])
    bar.set_label(label, fontsize=8, labelpad=1)
    bar.ax.tick_params(labelsize=8, length=2, pad=1)


def _label(axes, text, *, xy=(0.04, 0.96), color="white", dark=False, fontsize=9, data=False, **style):
    """Text in the upper left corner, with an edge that keeps it legible on any image."""
    from matplotlib.patheffects import withStroke

    edge = withStroke(linewidth=2.2, foreground="white" if dark else "black", alpha=0.75)
    axes.text(
        *xy,
        text,
        transform=axes.transData if data else axes.transAxes,
        color="black" if dark else color,
        fontsize=fontsize,
        va="top",
        linespacing=1.15,
        path_effects=[edge],
        **style,
    )


def _scale_bar(axes, cut, length):
    left, right, bottom, top = cut.extent
    x, y = left + 0.05 * (right - left), bottom + 0.05 * (top - bottom)
    axes.plot([x, x + length], [y, y], color="white", lw=1.6, solid_capstyle="butt")
    y += 0.015 * (top - bottom)
    axes.text(x + length / 2, y, f'{length}"', color="white", fontsize=9, ha="center", va="bottom")


def _outline(axes, model, sigma, cut, colour):
    """The model's isophote at twice the sky noise."""
    if model.max() > 2 * sigma:
        axes.contour(model, [2 * sigma], colors=colour, linewidths=1.1, extent=cut.extent)


# ---- numbers ------------------------------------------------------------------------------------------------------


def _cube(images):
    return np.stack([np.asarray(image.data, np.float64) for image in images.values()])


def _masked(images):
    return np.stack([np.zeros(i.shape, bool) if i.mask is None else np.asarray(i.mask, bool) for i in images.values()])


def _extent(shape, scale):
    """Edges (left, right, bottom, top) in arcsec from the centre."""
    half_y, half_x = (0.5 * scale * n for n in shape[:2])
    return (-half_x, half_x, -half_y, half_y)


def _scale(wcs):
    from astrogan.image.wcs import pixel_scale

    return pixel_scale(wcs)


def _seeing(images, scale):
    from astrogan.image.psf import psf_fwhm

    widths = [psf_fwhm(image.psf) * scale for image in images.values() if image.psf is not None]
    if not widths:
        return f"{scale:.2f} arcsec/pixel"
    low, high = min(widths), max(widths)
    return f"FWHM {low:.1f} arcsec" if high - low < 0.05 else f"FWHM {low:.1f}–{high:.1f} arcsec"


def _reference_band(simulated):
    return simulated.bands.index("r") if "r" in simulated.bands else len(simulated.bands) - 1


def _white(simulated):
    """Softening and sky level of the colour images, from the noise of the original."""
    return float(np.median(simulated.sky_sigma * np.array(_GAINS)))


def _rgb(cube, sigma):
    """Lupton et al. (2004) colours, the same for all panels."""
    from astropy.visualization import make_lupton_rgb

    blue, green, red = (np.nan_to_num(np.asarray(c, np.float64)) * g for c, g in zip(cube, _GAINS, strict=True))
    return make_lupton_rgb(red, green, blue, minimum=-1.5 * sigma, stretch=18 * sigma, Q=8)
