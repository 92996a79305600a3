"""The Restorer on images as astronomers have them."""

import re
import threading
import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData, InverseVariance, NDData, StdDevUncertainty
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from astrogan import Restorer
from astrogan.api import Estimate
from astrogan.exceptions import BackendError, ImageTooSmallError, InputError, UncertaintyWarning
from astrogan.image.psf import convolve, gaussian_psf
from astrogan.operators.base import as_generator

# Several methods have no honest uncertainty; that they say so is tested once, below.
pytestmark = pytest.mark.filterwarnings("ignore::astrogan.exceptions.UncertaintyWarning")

LOCAL = ["identity", "gaussian", "wiener", "richardson-lucy", "tv", "wavelet", "tikhonov"]


def wcs_of(shape, sip=False):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if sip else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [210.0, -30.0]
    wcs.wcs.crpix = [shape[1] / 2, shape[0] / 2]
    wcs.wcs.cd = [[-5.5e-5, 1e-6], [1e-6, 5.5e-5]]
    if sip:
        from astropy.wcs import Sip

        a = np.zeros((3, 3))
        a[2, 0], a[0, 2], a[1, 1] = 1e-6, -2e-6, 3e-7
        wcs.sip = Sip(a, a.T.copy(), None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


@pytest.fixture(scope="module")
def scene():
    """A galaxy and two stars, sharp and as observed (Gaussian PSF, FWHM 3.5 pixels, sigma 1)."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:80, :90]
    sharp = 40 * np.exp(-np.hypot(x - 44, (y - 40) / 0.6) / 4)
    sharp[15, 20] += 600
    sharp[60, 70] += 300
    psf = gaussian_psf(3.5)
    clean = convolve(sharp.astype("f4"), psf)
    return sharp, clean + rng.normal(size=sharp.shape), psf


def image_of(scene, **keywords):
    _, observed, _ = scene
    sigma = StdDevUncertainty(np.ones(observed.shape))
    return CCDData(
        observed.copy(), **({"unit": "nmgy", "wcs": wcs_of(observed.shape), "uncertainty": sigma} | keywords)
    )


@pytest.mark.parametrize("backend", LOCAL)
def test_form_unit_wcs_and_flux_survive(scene, backend):
    image = image_of(scene)
    before = image.copy()
    out = Restorer(backend, psf=scene[2])(image)
    assert type(out) is CCDData
    assert out.unit == u.nmgy
    assert out.shape == image.shape
    corners = [[0, 0], [89, 0], [0, 79], [89, 79]]
    moved = np.abs(out.wcs.all_pix2world(corners, 0) - image.wcs.all_pix2world(corners, 0)).max()
    assert moved < 1e-10
    assert out.data.sum() == pytest.approx(image.data.sum(), rel=0.01)
    np.testing.assert_array_equal(image.data, before.data)
    assert out.meta["AGBACK"] == f"astrogan:{backend}"


def test_sip_survives(scene):
    image = image_of(scene, wcs=wcs_of((80, 90), sip=True))
    out = Restorer("identity")(image)
    points = np.random.default_rng(0).uniform(0, 80, (100, 2))
    shift = np.abs(out.wcs.all_pix2world(points, 0) - image.wcs.all_pix2world(points, 0)).max()
    assert shift * 3600 < 1e-6


def test_no_wcs_stays_none(scene):
    assert Restorer("identity")(image_of(scene, wcs=None)).wcs is None


def test_richardson_lucy_sharpens_towards_the_truth(scene):
    """Compared at a resolution between the two: what a deconvolution can honestly reach."""
    sharp, observed, psf = scene
    goal = convolve(sharp.astype("f4"), gaussian_psf(2.0))
    out = Restorer("richardson-lucy", psf=psf, iterations=15)(image_of(scene)).data
    bright = goal > 5
    error = np.sqrt(np.mean((out - goal)[bright] ** 2))
    assert error < 0.5 * np.sqrt(np.mean((observed - goal)[bright] ** 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_values_spoil_only_their_surroundings(scene, bad):
    """As if those pixels had been masked: same result, flagged in the mask."""
    spoilt, masked = image_of(scene), image_of(scene)
    where = (slice(30, 32), slice(50, 53))
    spoilt.data[where] = bad
    spoilt.data[5, 7] = bad
    masked.mask = ~np.isfinite(spoilt.data)
    restorer = Restorer("richardson-lucy", psf=scene[2], iterations=10)
    a, b = restorer(spoilt), restorer(masked)
    np.testing.assert_array_equal(a.data, b.data)
    assert np.isfinite(a.data).all()
    assert a.mask[where].all()
    assert a.mask[5, 7]
    assert a.mask.sum() < 40
    clean = restorer(image_of(scene))
    far = np.ones(a.shape, bool)
    far[:, 20:85] = False
    far[:38, :42] = False
    np.testing.assert_allclose(a.data[far], clean.data[far], atol=0.02 * np.abs(clean.data).max())


@pytest.mark.parametrize("backend", ["identity", "gaussian", "wiener", "richardson-lucy", "tv", "wavelet"])
def test_what_is_under_the_mask_changes_no_unmasked_bit(scene, backend):
    outs = []
    for hidden in (0.0, 1e30, np.nan):
        image = image_of(scene)
        image.mask = np.zeros(image.shape, bool)
        image.mask[20:23, 30:34] = True
        image.data[image.mask] = hidden
        outs.append(Restorer(backend, psf=scene[2])(image))
    for other in outs[1:]:
        keep = ~outs[0].mask
        np.testing.assert_array_equal(other.data[keep], outs[0].data[keep])
        np.testing.assert_array_equal(other.mask, outs[0].mask)


def test_mask_grows_where_most_of_the_light_is_lost(scene):
    image = image_of(scene)
    image.mask = np.zeros(image.shape, bool)
    image.mask[30:50, 30:50] = True
    out = Restorer("identity", psf=scene[2])(image)
    assert out.mask[image.mask].all()
    assert out.mask[40, 29]
    assert not out.mask[40, 25]


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4, 1e-19])
@pytest.mark.parametrize("backend", LOCAL)
def test_the_unit_of_flux_carries_no_information(scene, factor, backend):
    restorer = Restorer(backend, psf=scene[2])
    reference = restorer(image_of(scene)).data
    sigma = StdDevUncertainty(np.full(reference.shape, factor))
    scaled = restorer(CCDData(scene[1] * factor, unit="Jy", uncertainty=sigma))
    np.testing.assert_allclose(scaled.data / factor, reference, atol=2e-3 * np.abs(reference).max())


def test_saturated_pixels_are_flagged_not_restored(scene):
    image = image_of(scene)
    level = 0.5 * image.data[15, 20]
    out = Restorer("richardson-lucy", psf=scene[2])(image, saturation=level)
    assert out.mask[image.data >= level].all()
    assert out.meta["AGNSAT"] > (image.data >= level).sum()


def test_a_backend_without_variance_gives_none_and_warns_once(scene):
    class Plain:
        halo = 0

        def __call__(self, observation, *, rng):
            return Estimate(observation.data)

    restorer = Restorer(Plain())
    with pytest.warns(UncertaintyWarning, match="gives no uncertainty"):
        out = restorer(image_of(scene))
    assert out.uncertainty is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert restorer(image_of(scene)).uncertainty is None


def test_identity_keeps_the_kind_of_uncertainty(scene):
    weight = InverseVariance(np.full(scene[1].shape, 4.0))
    out = Restorer("identity")(image_of(scene, uncertainty=weight))
    assert isinstance(out.uncertainty, InverseVariance)
    np.testing.assert_allclose(out.uncertainty.array, 4, rtol=1e-6)


def test_bands_have_their_own_psfs(scene):
    image = image_of(scene)
    both = Restorer("richardson-lucy", iterations=5)({"g": image, "r": image}, psf={"g": 3.5, "r": 2.0})
    for band, fwhm in (("g", 3.5), ("r", 2.0)):
        alone = Restorer("richardson-lucy", psf=fwhm, iterations=5)(image)
        np.testing.assert_allclose(both[band].data, alone.data, rtol=1e-3, atol=1e-2)


def test_varying_psf_is_used_where_it_applies(scene):
    """Tiles get the PSF at their centre: left as with one PSF, right as with the other."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:64, :400]
    scene_sharp = sum(100 * np.exp(-np.hypot(x - cx, y - 32) / 3) for cx in (30, 370))
    image = NDData(scene_sharp + 0.1 * rng.normal(size=x.shape))
    varying = Restorer("richardson-lucy", psf=lambda x, y: gaussian_psf(2.0 if x < 200 else 4.0, 25), tile=128)(image)
    left = Restorer("richardson-lucy", psf=gaussian_psf(2.0, 25), tile=128)(image)
    right = Restorer("richardson-lucy", psf=gaussian_psf(4.0, 25), tile=128)(image)
    for part, near, far in ((slice(0, 60), left, right), (slice(-60, None), right, left)):
        to_near = np.abs(varying.data[:, part] - near.data[:, part]).max()
        to_far = np.abs(varying.data[:, part] - far.data[:, part]).max()
        assert to_near < 0.1 * to_far


@pytest.mark.parametrize("backend", ["richardson-lucy", "wiener", "wavelet"])
def test_tiles_and_workers_do_not_show(backend):
    rng = np.random.default_rng(5)
    image = NDData(rng.normal(size=(300, 280)) + 5)
    image.data[100, 120] += 1000
    whole = Restorer(backend, psf=2.5, tile=4096, workers=1)(image).data
    for tile, workers in ((160, 2), (200, 1)):
        tiled = Restorer(backend, psf=2.5, tile=tile, workers=workers)(image).data
        assert np.abs(tiled - whole).max() < 1e-4 * np.abs(whole).max()


@settings(max_examples=40)
@given(shape=st.tuples(st.integers(1, 70), st.integers(1, 70)), backend=st.sampled_from(LOCAL))
def test_any_shape_comes_back_or_is_refused_with_the_minimum(shape, backend):
    image = NDData(np.random.default_rng(1).normal(10, 1, shape))
    try:
        out = Restorer(backend, psf=np.ones((1, 1)))(image)
    except ImageTooSmallError as error:
        refusal = str(error)
        assert re.search(r"at least \d+", refusal)
    else:
        assert out.data.shape == shape
        assert np.isfinite(out.data).all()


def test_same_seed_same_bits_and_threads_agree(scene):
    restorer = Restorer("richardson-lucy", psf=scene[2], iterations=8)
    image = image_of(scene)
    reference = restorer(image, rng=3).data
    np.testing.assert_array_equal(restorer(image, rng=3).data, reference)
    results = [None] * 8

    def work(i):
        results[i] = restorer(image, rng=3).data

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-5)


