"""The translation benchmark: that its figures are right where the right answer is known."""

import numpy as np
import pytest
from astropy.table import Table
from click.testing import CliRunner

from astrogan.api import Estimate
from astrogan.bench import _translation_fields as fields
from astrogan.bench import _translation_fractions as fractions
from astrogan.bench import _translation_noise as noise
from astrogan.bench import _translation_rows as rows
from astrogan.bench import _translation_scores as scores
from astrogan.bench import _translation_sets as sets
from astrogan.bench import _translation_tables as tables
from astrogan.bench import _translation_wcs as wcs
from astrogan.bench import translation
from astrogan.exceptions import BackendError, InputError
from astrogan.metrics import centroid, stacked_fourier_map

pytest.importorskip("surveycodex")

DOWN, UP = "cfhtls-sdss", "sdss-cfhtls"
BANDS = ("g", "r", "i")
SHAPES = ((32, 32), (68, 68))


def small_pairs(start, number):
    """Small stamps in three bands."""
    from astrogan.simulate.surveys import simulate_pair

    for k in range(start, start + number):
        yield simulate_pair(2**41 + k, bands=BANDS, shapes=SHAPES, neighbours=0.0)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few stamps for the noise, and small pairs in place of the benchmark's."""
    monkeypatch.setattr(sets, "_FIT_STAMPS", 4)
    monkeypatch.setattr(noise, "_FIT_STAMPS", 6)
    monkeypatch.setattr(noise, "MODELS", ("white", "correlated", "gan"))
    monkeypatch.setattr(fields, "_ACROSS", 2)
    monkeypatch.setattr(tables, "_RESAMPLES", 20)
    monkeypatch.setattr(sets, "benchmark", small_pairs)
    sets.noise_of.cache_clear()
    rows._LATEST.clear()
    yield
    sets.noise_of.cache_clear()
    rows._LATEST.clear()


@pytest.fixture(scope="module")
def pair():
    return next(iter(small_pairs(0, 1)))


class Shifted:
    """The target's truth would be right; this is a second exposure moved, scaled or spoilt by a known amount."""

    truth = None

    def __init__(self, factor=1.0, shift=0):
        self.factor, self.shift = factor, shift

    def __call__(self, observation, target, *, rng):
        return Estimate(data=np.roll(self.truth, self.shift, axis=2) * self.factor)


class Fails:
    def __call__(self, observation, target, *, rng):
        raise BackendError("no idea")


class Keeps:
    """Keeps what it is shown."""

    seen = None

    def __call__(self, observation, target, *, rng):
        type(self).seen = target
        return Estimate(data=np.zeros((len(observation.data), *target.shape), np.float32))


def measured(own, number=3, direction=DOWN, **options):
    """What the benchmark measures of some rows on small pairs."""
    options = {"samples": 2, "sampled": 1} | options
    parts = [scores.measure_chunk(own, small_pairs, (k, 1), (direction,), *options.values()) for k in range(number)]
    names = parts[0][direction]
    return {direction: {n: scores.Measured.joined([p[direction][n] for p in parts]) for n in names}}


