"""The PSF that a FITS header tells of: SDSS stamps' Gaussian mixtures, and seeing keywords of many observatories."""

from __future__ import annotations

import logging
import re

import numpy as np

from astrogan.exceptions import PSFError
from astrogan.image._kernels import clean_kernel, moffat_psf, psf_fwhm
from astrogan.image._psf_model import PSFModel

_log = logging.getLogger("astrogan")

# In order of preference: measured on this very image first, general words last.
_FWHM_KEYS = (
    "PSF_FWHM",
    "PSFFWHM",
    "FWHM_PSF",
    "FWHMPSF",
    "IQFINAL",
    "IQIMAGE",
    "FWHMSEXT",
    "FWHMMEAN",
    "MEANFWHM",
    "MEDFWHM",
    "FWHM_MED",
    "FWHMMED",
    "AVG_FWHM",
    "FWHM_AVG",
    "IMGFWHM",
    "IMG_FWHM",
    "SEEING_MEAN",
    "SEEING_MED",
    "SEEINGMN",
    "SEEING",
    "FINALIQ",
    "IMAGEIQ",
    "FWHM",
)

# Atmosphere, guide camera and requested quality are not the image's.
_NOT_THE_IMAGE = ("AMBI", "DIMM", "GUID", "AGX", "OBS_TARG", "REQ", "START", "END", "TEL_IA", "LINOBS")

_RANGE_ARCSEC = (0.01, 30.0)
_RANGE_PIXEL = (0.3, 100.0)


def without_psf_keywords(meta, *, widths=True):
    """A header without what it says of a PSF that the image no longer has.

    Parameters
    ----------
    meta : dict or `astropy.io.fits.Header`
        Left as it is.
    widths : bool
        Whether FWHMs in arcsec go as well as the PSFs that are given in pixels; not so where only the pixels changed.

    Returns
    -------
    Same type as ``meta``.
    """
    fwhm_keys = [key for name, key in _names(meta).items() if _tells_fwhm(name)]
    stale = [key for key in meta if re.fullmatch(r"PSF_P\d+", str(key))]
    stale += [key for key in fwhm_keys if widths or _in_pixels(_unit_of(meta, key))]
    stale += [key for key in meta if widths and str(key).upper().endswith("FWHMBETA")]
    if not stale:
        return meta
    out = meta.copy()
    for key in dict.fromkeys(stale):
        del out[key]
    return out


def psf_from_header(header, *, pixel_scale=None):
    """The PSF described in a FITS header, if it describes one.

    Read are, in this order:

    - SDSS ``PSF_P0`` ... ``PSF_P17``: three Gaussians as amplitudes, means (x, y) and covariances (xx, yy, xy), in
      pixels, of the PSF as it is on the pixels;
    - a FWHM under ``PSF_FWHM``, ``IQFINAL``, ``SEEING``, ``FWHM`` and their relatives, HIERARCH ones (``ESO QC PSF
      FWHM``) included: arcsec unless the comment speaks of pixels or degrees. It becomes a Moffat profile with
      beta = 3 (or ``FWHMBETA``, as in S-PLUS) that has this FWHM on the pixels. Values outside 0.01 to 30 arcsec
      are no seeing and are passed over.

    Parameters
    ----------
    header : `~astropy.io.fits.Header` or mapping
        The image's header, or ``meta``.
    pixel_scale : float, optional
        Arcsec per pixel, for keywords in angles.

    Returns
    -------
    PSFModel or None
        One band. ``origin`` names the keyword; None if nothing usable was found.

    Examples
    --------
    >>> from astrogan.image.psf import psf_from_header
    >>> psf = psf_from_header({"SEEING": 1.2}, pixel_scale=0.4)
    >>> psf.origin, round(float(psf.fwhm[0]), 2)
    ('header SEEING', 3.0)
    >>> psf_from_header({"OBJECT": "NGC 6976"}) is None
    True
    """
    kernel, origin = _sdss_mixture(header), "header PSF_P*"
    if kernel is None:
        key, fwhm = _fwhm_keyword(header, pixel_scale)
        if key is None:
            return None
        kernel, origin = moffat_with_measured_fwhm(fwhm, _beta(header)), f"header {key}"
    return PSFModel(kernel[None], origin=origin, size_is_free=True)


