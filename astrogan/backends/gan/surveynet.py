"""The learned translator: classic estimates of what another survey would see, mixed and mended by a network."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np

from astrogan.api import Estimate
from astrogan.backends.classic._resampling import grid_of, resample
from astrogan.backends.classic._target_noise import add_target_noise
from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.backends.classic.psf_matching import PSFMatching, psf_on_input
from astrogan.backends.gan._device import exact_matmul
from astrogan.backends.gan._network import LazyNetwork
from astrogan.exceptions import CheckpointError, InputError, PSFError
from astrogan.image.psf import psf_fwhm

__all__ = ["SurveyNetTranslator"]

_DEFAULT = "surveynet-sdss-cfhtls"
_TURNS = tuple((number, mirror) for mirror in (False, True) for number in range(4))
_BROADER = 0.98
"""An image whose FWHM is no more than this part of the target's can be convolved to it."""
_SKY = 0.3
"""Standard deviations of a pixel by which the sky must differ from zero to be taken off before the network."""


class SurveyNetTranslator:
    """Translate with a small network that starts from the physics and has learned the rest.

    Classic estimates are made first: the image is brought to the target's PSF in Fourier space with several strengths
    of regularisation, and resampled through both WCSs, so that geometry and flux are exact by construction. Where the
    target's PSF is broader that is nearly all there is to do. Where it is sharper the network
    (`~astrogan.nn.surveynet.SurveyNet`) mixes the estimates in each pixel, adds what they miss, and says how
    wrong it may be. Noise of the target's kind is added last. Any number of bands, size of image, and ratio and
    orientation of pixels will do.

    Parameters
    ----------
    weights : str or path, optional
        Name (``astrogan weights list``) or path of weights.
    source : str, optional
        Survey of the image, e.g. "sdss". Where the weights know the pair of it and the target, the difference of the
        two surveys' filters is applied, too; the bands must then have their names, and one unit of flux (nanomaggies,
        say: AB magnitudes with one zero point). Default: none is.
    noise : bool, optional
        Whether noise is added where the target states its noise.
    draw_error : bool, optional
        Whether what is not known is drawn, too: a field of the error that the network expects, correlated as its errors
        are. Samples then scatter as far as the truth may lie from the mean. Without it a result is the mean, with the
        target's noise: it is nearest to the truth, and smoother than a real image where the source is.
    ensemble : bool, optional
        Whether the result is the mean over the eight turned and mirrored images: eight times the work of one, with
        smaller errors, and sources that are displaced to no side. Their scatter is added to the variance.
    mask_threshold : float, optional
        An output pixel is flagged where more than this part of its weights comes from invalid pixels.
    device : str, optional
        "auto" (CUDA where there is one, else the CPU) or a device of torch.

    Raises
    ------
    InputError
        If an option is out of range, or ``source`` and target are no pair that the weights know.
    PSFError
        If the image has no PSF.
    CheckpointError
        If the weights are damaged or for another backend.

    Notes
    -----
    Where the target is sharper than the image, what is added is the prior of the training: plausible, not measured. Do
    not look there for detail that the image does not hold. ``variance`` is the network's own, calibrated on simulated
    galaxies of the training's kind, plus that of the noise added. Light outside of the training's ranges (``info``'s
    ``out_of_range``, the logarithm of a factor) is served all the same.

    Where there is nothing to learn `~astrogan.backends.classic.psf_matching.PSFMatching` does the work: where the
    target's PSF is the broader one in all bands and no ``source`` is named, and where the target has none.

    References
    ----------
    Task: Lin et al. 2021, arXiv:2101.07389. Blocks: Chen et al. 2022, ECCV, arXiv:2204.04676.
    """

    needs_psf = False
    needs_variance = False
    min_size = 1

    def __init__(
        self,
        weights="auto",
        *,
        source=None,
        noise=True,
        draw_error=False,
        ensemble=True,
        mask_threshold=0.01,
        device="auto",
    ):
        for name, value in (("noise", noise), ("draw_error", draw_error), ("ensemble", ensemble)):
            if not isinstance(value, bool | np.bool_):
                raise InputError(f"{name}={value!r} must be True or False")
        if source is not None and not isinstance(source, str):
            raise InputError(f"source={source!r} must be the name of a survey, e.g. 'sdss', or None")
        # Checks mask_threshold, too.
        self._matched = PSFMatching(noise=bool(noise), mask_threshold=mask_threshold)
        self._resampled = PSFMatching(noise=bool(noise), mask_threshold=mask_threshold, match=False)
        self.mask_threshold = self._matched.mask_threshold
        self.noise, self.draw_error, self.ensemble = bool(noise), bool(draw_error), bool(ensemble)
        self.source = None if source is None else source.strip().lower()
        self._network = LazyNetwork(_DEFAULT if weights == "auto" else weights, "surveynet", _built, device, _check)
        self._settled = None

    def __repr__(self):
        return f"SurveyNetTranslator(weights={self._network.weights!r}, source={self.source!r})"

    def __call__(self, observation, target, *, rng):
        """Translate one observation.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
            Its ``psf`` is needed where the target has one. Without a variance the noise is measured on the image.
        target : `~astrogan.api.Target`
        rng : `numpy.random.Generator`
            For the noise that is added.

        Returns
        -------
        `~astrogan.api.Estimate`
            ``info`` has the weights' name and hash, ``out_of_range``, and what noise was added.
        """
        if target.psf is None:
            return self._resampled(observation, target, rng=rng)
        if observation.psf is None:
            raise PSFError("psf=None, but the target's PSF is to be reached; give the image's psf, e.g. psf=2.5")
        grid = grid_of(target.to_input, target.shape, observation.shape[1:])
        if not (grid.area > 0).any():
            raise InputError("target: no pixel of its grid lies on the image; check both WCSs")
        fwhm = _widths(observation, target, grid) if self._settled is None else self._settled.fwhm
        if self._convolves(fwhm):
            return self._matched(observation, target, rng=rng)
        settled = self._settled or _Settled.of(observation, target, fwhm)
        found = self._translated(observation, target, grid, settled)
        mean, spread, flags = found.mean, found.spread, found.flags
        data = mean.astype(np.float64) + settled.sky[:, None, None] * grid.area
        data *= grid.area > 0
        variance = np.square(spread.astype(np.float64)) + found.scatter
        info = found.info
        if self.draw_error:
            quiet = _median(spread) if settled.spread is None else settled.spread
            data += _drawn_error(spread, quiet, found.card, found.direction, grid, rng)
        if self.noise and target.noise is not None:
            present = self._present(settled, found, target)
            added, noted = add_target_noise(
                data, target, present, where=grid.area > 0, rng=rng, bands=observation.bands
            )
            variance += added
            info |= noted
        return Estimate(data.astype(np.float32), variance.astype(np.float32), flags, info)

    def for_image(self, observation, target):
        """This method with all that is measured on the whole image settled, for windows of an image.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
            The image, or what stands for it.
        target : `~astrogan.api.Target`
            For all of that.

        Returns
        -------
        SurveyNetTranslator
        """
        out = copy.copy(self)
        if target.psf is None:
            out._resampled = self._resampled.for_image(observation, target)
            return out
        if observation.psf is None:
            return out
        grid = grid_of(target.to_input, target.shape, observation.shape[1:])
        settled = _Settled.of(observation, target, _widths(observation, target, grid))
        if self._convolves(settled.fwhm):
            out._matched = self._matched.for_image(observation, target)
        elif self.draw_error or (settled.fwhm[0] < settled.fwhm[1]).any():
            found = self._translated(observation, target, grid, settled)
            present = None if target.noise is None else self._present(settled, found, target)
            settled = replace(settled, present=present, spread=_median(found.spread))
        out._settled = settled
        return out

    def halo_for(self, observation, target):
        """Pixels of the output, around one of it, that it depends on."""
        if target.psf is None:
            return self._resampled.halo_for(observation, target)
        if self._settled is not None and self._convolves(self._settled.fwhm):
            return self._matched.halo_for(observation, target)
        wider = max(psf_fwhm(k) / np.sqrt(target.area_ratio) for k in observation.psf)
        wider = max(wider, *(psf_fwhm(k) for k in target.psf))
        # The network sees 34 pixels; local colours and diffuse light, so many times the FWHM.
        return 48 + 8 * int(np.ceil(wider))

    def _convolves(self, fwhm):
        """Whether there is nothing to learn: PSF matching does it all."""
        return self.source is None and bool((fwhm[0] <= _BROADER * fwhm[1]).all())

    def _translated(self, observation, target, grid, settled):
        """What the network says, less the sky, before noise."""
        network, weights = self._network.get()
        direction, order = self._direction(network, observation, target)
        images = observation.data.astype(np.float64) - settled.sky[:, None, None]
        estimates = _estimates(images, observation, target, grid, network.balances)
        turns = _TURNS if self.ensemble else _TURNS[:1]
        arguments = settled.unit[order], settled.fwhm[:, order], target, order, direction
        each = [_through(network, estimates[order], *arguments, turn) for turn in turns]
        back = np.argsort(order)
        mean, spread = (np.mean([one[place] for one in each], axis=0)[back] for place in (0, 1))
        scatter = np.var([one[0] for one in each], axis=0)[back]
        flags = np.stack([~grid.covered | self._tainted(valid, settled.fwhm[0], grid) for valid in observation.valid])
        info = {"weights": weights.name, "sha256": weights.sha256[:12], "filters_translated": direction is not None}
        info["out_of_range"] = _out_of_range(observation, weights.card, settled.sky, settled.sigma, settled.fwhm)
        spread = spread * _factor(weights.card, direction, grid)
        return _Found(mean, spread, scatter, flags, info, weights.card, direction)

    def _present(self, settled, found, target):
        """Variance of the noise that bands which were only convolved keep, (band,)."""
        if settled.present is not None:
            return settled.present
        convolved = settled.fwhm[0] < settled.fwhm[1]
        return np.where(convolved, _sky_variance(found.mean, found.flags, target.noise), 0.0)

    def _direction(self, network, observation, target):
        """Number of the pair of surveys, and the order in which the weights have the bands."""
        order = np.arange(len(observation.data))
        if self.source is None:
            return None, order
        pair = self.source, target.name.strip().lower()
        known = [tuple(each) for each in network.directions]
        if pair not in known:
            listed = ", ".join(" -> ".join(each) for each in known)
            raise InputError(f"source={self.source!r} and target {target.name!r} are no pair of the weights: {listed}")
        names = [name.rsplit(".", 1)[-1].lower() for name in observation.bands]
        missing = [name for name in network.band_names if name not in names]
        if missing or len(names) != len(network.band_names):
            raise InputError(
                f"bands={observation.bands} must be {', '.join(network.band_names)} (in any order) for the filters of "
                f"{' and '.join(pair)}; name them with bands=, or leave source=None to translate without them"
            )
        return known.index(pair), np.array([names.index(name) for name in network.band_names])

    def _tainted(self, valid, fwhm, grid):
        """Where invalid pixels weigh more than the threshold: their share under the PSF."""
        if valid.all():
            return np.zeros(grid.x.shape, bool)
        from scipy.ndimage import gaussian_filter

        width = float(np.max(fwhm)) * np.sqrt(abs(np.linalg.det(grid.jacobian))) / 2.355
        return resample(gaussian_filter((~valid).astype(float), width), grid, "bilinear") > self.mask_threshold


