"""The registry on plugins made in memory: isolation, duplicates, messages."""

import types
import warnings

import numpy as np
import pytest

from astrogan.api import ROLES, BackendSpec, Estimate, hookimpl
from astrogan.exceptions import (
    BackendError,
    BackendNotFoundError,
    DuplicateBackendError,
    InputError,
    MissingDependencyError,
    PluginError,
    PluginWarning,
)
from astrogan.plugins import Registry, get_registry, list_backends, load_backend


class Doubler:
    """A backend with an option."""

    halo = 0

    def __init__(self, gain=2.0):
        if gain <= 0:
            raise InputError(f"gain={gain!r} must be positive")
        self.gain = gain

    def __call__(self, observation, *, rng):
        return Estimate(observation.data * self.gain)


def spec(name="doubler", role="restorer", **changes):
    return BackendSpec(**({"role": role, "name": name, "target": f"{__name__}:Doubler"} | changes))


def plugin(distribution, *specs, hook="astrogan_backends", result=None):
    """(distribution, version, loader) of a plugin that returns ``specs``."""
    module = types.ModuleType(distribution)

    def function():
        return list(specs) if result is None else result

    function.__name__ = hook
    setattr(module, hook, hookimpl(function))
    return distribution, "1.0", lambda: module


def broken(distribution, error):
    def load():
        raise error

    return distribution, "1.0", load


def test_builtins_are_all_importable():
    registry = get_registry()
    assert not registry.failures
    own = [b for b in registry.backends if b.distribution == "astrogan"]
    assert {b.spec.role for b in own} == set(ROLES)
    for backend in own:
        cls = backend.load()
        assert cls.__doc__, f"{backend.qualified_name} has no docstring"
        assert backend.spec.summary


def test_table_has_a_row_a_backend_and_its_columns():
    table = list_backends("restorer")
    assert table.colnames == ["name", "role", "distribution", "version", "status", "reason", "summary"]
    assert set(table["role"]) == {"restorer"}
    assert {"identity", "richardson-lucy", "wiener", "tv"} <= set(table["name"])
    assert set(table[table["distribution"] == "astrogan"]["status"]) == {"ok"}


def test_unknown_role_is_named():
    with pytest.raises(InputError, match="role='painter'.*restorer"):
        list_backends("painter")


def test_a_broken_plugin_does_not_disturb_the_others_and_raises_when_asked_for():
    with pytest.warns(PluginWarning, match="'bad-one' is set aside: OSError: no disk"):
        registry = Registry([broken("bad-one", OSError("no disk")), plugin("good-one", spec())])
    assert registry.find("restorer", "doubler").distribution == "good-one"
    with pytest.raises(PluginError, match="bad-one.*no disk") as caught:
        registry.find("restorer", "bad-one:anything")
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(BackendNotFoundError, match="could not be loaded: bad-one"):
        registry.find("restorer", "something-else")
    row = next(row for row in registry.table() if row["distribution"] == "bad-one")
    assert row["status"] == "broken"
    assert "no disk" in row["reason"]


def test_a_hook_that_raises_is_isolated_too():
    module = types.ModuleType("raising")

    @hookimpl
    def astrogan_backends():
        raise KeyError("inside the hook")

    module.astrogan_backends = astrogan_backends
    with pytest.warns(PluginWarning, match="inside the hook"):
        registry = Registry([("raising", "1", lambda: module), plugin("good-one", spec())])
    assert len(registry.backends) == 1


def test_duplicates_name_both_and_a_qualified_name_decides():
    registry = Registry([plugin("one-dist", spec()), plugin("other_dist", spec())])
    with pytest.raises(DuplicateBackendError, match="one-dist:doubler or other_dist:doubler"):
        registry.find("restorer", "doubler")
    assert registry.find("restorer", "other-dist:doubler").distribution == "other_dist"
    assert set(registry.table()["status"]) == {"duplicate"}


def test_the_same_name_in_another_role_is_no_duplicate():
    registry = Registry([plugin("one", spec(), spec(role="translator"))])
    assert registry.find("translator", "doubler").spec.role == "translator"


def test_twice_in_one_plugin_is_set_aside():
    with pytest.warns(PluginWarning, match="registers restorer 'doubler' twice"):
        registry = Registry([plugin("one", spec(), spec())])
    assert len(registry.backends) == 1


def test_misspelt_hook_is_reported_with_the_right_names():
    with pytest.warns(PluginWarning, match="unknown hook 'astrogan_bakends'.*astrogan_backends"):
        Registry([plugin("typo", spec(), hook="astrogan_bakends")])


def test_module_without_hooks_is_reported():
    with pytest.warns(PluginWarning, match="implements no hook"):
        Registry([("empty", "1", lambda: types.ModuleType("empty"))])


@pytest.mark.parametrize("result", [None, 3, spec()])
def test_wrong_return_values_are_reported(result):
    with pytest.warns(PluginWarning, match="must return a list of BackendSpec|returned None"):
        Registry([plugin("odd", result=result) if result is not None else plugin("odd", None)])


