"""What these tests share: a backend that misbehaves in known ways, which worker processes import from here."""

import os
import signal
import time
from pathlib import Path

import numpy as np
from astropy.wcs import WCS

from astrogan import Restorer
from astrogan.api import Estimate

SHAPE = (150, 220)


def mosaic_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [100.0, 70.0]
    wcs.wcs.cdelt = np.array([-0.2, 0.2]) / 3600
    wcs.wcs.pc = [[0.8, -0.6], [0.6, 0.8]]
    return wcs


class Noisy:
    """Adds noise, so that the row's own random numbers show; deadly, slow or refusing where a pixel says so."""

    halo = 3
    needs_psf = False
    needs_variance = False

    def __init__(self, marker=None, strength=1.0, delay=0.0, silent=False):
        self.marker = marker
        self.strength = strength
        self.delay = delay
        self.silent = silent

    def __call__(self, observation, *, rng):
        time.sleep(self.delay)
        brightest = observation.data.max()
        if brightest == 3000:
            raise ValueError("too bright for me")
        if brightest == 2000:
            os.kill(os.getpid(), signal.SIGKILL)
        if brightest == 1000 and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        noise = self.strength * rng.normal(size=observation.shape)
        variance = None
        if observation.variance is not None and not self.silent:
            variance = (observation.variance + self.strength**2).astype(np.float32)
        return Estimate((observation.data + noise).astype(np.float32), variance, info={"noise": self.strength})


def wiener(**options):
    return Restorer("wiener", psf=2.5, **({"balance": 10.0} | options))


def noisy(**options):
    return Restorer(Noisy(**options))


def content(folder):
    """Bytes by name, of all that a run leaves but its lock."""
    return {p.name: p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file() and p.name != "run.lock"}


def grid(n=24):
    return np.stack(np.meshgrid(np.linspace(20, 200, 6), np.linspace(20, 130, 4)), -1).reshape(-1, 2)[:n]
