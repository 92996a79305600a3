import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from astrogan.api import Observation
from astrogan.backends.classic.unsupervised_wiener import UnsupervisedWiener
from astrogan.backends.classic.wiener import Wiener
from astrogan.exceptions import InputError


def observation(rng, sky=1.0, size=72):
    truth = np.zeros((size, size))
    truth[tuple(rng.integers(10, size - 10, (2, 15)))] = 3000
    truth = gaussian_filter(truth, 1.5)
    psf = np.zeros((15, 15))
    psf[7, 7] = 1
    psf = gaussian_filter(psf, 1.4)
    psf /= psf.sum()
    data = gaussian_filter(truth, 1.4) + rng.normal(0, sky, truth.shape)
    return truth, Observation(data[None], psf=psf[None], variance=np.full((1, size, size), sky**2))


def test_posterior_mean_of_skimage_is_approached(rng):
    """The image is the mean that scikit-image's own sampled image scatters about."""
    from skimage.restoration import unsupervised_wiener

    _, one = observation(rng)
    ours = UnsupervisedWiener()(one, rng=rng).data[0]
    theirs, _ = unsupervised_wiener(one.data[0].astype(float) / 10, one.psf[0], clip=False, rng=3)
    inner = slice(15, -15)
    difference = (ours - 10 * theirs)[inner, inner]
    assert difference.std() < 0.08 * ours[inner, inner].std()


@pytest.mark.parametrize("sky", [0.3, 3.0])
def test_it_sharpens_without_knowing_the_noise(rng, sky):
    truth, one = observation(rng, sky)
    result = UnsupervisedWiener()(one, rng=rng)
    assert ((result.data[0] - truth) ** 2).mean() < 0.6 * ((one.data[0] - truth) ** 2).mean()
    again = Wiener(result.info["balance"], slope=4)(one)
    np.testing.assert_array_equal(result.data, again.data)
    np.testing.assert_array_equal(result.variance, again.variance)


def test_seed_decides(rng):
    _, one = observation(rng)
    balance = [UnsupervisedWiener()(one, rng=np.random.default_rng(s)).info["balance"] for s in (1, 1, 2)]
    assert balance[0] == balance[1] != balance[2]
    assert balance[2] == pytest.approx(balance[0], rel=0.2)


def test_large_images_are_sampled_in_the_middle(rng):
    _, one = observation(rng)
    part = UnsupervisedWiener(sample_size=40)(one, rng=rng)
    assert np.isfinite(part.data).all()
    with pytest.raises(InputError, match="sample_size"):
        UnsupervisedWiener(sample_size=5)
    with pytest.raises(InputError, match="max_samples"):
        UnsupervisedWiener(max_samples=10)
