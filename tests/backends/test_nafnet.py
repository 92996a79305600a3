"""The learned restorer as a backend: linear flux, tiles that do not show, what it refuses. The weights are noise."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from astropy.nddata import CCDData, NDData, StdDevUncertainty

from astrogan import Restorer
from astrogan.api import BackendSpec, Observation
from astrogan.backends.gan.nafnet import NAFNet
from astrogan.exceptions import CheckpointError, InputError, PSFError
from astrogan.image.mask import RestorationFlag
from astrogan.image.psf import gaussian_psf, moffat_psf
from astrogan.image.tiling import run_tiled
from astrogan.nn.filters import apply_bank, wiener_bank
from astrogan.nn.nafnet import RestorationNAFNet
from astrogan.testing import check_backend
from astrogan.weights import load_weights, save_weights

RANGES = {"fwhm": [1.0, 10.0], "peak_snr": [1e-6, 1e6]}
SPEC = BackendSpec("restorer", "nafnet", "astrogan.backends.gan.nafnet:NAFNet", requires=("torch",))


def network(bands=1, seed=0):
    """Blocks of a new network add nothing; these do, so that everything that the network has is at work."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = RestorationNAFNet(bands=bands, widths=(8, 16), blocks=(1, 1, 1), balances=(0.1, 10.0), radius=8)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if name.endswith(("weight1", "weight2")):
                    parameter.normal_(0, 0.5)
    return net


def save(folder, name="tiny", bands=1, seed=0, **changes):
    net = network(bands, seed)
    card = {"backend": "nafnet", "role": "restorer", "architecture": net.architecture, "bands": bands}
    path = folder / f"{name}.safetensors"
    save_weights(path, net.state_dict(), card | {"ranges": RANGES} | changes)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights"), "tiny-3", bands=3, seed=2)


