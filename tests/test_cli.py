"""The command line, run in process and, for what only a process shows, for real."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.wcs import WCS

from astrogan.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::astrogan.exceptions.AstroganWarning")

RL = ("-b", "richardson-lucy")


def sky():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150, 2]
    wcs.wcs.crpix = [40, 30]
    wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    wcs.wcs.cunit = ["deg", "deg"]
    return wcs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two bands of one small blend, sky-subtracted, with WCS."""
    path = tmp_path_factory.mktemp("cli")
    y, x = np.mgrid[:70, :90]
    scene = 200 * np.exp(-np.hypot(x - 35, y - 33) / 4) + 150 * np.exp(-np.hypot(x - 52, y - 38) / 3)
    scene += 400 * np.exp(-((x - 70) ** 2 + (y - 15) ** 2) / 8)
    for band, colour, seed in (("g", 1.0, 1), ("r", 1.4, 2)):
        data = colour * scene + np.random.default_rng(seed).normal(size=scene.shape)
        image = CCDData(data.astype("f4"), unit="adu", wcs=sky(), meta={"FILTER": band})
        image.write(path / f"{band}.fits")
    fits.PrimaryHDU(np.ones((5, 5), "f4")).writeto(path / "nounit.fits")
    axis = np.arange(15) - 7
    kernel = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.4**2))
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(kernel, name="KERNEL")]).writeto(path / "psf.fits")
    return path