class TestRows:
    def test_target_is_the_other_stamp(self, pair):
        keeps = rows.Row("keeps", Keeps())
        keeps(pair.second, pair.first, np.random.default_rng(0))
        target = Keeps.seen
        assert target.shape == SHAPES[0]
        assert target.noise == pytest.approx(pair.first.sigma)
        assert target.area_ratio == pytest.approx((pair.first.pixel_scale / pair.second.pixel_scale) ** 2)
        inside, outside = pair.galaxy["positions"][1], pair.galaxy["positions"][0]
        assert np.ravel(target.to_input(*outside)) == pytest.approx(inside, abs=1e-6)
        assert np.ravel(target.to_output(*inside)) == pytest.approx(outside, abs=1e-6)
        assert target.noise_slope == pytest.approx(sets.photon_slope("sdss", BANDS))

    def test_nothing_of_the_other_truth_is_told(self, pair):
        from dataclasses import replace

        row = rows.Row("psf-matching", "psf-matching")
        blank = replace(pair.first, data=0 * pair.first.data, truth=0 * pair.first.truth)
        made = [row(pair.second, other, np.random.default_rng(1)).data for other in (pair.first, blank)]
        assert np.array_equal(*made)

    def test_a_mapping_remembered_is_the_mapping(self, rng):
        calls = []
        mapping = rows._Remembered(lambda x, y: calls.append(1) or (2 * x, y - 1))
        x, y = rng.normal(size=(2, 4, 5))
        first, again = mapping(x, y), mapping(x, y)
        assert len(calls) == 1
        first[0][:] = 0
        assert np.array_equal(again[0], 2 * x)
        assert np.array_equal(mapping(x, y)[0], 2 * x)
        assert np.array_equal(mapping(y, x)[0], 2 * y)

    def test_names(self):
        assert [r.name for r in rows.named_rows(["psf-matching", "surveynet"])] == ["psf-matching", "surveynet"]
        named = rows.named_rows(None, {"surveynet": "a.safetensors", "lin2020-mine": "b.safetensors"})
        options = {r.name: r.options for r in named}
        assert options["surveynet"] == {"weights": "a.safetensors"}
        assert options["lin2020-pix2pix"] == {"weights": "lin2020-pix2pix"}
        assert named[-1].backend == "lin2020"
        (row,) = rows.named_rows(["psf-matching:resampling=exact"])
        assert (row.backend, row.options) == ("psf-matching", {"resampling": "exact"})
        with pytest.raises(InputError, match="names no row"):
            rows.named_rows(None, {"mine": "x"})
        with pytest.raises(InputError, match="of no row"):
            rows.named_rows(["psf-matching"], {"surveynet": "x"})

    def test_what_does_not_work_is_named(self, pair):
        good, bad = rows.Row("keeps", Keeps()), rows.Row("fails", Fails())
        working, skipped = rows.available([good, bad], pair, (DOWN,))
        assert working == [good]
        assert "no idea" in skipped["fails"]


class TestSets:
    def test_second_exposure_has_the_noise_and_not_the_pixels(self, pair):
        for stamp in (pair.first, pair.second):
            drawn = [sets.second_exposure(stamp, np.random.default_rng(k)) for k in range(6)]
            error = np.array([d.data for d in drawn]) - stamp.truth
            assert (error**2).mean(axis=(0, 2, 3)) == pytest.approx(stamp.variance.mean(axis=(1, 2)), rel=0.06)
            apart = (error[:, :, :, 1:] * error[:, :, :, :-1]).mean() / (error**2).mean()
            assert apart == pytest.approx(0.37, abs=0.03)
            assert not np.array_equal(drawn[0].data, drawn[1].data)

    def test_photon_slope_is_the_inverse_of_electrons(self):
        assert 1 / sets.photon_slope("sdss", "r")[0] == pytest.approx(958, rel=0.01)


