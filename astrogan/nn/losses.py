"""Losses for restoration networks."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

__all__ = ["aperture_loss", "coverage_loss", "psnr_loss", "stretched_2017", "weighted_charbonnier"]


def stretched_2017(flux):
    """The asinh stretch of Schawinski et al. (2017).

    Parameters
    ----------
    flux : `torch.Tensor`
        In nanomaggies; clipped to [-0.1, 4].

    Returns
    -------
    `torch.Tensor`
        From 0 to 1, nearly.
    """
    return torch.asinh(10 * (flux.clamp(-0.1, 4.0) + 0.1) / 4.1) / 3


def psnr_loss(images, targets, data_range=1.0):
    """Minus the PSNR in decibel, averaged over the images of a batch.

    Parameters
    ----------
    images, targets : `torch.Tensor`
        (n, band, y, x).
    data_range : float
        The peak in peak signal-to-noise ratio.

    Returns
    -------
    `torch.Tensor`
        One number. Errors below a ten-thousandth of the range are taken as that.
    """
    mean_square = ((images - targets) / data_range).square().mean(dim=(1, 2, 3))
    return 10 / math.log(10) * torch.log(mean_square + 1e-8).mean()


def weighted_charbonnier(images, targets, unit, knee=1.0):
    """A mean of errors in a unit of their own: square below the knee, absolute beyond.

    ``unit`` must not depend on the target, or the mean that the loss asks for would be biased in flux.

    Parameters
    ----------
    images, targets, unit : `torch.Tensor`
        (n, band, y, x).
    knee : float
        In ``unit``.

    Returns
    -------
    `torch.Tensor`
        One number.
    """
    error = (images - targets) / unit
    return (torch.sqrt(error.square() + knee**2) - knee).mean()


def aperture_loss(images, targets, size):
    """Squared error of fluxes in square boxes, in units of the box's noise: it holds photometry.

    Parameters
    ----------
    images, targets : `torch.Tensor`
        (n, band, y, x) in units of the sky's noise.
    size : int
        Edge of the boxes in pixels.

    Returns
    -------
    `torch.Tensor`
        One number: errors of sums over boxes, divided by ``size`` (their noise) and by one per cent of the flux, the
        two added in quadrature; compressed beyond one.
    """
    error = functional.avg_pool2d(images - targets, size) * size
    flux = functional.avg_pool2d(targets, size).abs() * size
    square = error.square() / (1 + (0.03 * flux).square())
    return torch.log1p(square).mean()


def coverage_loss(errors, spread, quantile=0.6827):
    """Pinball loss: least where ``spread`` is that quantile of the error's absolute value.

    Parameters
    ----------
    errors, spread : `torch.Tensor`
        Of equal shape; no gradient goes into ``errors``.
    quantile : float
        Part of the pixels whose error is to be smaller than ``spread``.

    Returns
    -------
    `torch.Tensor`
        One number, of the logarithms' difference, so that faint and bright pixels count alike.
    """
    ratio = torch.log(errors.detach().abs() + 1e-3) - torch.log(spread + 1e-3)
    return torch.maximum(quantile * ratio, (quantile - 1) * ratio).mean()
