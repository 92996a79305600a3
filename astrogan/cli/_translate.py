"""``astrogan translate``."""

from __future__ import annotations

from pathlib import Path

import click

from astrogan.cli._input import image_options, input_of, options_of, psf_of
from astrogan.cli._output import check_outputs, progress_bar, write_one
from astrogan.cli._windows import Windows, mosaic_options, process_file

__all__ = ["translate"]


@click.command()
@image_options
@click.option("-b", "--backend", default="surveynet", show_default=True, help="See: astrogan backends.")
@click.option("--target", required=True, help="A survey (sdss, cfhtls, kids, hsc, ...) or a FITS image to match.")
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Noise realisations.")
@mosaic_options
def translate(images, output, overwrite, backend, target, samples, psf, seed, options, **reading):
    """Show IN as another survey would have seen it."""
    from astrogan import Translator

    windows = Windows.taken_from(reading)
    paths = [Path(output)]
    if samples > 1:
        if windows.mosaic:
            raise click.UsageError("--samples gives several images; with --mosaic make them one by one, with --seed")
        paths = [paths[0].with_name(f"{paths[0].stem}-{i + 1}{paths[0].suffix}") for i in range(samples)]
    check_outputs(overwrite, paths)
    operator = Translator(backend, target=target, **options_of(options, taken=("backend", "target", "psf")))
    if windows.mosaic:
        with progress_bar("translating") as progress:
            process_file(
                operator, images, output, overwrite, windows, reading, psf=psf_of(psf), rng=seed, progress=progress
            )
        return
    image, keywords = input_of(images, **reading)
    results = operator(image, psf=psf_of(psf), n_samples=samples, rng=seed, **keywords)
    for path, result in zip(paths, results if samples > 1 else [results], strict=True):
        write_one(result, path, overwrite)
