"""Real images translated between surveys."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from astrogan.bench import translation_real as bench
from astrogan.bench._translation_real_pairs import (
    DIRECTIONS,
    FLOOR,
    View,
    broader_psf,
    load_galaxies,
    score,
    score_galaxies,
    translate,
    usable_rows,
)
from astrogan.exceptions import InputError
from astrogan.image.psf import convolve, gaussian_psf, moffat_psf, psf_fwhm

KIDS, SDSS = 0.2, 0.339
CLASSIC = ("identity-resample", "psf-matching")


def galaxy(scale, shape, psf_fwhm_arcsec, noise, seed, shift=(0.0, 0.0), factor=1.0):
    """An exponential disc on pixels of ``scale``, in maggies, seen through a Gaussian PSF, and that PSF."""
    fine = 5
    step = scale / fine
    y, x = ((np.indices([n * fine for n in shape]) + 0.5) / fine).astype(float)
    x, y = (x - shape[1] / 2) * scale - shift[0], (y - shape[0] / 2) * scale - shift[1]
    light = np.exp(-np.hypot(x, 1.8 * y) / 1.5) * step**2
    light = convolve(light, gaussian_psf(psf_fwhm_arcsec / step))
    data = 20 * light.reshape(shape[0], fine, shape[1], fine).sum(axis=(1, 3))
    rng = np.random.default_rng(seed)
    kernel = gaussian_psf(psf_fwhm_arcsec / scale, size=25)
    return factor * (data + rng.normal(0, noise, shape)) * 1e-9, kernel, np.hypot(x, 1.8 * y)[2::fine, 2::fine] < 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two galaxies as both surveys would have them, moved against each other by a known distance."""
    data = tmp_path_factory.mktemp("data")
    for number, name in enumerate(("G000001", "G000002")):
        for survey, scale, shape, fwhm, noise, shift in (
            ("KiDS", KIDS, (141, 151), 0.7, 0.0025, (0.0, 0.0)),
            ("SDSS", SDSS, (81, 81), 1.05, 0.02, (0.12, -0.08)),
        ):
            (data / "kids_sdss_pairs" / survey).mkdir(parents=True, exist_ok=True)
            image, psf, inside = galaxy(scale, shape, fwhm, noise, [number, len(survey), shape[0]], shift)
            planes = {
                "fitim": image,
                "sigma": np.full(shape, noise * 1e-9),
                "mskim": np.zeros(shape),
                "segim": inside.astype(int),
                "psfim": psf,
            }
            for kind, plane in planes.items():
                dtype = "i4" if kind == "segim" else "f4"
                fits.writeto(data / "kids_sdss_pairs" / survey / f"{name}{kind}.fits", plane.astype(dtype))
    return data


@pytest.fixture(scope="module")
def galaxies(folder):
    return load_galaxies(folder)


def test_alignment_is_measured(galaxies):
    for one in galaxies:
        assert one.notes["dx"] == pytest.approx(0.12, abs=0.02)
        assert one.notes["dy"] == pytest.approx(-0.08, abs=0.02)
        assert one.notes["flux_scale"] == pytest.approx(1, abs=0.01)
        assert 0.9 < one.notes["chi2"] < 1.1
        # The PSF that methods are told is the one that the image was made with.
        assert psf_fwhm(one.sdss.psf) * SDSS == pytest.approx(psf_fwhm(gaussian_psf(1.05 / SDSS)) * SDSS, rel=0.03)


