"""The hook lacks its last letter."""

from astrogan.api import BackendSpec, hookimpl


@hookimpl
def astrogan_backend():
    return [BackendSpec(role="restorer", name="misspelt", target="astrogan_misspelt:Nothing")]
