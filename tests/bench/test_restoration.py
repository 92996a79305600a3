"""The restoration benchmark on small simulated stamps: its numbers, its tables, and that it goes on where it was."""

import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from astrogan import Degrader
from astrogan.bench import restoration
from astrogan.bench._grid import Cell, Workplace
from astrogan.bench._paper_tables import FWHMS, NOISE_RATIOS, paper_psnr
from astrogan.bench._restoration_rows import Row, backend_row, backend_rows, tune
from astrogan.bench._restoration_scores import Reference, blank_sky_scores
from astrogan.bench._restoration_tables import bootstrap_interval
from astrogan.bench._stamps import read_stamps
from astrogan.exceptions import ImageReadError, InputError
from astrogan.image.stretch import GalaxyGAN2017Stretch
from astrogan.train.sources import FitsFolder, StampTar
from astrogan.train.split import part_of

EDGE = 48
GRID = {"fwhms": (1.4, 1.8), "noise_ratios": (2.0,)}
FAST = {
    **GRID,
    "part": "all",
    "size": EDGE,
    "tune_images": 3,
    "photometry_images": 2,
    "blank_frames": 1,
    "aperture": 2.0,
}
CLASSIC = ("identity", "gaussian", "richardson-lucy", "richardson-lucy (tuned)")


def galaxy(rng, edge=EDGE, bands=3):
    """Flux of an inclined exponential disc, nanomaggies, with the noise of SDSS."""
    y, x = np.indices((edge, edge)) - (edge - 1) / 2
    angle, axis_ratio, scale = rng.uniform(0, np.pi), rng.uniform(0.3, 0.9), rng.uniform(2.5, 4.0)
    u, v = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / axis_ratio
    truth = rng.uniform(0.5, 1.5, (bands, 1, 1)) * np.exp(-np.hypot(u, v) / scale)
    return truth, truth + rng.normal(0, 0.02, truth.shape)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four JPEG stamps in the paper's stretch."""
    rng = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("stamps")
    for k in range(4):
        y = np.clip(GalaxyGAN2017Stretch().forward(galaxy(rng)[1]), 0, 1)
        picture = Image.fromarray(np.moveaxis(np.rint(255 * y).astype(np.uint8), 0, -1))
        picture.save(path / f"galaxy{k}.jpg", quality=95)
    return path


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory):
    return restoration.run(folder, classic=CLASSIC, out=tmp_path_factory.mktemp("out") / "new", **FAST)


def line(result, row, fwhm=1.8):
    table = result.table
    return table[(table["row"] == row) & (table["fwhm"] == fwhm)][0]


# ---- the numbers ----------------------------------------------------------------------------------------------------


def test_identity_is_what_the_definition_gives(folder, result):
    """PSNR of the degraded image, written out; the noise is another draw of the same recipe."""
    expected = []
    for stamp in read_stamps(folder, part="all", size=EDGE):
        degrader = Degrader.preset("galaxygan2017", fwhm=1.8 / 0.396, noise_ratio=2.0, shared_band_noise=False)
        seen = degrader.batch(stamp.flux[None], rng=11)[0]
        stretch = [np.arcsinh(10 * (np.clip(x, -0.1, 4) + 0.1) / 4.1) / 3 for x in (stamp.flux, seen)]
        a, b = (np.rint(255 * y) for y in stretch)
        expected.append(10 * np.log10(255**2 / np.mean((a - b) ** 2)))
    assert line(result, "identity")["psnr"] == pytest.approx(np.mean(expected), abs=0.15)
    exactly = result.images["independent", 1.8, 2.0, "identity"]
    assert line(result, "identity")["psnr"] == pytest.approx(np.mean(exactly["psnr"]))
    assert list(exactly["image"]) == [s.name for s in read_stamps(folder, part="all", size=EDGE)]


def test_tuning_never_costs(result):
    """On the images that it looks at; the fourth is not among them."""
    for fwhm in GRID["fwhms"]:
        of = {row: np.mean(result.images["independent", fwhm, 2.0, row]["psnr"][:3]) for row in CLASSIC}
        assert of["gaussian"] >= of["identity"]
        assert of["richardson-lucy (tuned)"] >= of["richardson-lucy"]
    assert line(result, "gaussian")["tuned"] > 0
    assert np.isnan(line(result, "identity")["tuned"])


