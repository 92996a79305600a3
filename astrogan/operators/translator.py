"""`~astrogan.Translator`: an image as another survey, or another image's instrument, would have seen it."""

from __future__ import annotations

import numbers
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from astrogan.api import Target
from astrogan.exceptions import InputError, PSFError, PSFWarning, UnitError, WCSError
from astrogan.image._arguments import positive_arcsec
from astrogan.image.finish import finish
from astrogan.image.prepare import prepare
from astrogan.image.provenance import without_stale_keywords
from astrogan.image.wcs import (
    celestial,
    local_scale,
    pixel_corners,
    pixel_mapping,
    replace_celestial,
    rescale_wcs,
    wcs_from_header,
)
from astrogan.operators._target_noise import target_model
from astrogan.operators.base import Operator, as_generator

__all__ = ["TargetSpec", "Translator"]


_MOST_PIXELS = 2**30
"""Of a target: as many as are read of a file."""


@dataclass(frozen=True)
class TargetSpec:
    """What a translated image is to look like. Whatever is left out stays as the image has it.

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS`, optional
        The grid on the sky. It needs a size: ``shape``, or its own ``array_shape``.
    pixel_scale : float or `~astropy.units.Quantity`, optional
        Arcsec per pixel, for a grid with the image's centre and orientation. Without ``wcs`` only.
    shape : tuple of int, optional
        (y, x) of the result. Default: what covers the image.
    psf : optional
        In any form that `~astrogan.image.psf.as_psf` takes, on the target's pixels; a dict is looked up by band.
    noise : float, `~astropy.units.Quantity`, sequence or dict, optional
        Standard deviation of the background in a pixel of the target, for all bands, one per band, or by band; plain
        numbers are in the image's unit.
    noise_model : noise backend, optional
        What the noise looks like (``list_backends("noise")``), e.g. a fitted
        `~astrogan.backends.classic.correlated_noise.CorrelatedNoise`; ``noise`` says how strong it is. A dict is looked
        up by band. Default: white.
    noise_slope : float, `~astropy.units.Quantity`, sequence or dict, optional
        How the variance grows with the flux in a pixel (1 / gain, photon noise), in a unit of flux.
    name : str, optional
        Of the survey; for provenance, and for methods that know pairs of surveys.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astrogan.operators.translator import TargetSpec
    >>> TargetSpec(pixel_scale=0.396, psf=1.32 * u.arcsec, noise=0.028 * u.Unit("nmgy"), name="SDSS r")
    TargetSpec(pixel_scale=0.396, psf=<Quantity 1.32 arcsec>, noise=<Quantity 0.028 nmgy>, name='SDSS r')
    """

    wcs: Any = None
    pixel_scale: Any = None
    shape: tuple[int, int] | None = None
    psf: Any = None
    noise: Any = None
    name: str = ""
    noise_model: Any = None
    noise_slope: Any = None

    def __post_init__(self):
        for name in ("psf", "noise", "noise_model", "noise_slope"):
            if isinstance(getattr(self, name), Mapping) and not getattr(self, name):
                raise InputError(f"{name}={getattr(self, name)!r} names no band; give one a band, or None")
        models = self.noise_model.values() if isinstance(self.noise_model, Mapping) else [self.noise_model]
        for model in models:
            if model is not None and not hasattr(model, "sample"):
                raise InputError(f"noise_model={model!r} must have a method sample, e.g. CorrelatedNoise.fit(sky)")
        for name in ("noise_model", "noise_slope"):
            if self.noise is None and getattr(self, name) is not None:
                raise InputError(f"{name}={getattr(self, name)!r} needs noise=, the background's standard deviation")
        if self.wcs is not None and self.pixel_scale is not None:
            raise InputError(f"pixel_scale={self.pixel_scale!r} must be None when wcs is given; the WCS has its own")
        if self.wcs is not None and celestial(self.wcs) is None:
            raise WCSError("wcs of the target has no celestial axes; give a celestial one, or pixel_scale=")
        if self.shape is not None:
            shape = tuple(self.shape)[-2:] if np.iterable(self.shape) else ()
            if len(shape) != 2 or not all(isinstance(n, int | np.integer) and n > 0 for n in shape):
                raise InputError(f"shape={self.shape!r} must be two positive integers, (y, x)")
            object.__setattr__(self, "shape", tuple(int(n) for n in shape))
        if self.pixel_scale is not None:
            object.__setattr__(self, "pixel_scale", positive_arcsec(self.pixel_scale, "pixel_scale"))

    def __repr__(self):
        fields = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        return f"TargetSpec({', '.join(f'{name}={_short(v)}' for name, v in fields if v is not None and str(v) != '')})"


