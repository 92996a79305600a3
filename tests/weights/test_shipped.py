"""The weights that come with the package: whole, small, and as good as their cards say."""

import numpy as np
import pytest

from astrogan import Restorer
from astrogan.metrics import psnr
from astrogan.weights import list_weights, load_weights, read_card

NAMES = list_weights()
RESTORERS = list_weights(role="restorer")
MEASURED = [name for name in RESTORERS if read_card(name)["metrics"]]


def test_the_default_restorer_has_weights_for_one_band_and_for_three():
    bands = {read_card(name)["bands"] for name in list_weights(role="restorer", backend="nafnet")}
    assert {1, 3} <= bands


def test_they_are_small():
    sizes = [load_weights(name).path.stat().st_size for name in NAMES]
    assert max(sizes) <= 12e6
    assert sum(sizes) <= 40e6


@pytest.mark.parametrize("name", NAMES)
def test_cards_say_where_the_weights_come_from(name):
    card = read_card(name)
    assert card["name"] == name
    assert card["recipe"]
    assert card["seed"] is not None
    assert card["steps"] > 0
    assert card["data"]
    assert not card["git_revision"].endswith("-dirty")
    assert all(source["origin"] for source in card["data"])
    assert "fwhm" not in card["ranges"] or card["ranges"]["fwhm"][0] < card["ranges"]["fwhm"][1]
    assert "fwhm" in card["ranges"] or name not in RESTORERS
    assert sum(np.prod(t.shape) for t in load_weights(name).tensors.values()) <= 4e6


@pytest.mark.parametrize("name", [name for name in MEASURED if not name.endswith("perceptual")])
def test_cards_have_baselines_that_the_weights_beat_and_calibrated_intervals(name):
    card = read_card(name)
    for row in card["metrics"]:
        assert row["psnr"] > row["psnr_gaussian"] > row["psnr_identity"] - 0.2
    assert 0.60 < card["calibration"]["coverage68"] < 0.76
    assert 0.90 < card["calibration"]["coverage95"] < 0.99


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MEASURED)
def test_the_figures_of_the_cards_are_reproduced(name, data_dir):
    pytest.importorskip("lightning")
    from astrogan.train.evaluate import remeasure

    weights = load_weights(name)
    measured, published = remeasure(weights, data_dir, 1), weights.card["metrics"][1]
    assert measured["images"] == published["images"]
    for figure in ("psnr", "psnr_identity", "psnr_gaussian"):
        assert measured[figure] == pytest.approx(published[figure], abs=0.05)


@pytest.mark.parametrize("bands", [1, 3])
def test_simulated_galaxies_are_restored_better_than_by_wiener(bands):
    """No file of real data is needed to see that the weights do what they are for."""
    from astropy.nddata import CCDData

    rng = np.random.default_rng(1)
    y, x = np.mgrid[:128, :128]
    truth = np.zeros((bands, 128, 128))
    for _ in range(12):
        y0, x0, radius, angle = *rng.uniform(10, 118, 2), rng.uniform(2, 6), rng.uniform(0, np.pi)
        u, v = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle), (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)
        truth += rng.uniform(20, 100) * np.exp(-np.hypot(u, 1.8 * v) / radius)
    from scipy.ndimage import gaussian_filter

    seen = gaussian_filter(truth, (0, 1.9, 1.9)) + rng.standard_normal(truth.shape)
    image = CCDData(seen if bands > 1 else seen[0], unit="adu")
    scores = {}
    for name in ("identity", "wiener", "nafnet"):
        restored = np.asarray(Restorer(name, psf=1.9 * 2.3548)(image).data)
        scores[name] = psnr(truth if bands > 1 else truth[0], restored, data_range=100.0)
    assert scores["nafnet"] > scores["wiener"] + 0.5
    assert scores["nafnet"] > scores["identity"] + 3


def _galaxies(places, noise, size=128, fwhm=4.0):
    """A truth of exponential galaxies, (x, y, radius, signal-to-noise ratio of the blurred peak), and it blurred."""
    from scipy.ndimage import gaussian_filter

    y, x = np.mgrid[:size, :size]
    truth = np.zeros((size, size))
    for x0, y0, radius, peak in places:
        # Itself as sharp as an image is: what has no pixels of its own cannot be restored.
        light = gaussian_filter(np.exp(-np.hypot(x - x0, (y - y0) / 0.7) / radius), 1.1)
        truth += light * peak / gaussian_filter(light, fwhm / 2.3548).max()
    return truth * noise, gaussian_filter(truth, fwhm / 2.3548) * noise


def _flux_ratios(image, truth, places, radius=8):
    from astrogan.metrics import aperture_flux

    return [aperture_flux(image, place[:2], radius) / aperture_flux(truth, place[:2], radius) for place in places]


@pytest.mark.parametrize("deep", [True, False], ids=["deep", "shallow"])
def test_a_part_of_a_mosaic_does_not_suffer_from_the_depth_of_the_rest(deep):
    from astropy.nddata import CCDData, StdDevUncertainty

    places = [(25.0, 32.0, 2, 60), (25.0, 90.0, 3, 30)]
    noise = np.ones((128, 128))
    noise[:, 60:] = 10 if deep else 0.1
    white = np.random.default_rng(3).standard_normal(noise.shape)
    truth, seen = _galaxies(places, 1.0)
    restored = {}
    for name, sigma in (("mosaic", noise), ("alone", np.ones_like(noise))):
        image = CCDData(seen + sigma * white, unit="adu", uncertainty=StdDevUncertainty(sigma))
        restored[name] = np.asarray(Restorer("nafnet", weights="nafnet-linear", psf=4.0)(image).data, float)[:, :50]
    scatter = {name: (image - truth[:, :50]).std() for name, image in restored.items()}
    assert scatter["mosaic"] < (1.2 if deep else 2.5) * scatter["alone"]
    assert _flux_ratios(restored["mosaic"], truth[:, :50], places) == pytest.approx([1, 1], abs=0.04)


