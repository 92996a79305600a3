"""SDSS: the query, frames, cutouts, and picking up where a run ended."""

import bz2

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from astrogan import read_image
from astrogan.datasets import DownloadError, fetch_sdss_frames, fetch_sdss_sample, sdss_query, sdss_table
from astrogan.datasets import _collection as collection
from astrogan.datasets._sdss_frame import read_frame
from astrogan.exceptions import AstroganWarning, ImageReadError, ImageWriteError, InputError, MissingDependencyError
from astrogan.train.sources import FitsFolder

SHAPE = (180, 220)
RA, DEC = 150.0, 2.0
# Where (RA, DEC) is in each band's frame, as the bands of SDSS are off by pixels and fractions.
CENTRES = {"g": (113.30, 88.55), "r": (110.0, 90.0), "i": (107.75, 91.10)}
GAIN, DARK, CALIBRATION, SKY = 4.7, 1.3, 0.005, 100.0


def galaxy(x0, y0, flux=50.0, sigma=4.0):
    """A Gaussian galaxy, nanomaggies per pixel."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return flux / (2 * np.pi * sigma**2) * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2))


def frame(make, band, run=94):
    x, y = CENTRES[band]
    return make.frame(galaxy(x, y), make.wcs(RA, DEC, x, y), calibration=CALIBRATION, sky=SKY, band=band, run=run)


@pytest.fixture
def survey(server, make):
    """A server with one field of frames."""
    frames = {band: frame(make, band) for band in CENTRES}

    def answer(path, query):
        name = path.rsplit("/", 1)[-1]
        if name.endswith("-000094-1-0100.fits.bz2") and "/dr12/boss/photoObj/frames/301/94/1/" in path:
            return make.Answer(frames[name.split("-")[1]])
        return make.Answer(status=404)

    server.answer = answer
    return server


def sample(**columns):
    table = Table({"objid": [123], "ra": [RA], "dec": [DEC], "z": [0.015]})
    for name, value in {"run": 94, "rerun": 301, "camcol": 1, "field": 100}.items():
        table[name] = [value]
    for band in "gri":
        table[f"gain_{band}"], table[f"darkvariance_{band}"], table[f"psfwidth_{band}"] = [GAIN], [DARK], [1.3]
    for name, value in columns.items():
        table[name] = value
    return table


def fetch(survey, folder, downloader, galaxies=None, **options):
    options = {"size": 64, "bands": "r", "cache": folder.parent / "cache", "server": survey.url} | options
    return fetch_sdss_sample(folder, sample() if galaxies is None else galaxies, downloader=downloader, **options)


# ---- frames -------------------------------------------------------------------------------------------------------


def test_frames_come_once_with_manifest_and_checksums(survey, downloader, tmp_path):
    seen = []
    table = fetch_sdss_frames(
        [(94, 301, 1, 100), (94, 301, 1, 100)],
        tmp_path,
        bands="gr",
        server=survey.url,
        downloader=downloader,
        progress=lambda *numbers: seen.append(numbers),
    )
    assert list(table["status"]) == ["ok", "ok"]
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [*table["file"], "manifest.ecsv"]
    assert all(len(checksum) == 64 for checksum in table["sha256"])
    assert list(table["bytes"]) == [(tmp_path / name).stat().st_size for name in table["file"]]
    again = fetch_sdss_frames(table, tmp_path, bands="gr", server=survey.url, downloader=downloader)
    assert len(survey.requests) == 2
    assert list(again["fetched"]) == list(table["fetched"])


def test_a_damaged_frame_is_fetched_again_and_a_good_one_without_record_is_not(survey, downloader, tmp_path):
    fields, options = [(94, 301, 1, 100)], {"bands": "gr", "server": survey.url, "downloader": downloader}
    table = fetch_sdss_frames(fields, tmp_path, **options)
    path = tmp_path / table["file"][0]
    good = path.read_bytes()
    path.write_bytes(good[:-100])
    fetch_sdss_frames(fields, tmp_path, **options)
    assert path.read_bytes() == good
    assert len(survey.requests) == 3
    (tmp_path / "manifest.ecsv").unlink()
    path.write_bytes(good[:-100])  # cut off, and no checksum that says so
    fetch_sdss_frames(fields, tmp_path, **options)
    assert path.read_bytes() == good
    assert len(survey.requests) == 4


def test_what_is_no_frame_is_refused(server, downloader, make, tmp_path):
    options = {"bands": "r", "server": server.url, "downloader": downloader}
    bodies = [b"<html><body>Sorry</body></html>", bz2.compress(b"no FITS" * 1000), frame(make, "r")[:-50]]
    for number, body in enumerate(bodies):
        server.answer = lambda path, query, body=body: make.Answer(body)
        with pytest.warns(AstroganWarning, match="1 of 1 objects could not be had"):
            table = fetch_sdss_frames([(94, 301, 1, 100)], tmp_path / str(number), **options)
        assert table["status"][0] == "failed"
        assert [p.name for p in (tmp_path / str(number)).iterdir()] == ["manifest.ecsv"]
    assert "Compressed file ended" in table["reason"][0]


def test_a_dead_service_is_not_asked_for_ever(server, downloader, make, tmp_path):
    server.answer = lambda path, query: make.Answer(status=500)
    fields = [(94, 301, 1, k) for k in range(100, 120)]
    with pytest.raises(DownloadError, match=r"5 objects in a row .*HTTP 500"):
        fetch_sdss_frames(fields, tmp_path, bands="r", server=server.url, downloader=downloader)
    assert len(server.requests) == 5 * 3
    assert list(Table.read(tmp_path / "manifest.ecsv")["status"]).count("failed") == 5


def test_frames_of_another_release_stay_apart(survey, downloader, tmp_path):
    fetch_sdss_frames([(94, 301, 1, 100)], tmp_path, bands="r", server=survey.url, downloader=downloader)
    with pytest.raises(InputError, match=r"data_release=12, and data_release=17 is asked for; name another folder"):
        fetch_sdss_frames([(94, 301, 1, 100)], tmp_path, data_release=17, server=survey.url, downloader=downloader)


def test_addresses_of_the_releases(server, downloader, make, tmp_path):
    for release in (9, 17, 18):
        with pytest.warns(AstroganWarning):
            fetch_sdss_frames(
                [(1737, 301, 5, 28)],
                tmp_path / str(release),
                bands="u",
                data_release=release,
                server=server.url + "/sas/",
                downloader=downloader,
            )
    tail = "photoObj/frames/301/1737/5/frame-u-001737-5-0028.fits.bz2"
    middles = ("dr9/boss", "dr17/eboss", "dr18/prior-surveys/sdss4-dr17-eboss")
    assert [request.path for request in server.requests] == [f"/sas/{middle}/{tail}" for middle in middles]


def test_noise_of_a_frame_is_that_of_the_data_model(make, tmp_path):
    path = tmp_path / "frame.fits.bz2"
    path.write_bytes(frame(make, "r"))
    read = read_frame(path, GAIN, DARK)
    blank = ((SKY / GAIN) + DARK) * CALIBRATION**2
    assert read.variance[0, 0] == pytest.approx(blank, rel=1e-5)
    peak = galaxy(*CENTRES["r"]).max()
    assert read.variance[90, 110] == pytest.approx(blank + peak * CALIBRATION / GAIN, rel=1e-4)
    assert read_frame(path).variance is None
    path.write_bytes(bz2.compress(b"nothing"))
    with pytest.raises(ImageReadError, match="is no frame of SDSS"):
        read_frame(path)


def test_sky_varies_over_the_frame(make, tmp_path):
    packed = make.frame(np.zeros(SHAPE), make.wcs(RA, DEC, 100, 100))
    stream = bz2.decompress(packed)
    path = tmp_path / "frame.fits"
    path.write_bytes(stream)
    with fits.open(path, mode="update") as hdus:
        grid = hdus[2].data["ALLSKY"]
        grid[:] = 100 + 10 * np.arange(grid.shape[2])[None, None, :]
    variance = read_frame(path, 1.0, 0.0).variance
    # The column x lies at (x + 0.5) / 8 - 0.5 of the grid.
    assert variance[50, 44] == pytest.approx((100 + 10 * (44.5 / 8 - 0.5)) * CALIBRATION**2, rel=1e-5)
    assert np.allclose(variance[:, 44], variance[0, 44])


# ---- cutouts ------------------------------------------------------------------------------------------------------


def test_a_cutout_is_calibrated_and_aligned(survey, downloader, tmp_path):
    table = fetch(survey, tmp_path / "out", downloader, bands="gri")
    assert list(table["status"]) == ["ok"]
    assert table["coverage"][0] == 1
    image = read_image(tmp_path / "out" / "123.fits")
    assert image.shape == (3, 64, 64)
    assert str(image.unit) == "nmgy"
    assert image.meta["AGBANDS"] == "g,r,i"
    assert image.meta["REDSHIFT"] == 0.015
    x, y = image.wcs.celestial.world_to_pixel_values(RA, DEC)
    assert abs(x - 31.5) <= 0.5
    assert abs(y - 31.5) <= 0.5
    rows, columns = np.mgrid[:64, :64]
    for plane in image.data:
        # All bands have the galaxy in the same place, and all of its flux.
        assert (plane * columns).sum() / plane.sum() == pytest.approx(x, abs=0.01)
        assert (plane * rows).sum() / plane.sum() == pytest.approx(y, abs=0.01)
        assert plane.sum() == pytest.approx(50, rel=1e-4)
    noise = np.sqrt((SKY / GAIN + DARK) * CALIBRATION**2)
    assert image.uncertainty.array[:, 0, 0] == pytest.approx([noise] * 3, rel=1e-4)
    assert image.psf.shape[0] == 3
    assert image.psf.sum(axis=(1, 2)) == pytest.approx([1, 1, 1], abs=1e-5)


def test_the_pixels_of_r_are_those_of_the_frame(survey, downloader, make, tmp_path):
    fetch(survey, tmp_path / "out", downloader, bands="gr")
    mine = read_image(tmp_path / "out" / "123.fits", hdu="r")
    whole = galaxy(*CENTRES["r"]).astype(np.float32)
    x0, y0 = (round(c - 31.5) for c in CENTRES["r"])
    assert np.array_equal(mine.data, whole[y0 : y0 + 64, x0 : x0 + 64])
    ra, dec = mine.wcs.pixel_to_world_values(10, 20)
    assert make.wcs(RA, DEC, *CENTRES["r"]).world_to_pixel_values(ra, dec) == pytest.approx((x0 + 10, y0 + 20))


def test_cutouts_can_be_trained_on(survey, downloader, tmp_path):
    fetch(survey, tmp_path / "out", downloader, bands="gri")
    source = FitsFolder(tmp_path / "out", bands="all")
    assert (len(source), source.name(0), source.bands) == (1, "123", ("g", "r", "i"))
    loaded = source.load(0)
    assert loaded.data.shape == (3, 64, 64)
    assert loaded.pixel_scale == pytest.approx(0.396, rel=1e-4)
    assert loaded.psf_fwhm == pytest.approx(1.3 / 0.396, rel=0.02)


def test_without_gain_there_is_no_uncertainty(survey, downloader, tmp_path):
    galaxies = sample()["objid", "ra", "dec", "run", "rerun", "camcol", "field"]
    fetch(survey, tmp_path / "out", downloader, galaxies)
    image = read_image(tmp_path / "out" / "123.fits")
    assert image.uncertainty is None
    assert image.psf is None


def test_one_band(survey, downloader, tmp_path):
    fetch(survey, tmp_path / "out", downloader, bands="g")
    fetch(survey, tmp_path / "out", downloader, bands="g")
    assert read_image(tmp_path / "out" / "123.fits").shape == (64, 64)
    assert len(survey.requests) == 1


def two_galaxies(make):
    """One in the middle, one 8 pixels from the frame's left edge."""
    ra, dec = make.wcs(RA, DEC, *CENTRES["r"]).pixel_to_world_values(8, 90)
    one, two = sample(), sample(objid=[124], ra=[float(ra)], dec=[float(dec)])
    table = one.copy()
    table.add_row(two[0])
    return table


