"""The restoration benchmark's summary, and its Markdown."""

from __future__ import annotations

import hashlib

import numpy as np

from astrogan.bench._paper_tables import PAPER_NAMES, paper_psnr

__all__ = [
    "CEILING",
    "NOISE_LIMIT",
    "bootstrap_interval",
    "cell_title",
    "markdown",
    "markdown_table",
    "number",
    "summary",
]

CEILING = "ceiling (noise-free truth)"
NOISE_LIMIT = "noise-free image (by the target's sky noise)"
_RESAMPLES = 2000

_FORMATS = {
    "psnr": ".2f",
    "psnr_low": ".2f",
    "psnr_high": ".2f",
    "gain": "+.2f",
    "gain_low": "+.2f",
    "gain_high": "+.2f",
    "paper": ".1f",
    "psnr_linear": ".2f",
    "ssim": ".4f",
    "flux_bias_median": "+.2f",
    "flux_bias_mean": "+.2f",
    "ellipticity_error": ".4f",
    "texture": ".2f",
    "false_before": ".1f",
    "false_after": ".1f",
    "false_input_sigma": ".1f",
    "tuned": ".4g",
    "seconds": ".3f",
}


def bootstrap_interval(values, key=""):
    """Interval that holds 95 % of the means of resampled values.

    Parameters
    ----------
    values : array_like
        (n,); NaN are left out.
    key : str
        The resampling is drawn from it, so that the interval is the same each time.

    Returns
    -------
    tuple of float
        NaN for fewer than two values.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return np.nan, np.nan
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8], "little"))
    means = values[rng.integers(0, len(values), (_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def summary(tables, cells, rows, limits):
    """One line a cell and row, ceilings last.

    Parameters
    ----------
    tables : dict
        {(cell, row name): table of images}.
    cells, rows : list
    limits : `~astropy.table.Table`
        Columns image, ceiling, noise_limit.

    Returns
    -------
    `~astropy.table.Table`
    """
    from astropy.table import Table

    lines = []
    for cell in cells:
        best = _best_classic(tables, cell, rows)
        lines += [_line(tables, cell, row, best) for row in rows]
        for name, column in ((CEILING, "ceiling"), (NOISE_LIMIT, "noise_limit")):
            values = np.asarray(limits[column], float)
            if np.isfinite(values).any():
                lines.append(_limit(cell, name, values))
    table = Table([{name: line.get(name, np.nan) for name in lines[0]} for line in lines])
    for name, form in _FORMATS.items():
        table[name].info.format = form
    for name in ("psnr", "psnr_low", "psnr_high", "gain", "gain_low", "gain_high", "paper", "psnr_linear"):
        table[name].unit = "dB"
    table["flux_bias_median"].unit = table["flux_bias_mean"].unit = "percent"
    table["seconds"].unit = "s"
    table["fwhm"].unit = "arcsec"
    return table


def _best_classic(tables, cell, rows):
    """Name of the classic row over all images with the largest mean PSNR, or None."""
    means = {row.name: tables[cell, row.name]["psnr"].mean() for row in rows if row.kind == "classic" and not row.most}
    return max(means, key=means.get) if means else None


def _line(tables, cell, row, best):
    table = tables[cell, row.name]
    psnr = np.asarray(table["psnr"], float)
    low, high = bootstrap_interval(psnr, key=cell)
    line = {
        "convention": cell.convention,
        "fwhm": cell.fwhm,
        "noise": cell.noise,
        "row": row.name,
        "kind": row.kind,
        "images": len(table),
        "psnr": psnr.mean(),
        "psnr_low": low,
        "psnr_high": high,
        "best_classic": best or "",
    }
    line |= _gain(table, tables[cell, best], cell) if best else dict.fromkeys(("gain", "gain_low", "gain_high"), np.nan)
    bias = np.asarray(table["flux_bias"], float)
    tuned = list(table.meta["tuned"].values())
    paper = paper_psnr(_paper_name(row), cell.fwhm, cell.noise)
    sky = table.meta["blank_sky"]
    return line | {
        "paper": np.nan if paper is None else paper,
        "psnr_linear": float(np.mean(table["psnr_linear"])),
        "ssim": _over(np.mean, table["ssim"]),
        "flux_bias_median": _over(np.median, bias),
        "flux_bias_mean": _over(np.mean, bias),
        "ellipticity_error": _over(np.median, table["ellipticity_error"]),
        "texture": _over(np.median, table["texture"]),
        **{name: sky.get(name, np.nan) for name in ("false_before", "false_after", "false_input_sigma")},
        "tuned": tuned[0] if tuned else np.nan,
        "seconds": table.meta["seconds"],
    }


def _gain(table, best, cell):
    """Mean difference to the best classic row on the images that both have, with its interval."""
    there = dict(zip(best["image"], best["psnr"], strict=True))
    pairs = zip(table["image"], table["psnr"], strict=True)
    differences = np.array([value - there[name] for name, value in pairs if name in there])
    low, high = bootstrap_interval(differences, key=cell)
    return {"gain": differences.mean(), "gain_low": low, "gain_high": high}


def _limit(cell, name, values):
    low, high = bootstrap_interval(values, key=cell)
    values = values[np.isfinite(values)]
    named = {"convention": cell.convention, "fwhm": cell.fwhm, "noise": cell.noise, "row": name, "kind": "limit"}
    return named | {
        "images": len(values),
        "psnr": values.mean(),
        "psnr_low": low,
        "psnr_high": high,
        "best_classic": "",
    }


def _paper_name(row):
    """The row of the paper that stands beside ours: networks beside its GAN."""
    if row.kind == "backend":
        return "galaxygan2017"
    return {"richardson-lucy (tuned)": "richardson-lucy"}.get(row.name, row.name)


def _over(function, values):
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return float(function(values)) if values.size else np.nan


# ---- Markdown -------------------------------------------------------------------------------------------------------

_DETAILS = {
    "row": "row",
    "images": "images",
    "psnr": "PSNR",
    "gain": "to best classic",
    "psnr_linear": "PSNR, linear",
    "ssim": "SSIM",
    "flux_bias_median": "flux bias, median %",
    "flux_bias_mean": "mean %",
    "ellipticity_error": "ellipticity error",
    "texture": "texture",
    "false_after": "false sources (own sigma)",
    "false_input_sigma": "(input's sigma)",
    "tuned": "tuned",
    "seconds": "s / image",
}


def markdown(table, rows, settings):
    """The tables as the paper laid them out, its own numbers beside them, and how all was measured.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Of `summary`.
    rows : list of Row
    settings : Settings

    Returns
    -------
    str
    """
    parts = ["# Restoration on the grid of Schawinski et al. (2017)", _method(table, settings)]
    for convention in dict.fromkeys(table["convention"]):
        part = table[table["convention"] == convention]
        parts.append(f"## Noise {_CONVENTION[convention]}")
        parts += [_grid(part, name, _paper_of(name, rows)) for name in dict.fromkeys(part["row"])]
        parts.append(f"### All measures, noise {_CONVENTION[convention]}")
        cells = dict.fromkeys((float(line["fwhm"]), float(line["noise"])) for line in part)
        parts += [_cell_details(part, *cell) for cell in cells]
    return "\n\n".join(parts) + "\n"


_CONVENTION = {"independent": "independent in each band", "shared": "shared between bands (as in the paper: a flaw)"}


def _paper_of(name, rows):
    row = next((row for row in rows if row.name == name), None)
    return None if row is None else _paper_name(row)


_METHOD = """\
{count} images (part: {part}), {order}. Their flux is the inverse of the paper's stretch{sky}. Blurs are in arcsec at \
{pixel_scale:g} arcsec a pixel. Every method gets the unclipped linear image, the true blur as its PSF, {told}.

