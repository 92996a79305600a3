"""What a card says of a network: its ranges, how its errors are calibrated, and its figures beside baselines."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections import Counter

import numpy as np
import torch

from astrogan.exceptions import InputError
from astrogan.nn.losses import psnr_loss, stretched_2017
from astrogan.train.restoration import in_sigma, restore
from astrogan.train.sources import Source, Watched
from astrogan.train.stream import PairStream

__all__ = ["check_scored", "evaluation", "score_test_part"]

_SCORED = ("restoration", "galaxygan2017")  # tasks whose batches are pairs of a degraded image and its original

# (FWHM in pixels, noise ratio): four cells of the paper's grid at 0.396 arcsec per pixel.
_CELLS = ((1.4 / 0.396, 1.0), (1.8 / 0.396, 2.0), (2.2 / 0.396, 5.0), (2.5 / 0.396, 10.0))


@contextlib.contextmanager
def evaluating(module):
    """A module in evaluation mode: in training mode, looking at images changes the statistics of normalisations.

    Parameters
    ----------
    module : `torch.nn.Module`
        In the mode it was in before, afterwards.
    """
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)


def evaluation(module, recipe, stream):
    """Measure a trained network on the images of the validation part.

    Parameters
    ----------
    module : Lightning module
        `~astrogan.train.restoration.RestorationModule` or `~astrogan.train.galaxygan.GalaxyGANModule`.
    recipe : `~astrogan.train.recipe.Recipe`
    stream : `~astrogan.train.stream.PairStream`
        Of the validation part.

    Returns
    -------
    dict
        ``ranges``, ``calibration`` and ``metrics``, as the card has them.
    """
    images = min(recipe.validation_images, len(stream.source))
    batches = max(1, -(-images // recipe.batch))
    calibrated = recipe.task == "restoration"
    with evaluating(module):
        return {
            "ranges": _ranges(recipe, stream, batches),
            "calibration": _calibration(module, stream, images) if calibrated else None,
            "metrics": [_row(module, recipe, stream, cell, batches) for cell in _cells(recipe)],
        }


def check_scored(recipe):
    """Refuse recipes whose networks `score_test_part` cannot measure.

    Parameters
    ----------
    recipe : `~astrogan.train.recipe.Recipe`

    Raises
    ------
    InputError
        If its task is another than restoration.
    """
    if recipe.task not in _SCORED:
        raise InputError(
            f"recipe {recipe.name!r} has task={recipe.task!r}, whose results have no PSNR on a test part; cross "
            f"validation (--folds) is for the tasks {', '.join(_SCORED)}: train this one without folds"
        )


def score_test_part(weights, recipe, data, *, images=0):
    """PSNR of trained weights on the test part of a recipe's split, averaged over its degradations.

    Parameters
    ----------
    weights : `~astrogan.weights.Weights`
    recipe : `~astrogan.train.recipe.Recipe`
    data : path
        The folder below which the recipe's files lie.
    images : int
        So many at most (0: all).

    Returns
    -------
    dict
        ``images``, ``psnr``, ``psnr_identity`` and ``psnr_gaussian``.

    Raises
    ------
    InputError
        As `check_scored`, or if no image belongs to the test part.
    """
    from astrogan.train._fit import take
    from astrogan.train._loop import network_module
    from astrogan.train.sources import open_sources
    from astrogan.train.stream import Degradation

    check_scored(recipe)
    opened = open_sources(recipe.data, data, max_damaged=recipe.max_damaged)
    source = Watched(take(opened, recipe, "test"), recipe.max_damaged)
    module = network_module(recipe)
    module.exported.load_state_dict(weights.tensors)
    number = min(len(source), images or len(source))
    # One by one, so that each is seen once, whatever their number.
    stream = PairStream(
        source, Degradation(**recipe.degradation), batch=1, crop=recipe.crop, seed=recipe.seed,
        jitter=False, augment=False,
    )  # fmt: skip
    with evaluating(module):
        rows = [_row(module, recipe, stream, cell, number) for cell in _cells(recipe)]
    names = ("psnr", "psnr_identity", "psnr_gaussian")
    return {"images": number} | {n: float(np.mean([row[n] for row in rows])) for n in names}


def remeasure(weights, data, row):
    """Measure a row of a card's metrics again.

    Parameters
    ----------
    weights : `~astrogan.weights.Weights`
        With a card that holds its recipe.
    data : path
        The folder below which the recipe's files lie.
    row : int
        Which row.

    Returns
    -------
    dict
        As in the card.
    """
    from astrogan.train._loop import prepare
    from astrogan.train.recipe import parse_recipe

    recipe = parse_recipe(weights.card["recipe"], weights.name)
    job = prepare(recipe, data)
    job.module.exported.load_state_dict(weights.tensors)
    batches = max(1, -(-min(recipe.validation_images, len(job.validation.source)) // recipe.batch))
    return _row(job.module, recipe, job.validation, _cells(recipe)[row], batches)


def _batches(stream, number, device):
    for step in range(number):
        yield {key: torch.from_numpy(value).to(device) for key, value in stream.batch(step).items()}


def _ranges(recipe, stream, batches):
    """What the training saw: FWHM in pixels, and the brightest pixel in units of the noise."""
    fwhm, ratio = stream.degradation.fwhm, stream.degradation.noise_ratio
    streams = [stream]
    if stream.degradation.kind == "galaxygan2017":
        # Little noise is drawn too seldom for a few validation images to show how bright images may be.
        streams.append(_fixed(stream, (sum(fwhm) / 2, ratio[0])))
    peaks = []
    for each in streams:
        for batch in _batches(each, batches, "cpu"):
            peaks.append(float(in_sigma(batch["degraded"], batch).max()))
    # Blank sky is part of the training, so there is no lower end.
    return {"fwhm": [float(fwhm[0]), float(fwhm[1])], "peak_snr": [0.0, max(peaks)]}


def _fixed(stream, cell):
    """The same images as a stream's, all degraded alike."""
    return PairStream(
        stream.source, stream.degradation, batch=stream.size, crop=stream.crop, seed=stream.seed + 7,
        jitter=False, augment=False, fixed=cell,
    )  # fmt: skip


