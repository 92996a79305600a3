"""Fields of two depths and fields of the opposite sign: part ``depth`` of `astrogan.bench.restoration_linear`."""

from __future__ import annotations

import numpy as np

from astrogan.bench._linear_common import as_table, flux_columns, gaussian_kernel, load_methods, restore
from astrogan.bench._linear_sky import Scene

__all__ = ["depth"]


def depth(
    methods=None,
    *,
    fields=20,
    sources=16,
    size=192,
    native_fwhm=2.5,
    fwhm=4.0,
    snr_range=(20.0, 200.0),
    others=(1.0, 3.0, 10.0, 1 / 3, 0.1),
    apertures=(1.0, 2.0),
    seed=0,
):
    """What the left half of a field comes to where the right half is noisier or less so, and with its sign changed.

    Parameters
    ----------
    methods : sequence, optional
        As for `~astrogan.bench._linear_common.load_methods`.
    fields, sources, size : int
        Fields, sources in each, and pixels along an edge.
    native_fwhm, fwhm : float
        Resolution of the truth and width of the blur, pixels.
    snr_range : tuple of float
        Of the sources under a matched filter in noise of one, which is that of the left half.
    others : sequence of float
        Noise of the right half.
    apertures : tuple of float
        Radii in FWHM of the blurred image.
    seed : int

    Returns
    -------
    `~astropy.table.Table`
        A row a case and method; ``meta["caption"]`` says what the columns are.
    """
    methods, kernel = load_methods(methods), gaussian_kernel(fwhm)
    cases = [(other, 1) for other in others] + [(1.0, -1)]
    errors, ratios = {}, {}
    for number in range(fields):
        rng = np.random.default_rng([seed, number])
        scene = Scene((size, size), sources, native_fwhm, kernel, snr_range, rng)
        white = rng.standard_normal(scene.sharp.shape)
        for other, sign in cases:
            noise = np.ones_like(white)
            noise[:, size // 2 :] = other
            seen = sign * (scene.blurred + noise * white)
            for method in methods:
                restored = sign * restore(method, seen, noise, kernel).data
                error, ratio = _left(scene, restored, apertures)
                errors.setdefault((other, sign, method.label), []).append(error)
                ratios.setdefault((other, sign, method.label), []).append(ratio)
    rows = [
        {"other": other, "sign": sign, "method": label, "rms": float(np.sqrt(np.mean(squares)))}
        | flux_columns(np.concatenate(ratios[other, sign, label]))
        for (other, sign, label), squares in errors.items()
    ]
    caption = _CAPTION.format(fwhm=fwhm, native=native_fwhm, apertures=apertures)
    return as_table(rows, caption, {"rms": ".3f", "other": ".3g"})


_CAPTION = (
    "Stars and exponential galaxies at a resolution of {native:g} px, blurred by {fwhm:g} px more, in white noise of "
    "one in the left half and of 'other' in the right one; methods are given the noise of each pixel. Measured on the "
    "left half alone. sign -1: the image with its sign changed. rms: error over the left half's noise; flux_1..: "
    "median bias, per cent, within {apertures} FWHM of the blurred image; err_1..: its standard error."
)


def _left(scene, restored, apertures):
    """Mean squared error in the left half, and flux over the true one of its sources, (source, aperture)."""
    # Off the border between the depths by more than the filters reach: what lies there is of neither.
    border = restored.shape[1] // 2 - 12
    error = np.mean((restored - scene.sharp)[:, :border] ** 2)
    inside = scene.positions[:, 0] < border - max(apertures) * scene.fwhm
    return error, scene.flux_ratios(restored, apertures, inside)
