"""The images of the restoration benchmark: pictures or FITS files as linear flux in nanomaggies."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astrogan.exceptions import ImageReadError, InputError, UnitError

__all__ = ["PARTS", "Stamp", "read_stamps", "resized"]

PARTS = ("test", "validation", "train", "all")
_PICTURES = {".jpg", ".jpeg", ".png"}
_FITS = {".fits", ".fit", ".fz"}
_NOISE_FREE = ".truth"
_TYPICAL_SKY = 0.024
"""Sky noise in nanomaggies that images of unknown unit are scaled to: about that of SDSS in g, r and i."""


@dataclass(frozen=True)
class Stamp:
    """One image to degrade and to compare with.

    Parameters
    ----------
    name : str
        Stem of the file.
    flux : `numpy.ndarray`
        (band, y, x) float32, nanomaggies.
    sky_level, sky_sigma : `numpy.ndarray`
        (band,), the sky's level in ``flux``, and its standard deviation.
    noise_free : `numpy.ndarray` or None
        Of ``flux``'s shape, where the image was simulated.
    """

    name: str
    flux: np.ndarray
    sky_level: np.ndarray
    sky_sigma: np.ndarray
    noise_free: np.ndarray | None = None


def _order(name, seed):
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def read_stamps(source, *, images=300, part="test", split_seed=0, size=256, sky="keep", name=None):
    """Read a subset that depends on the objects' names alone.

    Parameters
    ----------
    source : path or sequence of paths
        A folder or a tar file of JPEG, PNG and FITS images, or the files. ``NAME.truth.fits`` beside ``NAME.fits`` is
        its noise-free truth.
    images : int or None
        Largest number of images.
    part : {"test", "validation", "train", "all"}
        A tenth of the objects, another tenth, the rest, or all: see `~astrogan.train.split.part_of`.
    split_seed : int
        Of the split.
    size : int or None
        Edge that pictures are resized to (bilinear); FITS images are cut to it about their centre. None: as they are.
    sky : {"keep", "subtract"}
        Whether the median of each band's outer tenth is taken off pictures; off FITS images it always is.
    name : str, optional
        Regular expression with one group that finds the object's name in the file's, as in the recipe that the networks
        were trained with; see `~astrogan.train.split.object_name`.

    Returns
    -------
    list of Stamp

    Raises
    ------
    InputError, ImageReadError
        If an argument cannot be used, or no image is found.
    """
    if part not in PARTS:
        raise InputError(f"part={part!r} must be one of {', '.join(PARTS)}")
    if sky not in ("subtract", "keep"):
        raise InputError(f"sky={sky!r} must be 'subtract' or 'keep'")
    from astrogan.train.split import name_pattern, object_name, part_of

    pattern = name_pattern(name)

    def belongs(file):
        return part == "all" or part_of(object_name(Path(file).name, pattern), split_seed) == part

    files = _Files(source)
    chosen = [file for file in files.images if belongs(file)]
    if not chosen:
        raise InputError(
            f"data={str(source)!r} holds no image of part={part!r} ({len(files.images)} images in all); "
            "give more images, or part='all'"
        )
    # In an order of their own, so that fewer images are a part of more, and no kind of name comes first.
    chosen = sorted(chosen, key=lambda n: (_order(Path(n).stem, split_seed), n))[:images]
    with files:
        return [_stamp(files, file, size, sky) for file in chosen]


def _stamp(files, name, size, sky):
    try:
        is_picture = Path(name).suffix.lower() in _PICTURES
        if is_picture:
            flux, noise_free = _picture(files.read(name), size), None
        else:
            flux, noise_free = _fits_pair(files, name, size)
    except (OSError, ValueError) as error:
        raise ImageReadError(f"image {name!r} cannot be read ({error}); take it out of the data") from error
    level, sigma = _sky(flux)
    if sky == "subtract" or not is_picture:
        flux = flux - level[:, None, None]
        noise_free = None if noise_free is None else noise_free - level[:, None, None]
        level = np.zeros_like(level)
    return Stamp(Path(name).stem, flux, level, sigma, noise_free)


class _Files:
    """Names and bytes of the images in a folder, a tar file or a list."""

    def __init__(self, source):
        self._tar, self._paths = None, {}
        if isinstance(source, str | Path):
            path = Path(source)
            if path.is_dir():
                paths = sorted(p for p in path.rglob("*") if p.is_file())
            elif path.is_file() and tarfile.is_tarfile(path):
                self._tar, paths = tarfile.open(path), []  # noqa: SIM115 - closed on exit
            else:
                raise InputError(f"data={str(source)!r} is neither a folder nor a tar file of images")
        else:
            paths = [Path(p) for p in source]
        self._paths = {str(p): p for p in paths}
        members = [m.name for m in self._tar.getmembers() if m.isfile()] if self._tar else list(self._paths)
        self.names = sorted(n for n in members if Path(n).suffix.lower() in _PICTURES | _FITS)
        self.images = [n for n in self.names if not Path(n).stem.endswith(_NOISE_FREE)]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._tar:
            self._tar.close()

    def read(self, name):
        if self._tar is None:
            return self._paths[name].read_bytes()
        with self._tar.extractfile(name) as file:
            return file.read()


def _picture(content, size):
    """A picture's levels as flux, by the inverse of the paper's stretch."""
    from PIL import Image

    from astrogan.image.stretch import GalaxyGAN2017Stretch
    from astrogan.train.sources.stamps import check_pixels

    try:
        picture = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        raise ImageReadError(str(error)) from error
    with picture:
        check_pixels(picture)
        bands = picture.convert("L" if picture.mode in ("1", "L", "I", "I;16") else "RGB").split()
    if size is not None and bands[0].size != (size, size):
        # As floats, as in training: no second rounding.
        bands = [band.convert("F").resize((size, size), Image.Resampling.BILINEAR) for band in bands]
    planes = np.stack([np.asarray(band, np.float32) for band in bands])
    return GalaxyGAN2017Stretch().inverse(planes / np.float32(255))


def _fits_pair(files, name, size):
    flux, scale = _fits(files.read(name), size)
    path = Path(name)
    truth = str(path.with_name(f"{path.stem}{_NOISE_FREE}{path.suffix}"))
    if truth not in files.names:
        return flux, None
    return flux, _fits(files.read(truth), size, scale)[0]


def _fits(content, size, scale=None):
    """A FITS image's flux in nanomaggies where its unit converts, else scaled to the noise of SDSS; and the factor."""
    from astropy import units as u

    from astrogan.image.mask import fill_invalid
    from astrogan.image.prepare import prepare

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.fits"
        path.write_bytes(content)
        try:
            prepared = prepare(path)
        except UnitError:
            prepared = prepare(path, unit="")
    observation = prepared.observation
    flux = fill_invalid(observation.data, observation.valid) if not observation.valid.all() else observation.data
    flux = _centre(np.asarray(flux, np.float32), size)
    if scale is None:
        try:
            scale = prepared.unit.to(u.nmgy) * prepared.scale
        except (u.UnitConversionError, AttributeError):
            scale = _TYPICAL_SKY / float(np.median(_sky(flux)[1]))
    return flux * np.float32(scale), scale


def _centre(cube, size):
    if size is None:
        return cube
    y, x = (max(0, (n - size) // 2) for n in cube.shape[1:])
    return np.ascontiguousarray(cube[:, y : y + size, x : x + size])


def _sky(flux):
    """Level and noise of each band in the outer tenth of the image: median, and its distance to the 16th percentile.

    The side below the median is free of the objects' own light.
    """
    ny, nx = flux.shape[1:]
    border = np.ones((ny, nx), bool)
    border[max(1, ny // 10) : -max(1, ny // 10), max(1, nx // 10) : -max(1, nx // 10)] = False
    low, level = np.percentile(flux[:, border].astype(np.float64), (15.87, 50), axis=1)
    return level.astype(np.float32), np.maximum(level - low, 1e-4)


def resized(levels, size):
    """8-bit levels (band, y, x) at ``size`` pixels along each edge, bilinear."""
    from PIL import Image

    if size is None or levels.shape[1:] == (size, size):
        return levels
    planes = [Image.fromarray(p).resize((size, size), Image.Resampling.BILINEAR) for p in levels]
    return np.stack([np.asarray(p) for p in planes])
