"""The commands that fill a folder (train, fetch, bench, plugin new), when something goes wrong in the middle."""

import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from astropy.table import Table
from command_client import assert_said_in_one_line, contents, errors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resource limits, fork and /proc")

RECIPE = """
name = "tiny"
steps = 2
batch = 2
crop = 32
epoch_steps = 1
validation_images = 2
[network]
widths = [4]
blocks = [1]
balances = [0.1, 10.0]
radius = 8
[training]
loss = "linear"
[degradation]
kind = "physical"
fwhm = [3.0, 3.0]
noise_ratio = [20.0, 20.0]
[[data]]
kind = "simulated"
seed = 5
size = 32
length = 40
"""


def unfinished(folder):
    return [name for name in contents(folder) if name.rpartition("/")[2].startswith(".")]


# ---- training ----------------------------------------------------------------------------------------------------


def train(tmp_path, *more, **limits):
    (tmp_path / "tiny.toml").write_text(RECIPE)
    argv = ["train", *(more or ("tiny.toml",)), "--data", ".", "--out", "run", "--accelerator", "cpu"]
    return {"argv": argv, "cwd": str(tmp_path), **limits}


def test_a_full_disk_while_training(server, tmp_path):
    """The recipe fits, a checkpoint does not; with room, the run goes on."""
    pytest.importorskip("lightning")
    done = server(**train(tmp_path, file_bytes=4000))
    assert_said_in_one_line(done, "could not be written: ", "what was there before is untouched")
    assert not unfinished(tmp_path / "run")
    done = server(**train(tmp_path, "--resume"))
    assert done["status"] == 0, done["said"]
    assert (tmp_path / "run" / "tiny.safetensors").is_file()


def test_a_signal_while_a_checkpoint_is_written(server, tmp_path):
    pytest.importorskip("lightning")
    done = server(**train(tmp_path, signal=int(signal.SIGTERM), nth=4))
    assert_said_in_one_line(done, "terminated", status=143)
    assert not unfinished(tmp_path / "run")
    done = server(**train(tmp_path, "--resume"))
    assert done["status"] == 0, done["said"]


def test_two_runs_in_one_folder(server, tmp_path):
    pytest.importorskip("lightning")
    both = sorted(server.together(train(tmp_path), train(tmp_path)), key=lambda done: done["status"])
    assert both[0]["status"] == 0, both
    assert_said_in_one_line(both[1], "run", "resume the run in it (--resume), or name another folder")
    assert (tmp_path / "run" / "tiny.safetensors").is_file()


# ---- fetching ------------------------------------------------------------------------------------------------------


class Stamps(BaseHTTPRequestHandler):
    """A service that draws the same stamp for everybody."""

    def do_GET(self):
        body = self.server.stamp
        self.send_response(200)
        for key, value in (("Content-Length", len(body)), ("Content-Type", "image/jpeg")):
            self.send_header(key, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    import io

    from PIL import Image

    pytest.importorskip("pooch")
    stream = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(stream, "JPEG")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stamps)
    server.stamp = stream.getvalue()
    thread = threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(tmp_path, service, out="stamps", **limits):
    sample = Table({"objid": [11, 12], "ra": [150.0, 151.0], "dec": [2.0, -2.5], "petroR90_r": [20.0, 20.0]})
    sample.write(tmp_path / "sample.ecsv", overwrite=True)
    argv = ["fetch", "galaxy-zoo", "-o", out, "--sample", "sample.ecsv", "--size", "64", "--server", service]
    return {"argv": [*argv, "--retries", "0", "--rate", "100"], "cwd": str(tmp_path), **limits}


def test_a_full_disk_while_fetching(server, service, tmp_path):
    done = server(**fetch(tmp_path, service, file_bytes=400))
    assert_said_in_one_line(done, "File too large")
    assert not [name for name in contents(tmp_path / "stamps") if not name.startswith("manifest.ecsv")]


def test_a_signal_while_fetching_and_again(server, service, tmp_path):
    done = server(**fetch(tmp_path, service, signal=int(signal.SIGTERM), nth=1))
    assert_said_in_one_line(done, "terminated", status=143)
    assert not unfinished(tmp_path / "stamps")
    done = server(**fetch(tmp_path, service))
    assert done["status"] == 0, done["said"]
    assert {"11.jpg", "12.jpg", "manifest.ecsv"} <= set(contents(tmp_path / "stamps"))


# ---- folders -------------------------------------------------------------------------------------------------------

FOLDERS = {
    "train": ["train", "tiny.toml", "--data", ".", "--out"],
    "fetch": ["fetch", "galaxy-zoo", "--sample", "sample.ecsv", "-o"],
    "bench deblending": ["bench", "deblending", "-o"],
    "bench restoration": ["bench", "restoration", "--data", ".", "-o"],
    "bench training-size": ["bench", "training-size", "--data", ".", "-o"],
    "bench translation": ["bench", "translation", "-o"],
    "plugin": ["plugin", "new", "mine", "--folder"],
    "demo usaid2019": ["demo", "usaid2019", "-o"],
}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("case", ["a file is in the way", "permission"])
def test_folders_that_cannot_be_made(server, tmp_path, name, case):
    work = fetch(tmp_path, "http://127.0.0.1:9")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    place = tmp_path / "place"
    if case == "permission":
        place.mkdir(mode=0o555)
    else:
        place.write_bytes(b"a file")
    before = contents(tmp_path)
    done = server(**work | {"argv": [*FOLDERS[name], str(place / "out")], "permissions_bind": True})
    place.chmod(0o755)
    assert_said_in_one_line(done, "place")
    assert any(
        word in errors(done)[0] for word in ("Permission denied", "Not a directory", "File exists", "no folder")
    ), done["said"]
    assert contents(tmp_path) == before


def test_a_full_disk_while_a_plugin_is_written(server, tmp_path):
    done = server(argv=["plugin", "new", "mine"], cwd=str(tmp_path), file_bytes=150)
    assert_said_in_one_line(done, "astrogan-mine", "cannot be written: File too large")
    assert not list(tmp_path.iterdir())
