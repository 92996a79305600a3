"""Restorers on linear real images, and what they make of nothing: ``astrogan bench restoration-linear``.

Eight tables, with the trivial methods always beside the others:

- ``stamps``: space galaxies made broader and noisier; flux, shape, PSNR, coverage by noise level.
- ``field``: a ground-based field in three bands likewise, source by source.
- ``pairs``: galaxies that two surveys saw; the worse image restored and compared with the better one.
- ``blank``: false detections on pure noise.
- ``injected``: completeness, flux bias and false detections by S/N, in white noise and on real sky; coverage.
- ``depth``: half a field, where the other half is noisier or less so; and with its sign changed.
- ``laws``: whether a factor on the image is a factor on the result, and whether tiles show.

The real images lie in the folder that ``--data`` or the environment variable ASTROGAN_DATA names; ``blank``,
``depth`` and ``laws`` need none, and without it ``injected`` has white noise only.
"""

from __future__ import annotations

import argparse
import os

from astrogan.bench._linear_common import load_methods
from astrogan.exceptions import InputError

__all__ = ["PARTS", "main", "run"]

PARTS = ("stamps", "field", "pairs", "blank", "injected", "depth", "laws")
_NEED_DATA = {"stamps", "field", "pairs"}


def run(data=None, parts=PARTS, backends=None, *, images=None, repeats=2, seed=0, progress=None):
    """Make the tables.

    Parameters
    ----------
    data : path, optional
        Folder of the real images. Default: the environment variable ASTROGAN_DATA.
    parts : sequence of str, optional
        Of `PARTS`.
    backends : sequence of str, optional
        Names of restorers, with options as in ``"richardson-lucy:iterations=10"``. Default: identity, gaussian,
        wiener, richardson-lucy, and nafnet where it loads.
    images : int, optional
        At most so many galaxies, pairs, frames or fields of each part, and 64 times as many rows of the field.
        Default: all there are; 16 blank frames of 256 x 256 pixels, 100 fields with injected sources, and 20 of two
        depths.
    repeats : int, optional
        Realisations of the noise of each of the ``stamps``.
    seed : int, optional
        Of all noise.
    progress : callable, optional
        ``progress(text)``, called before each part.

    Returns
    -------
    dict of str to `~astropy.table.Table`
        One per part, and ``injected-totals`` besides ``injected``. ``meta["caption"]`` says what the columns are.

    Raises
    ------
    InputError
        If a part or a backend is unknown, or there is no data for a part that needs it.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise InputError(f"parts={unknown!r} are unknown; there are: {', '.join(PARTS)}")
    if images is not None and images < 1:
        raise InputError(f"images={images!r} must be at least 1, or None for all")
    if repeats < 1:
        raise InputError(f"repeats={repeats!r} must be at least 1")
    data = data or os.environ.get("ASTROGAN_DATA") or None
    if data is None and _NEED_DATA & set(parts):
        raise InputError(
            f"data=None: the parts {sorted(_NEED_DATA & set(parts))} need the folder of real images; give data=, set "
            "ASTROGAN_DATA, or leave them out"
        )
    methods = load_methods(backends)
    tables = {}
    for part in parts:
        if progress is not None:
            progress(part)
        tables |= _TABLES[part](data, methods, images, repeats, seed)
    return tables


def _stamps(data, methods, images, repeats, seed):
    from astrogan.bench._linear_real import load_stamps, stamps

    return {"stamps": stamps(load_stamps(data, images), methods, realisations=repeats, seed=seed)}


def _field(data, methods, images, repeats, seed):
    from astrogan.bench._linear_real import field, load_field

    cube, exclude = load_field(data, None if images is None else max(192, 64 * images))
    return {"field": field(cube, methods, exclude=exclude, seed=seed)}


def _pairs(data, methods, images, repeats, seed):
    from astrogan.bench._linear_real import load_pairs, pairs

    return {"pairs": pairs(load_pairs(data, images), methods)}


def _blank(data, methods, images, repeats, seed):
    from astrogan.bench._linear_sky import blank

    return {"blank": blank(methods, frames=images or 16, seed=seed)}


def _injected(data, methods, images, repeats, seed):
    from astrogan.bench._linear_sky import empty_patches, injected

    sky = None
    if data is not None:
        from astrogan.bench._linear_real import load_field

        sky = empty_patches(*load_field(data))
    bins, totals = injected(methods, fields=images or 100, sky=sky, seed=seed)
    return {"injected": bins, "injected-totals": totals}


def _depth(data, methods, images, repeats, seed):
    from astrogan.bench._linear_depth import depth

    return {"depth": depth(methods, fields=images or 20, seed=seed)}


def _laws(data, methods, images, repeats, seed):
    from astrogan.bench._linear_sky import laws

    return {"laws": laws(methods, seed=seed)}


_TABLES = {
    "stamps": _stamps,
    "field": _field,
    "pairs": _pairs,
    "blank": _blank,
    "injected": _injected,
    "depth": _depth,
    "laws": _laws,
}


def main(arguments=None) -> None:
    """Print the tables, each as it is ready.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m astrogan.bench.restoration_linear",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", help="folder of the real images; default: ASTROGAN_DATA")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--backends", nargs="+", help='e.g. wiener "richardson-lucy:iterations=10"')
    parser.add_argument("--images", type=int, help="at most so many of each part")
    parser.add_argument("--repeats", type=int, default=2, help="realisations of the noise of each stamp")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for part in options.parts:
        for title, table in run(**vars(options) | {"parts": [part]}).items():
            print(f"\n{title}\n" + "\n".join(table.pformat(max_lines=-1, max_width=-1)))
            print(table.meta["caption"])


if __name__ == "__main__":
    main()