@dataclass(frozen=True)
class _Settled:
    """What is measured once for an image."""

    fwhm: np.ndarray
    sky: np.ndarray
    sigma: np.ndarray
    unit: np.ndarray
    present: np.ndarray | None = None
    spread: np.ndarray | None = None

    @classmethod
    def of(cls, observation, target, fwhm):
        sky, sigma = _levels(observation)
        return cls(fwhm, sky, sigma, _units(observation, target, sigma))


@dataclass(frozen=True)
class _Found:
    """What the network says of an image."""

    mean: np.ndarray
    spread: np.ndarray
    scatter: np.ndarray
    flags: np.ndarray
    info: dict
    card: dict
    direction: int | None


def _median(planes):
    return np.median(planes, axis=(1, 2), keepdims=True)


def _built(**architecture):
    from astrogan.nn.surveynet import SurveyNet

    return SurveyNet(**architecture)


def _check(network, card, weights):
    """Refuse a calibration that the results could not be multiplied by."""
    calibration = card["calibration"] or {}
    scales, kernels = _scales(calibration), calibration.get("error_kernels") or []
    try:
        good = np.ndim(scales) == 1 and all(0 < scale < np.inf for scale in scales)
        good = good and (not kernels or len(kernels) >= max(2, len(network.directions)))
        good = good and all(np.ndim(kernel) == 2 and CorrelatedNoise(np.asarray(kernel)) for kernel in kernels)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise CheckpointError(
            f"weights={weights!r}: the card's calibration must have positive 'scales', and of 'error_kernels' a square "
            "of numbers for each direction; get the pair of files again"
        )


