"""Every command that writes, when the disk is full, the memory is short, the folder is not ours or a signal comes.

What must hold each time: exit status 1 (130, 143 after a signal), one line that says what is wrong, the old output's
bytes untouched, and no temporary file left.
"""

import importlib.util
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from command_client import assert_said_in_one_line, contents, errors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resource limits, fork and /proc")

# command: (arguments, the outputs); OUT stands for the folder of outputs
COMMANDS = {
    "restore": ("restore g.fits -o OUT/o.fits -b richardson-lucy --psf 3 -O iterations=2", ["o.fits"]),
    "restore by a network": ("restore g.fits -o OUT/o.fits.gz -b nafnet --psf 3", ["o.fits.gz"]),
    "degrade": ("degrade g.fits -o OUT/o.fits --add --psf 3", ["o.fits"]),
    "deblend": ("deblend g.fits -o OUT/o.fits --catalog OUT/c.ecsv -b watershed", ["o.fits", "c.ecsv"]),
    "translate": ("translate g.fits -o OUT/o.fits -b psf-matching --target t.fits --psf 3", ["o.fits"]),
    "simulate": ("simulate -o OUT --size 64", ["field.fits", "truth.fits", "sharp.fits", "catalog.ecsv"]),
    "simulate blends": ("simulate -o OUT --blends 1 --size 48", ["blend-000000.fits", "catalog.ecsv"]),
    "weights blend": ("weights blend a.safetensors b.safetensors -o OUT/c.safetensors", ["c.safetensors", "c.json"]),
    "evaluate": ("evaluate g.fits r.fits -o OUT/e.ecsv", ["e.ecsv"]),
}
if not importlib.util.find_spec("galsim"):
    del COMMANDS["simulate"], COMMANDS["simulate blends"]
