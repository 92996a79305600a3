"""Pairs for training: a pure function of seed and step, degraded by the Degrader that users call."""

import numpy as np
import pytest
from astropy import units as u

from astrogan import Degrader
from astrogan.exceptions import InputError
from astrogan.train.sources import Mix, Sample, SimulatedStream, Source, Subset
from astrogan.train.stream import Degradation, PairStream, blur_kernel, difference_noise, uneven_depth


class Images(Source):
    """Given images; those asked for are remembered."""

    def __init__(self, images):
        self.images, self.asked = list(images), []
        self.bands = ("any",) * len(self.images[0])

    def __len__(self):
        return len(self.images)

    def name(self, i):
        return str(i)

    def load(self, i):
        self.asked.append(i)
        return Sample(self.images[i])

    def describe(self):
        return {}


def noise_images(number=4, bands=2, size=48, sigma=0.02):
    rng = np.random.default_rng(5)
    y, x = np.indices((size, size)) - size / 2
    galaxy = np.exp(-np.hypot(x, y) / 4)
    return [(galaxy + rng.normal(0, sigma, (bands, size, size))).astype(np.float32) for _ in range(number)]


PHYSICAL = Degradation(kind="physical", photon_noise=0.5, moffat=0.5)
BOTH = pytest.mark.parametrize("degradation", [Degradation(), PHYSICAL], ids=["galaxygan2017", "physical"])


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


@BOTH
def test_batches_depend_on_seed_and_step_alone(degradation):
    source = Images(noise_images())
    stream = PairStream(source, degradation, batch=3, crop=32, seed=1)
    seven = stream.batch(7)
    eight = stream.batch(8)
    assert equal(PairStream(source, degradation, batch=3, crop=32, seed=1).batch(7), seven)
    assert equal(stream.batch(7), seven)
    for other in (eight, PairStream(source, degradation, batch=3, crop=32, seed=2).batch(7)):
        assert not np.array_equal(other["degraded"], seven["degraded"])
    assert not np.array_equal(seven["degraded"][0], seven["degraded"][1])
    # a batch that is larger begins with the same images
    more = PairStream(source, degradation, batch=4, crop=32, seed=1).batch(7)
    assert np.array_equal(more["degraded"][:3], seven["degraded"])


@BOTH
def test_what_a_batch_holds(degradation):
    batch = PairStream(Images(noise_images()), degradation, batch=2, crop=32, seed=1).batch(0)
    assert {key: value.shape for key, value in batch.items()} == {
        "degraded": (2, 2, 32, 32),
        "original": (2, 2, 32, 32),
        "noise": (2, 2, 32, 32),
        "sigma": (2, 2),
        "sky": (2, 2),
        "fwhm": (2, 2),
        "shape": (2,),
    }
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in batch.values())
    assert (batch["sigma"] > 0).all()
    assert (batch["noise"] >= 1).all()


@BOTH
@pytest.mark.parametrize("crop", [32, 64])
def test_the_source_is_not_changed(degradation, crop):
    if crop == 64 and degradation.kind == "galaxygan2017":
        pytest.skip("small images are set into sky with the physical degradation only")
    images = noise_images()
    kept = [image.copy() for image in images]
    for image in images:
        image.setflags(write=False)
    stream = PairStream(Images(images), degradation, batch=4, crop=crop, seed=1)
    batch = stream.batch(0)
    again = {key: value.copy() for key, value in batch.items()}
    for value in batch.values():
        value += 1
    assert equal(stream.batch(0), again)
    assert all(np.array_equal(a, b) for a, b in zip(images, kept, strict=True))


def test_the_degrader_of_the_paper_is_used(rng):
    """With one image, nothing turned and no jitter the draws are known: the batch is what the Degrader gives."""
    image = noise_images(1, bands=3)[0]
    stream = PairStream(
        Images([image]), Degradation(), batch=1, crop=48, seed=4, jitter=False, augment=False, fixed=(3.0, 2.0)
    )
    draws = np.random.default_rng((4, 9, 0))
    draws.random()  # whether bands share their noise
    degrader = Degrader.preset("galaxygan2017", fwhm=3.0, noise_ratio=2.0, shared_band_noise=False)
    expected = degrader.batch(image[np.newaxis], draws, unit="nmgy")
    batch = stream.batch(9)
    np.testing.assert_array_equal(batch["degraded"], expected.astype(np.float32))
    np.testing.assert_array_equal(batch["original"][0], image)
    np.testing.assert_array_equal(batch["fwhm"], np.full((1, 3), 3.0, np.float32))


