"""What commands are given: images, how they are read, PSFs, options of backends."""

from __future__ import annotations

import re
from pathlib import Path

import click

__all__ = ["QUANTITY", "hdu_of", "image_options", "input_of", "options_of", "psf_of"]

_WITH_HDU = re.compile(r"(.+)\[([^\]]+)\]")
QUANTITY = re.compile(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*([A-Za-z\"'].*)?")
"""A number with a unit, or without."""


def image_options(function):
    """Options that say how the input is read and where the output goes."""
    for option in reversed(
        (
            click.argument("images", nargs=-1, metavar="IN..."),
            click.option("-o", "--output", required=True, type=click.Path(), help="FITS file to write."),
            click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists."),
            click.option("--hdu", help="HDU of the image: number or EXTNAME."),
            click.option("--unit", help="Unit, where the file has no BUNIT: adu, electron, nmgy, ..."),
            click.option("--uncertainty", help="Where the uncertainty is: HDU, FILE or FILE[HDU]."),
            click.option("--uncertainty-type", type=click.Choice(["std", "var", "ivar"]), help="What it is."),
            click.option("--mask", help="Where the mask is (not zero: bad): HDU, FILE or FILE[HDU]."),
            click.option("--saturation", help="Level from which pixels are masked, or 'header'."),
            click.option("--pixel-scale", type=float, help="Arcsec per pixel, where there is no WCS."),
            click.option("--max-pixels", type=int, default=2**30, show_default=True, help="Refuse larger images."),
            click.option("--psf", help="PSF: FWHM as 1.2arcsec or 3.5 (pixels), or a FITS kernel FILE or FILE[HDU]."),
            click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed."),
            click.option(
                "-O", "--option", "options", multiple=True, metavar="NAME=VALUE", help="Option of backend or operator."
            ),
        )
    ):
        function = option(function)
    return function


def input_of(images, *, hdu, unit, uncertainty, uncertainty_type, mask, saturation, pixel_scale, max_pixels, **_):
    """The image argument and the reading keywords of an operator's call."""
    if not images:
        raise click.UsageError("Missing argument 'IN...'.")
    keywords = {
        "hdu": hdu_of(hdu),
        "unit": unit,
        "uncertainty": _source(uncertainty),
        "uncertainty_type": uncertainty_type,
        "mask": _source(mask),
        "saturation": _saturation(saturation),
        "pixel_scale": pixel_scale,
        "max_pixels": max_pixels,
    }
    keywords = {name: value for name, value in keywords.items() if value is not None}
    if len(images) == 1:
        return images[0], keywords
    from astrogan.image.read import read_bands

    # Read here, because file names tell the bands apart where headers do not.
    of_files = ("hdu", "unit", "uncertainty", "uncertainty_type", "mask", "max_pixels")
    bands = read_bands(list(images), **{name: keywords.pop(name) for name in of_files if name in keywords})
    return bands, keywords


def hdu_of(text):
    if text is None:
        return None
    return int(text) if re.fullmatch(r"\d+", text) else text


def _source(text):
    """An HDU number or name, a path, or (path, hdu)."""
    if text is None:
        return None
    if match := _WITH_HDU.fullmatch(text):
        return match[1], hdu_of(match[2])
    return hdu_of(text) if re.fullmatch(r"\d+", text) else text


def _saturation(text):
    if text is None or text == "header":
        return text
    return _number(text, "--saturation")


def _number(text, name):
    try:
        return float(text)
    except ValueError as error:
        raise click.UsageError(f"{name} {text!r} is no number") from error


def psf_of(text, name="--psf"):
    """A PSF from the command line: a FWHM or a kernel in a file."""
    if text is None:
        return None
    match = QUANTITY.fullmatch(text)
    if match and not Path(text).exists():
        from astropy import units as u

        number = float(match[1])
        if not match[2]:
            return number
        unit = {'"': "arcsec", "px": "pix", "pixel": "pix", "pixels": "pix", "'": "arcmin"}.get(match[2], match[2])
        try:
            return number * u.Unit(unit)
        except ValueError as error:
            raise click.UsageError(f"{name} {text!r}: {match[2]!r} is no unit; e.g. 1.2arcsec") from error
    from astropy.nddata import NDData

    from astrogan.image.read import read_image

    path, hdu = (lambda source: source if isinstance(source, tuple) else (source, None))(_source(text))
    if not isinstance(path, str):
        raise click.UsageError(f"{name} {text!r} is neither a FWHM such as 1.2arcsec nor a file")
    return NDData(read_image(path, hdu=hdu, unit="").data)


def options_of(pairs, *, taken=()):
    """NAME=VALUE pairs as keyword arguments; values are read as Python literals where they are such.

    ``taken`` are the arguments that the command has options of its own for.
    """
    import ast

    out = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not separator or not name.isidentifier():
            raise click.UsageError(f"--option {pair!r} must have the form NAME=VALUE, e.g. iterations=30")
        if name in ("self", "progress", *taken):
            raise click.UsageError(f"--option {pair!r}: {name} is no option of a backend; see --help for what sets it")
        try:
            out[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            out[name] = {"true": True, "false": False, "none": None}.get(value.lower(), value)
    return out
