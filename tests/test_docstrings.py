"""Every public object says what it takes, in which shapes and units, and what it gives back."""

import enum
import importlib
import inspect
import pkgutil

import pytest
from numpydoc.docscrape import ClassDoc, FunctionDoc

import astrogan

PRIVATE = ("astrogan.__main__", "astrogan._version")


def public_modules():
    """Names of all modules of the package that no underscore hides."""
    found = ["astrogan"]
    for module in pkgutil.walk_packages(astrogan.__path__, "astrogan."):
        if not any(part.startswith("_") for part in module.name.split(".")) and module.name not in PRIVATE:
            found.append(module.name)
    return sorted(found)


def public_objects():
    """(module, name) of every class and function that a module's ``__all__`` names, each once, where it is defined."""
    found = {}
    for module_name in public_modules():
        module = importlib.import_module(module_name)
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                found.setdefault((thing.__module__, name), thing)
    return {key: thing for key, thing in found.items() if key[0].startswith("astrogan")}


OBJECTS = public_objects()


def arguments(thing):
    """Parameters of a signature, as numpydoc writes them (``**options``), without ``self``."""
    prefix = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(thing).parameters.values()
    return [prefix.get(p.kind, "") + p.name for p in parameters if not p.name.startswith("_") and p.name != "self"]


def documented(doc, *sections):
    """Names that sections of a numpydoc docstring describe; one line may name several."""
    names = set()
    for section in sections:
        for entry in doc[section]:
            names |= {name.strip() for name in entry.name.split(",")}
    return names


def is_plain(cls):
    """Exceptions, enumerations and protocols have no parameters of their own."""
    return issubclass(cls, BaseException | enum.Enum) or getattr(cls, "_is_protocol", False)


def public_methods():
    """(module, class, method) of methods with parameters that public classes define."""
    for (module, name), cls in OBJECTS.items():
        if not inspect.isclass(cls) or is_plain(cls):
            continue
        for method, member in vars(cls).items():
            function = getattr(member, "__func__", member)
            if inspect.isfunction(function) and not method.startswith("_"):
                yield module, name, method


METHODS = sorted(public_methods())


@pytest.mark.parametrize("module", public_modules())
def test_module_has_docstring(module):
    assert (importlib.import_module(module).__doc__ or "").strip()


def test_scan_finds_the_package():
    assert len(OBJECTS) > 100
    assert ("astrogan.operators.restorer", "Restorer") in OBJECTS


@pytest.mark.parametrize(("module", "name"), sorted(OBJECTS), ids=map(".".join, sorted(OBJECTS)))
def test_public_object_is_documented(module, name):
    thing = OBJECTS[module, name]
    own = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    assert (own or "").strip(), "no docstring"
    first = own.strip().splitlines()[0]
    assert first[0].isupper() or not first[0].isalpha(), f"the first line begins with a small letter: {first!r}"
    if inspect.isclass(thing):
        if is_plain(thing):
            return
        given = documented(ClassDoc(thing), "Parameters", "Attributes", "Other Parameters")
    else:
        doc = FunctionDoc(thing)
        given = documented(doc, "Parameters", "Other Parameters")
        returns = "return " in inspect.getsource(thing) or "yield" in inspect.getsource(thing)
        if returns and len(arguments(thing)) > 0:
            assert doc["Returns"] or doc["Yields"], "no Returns section"
    missing = [argument for argument in arguments(thing) if argument not in given]
    assert not missing, f"not described: {missing}"


@pytest.mark.parametrize(("module", "name", "method"), METHODS, ids=map(".".join, METHODS))
def test_public_method_is_documented(module, name, method):
    function = inspect.getattr_static(OBJECTS[module, name], method)
    function = getattr(function, "__func__", function)
    assert (function.__doc__ or "").strip(), "no docstring"
    if len(arguments(function)) - (arguments(function)[:1] == ["cls"]) > 2:
        given = documented(FunctionDoc(function), "Parameters", "Other Parameters")
        missing = [argument for argument in arguments(function) if argument not in given and argument != "cls"]
        assert not missing, f"not described: {missing}"