class Translator(Operator):
    """Translate images from one survey to another: pixels, PSF and noise.

    Parameters
    ----------
    backend : str or object, optional
        A name from ``list_backends("translator")``, ``"distribution:name"``, or an instance.
    target : str, path, `~astropy.wcs.WCS`, tuple, `~astropy.nddata.NDData` or TargetSpec
        - the name of a survey (``"sdss"``, ``"cfhtls"``, ...; `astrogan.simulate.surveys`), or a survey object: its
          pixel scale, PSF and noise by band;
        - an image or its path: its grid, PSF (its own, its header's, or from its stars) and background noise;
        - a WCS with its size (``array_shape``), a FITS header, or ``(wcs, shape)``: that grid, the image's own PSF;
        - a `~astrogan.operators.translator.TargetSpec`: any of these by hand.
    psf : optional
        PSF of the images, in any form that `~astrogan.image.psf.as_psf` takes. Default: the image's own, its
        header's, or, where the target has a PSF, one built from its stars.
    bands : str or sequence of str, optional
        Names of the images' bands in the target, where they cannot be told from the image, e.g. ``"r"``.
    zero_point : float, sequence or dict, optional
        AB magnitude of one unit of the images' flux, by band where it differs; needed for a target whose noise is
        known in physical units where the images' unit does not say.
    **options
        For the backend, e.g. ``resampling="exact"``.

    Raises
    ------
    InputError
        If the target cannot be understood, or an option is unknown or out of range.

    Notes
    -----
    A target that is only a pixel scale (a survey) gives a grid with the image's centre and orientation that covers
    the image. Between two grids with WCSs every output pixel goes through the sky, so that rotation, reflection and
    distortion need no thought. Fluxes are per pixel and are multiplied by the ratio of the pixels' areas, except
    where the unit says that they are surface brightnesses (per steradian or square arcsec).

    Pixels that are not wholly inside the image, or in which invalid ones count, are masked. Where the target is
    sharper than the image, see the backend's documentation for what it does about the PSF; a network that sharpens
    draws on its prior.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astrogan import Translator
    >>> from astrogan.operators.translator import TargetSpec
    >>> image = CCDData(np.pad(np.ones((1, 1)), 30), unit="nmgy")
    >>> translate = Translator(target=TargetSpec(pixel_scale=0.4, psf=4.0), psf=3.0)
    >>> translated = translate(image, pixel_scale=0.2)
    >>> translated.shape, round(float(translated.data.sum()), 3)
    ((31, 31), 1.0)
    """

    role = "translator"
    operation = "translate"

    def __init__(self, backend="surveynet", *, target=None, psf=None, bands=None, zero_point=None, **options):
        if target is None:
            raise InputError(
                "target=None: say what the result is to look like, e.g. target='sdss', a Survey, or an image to match; "
                f"the first argument, {backend!r}, is the backend"
            )
        super().__init__(backend, **options)
        self.target = _spec_of(target)
        self.psf = psf
        self.bands = (bands,) if isinstance(bands, str) else None if bands is None else tuple(map(str, bands))
        self.zero_point = zero_point

    def __call__(self, image, *, psf=None, n_samples=1, rng=0, **reading):
        """Translate one image.

        Parameters
        ----------
        image : path, `~astropy.nddata.NDData`, list or dict
            2-D, or 3-D with axes (band, y, x), or equal-shaped 2-D ones, one a band. Never changed.
        psf : optional
            Overrides the operator's.
        n_samples : int
            Number of results, each with noise (or with what else the backend draws) of its own.
        rng : int or `numpy.random.Generator`
            For that noise.
        **reading
            ``unit``, ``hdu``, ``uncertainty``, ``uncertainty_type``, ``mask``, ``saturation``, ``pixel_scale``,
            ``max_pixels``: see `~astrogan.image.prepare.prepare`.

        Returns
        -------
        Same form as ``image`` (a path gives `~astropy.nddata.CCDData`), or a list of ``n_samples`` of them
            In the image's unit, on the target's grid and with its WCS. Its uncertainty is what the method gives, or
            `None`.

        Raises
        ------
        WCSError
            If the target is a WCS and the image has none, or they do not overlap.
        UnitError
            If the target's noise does not convert to the image's unit.
        InputError, PSFError, ImageReadError
            If the image cannot be used; the message names the argument, its value and the remedy.
        BackendError
            If the backend breaks its contract.
        """
        if isinstance(n_samples, bool) or not isinstance(n_samples, int | np.integer) or n_samples < 1:
            raise InputError(f"n_samples={n_samples!r} must be a positive integer, e.g. 1")
        seed, generator = rng, as_generator(rng)
        prepared = self._read(image, reading, **self._needed(psf))
        self._check_size(prepared.observation.shape)
        prepared, target, wcs = self._aimed(prepared, prepared.observation.shape[1:])
        if n_samples == 1:
            return self._one(prepared, target, wcs, generator, seed)
        return [self._one(prepared, target, wcs, child, seed) for child in generator.spawn(int(n_samples))]

    def process(
        self,
        image,
        output,
        *,
        psf=None,
        rng=0,
        tile=None,
        workers=None,
        client=None,
        overwrite=False,
        resume=True,
        progress=None,
        **reading,
    ):
        """Translate an image larger than memory, from file to file.

        Parameters
        ----------
        image : path, list or dict of paths
            A FITS file, plain or compressed by tiles, or a Zarr array; or one file a band. Windows of it are read, one
            for each worker at a time.
        output : path
            The FITS file to write, on the target's grid.
        psf : optional
            Overrides the operator's.
        rng : int
            Seed of the noise.
        tile : int, optional
            Edge in pixels of the output of what a worker is given at a time (2048). It changes how work is dealt out,
            and not one bit of the result.
        workers : int, optional
            Threads. Default: as many as the process may use cores.
        client : `distributed.Client` or `concurrent.futures.Executor`, optional
            Who does the work instead; the workers must see the input under the same path.
        overwrite : bool, optional
            Replace an existing output.
        resume : bool, optional
            Go on from what an earlier call left in ``OUTPUT.partial`` when it was killed. If False it is thrown away.
        progress : callable, optional
            ``progress(done, total)``, called as cells of the output finish.
        **reading
            ``unit``, ``hdu``, ``uncertainty``, ``uncertainty_type``, ``mask``, ``saturation``, ``pixel_scale``, as in a
            call; uncertainty and mask are HDUs or files.

        Returns
        -------
        `pathlib.Path`
            The output: data, mask, the target's PSF where it is reached and, where the method gives one, uncertainty.

        Raises
        ------
        InputError, UnitError, PSFError, WCSError, ImageReadError
            If the image cannot be used, does not overlap with the target, is larger than 2048 pixels and the method
            needs the whole of it, another process writes the same output, or a partial output is of another input,
            target, method or seed.
        ImageWriteError
            If the output exists, or cannot be written.
        BackendError
            If the backend breaks its contract.

        Notes
        -----
        The target's grid is cut into cells of 1024 x 1024 pixels. Each needs the part of the image that it lies on,
        through both WCSs, with as much around it as the method looks at; where there is none, the result is masked. The
        cells depend on the target and the method only. What belongs to the whole image (kernels, sky, noise) is
        settled once: see `astrogan.Restorer.process` for where it is measured. The result is that of a call to single
        precision; learned methods differ by what lies beyond their reach, some 1e-5 of the brightest pixel. Noise is
        drawn from the seed and the cell's number, so it is another than that of a call where there is more than one
        cell; that of models such as `~astrogan.backends.classic.correlated_noise.CorrelatedNoise` runs on across the
        cells' borders.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from astropy.nddata import CCDData
        >>> from astrogan import Translator, read_image, write_image
        >>> from astrogan.operators.translator import TargetSpec
        >>> translator = Translator("psf-matching", target=TargetSpec(pixel_scale=0.4, psf=4.0), psf=3.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, result = Path(folder) / "in.fits", Path(folder) / "out.fits"
        ...     write_image(CCDData(np.ones((100, 100)), unit="nmgy"), source)
        ...     _ = translator.process(source, result, pixel_scale=0.2)
        ...     read_image(result).shape
        (50, 50)
        """
        from astrogan.operators._mosaic_translate import translate_mosaic

        return translate_mosaic(
            self,
            image,
            output,
            psf=psf,
            rng=rng,
            tile=tile,
            workers=workers,
            client=client,
            overwrite=overwrite,
            resume=resume,
            progress=progress,
            **reading,
        )

    def _needed(self, psf):
        """What is asked for when an image is read."""
        return {
            "psf": self.psf if psf is None else psf,
            "needs_psf": self._needs("psf") or (self.target.psf is not None and self._uses("match")),
            "needs_variance": self._needs("variance") or (self.target.noise is not None and self._uses("noise")),
        }

    def _aimed(self, prepared, shape_in, most=_MOST_PIXELS):
        """The image with the target's names of its bands, its target, and the result's WCS."""
        if not prepared.had_uncertainty:
            prepared = prepared.replace(observation=_constant_is_noise_free(prepared.observation))
        names = self._band_names(prepared)
        prepared = prepared.replace(observation=prepared.observation.replace(bands=names))
        try:
            target, wcs = _target(self.target, prepared, names, self.zero_point, shape_in, most)
        except UnitError:
            if self.options.get("noise") is not False:
                raise
            quiet = replace(self.target, noise=None, noise_slope=None)  # its noise is not asked for
            target, wcs = _target(quiet, prepared, names, self.zero_point, shape_in, most)
        if prepared.psf is not None and prepared.psf.varies and target.psf is not None and self._uses("match"):
            warnings.warn(
                "the image's PSF varies over the field; it is matched as it is at the centre", PSFWarning, stacklevel=3
            )
        return prepared, target, wcs

    def _one(self, prepared, target, wcs, rng, seed):
        estimate = self._run(self.backend, prepared.observation, target, rng=rng)
        self._check_estimate(estimate, (len(prepared.observation.data), *target.shape))
        self._warn_out_of_range(prepared.observation, dict(estimate.info or {}))
        had = prepared.had_uncertainty
        # A variance that was estimated here only served to find how much noise to add.
        variance = estimate.variance if had else None
        self._warn_no_uncertainty(had, variance)
        data, variance = _per_pixel(prepared.unit, target, estimate.data, variance)
        mask = np.zeros(np.shape(data), bool) if estimate.flags is None else estimate.flags
        return self._finished(prepared, target, wcs, (data, variance, mask), dict(estimate.info or {}), seed)

    def _finished(self, prepared, target, wcs, layers, info, seed):
        """A result with the target's grid and the header that goes with it."""
        data, variance, mask = layers
        matched = target.psf is not None and self._uses("match") and not info.get("unmatched")
        notes = self._notes(seed, info) | {"AGTARGET": self.target.name or "grid given"}
        if target.pixel_scale is not None and wcs is None:
            notes["PIXSCALE"] = float(target.pixel_scale)
        true = {"widths": matched, "regridded": True, "pixel_scale": target.pixel_scale}
        return finish(
            prepared.replace(meta=tuple(without_stale_keywords(meta, **true) for meta in prepared.meta)),
            data,
            variance=variance,
            mask=mask,
            wcs=wcs,
            psf=target.psf if matched else None,
            operation=self.operation,
            notes=notes,
        )

    def _uses(self, option):
        """Whether the backend's switch of that name is on; backends without one are taken to use what they get."""
        return bool(getattr(self.backend, option, True))

    def _band_names(self, prepared):
        bands = prepared.observation.bands if self.bands is None else self.bands
        if len(bands) != len(prepared.observation.data):
            raise InputError(
                f"bands={self.bands!r} names {len(bands)} bands; the image has {len(prepared.observation.data)}"
            )
        return bands


