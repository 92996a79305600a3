"""`Degrader`: what a worse instrument would have made of an image."""

from __future__ import annotations

import inspect
import warnings

import numpy as np

from astrogan.api import Observation
from astrogan.exceptions import BackendError, InputError, PSFError, PSFWarning, UnitError
from astrogan.image.finish import KEEP, finish
from astrogan.image.provenance import without_stale_keywords
from astrogan.operators._degrader_frame import (
    Frame,
    as_arcsec,
    as_numbers,
    as_seconds,
    fwhm_pixels,
    listed,
    surface_magnitude,
)
from astrogan.operators.base import Operator, as_generator
from astrogan.plugins import load_backend

__all__ = ["Degrader"]

_SAME_SCALE = 0.005
"""Pixel scales that differ by less, relative, are taken to be the same."""


class Degrader(Operator):
    """Degrade images: a broader PSF, larger pixels, more noise, in the order in which light meets an instrument.

    Parameters
    ----------
    psf : optional
        With ``match=True`` the PSF that the result is to have, its larger pixels included; with ``match=False`` what
        is convolved with the image on top of its own seeing. Any form that `~astrogan.image.psf.as_psf` takes: a FWHM
        (`~astropy.units.Quantity`, or pixels of the input), a kernel, a model, one per band. Default: no blur.
    noise : `~astropy.units.Quantity`, float, str or noise backend, optional
        A Quantity in the image's unit is the standard deviation of white Gaussian noise to add. A number is a factor:
        so much is added that the noise, after blur and rebinning, is that many times what the image had. A noise
        backend (``"correlated"``, or an instance, such as a fitted
        `~astrogan.backends.classic.correlated_noise.CorrelatedNoise`) draws the noise, of level ``noise_level``,
        growing with the flux where it learned so and there is no ``gain``. Either may have a value per band.
    match : bool, optional
        See ``psf``. The image's own PSF is then needed: ``psf`` of the call, else the image's or its header's, else one
        built from its stars.
    shared_band_noise : bool, optional
        One plane of noise for all bands: wrong for any real instrument, right for reproducing work that did it.
    rebin : float, optional
        Input pixels along an edge of an output pixel. Fluxes are summed; numbers that are not whole divide pixels.
    pixel_scale : float or `~astropy.units.Quantity`, optional
        Instead of ``rebin``: arcsec per output pixel.
    psf_scale : float or `~astropy.units.Quantity`, optional
        Arcsec per pixel of the array ``psf``, where it is not on the image's pixels.
    gain : float or `~astropy.units.Quantity`, optional
        Electrons per unit of flux; it switches photon noise on.
    sky : float or `~astropy.units.Quantity`, optional
        The sky's level in electrons per output pixel; a Quantity may also be in the image's unit per pixel, or in
        mag / arcsec2 (AB). It adds noise; its level is taken off again.
    read_noise : float or `~astropy.units.Quantity`, optional
        Electrons per output pixel (standard deviation).
    exposure : float or `~astropy.units.Quantity`, optional
        Seconds, for images in flux per second.
    poisson : {'exact', 'gaussian'}, optional
        Exact photon noise, or normal deviates of the same variance (faster; good above about 20 electrons a pixel).
    noise_level : `~astropy.units.Quantity` or float, optional
        With a noise backend: standard deviation, or factor. Default: the instance's own, in the image's unit: its
        ``sigma``, or, where it learned how that varies from image to image, drawn for all bands together.
    saturation : float or `~astropy.units.Quantity`, optional
        Largest flux of an output pixel; more is cut to it and masked. (``saturation`` of the call is the level from
        which *input* pixels are saturated.)
    noiseless_input : bool, optional
        Whether images are free of noise (simulated): the result's uncertainty is then that of the noise added. Else
        the input's uncertainty is carried through, and without one there is none.
    survey : str or `~astrogan.simulate.surveys.Survey`, optional
        Fills in what is not given of ``psf``, ``gain``, ``sky`` and ``read_noise``; see `preset`.
    bands : str or sequence of str, optional
        With ``survey``: the filter of each band. Default: the image's names of its bands.
    zero_point : float or array_like, optional
        AB magnitude of one unit of flux, one or one per band, for images in counts. Images in nanomaggies or Jansky
        need none.
    backend : str or object, optional
        A name from ``list_backends("degrader")``, or an instance. The parameters above are the ``physical`` backend's.
    **options
        For the backend.

    Raises
    ------
    InputError
        If an option is unknown, out of range, or contradicts another.

    See Also
    --------
    Degrader.preset : Surveys, and the recipe of the GalaxyGAN paper.

    Notes
    -----
    The variance goes through blur and rebinning with the square of each weight; masks grow by the PSF's footprint
    where its weight is not negligible; the WCS follows the pixels. The kernel of a PSF that varies over the field is
    that of its centre.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astrogan import Degrader
    >>> image = CCDData(np.pad(np.full((1, 1), 100.0), 32), unit="nmgy")
    >>> degrader = Degrader(psf=4.0, noise=0.01 * u.nmgy, match=False, rebin=5)
    >>> degraded = degrader(image, rng=1)
    >>> degraded.shape, degraded.unit
    ((13, 13), Unit("nmgy"))
    >>> bool(abs(degraded.data.sum() - 100) < 1)
    True
    """

    role = "degrader"
    operation = "degrade"

    def __init__(
        self,
        psf=None,
        noise=None,
        *,
        match=True,
        shared_band_noise=False,
        rebin=1,
        pixel_scale=None,
        psf_scale=None,
        gain=None,
        sky=None,
        read_noise=None,
        exposure=None,
        poisson="exact",
        noise_level=None,
        saturation=None,
        noiseless_input=False,
        survey=None,
        bands=None,
        zero_point=None,
        backend="physical",
        **options,
    ):
        given = {name: value for name, value in locals().items() if name in _KEYWORDS}
        settings = {name: value for name, value in given.items() if not _is_default(name, value)}
        self._kind = _kind_of(backend)
        if self._kind == "physical":
            self._check_physical(given)
            self._noise_backend = _noise_backend(noise)
            static = {"rebin": rebin, "poisson": poisson, "shared_band_noise": shared_band_noise}
            # Options that need no image are checked here; a gain of one stands for what a survey will give.
            static |= {"noise": self._noise_backend, "gain": None if not self._has_electrons(given) else 1.0}
        elif self._kind == "galaxygan2017":
            static = self._recipe_options(given)
        else:
            if settings:
                raise InputError(
                    f"{', '.join(sorted(settings))} must be left out with backend={backend!r}: they are for the "
                    "physical backend. Give the backend's own options"
                )
            static = {}
        self._static = static
        self._name = backend
        super().__init__(backend, **(static | options))
        self._own_options = options
        self.options = settings | options
        for name, value in given.items():
            if name != "backend":
                setattr(self, name, value)
        self.survey = _survey(survey)
        if self.survey is not None:
            self.options["survey"] = self.survey.name

    @classmethod
    def preset(cls, name, **options):
        """A degrader for a survey, or the recipe of a paper.

        Parameters
        ----------
        name : str
            - ``"sdss"``, ``"cfhtls"``, ``"kids"``, ``"hsc"``, ``"decals"``, ``"lsst"``, ``"euclid"`` and the others of
              `~astrogan.simulate.surveys.list_surveys`: the survey's PSF, pixels, photon noise of source and sky, and
              read noise, at the depth of its final images. Most need the package surveycodex. The image must be in
              nanomaggies or a multiple of Jansky, or ``zero_point`` be given, and its bands be named, or ``bands`` be
              given: ``Degrader.preset("sdss", bands="gri", zero_point=30.0)``. ``pixel_scale=None`` keeps the image's
              pixels.
            - ``"galaxygan2017"``: the degradation of Schawinski et al. (2017), with ``fwhm`` (default 1.8 arcsec),
              ``noise_ratio`` (2.0), ``shared_band_noise`` (True, as in the paper) and ``output`` ("linear"). See
              `~astrogan.backends.classic.galaxygan2017_degrader.GalaxyGAN2017Degrader` for each step and its flaws.
        **options
            Any parameter of `Degrader`; it replaces the preset's.

        Returns
        -------
        Degrader

        Raises
        ------
        InputError
            If the name is unknown.
        MissingDependencyError
            If the survey's numbers need surveycodex and that is not installed.

        Examples
        --------
        >>> import astropy.units as u
        >>> from astrogan import Degrader
        >>> degrader = Degrader.preset("galaxygan2017", fwhm=1.8 * u.arcsec, noise_ratio=2.0)
        >>> decals = Degrader.preset("decals", bands="grz")
        """
        from astrogan.simulate.surveys import list_surveys

        key = str(name).strip().lower()
        if key == "galaxygan2017":
            return cls._recipe(**options)
        if key.replace("_", "-") not in list_surveys():
            raise InputError(f"preset {name!r} is unknown; there are: galaxygan2017, {', '.join(list_surveys())}")
        survey = _survey(options.pop("survey", key))
        if options.get("rebin", 1) == 1:
            options.setdefault("pixel_scale", survey.pixel_scale)
        return cls(survey=survey, **options)

    @classmethod
    def _recipe(cls, *, fwhm=None, noise_ratio=2.0, shared_band_noise=True, **options):
        from astropy import units as u

        for name, own in (("psf", "fwhm"), ("noise", "noise_ratio"), ("match", None), ("backend", None)):
            if name in options:
                raise InputError(
                    f"{name}={options[name]!r}: the 2017 recipe {f'calls it {own}' if own else 'sets that'}; "
                    f"{'give that' if own else 'leave it out'}"
                )
        options.setdefault("independent", not shared_band_noise)
        fwhm = 1.8 * u.arcsec if fwhm is None else fwhm
        return cls(fwhm, noise_ratio, match=False, backend="galaxygan2017", **options)

    def __call__(self, image, *, psf=None, rng=0, **reading):
        """Degrade one image.

        Parameters
        ----------
        image : path, `~astropy.nddata.NDData`, list or dict
            2-D, or 3-D with axes (band, y, x), or equal-shaped 2-D ones, one a band. Never changed.
        psf : optional
            The PSF that the image has.
        rng : int or `numpy.random.Generator`
            Seed of the noise, or a generator.
        **reading
            ``unit``, ``hdu``, ``uncertainty``, ``uncertainty_type``, ``mask``, ``saturation``, ``pixel_scale`` (the
            image's), ``max_pixels``: see `~astrogan.image.prepare.prepare`.

        Returns
        -------
        Same form as ``image`` (a path gives `~astropy.nddata.CCDData`)
            Same unit; WCS and shape follow the pixels.

        Raises
        ------
        InputError, UnitError, PSFError, ImageReadError
            If the image cannot be used; the message names the argument, its value and the remedy.
        PSFError
            If the PSF wanted is sharper than the image's.
        ImageTooSmallError
            If less than one output pixel fits into it.
        """
        seed, generator = rng, as_generator(rng)
        prepared = self._with_psf(lambda **needs: self._read(image, reading, **needs), psf)
        observation = prepared.observation
        backend = self._backend_for(Frame.of(prepared))
        shape = _shape_after(observation.shape, backend)
        self._check_size(observation.shape)
        if self._names_noise():
            backend.noise_wcs = _wcs_after(prepared, backend, observation.shape[1:], shape)
        estimate = self._run(backend, observation, rng=generator)
        self._check_estimate(estimate, shape)
        self._warn_no_uncertainty(prepared.had_uncertainty, estimate.variance)
        prepared = _relabelled(_with_true_header(prepared, backend), backend)
        mask = estimate.flags
        if mask is None:
            mask = ~observation.valid if shape == observation.shape else None
        return finish(
            prepared,
            estimate.data,
            variance=estimate.variance,
            mask=mask,
            wcs=_grid_after(prepared, backend, observation.shape[1:], shape),
            psf=_psf_after(observation, backend),
            operation=self.operation,
            notes=self._notes(seed, estimate.info),
        )

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
        """Degrade an image larger than memory, from file to file.

        Parameters
        ----------
        image : path, list or dict of paths
            A FITS file, plain or compressed by tiles, or a Zarr array; or one file a band. Windows of it are read, one
            for each worker at a time.
        output : path
            The FITS file to write.
        psf : optional
            The PSF that the image has.
        rng : int
            Seed of the noise.
        tile : int, optional
            Edge in pixels of the input of the windows that a worker is given at a time (2048). It changes memory and
            time, and not one bit of the result.
        workers : int, optional
            Threads. Default: as many as the process may use cores.
        client : `distributed.Client` or `concurrent.futures.Executor`, optional
            Who does the work instead; the workers must see the input under the same path.
        overwrite : bool, optional
            Replace an existing output.
        resume : bool, optional
            Go on from what an earlier call left in ``OUTPUT.partial`` when it was killed. If False it is thrown away.
        progress : callable, optional
            ``progress(done, total)``, called as cells of the image finish.
        **reading
            ``unit``, ``hdu``, ``uncertainty``, ``uncertainty_type``, ``mask``, ``saturation``, ``pixel_scale``, as in a
            call; uncertainty and mask are HDUs or files.

        Returns
        -------
        `pathlib.Path`
            The output: data, mask, the PSF where it is known and, where a call gives one, uncertainty.

        Raises
        ------
        InputError, UnitError, PSFError, ImageReadError
            If the image cannot be used, another process writes the same output, a partial output is of another input,
            method or seed, or an image of more than 2048 pixels is to be degraded by something other than the physical
            backend, or rebinned by a number that is no fraction of small whole ones.
        ImageWriteError
            If the output exists, or cannot be written.

        Notes
        -----
        The image is worked on in cells of about 1024 x 1024 of its pixels, which depend on its shape and the PSF only.
        Blur, rebinning, variance and mask are those of a call, to single precision. Noise is drawn from the seed and
        the cell's number, so that it is the same whatever the windows and workers, and another than that of a call
        where there is more than one cell. Photon, read and white noise are independent from pixel to pixel as ever.
        The white noise that the backends ``white`` and ``correlated`` start from belongs to places, so that their
        correlations run on across the cells' borders; the noise of other backends, such as ``galsim`` or learned ones,
        is independent from cell to cell. A level that a backend draws is drawn once.

        The noise of an image without an uncertainty, where it is needed, and a PSF from stars, are measured as in
        `astrogan.Restorer.process`.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from astropy.nddata import CCDData
        >>> from astrogan import Degrader, read_image, write_image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, result = Path(folder) / "in.fits", Path(folder) / "out.fits"
        ...     write_image(CCDData(np.ones((100, 100)), unit="adu"), source)
        ...     _ = Degrader(psf=3.0, match=False, rebin=2).process(source, result)
        ...     read_image(result).shape
        (50, 50)
        """
        from astrogan.operators._mosaic_degrade import degrade_mosaic

        return degrade_mosaic(
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

    def batch(self, stamps, rng=0, *, psf=None, variance=None, pixel_scale=None, unit=None, bands=None):
        """Degrade many stamps at once, as plain arrays: no files, masks or WCS.

        Parameters
        ----------
        stamps : array_like
            (n, band, y, x), finite.
        rng : int or `numpy.random.Generator`
            Seed of the noise, or a generator.
        psf : optional
            The PSF that the stamps have, needed with ``match``.
        variance : array_like, optional
            Theirs, of their shape or broadcasting to it. Where ``noise`` is a factor and none is given, the noise of
            each stamp and band is measured on its pixels (standard deviation after clipping at three sigma).
        pixel_scale : float or `~astropy.units.Quantity`, optional
            Arcsec per pixel of the stamps, where angles have to become pixels.
        unit : str or `~astropy.units.Unit`, optional
            Theirs, where noise is given with a unit or by a survey.
        bands : str or sequence of str, optional
            Names of the bands, for a survey.

        Returns
        -------
        `numpy.ndarray`
            float32, (n, band, y', x').

        Raises
        ------
        InputError
            If the stamps are not (n, band, y, x) or not finite.

        Examples
        --------
        >>> import numpy as np
        >>> from astrogan import Degrader
        >>> stamps = np.zeros((8, 3, 64, 64), np.float32)
        >>> Degrader(psf=3.0, match=False, gain=5.0, sky=40.0, rebin=2).batch(stamps, rng=1).shape
        (8, 3, 32, 32)
        """
        from astropy import units as u

        from astrogan.image.psf import as_psf

        generator = as_generator(rng)
        shape = np.shape(stamps)
        if len(shape) != 4 or 0 in shape[1:]:
            raise InputError(f"stamps has shape {shape}; it must be (n, band, y, x) with no empty axis")
        arcsec = as_arcsec(pixel_scale, "pixel_scale")
        names = tuple(map(str, range(shape[1]))) if bands is None else tuple(listed(bands))
        frame = Frame(shape[1], arcsec, None if unit is None else u.Unit(unit), 1.0, names)
        own = None if psf is None else as_psf(psf, n_bands=shape[1], pixel_scale=arcsec, bands=names).kernels
        backend = self._backend_for(frame)
        if hasattr(backend, "batch"):
            return self._run(backend.batch, stamps, rng=generator, psf=own, variance=variance, pixel_scale=arcsec)
        variances = [None] * len(stamps) if variance is None else np.broadcast_to(variance, shape)
        results = [
            self._run(backend, Observation(stamp, variance=v, psf=own, pixel_scale=arcsec), rng=generator).data
            for stamp, v in zip(np.asarray(stamps), variances, strict=True)
        ]
        return np.stack(results).astype(np.float32)

    # ---- from what the user says to plain numbers -----------------------------------------------------------------

    def _check_physical(self, given):
        if given["rebin"] != 1 and given["pixel_scale"] is not None:
            raise InputError(
                f"rebin={given['rebin']!r} and pixel_scale={given['pixel_scale']!r} both set the output's pixels; "
                "give one of them"
            )
        if given["noise_level"] is not None and not _is_noise_backend(given["noise"]):
            raise InputError(
                f"noise_level={given['noise_level']!r} goes with a noise backend; "
                f"noise={given['noise']!r} is its own level"
            )
        if isinstance(given["noise"], str) and given["noise_level"] is None:
            raise InputError(
                f"noise={given['noise']!r} needs a level: noise_level=0.02*u.nmgy (a sigma), or "
                "noise_level=2.0 (a factor)"
            )
        if given["gain"] is None and given["survey"] is None:
            for name in ("sky", "read_noise", "exposure"):
                if given[name] is not None:
                    raise InputError(f"{name}={given[name]!r} needs gain=, the electrons per unit of flux")
        as_arcsec(given["pixel_scale"], "pixel_scale")
        as_arcsec(given["psf_scale"], "psf_scale")

    @staticmethod
    def _has_electrons(given):
        return given["gain"] is not None or given["survey"] is not None

    @staticmethod
    def _recipe_options(given):
        """Of the 2017 recipe: FWHM and ratio are the two that it shares with the physical backend."""
        extra = [name for name, value in given.items() if name not in ("psf", "noise", "match", "backend")]
        extra = [name for name in extra if not _is_default(name, given[name])]
        if extra:
            raise InputError(f"{', '.join(sorted(extra))} must be left out: the 2017 recipe has no such step")
        noise = given["noise"]
        return {} if noise is None else {"noise_ratio": noise}

    def _names_noise(self):
        """Whether the noise is drawn by a backend that this operator hands to the physical one."""
        return self._kind == "physical" and isinstance(self._name, str) and self._noise_backend is not None

    def _with_psf(self, read, psf):
        """What ``read(psf=, needs_psf=, needs_variance=)`` gives, with an error that helps where a PSF is missing."""
        blurs = self.psf is not None or self.survey is not None
        try:
            return read(
                psf=psf,
                needs_psf=self._needs("psf") or (self._kind == "physical" and self.match and blurs),
                needs_variance=self._needs("variance") or self._wants_factor(),
            )
        except PSFError as error:
            if psf is not None or self._kind != "physical" or not self.match:
                raise
            raise PSFError(
                "match=True brings the image from its own PSF to psf, and its own is neither given nor in its header, "
                "and cannot be built from its stars: give it at the call, psf=1.2*u.arcsec (--source-psf), or use "
                "match=False (--add), which blurs on top of the seeing that is there"
            ) from error

    def _wants_factor(self):
        """Whether noise is a factor of the image's own."""
        if self._kind != "physical" or self.noise is None:
            return False
        level = self.noise_level if _is_noise_backend(self.noise) else self.noise
        return level is not None and not hasattr(level, "unit")

    def _backend_for(self, frame):
        """The backend with everything in pixels, electrons and the observation's flux."""
        if self._kind == "physical":
            options = self._physical_options(frame)
        elif self._kind == "galaxygan2017":
            options = {"fwhm": fwhm_pixels(self.psf, frame.arcsec), "nanomaggy": frame.nanomaggy_of_recipe()}
        else:
            return self.backend
        if not isinstance(self._name, str):
            return self.backend
        return load_backend(self.role, self._name, self._static | options | self._own_options)[0]

    def _physical_options(self, frame):
        rebin = self._rebin_for(frame)
        if rebin != 1:
            frame.refuse_surface_brightness("rebinning sums fluxes")
        filters = self._filters(frame)
        options = {
            "psf": self._kernels(frame, filters),
            "match": self.match,
            "rebin": rebin,
            "saturation": frame.flux("saturation", self.saturation),
            "noiseless_input": self.noiseless_input,
        }
        gain = self._electrons_per_flux(frame, filters)
        options["gain"] = None if gain is None else gain * frame.scale
        if gain is not None:
            options["sky"] = self._sky(frame, filters, gain, rebin)
            options["read_noise"] = self._read_noise(filters)
        return options | self._noise_options(frame)

    def _rebin_for(self, frame):
        if self.pixel_scale is None:
            return self.rebin
        wanted = as_arcsec(self.pixel_scale, "pixel_scale")
        if frame.arcsec is None:
            raise InputError(
                f"pixel_scale={self.pixel_scale!r} of the output needs the input's: the image has no WCS, so give "
                "pixel_scale= at the call too (arcsec per pixel of the image)"
            )
        ratio = wanted / frame.arcsec
        if ratio < 1 - _SAME_SCALE:
            raise InputError(
                f"pixel_scale={wanted:g} arcsec is finer than the image's {frame.arcsec:.4g}: no degradation does "
                "that. Use pixel_scale=None to keep the image's pixels, or a Translator"
            )
        # A scale from a WCS has rounding errors; whole ratios are meant to be whole.
        return max(1, round(ratio)) if abs(ratio / max(1, round(ratio)) - 1) < _SAME_SCALE else ratio

    def _filters(self, frame):
        """The survey's filter of each band, or `None`."""
        if self.survey is None:
            return None
        names = frame.bands if self.bands is None else listed(self.bands)
        if len(names) != frame.n_bands:
            raise InputError(f"bands={self.bands!r} names {len(names)} bands; the image has {frame.n_bands}")
        if self.bands is None and len(self.survey.bands) == 1:
            return [self.survey.filters[0]] * frame.n_bands
        try:
            return [self.survey[name] for name in names]
        except InputError as error:
            raise InputError(
                f"{error}. Say which filters the image's bands are, e.g. "
                f"bands={list(self.survey.bands)[: frame.n_bands]}"
            ) from error

    def _kernels(self, frame, filters):
        from astropy import units as u

        from astrogan.image.psf import as_psf, resample_psf

        psf = self.psf
        if psf is None and filters is not None:
            if frame.arcsec is None:
                raise InputError(
                    f"the PSF of {self.survey.name} is in arcsec and the image has no WCS: give pixel_scale= "
                    "at the call"
                )
            psf = [f.fwhm * u.arcsec for f in filters]
        if psf is None:
            return None
        scale = as_arcsec(self.psf_scale, "psf_scale")
        if scale is not None and frame.arcsec is None:
            raise InputError(
                f"psf_scale={self.psf_scale!r} needs the image's pixel scale too: it has no WCS, so give "
                "pixel_scale= at the call"
            )
        model = as_psf(psf, n_bands=frame.n_bands, pixel_scale=scale or frame.arcsec, bands=frame.bands)
        if model.varies:
            warnings.warn("psf varies over the field; its centre's is used", PSFWarning, stacklevel=4)
        if scale is None:
            return model.kernels
        return _stacked([resample_psf(kernel, scale, frame.arcsec) for kernel in model.kernels])

    def _electrons_per_flux(self, frame, filters):
        """Electrons per unit of the image's flux, a number or one per band; `None` for no photon noise."""
        if self.gain is None:
            if filters is None:
                return None
            frame.refuse_surface_brightness("photon noise counts electrons per pixel")
            per_nanomaggy = np.array([f.electrons_per_nanomaggy for f in filters])
            return per_nanomaggy * frame.nanomaggies(self.zero_point, f"the noise of {self.survey.name}")
        gain = self.gain
        if hasattr(gain, "unit"):
            gain = frame.electrons_per_unit(gain, self.exposure)
        elif self.exposure is not None:
            gain = as_numbers(gain, "gain") * as_seconds(self.exposure)
        return as_numbers(gain, "gain")

    def _sky(self, frame, filters, gain, rebin):
        """Electrons per output pixel."""
        from astropy import units as u

        if self.sky is None:
            if filters is None:
                return 0.0
            scale = [frame.arcsec * rebin if frame.arcsec is not None else f.pixel_scale for f in filters]
            return np.array([f.sky_electrons * (s / f.pixel_scale) ** 2 for f, s in zip(filters, scale, strict=True)])
        if not isinstance(self.sky, u.Quantity):
            return self.sky
        if self.sky.unit.is_equivalent(u.electron):
            return self.sky.to_value(u.electron)
        brightness = surface_magnitude(self.sky)
        if brightness is None:
            return frame.in_unit("sky", self.sky) * gain
        if frame.arcsec is None:
            raise InputError(
                f"sky={self.sky} needs the pixel scale; the image has no WCS: give pixel_scale= at the call"
            )
        nanomaggies = 10 ** (0.4 * (22.5 - brightness)) * (frame.arcsec * rebin) ** 2
        return nanomaggies / frame.nanomaggies(self.zero_point, f"sky={self.sky}") * gain

    def _read_noise(self, filters):
        from astropy import units as u

        if self.read_noise is None:
            return 0.0 if filters is None else np.array([f.read_noise for f in filters])
        if not isinstance(self.read_noise, u.Quantity):
            return self.read_noise
        try:
            return self.read_noise.to_value(u.electron)
        except u.UnitConversionError as error:
            raise UnitError(f"read_noise={self.read_noise} must be in electrons") from error

    def _noise_options(self, frame):
        noise, level = self.noise, self.noise_level
        if noise is None:
            return {}
        options = {}
        if _is_noise_backend(noise):
            # The observation's flux is the image's over frame.scale; the backend learned in the image's.
            options |= {"noise": self._noise_backend, "noise_unit": frame.scale}
            if level is None and hasattr(self._noise_backend, "draw_sigma"):
                return options
            own = getattr(self._noise_backend, "sigma", None)
            if level is None and own is None:
                raise InputError(f"noise={noise!r} has no sigma of its own; give noise_level=")
            if level is None:
                return options | {"sigma": np.asarray(own, float) / frame.scale}
            noise = level
        if hasattr(noise, "unit"):
            return options | {"sigma": frame.flux("noise", noise)}
        return options | {"noise_factor": noise}


_KEYWORDS = {
    name: parameter.default
    for name, parameter in inspect.signature(Degrader.__init__).parameters.items()
    if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name not in ("self", "backend")
}


def _is_default(name, value):
    default = _KEYWORDS[name]
    return value is default or (isinstance(value, bool | int | float | str) and value == default)


def _kind_of(backend):
    if not isinstance(backend, str):
        return "instance"
    bare = backend.rsplit(":", 1)[-1]
    ours = backend in (bare, f"astrogan:{bare}")
    return bare if ours and bare in ("physical", "galaxygan2017") else "other"


def _survey(survey):
    if survey is None:
        return None
    from astrogan.simulate.surveys import get_survey

    return get_survey(survey)


def _is_noise_backend(noise):
    return isinstance(noise, str) or hasattr(noise, "sample")


def _noise_backend(noise):
    if not _is_noise_backend(noise):
        if noise is None or hasattr(noise, "unit"):
            return None
        array = np.asarray(noise)
        if array.dtype.kind not in "fiu":
            raise InputError(
                f"noise={noise!r} must be a Quantity (a sigma), a number (a factor of the image's own noise), or a "
                "noise backend"
            )
        return None
    return load_backend("noise", noise)[0]


def _shape_after(shape, backend):
    """Whole output pixels; what is left over at the far edges is dropped."""
    rebin = getattr(backend, "rebin", 1)
    if not rebin >= 1:
        raise BackendError(f"degrader {type(backend).__name__} has rebin={rebin!r}; it must be at least 1")
    # The allowance keeps ratios of measured pixel scales from losing the last pixel to rounding.
    return (shape[0], *(int(n / rebin + 1e-9) for n in shape[1:]))


def _grid_after(prepared, backend, shape_in, shape):
    from astrogan.image.wcs import rescale_wcs

    rebin = getattr(backend, "rebin", 1)
    return KEEP if rebin == 1 else rescale_wcs(prepared.wcs, 1 / rebin, shape_in, shape[1:])


def _wcs_after(prepared, backend, shape_in, shape):
    """Celestial WCS of the result, or `None`."""
    from astrogan.image.wcs import rescale_wcs

    if prepared.celestial is None or backend.rebin == 1:
        return prepared.celestial
    return rescale_wcs(prepared.celestial, 1 / backend.rebin, shape_in, shape[1:])


def _psf_after(observation, backend):
    """PSF of the result on its own pixels, where it is known: (band, k, k)."""
    from scipy.signal import fftconvolve

    from astrogan.image.psf import resample_psf, trim_psf

    if observation.psf is None or not hasattr(backend, "kernels"):
        return None
    blur = backend.kernels(observation.shape[0], observation.psf, observation.pixel_scale)
    planes = list(observation.psf)
    if blur is not None:
        blur = np.broadcast_to(blur, (len(planes), *blur.shape[1:]))
        planes = [fftconvolve(plane, kernel) for plane, kernel in zip(planes, blur, strict=True)]
    if backend.rebin != 1:
        planes = [resample_psf(plane, 1.0, backend.rebin) for plane in planes]
    return _stacked([trim_psf(plane, 0.9999) for plane in planes])


def _stacked(kernels):
    """Kernels of several odd sizes as one (band, k, k) array."""
    size = max(len(kernel) for kernel in kernels)
    return np.stack([np.pad(kernel, (size - len(kernel)) // 2) for kernel in kernels]).astype(np.float32)


def _with_true_header(prepared, backend):
    """The image without what its header says of the PSF, saturation and pixels that it has no longer."""
    rebin = getattr(backend, "rebin", 1)
    blurs = getattr(backend, "psf", True) is not None
    cuts = getattr(backend, "saturation", None) is not None
    if not (blurs or cuts) and rebin == 1:
        return prepared
    arcsec = prepared.observation.pixel_scale
    arcsec = None if arcsec is None else float(arcsec * rebin)
    true = {"widths": blurs, "regridded": rebin != 1, "pixel_scale": arcsec}
    notes = prepared.notes
    if rebin != 1 and arcsec is not None and prepared.celestial is None:
        notes = notes | {"PIXSCALE": arcsec}
    return prepared.replace(meta=tuple(without_stale_keywords(meta, **true) for meta in prepared.meta), notes=notes)


def _relabelled(prepared, backend):
    """Stretched values are no flux: they have no unit, and the header says so."""
    from astropy import units as u

    if getattr(backend, "output", "linear") not in ("stretched", "jpeg"):
        return prepared
    return prepared.replace(unit=u.dimensionless_unscaled, scale=1.0, notes=prepared.notes | {"AGLINEAR": False})
