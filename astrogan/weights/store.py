"""Reading and writing weights: safetensors only, every byte checked against the card."""

from __future__ import annotations

import datetime
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from astrogan.exceptions import CheckpointError, ImageWriteError, InputError
from astrogan.weights._pair import previous_path, write_pair
from astrogan.weights.card import NAME, ROLES, card_text, parse_card, validate_card

if TYPE_CHECKING:
    import torch

__all__ = ["Weights", "list_weights", "load_weights", "read_card", "save_weights"]

FILES = Path(__file__).parent / "files"
"""The folder of the weights that come with the package."""

_SUFFIX = ".safetensors"
_MAX_CARD = 2**20
_MAX_HEADER = 2**22
_REMEDY = "get the pair of files again"


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights as `load_weights` gives them.

    Parameters
    ----------
    name : str
        Name in the card.
    card : dict
        The card; see `validate_card` for its keys.
    tensors : dict of str to torch.Tensor
        On the CPU; floating ones are float32 and finite. The caller's own.
    sha256 : str
        Checksum of the file of tensors.
    path : `pathlib.Path`
        The file of tensors.
    """

    name: str
    card: dict = field(repr=False)
    tensors: dict[str, torch.Tensor] = field(repr=False)
    sha256: str
    path: Path


def list_weights(role=None, backend=None):
    """Names of the weights that come with the package.

    Parameters
    ----------
    role : str, optional
        Only those for this role: "restorer", "degrader", "deblender", "translator" or "noise".
    backend : str, optional
        Only those for this backend.

    Returns
    -------
    tuple of str
        Sorted. Without ``role`` and ``backend`` no file is opened; with them what has a damaged card is left out
        (``astrogan weights verify`` names it).

    Raises
    ------
    InputError
        If there is no such role.

    Examples
    --------
    >>> from astrogan.weights import list_weights
    >>> list_weights(backend="no-such-backend")
    ()
    """
    if role is not None and role not in ROLES:
        raise InputError(f"role={role!r} must be one of {', '.join(ROLES)}")
    names = sorted(file.stem for file in FILES.glob("*.json") if NAME.fullmatch(file.stem)) if FILES.is_dir() else []
    if role is None and backend is None:
        return tuple(names)
    return tuple(name for name in names if _is_for(name, role, backend))


def _is_for(name, role, backend):
    try:
        card = _read_card(_shipped(name))
    except CheckpointError:
        return False
    return role in (None, card["role"]) and backend in (None, card["backend"])


def read_card(name_or_path):
    """Read a card without its tensors; needs no torch.

    Parameters
    ----------
    name_or_path : str or path
        As for `load_weights`.

    Returns
    -------
    dict
        With all keys; see `validate_card`. The card's own checksum holds, and the file of tensors is there and as long
        as the card says. Its checksum is verified by `load_weights` alone.

    Raises
    ------
    CheckpointError
        If the card is missing, damaged or newer than this version, or the file of tensors is missing or has another
        length.
    InputError
        If there is nothing of this name.
    """
    path = _locate(name_or_path)
    card = _read_card(path)
    if not any(_size(file) == card["size"] for file in (path, previous_path(path, card["sha256"]))):
        raise CheckpointError(_wrong_size(path, card))
    return card


def load_weights(name_or_path):
    """Load weights and their card, after every byte of both has been checked.

    Parameters
    ----------
    name_or_path : str or path
        A name that `list_weights` gives; or the path of a ``.safetensors`` file with its card (``.json``) beside it,
        or of a folder with exactly one such file. Text is a path if it has a separator or the suffix.

    Returns
    -------
    `Weights`

    Raises
    ------
    CheckpointError
        If a file is missing, damaged, not what the card says, or written by a newer version; or if the tensors are
        not finite real numbers.
    InputError
        If there is nothing of this name.

    Notes
    -----
    The file is read once; what is hashed is what is parsed, and only as safetensors, which cannot hold code.
    If a save was killed halfway, the old pair is given.
    """
    path = _locate(name_or_path)
    card = _read_card(path)
    tensors = _parse(_read_tensors(path, card), path)
    return Weights(card["name"], card, tensors, card["sha256"], path)


def save_weights(path, tensors, card, *, half=False, overwrite=False):
    """Write weights and their card.

    Parameters
    ----------
    path : path
        ``NAME.safetensors``; the card goes to ``NAME.json`` beside it.
    tensors : mapping of str to torch.Tensor
        As a ``state_dict``. On any device, never changed; floating ones are stored as float32. Finite.
    card : dict
        See `validate_card`. ``name`` is that of the file where it is not given, ``created`` and ``astrogan_version``
        are today and this version; ``format`` and checksums are set whatever they were.
    half : bool
        Store floating tensors as float16, in half the bytes and with 11 bits; measure what the card says afterwards.
    overwrite : bool
        Whether existing files are replaced. If that is interrupted in any way, the old pair or the new can be loaded.

    Returns
    -------
    str
        SHA-256 of the file of tensors.

    Raises
    ------
    InputError
        If the path, the card or a tensor cannot be used.
    ImageWriteError
        If a file exists and ``overwrite`` is false, or the system refuses to write; what was there is untouched.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from astrogan.weights import load_weights, save_weights
    >>> card = {"name": "mine", "backend": "nafnet", "role": "restorer", "architecture": {"width": 32}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sha256 = save_weights(f"{folder}/mine.safetensors", {"bias": torch.ones(2)}, card)
    ...     weights = load_weights(f"{folder}/mine.safetensors")
    >>> weights.name, weights.tensors["bias"], weights.sha256 == sha256
    ('mine', tensor([1., 1.]), True)
    """
    path = _as_path(path)
    if path.suffix != _SUFFIX:
        raise InputError(f"path={str(path)!r} must end with {_SUFFIX}: weights are stored as safetensors")
    card_path = path.with_suffix(".json")
    for file in (path, card_path):  # before the work; write_pair looks again
        if file.exists() and not overwrite:
            raise ImageWriteError(f"path={str(file)!r} exists; give overwrite=True (--overwrite) to replace it")
    card = _completed(card, path)
    data = _serialized(tensors, half)
    card |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    text = card_text(card)
    if len(text) > _MAX_CARD:
        raise InputError(f"card has {len(text)} bytes; at most {_MAX_CARD} are read, so shorten metrics or data")
    write_pair(path, card_path, data, text, _old_sha256(path), overwrite=overwrite)
    return card["sha256"]


# ---- where the files are -----------------------------------------------------------------------------------------


def _locate(name_or_path):
    """The file of tensors that a name or a path means; it may not be there while its card is."""
    is_name = isinstance(name_or_path, str) and not (
        name_or_path.endswith(_SUFFIX) or any(s in name_or_path for s in (os.sep, os.altsep) if s)
    )
    if is_name:
        if NAME.fullmatch(name_or_path) and _shipped(name_or_path).with_suffix(".json").is_file():
            return _shipped(name_or_path)
        raise InputError(
            f"weights={name_or_path!r}: no weights of this name; there are {', '.join(list_weights()) or 'none'}. "
            f"A file is given as NAME{_SUFFIX}, a folder as ./{name_or_path}"
        )
    path = _as_path(name_or_path)
    if path.is_dir():
        path = _only_one(path)
    if path.suffix != _SUFFIX:
        raise InputError(f"weights={str(path)!r}: only {_SUFFIX} files are read, with their card beside them")
    if not path.exists() and not path.with_suffix(".json").exists():
        raise InputError(f"weights={str(path)!r}: there is no such file")
    return path


def _as_path(path):
    try:
        path = Path(path).expanduser()
        path.exists()  # a null byte is found here
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise InputError(f"path={path!r} is neither a name nor a path of weights ({error})") from error
    return path


def _shipped(name):
    return FILES / f"{name}{_SUFFIX}"


def _only_one(folder):
    files = sorted(file for file in folder.glob(f"*{_SUFFIX}") if not file.name.startswith("."))
    if len(files) == 1:
        return files[0]
    found = ", ".join(file.name for file in files[:10]) or f"no {_SUFFIX} file"
    raise InputError(f"weights={str(folder)!r}: the folder must hold exactly one {_SUFFIX} file, and holds {found}")


# ---- reading -----------------------------------------------------------------------------------------------------


def _read_card(path):
    """The card beside a file of tensors."""
    card_path = path.with_suffix(".json")
    size = _size(card_path)
    if size is None:
        raise CheckpointError(f"{str(path)!r} has no card {card_path.name!r} beside it; {_REMEDY}")
    if size > _MAX_CARD:
        raise CheckpointError(f"card {str(card_path)!r} has {size} bytes, more than any card; {_REMEDY}")
    card = parse_card(_read(card_path), str(card_path))
    if path.parent == FILES and card["name"] != path.stem:
        raise CheckpointError(f"card {str(card_path)!r} is that of {card['name']!r}; {_REMEDY}")
    return card


def _size(path):
    """Length of a regular file; None where there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error


def _read_tensors(path, card):
    """The bytes that the card tells of; those that a killed save has kept if the file has others."""
    for file in (path, previous_path(path, card["sha256"])):
        if _size(file) == card["size"]:
            data = _read(file)
            if hashlib.sha256(data).hexdigest() == card["sha256"]:
                return data
    if _size(path) != card["size"]:
        raise CheckpointError(_wrong_size(path, card))
    raise CheckpointError(f"{str(path)!r} is damaged, or not of its card: the checksum differs; {_REMEDY}")


def _wrong_size(path, card):
    size = _size(path)
    if size is None:
        return f"{str(path)!r} is missing, and its card is there; {_REMEDY}"
    return f"{str(path)!r} has {size} bytes, and its card says {card['size']}: truncated, or not its card; {_REMEDY}"


def _parse(data, path):
    """Tensors in the bytes of a safetensors file."""
    import safetensors.torch
    import torch

    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_MAX_HEADER, len(data) - 8):
        raise CheckpointError(f"{str(path)!r} is no safetensors file: its header does not fit; {_REMEDY}")
    try:
        tensors = safetensors.torch.load(data)
    # What safetensors and torch raise for headers that do not fit their bytes has no common base.
    except (safetensors.SafetensorError, ValueError, TypeError, LookupError, RuntimeError, AssertionError) as error:
        raise CheckpointError(f"{str(path)!r} is no safetensors file ({error}); {_REMEDY}") from error
    out = {}
    for name, tensor in tensors.items():
        if not _is_real(tensor):
            raise CheckpointError(f"{str(path)!r}: tensor {name!r} is {tensor.dtype}; weights are real numbers")
        out[name] = tensor.to(torch.float32) if tensor.is_floating_point() else tensor
        if not bool(torch.isfinite(out[name]).all()):
            raise CheckpointError(f"{str(path)!r}: tensor {name!r} has values that are not finite; train again")
    return out


