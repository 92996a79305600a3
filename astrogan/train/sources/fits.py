"""Stamps and cubes in FITS files."""

from __future__ import annotations

import numbers
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from astrogan.exceptions import AstroganError, ImageReadError, InputError
from astrogan.train.sources.base import Sample, Source
from astrogan.train.sources.watched import check_damage, log_damage
from astrogan.train.split import name_pattern, object_name

__all__ = ["FitsFolder"]

# Small sets stay in memory; what goes beyond is read again each time.
_KEPT_BYTES = 2**29
_MOST_PIXELS = 2**30


class _Entry(NamedTuple):
    """Where one sample lies: which of its file's."""

    name: str
    file: Path
    number: int


class FitsFolder(Source):
    """Images in FITS files, read with mask, uncertainty, PSF and pixel scale where the files have them.

    Parameters
    ----------
    path : path
        A folder, or one file.
    pattern : str, optional
        Which files of the folder; ``**/`` looks into those below, too.
    bands : {'each', 'all'}, optional
        Each band of a cube as a sample of its own, or all as the bands of one.
    hdus : {'file', 'each', 'pairs'}, optional
        What an object is: a file, of which the first image counts; each HDU with an image; or each second one, its
        inverse variance following it.
    name : str, optional
        A regular expression with one group, which finds the object's name in the file's. Default: the file's name up to
        the first dot that a letter follows. Give it where an object has several files, or it ends up on both sides of
        the split.
    one_object_a_file : bool, optional
        Whether all HDUs of a file show one object (repeat exposures). Otherwise the HDU's number is part of the name.
    min_size : int, optional
        Images smaller than this in y or x are left out.
    pixel_scale, psf_fwhm : float, optional
        Arcsec, and pixels, where the files do not say.
    unit : str, optional
        Unit of the flux, where the files do not say.
    max_damaged : float, optional
        Files that cannot be read, or hold nothing finite, are named in the log, left out and counted, as long as they
        are no more than this part of all (one always may). With 0, the default, one is an error.
    origin, licence : str, optional
        For the model card.

    Attributes
    ----------
    damaged : dict
        Name of each file that is left out, and what is wrong with it.

    Raises
    ------
    ImageReadError
        If there is no such folder or file, or more files are damaged than allowed.
    InputError
        If it holds no image to use or an argument cannot be used.
    """

    def __init__(
        self,
        path,
        pattern="*.fits*",
        *,
        bands="each",
        hdus="file",
        name=None,
        one_object_a_file=False,
        min_size=1,
        pixel_scale=None,
        psf_fwhm=None,
        unit=None,
        max_damaged=0.0,
        origin=None,
        licence=None,
    ):
        if bands not in ("each", "all"):
            raise InputError(f"bands={bands!r} must be 'each' (one sample a band) or 'all' (one an object)")
        if hdus not in ("file", "each", "pairs"):
            raise InputError(f"hdus={hdus!r} must be 'file', 'each' or 'pairs' (image and inverse variance in turn)")
        if isinstance(min_size, bool) or not isinstance(min_size, int) or min_size < 1:
            raise InputError(f"min_size={min_size!r} must be a positive integer, in pixels")
        for label, value in (("pixel_scale", pixel_scale), ("psf_fwhm", psf_fwhm)):
            positive_or_none(label, value)
        self._path = Path(path).expanduser()
        self._hdus, self._single = hdus, bool(one_object_a_file)
        self._name_pattern = name_pattern(name)
        self._pixel_scale, self._psf_fwhm, self._unit = pixel_scale, psf_fwhm, unit
        self._about = {"origin": origin or self._path.name, "licence": licence}
        self._each_band, self._min_size = bands == "each", min_size
        self._kept, self._room = {}, _KEPT_BYTES
        self._entries, names = [], set()
        self.damaged = {}
        files = _files(self._path, pattern)
        for file in files:
            for number, (name, image_bands, _) in enumerate(self._sound(file, len(files), max_damaged)):
                self._entries.append(_Entry(name, file, number))
                names.add(image_bands)
        self.bands = self._bands(names, bands)

    def _bands(self, names, bands):
        if not self._entries:
            raise InputError(f"path={str(self._path)!r} holds no image of the size asked for; lower min_size")
        if bands == "each":
            return ("any",)
        if len({len(each) for each in names}) > 1:
            raise InputError(
                f"path={str(self._path)!r}: files differ in their number of bands {sorted(map(len, names))}; "
                "take bands = 'each', or a pattern that finds like with like"
            )
        return next(iter(names)) if len(names) == 1 else tuple(str(n) for n in range(len(next(iter(names)))))

    def __len__(self):
        return len(self._entries)

    def name(self, i):
        """Name of the object, as the files and ``name`` have it."""
        return self._entries[self._checked(i)].name

    def load(self, i):
        """Image ``i`` as a `Sample`."""
        entry = self._entries[self._checked(i)]
        sample = self._images(entry.file)[entry.number][2]
        variance = None if sample.variance is None else sample.variance.copy()
        return replace(sample, data=sample.data.copy(), variance=variance)

    def describe(self):
        """What a model card says of the source."""
        objects = len({entry.name for entry in self._entries})
        damaged = {"damaged": len(self.damaged)} if self.damaged else {}
        return {"kind": "fits", **self._about, "images": len(self), "objects": objects, **damaged}

    def _sound(self, file, count, max_damaged):
        """The samples of a file; none where it is damaged and that is allowed."""
        try:
            return self._images(file)
        except (AstroganError, OSError) as error:
            if not max_damaged:
                raise
            self.damaged[file.name] = str(error)
            log_damage(file.name, error)
            try:
                check_damage(self.damaged, count, max_damaged)
            except ImageReadError as limit:
                raise limit from error
        return []

    def _images(self, file):
        """(object, band names, sample) of all samples in a file, kept in memory as long as there is room."""
        if file in self._kept:
            return self._kept[file]
        images = []
        for hdu, image in self._read(file):
            prepared = _prepared(image, file)
            if min(prepared.observation.data.shape[1:]) >= self._min_size:
                name = object_name(file.name, self._name_pattern)
                name = name if hdu is None or self._single else f"{name} {hdu}"
                samples = self._samples(prepared)
                names = ("any",) if self._each_band else prepared.observation.bands
                images += [(name, names, sample) for sample in samples]
        size = sum(sample.data.nbytes * (1 if sample.variance is None else 2) for *_, sample in images)
        if size <= self._room:
            self._kept[file] = images
            self._room -= size
        return images

    def _read(self, file):
        """(number of the HDU or `None`, image) of all images in a file."""
        if self._hdus == "file":
            return [(None, read_any_unit(file, self._unit))]
        if self._hdus == "each":
            return _each_hdu(file, self._unit)
        found = _image_hdus(file)
        if len(found) % 2:
            raise InputError(f"{str(file)!r} has {len(found)} images, which are no pairs; take hdus='each'")
        pairs = zip(found[::2], found[1::2], strict=True)
        return [
            (k, read_any_unit(file, self._unit, hdu=k, uncertainty=weight, uncertainty_type="ivar"))
            for k, weight in pairs
        ]

    def _samples(self, prepared):
        """All bands in one sample, or a sample a band."""
        observation, factor = prepared.observation, np.float32(prepared.scale)
        for band in range(len(observation.data)) if self._each_band else [None]:
            which = slice(None) if band is None else slice(band, band + 1)
            variance = observation.variance
            yield Sample(
                data=observation.data[which] * factor,
                variance=None if variance is None else variance[which] * factor**2,
                pixel_scale=observation.pixel_scale or self._pixel_scale,
                psf_fwhm=self._psf_fwhm if prepared.psf is None else float(prepared.psf.fwhm[which].mean()),
                unit=str(prepared.unit) or None,
            )


