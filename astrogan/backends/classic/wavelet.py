"""Starlet denoising, and deconvolution with a multiresolution support."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from astrogan.api import Estimate, Observation
from astrogan.backends.classic._linear import (
    FiniteFilter,
    b3_smooth,
    band_info,
    fill,
    level_of,
    positive,
    quick_transforms,
    variance_plane,
    whole,
)
from astrogan.exceptions import InputError

__all__ = ["Wavelet", "starlet"]

_MOST_ITERATIONS = 60
_LEAST_PROGRESS = 1.5e-3
"""Iterations stop when a step lowers chi^2 by less than this times the number of pixels beside sources."""


class Wavelet:
    """Keep what stands out of the noise in the starlet transform; with a PSF, deconvolve to fit just that.

    The starlet (isotropic undecimated a trous transform with the B3 spline) splits the image into details of 1, 2, 4,
    ... pixels and a smooth rest. Coefficients above ``threshold`` standard deviations form the multiresolution
    support [1]_. The image is then found by iteration such that its residual has nothing left inside the support:
    amplitudes and fluxes of what is significant are kept, unlike with one-pass thresholding.

    Parameters
    ----------
    threshold : float or tuple of float
        Significance in standard deviations, one for all scales or one a scale from the finest on. Default: 4 for the
        finest scale and 3 for the others.
    scales : int
        Number of detail scales; the coarsest details are about 2**scales pixels wide. What is smoother is kept whole.
    iterations : int, optional
        Default: 4 to denoise; to deconvolve, until chi^2 beside the sources has all but stopped falling (60 at most),
        which looks at the whole image.
    deconvolve : bool, optional
        Default: whether the observation has a PSF.

    Raises
    ------
    InputError
        If an argument is out of range, or ``deconvolve=True`` without a PSF.

    Notes
    -----
    Denoising repeats x <- x + M W(d - x), with W the transform, M the support and the smooth rest always in it.
    Deconvolving filters the residual in the same way, x <- x + H^T (M W(d - H x)), with Nesterov's momentum: the
    support keeps most of the noise out of the iterations (Starck & Murtagh 1994 [2]_).

    Thresholds follow the variance, smoothed at each scale (exact where it is constant). Without one the noise is the
    robust scatter of second differences over the whole image, and the halo is -1. Masked pixels are filled smoothly
    before the transform, and never compared with the result in a deconvolution. Not linear: no variance is given.

    References
    ----------
    .. [1] J.-L. Starck, F. Murtagh & A. Bijaoui, 1995, Graph. Models Image Process. 57, 420.
    .. [2] J.-L. Starck & F. Murtagh, 1994, A&A 288, 342.
    .. [3] J.-L. Starck, J. Fadili & F. Murtagh, 2007, IEEE Trans. Image Process. 16, 297 (the starlet).

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import Observation
    >>> noise = np.random.default_rng(1).normal(size=(1, 64, 64))
    >>> result = Wavelet()(Observation(noise, variance=np.ones_like(noise)), rng=np.random.default_rng(0))
    >>> bool(result.data.std() < 0.2)
    True
    """

    halo = -1
    needs_psf = False

    def __init__(self, threshold=(4.0, 3.0), *, scales: int = 4, iterations: int | None = None, deconvolve=None):
        self.scales = whole("scales", scales, example=4)
        if self.scales > 8:
            raise InputError(f"scales={scales!r} must be at most 8, e.g. 4")
        given = threshold if isinstance(threshold, (tuple, list)) and len(threshold) else (threshold,)
        if len(given) > max(self.scales, 2):
            raise InputError(f"threshold={threshold!r} has more values than there are scales, {self.scales}")
        given = [positive("threshold", value, example=3.0, zero=True) for value in given]
        self.threshold = tuple(given + [given[-1]] * (self.scales - len(given)))[: self.scales]
        self.iterations = None if iterations is None else whole("iterations", iterations, example=40)
        if deconvolve not in (None, True, False):
            raise InputError(f"deconvolve={deconvolve!r} must be True, False or None (where there is a PSF)")
        self.deconvolve = deconvolve

    def __repr__(self):
        return f"Wavelet(threshold={self.threshold}, scales={self.scales}, iterations={self.iterations})"

    def halo_for(self, observation: Observation) -> int:
        """Twice the reach of the transform, more with a PSF; -1 where noise or stopping are found from the whole image.

        The support itself depends on one reach (2**scales - 1 times 2) exactly; the iterations couple
        further pixels, by less than 1e-5 of the peak beyond this halo.
        """
        blurred = self._has_blur(observation)
        if observation.variance is None or (blurred and self.iterations is None):
            return -1
        reach = 2 * (2**self.scales - 1)
        return 3 * reach + 2 * (observation.psf.shape[-1] // 2) if blurred else 2 * reach

    def __call__(self, observation: Observation, *, rng=None) -> Estimate:
        """Denoise, or deconvolve where there is a PSF.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
            Data (band, y, x).
        rng : `numpy.random.Generator`, optional
            Not used.

        Returns
        -------
        `~astrogan.api.Estimate`
            No variance.
        """
        blurred = self._has_blur(observation)
        data, steps = np.empty_like(observation.data), []
        for band, valid in enumerate(observation.valid):
            plane = fill(observation.data[band], valid)
            level = level_of(plane, valid)
            plane = plane - level
            variance = variance_plane(observation, band)
            noise = self._noise(variance)
            support = [
                np.abs(detail) > np.float32(k) * sigma
                for detail, k, sigma in zip(starlet(plane, self.scales), self.threshold, noise, strict=False)
            ]
            image = self._denoise(plane, support)
            if blurred:
                with quick_transforms():
                    image, done = self._deconvolve(plane, valid, image, support, variance, observation.psf[band])
                steps.append(done)
            data[band] = image + level
        return Estimate(data, info=band_info("iterations", steps, observation.bands) if steps else {})

    def _has_blur(self, observation):
        if self.deconvolve and observation.psf is None:
            raise InputError("deconvolve=True needs a PSF; give psf=, or deconvolve=False to denoise only")
        return observation.psf is not None if self.deconvolve is None else self.deconvolve

    def _noise(self, variance):
        """Standard deviation of the coefficients, a plane a scale."""
        noise = []
        for j in range(self.scales):
            variance = b3_smooth(variance, 2**j)
            noise.append(np.float32(_noise_gain(j)) * np.sqrt(variance))
        return noise

    def _denoise(self, plane, support):
        image = np.zeros_like(plane)
        for _ in range(self.iterations or 4):
            image += _filter(starlet(plane - image, self.scales), support)
        return image

    def _deconvolve(self, plane, valid, image, support, variance, psf):
        """(image, iterations done)."""
        kernel = psf.astype(np.float64) / psf.sum(dtype=np.float64)
        blur, adjoint = FiniteFilter(kernel), FiniteFilter(kernel[::-1, ::-1])
        # only where sources are, and their surroundings: an empty sky must not decide when to stop
        weight = np.where(
            _grown(np.any(support[:3], axis=0), len(kernel)) & valid,
            1 / np.maximum(variance, np.finfo(np.float32).tiny),
            0,
        )
        count = np.count_nonzero(weight)
        ahead, before, momentum, chi2, done = image, image, 1.0, np.inf, 0
        while done < (self.iterations or _MOST_ITERATIONS):
            residual = np.where(valid, plane - blur(ahead), np.float32(0))
            if self.iterations is None:
                last, chi2 = chi2, float((residual**2 * weight).sum(dtype=np.float64))
                if not last - chi2 > _LEAST_PROGRESS * count:
                    break
            image = ahead + adjoint(_filter(starlet(residual, self.scales), support))
            following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            ahead = image + np.float32((momentum - 1) / following) * (image - before)
            before, momentum, done = image, following, done + 1
        # the smooth rest settles last; what is missing of it is flux
        for _ in range(3):
            image = image + starlet(np.where(valid, plane - blur(image), np.float32(0)), self.scales)[-1]
        return image, done


def _grown(mask, size):
    return ndimage.maximum_filter(mask.view(np.uint8), size, mode="constant").astype(bool)


def _filter(parts, support):
    """What of a transformed plane lies in the support, and its smooth rest."""
    out = parts[-1]
    for part, kept in zip(parts, support, strict=False):
        out = out + np.where(kept, part, np.float32(0))
    return out


def starlet(plane: np.ndarray, scales: int) -> list[np.ndarray]:
    """The starlet transform: ``scales`` detail planes from the finest on and the smooth rest; their sum is the plane.

    Parameters
    ----------
    plane : `numpy.ndarray`
        (y, x), float; it reflects at its edges.
    scales : int
        Number of detail planes.

    Returns
    -------
    list of `numpy.ndarray`
        ``scales`` + 1 planes (y, x).
    """
    planes = []
    for j in range(scales):
        smooth = b3_smooth(plane, 2**j)
        planes.append(plane - smooth)
        plane = smooth
    return [*planes, plane]


@lru_cache
def _noise_gain(scale):
    """Standard deviation of the detail plane ``scale`` for white noise of one: the norm of its kernel."""
    reach = 2 * (2 ** (scale + 1) - 1)
    impulse = np.zeros((2 * reach + 1, 2 * reach + 1))
    impulse[reach, reach] = 1
    return float(np.sqrt((starlet(impulse, scale + 1)[scale] ** 2).sum()))