@torch.no_grad()
def _calibration(module, stream, number):
    """The factors by which the predicted width becomes the 68.27 and 95.45 per cent interval of the error.

    The coverages are those of each half of the objects with factors from the other: nothing is scored on what it was
    tuned with, nor on another image of the same object.
    """
    ratios, names = _error_ratios(module, stream, number)
    scale, scale95 = _factors(ratios)
    return {"scale": scale, "scale95": scale95} | _coverages(ratios, _halves(names))


def _coverages(ratios, half):
    if not half.any():
        return {"coverage68": None, "coverage95": None, "note": "one object only: none is left to test the factors"}
    inside = np.empty((2, *ratios.shape), bool)
    for k in (0, 1):
        for level, factor in enumerate(_factors(ratios[half != k])):
            inside[level, half == k] = ratios[half == k] <= factor
    return {"coverage68": float(inside[0].mean()), "coverage95": float(inside[1].mean())}


def _factors(ratios):
    return tuple(float(np.quantile(ratios, part)) for part in (0.6827, 0.9545))


def _error_ratios(module, stream, number):
    """Errors over their predicted widths, a row an image, and the names of the images' objects."""
    source, noting = _noting(stream.source)
    # One by one, so that none comes twice at the end, and it is known which image each row is of.
    single = PairStream(
        source, stream.degradation, batch=1, crop=stream.crop, seed=stream.seed, jitter=False, augment=False
    )
    rows = {}
    for batch in _batches(single, number, module.device):
        if noting.last in rows:  # it takes the place of one that cannot be used
            continue
        mean, spread = restore(module.average, batch)
        ratio = (mean - in_sigma(batch["original"], batch)).abs() / spread.clamp(min=1e-6)
        rows[noting.last] = ratio.flatten()[::7].double().cpu().numpy()
    return np.stack(list(rows.values())), [source.name(i) for i in rows]


