"""Recipes, PSFs, stretches and positions of every kind: a result, or an error that astrogan raises on purpose."""

import contextlib
import io
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table
from astropy.wcs import WCS
from fuzz_targets import image_seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from astrogan.cli._deblend import _positions
from astrogan.exceptions import AstroganError, PSFError
from astrogan.image.psf import as_psf
from astrogan.image.stretch import stretch_from_dict
from astrogan.operators.deblender import _pixel_positions
from astrogan.train.recipe import Recipe, parse_recipe, read_recipe


@contextlib.contextmanager
def only_our_errors(kind=AstroganError):
    """The error is one of astrogan's, and one line; its warnings do not matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except kind as error:
            said = str(error)
        else:
            return
    assert said


# ---- recipes -----------------------------------------------------------------------------------------------------

numbers = st.integers() | st.floats() | st.sampled_from([0, 1, -1, 2**63, 2**64, float("nan"), float("inf"), 1e308])
plain = st.none() | st.booleans() | numbers | st.text(max_size=8)
nested = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
GOOD = """
name = "tiny"
task = "restoration"
steps = 4
batch = 2
[network]
widths = [4]
[[data]]
kind = "simulated"
seed = 5
"""
VALUES = ["0", "-1", "1e999", "nan", "true", "[]", "{}", '""', "[[]]", '"x"', "1979-05-27", "9999999999999999999999"]
KEYS = ["name", "task", "steps", "batch", "data", "network", "folds", "fold", "seed", "card", "summary", "network.a"]


@settings(max_examples=80)
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=3), st.integers(0, len(GOOD)))
def test_recipes_with_other_values(changes, cut):
    with only_our_errors():
        recipe = parse_recipe("".join(f"{key} = {value}\n" for key, value in changes) + GOOD[cut:])
        assert isinstance(recipe, Recipe)
        assert parse_recipe(recipe.to_toml()).to_toml() == recipe.to_toml()


@settings(max_examples=80)
@given(st.text(max_size=80) | st.text("[]{}=.\"'\n ax1-#,:", max_size=80))
def test_recipes_of_any_text(text):
    with only_our_errors():
        parse_recipe(text)


@pytest.mark.parametrize("text", ["x = " + "[" * 5000, "a" + ".a" * 5000 + " = 1", "x = 1" + "0" * 5000])
def test_deep_and_long_recipes(text):
    with pytest.raises(AstroganError, match="recipe="):
        parse_recipe(text)


@settings(max_examples=30)
@given(st.binary(max_size=40))
def test_files_of_recipes_of_any_bytes(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.toml"
        path.write_bytes(content)
        with only_our_errors():
            read_recipe(path)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), nested, max_size=3))
def test_overrides(overrides):
    with only_our_errors():
        parse_recipe(GOOD).with_overrides(overrides)


# ---- PSFs ----------------------------------------------------------------------------------------------------------

kernels = hnp.arrays(
    st.sampled_from(["f4", "f8", "i2", "u1", "?", "c8"]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
)
quantities = st.builds(
    lambda value, unit: value * u.Unit(unit), numbers, st.sampled_from(["arcsec", "pix", "adu", "", "m", "deg"])
)
texts = st.sampled_from(["1.3 arcsec", "3 pix", "nan arcsec", "", "x", "/", "1e400 pix", "-1 pix", "\0", "a.npy"])
one_psf = numbers | kernels | quantities | texts | plain | st.functions(like=lambda x, y: 0, returns=kernels)
psfs = one_psf | st.lists(one_psf, max_size=3) | st.dictionaries(st.sampled_from("gri"), one_psf, max_size=3)


@settings(max_examples=250)
@given(psfs, st.integers(1, 3), st.sampled_from([None, 0.2]), st.sampled_from([None, (20, 30), (1, 1)]), st.booleans())
def test_psfs_of_any_form(psf, n_bands, pixel_scale, shape, recentre):
    with only_our_errors(PSFError):
        model = as_psf(psf, n_bands=n_bands, pixel_scale=pixel_scale, shape=shape, recentre=recentre)
        assert model.kernels.shape[0] == n_bands
        assert np.isfinite(model.kernels).all()
        np.testing.assert_allclose(model.kernels.sum(axis=(1, 2)), 1, rtol=1e-4)


@settings(max_examples=60)
@given(
    st.sampled_from(["image", "cube", "RICE_1", "scaled"]), st.integers(0, 12000), st.integers(0, 255), st.booleans()
)
def test_psfs_in_damaged_files(name, place, byte, numpy_file):
    if numpy_file:
        stream = io.BytesIO()
        np.save(stream, np.ones((5, 5)))
        content = bytearray(stream.getvalue())
    else:
        content = bytearray(image_seeds()[name])
    content[place % len(content)] = byte
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("psf.npy" if numpy_file else "psf.fits")
        path.write_bytes(content)
        with only_our_errors(PSFError):
            as_psf(path)


# ---- stretches -----------------------------------------------------------------------------------------------------


@settings(max_examples=120)
@given(
    st.dictionaries(st.sampled_from(["sigma", "softening", "scale", "offset", "clip"]) | st.text(max_size=4), nested),
    st.sampled_from(["linear", "asinh-sigma", "galaxygan2017"]) | nested,
)
def test_stretches(parameters, name):
    with only_our_errors():
        stretch = stretch_from_dict(parameters | {"stretch": name})
        assert stretch_from_dict(stretch.to_dict()) == stretch


@settings(max_examples=20)
@given(nested)
def test_what_is_no_description_of_a_stretch(value):
    with only_our_errors():
        stretch_from_dict(value)


# ---- positions -----------------------------------------------------------------------------------------------------


def sky():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [150, 2], [20, 20], [-1e-4, 1e-4]
    return wcs


names = st.sampled_from(["x", "y", "ra", "dec", "RA", "Dec", "x_centroid", "y_centroid", "name"])
cells = st.lists(st.floats(-10, 60) | st.sampled_from([np.nan, np.inf, 1e300]), min_size=2, max_size=2)
columns = cells | st.lists(st.text(max_size=3), min_size=2, max_size=2) | st.just([[1.0, 2.0], [3.0, 4.0]])


@settings(max_examples=120)
@given(
    st.dictionaries(names, columns, max_size=4), st.sampled_from([None, "pix", "deg", "hourangle", "m"]), st.booleans()
)
def test_tables_of_positions(columns, unit, on_sky):
    table = Table(columns)
    for column in table.itercols():
        if unit and column.dtype.kind == "f":
            column.unit = unit
    with only_our_errors():
        xy = _pixel_positions(table, sky() if on_sky else None, (1, 40, 50))
        assert xy.shape[1] == 2


@pytest.fixture(scope="module")
def catalog():
    table = Table({"x": [3.0, 5.0], "y": [4.0, 9.0], "name": ["a", "b"]}, meta={"a": 1})
    table["x"].unit = u.pix
    stream = io.StringIO()
    table.write(stream, format="ascii.ecsv")
    return stream.getvalue().encode()


@settings(max_examples=100)
@given(st.data())
def test_damaged_files_of_positions(catalog, data):
    content = bytearray(catalog)
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), max_size=6)):
        content[place % len(content)] = byte
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.ecsv"
        path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
        with only_our_errors():
            _pixel_positions(_positions(str(path)), sky(), (1, 40, 50))
