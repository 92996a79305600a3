"""GalaxyGAN as a backend: each step of the recipe, its randomness, and what it refuses."""

import pickle

import numpy as np
import pytest
import torch
from astropy.nddata import CCDData

from astrogan import Restorer
from astrogan.api import BackendSpec, Observation
from astrogan.backends._jpeg import through_jpeg
from astrogan.backends.gan.galaxygan2017 import GalaxyGAN2017
from astrogan.exceptions import CheckpointError, InputError
from astrogan.image.stretch import GalaxyGAN2017Stretch
from astrogan.nn.pix2pix import UNet256, resize
from astrogan.testing import check_backend, conformance
from astrogan.weights import save_weights


def card(net, **changes):
    return {"backend": "galaxygan2017", "role": "restorer", "architecture": net.architecture, "bands": 3} | changes


@pytest.fixture(scope="module")
def net():
    return UNet256(width=2, seed=4)


@pytest.fixture(scope="module")
def weights(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny-gan.safetensors"
    save_weights(path, net.state_dict(), card(net))
    return path


def image(shape=(3, 256, 256), seed=0):
    """Smooth flux within the clip, in nanomaggies."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((shape[0], 12, 12), generator=generator, dtype=torch.float64)
    return resize(coarse, shape[1:]).numpy().astype(np.float32)


def restore(backend, data, seed=0, **fields):
    return backend(Observation(data, **fields), rng=np.random.default_rng(seed))


class Unchanged(torch.nn.Module):
    """In place of the network: gives back what it gets, and remembers it."""

    def __init__(self):
        super().__init__()
        self.anything = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, images, *, stochastic, generator):
        self.seen.append((images, stochastic, generator))
        return images


def through(unchanged, **options):
    backend = GalaxyGAN2017("none.safetensors", **options)
    backend._loaded = unchanged, {"weights": "none", "sha256": ""}
    return backend


def test_all_but_the_network_gives_back_the_clipped_flux():
    data = image() * 6 - 0.5
    result = restore(through(Unchanged()), data)
    np.testing.assert_allclose(result.data, np.clip(data, -0.1, 4), atol=2e-5)
    np.testing.assert_array_equal(result.flags, data > 4)
    assert result.flags.any()
    assert result.info["clipped"] == pytest.approx(((data > 4) | (data < -0.1)).mean())
    assert result.variance is None


def test_network_sees_the_recipes_numbers():
    for nanomaggy in (1.0, 250.0):
        unchanged = Unchanged()
        data = image((3, 424, 424))
        result = restore(through(unchanged, nanomaggy=nanomaggy), data * nanomaggy)
        seen, stochastic, generator = unchanged.seen[0]
        y = np.arcsinh(10 * (data.astype(float) + 0.1) / 4.1) / 3
        expected = resize(torch.from_numpy(2 * y - 1), 256).numpy()
        np.testing.assert_allclose(seen[0].numpy(), expected, atol=2e-6)
        assert seen.dtype == torch.float32
        assert stochastic is True
        assert isinstance(generator, torch.Generator)
        # smooth: there and back over 256 pixels changes little
        np.testing.assert_allclose(result.data / nanomaggy, data, atol=0.03)


def test_jpeg_is_asked_for():
    data = image()
    plain, jpeg, coarse = (Unchanged() for _ in range(3))
    restore(through(plain), data)
    restore(through(jpeg, jpeg=True), data)
    restore(through(coarse, jpeg=True, quality=5), data)
    y = GalaxyGAN2017Stretch().forward(data)
    np.testing.assert_allclose((jpeg.seen[0][0][0] + 1) / 2, through_jpeg(y, 75), atol=1e-6)
    difference = [float((unchanged.seen[0][0] - plain.seen[0][0]).abs().mean()) for unchanged in (jpeg, coarse)]
    assert 1e-4 < difference[0] < difference[1]


def test_result_is_the_networks(net, weights):
    data = image((3, 200, 300))
    rng = np.random.default_rng(3)
    result = restore(GalaxyGAN2017(weights), data, seed=3)
    masks = torch.Generator().manual_seed(int(rng.integers(2**63)))
    seen = resize(torch.from_numpy(GalaxyGAN2017Stretch().forward(data)), 256)
    with torch.no_grad():
        answer = (net.eval()(2 * seen[None] - 1, stochastic=True, generator=masks)[0] + 1) / 2
    expected = GalaxyGAN2017Stretch().inverse(resize(answer, (200, 300)).numpy())
    np.testing.assert_allclose(result.data, expected, rtol=1e-5, atol=1e-6)
    assert result.data.dtype == np.float32
    assert result.info["weights"] == "tiny-gan"
    assert len(result.info["sha256"]) == 12


def test_passes_differ_by_their_seed_alone(weights):
    data = image()
    state = torch.get_rng_state(), torch.get_num_threads()
    backend = GalaxyGAN2017(weights)
    one, again, other = (restore(backend, data, seed).data for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-4
    still = GalaxyGAN2017(weights, stochastic=False)
    np.testing.assert_array_equal(restore(still, data, 1).data, restore(still, data, 2).data)
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == torch.get_num_threads()


def test_weights_are_read_once_and_late(weights, monkeypatch):
    import astrogan.weights

    read = []
    load = astrogan.weights.load_weights
    monkeypatch.setattr(astrogan.weights, "load_weights", lambda name: read.append(name) or load(name))
    backend = GalaxyGAN2017(weights)
    assert not read
    first = restore(backend, image())
    restore(backend, image())
    assert read == [str(weights)]
    copy = pickle.loads(pickle.dumps(backend))
    assert copy._loaded is None
    np.testing.assert_array_equal(restore(copy, image()).data, first.data)


def test_contract(weights, monkeypatch):
    """The kit's examples with three bands. It is honest about its flux range, and no sky stays as it was."""
    example = conformance.example_observation
    monkeypatch.setattr(
        conformance, "example_observation", lambda shape=(3, 33, 40), **options: example((3, *shape[1:]), **options)
    )
    spec = BackendSpec("restorer", "galaxygan2017", "astrogan.backends.gan.galaxygan2017:GalaxyGAN2017")
    report = check_backend(spec, options={"weights": weights}, skip=("scaling", "zero_image"))
    assert not report.failed
    assert "deterministic" in report.passed


def test_through_the_operator(weights):
    data = image((3, 64, 80))
    ccd = CCDData(data, unit="adu")
    result = Restorer(GalaxyGAN2017(weights, nanomaggy=2.0))(ccd, rng=5)
    assert result.unit == "adu"
    np.testing.assert_array_equal(result.data, restore(GalaxyGAN2017(weights, nanomaggy=2.0), data, 5).data)
    assert result.uncertainty is None


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_three_bands_only(weights, bands):
    with pytest.raises(InputError, match=rf"{bands} bands.*three bands, or use the backend nafnet"):
        restore(GalaxyGAN2017(weights), image((bands, 32, 32)))


def test_weights_must_be_named_and_the_message_says_how():
    with pytest.raises(InputError, match=r"weights=None.*astrogan train galaxygan2017 --data .* --out RUN"):
        GalaxyGAN2017()
    with pytest.raises(InputError, match="no-such"):
        restore(GalaxyGAN2017("no-such-weights"), image())


@pytest.mark.parametrize(
    "options",
    [
        {"size": 128},
        {"size": 300},
        {"size": True},
        {"quality": 96},
        {"quality": 0},
        {"nanomaggy": 0},
        {"nanomaggy": np.nan},
        {"nanomaggy": True},
        {"stochastic": "yes"},
        {"jpeg": 1},
        {"device": 3},
        {"weights": 3},
    ],
)
def test_bad_options_are_named(options):
    with pytest.raises(InputError, match=f"{next(iter(options))}="):
        GalaxyGAN2017(**{"weights": "w"} | options)


@pytest.mark.parametrize("device", ["quantum", "cuda:99"])
def test_devices_that_are_not_there(weights, device):
    if torch.cuda.is_available() and device.startswith("cuda"):
        pytest.skip("there is a CUDA device")
    with pytest.raises(InputError, match=f"device='{device}'"):
        restore(GalaxyGAN2017(weights, device=device), image())


def test_weights_of_another_kind_are_refused(net, tmp_path):
    def saved(name, tensors, **changes):
        save_weights(tmp_path / f"{name}.safetensors", tensors, card(net, **changes))
        return GalaxyGAN2017(tmp_path / f"{name}.safetensors")

    with pytest.raises(InputError, match="are for the backend 'nafnet'"):
        restore(saved("other", net.state_dict(), backend="nafnet"), image())
    with pytest.raises(CheckpointError, match="do not fit the card's architecture"):
        restore(saved("wide", net.state_dict(), architecture=net.architecture | {"width": 3}), image())
    with pytest.raises(CheckpointError, match="do not fit the card's architecture"):
        restore(saved("odd", net.state_dict(), architecture={"depth": 3}), image())
    two = UNet256(in_bands=2, out_bands=3, width=1)
    with pytest.raises(InputError, match="take 2 bands to 3"):
        restore(saved("two", two.state_dict(), architecture=two.architecture), image())
