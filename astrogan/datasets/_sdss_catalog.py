"""Asking the catalog of SDSS for galaxies."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np

from astrogan.datasets._collection import read_ecsv, whole_number
from astrogan.datasets._sdss_frame import BANDS
from astrogan.datasets._transport import Downloader, DownloadError, WrongContentError, make_folder, page_text
from astrogan.exceptions import InputError, MissingDependencyError

FIELD = ("run", "rerun", "camcol", "field")
"""Columns that name a field."""


def sdss_query(redshift=(0.01, 0.02), *, bands="gri", limit=None, where=None):
    """The SQL that finds galaxies by spectroscopic redshift, as SDSS' SkyServer takes it.

    Parameters
    ----------
    redshift : (float, float), optional
        Limits, both excluded. Default: those of the GalaxyGAN paper (Schawinski et al. 2017, MNRAS 467, L110),
        0.01 < z < 0.02.
    bands : str, optional
        For which gain, dark variance and PSF width of the field are asked: letters of ``ugriz``.
    limit : int, optional
        At most so many galaxies, those with the smallest ``objid``.
    where : str, optional
        A further condition in SQL; the tables are ``s`` (SpecObj), ``p`` (PhotoObj) and ``f`` (Field).

    Returns
    -------
    str
        A query whose columns are ``objid``, ``specobjid``, ``ra``, ``dec`` (deg), ``z``, ``zerr``, ``run``, ``rerun``,
        ``camcol``, ``field``, ``petror50_r``, ``petror90_r`` (arcsec), and for each band ``petromag_*``, ``gain_*``
        (electrons per count), ``darkvariance_*`` (counts squared) and ``psfwidth_*`` (arcsec).

    Raises
    ------
    InputError
        If an argument cannot be used.

    Notes
    -----
    The paper names the release (DR12), the redshifts and the number of galaxies, 4,550, and no other criterion. Those
    here are ours: a galaxy by its spectrum and by its image, without a warning on its redshift. They need not give the
    same number.

    Examples
    --------
    >>> from astrogan.datasets import sdss_query
    >>> print(sdss_query(bands="r", limit=2))
    SELECT TOP 2 p.objID AS objid, s.specObjID AS specobjid, p.ra AS ra, p.dec AS dec, s.z AS z, s.zErr AS zerr,
      p.run AS run, p.rerun AS rerun, p.camcol AS camcol, p.field AS field,
      p.petroR50_r AS petror50_r, p.petroR90_r AS petror90_r,
      p.petroMag_r AS petromag_r, f.gain_r AS gain_r, f.darkVariance_r AS darkvariance_r, f.psfWidth_r AS psfwidth_r
    FROM SpecObj AS s JOIN PhotoObj AS p ON p.objID = s.bestObjID JOIN Field AS f ON f.fieldID = p.fieldID
    WHERE s.class = 'GALAXY' AND s.zWarning = 0 AND p.mode = 1 AND p.type = 3
      AND s.z > 0.01 AND s.z < 0.02
    ORDER BY p.objID
    """
    low, high = _redshifts(redshift)
    top = "" if limit is None else f"TOP {whole_number('limit', limit, 1, 500_000)} "
    numbers = "".join(
        f",\n  p.petroMag_{b} AS petromag_{b}, f.gain_{b} AS gain_{b}, f.darkVariance_{b} AS darkvariance_{b}, "
        f"f.psfWidth_{b} AS psfwidth_{b}"
        for b in checked_bands(bands)
    )
    return (
        f"SELECT {top}p.objID AS objid, s.specObjID AS specobjid, p.ra AS ra, p.dec AS dec, s.z AS z, s.zErr AS zerr,\n"
        "  p.run AS run, p.rerun AS rerun, p.camcol AS camcol, p.field AS field,\n"
        f"  p.petroR50_r AS petror50_r, p.petroR90_r AS petror90_r{numbers}\n"
        "FROM SpecObj AS s JOIN PhotoObj AS p ON p.objID = s.bestObjID JOIN Field AS f ON f.fieldID = p.fieldID\n"
        "WHERE s.class = 'GALAXY' AND s.zWarning = 0 AND p.mode = 1 AND p.type = 3\n"
        f"  AND s.z > {low:.10g} AND s.z < {high:.10g}\n"
        + ("" if where is None else f"  AND ({checked_condition(where)})\n")
        + "ORDER BY p.objID"
    )


def sdss_table(sql, *, data_release=12, downloader=None):
    """The answer of SDSS' catalog server to a query, through astroquery.

    Parameters
    ----------
    sql : str
        Such as `sdss_query` makes.
    data_release : int, optional
        Which release is asked.
    downloader : `Downloader`, optional
        Timeout, retries and rate.

    Returns
    -------
    `~astropy.table.Table`
        A row an object, each ``objid`` once; ``meta["sql"]`` and ``meta["data_release"]`` say where it is from.

    Raises
    ------
    InputError
        If the query finds nothing.
    DownloadError
        If the server does not answer, or does not answer with a table.
    MissingDependencyError
        If astroquery or pooch is not installed.
    """
    whole_number("data_release", data_release, 8, 99)
    service = _astroquery()
    downloader = downloader or Downloader()

    def ask():
        return _asked(service, sql, data_release, downloader.timeout)

    table = downloader._call(ask, f"the query of SDSS DR{data_release}")
    if table is None:
        raise InputError(f"the query finds nothing in SDSS DR{data_release}; widen it:\n{sql}")
    if "objid" in table.colnames:
        _, first = np.unique(np.asarray(table["objid"]), return_index=True)
        table = table[np.sort(first)]
    table.meta = {"sql": sql, "data_release": int(data_release)}
    return table


def _asked(service, sql, data_release, timeout):
    """One attempt: a table, or `None` for one without rows."""
    from astroquery.exceptions import TimeoutError as TooSlow

    try:
        response = service.query_sql_async(sql, timeout=timeout, data_release=data_release, cache=False)
    except TooSlow as error:
        raise WrongContentError(f"no answer within {timeout:g} s") from error
    # Errors in the SQL come as a page or as JSON, with 200 or with another status.
    if "error_message" in response.text.lower() or "incorrect syntax" in response.text.lower():
        raise DownloadError(f"SDSS refuses the query: {page_text(response.text)!r}; the query was:\n{sql}")
    response.raise_for_status()
    lines = [line for line in response.text.splitlines() if line.strip() and not line.startswith("#")]
    if re.match(r"\s*no (rows|objects|entries)", response.text, re.IGNORECASE):
        return None
    header = lines[0] if lines else ""
    if not re.fullmatch(r"[\w ,\"]+", header) or not ("," in header or response.text.startswith("#Table")):
        raise WrongContentError(f"the server sent no table but {page_text(response.text)!r}")
    return _parsed(lines) if len(lines) > 1 else None


def _parsed(lines):
    """The table that lines of CSV are."""
    from astropy.table import Table

    number = lines[0].count(",")
    if any(line.count(",") != number for line in lines) and '"' not in "".join(lines):
        raise WrongContentError("the server's table ends within a line")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # integers of 64 bits without a sign are read as text
            table = Table.read(lines, format="ascii.csv")
        for name in table.colnames:
            if name.lower().endswith("objid"):
                table[name] = table[name].astype(np.uint64)
    except (ValueError, TypeError, OverflowError) as error:
        raise WrongContentError(f"the server's answer is no table: {error}") from error
    return table


def known_sample(path, sql, data_release, downloader, needed=("ra", "dec", *FIELD)):
    """The catalog's answer, from the folder if it is there."""
    from astrogan.image.write import write_table

    if path.exists():
        table = read_ecsv(path)
        if table.meta.get("sql") == sql and table.meta.get("data_release") == data_release:
            return table
        raise InputError(
            f"{str(path)!r} is the answer to another query; name another folder, or give sample={str(path)!r} to go on "
            "with that sample"
        )
    make_folder(path.parent)
    table = sdss_table(sql, data_release=data_release, downloader=downloader)
    lacking = [name for name in ("objid", *needed) if name not in table.colnames]
    if lacking:
        raise DownloadError(f"SDSS' answer has no column {lacking[0]}; it has {', '.join(table.colnames)[:200]}")
    write_table(table, path)
    return table


# ---- arguments -----------------------------------------------------------------------------------------------------


def checked_bands(bands):
    bands = bands if isinstance(bands, str) else "".join(map(str, bands))
    if not bands or set(bands) - set(BANDS) or len(set(bands)) < len(bands):
        raise InputError(f"bands={bands!r} must be different letters of {BANDS!r}")
    return bands


def _redshifts(redshift):
    try:
        low, high = (float(value) for value in redshift)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"redshift={redshift!r} must be two numbers, the smaller first; e.g. (0.01, 0.02)")
    return low, high


def checked_condition(where):
    if not isinstance(where, str) or not where.strip() or "--" in where or ";" in where:
        raise InputError(f"where={where!r} must be one condition in SQL, without comments; e.g. 'p.petroMag_r < 15'")
    return " ".join(where.split())


def _astroquery():
    try:
        from astroquery.sdss import SDSSClass
    except ImportError as error:
        raise MissingDependencyError(
            "asking SDSS' catalog needs astroquery: run `pip install 'astrogan[data]'` (or `pip install "
            "astroquery`); without it, give a sample of your own"
        ) from error
    return SDSSClass()
