"""World coordinates after a crop, a change of scale, on a cube and through FITS."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, NDDataRef
from astropy.wcs import WCS, DistortionLookupTable, Sip
from hypothesis import given, settings
from hypothesis import strategies as st

from astrogan.exceptions import InputError, WCSError
from astrogan.image.wcs import (
    celestial,
    crop_wcs,
    cube_wcs,
    local_scale,
    pixel_mapping,
    pixel_scale,
    replace_celestial,
    rescale_wcs,
    wcs_equal,
    wcs_from_header,
)

SHAPE = (120, 100)  # (y, x)


def tan(scale=0.2, angle=0.0, flip=True, crval=(150.1, 2.2), crpix=(43.7, 71.2), shape=SHAPE):
    """A gnomonic WCS with a CD matrix, north turned by ``angle`` degrees; ``flip`` has east to the left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = crval
    wcs.wcs.crpix = crpix
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[c, -s], [s, c]]) @ np.diag([-1 if flip else 1, 1]) * scale / 3600
    wcs.pixel_shape = shape[::-1]
    return wcs


def all_sky(scale, crpix=(1080.5, 540.5)):
    """An Aitoff projection, whose corners are off the sky."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["GLON-AIT", "GLAT-AIT"]
    wcs.wcs.crpix, wcs.wcs.cdelt = crpix, (-scale / 3600, scale / 3600)
    return wcs


def tan_pc():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = (10.0, -30.0), (50.0, 60.0)
    wcs.wcs.cdelt = (-0.2 / 3600, 0.2 / 3600)
    wcs.wcs.pc = [[0.8, -0.6], [0.6, 0.8]]
    return wcs


def tan_crota():
    header = fits.Header()
    header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=10.0, CRVAL2=40.0, CRPIX1=50.0, CRPIX2=60.0)
    header.update(CDELT1=-2e-4, CDELT2=2e-4, CROTA2=33.0)
    return WCS(header)


def sip(scale=0.2, angle=20.0, flip=True, strength=1.0, inverse=True):
    """Distorted by some pixels over the image."""
    wcs = tan(scale, angle, flip)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[2, 0], a[1, 1], a[0, 2], a[3, 0] = np.array([3e-4, -1e-4, 2e-4, 1e-6]) * strength
    b[2, 0], b[1, 1], b[0, 2], b[1, 2] = np.array([-2e-4, 1e-4, 3e-4, -1e-6]) * strength
    ap, bp = (-a, -b) if inverse else (None, None)
    wcs.sip = Sip(a, b, ap, bp, wcs.wcs.crpix)
    return wcs


def tpv():
    header = fits.Header()
    header.update(NAXIS=2, NAXIS1=SHAPE[1], NAXIS2=SHAPE[0], CTYPE1="RA---TPV", CTYPE2="DEC--TPV")
    header.update(CRVAL1=150.0, CRVAL2=2.0, CRPIX1=50.0, CRPIX2=60.0)
    header.update(CD1_1=-1e-4, CD1_2=1e-5, CD2_1=1e-5, CD2_2=1e-4)
    header.update(PV1_0=1e-5, PV1_1=1.0, PV1_2=1e-3, PV1_4=0.2, PV1_7=0.5, PV2_1=1.001, PV2_4=0.2, PV2_5=-0.1)
    return WCS(header)


def lookup():
    """Distortion look-up tables, as HST's, on top of SIP."""
    wcs = sip(strength=0.3)
    y, x = np.mgrid[:12, :10].astype(np.float32)
    for name, data in (("cpdis1", 0.3 * np.sin(x + y)), ("cpdis2", 0.2 * np.cos(x - y))):
        table = DistortionLookupTable(data.astype(np.float32), (1.0, 1.0), (1.0, 1.0), (10.0, 12.0))
        setattr(wcs, name, table)
    return wcs


SYSTEMS = {
    "plain": tan(),
    "rotated": tan(angle=37.0),
    "flipped": tan(angle=-120.0, flip=False),
    "pc": tan_pc(),
    "crota": tan_crota(),
    "sip": sip(),
    "sip without inverse": sip(inverse=False),
    "tpv": tpv(),
    "look-up tables": lookup(),
}


@pytest.fixture(params=SYSTEMS, ids=lambda name: name.replace(" ", "-"))
def wcs(request):
    return SYSTEMS[request.param].deepcopy()


