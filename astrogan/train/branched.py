"""Training of the branched deblending GAN (Reiman & Gohre 2019, MNRAS 485, 2617)."""

from __future__ import annotations

import copy
import math

import lightning
import numpy as np
import torch
from torch.nn import functional

from astrogan.exceptions import InputError
from astrogan.nn.branched import BranchedDiscriminator, BranchedGenerator, ms_ssim
from astrogan.nn.losses import psnr_loss
from astrogan.train._averaging import step_if_finite, update_average

__all__ = ["BranchedModule", "BranchedStream", "evaluation", "sheet"]

_STAMP, _CROP = 80, 240
_FULL = 255
_CACHE_BYTES = 1_600_000_000  # the stamps of the Galaxy Zoo challenge are half a megabyte each

# Part of the L1 error in the burn-in's loss, as it goes best with MS-SSIM (Zhao et al. 2017, section III.D).
_L1_PART = 0.16

_RULES = ("branched", "paper2019")
_SCHEDULES = ("step", "cosine")


class BranchedModule(lightning.LightningModule):
    """`~astrogan.nn.branched.BranchedGenerator` against a discriminator, with averaged weights.

    First ``burn_in`` steps without an adversary; then, each step, one of the discriminator (binary cross entropy of
    both branches' real and separated galaxies) and one of the generator, (MSE + ``adversarial_weight`` BCE) / 2, each
    the sum over the two branches, in the networks' range [-1, 1].

    Parameters
    ----------
    network : dict, optional
        Keyword arguments of the generator.
    steps : int
        Of the whole run, the burn-in's among them (published: 2,000 and 200,000).
    discriminator_width : int
        Channels of the discriminator's first convolution.
    burn_in : int
        Steps before the adversary.
    learning_rate : float
        Of Adam, for both networks.
    schedule : {'step', 'cosine'}
        As published, a tenth of the rate from the middle of the adversarial part on; or, for short runs, down to zero
        along a cosine over the whole run.
    warmup : int
        Steps over which the rate rises at first; none as published.
    adversarial_weight : float
        Of the generator's cross entropy.
    average : float
        Decay of the exponential moving average of the generator's weights and running statistics, which is what is
        exported.
    seed : int
        Of the initial weights.

    Raises
    ------
    InputError
        If a number cannot be, or the schedule is unknown.

    Notes
    -----
    Where it differs from the paper: the burn-in there is on features of VGG19, trained on photographs, which cannot be
    had everywhere; here it is 0.84 (1 - MS-SSIM) + 0.16 L1 (Zhao et al. 2017), at three scales. Nothing is averaged
    over steps there. The gradient's norm is bounded here.

    The released code does not run to the end. What is put right:

    - its loop compares with a variable that is nowhere defined and ends in the first adversarial step, silently,
      because a ``return`` in ``finally`` swallows the error: the rate is never lowered, no checkpoint written;
    - a summary is asked for where ``batch % 100`` equals the interval, 100, that is never: here every step is logged;
    - training mode is a Python flag read when the graph is built, so that evaluation, too, uses the statistics of the
      batch; here it uses the running ones, and one galaxy's result does not depend on the others in the batch;
    - the measurement adds to lists that do not exist and returns after the first batch: see `evaluation`;
    - blends go in from 0 to 1 while the galaxies that come out run from -1 to 1; here both run from -1 to 1.
    """

    def __init__(
        self,
        network=None,
        *,
        steps,
        discriminator_width=64,
        burn_in=2000,
        learning_rate=1e-4,
        schedule="step",
        warmup=0,
        adversarial_weight=1e-3,
        average=0.999,
        seed=0,
    ):
        super().__init__()
        if schedule not in _SCHEDULES:
            raise InputError(f"schedule={schedule!r} must be one of {', '.join(_SCHEDULES)}")
        for name, value in (("learning_rate", learning_rate), ("adversarial_weight", adversarial_weight)):
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name}={value!r} must be a number of at least 0")
        if not 0 <= average < 1:
            raise InputError(f"average={average!r} must be a number from 0 to below 1")
        for name, value in (("burn_in", burn_in), ("warmup", warmup)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"{name}={value!r} must be an integer of at least 0")
        self.automatic_optimization = False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = BranchedGenerator(**(network or {})).to(memory_format=torch.channels_last)
            self.discriminator = BranchedDiscriminator(discriminator_width, self.network.bands)
        self.discriminator = self.discriminator.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.steps, self.burn_in, self.warmup = int(steps), burn_in, warmup
        self.learning_rate, self.schedule = float(learning_rate), schedule
        self.adversarial_weight, self.decay = float(adversarial_weight), float(average)

    @property
    def exported(self):
        """The network whose weights are kept: the average."""
        return self.average

    @property
    def architecture(self):
        """Keyword arguments of the generator."""
        return dict(self.network.architecture)

    @torch.no_grad()
    def separated(self, batch):
        """What the averaged network makes of a batch: (first, second), (n, band, y, x) in [0, 1]."""
        # In evaluation mode whatever the module is in: its statistics are averages, too, and no batch may change them.
        mode = self.average.training
        images = self.average.eval()(_channels_last(2 * batch["blended"] - 1))
        self.average.train(mode)
        return tuple((image + 1) / 2 for image in images)

    def configure_optimizers(self):
        """Adam for the generator and Adam for the discriminator, in that order."""
        networks = (self.network, self.discriminator)
        return [torch.optim.Adam(network.parameters(), lr=self.learning_rate) for network in networks]

    def training_step(self, batch, batch_idx):
        """One step of each network, or of the generator alone during the burn-in.

        Parameters
        ----------
        batch : dict of `torch.Tensor`
            ``blended``, ``first`` and ``second``, (n, band, 80, 80) in [0, 1].
        batch_idx : int
            Not used.
        """
        to_generator, to_discriminator = self.optimizers()
        for optimiser in (to_generator, to_discriminator):
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * self.rate(int(self.steps_done))
        blended, first, second = (_channels_last(2 * batch[key] - 1) for key in ("blended", "first", "second"))
        truth = torch.cat([first, second])
        images = _channels_last(torch.cat(self.network(blended)))
        if int(self.steps_done) < self.burn_in:
            terms = burn_in_losses(images, truth)
        else:
            terms = self._adversarial(to_discriminator, images, truth)
        self._descend(to_generator, sum(terms[name] for name in terms if name != "discriminator"), self.network)
        self.steps_done += 1
        update_average(self.average, self.network, float(self.steps_done), self.decay)
        logged = {f"loss/{name}": value.detach() for name, value in terms.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(blended))

    def _adversarial(self, to_discriminator, images, truth):
        """The discriminator's step, and the generator's losses; each is a sum over branches, as published."""
        real, fake = self.discriminator(truth), self.discriminator(images.detach())
        judged = _cross_entropy(real, 1.0) + _cross_entropy(fake, 0.0)
        self._descend(to_discriminator, judged, self.discriminator)
        frozen = self.discriminator.requires_grad_(False)
        fooled = _cross_entropy(frozen(images), 1.0)
        self.discriminator.requires_grad_(True)
        # Half of a sum over two branches of equal size is the mean over both.
        return {
            "mse": functional.mse_loss(images, truth),
            "adversarial": self.adversarial_weight * fooled,
            "discriminator": judged,
        }

    def rate(self, step):
        """The learning rate of a step, as a part of the whole: it follows from the step alone.

        Parameters
        ----------
        step : int

        Returns
        -------
        float
        """
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        if self.schedule == "cosine":
            return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        middle = self.burn_in + (self.steps - self.burn_in) / 2
        return rise * (1.0 if step < middle else 0.1)

    def _descend(self, optimiser, loss, network):
        optimiser.zero_grad()
        self.manual_backward(loss)
        step_if_finite(optimiser, network.parameters(), 1.0)

    def validation_step(self, batch, batch_idx):
        """PSNR of both branches of the averaged network, and of the blend itself."""
        images = dict(zip(("first", "second"), self.separated(batch), strict=True))
        values = {f"val/psnr_{name}": -psnr_loss(image, batch[name]) for name, image in images.items()}
        values |= {f"val/identity_{name}": -psnr_loss(batch["blended"], batch[name]) for name in images}
        values["val/psnr"] = (values["val/psnr_first"] + values["val/psnr_second"]) / 2
        values["val/identity"] = (values["val/identity_first"] + values["val/identity_second"]) / 2
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(batch["blended"]))


