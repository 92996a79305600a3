"""Blends drawn with GalSim, added up from stamps, and made by the rules of two papers."""

import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty

from astrogan.exceptions import InputError
from astrogan.simulate import _galsim_blends as sky
from astrogan.simulate import blends
from astrogan.simulate.blends import BENCHMARK_VERSION, add_blend, benchmark_blends, simulate_blend
from astrogan.simulate.paper_blends import add_noise, branched_blend, paper_blend, paper_segments

galsim = pytest.importorskip("galsim")


FIRST_KINDS = ("galaxy", "galaxy", "spiral", "galaxy", "galaxy", "galaxy", "star", "galaxy")
FIRST_PLACE = (39.54699878, 42.32165403)
FIRST_FLUXES = (1124.219, 276.5149, 1673.327, 302.4794, 546.3285, 2715.919, 548.049, 11191.17)


@pytest.fixture(scope="module")
def scenes():
    return [simulate_blend(seed, sources=3, shape=(48, 56)) for seed in range(6)]


@pytest.mark.parametrize("bands", [("g", "r", "i"), ("z",), tuple("ugrizy")])
def test_shapes_and_types(bands):
    scene = simulate_blend(5, bands=bands, shape=(40, 48), sources=4)
    count = len(bands)
    assert scene.data.shape == scene.variance.shape == (count, 40, 48)
    assert scene.truth.shape == (4, count, 40, 48)
    assert scene.positions.shape == (4, 2)
    assert len(scene.kinds) == 4
    assert scene.bands == bands
    assert {a.dtype for a in (scene.data, scene.variance, scene.truth, scene.psf)} == {np.dtype(np.float32)}
    assert scene.psf.shape[1] % 2 == 1
    assert scene.psf.sum(axis=(1, 2)) == pytest.approx(1, abs=1e-5)
    assert scene.observation.bands == bands


def test_data_are_the_sum_of_truths_and_noise_of_the_stated_variance(scenes):
    for scene in scenes:
        assert (scene.truth >= 0).all()
    pulls = np.stack([(s.data - s.truth.sum(axis=0)) / np.sqrt(s.variance) for s in scenes])
    # 48,000 independent pulls: the mean errs by 0.005, the variance by 0.007.
    assert abs(pulls.mean()) < 0.02
    assert abs(pulls.var() - 1) < 0.03
    bright = np.stack([s.truth.sum(axis=0) > 10 for s in scenes])
    assert bright.sum() > 500
    assert abs(pulls[bright].var() - 1) < 0.2


def test_variance_is_background_plus_photons(scenes):
    scene = scenes[0]
    light = scene.truth.sum(axis=0, dtype=np.float64)
    for band in range(3):
        slope, background = np.polyfit(light[band].ravel(), scene.variance[band].astype(float).ravel(), 1)
        assert scene.variance[band] == pytest.approx(background + slope * light[band], rel=1e-4)
        assert 1 / 100 <= slope <= 1 / 10
    assert scene.variance[1].min() == pytest.approx(1, rel=0.05)  # the unit is the middle band's noise


def test_signal_to_noise_is_within_the_range():
    for seed in range(3):
        scene = simulate_blend(seed, sources=2, snr=(50, 51), shape=(48, 48))
        sky_only = scene.variance - (gain := _per_photon(scene)) * scene.truth.sum(axis=0)
        for truth in scene.truth:
            snr = np.sqrt(np.sum(truth.astype(float) ** 2 / (sky_only + gain * truth)))
            assert 49.9 < snr < 51.1


def _per_photon(scene):
    light = scene.truth.sum(axis=0, dtype=np.float64)[1].ravel()
    return np.polyfit(light, scene.variance[1].astype(float).ravel(), 1)[0]