@pytest.fixture(params=[name for name in SYSTEMS if name != "look-up tables"], ids=lambda name: name.replace(" ", "-"))
def wcs_in_header(request):
    """Those that a header holds; look-up tables live in extensions of their own."""
    return SYSTEMS[request.param].deepcopy()


def separation(sky_a, sky_b):
    """Largest angle in arcsec."""
    from astropy.coordinates import angular_separation

    return np.degrees(angular_separation(*np.radians([*sky_a, *sky_b]))).max() * 3600


def points(n=100, shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, shape[1] - 0.5, n), rng.uniform(-0.5, shape[0] - 0.5, n)


class TestCrop:
    def test_hundred_points(self, wcs):
        x, y = points()
        cropped = crop_wcs(wcs, 13, 29, (50, 40))
        assert separation(wcs.all_pix2world(x, y, 0), cropped.all_pix2world(x - 13, y - 29, 0)) < 1e-6
        assert cropped.pixel_shape == (40, 50)

    def test_corners_of_a_plain_one_to_1e_10_degrees(self):
        corners = np.array([[-0.5, -0.5], [99.5, -0.5], [-0.5, 119.5], [99.5, 119.5]])
        for wcs in (tan(), tan(angle=200.0, flip=False), tan_pc(), tan_crota()):
            after = crop_wcs(wcs, 13, 29).all_pix2world(corners - (13, 29), 0)
            np.testing.assert_allclose(after, wcs.all_pix2world(corners, 0), rtol=0, atol=1e-10)

    def test_agrees_with_astropy_slicing(self):
        x, y = points()
        ours, theirs = crop_wcs(sip(), 7, 11), sip()[11:, 7:]
        np.testing.assert_allclose(ours.all_pix2world(x, y, 0), theirs.all_pix2world(x, y, 0), rtol=0, atol=1e-12)

    def test_negative_origin_is_a_padded_image(self):
        padded = crop_wcs(tan(), -5, -6.5)
        np.testing.assert_allclose(padded.all_pix2world(5, 6.5, 0), tan().all_pix2world(0, 0, 0), rtol=0, atol=1e-12)

    def test_size_is_unknown_without_shape(self):
        assert crop_wcs(tan(), 1, 2).pixel_shape is None

    def test_input_is_untouched(self, wcs):
        before = wcs.to_header(relax=True).tostring()
        crop_wcs(wcs, 3, 4)
        rescale_wcs(wcs, 2.0, SHAPE)
        assert wcs.to_header(relax=True).tostring() == before


