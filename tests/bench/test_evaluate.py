"""``evaluate``: numbers that can be checked by hand."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData, StdDevUncertainty

from astrogan.bench.evaluate import evaluate_images
from astrogan.exceptions import InputError, UnitError


@pytest.fixture
def truth():
    data = np.zeros((20, 24))
    data[5:12, 6:15] = 4.0
    return CCDData(data, unit="Jy")


def test_offset_image_by_hand(truth):
    image = CCDData(truth.data + 0.1, unit="Jy", uncertainty=StdDevUncertainty(np.full(truth.shape, 0.05)))
    row = evaluate_images(truth, [image])[0]
    assert row["rmse"] == pytest.approx(0.1, rel=1e-5)
    assert row["psnr"] == pytest.approx(20 * np.log10(4 / 0.1), abs=1e-3)
    assert row["flux_ratio"] == pytest.approx(image.data.sum() / truth.data.sum(), rel=1e-5)
    assert row["reduced_chi2"] == pytest.approx(4, rel=1e-4)
    assert row["correlation"] == pytest.approx(1)


def test_masked_pixels_do_not_count(truth):
    image = truth.copy()
    image.mask = np.zeros(truth.shape, bool)
    image.mask[6, 7] = True
    image.data[6, 7] = 1e6
    row = evaluate_images(truth, [image])[0]
    assert row["rmse"] == 0
    assert row["n_valid"] == truth.data.size - 1


def test_units_are_converted_and_mismatches_refused(truth):
    milli = CCDData(truth.data * 1000, unit="mJy")
    assert evaluate_images(truth, [milli])[0]["rmse"] == pytest.approx(0, abs=1e-5)
    with pytest.raises(UnitError, match="adu.*Jy"):
        evaluate_images(truth, [CCDData(truth.data, unit="adu")])


def test_shapes_must_agree(truth):
    with pytest.raises(InputError, match="they must agree"):
        evaluate_images(truth, [CCDData(np.ones((3, 3)), unit=u.Jy)])


def test_a_row_a_band_and_image(truth):
    bands = {"g": truth, "r": CCDData(truth.data * 2, unit="Jy")}
    table = evaluate_images(bands, [bands, bands], data_range=1.0)
    assert list(table["band"]) == ["g", "r", "g", "r"]
    assert len(set(table["image"])) == 2