def test_intervals_cover_and_differences_are_paired(result):
    for row in result.table:
        assert row["psnr_low"] <= row["psnr"] <= row["psnr_high"]
    best = line(result, "gaussian")["best_classic"]
    assert best in CLASSIC[1:]
    assert line(result, best)["gain"] == 0
    images = {row: result.images["independent", 1.8, 2.0, row]["psnr"] for row in ("identity", best)}
    assert line(result, "identity")["gain"] == pytest.approx(np.mean(images["identity"] - images[best]))


def test_bootstrap_interval_covers_as_often_as_it_says(rng):
    """Of 120 samples of 40 from a known mean, about 95 % of the intervals hold it."""
    held = 0
    for k in range(120):
        low, high = bootstrap_interval(rng.exponential(size=40), key=k)
        held += low < 1.0 < high
    assert 105 <= held <= 119
    assert np.isnan(bootstrap_interval([1.0])).all()


def test_photometry_is_of_the_first_images_alone(result):
    images = result.images["independent", 1.8, 2.0, "identity"]
    for name in ("ssim", "flux_bias", "ellipticity_error", "texture"):
        assert np.isfinite(images[name][:2]).all()
        assert np.isnan(images[name][2:]).all()
    # Blurs take light out of an aperture: one less than two.
    assert line(result, "gaussian")["flux_bias_mean"] < line(result, "identity")["flux_bias_mean"] < 0
    assert 0 < line(result, "identity")["ellipticity_error"] < 0.5
    # Twice the noise, all of it white, is twice as grainy or more, which smoothing ends.
    assert 1.8 < line(result, "identity")["texture"] < 2.6
    assert line(result, "gaussian")["texture"] < 0.5


def test_limit_is_what_noise_of_that_size_gives(folder, result):
    limit = line(result, "noise-free image (by the target's sky noise)")
    stamp = read_stamps(folder, part="all", size=EDGE)[0]
    sigma = stamp.sky_sigma.mean()
    assert sigma == pytest.approx(0.02, rel=0.2)
    # On the sky alone: dy/dx at zero flux.
    y = np.arcsinh(10 * (np.array([-sigma, sigma]) + 0.1) / 4.1) / 3
    assert limit["psnr"] == pytest.approx(-20 * np.log10(np.ptp(y) / 2), abs=1.5)
    assert limit["psnr"] > line(result, "identity")["psnr"]
    assert "ceiling (noise-free truth)" not in result.table["row"]


def test_false_sources_are_counted_per_million_pixels(rng):
    before = rng.normal(size=(1, 500, 400)).astype(np.float32)
    after = 0.1 * rng.normal(size=before.shape)
    after[0, 100, 100], after[0, 200, 200] = 1.0, 20.0
    scores = blank_sky_scores([before], [after])
    assert scores["false_after"] == pytest.approx(2 * 5)
    assert scores["false_input_sigma"] == pytest.approx(5)
    flat = blank_sky_scores([before], [np.zeros_like(before)])
    assert flat["false_after"] == flat["false_input_sigma"] == 0


def test_shared_noise_is_shared_and_told_apart(folder):
    result = restoration.run(folder, classic=("identity",), noise_convention="both", **(FAST | {"fwhms": (1.4,)}))
    assert sorted(set(result.table["convention"])) == ["independent", "shared"]
    first = result.images["independent", 1.4, 2.0, "identity"]["psnr"][0]
    assert result.images["shared", 1.4, 2.0, "identity"]["psnr"][0] != first
    assert "shared between bands" in result.markdown


def test_the_noise_of_an_image_does_not_depend_on_the_others(folder, result):
    few = restoration.run(folder, classic=("identity",), **(FAST | {"images": 2}))
    for key, images in few.images.items():
        np.testing.assert_array_equal(images["psnr"], result.images[key]["psnr"][:2])


def test_degrade_first_compares_at_the_size_asked_for(folder):
    first = restoration.run(folder, classic=("identity",), **(FAST | {"order": "degrade-first", "size": 24}))
    native = restoration.run(folder, classic=("identity",), **FAST)
    # Averaging neighbours takes white noise away.
    assert line(first, "identity")["psnr"] > line(native, "identity")["psnr"] + 2
    assert line(first, "identity")["psnr_linear"] == pytest.approx(line(native, "identity")["psnr_linear"])


