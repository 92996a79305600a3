"""The branched GAN as a backend: windows there and back, levels, and what it refuses. The weights are noise."""

import pickle

import numpy as np
import pytest
import torch
from astropy.nddata import CCDData

from astrogan import Deblender
from astrogan.api import BackendSpec, Observation
from astrogan.backends.classic._detection import Detector
from astrogan.backends.gan import branched_gan
from astrogan.backends.gan.branched_gan import BranchedGAN, _resampling, _Window
from astrogan.exceptions import CheckpointError, InputError
from astrogan.image.stretch import GalaxyGAN2017Stretch
from astrogan.nn.branched import BranchedGenerator
from astrogan.testing import check_backend
from astrogan.weights import save_weights

SPEC = BackendSpec("deblender", "branched-gan", "astrogan.backends.gan.branched_gan:BranchedGAN", requires=("torch",))


def saved(folder, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = BranchedGenerator(features=4, shared_blocks=1, branch_blocks=1)
    card = {
        "name": "tiny",
        "backend": "branched-gan",
        "role": "deblender",
        "architecture": net.architecture,
        "bands": 3,
    }
    path = folder / "tiny.safetensors"
    save_weights(path, net.state_dict(), card | changes)
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("weights"))


class Passing:
    """In the place of the network: branch 1 is what went in."""

    def __init__(self, factor=1.0):
        self.factor, self.seen = factor, []

    def __call__(self, backend, net, levels):
        self.seen.append(levels.copy())
        return self.factor * levels, levels


@pytest.fixture
def passing(monkeypatch):
    network = Passing()
    monkeypatch.setattr(BranchedGAN, "_separated", lambda *arguments: network(*arguments))
    return network


