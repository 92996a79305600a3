"""Noise beside the surveys' own: of translated images, and of noise models alone."""

from __future__ import annotations

import numpy as np

from astrogan.bench._translation_rows import FLOOR
from astrogan.bench._translation_scores import LEAST_SKY, REAL, TRUTH, axes_power, seed_of
from astrogan.bench._translation_sets import photon_slope, sky_images
from astrogan.bench._translation_tables import HALVES
from astrogan.exceptions import AstroganError, InputError
from astrogan.metrics.translation_noise import mean_of_known

__all__ = ["MODELS", "model_table", "noise_line", "noise_sentences", "noise_table"]

MODELS = ("white", "correlated", "galsim", "gan")
_FIT_SEED, _REAL_SEED, _AGAIN_SEED = (2**43 + k * 2**32 for k in range(3))
_FIT_STAMPS = 300
_CHUNK = 50
_STRIDE = 8


def model_table(surveys, number, weights=None, progress=None, bands="ugriz"):
    """Noise of each model beside that of stamps it has not seen.

    Parameters
    ----------
    surveys : sequence of str
    number : int
        Stamps; as many are drawn from each model, and the floor is as many more real ones.
    weights : dict, optional
        {survey: weights of the GAN}; it is left out where there are none.
    progress : callable, optional
    bands : sequence of str, optional

    Returns
    -------
    table : `~astropy.table.Table`
        A line a survey, model and band.
    skipped : dict
        {model and survey: why}.
    """
    from astropy.table import Table

    lines, skipped = [], {}
    for survey in surveys:
        masks = []
        real = _measured(_real(survey, number, _REAL_SEED, bands, masks))
        found = {"real again": _measured(_real(survey, number, _AGAIN_SEED, bands))}
        sky = sky_images(survey, _FIT_STAMPS, _FIT_SEED, bands)
        for name in MODELS:
            try:
                model = _model(name, survey, (weights or {}).get(survey), sky)
                found[name] = _measured(_drawn(model, (name, survey), masks))
            except (AstroganError, ImportError, OSError) as error:
                skipped[f"noise model {name} of {survey}"] = " ".join(str(error).split())
        for name, own in found.items():
            lines += [{"survey": survey, "model": name} | line for line in noise_line(own, real, bands)]
        if progress is not None:
            progress(f"noise models of {survey}")
    table = Table(rows=lines, names=list(lines[0]))
    for column in table.columns.values():
        if column.dtype.kind == "f":
            column.info.format = ".3g"
    table.meta["caption"] = (
        f"Each model fitted to the sky of {_FIT_STAMPS} simulated stamps and drawn with the levels it learnt, under "
        f"the masks of {number} others, and compared with those; columns as for the table noise. real again: as many "
        "real stamps of other galaxies, the two-sample floor."
    )
    return table, skipped


def _real(survey, number, seed, bands, masks=None):
    """Chunks of images and masks; the masks are kept in a list, if one is given."""
    for start in range(0, number, _CHUNK):
        images, mask = sky_images(survey, min(_CHUNK, number - start), seed + start, bands)
        if masks is not None:
            masks.append(mask)
        yield images, mask


def _drawn(model, words, masks):
    """Noise under the masks of the real stamps, with light nowhere."""
    rng = np.random.default_rng(seed_of("noise model", *words))
    for mask in masks:
        yield np.stack([model.sample(one.shape, rng=rng) for one in mask]), mask


def _model(name, survey, weights, sky):
    from astrogan.plugins.registry import get_registry, load_backend

    if name == "gan":
        if weights is None:
            raise InputError(f"no weights; give them as noise-gan-{survey}=PATH")
        return load_backend("noise", "gan", {"weights": weights})[0]
    return get_registry().find("noise", name).load().fit(*sky)


def _measured(chunks):
    """Statistics and axis power of all chunks."""
    from astrogan.metrics import NoiseStatistics, noise_statistics

    statistics, axes = [], []
    for images, mask in chunks:
        usable = np.mean(~mask[:, 0], axis=(-2, -1)) > LEAST_SKY
        for image, bad in zip(images[usable].astype(np.float64), mask[usable, 0], strict=True):
            statistics.append(noise_statistics(image[None], mask=bad, stride=_STRIDE))
            axes.append(axes_power(image, bad, statistics[-1].std[0]))
    return NoiseStatistics.joined(statistics), np.stack(axes)


# ---- noise ----------------------------------------------------------------------------------------------------------


