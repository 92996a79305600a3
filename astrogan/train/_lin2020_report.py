"""How well the networks of Lin et al. 2021 do, and sheets of what they make."""

from __future__ import annotations

import numpy as np
import torch

from astrogan.nn.lin2020 import PIXEL_SCALES, SHAPES, regridded, unscaled
from astrogan.train.evaluate import evaluating

__all__ = ["DIRECTIONS", "RATIO", "border_noise", "evaluation", "relative_error", "resampled", "sheet", "truths"]

DIRECTIONS = {"x_to_y": ("x", "y"), "y_to_x": ("y", "x")}
"""From which survey, and to which."""

RATIO = PIXEL_SCALES["x"] / PIXEL_SCALES["y"]
"""Of the pixels' edges."""


def resampled(batch):
    """Paired stamps on each other's grid by interpolation, the baseline: ``y``, made of x, and ``x``, made of y."""
    return {
        "y": regridded(batch["x"].float(), SHAPES["y"], 1 / RATIO),
        "x": regridded(batch["y"].float(), SHAPES["x"], RATIO),
    }


def relative_error(made, wanted):
    """Relative L2 error of each stamp, all bands together, (n,)."""
    error, size = ((image).square().sum((-3, -2, -1)) for image in (made - wanted, wanted))
    return (error / size.clamp(min=1e-12)).sqrt()


def truths(batch):
    """Paired stamps to compare with: free of noise where the batch has them, else as they are."""
    return {name: batch.get(f"{name}_truth", batch[name]).float() for name in "xy"}


@torch.no_grad()
def evaluation(module, recipe, stream):
    """What the card says: pixel scales, noise and brightness of the stamps, and errors beside those of interpolation.

    Parameters
    ----------
    module : Lin2020Module
    recipe : `~astrogan.train.recipe.Recipe`
    stream : object
        Of the validation part; ``batch(step)`` gives what ``Lin2020Module.training_step`` takes.

    Returns
    -------
    dict
        ``ranges``, ``calibration`` (`None`) and ``metrics``, a row for each direction: the number of stamps, the median
        relative L2 error of the network without its noise and of interpolation, against the other survey's stamp free
        of noise where the batch has one; median absolute relative errors of the flux within 5 arcsec, of bands in which
        it is at least 20 times its noise; and the scatter of emulated noise over that of the stamps' borders, by band.
    """
    batches = [stream.batch(step) for step in range(max(1, recipe.validation_images // recipe.batch))]
    keys = [key for key in ("x", "y", "x_truth", "y_truth") if key in batches[0]]
    batches = [{key: torch.from_numpy(batch[key]).to(module.device) for key in keys} for batch in batches]
    with evaluating(module):
        rows = {
            "network": [module.translated(batch, noise=False) for batch in batches],
            "resampled": [resampled(batch) for batch in batches],
        }
        metrics = [_row(module, batches, rows, way) for way in DIRECTIONS]
    ranges = {"pixel_scale": [PIXEL_SCALES["y"], PIXEL_SCALES["x"]]}
    for survey in "xy":
        stamps = torch.cat([batch[survey] for batch in batches])
        noise = border_noise(stamps)
        for band in range(stamps.shape[1]):
            ranges[f"noise_{survey}_{band}"] = [float(noise[:, band].min()), float(noise[:, band].max())]
        ranges[f"peak_{survey}"] = [0.0, float(stamps.max())]
    return {"ranges": ranges, "calibration": None, "metrics": metrics}


def _row(module, batches, rows, way):
    to = way[-1]
    row = {"direction": way, "stamps": sum(len(batch["x"]) for batch in batches)}
    wanted = torch.cat([truths(batch)[to] for batch in batches])
    noise = border_noise(torch.cat([batch[to] for batch in batches]))
    true = _aperture(wanted, PIXEL_SCALES[to])
    bright = true > 20 * noise * _aperture(torch.ones_like(wanted), PIXEL_SCALES[to]).sqrt()
    for name, made in rows.items():
        stamps = torch.cat([each[to] for each in made])
        flux = _aperture(stamps, PIXEL_SCALES[to])
        row[f"relative_l2_{name}"] = round(float(relative_error(stamps, wanted).median()), 4)
        row[f"flux_error_{name}"] = round(float((flux / true - 1)[bright].abs().median()), 4) if bright.any() else None
    if len(module.translator.noise):
        emulated = unscaled(module.translator.noise[to].sample(64, SHAPES[to], torch.Generator().manual_seed(0)))
        ratio = emulated.std((-2, -1)).median(0).values / noise.median(0).values
        row["noise_ratio"] = [round(float(value), 3) for value in ratio]
    return row


def _aperture(images, scale, radius=5.0):
    """Flux within some arcsec of the centre, (n, band)."""
    y, x = (torch.arange(n, device=images.device) - (n - 1) / 2 for n in images.shape[-2:])
    inside = (x[None] ** 2 + y[:, None] ** 2) * scale**2 <= radius**2
    return (images * inside).sum((-2, -1))


def border_noise(images, part=8):
    """Robust scatter of the pixels along the edges of stamps, (n, band)."""
    n = images.shape[-1] // part
    inside = torch.zeros(images.shape[-2:], dtype=torch.bool, device=images.device)
    inside[n:-n, n:-n] = True
    sky = images[..., ~inside]
    sky = sky - sky.median(-1, keepdim=True).values
    return 1.4826 * sky.abs().median(-1).values


@torch.no_grad()
def sheet(module, batch, rows=4):
    """Rows of a sample sheet.

    Parameters
    ----------
    module : Lin2020Module
    batch : dict of `torch.Tensor`
    rows : int
        At most so many.

    Returns
    -------
    images : list
        For each pair x, y made of it and y, then y, x made of it and x; bands i, r, g (or the first three).
    titles : tuple of str
        One a column.
    """
    batch = {key: batch[key][: max(1, rows // 2)].to(module.device) for key in "xy"}
    made = module.translated(batch)
    bands = [3, 2, 1] if batch["x"].shape[1] == 5 else slice(0, 3)
    images = []
    for i in range(len(batch["x"])):
        for of, to in DIRECTIONS.values():
            row = (batch[of][i] * (RATIO if of == "y" else 1 / RATIO) ** 2, made[to][i], batch[to][i])
            images.append([np.asarray(image[bands].float().cpu()) for image in row])
    return images, ("input", "translated", "other survey")
