"""The networks of Lin et al. 2021, "Galaxy Image Translation with Semi-supervised Noise-reconstructed Generative
Adversarial Networks" (ICPR 2020, arXiv:2101.07389), which translate galaxy stamps between two surveys, both ways.

X is the survey with stamps of 64 x 64 pixels (SDSS in the paper), Y that with 136 x 136 (CFHT), of the same sky.
"""

from __future__ import annotations

import torch
from torch import nn

from astrogan.exceptions import InputError
from astrogan.nn._arguments import check_whole
from astrogan.nn.cyclegan import LATENT, ResidualGenerator
from astrogan.nn.noise_gan import NoiseEmulator, initialise

__all__ = [
    "PIXEL_SCALES",
    "SHAPES",
    "Autoencoder",
    "Lin2020Translator",
    "StampGenerator",
    "regridded",
    "rescaled",
    "unscaled",
]

SHAPES = {"x": (64, 64), "y": (136, 136)}
"""(y, x) of the stamps of both surveys."""

PIXEL_SCALES = {"x": 0.396, "y": 0.187}
"""Arcsec per pixel of both surveys in the paper."""

_SLOPE = 0.2

# Ck-n: k x k convolution to n channels, zero padding; Vk-n: without padding; P: mean of 2 x 2; U: twice the size;
# S2: two pixels of mirror image on all sides. "bands" stands for the number of bands. Numbers are those of width 64.
_AUTOENCODER = "C3-64 P C3-128 P C3-256 P C3-256 U C3-256 U C3-128 U C5-64 C5-64 C5-bands"
_X_TO_Y = "C3-64 P C3-128 P C3-128 P C3-256 U C3-128 U C3-128 U C3-128 S2 U C5-64 C5-64 C5-bands"
_Y_TO_X = "C3-64 P C3-64 P C3-128 P C3-256 U C3-128 U V5-64 C5-64 C5-bands"

_UPSAMPLINGS = ("nearest", "pixelshuffle")
_GENERATORS = ("lin2020", "cyclegan", "augcgan")


def rescaled(flux):
    """The paper's rescaling of flux in nanomaggies a pixel: ``sign(f) (sqrt(|f| + 1) - 1)``.

    Parameters
    ----------
    flux : `torch.Tensor`

    Returns
    -------
    `torch.Tensor`
        What the networks see: half of the flux where it is small, its root where it is large.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.lin2020 import rescaled, unscaled
    >>> rescaled(torch.tensor([-3.0, 0.0, 8.0]))
    tensor([-1.,  0.,  2.])
    >>> unscaled(rescaled(torch.tensor([-3.0, 0.0, 8.0])))
    tensor([-3.,  0.,  8.])
    """
    # The root minus one would lose the digits of small fluxes.
    return flux / (torch.sqrt(flux.abs() + 1) + 1)


def unscaled(values):
    """The inverse of `rescaled`: ``sign(v) ((|v| + 1)**2 - 1)``.

    Parameters
    ----------
    values : `torch.Tensor`

    Returns
    -------
    `torch.Tensor`
        Nanomaggies a pixel.
    """
    return values * (values.abs() + 2)


def regridded(flux, shape, ratio):
    """Flux a pixel on another grid with the same centre, by bilinear interpolation.

    Parameters
    ----------
    flux : `torch.Tensor`
        (..., y, x), linear.
    shape : tuple of int
        (y, x) of the result.
    ratio : float
        Edge of a new pixel over that of an old one; the values are multiplied by its square.

    Returns
    -------
    `torch.Tensor`
        (..., y, x). Beyond the centres of the outermost pixels their values go on.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.lin2020 import regridded
    >>> float(regridded(torch.ones(136, 136), (64, 64), 2.0)[10, 20])
    4.0
    """
    rows, columns = (
        _linear(new, old, (torch.arange(new, dtype=torch.float64) - (new - 1) / 2) * ratio + (old - 1) / 2).to(flux)
        for new, old in zip(shape, flux.shape[-2:], strict=True)
    )
    return rows @ flux @ columns.T * ratio**2


def shrunk(values, size):
    """Bilinear interpolation to ``size`` x ``size`` pixels, as the paper's program has it (TensorFlow 1's).

    New pixel i is read at i times the ratio of the sizes: the first pixels' centres, not the images', coincide.
    """
    rows, columns = (
        _linear(size, old, torch.arange(size, dtype=torch.float64) * (old / size)).to(values)
        for old in values.shape[-2:]
    )
    return rows @ values @ columns.T


