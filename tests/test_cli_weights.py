"""``astrogan weights``."""

import json

import pytest
import torch

from astrogan.cli import main
from astrogan.weights import load_weights, save_weights, store

CARD = {"backend": "nafnet", "role": "restorer", "architecture": {"width": 8}, "bands": 1, "licence": "BSD-3-Clause"}


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.setattr(store, "FILES", folder)
    for name, value in (("faithful", 0.0), ("sharp", 1.0)):
        save_weights(folder / f"{name}.safetensors", {"a": torch.full((3,), value)}, CARD)
    return folder


def run(capsys, *argv):
    status = main(["weights", *map(str, argv)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_list(capsys, shipped):
    status, out, err = run(capsys, "list")
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["name", "role", "backend", "bands", "size", "licence"]
    assert [line[0] for line in lines[2:]] == ["faithful", "sharp"]
    status, out, _ = run(capsys, "list", "--format", "json", "--role", "restorer", "--backend", "nafnet")
    assert [card["name"] for card in json.loads(out)] == ["faithful", "sharp"]


def test_list_of_nothing(capsys, shipped):
    status, out, err = run(capsys, "list", "--backend", "other")
    assert (status, out) == (0, "")
    assert "no weights of this kind" in err
    status, _, err = run(capsys, "list", "--role", "painter")
    assert status == 1
    assert "must be one of" in err


def test_list_shows_the_good_ones_and_fails_for_a_damaged_one(capsys, shipped):
    (shipped / "faithful.safetensors").write_bytes(b"")
    status, out, err = run(capsys, "list")
    assert status == 1
    assert "sharp" in out
    assert "faithful.safetensors' has 0 bytes" in err


def test_show(capsys, shipped):
    status, out, _ = run(capsys, "show", "sharp")
    assert status == 0
    assert out.splitlines()[0] == "sharp"
    assert "nafnet (restorer)" in out
    status, out, _ = run(capsys, "show", shipped / "sharp.safetensors", "--format", "json")
    assert json.loads(out)["architecture"] == {"width": 8}
    status, _, err = run(capsys, "show", "blurred")
    assert status == 1
    assert "there are faithful, sharp" in err
    assert run(capsys, "show")[0] == 2


def test_verify(capsys, shipped):
    status, out, err = run(capsys, "verify")
    assert (status, err) == (0, "")
    assert [line.split(",")[0] for line in out.splitlines()] == ["faithful: ok", "sharp: ok"]
    file = shipped / "faithful.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    status, out, err = run(capsys, "verify")
    assert status == 1
    assert "faithful.safetensors' is damaged" in out
    assert "sharp: ok" in out
    assert "1 of 2 weights cannot be used" in err
    assert run(capsys, "verify", "sharp")[0] == 0
    assert run(capsys, "verify", "sharp", "none")[0] == 1


def test_verify_without_any(capsys, shipped, monkeypatch):
    monkeypatch.setattr(store, "FILES", shipped / "none")
    assert run(capsys, "verify") == (0, "", "no weights come with the package\n")


def test_blend(capsys, shipped, tmp_path):
    out = tmp_path / "between.safetensors"
    argv = ("blend", "faithful", shipped / "sharp.safetensors", "--alpha", "0.25", "-o", out)
    assert run(capsys, *argv) == (0, f"{out}\n", "")
    weights = load_weights(out)
    assert weights.name == "between"
    assert torch.equal(weights.tensors["a"], torch.full((3,), 0.25))
    assert [(p["name"], p["share"]) for p in weights.card["parents"]] == [("faithful", 0.75), ("sharp", 0.25)]
    status, _, err = run(capsys, *argv)
    assert status == 1
    assert "--overwrite" in err
    assert run(capsys, *argv, "--overwrite")[0] == 0
    status, _, err = run(capsys, *argv, "--alpha", "2", "--overwrite")
    assert status == 1
    assert "alpha=2.0" in err


def test_nothing_of_a_card_reaches_the_terminal_as_a_command(capsys, tmp_path):
    path = tmp_path / "mine.safetensors"
    title = "\x1b]0;title\x07"
    save_weights(path, {f"a{title}": torch.zeros(3)}, CARD | {"licence": title, "notes": f"{title}\x1b[2J"})
    for argv in (
        ("show", path),
        ("show", path, "--format", "json"),
        ("verify", path),
        ("export", path, "-o", "a.onnx"),
    ):
        _, out, err = run(capsys, *argv)
        assert "\x1b" not in out + err
    assert r"\x1b]0;title\x07\x1b[2J" in run(capsys, "show", path)[1]


def test_nothing_of_a_card_in_a_table_either(capsys, shipped):
    save_weights(shipped / "sharp.safetensors", {"a": torch.ones(3)}, CARD | {"licence": "\x1b[2J"}, overwrite=True)
    status, out, _ = run(capsys, "list")
    assert status == 0
    assert r"\x1b[2J" in out
    assert "\x1b" not in out
