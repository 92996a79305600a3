"""The part ``spirals`` of the deblending benchmark: galaxies with arms, and into how many sources they fall."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from astrogan.api import Observation
from astrogan.bench._deblending_grid import in_processes
from astrogan.bench._linear_common import as_table
from astrogan.exceptions import InputError

__all__ = ["galaxy_ellipse", "spiral_names", "split_count", "split_spirals"]

_EXAMPLES = 8
_REACH = 3.5
"""Standard deviations of the galaxy's body, along its longer axis, within which its light is counted."""


_WITH_ANOTHER = frozenset({"178013", "275973", "294973", "662109", "735007", "780849", "836383"})
"""Of the first 60 galaxies those that were split and show, looked at, a star or another galaxy inside the ellipse."""


def split_spirals(data, number, *, jobs=1, progress=None):
    """How many spiral galaxies the default's detection, and photutils', take for several sources.

    Parameters
    ----------
    data : path
        Folder of the real images.
    number : int
        Galaxies.
    jobs : int
        Processes.
    progress : callable, optional
        Called with a line of text.

    Returns
    -------
    table : `~astropy.table.Table`
        A line a method.
    galaxies : `~astropy.table.Table`
        A line a galaxy.
    examples : list of dict
        For `astrogan.bench._deblending_figure.draw_spirals`.
    """
    source = _source(data)
    names = spiral_names(data, number)
    lines, examples = [], []
    for line, example in in_processes(_one, ((name, source[name]) for name in names), jobs):
        lines.append(line)
        examples.append(example)
        if progress is not None and len(lines) % max(1, len(names) // 5) == 0:
            progress(f"{len(lines)}/{len(names)}  spirals")
    lines.sort(key=lambda line: names.index(line["galaxy"]))
    methods = list(examples[0]["centres"])
    single = [line for line in lines if line["galaxy"] not in _WITH_ANOTHER]
    rows = [
        _summary(method, np.array([line[method] for line in chosen])) | {"galaxies_are": kind}
        for kind, chosen in (("all", lines), ("single to the eye", single))
        for method in methods
        if chosen
    ]
    galaxies = as_table(lines, "Other centres within the half-light ellipse of the galaxy, by method.")
    formats = {"split_percent": ".1f", "low": ".1f", "high": ".1f", "mean_extra": ".2f"}
    return as_table(rows, _CAPTION, formats), galaxies, _chosen(examples, methods)


_CAPTION = (
    "Galaxies called spiral in Galaxy Zoo's labels, test part of the split first, then validation and train, by name; "
    "pictures of 424 x 424 pixels, resampled to 212 x 212, which still oversamples them, brought to linear flux less "
    "the sky, their noise measured, no PSF given. A galaxy counts as split where a centre other than the one nearest "
    "to the middle lies in its half-light ellipse: that of adaptive moments, scaled to hold half of the light of the "
    "connected pixels above 3 sigma within 3.5 standard deviations; stars and neighbours further out do not count, a "
    "star inside does. low, high: 95 % (Wilson). photutils: detect_sources at 1.5 sigma after smoothing with 3 pixels "
    "FWHM, 10 pixels, deblend_sources as it comes. single to the eye: without the seven of the first sixty that were "
    "split and show a star or another galaxy inside the ellipse; whether unsplit ones have some was not looked at."
)


def spiral_names(data, number):
    """Names of the galaxies that the labels call spiral, test part first, each part by name."""
    from astrogan.train.split import part_of

    path = Path(data) / "galaxyzoo_kaggle" / "labels.csv"
    if not path.is_file():
        raise InputError(f"data={str(data)!r} has no galaxyzoo_kaggle/labels.csv; give the folder of the real images")
    with path.open(newline="", encoding="utf-8") as file:
        spirals = [row["galaxy_id"] for row in csv.DictReader(file) if row["label"] == "spiral"]
    order = {"test": 0, "validation": 1, "train": 2}
    return sorted(spirals, key=lambda name: (order[part_of(name)], name))[:number]


class _source:  # noqa: N801 - a mapping, used once
    """Linear flux of a stamp by name."""

    def __init__(self, data):
        from astrogan.train.sources import StampTar

        self._tar = StampTar(Path(data) / "galaxyzoo_kaggle" / "images.tar", size=212)
        self._place = {self._tar.name(i): i for i in range(len(self._tar))}

    def __getitem__(self, name):
        return self._tar.load(self._place[name]).data


def _one(name, flux):
    from astrogan.image.stretch import GalaxyGAN2017Stretch

    observation = _less_sky(Observation(flux))
    ellipse = galaxy_ellipse(observation)
    centres = {"default": _default_centres(observation), "photutils": _photutils_centres(observation)}
    split = {method: split_count(found, ellipse) for method, found in centres.items()}
    example = {
        "name": name, "picture": GalaxyGAN2017Stretch().forward(flux), "ellipse": ellipse, "centres": centres,
        "split": split,
    }  # fmt: skip
    return {"galaxy": name, **{method: len(extra) for method, extra in split.items()}}, example


def _less_sky(observation):
    from astrogan.image.uncertainty import background_rms

    maps = [background_rms(plane) for plane in observation.data]
    data = np.stack([p - np.median(b) for p, (b, _) in zip(observation.data, maps, strict=True)])
    variance = np.stack([np.full(p.shape, np.median(rms) ** 2) for p, (_, rms) in zip(data, maps, strict=True)])
    return observation.replace(data=data, variance=variance, measured_noise=True)


def _default_centres(observation):
    """Positions that `~astrogan.Deblender` finds at its defaults."""
    from astrogan.operators.deblender import Deblender

    backend = Deblender().backend
    if hasattr(backend, "detect"):
        return np.asarray(backend.detect(observation, None).positions, np.float64).reshape(-1, 2)
    separation = backend(observation, None, rng=np.random.default_rng(0))
    return np.array([t.position for t in separation.templates], np.float64).reshape(-1, 2)


def _photutils_centres(observation):
    from scipy.ndimage import maximum_position

    from astrogan.bench._deblending_rows import photutils_segments

    labels, plane = photutils_segments(observation)
    count = int(labels.max(initial=0))
    peaks = maximum_position(plane, labels, range(1, count + 1)) if count else []
    return np.array(peaks, np.float64).reshape(-1, 2)[:, ::-1]


def galaxy_ellipse(observation):
    """Half-light ellipse of the galaxy in the middle.

    Parameters
    ----------
    observation : `~astrogan.api.Observation`
        With a variance and the sky taken off.

    Returns
    -------
    tuple of float
        x, y, semi-axes a and b in pixels, angle from x in radians.
    """
    from scipy import ndimage

    sigma = np.sqrt(np.median(observation.variance, axis=(1, 2)))[:, None, None]
    plane = (observation.data / sigma).sum(axis=0) / np.sqrt(len(sigma))
    smooth = ndimage.gaussian_filter(plane, 2.0)
    labels, _ = ndimage.label(smooth > 3, np.ones((3, 3)))
    own = labels == labels[_nearest_lit(labels, (np.array(plane.shape) - 1) / 2)]
    x, y, sigma, ratio, theta = _shape(np.where(own, smooth, 0.0))
    # A neighbour whose light touches the galaxy's is further out than that.
    ys, xs = np.nonzero(own)
    radius = _elliptical(xs, ys, (x, y, 1.0, ratio, theta))
    light = np.where(radius < _REACH * sigma, smooth[own], 0)
    order = np.argsort(radius)
    a = radius[order][np.searchsorted(np.cumsum(light[order]), light.sum() / 2)]
    return x, y, float(a), float(a * ratio), theta


def _shape(plane):
    """Centre, standard deviation along the longer axis, axis ratio and angle of the brightest thing near the middle."""
    from astrogan.metrics import moments

    y0, x0 = (n // 3 for n in plane.shape)
    middle = plane[y0 : plane.shape[0] - y0, x0 : plane.shape[1] - x0]
    y, x = np.unravel_index(middle.argmax(), middle.shape)
    for sigma in (6.0, 3.0, 12.0):
        found = moments(plane, (x0 + x, y0 + y), sigma=sigma)
        if np.isfinite(found.e1):
            e = min(float(np.hypot(found.e1, found.e2)), 0.98)
            ratio = np.sqrt((1 - e) / (1 + e))
            theta = 0.5 * float(np.arctan2(found.e2, found.e1))
            return found.x, found.y, found.size / np.sqrt(ratio), ratio, theta
    return float(x0 + x), float(y0 + y), min(plane.shape) / 12, 1.0, 0.0


def _nearest_lit(labels, middle):
    y, x = np.nonzero(labels)
    if not y.size:
        raise InputError("a picture holds no object above 3 sigma; leave it out")
    nearest = np.hypot(y - middle[0], x - middle[1]).argmin()
    return y[nearest], x[nearest]


def _elliptical(x, y, ellipse):
    """Elliptical radius in units of the first semi-axis times that."""
    x0, y0, a, b, theta = ellipse
    along = (x - x0) * np.cos(theta) + (y - y0) * np.sin(theta)
    across = (y - y0) * np.cos(theta) - (x - x0) * np.sin(theta)
    return np.hypot(along / a, across / b) * a


def split_count(centres, ellipse):
    """Indices of the centres inside the ellipse, but for the one nearest to its middle.

    Parameters
    ----------
    centres : `numpy.ndarray`
        (source, 2).
    ellipse : tuple of float
        Of `galaxy_ellipse`.

    Returns
    -------
    list of int
    """
    if not len(centres):
        return []
    inside = _elliptical(*centres.T, ellipse) <= ellipse[2]
    nearest = np.hypot(*(centres - ellipse[:2]).T).argmin()
    return [int(k) for k in np.flatnonzero(inside) if k != nearest]


def _summary(method, extra):
    n, k = len(extra), int(np.count_nonzero(extra))
    low, high = _wilson(k, n)
    return {
        "method": method, "galaxies": n, "split": k, "split_percent": 100 * k / n, "low": 100 * low, "high": 100 * high,
        "mean_extra": float(extra.mean()),
    }  # fmt: skip


def _wilson(k, n, z=1.96):
    """Interval of a fraction."""
    middle, half = (k + z**2 / 2) / (n + z**2), z * np.sqrt(k * (n - k) / n + z**2 / 4) / (n + z**2)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _chosen(examples, methods):
    """Those that the default splits most, and some that it does not split."""
    extra = {e["name"]: len(e["split"][methods[0]]) for e in examples}
    order = sorted(examples, key=lambda e: (-extra[e["name"]], e["name"]))
    whole = [e for e in order if not extra[e["name"]]][: _EXAMPLES // 2]
    return [e for e in order if extra[e["name"]]][: _EXAMPLES - len(whole)] + whole