class TestRescale:
    @pytest.mark.parametrize("factor", [2.0, 0.5, 1 / 3, 2.1176, 0.187 / 0.396])
    def test_corner_anchor(self, wcs, factor):
        x, y = points()
        out = rescale_wcs(wcs, factor, SHAPE)
        moved = (x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5
        assert separation(wcs.all_pix2world(x, y, 0), out.all_pix2world(*moved, 0)) < 1e-6
        assert out.pixel_shape == (int(SHAPE[1] * factor + 1e-9), int(SHAPE[0] * factor + 1e-9))

    @pytest.mark.parametrize("factor", [2.0, 0.5, 0.187 / 0.396])
    def test_centre_anchor(self, wcs, factor):
        shape_out = tuple(int(np.ceil(n * factor)) for n in SHAPE)
        x, y = points()
        out = rescale_wcs(wcs, factor, SHAPE, shape_out, anchor="centre")
        moved = [
            (p - (n - 1) / 2) * factor + (m - 1) / 2
            for p, n, m in zip((x, y), SHAPE[::-1], shape_out[::-1], strict=True)
        ]
        assert separation(wcs.all_pix2world(x, y, 0), out.all_pix2world(*moved, 0)) < 1e-6

    def test_anchors_agree_where_the_sizes_divide(self):
        corner, centre = (rescale_wcs(sip(), 0.25, SHAPE, (30, 25), anchor=a) for a in ("corner", "centre"))
        np.testing.assert_allclose(corner.wcs.crpix, centre.wcs.crpix, rtol=0, atol=1e-12)

    def test_blocks_of_pixels_have_their_common_centre(self):
        # The first block of 3 x 3 pixels is centred on pixel (1, 1); a remainder is dropped at the far edges.
        out = rescale_wcs(tan(), 1 / 3, SHAPE)
        np.testing.assert_allclose(out.all_pix2world(0, 0, 0), tan().all_pix2world(1, 1, 0), rtol=0, atol=1e-12)
        assert out.pixel_shape == (33, 40)

    def test_there_and_back(self, wcs):
        x, y = points()
        back = rescale_wcs(rescale_wcs(wcs, 0.37, SHAPE), 1 / 0.37, SHAPE)
        assert separation(wcs.all_pix2world(x, y, 0), back.all_pix2world(x, y, 0)) < 1e-6

    def test_inverse_sip_follows(self):
        x, y = points(20)
        out = rescale_wcs(sip(), 2.0, SHAPE)
        # Focal coordinates are relative to CRPIX, pixels are FITS pixels: p' = 2 p - 1/2.
        expected = 2 * np.array(sip().sip_foc2pix(x, y, 1)) - 0.5
        np.testing.assert_allclose(out.sip_foc2pix(2 * x, 2 * y, 1), expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(out.sip.ap, sip().sip.ap * 2.0 ** (1 - np.add.outer(range(4), range(4))))

    def test_keeps_the_form_of_the_linear_terms(self):
        assert rescale_wcs(tan(), 2, SHAPE).wcs.has_cd()
        np.testing.assert_allclose(rescale_wcs(tan_pc(), 2, SHAPE).wcs.cdelt, [-1e-1 / 3600, 1e-1 / 3600])
        np.testing.assert_allclose(rescale_wcs(tan_pc(), 2, SHAPE).wcs.pc, tan_pc().wcs.pc)
        assert rescale_wcs(tan_crota(), 2, SHAPE).wcs.crota[1] == 33.0

    @pytest.mark.parametrize("factor", [0, -1.0, np.nan, np.inf, None, [1, 2]])
    def test_bad_factor(self, factor):
        with pytest.raises(InputError, match="factor="):
            rescale_wcs(tan(), factor, SHAPE)

    def test_bad_anchor(self):
        with pytest.raises(InputError, match="anchor='middle'"):
            rescale_wcs(tan(), 2, SHAPE, anchor="middle")

    @settings(max_examples=60, deadline=None)
    @given(
        factor=st.floats(0.05, 20),
        angle=st.floats(-180, 180),
        flip=st.booleans(),
        scale=st.floats(0.03, 3),
        declination=st.floats(-88, 88),
        strength=st.sampled_from([0.0, 1.0]),
        x0=st.integers(-50, 50),
        y0=st.integers(-50, 50),
    )
    def test_any_system(self, factor, angle, flip, scale, declination, strength, x0, y0):
        wcs = sip(scale, angle, flip, strength) if strength else tan(scale, angle, flip)
        wcs.wcs.crval = (12.0, declination)
        x, y = points(20)
        out = rescale_wcs(crop_wcs(wcs, x0, y0), factor, SHAPE)
        moved = (x - x0 + 0.5) * factor - 0.5, (y - y0 + 0.5) * factor - 0.5
        assert separation(wcs.all_pix2world(x, y, 0), out.all_pix2world(*moved, 0)) < 1e-6


class TestPixelMapping:
    @pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "look-up tables"])
    def test_round_trip(self, name):
        a, b = SYSTEMS[name], tan(0.4, angle=11.0, flip=False, crval=SYSTEMS[name].wcs.crval)
        x, y = points()
        there = pixel_mapping(a, b)(x, y)
        back = pixel_mapping(b, a)(*there)
        assert np.abs(np.array(back) - (x, y)).max() < 1e-6

    def test_between_frames(self):
        galactic = WCS(naxis=2)
        galactic.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
        galactic.wcs.crval, galactic.wcs.crpix = (236.9, 42.3), (50.0, 60.0)
        galactic.wcs.cdelt = (-2e-4, 2e-4)
        equatorial = tan(crval=(150.1, 2.2))
        x, y = pixel_mapping(equatorial, galactic)(10.0, 20.0)
        a, b = equatorial.pixel_to_world(10.0, 20.0), galactic.pixel_to_world(x, y)
        assert a.separation(b).to_value(u.arcsec) < 1e-6

    def test_shapes_and_points_off_the_sky(self):
        to_tan = pixel_mapping(all_sky(600.0), all_sky(60.0))
        x, y = to_tan(np.array([[1079.5, 0.0]]), np.array([[539.5, 0.0]]))
        np.testing.assert_allclose([x[0, 0], y[0, 0]], [1079.5, 539.5], rtol=0, atol=1e-9)
        assert np.isnan([x[0, 1], y[0, 1]]).all()

    def test_needs_the_sky(self):
        with pytest.raises(WCSError, match="celestial"):
            pixel_mapping(WCS(naxis=2), tan())