# ---- backends -------------------------------------------------------------------------------------------------------


class Scaled:
    """A restorer that answers with a multiple of what it sees, and remembers it."""

    halo = 0
    needs_psf = True

    def __init__(self, factor=1.0):
        self.factor, self.seen = factor, []

    def __call__(self, observation, *, rng):
        from astrogan.api import Estimate

        self.seen.append(observation)
        return Estimate(observation.data * np.float32(self.factor))


def test_backends_see_the_linear_image_and_the_true_psf(folder):
    backend = Scaled()
    result = restoration.run(folder, classic=("identity",), backends=[("mine", backend)], **FAST)
    for fwhm in GRID["fwhms"]:
        assert line(result, "mine", fwhm)["psnr"] == pytest.approx(line(result, "identity", fwhm)["psnr"])
    kernel = backend.seen[0].psf[0]
    sigma = 1.4 / 0.396 / 2.355
    assert len(kernel) == 2 * int(np.ceil(2 * sigma)) + 1
    assert kernel[len(kernel) // 2, len(kernel) // 2 + 1] / kernel.max() == pytest.approx(np.exp(-0.5 / sigma**2))
    assert backend.seen[0].variance is None
    assert backend.seen[0].pixel_scale == pytest.approx(0.396)
    assert min(o.data.min() for o in backend.seen) < -0.1  # not clipped


def test_variance_is_told_where_it_is_to_be(folder):
    backend = Scaled()
    restoration.run(folder, classic=("identity",), backends=[("mine", backend)], give_variance=True, **FAST)
    stamp = read_stamps(folder, part="all", size=EDGE)[0]
    sigma = np.sqrt(backend.seen[0].variance.mean())
    assert sigma == pytest.approx(2 * stamp.sky_sigma.mean(), rel=0.35)


def test_flux_bias_is_a_percentage(folder):
    result = restoration.run(folder, classic=("identity",), backends=[("bright", Scaled(1.25))], sky="subtract", **FAST)
    ratio = 1 + line(result, "bright")["flux_bias_mean"] / 100
    assert ratio / (1 + line(result, "identity")["flux_bias_mean"] / 100) == pytest.approx(1.25, rel=1e-5)


def test_specs():
    row = backend_row("galaxygan2017:weights=RUN/f{fwhm}-n{noise}/a,b.safetensors,ensemble=True,steps=3")
    assert row.backend == "galaxygan2017"
    options = row.options_for(Cell("independent", 1.4, 10.0))
    assert options == {"weights": "RUN/f1.4-n10/a,b.safetensors", "ensemble": True, "steps": 3}
    assert backend_row("dist:name").backend == "dist:name"
    assert backend_row("dist:name:weights=a").backend == "dist:name"
    assert [r.name for r in backend_rows(["tv", "nafnet:weights=a", "nafnet:weights=b"])] == [
        "tv",
        "nafnet (weights=a)",
        "nafnet (weights=b)",
    ]
    assert backend_rows(["wiener"])[0].name == "wiener (defaults)"
    with pytest.raises(InputError, match="twice"):
        backend_rows(["tv", "tv"])


@pytest.mark.parametrize("best", [0.3, 3.3, 40.0])
def test_tuning_finds_the_best_inside_and_beyond_its_values(best):
    value, score = tune("fwhm", lambda fwhm: -abs(np.log((fwhm + 1e-9) / best)))
    assert abs(np.log(value / best)) < 0.2
    assert score <= 0


def test_tuning_of_iterations_looks_at_the_papers_number():
    assert tune("iterations", lambda n: 1.0 if n == 10 else -n)[0] == 10
    assert tune("iterations", lambda n: -abs(n - 22))[0] == 22


# ---- tables, files, resuming ----------------------------------------------------------------------------------------


def test_paper_numbers_stand_beside_ours(result):
    assert line(result, "richardson-lucy", 1.4)["paper"] == 29.5
    assert np.isnan(line(result, "gaussian")["paper"])
    text = result.markdown
    assert '| noise | 1.4" | 1.8" | paper 1.4" | paper 1.8" |' in text
    grid = text.split("### richardson-lucy beside")[1]
    assert grid.split("\n")[4].endswith("| 29.5 | 29.7 |")
    assert "with the truth" in text
    assert "nan" not in text


def test_paper_table():
    assert paper_psnr("galaxygan2017", 1.8, 10.0) == 37.3
    assert paper_psnr("blind-richardson-lucy", 2.5, 1.0) == 34.5
    assert paper_psnr("galaxygan2017", 2.0, 1.0) is None
    mean = np.mean([paper_psnr("richardson-lucy", f, 10.0) for f in FWHMS])
    assert mean == pytest.approx(18.875)
    assert len(NOISE_RATIOS) * len(FWHMS) == 20


def test_files(result):
    assert [f.name for f in result.files] == ["restoration.ecsv", "restoration.md", "restoration-independent.png"]
    with Image.open(result.files[2]) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] > 500
    assert pixels.std() > 20
    assert len(list((result.files[0].parent / "cells").glob("*.ecsv"))) == 2 * len(CLASSIC)