def burn_in_losses(images, truth):
    """0.84 (1 - MS-SSIM) and 0.16 L1, of images in [-1, 1]."""
    with torch.autocast(images.device.type, enabled=False):
        similar = ms_ssim(images.float(), truth.float(), data_range=2.0)
    return {
        "ms_ssim": (1 - _L1_PART) * (1 - similar),
        "l1": _L1_PART * functional.l1_loss(images, truth),
    }


def _cross_entropy(logits, label):
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _channels_last(images):
    return images.contiguous(memory_format=torch.channels_last)


class BranchedStream:
    """Blends of two galaxies by the rule of Reiman & Gohre (2019, section 2), drawn on the fly.

    Of the galaxy at the centre 240 x 240 pixels are cut out and made three times smaller; the other is flipped,
    rotated, scaled and shifted first; of each pixel and colour the larger value is taken
    (`astrogan.simulate.paper_blends.branched_blend`). In training the first is turned by right angles and mirrored,
    too, which is ours.

    Parameters
    ----------
    source : `~astrogan.train.sources.Source`
        Images of three bands, in the linear flux that `~astrogan.image.stretch.GalaxyGAN2017Stretch` makes of a
        picture, of at least 240 pixels along an edge: one part of the split.
    recipe : `~astrogan.train.recipe.Recipe`
        ``batch``, ``seed``, ``crop`` (80), and in ``degradation`` the keywords ``rule`` ('branched', or 'paper2019' to
        mix in blends as those of Usaid et al. 2019, the second galaxy 50 pixels to the right) and ``share`` (part of
        the blends that are of the second kind, 0.5).
    part : {'train', 'validation', 'test'}
        Only training draws its galaxies; the others take one after the other as the first.

    Raises
    ------
    InputError
        If the recipe's crop is not 80, or a keyword is unknown or out of range.

    Notes
    -----
    A batch is a pure function of the seed and the step. Pictures are kept in memory as 8 bit levels, 1.6 GB at most.
    The released code takes its training and test sets from one folder's files; here objects are split by name.
    """

    def __init__(self, source, recipe, part):
        settings = {"rule": "branched", "share": 0.5} | dict(recipe.degradation)
        unknown = sorted(set(settings) - {"rule", "share"})
        if unknown:
            raise InputError(f"recipe [degradation] has unknown keys {', '.join(unknown)}; there are rule, share")
        if settings["rule"] not in _RULES:
            raise InputError(f"recipe degradation.rule={settings['rule']!r} must be one of {', '.join(_RULES)}")
        if not 0 <= settings["share"] <= 1:
            raise InputError(f"recipe degradation.share={settings['share']!r} must be a part, from 0 to 1")
        if recipe.crop != _STAMP:
            raise InputError(f"recipe crop={recipe.crop!r} must be {_STAMP}: blends are {_STAMP} pixels wide")
        self.source, self.size = source, int(recipe.batch)
        self.training = part == "train"
        self.seed = recipe.seed + {"train": 0, "validation": 1_000_003}.get(part, 2_000_003)
        self.share = float(settings["share"]) if settings["rule"] == "paper2019" else 0.0
        self._levels, self._bytes = {}, 0

    def __getstate__(self):
        """Without the pictures kept: a worker process has its own."""
        return vars(self) | {"_levels": {}, "_bytes": 0}

    def batch(self, step):
        """One batch.

        Parameters
        ----------
        step : int

        Returns
        -------
        dict of `numpy.ndarray`
            float32 in [0, 1]: ``blended``, ``first`` (the galaxy at the centre) and ``second``, (n, 3, 80, 80).
        """
        blends = [
            self._blend(np.random.default_rng((self.seed, step, i)), step * self.size + i) for i in range(self.size)
        ]
        return {
            key: np.stack(images).astype(np.float32)
            for key, images in zip(("blended", "first", "second"), zip(*blends, strict=True), strict=True)
        }

    def _blend(self, rng, number):
        from astrogan.simulate.paper_blends import branched_blend

        one = self.source.draw(rng) if self.training else number % len(self.source)
        first, second = self._picture(one), self._picture(self.source.draw(rng))
        if self.training:
            first = np.rot90(first[:, :, :: rng.choice((-1, 1))], rng.integers(4), (1, 2))
        if self.share and rng.random() < self.share:
            return _paper_blend(first, second)
        return branched_blend(first, second, rng)

    def _picture(self, number):
        """Levels in [0, 1] of a stamp, (3, y, x) float32."""
        from astrogan.image.stretch import GalaxyGAN2017Stretch

        levels = self._levels.get(number)
        if levels is None:
            flux = np.asarray(self.source.load(number).data)
            if len(flux) != 3 or min(flux.shape[1:]) < _CROP:
                raise InputError(
                    f"stamp {self.source.name(number)!r} has shape {flux.shape}; blends need 3 bands and at least "
                    f"{_CROP} pixels along an edge"
                )
            levels = np.rint(_FULL * GalaxyGAN2017Stretch().forward(flux)).astype(np.uint8)
            if self._bytes + levels.nbytes <= _CACHE_BYTES:
                self._levels[number] = levels
                self._bytes += levels.nbytes
        return levels / np.float32(_FULL)


