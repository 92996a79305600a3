"""What goes into a panel: an image with its colour scale, sky coordinates, a title, a colour bar, labels."""

from __future__ import annotations

import textwrap

import numpy as np

from astrogan.exceptions import InputError, UnitError
from astrogan.plot._layout import ASPECTS, TICKS

__all__ = [
    "FLUX",
    "MASKED",
    "RESIDUAL",
    "SIGMA",
    "aspect_of",
    "blank",
    "colour_bar",
    "coordinates",
    "draw",
    "flux_label",
    "label",
    "limits_of",
    "noise_of",
    "norm_of",
    "numbers",
    "plain",
    "power_of",
    "scale_bar",
    "size_of",
    "symmetric",
    "title",
    "unit_label",
]  # fmt: skip

MASKED = "0.62"
# None of these has a grey of its own (cividis has), so that masked pixels stand out.
FLUX, SIGMA, RESIDUAL = "inferno", "viridis", "RdBu_r"
_STRETCHES = ("asinh", "linear", "log", "sqrt", "power", "squared", "sinh")
_NAMES = {"RA": "RA", "DEC": "Dec", "GLON": "Galactic l", "GLAT": "Galactic b", "ELON": "ecliptic longitude",
          "ELAT": "ecliptic latitude"}  # fmt: skip


def plain(text):
    """Text that matplotlib takes as it is, dollars and all."""
    return str(text).replace("\\", "\\\\").replace("$", r"\$") if "$" in str(text) else str(text)


# ---- scales ---------------------------------------------------------------------------------------------------------


def noise_of(plane):
    """Scatter of neighbouring pixels, which the light of a galaxy that fills the image does not widen."""
    from astropy.stats import mad_std

    steps = np.diff(plane, axis=-1)
    steps = steps[np.isfinite(steps)]
    return float(mad_std(steps)) / np.sqrt(2) if steps.size else 0.0


def limits_of(data):
    """What a colour scale spans by default: all but the faintest 0.5 % and the brightest 0.2 % of the pixels."""
    values = np.concatenate([part[np.isfinite(part)] for part in data])
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.8)))
    if not high > low:
        low, high = float(values.min()), float(values.max())
    if high - low <= 1e-6 * abs(high):
        reach = 0.1 * abs(high) or 0.5
        return high - reach, high + reach
    return low, high


def norm_of(data, stretch="asinh", limits=None, unit=None):
    """The colour scale that panels share.

    Parameters
    ----------
    data : list of `numpy.ndarray`
        What is drawn with it.
    stretch : str
        As `astropy.visualization.simple_norm` calls it; ``"asinh"`` is linear up to about three times the noise.
    limits : (low, high) or `~astropy.units.Quantity`, optional
    unit : `~astropy.units.Unit`, optional
        Of the data and the limits.

    Returns
    -------
    `~astropy.visualization.ImageNormalize`
    """
    from astropy.visualization import simple_norm

    if stretch not in _STRETCHES:
        raise InputError(f"stretch={stretch!r} must be one of {', '.join(_STRETCHES)}")
    low, high = limits_of(data) if limits is None else _given(limits, unit)
    options = {}
    if stretch == "asinh":
        noise = max(map(noise_of, data))
        options["asinh_a"] = float(np.clip(3 * noise / (high - low), 0.005, 1.0))
    return simple_norm(np.zeros(2), stretch, vmin=low, vmax=high, clip=False, invalid=None, **options)


def _given(limits, unit):
    from astropy import units as u

    if isinstance(limits, u.Quantity):
        try:
            limits = limits.to_value(unit if unit is not None else u.dimensionless_unscaled)
        except u.UnitConversionError as error:
            raise UnitError(f"limits={limits} do not convert to the image's unit {unit}") from error
    try:
        low, high = (float(value) for value in limits)
    except (TypeError, ValueError) as error:
        raise InputError(f"limits={limits!r} must be two numbers, lowest and highest, in the image's unit") from error
    if not (np.isfinite([low, high]).all() and high > low):
        raise InputError(f"limits={limits!r} must be two finite numbers, the lower one first")
    return low, high


def symmetric(data, limit=None, least=0.0, most=np.inf):
    """A linear scale about zero, as far as all but the largest 0.5 % of the values reach."""
    from matplotlib.colors import Normalize

    if limit is None:
        values = np.abs(np.concatenate([part[np.isfinite(part)].ravel() for part in data]))
        limit = float(np.percentile(values, 99.5)) if values.size else 1.0
        limit = float(np.clip(limit, least, most)) or 1.0
    elif not (np.isscalar(limit) and np.isfinite(limit) and limit > 0):
        raise InputError(f"residual_limit={limit!r} must be a positive number")
    return Normalize(-limit, limit)


# ---- drawing --------------------------------------------------------------------------------------------------------


def draw(ax, data, norm, colours):
    """Draw an image, pixels as they are, what is not finite in grey."""
    from matplotlib import colormaps

    cmap = colormaps[colours].with_extremes(bad=MASKED)
    shown = np.ma.masked_invalid(data)
    return ax.imshow(shown, origin="lower", interpolation="nearest", cmap=cmap, norm=norm, aspect=aspect_of(data))