def test_sources_really_blend_and_stay_inside():
    for seed in range(20, 25):
        scene = simulate_blend(seed, stars=1.0, spirals=0.0, shape=(64, 80))
        x, y = scene.positions.T
        assert (x >= 8).all()
        assert (x <= 71).all()
        assert (y >= 8).all()
        assert (y <= 55).all()
        assert 2 <= len(x) <= 8
        assert np.hypot(x[0] - 39.5, y[0] - 31.5) < 4.5
        separation = np.hypot(x[:, None] - x, y[:, None] - y) + 1e3 * np.eye(len(x))
        assert separation.min() >= 0.8 * 0.85 * 3.0
        # Five FWHM of five pixels, and a band may be 15 % wider.
        assert separation.min(axis=1).max() <= 1.15 * 25


def test_a_star_is_the_psf_at_its_place():
    scene = simulate_blend(2, sources=1, stars=1.0, spirals=0.0, shape=(80, 80))
    half = scene.psf.shape[1] // 2
    ((x, y),) = scene.positions
    for truth, psf in zip(scene.truth[0], scene.psf, strict=True):
        inside = truth.sum(dtype=float)
        grid = np.indices(truth.shape)
        assert (truth * grid[1]).sum() / inside == pytest.approx(x, abs=0.02)
        assert (truth * grid[0]).sum() / inside == pytest.approx(y, abs=0.02)
        # The sampling differs by a part of a pixel, the width does not.
        assert (truth**2).sum() / inside**2 == pytest.approx((psf**2).sum(), rel=0.03)
    assert half >= 12


def test_profiles_are_drawn_as_galsim_draws_them():
    canvas = sky.Canvas(96)
    psf = galsim.Moffat(beta=3.0, fwhm=4.0).shear(g1=0.03, g2=-0.02)
    disk = galsim.Exponential(half_light_radius=3.0).shear(q=0.5, beta=40 * galsim.degrees)
    source = sky.Source("galaxy", [sky.Part(canvas.transform(disk), np.array([100.0]))], 3.0)
    ours = sky.draw(canvas, source, (23.3, 20.6), [canvas.transform(psf) * canvas.pixel()], (48, 48))[0]
    image = galsim.ImageD(48, 48, xmin=0, ymin=0, scale=1.0)
    params = galsim.GSParams(folding_threshold=1e-4, maxk_threshold=1e-5)
    theirs = galsim.Convolve(disk, psf, gsparams=params) * 100
    theirs.drawImage(image, center=galsim.PositionD(23.3, 20.6))
    assert np.abs(ours - image.array).max() < 2e-4 * image.array.max()


def test_an_image_is_transformed_as_light():
    canvas = sky.Canvas(64)
    y, x = np.mgrid[-40:41, -40:41] * 0.4
    image = np.exp(-0.5 * (x**2 + y**2) / 3.0**2)
    transform = canvas.transform_image(image / image.sum(), 0.4, (40, 40))
    frame = canvas.image(transform * canvas.shifted((30, 25)))
    y, x = np.mgrid[:64, :64]
    expected = np.exp(-0.5 * ((x - 30) ** 2 + (y - 25) ** 2) / 3.0**2) / (2 * np.pi * 3.0**2)
    assert frame == pytest.approx(expected, abs=1e-6)


def test_eight_attitudes_keep_the_source_at_its_place():
    image = np.zeros((2, 9, 12))
    image[:, 3, 10] = 5
    seen = set()
    for attitude in range(8):
        turned, (x, y) = sky._turned(image, (10, 3), attitude)
        assert turned[0, y, x] == 5
        seen.add((turned.shape, x, y))
    assert len(seen) == 8


