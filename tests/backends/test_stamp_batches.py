"""Stamps restored together give what each gives by itself, and the device makes no difference."""

import numpy as np
import pytest
import torch

from astrogan import Restorer
from astrogan.api import Observation
from astrogan.backends.classic._linear import FiniteFilter
from astrogan.backends.classic.richardson_lucy import RichardsonLucy
from astrogan.backends.classic.wiener import Wiener
from astrogan.backends.gan.nafnet import NAFNet
from astrogan.exceptions import InputError, PSFError
from astrogan.image.psf import gaussian_psf, moffat_psf
from astrogan.operators._restorer_batch import restore_stamps

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA"))


def stamp(k, shape=(2, 48, 40), *, peak=50.0, variance=False, masked=False, psf=None):
    """A star of a brightness of its own on a sky of its own."""
    rng = np.random.default_rng(k)
    y, x = np.mgrid[: shape[1], : shape[2]]
    star = np.exp(-((y - 20 - k) ** 2 + (x - 18) ** 2) / 8)
    data = rng.normal(5 * k, 1 + k, shape) + peak * star
    noise = (1 + k) ** 2 * (1 + 3 * (x > 30)) * np.ones(shape) if variance else None
    valid = np.ones(shape, bool)
    if masked:
        valid[:, 10:14, 5:9] = False
    psf = np.stack([gaussian_psf(3.0, size=15)] * shape[0]) if psf is None else psf
    return Observation(data, valid=valid, variance=noise, psf=psf)


def generators(count):
    return [np.random.default_rng(k) for k in range(count)]


def assert_same(batch, single, tolerance=1e-5):
    for name in ("data", "variance"):
        got, wanted = getattr(batch, name), getattr(single, name)
        assert (got is None) == (wanted is None)
        if wanted is not None:
            scale = np.abs(wanted).max()
            assert np.abs(got - wanted).max() <= tolerance * scale, name
    assert batch.info == single.info


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"acceleration": "nesterov"}, {"background": None}, {"stop": "chi2"}, {"weighting": None}],
    ids=lambda options: next(iter(options), "default"),
)
def test_a_batch_gives_what_single_calls_give(options, workers):
    """Peaks from 1 to 10^6: the rounding of a bright stamp must not be noise to the faint one beside it."""
    backend = RichardsonLucy(8, **options)
    stamps = [stamp(k, peak=50 * 10**k, variance=k > 2, masked=k % 2 == 1) for k in range(5)]
    results = backend.batch(stamps, rngs=generators(5), workers=workers)
    assert len(results) == 5
    for result, one in zip(results, stamps, strict=True):
        assert_same(result, backend(one, rng=np.random.default_rng(0)))


def test_a_batch_of_what_cannot_share_a_transform():
    """Other shapes, PSFs, a flat stamp, one with a variance beside one without, and none at all."""
    other = np.stack([moffat_psf(4.0, size=21)] * 2)
    flat = stamp(0).replace(data=np.full((2, 48, 40), -3.0))
    stamps = [
        stamp(0),
        flat,
        stamp(1, (2, 33, 64)),
        stamp(2, (2, 33, 64), psf=other),
        stamp(3, variance=True),
        stamp(4),
    ]
    backend = RichardsonLucy(5)
    for result, one in zip(backend.batch(stamps, rngs=generators(6)), stamps, strict=True):
        assert_same(result, backend(one, rng=np.random.default_rng(0)))
    assert np.array_equal(backend.batch([flat], rngs=generators(1))[0].data, flat.data)
    assert backend.batch([], rngs=[]) == []


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_batch_through_the_network_gives_what_single_calls_give(ensemble):
    """Of two shapes, one and two bands, three PSFs, one blank band, in an order that mixes them."""
    backend = NAFNet(ensemble=ensemble)
    narrow, wide = (np.asarray(gaussian_psf(fwhm, size=15))[None] for fwhm in (2.5, 4.0))
    stamps = [
        stamp(0, (1, 48, 40), variance=True, psf=narrow),
        stamp(1, variance=True),
        stamp(2, (1, 48, 40), variance=True, psf=wide, peak=5e4),
        stamp(3, (1, 33, 47), variance=True, psf=narrow),
        Observation(np.full((1, 48, 40), 7.0), variance=np.ones((1, 48, 40)), psf=wide),
        stamp(4, variance=True, masked=True),
    ]
    results = backend.batch(stamps)
    for result, one in zip(results, stamps, strict=True):
        assert_same(result, backend(one))
    np.testing.assert_array_equal(results[4].data, 7.0)