def aspect_of(data):
    """Square pixels, unless the image is a strip."""
    return "equal" if ASPECTS[0] <= len(data) / len(data[0]) <= ASPECTS[1] else "auto"


def size_of(ax):
    """Width and height in inches of what is drawn in a panel."""
    ax.apply_aspect()
    return ax.get_window_extent().size / ax.figure.dpi


def coordinates(ax, wcs, *, left=True, bottom=True):
    """Sky coordinates (or pixels) along the edges of a panel, with labels at the left and the bottom edge if wanted."""
    if wcs is None or not hasattr(ax, "coords"):
        ax.tick_params(labelsize=TICKS, direction="in", color="0.5", labelleft=left, labelbottom=bottom)
        for axis, inches in zip("xy", size_of(ax), strict=True):
            ax.locator_params(axis=axis, nbins=int(np.clip(inches / 0.5, 1, 5)), integer=True)
        ax.set_xlabel("x [pixel]" if bottom else "", fontsize=TICKS + 0.5, labelpad=2)
        ax.set_ylabel("y [pixel]" if left else "", fontsize=TICKS + 0.5, labelpad=2)
        return
    matrix = np.abs(wcs.celestial.pixel_scale_matrix)
    along_x = 0 if matrix[0, 0] * matrix[1, 1] >= matrix[0, 1] * matrix[1, 0] else 1
    turned = matrix[0, 1 - along_x] * matrix[1, along_x] > 0.01 * matrix[0, along_x] * matrix[1, 1 - along_x]
    if turned:  # a line crosses edges that its label is not on
        ax.coords.grid(color="white", alpha=0.35, lw=0.6)
    for k, (coordinate, kind) in enumerate(zip(ax.coords, wcs.wcs.ctype, strict=True)):
        side, wanted = ("b", bottom) if k == along_x else ("l", left)
        coordinate.set_ticks_position("all")
        coordinate.set_ticks(number=6 if turned else 3)
        coordinate.tick_params(direction="in", color="0.5", labelsize=TICKS)
        coordinate.set_ticklabel_position(side)
        coordinate.set_axislabel_position(side)
        coordinate.set_ticklabel_visible(wanted)
        coordinate.set_ticklabel(exclude_overlapping=True)
        name = kind.split("-")[0]
        text = _NAMES.get(name, name)
        if name == "RA" and wcs.wcs.radesys.strip():
            text = f"{text} ({wcs.wcs.radesys.strip()})"
        coordinate.set_axislabel(text if wanted else "", fontsize=TICKS + 0.5, minpad=0.6)
        coordinate.set_auto_axislabel(False)


