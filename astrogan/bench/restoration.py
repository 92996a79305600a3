"""The grid of Schawinski et al. (2017) on any images and any backends: ``astrogan bench restoration``.

Images are degraded by the paper's recipe at four blurs and five noise levels, restored by trivial, classic and learned
methods, and compared with the originals. The classic ones may be tuned with the truth; see `run`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrogan.bench._paper_tables import FWHMS, NOISE_RATIOS
from astrogan.exceptions import ImageWriteError, InputError

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["RestorationBenchmark", "main", "run"]

_CONVENTIONS = ("independent", "shared", "both")
_ORDERS = ("resize-first", "degrade-first")


@dataclass(frozen=True)
class RestorationBenchmark:
    """What a run found.

    Parameters
    ----------
    table : `~astropy.table.Table`
        A line a cell and row: ``psnr`` (the paper's domain, mean over images) with ``psnr_low`` and ``psnr_high`` (95 %
        of bootstrap means), ``gain`` over the best classic row with its interval, ``paper``, ``psnr_linear``, ``ssim``,
        ``flux_bias_median`` and ``flux_bias_mean`` (%), ``ellipticity_error``, ``texture`` (fine scatter over the
        original's), ``false_before``, ``false_after`` and ``false_input_sigma`` (per 10^6 pixels of blank sky),
        ``tuned``, ``seconds`` (an image).
    images : dict
        {(convention, fwhm, noise, row): table of single images}.
    markdown : str
        The same for reading, beside the numbers that the paper printed.
    files : tuple of `pathlib.Path`
        Written, if a folder was given.
    """

    table: Table
    images: dict
    markdown: str
    files: tuple[Path, ...] = ()


def run(
    data,
    *,
    images=300,
    part="test",
    name=None,
    fwhms=FWHMS,
    noise_ratios=NOISE_RATIOS,
    noise_convention="independent",
    backends=(),
    classic=None,
    blind_images=0,
    out=None,
    size=256,
    order="resize-first",
    sky="keep",
    pixel_scale=0.396,
    give_variance=False,
    tune_images=16,
    photometry_images=60,
    blank_frames=4,
    aperture=5.0,
    seed=0,
    split_seed=0,
    figure=True,
    jobs=1,
    progress=None,
):
    """Degrade, restore and score images on a grid of blurs and noise levels.

    Parameters
    ----------
    data : path or sequence of paths
        Folder or tar file of JPEG, PNG or FITS images, or the files. Pictures are taken to be in the paper's asinh
        stretch. Beside ``NAME.fits``, ``NAME.truth.fits`` is its noise-free truth.
    images : int or None
        Largest number of images; which ones depends on their names alone, and fewer are part of more.
    part : {"test", "validation", "train", "all"}
        Part of the data, split by name (`astrogan.train.split.part_of`).
    name : str, optional
        Regular expression with one group that finds the object's name in the file's: the ``name`` of the recipe that
        the networks were trained with, where it has one, or what they were trained on is among the test images.
        Objects are files: those of a recipe with ``hdus = "each"`` must lie in files of their own.
    fwhms : sequence of float
        Blurs in arcsec.
    noise_ratios : sequence of float
        Noise after over noise before.
    noise_convention : {"independent", "shared", "both"}
        A plane of noise a band, or one for all as in the paper, which leaks the answer: bands' differences stay clean.
    backends : sequence of str, (str, object) or Row
        Restorers to compare: ``"NAME"``, ``"NAME:OPTION=VALUE,..."``, label and instance, or a row as it is. In values
        ``{fwhm}``, ``{noise}`` and ``{convention}`` stand for the cell's, as where each has weights of its own.
        Instances are measured anew in each run, since nothing says whether one is that of an earlier run.
    classic : sequence of str, optional
        Of identity, gaussian, wiener, richardson-lucy, richardson-lucy (tuned). Default: all.
    blind_images : int
        Blind deconvolution, which is slow, on so many images; 0 leaves it out.
    out : path, optional
        Folder for the tables, the figure, and ``cells/``, from which a run goes on: what was measured on the same
        images with the same settings, options and weights is taken from there.
    size : int or None
        Edge at which images are compared in the paper's domain; None: as they come.
    order : {"resize-first", "degrade-first"}
        Whether pictures are resized before degradation, or, as in the paper, after restoration.
    sky : {"keep", "subtract"}
        "keep" leaves pictures the level that the inverse of the stretch gives them: near -0.07 where their sky is
        black. The recipe's limits are made for a sky of zero: its noise comes out about a quarter too large then, and
        the clip at -0.1 hides nearly half of it, for all methods alike. "subtract" takes off the median of each
        band's outer tenth first, which is closer to the paper, but not what networks trained on such pictures saw.
    pixel_scale : float
        Arcsec.
    give_variance : bool
        Whether methods are told the noise; otherwise the library estimates it, as for a user.
    tune_images : int
        Images on which gaussian, wiener and richardson-lucy (tuned) choose their one option a cell, with the truth.
    photometry_images : int
        Images for SSIM, flux bias, ellipticity error and texture.
    blank_frames : int
        Frames of blank sky for false sources.
    aperture : float
        Radius in arcsec.
    seed, split_seed : int
        Of the noise; of the split.
    figure : bool
        Whether ``out`` gets a figure a convention.
    jobs : int
        Processes, a cell each.
    progress : callable, optional
        Called with a line of text.

    Returns
    -------
    RestorationBenchmark

    Raises
    ------
    InputError
        If an argument is out of range, or the data hold no image of the part.
    """
    from tempfile import TemporaryDirectory

    from astrogan.bench._grid import CONVENTIONS, Cell, Settings, measure
    from astrogan.bench._restoration_rows import backend_rows, classic_rows
    from astrogan.bench._restoration_tables import markdown, summary

    _check(
        noise_convention=(noise_convention, _CONVENTIONS), order=(order, _ORDERS), images=images, size=size, jobs=jobs,
        tune_images=tune_images,
    )  # fmt: skip
    settings = Settings(
        data if isinstance(data, str | Path) else tuple(map(str, data)),
        images, part, split_seed, size, order, sky, float(pixel_scale), seed, tune_images, photometry_images,
        blank_frames, float(aperture), bool(give_variance), name,
    )  # fmt: skip
    conventions = CONVENTIONS if noise_convention == "both" else (noise_convention,)
    points = [(_positive("fwhms", f), _positive("noise_ratios", n)) for f in fwhms for n in noise_ratios]
    cells = [Cell(c, f, n) for c in conventions for f, n in dict.fromkeys(points)]
    rows = classic_rows(classic, blind_images=blind_images) + backend_rows(backends)
    if not cells or not rows:
        raise InputError("fwhms, noise_ratios and the rows must not be empty")
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) if out is None else Path(out)
        tables, place = measure(settings, cells, rows, folder / "cells", jobs=jobs, progress=progress)
    table = summary(tables, cells, rows, place.limits())
    shown = replace(settings, images=len(place.references))
    text = markdown(table, rows, shown)
    files = () if out is None else _write(Path(out), table, text, cells, rows, place, tables, figure)
    by_name = {(*cell, name): value for (cell, name), value in tables.items()}
    return RestorationBenchmark(table, by_name, text, files)


def _write(out, table, text, cells, rows, place, tables, figure):
    """``restoration.ecsv``, ``.md``, and a figure a convention."""
    from astrogan.bench._restoration_figure import draw
    from astrogan.image.write import atomic_path, write_table

    files = [out / "restoration.ecsv", out / "restoration.md"]
    write_table(table, files[0], overwrite=True)
    with atomic_path(files[1], overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for convention in dict.fromkeys(cell.convention for cell in cells) if figure else ():
        own = [cell for cell in cells if cell.convention == convention]
        cell = _middle(own)
        tuned = {row.name: _tuned(tables[cell, row.name]) for row in rows}
        files.append(out / f"restoration-{convention}.png")
        draw(files[-1], table[table["convention"] == convention], rows, place, cell, tuned)
    return tuple(files)


def _tuned(table):
    return {name: int(value) if name == "iterations" else value for name, value in table.meta["tuned"].items()}


def _middle(cells):
    """The cell to show: the middle blur at the middle of the noise ratios."""
    fwhms, noises = (sorted({cell[k] for cell in cells}) for k in (1, 2))
    wanted = fwhms[(len(fwhms) - 1) // 2], noises[len(noises) // 2 + (len(noises) > 3)]
    return next((cell for cell in cells if cell[1:] == wanted), cells[0])


def _check(**given):
    for name, value in given.items():
        if isinstance(value, tuple):
            value, allowed = value
            if value not in allowed:
                raise InputError(f"{name}={value!r} must be one of {', '.join(allowed)}")
        elif value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name}={value!r} must be a positive integer")


def _positive(name, value):
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InputError(f"{name} has {value!r}; it must hold positive numbers")
    return float(value)


# ---- command line ---------------------------------------------------------------------------------------------------


class _Numbers(click.ParamType):
    name = "x,y,..."

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} must be numbers with commas between them, e.g. 1.4,1.8", param, ctx)


@click.command("restoration")
@click.option("--data", required=True, type=click.Path(exists=True), help="Folder or tar file of images.")
@click.option("--images", type=click.IntRange(1), default=300, show_default=True, help="Largest number of images.")
@click.option("--part", type=click.Choice(["test", "validation", "train", "all"]), default="test", show_default=True)
@click.option(
    "--name", metavar="REGEX", help="Finds the object's name in the file's, as in the recipe of the networks."
)
@click.option("--fwhm", "fwhms", type=_Numbers(), default=FWHMS, help="Blurs in arcsec; default: the paper's.")
@click.option(
    "--noise", "noise_ratios", type=_Numbers(), default=NOISE_RATIOS, help="Noise ratios; default: the paper's."
)
@click.option(
    "--noise-convention", type=click.Choice(_CONVENTIONS), default="independent", show_default=True,
    help="A plane of noise a band, or one for all as in the paper.",
)  # fmt: skip
@click.option(
    "-b", "--backend", "backends", multiple=True, metavar="NAME[:OPTION=VALUE,...]",
    help="Restorer to compare; repeatable. {fwhm}, {noise} and {convention} in values stand for the cell's.",
)  # fmt: skip
@click.option("--classic", multiple=True, help="Classic row; repeatable. Default: all.")
@click.option(
    "--blind-images", type=click.IntRange(0), default=0, show_default=True, help="Images for the slow blind row."
)
@click.option("--size", type=click.IntRange(16), default=256, show_default=True, help="Edge of the compared images.")
@click.option("--order", type=click.Choice(_ORDERS), default="resize-first", show_default=True)
@click.option("--sky", type=click.Choice(["keep", "subtract"]), default="keep", show_default=True)
@click.option("--pixel-scale", type=float, default=0.396, show_default=True, help="Arcsec.")
@click.option("--give-variance", is_flag=True, help="Tell the methods the noise.")
@click.option("--tune-images", type=click.IntRange(1), default=16, show_default=True)
@click.option("--photometry-images", type=click.IntRange(0), default=60, show_default=True)
@click.option("--blank-frames", type=click.IntRange(0), default=4, show_default=True)
@click.option("--aperture", type=float, default=5.0, show_default=True, help="Radius in arcsec.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--split-seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("-o", "--output", "out", required=True, type=click.Path(file_okay=False), help="Folder for the results.")
def command(data, out, classic, **options):
    """Restore the 2017 paper's grid of degraded images: PSNR and more, beside the trivial and the paper's own.

    An interrupted run goes on where it was, from OUTPUT/cells.
    """
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise ImageWriteError(f"output {out!r} is no folder; give another")
    path.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(text):
        click.echo(f"{time.monotonic() - started:7.0f} s  {text}", err=True)

    result = run(data, out=out, classic=classic or None, progress=say, **options)
    table = result.table["convention", "fwhm", "noise", "row", "images", "psnr", "gain", "paper", "flux_bias_median"]
    click.echo("\n".join(table.pformat(max_lines=-1, max_width=-1, show_unit=False)))
    for file in result.files:
        click.echo(str(file))


def main(arguments=None):
    """Run the benchmark from the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    command.main(args=arguments, prog_name="python -m astrogan.bench.restoration", standalone_mode=False)


if __name__ == "__main__":
    main()
