"""The images of the deblending benchmark: simulated blends, files with a truth, and real blends without one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["Scene", "field_scene", "from_blend", "hsc_blends", "scarlet_test_sims", "truth_files"]

_AB_OF_ONE = 27.0  # zero point of the HSC pipeline's images

# The KiDS field's rows that no training sees, away from a CCD's edge that all of its sky is wrong at.
_FIELD_BANDS = ("g", "r", "i")
_FIELD_ROWS, _FIELD_FIRST_COLUMN = (2060, 2600), 920


@dataclass(frozen=True)
class Scene:
    """An image and what is known of its sources.

    Parameters
    ----------
    name : str
    data, variance : `numpy.ndarray`
        (band, y, x).
    psf : `numpy.ndarray` or None
        (band, k, k).
    positions : `numpy.ndarray` or None
        (source, 2), (x, y); None: they have to be detected.
    truth : `numpy.ndarray` or None
        (source, band, y, x), each source alone and free of noise.
    flux : `numpy.ndarray` or None
        (source, band), NaN where it is not known.
    bands : tuple of str
    mask : `numpy.ndarray` of bool, optional
        True where a pixel is left out, (band, y, x).
    kinds : tuple of str
        What each source is.
    """

    name: str
    data: np.ndarray
    variance: np.ndarray
    psf: np.ndarray | None
    positions: np.ndarray | None
    truth: np.ndarray | None
    flux: np.ndarray | None
    bands: tuple[str, ...]
    mask: np.ndarray | None = None
    kinds: tuple[str, ...] = field(default=())

    @cached_property
    def fwhm(self):
        """Of the PSF in pixels, mean over bands; 4 where none is known."""
        from astrogan.image.psf import psf_fwhm

        return 4.0 if self.psf is None else float(np.mean([psf_fwhm(kernel) for kernel in self.psf]))

    @cached_property
    def sigma(self):
        """Noise a pixel in each band, (band, 1, 1)."""
        good = np.ones(self.data.shape, bool) if self.mask is None else ~self.mask
        typical = [np.median(v[g]) for v, g in zip(self.variance, good, strict=True)]
        return np.sqrt(np.asarray(typical, np.float64))[:, None, None]

    def as_ccd(self, turn=np.s_[:]):
        """The same as `~astropy.nddata.CCDData`, the bands in the order of a slice."""
        from astropy.nddata import CCDData, VarianceUncertainty

        return CCDData(
            np.array(self.data[turn], np.float32),
            unit="adu",
            uncertainty=VarianceUncertainty(np.array(self.variance[turn], np.float32)),
            mask=None if self.mask is None else self.mask[turn].copy(),
        )

    @property
    def digest(self):
        """Of the image."""
        return hashlib.sha256(np.ascontiguousarray(self.data).tobytes()).hexdigest()[:20]


def from_blend(blend, name):
    """The `Scene` of an `astrogan.simulate.blends.BlendScene`."""
    truth = np.asarray(blend.truth, np.float64)
    return Scene(
        name, blend.data, blend.variance, blend.psf, np.asarray(blend.positions, np.float64).reshape(-1, 2), truth,
        truth.sum(axis=(2, 3)), tuple(blend.bands), kinds=tuple(blend.kinds),
    )  # fmt: skip


# ---- files with a truth ---------------------------------------------------------------------------------------------


def truth_files(data):
    """The two simulated HSC-like blends whose sources are known pixel by pixel.

    The noise is that of the background, measured band by band as for a user's image. Rows of the catalog at one
    position (a bulge and its disk) are one source. Positions are the catalog's, which lie up to 0.7 pixels beside the
    light's centroids.

    Parameters
    ----------
    data : path
        Folder of the real images.

    Returns
    -------
    list of Scene
    """
    folder = Path(data) / "hsc_hst_scarlet"
    return [_truth_file(folder / f"psf_{kind}_sim.npz", kind) for kind in ("matched", "unmatched")]


def _truth_file(path, name):
    from astrogan.image.uncertainty import background_rms

    with _load(path) as file:
        images, psfs, rows = np.asarray(file["images"], np.float64), file["psfs"], file["catalog"]
        bands = tuple(map(str, file["filters"]))
    centres = np.stack([rows["x"], rows["y"]], axis=1).astype(np.float64)
    positions, source = np.unique(centres, axis=0, return_inverse=True)
    truth = np.zeros((len(positions), *images.shape))
    for row, i in zip(rows, source.ravel(), strict=True):
        truth[i] += np.stack([row[f"intensity_{band}"] for band in bands])
    variance = np.stack([background_rms(plane)[1] ** 2 for plane in images])
    return Scene(name, images, variance, _odd(psfs, images.shape), positions, truth, truth.sum(axis=(2, 3)), bands)


def scarlet_test_sims(data):
    """The simulated HSC blends of the scarlet test set: centres of all peaks, true fluxes of the matched sources.

    Parameters
    ----------
    data : path
        Folder of the real images.

    Returns
    -------
    list of Scene
        Without images of the truth; ``flux`` is NaN where a peak has no match.
    """
    files = sorted((Path(data) / "scarlet_test_sims").rglob("*.npz"))
    if not files:
        raise InputError(f"data={str(data)!r} holds no scarlet_test_sims; give the folder of the real images")
    return [_test_sim(path) for path in files]


def _test_sim(path):
    with _load(path) as file:
        images, variance, psfs = file["images"], file["variance"], file["psfs"]
        positions, matched = np.asarray(file["centers"], np.float64)[:, ::-1], file["matched"]
    bands = ("g", "r", "i", "z", "y")
    flux = np.full((len(positions), len(bands)), np.nan)
    for row in matched:
        nearest = np.hypot(*(positions - (row["x"], row["y"])).T).argmin()
        magnitudes = np.array([row[f"{band}magVar"] for band in bands], np.float64)
        flux[nearest] = 10 ** (-0.4 * (magnitudes - _AB_OF_ONE))
    bad = ~(np.isfinite(images) & np.isfinite(variance) & (variance > 0))
    return Scene(
        path.stem, np.where(bad, 0, images), np.where(bad, 1, variance), _odd(psfs, images.shape), positions, None,
        flux, bands, mask=bad if bad.any() else None,
    )  # fmt: skip


# ---- real blends ----------------------------------------------------------------------------------------------------


def hsc_blends(data):
    """The real HSC blends in five bands.

    Parameters
    ----------
    data : path
        Folder of the real images.

    Returns
    -------
    list of Scene
        Without a truth.
    """
    from astrogan.image.uncertainty import background_rms

    folder = Path(data) / "hsc_hst_scarlet"
    files = [folder / "hsc_cosmos.npz", folder / "hsc_cosmos_35.npz", *sorted((folder / "history").rglob("*.npz"))]
    scenes = []
    for path in files:
        with _load(path) as file:
            images, psfs = np.asarray(file["images"], np.float64), _odd(file["psfs"], file["images"].shape)
            if "peaks" in file:
                positions, variance = np.asarray(file["peaks"], np.float64), file["weights"]
                variance = np.divide(1, variance, out=np.zeros(variance.shape), where=variance > 0)
            else:
                positions = np.stack([file["catalog"]["x"], file["catalog"]["y"]], axis=1).astype(np.float64)
                variance = file.get("variance")
        if variance is None:
            variance = np.stack([background_rms(plane)[1] ** 2 for plane in images])
        bad = ~(variance > 0)
        inside = ((positions >= 0) & (positions < np.array(images.shape[:0:-1]) - 0.5)).all(axis=1)
        scenes.append(
            Scene(path.stem, images, np.where(bad, 1, variance), psfs, positions[inside], None, None,
                  ("g", "r", "i", "z", "y"), mask=bad if bad.any() else None)
        )  # fmt: skip
    return scenes


def field_scene(data, width=320):
    """A part of the KiDS field in g, r and i, background taken off, with a PSF made from its stars.

    Parameters
    ----------
    data : path
        Folder of the real images.
    width : int
        Pixels along each axis, 540 at most along y.

    Returns
    -------
    Scene
        Without positions and truth.
    """
    from astrogan.image.prepare import prepare
    from astrogan.image.uncertainty import background_rms

    first, last = _FIELD_ROWS
    files = {band: Path(data) / "kids_viking_field" / f"{band}.fits" for band in _FIELD_BANDS}
    prepared = prepare(files, unit="", needs_psf=True)
    part = np.s_[first : min(last, first + width), _FIELD_FIRST_COLUMN : _FIELD_FIRST_COLUMN + width]
    images, variance, valid = [], [], []
    for plane, good in zip(prepared.observation.data, prepared.observation.valid, strict=True):
        background, rms = background_rms(plane[part], good[part])
        scale = 1 / np.median(rms)  # the file's unit makes tiny numbers
        images.append((plane[part] - background) * scale)
        variance.append((rms * scale) ** 2)
        valid.append(good[part])
    bad = ~np.stack(valid)
    return Scene("kids field", np.stack(images), np.stack(variance), prepared.observation.psf, None, None, None,
                 _FIELD_BANDS, mask=bad if bad.any() else None)  # fmt: skip


def _load(path):
    if not path.is_file():
        raise InputError(f"data={str(path)!r} is not there; give the folder of the real images")
    return np.load(path)


def _odd(psfs, shape):
    """PSFs without negative pixels, cut to what fits into an image, with a sum of one."""
    cut = max(0, psfs.shape[-1] - min(shape[-2:])) + 1
    inner = slice(cut // 2, psfs.shape[-1] - cut // 2)
    psfs = np.maximum(np.asarray(psfs, np.float64)[:, inner, inner], 0)
    return psfs / psfs.sum(axis=(1, 2), keepdims=True)