def _levels(observation):
    """Sky and noise of each band, in the image's pixels."""
    from astrogan.image.uncertainty import location_and_scale

    sky, sigma = [], []
    for i, (band, valid) in enumerate(zip(observation.data, observation.valid, strict=True)):
        good = valid if valid.any() else np.ones_like(valid)
        level, scale = location_and_scale(band[good].astype(np.float64))
        if observation.variance is not None:
            scale = float(np.sqrt(np.median(observation.variance[i][good].astype(np.float64))))
        sky.append(level if abs(level) > _SKY * scale else 0.0)
        sigma.append(scale)
    return np.array(sky), np.array(sigma)


def _units(observation, target, sigma):
    """The noise that a pixel of the target's area would have; of an image without any, a small part of its peak."""
    peak = np.abs(observation.data).max(axis=(1, 2)).astype(np.float64)
    unit = np.maximum(sigma * np.sqrt(target.area_ratio), 1e-5 * peak * target.area_ratio)
    if target.noise is not None:
        unit = np.maximum(unit, 1e-2 * np.asarray(target.noise))
    return np.maximum(unit, 1e-30)


def _estimates(images, observation, target, grid, balances):
    """`~astrogan.nn.surveynet.matched_estimates` on the target's grid, (band, balance, y, x), per target pixel."""
    import torch

    from astrogan.nn.surveynet import matched_estimates

    finer = abs(np.linalg.det(grid.jacobian)) < 1
    if finer:
        # The work is done on the finer of the two grids.
        images = np.stack([resample(image, grid, "bicubic") for image in images])
        pairs = [(psf_on_input(psf, np.linalg.inv(grid.jacobian)), psf) for psf in observation.psf]
        psf, wanted = [there for there, _ in pairs], list(target.psf)
    else:
        psf, wanted = list(observation.psf), [psf_on_input(psf, grid.jacobian) for psf in target.psf]
    # Relative to the brightest pixel, so that no unit is too small or too large for single precision.
    peak = np.maximum(np.abs(images).max(axis=(1, 2)), 1e-30)[:, None, None]
    with torch.no_grad():
        found = matched_estimates(_tensor(images / peak), _stack(psf), _stack(wanted), balances)[0]
    found = found.numpy().astype(np.float64) * peak[:, None]
    if not finer:
        found = np.stack([[resample(image, grid, "bicubic") for image in band] for band in found])
    return found * grid.area


