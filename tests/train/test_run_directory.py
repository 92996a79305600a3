"""A run's folder: one holder, whole files, and a way back from whatever a kill or a bad disk leaves."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from astrogan.exceptions import AstroganWarning, CheckpointError, ImageWriteError, InputError, MissingDependencyError
from astrogan.image import _lock
from astrogan.train.run_directory import RunDirectory
from astrogan.train.sheets import sample_sheet

HOLD = """
import sys
from astrogan.train.run_directory import RunDirectory
run = RunDirectory.create(sys.argv[1])
run.append_metrics({"step": 1, "loss": 2.0})
run.save_checkpoint(1, lambda path: path.write_bytes(b"one"))
def half(path):
    path.write_bytes(b"half a checkpoint")
    print("held", flush=True)
    sys.stdin.read()
run.save_checkpoint(2, half)
"""


posix = pytest.mark.skipif(os.name != "posix", reason="signals, fork and resource limits")


@pytest.fixture
def run(tmp_path):
    with RunDirectory.create(tmp_path / "run") as run:
        yield run


def save(run, step, content=None):
    return run.save_checkpoint(step, lambda path: path.write_bytes(content or f"weights of {step}".encode()))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


# ---- the lock ----------------------------------------------------------------------------------------------------


@posix
def test_a_killed_process_leaves_a_folder_that_another_can_go_on_with(tmp_path):
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"held by process {holder.pid} on .*name another folder"):
            RunDirectory.open(folder)
        holder.send_signal(signal.SIGKILL)
        holder.wait(60)
    unfinished = [path for path in (folder / "checkpoints").iterdir() if path.name.startswith(".")]
    assert unfinished, "the kill came in the middle of a checkpoint"
    with RunDirectory.open(folder) as run:
        checkpoint = run.resume()
        assert (checkpoint.step, checkpoint.path.read_bytes()) == (1, b"one")
        assert run.read_metrics() == [{"step": 1.0, "loss": 2.0}]
        assert json.loads((folder / "run.lock").read_text())["pid"] == os.getpid()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "step-00000001.ckpt",
        "step-00000001.ckpt.sha256",
    ]


def test_the_same_process_cannot_hold_it_twice_and_close_frees_it(run):
    with pytest.raises(InputError, match=f"held by process {os.getpid()}"):
        RunDirectory.open(run.folder)
    run.close()
    run.close()
    RunDirectory.open(run.folder).close()


@posix
def test_a_forked_process_that_closes_does_not_free_it(run):
    pid = os.fork()
    if pid == 0:
        run.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.raises(InputError, match="held by process"):
        RunDirectory.open(run.folder)


@pytest.mark.parametrize(
    ("change", "free"),
    [
        ({}, False),
        ({"host": "elsewhere"}, False),
        ({"started": 1}, True),
        ({"boot": "another boot"}, True),
        ({"pid": 2**22 + 1}, True),
    ],
)
def test_without_locks_of_the_kernel_the_record_decides(tmp_path, monkeypatch, change, free):
    monkeypatch.setattr(_lock, "fcntl", None)
    (tmp_path / "run.lock").write_text(json.dumps(_lock._identity() | change))
    if free:
        RunDirectory.open(tmp_path).close()
        assert (tmp_path / "run.lock").read_text() == ""
    else:
        with pytest.raises(InputError, match="is held by process"):
            RunDirectory.open(tmp_path)


def test_an_unreadable_record_is_no_holder(tmp_path):
    (tmp_path / "run.lock").write_bytes(b"\xff{")
    RunDirectory.open(tmp_path).close()


def test_folders_that_are_not_for_a_run_are_refused(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.txt").write_text("a")
    with pytest.raises(InputError, match="exists; resume the run in it"):
        RunDirectory.create(tmp_path / "pictures")
    with pytest.raises(InputError, match="not the folder of a run"):
        RunDirectory.open(tmp_path / "pictures")
    with pytest.raises(InputError, match="is no folder; start the run first"):
        RunDirectory.open(tmp_path / "nothing")
    with pytest.raises(ImageWriteError, match="could not be created"):
        RunDirectory.create(tmp_path / "pictures" / "a.txt" / "run")
    with pytest.raises(InputError, match="keep=0"):
        RunDirectory.create(tmp_path / "run", keep=0)


# ---- checkpoints -------------------------------------------------------------------------------------------------


def test_the_newest_checkpoints_stay(tmp_path):
    with RunDirectory.create(tmp_path / "run", keep=3) as run:
        assert run.latest_checkpoint() is None
        assert run.resume() is None
        for step in (0, 5, 100, 90_000_000, 123_456_789):
            save(run, step)
        names = sorted(path.name for path in (run.folder / "checkpoints").glob("*.ckpt"))
        assert names == ["step-00000100.ckpt", "step-123456789.ckpt", "step-90000000.ckpt"]
        assert len(list((run.folder / "checkpoints").iterdir())) == 6
        assert run.latest_checkpoint().step == 123_456_789


@posix
def test_the_checksum_is_what_sha256sum_reads(run):
    path = save(run, 7).path
    digest, name = path.with_name(path.name + ".sha256").read_text().split()
    assert name == path.name
    assert digest == subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]


@pytest.mark.parametrize("damage", ["flip", "truncate", "no checksum", "garbled checksum", "a folder"])
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(run, damage):
    save(run, 1)
    path = save(run, 2).path
    sidecar = path.with_name(path.name + ".sha256")
    if damage == "flip":
        flip(path)
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "no checksum":
        sidecar.unlink()
    elif damage == "garbled checksum":
        sidecar.write_bytes(b"\xff\x00")
    else:
        path.unlink()
        path.mkdir()
    run.append_metrics({"step": 1, "loss": 1.0})
    run.append_metrics({"step": 2, "loss": 0.5})
    with pytest.warns(AstroganWarning, match=r"step-00000002.ckpt' is damaged .* goes on from step 1"):
        checkpoint = run.resume()
    assert (checkpoint.step, checkpoint.path.read_bytes()) == (1, b"weights of 1")
    assert run.read_metrics() == [{"step": 1.0, "loss": 1.0}]
    assert run.latest_checkpoint() == checkpoint  # without a warning
    save(run, 2)
    assert run.latest_checkpoint().path.read_bytes() == b"weights of 2"
    assert checkpoint.path.exists(), "a damaged one must not take the place of a good one"


def test_if_all_are_damaged_the_run_does_not_start_anew_by_itself(run):
    for step in (1, 2):
        flip(save(run, step).path)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="step-00000002.ckpt: its bytes .*step-00000001.ckpt"):
            run.resume()


def test_a_writer_that_fails_leaves_what_was_there(run):
    save(run, 1)

    def fails(path):
        path.write_bytes(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run.save_checkpoint(2, fails)
    with pytest.raises(InputError, match="wrote nothing"):
        run.save_checkpoint(2, lambda path: None)
    assert run.latest_checkpoint().step == 1
    assert not [path for path in (run.folder / "checkpoints").iterdir() if path.name.startswith(".")]
    with pytest.raises(InputError, match="step=-1"):
        save(run, -1)
    with pytest.raises(InputError, match="step=1.5"):
        save(run, 1.5)


# ---- metrics -----------------------------------------------------------------------------------------------------


def test_metrics_come_back_as_they_were_given(run):
    run.append_metrics({"step": 1, "loss": 0.1 + 0.2})
    run.append_metrics({"step": np.int64(2), "loss": np.float64(0.25), "psnr, dB": 37.5, "note": 'a "b", c'})
    run.append_metrics({"step": 3, "note": "d"})
    assert run.read_metrics() == [
        {"step": 1.0, "loss": 0.1 + 0.2},
        {"step": 2.0, "loss": 0.25, "psnr, dB": 37.5, "note": 'a "b", c'},
        {"step": 3.0, "note": "d"},
    ]
    run.close()
    before = (run.folder / "metrics.csv").read_bytes()
    with RunDirectory.open(run.folder) as again:
        assert (run.folder / "metrics.csv").read_bytes() == before
        again.append_metrics({"step": 4, "loss": 0.0})
        assert again.read_metrics()[-1] == {"step": 4.0, "loss": 0.0}


@pytest.mark.parametrize("tail", [b"3", b"3,0.", b"3,0.125", b"\x00\x00\x00", b"\x00\x00\n4,1.0\n", b"3,\xff,1,2\n"])
def test_a_torn_line_is_dropped(run, tail):
    for step in (1, 2):
        run.append_metrics({"step": step, "loss": 1 / step})
    run.close()
    path = run.folder / "metrics.csv"
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    with RunDirectory.open(run.folder) as again:
        assert path.read_bytes() == whole
        again.append_metrics({"step": 3, "loss": 0.125})
        assert [row["step"] for row in again.read_metrics()] == [1, 2, 3]


@pytest.mark.parametrize("torn", [b"", b"st", b"\x00\x00\n"])
def test_a_torn_header_starts_the_file_anew(run, torn):
    run.close()
    (run.folder / "metrics.csv").write_bytes(torn)
    with RunDirectory.open(run.folder) as again:
        assert again.read_metrics() == []
        again.append_metrics({"step": 1, "loss": 1.0})
        assert again.read_metrics() == [{"step": 1.0, "loss": 1.0}]


def test_resuming_cuts_the_lines_of_steps_to_be_done_again(run):
    for step in (0, 10, 20, 30):
        run.append_metrics({"step": step, "loss": 1.0})
    assert run.resume() is None
    assert run.read_metrics() == []
    for step in (0, 10, 20, 30):
        run.append_metrics({"step": step, "loss": 1.0})
    save(run, 20)
    assert run.resume().step == 20
    assert [row["step"] for row in run.read_metrics()] == [0, 10, 20]


def test_rows_that_would_break_the_file_are_refused(run):
    with pytest.raises(InputError, match="has no 'step'"):
        run.append_metrics({"loss": 1.0})
    with pytest.raises(InputError, match="line break"):
        run.append_metrics({"step": 1, "note": "a\nb"})
    assert run.read_metrics() == []


@posix
def test_a_full_disk_leaves_whole_lines(run, monkeypatch):
    import resource

    run.append_metrics({"step": 1, "loss": 1.0})
    path = run.folder / "metrics.csv"
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 3, limits[1]))
        with pytest.raises(ImageWriteError, match="could not be written"):
            run.append_metrics({"step": 2, "loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before


# ---- other files -------------------------------------------------------------------------------------------------


def test_texts_are_replaced_whole_and_names_stay_inside(run):
    assert run.write_text("config.toml", "a").read_text() == "a"
    run.write_text("config.toml", "σ")
    assert (run.folder / "config.toml").read_text(encoding="utf-8") == "σ"
    assert run.path("samples/step-1.png").parent.is_dir()
    for name in ("../a", "/tmp/a", "", "samples/../../a"):
        with pytest.raises(InputError, match="inside the run's folder"):
            run.path(name)


def test_sheet_has_a_panel_an_image(run, rng):
    from PIL import Image

    truth = rng.normal(size=(3, 32, 32))
    truth[:, 16, 16] = 100
    rows = [[truth + 1, truth], [truth[0], truth[:2]], [np.full((8, 8), np.nan), np.zeros((8, 8))]]
    path = run.path("samples/step-1.png")
    before = truth.copy()
    for _ in range(2):
        sample_sheet(path, rows, ["observed", "truth"])
    assert np.array_equal(truth, before)
    with Image.open(path) as picture:
        assert picture.width > 400
        assert picture.height > 600
        assert np.ptp(np.asarray(picture.convert("L"))) > 200
    with pytest.raises(InputError, match="an image a title"):
        sample_sheet(path, [[truth]], ["observed", "truth"])
    with pytest.raises(InputError, match="shape"):
        sample_sheet(path, [[truth[0, 0]]], ["observed"])


def test_sheet_needs_matplotlib(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match="pip install 'astrogan\\[plot\\]'"):
        sample_sheet(run.path("a.png"), [[np.zeros((4, 4))]], ["truth"])