def run(capsys, *argv):
    status = main([str(a) for a in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_restore_one_file(capsys, folder, tmp_path):
    out = tmp_path / "out.fits"
    status, printed, _ = run(
        capsys,
        "restore",
        folder / "g.fits",
        "-o",
        out,
        "-b",
        "richardson-lucy",
        "--psf",
        "0.7arcsec",
        "-O",
        "iterations=5",
        "--diagnose",
    )
    assert status == 0
    assert printed.splitlines()[0] == str(out)
    assert "chi" in printed
    restored, observed = CCDData.read(out), CCDData.read(folder / "g.fits")
    assert restored.unit == observed.unit
    np.testing.assert_allclose(
        restored.wcs.all_pix2world([[0, 0], [89, 69]], 0), observed.wcs.all_pix2world([[0, 0], [89, 69]], 0), atol=1e-10
    )
    assert restored.data.sum() == pytest.approx(observed.data.sum(), rel=0.01)
    assert restored.header["AGFWHM"] == pytest.approx(3.5, rel=0.02)


def test_a_warning_is_said_once(capsys, folder, tmp_path):
    axis = np.arange(15) - 6
    fits.PrimaryHDU(np.exp(-(axis[:, None] ** 2 + axis**2) / 4)).writeto(tmp_path / "off.fits")
    status, _, err = run(
        capsys, "restore", folder / "g.fits", "-o", tmp_path / "out.fits", "--psf", tmp_path / "off.fits", "--diagnose"
    )
    assert status == 0
    assert err.count("it was moved onto the middle pixel") == 1


@pytest.mark.parametrize("psf", ["3.5", "3.5pix", '0.7"', "{folder}/psf.fits[KERNEL]", "{folder}/psf.fits[1]"])
def test_psf_spellings(capsys, folder, tmp_path, psf):
    out = tmp_path / "out.fits"
    status, _, err = run(
        capsys, "restore", folder / "g.fits", "-o", out, "-b", "wiener", "--psf", psf.format(folder=folder)
    )
    assert status == 0, err
    assert 3 < fits.getheader(out)["AGFWHM"] < 3.8


def test_restore_two_files_as_bands(capsys, folder, tmp_path):
    out = tmp_path / "out.fits"
    status, _, err = run(
        capsys, "restore", folder / "g.fits", folder / "r.fits", "-o", out, "--psf", "3", "-b", "wiener"
    )
    assert status == 0, err
    with fits.open(out) as hdus:
        images = [hdu for hdu in hdus if hdu.shape == (70, 90) and hdu.name not in ("MASK", "UNCERT")]
        assert len(images) >= 2


def test_degrade_and_presets(capsys, folder, tmp_path):
    out = tmp_path / "worse.fits"
    status, _, err = run(
        capsys, "degrade", folder / "g.fits", "-o", out, "--psf", "1.5arcsec", "--add", "--noise", "3adu", "--seed", 4
    )
    assert status == 0, err
    worse, image = CCDData.read(out), CCDData.read(folder / "g.fits")
    assert worse.data.max() < 0.6 * image.data.max()
    first = worse.data
    assert run(capsys, "degrade", folder / "g.fits", "-o", out, "--psf", "1.5arcsec", "--add", "--noise", "3adu",
               "--seed", 4, "--overwrite")[0] == 0  # fmt: skip
    np.testing.assert_array_equal(CCDData.read(out).data, first)
    status, _, err = run(
        capsys, "degrade", folder / "g.fits", folder / "r.fits", "-o", tmp_path / "2017.fits",
        "--preset", "galaxygan2017", "-O", "fwhm=1.8", "-O", "noise_ratio=2",
    )  # fmt: skip
    assert status == 0, err


def test_deblend_writes_everything(capsys, folder, tmp_path):
    out, catalog = tmp_path / "sources.fits", tmp_path / "cat.ecsv"
    status, _, err = run(
        capsys, "deblend", folder / "g.fits", folder / "r.fits", "-o", out, "--catalog", catalog, "--psf", "2.5"
    )
    assert status == 0, err
    table = Table.read(catalog)
    assert len(table) == 3
    assert "3 sources" in err
    assert out.exists()


def test_deblend_takes_positions(capsys, folder, tmp_path):
    Table({"x": [35.0, 52.0], "y": [33.0, 38.0]}).write(tmp_path / "pos.ecsv")
    out, catalog = tmp_path / "o.fits", tmp_path / "c.ecsv"
    status, _, err = run(
        capsys, "deblend", folder / "g.fits", "-o", out, "--positions", tmp_path / "pos.ecsv", "--catalog", catalog
    )
    assert status == 0, err
    np.testing.assert_allclose(Table.read(catalog)["x"], [35, 52], atol=1.5)


def test_translate_to_a_survey(capsys, folder, tmp_path):
    out = tmp_path / "as_sdss.fits"
    status, _, err = run(
        capsys, "translate", folder / "r.fits", "-o", out, "--target", "sdss", "--psf", "0.7arcsec",
        "-O", "zero_point=28",
    )  # fmt: skip
    assert status == 0, err
    translated = CCDData.read(out)
    assert abs(translated.wcs.proj_plane_pixel_scales()[0].to_value("arcsec") - 0.396) < 1e-6


def test_simulate_evaluate_and_backends(capsys, tmp_path):
    pytest.importorskip("galsim")
    status, printed, err = run(
        capsys, "simulate", "-o", tmp_path / "field", "--size", 96, "--bands", "g,r", "--seed", 2
    )
    assert status == 0, err
    assert len(printed.split()) == 4
    status, printed, err = run(
        capsys,
        "evaluate",
        tmp_path / "field" / "truth.fits",
        tmp_path / "field" / "field.fits",
        "-o",
        tmp_path / "t.ecsv",
    )
    assert status == 0, err
    assert "psnr" in printed
    assert np.isfinite(Table.read(tmp_path / "t.ecsv")["psnr"]).all()
    status, printed, _ = run(capsys, "backends", "--role", "deblender")
    assert status == 0
    assert "watershed" in printed
    assert "symmetric" in printed


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["restore"], 2, "Missing"),
        (["restore", "{g}", "-o", "{out}", "--no-such"], 2, "No such option"),
        (["restore", "{g}", "-o", "{out}", "-O", "iterations"], 2, "NAME=VALUE"),
        (["restore", "{g}", "-o", "{out}", "--psf", "3parrots"], 2, "3parrots"),
        (["restor"], 2, "No such command"),
        (["bench", "nothing"], 2, "nothing"),
        (["degrade", "{g}", "-o", "{out}", "--preset", "sdss", "--noise", "2"], 2, "--preset sets that"),
        (["restore", "{g}", "-o", "{out}"], 1, "psf="),
        (["restore", "missing.fits", "-o", "{out}", "--psf", "3"], 1, "missing.fits"),
        (["restore", "{nounit}", "-o", "{out}", "--psf", "3"], 1, "unit"),
        (["restore", "{g}", "-o", "{out}", "-b", "weiner", "--psf", "3"], 1, "did you mean 'wiener'"),
        (
            ["restore", "{g}", "-o", "{out}", "-b", "richardson-lucy", "--psf", "3", "-O", "iterations=0"],
            1,
            "iterations=0",
        ),
        (["restore", "{g}", "-o", "{out}", *RL, "--psf", "3", "-O", "iteratons=9"], 1, "iteratons"),
        (["restore", "{g}", "-o", "nowhere/x.fits", "--psf", "3"], 1, "nowhere"),
        (["translate", "{g}", "-o", "{out}", "--target", "atlantis"], 1, "atlantis"),
        (["degrade", "{g}", "-o", "{out}", "--preset", "atlantis"], 1, "atlantis"),
        (["backends", "--role", "painter"], 1, "painter"),
        (["simulate", "-o", "{out}", "--bands", "g,foo"], 1, "foo"),
    ],
)
def test_errors_have_a_status_a_reason_and_leave_nothing_behind(capsys, folder, tmp_path, argv, status, message):
    names = {"g": folder / "g.fits", "nounit": folder / "nounit.fits", "out": tmp_path / "out.fits"}
    got, printed, err = run(capsys, *[a.format(**names) for a in argv])
    assert got == status, err
    assert message in err
    assert "Traceback" not in err
    assert printed == ""
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(capsys, folder, tmp_path):
    out = tmp_path / "precious.fits"
    out.write_bytes(b"do not lose me")
    for command in (
        ["restore", "--psf", "3"],
        ["degrade", "--psf", "3"],
        ["deblend"],
        ["translate", "--target", "sdss"],
    ):
        status, _, err = run(capsys, command[0], folder / "g.fits", "-o", out, *command[1:])
        assert status == 1
        assert "--overwrite" in err
        assert out.read_bytes() == b"do not lose me"
    assert run(capsys, "restore", folder / "g.fits", "-o", out, "--psf", "3", "--overwrite")[0] == 0
    assert fits.getheader(out)["AGOP"] == "restore"


