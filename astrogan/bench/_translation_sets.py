"""The stamps of the translation benchmark: frozen pairs, the same ones observed again, and the surveys' noise."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

__all__ = ["benchmark", "noise_of", "photon_slope", "second_exposure", "sky_images", "sky_mask"]

_MASK_LEVEL = 0.2  # in units of the noise
_FIT_STAMPS = 150
_FIT_SEED = 2**41  # neither the benchmark's nor what training begins with


def benchmark(start, number):
    """Pairs of the frozen set, SDSS and CFHTLS.

    Parameters
    ----------
    start, number : int
        Number of the first, and how many.

    Yields
    ------
    `~astrogan.simulate.surveys.SurveyPair`
    """
    from astrogan.simulate.surveys import BENCHMARK_SEED, simulate_pair

    for k in range(start, start + number):
        yield simulate_pair(BENCHMARK_SEED + k)


def sky_mask(stamp):
    """True where any band's light is above 0.2 sigma of its noise.

    Parameters
    ----------
    stamp : `~astrogan.simulate.surveys.SurveyStamp`

    Returns
    -------
    `numpy.ndarray`
        (y, x).
    """
    return (np.asarray(stamp.truth) > _MASK_LEVEL * np.reshape(stamp.sigma, (-1, 1, 1))).any(axis=0)


def second_exposure(stamp, rng):
    """The stamp observed once more, in the same night: its truth with new noise.

    Parameters
    ----------
    stamp : `~astrogan.simulate.surveys.SurveyStamp`
    rng : `numpy.random.Generator`

    Returns
    -------
    `~astrogan.simulate.surveys.SurveyStamp`
    """
    from scipy.ndimage import convolve

    from astrogan.simulate.surveys import get_survey, noise_kernel

    survey = get_survey(stamp.survey)
    truth = np.pad(np.asarray(stamp.truth, np.float64), ((0, 0), (1, 1), (1, 1)), mode="edge")
    data = np.array(stamp.truth, np.float64)
    for b, band in enumerate(stamp.bands):
        electrons, readout = survey[band].electrons_per_nanomaggy, survey[band].read_noise ** 2
        sky = (stamp.sigma[b] * electrons) ** 2 - readout
        mean = np.maximum(truth[b], 0) * electrons + max(sky, 0)
        noise = rng.poisson(mean) - mean + np.sqrt(readout + min(sky, 0)) * rng.normal(size=mean.shape)
        data[b] += convolve(noise / electrons, noise_kernel(), mode="constant")[1:-1, 1:-1]
    return replace(stamp, data=data.astype(np.float32))


def sky_images(survey, number, seed=_FIT_SEED, bands="ugriz"):
    """Stamps of a survey that are in no pair, and their masks: what noise models are fitted to.

    Parameters
    ----------
    survey : str
    number : int
    seed : int, optional
    bands : sequence of str, optional

    Returns
    -------
    images : `numpy.ndarray`
        (stamp, band, y, x).
    mask : `numpy.ndarray` of bool
        Same shape, True on sources.
    """
    from astrogan.simulate.surveys import simulate_stamp

    stamps = [simulate_stamp(seed + k, survey, bands=bands) for k in range(number)]
    images = np.stack([s.data for s in stamps])
    mask = np.stack([np.broadcast_to(sky_mask(s), s.data.shape) for s in stamps])
    return images, mask


@lru_cache(maxsize=8)
def noise_of(survey, bands=tuple("ugriz")):
    """A survey's noise, as a translator's target states it.

    Parameters
    ----------
    survey : str
    bands : tuple of str, optional

    Returns
    -------
    model : `~astrogan.backends.classic.correlated_noise.CorrelatedNoise`
        Fitted to the sky of other stamps than the benchmark's.
    slope : `numpy.ndarray`
        Rise of the variance with the flux, (band,).
    """
    from astrogan.backends.classic.correlated_noise import CorrelatedNoise

    return CorrelatedNoise.fit(*sky_images(survey, _FIT_STAMPS, bands=bands)), photon_slope(survey, bands)


def photon_slope(survey, bands="ugriz"):
    """Rise of the variance with the flux by photon noise, nanomaggies.

    Parameters
    ----------
    survey : str
    bands : sequence of str, optional

    Returns
    -------
    `numpy.ndarray`
        (band,).
    """
    from astrogan.simulate.surveys import get_survey

    filters = get_survey(survey)
    return np.array([1 / filters[band].electrons_per_nanomaggy for band in bands])
