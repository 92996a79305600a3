"""Every command that the documentation prints exists, and so do its options."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from astrogan.cli import cli
from astrogan.cli._bench import BENCHES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]
PAGES += [page for part in ("user_guide", "reproduction") for page in sorted((ROOT / "docs" / part).glob("*.rst"))]

PRINTED = re.compile(r"^\s*\$ (?:\w+=\S+ )*((?:astrogan|python -m astrogan\.\S+) .*)$", re.MULTILINE)
NAMED = re.compile(r"``((?:astrogan|python -m astrogan\.[\w.]+) [^`]*|python -m astrogan\.[\w.]+)``")


def commands(text):
    """Command lines of console blocks and of the running text, as lists of words."""
    text = re.sub(r"\\\n\s*", "", text)
    for line in PRINTED.findall(text) + [re.sub(r"\s+", " ", found) for found in NAMED.findall(text)]:
        words = shlex.split(line, comments=True)
        yield words[1:] if words[0] == "astrogan" else ["python", *words[2:]]


def options_of(words):
    """Options that the command which the words call knows; `None` where the words only name a group of commands."""
    if words[0] == "python":
        module = importlib.import_module(words[1])
        command = getattr(module, "command", None)
        return _options(command) if command else _parsed(module)
    command, rest = cli, list(words)
    while isinstance(command, click.Group):
        words_left = [word for word in rest if not word.startswith("-")]
        own = _options(command)
        if not words_left:
            return own
        inner = command.get_command(click.Context(command), words_left[0])
        if inner is None:
            # A group may take arguments of its own; in running text COMMAND, NAME and ... stand for any.
            return own if command.invoke_without_command or not re.fullmatch("[a-z][a-z-]*", words_left[0]) else None
        rest = rest[rest.index(words_left[0]) + 1 :]
        if command is cli.commands["bench"] and not _options(inner):
            return _parsed(importlib.import_module(BENCHES[words_left[0]]))
        command = inner
    return _options(command)


def _options(command):
    options = [p for p in command.get_params(click.Context(command)) if isinstance(p, click.Option)]
    return {name for option in options for name in (*option.opts, *option.secondary_opts)}


def _parsed(module):
    """Options of a module's own parser, read while it is asked for its help."""
    seen = []

    class Stop(Exception):
        pass

    def parse(self, *_args, **_kwargs):
        seen.extend(self._option_string_actions)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        with pytest.raises(Stop):
            module.main([])
    return set(seen)


def unknown(words):
    """What of a command line does not exist."""
    known = options_of(words)
    if known is None:
        return ["no such command"]
    flags = {re.match(r"--?[a-zA-Z][\w-]*", word).group() for word in words if re.match(r"--?[a-zA-Z]", word)}
    return sorted(flags - known - {"--debug", "--version", "--help"})


def test_the_check_finds_what_is_wrong():
    assert unknown(["restore", "image.fits", "--psf", "2", "--no-such-option"]) == ["--no-such-option"]
    assert unknown(["resore", "image.fits"]) == ["no such command"]
    assert unknown(["bench", "wiener", "--repeats", "15"]) == []
    assert unknown(["bench", "wiener", "--images", "15"]) == ["--images"]
    assert unknown(["python", "astrogan.bench.noise", "--steps", "9"]) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_printed_commands_exist(page):
    wrong = {shlex.join(words): unknown(words) for words in commands(page.read_text())}
    assert {line: why for line, why in wrong.items() if why} == {}


def test_pages_have_commands():
    assert sum(len(list(commands(page.read_text()))) for page in PAGES) > 80
