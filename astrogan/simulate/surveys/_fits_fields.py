"""Images that pairs are cut from: where they are on the sky, where their sources are."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np

from astrogan.exceptions import InputError, WCSError

_SHARED = 16
"""Points along each axis at which fields are asked whether they have any sky in common."""


# ---- the images -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """An image ready to be cut: the clean arrays, the sky, and the light that centroids are measured on."""

    name: str
    prepared: object
    wcs: object
    light: np.ndarray
    noise: float

    @classmethod
    def of(cls, image, name, psf, options):
        from astrogan.image.prepare import prepare
        from astrogan.image.wcs import pixel_scale

        prepared = prepare(image, psf=psf, needs_variance=True, **dict(options or {}))
        if prepared.celestial is None:
            raise WCSError(f"{name} has no celestial WCS, and pairs are found by position on the sky; give it one")
        if pixel_scale(prepared.celestial) is None:
            raise WCSError(f"{name}: its WCS gives no pixel scale")
        light, noise = _light(prepared.observation)
        return cls(name, prepared, prepared.celestial, light, noise)

    @property
    def observation(self):
        return self.prepared.observation

    @property
    def shape(self):
        return self.observation.shape[1:]

    @property
    def scale(self):
        return self.observation.pixel_scale

    def pixels(self, ra, dec):
        """(x, y) of positions on the sky, NaN where this projection has none."""
        from astrogan.image.wcs import _change_frame, _world_to_pixel

        return _world_to_pixel(self.wcs, *_change_frame(_icrs(), self.wcs)(ra, dec))

    def sky(self, x, y):
        """(ra, dec) in degrees, ICRS."""
        from astrogan.image.wcs import _change_frame

        return _change_frame(self.wcs, _icrs())(*self.wcs.all_pix2world(x, y, 0))

    def holds(self, x, y):
        """Whether points lie on the image's pixels."""
        height, width = self.shape
        with np.errstate(invalid="ignore"):
            return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)


def _icrs():
    """A WCS that stands for its frame."""
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.radesys = ["RA---TAN", "DEC--TAN"], "ICRS"
    return wcs


def _light(observation):
    """(sum of the bands without their background, each in units of its noise; the noise of a pixel of it)."""
    from astrogan.image.uncertainty import background_rms, location_and_scale

    total = np.zeros(observation.shape[1:])
    for plane, valid in zip(observation.data, observation.valid, strict=True):
        background, rms = background_rms(plane, valid)
        total += np.where(valid, (plane - background) / np.median(rms), 0.0)
    return total, float(location_and_scale(total[observation.valid.all(axis=0)].ravel())[1] or 1.0)


