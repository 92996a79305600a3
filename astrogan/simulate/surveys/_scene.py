"""What is on the sky: a galaxy of bulge, disc, bar, arms and knots, and what happens to lie beside it.

The priors are astrogan's own: apparent magnitudes of r = 16.5 to 20.5, the redshifts and radii that go with them
(radii near Shen et al. 2003, MNRAS 343, 978), and neighbours with the slope of deep counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrogan.simulate.surveys._canvas import Ellipse, Knots, Painting, Point
from astrogan.simulate.surveys._spectra import Spectrum

_MAGNITUDES = (16.5, 20.5)
_FAINTEST, _COUNTS = 24.0, 0.35  # of neighbours, in r; d log N / dm
_NEARBY_STARS = 0.12  # of all neighbours
_BULGES = (2.0, 3.0, 4.0)  # Sersic indices; each has a table


@dataclass
class Light:
    """Light of one colour: a profile at (x, y) arcsec from the galaxy, y up, and its r magnitude."""

    profile: object
    magnitude: float
    spectrum: Spectrum
    place: tuple[float, float] = (0.0, 0.0)

    def fluxes(self, bands, megacam):
        """Nanomaggies, (band,)."""
        return 10 ** (0.4 * (22.5 - self.magnitude - self.spectrum.colours(bands, megacam)))


@dataclass
class Scene:
    """The galaxy's lights, those of its neighbours, and what is known of it."""

    galaxy: list[Light]
    neighbours: list[Light]
    facts: dict

    @property
    def reach(self):
        """Arcsec from the galaxy's centre within which nearly all of its light is."""
        return max(getattr(light.profile, "radius", 0) * _reach_of(light.profile) for light in self.galaxy)


def _reach_of(profile):
    return 4.5 if getattr(profile, "index", 1) == 1 else 8.0


def draw_scene(rng, field, neighbours):
    """A `Scene`; neighbours, their mean number given, lie within ``field`` (y, x) arcsec."""
    magnitude = _MAGNITUDES[0] + np.ptp(_MAGNITUDES) * rng.uniform() ** 0.75
    kind = str(rng.choice(["elliptical", "lenticular", "spiral", "disc", "irregular"], p=[0.2, 0.12, 0.4, 0.18, 0.1]))
    redshift = _redshift(rng, magnitude, kind)
    radius = _radius(rng, magnitude, redshift, kind in ("elliptical", "lenticular"))
    angle = rng.uniform(0, np.pi)
    lights, facts = _MAKERS[kind](rng, magnitude, redshift, radius, angle)
    facts = {
        "kind": kind,
        "r_magnitude": float(magnitude),
        "redshift": float(redshift),
        "angle": float(np.rad2deg(angle)),
        **facts,
        "half_light_radius": _half_light(lights),
    }
    return Scene(lights, _neighbours(rng, field, neighbours), facts)


def _redshift(rng, magnitude, kind):
    middle = 0.09 * 10 ** (0.14 * (magnitude - 17)) * (0.75 if kind == "irregular" else 1.0)
    return float(np.clip(middle * np.exp(0.35 * rng.normal()), 0.015, 0.6))


def _radius(rng, magnitude, redshift, early):
    """Half-light radius in arcsec, from luminosity."""
    distance = 4283 * redshift * (1 + 0.77 * redshift)  # luminosity distance, Mpc, H0 = 70, q0 = -0.55
    absolute = magnitude - 5 * np.log10(distance * 1e5) - (1.1 if early else 0.7) * redshift
    kpc = 4.2 * 10 ** (-0.25 * (absolute + 21)) if early else 5.0 * 10 ** (-0.16 * (absolute + 21))
    arcsec = kpc * np.exp((0.25 if early else 0.3) * rng.normal()) / (distance / (1 + redshift) ** 2) * 206.265
    return float(np.clip(arcsec, 0.35, 5.0))


def _elliptical(rng, magnitude, redshift, radius, angle):
    q = rng.uniform(0.5, 1.0)
    index = float(rng.choice(_BULGES[1:]))
    old = _spectrum(rng, "old", redshift)
    # Isophotes of real ones turn rounder or flatter outwards, and become bluer.
    outer = 0.25 + 0.2 * rng.uniform()
    bluer = Spectrum("old", redshift, old.tilt - 0.15)
    inner_q = np.clip(q + rng.normal(scale=0.08), 0.4, 1.0)
    lights = [
        Light(Ellipse(index, 0.8 * radius, inner_q, angle), _part(magnitude, 1 - outer), old),
        Light(Ellipse(2.0, 1.7 * radius, q, angle), _part(magnitude, outer), bluer),
    ]
    return lights, {"axis_ratio": float(q), "bulge_fraction": 1.0}


def _lenticular(rng, magnitude, redshift, radius, angle):
    share, q = rng.uniform(0.35, 0.7), _inclined(rng, 0.25)
    lights = [
        _bulge(rng, _part(magnitude, share), redshift, 0.35 * radius, q, angle),
        Light(Ellipse(1, 1.25 * radius, q, angle), _part(magnitude, 1 - share), _spectrum(rng, "old", redshift, -0.3)),
    ]
    return lights, {"axis_ratio": float(q), "bulge_fraction": float(share)}