def test_diagnose_tells_a_good_restoration_from_a_wrong_one(scene):
    image = image_of(scene)
    restorer = Restorer("richardson-lucy", psf=scene[2], iterations=20)
    good = restorer(image)
    assert 0.7 < restorer.diagnose(image, good).reduced_chi2 < 1.3
    wrong = good.copy()
    wrong.data[35:45, 38:50] *= 1.5
    report = restorer.diagnose(image, wrong)
    assert report.reduced_chi2 > 1.5
    assert report.flags[0, 40, 44]
    assert not report.flags[0, 10, 75]


def test_diagnose_says_where_the_noise_came_from(scene):
    image = image_of(scene)
    restorer = Restorer("wiener", psf=scene[2])
    restored = restorer(image)
    assert "noise estimated" not in restorer.diagnose(image, restored).summary()
    image.uncertainty = None
    assert "noise estimated" in restorer.diagnose(image, restored).summary()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda image: Restorer(tile=2), "tile=2"),
        (lambda image: Restorer(workers=0), "workers=0"),
        (lambda image: Restorer(workers=True), "workers=True"),
        (lambda image: Restorer(psf=3.0)(image, rng=None), "rng=None"),
        (lambda image: Restorer(psf=3.0)(image, rng=-1), "rng=-1"),
        (lambda image: Restorer(psf=3.0).diagnose(image, NDData(np.ones((3, 3)))), "they must agree"),
        (lambda image: Restorer(psf=3.0).diagnose(image, CCDData(image.data, unit="Jy")), "unit Jy"),
    ],
)
def test_arguments_are_named(scene, call, message):
    with pytest.raises(InputError, match=message):
        call(image_of(scene))


