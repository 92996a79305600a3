"""What every restorer that needs no training must obey, and how they compare on one realistic field.

A new backend is added to ``CASES``; nothing else has to be written for it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from astrogan.api import Estimate, Observation


@dataclass(frozen=True)
class Case:
    """One configuration of one backend."""

    label: str
    module: str
    name: str
    options: dict = field(default_factory=dict)
    psf: bool = True
    constant: float = 1e-5  # how well a constant image is kept, relative
    flux: float = 0.01
    least_gain: float | None = 0.3  # dB over the input at every noise level; None where options fix a strength
    linear_variance: bool = False  # reports a variance, linear in the data for fixed options

    def make(self):
        """An instance."""
        return getattr(import_module(f"astrogan.backends.classic.{self.module}"), self.name)(**self.options)

    def __str__(self):
        return self.label


CASES = [
    Case("identity", "identity", "Identity", psf=False, least_gain=None, linear_variance=True),
    Case("gaussian", "gaussian", "Gaussian", psf=False),
    Case("gaussian-2", "gaussian", "Gaussian", {"fwhm": 2.0}, psf=False, least_gain=None, linear_variance=True),
    # bright peaks are left to a smaller balance: no loss for them, and a gain on faint sources
    Case("wiener", "wiener", "Wiener", least_gain=0.0),
    Case("wiener-0.05", "wiener", "Wiener", {"balance": 0.05}, least_gain=None, linear_variance=True),
    Case("unsupervised-wiener", "unsupervised_wiener", "UnsupervisedWiener"),
    Case("tikhonov", "tikhonov", "Tikhonov", least_gain=0.0),
    Case("tikhonov-0.05", "tikhonov", "Tikhonov", {"strength": 0.05}, least_gain=None, linear_variance=True),
    Case("tikhonov-discrepancy", "tikhonov", "Tikhonov", {"strength": "discrepancy"}, least_gain=0.0),
    Case("tv", "tv", "TotalVariation"),
    Case("tv-denoise", "tv", "TotalVariation", psf=False),
    Case("wavelet", "wavelet", "Wavelet"),
    Case("wavelet-denoise", "wavelet", "Wavelet", psf=False),
    Case("wavelet-10", "wavelet", "Wavelet", {"iterations": 10}, least_gain=None),
    Case("richardson-lucy", "richardson_lucy", "RichardsonLucy", least_gain=None),
    Case("blind-richardson-lucy", "blind_richardson_lucy", "BlindRichardsonLucy", psf=False, least_gain=None),
]
CASE = pytest.mark.parametrize("case", CASES, ids=str)


def moffat(fwhm, size, beta=3.0):
    r = np.hypot(*np.mgrid[-(size // 2) : size // 2 + 1, -(size // 2) : size // 2 + 1])
    kernel = (1 + (2 * r * np.sqrt(2 ** (1 / beta) - 1) / fwhm) ** 2) ** -beta
    return kernel / kernel.sum()


def add_sersic(image, x0, y0, flux, radius, n, ratio, angle, half=30, oversampling=5):
    """Add a Sersic profile averaged over the pixels, cut at ``half`` pixels from its centre."""
    (low_y, high_y), (low_x, high_x) = (
        (max(int(c) - half, 0), min(int(c) + half + 1, size)) for c, size in zip((y0, x0), image.shape, strict=True)
    )
    shape = high_y - low_y, high_x - low_x
    y, x = (np.mgrid[: shape[0] * oversampling, : shape[1] * oversampling] + 0.5) / oversampling - 0.5
    c, s = np.cos(angle), np.sin(angle)
    x, y = x + low_x - x0, y + low_y - y0
    profile = np.exp(-(2 * n - 1 / 3) * (np.hypot(x * c + y * s, (y * c - x * s) / ratio) / radius) ** (1 / n))
    profile = profile.reshape(shape[0], oversampling, shape[1], oversampling).mean((1, 3))
    image[low_y:high_y, low_x:high_x] += flux * profile / profile.sum()


@cache
def field_of(size, seed, margin=10):
    """Truth: galaxies, and stars of FWHM 1.6 pixels."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((size, size))
    for _ in range(max(size * size // 1400, 3)):
        x, y = rng.uniform(margin, size - margin, 2)
        radius, n = rng.uniform(2, 6), rng.choice([0.7, 1, 2, 4])
        flux, ratio, angle = 10 ** rng.uniform(1.5, 3), rng.uniform(0.35, 1), rng.uniform(0, 3)
        add_sersic(truth, x, y, flux, radius, n, ratio, angle)
    yy, xx = np.mgrid[:size, :size]
    for _ in range(max(size * size // 2800, 2)):
        x, y = rng.uniform(margin, size - margin, 2)
        star = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * (1.6 / 2.3548) ** 2))
        truth += 10 ** rng.uniform(1.5, 2.7) * star / star.sum()
    return truth


def blur(plane, psf):
    return fftconvolve(np.pad(plane, len(psf) // 2, mode="symmetric"), psf, mode="valid")


def observe(size=64, seed=1, sky=0.3, *, bands=1, psf=True, variance=True, masked=False, gain=20.0):
    """(truth, noise-free blurred image, observation), each (band, y, x)."""
    rng = np.random.default_rng(1000 + seed)
    kernel = moffat(3.0, 21)
    truth = np.stack([field_of(size, seed) * (1 + 0.5 * b) for b in range(bands)])
    seen = np.stack([blur(plane, kernel) for plane in truth])
    var = sky**2 + np.maximum(seen, 0) / gain
    data = seen + rng.normal(size=seen.shape) * np.sqrt(var)
    valid = np.ones(seen.shape, bool)
    if masked:
        valid[:, 20:23, 5:40] = False
        valid[:, 30:38, 44:52] = False
        valid[-1, ::17, ::13] = False
    observation = Observation(
        data,
        valid=valid,
        variance=var if variance else None,
        psf=np.stack([kernel] * bands) if psf else None,
    )
    return truth, seen, observation


def restore(case, observation, seed=0):
    estimate = case.make()(observation, rng=np.random.default_rng(seed))
    assert isinstance(estimate, Estimate)
    assert estimate.data.shape == observation.shape
    assert estimate.data.dtype == np.float32
    assert np.isfinite(estimate.data).all()
    if estimate.variance is not None:
        assert estimate.variance.shape == observation.shape
        assert np.isfinite(estimate.variance).all()
        assert (estimate.variance[observation.valid] > 0).all()
    return estimate


def psnr(truth, image):
    return 10 * np.log10(truth.max() ** 2 / np.mean((truth - image) ** 2))


# ------------------------------------------------------------------------------------------------- the laws


@CASE
@pytest.mark.parametrize("variance", [True, False])
@pytest.mark.parametrize("scale", [1e-3, 37.0, 1e4])
def test_scales_with_the_data(case, variance, scale):
    _, _, one = observe(psf=case.psf, variance=variance, masked=True)
    s = np.float32(scale)
    other = one.replace(data=one.data * s, variance=one.variance * s**2 if variance else None)
    first, second = restore(case, one), restore(case, other)
    np.testing.assert_allclose(second.data / s, first.data, atol=3e-4 * np.abs(first.data).max(), rtol=0)
    if first.variance is not None:
        np.testing.assert_allclose(second.variance / s**2, first.variance, rtol=2e-3)


@CASE
@pytest.mark.parametrize("level", [0.0, 3.25, -1e4])
@pytest.mark.parametrize("variance", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_constant_images_are_fixed_points(case, level, variance, masked):
    _, _, like = observe(33, psf=case.psf, masked=False)
    valid = np.ones(like.shape, bool)
    valid[:, 10:14, 3:20] = not masked
    constant = like.replace(
        data=np.full(like.shape, level), variance=np.ones(like.shape) if variance else None, valid=valid
    )
    # to a small part of the level, or of the noise where one is stated
    np.testing.assert_allclose(restore(case, constant).data, level, rtol=case.constant, atol=1e-5 if variance else 0)


@CASE
@settings(max_examples=12)
@given(shape=st.tuples(st.integers(1, 2), st.integers(1, 70), st.integers(1, 70)), seed=st.integers(0, 99))
def test_any_size(case, shape, seed):
    rng = np.random.default_rng(seed)
    psf = np.stack([moffat(2.5, 11)] * shape[0]) if case.psf else None
    valid = rng.random(shape) > 0.1
    observation = Observation(rng.normal(5, 1, shape), valid=valid, variance=np.ones(shape), psf=psf)
    estimate = restore(case, observation)
    assert np.abs(estimate.data - 5).max() < 60


@CASE
@pytest.mark.parametrize("variance", [True, False])
def test_values_under_the_mask_are_never_read(case, variance):
    _, _, one = observe(bands=2, psf=case.psf, variance=variance, masked=True)
    hole = ~one.valid
    first = restore(case, one)
    for value in (0.0, 1e30, -3.0):
        data = np.where(hole, np.float32(value), one.data)
        spread = np.where(hole, np.float32(abs(value)), one.variance) if variance else None
        second = restore(case, one.replace(data=data, variance=spread))
        np.testing.assert_array_equal(second.data[one.valid], first.data[one.valid])
        if first.variance is not None:
            np.testing.assert_array_equal(second.variance[one.valid], first.variance[one.valid])


@CASE
def test_all_masked(case):
    _, _, one = observe(32, psf=case.psf)
    estimate = restore(case, one.replace(valid=np.zeros(one.shape, bool)))
    assert np.ptp(estimate.data) >= 0  # finite, no warning


@CASE
def test_same_seed_same_bits_and_no_mutation(case):
    _, _, one = observe(48, bands=2, psf=case.psf, masked=True)
    before = [None if a is None else a.copy() for a in (one.data, one.valid, one.variance, one.psf)]
    backend = case.make()
    first, second = (backend(one, rng=np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.data, second.data)
    assert first.info == second.info
    for old, new in zip(before, (one.data, one.valid, one.variance, one.psf), strict=True):
        assert old is None or np.array_equal(old, new)
    assert first.data.flags.writeable
    assert not np.shares_memory(first.data, one.data)


@CASE
def test_eight_threads_equal_serial(case):
    observations = [observe(40, seed=s % 4, bands=1, psf=case.psf)[2] for s in range(8)]
    backend = case.make()
    serial = [backend(o, rng=np.random.default_rng(i)).data for i, o in enumerate(observations)]
    fresh = case.make()
    with ThreadPoolExecutor(8) as pool:
        threaded = pool.map(lambda i: fresh(observations[i], rng=np.random.default_rng(i)).data, range(8))
        for one, other in zip(serial, threaded, strict=True):
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-6 * np.abs(one).max())


@CASE
@pytest.mark.parametrize("level", [0.0, -50.0])
def test_flux_is_conserved(case, level):
    truth, _, one = observe(96, seed=3, sky=0.1, psf=case.psf)
    # sources well inside, so that no light crosses the edge
    sources = field_of(96, 3, margin=28)
    seen = blur(sources, moffat(3.0, 21))
    noise = one.data[0] - blur(truth[0], moffat(3.0, 21))
    one = one.replace(data=(seen + noise + level)[None], variance=np.full(one.shape, 0.1**2 + seen.mean() / 20))
    restored = restore(case, one).data[0] - level
    assert abs(restored.sum() - (seen + noise).sum()) < case.flux * seen.sum()


@CASE
def test_bands_are_independent(case):
    _, _, three = observe(40, bands=3, psf=case.psf, masked=True)
    if "unsupervised" in case.label:
        pytest.skip("each band draws its own seed")
    together = restore(case, three).data
    for band in range(3):
        part = slice(band, band + 1)
        alone = Observation(
            three.data[part],
            valid=three.valid[part],
            variance=three.variance[part],
            psf=None if three.psf is None else three.psf[part],
        )
        # not to the bit: a method may send two bands through one complex transform
        np.testing.assert_allclose(restore(case, alone).data[0], together[band], atol=1e-5 * together.max(), rtol=0)


@CASE
def test_tiled_equals_untiled(case):
    tiling = pytest.importorskip("astrogan.image.tiling")
    _, _, one = observe(300, seed=5, psf=case.psf)
    backend = case.make()
    halo = backend.halo_for(one) if hasattr(backend, "halo_for") else backend.halo
    if halo < 0:
        pytest.skip("needs the whole image")
    whole = backend(one, rng=np.random.default_rng(0))
    tiled = tiling.run_tiled(backend, one, rng=np.random.default_rng(0), tile=min(128 + 2 * halo, 290), workers=2)
    np.testing.assert_allclose(tiled.data, whole.data, rtol=0, atol=1e-5 * np.abs(whole.data).max())
    if whole.variance is not None:
        np.testing.assert_allclose(tiled.variance, whole.variance, rtol=1e-3)


@pytest.mark.parametrize("case", [c for c in CASES if c.linear_variance], ids=str)
def test_variance_matches_monte_carlo(case):
    """Noise pulled through the method has the variance that it reports, edges included."""
    _, seen, one = observe(56, seed=2, sky=0.5, psf=case.psf)
    reported = restore(case, one).variance[0].astype(float)
    rng = np.random.default_rng(7)
    backend = case.make()
    runs = []
    for _ in range(200):
        data = seen + rng.normal(size=seen.shape) * np.sqrt(one.variance)
        runs.append(backend(one.replace(data=data), rng=rng).data[0])
    ratio = np.var(runs, axis=0, ddof=1) / reported
    inner = np.zeros(ratio.shape, bool)
    inner[10:-10, 10:-10] = True
    sources = seen[0] > np.quantile(seen, 0.97)
    # a single pixel's ratio scatters by sqrt(2 / 199) = 10 %; means over hundreds by less than 2 %
    assert abs(ratio[inner].mean() - 1) < 0.05
    assert abs(ratio[~inner].mean() - 1) < 0.15
    assert abs(ratio[inner & sources].mean() - 1) < 0.15


# ------------------------------------------------------------------------------------------------- quality


def _table(rows, columns):
    lines = [" " * 24 + "".join(f"{c:>12}" for c in columns)]
    lines += [f"{label:24s}" + "".join(f"{value:12.2f}" for value in values) for label, values in rows.items()]
    return "\n".join(lines)


def test_all_beat_doing_nothing():
    """PSNR against the truth: sharp for methods that deconvolve, at the PSF's resolution for those that denoise."""
    skies = (0.1, 0.3, 1.0, 3.0)
    gains, faint = {}, {}
    for case in CASES:
        gains[case.label], faint[case.label] = [], []
        for sky in skies:
            truth, seen, one = observe(96, seed=11, sky=sky, psf=case.psf)
            target = truth if case.psf else seen
            images = [target, one.data, restore(case, one).data]
            gains[case.label].append(psnr(images[0], images[2]) - psnr(images[0], images[1]))
            images = [np.arcsinh(image / (3 * sky)) for image in images]
            faint[case.label].append(psnr(images[0], images[2]) - psnr(images[0], images[1]))
    print("\ngain over identity / dB, by sky noise\n" + _table(gains, skies))
    print("\nthe same of arcsinh(flux / 3 sigma)\n" + _table(faint, skies))
    for case in CASES:
        if case.least_gain is not None:
            assert min(gains[case.label]) > case.least_gain, case.label
    assert min(np.subtract(gains["tv"], gains["wiener"])) > -0.5
    assert min(gains["wavelet-denoise"]) > 3
    assert min(np.subtract(gains["wavelet-denoise"], gains["gaussian"])) > 0
    for label in ("gaussian", "tv", "tv-denoise", "wavelet-denoise"):
        assert min(faint[label]) > 0.5, label
    for label in ("wiener", "tikhonov"):
        # at the highest signal to noise a stationary filter has to choose between the peaks and the sky
        assert min(faint[label][1:]) > 0.5, label
