"""Gaussian smoothing with the width that the data themselves ask for."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from astrogan.api import Estimate, Observation
from astrogan.backends.classic._linear import (
    FWHM_TO_SIGMA,
    band_info,
    fill,
    grid_minimum,
    level_of,
    per_band,
    positive_or_auto,
    reflecting_matrix,
    variance_plane,
)
from astrogan.exceptions import InputError

__all__ = ["Gaussian"]

_GRID = np.linspace(np.log(0.4), np.log(16.0), 60)
"""Natural logarithm of the widths tried (FWHM, pixels); the narrowest leaves the image as it is."""


class Gaussian:
    """Smooth each band with a Gaussian; a denoiser, not a deconvolution.

    What comes out estimates the noise-free image *at a broader PSF*: noise goes down, so does resolution. The
    convolution is normalised over the valid pixels, so masked ones have no say, and reflects at the edges, so the
    sum over an image without a mask is kept.

    Parameters
    ----------
    fwhm : float, tuple of float, or "auto"
        Full width at half maximum of the kernel in pixels, one for all bands or one a band; 0 does nothing. "auto"
        takes the width (0 to 16 pixels) with the least Stein's unbiased risk estimate.
    shared : bool
        With "auto", one width for all bands (the risks are added in units of each band's noise), which keeps
        colours comparable. Default: a width a band.

    Raises
    ------
    InputError
        If ``fwhm`` is neither "auto" nor a finite number >= 0, or has the wrong number of bands.

    Notes
    -----
    For data d of independent variances v and a linear smoother K, ``SURE = |d - K d|^2 + 2 sum(v_i K_ii) -
    sum(v_i)`` is an unbiased estimate of the squared error against the noise-free (but still blurred) image [1]_; no
    truth is needed. The cosine transform makes all terms bilinear forms, so 60 widths cost about as much as one. Under
    a mask the data are smoothly filled for this choice. Where no variance is given, the noise is the robust scatter of
    mixed second differences. SURE takes the noise as white: on resampled images with correlated noise the width comes
    out too small.

    The variance is that of the weighted mean, each weight squared, and exact for independent pixels up to the edge;
    the noise of neighbouring output pixels is correlated.

    References
    ----------
    .. [1] C. Stein, 1981, Annals of Statistics 9, 1135, eq. (2.13) onwards.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import Observation
    >>> noise = np.random.default_rng(1).normal(size=(1, 64, 64))
    >>> result = Gaussian()(Observation(noise), rng=np.random.default_rng(0))
    >>> bool(result.data.std() < 0.1), bool(result.info["fwhm"] > 10)
    (True, True)
    """

    needs_psf = False

    def __init__(self, fwhm="auto", *, shared: bool = False):
        self.fwhm = positive_or_auto("fwhm", fwhm, example=2.5, zero=True)
        if not isinstance(shared, (bool, np.bool_)):
            raise InputError(f"shared={shared!r} must be True or False")
        self.shared = bool(shared)

    def __repr__(self):
        return f"Gaussian(fwhm={self.fwhm!r}, shared={self.shared})"

    @property
    def halo(self) -> int:
        """Radius of the widest kernel; -1 for "auto", which looks at the whole image."""
        return -1 if self.fwhm == "auto" else max(map(_radius, np.atleast_1d(self.fwhm)))

    def for_image(self, observation: Observation) -> Gaussian:
        """A `Gaussian` with the widths that "auto" takes for this observation; its halo is finite."""
        if self.fwhm != "auto":
            return self
        risks = [self._risk(observation, band) for band in range(len(observation.data))]
        if self.shared:
            total = sum((risk for risk in risks if risk is not None), np.zeros(len(_GRID)))
            risks = [total] * len(risks)
        widths = [0.0 if risk is None else float(np.exp(grid_minimum(risk, _GRID))) for risk in risks]
        widths = [0.0 if width <= np.exp(_GRID[0]) else width for width in widths]
        return Gaussian(tuple(widths))

    def __call__(self, observation: Observation, *, rng=None) -> Estimate:
        """Smooth the observation.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
            Data (band, y, x); no PSF is used.
        rng : `numpy.random.Generator`, optional
            Not used.

        Returns
        -------
        `~astrogan.api.Estimate`
            ``info`` has the width(s) used, ``fwhm`` or ``fwhm_<band>``.
        """
        widths = per_band("fwhm", self.for_image(observation).fwhm, len(observation.data))
        data = np.empty_like(observation.data)
        variance = None if observation.variance is None else np.empty_like(data)
        for band, width in enumerate(widths):
            plane, valid = observation.data[band], observation.valid[band]
            spread = None if variance is None else fill(observation.variance[band], valid)
            data[band], smooth = _smooth(plane, valid, spread, width)
            if variance is not None:
                variance[band] = smooth
        return Estimate(data, variance, info=band_info("fwhm", widths, observation.bands))

    @staticmethod
    def _risk(observation, band):
        """SURE at each width of the grid, in units of the mean variance; None where there is no noise."""
        valid = observation.valid[band]
        variance = np.where(valid, variance_plane(observation, band), 0).astype(np.float64)
        mean = variance.mean()
        if not mean > 0:
            return None
        plane = fill(observation.data[band], valid)
        power = fft.dctn((plane - level_of(plane, valid)).astype(np.float64), norm="ortho") ** 2
        kernels = [_kernel(width) for width in np.exp(_GRID)]
        (gain_y, own_y), (gain_x, own_x) = (_responses(kernels, n) for n in plane.shape)
        bias = power.sum() - 2 * _bilinear(gain_y, power, gain_x) + _bilinear(gain_y**2, power, gain_x**2)
        return (bias + 2 * _bilinear(own_y, variance, own_x) - variance.sum()) / mean


def _radius(fwhm):
    return int(np.ceil(4 * float(fwhm) * FWHM_TO_SIGMA)) if fwhm > 0 else 0


def _kernel(fwhm):
    """1-D Gaussian, sampled to four standard deviations, sum one."""
    if fwhm <= 0:
        return np.ones(1)
    x = np.arange(-_radius(fwhm), _radius(fwhm) + 1) / (fwhm * FWHM_TO_SIGMA)
    kernel = np.exp(-(x**2) / 2)
    return kernel / kernel.sum()


def _responses(kernels, n):
    """Eigenvalues in the cosine transform, and diagonals, of 1-D reflecting convolutions; (kernel, n) each."""
    gains, diagonals = np.empty((2, len(kernels), n))
    pixel = np.arange(n)
    for i, kernel in enumerate(kernels):
        offset = np.arange(-(len(kernel) // 2), len(kernel) // 2 + 1)
        gains[i] = np.cos(np.pi / n * np.outer(pixel, offset)) @ kernel
        # a pixel meets itself at shift 0 and in its mirror images: 2 i + 1 away, and every 2 n from either
        straight = kernel[offset % (2 * n) == 0].sum()
        mirrored = np.bincount(offset % (2 * n), kernel, 2 * n)
        diagonals[i] = straight + mirrored[(2 * pixel + 1) % (2 * n)]
    return gains, diagonals


def _bilinear(left, matrix, right):
    return np.einsum("sx,sx->s", left @ matrix, right)


def _smooth(plane, valid, variance, fwhm):
    """(normalised convolution over valid pixels, its variance or None), float32."""
    kernel = _kernel(fwhm)
    if len(kernel) == 1:
        return fill(plane, valid), variance
    level = level_of(plane, valid)
    total = _convolve(np.where(valid, plane - level, np.float32(0)), kernel)
    whole = valid.all()
    weight = None if whole else _convolve(valid.astype(np.float32), kernel)
    # deep inside a hole no valid pixel is in reach: the filling stands
    reached = None if whole else weight > 1e-3
    if not whole:
        np.divide(total, weight, out=total, where=reached)
    total += level
    if not whole:
        total = np.where(reached, total, fill(plane, valid))
    if variance is None:
        return total, None
    matrix_y, matrix_x = (reflecting_matrix(kernel, n) for n in plane.shape)
    matrix_y.data **= 2
    matrix_x.data **= 2
    spread = (matrix_x @ (matrix_y @ np.where(valid, variance, 0).astype(np.float64)).T).T
    if not whole:
        np.divide(spread, weight.astype(np.float64) ** 2, out=spread, where=reached)
        spread = np.where(reached, spread, variance)
    return total, spread.astype(np.float32)


def _convolve(plane, kernel):
    return ndimage.correlate1d(ndimage.correlate1d(plane, kernel, 0, mode="reflect"), kernel, 1, mode="reflect")
