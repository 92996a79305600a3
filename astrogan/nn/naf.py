"""The building blocks of NAFNet (Chen et al. 2022, ECCV, arXiv:2204.04676), shared by the networks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["NAFBlock", "naf_blocks", "padded", "u_shaped"]


def padded(planes, stride):
    """Rows and columns repeated at the far edges, up to a multiple of a stride.

    Parameters
    ----------
    planes : `torch.Tensor`
        (n, channel, y, x).
    stride : int

    Returns
    -------
    `torch.Tensor`
    """
    height, width = planes.shape[-2:]
    return functional.pad(planes, (0, -width % stride, 0, -height % stride), mode="replicate")


def naf_blocks(width, number):
    """Several blocks in a row.

    Parameters
    ----------
    width : int
        Channels.
    number : int
        Of blocks.

    Returns
    -------
    `torch.nn.Sequential`
    """
    return nn.Sequential(*(NAFBlock(width) for _ in range(number)))


def u_shaped(x, down, shrink, grow, up):
    """Down the scales and up again, with what was seen on the way down added on the way up.

    Parameters
    ----------
    x : `torch.Tensor`
        (n, channel, y, x), of the finest scale.
    down, up : sequence of module
        Of each scale, finest first; ``up`` has none of the coarsest.
    shrink, grow : sequence of module
        Between the scales; ``grow`` gives four times the channels of the finer one.

    Returns
    -------
    `torch.Tensor`
        Of the shape of ``x``.
    """
    passed = []
    for blocks, smaller in zip(down, shrink, strict=False):
        x = blocks(x)
        passed.append(x)
        x = smaller(x)
    x = down[-1](x)
    for blocks, larger, skip in zip(reversed(up), reversed(grow), reversed(passed), strict=True):
        x = blocks(functional.pixel_shuffle(larger(x), 2) + skip)
    return x


class NAFBlock(nn.Module):
    """Two gated residual branches: one that looks at a pixel's neighbours, one that mixes its channels.

    Parameters
    ----------
    width : int
        Channels.
    """

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = _PixelNorm(width), _PixelNorm(width)
        self.expand1, self.expand2 = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.project1, self.project2 = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.weight1 = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.weight2 = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x):
        """(n, width, y, x) to the same shape."""
        x = x + self.weight1 * self.project1(_gated(self.depthwise(self.expand1(self.norm1(x)))))
        return x + self.weight2 * self.project2(_gated(self.expand2(self.norm2(x))))


def _gated(x):
    first, second = x.chunk(2, 1)
    return first * second


class _PixelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        """(n, width, y, x) to the same shape."""
        last = x.permute(0, 2, 3, 1)
        return functional.layer_norm(last, self.weight.shape, self.weight, self.bias).permute(0, 3, 1, 2)