def test_broader_psf_has_the_width_of_all_that_broadens_it():
    """Variances add: the sharp PSF's, the Gaussian's, and that of the large pixel."""
    psf, ratio, fwhm = gaussian_psf(3.5, size=25), 1.7, 1.8
    out = broader_psf(psf, ratio, fwhm)
    assert out.sum() == pytest.approx(1)

    def variance(kernel):
        axis = np.arange(len(kernel)) - len(kernel) // 2
        return (kernel.sum(axis=0) * axis**2).sum()

    # gaussian_psf's own pixel is in the kernel.
    wanted = variance(psf) + (fwhm * ratio) ** 2 / (8 * np.log(2)) + (ratio**2 + 1) / 12
    assert variance(out) * ratio**2 == pytest.approx(wanted, rel=0.01)
    assert np.unravel_index(out.argmax(), out.shape) == (len(out) // 2, len(out) // 2)


def test_matching_makes_the_broader_survey_and_resampling_does_not(galaxies):
    rows = {name: bench.ROWS[name] for name in CLASSIC}
    lines, results = score_galaxies(galaxies, rows)
    table = Table(rows=lines)
    assert len(table) == 2 * (2 * 3 + 3)
    down = table[(table["direction"] == DIRECTIONS[0]) & (table["galaxy"] == "mean")]
    by_row = {str(line["row"]): line for line in down}
    matched, plain, floor = by_row["psf-matching"], by_row["identity-resample"], by_row[FLOOR]
    assert matched["chi2"] == pytest.approx(1, abs=0.1)
    assert matched["rel_l2"] < 1.1 * floor["rel_l2"]
    assert plain["chi2"] > 1.5 * matched["chi2"]
    assert matched["size"] < 0.02 < plain["size"]
    assert matched["offset"] < 0.05
    assert abs(matched["dmag_all"]) < 0.02
    # The noise that is added is that of the survey.
    assert matched["noise"] == pytest.approx(1, abs=0.06)
    assert abs(matched["acf"]) < 0.05
    # No classic method sharpens: both rows are one image.
    up = {name: results["G000001", DIRECTIONS[1]][name].data for name in CLASSIC}
    np.testing.assert_array_equal(*up.values())


def test_score_tells_what_is_wrong():
    """A real image against itself, moved, made brighter, made wider."""
    from scipy.ndimage import gaussian_filter, shift

    from astrogan.bench._translation_real_pairs import Result, _wcs

    image, psf, inside = galaxy(KIDS, (101, 101), 0.8, 0.0, 0)
    image = image * 1e9
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.002, image.shape)
    full = np.ones(image.shape, bool)
    real = View(
        "KiDS", image + noise, np.full(image.shape, 0.002), full, inside, ~inside, psf, _wcs(image.shape, KIDS), KIDS
    )

    def scores(data):
        return score(Result(data, None, full, data + noise), real)

    same = scores(real.data)
    assert same["rel_l2"] == same["offset"] == same["dmag_all"] == 0
    assert scores(image)["chi2"] == pytest.approx(1, abs=0.1)
    moved = scores(shift(real.data, (0.0, 0.5), order=3, mode="nearest"))
    assert moved["offset"] == pytest.approx(0.1, abs=0.01)
    bright = scores(1.1 * real.data)
    assert bright["dmag_in"] == pytest.approx(-2.5 * np.log10(1.1), abs=1e-3)
    assert bright["rel_l2"] == pytest.approx(0.1, abs=1e-3)
    assert scores(gaussian_filter(real.data, 3.0))["size"] > 0.05
    masked = Result(np.where(inside & (rng.uniform(size=inside.shape) < 0.1), 9.0, real.data), None, full, real.data)
    hidden = masked._replace(valid=masked.data < 5)
    assert score(hidden, real)["rel_l2"] == 0 < score(masked, real)["rel_l2"]


def test_run_writes_tables_and_figures_and_skips_what_does_not_load(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        bench, "ROWS", {"psf-matching": ("psf-matching", {}), "missing": ("surveynet", {"weights": "no-such-weights"})}
    )
    out = tmp_path / "out"
    result = bench.run(folder, parts=["pairs"], out=out, images=1)
    assert list(result.skipped) == ["missing"]
    assert "no-such-weights" in result.skipped["missing"]
    assert sorted(path.name for path in out.iterdir()) == [
        "alignment.ecsv", "kids-to-sdss.png", "pairs.ecsv", "sdss-to-kids.png",
    ]  # fmt: skip
    again = Table.read(out / "pairs.ecsv")
    np.testing.assert_allclose(again["chi2"], result.tables["pairs"]["chi2"])
    assert (out / "kids-to-sdss.png").read_bytes().startswith(b"\x89PNG")


