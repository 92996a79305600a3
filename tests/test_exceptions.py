"""What errors and warnings say is safe to print, whatever file they quote."""

import pickle
import warnings

import pytest

from astrogan import exceptions
from astrogan._text import visible
from astrogan.cli import main


@pytest.mark.parametrize("name", exceptions.__all__)
def test_messages_have_no_hidden_characters(name):
    said = getattr(exceptions, name)("BUNIT='\x1b[2J\r\x85\u2028'\n\tgive σ")
    assert str(said) == "BUNIT='\\x1b[2J\\r\\x85\\u2028'\n\tgive σ"
    assert str(pickle.loads(pickle.dumps(said))) == str(said)


def test_printable_text_stays():
    text = "Strößner — σ ≈ 3″, 銀河\n\tnext"
    assert visible(text) == text


def test_the_command_says_nothing_raw(capsys, monkeypatch):
    """Not even what other libraries raise."""
    from astrogan.cli import _main

    def command(args, **_):
        warnings.warn("a\x1b[1mb", exceptions.PSFWarning, stacklevel=1)
        raise KeyError("\x1b]0;title\x07") if args else OSError("x\x1b[2Jy")

    monkeypatch.setattr(_main.cli, "main", command)
    for argv in ([], ["weights"]):
        assert main(argv) == 1
        err = capsys.readouterr().err
        assert "\x1b" not in err
        assert r"\x1b[1m" in err
