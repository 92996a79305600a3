"""``astrogan degrade``."""

from __future__ import annotations

import click

from astrogan.cli._input import QUANTITY, image_options, input_of, options_of, psf_of
from astrogan.cli._output import check_outputs, progress_bar, write_one
from astrogan.cli._windows import Windows, mosaic_options, process_file

__all__ = ["degrade"]


@click.command()
@image_options
@click.option("--preset", help="galaxygan2017, or a survey: sdss, cfhtls, kids, hsc, decals, lsst, euclid, ...")
@click.option("-b", "--backend", help="Degrader backend; default: physical, or the preset's.")
@click.option("--source-psf", help="PSF that the input has, in the forms of --psf; default: as for restore.")
@click.option("--noise", help="Noise to add: a sigma with unit such as 0.02nmgy, or a factor of the image's own.")
@click.option("--match/--add", default=True, help="Bring the PSF to --psf, or blur by --psf on top of what is there.")
@click.option("--rebin", type=click.IntRange(min=1), default=1, help="Pixels along the edge of an output pixel.")
@click.option("--shared-band-noise", is_flag=True, help="One noise plane for all bands, as in the 2017 paper.")
@mosaic_options
def degrade(
    images,
    output,
    overwrite,
    preset,
    backend,
    psf,
    source_psf,
    noise,
    match,
    rebin,
    shared_band_noise,
    seed,
    options,
    **reading,
):
    """Degrade IN as a worse instrument would have seen it; --psf is the PSF wanted."""
    from astrogan import Degrader

    check_outputs(overwrite, [output])
    # A preset has no other way to be told these.
    own = ("backend",) if preset else ("backend", "psf", "noise", "match", "rebin")
    extra = options_of(options, taken=(*own, "shared_band_noise"))
    windows = Windows.taken_from(reading)
    if preset:
        given = {"--backend": backend, "--psf": psf, "--noise": noise, "--add": not match, "--rebin": rebin != 1}
        if any(given.values()):
            raise click.UsageError(
                f"{', '.join(name for name, value in given.items() if value)}: --preset sets that; leave it out, or "
                "give an option of the preset with -O NAME=VALUE"
            )
        extra |= {"shared_band_noise": True} if shared_band_noise else {}
        operator = Degrader.preset(preset, **extra)
    else:
        extra |= {"backend": backend} if backend else {}
        operator = Degrader(
            psf_of(psf),
            _noise(noise),
            match=match,
            rebin=rebin,
            shared_band_noise=shared_band_noise,
            **extra,
        )
    own_psf = psf_of(source_psf, "--source-psf")
    if windows.mosaic:
        with progress_bar("degrading") as progress:
            process_file(
                operator, images, output, overwrite, windows, reading, psf=own_psf, rng=seed, progress=progress
            )
        return
    image, keywords = input_of(images, **reading)
    write_one(operator(image, psf=own_psf, rng=seed, **keywords), output, overwrite)


def _noise(text):
    """A sigma with a unit, or a bare factor."""
    if text is None:
        return None
    from astropy import units as u

    match = QUANTITY.fullmatch(text)
    if not match:
        raise click.UsageError(f"--noise {text!r} must be a number, with a unit for a sigma in flux, e.g. 0.02nmgy")
    try:
        return float(match[1]) * u.Unit(match[2]) if match[2] else float(match[1])
    except ValueError as error:
        raise click.UsageError(f"--noise {text!r}: {match[2]!r} is no unit") from error
