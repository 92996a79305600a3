"""Written for a version of the contract that does not exist yet, beside a backend that is fine."""

from astrogan.api import BackendSpec, Estimate, hookimpl


class Fine:
    """Returns the image as it is."""

    halo = 0

    def __call__(self, observation, *, rng):
        return Estimate(observation.data)


@hookimpl
def astrogan_backends():
    return [
        BackendSpec(role="restorer", name="from-the-future", target="astrogan_wrong_api:Fine", api=99),
        BackendSpec(role="restorer", name="of-the-present", target="astrogan_wrong_api:Fine"),
    ]
