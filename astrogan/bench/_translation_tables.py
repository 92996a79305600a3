"""Tables of the translation benchmark."""

from __future__ import annotations

import numpy as np

from astrogan.bench._translation_rows import FLOOR
from astrogan.bench._translation_scores import EDGES, REAL, TRUTH, seed_of
from astrogan.metrics.translation_noise import mean_of_known

__all__ = [
    "HALVES",
    "HEADLINE",
    "MEASURES",
    "full_map",
    "headline_table",
    "markdown",
    "score_table",
    "sentences",
    "shown",
    "stacked",
]  # fmt: skip

MEASURES = {
    "flux_distribution": "mean |f - f_real|, f the part of the light in each ring of 0.5 arcsec out to 6 arcsec",
    "flux_distribution_truth": "the same against the truth without noise",
    "w1": "first Wasserstein distance of the light's radius to the truth's, arcsec",
    "fourier": "mean |ln ratio| of the stacked Fourier map to the real one's, over rings to the Nyquist frequency",
    "fourier_kx0": "ratio of both maps on kx = 0",
    "fourier_ky0": "ratio of both maps on ky = 0",
    "dmag": "|magnitude - real| within 3 arcsec",
    "dmag_truth": "|magnitude - truth|",
    "dmag_bias": "magnitude - truth",
    "colour_truth": "|colour - truth|, the band minus the next redder",
    "centroid": "distance to the real centroid, arcsec",
    "centroid_px": "the same in pixels of the target",
    "centroid_truth": "distance to the truth's centroid, arcsec",
    "centroid_truth_px": "the same in pixels of the target",
    "size_truth": "|ln size / truth's| by adaptive moments, r only",
    "ellipticity_truth": "|e - truth's| by adaptive moments, r only",
    "energy": "energy score within 6 arcsec, in units of the noise, mean over stamps",
    "chi2": "median of the mean squared error over the stated variance, against the truth",
    "within_1": "part of the pixels within one stated sigma of the truth, median",
    "within_2": "within two",
}
"""What the columns mean; medians over stamps where not said otherwise."""

HEADLINE = ("flux_distribution", "flux_distribution_truth", "fourier", "dmag", "dmag_truth", "centroid",
            "centroid_px", "centroid_truth", "centroid_truth_px")  # fmt: skip

HALVES = "real-halves"
"""Row of every other real stamp against the others."""
_RESAMPLES = 200
_MEANS = ("energy",)


