"""The conformance kit on astrogan's own backends, and on backends that break the contract in ways a kit must see."""

import numpy as np
import pytest

from astrogan.api import BackendSpec, Estimate, Separation, Template
from astrogan.backends.builtin import astrogan_backends
from astrogan.exceptions import BackendError
from astrogan.testing import check_backend, example_observation

# Cannot be made without weights that somebody trained; its own tests run the kit.
NEEDS_WEIGHTS = {"restorer-galaxygan2017"}
# Takes stamps of two sizes and five bands only, as published; its own tests hold it to the same.
FIXED_STAMPS = {"translator-lin2020"}
SPECS = {f"{spec.role}-{spec.name}": spec for spec in astrogan_backends()}
# The paper's recipe works at an absolute flux range (-0.1 to 4 nanomaggies): that is one of its documented flaws.


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SPECS if name not in NEEDS_WEIGHTS | FIXED_STAMPS])
@pytest.mark.filterwarnings("ignore::astrogan.exceptions.AstroganWarning")
def test_own_backends_keep_the_contract(name):
    report = check_backend(SPECS[name])
    assert not report.failed
    assert len(report.passed) >= 6


class Whole:
    """Says nothing of its halo."""

    def __call__(self, observation, *, rng):
        return Estimate(observation.data)


class Stateful:
    """Keeps its work on the instance."""

    halo = 0

    def __init__(self):
        self.calls = 0

    def __call__(self, observation, *, rng):
        self.calls += 1
        return Estimate(observation.data * np.float32(self.calls))


class Swallows:
    """Takes any option."""

    halo = 0

    def __init__(self, **anything):
        self.anything = anything

    def __call__(self, observation, *, rng):
        return Estimate(observation.data)


class Unpicklable:
    """Holds a function that was made on the spot."""

    halo = 0

    def __init__(self):
        self.function = lambda x: x

    def __call__(self, observation, *, rng):
        return Estimate(self.function(observation.data))


class Pedestal:
    """Adds light where there is none."""

    halo = 0

    def __call__(self, observation, *, rng):
        return Estimate(observation.data + np.float32(1))


class ReadsMasked:
    """Its mean includes invalid pixels."""

    halo = 0

    def __call__(self, observation, *, rng):
        return Estimate(observation.data - observation.data.mean())


class NegativeTemplates:
    """A deblender whose templates are the image itself, noise and all."""

    def __call__(self, observation, positions, *, rng):
        return Separation(tuple(Template((0, 0), observation.data, tuple(p)) for p in positions))


class TooFew(NegativeTemplates):
    """One template, whatever was asked for."""

    def __call__(self, observation, positions, *, rng):
        return Separation((Template((0, 0), np.abs(observation.data), tuple(positions[0])),))


class Jealous:
    """The source that is named first takes all."""

    def __call__(self, observation, positions, *, rng):
        light = np.abs(observation.data)
        return Separation(tuple(Template((0, 0), light * (i == 0), tuple(p)) for i, p in enumerate(positions)))


class Needy(Jealous):
    """Cannot do without a source."""

    def __call__(self, observation, positions, *, rng):
        positions[0]
        return super().__call__(observation, positions, rng=rng)


class Rooted(Jealous):
    """Works on blends, and looks at where in the image they are."""

    def detect(self, observation, positions):
        raise NotImplementedError

    def separate(self, blend, *, rng):
        raise NotImplementedError

    def __call__(self, observation, positions, *, rng):
        ramp = np.abs(observation.data) * np.arange(observation.shape[2])
        return Separation(tuple(Template((0, 0), ramp, tuple(p)) for p in positions))


class Overconfident:
    """A variance of the flux for each pixel."""

    def __call__(self, observation, positions, *, rng):
        light = np.abs(observation.data)
        return Separation(tuple(Template((0, 0), light, tuple(p), flux_variance=light) for p in positions))


@pytest.mark.parametrize(
    ("cls", "role", "check"),
    [
        (Whole, "restorer", "halo"),
        (Stateful, "restorer", "reusable_in_threads"),
        (Swallows, "restorer", "options_refused"),
        (Unpicklable, "restorer", "picklable"),
        (Pedestal, "restorer", "zero_image"),
        (ReadsMasked, "restorer", "masked_values_unread"),
        (NegativeTemplates, "deblender", "output_form"),
        (TooFew, "deblender", "output_form"),
        (Overconfident, "deblender", "output_form"),
        (Needy, "deblender", "no_positions"),
        (Jealous, "deblender", "order_of_positions"),
        (Rooted, "deblender", "translation"),
    ],
)
def test_each_fault_is_found_and_named(cls, role, check):
    spec = BackendSpec(role, "faulty", f"{__name__}:{cls.__name__}")
    import sys

    sys.modules.setdefault(__name__, sys.modules[cls.__module__])
    report = check_backend(spec, raise_on_failure=False)
    assert check in report.failed
    with pytest.raises(BackendError, match=check):
        check_backend(spec)
    assert check in str(report)


def test_checks_can_be_left_out_by_name_only():
    spec = SPECS["restorer-identity"]
    assert check_backend(spec, skip=["scaling"]).skipped["scaling"] == "asked for"
    with pytest.raises(BackendError, match="scalling"):
        check_backend(spec, skip=["scalling"])
    with pytest.raises(BackendError, match="BackendSpec"):
        check_backend("identity")


def test_example_observation_is_hard_enough():
    observation = example_observation()
    assert (~observation.valid).any()
    assert (observation.data < 0).mean() > 0.2
    np.testing.assert_array_equal(example_observation(seed=3).data, example_observation(seed=3).data)
