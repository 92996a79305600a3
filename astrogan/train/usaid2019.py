"""Training of the DCGAN of Usaid, Ahmed & Jamal (2019) on the paper's blends, made on the fly from pairs of stamps."""

from __future__ import annotations

import copy
import math

import lightning
import numpy as np
import torch
from torch.nn import functional

from astrogan.exceptions import InputError
from astrogan.nn.dcgan import CompletionGAN, Discriminator, invert
from astrogan.train._averaging import update_average
from astrogan.train._usaid2019_blends import PaperBlends, Usaid2019Stream
from astrogan.train.gan import dropout_generator

__all__ = ["PaperBlends", "Usaid2019Module", "Usaid2019Stream", "evaluation", "sheet"]

_LOSSES = ("bce", "hinge")
_SCHEDULES = ("constant", "cosine")

# Weight of an error in the sky, and what full light adds to it.
_SKY_WEIGHT, _LIGHT_WEIGHT = 0.3, 4.0


# ---- the module -----------------------------------------------------------------------------------------------------


class Usaid2019Module(lightning.LightningModule):
    """The DCGAN with its losses and optimisers, as published or so that it does not collapse.

    Batches are those of `Usaid2019Stream`. Noise depends on the seed and the number of the step alone, and learning
    rates on the latter, so that a resumed run continues as if it had not been interrupted.

    Parameters
    ----------
    network : dict
        Keyword arguments of `~astrogan.nn.dcgan.CompletionGAN`.
    steps : int
        Of the whole run.
    loss : {'bce', 'hinge'}
        Sigmoid cross entropy (section 2.3.2; the generator's does not saturate), or the hinge loss.
    spectral : bool
        Spectral instead of batch normalisation in the discriminator.
    learning_rate, discriminator_rate : float
        Of Adam; 0.006 for both in the paper. The second is the first's where it is not given.
    betas : tuple of float
    schedule : {'constant', 'cosine'}
        Of the learning rates; the cosine falls to a twentieth.
    smoothing : float
        Real pictures count as ``1 - smoothing`` (for ``loss='bce'``).
    average : float
        Decay of the exponential moving average of the weights, which is exported then; 0 for none.
    completion_weight, hidden_weight : float
        With an encoder: of the mean absolute error of its completions, over all pixels and over the hidden ones; bright
        pixels weigh more.
    colour_weight : float
        Of errors of the colour in boxes of 8 pixels, beside those of the pixels.
    inversion_steps : int
        Without an encoder: steps of the inversion that validates.
    seed : int
        Of the initial weights and the noise.

    Raises
    ------
    InputError
        If a value cannot be.
    """

    def __init__(
        self,
        network=None,
        *,
        steps,
        loss="bce",
        spectral=False,
        learning_rate=0.006,
        discriminator_rate=None,
        betas=(0.5, 0.999),
        schedule="constant",
        smoothing=0.0,
        average=0.0,
        completion_weight=10.0,
        hidden_weight=5.0,
        colour_weight=3.0,
        inversion_steps=60,
        seed=0,
    ):
        super().__init__()
        for name, value, known in (("loss", loss, _LOSSES), ("schedule", schedule, _SCHEDULES)):
            if value not in known:
                raise InputError(f"{name}={value!r} must be one of {', '.join(known)}")
        self.automatic_optimization = False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = CompletionGAN(**(network or {}))
            width, bands = (self.network.architecture[name] for name in ("width", "bands"))
            self.discriminator = Discriminator(width, bands, spectral=spectral)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval() if average > 0 else None
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.steps, self.loss, self.schedule, self.seed = int(steps), loss, schedule, int(seed)
        self.rates = float(learning_rate), float(learning_rate if discriminator_rate is None else discriminator_rate)
        self.betas, self.smoothing, self.decay = tuple(betas), float(smoothing), float(average)
        self.completion_weight, self.hidden_weight = float(completion_weight), float(hidden_weight)
        self.colour_weight, self.inversion_steps = float(colour_weight), int(inversion_steps)

    @property
    def exported(self):
        """The network whose weights are kept: the average where there is one."""
        return self.network if self.average is None else self.average

    @property
    def architecture(self):
        """Keyword arguments of `~astrogan.nn.dcgan.CompletionGAN`."""
        return dict(self.network.architecture)

    def configure_optimizers(self):
        """Adam for generator and encoder, and Adam for the discriminator, in that order."""
        nets = self.network, self.discriminator
        return [
            torch.optim.Adam(net.parameters(), rate, betas=self.betas)
            for net, rate in zip(nets, self.rates, strict=True)
        ]

    def training_step(self, batch, batch_idx):
        """One step of the discriminator, then one of the generator and the encoder."""
        optimisers = self.optimizers()
        for optimiser, rate in zip(optimisers, self.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * self._factor()
        truth = 2 * batch["image"] - 1
        fakes = self._fakes(batch)
        terms = {"discriminator": self._discriminator_loss(truth, fakes.detach())}
        self._descend(optimisers[1], terms["discriminator"], self.discriminator)
        frozen = self.discriminator.requires_grad_(False)
        made = {"generator": self._generator_loss(frozen(fakes))}
        self.discriminator.requires_grad_(True)
        if self.network.encoder is not None:
            made |= self._completion_losses(fakes[len(truth) :], truth, batch["mask"])
        self._descend(optimisers[0], sum(made.values()), self.network)
        self.steps_done += 1
        if self.average is not None:
            update_average(self.average, self.network, float(self.steps_done), self.decay)
        terms |= made
        values = {f"loss/{name}": value.detach() for name, value in terms.items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(truth))

    def _fakes(self, batch):
        """Pictures from noise and, after them, of the segmented galaxies where there is an encoder."""
        device = batch["image"].device
        seed = dropout_generator(self.seed, int(self.steps_done), self.global_rank if self._trainer else 0)
        z = torch.randn(len(batch["image"]), self.network.generator.latent, generator=seed).to(device)
        if self.network.encoder is None:
            return self.network.generator(z)
        own = self.network.encoder(2 * batch["segmented"] - 1, batch["mask"])
        # Together, so that the normalisations know one kind of batch.
        return self.network.generator(torch.cat([z.to(own.dtype), own]))

    def _discriminator_loss(self, real, fake):
        real, fake = self.discriminator(real), self.discriminator(fake)
        if self.loss == "hinge":
            return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
        return _cross_entropy(real, 1 - self.smoothing) + _cross_entropy(fake, 0.0)

    def _generator_loss(self, logits):
        return -logits.mean() if self.loss == "hinge" else _cross_entropy(logits, 1.0)

    def _completion_losses(self, completed, truth, mask):
        # Most of a picture is sky; where the galaxy shines an error means more flux, too.
        light = (truth.mean(1, keepdim=True) + 1) / 2
        error = completed - truth
        error = (error.abs() + self.colour_weight * _colour(error).abs()) * (_SKY_WEIGHT + _LIGHT_WEIGHT * light)
        hidden = 1 - mask
        return {
            "completion": self.completion_weight * error.mean(),
            "hidden": self.hidden_weight * (error * hidden).sum() / (hidden.sum() * truth.shape[1]).clamp(min=1),
        }

    def _factor(self):
        if self.schedule == "constant":
            return 1.0
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, int(self.steps_done) / self.steps)))

    def _descend(self, optimiser, loss, network):
        optimiser.zero_grad()
        self.manual_backward(loss)
        # A step that is not finite is left out; the optimiser still counts it.
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            optimiser.zero_grad()
        optimiser.step()

    @torch.no_grad()
    def completed(self, batch, method=None):
        """What the exported network, in evaluation mode, makes of the segmented galaxies.

        Parameters
        ----------
        batch : dict of `torch.Tensor`
        method : {'encoder', 'inversion'}, optional
            Default: the encoder where there is one.

        Returns
        -------
        `torch.Tensor`
            (n, 3, 64, 64) in [0, 1].
        """
        network = self.exported
        training = network.training
        network.eval()
        seen, mask = 2 * batch["segmented"] - 1, batch["mask"]
        method = method or ("encoder" if network.encoder is not None else "inversion")
        if method == "encoder":
            picture = network.complete(seen, mask)
        else:
            start = None if network.encoder is None else network.encoder(seen, mask)
            seed = dropout_generator(self.seed, 0)
            picture, _ = invert(network.generator, seen, mask, steps=self.inversion_steps, seed=seed, start=start)
        network.train(training)
        return (picture.float() + 1) / 2

    def validation_step(self, batch, batch_idx):
        """PSNR of the completed and of the segmented pictures, over all pixels and over the hidden ones."""
        truth, hidden = batch["image"], 1 - batch["mask"]
        values = {}
        for name, image in (("psnr", self.completed(batch)), ("identity", batch["segmented"])):
            error = (image - truth).square()
            values[f"val/{name}"] = _decibel(error.mean())
            part = (error * hidden).sum() / (hidden.sum() * truth.shape[1]).clamp(min=1)
            values[f"val/{name}_hidden"] = _decibel(part)
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(truth))


