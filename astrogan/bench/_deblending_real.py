"""The parts ``truth-files`` and ``conservation`` of the deblending benchmark."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from astrogan.bench._deblending_grid import conserved
from astrogan.bench._deblending_rows import deblend
from astrogan.bench._deblending_scores import source_scores
from astrogan.bench._deblending_sets import field_scene, hsc_blends, scarlet_test_sims, truth_files
from astrogan.bench._linear_common import as_table
from astrogan.exceptions import AstroganError

__all__ = ["conservation_table", "laws", "truth_table"]

_BRIGHT = 5.0
_SHIFT, _PAD = (3, -2), 6  # pixels along y and x; frame of masked pixels around the image


# ---- known sources --------------------------------------------------------------------------------------------------


def truth_table(rows, data):
    """Errors on the simulated HSC blends, with the centres of their catalogs.

    Parameters
    ----------
    rows : list of Row
    data : path
        Folder of the real images.

    Returns
    -------
    `~astropy.table.Table`
    """
    files = {f"{scene.name} PSFs": [scene] for scene in truth_files(data)}
    files["scarlet test"] = scarlet_test_sims(data)
    lines = []
    for title, scenes in files.items():
        for row in rows:
            if row.needs_truth and scenes[0].truth is None:
                continue
            try:
                lines.append({"file": title, "row": row.name} | _truth_line(row, scenes))
            except AstroganError as error:  # a method may be made for another number of bands
                lines.append({"file": title, "row": row.name, "why": " ".join(str(error).split())})
    names = list(dict.fromkeys(key for line in lines for key in line))
    blank = {name: "" if name == "why" else np.nan for name in names}
    formats = {"seconds": ".2f", "n": ".0f"}
    return as_table([blank | line for line in lines], _TRUTH_CAPTION, dict.fromkeys(names, ".3f") | formats)


_TRUTH_CAPTION = (
    "|dF/F| over sources and bands, of the source's part of the image (median, mean) and of its template (..._model); "
    f"mean_bright: where the true S/N in the band is above {_BRIGHT:g} (one source of the matched file has no light in "
    "u, and its relative error there means nothing). cosine: median over sources of the pixel cosine with the truth, "
    "cosine_model: of the template. matched, unmatched: one blend each in six bands (ugrizy), noise measured on the "
    "background; rows of the catalog that share a position are one source; its positions are up to 0.7 pixels beside "
    "the light's centroids. scarlet test: 40 blends in five bands, where one or two peaks of a blend have a known flux "
    "(magnitudes at a zero point of 27) and none has an image. in_68, in_95: per source, part of the bands whose true "
    "flux lies within one and two flux_err."
)


def _truth_line(row, scenes):
    errors, models, bright, scores, seconds = [], [], [], [], 0.0
    for scene in scenes:
        found = deblend(row, scene, scene.positions)
        known = np.flatnonzero(np.isfinite(scene.flux).all(axis=1))
        true = scene.flux[known]
        errors.append(np.abs(found.flux[known] / true - 1))
        models.append(np.abs(found.models[known].sum(axis=(2, 3)) / true - 1))
        bright.append(_snr(scene, found, known) > _BRIGHT)
        scores += [source_scores(scene, i, found, i) for i in known]
        seconds += found.seconds
    errors, models, bright = (np.concatenate(parts).ravel() for parts in (errors, models, bright))
    return {
        "n": float(len(scores)),
        "median": np.median(errors),
        "mean": errors.mean(),
        "mean_bright": errors[bright].mean() if bright.any() else np.nan,
        "median_model": np.median(models),
        "mean_bright_model": models[bright].mean() if bright.any() else np.nan,
        "cosine": _median(scores, "cosine"),
        "cosine_model": _median(scores, "cosine_model"),
        "in_68": float(np.mean([s["in_68"] for s in scores])),
        "in_95": float(np.mean([s["in_95"] for s in scores])),
        "seconds": seconds,
    }


def _snr(scene, found, known):
    """True S/N in each band, (source, band); from the flux within the PSF's area where there is no image."""
    if scene.truth is not None:
        return np.sqrt(np.sum((scene.truth[known] / scene.sigma) ** 2, axis=(2, 3)))
    width = np.sqrt(np.sum(np.square(scene.psf, dtype=np.float64), axis=(1, 2)))
    return scene.flux[known] * width / scene.sigma[:, 0, 0]


