"""What astrogan imports when it lists backends: neither torch nor deepinv."""

from astrogan.api import BackendSpec, hookimpl

SPEC = BackendSpec(
    role="restorer",
    name="deepinv-denoiser",
    target="astrogan_deepinv.denoiser:DeepinvDenoiser",
    requires=("deepinv", "torch"),
    api=1,
    summary="any denoiser of deepinv, in units of the noise; it does not deconvolve",
    citation="Tachella et al. 2025, arXiv:2505.20160",
)


@hookimpl
def astrogan_backends():
    """The backends of this plugin."""
    return [SPEC]
