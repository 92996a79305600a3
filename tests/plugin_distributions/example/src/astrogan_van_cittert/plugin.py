"""What astrogan imports when it lists backends: nothing heavy belongs here."""

from astrogan.api import BackendSpec, hookimpl

VAN_CITTERT = BackendSpec(
    role="restorer",
    name="van-cittert",
    target="astrogan_van_cittert.van_cittert:VanCittert",
    requires=("scipy",),
    summary="Van Cittert iteration: add back what the PSF took away",
    citation="van Cittert 1931, Z. Phys. 69, 298",
    api=1,
)


@hookimpl
def astrogan_backends():
    return [VAN_CITTERT]