def _disc(rng, magnitude, redshift, radius, angle):
    """A disc seen at any angle, edge-on ones with dust; smooth but for a few knots."""
    share, q = rng.beta(1.2, 5.0), _inclined(rng, 0.13)
    knots = rng.uniform(0.02, 0.12)
    edge_on = np.clip((0.4 - q) / 0.25, 0, 1)
    lights = [
        _bulge(rng, _part(magnitude, share), redshift, 0.3 * radius, q, angle),
        Light(
            Ellipse(1, radius, q, angle),
            _part(magnitude, 1 - share - knots),
            _spectrum(rng, "disc", redshift, 0.5 * edge_on),
        ),
        Light(
            _scattered(rng, radius, q, angle, int(rng.integers(8, 25))),
            _part(magnitude, knots),
            _spectrum(rng, "young", redshift, 0.5 * edge_on),
        ),
    ]
    return lights, {"axis_ratio": float(q), "bulge_fraction": float(share)}


def _spiral(rng, magnitude, redshift, radius, angle):
    bulge, arms, knots = 0.4 * rng.beta(1.5, 3.0), rng.uniform(0.2, 0.45), rng.uniform(0.06, 0.2)
    bar = rng.uniform(0.04, 0.12) if rng.uniform() < 0.35 else 0.0
    q, length = np.sqrt(0.13**2 + (1 - 0.13**2) * rng.uniform(0.3, 1.0) ** 2), radius / 1.678
    pattern = _Arms(rng, length, q, angle)
    lights = [
        _bulge(rng, _part(magnitude, bulge), redshift, 0.28 * radius, q, angle),
        Light(
            Ellipse(1, radius, q, angle),
            _part(magnitude, 1 - bulge - arms - knots - bar),
            _spectrum(rng, "disc", redshift, 0.15),
        ),
        Light(pattern.painting(), _part(magnitude, arms), _spectrum(rng, "disc", redshift, -0.35)),
        Light(pattern.knots(), _part(magnitude, knots), _spectrum(rng, "young", redshift)),
    ]
    if bar:
        profile = Ellipse(0.5, 0.55 * length, 0.3 + 0.1 * rng.uniform(), angle + rng.normal(scale=0.5))
        lights.append(Light(profile, _part(magnitude, bar), _spectrum(rng, "old", redshift)))
    return lights, {"axis_ratio": float(q), "bulge_fraction": float(bulge)}


def _irregular(rng, magnitude, redshift, radius, angle):
    """No bulge, and much of the light in knots whose centre is not the disc's."""
    share, q = rng.uniform(0.2, 0.5), rng.uniform(0.35, 0.95)
    knots = _scattered(rng, 0.9 * radius, q, angle, int(rng.integers(12, 40)))
    knots.places += rng.normal(scale=0.2 * radius, size=2)
    knots.widths *= rng.uniform(0.8, 4.0, len(knots.widths))
    lights = [
        Light(Ellipse(1, radius, q, angle), _part(magnitude, 1 - share), _spectrum(rng, "disc", redshift, -0.3)),
        Light(knots, _part(magnitude, share), _spectrum(rng, "young", redshift)),
    ]
    return lights, {"axis_ratio": float(q), "bulge_fraction": 0.0}


_MAKERS = {
    "elliptical": _elliptical,
    "lenticular": _lenticular,
    "disc": _disc,
    "spiral": _spiral,
    "irregular": _irregular,
}


# ------------------------------------------------------------------------------------------------------- parts


def _part(magnitude, share):
    return float(magnitude - 2.5 * np.log10(max(share, 1e-4)))


def _inclined(rng, thickness):
    """Apparent axis ratio of a disc of some thickness in a random direction."""
    return float(np.sqrt(thickness**2 + (1 - thickness**2) * rng.uniform() ** 2))


def _spectrum(rng, kind, redshift, tilt=0.0):
    scatter = {"old": 0.12, "disc": 0.3, "young": 0.25}[kind]
    return Spectrum(kind, redshift, tilt + scatter * rng.normal())


def _bulge(rng, magnitude, redshift, radius, q, angle):
    profile = Ellipse(float(rng.choice(_BULGES)), max(radius, 0.08), 0.55 + 0.45 * q, angle)
    return Light(profile, magnitude, _spectrum(rng, "old", redshift))


def _scattered(rng, radius, q, angle, number):
    """Knots anywhere in a disc."""
    length = radius / 1.678
    r, azimuth = np.minimum(rng.gamma(2.0, 0.8, number), 4) * length, rng.uniform(0, 2 * np.pi, number)
    return _knots(rng, r, azimuth, length, q, angle)


