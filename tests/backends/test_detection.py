"""Detection: galaxies stay whole, neighbours stay apart, correlated noise is told from sources."""

import csv

import numpy as np
import pytest
from scipy import ndimage

from astrogan.api import Observation
from astrogan.backends.classic._detection import MERGE, Detector
from astrogan.backends.classic._merging import merge_clumps
from astrogan.exceptions import InputError

SIZE = 128


def galaxy(flux, x, y, scale=3.0, ratio=1.0, shape=(SIZE, SIZE)):
    """An exponential disk that ends at five scale lengths, blurred a little."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    radius = np.hypot(columns - x, (rows - y) / ratio)
    disk = ndimage.gaussian_filter(np.exp(-radius / scale) * (radius < 5 * scale), 1.2)
    return flux * disk / disk.sum()


def star(flux, x, y, sigma=1.3, shape=(SIZE, SIZE)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return flux / (2 * np.pi * sigma**2) * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))


def spiral(flux=2e5, x=64, y=64, scale=9.0, turn=0.0, knots=True):
    """A disk with a bulge, two logarithmic arms and knots along them."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    radius = np.hypot(columns - x, rows - y) + 1e-3
    angle = np.arctan2(rows - y, columns - x)
    wave = np.cos(2 * (angle - 3.0 * np.log(radius) - turn))
    image = np.exp(-radius / scale) * (1 + 0.6 * wave * (radius > 4)) + 3 * np.exp(-radius / 1.5)
    for r in (9, 12, 15, 18, 22, 26) if knots else ():
        for half in (0, np.pi):
            at = 3.0 * np.log(r) + turn + half
            spot = (columns - x - r * np.cos(at)) ** 2 + (rows - y - r * np.sin(at)) ** 2
            image += 1.2 * np.exp(-r / scale) * np.exp(-spot / (2 * 1.5**2))
    image = ndimage.gaussian_filter(image * (radius < 32), 1.0)
    return flux * image / image.sum()


def observe(scene, noise=1.0, seed=0):
    data = scene + np.random.default_rng(seed).normal(0, noise, (1, *scene.shape))
    return Observation(data, variance=np.full(data.shape, noise**2))


def found_at(observation, truth, reach=2.5, **options):
    """For each true place, whether a source was found there; and the number of sources."""
    positions = Detector(**options)(observation).positions
    distance = np.hypot(*(positions[:, None] - np.array(truth, float)[None]).transpose(2, 0, 1))
    return (distance.min(axis=0) < reach).tolist(), len(positions)


@pytest.mark.parametrize("turn", [0.0, 0.7, 1.9])
def test_a_spiral_with_knots_is_one_source(turn):
    observation = observe(spiral(turn=turn))
    assert len(Detector(merge=0)(observation).positions) > 4
    positions = Detector()(observation).positions
    assert len(positions) == 1
    assert np.hypot(*(positions[0] - 64)) < 0.7  # its nucleus, not a knot


def test_a_galaxy_behind_a_spiral_is_found_and_the_spiral_stays_whole():
    scene = spiral() + galaxy(4e4, 98, 74, scale=2.5)
    assert found_at(observe(scene), [(64, 64), (98, 74)]) == ([True, True], 2)


@pytest.mark.parametrize(("flux", "apart"), [(30000, 12), (30000, 20), (10000, 14), (3000, 16)])
def test_neighbours_of_equal_to_a_tenth_of_the_flux_stay_two(flux, apart):
    scene = galaxy(30000, 50, 64) + galaxy(flux, 50 + apart, 64)
    assert found_at(observe(scene), [(50, 64), (50 + apart, 64)]) == ([True, True], 2)


def test_a_star_on_a_disk_stays_apart():
    scene = galaxy(2e5, 64, 64, scale=8.0) + star(1e4, 78, 70)
    assert found_at(observe(scene), [(64, 64), (78, 70)]) == ([True, True], 2)


def test_a_chain_of_galaxies_stays_a_chain():
    places = [(24 + 16 * i, 64) for i in range(6)]
    scene = sum(galaxy(20000, x, y, scale=2.5) for x, y in places)
    assert found_at(observe(scene), places) == ([True] * 6, 6)


def test_a_faint_companion_of_a_bright_galaxy_is_found():
    scene = galaxy(1e5, 50, 64, scale=4.0) + galaxy(2000, 80, 64, scale=2.0)
    assert found_at(observe(scene), [(50, 64), (80, 64)]) == ([True, True], 2)


def test_more_merging_joins_more_and_never_splits():
    scene = spiral() + galaxy(4e4, 98, 74, scale=2.5)
    numbers = [len(Detector(merge=m)(observe(scene)).positions) for m in (0, MERGE / 10, MERGE, 100.0, 1e9)]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > numbers[2] == 2
    assert numbers[-1] == 1


def test_without_merging_the_segments_are_those_of_photutils():
    from photutils.segmentation import deblend_sources, detect_sources

    found = Detector(merge=0, grow=0)(observe(spiral()))
    above = np.where(found.image > 1.5, found.image, 0.0)
    segments = deblend_sources(
        found.image, detect_sources(above, 0.0, 5), 5, n_levels=32, contrast=0.005, progress_bar=False
    )
    assert np.array_equal(found.labels, segments.data)


def test_given_positions_are_not_joined():
    positions = Detector(merge=0)(observe(spiral())).positions
    assert len(Detector()(observe(spiral()), positions).positions) == len(positions) > 4


