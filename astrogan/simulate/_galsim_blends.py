"""Sources of a blend in Fourier space: GalSim's profiles, arms and real galaxies, all on one grid of wave numbers.

A source is drawn once and not once a band: its parts are transforms without a PSF, a band is their sum with the
band's colours times the band's PSF. The grid reaches to twice the Nyquist frequency of the pixels, so that sampling
aliases as that of a camera does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import MissingDependencyError

_BULGES = (2.5, 3.5, 4.0)  # GalSim tabulates each Sersic index anew, so there are few
_TRUNCATION = 8.0  # half-light radii
# Mean and scatter of d ln(flux) over the range of bands: old stars are red, knots of star formation are not.
_COLOURS = {"bulge": (1.1, 0.3), "disk": (0.5, 0.35), "arms": (0.0, 0.3), "star": (0.3, 0.9), "real": (0.0, 0.25)}


@dataclass
class Part:
    """Light of one colour: its transform at unit flux, centred at the origin, and its flux by band."""

    transform: np.ndarray
    colours: np.ndarray


@dataclass
class Source:
    """Parts that share a place; the radius holds half of the light before the PSF."""

    kind: str
    parts: list[Part]
    radius: float


def galsim_module():
    """GalSim, or an error that says how to get it."""
    try:
        import galsim
    except ImportError as error:
        raise MissingDependencyError(
            "simulating blends needs GalSim: run `pip install 'astrogan[sim]'` (or `pip install galsim`)"
        ) from error
    return galsim


class Canvas:
    """A periodic frame of ``size`` pixels in Fourier space."""

    def __init__(self, size):
        self.size = size
        self.k = np.fft.fftfreq(2 * size, d=1 / (2 * size)) * 2 * np.pi / size  # per pixel, to +- 2 pi

    def transform(self, profile):
        """Of a GalSim profile, (ky, kx)."""
        galsim, n = galsim_module(), self.size
        image = galsim.ImageCD(galsim.BoundsI(-n, n - 1, -n, n - 1), scale=2 * np.pi / n)
        profile.drawKImage(image=image)
        return np.fft.ifftshift(image.array).astype(np.complex64)

    def transform_image(self, image, scale, centre):
        """Of an image of pixels of ``scale`` (at most half a pixel of the frame) about ``centre`` (x, y)."""
        waves = [
            np.exp(-1j * np.outer((np.arange(n) - c) * scale, self.k)).astype(np.complex64)
            for n, c in zip(image.shape, centre[::-1], strict=True)
        ]
        return waves[0].T @ (image.astype(np.complex64) @ waves[1])

    def pixel(self):
        """Transform of a square pixel, (ky, kx)."""
        across = np.sinc(self.k / (2 * np.pi)).astype(np.float32)
        return across[:, None] * across

    def shifted(self, place):
        """Phases that move a source from the origin to (x, y)."""
        x, y = (np.exp(-1j * self.k * p).astype(np.complex64) for p in place)
        return y[:, None] * x

    def image(self, transform):
        """Samples at the centres of pixels, (y, x): frequencies a sampling apart fold into one."""
        n = self.size
        folded = transform.reshape(2, n, 2, n).sum(axis=(0, 2), dtype=np.complex128)
        return np.fft.ifft2(folded).real


def colours(rng, kind, bands):
    """Flux of a part by band, with a mean of one."""
    mean, scatter = _COLOURS[kind]
    factor = np.exp(rng.normal(mean, scatter) * (np.linspace(-0.5, 0.5, bands) if bands > 1 else np.zeros(1)))
    return factor / factor.mean()


def star(canvas, rng, bands):
    """A point."""
    flat = np.ones((2 * canvas.size,) * 2, np.complex64)
    return Source("star", [Part(flat, colours(rng, "star", bands))], 0.0)


def galaxy(canvas, rng, bands, radius):
    """A de Vaucouleurs-like bulge and an exponential disk; one galaxy in six is all bulge."""
    galsim = galsim_module()
    share = 1.0 if rng.uniform() < 1 / 6 else rng.beta(1.2, 2.5)
    q, beta = rng.uniform(0.25, 1.0), rng.uniform(0, np.pi) * galsim.radians
    index = _BULGES[rng.integers(len(_BULGES))]
    size = radius if share == 1 else radius * rng.uniform(0.2, 0.5)
    bulge = galsim.Sersic(n=index, half_light_radius=1.0, trunc=_TRUNCATION).dilate(max(size, 0.3))
    bulge = bulge.shear(q=0.45 + 0.55 * q, beta=beta)
    parts = [Part(canvas.transform(bulge), share * colours(rng, "bulge", bands))]
    if share < 1:
        disk = galsim.Exponential(half_light_radius=radius).shear(q=q, beta=beta)
        parts.append(Part(canvas.transform(disk), (1 - share) * colours(rng, "disk", bands)))
    return Source("galaxy", parts, radius)


def spiral(canvas, rng, bands, radius):
    """A small bulge, a disk modulated along logarithmic arms, and knots of star formation on the arms."""
    galsim = galsim_module()
    scale_length, q, angle = radius / 1.678, rng.uniform(0.45, 1.0), rng.uniform(0, np.pi)
    disk, knots, step = _spiral_images(rng, scale_length, q, angle)
    bulge = galsim.Sersic(n=2.5, half_light_radius=1.0, trunc=_TRUNCATION).dilate(max(0.3 * scale_length, 0.3))
    bulge = bulge.shear(q=0.5 + 0.5 * q, beta=angle * galsim.radians)
    centre = ((disk.shape[1] - 1) / 2, (disk.shape[0] - 1) / 2)
    shares = np.array([rng.uniform(0.03, 0.25), 1.0, rng.uniform(0.1, 0.35)])
    shares[1] -= shares[0] + shares[2]
    transforms = (
        canvas.transform(bulge),
        canvas.transform_image(disk, step, centre),
        canvas.transform_image(knots, step, centre),
    )
    kinds = ("bulge", "disk", "arms")
    parts = [Part(t, s * colours(rng, k, bands)) for t, s, k in zip(transforms, shares, kinds, strict=True)]
    return Source("spiral", parts, radius)


def _spiral_images(rng, scale_length, q, angle):
    """Surface brightness of disk and knots, each with a sum of one, and the edge of their pixels.

    Arms follow phi = ln(R / h) / tan(pitch) in the plane of the disk.
    """
    step = min(0.5, scale_length / 6)
    half = int(np.ceil(5.5 * scale_length / step))
    v, u = np.mgrid[-half : half + 1, -half : half + 1] * step
    cos, sin = np.cos(angle), np.sin(angle)
    major, minor = u * cos + v * sin, (v * cos - u * sin) / q
    radius = np.hypot(major, minor)

    number, hand = int(rng.choice([2, 2, 2, 3, 4])), rng.choice([-1, 1])
    winding = hand / np.tan(np.deg2rad(rng.uniform(12, 30)))
    phase, contrast, sharp = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 0.9), rng.uniform(1.0, 2.5)
    turn = winding * np.log(np.maximum(radius, 0.2 * scale_length) / scale_length)
    crest = np.exp(sharp * (np.cos(number * (np.arctan2(minor, major) - turn) - phase) - 1))
    crest /= np.i0(sharp) * np.exp(-sharp)
    inner = 1 - np.exp(-((radius / (0.7 * scale_length)) ** 2))
    taper = 0.5 * (1 + np.cos(np.pi * np.clip((radius - 4 * scale_length) / (1.4 * scale_length), 0, 1)))
    disk = np.exp(-radius / scale_length) * (1 + contrast * inner * (crest - 1)) * taper

    count = int(rng.integers(12, 50))
    r = np.clip(rng.gamma(3.0, 0.6, count), 0.6, 3.4) * scale_length
    azimuth = winding * np.log(r / scale_length) + (phase + 2 * np.pi * rng.integers(number, size=count)) / number
    azimuth += rng.normal(scale=0.15, size=count)
    a, b = r * np.cos(azimuth), q * r * np.sin(azimuth)
    width = np.maximum(scale_length * rng.uniform(0.04, 0.12, count), 0.6 * step)[:, None]
    flux = rng.lognormal(sigma=0.9, size=count)[:, None] / width**2
    across = np.exp(-0.5 * ((u[0] - (a * cos - b * sin)[:, None]) / width) ** 2)
    along = np.exp(-0.5 * ((v[:, 0] - (a * sin + b * cos)[:, None]) / width) ** 2)
    knots = (flux * along).T @ across
    return disk / disk.sum(), knots / knots.sum(), step


def real(canvas, rng, bands, radius, stamp):
    """A real galaxy, shrunk to a radius (as far as half of a pixel holds one of its own), in one of eight attitudes."""
    image, centre = _turned(stamp.image_in(bands), stamp.position, rng.integers(8))
    scale = float(np.clip(radius / stamp.radius, 0.1, 0.5))
    tint = colours(rng, "real", bands)
    planes = [canvas.transform_image(plane, scale, centre) for plane in image]
    parts = []
    for b, (plane, total) in enumerate(zip(planes, image.sum(axis=(1, 2)), strict=True)):
        own = np.zeros(bands)
        own[b] = tint[b]
        parts.append(Part(plane * np.float32(1 / image.sum(axis=(1, 2)).mean()), own if total > 0 else 0 * own))
    return Source("real", parts, stamp.radius * scale)


def _turned(image, position, attitude):
    """One of the eight attitudes of a square, which move light without resampling it; with the centre (x, y)."""
    x, y = position
    if attitude >= 4:
        image, x = image[:, :, ::-1], image.shape[2] - 1 - x
    for _ in range(attitude % 4):
        image, (x, y) = np.rot90(image, axes=(1, 2)), (y, image.shape[2] - 1 - x)
    return np.ascontiguousarray(image), (x, y)


def moffats(canvas, rng, fwhm, bands):
    """Transforms of the PSFs and of the pixel, (band, ky, kx), and their FWHM; shape shared but for the width."""
    galsim = galsim_module()
    mean = float(np.exp(rng.uniform(*np.log(fwhm))))
    widths = mean * rng.uniform(0.85, 1.15, bands)
    beta, e = rng.uniform(2.5, 4.5), np.clip(rng.normal(scale=0.02, size=2), -0.06, 0.06)
    profiles = [galsim.Moffat(beta=beta, fwhm=w).shear(g1=e[0], g2=e[1]) for w in widths]
    pixel = canvas.pixel()
    return np.stack([canvas.transform(p) * pixel for p in profiles]), widths


def sampled_psfs(canvas, transforms, widths, largest):
    """PSFs on pixels, (band, k, k), k odd, five FWHM to each side where the frame allows, each with a sum of one."""
    half = min(int(np.ceil(5 * widths.max())), (largest - 1) // 2)
    centre = canvas.shifted((half, half))
    stamps = [np.maximum(canvas.image(t * centre)[: 2 * half + 1, : 2 * half + 1], 0) for t in transforms]
    psfs = np.stack(stamps)
    return (psfs / psfs.sum(axis=(1, 2), keepdims=True)).astype(np.float32)


def draw(canvas, source, place, psfs, shape):
    """A source at (x, y) through the PSF of each band, (band, y, x), before any scaling of its flux."""
    moved = canvas.shifted(place)
    planes = []
    for b, psf in enumerate(psfs):
        parts = [part for part in source.parts if part.colours[b] != 0]
        total = sum(part.transform * np.float32(part.colours[b]) for part in parts)
        planes.append(canvas.image(total * moved * psf)[: shape[0], : shape[1]])
    # Where a profile ends at a table's last value its transform leaves ripples of a millionth of the peak.
    return np.maximum(np.stack(planes), 0)
