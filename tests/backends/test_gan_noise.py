"""Noise learned by contest: the closed-form start, the training, weights."""

import pickle

import numpy as np
import pytest
import torch

from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.backends.gan import _noise_contest
from astrogan.backends.gan._noise_contest import Contest, Sky
from astrogan.backends.gan.gan_noise import GANNoise
from astrogan.bench.noise import known_noise
from astrogan.exceptions import CheckpointError, InputError

SHAPE = (5, 64, 64)


def draws(model, number, seed, shape=SHAPE):
    rng = np.random.default_rng(seed)
    return np.stack([model.sample(shape, rng=rng) for _ in range(number)])


@pytest.fixture(scope="module")
def sky():
    return draws(known_noise(), 120, 0)


@pytest.fixture(scope="module")
def start(sky):
    return GANNoise.fit(sky, steps=0)


def test_start_is_the_closed_form(sky, start):
    closed = CorrelatedNoise.fit(sky)
    # Both measure alike; the network's kernel is made symmetric, and its amplitude is a fit to the law.
    np.testing.assert_allclose(start.kernel, closed.kernel, atol=0.02)
    np.testing.assert_allclose(start.sigma, closed.sigma, rtol=0.02)
    np.testing.assert_allclose(start.band_correlation, closed.band_correlation, atol=0.01)
    drawn = np.log([start.draw_sigma(5, rng) for rng in map(np.random.default_rng, range(1500))])
    np.testing.assert_allclose(drawn.std(axis=0), closed.amplitudes.scatter, rtol=0.1)
    np.testing.assert_allclose(np.corrcoef(drawn.T), closed.amplitudes.correlation, atol=0.07)


def test_training_finds_its_way_back(sky, monkeypatch):
    """From a kernel whose neighbours are twice too small, the contest leads towards the noise that was seen."""
    monkeypatch.setattr(_noise_contest, "_RATES", (5e-3, 1e-5, 2e-3))
    monkeypatch.setattr(_noise_contest, "_AVERAGE", 0.8)
    noise = GANNoise.fit(sky, steps=0)
    truth = noise.net.symmetric_kernel().detach()
    with torch.no_grad():
        noise.net.kernel.mul_(0.5)[:, :, 3, 3] *= 2
    rng = np.random.default_rng(0)
    before = noise.net.symmetric_kernel().detach()
    noise._train(_batches(sky, noise, rng), 40, 4, False, rng, "cpu", None)
    after = noise.net.symmetric_kernel().detach()
    progress = ((after - before)[:, :, 3, 4] / (truth - before)[:, :, 3, 4]).mean()
    assert 0.3 < float(progress) < 1.4
    assert len(noise.history) == 40


def _batches(sky, noise, rng):
    from astrogan.backends.classic._noise_fit import measure

    return Sky(measure(sky), noise.scale, 8, rng)


def test_training_from_the_closed_form_stays_near(sky, start):
    trained = GANNoise.fit(sky, steps=12, batch=8, width=4)
    assert not np.array_equal(trained.kernel, start.kernel)
    np.testing.assert_allclose(trained.autocorrelation(3), start.autocorrelation(3), atol=0.02)
    np.testing.assert_allclose(trained.sigma, start.sigma, rtol=0.03)


def test_same_seed_same_network_and_global_state_untouched(sky):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    nets = [GANNoise.fit(sky[:20], steps=2, batch=2, width=2, rng=3).net for _ in range(2)]
    assert torch.equal(before, torch.random.get_rng_state())
    for one, two in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one, two)


def test_masked_pixels_are_zero_on_both_sides(sky):
    mask = np.zeros(sky.shape, bool)
    mask[:, :, 20:40, 20:40] = True
    hit = np.where(mask, 1e4, sky)
    from astrogan.backends.classic._noise_fit import measure

    rng = np.random.default_rng(0)
    noise = GANNoise.fit(hit, mask, steps=0)
    real, good = Sky(measure(hit, mask), noise.scale, 4, rng).batch()
    assert np.abs(real).max() < 20
    contest = Contest(noise.net, [np.eye(5)] * 2, 2, False, rng, torch.device("cpu"), 1)
    made = contest._made(torch.as_tensor(real), torch.as_tensor(good)).detach().numpy()
    assert (made[good == 0] == 0).all()
    assert (real[good == 0] == 0).all()


def test_published_training_has_its_networks():
    sky = draws(CorrelatedNoise(sigma=[1, 2]), 6, 0, (2, 40, 40))
    noise = GANNoise.fit(sky, steps=1, batch=2, width=2, published=True)
    assert noise.band_correlation is None
    assert np.array_equal(noise.deviate_correlation, np.eye(2))
    assert noise.scale[0] == noise.scale[1]
    assert np.isfinite(draws(noise, 1, 1, (2, 20, 20))).all()


def test_weights_round_trip(tmp_path, sky):
    light = np.broadcast_to(np.linspace(0, 1, 64), sky.shape)
    noise = GANNoise.fit(sky + light, signal=light, steps=1, batch=2, width=2)
    path = tmp_path / "sky.safetensors"
    noise.save(path, {"name": "sky", "data": [{"name": "known", "origin": "simulated", "licence": "CC0"}]})
    again = GANNoise(path)
    again_pickled = pickle.loads(pickle.dumps(again))
    fields = [m.sample(SHAPE, signal=light[0], rng=np.random.default_rng(1)) for m in (noise, again, again_pickled)]
    np.testing.assert_allclose(fields[1], fields[0], rtol=2e-4, atol=1e-5)
    assert np.array_equal(fields[1], fields[2])
    np.testing.assert_allclose(again.signal_slope, noise.signal_slope, rtol=1e-6)


def test_one_band_serves_any_number(tmp_path):
    noise = GANNoise.fit(draws(CorrelatedNoise(sigma=3.0), 8, 0, (1, 40, 40))[:, 0], steps=0)
    assert noise.kernel.shape == (7, 7)
    field = noise.sample((3, 60, 60), rng=np.random.default_rng(0))
    np.testing.assert_allclose(field.std(axis=(1, 2)), 3, rtol=0.15)
    noise.save(tmp_path / "one.safetensors")
    assert GANNoise(tmp_path / "one.safetensors").kernel.shape == (7, 7)


def test_errors_name_what_is_wrong(tmp_path, start):
    with pytest.raises(InputError, match="no network to save"):
        GANNoise().save(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="steps=-1"):
        GANNoise.fit(np.zeros((3, 20, 20)), steps=-1)
    with pytest.raises(InputError, match="5 bands"):
        start.sample((2, 20, 20), rng=np.random.default_rng(0))
    from astrogan.weights import save_weights

    other = {"name": "other", "backend": "nafnet", "role": "restorer", "architecture": {}}
    save_weights(tmp_path / "other.safetensors", {"a": torch.ones(1)}, other)
    with pytest.raises(CheckpointError, match="noise backend 'gan'"):
        GANNoise(tmp_path / "other.safetensors")
    save_weights(
        tmp_path / "wrong.safetensors",
        {"a": torch.ones(1)},
        other | {"name": "wrong", "backend": "gan", "role": "noise", "architecture": {"bands": 1}},
    )
    with pytest.raises(CheckpointError, match="do not fit"):
        GANNoise(tmp_path / "wrong.safetensors")
