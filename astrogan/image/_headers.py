"""FITS headers that are safe to keep and to write, and the units that real files name."""

from __future__ import annotations

import contextlib
import logging
import re
import unicodedata
from collections.abc import Mapping
from copy import copy
from functools import lru_cache

import numpy as np

from astrogan.exceptions import UnitError
from astrogan.image._quiet import quiet

__all__ = ["SATURATION", "is_wcs_keyword", "parse_unit", "quiet", "safe_header", "unit_text"]

logger = logging.getLogger("astrogan")

SATURATION = ("SATURATE", "SATLEVEL", "SATURVAL", "ESATUR")
"""Keywords that tell the level at which pixels saturate, the most common first."""

# Keywords that describe how one file stores its pixels; they are wrong in any other file.
_STRUCTURAL = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|TFIELDS|NEXTEND|INHERIT"
    r"|EXTNAME|EXTVER|EXTLEVEL|BSCALE|BZERO|BLANK|BUNIT|DATAMIN|DATAMAX|CHECKSUM|DATASUM|END"
    r"|Z(SIMPLE|TENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|TILE\d+|CMPTYPE|NAME\d+|VAL\d+|QUANTIZ|DITHER0|BLANK"
    r"|SCALE|ZERO|IMAGE|BLOCKED|HECKSUM|DATASUM))"
)

# Keywords of a WCS, the alternate ones (CTYPE1A) included. They live in the image's ``wcs``, and only there: a second
# set in ``meta`` would be out of date after the first cut-out.
_WCS = re.compile(
    r"(WCSAXES|WCSNAME|LONPOLE|LATPOLE|RADESYS|EQUINOX)[A-Z]?"
    r"|RADECSYS"
    r"|(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CRDER|CSYER|CNAME|CROTA)\d{1,2}[A-Z]?"
    r"|(CD|PC|PV|PS)\d{1,2}_\d{1,3}[A-Z]?|PC\d{6}"
    r"|(A|B|AP|BP)_(ORDER|DMAX|\d{1,2}_\d{1,2})"
    r"|(CPDIS|CPERR|CQDIS|CQERR|DP|DQ|D2IMDIS|D2IMERR|D2IM)\d(\.\w+)*|D2IMEXT|DVERR|AXISCORR"
)

_PLAIN_KEY = re.compile(r"[A-Z0-9_-]{1,8}")
_COMMENTARY = ("COMMENT", "HISTORY", "")


# ---- headers -----------------------------------------------------------------------------------------------------


def safe_header(meta):
    """A FITS header that can be written, read and copied without an error or a warning.

    Parameters
    ----------
    meta : mapping or `astropy.io.fits.Header` or None
        Left as it is. Structural and WCS keywords are dropped; values that FITS cannot hold (NaN, infinity, arrays,
        dictionaries) become text; other scripts become ASCII; keys that FITS does not know become HIERARCH ones; what
        cannot be saved in any form is dropped and said in the log at the level DEBUG. HISTORY and COMMENT are kept.

    Returns
    -------
    `astropy.io.fits.Header`

    Examples
    --------
    >>> from astrogan.image._headers import safe_header
    >>> header = safe_header({"SEEING": float("nan"), "observer's note": "naïve", "HISTORY": ["one", "two"]})
    >>> header["SEEING"], header["observer's note"], len(header["HISTORY"])
    ('nan', 'naive', 2)
    """
    from astropy.io import fits

    header = fits.Header()
    with quiet():
        for key, value, comment in _entries(meta):
            name = _ascii(key).strip().upper()
            if _STRUCTURAL.fullmatch(name) or is_wcs_keyword(name):
                continue
            if name in _COMMENTARY:
                for line in _ascii(value, lines=True):
                    if name or line:  # blank cards are room for others, and say nothing
                        header.append(fits.Card(name, line), end=True)
                continue
            card = _card(name, _ascii(key).strip(), value, _ascii(comment))
            if card is None:
                logger.debug("header keyword %r cannot be kept in FITS: %.60r", key, value)
            else:
                header.append(card, end=True)
    return header


def is_wcs_keyword(key):
    """Whether a keyword belongs to the image's WCS, and not to its ``meta``."""
    return _WCS.fullmatch(key) is not None


def _entries(meta):
    """(key, value, comment) of a header or a mapping, one for each line of HISTORY."""
    if meta is None:
        return
    if hasattr(meta, "cards"):
        for card in meta.cards:
            try:
                yield card.keyword, card.value, card.comment
            except Exception as error:
                logger.debug("a header card cannot be read: %s", error)
        return
    for key, value in meta.items():
        if hasattr(value, "cards"):  # NDData often keeps the file's header as an entry
            yield from _entries(value)
        elif str(key).upper() in _COMMENTARY and not isinstance(value, str | bytes) and np.iterable(value):
            yield from ((key, line, "") for line in value)
        elif isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], str):
            yield key, *value  # (value, comment), as Header takes it
        else:
            yield key, value, ""


def _card(name, key, value, comment):
    """The first form of the entry that FITS takes, or `None`; a new card, because headers change theirs in place."""
    value = _fits_value(value)
    # repr: 0.0 and -0.0 are equal, but not the same card.
    return copy(_proven_card(name, key, value, comment, repr(value))) if name else None


