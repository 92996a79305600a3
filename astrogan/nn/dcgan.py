"""The DCGAN of Usaid, Ahmed & Jamal (2019), an encoder for pictures with holes, and inversion by gradient descent."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from astrogan.exceptions import InputError

__all__ = ["CompletionGAN", "Discriminator", "Encoder", "Generator", "invert"]

SIZE = 64
"""Pixels along an edge of the pictures."""


class Generator(nn.Module):
    """Pictures from noise: five transposed convolutions, 1 to 64 pixels.

    Parameters
    ----------
    width : int, optional
        Channels after the first layer, which halve with every further one; 512-256-128-64 as published (section 2.3
        and the authors' program). A multiple of 8.
    latent : int, optional
        Numbers in z; 100 as published.
    bands : int, optional
        Of the pictures.

    Raises
    ------
    InputError
        If a number cannot be.

    Notes
    -----
    Convolutions start from N(0, 0.02) without biases, the scales of the batch normalisations from N(1, 0.02).

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.dcgan import Generator
    >>> Generator(width=16)(torch.zeros(2, 100, 1, 1)).shape
    torch.Size([2, 3, 64, 64])
    """

    def __init__(self, width=512, latent=100, bands=3):
        super().__init__()
        _check(width=width, latent=latent, bands=bands)
        self.latent = int(latent)
        layers, before = [], self.latent
        for level in range(4):
            channels = width >> level
            step = {"stride": 2, "padding": 1} if level else {"stride": 1}
            layers += [nn.ConvTranspose2d(before, channels, 4, **step, bias=False)]
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
        layers += [nn.ConvTranspose2d(before, bands, 4, stride=2, padding=1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(_start)

    def forward(self, z):
        """Pictures (n, bands, 64, 64) in [-1, 1] from z, (n, latent) or (n, latent, 1, 1)."""
        return self.layers(z.reshape(len(z), self.latent, 1, 1))


class Discriminator(nn.Module):
    """One score a picture: five convolutions, 64 pixels to 1, leaky rectifiers of slope 0.2.

    Parameters
    ----------
    width : int, optional
        Channels before the last layer, 64-128-256-512 as published. A multiple of 8.
    bands : int, optional
        Of the pictures.
    spectral : bool, optional
        Spectral normalisation (Miyato et al. 2018, ICLR) in place of batch normalisation: not published, but it does
        not collapse.

    Raises
    ------
    InputError
        If a number cannot be.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.dcgan import Discriminator
    >>> Discriminator(width=16)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2])
    """

    def __init__(self, width=512, bands=3, spectral=False):
        super().__init__()
        _check(width=width, bands=bands)
        self.layers = nn.Sequential(*_descent(width, bands, 1, spectral=spectral))
        self.apply(_start)
        if spectral:
            self.layers.apply(lambda m: spectral_norm(m) if isinstance(m, nn.Conv2d) else None)

    def forward(self, pictures):
        """Logits (n,) of pictures (n, bands, 64, 64) in [-1, 1]; positive for those that look real."""
        return self.layers(pictures).flatten()


class Encoder(nn.Module):
    """Finds z for a picture of which some pixels are hidden: the discriminator's layers with ``latent`` outputs.

    It stands beside the published generator and has no connections around it, so that whatever comes out is a picture
    that the generator can make. (How the authors' network saw its segmented galaxies is not documented.)

    Parameters
    ----------
    width : int, optional
    latent : int, optional
    bands : int, optional
        As for `Generator`.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.dcgan import Encoder
    >>> Encoder(width=16)(torch.zeros(2, 3, 64, 64), torch.ones(2, 1, 64, 64)).shape
    torch.Size([2, 100])
    """

    def __init__(self, width=512, latent=100, bands=3):
        super().__init__()
        _check(width=width, latent=latent, bands=bands)
        # Each number of z has the mean and variance of the noise that the generator knows.
        self.layers = nn.Sequential(*_descent(width, bands + 1, latent), nn.BatchNorm2d(latent, affine=False))
        self.apply(_start)

    def forward(self, pictures, mask):
        """z, (n, latent), of pictures (n, bands, 64, 64) in [-1, 1] with a mask (n, 1, 64, 64), 1 where known.

        What lies under the mask is not looked at.
        """
        # Dark sky and hidden pixels are both 0: the galaxy counts, and the last plane says what is hidden.
        return self.layers(torch.cat([(pictures + 1) * mask, 1 - mask], 1)).flatten(1)


class CompletionGAN(nn.Module):
    """What a file of weights holds: the generator, and the encoder where there is one.

    Parameters
    ----------
    width : int, optional
    latent : int, optional
    bands : int, optional
        As for `Generator`.
    encoder : int, optional
        Width of the `Encoder`; 0 for none, as published.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.dcgan import CompletionGAN
    >>> gan = CompletionGAN(width=16, encoder=16).eval()
    >>> gan.complete(torch.zeros(1, 3, 64, 64), torch.ones(1, 1, 64, 64)).shape
    torch.Size([1, 3, 64, 64])
    """

    def __init__(self, width=512, latent=100, bands=3, encoder=0):
        super().__init__()
        self.architecture = {"width": width, "latent": latent, "bands": bands, "encoder": encoder}
        self.generator = Generator(width, latent, bands)
        self.encoder = Encoder(encoder, latent, bands) if encoder else None

    def complete(self, pictures, mask):
        """The generator's picture for the encoder's z; (n, bands, 64, 64) in [-1, 1]."""
        if self.encoder is None:
            raise InputError("these weights have no encoder: use invert, or train with [network] encoder above 0")
        return self.generator(self.encoder(pictures, mask))


def invert(
    generator,
    image,
    mask,
    *,
    steps=200,
    rate=0.05,
    seed=None,
    start=None,
    discriminator=None,
    prior_weight=1e-3,
):
    """The picture of a generator that agrees best with the known pixels of each image: gradient descent on z.

    After Yeh et al. (2017, CVPR, section 3): mean squared error over the known pixels, and how unlikely z or the
    picture is.

    Parameters
    ----------
    generator : `Generator`
        In evaluation mode, so that one image does not hang on the others.
    image : `torch.Tensor`
        (n, bands, 64, 64) in [-1, 1].
    mask : `torch.Tensor`
        (n, 1, 64, 64), 1 where known.
    steps : int, optional
        Of Adam.
    rate : float, optional
        Adam's learning rate, falling to a tenth along a cosine.
    seed : `torch.Generator`, optional
        Of the CPU, for z to start from; default: one seeded with 0. The global one is never used.
    start : `torch.Tensor`, optional
        z to start from instead, (n, latent): an encoder's.
    discriminator : `Discriminator`, optional
        The picture's prior, where there is one.
    prior_weight : float, optional
        Of ``mean(z ** 2)``, and of the discriminator's cross entropy.

    Returns
    -------
    picture : `torch.Tensor`
        (n, bands, 64, 64) in [-1, 1].
    z : `torch.Tensor`
        (n, latent).

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.dcgan import Generator, invert
    >>> generator = Generator(width=16).eval()
    >>> target = generator(torch.zeros(1, 100)).detach()
    >>> picture, z = invert(generator, target, torch.ones(1, 1, 64, 64), steps=5)
    >>> picture.shape, z.shape
    (torch.Size([1, 3, 64, 64]), torch.Size([1, 100]))
    """
    known = mask.sum(dim=(1, 2, 3)).clamp(min=1.0) * image.shape[1]
    # Gradients are wanted, whoever calls; those of the networks' own weights are not.
    with torch.inference_mode(False), torch.enable_grad():
        image, mask, known = (tensor.detach().clone() for tensor in (image, mask, known))
        z = _first(generator, image, seed, start).requires_grad_(True)
        optimiser = torch.optim.Adam([z], lr=rate)
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = rate * (0.55 + 0.45 * float(torch.cos(torch.tensor(torch.pi * step / steps))))
            picture = generator(z)
            # Sums over the images: what one image gets does not depend on how many there are.
            loss = (((picture - image) * mask).square().sum(dim=(1, 2, 3)) / known).sum()
            loss = loss + prior_weight * z.square().mean(dim=1).sum()
            if discriminator is not None:
                loss = loss + prior_weight * nn.functional.softplus(-discriminator(picture)).sum()
            (z.grad,) = torch.autograd.grad(loss, z)
            optimiser.step()
    with torch.no_grad():
        return generator(z.detach()), z.detach()


def _first(generator, image, seed, start):
    if start is not None:
        return start.detach().clone().to(image)
    seed = torch.Generator().manual_seed(0) if seed is None else seed
    return torch.randn(len(image), generator.latent, generator=seed).to(image)


def _descent(width, before, outputs, *, spectral=False):
    """Four halvings to 4 pixels, and a convolution over all that is left."""
    layers = []
    for level in range(4):
        channels = width >> (3 - level)
        layers.append(nn.Conv2d(before, channels, 4, stride=2, padding=1, bias=spectral))
        # The first layer has no normalisation: it sees the picture itself.
        if level and not spectral:
            layers.append(nn.BatchNorm2d(channels))
        layers.append(nn.LeakyReLU(0.2))
        before = channels
    return [*layers, nn.Conv2d(before, outputs, 4, bias=spectral)]


def _start(layer):
    if torch.get_default_device().type == "meta":  # nothing to fill, and torch imports for seconds to find that out
        return
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d) and layer.affine:
        nn.init.normal_(layer.weight, 1.0, 0.02)
        nn.init.zeros_(layer.bias)


def _check(**numbers):
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value!r} must be an integer of at least 1")
    if "width" in numbers and numbers["width"] % 8:
        raise InputError(f"width={numbers['width']!r} must be a multiple of 8: it is halved three times")
