"""Lin et al. (2021) as a backend: both directions, bands, units, and what it refuses. The weights are noise."""

import pickle

import numpy as np
import pytest
import torch
from astropy.nddata import CCDData

from astrogan import Translator
from astrogan.api import Observation, Target
from astrogan.backends.gan.lin2020 import Lin2020
from astrogan.exceptions import InputError
from astrogan.nn.lin2020 import Lin2020Translator
from astrogan.operators.translator import TargetSpec
from astrogan.weights import save_weights

EDGES, SCALES = {"x": 64, "y": 136}, {"x": 0.396, "y": 0.187}
BANDS = ["u", "g", "r", "i", "z"]


def saved(folder, name="tiny", **options):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Lin2020Translator(**{"width": 2} | options)
    ranges = {"peak_x": [0.0, 30.0], "peak_y": [0.0, 5.0]}
    ranges |= {f"noise_x_{b}": [0.02, 0.2] for b in range(5)} | {f"noise_y_{b}": [0.001, 0.004] for b in range(5)}
    card = {
        "name": name,
        "backend": "lin2020",
        "role": "translator",
        "architecture": net.architecture,
        "bands": 5,
        "band_names": BANDS,
        "ranges": ranges,
    }
    path = folder / f"{name}.safetensors"
    save_weights(path, {key: value.contiguous() for key, value in net.state_dict().items()}, card)
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("weights"))


def observation(survey="x", bands=BANDS, noise=None, **changes):
    edge, scale = EDGES[survey], SCALES[survey]
    noise = {"x": 0.05, "y": 0.002}[survey] if noise is None else noise
    y, x = (np.mgrid[:edge, :edge] - (edge - 1) / 2) * scale
    galaxy = np.exp(-np.hypot(x, 1.5 * y) / 1.5) * scale**2
    data = galaxy * np.arange(1, 6)[:, None, None]
    data = data + np.random.default_rng(0).normal(0, noise, data.shape)
    return Observation(data, **{"pixel_scale": scale, "bands": bands} | changes)


def target(survey="y", turn=((1, 0), (0, 1)), shift=0.0, **changes):
    """A grid with the centre and the axes of an observation of the other survey, but for ``turn`` and ``shift``."""
    other = "xy"[survey == "x"]
    size, factor = EDGES[survey], SCALES[survey] / SCALES[other]
    middle, centre = (size - 1) / 2, (EDGES[other] - 1) / 2

    def to_input(x, y):
        at = np.stack([np.asarray(x, float) - middle, np.asarray(y, float) - middle])
        return tuple(np.tensordot(np.array(turn, float), at, 1) * factor + centre + shift)

    return Target(
        **{
            "shape": (size, size),
            "to_input": to_input,
            "to_output": None,
            "area_ratio": factor**2,
            "pixel_scale": SCALES[survey],
        }
        | changes
    )


def rng(seed=0):
    return np.random.default_rng(seed)


