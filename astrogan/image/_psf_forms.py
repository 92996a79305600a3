"""Any form of a PSF to a `PSFModel`: `as_psf` and a function for each form."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field, replace
from numbers import Number
from pathlib import Path

import numpy as np

from astrogan.exceptions import ImageReadError, PSFError, PSFWarning
from astrogan.image._kernels import LARGEST, clean_kernel, gaussian_psf, padded_to, render_profile, trim_psf
from astrogan.image._psf_model import GridPSF, PSFModel


def as_psf(psf, *, n_bands=1, pixel_scale=None, shape=None, bands=None, recentre=True):
    """Bring a PSF in any form onto the pixel grid: normalised, odd, centred, checked.

    Parameters
    ----------
    psf : object
        - a number: FWHM in pixels of a Gaussian; a `~astropy.units.Quantity` in angle (needs ``pixel_scale``) or in
          pixels, or a string such as ``"1.3 arcsec"``; 1-D arrays of those, one per band;
        - an array, (k, k) for all bands or (band, k, k), or `~astropy.nddata.NDData` of it, or the path of a FITS or
          ``.npy`` file with it;
        - an astropy `~astropy.convolution.Kernel2D`;
        - a PSF model of photutils (``ImagePSF``, ``GriddedPSFModel``, ``CircularGaussianPSF``, ``MoffatPSF`` ...) or
          astropy's ``Gaussian2D``, ``Moffat2D`` and their like, with parameters in pixels or angles;
        - `GridPSF`: kernels at positions;
        - a callable ``psf(x, y)`` that returns the kernel (or one kernel per band) at a position;
        - a `PSFModel`;
        - a list, tuple or dict of any of these, one per band.
    n_bands : int, optional
        Number of bands of the image.
    pixel_scale : float or Quantity, optional
        Arcsec per pixel.
    shape : tuple of int, optional
        (y, x) of the image. Kernels larger than it are cut to it, with a `~astrogan.exceptions.PSFWarning`, if that
        loses less than 0.5 % of the flux. It also says where the centre of the field is.
    bands : sequence of str, optional
        Names of the image's bands: the keys to look up in a dict. Without it the dict's own order counts.
    recentre : bool, optional
        Move the windowed centroid of kernels onto the middle pixel (default). If False, odd arrays stay as they
        are, and even ones have their geometric centre moved by half a pixel onto the middle pixel of an odd array.

    Returns
    -------
    PSFModel

    Raises
    ------
    PSFError
        If the PSF has NaN, a sum that is not positive, too much negative flux, a wrong number of bands, is larger
        than the image, or is in no known form. The message says what to do.

    Warns
    -----
    PSFWarning
        If a kernel had an even edge or was moved by more than 0.05 pixels, was cut, or is more than 5 % negative.

    Notes
    -----
    Analytic profiles are integrated over the pixels; arrays, ``ImagePSF``, ``GriddedPSFModel`` and models with "PRF"
    in their name hold the pixel's response already. Sub-pixel moves are made in Fourier space; the windowed centroid is
    on the middle pixel to better than 0.01 pixels afterwards.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astrogan.image.psf import as_psf
    >>> psf = as_psf(1.2 * u.arcsec, pixel_scale=0.4, n_bands=3)
    >>> psf.kernels.shape
    (3, 15, 15)
    """
    if int(n_bands) != n_bands or n_bands < 1:
        raise PSFError(f"n_bands={n_bands!r} must be a positive integer")
    context = _Context(_scale(pixel_scale), shape, recentre)
    model = _from_collection(psf, int(n_bands), bands, context)
    if model is None:
        model = _from_one(psf, context, "psf")
    model = model.broadcast(int(n_bands))
    if shape is not None:
        model = _fitted(model, context)
    for kind in dict.fromkeys(kind for kind, _ in context.remarks):
        texts = [text for k, text in context.remarks if k == kind]
        more = f" (and {len(texts) - 1} more kernels like it)" if len(texts) > 1 else ""
        warnings.warn(texts[0] + more, PSFWarning, stacklevel=2)
    return model


@dataclass(frozen=True)
class _Context:
    """What the conversion of any one PSF needs to know."""

    pixel_scale: float | None
    shape: tuple[int, int] | None
    recentre: bool
    remarks: list = field(default_factory=list)

    @property
    def centre(self):
        """(x, y) of the field's centre, or None."""
        return None if self.shape is None else ((self.shape[-1] - 1) / 2, (self.shape[-2] - 1) / 2)

    def kernel(self, array, name):
        """One 2-D array as a clean kernel."""
        return clean_kernel(array, recentre=self.recentre, name=name, remarks=self.remarks)