def test_labels_are_consecutive_and_hold_their_positions():
    found = Detector()(observe(spiral(x=45) + galaxy(3e4, 95, 70) + star(2e4, 100, 110)))
    assert set(np.unique(found.labels)) == set(range(len(found.positions) + 1))
    for i, ((x, y), (rows, columns)) in enumerate(zip(found.positions, found.extents, strict=True)):
        assert found.labels[round(y), round(x)] == i + 1
        own = np.argwhere(found.labels == i + 1)
        assert (own.min(axis=0) == (rows.start, columns.start)).all()
        assert (own.max(axis=0) + 1 == (rows.stop, columns.stop)).all()


def test_the_unit_of_flux_does_not_matter():
    observation = observe(spiral() + galaxy(4e4, 98, 74, scale=2.5))
    scaled = observation.replace(data=observation.data * 2.0**-40, variance=observation.variance * 2.0**-80)
    one, other = Detector()(observation), Detector()(scaled)
    assert np.array_equal(one.labels, other.labels)
    assert np.allclose(one.positions, other.positions, atol=1e-9)


def test_merging_moves_with_the_image():
    rng = np.random.default_rng(5)
    image = ndimage.gaussian_filter(rng.normal(size=(40, 50)), 2) + 1
    labels = ndimage.label(image > 1.02)[0] + 0
    split = np.where(labels > 0, labels * 2 - (np.arange(50) % 16 < 8), 0)
    joined = merge_clumps(image, split, 0.05)
    assert 0 < joined.max() < len(np.unique(split)) - 1
    shifted = merge_clumps(np.pad(image, ((7, 60), (9, 70))), np.pad(split, ((7, 60), (9, 70))), 0.05)
    # Beyond the old border there now is empty sky, so only segments whose opposite places were inside can be compared.
    again = merge_clumps(np.pad(image, ((20, 47), (30, 49))), np.pad(split, ((20, 47), (30, 49))), 0.05)
    assert np.array_equal(shifted[7:47, 9:59], again[20:60, 30:80])


def test_inputs_are_left_alone():
    found = Detector(merge=0, grow=0)(observe(spiral()))
    image, labels = found.image.copy(), found.labels.copy()
    merge_clumps(image, labels, MERGE)
    assert np.array_equal(image, found.image)
    assert np.array_equal(labels, found.labels)


def test_nothing_to_merge():
    assert not merge_clumps(np.zeros((5, 6)), np.zeros((5, 6), np.int32), MERGE).any()
    one = np.zeros((5, 6), np.int32)
    one[2, 2:4] = 1
    assert np.array_equal(merge_clumps(np.ones((5, 6)), one, MERGE), one)


@pytest.mark.parametrize("value", [-0.1, np.nan, "much", True])
def test_a_bad_merge_is_named(value):
    with pytest.raises(InputError, match=f"merge={value!r} must be"):
        Detector(merge=value)


def test_correlated_noise_is_not_a_field_of_sources():
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(0, 1, (1, 200, 200)), (0, 1.2, 1.2))
    assert len(Detector()(Observation(noise)).positions) <= 2
    scene = noise[0] + galaxy(400, 90, 100, scale=3.0, shape=(200, 200))
    positions = Detector()(Observation(scene[None])).positions
    assert np.hypot(*(positions - (90, 100)).T).min() < 1


def test_a_sky_of_mostly_one_level_is_not_a_field_of_sources():
    # An 8-bit picture, most of whose sky is black.
    sky = np.random.default_rng(4).normal(-0.5, 1, (3, 150, 150)) + galaxy(4000, 70, 80, shape=(150, 150))
    picture = np.clip(np.round(sky), 0, 255)
    positions = Detector()(Observation(picture)).positions
    assert len(positions) <= 8
    assert np.hypot(*(positions - (70, 80)).T).min() < 1


@pytest.mark.data
def test_most_real_spirals_are_whole(data_dir):
    from astrogan.train.sources import StampTar

    # The first with clear arms and no star or neighbour on their disk, chosen by eye before any detection.
    names = """
        141652 144958 145016 150683 151180 155393 158548 158950 160613 161407 164005 169505 176920 178451 179054
        179068 179339 179502 179751 180881 181174 181286
    """
    names = set(names.split())
    with open(data_dir / "galaxyzoo_kaggle" / "labels.csv") as stream:
        labels = {row["galaxy_id"]: row["label"] for row in csv.DictReader(stream)}
    stamps = StampTar(data_dir / "galaxyzoo_kaggle" / "images.tar", size=212)
    chosen = [i for i in range(len(stamps)) if stamps.name(i) in names]
    assert {labels[name] for name in names} == {"spiral"}
    assert len(chosen) == len(names)
    images = [Observation(stamps.load(i).data.sum(axis=0, keepdims=True)) for i in chosen]
    assert sum(_parts_of_the_central_galaxy(Detector(grow=0)(image)) > 1 for image in images) <= 0.1 * len(images)
    assert any(_parts_of_the_central_galaxy(Detector(merge=0, grow=0)(image)) > 1 for image in images[:5])


def _parts_of_the_central_galaxy(found, radius=0.15):
    """Sources near the centre whose segments connect to the central one's."""
    size = len(found.labels)
    footprint, _ = ndimage.label(found.labels > 0, np.ones((3, 3)))
    x, y = np.floor(found.positions + 0.5).astype(int).T
    distance = np.hypot(*(found.positions - size / 2).T)
    same = footprint[y, x] == footprint[y, x][np.argmin(distance)]
    return np.count_nonzero(same & (distance < radius * size))
