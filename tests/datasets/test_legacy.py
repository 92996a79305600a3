"""Cutouts of the Legacy Surveys."""

import io

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import InverseVariance

from astrogan import read_image
from astrogan.datasets import fetch_legacy_cutouts
from astrogan.exceptions import AstroganWarning, InputError

POSITIONS = [(154.77, 46.45), (155.0, 46.5)]
SIZE = 32


def cutout(make, ra, dec, bands="grz", size=SIZE, *, ivar=True, empty=False, overlap=True, scale=0.262):
    """What the service answers: a cube, its inverse variance, a WCS for both, BAND0 ... and no unit."""
    rng = np.random.default_rng(int(ra * 100))
    shape = (len(bands), size, size)
    image, weight = rng.normal(0, 0.01, shape).astype("f4"), np.full(shape, 1e4, "f4")
    weight[0, :4], image[0, :4] = 0, 0
    if empty:
        image[:], weight[:] = 0, 0
    if len(bands) == 1:
        image, weight = image[0], weight[0]
    header = make.wcs(ra, dec, (size - 1) / 2, (size - 1) / 2, scale).to_header()
    header["SURVEY"], header["VERSION"], header["BANDS"] = "LegacySurvey", "DR10", bands
    for number, band in enumerate(bands):
        header[f"BAND{number}"] = band
    header["IMAGETYP"] = "IMAGE"
    if not overlap:
        header["OVERLAP"] = False
    hdus = [fits.PrimaryHDU(image if overlap else None, header)]
    if ivar and overlap:
        second = header.copy()
        second["IMAGETYP"] = "INVVAR"
        hdus.append(fits.ImageHDU(weight, second))
    stream = io.BytesIO()
    fits.HDUList(hdus).writeto(stream)
    return stream.getvalue()


@pytest.fixture
def service(server, make):
    """``service.options`` are those of `cutout`."""
    server.options = {}

    def answer(path, query):
        options = {"bands": query["bands"], "size": int(query["size"]), "ivar": "invvar" in query} | server.options
        return make.Answer(cutout(make, float(query["ra"]), float(query["dec"]), **options))

    server.answer = answer
    return server


def fetch(service, folder, downloader, sample=POSITIONS, **options):
    options = {"size": SIZE, "server": service.url} | options
    return fetch_legacy_cutouts(folder, sample, downloader=downloader, **options)


def test_cutouts_have_flux_wcs_weights_and_mask(service, downloader, make, tmp_path):
    table = fetch(service, tmp_path, downloader)
    request = service.requests[0]
    assert request.path == "/fits-cutout"
    assert request.query == {
        "ra": "154.7700000",
        "dec": "46.4500000",
        "layer": "ls-dr10",
        "pixscale": "0.262",
        "bands": "grz",
        "size": "32",
        "invvar": "",
    }
    assert list(table["status"]) == ["ok", "ok"]
    assert list(table["has_ivar"]) == [True, True]
    assert table["coverage"][0] == 28 / 32
    image = read_image(tmp_path / table["file"][0])
    assert str(image.unit) == "nmgy"
    assert image.meta["AGBANDS"] == "g,r,z"
    assert isinstance(image.uncertainty, InverseVariance)
    with fits.open(io.BytesIO(cutout(make, *POSITIONS[0]))) as hdus:
        assert np.array_equal(image.data, hdus[0].data)
        assert np.array_equal(image.uncertainty.array, hdus[1].data)
    assert image.mask[0, :4].all()
    assert image.mask.sum() == 4 * SIZE
    assert image.wcs.celestial.world_to_pixel_values(*POSITIONS[0]) == pytest.approx((15.5, 15.5), abs=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == [*table["file"], "manifest.ecsv"]


def test_only_what_is_missing_is_fetched(service, downloader, tmp_path):
    first = fetch(service, tmp_path, downloader)
    (tmp_path / first["file"][1]).write_bytes(b"SIMPLE  =")
    again = fetch(service, tmp_path, downloader)
    assert len(service.requests) == 3
    assert list(again["sha256"]) == list(first["sha256"])
    (tmp_path / "manifest.ecsv").unlink()
    third = fetch(service, tmp_path, downloader)
    assert len(service.requests) == 3
    assert list(third["coverage"]) == list(first["coverage"])
    assert list(third["has_ivar"]) == [True, True]


def test_a_layer_without_weights(service, downloader, tmp_path):
    service.options = {"ivar": False}
    table = fetch(service, tmp_path, downloader)
    assert not table["has_ivar"].any()
    image = read_image(tmp_path / table["file"][0])
    assert image.uncertainty is None
    assert image.mask[0, :4].all()
    with pytest.raises(InputError, match="inverse_variance=True, and inverse_variance=False is asked for"):
        fetch(service, tmp_path, downloader, inverse_variance=False)
    fetch(service, tmp_path / "other", downloader, inverse_variance=False)
    assert "invvar" not in service.requests[-1].query


def test_one_band(service, downloader, tmp_path):
    table = fetch(service, tmp_path, downloader, bands="r")
    image = read_image(tmp_path / table["file"][0])
    assert image.shape == (SIZE, SIZE)
    assert isinstance(image.uncertainty, InverseVariance)


@pytest.mark.parametrize("options", [{"empty": True}, {"overlap": False}])
def test_outside_of_the_survey(service, downloader, tmp_path, options):
    service.options = options
    table = fetch(service, tmp_path, downloader)
    assert list(table["status"]) == ["left out"] * 2
    assert table["reason"][0] == "the layer has no data here"
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.ecsv"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": 16}, r"image has shape \(3, 16, 16\), not \(3, 32, 32\)"),
        ({"bands": "gri"}, "bands 'gri', not 'grz'; the layer may not have these"),
    ],
)
def test_something_else_than_was_asked_for(service, downloader, tmp_path, options, reason):
    service.options = options
    with pytest.warns(AstroganWarning, match=reason):
        fetch(service, tmp_path, downloader)
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.ecsv"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda body: b"<html><h1>Server Error (500)</h1></html>", "Server Error"),
        (lambda body: body[: len(body) // 2 + 100], "the FITS file ends too early"),
        (lambda body: body[: 2880 * 3], "tried 3 times"),
        (lambda body: body[: 2880 * (len(body) // 2880 - 1)], "tried 3 times"),
        (lambda body: b"", "this is no FITS file"),
    ],
)
def test_broken_answers(service, downloader, make, tmp_path, spoil, reason):
    whole = service.answer
    service.answer = lambda path, query: make.Answer(spoil(whole(path, query).body))
    with pytest.warns(AstroganWarning, match=reason):
        fetch(service, tmp_path, downloader)
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.ecsv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 3001}, "size=3001 must be a whole number from 8 to 3000"),
        ({"pixel_scale": 0}, "pixel_scale=0"),
        ({"bands": "ugr"}, "bands='ugr'"),
        ({"layer": "ls dr10"}, "layer='ls dr10'"),
        ({"sample": [(400, 0)]}, "'ra' has 400.0"),
    ],
)
def test_arguments(service, downloader, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        fetch(service, tmp_path, downloader, **options)
    assert not service.requests