def test_a_field_comes_once_and_its_frames_go(survey, downloader, make, tmp_path):
    table = fetch(survey, tmp_path / "out", downloader, two_galaxies(make), bands="gri")
    assert len(survey.requests) == 3
    assert list(table["status"]) == ["ok", "ok"]
    assert list((tmp_path / "cache").iterdir()) == []
    assert 0.5 < table["coverage"][1] < 0.7
    image = read_image(tmp_path / "out" / "124.fits")
    assert image.mask[:, :, 0].all()
    assert not image.mask[:, 10:50, 40:].any()
    assert np.isfinite(image.data).all()


def test_frames_can_stay_and_are_used(survey, downloader, make, tmp_path):
    fetch(survey, tmp_path / "out", downloader, keep_frames=True)
    assert len(list((tmp_path / "cache").glob("frame-*.fits.bz2"))) == 1
    fetch(survey, tmp_path / "second", downloader, keep_frames=True)
    fetch(survey, tmp_path / "third", downloader, keep_frames=False)
    assert len(survey.requests) == 1
    # What another call brought is not this one's to delete.
    assert len(list((tmp_path / "cache").glob("frame-*.fits.bz2"))) == 1


def test_galaxies_at_the_edge_can_be_left_out(survey, downloader, make, tmp_path):
    table = fetch(survey, tmp_path / "out", downloader, two_galaxies(make), min_coverage=0.9)
    assert list(table["status"]) == ["ok", "left out"]
    assert "edge of its field" in table["reason"][1]
    assert not (tmp_path / "out" / "124.fits").exists()


