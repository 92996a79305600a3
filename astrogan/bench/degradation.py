"""Degradation of stamps beside astropy and GalSim, in one run: ``astrogan bench degradation``.

Every row does the same to stamps of 3 x 128 x 128 pixels: convolution with a PSF of 41 x 41 pixels, alone, and with
photon noise (exact Poisson, or Gaussian of the same variance) and read noise. Set ``OMP_NUM_THREADS=1`` to hold all
to one thread. Absolute times depend on the machine; the ratios are what counts.
"""

from __future__ import annotations

import argparse

import numpy as np

from astrogan.bench._timing import best_of

__all__ = ["main", "run"]

SHAPE = (3, 128, 128)
_FWHM, _KERNEL = 4.0, 41
_GAIN, _SKY, _READ = 50.0, 700.0, 5.0


def run(*, repeats=3, stamps=64, peer_stamps=6, seed=0, clock="wall"):
    """Time all rows, alternating; the fastest of ``repeats`` runs counts.

    Parameters
    ----------
    repeats : int
        Runs of each row.
    stamps, peer_stamps : int
        Stamps a run, ours and the peers'.
    seed : int
        Of stamps and noise.
    clock : {'wall', 'cpu'}
        Time on the wall, or that of all cores that the process has used.

    Returns
    -------
    `~astropy.table.Table`
        ``method``, ``noise``, ``stamps_per_s``, and how many times faster than ``astropy`` and ``galsim`` with the same
        steps (NaN where GalSim is not installed).
    """
    from astropy.table import Table

    rng = np.random.default_rng(seed)
    scenes = rng.random((stamps, *SHAPE), np.float32)
    scenes[:, :, 54:74, 54:74] += 20
    rows = _rows(scenes, peer_stamps)
    seconds = best_of({key: function for key, (function, _) in rows.items()}, repeats, clock=clock)
    best = {key: seconds[key] / count for key, (_, count) in rows.items()}
    table = Table(
        names=("method", "noise", "stamps_per_s", "over_astropy", "over_galsim"), dtype=(str, str, *3 * [float])
    )
    for (method, noise), seconds in best.items():
        ratios = [
            best.get((peer, "none" if noise == "none" else "Poisson"), np.nan) / seconds
            for peer in ("astropy", "galsim")
        ]
        table.add_row((method, noise, 1 / seconds, *ratios))
    table["stamps_per_s"].info.format = ".0f"
    table["over_astropy"].info.format = table["over_galsim"].info.format = ".1f"
    return table


def _rows(scenes, peer_stamps):
    """{(method, noise): (function, stamps a run)}."""
    from astrogan.backends.classic.physical_degrader import PhysicalDegrader
    from astrogan.image.psf import gaussian_psf, moffat_psf

    electrons = {"gain": _GAIN, "sky": _SKY, "read_noise": _READ}
    gaussian, moffat = gaussian_psf(_FWHM, size=_KERNEL), moffat_psf(_FWHM, size=_KERNEL)
    setups = {
        ("astrogan", "none"): PhysicalDegrader(gaussian),
        ("astrogan, Moffat PSF", "none"): PhysicalDegrader(moffat),
        ("astrogan", "Gaussian"): PhysicalDegrader(gaussian, poisson="gaussian", **electrons),
        ("astrogan, Moffat PSF", "Gaussian"): PhysicalDegrader(moffat, poisson="gaussian", **electrons),
        ("astrogan", "Poisson"): PhysicalDegrader(gaussian, **electrons),
        ("astrogan, Moffat PSF", "Poisson"): PhysicalDegrader(moffat, **electrons),
    }
    rows = {
        key: (lambda degrader=degrader: degrader.batch(scenes, rng=np.random.default_rng(1)), len(scenes))
        for key, degrader in setups.items()
    }
    few = scenes[:peer_stamps]
    rows[("astropy", "none")] = (lambda: _astropy(few, gaussian, False), len(few))
    rows[("astropy", "Poisson")] = (lambda: _astropy(few, gaussian, True), len(few))
    try:
        import galsim
    except ImportError:
        return rows
    rows[("galsim", "none")] = (lambda: _galsim(galsim, few, False), len(few))
    rows[("galsim", "Poisson")] = (lambda: _galsim(galsim, few, True), len(few))
    return rows


def _astropy(scenes, kernel, noise):
    """`~astropy.convolution.convolve_fft` a plane, then numpy's Poisson and normal deviates."""
    from astropy.convolution import convolve_fft

    rng = np.random.default_rng(1)
    out = np.empty_like(scenes)
    for scene, result in zip(scenes, out, strict=True):
        for plane, seen in zip(scene, result, strict=True):
            blurred = convolve_fft(plane, kernel)
            if noise:
                counts = rng.poisson(np.maximum(blurred * _GAIN + _SKY, 0)) + rng.normal(0, _READ, blurred.shape)
                blurred = (counts - _SKY) / _GAIN
            seen[:] = blurred
    return out


def _galsim(galsim, scenes, noise):
    """An InterpolatedImage convolved with a Gaussian and drawn, then `galsim.CCDNoise`."""
    random = galsim.BaseDeviate(1)
    psf = galsim.Gaussian(fwhm=_FWHM)
    out = np.empty_like(scenes)
    for scene, result in zip(scenes, out, strict=True):
        for plane, seen in zip(scene, result, strict=True):
            profile = galsim.Convolve(galsim.InterpolatedImage(galsim.Image(plane, scale=1.0), normalization="sb"), psf)
            image = profile.drawImage(nx=plane.shape[1], ny=plane.shape[0], scale=1.0, method="no_pixel")
            if noise:
                image *= _GAIN
                image.addNoise(galsim.CCDNoise(random, sky_level=_SKY, gain=1.0, read_noise=_READ))
                image /= _GAIN
            seen[:] = image.array
    return out


def main(arguments=None):
    """Print the table.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m astrogan.bench.degradation", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stamps", type=int, default=64)
    options = parser.parse_args(arguments)
    table = run(repeats=options.repeats, stamps=options.stamps)
    print("\n".join(table.pformat(max_lines=-1, max_width=-1)))


if __name__ == "__main__":
    main()