def _sdss_mixture(header):
    """The kernel of PSF_P0 ... PSF_P17, or None."""
    try:
        p = np.array([float(header[f"PSF_P{i}"]) for i in range(18)])
    except (KeyError, TypeError, ValueError):
        return None
    amplitudes, means, covariances = p[:3], p[3:9].reshape(3, 2), p[9:].reshape(3, 3)
    xx, yy, xy = covariances.T
    determinant = xx * yy - xy**2
    if not (np.isfinite(p).all() and amplitudes.sum() > 0 and (xx > 0).all() and (determinant > 0).all()):
        _log.warning("header keywords PSF_P0 ... PSF_P17 do not describe three Gaussians; ignored: %s", p.tolist())
        return None
    half = int(np.ceil(4 * np.sqrt(max(xx.max(), yy.max())) + np.abs(means).max()))
    grid = np.arange(-half, half + 1.0)
    kernel = np.zeros((len(grid), len(grid)))
    for k in range(3):
        dx, dy = grid[None, :] - means[k, 0], grid[:, None] - means[k, 1]
        chi2 = (yy[k] * dx**2 + xx[k] * dy**2 - 2 * xy[k] * dx * dy) / determinant[k]
        kernel += amplitudes[k] / (2 * np.pi * np.sqrt(determinant[k])) * np.exp(-0.5 * chi2)
    try:
        return clean_kernel(kernel, name="the header's PSF_P*")
    except PSFError as error:
        _log.warning("%s; ignored", error)
        return None


def _fwhm_keyword(header, pixel_scale):
    """(keyword, FWHM in pixels) of the most trusted usable keyword, or (None, None)."""
    plain = _names(header)
    for wanted in _FWHM_KEYS:
        names = [name for name in plain if _tells_fwhm(name, (wanted,))]
        for name in sorted(names, key=len):
            fwhm = _fwhm_in_pixels(header, plain[name], pixel_scale)
            if fwhm is not None:
                return plain[name], fwhm
    return None, None


def _names(header):
    """Keywords by a plain spelling of theirs, HIERARCH ones included; those that speak of the image itself."""
    plain = {}
    for key in header:
        name = re.sub(r"[ .\-]+", "_", str(key).upper()).removeprefix("HIERARCH_")
        if not any(word in name for word in _NOT_THE_IMAGE):
            plain.setdefault(name, key)
    return plain


def _tells_fwhm(name, words=_FWHM_KEYS):
    return any(name == word or (len(name) > 8 and name.endswith("_" + word)) for word in words)


def _unit_of(header, key):
    """What says the unit of a width: its own, or the comment."""
    value = header[key]
    return str(value.unit) if hasattr(value, "unit") else _comment(header, key).lower()


def _in_pixels(unit):
    return bool(re.search(r"\bpix", unit) and not re.search(r"arcsec|\"|''", unit))


def _beta(header):
    """The slope of a Moffat profile that some surveys give beside the FWHM, or 3."""
    for key in header:
        if str(key).upper().endswith("FWHMBETA"):
            try:
                beta = float(header[key])
            except (TypeError, ValueError):
                continue
            if 1.5 <= beta <= 10:
                return beta
    return 3.0


def _fwhm_in_pixels(header, key, pixel_scale):
    unit, value = _unit_of(header, key), header[key]
    value = getattr(value, "value", value)
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    if _in_pixels(unit):
        return value if _RANGE_PIXEL[0] <= value <= _RANGE_PIXEL[1] else None
    if re.search(r"\bdeg", unit):
        value *= 3600
    elif re.search(r"\bmas\b|milliarc", unit):
        value /= 1000
    if not _RANGE_ARCSEC[0] <= value <= _RANGE_ARCSEC[1]:
        return None
    if pixel_scale is None:
        _log.info("header keyword %s tells of a PSF of %g arcsec; without a pixel scale it is of no use", key, value)
        return None
    fwhm = value / pixel_scale
    return fwhm if _RANGE_PIXEL[0] <= fwhm <= _RANGE_PIXEL[1] else None


def _comment(header, key):
    comments = getattr(header, "comments", None)
    if comments is None:
        return ""
    try:
        return str(comments[key])
    except (KeyError, TypeError, IndexError):
        return ""


def moffat_with_measured_fwhm(fwhm, beta=3.0):
    """A Moffat PSF with this FWHM on the pixels: what was measured on an image has the pixels' response in it."""
    inner = fwhm
    for _ in range(6):
        excess = psf_fwhm(moffat_psf(inner, beta)) ** 2 - inner**2
        inner = np.sqrt(max(fwhm**2 - excess, 0.1 * fwhm**2))
    return moffat_psf(inner, beta)