def test_backend_errors_name_the_backend(scene):
    class Broken:
        halo = 0

        def __call__(self, observation, *, rng):
            raise KeyError("inside")

    with pytest.raises(BackendError, match="Broken.*inside"):
        Restorer(Broken())(image_of(scene))


def test_too_small_images_name_the_minimum(scene):
    class Large:
        halo = 0
        min_size = 100

        def __call__(self, observation, *, rng):
            return Estimate(observation.data)

    with pytest.raises(ImageTooSmallError, match="80 x 90.*at least 100"):
        Restorer(Large())(image_of(scene))


def test_repr_and_generators():
    assert repr(Restorer("wiener", balance=0.1)) == "Restorer('astrogan:wiener', balance=0.1)"
    generator = np.random.default_rng(1)
    assert as_generator(generator) is generator
    assert as_generator(np.random.SeedSequence(3)).integers(100) == as_generator(np.random.SeedSequence(3)).integers(
        100
    )


def test_what_the_header_says_of_the_old_psf_goes(scene):
    image = image_of(scene)
    image.meta["SEEING"] = 0.7
    restored = Restorer("richardson-lucy", iterations=3)(image)
    assert restored.meta["AGPSF"] == "header"
    assert "SEEING" not in restored.meta
    assert restored.psf is None
    same = Restorer("identity")(image)
    assert same.meta["SEEING"] == 0.7
    assert same.psf is not None
    assert image.meta["SEEING"] == 0.7


def test_a_misspelt_reading_keyword_is_named(scene):
    with pytest.raises(InputError, match="satturation=3.*saturation"):
        Restorer("identity")(image_of(scene), satturation=3)


def test_a_backend_that_exits_does_not_end_the_process(scene):
    class Exits:
        halo = 0

        def __call__(self, observation, *, rng):
            raise SystemExit(3)

    with pytest.raises(BackendError, match="Exits.*SystemExit"):
        Restorer(Exits())(image_of(scene))


def test_a_misspelt_reading_keyword_of_diagnose_is_named_too(scene):
    image = image_of(scene)
    with pytest.raises(InputError, match="satturation=3.*saturation"):
        Restorer("identity", psf=3.0).diagnose(image, image, satturation=3)