def test_an_interrupted_run_goes_on(folder, tmp_path, monkeypatch):
    keywords = FAST | {"classic": ("identity", "gaussian"), "out": tmp_path, "figure": False}
    first = restoration.run(folder, **keywords)
    stored = tmp_path / "cells" / "independent-f1.4-n2-gaussian.ecsv"
    stored.unlink()
    measured = []
    original = Workplace.table
    monkeypatch.setattr(
        Workplace,
        "table",
        lambda self, cell, row, degraded: measured.append((str(cell), row.name)) or original(self, cell, row, degraded),
    )
    again = restoration.run(folder, **keywords)
    assert measured == [("independent-f1.4-n2", "gaussian")]
    np.testing.assert_array_equal(again.table["psnr"], first.table["psnr"])
    measured.clear()
    restoration.run(folder, **keywords)
    assert measured == []
    restoration.run(folder, **(keywords | {"seed": 1, "classic": ("identity",)}))
    assert len(measured) == 2  # other settings, other numbers


def test_weights_that_changed_are_measured_anew(tmp_path):
    weights = tmp_path / "w.safetensors"
    row, cell = backend_row(f"some:weights={weights}"), Cell("independent", 1.4, 1.0)
    weights.write_bytes(b"one")
    before = row.fingerprint(cell)
    assert row.fingerprint(cell) == before
    weights.write_bytes(b"another")
    assert row.fingerprint(cell) != before


SHIPPED = {"nafnet-linear", "nafnet-galaxyzoo", "nafnet-linear-perceptual"}


@pytest.mark.parametrize("options", ["", ":weights=auto", ":perceptual=1.0", ":other={file}"])
def test_without_a_name_it_may_be_any_weights_of_the_package(tmp_path, options):
    (tmp_path / "file").write_text("one")
    for name in ("nafnet", "astrogan:nafnet"):
        row = backend_row(name + options.format(file=tmp_path / "file"))
        contents = row.fingerprint(Cell("independent", 1.4, 1.0))[3]
        assert set(contents) >= SHIPPED
        assert ("other" in contents) == ("other" in options)


@pytest.mark.parametrize("spec", ["weights={0}/a/m.safetensors", "weights={0}/a", "weights={0}/b.safetensors"])
@pytest.mark.parametrize("perceptual", ["", ",perceptual=0.5"])
def test_weights_are_known_by_what_they_are(tmp_path, spec, perceptual):
    """By path and by folder, and with the weights that they are blended with."""
    torch = pytest.importorskip("torch")
    from astrogan.weights import save_weights

    def save(name, value, **card):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        card = {"name": path.stem, "backend": "nafnet", "role": "restorer", "architecture": {}} | card
        save_weights(path, {"w": torch.full((2,), value)}, card, overwrite=True)

    for name in ("a/m", "b", "b-perceptual"):
        save(name, 1.0)
    row, cell = backend_row("nafnet:" + spec.format(tmp_path) + perceptual), Cell("independent", 1.4, 1.0)
    seen = [row.fingerprint(cell)]
    assert row.fingerprint(cell) == seen[0]
    own = "b" if "b.safe" in spec else "a/m"
    save(own, 2.0)
    seen.append(row.fingerprint(cell))
    save(own, 2.0, calibration={"scale": [1.5]})
    seen.append(row.fingerprint(cell))
    save("b-perceptual", 2.0)
    blended = own == "b" and perceptual != ""
    assert (row.fingerprint(cell) != seen[2]) == blended
    assert seen[0] != seen[1] != seen[2]