class TestScores:
    def test_the_truth_is_without_error(self):
        kept = measured([rows.Row(rows.FLOOR, None)])
        kept[DOWN]["oracle"] = kept[DOWN][scores.TRUTH]
        table = tables.score_table(kept, BANDS, {DOWN: 0.396})
        line = table[(table["row"] == "oracle") & (table["band"] == "mean")][0]
        for name in ("flux_distribution_truth", "dmag_truth", "centroid_truth", "size_truth", "w1"):
            assert line[name] == pytest.approx(0, abs=1e-12)
        floor = table[(table["row"] == rows.FLOOR) & (table["band"] == "r")][0]
        assert 0 < floor["dmag"] < 0.3
        assert floor["chi2"] == pytest.approx(1, abs=0.15)
        assert floor["within_1"] == pytest.approx(0.683, abs=0.03)
        assert floor["energy"] > 0

    def test_known_errors_are_found(self, monkeypatch):
        """Half the flux is 0.75 mag; a roll by two pixels is two pixels."""
        own = [rows.Row("dim", Shifted(factor=0.5)), rows.Row("moved", Shifted(shift=2))]

        def told(pairs_start, number):
            for one in small_pairs(pairs_start, number):
                monkeypatch.setattr(Shifted, "truth", one.first.truth)
                yield one

        part = scores.measure_chunk(own, told, (0, 1), (DOWN,), 1, 0)
        table = tables.score_table(part, BANDS, {DOWN: 0.396})
        dim, moved = (table[(table["row"] == n) & (table["band"] == "r")][0] for n in ("dim", "moved"))
        assert dim["dmag_bias"] == pytest.approx(2.5 * np.log10(2), abs=1e-4)
        assert dim["flux_distribution_truth"] == pytest.approx(0, abs=1e-6)
        assert dim["colour_truth"] == pytest.approx(0, abs=1e-4)
        assert moved["centroid_truth_px"] == pytest.approx(2, abs=0.01)
        assert moved["centroid_truth"] == pytest.approx(2 * 0.396, abs=0.004)
        assert moved["size_truth"] < 0.01

    def test_a_row_that_fails_is_counted_and_harms_no_other(self):
        kept = measured([rows.Row("fails", Fails()), rows.Row(rows.FLOOR, None)], number=2)
        table = tables.score_table(kept, BANDS, {DOWN: 0.396})
        bad = table[(table["row"] == "fails") & (table["band"] == "mean")][0]
        assert (bad["failed"], bad["valid"]) == (2, 0)
        assert np.isnan(bad["dmag"])
        assert np.isnan(bad["fourier"])
        assert np.isfinite(table[(table["row"] == rows.FLOOR) & (table["band"] == "mean")][0]["dmag"])

    def test_centroids_agree_with_the_metric(self, pair):
        stamp = pair.second
        position = np.array(pair.galaxy["positions"][1])
        found = scores.windowed_centroids(stamp.truth.astype(float), position, np.full(3, 4.0))
        assert found == pytest.approx(centroid(stamp.truth, position, sigma=4.0), abs=1e-3)

    def test_half_a_map_is_the_whole_map(self, rng):
        for shape in ((8, 8), (9, 9)):
            cube = rng.normal(size=(2, *shape))
            whole = tables.full_map(scores._half_power(cube), shape[1])
            assert whole == pytest.approx(stacked_fourier_map(cube[None]), rel=1e-4, abs=1e-6)


class TestNoise:
    def test_second_exposure_is_within_and_white_noise_is_not(self):
        own = [rows.Row(rows.FLOOR, None), rows.Row("white", White())]
        table = noise.noise_table(measured(own, number=6, direction=UP, sampled=0), BANDS)
        floor, white = (table[table["row"] == n] for n in (rows.FLOOR, "white"))
        assert np.abs(floor["acf_01"]).max() < 0.03
        assert white["acf_01"] == pytest.approx(-0.37, abs=0.04)
        assert white["kx0"].mean() < 0.75
        (first, second) = noise.noise_sentences(table, ("direction", "row"), tables.HALVES)
        assert rows.FLOOR in first
        assert "above 0.02" in second

    def test_models(self):
        table, skipped = noise.model_table(("sdss",), 6, bands="gr")
        models = {str(name) for name in table["model"]}
        assert {"real again", "white", "correlated"} <= models
        assert "noise-gan-sdss=PATH" in skipped["noise model gan of sdss"]
        assert np.abs(table[table["model"] == "correlated"]["acf_01"]).max() < 0.05
        assert table[table["model"] == "white"]["acf_01"].max() < -0.25


class White:
    """White noise at the target's level and nothing else."""

    def __call__(self, observation, target, *, rng):
        return Estimate(data=rng.normal(size=(3, *target.shape)) * target.noise[:, None, None])


class TestPlaces:
    def test_a_source_is_where_it_is_put(self, pair):
        stamp = fields.with_source(pair.second, 30.3, 25.8)
        assert centroid(stamp.truth[1], (30, 26), sigma=4.0) == pytest.approx([30.3, 25.8], abs=0.01)
        assert 22.5 - 2.5 * np.log10(stamp.truth[1].sum()) == pytest.approx(16.5, abs=0.02)

    def test_centroids_over_the_stamp(self):
        summary, places = fields.field_tables([rows.Row("psf-matching", "psf-matching")], small_pairs, (DOWN,), 3)
        assert len(places) == 9
        assert summary["worst"][0] < 0.1
        assert summary["within"][0] == 1


@pytest.fixture(scope="module")
def grids():
    return wcs.grid_table()