def _prepared(image, file):
    from astrogan.image.prepare import prepare

    try:
        return prepare(image)
    except InputError as error:
        raise InputError(f"{str(file)!r}: {error}") from error


def _image_hdus(file):
    from astrogan.image._fits_file import FitsFile

    with FitsFile(file, _MOST_PIXELS) as opened:
        return [hdu.index for hdu in opened.images]


def _each_hdu(file, unit):
    """Each image HDU on its own, the file opened once: opening one of many anew for each takes long."""
    from astropy.nddata import CCDData

    from astrogan.image._fits_file import FitsFile
    from astrogan.image.wcs import wcs_from_header

    images = []
    with FitsFile(file, _MOST_PIXELS) as opened:
        for hdu in opened.images:
            data, blank = opened.pixels(hdu)
            mask = ~np.isfinite(data) if blank is None else blank | ~np.isfinite(data)
            wcs = wcs_from_header(hdu.header) if data.ndim == 2 else None
            unit_here = unit or hdu.header.get("BUNIT") or ""
            images.append((hdu.index, CCDData(data, unit=unit_here, mask=mask, wcs=wcs, meta=hdu.header)))
    return images


def read_any_unit(path, unit=None, **options):
    """Read an image; one whose file and caller name no unit is dimensionless, which is all the same to training."""
    from astrogan.exceptions import UnitError
    from astrogan.image.read import read_image

    if unit is not None:
        return read_image(path, unit=unit, **options)
    try:
        return read_image(path, **options)
    except UnitError:
        return read_image(path, unit="", **options)


def positive_or_none(name, value):
    """Refuse what is neither `None` nor a positive number."""
    good = isinstance(value, numbers.Real) and not isinstance(value, bool) and np.isfinite(value) and value > 0
    if value is not None and not good:
        raise InputError(f"{name}={value!r} must be a positive number, or left out")


def _files(path, pattern):
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ImageReadError(f"path={str(path)!r}: there is no such folder or file; name one, or get the data first")
    files = sorted(file for file in path.glob(pattern) if file.is_file())
    if not files:
        raise InputError(f"pattern={pattern!r} finds nothing in {str(path)!r}; give one that does")
    return files
