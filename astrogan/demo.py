"""The main job from end to end, on a simulated field: degrade, restore, deblend, translate, compare, show.

Needs no network and no GPU. What it writes is what a user's own run would: FITS files, tables, and one figure.
"""

from __future__ import annotations

import importlib
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from astrogan.exceptions import AstroganError, ImageWriteError, InputError, MissingDependencyError

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["DemoResult", "run_demo"]

_BASELINES = ("identity", "gaussian")
_REFERENCE = "(the original)"
_DEGRADED_FWHM = 1.5  # arcsec
_NOISE_FACTOR = 2.0
_SOFTENING = 10.0  # sky sigma
_BRIGHT = 21.5  # magnitude of the faintest galaxies measured
_TARGET = "sdss"
# No weights come with it: it is for those who train it.
_UNTRAINED = ("galaxygan2017",)
# Takes stamps of two sizes only.
_STAMPS_ONLY = ("lin2020",)
_FIGURE = "astrogan_demo.png"


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration made.

    Parameters
    ----------
    files : list of `~pathlib.Path`
        All that was written, in order.
    tables : dict of str to `~astropy.table.Table`
        By title; each has a ``caption`` in its ``meta`` that says what the columns are.
    figure : `~pathlib.Path`
        The PNG.
    """

    files: list[Path]
    tables: dict[str, Table]
    figure: Path


def run_demo(out_dir, *, size=384, seed=0, overwrite=False, progress=None):
    """Run every operator on a simulated field and compare the results with the truth.

    Parameters
    ----------
    out_dir : path-like
        Folder for the results; made where it does not exist.
    size : int, optional
        Edge of the field in pixels of 0.2 arcsec.
    seed : int, optional
        Fixes the field and all noise.
    overwrite : bool, optional
        Replace files of an earlier run.
    progress : callable, optional
        ``progress(text)``, called as each step begins.

    Returns
    -------
    `DemoResult`

    Raises
    ------
    InputError
        If ``size`` or ``seed`` cannot be used.
    ImageWriteError
        If a file exists and ``overwrite`` is not set; nothing is computed or written then.
    MissingDependencyError
        If GalSim or matplotlib is not installed.
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 128:
        raise InputError(f"size={size!r} must be an integer of at least 128 pixels")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed={seed!r} must be a non-negative integer")
    _require("matplotlib")
    _require("galsim")
    run = _Run(Path(out_dir), overwrite, progress or (lambda text: None), int(seed))
    run.check()
    run.simulate(int(size))
    run.degrade()
    run.restore()
    run.deblend()
    run.translate()
    run.draw()
    return DemoResult(run.files, run.tables, run.folder / _FIGURE)


@dataclass
class Restored:
    """One result of the comparison, for the table and the figure."""

    name: str
    data: np.ndarray
    mask: np.ndarray
    psnr: float = np.nan


@dataclass
class Deblended:
    """One deblender's result."""

    name: str
    result: object


