"""Weights come back as they were written, or not at all."""

import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from astrogan.exceptions import CheckpointError, ImageWriteError, InputError
from astrogan.weights import _pair as pair
from astrogan.weights import list_weights, load_weights, read_card, save_weights, store
from astrogan.weights.card import card_text

CARD = {"name": "mine", "backend": "nafnet", "role": "restorer", "architecture": {"width": 8, "blocks": (1, 2)}}


def tensors(value=0.0):
    generator = torch.Generator().manual_seed(1)
    return {
        "body.weight": torch.randn(5, 3, generator=generator) + value,
        "body.bias": torch.full((5,), value),
        "steps": torch.tensor(7),
    }


@pytest.fixture
def path(tmp_path):
    """A good pair."""
    path = tmp_path / "mine.safetensors"
    save_weights(path, tensors(), CARD)
    return path


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder in place of the package's own."""
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.setattr(store, "FILES", folder)
    for name, role in (("first", "restorer"), ("second", "deblender")):
        save_weights(folder / f"{name}.safetensors", tensors(), CARD | {"name": name, "role": role})
    return folder


def forge(path, data, **changes):
    """A pair whose checksums hold, as somebody who means harm would write it."""
    path.write_bytes(data)
    card = store._completed(CARD | changes, path)
    card |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    path.with_suffix(".json").write_bytes(card_text(card))
    return path


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# ---- round trip


def test_round_trip(path):
    weights = load_weights(path)
    assert weights.name == "mine"
    assert weights.path == path
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == weights.card["sha256"]
    assert weights.card["size"] == path.stat().st_size
    assert weights.card["architecture"] == {"width": 8, "blocks": [1, 2]}
    expected = tensors()
    assert weights.tensors.keys() == expected.keys()
    for name, tensor in weights.tensors.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])
    assert "body.bias" not in repr(weights), "a representation of one line"
    assert read_card(path) == weights.card


def test_the_same_tensors_and_card_give_the_same_bytes(path, tmp_path):
    other = tmp_path / "other.safetensors"
    weights = load_weights(path)
    assert save_weights(other, dict(reversed(weights.tensors.items())), weights.card) == weights.sha256
    assert other.read_bytes() == path.read_bytes()
    assert other.with_suffix(".json").read_bytes() == path.with_suffix(".json").read_bytes()


def test_the_caller_owns_what_is_loaded(path):
    weights = load_weights(path)
    weights.tensors["body.bias"].add_(1)
    weights.card["notes"] = "changed"
    again = load_weights(path)
    assert torch.equal(again.tensors["body.bias"], torch.zeros(5))
    assert again.card["notes"] == ""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_tensors_come_back_as_float32(tmp_path, dtype):
    path = tmp_path / "x.safetensors"
    values = torch.tensor([[1.5, -2.25], [0.0, 1024.0]], dtype=dtype)
    save_weights(path, {"a": values.T}, CARD)
    loaded = load_weights(path).tensors["a"]
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, values.T.float())


def test_half_takes_half_the_bytes_and_keeps_11_bits(tmp_path):
    values = {"a": torch.linspace(-3, 3, 4001)}
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_weights(whole, values, CARD)
    save_weights(half, values, CARD, half=True)
    assert half.stat().st_size < 0.52 * whole.stat().st_size
    loaded = load_weights(half).tensors["a"]
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded, values["a"], rtol=2**-11, atol=1e-7)
    with pytest.raises(InputError, match=r"tensors\['a'\] overflows as torch.float16"):
        save_weights(tmp_path / "x.safetensors", {"a": torch.tensor([1e6])}, CARD, half=True)


def test_tied_and_trained_parameters_can_be_saved(tmp_path):
    weight = torch.nn.Parameter(torch.ones(2, 2))
    path = tmp_path / "x.safetensors"
    save_weights(path, {"a": weight, "b": weight, "c": weight[0]}, CARD)
    loaded = load_weights(path).tensors
    assert torch.equal(loaded["b"], torch.ones(2, 2))
    assert not loaded["b"].requires_grad
    assert weight.requires_grad