# ------------------------------------------------------------------------------------------------ what the target is


def _spec_of(target):
    """Any form of target as a `TargetSpec`."""
    from astropy.io.fits import Header
    from astropy.nddata import NDData
    from astropy.wcs.wcsapi import BaseHighLevelWCS, BaseLowLevelWCS

    if isinstance(target, TargetSpec):
        return target
    if isinstance(target, str) and not _looks_like_path(target):
        from astrogan.simulate.surveys import get_survey

        return _spec_of_survey(get_survey(target))
    if isinstance(target, Header):
        wcs = wcs_from_header(target, naxis=2)
        if wcs is None:
            raise WCSError("target is a header without a celestial WCS")
        return _sized(wcs, None)
    if isinstance(target, BaseLowLevelWCS | BaseHighLevelWCS):
        return _sized(target, None)
    if isinstance(target, tuple) and len(target) == 2 and isinstance(target[0], BaseLowLevelWCS | BaseHighLevelWCS):
        return _sized(*target)
    if isinstance(target, str | os.PathLike | NDData | list | tuple | Mapping):
        return _spec_of_image(target)
    if hasattr(target, "pixel_scale") and hasattr(target, "bands"):
        return _spec_of_survey(target)
    raise InputError(
        f"target={target!r} is not understood; give a survey's name, a WCS with its shape, an image or its path, "
        "or a TargetSpec"
    )


