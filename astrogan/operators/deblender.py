"""`~astrogan.Deblender`: an image's sources, one image each, that add up to it exactly."""

from __future__ import annotations

import numpy as np

from astrogan.api import Separation, Template
from astrogan.exceptions import BackendError, InputError, UnitError, WCSError
from astrogan.operators._deblend_catalog import share_out
from astrogan.operators._deblend_result import FLAGS, DeblendResult
from astrogan.operators.base import Operator, as_generator

__all__ = ["FLAGS", "DeblendResult", "Deblender"]

# Positions nearer than this, in pixels, are the same one.
_SAME = 1e-3

# What a template may say of itself; all other flags are found here.
_TEMPLATE_FLAGS = Template.FAILED | Template.NOFIT


class Deblender(Operator):
    """Separate overlapping sources.

    Parameters
    ----------
    backend : str or object, optional
        A name from ``list_backends("deblender")``, ``"distribution:name"``, or an instance. The default,
        `~astrogan.backends.gan.ratio_net.Hybrid`, fits profiles and corrects the shares with a network.
    psf : optional
        PSF of the images, in any form that `~astrogan.image.psf.as_psf` takes. Default: the image's own, else its
        header's, else, where the backend needs one, one built from its stars; where that fails, too, the default
        backend assumes a Gaussian of 2.5 pixels FWHM, and says so.
    background : None or 'local', optional
        With `None` the image is taken to be sky-subtracted. With ``"local"`` the background is measured (see
        `~astrogan.image.uncertainty.background_rms`) and left out of the sources: it stays in the residual.
    workers : int, optional
        Threads that work on blends. Default: as many as the process may use cores. The result does not depend on it.
    progress : callable, optional
        ``progress(done, total)``, in sources, called as blends are finished.
    **options
        For the backend, e.g. ``threshold=2``.

    Raises
    ------
    InputError
        If an option is unknown or out of range.

    Notes
    -----
    The backend gives each source i a template m_i >= 0; the source's image is c_i = image m_i / sum_j m_j, computed in
    float64, where that sum is positive and the pixel is valid. All else is the residual, so the sources and the
    residual add up to the image whatever the templates, noise included, positive and negative. The templates
    themselves, which have no noise of the image's own, are the ``models``.

    A source's variance is the share m_i / sum_j m_j of the image's: as if photons were dealt out, so that the
    variances add up, too. ``flux_err`` of the catalog is the square root of its sum and of what the backend says of
    the flux's variance by an uncertain template (``flux_variance`` of `~astrogan.api.Template`; many backends say
    nothing): noise and division are taken to be independent. Without an uncertainty in the image, sources have none,
    and ``flux_err`` comes from the noise of the background.

    Where the backend works on one blend at a time (`~astrogan.image.blends`), an image may be of any size: blends are
    groups of sources whose pixels touch, each is cut out with the PSF of its place, where that varies, and several are
    worked on at the same time. A blend that such a backend cannot solve for numerical reasons is divided along its
    segments, flagged ``FAILED`` and warned of.

    ``flags`` of the catalog are sums of

    =========  ===  ==================================================================================
    EDGE         1  the source's light reaches the image's edge
    MASKED       2  it falls on masked pixels, or the position is on one
    BLENDED      4  it is shared with another source
    EMPTY        8  there is none
    SATURATED   16  it falls on saturated pixels
    FAILED      32  the backend could not model the source; its template is a stand-in
    CLOSE       64  another one is nearer than half the PSF's FWHM, or 1.5 pixels: the division is arbitrary
    NOFIT      128  the backend's fit of the source did not settle
    =========  ===  ==================================================================================

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astrogan import Deblender
    >>> y, x = np.mgrid[:40, :60]
    >>> flux = sum(f * np.exp(-((x - x0) ** 2 + (y - 20) ** 2) / 8) for f, x0 in ((100, 25), (50, 33)))
    >>> image = CCDData(flux + np.random.default_rng(0).normal(0, 0.5, flux.shape), unit="adu")
    >>> result = Deblender(psf=4.7)(image)  # FWHM in pixels
    >>> result
    <DeblendResult: 2 sources in an image of (40, 60)>
    >>> bool(np.allclose(result.recompose().data, image.data, atol=1e-4))
    True
    """

    role = "deblender"
    operation = "deblend"

    def __init__(self, backend="hybrid", *, psf=None, background=None, workers=None, progress=None, **options):
        super().__init__(backend, **options)
        whole = isinstance(workers, int | np.integer) and not isinstance(workers, bool)
        if workers is not None and (not whole or workers < 1):
            raise InputError(f"workers={workers!r} must be None or an integer of at least 1")
        if background not in (None, "local"):
            raise InputError(f"background={background!r} must be None (the image is sky-subtracted) or 'local'")
        self.psf = psf
        self.background = background
        self.workers = workers
        self.progress = progress

    def __call__(self, image, positions=None, *, psf=None, rng=0, **reading):
        """Separate the sources of one image.

        Parameters
        ----------
        image : path, `~astropy.nddata.NDData`, list or dict
            2-D, or 3-D with axes (band, y, x), or equal-shaped 2-D ones, one a band. Never changed.
        positions : optional
            Where the sources are: an array of shape (source, 2) with (x, y) in 0-based pixels, a
            `~astropy.coordinates.SkyCoord`, or a `~astropy.table.Table` with columns ``x`` and ``y`` (pixels) or
            ``ra`` and ``dec`` (degrees, unless they have a unit). Default: they are detected.
        psf : optional
            Overrides the operator's.
        rng : int or `numpy.random.Generator`
            For backends that draw random numbers.
        **reading
            ``unit``, ``hdu``, ``uncertainty``, ``uncertainty_type``, ``mask``, ``saturation``, ``pixel_scale``,
            ``max_pixels``: see `~astrogan.image.prepare.prepare`.

        Returns
        -------
        `DeblendResult`
            With one source per position, in their order; empty, with the image as residual, where none is detected.

        Raises
        ------
        InputError, UnitError, PSFError, ImageReadError
            If the image cannot be used, the backend takes another number of bands, or a position is not finite, outside
            the image or there twice.
        WCSError
            If positions are on the sky and the image has no WCS.
        BackendError
            If the backend breaks its contract.

        Warns
        -----
        AstroganWarning
            If the backend could not solve some blends.
        """
        seed, generator = rng, as_generator(rng)

        prepared = self._read(
            image,
            reading,
            psf=self.psf if psf is None else psf,
            needs_psf=self._needs("psf"),
            needs_variance=True,
        )
        self._check_size(prepared.observation.shape)
        self._check_bands(prepared.observation)
        if positions is not None:
            positions = _pixel_positions(positions, prepared.celestial, prepared.observation.shape)
        return self._deblended(prepared, positions, generator, seed)[0]

    def process(
        self,
        image,
        output,
        positions=None,
        *,
        psf=None,
        rng=0,
        overlap=128,
        table="ecsv",
        tile=None,
        client=None,
        overwrite=False,
        resume=True,
        **reading,
    ):
        """Separate the sources of an image larger than memory, from a file to a folder.

        Parameters
        ----------
        image : path, list or dict of paths
            A FITS file, plain or compressed by tiles, or a Zarr array; or one file a band. Windows of it are read, one
            for each worker at a time.
        output : path
            A folder, which is made: ``catalog.ecsv``, ``segmentation.fits`` and ``residual.fits`` are written there.
        positions : optional
            Where the sources are, as in a call. Default: they are detected.
        psf : optional
            Overrides the operator's; one that varies is one over the whole mosaic, and that of its middle in a window.
        rng : int
            Seed, for backends that draw random numbers.
        overlap : int, optional
            Pixels by which the windows go beyond the part of the image that they answer for, on each side. Blends
            should be smaller.
        table : {'ecsv', 'fits'}, optional
            Kind of the catalog.
        tile : int, optional
            Edge in pixels of the square of windows that a worker is given at a time (2048). It changes how work is
            dealt out, and not one bit of the result.
        client : `distributed.Client` or `concurrent.futures.Executor`, optional
            Who does the work; the workers must see the input under the same path. Default: the operator's ``workers``
            threads.
        overwrite : bool, optional
            Replace existing results.
        resume : bool, optional
            Go on from what an earlier call left in the folder when it was killed. If False it is thrown away.
        **reading
            ``unit``, ``hdu``, ``uncertainty``, ``uncertainty_type``, ``mask``, ``saturation``, ``pixel_scale``, as in a
            call; uncertainty and mask are HDUs or files.

        Returns
        -------
        `pathlib.Path`
            The folder. Its catalog has the columns of `DeblendResult.catalog`, and is written before the images are
            given their names.

        Raises
        ------
        InputError, UnitError, PSFError, WCSError, ImageReadError
            If the image or the positions cannot be used, another process writes the same output, or a partial output is
            of another input, method, seed or overlap.
        ImageWriteError
            If the output exists, or cannot be written.
        BackendError
            If the backend breaks its contract.

        Notes
        -----
        The image is cut into parts of about 1024 x 1024 pixels, each of which is seen in a window with ``overlap`` on
        all sides. A source belongs to the part that its position lies in; where two windows see it on different sides
        of a border, it is taken once. Its flux, flags and the rest are those that its own window gives, so that they
        are those of a call as far as its blend lies in the window. A blend that does not is cut at the window's edge,
        which ``EDGE`` of ``flags`` says, and the windows that share it may divide it differently: then fluxes of its
        sources, residual and labels need not agree there to the last digit, and a pixel whose source only the other
        window knows has label 0. Sky and noise are measured as in `astrogan.Restorer.process`, but that the background
        under the detection is that of each window, so that sources at the very threshold may come and go.

        Labels in ``segmentation.fits`` are the catalog's ``id``: in the order of the positions that are given, else
        part by part.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from astropy.nddata import CCDData
        >>> from astropy.table import QTable
        >>> from astrogan import Deblender, write_image
        >>> y, x = np.mgrid[:40, :60]
        >>> flux = sum(f * np.exp(-((x - x0) ** 2 + (y - 20) ** 2) / 8) for f, x0 in ((100, 25), (50, 33)))
        >>> flux += np.random.default_rng(0).normal(0, 0.5, flux.shape)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source = Path(folder) / "in.fits"
        ...     write_image(CCDData(flux, unit="adu"), source)
        ...     result = Deblender("watershed").process(source, Path(folder) / "deblended")
        ...     len(QTable.read(result / "catalog.ecsv"))
        2
        """
        from astrogan.operators._mosaic_deblend import deblend_mosaic

        return deblend_mosaic(
            self,
            image,
            output,
            positions,
            psf=self.psf if psf is None else psf,
            rng=rng,
            overlap=overlap,
            table=table,
            tile=tile,
            client=client,
            overwrite=overwrite,
            resume=resume,
            **reading,
        )

    def _deblended(self, prepared, positions, rng, seed):
        """The sources of an image that has been read, and what the backend notes."""
        observation = _less_background(prepared.observation) if self.background else prepared.observation
        if positions is not None and len(positions) == 0:
            separation = Separation(())
        else:
            separation = self._separated(prepared, observation, positions, rng)
            self._check_separation(separation, observation, positions)
        return share_out(prepared, observation, separation, self._noted(seed, separation.info, observation)), separation

    def _noted(self, seed, info, observation):
        notes = self._notes(seed, info)
        if len(observation.bands) > 1:
            notes["AGBANDS"] = ",".join(observation.bands)
        return notes

    def _check_bands(self, observation):
        wanted, given = getattr(self.backend, "bands", None), len(observation.bands)
        if wanted is not None and wanted != given:
            raise InputError(
                f"image has {given} band{'' if given == 1 else 's'} ({', '.join(observation.bands)}); "
                f"{self.backend_name} takes {wanted}: give as many, or use another backend"
            )

    def _separated(self, prepared, observation, positions, rng):
        """The backend's templates: blend by blend where it can do that, of the whole image where not."""
        if not (hasattr(self.backend, "detect") and hasattr(self.backend, "separate")):
            separation = self._run(self.backend, observation, positions, rng=rng)
            if self.progress is not None:
                self.progress(1, 1)
            return separation
        from astrogan.image.blends import solve_blends

        return self._run(
            solve_blends,
            self.backend,
            observation,
            positions,
            rng=rng,
            workers=self.workers,
            psf_at=prepared.psf.at if prepared.psf is not None and prepared.psf.varies else None,
            progress=self.progress,
        )

    def _check_separation(self, separation, observation, positions):
        """Hold a backend's `~astrogan.api.Separation` to the contract."""
        who = f"{self.role} {self.backend_name!r}"
        if not hasattr(separation, "templates"):
            raise BackendError(f"{who} returned {type(separation).__name__}; it must return a Separation")
        if positions is not None and len(separation.templates) != len(positions):
            raise BackendError(f"{who} returned {len(separation.templates)} templates for {len(positions)} positions")
        for i, template in enumerate(separation.templates):
            fault = _fault(template, observation.shape)
            if fault:
                raise BackendError(f"{who}: {fault.format(f'template {i}')}")
        height, width = observation.shape[1:]
        labels = separation.segmentation
        if labels is not None and np.shape(labels) != (height, width):
            raise BackendError(f"{who}: segmentation has shape {np.shape(labels)}; it must be {(height, width)}")


