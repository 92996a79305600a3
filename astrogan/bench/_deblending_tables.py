"""Tables of the deblending benchmark: medians, means and intervals by kind of source."""

from __future__ import annotations

import hashlib

import numpy as np

from astrogan.bench._linear_common import as_table
from astrogan.bench._restoration_tables import markdown_table, number

__all__ = ["MEASURES", "STRATA", "acceptance", "blends_table", "gather", "interval", "markdown", "shown"]

MEASURES = {
    "flux_error": "|F / F_true - 1| of the source's part of the image, mean over bands",
    "flux_error_model": "the same of its template",
    "colour_error": "|error| of the colours of neighbouring bands, mean, magnitudes",
    "cosine": "pixel cosine of the source's part of the image with its truth",
    "cosine_model": "of its template",
    "psnr": "PSNR in dB, data range = the truth's own peak, of the part of the image",
    "psnr_model": "of the template",
    "ssim": "SSIM (Gaussian window of sigma 1.5), same range, of the part of the image",
    "ssim_model": "of the template",
    "ellipticity_error": "modulus of the error in (e1, e2), adaptive moments of the band sum; failures count as inf",
    "ellipticity_error_model": "of the template",
    "iou": "pixels above 1 sigma of the band sum in both truth and template, over those in either",
    "in_68": "part of the bands whose true flux lies within flux_err",
    "in_95": "within 2 flux_err",
}
"""What is measured of a source; PSNR and SSIM in the box of the truth above 1 sigma and 4 pixels around it."""

STRATA = {
    "blendedness": (0.05, 0.2, 0.5),
    "snr": (20.0, 50.0, 150.0),
    "separation": (1.0, 2.0, 4.0),
}
"""Edges between the classes of sources."""

_MEANS = ("in_68", "in_95", "iou")
_RESAMPLES = 500
_FORMATS = {"median": ".4f", "psnr": ".2f", "psnr_model": ".2f", "conservation": ".1e", "seconds": ".3f"}


def gather(results, centres):
    """The lines of all scenes of one row, as columns.

    Parameters
    ----------
    results : list of dict
        Of `astrogan.bench._deblending_grid.measure_scene`.
    centres : {"true", "detected"}

    Returns
    -------
    dict of str to `numpy.ndarray`
        ``scene`` and ``source`` besides the measures; empty where there is no line.
    """
    lines = [{"scene": result["scene"], **line} for result in results for line in result[centres]]
    return {name: np.array([line[name] for line in lines]) for name in lines[0]} if lines else {}


def blends_table(results):
    """A line a row, kind of centres and class of sources.

    Parameters
    ----------
    results : dict
        {row name: list of results}.

    Returns
    -------
    `~astropy.table.Table`
        Medians of `MEASURES` (means of coverage and overlap), ``<measure>_mean``, and ``flux_error_low``,
        ``flux_error_high`` (and so on for ``psnr_model`` and ``ssim_model``): 95 % of the medians of resampled scenes.
    """
    lines = []
    for centres in ("true", "detected"):
        for name, scenes in results.items():
            columns = gather(scenes, centres)
            if not columns:
                continue
            for stratum, chosen in _classes(columns):
                part = {key: value[chosen] for key, value in columns.items()}
                if len(part["scene"]):
                    lines.append({"row": name, "centres": centres, "sources": stratum} | _line(part))
            lines[-_count(lines, name, centres)] |= _scene_columns(scenes, centres)
    names = list(dict.fromkeys(key for line in lines for key in line))
    lines = [{name: line.get(name, np.nan) for name in names} for line in lines]
    formats = {name: _FORMATS.get(name.removesuffix("_mean"), ".3f") for name in names}
    table = as_table(lines, _CAPTION, formats)
    table.meta["shown"] = [name for name in _SHOWN if name in names]
    return table


_SHOWN = (
    "row", "centres", "sources", "n", "completeness", "purity", "flux_error", "flux_error_low", "flux_error_high",
    "flux_error_mean", "flux_error_model", "colour_error", "cosine", "cosine_model", "psnr", "psnr_model", "ssim",
    "ssim_model", "ellipticity_error", "ellipticity_error_model", "iou", "in_68", "in_95", "conservation", "failed",
    "seconds",
)  # fmt: skip
_CAPTION = (
    "Medians over sources, `_mean` their means, `_low` and `_high` 95 % of the medians of resampled blends. "
    + "; ".join(f"{name}: {text}" for name, text in MEASURES.items())
    + ". in_68, in_95, iou: means. PSNR and SSIM within the box of the truth above 1 sigma, 4 pixels wider. Detected "
    "centres are matched to the true ones within one FWHM of the PSF; the measures are of matched sources, "
    "completeness and purity of all. conservation: largest departure of sources + residual from the image, over the "
    "image's largest value. failed: blends on which the row raised. seconds: median a blend."
)


def _count(lines, name, centres):
    """How many of the last lines belong to a row."""
    return sum(line["row"] == name and line["centres"] == centres for line in lines)


def _classes(columns):
    """(title, boolean index): all sources, and those of each class."""
    yield "all", np.ones(len(columns["scene"]), bool)
    for name, edges in STRATA.items():
        values = columns.get(name)
        if values is None:
            continue
        for low, high in zip((-np.inf, *edges), (*edges, np.inf), strict=True):
            title = f"< {high:g}" if low == -np.inf else f">= {low:g}" if high == np.inf else f"{low:g} - {high:g}"
            yield f"{name} {title}", (values >= low) & (values < high)


