"""The learned restorer: one network for all noise levels, PSFs and pixel scales, in linear flux."""

from __future__ import annotations

import copy
import numbers
import threading
from pathlib import Path

import numpy as np

from astrogan.api import Estimate, Observation
from astrogan.backends.gan._device import compiled, computes_bfloat16, device_of, exact_matmul
from astrogan.exceptions import CheckpointError, InputError, PSFError
from astrogan.image.mask import RestorationFlag
from astrogan.image.psf import psf_fwhm

__all__ = ["NAFNet"]

_PERCEPTUAL = "-perceptual"
_TURNS = tuple((k, mirror) for mirror in (False, True) for k in range(4))

# A pixel is flagged beyond this many times the brightest that the network was trained on.
# A little beyond the brightest galaxy of the training is no reason to restore the bands one by one.
_NEAR = 0.4
_TOO_BRIGHT = 2.0
# Noise in units of the sky's, beyond which a pixel weighs nothing anyhow.
_NOISE = 1e-3, 1e4


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
        number of bands.
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
        self._cache = _Models()

    def __repr__(self):
        return f"NAFNet(weights={self.weights!r}, perceptual={self.perceptual}, ensemble={self.ensemble})"

    def halo_for(self, observation: Observation) -> int:
        """Pixels of context that the network chosen for this image needs."""
        return self._model(observation).net.halo

    def tile_align(self, observation: Observation) -> int:
        """What the first pixel of a tile must be a multiple of."""
        return self._model(observation).net.stride

    def for_image(self, observation: Observation) -> NAFNet:
        """A `NAFNet` with the weights, the sky level and the noise level that belong to this whole image."""
        if self._settled is not None:
            return self
        settled = copy.copy(self)
        settled._settled = _Settings.of(observation, self._model(observation).card)
        return settled

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
        model = self._model(observation)
        settings = self._settled or _Settings.of(observation, model.card)
        mean, sigma = self._restored(model, observation, settings)
        mean[settings.blank] = 0
        scale = settings.sigma[:, None, None]
        data = mean * scale + settings.sky[:, None, None]
        info = {"weights": model.name, "sha256": model.sha256[:12], "out_of_range": settings.out_of_range}
        if self.perceptual:
            info |= {"perceptual": self.perceptual, "perceptual_weights": model.companion}
        if not model.card["calibration"]:
            info["calibrated"] = False
        return Estimate(data.astype(np.float32), np.square(sigma * scale).astype(np.float32), info=info)

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
        return _largest_distance(self.range_report(observation))

    def range_report(self, observation: Observation) -> dict:
        """What is measured on an image beside the ranges of the training.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`

        Returns
        -------
        dict
            ``(value, low, high)`` by quantity, as far as the card has a range: "peak_snr" (the brightest pixel above
            the sky in units of the sky's noise) and "fwhm" (pixels), of the band furthest outside.
        """
        return _measured(observation, self._model(observation).card)

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
        card = self._model(observation).card
        flags = np.zeros(observation.shape, np.uint8)
        if "peak_snr" in card["ranges"]:
            settings = self._settled or _Settings.of(observation, card)
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
        model = self._model(observation)
        settings = self._settled or _Settings.of(observation, model.card)
        (spread,) = self._by_group(model, observation, settings, self._scatter)
        return spread * settings.sigma[:, None, None]

    # ---- weights ----------------------------------------------------------------------------------------------------

    def _model(self, observation):
        settled = self._settled
        name = settled.weights if settled is not None else self._choice(observation)
        device = device_of(self.device)
        short = self.precision == "bfloat16" or (self.precision == "auto" and computes_bfloat16(device))
        return self._cache.get(name, self.perceptual, device, "bfloat16" if short else "float32", self.compile)

    def _choice(self, observation):
        """Name or path of the weights for an observation."""
        from astrogan.weights import list_weights, read_card

        bands = len(observation.data)
        if self.weights != "auto":
            card = read_card(self.weights)
            _check_backend(card, self.weights)
            if card["bands"] not in (1, bands):
                raise InputError(
                    f"weights={str(self.weights)!r} restores {card['bands']} bands together; the image has {bands}: "
                    "use weights='auto'"
                )
            return self.weights if isinstance(self.weights, str) else str(Path(self.weights).expanduser().resolve())
        cards = [read_card(name) for name in list_weights(backend="nafnet") if not name.endswith(_PERCEPTUAL)]
        fitting = [card for card in cards if card["bands"] == 1 or _same_bands(card, observation.bands)]
        if not fitting:
            raise InputError("weights='auto' finds none for this backend; train some (astrogan train) and name them")

        # Of those that were trained on such images, the one that sees most bands at once knows most, and of several
        # for as many bands the one that their cards say is best.
        def order(card):
            distance = _largest_distance(_measured(observation, card))
            best = max((row.get("psnr", 0.0) for row in card["metrics"]), default=0.0)
            return round(max(0.0, distance - _NEAR), 2), -card["bands"], -best, card["name"]

        return min(fitting, key=order)["name"]

    # ---- the network ------------------------------------------------------------------------------------------------

    def _restored(self, model, observation, settings):
        """Mean and standard deviation in units of the noise, (band, y, x) float32."""
        return self._by_group(model, observation, settings, self._mean_and_sigma)

    def _by_group(self, model, observation, settings, function):
        """Arrays (band, y, x) float32 from those that a function gives for the bands that the network sees at once."""
        import torch

        bands = len(observation.data)
        kernels = _kernels(observation)
        groups = [slice(None)] if model.card["bands"] == bands else [slice(b, b + 1) for b in range(bands)]
        data = (observation.data - settings.sky[:, None, None]) / settings.sigma[:, None, None]
        noise = np.sqrt(observation.variance) / settings.sigma[:, None, None]
        low, high = model.card["ranges"].get("fwhm", (1.0, 10.0))
        fwhm = np.clip([psf_fwhm(kernel) for kernel in kernels], low, high)
        with torch.inference_mode(), exact_matmul(model.device):
            parts = [function(model, data[g], noise[g], fwhm[g], kernels[g]) for g in groups]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

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
        """Means and spreads, (turn, band, y, x), all turned back."""
        import torch

        def tensor(array):
            return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None].to(model.device)

        data, noise, fwhm = tensor(data), tensor(np.clip(noise, *_NOISE)), tensor(fwhm)
        height, width = data.shape[-2:]
        # Whole strides, so that an image that is turned has its pixels in the same places of the coarser grids.
        pad = (0, -width % model.net.stride, 0, -height % model.net.stride)
        data, noise = (torch.nn.functional.pad(x, pad, mode="replicate") for x in (data, noise))
        means, spreads = [], []
        for turn in turns:
            bank = model.bank([_turned(kernel, *turn) for kernel in kernels])
            mean, spread = self._pass(model, _turn(data, *turn), _turn(noise, *turn), fwhm, bank)
            means.append(_turn_back(mean, *turn)[0, :, :height, :width])
            spreads.append(_turn_back(spread, *turn)[0, :, :height, :width])
        return torch.stack(means), torch.stack(spreads)

    def _pass(self, model, data, noise, fwhm, bank):
        from astrogan.nn.filters import apply_bank

        return model.run(data, noise, fwhm, apply_bank(data, bank[None]))


