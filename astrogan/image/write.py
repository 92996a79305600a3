"""Writing images and tables so that a file is either the old one or the whole new one, never half of it."""

from __future__ import annotations

import contextlib
import gzip
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from astrogan.exceptions import AstroganError, ImageWriteError, InputError

__all__ = ["atomic_path", "write_image", "write_table"]

_FITS = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp", ".pdf")
_TABLES = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".fits": "fits"}

_SPECTRAL = ("SPECSYS", "RESTFRQ", "RESTFREQ", "RESTWAV", "VELREF", "SSYS")

_BLOCK = 2880
# Rows are brought into FITS' byte order this many bytes at a time: an image needs no second copy of itself.
_CHUNK = 2**22


# ---- atomic files ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(path, *, overwrite=False) -> Iterator[Path]:
    """A temporary path to write to; what is there in the end takes the place of ``path`` at once.

    The temporary file lies in the same folder and has the same suffixes. When the block ends it is flushed to the
    disk and renamed; when the block raises anything at all it is removed and what was at ``path`` stays as it was,
    whether the disk was full, the user pressed Ctrl-C or the process was killed.

    Parameters
    ----------
    path : path
        The file that is to be. A symbolic link is followed.
    overwrite : bool
        Whether an existing file is replaced; the new one then has its permissions. Two processes that write the same
        new file without it do not replace each other's either: the second gets the error.

    Yields
    ------
    `pathlib.Path`
        No file lies there yet.

    Raises
    ------
    ImageWriteError
        If ``path`` exists and ``overwrite`` is false, is no regular file, its folder does not exist, or the system
        refuses to write.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from astrogan.image.write import atomic_path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_path(Path(folder) / "notes.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     (Path(folder) / "notes.txt").read_text()
    'whole'
    """
    target = _target(path, overwrite)
    name = f".{secrets.token_hex(8)}.{target.name[-60:]}"
    temporary = target.with_name(name)
    try:
        yield temporary
        _flush(temporary)
        _publish(temporary, target, overwrite)
    except AstroganError:
        raise
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ImageWriteError(
            f"{str(path)!r} could not be written: {reason}; what was there before is untouched. "
            "Free space, or name a file in a folder that you may write to"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _target(path, overwrite):
    """The file itself, behind any symbolic link, after the checks that can be made before the work."""
    try:
        given = Path(path)
        target = Path(os.path.realpath(given.expanduser()))
        status = target.stat() if target.exists() else None
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"path={path!r} is no path of a file") from error
    except OSError as error:
        raise ImageWriteError(
            f"path={str(path)!r} cannot be used: {error.strerror or error}; name another file"
        ) from error
    if status is not None:
        if stat.S_ISDIR(status.st_mode):
            raise ImageWriteError(f"path={str(path)!r} is a folder; name a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise ImageWriteError(f"path={str(path)!r} is no regular file; name one")
        if not overwrite:
            raise ImageWriteError(_exists(path))
    if not target.parent.is_dir():
        raise ImageWriteError(f"path={str(path)!r}: there is no folder {str(target.parent)!r}; create it first")
    return target


def _exists(path):
    return f"path={str(path)!r} exists; give overwrite=True (--overwrite) to replace it, or name another file"


def _flush(path):
    """Bring a file's bytes to the disk, so that the rename cannot overtake them."""
    if not path.is_file():
        raise ImageWriteError(f"nothing was written to the temporary file {str(path)!r}")
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(temporary, target, overwrite):
    """Give the finished file its name."""
    if overwrite:
        with contextlib.suppress(OSError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    else:
        _rename_new(temporary, target)
    # The name is in the folder, which has to reach the disk too. Not every system lets one do that.
    with contextlib.suppress(OSError):
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _rename_new(temporary, target):
    """Rename without replacing. A hard link fails where the name is taken, which a rename does not."""
    try:
        os.link(temporary, target)
    except FileExistsError as error:
        raise ImageWriteError(_exists(target)) from error
    except OSError:  # a file system without hard links
        if target.exists():
            raise ImageWriteError(_exists(target)) from None
        os.replace(temporary, target)


# ---- images ------------------------------------------------------------------------------------------------------


def write_image(image, path, *, overwrite=False):
    """Write an image as FITS, with all that it carries.

    Parameters
    ----------
    image : `~astropy.nddata.NDData`, list or dict
        `~astropy.nddata.CCDData` or another NDData, (y, x) or (band, y, x); or a list or dict of them, a band each.
        Never changed.
    path : path
        ``.fits`` (``.fit``, ``.fts``), or with ``.gz`` after it.
    overwrite : bool
        Whether an existing file is replaced.

    Raises
    ------
    ImageWriteError
        If the name is not that of a FITS file, the file exists and ``overwrite`` is false, or the system refuses; what
        was there before is untouched.
    InputError
        If the image is of no such form or its data are not real numbers.

    Notes
    -----
    One image goes to the primary HDU, and mask (``MASK``, not zero: bad), uncertainty (``UNCERT``, its class in
    ``UTYPE``) and PSF (``PSFIMAGE``) follow as `~astropy.nddata.CCDData` writes and reads them, and after them the
    flags of a result (``FLAGS``, its keyword ``AGFLAGS`` says what the bits mean); other flags than integers are not
    written. Several bands get an extension each, named by band, followed by ``<band>_MASK`` and so on;
    `~astrogan.image.read.read_image` puts them together again. Bands without names are numbered, and their extensions
    are ``BAND0``, ``BAND1``, ..., since ``0`` alone is the number of an HDU. ``meta`` becomes the header; NaN, arrays
    and other things that FITS cannot hold become text. The same image gives the same bytes.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astrogan import read_image, write_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "image.fits"
    ...     write_image(CCDData(np.ones((4, 5)), unit="adu"), path)
    ...     read_image(path).unit
    Unit("adu")
    """
    check_fits_name(path)
    hdus = _hdus(image)
    with atomic_path(path, overwrite=overwrite) as temporary, _stream(temporary) as stream:
        for header, array in hdus:
            _write_hdu(stream, header, array)


def check_fits_name(path):
    """Refuse names that are not those of FITS files."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path={type(path).__name__} is no path of a file; the image comes first: (image, path)")
    name = Path(path).name.lower()
    if name.endswith(_PICTURES):
        raise ImageWriteError(
            f"path={str(path)!r}: a picture holds neither the flux nor the WCS; name the file .fits, "
            "and draw it with astropy.visualization for a picture"
        )
    if not name.endswith(_FITS):
        raise ImageWriteError(
            f"path={str(path)!r}: images are written as FITS; give the file one of {', '.join(_FITS)}"
        )


@contextlib.contextmanager
def _stream(path):
    """A binary file; compressed where the name says so, without the time and name that gzip would put in."""
    with open(path, "wb") as stream:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=6, mtime=0) as packed:
                yield packed
        else:
            yield stream


def _hdus(image):
    """(header, array) of each HDU, in order; array `None` for an empty primary."""
    from astropy.nddata import NDData

    from astrogan.image._hdu_roles import extension_name

    if isinstance(image, NDData):
        return _hdus_of(image, "image", primary=True)
    if isinstance(image, Mapping):
        items, names = list(image.values()), [str(key) for key in image]
    elif isinstance(image, list | tuple):
        items, names = list(image), _band_names(image)
    else:
        remedy = "; wrap it in CCDData(array, unit=...)" if isinstance(image, np.ndarray) else ""
        raise InputError(
            f"image is {type(image).__name__}; it must be CCDData or NDData, or a list or dict of them{remedy}"
        )
    if not items:
        raise InputError("image is empty; give at least one band")
    extensions = [extension_name(name) for name in names]
    upper = [name.upper() for name in extensions]
    if len(set(upper)) < len(upper) or not all(upper):
        raise InputError(f"image has bands {names}; FITS needs names that differ, capitals aside")
    hdus = [_primary(names)]
    for name, extension, item in zip(names, extensions, items, strict=True):
        if not isinstance(item, NDData):
            raise InputError(f"image[{name!r}] is {type(item).__name__}; it must be CCDData or NDData")
        hdus += _hdus_of(item, f"image[{name!r}]", band=name, extension=extension)
    return hdus


def _band_names(images):
    names = [str(getattr(image, "meta", {}).get("BAND") or "").strip() for image in images]
    distinct = all(names) and len({name.upper() for name in names}) == len(names)
    return names if distinct else [str(number) for number in range(len(names))]


def _primary(bands):
    from astropy.io import fits

    from astrogan.image._headers import safe_header

    header = fits.PrimaryHDU().header
    header["EXTEND"] = True
    header.extend(safe_header({"AGBANDS": (",".join(band.replace(",", " ") for band in bands), "bands, in order")}))
    return header, None


def _hdus_of(image, name, *, primary=False, band=None, extension=None):
    """The image and its companions; the extension has the name of the band unless another is given."""
    array = _array(image.data, name)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(f"{name} has shape {array.shape}; it must be (y, x) or (band, y, x), no axis empty")
    cards, tables = _cards(image, array.shape, band)
    if tables and not primary:
        raise ImageWriteError(
            f"{name} has a WCS with look-up tables, of which a file can hold one image's; give each band its own file"
        )
    extension = extension or band
    prefix = "" if extension is None else f"{extension}_"
    hdus = [(_header(array, cards, primary=primary, extname=extension), array)]
    mask = _mask(image, array.shape, name)
    if mask is not None:
        hdus.append((_header(mask, extname=f"{prefix}MASK"), mask))
    if getattr(image.uncertainty, "array", None) is not None:
        kind, values = _uncertainty(image, array.shape, name)
        hdus.append((_header(values, {"UTYPE": (kind, "class of the uncertainty")}, extname=f"{prefix}UNCERT"), values))
    psf = getattr(image, "psf", None)
    if psf is not None:
        kernels = _array(getattr(psf, "kernels", psf), f"{name}.psf")
        hdus.append((_header(kernels, extname=f"{prefix}PSFIMAGE"), kernels))
    flags = _flags(image, array.shape)
    if flags is not None:
        hdus.append((_header(flags, _flag_cards(image.meta), extname=f"{prefix}FLAGS"), flags))
    return hdus + tables


def _array(values, name):
    """Values as FITS has them: integers of 1 to 8 bytes, float32 or float64. A view, where nothing has to change."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {array.dtype}; it must be real numbers")
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        return array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    if array.dtype.kind == "b":
        return array.view(np.uint8) if array.dtype == bool else array.astype(np.uint8)
    return array.astype(np.int16) if array.dtype == np.int8 else array


def _mask(image, shape, name):
    if image.mask is None or (np.ndim(image.mask) == 0 and not np.any(image.mask)):
        return None
    try:
        return np.broadcast_to(np.asarray(image.mask, bool), shape).astype(np.uint8)
    except ValueError as error:
        raise InputError(
            f"{name}.mask has shape {np.shape(image.mask)}; it must be that of the data, {shape}"
        ) from error


def _flags(image, shape):
    """Flags that are one array of integers a file can hold; `None` for none and for all others."""
    flags = getattr(image, "flags", None)
    if not isinstance(flags, np.ndarray) or flags.dtype.kind not in "biu" or flags.dtype.itemsize > 4:
        return None
    return _array(flags, "flags") if flags.shape == shape else None


def _flag_cards(meta):
    """The keyword that tells `~astrogan.image.read.read_image` that a FLAGS extension is no mask."""
    from astrogan.image.provenance import KEYWORDS

    meaning = meta.get("AGFLAGS") if hasattr(meta, "get") else None
    return {"AGFLAGS": (meaning if isinstance(meaning, str) else "not said", KEYWORDS["AGFLAGS"])}


def _uncertainty(image, shape, name):
    """Class and values, in the unit that belongs to the image's. Unknown kinds cannot be told apart in a file."""
    from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty

    uncertainty, unit = image.uncertainty, image.unit
    powers = {StdDevUncertainty: 1, VarianceUncertainty: 2, InverseVariance: -2}
    kind = next((kind for kind in powers if isinstance(uncertainty, kind)), None)
    if kind is None:
        raise InputError(
            f"{name}.uncertainty is {type(uncertainty).__name__}; FITS can say StdDevUncertainty, VarianceUncertainty "
            "and InverseVariance: convert it, or set it to None"
        )
    power = powers[kind]
    values = _array(uncertainty.array, f"{name}.uncertainty")
    if values.shape != shape:
        raise InputError(f"{name}.uncertainty has shape {values.shape}; it must be that of the data, {shape}")
    own = getattr(uncertainty, "unit", None)
    if own is not None and unit is not None and own != unit**power:
        try:
            values = values * own.to(unit**power)
        except ValueError as error:
            raise InputError(f"{name}.uncertainty has unit {own}, which does not fit the image's {unit}") from error
    return kind.__name__, values


def _cards(image, shape, band):
    """The header that an image's meta, unit, band and WCS make, and the HDUs of its WCS' look-up tables."""
    from astrogan.image._headers import is_wcs_keyword, safe_header, unit_text

    header = safe_header(image.meta)
    if band is not None:
        header.update(safe_header({"BAND": (band, "band")}))
    wcs_header, tables = _wcs_header(image.wcs, shape)
    for card in wcs_header.cards:
        # A WCS also repeats times and places of the observation, which are those of meta, where it has them.
        if is_wcs_keyword(card.keyword) or (card.keyword.startswith(_SPECTRAL) and card.keyword not in header):
            header.append(card, end=True)
    if image.unit is not None:
        text = unit_text(image.unit)
        # The comment tells a dimensionless image from one whose unit nobody wrote down.
        header["BUNIT"] = (text, "unit of the pixels" if text else "dimensionless")
    return header, tables


def _wcs_header(wcs, shape):
    from astropy.io import fits
    from astropy.wcs import WCS

    from astrogan.image._headers import quiet
    from astrogan.image.wcs import celestial, crop_wcs, cube_wcs

    wcs = getattr(wcs, "low_level_wcs", wcs)
    if wcs is None:
        return fits.Header(), []
    if not isinstance(wcs, WCS):
        wcs = crop_wcs(wcs, 0, 0)  # resolves slices
    if len(shape) == 2 and wcs.naxis > 2:
        wcs = celestial(wcs)
    elif len(shape) == 3 and wcs.naxis == 2:
        wcs = cube_wcs(wcs, shape[0])
    if wcs is None:
        return fits.Header(), []
    with quiet():
        if not any((wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2)):
            return wcs.to_header(relax=True), []
        hdus = wcs.to_fits(relax=True)
        return hdus[0].header, [(hdu.header, np.asarray(hdu.data)) for hdu in hdus[1:]]


def _header(array, cards=None, *, primary=False, extname=None):
    """The header of an HDU: astropy's own for such an array, and the cards."""
    from astropy.io import fits

    from astrogan.image._headers import quiet, safe_header

    unsigned = array.dtype.kind == "u" and array.dtype.itemsize > 1
    stored = np.dtype(f"i{array.dtype.itemsize}") if unsigned else array.dtype.newbyteorder("=")
    hdu = fits.PrimaryHDU if primary else fits.ImageHDU
    header = hdu(np.broadcast_to(np.zeros((), stored), array.shape)).header
    if primary:
        header["EXTEND"] = True
    if extname is not None:
        header.extend(list(safe_header({"NAME": extname}).cards), end=True)
        header.rename_keyword("NAME", "EXTNAME")
    with quiet():
        for card in cards.cards if hasattr(cards, "cards") else safe_header(cards).cards:
            header.append(card, end=True)
    if unsigned:
        header["BSCALE"], header["BZERO"] = 1, 2 ** (8 * array.dtype.itemsize - 1)
    return header


def _write_hdu(stream, header, array):
    """Header and pixels, padded to FITS' blocks, in FITS' byte order."""
    stream.write(header.tostring().encode("ascii"))
    if array is None:
        return
    rows = array.reshape(-1, array.shape[-1])
    step = max(1, _CHUNK // max(1, rows.shape[1] * rows.dtype.itemsize))
    for start in range(0, len(rows), step):
        stream.write(_big_endian(rows[start : start + step]))
    stream.write(b"\0" * (-array.nbytes % _BLOCK))


def _big_endian(rows):
    if rows.dtype.kind == "u" and rows.dtype.itemsize > 1:
        # FITS knows unsigned integers only as signed ones with half the range taken off: a flip of the highest bit.
        native = rows.astype(rows.dtype.newbyteorder("="))
        rows = (native ^ native.dtype.type(2 ** (8 * rows.dtype.itemsize - 1))).view(f"i{rows.dtype.itemsize}")
    return np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder(">")).view(np.uint8).data


# ---- tables ------------------------------------------------------------------------------------------------------


def write_table(table, path, *, overwrite=False):
    """Write a table.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Never changed.
    path : path
        ``.ecsv`` keeps everything (units, sky positions, meta); ``.fits`` keeps units; ``.csv`` keeps the values.
    overwrite : bool
        Whether an existing file is replaced.

    Raises
    ------
    ImageWriteError
        If the suffix is another, the file exists and ``overwrite`` is false, or the system refuses; what was there
        before is untouched.
    InputError
        If a column cannot be written in that format.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from astropy.table import Table
    >>> from astrogan.image.write import write_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "sources.ecsv"
    ...     write_table(Table({"flux": [1.0, 2.0]}), path)
    ...     len(Table.read(path))
    2
    """
    from astrogan.image._headers import quiet, safe_header

    suffix = check_table_name(path)
    out = table.copy(copy_data=False)
    if suffix == ".fits":
        header = safe_header(table.meta)
        out.meta = {k: list(header[k]) if k in ("HISTORY", "COMMENT") else header[k] for k in header if k}
        _ascii_columns(out)
    with atomic_path(path, overwrite=overwrite) as temporary, quiet():
        try:
            out.write(temporary, format=_TABLES[suffix])
        except (TypeError, ValueError, KeyError, NotImplementedError) as error:
            raise InputError(
                f"table cannot be written as {suffix} ({' '.join(str(error).split())[:200]}); .ecsv keeps everything"
            ) from error


def check_table_name(path):
    """The suffix of a table's path, once it is one that tables are written with."""
    suffix = Path(path).suffix.lower() if isinstance(path, str | os.PathLike) else ""
    if suffix not in _TABLES:
        raise ImageWriteError(f"path={str(path)!r}: tables are written as {', '.join(_TABLES)}; .ecsv keeps everything")
    return suffix


def _ascii_columns(table):
    """Text columns as FITS holds them."""
    for name in table.colnames:
        if getattr(table[name], "dtype", np.dtype(float)).kind == "U":
            table[name] = [str(text).encode("ascii", "replace").decode() for text in table[name]]