def test_a_second_call_fetches_only_what_is_missing_or_damaged(survey, downloader, make, tmp_path):
    galaxies = two_galaxies(make)
    fetch(survey, tmp_path / "out", downloader, galaxies)
    first = (tmp_path / "out" / "123.fits").read_bytes()
    fetch(survey, tmp_path / "out", downloader, galaxies)
    assert len(survey.requests) == 1
    (tmp_path / "out" / "123.fits").write_bytes(first[:5000])
    table = fetch(survey, tmp_path / "out", downloader, galaxies)
    assert len(survey.requests) == 2
    assert (tmp_path / "out" / "123.fits").read_bytes() == first
    assert list(table["status"]) == ["ok", "ok"]


def test_a_killed_run_goes_on_where_it_was(survey, downloader, make, tmp_path, monkeypatch):
    """Without the manifest's last words, files are known by their content."""
    galaxies = two_galaxies(make)
    with monkeypatch.context() as patch:
        patch.setattr(collection.Collection, "save", lambda self: None)
        fetch(survey, tmp_path / "out", downloader, galaxies)
    (tmp_path / "out" / "124.fits").write_bytes((tmp_path / "out" / "124.fits").read_bytes()[:9000])
    before = (tmp_path / "out" / "123.fits").stat().st_mtime_ns
    table = fetch(survey, tmp_path / "out", downloader, galaxies)
    assert list(table["status"]) == ["ok", "ok"]
    assert table["coverage"][0] == 1
    assert (tmp_path / "out" / "123.fits").stat().st_mtime_ns == before


