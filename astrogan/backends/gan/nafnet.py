"""The learned restorer: one network for all noise levels, PSFs and pixel scales, in linear flux."""

from __future__ import annotations

import copy
import numbers
from pathlib import Path

import numpy as np

from astrogan.api import Estimate, Observation
from astrogan.backends.gan._device import computes_bfloat16, device_of, exact_matmul
from astrogan.backends.gan._nafnet_model import Models
from astrogan.backends.gan._nafnet_settings import (
    Measured,
    Settings,
    fwhms_of,
    kernels_of,
    largest_distance,
    same_bands,
)
from astrogan.exceptions import InputError
from astrogan.image.mask import RestorationFlag

__all__ = ["NAFNet"]

_TURNS = tuple((k, mirror) for mirror in (False, True) for k in range(4))

# A pixel is flagged beyond this many times the brightest that the network was trained on.
# A little beyond the brightest galaxy of the training is no reason to restore the bands one by one.
_NEAR = 0.4
_TOO_BRIGHT = 2.0
# Noise in units of the sky's, beyond which a pixel weighs nothing anyhow.
_NOISE = 1e-3, 1e4
# Pixels that go through the network at once, stamps together: more is no quicker on a CPU, and keeps a GPU busy.
_PIXELS, _PIXELS_ON_GPU = 2**16, 2**21
_TILES_ON_GPU = 4