# ---- what it gives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["x_to_y", "y_to_x"])
def test_stamps_are_what_the_networks_make_of_them(weights, direction):
    of, to = direction[0], direction[-1]
    backend, seen = Lin2020(weights, noise=False), observation(of)
    before = seen.data.copy()
    estimate = backend(seen, target(to), rng=rng())
    assert estimate.data.shape == (5, EDGES[to], EDGES[to])
    assert estimate.data.dtype == np.float32
    assert estimate.variance is None
    assert not estimate.flags.any()
    assert estimate.info["direction"] == direction
    assert (estimate.info["weights"], len(estimate.info["sha256"])) == ("tiny", 12)
    assert estimate.info["out_of_range"] == 0
    net, _ = backend._network.get()
    with torch.inference_mode():
        wanted = net.translated(torch.from_numpy(before)[None], direction, noise=False)[0]
    np.testing.assert_allclose(estimate.data, wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(seen.data, before)


def test_noise_follows_from_the_generator(weights):
    backend = Lin2020(weights)
    first, again, other = (backend(observation(), target(), rng=rng(seed)).data for seed in (1, 1, 2))
    smooth = Lin2020(weights, noise=False)(observation(), target(), rng=rng(1)).data
    np.testing.assert_array_equal(first, again)
    assert (first - smooth).std() > 1e-3
    assert np.corrcoef((first - smooth).ravel(), (other - smooth).ravel())[0, 1] < 0.5
    state = torch.get_rng_state()
    backend(observation(), target(), rng=rng())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("names", [BANDS, ["U", "G", "R", "I", "Z"], [f"{band}.MP9301" for band in BANDS]])
def test_bands_may_come_in_any_order(weights, names):
    backend, seen = Lin2020(weights), observation()
    straight = backend(seen, target(), rng=rng()).data
    order = [3, 0, 4, 1, 2]
    turned = seen.replace(data=seen.data[order], valid=None, bands=tuple(names[i] for i in order))
    np.testing.assert_array_equal(backend(turned, target(), rng=rng()).data, straight[order])


def test_bands_without_names_are_taken_as_they_come(weights):
    backend = Lin2020(weights)
    named = backend(observation(), target(), rng=rng()).data
    np.testing.assert_array_equal(backend(observation(bands=None), target(), rng=rng()).data, named)


def test_units_are_turned_into_nanomaggies_and_back(weights):
    straight = Lin2020(weights)(observation(), target(), rng=rng()).data
    units = np.array([10.0, 20.0, 5.0, 1.0, 2.0])
    seen = observation()
    for given, factor in ((units, units[:, None, None]), (1e-3, 1e-3)):
        counts = seen.replace(data=seen.data / factor)
        made = Lin2020(weights, nanomaggies=given)(counts, target(), rng=rng()).data
        np.testing.assert_allclose(made * factor, straight, rtol=2e-4, atol=1e-6)


def test_bright_and_quiet_stamps_are_out_of_range(weights):
    seen = observation()
    bright = seen.replace(data=seen.data + 300 * (seen.data > 0.9 * seen.data.max()))
    info = Lin2020(weights)(bright, target(), rng=rng()).info
    assert info["out_of_range"] == pytest.approx(np.log(300 / 30), abs=0.02)
    quiet = Lin2020(weights)(observation(noise=0.002), target(), rng=rng()).info
    assert quiet["out_of_range"] == pytest.approx(np.log(0.02 / 0.002), abs=0.1)
    assert Lin2020(weights)(seen.replace(data=0 * seen.data), target(), rng=rng()).info["out_of_range"] == 0


def test_what_invalid_pixels_touch_is_flagged(weights):
    valid = np.ones((5, 64, 64), bool)
    valid[2, 10, 50] = False
    flags = Lin2020(weights)(observation(valid=valid), target(), rng=rng()).flags
    assert not flags[[0, 1, 3, 4]].any()
    rows, columns = np.nonzero(flags[2])
    middle = (np.array([10, 50]) - 31.5) * SCALES["x"] / SCALES["y"] + 67.5
    assert abs(np.array([rows.mean(), columns.mean()]) - middle).max() < 1
    assert 5 < np.ptp(rows) < 12


@pytest.mark.parametrize("options", [{"upsampling": "pixelshuffle"}, {"generators": "augcgan", "noise": False}])
def test_weights_of_variants_work_alike(tmp_path, options):
    backend = Lin2020(saved(tmp_path, **options))
    for of, to in ("xy", "yx"):
        made = [backend(observation(of), target(to), rng=rng(seed)).data for seed in (0, 0, 1)]
        assert made[0].shape == (5, EDGES[to], EDGES[to])
        np.testing.assert_array_equal(made[0], made[1])
        assert not np.array_equal(made[0], made[2])


def test_a_copy_reads_its_weights_again(weights):
    backend = Lin2020(weights)
    wanted = backend(observation(), target(), rng=rng()).data
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(backend))(observation(), target(), rng=rng()).data, wanted)
    assert repr(backend) == f"Lin2020(weights={weights!r}, noise=True)"