def _scale(pixel_scale):
    """Arcsec per pixel as a float, or None."""
    if pixel_scale is None:
        return None
    if hasattr(pixel_scale, "unit"):
        from astropy import units as u

        for unit in (u.arcsec, u.arcsec / u.pix):
            if pixel_scale.unit.is_equivalent(unit):
                pixel_scale = pixel_scale.to_value(unit)
                break
    try:
        scale = float(pixel_scale)
    except TypeError:
        scale = np.nan
    if not np.isfinite(scale) or scale <= 0:
        raise PSFError(f"pixel_scale={pixel_scale!r} must be a positive number of arcsec per pixel")
    return scale


# ---- several bands


def _from_collection(psf, n_bands, bands, context):
    """The model of a list, tuple, dict or 1-D array with an item per band; None if it is none of those."""
    names, items = _items(psf, bands)
    if items is None:
        return None
    if len(items) not in (1, n_bands):
        raise PSFError(f"psf holds {len(items)} items, the image {n_bands} bands; give one PSF, or one per band")
    models = [_from_one(item, context, name) for name, item in zip(names, items, strict=True)]
    for name, model in zip(names, models, strict=True):
        if model.n_bands != 1:
            raise PSFError(f"{name} has {model.n_bands} bands; each item of a list or dict is the PSF of one band")
    return _stacked(models)


def _items(psf, bands):
    """Names for messages, and the PSF of each band; (None, None) if ``psf`` is no collection."""
    if isinstance(psf, dict):
        keys = list(psf)
        if bands is not None and len(keys) > 1:
            missing = [band for band in bands if band not in psf]
            if missing:
                raise PSFError(f"psf has no entry for {missing}; it has {keys}, the image's bands are {list(bands)}")
            keys = list(bands)
        return [f"psf[{key!r}]" for key in keys], [psf[key] for key in keys]
    if isinstance(psf, (list, tuple)) and not _is_nested_numbers(psf):
        return [f"psf[{i}]" for i in range(len(psf))], list(psf)
    if isinstance(psf, np.ndarray) and psf.ndim == 1:
        return [f"psf[{i}]" for i in range(len(psf))], [psf[i] for i in range(len(psf))]
    return None, None


def _is_nested_numbers(psf):
    """Whether a list is a kernel spelled out: [[0, 1, 0], [1, 4, 1], [0, 1, 0]]."""
    return (
        len(psf) > 0
        and all(isinstance(row, (list, tuple)) and len(row) == len(psf[0]) for row in psf)
        and all(isinstance(value, Number) for row in psf for value in row)
    )


def _stacked(models):
    """One-band models as one model of many bands, on the largest kernel."""
    size = max(model.size for model in models)
    kernels = np.concatenate([padded_to(model.kernels, size) for model in models])
    field = None
    if any(model.varies for model in models):

        def field(x, y):
            return np.concatenate([padded_to(model.at(x, y), size) for model in models])

    origins = list(dict.fromkeys(model.origin for model in models))
    free = all(model.size_is_free for model in models)
    return PSFModel(kernels, field=field, origin=", ".join(origins), size_is_free=free)


# ---- one PSF