def _is_real(tensor):
    """Whether it is of a type that is computed with: not complex, quantized or of 8-bit floats."""
    import torch

    floating = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    integer = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    return tensor.dtype in floating + integer


# ---- writing -----------------------------------------------------------------------------------------------------


def _completed(card, path):
    """The card with what can be known here."""
    from astrogan import __version__

    if not isinstance(card, dict):
        raise InputError(f"card must be a dict, got {type(card).__name__}")
    card = {key: value for key, value in card.items() if key not in ("format", "sha256", "size", "card_sha256")}
    found = {"created": datetime.date.today().isoformat(), "astrogan_version": __version__}
    if card.get("name") is None:
        if not NAME.fullmatch(path.stem):
            raise InputError(f"card has no 'name', and {path.stem!r} cannot be one: small letters, digits and hyphens")
        found["name"] = path.stem
    return validate_card(card | {key: value for key, value in found.items() if card.get(key) is None})


def _serialized(tensors, half):
    """The bytes of a safetensors file."""
    import safetensors.torch
    import torch

    if not hasattr(tensors, "items") or not tensors:
        raise InputError(f"tensors must be a mapping of names to tensors, not empty, got {type(tensors).__name__}")
    out = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not name or not isinstance(tensor, torch.Tensor) or not _is_real(tensor):
            kind = f"a tensor of {tensor.dtype}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise InputError(f"tensors[{name!r}] is {kind}; the name must be text, the tensor one of real numbers")
        if tensor.layout != torch.strided or tensor.is_meta:
            raise InputError(f"tensors[{name!r}] is sparse or has no data; a dense tensor is needed")
        out[name] = _stored(name, tensor, half)
    data = safetensors.torch.save(out)
    if int.from_bytes(data[:8], "little") > _MAX_HEADER:
        raise InputError(f"tensors have {len(out)} names, too long together; at most {_MAX_HEADER} bytes are read")
    return data


def _stored(name, tensor, half):
    """A copy as it is stored. A copy because safetensors refuses tensors that share memory, as tied weights do."""
    import torch

    tensor = tensor.detach().to("cpu")
    if not tensor.is_floating_point():
        return tensor.contiguous().clone()
    stored = tensor.to(torch.float16 if half else torch.float32)
    if not bool(torch.isfinite(stored).all()):
        why = "has values that are not finite" if not bool(torch.isfinite(tensor).all()) else "overflows"
        raise InputError(f"tensors[{name!r}] {why} as {stored.dtype}; weights must be finite numbers")
    return stored.contiguous().clone()


def _old_sha256(path):
    try:
        return _read_card(path)["sha256"]
    except CheckpointError:
        return None
