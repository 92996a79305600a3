"""``astrogan deblend``."""

from __future__ import annotations

import click

from astrogan.cli._input import image_options, input_of, options_of, psf_of
from astrogan.cli._output import check_outputs, progress_bar
from astrogan.cli._windows import Windows, mosaic_options, process_file
from astrogan.exceptions import InputError

__all__ = ["deblend"]


@click.command()
@image_options
@click.option("-b", "--backend", default="hybrid", show_default=True, help="See: astrogan backends.")
@click.option("--positions", help="Table (ECSV, FITS, CSV) with columns x, y (0-based) or ra, dec (deg).")
@click.option("--catalog", type=click.Path(dir_okay=False), help="Also write the catalog: .ecsv, .fits or .csv.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads; default: one a core.")
@mosaic_options
def deblend(images, output, overwrite, backend, positions, catalog, workers, psf, seed, options, **reading):
    """Take the blended sources in IN apart; OUTPUT holds sources, residual, segmentation and catalog.

    With --mosaic OUTPUT is a folder with the catalog, the segmentation and the residual.
    """
    from astrogan import Deblender

    windows = Windows.taken_from(reading)
    backend_options = options_of(options, taken=("backend", "psf", "workers"))
    if windows.mosaic:
        if catalog:
            raise click.UsageError("--catalog: with --mosaic the catalog is in the folder OUTPUT; leave it out")
        with progress_bar("deblending") as progress:
            operator = Deblender(backend, workers=workers, progress=progress, **backend_options)
            places = {"positions": _positions(positions), "psf": psf_of(psf)}
            process_file(operator, images, output, overwrite, windows, reading, rng=seed, **places)
        return
    check_outputs(overwrite, [output], [catalog] if catalog else [])
    image, keywords = input_of(images, **reading)
    with progress_bar("deblending") as progress:
        operator = Deblender(backend, workers=workers, progress=progress, **backend_options)
        result = operator(image, _positions(positions), psf=psf_of(psf), rng=seed, **keywords)
    result.write(output, overwrite=overwrite)
    click.echo(output)
    if catalog:
        from astrogan.image.write import write_table

        write_table(result.catalog, catalog, overwrite=overwrite)
        click.echo(catalog)
    click.echo(f"{len(result.sources)} sources", err=True)


def _positions(path):
    if path is None:
        return None
    from astropy.table import Table

    try:
        return Table.read(path)
    except Exception as error:
        raise InputError(
            f"--positions {path!r} cannot be read as a table ({error}); check the path, or use ECSV, FITS or CSV"
        ) from error