class TestGrids:
    def test_round_trips_and_corners(self, grids):
        for name in ("round_trip", "round_trip_back", "corners"):
            assert grids[name].max() < 1e-6

    def test_flux_and_shape(self, grids):
        for name in ("flux_down", "flux_up"):
            assert np.abs(grids[name] - 1).max() < 1e-3
        assert grids["l2_down"].max() < 0.01

    def test_the_truth_conserves_flux_on_every_grid(self):
        total = sum(source[2] for source in wcs._SOURCES)
        for kind in wcs.GRIDS:
            image = wcs._scene(wcs._wcs(136, 0.187, kind), 136, 0.71)
            assert image.sum() == pytest.approx(total, rel=1e-3)

    def test_simulated_galaxies(self):
        table = wcs.noise_free_table(number=1)
        assert table["l2_inner"].max() < 0.01
        assert table["flux_off"].max() < 2e-3


class TestFractions:
    def test_runs_by_name(self, tmp_path):
        for name in ("surveynet-semi-0", "surveynet-semi-1", "surveynet-paired-only-0", "notes"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "surveynet.safetensors").touch()
        runs = fractions.find_runs(tmp_path)
        assert [(r.mode, r.seed) for r in runs] == [("paired-only", 0), ("semi", 0), ("semi", 1)]
        assert runs[0].row.backend == "surveynet"
        (tmp_path / "surveynet-semi-1" / "other.safetensors").touch()
        with pytest.raises(InputError, match="must hold one"):
            fractions.find_runs(tmp_path)
        with pytest.raises(InputError, match="has no run"):
            fractions.find_runs(tmp_path / "notes")

    def test_mean_and_scatter_over_seeds(self):
        runs = [fractions.Run(rows.Row(f"surveynet-semi-{k}", "surveynet"), "semi", k) for k in range(3)]
        lines = [
            {"direction": DOWN, "row": run.row.name, "band": "mean", **dict.fromkeys(tables.HEADLINE, float(k))}
            for k, run in enumerate(runs)
        ]
        table = fractions.fraction_table(Table(rows=lines), runs)
        assert (table["seeds"][0], table["dmag"][0], table["dmag_std"][0]) == (3, 1, 1)


class TestRun:
    def test_everything_is_written(self, tmp_path):
        result = translation.run(
            parts=("pairs", "noise", "fields"), rows=["second-exposure", "psf-matching", "lin2020-nothing"],
            weights={"lin2020-nothing": str(tmp_path / "none.safetensors")}, number=3, directions=(DOWN,), samples=2,
            sampled=1, out=tmp_path,
        )  # fmt: skip
        names = {path.name for path in result.files}
        figures = {f"translation-{kind}-{DOWN}.png" for kind in ("examples", "variants", "radial", "fourier", "noise")}
        assert figures | {"translation.md", "translation-headline.ecsv", "translation-fields.png"} <= names
        assert all(path.stat().st_size > 500 for path in result.files)
        assert "lin2020-nothing" in result.skipped
        assert "lin2020-nothing" in (tmp_path / "translation.md").read_text()
        again = Table.read(tmp_path / "translation-scores.ecsv")
        assert set(again["row"]) == {"second-exposure", "psf-matching", "real-halves"}
        assert any(line.startswith("noise, cfhtls-sdss") for line in result.lines)

    def test_bad_arguments(self):
        with pytest.raises(InputError, match="parts="):
            translation.run(parts=("everything",))
        with pytest.raises(InputError, match="directions="):
            translation.run(directions=("sdss-sdss",))
        with pytest.raises(InputError, match="number=0"):
            translation.run(number=0)

    def test_command_line(self, tmp_path, monkeypatch):
        monkeypatch.setattr(wcs, "GRIDS", ("plain", "all three"))
        monkeypatch.setattr(wcs, "noise_free_table", lambda: Table({"band": ["r"]}))
        runner = CliRunner()
        done = runner.invoke(translation.command, ["--parts", "wcs", "-r", "second-exposure", "-o", str(tmp_path)])
        assert done.exit_code == 0, done.output
        assert "all three" in done.output
        bad = runner.invoke(translation.command, ["-w", "lin2020", "-o", str(tmp_path)])
        assert bad.exit_code == 2
        assert "NAME=PATH" in bad.output
