"""The hooks that a plugin can implement."""

from __future__ import annotations

import pluggy

hookspec = pluggy.HookspecMarker("astrogan")


@hookspec
def astrogan_backends():
    """Return the backends that this plugin brings.

    Returns
    -------
    list of `astrogan.api.BackendSpec`
        Light descriptions; nothing heavy is imported until a backend is used.
    """
