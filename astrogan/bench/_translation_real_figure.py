"""Figures of real images translated: galaxies beside what the other survey saw, a field, and its blank sky."""

from __future__ import annotations

import numpy as np

from astrogan.bench._deblending_figure import _figure, _save

__all__ = ["draw_fields", "draw_galaxies", "draw_sky"]

_EDGE, _BAR, _LEFT, _TOP = 1.75, 0.62, 0.55, 0.42  # inches
_SIGMA = 5.0
_STEEP = 0.01
_SPAN = 20.0
"""Arcsec: the edge of the panels of a field."""
_BLANK = 8.0


def draw_galaxies(path, galaxies, direction, results, names):
    """A line a galaxy: the image, each method's result, the other survey's own, and what is left over its noise.

    Parameters
    ----------
    path : path
        Of the PNG.
    galaxies : list of Galaxy
    direction : str
    results : dict
        {(galaxy's name, direction): {row: Result}}.
    names : sequence of str
        Of the rows that are shown.
    """
    columns = 2 + 2 * len(names)
    sheet = _Sheet(len(galaxies), columns, bars=2, gap_at=2 + len(names))
    source, wanted = direction.split(" to ")
    titles = [f"{source}, as observed", *names, f"{wanted}, as observed", *(f"{n} $-$ {wanted}" for n in names)]
    for line, galaxy in enumerate(galaxies):
        image, real = galaxy.views(direction)
        found = results[galaxy.name, direction]
        frame = _frame(real)
        # Per square arcsec, so that pixels of two sizes share one scale.
        top = (real.data[real.galaxy].max() - _level(real)) / real.scale**2
        panels = [
            (image, image.data, image.valid),
            *((real, found[n].data, found[n].valid) for n in names),
            (real, real.data, real.valid),
        ]
        for column, (view, data, valid) in enumerate(panels):
            blank = view.blank & valid
            data = (data - np.median(data[blank])) / view.scale**2 / top
            axes = sheet.axes(line, column, titles[column] if line == 0 else None)
            shown = axes.imshow(np.where(valid, data, np.nan), norm=_norm(), **_placed(view, frame))
            _limits(axes, frame)
        for number, n in enumerate(names):
            axes = sheet.axes(line, 2 + len(names) + number, titles[2 + len(names) + number] if line == 0 else None)
            left = _residual(found[n], real)
            residual = axes.imshow(left, vmin=-_SIGMA, vmax=_SIGMA, cmap="RdBu_r", **_placed(real, frame))
            _limits(axes, frame)
        sheet.label(line, galaxy.name)
        sheet.scale(line, frame)
    sheet.bar(0, shown, "surface brightness / peak of the real image", [0, 0.01, 0.03, 0.1, 0.3, 1])
    sheet.bar(1, residual, f"(result $-$ {wanted}) / noise of {wanted}", [-4, -2, 0, 2, 4])
    _save(sheet.figure, path)


def _residual(result, real):
    valid = result.valid & real.valid
    blank = valid & real.blank
    difference = result.data - np.median(result.data[blank]) - real.data + np.median(real.data[blank])
    return np.where(valid, difference / real.sigma, np.nan)


def _level(view):
    return float(np.median(view.data[view.blank]))


def draw_fields(path, fields, results):
    """Bands by methods: CFHTLS, as KiDS would have it, and another field by KiDS.

    Parameters
    ----------
    path : path
        Of the PNG.
    fields : Fields
    results : dict
        {row: {band: image}}, with noise.
    """
    bands = tuple(fields.real)
    sheet = _Sheet(len(bands), 2 + len(results), bars=1, gap_at=1 + len(results))
    x, y = _pair_of_galaxies(next(iter(fields.images.values())))
    titles = ["CFHTLS, as observed", *(f"{n}, with noise" for n in results), "KiDS, another field"]
    for line, band in enumerate(bands):
        wanted = fields.survey[band]
        place = fields.images[band].wcs.all_pix2world(x, y, 0)
        images = [fields.images[band], *(images[band] for images in results.values()), fields.real[band]]
        for column, image in enumerate(images):
            centre = (50, 50) if column == len(images) - 1 else image.wcs.all_world2pix(*place, 0)
            axes = sheet.axes(line, column, titles[column] if line == 0 else None)
            # In the noise of KiDS, per area.
            unit = wanted.sigma / wanted.pixel_scale**2
            scale = _scale(image)
            shown = axes.imshow(
                _cut(image, centre, _SPAN) / scale**2 / unit, norm=_asinh(-4, 60, 0.1), origin="lower", cmap="viridis"
            )
        sheet.label(line, band)
        sheet.scale(line, _SPAN / scale, arcsec=5.0, unit=scale)
    sheet.bar(0, shown, "surface brightness / noise of a KiDS pixel", [-3, 0, 3, 10, 30])
    _save(sheet.figure, path)


