"""The pipeline of Usaid, Ahmed & Jamal (2019, Figures 19 to 25): blend two galaxies, segment, complete with the GAN."""

from __future__ import annotations

import numbers
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from astrogan.exceptions import ImageWriteError, InputError, MissingDependencyError

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["Usaid2019Result", "run_pipeline"]

_SIZE = 64

# The middle part of a stamp that becomes the network's picture: 256 of 424 pixels.
_PART = 256 / 424

# Flux of a typical galaxy's peak and of the sky, for images that are linear: as in stamps of Galaxy Zoo.
_PEAK, _SKY = 2.9, -0.08

_STEPS = ("preblended_1", "preblended_2", "blended", "segmented_1", "segmented_2", "deblended_1", "deblended_2")
_FIGURE, _TABLE = "usaid2019.png", "usaid2019.ecsv"


@dataclass(frozen=True)
class Usaid2019Result:
    """What the pipeline made.

    Parameters
    ----------
    images : dict of str to `numpy.ndarray`
        The steps, (3, y, x) in [0, 1] but for noise: ``preblended_1`` to ``deblended_2``, in the paper's order. The
        first five have the pictures' own pixels, the last two 64 x 64 pixels of their middle part.
    table : `~astropy.table.Table`
        A row a galaxy and method: ``psnr`` and ``psnr_hidden`` (dB; all pixels, the hidden ones) and ``ssim`` against
        the galaxy before it was blended, at 64 pixels.
    files : list of `~pathlib.Path`
        All that was written, in order.
    figure : `~pathlib.Path`
        The PNG.
    """

    images: dict[str, np.ndarray]
    table: Table
    files: list[Path] = field(default_factory=list)
    figure: Path | None = None


def run_pipeline(
    first=None,
    second=None,
    out="astrogan-usaid2019",
    *,
    rule="mean",
    shift=50,
    noise=0.03,
    weights="auto",
    completion="encoder",
    steps=200,
    device="auto",
    seed=0,
    overwrite=False,
    progress=None,
):
    """Blend two galaxies, take them apart by the inverse rule, complete both halves, and compare with the truth.

    Parameters
    ----------
    first, second : path or array_like, optional
        Colour pictures of one galaxy in the middle: JPEG, PNG, TIFF; FITS with three bands, linear in flux (red
        first), which are stretched; or arrays, (3, y, x) or (y, x, 3), uint8 or from 0 to 1. Where their sizes differ,
        the middle parts are taken. Default: two simulated galaxies, a spiral and an elliptical.
    out : path, optional
        Folder for the results; made where it does not exist.
    rule : {'mean', 'maximum'}, optional
        See `~astrogan.simulate.paper_blends.paper_blend`.
    shift : int, optional
        Pixels by which the second galaxy is moved to the right; 50 in the paper.
    noise : float, optional
        Standard deviation of the Gaussian noise on the segmented pictures; not given in the paper.
    weights : str or path, optional
        See `~astrogan.backends.gan.usaid2019.Usaid2019`.
    completion : {'encoder', 'inversion'}, optional
        See there.
    steps : int, optional
        Of the inversion.
    device : str, optional
        "auto" (CUDA where there is one, else the CPU) or a device of torch.
    seed : int, optional
        Of the noise and of the inversion.
    overwrite : bool, optional
        Replace files of an earlier run.
    progress : callable, optional
        ``progress(text)``, called as each step begins.

    Returns
    -------
    `Usaid2019Result`

    Raises
    ------
    InputError
        If an argument cannot be used, or the weights are for another backend.
    ImageReadError
        If a picture cannot be read.
    ImageWriteError
        If a file exists and ``overwrite`` is not set; nothing is computed or written then.
    CheckpointError
        If the weights are damaged.
    MissingDependencyError
        If matplotlib is not installed.
    """
    if (first is None) != (second is None):
        raise InputError("first and second go together: give two pictures, or none for simulated galaxies")
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise InputError(f"seed={seed!r} must be a non-negative integer")
    from astrogan.backends.gan.usaid2019 import Usaid2019

    _require_matplotlib()
    say = progress or (lambda text: None)
    backend = Usaid2019(weights, completion=completion, steps=steps, device=device)
    folder = _folder(out, overwrite)
    say("reading the galaxies" if first is not None else "simulating two galaxies")
    pictures = _pair(first, second) if first is not None else _simulated_pair()
    say("blending and segmenting")
    job = _Job(*pictures, rule=rule, shift=shift, noise=noise, seed=int(seed))
    say(f"completing with the GAN ({completion})")
    made = backend.complete(job.seen, job.masks, rng=np.random.default_rng((int(seed), 1)))
    images = job.images | {f"deblended_{k + 1}": picture for k, picture in enumerate(made)}
    images = {name: images[name].astype(np.float32) for name in _STEPS}
    table = _table(job, made)
    say("writing")
    files = _written(folder, images, table, overwrite)
    return Usaid2019Result(images, table, files, folder / _FIGURE)


