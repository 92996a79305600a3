"""A patch discriminator with spectral normalisation, for the perceptual preset."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["SpectralPatchGAN"]


class SpectralPatchGAN(nn.Module):
    """Scores patches of 70 x 70 pixels as real or restored (Isola et al. 2017, CVPR; Miyato et al. 2018, ICLR).

    Parameters
    ----------
    bands : int
        Of the images.
    width : int
        Channels of the first layer.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.discriminator import SpectralPatchGAN
    >>> SpectralPatchGAN(bands=3, width=8)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1, 6, 6])
    """

    def __init__(self, bands, width=32):
        super().__init__()
        layers, before = [], bands
        for channels, stride in ((width, 2), (2 * width, 2), (4 * width, 2), (4 * width, 1)):
            layers += [spectral_norm(nn.Conv2d(before, channels, 4, stride, padding=1)), nn.LeakyReLU(0.2)]
            before = channels
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(before, 1, 4, 1, padding=1)))

    def forward(self, images):
        """Unbounded scores (n, 1, y', x') of images (n, band, y, x)."""
        return self.layers(images)
