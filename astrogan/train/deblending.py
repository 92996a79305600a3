"""Training of the deblending network on blends that are drawn, and first fitted, on the fly."""

from __future__ import annotations

import copy

import lightning
import numpy as np
import torch

from astrogan.backends.gan._first_models import equivalent_fwhm
from astrogan.backends.gan._first_models import first_models as start_models
from astrogan.exceptions import InputError
from astrogan.nn.losses import coverage_loss
from astrogan.nn.ratio_net import RatioUNet, distance_to_others, source_planes
from astrogan.simulate.mixture import MixtureRenderer
from astrogan.train._averaging import Accumulating, cosine_rate, step_if_finite, update_average

__all__ = ["DeblendingModule", "DeblendingStream", "evaluation", "sheet", "small_row"]

_STARTS = ("profile-fit", "symmetric")
_SMALL = 6  # groups of blends that the card's second row is measured on
_KNEE = 0.1  # relative flux error from which on the loss grows no faster than the error's logarithm


class DeblendingStream:
    """Blends of two and more sources with first models of each, a batch a step; a pure function of (seed, step).

    Blends come from `~astrogan.simulate.mixture.MixtureRenderer`. They are made in groups of equally many sources; a
    group is a batch, and the number of groups is limited, because fitting takes longer than training: after a round of
    all of them they come again in another order, turned, mirrored, and with other bands. Groups are kept in memory.

    Parameters
    ----------
    source : None
        Everything is simulated.
    recipe : `~astrogan.train.recipe.Recipe`
        Of its ``[degradation]``: ``groups``, how many there are; ``sources``, how many a blend may have; ``models``,
        how many sources a group has in all; ``symmetric``, the part of the batches that starts from
        `~astrogan.backends.classic.symmetric.Symmetric` instead of
        `~astrogan.backends.classic.profile_fit.ProfileFit`; ``position_error``, of the centres, in pixels; all else is
        for the renderer. ``crop`` is the edge of an image in pixels.
    part : {'train', 'validation', 'test'}

    Raises
    ------
    InputError
        If a setting is out of range.
    """

    source = None

    def __init__(self, source, recipe, part):
        settings = dict(recipe.degradation)
        groups = int(settings.pop("groups", 600))
        self.groups = groups if part == "train" else max(1, recipe.validation_images // recipe.batch)
        self.counts = tuple(settings.pop("sources", (2, 3, 4, 5, 6)))
        self.models = int(settings.pop("models", 24))
        self.symmetric = float(settings.pop("symmetric", 0.25))
        self.position_error = float(settings.pop("position_error", 0.15))
        self.augment = part == "train"
        self.seed = recipe.seed + {"train": 0, "validation": 1_000_003, "test": 2_000_003}[part]
        if self.groups < 1 or not self.counts or min(self.counts) < 1 or not 0 <= self.symmetric <= 1:
            raise InputError(
                f"recipe [degradation] groups={self.groups}, sources={self.counts}, symmetric={self.symmetric}: "
                "groups and sources must be positive, and symmetric a part, from 0 to 1"
            )
        # Made here, so that a setting that it does not know is found before anything is drawn.
        self._draw = {n: MixtureRenderer(recipe.crop, sources=(n, n), **settings) for n in self.counts}
        self._kept = {}

    def describe(self):
        """What a model card says of the data."""
        return {
            "kind": "mixture",
            "origin": "blends drawn by astrogan.simulate.mixture, with known truth",
            "licence": "BSD-3-Clause",
            "groups": self.groups,
        }

    def batch(self, step):
        """Batch ``step``: dict of arrays, see `DeblendingModule`."""
        number = self._order(step // self.groups)[step % self.groups]
        group = self._group(int(number))
        rng = np.random.default_rng((self.seed, 7, step))
        start = "symmetric" if rng.random() < self.symmetric else "profile-fit"
        batch = {name: np.asarray(value, np.float32) for name, value in group.items() if name not in _STARTS}
        batch["models"] = np.asarray(group[start], np.float32)
        return _augmented(batch, rng) if self.augment else batch

    def _order(self, round_):
        order = np.arange(self.groups)
        return np.random.default_rng((self.seed, 3, round_)).permutation(order) if round_ else order

    def _group(self, number):
        if number not in self._kept:
            self._kept[number] = self._made(number)
        return self._kept[number]

    def _made(self, number):
        """A group in units of the sky's noise, in half precision: thousands of blends fit in a gigabyte."""
        count = self.counts[number % len(self.counts)]
        size = max(2, round(self.models / count))
        drawn = self._draw[count](self.seed, number, size)
        drawn = {name: np.asarray(value) for name, value in drawn.items()}
        rng = np.random.default_rng((self.seed, 5, number))
        error = self.position_error * np.exp(rng.normal(0, 0.5, drawn["positions"].shape[:2]))[..., None]
        edge = drawn["data"].shape[-1] - 1
        positions = drawn["positions"] + rng.normal(size=drawn["positions"].shape) * error
        drawn["positions"] = np.clip(positions, 0, edge)
        sigma = np.sqrt(np.median(drawn["variance"], axis=(-2, -1)))[..., None, None]
        starts = [first_models(_observation(drawn, i), drawn["positions"][i]) for i in range(size)]
        group = {
            "data": drawn["data"] / sigma,
            "noise": np.sqrt(drawn["variance"]) / sigma,
            "truth": drawn["truth"] / sigma[:, None],
        }
        group |= {name: np.stack([start[name] for start in starts]) / sigma[:, None] for name in _STARTS}
        group = {name: np.clip(value, -6e4, 6e4).astype(np.float16) for name, value in group.items()}
        group["positions"] = drawn["positions"].astype(np.float32)
        group["fwhm"] = equivalent_fwhm(drawn["psf"])
        return group


def _observation(drawn, i):
    from astrogan.api import Observation

    return Observation(drawn["data"][i], variance=drawn["variance"][i], psf=drawn["psf"][i])


def first_models(observation, positions, starts=_STARTS):
    """Models of a blend's sources by each of several classic backends, {name: (source, band, y, x)}."""
    return {start: start_models(observation, positions, start)[0] for start in starts}


def _augmented(batch, rng):
    """Turned, mirrored, and with some of its bands, in another order."""
    bands = batch["data"].shape[1]
    chosen = rng.permutation(bands)[: rng.choice(np.arange(1, bands + 1), p=_shares(bands))]
    batch = {name: value if name == "positions" else value[:, ..., chosen, :, :] if value.ndim > 2 else value[:, chosen]
             for name, value in batch.items()}  # fmt: skip
    flip, turns = bool(rng.integers(2)), int(rng.integers(4))
    edge = batch["data"].shape[-1] - 1
    x, y = batch["positions"][..., 0], batch["positions"][..., 1]
    if flip:
        x = edge - x
    for _ in range(turns):  # as np.rot90 does from axis y to axis x
        x, y = y, edge - x
    images = {}
    for name, value in batch.items():
        if name not in ("positions", "fwhm"):
            value = value[..., ::-1] if flip else value
            images[name] = np.ascontiguousarray(np.rot90(value, turns, axes=(-2, -1)))
    return batch | images | {"positions": np.stack([x, y], -1).astype(np.float32)}


def _shares(bands):
    """How often one band, two, ... are seen: all of them half of the time."""
    return np.array([0.5 / (bands - 1)] * (bands - 1) + [0.5]) if bands > 1 else np.ones(1)


class DeblendingModule(Accumulating, lightning.LightningModule):
    """`~astrogan.nn.ratio_net.RatioUNet` with its losses, optimiser and averaged weights.

    A batch holds, in units of the sky's noise, ``data`` and ``noise`` (n, band, y, x), ``truth`` and ``models`` (n,
    source, band, y, x), ``positions`` (n, source, 2) and ``fwhm`` (n, band).

    Parameters
    ----------
    network : dict
        Keyword arguments of the network.
    steps : int
        Of the whole run; the learning rate falls to zero along a cosine.
    learning_rate, warmup, weight_decay, clip
        Of AdamW; ``clip`` bounds the gradient's norm.
    average : float
        Decay of the exponential moving average of the weights, which is what is exported.
    flux_weight, ratio_weight, model_weight, coverage_weight : float
        Weights of the losses: relative error of each source's flux; cross entropy of the shares; error of the
        templates; width of the flux errors.
    seed : int
        Of the initial weights.
    """

    def __init__(
        self,
        network=None,
        *,
        steps,
        learning_rate=2e-3,
        warmup=100,
        weight_decay=1e-4,
        clip=1.0,
        average=0.998,
        flux_weight=1.0,
        ratio_weight=1.0,
        model_weight=0.3,
        coverage_weight=0.1,
        seed=0,
    ):
        super().__init__()
        self.automatic_optimization = False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = RatioUNet(**(network or {}))
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.steps, self.learning_rate, self.warmup = int(steps), float(learning_rate), int(warmup)
        self.weight_decay, self.clip, self.decay = float(weight_decay), float(clip), float(average)
        self.flux_weight, self.ratio_weight = float(flux_weight), float(ratio_weight)
        self.model_weight, self.coverage_weight = float(model_weight), float(coverage_weight)

    @property
    def exported(self):
        """The network whose weights are kept: the average."""
        return self.average

    @property
    def architecture(self):
        """Keyword arguments of the network."""
        return self.network.architecture

    def configure_optimizers(self):
        """AdamW."""
        return torch.optim.AdamW(
            self.network.parameters(), self.learning_rate, betas=(0.9, 0.95), weight_decay=self.weight_decay
        )

    def training_step(self, batch, batch_idx):
        """One step of the optimiser, or a part of one."""
        optimiser = self.optimizers()
        for group in optimiser.param_groups:
            group["lr"] = self.learning_rate * cosine_rate(int(self.steps_done), self.steps, self.warmup)
        terms = self._losses(batch, *shares(self.network, batch))
        self.backward_part(optimiser, sum(terms.values()), batch_idx)
        if self.is_last(batch_idx):
            step_if_finite(optimiser, self.network.parameters(), self.clip)
            self.steps_done += 1
            update_average(self.average, self.network, float(self.steps_done), self.decay)
        losses = {f"loss/{name}": value.detach() for name, value in terms.items()}
        self.log_dict(losses, on_step=False, on_epoch=True, sync_dist=True)

    def _losses(self, batch, ratio, template, spread):
        truth = batch["truth"]
        scene = truth.sum(1, keepdim=True)
        noise = batch["noise"][:, None]
        # The noise-free scene is divided: noise in the shares' sums would be no fault of theirs.
        flux, error = truth.sum((-2, -1)), ((scene * ratio) - truth).sum((-2, -1))
        relative = error / (flux.abs() + _least_flux(truth))
        weight = scene / torch.sqrt(scene.clamp(min=0) + noise**2)
        part = truth / scene.clamp(min=1e-3)
        entropy = -(part * torch.log(ratio.clamp(min=1e-6)) + (1 - part) * torch.log((1 - ratio).clamp(min=1e-6)))
        least = -(torch.xlogy(part, part.clamp(min=1e-6)) + torch.xlogy(1 - part, (1 - part).clamp(min=1e-6)))
        unit = torch.sqrt(noise**2 + (0.1 * template.detach()) ** 2)
        off = (template - truth) / unit
        return {
            # A faint source beside a bright one may be wrong by many times its flux, and one alone by next to nothing:
            # relative to their own errors all count alike.
            "flux": self.flux_weight * _KNEE * torch.log1p(torch.sqrt(relative**2 + 1e-4) / _KNEE).mean(),
            "ratio": self.ratio_weight * (weight * (entropy - least)).sum() / weight.expand_as(entropy).sum(),
            "model": self.model_weight * (torch.sqrt(1 + off**2) - 1).mean(),
            "coverage": self.coverage_weight * coverage_loss(relative.detach(), _relative(spread, truth)),
        }

    def validation_step(self, batch, batch_idx):
        """Median and mean flux error of the averaged network, and of the models that it starts from."""
        with torch.no_grad():
            values = {}
            for name, errors in flux_errors(self.average, batch).items():
                values[f"val/{name}_median"], values[f"val/{name}_mean"] = errors.median(), errors.mean()
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(batch["data"]))


def _least_flux(truth):
    """Three times the noise of a flux in about the pixels that a source's light fills, in units of the noise."""
    filled = truth.sum((-2, -1)) ** 2 / truth.square().sum((-2, -1)).clamp(min=1e-6)
    return 3 * torch.sqrt(filled.clamp(min=10, max=400))


def _relative(spread, truth):
    return spread.sum((-2, -1)) / (truth.sum((-2, -1)).abs() + _least_flux(truth))


def shares(network, batch):
    """Ratio, template and spread of a batch, see `~astrogan.nn.ratio_net.RatioUNet.forward`."""
    models, positions = batch["models"], batch["positions"]
    image, noise = batch["data"][:, None], batch["noise"][:, None]
    others = distance_to_others(positions, *models.shape[-2:])
    total = models.sum(1, keepdim=True)
    planes = source_planes(
        image, noise, models, total, positions, others, torch.ones_like(image), batch["fwhm"][:, None]
    )
    return network(planes, models, torch.ones(models.shape[:2], device=models.device))


def flux_errors(network, batch):
    """Relative errors of bright sources' fluxes in shared images: of the network, the first models, the true shares."""
    truth = batch["truth"]
    flux = truth.sum((-2, -1))
    models = batch["models"] + 1e-3
    rows = {
        "network": shares(network, batch)[0],
        "start": models / models.sum(1, keepdim=True),
        "oracle": truth / truth.sum(1, keepdim=True).clamp(min=1e-6),
    }
    bright = flux > _least_flux(truth)
    image = batch["data"][:, None]
    return {
        name: ((image * ratio * (truth > 0.02 * batch["noise"][:, None])).sum((-2, -1)) / flux - 1).abs()[bright]
        for name, ratio in rows.items()
    }


@torch.no_grad()
def evaluation(module, recipe, stream):
    """What the card says: ranges, the calibration of flux errors, and flux errors beside those of the start.

    Parameters
    ----------
    module : DeblendingModule
    recipe : `~astrogan.train.recipe.Recipe`
    stream : DeblendingStream
        Of the validation part.

    Returns
    -------
    dict
        ``ranges``, ``calibration`` and ``metrics``.
    """
    module.eval()
    ratios, fwhm, peak = [], [], 0.0
    for batch in _batches(stream, stream.groups, module.device):
        ratios.append(_error_ratios(module.average, batch))
        fwhm += batch["fwhm"].flatten().tolist()
        peak = max(peak, float(batch["data"].max()))
    return {
        "ranges": {"fwhm": [min(fwhm), max(fwhm)], "peak_snr": [0.0, peak]},
        "calibration": _calibration(ratios),
        "metrics": [
            {"part": "validation", **_row(module.average, stream, stream.groups)},
            {"part": "test", **small_row(module.average, recipe)},
        ],
    }


@torch.no_grad()
def small_row(network, recipe, groups=_SMALL):
    """Flux errors on a few blends of the test part: quick to measure again.

    Parameters
    ----------
    network : `~astrogan.nn.ratio_net.RatioUNet`
    recipe : `~astrogan.train.recipe.Recipe`
    groups : int
        How many groups of about six blends.

    Returns
    -------
    dict
        ``blends``, ``fluxes`` (bright enough for a relative error), and the median and mean relative flux errors of the
        network, of the models that it starts from, and of the true shares.
    """
    return _row(network, DeblendingStream(None, recipe, "test"), groups)


def _row(network, stream, groups):
    found, blends = {}, 0
    for batch in _batches(stream, groups, next(network.parameters()).device):
        blends += len(batch["data"])
        for name, errors in flux_errors(network, batch).items():
            found.setdefault(name, []).append(errors.cpu().numpy())
    every = {name: np.concatenate(values) for name, values in found.items()}
    row = {"blends": blends, "fluxes": len(every["network"])}
    for name, values in every.items():
        row |= {
            f"flux_error_median_{name}": round(float(np.median(values)), 5),
            f"flux_error_mean_{name}": round(float(np.mean(values)), 5),
        }
    return row


def _batches(stream, number, device):
    for step in range(number):
        yield {name: torch.from_numpy(value).to(device) for name, value in stream.batch(step).items()}


def _error_ratios(network, batch):
    """Errors of the fluxes over the widths predicted for them."""
    truth = batch["truth"]
    ratio, _, spread = shares(network, batch)
    scene = truth.sum(1, keepdim=True)
    error = (scene * ratio - truth).sum((-2, -1)).abs()
    return (error / spread.sum((-2, -1)).clamp(min=1e-6)).flatten().cpu().numpy()


def _calibration(groups):
    """Factors that make the predicted width the 68.27 and 95.45 per cent interval, checked on the other half."""
    inner, outer = (np.concatenate(half or groups) for half in (groups[::2], groups[1::2]))
    scale, wide = (float(np.quantile(inner, part)) for part in (0.6827, 0.9545))
    return {
        "scale": float(np.quantile(np.concatenate(groups), 0.6827)),
        "scale95": float(np.quantile(np.concatenate(groups), 0.9545)),
        "coverage68": float((outer <= scale).mean()),
        "coverage95": float((outer <= wide).mean()),
    }


@torch.no_grad()
def sheet(module, batch):
    """Rows of a sample sheet: the blend, and of its first two sources the model it began with, the template, the truth.

    Parameters
    ----------
    module : DeblendingModule
    batch : dict of `torch.Tensor`

    Returns
    -------
    rows : list of list of `numpy.ndarray`
        (band, y, x), from 0 to 1.
    titles : tuple of str
    """
    batch = {name: value.to(module.device) for name, value in batch.items()}
    template = shares(module.average, batch)[1]
    rows = []
    for i in range(len(template)):
        images = [batch["data"][i]]
        for source in range(min(2, template.shape[1])):
            images += [batch["models"][i, source], template[i, source], batch["truth"][i, source]]
        rows.append([_seen(image) for image in images])
    return rows, ("blend", *("start", "template", "truth") * min(2, template.shape[1]))


def _seen(image):
    image = torch.asinh(image.float().cpu() / 3)[:3]
    return (image / image.max().clamp(min=1)).clamp(0, 1).numpy()
