"""The linear benchmark: that its figures are right where the right answer is known."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from astrogan.api import Estimate
from astrogan.bench import _linear_common as common
from astrogan.bench import _linear_real as real
from astrogan.bench import _linear_sky as sky
from astrogan.bench import restoration_linear
from astrogan.exceptions import BackendNotFoundError, ImageReadError, InputError
from astrogan.operators.restorer import Restorer
from astrogan.train.split import part_of

CLASSIC = ["identity", "wiener"]


class Times:
    """The image times a factor, with its own uncertainty: a restorer with known flux bias."""

    needs_psf = False
    halo = 0

    def __init__(self, factor=1.0, spread=1.0):
        self.factor, self.spread = np.float32(factor), np.float32(spread)

    def __call__(self, observation, *, rng=None):
        return Estimate(self.factor * observation.data, self.spread**2 * observation.variance)


def times(*arguments):
    return common.Method("times", Restorer(Times(*arguments)))


def galaxy(shape=(64, 64), at=(32.0, 32.0), scale=2.5, ratio=0.6, flux=1000.0):
    y, x = np.indices(shape)
    image = np.exp(-np.hypot(x - at[0], (y - at[1]) / ratio) / scale)
    return flux * common.blur(image / image.sum(), common.gaussian_kernel(2.5))


def row(table, **wanted):
    rows = [r for r in table if all(r[name] == value for name, value in wanted.items())]
    assert len(rows) == 1
    return rows[0]


class TestMethods:
    def test_options_are_literals_or_text(self):
        name, options = common.parse_method("x:iterations=10,fwhm=(1, 2.5),mode=auto,flag=True")
        assert name == "x"
        assert options == {"iterations": 10, "fwhm": (1, 2.5), "mode": "auto", "flag": True}
        assert common.parse_method("wiener") == ("wiener", {})

    def test_what_is_no_option_is_named(self):
        with pytest.raises(InputError, match=r"'10' must be key=value"):
            common.parse_method("richardson-lucy:10")
        with pytest.raises(BackendNotFoundError, match="no-such"):
            common.load_methods(["no-such"])

    def test_options_reach_the_backend(self):
        (method,) = common.load_methods(["richardson-lucy:iterations=3"])
        assert method.restorer.backend.iterations == 3
        assert method.label == "richardson-lucy:iterations=3"

    def test_defaults_leave_out_what_does_not_load(self, monkeypatch):
        monkeypatch.setattr(common, "LEARNED", ("not-there",))
        assert [method.label for method in common.load_methods()] == list(common.DEFAULTS)


class TestFigures:
    def test_median_bias_in_per_cent(self, rng):
        bias, error = common.median_bias(np.append(rng.normal(0.97, 0.1, 10000), np.nan))
        assert bias == pytest.approx(-3, abs=4 * error)
        assert error == pytest.approx(12.533 / 100, rel=0.05)
        assert np.isnan(common.median_bias([np.nan])).all()

    def test_coverage_counts_the_truths_own_noise(self, rng):
        truth = rng.standard_normal((2, 100, 100))
        coverage = common.Coverage()
        zero = np.zeros(truth.shape)
        coverage.add(zero, common.Restored(truth, np.ones(truth.shape), 0.0), np.s_[:], truth_sigma=np.sqrt(3))
        assert coverage.parts == pytest.approx((68.27, 95.0, 95.45), abs=1)
        coverage = common.Coverage()
        coverage.add(zero, common.Restored(truth, None, 0.0), np.s_[:])
        assert np.isnan(coverage.parts).all()

    def test_a_shape_that_is_lost_counts_as_infinite(self):
        errors = common.shape_errors(np.array([[0.1, 0.2], [np.nan, 0], [0.3, 0]]), [[0.1, 0.3], [0, 0], [np.nan, 0]])
        np.testing.assert_allclose(errors, [0.1, np.inf])
        columns = common.shape_columns([*errors, 0.2])
        assert columns["e_error"] == pytest.approx(0.2)
        assert columns["e_failed"] == pytest.approx(100 / 3)

    def test_peaks_of_groups(self):
        image = np.zeros((20, 30))
        image[4:6, 7:10] = 2
        image[5, 8] = 9
        image[15, 20] = 3
        peaks, labels = common.find_sources(image, 1.0)
        np.testing.assert_array_equal(peaks, [[8, 5], [20, 15]])
        assert (labels > 0).sum() == 7
        assert len(common.find_sources(image, 1.0, minimum_pixels=2)[0]) == 1
        assert common.find_sources(image, 99.0)[0].shape == (0, 2)

    def test_psnr_by_hand(self):
        truth = np.zeros((10, 10))
        truth[5, 5] = 50.0
        linear, stretched = common.psnr_pair(truth, truth + 0.5)
        assert linear == pytest.approx(40, abs=1e-9)
        assert stretched == pytest.approx(-20 * np.log10(np.arcsinh(0.1) / np.arcsinh(10)), abs=0.1)


class TestStamps:
    def test_known_bias_and_coverage(self):
        """Of an image that is only multiplied, and an interval that is twice too wide."""
        broad = common.blur(galaxy(scale=8.0), common.gaussian_kernel(8.0))
        methods = [*common.load_methods(["identity"]), times(0.9, 2.0)]
        table = real.stamps([broad], methods, fwhms=(2.0,), peak_snrs=(2000,), realisations=2)
        plain, scaled = (row(table, method=name) for name in ("identity", "times"))
        assert scaled["n"] == 2
        for column in ("flux_1", "flux_2", "flux_3"):
            # Its own blur aside, the flux is off by the factor.
            assert 1 + scaled[column] / 100 == pytest.approx(0.9 * (1 + plain[column] / 100), rel=1e-3)
            assert plain[column] == pytest.approx(0, abs=2.5)
        assert plain["e_error"] == pytest.approx(scaled["e_error"], rel=0.01)
        assert plain["psnr"] > scaled["psnr"] + 10

    def test_deconvolution_beats_nothing_where_the_signal_is_high(self):
        images = [galaxy(), galaxy(ratio=0.8, scale=3.5)]
        table = real.stamps(images, CLASSIC, fwhms=(3.0, 4.0), peak_snrs=(10, 300), realisations=1)
        assert len(table) == 4
        identity, wiener = (row(table, peak_snr=300, method=name) for name in CLASSIC)
        assert wiener["psnr"] > identity["psnr"] + 3
        assert abs(wiener["flux_1"]) < 0.5 * abs(identity["flux_1"])
        assert wiener["e_error"] < identity["e_error"]
        assert row(table, peak_snr=10, method="identity")["psnr"] < identity["psnr"]
        assert "PSNR in dB" in table.meta["caption"]

    def test_the_same_seed_gives_the_same_table(self):
        tables = [real.stamps([galaxy()], ["identity"], peak_snrs=(20,), realisations=1, seed=s) for s in (1, 1, 2)]
        assert tables[0]["psnr"][0] == tables[1]["psnr"][0] != tables[2]["psnr"][0]


def write_stamp(folder, name, x, level, wcs=True):
    """Seven bands of a galaxy at ``x`` pixels along one row of the sky, on turned axes; ``level`` tells it again."""
    header = fits.Header()
    if wcs:
        sky_wcs = WCS(naxis=2)
        sky_wcs.wcs.ctype, sky_wcs.wcs.crval, sky_wcs.wcs.crpix = ("RA---TAN", "DEC--TAN"), (214.8, 52.8), (500 - x, 9)
        sky_wcs.wcs.cd = np.array([[-0.6, -0.8], [-0.8, 0.6]]) * 8e-6
        header = sky_wcs.to_header()
    noise = np.random.default_rng(int(level)).normal(0, 0.01, (7, 64, 64))
    fits.writeto(folder / f"{name}.fits.gz", (level + galaxy() + noise).astype(np.float32), header)


class TestLoadStamps:
    """Which galaxies of the folder are tested on."""

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "jwst_ceers_stamps").mkdir()
        return tmp_path / "jwst_ceers_stamps"

    @pytest.fixture
    def names(self):
        """Two names of each part."""
        every = [f"ceers_{n}" for n in range(100)]
        return {part: [n for n in every if part_of(n) == part][:2] for part in ("train", "validation", "test")}

    def levels(self, folder):
        return sorted({round(float(image.min()) / 100) for image in real.load_stamps(folder.parent)})

    def test_the_test_part_only(self, folder, names):
        for number, name in enumerate(names["train"] + names["validation"] + names["test"], 1):
            write_stamp(folder, name, 100 * number, 100 * number)
        assert self.levels(folder) == [5, 6]

    @pytest.mark.parametrize("part", ["train", "validation"])
    def test_no_sky_that_another_part_shows(self, folder, names, part):
        """Neighbours' stamps share pixels: by one column here, and by none."""
        write_stamp(folder, names["test"][0], 0, 100)
        write_stamp(folder, names[part][0], 63, 200)
        write_stamp(folder, names["test"][1], 63 + 64, 300)
        assert self.levels(folder) == [3]

    def test_overlap_within_the_test_part_is_no_harm(self, folder, names):
        for number, name in enumerate(names["test"], 1):
            write_stamp(folder, name, 10 * number, 100 * number)
        assert self.levels(folder) == [1, 2]

    def test_a_place_on_the_sky_is_needed(self, folder, names):
        write_stamp(folder, names["train"][0], 0, 100, wcs=False)
        with pytest.raises(ImageReadError, match=r"celestial WCS.*take it out"):
            real.load_stamps(folder.parent)
        with pytest.raises(InputError, match="jwst_ceers_stamps"):
            real.load_stamps(folder)


