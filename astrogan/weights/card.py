"""Model cards: what a file of weights is, where it holds and how good it is.

A card is a dict of plain JSON values. `validate_card` is the one definition of its keys.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re

from astrogan._text import visible
from astrogan.exceptions import CheckpointError, InputError

__all__ = ["FORMAT", "NAME", "ROLES", "describe", "validate_card"]

FORMAT = 1
"""Number of the card format that is written, and the newest that is read."""

ROLES = ("restorer", "degrader", "deblender", "translator", "noise")
"""Roles of backends, as in `astrogan.api`."""

NAME = re.compile(r"[a-z0-9-]+")
"""What a name looks like: no dots and no separators, so that no name leads out of its folder."""

_MAX_DEPTH = 16
_SHA256 = re.compile(r"[0-9a-f]{64}")
_QUANTITY = re.compile(r"[a-z][a-z0-9_]*")


def validate_card(card):
    """Check a card and complete it.

    Parameters
    ----------
    card : dict
        Never changed. Required are ``name``, ``backend``, ``role`` and ``architecture``; unknown keys are refused, so
        that none is misspelt. See the notes.

    Returns
    -------
    dict
        A deep copy of plain JSON values (tuples become lists, numpy scalars numbers) with all keys in a fixed order;
        what was not given is `None` or empty. Checksums are passed on as they are: `save_weights` sets them.

    Raises
    ------
    InputError
        Naming the key, its value and what it should be.

    Notes
    -----
    ================== ===========================================================================================
    key                value
    ================== ===========================================================================================
    format             1
    name               small letters, digits and hyphens
    backend            name of the backend that the weights are for
    role               "restorer", "degrader", "deblender", "translator" or "noise"
    architecture       dict: keyword arguments of the network
    bands              number of bands, or `None`
    band_names         list of names, as many as ``bands``, or `None`
    ranges             dict: quantity -> [low, high] seen in training ("fwhm" in pixels, "peak_snr", "pixel_scale" in
                       arcsec, "noise_ratio", ...)
    stretch            dict, or `None`
    calibration        dict with "scale" (factor on the predicted sigma; one, or a list with one a band),
                       "coverage68", "coverage95", ...; or `None`
    metrics            list of dicts, a row each, the baselines among them
    data               list of dicts with "name", "origin" and "licence" at least; "split", ...
    parents            list of dicts with "name", "sha256" and "share": what the weights were blended from
    recipe             name of the training recipe, or `None`
    seed, steps        not negative integers, or `None`
    git_revision       or `None`
    astrogan_version   or `None`
    licence, citation  of the weights; text
    created            date as YYYY-MM-DD, or `None`
    notes              text
    sha256, size       of the file of tensors; `None` until it is written
    card_sha256        of all the rest; `None` until it is written
    ================== ===========================================================================================

    Examples
    --------
    >>> from astrogan.weights import validate_card
    >>> card = validate_card({"name": "mine", "backend": "nafnet", "role": "restorer", "architecture": {"width": 32}})
    >>> card["format"], card["bands"], card["metrics"]
    (1, None, [])
    """
    if not isinstance(card, dict):
        raise InputError(f"card must be a dict, got {type(card).__name__}")
    card = _plain(card, "card", 0)
    for key in card:
        if key not in _KEYS:
            raise InputError(f"card key {key!r} is unknown; known are {', '.join(_KEYS)}")
    for key in ("name", "backend", "role", "architecture"):
        if card.get(key) is None:
            raise InputError(f"card[{key!r}] is missing; it must be {_KEYS[key][1]}")
    out = {}
    for key, (check, wanted, default) in _KEYS.items():
        value = card.get(key)
        if value is None:
            value = default() if callable(default) else default
        elif not check(value):
            raise InputError(f"card[{key!r}]={value!r} must be {wanted}")
        out[key] = value
    if out["band_names"] is not None and len(out["band_names"]) != out["bands"]:
        raise InputError(
            f"card['band_names'] has {len(out['band_names'])} names and card['bands'] is {out['bands']!r}; "
            "give a name a band, or None"
        )
    return out


def _plain(value, where, depth):
    """A copy of plain JSON values."""
    if depth > _MAX_DEPTH:
        raise InputError(f"{where} is nested more than {_MAX_DEPTH} deep")
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # scalars of numpy and torch
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{where}={value!r}: a card holds finite numbers; give None where there is none")
        return value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"{where} has the key {key!r}; keys must be text")
        return {key: _plain(item, f"{where}[{key!r}]", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    raise InputError(f"{where} is of type {type(value).__name__}; a card holds numbers, text, lists and dicts")


# ---- what a key may hold -----------------------------------------------------------------------------------------


def _is_text(value):
    return isinstance(value, str)


def _is_int(value, low=0):
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_number(value):
    # What single precision holds: networks compute in it.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**127


def _is_name(value):
    return _is_text(value) and NAME.fullmatch(value) is not None


def _is_hash(value):
    return _is_text(value) and _SHA256.fullmatch(value) is not None


def _is_date(value):
    try:
        return _is_text(value) and datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _is_names(value):
    return isinstance(value, list) and all(_is_text(name) and name for name in value) and len(set(value)) == len(value)


def _is_arguments(value):
    return isinstance(value, dict) and all(key.isidentifier() for key in value)


def _is_ranges(value):
    return isinstance(value, dict) and all(_QUANTITY.fullmatch(k) and _is_range(v) for k, v in value.items())


def _is_range(value):
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]


def _is_calibration(value):
    if not isinstance(value, dict):
        return False
    scale = value.get("scale", 1.0)
    scales = scale if isinstance(scale, list) else [scale]
    coverages = [value[key] for key in ("coverage68", "coverage95") if value.get(key) is not None]
    return all(_is_number(s) and s > 0 for s in scales) and all(_is_number(c) and 0 <= c <= 1 for c in coverages)


def _is_rows(value, *keys):
    return isinstance(value, list) and all(
        isinstance(row, dict) and all(_is_text(row.get(key)) and row[key] for key in keys) for row in value
    )


def _is_parents(value):
    return _is_rows(value, "name", "sha256") and all(
        _is_hash(row["sha256"]) and _is_number(row.get("share")) and 0 <= row["share"] <= 1 for row in value
    )


# key: (check, what is wanted, what stands where nothing was given)
_KEYS = {
    "format": (lambda value: _is_int(value) and value == FORMAT, f"{FORMAT}", FORMAT),
    "name": (_is_name, "a name of small letters, digits and hyphens", None),
    "backend": (_is_name, "the name of a backend: small letters, digits and hyphens", None),
    "role": (lambda value: value in ROLES, f"one of {', '.join(ROLES)}", None),
    "architecture": (_is_arguments, "a dict of keyword arguments of the network", None),
    "bands": (lambda value: _is_int(value, 1), "a number of bands, at least 1, or None", None),
    "band_names": (_is_names, "a list of different names, or None", None),
    "ranges": (_is_ranges, "a dict of quantity -> [low, high], e.g. {'fwhm': [2.0, 8.0]}", dict),
    "stretch": (lambda value: isinstance(value, dict), "a dict or None", None),
    "calibration": (
        _is_calibration,
        "a dict with a positive 'scale' and 'coverage68', 'coverage95' from 0 to 1, or None",
        None,
    ),
    "metrics": (_is_rows, "a list of dicts, a row each", list),
    "data": (
        lambda value: _is_rows(value, "name", "origin", "licence"),
        "a list of dicts, each with 'name', 'origin' and 'licence' as text",
        list,
    ),
    "parents": (_is_parents, "a list of dicts, each with 'name', 'sha256' and 'share' from 0 to 1", list),
    "recipe": (_is_text, "text or None", None),
    "seed": (_is_int, "an integer, not negative, or None", None),
    "steps": (_is_int, "an integer, not negative, or None", None),
    "git_revision": (_is_text, "text or None", None),
    "astrogan_version": (_is_text, "text or None", None),
    "licence": (_is_text, "text", ""),
    "citation": (_is_text, "text", ""),
    "created": (_is_date, "a date as YYYY-MM-DD, or None", None),
    "notes": (_is_text, "text", ""),
    "sha256": (_is_hash, "64 hexadecimal digits, or None", None),
    "size": (_is_int, "a number of bytes, or None", None),
    "card_sha256": (_is_hash, "64 hexadecimal digits, or None", None),
}


# ---- text and checksum -------------------------------------------------------------------------------------------


def card_text(card):
    """The bytes of a card's file, with the checksum of the card in it."""
    return _file_text({**card, "card_sha256": _checksum(card)}).encode("ascii")