def _knots(rng, r, azimuth, length, q, angle):
    a, b, cos, sin = r * np.cos(azimuth), q * r * np.sin(azimuth), np.cos(angle), np.sin(angle)
    places = np.column_stack([a * cos - b * sin, a * sin + b * cos])
    widths = np.maximum(length * rng.uniform(0.04, 0.13, len(r)), 0.05)
    return Knots(places, widths, rng.lognormal(sigma=0.9, size=len(r)))


class _Arms:
    """Logarithmic arms, phi = ln(R / h) / tan(pitch) in the plane of the disc."""

    def __init__(self, rng, length, q, angle):
        self.rng, self.length, self.q, self.angle = rng, length, q, angle
        self.number, hand = int(rng.choice([2, 2, 2, 3, 4])), rng.choice([-1, 1])
        self.winding = hand / np.tan(np.deg2rad(rng.uniform(12, 30)))
        self.phase, self.sharp = rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 4.0)
        self.patchy = rng.uniform(0.15, 0.45)
        self.lopsided, self.side = rng.uniform(0, 0.35), rng.uniform(0, 2 * np.pi)

    def painting(self):
        """Light of the arms alone."""
        length, step = self.length, min(self.length / 8, 0.2)
        half = int(np.ceil(5 * length / step))
        v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32) * np.float32(step)
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        major, minor = u * cos + v * sin, (v * cos - u * sin) / np.float32(self.q)
        radius = np.maximum(np.hypot(major, minor), 0.2 * length) / np.float32(length)
        azimuth = np.arctan2(minor, major)
        crest = np.cos(self.number * (azimuth - self.winding * np.log(radius)) - self.phase)
        image = np.exp(self.sharp * (crest - 1) - radius)
        image *= (1 - np.exp(-((radius / 0.9) ** 2))) * (1 + self.lopsided * np.cos(azimuth - self.side))
        image *= 0.5 * (1 + np.cos(np.pi * np.clip((radius - 3.5) / 1.4, 0, 1)))
        image *= np.exp(_patches(self.rng, len(image), self.patchy))
        return Painting(image, step)

    def knots(self):
        """Star formation along the arms."""
        rng, length = self.rng, self.length
        number = int(rng.integers(12, 50))
        r = np.clip(rng.gamma(3.0, 0.6, number), 0.6, 3.6) * length
        azimuth = self.winding * np.log(r / length)
        azimuth += (self.phase + 2 * np.pi * rng.integers(self.number, size=number)) / self.number
        azimuth += rng.normal(scale=0.15, size=number)
        return _knots(rng, r, azimuth, length, self.q, self.angle)


def _patches(rng, size, scatter, number=20):
    """A smooth random field on a square, its scatter about ``scatter``."""
    across = np.linspace(0, number - 1, size, dtype=np.float32)
    weights = np.exp(-0.5 * ((across[:, None] - np.arange(number, dtype=np.float32)) / 0.6) ** 2)
    return weights @ (scatter * rng.standard_normal((number, number), np.float32) / 1.02) @ weights.T


def _half_light(lights):
    """Major axis in arcsec that holds half of the r light of the smooth profiles."""
    from scipy.optimize import brentq

    smooth = [light for light in lights if isinstance(light.profile, Ellipse)]
    shares = np.array([10 ** (-0.4 * light.magnitude) for light in smooth])
    shares /= shares.sum()
    return float(
        brentq(lambda r: sum(s * o.profile.within(r) for s, o in zip(shares, smooth, strict=True)) - 0.5, 1e-3, 60)
    )


# --------------------------------------------------------------------------------------------------- neighbours


def _neighbours(rng, field, mean):
    lights = []
    for _ in range(rng.poisson(mean)):
        place = tuple(float(rng.uniform(-0.55, 0.55) * size) for size in (field[1], field[0]))
        magnitude = max(_FAINTEST + np.log10(1 - rng.uniform()) / _COUNTS, 17.0)
        lights += _neighbour(rng, magnitude, place)
    return lights


def _neighbour(rng, magnitude, place):
    if rng.uniform() < _NEARBY_STARS:
        temperature = float(np.exp(rng.uniform(np.log(3200), np.log(7500))))
        return [Light(Point(), magnitude - 1.0, Spectrum("star", temperature=temperature), place)]
    redshift = float(np.clip(0.12 * 10 ** (0.13 * (magnitude - 18)) * np.exp(0.35 * rng.normal()), 0.02, 1.5))
    radius = float(np.clip(0.45 * 10 ** (-0.1 * (magnitude - 22)) * np.exp(0.35 * rng.normal()), 0.12, 2.5))
    q, angle = _inclined(rng, 0.2), rng.uniform(0, np.pi)
    if rng.uniform() < 0.3:
        profile = Ellipse(3.0, radius, max(q, 0.5), angle)
        return [Light(profile, magnitude, _spectrum(rng, "old", redshift), place)]
    kind = "disc" if rng.uniform() < 0.5 else "young"
    return [Light(Ellipse(1, radius, q, angle), magnitude, _spectrum(rng, kind, redshift), place)]
