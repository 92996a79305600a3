"""`Restorer`: a sharper, cleaner image from a degraded one."""

from __future__ import annotations

import numpy as np

from astrogan.exceptions import InputError
from astrogan.image.finish import finish
from astrogan.image.prepare import prepare
from astrogan.operators.base import Operator, as_generator

__all__ = ["Restorer"]

# A pixel is flagged where more than this part of what its PSF gathers was invalid.
_LOST = 0.25


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

    def __init__(self, backend="richardson-lucy", *, psf=None, tile=None, workers=None, progress=None, **options):
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
            Same unit, WCS and shape. Its uncertainty is what the method gives, or `None`.

        Raises
        ------
        InputError, UnitError, PSFError, ImageReadError
            If the image cannot be used; the message names the argument, its value and the remedy.
        ImageTooSmallError
            If it has fewer pixels than the backend needs.
        BackendError
            If the backend breaks its contract.
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
            psf_at=prepared.psf.at if prepared.psf is not None and prepared.psf.varies else None,
            progress=self.progress,
        )
        self._check_estimate(estimate, observation.shape)
        self._warn_no_uncertainty(prepared.had_uncertainty, estimate.variance)
        mask = ~observation.valid | _mostly_lost(observation)
        if estimate.flags is not None:
            mask |= estimate.flags
        same_psf = getattr(self.backend, "keeps_psf", False)
        if not same_psf:
            prepared = prepared.replace(meta=tuple(without_stale_keywords(meta) for meta in prepared.meta))
        return finish(
            prepared,
            estimate.data,
            variance=estimate.variance,
            mask=mask,
            psf=prepared.psf if same_psf else None,
            operation=self.operation,
            notes=self._notes(seed, estimate.info),
        )

    def diagnose(self, observed, restored, *, psf=None, **reading):
        """Compare a restored image, convolved with the PSF again, with what was observed.

        Parameters
        ----------
        observed, restored : path, `~astropy.nddata.NDData`, list or dict
            Of equal shape.
        psf : optional
            PSF of ``observed``; default as in a call.
        **reading
            For reading ``observed``, as in a call.

        Returns
        -------
        `~astrogan.operators.diagnostics.Diagnostics`
            Maps of chi^2 and residuals, the reduced chi^2, and flags. It finds what contradicts the data; it cannot
            find detail that was invented below the PSF's resolution.

        Raises
        ------
        InputError
            If the shapes differ.
        """
        from dataclasses import replace

        from astrogan.operators.diagnostics import diagnose

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
        return replace(report, variance_estimated=not before.had_uncertainty)


def _mostly_lost(observation):
    """Where invalid pixels hold more than a quarter of the light that the PSF spreads a pixel's flux over."""
    if observation.valid.all() or observation.psf is None:
        return np.zeros(observation.shape, bool)
    from astrogan.image.psf import convolve

    invalid = (~observation.valid).astype(np.float32)
    return np.stack([convolve(p, k) > _LOST for p, k in zip(invalid, observation.psf, strict=True)])
