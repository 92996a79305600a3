"""The deblending network: how the light of each pixel divides among sources, given a first model of each of them."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from astrogan.nn._arguments import check_scales, check_whole
from astrogan.nn.naf import naf_blocks, padded, u_shaped

__all__ = ["PLANES", "RatioUNet", "combined", "distance_to_others", "source_planes"]

PLANES = 11
"""Number of planes that `source_planes` makes."""

_SOFTENING = 2.0  # flux in units of the noise beyond which planes are compressed
_ALONE = 1e3  # pixels to the next source, where there is none
_FAINT = 3.0  # S/N of a source in a band at which half of its correction counts
_LEAST = 1e-5  # of a model, in units of the noise: beyond all of them the shares are even
_FLOOR = 1e-3  # the same in the plane of the shares


class RatioUNet(nn.Module):
    """Correct the shares that models of the sources give, with weights that all sources and all bands have in common.

    One network looks at each source in turn: at the image, at the source's model, at that of all others, at what is
    left, and at the image turned by 180 degrees about the source. Features of the bands are pooled on the way, so that
    shapes are learned from all of them together; any number of bands and of sources will do, and their order does not
    matter. Where the network's outputs are zero, as they are before training, the shares are those of the models.

    Parameters
    ----------
    stem : int
        Channels of the first layer, at half the image's resolution.
    widths : tuple of int
        Channels at each scale, at most 8, of the part that sees pooled bands; the first is at half the image's
        resolution.
    blocks : tuple of int
        Blocks at each scale on the way down, then on the way up: ``2 len(widths) - 1`` numbers, at most 64 each.

    Raises
    ------
    InputError
        If a value is out of range, or the numbers of scales and blocks do not agree.

    Notes
    -----
    The recommended inputs are those of `source_planes`. The blocks are NAFNet's (Chen et al. 2022, ECCV,
    arXiv:2204.04676), without attention over the whole image.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.ratio_net import PLANES, RatioUNet
    >>> net = RatioUNet(stem=8, widths=(8, 16), blocks=(1, 1, 1))
    >>> planes, models = torch.zeros(3, 2, PLANES, 20, 31), torch.rand(3, 2, 20, 31)
    >>> ratio, template, spread = net(planes, models, torch.ones(3))
    >>> bool(torch.allclose(ratio, models / models.sum(0), atol=1e-2)), ratio.shape == template.shape == spread.shape
    (True, True)
    """

    def __init__(self, stem=32, widths=(48, 80, 128), blocks=(1, 2, 3, 2, 1)):
        super().__init__()
        check_whole("stem", stem, 1)
        check_scales(widths, blocks)
        self.stem_width, self.widths, self.blocks = int(stem), tuple(widths), tuple(blocks)
        scales = len(widths)
        self.stem = nn.Conv2d(4 * PLANES, stem, 3, padding=1)
        self.first = naf_blocks(stem, 1)
        self.pool = nn.Conv2d(2 * stem, widths[0], 1)
        self.down = nn.ModuleList(naf_blocks(w, n) for w, n in zip(widths, blocks, strict=False))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(naf_blocks(widths[s], blocks[2 * scales - 2 - s]) for s in range(scales - 1))
        self.join = nn.Conv2d(stem + widths[0], stem, 1)
        self.last = naf_blocks(stem, 1)
        self.head = nn.Conv2d(stem, 4 * 2, 3, padding=1)
        self.spread = nn.Sequential(nn.Conv2d(stem, stem, 3, padding=1), nn.GELU(), nn.Conv2d(stem, 4, 1))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def architecture(self):
        """The keyword arguments that build this network, for cards."""
        return {"stem": self.stem_width, "widths": list(self.widths), "blocks": list(self.blocks)}

    @property
    def stride(self):
        """Pixels that go into one of the coarsest scale."""
        return 2 ** len(self.widths)

    def forward(self, planes, models, present):
        """Shares, templates and how uncertain they are, for the sources of one image or of several.

        Parameters
        ----------
        planes : `torch.Tensor`
            (..., source, band, plane, y, x), see `source_planes`.
        models : `torch.Tensor`
            First models in units of the noise, (..., source, band, y, x), not negative.
        present : `torch.Tensor`
            1 for a source, 0 for a place that none takes, (..., source).

        Returns
        -------
        ratio, template, spread : `torch.Tensor`
            Each (..., source, band, y, x): the part of each pixel's light that is the source's, which sum to one over
            the sources; the source without noise, in units of the noise; the 68 % width of the error of its flux per
            pixel, to be summed over the source, in the same unit.
        """
        logit, addition, width = self.corrections(planes)
        ratio, template, spread = combined(models, logit, addition, width)
        there = present[..., None, None, None]
        total = (ratio * there).sum(-4, keepdim=True).clamp(min=1e-12)
        return ratio * there / total, template * there / total, spread * there

    def corrections(self, planes):
        """What the network says of each source by itself; `combined` makes shares of it.

        Parameters
        ----------
        planes : `torch.Tensor`
            (..., source, band, plane, y, x), see `source_planes`.

        Returns
        -------
        logit, addition, width : `torch.Tensor`
            Each (..., source, band, y, x).
        """
        *lead, bands, _, height, width = planes.shape
        x = padded(planes.reshape(-1, PLANES, height, width), self.stride)
        x = self.stem(functional.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        x = self.first(x)
        together = x.unflatten(0, (-1, bands))
        pooled = self.pool(torch.cat([together.mean(1), together.amax(1)], 1))
        pooled = u_shaped(pooled, self.down, self.shrink, self.grow, self.up)
        pooled = pooled.repeat_interleave(bands, 0)
        x = self.last(x + self.join(torch.cat([x, pooled], 1)))
        shape = (*lead, bands)
        logit, addition = _pixels(self.head(x), shape, height, width).unbind(-3)
        # The error's width is learned beside the shares, not at their cost: no gradient goes further down.
        width_of_error = _pixels(self.spread(x.detach()), shape, height, width)[..., 0, :, :]
        return logit, addition, functional.softplus(width_of_error)


def combined(models, logit, addition, width):
    """Shares, templates and their uncertainty from what the network says of each source.

    Parameters
    ----------
    models : `torch.Tensor`
        First models in units of the noise, (..., source, band, y, x), not negative.
    logit, addition, width : `torch.Tensor`
        See `RatioUNet.corrections`.

    Returns
    -------
    ratio, template, spread : `torch.Tensor`
        See `RatioUNet.forward`.
    """
    # A correction is one against the source that is brightest in a pixel, so that it can be weighed by how well the
    # source is known: one that is lost in the noise of a band must not get a share there for what other bands show.
    against = logit - torch.take_along_dim(logit, models.argmax(-4, keepdim=True), -4)
    power = models.square().sum((-2, -1), keepdim=True)
    ratio = torch.softmax(power / (power + _FAINT**2) * against + torch.log(models + _LEAST), dim=-4)
    scene = (models + addition * torch.sqrt(1 + (models / _SOFTENING) ** 2)).sum(-4, keepdim=True)
    doubt = (ratio * (1 - ratio) * torch.sqrt(1 + scene.clamp(min=0) ** 2)).detach()
    return ratio, ratio * scene.clamp(min=0), width * doubt


def _pixels(x, shape, height, width):
    """Channels of the half-resolution grid as planes of the image: (..., plane, y, x), float32."""
    return functional.pixel_shuffle(x.float(), 2)[..., :height, :width].unflatten(0, shape)


def source_planes(image, noise, models, total, positions, others, valid, fwhm):
    """What the network sees of each source.

    Parameters
    ----------
    image : `torch.Tensor`
        (..., source, band, y, x), in units of the sky's noise; or 1 in place of ``source``, where all see the same.
    noise, valid : `torch.Tensor`
        Standard deviation of each pixel in the same unit, and 1 where a pixel may be used, 0 elsewhere; shaped as
        ``image``.
    models : `torch.Tensor`
        First models, (..., source, band, y, x), not negative.
    total : `torch.Tensor`
        The sum of all sources' models, shaped as ``image``.
    positions : `torch.Tensor`
        (..., source, 2), each (x, y) in pixels.
    others : `torch.Tensor`
        Distance to the nearest other source in pixels, (..., source, y, x), see `distance_to_others`.
    fwhm : `torch.Tensor`
        Of the PSF in pixels, (..., 1, band), 1 standing for all sources.

    Returns
    -------
    `torch.Tensor`
        (..., source, band, `PLANES`, y, x).
    """
    rest = (total - models).clamp(min=0)
    own = torch.where(valid > 0, image - rest, models)
    units = fwhm[..., None, None]
    planes = [
        torch.asinh(image * valid / _SOFTENING),
        torch.asinh(models / _SOFTENING),
        torch.asinh(rest / _SOFTENING),
        torch.asinh((image - total) / noise * valid),
        torch.log((models + _FLOOR) / (rest + _FLOOR)).clamp(-9, 9) / 3,
        torch.asinh(own / _SOFTENING),
        torch.asinh(_turned(own, positions) / _SOFTENING),
        torch.log1p(_far(positions, *models.shape[-2:]).unsqueeze(-3) / units),
        torch.log1p(others.unsqueeze(-3) / units),
        torch.log(units),
        valid,
    ]
    return torch.stack([plane.expand_as(models) for plane in planes], -3)


def distance_to_others(positions, height, width):
    """Distance from each pixel to the nearest of the other sources; a source alone has one far away.

    Parameters
    ----------
    positions : `torch.Tensor`
        (..., source, 2), each (x, y) in pixels.
    height, width : int
        Of the image.

    Returns
    -------
    `torch.Tensor`
        (..., source, y, x), in pixels.
    """
    far = _far(positions, height, width)
    if far.shape[-3] == 1:
        return torch.full_like(far, _ALONE)
    two, which = torch.topk(far, 2, dim=-3, largest=False)
    index = torch.arange(far.shape[-3], device=far.device)[:, None, None]
    return torch.where(which[..., :1, :, :] == index, two[..., 1:, :, :], two[..., :1, :, :])


def _far(positions, height, width):
    """Distance of each pixel from each position, (..., source, y, x)."""
    y = torch.arange(height, dtype=positions.dtype, device=positions.device)[:, None]
    x = torch.arange(width, dtype=positions.dtype, device=positions.device)
    return torch.hypot(x - positions[..., 0, None, None], y - positions[..., 1, None, None])


def _turned(images, positions):
    """Each source's image turned by 180 degrees about it; beyond the edges the image itself.

    The turn is about the nearest half pixel, so that pixels fall on pixels.
    """
    height, width = images.shape[-2:]
    centre = torch.round(2 * positions).to(torch.int64)
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)
    partner_x, partner_y = centre[..., 0, None] - x, centre[..., 1, None] - y
    inside_x, inside_y = (partner_x >= 0) & (partner_x < width), (partner_y >= 0) & (partner_y < height)
    columns = partner_x.clamp(0, width - 1)[..., None, None, :].expand_as(images)
    rows = partner_y.clamp(0, height - 1)[..., None, :, None].expand_as(images)
    turned = torch.gather(torch.gather(images, -1, columns), -2, rows)
    inside = (inside_y[..., :, None] & inside_x[..., None, :]).unsqueeze(-3)
    return torch.where(inside, turned, images)