def _looks_like_path(text):
    return os.path.exists(text) or os.sep in text or re.search(r"\.(fits?|fz|gz|bz2|fit\.fz)$", text.lower())


def _sized(wcs, shape):
    sky = celestial(wcs)
    if sky is None:
        raise WCSError("target is a WCS without celestial axes; give a celestial one, or TargetSpec(pixel_scale=...)")
    shape = sky.array_shape if shape is None else shape
    if shape is None or None in tuple(shape):
        raise InputError("target is a WCS without a size; give (wcs, (y, x)), or set wcs.pixel_shape = (x, y)")
    return TargetSpec(wcs=sky, shape=tuple(shape))


def _spec_of_image(image):
    """Grid, PSF and background noise of a reference image."""
    try:
        prepared = prepare(image, needs_psf=True, needs_variance=True)
    except PSFError:
        prepared = prepare(image, needs_variance=True)
    except UnitError as error:  # unit= (--unit) is that of the image, and does not reach this file
        raise UnitError(f"target: {error}; for a target: target=read_image(path, unit='adu')") from error
    observation = prepared.observation
    noise = [
        float(np.sqrt(np.median(v[good]))) * prepared.scale
        for v, good in zip(observation.variance, observation.valid, strict=True)
    ]
    name = os.fspath(image) if isinstance(image, str | os.PathLike) else "image"
    return TargetSpec(
        wcs=prepared.celestial,
        pixel_scale=observation.pixel_scale if prepared.celestial is None else None,
        shape=observation.shape[1:],
        psf=prepared.psf,
        noise=noise if prepared.unit is None else noise * prepared.unit,
        name=os.path.basename(name),
    )


