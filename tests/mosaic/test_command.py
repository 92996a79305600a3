"""``astrogan restore --mosaic``."""

import numpy as np
import pytest
from astropy.nddata import CCDData

from astrogan import Restorer, read_image, write_image
from astrogan.cli import main

OPTIONS = ("-b", "wiener", "--psf", "3", "-O", "balance=0.05", "--tile", "64")


@pytest.fixture
def folder(tmp_path):
    for seed, band in enumerate("gr"):
        data = np.random.default_rng(seed).normal(size=(90, 110)).astype(np.float32)
        write_image(CCDData(data, unit="adu", meta={"FILTER": band}), tmp_path / f"{band}.fits")
    return tmp_path


def run(capsys, *argv):
    status = main([str(a) for a in argv])
    return status, *capsys.readouterr()


def test_it_writes_what_a_call_gives(capsys, folder):
    out = folder / "out.fits"
    command = ("restore", folder / "g.fits", "-o", out, *OPTIONS, "--mosaic", "--window", "64")
    assert run(capsys, *command) == (0, f"{out}\n", "")
    expected = Restorer("wiener", psf=3.0, balance=0.05, tile=64)(folder / "g.fits")
    np.testing.assert_array_equal(read_image(out).data, expected.data)
    status, _, error = run(capsys, *command)
    assert (status, "--overwrite" in error) == (1, True)
    assert run(capsys, *command, "--overwrite", "--restart")[0] == 0


def test_several_files_are_bands_named_by_their_headers(capsys, folder):
    out = folder / "out.fits"
    assert run(capsys, "restore", folder / "g.fits", folder / "r.fits", "-o", out, *OPTIONS, "--mosaic")[0] == 0
    result = read_image(out)
    assert result.shape == (2, 90, 110)
    assert result.meta["AGBANDS"] == "g,r"


def test_options_that_belong_to_it_alone(capsys, folder):
    for option in (("--restart",), ("--window", "128"), ("--scheduler", "tcp://localhost:1")):
        status, _, error = run(capsys, "restore", folder / "g.fits", "-o", folder / "out.fits", *OPTIONS, *option)
        assert status == 2
        assert "add --mosaic" in error
    status, _, error = run(
        capsys, "restore", folder / "g.fits", "-o", folder / "out.fits", *OPTIONS, "--mosaic", "--diagnose"
    )
    assert (status, "--diagnose" in error) == (2, True)
    assert not (folder / "out.fits").exists()


def test_degrade_goes_by_windows_too(capsys, folder):
    out = folder / "out.fits"
    options = ("--psf", "4", "--source-psf", "2", "--mosaic", "--window", "64")
    assert run(capsys, "degrade", folder / "g.fits", "-o", out, *options) == (0, f"{out}\n", "")
    assert read_image(out).shape == (90, 110)


def test_deblend_writes_a_folder(capsys, folder):
    y, x = np.mgrid[:90, :110]
    data = sum(f * np.exp(-np.hypot(x - x0, y - 40) / 2.0) for f, x0 in ((100, 40), (60, 50)))
    data += np.random.default_rng(0).normal(0, 0.5, data.shape)
    write_image(CCDData(data.astype(np.float32), unit="adu"), folder / "blend.fits")
    command = ("deblend", folder / "blend.fits", "-o", folder / "parts", "-b", "watershed", "--mosaic")
    assert run(capsys, *command)[0] == 0
    names = sorted(path.name for path in (folder / "parts").iterdir())
    assert names == ["catalog.ecsv", "residual.fits", "segmentation.fits"]
    status, _, error = run(capsys, *command, "--catalog", folder / "c.ecsv")
    assert (status, "--catalog" in error) == (2, True)


def test_translate_takes_one_sample_at_a_time(capsys, folder):
    command = ("translate", folder / "g.fits", "-o", folder / "out.fits", "--target", "sdss", "--mosaic")
    status, _, error = run(capsys, *command, "--samples", "2")
    assert (status, "--samples" in error) == (2, True)
