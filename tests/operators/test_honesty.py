"""What a result says against itself: flags, ranges of the training, ensemble spread, and the weights it came from."""

import re
import warnings

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.nddata import CCDData, NDData, StdDevUncertainty

from astrogan import Restorer, read_image, write_image
from astrogan.api import Estimate
from astrogan.exceptions import AstroganWarning, BackendError, InputError, OutOfRangeWarning, RangeWarning
from astrogan.image.mask import RestorationFlag, restoration_flags
from astrogan.image.psf import gaussian_psf
from astrogan.image.read import read_bands
from astrogan.nn.nafnet import RestorationNAFNet
from astrogan.weights import load_weights, save_weights

FLAG = RestorationFlag
MEANING = "INVALID=1, LOST=2, OUT_OF_RANGE=4, INCONSISTENT=8, SATURATED=16, UNTRUSTED=32"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A function that saves a small random network with given ranges of training."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = RestorationNAFNet(bands=1, widths=(8, 16), blocks=(1, 1, 1), balances=(0.1, 10.0), radius=8)

    def save(name, **ranges):
        path = folder / f"{name}.safetensors"
        card = {"backend": "nafnet", "role": "restorer", "architecture": net.architecture, "bands": 1}
        if not path.exists():
            save_weights(path, net.state_dict(), card | {"ranges": ranges})
        return path

    return save


@pytest.fixture(scope="module")
def wide(saved):
    return saved("wide", fwhm=[1.0, 9.0], peak_snr=[1e-3, 1e5])


class Learned:
    """A backend with all that a learned one may have."""

    halo = 0
    score = 0.0

    def __call__(self, observation, *, rng):
        return Estimate(observation.data, info={"weights": "mine", "sha256": "f" * 64, "out_of_range": self.score})

    def out_of_range(self, observation):
        return self.score

    def pixel_flags(self, observation):
        return np.where(observation.data > 50, np.uint8(FLAG.OUT_OF_RANGE), np.uint8(0))

    def ensemble_spread(self, observation, *, rng):
        return np.abs(observation.data) / 10


class Classic:
    """A backend that marks its own failures."""

    halo = 0

    def __call__(self, observation, *, rng):
        return Estimate(observation.data, flags=observation.data < -3)


def image(peak=100.0, shape=(40, 50), **keywords):
    data = np.random.default_rng(3).normal(size=shape)
    data[..., 20, 30] = peak
    sigma = StdDevUncertainty(np.ones(shape))
    return CCDData(data, **({"unit": "adu", "uncertainty": sigma} | keywords))


pytestmark = pytest.mark.filterwarnings("ignore::astrogan.exceptions.UncertaintyWarning")


# ---- flags -------------------------------------------------------------------------------------------------------


def test_flags_say_why_a_pixel_is_masked():
    bad = image()
    bad.data[10:16, 10:16] = np.nan
    bad.data[5, 5] = -8
    out = Restorer(Classic())(bad, psf=3.0, saturation=90)
    np.testing.assert_array_equal(
        (out.flags & FLAG.INVALID) != 0, np.isnan(bad.data) | ((out.flags & FLAG.SATURATED) != 0)
    )
    assert out.flags.dtype == np.uint8
    assert out.flags[12, 12] == FLAG.INVALID | FLAG.LOST
    assert out.flags[12, 16] == FLAG.LOST
    assert out.flags[20, 30] & FLAG.SATURATED
    assert out.flags[20, 30] & FLAG.INVALID
    assert out.flags[5, 5] == FLAG.UNTRUSTED
    assert out.flags[30, 10] == 0
    np.testing.assert_array_equal(out.mask, out.flags != 0)
    assert out.meta["AGFLAGS"] == MEANING


def test_what_lies_outside_the_training_is_flagged_and_not_masked():
    out = Restorer(Learned())(image())
    assert out.flags[20, 30] == FLAG.OUT_OF_RANGE
    assert np.count_nonzero(out.flags) == 1
    assert out.mask is None


def test_learned_results_have_flags_and_others_where_there_is_something_to_flag():
    calm = image(peak=1.0)
    calm.data.clip(-2, 2, out=calm.data)
    assert not Restorer(Learned())(calm).flags.any()
    plain = Restorer(Classic())(calm)
    assert plain.flags is None
    assert "AGFLAGS" not in plain.meta


def test_flags_in_every_form():
    single = Restorer(Learned())(image()).flags
    cube = Restorer(Learned())(image(shape=(2, 40, 50)))
    assert cube.flags.shape == (2, 40, 50)
    assert (cube.flags[:, 20, 30] == FLAG.OUT_OF_RANGE).all()
    bands = {"g": image(), "r": image(peak=1.0)}
    by_name, by_number = Restorer(Learned())(bands), Restorer(Learned())(list(bands.values()))
    for g, r in (by_name.values(), by_number):
        np.testing.assert_array_equal(g.flags, single)
        assert r.flags.shape == (40, 50)
        assert not r.flags.any()
    assert not hasattr(Restorer(Learned())(NDData(image().data)), "flags")


