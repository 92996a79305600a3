"""Weights of which the card says what is not so: an error of astrogan's own, before any memory is taken for them."""

import time

import numpy as np
import pytest
import torch

from astrogan.backends.gan.branched_gan import BranchedGAN
from astrogan.backends.gan.galaxygan2017 import GalaxyGAN2017
from astrogan.backends.gan.gan_noise import GANNoise
from astrogan.backends.gan.lin2020 import Lin2020
from astrogan.backends.gan.nafnet import NAFNet
from astrogan.backends.gan.ratio_net import RatioNet
from astrogan.backends.gan.surveynet import SurveyNetTranslator
from astrogan.backends.gan.usaid2019 import Usaid2019
from astrogan.exceptions import CheckpointError, InputError
from astrogan.nn.branched import BranchedGenerator
from astrogan.nn.dcgan import CompletionGAN
from astrogan.nn.lin2020 import Lin2020Translator
from astrogan.nn.nafnet import RestorationNAFNet
from astrogan.nn.noise_gan import NoiseEmulator
from astrogan.nn.pix2pix import UNet256
from astrogan.nn.ratio_net import RatioUNet
from astrogan.nn.surveynet import SurveyNet
from astrogan.weights import list_weights, load_weights, save_weights
from astrogan.weights._network import fitted

NETWORKS = {
    "nafnet": (RestorationNAFNet, {"widths": [4, 8], "blocks": [1, 1, 1], "balances": [0.1, 1.0], "radius": 8}),
    "ratio-net": (RatioUNet, {"stem": 4, "widths": [4, 8], "blocks": [1, 1, 1]}),
    "surveynet": (SurveyNet, {"widths": [4, 8], "blocks": [1, 1, 1]}),
    "branched-gan": (BranchedGenerator, {"features": 4, "shared_blocks": 1, "branch_blocks": 1}),
    "lin2020": (Lin2020Translator, {"width": 16}),
    "usaid2019": (CompletionGAN, {"width": 8, "encoder": 8}),
    "galaxygan2017": (UNet256, {"width": 2}),
    "gan": (NoiseEmulator, {"bands": 2, "width": 8}),
}
ROLES = {"nafnet": "restorer", "galaxygan2017": "restorer", "surveynet": "translator", "lin2020": "translator"}


def save(folder, backend, extra=None, **changes):
    """Weights of a small network, and a card with other things in it."""
    build, architecture = NETWORKS[backend]
    tensors = build(**architecture).state_dict()
    if backend == "gan":
        tensors = {f"net.{name}": tensor for name, tensor in tensors.items()}
        tensors |= {"scale": torch.ones(2), "deviates": torch.eye(2), "planes": torch.eye(2)}
    role = "noise" if backend == "gan" else ROLES.get(backend, "deblender")
    path = folder / "mine.safetensors"
    card = {"backend": backend, "role": role, "architecture": architecture | changes.pop("architecture", {})}
    card |= {"bands": 1} if backend == "nafnet" else {}
    save_weights(path, tensors | (extra or {}), card | changes, overwrite=True)
    return path


def used(backend, path):
    """The network, as the backend reads it."""
    if backend == "gan":
        return GANNoise(path).net
    if backend == "nafnet":
        own = NAFNet(path, device="cpu")
        return own._model(str(path)).net
    lazy = {"ratio-net": RatioNet, "surveynet": SurveyNetTranslator, "lin2020": Lin2020, "usaid2019": Usaid2019}
    if backend in lazy:
        return lazy[backend](path, device="cpu")._network.get()[0]
    return {"branched-gan": BranchedGAN, "galaxygan2017": GalaxyGAN2017}[backend](path, device="cpu")._network()[0]


@pytest.mark.parametrize("backend", NETWORKS)
def test_what_is_said_is_used(tmp_path, backend):
    network = used(backend, save(tmp_path, backend))
    assert not any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))


# As a network, terabytes; the first tensors alone are small.
@pytest.mark.parametrize(
    ("backend", "huge"),
    [
        ("nafnet", {"widths": [10**6, 8]}),
        ("nafnet", {"bands": 10**12}),
        ("ratio-net", {"stem": 10**6}),
        ("surveynet", {"widths": [10**6, 8]}),
        ("branched-gan", {"features": 10**6}),
        ("lin2020", {"width": 10**6}),
        ("lin2020", {"width": 10**6, "generators": "cyclegan"}),
        ("usaid2019", {"width": 16 * 10**4}),
        ("galaxygan2017", {"width": 10**6}),
        ("galaxygan2017", {"width": 10**6, "seed": 1}),
        ("gan", {"width": 10**7}),
        ("gan", {"size": 10**7}),
    ],
)
def test_no_memory_is_taken_for_what_the_file_does_not_hold(tmp_path, backend, huge):
    with pytest.raises(CheckpointError, match=r"do not fit the card's architecture: .*tensor '"):
        used(backend, save(tmp_path, backend, architecture=huge))