def _spec_of_survey(survey):
    """Pixel scale, PSF, blank-sky noise and photon noise of every filter of a survey."""
    from astropy import units as u

    filters = {band: survey[band] for band in survey.bands}
    nanomaggy = u.Unit("nmgy")
    models = {band: f.noise_model for band, f in filters.items() if f.noise_model is not None}
    return TargetSpec(
        pixel_scale=survey.pixel_scale,
        psf={band: f.kernel() for band, f in filters.items()},
        noise={band: f.sigma * nanomaggy for band, f in filters.items()},
        noise_model=models if len(models) == len(filters) else None,
        noise_slope={band: nanomaggy / f.electrons_per_nanomaggy for band, f in filters.items()},
        name=survey.name,
    )


# ----------------------------------------------------------------------------------- the target, for one image


def _target(spec, prepared, bands, zero_point, shape_in, most):
    """The backend's `~astrogan.api.Target`, for an image of that shape, and the result's WCS."""
    observation = prepared.observation
    if spec.wcs is not None:
        shape, to_input, to_output, sky = _through_the_sky(spec, prepared.celestial, most)
        middle = (shape[1] - 1) / 2, (shape[0] - 1) / 2
        scale = local_scale(sky, *middle)
        ratio = (scale / _scale_at(prepared.celestial, *to_input(*middle), observation.pixel_scale)) ** 2
    else:
        factor, scale = _factor(spec, observation)
        shape = spec.shape or tuple(max(1, int(np.ceil(n * factor - 1e-6))) for n in shape_in)
        to_input, to_output = _about_the_centre(factor, shape_in, shape)
        _check_size_of_target(shape, spec, most)
        sky = rescale_wcs(prepared.celestial, factor, shape_in, shape, anchor="centre")
        ratio = factor**-2
    target = Target(
        shape=shape,
        to_input=to_input,
        to_output=to_output,
        area_ratio=float(ratio),
        pixel_scale=scale,
        psf=_psf(spec.psf, bands, scale),
        noise=_noise(spec.noise, "noise", spec, prepared, bands, zero_point, scale, ratio),
        noise_slope=_noise(spec.noise_slope, "noise_slope", spec, prepared, bands, zero_point, scale, ratio),
        noise_model=target_model(spec.noise_model, bands, _key_of),
        name=spec.name,
        wcs_in=prepared.celestial,
        wcs_out=sky,
    )
    return target, replace_celestial(prepared.wcs, sky)


