"""Wiener-Hunt deconvolution whose noise and smoothness are sampled, not given (scikit-image's sampler)."""

from __future__ import annotations

import numpy as np

from astrogan.api import Estimate, Observation
from astrogan.backends.classic._linear import band_info, fill, level_of, need_psf, reflect_pad, whole
from astrogan.backends.classic.wiener import apply_filters, wiener_filter

__all__ = ["UnsupervisedWiener"]


class UnsupervisedWiener:
    """Deconvolve with the Laplacian Wiener filter, its balance drawn from the posterior by Gibbs sampling.

    `skimage.restoration.unsupervised_wiener` samples the precisions of noise and prior for each band [1]_; the image is
    then the posterior mean at the mean precisions, by the same finite filter as ``wiener``. That is the mean that the
    sampler's own image approaches, without its Monte Carlo noise, and it brings an exact variance with it. The
    noise is part of what is sampled: the observation's variance is carried through the filter but does not steer it.

    Parameters
    ----------
    max_samples : int
        At most this many Gibbs samples (at least 30; the first 15 are dropped).
    sample_size : int
        Bands with more pixels along an axis are sampled on this many in the middle.

    Raises
    ------
    InputError
        If an argument is out of range.
    PSFError
        When called without a PSF.

    Notes
    -----
    scikit-image's function assumes a periodic image of order one and may clip: it gets the image continued by
    reflection, with the level of the sky taken off, in units of its own scatter, and ``clip=False``. The seed comes
    from ``rng``, one a band.

    References
    ----------
    .. [1] F. Orieux, J.-F. Giovannelli & T. Rodet, 2010, J. Opt. Soc. Am. A 27, 1593.
    """

    halo = -1
    needs_psf = True

    def __init__(self, *, max_samples: int = 100, sample_size: int = 512):
        self.max_samples = whole("max_samples", max_samples, example=100, least=30)
        self.sample_size = whole("sample_size", sample_size, example=512, least=32)

    def __repr__(self):
        return f"UnsupervisedWiener(max_samples={self.max_samples}, sample_size={self.sample_size})"

    def __call__(self, observation: Observation, *, rng: np.random.Generator) -> Estimate:
        """Deconvolve the observation.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
            Data (band, y, x) with a PSF.
        rng : `numpy.random.Generator`
            Source of the sampler's seeds.

        Returns
        -------
        `~astrogan.api.Estimate`
            ``info`` has ``balance`` or ``balance_<band>``; ``variance`` where the observation has one.

        Raises
        ------
        PSFError
            If the observation has no PSF.
        """
        psf = need_psf(observation, "unsupervised-wiener")
        seeds = rng.integers(2**32, size=len(psf))
        balances = [self._sample(observation, band, seed) for band, seed in enumerate(seeds)]
        filters = [wiener_filter(kernel, balance, 4.0) for kernel, balance in zip(psf, balances, strict=True)]
        data, variance = apply_filters(filters, observation)
        return Estimate(data, variance, info=band_info("balance", balances, observation.bands))

    def _sample(self, observation, band, seed):
        """Ratio of the mean precisions of prior and noise, which is the balance of the Wiener filter."""
        from skimage.restoration import unsupervised_wiener

        middle = tuple(
            slice(max(n - self.sample_size, 0) // 2, max(n - self.sample_size, 0) // 2 + min(n, self.sample_size))
            for n in observation.shape[1:]
        )
        valid = observation.valid[band][middle]
        plane = fill(observation.data[band][middle], valid)
        plane = plane.astype(np.float64) - level_of(plane, valid)
        scatter = plane.std()
        if not scatter > 0:
            return 1.0
        kernel = observation.psf[band].astype(np.float64)
        margin = len(kernel) // 2 + 1
        image = reflect_pad(plane / scatter, (margin, margin), (margin, margin))
        _, chains = unsupervised_wiener(
            image,
            kernel / kernel.sum(),
            user_params={"threshold": 1e-3, "max_num_iter": self.max_samples, "min_num_iter": 30, "burnin": 15},
            clip=False,
            rng=int(seed),
        )
        noise, prior = (np.mean(chains[name][15:]) for name in ("noise", "prior"))
        return float(np.clip(prior / noise, 1e-6, 1e4))
