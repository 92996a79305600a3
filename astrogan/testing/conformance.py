"""`check_backend`: does a backend keep the contract of `astrogan.api`?

Each check is a function of an instance of the backend that raises `AssertionError` with a sentence saying what was
expected, what was seen, and why it matters. A plugin's test suite needs one line::

    def test_contract():
        check_backend(my_plugin.SPEC)
"""

from __future__ import annotations

import importlib
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from astrogan.api import BackendSpec, Estimate, Observation, Separation, Target, sample_noise
from astrogan.exceptions import AstroganError, BackendError, ImageTooSmallError
from astrogan.testing._deblending import assert_separation, difference, frames, overlapping_pair

__all__ = ["CheckReport", "check_backend", "example_observation"]


@dataclass(frozen=True)
class CheckReport:
    """What `check_backend` found.

    Attributes
    ----------
    name : str
        The backend.
    passed : tuple of str
        Names of the checks that hold.
    failed : dict
        Message by name of check.
    skipped : dict
        Reason by name of check.
    """

    name: str
    passed: tuple[str, ...]
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def __str__(self):
        lines = [f"{self.name}: {len(self.passed)} checks hold, {len(self.failed)} fail, {len(self.skipped)} skipped"]
        lines += [f"  FAIL {name}: {message}" for name, message in self.failed.items()]
        lines += [f"  skip {name}: {message}" for name, message in self.skipped.items()]
        return "\n".join(lines)


