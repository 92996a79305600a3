"""Networks that learn noise by contest: an emulator of each band's noise, and a discriminator with a Fourier branch.

Both are of Lin et al. 2021, "Galaxy Image Translation with Semi-supervised Noise-reconstructed Generative Adversarial
Networks" (ICPR 2020, arXiv:2101.07389), figure 2 (d) to (g). What is not theirs is an option, and said to be.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from astrogan.nn._arguments import check_whole

__all__ = ["FourierDiscriminator", "NoiseEmulator", "high_pass_filter"]

_SLOPE = 0.2
_BIAS = 0.1
_MOST_BANDS = 4096


def high_pass_filter():
    """The fixed 5 x 5 filter that the paper's discriminators see images through (its figure 2 g).

    Returns
    -------
    `torch.Tensor`
        (5, 5), float32. Rows and columns each sum to zero, so what is constant along x or y vanishes: the transform of
        the filtered image is exactly zero on both axes of the Fourier plane.

    Examples
    --------
    >>> from astrogan.nn.noise_gan import high_pass_filter
    >>> high_pass_filter().sum(0).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    rows = [[-1, 3, -4, 3, -1], [3, -8, 10, -8, 3], [-4, 10, -12, 10, -4]]
    return torch.tensor([*rows, rows[1], rows[0]], dtype=torch.float32)


