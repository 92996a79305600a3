"""The distributions in ``examples/`` are plugins, light to list, and say what they lack; their own tests are theirs."""

import ast
import importlib.util
import tomllib
from pathlib import Path

import pytest

from astrogan.exceptions import MissingDependencyError
from astrogan.plugins.registry import Registry

EXAMPLES = sorted(path.parent for path in (Path(__file__).parents[2] / "examples").glob("*/pyproject.toml"))


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.name)
def example(request):
    return request.param


def hook_of(example):
    """(path, module) behind the entry point; the package need not be installed."""
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    (target,) = project["entry-points"]["astrogan"].values()
    path = (example / "src" / target.replace(".", "/")).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(target, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return path, module


def test_there_is_one():
    assert [path.name for path in EXAMPLES] == ["astrogan-deepinv"]


def test_hook_module_imports_only_the_api(example):
    path, _ = hook_of(example)
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {getattr(node, "module", None) for node in nodes} == {"astrogan.api"}


def test_listed_and_refused_by_name_where_something_is_missing(example):
    _, module = hook_of(example)
    registry = Registry([(example.name, "0.1.0", lambda: module)])
    assert not registry.failures
    for backend in registry.backends:
        source, _, name = backend.spec.target.partition(":")
        tree = ast.parse((example / "src" / source.replace(".", "/")).with_suffix(".py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        if missing := backend.missing():
            with pytest.raises(MissingDependencyError, match=f"pip install {missing[0]}"):
                backend.load()


def test_is_not_part_of_the_wheel(example):
    find_packages = pytest.importorskip("setuptools").find_packages
    find = tomllib.loads((example.parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    found = find_packages(str(example.parents[1]), include=find["include"])
    assert "astrogan" in found
    assert not [name for name in found if name.startswith(("examples", "astrogan_", "astrogan-"))]
