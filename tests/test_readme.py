"""The README's promises: two commands, and a continuous integration that runs one of them as it stands."""

import re
from pathlib import Path

import astrogan

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.rst").read_text()


def test_exactly_two_commands_for_a_fresh_machine():
    commands = re.findall(r"^    (python3 -m venv .*)$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    assert "astrogan demo" in commands[0]
    assert "pytest" in commands[1]
    assert all("-c constraints.txt" in command for command in commands)


def test_ci_runs_the_readme_command_and_the_style_check():
    script = (ROOT / ".ci" / "run").read_text()
    assert "README.rst" in script
    assert "ruff check ." in script
    assert "ruff format --check ." in script


def test_constraints_cover_the_dependencies():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    oldest = {
        line.split("==")[0] for line in (ROOT / "constraints-oldest.txt").read_text().splitlines() if "==" in line
    }
    for requirement in project["dependencies"]:
        name = re.split(r"[<>=\[ ]", requirement)[0]
        assert name in pinned
        assert name in oldest


def test_citation_and_changelog_are_there():
    assert "cff-version" in (ROOT / "CITATION.cff").read_text()
    assert "unreleased" in (ROOT / "CHANGELOG.rst").read_text()
    assert astrogan.__version__ != "0.0.0"