def parse_card(data, where):
    """The card in the bytes of a file; `CheckpointError` names ``where``."""
    try:
        text = data.decode("ascii").replace("\r\n", "\n")
        card = json.loads(text)
        # The text is compared too: a bit that flips in the last digits of a number need not change its value.
        whole = isinstance(card, dict) and card.get("card_sha256") == _checksum(card) and text == _file_text(card)
    except (ValueError, RecursionError) as error:  # writing needs a deeper stack than reading
        raise CheckpointError(f"card {where!r} is damaged ({error}); {_REMEDY}") from error
    number = card.get("format") if isinstance(card, dict) else None
    if _is_int(number, FORMAT + 1):
        raise CheckpointError(
            f"card {where!r} has format {number}, and this astrogan knows {FORMAT}; update astrogan, "
            "or take weights that were made with this version"
        )
    if not whole:
        raise CheckpointError(f"card {where!r} is not as it was written: its checksum does not match; {_REMEDY}")
    try:
        card = validate_card(card)
    except InputError as error:
        raise CheckpointError(f"card {where!r} cannot be used: {error}; {_REMEDY}") from error
    for key in ("sha256", "size"):
        if card[key] is None:
            raise CheckpointError(f"card {where!r} has no {key!r} of the file of tensors; {_REMEDY}")
    return card