def test_weights_of_the_package_are_known_by_their_content(monkeypatch):
    from astrogan import weights

    cell, card = Cell("independent", 1.4, 1.0), weights.read_card
    specs = ("nafnet:weights=nafnet-linear", "nafnet:weights=nafnet-linear,perceptual=0.5")
    before = [backend_row(spec).fingerprint(cell) for spec in specs]
    assert before == [backend_row(spec).fingerprint(cell) for spec in specs]
    other = {"nafnet-linear-perceptual": {"card_sha256": "other"}}
    monkeypatch.setattr(weights, "read_card", lambda name: other.get(name) or card(name))
    after = [backend_row(spec).fingerprint(cell) for spec in specs]
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, False]


def test_instances_are_of_their_run_alone(folder, tmp_path):
    """Nothing says what is in one: its results are measured anew, whatever was measured under its label."""
    keywords = FAST | {"classic": ("identity",), "out": tmp_path, "figure": False, "fwhms": (1.8,)}
    row, psnr = Row("mine", "backend", Scaled(1.0)), []
    psnr.append(line(restoration.run(folder, backends=[row], **keywords), "mine")["psnr"])
    psnr.append(line(restoration.run(folder, backends=[("mine", Scaled(0.5))], **keywords), "mine")["psnr"])
    row.backend.factor = 0.25
    psnr.append(line(restoration.run(folder, backends=[row], **keywords), "mine")["psnr"])
    assert len(set(psnr)) == 3


def test_what_cannot_be_told_is_never_the_same_twice(tmp_path):
    cell = Cell("independent", 1.4, 1.0)
    for row in (
        Row("mine", "backend", Scaled()),
        Row("mine", "backend", "some", {"kernel": np.ones((3, 3))}),
        backend_row(f"some:folder={tmp_path}"),
    ):
        assert row.fingerprint(cell) != row.fingerprint(cell)
        here = replace(row, run="a")
        assert here.fingerprint(cell) == pickle.loads(pickle.dumps(here)).fingerprint(cell)
        assert here.fingerprint(cell) != replace(row, run="b").fingerprint(cell)
    known = backend_row("some:a=1,b=(1, 2),c=text,d=1.5")
    assert replace(known, run="a").fingerprint(cell) == replace(known, run="b").fingerprint(cell)
    assert known.fingerprint(cell) != backend_row("some:a='1',b=(1, 2),c=text,d=1.5").fingerprint(cell)


def test_any_image_that_changed_is_measured_anew(tmp_path, rng):
    def write(k):
        header = fits.Header({"BUNIT": "nmgy"})
        fits.writeto(tmp_path / "data" / f"g{k}.fits", galaxy(rng)[1].astype(np.float32), header, overwrite=True)

    (tmp_path / "data").mkdir()
    for k in range(6):
        write(k)
    keywords = FAST | {"classic": ("identity",), "out": tmp_path / "out", "figure": False, "fwhms": (1.8,)}
    before = restoration.run(tmp_path / "data", **keywords).images["independent", 1.8, 2.0, "identity"]
    write(int(before["image"][-1][1:]))
    after = restoration.run(tmp_path / "data", **keywords).images["independent", 1.8, 2.0, "identity"]
    assert [a == b for a, b in zip(before["psnr"], after["psnr"], strict=True)] == [True] * 5 + [False]


def test_processes_give_the_same(folder, result, tmp_path):
    other = restoration.run(folder, classic=("identity",), out=tmp_path, figure=False, jobs=2, **FAST)
    for fwhm in GRID["fwhms"]:
        assert line(other, "identity", fwhm)["psnr"] == pytest.approx(line(result, "identity", fwhm)["psnr"])


def test_command(folder, tmp_path, capsys):
    arguments = ["--data", str(folder), "--images", "2", "--part", "all", "--fwhm", "1.4", "--noise", "1,2"]
    arguments += ["--size", str(EDGE), "--classic", "identity", "--aperture", "2", "-o", str(tmp_path / "out")]
    restoration.main(arguments)
    printed = capsys.readouterr()
    assert "restoration.md" in printed.out
    assert "identity" in printed.out
    assert "2/2" in printed.err


