"""The table of noise backends against noise of known truth."""

import numpy as np
import pytest

from astrogan.bench import noise
from astrogan.exceptions import InputError


@pytest.fixture(scope="module")
def table():
    table = noise.run(models=("white", "correlated", "galsim", "gan-start"), train=120, test=120)
    return {row["model"]: row for row in table}


def test_floor_comes_first_and_all_rows_are_there(table):
    assert list(table) == ["real again", "white", "correlated", "galsim", "gan-start"]


@pytest.mark.parametrize("model", ["correlated", "galsim", "gan-start"])
def test_noise_is_that_of_the_truth(table, model):
    row, floor = table[model], table["real again"]
    assert row["ks"] < 2 * floor["ks"]
    assert row["acf"] < 0.02
    # With so few stamps the floor of the axes is itself 10 %.
    assert max(row["axis_x"], row["axis_y"]) < 0.1 + max(floor["axis_x"], floor["axis_y"])
    assert row["bands"] < 0.02
    assert row["slope"] < 0.05 + floor["slope"]


def test_white_noise_is_found_out(table):
    assert table["white"]["acf"] > 0.3
    assert table["white"]["axis_x"] > 0.5


def test_a_survey_and_a_short_training():
    table = noise.run("sdss", models=("gan",), train=12, test=8, steps=1)
    assert table["model"].tolist() == ["real again", "gan"]
    assert all(np.isfinite(table[name]).all() for name in ("ks", "acf", "axis_x", "bands", "slope"))


def test_main_prints_the_table(capsys):
    noise.main(["--source", "known", "--models", "white", "--train", "6", "--test", "6"])
    text = capsys.readouterr().out
    assert "Kolmogorov-Smirnov" in text
    assert "real again" in text


@pytest.mark.parametrize(
    ("options", "message"), [({"models": ("pink",)}, "models=\\['pink'\\]"), ({"train": 1}, "train=1")]
)
def test_errors_name_what_is_wrong(options, message):
    with pytest.raises(InputError, match=message):
        noise.run(**options)