def test_no_pass_of_the_network_is_larger_than_pays(monkeypatch):
    backend, sizes = NAFNet(device="cpu"), []
    run = NAFNet._pass
    monkeypatch.setattr(
        NAFNet, "_pass", lambda self, model, data, *rest: sizes.append(data.shape[:2]) or run(self, model, data, *rest)
    )
    psf = np.asarray(gaussian_psf(3.0, size=15))[None]
    backend.batch([stamp(k % 3, (1, 128, 128), variance=True, psf=psf) for k in range(5)])
    assert sizes == [(4, 1), (1, 1)]
    assert backend.tiles_per_call == 1


def test_tiles_that_go_together_give_what_they_give_alone():
    backend, whole = NAFNet(), stamp(0, (1, 200, 230), variance=True, psf=np.asarray(gaussian_psf(3.0, size=15))[None])
    settled = backend.for_image(whole)
    tiles = [whole.crop(slice(0, 96), slice(x, x + 96)) for x in (0, 64, 128)]
    together = settled.call_tiles(tiles, cuts=[((False, True), (True, True))] * 3, rngs=generators(3))
    for result, tile in zip(together, tiles, strict=True):
        assert_same(result, settled(tile))


def test_pairs_are_those_that_are_alike():
    backend = RichardsonLucy(2)
    stamps = [stamp(0), stamp(1), stamp(2), stamp(3, (2, 33, 64)), stamp(4, (2, 33, 64))]
    skies = [backend.for_image(one)._skies for one in stamps]
    assert backend._pairs(stamps, skies) == [(0, 1), (2,), (3, 4)]
    assert RichardsonLucy(2, stop="chi2")._pairs(stamps, skies) == [(k,) for k in range(5)]


def test_the_bootstrap_of_a_batch_is_that_of_single_calls():
    backend = RichardsonLucy(4, uncertainty="bootstrap", samples=3)
    stamps = [stamp(0, variance=True), stamp(1, peak=500, variance=True), stamp(2), stamp(1)]
    results = backend.batch(stamps, rngs=generators(4), workers=1)
    for k, (result, one) in enumerate(zip(results, stamps, strict=True)):
        assert_same(result, backend(one, rng=np.random.default_rng(k)), 1e-3)


def test_batches_are_deterministic_and_leave_their_input():
    stamps = [stamp(k) for k in range(4)]
    before = [one.data.copy() for one in stamps]
    first, second = (RichardsonLucy(3).batch(stamps, rngs=generators(4), workers=n) for n in (1, 4))
    for a, b, one, data in zip(first, second, stamps, before, strict=True):
        assert np.array_equal(a.data, b.data)
        assert np.array_equal(one.data, data)


# ---- the operator ---------------------------------------------------------------------------------------------------


def batch(restorer, stamps, **options):
    defaults = {"psf": 3.0, "variance": None, "generator": np.random.default_rng(1), "pixel_scale": None, "bands": None}
    return restore_stamps(restorer, stamps, **defaults | options)


@pytest.mark.parametrize(
    ("name", "options"),
    [("richardson-lucy", {"iterations": 4}), ("wiener", {"balance": 0.1}), ("gaussian", {"fwhm": 2.0})],
)
def test_an_operator_restores_stamps_as_images(name, options):
    from astropy.nddata import CCDData

    stamps = np.stack([stamp(k).data for k in range(3)])
    restorer = Restorer(name, psf=3.0, **options)
    data, _ = batch(restorer, stamps)
    assert data.dtype == np.float32
    for one, result in zip(stamps, data, strict=True):
        wanted = restorer(CCDData(one, unit="adu")).data
        np.testing.assert_allclose(result, wanted, atol=2e-5 * np.abs(wanted).max())


