"""The networks of pix2pix (Isola et al. 2017, CVPR, 5967) as GalaxyGAN used them, and its resizing of images.

Written from the papers and the behaviour of the authors' program; batch statistics and dropout at test time are a
property of the call (``stochastic``), not of the network. Random numbers come from generators that the caller gives.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from astrogan.exceptions import InputError

__all__ = ["PatchGAN", "UNet256", "from_network_range", "resize", "to_network_range"]

_LEVELS = 8
_REDUCTION = 2**_LEVELS


class UNet256(nn.Module):
    """The U-Net of pix2pix for images of 256 pixels: eight levels, each of half the size, with skip connections.

    Convolutions are 4 x 4 with stride 2 and without bias; leaky ReLU (0.2) on the way down, ReLU on the way up,
    dropout in the three innermost levels of the decoder, tanh at the end. 54.4 million parameters at width 64, 3.4
    million at width 16.

    Parameters
    ----------
    in_bands, out_bands : int, optional
        Channels of the input and of the output.
    width : int, optional
        Channels of the first level; they double up to eight times that.
    dropout : float, optional
        Probability at which a value is dropped, from 0 to below 1.
    bottleneck_norm : bool, optional
        Batch normalisation of the innermost level, as the GalaxyGAN authors' version of pix2pix has it. With a batch
        of one image of 256 pixels there is one value a channel, so its output is a constant and that level and its
        filters do nothing (pix2pix's own later erratum). False leaves the normalisation out.
    seed : int, optional
        Of the initial weights: N(0, 0.02) for convolutions, N(1, 0.02) for the scales of batch normalisation.

    Attributes
    ----------
    architecture : dict
        The keyword arguments that build it again, without the seed.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    The authors' convolutions had biases that were set to zero before each update of the weights, so that they never
    amount to more than one step of the optimiser (about 2e-4). Here there are none. All but the outermost would be
    taken out by batch normalisation anyway.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.pix2pix import UNet256
    >>> net = UNet256(width=2).eval()
    >>> net(torch.zeros(1, 3, 256, 256)).shape
    torch.Size([1, 3, 256, 256])
    """

    def __init__(self, in_bands=3, out_bands=3, width=64, dropout=0.5, *, bottleneck_norm=True, seed=0):
        super().__init__()
        for name, value in (("in_bands", in_bands), ("out_bands", out_bands), ("width", width)):
            _check_count(name, value)
        if not 0 <= dropout < 1:
            raise InputError(f"dropout={dropout!r} must be a probability from 0 to below 1, e.g. 0.5")
        self.architecture = {
            "in_bands": int(in_bands),
            "out_bands": int(out_bands),
            "width": int(width),
            "dropout": float(dropout),
            "bottleneck_norm": bool(bottleneck_norm),
        }
        depths = [width * min(2**level, 8) for level in range(_LEVELS)]
        normed = [False, *[True] * (_LEVELS - 2), bool(bottleneck_norm)]
        self.encoder = nn.ModuleList(
            _Level(_conv(before, depth), depth if norm else 0)
            for before, depth, norm in zip([in_bands, *depths[:-1]], depths, normed, strict=True)
        )
        # what a decoder level gets: the level below it, and but for the innermost the encoder's of the same size
        inputs = [depths[-1], *[2 * depth for depth in depths[-2::-1]]]
        outputs = [*depths[-2::-1], out_bands]
        self.decoder = nn.ModuleList(
            _Level(_transposed(before, after), after if level < _LEVELS - 1 else 0)
            for level, (before, after) in enumerate(zip(inputs, outputs, strict=True))
        )
        self.dropout = float(dropout)
        _initialise(self, seed)

    def forward(self, images, *, stochastic=None, generator=None):
        """Restore images.

        Parameters
        ----------
        images : `torch.Tensor`
            (n, in_bands, y, x) in [-1, 1]; y and x are multiples of 256.
        stochastic : bool, optional
            True: dropout, and batch normalisation by the statistics of ``images`` themselves, as in training and as
            GalaxyGAN did at test time. False: no dropout, and the running statistics of training. Default: True in
            training mode, False in evaluation mode. Running statistics change in training mode only.
        generator : `torch.Generator`, optional
            Source of the dropout's masks, needed where there is dropout. Masks are drawn on its device, so that one
            of the CPU gives the same masks whatever the device of the network. Torch's global one is never used.

        Returns
        -------
        `torch.Tensor`
            (n, out_bands, y, x) in [-1, 1].

        Raises
        ------
        InputError
            If the shape does not fit, or a generator is needed and missing.
        """
        self._check(images)
        stochastic = self.training if stochastic is None else bool(stochastic)
        if stochastic and self.dropout and generator is None:
            raise InputError("generator=None: dropout needs a torch.Generator, e.g. torch.Generator().manual_seed(0)")
        skips = []
        x = images
        for depth, level in enumerate(self.encoder):
            x = level(functional.leaky_relu(x, 0.2) if depth else x, stochastic)
            skips.append(x)
        skips.pop()
        for depth, level in enumerate(self.decoder):
            x = level(functional.relu(x), stochastic)
            if stochastic and depth < 3:
                x = _drop(x, self.dropout, generator)
            if skips:
                x = torch.cat([x, skips.pop()], 1)
        return torch.tanh(x)

    def _check(self, images):
        bands = self.architecture["in_bands"]
        whole = images.ndim == 4 and all(n and n % _REDUCTION == 0 for n in images.shape[2:])
        if not whole or images.shape[1] != bands:
            raise InputError(
                f"images has shape {tuple(images.shape)}; it must be (n, {bands}, y, x) with y and x multiples of "
                f"{_REDUCTION}: resize it first (astrogan.nn.pix2pix.resize)"
            )


class PatchGAN(nn.Module):
    """The discriminator of pix2pix: is a patch of 70 x 70 pixels real, given the input there?

    Three 4 x 4 convolutions of stride 2 and two of stride 1, batch normalisation but for the first and the last, leaky
    ReLU (0.2). 2.77 million parameters at width 64.

    Parameters
    ----------
    in_bands : int, optional
        Channels of input and image together.
    width : int, optional
        Channels of the first level.
    seed : int, optional
        Of the initial weights, as for `UNet256`.

    Attributes
    ----------
    architecture : dict
        The keyword arguments that build it again, without the seed.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    It gives logits: the authors' sigmoid is part of the loss here, which is the same and cannot overflow.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.pix2pix import PatchGAN
    >>> PatchGAN(width=2)(torch.zeros(1, 6, 256, 256)).shape
    torch.Size([1, 1, 30, 30])
    """

    def __init__(self, in_bands=6, width=64, *, seed=0):
        super().__init__()
        _check_count("in_bands", in_bands)
        _check_count("width", width)
        self.architecture = {"in_bands": int(in_bands), "width": int(width)}
        self.levels = nn.ModuleList(
            [
                _Level(_conv(in_bands, width)),
                _Level(_conv(width, 2 * width), 2 * width),
                _Level(_conv(2 * width, 4 * width), 4 * width),
                _Level(_conv(4 * width, 8 * width, stride=1), 8 * width),
                _Level(_conv(8 * width, 1, stride=1)),
            ]
        )
        _initialise(self, seed)

    def forward(self, pairs):
        """Logits, positive for real.

        Parameters
        ----------
        pairs : `torch.Tensor`
            (n, in_bands, y, x): the input and the image that is judged, one after the other along the channels.

        Returns
        -------
        `torch.Tensor`
            (n, 1, y / 8 - 2, x / 8 - 2).
        """
        x = pairs
        for depth, level in enumerate(self.levels):
            x = level(functional.leaky_relu(x, 0.2) if depth else x, self.training)
        return x


class _Level(nn.Module):
    """A convolution and its batch normalisation, where it has one."""

    def __init__(self, conv, channels=0):
        super().__init__()
        self.conv = conv
        self.norm = _BatchNorm(channels, device="meta") if channels else None

    def forward(self, x, batch_statistics):
        x = self.conv(x)
        return x if self.norm is None else self.norm(x, batch_statistics)


class _BatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the batch's statistics or the running ones, as the caller says."""

    def forward(self, x, batch_statistics):
        if self._has_no_spread(x, batch_statistics):
            # the deviation from the mean is zero, whatever it is divided by
            return (x - x) * self.weight[:, None, None] + self.bias[:, None, None]
        update = batch_statistics and self.training
        if update:
            self.num_batches_tracked += 1
        running = (None, None) if batch_statistics and not update else (self.running_mean, self.running_var)
        return functional.batch_norm(x, *running, self.weight, self.bias, batch_statistics, self.momentum, self.eps)

    def _has_no_spread(self, x, batch_statistics):
        """Whether a channel has one value only, or never had more in training."""
        if x.shape[2:] != (1, 1):
            return False
        return len(x) == 1 if batch_statistics else int(self.num_batches_tracked) == 0


def _conv(before, after, stride=2):
    # without storage at first: filling it at once would draw from torch's global generator
    return nn.Conv2d(before, after, 4, stride, 1, bias=False, device="meta")


def _transposed(before, after):
    return nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False, device="meta")


