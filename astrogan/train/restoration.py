"""Training of the restoration network: distortion first, an adversary in the last part if one is wanted."""

from __future__ import annotations

import copy
import math
from functools import lru_cache

import lightning
import numpy as np
import torch
from torch.nn import functional

from astrogan.exceptions import InputError
from astrogan.nn.discriminator import SpectralPatchGAN
from astrogan.nn.filters import apply_bank, wiener_bank
from astrogan.nn.losses import aperture_loss, coverage_loss, psnr_loss, stretched_2017, weighted_charbonnier
from astrogan.nn.nafnet import RestorationNAFNet
from astrogan.train._averaging import Accumulating, cosine_rate, step_if_finite, update_average
from astrogan.train.stream import blur_kernel

__all__ = ["RestorationModule"]

_LOSSES = ("psnr2017", "linear")


class RestorationModule(Accumulating, lightning.LightningModule):
    """`~astrogan.nn.nafnet.RestorationNAFNet` with its losses, optimisers and averaged weights.

    Optimisation is manual, because the perceptual preset has two optimisers. All that a resumed run needs is in the
    state: learning rates follow from the number of steps done, batches from the stream.

    Parameters
    ----------
    network : dict
        Keyword arguments of the network.
    steps : int
        Of the whole run; the learning rate falls to zero along a cosine.
    loss : {'psnr2017', 'linear'}
        PSNR in the stretched domain of Schawinski et al. (2017), for images in nanomaggies; or errors in units of
        noise, for linear images of any unit.
    learning_rate, warmup, betas, weight_decay, clip
        Of AdamW; ``clip`` bounds the gradient's norm.
    average : float
        Decay of the exponential moving average of the weights, which is what is exported.
    coverage_weight, aperture_weight : float
        Weights of the loss of the error's width, and of photometry in boxes of 8 and 32 pixels.
    adversarial_weight : float
        Of the hinge loss against a `~astrogan.nn.discriminator.SpectralPatchGAN`. It sees asinh(image / grain), grain
        being the ``graininess`` of the original: a result that is smoother than the original shows.
    adversarial_start : float
        Part of the steps before it.
    least_grain : float
        The grain of originals with less, in units of the degraded image's noise: simulated ones have none at all.
    seed : int
        Of the initial weights.

    Raises
    ------
    InputError
        If the loss is unknown, or ``least_grain`` not positive.
    """

    def __init__(
        self,
        network=None,
        *,
        steps,
        loss="psnr2017",
        learning_rate=2e-3,
        warmup=100,
        betas=(0.9, 0.9),
        weight_decay=1e-4,
        clip=1.0,
        average=0.998,
        coverage_weight=0.1,
        aperture_weight=0.1,
        adversarial_weight=0.0,
        adversarial_start=0.8,
        least_grain=0.05,
        seed=0,
    ):
        super().__init__()
        if loss not in _LOSSES:
            raise InputError(f"loss={loss!r} must be one of {', '.join(_LOSSES)}")
        if not least_grain > 0:
            raise InputError(f"least_grain={least_grain!r} must be a positive number, e.g. 0.05")
        self.automatic_optimization = False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = RestorationNAFNet(**(network or {}))
            self.discriminator = SpectralPatchGAN(self.network.bands) if adversarial_weight > 0 else None
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.steps, self.loss = int(steps), loss
        self.learning_rate, self.warmup, self.betas = float(learning_rate), int(warmup), tuple(betas)
        self.weight_decay, self.clip, self.decay = float(weight_decay), float(clip), float(average)
        self.coverage_weight, self.aperture_weight = float(coverage_weight), float(aperture_weight)
        self.adversarial_weight, self.adversarial_start = float(adversarial_weight), float(adversarial_start)
        self.least_grain = float(least_grain)

    @property
    def exported(self):
        """The network whose weights are kept: the average."""
        return self.average

    @property
    def architecture(self):
        """Keyword arguments of the network."""
        return self.network.architecture

    @torch.no_grad()
    def restored(self, batch):
        """What the averaged network makes of a batch, in the unit of its images."""
        return _in_flux(restore(self.average, batch)[0], batch)

    def configure_optimizers(self):
        """AdamW for the network, and for the discriminator where there is one."""
        optimisers = [self._adam(self.network.parameters(), self.betas)]
        if self.discriminator is not None:
            optimisers.append(self._adam(self.discriminator.parameters(), (0.0, 0.9)))
        return optimisers

    def _adam(self, parameters, betas):
        return torch.optim.AdamW(parameters, self.learning_rate, betas=betas, weight_decay=self.weight_decay)

    def training_step(self, batch, batch_idx):
        """One step of each optimiser, or a part of one."""
        optimisers = self.optimizers()
        optimisers = optimisers if isinstance(optimisers, list) else [optimisers]
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * cosine_rate(int(self.steps_done), self.steps, self.warmup)
        mean, spread = restore(self.network, batch)
        target = in_sigma(batch["original"], batch)
        terms = self._losses(mean, spread, target, batch)
        loss = sum(terms.values())
        adversary = self._adversarial()
        if adversary:
            grain = graininess(target).clamp_min(self.least_grain)[:, :, None, None]
            images, truth = _visible(mean, grain), _visible(target, grain)
            frozen = self.discriminator.requires_grad_(False)
            terms["adversarial"] = -self.adversarial_weight * frozen(images).mean()
            self.discriminator.requires_grad_(True)
            loss = loss + terms["adversarial"]
        self._descend(optimisers[0], loss, self.network, batch_idx)
        if adversary:
            scores = self.discriminator(truth), self.discriminator(images.detach())
            hinge = functional.relu(1 - scores[0]).mean() + functional.relu(1 + scores[1]).mean()
            self._descend(optimisers[1], hinge, self.discriminator, batch_idx)
            terms["discriminator"] = hinge
        if self.is_last(batch_idx):
            self.steps_done += 1
            update_average(self.average, self.network, float(self.steps_done), self.decay)
        losses = {f"loss/{name}": value.detach() for name, value in terms.items()}
        self.log_dict(losses, on_step=False, on_epoch=True, sync_dist=True)

    def _losses(self, mean, spread, target, batch):
        if self.loss == "psnr2017":
            seen, truth = (stretched_2017(_in_flux(image, batch)) for image in (mean, target))
            terms = {"psnr": psnr_loss(seen, truth)}
        else:
            # The unit is that of the noise and of the network's own estimate, so the mean is not pulled to either side.
            unit = torch.sqrt(batch["noise"] ** 2 + (0.1 * mean.detach()) ** 2)
            error = ((mean - target) / unit).square()
            terms = {"log_error": 10 / math.log(10) * torch.log(error.clamp(max=1e4).mean(dim=(1, 2, 3)) + 1e-6).mean()}
            terms["charbonnier"] = weighted_charbonnier(mean, target, unit, knee=3.0)
        sizes = [size for size in (8, 32) if size <= mean.shape[-1]]
        boxes = sum(aperture_loss(mean, target, size) for size in sizes)
        terms["aperture"] = self.aperture_weight * boxes
        terms["coverage"] = self.coverage_weight * coverage_loss(mean - target, spread)
        return terms

    def _adversarial(self):
        return self.discriminator is not None and int(self.steps_done) >= self.adversarial_start * self.steps

    def _descend(self, optimiser, loss, network, batch_idx):
        self.backward_part(optimiser, loss, batch_idx)
        if self.is_last(batch_idx):
            step_if_finite(optimiser, network.parameters(), self.clip)

    def validation_step(self, batch, batch_idx):
        """PSNR of the averaged network, of the image as it is, and of the best single Wiener estimate; the grain."""
        with torch.no_grad():
            mean, spread = restore(self.average, batch)
            target = in_sigma(batch["original"], batch)
            estimates = _estimates(self.average, batch)
            kinds = {"network": mean, "identity": in_sigma(batch["degraded"], batch)}
            kinds |= {f"wiener{i}": estimates[:, :, i] for i in range(estimates.shape[2])}
            score = {name: self._decibel(image, target, batch) for name, image in kinds.items()}
            inside = ((mean - target).abs() <= spread).float().mean()
        best = max(value for name, value in score.items() if name.startswith("wiener"))
        grain = (graininess(mean) / graininess(target).clamp_min(self.least_grain)).mean()
        values = {"val/psnr": score["network"], "val/identity": score["identity"], "val/wiener": best}
        values["val/grain"] = grain
        self.log_dict(values | {"val/coverage68": inside}, on_step=False, on_epoch=True, batch_size=len(mean))

    def _decibel(self, image, target, batch):
        if self.loss == "psnr2017":
            return -psnr_loss(stretched_2017(_in_flux(image, batch)), stretched_2017(_in_flux(target, batch)))
        return -psnr_loss(torch.asinh(image / 10), torch.asinh(target / 10))