def _cross_entropy(logits, label):
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _colour(error):
    """How much an error differs between the bands, in boxes of 8 pixels: (n, band, y, x).

    Colours are a small part of the error, and for thousands of steps every galaxy gets the mean one without this.
    """
    boxes = functional.avg_pool2d(error - error.mean(1, keepdim=True), 8)
    return functional.interpolate(boxes, scale_factor=8)


def _decibel(error):
    return -10 * torch.log10(error.clamp(min=1e-10))


# ---- figures --------------------------------------------------------------------------------------------------------


def evaluation(module, recipe, stream):
    """PSNR and SSIM of the completed galaxies of the validation part, beside those of what needs no network.

    Parameters
    ----------
    module : `Usaid2019Module`
    recipe : `~astrogan.train.recipe.Recipe`
    stream : `Usaid2019Stream`
        Of the validation part.

    Returns
    -------
    dict
        ``ranges`` and ``calibration`` (empty and `None`: there is no photometry), and ``metrics``, a row a method:
        "encoder", "inversion" and their results with the known pixels kept ("... + known"), "segmented" (as it is) and
        "mean fill" (hidden pixels by the mean of the known ones of each band). PSNR and SSIM are of pictures in
        [0, 1]; ``psnr_hidden`` is over the hidden pixels alone.
    """
    batches = max(1, -(-min(recipe.validation_images, len(stream.source)) // recipe.batch))
    scores = {}
    for step in range(batches):
        batch = {key: torch.from_numpy(value).to(module.device) for key, value in stream.batch(step).items()}
        for name, image in _methods(module, batch).items():
            scores.setdefault(name, []).extend(_scores(image, batch))
    return {
        "ranges": {},
        "calibration": None,
        "metrics": [{"method": name, "images": len(rows)} | _mean_scores(rows) for name, rows in scores.items()],
    }


def _methods(module, batch):
    seen, mask = batch["segmented"], batch["mask"]
    out = {}
    for name in ("encoder", "inversion") if module.exported.encoder is not None else ("inversion",):
        out[name] = module.completed(batch, name)
        out[f"{name} + known"] = torch.where(mask > 0, seen, out[name])
    level = (seen * mask).sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True).clamp(min=1)
    return out | {"segmented": seen, "mean fill": torch.where(mask > 0, seen, level)}


def _scores(images, batch):
    from astrogan.metrics import psnr, ssim

    rows = []
    hidden = (batch["mask"] == 0).cpu().numpy()
    for image, truth, hole in zip(images.cpu().numpy(), batch["image"].cpu().numpy(), hidden, strict=True):
        known = np.broadcast_to(~hole, truth.shape)
        part = psnr(truth, image, data_range=1.0, mask=known) if hole.any() else np.nan
        rows.append((psnr(truth, image, data_range=1.0), part, ssim(truth, image, data_range=1.0)))
    return rows


def _mean_scores(rows):
    names, places = ("psnr", "psnr_hidden", "ssim"), (3, 3, 4)
    values = np.array(rows).T
    means = [float(np.mean(v[np.isfinite(v)])) if np.isfinite(v).any() else None for v in values]
    return {n: m if m is None else round(m, p) for n, m, p in zip(names, means, places, strict=True)}


def sheet(module, batch):
    """Pictures to look at: a row an object.

    Parameters
    ----------
    module : `Usaid2019Module`
    batch : dict of `torch.Tensor`

    Returns
    -------
    rows : list of list of `numpy.ndarray`
        (3, 64, 64), nominally in [0, 1].
    titles : list of str
    """
    batch = {key: value.to(module.device) for key, value in batch.items()}
    images = {
        "blended": batch["blended"],
        "segmented": batch["segmented"],
        "deblended": module.completed(batch),
        "from noise": _from_noise(module, batch),
        "preblended 1": batch["image"],
    }
    arrays = [image.detach().float().cpu().numpy() for image in images.values()]
    return [list(row) for row in zip(*arrays, strict=True)], list(images)


@torch.no_grad()
def _from_noise(module, batch):
    network = module.exported
    training = network.training
    network.eval()
    seed = dropout_generator(module.seed, 0)
    z = torch.randn(len(batch["image"]), network.generator.latent, generator=seed).to(batch["image"].device)
    pictures = (network.generator(z) + 1) / 2
    network.train(training)
    return pictures
