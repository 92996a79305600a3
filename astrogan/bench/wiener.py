"""Wiener deconvolution beside scikit-image's, in one run: ``astrogan bench wiener``."""

from __future__ import annotations

import argparse

import numpy as np

from astrogan.api import Observation
from astrogan.backends.classic.wiener import Wiener
from astrogan.bench._timing import alternate

__all__ = ["compare", "main", "run"]


def run(*, sizes=(256, 1024, 2048), repeats=15, seed=0):
    """Time all sizes.

    Parameters
    ----------
    sizes : sequence of int
        Edges of the square images in pixels.
    repeats : int
        Timings of each; the medians count.
    seed : int
        Seed of the images.

    Returns
    -------
    `~astropy.table.Table`
        A row a size, with the columns of `compare`.
    """
    from astropy.table import Table

    table = Table([compare(int(size), repeats=repeats, seed=seed) for size in sizes])
    for name, form in {"skimage_ms": ".2f", "astrogan_ms": ".2f", "ratio": ".2f", "difference": ".1e"}.items():
        table[name].info.format = form
    return table


def compare(
    size: int, *, repeats: int = 15, balance: float = 0.01, seed: int = 0, clock: str = "wall"
) -> dict[str, float]:
    """Time our ``wiener`` with its filter cached against `skimage.restoration.wiener`, alternating.

    Both get the same float32 image, PSF (31 x 31) and Laplacian penalty.

    Parameters
    ----------
    size : int
        Edge of the square image in pixels.
    repeats : int
        Timings of each; the medians count.
    balance : float
        Strength of the regularisation.
    seed : int
        Seed of the image.
    clock : {'wall', 'cpu'}
        Time on the wall, or that of all cores that the process has used.

    Returns
    -------
    dict
        ``size``; ``skimage_ms`` and ``astrogan_ms``; ``ratio`` (the first over the second); ``difference``, the
        largest one between the results away from the edges, over the peak.
    """
    from skimage.restoration import wiener

    image, psf = _scene(size, seed)
    observation = Observation(image[None], psf=psf[None])
    ours = Wiener(balance, slope=4.0)
    result = ours(observation).data[0]  # fills the cache
    theirs = wiener(image, psf, balance, clip=False)
    functions = {"skimage": lambda: wiener(image, psf, balance, clip=False), "astrogan": lambda: ours(observation)}
    timings = alternate(functions, repeats, clock=clock, warm=0)
    milliseconds = {name: 1e3 * float(np.median(values)) for name, values in timings.items()}
    margin = min(2 * ours.halo_for(observation), size // 3)
    inner = slice(margin, size - margin)
    return {
        "size": size,
        "skimage_ms": milliseconds["skimage"],
        "astrogan_ms": milliseconds["astrogan"],
        "ratio": milliseconds["skimage"] / milliseconds["astrogan"],
        "difference": float(np.abs(result - theirs)[inner, inner].max() / np.abs(theirs).max()),
    }


def _scene(size, seed):
    """Stars and noise on a sky of zero, float32, and a Moffat PSF of FWHM 3 pixels, 31 x 31."""
    from scipy.signal import fftconvolve

    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-15:16, -15:16]
    psf = (1 + (x**2 + y**2) / 5.66) ** -3.0
    psf = (psf / psf.sum()).astype(np.float32)
    image = np.zeros((size, size))
    stars = max(size * size // 2000, 1)
    image[tuple(rng.integers(0, size, (2, stars)))] = rng.pareto(1.5, stars) * 100
    image = fftconvolve(image, psf, mode="same") + rng.normal(size=image.shape)
    return image.astype(np.float32), psf


def main(arguments=None) -> None:
    """Print the table.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m astrogan.bench.wiener", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 2048])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    table = run(sizes=options.sizes, repeats=options.repeats)
    print("\n".join(table.pformat(max_lines=-1, max_width=-1)))


if __name__ == "__main__":
    main()
