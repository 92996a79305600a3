"""The part ``paper`` of the deblending benchmark: the two GAN papers' own blends of stretched pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from astrogan.bench._deblending_grid import in_processes
from astrogan.bench._deblending_rows import deblend, operator
from astrogan.bench._deblending_sets import Scene
from astrogan.bench._linear_common import as_table
from astrogan.exceptions import AstroganError, InputError

__all__ = ["RULES", "paper_pair", "paper_sheet", "paper_tables", "separated"]

RULES = ("branched", "usaid2019")
_CROP, _FACTOR = 240, 3
_SHIFT = 17  # 50 pixels of the pictures
_FWHM = 2.0  # of the PSF that classic methods are told, in pixels of 80
_PUBLISHED = {"psnr": 34.61, "ssim": 0.92}
_ENDINGS = ("", "_part", "_removed")
_REACH = 18  # the second galaxy is not further off along an axis


def paper_tables(rows, data, *, pairs=300, seed=0, jobs=1, progress=None):
    """PSNR and SSIM of both galaxies of blends by the two papers' rules.

    Parameters
    ----------
    rows : list of Row
    data : path
        Folder of the real images.
    pairs : int
        Blends by each rule.
    seed : int
        Which pictures are paired, and how.
    jobs : int
        Processes.
    progress : callable, optional
        Called with a line of text.

    Returns
    -------
    table : `~astropy.table.Table`
    sheet : tuple
        For `paper_sheet`.
    """
    rows = [row for row in rows if not row.needs_truth]
    work = ((rows, data, k, seed, rule) for rule in RULES for k in range(pairs))
    lines, errors = [], {}
    for done, (own, failed) in enumerate(in_processes(_measure_pair, work, jobs), 1):
        lines += own
        errors |= failed
        if progress is not None and done % max(1, pairs // 4) == 0:
            progress(f"{done}/{2 * pairs}  pairs of pictures")
    summary = [_summary(rule, name, lines) for rule in RULES for name in dict.fromkeys(x["row"] for x in lines)]
    published = {"rule": RULES[0], "row": "branched GAN as published (Reiman & Gohre 2019)"} | _PUBLISHED
    names = list(summary[0])
    order = [s for s in (*summary, published) if s["rule"] == RULES[0]] + [s for s in summary if s["rule"] != RULES[0]]
    formats = {name: ".4f" if "ssim" in name else ".2f" for name in names} | {"pairs": ".0f"}
    table = as_table([dict.fromkeys(names, np.nan) | line for line in order], _CAPTION, formats)
    table.meta["errors"] = {name: str(why) for name, why in errors.items()}
    examples = [paper_pair(data, k, seed, RULES[0]) for k in range(min(4, pairs))]
    made = [_made(rows, *pair)[0] for pair in examples]
    return table, (examples, made)


_CAPTION = (
    "Galaxy Zoo pictures of the test part of the split, in [0, 1] (data range 1), 240 pixels made 80. branched: the "
    "second turned, scaled and moved, the brighter kept in each colour (Reiman & Gohre 2019). usaid2019: the second "
    "moved right by 17 pixels (50 before), the pixel with the larger mean kept (Usaid et al. 2019). psnr, ssim: mean "
    "over pairs and over both galaxies, each as it lies in the blend; _1: the central one, _2: the other. identity: "
    "the blend itself. branched-gan: its two branches. usaid2019: its completion of both segments, cut by the inverse "
    "of the blend's rule, the truth being known, each in the middle of 64 pixels. The others get the linear flux of "
    "the inverse stretch less the sky, "
    "true centres and a Gaussian PSF of 2 pixels; their templates (no ending), their parts of the image (_part) and "
    "the image less the other's part (_removed: with the sky and what else there is, as the truth has them) go back "
    "through the stretch. Such blends do not add up, so methods that conserve light cannot be exact here. The "
    "published figures are of other galaxies, and stand as printed."
)


def _pictures(data):
    from astrogan.train.sources import StampTar
    from astrogan.train.split import part_of

    source = StampTar(Path(data) / "galaxyzoo_kaggle" / "images.tar", size=None)
    chosen = [i for i in range(len(source)) if part_of(source.name(i)) == "test"]
    if len(chosen) < 2:
        raise InputError(f"data={str(data)!r} has fewer than two Galaxy Zoo pictures in the test part")
    return source, chosen


def paper_pair(data, k, seed, rule):
    """The k-th blend.

    Parameters
    ----------
    data : path
    k, seed : int
    rule : str
        Of `RULES`.

    Returns
    -------
    blended, first, second : `numpy.ndarray`
        (3, 80, 80) in [0, 1].
    masks : tuple of `numpy.ndarray`
        Of bool, (80, 80): the pixels of each galaxy.
    """
    from astrogan.image.stretch import GalaxyGAN2017Stretch
    from astrogan.simulate.blends import branched_blend, paper_blend

    source, chosen = _cached_pictures(str(data))
    rng = np.random.default_rng([seed, k])
    i = k % len(chosen)
    j = (i + int(rng.integers(1, len(chosen)))) % len(chosen)
    one, two = (GalaxyGAN2017Stretch().forward(source.load(chosen[n]).data) for n in (i, j))
    if rule == "branched":
        blended, first, second = branched_blend(one, two, rng)
    else:
        first, second = _small(one), _small(two)
        blended = paper_blend(first, second, shift=_SHIFT, rule="mean")
        second = np.concatenate([np.zeros_like(second[:, :, :_SHIFT]), second[:, :, :-_SHIFT]], axis=2)
    own = first.mean(axis=0) >= second.mean(axis=0)
    return blended, first, second, (own, ~own)


_SOURCES: dict = {}


def _cached_pictures(data):
    """Looked through once a process."""
    if data not in _SOURCES:
        _SOURCES[data] = _pictures(data)
    return _SOURCES[data]


def _small(picture):
    y, x = ((n - _CROP) // 2 for n in picture.shape[1:])
    size = _CROP // _FACTOR
    middle = picture[:, y : y + _CROP, x : x + _CROP]
    return middle.reshape(3, size, _FACTOR, size, _FACTOR).mean(axis=(2, 4)).astype(np.float32)


# ---- a pair through the rows ----------------------------------------------------------------------------------------


def _measure_pair(rows, data, k, seed, rule):
    pair = paper_pair(data, k, seed, rule)
    made, errors = _made(rows, *pair)
    return [{"rule": rule, "row": name} | _scores(pair[1:3], images) for name, images in made.items()], errors


def _made(rows, blended, first, second, masks):
    """{row: what `separated` gives}, and what failed."""
    made, errors = {"identity": {"": (blended, blended)}}, {}
    for row in rows:
        try:
            made[row.name] = separated(row, blended, second, masks)
        except AstroganError as error:
            errors[row.name] = " ".join(str(error).split())
    return made, errors


def separated(row, blended, second, masks):
    """Both galaxies of a stretched blend by a row.

    Parameters
    ----------
    row : Row
    blended : `numpy.ndarray`
        (3, y, x) in [0, 1].
    second : `numpy.ndarray`
        The true second galaxy, from which its centre is taken.
    masks : tuple of `numpy.ndarray`
        Each one's pixels, for a method that is given them.

    Returns
    -------
    dict of str to tuple of `numpy.ndarray`
        Pictures of both in [0, 1]: ``""``, the method's own, and, of one that divides light, ``"_part"``, parts of the
        image, and ``"_removed"``, the image less the other's part.
    """
    backend = operator(row).backend
    if hasattr(backend, "pictures"):
        return {"": tuple(image[0] for image in backend.pictures(blended[np.newaxis]))}
    if hasattr(backend, "complete"):
        middle = (blended.shape[2] - 1) / 2, (blended.shape[1] - 1) / 2
        pairs = zip(masks, (middle, _centre(second)), strict=True)
        return {"": tuple(_completed(backend, blended, mask, centre) for mask, centre in pairs)}
    scene, sky = _linear(blended, second)
    found = deblend(row, scene, scene.positions)
    removed = scene.data - found.sources[::-1]
    return {
        "": _levels(found.models, sky), "_part": _levels(found.sources, sky), "_removed": _levels(removed, sky)
    }  # fmt: skip


_COMPLETED = 64  # pixels along an edge of what the DCGAN sees


def _completed(backend, blended, mask, centre):
    """A segment, moved to the middle and resampled as the DCGAN was trained, completed, and brought back."""
    from skimage.transform import resize

    edge = blended.shape[-1]
    steps = [round((edge - 1) / 2 - at) for at in centre[::-1]]
    planes = _moved(np.concatenate([blended * mask, mask[np.newaxis]]).astype(np.float64), steps)
    small = np.stack([resize(plane, (_COMPLETED, _COMPLETED), order=1, anti_aliasing=True) for plane in planes])
    made = backend.complete(small[np.newaxis, :-1], small[np.newaxis, -1] > 0.5)[0]
    large = np.stack([resize(plane, (edge, edge), order=1) for plane in made])
    return _moved(large, [-step for step in steps])


def _moved(planes, steps):
    """Planes moved by whole pixels along y and x; what comes in from outside is 0."""
    out = np.zeros_like(planes)
    to, origin = ([], [])
    for step, size in zip(steps, planes.shape[1:], strict=True):
        to.append(slice(max(step, 0), size + min(step, 0)))
        origin.append(slice(max(-step, 0), size + min(-step, 0)))
    out[:, *to] = planes[:, *origin]
    return out


def _linear(blended, second):
    """A picture as linear flux less its sky, from blue to red, and the sky."""
    from astrogan.image.stretch import GalaxyGAN2017Stretch
    from astrogan.image.uncertainty import background_rms

    flux = GalaxyGAN2017Stretch().inverse(blended.astype(np.float64))[::-1]
    maps = [background_rms(plane) for plane in flux]
    sky = np.array([np.median(background) for background, _ in maps])[:, None, None]
    # Where the picture is black its sky has no noise at all: an eighth of a level is the least.
    variance = np.stack([np.full(flux.shape[1:], max(np.median(rms), 2e-4) ** 2) for _, rms in maps])
    positions = np.array([((blended.shape[2] - 1) / 2, (blended.shape[1] - 1) / 2), _centre(second)])
    if np.hypot(*(positions[1] - positions[0])) < 1:
        positions[1] += 1
    return Scene("pair", flux - sky, variance, _psf(), positions, None, None, ("g", "r", "i")), sky


def _psf():
    from astrogan.image.psf import gaussian_psf

    return np.stack([gaussian_psf(_FWHM)] * 3)


def _centre(picture):
    """(x, y) of the brightest place near the middle."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(picture.mean(axis=0), 2.0)
    y0, x0 = (max(0, n // 2 - _REACH) for n in smooth.shape)
    part = smooth[y0 : y0 + 2 * _REACH + 1, x0 : x0 + 2 * _REACH + 1]
    y, x = np.unravel_index(part.argmax(), part.shape)
    return float(x0 + x), float(y0 + y)


def _levels(cubes, sky):
    """Sources in linear flux, on a sky, as pictures."""
    from astrogan.image.stretch import GalaxyGAN2017Stretch

    return tuple(np.clip(GalaxyGAN2017Stretch().forward(cube + sky), 0, 1)[::-1] for cube in cubes)


def _scores(truth, images):
    from astrogan.metrics import psnr, ssim

    scores = {}
    for ending in _ENDINGS:
        for number in (1, 2):
            for name, metric in (("psnr", psnr), ("ssim", ssim)):
                there = ending in images
                value = metric(truth[number - 1], images[ending][number - 1], data_range=1.0) if there else np.nan
                scores[f"{name}{ending}_{number}"] = value
    return scores


def _summary(rule, name, lines):
    own = [line for line in lines if line["rule"] == rule and line["row"] == name]
    means = {key: float(np.mean([line[key] for line in own])) for key in own[0] if key not in ("rule", "row")}
    both = {
        f"{metric}{ending}": (means[f"{metric}{ending}_1"] + means[f"{metric}{ending}_2"]) / 2
        for metric in ("psnr", "ssim")
        for ending in _ENDINGS
    }
    return {"rule": rule, "row": name, "pairs": float(len(own))} | both | means


def paper_sheet(path, examples, made):
    """Blend, truth and what each row made of it.

    Parameters
    ----------
    path : path
        Of the PNG.
    examples : list
        Of `paper_pair`.
    made : list of dict
        {row: what `separated` gives} of each; of rows that divide light the image less the other's part is shown.
    """
    from astrogan.bench._deblending_figure import draw_pictures
    from astrogan.metrics import psnr

    lines = []
    for (blended, first, second, _), images in zip(examples, made, strict=True):
        for number, truth in enumerate((first, second)):
            shown = {"blend": (blended, None), "truth": (truth, None)}
            for name, kinds in images.items():
                picture = kinds.get("_removed", kinds[""])[number]
                if name != "identity":
                    shown[name] = (picture, psnr(truth, picture, data_range=1.0))
            lines.append(shown)
    draw_pictures(path, lines)
