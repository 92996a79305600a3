"""Which HDU of a FITS file is an image, and which its mask, its uncertainty or its PSF.

Surveys agree on nothing here. An HDU says what it is by UTYPE (as `~astropy.nddata.CCDData` writes it), by the OGIP
and ESO keywords HDUCLAS2 and HDUCLAS3, by EXTNAME (ERR, SIGMA, IVAR, DQ, ..., also with a band before it: ``g_IVAR``),
or by a keyword such as IMAGETYP = 'invvar'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from astrogan.image._fits_file import Hdu, header_text, header_value

__all__ = ["Role", "band_of", "companion", "kind_in_name", "role_of", "science"]

_KINDS = {
    "mask": "MASK MSK DQ FLAG FLAGS FLG BPM BADPIX QUALITY DATAQUAL",
    "std": "ERR ERROR SIGMA RMS STD STDDEV UNCERT UNCERTAINTY UNC NOISEMAP",
    "var": "VAR VARIANCE",
    "ivar": "IVAR INVVAR INVVARIANCE INVERSEVARIANCE",
    "weight": "WHT WEIGHT WEIGHTS WGT WT WEIGHTMAP",
    "psf": "PSF PSFIMAGE",
    "science": "SCI SCIENCE IMAGE DATA",
    "other": "CTX CON AREA WMAP SEG SEGM SEGMENTATION SKY BKG BACKGROUND EXP NEXP EXPTIME EXPOSURE COVERAGE MODEL "
    "RESIDUAL CHI CHI2 POISSON RNOISE FLAT D2IMARR WCSDVARR CPDIS",
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}
_EXTNAME = re.compile(rf"(?:(?P<stem>.+)[_\-. ])?(?P<kind>{'|'.join(_KIND_OF)})[_\-. ]?\d*")
_KEYWORDS = ("IMAGETYP", "IMTYPE", "IMGTYPE", "EXTTYPE", "HDUTYPE", "DATATYPE")
_UTYPES = {"StdDevUncertainty": "std", "VarianceUncertainty": "var", "InverseVariance": "ivar"}
_HDUCLAS2 = {"ERROR": "std", "QUALITY": "mask", "DATA": "science"}
_HDUCLAS3 = {"RMSE": "std", "MSE": "var", "INVMSE": "ivar"}

UNCERTAINTIES = ("std", "var", "ivar")


@dataclass(frozen=True)
class Role:
    """What an HDU is, and the name or band before it (``"g"`` of ``g_IVAR``)."""

    kind: str
    stem: str = ""


def role_of(hdu: Hdu) -> Role:
    """What an HDU says that it is; ``"unknown"`` where it does not say."""
    header = hdu.header
    match = _EXTNAME.fullmatch(hdu.name.upper())
    stem = (match["stem"] or "") if match else ""
    if match and match["kind"] == "FLAGS" and header_text(header, "AGFLAGS"):
        return Role("flags", stem)  # as `write_image` writes them: to be read, and no mask
    if (kind := _UTYPES.get(header_text(header, "UTYPE"))) is not None:
        return Role(kind, stem)
    for key, kinds in (("HDUCLAS3", _HDUCLAS3), ("HDUCLAS2", _HDUCLAS2)):
        if (kind := kinds.get(header_text(header, key).upper())) is not None:
            return Role(kind, stem)
    if match:
        return Role(_KIND_OF[match["kind"]], stem)
    for key in _KEYWORDS:
        kind = _KIND_OF.get(re.sub(r"[^A-Z0-9]", "", header_text(header, key).upper()))
        if kind not in (None, "other"):  # 'flat' and 'sky' name exposures, which are images
            return Role(kind)
    return Role("unknown")


def kind_in_name(name) -> str | None:
    """The kind of uncertainty that a file's name gives away: ``G265911sigma.fits``, ``coadd-invvar-r.fits.gz``."""
    words = re.findall(r"[A-Z]+", re.sub(r"([a-z\d])([A-Z])", r"\1_\2", name).upper())
    endings = {"ivar": ("INVVAR", "IVAR"), "std": ("SIGMA", "RMS", "ERR", "ERROR", "STD"), "var": ("VAR",)}
    for kind, ends in endings.items():
        if any(word.endswith(ends) for word in words):
            return kind
    return "ivar" if any(_KIND_OF.get(word) == "weight" for word in words) else None


def band_of(hdu: Hdu) -> str:
    """The band that an HDU's own header names, or ``""``."""
    return header_text(hdu.header, "BAND") or header_text(hdu.header, "FILTER")


def extension_name(band: str) -> str:
    """EXTNAME for a band: its own name, but of a number not that alone, by which astropy and DS9 find HDUs."""
    band = band.strip()
    return f"BAND{band}" if band.isdecimal() else band


def science(hdus) -> list[Hdu]:
    """Those of the image HDUs that are images of the sky: the ones that say so, else those that say nothing else."""
    images = [hdu for hdu in hdus if hdu.is_image]
    written = header_text(hdus[0].header, "AGBANDS").split(",") if hdus and not hdus[0].is_image else []
    names = {name.upper() for band in written for name in (band, extension_name(band))}
    named = [hdu for hdu in images if hdu.name.upper() in names]
    if len(named) == len(written) > 0:
        return named
    roles = {hdu.index: role_of(hdu).kind for hdu in images}
    explicit = [hdu for hdu in images if roles[hdu.index] == "science"]
    return explicit or [hdu for hdu in images if roles[hdu.index] == "unknown"] or images[:1]


def companion(hdus, image: Hdu, kinds) -> tuple[Hdu, str] | None:
    """The HDU that goes with an image, and its kind; the first of ``kinds`` that there is.

    A companion has the image's shape. Where a file holds several images, it stands behind its own, before the next;
    where it holds one, anywhere. What names another image or band is not taken. An HDU that is no image of the sky
    itself (a residual, a model) has those that bear its name.
    """
    images = [hdu.index for hdu in science(hdus)]
    later = [index for index in images if index > image.index]
    first = image.index if len(images) > 1 else -1
    last = later[0] if later else len(hdus) + image.index
    near = [hdu for hdu in hdus if first < hdu.index < last and hdu.index != image.index and hdu.is_image]
    if image.index not in images:
        near = [hdu for hdu in hdus if hdu.is_image and image.name and role_of(hdu).stem.upper() == image.name.upper()]
    for kind in kinds:
        for hdu in near:
            role = role_of(hdu)
            fits = kind == "psf" or hdu.shape in (image.shape, image.shape[-2:])
            if role.kind == kind and fits and _same_name(image, hdu, role):
                return hdu, kind
    return None


def _same_name(image, hdu, role):
    """Whether nothing in a companion's name, band or version points to another image."""
    if role.stem and role.stem.upper() not in (image.name.upper(), band_of(image).upper(), role_of(image).stem.upper()):
        return False
    bands = band_of(image), band_of(hdu)
    if all(bands) and bands[0] != bands[1]:
        return False
    versions = [header_value(item.header, "EXTVER") for item in (image, hdu)]
    return None in versions or versions[0] == versions[1]