class _Settings:
    """What belongs to a whole image: weights, levels, and how far it is from what they know."""

    def __init__(self, weights, sky, sigma, blank, out_of_range):
        self.weights, self.sky, self.sigma, self.out_of_range = weights, sky, sigma, out_of_range
        self.blank = blank

    @classmethod
    def of(cls, observation, card):
        score = _largest_distance(_measured(observation, card))
        sky, sigma = _levels(observation)
        # A band without any structure has nothing to restore, and is not given what the network makes of none.
        blank = (observation.data == sky[:, None, None]).all(axis=(1, 2))
        return cls(card["_from"], sky, sigma, blank, score)


class _Model:
    """A network on a device with its card, and the filters made for the PSFs seen last."""

    def __init__(self, name, perceptual, device, precision, fused):
        import torch

        from astrogan.nn.nafnet import FoldedNAFNet
        from astrogan.weights import blend, load_weights

        weights = load_weights(name)
        _check_backend(weights.card, name)
        tensors, self.sha256, self.companion = weights.tensors, weights.sha256, ""
        scale = _scale(weights.card)
        if perceptual > 0:
            other = load_weights(_companion(weights.path))
            tensors = blend(weights, other, perceptual)
            scale = (1 - perceptual) * scale + perceptual * _scale(other.card)
            self.companion = f"{other.name} {other.sha256[:12]}"
        self.name, self.device = weights.name, torch.device(device)
        self.card = weights.card | {"_from": name}
        self.net = FoldedNAFNet(_network(weights.card, tensors, name).to(self.device), getattr(torch, precision))
        self.run = compiled(self.net, _example(self.net, self.device)) if fused else self.net
        self.scale = torch.as_tensor(scale, dtype=torch.float32, device=self.device)
        self._banks, self._lock = {}, threading.Lock()

    def bank(self, kernels):
        """(band, filter, k, k) on the device."""
        import torch

        from astrogan.nn.filters import wiener_bank

        banks = []
        for kernel in kernels:
            key = (kernel.shape, kernel.tobytes())
            with self._lock:
                bank = self._banks.get(key)
            if bank is None:
                bank = wiener_bank(torch.from_numpy(kernel), self.net.balances, self.net.radius)
                with self._lock:
                    if len(self._banks) > 64:
                        self._banks.clear()
                    self._banks[key] = bank
            banks.append(bank)
        return torch.stack(banks).to(self.device)