def test_through_the_operator(weights):
    seen = observation("y")
    images = {band: CCDData(plane, unit="nmgy") for band, plane in zip(BANDS, seen.data, strict=True)}
    translate = Translator(Lin2020(weights), target=TargetSpec(pixel_scale=0.396, shape=(64, 64)))
    made = translate(images, pixel_scale=0.187, rng=1)
    assert list(made) == BANDS
    assert made["r"].shape == (64, 64)
    assert made["r"].unit == "nmgy"
    samples = translate(images, pixel_scale=0.187, n_samples=2, rng=1)
    assert not np.array_equal(samples[0]["r"].data, samples[1]["r"].data)
    with pytest.raises(InputError, match="target has 65 x 65 pixels.*pixel_scale=0.396, shape=\\(64, 64\\)"):
        Translator(Lin2020(weights), target="sdss")(images, pixel_scale=0.187)


# ---- what it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "wanted", "message"),
    [
        ({"shape": 65}, {}, "image has 65 x 65 pixels; lin2020 takes stamps of 64 x 64"),
        ({}, {"shape": (64, 64)}, "target has 64 x 64 pixels; lin2020 makes 136 x 136 of 64 x 64"),
        ({"pixel_scale": 0.2}, {}, "image has a pixel scale of 0.2 arcsec; lin2020 knows 0.396"),
        ({}, {"pixel_scale": 0.2}, "target has a pixel scale of 0.2 arcsec; lin2020 knows 0.187"),
        ({}, {"shift": 3.0}, "target: its centre is 3 pixels off"),
        ({}, {"turn": ((0, -1), (1, 0))}, "axes are turned or mirrored"),
        ({}, {"turn": ((-1, 0), (0, 1))}, "axes are turned or mirrored"),
        ({"bands": ["g", "r", "i", "z", "y"]}, {}, "without u; lin2020 needs u, g, r, i, z"),
        ({"bands": ["u", "g", "r", "r", "z"]}, {}, "without i"),
        ({"noise": 20.0}, {}, "sky of band u scatters by .* Give nanomaggies="),
    ],
)
def test_other_images_are_refused(weights, seen, wanted, message):
    given = observation(**{key: value for key, value in seen.items() if key != "shape"})
    if "shape" in seen:
        given = Observation(np.zeros((5, seen["shape"], seen["shape"])), pixel_scale=0.396, bands=BANDS)
    with pytest.raises(InputError, match=message):
        Lin2020(weights)(given, target(**wanted), rng=rng())


def test_fewer_bands_are_refused(weights):
    seen = observation()
    for bands in (("u", "g", "r"), ("0", "1", "2")):
        few = Observation(seen.data[:3], pixel_scale=0.396, bands=bands)
        with pytest.raises(InputError, match="lin2020 needs u, g, r, i, z"):
            Lin2020(weights)(few, target(), rng=rng())


@pytest.mark.parametrize("nanomaggies", [0.0, -1.0, np.nan, "1", [1.0, 0.0], [[1.0]], None, True])
def test_units_that_cannot_be_are_refused(nanomaggies):
    with pytest.raises(InputError, match="nanomaggies="):
        Lin2020(nanomaggies=nanomaggies)


def test_other_options_are_checked(weights, tmp_path):
    with pytest.raises(InputError, match="noise='no'"):
        Lin2020(weights, noise="no")
    with pytest.raises(InputError, match=r"nanomaggies=\[1.0, 1.0\] has 2 values"):
        Lin2020(weights, nanomaggies=[1.0, 1.0])(observation(), target(), rng=rng())
    with pytest.raises(InputError, match="no-such-weights"):
        Lin2020("no-such-weights")(observation(), target(), rng=rng())
    foreign = tmp_path / "foreign.safetensors"
    card = {"name": "foreign", "backend": "nafnet", "role": "restorer", "architecture": {"width": 2}}
    save_weights(foreign, {"weight": torch.zeros(1)}, card)
    with pytest.raises(InputError, match="are for the backend 'nafnet'"):
        Lin2020(foreign)(observation(), target(), rng=rng())