class NAFNet:
    """Restore with a small convolutional network that mixes Wiener estimates pixel by pixel.

    The image is brought to units of its noise, above its sky; a bank of Wiener filters made from its PSF gives classic
    estimates; the network (`~astrogan.nn.nafnet.RestorationNAFNet`) weighs them in each pixel, adds what they miss,
    and says how wrong it may be. Everything goes back to linear flux, nothing is clipped, and multiplying the image by
    a number multiplies the result by it.

    Parameters
    ----------
    weights : str or path, optional
        Name (``astrogan weights list``) or path of weights. "auto" takes those that come with the package whose number
        of bands and training ranges fit the image best; with none for its number of bands, each band is restored by
        itself.
    perceptual : float, optional
        From 0 (fidelity: the least error) to 1 (perceptual: trained against an adversary, sharper and grainier, of
        larger error). The weights of the two presets are interpolated. Never measure on results of other than 0.
    ensemble : bool, optional
        Average over the eight turned and mirrored images: eight times the work, a little less error. The scatter of
        the eight is added to the variance.
    device : str, optional
        "auto" (CUDA where there is one, else the CPU) or a device of torch.
    precision : {'float32', 'bfloat16', 'auto'}, optional
        bfloat16 is quicker on GPUs and on processors that have it, and less exact: see the notes. "auto" takes it on
        GPUs and processors that compute in it (CUDA from Ampere on, AMX, AVX-512 BF16), float32 elsewhere.
    compile : bool, optional
        Let `torch.compile` fuse the network. That takes up to minutes at the first image, and a C++ compiler; it pays
        for thousands of tiles.

    Raises
    ------
    InputError
        If an option is out of range or no weights fit, and at the call, if weights for several bands meet another
        number of bands, or bands of other names or in another order.
    CheckpointError
        If the weights are damaged or for another backend.
    PSFError
        If there is no PSF.
    MissingDependencyError
        With ``compile``, if there is no compiler.

    Notes
    -----
    ``psf`` is what lies between the image wanted and the image given. For the weights trained on stamps as in
    Schawinski et al. (2017) that is the blur which was added; give the whole PSF, and the result is as sharp as the
    network dares, which is about two pixels FWHM.

    ``variance`` is predicted by the network for the difference to images like those that it was trained on, and scaled
    on images that it was not trained on; the card says what part of the errors lies within one such sigma. Some of
    those images are real and have noise of their own, others are simulated and have none: the prediction lies between.
    Errors of neighbouring pixels are correlated. ``info`` has the name and hash of the
    weights, and ``out_of_range``: by what factor, as a natural logarithm, the image lies outside the ranges of the
    training in the worst of FWHM and peak signal-to-noise ratio; 0 is inside.

    The unit of the noise is that of the deepest tenth of the image, so that in a mosaic all the rest is noisier, which
    the network has seen (``nafnet-linear``) or takes better than the opposite.

    Sky level, noise level and the choice of weights belong to the whole image; everything else is local, so tiles that
    begin at multiples of ``tile_align`` agree with the whole.

    With bfloat16 only the inside of the network's blocks is rounded; the estimates, the weights by which they are mixed
    and the sum are float32, so that bright pixels keep their digits. The difference
    from float32, measured on a dozen real SDSS and JWST stamps, is 0.0015 of the predicted sigma in the median pixel
    and at most 0.08 of it where it is largest; rms 0.08 % of the signal in the median stamp and 0.6 % in the worst, of
    the flux 0.01 % and 0.3 %. Tiles then agree with the whole to
    within this rounding.

    References
    ----------
    .. [1] L. Chen et al., 2022, ECCV, arXiv:2204.04676 (the blocks).
    .. [2] K. Schawinski et al., 2017, MNRAS 467, L110 (the task).
    """

    needs_psf = True
    needs_variance = True
    tile_size = 576

    def __init__(
        self,
        weights="auto",
        *,
        perceptual=0.0,
        ensemble=False,
        device="auto",
        precision="float32",
        compile=False,  # noqa: A002 - torch's name for it
    ):
        if isinstance(perceptual, bool) or not isinstance(perceptual, numbers.Real) or not 0 <= perceptual <= 1:
            raise InputError(f"perceptual={perceptual!r} must be a number from 0 (fidelity) to 1 (perceptual)")
        if not isinstance(ensemble, bool):
            raise InputError(f"ensemble={ensemble!r} must be True or False")
        if precision not in ("float32", "bfloat16", "auto"):
            raise InputError(f"precision={precision!r} must be 'float32', 'bfloat16' or 'auto'")
        if not isinstance(compile, bool):
            raise InputError(f"compile={compile!r} must be True or False")
        self.weights = weights
        self.perceptual = float(perceptual)
        self.ensemble = ensemble
        self.device = device
        self.precision = precision
        self.compile = compile
        self._settled = None
        self._cache = Models()

    def __repr__(self):
        return f"NAFNet(weights={self.weights!r}, perceptual={self.perceptual}, ensemble={self.ensemble})"

    def halo_for(self, observation: Observation) -> int:
        """Pixels of context that the network chosen for this image needs."""
        return self._model(self._name(observation)).net.halo

    def tile_align(self, observation: Observation) -> int:
        """What the first pixel of a tile must be a multiple of."""
        return self._model(self._name(observation)).net.stride

    def for_image(self, observation: Observation) -> NAFNet:
        """A `NAFNet` with the weights, the sky level and the noise level that belong to this whole image."""
        if self._settled is not None:
            return self
        settled = copy.copy(self)
        settled._settled = self._settings(observation)
        return settled

    @property
    def tiles_per_call(self) -> int:
        """Tiles that go through the network together."""
        return 1 if device_of(self.device).type == "cpu" else _TILES_ON_GPU

    def __call__(self, observation: Observation, *, rng=None) -> Estimate:
        """Restore an observation.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
            Data (band, y, x) with a PSF and a variance.
        rng : `numpy.random.Generator`, optional
            Not used.

        Returns
        -------
        `~astrogan.api.Estimate`
            With ``variance``; ``info`` has ``weights``, ``sha256`` and ``out_of_range``.
        """
        return self.batch([observation])[0]

    def call_tiles(self, observations, *, cuts=None, rngs=None) -> list[Estimate]:
        """Restore tiles of an image; those of equal shape go through the network together.

        Parameters
        ----------
        observations : list of `~astrogan.api.Observation`
        cuts, rngs : list, optional
            Not used.

        Returns
        -------
        list of `~astrogan.api.Estimate`
        """
        return self.batch(observations)

    def batch(self, observations, *, rngs=None, workers=None) -> list[Estimate]:
        """Restore many images; those of equal shape go through the network together, as many as pay.

        Parameters
        ----------
        observations : list of `~astrogan.api.Observation`
        rngs, workers : optional
            Not used; the network's threads are torch's.

        Returns
        -------
        list of `~astrogan.api.Estimate`
            What each image gives by itself, to within rounding.
        """
        settings = [self._settings(observation) for observation in observations]
        estimates = {}
        for group in self._groups(observations, settings):
            chosen = [observations[i] for i in group], [settings[i] for i in group]
            estimates |= zip(group, self._together(*chosen), strict=True)
        return [estimates[i] for i in range(len(observations))]

    def _settings(self, observation):
        if self._settled is not None:
            return self._settled
        found = Measured.of(observation)
        name = self._name(observation, found)
        return Settings.of(observation, found, name, self._cache.card(name))

    def _groups(self, observations, settings):
        """Lists of indices of images that share weights and shape, no longer than pays."""
        alike = {}
        for i, (observation, own) in enumerate(zip(observations, settings, strict=True)):
            alike.setdefault((own.weights, observation.shape, observation.bands), []).append(i)
        pixels = _PIXELS if device_of(self.device).type == "cpu" else _PIXELS_ON_GPU
        for (_, shape, _), group in alike.items():
            most = max(pixels // (shape[1] * shape[2]), self.tiles_per_call)
            yield from (group[i : i + most] for i in range(0, len(group), most))

    def _together(self, observations, settings):
        """Estimates of images of equal shape."""
        model = self._model(settings[0].weights)
        means, sigmas = self._by_group(model, observations, settings, self._mean_and_sigma)
        for mean, sigma, own in zip(means, sigmas, settings, strict=True):
            mean[own.blank] = 0
            scale = own.sigma[:, None, None]
            data = mean * scale + own.sky[:, None, None]
            info = {"weights": model.name, "sha256": model.sha256[:12], "out_of_range": own.out_of_range}
            if self.perceptual:
                info |= {"perceptual": self.perceptual, "perceptual_weights": model.companion}
            if not model.card["calibration"]:
                info["calibrated"] = False
            yield Estimate(data.astype(np.float32), np.square(sigma * scale).astype(np.float32), info=info)

    # ---- what it does not know --------------------------------------------------------------------------------------

    def out_of_range(self, observation: Observation) -> float:
        """How far an image lies outside the training of the weights chosen for it.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
            With a variance, and a PSF if its width is to count.

        Returns
        -------
        float
            The logarithm of the largest factor, over `range_report`; 0 inside.
        """
        return largest_distance(self.range_report(observation))

    def range_report(self, observation: Observation) -> dict:
        """What is measured on an image beside the ranges of the training.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`

        Returns
        -------
        dict
            ``(value, low, high)`` by quantity, as far as the card has a range: "peak_snr" (the pixel furthest from the
            sky in units of the sky's noise) and "fwhm" (pixels), of the band furthest outside.
        """
        found = Measured.of(observation)
        return found.beside(self._cache.card(self._name(observation, found)))

    def pixel_flags(self, observation: Observation) -> np.ndarray:
        """Pixels of a whole image that the training does not cover.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`

        Returns
        -------
        `numpy.ndarray` of uint8
            (band, y, x): `~astrogan.image.mask.RestorationFlag.OUT_OF_RANGE` where a valid pixel lies more than twice
            as far above or below the sky, in units of its noise, as the brightest in the training.
        """
        settings = self._settings(observation)
        card = self._cache.card(settings.weights)
        flags = np.zeros(observation.shape, np.uint8)
        if "peak_snr" in card["ranges"]:
            bound = _TOO_BRIGHT * card["ranges"]["peak_snr"][1] * settings.sigma[:, None, None]
            beyond = np.abs(observation.data - settings.sky[:, None, None]) > bound
            flags[beyond & observation.valid] = RestorationFlag.OUT_OF_RANGE
        return flags

    def ensemble_spread(self, observation: Observation, *, rng=None) -> np.ndarray:
        """Scatter of the restorations of the eight turned and mirrored images, whatever ``ensemble`` is.

        Where it is large the result hangs on how the image happens to lie, and not on the sky alone. It is a lower
        bound of the error: what all eight get wrong in the same way does not show.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
        rng : `numpy.random.Generator`, optional
            Not used.

        Returns
        -------
        `numpy.ndarray`
            Standard deviation, float32, (band, y, x), in the observation's unit.
        """
        settings = self._settings(observation)
        model = self._model(settings.weights)
        (spreads,) = self._by_group(model, [observation], [settings], self._scatter)
        return spreads[0] * settings.sigma[:, None, None]

    # ---- weights ----------------------------------------------------------------------------------------------------

    def _model(self, name):
        device = device_of(self.device)
        short = self.precision == "bfloat16" or (self.precision == "auto" and computes_bfloat16(device))
        return self._cache.get(name, self.perceptual, device, "bfloat16" if short else "float32", self.compile)

    def _name(self, observation, found=None):
        """Name or path of the weights for an observation; ``found`` is what was measured on it, where that was."""
        if self._settled is not None:
            return self._settled.weights
        bands = len(observation.data)
        if self.weights != "auto":
            card = self._cache.card(self.weights)
            if card["bands"] not in (1, bands):
                raise InputError(
                    f"weights={str(self.weights)!r} restores {card['bands']} bands together; the image has {bands}: "
                    "use weights='auto'"
                )
            if card["bands"] > 1 and not same_bands(card, observation.bands):
                wanted, given = ", ".join(card["band_names"]), ", ".join(observation.bands)
                raise InputError(
                    f"weights={str(self.weights)!r} restores the bands {wanted} together, in this order; the image has "
                    f"{given}: put them in this order, or use weights='auto'"
                )
            return self.weights if isinstance(self.weights, str) else str(Path(self.weights).expanduser().resolve())
        fitting = [c for c in self._cache.shipped() if c["bands"] == 1 or same_bands(c, observation.bands)]
        if not fitting:
            raise InputError("weights='auto' finds none for this backend; train some (astrogan train) and name them")

        found = found or Measured.of(observation)

        # Of those that were trained on such images, the one that sees most bands at once knows most, and of several
        # for as many bands the one that their cards say is best.
        def order(card):
            distance = largest_distance(found.beside(card))
            best = max((row.get("psnr", 0.0) for row in card["metrics"]), default=0.0)
            return round(max(0.0, distance - _NEAR), 2), -card["bands"], -best, card["name"]

        return min(fitting, key=order)["name"]

    # ---- the network ------------------------------------------------------------------------------------------------

    def _by_group(self, model, observations, settings, function):
        """Arrays (image, band, y, x) float32 from those that a function gives for bands that the network sees at once.

        The images have one shape.
        """
        import torch

        bands = len(observations[0].data)
        groups = [slice(None)] if model.card["bands"] == bands else [slice(b, b + 1) for b in range(bands)]
        kernels = [kernels_of(observation) for observation in observations]
        inputs = [self._inputs(*each, model.card) for each in zip(observations, settings, strict=True)]
        data, noise, fwhm = (np.stack(arrays) for arrays in zip(*inputs, strict=True))
        with torch.inference_mode(), exact_matmul(model.device):
            parts = [function(model, data[:, g], noise[:, g], fwhm[:, g], [k[g] for k in kernels]) for g in groups]
        return [np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)]

    def _inputs(self, observation, settings, card):
        """Data and noise in units of the sky's noise, (band, y, x), and the FWHM of each band."""
        data = (observation.data - settings.sky[:, None, None]) / settings.sigma[:, None, None]
        noise = np.sqrt(observation.variance) / settings.sigma[:, None, None]
        low, high = card["ranges"].get("fwhm", (1.0, 10.0))
        return data, np.clip(noise, *_NOISE), np.clip(fwhms_of(observation), low, high)

    def _mean_and_sigma(self, model, *inputs):
        import torch

        means, spreads = self._turned_passes(model, *inputs, turns=_TURNS if self.ensemble else _TURNS[:1])
        variance = (spreads.mean(0) * model.scale).square()
        if self.ensemble:
            variance = variance + means.var(0)
        return means.mean(0).cpu().numpy(), torch.sqrt(variance).cpu().numpy()

    def _scatter(self, model, *inputs):
        means, _ = self._turned_passes(model, *inputs, turns=_TURNS)
        return (means.std(0).cpu().numpy(),)

    def _turned_passes(self, model, data, noise, fwhm, kernels, *, turns):
        """Means and spreads, (turn, image, band, y, x), all turned back."""
        import torch

        def tensor(array):
            return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(model.device)

        data, noise, fwhm = map(tensor, (data, noise, fwhm))
        height, width = data.shape[-2:]
        # Whole strides, so that an image that is turned has its pixels in the same places of the coarser grids.
        pad = (0, -width % model.net.stride, 0, -height % model.net.stride)
        data, noise = (torch.nn.functional.pad(x, pad, mode="replicate") for x in (data, noise))
        means, spreads = [], []
        for turn in turns:
            bank = torch.stack([model.bank([_turned(kernel, *turn) for kernel in each]) for each in kernels])
            mean, spread = self._pass(model, _turn(data, *turn), _turn(noise, *turn), fwhm, bank)
            means.append(_turn_back(mean, *turn)[..., :height, :width])
            spreads.append(_turn_back(spread, *turn)[..., :height, :width])
        return torch.stack(means), torch.stack(spreads)

    def _pass(self, model, data, noise, fwhm, bank):
        from astrogan.nn.filters import apply_bank

        return model.run(data, noise, fwhm, apply_bank(data, bank))


def _turned(kernel, turns, mirror):
    return np.ascontiguousarray(np.rot90(kernel[:, ::-1] if mirror else kernel, turns))


def _turn(image, turns, mirror):
    return (image.flip(-1) if mirror else image).rot90(turns, (-2, -1))


def _turn_back(image, turns, mirror):
    image = image.rot90(-turns, (-2, -1))
    return image.flip(-1) if mirror else image
