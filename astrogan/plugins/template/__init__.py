"""A new plugin to start from: a whole package that installs, works and is tested (``astrogan plugin new NAME``)."""

from __future__ import annotations

import datetime
import json
import os
import re
import tempfile
from importlib.resources import files
from pathlib import Path

from astrogan.api import API_VERSION, ROLES, BackendSpec
from astrogan.exceptions import ImageWriteError, InputError
from astrogan.plugins.registry import get_registry
from astrogan.plugins.template._files import FILES, LICENCES, SUMMARIES, USES

__all__ = ["new_plugin"]

_PREFIX = "astrogan-"
_LONGEST = 50
"""Characters of a name: distribution, package and header cards are made of it."""

_WITH_MAIL = re.compile(r"(.+?)\s*<([^<>\s@]+@[^<>\s@]+\.[^<>\s@]+)>")


def new_plugin(name, folder=".", role="restorer", author=None, licence="BSD-3-Clause"):
    """Write a new plugin: a package with a working backend, its entry point and its test.

    Parameters
    ----------
    name : str
        What users will write, ``Restorer("my-name")``: lower-case letters, digits and single hyphens. The
        distribution is called ``astrogan-<name>`` and its package ``astrogan_<name>``, with underscores. A leading
        ``astrogan-`` is taken to be that of the distribution.
    folder : path, optional
        An existing folder, in which a new one with the name of the distribution is made.
    role : str, optional
        What the backend is: one of `astrogan.api.ROLES`.
    author : str, optional
        ``"A. Author"`` or ``"A. Author <mail@example.org>"``. Default: the distribution's developers.
    licence : {'BSD-3-Clause', 'MIT', None}, optional
        Of the new package. `None` writes no licence: choose one before you publish it.

    Returns
    -------
    `pathlib.Path`
        The new folder.

    Raises
    ------
    InputError
        If an argument is not of its form, or another distribution has such a backend.
    ImageWriteError
        If the folder exists already or cannot be written; nothing is left behind.

    Notes
    -----
    The new folder appears whole or not at all: it is written under another name and renamed.

    Examples
    --------
    >>> import tempfile
    >>> from astrogan.plugins.template import new_plugin
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = new_plugin("my-method", folder, author="A. Author")
    ...     print(path.name, *sorted(p.name for p in path.rglob("*.py")))
    astrogan-my-method __init__.py plugin.py restorer.py test_contract.py
    """
    words = _words(_checked_name(name), _checked_role(role), _checked_author(author), _checked_licence(licence))
    parent = _checked_folder(folder)
    _check_taken(role, words["NAME"], words["DISTRIBUTION"])
    target = parent / words["DISTRIBUTION"]
    if os.path.lexists(target):
        raise ImageWriteError(f"{str(target)!r} exists; choose another name, or another folder")
    _write(target, _texts(words, role, licence))
    return target


# ---- the arguments ------------------------------------------------------------------------------------------------


def _checked_name(name):
    """The backend's name."""
    short = name.removeprefix(_PREFIX) if isinstance(name, str) else name
    try:
        BackendSpec(role=ROLES[0], name=short, target="a:B")
    except ValueError as error:
        raise InputError(
            f"name={name!r} must be lower-case letters, digits and single hyphens between them, e.g. 'my-method'"
        ) from error
    if short == "astrogan" or len(short) > _LONGEST:
        raise InputError(f"name={name!r} must have {_LONGEST} characters at most and not be astrogan's own")
    return short


def _checked_role(role):
    if role not in ROLES:
        raise InputError(f"role={role!r} is unknown; use one of {', '.join(ROLES)}")
    return role


def _checked_author(author):
    if author is None:
        return None
    if not isinstance(author, str) or not author.strip() or not author.isprintable():
        raise InputError(f"author={author!r} must be a name on one line, e.g. 'A. Author <mail@example.org>'")
    if ("<" in author or ">" in author) and not _WITH_MAIL.fullmatch(author.strip()):
        raise InputError(f"author={author!r} must have the form 'A. Author <mail@example.org>', or be a name alone")
    return author.strip()


