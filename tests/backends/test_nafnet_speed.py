"""Options of the learned restorer that buy speed: what they may cost, and where they are refused."""

import numpy as np
import pytest
import torch

from astrogan.api import Observation
from astrogan.backends.gan import _device
from astrogan.backends.gan.nafnet import NAFNet
from astrogan.exceptions import InputError, MissingDependencyError
from astrogan.image.psf import gaussian_psf
from astrogan.image.tiling import run_tiled


def scene(shape=(1, 150, 190), seed=0):
    rng = np.random.default_rng(seed)
    data = rng.normal(0, 1, shape)
    y, x = np.mgrid[: shape[1], : shape[2]]
    for _ in range(12):
        place, peak = rng.uniform(0, 1, 2) * shape[1:], 10 ** rng.uniform(0.5, 2.5)
        data += peak * np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 6)
    return Observation(data, variance=np.ones(shape), psf=np.asarray(gaussian_psf(3.0))[None])


@pytest.fixture(scope="module")
def exact():
    return NAFNet("nafnet-linear")(scene())


def test_bfloat16_is_close_in_units_of_the_error(exact):
    rounded = NAFNet("nafnet-linear", precision="bfloat16")(scene())
    sigma = np.sqrt(exact.variance)
    assert 0 < np.median(np.abs(rounded.data - exact.data) / sigma) < 0.05
    assert np.sqrt(np.mean((rounded.data - exact.data) ** 2)) < 0.01 * np.sqrt(np.mean(exact.data**2))
    np.testing.assert_allclose(rounded.variance, exact.variance, rtol=0.5)


def test_bfloat16_is_linear_in_the_unit_of_flux():
    """A power of two changes no digit anywhere."""
    backend, observation = NAFNet("nafnet-linear", precision="bfloat16"), scene((1, 64, 80))
    one = backend(observation)
    other = backend(observation.replace(data=observation.data * 1024, variance=observation.variance * 1024**2))
    np.testing.assert_allclose(other.data / 1024, one.data, rtol=0, atol=1e-4 * np.abs(one.data).max())


def test_tiles_do_not_show_in_bfloat16():
    backend, observation = NAFNet("nafnet-linear", precision="bfloat16"), scene((1, 420, 300))
    whole = backend(observation)
    tiled = run_tiled(backend, observation, rng=np.random.default_rng(0), tile=320, workers=1)
    # A last bit that differs in float32 may be a whole one of bfloat16: small against the error all the same.
    off = np.abs(tiled.data - whole.data) / np.sqrt(whole.variance)
    assert off.max() < 0.3
    assert np.sqrt(np.mean(off**2)) < 0.01


@pytest.mark.parametrize(
    ("flags", "kind"),
    [({"amx_bf16", "avx2"}, "bfloat16"), ({"avx512_bf16"}, "bfloat16"), ({"avx2", "avx512f"}, "float32")],
)
def test_auto_takes_what_the_processor_is_made_for(monkeypatch, exact, flags, kind):
    monkeypatch.setattr(_device, "processor_flags", lambda: frozenset(flags))
    result = NAFNet("nafnet-linear", precision="auto", device="cpu")(scene())
    expected = exact if kind == "float32" else NAFNet("nafnet-linear", precision="bfloat16")(scene())
    np.testing.assert_array_equal(result.data, expected.data)


def test_processor_flags_are_words():
    assert all(flag and not flag.isspace() and ":" not in flag for flag in _device.processor_flags())


@pytest.mark.parametrize("options", [{"precision": "float16"}, {"compile": 1}, {"compile": "yes"}])
def test_wrong_options(options):
    with pytest.raises(InputError, match=next(iter(options))):
        NAFNet(**options)


def test_a_compiler_that_is_missing_is_named(monkeypatch):
    def no_compiler(network, **_):
        def run(*_):
            raise RuntimeError("No working C++ compiler found\nand much more")

        return run

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(MissingDependencyError, match=r"compile=True cannot be had here .*No working C\+\+ compiler"):
        NAFNet("nafnet-linear", compile=True)(scene((1, 32, 32)))


def test_compiled_is_used_where_it_is_asked_for(monkeypatch, exact):
    calls = []

    def counted(network, **options):
        calls.append(options)
        return lambda *inputs: (calls.append(None), network(*inputs))[1]

    monkeypatch.setattr(torch, "compile", counted)
    result = NAFNet("nafnet-linear", compile=True)(scene())
    assert calls == [{"dynamic": True}, None, None]  # tried once, used once
    np.testing.assert_array_equal(result.data, exact.data)
