"""Cut-outs of one place from images of two surveys."""

import pickle

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.wcs import WCS, Sip

from astrogan.exceptions import InputError, WCSError
from astrogan.simulate.surveys.fits_pairs import pairs_from_fits

CENTRE = 150.0, 2.0
# Offsets in arcsec from the fields' centre, to the east and the north, and fluxes.
SOURCES = [(0.0, 0.0, 4000.0), (14.0, 9.0, 2500.0), (-13.0, 12.0, 2000.0)]
SIZE = 12.0


def on_sky(east, north):
    return CENTRE[0] + east / 3600 / np.cos(np.radians(CENTRE[1])), CENTRE[1] + north / 3600


POSITIONS = [on_sky(east, north) for east, north, _ in SOURCES]


def wcs_of(scale, shape, angle=0.0, flipped=False, sip=False, off=(0.0, 0.0)):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if sip else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = CENTRE
    wcs.wcs.crpix = [(shape[1] + 1) / 2 + off[0], (shape[0] + 1) / 2 + off[1]]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    sign = 1 if flipped else -1
    wcs.wcs.cd = np.array([[sign * cos, sin], [-sign * sin, cos]]) * scale / 3600
    if sip:
        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], a[1, 1], b[0, 2] = 4e-5, -2e-5, 3e-5
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    wcs.pixel_shape = shape[::-1]
    return wcs


def image_of(wcs, width=0.9, noise=1.0, seed=0, shift=(0.0, 0.0), sources=SOURCES):
    """Gaussians of one width on the sky; ``shift`` moves them, in arcsec, from where the WCS has them."""
    shape = wcs.array_shape
    y, x = np.mgrid[: shape[0], : shape[1]]
    ra, dec = wcs.all_pix2world(x, y, 0)
    east = (ra - CENTRE[0]) * 3600 * np.cos(np.radians(CENTRE[1])) - shift[0]
    north = (dec - CENTRE[1]) * 3600 - shift[1]
    data = np.random.default_rng(seed).normal(0, noise, shape)
    area = abs(np.linalg.det(wcs.wcs.cd)) * 3600**2
    for e, n, flux in sources:
        r2 = (east - e) ** 2 + (north - n) ** 2
        data += flux * area / (2 * np.pi * width**2) * np.exp(-r2 / 2 / width**2)
    return CCDData(data.astype("f4"), unit="adu", wcs=wcs, meta={"BAND": "r"})


@pytest.fixture(scope="module")
def first():
    return image_of(wcs_of(0.396, (130, 130)), width=1.2)


SECONDS = {
    "plain": {},
    "rotated": {"angle": 35.0},
    "flipped": {"flipped": True},
    "upside down": {"angle": 180.0, "off": (0.3, -0.7)},
    "distorted": {"sip": True, "angle": -20.0},
}


@pytest.mark.parametrize("kind", SECONDS)
def test_transform_leads_from_one_cut_out_to_the_other(first, kind):
    second = image_of(wcs_of(0.187, (300, 320), **SECONDS[kind]), seed=1)
    pairs = pairs_from_fits(first, second, POSITIONS, size=SIZE)
    assert [pair.reasons for pair in pairs] == [()] * 3
    for pair, (ra, dec) in zip(pairs, POSITIONS, strict=True):
        assert pair.first.shape == (1, 31, 31)
        assert pair.second.shape == (1, 65, 65)
        # The cut-out is native pixels, and its WCS has them where the image has them.
        (x0, y0), (u0, v0) = pair.corners
        np.testing.assert_array_equal(pair.first.data[0], first.data[y0 : y0 + 31, x0 : x0 + 31])
        np.testing.assert_array_equal(pair.second.data[0], second.data[v0 : v0 + 65, u0 : u0 + 65])
        x, y = pair.first_wcs.all_world2pix(ra, dec, 0)
        assert np.hypot(x - 15, y - 15) <= np.hypot(0.5, 0.5) + 1e-6
        # To the other, to where its WCS has the place, and back.
        there = pair.to_second(x, y)
        np.testing.assert_allclose(there, pair.second_wcs.all_world2pix(ra, dec, 0), atol=1e-6)
        np.testing.assert_allclose(pair.to_first(*there), (x, y), atol=1e-6)
        # Light follows: the source is where the transform has it.
        v, w = np.unravel_index(pair.second.data[0].argmax(), (65, 65))
        assert np.hypot(w - there[0], v - there[1]) < 3
        assert pair.offset < 0.05


