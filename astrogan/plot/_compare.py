"""`compare`: before, after, what changed, and how sure that is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from astrogan.exceptions import InputError
from astrogan.plot import _panel as panel
from astrogan.plot._layout import BOTTOM, TITLE, Box, columns_of, open_panels, panel_size
from astrogan.plot._planes import check_same_bands, in_unit, planes_of

__all__ = ["compare"]

__doctest_requires__ = {"*": ["matplotlib"]}


def compare(
    before,
    after,
    *,
    truth=None,
    diagnostics=None,
    band=None,
    titles=("before", "after"),
    stretch="asinh",
    limits=None,
    residual_limit=None,
    fig=None,
    axes=None,
):
    """Draw before, after, the residual and the uncertainty side by side, a row a band.

    Parameters
    ----------
    before, after : path, `~astropy.nddata.CCDData`, `~astropy.nddata.NDData`, array, list or dict
        What an operator got and what it gave, with the same bands. They are drawn with one colour scale. On different
        grids (a translation) both are drawn as flux per square arcsec, where both pixel scales are known.
    truth : same forms, optional
        What ``after`` ought to be, on its grid. Gets a panel of its own.
    diagnostics : `~astrogan.Diagnostics`, optional
        Of ``Restorer.diagnose``. Its residual, of the restored image seen through the PSF again, takes the place of the
        plain difference.
    band : str or int, optional
        Only this one, by name or number.
    titles : (str, str)
        Over the first two panels, and in the residual's label.
    stretch : {'asinh', 'linear', 'log', 'sqrt', 'power', 'squared', 'sinh'}
        As in `astropy.visualization.simple_norm`.
    limits : (low, high) or `~astropy.units.Quantity`, optional
        Ends of the colour scale, in the unit shown. Default: all but the faintest 0.5 % and
        the brightest 0.2 % of the pixels of ``before``, for each band.
    residual_limit : float, optional
        Ends of the residual's scale, in the unit of its colour bar. Default: as far as all but 0.5 % of the pixels
        reach; of residuals in units of sigma between 3 and 10.
    fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
        To draw into. Default: a new one.
    axes : sequence of `~matplotlib.axes.Axes`, optional
        To draw into, as many as there are panels, row by row.

    Returns
    -------
    `~matplotlib.figure.Figure`

    Raises
    ------
    InputError
        If an image is of no such form, bands do not match, ``truth`` or ``diagnostics`` has another shape, or an option
        is none of those.
    UnitError
        If units do not convert.
    MissingDependencyError
        If matplotlib is not installed.

    Notes
    -----
    The residual is, in this order: that of ``diagnostics``, (PSF (*) after - before) / sigma; after - truth, over the
    uncertainty of ``after``; after - before, over the uncertainty of ``before``. Where there is no uncertainty it is in
    the image's unit. Panels that there is nothing for, the uncertainty of a method that gives none, or the difference
    of images on different grids, are left out.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData, StdDevUncertainty
    >>> from astrogan.plot import compare
    >>> noise = StdDevUncertainty(np.ones((16, 16)))
    >>> image = CCDData(np.random.default_rng(0).normal(size=(16, 16)), unit="adu", uncertainty=noise)
    >>> [ax.get_title(loc="left") for ax in compare(image, image, titles=("raw", "restored")).axes]
    ['raw', 'restored', 'residual', 'uncertainty']
    """
    titles = _two(titles)
    first, second, true = _aligned(before, after, truth, band)
    residual = _residual(first, second, true, diagnostics, band, titles)
    kinds = ["before", "after"] + ["truth"] * (true is not None)
    kinds += ["residual"] * (residual is not None) + ["sigma"] * (second.sigma is not None)
    bars = [kind in ("residual", "sigma") or kind == ("truth" if true is not None else "after") for kind in kinds]
    figure, rows = _open(kinds, bars, first, second, fig, axes, diagnostics)
    note = "grey: masked" if _any_hidden(first, second) else ""
    for k, row in enumerate(rows):
        flux = [planes.data[k] for planes in (first, second, true) if planes is not None]
        norm = panel.norm_of(flux[:1], stretch, limits, first.unit)
        unit = panel.unit_label(first.unit)
        for kind, bar, ax in zip(kinds, bars, row, strict=True):
            grid = first if kind == "before" or (kind == "residual" and diagnostics is not None) else second
            if kind == "residual":
                data, what, of_sigma = residual
                values = [data[k]]
                scale = panel.symmetric(data if of_sigma else values, residual_limit, *((3, 10) if of_sigma else ()))
                mappable = panel.draw(ax, data[k], scale, panel.RESIDUAL)
                text, own_unit, heading = f"{_prefix(first, k)}{what}", "" if of_sigma else unit, "residual"
            elif kind == "sigma":
                values = [second.sigma[k]]
                mappable = panel.draw(ax, values[0], panel.norm_of(values, "linear"), panel.SIGMA)
                text, own_unit, heading = f"{_prefix(first, k)}1 sigma", unit, "uncertainty"
            else:
                planes, heading = {
                    "before": (first, titles[0]),
                    "after": (second, titles[1]),
                    "truth": (true, "truth"),
                }[kind]
                values, text, own_unit = flux, panel.flux_label(first.bands, k, first.unit), unit
                mappable = panel.draw(ax, planes.data[k], norm, panel.FLUX)
            if bar:
                panel.colour_bar(ax, mappable, values, text, own_unit)
            if axes is None:
                last = k == len(rows) - 1
                panel.coordinates(ax, grid.wcs, left=kind == "before", bottom=kind == "before" and last)
            panel.title(ax, heading if k == 0 else "", note if k == 0 and kind == kinds[-1] else "")
    return figure


def _two(titles):
    if isinstance(titles, str) or not hasattr(titles, "__len__") or len(titles) != 2:
        raise InputError(f"titles={titles!r} must be two, for before and after")
    return tuple(map(str, titles))


def _prefix(planes, k):
    named = len(planes.bands) > 1 or not planes.bands[k].isdigit()
    return f"{panel.plain(planes.bands[k])}: " if named else ""


def _any_hidden(*images):
    return any(np.isnan(planes.data).any() for planes in images)


def _aligned(before, after, truth, band):
    """Planes of both and of the truth in one unit and order of bands."""
    first = planes_of(before, "before").only(band)
    others = []
    for image, name in ((after, "after"), (truth, "truth")):
        planes = None if image is None else planes_of(image, name)
        if planes is not None and band is not None and len(planes.bands) > 1:
            planes = planes.only(band)
        if planes is not None:
            planes = in_unit(check_same_bands(first, planes, ("before", name)), first.unit, name)
            planes = replace(planes, bands=first.bands, unit=first.unit if first.unit is not None else planes.unit)
        others.append(planes)
    second, true = others
    first = replace(first, unit=second.unit)
    if true is not None and true.shape != second.shape:
        raise InputError(
            f"truth has shape {true.shape} and after {second.shape}; the truth must be on the grid of after"
        )
    if _differ(first, second) and first.pixel_scale and second.pixel_scale:
        first, second, true = (None if p is None else _per_area(p, second) for p in (first, second, true))
    return first, second, true


def _differ(first, second):
    scales = first.pixel_scale, second.pixel_scale
    return first.shape != second.shape or (all(scales) and abs(scales[0] / scales[1] - 1) > 1e-3)


def _per_area(planes, like):
    """Flux per square arcsec, unless it is that already."""
    from astropy import units as u

    if planes.unit is None or "surface" in panel.flux_label(("0",), 0, planes.unit):
        return planes
    scale = planes.pixel_scale or like.pixel_scale
    return planes.times(scale**-2, planes.unit / u.arcsec**2)


def _residual(first, second, true, diagnostics, band, titles):
    """Residual (band, y, x), what it is, and whether in units of sigma; `None` for images on different grids."""
    if diagnostics is not None:
        return _of_diagnostics(diagnostics, first, band, titles)
    if true is not None:
        difference, sigma, what = second.data - true.data, second.sigma, f"{titles[1]} − truth"
        owner = ""
    elif _differ(first, second):
        return None
    else:
        difference, sigma, what = second.data - first.data, first.sigma, f"{titles[1]} − {titles[0]}"
        owner = f" of {titles[0]}"
    if sigma is None:
        return difference, what, False
    return difference / sigma, f"({what}) / σ{owner}", True


def _of_diagnostics(diagnostics, first, band, titles):
    values = np.asarray(getattr(diagnostics, "residual", None), object)
    if values.ndim != 3:
        raise InputError(f"diagnostics is {type(diagnostics).__name__}; give what Restorer.diagnose returned")
    values = values.astype(float)
    if len(values) > len(first.bands):
        named = tuple(getattr(diagnostics, "bands", ()))
        k = named.index(first.bands[0]) if first.bands[0] in named else band
        values = values[[k]] if isinstance(k, int) else values
    if values.shape != first.data.shape:
        raise InputError(
            f"diagnostics has a residual of shape {values.shape} and before {first.data.shape}; "
            "give the diagnostics of this image"
        )
    values = np.where(np.isnan(first.data), np.nan, values)
    return values, f"(PSF ∗ {titles[1]} − {titles[0]}) / σ", True


def _open(kinds, bars, first, second, fig, axes, diagnostics):
    """The figure and its panels, a list a band."""
    grids = [
        first if kind == "before" or (kind == "residual" and diagnostics is not None) else second for kind in kinds
    ]
    tallest = max((first, second), key=lambda planes: planes.shape[0] / planes.shape[1])
    width, height = panel_size(tallest.shape, len(kinds))
    edges, total = columns_of(width, bars)
    boxes = [
        Box(x, TITLE + k * (height + 0.12), width, height, grid.wcs)
        for k in range(len(first.bands))
        for x, grid in zip(edges, grids, strict=True)
    ]
    size = (total, TITLE + len(first.bands) * (height + 0.12) + BOTTOM)
    figure, flat = open_panels(size, boxes, fig, axes)
    return figure, [flat[k : k + len(kinds)] for k in range(0, len(flat), len(kinds))]