def _fault(template, shape):
    """What is wrong with a template, with ``{}`` for its name; `None` if nothing is."""
    bands, height, width = shape
    data = np.asarray(template.data)
    if data.ndim != 3 or len(data) != bands or 0 in data.shape or data.dtype.kind != "f":
        return f"{{}} has shape {data.shape} and dtype {data.dtype}; it must be ({bands}, height, width) floats"
    (y, x), (h, w) = template.origin, data.shape[1:]
    if not (0 <= y <= height - h and 0 <= x <= width - w):
        return f"{{}}, {h} x {w} pixels at (y, x) = ({y}, {x}), leaves the image of {height} x {width}"
    if not np.isfinite(template.position).all():
        return f"position of {{}} is {tuple(template.position)}; it must be finite"
    for name, wanted in (("data", data.shape), ("variance", data.shape), ("flux_variance", (bands,))):
        array = getattr(template, name, None)
        if array is None:
            continue
        if np.shape(array) != wanted:
            return f"{name} of {{}} has shape {np.shape(array)}; it must be {wanted}"
        # One look: a sum of squares would overflow, the least and the largest value say all.
        if not (np.min(array) >= 0 and np.max(array) < np.inf):
            return f"{name} of {{}} is negative or not finite somewhere"
    flags = getattr(template, "flags", 0)
    if not isinstance(flags, int | np.integer) or flags & ~_TEMPLATE_FLAGS:
        return f"flags of {{}} are {flags!r}; they may be Template.FAILED and Template.NOFIT"
    return None


