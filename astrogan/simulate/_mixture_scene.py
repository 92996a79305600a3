"""Random scenes of Gaussians: what sources there are, where, and of which fluxes, centres and covariances."""

from __future__ import annotations

import numpy as np
import torch

from astrogan.simulate._gaussians import moffat_mixture, sersic_mixture

_BULGES = (1.5, 2.5, 4.0)
_BULGE_TERMS, _DISK_TERMS, _PSF_TERMS = 5, 3, 3
_BETAS = (2.5, 3.0, 3.5, 4.5)
_CLUMPS = 16


class Scene:
    """What is drawn: numbers of all blends of a batch, on the CPU in float64."""

    def __init__(self, renderer, lots):
        self.shape, self.bands = renderer.shape, renderer.bands
        fewest, most = renderer.sources
        self.most = most
        self.present = torch.arange(most) < lots.integers(fewest, most + 1)[:, None]
        lot = lots.uniform(0, 1, most)
        self.kinds = torch.where(lot < renderer.stars, 2, torch.where(lot < renderer.stars + renderer.spirals, 1, 0))
        self.kinds = torch.where(self.present, self.kinds, -1)
        self.snr = lots.log_uniform(*renderer.snr, most)
        self.gain = lots.log_uniform(10, 100)
        sigma = lots.log_uniform(0.7, 1.4, self.bands)
        self.sky_sigma = sigma / sigma[:, self.bands // 2, None]
        self._set_psf(renderer, lots)
        self._set_bodies(renderer, lots)
        self._set_arms(lots)
        self._set_positions(lots)

    def _set_psf(self, renderer, lots):
        shares, widths = np.array([moffat_mixture(b, _PSF_TERMS) for b in _BETAS]).transpose(1, 0, 2)
        beta = lots.integers(0, len(_BETAS))
        self.fwhm = lots.log_uniform(*renderer.psf_fwhm)
        own = self.fwhm[:, None] * lots.uniform(0.8, 1.2, self.bands)
        self.psf_shares = torch.from_numpy(shares)[beta]  # (n, term)
        sigmas = own[..., None] * torch.from_numpy(widths)[beta][:, None]  # (n, band, term)
        ellipse = _ellipse(1 - 0.15 * lots.uniform(0, 1) ** 2, lots.uniform(0, np.pi))
        self.psf_covariance = sigmas[..., None] ** 2 * ellipse[:, None, None]  # (n, band, term, 3)

    def _set_bodies(self, renderer, lots):
        """Bulge and disk, eight Gaussians: fluxes (n, source, band, term) and covariances (n, source, term, 3)."""
        most = self.most
        shares, widths = np.array([sersic_mixture(i, _BULGE_TERMS) for i in _BULGES]).transpose(1, 0, 2)
        disk_shares, disk_widths = map(torch.tensor, sersic_mixture(1.0, _DISK_TERMS))
        index = lots.integers(0, len(_BULGES), most)
        self.radius = lots.log_uniform(*renderer.radius, most)
        spiral, point = self.kinds == 1, self.kinds == 2
        # Arms of a small galaxy drown in the PSF.
        self.radius = torch.where(spiral, self.radius.clamp_min(min(2.5, renderer.radius[1])), self.radius)
        self.axis = torch.where(spiral, lots.uniform(0.4, 1, most), lots.uniform(0.2, 1, most))
        self.angle = lots.uniform(0, np.pi, most)
        bulge = lots.uniform(0, 1, most) ** 2
        bulge = torch.where(lots.uniform(0, 1, most) < 0.15, torch.ones_like(bulge), bulge)
        bulge = torch.where(spiral, 0.3 * bulge, bulge)
        reach = torch.where(bulge == 1, torch.ones_like(bulge), lots.uniform(0.15, 0.6, most))
        sigma = torch.cat(
            [
                (self.radius * reach)[..., None] * torch.from_numpy(widths)[index],
                self.radius[..., None] * disk_widths,
            ],
            dim=-1,
        )
        round_, flat = _ellipse(0.4 + 0.6 * self.axis, self.angle), _ellipse(self.axis, self.angle)
        shape = torch.cat(
            [round_[:, :, None].expand(-1, -1, _BULGE_TERMS, 3), flat[:, :, None].expand(-1, -1, _DISK_TERMS, 3)], 2
        )
        self.body_covariance = torch.where(point[..., None, None], 0.0, sigma[..., None] ** 2 * shape)
        self.arm_share = torch.where(spiral, lots.uniform(0.1, 0.5, most), 0.0)
        red, blue = lots.colours(0.9, 0.5, most, self.bands), lots.colours(0.3, 0.6, most, self.bands)
        self.arm_colours = lots.colours(-0.2, 0.4, most, self.bands)
        old = (
            (bulge * (1 - self.arm_share))[..., None, None]
            * red[..., None]
            * torch.from_numpy(shares)[index][:, :, None]
        )
        young = ((1 - bulge) * (1 - self.arm_share))[..., None, None] * blue[..., None] * disk_shares
        self.body_flux = torch.cat([old, young], dim=-1)

    def _set_arms(self, lots):
        """Clumps drawn out along arms: their fluxes (n, source, clump), places and covariances, before the PSF."""
        most, wide = self.most, (self.most, _CLUMPS)
        scale = (self.radius / 1.678)[..., None]
        arms = torch.where(lots.uniform(0, 1, most) < 0.75, 2, 3)[..., None]
        # From the arms' start to their end the clumps follow one another, each arm having its own.
        along = (torch.arange(_CLUMPS) // arms + lots.uniform(0, 1, *wide)) / (_CLUMPS / arms)
        distance = scale * (0.6 + 2.6 * along)
        hand = torch.where(lots.uniform(0, 1, most) < 0.5, -1.0, 1.0)[..., None]
        winding = hand / torch.tan(lots.uniform(0.2, 0.55, most))[..., None]
        azimuth = winding * torch.log(distance / scale) + 2 * np.pi * (torch.arange(_CLUMPS) % arms) / arms
        azimuth = azimuth + lots.uniform(0, 2 * np.pi, most)[..., None] + 0.12 * lots.normal(*wide)
        pitch = azimuth + hand * (np.pi / 2) - torch.atan(1 / winding)  # the arm's own direction
        width = scale * lots.uniform(0.06, 0.22, *wide)
        elongated = _ellipse(lots.uniform(0.25, 1, *wide), pitch)
        flux = torch.exp(0.6 * lots.normal(*wide) - 0.7 * distance / scale)
        self.clump_flux = flux / flux.sum(dim=-1, keepdim=True)
        # From the plane of the disk to the sky: the minor axis shrinks, then all turns.
        q, cos, sin = self.axis[..., None], torch.cos(self.angle)[..., None], torch.sin(self.angle)[..., None]
        u, v = distance * torch.cos(azimuth), q * distance * torch.sin(azimuth)
        self.clump_place = torch.stack([u * cos - v * sin, u * sin + v * cos], dim=-1)
        uu, uv, vv = (elongated * (2 * width[..., None]) ** 2).unbind(-1)
        uv, vv = uv * q, vv * q**2
        self.clump_covariance = torch.stack(
            [
                uu * cos**2 - 2 * uv * sin * cos + vv * sin**2,
                (uu - vv) * sin * cos + uv * (cos**2 - sin**2),
                uu * sin**2 + 2 * uv * sin * cos + vv * cos**2,
            ],
            dim=-1,
        )

    def _set_positions(self, lots):
        """Centres (x, y): the first near the middle, others near one before them or, in one blend of five, anywhere."""
        height, width = self.shape
        low = torch.full((2,), 4.0, dtype=torch.float64)
        high = torch.tensor([width - 5.0, height - 5.0], dtype=torch.float64)
        reach = min(6.0, 0.1 * min(self.shape))
        places = [(low + high) / 2 + lots.uniform(-reach, reach, 2)]
        strewn = lots.uniform(0, 1) < 0.2
        sizes = torch.sqrt(torch.where(self.kinds == 2, 0.0, self.radius) ** 2 + 0.25 * self.fwhm[:, None] ** 2)
        rows = torch.arange(lots.number)
        for i in range(1, self.most):
            earlier = torch.stack(places, dim=1)
            best = room = None
            for _ in range(4):
                j = lots.integers(0, i)
                far = self.fwhm * lots.log_uniform(0.8, 5)
                wide = (sizes[rows, i] + sizes[rows, j]) * lots.log_uniform(0.8, 2.5)
                step = torch.where(lots.uniform(0, 1) < 0.5, far, wide)
                angle = lots.uniform(0, 2 * np.pi)
                place = earlier[rows, j] + step[:, None] * torch.stack([torch.cos(angle), torch.sin(angle)], -1)
                place = torch.where(strewn[:, None], low + (high - low) * lots.uniform(0, 1, 2), place)
                place = torch.minimum(torch.maximum(place, low), high)
                closest = (earlier - place[:, None]).norm(dim=-1).amin(dim=1)
                # The first of four tries that leaves its neighbours room is as good as any after it.
                closest = torch.minimum(closest, 0.8 * self.fwhm)
                if best is None:
                    best, room = place, closest
                else:
                    best = torch.where((closest > room + 1e-9)[:, None], place, best)
                    room = torch.maximum(room, closest)
            places.append(best)
        self.positions = torch.stack(places, dim=1)

    def _centred(self):
        """Centres from the middle of the frame, where single precision is best."""
        return self.positions - torch.tensor([(self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2])

    def body_terms(self):
        """Flux (n, source, band, term), centre (n, source, band, 2, term) and covariance (n, source, band, term, 3)."""
        return self._through_psf(
            self.body_flux,
            self._centred()[:, :, None].expand(-1, -1, self.body_flux.shape[-1], 2),
            self.body_covariance,
        )

    def arm_terms(self):
        """The same of the arms."""
        flux = (self.arm_share[..., None] * self.arm_colours)[..., None] * self.clump_flux[:, :, None]
        return self._through_psf(flux, self._centred()[:, :, None] + self.clump_place, self.clump_covariance)

    def _through_psf(self, flux, place, covariance):
        n, most, bands, terms = flux.shape
        out = (n, most, bands, terms, _PSF_TERMS)
        flux = (flux[..., None] * self.psf_shares[:, None, None, None]).reshape(n, most, bands, -1)
        total = covariance[:, :, None, :, None] + self.psf_covariance[:, None, :, None]
        place = place.transpose(2, 3)[:, :, None, :, :, None].expand(n, most, bands, 2, terms, _PSF_TERMS)
        return flux, place.reshape(n, most, bands, 2, -1), total.expand(*out, 3).reshape(n, most, bands, -1, 3)

    def psf_terms(self):
        """PSFs about the middle of their stamp, (n, band, term)."""
        n, bands, terms, _ = self.psf_covariance.shape
        flux = self.psf_shares[:, None].expand(n, bands, terms)
        return flux, torch.zeros(n, bands, 2, terms, dtype=torch.float64), self.psf_covariance


class Lots:
    """Random numbers of a batch, a generator a blend, so that no blend depends on the others; (n, ...) in float64."""

    def __init__(self, keys):
        self.number = len(keys)
        self._rngs = [np.random.default_rng((*key, 0)) for key in keys]

    def uniform(self, low, high, *size):
        lots = torch.from_numpy(np.stack([rng.random(size) for rng in self._rngs]))
        return low + (high - low) * lots

    def log_uniform(self, low, high, *size):
        return torch.exp(self.uniform(np.log(low), np.log(high), *size))

    def integers(self, low, high, *size):
        return self.uniform(low, high, *size).long()

    def normal(self, *size):
        return torch.from_numpy(np.stack([rng.standard_normal(size) for rng in self._rngs]))

    def colours(self, slope, scatter, number, bands):
        """Flux by band, (n, ``number``, band), with a mean of one: a slope that scatters, and a little more."""
        across = torch.linspace(-0.5, 0.5, bands, dtype=torch.float64) if bands > 1 else torch.zeros(1)
        steep = slope + scatter * self.normal(number)
        flux = torch.exp(steep[..., None] * across + 0.1 * self.normal(number, bands) * (bands > 1))
        return flux / flux.mean(dim=-1, keepdim=True)


def _ellipse(axis, angle):
    """Covariances (xx, xy, yy) of unit major axis: an axis ratio and an angle from x to y, (...) to (..., 3)."""
    cos, sin, minor = torch.cos(angle), torch.sin(angle), axis**2
    return torch.stack([cos**2 + minor * sin**2, (1 - minor) * sin * cos, sin**2 + minor * cos**2], dim=-1)