def test_an_operator_gives_the_variance_of_stamps():
    stamps = np.stack([stamp(k).data for k in range(2)])
    restorer = Restorer("wiener", balance=0.1)
    data, variance = batch(restorer, stamps, variance=np.float32(4.0))
    assert variance.shape == data.shape
    assert (variance > 0).all()
    np.testing.assert_allclose(batch(restorer, stamps, variance=np.float32(8.0))[1], 2 * variance, rtol=1e-4)
    assert batch(restorer, stamps)[1] is None


def test_an_operator_takes_no_stamps_and_names_what_is_wrong():
    restorer = Restorer("richardson-lucy", iterations=2)
    assert batch(restorer, np.zeros((0, 2, 16, 16)))[0].shape == (0, 2, 16, 16)
    with pytest.raises(InputError, match="stamps has shape"):
        batch(restorer, np.zeros((2, 16, 16)))
    with pytest.raises(PSFError, match="psf=None"):
        batch(restorer, np.zeros((1, 1, 16, 16)), psf=None)
    with pytest.raises(InputError, match="variance has shape"):
        batch(restorer, np.zeros((1, 1, 16, 16)), variance=np.ones(3))
    bad = np.zeros((3, 1, 16, 16))
    bad[1, 0, 3, 3] = np.nan
    with pytest.raises(InputError, match="stamp 1: data holds NaN"):
        batch(restorer, bad)


# ---- devices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "auto", CUDA])
@pytest.mark.parametrize(
    ("make", "tolerance"),
    [
        (lambda device: RichardsonLucy(10, device=device), 1e-5),
        (lambda device: RichardsonLucy(4, uncertainty="bootstrap", samples=2, device=device), 1e-4),
        (lambda device: RichardsonLucy(30, stop="chi2", device=device), 1e-5),
        (lambda device: Wiener(0.1, device=device), 1e-5),
    ],
    ids=["richardson-lucy", "bootstrap", "chi2", "wiener"],
)
def test_the_device_makes_no_difference(make, tolerance, device):
    observation = stamp(1, (1, 90, 70), variance=True, masked=True)
    results = [make(name)(observation, rng=np.random.default_rng(3)) for name in ("cpu", device)]
    assert_same(results[1], results[0], tolerance)


@pytest.mark.parametrize("device", [CUDA])
def test_a_batch_on_a_device(device):
    stamps = [stamp(k, peak=10.0**k, variance=True) for k in range(4)]
    results = RichardsonLucy(5, device=device).batch(stamps, rngs=generators(4))
    for result, one in zip(results, stamps, strict=True):
        assert_same(result, RichardsonLucy(5)(one, rng=np.random.default_rng(0)))


@pytest.mark.parametrize("make", [RichardsonLucy, Wiener])
def test_a_device_that_is_not_there(make, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device='cuda'"):
        make(device="cuda")
    with pytest.raises(InputError, match="device='chip'"):
        make(device="chip")
    assert make(device="auto").tile_size == make().tile_size


def test_a_whole_plane_through_a_filter_is_the_same_as_its_blocks(rng):
    """What is done on a GPU, here on the CPU: reflecting edges, kernels wider than the image, odd lengths."""
    for radius, shape in ((3, (50, 41)), (30, (25, 130)), (18, (333, 200))):
        kernel = rng.random((2 * radius + 1, 2 * radius + 1)) - 0.3
        kernel /= kernel.sum()
        plane = rng.normal(1000, 1, shape).astype(np.float32)
        one = FiniteFilter(kernel)
        blocks, out = one(plane, 1000.0), np.empty(shape, np.float32)
        whole = one._apply_whole(plane, 1000.0, out, torch.device("cpu"))
        assert whole is out
        scale = np.abs(blocks - 1000).max()
        np.testing.assert_allclose(whole - 1000, blocks - 1000, atol=1e-5 * scale + 2e-4)
