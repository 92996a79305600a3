"""The ``astrogan`` command: the operators in the words of `astrogan`'s Python interface.

Exit status: 0 if all went well, 1 if data or files are at fault, 2 if the command line is, 130 if interrupted, 143 if
terminated.
Tracebacks are for ``--debug``. Nothing is overwritten without ``--overwrite``. Heavy imports wait until a command
runs, so ``astrogan --help`` answers at once.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import click

from astrogan.catalogs._command import catalog_options, run_many, taken_over
from astrogan.exceptions import (
    AstroganError,
    AstroganWarning,
    CheckpointError,
    ImageWriteError,
    InputError,
    MissingDependencyError,
)

__all__ = ["main"]

_QUANTITY = re.compile(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*([A-Za-z\"'].*)?")
_WITH_HDU = re.compile(r"(.+)\[([^\]]+)\]")
# As astrogan.api and astrogan.plugins.template have them; spelled out, so that --help need not import numpy.
_ROLES = ("restorer", "degrader", "deblender", "translator", "noise")
_LICENCES = ("BSD-3-Clause", "MIT", "none")


def main(argv=None):
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : list of str, optional
        Default: ``sys.argv[1:]``.

    Returns
    -------
    int
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in argv
    with warnings.catch_warnings(), _terminable():
        warnings.simplefilter("default", AstroganWarning)
        warnings.showwarning = _warnings_once()
        try:
            cli.main(args=argv, prog_name="astrogan", standalone_mode=False)
        except click.exceptions.Abort:
            return _fail("interrupted", 130)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except KeyboardInterrupt:
            return _fail("interrupted", 130)
        except _Terminated:
            return _fail("terminated", 143)
        except BrokenPipeError:
            sys.stderr.close()
            return 1
        except AstroganError as error:
            if debug:
                raise
            return _fail(f"error: {error}", 1)
        except Exception as error:
            if debug:
                raise
            return _fail(f"error: {_explained(error)} (traceback: astrogan --debug COMMAND ...)", 1)
    return 0


class _Terminated(BaseException):
    """SIGTERM as an exception, so that temporary files go; no ``Exception``, which a backend might take for its own."""


@contextmanager
def _terminable():
    """While a command runs, SIGTERM ends it as Ctrl-C does; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def end(number, _):
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != process:  # a worker that was forked: it has nothing to clean up
            os.kill(os.getpid(), number)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _explained(error):
    """One line for an error that is not astrogan's own."""
    reason = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "can't allocate memory" in reason:
        remedy = "use smaller tiles (--tile), fewer threads (--workers) or a part of the image"
        return f"out of memory: {reason[:200] or 'nothing more can be allocated'}; {remedy}"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{str(error.filename)!r}: {error.strerror}"
    return f"{type(error).__name__}: {reason}"


def _fail(message, status):
    click.echo(f"astrogan: {message}", err=True)
    return status


def _warnings_once():
    """A ``showwarning`` that says each thing once, though a command may read its input twice."""
    said = set()

    def show(message, category, filename, lineno, file=None, line=None):
        if str(message) not in said:
            said.add(str(message))
            click.echo(f"astrogan: warning: {message}", err=True)

    return show


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks and log messages.")
@click.version_option(package_name="astrogan", message="%(prog)s %(version)s")
def cli(debug):
    """Restore, degrade, deblend and translate astronomical images."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s", stream=sys.stderr)
        logging.getLogger("matplotlib").setLevel(logging.WARNING)


# ---- what the commands share -------------------------------------------------------------------------------------


def _image_options(function):
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


def _mosaic_options(function):
    """Options for images larger than memory."""
    for option in reversed(
        (
            click.option("--mosaic", is_flag=True, help="Go by windows of the file, for images larger than memory."),
            click.option("--window", type=click.IntRange(min=64), help="Edge of the windows in pixels; default: 2048."),
            click.option("--restart", is_flag=True, help="Do not go on from what a killed run left."),
            click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers do it."),
        )
    ):
        function = option(function)
    return function


def _process(operator, images, output, overwrite, how, reading, **keywords):
    """An operator from file to file, by windows; ``how`` are the values of `_mosaic_options`."""
    image, read = _reading(images[:1], **reading)
    read.pop("max_pixels", None)
    with _client(how["scheduler"]) as client:
        operator.process(
            image if len(images) == 1 else _named(images),
            output,
            tile=how["window"],
            client=client,
            overwrite=overwrite,
            resume=not how["restart"],
            **keywords,
            **read,
        )
    click.echo(str(output))


def _mosaic_of(keywords):
    """Take the values of `_mosaic_options` out of a command's keywords; `None` where it is for an image in memory."""
    how = {name: keywords.pop(name) for name in ("window", "restart", "scheduler")}
    if keywords.pop("mosaic"):
        return how
    _need_mosaic(**how)
    return None