# ---- the pictures ---------------------------------------------------------------------------------------------------


def _pair(first, second):
    pictures = [_picture(value, name) for value, name in ((first, "first"), (second, "second"))]
    height, width = (min(p.shape[axis] for p in pictures) for axis in (1, 2))
    if min(height, width) < _SIZE:
        raise InputError(f"first and second have {height} x {width} pixels in common; at least {_SIZE} are needed")
    return [_middle(picture, height, width) for picture in pictures]


def _picture(value, name):
    """(3, y, x) float32 in [0, 1]."""
    if isinstance(value, str | Path):
        return _from_file(value, name)
    array = np.asarray(value)
    if array.ndim == 3 and array.shape[-1] == 3 and array.shape[0] != 3:
        array = np.moveaxis(array, -1, 0)
    if array.ndim != 3 or len(array) != 3 or array.dtype.kind not in "uif":
        raise InputError(f"{name} has shape {array.shape}; it must be (3, y, x) or (y, x, 3), uint8 or 0 to 1")
    picture = array.astype(np.float32) / np.float32(255 if array.dtype == np.uint8 else 1)
    if not (np.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 1):
        raise InputError(f"{name} has values that are not from 0 to 1; give uint8, or floats in [0, 1]")
    return picture


def _from_file(path, name):
    from astrogan.image.read import read_image

    image = read_image(path, unit="")
    data = np.asarray(image.data, np.float32)
    if data.ndim != 3 or len(data) not in (3, 4):
        raise InputError(f"{name}={str(path)!r} has shape {data.shape}; give a colour picture of three bands")
    data = data[:3]
    if image.meta.get("AGLINEAR", True):
        return _stretched(np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0))
    top = max(float(data.max()), 1.0)
    return np.clip(data / (255 if top <= 255 else 65535), 0, 1)