class TestPixelScale:
    @pytest.mark.parametrize("angle", [0.0, 37.0, 180.0])
    def test_plain(self, angle):
        assert pixel_scale(tan(0.396, angle)) == pytest.approx(0.396, rel=1e-6)

    def test_of_a_cube(self):
        assert pixel_scale(cube_wcs(tan(0.2), 3)) == pytest.approx(0.2, rel=1e-6)

    def test_anisotropic_pixels_have_the_scale_of_their_area(self):
        wcs = tan()
        wcs.wcs.cd = np.diag([-0.2, 0.8]) / 3600
        assert pixel_scale(wcs) == pytest.approx(0.4, rel=1e-6)

    def test_distortion_counts(self):
        wcs = sip()
        assert pixel_scale(wcs, (40, 40)) != pytest.approx(0.2, rel=1e-3)
        assert local_scale(wcs, *(wcs.wcs.crpix - 1)) == pytest.approx(0.2, rel=1e-4)

    def test_off_the_projection(self):
        assert pixel_scale(all_sky(3600.0), (4000, 40)) == pytest.approx(3600.0)

    def test_without_sky(self):
        assert pixel_scale(None) is None
        assert pixel_scale(WCS(naxis=2)) is None


class TestCelestial:
    def test_is_a_new_object(self, wcs):
        sky = celestial(wcs)
        assert sky is not wcs
        assert sky.naxis == 2
        x, y = points()
        assert separation(sky.all_pix2world(x, y, 0), wcs.all_pix2world(x, y, 0)) < 1e-9

    def test_of_slices(self):
        sliced = NDDataRef(np.zeros(SHAPE), wcs=tan())[20:, 10:]
        np.testing.assert_allclose(celestial(sliced.wcs).wcs.crpix, tan().wcs.crpix - (10, 20))

    def test_of_a_band_of_a_cube(self):
        sliced = NDDataRef(np.zeros((3, *SHAPE)), wcs=cube_wcs(tan(), 3))[1, 20:, 10:]
        np.testing.assert_allclose(celestial(sliced.wcs).wcs.crpix, tan().wcs.crpix - (10, 20))

    def test_none_and_linear(self):
        assert celestial(None) is None
        assert celestial(WCS(naxis=2)) is None
        assert celestial(WCS(naxis=1)) is None

    def test_celestial_axes_elsewhere(self):
        with pytest.raises(WCSError, match="first two FITS axes"):
            celestial(cube_wcs(tan(), 3).sub([3, 1, 2]))

    def test_not_a_fits_wcs(self):
        with pytest.raises(WCSError, match="not a FITS WCS"):
            celestial("RA---TAN")


