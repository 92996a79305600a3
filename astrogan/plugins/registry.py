"""The registry: every backend that is installed, who brought it, and whether it can be used."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import os
import re
import sys
import threading
import warnings
from dataclasses import dataclass

import pluggy

from astrogan.api import API_VERSION, ROLES, BackendSpec
from astrogan.exceptions import (
    AstroganError,
    BackendError,
    BackendNotFoundError,
    DuplicateBackendError,
    InputError,
    MissingDependencyError,
    PluginError,
    PluginWarning,
)
from astrogan.plugins import hookspecs

__all__ = ["Backend", "Registry", "get_registry", "list_backends", "load_backend", "reload_plugins"]

log = logging.getLogger("astrogan")

GROUP = "astrogan"
BUILTIN = ("astrogan", "astrogan.backends.builtin")
_METHOD = {"noise": "sample"}


@dataclass(frozen=True)
class Backend:
    """A registered backend: its `~astrogan.api.BackendSpec` and the distribution that brought it.

    Parameters
    ----------
    spec : `~astrogan.api.BackendSpec`
    distribution : str
        Name of the distribution.
    version : str
        Its version.
    """

    spec: BackendSpec
    distribution: str
    version: str

    @property
    def qualified_name(self) -> str:
        """``"distribution:name"``, which no duplicate can make ambiguous."""
        return f"{self.distribution}:{self.spec.name}"

    def missing(self) -> tuple[str, ...]:
        """The required packages that are not installed."""
        return tuple(name for name in self.spec.requires if not _installed(name))

    def load(self):
        """Import the backend's class.

        Raises
        ------
        MissingDependencyError
            If a package that it requires is not installed.
        PluginError
            If its module does not import or lacks the class.
        """
        if missing := self.missing():
            raise MissingDependencyError(
                f"{self.spec.role} {self.spec.name!r} of {self.distribution} needs {', '.join(missing)}; "
                f"install with: pip install {' '.join(missing)}"
            )
        module, _, attribute = self.spec.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # see Registry._add_plugin
            raise PluginError(
                f"{self.spec.role} {self.spec.name!r} of distribution {self.distribution!r} cannot be imported from "
                f"{self.spec.target!r}: {type(error).__name__}: {error}"
            ) from error


@dataclass(frozen=True)
class Failure:
    """A plugin, or one backend of it, that cannot be used, and why."""

    distribution: str
    version: str
    reason: str
    error: BaseException | None = None
    role: str = ""
    name: str = ""


class Registry:
    """Every backend that is installed.

    Parameters
    ----------
    plugins : iterable of (str, str, callable), optional
        Distribution, version and a function that imports and returns the plugin's module. Default: the built-ins
        and every entry point of the group ``astrogan``.
    """

    def __init__(self, plugins=None):
        self.backends: list[Backend] = []
        self.failures: list[Failure] = []
        for distribution, version, load in _installed_plugins() if plugins is None else plugins:
            self._add_plugin(distribution, version, load)

    def _add_plugin(self, distribution, version, load):
        """Register what one plugin brings; whatever goes wrong stays with that plugin."""
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output may be a table that is read on
                specs = _specs_of(load(), distribution)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may call sys.exit(), too
            self._fail(Failure(distribution, version, f"{type(error).__name__}: {error}", error))
            return
        taken = set()
        for spec in specs:
            reason = _refusal(spec, taken)
            if reason is None:
                taken.add((spec.role, spec.name))
                self.backends.append(Backend(spec, distribution, version))
            else:
                role, name = getattr(spec, "role", ""), getattr(spec, "name", "")
                self._fail(Failure(distribution, version, reason, None, role, name))

    def _fail(self, failure):
        what = f"backend {failure.name!r} of plugin" if failure.name else "plugin"
        message = f"{what} {failure.distribution!r} is set aside: {failure.reason}"
        if os.environ.get("ASTROGAN_STRICT_PLUGINS", "") not in ("", "0"):
            raise PluginError(message) from failure.error
        warnings.warn(message, PluginWarning, stacklevel=2)
        self.failures.append(failure)

    def find(self, role, name) -> Backend:
        """The backend called ``name`` or ``"distribution:name"``.

        Raises
        ------
        BackendNotFoundError
            If there is none; the message lists what there is and the closest name.
        DuplicateBackendError
            If several distributions bring one of that name.
        PluginError
            If the plugin that should bring it is broken.
        """
        if not isinstance(name, str):
            raise InputError(f"backend={name!r} must be a name, 'distribution:name', or a backend instance")
        wanted, _, short = name.rpartition(":")
        wanted = _normalise(wanted)
        found = [
            b
            for b in self.backends
            if b.spec.role == role and b.spec.name == short and wanted in ("", _normalise(b.distribution))
        ]
        if len(found) == 1:
            return found[0]
        if found:
            names = " and ".join(b.qualified_name for b in found)
            raise DuplicateBackendError(
                f"{role} {short!r} is registered by {len(found)} distributions; write {names.replace(' and ', ' or ')}"
            )
        raise self._not_found(role, name, wanted, short)

    def _not_found(self, role, name, wanted, short):
        """The error that says why there is no such backend; chained to what broke its plugin, if that is why."""
        for failure in self.failures:
            named = failure.name == short and failure.role in ("", role)
            of_plugin = wanted and wanted == _normalise(failure.distribution)
            if named or of_plugin:
                error = PluginError(
                    f"{role} {name!r} cannot be used: plugin {failure.distribution!r} is set aside: {failure.reason}"
                )
                error.__cause__ = failure.error
                return error
        names = sorted({b.spec.name for b in self.backends if b.spec.role == role})
        close = difflib.get_close_matches(short, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        broken = sorted({f.distribution for f in self.failures})
        note = f" (plugins that could not be loaded: {', '.join(broken)})" if broken else ""
        return BackendNotFoundError(f"no {role} is called {name!r}{hint} Installed: {', '.join(names)}{note}")

    def table(self, role=None):
        """The backends as an `astropy.table.Table`; see `list_backends`."""
        from astropy.table import Table

        if role is not None and role not in ROLES:
            raise InputError(f"role={role!r} is unknown; use one of {', '.join(ROLES)} or None for all")
        rows = [self._row(b) for b in self.backends if role in (None, b.spec.role)]
        for failure in self.failures:
            if role in (None, failure.role) or not failure.role:
                status = "incompatible" if failure.name else "broken"
                rows.append(
                    (
                        failure.name,
                        failure.role,
                        failure.distribution,
                        failure.version,
                        status,
                        failure.reason,
                        "",
                    )
                )
        names = ("name", "role", "distribution", "version", "status", "reason", "summary")
        rows.sort(key=lambda row: (ROLES.index(row[1]) if row[1] in ROLES else len(ROLES), row[0], row[2]))
        columns = zip(*rows, strict=True) if rows else [()] * len(names)
        return Table([list(column) for column in columns], names=names, dtype=[str] * len(names))

    def _row(self, backend):
        spec = backend.spec
        same = [b for b in self.backends if (b.spec.role, b.spec.name) == (spec.role, spec.name)]
        status, reason = "ok", ""
        if len(same) > 1:
            status = "duplicate"
            reason = f"also in {', '.join(b.distribution for b in same if b is not backend)}: use 'distribution:name'"
        if missing := backend.missing():
            status, reason = "missing dependency", f"pip install {' '.join(missing)}"
        return spec.name, spec.role, backend.distribution, backend.version, status, reason, spec.summary


def _specs_of(module, distribution):
    """What a plugin module's hooks return, each hook on a plugin manager of its own so that none disturbs another."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=distribution)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{error}; the hooks are: {', '.join(_hook_names())}") from error
    implementations = manager.hook.astrogan_backends.get_hookimpls()
    if not implementations:
        raise PluginError(
            "its module implements no hook; define astrogan_backends() and decorate it with astrogan.api.hookimpl"
        )
    specs = implementations[0].function()
    if isinstance(specs, BackendSpec) or not hasattr(specs, "__iter__"):
        raise PluginError(f"astrogan_backends() returned {specs!r}; it must return a list of BackendSpec")
    return list(specs)