def blank(ax):
    """No coordinates at all, for cut-outs."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(linewidth=0.6, color="0.3")


def title(ax, text, note=""):
    """A title at the left, and a note in small type at the right end of the line."""
    width, _ = size_of(ax)
    letters = max(int((width - 0.065 * len(note)) / 0.074), 6)
    if "$" not in text:  # half a formula is none
        text = textwrap.shorten(text, letters, placeholder="…")
    ax.set_title(text, loc="left", fontsize=9, pad=4)
    if note:
        ax.set_title(note, loc="right", fontsize=7.5, color="0.35", pad=4)


def label(ax, text, x=0.04, y=0.96, **style):
    """Text inside a panel, with an edge that keeps it legible on any image."""
    from matplotlib.patheffects import withStroke

    style = {"color": "white", "fontsize": 8, "va": "top", "ha": "left", "transform": ax.transAxes} | style
    edge = withStroke(linewidth=2.0, foreground="black", alpha=0.8)
    ax.text(x, y, text, path_effects=[edge], clip_on=False, **style)


def scale_bar(ax, shape, pixel_scale):
    """A bar of a round length in arcsec, or pixels."""
    ny, nx = shape
    scale, unit = (pixel_scale, "″") if pixel_scale else (1.0, " px")
    longest = 0.45 * nx * scale
    length = max((v for v in _round_numbers(longest / 100, longest) if v <= longest), default=longest)
    left, y = 0.06 * nx - 0.5, 0.07 * ny - 0.5
    from matplotlib.patheffects import withStroke

    edge = [withStroke(linewidth=3.2, foreground="black", alpha=0.8)]
    ax.plot([left, left + length / scale], [y, y], color="white", lw=1.6, solid_capstyle="butt", path_effects=edge)
    label(ax, f"{length:g}{unit}", left, y + 0.03 * ny, transform=ax.transData, va="bottom")


# ---- colour bars ----------------------------------------------------------------------------------------------------


def colour_bar(ax, mappable, values, text, unit=""):
    """A colour bar at the right of a panel and as high.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
    mappable : `~matplotlib.image.AxesImage`
    values : list of `numpy.ndarray`
        All that is drawn with its scale; pointed ends say that some of it is beyond.
    text : str
        What is shown, as matplotlib reads it.
    unit : str
        As `unit_label` gives it.
    """
    norm = mappable.norm
    finite = [part[np.isfinite(part)] for part in values]
    below, above = (any((part < norm.vmin).any() for part in finite), any((part > norm.vmax).any() for part in finite))
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    width, height = size_of(ax)
    cax = ax.inset_axes((1 + 0.07 / width, 0, 0.11 / width, 1))
    bar = ax.figure.colorbar(mappable, cax=cax, extend=extend[below, above], extendfrac=0.04)
    bar.minorticks_off()
    power = _power(norm)
    ticks = _ticks(norm)
    bar.set_ticks(ticks, labels=numbers(ticks, power))
    # Inside: outside, a tick before a number reads as a minus sign.
    bar.ax.tick_params(labelsize=TICKS, length=3, pad=3, direction="in", color="0.55")
    factor = f"$10^{{{power}}}$" if power else ""
    whole = " ".join(part for part in (factor, unit) if part)
    # A unit stays in one piece: as mathtext it has more letters than it shows.
    lines = textwrap.wrap(text, max(int(height / 0.062), 8))
    shown = "\n".join(lines)
    if whole:
        joint = " " if lines and len(lines[-1]) + _seen(whole) <= height / 0.066 else "\n"
        shown += f"{joint}[{whole}]"
    bar.set_label(shown, fontsize=TICKS, labelpad=3, linespacing=1.1)
    return bar


def _seen(text):
    """About how many letters a unit takes."""
    import re

    return len(re.sub(r"\\[a-z]+|[{}$^_]", "", text)) + 2


def _power(norm):
    """The power of ten that goes into the label, 0 where plain numbers are short."""
    return power_of(max(abs(norm.vmin), abs(norm.vmax)))


def power_of(largest):
    """The power of ten of a number, 0 where plain numbers are short."""
    power = int(np.floor(np.log10(largest))) if largest > 0 else 0
    return power if not -3 <= power <= 3 else 0


def numbers(ticks, power=0):
    """Ticks in units of a power of ten, with the decimals that tell them apart."""
    values = np.asarray(ticks, float) / 10.0**power
    least = np.diff(np.sort(values)).min() if len(values) > 1 else abs(values).max(initial=1)
    digits = next((d for d in range(8) if np.abs(np.round(values, d) - values).max(initial=0) < 1e-3 * least), 8)
    texts = (f"{value:.{digits}f}" for value in np.round(values, digits) + 0.0)  # no minus sign before a zero
    return [(t.rstrip("0").rstrip(".") if "." in t else t).replace("-", "−") for t in texts]


def _ticks(norm):
    """Round values, evenly enough spread over the bar whatever the stretch."""
    from astropy.visualization import LinearStretch

    low, high = float(norm.vmin), float(norm.vmax)
    if isinstance(getattr(norm, "stretch", LinearStretch()), LinearStretch):
        return _linear_ticks(low, high)
    if high < 0 or (low > 0 and high < 5 * low):
        return _linear_ticks(low, high)
    largest = max(abs(low), abs(high))
    # 0 first, then round numbers from the largest down: each is taken that is far enough from those taken.
    positive = sorted(_round_numbers(largest * 1e-4, largest), key=lambda v: (_roundness(v), -v))
    taken = []
    for value in [0.0, *(sign * v for v in positive for sign in (1, -1))]:
        if low <= value <= high:
            place = float(norm(value))
            if all(abs(place - float(norm(other))) > 0.115 for other in taken):
                taken.append(value)
    return sorted(taken) if len(taken) > 2 else _linear_ticks(low, high)


def _linear_ticks(low, high):
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [value for value in values if low <= value <= high]


def _round_numbers(low, high):
    powers = range(int(np.floor(np.log10(low))), int(np.floor(np.log10(high))) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


def _roundness(value):
    """1 goes before 2 and 5."""
    lead = value / 10.0 ** np.floor(np.log10(value) + 1e-9)
    return 0 if abs(lead - 1) < 1e-6 else 1


# ---- words ----------------------------------------------------------------------------------------------------------


def unit_label(unit):
    """A unit as mathtext; empty for none."""
    from astropy import units as u

    if unit is None or unit == u.dimensionless_unscaled:
        return ""
    try:
        return unit.to_string("latex_inline")
    except (ValueError, TypeError, AttributeError):
        return plain(unit)


def flux_label(bands, k, unit):
    """What the pixels of a band hold."""
    from astropy import units as u

    if unit is None or unit == u.dimensionless_unscaled:
        what = "pixel value" if unit is None else "pixel value (dimensionless)"
    else:
        angles = sum(power for base, power in zip(*_bases(unit), strict=True) if base == u.rad)
        what = "surface brightness" if angles < 0 else "flux per pixel"
    named = len(bands) > 1 or not bands[k].isdigit()
    return f"{plain(bands[k])}: {what}" if named else what


def _bases(unit):
    plain_unit = unit.decompose() if hasattr(unit, "decompose") else unit
    return getattr(plain_unit, "bases", []), getattr(plain_unit, "powers", [])
