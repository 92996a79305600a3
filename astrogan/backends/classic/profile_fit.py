"""Joint fit of PSF-convolved galaxy profiles to a blend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from astrogan.api import Template
from astrogan.backends.classic._blend_fit import BlendFit, Options, noise_variance
from astrogan.backends.classic._detection import MERGE, Detector, integer, number
from astrogan.exceptions import InputError, PSFError

__all__ = ["ProfileFit", "fit_blend"]

# A source's own segment never has a template below this part of the noise, so that no detected light is left over.
_FLOOR = 1e-3

# Templates end where every band is fainter than this part of the noise.
_EDGE = 0.01


class ProfileFit:
    """Fit profiles to all sources of a blend at once, in all bands, and use them as templates.

    Each source is an elliptical Sersic profile, convolved with the PSF of each band; those that are bright and large
    enough become two profiles with one centre, like a bulge and a disk (Peng et al. 2010). Position and shape are the
    same in all bands. The fluxes, one a source and band and never negative, follow from the shapes by linear least
    squares, so that only the shapes need iterations (variable projection, Golub & Pereyra 1973; its Hessian after
    Kaufman 1975). PSF and profiles are sums of Gaussians (Hogg & Lang 2013), which makes convolution and derivatives
    closed forms; what the PSF's Gaussians leave out is added by Fourier transform. Gaussian priors keep faint sources
    near their position, and from growing over their neighbours.

    Parameters
    ----------
    profiles : int
        Most profiles a source, 1 or 2.
    model_error : float
        Standard deviation of real galaxies about such models, as a part of the light in a pixel: how much a bright
        galaxy's arms may pull at the fit of its neighbours.
    position_error : float
        Standard deviation in pixels of the positions, along each axis; a source never moves more than 1.5 pixels.
    iterations : int
        Most iterations with one profile a source; up to ten more follow with two.
    threshold, min_area, levels, contrast, grow, merge
        Detection; see `~astrogan.backends.classic.watershed.Watershed`.

    Raises
    ------
    InputError
        If an option is out of range.

    Notes
    -----
    The image should be sky-subtracted. Without a variance the noise is measured on the background. A band in which a
    source that is clear in another is not significant gets a fainter template, down to none at sqrt(2) standard
    deviations of its flux.

    ``flux_variance`` of a template is that of the flux which sharing the image by such templates gives, over and above
    the image's own noise: the fit's covariance, as far as the source's light is contested, and a part of the light of
    others under its profile.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import Observation
    >>> from astrogan.backends.classic.profile_fit import ProfileFit
    >>> y, x = np.mgrid[:30, :40]
    >>> image = sum(f * np.exp(-((x - x0) ** 2 + (y - 15) ** 2) / 8) for f, x0 in ((99, 17), (50, 22)))
    >>> psf = np.exp(-(np.add.outer(np.arange(-4, 5) ** 2, np.arange(-4, 5) ** 2)) / 4)
    >>> blend = Observation(image[np.newaxis], variance=np.ones((1, 30, 40)), psf=(psf / psf.sum())[np.newaxis])
    >>> fluxes = [t.data.sum() for t in ProfileFit()(blend, [(17, 15), (22, 15)]).templates]
    >>> bool(np.allclose(fluxes, [99 * 8 * np.pi, 50 * 8 * np.pi], rtol=0.03))
    True
    """

    needs_psf = True
    needs_variance = True

    # Pixels of context: the wings of bright sources tell how much of them is under others.
    margin = 6

    def __init__(
        self,
        *,
        profiles=2,
        model_error=0.05,
        position_error=0.5,
        iterations=12,
        threshold=1.5,
        min_area=5,
        levels=32,
        contrast=0.005,
        grow=4.0,
        merge=MERGE,
    ):
        if profiles not in (1, 2) or isinstance(profiles, bool):
            raise InputError(f"profiles={profiles!r} must be 1 or 2")
        self.options = replace(
            Options(),
            two_from=Options.two_from if profiles == 2 else np.inf,
            position=number("position_error", position_error, 0, 100, "0.5", open_below=True),
            model_error=number("model_error", model_error, 0, 1, "0.05"),
            first=integer("iterations", iterations, 1, "12"),
        )
        self._detector = Detector(threshold, min_area, levels, contrast, grow, merge)

    def __call__(self, observation, positions=None, *, rng=None):
        """Templates of the sources at ``positions``, or of those detected; ``rng`` is not used."""
        from astrogan.image.blends import solve_blends

        _check_psf(observation)
        if observation.variance is None:
            # Of the whole image: the cut-out of a blend may have no background to measure it on.
            observation = observation.replace(variance=noise_variance(observation))
        return solve_blends(self, observation, positions, rng=np.random.default_rng(0) if rng is None else rng)

    def detect(self, observation, positions=None):
        """The sources' positions and the pixels that belong to them; see `~astrogan.image.blends.solve_blends`."""
        return self._detector(observation, positions)

    def separate(self, blend, *, rng=None):
        """Templates of the sources of one `~astrogan.api.Blend`; ``rng`` is not used."""
        observation = blend.observation
        _check_psf(observation)
        order, fit = _fitted(observation, blend.positions, self.options)
        noise = np.sqrt(fit.noise_variance)
        models, variances = fit.models(), fit.sharing_variance()
        templates = [None] * len(order)
        for i, model, variance in zip(order, models, variances, strict=True):
            own = blend.labels == i + 1
            inside = (model > _EDGE * noise).any(axis=0) | own
            box = _extent(inside, blend.positions[i])
            cut = (slice(None), *box)
            data = (model[cut] * inside[box] + _FLOOR * noise[cut] * own[box]).astype(np.float32)
            origin, position = (box[0].start, box[1].start), tuple(map(float, blend.positions[i]))
            templates[i] = Template(origin, data, position, flux_variance=variance)
        return tuple(templates)