def _hook_names():
    return [name for name in vars(hookspecs) if name.startswith("astrogan_")]


def _refusal(spec, taken):
    """Why a spec cannot be registered, or `None`."""
    if not isinstance(spec, BackendSpec):
        return f"astrogan_backends() returned {spec!r}, which is no BackendSpec"
    if spec.api is True or spec.api != API_VERSION:
        return f"it is written for api={spec.api!r}; this astrogan has api={API_VERSION}: update one of the two"
    if (spec.role, spec.name) in taken:
        return f"it registers {spec.role} {spec.name!r} twice"
    return None


def _installed_plugins():
    """(distribution, version, loader) of the built-ins and of each installed plugin, in a stable order."""
    yield "astrogan", _version_of("astrogan"), lambda: importlib.import_module(BUILTIN[1])
    disabled = {_normalise(name) for name in os.environ.get("ASTROGAN_DISABLE_PLUGINS", "").split(",") if name.strip()}
    if disabled & {"1", "all"}:
        return
    seen = {BUILTIN}
    points = importlib.metadata.entry_points(group=GROUP)
    for point in sorted(points, key=lambda p: (p.dist.name if p.dist else "", p.name)):
        distribution = point.dist.name if point.dist else point.value
        # An editable install can be on the path twice.
        if (distribution, point.value) in seen or _normalise(distribution) in disabled:
            continue
        seen.add((distribution, point.value))
        yield distribution, point.dist.version if point.dist else "", point.load


