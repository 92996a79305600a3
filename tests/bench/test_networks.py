"""The benchmark of networks, with small ones: that rows, counts and ratios are what they say."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from astrogan.bench import networks  # noqa: E402
from astrogan.bench.networks import Net  # noqa: E402
from astrogan.exceptions import InputError  # noqa: E402


def small(name, calls, channels=2):
    """A convolution that notes what it is asked for."""

    def build(device):
        network = torch.nn.Conv2d(3, channels, 3, padding=1, bias=False).to(device)
        return {"network": network, "optimiser": torch.optim.SGD(network.parameters(), lr=1e-3)}

    def step(state, batch):
        calls.append((name, "step", torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        loss = (state["network"](batch["data"]) - batch["truth"][:, :channels]).square().mean()
        state["optimiser"].zero_grad()
        loss.backward()
        state["optimiser"].step()

    def infer(state, batch):
        calls.append((name, "infer", torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return state["network"](batch["data"])

    return Net(name, build, step, infer)


def test_rows_counts_and_ratios():
    calls = []
    nets = [small("unet256", calls), small("other", calls, channels=3)]
    before = torch.get_rng_state()
    table = networks.run(repeats=2, nets=nets, precisions=("fp32", "bf16"), batch=2, size=32)
    assert torch.equal(before, torch.get_rng_state())
    assert [tuple(row) for row in table["network", "precision"]] == [
        (name, precision) for name in ("unet256", "other") for precision in ("fp32", "bf16")
    ]
    np.testing.assert_allclose(table["parameters"], np.repeat([54e-6, 81e-6], 2))
    # A multiply-add a weight and pixel, so billions of them a megapixel are weights over 1000.
    np.testing.assert_allclose(table["gmac"], np.repeat([0.054, 0.081], 2))
    np.testing.assert_allclose(table["steps_over"][:2], 1)
    for speed, ratio in (("steps_per_s", "steps_over"), ("mpix_per_s", "mpix_over")):
        assert (table[speed] > 0).all()
        np.testing.assert_allclose(table[ratio][2:], table[speed][2:] / table[speed][:2], rtol=1e-12)
    # Each repeat and one more, at both precisions; and one more restoration for the count.
    assert len([c for c in calls if c[:2] == ("other", "step")]) == 6
    assert len([c for c in calls if c[:2] == ("other", "infer")]) == 6 + 1
    assert {c[2] for c in calls if c[1] == "step"} == {True}
    assert {c[2] for c in calls if c[1] == "infer"} == {False}
    assert {c[3] for c in calls} == {True, False}


def test_no_ratio_without_the_reference():
    table = networks.run(repeats=1, nets=[small("alone", [])], precisions=("fp32",), size=16)
    assert np.isnan(table["steps_over"][0])
    assert table["steps_per_s"][0] > 0


@pytest.mark.parametrize("options", [{"precisions": ("fp8",)}, {"repeats": 0}, {"batch": 0}, {"size": 0}])
def test_errors(options):
    with pytest.raises(InputError, match=next(iter(options))):
        networks.run(**{"nets": [small("unet256", [])]} | options)


@pytest.mark.parametrize("net", networks.default_nets(), ids=lambda net: net.name)
def test_a_step_of_each_network_changes_it(net, monkeypatch):
    """Small ones, but in all else as in the table."""
    from astrogan.nn import nafnet, pix2pix

    def smaller(function, **options):
        return lambda *arguments, **keywords: function(*arguments, **keywords | options)

    small_nafnet = smaller(nafnet.RestorationNAFNet, widths=(8, 8), blocks=(1, 1, 1), balances=(0.1, 1.0), radius=8)
    monkeypatch.setattr(nafnet, "RestorationNAFNet", small_nafnet)
    for name in ("UNet256", "PatchGAN"):
        monkeypatch.setattr(pix2pix, name, smaller(getattr(pix2pix, name), width=2))
    images = networks._batch(1, 256, "cpu", 0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        state = net.build("cpu")
        before = [p.detach().clone() for p in state["network"].parameters()]
        net.step(state, images)
        with torch.no_grad():
            result = net.infer(state, images)
    restored = result[0] if isinstance(result, tuple) else result
    assert restored.shape == images["data"].shape
    assert torch.isfinite(restored).all()
    after = list(state["network"].parameters())
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert np.mean(changed) > 0.5
    if "critic" in state:
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in state["critic"].parameters())


def test_main_prints(monkeypatch, capsys):
    monkeypatch.setattr(networks, "default_nets", lambda: [small("unet256", [])])
    networks.main(["--repeats", "1", "--size", "16", "--precisions", "fp32"])
    printed = capsys.readouterr().out
    assert "mpix_per_s" in printed
    assert "ratios over unet256" in printed
