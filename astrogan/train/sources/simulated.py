"""Galaxies without end, drawn with GalSim: noise-free, each a pure function of its number."""

from __future__ import annotations

import numbers

import numpy as np

from astrogan.exceptions import InputError, MissingDependencyError
from astrogan.train.sources.base import Sample, Source

__all__ = ["SimulatedStream"]

# GalSim tabulates each Sersic index anew, so there are few.
_SERSIC = (0.7, 1.0, 1.5, 2.5, 4.0)
_TRUNCATION = 8.0  # half-light radii


class SimulatedStream(Source):
    """Stamps with a galaxy near the middle, neighbours and stars around it, through a native PSF and without noise.

    Galaxies are Sersic profiles, or bulge and disk, with knots of star formation in some; the PSF is a slightly sheared
    Moffat. Flux is in units of the faintest galaxy's. The image is not that of any survey: sizes and brightness
    are drawn evenly in the logarithm, so that the rare ones come as often as the others.

    Parameters
    ----------
    seed : int, optional
        Another seed, other galaxies.
    size : int, optional
        Edge of the stamps, in pixels.
    bands : int, optional
        How many; components differ in colour, and the PSF in width by some percent.
    length : int, optional
        How many images `len` counts, out of as many as one likes.
    psf_fwhm : sequence of float, optional
        Range of the native FWHM, in pixels.
    radius : sequence of float, optional
        Range of half-light radii before the PSF, in pixels.
    flux : sequence of float, optional
        Range of total fluxes.
    neighbours, stars : float, optional
        Expected numbers in 10,000 square pixels.

    Raises
    ------
    InputError
        If an argument is out of range.
    MissingDependencyError
        If GalSim is not installed.
    """

    def __init__(
        self,
        seed=0,
        size=128,
        *,
        bands=1,
        length=100_000,
        psf_fwhm=(1.8, 4.5),
        radius=(0.8, 14.0),
        flux=(1.0, 1000.0),
        neighbours=1.5,
        stars=0.5,
    ):
        for label, value, low in (("seed", seed, 0), ("size", size, 16), ("bands", bands, 1), ("length", length, 1)):
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
                raise InputError(f"{label}={value!r} must be an integer of at least {low}")
        self._ranges = {
            label: _range(label, value) for label, value in (("psf_fwhm", psf_fwhm), ("radius", radius), ("flux", flux))
        }
        for label, value in (("neighbours", neighbours), ("stars", stars)):
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < 100:
                raise InputError(f"{label}={value!r} must be a number from 0 to 100")
        _galsim()
        self._seed, self._size, self._length = int(seed), int(size), int(length)
        self._crowd = {"neighbours": neighbours * size**2 / 1e4, "stars": stars * size**2 / 1e4}
        self.bands = ("any",) if bands == 1 else tuple(str(n) for n in range(bands))

    def __len__(self):
        return self._length

    def name(self, i):
        """Seed and number: each image is an object of its own."""
        return f"simulated {self._seed}-{self._checked(i)}"

    def load(self, i):
        """Image ``i`` as a `Sample`, drawn anew each time."""
        rng = np.random.default_rng([self._seed, self._checked(i)])
        galsim, size = _galsim(), self._size
        fwhm = _log_uniform(rng, self._ranges["psf_fwhm"])
        widths = fwhm * np.clip(1 + 0.05 * rng.normal(size=len(self.bands)), 0.85, 1.15)
        beta, shear = rng.uniform(2.5, 4.5), rng.normal(scale=0.01, size=2)
        scene = self._scene(rng)
        planes = []
        for band, width in enumerate(widths):
            psf = galsim.Moffat(beta=beta, fwhm=width).shear(g1=shear[0], g2=shear[1])
            image = galsim.ImageF(size, size, scale=1.0)
            for profile, colours, place in scene:
                _draw(galsim, galsim.Convolve(_coloured(galsim, profile, colours, band), psf), place, image)
            planes.append(image.array)
        return Sample(np.stack(planes).astype(np.float32), psf_fwhm=float(widths.mean()))

    def describe(self):
        """What a model card says of the source."""
        return {
            "kind": "simulated",
            "origin": f"GalSim {_galsim().__version__}, seed {self._seed}",
            "licence": "BSD-3-Clause",
            "images": len(self),
            "objects": len(self),
        }

    def _scene(self, rng):
        """(parts, their colours, (x, y)) of all sources."""
        middle, reach = (self._size + 1) / 2, self._size / 8
        scene = [(*self._galaxy(rng), rng.uniform(middle - reach, middle + reach, 2))]
        for _ in range(rng.poisson(self._crowd["neighbours"])):
            scene.append((*self._galaxy(rng), rng.uniform(-4, self._size + 4, 2)))
        for _ in range(rng.poisson(self._crowd["stars"])):
            star = _galsim().DeltaFunction(flux=_log_uniform(rng, self._ranges["flux"]))
            scene.append(([star], _colours(rng, 1, len(self.bands)), rng.uniform(-4, self._size + 4, 2)))
        return scene

    def _galaxy(self, rng):
        galsim = _galsim()
        flux, radius = _log_uniform(rng, self._ranges["flux"]), _log_uniform(rng, self._ranges["radius"])
        # Large and faint is below any noise; surface brightness sets what can be seen.
        flux *= min(1.0, (radius / 3) ** 0.5) if radius < 3 else (radius / 3) ** 1.0
        shape = {"q": rng.uniform(0.25, 1.0), "beta": rng.uniform(0, np.pi) * galsim.radians}
        if rng.uniform() < 0.4:
            parts = [_sersic(galsim, rng.choice(_SERSIC), radius, flux).shear(**shape)]
        else:
            share = rng.uniform(0.05, 0.6)
            bulge = _sersic(galsim, rng.choice((1.5, 2.5, 4.0)), max(radius * rng.uniform(0.1, 0.4), 0.4), flux * share)
            disk = _sersic(galsim, 1.0, radius, flux * (1 - share)).shear(**shape)
            parts = [bulge.shear(q=rng.uniform(0.6, 1.0), beta=shape["beta"]), disk]
        if radius > 2 and rng.uniform() < 0.5:
            deviate = galsim.BaseDeviate(int(rng.integers(1, 2**31)))
            share = rng.uniform(0.03, 0.3)
            count = int(rng.integers(5, 40))
            knots = galsim.RandomKnots(count, half_light_radius=radius, flux=flux * share, rng=deviate)
            parts.append(knots.shear(**shape))
        return parts, _colours(rng, len(parts), len(self.bands))


