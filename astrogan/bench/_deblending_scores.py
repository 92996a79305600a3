"""What the deblending benchmark measures of a source, and of a scene."""

from __future__ import annotations

import numpy as np

from astrogan.bench._linear_common import shapes_of

__all__ = ["detection_scores", "scene_facts", "source_scores"]

_MARGIN, _SMALLEST = 4, 15  # of the box that images are compared in, in pixels


def scene_facts(scene):
    """What makes each source of a scene easy or hard.

    Parameters
    ----------
    scene : Scene
        With a truth.

    Returns
    -------
    list of dict
        ``blendedness`` (1 - sum T^2 / sum T S over all bands, in units of the noise), ``snr`` (of the matched filter,
        all bands together), ``separation`` (to the nearest source, in FWHM of the PSF; infinite for one alone), and
        ``kind``.
    """
    from astrogan.metrics import blendedness

    bands, height, width = scene.data.shape
    scaled = (scene.truth / scene.sigma).reshape(-1, bands * height, width)
    total = scaled.sum(axis=0)
    distance = np.hypot(*(scene.positions[:, None] - scene.positions[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    kinds = scene.kinds or ("",) * len(scaled)
    return [
        {
            "blendedness": float(blendedness(own, total)),
            "snr": float(np.sqrt(np.sum(own**2))),
            "separation": float(near.min() / scene.fwhm),
            "kind": str(kind),
        }
        for own, near, kind in zip(scaled, distance, kinds, strict=True)
    ]


def source_scores(scene, number, found, index):
    """A source beside its truth.

    Parameters
    ----------
    scene : Scene
    number : int
        Of the true source.
    found : Deblended
    index : int
        Of the source there.

    Returns
    -------
    dict
        NaN for what needs images of the truth where there are none. See `astrogan.bench.deblending.MEASURES`.
    """
    from astrogan.metrics import cosine_similarity

    flux, model = found.flux[index], found.models[index]
    true_flux = scene.flux[number]
    scores = {
        "flux_error": _mean(np.abs(flux / true_flux - 1)),
        "flux_error_model": _mean(np.abs(model.sum(axis=(1, 2)) / true_flux - 1)),
        "colour_error": _mean(np.abs(_colours(true_flux, flux))),
        "in_68": _mean(np.abs(flux - true_flux) <= found.flux_err[index]),
        "in_95": _mean(np.abs(flux - true_flux) <= 2 * found.flux_err[index]),
    }
    if scene.truth is None:
        return scores
    truth, source = scene.truth[number], found.sources[index]
    scores["cosine"] = cosine_similarity(truth, source)
    scores["cosine_model"] = cosine_similarity(truth, model)
    box = _box(_plane(truth, scene) > 1)
    for name, image in (("", source), ("_model", model)):
        scores[f"psnr{name}"], scores[f"ssim{name}"] = _likeness(truth[box], image[box])
    return scores | _shape_scores(scene, number, source, model)


def detection_scores(scene, found):
    """Pairs of true and found sources within one FWHM.

    Parameters
    ----------
    scene : Scene
    found : `numpy.ndarray`
        Positions, (source, 2).

    Returns
    -------
    pairs : list of (int, int)
    counts : dict
        ``true``, ``found``, ``matched``.
    """
    from astrogan.metrics import match_positions

    matches = match_positions(scene.positions, found, radius=max(scene.fwhm, 1.0))
    pairs = [(int(i), int(j)) for i, j in zip(matches.truth, matches.found, strict=True)]
    return pairs, {"true": len(scene.positions), "found": len(found), "matched": len(pairs)}


def _mean(values):
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else np.nan


def _colours(truth, flux):
    """Error of the colours of neighbouring bands in magnitudes, NaN where a flux is not positive."""
    from astrogan.metrics import colour_error

    return colour_error(truth[:, None, None], flux[:, None, None]) if np.isfinite(truth).all() else np.array([np.nan])


def _plane(image, scene):
    """Sum of the bands in units of its noise."""
    return (image / scene.sigma).sum(axis=0) / np.sqrt(len(image))


def _box(footprint):
    """All bands of the box around a footprint, with a margin, and large enough for windows of SSIM."""
    slices = [slice(None)]
    for axis, size in ((1, footprint.shape[0]), (0, footprint.shape[1])):
        lit = np.flatnonzero(footprint.any(axis=axis))
        first, last = (lit[0], lit[-1]) if lit.size else (0, size - 1)
        lack = max(0, _SMALLEST - (last - first + 1 + 2 * _MARGIN))
        first, last = first - _MARGIN - lack // 2, last + _MARGIN + (lack + 1) // 2
        slices.append(slice(max(first, 0), min(last + 1, size)))
    return tuple(slices)


def _likeness(truth, image):
    """PSNR and SSIM over the truth's own peak."""
    from astrogan.metrics import psnr, ssim

    peak = float(truth.max())
    if not peak > 0 or min(truth.shape[1:]) < 11:
        return np.nan, np.nan
    return psnr(truth, image, data_range=peak), ssim(truth, image, data_range=peak)


def _shape_scores(scene, number, source, model):
    """Error of the ellipticity, infinite where the result has none, and overlap of the footprints."""
    from astrogan.bench._linear_common import shape_errors
    from astrogan.metrics import intersection_over_union

    planes = [_plane(image, scene) for image in (scene.truth[number], source, model)]
    at, sigma = [scene.positions[number]], scene.fwhm / 2
    shapes = [shapes_of(plane, at, sigma) if plane.any() else np.full((1, 2), np.nan) for plane in planes]
    errors = [shape_errors(shapes[0], shape) for shape in shapes[1:]]
    names = ("ellipticity_error", "ellipticity_error_model")
    values = {n: float(e[0]) if len(e) else np.nan for n, e in zip(names, errors, strict=True)}
    return values | {"iou": intersection_over_union(planes[0] > 1, planes[2] > 1)}
