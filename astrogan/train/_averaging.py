"""What the modules that descend step by step and keep an average of their weights have in common."""

from __future__ import annotations

import math

import torch

__all__ = ["Accumulating", "cosine_rate", "step_if_finite", "update_average"]


class Accumulating:
    """A Lightning module's step of one optimiser out of several batches: gradients add up, then it steps.

    Optimisation is manual, so Lightning does not do this. A gradient is the mean over the batches, which is that of one
    large batch where a loss is a mean over images.
    """

    accumulate = 1
    """Batches in a step."""

    def is_last(self, batch_idx):
        """Whether a batch, by its number in the epoch, ends a step."""
        return (batch_idx + 1) % self.accumulate == 0

    def backward_part(self, optimiser, loss, batch_idx, *, first=True):
        """Add a batch's gradient; ``first`` is False for the further losses of one batch."""
        if first and batch_idx % self.accumulate == 0:
            optimiser.zero_grad()
        self.manual_backward(loss if self.accumulate == 1 else loss / self.accumulate)


def cosine_rate(done, steps, warmup):
    """Part of the learning rate after ``done`` steps of ``steps``: up within ``warmup``, then down to zero."""
    rise = min(1.0, (done + 1) / max(1, warmup))
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, done / steps)))


def step_if_finite(optimiser, parameters, clip):
    """A step of an optimiser with the gradient's norm bounded by ``clip``.

    A gradient that is not finite (bfloat16 overflows now and then) is left out; the optimiser still counts the step.
    """
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip)
    if not torch.isfinite(norm):
        optimiser.zero_grad()
    optimiser.step()


@torch.no_grad()
def update_average(average, network, done, decay):
    """Move an exponential moving average of a network on; in the beginning it forgets more quickly.

    Running statistics of batch normalisation are averaged like weights; whole numbers are copied.
    """
    part = 1 - min(decay, done / (done + 10))
    own = network.state_dict()
    for name, kept in average.state_dict().items():
        if kept.is_floating_point():
            kept.lerp_(own[name].to(kept.dtype), part)
        else:
            kept.copy_(own[name])
