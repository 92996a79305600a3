"""``astrogan fetch``."""

import pytest
from astropy.table import Table
from click.testing import CliRunner

from astrogan.datasets._command import COMMANDS


@pytest.fixture
def run():
    return lambda name, *arguments: CliRunner().invoke(COMMANDS[name], [str(argument) for argument in arguments])


def test_stamps(run, server, make, tmp_path):
    server.answer = lambda path, query: make.Answer(make.jpeg(64))
    Table({"name": ["a"], "ra": [150.0], "dec": [2.0]}).write(tmp_path / "sample.ecsv")
    options = ("--sample", tmp_path / "sample.ecsv", "--pixel-scale", 0.4, "--size", 64, "--server", server.url)
    done = run("galaxy-zoo", "-o", tmp_path / "out", *options)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("1 ok, 0.0 MB")
    assert (tmp_path / "out" / "a.jpg").is_file()


@pytest.mark.filterwarnings("ignore::astrogan.exceptions.AstroganWarning")
def test_the_exit_status_tells_that_nothing_came(run, server, tmp_path):
    Table({"name": ["a"], "ra": [150.0], "dec": [2.0]}).write(tmp_path / "sample.ecsv")
    done = run("legacy", tmp_path / "sample.ecsv", "-o", tmp_path / "out", "--server", server.url, "--retries", 0)
    assert done.exit_code == 1
    assert done.output.startswith("1 failed")


def test_the_query_is_printed(run, tmp_path):
    done = run("sdss", "-o", tmp_path / "out", "--print-query", "--redshift", 0.03, 0.04, "--limit", 7)
    assert done.exit_code == 0
    assert "TOP 7" in done.output
    assert "s.z > 0.03 AND s.z < 0.04" in done.output
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_go_together(run, tmp_path):
    done = run("galaxy-zoo", "-o", tmp_path, "--archive", "--limit", 3)
    assert done.exit_code == 2
    assert "leave out --sample and --limit" in done.output


@pytest.mark.parametrize("name", COMMANDS)
def test_help(run, name):
    assert run(name, "--help").exit_code == 0
