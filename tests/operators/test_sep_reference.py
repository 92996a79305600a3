"""Detection and photometry against SExtractor's own catalogue of a real image.

The image (256 x 256 pixels, 1992, EMMI at the NTT) comes with SExtractor's background and rms maps and catalogue:
65 objects, DETECT_THRESH 1.5 and DETECT_MINAREA 5 by all appearances, FLUX_APER in apertures of 5 pixels' radius.
"""

import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty
from photutils.aperture import CircularAperture, aperture_photometry
from scipy.spatial import cKDTree

from astrogan import Deblender, read_image

pytestmark = pytest.mark.data

COLUMNS = {"x": 1, "y": 2, "a": 11, "aper": 12, "aper_err": 13, "auto": 15, "auto_err": 16, "flags": -1}


@pytest.fixture(scope="module")
def reference(data_dir):
    """The background-subtracted image with its rms, and SExtractor's catalogue (0-based pixels)."""
    folder = data_dir / "sep_ref"
    image, background, rms = (
        read_image(folder / f"{name}.fits", unit="count").data.astype(np.float64) for name in ("image", "back", "rms")
    )
    table = np.loadtxt(folder / "image.cat")
    catalogue = {name: table[:, column] for name, column in COLUMNS.items()}
    catalogue["x"], catalogue["y"] = catalogue["x"] - 1, catalogue["y"] - 1
    catalogue["flags"] = catalogue["flags"].astype(int)
    return CCDData(image - background, unit="count", uncertainty=StdDevUncertainty(rms)), catalogue


def match(result, catalogue, radius=2.5):
    """For each of SExtractor's objects the index of ours, and whether it is within ``radius`` pixels.

    SExtractor gives barycentres, we peaks: on the two most diffuse objects they are 1.7 and 2.2 pixels apart.
    """
    tree = cKDTree(np.stack([result.catalog["x"], result.catalog["y"]], axis=1))
    distance, index = tree.query(np.stack([catalogue["x"], catalogue["y"]], axis=1))
    return index, distance < radius, distance


@pytest.mark.parametrize("backend", ["watershed", "symmetric"])
def test_finds_what_sextractor_finds(reference, backend):
    image, catalogue = reference
    result = Deblender(backend, threshold=1.5, min_area=5)(image)
    index, found, distance = match(result, catalogue)
    extra = len(result) - len(np.unique(index[found]))
    print(
        f"SExtractor {len(found)} objects, {backend} {len(result)}: completeness {found.mean():.3f}, {extra} more; "
        f"median offset {np.median(distance[found]):.2f} px"
    )
    assert found.all()
    assert extra <= 12
    assert np.median(distance[found]) < 0.25
    assert len(np.unique(index[found])) == found.sum()  # one to one


def test_aperture_fluxes_at_our_positions_are_sextractors(reference):
    image, catalogue = reference
    result = Deblender("watershed")(image)
    index, found, _ = match(result, catalogue)
    positions = np.stack([result.catalog["x"], result.catalog["y"]], axis=1)[index]
    flux = aperture_photometry(image.data, CircularAperture(positions, r=5), method="exact")["aperture_sum"]
    clean = found & (catalogue["flags"] == 0)
    pulls = (flux - catalogue["aper"])[clean] / catalogue["aper_err"][clean]
    ratio = (flux / catalogue["aper"])[clean]
    print(
        f"FLUX_APER at our positions, {clean.sum()} unflagged objects: median ratio {np.median(ratio):.4f}, "
        f"largest difference {np.abs(pulls).max():.2f} of FLUXERR_APER"
    )
    assert clean.sum() > 45
    assert abs(np.median(ratio) - 1) < 0.01
    assert np.median(np.abs(pulls)) < 0.15
    assert ((np.abs(pulls) < 1) | (np.abs(ratio - 1) < 0.03)).all()


@pytest.mark.parametrize("backend", ["watershed", "symmetric"])
def test_source_fluxes_agree_with_flux_auto(reference, backend):
    """Total fluxes by two definitions: Kron apertures there, shared footprints here."""
    image, catalogue = reference
    result = Deblender(backend)(image)
    index, found, _ = match(result, catalogue)
    bright = found & (catalogue["flags"] == 0) & (catalogue["auto"] > 15 * catalogue["auto_err"])
    ratio = result.catalog["flux_0"].value[index][bright] / catalogue["auto"][bright]
    print(f"{backend} / FLUX_AUTO, {bright.sum()} objects above 15 sigma: median {np.median(ratio):.3f}, "
          f"16th to 84th percentile {np.percentile(ratio, 16):.3f} to {np.percentile(ratio, 84):.3f}")  # fmt: skip
    assert bright.sum() >= 20
    assert abs(np.median(ratio) - 1) < 0.05
    assert np.percentile(np.abs(ratio - 1), 80) < 0.15


def test_conserved(reference):
    image, _ = reference
    for backend in ("watershed", "symmetric"):
        recomposed = Deblender(backend)(image).recompose()
        assert np.abs(recomposed.data - image.data).max() <= 1e-6 * np.abs(image.data).max()


def test_the_raw_image_needs_no_background_map(reference, data_dir):
    """With ``background="local"`` the image with its sky of 6,850 counts gives the same sources."""
    _, catalogue = reference
    raw = read_image(data_dir / "sep_ref" / "image.fits", unit="count")
    result = Deblender("watershed", background="local")(raw)
    _, found, _ = match(result, catalogue)
    assert found.mean() > 0.9
    assert abs(np.median(result.residual.data) - 6850) < 30
    assert np.abs(result.recompose().data - raw.data).max() <= 1e-6 * raw.data.max()
