"""Damaged images are named, left out and counted; too many of them end the training."""

import csv
import io
import logging
import tarfile

import numpy as np
import pytest
from astropy.io import fits

from astrogan.exceptions import ImageReadError, InputError
from astrogan.train import Recipe, fit
from astrogan.train.sources import FitsFolder, Sample, Source, StampTar, Watched
from astrogan.weights import load_weights

pytest.importorskip("lightning")
pillow = pytest.importorskip("PIL.Image")


class Stamps(Source):
    """Ten images, some of which cannot be used."""

    bands = ("any",)

    def __init__(self, faults):
        self.faults = faults

    def __len__(self):
        return 10

    def name(self, i):
        return f"galaxy {i}"

    def load(self, i):
        fault = self.faults.get(i)
        if isinstance(fault, Exception):
            raise fault
        return Sample(np.full((1, 8, 8), np.nan if fault == "nan" else i, np.float32))

    def describe(self):
        return {}


def values(source):
    return [int(source.load(i).data[0, 0, 0]) for i in range(len(source))]


def test_the_next_image_takes_its_place(caplog):
    source = Watched(Stamps({3: ImageReadError("it ends too early"), 4: "nan", 9: OSError("input/output error")}), 0.3)
    for _ in range(2):
        assert values(source) == [0, 1, 2, 5, 5, 5, 6, 7, 8, 0]
    assert source.damaged == {
        "galaxy 3 (3)": "it ends too early",
        "galaxy 4 (4)": "it holds values that are not finite",
        "galaxy 9 (9)": "input/output error",
    }
    assert [record.levelno for record in caplog.records] == 3 * [logging.WARNING]  # once each
    assert "'galaxy 3 (3)' is damaged and left out: it ends too early" in caplog.text
    assert len(source.reports()) == 3
    assert source.reports() == []


@pytest.mark.parametrize(("part", "borne"), [(0.0, 0), (0.05, 1), (0.2, 2)])
def test_too_many_are_an_error(part, borne):
    source = Watched(Stamps({i: ImageReadError("torn") for i in range(borne + 1)}), part)
    with pytest.raises(ImageReadError, match=rf"{borne + 1} of 10 images are damaged, more than max_damaged={part:g}"):
        source.load(0)


def test_nothing_left_is_an_error():
    with pytest.raises(ImageReadError, match="none of the 10 images can be read"):
        Watched(Stamps(dict.fromkeys(range(10), "nan")), 1.0).load(5)


# ---- files -----------------------------------------------------------------------------------------------------------


def galaxy(i, size=40):
    rng = np.random.default_rng(i)
    y, x = np.mgrid[:size, :size] - size / 2
    return 50 * np.exp(-np.hypot(x, y) / 4) + rng.normal(0, 1, (size, size))


@pytest.fixture
def stamps(tmp_path):
    """Thirty FITS stamps, of which one is cut off and one without a finite pixel."""
    folder = tmp_path / "stamps"
    folder.mkdir()
    for i in range(30):
        fits.PrimaryHDU(galaxy(i).astype(np.float32)).writeto(folder / f"g{i:02d}.fits")
    torn = folder / "g07.fits"
    torn.write_bytes(torn.read_bytes()[:4000])
    fits.PrimaryHDU(np.full((40, 40), np.nan, np.float32)).writeto(folder / "g11.fits", overwrite=True)
    return folder


def test_damaged_fits_files(stamps, caplog):
    source = FitsFolder(stamps, max_damaged=0.1)
    assert len(source) == 28
    assert set(source.damaged) == {"g07.fits", "g11.fits"}
    assert source.describe()["damaged"] == 2
    assert "g07.fits" in caplog.text
    assert "g11.fits" in caplog.text
    with pytest.raises(ImageReadError, match=r"2 of 30 images are damaged.*g07.fits: .*g11.fits: "):
        FitsFolder(stamps, max_damaged=0.05)
    with pytest.raises((ImageReadError, InputError), match=r"g07"):
        FitsFolder(stamps)


RECIPE = Recipe(
    "tiny",
    steps=6,
    batch=4,
    crop=32,
    epoch_steps=3,
    validate_every=9,
    validation_images=2,
    network={"widths": [4], "blocks": [1], "balances": [0.1], "radius": 8},
    training={"loss": "linear", "warmup": 2},
    degradation={"kind": "physical", "fwhm": [2.0, 4.0]},
    data=[{"kind": "fits", "path": "stamps"}],
    max_damaged=0.1,
)