class TestCube:
    def test_same_sky_and_linear_bands(self, wcs):
        cube = cube_wcs(wcs, 4)
        x, y = points()
        world = cube.all_pix2world(x, y, np.full(x.size, 2.0), 0)
        assert separation(world[:2], wcs.all_pix2world(x, y, 0)) < 1e-9
        np.testing.assert_array_equal(world[2], 2.0)
        back = cube.all_world2pix(*world, 0, tolerance=1e-9)
        np.testing.assert_allclose(back, [x, y, np.full(x.size, 2.0)], rtol=0, atol=1e-6)
        assert cube.naxis == 3

    def test_celestial_part(self, wcs):
        x, y = points()
        for sky in (celestial(cube_wcs(wcs, 2)), cube_wcs(wcs, 2).celestial):
            assert sky.naxis == 2
            assert separation(sky.all_pix2world(x, y, 0), wcs.all_pix2world(x, y, 0)) < 1e-9

    def test_copies_and_pickles(self, wcs):
        cube = cube_wcs(wcs, 2)
        cube.all_pix2world(1, 2, 0, 0)
        for again in (cube.deepcopy(), copy.copy(cube), pickle.loads(pickle.dumps(cube))):
            expected, got = cube.all_pix2world(5, 6, 1, 0), again.all_pix2world(5, 6, 1, 0)
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
            assert again.pixel_shape == cube.pixel_shape

    def test_crop_and_rescale(self, wcs):
        cube = cube_wcs(wcs, 4)
        here = cube.all_pix2world(30.0, 40.0, 1.0, 0)
        np.testing.assert_allclose(crop_wcs(cube, 10, 20).all_pix2world(20.0, 20.0, 1.0, 0), here, rtol=0, atol=1e-10)
        out = rescale_wcs(cube, 0.5, (4, *SHAPE))
        np.testing.assert_allclose(out.all_pix2world(14.75, 19.75, 1.0, 0), here, rtol=0, atol=1e-10)
        assert cube.pixel_shape is None or out.pixel_shape == (50, 60, 4)

    def test_in_ccddata(self, wcs):
        ccd = CCDData(np.zeros((3, *SHAPE)), unit="adu", wcs=cube_wcs(wcs, 3))
        sliced = ccd.copy()[:, 20:60, 10:50]
        assert sliced.wcs.naxis == 3
        expected = wcs.all_pix2world(15, 26, 0)
        np.testing.assert_allclose(celestial(sliced.wcs).all_pix2world(5, 6, 0), expected, rtol=0, atol=1e-10)

    def test_through_fits(self, wcs_in_header, tmp_path):
        wcs = wcs_in_header
        CCDData(np.zeros((3, *SHAPE)), unit="adu", wcs=cube_wcs(wcs, 3)).write(tmp_path / "cube.fits")
        read = wcs_from_header(fits.getheader(tmp_path / "cube.fits"))
        assert read.naxis == 3
        x, y = points()
        assert separation(celestial(read).all_pix2world(x, y, 0), wcs.all_pix2world(x, y, 0)) < 1e-6
        np.testing.assert_allclose(read.all_pix2world(1, 2, 2, 0)[2], 2.0)

    def test_slicing_bands(self):
        cube = cube_wcs(sip(), 6)[2:, 5:, :]
        np.testing.assert_allclose(cube.all_pix2world(3, 4, 0, 0), [*sip().all_pix2world(3, 9, 0), 2.0], atol=1e-12)
        assert cube.pixel_shape == (100, 115, 4)
        cube = cube_wcs(sip(), 6)[::2]
        np.testing.assert_allclose(cube.all_pix2world(3, 4, [0, 1, 2], 0)[2], [0, 2, 4])
        assert celestial(cube_wcs(sip(), 6)[1]).naxis == 2

    def test_mixed_axes_keep_their_meaning(self):
        cube = WCS(naxis=3)
        cube.wcs.ctype = ["RA---TAN", "DEC--TAN", "BAND"]
        cube.wcs.crval, cube.wcs.crpix, cube.wcs.cdelt = (10.0, 20.0, 0.0), (5.0, 6.0, 1.0), (-1e-4, 1e-4, 1.0)
        cube.wcs.pc = [[1, 0.1, 0.2], [0, 1, 0.3], [0.01, 0, 1]]  # bands that are shifted against each other
        out = rescale_wcs(cube, 2.0, SHAPE)
        np.testing.assert_allclose(
            out.all_pix2world(20.5, 40.5, 2.0, 0), cube.all_pix2world(10, 20, 2.0, 0), rtol=0, atol=1e-12
        )

    def test_needs_the_sky_and_bands(self):
        assert cube_wcs(None, 3) is None
        with pytest.raises(WCSError, match="celestial"):
            cube_wcs(WCS(naxis=2), 3)
        with pytest.raises(InputError, match="n_bands=0"):
            cube_wcs(tan(), 0)
        with pytest.raises(NotImplementedError, match="celestial part only"):
            cube_wcs(sip(), 3).sub([2, 3])


class TestReplaceCelestial:
    def test_third_axis_stays(self):
        spectral = cube_wcs(tan(), 5)
        spectral.wcs.ctype[2], spectral.wcs.cunit[2] = "WAVE", "m"
        spectral.wcs.crval = [*spectral.wcs.crval[:2], 5e-7]
        spectral.wcs.cd = np.array([[*row, 0] for row in tan().wcs.cd] + [[0, 0, 1e-9]])
        for sky in (tan(0.4), sip(0.4)):
            out = replace_celestial(spectral, sky)
            world = out.all_pix2world(10, 20, 3, 0)
            np.testing.assert_allclose(world[:2], sky.all_pix2world(10, 20, 0), rtol=0, atol=1e-10)
            assert world[2] == pytest.approx(5e-7 + 3e-9)

    def test_two_dimensional_and_none(self):
        assert replace_celestial(sip(), tan()).naxis == 2
        assert replace_celestial(None, tan()).naxis == 2
        assert replace_celestial(cube_wcs(tan(), 2), None) is None