def _line(part):
    line = {"n": len(part["scene"])}
    for name in MEASURES:
        values = np.asarray(part[name], np.float64) if name in part else np.full(line["n"], np.nan)
        line[name] = _over(np.mean if name in _MEANS else np.median, values)
        if name not in _MEANS:
            line[f"{name}_mean"] = _over(np.mean, values)
        if name in ("flux_error", "psnr_model", "ssim_model"):
            line[f"{name}_low"], line[f"{name}_high"] = interval(values, part["scene"], key=name)
    return line


def _over(function, values):
    values = values[~np.isnan(values)]
    return float(function(values)) if values.size else np.nan


def _scene_columns(scenes, centres):
    counts = [scene["counts"] for scene in scenes if scene["counts"]] if centres == "detected" else []
    true, found, matched = (sum(c[key] for c in counts) for key in ("true", "found", "matched"))
    done = [scene for scene in scenes if centres in scene["seconds"]]
    return {
        "completeness": matched / true if true else np.nan,
        "purity": matched / found if found else np.nan,
        "conservation": max(scene["conservation"][centres] for scene in done),
        "seconds": float(np.median([scene["seconds"][centres] for scene in done])),
        "failed": float(sum(centres in scene["error"] for scene in scenes)),
    }


def interval(values, scenes, key="", weigh=None):
    """Interval that holds 95 % of the medians of resampled scenes: sources of one blend are not independent.

    Parameters
    ----------
    values, scenes : array_like
        (n,): a value a source, NaN is left out, and the number of its scene.
    key : str
        The resampling is drawn from it, so that the interval is the same each time.
    weigh : array_like, optional
        (n,): a second value a source; the interval is that of the ratio of both medians.

    Returns
    -------
    tuple of float
        NaN for fewer than two scenes.
    """
    values = np.asarray(values, np.float64)
    good = ~np.isnan(values) if weigh is None else ~(np.isnan(values) | np.isnan(weigh))
    _, scene = np.unique(np.asarray(scenes)[good], return_inverse=True)
    count = scene.max(initial=-1) + 1
    if count < 2:
        return np.nan, np.nan
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8], "little"))
    times = rng.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)[:, scene]
    medians = _weighted_medians(values[good], times)
    if weigh is not None:
        medians = medians / _weighted_medians(np.asarray(weigh, np.float64)[good], times)
    low, high = np.percentile(medians, (2.5, 97.5), method="nearest")  # interpolation has no answer for infinities
    return float(low), float(high)


def _weighted_medians(values, times):
    """Median of the values, each taken so many times; (resample,)."""
    order = np.argsort(values)
    running = np.cumsum(times[:, order], axis=1)
    return values[order][(2 * running >= running[:, -1:]).argmax(axis=1)]


# ---- acceptance -----------------------------------------------------------------------------------------------------


def acceptance(results, default="default"):
    """Sentences that compare the default with the other rows, source by source.

    Parameters
    ----------
    results : dict
        {row name: list of results}.
    default : str
        The row to compare.

    Returns
    -------
    list of str
    """
    if default not in results:
        return []
    lines = []
    for centres in ("true", "detected"):
        own = gather(results[default], centres)
        for other in ("watershed", "usaid2019", "branched-gan"):
            theirs = gather(results[other], centres) if other in results else {}
            names = ("flux_error",) if other == "watershed" else ("flux_error", "psnr_model", "ssim_model")
            if own and theirs:
                lines.append(_sentence(default, own, other, theirs, centres, names))
    own, oracle = (gather(results.get(name, []), "true") for name in (default, "truth-ratio"))
    if own and oracle:
        easy = own["blendedness"] < 0.2
        own, oracle = ({k: v[easy] for k, v in columns.items()} for columns in (own, oracle))
        if easy.any():
            lines.append(
                "at blendedness < 0.2, " + _sentence(default, own, "truth-ratio", oracle, "true", ("flux_error",))
            )
    return lines


def _sentence(name, own, other, theirs, centres, measures):
    mine, yours = _common(own, theirs)
    parts = []
    for measure in measures:
        a, b = own[measure][mine], theirs[measure][yours]
        middle, against = _over(np.median, a), _over(np.median, b)
        better = middle < against if measure == "flux_error" else middle > against
        text = f"{measure} {middle:.4g} : {against:.4g}"
        if measure == "flux_error":
            low, high = interval(a, own["scene"][mine], key=other, weigh=b)
            text += f" = {middle / against if against else np.nan:.3f} [{low:.3f}, {high:.3f}]"
        parts.append(f"{text} ({'better' if better else 'not better'})")
    return f"{centres} centres, {len(mine)} sources, {name} : {other}, medians: {'; '.join(parts)}"


def _common(own, theirs):
    """Indices of the sources that both have."""
    place = {pair: i for i, pair in enumerate(zip(theirs["scene"], theirs["source"], strict=True))}
    both = [(i, place[p]) for i, p in enumerate(zip(own["scene"], own["source"], strict=True)) if p in place]
    return tuple(np.array(both, int).reshape(-1, 2).T)


# ---- Markdown -------------------------------------------------------------------------------------------------------


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
    parts = ["# Deblending"]
    for title, table in tables.items():
        parts += [f"## {title}", _as_markdown(shown(table)), table.meta.get("caption", "")]
    if lines:
        parts += ["## In one sentence each", "\n".join(f"- {line}" for line in lines)]
    if skipped:
        parts += ["## Rows that are not there", "\n".join(f"- {name}: {why}" for name, why in skipped.items())]
    return "\n\n".join(parts) + "\n"


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


def _as_markdown(table):
    body = [[_text(row[name], table[name].info.format) for name in table.colnames] for row in table]
    return markdown_table(table.colnames, body)


def _text(value, form):
    return number(value, form or ".3g") if isinstance(value, float | np.floating) else str(value)