def noise_table(kept, bands):
    """Noise on source-free sky, each row's against the real images'.

    Parameters
    ----------
    kept : dict
        {direction: {row: Measured}}.
    bands : sequence of str

    Returns
    -------
    `~astropy.table.Table`
        A line a direction, row and band.
    """
    from astropy.table import Table

    lines = []
    for direction, rows in kept.items():
        real, truth = rows[REAL], rows[TRUTH]
        if real.noise is None:
            continue
        gain = 1 / photon_slope(direction.partition("-")[2], bands)
        for name, own in rows.items():
            if name not in (REAL, TRUTH) and own.noise is not None:
                slopes = gain * _slopes(own, truth)
                lines += _noise_lines(direction, name, (own.noise, own.axes), (real.noise, real.axes), slopes, bands)
        odd, even = ((real.noise[k::2], real.axes[k::2]) for k in (1, 0))
        lines += _noise_lines(direction, HALVES, odd, even, gain * _slopes(real, truth), bands)
    table = Table(rows=lines, names=list(lines[0])) if lines else Table()
    for column in table.columns.values():
        if column.dtype.kind == "f":
            column.info.format = ".3g"
    table.meta["caption"] = (
        "On pixels where the truth is below 0.2 sigma in all bands, of stamps with a fifth of such pixels. ks_std and "
        "w1_std: Kolmogorov-Smirnov and Wasserstein distance of the stamps' std (the latter over the real median); "
        "std_ratio: of the medians; acf_yx: autocorrelation minus the real one at (dy, dx); ks_pixels: distance of "
        f"the whitened pixels, one in {_STRIDE}; kx0, ky0: power on the two Fourier axes over the real one; bands: "
        "largest difference of the correlation with another band; amplitudes: the same of log std over stamps; slope: "
        "rise of the squared deviation from the truth with the signal, over photon noise's: a method's errors of shape "
        f"count there too. {FLOOR}: the same stamps observed again; {HALVES}: every other real stamp against "
        "the others, half as many as in the other rows, so that its distances are larger by 1.4; its slope is that of "
        "the real images."
    )
    return table


def _noise_lines(direction, name, own, real, slopes, bands):
    lines = noise_line(own, real, bands)
    return [
        {"direction": direction, "row": name} | line | {"slope": float(slope)}
        for line, slope in zip(lines, slopes, strict=True)
    ]


def noise_line(own, real, bands):
    """Differences of the noise of two sets, a dict a band.

    Parameters
    ----------
    own, real : tuple
        `~astrogan.metrics.NoiseStatistics` and power on the axes, (stamp, band, 2, frequency).
    bands : sequence of str

    Returns
    -------
    list of dict
    """
    from astrogan.metrics import compare_noise

    result = compare_noise(real[0], own[0])
    axes = _axis_ratio(own[1], real[1])
    other = ~np.eye(len(bands), dtype=bool)
    return [
        {
            "band": str(band),
            "n": len(own[0].std),
            "ks_std": float(result.ks_std[b]),
            "w1_std": float(result.w1_std[b]),
            "std_ratio": float(result.std_ratio[b]),
            **{f"acf_{dy}{dx}": float(v) for (dy, dx), v in zip(_LAGS, result.autocorrelation[b], strict=True)},
            "ks_pixels": float(result.ks_pixels[b]),
            "kx0": float(axes[b, 0]),
            "ky0": float(axes[b, 1]),
            "bands": _largest(result.correlation[b][other[b]]),
            "amplitudes": _largest(result.amplitude_correlation[b][other[b]]),
        }
        for b, band in enumerate(bands)
    ]


_LAGS = ((0, 1), (1, 1), (0, 2), (0, 3))


def _largest(values):
    values = values[np.isfinite(values)]
    return float(values[np.abs(values).argmax()]) if values.size else np.nan


def _axis_ratio(own, real):
    """Geometric mean over frequencies of the ratio of the mean powers, (band, 2)."""
    means = [mean_of_known(np.moveaxis(axes, 0, -1)) for axes in (own, real)]
    return np.exp(np.log(means[0] / means[1]).mean(axis=-1))


def _slopes(own, truth):
    """Slope of the variance against the signal, (band,)."""
    from astrogan.metrics import variance_slope

    slopes = []
    for b in range(truth.residual.shape[1]):
        signal, residual = truth.residual[:, b].astype(np.float64), own.residual[:, b].astype(np.float64)
        sigma = np.broadcast_to(truth.sigma[:, b, None], signal.shape)
        use = np.isfinite(signal) & np.isfinite(residual)
        slopes.append(variance_slope(signal[use], residual[use], sigma=sigma[use]))
    return np.array(slopes)


# ---- sentences -------------------------------------------------------------------------------------------------------


def noise_sentences(table, keys, floor, larger=1.0):
    """Each row's noise beside its limits.

    Parameters
    ----------
    table : `~astropy.table.Table`
        A line a band.
    keys : tuple of str
        The two columns that say what and who.
    floor : str
        Of the second column: whose KS distance is the floor.
    larger : float, optional
        By how much its smaller number of stamps raises it.

    Returns
    -------
    list of str
    """
    lines = []
    for (what, who), part in _groups(table, keys):
        if who != floor:
            base = table[(table[keys[0]] == what) & (table[keys[1]] == floor)]
            lines.append(_noise_sentence(what, who, part, 2 * float(np.mean(base["ks_std"])) / larger))
    return lines


def _groups(table, keys):
    seen = dict.fromkeys(tuple(str(line[k]) for k in keys) for line in table)
    for values in seen:
        use = np.all([table[k] == v for k, v in zip(keys, values, strict=True)], axis=0)
        yield values, table[use]


def _noise_sentence(direction, row, part, limit):
    ks = max(float(v) for v in part["ks_std"])
    acf = max(float(np.abs(part[name]).max()) for name in part.colnames if name.startswith("acf_"))
    axes = max(float(np.abs(part[name] - 1).max()) for name in ("kx0", "ky0"))
    verdict = [
        f"KS of the std {ks:.3f} ({'within' if ks < limit else 'above'} {limit:.3f}, twice the floor)",
        f"autocorrelation off by up to {acf:.3f} ({'within' if acf < 0.02 else 'above'} 0.02)",
        f"Fourier axes by {100 * axes:.0f} % ({'within' if axes < 0.1 else 'above'} 10 %)",
    ]
    return f"noise, {direction}, {row}, worst band: {'; '.join(verdict)}"
