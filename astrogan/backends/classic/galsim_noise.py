"""Correlated noise on the sky rather than on the pixels: learnt in one WCS and drawn in another, by GalSim."""

from __future__ import annotations

import numpy as np

from astrogan.backends.classic._amplitudes import Amplitudes, matrix_root
from astrogan.backends.classic._noise_fit import (
    kernel_of_spectrum,
    latent_correlation,
    measure,
    sampling_covariance,
    spectrum_of_autocorrelation,
)
from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.backends.classic.white_noise import NoiseLevels, checked_shape
from astrogan.exceptions import InputError

__all__ = ["GalSimNoise"]

_NEGLIGIBLE = 1e-3


class GalSimNoise(NoiseLevels):
    """Gaussian noise of a given correlation function in arcsec on the sky.

    Noise of a stack that was resampled has a scale and directions on the sky. Where an image has other pixels, or is
    rotated or mirrored against that stack, the correlations from pixel to pixel follow; GalSim (`Rowe et al. 2015
    <https://arxiv.org/abs/1407.7676>`_, ``galsim.BaseCorrelatedNoise``) works them out from both WCSs.

    Parameters
    ----------
    autocorrelation : array_like, optional
        Correlation coefficients, (k, k) or (band, k, k), k odd, centred, point-symmetric. Default: what
        `~astrogan.backends.classic.correlated_noise.CorrelatedNoise` has by default.
    wcs : float, `~astropy.units.Quantity`, `~astropy.wcs.WCS` or `galsim.BaseWCS`, optional
        Of the pixels of ``autocorrelation``; a number is arcsec per pixel. Without it the correlations are from pixel
        to pixel, whatever WCS noise is drawn for.
    sigma, signal_slope, band_correlation, amplitudes : optional
        As in `~astrogan.backends.classic.correlated_noise.CorrelatedNoise`.

    Raises
    ------
    InputError
        If the autocorrelation has a wrong shape, or the WCS is none.
    MissingDependencyError
        If GalSim is not installed.

    Notes
    -----
    ``sigma`` is that of a pixel, on whatever pixels: where the noise of an image of other pixels is larger or smaller,
    give its own. On pixels other than its own the correlation function is interpolated linearly, as GalSim recommends.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.backends.classic.galsim_noise import GalSimNoise
    >>> noise = GalSimNoise(wcs=0.2)
    >>> fine = noise.sample((1, 200, 200), wcs=0.1, rng=np.random.default_rng(0))[0]
    >>> bool((fine[:, 1:] * fine[:, :-1]).mean() > 0.6)
    True
    """

    def __init__(
        self,
        autocorrelation=None,
        *,
        wcs=None,
        sigma=1.0,
        signal_slope=None,
        band_correlation=None,
        amplitudes=None,
    ):
        if autocorrelation is None:
            autocorrelation = CorrelatedNoise().autocorrelation()
        self.autocorrelation = _checked(autocorrelation)
        self.jacobian = None if wcs is None else _jacobian(wcs)
        super().__init__(sigma, signal_slope=signal_slope, band_correlation=band_correlation, amplitudes=amplitudes)

    @classmethod
    def fit(cls, images, mask=None, *, signal=None, wcs=None, size=7, law="auto"):
        """Learn correlations, levels, slope and correlation between bands from images.

        Parameters
        ----------
        images, mask, signal, law
            As in `~astrogan.backends.classic.correlated_noise.CorrelatedNoise.fit`.
        wcs : optional
            Of the images, as for the class; one for all of them.
        size : int
            Correlations are measured to lags of twice this many pixels.

        Returns
        -------
        GalSimNoise
        """
        if not isinstance(size, int | np.integer) or size < 1 or size % 2 == 0:
            raise InputError(f"size={size!r} must be an odd number of pixels, e.g. 7")
        measured = measure(images, mask, signal, size)
        spectrum = spectrum_of_autocorrelation(measured.autocorrelation)
        kernels = kernel_of_spectrum(spectrum, 2 * size + 1)
        kernels /= np.sqrt((kernels**2).sum(axis=(-2, -1), keepdims=True))
        acf = CorrelatedNoise(kernels).autocorrelation(size)
        one = measured.by_band
        noise = cls(
            acf if one else acf[0],
            sigma=measured.sigma,
            signal_slope=measured.slope if one or measured.slope is None else measured.slope[0],
            band_correlation=latent_correlation(measured.cross, kernels) if one else None,
            amplitudes=Amplitudes.fit(measured.stds, sampling_covariance(measured, kernels), law),
        )
        if wcs is not None:
            noise.jacobian = _jacobian(wcs, np.shape(images)[-2:])
        return noise

    def sample(self, shape, *, sigma=None, signal=None, wcs=None, rng):
        """A noise field.

        Parameters
        ----------
        shape : tuple of int
            (band, y, x).
        sigma : float or array_like, optional
            Standard deviation on blank sky: a number, (band,) or (band, y, x). Default: the instance's, drawn where
            it varies from image to image.
        signal : array_like, optional
            Noise-free flux, (band, y, x); counts where there is a ``signal_slope``.
        wcs : optional
            Of the pixels that the noise is for; its local approximation in the middle is used. Default: the
            instance's own.
        rng : `numpy.random.Generator`

        Returns
        -------
        `numpy.ndarray`
            float32.
        """
        shape = checked_shape(shape)
        if self.autocorrelation.ndim == 3 and len(self.autocorrelation) != shape[0]:
            raise InputError(
                f"autocorrelation has {len(self.autocorrelation)} bands, shape={shape} asks for {shape[0]}"
            )
        if self.band_correlation is not None and len(self.band_correlation) != shape[0]:
            raise InputError(f"band_correlation has {len(self.band_correlation)} bands; the shape asks for {shape[0]}")
        own = np.eye(2) if self.jacobian is None else self.jacobian
        target = own if wcs is None or self.jacobian is None else _jacobian(wcs, shape[1:])
        seeds = rng.integers(1, 2**31, size=shape[0])
        mixing = np.eye(shape[0]) if self.band_correlation is None else matrix_root(self.band_correlation)
        field = np.stack([self._plane(b, row, seeds, own, target, shape[1:]) for b, row in enumerate(mixing)])
        return (field * self.levels(shape, sigma, signal, rng)).astype(np.float32)

    def _plane(self, band, row, seeds, own, target, shape):
        """Unit noise of one band: the sum over white planes, each known by its seed, all filtered as this band is."""
        import galsim

        acf = self.autocorrelation if self.autocorrelation.ndim == 2 else self.autocorrelation[band]
        # GalSim's noise is periodic; the margin is what lies within the correlations' reach across the edge.
        stretch = np.linalg.norm(np.linalg.solve(target, own), 2)
        margin = int(np.ceil(len(acf) // 2 * stretch)) + 1
        wcs, deviate = _affine(target), galsim.BaseDeviate()
        # One object for all planes: it keeps the spectrum, and its deviate is set to each seed in turn.
        noise = galsim.correlatednoise.BaseCorrelatedNoise(deviate, _profile(acf, own), _affine(own))
        edges = shape[1] + margin, shape[0] + margin
        total = np.zeros(edges[::-1])
        for seed, share in zip(seeds, row, strict=True):
            if abs(share) < _NEGLIGIBLE:
                continue
            deviate.reset(int(seed))
            plane = galsim.ImageD(*edges, wcs=wcs)
            plane.addNoise(noise)
            total += share * plane.array
        drawn = noise.drawImage(galsim.ImageD(*edges, wcs=wcs))
        # GalSim takes the modulus where interpolation has made the spectrum negative, which adds a little variance.
        variance = np.abs(np.fft.fft2(drawn.array)).mean()
        return total[: shape[0], : shape[1]] / np.sqrt(variance)


def _checked(acf):
    acf = np.asarray(acf, dtype=np.float64)
    if acf.ndim not in (2, 3) or acf.shape[-1] != acf.shape[-2] or acf.shape[-1] % 2 == 0:
        raise InputError(f"autocorrelation has shape {acf.shape}; it must be (k, k) or (band, k, k) with k odd")
    half = acf.shape[-1] // 2
    if not np.isfinite(acf).all() or not (acf[..., half, half] > 0).all():
        raise InputError("autocorrelation must be finite, and positive in its middle")
    acf = acf / acf[..., half, half, None, None]
    if np.abs(acf - acf[..., ::-1, ::-1]).max() > 1e-6:
        raise InputError("autocorrelation must be point-symmetric about its middle: that of any noise is")
    return acf


def _profile(acf, jacobian):
    """The correlation function on the sky, zero beyond its last lag."""
    import galsim

    image = galsim.ImageD(np.pad(acf, 1), wcs=_affine(jacobian))
    return galsim.InterpolatedImage(
        image, normalization="sb", calculate_stepk=False, calculate_maxk=False, x_interpolant="linear"
    )


def _affine(jacobian):
    import galsim

    return galsim.JacobianWCS(*(float(value) for value in np.ravel(jacobian)))


def _jacobian(wcs, shape=None):
    """Arcsec on the sky for a pixel along x and along y, (2, 2), in the middle of an image (else where it is defined).

    The x axis of the sky is the same for all images, so that mirror images are told apart.
    """
    from astropy import units as u

    if isinstance(wcs, u.Quantity):
        try:
            wcs = wcs.to_value(u.arcsec)
        except u.UnitConversionError as error:
            raise InputError(f"wcs={wcs} must be an angle per pixel, or a WCS") from error
    if np.ndim(wcs) == 0 and isinstance(wcs, int | float | np.number | np.ndarray):
        if not (np.isfinite(wcs) and wcs > 0):
            raise InputError(f"wcs={wcs!r} must be a positive number of arcsec per pixel, or a WCS")
        # North up and east left, as images of the sky are.
        return np.array([[-float(wcs), 0.0], [0.0, float(wcs)]])
    import galsim

    if isinstance(wcs, galsim.BaseWCS):
        centre = galsim.PositionD(0, 0) if shape is None else galsim.PositionD((shape[1] + 1) / 2, (shape[0] + 1) / 2)
        # GalSim's first axis of the sky points west, as it does in an image of the sky.
        return wcs.local(centre).jacobian().getMatrix() * [[-1.0], [1.0]]
    if not getattr(wcs, "has_celestial", False):
        raise InputError(f"wcs={type(wcs).__name__} has no celestial axes; give a celestial WCS or arcsec per pixel")
    wcs = wcs.celestial
    x, y = wcs.wcs.crpix - 1 if shape is None else ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    middle = wcs.pixel_to_world(x, y)
    ends = wcs.pixel_to_world([x - 0.5, x + 0.5, x, x], [y, y, y - 0.5, y + 0.5])
    east, north = (angle.arcsec for angle in middle.spherical_offsets_to(ends))
    # Signs as for a number: the first axis of the sky is east.
    return np.array([[east[1] - east[0], east[3] - east[2]], [north[1] - north[0], north[3] - north[2]]])