# ---- images ---------------------------------------------------------------------------------------------------------


def test_stamps_from_folder_tar_and_list_agree(folder, tmp_path):
    with tarfile.open(tmp_path / "stamps.tar", "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    ways = [folder, tmp_path / "stamps.tar", sorted(folder.iterdir())]
    read = [read_stamps(way, part="all", size=32) for way in ways]
    for stamps in read[1:]:
        assert [s.name for s in stamps] == [s.name for s in read[0]]
        np.testing.assert_array_equal(stamps[0].flux, read[0][0].flux)
    assert read[0][0].flux.shape == (3, 32, 32)
    assert read[0][0].flux.dtype == np.float32


def test_parts_are_those_of_training(folder):
    parts = {p: [s.name for s in _or_nothing(folder, p)] for p in ("test", "validation", "train")}
    assert sorted(name for names in parts.values() for name in names) == [f"galaxy{k}" for k in range(4)]
    for part, names in parts.items():
        assert all(part_of(name) == part for name in names)


@pytest.mark.parametrize("suffix", [".fits", ".fits.fz", ".SDSS.fits", ".v2.png"])
def test_no_object_of_training_is_tested(tmp_path, rng, suffix):
    """Whatever a file is called, both name its object alike."""
    for k in range(40):
        path = tmp_path / f"gal{k}.5{suffix}"
        if suffix.endswith("png"):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(path)
        else:
            image = fits.CompImageHDU if suffix.endswith("fz") else fits.ImageHDU
            hdu = image(rng.normal(size=(16, 16)).astype(np.float32))
            fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    source = StampTar(tmp_path, size=None) if suffix.endswith("png") else FitsFolder(tmp_path)
    trained = {source.name(k) for k in range(len(source)) if part_of(source.name(k)) == "train"}
    assert trained
    for part in ("test", "validation"):
        tested = {stamp.name.split(".5")[0] + ".5" for stamp in read_stamps(tmp_path, part=part, size=None)}
        assert tested
        assert tested.isdisjoint(trained)


def test_objects_of_several_files_are_named_as_in_the_recipe(tmp_path, rng):
    for k in range(30):
        for band in "gr":
            fits.writeto(tmp_path / f"stamp-{band}-{k}.fits", rng.normal(size=(16, 16)).astype(np.float32))
    name = r"stamp-[gr]-(.*)\.fits"
    source = FitsFolder(tmp_path, name=name)
    tested = {source.name(k) for k in range(len(source)) if part_of(source.name(k)) == "test"}
    stamps = read_stamps(tmp_path, part="test", size=None, name=name)
    assert sorted(stamp.name for stamp in stamps) == sorted(f"stamp-{band}-{k}" for band in "gr" for k in tested)
    result = restoration.run(tmp_path, classic=("identity",), **(FAST | {"part": "test", "size": 16, "name": name}))
    assert max(result.table["images"]) == len(stamps)
    with pytest.raises(InputError, match="does not fit the file"):
        read_stamps(tmp_path, name="galaxy-(.*)")


def _or_nothing(folder, part):
    try:
        return read_stamps(folder, part=part, size=EDGE)
    except InputError:
        return []


def test_sky_is_taken_off_or_kept(folder):
    zero, kept = (read_stamps(folder, part="all", size=EDGE, sky=sky)[0] for sky in ("subtract", "keep"))
    difference = kept.flux - zero.flux
    assert np.ptp(difference, axis=(1, 2)).max() < 1e-6
    border = zero.flux[:, :4].reshape(3, -1)
    assert np.abs(np.median(border, axis=1)).max() < 0.01
    np.testing.assert_allclose(difference.mean(axis=(1, 2)), kept.sky_level, atol=1e-6)
    assert not zero.sky_level.any()


def test_photometry_is_over_the_sky(folder):
    """A level of sky that stays in is no part of a galaxy's flux or shape."""
    zero, kept = (
        [Reference(stamp, None, 5.0) for stamp in read_stamps(folder, part="all", size=EDGE, sky=sky)]
        for sky in ("subtract", "keep")
    )
    for a, b in zip(zero, kept, strict=True):
        assert b.flux == pytest.approx(a.flux, rel=1e-5)
        np.testing.assert_allclose(b.ellipticity, a.ellipticity, atol=1e-5)


def test_simulated_fits_bring_their_ceiling(tmp_path, rng):
    for k in range(2):
        truth, image = galaxy(rng, 40, 2)
        header = fits.Header({"BUNIT": "nmgy"})
        fits.writeto(tmp_path / f"s{k}.fits", image.astype(np.float32), header)
        fits.writeto(tmp_path / f"s{k}.truth.fits", truth.astype(np.float32), header)
    stamps = read_stamps(tmp_path, part="all", size=32)
    assert [s.flux.shape for s in stamps] == [(2, 32, 32)] * 2
    assert np.std(stamps[0].flux - stamps[0].noise_free) == pytest.approx(0.02, rel=0.1)
    result = restoration.run(tmp_path, classic=("identity",), **FAST)
    ceiling = line(result, "ceiling (noise-free truth)")["psnr"]
    y = [np.rint(255 * GalaxyGAN2017Stretch().forward(np.stack([s.flux for s in _stamps_of_run(tmp_path)])))]
    y += [np.rint(255 * GalaxyGAN2017Stretch().forward(np.stack([s.noise_free for s in _stamps_of_run(tmp_path)])))]
    direct = 10 * np.log10(255**2 / np.mean((y[0] - y[1]) ** 2, axis=(1, 2, 3)))
    assert ceiling == pytest.approx(direct.mean(), abs=1e-4)
    assert ceiling > line(result, "identity")["psnr"]


def _stamps_of_run(path):
    return read_stamps(path, part="all", size=EDGE)


def test_fits_of_unknown_unit_are_scaled_to_the_noise_of_sdss(tmp_path, rng):
    _, image = galaxy(rng, 40, 3)
    fits.writeto(tmp_path / "a.fits", (1000 * image).astype(np.float32))
    stamp = read_stamps(tmp_path, part="all", size=None)[0]
    assert np.median(stamp.sky_sigma) == pytest.approx(0.024, rel=1e-3)


def test_refusals(folder, tmp_path):
    with pytest.raises(InputError, match="neither a folder nor a tar"):
        read_stamps(tmp_path / "nothing")
    with pytest.raises(InputError, match="no image of part"):
        read_stamps(tmp_path)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageReadError, match=r"bad\.jpg"):
        read_stamps(tmp_path, part="all")
    with pytest.raises(InputError, match="classic="):
        restoration.run(folder, classic=("magic",), **FAST)
    with pytest.raises(InputError, match="noise_convention="):
        restoration.run(folder, noise_convention="none", **FAST)
    with pytest.raises(InputError, match="fwhms"):
        restoration.run(folder, **(FAST | {"fwhms": (-1.0,)}))


