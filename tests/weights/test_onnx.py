"""Networks as ONNX files: ONNX Runtime gives what torch gives, at any size."""

import json
import sys

import numpy as np
import pytest
import torch

from astrogan.exceptions import ImageWriteError, InputError, MissingDependencyError
from astrogan.nn.nafnet import RestorationNAFNet
from astrogan.weights import export_onnx, load_weights, save_weights

NAMES = ("data", "noise", "fwhm", "estimates")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small network for two bands, every block of which does something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = RestorationNAFNet(bands=2, widths=(4, 8), blocks=(1, 1, 1), balances=(0.1, 10.0), radius=8)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if "weight1" in name or "weight2" in name:
                    parameter.normal_(0, 0.5)
    card = {"backend": "nafnet", "role": "restorer", "architecture": net.architecture, "bands": 2, "licence": "CC0"}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, net.state_dict(), card)
    return load_weights(path)


@pytest.fixture(scope="module")
def model(weights):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    path = weights.path.with_suffix(".onnx")
    assert export_onnx(weights, path) == path
    assert sorted(p.name for p in path.parent.iterdir()) == ["tiny.json", "tiny.onnx", "tiny.safetensors"]
    return path


def inputs(n, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    data = 30 * torch.randn(n, 2, height, width, generator=generator)
    noise = 1 + torch.rand(n, 2, height, width, generator=generator)
    estimates = 30 * torch.randn(n, 2, 2, height, width, generator=generator)
    return data, noise, 2 + torch.rand(n, 2, generator=generator), estimates


@pytest.mark.parametrize("shape", [(1, 64, 96), (3, 37, 50)])
def test_onnx_runtime_agrees(weights, model, shape):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    network = RestorationNAFNet(**weights.card["architecture"]).eval()
    network.load_state_dict(weights.tensors)
    batch = inputs(*shape, seed=2)
    with torch.no_grad():
        expected = network(*batch)
    found = session.run(["mean", "spread"], {k: v.numpy() for k, v in zip(NAMES, batch, strict=True)})
    for one, other in zip(found, expected, strict=True):
        assert one.shape == (shape[0], 2, *shape[1:])
        assert np.abs(one - other.numpy()).max() <= 1e-4 * float(other.abs().max())


def test_the_card_goes_along(weights, model):
    import onnx

    found = onnx.load(model)
    onnx.checker.check_model(found)
    texts = {entry.key: entry.value for entry in found.metadata_props}
    assert json.loads(texts["astrogan.card"]) == weights.card
    assert (texts["name"], texts["backend"], texts["licence"]) == ("tiny", "nafnet", "CC0")
    assert texts["sha256"] == weights.sha256
    assert [value.name for value in found.graph.input] == list(NAMES)


def test_a_file_that_exists_stays(weights, model):
    before = model.read_bytes()
    with pytest.raises(ImageWriteError, match="exists"):
        export_onnx(weights, model)
    assert model.read_bytes() == before


def test_refused_before_any_work(weights, tmp_path):
    with pytest.raises(InputError, match="must end with .onnx"):
        export_onnx(weights, tmp_path / "tiny.pt")
    with pytest.raises(InputError, match="for the backend 'ratio-net'; those for nafnet can be exported"):
        export_onnx("ratio-net", tmp_path / "tiny.onnx")
    with pytest.raises(InputError):
        export_onnx("no-such-weights", tmp_path / "tiny.onnx")
    assert not list(tmp_path.iterdir())


def test_without_onnx(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'astrogan\[onnx\]'"):
        export_onnx(weights, tmp_path / "tiny.onnx")
    assert not list(tmp_path.iterdir())
