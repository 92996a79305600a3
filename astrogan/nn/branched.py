"""The branched deblending GAN of Reiman & Gohre (2019, MNRAS 485, 2617): one blend in, two galaxies out."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from astrogan.exceptions import InputError
from astrogan.nn._arguments import check_whole

__all__ = ["BranchedDiscriminator", "BranchedGenerator", "ms_ssim"]

# Weights of the finest scales (Wang, Simoncelli & Bovik 2003), and the window of a single one.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5

_STAMP = 80
_MOST_BLOCKS = _MOST_DILATION = 64

# What the last convolutions add at first: the hyperbolic tangent of it is a dark sky.
_DARK = -1.5


class BranchedGenerator(nn.Module):
    """A blend of two galaxies to the one at the centre and the other (Reiman & Gohre 2019, section 3 and figure 2).

    A convolution of 9 x 9 with a PReLU; ``shared_blocks`` residual blocks, a convolution with batch normalisation and
    the long skip around them; then, for each galaxy, ``branch_blocks`` residual blocks and a convolution of 9 x 9 with
    a hyperbolic tangent. The published network is the default, of 1.7 million parameters.

    Parameters
    ----------
    features : int
        Channels.
    shared_blocks, branch_blocks : int
        Residual blocks before the network branches, and in each branch; at most 64.
    bands : int
        Of the images.
    position : bool
        Add each pixel's distance from the middle to what the network sees: not in the paper, for small networks.
    dilation : int
        Pixels between the taps of the shared blocks' convolutions, at most 64; 1 as published.

    Raises
    ------
    InputError
        If a number is not a positive integer (of blocks: not negative), or too large.

    Notes
    -----
    The network must tell the galaxy in the middle from the other, and convolutions know where they are from the zeros
    beyond the edges alone: the published network sees 41 pixels to each side, just enough for stamps of 80. A network
    of half as many blocks sees no edge from the middle and gives the whole blend from both branches; it needs
    ``position``. A ``dilation`` of two shows it more at the same cost.

    A PReLU has one slope a channel. In the released code it has one a pixel and channel, which binds the network to
    images of 80 x 80 pixels and has more parameters than all of the rest. The last convolutions begin with a bias of
    -1.5, which makes a dark sky: from zero, the first steps of a quick training push all of their weights at once, to
    where the hyperbolic tangent is flat and nothing is learned any more.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.branched import BranchedGenerator
    >>> first, second = BranchedGenerator(features=8, shared_blocks=1, branch_blocks=1)(torch.zeros(1, 3, 80, 80))
    >>> first.shape, second.shape
    (torch.Size([1, 3, 80, 80]), torch.Size([1, 3, 80, 80]))
    """

    def __init__(self, features=64, shared_blocks=10, branch_blocks=6, bands=3, *, position=False, dilation=1):
        super().__init__()
        for name, value, low, high in (
            ("features", features, 1, None),
            ("shared_blocks", shared_blocks, 0, _MOST_BLOCKS),
            ("branch_blocks", branch_blocks, 0, _MOST_BLOCKS),
            ("bands", bands, 1, None),
            ("dilation", dilation, 1, _MOST_DILATION),
        ):
            check_whole(name, value, low, high)
        if not isinstance(position, bool):
            raise InputError(f"position={position!r} must be True or False")
        self.architecture = {
            "features": int(features),
            "shared_blocks": int(shared_blocks),
            "branch_blocks": int(branch_blocks),
            "bands": int(bands),
            "position": position,
            "dilation": int(dilation),
        }
        self.bands, self.position = int(bands), position
        self.stem = nn.Sequential(nn.Conv2d(bands + position, features, 9, padding=4), nn.PReLU(features))
        self.shared = nn.Sequential(
            *(_Residual(features, dilation) for _ in range(shared_blocks)),
            nn.Conv2d(features, features, 3, padding=1),
            nn.BatchNorm2d(features),
        )
        self.branches = nn.ModuleList(
            nn.Sequential(
                *(_Residual(features) for _ in range(branch_blocks)), nn.Conv2d(features, bands, 9, padding=4)
            )
            for _ in range(2)
        )
        for branch in self.branches:
            nn.init.constant_(branch[-1].bias, _DARK)

    def forward(self, blended):
        """Separate the two galaxies.

        Parameters
        ----------
        blended : `torch.Tensor`
            (n, band, y, x) in [-1, 1].

        Returns
        -------
        first, second : `torch.Tensor`
            The galaxy at the centre and the other one, of the same shape, float32, in (-1, 1).
        """
        stem = self.stem(torch.cat([blended, _distance(blended)], 1) if self.position else blended)
        shared = stem + self.shared(stem)
        first, second = (torch.tanh(branch(shared).float()) for branch in self.branches)
        return first, second


def _distance(images):
    """Distance from the middle, a channel of the images' shape; -1 there and 0 after 40 pixels."""
    y, x = (torch.arange(n, dtype=images.dtype, device=images.device) - (n - 1) / 2 for n in images.shape[-2:])
    distance = torch.hypot(y[:, None], x) / (_STAMP / 2) - 1
    return distance.expand(len(images), 1, -1, -1)


