"""`plot_sources`: an image taken apart."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from astrogan.exceptions import InputError
from astrogan.plot import _panel as panel
from astrogan.plot._layout import BAR, BOTTOM, GAP, LEFT, TITLE, Box, columns_of, open_panels, panel_size
from astrogan.plot._planes import planes_of

__all__ = ["plot_sources"]

__doctest_requires__ = {"*": ["matplotlib"]}

# Okabe and Ito (2008), without black: told apart by colour-blind readers.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
_PAIRS = 3  # source and model, side by side, in a row
_MARKED = 60  # sources that get their number written beside them


def plot_sources(
    result, *, band=None, sources=6, stretch="asinh", limits=None, residual_limit=None, fig=None, axes=None
):
    """Draw a deblended image, its models, residual and segments, and below them its sources one by one.

    Parameters
    ----------
    result : `~astrogan.DeblendResult`
    band : str or int, optional
        The band that is drawn, by name or number. Default: the middle one.
    sources : int or sequence of int
        How many sources get a panel, the brightest in the catalog first, or which, by their ``id``; 0 for none.
    stretch : {'asinh', 'linear', 'log', 'sqrt', 'power', 'squared', 'sinh'}
        As in `astropy.visualization.simple_norm`.
    limits : (low, high) or `~astropy.units.Quantity`, optional
        Ends of the colour scale that image, models and sources share, in the image's unit.
    residual_limit : float, optional
        Ends of the residual's scale. Default: as far as all but 0.5 % of the pixels reach, and between 3 and 10 sigma
        where the image has an uncertainty.
    fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
        To draw into. Default: a new one.
    axes : sequence of `~matplotlib.axes.Axes`, optional
        To draw into: image, models, residual, segments, then source and model of each source.

    Returns
    -------
    `~matplotlib.figure.Figure`
        The residual is image - models: what belongs to no source, and what the shares of noise hide in the sources.

    Raises
    ------
    InputError
        If ``result`` is no `~astrogan.DeblendResult`, there is no such band or source, or an option is none of those.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astrogan import Deblender
    >>> from astrogan.plot import plot_sources
    >>> y, x = np.mgrid[:40, :40]
    >>> stars = sum(100 * np.exp(-((x - c) ** 2 + (y - 20) ** 2) / 8) for c in (15, 24))
    >>> image = CCDData(stars + np.random.default_rng(0).normal(size=stars.shape), unit="adu")
    >>> figure = plot_sources(Deblender("watershed")(image))
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['image', 'models', 'image − models', '2 segments', 'source 1', 'model', 'source 2', 'model']
    """
    _check(result)
    image = planes_of(result.recompose()).only(None)
    shape3 = np.shape(result.residual.data)[-3:]
    k = len(image.bands) // 2 if band is None else image.index(band)
    chosen = _chosen(result.catalog, sources, image.bands[k])
    models = np.where(np.isnan(image.data[k]), np.nan, _models(result, k, image.shape))
    sigma = _sigma(result.residual, k, image)
    image = replace(image.only(k), sigma=sigma)
    figure, panels = _open(image, chosen, fig, axes)
    scale = panel.norm_of([image.data[0]], stretch, limits, image.unit)
    text = panel.flux_label(image.bands if len(shape3) == 3 else ("0",), 0, image.unit)
    unit = panel.unit_label(image.unit)

    flux = [image.data[0], models]
    for ax, data in zip(panels, flux, strict=False):
        mappable = panel.draw(ax, data, scale, panel.FLUX)
    panel.colour_bar(panels[1], mappable, flux, text, unit)
    left = image.data[0] - models
    left = left if sigma is None else left / sigma
    within = () if sigma is None else (3, 10)
    mappable = panel.draw(panels[2], left, panel.symmetric([left], residual_limit, *within), panel.RESIDUAL)
    what = "image − models" if sigma is None else "(image − models) / σ"
    panel.colour_bar(panels[2], mappable, [left], what, unit if sigma is None else "")
    _segments(panels[3], result.segmentation)
    _mark(panels[0], result.catalog)
    count = len(result.catalog)
    heads = ("image", "models", "image − models", f"{count} segment{'' if count == 1 else 's'}")
    for j, (ax, head) in enumerate(zip(panels, heads, strict=False)):
        panel.title(ax, head, "grey: masked" if j == 2 and np.isnan(left).any() else "")
        if axes is None:
            panel.coordinates(ax, image.wcs, left=j == 0, bottom=j == 0)
    for j, row in enumerate(chosen):
        _pair(panels[4 + 2 * j : 6 + 2 * j], result, row, k, scale, image)
    return figure


def _check(result):
    for name in ("sources", "models", "residual", "catalog", "segmentation", "recompose"):
        if not hasattr(result, name):
            raise InputError(f"result is {type(result).__name__}; give the DeblendResult that Deblender returned")


def _chosen(catalog, sources, band):
    """Rows of the catalog that get a panel."""
    ids = [int(number) for number in catalog["id"]]
    if isinstance(sources, int | np.integer) and not isinstance(sources, bool) and sources >= 0:
        name = f"flux_{band}"
        name = name if name in catalog.colnames else next((c for c in catalog.colnames if c.startswith("flux_")), "id")
        flux = np.asarray(catalog[name], float)
        return list(np.argsort(-np.where(np.isfinite(flux), flux, -np.inf), kind="stable")[: int(sources)])
    if isinstance(sources, str | bool) or not hasattr(sources, "__iter__"):
        raise InputError(f"sources={sources!r} must be a number of sources, or a list of their ids")
    missing = [number for number in sources if number not in ids]
    if missing:
        raise InputError(f"sources={list(sources)!r}: the catalog has no id {missing[0]!r}; it has {len(ids)} sources")
    return [ids.index(number) for number in sources]


def _plane(image, k):
    """Band ``k`` of a cut-out."""
    data = np.asarray(image.data, float)
    return data[k] if data.ndim == 3 else data


def _models(result, k, shape):
    """All models in the full frame."""
    total = np.zeros(shape)
    for row, model in enumerate(result.models):
        y, x = (int(result.catalog[f"bbox_{axis}min"][row]) for axis in "yx")
        height, width = model.shape[-2:]
        total[y : y + height, x : x + width] += _plane(model, k)
    return total


def _sigma(residual, k, image):
    """The noise of a band, NaN where the image is, or `None`."""
    sigma = planes_of(residual, "result.residual").sigma
    return None if sigma is None else np.where(np.isnan(image.data[k]), np.nan, sigma[k])


def _open(image, chosen, fig, axes):
    width, height = panel_size(image.shape, 4)
    edges, total = columns_of(width, [False, True, True, False])
    boxes = [Box(x, TITLE, width, height, image.wcs) for x in edges]
    top = TITLE + height + BOTTOM
    pairs = min(_PAIRS, max(len(chosen), 2))
    between = 0.35
    edge = min((total - LEFT - BAR / 2 - (pairs - 1) * between - pairs * GAP) / (2 * pairs), 1.6)
    for j in range(len(chosen)):
        y = top + TITLE + (j // pairs) * (edge + TITLE)
        x = LEFT + (j % pairs) * (2 * edge + GAP + between)
        boxes += [Box(x, y, edge, edge), Box(x + edge + GAP, y, edge, edge)]
    rows = ceil(len(chosen) / pairs)
    return open_panels((total, top + rows * (edge + TITLE) + 0.1 * (rows > 0)), boxes, fig, axes)


def _segments(ax, segmentation):
    """Segments in colours that neighbours seldom share, none on white."""
    from matplotlib.colors import to_rgb

    palette = np.array([(1.0, 1.0, 1.0), *map(to_rgb, _COLOURS)])
    index = np.where(segmentation > 0, 1 + (segmentation - 1) % len(_COLOURS), 0)
    ax.imshow(palette[index], origin="lower", interpolation="nearest", aspect=panel.aspect_of(index))


def _mark(ax, catalog):
    """Positions, with their numbers unless there are too many to read."""
    x, y = np.asarray(catalog["x"], float), np.asarray(catalog["y"], float)
    ax.plot(x, y, ls="", marker="+", ms=6, mew=1.1, color="#56B4E9", scalex=False, scaley=False)
    if len(catalog) > _MARKED:
        return
    span = ax.get_ylim()[1] - ax.get_ylim()[0]
    for number, a, b in zip(catalog["id"], x, y, strict=True):
        panel.label(ax, number, a + 0.015 * span, b + 0.015 * span, transform=ax.transData, va="bottom", fontsize=7.5)


def _pair(axes, result, row, k, norm, image):
    """A source and its model on their cut-out."""
    source, model = (_plane(images[row], k) for images in (result.sources, result.models))
    mask = result.sources[row].mask
    if mask is not None:
        mask = np.broadcast_to(mask, np.shape(result.sources[row].data))
        hidden = mask[k] if mask.ndim == 3 else mask
        source, model = np.where(hidden, np.nan, source), np.where(hidden, np.nan, model)
    for ax, data, head in zip(axes, (source, model), (f"source {result.catalog['id'][row]}", "model"), strict=True):
        panel.draw(ax, data, norm, panel.FLUX)
        ax.set_anchor("NW")
        panel.blank(ax)
        panel.title(ax, head)
    panel.scale_bar(axes[0], source.shape, image.pixel_scale)
