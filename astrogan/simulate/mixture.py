"""Random blends by the batch, for training: everything is a sum of Gaussians, so a PSF is an addition.

Another renderer than that of `astrogan.simulate.blends`, which draws the blends for tests: a network that has learned
the habits of one is not helped by them in the other.
"""

from __future__ import annotations

import numbers

import numpy as np
import torch

from astrogan.exceptions import InputError
from astrogan.simulate._gaussians import moffat_mixture, sersic_mixture
from astrogan.simulate._mixture_scene import Lots, Scene

__all__ = ["MixtureRenderer", "moffat_mixture", "sersic_mixture"]

_CPU_ELEMENTS, _GPU_ELEMENTS = (
    250_000,
    200_000_000,
)  # values at a time: what a core's cache holds; what a GPU has room for


class MixtureRenderer:
    """Blends of galaxies, spirals and stars without end, each a pure function of three numbers.

    Parameters
    ----------
    shape : int or tuple of int, optional
        (y, x) in pixels, at least 24 each; one number means a square.
    bands : int, optional
        How many.
    sources : tuple of int, optional
        Range of their number.
    psf_fwhm : tuple of float, optional
        Range of the mean over bands in pixels; a band differs by up to 20 %.
    radius : tuple of float, optional
        Range of galaxies' half-light radii before the PSF in pixels.
    snr : tuple of float, optional
        Range of a source's S/N alone (about: its own photon noise is reckoned in as if spread evenly over its light).
    stars, spirals : float, optional
        Expected fractions of the sources; the others are bulge and disk.
    psf_size : int, optional
        Edge of the PSF's stamp, odd.
    device : str or `torch.device`, optional
        Where images are drawn and left.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    A disk is three Gaussians, a bulge (a Sersic index of 1.5, 2.5 or 4) five: see `sersic_mixture`. A PSF is three,
    close to a Moffat, with one ellipticity. Arms are Gaussians drawn out along a logarithmic spiral in the plane of
    the disk. Pixels are samples: the PSF has the pixel in it. The unit of flux is the noise of empty sky in the middle
    band.

    Examples
    --------
    >>> from astrogan.simulate.mixture import MixtureRenderer
    >>> batch = MixtureRenderer(shape=32, sources=(2, 3))(seed=1, step=7, batch=4)
    >>> tuple(batch["truth"].shape)
    (4, 3, 3, 32, 32)
    """

    def __init__(
        self,
        shape=64,
        bands=3,
        sources=(1, 6),
        *,
        psf_fwhm=(2.0, 7.0),
        radius=(0.7, 8.0),
        snr=(5.0, 2000.0),
        stars=0.15,
        spirals=0.3,
        psf_size=33,
        device="cpu",
    ):
        shape = (shape, shape) if isinstance(shape, numbers.Integral) else shape
        if np.shape(shape) != (2,) or not all(isinstance(n, numbers.Integral) and n >= 24 for n in shape):
            raise InputError(f"shape={shape!r} must be one or two integers of at least 24")
        if isinstance(bands, bool) or not isinstance(bands, numbers.Integral) or bands < 1:
            raise InputError(f"bands={bands!r} must be a positive integer")
        if (
            isinstance(psf_size, bool)
            or not isinstance(psf_size, numbers.Integral)
            or psf_size < 5
            or psf_size % 2 == 0
        ):
            raise InputError(f"psf_size={psf_size!r} must be an odd integer of at least 5")
        for name, value in (("stars", stars), ("spirals", spirals)):
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value <= 1:
                raise InputError(f"{name}={value!r} must be a fraction from 0 to 1")
        if stars + spirals > 1:
            raise InputError(f"stars={stars!r} and spirals={spirals!r} are more than one together")
        self.shape, self.bands, self.psf_size = (int(shape[0]), int(shape[1])), int(bands), int(psf_size)
        self.sources = _whole_range(sources)
        self.psf_fwhm = _range("psf_fwhm", psf_fwhm, 1.5)
        self.radius, self.snr = _range("radius", radius, 0.1), _range("snr", snr, 0.1)
        self.stars, self.spirals = float(stars), float(spirals)
        self.device = torch.device(device)
        self._basis = _basis(self.shape).to(self.device)
        self._psf_basis = _basis((self.psf_size, self.psf_size)).to(self.device)

    def __call__(self, seed, step, batch, *, first=0):
        """A batch of blends.

        Parameters
        ----------
        seed, step : int
            Both >= 0.
        batch : int
            How many.
        first : int, optional
            Number of the first blend: those of a step that several devices share are
            ``first=rank * batch`` of one batch, since a blend depends on seed, step and its number only.

        Returns
        -------
        dict of str to `torch.Tensor`
            On the renderer's device, float32 where not said otherwise. n is the blend.

            ``data``, ``variance``
                With noise, and its expected variance, (n, band, y, x).
            ``truth``, ``smooth``
                Each source alone, through the PSF, without noise, and the same without arms,
                (n, source, band, y, x); zero where there is no source.
            ``present``
                bool, (n, source).
            ``positions``
                Centres (x, y) in 0-based pixels, (n, source, 2); zero where there is no source.
            ``kinds``
                int64, (n, source): 0 for bulge and disk, 1 for a spiral, 2 for a star, -1 for none.
            ``psf``
                (n, band, k, k), each with a sum of one.

        Raises
        ------
        InputError
            If a number is negative.

        Notes
        -----
        Noise comes from the device's own generator: on another kind of device it is another draw for the same scene.
        """
        for name, value, least in (("seed", seed, 0), ("step", step, 0), ("batch", batch, 1), ("first", first, 0)):
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
                raise InputError(f"{name}={value!r} must be an integer of at least {least}")
        keys = [(int(seed), int(step), int(first) + i) for i in range(int(batch))]
        scene = Scene(self, Lots(keys))
        psf = self._draw(scene.psf_terms(), self._psf_basis).reshape(len(keys), self.bands, *(self.psf_size,) * 2)
        smooth, arms = self._images(scene)
        scale = self._fluxes(scene, smooth + arms)
        smooth *= scale
        truth = smooth + arms * scale
        return {
            **self._observe(keys, scene, truth),
            "truth": truth,
            "smooth": smooth,
            "present": scene.present.to(self.device),
            "positions": (scene.positions * scene.present[..., None]).float().to(self.device),
            "kinds": scene.kinds.to(self.device),
            "psf": psf / psf.sum(dim=(-2, -1), keepdim=True),
        }

    def _images(self, scene):
        """Bulges and disks, and arms, of unit flux together, each (n, source, band, y, x)."""
        full = (*scene.present.shape, self.bands, *self.shape)
        images = []
        for chosen, terms in ((scene.present, scene.body_terms()), (scene.kinds == 1, scene.arm_terms())):
            image = torch.zeros(full, device=self.device)
            if chosen.any():
                drawn = self._draw([t[chosen] for t in terms], self._basis)
                image[chosen.to(self.device)] = drawn.reshape(-1, *full[2:])
            images.append(image)
        return images

    def _draw(self, terms, basis):
        """Sums of Gaussians: fluxes (..., term), centres (..., 2, term) and covariances (..., term, 3).

        To (row, pixel), a row for each sum.

        The exponent is a polynomial of second degree in x and y: a product of two matrices.
        """
        flux, centre, covariance = terms
        terms = flux.shape[-1]
        flux, covariance = flux.reshape(-1, terms), covariance.reshape(-1, terms, 3)
        x, y = centre.reshape(-1, 2, terms).unbind(1)
        xx, xy, yy = covariance.unbind(-1)
        determinant = xx * yy - xy**2
        a, b, c = yy / determinant, -xy / determinant, xx / determinant
        middle = -0.5 * (a * x**2 + 2 * b * x * y + c * y**2)
        polynomial = torch.stack([middle, a * x + b * y, b * x + c * y, -0.5 * a, -b, -0.5 * c], dim=-1)
        # As a power of two: far out, where a number is too small for its type, exp takes ten times as long.
        polynomial = polynomial / np.log(2)
        amplitude = flux / (2 * np.pi * determinant.sqrt())
        polynomial, amplitude = (t.to(self.device, torch.float32) for t in (polynomial, amplitude[:, None]))
        limit = _CPU_ELEMENTS if self.device.type == "cpu" else _GPU_ELEMENTS
        rows = max(1, limit // (terms * basis.shape[1]))
        out = torch.empty(len(flux), basis.shape[1], device=self.device)
        for i in range(0, len(flux), rows):
            gauss = (polynomial[i : i + rows] @ basis).exp2_()
            out[i : i + rows] = (amplitude[i : i + rows] @ gauss)[:, 0]
        return out

    def _fluxes(self, scene, unit):
        """What images of unit flux are multiplied by for their S/N, (n, source, 1, 1, 1)."""
        sky = scene.sky_sigma.to(self.device, torch.float32)[:, None, :, None, None]
        by_sky = ((unit / sky) ** 2).sum(dim=(2, 3, 4)).clamp_min(1e-20)
        by_photons = unit.sum(dim=(2, 3, 4)).clamp_min(1e-20) * scene.gain.to(self.device, torch.float32)[:, None]
        wanted = scene.snr.to(self.device, torch.float32)
        # 1 / SNR^2 is (1 / f)^2 / by_sky + (1 / f) / by_photons for a flux f.
        half = 0.5 * by_sky / by_photons
        inverse = (by_sky / wanted**2) / (half + (half**2 + by_sky / wanted**2).sqrt())
        return (scene.present.to(self.device) / inverse)[..., None, None, None]

    def _observe(self, keys, scene, truth):
        """Photon noise and background, with the expected variance."""
        sigma = scene.sky_sigma.to(self.device, torch.float32)[..., None, None]
        gain = scene.gain.to(self.device, torch.float32)[:, None, None, None]
        light = truth.sum(dim=1)
        data = torch.empty_like(light)
        generator = torch.Generator(self.device)
        for i, key in enumerate(keys):
            generator.manual_seed(int(np.random.SeedSequence((*key, 1)).generate_state(2, np.uint32)[0]))
            counts = torch.poisson(light[i] * gain[i], generator=generator)
            data[i] = counts / gain[i] + sigma[i] * torch.randn(counts.shape, generator=generator, device=self.device)
        return {"data": data, "variance": sigma**2 + light / gain}


def _basis(shape):
    """1, x, y, x^2, xy and y^2 at all pixels from the middle of a frame, (6, pixel)."""
    y, x = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in shape)
    y, x = (t.reshape(-1) for t in torch.meshgrid(y, x, indexing="ij"))
    return torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y]).float()


def _whole_range(sources):
    good = np.shape(sources) == (2,) and all(isinstance(n, numbers.Integral) for n in sources)
    if not good or not 1 <= sources[0] <= sources[1] <= 64:
        raise InputError(f"sources={sources!r} must be two integers from 1 to 64, the smaller first")
    return int(sources[0]), int(sources[1])


def _range(name, value, least):
    pair = np.asarray(value, float) if np.shape(value) == (2,) else np.full(2, np.nan)
    if not np.isfinite(pair).all() or not least <= pair[0] <= pair[1]:
        raise InputError(f"{name}={value!r} must be two numbers of at least {least}, the smaller first")
    return float(pair[0]), float(pair[1])
