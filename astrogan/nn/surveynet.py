"""The translation network: classic estimates of what another survey would see, mixed and mended pixel by pixel."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from astrogan.nn._arguments import check_positive, check_scales, check_whole
from astrogan.nn.naf import naf_blocks, padded, u_shaped

__all__ = ["SurveyNet", "matched_estimates"]

_EXACT, _SHARPER = 0.95, 1.05
"""FWHM of the image over the target's, up to which convolution does it all, and from which the network does."""
_SEEN, _STEEP = 4.0, 3
"""Standard deviations, of a mean over the window, below which light does not count, and how steeply it begins to."""
_WIDE, _SEEN_WIDE = 3, 2.5
"""Windows over which light is looked for that single pixels do not show, and the same of them."""
_MOST_BALANCES = 32
_PAD = 24
"""Mirrored pixels around an image before its filters, which are periodic."""


def matched_estimates(images, psf, wanted, balances):
    """Images brought from one PSF to another with several strengths of regularisation.

    In Fourier space a filter is ``conj(P) Q / (|P|^2 + balance L^2)``, with P the image's transfer function, Q the one
    wanted, and L that of the Laplacian. Where Q is broader than P all strengths agree, and the estimate is classic PSF
    matching; where it is sharper, small strengths deconvolve and large ones smooth. All keep the flux and the sky.

    Parameters
    ----------
    images : `torch.Tensor`
        (n, band, y, x).
    psf, wanted : `torch.Tensor`
        (n, band, k, k), k odd and of sum one, on the images' pixels; n may be one.
    balances : sequence of float
        Positive.

    Returns
    -------
    `torch.Tensor`
        (n, band, balance, y, x).

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.surveynet import matched_estimates
    >>> images, psf = torch.rand(1, 2, 20, 30), torch.full((1, 2, 3, 3), 1 / 9)
    >>> found = matched_estimates(images, psf, psf, (0.01, 1.0))
    >>> found.shape, bool((found.mean() - images.mean()).abs() < 0.01)
    (torch.Size([1, 2, 2, 20, 30]), True)
    """
    height, width = images.shape[-2:]
    images = _mirrored(images, _PAD)
    shape = images.shape[-2:]
    spectrum = torch.fft.rfft2(images)
    p, q = _transfer(psf, shape), _transfer(wanted, shape)
    wave = [2 - 2 * torch.cos(2 * torch.pi * torch.fft.fftfreq(n, device=images.device)) for n in shape]
    laplacian = wave[0][:, None] + wave[1][None, : shape[1] // 2 + 1]
    power, ahead = p.abs().square(), p.conj() * q
    out = []
    for balance in balances:
        filtered = torch.fft.irfft2(spectrum * ahead / (power + balance * laplacian.square() + 1e-9), s=shape)
        out.append(filtered[..., _PAD : _PAD + height, _PAD : _PAD + width])
    return torch.stack(out, 2)


def _transfer(psf, shape):
    """Transform of a centred kernel; wings that the grid has no room for are cut."""
    half = psf.shape[-1] // 2
    room = (min(shape) - 1) // 2
    if half > room:
        psf = psf[..., half - room : half + room + 1, half - room : half + room + 1]
        psf = psf / psf.sum((-2, -1), keepdim=True)
        half = room
    grid = psf.new_zeros(*psf.shape[:-2], *shape)
    grid[..., : psf.shape[-2], : psf.shape[-1]] = psf
    return torch.fft.rfft2(torch.roll(grid, (-half, -half), (-2, -1)))


def _mirrored(images, margin):
    """Padded by reflection to lengths that transforms are quick for."""
    for axis in (-1, -2):
        size = images.shape[axis]
        after = margin + (-(size + 2 * margin)) % 8
        index = torch.arange(-margin, size + after, device=images.device) % (2 * size)
        index = torch.where(index < size, index, 2 * size - 1 - index)
        images = images.index_select(axis, index)
    return images


class SurveyNet(nn.Module):
    """A small U-shaped network of NAFNet's blocks (Chen et al. 2022, ECCV, arXiv:2204.04676) for pairs of surveys.

    It sees estimates of an image on the other survey's pixels and with its PSF (`matched_estimates`, then resampled
    through both WCSs), in units of the noise. Bands share the weights, and see one another through their sum in units
    of the noise, and through an estimate that takes the shape of that sum and the local colour of the band. In each
    pixel the network gives weights by which the estimates are mixed (they sum to one, so that a mixture keeps sky and
    flux), a correction in linear flux, and the width of the error's distribution. Corrections start at zero. In a band
    whose target has the broader PSF, the first estimate is exact and is taken as it is; elsewhere blank sky, where all
    bands together show nothing, is emptied, and diffuse light is smoothed. The network takes
    any number of bands, images of any size, and pixels of any ratio; multiplying an image by a number multiplies the
    result by it.

    For named pairs of surveys it also holds how their filters differ: a factor on a band's flux that is a product of
    powers of the local fluxes of all bands (a colour term) and a zero point.

    Parameters
    ----------
    widths : tuple of int
        Channels of each scale, at most 8; the first is at half the image's resolution, each further one halves it
        again.
    blocks : tuple of int
        Blocks at each scale on the way down, then on the way up: ``2 len(widths) - 1`` numbers, at most 64 each.
    balances : tuple of float
        Of the estimates; positive, at most 32.
    softening : float
        Flux in units of the noise beyond which the input is compressed; positive.
    directions : tuple of tuple of str
        Pairs (source, target) of surveys whose filters' difference is learnt.
    band_names : tuple of str
        Of the bands that it is learnt for.

    Raises
    ------
    InputError
        If a value is out of range, or the numbers of scales and blocks do not agree.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.surveynet import SurveyNet
    >>> net = SurveyNet(widths=(8, 16), blocks=(1, 1, 1))
    >>> estimates = torch.rand(1, 3, 4, 21, 30)
    >>> one = torch.ones(1, 3)
    >>> mean, spread = net(estimates, one, 7 * one, 4 * one, 0.2 * one)
    >>> mean.shape == spread.shape == (1, 3, 21, 30)
    True
    """

    def __init__(
        self,
        widths=(24, 48, 96),
        blocks=(1, 1, 2, 1, 1),
        balances=(3e-4, 0.02, 0.5, 8.0),
        softening=2.0,
        directions=(),
        band_names=(),
    ):
        super().__init__()
        check_scales(widths, blocks)
        check_whole("len(balances)", len(balances), 1, _MOST_BALANCES)
        check_positive("balances", list(balances))
        check_positive("softening", softening)
        self.widths, self.blocks, self.balances = tuple(widths), tuple(blocks), tuple(map(float, balances))
        self.softening = float(softening)
        self.directions = tuple(tuple(map(str, pair)) for pair in directions)
        self.band_names = tuple(map(str, band_names))
        scales, self.candidates = len(widths), len(balances) + 1
        inputs = self.candidates + len(balances) + 3
        self.stem = nn.Conv2d(4 * inputs, widths[0], 3, padding=1)
        self.down = nn.ModuleList(naf_blocks(w, n) for w, n in zip(widths, blocks, strict=False))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(naf_blocks(widths[s], blocks[2 * scales - 2 - s]) for s in range(scales - 1))
        self.head = nn.Conv2d(widths[0], 4 * (self.candidates + 1), 3, padding=1)
        self.spread = nn.Sequential(
            nn.Conv2d(widths[0], widths[0], 3, padding=1), nn.GELU(), nn.Conv2d(widths[0], 4, 1)
        )
        bands = len(self.band_names)
        self.colour = nn.Parameter(torch.zeros(len(self.directions), bands, bands))
        self.zero_point = nn.Parameter(torch.zeros(len(self.directions), bands))
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()
            # The mixture begins with a moderate estimate; where the target's PSF is broader all are the same.
            self.head.bias[4 * (len(balances) // 2) : 4 * (len(balances) // 2) + 4] = 2.0

    @property
    def architecture(self):
        """The keyword arguments that build this network, for cards."""
        names = ("widths", "blocks", "balances", "softening", "band_names")
        out = {n: list(v) if isinstance(v := getattr(self, n), tuple) else v for n in names}
        return out | {"directions": [list(pair) for pair in self.directions]}

    @property
    def stride(self):
        """Pixels that go into one of the coarsest scale."""
        return 2 ** len(self.widths)

    def forward(self, estimates, unit, fwhm_in, fwhm_out, target_noise, direction=None):
        """Translate a batch.

        Parameters
        ----------
        estimates : `torch.Tensor`
            (n, band, balance, y, x), in flux per pixel of the target.
        unit : `torch.Tensor`
            (n, band), the noise that white noise of the input has in a pixel of the target's area, in the same flux.
        fwhm_in, fwhm_out : `torch.Tensor`
            (n, band), of both PSFs, in pixels of the target.
        target_noise : `torch.Tensor`
            (n, band), the target's noise, in flux.
        direction : int, optional
            Number of the pair in ``directions`` whose filters' difference is applied; the bands must then be
            ``band_names``.

        Returns
        -------
        mean, spread : `torch.Tensor`
            (n, band, y, x), float32, in flux: what the other survey would have seen without noise, and the 68.3 %
            quantile of its error's absolute value.
        """
        n, bands, _, height, width = estimates.shape
        scaled = estimates.float() / unit[:, :, None, None, None]
        window = _window(torch.maximum(fwhm_in, fwhm_out))
        if direction is not None:
            scaled = scaled * self._factor(scaled, unit, direction, window)[:, :, None]
        together = scaled.sum(1, keepdim=True) / bands**0.5
        borrowed = _borrowed(scaled[:, :, -2], together[:, :, -2], window)
        candidates = torch.cat([scaled, borrowed[:, :, None]], 2)
        constant = [fwhm_in / fwhm_out, fwhm_out, target_noise / unit + 1e-3]
        planes = [
            torch.asinh(candidates / self.softening),
            torch.asinh(together / self.softening).expand(-1, bands, -1, -1, -1),
            *(torch.log(value)[:, :, None, None, None].expand(-1, -1, 1, height, width) for value in constant),
        ]
        features = self._features(padded(torch.cat(planes, 2).flatten(0, 1), self.stride))
        parts = functional.pixel_shuffle(self.head(features).float(), 2)[..., :height, :width]
        parts = parts.reshape(n, bands, self.candidates + 1, height, width)
        mixed = (torch.softmax(parts[:, :, :-1], 2) * candidates).sum(2)
        # Bright pixels err in proportion to their flux; a correction in this unit is of order one everywhere.
        scale = torch.sqrt(1 + (mixed.detach() / self.softening) ** 2)
        mean = mixed + scale * parts[:, :, -1]
        # Where the target's PSF is the broader one the faithful estimate is exact, and nothing is left to learn.
        sharper = ((fwhm_in / fwhm_out - _EXACT) / (_SHARPER - _EXACT)).clamp(0, 1)[:, :, None, None]
        lit = _lit(together[:, :, -1], window)
        mean = lit * mean + (1 - lit) * _diffuse(scaled[:, :, -1], together[:, :, -1], lit, window)
        mean = candidates[:, :, 0] + sharper * (mean - candidates[:, :, 0])
        # The error's width is learned beside the image, not at its cost: no gradient goes further down.
        width_of_error = functional.pixel_shuffle(self.spread(features.detach()).float(), 2)[..., :height, :width]
        spread = scale * functional.softplus(width_of_error.reshape(n, bands, height, width))
        unit = unit[:, :, None, None]
        return mean * unit, spread * unit

    def _features(self, planes):
        x = self.stem(functional.pixel_unshuffle(planes, 2).contiguous(memory_format=torch.channels_last))
        return u_shaped(x, self.down, self.shrink, self.grow, self.up)

    def _factor(self, scaled, unit, direction, window):
        """What the target's filter sees of a band, over what the source's does: (n, band, y, x)."""
        smooth = _smooth(scaled[:, :, -1], window)
        # Of the noise of a mean over the window; below it there is no colour to speak of.
        knee = 3.0 / window
        level = torch.log(torch.sqrt(smooth.square() + knee**2) * unit[:, :, None, None])
        # Rows without their mean: a colour is a ratio, and twice the flux has the same one.
        powers = self.colour[direction] - self.colour[direction].mean(1, keepdim=True)
        term = torch.einsum("bc,ncyx->nbyx", powers, level)
        seen = (smooth.clamp(min=0).square() / (smooth.square() + knee**2)).mean(1, keepdim=True)
        return torch.exp((seen * term).clamp(-1.5, 1.5) + self.zero_point[direction][None, :, None, None])


def _window(fwhm):
    """Edge in pixels of the square over which local colours are taken: two FWHM, odd."""
    return 2 * max(1, round(float(fwhm.max()))) + 1


def _smooth(images, window):
    """A running mean, taken twice."""
    for _ in range(2):
        for size in ((window, 1), (1, window)):
            half = size[0] // 2, size[1] // 2
            images = functional.avg_pool2d(images, size, 1, half, count_include_pad=False)
    return images


def _seen(smooth, window, deviations):
    """From 0 to 1: whether a mean over a window, in units of a pixel's noise, is light and not noise."""
    return (smooth.square() / (smooth.square() + (deviations / window) ** 2)) ** _STEEP


def _lit(together, window):
    """One where there is light in all bands together, and nearly zero on blank sky.

    The sharper survey is often the deeper by far: what an estimate keeps of the sky's noise would drown its own.
    """
    return _seen(_smooth(together, window), window, _SEEN)


def _diffuse(images, together, lit, window):
    """Light too faint for a pixel and wide enough for many: mean levels of what is not lit, where they are real.

    Without it the outskirts of a galaxy would be lost, and with them a tenth of its flux.
    """
    wide = _WIDE * window // 2 * 2 + 1
    dark = 1 - lit
    weight = _smooth(dark, wide).clamp(min=1e-3)
    level, everywhere = (_smooth(dark * planes, wide) / weight for planes in (images, together))
    return _seen(everywhere, wide, _SEEN_WIDE) * level


def _borrowed(band, together, window):
    """The shape that all bands show together with the local colour of each, in units of the band's noise."""
    smooth_band, smooth_all = _smooth(band, window), _smooth(together, window)
    colour = smooth_band * smooth_all / (smooth_all.square() + (3.0 / window) ** 2)
    return together * colour
