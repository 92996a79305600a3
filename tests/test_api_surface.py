"""What users and plugin authors may rely on: names, lightness, and the direction of imports."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import astrogan
import astrogan.api
import astrogan.exceptions

ROOT = Path(astrogan.__file__).parent


def test_public_names():
    assert set(astrogan.__all__) == {
        "DeblendResult",
        "Deblender",
        "Degrader",
        "Diagnostics",
        "Restorer",
        "Translator",
        "__version__",
        "list_backends",
        "read_image",
        "write_image",
    }
    for name in astrogan.__all__:
        assert getattr(astrogan, name) is not None
        assert name in dir(astrogan)
    with pytest.raises(AttributeError, match="no attribute 'Restorator'"):
        _ = astrogan.Restorator


def test_modules_are_there_without_an_import_of_their_own():
    code = "import astrogan; print(astrogan.plot.compare.__name__, 'plot' in dir(astrogan), astrogan.train.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["compare", "True", "astrogan.train"]


def test_api_names():
    assert set(astrogan.api.__all__) == {
        "API_VERSION",
        "ROLES",
        "BackendSpec",
        "Blend",
        "DeblenderBackend",
        "DegraderBackend",
        "Estimate",
        "NoiseBackend",
        "Observation",
        "RestorerBackend",
        "Separation",
        "Target",
        "Template",
        "TranslatorBackend",
        "hookimpl",
        "sample_noise",
    }
    assert astrogan.api.API_VERSION == 1


def test_every_error_is_an_astrogan_error_and_a_builtin_one():
    for name in astrogan.exceptions.__all__:
        cls = getattr(astrogan.exceptions, name)
        assert issubclass(cls, astrogan.exceptions.AstroganError | astrogan.exceptions.AstroganWarning)
        assert cls.__doc__


HEAVY = {"torch", "photutils", "matplotlib", "lightning", "scipy", "skimage", "reproject", "galsim", "dask"}


def modules_after(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=os.environ | {"ASTROGAN_DISABLE_PLUGINS": "1"},
    )
    return set(done.stdout.split()), done.stderr


def test_listing_backends_loads_nothing_heavy_and_warns_of_nothing():
    loaded, errors = modules_after("import astrogan; astrogan.list_backends()")
    assert not HEAVY & loaded
    assert "astropy.nddata" not in loaded
    assert errors == ""


def test_importing_astrogan_loads_no_numpy():
    loaded, errors = modules_after("import astrogan")
    assert not (HEAVY | {"numpy", "astropy"}) & loaded
    assert errors == ""


def test_importing_every_public_name_is_possible_without_torch_being_loaded_first():
    loaded, _ = modules_after("from astrogan import Restorer, Degrader, Deblender, Translator")
    assert not {"torch", "photutils", "matplotlib", "reproject"} & loaded


def test_import_costs_next_to_nothing():
    """A generous bound on what importtime reports for astrogan itself: no wall clock of a shared machine."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import astrogan"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    line = next(line for line in done.stderr.splitlines() if line.rstrip().endswith("| astrogan"))
    assert int(line.split("|")[1]) < 150_000, line


# One way only. A package may import those named beside it (and itself, exceptions, _text, and the package root).
ALLOWED = {
    "api": set(),
    "_text": set(),
    "exceptions": {"_text"},
    "plugins": {"api"},
    "image": {"api"},
    "metrics": set(),
    "nn": set(),
    "weights": {"nn"},
    "backends": {"api", "nn", "weights", "image"},
    "simulate": {"image", "api"},
    "mosaic": {"image", "api"},
    "catalogs": {"image", "operators", "api", "plugins", "metrics"},
    "operators": {"image", "plugins", "api", "metrics", "simulate", "mosaic"},
    "testing": {"api", "image"},
    "datasets": {"image"},
    "bench": {
        "operators",
        "simulate",
        "metrics",
        "image",
        "plugins",
        "api",
        "backends",
        "nn",
        "weights",
        "train",
        "catalogs",
        "mosaic",
    },
    "train": {"nn", "simulate", "image", "api", "operators", "backends", "weights", "metrics"},
    "demo": {"_demo_figure", "operators", "simulate", "metrics", "image", "plugins", "api"},
    "_demo_figure": {"image", "metrics"},
    "demo_usaid2019": {"backends", "image", "metrics", "operators", "simulate"},
    "plot": {"image", "metrics"},
    "cli": {
        "bench",
        "catalogs",
        "datasets",
        "train",
        "operators",
        "simulate",
        "demo",
        "demo_usaid2019",
        "image",
        "plugins",
        "metrics",
        "weights",
    },
    "__main__": {"cli"},
}
# Backends are arrays in, arrays out: of the image package they see only what works on plain arrays.
BACKENDS_SEE = {"psf", "blends", "tiling", "mask", "uncertainty", "stretch", "wcs", "_convolve", "_kernels", "_quiet"}


def imported(path):
    """The astrogan modules that a file imports anywhere in it, as dotted names."""
    package = ("astrogan", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "astrogan")
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            if module.split(".")[0] == "astrogan":
                yield from (f"{module}.{alias.name}" for alias in node.names)


FILES = sorted(p for p in ROOT.rglob("*.py") if p.name != "_version.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imported(path):
        parts = name.split(".")
        if len(parts) < 2 or not ((ROOT / parts[1]).is_dir() or (ROOT / f"{parts[1]}.py").is_file()):
            continue  # a public name of the root
        other = parts[1]
        assert other in ALLOWED[own] | {own, "exceptions", "_text"}, (
            f"{path.name} imports {name}: {own} may not use {other}"
        )
        if own == "backends" and other == "image":
            assert parts[2] in BACKENDS_SEE, f"{path.name} imports {name}; backends see plain arrays only"


def test_nothing_prints():
    for path in FILES:
        if "cli" in path.parts or "bench" in path.parts:
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        names = {n.func.id for n in calls if isinstance(n.func, ast.Name)}
        assert "print" not in names, path
