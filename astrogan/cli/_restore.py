"""``astrogan restore``."""

from __future__ import annotations

import click

from astrogan._text import visible
from astrogan.catalogs._command import catalog_options, run_many, taken_over
from astrogan.cli._input import image_options, input_of, options_of, psf_of
from astrogan.cli._output import check_outputs, progress_bar, write_one
from astrogan.cli._windows import Windows, dask_client, mosaic_options, process_file

__all__ = ["restore"]


@click.command()
@image_options
@click.option("-b", "--backend", default="nafnet", show_default=True, help="See: astrogan backends.")
@click.option("--tile", type=click.IntRange(min=8), help="Edge of the tiles in pixels.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads (of many: processes); default: one a core.")
@click.option("--diagnose", is_flag=True, help="Print the reconvolution check.")
@mosaic_options
@catalog_options
def restore(images, output, overwrite, backend, psf, seed, options, tile, workers, diagnose, **reading):
    """Restore IN (several files: one a band) and write OUTPUT.

    Where OUTPUT is a folder (there is one, or it ends with /) each IN is an image of its own, written there under its
    name; with --catalog a stamp is restored for each row of a table.
    """
    from astrogan import Restorer

    many = taken_over(reading, images, output)
    windows = Windows.taken_from(reading, shared=("restart", "scheduler") if many else ())
    if windows.mosaic and (many or diagnose):
        raise click.UsageError("--mosaic is for one image, without --diagnose, which compares whole images")
    setup = {"psf": psf_of(psf), "tile": tile} | options_of(options, taken=("backend", "psf", "tile", "workers"))
    if many:
        with dask_client(windows.scheduler) as client, progress_bar("restoring") as progress:
            how = {"workers": workers, "client": client, "restart": windows.restart, "overwrite": overwrite}
            how |= {"seed": seed, "diagnose": diagnose, "progress": progress}
            run_many(Restorer(backend, **setup), images, output, many, **how, **input_of(("",), **reading)[1])
        return
    check_outputs(overwrite, [output])
    with progress_bar("restoring") as progress:
        operator = Restorer(backend, workers=workers, progress=progress, **setup)
        if windows.mosaic:
            process_file(operator, images, output, overwrite, windows, reading, rng=seed)
            return
        image, keywords = input_of(images, **reading)
        result = operator(image, rng=seed, **keywords)
    write_one(result, output, overwrite)
    _say_psf(result)
    if diagnose:
        click.echo(visible(operator.diagnose(image, result, **keywords).summary()))


def _say_psf(result):
    """On standard error, that a PSF was neither given nor in the header."""
    first = next(iter(result.values())) if isinstance(result, dict) else result
    origin = str(getattr(first, "meta", {}).get("AGPSF", ""))
    if origin.startswith(("built", "assumed")):
        said = f"PSF: {origin}, FWHM {first.meta['AGFWHM']} pixels; give one with --psf"
        click.echo(visible(said), err=True)
