"""What is measured of each restored image in the restoration benchmark, and of blank sky."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from astrogan.bench._stamps import Stamp, resized
from astrogan.image.stretch import GalaxyGAN2017Stretch
from astrogan.metrics import aperture_flux, false_detections, psnr, ssim

__all__ = ["PHOTOMETRY", "Reference", "blank_sky_scores", "levels"]

PHOTOMETRY = ("ssim", "flux_bias", "ellipticity_error", "texture")
_THRESHOLD = 5.0
_STRETCH = GalaxyGAN2017Stretch()


def levels(flux, size=None):
    """The paper's domain: flux clipped to [-0.1, 4], asinh stretch, 8 bits, resized to ``size``."""
    return resized(np.rint(255 * np.clip(_STRETCH.forward(flux), 0, 1)).astype(np.uint8), size)


@dataclass(frozen=True)
class Reference:
    """A stamp and all that is measured of it once.

    Parameters
    ----------
    stamp : Stamp
    size : int or None
        Edge of the images that are compared in the paper's domain.
    radius : float
        Of the aperture, pixels.
    """

    stamp: Stamp
    size: int | None
    radius: float

    @cached_property
    def levels(self):
        """The target in the paper's domain."""
        return levels(self.stamp.flux, self.size)

    @cached_property
    def peak(self):
        """The target's largest flux: the data range in linear flux."""
        return float(self.stamp.flux.max())

    @cached_property
    def segment(self):
        """Pixels of the central object: connected, above three sigma of the smoothed sum of the bands."""
        from scipy.ndimage import gaussian_filter, label

        smooth = gaussian_filter(self._light(self.stamp.flux), 2.0)
        y, x = self._brightest(smooth)
        # Neighbouring pixels of resized pictures are correlated, so the noise is not taken to fall as for white.
        sigma = 0.5 * float(np.sqrt((self.stamp.sky_sigma**2).sum()))
        objects, _ = label(smooth > min(3 * sigma, 0.5 * smooth[y, x]))
        return objects == objects[y, x]

    @cached_property
    def position(self):
        """(x, y) of the central object's brightest pixel, smoothed a little."""
        from scipy.ndimage import gaussian_filter

        y, x = self._brightest(gaussian_filter(self._light(self.stamp.flux), 2.0))
        return float(x), float(y)

    @cached_property
    def flux(self):
        """Of the aperture, all bands together."""
        return self._flux(self.stamp.flux)

    @cached_property
    def ellipticity(self):
        """(e1, e2) of the central object."""
        return self._ellipticity(self.stamp.flux)

    @cached_property
    def texture(self):
        """Of each band of the target, see `_texture`."""
        return np.maximum(_texture(self.stamp.flux), 1e-6)

    def scores(self, image, photometry):
        """PSNR in both domains, and where asked for what costs more."""
        seen = levels(image, self.size)
        values = {
            "psnr": psnr(self.levels, seen, data_range=255),
            "psnr_linear": psnr(self.stamp.flux, image, data_range=self.peak),
        }
        if not photometry:
            return values | dict.fromkeys(PHOTOMETRY, np.nan)
        return values | {
            "ssim": ssim(self.levels, seen, data_range=255) if min(seen.shape[1:]) >= 11 else np.nan,
            "flux_bias": 100 * (self._flux(image) / self.flux - 1) if self.flux > 0 else np.nan,
            "ellipticity_error": float(np.hypot(*(self._ellipticity(image) - self.ellipticity))),
            "texture": float(np.median(_texture(image) / self.texture)),
        }

    def noise_limit(self, rng):
        """PSNR that the target's own sky noise allows a noise-free image, in the paper's domain."""
        noise = rng.normal(size=self.stamp.flux.shape) * self.stamp.sky_sigma[:, None, None]
        if self.size is not None and self.stamp.flux.shape[1:] != (self.size, self.size):
            return np.nan  # resizing averages noise whose correlation is not known
        return psnr(self.levels, levels(self.stamp.flux - noise), data_range=255)

    def ceiling(self):
        """PSNR of the noise-free truth, where there is one, else NaN."""
        if self.stamp.noise_free is None:
            return np.nan
        return psnr(self.levels, levels(self.stamp.noise_free, self.size), data_range=255)

    def _brightest(self, image):
        """(y, x) of the largest value in the central third."""
        ny, nx = image.shape
        y, x = ny // 3, nx // 3
        inner = image[y : ny - y, x : nx - x]
        at = np.unravel_index(inner.argmax(), inner.shape)
        return at[0] + y, at[1] + x

    def _light(self, image):
        """The sum of the bands over the original's sky, (y, x)."""
        return np.asarray(image, np.float64).sum(axis=0) - float(self.stamp.sky_level.sum())

    def _flux(self, image):
        return aperture_flux(self._light(image), self.position, self.radius)

    def _ellipticity(self, image):
        """From unweighted moments over the fixed segment; NaN where noise leaves no positive trace."""
        light = np.where(self.segment, self._light(image), 0)
        total = light.sum()
        y, x = np.indices(light.shape)
        if not total > 0:
            return np.full(2, np.nan)
        dx, dy = x - (light * x).sum() / total, y - (light * y).sum() / total
        xx, yy, xy = (light * dx * dx).sum(), (light * dy * dy).sum(), (light * dx * dy).sum()
        return np.array([xx - yy, 2 * xy]) / (xx + yy) if xx + yy > 0 else np.full(2, np.nan)


def _texture(image):
    """(band,): robust scatter of what is finer than about eight pixels, which is noise, or what looks like it."""
    from scipy.ndimage import gaussian_filter

    fine = image - gaussian_filter(image, (0, 2, 2))
    return 1.4826 * np.median(np.abs(fine), axis=(1, 2))


def blank_sky_scores(degraded, restored):
    """False sources per 10^6 pixels above five sigma on blank sky.

    Parameters
    ----------
    degraded, restored : list of `numpy.ndarray`
        Frames (band, y, x) of degraded sky and what a method made of them.

    Returns
    -------
    dict
        ``false_before`` of the degraded sky; ``false_after`` of the restored one, sigma being its own robust noise;
        ``false_input_sigma`` of the restored one by the noise of the degraded one.
    """
    counts = np.zeros(3)
    pixels = 0
    for before, after in zip(degraded, restored, strict=True):
        for plane, result in zip(before, after, strict=True):
            plane, result = (p - np.median(p).astype(np.float64) for p in (plane, result))
            found = false_detections(plane, threshold=_THRESHOLD)
            counts += (found.positive, _own(result), _by(result, found.sigma))
            pixels += plane.size
    names = ("false_before", "false_after", "false_input_sigma")
    return dict(zip(names, (1e6 * counts / pixels).tolist(), strict=True))


def _own(plane):
    if not np.median(np.abs(plane)) > 0:  # a constant: nothing above it by any measure but what is not constant
        return int(np.count_nonzero(plane > 0))
    return false_detections(plane, threshold=_THRESHOLD).positive


def _by(plane, sigma):
    return false_detections(plane, threshold=_THRESHOLD, sigma=sigma).positive
