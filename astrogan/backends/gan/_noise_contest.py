"""The contest of a noise emulator and a discriminator: batches of real noise, and the two networks' updates."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.functional import softplus

from astrogan.nn.noise_gan import FourierDiscriminator

__all__ = ["Contest", "Sky", "seeded"]

_CROP = 64
_AVERAGE = 0.99

_RATES = 2.5e-4, 1e-5, 2e-3
"""Of the filter, of the layers that make the amplitude (which moves with all of their weights) and of the
discriminator: from the closed form there is little to go, and a discriminator that errs must not lead away from it."""
_FLOORS = 5e-3, 1e-3
"""Under Adam's root mean square of the gradients of filter and layers, for the same reason: where the gradient is but
noise, as it is where both noises agree, steps are short."""
_PUBLISHED_RATES = 1e-4, 1e-4, 1e-4


class Sky:
    """Batches of real noise: random crops, turned and mirrored, and where their pixels are good."""

    def __init__(self, measured, scale, batch, generator):
        self.levels = (measured.stds / scale).astype(np.float32)
        self.planes, self.good = measured.planes, measured.good
        self.batch_size, self.generator = batch, generator
        self.crop = min(_CROP, *self.planes.shape[-2:])

    def batch(self):
        """Noise (n, band, y, x) in units of ``scale``, and 1 where pixels are good, else 0; float32."""
        chosen = self.generator.integers(len(self.planes), size=self.batch_size)
        pairs = [self._one(i) for i in chosen]
        return tuple(np.ascontiguousarray(np.stack(part)) for part in zip(*pairs, strict=True))

    def _one(self, i):
        corner = [self.generator.integers(n - self.crop + 1) for n in self.planes.shape[-2:]]
        cut = (i, slice(None), *(slice(c, c + self.crop) for c in corner))
        turn, mirror = self.generator.integers(4), self.generator.integers(2)
        planes = self.planes[cut] * self.levels[i, :, None, None]
        views = [np.rot90(a, turn, (1, 2)) for a in (planes, self.good[cut].astype(np.float32))]
        return [a[:, :, ::-1] if mirror else a for a in views]


class Contest:
    """The two networks and their optimisers."""

    def __init__(self, net, roots, width, published, generator, device, steps):
        self.device, self.published = device, published
        self.net = net.to(device)
        self.average = copy.deepcopy(self.net)
        self.roots = [torch.as_tensor(root, dtype=torch.float32, device=device) for root in roots]
        with seeded(generator):
            self.judge = _judge(net.bands, width, published).to(device)
        self.random = torch.Generator().manual_seed(int(generator.integers(2**31)))
        rates = _PUBLISHED_RATES if published else _RATES
        betas = (0.9, 0.999) if published else (0.5, 0.99)
        layers = [*self.net.weights, *self.net.biases]
        floors = (1e-8, 1e-8) if published else _FLOORS
        parts = [self.net.kernel], layers
        emulator = [{"params": p, "lr": r, "eps": f} for p, r, f in zip(parts, rates, floors, strict=False)]
        self.optimisers = [
            torch.optim.Adam(emulator, betas=betas),
            torch.optim.Adam(self.judge.parameters(), rates[2], betas),
        ]
        fade = (lambda step: 0.2 ** (step // 20_000)) if published else (lambda step: 1 - step / max(steps, 1))
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(o, fade) for o in self.optimisers]

    def step(self, real, good):
        """One update of the discriminator and one of the emulator; their losses."""
        real, good = (torch.as_tensor(a, device=self.device) for a in (real, good))
        real = real * good
        with torch.no_grad():
            made = self._made(real, good)
        # Binary cross-entropy with logits: softplus(-l) where the answer is real, softplus(l) where it is made.
        verdict = self.judge(torch.cat([real, made]))
        judged = (softplus(-verdict[: len(real)]).mean() + softplus(verdict[len(real) :]).mean()) / 2
        self._update(1, judged)
        fooled = softplus(-self.judge(self._made(real, good))).mean()
        self._update(0, fooled)
        for schedule in self.schedules:
            schedule.step()
        self._follow()
        return float(judged.detach()), float(fooled.detach())

    def result(self):
        """The emulator to be used."""
        return (self.net if self.published else self.average).cpu()

    def _made(self, real, good):
        n, bands, height, width = real.shape
        margin = self.net.margin
        z1 = torch.randn(n, bands, generator=self.random).to(self.device)
        z2 = torch.randn(n, bands, height + margin, width + margin, generator=self.random).to(self.device)
        z1, z2 = z1 @ self.roots[0].T, torch.einsum("bc,ncyx->nbyx", self.roots[1], z2)
        return self.net(z1, z2) * good

    def _update(self, which, loss):
        module, optimiser = (self.net, self.judge)[which], self.optimisers[which]
        optimiser.zero_grad(set_to_none=True)
        loss.backward(inputs=list(module.parameters()))
        torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimiser.step()

    def _follow(self):
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.net.parameters(), strict=True):
                kept.lerp_(new, 1 - _AVERAGE)


def _judge(bands, width, published):
    if not published:
        return FourierDiscriminator(width, high_pass=False, orthonormal=True, half_plane=True, bands=bands)

    return _PerBand(bands, width)


class _PerBand(nn.Module):
    """The paper's: a discriminator for each band, and an answer from each."""

    def __init__(self, bands, width):
        super().__init__()
        self.bands = nn.ModuleList(FourierDiscriminator(width) for _ in range(bands))

    def forward(self, images):
        return torch.stack([net(images[:, b : b + 1]) for b, net in enumerate(self.bands)], 1)


@contextmanager
def seeded(generator):
    """A context in which torch's global generator is seeded by a `numpy.random.Generator`; it is put back after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**31)))
        yield