def _less_background(observation):
    """The observation without its background."""
    from astrogan.image.uncertainty import background_rms

    background = [background_rms(p, v)[0] for p, v in zip(observation.data, observation.valid, strict=True)]
    return observation.replace(data=observation.data - np.stack(background))


def _pixel_positions(positions, wcs, shape):
    """Positions of any form as a checked (source, 2) array of pixels."""
    from astropy.coordinates import SkyCoord
    from astropy.table import Row, Table

    if isinstance(positions, Row):
        positions = Table(positions)
    if isinstance(positions, Table):
        positions = _from_table(positions)
    if isinstance(positions, SkyCoord):
        positions = _from_sky(positions, wcs)
    try:
        xy = np.array(positions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"positions={type(positions).__name__} must be a (source, 2) array of (x, y), a SkyCoord, or a Table"
        ) from error
    if xy.size == 0:
        return np.empty((0, 2))
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise InputError(f"positions has shape {xy.shape}; it must be (source, 2), each row (x, y) in pixels")
    _check_positions(xy, shape)
    return xy


def _from_table(table):
    """(x, y) or a SkyCoord from a table's columns, whatever their case."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    names = {name.lower(): name for name in table.colnames}
    for x, y in (("x", "y"), ("x_centroid", "y_centroid"), ("xcentroid", "ycentroid")):
        if x in names and y in names:
            return np.stack([_pixels(table[names[axis]], names[axis]) for axis in (x, y)], axis=-1)
    for lon, lat in (("ra", "dec"), ("raj2000", "dej2000")):
        if lon in names and lat in names:
            pair = [table[names[lon]], table[names[lat]]]
            try:
                return SkyCoord(*(u.Quantity(_unmasked(c), getattr(c, "unit", None) or u.deg) for c in pair))
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"positions: columns {names[lon]!r} and {names[lat]!r} are no positions on the sky "
                    f"({' '.join(str(error).split())}); give degrees"
                ) from error
    for name in table.colnames:
        if isinstance(table[name], SkyCoord):
            return table[name]
    raise InputError(
        f"positions has columns {', '.join(table.colnames)}; it needs x and y (0-based pixels) or ra and dec"
    )


def _pixels(column, name):
    from astropy import units as u

    unit = getattr(column, "unit", None)
    if unit not in (None, u.pix, u.dimensionless_unscaled):
        raise UnitError(f"positions: column {name!r} has unit {unit}; give pixels, or ra and dec")
    try:
        values = np.asarray(getattr(_unmasked(column), "value", _unmasked(column)), np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"positions: column {name!r} holds {column.dtype}; it must hold numbers") from error
    if values.ndim != 1:
        raise InputError(f"positions: column {name!r} has rows of {values.shape[1:]} values; it must have one a row")
    return values


def _unmasked(column):
    """Masked entries become NaN, which the check of positions names."""
    return column.astype(float).filled(np.nan) if hasattr(column, "filled") else column


def _from_sky(sky, wcs):
    if wcs is None:
        raise WCSError("positions are on the sky and the image has no celestial WCS; give pixels, or add a WCS")
    x, y = wcs.world_to_pixel(sky)
    return np.stack([np.atleast_1d(x), np.atleast_1d(y)], axis=-1)


def _check_positions(xy, shape):
    from scipy.spatial import cKDTree

    height, width = shape[1:]
    for i, (x, y) in enumerate(xy):
        if not (np.isfinite(x) and np.isfinite(y)):
            raise InputError(f"positions[{i}] = ({x}, {y}) is not finite; leave that source out")
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
            raise InputError(
                f"positions[{i}] = ({x:.6g}, {y:.6g}) lies outside the image of {width} x {height} pixels (x, y); "
                "leave that source out, or check the order of x and y"
            )
    pairs = cKDTree(xy).query_pairs(_SAME)
    if pairs:
        i, j = min(pairs)
        raise InputError(
            f"positions[{i}] and positions[{j}] are the same, ({xy[i, 0]:.6g}, {xy[i, 1]:.6g}); keep one of them"
        )
