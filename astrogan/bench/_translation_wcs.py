"""Grids, fluxes and the classic path, where the right answer is known exactly."""

from __future__ import annotations

import warnings

import numpy as np

from astrogan.api import Observation, Target
from astrogan.exceptions import PSFWarning

__all__ = ["GRIDS", "grid_table", "noise_free_table"]

GRIDS = ("plain", "rotated", "mirrored", "distorted", "all three", "other scales")
"""What the finer grid is beside the coarser one."""

_SURVEYS = {"sdss": (64, 0.396, 1.32), "cfhtls": (136, 0.187, 0.71)}  # pixels, arcsec a pixel, FWHM in arcsec
_OTHERS = {"sdss": (97, 0.262, 1.32), "cfhtls": (137, 0.2, 0.71)}
_PLACE = (214.3, 52.6)

# x, y (arcsec), flux, standard deviation along both axes (arcsec), angle (degrees): far enough from the edges.
_SOURCES = ((0.3, -0.2, 100.0, 1.1, 0.6, 30.0), (4.1, 3.2, 20.0, 0.4, 0.4, 0.0), (-3.6, 2.7, 35.0, 0.8, 0.3, 100.0))


def _wcs(size, scale, kind):
    from astropy.wcs import WCS, Sip

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = _PLACE
    wcs.wcs.crpix = [(size + 1) / 2 + 0.21, (size + 1) / 2 - 0.34]
    angle = np.deg2rad(33.0 if kind in ("rotated", "all three") else 0.0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirror = np.diag([1.0 if kind in ("mirrored", "all three") else -1.0, 1.0])
    wcs.wcs.cd = turn @ mirror * scale / 3600
    if kind in ("distorted", "all three"):
        wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], a[1, 1], b[0, 2], b[1, 1] = 3e-5, -2e-5, 2.5e-5, 3e-5
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    wcs.pixel_shape = (size, size)
    return wcs


def _plane():
    """Arcsec about the field's place, as a grid of its own."""
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = _PLACE
    wcs.wcs.crpix = [1, 1]
    wcs.wcs.cd = np.eye(2) / 3600
    wcs.wcs.set()
    return wcs


def _scene(wcs, size, fwhm):
    """Gaussians under a Gaussian PSF that holds the pixel: flux per pixel, exactly."""
    from astrogan.image.wcs import pixel_corners, pixel_mapping

    to_plane = pixel_mapping(wcs, _plane())
    rows, columns = np.indices((size, size), dtype=float)
    x, y = to_plane(columns, rows)
    area = pixel_corners(to_plane, (size, size))[2]
    image = np.zeros((size, size))
    for x0, y0, flux, long, short, angle in _SOURCES:
        turn = np.deg2rad(angle)
        axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        covariance = axes @ np.diag([long**2, short**2]) @ axes.T + (fwhm / 2.354820045) ** 2 * np.eye(2)
        inverse = np.linalg.inv(covariance)
        dx, dy = x - x0, y - y0
        square = inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
        image += flux / (2 * np.pi * np.sqrt(np.linalg.det(covariance))) * np.exp(-square / 2)
    return image * np.abs(area)


def grid_table():
    """Round trips and the classic path between an SDSS grid and several CFHTLS ones.

    Returns
    -------
    `~astropy.table.Table`
        A line a grid of `GRIDS`.
    """
    from astropy.table import Table

    lines = [_grid_line(kind) for kind in GRIDS]
    table = Table(rows=lines, names=list(lines[0]))
    for name in table.colnames[1:]:
        table[name].info.format = ".2g" if "flux" not in name else ".6f"
    table.meta["caption"] = (
        "round_trip: largest error in SDSS pixels after SDSS to CFHTLS and back, over all pixels and the stamp's outer "
        "corners; round_trip_back: CFHTLS to SDSS and back, in CFHTLS pixels; corners: largest error in SDSS pixels of "
        "where CFHTLS's corners come to lie, against formulas written out for both grids; flux_down, flux_up: "
        "flux after psf-matching over the true one, CFHTLS to SDSS and the other way, noise-free; l2_down: relative L2 "
        "of CFHTLS to SDSS against the exact truth. Grids: CFHTLS beside SDSS; other scales: 0.2 and 0.262 arcsec."
    )
    return table


def _grid_line(kind):
    from astrogan.image.wcs import pixel_mapping

    setups = _OTHERS if kind == "other scales" else _SURVEYS
    wcs = {name: _wcs(size, scale, kind if name == "cfhtls" else "plain") for name, (size, scale, _) in setups.items()}
    down, up = pixel_mapping(wcs["cfhtls"], wcs["sdss"]), pixel_mapping(wcs["sdss"], wcs["cfhtls"])
    fine, coarse = setups["cfhtls"][0], setups["sdss"][0]
    line = {
        "grid": kind,
        "round_trip": _round_trip(coarse, up, down),
        "round_trip_back": _round_trip(fine, down, up),
        "corners": _corner_error(wcs, fine, down),
    }
    images = {name: _scene(wcs[name], size, fwhm) for name, (size, _, fwhm) in setups.items()}
    for name, (start, end) in {"flux_down": ("cfhtls", "sdss"), "flux_up": ("sdss", "cfhtls")}.items():
        made = _translated(images[start], wcs, setups, start, end)
        line[name] = float(made.sum() / images[end].sum())
        if name == "flux_down":
            line["l2_down"] = float(np.linalg.norm(made - images[end]) / np.linalg.norm(images[end]))
    return line