def _through_the_sky(spec, sky_in, most):
    if sky_in is None:
        raise WCSError(
            "image has no celestial WCS, and target is one; give the image its WCS, or "
            "TargetSpec(pixel_scale=...) to keep its centre and orientation"
        )
    sky = celestial(spec.wcs)
    shape = spec.shape or sky.array_shape
    if shape is None:
        raise InputError("target: its WCS has no size; give TargetSpec(wcs=..., shape=(y, x))")
    _check_size_of_target(shape, spec, most)
    sky.pixel_shape = shape[::-1]
    return shape, pixel_mapping(sky, sky_in), pixel_mapping(sky_in, sky), sky


def _check_size_of_target(shape, spec, most):
    if shape[0] * shape[1] > most:
        scale = "" if spec.pixel_scale is None else f" at pixel_scale={spec.pixel_scale:.6g} arcsec"
        raise InputError(
            f"target has {shape[0]} x {shape[1]} pixels{scale}, more than {most}; check its units, or give a "
            "smaller shape="
        )


def _scale_at(sky, x, y, default):
    scale = local_scale(sky, float(x), float(y)) if np.isfinite([x, y]).all() else np.nan
    return scale if np.isfinite(scale) else default


def _factor(spec, observation):
    """Pixel scale of the image over that of the target, and the latter."""
    if spec.pixel_scale is None:
        return 1.0, observation.pixel_scale
    if observation.pixel_scale is None:
        raise InputError("pixel_scale=None, and the image has no WCS; give its pixel_scale= in arcsec")
    return observation.pixel_scale / spec.pixel_scale, spec.pixel_scale


def _about_the_centre(factor, shape_in, shape):
    """Mappings between two grids with one centre and one orientation."""
    centre_in, centre = ((np.array(s[::-1]) - 1) / 2 for s in (shape_in, shape))

    def to_input(x, y):
        return tuple((np.asarray(p, float) - c) / factor + b for p, c, b in zip((x, y), centre, centre_in, strict=True))

    def to_output(x, y):
        return tuple((np.asarray(p, float) - b) * factor + c for p, c, b in zip((x, y), centre, centre_in, strict=True))

    return to_input, to_output


def _psf(psf, bands, scale):
    if psf is None:
        return None
    from astrogan.image.psf import as_psf

    if isinstance(psf, Mapping):
        psf = [psf[_key_of(band, psf, "psf")] for band in bands]
    return as_psf(psf, n_bands=len(bands), pixel_scale=scale).kernels