def _version_of(distribution):
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        import astrogan

        return astrogan.__version__


def _normalise(name):
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _installed(package):
    try:
        # Of a.b only a is looked for: to find b, a would be imported, and a listing is to import nothing heavy.
        return importlib.util.find_spec(package.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


_registry: Registry | None = None
_lock = threading.Lock()


def get_registry() -> Registry:
    """The registry of this process, made on first use."""
    global _registry  # noqa: PLW0603 - one registry a process is the point
    with _lock:
        if _registry is None:
            _registry = Registry()
        return _registry


def reload_plugins() -> Registry:
    """Look for plugins anew, e.g. after installing one in a running session."""
    global _registry  # noqa: PLW0603
    importlib.invalidate_caches()
    with _lock:
        _registry = Registry()
        return _registry


def list_backends(role=None):
    """Every installed backend.

    Parameters
    ----------
    role : str, optional
        One of `astrogan.api.ROLES`. Default: all.

    Returns
    -------
    `astropy.table.Table`
        Columns name, role, distribution, version, status, reason, summary. A status other than ``"ok"`` comes with
        its reason: a missing package, a duplicate name, a broken plugin.

    Raises
    ------
    InputError
        If ``role`` is unknown.

    Examples
    --------
    >>> from astrogan import list_backends
    >>> table = list_backends("restorer")
    >>> "richardson-lucy" in table["name"]
    True
    """
    return get_registry().table(role)


def load_backend(role, backend, options=None):
    """An instance of a backend, with who brought it.

    Parameters
    ----------
    role : str
        One of `astrogan.api.ROLES`.
    backend : str or object
        A name, ``"distribution:name"``, or an instance.
    options : dict, optional
        Keyword arguments for the backend's class; none are accepted with an instance.

    Returns
    -------
    instance : object
    name : str
        ``"distribution:name"``, or the class's name for an instance.
    version : str
        The distribution's version; empty for an instance.

    Raises
    ------
    InputError
        If an option is unknown or refused, or options come with an instance.
    BackendNotFoundError, DuplicateBackendError, PluginError, MissingDependencyError
        If the backend cannot be had.
    """
    options = dict(options or {})
    if not isinstance(backend, str):
        if options:
            raise InputError(f"options {sorted(options)} must be None when backend is an instance; set them on it")
        _check_instance(role, backend, type(backend).__name__)
        return backend, type(backend).__name__, ""
    entry = get_registry().find(role, backend)
    instance = _construct(entry.load(), options, entry)
    _check_instance(role, instance, entry.qualified_name)
    return instance, entry.qualified_name, entry.version


def _construct(cls, options, entry):
    accepted = _accepted_options(cls)
    unknown = sorted(set(options) - set(accepted)) if accepted is not None else []
    if unknown:
        raise InputError(
            f"{entry.spec.role} {entry.spec.name!r} has no option {', '.join(map(repr, unknown))}; "
            f"it takes: {', '.join(accepted) or 'none'}"
        )
    try:
        return cls(**options)
    except AstroganError:
        raise
    except Exception as error:
        raise BackendError(
            f"{entry.spec.role} {entry.spec.name!r} of {entry.distribution} could not be set up with {options}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _accepted_options(cls):
    """Names of the keyword arguments of a class, or `None` where it takes any."""
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _check_instance(role, instance, name):
    method = _METHOD.get(role, "__call__")
    if isinstance(instance, type) or not callable(getattr(instance, method, None)):
        raise BackendError(f"{role} {name!r} is {instance!r}; it must be an instance with a method {method}")
    if role == "restorer" and not hasattr(instance, "halo") and not hasattr(instance, "halo_for"):
        raise BackendError(f"restorer {name!r} has no attribute halo; set it to the pixels of context it needs, or -1")