def rows(run):
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_on_damaged_fits_files(stamps, tmp_path):
    card = load_weights(fit(RECIPE, data=tmp_path, out=tmp_path / "run")).card
    assert card["data"][0]["damaged"] == 2
    assert card["data"][0]["images"] == 28
    with pytest.raises(ImageReadError, match="2 of 30 images are damaged"):
        fit(RECIPE, data=tmp_path, out=tmp_path / "other", overrides={"max_damaged": 0.05})
    assert not (tmp_path / "other").exists()


def archive(path, count=40, torn=()):
    """A tar of JPEG stamps, some of which break off."""
    with tarfile.open(path, "w") as tar:
        for i in range(count):
            levels = np.clip(galaxy(i, 48)[..., None] + np.array([40, 60, 80]), 0, 255).astype(np.uint8)
            stream = io.BytesIO()
            pillow.fromarray(levels).save(stream, "JPEG", quality=95)
            content = stream.getvalue()[:400] if i in torn else stream.getvalue()
            member = tarfile.TarInfo(f"{i:03d}.jpg")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_a_run_on_damaged_pictures_names_and_counts_them(tmp_path):
    archive(tmp_path / "stamps.tar", torn=(4, 12))
    data = [{"kind": "stamps", "path": "stamps.tar", "size": 48, "bands": "each"}]
    recipe = RECIPE.with_overrides({"data": data, "steps": 12, "batch": 8, "max_damaged": 0.2})
    assert fit(recipe, data=tmp_path, out=tmp_path / "run", stop_after=2) is None
    path = fit(None, data=tmp_path, out=tmp_path / "run", resume=True)
    straight = fit(recipe, data=tmp_path, out=tmp_path / "straight", workers=1)
    for folder in (path.parent, straight.parent):
        named = (folder / "damaged.txt").read_text().splitlines()
        assert named
        assert {line.split()[0] for line in named} <= {"004", "012"}
        assert float(rows(folder)[-1]["damaged"]) == len(named)
        assert (
            f"Damaged images, left out of the training: {len(named)} (0"
            in load_weights(folder / "tiny.safetensors").card["notes"]
        )
    assert (path.parent / "damaged.txt").read_text() == (straight.parent / "damaged.txt").read_text()
    one, other = (load_weights(p).tensors for p in (path, straight))
    assert all((one[name] == other[name]).all() for name in one)


def test_a_run_ends_where_too_many_are_damaged(tmp_path):
    archive(tmp_path / "stamps.tar", torn=range(0, 40, 2))
    data = [{"kind": "stamps", "path": "stamps.tar", "size": 48, "bands": "each"}]
    with pytest.raises(ImageReadError, match="images are damaged, more than max_damaged=0.1 allows"):
        fit(RECIPE.with_overrides({"data": data}), data=tmp_path, out=tmp_path / "run")


def test_a_stamp_that_breaks_off_is_refused(tmp_path):
    archive(tmp_path / "stamps.tar", 3, torn=(1,))
    with pytest.raises(ImageReadError, match="stamp '001' .* cannot be read"):
        StampTar(tmp_path / "stamps.tar", 48).load(1)


@pytest.mark.parametrize("edge", [20_000, 5000])
def test_a_picture_that_unpacks_to_gigabytes_counts_as_damaged(tmp_path, edge):
    """A few kilobytes; the larger one Pillow itself refuses, by an error of no common kind."""
    for name in ("b", "c"):
        pillow.new("RGB", (16, 16), (40, 40, 40)).save(tmp_path / f"{name}.png")
    pillow.new("1", (edge, edge)).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < 100_000
    with pytest.raises(ImageReadError, match=r"stamp 'a' in .* cannot be read: .* pixels"):
        StampTar(tmp_path, 16).load(0)
    source = Watched(StampTar(tmp_path, 16), max_damaged=0.5)
    assert source.load(0).data.shape == (3, 16, 16)
    assert list(source.damaged) == ["a (0)"]


def test_whatever_pillow_raises_counts_as_damaged(tmp_path, monkeypatch):
    pillow.new("RGB", (16, 16)).save(tmp_path / "a.png")
    source = StampTar(tmp_path, 16)

    def broken(*_, **__):
        raise IndexError("a chunk ends too early")

    monkeypatch.setattr(pillow, "open", broken)
    with pytest.raises(ImageReadError, match="stamp 'a' in .* cannot be read: a chunk"):
        source.load(0)