def _median(scores, name):
    values = [score[name] for score in scores if name in score]
    return float(np.median(values)) if values else np.nan


# ---- laws on real blends --------------------------------------------------------------------------------------------


def conservation_table(rows, data):
    """Whether the light adds up on real blends, and whether the order of positions or the place matters.

    Parameters
    ----------
    rows : list of Row
    data : path
        Folder of the real images.

    Returns
    -------
    `~astropy.table.Table`
    """
    lines = []
    for scene in [*hsc_blends(data), field_scene(data)]:
        for row in rows:
            try:
                lines.append({"image": scene.name, "row": row.name} | laws(row, scene))
            except AstroganError as error:
                lines.append({"image": scene.name, "row": row.name, "why": " ".join(str(error).split())})
    names = list(dict.fromkeys(key for line in lines for key in line))
    blank = {name: "" if name == "why" else np.nan for name in names}
    formats = dict.fromkeys(("conservation", "permutation", "translation"), ".1e") | {"sources": ".0f"}
    return as_table([blank | line for line in lines], _LAWS_CAPTION, formats)


_LAWS_CAPTION = (
    "Real HSC blends (grizy, centres of their own catalogs) and 320 x 320 pixels of the KiDS field (gri, each row's "
    "own detection). conservation: largest departure of sources + residual from the image; permutation: largest "
    f"difference of a source when the positions come in the opposite order; translation: when image and positions are "
    f"moved by {_SHIFT} pixels in a frame of masked ones; all three over the image's largest value. light: part of the "
    "image's light above 3 sigma that is in sources."
)


def laws(row, scene):
    """Departures from the laws that any deblender should keep.

    Parameters
    ----------
    row : Row
    scene : Scene
        Without positions the row's own are taken.

    Returns
    -------
    dict
    """
    found = deblend(row, scene, scene.positions)
    positions = found.positions if scene.positions is None else scene.positions
    again = found if scene.positions is not None else deblend(row, scene, positions)
    peak = float(np.abs(scene.data).max())
    order = np.arange(len(positions))[::-1]
    permuted = deblend(row, scene, positions[order])
    bright = scene.data > 3 * scene.sigma
    return {
        "sources": float(len(positions)),
        "conservation": conserved(scene, found),
        "permutation": float(np.abs(permuted.sources - again.sources[order]).max(initial=0) / peak),
        "translation": _translation(row, scene, positions) / peak,
        "light": float(found.sources.sum(axis=0)[bright].sum() / scene.data[bright].sum()) if bright.any() else np.nan,
        "seconds": found.seconds,
    }


def _translation(row, scene, positions):
    """Largest difference between sources of the image at two places in a frame of masked pixels."""
    _, height, width = scene.data.shape
    made = []
    for dy, dx in ((0, 0), _SHIFT):
        y, x = _PAD + dy, _PAD + dx
        moved = deblend(row, _framed(scene, y, x), positions + (x, y))
        made.append(moved.sources[:, :, y : y + height, x : x + width])
    return float(np.abs(made[0] - made[1]).max(initial=0))


def _framed(scene, y, x):
    bands, height, width = scene.data.shape
    shape = (bands, height + 2 * _PAD, width + 2 * _PAD)
    inside = np.s_[:, y : y + height, x : x + width]
    data, variance, mask = np.zeros(shape), np.ones(shape), np.ones(shape, bool)
    variance *= scene.sigma**2
    data[inside], variance[inside] = scene.data, scene.variance
    mask[inside] = False if scene.mask is None else scene.mask
    return replace(scene, data=data, variance=variance, mask=mask)