def _from_one(psf, context, name):
    """The model of anything that is not a collection of bands."""
    if isinstance(psf, PSFModel):
        return psf
    if isinstance(psf, GridPSF):
        return _from_grid(psf, context, name)
    if isinstance(psf, (str, Path)):
        return _from_text(psf, context, name)
    if hasattr(psf, "unit") and hasattr(psf, "to_value"):
        return _from_quantity(psf, context, name)
    if _is_instance(psf, "astropy.convolution", "Kernel2D"):
        return _from_array(psf.array, context, name, "a kernel")
    if _is_instance(psf, "photutils.psf", "GriddedPSFModel"):
        return _from_gridded_model(psf, context, name)
    if _is_instance(psf, "astropy.modeling", "Model"):
        return _from_model(psf, context, name)
    if _is_instance(psf, "astropy.nddata", "NDDataBase"):
        return _from_nddata(psf, context, name)
    if isinstance(psf, Number) and not isinstance(psf, (bool, np.bool_)):
        return _from_fwhm(psf, name)
    if callable(psf) and not isinstance(psf, type):
        return _from_callable(psf, context, name)
    try:
        array = np.asarray(psf)
        array = array if array.dtype.kind == "c" else array.astype(np.float64)
    except (TypeError, ValueError):
        array = None
    if psf is None or array is None or isinstance(psf, (bool, np.bool_)) or array.ndim == 1:
        raise PSFError(
            f"{name}={psf!r} is no PSF; give a FWHM (pixels, or a Quantity such as 1.3 * u.arcsec), a kernel array, "
            "an astropy Kernel2D, or a photutils or astropy PSF model"
        )
    return _from_fwhm(array[()], name) if array.ndim == 0 else _from_array(array, context, name, "an array")


def _is_instance(thing, module, name):
    """isinstance by name, which spares importing photutils to find that something is not from it."""
    return any(c.__name__ == name and c.__module__.startswith(module) for c in type(thing).__mro__)


def _from_fwhm(fwhm, name):
    try:
        kernel = gaussian_psf(fwhm)
    except PSFError as error:
        raise PSFError(f"{name}: {error}") from None
    return PSFModel(kernel[None], origin="a FWHM", size_is_free=True)


def _from_quantity(psf, context, name):
    """A FWHM with a unit; dimensionless arrays are kernels."""
    from astropy import units as u

    if psf.unit.is_equivalent(u.rad) and not psf.unit.is_equivalent(u.one):
        pixels = psf.to_value(u.arcsec) / _needed_scale(context, name, psf)
    elif psf.unit.is_equivalent(u.pix):
        pixels = psf.to_value(u.pix)
    elif psf.ndim >= 2 or psf.unit.is_equivalent(u.one):
        pixels = psf.value
    else:
        raise PSFError(f"{name}={psf!r}: a FWHM is an angle (e.g. u.arcsec) or a number of pixels")
    if np.ndim(pixels) == 0:
        return _from_fwhm(float(pixels), name)
    if np.ndim(pixels) == 1:
        return _stacked([_from_fwhm(float(p), f"{name}[{i}]") for i, p in enumerate(pixels)])
    return _from_array(psf.value, context, name, "an array")


def _needed_scale(context, name, psf):
    if context.pixel_scale is None:
        raise PSFError(
            f"{name}={psf} is an angle, but the image has no WCS to tell its pixel scale; give pixel_scale= "
            "(--pixel-scale) in arcsec per pixel, or the FWHM in pixels"
        )
    return context.pixel_scale


def _from_text(psf, context, name):
    """A file with a kernel, or a FWHM in words."""
    path = Path(psf)
    if isinstance(psf, Path) or path.suffix.lower() in (".npy", ".fits", ".fit", ".fts", ".fz", ".gz", ".bz2"):
        array = _read_kernel(path, name)
        return _from_array(array, context, f"{name} ({path.name})", f"file {path.name}")
    from astropy import units as u

    try:
        quantity = u.Quantity(psf)
    except (TypeError, ValueError):
        raise PSFError(f"{name}={psf!r} is neither a FWHM such as '1.3 arcsec' or '3 pix', nor a file") from None
    return _from_quantity(quantity, context, name)


def _read_kernel(path, name):
    """The first image in a FITS file, or the array in a ``.npy`` file."""
    from astrogan.image._fits_file import FitsFile, reading

    try:
        with reading(path):  # numpy's reader of damaged files raises what Python's parser does
            if path.suffix.lower() == ".npy":
                return np.load(path, allow_pickle=False)
            with FitsFile(path, 8 * LARGEST**2) as file:
                for hdu in file.images:
                    if len(hdu.shape) in (2, 3):
                        return file.pixels(hdu)[0].astype(np.float64)
    except ImageReadError as error:
        raise PSFError(f"{name}={str(path)!r} cannot be read: {error}") from error
    raise PSFError(f"{name}={str(path)!r} holds no image; give the file of a kernel, 2-D or (band, k, k)")


