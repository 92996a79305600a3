"""The learned deblenders as backends; the weights are noise, so that nothing holds by luck of a good network."""

import pickle

import numpy as np
import pytest
import torch

from astrogan import Deblender
from astrogan.api import BackendSpec, Observation
from astrogan.backends.gan import ratio_net
from astrogan.backends.gan.ratio_net import Hybrid, RatioNet
from astrogan.exceptions import CheckpointError, InputError
from astrogan.image.psf import gaussian_psf
from astrogan.nn.ratio_net import RatioUNet
from astrogan.testing import check_backend
from astrogan.weights import save_weights

CALIBRATION = {"scale": 2.0, "scale95": 4.0, "coverage68": 0.68, "coverage95": 0.95}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(3)
    net = RatioUNet(stem=8, widths=(8, 12), blocks=(1, 1, 1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    card = {"backend": "ratio-net", "role": "deblender", "architecture": net.architecture, "calibration": CALIBRATION}
    save_weights(path, net.state_dict(), card)
    return path


def blend(shape=(2, 50, 90), positions=((25, 24), (33, 26), (72.4, 20.2)), seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[1], : shape[2]]
    fluxes = (300.0, 150.0, 80.0)
    scene = sum(f * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 12) for f, (a, b) in zip(fluxes, positions, strict=False))
    data = scene * np.linspace(1, 0.6, shape[0])[:, None, None] + rng.normal(size=shape)
    psf = np.repeat(gaussian_psf(3.0)[None], shape[0], axis=0)
    return Observation(data, variance=np.ones(shape), psf=psf), np.array(positions, float)


@pytest.mark.parametrize(("name", "cls"), [("ratio-net", RatioNet), ("hybrid", Hybrid)])
def test_conformance(weights, name, cls):
    spec = BackendSpec("deblender", name, f"astrogan.backends.gan.ratio_net:{cls.__name__}", requires=("torch",))
    check_backend(spec, options={"weights": str(weights)})


@pytest.mark.parametrize("cls", [RatioNet, Hybrid])
def test_shares_are_the_networks_and_known_by_name(weights, cls):
    observation, positions = blend()
    result = cls(weights)(observation, positions)
    assert result.info["weights"] == "tiny"
    assert len(result.info["sha256"]) == 12
    assert [t.position for t in result.templates] == [tuple(p) for p in positions]
    for template in result.templates[:2]:
        assert template.data.max() > 10
        assert template.flux_variance.shape == (2,)
        assert (template.flux_variance > 0).all()
    # the third source shares its light with nobody
    assert result.templates[2].flux_variance is None


def test_the_operator_conserves_flux_and_adds_the_networks_doubt(weights):
    observation, positions = blend()
    from astropy.nddata import CCDData, StdDevUncertainty

    image = [CCDData(band, unit="adu", uncertainty=StdDevUncertainty(np.ones(band.shape))) for band in observation.data]
    result = Deblender("ratio-net", weights=weights, psf=3.0)(image, positions=positions)
    total = sum(result.full(i).data for i in range(3)) + result.residual.data
    assert np.abs(total - observation.data).max() < 1e-5 * np.abs(observation.data).max()
    variance = np.sum(result.sources[0].uncertainty.array[0].astype(float) ** 2)
    assert result.catalog["flux_err_0"][0].value > np.sqrt(variance)


def test_calibration_scales_the_doubt(weights, tmp_path):
    from astrogan.weights import load_weights

    loaded = load_weights(weights)
    card = {key: loaded.card[key] for key in ("backend", "role", "architecture")}
    save_weights(tmp_path / "plain.safetensors", loaded.tensors, card)
    observation, positions = blend()
    doubled, plain = (RatioNet(w)(observation, positions) for w in (weights, tmp_path / "plain.safetensors"))
    ratio = doubled.templates[0].flux_variance / plain.templates[0].flux_variance
    assert ratio == pytest.approx(4, rel=1e-5)


def test_windows_and_batches_change_nothing_far_from_their_edges(weights, monkeypatch):
    observation, positions = blend((1, 60, 60), ((28, 30), (36, 30)))
    whole = RatioNet(weights)(observation, positions)
    monkeypatch.setattr(ratio_net, "_AT_ONCE", 1)  # one source at a time
    parts = RatioNet(weights)(observation, positions)
    for a, b in zip(whole.templates, parts.templates, strict=True):
        assert np.allclose(a.data, b.data, rtol=1e-4, atol=1e-4)


def test_a_large_source_gets_a_larger_window():
    own = np.zeros((200, 220), bool)
    own[20:180, 90:130] = True
    rows, columns = ratio_net._window((110.0, 100.0), np.zeros((1, 200, 220)), own)
    assert rows.start <= 20 <= 180 <= rows.stop
    assert columns.start <= 90 <= 130 <= columns.stop
    rows, columns = ratio_net._window((110.0, 100.0), np.zeros((1, 200, 220)), np.zeros_like(own))
    assert (rows.stop - rows.start, columns.stop - columns.start) == (64, 64)
    rows, columns = ratio_net._window((2.0, 3.0), np.zeros((1, 200, 220)), np.zeros_like(own))
    assert (rows.start, columns.start) == (0, 0)


def test_many_bands_and_one(weights):
    for bands in (1, 5):
        observation, positions = blend((bands, 50, 90))
        result = RatioNet(weights)(observation, positions)
        assert all(len(t.data) == bands for t in result.templates)


def test_what_is_refused(weights, tmp_path):
    with pytest.raises(InputError, match="start='guess'"):
        RatioNet(start="guess")
    observation, positions = blend()
    save_weights(
        tmp_path / "other.safetensors",
        {"a": torch.zeros(1)},
        {"backend": "nafnet", "role": "restorer", "architecture": {}},
    )
    with pytest.raises(InputError, match="are for the backend 'nafnet'"):
        RatioNet(tmp_path / "other.safetensors")(observation, positions)
    card = {"backend": "ratio-net", "role": "deblender", "architecture": {"stem": 4}}
    save_weights(tmp_path / "odd.safetensors", {"a": torch.zeros(1)}, card)
    with pytest.raises(CheckpointError, match="do not fit"):
        RatioNet(tmp_path / "odd.safetensors")(observation, positions)
    with pytest.raises(InputError, match="CUDA") if not torch.cuda.is_available() else pytest.raises(InputError):
        RatioNet(weights, device="cuda:99")(observation, positions)


def test_a_copy_by_pickle_gives_the_same(weights):
    observation, positions = blend()
    backend = RatioNet(weights)
    first = backend(observation, positions)
    again = pickle.loads(pickle.dumps(backend))(observation, positions)
    assert all(np.array_equal(a.data, b.data) for a, b in zip(first.templates, again.templates, strict=True))