def full_map(half, width):
    """A map of power by (ky, kx) from its half with kx >= 0.

    Parameters
    ----------
    half : `numpy.ndarray`
        (..., y, width // 2 + 1).
    width : int

    Returns
    -------
    `numpy.ndarray`
        (..., y, width), in the order of `numpy.fft.fft2`.
    """
    rest = half[..., 1 : (width + 1) // 2][..., ::-1]
    rows = (-np.arange(half.shape[-2])) % half.shape[-2]
    return np.concatenate([half, rest[..., rows, :]], axis=-1)


# ---- scores of pairs ------------------------------------------------------------------------------------------------


def _values(own, real, truth, scale):
    """{measure: (stamp, band)} of what is measured stamp by stamp."""
    from astrogan.metrics import radial_wasserstein

    values = {
        "flux_distribution": np.abs(own.fractions - real.fractions).mean(axis=-1),
        "flux_distribution_truth": np.abs(own.fractions - truth.fractions).mean(axis=-1),
        "w1": radial_wasserstein(truth.fractions, own.fractions, EDGES),
    }
    mag, mag_real, mag_truth = (_magnitudes(m.flux) for m in (own, real, truth))
    values |= {"dmag": np.abs(mag - mag_real), "dmag_truth": np.abs(mag - mag_truth), "dmag_bias": mag - mag_truth}
    colour = np.abs(np.diff(mag - mag_truth, axis=1))
    values["colour_truth"] = np.concatenate([colour, np.full((len(colour), 1), np.nan)], axis=1)
    for name, reference in (("centroid", real), ("centroid_truth", truth)):
        pixels = np.hypot(*np.moveaxis(own.centroid - reference.centroid, -1, 0))
        values |= {name: pixels * scale, f"{name}_px": pixels}
    values |= {"energy": own.energy, "chi2": own.coverage[..., 0]}
    values |= {"within_1": own.coverage[..., 1], "within_2": own.coverage[..., 2]}
    return values


def _magnitudes(flux):
    return -2.5 * np.log10(np.where(flux > 0, flux, np.nan))


def _shapes(own, truth):
    """|ln size ratio| and |ellipticity difference|, (stamp,)."""
    size = np.abs(np.log(own.shape[:, 0] / truth.shape[:, 0]))
    return {"size_truth": size, "ellipticity_truth": np.hypot(*(own.shape - truth.shape)[:, 1:].T)}


def score_table(kept, bands, scales):
    """Scores of each row by direction and band, with 68 % intervals of resampled stamps.

    Parameters
    ----------
    kept : dict
        {direction: {row: Measured}}.
    bands : sequence of str
    scales : dict
        {direction: arcsec per pixel of the target}.

    Returns
    -------
    `~astropy.table.Table`
        A line a direction, row and band; band "mean" is the mean over the bands.
    """
    from astropy.table import Table

    lines = []
    for direction, rows in kept.items():
        real, truth = rows[REAL], rows[TRUTH]
        for name, own in rows.items():
            if name not in (REAL, TRUTH):
                lines += _row_lines(direction, name, own, real, truth, bands, scales[direction])
        lines += _halves_lines(direction, real, truth, bands)
    table = Table(rows=lines, names=list(lines[0]))
    for column in table.columns.values():
        if column.dtype.kind == "f":
            column.info.format = ".4g"
    table.meta["caption"] = (
        "Medians over stamps, mean: over the bands; _low and _high: 68 % of resampled stamps. "
        + "; ".join(f"{name}: {text}" for name, text in MEASURES.items())
        + f". {FLOOR}: the truth with the target's noise drawn again, which no method can beat against the real image "
        f"but by having less noise. {HALVES}: the Fourier maps of both halves of the real stamps. valid: part of the "
        "stamps with a flux distribution, magnitude and centroid. failed: stamps on which the row raised."
    )
    shown = ("direction", "row", "band", "valid", *(m for m in MEASURES if m not in ("within_2", "centroid_truth")))
    table.meta["shown"] = list(shown)
    return table


def _row_lines(direction, name, own, real, truth, bands, scale):
    values = _values(own, real, truth, scale)
    middle = list(bands).index("r") if "r" in bands else 0
    for measure, one in _shapes(own, truth).items():
        values[measure] = np.full((len(one), len(bands)), np.nan)
        values[measure][:, middle] = one
    found = {m: _centre_and_interval(v, m, _average if m in _MEANS else _median) for m, v in values.items()}
    found |= _fourier(own, real)
    usable = np.isfinite(values["flux_distribution"] + values["dmag"] + values["centroid"])
    lines = []
    for b, band in enumerate([*bands, "mean"]):
        line = {"direction": direction, "row": name, "band": str(band), "n": len(usable), "failed": own.failed}
        line["valid"] = float(usable.mean() if band == "mean" else usable[:, b].mean())
        for measure in MEASURES:
            centre, low, high = found[measure]
            line |= {measure: float(centre[b]), f"{measure}_low": float(low[b]), f"{measure}_high": float(high[b])}
        lines.append(line)
    return lines


def _halves_lines(direction, real, truth, bands):
    """The Fourier maps of every other chunk of real stamps against the others."""
    count = len(real.number)
    found = _fourier(_Chunks(real, slice(0, None, 2)), _Chunks(real, slice(1, None, 2))) if count > 1 else {}
    nothing = (np.full(len(bands) + 1, np.nan),) * 3
    lines = []
    for b, band in enumerate([*bands, "mean"]):
        line = {"direction": direction, "row": HALVES, "band": str(band), "n": len(real.flux), "failed": 0}
        line["valid"] = np.nan
        for measure in MEASURES:
            centre, low, high = found.get(measure, nothing)
            line |= {measure: float(centre[b]), f"{measure}_low": float(low[b]), f"{measure}_high": float(high[b])}
        lines.append(line)
    return lines


class _Chunks:
    """Some chunks of a `Measured`'s power."""

    def __init__(self, own, which):
        self.power, self.number, self.width = own.power[which], own.number[which], own.power.shape[-2]


def _centre_and_interval(values, key, centre):
    """Of (stamp, band): the centre by band and the bands' mean, and 68 % intervals of both."""
    rng = np.random.default_rng(seed_of("interval", key))
    picks = rng.integers(0, len(values), (_RESAMPLES, len(values)))
    middle, again = _with_mean(centre(values)), _with_mean(centre(values[picks]))
    ordered = np.sort(again, axis=0)  # NaN goes last
    known = np.count_nonzero(~np.isnan(again), axis=0)
    low, high = (_at(ordered, np.floor(part * np.maximum(known - 1, 0)).astype(int)) for part in (0.16, 0.84))
    return middle, low, high


def _at(ordered, index):
    return np.take_along_axis(ordered, index[None], axis=0)[0]


def _median(values):
    """Median over the last axis but one of what is not NaN."""
    ordered = np.sort(values, axis=-2)
    known = np.count_nonzero(~np.isnan(values), axis=-2)[..., None, :]
    ends = (np.maximum(known - 1, 0) // 2, known // 2)
    low, high = (np.take_along_axis(ordered, np.minimum(end, values.shape[-2] - 1), axis=-2) for end in ends)
    return ((low + high) / 2)[..., 0, :]


def _average(values):
    """Mean over the last axis but one of what is not NaN."""
    return mean_of_known(np.moveaxis(values, -2, -1))


def _with_mean(values):
    """(..., band) with the bands' mean behind."""
    return np.concatenate([values, mean_of_known(values)[..., None]], axis=-1)


def _fourier(own, real):
    """Error and axes of the stacked maps; intervals from resampled chunks, the same ones in both."""
    from astrogan.metrics import compare_fourier_maps

    rng = np.random.default_rng(seed_of("fourier"))
    paired = len(own.number) == len(real.number)
    picks = [None, *(rng.integers(0, 1 << 30, len(real.number)) for _ in range(40 if len(real.number) > 2 else 0))]
    found = []
    for pick in picks:
        a = stacked(real, pick)
        b = stacked(own, pick if paired else None)
        result = compare_fourier_maps(a, b)
        found.append(np.stack([_with_mean(v) for v in (result.error, result.axes[:, 0], result.axes[:, 1])]))
    found = np.stack(found)
    low, high = np.percentile(found[1:], (16, 84), axis=0) if len(found) > 1 else (np.full(found[0].shape, np.nan),) * 2
    names = ("fourier", "fourier_kx0", "fourier_ky0")
    return {name: (found[0, k], low[k], high[k]) for k, name in enumerate(names)}


def stacked(own, pick=None):
    """The stacked map of all chunks.

    Parameters
    ----------
    own : Measured
    pick : `numpy.ndarray` of int, optional
        Chunks instead of all, repeated or not.

    Returns
    -------
    `numpy.ndarray`
        (band, y, x).
    """
    pick = np.arange(len(own.number)) if pick is None else pick % len(own.number)
    weight = own.number[pick].astype(np.float64)
    half = np.tensordot(weight / max(weight.sum(), 1), own.power[pick], axes=(0, 0))
    return full_map(half, own.power.shape[-2])


def headline_table(scores):
    """The scores that decide, averaged over the bands, with the intervals in one text.

    Parameters
    ----------
    scores : `~astropy.table.Table`
        Of `score_table`.

    Returns
    -------
    `~astropy.table.Table`
    """
    lines = scores[scores["band"] == "mean"]
    columns = ["direction", "row", "n", "failed"]
    columns += [name for measure in HEADLINE for name in (measure, f"{measure}_low", f"{measure}_high")]
    table = lines[columns]
    table.meta = {
        "caption": "Means over the bands of the medians over stamps. "
        + "; ".join(f"{m}: {MEASURES[m]}" for m in HEADLINE)
        + ". _low and _high: 68 % of resampled stamps.",
        "shown": ["direction", "row", *HEADLINE],
    }
    return table


# ---- sentences ------------------------------------------------------------------------------------------------------


def sentences(scores, default="surveynet"):
    """The default beside the best of the others.

    Parameters
    ----------
    scores : `~astropy.table.Table`
    default : str
        Row to compare.

    Returns
    -------
    list of str
    """
    lines = []
    for direction in dict.fromkeys(scores["direction"]):
        part = scores[(scores["direction"] == direction) & (scores["band"] == "mean")]
        lines += _compared(direction, part, default)
    return lines


def _compared(direction, part, default):
    rows = {str(line["row"]): line for line in part}
    others = [name for name in rows if name not in (default, FLOOR, HALVES)]
    if default not in rows or not others:
        return []
    words = []
    for measure in ("flux_distribution", "fourier", "dmag", "dmag_truth", "centroid", "centroid_truth"):
        best = min(others, key=lambda name: np.nan_to_num(rows[name][measure], nan=np.inf))
        mine, theirs = rows[default][measure], rows[best][measure]
        verdict = "better" if mine < theirs else "not better"
        floor = f", floor {rows[FLOOR][measure]:.4g}" if FLOOR in rows else ""
        words.append(f"{measure} {mine:.4g} : {theirs:.4g} ({best}; {verdict}{floor})")
    return [f"{direction}, {default} : the best of the others: {'; '.join(words)}"]


# ---- Markdown -------------------------------------------------------------------------------------------------------


def shown(table):
    """The columns of a table that are for reading; the file has all of them.

    Parameters
    ----------
    table : `~astropy.table.Table`

    Returns
    -------
    `~astropy.table.Table`
    """
    return table[table.meta["shown"]] if "shown" in table.meta else table


def markdown(tables, lines, skipped):
    """All tables for reading.

    Parameters
    ----------
    tables : dict of str to `~astropy.table.Table`
    lines : list of str
    skipped : dict
        {row: why it is not there}.

    Returns
    -------
    str
    """
    from astrogan.bench._restoration_tables import markdown_table, number

    def text(value, form):
        return number(value, form or ".3g") if isinstance(value, float | np.floating) else str(value)

    parts = ["# Translation between surveys"]
    for title, table in tables.items():
        part = shown(table)
        body = [[text(row[name], part[name].info.format) for name in part.colnames] for row in part]
        parts += [f"## {title}", markdown_table(part.colnames, body), table.meta.get("caption", "")]
    if lines:
        parts += ["## In one sentence each", "\n".join(f"- {line}" for line in lines)]
    if skipped:
        parts += ["## Rows that are not there", "\n".join(f"- {name}: {why}" for name, why in skipped.items())]
    return "\n\n".join(parts) + "\n"
