"""A new plugin, as ``astrogan plugin new`` writes it: it installs, works, and keeps the contract."""

import ast
import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData, StdDevUncertainty

from astrogan import Deblender, Degrader, Restorer, Translator, list_backends
from astrogan.api import API_VERSION, ROLES
from astrogan.cli import cli, main
from astrogan.exceptions import ImageWriteError, InputError, UncertaintyWarning
from astrogan.operators.translator import TargetSpec
from astrogan.plugins import get_registry, load_backend, reload_plugins
from astrogan.plugins.template import new_plugin
from astrogan.plugins.template._files import LICENCES
from astrogan.testing import check_backend, example_observation

NAME = "skeleton-of-tests"


def install(path, site):
    """What pip does with such a package, without pip: its modules and its entry point in a folder."""
    project = tomllib.loads((path / "pyproject.toml").read_text())["project"]
    (path / "src").rename(site)
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    fields = ("Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}")
    (info / "METADATA").write_text("\n".join(fields) + "\n")
    points = [f"{name} = {value}" for name, value in project["entry-points"]["astrogan"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[astrogan]", *points]) + "\n")


@pytest.fixture(scope="module", params=ROLES)
def installed(request, tmp_path_factory):
    """(role, module with the hook) of a new plugin of each role, on the path of this process."""
    role, folder = request.param, tmp_path_factory.mktemp("new")
    site = folder / "site"
    install(new_plugin(f"{NAME}-{role}", folder, role), site)
    sys.path.insert(0, str(site))
    try:
        reload_plugins()
        yield role, importlib.import_module(f"astrogan_{NAME}-{role}".replace("-", "_") + ".plugin")
    finally:
        sys.path.remove(str(site))
        reload_plugins()


def test_is_listed_with_its_distribution(installed):
    role, plugin = installed
    table = list_backends(role)
    row = table[table["name"] == plugin.SPEC.name][0]
    assert (row["distribution"], row["version"], row["status"]) == (f"astrogan-{NAME}-{role}", "0.1.0", "ok")
    assert row["summary"]
    assert not get_registry().failures


def test_keeps_the_contract(installed):
    role, plugin = installed
    report = check_backend(plugin.SPEC)
    assert len(report.passed) >= 7
    if role == "restorer":  # a halo small enough to look beyond it
        report = check_backend(plugin.SPEC, options={"iterations": 1})
        assert {"masked_values_unread", "tiles"} <= set(report.passed)


def test_hook_module_imports_only_the_api(installed):
    _, plugin = installed
    tree = ast.parse(Path(plugin.__file__).read_text())
    assert [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)] == ["astrogan.api"]
    assert not any(isinstance(n, ast.Import) for n in ast.walk(tree))
    # Written out: the default would be that of the astrogan that is installed, whatever it is by then.
    assert f"api={API_VERSION}," in Path(plugin.__file__).read_text()


def test_works_by_its_name(installed):
    role, plugin = installed
    _WORKS[role](plugin.SPEC.name)


def gaussian(shape, positions, fluxes, fwhm):
    y, x = np.mgrid[: shape[0], : shape[1]]
    two = 2 * (fwhm / 2.3548) ** 2
    pairs = zip(fluxes, positions, strict=True)
    return sum(f / (np.pi * two) * np.exp(-((x - a) ** 2 + (y - b) ** 2) / two) for f, (a, b) in pairs)


def _restores(name):
    image = CCDData(gaussian((61, 61), [(30, 30)], [1000], 5.0), unit="adu")
    peaks = [Restorer(name, psf=4.0, iterations=n)(image).data.max() for n in (1, 3, 9)]
    assert image.data.max() < peaks[0] < peaks[1] < peaks[2]
    restored = Restorer(name, psf=4.0)(image)
    assert restored.data.sum() == pytest.approx(1000, rel=1e-3)
    assert restored.unit == "adu"
    assert restored.meta["AGBACK"] == f"astrogan-{name}:{name}"
    with pytest.raises(InputError, match="iterations=0 must be a positive"):
        Restorer(name, psf=4.0, iterations=0)


def _degrades(name):
    scene = gaussian((80, 80), [(40, 40)], [3000], 3.0)
    image = CCDData(scene + np.random.default_rng(1).normal(0, 0.5, scene.shape), unit="adu")
    image.uncertainty = StdDevUncertainty(np.full(scene.shape, 0.5))
    blurred = Degrader(backend=name, fwhm=4.0, noise_factor=0.0)(image)
    assert blurred.data[15:66, 15:66].sum() == pytest.approx(image.data[15:66, 15:66].sum(), rel=0.02)
    assert blurred.data.max() == pytest.approx(3000 * 4 * np.log(2) / np.pi / 25, rel=0.03)
    noisy = Degrader(backend=name, fwhm=4.0, noise_factor=2.0)(image, rng=3)
    sky = np.s_[:25, :]
    assert noisy.data[sky].std() == pytest.approx(1.0, rel=0.1)
    assert np.median(noisy.uncertainty.represent_as(StdDevUncertainty).array) == pytest.approx(
        noisy.data[sky].std(), rel=0.1
    )


def _deblends(name):
    positions, fluxes = [(24, 30), (36, 30)], [2000, 1000]
    scene = gaussian((60, 60), positions, fluxes, 5.0)
    image = CCDData(scene + np.random.default_rng(2).normal(0, 0.2, scene.shape), unit="adu")
    for result in (Deblender(name)(image, positions), Deblender(name)(image)):
        assert len(result.sources) == 2
        order = np.argsort([-s.data.sum() for s in result.sources])
        found = [result.sources[i].data.sum() for i in order]
        assert found == pytest.approx(fluxes, rel=0.1)
        np.testing.assert_allclose(result.recompose().data, image.data, atol=1e-4)
    assert len(Deblender(name)(CCDData(np.random.default_rng(3).normal(size=(60, 60)), unit="adu")).sources) == 0


def _translates(name):
    scene = gaussian((90, 90), [(44.5, 44.5)], [1000], 4.0)
    spec = TargetSpec(pixel_scale=0.4, psf=4.0, noise=0.5)
    image = CCDData(scene, unit="adu", uncertainty=StdDevUncertainty(np.full(scene.shape, 1e-3)))
    translator = Translator(name, target=TargetSpec(pixel_scale=0.4, psf=4.0), psf=4.0)
    with pytest.warns(UncertaintyWarning):
        plain = translator(image, pixel_scale=0.2)
    assert plain.shape == (45, 45)
    assert plain.data.sum() == pytest.approx(1000, rel=0.01)
    # A width of 4 pixels of 0.4 arcsec, as was asked for.
    assert plain.data.max() == pytest.approx(1000 * 4 * np.log(2) / np.pi / 4**2, rel=0.03)
    with pytest.warns(UncertaintyWarning):
        noisy = Translator(name, target=spec, psf=4.0)(image, pixel_scale=0.2, rng=1)
    assert (noisy.data - plain.data).std() == pytest.approx(0.5, rel=0.05)
    image.uncertainty = None
    sharper = Translator(name, target=TargetSpec(pixel_scale=0.2, psf=2.0), psf=4.0)(image, pixel_scale=0.2)
    assert "unmatched" in str(sharper.meta["AGINFO"])


def _draws_noise(name):
    noise, full, _ = load_backend("noise", name, {"sigma": 2.0, "stripes": 0.25})
    assert full == f"astrogan-{name}:{name}"
    images = np.stack([noise.sample((1, 96, 128), rng=np.random.default_rng(seed))[0] for seed in range(8)])
    assert images.std() == pytest.approx(2.0, rel=0.03)
    stars = np.random.default_rng(9).random(images.shape) < 0.3
    for sky, mask in ((images, None), (np.where(stars, 1e3, images), stars), (images[:, None], None)):
        learned = type(noise).fit(sky, mask)
        assert learned.sigma == pytest.approx(2.0, rel=0.03)
        assert learned.stripes == pytest.approx(0.25, abs=0.04)
    with pytest.raises(InputError, match="no sky"):
        type(noise).fit(images, np.ones(images.shape, bool))
    bright = type(noise)(1.0, 0.0, signal_slope=3.0).sample(
        (1, 200, 200), signal=np.full((1, 200, 200), 5.0), rng=np.random.default_rng(0)
    )
    assert bright.std() == pytest.approx(4.0, rel=0.03)
    image = CCDData(np.zeros((64, 64)), unit="adu")
    added = Degrader(noise=name, noise_level=0.5 * u.adu)(image, rng=0)
    assert added.data.std() == pytest.approx(0.5, rel=0.2)


_WORKS = {
    "restorer": _restores,
    "degrader": _degrades,
    "deblender": _deblends,
    "translator": _translates,
    "noise": _draws_noise,
}


def test_every_role_is_tried():
    assert set(_WORKS) == set(ROLES)


def test_every_argument_of_the_deblender_is_used():
    from astrogan.plugins.template._deblender import MyBackend

    observation = example_observation((1, 40, 40), masked=False)
    near = MyBackend(radius=3)(observation, [(20.0, 20.0)], rng=None).templates[0]
    assert near.data.shape == (1, 7, 7)
    corner = MyBackend(radius=3)(observation, [(0.2, 39.4)], rng=None).templates[0]
    assert (corner.origin, corner.data.shape) == ((36, 0), (1, 4, 4))


# ---- what is written ------------------------------------------------------------------------------------------------


def test_package_is_whole(tmp_path):
    path = new_plugin("my-method", tmp_path, author='A. "Quoted" Author <a.author@example.org>', licence="MIT")
    assert path == tmp_path / "astrogan-my-method"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    project = tomllib.loads((path / "pyproject.toml").read_text())
    assert project["project"]["authors"] == [{"name": 'A. "Quoted" Author', "email": "a.author@example.org"}]
    assert project["project"]["license"] == "MIT"
    assert project["project"]["entry-points"]["astrogan"] == {"astrogan_my_method": "astrogan_my_method.plugin"}
    assert 'A. "Quoted" Author\n' in (path / "LICENSE").read_text()
    assert 'Restorer("my-method"' in (path / "README.rst").read_text()
    for file in path.rglob("*"):
        if file.is_file():
            text = file.read_text()
            assert "@N" not in text, file
            assert "MyBackend" not in text, file
            if file.suffix == ".py":
                compile(text, file.name, "exec")


def test_style_is_as_astrogans_own(tmp_path):
    for role in ROLES:
        new_plugin(f"styled-{role}", tmp_path, role)
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "E,F,W,I,UP,B", "--line-length", "120"]
    done = subprocess.run([*ruff, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_without_licence_and_author(tmp_path):
    path = new_plugin("astrogan-2d-fit", tmp_path, licence=None)
    assert path.name == "astrogan-2d-fit"
    assert not (path / "LICENSE").exists()
    project = tomllib.loads((path / "pyproject.toml").read_text())["project"]
    assert "license" not in project
    assert project["authors"] == [{"name": "The astrogan-2d-fit developers"}]
    assert "class Method2dFitRestorer:" in (path / "src/astrogan_2d_fit/restorer.py").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "My_Method"}, "name='My_Method' must be lower-case"),
        ({"name": "../evil"}, "name='../evil' must be lower-case"),
        ({"name": "astrogan-"}, "name='astrogan-' must be lower-case"),
        ({"name": 3}, "name=3 must be"),
        ({"name": "astrogan"}, "not be astrogan's own"),
        ({"name": "x" * 51}, "must have 50 characters at most"),
        ({"name": "wiener"}, "name='wiener' is that of a restorer of astrogan already"),
        ({"role": "painter"}, "role='painter' is unknown; use one of restorer"),
        ({"author": "two\nlines"}, "author='two.*on one line"),
        ({"author": "A. <no mail>"}, "must have the form 'A. Author <mail@example.org>'"),
        ({"licence": "WTFPL"}, "licence='WTFPL' must be 'BSD-3-Clause', 'MIT' or None"),
        ({"folder": "no/such/folder"}, "folder='no/such/folder' is no folder; create it"),
        ({"folder": 3}, "folder=3 cannot be used"),
    ],
)
def test_arguments_are_checked(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        new_plugin(**({"name": "my-method", "folder": tmp_path} | arguments))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "astrogan-my-method").mkdir()
    with pytest.raises(ImageWriteError, match="astrogan-my-method' exists; choose another name"):
        new_plugin("my-method", tmp_path)
    assert list((tmp_path / "astrogan-my-method").iterdir()) == []


