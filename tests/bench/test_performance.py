"""The benchmark of speed: rows, ratios and verdicts are what they say, and what is missing never ends it."""

import json
import sys

import numpy as np
import pytest
from astropy.table import Table

from astrogan.bench import (
    _performance_classic,
    _performance_data,
    _performance_figures,
    _performance_networks,
    performance,
)
from astrogan.bench._performance_figures import Figure, Job, Target, absent, faster, seconds_row, smaller
from astrogan.bench._timing import alternate, best_of
from astrogan.exceptions import ImageWriteError, InputError

TINY = Job(repeats=1, scale=0.1)


@pytest.fixture
def no_amx(monkeypatch):
    monkeypatch.setattr(_performance_figures, "machine_has", lambda name: False)
    monkeypatch.setattr(_performance_networks, "machine_has", lambda name: False)


# ---- figures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "ratio", "target", "met"),
    [
        (faster("p", "c", 0.1, 0.5, 4.5), 5.0, ">= 4.5", "yes"),
        (faster("p", "c", 0.1, 0.4, 4.5), 4.0, ">= 4.5", "no"),
        (faster("p", "c", 0.1, 0.4), 4.0, "-", "-"),
        (seconds_row("p", "c", 0.3, 0.4, 1.0), 0.75, "<= 1", "yes"),
        (seconds_row("p", "c", 0.5, 0.4, 1.0), 1.25, "<= 1", "no"),
        (smaller("p", "c", 1.2, 8.0, 1.3, unit="images"), 0.15, "<= 1.3 (ours)", "yes"),
        (smaller("p", "c", 1.4, 8.0, 1.3, unit="images"), 0.175, "<= 1.3 (ours)", "no"),
        (faster("p", "c", 0.1, np.nan, 4.5), np.nan, ">= 4.5", "not measured"),
    ],
)
def test_ratio_target_and_verdict(figure, ratio, target, met):
    row = figure.row()
    assert row["ratio"] == pytest.approx(ratio, nan_ok=True)
    assert (row["target"], row["met"]) == (target, met)


def test_times_are_given_in_the_unit_named():
    row = faster("p", "c", 0.1, 0.5, unit="us a stamp", factor=1e6).row()
    assert (row["ours"], row["peer"], row["unit"]) == (pytest.approx(1e5), pytest.approx(5e5), "us a stamp")


@pytest.mark.parametrize(("flags", "met"), [("fpu amx_bf16 avx2", "no"), ("fpu avx2", "not applicable: no AMX")])
def test_a_target_counts_only_where_the_machine_has_what_it_needs(monkeypatch, flags, met):
    monkeypatch.setattr("astrogan.backends.gan._device.processor_flags", lambda: frozenset(flags.split()))
    assert faster("p", "c", 1.0, 2.0, 3.5, needs="amx").row()["met"] == met


def test_an_absent_peer_is_a_row():
    row = absent("p", "c", "deepinv", Target(1.3)).row()
    assert (row["met"], row["notes"], row["target"]) == ("not installed", "deepinv is not installed", ">= 1.3")
    assert np.isnan(row["ratio"])


def test_functions_run_in_turn_and_the_shortest_run_counts(monkeypatch):
    ticks = iter([0, 5, 5, 6, 6, 8, 8, 12])  # of the two that count: a 5, b 1; a 2, b 4
    monkeypatch.setitem(sys.modules["astrogan.bench._timing"].CLOCKS, "wall", lambda: next(ticks))
    order = []
    functions = {name: lambda name=name: order.append(name) for name in "ab"}
    assert best_of(functions, 2, warm=0) == {"a": 2, "b": 1}
    assert order == ["a", "b", "a", "b"]


def test_warm_runs_do_not_count():
    calls = []
    runs = alternate({"a": lambda: calls.append(1)}, 2, clock="cpu", warm=3)
    assert (len(calls), len(runs["a"])) == (5, 2)


@pytest.mark.parametrize("options", [{"repeats": 0}, {"repeats": True}, {"repeats": 1, "clock": "sun"}])
def test_timing_refuses(options):
    with pytest.raises(InputError, match="clock" if "clock" in options else "repeats"):
        alternate({"a": list}, **options)


# ---- the run --------------------------------------------------------------------------------------------------------