class TestEqual:
    def test_equal(self, wcs):
        assert wcs_equal(wcs, wcs.deepcopy(), SHAPE, 1e-9)
        assert wcs_equal(wcs, cube_wcs(wcs, 3), (3, *SHAPE), 1e-9)

    def test_unequal(self):
        assert not wcs_equal(tan(), crop_wcs(tan(), 1e-4, 0), SHAPE, 1e-6)
        assert wcs_equal(tan(), crop_wcs(tan(), 1e-4, 0), SHAPE, 1e-3)
        assert not wcs_equal(sip(), tan(angle=20.0), SHAPE, 0.01)

    def test_around_the_meridian_and_the_pole(self):
        for crval in ((0.0, 10.0), (0.0, 90.0)):
            assert wcs_equal(tan(crval=crval), tan(crval=crval), SHAPE, 1e-9)

    def test_other_frame(self):
        fk5 = tan()
        fk5.wcs.radesys, fk5.wcs.equinox = "FK5", 1975.0
        assert not wcs_equal(tan(), fk5, SHAPE, 1.0)

    def test_none(self):
        assert wcs_equal(None, None, SHAPE, 1)
        assert wcs_equal(None, WCS(naxis=2), SHAPE, 1)
        assert not wcs_equal(None, tan(), SHAPE, 1)

    def test_where_only_one_has_a_sky(self):
        whole, half = all_sky(600.0), all_sky(600.0, crpix=(0.0, 0.0))
        assert not wcs_equal(whole, half, (1080, 2160), 1e9)
        assert wcs_equal(whole, all_sky(600.0), (1080, 2160), 1e-9)


class TestHeader:
    def test_round_trip(self, wcs_in_header):
        wcs = wcs_in_header
        x, y = points()
        for changed in (wcs, crop_wcs(wcs, 13, 29), rescale_wcs(wcs, 0.4, SHAPE)):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                read = wcs_from_header(changed.to_header(relax=True), naxis=2)
            assert separation(read.all_pix2world(x, y, 0), changed.all_pix2world(x, y, 0)) < 1e-6

    def test_file(self, tmp_path):
        out = rescale_wcs(sip(), 1 / 3, SHAPE)
        CCDData(np.zeros((40, 33), np.float32), unit="adu", wcs=out).write(tmp_path / "image.fits")
        read = CCDData.read(tmp_path / "image.fits")
        assert wcs_equal(read.wcs, out, (40, 33), 1e-6)

    def test_dated_keywords_are_quiet(self):
        header = tan().to_header()
        header["RADECSYS"] = header.pop("RADESYS")
        header["DATE-OBS"] = "01/02/99"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert wcs_from_header(header).has_celestial

    def test_nothing_there(self):
        assert wcs_from_header(fits.Header()) is None
        assert wcs_from_header(fits.Header({"NAXIS": 2, "CRPIX1": 3.0})) is None

    def test_contradiction(self):
        header = tan().to_header()
        header["CTYPE2"] = "RA---TAN"
        with pytest.raises(WCSError, match="remove or correct"):
            wcs_from_header(header)


def test_none_stays_none():
    assert crop_wcs(None, 1, 2) is None
    assert rescale_wcs(None, 2, SHAPE) is None


def test_import_is_light():
    import subprocess
    import sys

    code = "import sys, astrogan.image.wcs; print([m for m in ('astropy.wcs', 'scipy', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.data
def test_survey_headers(data_dir):
    import glob

    files = sorted(glob.glob(str(data_dir / "humvi_multisurvey" / "*.fits")))
    files += sorted(glob.glob(str(data_dir / "sdss_ngc6976" / "*.fits*")))
    assert files
    for name in files:
        header = fits.getheader(name)
        wcs = wcs_from_header(header)
        shape = header["NAXIS2"], header["NAXIS1"]
        x, y = points(shape=shape)
        out = rescale_wcs(crop_wcs(wcs, 10, 20), 0.5, shape)
        assert (
            separation(wcs.all_pix2world(x, y, 0), out.all_pix2world((x - 9.5) / 2 - 0.5, (y - 19.5) / 2 - 0.5, 0))
            < 1e-6
        )
        back = pixel_mapping(out, wcs)(*pixel_mapping(wcs, out)(x, y))
        assert np.abs(np.array(back) - (x, y)).max() < 1e-6