def star_field(rng, bands=2, size=220):
    """Stars on a loose grid, in noise of sigma one."""
    cube = np.zeros((bands, size, size))
    for y in range(35, size - 30, 50):
        for x in range(35, size - 30, 50):
            at = (x + rng.uniform(-2, 2), y + rng.uniform(-2, 2))
            cube += galaxy((size, size), at, 0.5, 0.7, 3000.0) * np.array([1.0, 0.6])[:bands, None, None]
    return cube + rng.standard_normal(cube.shape)


class TestField:
    def test_sources_and_known_bias(self, rng):
        cube = star_field(rng)
        exclude = np.zeros(cube.shape[1:], bool)
        exclude[:, 130:140] = True
        methods = [*common.load_methods(["identity"]), times(0.9)]
        table = real.field(cube, methods, fwhm=3.0, factors=(1, 3), exclude=exclude)
        assert len(table) == 4
        for factor in (1.0, 3.0):
            plain, scaled = (row(table, noise=factor, method=name) for name in ("identity", "times"))
            # Of 4 x 4 sources in two bands, the column next to the excluded pixels is left out.
            assert plain["n"] == 2 * 12
            assert plain["flux_1"] < -5
            assert abs(plain["flux_2"]) < 3
            assert 1 + scaled["flux_2"] / 100 == pytest.approx(0.9 * (1 + plain["flux_2"] / 100), rel=5e-3)
        assert row(table, noise=3.0, method="identity")["psnr"] < row(table, noise=1.0, method="identity")["psnr"]

    def test_noise_after_degradation_is_what_the_methods_are_told(self, rng):
        class Notes(Times):
            def __call__(self, observation, *, rng=None):
                seen.append(observation)
                return Estimate(observation.data)

        seen = []
        real.field(star_field(rng, bands=1), [common.Method("notes", Restorer(Notes()))], fwhm=3.0, factors=(1, 5))
        for factor, observation in zip((1, 5), seen, strict=True):
            assert np.sqrt(observation.variance.mean()) == pytest.approx(factor, rel=0.05)
            told = np.sqrt(observation.variance[0, :20])
            assert (observation.data[0, :20] / told).std() == pytest.approx(1, abs=0.05)