def install(monkeypatch, **functions):
    """Put functions of a job in the place of parts."""
    for part, function in functions.items():
        monkeypatch.setattr(_performance_classic, f"_test_{part}", function, raising=False)
        monkeypatch.setitem(performance._FUNCTIONS, part, (_performance_classic.__name__, f"_test_{part}"))


def test_rows_files_and_caption(monkeypatch, tmp_path):
    install(
        monkeypatch, rl=lambda job: [faster("rl", "256² | a", 0.1, 0.5, 1.8)], tv=lambda job: [absent("tv", "b", "x")]
    )
    said = []
    found = performance.run(
        ["rl", "tv", "rl"], repeats=2, clock="cpu", scale=0.5, out=tmp_path / "new", progress=said.append
    )
    assert found.table.colnames == ["part", "case", "unit", "ours", "peer", "ratio", "target", "met", "notes"]
    assert list(found.table["part"]) == ["rl", "tv"]
    assert [path.name for path in found.files] == ["performance.ecsv", "performance.md"]
    read = Table.read(found.files[0])
    assert read["ratio"][0] == pytest.approx(5.0)
    assert np.isnan(read["ratio"][1])
    assert read.meta["caption"] == found.table.meta["caption"]
    assert "processor time" in read.meta["caption"]
    assert "targets do not hold" in read.meta["caption"]
    text = found.files[1].read_text(encoding="utf-8")
    assert "| rl | 256² / a | ms | 100 | 500 | 5 | >= 1.8 | yes |" in text
    assert found.failed == ()
    assert said[0] == "rl"


def test_a_part_that_fails_keeps_its_rows_and_the_other_parts(monkeypatch, capsys):
    def breaks(job):
        yield faster("rl", "first", 0.1, 0.5)
        raise InputError("psf=None: none\nat all")

    def no_memory(job):
        raise MemoryError

    install(monkeypatch, rl=breaks, tv=no_memory, wiener=lambda job: [faster("wiener", "w", 1.0, 3.0, 3.0)])
    found = performance.run(["rl", "tv", "wiener"])
    assert list(found.table["met"]) == ["-", "failed", "failed", "yes"]
    assert found.table["notes"][1] == "InputError: psf=None: none at all"
    assert found.table["notes"][2] == "out of memory"
    with pytest.raises(SystemExit, match="failed: rl, tv"):
        performance.main(["--parts", "rl", "tv", "wiener"])
    assert "at all" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"parts": ["rl", "speed"]}, "parts"),
        ({"parts": []}, "parts"),
        ({"repeats": 0}, "repeats"),
        ({"clock": "sun"}, "clock"),
        ({"scale": 0.0}, "scale"),
        ({"scale": 2.0}, "scale"),
    ],
)
def test_arguments_are_named(options, name):
    with pytest.raises(InputError, match=name):
        performance.run(**options)


def test_an_output_folder_that_cannot_be(monkeypatch, tmp_path):
    install(monkeypatch, rl=lambda job: [faster("rl", "a", 0.1, 0.5)])
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageWriteError, match="out="):
        performance.run(["rl"], out=tmp_path / "file")


def test_main_prints_and_every_part_is_there(monkeypatch, capsys, tmp_path):
    install(monkeypatch, rl=lambda job: [faster("rl", f"full {job.full}", 0.1, 0.5)])
    performance.main(["--parts", "rl", "--full", "--repeats", "1", "-o", str(tmp_path)])
    printed = capsys.readouterr()
    assert "full True" in printed.out
    assert str(tmp_path / "performance.md") in printed.out
    assert "rl  full True  5" in printed.err
    import importlib

    for module, name in performance._FUNCTIONS.values():
        assert callable(getattr(importlib.import_module(module), name))


# ---- parts ----------------------------------------------------------------------------------------------------------


def figures(part, job=TINY):
    rows = [figure.row() for figure in part(job)]
    for row in rows:
        assert set(row) == {"part", "case", "unit", "ours", "peer", "ratio", "target", "met", "notes"}
    return rows


