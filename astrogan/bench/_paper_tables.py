"""Table 1 of Schawinski et al. (2017, MNRAS 467, L110): the grid, and the PSNR in dB that the paper printed."""

from __future__ import annotations

__all__ = ["FWHMS", "NOISE_RATIOS", "PAPER_NAMES", "TRAINING_SIZES", "paper_psnr"]

FWHMS = (1.4, 1.8, 2.2, 2.5)
"""FWHM of the added blur in arcsec. The paper's text says 2.0 where its table and code say 2.2."""

NOISE_RATIOS = (1.0, 1.2, 2.0, 5.0, 10.0)
"""Noise after degradation over noise before."""

# Rows are noise ratios, columns FWHMs.
_TABLES = {
    "galaxygan2017": (
        (39.6, 39.8, 39.2, 38.9),
        (40.0, 39.5, 39.5, 38.9),
        (38.9, 39.4, 39.2, 38.8),
        (37.8, 38.1, 38.1, 37.8),
        (35.4, 37.3, 37.3, 36.9),
    ),
    "blind-richardson-lucy": (
        (36.2, 35.7, 35.0, 34.5),
        (35.1, 34.7, 34.0, 33.6),
        (31.6, 31.4, 31.1, 30.9),
        (24.9, 24.8, 24.8, 25.4),
        (20.0, 20.0, 20.0, 20.6),
    ),
    "richardson-lucy": (
        (34.7, 34.8, 34.9, 35.0),
        (33.3, 33.5, 33.6, 33.7),
        (29.5, 29.7, 29.9, 30.0),
        (23.0, 23.1, 23.3, 23.5),
        (18.8, 18.8, 18.9, 19.0),
    ),
}

PAPER_NAMES = {
    "galaxygan2017": "the paper's GAN (1a)",
    "blind-richardson-lucy": "the paper's blind deconvolution (1b)",
    "richardson-lucy": "the paper's Lucy-Richardson (1c)",
}

TRAINING_SIZES = {5: 34.6, 10: 36.0, 100: 37.7, 2000: 37.9}
"""Table 1d: PSNR of the GAN by the number of training images. The paper does not name the degradation."""


def paper_psnr(method, fwhm, noise):
    """What the paper printed for a method at a point of its grid, or None off the grid."""
    if method not in _TABLES or fwhm not in FWHMS or noise not in NOISE_RATIOS:
        return None
    return _TABLES[method][NOISE_RATIOS.index(noise)][FWHMS.index(fwhm)]
