"""The benchmark of degradation: that all rows do the same work, and that the ratios hold with room."""

import numpy as np
import pytest

from astrogan.backends.classic.physical_degrader import PhysicalDegrader
from astrogan.bench import degradation
from astrogan.image.psf import gaussian_psf


@pytest.fixture(scope="module")
def scenes():
    scenes = np.random.default_rng(0).random((2, *degradation.SHAPE), np.float32)
    scenes[:, :, 54:74, 54:74] += 20
    return scenes


def test_peers_do_the_same(scenes):
    """Away from the edges, at which each has its own boundary, the convolved stamps agree, and so does the noise."""
    psf = gaussian_psf(degradation._FWHM, size=degradation._KERNEL)
    options = {"gain": degradation._GAIN, "sky": degradation._SKY, "read_noise": degradation._READ}
    inside = np.s_[:, :, 24:-24, 24:-24]
    ours = PhysicalDegrader(psf).batch(scenes, rng=np.random.default_rng(0))
    theirs = degradation._astropy(scenes, psf, False)
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=1e-5)
    scatter = np.std((PhysicalDegrader(psf, **options).batch(scenes, rng=np.random.default_rng(0)) - ours)[inside])
    assert np.std((degradation._astropy(scenes, psf, True) - theirs)[inside]) == pytest.approx(scatter, rel=0.03)
    galsim = pytest.importorskip("galsim")
    drawn = degradation._galsim(galsim, scenes, False)
    assert np.abs(drawn - ours)[inside].max() < 0.02 * ours.max()
    noise = degradation._galsim(galsim, scenes, True) - drawn
    assert np.std(noise[inside]) == pytest.approx(scatter, rel=0.03)


def test_table_and_ratios():
    """Far below what a quiet machine gives, so that a busy one passes too."""
    table = degradation.run(repeats=2, stamps=16, peer_stamps=1)
    assert table.colnames == ["method", "noise", "stamps_per_s", "over_astropy", "over_galsim"]
    rows = {(row["method"], row["noise"]): row for row in table}
    assert rows["astrogan", "none"]["over_astropy"] > 8
    assert rows["astrogan", "Gaussian"]["over_astropy"] > 6
    assert rows["astrogan", "Poisson"]["over_astropy"] > 1.5
    assert rows["astropy", "none"]["over_astropy"] == pytest.approx(1)
