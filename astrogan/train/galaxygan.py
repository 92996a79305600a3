"""Training of GalaxyGAN from the streams that all tasks share."""

from __future__ import annotations

import copy

import numpy as np
import torch

from astrogan.exceptions import InputError
from astrogan.nn.losses import psnr_loss, stretched_2017
from astrogan.train._averaging import update_average
from astrogan.train.gan import GalaxyGAN2017Module, dropout_generator, training_crop

__all__ = ["GalaxyGANModule"]


class GalaxyGANModule(GalaxyGAN2017Module):
    """`~astrogan.train.gan.GalaxyGAN2017Module` on batches of linear images in nanomaggies.

    Parameters
    ----------
    steps : int
        Of the run.
    load : int
        Pixels along an edge to which images are resized before 256 are cut out; 286 in the paper.
    average : float, optional
        Decay of an exponential moving average of the generator, which is then what is kept. Default: none, as in the
        paper, where the weights are those of the last step; what the adversary makes of these differs from step to
        step by some tenths of a dB.
    **settings
        Of `~astrogan.train.gan.GalaxyGAN2017Module`.

    Raises
    ------
    InputError
        If ``average`` is not a decay.
    """

    def __init__(self, *, steps, load=286, average=0.0, **settings):
        super().__init__(**settings)
        if not 0 <= average < 1:
            raise InputError(f"average={average!r} must be a number from 0 (no average) to below 1, e.g. 0.999")
        self.steps, self.load, self.decay = int(steps), int(load), float(average)
        self.average = copy.deepcopy(self.generator).requires_grad_(False) if self.decay else None
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    @property
    def network(self):
        """The network that is trained: the generator."""
        return self.generator

    @property
    def exported(self):
        """The network whose weights are kept: the generator, or its average."""
        return self.generator if self.average is None else self.average

    def training_step(self, batch, batch_idx):
        """Stretch, resize, crop and mirror, then a step of either network."""
        rng = np.random.default_rng((self.hparams.seed, int(self.steps_done), self.global_rank))
        stretched = zip(_stretched(batch["degraded"]), _stretched(batch["original"]), strict=True)
        pairs = [training_crop(seen, truth, rng, load=self.load, size=256) for seen, truth in stretched]
        degraded, original = (torch.stack(images) for images in zip(*pairs, strict=True))
        super().training_step({"degraded": degraded, "original": original}, batch_idx)
        self.steps_done += 1
        if self.average is not None:
            update_average(self.average, self.generator, float(self.steps_done), self.decay)

    @torch.no_grad()
    def restored(self, batch):
        """What the kept network makes of a batch at test time, stochastic as the authors', in [0, 1] stretched."""
        dropout = dropout_generator(self.hparams.seed, 0)
        network = self.exported
        images = [network(image[None], stochastic=True, generator=dropout) for image in _stretched(batch["degraded"])]
        return (torch.cat(images) + 1) / 2

    def validation_step(self, batch, batch_idx):
        """PSNR in the stretched domain, and that of the degraded images."""
        truth = stretched_2017(batch["original"])
        restored, degraded = self.restored(batch), stretched_2017(batch["degraded"])
        score = {"val/psnr": -psnr_loss(restored, truth), "val/identity": -psnr_loss(degraded, truth)}
        self.log_dict(score, on_step=False, on_epoch=True, batch_size=len(truth))


def _stretched(flux):
    return 2 * stretched_2017(flux) - 1
