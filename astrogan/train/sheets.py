"""Sheets of sample images, to see how a run is doing."""

from __future__ import annotations

import gc

import numpy as np

from astrogan.exceptions import InputError, MissingDependencyError
from astrogan.image.write import atomic_path

__all__ = ["sample_sheet"]


def sample_sheet(path, rows, titles, *, softening=3.0):
    """Draw images side by side, a row an object, and write them as a PNG.

    All images of a row are drawn alike: less the median of the row's last image, in units of its robust scatter,
    through an inverse hyperbolic sine, up to its 99.8th percentile.

    Parameters
    ----------
    path : path
        The ``.png``; one that is there is replaced.
    rows : sequence of sequences of array_like
        Images of shape (y, x) or (band, y, x), in the order of ``titles``; by habit the truth comes last. Of three or
        more bands the first three are red, green and blue; of two, the first is drawn.
    titles : sequence of str
        One a column.
    softening : float, optional
        Where the stretch turns from linear to logarithmic, in units of the scatter.

    Raises
    ------
    InputError
        If a row has not an image a title, or there is none.
    MissingDependencyError
        If matplotlib is not installed.
    ImageWriteError
        If the system refuses to write.
    """
    titles = [str(title) for title in titles]
    rows = [list(row) for row in rows]
    if not rows or not titles or any(len(row) != len(titles) for row in rows):
        raise InputError(
            f"rows hold {[len(row) for row in rows]} images and titles={titles!r}; give an image a title in each row"
        )
    figure = _figure(len(rows), len(titles))
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for number, (row, row_axes) in enumerate(zip(rows, axes, strict=True)):
        stretch = _row_stretch(_planes(row[-1]), softening)
        for image, title, axis in zip(row, titles, row_axes, strict=True):
            axis.imshow(stretch(_planes(image)), origin="lower", cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_axis_off()
            if number == 0:
                axis.set_title(title, fontsize=9)
    with atomic_path(path, overwrite=True) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    # A figure refers to itself in many ways, so that the collector alone frees it, which a training wakes up rarely.
    del figure, axes, row_axes, axis
    gc.collect()


def _figure(n_rows, n_columns):
    """A figure of its own, which pyplot knows nothing of: no window, nothing to close."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "a sheet of samples needs matplotlib: run `pip install 'astrogan[plot]'` (or `pip install matplotlib`)"
        ) from error
    figure = Figure(figsize=(2.2 * n_columns, 2.2 * n_rows + 0.3), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _planes(image):
    """(y, x), or (y, x, 3) of three bands or more; float64, zero where not finite."""
    image = np.asarray(image, np.float64)
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise InputError(f"an image has shape {image.shape}; it must be (y, x) or (band, y, x)")
    if image.ndim == 3:
        image = np.moveaxis(image[:3], 0, -1) if len(image) >= 3 else image[0]
    return np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)


def _row_stretch(reference, softening):
    """Flux to 0..1, such that the reference's sky is dark and its centre bright."""
    axes = (0, 1)
    sky = np.median(reference, axis=axes)
    scatter = 1.4826 * np.median(np.abs(reference - sky), axis=axes).mean()
    spread = np.percentile(reference - sky, 99.8)
    scale = softening * scatter if scatter > 0 else max(spread, np.finfo(float).tiny) / 30
    low, high = np.arcsinh(-0.7), np.arcsinh(max(spread / scale, 1.0))

    def stretch(image):
        return np.clip((np.arcsinh((image - sky) / scale) - low) / (high - low), 0, 1)

    return stretch
