"""``astrogan evaluate``."""

from __future__ import annotations

import click

from astrogan.cli._input import hdu_of
from astrogan.cli._output import check_outputs, show_table

__all__ = ["evaluate"]


@click.command()
@click.argument("truth", metavar="TRUTH")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--hdu", help="HDU of the images: number or EXTNAME.")
@click.option("--unit", help="Unit, where a file has no BUNIT.")
@click.option("--data-range", type=float, help="Range for PSNR and SSIM; default: that of TRUTH's valid pixels.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Also write the table: .ecsv, .fits or .csv.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def evaluate(truth, images, hdu, unit, data_range, output, overwrite):
    """Compare each IMAGE with TRUTH: PSNR, SSIM, rms, flux, correlation."""
    from astrogan.bench.evaluate import evaluate_images

    if output:
        check_outputs(overwrite, tables=[output])
    table = evaluate_images(truth, images, hdu=hdu_of(hdu), unit=unit, data_range=data_range)
    show_table(table)
    if output:
        from astrogan.image.write import write_table

        write_table(table, output, overwrite=overwrite)