def _linear(new, old, at):
    """(new, old): weights of linear interpolation at positions ``at`` along an axis of ``old`` pixels."""
    at = at.clamp(0, old - 1)
    left = at.floor().clamp(max=max(0, old - 2)).long()
    part = at - left
    weights = torch.zeros(new, old, dtype=torch.float64)
    every = torch.arange(new)
    weights[every, left] = 1 - part
    weights[every, (left + 1).clamp(max=old - 1)] += part
    return weights


class _Mirror(nn.Module):
    """Pixels of the mirror image on all sides, the edge itself repeated."""

    def __init__(self, pixels):
        super().__init__()
        self.pixels = pixels

    def forward(self, x):
        n = self.pixels
        x = torch.cat([x[..., :n].flip(-1), x, x[..., -n:].flip(-1)], -1)
        return torch.cat([x[..., :n, :].flip(-2), x, x[..., -n:, :].flip(-2)], -2)


def _layers(text, bands, width, upsampling="nearest"):
    """A sequence of layers in the notation above; each convolution, the last one too, is followed by a leaky ReLU."""
    layers, channels = [], bands
    for word in text.split():
        if word == "P":
            layers.append(nn.AvgPool2d(2))
        elif word == "U" and upsampling == "pixelshuffle":
            layers.append(nn.PixelShuffle(2))
            channels //= 4
        elif word == "U":
            layers.append(nn.UpsamplingNearest2d(scale_factor=2))
        elif word.startswith("S"):
            layers.append(_Mirror(int(word[1:])))
        else:
            size, _, wanted = word[1:].partition("-")
            after = bands if wanted == "bands" else int(wanted) * width // 64
            layers.append(nn.Conv2d(channels, after, int(size), padding=int(size) // 2 if word[0] == "C" else 0))
            layers.append(nn.LeakyReLU(_SLOPE))
            channels = after
    return nn.Sequential(*layers)


class Autoencoder(nn.Module):
    """The autoencoder of a survey: it keeps what is smooth of a stamp, and not the noise (the paper's figure 2 a).

    Parameters
    ----------
    bands : int
    width : int
        Channels of the first layer; 64 in the paper, where it has 2,162,501 parameters.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.lin2020 import Autoencoder
    >>> Autoencoder(width=16)(torch.zeros(1, 5, 136, 136)).shape
    torch.Size([1, 5, 136, 136])
    """

    def __init__(self, bands=5, width=64):
        super().__init__()
        _check_size(bands, width)
        self.layers = _layers(_AUTOENCODER, bands, width)
        initialise(self)

    def forward(self, images):
        """Stamps (n, band, y, x), y and x multiples of 8, without their noise."""
        return self.layers(images)


class StampGenerator(nn.Module):
    """A generator: stamps of one survey to noise-free stamps of the other (the paper's figure 2 b and c).

    Parameters
    ----------
    direction : {'x_to_y', 'y_to_x'}
        64 to 136 pixels, or back.
    bands : int
    width : int
        Channels of the first layer; 64 in the paper, where there are 1,425,093 and 1,019,269 parameters.
    upsampling : {'nearest', 'pixelshuffle'}
        The latter, of the paper's variant (e), makes four pixels of four channels, so that the layers after it have a
        quarter of the inputs.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.lin2020 import StampGenerator
    >>> StampGenerator("x_to_y", width=16)(torch.zeros(1, 5, 64, 64)).shape
    torch.Size([1, 5, 136, 136])
    """

    def __init__(self, direction, bands=5, width=64, upsampling="nearest"):
        super().__init__()
        _check_size(bands, width)
        if upsampling not in _UPSAMPLINGS:
            raise InputError(f"upsampling={upsampling!r} must be one of {', '.join(_UPSAMPLINGS)}")
        self.layers = _layers({"x_to_y": _X_TO_Y, "y_to_x": _Y_TO_X}[direction], bands, width, upsampling)
        initialise(self)

    def forward(self, images, latent=None):
        """Stamps (n, band, y, x); ``latent`` is not used."""
        return self.layers(images)


class Lin2020Translator(nn.Module):
    """Both generators and both noise emulators: all that translating needs.

    Parameters
    ----------
    width : int
        Channels of the generators' first layer, 64 in the paper; an even number.
    bands : int
    upsampling : {'nearest', 'pixelshuffle'}
        See `StampGenerator`.
    generators : {'lin2020', 'cyclegan', 'augcgan'}
        The paper's own, or those of CycleGAN or Augmented CycleGAN, which it compares with; these two work on stamps of
        64 x 64 pixels of both surveys, the larger ones regridded.
    noise : bool
        Whether there are noise emulators.

    Raises
    ------
    InputError
        If an argument is out of range.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.lin2020 import Lin2020Translator
    >>> net = Lin2020Translator(width=16)
    >>> flux = net.translated(torch.zeros(1, 5, 64, 64), "x_to_y", generator=torch.Generator().manual_seed(0))
    >>> flux.shape
    torch.Size([1, 5, 136, 136])
    """

    def __init__(self, width=64, bands=5, upsampling="nearest", generators="lin2020", noise=True):
        super().__init__()
        _check_size(bands, width)
        if generators not in _GENERATORS:
            raise InputError(f"generators={generators!r} must be one of {', '.join(_GENERATORS)}")
        self.architecture = {
            "width": int(width),
            "bands": int(bands),
            "upsampling": upsampling,
            "generators": generators,
            "noise": bool(noise),
        }
        latent = LATENT if generators == "augcgan" else 0
        self.latent = latent
        self.generators = nn.ModuleDict(
            {
                direction: StampGenerator(direction, bands, width, upsampling)
                if generators == "lin2020"
                else ResidualGenerator(bands, width, latent)
                for direction in ("x_to_y", "y_to_x")
            }
        )
        self.noise = nn.ModuleDict({name: NoiseEmulator(bands) for name in ("x", "y")} if noise else {})

    @property
    def regrids(self):
        """Whether the generators see stamps of 64 x 64 pixels of both surveys."""
        return self.architecture["generators"] != "lin2020"

    def forward(self, images, direction, *, generator=None, noise=True, latent=None):
        """Rescaled stamps to rescaled stamps; see `translated`.

        Parameters
        ----------
        images : `torch.Tensor`
            (n, band, y, x), rescaled, on the grid that the generators see.
        direction : {'x_to_y', 'y_to_x'}
        generator : `torch.Generator`, optional
            For the noise, and the latent code of Augmented CycleGAN.
        noise : bool
            Whether noise is added, where there is an emulator.
        latent : `torch.Tensor`, optional
            (n, 32), in place of a drawn code.

        Returns
        -------
        `torch.Tensor`
            float32.
        """
        if self.latent and latent is None:
            latent = self.draw_latent(len(images), generator).to(images.device)
        out = self.generators[direction](images, latent).float()
        if noise and len(self.noise):
            out = out + self.noise[direction[-1]].sample(len(out), out.shape[-2:], generator)
        return out

    def draw_latent(self, number, generator=None):
        """Latent codes (number, 32) of Augmented CycleGAN; on the generator's device."""
        device = "cpu" if generator is None else generator.device
        return torch.randn(number, self.latent, generator=generator, device=device)

    def translated(self, flux, direction, *, generator=None, noise=True):
        """Stamps as the other survey would have seen them.

        Parameters
        ----------
        flux : `torch.Tensor`
            (n, band, y, x), nanomaggies a pixel: 64 x 64 pixels of X, or 136 x 136 of Y.
        direction : {'x_to_y', 'y_to_x'}
        generator : `torch.Generator`, optional
            For the noise.
        noise : bool
            Whether noise is added, where there is an emulator.

        Returns
        -------
        `torch.Tensor`
            Nanomaggies a pixel, with the shape of the other survey's stamps.
        """
        before, after = direction[0], direction[-1]
        if self.regrids and before == "y":
            flux = self.small(flux)
        out = unscaled(self(rescaled(flux), direction, generator=generator, noise=noise))
        if self.regrids and after == "y":
            out = regridded(out, SHAPES["y"], PIXEL_SCALES["y"] / PIXEL_SCALES["x"])
        return out

    @staticmethod
    def small(flux):
        """Stamps of Y, linear, on the grid of X: what the variants with CycleGAN's generators see of it."""
        return regridded(flux, SHAPES["x"], PIXEL_SCALES["x"] / PIXEL_SCALES["y"])


def _check_size(bands, width):
    check_whole("bands", bands, 1)
    check_whole("width", width, 2)
    if width % 2:
        raise InputError(f"width={width!r} must be a positive even integer")
