"""The weights that come with the package: whole, small, and as good as their cards say."""

import numpy as np
import pytest

from astrogan import Restorer
from astrogan.metrics import psnr
from astrogan.weights import list_weights, load_weights, read_card

NAMES = list_weights()
MEASURED = [name for name in NAMES if read_card(name)["metrics"]]


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
    assert card["ranges"]["fwhm"][0] < card["ranges"]["fwhm"][1]
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