def make_pair(rng, fwhm=3.0, shift=(0.4, -0.3), scale=0.95, sky_level=0.5):
    """The same galaxy on equal pixels, as a sharp image and as a broad one."""
    from scipy.ndimage import shift as moved

    sharp = galaxy((61, 61), (30.0, 30.0), 3.0, 0.6, 30000.0)
    broad = scale * common.blur(moved(sharp, shift, order=3), common.gaussian_kernel(fwhm)) + sky_level
    good = np.ones(sharp.shape, bool)
    inside = np.hypot(*np.indices(sharp.shape) - 30.0) < 15
    return real.Pair(
        "made",
        broad + rng.normal(0, 1, broad.shape),
        np.ones(broad.shape),
        good,
        inside,
        sharp + rng.normal(0, 0.1, broad.shape),
        good,
        0.2,
        0.2,
    )


class TestPairs:
    def test_the_fit_finds_what_was_done(self, rng):
        reference = real.reference_of(make_pair(rng))
        assert reference.fwhm == pytest.approx(3.0, abs=0.1)
        assert reference.flux_scale == pytest.approx(0.95, abs=0.005)
        assert reference.sky == pytest.approx(0.5, abs=0.15)
        np.testing.assert_allclose(reference.shift, (0.4, -0.3), atol=0.02)
        assert reference.reduced_chi2 == pytest.approx(1, abs=0.15)

    def test_table(self, rng):
        pair = make_pair(rng)
        table = real.pairs([pair], CLASSIC)
        assert list(table["pair"]) == ["made", "made", "mean", "mean"]
        identity, wiener = (row(table, pair="made", method=name) for name in CLASSIC)
        assert wiener["psnr"] > identity["psnr"] + 2
        assert wiener["psnr_galaxy"] > identity["psnr_galaxy"] + 2
        assert identity["flux"] == pytest.approx(1, abs=0.05)
        assert row(table, pair="mean", method="wiener")["psnr"] == wiener["psnr"]

    def test_masked_pixels_do_not_count(self, rng):
        pair = make_pair(rng)
        broad, valid = pair.broad.copy(), pair.valid.copy()
        broad[10:13, 40:43], valid[10:13, 40:43] = 1e6, False
        from dataclasses import replace

        spoilt = real.pairs([replace(pair, broad=broad, valid=valid)], ["identity"])
        clean = real.pairs([pair], ["identity"])
        assert spoilt["psnr"][0] == pytest.approx(clean["psnr"][0], abs=0.3)


