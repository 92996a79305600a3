"""The deblender after Usaid et al. (2019): its pictures, the way back, and the contract."""

import numpy as np
import pytest
import torch

from astrogan.api import BackendSpec, Observation
from astrogan.backends.gan.usaid2019 import Usaid2019, _Scene
from astrogan.exceptions import InputError
from astrogan.nn.dcgan import CompletionGAN
from astrogan.operators.deblender import Deblender
from astrogan.testing import check_backend
from astrogan.weights import save_weights

SPEC = BackendSpec(
    role="deblender",
    name="usaid2019",
    target="astrogan.backends.gan.usaid2019:Usaid2019",
    requires=("torch",),
    summary="three bands: a GAN completes what others hide",
    citation="Usaid, Ahmed & Jamal 2019",
)


def save(folder, name, **architecture):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        gan = CompletionGAN(**architecture)
        for layer in gan.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # statistics that fit the weights after a few batches
        with torch.no_grad():
            gan.generator.layers[-2].weight *= 10  # pictures with contrast
            for _ in range(3):
                gan.generator(torch.randn(8, gan.generator.latent))
                if gan.encoder is not None:
                    gan.encoder(torch.rand(8, 3, 64, 64) - 1, torch.ones(8, 1, 64, 64))
    card = {"name": name, "backend": "usaid2019", "role": "deblender", "architecture": gan.architecture, "bands": 3}
    path = folder / f"{name}.safetensors"
    save_weights(path, gan.state_dict(), card)
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights"), "small", width=8, latent=10, encoder=8)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights"), "published", width=8, latent=10)


def galaxies(places, shape=(60, 70), *, noise=1.0, bands=3, seed=0, widths=(3.0, 4.0), names=None):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    data = rng.normal(0, noise, (bands, *shape))
    for k, (px, py) in enumerate(places):
        light = np.exp(-0.5 * ((x - px) ** 2 + (y - py) ** 2) / widths[k % 2] ** 2)
        data += np.multiply.outer(np.linspace(1, 0.4, bands) * (150 - 40 * (k % 2)), light)
    return Observation(data, np.ones(data.shape, bool), np.full(data.shape, noise**2), None, bands=names)


PLACES = np.array([[25.3, 28.6], [36.0, 30.0]])  # in the order of the rows, as in a blend


@pytest.mark.parametrize("options", [{}, {"keep_known": True}])
def test_contract(weights, options):
    assert check_backend(SPEC, options={"weights": weights, "device": "cpu"} | options).skipped == {}


def test_contract_without_an_encoder(published):
    check_backend(SPEC, options={"weights": published, "completion": "inversion", "steps": 1, "device": "cpu"})


def with_generator(weights, make):
    """A backend whose generator makes ``make(picture)``: the way there and back, without a network."""
    backend = Usaid2019(weights, device="cpu")
    backend._completed = lambda pictures, rng: [make(picture) for picture in pictures]
    return backend


@pytest.mark.parametrize("width", [2.5, 9.0])
def test_a_generator_that_copies_a_lone_galaxy_gives_it_back(weights, width):
    """Picture and back, for windows smaller and larger than 64 pixels: resampling and stretches cancel."""
    observation = galaxies([(79.4, 70.7)], (150, 160), noise=0.1, widths=(width, width))
    copied = with_generator(weights, lambda picture: picture.levels)
    (template,) = copied(observation, np.array([[79.4, 70.7]])).templates
    (y, x), (_, h, w) = template.origin, template.data.shape
    image = observation.data[:, y : y + h, x : x + w]
    assert np.abs(template.data - image).max() < 0.06 * image.max()
    np.testing.assert_allclose(template.data.sum((1, 2)), image.sum((1, 2)), rtol=0.03)


def scene(observation, positions=PLACES, **options):
    from astrogan.image.blends import group_blends

    found = Usaid2019("x", **options)._detect(observation, positions)
    blends = group_blends(observation, positions, found.labels, Usaid2019.margin)
    return blends, [_Scene.of(blend, np.arange(3)) for blend, _, _ in blends]


def test_pictures_look_like_the_stamps_of_the_training():
    _, (both,) = scene(galaxies(PLACES))
    for i in range(2):
        picture = both.picture(i)
        middle = picture.levels[:, 28:36, 28:36]
        # The brightest known pixel near the middle is a typical galaxy's peak; the sky is dark.
        assert 0.77 < middle.max() < 0.83
        corners = picture.levels[:, :6, :6]
        assert abs(np.median(corners)) < 0.06
        assert np.all(picture.levels[:, ~picture.mask] == 0)


def test_what_others_have_is_hidden():
    _, (both,) = scene(galaxies(PLACES))
    left, right = both.picture(0), both.picture(1)
    assert left.mask[:, :28].mean() > 0.95
    assert right.mask[:, 36:].mean() > 0.95
    assert left.mask[28:36, 44:50].mean() < 0.5
    assert right.mask[28:36, 14:20].mean() < 0.5