def test_wrong_api_sets_one_backend_aside_and_says_so_when_asked_for():
    with pytest.warns(PluginWarning, match="api=7; this astrogan has api=1"):
        registry = Registry([plugin("future", spec(api=7), spec("now"))])
    assert registry.find("restorer", "now")
    with pytest.raises(PluginError, match="future.*api=7"):
        registry.find("restorer", "doubler")
    assert "incompatible" in registry.table("restorer")["status"]


def test_strict_mode_raises_at_once(monkeypatch):
    monkeypatch.setenv("ASTROGAN_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="bad-one"):
        Registry([broken("bad-one", OSError("no disk"))])


def test_missing_dependency_is_listed_and_raised_on_load():
    registry = Registry([plugin("needy", spec(requires=("no_such_package_at_all",)))])
    assert registry.table()["status"][0] == "missing dependency"
    with pytest.raises(MissingDependencyError, match="pip install no_such_package_at_all"):
        registry.find("restorer", "doubler").load()


def test_a_target_that_does_not_import_names_the_distribution():
    registry = Registry([plugin("nowhere", spec(target="no.such.module:Class"))])
    with pytest.raises(PluginError, match=r"distribution 'nowhere'.*no\.such\.module:Class"):
        registry.find("restorer", "doubler").load()


def test_a_near_miss_is_suggested():
    with pytest.raises(BackendNotFoundError, match="did you mean 'richardson-lucy'"):
        load_backend("restorer", "richardson-lucie")
    with pytest.raises(LookupError):
        load_backend("restorer", "richardson-lucie")


def test_options_are_checked_by_name():
    with pytest.raises(InputError, match="'iteration'.*iterations"):
        load_backend("restorer", "richardson-lucy", {"iteration": 3})


def test_instances_are_taken_as_they_are():
    instance = Doubler(3)
    backend, name, version = load_backend("restorer", instance)
    assert backend is instance
    assert (name, version) == ("Doubler", "")
    with pytest.raises(InputError, match="instance"):
        load_backend("restorer", instance, {"gain": 2})
    with pytest.raises(BackendError, match="must be an instance"):
        load_backend("restorer", Doubler)
    with pytest.raises(InputError, match="must be a name"):
        get_registry().find("restorer", 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"role": "painter"}, "role='painter'"),
        ({"name": "My Method"}, "name='My Method'"),
        ({"name": "../evil"}, "name="),
        ({"target": "module"}, "target='module'"),
        ({"target": "os;system:x"}, "target="),
        ({"requires": "torch"}, "requires='torch'"),
    ],
)
def test_spec_fields_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        spec(**changes)


def test_listing_twice_warns_once():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list_backends()) == len(list_backends())


def test_estimate_of_an_instance_runs():
    from astropy.nddata import CCDData

    from astrogan import Restorer

    image = CCDData(np.arange(12.0).reshape(3, 4), unit="adu")
    out = Restorer(Doubler(3.0))(image)
    np.testing.assert_allclose(out.data, image.data * 3)


class Abort(BaseException):
    """Not an Exception."""


@pytest.mark.parametrize("error", [SystemExit(3), Abort("stop")])
def test_a_plugin_that_wants_to_end_the_process_is_set_aside(error):
    def load():
        raise error

    with pytest.warns(PluginWarning, match=f"plugin 'quitter' is set aside: {type(error).__name__}"):
        registry = Registry([("quitter", "1", load), plugin("good", spec())])
    assert [b.distribution for b in registry.backends] == ["good"]


def test_a_plugin_can_still_be_interrupted():
    def load():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Registry([("slow", "1", load)])


def test_a_class_whose_module_exits_names_its_plugin(tmp_path, monkeypatch):
    (tmp_path / "astrogan_test_exits.py").write_text("raise SystemExit(4)\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry([plugin("quitter", spec(target="astrogan_test_exits:Method"))])
    with pytest.raises(PluginError, match="distribution 'quitter' cannot be imported .* SystemExit: 4"):
        registry.find("restorer", "doubler").load()


def test_what_a_plugin_prints_does_not_reach_standard_output(capsys):
    name, version, load = plugin("chatty", spec())

    def chatter():
        print("hello")
        return load()

    Registry([(name, version, chatter)])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "hello\n"


def test_listing_imports_no_package_that_a_backend_requires(tmp_path, monkeypatch):
    (tmp_path / "astrogan_test_heavy").mkdir()
    (tmp_path / "astrogan_test_heavy" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry([plugin("heavy", spec(requires=("astrogan_test_heavy.part",)))])
    assert registry.table()["status"][0] == "ok"


@pytest.mark.parametrize(
    ("field", "value"), [("requires", (1,)), ("requires", (None,)), ("requires", ("a..b",)), ("summary", None)]
)
def test_spec_fields_of_other_types_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field}=.* must be"):
        spec(**{field: value})


def test_a_summary_is_one_line():
    assert spec(summary="two\n lines").summary == "two lines"