def example_observation(shape=(2, 33, 40), *, seed=0, masked=True):
    """A small simulated observation to try a backend on.

    Parameters
    ----------
    shape : tuple of int
        (band, y, x).
    seed : int
        For its noise and sources.
    masked : bool
        Whether a few pixels are invalid.

    Returns
    -------
    `~astrogan.api.Observation`
        With variance and PSF (Gaussian, sigma 1.3 pixels, 9 x 9), sky-subtracted: about half its pixels are negative.

    Examples
    --------
    >>> from astrogan.testing import example_observation
    >>> example_observation().shape
    (2, 33, 40)
    """
    rng = np.random.default_rng(seed)
    bands, height, width = shape
    y, x = np.mgrid[:height, :width]
    scene = np.zeros((height, width))
    for _ in range(4):
        cx, cy = rng.uniform(0, width - 1), rng.uniform(0, height - 1)
        scene += rng.uniform(20, 100) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * rng.uniform(1.5, 3) ** 2))
    colour = np.linspace(1, 0.5, bands)[:, None, None]
    data = colour * scene + rng.normal(size=shape)
    valid = np.ones(shape, bool)
    if masked:
        valid[:, height // 3, width // 2 :] = False
        valid[0, -1, 0] = False
        data[~valid] = 0
    axis = np.arange(9) - 4
    line = np.exp(-(axis**2) / (2 * 1.3**2))
    kernel = np.outer(line, line) / line.sum() ** 2
    return Observation(data, valid, np.ones(shape), np.repeat(kernel[np.newaxis], bands, axis=0), pixel_scale=0.2)


def check_backend(backend, *, options=None, skip=(), raise_on_failure=True):
    """Check a backend against the contract of `astrogan.api`.

    Parameters
    ----------
    backend : `~astrogan.api.BackendSpec`
        As the plugin's hook returns it.
    options : dict, optional
        Keyword arguments for the backend's class.
    skip : iterable of str, optional
        Checks to leave out, e.g. ``"scaling"`` for a model that is honest about its absolute flux range.
    raise_on_failure : bool
        Whether a failure raises.

    Returns
    -------
    `CheckReport`

    Raises
    ------
    BackendError
        If a check fails and ``raise_on_failure``; the message lists all that fail.

    Examples
    --------
    >>> from astrogan.backends.builtin import astrogan_backends
    >>> from astrogan.testing import check_backend
    >>> spec = next(s for s in astrogan_backends() if s.name == "identity")
    >>> check_backend(spec).failed
    {}
    """
    if not isinstance(backend, BackendSpec):
        raise BackendError(f"backend={backend!r} must be a BackendSpec, as astrogan_backends() returns them")
    checks = {name: check for name, check in _CHECKS.items() if backend.role in check.roles}
    unknown = sorted(set(skip) - set(checks))
    if unknown:
        raise BackendError(f"skip={unknown} names no check of a {backend.role}; there are: {', '.join(checks)}")
    passed, failed, skipped = [], {}, dict.fromkeys(skip, "asked for")
    subject = _Subject(backend, dict(options or {}))
    for name, check in checks.items():
        if name in skipped:
            continue
        try:
            reason = check(subject)
        except AssertionError as error:
            failed[name] = str(error)
        except Exception as error:
            failed[name] = f"raised {type(error).__name__}: {error}"
        else:
            if reason:
                skipped[name] = reason
            else:
                passed.append(name)
    report = CheckReport(f"{backend.role} {backend.name!r}", tuple(passed), failed, skipped)
    if failed and raise_on_failure:
        raise BackendError(str(report))
    return report


class _Subject:
    """A backend under test: makes instances and calls them as the operators would."""

    def __init__(self, spec, options):
        self.spec = spec
        self.options = options

    def example(self, shape=(2, 33, 40), **options):
        """The example, with as many bands as the backend takes where it takes no other number."""
        return example_observation((getattr(self.make(), "bands", shape[0]), *shape[1:]), **options)

    def make(self):
        module, _, name = self.spec.target.partition(":")
        return getattr(importlib.import_module(module), name)(**self.options)

    def run(self, observation, instance=None, seed=0):
        """The output's arrays, in order, whatever the role."""
        instance = self.make() if instance is None else instance
        rng = np.random.default_rng(seed)
        result = self.call(instance, observation, rng)
        if isinstance(result, Separation):
            return [template.data for template in result.templates]
        return [np.asarray(result.data if isinstance(result, Estimate) else result)]

    def call(self, instance, observation, rng):
        if self.spec.role == "noise":
            return sample_noise(instance, observation.shape, sigma=2.0, rng=rng)
        if self.spec.role == "translator":
            return instance(observation, _target(observation), rng=rng)
        if self.spec.role == "deblender":
            return instance(observation, _positions(observation), rng=rng)
        return instance(observation, rng=rng)


def _positions(observation):
    height, width = observation.shape[1:]
    return np.array([[width * 0.3, height * 0.4], [width * 0.7, height * 0.6]])


def _target(observation):
    """Twice the pixel size, half the pixels, the same PSF on the sky."""
    height, width = observation.shape[1] // 2, observation.shape[2] // 2
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    return Target(
        shape=(height, width),
        to_input=lambda x, y: (2 * np.asarray(x) + 0.5, 2 * np.asarray(y) + 0.5),
        to_output=lambda x, y: ((np.asarray(x) - 0.5) / 2, (np.asarray(y) - 0.5) / 2),
        area_ratio=4.0,
        pixel_scale=2 * observation.pixel_scale,
        psf=np.repeat(kernel[np.newaxis], observation.shape[0], axis=0),
    )


_CHECKS = {}


def _check(*roles):
    """Register a check for some roles (all, if none is named)."""

    def register(function):
        function.roles = roles or ("restorer", "degrader", "deblender", "translator", "noise")
        _CHECKS[function.__name__.removeprefix("_")] = function
        return function

    return register


@_check()
def _light_spec(subject):
    """The target can be imported, and its options are keywords."""
    assert callable(getattr(subject.make(), "sample" if subject.spec.role == "noise" else "__call__", None)), (
        "the class needs the method of its role: sample for noise, __call__ for all others"
    )


@_check("restorer")
def _halo(subject):
    """``halo`` is an integer from -1."""
    instance = subject.make()
    assert hasattr(instance, "halo") or hasattr(instance, "halo_for"), (
        "a restorer needs an attribute halo: the pixels of context an output pixel depends on, or -1 for the image"
    )
    halo = instance.halo_for(subject.example()) if hasattr(instance, "halo_for") else instance.halo
    assert isinstance(halo, int | np.integer), f"halo is {halo!r}; it must be an integer"
    assert halo >= -1, f"halo is {halo}; it must be -1 or more"


@_check()
def _output_form(subject):
    """Shape, dtype and finiteness of what comes back."""
    instance = subject.make()
    observation = subject.example()
    result = subject.call(instance, observation, np.random.default_rng(0))
    role = subject.spec.role
    if role == "noise":
        assert np.shape(result) == observation.shape, f"sample has shape {np.shape(result)}; asked {observation.shape}"
        assert np.isfinite(result).all(), "sample is not finite"
        return
    if role == "deblender":
        assert_separation(result, observation, len(_positions(observation)))
        return
    assert isinstance(result, Estimate), f"returned {type(result).__name__}; it must be an Estimate"
    shape = observation.shape
    if role == "translator":
        shape = (shape[0], *_target(observation).shape)
    if role == "degrader":
        rebin = int(getattr(instance, "rebin", 1))
        shape = (shape[0], shape[1] // rebin, shape[2] // rebin)
    for name in ("data", "variance", "flags"):
        array = getattr(result, name)
        if array is None and name != "data":
            continue
        assert np.shape(array) == shape, f"{name} has shape {np.shape(array)}; expected {shape}"
        assert name == "flags" or np.isfinite(array).all(), f"{name} is not all finite"
    assert np.asarray(result.data).dtype.kind == "f", f"data has dtype {result.data.dtype}; it must be floating"
    assert result.variance is None or (np.asarray(result.variance) >= 0).all(), "variance is negative somewhere"


@_check("noise")
def _levels(subject):
    """``sigma`` is a number, one a band, or a map; a signal adds variance where there is a slope."""
    instance, shape = subject.make(), (2, 64, 64)
    signal = np.full(shape, 3.0, np.float32)
    forms = 2.0, np.array([1.0, 4.0]), np.linspace(1, 3, 64) * np.ones(shape)
    for sigma, light in ((s, x) for s in forms for x in (None, signal)):
        wanted = np.broadcast_to(sigma[:, None, None] if np.shape(sigma) == (2,) else sigma, shape) ** 2
        slope = getattr(instance, "signal_slope", None)
        if light is not None and slope is not None:
            wanted = wanted + np.broadcast_to(slope, (2,))[:, None, None] * light
        drawn = sample_noise(instance, shape, sigma=sigma, signal=light, rng=np.random.default_rng(0))
        ratio = np.sqrt((drawn**2 / wanted).mean(axis=(1, 2)))
        # Noise correlated over several pixels has few independent ones in 64 x 64.
        assert (np.abs(ratio - 1) < 0.3).all(), (
            f"the standard deviation is {ratio.round(2).tolist()} of what sigma and signal ask for"
        )


@_check("deblender")
def _no_positions(subject):
    """No positions, no templates."""
    observation = subject.example()
    result = subject.make()(observation, np.empty((0, 2)), rng=np.random.default_rng(0))
    assert isinstance(result, Separation), f"returned {type(result).__name__}; it must be a Separation"
    assert len(result.templates) == 0, f"{len(result.templates)} templates for no position"


@_check("deblender")
def _order_of_positions(subject):
    """The order of the positions is no information."""
    observation, positions = overlapping_pair(subject.example((1, 48, 56), masked=False))
    instance = subject.make()
    straight, turned = (
        frames(instance(observation, p, rng=np.random.default_rng(0)), observation)
        for p in (positions, positions[::-1])
    )
    worst = difference(straight, turned[::-1])
    assert worst < 1e-3, (
        f"with the positions in another order the templates differ by {worst:.2g} of the peak: sort the sources by "
        "place before anything that depends on their order"
    )


@_check("deblender")
def _translation(subject):
    """A blend that moves by whole pixels takes its templates along."""
    instance = subject.make()
    if not (hasattr(instance, "detect") and hasattr(instance, "separate")):
        return "it has no detect and separate, and may depend on the whole image"
    observation, positions = overlapping_pair(subject.example((1, 48, 56), masked=False))
    shift = (3, -2)
    moved = observation.replace(data=np.roll(observation.data, shift, axis=(1, 2)))
    here = frames(instance(observation, positions, rng=np.random.default_rng(0)), observation)
    there = frames(instance(moved, positions + shift[::-1], rng=np.random.default_rng(0)), moved)
    worst = difference(np.roll(here, shift, axis=(2, 3)), there)
    assert worst < 1e-2, f"a blend that moves by {shift} pixels has templates that differ by {worst:.2g} of the peak"
    return None


@_check()
def _input_unchanged(subject):
    """The observation is shared between backends: nobody writes to it."""
    observation = subject.example()
    copies = [np.array(a) for a in (observation.data, observation.valid, observation.variance, observation.psf)]
    subject.run(observation)
    now = (observation.data, observation.valid, observation.variance, observation.psf)
    assert all(np.array_equal(a, b) for a, b in zip(copies, now, strict=True)), "the observation was changed"
    assert not observation.data.flags.writeable, "the observation was made writeable"


@_check()
def _deterministic(subject):
    """The same seed gives the same bits, and the global generators are left alone."""
    observation = subject.example()
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the legacy generator is what must stay untouched
    first, second = subject.run(observation, seed=7), subject.run(observation, seed=7)
    assert len(first) == len(second), "two runs with one seed differ"
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True)), "two runs with one seed differ"
    assert np.array_equal(state, np.random.get_state()[1]), "numpy's global generator was used"  # noqa: NPY002


