"""One row: its window, the method, and what is kept of the result."""

from __future__ import annotations

import contextlib
import copy
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from astrogan.catalogs._contents import cut_image, layers_in, measured, placed
from astrogan.catalogs._flags import RowFlag
from astrogan.catalogs._geometry import Window, any_valid, first_part, padded
from astrogan.catalogs._windows import OF_FILES, Image, open_image
from astrogan.exceptions import AstroganError, ImageReadError, InputError, PSFError
from astrogan.image._quiet import recorded
from astrogan.image.tiling import _align, _halo, single_torch_thread

__all__ = ["Job", "Stamp", "failed_stamp", "settled", "stamps_of"]

# Pixels of context of a method that does not say how many it needs.
_CONTEXT = 32


@dataclass(frozen=True)
class Job:
    """What is done to every row; it goes to the workers as it is.

    Attributes
    ----------
    operator : `~astrogan.operators.base.Operator`
    image
        Of all rows, or `None` where each has its own.
    reading : dict
        Keywords of the operator's call.
    psf
        Of the images; `None`: what the operator and the images say.
    size : tuple of int or None
        (y, x) of a stamp in pixels of the image; `None`: whole images.
    margin, align : int
        Pixels of context on each side, and what windows begin at multiples of.
    on_sky : bool
        Whether places are on the sky.
    seed : int
    aperture : float or None
        Radius in pixels of the image.
    diagnose : bool
    whole_header : bool
        Whether stamps carry the header of their image.
    uses_torch : bool
    """

    operator: Any
    image: Any = None
    reading: dict = field(default_factory=dict)
    psf: Any = None
    size: tuple[int, int] | None = None
    margin: int = 0
    align: int = 1
    on_sky: bool = False
    seed: int = 0
    aperture: float | None = None
    diagnose: bool = False
    whole_header: bool = False
    uses_torch: bool = False

    @property
    def same_grid(self):
        """Whether results have the pixels of the image."""
        return self.operator.role == "restorer"

    def replace(self, **changes):
        """A copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Stamp:
    """What came of a row.

    Attributes
    ----------
    row : `~astrogan.catalogs._rows.Row`
    record : dict
        Numbers and texts of the table.
    layers : dict of `numpy.ndarray`
        ``"DATA"`` and, where the result has them, ``"MASK"``, ``"UNCERT"`` and ``"FLAGS"``, (band, y, x); empty
        without a stamp.
    header : str
        WCS as FITS text.
    uncertainty : str
        Its class.
    result : object
        What the operator returned, cut, where it is to be written as it is.
    """

    row: Any
    record: dict
    layers: dict = field(default_factory=dict)
    header: str = ""
    uncertainty: str = ""
    result: Any = None
    error: Exception | None = None


def failed_stamp(row, flag, error=None):
    """A row without a stamp."""
    text = "" if error is None else " ".join(f"{type(error).__name__}: {error}".split())[:500]
    return Stamp(row, {"flags": int(flag), "error": text}, error=error if isinstance(error, Exception) else None)


def stamps_of(job, rows):
    """Work on rows, in their order; an image that several rows in a row share is opened once.

    Parameters
    ----------
    job : Job
    rows : sequence of `~astrogan.catalogs._rows.Row`

    Yields
    ------
    Stamp
    """
    job = job.replace(operator=_of_one_thread(job.operator))
    if job.uses_torch:
        import torch  # noqa: F401 - before its threads are counted

    # The sum of many numbers depends on how many threads share it, so it is one, whoever works.
    with contextlib.ExitStack() as stack, single_torch_thread():
        name, maker = None, None
        for row in rows:
            if maker is None or row.image != name:
                stack.close()
                name, maker = row.image, _maker(job, row, stack)
            yield _refused(row, maker) if isinstance(maker, Exception) else maker.stamp(row)


def _refused(row, error):
    """A row whose image cannot be used."""
    of_file = isinstance(error, ImageReadError | OSError)
    return failed_stamp(row, RowFlag.UNREADABLE if of_file else RowFlag.FAILED, error)


def settled(job, rows, errors, most):
    """The job with the margin that the method needs, and the first row whose window could be looked at.

    Parameters
    ----------
    job : Job
    rows : sequence of `~astrogan.catalogs._rows.Row`
    errors : list
        What goes wrong is added.
    most : int
        As many errors are enough.

    Returns
    -------
    job : Job
    start : int
        ``len(rows)`` where there is no such row.
    """
    if job.size is None:
        return job.replace(margin=0), 0
    auto = job.margin == "auto"
    trial = job.replace(operator=_of_one_thread(job.operator), margin=_CONTEXT if auto else job.margin)
    with contextlib.ExitStack() as stack, recorded():
        name, maker = None, None
        for start, row in enumerate(rows):
            if maker is None or row.image != name:
                stack.close()
                name, maker = row.image, _maker(trial, row, stack)
            try:
                if isinstance(maker, Exception):
                    raise maker
                needs = maker.needs(row)
            except (AstroganError, OSError) as error:
                errors.append(error)
                if len(errors) >= most:
                    break
                continue
            if needs is not None:
                margin, align = needs
                return trial.replace(operator=job.operator, margin=margin if auto else job.margin, align=align), start
    return job, len(rows)


def _of_one_thread(operator):
    """A copy that neither starts threads nor remembers what it has warned of: rows must not know of each other."""
    operator = copy.copy(operator)
    for name, value in (("workers", 1), ("progress", None)):
        if hasattr(operator, name):
            setattr(operator, name, value)
    return operator


def _maker(job, row, stack):
    """The `_Maker` of an image, or why there is none."""
    reading = {name: job.reading[name] for name in OF_FILES if name in job.reading}
    try:
        return _Maker(job, stack.enter_context(open_image(job.image if row.image is None else row.image, reading)))
    except (AstroganError, OSError) as error:
        return error


class _Maker:
    """Stamps of one open image."""

    def __init__(self, job: Job, image: Image):
        self.job, self.image = job, image
        self.calling = {name: value for name, value in job.reading.items() if name not in OF_FILES}
        if job.same_grid and not job.whole_header and image.pixel_scale is not None:
            self.calling.setdefault("pixel_scale", image.pixel_scale)
        self.model = _psf_model(job, image)
        if job.size is not None and self.model is None and _cannot_do_without(job.operator):
            raise PSFError(
                f"{job.operator.backend_name} needs a PSF, which neither the operator nor the image has, and a stamp "
                "holds too few stars to build one: give psf= (--psf), a FWHM such as 1.2*u.arcsec, a kernel, or a model"
            )

    def stamp(self, row):
        """The `Stamp` of a row; errors become flags."""
        try:
            window = self._window(row)
        except (AstroganError, ValueError) as error:
            return failed_stamp(row, RowFlag.FAILED, error)
        record = {} if window is None else window.record()
        if window is None:
            return failed_stamp(row, RowFlag.NO_POSITION)
        if window.is_outside:
            return _with(failed_stamp(row, RowFlag.OUTSIDE), record)
        try:
            image = self._read(window)
        except (AstroganError, OSError) as error:
            return _with(_refused(row, error), record)
        if not any_valid(image, window):
            return _with(failed_stamp(row, RowFlag.NO_VALID_PIXEL), record)
        try:
            return self._worked(row, window, image, record)
        except (AstroganError, ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
            return _with(failed_stamp(row, RowFlag.FAILED, error), record)

    # ---- where -------------------------------------------------------------------------------------------------------

    def _window(self, row):
        if row.place is None:
            return Window.whole(self.image.shape)
        x, y = self._pixel(row.place)
        if not (math.isfinite(x) and math.isfinite(y)):
            return None
        return Window.around(x, y, self.job.size, self.image.shape, self.job.margin, self.job.align)

    def _pixel(self, place):
        if not self.job.on_sky or not all(map(math.isfinite, place)):
            return place if all(map(math.isfinite, place)) else (math.nan, math.nan)
        if self.image.wcs is None:
            raise InputError("positions are on the sky and the image has no celestial WCS; give pixels, xy=")
        from astropy import units as u
        from astropy.coordinates import SkyCoord
        from astropy.wcs.utils import skycoord_to_pixel, wcs_to_celestial_frame

        wcs = self.image.wcs
        if wcs_to_celestial_frame(wcs).name == "icrs":
            pair = place if wcs.wcs.lng == 0 else place[::-1]
            x, y = wcs.all_world2pix(*([value] for value in pair), 0, quiet=True)
        else:
            x, y = skycoord_to_pixel(SkyCoord(*place, unit=u.deg), wcs)
        return float(np.ravel(x)[0]), float(np.ravel(y)[0])

    def needs(self, row):
        """Pixels of context, and what windows begin at multiples of; `None` where the row cannot tell."""
        operator = self.job.operator
        if not self.job.same_grid:
            return _CONTEXT + -_CONTEXT % (align := int(getattr(operator.backend, "rebin", 1))), align
        window = self._window(row)
        if window is None or window.is_outside:
            return None
        image = self._read(window)
        if not any_valid(image, window):
            return None
        which = {f"needs_{what}": operator._needs(what) for what in ("psf", "variance")}
        observation = operator._read(image, self.calling, psf=self.model, **which).observation
        halo = _halo(operator.backend_name, operator.backend, observation)
        return (halo if halo >= 0 else _CONTEXT), _align(operator.backend_name, operator.backend, observation)

    # ---- the work ----------------------------------------------------------------------------------------------------

    def _read(self, window):
        light = self.job.same_grid and not self.job.whole_header
        image = self.image.read(*window.read, wcs=not light)
        return image if self.job.same_grid else padded(image, window)

    def _worked(self, row, window, image, record):
        job, operator = self.job, self.job.operator
        operator._warned = operator._warned_of_range = False
        psf = self.model
        if psf is not None and psf.varies:
            psf = type(psf)(psf.at(*window.centre))
        rng = np.random.default_rng(np.random.SeedSequence(job.seed, spawn_key=(row.index,)))
        result = operator(image, psf=psf, rng=rng, **self.calling)
        cut = window.cut_of(image, result, job.same_grid)
        layers = layers_in(result, cut)
        record |= measured(job, window, image, result, layers, cut)
        if job.diagnose:
            report = operator.diagnose(image, result, psf=psf, rng=0, **self.calling)
            record["reduced_chi2"] = float(report.reduced_chi2)
        layers = {name: placed(layer, cut, name) for name, layer in layers.items()}
        kept = cut_image(result, cut) if job.whole_header else None
        kind = type(first_part(result).uncertainty).__name__ if "UNCERT" in layers else ""
        return Stamp(row, record, layers, self._header(window, result, cut), kind, kept)

    def _header(self, window, result, cut):
        if self.job.whole_header:
            return ""
        if self.job.same_grid:
            return self.image.header_at(window.stamp[1].start, window.stamp[0].start)
        from astrogan.image.wcs import celestial, crop_wcs

        wcs = celestial(getattr(first_part(result).wcs, "low_level_wcs", first_part(result).wcs))
        return "" if wcs is None else _text(crop_wcs(wcs, cut.first[1], cut.first[0]))


def _text(wcs):
    from astrogan.image._headers import quiet

    with quiet():
        return wcs.to_header(relax=True).tostring(endcard=False, padding=False)


def _psf_model(job, image):
    """The PSF over the whole image, so that a stamp gets the one at its place; `None` where nobody knows it."""
    from astrogan.image.psf import as_psf, psf_from_header

    own = [getattr(template, "psf", None) for template in image.templates]
    psf = job.psf
    if psf is None and job.operator.role in ("restorer", "translator"):
        psf = job.operator.psf
    if psf is None and all(item is not None for item in own):
        psf = own[0] if len(own) == 1 else own
    scale = job.reading.get("pixel_scale", image.pixel_scale)
    if psf is None:
        models = [psf_from_header(template.meta, pixel_scale=scale) for template in image.templates]
        if any(model is None for model in models):
            return None
        psf = models[0] if len(models) == 1 else models
    with recorded():  # said when the operator uses it
        return as_psf(psf, n_bands=image.n_bands, pixel_scale=scale, shape=image.shape)


def _cannot_do_without(operator):
    return operator._needs("psf") and getattr(operator.backend, "psf_default", None) is None


def _with(stamp, record):
    return replace(stamp, record=record | stamp.record)
