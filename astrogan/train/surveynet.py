"""Training of the translation network on pairs of surveys, with galaxies that only one of them saw."""

from __future__ import annotations

import copy
import math

import lightning
import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from astrogan.exceptions import InputError
from astrogan.nn.losses import aperture_loss, coverage_loss, weighted_charbonnier
from astrogan.nn.resampling import resample_separable, spline_matrix
from astrogan.nn.surveynet import SurveyNet, matched_estimates
from astrogan.train._averaging import Accumulating, cosine_rate, step_if_finite, update_average
from astrogan.train.survey_stream import SurveyStream

__all__ = ["SurveyNetModule", "SurveyNetStream", "evaluation", "sheet", "small_row"]

SurveyNetStream = SurveyStream

_SIDES = ("x", "y")
_LIGHT = 9  # edge of the mean in pixels by which it is seen where light is
_SMALL = 4  # batches of the test part that the card's second row is measured on


class SurveyNetModule(Accumulating, lightning.LightningModule):
    """`~astrogan.nn.surveynet.SurveyNet` with its losses, optimiser and averaged weights.

    Three losses, all in units of both surveys' noise, and all against noisy images, as real ones are:

    - *paired*: the same galaxy in both surveys, both ways;
    - *cycle down*: an image of the sharper survey is translated, given the other's noise, and translated back. What
      comes back is compared with the image;
    - *cycle up*: the same from the other side, where the gradient goes through both translations: what the sharper
      survey is said to see must look, through the other's PSF, as the image does.

    Cycles go through noisy images, as in Lin et al. (2021): without noise a network hides in faint ripples what it
    needs for the way back. How the surveys' filters differ they cannot find, and go through images of one photometric
    system; pairs find it.

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
    pair_weight, cycle_weight : float
        Zero for training without pairs, or with nothing else.
    cycle_start : float
        Part of the steps after which cycles begin; they have their full weight after twice that.
    aperture_weight, sky_weight, coverage_weight : float
        Of photometry in boxes, of errors in units of the target's noise alone, and of the loss of the error's width.
    crop : int
        Pixels along an edge of what the losses see of the finer survey's images, cut at random about the centre.
    seed : int
        Of the initial weights, and of the noise.

    Raises
    ------
    InputError
        If both weights are zero.
    """

    def __init__(
        self,
        network=None,
        *,
        steps,
        learning_rate=2e-3,
        warmup=50,
        weight_decay=1e-4,
        clip=1.0,
        average=0.995,
        pair_weight=1.0,
        cycle_weight=1.0,
        cycle_start=0.1,
        aperture_weight=0.3,
        sky_weight=0.3,
        coverage_weight=0.1,
        crop=80,
        seed=0,
    ):
        super().__init__()
        if pair_weight <= 0 and cycle_weight <= 0:
            raise InputError(f"pair_weight={pair_weight!r} and cycle_weight={cycle_weight!r}: one must be positive")
        self.automatic_optimization = False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = SurveyNet(**(network or {}))
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.steps, self.learning_rate, self.warmup = int(steps), float(learning_rate), int(warmup)
        self.weight_decay, self.clip, self.decay = float(weight_decay), float(clip), float(average)
        self.pair_weight, self.cycle_weight = float(pair_weight), float(cycle_weight)
        self.cycle_start = float(cycle_start) if pair_weight > 0 else 0.0
        self.aperture_weight, self.sky_weight = float(aperture_weight), float(sky_weight)
        self.coverage_weight = float(coverage_weight)
        self.crop, self.seed = int(crop), int(seed)

    @property
    def exported(self):
        """The network whose weights are kept: the average."""
        return self.average

    @property
    def architecture(self):
        """Keyword arguments of the network."""
        return self.network.architecture

    def configure_optimizers(self):
        """AdamW; colour terms learn ten times as fast, because they are few and small."""
        slow = [p for name, p in self.network.named_parameters() if name not in ("colour", "zero_point")]
        quick = [self.network.colour, self.network.zero_point]
        groups = [{"params": slow}, {"params": quick, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, self.learning_rate, betas=(0.9, 0.95), weight_decay=self.weight_decay)

    def training_step(self, batch, batch_idx):
        """One step of the optimiser, or a part of one."""
        optimiser, done = self.optimizers(), int(self.steps_done)
        rate = self.learning_rate * cosine_rate(done, self.steps, self.warmup)
        for group, factor in zip(optimiser.param_groups, (1, 3), strict=True):
            group["lr"] = rate * factor
        terms = {}
        part = batch_idx % self.accumulate
        for name, weight, loss in self._parts(batch, done, part):
            # One after the other, so that only one translation's activations are kept.
            found = loss()
            self.backward_part(optimiser, weight * sum(found.values()), batch_idx, first=not terms)
            terms |= {f"loss/{name}_{term}": value.detach() for term, value in found.items()}
        if self.is_last(batch_idx):
            step_if_finite(optimiser, self.network.parameters(), self.clip)
            self.steps_done += 1
            update_average(self.average, self.network, float(self.steps_done), self.decay)
        self.log_dict(terms, on_step=False, on_epoch=True, sync_dist=True)

    def _parts(self, batch, done, part=0):
        """Name, weight and loss of each of a step's translations."""
        draw = _Draws(self.seed, done * self.accumulate + part, self.device)
        fine = _fine(batch)
        coarse = _other(fine)
        if self.pair_weight > 0:
            for origin in _SIDES:
                yield f"pair_{origin}", self.pair_weight, lambda o=origin: self._paired(batch, o, draw)
        ramp = self.cycle_weight * _ramp(done / self.steps, self.cycle_start)
        if ramp > 0:
            yield "cycle_down", ramp, lambda: self._cycle_down(batch, fine, coarse, draw)
            yield "cycle_up", ramp, lambda: self._cycle_up(batch, fine, coarse, draw)

    def _paired(self, batch, origin, draw):
        target = _other(origin)
        cut = draw.cut(batch[target].shape, self.crop) if target == _fine(batch) else None
        found = translate(self.network, batch, batch[origin], origin, target, cut=cut)
        return self._losses(*found, batch[target], batch, origin, target, cut)

    def _cycle_down(self, batch, fine, coarse, draw):
        """From the finer survey to the coarser without gradient, and back."""
        alone = _alone(batch)
        with torch.no_grad():
            fake = translate(self.network, alone, alone[fine], fine, coarse, filters=False)[0]
            fake = fake + draw.noise(alone, coarse, fake)
        cut = draw.cut(alone[fine].shape, self.crop)
        found = translate(self.network, alone, fake, coarse, fine, cut=cut, filters=False)
        return self._losses(*found, alone[fine], alone, coarse, fine, cut)

    def _cycle_up(self, batch, fine, coarse, draw):
        """From the coarser survey to the finer and back; a quarter of the batch, because it is the dearest."""
        alone = {k: v[: max(1, len(batch["x"]) // 4)] if v.ndim > 1 and k[0] in "uv" else v for k, v in batch.items()}
        alone = _alone(alone)
        fake = translate(self.network, alone, alone[coarse], coarse, fine, filters=False)[0]
        fake = fake + draw.noise(alone, fine, fake.detach())
        found = translate(self.network, alone, fake, fine, coarse, filters=False)
        return self._losses(*found, alone[coarse], alone, fine, coarse, None)

    def _losses(self, mean, spread, target, batch, origin, to, cut):
        target = _cropped(target, cut)
        sigma, unit = (v[:, :, None, None] for v in (batch[f"{to}_sigma"], _unit(batch, origin, to)))
        sky = torch.sqrt(sigma**2 + unit**2)
        # The unit is that of the noise and of the network's own estimate, so the mean is not pulled to either side.
        error_unit = torch.sqrt(sky**2 + (0.05 * mean.detach()) ** 2)
        error = ((mean - target) / error_unit).square().clamp(max=1e4).mean(dim=(2, 3))
        sizes = [size for size in (4, 16, 64) if size <= mean.shape[-1]]
        boxes = sum(aperture_loss(mean / sky, target / sky, size) for size in sizes)
        total = torch.sqrt(spread**2 + sigma**2)
        # The finer survey is often the deeper one, too: what little is left of the other's noise would drown its own.
        light = avg_pool2d(mean.detach(), _LIGHT, 1, _LIGHT // 2, count_include_pad=False).clamp(min=0)
        own_unit = torch.sqrt(sigma**2 + (0.1 * light) ** 2)
        return {
            "sky": self.sky_weight * weighted_charbonnier(mean, target, own_unit, knee=3.0),
            # Of each band's and image's error its logarithm: what is already good is still made better.
            "log_error": torch.log(error + 1e-6).mean(),
            "charbonnier": weighted_charbonnier(mean, target, error_unit, knee=3.0),
            "aperture": self.aperture_weight * boxes,
            "coverage": self.coverage_weight * coverage_loss((mean - target) / sky, total / sky),
        }

    def validation_step(self, batch, batch_idx):
        """Errors of the averaged network and of the best single estimate, against the truth, both ways."""
        values = {}
        with torch.no_grad():
            for origin in _SIDES:
                for name, number in _scores(self.average, batch, origin).items():
                    values[f"val/{name}_{origin}"] = number
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(batch["x"]))


def translate(network, batch, images, origin, to, *, cut=None, filters=True):
    """(mean, spread) of images of one survey as the other would see them, (n, band, y, x).

    Parameters
    ----------
    network : `~astrogan.nn.surveynet.SurveyNet`
    batch : dict of `torch.Tensor`
        Of a `SurveyStream`, for the PSFs and the noise of both surveys.
    images : `torch.Tensor`
        (n, band, y, x).
    origin, to : {'x', 'y'}
        The survey of the images, and the other.
    cut : tuple of slice, optional
        Rows and columns that are wanted.
    filters : bool
        Whether the difference of the surveys' filters is applied.
    """
    candidates = estimates(network.balances, batch, images, origin, to)
    scale = float(batch["scales"][_SIDES.index(to)])
    fwhm = [batch[f"{side}_fwhm"] / scale for side in (origin, to)]
    direction = _SIDES.index(origin) if filters and network.directions else None
    sigma = batch[f"{to}_sigma"]
    return network(_cropped(candidates, cut), _unit(batch, origin, to), *fwhm, sigma, direction)


def estimates(balances, batch, images, origin, to):
    """`~astrogan.nn.surveynet.matched_estimates` on the other survey's pixels, in flux per pixel of it."""
    psf, wanted = batch[f"{origin}_psf"], batch[f"{to}_psf"]
    along = _matrices(batch, images.shape[-2:], batch[to].shape[-2:], origin, to)
    with torch.autocast(images.device.type, enabled=False):
        # The work is done on the finer of the two grids.
        if to == _fine(batch):
            images = resample_separable(images.float(), *along)
            out = matched_estimates(images, psf, wanted, balances)
        else:
            along = (matrix[:, None] for matrix in along)
            out = resample_separable(matched_estimates(images.float(), psf, wanted, balances), *along)
    return out * _area(batch, origin, to)


def _matrices(batch, shape_in, shape_out, origin, to):
    """Both grids have one orientation, and the galaxy in common; (n, 1, out, in) along y and along x."""
    step = math.sqrt(_area(batch, origin, to))
    matrices = []
    for axis in (0, 1):
        size_in, size_out = shape_in[axis], shape_out[axis]
        offsets = np.arange(size_out) - (size_out - 1) / 2
        places = zip(batch[f"{origin}_at"][:, axis].tolist(), batch[f"{to}_at"][:, axis].tolist(), strict=True)
        each = [spline_matrix((offsets - there) * step + here + (size_in - 1) / 2, size_in) for here, there in places]
        matrices.append(torch.stack(each)[:, None].to(batch["scales"].device))
    return matrices


def _area(batch, origin, to):
    scale_in, scale_out = (float(batch["scales"][_SIDES.index(side)]) for side in (origin, to))
    return (scale_out / scale_in) ** 2


def _unit(batch, origin, to):
    """Noise of the images that white noise would have in a pixel of the other survey, (n, band)."""
    return batch[f"{origin}_sigma"] * math.sqrt(_area(batch, origin, to))


def _fine(batch):
    """The survey with the smaller pixels."""
    return _SIDES[int(batch["scales"].argmin())]


def _other(side):
    return "y" if side == "x" else "x"


def _alone(batch):
    """A batch whose two surveys saw different galaxies."""
    names = {"u": "x", "v": "y"}
    kept = {key: value for key, value in batch.items() if key[0] not in "xyuv" or key[2:] in ("kernel", "slope")}
    return kept | {names[key[0]] + key[1:]: value for key, value in batch.items() if key[0] in names}


def _cropped(images, cut):
    return images if cut is None else images[..., cut[0], cut[1]]


def _ramp(part, start):
    """From zero at ``start`` to one at twice that."""
    return 1.0 if start <= 0 else min(1.0, max(0.0, part / start - 1))


class _Draws:
    """All that a step draws; a function of (seed, step)."""

    def __init__(self, seed, step, device):
        self.generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence((seed, 11, step)).generate_state(1)[0])
        )
        self.device = device

    def cut(self, shape, size):
        """A square somewhere about the centre, which stays inside it."""
        slices = []
        for length in shape[-2:]:
            room = max(0, length - size)
            low, high = room // 4, room - room // 4
            first = int(torch.randint(low, high + 1, (), generator=self.generator))
            slices.append(slice(first, first + min(size, length)))
        return tuple(slices)

    def noise(self, batch, side, signal):
        """A survey's noise: correlated as its own, and stronger where there is light."""
        kernel = batch[f"{side}_kernel"]
        margin = kernel.shape[-1] - 1
        n, bands, height, width = signal.shape
        white = torch.randn(n, bands, height + margin, width + margin, generator=self.generator).to(self.device)
        with torch.autocast(white.device.type, enabled=False):
            field = torch.nn.functional.conv2d(white, kernel[:, None], groups=bands)
            variance = batch[f"{side}_sigma"][:, :, None, None] ** 2
            variance = variance + batch[f"{side}_slope"][:, None, None] * signal.float().clamp(min=0)
            return field * torch.sqrt(variance)


# --------------------------------------------------------------------------------------------- how good it is


@torch.no_grad()
def _scores(network, batch, origin):
    """Errors against the truth over the galaxy: of the network and of a single classic estimate."""
    to = _other(origin)
    truth = batch[f"{to}_truth"]
    mean = translate(network, batch, batch[origin], origin, to)[0]
    classic = estimates(network.balances, batch, batch[origin], origin, to)
    classic = classic[:, :, 0 if to != _fine(batch) else -2]
    scores = {}
    for name, image in (("network", mean), ("classic", classic)):
        size = truth.shape[-1]
        middle = slice(size // 4, size - size // 4)
        inner, true = image[..., middle, middle], truth[..., middle, middle]
        scores[f"{name}_error"] = ((inner - true).square().sum((-2, -1)) / true.square().sum((-2, -1))).sqrt().median()
        flux, real = inner.sum((-2, -1)), true.sum((-2, -1))
        scores[f"{name}_flux"] = (flux / real - 1).abs().median()
    return scores


@torch.no_grad()
def evaluation(module, recipe, stream):
    """What the card says: ranges, the calibration of the errors' width, and errors beside a classic estimate's.

    Parameters
    ----------
    module : SurveyNetModule
    recipe : `~astrogan.train.recipe.Recipe`
    stream : SurveyStream
        Of the validation part.

    Returns
    -------
    dict
        ``ranges``, ``calibration`` and ``metrics``.
    """
    module.eval()
    count = max(1, recipe.validation_images // recipe.batch)
    return {
        "ranges": _ranges(stream, count),
        "calibration": _calibration(module.average, stream, count),
        "metrics": [
            {"part": "validation", **_row(module.average, stream, count)},
            {"part": "test", **small_row(module.average, recipe)},
        ],
    }


@torch.no_grad()
def small_row(network, recipe, batches=_SMALL):
    """Errors on a few galaxies of the test part: quick to measure again.

    Parameters
    ----------
    network : `~astrogan.nn.surveynet.SurveyNet`
    recipe : `~astrogan.train.recipe.Recipe`
    batches : int
        How many batches.

    Returns
    -------
    dict
        ``pairs``, and by direction the relative error (L2 over the inner quarter of the stamp, median over galaxies
        and bands) and the relative error of the flux in it, of the network and of a single classic estimate.
    """
    return _row(network, SurveyStream(None, recipe, "test"), batches)


def _row(network, stream, count):
    found, pairs = {}, 0
    for batch in _batches(stream, count, network):
        pairs += len(batch["x"])
        for origin in _SIDES:
            for name, value in _scores(network, batch, origin).items():
                direction = "-".join(stream.surveys[_SIDES.index(side)] for side in (origin, _other(origin)))
                found.setdefault(f"{name}_{direction}", []).append(float(value))
    return {"pairs": pairs} | {name: round(float(np.mean(values)), 5) for name, values in found.items()}


def _batches(stream, count, network):
    device = next(network.parameters()).device
    for step in range(count):
        yield {name: torch.from_numpy(value).to(device) for name, value in stream.batch(step).items()}


def _ranges(stream, count):
    """FWHM in pixels of the target, ratio of the FWHM, ratio of the pixels and peak over noise, both ways."""
    fwhm, ratio, peak = [], [], []
    for step in range(count):
        batch = stream.batch(step)
        for origin in _SIDES:
            to = _other(origin)
            fwhm += (batch[f"{to}_fwhm"] / stream.scales[_SIDES.index(to)]).ravel().tolist()
            ratio += (batch[f"{origin}_fwhm"] / batch[f"{to}_fwhm"]).ravel().tolist()
            peak += (batch[origin].max((-2, -1)) / batch[f"{origin}_sigma"]).ravel().tolist()
    step = max(stream.scales) / min(stream.scales)
    return {
        "fwhm": [min(fwhm), max(fwhm)],
        "fwhm_ratio": [min(ratio), max(ratio)],
        "scale_ratio": [1 / step, step],
        "peak_snr": [0.0, max(peak)],
    }


def _calibration(network, stream, count):
    """Factors on the predicted width, and how errors of neighbouring pixels are correlated, both ways."""
    ratios, kernels = [], []
    for origin in _SIDES:
        found, products = [], 0.0
        for batch in _batches(stream, count, network):
            to = _other(origin)
            mean, spread = translate(network, batch, batch[origin], origin, to)
            error = (mean - batch[f"{to}_truth"]) / spread.clamp(min=1e-9)
            # On blank sky there is nothing to be wrong about.
            lit = mean > _unit(batch, origin, to)[:, :, None, None]
            found.append(error[lit].abs().cpu().numpy())
            products = products + _lagged(error.clamp(-10, 10), lit)
        ratios.append(np.concatenate(found))
        kernels.append(_kernel(products))
    scales = [_quantiles(values) for values in ratios]
    inner, outer = scales[0][1], scales[1][1]
    return {
        "scale": float(np.mean([s[0] for s in scales])),
        "scales": [s[0] for s in scales],
        "coverage68": inner,
        "coverage68_back": outer,
        "error_kernels": kernels,
    }


def _quantiles(values):
    """The factor that makes the width the 68.27 per cent interval on one half, and the coverage on the other."""
    inner, outer = values[::2], values[1::2]
    return float(np.quantile(values, 0.6827)), float((outer <= np.quantile(inner, 0.6827)).mean())


def _lagged(error, lit, reach=8):
    """Sums over pairs of lit pixels of products of errors, and numbers of pairs, (2, 2 reach + 1, 2 reach + 1)."""
    shape = [n + reach for n in error.shape[-2:]]
    out = []
    for values in (error * lit, lit.float()):
        power = torch.fft.rfft2(values.float(), s=shape).abs().square()
        lags = torch.fft.irfft2(power, s=shape).sum((0, 1))
        out.append(torch.roll(lags, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1])
    return torch.stack(out).double().cpu().numpy()


def _kernel(products):
    """The kernel that correlates white noise as the errors are, as nested lists."""
    from astrogan.backends.classic.correlated_noise import CorrelatedNoise

    correlation = products[0] / np.maximum(products[1], 1)
    correlation /= correlation[correlation.shape[0] // 2, correlation.shape[1] // 2]
    kernel = CorrelatedNoise(autocorrelation=correlation).kernel
    return np.round(kernel, 5).tolist()


@torch.no_grad()
def sheet(module, batch):
    """Rows of a sample sheet: both surveys' images of a galaxy, and each as translated from the other.

    Parameters
    ----------
    module : SurveyNetModule
    batch : dict of `torch.Tensor`

    Returns
    -------
    rows : list of list of `numpy.ndarray`
        (band, y, x), from 0 to 1.
    titles : tuple of str
    """
    batch = {name: value.to(module.device) for name, value in batch.items()}
    there = translate(module.average, batch, batch["x"], "x", "y")[0]
    back = translate(module.average, batch, batch["y"], "y", "x")[0]
    rows = []
    for i in range(len(there)):
        levels = [_white(batch[side], batch[f"{side}_sigma"], i) for side in _SIDES]
        images = (batch["x"][i], back[i], there[i], batch["y"][i])
        rows.append([_seen(image, levels[place]) for image, place in zip(images, (0, 0, 1, 1), strict=True)])
    return rows, ("first", "second as first", "first as second", "second")


def _white(images, sigma, i):
    """The flux that is white, by the brightest of an image's middle bands."""
    return float(torch.quantile(images[i].flatten(), 0.999)), float(sigma[i].median())


def _seen(image, levels):
    peak, sigma = levels
    image = torch.asinh(image.float().cpu() / (3 * sigma)) / math.asinh(max(peak / (3 * sigma), 1))
    number = len(image)
    # Red first: the reddest three of the middle bands.
    order = [min(number - 1, number // 2 + k) for k in (1, 0, -1)] if number >= 3 else [0] * 3
    return image[order].clamp(0, 1).numpy()