@_check()
def _reusable_in_threads(subject):
    """One instance, eight threads: as one after the other."""
    instance = subject.make()
    observations = [subject.example(seed=seed) for seed in range(8)]
    serial = [subject.run(o, instance) for o in observations]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda o: subject.run(o, instance), observations))
    for one, other in zip(serial, threaded, strict=True):
        same = len(one) == len(other) and all(
            np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(one, other, strict=True)
        )
        assert same, "calls from several threads differ from serial ones: keep state out of the instance"


@_check("restorer")
def _masked_values_unread(subject):
    """What lies under an invalid pixel changes no valid one (the filling may)."""
    instance = subject.make()
    halo = instance.halo_for(subject.example()) if hasattr(instance, "halo_for") else instance.halo
    one, other = subject.example(), subject.example()
    data = np.array(other.data)
    data[~other.valid] = 50.0
    other = other.replace(data=data)
    a, b = subject.run(one, instance)[0], subject.run(other, instance)[0]
    reach = max(one.shape) if halo < 0 else halo
    far = _further_than(one.valid, reach)
    if far.any():
        assert np.allclose(a[far], b[far], rtol=1e-4, atol=1e-4), (
            f"pixels further than the halo ({halo}) from an invalid one depend on the filling there"
        )
        return None
    return "the halo covers the example"