def test_the_physical_degrader_is_used():
    image = noise_images(1, bands=2)[0]
    degradation = Degradation(kind="physical", photon_noise=0.0, moffat=0.0)
    stream = PairStream(
        Images([image]), degradation, batch=1, crop=48, seed=4, jitter=False, augment=False, fixed=(3.0, 2.0)
    )
    draws = np.random.default_rng((4, 2, 0))
    draws.random(2)  # Moffat or not, photon noise or not
    scaled = image / float(np.abs(image).max())
    sigma = np.array([2.0 * difference_noise(plane) for plane in scaled])
    degrader = Degrader(blur_kernel(3.0), sigma * u.nmgy, match=False, poisson="gaussian")
    expected = degrader.batch(scaled[np.newaxis], draws, unit="nmgy")
    np.testing.assert_allclose(stream.batch(2)["degraded"], expected, atol=1e-6)


def test_noise_is_measured_beside_a_galaxy():
    for sigma in (0.01, 1.0, 300.0):
        image = noise_images(1, bands=1, size=128, sigma=0.0)[0][0] * sigma * 100
        noisy = image + np.random.default_rng(3).normal(0, sigma, image.shape)
        assert difference_noise(noisy) == pytest.approx(sigma, rel=0.06)
    assert difference_noise(np.zeros((9, 7))) > 0


def test_sigma_and_sky_are_those_of_the_degraded_image():
    rng = np.random.default_rng(8)
    images = [(5 + rng.normal(0, 0.02, (1, 128, 128))).astype(np.float32) for _ in range(4)]
    degradation = Degradation(kind="physical")
    stream = PairStream(Images(images), degradation, batch=4, crop=128, seed=1, jitter=False, augment=False)
    batch = stream.batch(0)
    spread = np.array([[plane.std() for plane in image] for image in batch["degraded"]])
    np.testing.assert_allclose(batch["sigma"], spread, rtol=0.08)
    level = np.median(batch["degraded"], axis=(2, 3))
    np.testing.assert_allclose(batch["sky"], level, atol=0.1 * float(spread.max()))


def test_a_user_knows_noise_and_sky_only_about():
    stream = PairStream(Images(noise_images()), Degradation(), batch=40, crop=48, seed=1, augment=False)
    exact = PairStream(Images(noise_images()), Degradation(), batch=40, crop=48, seed=1, augment=False, jitter=False)
    told, true = stream.batch(0), exact.batch(0)
    assert np.array_equal(told["degraded"], true["degraded"])
    error = np.log(told["sigma"] / true["sigma"])
    assert 0.05 < error.std() < 0.12
    assert 0.0 < error.mean() < 0.06
    assert 0.1 < ((told["sky"] - true["sky"]) / told["sigma"]).std() < 0.2


def test_uneven_noise_is_what_the_network_is_told():
    blank = [np.random.default_rng(k).normal(0, 0.01, (1, 128, 128)).astype(np.float32) for k in range(4)]
    degradation = Degradation(kind="physical", noise_ratio=(3.0, 3.0), uneven=1.0)
    batch = PairStream(Images(blank), degradation, batch=12, crop=128, seed=5, jitter=False).batch(0)
    assert batch["noise"].min() == pytest.approx(1, abs=1e-5)
    assert (batch["noise"].max(axis=(1, 2, 3)) > 1.2).all()
    # In units of what it is told, the noise is one everywhere: in the noisiest tenth as in the deepest.
    white = (batch["degraded"] - batch["original"]) / batch["sigma"][:, :, None, None] / batch["noise"]
    for image, noise in zip(white, batch["noise"], strict=True):
        low, high = np.quantile(noise, (0.1, 0.9))
        assert image[noise <= low].std() == pytest.approx(1, abs=0.15)
        assert image[noise >= high].std() == pytest.approx(1, abs=0.15)


def test_negative_images_are_the_others_with_their_sign_changed():
    streams = [
        PairStream(Images(noise_images(4, 1)), Degradation(kind="physical", negative=part), batch=4, crop=48, seed=3)
        for part in (0.0, 1.0)
    ]
    positive, negative = (stream.batch(0) for stream in streams)
    for name in ("degraded", "original"):
        np.testing.assert_array_equal(negative[name], -positive[name])
    np.testing.assert_array_equal(negative["noise"], positive["noise"])


@pytest.mark.parametrize("seed", range(12))
def test_depths_are_one_somewhere_and_more_elsewhere(seed):
    depth = uneven_depth((40, 56), np.random.default_rng(seed))
    assert depth.shape == (40, 56)
    assert depth.min() == 1
    assert 1 < depth.max() <= 10