def test_masked_pixels_and_the_outside_of_the_image_are_hidden_and_the_sky_is_not():
    observation = galaxies([(3.0, 30.0)], widths=(3.0, 3.0))
    valid = observation.valid.copy()
    valid[1, 27:30, 5:8] = False
    _, (one,) = scene(observation.replace(valid=valid), np.array([[3.0, 30.0]]))
    picture = one.picture(0)
    pixels = 1 / picture.pixels
    beyond = int(31.5 - 4.5 * pixels)
    assert not picture.mask[:, :beyond].any()
    assert picture.mask[:10, 40:].all()
    assert not picture.mask[round(31.5 - 2 * pixels), round(31.5 + 3 * pixels)]


def test_window_follows_the_size_of_the_source():
    sizes = []
    for width in (3.0, 6.0):
        observation = galaxies([(60.0, 60.0)], (121, 121), noise=0.1, widths=(width, width))
        _, (one,) = scene(observation, np.array([[60.0, 60.0]]))
        sizes.append(one.picture(0).pixels)
    assert 1.7 < sizes[1] / sizes[0] < 2.1


def test_number_and_order_of_the_sources_do_not_matter(weights):
    places = np.array([[12.0, 14.0], [20.0, 15.0], [14.0, 23.0], [50.0, 40.0], [66.5, 57.5]])
    observation = galaxies(places)
    backend = Usaid2019(weights, device="cpu")
    one = backend(observation, places)
    order = np.array([3, 0, 4, 2, 1])
    other = backend(observation, places[order])
    assert len(one.templates) == 5
    for j, i in enumerate(order):
        assert other.templates[j].origin == one.templates[i].origin
        np.testing.assert_array_equal(other.templates[j].data, one.templates[i].data)
    assert one.info["weights"] == "small"


def test_flux_is_conserved_and_sources_are_detected(weights):
    from astropy.nddata import CCDData

    image = CCDData(galaxies(PLACES).data, unit="adu")
    result = Deblender(Usaid2019(weights, device="cpu"))(image)
    assert len(result.sources) == 2
    np.testing.assert_allclose(result.recompose().data, image.data, atol=1e-3)


def test_named_bands_are_sorted_by_wavelength_and_come_back_in_their_order(weights):
    backend = Usaid2019(weights, device="cpu")
    red_first = galaxies(PLACES, names=("i", "r", "g"))
    blue_first = red_first.replace(data=red_first.data[::-1], variance=red_first.variance[::-1], bands=("g", "r", "i"))
    one, other = backend(red_first, PLACES), backend(blue_first, PLACES)
    for a, b in zip(one.templates, other.templates, strict=True):
        np.testing.assert_allclose(a.data, b.data[::-1], rtol=1e-5, atol=1e-5)


def test_a_source_without_light_or_pixels_has_a_template_all_the_same(weights):
    observation = galaxies(PLACES[:1])
    dark = np.array([[60.0, 10.0]])
    negative = observation.replace(data=observation.data - 5)
    (template,) = Usaid2019(weights, device="cpu")(negative, dark).templates
    assert np.isfinite(template.data).all()
    assert (template.data >= 0).all()
    crowded = np.array([[25.3, 28.6], [25.4, 28.6], [25.3, 28.7]])
    assert len(Usaid2019(weights, device="cpu")(observation, crowded).templates) == 3


def test_nothing_to_separate(weights):
    empty = galaxies([])
    assert Usaid2019(weights, device="cpu")(empty, np.empty((0, 2))).templates == ()


def test_inversion_starts_from_the_encoder_where_there_is_one(weights):
    observation = galaxies(PLACES)
    options = {"completion": "inversion", "steps": 2, "device": "cpu"}
    runs = [Usaid2019(weights, **options)(observation, PLACES, rng=np.random.default_rng(k)) for k in (1, 2)]
    encoded = Usaid2019(weights, device="cpu")(observation, PLACES)
    for one, other, start in zip(runs[0].templates, runs[1].templates, encoded.templates, strict=True):
        np.testing.assert_array_equal(one.data, other.data)
        assert not np.array_equal(one.data, start.data)


def test_inversion_follows_the_seed_where_there_is_no_encoder(published):
    backend = Usaid2019(published, completion="inversion", steps=2, device="cpu")
    observation = galaxies(PLACES)
    runs = [backend(observation, PLACES, rng=np.random.default_rng(seed)).templates[0].data for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_faults_are_named(weights, published, tmp_path):
    observation = galaxies(PLACES, bands=2)
    with pytest.raises(InputError, match="2 bands; usaid2019 works on colour pictures of three.*hybrid"):
        Usaid2019(weights, device="cpu")(observation, PLACES)
    with pytest.raises(InputError, match="no encoder; give completion='inversion'"):
        Usaid2019(published, device="cpu")(galaxies(PLACES), PLACES)
    with pytest.raises(InputError, match="completion='magic'"):
        Usaid2019(weights, completion="magic")
    with pytest.raises(InputError, match="steps=0"):
        Usaid2019(weights, steps=0)
    with pytest.raises(InputError, match="keep_known"):
        Usaid2019(weights, keep_known="yes")
    with pytest.raises(InputError, match="weights=3"):
        Usaid2019(3)
    other = tmp_path / "other.safetensors"
    card = {"name": "other", "backend": "nafnet", "role": "restorer", "architecture": {}}
    save_weights(other, {"a": torch.ones(1)}, card)
    with pytest.raises(InputError, match="for the backend 'nafnet'"):
        Usaid2019(str(other), device="cpu")(galaxies(PLACES), PLACES)