def test_rows_by_hand_and_what_they_are_called(galaxies):
    rows = bench._rows(["psf-matching", "psf-matching:resampling=exact,match=False"])
    assert rows["psf-matching:resampling=exact,match=False"] == (
        "psf-matching", {"resampling": "exact", "match": False},
    )  # fmt: skip
    good, skipped = usable_rows(bench._rows(["psf-matching", "no-such-backend"]), galaxies[0])
    assert list(good) == ["psf-matching"]
    assert "no-such-backend" in skipped["no-such-backend"]


def test_bad_input_is_said(folder, monkeypatch):
    monkeypatch.delenv("ASTROGAN_DATA", raising=False)
    with pytest.raises(InputError, match="data=None"):
        bench.run()
    for parts in (["stamps"], []):
        with pytest.raises(InputError, match="parts="):
            bench.run(folder, parts=parts)
    with pytest.raises(InputError, match="images=0"):
        bench.run(folder, images=0)
    with pytest.raises(InputError, match="none of the rows loads"):
        bench.run(folder, parts=["pairs"], rows=["no-such-backend"], images=1)
    with pytest.raises(InputError, match="humvi_multisurvey"):
        bench.run(folder, parts=["fields"])


def test_nothing_is_added_to_a_clean_translation(galaxies):
    """The mean has no noise of the target; two seeds differ in the noisy one alone."""
    one, other = (translate("psf-matching", {}, *galaxies[0].views(DIRECTIONS[0]), seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(one.data, other.data)
    assert not np.array_equal(one.noisy, other.noisy)


def test_psf_of_the_fields_is_as_wide_as_their_stars():
    from astropy.nddata import CCDData

    from astrogan.bench._translation_real_fields import _flat, _sharpest_psf, _sources
    from astrogan.bench._translation_real_pairs import _wcs

    rng = np.random.default_rng(5)
    kernel = moffat_psf(4.2, size=41)
    data = rng.normal(0, 0.01, (220, 220))
    for y, x in ((50, 50), (160, 60), (70, 165), (165, 170)):
        data[y - 20 : y + 21, x - 20 : x + 21] += 80 * kernel
    y, x = np.indices(data.shape)
    data += 2 * np.exp(-np.hypot(x - 110, y - 110) / 7)
    image = CCDData(data, unit="nmgy", wcs=_wcs(data.shape, 0.186))
    flat = _flat(image)
    assert psf_fwhm(_sharpest_psf(flat, _sources(image, flat)[0])) == pytest.approx(psf_fwhm(kernel), rel=0.03)


@pytest.mark.data
def test_real_field_as_kids_has_its_noise(data_dir):
    from astrogan.bench._translation_real_fields import load_fields, score_fields

    lines, _, _ = score_fields(load_fields(data_dir), {"psf-matching": bench.ROWS["psf-matching"]})
    assert [line["band"] for line in lines] == ["g", "r", "i"]
    assert [line["matched"] for line in lines] == ["yes", "no", "yes"]
    for line in lines:
        assert line["sky"] == pytest.approx(line["sky_real"], rel=0.05)
        assert line["acf_0"] == pytest.approx(line["acf_0_real"], abs=0.06)
        assert abs(line["dmag"]) < 0.01
        if line["matched"] == "yes":
            assert line["sharp"] == pytest.approx(line["sharp_wanted"], rel=0.02)


@pytest.mark.data
def test_real_pairs_are_matched_to_the_noise(data_dir):
    galaxies = load_galaxies(data_dir, 2)
    lines, _ = score_galaxies(galaxies, {"psf-matching": bench.ROWS["psf-matching"]})
    down = [line for line in lines if line["direction"] == DIRECTIONS[0] and line["row"] == "psf-matching"]
    assert len(down) == 3
    for line in down:
        assert 0.85 < line["chi2"] < 1.25
        assert line["offset"] < 0.05
        assert abs(line["dmag_in"]) < 0.03
