"""The options by which commands work on catalogs and on many images."""

import click
import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.table import Table
from click.testing import CliRunner

from astrogan import Restorer
from astrogan.catalogs import Results
from astrogan.catalogs._command import catalog_options, run_many, taken_over


@click.command()
@click.argument("images", nargs=-1)
@click.option("-o", "--output", required=True)
@click.option("--restart", is_flag=True)
@click.option("--overwrite", is_flag=True)
@catalog_options
def command(images, output, restart, overwrite, **keywords):
    """A command as those of the command line."""
    many = taken_over(keywords, images, output)
    if many is None:
        click.echo("one image")
        return
    operator = Restorer("wiener", psf=2.5, balance=10.0)
    run_many(operator, images, output, many, workers=1, restart=restart, overwrite=overwrite)


@pytest.fixture
def folder(tmp_path, rng, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.fits", "b.fits"):
        CCDData(rng.normal(size=(60, 70)).astype(np.float32), unit="adu").write(name)
    Table({"col": [20.0, 500.0], "row": [30.0, 3.0], "x": [0.0, 0.0], "y": [0.0, 0.0]}).write("cat.ecsv")
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_a_catalog(folder):
    came = call("--catalog", "cat.ecsv", "--image", "a.fits", "--size", 16, "--xy", "col,row", "-o", "out")
    assert came.exit_code == 0, came.output
    assert "results.ecsv" in came.output
    assert "2 rows: 1 ok, 1 outside" in came.output
    assert Results(folder / "out")[0].shape == (16, 16)
    again = call("--catalog", "cat.ecsv", "a.fits", "--size", 20, "--xy", "col,row", "-o", "out", "--restart")
    assert "overwrite=True" in str(again.exception)
    again = call(
        "--catalog", "cat.ecsv", "a.fits", "--size", 20, "--xy", "col,row", "-o", "out", "--restart", "--overwrite"
    )
    assert again.exit_code == 0, again.output
    assert Results(folder / "out")[0].shape == (20, 20)


def test_many_images(folder):
    came = call("a.fits", "b.fits", "-o", "out/")
    assert came.exit_code == 0, came.output
    assert sorted(path.name for path in (folder / "out").glob("*.fits")) == ["a.fits", "b.fits"]
    (folder / "there").mkdir()
    assert call("a.fits", "-o", "there").exit_code == 0
    assert (folder / "there" / "a.fits").exists()
    assert call("a.fits", "-o", "restored.fits").output == "one image\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--catalog", "cat.ecsv", "--image", "a.fits"], "--size"),
        (["--catalog", "cat.ecsv", "--size", "16"], "--image MOSAIC, or --image-column"),
        (["a.fits", "--size", "16"], "--size: for stamps of a catalog"),
        ([], "Missing argument"),
    ],
)
def test_what_is_missing_is_named(arguments, words, folder):
    came = call(*arguments, "-o", "out")
    assert came.exit_code == 2
    assert words in came.output
    assert not (folder / "out").exists()
