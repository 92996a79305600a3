"""Plugins as their users meet them: separate distributions, installed with pip, found by a fresh interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DISTRIBUTIONS = Path(__file__).parents[1] / "plugin_distributions"
NAMES = ("example", "broken", "duplicate", "misspelt", "wrong_api", "misbehaving")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which pip has installed every distribution."""
    import shutil

    work = tmp_path_factory.mktemp("plugins")
    for name in NAMES:
        shutil.copytree(DISTRIBUTIONS / name, work / "source" / name)
    target = work / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--disable-pip-version-check", "--target", str(target)]
    command += [str(work / "source" / name) for name in NAMES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return target


def python(site, code, **environment):
    """Run code in a fresh interpreter that sees the plugins; what it prints as JSON."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *sys.path]), "PYTHONWARNINGS": "ignore"} | environment
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LIST = (
    "import json, astrogan\n"
    "table = astrogan.list_backends()\n"
    "print(json.dumps([dict(zip(table.colnames, map(str, row))) for row in table]))"
)


@pytest.fixture(scope="module")
def rows(site):
    return python(site, LIST)


def row_of(rows, **fields):
    found = [r for r in rows if all(r[k] == v for k, v in fields.items())]
    assert len(found) == 1, found
    return found[0]


def test_example_is_listed_with_its_distribution_and_version(rows):
    row = row_of(rows, name="van-cittert")
    assert (row["distribution"], row["version"], row["status"]) == ("astrogan-van-cittert", "1.0", "ok")


def test_every_kind_of_broken_plugin_is_a_row_with_its_reason(rows):
    assert "flux capacitor" in row_of(rows, distribution="astrogan-broken", status="broken")["reason"]
    assert "unknown hook 'astrogan_backend'" in row_of(rows, distribution="astrogan-misspelt")["reason"]
    assert "api=99" in row_of(rows, distribution="astrogan-wrong-api", status="incompatible")["reason"]
    assert row_of(rows, distribution="astrogan-wrong-api", status="ok")["name"] == "of-the-present"
    assert "astrogan-duplicate" in row_of(rows, name="wiener", distribution="astrogan")["reason"]
    assert row_of(rows, name="wiener", distribution="astrogan-duplicate")["status"] == "duplicate"


def test_warnings_name_the_distributions(site):
    code = (
        "import json, warnings, astrogan\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    astrogan.list_backends()\n"
        "print(json.dumps([f'{w.category.__name__}: {w.message}' for w in caught]))"
    )
    messages = "\n".join(python(site, code))
    for name in ("astrogan-broken", "astrogan-misspelt", "astrogan-wrong-api"):
        assert name in messages
    assert messages.count("PluginWarning") == 3


def test_example_restores_an_image_and_keeps_the_contract(site):
    code = (
        "import json, numpy as np\n"
        "from astropy.nddata import CCDData\n"
        "from astrogan import Restorer\n"
        "from astrogan.testing import check_backend\n"
        "from astrogan_van_cittert.plugin import VAN_CITTERT\n"
        "report = check_backend(VAN_CITTERT)\n"
        "image = CCDData(np.pad(np.ones((1, 1)), 15), unit='adu')\n"
        "out = Restorer('van-cittert', psf=3.0, iterations=3)(image)\n"
        "again = Restorer('astrogan-van-cittert:van-cittert', psf=3.0, iterations=3)(image)\n"
        "print(json.dumps([report.failed, len(report.passed), str(out.unit), float(out.data.sum()),"
        " out.meta['AGBACK'], bool((out.data == again.data).all())]))"
    )
    failed, passed, unit, total, backend, same = python(site, code)
    assert failed == {}
    assert passed >= 10
    assert unit == "adu"
    assert total == pytest.approx(1, abs=1e-4)
    assert backend == "astrogan-van-cittert:van-cittert"
    assert same


def test_duplicate_is_an_error_that_the_qualified_name_resolves(site):
    code = (
        "import json, numpy as np\n"
        "from astropy.nddata import CCDData\n"
        "from astrogan import Restorer\n"
        "image = CCDData(np.ones((5, 5)), unit='adu')\n"
        "try:\n"
        "    Restorer('wiener')\n"
        "except Exception as error:\n"
        "    first = [type(error).__name__, str(error)]\n"
        "print(json.dumps([first, float(Restorer('astrogan-duplicate:wiener')(image).data[0, 0])]))"
    )
    (kind, message), value = python(site, code)
    assert kind == "DuplicateBackendError"
    assert "astrogan:wiener" in message
    assert "astrogan-duplicate:wiener" in message
    assert value == 2


def test_plugins_can_be_switched_off(site):
    names = {row["distribution"] for row in python(site, LIST, ASTROGAN_DISABLE_PLUGINS="1")}
    assert names == {"astrogan"}
    names = {row["distribution"] for row in python(site, LIST, ASTROGAN_DISABLE_PLUGINS="astrogan_broken, other")}
    assert "astrogan-broken" not in names
    assert "astrogan-van-cittert" in names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrong-shape", "shape"),
        ("not-finite", "finite"),
        ("wrong-type", "int"),
        ("mutates", "read-only"),
        ("raises", "ZeroDivisionError: something inside"),
        ("bare-array", "must return an Estimate|returned ndarray"),
    ],
)
def test_misbehaving_backends_are_named(site, name, words):
    import re

    code = (
        "import json, numpy as np\n"
        "from astropy.nddata import CCDData\n"
        "from astrogan import Restorer\n"
        "image = CCDData(np.arange(30.).reshape(5, 6), unit='adu')\n"
        "try:\n"
        f"    Restorer('{name}')(image)\n"
        "except Exception as error:\n"
        "    print(json.dumps([type(error).__name__, str(error), float(image.data.sum())]))"
    )
    kind, message, total = python(site, code)
    assert kind == "BackendError"
    assert name in message or "".join(part.title() for part in name.split("-")) in message
    assert re.search(words, message)
    assert total == 435


def test_conformance_kit_finds_each_fault(site):
    code = (
        "import json\n"
        "from astrogan.testing import check_backend\n"
        "from astrogan_misbehaving import astrogan_backends\n"
        "reports = {s.name: check_backend(s, raise_on_failure=False) for s in astrogan_backends()}\n"
        "print(json.dumps({name: sorted(report.failed) for name, report in reports.items()}))"
    )
    found = python(site, code)
    expected = {
        "wrong-shape": "output_form",
        "not-finite": "output_form",
        "wrong-type": "output_form",
        "mutates": "input_unchanged",
        "raises": "output_form",
        "bare-array": "output_form",
        "global-random": "deterministic",
        "erases": "scaling",
        "short-halo": "tiles",
    }
    for name, check in expected.items():
        assert check in found[name], (name, found[name])