def _noise(noise, what, spec, prepared, bands, zero_point, scale, ratio):
    """The target's noise, or what else of it is a flux, in the observation's: (band,)."""
    if noise is None:
        return None
    if isinstance(noise, Mapping):
        noise = [noise[_key_of(band, noise, what)] for band in bands]
    elif np.ndim(noise) == 0:
        noise = [noise] * len(bands)
    if len(noise) != len(bands):
        raise InputError(f"{what} of the target has {len(noise)} values; the image has {len(bands)} bands")
    values = []
    for number, (value, band) in enumerate(zip(noise, bands, strict=True)):
        if hasattr(value, "unit"):
            value = _in_unit(value, prepared.unit, _of_band(zero_point, number, band), spec, scale)
        if not (isinstance(value, numbers.Real) and np.isfinite(value) and value >= 0):
            raise InputError(f"{what}={value!r} of the target must be a number, zero or positive")
        values.append(float(value))
    values = np.array(values) / prepared.scale
    # A backend reckons in flux a pixel; for surface brightnesses its flux is per area of an input pixel.
    return values * ratio if _is_surface_brightness(prepared.unit) else values


def _of_band(value, number, band):
    if isinstance(value, Mapping):
        return value[_key_of(band, value, "zero_point")]
    return value[number] if np.iterable(value) else value


def _in_unit(noise, unit, zero_point, spec, scale):
    """A noise with a unit as a number in the image's, through AB magnitudes where need be."""
    from astropy import units as u

    ab = u.zero_point_flux(3631 * u.Jy)
    if zero_point is not None:
        if not np.isfinite(zero_point):
            raise InputError(f"zero_point={zero_point!r} must be a magnitude, e.g. 22.5 for nanomaggies")
        flux = _converted(noise, u.Unit("nmgy"), ab)
        if flux is not None:
            return flux * 10 ** (0.4 * (zero_point - 22.5))
    if unit is not None:
        wanted = unit
        if _is_surface_brightness(unit) and scale is not None and not _is_surface_brightness(noise.unit):
            noise = noise / (scale * u.arcsec) ** 2
        value = _converted(noise, wanted, ab)
        if value is not None:
            return value
    raise UnitError(
        f"noise={noise} of target {spec.name!r} does not convert to the image's unit, {unit}; give zero_point=, the "
        "AB magnitude of one unit, or TargetSpec(noise=...) in the image's unit, or noise=False to add none"
    )


def _converted(quantity, unit, equivalencies):
    from astropy import units as u

    try:
        return float(quantity.to_value(unit, equivalencies))
    except u.UnitConversionError:
        return None


def _is_surface_brightness(unit):
    """Whether a unit is per solid angle."""
    from astropy import units as u

    if unit is None or not isinstance(unit, u.UnitBase):
        return False
    base = unit.decompose()
    return dict(zip(base.bases, base.powers, strict=True)).get(u.rad, 0) == -2


def _constant_is_noise_free(observation):
    """The estimated variance of a band without any scatter (an empty simulation) as good as zero."""
    if observation.variance is None:
        return observation
    flat = [np.ptp(plane[good]) == 0 for plane, good in zip(observation.data, observation.valid, strict=True)]
    if not any(flat):
        return observation
    variance = np.array(observation.variance)
    variance[flat] = np.finfo(np.float32).tiny
    return observation.replace(variance=variance)


def _per_pixel(unit, target, data, variance):
    """Fluxes a pixel of the output in the image's unit, which may be one of surface brightness."""
    if not _is_surface_brightness(unit):
        return data, variance
    area = _areas(target)
    return np.asarray(data) / area, None if variance is None else np.asarray(variance) / area**2


def _areas(target):
    """Area of each output pixel in input pixels; 1 where there is none."""
    area = pixel_corners(target.to_input, target.shape)[2]
    return np.where(np.isfinite(area) & (area > 0), area, 1.0)


def _key_of(band, mapping, what):
    """The target's name of a band: the same but for case, or the one word of ``r.MP9601`` that is one."""
    keys = {str(key): key for key in mapping}
    if band in keys:
        return keys[band]
    folded = {key.casefold(): key for key in keys}
    words = [word for word in re.split(r"[^A-Za-z0-9]+", band.casefold()) if word in folded]
    if band.casefold() in folded:
        words = [band.casefold()]
    if len(set(words)) == 1:
        return keys[folded[words[0]]]
    raise InputError(
        f"bands: the image's band {band!r} is none of those of the target's {what}: {', '.join(keys)}; say which it is "
        f"with bands=, e.g. bands={next(iter(keys))!r}"
    )


def _short(value):
    """``repr`` where it fits on a line."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"<{type(value).__name__}>"