def test_same_seed_same_blend():
    one, other, third = simulate_blend(11), simulate_blend(11), simulate_blend(12)
    for name in ("data", "variance", "psf", "truth", "positions"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert one.kinds == other.kinds
    assert third.data.shape == one.data.shape
    assert not np.array_equal(third.data, one.data)


def test_benchmark_is_fixed_and_beyond_all_seeds():
    first, second = benchmark_blends(2)
    (again,) = benchmark_blends(1)
    assert np.array_equal(first.data, again.data)
    assert not np.array_equal(first.data, second.data)
    assert first.seed >= 2**64
    # These values are the benchmark's first blend: whoever has to change them makes a new version.
    assert BENCHMARK_VERSION == 1
    assert first.kinds == FIRST_KINDS
    assert first.positions[0] == pytest.approx(FIRST_PLACE, abs=1e-6)
    assert first.truth.sum(axis=(1, 2, 3)) == pytest.approx(FIRST_FLUXES, rel=1e-4)
    with pytest.raises(InputError, match="seed"):
        simulate_blend(first.seed)


@pytest.mark.data
def test_real_galaxies_are_alone_and_shared_out(data_dir):
    from astrogan.simulate._real_galaxies import is_reserved, load_galaxies

    galaxies = load_galaxies(str(data_dir))
    assert len(galaxies) >= 50
    for galaxy in galaxies:
        assert (galaxy.image >= 0).all()
        assert galaxy.image.sum() / len(galaxy.image) == pytest.approx(1)
        border = np.concatenate([galaxy.image[:, 0], galaxy.image[:, -1]], axis=-1)
        assert (border > 0).mean() < 0.35
        assert galaxy.image_in(3).shape[0] == 3
    reserved = [is_reserved(g.name) for g in galaxies]
    assert 0.3 < np.mean(reserved) < 0.7


@pytest.mark.data
def test_real_galaxies_take_part(data_dir):
    scenes = list(benchmark_blends(4, data=data_dir))
    kinds = [kind for scene in scenes for kind in scene.kinds]
    assert "real" in kinds
    for scene in scenes:
        pulls = (scene.data - scene.truth.sum(axis=0)) / np.sqrt(scene.variance)
        assert abs(pulls.var() - 1) < 0.05
    scene = simulate_blend(1, data=data_dir, real=1.0, stars=0.0, spirals=0.0, sources=2)
    assert scene.kinds == ("real", "real")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2.5}, "seed"),
        ({"bands": ()}, "bands"),
        ({"bands": ("g", "g")}, "bands"),
        ({"shape": (20, 80)}, "shape"),
        ({"sources": 0}, "sources"),
        ({"stars": 0.8, "spirals": 0.4}, "stars"),
        ({"stars": -0.1}, "stars"),
        ({"psf_fwhm": (5, 3)}, "psf_fwhm"),
        ({"radius": 3}, "radius"),
        ({"snr": (0, 10)}, "snr"),
    ],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(InputError, match=name):
        simulate_blend(**{"seed": 1, **arguments})


def test_bad_benchmark_arguments_are_named(tmp_path):
    with pytest.raises(InputError, match="number"):
        benchmark_blends(0)
    with pytest.raises(InputError, match="data"):
        benchmark_blends(1, data=tmp_path)


# ---- real stamps -----------------------------------------------------------------------------------------------------


def test_stamps_add_up_at_their_places(rng):
    one, two = rng.normal(size=(2, 5, 5)), rng.normal(size=(2, 3, 7))
    scene = add_blend([one, two], [(2, 2), (4.4, 0)], (5, 6))
    expected = np.zeros((2, 5, 6))
    expected[:, :5, :5] += one
    expected[:, 0:2, 1:6] += two[:, 1:, :5]
    assert scene.data == pytest.approx(expected, abs=1e-6)
    assert scene.data == pytest.approx(scene.truth.sum(axis=0), abs=1e-6)
    assert np.array_equal(scene.positions, [(2, 2), (4, 0)])
    assert scene.variance is None
    assert scene.observation.variance is None


def test_noise_and_the_stamps_variance_are_added(rng):
    stamp = CCDData(np.ones((60, 60)), unit="nJy", uncertainty=StdDevUncertainty(np.full((60, 60), 2.0)))
    scene = add_blend([stamp, stamp], [(29, 29), (29, 29)], noise=1.5, rng=rng)
    assert scene.variance == pytest.approx(2 * 4 + 2.25)
    noise = scene.data - scene.truth.sum(axis=0)
    assert noise.std() == pytest.approx(1.5, rel=0.05)
    assert np.array_equal(stamp.data, np.ones((60, 60)))


