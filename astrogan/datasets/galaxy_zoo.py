"""Galaxy Zoo: colour stamps like those that its volunteers saw, and the project's own archive of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from astrogan.datasets._collection import Collection, as_sample, limited, whole_number
from astrogan.datasets._sdss_catalog import checked_condition, known_sample
from astrogan.datasets._transport import Downloader, DownloadError, need_pooch, server_url
from astrogan.exceptions import InputError

__all__ = ["fetch_galaxy_zoo", "fetch_galaxy_zoo_archive", "galaxy_zoo_query"]

SKYSERVER = "https://skyserver.sdss.org"
ZENODO = "https://zenodo.org"
# Of the radius that holds 90 % of the Petrosian flux, an edge of a pixel in arcsec.
_SCALE_OF_R90 = 0.02
# What the service draws.
_SCALES = (0.015, 60.0)

# Galaxy Zoo 2: Images from Original Sample (Zenodo, record 3565489), with the checksums that Zenodo publishes.
_ARCHIVE = "/records/3565489/files/"
_FILES = {
    "images": ("images_gz2.zip", "md5:bc647032d31e50c798770cf4430525c7"),
    "mapping": ("gz2_filename_mapping.csv", "md5:7e28465e6dfbf96c0d828c595a5bbd80"),
}


def galaxy_zoo_query(*, limit=None, where=None):
    """The SQL that finds the galaxies of Galaxy Zoo 2 with a redshift, as SDSS' SkyServer takes it.

    Parameters
    ----------
    limit : int, optional
        At most so many, those with the smallest ``objid``.
    where : str, optional
        A further condition in SQL; the tables are ``g`` (zoo2MainSpecz: classifications) and ``p`` (PhotoPrimary).

    Returns
    -------
    str
        A query whose columns are ``objid``, ``ra``, ``dec`` (deg), ``petror90_r`` (arcsec), ``petromag_r`` and
        ``gz2class``.

    Raises
    ------
    InputError
        If an argument cannot be used.

    Examples
    --------
    >>> from astrogan.datasets import galaxy_zoo_query
    >>> print(galaxy_zoo_query(limit=5))
    SELECT TOP 5 p.objID AS objid, p.ra AS ra, p.dec AS dec, p.petroR90_r AS petror90_r, p.petroMag_r AS petromag_r,
      g.gz2class AS gz2class
    FROM zoo2MainSpecz AS g JOIN PhotoPrimary AS p ON p.objID = g.dr8objid
    ORDER BY p.objID
    """
    top = "" if limit is None else f"TOP {whole_number('limit', limit, 1, 500_000)} "
    return (
        f"SELECT {top}p.objID AS objid, p.ra AS ra, p.dec AS dec, p.petroR90_r AS petror90_r, "
        "p.petroMag_r AS petromag_r,\n  g.gz2class AS gz2class\n"
        "FROM zoo2MainSpecz AS g JOIN PhotoPrimary AS p ON p.objID = g.dr8objid\n"
        + ("" if where is None else f"WHERE {checked_condition(where)}\n")
        + "ORDER BY p.objID"
    )


def fetch_galaxy_zoo(
    folder,
    sample=None,
    *,
    size=424,
    pixel_scale=None,
    limit=None,
    data_release=17,
    server=SKYSERVER,
    downloader=None,
    progress=None,
):
    """Fetch colour stamps of galaxies (JPEG, g r i) from SDSS' cutout service, as Galaxy Zoo did.

    Parameters
    ----------
    folder : path
        Where the stamps go: ``<name>.jpg``, and ``manifest.ecsv``. ``StampTar(folder)`` reads it.
    sample : `~astropy.table.Table`, path, `~astropy.coordinates.SkyCoord` or list of (ra, dec), optional
        Positions (deg), in a table with ``objid`` or ``name`` if they are known, and ``petror90_r`` (arcsec) unless
        ``pixel_scale`` is given. Default: what `galaxy_zoo_query` finds, which needs astroquery.
    size : int, optional
        Edge in pixels, 64 to 2048. Galaxy Zoo's is 424.
    pixel_scale : float, optional
        Arcsec per pixel, 0.015 to 60. Default: 0.02 of each galaxy's ``petror90_r``, as in Galaxy Zoo 2 (Willett et
        al. 2013, MNRAS 435, 2835), so that all galaxies look equally large.
    limit : int, optional
        Only the first so many.
    data_release : int, optional
        12 or later.
    server : str, optional
        Address of the SkyServer.
    downloader : `Downloader`, optional
        Timeouts, retries and rate.
    progress : callable, optional
        Called with (done, total).

    Returns
    -------
    `~astropy.table.Table`
        The sample, with the columns of the manifest: ``pixel_scale`` (arcsec), ``file``, ``bytes``, ``sha256``,
        ``url``, ``fetched``, ``status`` (``"ok"`` or ``"failed"``) and ``reason``.

    Raises
    ------
    InputError
        If an argument cannot be used, or the folder holds stamps of another kind.
    DownloadError
        If the catalog could not be asked, or five stamps in a row could not be had.
    ImageWriteError
        If the disk is full or the folder cannot be written to.
    MissingDependencyError
        If pooch is not installed, or, without a ``sample``, astroquery.

    Warns
    -----
    AstroganWarning
        If some stamps could not be had.

    Notes
    -----
    The pictures are stretched, clipped and compressed: no photometry should be done on them. Outside of the survey the
    service draws a black picture, which no status tells from a stamp.
    """
    whole_number("size", size, 64, 2048)
    whole_number("data_release", data_release, 12, 99)
    _check_scale(pixel_scale)
    need_pooch()
    server, downloader = server_url(server), downloader or Downloader()
    if sample is None:
        query = galaxy_zoo_query(limit=limit)
        sample = known_sample(Path(folder).expanduser() / "sample.ecsv", query, data_release, downloader, ("ra", "dec"))
    galaxies = limited(as_sample(sample), limit)
    scales = _scales(galaxies, pixel_scale)
    settings = {"service": "sdss jpeg", "data_release": int(data_release), "size": int(size)}
    settings["pixel_scale"] = "0.02 petror90_r" if pixel_scale is None else float(pixel_scale)
    with Collection(folder, galaxies, settings, ".jpg", {"pixel_scale": 0.0}) as files:

        def check(path):
            check_jpeg(path, size)

        todo = files.missing(check)
        for done, k in enumerate(todo, len(galaxies) - len(todo)):
            if progress is not None:
                progress(done, len(galaxies))
            name, ra, dec = files.name(k), galaxies["ra"][k], galaxies["dec"][k]
            url = f"{server}/dr{data_release}/SkyServerWS/ImgCutout/getjpeg"
            url += f"?ra={ra:.7f}&dec={dec:.7f}&scale={scales[k]:.6g}&width={size}&height={size}"
            try:
                downloader.fetch(url, files.path(name), check=check)
            except DownloadError as error:
                files.failed(name, error, url)
            else:
                files.done(name, url, pixel_scale=float(scales[k]))
        if progress is not None:
            progress(len(galaxies), len(galaxies))
    return files.finish()


def fetch_galaxy_zoo_archive(folder=None, *, files=("images", "mapping"), server=ZENODO, downloader=None):
    """Fetch the stamps that Galaxy Zoo 2 showed, 243,434 JPEGs in one archive of 3.4 GB, from Zenodo.

    Parameters
    ----------
    folder : path, optional
        Where the files go. Default: the folder ``astrogan/galaxy-zoo-2`` of pooch's cache.
    files : sequence of str, optional
        ``"images"`` (``images_gz2.zip``), ``"mapping"`` (``gz2_filename_mapping.csv``: object of each picture).
    server : str, optional
        Address of Zenodo.
    downloader : `Downloader`, optional
        Timeouts, retries and rate.

    Returns
    -------
    dict
        The path of each file. Unpack the archive, and ``StampTar`` reads the folder.

    Raises
    ------
    InputError
        If an argument cannot be used.
    DownloadError
        If a file could not be had, or is not the one that Zenodo's checksum is of.
    ImageWriteError
        If the disk is full or the folder cannot be written to.
    MissingDependencyError
        If pooch is not installed.

    Notes
    -----
    Record 3565489, to be cited with Willett et al. (2013, MNRAS 435, 2835). A file whose checksum is right is not
    fetched again; one that was cut off begins anew.
    """
    files = (files,) if isinstance(files, str) else tuple(files)
    unknown = [name for name in files if name not in _FILES]
    if unknown or not files:
        raise InputError(f"files={files!r} must be some of {', '.join(_FILES)}")
    pooch, server, downloader = need_pooch(), server_url(server), downloader or Downloader()
    folder = Path(pooch.os_cache("astrogan")) / "galaxy-zoo-2" if folder is None else Path(folder).expanduser()
    paths = {}
    for name in files:
        file, known_hash = _FILES[name]
        paths[name] = folder / file
        downloader.fetch(f"{server}{_ARCHIVE}{file}?download=1", paths[name], known_hash=known_hash)
    return paths


# ---- pictures -----------------------------------------------------------------------------------------------------


def check_jpeg(path, size):
    """Refuse what is no whole JPEG of this size."""
    with open(path, "rb") as stream:
        content = stream.read()
    if not content.startswith(b"\xff\xd8\xff"):
        raise ValueError("this is no JPEG")
    if not content.rstrip(b"\0\r\n").endswith(b"\xff\xd9"):
        raise ValueError("the JPEG ends too early")
    found = _jpeg_size(content)
    if found != (size, size):
        raise ValueError(f"the JPEG has {found} pixels (y, x), not ({size}, {size})")


def _jpeg_size(content):
    """(y, x) from the frame header (ISO/IEC 10918-1, B.2.2), or `None`."""
    at = 2
    while at + 9 < len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(content[at + 5 : at + 7], "big"), int.from_bytes(content[at + 7 : at + 9], "big")
        at += 2 + length
    return None


# ---- arguments ----------------------------------------------------------------------------------------------------


def _check_scale(scale):
    if scale is None:
        return
    good = isinstance(scale, int | float | np.number) and not isinstance(scale, bool) and math.isfinite(scale)
    if not good or not _SCALES[0] <= scale <= _SCALES[1]:
        raise InputError(f"pixel_scale={scale!r} must be {_SCALES[0]} to {_SCALES[1]} arcsec, or None")


def _scales(galaxies, pixel_scale):
    if pixel_scale is not None:
        return np.full(len(galaxies), float(pixel_scale))
    if "petror90_r" not in galaxies.colnames:
        raise InputError("sample has no column petror90_r (arcsec); add it, or give pixel_scale")
    radii = np.ma.filled(np.ma.asarray(galaxies["petror90_r"], float), np.nan)
    bad = ~np.isfinite(radii) | (radii <= 0)
    if bad.any():
        name = galaxies["name"][np.flatnonzero(bad)[0]]
        raise InputError(f"sample's petror90_r of {name} is not positive; leave the galaxy out, or give pixel_scale")
    return np.clip(_SCALE_OF_R90 * radii, *_SCALES)