def draw_sky(path, fields, results):
    """Blank sky of each method's result beside KiDS's own, with its correlation by lag.

    Parameters
    ----------
    path : path
        Of the PNG.
    fields : Fields
    results : dict
        {row: {band: image}}, with noise.
    """
    from astrogan.bench._translation_real_fields import blank_sky
    from astrogan.metrics import noise_autocorrelation

    bands = tuple(fields.real)
    lags = range(1, 6)
    sheet = _Sheet(len(bands), 2 + len(results), bars=1, curve=True)
    for line, band in enumerate(bands):
        sigma = fields.survey[band].sigma
        panels = {n: images[band] for n, images in results.items()} | {"KiDS": fields.real[band]}
        curves = sheet.curve_axes(line, "correlation along x and y" if line == 0 else None, line == len(bands) - 1)
        for column, (name, image) in enumerate(panels.items()):
            residual, sky = blank_sky(image)
            axes = sheet.axes(line, column, name if line == 0 else None)
            shown = axes.imshow(
                _emptiest(residual, sky, round(_BLANK / _scale(image))) / sigma,
                vmin=-4,
                vmax=4,
                cmap="gray",
                origin="lower",
            )
            pairs = [(0, lag) for lag in lags] + [(lag, 0) for lag in lags]
            values = np.asarray(noise_autocorrelation(residual, lags=pairs, mask=~sky)).reshape(2, -1).mean(axis=0)
            style = {"color": "k", "lw": 2} if name == "KiDS" else {"marker": "o", "ms": 4, "lw": 1.2}
            curves.plot(list(lags), values, label=name, **style)
        if line == 0:
            curves.legend(fontsize=7, frameon=False)
        curves.axhline(0, color="0.7", lw=0.7, zorder=0)
        curves.set_ylim(-0.16, 0.3)
        sheet.label(line, band)
        sheet.scale(line, _BLANK / _scale(image), arcsec=2.0, unit=_scale(image))
    sheet.bar(0, shown, "(image $-$ background) / noise of KiDS", [-4, -2, 0, 2, 4])
    _save(sheet.figure, path)


# ---- panels ---------------------------------------------------------------------------------------------------------