def test_debug_shows_the_traceback(capsys, folder, tmp_path):
    with pytest.raises(Exception, match=r"missing\.fits"):
        main(["--debug", "restore", "missing.fits", "-o", str(tmp_path / "o.fits"), "--psf", "3"])


def test_help_is_quick_and_complete():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "astrogan", "--help"], capture_output=True, text=True, check=True
    )
    for command in (
        "restore",
        "degrade",
        "deblend",
        "translate",
        "backends",
        "weights",
        "train",
        "simulate",
        "bench",
        "demo",
    ):
        assert command in done.stdout
    for heavy in ("torch", "astropy", "photutils", "matplotlib"):
        assert f" {heavy}\n" not in done.stderr


def test_an_interrupt_leaves_the_old_output(folder, tmp_path):
    """Ctrl-C in the middle: status 130 or a signal's, old bytes there, no temporary file."""
    big = tmp_path / "big.fits"
    rng = np.random.default_rng(0)
    CCDData(rng.normal(size=(1500, 1500)).astype("f4"), unit="adu").write(big)
    out = tmp_path / "out.fits"
    out.write_bytes(b"old")
    command = [sys.executable, "-m", "astrogan", "restore", str(big), "-o", str(out), "--overwrite", *RL, "--psf", "3"]
    process = subprocess.Popen([*command, "-O", "iterations=2000"], env=os.environ, stderr=subprocess.DEVNULL)
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        pytest.fail("an interrupt does not stop the command")
    assert process.returncode not in (0, 1)
    assert out.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.fits", "out.fits"]


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        (["restore", "g.fits", "-o", "o.fits", "--psf", "3"], "psf=2"),
        (["restore", "g.fits", "-o", "o.fits", "--psf", "3"], "backend=wiener"),
        (["restore", "g.fits", "-o", "o.fits", "--psf", "3"], "progress=5"),
        (["degrade", "g.fits", "-o", "o.fits", "--add", "--psf", "3"], "rebin=2"),
        (["deblend", "g.fits", "-o", "o.fits"], "self=2"),
        (["translate", "g.fits", "-o", "o.fits", "--target", "sdss"], "target=2"),
    ],
)
def test_backend_options_do_not_collide_with_the_commands_own(capsys, folder, tmp_path, monkeypatch, argv, option):
    monkeypatch.chdir(tmp_path)
    argv = [str(folder / a) if a == "g.fits" else a for a in argv]
    status, _, errors = run(capsys, *argv, "-O", option)
    assert status == 2
    assert f"--option '{option}': {option.split('=')[0]} is no option of a backend" in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("outputs", "status", "message"),
    [
        (["-o", "o.png"], 1, "a picture holds neither the flux nor the WCS"),
        (["-o", "o.fits", "--catalog", "c.txt"], 1, "tables are written as"),
        (["-o", "o.fits", "--catalog", "./o.fits"], 2, "is to be written twice"),
    ],
)
def test_names_of_outputs_are_checked_before_the_work(capsys, folder, tmp_path, monkeypatch, outputs, status, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("astrogan.Deblender", lambda *_, **__: pytest.fail("the work began"))
    done, _, errors = run(capsys, "deblend", folder / "g.fits", *outputs, "--overwrite")
    assert done == status
    assert message in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf"])
def test_evaluate_refuses_a_range_that_is_none(capsys, folder, value):
    status, _, errors = run(capsys, "evaluate", folder / "g.fits", folder / "r.fits", "--data-range", value)
    assert status == 1
    assert f"data_range={float(value)} must be positive" in errors


def test_simulated_blends_with_their_truth(capsys, tmp_path):
    pytest.importorskip("galsim")
    out = tmp_path / "blends"
    args = ("simulate", "--blends", 2, "--sources", 2, "--size", 40, "--bands", "g,r", "--seed", 7, "-o", out)
    status, stdout, _ = run(capsys, *args)
    assert status == 0
    table = Table.read(stdout.split()[-1])
    assert list(table["blend"]) == ["blend-000007"] * 2 + ["blend-000008"] * 2
    with fits.open(out / "blend-000007-truth.fits") as truth, fits.open(out / "blend-000007.fits") as blend:
        assert truth["1_g"].data.sum() == pytest.approx(table["flux_g"][0], rel=1e-5)
        assert blend["g"].data.shape == (40, 40)
    status, _, stderr = run(capsys, *args)
    assert status == 1
    assert "--overwrite" in stderr
    status, _, stderr = run(capsys, "simulate", "--sources", 2, "-o", tmp_path / "other")
    assert status == 2
    assert "--blends" in stderr


def test_deblending_with_the_default_and_a_number_of_threads(capsys, folder, tmp_path):
    args = ("deblend", folder / "g.fits", folder / "r.fits", "--psf", "3", "--workers", 2, "-o", tmp_path / "out.fits")
    status, stdout, stderr = run(capsys, *args)
    assert status == 0, stderr
    assert "sources" in stderr
    with fits.open(stdout.strip()) as file:
        assert "SOURCE_1" in file
        assert file["RESIDUAL"].header["AGBACK"] == "astrogan:hybrid"


def test_the_pipeline_of_the_2019_paper(capsys, tmp_path):
    pytest.importorskip("galsim")
    status, stdout, stderr = run(capsys, "demo", "usaid2019", "-o", tmp_path / "out")
    assert status == 0, stderr
    assert "Files:" in stdout
    assert list((tmp_path / "out").glob("*.png"))
    status, _, stderr = run(capsys, "demo", "usaid2019", __file__, "-o", tmp_path / "one")
    assert status == 2
    assert "two pictures" in stderr
