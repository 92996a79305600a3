"""The main job on real images of five surveys, end to end from files to files."""

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.wcs import WCS

from astrogan import Deblender, Restorer, read_image, write_image
from astrogan.exceptions import UnitError

pytestmark = [
    pytest.mark.data,
    pytest.mark.filterwarnings("ignore::astrogan.exceptions.UncertaintyWarning"),
    pytest.mark.filterwarnings("ignore::astrogan.exceptions.PSFWarning"),
]


def corners_of(wcs, shape):
    height, width = shape[-2:]
    pixels = [[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]]
    return wcs.celestial.all_pix2world(pixels, 0)


def header_corners(path, hdu=0):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path) as hdus:
            header = hdus[hdu].header
            return corners_of(WCS(header), hdus[hdu].shape)


@pytest.mark.slow
def test_ngc6976_as_one_three_band_image(data_dir, tmp_path):
    """Units and WCS (to 1e-10 deg at the corners) survive, through memory and through a file."""
    paths = {band: data_dir / "sdss_ngc6976" / f"reprojected_sdss_{band}.fits.bz2" for band in "gri"}
    restorer = Restorer("richardson-lucy", psf=1.5 * u.arcsec, iterations=10)
    restored = restorer(paths)
    write_image(restored, tmp_path / "gri.fits")
    for band, path in paths.items():
        observed = read_image(path)
        image = restored[band]
        assert observed.unit == image.unit == u.Unit("nmgy")
        assert np.abs(corners_of(image.wcs, image.shape) - header_corners(path)).max() < 1e-10
        again = read_image(tmp_path / "gri.fits", hdu=band)
        assert again.unit == u.Unit("nmgy")
        assert np.abs(corners_of(again.wcs, again.shape) - header_corners(path)).max() < 1e-10
        np.testing.assert_array_equal(again.data, image.data)
        good = np.isfinite(observed.data)
        assert image.data[good].sum() == pytest.approx(observed.data[good].sum(), rel=2e-3)
        assert image.data.max() > 1.1 * np.nanmax(observed.data)
    # The mean of chi^2 is that of the saturated cores of foreground stars; the typical pixel agrees with the data.
    report = restorer.diagnose(paths, restored)
    assert np.median(report.residual**2) < 0.455
    assert report.flags.mean() < 0.2


def test_filter_names_that_are_wrong_in_the_header_do_not_merge_bands(data_dir):
    """All three files say FILTER = g; a list then gets numbers, a dict the names it was given."""
    from astrogan.image.prepare import prepare

    paths = [data_dir / "sdss_ngc6976" / f"reprojected_sdss_{band}.fits.bz2" for band in "gri"]
    assert prepare(paths).observation.bands == ("0", "1", "2")


def test_decals_with_its_inverse_variance_and_coadd_psf(data_dir):
    path = data_dir / "decals_pysersic" / "cutout_59.1067_-30.4848.fits"
    psf = fits.getdata(data_dir / "decals_pysersic" / "copsf_59.1067_-30.4848.fits", 1)
    image = read_image(path, hdu=3, unit="nmgy", uncertainty=4, uncertainty_type="ivar")
    restorer = Restorer("richardson-lucy", psf=psf, iterations=15)
    restored = restorer(image)
    assert np.abs(corners_of(restored.wcs, restored.shape) - header_corners(path, 3)).max() < 1e-10
    with fits.open(path) as hdus:
        weight, data = hdus[4].data, hdus[3].data
    good = weight > 0
    assert good.all() or restored.mask[~good].all()
    assert restored.data[good].sum() == pytest.approx(data[good].sum(), rel=0.01)
    assert 0.6 < restorer.diagnose(image, restored).reduced_chi2 < 1.3
    assert restorer(path, hdu=3, unit="nmgy", uncertainty=4, uncertainty_type="ivar").shape == (256, 256)


