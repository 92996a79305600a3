"""The deblending benchmark: that its figures are right where the right answer is known."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from astrogan.api import Observation, Separation, Template
from astrogan.bench import _deblending_grid as grid
from astrogan.bench import _deblending_paper as paper
from astrogan.bench import _deblending_real as real
from astrogan.bench import _deblending_rows as rows
from astrogan.bench import _deblending_scores as scores
from astrogan.bench import _deblending_sets as sets
from astrogan.bench import _deblending_spirals as spirals
from astrogan.bench import _deblending_tables as tables
from astrogan.bench import deblending
from astrogan.exceptions import BackendError, InputError

ORACLE = rows.Row("truth-ratio", rows.TruthRatio)
WATERSHED = rows.Row("watershed", "watershed")


@pytest.fixture
def scene():
    """Two overlapping sources in three bands."""
    return rows._trial()


class Everything:
    """One source takes all the light: wrong by a known amount."""

    def __call__(self, observation, positions=None, *, rng=None):
        positions = np.array([(19.0, 24.0)]) if positions is None else positions
        share = [1.0] + [0.0] * (len(positions) - 1)
        ones = np.ones(observation.shape, np.float32)
        return Separation(tuple(Template((0, 0), s * ones, tuple(p)) for s, p in zip(share, positions, strict=True)))


class Places:
    """Depends on the order of positions and on the place: breaks both laws."""

    def __call__(self, observation, positions=None, *, rng=None):
        ramp = np.broadcast_to(np.arange(observation.shape[2], dtype=np.float32), observation.shape)
        flat = np.ones(observation.shape, np.float32)
        templates = [ramp + 1, *[flat] * (len(positions) - 1)]
        return Separation(tuple(Template((0, 0), t, tuple(p)) for t, p in zip(templates, positions, strict=True)))


class Fails:
    def __call__(self, observation, positions=None, *, rng=None):
        raise BackendError("no idea")


class Reports:
    """Keeps what it is shown."""

    seen = None

    def __call__(self, observation, positions=None, *, rng=None):
        type(self).seen = observation
        template = np.maximum(observation.data, 0) + np.float32(1e-3)
        return Separation(tuple(Template((0, 0), template, tuple(p)) for p in positions))


class TestScene:
    def test_facts(self, scene):
        facts = scores.scene_facts(scene)
        own, other = scene.truth
        # All bands have one shape, so the blendedness is that of any of them.
        expected = 1 - np.sum(own[0] ** 2) / np.sum(own[0] * (own[0] + other[0]))
        assert facts[0]["blendedness"] == pytest.approx(expected, rel=1e-6)
        assert facts[0]["snr"] == pytest.approx(np.sqrt(np.sum(own**2) / 0.25), rel=1e-6)
        assert facts[1]["separation"] == pytest.approx(np.hypot(10, 2) / 4.0, rel=0.02)

    def test_psf_is_cut_to_fit(self):
        psf = np.ones((2, 43, 43))
        cut = sets._odd(psf, (2, 50, 32))
        assert cut.shape == (2, 31, 31)
        assert cut.sum(axis=(1, 2)) == pytest.approx([1, 1])
        assert sets._odd(psf, (2, 43, 60)).shape == (2, 43, 43)


class TestScores:
    def test_truth_as_template_is_right_but_for_noise(self, scene):
        found = rows.deblend(ORACLE, scene, scene.positions)
        for i in (0, 1):
            score = scores.source_scores(scene, i, found, i)
            assert score["flux_error"] < 0.04
            assert score["flux_error_model"] < 1e-6
            assert score["cosine_model"] == pytest.approx(1)
            assert score["psnr_model"] > 100
            assert score["iou"] == 1
            assert score["ellipticity_error_model"] == pytest.approx(0, abs=1e-6)

    def test_all_light_to_one_source(self, scene):
        found = rows.deblend(rows.Row("x", Everything), scene, scene.positions)
        first = scores.source_scores(scene, 0, found, 0)
        ratio = scene.data.sum(axis=(1, 2)) / scene.flux[0]
        assert first["flux_error"] == pytest.approx(np.mean(np.abs(ratio - 1)), rel=1e-4)
        second = scores.source_scores(scene, 1, found, 1)
        assert second["flux_error"] == pytest.approx(1)
        assert second["ellipticity_error"] == np.inf
        assert second["iou"] == 0
        assert second["in_95"] == 0

    def test_colours_and_coverage(self, scene):
        found = rows.deblend(ORACLE, scene, scene.positions)
        flux = scene.flux.copy()
        flux[0, 0] *= 10**0.4  # one magnitude brighter in the first band
        wide = np.array([[1e9, 1e-9, 1e-9]] * 2)
        score = scores.source_scores(scene, 0, found._replace(flux=flux, flux_err=wide), 0)
        assert score["colour_error"] == pytest.approx(0.5)
        assert score["in_68"] == pytest.approx(1)  # the other two bands are exact
        assert score["flux_error"] == pytest.approx((10**0.4 - 1) / 3)
        narrow = found._replace(flux=flux, flux_err=np.full((2, 3), (flux - scene.flux)[0, 0] / 1.5))
        assert scores.source_scores(scene, 0, narrow, 0)["in_68"] == pytest.approx(2 / 3)
        assert scores.source_scores(scene, 0, narrow, 0)["in_95"] == pytest.approx(1)

    def test_detection(self, scene):
        pairs, counts = scores.detection_scores(scene, np.array([(29.5, 22.0), (2.0, 2.0), (19.0, 24.0)]))
        assert sorted(pairs) == [(0, 2), (1, 0)]
        assert counts == {"true": 2, "found": 3, "matched": 2}


class TestRows:
    def test_hard_labels_go_to_the_nearest(self, scene):
        found = rows.deblend(rows.Row("hard", rows.HardLabels), scene, scene.positions)
        lit = (found.models > 0).any(axis=1)
        assert not (lit[0] & lit[1]).any()
        y, x = np.nonzero(lit[0])
        assert (np.hypot(x - 19, y - 24) <= np.hypot(x - 29, y - 22)).all()
        assert lit[0].sum() > 50

    def test_photutils_finds_both(self, scene):
        found = rows.deblend(rows.Row("hard", rows.HardLabels), scene)
        assert scores.detection_scores(scene, found.positions)[1]["matched"] == 2

    def test_methods_for_pictures_see_red_first(self, scene):
        plain = rows.deblend(rows.Row("x", Reports), scene, scene.positions)
        seen = Reports.seen
        turned = rows.deblend(rows.Row("x", Reports, red_first=True), scene, scene.positions)
        np.testing.assert_array_equal(Reports.seen.data, seen.data[::-1])
        np.testing.assert_array_equal(turned.sources, plain.sources)
        np.testing.assert_array_equal(turned.flux, plain.flux)
        np.testing.assert_array_equal(turned.residual, plain.residual)

    def test_those_that_do_not_load_are_named(self):
        wanted = [*rows.named_rows(["watershed", "watershed:grow=2", "no-such"]), rows.Row("f", Fails)]
        working, skipped, digests = rows.available(wanted)
        assert [row.name for row in working] == ["watershed", "watershed:grow=2"]
        assert "no-such" in skipped["no-such"]
        assert "no idea" in skipped["f"]
        assert digests["watershed"] != digests["watershed:grow=2"]
        assert rows.available(wanted[:1])[2]["watershed"] == digests["watershed"]


class TestTables:
    def results(self, errors, count=1):
        """Scenes of one source each with these flux errors."""
        line = dict.fromkeys(tables.MEASURES, 0.5) | {"source": 0, "blendedness": 0.1, "snr": 30, "separation": 1.5}
        extra = {"conservation": {"true": 1e-7}, "seconds": {"true": 0.1}, "error": {}, "counts": None, "detected": []}
        return [{"scene": k, "true": [line | {"flux_error": e}], **extra} for k, e in enumerate(errors)]

    def test_medians_and_classes(self):
        table = tables.blends_table({"a": self.results([0.1, 0.2, 0.6])})
        line = table[table["sources"] == "all"][0]
        assert line["flux_error"] == pytest.approx(0.2)
        assert line["flux_error_mean"] == pytest.approx(0.3)
        assert set(table["sources"]) == {"all", "blendedness 0.05 - 0.2", "snr 20 - 50", "separation 1 - 2"}
        assert line["flux_error_low"] <= 0.2 <= line["flux_error_high"]

    def test_failures_and_missing_sources_are_counted(self):
        good, bad = self.results([0.1, 0.2])
        bad = bad | {"true": [], "error": {"true": "no idea"}, "seconds": {}, "conservation": {}}
        table = tables.blends_table({"a": [good, bad]})
        assert table[table["sources"] == "all"]["failed"][0] == 1

    def test_interval_is_of_scenes(self):
        values = np.repeat([0.0, 1.0], 50)
        low, high = tables.interval(values, np.repeat([0, 1], 50))
        assert (low, high) == (0, 1)  # two scenes, however many sources
        low, high = tables.interval(values, np.arange(100), weigh=np.full(100, 2.0))
        assert 0 <= low <= high <= 0.5
        assert all(np.isnan(tables.interval([1.0, 2.0], [3, 3])))

    def test_interval_covers_the_median(self, rng):
        hits = 0
        for k in range(60):
            values = rng.normal(size=80)
            low, high = tables.interval(values, np.arange(80), key=k)
            hits += low <= 0 <= high
        assert 50 <= hits <= 60

    def test_sentences(self):
        found = {
            "default": self.results([0.1, 0.1, 0.3]),
            "watershed": self.results([0.2, 0.2, 0.4]),
            "truth-ratio": self.results([0.05, 0.05, 0.2]),
        }
        lines = tables.acceptance(found)
        assert len(lines) == 2
        assert "0.1 : 0.2 = 0.500" in lines[0]
        assert lines[0].endswith("(better)")
        assert "0.1 : 0.05 = 2.000" in lines[1]

    def test_only_common_sources_are_compared(self):
        found = {"default": self.results([0.1, 0.9]), "watershed": self.results([0.2])}
        assert "1 sources" in tables.acceptance(found)[0]
        assert "0.1 : 0.2" in tables.acceptance(found)[0]


class TestGrid:
    def test_a_row_that_fails_is_recorded(self, scene):
        result = grid.measure_scene(rows.Row("f", Fails), scene)
        assert result["true"] == []
        assert "no idea" in result["error"]["detected"]

    def test_runs_and_goes_on(self, tmp_path, monkeypatch):
        pytest.importorskip("galsim")
        wanted, _, digests = rows.available([WATERSHED, ORACLE])
        first = grid.measure(wanted, digests, 2, tmp_path)
        assert all(r["conservation"]["true"] < 1e-5 for scenes in first.values() for r in scenes)
        assert all(r["detected"] == [] and r["counts"] is None for r in first["truth-ratio"])
        files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
        assert len(files) == 4
        gone = next(iter(files))
        gone.unlink()
        calls = []
        whole = grid.measure_scene
        monkeypatch.setattr(grid, "measure_scene", lambda row, s: calls.append(row.name) or whole(row, s))
        again = grid.measure(wanted, digests, 2, tmp_path)
        assert len(calls) == 1  # what was there is not measured again
        strip = lambda r: [{k: v for k, v in x.items() if k != "seconds"} for x in r]  # noqa: E731
        for name in first:
            assert json.dumps(strip(first[name])) == json.dumps(strip(again[name]))
        grid.measure(wanted, digests | {"watershed": "another"}, 2, tmp_path)
        assert calls[1:] == ["watershed"] * 2  # another method under the same name is

    def test_processes_give_the_same(self, tmp_path):
        assert sorted(grid.in_processes(divmod, ((k, 3) for k in range(20)), 2)) == sorted(
            divmod(k, 3) for k in range(20)
        )


class TestLaws:
    def test_a_lawful_method(self, scene):
        found = real.laws(WATERSHED, scene)
        assert found["conservation"] < 1e-6
        assert found["permutation"] < 1e-6
        assert found["translation"] < 1e-6
        assert 0.9 < found["light"] < 1.1

    def test_a_method_that_breaks_them(self, scene):
        found = real.laws(rows.Row("places", Places), scene)
        assert found["conservation"] < 1e-6  # the operator sees to that
        assert found["permutation"] > 0.01
        assert found["translation"] > 0.001


class TestPaper:
    def pair(self):
        y, x = np.indices((80, 80))
        first, second = (
            0.05 + 0.7 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 50) * np.array([1, 0.8, 0.6])[:, None, None]
            for cx, cy in ((39.5, 39.5), (52, 45))
        )
        own = first.mean(axis=0) >= second.mean(axis=0)
        return np.maximum(first, second), first, second, (own, ~own)

    def test_dividing_beats_the_blend(self):
        blended, first, second, masks = self.pair()
        images = paper.separated(rows.Row("symmetric", "symmetric"), blended, second, masks)
        own = paper._scores((first, second), images)
        none = paper._scores((first, second), {"": (blended, blended)})
        assert own["psnr_1"] > none["psnr_1"] + 3
        assert own["psnr_removed_2"] > none["psnr_2"] + 3
        assert np.isnan(none["psnr_part_1"])

    def test_networks_are_shown_pictures(self, monkeypatch):
        blended, _, second, masks = self.pair()

        class Branches:
            def pictures(self, blends):
                return blends * 0.25, blends * 0.75

            def __call__(self, observation, positions=None, *, rng=None):
                raise BackendError("not this way")

        images = paper.separated(rows.Row("x", Branches), blended, second, masks)
        np.testing.assert_allclose(images[""][1], 0.75 * blended)

    def test_second_galaxy_is_found(self):
        assert np.hypot(*(np.subtract(paper._centre(self.pair()[2]), (52, 45)))) < 1.5


class TestSpirals:
    def observation(self):
        y, x = np.indices((150, 150))
        radius = np.hypot(x - 75, (y - 75) / 0.5)
        data = 50 * np.exp(-radius / 12) + np.random.default_rng(0).normal(size=radius.shape)
        return Observation(data[None], variance=np.ones((1, 150, 150)))

    def test_half_light_ellipse(self):
        x, y, a, b, theta = spirals.galaxy_ellipse(self.observation())
        assert np.hypot(x - 75, y - 75) < 1
        assert b / a == pytest.approx(0.5, abs=0.08)
        assert abs(np.sin(theta)) < 0.1
        assert a == pytest.approx(1.678 * 12, rel=0.25)  # of an exponential; its faint rim does not count

    def test_only_centres_inside_count(self):
        ellipse = (75.0, 75.0, 20.0, 10.0, 0.0)
        centres = np.array([(75.5, 75.0), (90.0, 75.0), (75.0, 90.0), (75.0, 83.0)])
        assert spirals.split_count(centres, ellipse) == [1, 3]
        assert spirals.split_count(np.empty((0, 2)), ellipse) == []


class TestRun:
    def test_small_run_writes_all(self, tmp_path, monkeypatch):
        pytest.importorskip("galsim")
        monkeypatch.delenv("ASTROGAN_DATA", raising=False)
        arguments = ["--parts", "blends", "--number", "3", "-r", "watershed", "-r", "truth-ratio", "-r", "gone"]
        result = CliRunner().invoke(deblending.command, [*arguments, "-o", str(tmp_path)], catch_exceptions=False)
        assert result.exit_code == 0
        assert "gone is left out" in result.output
        from astropy.table import Table

        table = Table.read(tmp_path / "deblending-blends.ecsv")
        whole = table[table["sources"] == "all"]
        assert set(zip(whole["row"], whole["centres"], strict=True)) == {
            ("watershed", "true"), ("truth-ratio", "true"), ("watershed", "detected")
        }  # fmt: skip
        error = {row["row"]: row["flux_error"] for row in whole if row["centres"] == "true"}
        assert error["truth-ratio"] < error["watershed"]
        assert "conservation" in (tmp_path / "deblending.md").read_text()
        for name in ("flux-error", "example"):
            assert (tmp_path / f"deblending-{name}.png").stat().st_size > 10_000

    def test_field_is_compared_with_photutils(self):
        pytest.importorskip("galsim")
        from astrogan.bench._deblending_field import crowded_field, photutils_catalogs

        data, variance, psf, count = crowded_field(128, seed=1)
        again = crowded_field(128, seed=1)[0]
        np.testing.assert_array_equal(data, again)
        assert count == 8
        catalogs = photutils_catalogs(Observation(data, variance=variance, psf=psf))
        assert len(catalogs) == 3
        assert 3 <= len(catalogs[0]) <= 14

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"parts": ["nothing"]}, "parts="),
            ({"parts": ["blends"], "number": 0}, "number=0"),
            ({"parts": ["paper"]}, "ASTROGAN_DATA"),
            ({"parts": ["blends"], "rows": []}, "rows="),
        ],
    )
    def test_refuses(self, options, message, monkeypatch):
        monkeypatch.delenv("ASTROGAN_DATA", raising=False)
        with pytest.raises(InputError, match=message):
            deblending.run(**options)


@pytest.mark.data
class TestData:
    def test_oracle_on_the_truth_files(self, data_dir):
        table = real.truth_table([ORACLE], data_dir)
        assert list(table["file"]) == ["matched PSFs", "unmatched PSFs"]
        assert list(table["n"]) == [7, 5]
        assert table["median"][0] == pytest.approx(0.015, abs=0.003)
        assert table["mean_bright"][1] == pytest.approx(0.010, abs=0.002)

    def test_known_fluxes_of_the_test_sims(self, data_dir):
        scenes = sets.scarlet_test_sims(data_dir)
        assert len(scenes) == 40
        # Where one source has nearly all the light, its true flux must be near the image's.
        total = np.array([s.data.sum(axis=(1, 2)) for s in scenes])
        known = np.array([np.nansum(s.flux, axis=0) for s in scenes])
        assert 0.2 < np.median(known / total) < 1.05
        assert known[0] == pytest.approx(total[0], rel=0.35)

    def test_laws_on_a_real_blend(self, data_dir):
        scene = sets.hsc_blends(data_dir)[1]
        found = real.laws(WATERSHED, scene)
        assert found["sources"] == 7
        assert max(found["conservation"], found["permutation"], found["translation"]) < 1e-5

    def test_a_pair_of_the_paper(self, data_dir):
        blended, first, second, masks = paper.paper_pair(data_dir, 0, 0, "usaid2019")
        assert blended.shape == (3, 80, 80)
        assert (masks[0] ^ masks[1]).all()
        where = np.where(masks[0], first, second)
        np.testing.assert_array_equal(blended, where)
        again = paper.paper_pair(data_dir, 0, 0, "branched")
        np.testing.assert_array_equal(again[0], np.maximum(again[1], again[2]))

    def test_spirals_come_from_the_test_part_first(self, data_dir):
        from astrogan.train.split import part_of

        names = spirals.spiral_names(data_dir, 60)
        assert len(set(names)) == 60
        assert part_of(names[0]) == "test"
        parts = [part_of(name) == "test" for name in names]
        assert parts == sorted(parts, reverse=True)