def test_failing_half_way_leaves_nothing(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(ImageWriteError, match="cannot be written: No space left"):
        new_plugin("my-method", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plugin", "new", "my-noise", "--role", "noise", "--author", "A. Author", "--licence", "none"]) == 0
    out, err = capsys.readouterr()
    assert out == "astrogan-my-noise\n"
    assert err == "next: python -m pip install -e astrogan-my-noise; astrogan backends --role noise\n"
    assert (tmp_path / "astrogan-my-noise/src/astrogan_my_noise/noise.py").is_file()
    assert not (tmp_path / "astrogan-my-noise/LICENSE").exists()
    assert main(["plugin", "new", "my-noise"]) == 1
    assert "'astrogan-my-noise' exists" in capsys.readouterr().err
    assert main(["plugin", "new", "my-noise", "--role", "painter"]) == 2
    assert "'restorer', 'degrader', 'deblender', 'translator', 'noise'" in capsys.readouterr().err


def test_command_line_knows_every_role_and_licence():
    choices = {p.name: getattr(p.type, "choices", None) for p in cli.commands["plugin"].commands["new"].params}
    assert tuple(choices["role"]) == ROLES
    assert set(choices["licence"]) == {*LICENCES, "none"}


# ---- as a user does it ----------------------------------------------------------------------------------------------


def test_pip_installs_it_and_its_own_tests_pass(tmp_path):
    """No network and no edit in astrogan: pip, a fresh interpreter, the package's own test suite."""
    pytest.importorskip("setuptools", minversion="77")
    pytest.importorskip("pip")
    path, site = new_plugin("my-name", tmp_path), tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run([*command, "--disable-pip-version-check", "--target", str(site), str(path)], os.environ)
    (path / "tests" / "test_use.py").write_text(USE)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
    out = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], env, cwd=path)
    assert "3 passed" in out


USE = """
import numpy as np
from astropy.nddata import CCDData
from astrogan import Restorer


def test_use():
    out = Restorer("my-name", psf=3.0)(CCDData(np.pad(np.ones((1, 1)), 15), unit="adu"))
    assert out.meta["AGBACK"] == "astrogan-my-name:my-name"
    assert abs(out.data.sum() - 1) < 1e-3
"""


def run(command, env, cwd=None):
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