def test_rl_takes_its_figures_from_the_one_benchmark(monkeypatch):
    from astrogan.bench import richardson_lucy

    def rows(sizes, **options):
        best = {"skimage": 100.0, "fft-bound": 40.0, "astrogan": 20.0, "astrogan-nesterov": 10.0}
        memory = {"skimage": 9.0, "astrogan": 1.2}
        return [
            {"method": m, "best_ms": b, "iterations": 13, "difference": 2e-6, "memory": memory.get(m, np.nan)}
            for m, b in best.items()
        ]

    monkeypatch.setattr(richardson_lucy, "run", rows)
    found = figures(_performance_classic.rl, Job(full=True, repeats=1, scale=0.03))
    plain = [row for row in found if row["case"].endswith("scikit-image")]
    assert [row["target"] for row in plain] == [">= 1.8", ">= 4.5", ">= 9"]
    assert {row["ratio"] for row in plain} == {5.0}
    assert [row["met"] for row in plain] == ["yes", "yes", "no"]
    bounds = [row for row in found if "FFTs of the whole" in row["case"]]
    assert [row["ratio"] for row in bounds] == [0.5, 0.5]
    momentum = [row for row in found if "momentum" in row["case"]]
    assert [(row["ratio"], row["target"]) for row in momentum] == [(10.0, "-"), (10.0, ">= 9"), (10.0, ">= 18")]
    memory = [row for row in found if "memory" in row["case"]]
    assert memory[-1]["target"] == "<= 1.3 (ours)"
    assert memory[-1]["met"] == "yes"


def test_rl_on_stamps_and_wiener(monkeypatch):
    monkeypatch.setattr(_performance_classic, "_STAMPS", 3)
    monkeypatch.setattr(_performance_classic, "_ITERATIONS", 2)
    rows = figures(_performance_classic.rl_stamps, Job(repeats=1, scale=0.3))
    assert len(rows) == 3
    rows += figures(_performance_classic.wiener, Job(repeats=1, scale=0.2))
    for row in rows:
        assert row["ratio"] == pytest.approx(row["peer"] / row["ours"])
        assert row["ratio"] > 0
    assert [row["target"] for row in rows[3:]] == [">= 3", ">= 3"]


def test_total_variation_is_compared_at_equal_energy():
    (row,) = figures(_performance_classic.tv, Job(repeats=1, scale=0.2))
    assert row["ratio"] > 0
    assert int(row["notes"].split()[0]) <= 80


def test_energy_is_that_of_the_method():
    image = np.zeros((4, 4))
    image[:, 2:] = 3.0
    assert _performance_classic._energy(image, np.zeros((4, 4)), 2.0) == pytest.approx(0.5 * 8 * 9 + 2 * 4 * 3)


def test_degradation_without_galsim_and_deepinv(monkeypatch):
    from astrogan.bench import degradation

    rate = {"none": 2000.0, "Gaussian": 1000.0, "Poisson": 500.0}
    rows = [
        {"method": method, "noise": noise, "stamps_per_s": speed}
        for method in ("astrogan", "astrogan, Moffat PSF")
        for noise, speed in rate.items()
    ]
    rows += [{"method": "astropy", "noise": noise, "stamps_per_s": 50.0} for noise in ("none", "Poisson")]
    monkeypatch.setattr(degradation, "run", lambda **options: rows)
    monkeypatch.setattr(_performance_classic, "installed", lambda package: False)
    found = {row["case"]: row for row in figures(_performance_classic.degradation)}
    fast = found["Gaussian PSF, noise Gaussian, astropy"]
    assert (fast["ratio"], fast["target"], fast["met"]) == (pytest.approx(20), ">= 25", "no")
    exact = found["Gaussian PSF, noise Poisson, astropy"]
    assert (exact["ratio"], exact["target"], exact["met"]) == (pytest.approx(10), ">= 6", "yes")
    assert found["Gaussian PSF, noise Gaussian, galsim"]["met"] == "not installed"
    assert found["Gaussian PSF, noise none, deepinv (circular)"]["met"] == "not installed"


def test_loading_reads_the_same_from_cube_and_files(tmp_path):
    from astropy.io import fits

    from astrogan.train.sources.cube import FitsCube

    files = _performance_data._write_stamps(tmp_path, 3, 0)
    cube = FitsCube(tmp_path / "cube.fits")
    for i, file in enumerate(files):
        np.testing.assert_array_equal(cube.load(i).data, fits.getdata(file))
    rows = figures(_performance_data.loading, Job(repeats=1, scale=0.05))
    assert [row["target"] for row in rows] == [">= 30", "-", "-"]
    assert all(row["unit"] == "us a stamp" and row["ratio"] > 0 for row in rows)


def test_deblending_without_galsim(monkeypatch):
    monkeypatch.setattr(_performance_data, "installed", lambda package: False)
    (row,) = figures(_performance_data.deblending)
    assert row["met"] == "not installed"


