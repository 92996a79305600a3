"""Real images translated between surveys: ``astrogan bench translation-real --data DATA -o OUT``.

Nothing of these images was ever trained on. Two parts:

- ``pairs``: five galaxies that KiDS and SDSS both saw in r, each image translated to the other's pixels and compared
  with what the other survey saw;
- ``fields``: a CFHTLS field in g, r and i as KiDS would have seen it. There is no common truth: what is compared is the
  blank sky, the sharpest sources and the fluxes.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path

from astrogan.exceptions import InputError

__all__ = ["PARTS", "ROWS", "RealTranslations", "main", "run"]

PARTS = ("pairs", "fields")
"""What `run` can do."""

ROWS = {
    "identity-resample": ("psf-matching", {"match": False, "resampling": "bicubic"}),
    "psf-matching": ("psf-matching", {}),
    "surveynet": ("surveynet", {}),
}
"""Backend and options of each row. ``identity-resample`` is the image on other pixels, and nothing else."""

_HIDDEN = "identity-resample"
"""Beside ``psf-matching``, a figure needs no image of it."""


@dataclass
class RealTranslations:
    """What came out.

    Parameters
    ----------
    tables : dict of str to `~astropy.table.Table`
        ``alignment`` and ``pairs``, ``fields``; ``meta["caption"]`` says what the columns are.
    skipped : dict of str to str
        Why a row was left out.
    files : list of `~pathlib.Path`
        Tables and figures that were written.
    """

    tables: dict = field(default_factory=dict)
    skipped: dict = field(default_factory=dict)
    files: list = field(default_factory=list)


def run(data=None, *, parts=PARTS, rows=None, out=None, images=None, progress=None):
    """Translate real images and compare.

    Parameters
    ----------
    data : path, optional
        Folder of the real images. Default: the environment variable ASTROGAN_DATA.
    parts : sequence of str, optional
        Of `PARTS`.
    rows : sequence of str, optional
        Names of `ROWS`, or ``"backend:option=value,..."``. Default: all of `ROWS`; those that do not load (no weights)
        are left out.
    out : path, optional
        Folder for the tables (ECSV) and figures (PNG); files of those names are replaced, each at once.
    images : int, optional
        At most so many galaxies.
    progress : callable, optional
        ``progress(text)``.

    Returns
    -------
    `RealTranslations`

    Raises
    ------
    InputError
        If there are no data, a part is unknown, or none of the rows loads.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise InputError(f"parts={parts!r} must be some of {', '.join(PARTS)}")
    if images is not None and images < 1:
        raise InputError(f"images={images!r} must be at least 1, or None for all")
    data = data or os.environ.get("ASTROGAN_DATA") or None
    if data is None:
        raise InputError("data=None: give the folder of the real images, or set ASTROGAN_DATA")
    rows = _rows(rows)
    result = RealTranslations()
    for part in parts:
        _PARTS[part](result, data, rows, images, out, progress)
    if out is not None:
        _write_tables(result, Path(out))
    return result


def _rows(names):
    from astrogan.bench._linear_common import parse_method

    if names is None:
        return dict(ROWS)
    return {name: ROWS[name] if name in ROWS else parse_method(name) for name in names}


def _pairs(result, data, rows, images, out, progress):
    from astrogan.bench._linear_common import as_table
    from astrogan.bench._translation_real_figure import draw_galaxies
    from astrogan.bench._translation_real_pairs import CAPTION, DIRECTIONS, load_galaxies, score_galaxies, usable_rows

    galaxies = load_galaxies(data, images)
    rows, skipped = usable_rows(rows, galaxies[0])
    result.skipped |= skipped
    if not rows:
        raise InputError(f"none of the rows loads: {'; '.join(f'{k}: {v}' for k, v in skipped.items())}")
    lines, found = score_galaxies(galaxies, rows, progress)
    result.tables["alignment"] = as_table(
        [{"galaxy": galaxy.name} | galaxy.notes for galaxy in galaxies], _ALIGNMENT, _FORMATS
    )
    result.tables["pairs"] = as_table(lines, CAPTION, _FORMATS)
    if out is not None:
        names = [name for name in rows if name != _HIDDEN] or list(rows)
        for direction in DIRECTIONS:
            path = _made(out) / f"{direction.lower().replace(' ', '-')}.png"
            draw_galaxies(path, galaxies, direction, found, names)
            result.files.append(path)


_ALIGNMENT = (
    "What was fitted to each pair of images before any translation: KiDS times flux_scale plus sky (nanomaggies per "
    "SDSS pixel), moved by dx, dy and blurred by a Gaussian of FWHM blur (arcsec) beyond its own PSF and the larger "
    "pixels, is SDSS with this reduced chi squared. All rows are told the PSF that follows from it."
)
_FORMATS = {
    "psnr": ".2f",
    "rel_l2": ".4f",
    "dmag_in": ".4f",
    "dmag_all": ".4f",
    "offset": ".4f",
    "size": ".4f",
    "ellipticity": ".4f",
    "chi2": ".3f",
    "noise": ".3f",
    "acf": ".3f",
    "flux_scale": ".4f",
    "blur": ".3f",
    "dx": ".3f",
    "dy": ".3f",
    "sharp_in": ".3f",
    "sharp": ".3f",
    "sharp_wanted": ".3f",
    "sky": ".5f",
    "sky_real": ".5f",
    "acf_0": ".3f",
    "acf_0_real": ".3f",
    "acf_1": ".3f",
    "acf_1_real": ".3f",
    "dmag": ".4f",
    "dmag_scatter": ".4f",
}


def _fields(result, data, rows, images, out, progress):
    from astrogan.bench._linear_common import as_table
    from astrogan.bench._translation_real_fields import CAPTION, load_fields, score_fields
    from astrogan.bench._translation_real_figure import draw_fields, draw_sky

    fields = load_fields(data)
    lines, found, skipped = score_fields(fields, rows, progress)
    result.skipped |= skipped
    if not lines:
        raise InputError(f"none of the rows loads: {'; '.join(f'{k}: {v}' for k, v in skipped.items())}")
    result.tables["fields"] = as_table(lines, CAPTION, _FORMATS)
    if out is not None:
        shown = {name: images for name, images in found.items() if name != _HIDDEN} or found
        for name, draw in (("cfhtls-to-kids.png", draw_fields), ("cfhtls-to-kids-sky.png", draw_sky)):
            path = _made(out) / name
            draw(path, fields, shown)
            result.files.append(path)


_PARTS = dict(zip(PARTS, (_pairs, _fields), strict=True))


def _made(out):
    path = Path(out)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _write_tables(result, out):
    from astrogan.image.write import write_table

    for name, table in result.tables.items():
        path = _made(out) / f"{name}.ecsv"
        write_table(table, path, overwrite=True)
        result.files.append(path)


def main(arguments=None) -> None:
    """Print the tables, and write them and the figures.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m astrogan.bench.translation_real",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", help="folder of the real images; default: ASTROGAN_DATA")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rows", nargs="+", help=f'of {", ".join(ROWS)}, or e.g. "psf-matching:resampling=exact"')
    parser.add_argument("--images", type=int, help="at most so many galaxies")
    parser.add_argument("-o", "--out", help="folder for tables and figures")
    result = run(**vars(parser.parse_args(arguments)))
    for title, table in result.tables.items():
        print(f"\n{title}\n" + "\n".join(table.pformat(max_lines=-1, max_width=-1)))
        print(table.meta["caption"])
    for name, why in result.skipped.items():
        print(f"{name} is left out: {why}")
    for path in result.files:
        print(path)


if __name__ == "__main__":
    main()