def test_what_the_card_lacks_is_filled_in(tmp_path):
    path = tmp_path / "from-file.safetensors"
    card = {key: value for key, value in CARD.items() if key != "name"}
    save_weights(path, tensors(), card)
    read = read_card(path)
    assert read["name"] == "from-file"
    assert read["astrogan_version"]
    assert read["created"]
    assert "name" not in card
    with pytest.raises(InputError, match="'epoch_3' cannot be one"):
        save_weights(tmp_path / "epoch_3.safetensors", tensors(), card)


# ---- damage


def test_a_flipped_bit_is_found_in_either_file(path):
    rng = np.random.default_rng(5)
    for file in (path, path.with_suffix(".json")):
        good = file.read_bytes()
        for bit in rng.choice(8 * len(good), 50, replace=False):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << (bit % 8)
            file.write_bytes(bad)
            with pytest.raises(CheckpointError, match=r"mine"):
                load_weights(path)
        file.write_bytes(good)
    load_weights(path)


def test_the_last_digit_of_a_number_in_the_card_counts(path):
    """0.30000000000000004 and ...05 are the same float, and a capital E means the same as a small one."""
    save_weights(path, tensors(), CARD | {"stretch": {"a": 0.1 + 0.2, "b": 1e-30}}, overwrite=True)
    card = path.with_suffix(".json")
    good = card.read_text()
    for old, new in (("0.30000000000000004", "0.30000000000000005"), ("1e-30", "1E-30")):
        assert old in good
        card.write_text(good.replace(old, new))
        with pytest.raises(CheckpointError, match="not as it was written"):
            load_weights(path)


def test_truncation_and_padding_are_found_in_either_file(path):
    for file in (path, path.with_suffix(".json")):
        good = file.read_bytes()
        for length in (0, 1, 7, 8, 9, len(good) // 2, len(good) - 1):
            file.write_bytes(good[:length])
            for read in (load_weights, read_card):
                with pytest.raises(CheckpointError):
                    read(path)
        file.write_bytes(good + b"\n")
        with pytest.raises(CheckpointError):
            load_weights(path)
        file.write_bytes(good)


def test_a_missing_file_is_named(path):
    card = path.with_suffix(".json")
    text = card.read_bytes()
    card.unlink()
    with pytest.raises(CheckpointError, match=r"has no card 'mine.json'"):
        load_weights(path)
    card.write_bytes(text)
    path.unlink()
    for read in (load_weights, read_card):
        with pytest.raises(CheckpointError, match="is missing, and its card is there"):
            read(path)


def test_weights_of_another_card_are_refused(path, tmp_path):
    save_weights(tmp_path / "other.safetensors", tensors(1.0), CARD)
    (tmp_path / "other.safetensors").replace(path)
    with pytest.raises(CheckpointError, match="damaged, or not of its card"):
        load_weights(path)


def test_a_newer_format_names_the_remedy(path):
    card = path.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"format": 2, "unheard_of": 1}))
    for read in (load_weights, read_card):
        with pytest.raises(CheckpointError, match="has format 2, and this astrogan knows 1; update astrogan"):
            read(path)


def test_a_card_that_is_no_card_is_refused(path):
    card = path.with_suffix(".json")
    for text in ("[]", "null", "[" * 100_000, '{"a": NaN}', "{}", "9" * 5000, "\N{BULLET}", '"' + "x" * 2**20 + '"'):
        card.write_text(text)
        with pytest.raises(CheckpointError, match="card"):
            load_weights(path)


def test_a_card_with_right_checksum_and_wrong_content_is_refused(path):
    card = path.with_suffix(".json")
    good = json.loads(card.read_text())
    for key, value in (("role", "painter"), ("name", "../../etc"), ("size", None), ("surplus", 1)):
        card.write_bytes(card_text(good | {key: value}))
        with pytest.raises(CheckpointError, match=key):
            load_weights(path)


# ---- files that mean harm