class _Residual(nn.Module):
    """x + (convolution, normalisation, PReLU, convolution, normalisation)(x)."""

    def __init__(self, features, dilation=1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=dilation, dilation=dilation),
            nn.BatchNorm2d(features),
            nn.PReLU(features),
            nn.Conv2d(features, features, 3, padding=dilation, dilation=dilation),
            nn.BatchNorm2d(features),
        )

    def forward(self, x):
        return x + self.layers(x)


class BranchedDiscriminator(nn.Module):
    """Tells real galaxies from separated ones, one image at a time (Reiman & Gohre 2019, section 3 and figure 3).

    Convolutions of 3 x 3 to 1, 1, 2, 2, 4, 4, 8 and 8 times ``width`` channels, every second one with a stride of two,
    each followed by a leaky ReLU (slope 0.3) and, but for the first, batch normalisation; a layer of 16 ``width``
    units with a leaky ReLU; one logit.

    Parameters
    ----------
    width : int
        Channels of the first convolution; 64 as published.
    bands : int
        Of the images.
    size : int
        Pixels along an edge of the images.

    Raises
    ------
    InputError
        If a number is not a positive integer.

    Notes
    -----
    Batch normalisation takes the statistics of the batch at hand and keeps none: the network is of no use once the
    training is over.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.branched import BranchedDiscriminator
    >>> BranchedDiscriminator(width=4)(torch.zeros(2, 3, 80, 80)).shape
    torch.Size([2, 1])
    """

    def __init__(self, width=64, bands=3, size=_STAMP):
        super().__init__()
        for name, value in (("width", width), ("bands", bands), ("size", size)):
            check_whole(name, value, 1)
        layers, before = [], bands
        for i, factor in enumerate((1, 1, 2, 2, 4, 4, 8, 8)):
            after, stride = factor * width, 1 + i % 2
            layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.LeakyReLU(0.3)]
            if i:
                layers.append(nn.BatchNorm2d(after, track_running_stats=False))
            before = after
        edge = -(-size // 16)
        self.features = nn.Sequential(*layers)
        self.judge = nn.Sequential(
            nn.Flatten(), nn.Linear(before * edge**2, 16 * width), nn.LeakyReLU(0.3), nn.Linear(16 * width, 1)
        )

    def forward(self, images):
        """Logits (n, 1), positive for real, of images (n, band, y, x) in [-1, 1]."""
        return self.judge(self.features(images)).float()


def ms_ssim(images, targets, data_range=1.0, scales=3):
    """Structural similarity over several scales (Wang, Simoncelli & Bovik 2003), a mean over images and bands.

    Parameters
    ----------
    images, targets : `torch.Tensor`
        (n, band, y, x), at least ``11 * 2 ** (scales - 1)`` pixels along an edge.
    data_range : float
        Between the smallest and the largest possible value.
    scales : int
        From 1 to 5, each half as fine as the one before. The published weights of those taken are made to sum to one.

    Returns
    -------
    `torch.Tensor`
        One number; 1 for equal images.

    Raises
    ------
    InputError
        If the images are too small for so many scales.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.branched import ms_ssim
    >>> image = torch.linspace(0, 1, 48 * 48).reshape(1, 1, 48, 48)
    >>> float(ms_ssim(image, image)), bool(ms_ssim(1 - image, image) < 0.1)
    (1.0, True)
    """
    if not 1 <= scales <= len(_SCALE_WEIGHTS):
        raise InputError(f"scales={scales!r} must be an integer from 1 to {len(_SCALE_WEIGHTS)}")
    least = _WINDOW * 2 ** (scales - 1)
    if min(images.shape[-2:]) < least:
        raise InputError(f"images has shape {tuple(images.shape)}; {scales} scales need {least} pixels along an edge")
    weights = np.array(_SCALE_WEIGHTS[:scales]) / sum(_SCALE_WEIGHTS[:scales])
    result = 1.0
    for scale, weight in enumerate(weights):
        if scale:
            images, targets = functional.avg_pool2d(images, 2), functional.avg_pool2d(targets, 2)
        whole, contrast = _similarity(images, targets, data_range)
        # Negative similarity has no broken power; it counts as none.
        result = result * (whole if scale == scales - 1 else contrast).clamp(min=1e-6) ** float(weight)
    return result.mean()


def _similarity(images, targets, data_range):
    """(SSIM, its part without the mean levels), each (n, band)."""
    bands = images.shape[1]
    offset = torch.arange(_WINDOW, dtype=images.dtype, device=images.device) - _WINDOW // 2
    taps = torch.exp(-0.5 * (offset / _SIGMA) ** 2)
    taps = taps / taps.sum()

    def smooth(x):
        for shape in ((1, 1, _WINDOW, 1), (1, 1, 1, _WINDOW)):
            x = functional.conv2d(x, taps.reshape(shape).expand(x.shape[1], -1, -1, -1), groups=x.shape[1])
        return x

    moments = smooth(torch.cat([images, targets, images**2, targets**2, images * targets], 1))
    a, b, aa, bb, ab = moments.split(bands, 1)
    low, high = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    contrast = (2 * (ab - a * b) + high) / (aa - a * a + bb - b * b + high)
    level = (2 * a * b + low) / (a * a + b * b + low)
    return (level * contrast).mean((2, 3)), contrast.mean((2, 3))