class FourierDiscriminator(nn.Module):
    """Tell real noise from made by looking at the image and at its Fourier transform.

    One branch sees real and imaginary part of the transform (C7-64 P, C7-64 ACM P, C7-64 ACM P, C3-128 ACM P,
    C3-128 ACM), the other the image (C3-64 P, C3-64 ACM P, C3-64 ACM). Ck-n is a k x k convolution to n channels with
    leaky ReLU 0.2; P halves by averaging, over what there is where an edge is odd; ACM multiplies each channel by
    ``sigmoid(FC(mean of each channel))``. Mean, maximum and minimum of each channel of both go through FC-32 and FC-1.

    Parameters
    ----------
    width : int
        Channels, 64 in the paper; the last two layers of the Fourier branch have twice as many, and FC-32 half.
    high_pass : bool
        Whether images go through `high_pass_filter` first, without padding, as in the paper. It hides from both
        branches what lies on the axes of the Fourier plane, and nearly all that is near them.
    orthonormal : bool
        Whether the transform is divided by the root of the number of pixels, so that both branches see values of the
        same size; in the paper it is not.
    half_plane : bool
        Whether the half of the transform that follows from the other, as the image is real, is left out, which nearly
        halves the work; the paper has all of it.
    bands : int
        Bands that one network sees together. The paper has a network for each band, ``bands=1``, and cannot see how
        bands go together.

    Notes
    -----
    At ``width=64`` and one band there are 771,969 free parameters. Weights are Xavier-uniform, biases 0.1.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.noise_gan import FourierDiscriminator
    >>> net = FourierDiscriminator()
    >>> net(torch.zeros(2, 1, 64, 64)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([2]), 771969)
    """

    def __init__(self, width=64, high_pass=True, orthonormal=False, half_plane=False, bands=1):
        super().__init__()
        self.bands, self.half_plane = int(bands), bool(half_plane)
        self.norm = "ortho" if orthonormal else "backward"
        filtering = high_pass_filter().expand(self.bands, 1, 5, 5).clone() if high_pass else None
        self.register_buffer("filter", filtering, persistent=False)
        self.fourier = nn.Sequential(
            *_layer(2 * self.bands, width, 7, attention=False),
            _pool(),
            *_layer(width, width, 7),
            _pool(),
            *_layer(width, width, 7),
            _pool(),
            *_layer(width, 2 * width, 3),
            _pool(),
            *_layer(2 * width, 2 * width, 3),
        )
        self.real = nn.Sequential(
            *_layer(self.bands, width, 3, attention=False),
            _pool(),
            *_layer(width, width, 3),
            _pool(),
            *_layer(width, width, 3),
        )
        hidden = max(width // 2, 1)
        self.head = nn.Sequential(nn.Linear(9 * width, hidden), nn.LeakyReLU(_SLOPE), nn.Linear(hidden, 1))
        initialise(self)

    def forward(self, images):
        """Logits (n,), positive for real, of images (n, band, y, x)."""
        # Neither a filter whose weights sum to zero nor a Fourier transform bears half precision.
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            if self.filter is not None:
                images = functional.conv2d(images, self.filter, groups=self.bands)
            transform = (torch.fft.rfft2 if self.half_plane else torch.fft.fft2)(images, norm=self.norm)
        branches = self.fourier(torch.cat([transform.real, transform.imag], 1)), self.real(images)
        features = [_statistics(branch) for branch in branches]
        return self.head(torch.cat(features, 1))[:, 0]


class NoiseEmulator(nn.Module):
    """Noise of each band from random numbers: a scalar that sets the amplitude, and a white plane that is filtered.

    For each band on its own, ``z1`` goes through FC-64, FC-64 (leaky ReLU 0.2) and FC-1 with softplus and is the
    amplitude; the white plane ``z2`` times the amplitude goes through a 7 x 7 filter without bias, which is the mean of
    its four rotations by 90 degrees and of its mirror image: ten free weights.

    Parameters
    ----------
    bands : int
        Each has weights of its own; at most 4096.
    width : int
        Of the hidden layers, 64 in the paper.
    size : int
        Odd edge of the filter, 7 in the paper.

    Raises
    ------
    InputError
        If a number is not a positive integer, or too large.

    Notes
    -----
    Five bands have 22,010 parameters. Weights are Xavier-uniform, biases 0.1.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.noise_gan import NoiseEmulator
    >>> net = NoiseEmulator(5)
    >>> net(torch.randn(2, 5), torch.randn(2, 5, 70, 70)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([2, 5, 64, 64]), 22010)
    """

    def __init__(self, bands=5, width=64, size=7):
        super().__init__()
        check_whole("bands", bands, 1, _MOST_BANDS)
        check_whole("width", width, 1)
        check_whole("size", size, 1)
        self.bands, self.width, self.size = int(bands), int(width), int(size)
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(self.bands, *s)) for s in _shapes(self.width))
        self.biases = nn.ParameterList(nn.Parameter(torch.full((self.bands, s[1]), _BIAS)) for s in _shapes(self.width))
        self.kernel = nn.Parameter(torch.empty(self.bands, 1, self.size, self.size))
        for weight in (*self.weights, self.kernel):
            for band in range(self.bands):
                nn.init.xavier_uniform_(weight.data[band, None] if weight.ndim == 4 else weight.data[band])

    @property
    def margin(self):
        """Pixels by which ``z2`` is larger than the noise, along either axis."""
        return self.size - 1

    def amplitude(self, z1):
        """Amplitudes (n, band), positive, of normal deviates (n, band)."""
        x = z1.T[:, :, None]
        for step, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if step:
                x = functional.leaky_relu(x, _SLOPE)
            x = torch.baddbmm(bias[:, None], x, weight)
        return functional.softplus(x[..., 0]).T

    def symmetric_kernel(self):
        """The filter in use, (band, 1, size, size): the mean of the eight ways to turn and mirror the weights."""
        turned = sum(torch.rot90(self.kernel, k, (2, 3)) for k in range(4)) / 4
        return (turned + turned.flip(3)) / 2

    def forward(self, z1, z2):
        """Noise (n, band, y, x) of normal deviates (n, band) and (n, band, y + margin, x + margin)."""
        with torch.autocast(z2.device.type, enabled=False):
            planes = z2.float() * self.amplitude(z1.float())[:, :, None, None]
            return functional.conv2d(planes, self.symmetric_kernel(), groups=self.bands)

    def sample(self, number, shape, generator=None):
        """Noise (number, band, y, x) for ``shape`` (y, x).

        Parameters
        ----------
        number : int
        shape : tuple of int
            (y, x).
        generator : `torch.Generator`, optional
            Draws the deviates, on its own device.

        Returns
        -------
        `torch.Tensor`
            On the device of the weights.
        """
        device = self.kernel.device if generator is None else generator.device
        z1 = torch.randn(number, self.bands, generator=generator, device=device)
        edges = shape[0] + self.margin, shape[1] + self.margin
        z2 = torch.randn(number, self.bands, *edges, generator=generator, device=device)
        return self(z1.to(self.kernel.device), z2.to(self.kernel.device))


class _ChannelAttention(nn.Module):
    """Each channel times a number between 0 and 1 that depends on the means of all."""

    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, x):
        return x * torch.sigmoid(self.linear(x.mean((2, 3))))[:, :, None, None]


def _layer(inputs, outputs, size, attention=True):
    layers = [nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.LeakyReLU(_SLOPE)]
    return [*layers, _ChannelAttention(outputs)] if attention else layers


def _pool():
    return nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)


def _statistics(x):
    """Mean, maximum and minimum of each channel."""
    return torch.cat([x.mean((2, 3)), x.amax((2, 3)), x.amin((2, 3))], 1)


def _shapes(width):
    return (1, width), (width, width), (width, 1)


def initialise(module):
    """Xavier-uniform weights and biases of 0.1 in all layers of ``module``, as the paper's code has."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.constant_(layer.bias, _BIAS)