def _sersic(galsim, n, radius, flux):
    """A profile scaled from one of unit radius, whose table GalSim keeps; steep ones end, or would fill any stamp."""
    trunc = _TRUNCATION if n > 1 else 0
    return galsim.Sersic(n=float(n), half_light_radius=1.0, trunc=trunc).dilate(radius).withFlux(flux)


def _colours(rng, parts, bands):
    """(part, band) factors on the flux; one where there is one band only."""
    slope = rng.normal(scale=0.6, size=(parts, 1))
    return np.exp(slope * (np.linspace(-0.5, 0.5, bands) if bands > 1 else np.zeros(1)))


def _coloured(galsim, parts, colours, band):
    """The sum of a source's parts in one band."""
    parts = [part * float(factor) for part, factor in zip(parts, colours[:, band], strict=True)]
    return parts[0] if len(parts) == 1 else galsim.Sum(parts)


def _draw(galsim, profile, place, image):
    """Add a source to the image; its wings reach as far as 99.5 % of its light do, and to all of the image at most."""
    width = min(2 * profile.getGoodImageSize(1.0), 2 * image.array.shape[0])
    stamp = profile.drawImage(nx=width, ny=width, scale=1.0, center=galsim.PositionD(*place))
    overlap = stamp.bounds & image.bounds
    if overlap.isDefined():
        image[overlap] += stamp[overlap]


def _log_uniform(rng, limits):
    return float(np.exp(rng.uniform(*np.log(limits))))


def _range(name, value):
    good = (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(v, numbers.Real) and not isinstance(v, bool) and np.isfinite(v) and v > 0 for v in value)
    )
    if not good or value[0] > value[1]:
        raise InputError(f"{name}={value!r} must be two positive numbers, the smaller first")
    return float(value[0]), float(value[1])


def _galsim():
    try:
        import galsim
    except ImportError as error:
        raise MissingDependencyError(
            "simulated galaxies need GalSim: run `pip install 'astrogan[sim]'` (or `pip install galsim`)"
        ) from error
    return galsim
