"""Blends lie between their parents, and only between such as match."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from astrogan.exceptions import InputError
from astrogan.weights import blend, blend_card, load_weights, save_weights

CARD = {"backend": "nafnet", "role": "restorer", "architecture": {"width": 8, "blocks": [1, 2]}}


def tensors(seed):
    generator = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(4, 3, generator=generator), "n": torch.tensor(seed)}


@pytest.fixture
def parents(tmp_path):
    extra = {
        "first": {"ranges": {"fwhm": [2, 8], "peak_snr": [5, 50], "noise_ratio": [1, 2]}, "licence": "BSD-3-Clause"},
        "second": {"ranges": {"fwhm": [3, 10], "peak_snr": [60, 90]}, "licence": "MIT"},
    }
    for seed, (name, more) in enumerate(extra.items()):
        shared = {"metrics": [{"psnr": 30.0}], "calibration": {"scale": 1.1}, "seed": seed, "steps": 10}
        data = [{"name": text, "origin": "simulated", "licence": "BSD-3-Clause"} for text in ("fields", name)]
        save_weights(tmp_path / f"{name}.safetensors", tensors(seed), CARD | shared | more | {"data": data})
    return [load_weights(tmp_path / f"{name}.safetensors") for name in extra]


def test_the_ends_are_the_parents_bit_for_bit(parents):
    a, b = parents
    for alpha, parent in ((0, a), (1, b), (0.0, a), (np.float32(1), b)):
        out = blend(a, b, alpha)
        for name, tensor in out.items():
            assert torch.equal(tensor, parent.tensors[name])
            assert tensor.data_ptr() != parent.tensors[name].data_ptr()
    assert torch.signbit(blend({"a": torch.tensor([-0.0])}, {"a": torch.ones(1)}, 0)["a"]).all()


def test_between_them_it_is_linear_in_float64(parents):
    a, b = parents
    out = blend(a, b, 0.3)
    expected = (0.7 * a.tensors["a"].numpy().astype("f8") + 0.3 * b.tensors["a"].numpy().astype("f8")).astype("f4")
    assert out["a"].dtype == torch.float32
    np.testing.assert_array_equal(out["a"].numpy(), expected)
    assert torch.equal(a.tensors["a"], tensors(0)["a"])
    assert not torch.equal(out["a"], a.tensors["a"])


def test_counters_are_taken_from_the_larger_share(parents):
    assert [int(blend(*parents, alpha)["n"]) for alpha in (0.25, 0.5, 0.75)] == [0, 0, 1]


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), float("inf"), "0.5", None, True, 1j])
def test_alpha_is_a_share(parents, alpha):
    for function in (lambda: blend(*parents, alpha), lambda: blend_card(*parents, alpha, "x")):
        with pytest.raises(InputError, match="alpha=.* must be a number from 0 to 1"):
            function()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"backend": "other"}, "backend is 'nafnet' and 'other'"),
        ({"role": "deblender"}, "role is"),
        ({"bands": 3}, "bands is None and 3"),
        ({"stretch": {"a": 1}}, "stretch is None"),
        ({"architecture": {"width": 8, "blocks": [1, 3]}}, r"architecture 'blocks' is \[1, 2\] and \[1, 3\]"),
        ({"architecture": {"width": 8}}, r"architecture 'blocks' is \[1, 2\] and not given"),
    ],
)
def test_the_first_difference_of_the_cards_is_named(parents, change, match):
    a, b = parents
    b = dataclasses.replace(b, card=b.card | change)
    for function in (lambda: blend(a, b, 0.5), lambda: blend_card(a, b, 0.5, "x")):
        with pytest.raises(InputError, match=match):
            function()


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({}, "b has no tensor 'a'"),
        ({"a": torch.ones(2), "b": torch.ones(2)}, "a has no tensor 'b'"),
        ({"a": torch.ones(3)}, r"shape of tensor 'a' is \(2,\) and \(3,\)"),
        ({"a": torch.ones(2).double()}, "dtype of tensor 'a' is torch.float32 and torch.float64"),
    ],
)
def test_the_first_difference_of_the_tensors_is_named(other, match):
    with pytest.raises(InputError, match=match):
        blend({"a": torch.ones(2)}, other, 0.5)


def test_the_card_names_both_and_claims_nothing_that_was_not_measured(parents):
    a, b = parents
    card = blend_card(a, b, 0.25, "between")
    assert card["name"] == "between"
    assert card["parents"] == [
        {"name": "first", "sha256": a.sha256, "share": 0.75},
        {"name": "second", "sha256": b.sha256, "share": 0.25},
    ]
    assert card["metrics"] == []
    assert card["calibration"] is card["seed"] is card["steps"] is None
    assert card["ranges"] == {"fwhm": [3, 8]}
    assert card["licence"] == "BSD-3-Clause; MIT"
    assert [row["name"] for row in card["data"]] == ["fields", "first", "second"]
    assert "do not carry over" in card["notes"]
    with pytest.raises(InputError, match="name"):
        blend_card(a, b, 0.25, "no name")


def test_the_function_is_found_whatever_was_imported_first():
    code = "import astrogan.weights.blending; from astrogan.weights import blend; assert callable(blend)"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