@pytest.mark.data
def test_real_stamps_order_as_they_should(data_dir):
    """On SDSS galaxies: doing nothing is worst under noise, tuned classics are close to one another."""
    result = restoration.run(
        data_dir / "galaxyzoo_kaggle" / "images.tar",
        images=4,
        fwhms=(1.8,),
        noise_ratios=(5.0,),
        classic=("identity", "gaussian", "wiener", "richardson-lucy"),
        tune_images=2,
        photometry_images=4,
        blank_frames=1,
    )
    psnr = {str(row["row"]): row["psnr"] for row in result.table}
    assert 21 < psnr["identity"] < 24
    assert psnr["gaussian"] > psnr["richardson-lucy"] > psnr["identity"]
    assert abs(psnr["gaussian"] - psnr["wiener"]) < 1
    assert all(part_of(name) == "test" for name in result.images["independent", 1.8, 5.0, "wiener"]["image"])


@pytest.mark.parametrize("edge", [4097, 20000])
def test_a_small_file_of_a_huge_picture_is_refused(tmp_path, edge):
    """The larger one Pillow refuses to open, the smaller one it would unpack."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", edge, edge, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    (tmp_path / "huge.png").write_bytes(png)
    with pytest.raises(ImageReadError, match="huge.png.* cannot be read .*pixels"):
        read_stamps(tmp_path, part="all")