@dataclass
class _Run:
    """The steps, and what they hand on."""

    folder: Path
    overwrite: bool
    say: object
    seed: int
    files: list[Path] = field(default_factory=list)
    tables: dict[str, Table] = field(default_factory=dict)

    def check(self):
        """Refuse to replace files before any work is done."""
        from astrogan.plugins import list_backends

        table = list_backends()
        usable = table[table["status"] == "ok"]
        restorers = [str(r["name"]) for r in usable if r["role"] == "restorer"]
        self.restorers = [name for name in restorers if name not in _UNTRAINED]
        self.deblenders = [str(r["name"]) for r in usable if r["role"] == "deblender"]
        translators = [str(r["name"]) for r in usable if r["role"] == "translator"]
        self.translators = [name for name in translators if name not in _STAMPS_ONLY]
        names = ["original.fits", "truth.fits", "truth_sharp.fits", "truth.ecsv", "degraded.fits", _FIGURE]
        names += [f"restored_{n}.fits" for n in self.restorers]
        names += [f"deblended_{n}{s}" for n in self.deblenders for s in (".fits", ".ecsv")]
        names += [f"translated_{n}.fits" for n in self.translators]
        names += ["table_restoration.ecsv", "table_deblending.ecsv", "table_translation.ecsv"]
        existing = [n for n in names if (self.folder / n).exists()]
        if existing and not self.overwrite:
            raise ImageWriteError(
                f"{self.folder} already holds {existing[0]}"
                + (f" and {len(existing) - 1} more of the files to write" if len(existing) > 1 else "")
                + "; set overwrite=True (--overwrite), or name another folder"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageWriteError(f"out_dir={str(self.folder)!r} cannot be made: {error}") from error

    def simulate(self, size):
        from astrogan.simulate.field import simulate_field

        self.say(f"simulating a field of {size} x {size} pixels")
        self.field = simulate_field((size, size), seed=self.seed)
        self._write(self.field.images, "original.fits")
        self._write(self.field.truth_images, "truth.fits")
        self._write(self.field.truth_sharp_images, "truth_sharp.fits")
        self._write_table(self.field.catalog, "truth.ecsv")

    def degrade(self):
        from astrogan import Degrader
        from astrogan.image.psf import moffat_psf

        self.say(f"degrading it to {_DEGRADED_FWHM} arcsec and {_NOISE_FACTOR:g} times the noise")
        psf = moffat_psf(_DEGRADED_FWHM / self.field.pixel_scale, beta=3.0)
        degrader = Degrader(psf=psf, noise=_NOISE_FACTOR)
        self.degraded = degrader(self.field.images, rng=self.seed)
        self._write(self.degraded, "degraded.fits")

    def restore(self):
        from astrogan import Restorer

        comparison = _Comparison(self.field, self.degraded)
        rows, self.restored = [], []
        for name in self.restorers:
            self.say(f"restoring with {name}")
            try:
                with _Quiet():
                    start = time.perf_counter()
                    restorer = Restorer(name)
                    images = restorer(self.degraded, rng=self.seed)
                    seconds = time.perf_counter() - start
                    chi2 = restorer.diagnose(self.degraded, images).reduced_chi2
            except AstroganError as error:
                self.say(f"  {name} was left out: {error}")
                continue
            self._write(images, f"restored_{name}.fits")
            result = Restored(name, _stack(images), _masks(images))
            rows.append(comparison.row(result, chi2, seconds))
            self.restored.append(result)
        rows.append(comparison.row(Restored(_REFERENCE, _stack(self.field.images), self.field.mask)))
        self.comparison = comparison
        table = comparison.table(rows)
        self.restored.sort(key=lambda r: (_rank(r.name), -r.psnr))
        self._add("Restoration", table, "table_restoration.ecsv")

    def deblend(self):
        from astrogan import Deblender

        rows, self.deblended = [_undeblended(self.field)], []
        for name in self.deblenders:
            self.say(f"deblending with {name}")
            try:
                with _Quiet():
                    start = time.perf_counter()
                    result = Deblender(name)(self.field.images, rng=self.seed)
                    seconds = time.perf_counter() - start
            except AstroganError as error:
                self.say(f"  {name} was left out: {error}")
                continue
            path = self.folder / f"deblended_{name}.fits"
            result.write(path, overwrite=self.overwrite)
            self.files.append(path)
            self._write_table(result.catalog, f"deblended_{name}.ecsv")
            rows.append(_deblending_row(name, result, self.field, seconds))
            self.deblended.append(Deblended(name, result))
        self._add("Deblending", _table(rows, _DEBLENDING_COLUMNS, _DEBLENDING_CAPTION), "table_deblending.ecsv")

    def translate(self):
        from astrogan import Translator

        rows, self.translated = [], {}
        for name in self.translators:
            self.say(f"translating it to {_TARGET.upper()} with {name}")
            try:
                with _Quiet():
                    start = time.perf_counter()
                    images = Translator(name, target=_TARGET)(self.field.images, rng=self.seed)
                    seconds = time.perf_counter() - start
            except AstroganError as error:
                self.say(f"  {name} was left out: {error}")
                continue
            self._write(images, f"translated_{name}.fits")
            rows += _translation_rows(name, images, self.field, seconds)
            self.translated[name] = images
        self._add("Translation", _table(rows, _TRANSLATION_COLUMNS, _TRANSLATION_CAPTION), "table_translation.ecsv")

    def draw(self):
        from astrogan._demo_figure import draw_figure
        from astrogan.image.write import atomic_path

        self.say("drawing the figure")
        path = self.folder / _FIGURE
        with atomic_path(path, overwrite=self.overwrite) as temporary:
            draw_figure(self, temporary)
        self.files.append(path)

    def _write(self, image, name):
        from astrogan.image.write import write_image

        write_image(image, self.folder / name, overwrite=self.overwrite)
        self.files.append(self.folder / name)

    def _write_table(self, table, name):
        from astrogan.image.write import write_table

        write_table(table, self.folder / name, overwrite=self.overwrite)
        self.files.append(self.folder / name)

    def _add(self, title, table, name):
        self._write_table(table, name)
        self.tables[title] = table


# ---- comparison of restorations -----------------------------------------------------------------------------------

_RESTORATION_COLUMNS = {
    "method": (None, None),
    "psnr": ("dB", ".2f"),
    "ssim": (None, ".4f"),
    "flux_ratio": (None, ".3f"),
    "flux_scatter": (None, ".3f"),
    "size_ratio": (None, ".3f"),
    "centroid": ("pix", ".3f"),
    "resolution": ("arcsec", ".2f"),
    "chi2": (None, ".3f"),
    "seconds": ("s", ".2f"),
}


class _Comparison:
    """Restored images against the noise-free field, on the pixels that are good in all of them.

    PSNR, SSIM and the ring correlation are taken of asinh(flux / 10 sigma), sigma the original's sky noise, full scale
    being the truth's range: on linear flux they would tell of the brightest star alone, on a harder stretch of the sky
    alone.
    """

    def __init__(self, simulated, degraded):
        from astrogan.image.mask import grow_mask

        self.truth = simulated.truth.astype(np.float64)
        self.scale = simulated.pixel_scale
        self.softening = _SOFTENING * simulated.sky_sigma[:, None, None]
        # Light within the seeing of a saturated star is lost to all methods alike.
        reach = 2.0 * _DEGRADED_FWHM / simulated.pixel_scale
        saturated = _saturated(simulated)
        self.mask = simulated.mask | _masks(degraded)
        self.mask |= np.stack([grow_mask(s, reach) for s in saturated])
        self.sources = _isolated_galaxies(simulated, self.mask.any(axis=0))
        self.stretched = np.arcsinh(self.truth / self.softening)
        self.sizes = self._sizes(self.truth)
        self.data_range = [np.ptp(t[~m]) for t, m in zip(self.stretched, self.mask, strict=True)]

    def row(self, result, chi2=np.nan, seconds=np.nan):
        """Metrics of one result; its PSNR is noted in it as well."""
        from astrogan.metrics import (
            aperture_flux_ratio,
            centroid_offset,
            fourier_ring_correlation,
            psnr,
            ssim,
        )

        mask = self.mask
        stretched = np.arcsinh(result.data / self.softening)
        result.psnr = psnr(self.stretched, stretched, data_range=self.data_range, mask=mask)
        ratio = aperture_flux_ratio(self.truth, result.data, self.sources, 3.0 / self.scale, mask=mask)
        sizes = self._sizes(result.data)
        rings = fourier_ring_correlation(self.stretched, stretched, criterion=0.5, mask=mask)
        return {
            "method": result.name,
            "psnr": result.psnr,
            "ssim": ssim(self.stretched, stretched, data_range=self.data_range, mask=mask),
            "flux_ratio": _median(ratio),
            "flux_scatter": _spread(ratio),
            "size_ratio": _median(sizes / self.sizes),
            "centroid": _median(centroid_offset(self.truth, result.data, self.sources, mask=mask)),
            "resolution": float(np.mean(rings.resolution)) * self.scale,
            "chi2": float(chi2),
            "seconds": seconds,
        }

    def _sizes(self, cube):
        """Sizes of the sources' adaptive moments in pixels, (source, band)."""
        from astrogan.metrics import moments

        sizes = np.empty((len(self.sources), len(cube)))
        for k, (x, y) in enumerate(self.sources):
            cut = tuple(slice(max(0, round(c) - 40), round(c) + 41) for c in (y, x))
            place = x - cut[1].start, y - cut[0].start
            sizes[k] = moments(cube[:, *cut], place, mask=self.mask[:, *cut]).size
        return sizes

    def table(self, rows):
        """Baselines, methods by falling PSNR, the image that was degraded."""
        rows = sorted(rows, key=lambda r: (_rank(r["method"]), -r["psnr"]))
        caption = (
            "Against the noise-free original. psnr (dB) and ssim of asinh(flux / 10 sky sigma); flux (circles of 3 "
            f"arcsec), size and centroid (pix) of the {len(self.sources)} brightest lone galaxies, medians; resolution "
            "(arcsec) where the ring correlation falls to 0.5; chi2 of the reconvolved image. All "
            "backends have their default options."
        )
        return _table(rows, _RESTORATION_COLUMNS, caption)


def _rank(name):
    """Baselines in their order, then methods, then the image that was degraded."""
    if name in _BASELINES:
        return _BASELINES.index(name)
    return len(_BASELINES) + (name == _REFERENCE)


def _saturated(simulated):
    """Masks of saturation alone, without the bad column."""
    return np.stack([image.data >= 0.999 * image.meta["SATURATE"] for image in simulated.images.values()])


def _isolated_galaxies(simulated, mask, number=12):
    """Positions of the brightest galaxies whose own light rules a circle of 3 arcsec, with no masked pixel near."""
    from scipy.ndimage import distance_transform_edt

    catalog, shape = simulated.catalog, simulated.truth.shape[1:]
    flux = np.asarray(catalog[f"flux_{simulated.bands[-1]}"])
    bright = flux > 10 ** (0.4 * (22.5 - _BRIGHT))
    x, y = np.asarray(catalog["x"]), np.asarray(catalog["y"])
    clear = distance_transform_edt(~np.pad(mask, 1, constant_values=True))[1:-1, 1:-1]
    reach = 3.0 / simulated.pixel_scale
    chosen = []
    for k in np.argsort(-flux):
        column, row = round(x[k]), round(y[k])
        if catalog["type"][k] == "star" or not (0 <= column < shape[1] and 0 <= row < shape[0]):
            continue
        near = np.hypot(x - x[k], y - y[k]) < 2 * reach
        if bright[k] and clear[row, column] > reach and flux[near].sum() < 1.1 * flux[k]:
            chosen.append((x[k], y[k]))
        if len(chosen) == number:
            break
    return np.array(chosen).reshape(-1, 2)


# ---- deblending ---------------------------------------------------------------------------------------------------

_DEBLENDING_COLUMNS = {
    "method": (None, None),
    "found": (None, "d"),
    "completeness": (None, ".3f"),
    "purity": (None, ".3f"),
    "flux_bias": (None, "+.3f"),
    "flux_error": (None, ".3f"),
    "blend_flux_bias": (None, "+.3f"),
    "blend_flux_error": (None, ".3f"),
    "conservation": (None, ".1e"),
    "seconds": ("s", ".2f"),
}
_DEBLENDING_CAPTION = (
    "On the original. completeness of sources of r < 23, purity among all; relative flux errors (median and median "
    "modulus over bands) of matched sources of r < 23, and of members of blends; conservation: largest departure of "
    "sources + residual from the image, over its maximum."
)
_MATCH_RADIUS = 1.0  # arcsec


def _undeblended(simulated):
    """The baseline: circles of 1.5 arcsec radius at the true places, with the light of neighbours in them."""
    from astrogan.metrics import aperture_flux

    truth = simulated.catalog
    positions = np.column_stack([truth["x"], truth["y"]])
    radius = 1.5 / simulated.pixel_scale
    fluxes = aperture_flux(_stack(simulated.images), positions, radius, mask=simulated.mask)
    errors = (fluxes - _true_fluxes(simulated)) / _true_fluxes(simulated)
    use = _measurable(simulated)
    return {"method": "apertures, true places", **_flux_columns(errors, use, truth["blend"] > 0)}


def _deblending_row(name, result, simulated, seconds):
    from astropy import units as u

    from astrogan.metrics import completeness_purity, conservation_error, match_positions

    truth, catalog = simulated.catalog, result.catalog
    true_positions = np.column_stack([truth["x"], truth["y"]])
    found = np.column_stack([np.asarray(catalog["x"]), np.asarray(catalog["y"])]).reshape(-1, 2)
    radius = _MATCH_RADIUS / simulated.pixel_scale
    use = _measurable(simulated)
    matches = match_positions(true_positions, found, radius=radius)
    errors = np.full((len(simulated.bands), len(truth)), np.nan)
    if len(matches.truth):
        fluxes = np.stack([u.Quantity(catalog[f"flux_{b}"]).value for b in simulated.bands])
        true_fluxes = _true_fluxes(simulated)[:, matches.truth]
        errors[:, matches.truth] = (fluxes[:, matches.found] - true_fluxes) / true_fluxes
    image = _stack(simulated.images)
    return {
        "method": name,
        "found": len(found),
        "completeness": completeness_purity(true_positions[use], found, radius=radius).completeness,
        "purity": completeness_purity(true_positions, found, radius=radius).purity,
        **_flux_columns(errors, use, truth["blend"] > 0),
        "conservation": conservation_error(image, [result.recompose().data], mask=simulated.mask),
        "seconds": seconds,
    }


def _flux_columns(errors, use, blended):
    alone, members = errors[:, use], errors[:, use & np.asarray(blended)]
    return {
        "flux_bias": _median(alone),
        "flux_error": _median(np.abs(alone)),
        "blend_flux_bias": _median(members),
        "blend_flux_error": _median(np.abs(members)),
    }


def _true_fluxes(simulated):
    return np.stack([np.asarray(simulated.catalog[f"flux_{b}"]) for b in simulated.bands])


def _measurable(simulated):
    """Sources of r < 23 (or the reddest band, without r) inside the image and off masked pixels."""
    catalog, shape = simulated.catalog, simulated.truth.shape[1:]
    band = "r" if "r" in simulated.bands else simulated.bands[-1]
    use = np.asarray(catalog[f"flux_{band}"]) > 10 ** (0.4 * (22.5 - 23.0))
    x, y = np.rint(np.asarray(catalog["x"])), np.rint(np.asarray(catalog["y"]))
    use &= (x >= 5) & (y >= 5) & (x < shape[1] - 5) & (y < shape[0] - 5)
    mask = simulated.mask.any(axis=0)
    rows, columns = (np.clip(p, 0, n - 1).astype(int) for p, n in zip((y, x), shape, strict=True))
    return use & ~mask[rows, columns]


# ---- translation --------------------------------------------------------------------------------------------------

_TRANSLATION_COLUMNS = {
    "method": (None, None),
    "band": (None, None),
    "scale_in": ("arcsec", ".3f"),
    "scale_out": ("arcsec", ".3f"),
    "fwhm_in": ("arcsec", ".2f"),
    "fwhm_out": ("arcsec", ".2f"),
    "noise_in": ("nanomaggy", ".4f"),
    "noise_out": ("nanomaggy", ".4f"),
    "flux_ratio": (None, ".3f"),
    "seconds": ("s", ".2f"),
}
_TRANSLATION_CAPTION = (
    f"To {_TARGET.upper()}. pixel scale and FWHM (arcsec), sky noise per pixel (nanomaggy) before and after; flux of "
    "lone bright galaxies in circles of 3 arcsec over that in the original, median."
)


def _translation_rows(name, images, simulated, seconds):
    from astrogan.image.psf import psf_fwhm
    from astrogan.image.wcs import celestial, pixel_scale
    from astrogan.metrics import aperture_flux, noise_std

    rows = []
    positions = _isolated_galaxies(simulated, simulated.mask.any(axis=0))
    sky = simulated.wcs.pixel_to_world_values(*positions.T)
    for b, band in enumerate(simulated.bands):
        before, after = simulated.images[band], images[band]
        scale = pixel_scale(after.wcs)
        there = np.column_stack(celestial(after.wcs).world_to_pixel_values(*sky))
        bad = (after.mask if after.mask is not None else False) | ~np.isfinite(after.data)
        fluxes = [
            aperture_flux(before.data, positions, 3.0 / simulated.pixel_scale, mask=before.mask),
            aperture_flux(after.data, there, 3.0 / scale, mask=bad),
        ]
        rows.append(
            {
                "method": name,
                "band": band,
                "scale_in": simulated.pixel_scale,
                "scale_out": scale,
                "fwhm_in": psf_fwhm(before.psf) * simulated.pixel_scale,
                "fwhm_out": np.nan if after.psf is None else psf_fwhm(after.psf) * scale,
                "noise_in": noise_std(before.data, mask=before.mask | _on_sources(simulated, b)),
                "noise_out": noise_std(after.data, mask=bad),
                "flux_ratio": _median(fluxes[1] / fluxes[0]),
                "seconds": seconds,
            }
        )
    return rows


def _on_sources(simulated, b):
    return simulated.truth[b] > 0.3 * simulated.sky_sigma[b]


# ---- small things -------------------------------------------------------------------------------------------------


def _stack(images):
    return np.stack([np.asarray(image.data, np.float64) for image in images.values()])


def _masks(images):
    return np.stack([np.zeros(i.shape, bool) if i.mask is None else np.asarray(i.mask, bool) for i in images.values()])


def _median(values):
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else np.nan


def _spread(values):
    """Half the range that holds the middle 68 per cent."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return float(np.diff(np.percentile(values, [15.87, 84.13]))[0] / 2) if values.size else np.nan


def _table(rows, columns, caption):
    """Rows as a table with units and formats; what a row lacks is NaN, or masked in a column of whole numbers."""
    from astropy.table import MaskedColumn, Table

    table = Table(meta={"caption": caption})
    for name, (unit, form) in columns.items():
        values = [row.get(name, np.nan if form else "") for row in rows]
        if form == "d":
            absent = np.array([name not in row for row in rows])
            values = MaskedColumn(np.where(absent, 0, values).astype(int), mask=absent) if absent.any() else values
        table[name] = values
        if form is not None:
            table[name].info.format = form
        if unit is not None:
            table[name].unit = unit
    return table


class _Quiet(warnings.catch_warnings):
    """Methods without an uncertainty say so once each; in a demonstration of all of them that is noise."""

    def __enter__(self):
        from astrogan.exceptions import AstroganWarning

        entered = super().__enter__()
        warnings.simplefilter("ignore", AstroganWarning)
        return entered


def _require(package):
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"the demonstration needs {package}: run `pip install 'astrogan[demo]'` (or {package} alone)"
        ) from error