@pytest.mark.parametrize(
    ("backend", "value", "match"),
    [
        ("nafnet", {"blocks": [30_000, 1, 1]}, r"blocks\[0\]=30000 must be an integer from 0 to 64"),
        ("nafnet", {"blocks": [1, -1, 1]}, r"blocks\[1\]=-1"),
        ("nafnet", {"widths": [4.5, 8]}, r"widths\[0\]=4.5"),
        ("nafnet", {"widths": [4] * 100, "blocks": [1] * 199}, r"widths=.* must hold 1 to 8 numbers"),
        ("nafnet", {"widths": [], "blocks": []}, "widths="),
        ("nafnet", {"widths": 8}, "len"),
        ("nafnet", {"radius": 80}, "radius=80 must be an integer from 0 to 63"),
        ("nafnet", {"radius": -5}, "radius=-5"),
        ("nafnet", {"radius": 8.5}, "radius=8.5"),
        ("nafnet", {"softening": 0}, "softening=0 must be a positive number"),
        ("nafnet", {"softening": 10**400}, "softening=1000"),
        ("nafnet", {"softening": None}, "softening=None"),
        ("nafnet", {"balances": [-1.0, 1.0]}, r"balances=\[-1.0, 1.0\] must be positive numbers"),
        ("nafnet", {"balances": ["a", 1.0]}, "balances="),
        ("nafnet", {"balances": [1.0] * 1000}, r"len\(balances\)=1000"),
        ("nafnet", {"bands": 10**30}, "Overflow when unpacking"),
        ("nafnet", {"depth": 3}, "depth"),
        ("ratio-net", {"blocks": [30_000, 1, 1]}, r"blocks\[0\]=30000"),
        ("ratio-net", {"stem": "4"}, "stem='4'"),
        ("surveynet", {"blocks": [30_000, 1, 1]}, r"blocks\[0\]=30000"),
        ("surveynet", {"softening": -1}, "softening=-1"),
        ("surveynet", {"balances": [0, 1, 1, 1]}, "balances="),
        ("branched-gan", {"shared_blocks": 10**6}, "shared_blocks=1000000"),
        ("branched-gan", {"dilation": 10**6}, "dilation=1000000"),
        ("lin2020", {"bands": 10**8}, "bands=100000000"),
        ("gan", {"bands": 10**8}, "bands=100000000"),
        ("galaxygan2017", {"dropout": "half"}, "str"),
    ],
)
def test_values_that_make_no_sense_are_named_at_once(tmp_path, backend, value, match):
    path = save(tmp_path, backend, architecture=value)
    started = time.process_time()
    with pytest.raises(CheckpointError, match=f"do not fit the card's architecture: .*{match}"):
        used(backend, path)
    assert time.process_time() - started < 20


def test_the_largest_that_may_be_said_is_refused_in_seconds(tmp_path):
    path = save(tmp_path, "nafnet", architecture={"widths": [8] * 8, "blocks": [64] * 15})
    started = time.process_time()
    with pytest.raises(CheckpointError, match="is missing"):
        used("nafnet", path)
    assert time.process_time() - started < 30