def test_a_wrong_answer_of_a_backend_is_named():
    class Wrong(Learned):
        def pixel_flags(self, observation):
            return np.zeros(observation.shape)

    class Fails(Learned):
        def pixel_flags(self, observation):
            raise KeyError("inside")

    with pytest.raises(BackendError, match=r"Wrong.*pixel_flags.*float64.*uint8"):
        Restorer(Wrong())(image())
    with pytest.raises(BackendError, match="Fails.*inside"):
        Restorer(Fails())(image())


def test_lost_light_needs_a_psf():
    valid = np.ones((1, 20, 20), bool)
    valid[0, 8:12, 8:12] = False
    assert set(np.unique(restoration_flags(valid))) == {0, FLAG.INVALID}
    grown = restoration_flags(valid, gaussian_psf(4.0)[None])
    assert grown[0, 10, 12] == FLAG.LOST
    assert not grown[0, 0].any()


# ---- flags in files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 50), (2, 40, 50)])
def test_flags_are_written_and_read(tmp_path, shape):
    out = Restorer(Learned())(image(shape=shape))
    path = tmp_path / "out.fits"
    write_image(out, path)
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "FLAGS"]
        assert hdus["FLAGS"].data.dtype == np.uint8
        assert hdus["FLAGS"].header["AGFLAGS"] == hdus[0].header["AGFLAGS"] == MEANING
    back = read_image(path)
    np.testing.assert_array_equal(back.flags, out.flags)
    assert back.flags.dtype == np.uint8
    assert back.mask is None, "flags are no mask"
    window = read_image(path, section=np.s_[18:25, 28:40])
    np.testing.assert_array_equal(window.flags, out.flags[..., 18:25, 28:40])
    np.testing.assert_array_equal(CCDData.read(path).data, out.data)
    again = Restorer("identity")(back)
    assert again.flags is None, "a result is flagged for what happened to itself"
    assert "AGFLAGS" not in again.meta


def test_flags_of_bands_are_written_and_read(tmp_path):
    out = Restorer(Learned())({"g": image(), "r": image(peak=1.0)})
    path = tmp_path / "out.fits"
    write_image(out, path)
    bands = read_bands(path)
    for band in "gr":
        np.testing.assert_array_equal(bands[band].flags, out[band].flags)
        assert bands[band].mask is None
    np.testing.assert_array_equal(read_image(path).flags, np.stack([out["g"].flags, out["r"].flags]))


def test_flags_and_mask_in_one_file(tmp_path):
    bad = image()
    bad.data[3, 4] = np.nan
    out = Restorer(Learned())(bad)
    write_image(out, tmp_path / "out.fits")
    back = read_image(tmp_path / "out.fits")
    np.testing.assert_array_equal(back.mask, out.mask)
    np.testing.assert_array_equal(back.flags, out.flags)
    assert back.mask.sum() == 1
    assert (back.flags != 0).sum() == 2


def test_flags_of_others_stay_masks_and_odd_ones_are_left_out(tmp_path):
    data = np.ones((8, 9), "f4")
    survey = [
        fits.PrimaryHDU(data, fits.Header({"BUNIT": "adu"})),
        fits.ImageHDU((data > 2).astype("u1"), name="FLAGS"),
    ]
    survey[1].data[2, 3] = 4
    fits.HDUList(survey).writeto(tmp_path / "survey.fits")
    read = read_image(tmp_path / "survey.fits")
    assert read.mask[2, 3]
    assert read.flags is None
    own = CCDData(data, unit="adu", flags=np.arange(72, dtype=np.int32).reshape(8, 9) * 1000)
    write_image(own, tmp_path / "own.fits")
    np.testing.assert_array_equal(read_image(tmp_path / "own.fits").flags, own.flags)
    own.flags = np.full((8, 9), "text")
    write_image(own, tmp_path / "text.fits")
    assert read_image(tmp_path / "text.fits").flags is None


# ---- ranges ------------------------------------------------------------------------------------------------------


def test_an_image_outside_the_training_is_warned_of_once(saved):
    restorer = Restorer("nafnet", weights=saved("narrow", fwhm=[1.0, 2.0], peak_snr=[1.0, 1e4]), psf=6.0)
    with pytest.warns(OutOfRangeWarning, match=r"a factor 3\.0 outside.*fwhm=6\.\d+ where it knows 1 to 2; .*weights="):
        first = restorer(image())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = restorer(image())
    for out in (first, second):
        score = float(re.search(r"out_of_range=([\d.]+)", out.meta["AGINFO"])[1])
        assert score == pytest.approx(np.log(3), abs=0.05)
    assert issubclass(OutOfRangeWarning, RangeWarning)
    assert issubclass(OutOfRangeWarning, AstroganWarning)


