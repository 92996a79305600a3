"""The same bytes whoever works, however often a run is killed, and however many workers die."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from catalog_backends import content, grid, noisy

from astrogan import read_image
from astrogan.catalogs import Results, RowFlag, process_catalog
from astrogan.exceptions import AstroganWarning, ImageReadError, ImageWriteError, InputError


@pytest.fixture
def reference(path, tmp_path):
    process_catalog(noisy(), grid(), path, output=tmp_path / "reference", size=16, chunk=5, rng=7, workers=1)
    return content(tmp_path / "reference")


def test_rows_draw_their_own_numbers(reference, path, tmp_path):
    """Neither the chunks nor the seed of another row matter to a stamp."""
    process_catalog(noisy(), grid(), path, output=tmp_path / "out", size=16, chunk=24, rng=7, workers=1)
    one, other = Results(tmp_path / "reference"), Results(tmp_path / "out")
    assert all(np.array_equal(one[i].data, other[i].data) for i in range(24))
    process_catalog(noisy(), grid(), path, output=tmp_path / "out8", size=16, chunk=24, rng=8, workers=1)
    assert not np.array_equal(Results(tmp_path / "out8")[3].data, one[3].data)


def test_threads_of_the_user_give_the_same_bytes(reference, path, tmp_path):
    done = []
    with ThreadPoolExecutor(2) as pool:
        arguments = {"size": 16, "chunk": 5, "rng": 7, "client": pool, "progress": lambda *pair: done.append(pair)}
        process_catalog(noisy(), grid(), path, output=tmp_path / "out", **arguments)
    assert content(tmp_path / "out") == reference
    assert done[-1] == (24, 24)
    assert len(done) == 5


DASK = """
    import sys
    sys.path.insert(0, {tests!r})
    import numpy as np
    from catalog_backends import Noisy
    from distributed import Client, LocalCluster
    from astrogan import Restorer
    from astrogan.catalogs import process_catalog
    places = np.stack(np.meshgrid(np.linspace(20, 200, 6), np.linspace(20, 130, 4)), -1).reshape(-1, 2)
    local = dict(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0")
    with LocalCluster(**local) as cluster, Client(cluster) as client:
        process_catalog(Restorer(Noisy()), places, {path!r}, output={out!r}, size=16, chunk=5, rng=7, client=client)
"""


def run_script(code, path, out):
    code = textwrap.dedent(code).format(tests=str(Path(__file__).parent), path=str(path), out=str(out))
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_dask_gives_the_same_bytes(reference, path, tmp_path):
    pytest.importorskip("distributed")
    assert run_script(DASK, path, tmp_path / "out").wait(timeout=120) == 0
    assert content(tmp_path / "out") == reference


def test_killed_workers_lose_nothing(mosaic, tmp_path):
    """A chunk whose worker dies is tried again; a row that always kills its worker is the only one that is flagged."""
    places, died = grid(), tmp_path / "died"
    operator = noisy(marker=str(died))
    mosaic.data[93, 56] = 1000  # row 13: kills the first worker that sees it
    died.touch()
    arguments = {"size": 16, "chunk": 12, "rng": 7}
    process_catalog(operator, places, mosaic, output=tmp_path / "whole", workers=1, **arguments)
    died.unlink()
    mosaic.data[57, 200] = 2000  # row 11: kills all of them
    with pytest.warns(AstroganWarning, match="1 of 24 rows failed.*row 11: .*killed"):
        table = process_catalog(operator, places, mosaic, output=tmp_path / "killed", workers=2, **arguments)
    assert died.exists()
    assert list(np.flatnonzero(table["flags"])) == [11]
    assert table["flags"][11] == RowFlag.WORKER_DIED
    one, other = content(tmp_path / "whole"), content(tmp_path / "killed")
    assert other["stamps-00001.fits"] == one["stamps-00001.fits"]
    assert other["00001.json"] == one["00001.json"]
    stamps, others = Results(tmp_path / "whole"), Results(tmp_path / "killed")
    assert others[11] is None
    assert all(np.array_equal(stamps[i].data, others[i].data) for i in range(24) if i != 11)


# ---- going on -------------------------------------------------------------------------------------------------------

RUN = """
    import sys
    sys.path.insert(0, {tests!r})
    from catalog_backends import Noisy
    from astrogan import Restorer
    from astrogan.catalogs import process_catalog
    import numpy as np
    places = np.stack(np.meshgrid(np.linspace(20, 200, 6), np.linspace(20, 130, 4)), -1).reshape(-1, 2)
    process_catalog(Restorer(Noisy(delay=0.1)), places, {path!r}, output={out!r}, size=16, chunk=2, rng=7, workers=1)
"""


def test_kill_and_go_on_gives_the_bytes_of_an_uninterrupted_run(path, tmp_path):
    operator = noisy(delay=0.1)
    out = tmp_path / "out"
    process = run_script(RUN, path, out)
    journal, deadline = out / "journal", time.monotonic() + 120
    while len(list(journal.glob("0*.json"))) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = {p.name: p.stat().st_mtime_ns for p in out.glob("stamps-0000[01].fits")}
    assert len(finished) == 2
    assert not (out / "results.ecsv").exists()
    (out / f".{'0' * 16}.stamps-00009.fits").write_bytes(b"half")
    with pytest.raises(ImageReadError, match="no finished results"):
        Results(out)

    arguments = {"size": 16, "chunk": 2, "rng": 7, "workers": 1}
    process_catalog(operator, grid(), path, output=out, **arguments)
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == finished
    process_catalog(operator, grid(), path, output=tmp_path / "whole", **arguments)
    assert content(out) == content(tmp_path / "whole")


def test_a_chunk_whose_file_was_changed_is_done_again(reference, path, tmp_path):
    out = tmp_path / "reference"
    (out / "stamps-00001.fits").write_bytes(b"something else")
    (out / "stamps-00003.fits").unlink()
    (out / "journal" / "00002.json").write_text("{")
    process_catalog(noisy(), grid(), path, output=out, size=16, chunk=5, rng=7, workers=1)
    assert content(out) == reference


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 18}, "size .was .16, 16., is .18, 18.."),
        ({"rng": 8}, "seed .was 7, is 8."),
        ({"margin": 9}, "margin"),
        ({"operator": noisy(strength=2.0)}, "backend's settings"),
        ({"catalog": grid() + 1}, "catalog .was 24 rows"),
        ({"unit": "adu"}, "unit"),
        ({"image": "touched"}, "image .was"),
    ],
)
def test_another_configuration_is_named_and_refused(change, words, reference, path, tmp_path):
    arguments = {"operator": noisy(), "catalog": grid(), "image": path, "size": 16, "chunk": 5, "rng": 7, "workers": 1}
    if change.get("image"):
        os.utime(path, ns=(1, 1))
        change = {}
    out = tmp_path / "reference"
    with pytest.raises(InputError, match=words) as caught:
        process_catalog(**(arguments | change), output=out)
    assert "--restart" in str(caught.value)
    assert content(out) == reference
    with pytest.raises(ImageWriteError, match="--overwrite"):
        process_catalog(**(arguments | change), output=out, resume=False)
    assert content(out) == reference
    (out / "mine.txt").write_text("mine")
    process_catalog(**(arguments | change), output=out, resume=False, overwrite=True)
    assert (out / "mine.txt").read_text() == "mine"
    assert json.loads((out / "run.json").read_text()) != json.loads(reference["run.json"])


def test_two_at_once_are_refused(path, tmp_path):
    from astrogan.catalogs._journal import Journal

    journal = Journal(tmp_path / "out")
    try:
        with pytest.raises(InputError, match="held by"):
            process_catalog(noisy(), grid(), path, output=tmp_path / "out", size=16, workers=1)
    finally:
        journal.close()


def test_warnings_are_gathered(path, tmp_path):
    """One for all rows, not one a row."""
    mosaic = read_image(path)
    with pytest.warns(match="gives no uncertainty.*19 more rows") as caught:
        process_catalog(noisy(silent=True), grid(20), mosaic, output=tmp_path / "out", size=16, chunk=5, workers=1)
    assert len(caught) == 1
