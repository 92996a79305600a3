"""All that a backend's author imports: what a backend gets, gives back, and how it is registered.

A backend is a class with ``__call__``. It sees plain, clean arrays (`Observation`) and returns plain arrays
(`Estimate` or `Separation`); files, units, WCS, masks, tiling and provenance are the operators' work. A plugin is an
importable module behind the entry-point group ``astrogan`` with one hook::

    from astrogan.api import BackendSpec, hookimpl


    @hookimpl
    def astrogan_backends():
        return [
            BackendSpec(
                role="restorer",
                name="my-method",
                target="my_package.method:MyMethod",
                summary="One line for the table of backends",
            )
        ]

The module must stay light, because listing backends imports it; the class named by ``target`` is imported on first
use. `astrogan.testing.check_backend` checks the contract. This module needs numpy and pluggy only.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import pluggy

__all__ = [
    "API_VERSION",
    "ROLES",
    "BackendSpec",
    "Blend",
    "DeblenderBackend",
    "DegraderBackend",
    "Estimate",
    "NoiseBackend",
    "Observation",
    "RestorerBackend",
    "Separation",
    "Target",
    "Template",
    "TranslatorBackend",
    "hookimpl",
    "sample_noise",
]

API_VERSION = 1
"""The version of this contract; a `BackendSpec` of another one is refused with both numbers named."""

ROLES = ("restorer", "degrader", "deblender", "translator", "noise")
"""What a backend can be."""

hookimpl = pluggy.HookimplMarker("astrogan")
"""Decorator for a plugin's ``astrogan_backends`` function."""

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class BackendSpec:
    """A light description of a backend; its class is imported on first use.

    Parameters
    ----------
    role : str
        One of `ROLES`.
    name : str
        What users write: lower-case letters, digits and single hyphens.
    target : str
        ``"package.module:Class"``.
    summary : str
        One line for the table of backends.
    requires : tuple of str
        Importable packages that the class needs beyond astrogan's own; a missing one is named in the table of
        backends and in the error. They are looked for, not imported: of ``"a.b"`` only ``a``.
    api : int
        The contract's version, `API_VERSION`.
    citation : str
        What users should cite.

    Raises
    ------
    ValueError
        If a field is not of its form.
    """

    role: str
    name: str
    target: str
    summary: str = ""
    requires: tuple[str, ...] = ()
    api: int = API_VERSION
    citation: str = ""

    def __post_init__(self):
        if self.role not in ROLES:
            raise ValueError(f"role={self.role!r} is unknown; use one of {', '.join(ROLES)}")
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"name={self.name!r} must be lower-case letters, digits and single hyphens")
        if not isinstance(self.target, str) or not _TARGET.fullmatch(self.target):
            raise ValueError(f"target={self.target!r} must have the form 'package.module:Class'")
        if isinstance(self.requires, str):
            raise ValueError(f"requires={self.requires!r} must be a tuple of names, e.g. ({self.requires!r},)")
        requires = tuple(self.requires)
        if not all(isinstance(name, str) and _MODULE.fullmatch(name) for name in requires):
            raise ValueError(f"requires={self.requires!r} must be names of importable packages, e.g. ('torch',)")
        if not isinstance(self.summary, str):
            raise ValueError(f"summary={self.summary!r} must be one line of text")
        object.__setattr__(self, "requires", requires)
        object.__setattr__(self, "summary", " ".join(self.summary.split()))


def _read_only(array, dtype):
    """A C-contiguous, native, read-only array; shares memory with ``array`` where that already is one."""
    out = np.ascontiguousarray(array, dtype=dtype)
    if out is array or out.base is not None:
        out = out.view()
    out.setflags(write=False)
    return out


