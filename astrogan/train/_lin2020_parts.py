"""What the training of the networks of Lin et al. 2021 is made of: the variants' settings, and small parts."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from astrogan.nn.noise_gan import FourierDiscriminator

__all__ = [
    "VARIANTS",
    "BandJudges",
    "Variant",
    "channels_last",
    "cross_entropy",
    "frozen",
    "listed",
    "mse",
    "set_level",
]


@dataclass(frozen=True)
class Variant:
    """Which networks and losses there are; the letters are those of the paper's figure 3."""

    cycle: bool = True
    paired: bool = False
    pseudo: bool = False
    adversary: bool = True
    noise: bool = False
    autoencoders: bool = False
    upsampling: str = "nearest"
    generators: str = "lin2020"

    @property
    def judged(self):
        """Whether there are discriminators."""
        return self.adversary or self.noise


VARIANTS = {
    "lin2020": Variant(paired=True, adversary=False, noise=True, autoencoders=True),
    "pix2pix": Variant(cycle=False, paired=True),
    "cyclegan": Variant(),
    "cyclegan-identity": Variant(pseudo=True),
    "cyclegan-paired": Variant(paired=True),
    "pixelshuffle": Variant(paired=True, upsampling="pixelshuffle"),
    "no-autoencoder": Variant(paired=True, adversary=False, noise=True),
    "cyclegan-regridded": Variant(generators="cyclegan"),
    "augcgan": Variant(paired=True, generators="augcgan"),
}
"""The paper's method, and the eight others of its comparison, (a) to (h), by the names that recipes give them."""


class BandJudges(nn.Module):
    """A discriminator for each band."""

    def __init__(self, bands, width):
        super().__init__()
        self.judges = nn.ModuleList(FourierDiscriminator(width) for _ in range(bands))

    def forward(self, images):
        """Logits (n, band)."""
        return torch.stack([judge(images[:, i : i + 1]) for i, judge in enumerate(self.judges)], 1)


@torch.no_grad()
def set_level(emulator, wanted):
    """Move the last biases of a noise emulator so that the scatter of its noise is, in the middle, what is wanted."""
    deviates = torch.linspace(-1.5, 1.5, 31, device=emulator.kernel.device)[:, None].expand(-1, emulator.bands)
    with torch.autocast(deviates.device.type, enabled=False):
        amplitude = emulator.amplitude(deviates)
    gain = emulator.symmetric_kernel().square().sum((1, 2, 3)).sqrt()
    levels = torch.stack([wanted.to(gain) / gain, amplitude.median(0).values])
    wanted, present = torch.log(torch.expm1(levels.clamp(min=1e-6)))  # before the softplus
    emulator.biases[-1] += (wanted - present)[:, None]


def listed(optimisers):
    return optimisers if isinstance(optimisers, list | tuple) else [optimisers]


def mse(made, wanted):
    return functional.mse_loss(made.float(), wanted.float())


def cross_entropy(logits, label):
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def channels_last(images):
    return images.contiguous(memory_format=torch.channels_last)


@contextmanager
def frozen(module):
    """The parameters of a module without gradients, for as long as its output is computed."""
    parameters = list(module.parameters())
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