def test_affine_is_the_transform_about_the_middle(first):
    pair = pairs_from_fits(first, image_of(wcs_of(0.187, (300, 320), angle=35.0)), POSITIONS[:1], size=SIZE)[0]
    scale = 0.396 / 0.187
    np.testing.assert_allclose(abs(np.linalg.det(pair.affine[:, :2])), scale**2, rtol=1e-6)
    corner = np.array([0.0, 30.0, 1.0])
    np.testing.assert_allclose(pair.affine @ corner, pair.to_second(0.0, 30.0), atol=1e-3)


def test_target_translates_a_pair(first):
    from astrogan.backends.classic.psf_matching import PSFMatching

    second = image_of(wcs_of(0.187, (300, 320), angle=35.0, flipped=True), width=0.8, noise=0.1)
    narrow, wide = (s / scale * np.sqrt(8 * np.log(2)) for s, scale in ((0.8, 0.187), (1.2, 0.396)))
    pair = pairs_from_fits(first, second, POSITIONS[:1], size=SIZE, first_psf=float(wide), second_psf=float(narrow))[0]
    target = pair.target(reverse=True)
    assert target.area_ratio == pytest.approx((0.396 / 0.187) ** 2, rel=1e-6)
    out = PSFMatching()(pair.second, target, rng=np.random.default_rng(0))
    covered = ~out.flags
    difference = (out.data - pair.first.data)[covered]
    assert np.sum(difference**2) < 2.0 * covered.sum()  # the noise of the first image is one


def test_offset_and_masks_and_footprint_set_pairs_aside(first):
    wcs = wcs_of(0.187, (260, 260))
    good, moved = image_of(wcs, seed=1), image_of(wcs, seed=1, shift=(0.25, 0.0))
    assert not any(p.quarantined for p in pairs_from_fits(first, good, POSITIONS[:1], size=SIZE))
    (pair,) = pairs_from_fits(first, moved, POSITIONS[:1], size=SIZE)
    assert pair.quarantined
    assert pair.offset == pytest.approx(0.25, abs=0.03)
    assert "centroids are 0.2" in pair.reasons[0]
    assert not pairs_from_fits(first, moved, POSITIONS[:1], size=SIZE, max_offset=0.4 * u.arcsec)[0].quarantined

    mask = np.zeros(good.shape, bool)
    mask[130, 160] = True
    masked = CCDData(good, mask=mask)
    (pair,) = pairs_from_fits(first, masked, POSITIONS[:1], size=SIZE)
    assert pair.masked == pytest.approx(1 / 65**2)
    assert "masked" in pair.reasons[0]
    assert not pair.second.valid[0, 130 - pair.corners[1][1], 160 - pair.corners[1][0]]
    assert not pairs_from_fits(first, masked, POSITIONS[:1], size=SIZE, max_masked=0.01)[0].quarantined

    # The third source is 13 arcsec west of the middle of a field that reaches 24.3.
    pairs = pairs_from_fits(first, good, POSITIONS, size=24.0)
    assert [p.footprint < 1 for p in pairs] == [False, True, True]
    assert all("footprint" in p.reasons[0] for p in pairs[1:])
    edge = pairs[2]
    outside = ~edge.second.valid[0]
    assert outside.any()
    assert (edge.second.data[0][outside] == 0).all()


def test_footprint_counts_the_other_image_too():
    """A cut-out that is whole on its own image, but of which the other sees a part."""
    large = image_of(wcs_of(0.396, (160, 160)))
    small = image_of(wcs_of(0.187, (150, 150)))  # 28 arcsec
    (pair,) = pairs_from_fits(large, small, POSITIONS[:1], shapes=((90, 90), (64, 64)))
    assert pair.first.valid.all()
    assert pair.footprint == pytest.approx((150 * 0.187 / 0.396 / 90) ** 2, abs=0.03)
    assert pair.quarantined


def test_sources_are_found(first):
    second = image_of(wcs_of(0.187, (300, 320), angle=10.0), seed=1)
    pairs = pairs_from_fits(first, second, size=SIZE)
    assert len(pairs) == 3
    for pair, wanted in zip(pairs, POSITIONS, strict=True):  # the brightest first
        assert SkyCoord(*pair.position, unit="deg").separation(SkyCoord(*wanted, unit="deg")).arcsec < 0.1
        assert not pair.quarantined
    assert len(pairs_from_fits(first, second, size=SIZE, limit=2)) == 2


def test_positions_in_every_form(first):
    second = image_of(wcs_of(0.187, (300, 320)), seed=1)
    ra, dec = np.transpose(POSITIONS)
    forms = [
        POSITIONS,
        np.array(POSITIONS),
        SkyCoord(ra * u.deg, dec * u.deg),
        SkyCoord(ra * u.deg, dec * u.deg).galactic,
        Table({"ra": ra * u.deg, "dec": dec * u.deg}),
        {"ra": ra, "dec": dec},
    ]
    corners = [[pair.corners for pair in pairs_from_fits(first, second, form, size=SIZE)] for form in forms]
    assert all(one == corners[0] for one in corners)


