"""Figures of images, of what was done to them, and of benchmark tables.

Every function takes images in the forms that the operators take (`~astropy.nddata.CCDData` or
`~astropy.nddata.NDData`, cubes with axes (band, y, x), lists and dicts of bands, paths), plain arrays as well, and
returns a `matplotlib.figure.Figure`. Nothing is shown and ``pyplot`` is not touched: save the figure with its
``savefig``, let a notebook show it, or pass a figure (``fig=``) or axes (``axes=``) of your own to draw into.

Panels have sky coordinates where the image has a WCS, colour maps that colour-blind readers can tell apart, units on
every colour bar, and masked pixels in grey. Needs matplotlib (``pip install 'astrogan[plot]'``).
"""

from astrogan.plot._compare import compare
from astrogan.plot._images import plot_image, rgb
from astrogan.plot._sources import plot_sources
from astrogan.plot._tables import plot_ablation, plot_grid

__all__ = ["compare", "plot_ablation", "plot_grid", "plot_image", "plot_sources", "rgb"]