class Evil:
    """Unpickling it writes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (Path(self.marker),))


def test_a_pickle_is_never_run(tmp_path):
    marker = tmp_path / "marker"
    torch.save({"a": Evil(str(marker))}, tmp_path / "evil.pt")
    for i, data in enumerate((pickle.dumps(Evil(str(marker))), (tmp_path / "evil.pt").read_bytes())):
        forged = forge(tmp_path / f"evil-{i}.safetensors", data)
        with pytest.raises(CheckpointError, match="no safetensors file"):
            load_weights(forged)
    with pytest.raises(InputError, match="only .safetensors files are read"):
        load_weights(tmp_path / "evil.pt")
    assert not marker.exists()
    pickle.loads((tmp_path / "evil-0.safetensors").read_bytes())
    assert marker.exists(), "the pickle would have worked"


def raw(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        raw(b"{}")[:9],
        struct.pack("<Q", 2**63) + b"{}",
        raw(json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode().ljust(2**22 + 8), b"1"),
        raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 4),
        raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 4),
        raw({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4),
        raw({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}),
        raw({"a": {"dtype": "F32", "shape": [0, 2**63 - 1, 4], "data_offsets": [0, 0]}}),
        raw({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
        raw({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8),
        raw({"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}, b"\0"),
        raw({"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}, struct.pack("<d", 1e300)),
        raw(b"[" * 10_000),
    ],
    ids=range(15),
)
def test_a_forged_file_is_a_checkpoint_error(tmp_path, data):
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        load_weights(forge(tmp_path / "x.safetensors", data))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    bad = {"a": torch.tensor([1.0, value])}
    with pytest.raises(InputError, match=r"tensors\['a'\] has values that are not finite"):
        save_weights(tmp_path / "x.safetensors", bad, CARD)
    assert files(tmp_path) == {}
    with pytest.raises(CheckpointError, match="tensor 'a' has values that are not finite"):
        load_weights(forge(tmp_path / "x.safetensors", safetensors.torch.save(bad)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_is_not_waited_for(path):
    for file in (path, path.with_suffix(".json")):
        good = file.read_bytes()
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(CheckpointError):
            load_weights(path)
        with pytest.raises(ImageWriteError, match="no regular file"):
            save_weights(path, tensors(), CARD, overwrite=True)
        file.unlink()
        file.write_bytes(good)


# ---- names and paths


def test_names_are_listed_and_loaded(shipped):
    assert list_weights() == ("first", "second")
    assert list_weights("deblender") == ("second",)
    assert list_weights(backend="nafnet") == ("first", "second")
    assert list_weights("restorer", "other") == ()
    assert load_weights("first").path == shipped / "first.safetensors"
    assert read_card("second")["role"] == "deblender"
    with pytest.raises(InputError, match="role='painter' must be one of restorer"):
        list_weights("painter")


def test_listing_copes_with_no_folder_and_with_strangers(shipped, monkeypatch):
    (shipped / "first.json").write_text("{}")
    (shipped / "Not_A_Name.json").write_text("{}")
    assert list_weights() == ("first", "second")
    assert list_weights(backend="nafnet") == ("second",)
    monkeypatch.setattr(store, "FILES", shipped / "none")
    assert list_weights() == list_weights("restorer") == ()
    with pytest.raises(InputError, match="there are none"):
        load_weights("first")


def test_a_shipped_file_must_have_the_name_in_its_card(shipped):
    for suffix in (".json", ".safetensors"):
        (shipped / f"first{suffix}").rename(shipped / f"third{suffix}")
    with pytest.raises(CheckpointError, match="that of 'first'"):
        load_weights("third")


@pytest.mark.parametrize("name", ["third", "First", "first.json", "fi rst", "..", "", "first\n", "first\0"])
def test_an_unknown_name_says_which_there_are(shipped, name):
    with pytest.raises(InputError, match="there are first, second"):
        load_weights(name)


@pytest.mark.parametrize("name", ["../files/../mine", "a\0/b", "/etc/passwd", "none/x.safetensors", 3, None, b"x/y"])
def test_what_is_no_path_of_weights(path, monkeypatch, name):
    monkeypatch.chdir(path.parent)
    for read in (load_weights, read_card):
        with pytest.raises(InputError):
            read(name)


def test_text_is_a_path_only_with_separator_or_suffix(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    assert load_weights("mine.safetensors").name == "mine"
    assert load_weights("./mine.safetensors").name == "mine"
    with pytest.raises(InputError, match="weights='mine': no weights of this name"):
        load_weights("mine")


def test_a_run_directory_holds_one_file(path):
    folder = path.parent
    assert load_weights(folder).path == path
    (folder / ".0123.mine.safetensors").write_bytes(b"left by a run that was killed")
    assert read_card(f"{folder}/")["name"] == "mine"
    save_weights(folder / "other.safetensors", tensors(), CARD)
    with pytest.raises(InputError, match=r"holds mine\.safetensors, other\.safetensors"):
        load_weights(folder)
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.safetensors file"):
        load_weights(folder / "empty")


# ---- writing


def test_nothing_is_replaced_unasked(path):
    before = files(path.parent)
    with pytest.raises(ImageWriteError, match=r"mine.safetensors' exists; give overwrite=True"):
        save_weights(path, tensors(1.0), CARD)
    path.unlink()
    with pytest.raises(ImageWriteError, match=r"mine.json' exists; give overwrite=True"):
        save_weights(path, tensors(1.0), CARD)
    assert not path.exists()
    path.write_bytes(before["mine.safetensors"])
    sha256 = save_weights(path, tensors(1.0), CARD, overwrite=True)
    assert load_weights(path).sha256 == sha256
    assert set(files(path.parent)) == set(before)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({}, "not empty"),
        ([1], "mapping"),
        ({"a": np.ones(2)}, "ndarray"),
        ({1: torch.ones(2)}, r"tensors\[1\]"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "complex64"),
        ({"a": torch.ones(2, 2).to_sparse()}, "sparse"),
        ({"a": torch.ones(2, device="meta")}, "no data"),
    ],
)
def test_what_cannot_be_stored_is_named(tmp_path, bad, match):
    with pytest.raises(InputError, match=match):
        save_weights(tmp_path / "x.safetensors", bad, CARD)
    assert files(tmp_path) == {}


def test_paths_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="must end with .safetensors"):
        save_weights(tmp_path / "x.pt", tensors(), CARD)
    with pytest.raises(ImageWriteError, match="there is no folder"):
        save_weights(tmp_path / "none" / "x.safetensors", tensors(), CARD)
    with pytest.raises(InputError, match="card must be a dict"):
        save_weights(tmp_path / "x.safetensors", tensors(), None)
    with pytest.raises(InputError, match="shorten metrics or data"):
        save_weights(tmp_path / "x.safetensors", tensors(), CARD | {"notes": "x" * 2**20})
    assert files(tmp_path) == {}


def test_a_symbolic_link_is_followed(path, tmp_path):
    link = tmp_path / "link.safetensors"
    link.symlink_to(path)
    link.with_suffix(".json").symlink_to(path.with_suffix(".json"))
    sha256 = save_weights(link, tensors(2.0), CARD, overwrite=True)
    assert link.is_symlink()
    assert load_weights(path).sha256 == load_weights(link).sha256 == sha256


CALLS = ("_write", "_keep", "_publish", "_flush_folder")


def steps(monkeypatch, act):
    """Call ``act(n)`` before the n-th step of a save; gives the counter."""
    count = [0]
    for name in CALLS:
        original = getattr(pair, name)

        def step(*arguments, original=original, **keywords):
            count[0] += 1
            act(count[0])
            return original(*arguments, **keywords)

        monkeypatch.setattr(pair, name, step)
    return count


def test_an_error_at_any_step_leaves_the_old_pair(path, monkeypatch):
    before = files(path.parent)
    fail_at = [0]

    def act(n):
        if n == fail_at[0]:
            raise OSError(28, "No space left on device")

    count = steps(monkeypatch, act)
    save_weights(path, tensors(), load_weights(path).card, overwrite=True)
    total = count[0]
    assert total >= 7
    assert files(path.parent) == before
    for fail_at[0] in range(1, total):  # after the last flush all is done
        count[0] = 0
        with pytest.raises(ImageWriteError, match=r"No space left.*what was there before is untouched"):
            save_weights(path, tensors(1.0), CARD, overwrite=True)
        assert files(path.parent) == before, fail_at


def test_an_error_at_any_step_of_a_new_pair_leaves_nothing(tmp_path, monkeypatch):
    fail_at = [0]

    def act(n):
        if n == fail_at[0]:
            raise KeyboardInterrupt

    count = steps(monkeypatch, act)
    for fail_at[0] in range(1, 6):
        count[0] = 0
        with pytest.raises(KeyboardInterrupt):
            save_weights(tmp_path / "x.safetensors", tensors(), CARD)
        assert files(tmp_path) == {}, fail_at


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_a_kill_at_any_step_leaves_a_whole_pair(path, monkeypatch, links):
    """A process ends before each step in turn, without any clean-up; another reads what is there, and saves again."""
    old, old_files = load_weights(path).sha256, files(path.parent)
    new = save_weights(path, tensors(1.0), CARD, overwrite=True)
    new_files = files(path.parent)
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "Operation not permitted")))
    kill_at = [0]
    count = steps(monkeypatch, lambda n: os._exit(9) if n == kill_at[0] else None)

    def save(contents):
        """Files only: torch is not to be used in a child."""
        count[0] = 0
        data = [contents[name] for name in ("mine.safetensors", "mine.json")]
        pair.write_pair(path, path.with_suffix(".json"), *data, read_card(path)["sha256"], overwrite=True)

    save(old_files)
    seen = []
    for step in range(1, count[0] + 1):
        if (child := os.fork()) == 0:
            kill_at[0] = step
            save(new_files)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert read_card(path)["sha256"] == load_weights(path).sha256
        seen.append(load_weights(path).sha256)
        save(old_files)
        assert load_weights(path).sha256 == old
        assert not [name for name in files(path.parent) if name.endswith(".previous")]
    assert set(seen) == {old, new}
    assert seen == sorted(seen, key=[old, new].index), "once new, always new"


def test_a_failing_save_after_a_killed_one_keeps_what_was_kept(path, monkeypatch):
    """Between the renames the kept tensors are all that is left of the old pair."""
    old = load_weights(path).sha256
    path.rename(pair.previous_path(path, old))
    path.write_bytes(b"new tensors, whose card did not come")
    assert load_weights(path).sha256 == old
    for fail_at in range(1, 6):
        with monkeypatch.context() as patch:
            steps(patch, lambda n, at=fail_at: (_ for _ in ()).throw(OSError(5, "I/O error")) if n == at else None)
            with pytest.raises(ImageWriteError):
                save_weights(path, tensors(1.0), CARD, overwrite=True)
        assert load_weights(path).sha256 == old


DISK_FULL = """
import resource, sys, torch
from astrogan.exceptions import ImageWriteError
from astrogan.weights import save_weights
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
card = {"name": "mine", "backend": "nafnet", "role": "restorer", "architecture": {}}
for path in sys.argv[1:]:
    try:
        save_weights(path, {"a": torch.ones(10_000)}, card, overwrite=True)
    except ImageWriteError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_disk_full_leaves_the_old_bytes_and_no_temporaries(path):
    before = files(path.parent)
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, path, path.with_name("new.safetensors")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.count("File too large; what was there before is untouched") == 2
    assert files(path.parent) == before


# ---- lightness


def test_listing_and_cards_load_neither_torch_nor_numpy(path):
    code = (
        "import sys, astrogan.weights as w; w.list_weights(); w.list_weights('restorer');"
        "w.describe(w.read_card(sys.argv[1]));"
        "print({'torch', 'numpy', 'safetensors', 'astropy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "set()"
    assert done.stderr == ""
