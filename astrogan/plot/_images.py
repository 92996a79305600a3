"""`plot_image` and `rgb`: an image as it is."""

from __future__ import annotations

from math import ceil

import numpy as np

from astrogan.exceptions import InputError
from astrogan.plot import _panel as panel
from astrogan.plot._layout import BOTTOM, TITLE, Box, columns_of, open_panels, panel_size, rows_of
from astrogan.plot._planes import planes_of

__all__ = ["plot_image", "rgb"]

__doctest_requires__ = {"*": ["matplotlib"]}


def plot_image(
    image, *, band=None, title=None, stretch="asinh", limits=None, label=None, cmap=None, fig=None, axes=None
):
    """Draw an image, a panel a band, each with its colour bar.

    Parameters
    ----------
    image : path, `~astropy.nddata.CCDData`, `~astropy.nddata.NDData`, array, list or dict
        (y, x) or (band, y, x), or 2-D ones, one a band. Masked pixels and those that are not finite are grey.
    band : str or int, optional
        Only this one, by name or number.
    title : str, optional
        Over the first panel. Default: the bands' names.
    stretch : {'asinh', 'linear', 'log', 'sqrt', 'power', 'squared', 'sinh'}
        As in `astropy.visualization.simple_norm`; ``"asinh"`` is about linear in the noise and logarithmic above it.
    limits : (low, high) or `~astropy.units.Quantity`, optional
        Ends of the colour scale, in the image's unit. Default: all but the faintest 0.5 % and
        the brightest 0.2 % of the pixels, for each band.
    label : str, optional
        What the colour bar says in place of "flux per pixel", "surface brightness" or "pixel value"; the unit follows.
    cmap : str, optional
        A colour map of matplotlib's. Default: inferno.
    fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
        To draw into. Default: a new one.
    axes : `~matplotlib.axes.Axes` or sequence of those, optional
        To draw into, one a band; those with a WCS projection keep it.

    Returns
    -------
    `~matplotlib.figure.Figure`
        With sky coordinates where the image has a WCS, else pixels counted from 0.

    Raises
    ------
    InputError
        If the image is of no such form, has no such band, or an option is none of those; if ``fig`` is too small or
        ``axes`` are not as many as bands.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astrogan.plot import plot_image
    >>> figure = plot_image(CCDData(np.eye(16), unit="adu"), title="a diagonal")
    >>> len(figure.axes)
    1
    """
    planes = planes_of(image).only(band)
    count = len(planes.bands)
    columns = rows_of(count)
    width, height = panel_size(planes.shape, columns)
    edges, total = columns_of(width, [True] * columns)
    rows = ceil(count / columns)
    boxes = [
        Box(edges[k % columns], TITLE + (k // columns) * (height + TITLE), width, height, planes.wcs)
        for k in range(count)
    ]
    figure, shown = open_panels((total, rows * (height + TITLE) + BOTTOM), boxes, fig, axes)
    colours = _colours(cmap)
    for k, (ax, data) in enumerate(zip(shown, planes.data, strict=True)):
        mappable = panel.draw(ax, data, panel.norm_of([data], stretch, limits, planes.unit), colours)
        text = panel.flux_label(planes.bands, k, planes.unit) if label is None else label
        panel.colour_bar(ax, mappable, [data], text, panel.unit_label(planes.unit))
        if axes is None:
            lowest = k + columns >= count
            panel.coordinates(ax, planes.wcs, left=k % columns == 0, bottom=lowest and k % columns == 0)
        note = "grey: masked" if k == count - 1 and np.isnan(planes.data).any() else ""
        panel.title(ax, _title(title, planes, k), note)
    return figure


def _title(title, planes, k):
    named = len(planes.bands) > 1 or not planes.bands[k].isdigit()
    band = panel.plain(planes.bands[k]) if named else ""
    return ", ".join(part for part in ((title or "") if k == 0 else "", band) if part)


def _colours(cmap):
    from astrogan.plot._layout import _matplotlib

    _matplotlib()
    from matplotlib import colormaps

    if cmap is None:
        return panel.FLUX
    if not isinstance(cmap, str) or cmap not in colormaps:
        raise InputError(f"cmap={cmap!r} is no colour map of matplotlib's; name one, such as {panel.FLUX!r}")
    return cmap


def rgb(image, bands=None, *, scale=None, minimum=None, stretch=None, Q=8.0, title=None, fig=None, axes=None):
    """Draw three bands as one colour image, after Lupton et al. (2004).

    Parameters
    ----------
    image : path, `~astropy.nddata.CCDData`, `~astropy.nddata.NDData`, array, list or dict
        With three bands or more. Pixels masked in one of the three are grey.
    bands : sequence of str or int, optional
        The bands for red, green and blue, by name or number. Default: the bands of an image of three in reverse, as
        bands are commonly listed from blue to red.
    scale : sequence of float, optional
        What red, green and blue are multiplied by. Default: factors that make the median colour of the pixels above
        five times the noise, in all three bands, white.
    minimum : float, optional
        Flux, after scaling, that is black. Default: that of the sky, measured in each band.
    stretch : float, optional
        Flux, after scaling, at which the image is a third as bright as it gets; smaller shows fainter things. Default:
        ten times the noise of the sky.
    Q : float
        Softening: the larger, the more the bright parts are compressed. Colours do not depend on it.
    title : str, optional
        Over the image. Default: which band is which colour.
    fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
        To draw into. Default: a new one.
    axes : `~matplotlib.axes.Axes`, optional
        To draw into.

    Returns
    -------
    `~matplotlib.figure.Figure`

    Raises
    ------
    InputError
        If the image has fewer than three bands or none of such a name, or a number is not positive.
    MissingDependencyError
        If matplotlib is not installed.

    References
    ----------
    Lupton, R., et al. 2004, PASP, 116, 133.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.plot import rgb
    >>> sky = np.random.default_rng(0).normal(size=(3, 16, 16))
    >>> rgb({"g": sky[0], "r": sky[1], "i": sky[2]}, ("i", "r", "g")).axes[0].get_title(loc="left")
    'red i, green r, blue g'
    """
    planes = planes_of(image)
    chosen = _three(planes, bands)
    names = [planes.bands[k] for k in chosen]
    picture = lupton(planes.data[chosen], scale=scale, minimum=minimum, stretch=stretch, Q=Q)
    width, height = panel_size(planes.shape, 1)
    edges, total = columns_of(width, [False])
    box = Box(edges[0], TITLE, width, height, planes.wcs)
    figure, (ax,) = open_panels((total, height + TITLE + BOTTOM), [box], fig, axes)
    ax.imshow(picture, origin="lower", interpolation="nearest", aspect=panel.aspect_of(picture))
    if axes is None:
        panel.coordinates(ax, planes.wcs)
    text = "red {}, green {}, blue {}".format(*map(panel.plain, names)) if title is None else title
    panel.title(ax, text, "grey: masked" if np.isnan(planes.data[chosen]).any() else "")
    return figure


def _three(planes, bands):
    if bands is None:
        if len(planes.bands) != 3:
            raise InputError(
                f"image has bands {', '.join(planes.bands)}; name three in bands=, for red, green and blue"
            )
        return [2, 1, 0]
    if isinstance(bands, str) and len(bands) == 3 and bands not in planes.bands:
        bands = tuple(bands)
    if isinstance(bands, str) or not hasattr(bands, "__len__") or len(bands) != 3:
        raise InputError(f"bands={bands!r} must be three bands of {', '.join(planes.bands)}: for red, green and blue")
    return [planes.index(band, "bands") for band in bands]


def lupton(data, *, scale=None, minimum=None, stretch=None, Q=8.0):
    """Colours (y, x, 3) of three planes, bytes; grey where one of them is NaN."""
    from astropy.stats import sigma_clipped_stats
    from astropy.visualization import make_lupton_rgb

    hidden = np.isnan(data).any(axis=0)
    seen = data[:, ~hidden]
    if not seen.size:
        raise InputError("image has no pixel that is valid in all three bands; name others in bands=")
    sky, noise = np.array([sigma_clipped_stats(plane, maxiters=5)[1:] for plane in seen]).T
    if scale is None:
        scale = _balance(seen - sky[:, None], noise)
    scale = np.asarray(scale, float)
    if scale.shape != (3,) or not (np.isfinite(scale).all() and (scale > 0).all()):
        raise InputError(f"scale={scale.tolist()} must be three positive numbers, for red, green and blue")
    planes = np.where(hidden, 0.0, np.nan_to_num(data) * scale[:, None, None])
    level = sky * scale if minimum is None else np.full(3, _number("minimum", minimum, positive=False))
    if stretch is None:
        light = np.where(hidden, np.nan, planes.sum(axis=0) - level.sum()) / 3
        # Down to the noise, but no further than what leaves the brightest pixels short of white.
        stretch = max(10 * panel.noise_of(light), float(np.nanpercentile(light, 99.9)) / 60) or 1.0
    stretch, softening = _number("stretch", stretch), _number("Q", Q)
    picture = make_lupton_rgb(*(planes - level[:, None, None]), minimum=0.0, stretch=stretch, Q=softening)
    picture[hidden] = round(255 * float(panel.MASKED))
    return picture


def _balance(seen, noise):
    """Factors that make the colour white that bright pixels have in the median, 1 for the middle band."""
    bright = (seen > 5 * noise[:, None]).all(axis=0)
    shares = np.median(seen[:, bright] / seen[:, bright].sum(axis=0), axis=1) if bright.any() else np.ones(3)
    return shares[1] / shares


def _number(name, value, positive=True):
    if not np.isscalar(value) or isinstance(value, str | bool) or not np.isfinite(value) or (positive and value <= 0):
        raise InputError(f"{name}={value!r} must be a {'positive' if positive else 'finite'} number")
    return float(value)