class _Sheet:
    """Square panels in lines and columns, colour bars below, labels at the left."""

    def __init__(self, lines, columns, *, bars, gap_at=None, curve=False):
        self.gap_at, self.lines, self.columns = gap_at, lines, columns
        self.gap = 0.12 if gap_at is not None else 0.0
        self.width = _LEFT + columns * (_EDGE + 0.04) + self.gap + 0.1 + (0.45 if curve else 0)
        self.height = _TOP + lines * (_EDGE + 0.04) + _BAR + (0.25 if curve else 0.05)
        self.figure = _figure(self.width, self.height)
        self.bars = bars
        self.bottom = self.height - _BAR

    def axes(self, line, column, title=None):
        """A panel without ticks."""
        x = _LEFT + column * (_EDGE + 0.04) + (self.gap if self.gap_at is not None and column >= self.gap_at else 0)
        axes = self._add(x, _TOP + line * (_EDGE + 0.04), _EDGE, _EDGE)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor("0.85")
        if title:
            axes.set_title(title, fontsize=8.5, pad=4)
        return axes

    def curve_axes(self, line, title, last):
        """The last column, with axes."""
        x = _LEFT + (self.columns - 1) * (_EDGE + 0.04) + 0.45
        axes = self._add(x, _TOP + line * (_EDGE + 0.04), _EDGE, _EDGE - 0.06)
        axes.tick_params(labelsize=7.5, direction="in", labelbottom=last)
        if last:
            axes.set_xlabel("lag [pixel]", fontsize=8, labelpad=1)
        if title:
            axes.set_title(title, fontsize=8.5, pad=4)
        return axes

    def label(self, line, text):
        y = 1 - (_TOP + line * (_EDGE + 0.04) + _EDGE / 2) / self.height
        self.figure.text((_LEFT - 0.1) / self.width, y, text, rotation=90, ha="right", va="center", fontsize=9)

    def scale(self, line, frame, arcsec=5.0, unit=1.0):
        """A bar of so many arcsec in the first panel of a line."""
        from matplotlib.patheffects import withStroke

        axes = next(a for a in self.figure.axes if getattr(a, "_line", None) == line)
        low, high = axes.get_xlim()
        bottom, top = axes.get_ylim()
        x0, length, y = low + 0.06 * (high - low), arcsec / unit, bottom + 0.07 * (top - bottom)
        rim = [withStroke(linewidth=2.5, foreground="black")]
        axes.plot([x0, x0 + length], [y, y], color="white", lw=2, solid_capstyle="butt", path_effects=rim)
        text = f"{arcsec:g}\N{DOUBLE PRIME}"
        axes.text(x0, y + 0.03 * (top - bottom), text, color="white", fontsize=8, path_effects=rim)

    def bar(self, number, shown, label, ticks):
        each = (self.width - _LEFT - 0.1) / self.bars
        axes = self._add(_LEFT + number * each + 0.1 * each, self.height - _BAR + 0.14, 0.75 * each, 0.11)
        bar = self.figure.colorbar(shown, cax=axes, orientation="horizontal", ticks=ticks, format="%g")
        bar.ax.tick_params(labelsize=8, pad=1)
        bar.ax.minorticks_off()
        bar.set_label(label, fontsize=8.5, labelpad=1)

    def _add(self, x, y, width, height):
        axes = self.figure.add_axes(
            (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        )
        axes._line = round((y - _TOP) / (_EDGE + 0.04)) if x < _LEFT + 0.01 else None
        return axes


def _norm():
    return _asinh(-0.02, 1.0, _STEEP)


def _asinh(low, high, steep):
    from astropy.visualization import AsinhStretch, ImageNormalize

    return ImageNormalize(vmin=low, vmax=high, stretch=AsinhStretch(steep))


def _frame(view):
    """Half the edge, in arcsec, of the square about the galaxy that is shown; no more than the image is wide."""
    rows, columns = np.nonzero(view.galaxy)
    reach = max(np.ptp(rows), np.ptp(columns)) / 2 * 1.25
    return min(reach, min(view.data.shape) / 2 - 1) * view.scale


def _placed(view, frame):
    """Arguments for imshow: arcsec from the place on the sky that both views have in common."""
    x, y = view.wcs.wcs.crpix - 1
    height, width = view.data.shape
    left, bottom = (-0.5 - x) * view.scale, (-0.5 - y) * view.scale
    return {
        "extent": (left, left + width * view.scale, bottom, bottom + height * view.scale),
        "origin": "lower",
        "interpolation": "nearest",
    }


def _limits(axes, frame):
    axes.set_xlim(-frame, frame)
    axes.set_ylim(-frame, frame)


def _scale(image):
    from astrogan.image.wcs import pixel_scale

    return pixel_scale(image.wcs, image.shape)


def _cut(image, centre, span):
    """A square of ``span`` arcsec about (x, y)."""
    half = round(span / _scale(image) / 2)
    x, y = (round(float(p)) for p in centre)
    data = np.pad(np.asarray(image.data, float), half, constant_values=np.nan)
    return data[y : y + 2 * half, x : x + 2 * half]


def _pair_of_galaxies(image):
    """The middle of the brightest extended light away from what is masked: where a field is worth a look."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    mask = np.zeros(image.shape, bool) if image.mask is None else np.asarray(image.mask)
    half = _SPAN / _scale(image) / 2
    far = distance_transform_edt(~mask) if mask.any() else np.full(image.shape, np.inf)
    smooth = gaussian_filter(np.where(mask, 0, image.data), 8.0)
    y, x = np.indices(image.shape)
    height, width = image.shape
    inside = (x > half) & (x < width - half) & (y > half) & (y < height - half) & (far > 1.25 * half)
    y, x = np.unravel_index(np.where(inside, smooth, -np.inf).argmax(), image.shape)
    return int(x), int(y)


def _emptiest(residual, sky, edge):
    """The square of an image with most blank sky."""
    from scipy.ndimage import uniform_filter

    edge = min(edge, *residual.shape)
    share = uniform_filter(sky.astype(float), edge, mode="constant")
    y, x = np.unravel_index(share.argmax(), share.shape)
    y0, x0 = (int(np.clip(p - edge // 2, 0, n - edge)) for p, n in zip((y, x), residual.shape, strict=True))
    return residual[y0 : y0 + edge, x0 : x0 + edge]
