"""Cards say what is wrong with them."""

import numpy as np
import pytest

import astrogan.api
from astrogan.exceptions import InputError
from astrogan.weights import describe, validate_card
from astrogan.weights.card import ROLES, card_text, parse_card

CARD = {"name": "mine", "backend": "nafnet", "role": "restorer", "architecture": {"width": 8}}
FULL = CARD | {
    "format": 1,
    "bands": 2,
    "band_names": ["g", "r"],
    "ranges": {"fwhm": [2, 8.5], "peak_snr": [5.0, 1000.0]},
    "stretch": {"name": "asinh", "softening": 3.0},
    "calibration": {"scale": 1.07, "coverage68": 0.684, "coverage95": 0.951},
    "metrics": [{"method": "nafnet", "psnr": 38.123456789}, {"method": "wiener", "psnr": 36.0, "note": "baseline"}],
    "data": [{"name": "field", "origin": "simulated", "licence": "BSD-3-Clause", "split": "by galaxy"}],
    "parents": [{"name": "other", "sha256": "ab" * 32, "share": 0.5}],
    "recipe": "restoration",
    "seed": 0,
    "steps": 20_000,
    "git_revision": "abc",
    "astrogan_version": "0.1",
    "licence": "BSD-3-Clause",
    "citation": "Strößner et al.",
    "created": "2026-11-21",
    "notes": "",
    "sha256": "cd" * 32,
    "size": 123,
    "card_sha256": None,
}


def test_roles_are_those_of_the_backends():
    assert set(ROLES) == set(astrogan.api.ROLES)


def test_a_full_card_stays_as_it_is_and_a_short_one_gets_all_keys():
    full = validate_card(FULL)
    assert full == FULL
    assert list(full) == list(validate_card(CARD))
    assert validate_card(full) == full


def test_the_result_is_a_deep_copy_of_plain_values():
    given = CARD | {"architecture": {"blocks": (1, np.int64(2)), "gain": np.float32(0.5), "flag": np.True_}}
    card = validate_card(given)
    assert card["architecture"] == {"blocks": [1, 2], "gain": 0.5, "flag": True}
    assert [type(v) for v in (card["architecture"]["blocks"][1], card["architecture"]["gain"])] == [int, float]
    card["architecture"]["blocks"].append(3)
    assert given["architecture"]["blocks"] == (1, 2)


@pytest.mark.parametrize("key", ["name", "backend", "role", "architecture"])
def test_a_required_key_is_named(key):
    with pytest.raises(InputError, match=rf"card\['{key}'\] is missing; it must be"):
        validate_card({k: v for k, v in CARD.items() if k != key})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("format", True),
        ("name", "Mine"),
        ("name", "../mine"),
        ("name", "mine\n"),
        ("name", ""),
        ("role", "painter"),
        ("role", ["restorer"]),
        ("architecture", [1]),
        ("architecture", {"not an argument": 1}),
        ("bands", 0),
        ("bands", 1.0),
        ("bands", True),
        ("band_names", ["g", "g"]),
        ("band_names", "gr"),
        ("ranges", {"fwhm": [8, 2]}),
        ("ranges", {"fwhm": 3}),
        ("ranges", {"FWHM": [2, 8]}),
        ("ranges", {"fwhm": [2, None]}),
        ("stretch", "asinh"),
        ("calibration", {"scale": 0}),
        ("calibration", {"scale": [1.0, -1.0]}),
        ("calibration", {"coverage68": 68}),
        ("metrics", {"psnr": 3}),
        ("data", [{"name": "field", "origin": "simulated"}]),
        ("data", [{"name": "field", "origin": "", "licence": "x"}]),
        ("parents", [{"name": "a", "sha256": "ab", "share": 0.5}]),
        ("parents", [{"name": "a", "sha256": "ab" * 32, "share": 2}]),
        ("seed", -1),
        ("steps", 1e4),
        ("licence", 3),
        ("created", "21.11.2026"),
        ("created", "20261121"),
        ("sha256", "AB" * 32),
        ("size", -1),
    ],
)
def test_a_wrong_value_is_named_with_what_it_should_be(key, value):
    with pytest.raises(InputError, match=rf"card\['{key}'\]=.* must be ") as caught:
        validate_card(CARD | {key: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"licens": "x"}, "key 'licens' is unknown; known are format, name"),
        ({"metrics": [{"psnr": float("nan")}]}, r"card\['metrics'\]\[0\]\['psnr'\]=nan: .* give None"),
        ({"stretch": {1: 2}}, r"card\['stretch'\] has the key 1"),
        ({"notes": {3}}, r"card\['notes'\] is of type set"),
        ({"stretch": {"a": np.ones(2)}}, r"card\['stretch'\]\['a'\] is of type ndarray"),
        ({"bands": 3, "band_names": ["g"]}, "1 names and card.'bands'. is 3"),
        ({"band_names": ["g"]}, "is None"),
    ],
)
def test_what_no_card_can_hold_is_found_where_it_is(change, match):
    with pytest.raises(InputError, match=match):
        validate_card(CARD | change)