def _further_than(valid, reach):
    """Where no invalid pixel lies within ``reach`` pixels along either axis."""
    out = np.ones_like(valid)
    for band, y, x in np.argwhere(~valid):
        out[band, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = False
    return out


@_check("restorer", "deblender", "translator")
def _scaling(subject):
    """f(s x) = s f(x): a unit is not information."""
    observation = subject.example(masked=False)
    reference = subject.run(observation)
    for factor in (1e-3, 1e4):
        scaled = observation.replace(data=observation.data * factor, variance=observation.variance * factor**2)
        result = subject.run(scaled)
        assert len(result) == len(reference), f"multiplying the flux by {factor} changes the number of outputs"
        for a, b in zip(reference, result, strict=True):
            peak = np.abs(a).max() or 1.0
            worst = np.abs(a - b / factor).max() / peak
            assert worst < 1e-3, f"multiplying the flux by {factor} changes the result by {worst:.2g} of its peak"


@_check("restorer", "translator")
def _zero_image(subject):
    """An empty sky stays empty."""
    observation = subject.example(masked=False)
    zero = observation.replace(data=np.zeros_like(observation.data))
    out = subject.run(zero)[0]
    assert np.abs(out).max() < 1e-4, f"an image of zeros becomes one with values up to {np.abs(out).max():.3g}"


@_check("restorer")
def _sizes(subject):
    """Odd and tiny images work, or are refused with `ImageTooSmallError` naming the minimum."""
    instance = subject.make()
    smallest = int(getattr(instance, "min_size", 1))
    for height, width in ((33, 47), (21, 22), (9, 64), (5, 5), (1, 1)):
        observation = subject.example((1, height, width), masked=False)
        if min(height, width) < smallest:
            continue
        try:
            out = subject.run(observation, instance)[0]
        except ImageTooSmallError as error:
            if not re.search(r"\d", str(error)):
                raise AssertionError(f"ImageTooSmallError {error} does not name the minimum") from error
            continue
        assert out.shape == observation.shape, f"{observation.shape} became {out.shape}"
        assert np.isfinite(out).all(), f"an image of {height} x {width} gives values that are not finite"


@_check("restorer")
def _tiles(subject):
    """Tiled equals untiled where the halo is finite."""
    from astrogan.image.tiling import run_tiled

    instance = subject.make()
    observation = subject.example((1, 150, 170), masked=True)
    halo = instance.halo_for(observation) if hasattr(instance, "halo_for") else instance.halo
    if halo < 0 or halo > 45:
        return f"halo is {halo}"
    whole = instance(observation, rng=np.random.default_rng(0)).data
    tiled = run_tiled(instance, observation, rng=np.random.default_rng(0), tile=2 * halo + 40, workers=1).data
    worst = np.abs(whole - tiled).max() / np.abs(whole).max()
    assert worst < 2e-3, f"tiles differ from the whole image by {worst:.2g} of the peak: the halo ({halo}) is too small"
    return None


@_check()
def _picklable(subject):
    """Worker processes get their backend by pickle."""
    pickle.loads(pickle.dumps(subject.make()))  # noqa: S301 - our own bytes


@_check()
def _options_refused(subject):
    """An unknown option raises."""
    try:
        type(subject.make())(**subject.options, no_such_option_of_anything=1)
    except (TypeError, AstroganError):
        return
    raise AssertionError("the class swallows unknown options; a misspelt one would go unnoticed")