def fit_blend(observation, positions, *, options=None):
    """Fit profiles to the sources of one blend.

    Parameters
    ----------
    observation : `~astrogan.api.Observation`
        The blend, with a PSF. Without a variance the noise of the background is measured.
    positions : array_like
        (source, 2), each row (x, y) in 0-based pixels.
    options : `~astrogan.backends.classic._blend_fit.Options`, optional
        Priors and iterations.

    Returns
    -------
    models : `numpy.ndarray`
        (source, band, y, x) float32, >= 0: each source alone, convolved with the PSF.
    flux_variance : `numpy.ndarray`
        (source, band): variance of each model's flux, in the image's unit squared.

    Raises
    ------
    PSFError
        If the observation has no PSF.

    Notes
    -----
    The variance is that of the fluxes and shapes together, to which 1.5 % of the source's own flux and 17 % of the
    light of others under its profile are added in quadrature, for what galaxies have and profiles do not. Both
    numbers were set on simulated blends so that 68 % of the errors are within one standard deviation.
    """
    _check_psf(observation)
    positions = np.asarray(positions, np.float64).reshape(-1, 2)
    if not len(positions):
        return np.zeros((0, *observation.shape), np.float32), np.zeros((0, observation.shape[0]))
    order, fit = _fitted(observation, positions, options or Options())
    models = np.empty((len(order), *observation.shape), np.float32)
    variance = np.empty((len(order), observation.shape[0]))
    models[order], variance[order] = fit.models(), fit.flux_variance()
    return models, variance


def _check_psf(observation):
    if observation.psf is None:
        raise PSFError("psf=None: profile-fit needs the PSF; give psf=, or use 'symmetric'")


def _fitted(observation, positions, options):
    """The order in which sources are fitted, and the fit: that of the positions then changes no bit."""
    order = np.lexsort(positions.T)
    return order, BlendFit(observation, positions[order], options)


def _extent(mask, position):
    """Rows and columns that hold all of a mask; the position's pixel where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        at = np.clip(np.floor(position[::-1] + 0.5).astype(int), 0, np.array(mask.shape) - 1)
        return tuple(slice(int(a), int(a) + 1) for a in at)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
