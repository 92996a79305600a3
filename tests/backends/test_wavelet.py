import numpy as np
import pytest
from scipy.signal import fftconvolve

from astrogan.api import Observation
from astrogan.backends.classic.wavelet import Wavelet, _noise_gain, starlet
from astrogan.exceptions import InputError


def gaussian(fwhm=3.0, size=15):
    r2 = np.sum(np.square(np.mgrid[-(size // 2) : size // 2 + 1, -(size // 2) : size // 2 + 1]), axis=0)
    kernel = np.exp(-4 * np.log(2) * r2 / fwhm**2)
    return kernel / kernel.sum()


def stars(rng, size=96, flux=500.0, count=12, fwhm=3.0):
    truth = np.zeros((size, size))
    truth[tuple(rng.integers(20, size - 20, (2, count)))] = flux
    return fftconvolve(truth, gaussian(fwhm), mode="same")


def test_starlet_adds_up_and_details_have_no_mean(rng):
    plane = rng.normal(size=(37, 50))
    planes = starlet(plane, 4)
    assert len(planes) == 5
    np.testing.assert_allclose(np.sum(planes, axis=0), plane, atol=1e-12)
    for detail in planes[:-1]:
        assert abs(detail.mean()) < 1e-12


def test_noise_gains_are_the_published_ones(rng):
    """Starck & Murtagh 2006, Astronomical Image and Data Analysis, table 2.1: 0.889, 0.200, 0.086, 0.041."""
    np.testing.assert_allclose([_noise_gain(j) for j in range(4)], [0.891, 0.201, 0.0857, 0.0413], rtol=0.01)
    planes = starlet(rng.normal(size=(400, 400)), 4)
    for j in range(4):
        assert planes[j].std() == pytest.approx(_noise_gain(j), rel=0.04)


def test_false_detections_on_empty_sky(rng):
    """At 5 sigma nothing of pure noise but the smooth rest is kept; at the default, little is."""
    noise = rng.normal(size=(1, 256, 256)) * 7
    one = Observation(noise, variance=np.full(noise.shape, 49.0))
    strict = Wavelet(5.0)(one).data
    assert strict.std() < 0.08 * 7
    assert np.abs(Wavelet()(one).data - strict).mean() < 0.05 * 7


@pytest.mark.parametrize("with_psf", [False, True])
def test_fluxes_of_stars_are_kept(rng, with_psf):
    data = stars(rng)
    one = Observation(
        (data + rng.normal(size=data.shape))[None],
        variance=np.ones((1, 96, 96)),
        psf=gaussian()[None] if with_psf else None,
    )
    result = Wavelet()(one)
    assert result.variance is None
    assert result.data.sum() == pytest.approx(one.data.sum(), rel=2e-3)
    y, x = np.unravel_index(data.argmax(), data.shape)
    box = np.s_[y - 6 : y + 7, x - 6 : x + 7]
    assert result.data[0][box].sum() == pytest.approx(data[box].sum(), rel=0.05)
    if with_psf:
        assert result.data.max() > 1.5 * data.max()


def test_iterations_stop_before_noise_grows(rng):
    """At low signal to noise few iterations are made, at high many."""
    done = []
    for flux in (150.0, 5000.0):
        data = stars(np.random.default_rng(4), flux=flux)
        one = Observation(
            (data + rng.normal(size=data.shape))[None], variance=np.ones((1, 96, 96)), psf=gaussian()[None]
        )
        done.append(Wavelet()(one).info["iterations"])
    assert done[0] < done[1]


def test_a_star_behind_a_mask_does_no_harm(rng):
    data = stars(rng) + rng.normal(size=(96, 96))
    valid = np.ones((1, 96, 96), bool)
    valid[0, 40:46, 40:46] = False
    dirty = data.copy()
    dirty[40:46, 40:46] = 1e5
    results = [
        Wavelet()(Observation(d[None], valid=valid, variance=np.ones((1, 96, 96)), psf=gaussian()[None])).data[valid]
        for d in (data, dirty)
    ]
    np.testing.assert_array_equal(*results)


def test_thresholds_follow_the_variance(rng):
    variance = np.ones((1, 128, 128))
    variance[:, :, 64:] = 100
    noise = rng.normal(size=variance.shape) * np.sqrt(variance)
    result = Wavelet()(Observation(noise, variance=variance)).data[0]
    assert result[:, 80:].std() < 0.15 * 10
    assert result[:, :48].std() < 0.15


def test_halo(rng):
    plain = Observation(np.zeros((1, 8, 8)), variance=np.ones((1, 8, 8)))
    assert Wavelet().halo_for(plain) == 60
    assert Wavelet(scales=2).halo_for(plain) == 12
    assert Wavelet().halo_for(plain.replace(variance=None)) == -1
    blurred = plain.replace(psf=gaussian()[None])
    assert Wavelet().halo_for(blurred) == -1
    assert Wavelet(iterations=10).halo_for(blurred) == 104
    assert Wavelet(deconvolve=False).halo_for(blurred) == 60


def test_bad_arguments():
    for threshold in (-1, "high", (3.0,) * 5, np.nan):
        with pytest.raises(InputError, match="threshold"):
            Wavelet(threshold)
    for scales in (0, 9, 2.0):
        with pytest.raises(InputError, match="scales"):
            Wavelet(scales=scales)
    with pytest.raises(InputError, match="iterations"):
        Wavelet(iterations=0)
    with pytest.raises(InputError, match="deconvolve"):
        Wavelet(deconvolve="yes")
    with pytest.raises(InputError, match="needs a PSF"):
        Wavelet(deconvolve=True)(Observation(np.zeros((1, 4, 4)), variance=np.ones((1, 4, 4))))