def _from_nddata(psf, context, name):
    mask = getattr(psf, "mask", None)
    if mask is not None and np.any(mask):
        raise PSFError(f"{name} has {np.count_nonzero(mask)} masked pixels; fill them (0 in the wings) first")
    return _from_array(psf.data, context, name, "an array")


def _from_array(array, context, name, origin):
    """(k, k), or (band, k, k)."""
    array = np.asarray(array)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise PSFError(f"{name} has shape {array.shape}; a kernel is (k, k), or (band, k, k) with one per band")
    if array.ndim == 2:
        kernels = [context.kernel(array, name)]
    else:
        kernels = [context.kernel(band, f"{name}[{i}]") for i, band in enumerate(array)]
    size = max(len(kernel) for kernel in kernels)
    return PSFModel([padded_to(kernel, size) for kernel in kernels], origin=origin)


def _from_model(psf, context, name):
    """A photutils or astropy model that does not vary over the field."""
    origin = f"a {type(psf).__name__}"
    if hasattr(psf, "oversampling"):  # an image; it holds the pixel's response already
        half = int(np.ceil(max(np.array(psf.data.shape) / np.ravel(psf.oversampling)) / 2)) + 1
        x, y = _grid(half)
        array = psf.evaluate(x, y, 1.0, 0.0, 0.0)
        return _from_array(np.nan_to_num(array), context, name, origin)
    return PSFModel(_rendered(psf, context, name)[None], origin=origin, size_is_free=True)


def _grid(half):
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    return x, y


def _rendered(psf, context, name):
    """Kernel of an analytic model: wide enough, integrated over pixels unless it is so by itself."""
    values = _parameters_in_pixels(psf, context, name)

    def profile(x, y):
        x, y = np.broadcast_arrays(x, y)
        return np.asarray(psf.evaluate(x, y, *values), dtype=float)

    integrated = any("PRF" in c.__name__ for c in type(psf).__mro__)
    fwhm = _width_hint(profile, name)
    half = max(8, int(np.ceil(3 * fwhm)))
    kernel = _on_pixels(profile, half, fwhm, integrated, context, name)
    while True:
        half *= 2
        if half > LARGEST // 8:
            break
        wider = _on_pixels(profile, half, fwhm, integrated, context, name)
        inside = padded_to(wider, len(kernel)).sum()
        kernel = wider
        if inside > 1 - 1e-3:
            break
    # All of a profile that falls steeply; 99.9 % of one with wings, but its core in any case.
    core = 2 * int(np.ceil(2.5 * fwhm)) + 1
    size = min(len(trim_psf(kernel, 1 - 1e-6)), max(len(trim_psf(kernel, 1 - 1e-3)), core))
    kernel = padded_to(kernel, size)
    return kernel / kernel.sum()


def _on_pixels(profile, half, fwhm, integrated, context, name):
    if integrated:
        array = profile(*_grid(half))
    else:
        array = render_profile(profile, half, fwhm)
    return padded_to(context.kernel(array, name), 2 * half + 1)


def _width_hint(profile, name):
    """FWHM along x, good enough to choose sampling and size."""
    x = np.geomspace(0.01, 1000, 400)
    with np.errstate(all="ignore"):
        line = profile(np.concatenate([[0.0], x])[None, :], np.zeros((1, 1)))[0]
    below = np.flatnonzero(~(line[1:] > 0.5 * line[0]))
    if not line[0] > 0 or below.size == 0 or x[below[0]] > 100:
        raise PSFError(f"{name} is {line[0]:.4g} at its centre and does not fall to half of it within 100 pixels")
    return max(float(2 * x[below[0]]), 0.3)


def _parameters_in_pixels(psf, context, name):
    """The model's parameters as numbers in pixels, its centre moved to zero."""
    from astropy import units as u

    values = {}
    for key in psf.param_names:
        parameter = getattr(psf, key)
        if np.size(parameter.value) != 1:
            raise PSFError(f"{name} is a set of models ({key} has {np.size(parameter.value)} values); give a list")
        value = np.array([float(np.squeeze(parameter.value))])  # some models need arrays
        if parameter.unit is not None:
            if re.match(r"theta", key):
                value = value * parameter.unit
            elif parameter.unit.is_equivalent(u.rad):
                value = (value * parameter.unit).to_value(u.arcsec) / _needed_scale(context, name, psf)
            elif parameter.unit.is_equivalent(u.pix):
                value = (value * parameter.unit).to_value(u.pix)
        values[key] = value
    for axis in "xy":
        keys = [key for key in values if re.fullmatch(rf"{axis}_(0|mean)(_\d+)?", key)]
        if keys:
            first = values[keys[0]]
            values.update({key: values[key] - first for key in keys})
    return list(values.values())