@pytest.mark.parametrize("survey", ["KiDS", "SDSS"])
def test_kids_and_sdss_galaxy_with_sigma_mask_and_psf(data_dir, survey):
    folder = data_dir / "kids_sdss_pairs" / survey
    name = "G265911"
    path = folder / f"{name}fitim.fits"
    with pytest.raises(UnitError, match="unit="):
        read_image(path)
    psf = fits.getdata(folder / f"{name}psfim.fits")
    reading = {
        "unit": "adu",
        "uncertainty": folder / f"{name}sigma.fits",
        "uncertainty_type": "std",
        "mask": folder / f"{name}mskim.fits",
    }
    restorer = Restorer("wiener", psf=psf)
    restored = restorer(path, **reading)
    mask = fits.getdata(folder / f"{name}mskim.fits") != 0
    assert not mask.any() or restored.mask[mask].all()
    assert restored.wcs is None
    assert restored.unit == u.adu
    data = fits.getdata(path)
    assert restored.data[~mask].sum() == pytest.approx(data[~mask].sum(), rel=0.02)
    report = restorer.diagnose(path, restored, **reading)
    assert 0.3 < report.reduced_chi2 < 1.5


@pytest.mark.slow
def test_rice_compressed_kids_field_with_a_psf_from_its_stars(data_dir):
    """1950 x 2600 pixels, tiled; the PSF is built from the field's own stars, and said so."""
    path = data_dir / "kids_viking_field" / "r.fits"
    field = read_image(path, hdu=1, unit="adu")
    assert field.shape == (2600, 1950)
    restored = Restorer("richardson-lucy", iterations=10)(field)
    assert restored.shape == field.shape
    assert "stars" in restored.meta["AGPSF"]
    assert 1.5 < restored.meta["AGFWHM"] < 4
    good = np.isfinite(field.data)
    if restored.mask is not None:
        good &= ~restored.mask
    assert restored.data[good].sum() == pytest.approx(np.asarray(field.data)[good].sum(), rel=0.01)


def test_ceers_cube_of_seven_bands(data_dir):
    path = sorted((data_dir / "jwst_ceers_stamps").glob("*.fits.gz"))[0]
    cube = read_image(path, unit="nJy")
    assert cube.shape == (7, 100, 100)
    fwhm = [2 + 0.4 * band for band in range(7)]
    restored = Restorer("richardson-lucy", iterations=8)(cube, psf=fwhm)
    assert isinstance(restored, CCDData)
    assert restored.shape == cube.shape
    assert restored.unit == u.nJy
    assert np.abs(corners_of(restored.wcs, restored.shape) - corners_of(cube.wcs, cube.shape)).max() < 1e-10
    for before, after in zip(cube.data, restored.data, strict=True):
        assert after.sum() == pytest.approx(before[np.isfinite(before)].sum(), rel=0.01)


def test_sdss_stamp_with_the_psf_of_its_header(data_dir):
    path = data_dir / "sdss_stamps_ugriz" / "stamps" / "stamp-r-253.1147-11.6072.fits.gz"
    restored = Restorer("richardson-lucy", iterations=10)(path, unit="nmgy", uncertainty=1, uncertainty_type="ivar")
    assert restored.meta["AGPSF"] == "header"
    assert 0.8 < restored.meta["AGFWHM"] * 0.396 < 2.0
    assert restored.shape == (51, 51)


def test_jpeg_stamp_is_marked_as_not_linear(data_dir, tmp_path):
    import tarfile

    with tarfile.open(data_dir / "galaxyzoo_kaggle" / "images.tar") as tar:
        member = next(m for m in tar if m.name.lower().endswith(".jpg"))
        stamp = tmp_path / "stamp.jpg"
        stamp.write_bytes(tar.extractfile(member).read())
    restored = Restorer("gaussian")(stamp)
    assert restored.shape == (3, 424, 424)
    assert restored.meta["AGLINEAR"] is False


def test_deblending_decals_adds_up(data_dir):
    path = data_dir / "decals_pysersic" / "cutout_59.1067_-30.4848.fits"
    image = read_image(path, hdu=3, unit="nmgy", uncertainty=4, uncertainty_type="ivar")
    result = Deblender("symmetric")(image)
    assert len(result.sources) > 3
    total = result.recompose()
    total = np.asarray(getattr(total, "data", total))
    good = np.isfinite(image.data)
    worst = np.abs(total[good] - image.data[good]).max()
    assert worst <= 1e-5 * np.abs(image.data[good]).max()
