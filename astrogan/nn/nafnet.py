"""The restoration network: a small NAFNet that mixes classic estimates pixel by pixel and adds what they miss."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from astrogan.nn._arguments import check_positive, check_scales, check_whole
from astrogan.nn._folded import FoldedUNet, asinh, frozen
from astrogan.nn.filters import MOST_RADIUS
from astrogan.nn.naf import naf_blocks, padded, u_shaped

__all__ = ["FoldedNAFNet", "RestorationNAFNet"]

_MOST_BALANCES = 32


class RestorationNAFNet(nn.Module):
    """A NAFNet (Chen et al. 2022, ECCV, arXiv:2204.04676) for images in units of their noise.

    The network sees each band, several Wiener estimates of it, the noise map and the PSF's width, all compressed by an
    inverse hyperbolic sine. It returns weights by which the estimates are mixed in each pixel (they sum to one, so
    that a mixture keeps sky and flux), a correction in linear flux, and the width of the error's distribution. No
    operation looks further than `halo`: unlike in the original there is no channel attention over the whole image, and
    the only normalisation is that of a pixel's channels.

    Parameters
    ----------
    bands : int
        Bands in and out, restored together.
    widths : tuple of int
        Channels of each scale, at most 8; the first is at half the image's resolution, each further one halves it
        again.
    blocks : tuple of int
        Blocks at each scale on the way down, then on the way up: ``2 len(widths) - 1`` numbers, at most 64 each.
    balances : tuple of float
        Of the Wiener estimates, see `~astrogan.nn.filters.wiener_bank`; at most 32.
    radius : int
        Of the Wiener filters in pixels, at most 63.
    softening : float
        Flux in units of the noise beyond which the input is compressed; positive.

    Raises
    ------
    InputError
        If a value is out of range, or the numbers of scales and blocks do not agree.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.nafnet import RestorationNAFNet
    >>> net = RestorationNAFNet(bands=1, widths=(8, 16), blocks=(1, 1, 1), balances=(0.1, 10.0))
    >>> data = torch.zeros(1, 1, 30, 21)
    >>> mean, spread = net(data, torch.ones_like(data), torch.full((1, 1), 3.0), torch.zeros(1, 1, 2, 30, 21))
    >>> mean.shape == spread.shape == data.shape
    True
    """

    def __init__(
        self,
        bands=1,
        widths=(32, 64, 128),
        blocks=(1, 2, 4, 2, 1),
        balances=(0.02, 1.0, 30.0),
        radius=24,
        softening=2.0,
    ):
        super().__init__()
        check_whole("bands", bands, 1)
        check_scales(widths, blocks)
        check_whole("len(balances)", len(balances), 1, _MOST_BALANCES)
        check_positive("balances", list(balances))
        check_whole("radius", radius, 0, MOST_RADIUS)
        check_positive("softening", softening)
        self.bands, self.widths, self.blocks = int(bands), tuple(widths), tuple(blocks)
        self.balances, self.radius, self.softening = tuple(map(float, balances)), int(radius), float(softening)
        scales, filters = len(widths), len(balances)
        inputs = self.bands * (filters + 3)  # the estimates, the image, its noise and its FWHM
        self.stem = nn.Conv2d(4 * inputs, widths[0], 3, padding=1)
        self.down = nn.ModuleList(naf_blocks(w, n) for w, n in zip(widths, blocks, strict=False))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(naf_blocks(widths[s], blocks[2 * scales - 2 - s]) for s in range(scales - 1))
        self.head = nn.Conv2d(widths[0], 4 * self.bands * (filters + 1), 3, padding=1)
        self.spread = nn.Sequential(
            nn.Conv2d(widths[0], widths[0], 3, padding=1), nn.GELU(), nn.Conv2d(widths[0], 4 * self.bands, 1)
        )
        with torch.no_grad():
            self.head.weight *= 0.1
            self.head.bias.zero_()

    @property
    def architecture(self):
        """The keyword arguments that build this network, for cards."""
        names = ("bands", "widths", "blocks", "balances", "radius", "softening")
        return {n: list(v) if isinstance(v := getattr(self, n), tuple) else v for n in names}

    @property
    def stride(self):
        """Pixels that go into one of the coarsest scale: where a tile begins must be a multiple of it."""
        return 2 ** len(self.widths)

    @property
    def halo(self):
        """Pixels around a tile on which its result depends, the Wiener filters' included; a multiple of `stride`."""
        scales = len(self.widths)
        at_scale = [self.blocks[s] + (self.blocks[2 * scales - 2 - s] if s < scales - 1 else 0) for s in range(scales)]
        reach = sum(n * 2 ** (s + 1) for s, n in enumerate(at_scale)) + 3 * 2 + self.stride
        return -(-(reach + self.radius) // self.stride) * self.stride

    def forward(self, data, noise, fwhm, estimates):
        """Restore a batch.

        Parameters
        ----------
        data : `torch.Tensor`
            (n, band, y, x), sky subtracted, in units of the sky's noise.
        noise : `torch.Tensor`
            Standard deviation of each pixel, the same shape and unit.
        fwhm : `torch.Tensor`
            Of the PSF, in pixels, (n, band).
        estimates : `torch.Tensor`
            ``data`` through the Wiener bank, (n, band, filter, y, x).

        Returns
        -------
        mean, spread : `torch.Tensor`
            The restored image, and the 68.3 % quantile of its error's absolute value, both (n, band, y, x), float32,
            in the unit of ``data``.
        """
        return _restored(self, self._features, torch.asinh, (data, noise, fwhm, estimates))

    def _features(self, planes):
        x = self.stem(functional.pixel_unshuffle(planes, 2).contiguous(memory_format=torch.channels_last))
        return u_shaped(x, self.down, self.shrink, self.grow, self.up)


class FoldedNAFNet(nn.Module):
    """A trained `RestorationNAFNet` for use alone: the same result in less time, in float32 or with bfloat16 inside.

    What can be multiplied together once is; normalisations are computed by matrix products. With bfloat16 the
    convolutions and the inside of the blocks are computed in it; what blocks add to, the mixture of the estimates and
    the result stay float32, so that bright pixels keep their digits.

    Parameters
    ----------
    network : RestorationNAFNet
        Not changed; the device is its own.
    dtype : `torch.dtype`, optional
        ``torch.float32`` or ``torch.bfloat16``.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.nafnet import FoldedNAFNet, RestorationNAFNet
    >>> net = RestorationNAFNet(bands=1, widths=(8, 16), blocks=(1, 1, 1), balances=(0.1, 10.0))
    >>> batch = torch.ones(1, 1, 16, 16), torch.ones(1, 1, 16, 16), torch.full((1, 1), 3.0), torch.ones(1, 1, 2, 16, 16)
    >>> with torch.no_grad():
    ...     torch.allclose(FoldedNAFNet(net)(*batch)[0], net(*batch)[0], atol=1e-5)
    True
    """

    def __init__(self, network, dtype=torch.float32):
        super().__init__()
        self.bands, self.balances, self.radius = network.bands, network.balances, network.radius
        self.softening, self.stride, self.halo = network.softening, network.stride, network.halo
        with torch.no_grad():
            self.features = FoldedUNet(network, dtype)
        self.head, self.spread = frozen(network.head, dtype), frozen(network.spread, dtype)

    def forward(self, data, noise, fwhm, estimates):
        """Restore a batch, without gradients.

        Parameters
        ----------
        data, noise, fwhm, estimates : `torch.Tensor`
            As for `RestorationNAFNet.forward`, float32.

        Returns
        -------
        mean, spread : `torch.Tensor`
            As there, float32.
        """
        return _restored(self, self.features, asinh, (data, noise, fwhm, estimates))


def _restored(network, features_of, compressed, inputs):
    """Mean and spread of a network, whole or folded: all but the convolutions in the middle, which are its own."""
    data, noise, fwhm, estimates = inputs
    n, bands, height, width = data.shape
    planes = [
        compressed(estimates / network.softening).flatten(1, 2),
        compressed(data / network.softening),
        torch.log(noise),
        torch.log(fwhm)[:, :, None, None].expand(-1, -1, height, width),
    ]
    features = features_of(padded(torch.cat(planes, 1), network.stride))
    parts = functional.pixel_shuffle(network.head(features).float(), 2)[..., :height, :width]
    parts = parts.reshape(n, bands, len(network.balances) + 1, height, width)
    mixed = (torch.softmax(parts[:, :, :-1], 2) * estimates).sum(2)
    # Bright pixels err in proportion to their flux; a correction in this unit is of order one everywhere.
    scale = torch.sqrt(1 + (mixed.detach() / network.softening) ** 2)
    mean = mixed + scale * parts[:, :, -1]
    # The error's width is learned beside the image, not at its cost: no gradient goes further down.
    width_of_error = functional.pixel_shuffle(network.spread(features.detach()).float(), 2)[..., :height, :width]
    return mean, scale * functional.softplus(width_of_error)