def test_imports_are_counted_beyond_a_bare_interpreter(monkeypatch):
    seconds = {"pass": 1.0, "import astrogan": 1.1, "import astropy.io.fits": 1.4, "import torch": 3.0}
    monkeypatch.setattr(
        _performance_data,
        "best_of",
        lambda functions, *a, **k: {name: seconds.get(_code_of(f), 1.2) for name, f in functions.items()},
    )
    row = figures(_performance_data.start)[0]
    assert (row["case"], row["ours"], row["peer"]) == ("import astrogan", pytest.approx(100), pytest.approx(400))
    assert row["met"] == "yes"


def _code_of(function):
    return function.__defaults__[0]


@pytest.mark.usefixtures("no_amx")
def test_inference_rows_without_bfloat16(monkeypatch):
    seconds = {"plain": 1.0, "folded fp32": 0.8, "unet": 2.0}
    found = {f.row()["case"]: f.row() for f in _performance_networks._inference_rows("256²", seconds)}
    assert found["256², folded fp32, eager fp32"]["ratio"] == pytest.approx(1.25)
    assert found["256², folded bf16"]["met"] == "not applicable: no bfloat16"
    best = found["256², precision auto, eager fp32"]
    assert (best["target"], best["met"]) == (">= 1.15", "yes")
    assert found["256², folded fp32, U-Net of pix2pix fp32"]["ratio"] == pytest.approx(2.5)


def test_inference_takes_what_precision_auto_takes(monkeypatch):
    monkeypatch.setattr(_performance_networks, "machine_has", lambda name: True)
    monkeypatch.setattr("astrogan.backends.gan._device.processor_flags", lambda: frozenset(["amx_bf16"]))
    seconds = {"plain": 1.0, "folded fp32": 0.8, "folded bf16": 0.25, "unet": 2.0}
    found = {f.row()["case"]: f.row() for f in _performance_networks._inference_rows("256²", seconds)}
    best = found["256², precision auto, eager fp32"]
    assert (best["ratio"], best["target"], best["met"]) == (4.0, ">= 3.5", "yes")


def test_onnx_runtime_that_is_not_there(monkeypatch):
    monkeypatch.setattr(_performance_networks, "installed", lambda package: False)
    row = _performance_networks._onnx(TINY, "256²", (), 1.0).row()
    assert (row["met"], row["notes"]) == ("not installed", "onnxruntime is not installed")


@pytest.mark.usefixtures("no_amx")
def test_mosaic_rows_and_what_a_method_that_fails_leaves(monkeypatch):
    found = {
        "whole": {"seconds": 10.0, "megabytes": 1000.0},
        "tiles": {"seconds": 5.0, "megabytes": 400.0},
        "streamed": {"why": "there is none"},
    }
    monkeypatch.setattr(_performance_networks, "_write_scene", lambda *a: None)
    monkeypatch.setattr(_performance_networks, "_measured", lambda folder, method, clock: found[method])
    rows = figures(_performance_networks.mosaic)
    assert [row["ratio"] for row in rows[:2]] == [0.5, 0.4]
    assert (rows[2]["met"], rows[2]["notes"]) == ("not measured", "there is none")
    found["streamed"] = {"seconds": 3.0, "megabytes": 200.0}
    rows = figures(_performance_networks.mosaic)
    assert [row["met"] for row in rows[2:]] == ["not applicable: no AMX", "yes"]


def test_a_process_that_fails_says_why(monkeypatch, tmp_path):
    """There is no image in the folder."""
    why = _performance_networks._measured(tmp_path, "tiles", "cpu")["why"]
    assert "in.fits" in why


def test_a_report_is_time_and_memory(monkeypatch, tmp_path):
    held = []
    monkeypatch.setattr(_performance_networks, "_tiles", lambda folder: lambda: held.append(np.ones(2**22)))
    report = json.loads(json.dumps(_performance_networks._report(tmp_path, "tiles", "cpu")))
    assert set(report) == {"seconds", "megabytes"}
    assert report["megabytes"] > 25  # of the 33.5 written; other pages may go meanwhile


def test_a_figure_may_have_a_verdict_of_its_own():
    assert Figure("p", "c", "", 1.0, 1.0, 1.0, Target(3.0), met="failed").row()["met"] == "failed"
