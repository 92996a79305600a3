"""What the documentation says of roles, checks, layers and environments is what the code has."""

import configparser
import importlib.util
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from astrogan.api import API_VERSION, ROLES
from astrogan.testing import conformance

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "backend_authors.rst").read_text()


def table(text, heading):
    """Cells of the simple table whose first column is called ``heading``, a row a line that begins one."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == [heading] and set(lines[i - 1]) == {"=", " "})
    edges = [m.span() for m in re.finditer("=+", lines[start - 1])]
    body = lines[start + 2 :]
    body = body[: next(i for i, line in enumerate(body) if set(line) == {"=", " "})]
    edges[-1] = (edges[-1][0], None)
    return [[line[slice(*edge)].strip() for edge in edges] for line in body if line[:1].strip()]


def test_every_role_has_a_row_and_a_section():
    assert [row[0].strip("`") for row in table(GUIDE, "role")] == list(ROLES)
    for title in ("Restorers", "Degraders", "Deblenders", "Translators", "Noise"):
        assert f"\n{title}\n{'=' * len(title)}\n" in GUIDE


def test_every_check_of_the_kit_has_a_row_with_its_roles():
    rows = {name.strip("`"): roles for name, roles, _ in table(GUIDE, "check")}
    checks = {
        name: "all" if set(check.roles) == set(ROLES) else ", ".join(check.roles)
        for name, check in conformance._CHECKS.items()
    }
    assert rows == checks


def test_version_of_the_contract_is_the_one_described():
    assert f"is the number of this contract, {API_VERSION}," in GUIDE
    assert f"Write ``api={API_VERSION}``" in GUIDE


def test_layers_of_the_diagram_hold_the_imports_that_are_allowed():
    """The rows of the figure, from the top; a package may only import from rows below its own."""
    row_of = {}
    for text in ElementTree.parse(ROOT / "docs/_static/architecture.svg").iter("{http://www.w3.org/2000/svg}text"):
        if text.get("class") == "m" and float(text.get("y")) > 300:
            row_of[text.text] = float(text.get("y"))
    allowed = {name: others for name, others in _allowed().items() if not re.match("_|demo_", name)}
    assert set(allowed) <= set(row_of), "a package is missing in the figure"
    for name, others in allowed.items():
        for other in others & set(row_of):
            assert row_of[other] > row_of[name], f"{name} may import {other}, which the figure has no lower"


def _allowed():
    spec = importlib.util.spec_from_file_location("_api_surface", Path(__file__).with_name("test_api_surface.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ALLOWED


def test_every_environment_of_tox_is_explained():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    text = (ROOT / "CONTRIBUTING.rst").read_text()
    named = [section.removeprefix("testenv:") for section in tox.sections() if section.startswith("testenv:")]
    factors = re.findall(r"^(\w+):", tox["testenv"]["description"], flags=re.MULTILINE)
    assert len(named) > 4
    for name in named + factors:
        assert re.search(rf"``[\w-]*\b{name}\b[\w-]*``", text), name


def test_links_to_files_in_the_contributors_page_exist():
    for page in (ROOT / "CONTRIBUTING.rst", ROOT / "docs/architecture.rst"):
        for name in re.findall(r"``((?:tests|docs|astrogan|\.ci)/[\w/.]*)``", page.read_text()):
            assert (ROOT / name).exists() or name == "docs/_build/html", name
