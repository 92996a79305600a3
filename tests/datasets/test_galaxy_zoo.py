"""Colour stamps, and the archive of Galaxy Zoo 2."""

import hashlib

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from astrogan.datasets import DownloadError, fetch_galaxy_zoo, fetch_galaxy_zoo_archive, galaxy_zoo, galaxy_zoo_query
from astrogan.exceptions import AstroganWarning, InputError
from astrogan.train.sources import StampTar

SAMPLE = Table({"objid": [11, 12], "ra": [150.1234567, 151.0], "dec": [2.0, -2.5], "petroR90_r": [20.0, 0.1]})


@pytest.fixture
def service(server, make):
    stamps = {}

    def answer(path, query):
        size = int(query["width"])
        return make.Answer(stamps.setdefault(size, make.jpeg(size)), headers={"Content-Type": "image/jpeg"})

    server.answer = answer
    return server


def fetch(service, folder, downloader, sample=SAMPLE, **options):
    options = {"size": 64, "server": service.url} | options
    return fetch_galaxy_zoo(folder, sample, downloader=downloader, **options)


def test_stamps_are_asked_for_as_galaxy_zoo_did(service, downloader, tmp_path):
    table = fetch(service, tmp_path, downloader, size=424)
    first, second = service.requests
    assert first.path == "/dr17/SkyServerWS/ImgCutout/getjpeg"
    assert first.query == {"ra": "150.1234567", "dec": "2.0000000", "scale": "0.4", "width": "424", "height": "424"}
    assert second.query["scale"] == "0.015"  # the smallest that the service draws
    assert list(table["file"]) == ["11.jpg", "12.jpg"]
    assert table["pixel_scale"][0] == pytest.approx(0.4)
    checksum = hashlib.sha256((tmp_path / "11.jpg").read_bytes()).hexdigest()
    assert table["sha256"][0] == checksum
    assert list(Table.read(tmp_path / "manifest.ecsv")["sha256"]) == list(table["sha256"])
    assert "petroR90_r" in SAMPLE.colnames  # the user's table is left as it was


def test_stamps_can_be_trained_on(service, downloader, tmp_path):
    fetch(service, tmp_path, downloader)
    source = StampTar(tmp_path, size=None)
    assert len(source) == 2
    assert source.load(0).data.shape == (3, 64, 64)


def test_only_what_is_missing_is_fetched(service, downloader, tmp_path):
    fetch(service, tmp_path, downloader)
    fetch(service, tmp_path, downloader)
    assert len(service.requests) == 2
    path = tmp_path / "12.jpg"
    path.write_bytes(path.read_bytes()[:-10])
    fetch(service, tmp_path, downloader)
    assert len(service.requests) == 3
    # A larger sample adds to the folder, a smaller one forgets nothing.
    fetch(service, tmp_path, downloader, SAMPLE[:1])
    assert len(Table.read(tmp_path / "manifest.ecsv")) == 2
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    ("sample", "name"),
    [
        ([(150.0, 2.0)], "J150.00000+02.00000"),
        (SkyCoord([150.0], [-2.0], unit="deg"), "J150.00000-02.00000"),
        (SkyCoord("10h00m00s -02d00m00s"), "J150.00000-02.00000"),
        (Table({"RA": [150.0], "Dec": [2.0], "name": ["m82"]}), "m82"),
    ],
)
def test_positions_in_all_their_forms(service, downloader, tmp_path, sample, name):
    table = fetch(service, tmp_path, downloader, sample, pixel_scale=0.4)
    assert list(table["file"]) == [f"{name}.jpg"]


def test_a_sample_from_a_file(service, downloader, tmp_path):
    SAMPLE.write(tmp_path / "sample.csv")
    assert len(fetch(service, tmp_path / "out", downloader, tmp_path / "sample.csv", limit=1)) == 1


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda body: body[:-30], "the JPEG ends too early"),
        (lambda body: b"<html>Error: no image</html>", "no JPEG; the server sent a text: 'Error: no image'"),
        (lambda body: b"", "no JPEG"),
        (lambda body: body.replace(b"\x00\x40\x00\x40", b"\x00\x40\x00\x20", 1), r"has \(64, 32\) pixels"),
    ],
)
def test_what_is_no_stamp_is_noted(service, downloader, make, tmp_path, spoil, reason):
    whole = service.answer
    service.answer = lambda path, query: make.Answer(spoil(whole(path, query).body))
    with pytest.warns(AstroganWarning, match=f"2 of 2 objects could not be had.*{reason}"):
        table = fetch(service, tmp_path, downloader)
    assert list(table["status"]) == ["failed", "failed"]
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.ecsv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 63}, "size=63"),
        ({"pixel_scale": 0.001}, "pixel_scale=0.001 must be 0.015 to 60"),
        ({"data_release": 3}, "data_release=3"),
        ({"sample": [(150.0, 2.0)]}, "no column petror90_r"),
        ({"sample": Table({"ra": [1.0], "dec": [2.0], "petror90_r": [np.nan]})}, "petror90_r of J001"),
        ({"sample": 5}, "sample is int"),
        ({"server": "ftp://x"}, "server='ftp://x'"),
    ],
)
def test_arguments(service, downloader, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        fetch(service, tmp_path, downloader, **options)


def test_the_catalogue_of_galaxy_zoo_2(service, downloader, make, tmp_path):
    astroquery = pytest.importorskip("astroquery.sdss")
    csv = "#Table1\nobjid,ra,dec,petror90_r,petromag_r,gz2class\n11,150.0,2.0,20.0,14.1,Sb\n"
    stamps = service.answer

    def answer(path, query):
        return make.Answer(csv.encode()) if path.endswith("x_results.aspx") else stamps(path, query)

    service.answer = answer
    with astroquery.conf.set_temp("skyserver_baseurl", service.url):
        table = fetch(service, tmp_path, downloader, None, limit=1)
    assert list(table["gz2class"]) == ["Sb"]
    assert "TOP 1" in service.requests[0].query["cmd"]
    assert (tmp_path / "11.jpg").is_file()
    assert "WHERE p.petroMag_r < 15" in galaxy_zoo_query(where="p.petroMag_r < 15")


def test_the_archive_is_known_by_its_checksum(server, downloader, make, tmp_path, monkeypatch):
    body = b"PK\x03\x04 not really"
    server.answer = lambda path, query: make.Answer(body)
    with pytest.raises(DownloadError, match="not the file it should be: its hash is not md5:bc647032"):
        fetch_galaxy_zoo_archive(tmp_path, files="images", server=server.url, downloader=downloader)
    assert not list(tmp_path.iterdir())
    known = {"images": ("images_gz2.zip", "md5:" + hashlib.md5(body).hexdigest())}
    monkeypatch.setattr(galaxy_zoo, "_FILES", known)
    for _ in range(2):
        paths = fetch_galaxy_zoo_archive(tmp_path, files="images", server=server.url, downloader=downloader)
    assert paths["images"].read_bytes() == body
    assert [request.path for request in server.requests] == ["/records/3565489/files/images_gz2.zip"] * 2
    with pytest.raises(InputError, match="files="):
        fetch_galaxy_zoo_archive(tmp_path, files="labels")