def _initialise(net, seed):
    """Give a network on the meta device storage and its initial weights, unless that is where it is wanted."""
    if torch.get_default_device().type == "meta":
        return
    net.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.normal_(0, 0.02, generator=generator)
            elif isinstance(module, _BatchNorm):
                module.reset_running_stats()
                module.weight.normal_(1, 0.02, generator=generator)
                module.bias.zero_()


def _drop(x, probability, generator):
    if not probability:
        return x
    keep = torch.rand(x.shape, generator=generator, device=generator.device) >= probability
    return x * (keep.to(x.device, x.dtype) / (1 - probability))


def _check_count(name, value):
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name}={value!r} must be an integer of at least 1")


def resize(images, size):
    """Resize images by the mean over pixels (smaller) or by linear interpolation (larger), along each axis.

    A smaller image is the mean over the area of each new pixel, which is what ``image.scale`` of Torch7, and so
    pix2pix, did under the name "bilinear"; means, and with them surface brightnesses, are kept. For a larger one Torch7
    interpolated between the centres of the outermost pixels, which shifts what lies off the centre; here the borders
    of both images agree instead. The recipe of GalaxyGAN only makes images smaller.

    Parameters
    ----------
    images : `torch.Tensor`
        (..., y, x), floating.
    size : int or tuple of int
        New (y, x), or both where it is one number.

    Returns
    -------
    `torch.Tensor`
        ``(..., *size)``.

    Raises
    ------
    InputError
        If ``images`` has fewer than two axes, or ``size`` is not positive.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.pix2pix import resize
    >>> resize(torch.arange(6.0).reshape(1, 6), (1, 4))
    tensor([[0.3333, 1.6667, 3.3333, 4.6667]])
    """
    if images.ndim < 2 or 0 in images.shape[-2:]:
        raise InputError(f"images has shape {tuple(images.shape)}; it must be (..., y, x) with no empty axis")
    height, width = size if isinstance(size, tuple | list) else (size, size)
    _check_count("size", height)
    _check_count("size", width)
    if (height, width) == images.shape[-2:]:
        return images
    rows, columns = (
        torch.from_numpy(_weights(old, new)).to(images)
        for old, new in zip(images.shape[-2:], (height, width), strict=True)
    )
    return rows @ images @ columns.T


@lru_cache(maxsize=16)
def _weights(old, new):
    """What each of ``old`` pixels gives to each of ``new``: (new, old), rows sum to one."""
    if new == old:
        return np.eye(new)
    step = old / new
    if new < old:
        edges = np.arange(new + 1) * step
        overlap = np.minimum(edges[1:, None], np.arange(1, old + 1)) - np.maximum(edges[:-1, None], np.arange(old))
        return np.maximum(overlap, 0) / step
    centre = np.clip((np.arange(new) + 0.5) * step - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(centre[:, None] - np.arange(old)))


def to_network_range(stretched):
    """[0, 1] to the networks' [-1, 1].

    Parameters
    ----------
    stretched : `torch.Tensor` or `numpy.ndarray`

    Returns
    -------
    Same type
    """
    return 2 * stretched - 1


def from_network_range(images):
    """The networks' [-1, 1] to [0, 1].

    Parameters
    ----------
    images : `torch.Tensor` or `numpy.ndarray`

    Returns
    -------
    Same type
    """
    return (images + 1) / 2