def test_an_interrupt_leaves_whole_files_and_a_manifest(survey, downloader, make, tmp_path):
    def interrupt(done, total):
        if done == 1:
            raise KeyboardInterrupt

    galaxies = two_galaxies(make)
    galaxies["field"][1] = 101
    with pytest.raises(KeyboardInterrupt):
        fetch(survey, tmp_path / "out", downloader, galaxies, progress=interrupt)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["123.fits", "manifest.ecsv"]
    assert list(Table.read(tmp_path / "out" / "manifest.ecsv")["status"]) == ["ok", "missing"]


def test_a_field_that_is_not_there_is_noted_and_the_others_come(survey, downloader, make, tmp_path):
    galaxies = two_galaxies(make)
    galaxies["field"][0] = 99
    with pytest.warns(AstroganWarning, match="1 of 2 objects could not be had, the first, 123, because of"):
        table = fetch(survey, tmp_path / "out", downloader, galaxies)
    assert list(table["status"]) == ["failed", "ok"]
    assert "HTTP 404" in table["reason"][0]


def test_a_dead_service_ends_the_run_after_some_fields(server, downloader, make, tmp_path):
    server.answer = lambda path, query: make.Answer(status=503)
    galaxies = sample()
    for field in range(101, 110):
        galaxies.add_row(sample(objid=[field], field=[field])[0])
    with pytest.raises(DownloadError, match="5 objects in a row"):
        fetch(server, tmp_path / "out", downloader, galaxies)
    assert len(server.requests) == 5 * 3  # three attempts at the first band of five fields