def test_a_stamp_outside_the_frame_leaves_nothing():
    scene = add_blend([np.ones((4, 4)), np.ones((4, 4))], [(1, 1), (50, 50)], (6, 6))
    assert scene.truth[1].sum() == 0
    assert scene.truth[0].sum() == 16


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"stamps": []}, "stamps"),
        ({"stamps": [np.ones((3, 3)), np.ones((2, 3, 3))], "positions": [(1, 1), (1, 1)]}, "bands"),
        ({"stamps": [np.full((3, 3), np.nan)]}, "stamps"),
        ({"positions": [(1, 1), (2, 2)]}, "positions"),
        ({"noise": -1.0}, "noise"),
        ({"noise": 1.0}, "rng"),
        ({"shape": (0, 4)}, "shape"),
        (
            {"stamps": [CCDData(np.ones((3, 3)), unit=u) for u in ("Jy", "adu")], "positions": [(1, 1), (1, 1)]},
            "units",
        ),
    ],
)
def test_bad_stamps_are_named(arguments, name):
    with pytest.raises(InputError, match=name):
        add_blend(**{"stamps": [np.ones((3, 3))], "positions": [(1, 1)], **arguments})


# ---- the papers' rules -----------------------------------------------------------------------------------------------

FIRST = np.array([[[0.5, 0.2, 0.0, 0.3]], [[0.5, 0.2, 0.0, 0.3]], [[0.5, 0.2, 0.9, 0.0]]])
SECOND = np.array([[[0.6, 0.1, 0.4, 0.9]], [[0.0, 0.3, 0.4, 0.9]], [[0.0, 0.2, 0.4, 0.9]]])


def test_mean_rule_takes_pixels_whole_and_ties_go_to_the_first():
    blended = paper_blend(FIRST, SECOND, shift=1)
    # Second, moved: empty; (.6, 0, 0), as bright as (.2, .2, .2); (.1, .3, .2) against (0, 0, .9); (.4, .4, .4).
    expected = np.stack([FIRST[..., 0], FIRST[..., 1], FIRST[..., 2], SECOND[..., 2]], axis=-1)
    assert np.array_equal(blended, expected)


def test_maximum_rule_takes_each_colour():
    blended = paper_blend(FIRST, SECOND, shift=1, rule="maximum")
    assert np.array_equal(blended[:, 0], [[0.5, 0.6, 0.1, 0.4], [0.5, 0.2, 0.3, 0.4], [0.5, 0.2, 0.9, 0.4]])


@pytest.mark.parametrize("rule", ["mean", "maximum"])
@pytest.mark.parametrize("shift", [0, 5, -7, 40])
def test_segments_are_the_winning_pixels(rng, rule, shift):
    # Levels of a picture of few bits, so that many pixels tie.
    first, second = rng.integers(0, 4, (2, 3, 12, 32)) / 255
    blended = paper_blend(first, second, shift=shift, rule=rule)
    masks = paper_segments(blended, first, second, rule=rule, shift=shift)
    moved = np.zeros_like(second)
    for x in range(32):
        if 0 <= x - shift < 32:
            moved[:, :, x] = second[:, :, x - shift]
    if rule == "mean":
        wins = np.broadcast_to((255 * first).round().sum(axis=0) >= (255 * moved).round().sum(axis=0), first.shape)
    else:
        wins = first >= moved
    assert np.array_equal(masks[0], wins)
    assert np.array_equal(masks[1], ~wins)
    assert np.array_equal(blended, np.where(masks[0], first, moved))