# ---- over the field


def _from_gridded_model(psf, context, name):
    """photutils' grid of empirical PSFs, which blends them itself."""
    grid = np.asarray(psf.grid_xypos, dtype=float)
    half = int(np.ceil(max(np.array(psf.data.shape[1:]) / np.ravel(psf.oversampling)) / 2)) + 1
    dx, dy = _grid(half)

    def image(x, y):
        return np.nan_to_num(psf.evaluate(dx + x, dy + y, 1.0, x, y))

    centre = context.centre or grid.mean(axis=0)
    model = _from_field(image, centre, context, name, f"a {type(psf).__name__}")
    return model if len(grid) > 1 else PSFModel(model.kernels, origin=model.origin)


def _from_callable(psf, context, name):
    return _from_field(psf, context.centre or (0.0, 0.0), context, name, "a function of position")


def _from_field(image, centre, context, name, origin):
    """A model from ``image(x, y)``, anything that stands for a PSF."""
    x, y = (float(c) for c in centre)
    middle = _from_one(image(x, y), context, f"{name}({x:g}, {y:g})")
    quiet = replace(context, remarks=[])  # what there is to say was said of the one in the middle

    def field(x, y):
        found = _from_one(image(x, y), quiet, f"{name}({x:g}, {y:g})")
        if found.n_bands != middle.n_bands:
            raise PSFError(f"{name}({x:g}, {y:g}) has {found.n_bands} bands; at the field's centre {middle.n_bands}")
        return padded_to(found.at(x, y), middle.size)

    return PSFModel(middle.kernels, field=field, origin=origin, size_is_free=middle.size_is_free)


def _from_grid(psf, context, name):
    """Kernels at positions, blended linearly."""
    models = [_from_one(kernel, context, f"{name}.kernels[{i}]") for i, kernel in enumerate(psf.kernels)]
    if any(model.varies for model in models):
        raise PSFError(f"{name} is a grid of PSFs that vary themselves; give a fixed kernel at each position")
    n_bands = max(model.n_bands for model in models)
    size = max(model.size for model in models)
    kernels = np.stack([padded_to(model.broadcast(n_bands).kernels, size) for model in models])

    def field(x, y):
        return np.tensordot(psf.weights(x, y).astype(np.float32), kernels, axes=1)

    centre = context.centre or psf.positions.mean(axis=0)
    return PSFModel(
        field(*centre),
        field=field if len(models) > 1 else None,
        origin=f"a grid of {len(models)}",
        size_is_free=all(model.size_is_free for model in models),
    )


# ---- on the image


def _fitted(model, context):
    """The model on kernels no larger than the image."""
    shape = context.shape
    limit = int(min(shape[-2:]))
    limit -= 1 - limit % 2
    if limit < 1:
        raise PSFError(f"shape={shape!r} must hold at least one pixel")
    if model.size <= limit:
        return model
    flux = np.abs(model.kernels.astype(np.float64))
    lost = 1 - (padded_to(flux, limit).sum(axis=(1, 2)) / flux.sum(axis=(1, 2))).min()
    if lost >= 0.005:
        needed = max(len(trim_psf(kernel, 0.995)) for kernel in flux)
        raise PSFError(
            f"psf has {model.size} x {model.size} pixels, the image only {shape[-2]} x {shape[-1]}: cutting the PSF "
            f"to {limit} pixels would lose {lost:.1%} of its flux. Give a larger image (at least {needed} pixels a "
            "side for this PSF) or a narrower PSF"
        )
    if not model.size_is_free:
        text = f"psf has {model.size} x {model.size} pixels, more than the image ({shape[-2]} x {shape[-1]})"
        context.remarks.append(("cut", f"{text}; it was cut to {limit} x {limit} and lost {lost:.2%} of its flux"))
    return model.resized(limit)
