"""k-fold cross validation: each object is tested once, and finished folds are not done again."""

import numpy as np
import pytest

from astrogan.exceptions import InputError
from astrogan.train import Recipe, cross_validate, read_recipe
from astrogan.train._fit import take
from astrogan.train.sources import SimulatedStream
from astrogan.train.split import fold_of

pytest.importorskip("lightning")

TINY = Recipe(
    "tiny",
    steps=2,
    batch=2,
    crop=32,
    epoch_steps=2,
    validate_every=9,
    validation_images=2,
    network={"widths": [4], "blocks": [1], "balances": [0.1, 10.0], "radius": 8},
    training={"loss": "linear"},
    degradation={"kind": "physical", "fwhm": [3.0, 3.0], "noise_ratio": [20.0, 20.0]},
    data=[{"kind": "simulated", "seed": 2, "size": 32, "length": 25}],
)


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    out = tmp_path_factory.mktemp("folds") / "out"
    return out, cross_validate(TINY, data=".", out=out, folds=2)


def test_every_object_is_tested_once(folds):
    out, table = folds
    source = SimulatedStream(seed=2, size=32, length=25)
    tested = []
    for fold in range(2):
        recipe = read_recipe(out / f"fold-{fold}" / "recipe.toml")
        assert (recipe.folds, recipe.fold) == (2, fold)
        parts = {part: take(source, recipe, part) for part in ("train", "validation", "test")}
        own = {part: {chosen.name(i) for i in range(len(chosen))} for part, chosen in parts.items()}
        assert not own["test"] & (own["train"] | own["validation"])
        assert not own["train"] & own["validation"]
        assert all(fold_of(name, 2) == fold for name in own["test"])
        assert table["images"][fold] == len(own["test"])
        tested += own["test"]
    assert sorted(tested) == sorted(source.name(i) for i in range(25))


def test_the_table(folds):
    _, table = folds
    assert table["fold"].tolist() == ["0", "1", "mean", "std"]
    assert table["images"].tolist()[2:] == [25, 2]
    for name in ("psnr", "psnr_identity", "psnr_gaussian"):
        first, second, mean, std = table[name]
        assert mean == pytest.approx((first + second) / 2)
        assert std == pytest.approx(np.std([first, second], ddof=1))
    assert (table["psnr_gaussian"] > table["psnr_identity"]).tolist()[:2] == [True, True]


def test_finished_folds_stay_as_they_are(folds, monkeypatch):
    out, table = folds
    from astrogan.train import _fit

    def refused(*_, **__):
        raise AssertionError("a finished fold was trained again")

    with monkeypatch.context() as patch:
        patch.setattr(_fit, "fit", refused)
        again = cross_validate(TINY, data=".", out=out, folds=2, resume=True)
    assert [tuple(row) for row in again] == [tuple(row) for row in table]


def test_an_unfinished_fold_goes_on(folds):
    out, table = folds
    (out / "fold-1" / "tiny.json").unlink()  # killed between the two files of the weights
    again = cross_validate(TINY, data=".", out=out, folds=2, resume=True)
    assert [tuple(row) for row in again] == [tuple(row) for row in table]


def test_another_recipe_does_not_go_on(folds):
    out, _ = folds
    for change in ({"steps": 4}, {"degradation.fwhm": [2.0, 2.0]}):
        with pytest.raises(InputError, match="is another recipe than 'tiny'"):
            cross_validate(TINY, data=".", out=out, folds=2, overrides=change, resume=True)
    with pytest.raises(InputError, match="exists"):
        cross_validate(TINY, data=".", out=out, folds=2)


@pytest.mark.parametrize("count", [0, 1, True, 2.0])
def test_one_fold_is_none(tmp_path, count):
    with pytest.raises(InputError, match="folds=.* at least 2"):
        cross_validate(TINY, data=".", out=tmp_path / "out", folds=count)


def test_folds_are_not_stopped_on_the_way(tmp_path):
    with pytest.raises(InputError, match="stop_after"):
        cross_validate(TINY, data=".", out=tmp_path / "out", folds=2, stop_after=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", ["ratio-net", "branched-gan-narrow", "usaid2019-stable", "lin2020-narrow"])
def test_tasks_that_cannot_be_scored_are_refused_at_once(tmp_path, recipe):
    from astrogan.train.evaluate import score_test_part

    message = rf"recipe '{recipe}' has task='.*\(--folds\) is for the tasks restoration, galaxygan2017: train this"
    with pytest.raises(InputError, match=message):
        cross_validate(recipe, data=tmp_path, out=tmp_path / "out", folds=2)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=message):
        score_test_part(None, read_recipe(recipe), tmp_path)


def test_finished_folds_of_other_data_are_not_counted(tmp_path, monkeypatch):
    from astropy.io import fits

    from astrogan.train import _fit

    for seed, name in enumerate(("data", "other")):
        (tmp_path / name).mkdir()
        stamps = np.random.default_rng(seed).normal(size=(25, 32, 32)).astype(np.float32)
        fits.writeto(tmp_path / name / "cube.fits", stamps)
    recipe = TINY.with_overrides({"data": [{"kind": "cube", "path": "cube.fits"}], "steps": 1, "epoch_steps": 1})
    cross_validate(recipe, data=tmp_path / "data", out=tmp_path / "out", folds=2)
    monkeypatch.setattr(_fit, "fit", None)
    with pytest.raises(InputError, match="data='.*other' .* holds other files"):
        cross_validate(recipe, data=tmp_path / "other", out=tmp_path / "out", folds=2, resume=True)