def _paper_blend(first, second):
    """A blend as those of Usaid et al. (2019), at the size of the branched rule's."""
    from astrogan.simulate.paper_blends import paper_blend

    blended = paper_blend(first, second, shift=50)
    moved = np.zeros_like(second)
    moved[:, :, 50:] = second[:, :, :-50]
    return tuple(_small(image) for image in (blended, first, moved))


def _small(image):
    """The central 240 x 240 pixels, by means of 3 x 3."""
    y, x = ((n - _CROP) // 2 for n in image.shape[1:])
    crop = image[:, y : y + _CROP, x : x + _CROP]
    return crop.reshape(len(crop), _STAMP, 3, _STAMP, 3).mean((2, 4))


def evaluation(module, recipe, stream):
    """Measure a trained network on the blends of the validation part.

    Parameters
    ----------
    module : `BranchedModule`
    recipe : `~astrogan.train.recipe.Recipe`
    stream : `BranchedStream`
        Of the validation part.

    Returns
    -------
    dict
        ``ranges``, ``calibration`` (`None`) and ``metrics``, a row a branch: PSNR (dB) and SSIM of levels in [0, 1],
        beside those of the blend itself, means over ``images`` blends.

    Notes
    -----
    Every blend counts once; the released code appends to lists that are nowhere defined, and would return after the
    first batch.
    """
    from astrogan.metrics.image import psnr, ssim

    batches = max(1, recipe.validation_images // recipe.batch)
    scores = {branch: [] for branch in ("first", "second")}
    mode = module.training
    module.eval()
    for step in range(batches):
        arrays = stream.batch(step)
        batch = {key: torch.from_numpy(value).to(module.device) for key, value in arrays.items()}
        for branch, images in zip(scores, module.separated(batch), strict=True):
            for truth, image, blend in zip(arrays[branch], images.cpu().numpy(), arrays["blended"], strict=True):
                pairs = [(truth, np.ascontiguousarray(seen)) for seen in (image, blend)]
                scores[branch].append([metric(*pair, data_range=1) for metric in (psnr, ssim) for pair in pairs])
    module.train(mode)
    names = ("psnr", "psnr_identity", "ssim", "ssim_identity")
    return {
        "ranges": {"shift": [10.0, 50.0], "scale": [round(math.exp(-1), 4), round(math.exp(0.5), 4)]},
        "calibration": None,
        "metrics": [
            {"branch": branch, "images": len(rows)}
            | dict(zip(names, (round(float(v), 4) for v in np.mean(rows, axis=0)), strict=True))
            for branch, rows in scores.items()
        ],
    }


def sheet(module, batch, rows=4):
    """Images for a sheet of samples.

    Parameters
    ----------
    module : `BranchedModule`
    batch : dict of `torch.Tensor`
        Of the stream.
    rows : int
        At most so many blends.

    Returns
    -------
    rows : list of list of `numpy.ndarray`
        (band, y, x) in [0, 1].
    titles : tuple of str
        One a column.
    """
    batch = {key: value[:rows].to(module.device) for key, value in batch.items()}
    one, other = module.separated(batch)
    columns = (batch["blended"], one, batch["first"], other, batch["second"])
    images = [[np.asarray(image.float().cpu()) for image in row] for row in zip(*columns, strict=True)]
    return images, ("blend", "branch 1", "first", "branch 2", "second")