class _Models:
    """Networks that have been loaded, by name; shared by the copies of a backend."""

    def __init__(self):
        self._models, self._lock = {}, threading.Lock()

    def get(self, name, perceptual, device, precision, fused):
        with self._lock:
            key = (name, perceptual, str(device), precision, fused)
            if key not in self._models:
                self._models[key] = _Model(name, perceptual, device, precision, fused)
            return self._models[key]

    def __deepcopy__(self, memo):
        return _Models()

    def __getstate__(self):
        return {}

    def __setstate__(self, state):
        self.__init__()


def _check_backend(card, name):
    if card["backend"] != "nafnet":
        raise CheckpointError(f"weights={str(name)!r} are for the backend {card['backend']!r}, not nafnet")


def _scale(card):
    """Factor on the predicted width, (band or 1, 1, 1); one where the card has no calibration."""
    return np.reshape((card["calibration"] or {}).get("scale", 1.0), (-1, 1, 1))


def _network(card, tensors, name):
    """The network that a card describes, with its tensors."""
    from astrogan.nn.nafnet import RestorationNAFNet

    try:
        net = RestorationNAFNet(**card["architecture"])
        net.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"weights={str(name)!r} do not fit the card's architecture: {error}") from error
    if net.bands != card["bands"]:
        raise CheckpointError(
            f"weights={str(name)!r} do not fit their card: it says {card['bands']} bands, the network has {net.bands}"
        )
    return net.requires_grad_(False).eval()


def _example(net, device):
    """Inputs of the network's ``forward`` on which it can be tried."""
    import torch

    image = torch.ones(1, net.bands, 8 * net.stride, 12 * net.stride, device=device)
    estimates = image[:, :, None].expand(-1, -1, len(net.balances), -1, -1).contiguous()
    return image, image.clone(), torch.full((1, net.bands), 3.0, device=device), estimates


def _companion(path):
    """The perceptual weights beside those of fidelity."""
    return path.with_name(f"{path.stem}{_PERCEPTUAL}{path.suffix}")


def _levels(observation):
    """Sky level and noise of each band, float32: medians over the valid pixels of the whole image."""
    sky, sigma = [], []
    for plane, good, variance in zip(observation.data, _known(observation), observation.variance, strict=True):
        sky.append(np.median(plane[good]))
        sigma.append(np.sqrt(np.median(variance[good])))
    # An image without noise has no unit of its own: any does that keeps squares within float32.
    largest = np.maximum(np.abs(observation.data).max(axis=(1, 2)), np.float32(1e-25))
    return np.asarray(sky, np.float32), np.maximum(np.asarray(sigma, np.float32), np.float32(1e-12) * largest)


def _known(observation):
    """The valid pixels of each band, or all of one that has none."""
    return [valid if valid.any() else np.ones_like(valid) for valid in observation.valid]


def _measured(observation, card):
    """(value, low, high) of each quantity that a card has a range of, in the band furthest outside."""
    sky, sigma = _levels(observation)
    peaks = [plane[good].max() for plane, good in zip(observation.data, _known(observation), strict=True)]
    values = {"peak_snr": (peaks - sky) / sigma}
    if observation.psf is not None:
        values["fwhm"] = [psf_fwhm(kernel) for kernel in _kernels(observation)]
    ranges = {quantity: card["ranges"][quantity] for quantity in values if quantity in card["ranges"]}
    return {
        quantity: max(((float(value), low, high) for value in values[quantity]), key=lambda item: _distance(*item))
        for quantity, (low, high) in ranges.items()
    }


def _distance(value, low, high):
    """Distance from a range, as the logarithm of a factor; 0 inside."""
    value, low, high = np.log(np.maximum([value, low, high], 1e-6))
    return max(float(low - value), float(value - high), 0.0)


def _largest_distance(measured):
    return max((_distance(*item) for item in measured.values()), default=0.0)


def _kernels(observation):
    if observation.psf is None:
        raise PSFError("psf is missing: nafnet deconvolves; give one, e.g. psf=2.5 (FWHM in pixels)")
    return np.asarray(observation.psf, np.float64)


def _turned(kernel, turns, mirror):
    return np.ascontiguousarray(np.rot90(kernel[:, ::-1] if mirror else kernel, turns))


def _turn(image, turns, mirror):
    return (image.flip(-1) if mirror else image).rot90(turns, (-2, -1))


def _turn_back(image, turns, mirror):
    image = image.rot90(-turns, (-2, -1))
    return image.flip(-1) if mirror else image


def _same_bands(card, names):
    """Whether an image has the bands of a card: as many, and in the same order where both have names."""
    unnamed = all(name.isdigit() for name in names) or card["band_names"] is None
    return card["bands"] == len(names) and (unnamed or list(names) == card["band_names"])