- **PSNR**: in the paper's domain (clip to [-0.1, 4], asinh, 8 bits, MAX 255, all pixels and bands), mean over images \
in dB, ± half the 95 % bootstrap interval of that mean. *PSNR, linear*: of the flux, data range = each image's \
largest flux. *To best classic*: mean difference, image by image, to the classic row that is best at that cell.
- **Tuned** rows (gaussian: FWHM in pixels; wiener: balance; richardson-lucy (tuned): iterations) have one value a \
cell, the best for the mean PSNR of the first {tuned} of these images *with the truth*. No user can do that: they are \
the most that these methods can give.
- **{noise_limit}**: what a perfect image would score against a target with the sky noise that this one has. It is a \
scale, not a bound: at mild degradation some of the target's own noise survives the blur and is restored with it. \
**{ceiling}** is there for simulated images alone.
- Flux bias: apertures of {aperture:g} arcsec radius on the central object, all bands. Ellipticity error: median \
distance of (e1, e2) of unweighted moments on the original's segment. Texture: median ratio of the robust scatter of \
what is finer than about eight pixels to the original's; 1 looks as grainy, less is smoother. These, and SSIM (in the \
paper's domain), on the first {photometry} images. False sources: positive 5 sigma detections per million pixels on \
degraded blank sky, sigma being the result's own robust noise, or that of the degraded sky.
- The paper's numbers come from other images (4,550 SDSS galaxies at 0.01 < z < 0.02) and from noise shared between \
bands; its PSNR script was not published. They show the size of the \
numbers, not a ranking."""


_SKY = {
    "subtract": ", less the median of each band's outer tenth",
    "keep": ", with the level of sky that it gives (near -0.07 where the picture is black: the clip at -0.1 then hides "
    "nearly half the sky's noise, for all methods alike)",
}


def _method(table, settings):
    """How all was measured."""
    s, count = settings, max(table["images"])
    size = "left at their size" if s.size is None else f"resized to {s.size} pixels"
    last = f"degraded at native size, restored, and then {size} for the comparison in the paper's domain"
    return _METHOD.format(
        count=count,
        part=s.part,
        order=f"{size} and then degraded" if s.order == "resize-first" else last,
        sky=_SKY[s.sky],
        pixel_scale=s.pixel_scale,
        told="and the noise" if s.give_variance else "and has the noise estimated by the library, as for a user",
        tuned=min(s.tune_images, count),
        noise_limit=NOISE_LIMIT[0].upper() + NOISE_LIMIT[1:],
        ceiling=CEILING[0].upper() + CEILING[1:],
        aperture=s.aperture,
        photometry=min(s.photometry_images, count),
    )


def _grid(part, name, paper):
    """A row's grid: noise down, FWHM across, and the paper's beside it."""
    lines = part[part["row"] == name]
    fwhms, noises = (sorted(set(map(float, part[c]))) for c in ("fwhm", "noise"))
    ours = {(float(x["fwhm"]), float(x["noise"])): x for x in lines}
    has_paper = any(paper_psnr(paper, *point) is not None for point in ours)
    head = ["noise", *(f'{f:g}"' for f in fwhms)]
    head += [f'paper {f:g}"' for f in fwhms] if has_paper else []
    body = []
    for noise in noises:
        cells = [_psnr(ours.get((f, noise))) for f in fwhms]
        cells += [number(paper_psnr(paper, f, noise), ".1f") for f in fwhms] if has_paper else []
        body.append([f"{noise:g}", *cells])
    beside = f" beside {PAPER_NAMES[paper]}" if has_paper else ""
    return f"### {name}{beside}\n\n{markdown_table(head, body)}"


def _psnr(line):
    if line is None:
        return "-"
    half = (line["psnr_high"] - line["psnr_low"]) / 2
    return f"{line['psnr']:.2f}" + (f" \u00b1 {half:.2f}" if np.isfinite(half) else "")


def _cell_details(part, fwhm, noise):
    lines = part[(part["fwhm"] == fwhm) & (part["noise"] == noise)]
    body = [[_text(line, name) for name in _DETAILS] for line in lines]
    best = next((b for b in lines["best_classic"] if b), None)
    before = next((b for b in lines["false_before"] if np.isfinite(b)), np.nan)
    notes = [f"best classic: {best}"] if best else []
    notes += [f"false sources before: {before:.1f}"] if np.isfinite(before) else []
    title = f'**{fwhm:g}", noise {noise:g}**' + (f" ({'; '.join(notes)})" if notes else "")
    return f"{title}\n\n{markdown_table(_DETAILS.values(), body)}"


def _text(line, name):
    value = line[name]
    if name in ("row", "images"):
        return str(value)
    text = number(value, _FORMATS[name])
    if name == "gain" and np.isfinite(line["gain_low"]) and line["row"] != line["best_classic"]:
        text += f" [{line['gain_low']:+.2f}, {line['gain_high']:+.2f}]"
    return text


def cell_title(line):
    """The degradation of a line of the summary, in words."""
    return f'{line["fwhm"]:g}" blur, {line["noise"]:g} x noise, {_CONVENTION[line["convention"]]}'


def number(value, form):
    """A number in its format; a dash for what is not there."""
    return "-" if value is None or not np.isfinite(value) else format(value, form)


def markdown_table(head, body):
    """Head and lines of strings, numbers to the right."""
    head = list(head)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
