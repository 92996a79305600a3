"""Figures of merit: pure functions on arrays, loaded on first use.

Images have axes (y, x) or (band, y, x), masks are True where a pixel is to be left out, positions are (x, y) pixels,
0-based with centres at integers. Where two images are compared, the truth (or reference) comes first.
"""

from __future__ import annotations

import importlib

_WHERE = {
    "image": ("mse", "psnr", "ssim"),
    "photometry": ("aperture_flux", "aperture_flux_ratio", "curve_of_growth"),
    "shapes": ("Moments", "centroid", "centroid_offset", "moments"),
    "fourier": (
        "RingCorrelation",
        "fourier_ring_correlation",
        "power_spectrum",
        "power_spectrum_2d",
        "power_spectrum_ratio",
    ),
    "detection": (
        "DetectionScore",
        "FalseDetections",
        "Matches",
        "completeness_purity",
        "false_detections",
        "match_positions",
    ),
    "deblending": (
        "blendedness",
        "colour_error",
        "conservation_error",
        "cosine_similarity",
        "flux_error",
        "intersection_over_union",
    ),
    "noise": ("noise_autocorrelation", "noise_std"),
    "translation_noise": ("NoiseComparison", "NoiseStatistics", "compare_noise", "noise_statistics", "variance_slope"),
    "translation": (
        "Coverage",
        "FourierComparison",
        "chi2_coverage",
        "compare_fourier_maps",
        "energy_score",
        "flux_distribution_error",
        "magnitude_difference",
        "radial_flux_fractions",
        "radial_wasserstein",
        "ring_weights",
        "stacked_fourier_map",
    ),
}
_LAZY = {name: module for module, names in _WHERE.items() for name in names}

__all__ = sorted(_LAZY)  # noqa: PLE0605


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'astrogan.metrics' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"astrogan.metrics.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))