def _stack(kernels):
    """Kernels of several sizes as one array, wings padded with zeros."""
    size = max(len(kernel) for kernel in kernels)
    return _tensor(np.stack([np.pad(np.asarray(k, float), (size - len(k)) // 2) for k in kernels]))


def _tensor(array):
    import torch

    return torch.from_numpy(np.ascontiguousarray(array, np.float32))[None]


def _widths(observation, target, grid):
    """FWHM of both PSFs in pixels of the target, (2, band)."""
    step = np.sqrt(abs(np.linalg.det(grid.jacobian)))
    return np.array([[psf_fwhm(k) / step for k in observation.psf], [psf_fwhm(k) for k in target.psf]])


def _through(network, estimates, unit, fwhm, target, order, direction, turn):
    """The network's mean and spread, (band, y, x), in flux, of an image that is turned, and turned back."""
    import torch

    noise = np.zeros(len(unit)) if target.noise is None else np.asarray(target.noise)[order]
    device = next(network.parameters()).device
    # In a unit for all bands, so that their colours stay, in which any flux fits in single precision.
    common = float(np.median(unit))
    number, mirror = turn
    height, width = estimates.shape[-2:]
    if number or mirror:
        # Turned, too, a pixel keeps its place on the coarser grids, so that windows of an image agree with the whole.
        after = [(0, -n % network.stride) for n in (height, width)]
        estimates = np.pad(estimates, ((0, 0), (0, 0), *after), mode="edge")
    estimates = np.rot90(estimates[..., ::-1] if mirror else estimates, number, axes=(-2, -1))
    inputs = [estimates / common, unit / common, *fwhm, noise / common]
    with torch.inference_mode(), exact_matmul(device):
        mean, spread = network(*(_tensor(value).to(device) for value in inputs), direction)
    found = (np.rot90(value[0].cpu().numpy() * common, -number, axes=(-2, -1)) for value in (mean, spread))
    return tuple((value[..., ::-1] if mirror else value)[..., :height, :width] for value in found)


def _factor(card, direction, grid):
    """The calibration's factor on the spread: the direction's, or that of the trained one that is most alike."""
    scales = _scales(card["calibration"] or {})
    return scales[min(_like(direction, grid), len(scales) - 1)]


def _scales(calibration):
    return calibration.get("scales") or [calibration.get("scale", 1.0)]


def _like(direction, grid):
    """0 towards finer pixels, which the weights were trained on first, else 1."""
    return direction if direction is not None else int(abs(np.linalg.det(grid.jacobian)) >= 1)


def _out_of_range(observation, card, sky, sigma, fwhm):
    """Logarithm of the factor by which an image lies outside the training in the worst of its quantities."""
    values = {"fwhm": fwhm[1], "fwhm_ratio": fwhm[0] / fwhm[1]}
    values["peak_snr"] = (observation.data.max(axis=(1, 2)) - sky) / np.maximum(sigma, 1e-30)
    worst = 0.0
    for name, measured in values.items():
        if name in card["ranges"]:
            low, high = np.log(np.maximum(card["ranges"][name], 1e-6))
            log = np.log(np.maximum(measured, 1e-6))
            worst = max(worst, float((low - log).max()), float((log - high).max()))
    return worst


def _drawn_error(spread, sky, card, direction, grid, rng):
    """A field of the error that is expected beyond the sky's, correlated as errors are."""
    kernels = (card["calibration"] or {}).get("error_kernels")
    kernel = np.asarray(kernels[_like(direction, grid)]) if kernels else None
    excess = np.sqrt(np.maximum(np.square(spread) - np.square(sky), 0.0))
    return CorrelatedNoise(kernel).sample(spread.shape, sigma=1.0, rng=rng) * excess


def _sky_variance(mean, flags, wanted):
    """Variance that is left of the image's noise on its sky, at most the target's.

    It is asked for where a band was only convolved: where the network sharpens, it leaves blank sky empty, and what
    scatters there is faint light.
    """
    from astrogan.image.uncertainty import location_and_scale

    found = []
    for band, bad, limit in zip(mean, flags, wanted, strict=True):
        scale = float(location_and_scale(band[~bad if not bad.all() else bad].astype(np.float64))[1])
        found.append(min(scale, float(limit)) ** 2)
    return found