def scene(shape=(1, 40, 52), seed=0, sky=0.0, fwhm=3.0):
    """Stars of up to 300 sigma, noise of one."""
    rng = np.random.default_rng(seed)
    bands, height, width = shape
    y, x = np.mgrid[:height, :width]
    data = rng.normal(sky, 1, shape)
    for _ in range(3 + height * width // 1000):
        cy, cx, peak = rng.uniform(0, height), rng.uniform(0, width), 10 ** rng.uniform(0.5, 2.5)
        data += peak * np.exp(-4 * np.log(2) * ((y - cy) ** 2 + (x - cx) ** 2) / fwhm**2)
    return Observation(data, variance=np.ones(shape), psf=np.stack([moffat_psf(fwhm, size=15)] * bands))


def restored(backend, observation):
    return backend(observation, rng=np.random.default_rng(0))


def ccd(observation, factor=1.0, variance=True):
    sigma = StdDevUncertainty(np.sqrt(observation.variance[0]) * factor) if variance else None
    return CCDData(observation.data[0] * factor, unit="adu", uncertainty=sigma)


def close(a, b, part, **keywords):
    np.testing.assert_allclose(a, b, rtol=0, atol=part * np.abs(b).max(), **keywords)


# ---- linear flux -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", [True, False])
def test_the_unit_of_flux_is_no_information(weights, variance):
    restorer, observation = Restorer(NAFNet(weights), psf=3.0), scene()
    reference = restorer(ccd(observation, variance=variance))
    for factor in (1e-3, 1e4):
        scaled = restorer(ccd(observation, factor, variance))
        close(scaled.data / factor, reference.data, 1e-4)
        power = 1 if variance else 2  # what had no uncertainty gets a variance
        close(scaled.uncertainty.array / factor**power, reference.uncertainty.array, 1e-3)


def test_a_constant_sky_is_carried_along(weights):
    observation = scene()
    reference = restored(NAFNet(weights), observation)
    for sky in (-30.0, 5000.0):
        shifted = restored(NAFNet(weights), observation.replace(data=observation.data + np.float32(sky)))
        close(shifted.data - sky, reference.data, 1e-4)
        close(shifted.variance, reference.variance, 1e-3)


def test_the_result_is_the_networks(weights):
    """Step by step: units of the noise above the sky, estimates, network, and back."""
    observation = scene()
    loaded = load_weights(weights)
    net = RestorationNAFNet(**loaded.card["architecture"]).eval()
    net.load_state_dict(loaded.tensors)
    sky = float(np.median(observation.data))
    data = torch.from_numpy(observation.data - np.float32(sky))[None]
    kernel = torch.from_numpy(observation.psf[0].astype(np.float64))
    backend = NAFNet(weights)
    with torch.no_grad():
        estimates = apply_bank(data, wiener_bank(kernel, net.balances, net.radius)[None, None])
        mean, spread = net(data, torch.ones_like(data), torch.full((1, 1), 3.0), estimates)
    result = restored(backend, observation)
    close(result.data, mean[0].numpy() + sky, 2e-3)  # the FWHM of the pixelated kernel is not quite 3
    close(result.variance, spread[0].numpy() ** 2, 2e-2)
    assert result.data.dtype == result.variance.dtype == np.float32
    assert result.flags is None
    assert result.info == {"weights": "tiny", "sha256": loaded.sha256[:12], "out_of_range": 0.0, "calibrated": False}


def test_calibration_scales_the_uncertainty_alone(tmp_path, weights):
    observation = scene((3, 24, 24))
    plain = restored(NAFNet(weights), observation)
    scaled = restored(NAFNet(save(tmp_path, calibration={"scale": 2.0})), observation)
    np.testing.assert_array_equal(scaled.data, plain.data)
    np.testing.assert_allclose(scaled.variance, 4 * plain.variance, rtol=1e-5)
    one = restored(NAFNet(save(tmp_path, "one", bands=3)), observation)
    each = restored(NAFNet(save(tmp_path, "each", bands=3, calibration={"scale": [1.0, 2.0, 3.0]})), observation)
    np.testing.assert_allclose(each.variance, one.variance * np.array([1, 4, 9], np.float32)[:, None, None], rtol=1e-5)


# ---- where it looks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ensemble", [False, True])
def test_tiles_do_not_show(weights, ensemble):
    observation = scene((1, 150, 203), seed=4)
    backend = NAFNet(weights, ensemble=ensemble)
    assert backend.halo_for(observation) < 40
    whole = restored(backend, observation)
    for tile in (96, 70):
        tiled = run_tiled(backend, observation, rng=np.random.default_rng(0), tile=tile, workers=2)
        close(tiled.data, whole.data, 1e-5)
        close(tiled.variance, whole.variance, 1e-5)
        assert tiled.info == whole.info


def test_a_changed_pixel_matters_within_the_halo_alone(weights):
    observation = scene((1, 90, 101))
    backend = NAFNet(weights).for_image(observation)
    data = np.array(observation.data)
    data[0, 40, 50] += 500
    one, other = (restored(backend, o).data[0] for o in (observation, observation.replace(data=data)))
    halo = backend.halo_for(observation)
    far = np.ones(one.shape, bool)
    far[40 - halo : 41 + halo, 50 - halo : 51 + halo] = False
    assert far.any()
    np.testing.assert_allclose(other[far], one[far], rtol=0, atol=2e-3)  # transforms round in proportion to the peak
    assert np.abs(other - one)[~far].max() > 30


def test_bad_pixels_spoil_only_their_surroundings(weights):
    observation = scene((1, 90, 101))
    restorer = Restorer(NAFNet(weights), psf=3.0)
    clean, spoilt, masked = ccd(observation), ccd(observation), ccd(observation)
    spoilt.data[40, 50] = np.nan
    masked.data[40, 50] = 1e30
    masked.mask = np.isnan(spoilt.data)
    results = [restorer(image) for image in (clean, spoilt, masked)]
    np.testing.assert_array_equal(results[1].data, results[2].data)
    far = np.ones(clean.shape, bool)
    far[12:69, 22:79] = False
    close(results[1].data[far], results[0].data[far], 1e-3)  # the medians of the image moved by a rank
    assert np.isfinite(results[1].data).all()
    assert results[1].mask[40, 50]
    assert results[1].flags[40, 50] & RestorationFlag.INVALID


def test_an_ensemble_turns_with_the_image(weights):
    """Eight turned images restored together: turning the whole turns the result, lopsided PSF and all."""
    observation = scene((2, 40, 52))
    kernel = gaussian_psf(3.0, 15) + 0.5 * np.roll(gaussian_psf(2.0, 15), (1, 2), (0, 1))
    observation = observation.replace(psf=np.stack([kernel / kernel.sum()] * 2))
    backend, single = NAFNet(weights, ensemble=True), NAFNet(weights)
    reference, plain = restored(backend, observation), restored(single, observation)
    assert np.abs(restored(single, _turned(observation, 1)).data - np.rot90(plain.data, 1, (1, 2))).max() > 0.1
    for turns, mirror in ((1, False), (2, True), (3, True)):
        other = restored(backend, _turned(observation, turns, mirror))
        for name in ("data", "variance"):
            expected = _turn(getattr(reference, name), turns, mirror)
            close(getattr(other, name), expected, 2e-5)


def _turn(array, turns, mirror=False):
    return np.rot90(array[..., ::-1] if mirror else array, turns, (-2, -1))


def _turned(observation, turns, mirror=False):
    return Observation(*(_turn(getattr(observation, n), turns, mirror) for n in ("data", "valid", "variance", "psf")))


def test_an_ensembles_scatter_is_in_its_variance(weights):
    observation = scene()
    single, several = NAFNet(weights), NAFNet(weights, ensemble=True)
    spread = single.ensemble_spread(observation)
    assert spread.dtype == np.float32
    assert spread.shape == observation.shape
    assert (spread > 0).all()
    np.testing.assert_allclose(several.ensemble_spread(observation), spread)
    total = restored(several, observation).variance
    assert (total >= spread**2 * 0.999).all()
    turned = [
        _turn(restored(single, _turned(observation, k)).data, -k) for k in range(4)
    ]  # four of the eight; the others are mirrored
    assert np.std(turned, axis=0).mean() == pytest.approx(spread.mean(), rel=0.3)


# ---- sizes, bands, PSFs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ensemble", [False, True])
def test_an_empty_image_stays_finite(weights, ensemble):
    """Random weights invent something, but in proportion to the noise."""
    zero = Observation(np.zeros((1, 20, 24)), variance=np.full((1, 20, 24), 1e-20), psf=gaussian_psf(3.0)[None])
    assert np.abs(restored(NAFNet(weights, ensemble=ensemble), zero).data).max() < 1e-8
    flat = NDData(np.full((33, 20), 7.0))
    np.testing.assert_allclose(Restorer(NAFNet(weights), psf=2.0)(flat).data, 7, rtol=1e-5)


def test_any_size_comes_back(weights):
    single, several = NAFNet(weights), NAFNet(weights, ensemble=True)
    for size in range(1, 21):
        for shape in ((1, size, size), (1, size, 21 - size)):
            observation = scene(shape)
            for backend in (single, several):
                result = restored(backend, observation)
                assert result.data.shape == result.variance.shape == shape
                assert np.isfinite(result.data).all()
                assert (result.variance > 0).all()


def test_absurd_values_stay_finite(weights):
    data, variance = np.zeros((1, 30, 30), np.float32), np.full((1, 30, 30), 1e-30)
    data[0, 15, 15], variance[0, 3, 3] = 1e15, 1e30
    result = restored(NAFNet(weights), Observation(data, variance=variance, psf=gaussian_psf(3.0)[None]))
    assert np.isfinite(result.data).all()
    assert np.isfinite(result.variance).all()


def test_bands_are_restored_one_by_one_by_weights_for_one(weights):
    observation = scene((3, 32, 40))
    kernels = np.stack([moffat_psf(fwhm, size=15) for fwhm in (2.0, 3.0, 4.0)])
    observation = observation.replace(psf=kernels, data=observation.data * np.float32([1, 20, 0.1])[:, None, None])
    together = restored(NAFNet(weights), observation)
    for band in range(3):
        part = slice(band, band + 1)
        alone = Observation(observation.data[part], variance=observation.variance[part], psf=kernels[part])
        close(together.data[part], restored(NAFNet(weights), alone).data, 1e-5)


def test_three_bands_together(three):
    observation = scene((3, 32, 40))
    result = restored(NAFNet(three), observation)
    other = np.array(observation.data)
    other[0, 16, 20] += 50
    changed = restored(NAFNet(three).for_image(observation), observation.replace(data=other))
    assert np.abs(changed.data - result.data)[1:].max() > 1e-3, "bands that are restored together see each other"


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_weights_for_other_bands_are_refused(three, bands):
    with pytest.raises(InputError, match=rf"restores 3 bands together; the image has {bands}.*weights='auto'"):
        restored(NAFNet(three), scene((bands, 16, 16)))


def test_bands_of_other_names_or_in_another_order_are_refused(tmp_path):
    backend = NAFNet(save(tmp_path, bands=3, band_names=["i", "r", "g"]))
    observation = scene((3, 16, 16))
    restored(backend, observation.replace(bands=("i", "r", "g")))
    restored(backend, observation.replace(bands=("0", "1", "2")))  # without names: the user says that they are these
    for names in (("g", "r", "i"), ("K", "H", "J")):
        with pytest.raises(InputError, match=rf"bands i, r, g together.*the image has {', '.join(names)}"):
            restored(backend, observation.replace(bands=names))


def test_psfs_in_all_forms(weights):
    image = ccd(scene())
    restorer = Restorer(NAFNet(weights))
    by_width = restorer(image, psf=3.0)
    np.testing.assert_allclose(restorer(image, psf=gaussian_psf(3.0)).data, by_width.data, atol=1e-2)
    bands = restorer({"g": image, "r": image}, psf={"g": 3.0, "r": 5.0})
    close(bands["g"].data, by_width.data, 1e-5)
    assert np.abs(bands["r"].data - by_width.data).max() > 1
    assert np.isfinite(restorer(image, psf=np.ones((1, 1))).data).all()
    with pytest.raises(PSFError, match="psf is missing: nafnet deconvolves"):
        restored(NAFNet(weights), scene().replace(psf=None))


# ---- weights -----------------------------------------------------------------------------------------------------


def test_perceptual_weights_are_interpolated(tmp_path):
    path, observation = save(tmp_path), scene()
    with pytest.raises(InputError, match="tiny-perceptual.*no such file"):
        restored(NAFNet(path, perceptual=0.5), observation)
    save(tmp_path, "tiny-perceptual", seed=9)
    ends = [restored(NAFNet(p), observation).data for p in (path, tmp_path / "tiny-perceptual.safetensors")]
    for share, expected in ((0.0, ends[0]), (1.0, ends[1])):
        np.testing.assert_allclose(restored(NAFNet(path, perceptual=share), observation).data, expected, rtol=1e-5)
    half = restored(NAFNet(str(path), perceptual=0.5), observation)
    assert half.info["perceptual"] == 0.5
    assert min(np.abs(half.data - end).max() for end in ends) > 1e-2


def test_a_folder_holds_weights_and_their_companion_lies_beside(tmp_path):
    path = save(tmp_path)
    assert restored(NAFNet(tmp_path), scene()).info["weights"] == "tiny"
    with pytest.raises(InputError, match="tiny-perceptual"):
        restored(NAFNet(tmp_path, perceptual=0.1), scene())
    assert path.is_file()


def test_automatic_choice_prefers_what_was_trained_on_such_images(tmp_path, monkeypatch):
    from astrogan.weights import store

    monkeypatch.setattr(store, "FILES", tmp_path)
    with pytest.raises(InputError, match="weights='auto' finds none"):
        restored(NAFNet(), scene())
    save(tmp_path, "narrow", ranges={"fwhm": [1.0, 2.0]})
    save(tmp_path, "wide", ranges={"fwhm": [2.0, 9.0]})
    save(tmp_path, "wide-perceptual", ranges={"fwhm": [2.0, 9.0]})
    save(tmp_path, "colour", bands=3, ranges={"fwhm": [3.0, 9.0]})
    # A little beyond its range is no reason to restore the bands one by one.
    nearly = {(2.4, 3): "colour", (1.5, 3): "narrow"}
    chosen = {
        (fwhm, bands): restored(NAFNet(), scene((bands, 24, 24), fwhm=fwhm)).info["weights"]
        for fwhm, bands in ((1.5, 1), (4.0, 1), (4.0, 2), (4.0, 3), (2.4, 3), (1.5, 3))
    }
    assert chosen == {(1.5, 1): "narrow", (4.0, 1): "wide", (4.0, 2): "wide", (4.0, 3): "colour", **nearly}


def test_weights_that_do_not_fit_are_refused(tmp_path):
    net = network()
    with pytest.raises(CheckpointError, match="for the backend 'other-net'"):
        restored(NAFNet(save(tmp_path, "a", backend="other-net", bands=3)), scene())
    wide = net.architecture | {"widths": [8, 24]}
    with pytest.raises(CheckpointError, match="do not fit the card's architecture"):
        restored(NAFNet(save(tmp_path, "b", architecture=wide)), scene())
    with pytest.raises(CheckpointError, match="do not fit the card's architecture"):
        restored(NAFNet(save(tmp_path, "c", architecture={"depth": 3})), scene())
    card = {"backend": "nafnet", "role": "restorer", "architecture": net.architecture, "bands": 2}
    save_weights(tmp_path / "d.safetensors", net.state_dict(), card)
    with pytest.raises(CheckpointError, match="it says 2 bands, the network has 1"):
        restored(NAFNet(tmp_path / "d.safetensors"), scene((2, 16, 16)))
    with pytest.raises(InputError, match="no-such"):
        restored(NAFNet("no-such-weights"), scene())


@pytest.mark.parametrize(
    "options",
    [
        {"perceptual": -0.1},
        {"perceptual": 1.5},
        {"perceptual": True},
        {"perceptual": "half"},
        {"perceptual": None},
        {"perceptual": np.nan},
        {"ensemble": "yes"},
        {"ensemble": 8},
        {"precision": "float16"},
    ],
)
def test_bad_options_are_named(options):
    with pytest.raises(InputError, match=f"{next(iter(options))}="):
        NAFNet(**options)


def test_bfloat16_is_close(weights):
    observation = scene()
    exact = restored(NAFNet(weights), observation).data
    rough = restored(NAFNet(weights, precision="bfloat16"), observation).data
    assert 0 < np.abs(rough - exact).max() < 0.05 * np.abs(exact).max()


# ---- the training's ranges ---------------------------------------------------------------------------------------


def test_how_far_outside_the_training(tmp_path):
    observation = scene()
    peak = float(observation.data.max() - np.median(observation.data))
    backend = NAFNet(save(tmp_path, ranges={"fwhm": [4.0, 8.0], "peak_snr": [1.0, peak / 3], "noise_ratio": [1, 2]}))
    report = backend.range_report(observation)
    assert set(report) == {"fwhm", "peak_snr"}
    assert report["peak_snr"] == (pytest.approx(peak, rel=1e-3), 1.0, peak / 3)
    assert backend.out_of_range(observation) == pytest.approx(np.log(3), rel=1e-3)
    assert restored(backend, observation).info["out_of_range"] == pytest.approx(np.log(3), rel=1e-3)
    flags = backend.pixel_flags(observation)
    assert flags.dtype == np.uint8
    expected = observation.data - np.median(observation.data) > 2 / 3 * peak
    np.testing.assert_array_equal(flags == RestorationFlag.OUT_OF_RANGE, expected)
    assert 0 < expected.sum() < 20
    faint = NAFNet(save(tmp_path, "faint", ranges={"peak_snr": [0.0, peak * 2]}))
    assert faint.out_of_range(observation) == 0
    narrow = NAFNet(save(tmp_path, "narrow", ranges={"fwhm": [6.0, 8.0]}))
    fwhm = narrow.range_report(observation)["fwhm"][0]
    assert fwhm == pytest.approx(3, rel=0.1)
    assert narrow.out_of_range(observation) == pytest.approx(np.log(6 / fwhm))
    assert not narrow.pixel_flags(observation).any()


def test_below_the_sky_counts_as_above_it(tmp_path):
    backend = NAFNet(save(tmp_path, ranges={"peak_snr": [0.0, 10.0]}))
    observation = scene()
    negative = observation.replace(data=-observation.data)
    assert backend.out_of_range(negative) == pytest.approx(backend.out_of_range(observation), rel=1e-3)
    assert backend.out_of_range(negative) > 1


def test_the_unit_is_the_noise_of_the_deepest_part(weights):
    observation = scene((1, 40, 40))
    variance = np.ones(observation.shape)
    variance[..., 18:] = 100  # more than half
    settled = NAFNet(weights).for_image(observation.replace(variance=variance))
    np.testing.assert_array_equal(settled._settled.sigma, [1.0])


def test_invalid_pixels_are_not_measured(tmp_path):
    observation = scene()
    backend = NAFNet(save(tmp_path, ranges={"peak_snr": [1.0, 1e3]}))
    data, valid = np.array(observation.data), np.ones(observation.shape, bool)
    data[0, 5, 5], valid[0, 5, 5] = 1e6, False
    hidden = observation.replace(data=data, valid=valid)
    assert backend.out_of_range(hidden) == 0
    assert not backend.pixel_flags(hidden).any()


# ---- instances ---------------------------------------------------------------------------------------------------


def test_one_instance_in_eight_threads(weights):
    backend = NAFNet(weights)
    observations = [scene(seed=seed, fwhm=2 + 0.3 * seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda o: restored(backend, o), observations))
    for observation, result in zip(observations, threaded, strict=True):
        close(result.data, restored(NAFNet(weights), observation).data, 1e-6)


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_work_before_and_after_use(weights, again):
    image = ccd(scene())
    restorer = Restorer(NAFNet(weights), psf=3.0)
    unused = again(restorer)
    reference = restorer(image).data
    for other in (unused, again(restorer)):
        np.testing.assert_array_equal(other(image).data, reference)
    assert "tiny" in repr(restorer.backend)


def test_what_is_settled_on_an_image_stays(weights):
    observation = scene(sky=5.0)
    settled = NAFNet(weights).for_image(observation)
    assert settled.for_image(scene(sky=100.0)) is settled
    part = observation.crop(slice(0, 8), slice(0, 8))
    assert restored(pickle.loads(pickle.dumps(settled)), part).info == restored(settled, part).info


def test_contract(weights):
    """Random weights do not keep an empty sky to 1e-4; trained ones are held to it where they are."""
    report = check_backend(SPEC, options={"weights": weights}, skip=("zero_image",))
    assert not report.failed
    assert {"scaling", "tiles", "sizes", "reusable_in_threads"} <= set(report.passed)


def test_a_setting_of_tf32_by_the_user_is_left_alone(weights):
    """Torch refuses to mix its two ways of setting it; on the CPU nothing is set at all."""
    before = torch.backends.fp32_precision
    torch.backends.fp32_precision = "tf32"
    try:
        restored(NAFNet(weights), scene())
        assert torch.backends.fp32_precision == "tf32"
    finally:
        torch.backends.fp32_precision = before


def test_a_run_directory_of_one_name_is_a_path(weights, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(weights.parent)
    result = restored(NAFNet(Path(weights.name)), scene())
    assert result.info["weights"] == weights.stem
