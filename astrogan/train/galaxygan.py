"""Training of GalaxyGAN from the streams that all tasks share."""

from __future__ import annotations

import numpy as np
import torch

from astrogan.nn.losses import psnr_loss, stretched_2017
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
    **settings
        Of `~astrogan.train.gan.GalaxyGAN2017Module`.
    """

    def __init__(self, *, steps, load=286, **settings):
        super().__init__(**settings)
        self.steps, self.load = int(steps), int(load)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    @property
    def exported(self):
        """The network whose weights are kept: the generator."""
        return self.generator

    def training_step(self, batch, batch_idx):
        """Stretch, resize, crop and mirror, then a step of either network."""
        rng = np.random.default_rng((self.hparams.seed, int(self.steps_done), self.global_rank))
        stretched = zip(_stretched(batch["degraded"]), _stretched(batch["original"]), strict=True)
        pairs = [training_crop(seen, truth, rng, load=self.load, size=256) for seen, truth in stretched]
        degraded, original = (torch.stack(images) for images in zip(*pairs, strict=True))
        super().training_step({"degraded": degraded, "original": original}, batch_idx)
        self.steps_done += 1

    @torch.no_grad()
    def restored(self, batch):
        """What the generator makes of a batch at test time, stochastic as the authors', in [0, 1] stretched."""
        dropout = dropout_generator(self.hparams.seed, 0)
        images = [self(image[None], stochastic=True, generator=dropout) for image in _stretched(batch["degraded"])]
        return (torch.cat(images) + 1) / 2

    def validation_step(self, batch, batch_idx):
        """PSNR in the stretched domain, and that of the degraded images."""
        truth = stretched_2017(batch["original"])
        restored, degraded = self.restored(batch), stretched_2017(batch["degraded"])
        score = {"val/psnr": -psnr_loss(restored, truth), "val/identity": -psnr_loss(degraded, truth)}
        self.log_dict(score, on_step=False, on_epoch=True, batch_size=len(truth))


def _stretched(flux):
    return 2 * stretched_2017(flux) - 1