def test_negative_sources_keep_their_flux():
    from astropy.nddata import CCDData, StdDevUncertainty

    places = [(32.0, 64.0, 4, 50), (96.0, 64.0, 2, 20)]
    truth, seen = _galaxies(places, 1.0)
    seen = seen + np.random.default_rng(4).standard_normal(seen.shape)
    image = CCDData(-seen, unit="adu", uncertainty=StdDevUncertainty(np.ones_like(seen)))
    restored = np.asarray(Restorer("nafnet", weights="nafnet-linear", psf=4.0)(image).data, float)
    assert _flux_ratios(-restored, truth, places) == pytest.approx([1, 1], abs=0.05)


# ---- deblenders ------------------------------------------------------------------------------------------------------


def test_deblenders_have_weights():
    assert {read_card(name)["backend"] for name in list_weights(role="deblender")} == {
        "branched-gan",
        "ratio-net",
        "usaid2019",
    }


def test_the_deblending_network_is_better_than_what_it_starts_from_and_knows_its_errors():
    card = read_card("ratio-net")
    row = card["metrics"][0]
    for figure in ("median", "mean"):
        network, start, oracle = (row[f"flux_error_{figure}_{name}"] for name in ("network", "start", "oracle"))
        assert oracle < network < start
    assert 0.60 < card["calibration"]["coverage68"] < 0.76
    assert 0.90 < card["calibration"]["coverage95"] < 0.99


def test_its_figure_is_reproduced_on_a_few_blends():
    pytest.importorskip("lightning")
    from astrogan.nn.ratio_net import RatioUNet
    from astrogan.train.deblending import small_row
    from astrogan.train.recipe import parse_recipe

    weights = load_weights("ratio-net")
    network = RatioUNet(**weights.card["architecture"])
    network.load_state_dict(weights.tensors)
    measured = small_row(network.eval(), parse_recipe(weights.card["recipe"]), groups=6)
    published = weights.card["metrics"][1]
    assert measured["fluxes"] == published["fluxes"]
    for figure in ("network", "start", "oracle"):
        name = f"flux_error_median_{figure}"
        assert measured[name] == pytest.approx(published[name], rel=0.1)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["branched-gan-narrow", "usaid2019-stable"])
def test_the_papers_networks_reproduce_the_figures_of_their_cards(name, data_dir):
    pytest.importorskip("lightning")
    from astrogan.train._loop import prepare
    from astrogan.train.evaluate import evaluating
    from astrogan.train.recipe import parse_recipe
    from astrogan.train.tasks import task_of

    weights = load_weights(name)
    recipe = parse_recipe(weights.card["recipe"], name)
    job = prepare(recipe, data_dir)
    job.module.exported.load_state_dict(weights.tensors)
    with evaluating(job.module):
        measured = task_of(recipe).evaluation(job.module, recipe, job.validation)["metrics"]
    for row, published in zip(measured, weights.card["metrics"], strict=True):
        assert row["psnr"] == pytest.approx(published["psnr"], abs=0.05)


def test_the_papers_networks_beat_what_they_are_given():
    for row in read_card("branched-gan-narrow")["metrics"]:
        assert row["psnr"] > row["psnr_identity"] + 2
    rows = {row["method"]: row for row in read_card("usaid2019-stable")["metrics"]}
    assert rows["encoder"]["psnr_hidden"] > rows["segmented"]["psnr_hidden"] + 5
    assert rows["encoder"]["psnr_hidden"] > rows["mean fill"]["psnr_hidden"] + 5


def test_every_learned_translator_has_weights():
    assert {read_card(name)["backend"] for name in list_weights(role="translator")} == {"surveynet", "lin2020"}


def test_the_translation_network_is_better_than_one_estimate_and_knows_its_errors():
    card = read_card("surveynet-sdss-cfhtls")
    for row in card["metrics"]:
        for direction in ("sdss-cfhtls", "cfhtls-sdss"):
            assert row[f"network_error_{direction}"] < 0.7 * row[f"classic_error_{direction}"]
            assert row[f"network_flux_{direction}"] < row[f"classic_flux_{direction}"]
    assert 0.60 < card["calibration"]["coverage68"] < 0.76
    assert 0.60 < card["calibration"]["coverage68_back"] < 0.76


def test_its_figure_is_reproduced_on_a_few_galaxies():
    pytest.importorskip("lightning")
    pytest.importorskip("surveycodex")
    from astrogan.nn.surveynet import SurveyNet
    from astrogan.train.recipe import parse_recipe
    from astrogan.train.surveynet import small_row

    weights = load_weights("surveynet-sdss-cfhtls")
    network = SurveyNet(**weights.card["architecture"])
    network.load_state_dict(weights.tensors)
    measured = small_row(network.eval(), parse_recipe(weights.card["recipe"]))
    published = weights.card["metrics"][1]
    assert measured["pairs"] == published["pairs"]
    for name, value in published.items():
        if name.startswith(("network", "classic")):
            assert measured[name] == pytest.approx(value, rel=0.1), name
