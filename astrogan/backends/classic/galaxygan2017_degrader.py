"""The degradation of Schawinski et al. (2017), step by step, flaws included."""

from __future__ import annotations

import numbers

import numpy as np

from astrogan.api import Estimate
from astrogan.backends._jpeg import through_jpeg
from astrogan.backends.classic._forward import Forward
from astrogan.backends.classic._random import standard_normal
from astrogan.exceptions import InputError

__all__ = ["GalaxyGAN2017Degrader"]

_OUTPUTS = ("linear", "clipped", "stretched", "jpeg")
_FWHM_PER_SIGMA = 2.355
_FLOOR = 1e-8


class GalaxyGAN2017Degrader:
    r"""Degrade as the GalaxyGAN paper did (Schawinski et al. 2017, MNRAS 467, L110, and the authors' public code).

    It exists to reproduce that paper's numbers; for anything else use
    `~astrogan.backends.classic.physical_degrader.PhysicalDegrader`. The steps, and what is wrong with them:

    1. A Gaussian blur of :math:`\sigma` = FWHM / 2.355 pixels *on top of* the native seeing: "1.4 arcsec" on SDSS
       images leaves about 2 arcsec. The kernel is sampled at pixel centres, cut at
       :math:`2\lceil 2\sigma\rceil + 1` pixels (2 sigma to each side: 4.6 % of a line is lost and made up by
       normalising), and edge pixels are repeated outside, which does not conserve the flux near the edges.
    2. The noise ``s`` is the standard deviation of all pixels with -0.1 < x < 0.1 nanomaggies, pooled over the bands;
       ``s2`` the same of the blurred image. One number for all bands does none of them justice, faint wings of
       galaxies count as noise, and in an image whose noise exceeds 0.1 the range cuts it short.
    3. White Gaussian noise of variance max((noise_ratio s)^2 - s2^2, 1e-8). The blurred image's noise is correlated
       and the noise added is not, so the sum has not the texture of real noise.
    4. One plane of noise is added identically to all bands. Their differences are then free of the added noise: a
       pixelwise combination of bands recovers most of the truth without any spatial information.
    5. Only with ``output="clipped"`` and beyond: the flux is clipped to [-0.1, 4] nanomaggies. Bright pixels are lost.
    6. Only with ``output="stretched"`` and beyond: u = (x + 0.1) / 4.1, y = asinh(10 u) / 3, from 0 to 0.9994.
    7. Only with ``output="jpeg"``: 8-bit JPEG of quality 75 with chroma subsampling, read back, divided by 255.

    Parameters
    ----------
    fwhm : float, optional
        FWHM of the blur in pixels.
    noise_ratio : float, optional
        Noise after degradation in units of the noise before.
    independent : bool, optional
        A plane of noise a band instead of one for all (not what the paper did).
    output : {'linear', 'clipped', 'stretched', 'jpeg'}, optional
        How far to go. Everything beyond ``"linear"`` loses information.
    quality : int, optional
        Of the JPEG.
    nanomaggy : float, optional
        One nanomaggy in the unit of the data; the recipe's limits are scaled by it.

    Raises
    ------
    InputError
        If an option is out of range, or at the call, if no pixel lies in -0.1 < x < 0.1 nanomaggies, or a JPEG is
        asked of neither one nor three bands.

    Notes
    -----
    The absolute limits (-0.1, 0.1, 4 and the floor of the variance) make the result depend on the unit of the flux,
    and noise of at least 1e-4 is added to whatever comes in, blank images included. Invalid pixels are left out of
    ``s`` and ``s2`` and flagged with the blur's footprint.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import Observation
    >>> from astrogan.backends.classic.galaxygan2017_degrader import GalaxyGAN2017Degrader
    >>> rng = np.random.default_rng(0)
    >>> image = Observation(rng.normal(0, 0.02, size=(3, 64, 64)))
    >>> seen = GalaxyGAN2017Degrader(fwhm=1.8 / 0.396, noise_ratio=2.0)(image, rng=rng)
    >>> bool(abs(seen.data.std() / 0.04 - 1) < 0.05)
    True
    """

    rebin = 1

    def __init__(self, fwhm=4.545, noise_ratio=2.0, *, independent=False, output="linear", quality=75, nanomaggy=1.0):
        for name, value in (("fwhm", fwhm), ("noise_ratio", noise_ratio), ("nanomaggy", nanomaggy)):
            if not isinstance(value, numbers.Real) or not np.isfinite(value) or value <= 0:
                raise InputError(f"{name}={value!r} must be a positive number")
        if output not in _OUTPUTS:
            raise InputError(f"output={output!r} must be one of {', '.join(_OUTPUTS)}")
        if not isinstance(quality, int | np.integer) or not 1 <= quality <= 95:
            raise InputError(f"quality={quality!r} must be an integer from 1 to 95")
        self.fwhm = float(fwhm)
        self.noise_ratio = float(noise_ratio)
        self.independent = bool(independent)
        self.output = output
        self.quality = int(quality)
        self.nanomaggy = float(nanomaggy)

    @property
    def kernel(self):
        """The blur, (k, k) float64, k = 2 ceil(2 sigma) + 1."""
        sigma = self.fwhm / _FWHM_PER_SIGMA
        half = int(np.ceil(2 * sigma))
        line = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
        line /= line.sum()
        return np.outer(line, line)

    def __call__(self, observation, *, rng):
        """Degrade one observation; returns `~astrogan.api.Estimate`."""
        forward = Forward(self.kernel[np.newaxis], observation.shape[1:], boundary="replicate")
        data, added = self._noisy(observation.data, observation.valid, forward, rng)
        variance = None
        if observation.variance is not None and self.output == "linear":
            variance = forward.variance(observation.variance) + np.float32(added)
        flags = forward.spread(~observation.valid, 1e-3)
        info = {"added_sigma": float(np.sqrt(added))}
        return Estimate(data=self._encoded(data), variance=variance, flags=flags, info=info)

    def batch(self, stamps, *, rng, **_):
        """Degrade stamps (n, band, y, x), each with noise of its own; returns float32 of the same shape."""
        stamps = np.asarray(stamps, dtype=np.float32)
        if stamps.ndim != 4 or 0 in stamps.shape[1:]:
            raise InputError(f"stamps has shape {stamps.shape}; it must be (n, band, y, x) with no empty axis")
        if not np.isfinite(stamps).all():
            raise InputError("stamps holds NaN or inf; fill such pixels first (astrogan.image.mask.fill_invalid)")
        forward = Forward(self.kernel[np.newaxis], stamps.shape[2:], boundary="replicate")
        good = np.ones(stamps.shape[1:], bool)
        out = np.empty_like(stamps)
        for stamp, result in zip(stamps, out, strict=True):
            result[:] = self._encoded(self._noisy(stamp, good, forward, rng)[0])
        return out

    def _noisy(self, data, valid, forward, rng):
        """Steps 1 to 4, and the variance of the noise added."""
        blurred = forward.apply(data)
        before, after = (self._faint_sigma(image, valid) for image in (data, blurred))
        added = max((self.noise_ratio * before) ** 2 - after**2, _FLOOR * self.nanomaggy**2)
        shape = data.shape if self.independent else (1, *data.shape[1:])
        return blurred + standard_normal(shape, rng) * np.float32(np.sqrt(added)), added

    def _faint_sigma(self, image, valid):
        """Standard deviation of the pixels between -0.1 and 0.1 nanomaggies, all bands together."""
        limit = np.float32(0.1 * self.nanomaggy)
        faint = image[valid & (np.abs(image) < limit)]
        if faint.size < 2:
            raise InputError(
                "image has no pixels with -0.1 < flux < 0.1 nanomaggies, by which this recipe measures its noise; "
                "convert it to nanomaggies and subtract its sky, or use PhysicalDegrader"
            )
        return float(faint.std(dtype=np.float64, ddof=1))

    def _encoded(self, data):
        """Steps 5 to 7."""
        if self.output == "linear":
            return data
        from astrogan.image.stretch import GalaxyGAN2017Stretch

        stretch = GalaxyGAN2017Stretch()
        flux = data / np.float32(self.nanomaggy)
        if self.output == "clipped":
            return np.clip(flux, stretch.low, stretch.high) * np.float32(self.nanomaggy)
        y = stretch.forward(flux)
        if self.output == "stretched":
            return y
        if len(y) not in (1, 3):
            raise InputError(f"output='jpeg' needs one or three bands; the image has {len(y)}")
        return through_jpeg(y, self.quality)