def _need_mosaic(**options):
    """Refuse options that mean nothing without --mosaic."""
    given = [f"--{name}" for name, value in options.items() if value]
    if given:
        raise click.UsageError(f"{', '.join(given)}: for images that are done by windows; add --mosaic")


def _named(paths):
    """Paths by what tells their names apart, as bands."""
    from astrogan.image.read import read_bands

    corner = (slice(0, 1), slice(0, 1))
    return dict(zip(read_bands(list(paths), unit="adu", section=corner), paths, strict=True))


@contextmanager
def _client(address):
    """The client of a dask scheduler; `None` without an address."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingDependencyError("--scheduler needs dask: pip install 'astrogan[dask]'") from error
    try:
        client = Client(address, timeout="20s")
    except (OSError, ValueError) as error:
        raise InputError(f"--scheduler {address!r}: no scheduler answers there: {error}") from error
    with client:
        yield client


def _reading(images, *, hdu, unit, uncertainty, uncertainty_type, mask, saturation, pixel_scale, max_pixels, **_):
    """The image argument and the reading keywords of an operator's call."""
    if not images:
        raise click.UsageError("Missing argument 'IN...'.")
    keywords = {
        "hdu": _hdu(hdu),
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


def _hdu(text):
    if text is None:
        return None
    return int(text) if re.fullmatch(r"\d+", text) else text


def _source(text):
    """An HDU number or name, a path, or (path, hdu)."""
    if text is None:
        return None
    if match := _WITH_HDU.fullmatch(text):
        return match[1], _hdu(match[2])
    return _hdu(text) if re.fullmatch(r"\d+", text) else text


def _saturation(text):
    if text is None or text == "header":
        return text
    return _number(text, "--saturation")


def _number(text, name):
    try:
        return float(text)
    except ValueError as error:
        raise click.UsageError(f"{name} {text!r} is no number") from error


def _psf(text, name="--psf"):
    """A PSF from the command line: a FWHM or a kernel in a file."""
    if text is None:
        return None
    match = _QUANTITY.fullmatch(text)
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


def _options(pairs, *, taken=()):
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


def _check_outputs(overwrite, images=(), tables=()):
    """Whether the files can be written: said before the work rather than after it."""
    from astrogan.image.write import check_fits_name, check_table_name

    for path in images:
        check_fits_name(path)
    for path in tables:
        check_table_name(path)
    paths = [Path(path) for path in (*images, *tables)]
    if len({path.absolute() for path in paths}) < len(paths):
        raise click.UsageError(f"{str(paths[-1])!r} is to be written twice; give each output a file of its own")
    for path in paths:
        if path.exists() and not overwrite:
            raise ImageWriteError(f"output {str(path)!r} exists; add --overwrite to replace it, or name another file")
        if not path.absolute().parent.is_dir():
            raise ImageWriteError(f"output {str(path)!r}: there is no folder {str(path.parent)!r}; create it first")


def _write(image, path, overwrite):
    from astrogan.image.write import write_image

    write_image(image, path, overwrite=overwrite)
    click.echo(str(path))


@contextmanager
def _progress(label):
    """``progress(done, total)`` for a terminal; silent elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show_table(table, title=None):
    """A table on standard output, as wide as it needs to be: nothing is cut."""
    if title:
        click.echo(f"\n{title}")
    click.echo("\n".join(table.pformat(max_lines=-1, max_width=-1, show_unit=False, align=_alignment(table))))


def _alignment(table):
    return [">" if column.dtype.kind in "fiub" else "<" for column in table.itercols()]


# ---- the commands -------------------------------------------------------------------------------------------------


@cli.command()
@_image_options
@click.option("-b", "--backend", default="nafnet", show_default=True, help="See: astrogan backends.")
@click.option("--tile", type=click.IntRange(min=8), help="Edge of the tiles in pixels.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads (of many: processes); default: one a core.")
@click.option("--diagnose", is_flag=True, help="Print the reconvolution check.")
@_mosaic_options
@catalog_options
def restore(
    images,
    output,
    overwrite,
    backend,
    psf,
    seed,
    options,
    tile,
    workers,
    diagnose,
    mosaic,
    window,
    restart,
    scheduler,
    **reading,
):
    """Restore IN (several files: one a band) and write OUTPUT.

    Where OUTPUT is a folder (there is one, or it ends with /) each IN is an image of its own, written there under its
    name; with --catalog a stamp is restored for each row of a table.
    """
    from astrogan import Restorer

    many = taken_over(reading, images, output)
    backend_options = _options(options, taken=("backend", "psf", "tile", "workers"))
    if many:
        _need_mosaic(mosaic=mosaic, window=window)
        with _client(scheduler) as client, _progress("restoring") as progress:
            operator = Restorer(backend, psf=_psf(psf), tile=tile, **backend_options)
            how = {"workers": workers, "client": client, "restart": restart, "overwrite": overwrite, "seed": seed}
            keywords = _reading(("",), **reading)[1]
            run_many(operator, images, output, many, diagnose=diagnose, progress=progress, **how, **keywords)
        return
    _check_outputs(overwrite, [output])
    if mosaic:
        if diagnose:
            raise click.UsageError("--diagnose compares whole images; leave it out with --mosaic")
        with _progress("restoring") as progress:
            operator = Restorer(
                backend, psf=_psf(psf), tile=tile, workers=workers, progress=progress, **backend_options
            )
            how = {"window": window, "restart": restart, "scheduler": scheduler}
            _process(operator, images, output, overwrite, how, reading, rng=seed)
        return
    _need_mosaic(window=window, restart=restart, scheduler=scheduler)
    image, keywords = _reading(images, **reading)
    with _progress("restoring") as progress:
        operator = Restorer(backend, psf=_psf(psf), tile=tile, workers=workers, progress=progress, **backend_options)
        result = operator(image, rng=seed, **keywords)
    _write(result, output, overwrite)
    _say_psf(result)
    if diagnose:
        click.echo(operator.diagnose(image, result, **keywords).summary())


def _say_psf(result):
    """On standard error, that a PSF was neither given nor in the header."""
    first = next(iter(result.values())) if isinstance(result, dict) else result
    origin = str(getattr(first, "meta", {}).get("AGPSF", ""))
    if origin.startswith(("built", "assumed")):
        click.echo(f"PSF: {origin}, FWHM {first.meta['AGFWHM']} pixels; give one with --psf", err=True)


@cli.command()
@_image_options
@click.option("--preset", help="galaxygan2017, or a survey: sdss, cfhtls, kids, hsc, decals, lsst, euclid, ...")
@click.option("-b", "--backend", help="Degrader backend; default: physical, or the preset's.")
@click.option("--source-psf", help="PSF that the input has, in the forms of --psf; default: as for restore.")
@click.option("--noise", help="Noise to add: a sigma with unit such as 0.02nmgy, or a factor of the image's own.")
@click.option("--match/--add", default=True, help="Bring the PSF to --psf, or blur by --psf on top of what is there.")
@click.option("--rebin", type=click.IntRange(min=1), default=1, help="Pixels along the edge of an output pixel.")
@click.option("--shared-band-noise", is_flag=True, help="One noise plane for all bands, as in the 2017 paper.")
@_mosaic_options
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

    _check_outputs(overwrite, [output])
    # A preset has no other way to be told these.
    own = ("backend",) if preset else ("backend", "psf", "noise", "match", "rebin")
    extra = _options(options, taken=(*own, "shared_band_noise"))
    how = _mosaic_of(reading)
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
            _psf(psf),
            _noise(noise),
            match=match,
            rebin=rebin,
            shared_band_noise=shared_band_noise,
            **extra,
        )
    own_psf = _psf(source_psf, "--source-psf")
    if how:
        with _progress("degrading") as progress:
            _process(operator, images, output, overwrite, how, reading, psf=own_psf, rng=seed, progress=progress)
        return
    image, keywords = _reading(images, **reading)
    _write(operator(image, psf=own_psf, rng=seed, **keywords), output, overwrite)


def _noise(text):
    """A sigma with a unit, or a bare factor."""
    if text is None:
        return None
    from astropy import units as u

    match = _QUANTITY.fullmatch(text)
    if not match:
        raise click.UsageError(f"--noise {text!r} must be a number, with a unit for a sigma in flux, e.g. 0.02nmgy")
    try:
        return float(match[1]) * u.Unit(match[2]) if match[2] else float(match[1])
    except ValueError as error:
        raise click.UsageError(f"--noise {text!r}: {match[2]!r} is no unit") from error


@cli.command()
@_image_options
@click.option("-b", "--backend", default="hybrid", show_default=True, help="See: astrogan backends.")
@click.option("--positions", help="Table (ECSV, FITS, CSV) with columns x, y (0-based) or ra, dec (deg).")
@click.option("--catalog", type=click.Path(dir_okay=False), help="Also write the catalog: .ecsv, .fits or .csv.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads; default: one a core.")
@_mosaic_options
def deblend(images, output, overwrite, backend, positions, catalog, workers, psf, seed, options, **reading):
    """Take the blended sources in IN apart; OUTPUT holds sources, residual, segmentation and catalog.

    With --mosaic OUTPUT is a folder with the catalog, the segmentation and the residual.
    """
    from astrogan import Deblender

    how = _mosaic_of(reading)
    backend_options = _options(options, taken=("backend", "psf", "workers"))
    if how:
        if catalog:
            raise click.UsageError("--catalog: with --mosaic the catalog is in the folder OUTPUT; leave it out")
        with _progress("deblending") as progress:
            operator = Deblender(backend, workers=workers, progress=progress, **backend_options)
            places = {"positions": _positions(positions), "psf": _psf(psf)}
            _process(operator, images, output, overwrite, how, reading, rng=seed, **places)
        return
    _check_outputs(overwrite, [output], [catalog] if catalog else [])
    image, keywords = _reading(images, **reading)
    with _progress("deblending") as progress:
        operator = Deblender(backend, workers=workers, progress=progress, **backend_options)
        result = operator(image, _positions(positions), psf=_psf(psf), rng=seed, **keywords)
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


@cli.command()
@_image_options
@click.option("-b", "--backend", default="surveynet", show_default=True, help="See: astrogan backends.")
@click.option("--target", required=True, help="A survey (sdss, cfhtls, kids, hsc, ...) or a FITS image to match.")
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Noise realisations.")
@_mosaic_options
def translate(images, output, overwrite, backend, target, samples, psf, seed, options, **reading):
    """Show IN as another survey would have seen it."""
    from astrogan import Translator

    how = _mosaic_of(reading)
    paths = [Path(output)]
    if samples > 1:
        if how:
            raise click.UsageError("--samples gives several images; with --mosaic make them one by one, with --seed")
        paths = [paths[0].with_name(f"{paths[0].stem}-{i + 1}{paths[0].suffix}") for i in range(samples)]
    _check_outputs(overwrite, paths)
    operator = Translator(backend, target=target, **_options(options, taken=("backend", "target", "psf")))
    if how:
        with _progress("translating") as progress:
            _process(operator, images, output, overwrite, how, reading, psf=_psf(psf), rng=seed, progress=progress)
        return
    image, keywords = _reading(images, **reading)
    results = operator(image, psf=_psf(psf), n_samples=samples, rng=seed, **keywords)
    for path, result in zip(paths, results if samples > 1 else [results], strict=True):
        _write(result, path, overwrite)


@cli.command()
@click.option("--role", help="restorer, degrader, deblender, translator or noise.")
def backends(role):
    """List the installed backends: who brought them and whether they can be used."""
    from astrogan import list_backends

    _show_table(list_backends(role))


@cli.group()
def plugin():
    """Backends of your own."""


@plugin.command("new")
@click.argument("name", metavar="NAME")
@click.option("--role", type=click.Choice(_ROLES), default="restorer", show_default=True, help="What it is.")
@click.option("--folder", type=click.Path(file_okay=False), default=".", show_default=True, help="Where to write it.")
@click.option("--author", help="'A. Author' or 'A. Author <mail@example.org>'.")
@click.option("--licence", type=click.Choice(_LICENCES), default="BSD-3-Clause", show_default=True)
def plugin_new(name, role, folder, author, licence):
    """Write the folder astrogan-NAME: a package whose backend NAME works, with its entry point and its test."""
    import shlex

    from astrogan.plugins.template import new_plugin

    path = new_plugin(name, folder, role, author, None if licence == "none" else licence)
    click.echo(str(path))
    click.echo(f"next: python -m pip install -e {shlex.quote(str(path))}; astrogan backends --role {role}", err=True)


@cli.command()
@click.argument("recipe", required=False)
@click.option("--data", type=click.Path(exists=True, file_okay=False), help="Folder below which the data lie.")
@click.option("--out", "-o", type=click.Path(file_okay=False), help="Run directory; must not exist without --resume.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out; RECIPE is the run's own then.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Another value, e.g. training.l1_weight=50."
)
@click.option("--folds", type=click.IntRange(min=2), help="k-fold cross validation: a run for each fold.")
@click.option(
    "--test-images", type=click.IntRange(min=1), help="With --folds: test on so many images of a fold at most."
)
@click.option("--accelerator", default="auto", show_default=True, help="cpu, gpu, ... (Lightning).")
@click.option("--devices", default="1", show_default=True, help="How many, or which (Lightning).")
@click.option("--num-nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Machines (Lightning).")
@click.option("--strategy", default="auto", show_default=True, help="auto, ddp, ... (Lightning).")
@click.option("--precision", default="32-true", show_default=True, help="32-true or bf16-mixed (Lightning).")
@click.option(
    "--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Processes that make batches."
)
@click.option("--epochs", type=click.IntRange(min=1), help="Stop after so many; go on later with --resume.")
@click.option("--list", "show_recipes", is_flag=True, help="List the recipes that come with astrogan.")
def train(recipe, data, out, resume, settings, folds, test_images, show_recipes, epochs, devices, **options):
    """Train a network by RECIPE, a name or a TOML file, on --data; the weights go to OUT/<name>.safetensors."""
    from astrogan.train import fit, list_recipes, read_recipe
    from astrogan.train._distributed import leads

    if show_recipes:
        for name in list_recipes():
            click.echo(f"{name}: {read_recipe(name).summary}")
        return
    needed = {"RECIPE": recipe or (resume and not folds), "--data": data, "--out": out}
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise click.UsageError(f"{', '.join(missing)} must be given")
    if folds and epochs:
        raise click.UsageError("--epochs cannot be given with --folds: a fold is trained to its end")
    options |= {"data": data, "resume": resume, "stop_after": epochs, "progress": sys.stderr.isatty()}
    options["devices"] = int(devices) if devices.isdigit() else devices
    overrides = _settings(settings)
    if folds:
        from astrogan.train import cross_validate

        table = cross_validate(recipe, out=out, folds=folds, overrides=overrides, images=test_images or 0, **options)
        if leads():  # of several processes, one speaks
            _show_table(table)
        return
    path = fit(recipe, out=out, overrides=overrides, **options)
    if leads():
        again = f"stopped; go on with: astrogan train --data {data} --out {out} --resume"
        click.echo(again if path is None else str(path))


def _settings(pairs):
    """``KEY=VALUE`` as TOML reads them; a value that is no TOML is text."""
    import tomllib

    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"--set {pair}: write KEY=VALUE, e.g. --set steps=100")
        try:
            found[key] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found


@cli.group()
def weights():
    """List, show, check and blend the weights of networks."""


@weights.command("list")
@click.option("--role", help="restorer, degrader, deblender, translator or noise.")
@click.option("--backend", help="Only those for this backend.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def weights_list(role, backend, form):
    """List the weights that come with the package."""
    from astrogan.weights import list_weights, read_card

    # A damaged card must not hide the others.
    cards, damaged = [], []
    for name in list_weights(role, backend):
        try:
            cards.append(read_card(name))
        except CheckpointError as error:
            damaged.append(error)
    if form == "json":
        _show_json(cards)
    elif cards:
        from astropy.table import Table

        names = ("name", "role", "backend", "bands", "size", "licence")
        _show_table(
            Table(rows=[["" if card[n] is None else str(card[n]) for n in names] for card in cards], names=names)
        )
    elif not damaged:
        click.echo("no weights of this kind come with the package", err=True)
    if damaged:
        raise CheckpointError("; ".join(map(str, damaged)))


@weights.command("show")
@click.argument("name", metavar="NAME")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def weights_show(name, form):
    """Show the card of NAME: shipped weights, a .safetensors file or a folder with one."""
    from astrogan.weights import describe, read_card

    card = read_card(name)
    if form == "json":
        _show_json(card)
    else:
        click.echo(describe(card))


@weights.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def weights_verify(names):
    """Check every byte of the weights NAME, of all shipped ones by default."""
    from astrogan.weights import list_weights, load_weights

    names = names or list_weights()
    bad = 0
    for name in names:
        try:
            found = load_weights(name)
        except AstroganError as error:
            bad += 1
            click.echo(f"{name}: {error}")
        else:
            click.echo(f"{name}: ok, {sum(t.numel() for t in found.tensors.values())} numbers, sha256 {found.sha256}")
    if not names:
        click.echo("no weights come with the package", err=True)
    if bad:
        raise CheckpointError(f"{bad} of {len(names)} weights cannot be used")


@weights.command("blend")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--alpha", type=float, default=0.5, show_default=True, help="Share of B, from 0 to 1.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help=".safetensors file to write.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT and its card if they exist.")
def weights_blend(first, second, alpha, output, overwrite):
    """Write weights between A and B, two of the same architecture, with a card that names both."""
    from astrogan.weights import blend, blend_card, load_weights, save_weights

    a, b = load_weights(first), load_weights(second)
    tensors = blend(a, b, alpha)
    save_weights(output, tensors, blend_card(a, b, alpha, Path(output).stem), overwrite=overwrite)
    click.echo(output)


@weights.command("export")
@click.argument("name", metavar="NAME")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help=".onnx file to write.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def weights_export(name, output, overwrite):
    """Write the network of NAME as an ONNX model."""
    from astrogan.weights import export_onnx

    click.echo(str(export_onnx(name, output, overwrite=overwrite)))


def _show_json(value):
    import json

    click.echo(json.dumps(value, indent=2))


@cli.command()
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False), help="Folder for the FITS files.")
@click.option("--size", type=click.IntRange(min=32), help="Pixels along each axis; default: 512, of a blend 80.")
@click.option("--bands", default="g,r,i", show_default=True, help="Bands, separated by commas.")
@click.option("--blends", type=click.IntRange(min=1), help="So many blends instead of a field.")
@click.option("--sources", type=click.IntRange(min=1), help="Sources in a blend; default: 2 to 8 at random.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def simulate(output, size, bands, blends, sources, seed, overwrite):
    """Simulate a field of galaxies and stars, or blends, with noise-free truth and catalog."""
    folder, bands = Path(output), tuple(bands.split(","))
    if sources and not blends:
        raise click.UsageError("--sources is for blends; give --blends N, too")
    if blends:
        from astrogan.simulate.blends import simulate_blend

        seeds = range(seed, seed + blends)
        scenes = (simulate_blend(s, bands=bands, shape=(size or 80,) * 2, sources=sources) for s in seeds)
        click.echo(_write_blends(scenes, [f"blend-{s:06d}" for s in seeds], folder, overwrite))
        return
    from astrogan.image.write import write_table
    from astrogan.simulate.field import simulate_field

    files = [folder / name for name in ("field.fits", "truth.fits", "sharp.fits", "catalog.ecsv")]
    if folder.exists():
        _check_outputs(overwrite, files[:3], files[3:])
    field = simulate_field((size or 512,) * 2, bands=bands, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    for path, image in zip(files, (field.images, field.truth_images, field.truth_sharp_images), strict=False):
        _write(image, path, overwrite)
    write_table(field.catalog, files[3], overwrite=overwrite)
    click.echo(str(files[3]))


def _write_blends(scenes, names, folder, overwrite):
    """Write blends as NAME.fits, their sources alone as NAME-truth.fits, and a catalog, whose path is returned."""
    from astropy.table import Table, vstack

    from astrogan.image.write import write_table

    catalog, rows = folder / "catalog.ecsv", []
    if folder.exists():
        _check_outputs(overwrite, [folder / f"{n}{part}.fits" for n in names for part in ("", "-truth")], [catalog])
    for name, scene in zip(names, scenes, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        _write(scene.images, folder / f"{name}.fits", overwrite)
        _write(scene.truth_images, folder / f"{name}-truth.fits", overwrite)
        rows.append(Table({"blend": [name] * len(scene.kinds)} | dict(scene.catalog.columns)))
    write_table(vstack(rows), catalog, overwrite=overwrite)
    return str(catalog)


@cli.command()
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
        _check_outputs(overwrite, tables=[output])
    table = evaluate_images(truth, images, hdu=_hdu(hdu), unit=unit, data_range=data_range)
    _show_table(table)
    if output:
        from astrogan.image.write import write_table

        write_table(table, output, overwrite=overwrite)


_BENCHES = {
    "catalog": "astrogan.bench.catalog",
    "deblending": "astrogan.bench.deblending",
    "degradation": "astrogan.bench.degradation",
    "loading": "astrogan.bench.loading",
    "mosaic": "astrogan.bench.mosaic",
    "networks": "astrogan.bench.networks",
    "noise": "astrogan.bench.noise",
    "performance": "astrogan.bench.performance",
    "restoration": "astrogan.bench.restoration",
    "restoration-linear": "astrogan.bench.restoration_linear",
    "richardson-lucy": "astrogan.bench.richardson_lucy",
    "training-size": "astrogan.bench.training_size",
    "translation": "astrogan.bench.translation",
    "translation-real": "astrogan.bench.translation_real",
    "wiener": "astrogan.bench.wiener",
}


class _Benches(click.Group):
    """A command a benchmark: its module's own, ``command``, or one that times it; imported when it is asked for."""

    def list_commands(self, ctx):
        return sorted(_BENCHES)

    def get_command(self, ctx, name):
        import importlib

        if name not in _BENCHES:
            return None
        module = importlib.import_module(_BENCHES[name])
        return getattr(module, "command", None) or _plain(name, module)

    def resolve_command(self, ctx, args):
        if args and args[0] not in _BENCHES:
            raise click.UsageError(f"there is no benchmark {args[0]!r}; there are: {', '.join(sorted(_BENCHES))}", ctx)
        return super().resolve_command(ctx, args)


def _plain(name, module):
    """A command that hands its arguments to a benchmark's own parser."""

    @click.command(name, add_help_option=False, context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def run(arguments):
        module.main(list(arguments))

    run.help = module.__doc__.splitlines()[0].replace("``", "")
    return run


@cli.group(cls=_Benches)
def bench():
    """Benchmarks: methods beside their peers and beside published numbers, in one run."""


class _Fetches(click.Group):
    """A command a survey; imported when it is asked for."""

    def list_commands(self, ctx):
        return ["galaxy-zoo", "legacy", "sdss"]

    def get_command(self, ctx, name):
        from astrogan.datasets._command import COMMANDS

        return COMMANDS.get(name)


@cli.group(cls=_Fetches)
def fetch():
    """Fetch survey images: SDSS cutouts, Galaxy Zoo's stamps, Legacy Surveys cutouts."""


@cli.group(invoke_without_command=True)
@click.pass_context
@click.option(
    "-o", "--output", default="astrogan-demo", show_default=True, type=click.Path(file_okay=False), help="Folder."
)
@click.option("--size", type=click.IntRange(min=128), default=384, show_default=True, help="Pixels along each axis.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def demo(context, output, size, seed, overwrite):
    """Simulate a field, degrade, restore, deblend and translate it; write FITS files, a figure and tables.

    With a name: the pipeline of a paper.
    """
    if context.invoked_subcommand:
        return
    from astrogan.demo import run_demo

    say = lambda text: click.echo(text, err=True)  # noqa: E731 - one line, used once
    result = run_demo(output, size=size, seed=seed, overwrite=overwrite, progress=say)
    for title, table in result.tables.items():
        _show_table(table, title)
        click.echo(click.wrap_text(table.meta["caption"], 110))
    _show_files(result.files)


@demo.command("usaid2019")
@click.argument("pictures", nargs=-1, type=click.Path(exists=True, dir_okay=False), metavar="[FIRST SECOND]")
@click.option(
    "-o", "--output", default="astrogan-usaid2019", show_default=True, type=click.Path(file_okay=False), help="Folder."
)
@click.option("--rule", type=click.Choice(["mean", "maximum"]), default="mean", show_default=True, help="Of the blend.")
@click.option("--shift", type=int, default=50, show_default=True, help="Pixels to the right of the second galaxy.")
@click.option("--noise", type=click.FloatRange(min=0), default=0.03, show_default=True, help="On the segments.")
@click.option("--weights", default="auto", show_default=True, help="Name or path.")
@click.option("--completion", type=click.Choice(["encoder", "inversion"]), default="encoder", show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=200, show_default=True, help="Of the inversion.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def demo_usaid2019(pictures, output, **options):
    """Blend two galaxies, segment the blend, complete the halves: the pipeline of Usaid et al. (2019), in one figure.

    FIRST and SECOND are colour pictures of one galaxy each (JPEG, PNG, or FITS with three bands); without them two are
    simulated.
    """
    from astrogan.demo_usaid2019 import run_pipeline

    if len(pictures) not in (0, 2):
        raise click.UsageError("give two pictures, FIRST and SECOND, or none")
    say = lambda text: click.echo(text, err=True)  # noqa: E731 - one line, used once
    result = run_pipeline(*pictures, out=output, progress=say, **options)
    _show_table(result.table)
    _show_files(result.files)


def _show_files(files):
    click.echo("\nFiles:")
    for path in files:
        click.echo(f"  {path}")


if __name__ == "__main__":
    sys.exit(main())