def test_a_stamp_that_cannot_be_degraded_is_replaced_by_the_next():
    images = noise_images(3, bands=3)
    images[1] = images[1] + 5  # no sky, so no noise to measure
    images = Images(images)
    stream = PairStream(images, Degradation(), batch=3, crop=32, seed=1, augment=False, jitter=False)
    batch = stream.batch(0)
    assert images.asked == [0, 1, 2, 2]
    assert np.array_equal(batch["original"][1], batch["original"][2])
    assert np.isfinite(batch["degraded"]).all()


def test_if_no_stamp_can_be_degraded_it_is_said_why():
    stream = PairStream(Images([np.full((3, 48, 48), 5, np.float32)]), Degradation(), batch=1, crop=32, seed=1)
    with pytest.raises(InputError, match="by which this recipe measures its noise"):
        stream.batch(0)


def test_small_images_lie_in_sky_like_their_own():
    rng = np.random.default_rng(4)
    small = rng.normal(10, 0.1, (1, 24, 30)).astype(np.float32)
    degradation = Degradation(kind="physical")
    batch = PairStream(
        Images([small]), degradation, batch=1, crop=64, seed=1, jitter=False, augment=False, fixed=(2.0, 1.0)
    ).batch(0)
    original = batch["original"][0, 0] * float(np.abs(small).max())
    np.testing.assert_allclose(original[20:44, 17:47], small[0], rtol=1e-6)
    around = np.concatenate([original[:20].ravel(), original[44:].ravel()])
    assert np.median(around) == pytest.approx(10, abs=0.05)
    assert around.std() == pytest.approx(0.1, rel=0.15)


def test_images_smaller_than_the_crop_are_refused_where_sky_would_be_invented():
    stream = PairStream(Images(noise_images()), Degradation(), batch=1, crop=64, seed=1)
    with pytest.raises(InputError, match="crop=64 is larger than an image of 48 x 48"):
        stream.batch(0)


def test_crops_of_original_and_degraded_are_the_same():
    mild = Degradation(fwhm=(1.5, 1.5), noise_ratio=(1.0, 1.0))
    stream = PairStream(Images(noise_images(sigma=0.001)), mild, batch=6, crop=24, seed=3)
    batch = stream.batch(0)
    for before, after in zip(batch["original"], batch["degraded"], strict=True):
        for a, b in zip(before, after, strict=True):
            assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95


def test_draws_stay_within_their_ranges():
    degradation = Degradation(fwhm=(2.0, 3.0), noise_ratio=(1.0, 2.0))
    fwhm = PairStream(Images(noise_images()), degradation, batch=40, crop=32, seed=1).batch(0)["fwhm"]
    assert 2.0 <= fwhm.min() < 2.2
    assert 2.8 < fwhm.max() <= 3.0
    moffat = Degradation(kind="physical", moffat=1.0)
    shapes = PairStream(Images(noise_images()), moffat, batch=20, crop=32, seed=1).batch(0)["shape"]
    assert set(shapes.tolist()) <= {2.5, 3.0, 4.0}
    assert len(set(shapes.tolist())) > 1


def test_a_mix_of_subsets_as_a_source():
    mix = Mix(
        [Subset(SimulatedStream(seed=1, size=32, length=5), [1, 3]), SimulatedStream(seed=2, size=32, length=5)],
        [0.5, 0.5],
    )
    batch = PairStream(mix, PHYSICAL, batch=2, crop=32, seed=1).batch(0)
    assert batch["degraded"].shape == (2, 1, 32, 32)


@pytest.mark.parametrize("shape", [0.0, 2.5, 4.0])
def test_kernels_have_the_width_they_say(shape):
    kernel = blur_kernel(5.0, shape, radius=40)
    assert kernel.sum() == pytest.approx(1)
    profile = kernel[40, 40:] / kernel[40, 40]
    assert np.interp(2.5, np.arange(41), profile) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "paint"}, "kind='paint'"),
        ({"fwhm": (3, 2)}, "fwhm=.* 0 < low <= high"),
        ({"fwhm": (1, 2, 3)}, "fwhm="),
        ({"noise_ratio": (0, 2)}, "noise_ratio="),
        ({"peak_snr": (float("nan"), 2)}, "peak_snr="),
        ({"moffat": 1.5}, "moffat=1.5"),
    ],
)
def test_ranges_that_are_none(settings, message):
    with pytest.raises(InputError, match=message):
        Degradation(**settings)
