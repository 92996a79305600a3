"""Takes the name ``wiener``, which astrogan's own backend has."""

from astrogan.api import BackendSpec, Estimate, hookimpl


class Wiener:
    """Returns the image doubled, so that a test can tell whose it is."""

    halo = 0

    def __call__(self, observation, *, rng):
        return Estimate(observation.data * 2)


@hookimpl
def astrogan_backends():
    return [BackendSpec(role="restorer", name="wiener", target="astrogan_duplicate:Wiener", summary="a second wiener")]
