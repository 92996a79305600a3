"""A translator: plain arrays in, plain arrays out. It works as it is; put your own method in its place."""

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from astrogan.api import Estimate, sample_noise
from astrogan.exceptions import InputError


class MyBackend:
    """Smooth by what the PSF lacks in width, interpolate on the target's grid, add what the noise lacks.

    Parameters
    ----------
    order : int
        Of the spline that interpolates, from 1 to 5.
    """

    def __init__(self, order=3):
        if order not in (1, 2, 3, 4, 5):
            raise InputError(f"order={order!r} must be an integer from 1 to 5, e.g. 3")
        self.order = order

    def __call__(self, observation, target, *, rng):
        """Show one observation on the target's grid, in flux per pixel of the target."""
        y, x = np.mgrid[: target.shape[0], : target.shape[1]]
        at_x, at_y = (np.asarray(p, float) for p in target.to_input(x, y))
        height, width = observation.shape[1:]
        inside = (at_x > -0.5) & (at_x < width - 0.5) & (at_y > -0.5) & (at_y < height - 0.5)
        at = [np.where(inside, at_y, 0), np.where(inside, at_x, 0)]
        shape = (observation.shape[0], *target.shape)
        data, flags, sharper = np.zeros(shape, np.float32), np.zeros(shape, bool), []
        for i, band in enumerate(observation.bands):
            sigma, enough = _missing_width(observation, target, i)
            if not enough:
                sharper.append(band)
            plane = map_coordinates(gaussian_filter(observation.data[i], sigma), at, order=self.order, mode="mirror")
            data[i] = np.where(inside, plane * target.area_ratio, 0)
            bad = gaussian_filter(np.float32(~observation.valid[i]), sigma)
            flags[i] = ~inside | (map_coordinates(bad, at, order=1, mode="nearest") > 0.01)
            if target.noise is not None:
                data[i] += np.where(inside, _noise(observation, target, i, sigma, rng), 0)
        # What could not be done is said: the result then does not claim the target's PSF.
        return Estimate(data, flags=flags, info={"unmatched": ",".join(sharper)} if sharper else {})


def _missing_width(observation, target, band):
    """Standard deviation in input pixels to smooth by, and whether that brings the target's PSF about."""
    if target.psf is None or observation.psf is None:
        # Larger pixels blur like a box of their size.
        return max(target.area_ratio - 1, 0) ** 0.5 / 12**0.5, target.psf is None
    wanted = _second_moment(target.psf[band]) * target.area_ratio
    missing = wanted - _second_moment(observation.psf[band])
    return max(missing, 0) ** 0.5, missing > -0.05 * wanted


def _second_moment(kernel):
    """Mean square distance from the centre along an axis, in pixels squared."""
    offset = np.arange(len(kernel)) - len(kernel) // 2
    return float((kernel * (offset**2 + offset[:, None] ** 2)).sum() / 2)


def _noise(observation, target, band, sigma, rng):
    """Noise for the difference between the target's variance and what the smoothed image still has."""
    present = 0.0
    if observation.variance is not None and observation.valid[band].any():
        point = np.zeros(2 * int(4 * sigma + 1) + 1)
        point[len(point) // 2] = 1
        # Of white noise a filter leaves the sum of its squared weights, along y times along x.
        left = (gaussian_filter(point, sigma) ** 2).sum() ** 2
        present = np.median(observation.variance[band][observation.valid[band]]) * left * target.area_ratio**2
    level = max(float(target.noise[band]) ** 2 - present, 0) ** 0.5
    if target.noise_model is None:
        return level * rng.standard_normal(target.shape, dtype=np.float32)
    shape = (len(target.noise), *target.shape)
    return sample_noise(target.noise_model, shape, sigma=level, wcs=target.wcs_out, rng=rng)[band]