@pytest.mark.parametrize(
    ("backend", "changes", "match"),
    [
        ("nafnet", {"ranges": {"fwhm": [0, 0]}}, r"range of fwhm, \[0, 0\]"),
        ("nafnet", {"ranges": {"fwhm": [-5, -1]}}, r"range of fwhm, \[-5, -1\]"),
        ("nafnet", {"ranges": {"peak_snr": [-5, 10]}}, r"range of peak_snr, \[-5, 10\]"),
        ("nafnet", {"ranges": {"peak_snr": [0, 1e25]}}, "range of peak_snr"),
        ("nafnet", {"calibration": {"scale": [1.0, 2.0]}}, "2 scales for 1 bands"),
        ("nafnet", {"calibration": {"scale": []}}, "0 scales for 1 bands"),
        ("nafnet", {"bands": None}, "no number of bands"),
        ("ratio-net", {"calibration": {"scale": [1.0, 2.0]}}, r"the scale \[1.0, 2.0\]"),
        ("surveynet", {"calibration": {"scale": [1.0, 2.0]}}, "positive 'scales'"),
        ("surveynet", {"calibration": {"scales": ["a"]}}, "positive 'scales'"),
        ("surveynet", {"calibration": {"scales": 3}}, "positive 'scales'"),
        ("surveynet", {"calibration": {"error_kernels": [[[1.0]]]}}, "'error_kernels'"),
        ("surveynet", {"calibration": {"error_kernels": [[[1.0, 2.0]], [[1.0]]]}}, "'error_kernels'"),
        ("lin2020", {"bands": 2, "band_names": ["g", "r"]}, r"5 bands, and its card names 2 \(g, r\)"),
    ],
)
def test_cards_that_results_cannot_be_made_with(tmp_path, backend, changes, match):
    with pytest.raises(CheckpointError, match=match):
        used(backend, save(tmp_path, backend, **changes))


def test_a_calibration_need_not_have_all(tmp_path):
    used("ratio-net", save(tmp_path, "ratio-net", calibration={"coverage68": 0.7}))
    kernel = np.eye(3).tolist()
    used("surveynet", save(tmp_path, "surveynet", calibration={"scales": [1, 2.0], "error_kernels": [kernel, kernel]}))


def test_a_network_of_other_bands_than_the_backends(tmp_path):
    path = tmp_path / "mine.safetensors"
    gan = CompletionGAN(width=8, bands=1)
    save_weights(
        path, gan.state_dict(), {"backend": "usaid2019", "role": "deblender", "architecture": gan.architecture}
    )
    with pytest.raises(InputError, match="are for 1 bands; this backend needs 3"):
        used("usaid2019", path)


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        ({"scale": torch.ones(3)}, r"tensor 'scale' has shape \(3,\), not \(2,\)"),
        ({"scale": torch.zeros(2)}, "'scale' must be positive"),
        ({"planes": torch.ones(2)}, "tensor 'planes' has shape"),
        ({"slope": torch.ones(5)}, "tensor 'slope' has shape"),
    ],
)
def test_noise_with_tensors_of_other_bands(tmp_path, extra, match):
    with pytest.raises(CheckpointError, match=match):
        GANNoise(save(tmp_path, "gan", extra))


def test_a_file_with_more_or_less_than_the_network(tmp_path):
    with pytest.raises(CheckpointError, match="the network has no tensor 'more'"):
        used("ratio-net", save(tmp_path, "ratio-net", {"more": torch.ones(1)}))


# ---- what is right stays as it is ---------------------------------------------------------------------------------


def same(network, plain):
    """Whether two networks hold the same bits in the same order of memory."""
    own, other = (dict(net.named_parameters()) | dict(net.named_buffers()) for net in (network, plain))
    assert list(own) == list(other)
    for name, tensor in own.items():
        assert torch.equal(tensor, other[name]), name
        assert (tensor.dtype, tensor.stride()) == (other[name].dtype, other[name].stride())
        assert tensor.requires_grad == other[name].requires_grad


@pytest.mark.parametrize("name", list_weights())
def test_shipped_weights_are_loaded_bit_for_bit(name):
    weights = load_weights(name)
    build, architecture = NETWORKS[weights.card["backend"]][0], weights.card["architecture"]
    state = torch.random.get_rng_state()
    network = fitted(build, architecture, weights.tensors, name)
    assert torch.equal(torch.random.get_rng_state(), state)  # nothing is drawn
    plain = build(**architecture)
    plain.load_state_dict(weights.tensors)
    same(network, plain)
    for key, tensor in network.state_dict().items():
        assert tensor.data_ptr() != weights.tensors[key].data_ptr()  # the caller's own stay the caller's


@pytest.mark.parametrize("backend", NETWORKS)
def test_any_network_is_loaded_bit_for_bit(backend):
    build, architecture = NETWORKS[backend]
    plain = build(**architecture)
    same(fitted(build, architecture, plain.state_dict(), "mine"), plain)


def test_numbers_of_another_type_become_those_of_the_network():
    build, architecture = NETWORKS["usaid2019"]
    plain = build(**architecture)
    halves = {key: t.half() if t.is_floating_point() else t.int() for key, t in plain.state_dict().items()}
    network = fitted(build, architecture, halves, "mine")
    plain.load_state_dict(halves)
    same(network, plain)