@dataclass(frozen=True)
class Observation:
    """An image as a backend sees it: read-only, native byte order, C-contiguous float32, finite.

    Parameters
    ----------
    data : `numpy.ndarray`
        Linear flux per pixel, shape (band, y, x). Invalid pixels hold a smooth filling made from their valid
        neighbours, never what the file had there.
    valid : `numpy.ndarray` of bool, optional
        False where a pixel is masked, not finite, saturated or without weight, shape (band, y, x). Default: all
        True.
    variance : `numpy.ndarray`, optional
        Variance of ``data`` in its unit squared, shape (band, y, x), positive wherever ``valid``.
    psf : `numpy.ndarray`, optional
        PSF on the pixel grid, shape (band, k, k) with k odd, centred, each band summing to one.
    pixel_scale : float, optional
        Arcsec per pixel.
    bands : tuple of str, optional
        Names of the bands. Default: ``("0", "1", ...)``.
    measured_noise : bool, optional
        Whether the variance is no more than the noise of the background, measured on the image itself.

    Raises
    ------
    ValueError
        If shapes disagree, data are not finite, the PSF is even or not normalised.
    """

    data: np.ndarray
    valid: np.ndarray | None = None
    variance: np.ndarray | None = None
    psf: np.ndarray | None = None
    pixel_scale: float | None = None
    bands: tuple[str, ...] | None = None
    measured_noise: bool = False

    def __post_init__(self):
        data = _read_only(self.data, np.float32)
        if data.ndim != 3 or 0 in data.shape:
            raise ValueError(f"data has shape {np.shape(self.data)}; it must be (band, y, x) with no empty axis")
        if not np.isfinite(data).all():
            raise ValueError("data holds NaN or inf; fill such pixels and set valid to False there")
        valid = np.ones(data.shape, bool) if self.valid is None else self.valid
        valid = _read_only(valid, bool)
        if valid.shape != data.shape:
            raise ValueError(f"valid has shape {valid.shape}; it must be that of data, {data.shape}")
        variance = self.variance
        if variance is not None:
            variance = _read_only(variance, np.float32)
            if variance.shape != data.shape:
                raise ValueError(f"variance has shape {variance.shape}; it must be that of data, {data.shape}")
            if not (np.isfinite(variance).all() and (variance[valid] > 0).all()):
                raise ValueError("variance must be finite, and positive where valid is True")
        psf = self.psf
        if psf is not None:
            psf = _read_only(psf, np.float32)
            if psf.ndim != 3 or len(psf) != len(data) or psf.shape[1] != psf.shape[2] or psf.shape[1] % 2 == 0:
                raise ValueError(f"psf has shape {psf.shape}; it must be ({len(data)}, k, k) with k odd")
            total = psf.sum(axis=(1, 2), dtype=np.float64)
            if not np.isfinite(total).all() or np.abs(total - 1).max() > 1e-4:
                raise ValueError(f"psf sums to {total} over its pixels; each band must sum to 1")
        bands = self.bands
        bands = tuple(map(str, range(len(data)))) if bands is None else tuple(map(str, bands))
        if len(bands) != len(data):
            raise ValueError(f"bands={bands} names {len(bands)} bands; data has {len(data)}")
        for name, value in (
            ("data", data),
            ("valid", valid),
            ("variance", variance),
            ("psf", psf),
            ("bands", bands),
        ):
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(band, y, x)."""
        return self.data.shape

    def replace(self, **changes) -> Observation:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def crop(self, y: slice, x: slice, psf=None) -> Observation:
        """The part inside two slices, as contiguous copies.

        Parameters
        ----------
        y, x : slice
            Rows and columns.
        psf : `numpy.ndarray`, optional
            (band, k, k), in place of the PSF.

        Returns
        -------
        Observation
        """
        return Observation(
            data=self.data[:, y, x],
            valid=self.valid[:, y, x],
            variance=None if self.variance is None else self.variance[:, y, x],
            psf=self.psf if psf is None else psf,
            pixel_scale=self.pixel_scale,
            bands=self.bands,
            measured_noise=self.measured_noise,
        )


@dataclass(frozen=True)
class Estimate:
    """What a restorer, degrader or translator backend returns.

    Parameters
    ----------
    data : `numpy.ndarray`
        Linear flux per pixel, (band, y, x), finite, in the unit of the observation.
    variance : `numpy.ndarray`, optional
        Its variance, same shape; leave it `None` rather than hand back the input's.
    flags : `numpy.ndarray` of bool, optional
        True where the result should not be trusted; they are added to the output's mask.
    info : dict, optional
        Plain numbers and strings worth keeping (iterations done, reduced chi^2); they go to ``meta``.
    """

    data: np.ndarray
    variance: np.ndarray | None = None
    flags: np.ndarray | None = None
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Template:
    """A non-negative model of one source on its bounding box.

    Parameters
    ----------
    origin : tuple of int
        (y, x) of the box's first pixel in the observation; the box lies inside the observation.
    data : `numpy.ndarray`
        Flux of the source alone, (band, height, width), >= 0 and finite; 0 outside its footprint.
    position : tuple of float
        (x, y) of the source in pixels of the observation, 0-based.
    variance : `numpy.ndarray`, optional
        Variance of ``data``, same shape.
    flux_variance : `numpy.ndarray`, optional
        Variance of the source's flux that comes from not knowing its template (and so its share of the light) better,
        shape (band,). The operator adds it to that of the noise.
    flags : int, optional
        Any of ``Template.FAILED`` (32: the source could not be modelled; ``data`` is a stand-in) and
        ``Template.NOFIT`` (128: a fit did not settle). They go to the catalog.
    """

    FAILED: ClassVar[int] = 32
    NOFIT: ClassVar[int] = 128

    origin: tuple[int, int]
    data: np.ndarray
    position: tuple[float, float]
    variance: np.ndarray | None = None
    flux_variance: np.ndarray | None = None
    flags: int = 0


@dataclass(frozen=True)
class Separation:
    """What a deblender backend returns: a template a source, in the order of the positions where those were given.

    Parameters
    ----------
    templates : tuple of `Template`
        One a source.
    segmentation : `numpy.ndarray` of int, optional
        (y, x): i + 1 where a pixel belongs to ``templates[i]`` before all others, 0 where it belongs to none. Default:
        the source with the largest template.
    info : dict, optional
        Plain numbers and strings worth keeping; they go to ``meta``.
    """

    templates: tuple[Template, ...]
    segmentation: np.ndarray | None = None
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Blend:
    """Sources that touch, cut out of an image: what a deblender sees of a large field at a time.

    Parameters
    ----------
    observation : `Observation`
        The cut-out. Pixels that belong to other blends are not valid in it, and filled like other invalid ones.
    positions : `numpy.ndarray`
        (source, 2), each row (x, y) in 0-based pixels of the cut-out, sorted by y, then x.
    labels : `numpy.ndarray` of int32
        (y, x); ``j + 1`` where a pixel belongs to ``positions[j]`` before all others, 0 elsewhere. Where positions are
        crowded a source may have no pixel of its own.
    """

    observation: Observation
    positions: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        positions = _read_only(np.reshape(self.positions, (-1, 2)), np.float64)
        labels = _read_only(self.labels, np.int32)
        if labels.shape != self.observation.shape[1:]:
            raise ValueError(f"labels has shape {labels.shape}; it must be {self.observation.shape[1:]}")
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "labels", labels)


@dataclass(frozen=True)
class Target:
    """The pixel grid, PSF and noise that a translator backend is to produce.

    Parameters
    ----------
    shape : tuple of int
        (y, x) of the output.
    to_input : callable
        ``to_input(x, y) -> (x, y)``: pixel coordinates (0-based, centres at integers) of the output to those of
        the input.
    to_output : callable
        The inverse.
    area_ratio : float
        Area of an output pixel over that of an input pixel on the sky.
    pixel_scale : float, optional
        Arcsec per pixel of the output.
    psf : `numpy.ndarray`, optional
        PSF on the output's grid, (band, k, k), odd and normalised.
    noise : `numpy.ndarray`, optional
        Wanted background noise (standard deviation a pixel, in the observation's unit), shape (band,).
    noise_slope : `numpy.ndarray`, optional
        Wanted growth of the variance with the flux in a pixel (photon noise), in the observation's unit, (band,).
    noise_model : `NoiseBackend`, optional
        What the noise looks like, in the observation's unit; white noise where there is none. Draw from it with
        `sample_noise`.
    name : str, optional
        Of the survey, or the image, that the target was made from.
    wcs_in, wcs_out : `astropy.wcs.WCS`, optional
        Celestial 2-D WCS of both grids.
    """

    shape: tuple[int, int]
    to_input: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    to_output: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    area_ratio: float
    pixel_scale: float | None = None
    psf: np.ndarray | None = None
    noise: np.ndarray | None = None
    wcs_in: Any = None
    wcs_out: Any = None
    noise_slope: np.ndarray | None = None
    noise_model: Any = None
    name: str = ""


@runtime_checkable
class RestorerBackend(Protocol):
    """A method that estimates the sharper, cleaner image behind an observation.

    Attributes
    ----------
    halo : int
        Pixels of context that an output pixel depends on; -1 if it depends on the whole image. Where it depends on
        the PSF, add a method ``halo_for(observation) -> int``; it is used instead.

    Notes
    -----
    Optional attributes, with their defaults: ``needs_psf = False``, ``needs_variance = False`` (a missing one is then
    estimated, or refused with a clear error), ``min_size = 1`` (pixels along y and x), ``tile_size = 512`` (outer
    edge of a tile, halo included, at which the method is quickest) and ``keeps_psf = False`` (whether the result has
    the PSF of the observation). Options are keyword arguments of ``__init__``.
    Calls must be thread-safe: keep per-call state in local variables.

    A method that tunes itself on the image, or measures something of the whole of it, adds ``for_image(observation)``:
    it returns a backend with all that settled, so that no tile decides for itself. A method that gains by several tiles
    at once adds ``tiles_per_call`` and ``call_tiles(observations, *, cuts, rngs)``: see `astrogan.image.tiling`. One
    that works on coarser grids adds ``tile_align``, of which tiles begin at multiples; one that takes no other number
    of bands, ``bands``.

    A learned method may also define ``out_of_range(observation) -> float`` (logarithm of the factor by which an image
    lies outside the training; 0 inside), ``range_report(observation) -> dict`` (``(value, low, high)`` by quantity),
    ``pixel_flags(observation)`` (uint8, of the whole image, bits of `astrogan.image.mask.RestorationFlag`; they do not
    mask) and ``ensemble_spread(observation, *, rng)`` (array in the observation's unit). ``weights``, ``sha256`` and
    ``out_of_range`` in ``info`` go to the header, and the last is warned of.
    """

    halo: int

    def __call__(self, observation: Observation, *, rng: np.random.Generator) -> Estimate: ...


@runtime_checkable
class DegraderBackend(Protocol):
    """A forward model: what a worse instrument would have seen.

    Notes
    -----
    Optional attributes: ``needs_psf``, ``needs_variance``, ``min_size``, and ``rebin = 1`` (input pixels along an
    edge of an output pixel): the output has ``shape // rebin`` pixels, the trailing remainder being dropped. One that
    depends on its neighbourhood only says how far, ``halo`` or ``halo_for(observation) -> int`` in pixels of the input,
    and then works on images larger than memory, by windows.
    """

    def __call__(self, observation: Observation, *, rng: np.random.Generator) -> Estimate: ...


@runtime_checkable
class DeblenderBackend(Protocol):
    """A method that says how the light of a blend divides.

    ``positions`` has shape (source, 2), each row (x, y), 0-based pixels; `None` asks the backend to detect. The
    operator turns the templates into sources that add up to the image exactly.

    Notes
    -----
    Optional attributes: ``needs_psf = False``, ``psf_default`` (FWHM in pixels of the Gaussian that stands in, with a
    warning, where no PSF is known), ``min_size = 1`` (pixels along y and x), and ``bands``, the only number of bands
    that the method takes. Calls must be thread-safe: keep per-call state in local variables.

    A method whose sources depend on nothing but their own blend adds two methods, and then works on fields of any
    size, a blend at a time, in parallel:

    ``detect(observation, positions)``
        Gives an object with ``labels``, an integer array (y, x) that is ``i + 1`` where a pixel belongs to source ``i``
        and 0 elsewhere, and ``positions``, (source, 2): those given, or those found where they were `None`. Where it
        also has ``info``, a dict, that goes to ``info`` of the `Separation`.
    ``separate(blend, *, rng) -> tuple of Template``
        A template for each of ``blend.positions``, in their order, in pixels of the `Blend`'s cut-out. A template takes
        light wherever it is positive, from other blends, too; so it is best zero where ``blend.labels`` is.

    ``separate`` runs in several threads at once, so it must leave what belongs to the whole process alone: the warning
    filters, too. The PSF that it sees is the one at the blend's place; ``margin = 4`` is how many pixels of context it
    gets around the blend's labels. Where it raises a numerical error (`numpy.linalg.LinAlgError`, `ArithmeticError`)
    the sources of that blend get the image on their own labels for templates, the flag ``Template.FAILED``, and a
    warning. Its own ``__call__`` is one line, with `astrogan.image.blends.solve_blends`::

        return solve_blends(self, observation, positions, rng=rng)
    """

    def __call__(
        self, observation: Observation, positions: np.ndarray | None, *, rng: np.random.Generator
    ) -> Separation: ...


@runtime_checkable
class TranslatorBackend(Protocol):
    """A method that shows an observation as another survey would have seen it.

    Notes
    -----
    One that works on images larger than memory, by windows, adds ``halo_for(observation, target) -> int``, the pixels
    of the output around one of it that it depends on, and, where it measures something of the whole image,
    ``for_image(observation, target)``: a backend with all that settled, so that no window decides for itself. Windows
    begin at multiples of 16 pixels of the output, or of its attribute ``stride``.
    """

    def __call__(self, observation: Observation, target: Target, *, rng: np.random.Generator) -> Estimate: ...


@runtime_checkable
class NoiseBackend(Protocol):
    """A method that draws noise as an instrument or a stack of images has it.

    A class may also have a class method ``fit(images, mask=None, *, signal=None, ...)`` that learns it from images of
    sky (or, with their noise-free ``signal``, of anything), an attribute ``signal_slope``, and a method
    ``draw_sigma(bands, rng)`` that gives standard deviations (band,) as it learned them. `sample` may leave out
    ``signal`` and ``wcs`` if it does nothing with them; call it through `sample_noise`. One whose `sample` shapes the
    white noise that its own method ``white(shape, rng)`` draws, unit deviates (band, y, x) with as much more on all
    sides as it wants, is drawn without seams on images larger than memory.
    """

    def sample(self, shape, *, sigma=None, signal=None, wcs=None, rng: np.random.Generator) -> np.ndarray:
        """A field of noise, float32.

        Parameters
        ----------
        shape : tuple of int
            (band, y, x).
        sigma : float or array_like, optional
            Standard deviation on blank sky: a number, (band,), or a map (band, y, x). Default: as learned or given,
            drawn for all bands together where the level varies from image to image.
        signal : array_like, optional
            Noise-free flux, (band, y, x). The variance is ``sigma**2 + signal_slope * max(signal, 0)`` where the
            backend has a slope, (band,), which is 1 / gain for the noise of photons.
        wcs : `astropy.wcs.WCS`, optional
            Celestial WCS of the pixels that the noise is for.
        rng : `numpy.random.Generator`
        """
        ...


def sample_noise(noise, shape, *, sigma=None, signal=None, wcs=None, rng):
    """Draw from any noise backend; it is given what its ``sample`` takes.

    Parameters
    ----------
    noise : `NoiseBackend`
        Its ``sample`` may lack the arguments ``signal`` and ``wcs``, which are then left out.
    shape, sigma, signal, wcs, rng
        See `NoiseBackend.sample`.

    Returns
    -------
    `numpy.ndarray`
        float32, (band, y, x).

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import sample_noise
    >>> class Old:
    ...     def sample(self, shape, *, sigma=1.0, rng):
    ...         return sigma * rng.normal(size=shape)
    >>> sample_noise(Old(), (1, 3, 4), signal=np.ones((1, 3, 4)), rng=np.random.default_rng(0)).dtype
    dtype('float32')
    """
    given = {"sigma": sigma, "signal": signal, "wcs": wcs}
    given = {name: value for name, value in given.items() if value is not None}
    parameters = inspect.signature(noise.sample).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        given = {name: value for name, value in given.items() if name == "sigma" or name in parameters}
    return np.asarray(noise.sample(shape, **given, rng=rng), np.float32)
