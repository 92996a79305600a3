"""Real galaxies, alone: JWST and HST stamps with what is not the galaxy in the middle taken off."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from astrogan.exceptions import InputError

_LEAST_SNR = 80.0  # of the segment, in each band
_LEAST_RADIUS = 3.0  # half-light radius in pixels of the stamp; what is smaller is all PSF
_LEAST_OVERLAP = 0.6
_FIRST_BANDS = 3  # of NIRCam's seven, the sharpest come first


@dataclass(frozen=True)
class RealGalaxy:
    """A galaxy without sky, noise around it or neighbours.

    Parameters
    ----------
    name : str
    image : `numpy.ndarray`
        (band, y, x), >= 0, the mean over bands having a sum of one.
    position : tuple of float
        (x, y) of its brightest place.
    radius : float
        Half-light radius, pixels.
    """

    name: str
    image: np.ndarray
    position: tuple[float, float]
    radius: float

    def image_in(self, bands):
        """(``bands``, y, x): the first of its own where it has enough, else what lies between them."""
        own = len(self.image)
        if own >= bands:
            first = max(min(own, _FIRST_BANDS), bands)
            return self.image[np.linspace(0, first - 1, bands).round().astype(int)]
        where = np.linspace(0, own - 1, bands)
        low = np.minimum(np.floor(where).astype(int), own - 1)
        part = (where - low)[:, None, None]
        return (1 - part) * self.image[low] + part * self.image[np.minimum(low + 1, own - 1)]


def is_reserved(name):
    """Whether a galaxy is kept for the frozen blends: decided by the SHA-256 of its name, half of all."""
    return int(hashlib.sha256(f"benchmark blends:{name}".encode()).hexdigest()[:16], 16) < 2**63


@lru_cache(maxsize=4)
def load_galaxies(data):
    """All usable galaxies in a folder of real images, in the order of their names.

    Parameters
    ----------
    data : str
        The folder.

    Returns
    -------
    tuple of `RealGalaxy`
    """
    found = [galaxy for name, cube in _stamps(Path(data)) if (galaxy := isolate(name, cube)) is not None]
    if not found:
        raise InputError(
            f"data={data!r} holds no galaxies to blend; it must have jwst_ceers_stamps/*.fits.gz or cosmos_hst_galsim/"
        )
    return tuple(sorted(found, key=lambda galaxy: galaxy.name))


def _stamps(folder):
    """(name, (band, y, x)) of every stamp in linear flux."""
    from astropy.io import fits

    for path in sorted((folder / "jwst_ceers_stamps").glob("*.fits.gz")):
        yield path.name.removesuffix(".fits.gz"), np.asarray(fits.getdata(path), np.float64)
    hubble = folder / "cosmos_hst_galsim"
    path = hubble / "btk" / "cosmos" / "real_galaxy_images_extension.fits"
    if path.exists():
        with fits.open(path) as hdus:
            for n, hdu in enumerate(hdus):
                yield f"cosmos_{n:03d}", np.asarray(hdu.data, np.float64)[None]
    two_bands = hubble / "galsim" / "tests" / "real_comparison_images"
    for path in sorted(two_bands.glob("AEGIS_F606w_images_*.fits")):
        with fits.open(path) as blue, fits.open(path.with_name(path.name.replace("F606w", "F814w"))) as red:
            for n, (one, other) in enumerate(zip(blue, red, strict=True)):
                if one.data.shape == other.data.shape:
                    yield f"{path.stem}_{n}", np.asarray([one.data, other.data], np.float64)


def isolate(name, cube):
    """The galaxy in the middle of a stamp, or `None` where it is faint, small, cut off or has gaps.

    Its segment is what a watershed of the smoothed sum of bands gives to the central peak, down to one and a half times
    the noise of the smoothed sum; outside there is nothing. Where a neighbour covers it stands what there is across
    the centre. Light is smoothed the more the fainter it is.
    """
    from scipy.ndimage import gaussian_filter, label
    from skimage.segmentation import watershed

    if min(cube.shape[1:]) < 24 or not np.isfinite(cube).all() or (cube == 0).sum() > 10:
        return None
    sky, noise = _background(cube)
    if not (noise > 0).all():
        return None
    cube = cube - sky
    total = (cube / noise**2).sum(axis=0) / (1 / noise**2).sum()
    smooth = gaussian_filter(total, 2.0)
    level = 1.5 * _background(smooth[None])[1].item()
    bright = smooth > level
    markers, _ = label(_peaks(smooth, level) & bright)
    markers = watershed(-smooth, markers, mask=bright)
    height, width = bright.shape
    middle = (slice(height // 2 - 4, height // 2 + 4), slice(width // 2 - 4, width // 2 + 4))
    y, x = np.unravel_index(np.argmax(smooth[middle]), (8, 8))
    y, x = int(y) + height // 2 - 4, int(x) + width // 2 - 4
    segment = markers == markers[y, x]
    if markers[y, x] == 0 or not _inside(segment):
        return None
    peak = np.unravel_index(np.argmax(np.where(segment, smooth, -np.inf)), smooth.shape)
    attached = label(bright)[0]
    covered = (attached == attached[y, x]) & ~segment
    image, segment = _filled(_smoothed(cube, noise) * segment, segment, covered, peak)
    if _overlap(segment, peak) < _LEAST_OVERLAP:
        return None
    image = np.maximum(image * np.minimum(2 * gaussian_filter(segment.astype(float), 1.0), 1), 0)
    flux = image.sum(axis=(1, 2))
    radius = _half_light_radius(image.sum(axis=0), peak)
    if (flux < _LEAST_SNR * noise * np.sqrt(segment.sum())).any() or radius < _LEAST_RADIUS:
        return None
    return RealGalaxy(name, image / flux.mean(), (float(peak[1]), float(peak[0])), radius)


def _smoothed(cube, noise):
    """Each pixel as sharp as its S/N allows: through Gaussians of 0 to 4 pixels, up to ten times their noise."""
    from scipy.ndimage import gaussian_filter

    result = gaussian_filter(cube, (0, 4.0, 4.0))
    for sigma in (2.0, 1.0, 0.0):
        layer = gaussian_filter(cube, (0, sigma, sigma)) if sigma else cube
        # The noise of neighbouring pixels is correlated: half of what smoothing takes off white noise is believed.
        own = noise / max(np.sqrt(np.pi) * sigma, 1.0)
        weight = np.clip(gaussian_filter(np.abs(layer), (0, 1.0, 1.0)) / (5 * own) - 1, 0, 1)
        result = weight * layer + (1 - weight) * result
    return result


def _filled(image, segment, covered, peak):
    """What neighbours cover, from the other side of the centre (y, x) where the galaxy is seen there."""
    y, x = np.nonzero(covered)
    across_y, across_x = 2 * peak[0] - y, 2 * peak[1] - x
    inside = (across_y >= 0) & (across_x >= 0) & (across_y < segment.shape[0]) & (across_x < segment.shape[1])
    y, x, across_y, across_x = (v[inside] for v in (y, x, across_y, across_x))
    seen = segment[across_y, across_x]
    image, filled = image.copy(), segment.copy()
    image[:, y[seen], x[seen]] = image[:, across_y[seen], across_x[seen]]
    filled[y[seen], x[seen]] = True
    return image, filled


def _background(cube):
    """Sky and noise of each band from the border of the stamp, where the galaxy is faintest."""
    edge = np.ones(cube.shape[1:], bool)
    edge[6:-6, 6:-6] = False
    border = cube[:, edge]
    sky = np.median(border, axis=1)
    # The lower half of the values: neighbours only brighten.
    spread = np.array([np.median(m - b[b < m]) for b, m in zip(border, sky, strict=True)]) * 1.4826
    return sky[:, None, None], spread[:, None, None]


def _peaks(smooth, level):
    """Maxima that stand out: one that a saddle of 0.8 of its height parts from a higher one is a part of that."""
    from skimage.morphology import reconstruction

    # In the logarithm, so that knots of a bright galaxy are judged as those of a faint one.
    log = np.log(np.maximum(smooth, 0.3 * level))
    return log - reconstruction(log - 0.25, log) > 0.249


def _inside(segment):
    """Whether a galaxy ends before its stamp does, for all but a twentieth of the border."""
    border = np.concatenate([segment[0], segment[-1], segment[:, 0], segment[:, -1]])
    return border.mean() < 0.05


def _overlap(segment, peak):
    """The part of a segment that is one across the centre (y, x) too: small where something cut the galaxy."""
    y, x = np.nonzero(segment)
    y, x = 2 * peak[0] - y, 2 * peak[1] - x
    inside = (y >= 0) & (x >= 0) & (y < segment.shape[0]) & (x < segment.shape[1])
    return segment[y[inside], x[inside]].sum() / segment.sum()


def _half_light_radius(image, peak):
    y, x = np.indices(image.shape)
    distance = np.hypot(y - peak[0], x - peak[1]).ravel()
    order = np.argsort(distance, kind="stable")
    grown = np.cumsum(image.ravel()[order])
    return float(distance[order][np.searchsorted(grown, 0.5 * grown[-1])])