def test_a_full_disk_ends_the_run(survey, downloader, make, tmp_path, monkeypatch):
    def full(*_, **__):
        raise ImageWriteError("No space left on device")

    monkeypatch.setattr("astrogan.image.write.write_image", full)
    with pytest.raises(ImageWriteError, match="No space left"):
        fetch(survey, tmp_path / "out", downloader, two_galaxies(make))
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_holds_one_kind(survey, downloader, tmp_path):
    fetch(survey, tmp_path / "out", downloader)
    with pytest.raises(InputError, match=r"holds files with size=64, and size=32 is asked for"):
        fetch(survey, tmp_path / "out", downloader, size=32)


def test_a_manifest_that_is_none(survey, downloader, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.ecsv").write_text("rubbish")
    with pytest.raises(ImageReadError, match="delete it and call again"):
        fetch(survey, tmp_path / "out", downloader)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 7}, "size=7 must be a whole number from 8 to 1489"),
        ({"bands": "gx"}, "bands='gx' must be different letters"),
        ({"bands": ""}, "bands=''"),
        ({"min_coverage": 2}, "min_coverage=2"),
        ({"data_release": 7}, "data_release=7"),
        ({"server": "data.sdss.org"}, "server='data.sdss.org' must be an address"),
        ({"limit": 0}, "limit=0"),
    ],
)
def test_arguments(survey, downloader, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        fetch(survey, tmp_path / "out", downloader, **options)
    assert not survey.requests


def test_samples_that_are_none(survey, downloader, tmp_path):
    for galaxies, message in [
        (sample()["ra", "dec"], "sample has no column run, rerun, camcol, field"),
        (sample()[:0], "sample is empty"),
        (sample(ra=[400.0]), "'ra' has 400.0; it must be 0 to 360"),
        (sample(name=["../evil"]), "sample has the name '../evil'"),
        (sample(camcol=[9]), "camcol 1 to 6"),
        ([(1, 2, 3)], "sample is list"),
    ]:
        with pytest.raises(InputError, match=message):
            fetch(survey, tmp_path / "out", downloader, galaxies)
    twice = sample()
    twice.add_row(twice[0])
    with pytest.raises(InputError, match="'123' twice"):
        fetch(survey, tmp_path / "out", downloader, twice)


# ---- the catalogue ------------------------------------------------------------------------------------------------

CSV = """#Table1
objid,specobjid,ra,dec,z,zerr,run,rerun,camcol,field,petror50_r,petror90_r,gain_r,darkvariance_r,psfwidth_r
1237648702966202513,299489677444933632,150.0,2.0,0.0151,1e-05,94,301,1,100,12.5,30.1,4.71,1.8225,1.31
1237648702966202513,299489677444933632,150.0,2.0,0.0151,1e-05,94,301,1,100,12.5,30.1,4.71,1.8225,1.31
1237661087497584654,10378412345678901234,151.0,2.1,0.0188,1e-05,94,301,1,101,8.5,20.1,4.71,1.8225,1.31
"""


@pytest.fixture
def catalogue(server, make):
    """``catalogue.text`` is what SDSS' SkyServer says to a query."""
    astroquery = pytest.importorskip("astroquery.sdss")
    server.text, server.status, frames = CSV, 200, server.answer

    def answer(path, query):
        if path.endswith("x_results.aspx"):
            return make.Answer(server.text.encode(), server.status, {"Content-Type": "text/plain"})
        return frames(path, query)

    server.answer = answer
    with astroquery.conf.set_temp("skyserver_baseurl", server.url):
        yield server


def test_query_says_what_the_paper_says():
    sql = sdss_query()
    assert "s.z > 0.01 AND s.z < 0.02" in sql
    assert "s.class = 'GALAXY'" in sql
    assert all(f"f.gain_{band} AS gain_{band}" in sql for band in "gri")
    assert "TOP" not in sql
    assert sdss_query(limit=10, where="p.petroMag_r < 15").count("AND (p.petroMag_r < 15)") == 1
    for options, message in [
        ({"redshift": (0.02, 0.01)}, "redshift"),
        ({"redshift": 0.01}, "redshift"),
        ({"where": "1=1; drop table x"}, "where"),
        ({"bands": "gg"}, "bands"),
        ({"limit": 0}, "limit"),
    ]:
        with pytest.raises(InputError, match=message):
            sdss_query(**options)


def test_the_catalogue_is_asked_and_read(catalogue, downloader):
    sql = sdss_query(bands="r", limit=3)
    table = sdss_table(sql, downloader=downloader)
    request = catalogue.requests[0]
    assert request.path == "/dr12/en/tools/search/x_results.aspx"
    assert request.query["format"] == "csv"
    assert " ".join(request.query["cmd"].split()) == " ".join(sql.split())
    assert list(table["objid"]) == [1237648702966202513, 1237661087497584654]
    assert table["specobjid"][1] == 10378412345678901234  # more than 63 bits
    assert table["z"][1] == 0.0188
    assert table.meta["sql"] == sql


@pytest.mark.parametrize(
    ("text", "status", "message", "asked"),
    [
        ("<html><body>The server is busy</body></html>", 200, "no table but 'The server is busy'", 3),
        ("", 200, "no table", 3),
        (CSV[:-20].rsplit(",", 3)[0], 200, "ends within a line", 3),
        ("error_message: Incorrect syntax near FROM", 200, "SDSS refuses the query.*near FROM", 1),
        ("<html>error_message</html>", 500, "SDSS refuses", 1),
        ("x", 503, "HTTP 503", 3),
        ("x", 404, "HTTP 404", 1),
    ],
)
def test_other_answers(catalogue, downloader, text, status, message, asked):
    catalogue.text, catalogue.status = text, status
    with pytest.raises(DownloadError, match=message):
        sdss_table(sdss_query(), downloader=downloader)
    assert len(catalogue.requests) == asked


@pytest.mark.parametrize("text", [CSV.split("\n12")[0] + "\n", "No objects have been found\n"])
def test_an_empty_answer(catalogue, downloader, text):
    catalogue.text = text
    with pytest.raises(InputError, match="the query finds nothing in SDSS DR12"):
        sdss_table(sdss_query(), downloader=downloader)


def test_any_question_may_be_asked(catalogue, downloader):
    catalogue.text = "#Table1\nn\n4550\n"
    table = sdss_table("SELECT COUNT(*) AS n FROM SpecObj", data_release=17, downloader=downloader)
    assert (list(table["n"]), catalogue.requests[0].path) == ([4550], "/dr17/en/tools/search/x_results.aspx")


def test_the_sample_of_the_paper_from_query_to_cutouts(survey, catalogue, downloader, tmp_path):
    options = {"size": 64, "bands": "r", "cache": tmp_path / "cache", "server": catalogue.url}
    options["downloader"] = downloader
    with pytest.warns(AstroganWarning, match="1 of 2"):  # the server has no frames of field 101
        table = fetch_sdss_sample(tmp_path / "out", **options)
    assert list(table["name"]) == ["1237648702966202513", "1237661087497584654"]
    assert list(table["status"]) == ["ok", "failed"]
    image = read_image(tmp_path / "out" / "1237648702966202513.fits")
    assert image.meta["REDSHIFT"] == 0.0151
    asked = len(catalogue.requests)
    with pytest.warns(AstroganWarning):
        fetch_sdss_sample(tmp_path / "out", **options)
    assert [r.path.split("/")[-1] for r in catalogue.requests[asked:]] == ["frame-r-000094-1-0101.fits.bz2"]
    with pytest.raises(InputError, match="the answer to another query"):
        fetch_sdss_sample(tmp_path / "out", redshift=(0.02, 0.03), **options)


def test_without_astroquery(tmp_path, downloader, monkeypatch):
    pytest.importorskip("pooch")
    for name in ("astroquery", "astroquery.sdss"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"astrogan\[data\].*give a sample of your own"):
        fetch_sdss_sample(tmp_path / "out", downloader=downloader)
