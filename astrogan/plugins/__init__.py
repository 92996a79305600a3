"""Finding, listing and loading backends.

Plugins register through the entry-point group ``astrogan`` (see `astrogan.api`). Each one is loaded on its own: one
that fails is set aside with a `~astrogan.exceptions.PluginWarning` and raises only when one of its backends is asked
for. Two environment variables steer this:

``ASTROGAN_DISABLE_PLUGINS``
    ``1`` or ``all`` ignores every third-party plugin; otherwise a comma-separated list of distributions to ignore.
``ASTROGAN_STRICT_PLUGINS``
    ``1`` turns a broken plugin into an error at once.
"""

from astrogan.plugins.registry import (
    Backend,
    Registry,
    get_registry,
    list_backends,
    load_backend,
    reload_plugins,
)

__all__ = ["Backend", "Registry", "get_registry", "list_backends", "load_backend", "reload_plugins"]