def _stretched(flux):
    """Linear flux as stamps of Galaxy Zoo show it: bands in units of their noise, peak at 2.9, sky at -0.08."""
    from astrogan.image.stretch import GalaxyGAN2017Stretch

    flux = flux.astype(np.float64)
    sky = np.median(flux, axis=(1, 2), keepdims=True)
    noise = 1.4826 * np.median(np.abs(flux - sky), axis=(1, 2), keepdims=True)
    flux = (flux - sky) / np.where(noise > 0, noise, 1.0)
    height, width = flux.shape[1:]
    peak = flux[:, height // 4 : -(height // 4), width // 4 : -(width // 4)].max()
    flux = flux * (_PEAK - _SKY) / (peak if peak > 0 else 1.0) + _SKY
    return np.clip(GalaxyGAN2017Stretch().forward(flux), 0, 1).astype(np.float32)


def _simulated_pair(size=424):
    """A spiral and an elliptical galaxy of Galaxy Zoo's size and colours, with the noise of its stamps."""
    from astrogan.image.stretch import GalaxyGAN2017Stretch

    rng = np.random.default_rng(2019)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius, angle = _ellipse(x, y, ratio=0.75, turn=0.5)
    arms = 1 + 0.8 * np.cos(2 * angle - 5 * np.log1p(radius / 6)) * np.clip(radius / 25, 0, 1)
    spiral = np.multiply.outer((0.9, 0.8, 0.65), np.exp(-radius / 24) * arms)
    spiral += np.multiply.outer((1.6, 1.1, 0.5), np.exp(-radius / 6))
    radius, _ = _ellipse(x, y, ratio=0.65, turn=-0.9)
    elliptical = np.multiply.outer((2.9, 1.9, 0.9), np.exp(-2.6 * ((radius / 16 + 0.02) ** 0.5)))
    pair = []
    for flux in (spiral, 2.2 * elliptical):
        noisy = flux + _SKY + rng.normal(0, 0.014, flux.shape)
        pair.append(np.clip(GalaxyGAN2017Stretch().forward(noisy), 0, 1).astype(np.float32))
    return pair


def _ellipse(x, y, ratio, turn):
    along, across = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / ratio
    return np.hypot(along, across), np.arctan2(across, along)


def _middle(picture, height, width):
    y, x = (picture.shape[1] - height) // 2, (picture.shape[2] - width) // 2
    return picture[:, y : y + height, x : x + width]


# ---- blend, segment, complete ---------------------------------------------------------------------------------------


class _Job:
    """Two galaxies blended and segmented: full pictures for the figure, small ones for the network."""

    def __init__(self, first, second, *, rule, shift, noise, seed):
        from astrogan.simulate.paper_blends import add_noise, paper_blend, paper_segments

        blended = paper_blend(first, second, shift=shift, rule=rule)
        masks = paper_segments(blended, first, second, rule=rule, shift=shift)
        rng = np.random.default_rng(seed)
        cut = [add_noise(blended * mask, noise, rng, clip=False) for mask in masks]
        self.images = {"preblended_1": first, "preblended_2": second, "blended": blended}
        self.images |= {"segmented_1": cut[0], "segmented_2": cut[1]}
        # The network knows galaxies in the middle only: the second goes back there.
        edge = min(max(_SIZE, round(_PART * min(first.shape[1:]))), *first.shape[1:])
        places = ((0, 0), (0, int(shift)))
        self.truth = [_shrunk(_part(picture, edge))[0] for picture in (first, second)]
        known = [_known(mask) for mask in masks]
        self.masks, self.seen = [], []
        for picture, mask, place in zip((blended, blended), known, places, strict=True):
            small, small_mask = _shrunk(_part(picture, edge, place), _part(mask[None], edge, place)[0])
            self.masks.append(small_mask)
            self.seen.append(add_noise(small, noise, rng, clip=False))


def _known(mask):
    """(y, x) from a mask a band: a pixel is the galaxy's where most of its bands are."""
    return (np.sum(mask, axis=0) > len(mask) / 2).astype(np.float32)


def _part(picture, edge, place=(0, 0)):
    """A square around the middle moved by ``place`` (y, x), zero beyond the picture."""
    height, width = picture.shape[1:]
    out = np.zeros((len(picture), edge, edge), picture.dtype)
    y, x = (height - edge) // 2 + place[0], (width - edge) // 2 + place[1]
    inside = tuple(slice(max(a, 0), max(min(a + edge, n), 0)) for a, n in ((y, height), (x, width)))
    there = tuple(slice(s.start - a, max(s.stop - a, s.start - a)) for s, a in zip(inside, (y, x), strict=True))
    out[:, *there] = picture[:, *inside]
    return out


def _shrunk(picture, known=None):
    """Means over areas, 64 x 64 pixels, of the known pixels alone; and where most of the area is known."""
    import torch

    def area(array):
        tensor = torch.from_numpy(np.ascontiguousarray(array, np.float32))
        return torch.nn.functional.adaptive_avg_pool2d(tensor, _SIZE).numpy()

    if known is None:
        return area(picture), np.ones((_SIZE, _SIZE), bool)
    part = area(known[None])
    mask = part > 0.5
    return np.divide(area(picture * known), part, out=np.zeros((3, _SIZE, _SIZE), np.float32), where=mask), mask[0]


# ---- results --------------------------------------------------------------------------------------------------------


def _table(job, made):
    from astropy.table import Table

    from astrogan.metrics import psnr, ssim

    rows = []
    for number, (truth, seen, mask, picture) in enumerate(zip(job.truth, job.seen, job.masks, made, strict=True), 1):
        level = (seen * mask).sum((1, 2)) / max(mask.sum(), 1)
        filled = np.where(mask, seen, level[:, None, None])
        kept = np.where(mask, seen, picture)
        methods = {"segmented": seen, "mean fill": filled, "deblended": picture, "deblended + known": kept}
        known = np.broadcast_to(mask, truth.shape)
        for name, image in methods.items():
            hidden = np.nan if mask.all() else psnr(truth, image, data_range=1.0, mask=known)
            whole = psnr(truth, image, data_range=1.0), hidden, ssim(truth, image, data_range=1.0)
            rows.append((number, name, *map(float, whole)))
    table = Table(rows=rows, names=("galaxy", "method", "psnr", "psnr_hidden", "ssim"))
    for name, spec in (("psnr", ".2f"), ("psnr_hidden", ".2f"), ("ssim", ".4f")):
        table[name].info.format = spec
    table["psnr"].unit = table["psnr_hidden"].unit = "dB"
    table.meta["caption"] = (
        "Against the galaxy before it was blended, pictures of 64 x 64 pixels in [0, 1]: PSNR over all pixels and over "
        "the hidden ones, SSIM; mean fill puts the mean of the known pixels into the hidden ones."
    )
    return table


def _folder(out, overwrite):
    folder = Path(out)
    names = [*(f"{step}.fits" for step in _STEPS), _TABLE, _FIGURE]
    existing = [name for name in names if (folder / name).exists()]
    if existing and not overwrite:
        raise ImageWriteError(
            f"{folder} already holds {existing[0]}; set overwrite=True (--overwrite), or name another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageWriteError(f"out={str(folder)!r} cannot be made: {error}") from error
    return folder


def _written(folder, images, table, overwrite):
    from astropy.nddata import CCDData

    from astrogan.image.write import atomic_path, write_image, write_table

    files = [folder / f"{step}.fits" for step in _STEPS] + [folder / _TABLE, folder / _FIGURE]
    for step, path in zip(_STEPS, files, strict=False):
        meta = {"OBJECT": step.replace("_", " "), "AGLINEAR": False}
        write_image(CCDData(images[step], unit="", meta=meta), path, overwrite=overwrite)
    write_table(table, folder / _TABLE, overwrite=overwrite)
    with atomic_path(folder / _FIGURE, overwrite=overwrite) as temporary:
        _draw(images, table, temporary)
    return files


def _require_matplotlib():
    try:
        import matplotlib  # noqa: F401 - found here, before any work is done
    except ImportError as error:
        raise MissingDependencyError(
            "the pipeline's figure needs matplotlib: run `pip install 'astrogan[plot]'` (or `pip install matplotlib`)"
        ) from error


def _draw(images, table, path):
    """The seven panels, in the order of the paper's Figures 19 to 25."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    rows = (_STEPS[:3], _STEPS[3:])
    psnr = {f"deblended_{r['galaxy']}": r["psnr"] for r in table if r["method"] == "deblended"}
    for row, names in enumerate(rows):
        for column, name in enumerate(names):
            axes = figure.add_subplot(2, 4, 4 * row + column + 1)
            axes.imshow(np.clip(np.moveaxis(images[name], 0, -1), 0, 1), interpolation="nearest")
            note = f"\n{psnr[name]:.1f} dB" if name in psnr else ""
            axes.set_title(name.replace("_", " ") + note, fontsize=9)
            axes.set_axis_off()
    figure.savefig(path, format="png", metadata={"Software": None})
