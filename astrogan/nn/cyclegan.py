"""CycleGAN and Augmented CycleGAN as Lin et al. 2021 (ICPR 2020, arXiv:2101.07389) had them to compare with.

Zhu et al. 2017 (ICCV, arXiv:1703.10593) and Almahairi et al. 2018 (ICML, arXiv:1802.10151), with what Lin et al. did
differently: leaky ReLU 0.2 instead of ReLU, normalisation after it, none within residual blocks but where there is a
latent code, and a leaky ReLU instead of tanh at the end. Weights are Xavier-uniform, biases 0.1.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional

from astrogan.nn.noise_gan import initialise

__all__ = ["LATENT", "LatentDiscriminator", "LatentEncoder", "PatchDiscriminator", "ResidualGenerator"]

LATENT = 32
"""Numbers of a latent code."""

_SLOPE = 0.2
_BIAS = 0.1
_BLOCKS = 6
_EPSILON = 1e-12  # 1e-20 in the paper's program, which float32 knows no difference from


class _Normalised(nn.Module):
    """Each channel of an image with mean 0 and scatter 1, or with those that a latent code asks for."""

    def __init__(self, channels, latent=0):
        super().__init__()
        self.mean = nn.Linear(latent, channels) if latent else None
        self.scatter = nn.Linear(latent, channels) if latent else None

    def forward(self, x, latent=None):
        with torch.autocast(x.device.type, enabled=False):
            variance, mean = torch.var_mean(x.float(), (2, 3), correction=0, keepdim=True)
            out = (x.float() - mean) * torch.rsqrt(variance + _EPSILON)
            if self.mean is not None:
                latent = latent.float()
                out = out * functional.softplus(self.scatter(latent))[..., None, None]
                out = out + self.mean(latent)[..., None, None]
        return out.to(x.dtype)


class _Layer(nn.Module):
    """A convolution of reflected edges, a leaky ReLU, and normalisation."""

    def __init__(self, inputs, outputs, size, stride=1, *, norm=True, activation=True, latent=0):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, padding_mode="reflect")
        self.norm = _Normalised(outputs, latent) if norm else None
        self.activation = activation

    def forward(self, x, latent=None):
        x = self.conv(x)
        if self.activation:
            x = functional.leaky_relu(x, _SLOPE)
        return x if self.norm is None else self.norm(x, latent)


class _Enlarging(nn.Module):
    """A transposed convolution to twice the size."""

    def __init__(self, inputs, outputs, latent=0):
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, 2)
        self.norm = _Normalised(outputs, latent)

    def forward(self, x, latent=None):
        # The last row and column are those that TensorFlow's "same" padding leaves out.
        return self.norm(functional.leaky_relu(self.conv(x)[..., :-1, :-1], _SLOPE), latent)


class _Block(nn.Module):
    def __init__(self, channels, latent=0):
        super().__init__()
        norm = {"norm": bool(latent), "latent": latent}
        self.first = _Layer(channels, channels, 3, **norm)
        self.second = _Layer(channels, channels, 3, activation=False, **norm)

    def forward(self, x, latent=None):
        return functional.leaky_relu(x + self.second(self.first(x, latent), latent), _SLOPE)


class ResidualGenerator(nn.Module):
    """CycleGAN's generator with six residual blocks: stamps to stamps of the same size.

    Parameters
    ----------
    bands : int
    width : int
        Channels of the first layer, 64 in the papers.
    latent : int
        Numbers of the code that sets mean and scatter of every layer's channels (conditional instance normalisation,
        Augmented CycleGAN); 0 for none.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.cyclegan import ResidualGenerator
    >>> ResidualGenerator(5, 8)(torch.rand(1, 5, 64, 64)).shape
    torch.Size([1, 5, 64, 64])
    """

    def __init__(self, bands=5, width=64, latent=0):
        super().__init__()
        self.layers = nn.ModuleList(
            [
                _Layer(bands, width, 7, latent=latent),
                _Layer(width, 2 * width, 3, 2, latent=latent),
                _Layer(2 * width, 4 * width, 3, 2, latent=latent),
                *(_Block(4 * width, latent) for _ in range(_BLOCKS)),
                _Enlarging(4 * width, 2 * width, latent),
                _Enlarging(2 * width, width, latent),
                _Layer(width, bands, 7, norm=False),
            ]
        )
        _initialise(self)

    def forward(self, images, latent=None):
        """Stamps (n, band, y, x), y and x multiples of 4; ``latent`` is (n, number)."""
        for layer in self.layers:
            images = layer(images, latent)
        return images


class PatchDiscriminator(nn.Module):
    """CycleGAN's discriminator: is a patch of 70 x 70 pixels of this survey?

    Parameters
    ----------
    bands : int
    width : int
        Channels of the first layer, 64 in the papers.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.cyclegan import PatchDiscriminator
    >>> PatchDiscriminator(5, 8)(torch.rand(2, 5, 64, 64)).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(self, bands=5, width=64):
        super().__init__()
        channels = (bands, width, 2 * width, 4 * width, 8 * width, 1)
        strides = (2, 2, 2, 1, 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, s) for a, b, s in zip(channels[:-1], channels[1:], strides, strict=True)
        )
        self.norm = _Normalised(0)
        _initialise(self)

    def forward(self, images):
        """Logits (n, 1, y', x'), positive for real."""
        x = images
        for number, conv in enumerate(self.convs):
            if number:
                x = functional.leaky_relu(x, _SLOPE)
                x = self.norm(x) if number > 1 else x
            after = 1 if conv.stride[0] == 2 else 2  # as TensorFlow pads, so that no pixel is lost
            x = conv(functional.pad(x, (1, after, 1, after)))
        return x


class LatentEncoder(nn.Module):
    """Augmented CycleGAN's encoder: the latent code that leads from a stamp of one survey to that of the other.

    Parameters
    ----------
    bands : int
    width : int
        Channels of the first layer, 64 in the papers.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.cyclegan import LatentEncoder
    >>> LatentEncoder(5, 8)(torch.rand(2, 5, 64, 64), torch.rand(2, 5, 64, 64)).shape
    torch.Size([2, 32])
    """

    def __init__(self, bands=5, width=64):
        super().__init__()
        channels = (2 * bands, width, 2 * width, 4 * width, 8 * width, 8 * width)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2) for a, b in itertools.pairwise(channels))
        self.last = nn.Conv2d(channels[-1], LATENT, 1)
        self.norm = _Normalised(0)
        _initialise(self)

    def forward(self, own, other):
        """Codes (n, 32) of stamps (n, band, y, x) of the survey that is made, and of the one it is made from."""
        x = torch.cat([own, other], 1)
        for conv in self.convs:
            x = conv(functional.pad(x, (0, 1, 0, 1)))
            x = self.norm(functional.leaky_relu(x, _SLOPE))
        return self.last(x).float().mean((2, 3))


class LatentDiscriminator(nn.Sequential):
    """Is a latent code drawn, or made by an encoder? Three hidden layers of 64; the last one is leaky, too."""

    def __init__(self):
        sizes = (LATENT, 64, 64, 64, 1)
        layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.LeakyReLU(_SLOPE))]
        super().__init__(*layers)
        _initialise(self)


def _initialise(module):
    initialise(module)
    for layer in module.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.constant_(layer.bias, _BIAS)
