"""What was done to an image, written where a FITS header keeps it: eight-character keywords and HISTORY."""

from __future__ import annotations

import copy

__all__ = ["KEYWORDS", "add_provenance", "describe", "without_stale_keywords"]

KEYWORDS = {
    "AGVERS": "astrogan version",
    "AGOP": "operation",
    "AGBACK": "backend (distribution:name)",
    "AGBVERS": "version of the backend's distribution",
    "AGOPTS": "options of the backend",
    "AGSEED": "seed of the random numbers",
    "AGPSF": "where the PSF came from",
    "AGFWHM": "[pix] FWHM of the input's PSF, mean over bands",
    "AGVAR": "where the variance came from",
    "AGNBAD": "pixels masked on input",
    "AGNSAT": "pixels masked as saturated on input",
    "AGBANDS": "names of the bands of a cube",
    "AGLINEAR": "False where pixel values are not linear in flux",
    "AGINFO": "what the backend reported",
    "AGWEIGHT": "weights: name and start of their SHA-256",
    "AGFLAGS": "bits of the FLAGS extension",
    "AGTARGET": "what the image was translated to",
    "AGSCALE": "power of two taken out during the computation",
}
"""FITS keywords that astrogan writes, with the comments that go beside them."""

# What an earlier step said of itself is in HISTORY; these two stay true.
_OF_ONE_STEP = set(KEYWORDS) - {"AGBANDS", "AGLINEAR"}


_PIXEL_SCALES = ("PIXSCALE", "PIXSCAL1", "PIXSCAL2", "SECPIX", "SECPIX1", "SECPIX2")


def without_stale_keywords(meta, *, widths=True, regridded=False, pixel_scale=None):
    """A header without what an operation on the pixels made untrue: PSF, saturation level, pixel scale.

    Parameters
    ----------
    meta : dict or `astropy.io.fits.Header`
        Left as it is.
    widths : bool
        Whether the PSF changed on the sky; else only what is said of it in pixels goes.
    regridded : bool
        Whether the pixels are others.
    pixel_scale : float, optional
        Arcsec per pixel of those, written to PIXSCALE where the header has it.

    Returns
    -------
    Same type as ``meta``.
    """
    from astrogan.image._headers import SATURATION
    from astrogan.image.psf import without_psf_keywords

    out = copy.copy(without_psf_keywords(meta, widths=widths) if widths or regridded else meta)
    had_scale = "PIXSCALE" in out
    for key in SATURATION + (_PIXEL_SCALES if regridded else ()):
        if key in out:
            del out[key]
    if regridded and had_scale and pixel_scale is not None:
        out["PIXSCALE"] = float(f"{pixel_scale:.8g}")  # a scale from a WCS has rounding errors
    return out


def describe(value):
    """A short FITS-safe form of a value: numbers and booleans as they are, the rest as ASCII text.

    Parameters
    ----------
    value : object
        A dict becomes ``name=value, ...``; an array its shape.

    Returns
    -------
    bool, int, float or str
        Text has 400 characters at most.
    """
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 and getattr(value, "unit", None) is None:
        return describe(value.item())
    if isinstance(value, dict):
        text = ", ".join(f"{key}={describe(v)}" for key, v in value.items())
    elif getattr(value, "ndim", 0) and not hasattr(value, "unit"):
        text = f"array{tuple(value.shape)}"
    else:
        text = " ".join(str(value).split())
    return text.encode("ascii", "replace").decode()[:400]


def add_provenance(meta, notes, history):
    """A copy of ``meta`` with keywords and a HISTORY line added.

    Parameters
    ----------
    meta : dict or `astropy.io.fits.Header`
        Left as it is.
    notes : dict
        Values by FITS keyword (`KEYWORDS`).
    history : str
        One line for HISTORY.

    Returns
    -------
    Same type as ``meta``.
    """
    out = copy.deepcopy(meta)
    for key in _OF_ONE_STEP & set(out):
        del out[key]
    history = history.encode("ascii", "replace").decode()
    for key, value in notes.items():
        value = describe(value)
        if hasattr(out, "add_history"):
            out[key] = (value, KEYWORDS[key]) if key in KEYWORDS else value
        else:
            out[key] = value
    if hasattr(out, "add_history"):
        out.add_history(history)
    else:
        earlier = out.get("HISTORY")
        out["HISTORY"] = f"{earlier} | {history}" if earlier else history
    return out