def test_papers_inputs_are_left_alone_and_types_kept(rng):
    first, second = rng.random((2, 3, 8, 60)).astype(np.float32)
    kept = first.copy(), second.copy()
    assert paper_blend(first, second).dtype == np.float32
    paper_segments(paper_blend(first, second), first, second)
    add_noise(first, 0.1, rng)
    assert np.array_equal(first, kept[0])
    assert np.array_equal(second, kept[1])


def test_noise_of_pictures(rng):
    noisy = add_noise(np.full((3, 100, 100), 0.5), 0.05, rng)
    assert noisy.std() == pytest.approx(0.05, rel=0.05)
    assert add_noise(np.ones((3, 20, 20)), 0.2, rng).max() == 1
    assert add_noise(np.ones((3, 20, 20)), 0.2, rng, clip=False).max() > 1
    with pytest.raises(InputError, match="sigma"):
        add_noise(noisy, -1, rng)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"rule": "sum"}, "rule"),
        ({"shift": 1.5}, "shift"),
        ({"second": np.zeros((3, 8, 9))}, "second"),
        ({"first": np.zeros((8, 8)), "second": np.zeros((8, 8))}, "first"),
    ],
)
def test_bad_pictures_are_named(arguments, name):
    good = {"first": np.zeros((3, 8, 8)), "second": np.zeros((3, 8, 8)), **arguments}
    with pytest.raises(InputError, match=name):
        paper_blend(**good)
    with pytest.raises(InputError, match="blended"):
        paper_segments(np.zeros((3, 4, 4)), np.zeros((3, 8, 8)), np.zeros((3, 8, 8)))


def spot(size=424):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.repeat(np.exp(-0.5 * (x**2 + y**2) / 9.0**2)[None], 3, axis=0)


def test_branched_blend(rng):
    blended, first, second = branched_blend(spot(), spot(), rng)
    assert blended.shape == first.shape == second.shape == (3, 80, 80)
    assert np.array_equal(blended, np.maximum(first, second))
    y, x = np.unravel_index(np.argmax(first[0]), (80, 80))
    assert 38 <= y <= 41
    assert 38 <= x <= 41


def test_second_galaxy_of_a_branched_blend_moves_and_scales():
    widths = []
    for seed in range(12):
        _, _, second = branched_blend(spot(), spot(), np.random.default_rng(seed))
        total = second[0].sum(dtype=float)
        y, x = ((second[0] * g).sum(dtype=float) / total - 39.5 for g in np.indices((80, 80)))
        for move in (y, x):
            assert 10 / 3 - 0.2 <= abs(move) <= 50 / 3 + 0.2
        # The area under a Gaussian of unit peak is 2 pi sigma^2.
        widths.append(np.sqrt(total / (2 * np.pi)) * 3 / 9)
    assert 0.36 < min(widths) < 0.7 < max(widths) < 1.7


def test_branched_blend_refuses_small_pictures(rng):
    with pytest.raises(InputError, match="first"):
        branched_blend(np.zeros((3, 100, 300)), np.zeros((3, 300, 300)), rng)
    with pytest.raises(InputError, match="factor"):
        branched_blend(spot(), spot(), rng, factor=7)


def test_all_names_are_there():
    for name in blends.__all__:
        assert hasattr(blends, name)


def test_a_scene_as_images_and_catalog():
    scene = simulate_blend(3, shape=(48, 48), sources=2, bands=("g", "r"))
    assert list(scene.images) == ["g", "r"]
    assert np.array_equal(scene.images["r"].data, scene.data[1])
    assert np.array_equal(scene.images["g"].uncertainty.array, scene.variance[0])
    assert list(scene.truth_images) == ["1_g", "1_r", "2_g", "2_r"]
    assert np.array_equal(scene.truth_images["2_g"].data, scene.truth[1, 0])
    table = scene.catalog
    assert np.allclose(table["flux_r"], scene.truth[:, 1].sum(axis=(1, 2)))
    assert np.array_equal(np.stack([table["x"], table["y"]], axis=1), scene.positions)