@lru_cache(maxsize=4096)  # proving a card is slow, and the parts of one image have the same ones
def _proven_card(name, key, value, comment, _repr):
    from astropy.io import fits

    plain = _PLAIN_KEY.fullmatch(name)
    forms = [(value, comment), (value, "")]
    if isinstance(value, str):  # quotes before a slash are not read back; keys leave less room than they seem to
        simple = value.replace("'", '"')
        forms += [(simple, comment), (simple, ""), (simple[:60], ""), (simple[:30], "")]
    for text, note in forms:
        try:
            card = fits.Card(name if plain else f"HIERARCH {key}", text, note)
            card.verify("exception")
            # A card that does not come back from its own text would not come back from a file.
            back = fits.Card.fromstring(str(card))
            if back.keyword.upper() == name and _same(back.value, card.value):
                return card
        except Exception as error:
            logger.debug("header keyword %r: %s", key, error)
    return None


def _same(a, b):
    return type(a) is type(b) and (a == b or not isinstance(a, str | int | float | complex))


def _fits_value(value):
    """A number, boolean, ASCII text or `None`, near enough to ``value``."""
    from astropy.io.fits.card import Undefined

    if value is None or isinstance(value, Undefined):
        return None
    if isinstance(value, np.ndarray | np.generic) and np.ndim(value) == 0 and getattr(value, "unit", None) is None:
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else str(value)
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, complex):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, bytes):
        value = value.decode("ascii", "ignore")
    if isinstance(value, Mapping):
        value = ", ".join(f"{k}={v}" for k, v in value.items())
    elif isinstance(value, np.ndarray) and value.size > 16:
        value = f"array of shape {value.shape}"
    return _ascii(value)


def _ascii(value, lines=False):
    """Printable ASCII; letters lose their accents, other characters go. With ``lines``, a list of lines."""
    text = unicodedata.normalize("NFKD", str(value)).encode("ascii", "ignore").decode()
    if lines:
        printable = ["".join(c if c.isprintable() else " " for c in line) for line in text.splitlines() or [""]]
        return [line[i : i + 72] for line in printable for i in range(0, max(1, len(line)), 72)]
    return "".join(c if c.isprintable() else " " for c in text).rstrip()


# ---- units -------------------------------------------------------------------------------------------------------

_ALIASES = {
    "adu": "adu",
    "adus": "adu",
    "ang": "Angstrom",
    "angstrom": "Angstrom",
    "angstroms": "Angstrom",
    "cnts": "ct",
    "count": "ct",
    "counts": "ct",
    "cps": "ct s-1",
    "cts": "ct",
    "dimensionless": "",
    "dn": "DN",
    "e": "electron",
    "e-": "electron",
    "elec": "electron",
    "electron": "electron",
    "electrons": "electron",
    "jansky": "Jy",
    "janskys": "Jy",
    "jy": "Jy",
    "maggies": "mgy",
    "maggy": "mgy",
    "nanomaggie": "nmgy",
    "nanomaggies": "nmgy",
    "nanomaggy": "nmgy",
    "nmaggies": "nmgy",
    "nmaggy": "nmgy",
    "nmgy": "nmgy",
    "photons": "ph",
    "pixel": "pix",
    "pixels": "pix",
    "sec": "s",
    "second": "s",
    "seconds": "s",
    "unitless": "",
}

# "e-" only where no digit follows (1e-17), and no letter that belongs to a number (1E-17).
_WORD = re.compile(r"(?<![\w.])(?:[eE]-(?!\d)|[A-Za-z]+)(?![A-Za-z])")
_PER_SECOND = re.compile(r"(adu|dn|e-|electrons?|counts?|cts|photons?|ph)\s*/\s*S", re.IGNORECASE)


def parse_unit(text):
    """The unit that a BUNIT, a command line or a user names.

    Parameters
    ----------
    text : str or `~astropy.units.Unit`
        In any of astropy's formats, or one of the spellings of the field: nanomaggies, counts, ADU, DN/sec, e-/s,
        ELECTRONS/S, 1E-17 erg/s/cm2/A, in which A is the Angstrom, ... An empty text is dimensionless.

    Returns
    -------
    `~astropy.units.Unit`

    Raises
    ------
    UnitError
        If it is none that astropy knows.

    Examples
    --------
    >>> from astrogan.image._headers import parse_unit
    >>> parse_unit("nanomaggies"), parse_unit("e-/s"), parse_unit("erg/s/cm2/A")
    (Unit("nmgy"), Unit("electron / s"), Unit("erg / (Angstrom s cm2)"))
    """
    from astropy import units as u

    if not isinstance(text, str):
        try:
            return u.Unit(text)
        except (TypeError, ValueError) as error:
            raise UnitError(f"unit={text!r} is no unit; give one such as 'adu', 'electron' or 'nmgy'") from error
    wanted = " ".join(text.split())
    if _PER_SECOND.fullmatch(wanted):  # ELECTRONS/S: not per siemens
        wanted = wanted[:-1] + "s"
    if "erg" in wanted:
        wanted = re.sub(r"(?<![A-Za-z])(A|AA)(?![A-Za-z])", "Angstrom", wanted)
    spelled = _WORD.sub(lambda match: _ALIASES.get(match[0].lower(), match[0]), wanted)
    with quiet():
        for candidate in (wanted, spelled):
            with contextlib.suppress(TypeError, ValueError, ArithmeticError):
                unit = u.Unit(candidate)
                unit.decompose()  # some have powers that no float holds, and fail wherever they are converted
                return unit
    raise UnitError(f"unit={text!r} is not known to astropy.units; give one such as 'adu', 'electron' or 'nmgy'")


@lru_cache(maxsize=256)
def unit_text(unit):
    """How to write a unit into BUNIT: in FITS' own spelling where that says the same."""
    from astropy import units as u

    with quiet(), contextlib.suppress(ValueError, TypeError):
        text = unit.to_string("fits")
        if u.Unit(text) == unit:
            return text
    return unit.to_string()