_REMEDY = "get the pair of files again, or write it with astrogan.weights.save_weights"


def _checksum(card):
    """SHA-256 of a card's canonical JSON, without the checksum itself."""
    rest = {key: value for key, value in card.items() if key != "card_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def _file_text(card):
    return json.dumps(card, indent=2) + "\n"


# ---- for people --------------------------------------------------------------------------------------------------


def describe(card):
    """A card as text of several lines.

    Parameters
    ----------
    card : dict
        As `validate_card` takes it.

    Returns
    -------
    str
        Safe to print, whoever wrote the card: characters that a terminal would act on are escapes, and lines are broken
        where this function breaks them, and where the recipe does.

    Raises
    ------
    InputError
        If it is no card.

    Examples
    --------
    >>> from astrogan.weights import describe
    >>> print(
    ...     describe(
    ...         {
    ...             "name": "mine",
    ...             "backend": "nafnet",
    ...             "role": "restorer",
    ...             "architecture": {"width": 32},
    ...             "bands": 1,
    ...             "ranges": {"fwhm": [2, 8]},
    ...             "licence": "BSD-3-Clause",
    ...         }
    ...     )
    ... )
    mine
      backend       nafnet (restorer)
      bands         1
      architecture  width=32
      trained for   fwhm 2 to 8
      licence       BSD-3-Clause
    """
    card = validate_card(card)
    card = _in_one_line(card) | {"recipe": visible((card["recipe"] or "").replace("\r\n", "\n"))}
    pairs = [
        ("backend", f"{card['backend']} ({card['role']})"),
        ("bands", _bands(card)),
        ("architecture", _pairs(card["architecture"])),
        ("trained for", "; ".join(f"{k} {_short(low)} to {_short(high)}" for k, (low, high) in card["ranges"].items())),
        ("stretch", _pairs(card["stretch"])),
        ("calibration", _pairs(card["calibration"])),
        ("recipe", _recipe(card)),
        ("licence", card["licence"]),
        ("citation", card["citation"]),
        ("created", card["created"]),
        ("astrogan", _version(card)),
        ("file", f"{card['size']} bytes, sha256 {card['sha256']}" if card["sha256"] else None),
        ("notes", card["notes"]),
    ]
    lines = [card["name"], *(f"  {name:<14}{value}" for name, value in pairs if value)]
    lines += [f"  {'data':<14}{_pairs(row)}" for row in card["data"]]
    lines += [f"  {'blend of':<14}{_short(p['share'])} of {p['name']} ({p['sha256'][:12]})" for p in card["parents"]]
    if card["metrics"]:
        lines += ["  metrics", *(f"    {line}" for line in _table(card["metrics"]))]
    if "\n" in card["recipe"]:  # the whole of it, and long: last
        lines += ["  recipe in full", *(f"    {line}".rstrip() for line in card["recipe"].splitlines())]
    return "\n".join(lines)


def _in_one_line(value):
    """A copy of plain values whose texts have one line each and nothing hidden."""
    if isinstance(value, str):
        return visible(value.replace("\n", " ").replace("\t", " "))
    if isinstance(value, dict):
        return {_in_one_line(key): _in_one_line(item) for key, item in value.items()}
    return [_in_one_line(item) for item in value] if isinstance(value, list) else value


def _bands(card):
    names = f" ({', '.join(card['band_names'])})" if card["band_names"] else ""
    return f"{card['bands']}{names}" if card["bands"] else None


def _recipe(card):
    text = card["recipe"]
    parts = [text] if "\n" not in text else []  # a text of many lines comes in full further down
    parts += [f"{key} {card[key]}" for key in ("seed", "steps") if card[key] is not None]
    return ", ".join(part for part in parts if part)


def _version(card):
    parts = [card["astrogan_version"], card["git_revision"] and f"revision {card['git_revision']}"]
    return ", ".join(part for part in parts if part)


def _pairs(values):
    return ", ".join(f"{key}={_short(value)}" for key, value in (values or {}).items())


def _short(value):
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(rows):
    """Rows of values under the names of their columns, as wide as they need to be."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    cells = [names, *([_short(row.get(key, "")) for key in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