DEMO = {"demo": ("demo -o OUT --size 128", ["01_simulated.fits"])}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Small images and weights."""
    from astrogan.weights import save_weights

    folder = tmp_path_factory.mktemp("inputs")
    y, x = np.mgrid[:48, :48]
    scene = 200 * np.exp(-np.hypot(x - 20, y - 20) / 3) + 150 * np.exp(-np.hypot(x - 32, y - 30) / 3)
    for number, name in enumerate("gr"):
        data = scene + np.random.default_rng(number).normal(size=scene.shape)
        CCDData(data.astype("f4"), unit="adu", wcs=sky()).write(folder / f"{name}.fits")
    CCDData(scene.astype("f4"), unit="adu", wcs=sky(2.0)).write(folder / "t.fits")
    import torch

    for name in "ab":
        card = {"name": name, "backend": "nafnet", "role": "restorer", "architecture": {}}
        save_weights(folder / f"{name}.safetensors", {"x": torch.ones(2000)}, card)
    return folder


def sky(scale=0.2):
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150, 2], [20, 20]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    return wcs


def job(name, inputs, out, **more):
    arguments, outputs = (COMMANDS | DEMO)[name]
    overwrite = more.pop("overwrite", True)
    argv = arguments.replace("OUT", str(out)).split() + ["--overwrite"] * overwrite
    return {"argv": argv, "cwd": str(inputs), **more}, outputs


def old_outputs(out, outputs):
    out.mkdir(exist_ok=True)
    for name in outputs:
        (out / name).write_bytes(f"old {name}".encode())
    return contents(out)


# ---- a full disk -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*COMMANDS, pytest.param("demo", marks=pytest.mark.slow)])
def test_a_full_disk(server, inputs, tmp_path, name):
    """No file may be longer than 150 bytes."""
    work, outputs = job(name, inputs, tmp_path / "out", file_bytes=150)
    before = old_outputs(tmp_path / "out", outputs)
    done = server(**work)
    assert_said_in_one_line(done, "could not be written: File too large; what was there before is untouched")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["restore", "evaluate", "weights blend"])
def test_a_full_disk_leaves_nothing_new(server, inputs, tmp_path, name):
    (tmp_path / "out").mkdir()
    work, _ = job(name, inputs, tmp_path / "out", file_bytes=150, overwrite=False)
    assert_said_in_one_line(server(**work), "File too large")
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_command_works_without_a_limit(server, inputs, tmp_path, name):
    """Else the others would show nothing."""
    work, outputs = job(name, inputs, tmp_path / "out")
    before = old_outputs(tmp_path / "out", outputs)
    done = server(**work)
    assert done["status"] == 0, done["said"]
    after = contents(tmp_path / "out")
    assert all(after[output] != before[output] for output in outputs)
    assert not unfinished(after)


def unfinished(names):
    return [name for name in names if Path(name).name.startswith(".")]


# ---- folders that are not ours, or none ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_may_not_be_written(server, inputs, tmp_path, name):
    out = tmp_path / "out"
    work, outputs = job(name, inputs, out, permissions_bind=True)
    before = old_outputs(out, outputs)
    out.chmod(0o555)
    try:
        done = server(**work)
    finally:
        out.chmod(0o755)
    assert_said_in_one_line(done, "Permission denied")
    assert contents(out) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_cannot_be_since_a_file_is_there(server, inputs, tmp_path, name):
    """For root too."""
    (tmp_path / "file").write_bytes(b"a file")
    work, _ = job(name, inputs, tmp_path / "file" / "out")
    assert_said_in_one_line(server(**work), str(tmp_path / "file"))
    assert contents(tmp_path) == {"file": b"a file"}


# ---- input that ends early -----------------------------------------------------------------------------------------


READERS = ["restore", "degrade", "deblend", "translate", "evaluate"]


@pytest.mark.parametrize("name", READERS)
def test_a_truncated_input(server, inputs, tmp_path, name):
    whole = (inputs / "g.fits").read_bytes()
    (tmp_path / "g.fits").write_bytes(whole[: len(whole) - 4000])
    work, outputs = job(name, inputs, tmp_path / "out")
    before = old_outputs(tmp_path / "out", outputs)
    work["argv"] = [str(tmp_path / "g.fits") if part == "g.fits" else part for part in work["argv"]]
    assert_said_in_one_line(server(**work), "g.fits", "truncated or its header is wrong; fetch it again")
    assert contents(tmp_path / "out") == before


def test_truncated_weights(server, inputs, tmp_path):
    for name in ("a.json", "a.safetensors"):
        (tmp_path / name).write_bytes((inputs / name).read_bytes())
    (tmp_path / "a.safetensors").write_bytes((inputs / "a.safetensors").read_bytes()[:-10])
    work, outputs = job("weights blend", inputs, tmp_path / "out")
    before = old_outputs(tmp_path / "out", outputs)
    work["argv"][2] = str(tmp_path / "a.safetensors")
    assert_said_in_one_line(server(**work), "truncated, or not its card; get the pair of files again")
    assert contents(tmp_path / "out") == before


# ---- too little memory ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(inputs):
    """An image of 16 megabytes and one that claims more than any memory."""
    rng = np.random.default_rng(0)
    image = CCDData(rng.normal(size=(2000, 2000)).astype("f4"), unit="adu", wcs=sky())
    image.write(inputs / "large.fits")
    with open(inputs / "huge.fits", "wb") as file:  # sparse
        header = fits.PrimaryHDU(np.zeros((1, 1), "f4")).header
        header["NAXIS1"], header["NAXIS2"], header["BUNIT"] = 30_000, 30_000, "adu"
        file.write(header.tostring().encode())
        file.truncate(len(header.tostring()) + 4 * 30_000**2)
    return inputs


@pytest.mark.parametrize("memory", [12, 30, 60], ids="{}MB".format)
@pytest.mark.parametrize("name", ["restore", "degrade", "deblend", "translate"])
def test_too_little_memory(server, large, tmp_path, name, memory):
    """Wherever it runs out: while the image is read, while it is worked on, in numpy or in torch."""
    work, outputs = job(name, large, tmp_path / "out", memory=memory * 10**6)
    before = old_outputs(tmp_path / "out", outputs)
    work["argv"] = ["large.fits" if part == "g.fits" else part for part in work["argv"]]
    done = server(**work)
    assert_said_in_one_line(done)
    assert any(word in errors(done)[0] for word in ("memory", "start new thread")), done["said"]
    assert contents(tmp_path / "out") == before


def test_an_image_larger_than_the_memory_is_not_begun(server, large, tmp_path):
    work, outputs = job("restore", large, tmp_path / "out", memory=10**9)
    before = old_outputs(tmp_path / "out", outputs)
    work["argv"][1] = "huge.fits"
    assert_said_in_one_line(server(**work), "huge.fits", "does not fit the memory")
    assert contents(tmp_path / "out") == before


# ---- signals -------------------------------------------------------------------------------------------------------


INT, TERM = (signal.SIGINT, 130), (signal.SIGTERM, 143)


@pytest.mark.parametrize(
    ("name", "number", "status"),
    [*((name, *TERM) for name in COMMANDS), *((name, *INT) for name in ("restore", "deblend", "weights blend"))],
)
def test_a_signal_in_the_middle_of_a_write(server, inputs, tmp_path, name, number, status):
    """The temporary file is there and whole, and has not yet got its name."""
    work, outputs = job(name, inputs, tmp_path / "out", signal=int(number))
    before = old_outputs(tmp_path / "out", outputs)
    assert_said_in_one_line(server(**work), "interrupted" if status == 130 else "terminated", status=status)
    assert contents(tmp_path / "out") == before


def test_a_signal_between_two_files_leaves_whole_ones(server, inputs, tmp_path):
    work, outputs = job("simulate", inputs, tmp_path / "out", signal=int(signal.SIGTERM), nth=3)
    before = old_outputs(tmp_path / "out", outputs)
    server(**work)
    after = contents(tmp_path / "out")
    assert {name for name in outputs if after[name] != before[name]} == set(outputs[:2])
    assert set(after) == set(before)
    for name in outputs[:2]:
        with fits.open(tmp_path / "out" / name) as hdus:
            hdus.verify("exception")


# ---- two processes, one output -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["restore", "evaluate", "weights blend"])
def test_two_processes_with_one_new_output(server, inputs, tmp_path, name):
    """One of them writes it, whole; the other says that it exists."""
    (tmp_path / "out").mkdir()
    work, outputs = job(name, inputs, tmp_path / "out", overwrite=False)
    both = sorted(server.together(work, work), key=lambda done: done["status"])
    assert both[0]["status"] == 0, both
    assert_said_in_one_line(both[1], "exists")
    assert sorted(contents(tmp_path / "out")) == sorted(outputs)
    alone, _ = job(name, inputs, tmp_path / "alone", overwrite=False)
    (tmp_path / "alone").mkdir()
    assert server(**alone)["status"] == 0
    if name != "restore":  # whose header has the time
        assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_two_processes_that_may_overwrite_leave_one_whole_output(server, inputs, tmp_path):
    work, outputs = job("restore", inputs, tmp_path / "out")
    old_outputs(tmp_path / "out", outputs)
    assert [done["status"] for done in server.together(work, work)] == [0, 0]
    assert sorted(contents(tmp_path / "out")) == outputs
    with fits.open(tmp_path / "out" / outputs[0]) as hdus:
        hdus.verify("exception")
        assert hdus[0].data.shape == (48, 48)
