"""Compare images with a truth, as ``astrogan evaluate`` does."""

from __future__ import annotations

import numpy as np

from astrogan.exceptions import InputError, UnitError
from astrogan.image.prepare import prepare

__all__ = ["evaluate_images"]


def evaluate_images(truth, images, *, hdu=None, unit=None, data_range=None):
    """A table of how far each image is from the truth, band by band.

    Parameters
    ----------
    truth : path, `~astropy.nddata.NDData`, list or dict
    images : sequence of the same
        Each of the truth's shape and unit.
    hdu : int or str, optional
        HDU of files.
    unit : str, optional
        Unit of files that name none.
    data_range : float, optional
        Range that PSNR and SSIM refer to. Default: maximum minus minimum of the truth's valid pixels, per band.

    Returns
    -------
    `astropy.table.Table`
        Columns image, band, psnr (dB), ssim, rmse (in the unit), flux_ratio (sum over sum), correlation,
        reduced_chi2 (where the image has an uncertainty, else NaN), n_valid.

    Raises
    ------
    InputError, UnitError
        If shapes or units differ, or ``data_range`` is not positive.
    """
    from astropy.table import Table

    from astrogan.metrics import psnr, ssim

    if data_range is not None and not (np.isfinite(data_range) and data_range > 0):
        raise InputError(f"data_range={data_range!r} must be positive, or None for that of the truth")
    reading = {name: value for name, value in (("hdu", hdu), ("unit", unit)) if value is not None}
    true = prepare(truth, **reading)
    rows = []
    for number, image in enumerate(images):
        one = prepare(image, **reading)
        if one.observation.shape != true.observation.shape:
            raise InputError(
                f"image {number} has shape {one.observation.shape}; "
                f"the truth has {true.observation.shape}: they must agree"
            )
        factor = _conversion(one.unit, true.unit, number) * one.scale / true.scale
        for band, name in enumerate(true.observation.bands):
            good = true.observation.valid[band] & one.observation.valid[band]
            if not good.any():
                raise InputError(f"image {number} and the truth have no valid pixel in common in band {name!r}")
            t = true.observation.data[band].astype(np.float64)
            x = one.observation.data[band].astype(np.float64) * factor
            span = data_range / true.scale if data_range else float(np.ptp(t[good]))
            variance = one.observation.variance
            chi2 = np.nan if variance is None else np.mean((x - t)[good] ** 2 / (variance[band][good] * factor**2))
            rows.append(
                {
                    "image": str(image) if isinstance(image, str) or hasattr(image, "__fspath__") else str(number),
                    "band": name,
                    "psnr": _guarded(psnr, t, x, span, ~good),
                    "ssim": _guarded(ssim, t, x, span, ~good),
                    "rmse": float(np.sqrt(np.mean((x - t)[good] ** 2)) * true.scale),
                    "flux_ratio": float(x[good].sum() / t[good].sum()) if t[good].sum() else np.nan,
                    "correlation": _correlation(t[good], x[good]),
                    "reduced_chi2": float(chi2),
                    "n_valid": int(good.sum()),
                }
            )
    table = Table(rows)
    for column, digits in (("psnr", 2), ("ssim", 4), ("flux_ratio", 4), ("correlation", 5), ("reduced_chi2", 3)):
        table[column].info.format = f".{digits}f"
    table["rmse"].info.format = ".5g"
    return table


def _conversion(unit, wanted, number):
    if unit == wanted or unit is None or wanted is None:
        return 1.0
    from astropy import units as u

    try:
        return unit.to(wanted)
    except u.UnitConversionError as error:
        raise UnitError(f"image {number} has unit {unit}; the truth has {wanted}, and they do not convert") from error


def _guarded(metric, truth, image, span, mask):
    """A metric, or NaN where it has no meaning: a flat truth, an image smaller than the window."""
    if not span > 0:
        return np.nan
    try:
        return float(metric(truth, image, data_range=span, mask=mask))
    except InputError:
        return np.nan


def _correlation(a, b):
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else np.nan