def _checked_licence(licence):
    if licence is not None and licence not in LICENCES:
        raise InputError(
            f"licence={licence!r} must be {', '.join(map(repr, LICENCES))} or None: with None add the text of another "
            "one as the file LICENSE"
        )
    return licence


def _checked_folder(folder):
    try:
        path = Path(folder).expanduser()
        if path.is_dir():
            return path
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise InputError(f"folder={folder!r} cannot be used ({error}); give the path of a folder") from error
    raise InputError(f"folder={str(folder)!r} is no folder; create it first, or give another")


def _check_taken(role, name, distribution):
    """Two backends of one name would be an error wherever that is written; the plugin's own may be installed."""
    others = [b for b in get_registry().backends if (b.spec.role, b.spec.name) == (role, name)]
    others = [b.distribution for b in others if re.sub(r"[-_.]+", "-", b.distribution).lower() != distribution]
    if others:
        raise InputError(f"name={name!r} is that of a {role} of {others[0]} already; choose another")


# ---- the text -----------------------------------------------------------------------------------------------------


def _words(name, role, author, licence):
    """What stands for each ``@WORD@``."""
    distribution = _PREFIX + name
    author = author or f"The {distribution} developers"
    mail = _WITH_MAIL.fullmatch(author)
    person = f"name = {_toml(mail[1])}, email = {_toml(mail[2])}" if mail else f"name = {_toml(author)}"
    return {
        "NAME": name,
        "ROLE": role,
        "DISTRIBUTION": distribution,
        "PACKAGE": distribution.replace("-", "_"),
        # Written out: the default would be that of whichever astrogan is installed later.
        "API": str(API_VERSION),
        "CLASS": _class_name(name, role),
        "SUMMARY": SUMMARIES[role],
        "TITLE": f"{distribution}\n{'=' * len(distribution)}",
        "AUTHORS": f"authors = [{{ {person} }}]",
        "AUTHOR": mail[1] if mail else author,
        "LICENCE": f'license = "{licence}"\nlicense-files = ["LICENSE"]' if licence else "# license = ...",
        "YEAR": str(datetime.date.today().year),
    }


def _toml(text):
    """Text between quotes: what JSON writes is a string in TOML, too."""
    return json.dumps(text, ensure_ascii=False)


def _class_name(name, role):
    """``my-method`` of a restorer as ``MyMethodRestorer``: the role keeps it from being a keyword or another class."""
    words = "".join(part.capitalize() for part in name.split("-"))
    words = words if words[0].isalpha() else f"Method{words}"
    return words if words.endswith(role.capitalize()) else words + role.capitalize()


def _texts(words, role, licence):
    """Text by path in the new folder."""
    indented = "".join(f"    {line}\n" if line else "\n" for line in USES[role].splitlines()).rstrip()
    words = words | {"USE": _filled(indented, words)}
    backend = files(__name__).joinpath(f"_{role}.py").read_text(encoding="utf-8")
    found = FILES | {"src/@PACKAGE@/@ROLE@.py": backend.replace("MyBackend", "@CLASS@")}
    if licence:
        found = found | {"LICENSE": LICENCES[licence]}
    return {_filled(path, words): _filled(text, words) for path, text in found.items()}


def _filled(text, words):
    return re.sub(r"@([A-Z]+)@", lambda match: words[match[1]], text)


# ---- the files ----------------------------------------------------------------------------------------------------


def _write(target, texts):
    """The files below ``target``, which appears when all are written."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as hidden:
            whole = Path(hidden) / target.name
            for name, text in texts.items():
                path = whole / name
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_file(path, text)
            os.rename(whole, target)
    except OSError as error:
        raise ImageWriteError(f"{str(target)!r} cannot be written: {error.strerror or error}") from error


def _write_file(path, text):
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
