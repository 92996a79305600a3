"""`Restorer`: a sharper, cleaner image from a degraded one."""

from __future__ import annotations

import numpy as np

from astrogan.api import Estimate
from astrogan.exceptions import BackendError, InputError
from astrogan.image.finish import finish
from astrogan.image.mask import RestorationFlag, restoration_flags
from astrogan.image.prepare import prepare
from astrogan.operators.base import Operator, as_generator

__all__ = ["Restorer"]

_MASKED = int(RestorationFlag.INVALID | RestorationFlag.LOST | RestorationFlag.UNTRUSTED)


class Restorer(Operator):
    """Restore images: undo blur and noise.

    Parameters
    ----------
    backend : str or object, optional
        A name from ``list_backends("restorer")``, ``"distribution:name"``, or an instance.
    psf : optional
        PSF of the images, in any form that `~astrogan.image.psf.as_psf` takes: a FWHM as a `~astropy.units.Quantity`
        (an angle goes through the WCS) or in pixels, a kernel, a PSF model, one per band, or a grid over the field.
        Default: the image's own, its header's, or, where the backend needs one, one built from its stars.
    tile : int, optional
        Edge of the tiles, halo included, in pixels. Default: what is quickest for the backend.
    workers : int, optional
        Threads. Default: as many as the process may use cores.
    progress : callable, optional
        ``progress(done, total)``, called as tiles finish.
    **options
        For the backend, e.g. ``iterations=30``.

    Raises
    ------
    InputError
        If an option is unknown or out of range.

    Notes
    -----
    Tiles overlap by as many pixels as an output pixel depends on, so the result does not depend on them. Pixels that
    were invalid, and those most of whose light fell on invalid ones, are masked in the result.

    ``flags`` of a `~astropy.nddata.CCDData` result say why, pixel by pixel, as bits of
    `~astrogan.image.mask.RestorationFlag`, and more than the mask does: where the image is brighter than what a learned
    method has been trained on. Results of such methods always have them, others where a pixel is flagged. They are
    written and read with the image. An image that lies a factor 1.5 or more outside the training is warned of, once an
    operator.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astrogan import Restorer
    >>> image = CCDData(np.pad(np.ones((1, 1)), 16), unit="adu")
    >>> restored = Restorer("richardson-lucy", psf=3.0, iterations=5)(image)
    >>> restored.unit, restored.shape
    (Unit("adu"), (33, 33))
    """

    role = "restorer"
    operation = "restore"

    def __init__(self, backend="nafnet", *, psf=None, tile=None, workers=None, progress=None, **options):
        super().__init__(backend, **options)
        for name, value, smallest in (("tile", tile, 8), ("workers", workers, 1)):
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if value is not None and (not whole or value < smallest):
                raise InputError(f"{name}={value!r} must be None or an integer of at least {smallest}")
        self.psf = psf
        self.tile = tile
        self.workers = workers
        self.progress = progress

    def __call__(self, image, *, psf=None, rng=0, **reading):
        """Restore one image.

        Parameters
        ----------
        image : path, `~astropy.nddata.NDData`, list or dict
            2-D, or 3-D with axes (band, y, x), or equal-shaped 2-D ones, one a band. Never changed.
        psf : optional
            Overrides the operator's.
        rng : int or `numpy.random.Generator`
            For backends that draw random numbers.
        **reading
            ``unit``, ``hdu``, ``uncertainty``, ``uncertainty_type``, ``mask``, ``saturation``, ``pixel_scale``,
            ``max_pixels``: see `~astrogan.image.prepare.prepare`.

        Returns
        -------
        Same form as ``image`` (a path gives `~astropy.nddata.CCDData`)
            Same unit, WCS and shape. Its uncertainty is what the method gives, or `None`; its ``flags`` see the notes
            of the class.

        Raises
        ------
        InputError, UnitError, PSFError, ImageReadError
            If the image cannot be used; the message names the argument, its value and the remedy.
        ImageTooSmallError
            If it has fewer pixels than the backend needs.
        BackendError
            If the backend breaks its contract.

        Warns
        -----
        OutOfRangeWarning
            If the backend says that the image lies far outside what it was trained on.
        """
        from astrogan.image.provenance import without_stale_keywords
        from astrogan.image.tiling import run_tiled

        seed, generator = rng, as_generator(rng)

        prepared = self._read(
            image,
            reading,
            psf=self.psf if psf is None else psf,
            needs_psf=self._needs("psf"),
            needs_variance=self._needs("variance"),
        )
        observation = prepared.observation
        self._check_size(observation.shape)
        estimate = self._run(
            run_tiled,
            self.backend,
            observation,
            rng=generator,
            tile=self.tile,
            workers=self.workers,
            psf_at=_psf_at(prepared),
            progress=self.progress,
        )
        self._check_estimate(estimate, observation.shape)
        self._warn_no_uncertainty(prepared.had_uncertainty, estimate.variance)
        self._warn_out_of_range(observation, estimate.info)
        flags = self._flags(prepared)
        if estimate.flags is not None:
            flags[estimate.flags] |= np.uint8(RestorationFlag.UNTRUSTED)
        same_psf = getattr(self.backend, "keeps_psf", False)
        if not same_psf:
            prepared = prepared.replace(meta=tuple(without_stale_keywords(meta) for meta in prepared.meta))
        return finish(
            prepared,
            estimate.data,
            variance=estimate.variance,
            mask=(flags & _MASKED) != 0,
            flags=flags if flags.any() or hasattr(self.backend, "pixel_flags") else None,
            psf=prepared.psf if same_psf else None,
            operation=self.operation,
            notes=self._notes(seed, estimate.info),
        )

    def batch(self, stamps, rng=0, *, psf=None, variance=None, pixel_scale=None, bands=None):
        """Restore many stamps at once, as plain arrays: no files, masks, flags or WCS.

        Parameters
        ----------
        stamps : array_like
            (n, band, y, x), finite.
        rng : int or `numpy.random.Generator`
            For backends that draw random numbers.
        psf : optional
            The PSF of all stamps; overrides the operator's.
        variance : array_like, optional
            Theirs, of their shape or broadcasting to it. Where the backend needs it and none is given, it is that of
            each stamp's background.
        pixel_scale : float or `~astropy.units.Quantity`, optional
            Arcsec per pixel, where the PSF is given as an angle.
        bands : str or sequence of str, optional
            Names of the bands.

        Returns
        -------
        data : `numpy.ndarray`
            float32, (n, band, y, x).
        variance : `numpy.ndarray` or None
            What the method gives, likewise.

        Raises
        ------
        InputError
            If the stamps are not (n, band, y, x) or not finite.
        PSFError
            If the backend needs a PSF and there is none.
        BackendError
            If the backend breaks its contract.

        Notes
        -----
        ``richardson-lucy`` restores two stamps with one transform and works on as many pairs at once as there are
        ``workers``; ``nafnet`` puts stamps of equal shape through the network together; other methods take one stamp
        after the other. The result is that of single calls, to within rounding.

        Examples
        --------
        >>> import numpy as np
        >>> from astrogan import Restorer
        >>> stamps = np.zeros((8, 3, 64, 64), np.float32)
        >>> stamps[:, :, 32, 32] = 100
        >>> data, variance = Restorer("richardson-lucy", psf=3.0, iterations=5).batch(stamps)
        >>> data.shape, variance is None
        ((8, 3, 64, 64), True)
        """
        from astrogan.operators._restorer_batch import restore_stamps

        return restore_stamps(
            self,
            stamps,
            psf=self.psf if psf is None else psf,
            variance=variance,
            generator=as_generator(rng),
            pixel_scale=pixel_scale,
            bands=bands,
        )

    def process(
        self,
        image,
        output,
        *,
        psf=None,
        rng=0,
        tile=None,
        client=None,
        overwrite=False,
        resume=True,
        **reading,
    ):
        """Restore an image larger than memory, from file to file.

        Parameters
        ----------
        image : path, list or dict of paths
            A FITS file, plain or compressed by tiles, or a Zarr array; or one file a band. Windows of it are read, one
            for each worker at a time.
        output : path
            The FITS file to write.
        psf : optional
            Overrides the operator's; one that varies is one over the whole mosaic.
        rng : int
            Seed, for backends that draw random numbers.
        tile : int, optional
            Edge in pixels of the windows that a worker reads and restores at a time (768, smaller for an image of less
            than 16 such). It changes memory and time, and not one bit of the result; the operator's own ``tile`` is
            that of the method's tiles in them.
        client : `distributed.Client` or `concurrent.futures.Executor`, optional
            Who does the work; the workers must see the input under the same path. Default: the operator's ``workers``
            threads.
        overwrite : bool, optional
            Replace an existing output.
        resume : bool, optional
            Go on from what an earlier call left in ``OUTPUT.partial`` when it was killed. If False it is thrown away.
        **reading
            ``unit``, ``hdu``, ``uncertainty``, ``uncertainty_type``, ``mask``, ``saturation``, ``pixel_scale``, as in a
            call; uncertainty and mask are HDUs or files.

        Returns
        -------
        `pathlib.Path`
            The output: data, mask, flags and, where the method gives one, uncertainty. `~astrogan.read_image` reads it,
            whole or in part.

        Raises
        ------
        InputError, UnitError, PSFError, ImageReadError
            If the image cannot be used, the method needs the whole of it at once, another process writes the same
            output, or a partial output is of another input, method or seed.
        ImageWriteError
            If the output exists, or cannot be written.
        BackendError
            If the backend breaks its contract.

        Notes
        -----
        What belongs to the whole image (sky, noise level, a PSF from stars, a balance that is found) is measured once.
        Images of up to 2048 x 2048 pixels are measured whole, and the result is that of a call to the last bit, but for
        what lies next to masked pixels. Of larger ones 16 patches of 512 x 512 pixels stand for the whole; the noise of
        an image without an uncertainty is measured every 1024 pixels.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from astropy.nddata import CCDData
        >>> from astrogan import Restorer, read_image, write_image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, result = Path(folder) / "in.fits", Path(folder) / "out.fits"
        ...     write_image(CCDData(np.ones((100, 100)), unit="adu"), source)
        ...     _ = Restorer("gaussian", fwhm=2.0).process(source, result)
        ...     read_image(result).shape
        (100, 100)
        """
        from astrogan.operators._mosaic import restore_mosaic

        return restore_mosaic(
            self,
            image,
            output,
            psf=self.psf if psf is None else psf,
            rng=rng,
            tile=tile,
            client=client,
            overwrite=overwrite,
            resume=resume,
            masked=_MASKED,
            progress=self.progress,
            **reading,
        )

    def diagnose(self, observed, restored, *, psf=None, ensemble=False, rng=0, **reading):
        """Compare a restored image, convolved with the PSF again, with what was observed.

        Parameters
        ----------
        observed, restored : path, `~astropy.nddata.NDData`, list or dict
            Of equal shape.
        psf : optional
            PSF of ``observed``; default as in a call.
        ensemble : bool, optional
            Also restore ``observed`` turned and mirrored in all eight ways, and give the scatter of the results, where
            the method has such a thing: eight times the work of a call.
        rng : int or `numpy.random.Generator`, optional
            For that.
        **reading
            For reading ``observed``, as in a call.

        Returns
        -------
        `~astrogan.operators.diagnostics.Diagnostics`
            Maps of chi^2 and residuals, the reduced chi^2, and flags; for learned methods also how far the image lies
            outside the training. It finds what contradicts the data; it cannot find detail that was invented below the
            PSF's resolution.

        Raises
        ------
        InputError
            If the shapes differ.
        BackendError
            If the backend breaks its contract.
        """
        from dataclasses import replace

        from astrogan.operators.diagnostics import diagnose

        generator = as_generator(rng)
        before = self._read(
            observed,
            reading,
            psf=self.psf if psf is None else psf,
            needs_psf=True,
            needs_variance=True,
        )
        after = prepare(restored, unit=reading.get("unit"))
        if after.observation.shape != before.observation.shape:
            raise InputError(
                f"restored has shape {after.observation.shape}; "
                f"observed has {before.observation.shape}: they must agree"
            )
        if before.unit != after.unit and before.unit is not None:
            raise InputError(f"restored has unit {after.unit}; observed has {before.unit}: convert one of them")
        data = after.observation.data * np.float32(after.scale / before.scale)
        report = diagnose(before.observation, data, before.psf.kernels)
        return replace(
            report,
            variance_estimated=not before.had_uncertainty,
            out_of_range=self._out_of_range(before.observation),
            ensemble_spread=self._ensemble_spread(before, generator) if ensemble else None,
            flag_bits=report.flag_bits | self._flags(before),
        )

    def _flags(self, prepared):
        """What is known of each pixel before it is restored: `RestorationFlag` bits, (band, y, x)."""
        observation = prepared.observation
        flags = restoration_flags(observation.valid, observation.psf, prepared.saturated)
        if hasattr(self.backend, "pixel_flags"):
            own = np.asarray(self._run(self.backend.pixel_flags, observation))
            if own.shape != flags.shape or own.dtype != np.uint8:
                raise BackendError(
                    f"{self.role} {self.backend_name!r} returned pixel_flags of shape {own.shape} and dtype "
                    f"{own.dtype}; expected {flags.shape} and uint8"
                )
            flags |= own
        return flags

    def _out_of_range(self, observation):
        if not hasattr(self.backend, "out_of_range"):
            return None
        return float(self._run(self.backend.out_of_range, observation))

    def _ensemble_spread(self, prepared, generator):
        """The scatter of the ensemble in the image's unit, or `None` where the method has none."""
        from astrogan.image.tiling import run_tiled

        if not hasattr(self.backend, "ensemble_spread"):
            return None
        spread = self._run(
            run_tiled,
            _Spread(self.backend),
            prepared.observation,
            rng=generator,
            tile=self.tile,
            workers=self.workers,
            psf_at=_psf_at(prepared),
            progress=self.progress,
        )
        return spread.data * np.float32(prepared.scale)


class _Spread:
    """A backend whose estimate is another's ensemble spread, so that the tile engine cuts the one as the other."""

    def __init__(self, backend):
        self._backend = backend

    def __getattr__(self, name):
        if name in ("name", "halo", "halo_for", "tile_size", "tile_align"):
            return getattr(self._backend, name)
        raise AttributeError(name)

    def for_image(self, observation):
        settle = getattr(self._backend, "for_image", None)
        return self if settle is None else _Spread(settle(observation))

    def __call__(self, observation, *, rng):
        return Estimate(self._backend.ensemble_spread(observation, rng=rng))


def _psf_at(prepared):
    """The PSF as a function of the position, where it varies."""
    return prepared.psf.at if prepared.psf is not None and prepared.psf.varies else None