def _noting(source):
    """The source as it was, and within it the one that knows which image was used: damaged ones are replaced."""
    if not isinstance(source, Watched):
        noting = _Noting(source)
        return noting, noting
    watched = copy.copy(source)  # with the list of those that are known to be damaged
    watched.source = noting = _Noting(source.source)
    return watched, noting


class _Noting(Source):
    """Another source's images, and the number of the last one that was asked for."""

    def __init__(self, source):
        self.source, self.bands, self.last = source, source.bands, None

    def __len__(self):
        return len(self.source)

    def name(self, i):
        return self.source.name(i)

    def load(self, i):
        self.last = int(i)
        return self.source.load(i)

    def describe(self):
        return self.source.describe()


def _halves(names):
    """The half, 0 or 1, that each image is in: all of an object in one, by its name, and the halves about as large."""
    counts, sizes, half = Counter(names), [0, 0], {}
    for name in sorted(counts, key=lambda name: hashlib.sha256(f"calibration:{name}".encode()).digest()):
        half[name] = int(sizes[1] < sizes[0])
        sizes[half[name]] += counts[name]
    return np.array([half[name] for name in names])


def _cells(recipe):
    """Degradations at which a recipe's network is measured: its own, where it knows one only."""
    fwhm, ratio = recipe.degradation.get("fwhm"), recipe.degradation.get("noise_ratio")
    if fwhm and ratio and fwhm[0] == fwhm[1] and ratio[0] == ratio[1]:
        return ((fwhm[0], ratio[0]),)
    if recipe.degradation.get("kind", "galaxygan2017") == "galaxygan2017":
        return _CELLS
    low, high = recipe.degradation.get("fwhm", (1.5, 7.0))
    return tuple((low + f * (high - low), ratio) for f, ratio in ((0.2, 1.5), (0.4, 3.0), (0.6, 6.0), (0.8, 12.0)))


@torch.no_grad()
def _row(module, recipe, stream, cell, batches):
    """PSNR of a cell: the network, the image as it is, and Gaussian smoothing with the width that the truth prefers."""
    fixed = _fixed(stream, cell)
    scores, smoothed = {"network": [], "identity": []}, {}
    for batch in _batches(fixed, batches, module.device):
        truth = _domain(batch["original"], batch, recipe)
        images = {"network": module.restored(batch), "identity": batch["degraded"]}
        for name, image in images.items():
            stretched = name == "network" and recipe.task != "restoration"
            seen = image if stretched else _domain(image, batch, recipe)
            scores[name].append(float(-psnr_loss(seen, truth)))
        for width in (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0):
            seen = _domain(_smooth(batch["degraded"], width), batch, recipe)
            smoothed.setdefault(width, []).append(float(-psnr_loss(seen, truth)))
    return {
        "fwhm": round(float(cell[0]), 4),
        "noise_ratio": float(cell[1]),
        "images": min(batches * stream.size, len(stream.source)),
        "psnr": round(float(np.mean(scores["network"])), 3),
        "psnr_identity": round(float(np.mean(scores["identity"])), 3),
        "psnr_gaussian": round(max(float(np.mean(v)) for v in smoothed.values()), 3),
    }


def _domain(image, batch, recipe):
    if recipe.degradation.get("kind", "galaxygan2017") == "galaxygan2017":
        return stretched_2017(image)
    return torch.asinh(in_sigma(image, batch) / 10)


def _smooth(images, width):
    from scipy.ndimage import gaussian_filter

    array = gaussian_filter(images.cpu().numpy(), (0, 0, width, width), mode="nearest")
    return torch.from_numpy(array).to(images.device)
