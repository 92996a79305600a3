"""What a worse instrument would have seen: blur, larger pixels, photon and read-out noise, saturation."""

from __future__ import annotations

import numbers

import numpy as np

from astrogan.api import Estimate, sample_noise
from astrogan.backends.classic._forward import Forward, Scratch, rebinned_shape
from astrogan.backends.classic._random import poisson, quick_generator, standard_normal
from astrogan.exceptions import ImageTooSmallError, InputError, PSFError

__all__ = ["PhysicalDegrader", "clipped_sigma"]

# Stamps are worked on one or, where they are small, a few at a time, so that they stay in the processor's cache.
_CHUNK_PIXELS = 2**16


class PhysicalDegrader:
    """Degrade an image step by step, in the order in which light meets the instrument. Every step is optional.

    1. PSF: a kernel on top of the native seeing, or the kernel that takes the image's own PSF to a target.
    2. Pixel integration: sums over larger pixels.
    3. Electrons: Poisson noise of source and sky, and read noise. The sky adds noise; its level is taken off again.
    4. Gaussian noise, white or correlated.
    5. Saturation.

    Parameters
    ----------
    psf : optional
        A FWHM in pixels or an array, (k, k) or (band, k, k), k odd, in pixels of the input; any form that
        `~astrogan.image.psf.as_psf` takes. Arrays are used as they are, without re-centring.
    match : bool, optional
        False: ``psf`` is convolved with the image, on top of the seeing it has. True: ``psf`` is the PSF that the
        *output* is to have, its larger pixels included, and the observation's own PSF is needed.
    regularisation : float, optional
        Of the matching kernel; see `~astrogan.image.psf.matching_kernel`.
    rebin : float, optional
        Input pixels along an edge of an output pixel, >= 1. The output has ``floor(shape / rebin)`` pixels. A number
        that is not whole divides pixels by area.
    gain : float or array_like, optional
        Electrons per unit of flux, one or one per band. `None` (default) leaves step 3 out.
    sky, read_noise : float or array_like, optional
        Electrons per output pixel: the sky's level, and the standard deviation of the read noise.
    poisson : {'exact', 'gaussian'}, optional
        Exact Poisson deviates, or normal ones of the same variance, two to four times faster, and good above about
        twenty electrons a pixel.
    sigma : float or array_like, optional
        Standard deviation of the noise of step 4 in the unit of flux: one, one per band.
    noise_factor : float, optional
        Instead of ``sigma``: what is missing, after blur and rebinning, to ``noise_factor`` times the noise that the
        image had before. Needs the observation's variance.
    noise : `~astrogan.api.NoiseBackend`, optional
        Draws the noise of step 4. Default: white. Without ``sigma`` and ``noise_factor`` its level is the backend's
        own, drawn anew for each stamp, if it has a method ``draw_sigma``. Where it has a ``signal_slope``, the noise
        grows with the flux so; with ``gain`` it does not, for that is the same photon noise.
    noise_unit : float, optional
        The unit of the image's flux in that of the images on which ``noise`` learned its level and slope.
    noise_wcs : `~astropy.wcs.WCS`, optional
        Of the output's pixels, for a backend that uses it.
    shared_band_noise : bool, optional
        One plane of noise for all bands. That is wrong for real instruments, and gives a network with several bands
        the answer away; it exists to reproduce work that did it.
    saturation : float or array_like, optional
        Largest flux of a pixel; more is cut to it and flagged.
    mask_threshold : float, optional
        Output pixels are flagged if more than this part of the PSF's weight falls on invalid ones.
    noiseless_input : bool, optional
        Whether the input is free of noise (a simulation): the output's variance is then that of the noise added.

    Raises
    ------
    InputError
        If an option is out of range, or options contradict each other.

    Notes
    -----
    The output's variance is that of the input, carried through blur and rebinning with the square of each weight
    (correlations that the blur brings into a block of pixels included), and that of the noise added. Without a
    variance on input there is none on output, unless ``noiseless_input``. Within half a kernel of the image's edges the
    variance is approximate for kernels that are measured rather than analytic.

    Images continue as their mirror image beyond their edges, which conserves the flux exactly for symmetric kernels.
    Photon noise is drawn for the input's positive part; what is below zero electrons after adding the sky stays as it
    is.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import Observation
    >>> from astrogan.backends.classic.physical_degrader import PhysicalDegrader
    >>> scene = np.zeros((1, 64, 64))
    >>> scene[0, 32, 32] = 1000.0
    >>> degrade = PhysicalDegrader(psf=3.0, rebin=2, gain=10.0, sky=100.0)
    >>> seen = degrade(Observation(scene), rng=np.random.default_rng(0))
    >>> seen.data.shape
    (1, 32, 32)
    """

    def __init__(
        self,
        psf=None,
        *,
        match=False,
        regularisation=1e-6,
        rebin=1,
        gain=None,
        sky=0.0,
        read_noise=0.0,
        poisson="exact",
        sigma=None,
        noise_factor=None,
        noise=None,
        noise_unit=1.0,
        noise_wcs=None,
        shared_band_noise=False,
        saturation=None,
        mask_threshold=0.01,
        noiseless_input=False,
    ):
        self.psf = psf
        self.match = bool(match)
        self.regularisation = regularisation
        self.rebin = _checked_rebin(rebin)
        self.gain = _checked("gain", gain, positive=True)
        self.sky = _checked("sky", sky)
        self.read_noise = _checked("read_noise", read_noise)
        if poisson not in ("exact", "gaussian"):
            raise InputError(f"poisson={poisson!r} must be 'exact' or 'gaussian'")
        self.poisson = poisson
        self.sigma = _checked("sigma", sigma)
        self.noise_factor = _checked("noise_factor", noise_factor)
        if sigma is not None and noise_factor is not None:
            raise InputError(f"noise_factor={noise_factor!r} must be None when sigma is given: both set the noise")
        if noise is not None and not hasattr(noise, "sample"):
            raise InputError(f"noise={noise!r} must have a method sample(shape, *, sigma, rng); e.g. WhiteNoise()")
        self.noise = noise
        self.noise_unit = float(_checked("noise_unit", noise_unit, positive=True))
        self.noise_wcs = noise_wcs
        self.shared_band_noise = bool(shared_band_noise)
        if self.gain is None and (np.any(self.sky > 0) or np.any(self.read_noise > 0)):
            raise InputError("gain must be given with sky or read_noise: they are in electrons")
        if self.shared_band_noise and self.gain is not None and poisson == "exact":
            raise InputError(
                "shared_band_noise=True with exact Poisson noise: photons of different bands are different photons; "
                "use poisson='gaussian', or sigma without gain"
            )
        self.saturation = _checked("saturation", saturation, positive=True)
        if not 0 <= mask_threshold < 1:
            raise InputError(f"mask_threshold={mask_threshold!r} must be in [0, 1), e.g. 0.01")
        self.mask_threshold = float(mask_threshold)
        self.noiseless_input = bool(noiseless_input)

    @property
    def needs_psf(self):
        """Whether the observation's own PSF is used."""
        return self.match and self.psf is not None

    @property
    def needs_variance(self):
        """Whether the observation's variance is used."""
        return self.noise_factor is not None

    def __call__(self, observation, *, rng):
        """Degrade one observation; returns `~astrogan.api.Estimate`."""
        if self.needs_variance and observation.variance is None:
            raise InputError("variance is missing; noise_factor is in units of the image's own noise")
        forward = self._forward(observation.shape, observation.psf, observation.pixel_scale)
        own = None if observation.variance is None else observation.variance[np.newaxis]
        data = forward.apply(observation.data[np.newaxis])
        variance = self._add_all_noise(data, own, forward, rng, Scratch())
        flags = forward.spread(~observation.valid, self.mask_threshold)
        data, full = self._saturate(data)
        info = {} if forward.kernels is None else {"kernel": forward.kernels.shape[-1]}
        return Estimate(
            data=data[0],
            variance=None if variance is None else np.ascontiguousarray(np.broadcast_to(variance[0], data[0].shape)),
            flags=flags | full[0],
            info=info,
        )

    def batch(self, stamps, *, rng, psf=None, variance=None, pixel_scale=None):
        """Degrade many stamps at once.

        Parameters
        ----------
        stamps : array_like
            (n, band, y, x), finite.
        rng : `numpy.random.Generator`
        psf : array_like, optional
            Own PSF of all stamps, (k, k) or (band, k, k); needed with ``match``.
        variance : array_like, optional
            Own variance, of the stamps' shape or broadcasting to it. ``noise_factor`` estimates the noise of each
            stamp and band from its pixels where none is given.
        pixel_scale : float, optional
            Arcsec per pixel, where ``psf`` of the instance is an angle.

        Returns
        -------
        `numpy.ndarray`
            (n, band, y', x') float32.

        Raises
        ------
        InputError
            If the stamps are not (n, band, y, x) or not finite.
        """
        stamps = np.asarray(stamps)
        if stamps.ndim != 4 or 0 in stamps.shape[1:]:
            raise InputError(f"stamps has shape {stamps.shape}; it must be (n, band, y, x) with no empty axis")
        if stamps.dtype.kind not in "fiu":
            raise InputError(f"stamps has dtype {stamps.dtype}; it must be real numbers")
        if variance is not None:
            variance = np.broadcast_to(np.asarray(variance, np.float32), stamps.shape)
        elif self.needs_variance:
            variance = np.broadcast_to(clipped_sigma(stamps)[..., np.newaxis, np.newaxis] ** 2, stamps.shape)
        if psf is not None:
            psf = np.broadcast_to(psf, (stamps.shape[1], *np.shape(psf)[-2:]))
        forward = self._forward(stamps.shape[1:], psf, pixel_scale)
        out = np.empty((*stamps.shape[:2], *forward.shape_out), np.float32)
        scratch, rng = Scratch(), quick_generator(rng)
        step = max(1, _CHUNK_PIXELS // int(np.prod(stamps.shape[1:])))
        for start in range(0, len(stamps), step):
            chunk = slice(start, start + step)
            own = None if variance is None else variance[chunk]
            data = forward.apply(stamps[chunk], out[chunk], scratch)
            self._add_all_noise(data, own, forward, rng, scratch, with_variance=False)
            if not np.isfinite(data).all():
                raise InputError("stamps holds NaN or inf; fill such pixels first (astrogan.image.mask.fill_invalid)")
            if self.saturation is not None:
                self._saturate(data)
            if not np.shares_memory(data, out):
                out[chunk] = data
        return out

    def kernels(self, n_bands, own=None, pixel_scale=None):
        """What is convolved with the image: (band or 1, k, k) float64, or `None`.

        Parameters
        ----------
        n_bands : int
        own : `numpy.ndarray`, optional
            The image's PSF, (band, k, k); needed with ``match``.
        pixel_scale : float, optional
            Arcsec per pixel.

        Raises
        ------
        PSFError
            If the target is sharper than the image, or narrower than the output's pixels.
        """
        from astrogan.image.psf import as_psf

        if self.psf is None:
            return None
        wanted = as_psf(self.psf, n_bands=n_bands, pixel_scale=pixel_scale, recentre=False).kernels
        wanted = np.asarray(wanted, dtype=np.float64)
        if self.match:
            if own is None:
                raise PSFError("match=True needs the image's own PSF: give psf= at the call, or use match=False")
            wanted = _same_size([self._matching(*pair) for pair in zip(own, wanted, strict=True)])
        if (wanted == wanted[:1]).all():
            wanted = wanted[:1]
        return wanted / wanted.sum(axis=(1, 2), keepdims=True)

    def _matching(self, own, target):
        from astrogan.image.psf import matching_kernel

        return matching_kernel(own, _without_box(target, self.rebin), regularisation=self.regularisation)

    def _forward(self, shape, own, pixel_scale):
        out = rebinned_shape(shape[1:], self.rebin)
        if min(out) < 1:
            raise ImageTooSmallError(
                f"image is {shape[1]} x {shape[2]} pixels; rebin={self.rebin:g} needs at least {self.rebin:g} each way"
            )
        return Forward(self.kernels(shape[0], own, pixel_scale), shape[1:], self.rebin)

    def _add_all_noise(self, image, own, forward, rng, scratch, with_variance=True):
        """Steps 3 and 4, in place, on (n, band, y, x) data; returns the variance, or `None` where it is not known."""
        carried = None
        if own is not None and (self.needs_variance or (with_variance and not self.noiseless_input)):
            carried = forward.variance(own)
        known = with_variance and (carried is not None or self.noiseless_input)
        variance = (np.zeros_like(image) if carried is None else carried.copy()) if known else None
        if self.gain is not None:
            self._expose(image, variance, rng, scratch)
        added = self._gaussian_variance(image, own, carried, forward, rng)
        if added is not None:
            self._add_noise(image, added, rng, scratch)
            if known:
                variance += added
        return variance

    def _expose(self, image, variance, rng, scratch):
        """Photon and read noise, in place."""
        gain, sky, read = (_per_band(v, image.shape[1]) for v in (self.gain, self.sky, self.read_noise))
        expected = scratch.array("expected", image.shape)
        if self.poisson == "gaussian":
            # Variance in units of flux: (electrons + read**2) / gain**2, the electrons not below zero.
            np.multiply(image, 1 / gain, out=expected)
            expected += (sky + read**2) / gain**2
            np.maximum(expected, (read / gain) ** 2, out=expected)
            if variance is not None:
                variance += expected
            np.sqrt(expected, out=expected)
            expected *= self._plane(image.shape, rng, scratch)
            image += expected
            return
        np.multiply(image, gain, out=expected)
        expected += sky
        np.maximum(expected, 0, out=expected)
        if variance is not None:
            variance += (expected + read**2) / gain**2
        if expected.max() > 1e15:
            raise InputError(f"gain={self.gain!r} makes more than 1e15 electrons of a pixel; check its unit")
        # What lies below zero electrons is not light; it keeps its value.
        noise = poisson(expected, rng, noise=True, out=scratch.array("plane", image.shape))
        noise *= 1 / gain
        image += noise
        if read.any():
            plane = standard_normal(image.shape, rng, scratch.array("plane", image.shape))
            plane *= read / gain
            image += plane

    def _gaussian_variance(self, image, own, carried, forward, rng):
        """Variance of the noise of step 4, broadcasting to the image; `None` for no such noise."""
        n_bands = image.shape[1]
        if self.sigma is not None:
            variance = _per_band(self.sigma, n_bands) ** 2
        elif self.noise_factor is not None:
            before = Forward(None, forward.shape, self.rebin).variance(own)
            variance = np.maximum(_per_band(self.noise_factor, n_bands) ** 2 * before - carried, 0)
        elif hasattr(self.noise, "draw_sigma"):
            drawn = np.stack([self.noise.draw_sigma(n_bands, rng) for _ in image]) / self.noise_unit
            variance = drawn.astype(np.float32)[:, :, np.newaxis, np.newaxis] ** 2
        else:
            return None
        slope = getattr(self.noise, "signal_slope", None)
        if slope is None or self.gain is not None:
            return variance
        return variance + _per_band(np.asarray(slope) / self.noise_unit, n_bands) * np.maximum(image, 0)

    def _add_noise(self, image, variance, rng, scratch):
        sigma = np.sqrt(variance)
        if self.noise is None:
            image += np.multiply(self._plane(image.shape, rng, scratch), sigma, out=scratch.array("noise", image.shape))
            return
        shape = (1 if self.shared_band_noise else image.shape[1], *image.shape[2:])
        for stamp, level in zip(image, np.broadcast_to(sigma, image.shape), strict=True):
            stamp += sample_noise(self.noise, shape, sigma=1.0, wcs=self.noise_wcs, rng=rng) * level

    def _plane(self, shape, rng, scratch):
        """Unit white noise, the same for all bands where it is shared."""
        shape = (shape[0], 1, *shape[2:]) if self.shared_band_noise else shape
        return standard_normal(shape, rng, scratch.array("plane", shape))

    def _saturate(self, data):
        if self.saturation is None:
            return data, np.zeros(data.shape, bool)
        level = _per_band(self.saturation, data.shape[1])
        full = data >= level
        return np.minimum(data, level, out=data), full


def clipped_sigma(planes, rounds=5, clip=3.0):
    """Noise of each plane: standard deviation about the median after clipping at three sigma, (...,) float32.

    Parameters
    ----------
    planes : `numpy.ndarray`
        (..., y, x).
    rounds : int
        Of clipping.
    clip : float
        In sigma.

    Returns
    -------
    `numpy.ndarray`
        float32, of the shape of ``planes`` without its last two axes.
    """
    planes = np.asarray(planes, dtype=np.float32)
    flat = planes.reshape(*planes.shape[:-2], -1)
    middle = np.median(flat, axis=-1, keepdims=True)
    distance = np.abs(flat - middle)
    sigma = 1.4826 * np.median(distance, axis=-1, keepdims=True)
    # Standard deviation of a normal law cut at +-3 sigma, over the whole law's.
    correction = 1 / 0.98658
    for _ in range(rounds):
        inside = distance <= clip * sigma
        count = np.maximum(inside.sum(axis=-1, keepdims=True), 1)
        sigma = correction * np.sqrt(np.where(inside, distance**2, 0).sum(axis=-1, keepdims=True) / count)
    return sigma[..., 0]


def _checked(name, value, positive=False):
    """A number or one per band as float32-safe float64, or `None`."""
    if value is None:
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}={value!r} must be a number, or one per band") from error
    if array.ndim > 1 or not np.isfinite(array).all() or (array < 0).any() or (positive and (array == 0).any()):
        bound = "positive" if positive else "not negative"
        raise InputError(f"{name}={value!r} must be finite and {bound}: one number, or one per band")
    return array


