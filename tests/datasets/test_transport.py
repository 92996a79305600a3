"""Downloads that go wrong in all the ways they do."""

import errno
import hashlib
import os
import time

import pytest

import astrogan.datasets._transport as transport
from astrogan.datasets import Downloader, DownloadError
from astrogan.exceptions import ImageWriteError, InputError, MissingDependencyError

pytest.importorskip("pooch")

BODY = bytes(range(256)) * 40


def answers(server, *script):
    """Give these answers in turn, the last one for ever."""
    left = list(script)
    server.answer = lambda path, query: left.pop(0) if len(left) > 1 else left[0]


def files(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_comes_with_its_checksum_and_usual_permissions(server, downloader, make, tmp_path):
    answers(server, make.Answer(BODY))
    path = tmp_path / "deep" / "file.bin"
    assert downloader.fetch(f"{server.url}/file", path) == hashlib.sha256(BODY).hexdigest()
    assert path.read_bytes() == BODY
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert files(path.parent) == ["file.bin"]
    assert server.requests[0].headers["User-Agent"].startswith("astrogan/")


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_fault_that_passes_is_tried_again(server, downloader, make, tmp_path, status):
    answers(server, make.Answer(status=status), make.Answer(status=status), make.Answer(BODY))
    downloader.fetch(server.url, tmp_path / "file")
    assert len(server.requests) == 3


def test_a_fault_that_stays_is_an_error_that_says_how_often(server, downloader, make, tmp_path):
    answers(server, make.Answer(status=503))
    with pytest.raises(DownloadError, match=r"HTTP 503 .*tried 3 times.*call again later") as caught:
        downloader.fetch(server.url, tmp_path / "file")
    assert caught.value.status == 503
    assert files(tmp_path) == []


@pytest.mark.parametrize(("status", "remedy"), [(404, "no such file"), (403, "rate"), (401, "login"), (400, "check")])
def test_other_statuses_are_not_tried_again(server, downloader, make, tmp_path, status, remedy):
    answers(server, make.Answer(status=status))
    with pytest.raises(DownloadError, match=remedy) as caught:
        downloader.fetch(server.url, tmp_path / "file")
    assert len(server.requests) == 1
    assert caught.value.status == status


def test_a_body_that_ends_early_leaves_nothing(server, downloader, make, tmp_path):
    answers(server, make.Answer(BODY, cut=1000))
    with pytest.raises(DownloadError, match=r"the connection ended before the file did|ends after"):
        downloader.fetch(server.url, tmp_path / "file")
    assert files(tmp_path) == []
    assert len(server.requests) == 3


def test_a_body_that_ends_early_once_is_fetched_again(server, downloader, make, tmp_path):
    answers(server, make.Answer(BODY, cut=1000), make.Answer(BODY))
    downloader.fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_an_error_page_in_the_place_of_the_file_is_quoted(server, downloader, make, tmp_path):
    page = b"<!DOCTYPE html><html><head><title>x</title></head><body>Down for <b>maintenance</b></body></html>"
    answers(server, make.Answer(page))

    def check(path):
        raise ValueError("this is no FITS file")

    with pytest.raises(DownloadError, match=r"this is no FITS file; the server sent a text: 'Down for maintenance'"):
        downloader.fetch(server.url, tmp_path / "file", check=check)
    assert files(tmp_path) == []


def test_a_known_hash_is_checked(server, downloader, make, tmp_path):
    answers(server, make.Answer(BODY))
    good = hashlib.md5(BODY).hexdigest()
    downloader.fetch(server.url, tmp_path / "file", known_hash=f"md5:{good}")
    downloader.fetch(server.url, tmp_path / "file", known_hash=f"md5:{good}")
    assert len(server.requests) == 1
    (tmp_path / "file").write_bytes(b"damaged")
    downloader.fetch(server.url, tmp_path / "file", known_hash=f"md5:{good}")
    assert (tmp_path / "file").read_bytes() == BODY
    with pytest.raises(DownloadError, match="not the file it should be"):
        downloader.fetch(server.url, tmp_path / "other", known_hash="md5:" + "0" * 32)
    assert files(tmp_path) == ["file"]


def test_no_server(tmp_path):
    with pytest.raises(DownloadError, match=r"no connection .*tried once"):
        Downloader(timeout=2, retries=0, rate=None).fetch("http://127.0.0.1:9/x", tmp_path / "file")
    with pytest.raises(DownloadError, match="no address that can be asked"):
        Downloader(retries=0)._call(lambda: Downloader()._session().get("nowhere"), "nowhere")


def test_a_server_that_says_nothing(server, make, tmp_path):
    def slow(path, query):
        time.sleep(0.5)
        return make.Answer(BODY)

    server.answer = slow
    with pytest.raises(DownloadError, match=r"no answer within 0.1 s"):
        Downloader(timeout=0.1, retries=0, rate=None).fetch(server.url, tmp_path / "file")
    assert files(tmp_path) == []


def test_pauses_grow_and_the_server_may_ask_for_longer_ones(server, make, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(transport.time, "sleep", pauses.append)
    wait = make.Answer(status=429, headers={"Retry-After": "7"})
    long = make.Answer(status=429, headers={"Retry-After": "7000"})
    answers(server, make.Answer(status=500), make.Answer(status=500), wait, long, make.Answer(BODY))
    Downloader(retries=4, backoff=1, rate=None).fetch(server.url, tmp_path / "file")
    assert pauses == [1, 2, 7, 300]


def test_requests_keep_their_distance(monkeypatch):
    clock, pauses = [100.0], []
    monkeypatch.setattr(transport.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(transport.time, "sleep", pauses.append)
    downloader = Downloader(rate=2)
    downloader._call(lambda: None, "first")
    clock[0] += 0.2
    downloader._call(lambda: None, "second")
    assert pauses == [pytest.approx(0.3)]


def test_a_full_disk_is_said_and_not_tried_again(server, downloader, make, tmp_path, monkeypatch):
    answers(server, make.Answer(BODY))

    class Full:
        def __init__(self, stream):
            self._stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._stream.close()

        def write(self, _):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    new_file = transport._new_file
    monkeypatch.setattr(transport, "_new_file", lambda path: Full(new_file(path)))
    with pytest.raises(ImageWriteError, match=r"No space left on device; free space"):
        downloader.fetch(server.url, tmp_path / "file")
    assert len(server.requests) == 1
    assert files(tmp_path) == []


def test_an_interrupt_leaves_no_half_file(server, downloader, make, tmp_path, monkeypatch):
    answers(server, make.Answer(BODY))

    def interrupted(stream, chunk, path):
        stream.write(chunk[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(transport, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        downloader.fetch(server.url, tmp_path / "file")
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be(downloader, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ImageWriteError, match="cannot be made"):
        downloader.fetch("http://127.0.0.1:9", tmp_path / "file" / "below" / "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout=0 must be a positive number"),
        ({"retries": -1}, "retries=-1 must be a whole number"),
        ({"retries": 1.5}, "retries=1.5"),
        ({"backoff": float("nan")}, "backoff=nan"),
        ({"rate": "fast"}, "rate='fast'"),
    ],
)
def test_arguments(options, message):
    with pytest.raises(InputError, match=message):
        Downloader(**options)


def test_without_pooch(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'astrogan\[data\]'"):
        Downloader().fetch("http://127.0.0.1:9", tmp_path / "file")