class TestBlank:
    def test_a_method_that_invents_sources_is_found_out(self):
        class Invents(Times):
            def __call__(self, observation, *, rng=None):
                data = observation.data.copy()
                data[:, 30, 30] += 12 * np.sqrt(observation.variance[:, 30, 30])
                data[:, 60:66, 60:66] += 4 * np.sqrt(observation.variance[:, 60:66, 60:66])
                return Estimate(data)

        methods = [common.Method("invents", Restorer(Invents())), times(0.5), times(0.0)]
        table = sky.blank(methods[:2], frames=2, size=100, fwhm=4.0)
        for kind in ("white", "photons"):
            noise, invents, half = (row(table, noise=kind, method=m) for m in ("(input)", "invents", "times"))
            assert invents["pixel"] >= noise["pixel"] + 99  # one a frame of 10^4 pixels
            assert invents["matched"] >= noise["matched"] + 99
            assert invents["peak"] > 9
            assert noise["std"] == pytest.approx(1, abs=0.03)
            assert half["std"] == pytest.approx(0.5 * noise["std"], rel=1e-4)
            assert half["matched"] == 0
        # Less noise is no excuse by the last standard: it scales with the result.
        assert row(table, noise="white", method="times")["own"] == row(table, noise="white", method="(input)")["own"]

    def test_a_flat_result_has_nothing(self):
        table = sky.blank([times(0.0)], frames=1, size=64, kinds=("white",))
        assert [row(table, method="times")[name] for name in ("pixel", "matched", "own", "peak", "std")] == [0] * 5


class TestInjected:
    def test_bins_flux_and_false_detections(self):
        methods = [*common.load_methods(["identity"]), times(0.9)]
        bins, totals = sky.injected(methods, fields=6, sources=6, snr_range=(3, 300), edges=(3, 10, 300))
        known = row(bins, method="(input)", snr="10-300")
        assert row(bins, method="(input)", snr="3-10")["n"] + known["n"] == 36
        assert known["found"] == 100 > row(bins, method="(input)", snr="3-10")["found"]
        assert known["flux_1"] < -3
        assert known["flux_2"] == pytest.approx(0, abs=4)
        same, less = (row(bins, method=name, snr="10-300") for name in ("identity", "times"))
        assert same["flux_2"] == pytest.approx(known["flux_2"], abs=1e-3)
        assert 1 + less["flux_2"] / 100 == pytest.approx(0.9 * (1 + same["flux_2"] / 100), rel=1e-4)
        assert row(totals, method="identity")["all_68"] == pytest.approx(68.3, abs=1.5)
        assert row(totals, method="(input)")["false"] < 30

    def test_signal_to_noise_is_that_of_the_matched_filter(self, rng):
        kernel = common.gaussian_kernel(4.0)
        scene = sky.Scene((80, 80), 1, 2.5, kernel, (20.0, 20.0 + 1e-9), rng)
        assert np.sqrt((scene.blurred**2).sum()) == pytest.approx(20, rel=1e-4)
        assert scene.blurred.sum() == pytest.approx(scene.sharp.sum(), rel=1e-3)

    def test_real_sky_is_used_where_there_is_some(self, rng):
        cube = rng.normal(3, 2, (1, 130, 200))
        cube[0, 50:53, 60:63] += 200
        cube[0, :, 110] += 1e4
        exclude = np.zeros(cube.shape[1:], bool)
        exclude[:, 110] = True
        patches = sky.empty_patches(cube, exclude, size=64)
        assert len(patches) == 4
        for patch in patches:
            assert patch.mean() == pytest.approx(0, abs=1e-9)
            assert patch.std() == pytest.approx(1)
            assert np.abs(patch).max() < 6
        bins, totals = sky.injected(["identity"], fields=2, sources=2, size=64, sky=patches)
        assert set(bins["sky"]) == {"white", "real"}
        assert np.isnan(row(totals, sky="real", method="identity")["all_68"])


