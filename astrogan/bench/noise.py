"""Noise backends against noise of known truth: ``astrogan bench noise``.

Each backend is fitted to stamps whose noise-free image is known, draws noise for other such stamps, and is compared
with the noise that those have. The first row, ``real again``, is noise of the same origin drawn once more: the floor
that two samples of equal law have. ``known`` is Gaussian noise of a stated correlation, joint log-normal amplitudes and
photon noise; ``sdss``, ``cfhtls`` and other surveys are those of `astrogan.simulate.surveys`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["MODELS", "main", "noise_rows", "run"]

MODELS = ("white", "correlated", "galsim", "gan-start", "gan")
"""Rows of the table: the backends; ``gan-start`` is ``gan`` before its training, ``gan-published`` may be asked for."""

_FLOOR = "real again"
_BANDS = 5
_DARK = 0.2  # of the noise: light below this is sky
_PARTS = 4  # of each Fourier axis
_SEEDS = (0, 2**33, 2**34)


@dataclass(frozen=True)
class _Stamps:
    """Noise, light and mask of stamps, (n, band, y, x), and the growth of the variance with the light, (band,)."""

    noise: np.ndarray
    light: np.ndarray
    mask: np.ndarray
    sigma: np.ndarray
    slope: np.ndarray


def run(source="known", *, models=MODELS, train=500, test=1000, steps=None, seed=0, progress=None):
    """Fit, draw and compare.

    Parameters
    ----------
    source : str
        ``known``, or a survey's name.
    models : sequence of str
        Of `MODELS`, or ``gan-published``.
    train, test : int
        Stamps to fit to, and to compare on.
    steps : int, optional
        Of the training of ``gan``. Default: the backend's.
    seed : int
        Of all stamps and draws.
    progress : callable, optional
        ``progress(text)``, called before each row.

    Returns
    -------
    `~astropy.table.Table`
        A row a model. ``meta["caption"]`` says what the columns are.

    Raises
    ------
    InputError
        If a name is unknown or there are too few stamps.
    """
    from astropy.table import Table

    unknown = [name for name in models if name not in (*MODELS, "gan-published")]
    if unknown:
        raise InputError(f"models={unknown!r} are unknown; there are: {', '.join(MODELS)}, gan-published")
    if min(train, test) < 4:
        raise InputError(f"train={train}, test={test} must be at least 4 stamps each")
    given, real, again = (_stamps(source, n, seed + s) for n, s in zip((train, test, test), _SEEDS, strict=True))
    rows = [{"model": _FLOOR, "fit_s": np.nan} | noise_rows(real, again)]
    for name in models:
        if progress is not None:
            progress(f"{source}: {name}")
        start = time.process_time()
        model = _fitted(name, given, steps, seed)
        seconds = time.process_time() - start
        rows.append({"model": name, "fit_s": seconds} | noise_rows(real, _drawn(model, real, seed)))
    table = Table(rows=rows)
    for column in table.columns.values():
        if column.dtype.kind == "f":
            column.info.format = ".1f" if column.name == "fit_s" else ".4f"
    table.meta["caption"] = (
        f"{source}: fitted to {train} stamps, compared on {test} others. fit_s: seconds of processor "
        "time; ks: Kolmogorov-Smirnov distance of the "
        "stamps' standard deviations on sky, mean over the bands, and of the worst band; acf: largest difference of "
        f"the autocorrelation at (0,1), (1,1), (0,2), (0,3); axis_x, axis_y: largest relative difference of the power "
        f"in {_PARTS} parts of each Fourier axis; bands: of the correlation between bands at one pixel; amplitudes: of "
        "that of the log of the stamps' standard deviations; slope: of the growth of the variance with the light, "
        "relative, the worst band. The first row is the floor."
    )
    return table


def noise_rows(real, made):
    """How two sets of noise differ, as a dict of the table's columns.

    Parameters
    ----------
    real, made : object
        With ``noise``, ``light`` and ``mask`` (n, band, y, x), ``sigma`` (n, band) and ``slope`` (band,).

    Returns
    -------
    dict of str to float
    """
    from astrogan.metrics import compare_noise, noise_statistics

    found = compare_noise(*(noise_statistics(s.noise, mask=s.mask) for s in (real, made)))
    other = ~np.eye(len(found.ks_std), dtype=bool)
    axes = np.abs(_axes(made) / _axes(real) - 1).max(axis=(0, 2))
    return {
        "ks": float(found.ks_std.mean()),
        "ks_max": float(found.ks_std.max()),
        "acf": float(np.abs(found.autocorrelation).max()),
        "axis_x": float(axes[0]),
        "axis_y": float(axes[1]),
        "bands": float(np.abs(found.correlation[other]).max()),
        "amplitudes": float(np.abs(found.amplitude_correlation[other]).max()),
        "slope": float(np.abs(_slopes(made) / real.slope - 1).max()),
    }


def _axes(stamps):
    """Mean power over the variance on ky = 0 and on kx = 0, (band, 2, part)."""
    sky = ~stamps.mask
    noise = np.where(sky, stamps.noise, 0)
    noise = noise / np.sqrt((noise**2).sum(axis=(2, 3), keepdims=True).clip(1e-300))
    power = []
    for axis in (2, 3):
        # The transform on an axis is that of the sum along the other.
        lines = (np.abs(np.fft.rfft(noise.sum(axis=axis))) ** 2)[..., 1:].mean(axis=0)
        power.append([part.mean(axis=-1) for part in np.array_split(lines, _PARTS, axis=-1)])
    return np.array(power).transpose(2, 0, 1)


def _slopes(stamps):
    """Least squares of the squared noise against the light, about each stamp's own level, with its law's weights."""
    variance = stamps.sigma[:, :, None, None] ** 2 + stamps.slope[:, None, None] * stamps.light
    weight = 1 / variance**2
    total = weight.sum(axis=(2, 3), keepdims=True)
    about = stamps.light - (weight * stamps.light).sum(axis=(2, 3), keepdims=True) / total
    return (weight * about * stamps.noise**2).sum(axis=(0, 2, 3)) / (weight * about**2).sum(axis=(0, 2, 3))


# ---- stamps ------------------------------------------------------------------------------------------------------


def _stamps(source, number, seed):
    return _known(number, seed) if source == "known" else _survey(source, number, seed)


def known_noise():
    """The backend that draws the noise of ``known``.

    Returns
    -------
    `~astrogan.backends.classic.correlated_noise.CorrelatedNoise`
        Five bands with neighbours correlated from 0.25 to 0.5, adjacent bands by 0.3, levels 0.02 to 0.2 with a scatter
        of 15 % that is correlated by 0.6 between bands.
    """
    from astrogan.backends.classic._amplitudes import Amplitudes
    from astrogan.backends.classic.correlated_noise import CorrelatedNoise

    reach = np.linspace(0.6, 1.4, _BANDS)[:, None, None]
    kernel = reach * np.array([[0.05, 0.2, 0.05], [0.2, 0, 0.2], [0.05, 0.2, 0.05]])
    kernel[:, 1, 1] = 1
    index = np.arange(_BANDS)
    levels = np.array([0.05, 0.02, 0.03, 0.05, 0.2])
    law = Amplitudes(np.log(levels), np.full(_BANDS, 0.15), 0.6 + 0.4 * np.eye(_BANDS))
    return CorrelatedNoise(
        kernel,
        sigma=levels,
        signal_slope=0.05 * levels,
        band_correlation=0.3 ** np.abs(index[:, None] - index),
        amplitudes=law,
    )


def _known(number, seed, size=64):
    rng = np.random.default_rng(seed)
    model = known_noise()
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    shape = (_BANDS, size, size)
    noise, light, sigma = np.empty((number, *shape), np.float32), np.empty((number, *shape), np.float32), []
    for i in range(number):
        peak, width = rng.uniform(20, 400), rng.uniform(2, 4)
        light[i] = peak * np.exp(-(x**2 + y**2) / (2 * width**2)) * model.sigma[:, None, None]
        sigma.append(model.draw_sigma(_BANDS, rng))
        noise[i] = model.sample(shape, sigma=sigma[-1], signal=light[i], rng=rng)
    return _masked(noise, light, np.array(sigma), model.signal_slope)


def _survey(name, number, seed):
    from astrogan.simulate.surveys import get_survey, simulate_stamp

    survey = get_survey(name)
    stamps = [simulate_stamp(seed + k, name) for k in range(number)]
    light = np.stack([s.truth for s in stamps])
    slope = np.array([1 / survey[band].electrons_per_nanomaggy for band in stamps[0].bands])
    return _masked(np.stack([s.data for s in stamps]) - light, light, np.stack([s.sigma for s in stamps]), slope)


def _masked(noise, light, sigma, slope):
    dark = (light < _DARK * sigma[:, :, None, None]).all(axis=1, keepdims=True)
    return _Stamps(noise, light, np.broadcast_to(~dark, noise.shape), sigma, slope)


# ---- models ------------------------------------------------------------------------------------------------------


def _fitted(name, stamps, steps, seed):
    from astrogan.plugins import load_backend

    backend = load_backend("noise", name.partition("-")[0])[0]
    options = {}
    if name.startswith("gan"):
        options = {"rng": seed, "published": name == "gan-published"}
        options |= {"steps": 0} if name == "gan-start" else {} if steps is None else {"steps": steps}
    return type(backend).fit(stamps.noise + stamps.light, signal=stamps.light, **options)


def _drawn(model, real, seed):
    """The same stamps with a model's noise."""
    rng = np.random.default_rng([seed, 1])
    levels = [model.draw_sigma(real.noise.shape[1], rng) for _ in real.noise]
    pairs = zip(levels, real.light, strict=True)
    noise = [model.sample(light.shape, sigma=level, signal=light, rng=rng) for level, light in pairs]
    return _Stamps(np.stack(noise), real.light, real.mask, np.array(levels), real.slope)


def main(arguments=None) -> None:
    """Print the tables.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m astrogan.bench.noise", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--source", nargs="+", default=["known", "sdss"], help="known, or names of surveys")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="rows, also gan-published")
    parser.add_argument("--train", type=int, default=500, help="stamps to fit to")
    parser.add_argument("--test", type=int, default=1000, help="stamps to compare on")
    parser.add_argument("--steps", type=int, help="updates of the GAN")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for source in options.source:
        table = run(
            source,
            models=options.models,
            train=options.train,
            test=options.test,
            steps=options.steps,
            seed=options.seed,
        )
        print(table.meta["caption"])
        print("\n".join(table.pformat(max_lines=-1, max_width=-1)))
        print()


if __name__ == "__main__":
    main()