def test_a_card_that_holds_itself_is_refused():
    loop = {}
    loop["stretch"] = loop
    with pytest.raises(InputError, match="nested more than"):
        validate_card(CARD | {"stretch": loop})
    with pytest.raises(InputError, match="must be a dict, got list"):
        validate_card([])


def test_text_of_a_card_is_plain_and_holds_its_checksum():
    data = card_text(validate_card(FULL))
    assert data.isascii()
    card = parse_card(data, "card")
    assert card.pop("card_sha256")
    assert card == {key: value for key, value in FULL.items() if key != "card_sha256"}
    assert parse_card(data.replace(b"\n", b"\r\n"), "card"), "a checkout with other line ends is the same card"


def test_description_of_a_full_card():
    text = describe(FULL)
    for part in (
        "nafnet (restorer)",
        "2 (g, r)",
        "width=8",
        "fwhm 2 to 8.5; peak_snr 5 to 1000",
        "name=asinh, softening=3",
        "coverage68=0.684",
        "restoration, seed 0, steps 20000",
        "Strößner",
        "origin=simulated",
        "0.5 of other (abababababab)",
        "123 bytes",
    ):
        assert part in text
    lines = text.splitlines()
    assert lines[0] == "mine"
    assert [line.split() for line in lines[-3:]] == [
        ["method", "psnr", "note"],
        ["nafnet", "38.1235"],
        ["wiener", "36", "baseline"],
    ]
    assert "None" not in describe(CARD)


def test_a_recipe_of_many_lines_comes_after_the_figures():
    lines = describe(FULL | {"recipe": 'name = "mine"\n\n[network]\nwidth = 8\n'}).splitlines()
    assert "  recipe        seed 0, steps 20000" in lines
    assert lines[lines.index("  recipe in full") :] == [
        "  recipe in full",
        '    name = "mine"',
        "",
        "    [network]",
        "    width = 8",
    ]
    assert lines.index("  recipe in full") > lines.index("  metrics")


def test_a_description_moves_no_cursor_and_fakes_no_line():
    """A card may be a stranger's: everything in it that a terminal would act on is shown as an escape."""
    bad = "\x1b[2J\x9b1A\x07\r\u202eno\ud800t\x7f"
    shown = r"\x1b[2J\x9b1A\x07\r\u202eno\ud800t\x7f"
    row = {"name": bad, "origin": bad, "licence": bad, f"extra{bad}": [bad]}
    text = dict.fromkeys(("recipe", "git_revision", "astrogan_version", "licence", "citation", "notes"), bad)
    names = {"bands": 1, "band_names": [bad], "architecture": {"kind": bad}, "stretch": {bad: bad}, "metrics": [row]}
    described = describe(CARD | text | names | {"calibration": {bad: bad}, "data": [row], "parents": []})
    assert described.count(shown) == 20
    assert all(c == "\n" or c.isprintable() for c in described)
    described.encode()
    lines = describe(CARD | {"notes": "one\n  licence       CC0\n\ttwo"}).splitlines()
    assert lines[-1] == "  notes         one   licence       CC0  two"
    lines = describe(CARD | {"recipe": "a = 1\r\n\tb = 2\x1b\x0c\n"}).splitlines()
    assert lines[-2:] == ["    a = 1", r"    \tb = 2\x1b\x0c".replace(r"\t", "\t")]


def test_errors_about_a_card_quote_it_visibly():
    with pytest.raises(InputError, match="is unknown") as caught:
        validate_card(CARD | {"\x1b]0;title\x07": 1})
    assert "\x1b" not in str(caught.value)
    assert str(InputError("a\x1b[2Jb\n\tc \u03c3")) == "a\\x1b[2Jb\n\tc \u03c3"