def _round_trip(size, there, back):
    """Largest error over all pixel centres and the outer corners."""
    rows, columns = np.indices((size, size), dtype=float)
    edge = np.array([-0.5, size - 0.5])
    x = np.concatenate([columns.ravel(), np.tile(edge, 2)])
    y = np.concatenate([rows.ravel(), np.repeat(edge, 2)])
    again = back(*there(x, y))
    return float(np.hypot(again[0] - x, again[1] - y).max())


def _corner_error(wcs, size, mapping):
    """How far the outer corners come to lie from where they belong, by formulas of our own for both grids."""
    edge = np.array([-0.5, size - 0.5])
    x, y = np.tile(edge, 2), np.repeat(edge, 2)
    wanted, found = _on_plane(wcs["cfhtls"], x, y), _on_plane(wcs["sdss"], *mapping(x, y))
    scale = np.sqrt(abs(np.linalg.det(wcs["sdss"].wcs.cd)))
    return float(np.hypot(*(found - wanted)).max() / scale)


def _on_plane(wcs, x, y):
    """Degrees on the tangent plane, which both grids share: SIP's polynomials, then the matrix."""
    u, v = x + 1 - wcs.wcs.crpix[0], y + 1 - wcs.wcs.crpix[1]
    if wcs.sip is not None:
        powers = [(p, q) for p in range(3) for q in range(3)]
        u, v = (w + sum(m[p, q] * u**p * v**q for p, q in powers) for w, m in ((u, wcs.sip.a), (v, wcs.sip.b)))
    return wcs.wcs.cd @ np.array([u, v])


def _gaussian(sigma):
    """A round Gaussian on pixels, read at their centres as `_scene` reads it."""
    half = int(np.ceil(6 * sigma))
    line = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    kernel = np.outer(line, line)
    return kernel / kernel.sum()


def _translated(image, wcs, setups, start, end):
    from astrogan.backends.classic.psf_matching import PSFMatching
    from astrogan.image.wcs import pixel_mapping

    size, scale, _ = setups[end]
    kernels = {name: _gaussian(fwhm / 2.354820045 / own)[None] for name, (_, own, fwhm) in setups.items()}
    target = Target(
        shape=(size, size),
        to_input=pixel_mapping(wcs[end], wcs[start]),
        to_output=pixel_mapping(wcs[start], wcs[end]),
        area_ratio=(scale / setups[start][1]) ** 2,
        pixel_scale=scale,
        psf=kernels[end],
        wcs_in=wcs[start],
        wcs_out=wcs[end],
    )
    observation = Observation(data=image[None], psf=kernels[start], pixel_scale=setups[start][1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PSFWarning)  # upwards there is no matching, which the flux does not need
        estimate = PSFMatching(noise=False)(observation, target, rng=np.random.default_rng(0))
    return np.asarray(estimate.data[0], np.float64)


def noise_free_table(number=12, seed=2**42):
    """CFHTLS to SDSS on simulated galaxies without noise and without colour terms, by band.

    Parameters
    ----------
    number : int, optional
        Pairs.
    seed : int, optional
        Of the first.

    Returns
    -------
    `~astropy.table.Table`
    """
    from astropy.table import Table

    from astrogan.backends.classic.psf_matching import PSFMatching
    from astrogan.bench._translation_rows import target_of
    from astrogan.metrics import ring_weights
    from astrogan.simulate.surveys import simulate_pair

    errors, inner, flux = [], [], []
    for k in range(number):
        pair = simulate_pair(seed + k, colour_terms=False)
        fine, coarse = pair.second, pair.first
        observation = Observation(data=fine.truth, psf=fine.psf, pixel_scale=fine.pixel_scale, bands=fine.bands)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PSFWarning)
            target = target_of(fine, coarse)
            made = PSFMatching(noise=False)(observation, target, rng=np.random.default_rng(0)).data.astype(np.float64)
        truth = np.asarray(coarse.truth, np.float64)
        margin = int(np.ceil(3 / coarse.pixel_scale))
        middle = (slice(None), slice(margin, -margin), slice(margin, -margin))
        errors.append(_relative(made, truth))
        inner.append(_relative(made[middle], truth[middle]))
        circle = ring_weights(truth.shape[1:], pair.galaxy["positions"][0], [0, 6 / coarse.pixel_scale])[0]
        flux.append((made * circle).sum(axis=(1, 2)) / (truth * circle).sum(axis=(1, 2)))
    bands = pair.first.bands
    errors, inner, flux = (np.array(values) for values in (errors, inner, flux))
    table = Table(
        {
            "band": list(bands),
            "l2": np.median(errors, axis=0),
            "l2_worst": errors.max(axis=0),
            "l2_inner": np.median(inner, axis=0),
            "l2_inner_worst": inner.max(axis=0),
            "flux": np.median(flux, axis=0),
            "flux_off": np.abs(flux - 1).max(axis=0),
        }
    )
    for name in table.colnames[1:]:
        table[name].info.format = ".2g" if name != "flux" else ".6f"
    table.meta["caption"] = (
        f"psf-matching, CFHTLS to SDSS, {number} simulated galaxies without noise and colour terms: relative L2 "
        "against the truth, median and worst; inner: 3 arcsec from the edges, beyond which the stamp does not know "
        "what is there; flux: within 6 arcsec over the true one, and the largest departure."
    )
    return table


def _relative(made, truth):
    return np.sqrt(((made - truth) ** 2).sum(axis=(1, 2)) / (truth**2).sum(axis=(1, 2)))