def test_only_what_is_outside_is_named_and_only_beyond_a_factor(saved):
    bright = Restorer("nafnet", weights=saved("faint", fwhm=[1.0, 9.0], peak_snr=[1.0, 40.0]), psf=3.0)
    with pytest.warns(OutOfRangeWarning, match="peak_snr=100 where") as caught:
        out = bright(image())
    assert "fwhm" not in str(caught[0].message)
    assert out.flags[20, 30] == FLAG.OUT_OF_RANGE
    near = Restorer("nafnet", weights=saved("near", fwhm=[1.0, 9.0], peak_snr=[1.0, 70.0]), psf=3.0)
    assert not near(image()).flags.any()


@pytest.mark.parametrize(("score", "message"), [(0.5, "a factor 1.6 outside"), (1e4, "of more than 1000 outside")])
def test_backends_of_others_may_only_give_a_score(score, message):
    backend = Learned()
    backend.score = score
    with pytest.warns(OutOfRangeWarning, match=message):
        Restorer(backend)(image())


def test_results_name_their_weights(wide):
    out = Restorer("nafnet", weights=wide, psf=3.0)(image())
    assert out.meta["AGWEIGHT"] == f"wide {load_weights(wide).sha256[:12]}"
    assert "out_of_range=0" in out.meta["AGINFO"]
    assert Restorer(Learned())(image()).meta["AGWEIGHT"] == f"mine {'f' * 12}"
    assert "AGWEIGHT" not in Restorer("identity")(out).meta


# ---- diagnostics -------------------------------------------------------------------------------------------------


def test_diagnose_says_what_a_learned_method_says_of_itself(saved):
    observed = image()
    restorer = Restorer("nafnet", weights=saved("faint", fwhm=[1.0, 9.0], peak_snr=[1.0, 40.0]), psf=3.0)
    report = restorer.diagnose(masked(observed), observed)
    assert report.out_of_range == pytest.approx(np.log(100 / 40), abs=0.02)
    assert report.ensemble_spread is None
    bits = report.flag_bits
    assert bits.dtype == np.uint8
    assert bits.shape == (1, 40, 50)
    assert bits[0, 20, 30] & FLAG.OUT_OF_RANGE
    assert bits[0, 5, 6] & FLAG.INVALID
    np.testing.assert_array_equal((bits & FLAG.INCONSISTENT) != 0, report.flags)
    assert report.flags.any()
    summary = report.summary()
    assert "out of range 0.92" in summary
    assert "0.05 % of the pixels invalid; 0.05 % of the pixels out of range" in summary
    assert "inconsistent" not in summary


def masked(ccd):
    out = ccd.copy()
    out.data[5, 6] = np.nan
    return out


def test_diagnose_of_classic_methods_keeps_silent():
    report = Restorer("wiener", psf=3.0).diagnose(image(), image(), ensemble=True)
    assert report.out_of_range is None
    assert report.ensemble_spread is None
    assert "ensemble" not in report.summary()
    assert "ensemble" not in report._repr_html_()


def test_ensemble_spread_in_the_images_unit(wide):
    restorer = Restorer("nafnet", weights=wide, psf=3.0, tile=70, workers=2)
    observed = {"g": image(shape=(130, 90)), "r": image(peak=5.0, shape=(130, 90))}
    report = restorer.diagnose(observed, observed, ensemble=True)
    assert report.ensemble_spread.shape == (2, 130, 90)
    whole = Restorer("nafnet", weights=wide, psf=3.0, tile=1000).diagnose(observed, observed, ensemble=True)
    np.testing.assert_allclose(report.ensemble_spread, whole.ensemble_spread, rtol=0, atol=1e-3)
    assert re.search(r"ensemble spread [\d.]+ \(median\), [\d.]+ \(largest\)", report.summary())
    assert "<th>ensemble spread (median)</th>" in report._repr_html_()
    tiny = {band: CCDData(i.data * 1e-19, unit="adu", uncertainty=StdDevUncertainty(np.full(i.shape, 1e-19)))
            for band, i in observed.items()}  # fmt: skip
    scaled = restorer.diagnose(tiny, tiny, ensemble=True)
    np.testing.assert_allclose(scaled.ensemble_spread * 1e19, report.ensemble_spread, rtol=0, atol=1e-3)


def test_a_generator_for_the_ensemble_is_checked():
    with pytest.raises(InputError, match="rng=None"):
        Restorer(Learned(), psf=3.0).diagnose(image(), image(), ensemble=True, rng=None)
    report = Restorer(Learned(), psf=3.0).diagnose(image(), image(), ensemble=True)
    np.testing.assert_allclose(report.ensemble_spread[0], np.abs(image().data) / 10, rtol=1e-5)
