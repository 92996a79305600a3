"""The benchmark of loading: that rates, ratios and slopes are what they say."""

import numpy as np
import pytest

pytest.importorskip("lightning")

from astrogan.bench import loading
from astrogan.exceptions import InputError
from astrogan.train import Recipe

TINY = Recipe(
    "tiny",
    steps=4,
    batch=2,
    crop=16,
    network={"widths": [4], "blocks": [1], "balances": [0.1], "radius": 4},
    training={"loss": "linear"},
    degradation={"kind": "physical", "fwhm": [2.0, 4.0]},
    data=[{"kind": "fits", "path": "stamps"}],
)


def test_stream_rates(tmp_path):
    loading._stamps(tmp_path / "stamps")
    recipes = [TINY, TINY.with_overrides({"data": [{"kind": "fits", "path": "elsewhere"}]})]
    table = loading.stream_rates(recipes, tmp_path, workers=(0,), seconds=0.05)
    (row,) = table
    assert row["recipe"] == "tiny"
    assert row["delivered"] > 0
    assert row["consumed"] > 0
    assert row["gflop"] > 0
    assert row["h200"] == pytest.approx(loading.H200_PART * loading.H200_FLOPS / row["gflop"] / 1e9)
    assert row["busy"] == pytest.approx(row["delivered"] / row["h200"])
    assert len(table.meta["missing"]) == 1
    assert "elsewhere" in table.meta["missing"][0]
    with pytest.raises(InputError, match="has none of the recipes' images"):
        loading.stream_rates(recipes[1:], tmp_path, workers=(0,), seconds=0.05)
    with pytest.raises(InputError, match="seconds=0 must be positive"):
        loading.stream_rates(seconds=0)


def test_operations_grow_with_the_area_of_the_images(tmp_path):
    loading._stamps(tmp_path / "stamps")
    flops = [
        loading._consumed(loading._job(TINY.with_overrides({"crop": crop}), tmp_path), 0.01)[1] for crop in (16, 32)
    ]
    assert flops[1] / flops[0] == pytest.approx(4, rel=0.05)


def test_file_rates():
    table = loading.file_rates(8, size=16, seconds=0.02)
    assert len(table) == 3
    assert table["over"][0] == 1
    np.testing.assert_allclose(table["over"], table["rate"] / table["rate"][0])


def test_memory_is_watched(monkeypatch):
    sizes = iter(range(10**6, 10**9, 1000))
    monkeypatch.setattr(loading, "resident", lambda: next(sizes))
    table = loading.memory_slope(8, points=4)
    assert len(table) >= 2  # a point may pass between two looks
    assert set(table["step"]) <= {2, 4, 6, 8}
    assert (np.diff(table["step"]) > 0).all()
    with pytest.raises(InputError, match="at least 4 points"):
        loading.memory_slope(3)


def test_a_leak_has_a_slope(monkeypatch):
    from astrogan import train

    def leaking(recipe, *, out, **_):
        out.mkdir()
        lines = "step,loss\n"
        for step in range(10, 90, 10):
            lines += f"{step},1\n"
            (out / "metrics.csv").write_text(lines)
            for _ in range(200):
                if len(seen) >= step // 10:
                    break
                pause.wait(0.02)

    import threading

    pause, seen = threading.Event(), []
    monkeypatch.setattr(loading, "resident", lambda: seen.append(0) or 10**6 + 5000 * len(seen))
    monkeypatch.setattr(train, "fit", leaking, raising=False)
    assert loading.memory_slope(80, points=8).meta["slope"] == pytest.approx(500)


def test_main_prints(monkeypatch, capsys, tmp_path):
    loading._stamps(tmp_path / "stamps")
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.to_toml())
    loading.main(["--data", str(tmp_path), "--recipes", str(path), "--workers", "0", "--seconds", "0.05"])
    printed = capsys.readouterr().out
    assert "delivered" in printed
    assert "not measured" in printed
    monkeypatch.setattr(loading, "memory_slope", lambda steps: _table(steps))
    loading.main(["--memory", "--steps", "7"])
    assert "1.5 bytes a step" in capsys.readouterr().out


def _table(steps):
    from astropy.table import Table

    return Table({"step": [steps], "rss": [10]}, meta={"slope": 1.5})