def test_depth_looks_at_the_half_whose_noise_is_one():
    from astrogan.bench._linear_depth import depth

    table = depth(["identity", "wiener"], fields=2, sources=6, size=128, others=(1.0, 10.0))
    assert [tuple(row) for row in table["other", "sign"][::2]] == [(1, 1), (10, 1), (1, -1)]
    identity = table[table["method"] == "identity"]
    # The image as it is errs by its noise and the blur, whatever the other half is like; its flux lies outside, too.
    np.testing.assert_allclose(identity["rms"], identity["rms"][0], rtol=1e-6)
    assert identity["rms"][0] > 1
    assert (identity["flux_1"] < -5).all()
    wiener = table[table["method"] == "wiener"]
    assert wiener["rms"][0] == pytest.approx(wiener["rms"][2], rel=0.01)  # a linear method does not mind the sign
    assert (np.abs(wiener["flux_2"][[0, 2]]) < 10).all()


def test_laws_tell_what_breaks_them():
    class Breaks(Times):
        def __call__(self, observation, *, rng=None):
            return Estimate(observation.data + np.float32(observation.data.shape[-1]))

    table = sky.laws(
        [*common.load_methods(["wiener"]), common.Method("breaks", Restorer(Breaks()))], size=96, fwhm=3.0, tile=48
    )
    good, bad = (row(table, method=name) for name in ("wiener", "breaks"))
    assert good["scale_error"] < 1e-5
    assert good["tile_error"] < 1e-5
    assert bad["scale_error"] > 0.1
    assert bad["tile_error"] > 0.1


class TestRun:
    def test_parts_without_data(self, monkeypatch):
        monkeypatch.delenv("ASTROGAN_DATA", raising=False)
        said = []
        tables = restoration_linear.run(
            parts=("blank", "injected"), backends=["identity"], images=1, progress=said.append
        )
        assert list(tables) == ["blank", "injected", "injected-totals"]
        assert said == ["blank", "injected"]
        assert set(tables["injected"]["sky"]) == {"white"}

    def test_main_prints_tables(self, monkeypatch, capsys):
        monkeypatch.delenv("ASTROGAN_DATA", raising=False)
        restoration_linear.main(["--parts", "blank", "--backends", "identity", "gaussian:fwhm=2", "--images", "1"])
        printed = capsys.readouterr().out
        assert "gaussian:fwhm=2" in printed
        assert "Pure noise" in printed

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"parts": ["stars"]}, r"parts=\['stars'\] are unknown; there are: stamps"),
            ({"parts": ["stamps"]}, "data=None: .*ASTROGAN_DATA"),
            ({"parts": ["blank"], "images": 0}, "images=0 must be at least 1"),
            ({"parts": ["blank"], "repeats": 0}, "repeats=0 must be at least 1"),
            ({"parts": ["pairs"], "data": "nowhere"}, "data='nowhere' has no kids_sdss_pairs"),
            ({"parts": ["stamps"], "data": "nowhere"}, "data='nowhere' has no jwst_ceers_stamps"),
            ({"parts": ["field"], "data": "nowhere"}, "data='nowhere' has no kids_viking_field"),
        ],
    )
    def test_errors(self, monkeypatch, options, message):
        monkeypatch.delenv("ASTROGAN_DATA", raising=False)
        with pytest.raises(InputError, match=message):
            restoration_linear.run(backends=["identity"], **options)


@pytest.mark.data
def test_real_images(data_dir):
    """A pair, a stamp and a strip of the field; the reference of a pair is good enough to be one."""
    tables = restoration_linear.run(data_dir, ("stamps", "field", "pairs"), CLASSIC, images=1, repeats=1)
    pair = row(tables["pairs"], pair="G265911", method="wiener")
    assert pair["chi2"] == pytest.approx(1, abs=0.2)
    assert pair["scale"] == pytest.approx(1, abs=0.06)
    assert pair["flux"] == pytest.approx(1, abs=0.03)
    identity, wiener = (row(tables["stamps"], peak_snr=300, method=name) for name in CLASSIC)
    assert wiener["psnr"] > identity["psnr"]
    field = row(tables["field"], noise=1.0, method="identity")
    assert field["n"] > 20
    assert field["flux_1"] == pytest.approx(-9, abs=4)