def test_files_bands_and_frames(tmp_path, first):
    """Two files a survey, one survey in galactic coordinates: the places are the same."""
    second = image_of(wcs_of(0.187, (300, 320)), seed=1)
    paths = []
    for name, image in (("a", first), ("b", second)):
        paths.append(tmp_path / f"{name}.fits")
        image.write(paths[-1])
    galactic = WCS(naxis=2)
    galactic.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
    centre = SkyCoord(*CENTRE, unit="deg").galactic
    galactic.wcs.crval, galactic.wcs.crpix = [centre.l.deg, centre.b.deg], [150.5, 150.5]
    galactic.wcs.cdelt = [-0.187 / 3600, 0.187 / 3600]
    turned = CCDData(np.random.default_rng(3).normal(size=(300, 300)), unit="adu", wcs=galactic)
    (pair,) = pairs_from_fits(str(paths[0]), turned, POSITIONS[:1], size=SIZE)
    np.testing.assert_allclose(
        pair.second_wcs.all_world2pix(centre.l.deg, centre.b.deg, 0),
        pair.to_second(*pair.first_wcs.all_world2pix(*POSITIONS[0], 0)),
        atol=1e-6,
    )
    cubes = [{"g": image, "r": image} for image in (first, second)]
    (pair,) = pairs_from_fits(*cubes, POSITIONS[:1], size=SIZE)
    assert pair.first.bands == pair.second.bands == ("g", "r")
    assert not pair.quarantined
    assert fits.getdata(paths[1]).shape == (300, 320)


def test_nothing_is_changed_and_a_pair_is_pickled(first):
    second = image_of(wcs_of(0.187, (300, 320)), seed=1)
    before = first.data.copy(), second.data.copy()
    (pair,) = pairs_from_fits(first, second, POSITIONS[:1], size=SIZE)
    np.testing.assert_array_equal(first.data, before[0])
    np.testing.assert_array_equal(second.data, before[1])
    again = pickle.loads(pickle.dumps(pair))
    np.testing.assert_allclose(again.to_second(3.0, 4.0), pair.to_second(3.0, 4.0))


def test_bad_input_is_said(first):
    second = image_of(wcs_of(0.187, (300, 320)), seed=1)
    far = wcs_of(0.187, (300, 320))
    far.wcs.crval = [CENTRE[0], CENTRE[1] + 1]
    with pytest.raises(WCSError, match=r"no sky in common.*3600"):
        pairs_from_fits(first, image_of(far, sources=[]), POSITIONS, size=SIZE)
    opposite = wcs_of(0.187, (300, 320))
    opposite.wcs.crval = [CENTRE[0] + 180, -CENTRE[1]]
    with pytest.raises(WCSError, match="no sky in common"):
        pairs_from_fits(first, CCDData(np.random.default_rng(0).normal(size=(300, 320)), unit="adu", wcs=opposite))
    with pytest.raises(WCSError, match="second has no celestial WCS"):
        pairs_from_fits(first, CCDData(np.ones((60, 60)), unit="adu"))
    with pytest.raises(InputError, match="none of the 1 positions lies on both"):
        pairs_from_fits(first, second, [(10.0, 10.0)])
    with pytest.raises(InputError, match="no source of 1e"):
        pairs_from_fits(first, second, threshold=1e6)
    for positions in ([(1, 2, 3)], "here", {"x": [1]}, [(np.nan, 1)], [(0, 95)]):
        with pytest.raises(InputError, match="positions"):
            pairs_from_fits(first, second, positions)
    for option in (
        {"max_masked": 2},
        {"min_footprint": "all"},
        {"max_offset": -1},
        {"size": 0},
        {"shapes": 64},
        {"shapes": ((0, 5), (5, 5))},
        {"threshold": -1, "positions": None},
    ):
        name = next(iter(option))
        with pytest.raises(InputError, match=name):
            pairs_from_fits(first, second, **{"positions": POSITIONS} | option)


def test_pair_of_nothing_is_set_aside(first):
    """Blank sky has no centroid, or one at random: either is a reason."""
    second = image_of(wcs_of(0.187, (300, 320)), seed=1)
    (pair,) = pairs_from_fits(first, second, [on_sky(5.0, -15.0)], size=SIZE)
    assert pair.quarantined
    assert "centroid" in pair.reasons[0]