def restore(network, batch):
    """(mean, spread) of a batch of the stream, (n, band, y, x) in units of the sky's noise."""
    data = in_sigma(batch["degraded"], batch)
    return network(data, batch["noise"], batch["fwhm"], _estimates(network, batch))


def _estimates(network, batch):
    fwhm, shape = batch["fwhm"][:, 0].tolist(), batch["shape"].tolist()
    # The user's PSF is never exact either: a tenth of a pixel is as close as it is known.
    banks = [_bank(round(f, 1), s, network.balances, network.radius) for f, s in zip(fwhm, shape, strict=True)]
    data = in_sigma(batch["degraded"], batch)
    with torch.no_grad(), torch.autocast(data.device.type, enabled=False):
        return apply_bank(data, torch.stack(banks)[:, None].to(data.device))


@lru_cache(maxsize=1024)
def _bank(fwhm, shape, balances, radius):
    return wiener_bank(torch.from_numpy(np.ascontiguousarray(blur_kernel(fwhm, shape))), balances, radius)


def in_sigma(flux, batch):
    """Images of a batch above its sky, in units of the sky's noise."""
    return (flux - batch["sky"][:, :, None, None]) / batch["sigma"][:, :, None, None]


def _in_flux(image, batch):
    return image * batch["sigma"][:, :, None, None] + batch["sky"][:, :, None, None]


def _visible(image, grain):
    """What the discriminator sees: compressed, in units of the original's own noise, so that a lack of it shows."""
    return torch.asinh(image / grain)


def graininess(images):
    """Robust scatter of the mixed second differences of images: the noise of their finest scales.

    Parameters
    ----------
    images : `torch.Tensor`
        (n, band, y, x).

    Returns
    -------
    `torch.Tensor`
        (n, band), the standard deviation for white noise.
    """
    mixed = images[..., 1:, 1:] - images[..., 1:, :-1] - images[..., :-1, 1:] + images[..., :-1, :-1]
    return 1.4826 / 2 * mixed.abs().flatten(2).median(dim=2).values
