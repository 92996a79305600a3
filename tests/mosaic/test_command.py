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