def scene(sources, shape=(64, 80), noise=0.3, seed=0):
    """An observation of Gaussians, (x, y, sigma, flux) each; the bands have 1, 2 and 3 times the flux."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = sum(f * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s**2)) / (2 * np.pi * s**2) for a, b, s, f in sources)
    data = np.stack([image, 2 * image, 3 * image]) + np.random.default_rng(seed).normal(0, noise, (3, *shape))
    return Observation(data, variance=np.full(data.shape, noise**2))


PAIR = [(25.0, 30.0, 3.0, 4000.0), (40.0, 33.0, 4.0, 6000.0)]
CENTRES = np.array([s[:2] for s in PAIR])


def test_conformance(weights):
    report = check_backend(SPEC, options={"weights": weights})
    # A window sees more than its own blend.
    assert set(report.skipped) <= {"translation"}
    assert not report.failed


def test_order_of_positions_changes_no_bit(weights):
    backend, observation = BranchedGAN(weights), scene([*PAIR, (60.0, 10.0, 2.0, 900.0)])
    positions = np.array([*CENTRES, (60.0, 10.0)])
    straight = backend(observation, positions).templates
    turned = backend(observation, positions[[2, 0, 1]]).templates
    for one, other in zip([straight[2], straight[0], straight[1]], turned, strict=True):
        assert one.origin == other.origin
        assert one.position == other.position
        np.testing.assert_array_equal(one.data, other.data)


def test_windows_in_batches_give_the_same(weights, monkeypatch):
    observation = scene(PAIR)
    together = BranchedGAN(weights)(observation, CENTRES).templates
    monkeypatch.setattr(branched_gan, "_WINDOWS", 1)
    alone = BranchedGAN(weights)(observation, CENTRES).templates
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.data, other.data, atol=1e-4 * one.data.max())


@pytest.mark.parametrize("width", [1.5, 4.0, 14.0])
def test_light_goes_there_and_back(weights, passing, width):
    """A network that changes nothing gives the source back: pixels, flux and centre."""
    shape = (150, 161)
    flux = 1000 * width**2
    observation = scene([(80.3, 70.6, width, flux)], shape, noise=0.3)
    (template,) = BranchedGAN(weights, threshold=3)(observation, [(80.3, 70.6)]).templates
    assert template.data.sum(axis=(1, 2)) == pytest.approx(flux * np.array([1, 2, 3]), rel=0.04)
    y, x = np.indices(template.data.shape[1:])
    plane = template.data[2].astype(np.float64)
    centre = [
        (plane * (axis + start)).sum() / plane.sum() for axis, start in zip((x, y), template.origin[::-1], strict=True)
    ]
    assert centre == pytest.approx((80.3, 70.6), abs=0.15)
    (seen,) = passing.seen[0]
    # The galaxy is in the middle, and as large as those of the training.
    light = np.maximum(GalaxyGAN2017Stretch().inverse(seen[2]) - branched_gan._SKY - 2 * branched_gan._SIGMA, 0)
    radius = np.hypot(*(np.mgrid[:80, :80] - branched_gan._MIDDLE))
    order = np.argsort(radius, axis=None)
    held = np.cumsum(light.ravel()[order])
    r90 = radius.ravel()[order][np.searchsorted(held, 0.9 * held[-1])]
    assert r90 == pytest.approx(24, abs=3 if width > 2 else 12)


def test_levels_are_those_of_the_training(weights, passing):
    noise = 0.7
    faint = scene([(40.0, 32.0, 3.0, 900.0)], noise=noise)
    BranchedGAN(weights)(faint, [(40.0, 32.0)])
    (seen,) = passing.seen.pop()
    linear = GalaxyGAN2017Stretch().inverse(seen)
    window = _Window.of(Detector()(faint, [(40.0, 32.0)]), 0)
    peak = faint.data[:, 32, 40] / noise * branched_gan._SIGMA * max(window.scale, 1) + branched_gan._SKY
    assert linear[:, 39:41, 39:41].mean(axis=(1, 2)) == pytest.approx(peak, rel=0.12)
    assert np.median(linear[:, :6], axis=(1, 2)) == pytest.approx(branched_gan._SKY, abs=0.01)
    # A source that is brighter than any in the training is brought down to it, not cut off.
    BranchedGAN(weights)(scene([(40.0, 32.0, 3.0, 9e6)], noise=noise), [(40.0, 32.0)])
    (seen,) = passing.seen.pop()
    assert 0.9 < seen.max() < 1
    inner = seen[:, 36:44, 36:44].mean(axis=(1, 2))
    assert inner[0] < inner[1] < inner[2]


def test_faint_neighbour_of_a_bright_source_is_not_dimmed(weights, passing):
    positions = [(20.0, 32.0), (60.0, 32.0)]
    observation = scene([(20.0, 32.0, 3.0, 1e6), (60.0, 32.0, 3.0, 900.0)])
    BranchedGAN(weights)(observation, positions)
    bright, faint = passing.seen.pop()
    assert bright.max() < 1
    alone = scene([(60.0, 32.0, 3.0, 900.0)])
    BranchedGAN(weights)(alone, positions[1:])
    (expected,) = passing.seen.pop()
    np.testing.assert_allclose(faint[:, 35:45, 35:45], expected[:, 35:45, 35:45], atol=0.06)


def test_templates_end_with_the_footprints(weights):
    observation = scene(PAIR, noise=0.3)
    result = BranchedGAN(weights)(observation, CENTRES)
    for i, template in enumerate(result.templates):
        (y, x), (h, w) = template.origin, template.data.shape[1:]
        labels = result.segmentation[y : y + h, x : x + w]
        assert not template.data[:, labels == 0].any()
        assert (template.data[:, labels == i + 1] > 0).all()
        assert (labels == i + 1).sum() == (result.segmentation == i + 1).sum()


def test_edges_corners_and_masked_pixels(weights):
    observation = scene([(0.0, 0.0, 3.0, 3000.0), (79.4, 63.0, 2.0, 2000.0), (40.0, 30.0, 3.0, 3000.0)])
    valid = np.ones(observation.shape, bool)
    valid[:, 28:33, 38:41] = False
    valid[1] = False
    observation = observation.replace(valid=valid)
    result = BranchedGAN(weights)(observation, np.array([(-0.5, -0.5), (79.4, 63.0), (40.0, 30.0)]))
    assert len(result.templates) == 3
    for template in result.templates:
        (y, x), (h, w) = template.origin, template.data.shape[1:]
        assert 0 <= y <= 64 - h
        assert 0 <= x <= 80 - w
        assert np.isfinite(template.data).all()
        assert (template.data >= 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (7, 5)])
def test_small_and_narrow_images(weights, shape):
    data = np.random.default_rng(3).normal(0, 1, (3, *shape))
    result = BranchedGAN(weights)(Observation(data, variance=np.ones(data.shape)), np.array([(0.0, 0.0)]))
    assert result.templates[0].data.size


def test_empty_sky_has_no_source(weights):
    observation = Observation(np.zeros((3, 20, 20)), variance=np.ones((3, 20, 20)))
    assert BranchedGAN(weights)(observation).templates == ()


def test_operator_conserves_flux(weights):
    observation = scene(PAIR)
    image = CCDData(observation.data, unit="adu")
    result = Deblender(BranchedGAN(weights))(image, positions=CENTRES)
    np.testing.assert_allclose(result.recompose().data, image.data, atol=1e-4)
    assert len(result.sources) == 2


def test_facts_and_pictures(weights):
    backend = BranchedGAN(weights)
    result = backend(scene(PAIR), CENTRES)
    assert result.info["weights"] == "tiny"
    assert len(result.info["sha256"]) == 12
    blended = np.random.default_rng(2).random((2, 3, 80, 80), np.float32)
    before = blended.copy()
    first, second = backend.pictures(blended)
    assert first.shape == second.shape == blended.shape
    assert first.dtype == np.float32
    assert 0 <= min(first.min(), second.min()) <= max(first.max(), second.max()) <= 1
    assert not np.allclose(first, second, atol=1e-2)
    np.testing.assert_array_equal(blended, before)
    np.testing.assert_allclose(backend.pictures(blended[:1])[0], first[:1], atol=1e-5)
    assert backend.pictures(blended[:0])[0].shape == (0, 3, 80, 80)
    half = BranchedGAN(weights, precision="bfloat16").pictures(blended)[0]
    np.testing.assert_allclose(half, first, atol=0.05)


def test_copy_reads_its_weights_again(weights):
    backend = BranchedGAN(weights)
    backend(scene(PAIR), CENTRES)
    again = pickle.loads(pickle.dumps(backend))
    assert again._loaded is None
    assert repr(again) == repr(backend)


def test_resampling_keeps_means_and_lines():
    coarse, fine = np.arange(10.0), np.arange(40) / 4 - 0.375
    down, up = _resampling(fine, 0.25, coarse, 1.0), _resampling(coarse, 1.0, fine, 0.25)
    np.testing.assert_allclose(down.sum(1), 1)
    np.testing.assert_allclose(down @ fine, coarse)
    inside = slice(4, -4)
    np.testing.assert_allclose(up.sum(1)[inside], 1)
    np.testing.assert_allclose((up @ coarse)[inside], fine[inside])


def test_other_numbers_of_bands_are_refused(weights):
    one = Observation(np.zeros((1, 20, 20)), variance=np.ones((1, 20, 20)))
    with pytest.raises(InputError, match="image has 1 bands"):
        BranchedGAN(weights)(one, [(3.0, 4.0)])
    with pytest.raises(InputError, match=r"blended has shape \(3, 80, 80\)"):
        BranchedGAN(weights).pictures(np.zeros((3, 80, 80)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": None}, "weights=None"),
        ({"device": 0}, "device=0"),
        ({"precision": "float16"}, "precision='float16'"),
        ({"threshold": -1}, "threshold=-1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        BranchedGAN(**options)


def test_weights_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    observation = scene(PAIR)
    other = saved(tmp_path, backend="nafnet", role="restorer")
    with pytest.raises(InputError, match="for the backend 'nafnet'"):
        BranchedGAN(other)(observation, CENTRES)
    (tmp_path / "wrong").mkdir()
    wrong = saved(tmp_path / "wrong", architecture={"features": 8})
    with pytest.raises(CheckpointError, match="do not fit"):
        BranchedGAN(wrong)(observation, CENTRES)
    monkeypatch.setattr("astrogan.weights.list_weights", lambda **_: ())
    with pytest.raises(InputError, match="weights='auto' finds none"):
        BranchedGAN()(observation, CENTRES)


def test_bands_named_after_filters_may_come_in_any_order():
    from astrogan.testing import example_observation

    blue_first = example_observation((3, 60, 60), masked=False).replace(bands=("g", "r", "i"))
    red_first = blue_first.replace(data=blue_first.data[::-1], psf=blue_first.psf[::-1], bands=("i", "r", "g"))
    backend = BranchedGAN()
    one, other = (backend(o, np.array([[30.0, 30.0], [40.0, 25.0]])) for o in (blue_first, red_first))
    for a, b in zip(one.templates, other.templates, strict=True):
        assert np.allclose(a.data, b.data[::-1], rtol=1e-4, atol=1e-4)