def _checked_rebin(rebin):
    if not isinstance(rebin, numbers.Real) or isinstance(rebin, bool) or not np.isfinite(rebin) or rebin < 1:
        raise InputError(f"rebin={rebin!r} must be a number of pixels of at least 1, e.g. 2")
    return int(rebin) if rebin == int(rebin) else float(rebin)


def _per_band(value, n_bands):
    """float32 that broadcasts to (n, band, y, x)."""
    value = np.asarray(value, dtype=np.float32)
    if value.ndim == 1 and len(value) not in (1, n_bands):
        raise InputError(f"{value.tolist()} has {len(value)} values; the image has {n_bands} bands")
    return value.reshape(1, -1, 1, 1)


def _same_size(kernels):
    size = max(len(kernel) for kernel in kernels)
    return np.stack([np.pad(k.astype(np.float64), (size - len(k)) // 2) for k in kernels])


def _without_box(psf, rebin):
    """A PSF that, summed over ``rebin`` pixels, is ``psf``: its transform over the sum's, with a little damping."""
    if rebin == 1:
        return psf
    size = len(psf)
    n = 2 * size + 1
    frequency = np.fft.fftfreq(n)
    # The centred sum over a whole number of pixels; its continuation serves numbers in between.
    with np.errstate(invalid="ignore", divide="ignore"):
        box = np.where(frequency == 0, 1.0, np.sin(np.pi * rebin * frequency) / (rebin * np.sin(np.pi * frequency)))
    box = np.outer(box, box)
    padded = np.zeros((n, n))
    padded[:size, :size] = psf
    spectrum = np.fft.fft2(np.roll(padded, (-(size // 2),) * 2, (0, 1)))
    spectrum *= box * (1 + 1e-5) / (box**2 + 1e-5)
    out = np.roll(np.fft.ifft2(spectrum).real, (size // 2,) * 2, (0, 1))[:size, :size]
    spread = _second_moment(psf) - (rebin**2 - 1) / 12
    if spread <= 0 or out[size // 2, size // 2] <= 0:
        raise PSFError(
            f"psf is narrower than an output pixel of {rebin:g} input pixels leaves it; give a broader psf, or "
            "match=False"
        )
    return out / out.sum()


def _second_moment(psf):
    """Mean variance of a PSF along x and y, in pixels squared, of its part above 1 % of the peak."""
    core = np.where(psf > 0.01 * psf.max(), psf, 0)
    half = len(psf) // 2
    square = np.arange(-half, half + 1) ** 2
    return float((core * (square[:, np.newaxis] + square) / 2).sum() / core.sum())
