"""Deblender on real images, and on simulated ones with known truth from another group's renderer.

``psf_{matched,unmatched}_sim.npz`` hold two blends in six bands with the noiseless image of every component; the sum
of all and noise is the image. Rows that share a position (bulge and disk) are one source.
"""

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

from astrogan import Deblender
from astrogan.backends.classic._detection import Detector
from astrogan.backends.classic.symmetric import Symmetric
from astrogan.image.blends import solve_blends

pytestmark = pytest.mark.data


def load_truth(path):
    """Image (band, y, x), PSF, positions (source, 2) and truth (source, band, y, x)."""
    with np.load(path, allow_pickle=True) as file:
        image, psfs, bands, rows = (file[name] for name in ("images", "psfs", "filters", "catalog"))
    positions, index = np.unique(np.stack([rows["x"], rows["y"]], axis=1), axis=0, return_inverse=True)
    truth = np.zeros((len(positions), *image.shape))
    for row, i in zip(rows, index.ravel(), strict=True):
        truth[i] += np.stack([row[f"intensity_{band}"] for band in bands])
    return image, psfs / psfs.sum(axis=(1, 2), keepdims=True), positions, truth, list(bands)


def errors(backend, path):
    """|dF/F| of (source, band), the S/N of each, and the cosine of its image with the truth."""
    image, psfs, positions, truth, bands = load_truth(path)
    result = Deblender(backend)(CCDData(image, unit="adu"), positions, psf=psfs)
    assert np.abs(result.recompose().data - image).max() <= 1e-6 * np.abs(image).max()
    light = np.stack([result.full(i).data for i in range(len(positions))])
    relative = np.abs(light.sum(axis=(2, 3)) / truth.sum(axis=(2, 3)) - 1)
    norms = np.sqrt((truth**2).sum(axis=(2, 3)) * (light**2).sum(axis=(2, 3)))
    noise = np.std(image - truth.sum(axis=0), axis=(1, 2))
    return relative, np.sqrt((truth**2).sum(axis=(2, 3))) / noise, (light * truth).sum(axis=(2, 3)) / norms, bands


@pytest.mark.parametrize(
    ("name", "median", "mean", "cosine"), [("matched", 0.08, 0.27, 0.94), ("unmatched", 0.26, 0.36, 0.95)]
)
def test_fluxes_of_simulated_hsc_blends(data_dir, name, median, mean, cosine):
    """Over sources and bands with S/N above 5 (a star of flux 2 under a noise of 5 a pixel is left out)."""
    path = data_dir / "hsc_hst_scarlet" / f"psf_{name}_sim.npz"
    found = {}
    for backend in ("watershed", "symmetric"):
        relative, snr, cosines, bands = errors(backend, path)
        bright = snr > 5
        by_band = [(np.median(r[b]), np.mean(r[b])) for r, b in zip(relative.T, bright.T, strict=True)]
        text = ", ".join(f"{band} {m:.3f}/{a:.3f}" for band, (m, a) in zip(bands, by_band, strict=True))
        found[backend] = np.median(relative[bright]), np.mean(relative[bright]), np.median(cosines)
        print(f"{name} {backend}: median/mean |dF/F| {text}; all {found[backend][0]:.3f}/{found[backend][1]:.3f}, "
              f"median cosine {found[backend][2]:.3f}")  # fmt: skip
    ours, theirs = found["symmetric"], found["watershed"]
    assert ours[0] < median
    assert ours[1] < mean
    assert ours[2] > cosine
    assert ours[0] < 0.75 * theirs[0]  # a watershed from the true positions
    assert ours[2] > theirs[2] + 0.03


@pytest.mark.parametrize("backend", ["watershed", "symmetric"])
@pytest.mark.parametrize(
    "name", ["hsc_cosmos.npz", "hsc_cosmos_35.npz", "history/real_data/hsc_cosmos/43158172147386355.npz"]
)
def test_real_hsc_blends_are_conserved(data_dir, name, backend):
    with np.load(data_dir / "hsc_hst_scarlet" / name, allow_pickle=True) as file:
        image = file["images"].astype("f4")
        rows = file.get("catalog")
        # Peaks are stored as (y, x).
        positions = file["peaks"][:, ::-1] if rows is None else np.stack([rows["x"], rows["y"]], axis=1)
        psfs = file["psfs"]
    psfs = psfs / psfs.sum(axis=(1, 2), keepdims=True)
    ccd = CCDData(image, unit="adu")
    for where in (positions, None):
        result = Deblender(backend)(ccd, where, psf=psfs)
        assert len(result) >= 4
        assert where is None or len(result) == len(positions)
        assert np.abs(result.recompose().data - image).max() <= 1e-6 * np.abs(image).max()
        # Nearly all the light is in the sources.
        assert abs(np.sum(result.residual.data[2])) < 0.05 * np.sum(image[2])


def test_a_real_blend_in_another_order_and_by_several_threads(data_dir):
    """88 sources of a real blend: the order of the peaks and the number of workers change nothing, to the last bit."""
    with np.load(data_dir / "hsc_hst_scarlet" / "hsc_cosmos.npz", allow_pickle=True) as file:
        image, psfs, rows = file["images"].astype("f4"), file["psfs"], file["catalog"]
        positions = np.stack([rows["x"], rows["y"]], axis=1)
    ccd, order = CCDData(image, unit="adu"), np.random.default_rng(0).permutation(len(positions))
    psf = psfs / psfs.sum(axis=(1, 2), keepdims=True)
    backend = BlendByBlend()
    straight = Deblender(backend, workers=1)(ccd, positions, psf=psf)
    shuffled = Deblender(backend, workers=4)(ccd, positions[order], psf=psf)
    assert np.abs(straight.recompose().data - image).max() <= 1e-6 * np.abs(image).max()
    for k, i in enumerate(order):
        assert np.array_equal(shuffled.sources[k].data, straight.sources[i].data)
    assert np.array_equal(shuffled.residual.data, straight.residual.data)


class BlendByBlend:
    """The symmetric deblender on one blend at a time."""

    def __init__(self):
        self._detect = Detector()
        self._separate = Symmetric()

    def detect(self, observation, positions):
        return self._detect(observation, positions)

    def separate(self, blend, *, rng):
        return self._separate(blend.observation, blend.positions, rng=rng).templates

    def __call__(self, observation, positions=None, *, rng):
        return solve_blends(self, observation, positions, rng=rng)


@pytest.mark.parametrize("backend", ["watershed", "symmetric", BlendByBlend])
def test_a_field_of_kids_is_conserved(data_dir, backend):
    window = (slice(300, 812), slice(200, 712))
    bands = {}
    for band in "rgi":
        data = fits.getdata(data_dir / "kids_viking_field" / f"{band}.fits", 1)[window]
        bands[band] = CCDData(np.array(data, "f4"), unit="adu")
    backend = backend if isinstance(backend, str) else backend()
    result = Deblender(backend)(bands)
    cube = np.stack([band.data for band in bands.values()])
    worst = np.abs(result.recompose().data - cube).max() / np.abs(cube).max()
    print(f"KiDS 512 x 512 gri, {backend}: {len(result)} sources, conserved to {worst:.1e} of the maximum")
    assert worst <= 1e-6
    assert 100 < len(result) < 200
    assert (result.catalog["flux_r"] > 3 * result.catalog["flux_err_r"]).mean() > 0.8
    # The same detection on the negative image finds next to nothing: what was found is real.
    mirrored = Deblender(backend)({name: CCDData(-band.data, unit="adu") for name, band in bands.items()})
    assert len(mirrored) < 0.06 * len(result)