def check_overlap(first, second):
    """WCSError where the fields have nothing in common."""
    from astrogan.image.wcs import _separation, pixel_mapping

    for a, b in ((first, second), (second, first)):
        height, width = a.shape
        x, y = np.meshgrid(np.linspace(-0.5, width - 0.5, _SHARED), np.linspace(-0.5, height - 0.5, _SHARED))
        if b.holds(*pixel_mapping(a.wcs, b.wcs)(x, y)).any():
            return
    middles = [image.sky((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2) for image in (first, second)]
    distance = float(_separation(*middles[0], *middles[1])) * 3600
    raise WCSError(
        "first and second have no sky in common: their middles, at ra, dec = "
        + " and ".join(f"{float(ra):.5f}, {float(dec):+.5f}" for ra, dec in middles)
        + f", are {distance:.6g} arcsec apart; check that they are of one field and that both WCSs are right"
    )


# ---- positions ------------------------------------------------------------------------------------------------------


def positions_of(positions, images, threshold):
    """(ra, dec), arrays in degrees."""
    from astropy.coordinates import SkyCoord

    if positions is None:
        return _detected(*images, threshold)
    if isinstance(positions, SkyCoord):
        icrs = positions.icrs
        return np.atleast_1d(icrs.ra.deg), np.atleast_1d(icrs.dec.deg)
    if hasattr(positions, "colnames") or hasattr(positions, "keys"):
        try:
            columns = [positions[name] for name in ("ra", "dec")]
        except KeyError:
            raise InputError("positions has no columns ra and dec, in degrees") from None
        ra, dec = (np.atleast_1d(np.asarray(getattr(c, "value", c), float)) for c in columns)
    else:
        try:
            array = np.atleast_2d(np.asarray(positions, float))
        except (TypeError, ValueError):
            array = np.empty((0, 0))
        if array.ndim != 2 or array.shape[1] != 2 or not len(array):
            raise InputError("positions must be a SkyCoord, a table with ra and dec, or (n, 2) in degrees")
        ra, dec = array.T
    if not (np.isfinite(ra).all() and np.isfinite(dec).all() and (np.abs(dec) <= 90).all()):
        raise InputError("positions must be finite, with declinations between -90 and 90 degrees")
    return ra, dec


def _detected(first, second, threshold):
    """Peaks of the first image's light that the second image holds, the brightest first."""
    from scipy.ndimage import gaussian_filter, maximum_filter

    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not threshold > 0:
        raise InputError(f"threshold={threshold!r} must be a positive number of sigma, e.g. 10")
    from astrogan.image.uncertainty import location_and_scale
    from astrogan.image.wcs import pixel_mapping

    width = max(1.0, window_of((first, second)) / first.scale)
    smooth = gaussian_filter(first.light, width)
    valid = first.observation.valid.all(axis=0)
    level, noise = location_and_scale(smooth[valid])
    # One source a neighbourhood of four widths: what is nearer is in its cut-out anyway.
    peak = (smooth == maximum_filter(smooth, size=2 * int(np.ceil(4 * width)) + 1)) & valid
    peak &= smooth > level + threshold * noise
    y, x = np.nonzero(peak)
    if not len(y):
        raise InputError(f"positions=None: no source of {threshold:g} sigma was found on first; give positions=")
    order = np.argsort(-smooth[y, x], kind="stable")
    centres = [centroid(first.light, (x[i], y[i]), width) for i in order]
    x, y = np.array([c if np.isfinite(c).all() else (x[i], y[i]) for c, i in zip(centres, order, strict=True)], float).T
    on_second = second.holds(*pixel_mapping(first.wcs, second.wcs)(x, y))
    if not on_second.any():
        raise InputError(f"positions=None: none of the {len(x)} sources of first lies on second; give positions=")
    return first.sky(x[on_second], y[on_second])


def window_of(images):
    """Sigma in arcsec of the centroids' window: the broader PSF's, or some pixels of the coarser image."""
    from astrogan.image.psf import psf_fwhm

    widths = []
    for image in images:
        psf = image.observation.psf
        pixels = 3.0 if psf is None else max(psf_fwhm(kernel) for kernel in psf)
        widths.append(pixels * image.scale)
    return max(widths) / np.sqrt(8 * np.log(2))


def centroid(light, start, sigma):
    """(x, y) of a round window that follows the light, NaN where it runs away or finds nothing."""
    x, y = map(float, start)
    reach = int(np.ceil(4 * sigma))
    for _ in range(100):
        rows = np.arange(max(0, round(y) - reach), min(light.shape[0], round(y) + reach + 1))
        columns = np.arange(max(0, round(x) - reach), min(light.shape[1], round(x) + reach + 1))
        if not (len(rows) and len(columns)):
            break
        dy, dx = (rows - y)[:, None], columns - x
        weighted = light[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] * np.exp(-(dx**2 + dy**2) / 2 / sigma**2)
        total = weighted.sum()
        if not total > 0:
            break
        # Twice: the window itself pulls the mean half-way back to its own centre.
        step = np.array([(weighted * dx).sum(), (weighted * dy).sum()]) * 2 / total
        step = np.clip(step, -sigma, sigma)
        x, y = x + step[0], y + step[1]
        if np.hypot(x - start[0], y - start[1]) > 6 * sigma:
            break
        if np.abs(step).max() < 1e-4:
            return np.array([x, y])
    return np.array([np.nan, np.nan])
