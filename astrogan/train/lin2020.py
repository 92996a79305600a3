"""Training of the translation networks of Lin et al. 2021 (ICPR 2020, arXiv:2101.07389) and of those beside them."""

from __future__ import annotations

import math

import lightning
import torch
from torch import nn

from astrogan.exceptions import InputError
from astrogan.nn.cyclegan import LatentDiscriminator, LatentEncoder, PatchDiscriminator
from astrogan.nn.lin2020 import SHAPES, Autoencoder, Lin2020Translator, rescaled, shrunk
from astrogan.train._averaging import step_if_finite
from astrogan.train._lin2020_parts import (
    VARIANTS,
    BandJudges,
    channels_last,
    cross_entropy,
    frozen,
    listed,
    mse,
    set_level,
)
from astrogan.train._lin2020_report import (
    DIRECTIONS,
    RATIO,
    border_noise,
    evaluation,
    relative_error,
    resampled,
    sheet,
    truths,
)
from astrogan.train.gan import dropout_generator
from astrogan.train.survey_stream import SurveyStream as Lin2020Stream

__all__ = ["VARIANTS", "Lin2020Module", "Lin2020Stream", "evaluation", "sheet"]

# Of all image losses where there is an adversary to hold them against.
_IMAGE_WEIGHT = 1000.0

_CONTEST = ("discriminator", "noise")
_UNPAIRED = {"x": "u", "y": "v"}


class Lin2020Module(lightning.LightningModule):
    """The two training steps of Lin et al. 2021, or one of the methods that it compares with.

    X is the survey with 64 x 64 pixels, Y that with 136 x 136; u and v are unpaired stamps of them, x and y paired
    ones. All losses are of rescaled images (`~astrogan.nn.lin2020.rescaled`); MSE is the mean over all pixels and
    bands, BCE the binary cross entropy of the discriminators' logits, of which there is one a band. With autoencoders
    A, generators G, noise emulators NE and discriminators D, ``variant="lin2020"`` does, in each iteration

    - of its first step (``noise_steps`` iterations), with u and v only: one update of A with MSE(A_X(u), u) +
      MSE(A_Y(v), v); one of D with the BCE of u and v taken for real, and A_X(u) + NE_X, A_Y(v) + NE_Y for made; one
      of NE with the BCE of those taken for real;
    - of its second step: one update of G with MSE(G_YX(G_XY(u) + NE_Y), u) + MSE(G_XY(G_YX(v) + NE_X), v) (cycle) +
      MSE(G_XY(x), y) + MSE(G_YX(y), x) (paired). NE stays as it is, and there is no adversary.

    Adam; the norm of the gradient of all parameters of an update is bounded by ``clip``.

    Parameters
    ----------
    network : dict, optional
        ``width`` and ``bands`` of `~astrogan.nn.lin2020.Lin2020Translator`; all other networks get them, too.
    steps : int
        Of the whole run, the first step's among them (published: 60,000 and 60,000; the variants have one step).
    variant : str
        ``"lin2020"`` (the paper's method), or what it compares with:

        ====================== =================================================================================
        ``pix2pix``            (a) 1000 paired + adversarial
        ``cyclegan``           (b) 1000 cycle + adversarial
        ``cyclegan-identity``  (c) 1000 (cycle + pseudo-identity) + adversarial
        ``cyclegan-paired``    (d) 1000 (cycle + paired) + adversarial
        ``pixelshuffle``       (e) as (d), the generators with pixel shuffling
        ``no-autoencoder``     (f) one step: G by cycle and paired, as in the second step, but with an NE that still
                               learns; D and NE as in the first, with G_YX(v) and G_XY(u) in place of A
        ``cyclegan-regridded`` (g) 1000 cycle + adversarial, networks of CycleGAN, Y regridded to 64 x 64 pixels
        ``augcgan``            (h) Augmented CycleGAN: 1000 (cycle + paired) + latent cycle + adversarial, images and
                               latent codes, on the same stamps
        ====================== =================================================================================

        (a) to (e), (g) and (h) have no noise emulator. In them D and then G are updated in each iteration. The
        adversary sees unpaired stamps. Pseudo-identity is the MSE of G_XY(u), shrunk to 64 x 64 pixels and times the
        ratio of the pixel scales, from u, plus that of G_YX(v) from v, shrunk alike.
    noise_steps : int, optional
        Iterations of the first step. Default: half of ``steps``. Only ``"lin2020"`` has one.
    learning_rate : float
        At the beginning of either step.
    contest_rate : float
        The same for discriminators and noise emulators; 0 stands for ``learning_rate``, as published.
    decay : float
        What the learning rate is divided by, again and again.
    decay_every : int
        After so many iterations of a step; 0 stands for a third of the step (published: 20,000 of 60,000).
    clip : float
        Largest norm of a gradient.
    autoencoder_steps : int
        Iterations at the beginning of the first step in which only the autoencoders learn. Ours, for short runs: as
        long as they show blocks that are brighter than the noise, the discriminators see nothing else.
    noise_start : bool
        Whether emulated noise begins at the level of the borders of the batch at hand. Ours, for short runs: in the
        paper it starts far too high, by factors of 2 to 600.
    seed : int
        Of the initial weights, and with the number of the iteration of all noise and latent codes.

    Raises
    ------
    InputError
        If the variant is unknown, or a number cannot be.

    Notes
    -----
    After the paper, its poster, and the behaviour of the authors' program, of which nothing is copied. Where it
    differs:

    - the two steps are one run, of which the second begins with the noise emulators as the first left them; the
      program's are two runs, and the learning rate begins anew in the second as it does here;
    - augmentation is the stream's: all eight ways to turn and mirror a stamp, equally often; in the program flips are
      drawn from three of the four cases;
    - sums of images are in float32 whatever the precision of the convolutions;
    - an update whose gradient is not finite is left out;
    - the deviates of the noise come from a generator of the iteration's own.

    Our interpretation, not the paper's: stamps of (g) and (h) are regridded linearly in flux, centre on centre, by the
    ratio of the pixel scales, and multiplied by the pixels' area; their results are brought back to 136 x 136 pixels in
    the same way. The paper's figure and numbers for them are on the 64 x 64 pixels themselves.
    """

    def __init__(
        self,
        network=None,
        *,
        steps,
        variant="lin2020",
        noise_steps=None,
        learning_rate=1e-4,
        contest_rate=0.0,
        decay=5.0,
        decay_every=0,
        clip=5.0,
        autoencoder_steps=0,
        noise_start=False,
        seed=0,
    ):
        super().__init__()
        if variant not in VARIANTS:
            raise InputError(f"variant={variant!r} must be one of {', '.join(VARIANTS)}")
        own = {"upsampling", "generators", "noise"} & set(network or {})
        if own:
            raise InputError(f"network has {', '.join(sorted(own))}, which the variant says; give training.variant")
        for name, value in (("learning_rate", learning_rate), ("decay", decay), ("clip", clip)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name}={value!r} must be a positive number")
        if not (math.isfinite(contest_rate) and contest_rate >= 0):
            raise InputError(f"contest_rate={contest_rate!r} must be a number of at least 0")
        noise_steps = steps // 2 if noise_steps is None else noise_steps
        for name, value in (
            ("noise_steps", noise_steps),
            ("decay_every", decay_every),
            ("autoencoder_steps", autoencoder_steps),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"{name}={value!r} must be an integer of at least 0")
        self.automatic_optimization = False
        self.variant = VARIANTS[variant]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(network or {})
        self.to(memory_format=torch.channels_last)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.steps, self.seed = int(steps), int(seed)
        self.noise_steps = min(noise_steps, self.steps) if self.variant.autoencoders else 0
        self.autoencoder_steps = autoencoder_steps if self.variant.autoencoders else 0
        self.learning_rate, self.decay, self.decay_every = float(learning_rate), float(decay), decay_every
        self.contest_factor = float(contest_rate) / self.learning_rate if contest_rate else 1.0
        self.clip, self.noise_start = float(clip), bool(noise_start)

    def _build(self, network):
        variant = self.variant
        self.translator = Lin2020Translator(
            **network, upsampling=variant.upsampling, generators=variant.generators, noise=variant.noise
        )
        bands, width = self.translator.architecture["bands"], self.translator.architecture["width"]
        both = ("x", "y")
        self.autoencoders = nn.ModuleDict({s: Autoencoder(bands, width) for s in both} if variant.autoencoders else {})
        self.encoders = nn.ModuleDict({s: LatentEncoder(bands, width) for s in both} if self.translator.latent else {})
        judge = BandJudges if variant.generators == "lin2020" else PatchDiscriminator
        self.discriminator = nn.ModuleDict({s: judge(bands, width) for s in both} if variant.judged else {})
        for survey in both if self.translator.latent else ():
            self.discriminator[f"latent_{survey}"] = LatentDiscriminator()

    @property
    def exported(self):
        """The networks whose weights are kept: generators and noise emulators."""
        return self.translator

    @property
    def architecture(self):
        """Keyword arguments of the network."""
        return dict(self.translator.architecture)

    def _groups(self):
        """Networks that are updated together, by name, in the order of the optimisers."""
        generators = nn.ModuleList([self.translator.generators, self.encoders])
        groups = {
            "autoencoders": self.autoencoders,
            "discriminator": self.discriminator,
            "noise": self.translator.noise,
            "generators": generators,
        }
        return {name: group for name, group in groups.items() if next(group.parameters(), None) is not None}

    def configure_optimizers(self):
        """An Adam for each of autoencoders, discriminators, noise emulators and generators, as far as there are any."""
        return [torch.optim.Adam(group.parameters(), lr=self.learning_rate) for group in self._groups().values()]

    def rate(self, step):
        """The learning rate of an iteration.

        Parameters
        ----------
        step : int

        Returns
        -------
        float
        """
        first = step < self.noise_steps
        within, length = (step, self.noise_steps) if first else (step - self.noise_steps, self.steps - self.noise_steps)
        every = self.decay_every or max(1, math.ceil(length / 3))
        return self.learning_rate / self.decay ** (within // every)

    def training_step(self, batch, batch_idx):
        """One iteration.

        Parameters
        ----------
        batch : dict of `torch.Tensor`
            Nanomaggies a pixel: ``x`` (n, band, 64, 64) and ``y`` (n, band, 136, 136), paired; ``u`` and ``v``, of the
            same surveys, unpaired.
        batch_idx : int
            Not used.
        """
        step = int(self.steps_done)
        optimisers = dict(zip(self._groups(), listed(self.optimizers()), strict=True))
        for name, optimiser in optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = self.rate(step) * (self.contest_factor if name in _CONTEST else 1.0)
        rank = getattr(self._trainer, "global_rank", 0) if self._trainer is not None else 0
        generator = dropout_generator(self.seed, step, rank)
        images = self._seen(batch)
        if step == self.autoencoder_steps and self.noise_start and self.variant.noise:
            for survey in "xy":
                set_level(self.translator.noise[survey], border_noise(images[_UNPAIRED[survey]]).median(0).values)
        if step < self.noise_steps:
            terms = self._first_step(optimisers, images, generator)
        elif self.variant.adversary:
            terms = self._contest(optimisers, images, generator)
        else:
            terms = self._second_step(optimisers, images, generator)
        self.steps_done += 1
        logged = {f"loss/{name}": value.detach() for name, value in terms.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch["x"]))

    def _seen(self, batch):
        """Rescaled stamps by name, as the networks take them."""
        flux = {name: batch[name].float() for name in "xyuv"}
        if self.translator.regrids:
            flux |= {name: self.translator.small(flux[name]) for name in "yv"}
        return {name: channels_last(rescaled(images)) for name, images in flux.items()}

    # ---- steps --------------------------------------------------------------------------------------------------

    def _first_step(self, optimisers, images, generator):
        """Autoencoders, then discriminators and noise emulators with what they make."""
        unpaired = {survey: images[_UNPAIRED[survey]] for survey in "xy"}
        error = sum(mse(self.autoencoders[s](unpaired[s]), unpaired[s]) for s in "xy")
        self._descend(optimisers, "autoencoders", error)
        if int(self.steps_done) < self.autoencoder_steps:
            return {"autoencoders": error}
        with torch.no_grad():
            smooth = {s: self.autoencoders[s](unpaired[s]).float() for s in "xy"}
        return {"autoencoders": error, **self._noise_contest(optimisers, unpaired, smooth, generator)}

    def _second_step(self, optimisers, images, generator):
        """Generators without an adversary; in variant (f) discriminators and noise emulators after them."""
        made = self._made(images, generator)
        terms = self._image_losses(images, made)
        self._descend(optimisers, "generators", sum(terms.values()))
        if self.variant.autoencoders:
            return terms
        unpaired = {survey: images[_UNPAIRED[survey]] for survey in "xy"}
        with torch.no_grad():
            smooth = {to: self._generate(way, unpaired[of]) for way, (of, to) in DIRECTIONS.items()}
        return terms | self._noise_contest(optimisers, unpaired, smooth, generator)

    def _noise_contest(self, optimisers, real, smooth, generator):
        """One update of the discriminators and one of the noise emulators."""
        with torch.no_grad():
            fake = self._noisy(smooth, generator)
        judged = self._judged(real, fake)
        self._descend(optimisers, "discriminator", judged)
        fake = self._noisy(smooth, generator)
        with frozen(self.discriminator):
            fooled = self._fooled(fake)
        self._descend(optimisers, "noise", fooled)
        return {"discriminator": judged, "noise": fooled}

    def _contest(self, optimisers, images, generator):
        """One update of the discriminators, and one of the generators against them."""
        codes = self._codes(len(images["x"]), generator, images["x"].device)
        made = self._made(images, generator, codes)
        real = {survey: images[_UNPAIRED[survey]] for survey in "xy"}
        fake = {survey: made[f"{survey}~"] for survey in "xy"}
        code = {name: made[f"{name} code"] for name in codes}
        detached = [{name: value.detach() for name, value in group.items()} for group in (fake, code)]
        judged = self._judged(real, detached[0]) + self._judged(codes, detached[1])
        self._descend(optimisers, "discriminator", judged)
        terms = {name: _IMAGE_WEIGHT * value for name, value in self._image_losses(images, made).items()}
        with frozen(self.discriminator):
            terms["adversarial"] = self._fooled(fake) + self._fooled(code)
        if codes:
            terms["latent"] = sum(mse(made[f"{name} code back"], codes[name]) for name in ("latent_x", "latent_y"))
        self._descend(optimisers, "generators", sum(terms.values()))
        return terms | {"discriminator": judged}

    # ---- what is made -------------------------------------------------------------------------------------------

    def _made(self, images, generator, codes=None):
        """What the generators make of a batch, float32: ``x~`` and ``y~`` of unpaired stamps, ``x'`` and ``y'`` there
        and back, ``x^`` and ``y^`` of paired ones.
        """
        codes = codes or {}
        made, noisy = {}, {}
        for way, (of, to) in DIRECTIONS.items():
            # Both in one pass: one batch is quicker than two.
            seen = [images[_UNPAIRED[of]], *([images[of]] if self.variant.paired else [])]
            code = [codes[name] for name in (f"latent_{to}", f"latent_{to} paired") if name in codes]
            parts = self._generate(way, torch.cat(seen), torch.cat(code) if code else None).split(len(images[of]))
            made |= dict(zip((f"{to}~", f"{to}^"), parts, strict=False))
            noisy[to] = made[f"{to}~"]
            if self.variant.noise:
                with torch.no_grad():
                    noise = self._noise(to, noisy[to], generator)
                noisy[to] = noisy[to] + noise
        if codes:
            made |= self._encoded(images, made)
        if self.variant.cycle:
            for way, (of, to) in DIRECTIONS.items():
                made[f"{to}'"] = self._generate(way, noisy[of], made.get(f"latent_{to} code"))
        return made

    def _generate(self, way, images, code=None):
        return self.translator.generators[way](channels_last(images), code).float()

    def _noise(self, survey, images, generator):
        return self.translator.noise[survey].sample(len(images), images.shape[-2:], generator)

    def _noisy(self, smooth, generator):
        return {survey: smooth[survey] + self._noise(survey, smooth[survey], generator) for survey in "xy"}

    def _codes(self, number, generator, device):
        """Latent codes by the discriminator that judges them; none but in Augmented CycleGAN."""
        if not self.translator.latent:
            return {}
        names = ("latent_x", "latent_y", "latent_x paired", "latent_y paired")
        return {name: self.translator.draw_latent(number, generator).to(device) for name in names}

    def _encoded(self, images, made):
        """Codes that the encoders find: of unpaired stamps and what was made of them, of pairs, and of what was made
        with a code and that which it was made of.
        """
        pairs = {
            "latent_x code": ("x", images["u"], made["y~"]),
            "latent_y code": ("y", images["v"], made["x~"]),
            "latent_x paired code": ("x", images["x"], images["y"]),
            "latent_y paired code": ("y", images["y"], images["x"]),
            "latent_x code back": ("x", made["x~"], images["v"]),
            "latent_y code back": ("y", made["y~"], images["u"]),
        }
        return {name: self.encoders[survey](own, other) for name, (survey, own, other) in pairs.items()}

    # ---- losses -------------------------------------------------------------------------------------------------

    def _image_losses(self, images, made):
        terms = {}
        if self.variant.cycle:
            terms["cycle"] = sum(mse(made[f"{s}'"], images[_UNPAIRED[s]]) for s in "xy")
        if self.variant.paired:
            terms["paired"] = sum(mse(made[f"{s}^"], images[s]) for s in "xy")
        if self.variant.pseudo:
            size = SHAPES["x"][0]
            terms["identity"] = mse(RATIO * shrunk(made["y~"], size), images["u"])
            terms["identity"] = terms["identity"] + mse(made["x~"], RATIO * shrunk(images["v"], size))
        return terms

    def _judged(self, real, fake):
        """What the discriminators are to lower: a sum over surveys, of real ones and of made ones."""
        total = 0.0
        for name in real:
            judge = self.discriminator[name.partition(" ")[0]]
            logits = judge(torch.cat([real[name], fake[name]])).float()
            for part, label in zip(logits.split(len(real[name])), (1.0, 0.0), strict=True):
                total = total + cross_entropy(part, label)
        return total

    def _fooled(self, fake):
        names = {name: name.partition(" ")[0] for name in fake}
        return sum(cross_entropy(self.discriminator[judge](fake[name]).float(), 1.0) for name, judge in names.items())

    def _descend(self, optimisers, group, loss):
        optimiser = optimisers[group]
        optimiser.zero_grad()
        self.manual_backward(loss)
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        step_if_finite(optimiser, parameters, self.clip)

    # ---- looking on ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def translated(self, batch, *, noise=True, seed=0):
        """Paired stamps translated, both ways.

        Parameters
        ----------
        batch : dict of `torch.Tensor`
            ``x`` and ``y`` in nanomaggies.
        noise : bool
            Whether noise is added, where there is an emulator.
        seed : int
            Of the noise.

        Returns
        -------
        dict of `torch.Tensor`
            ``y``, made of x, and ``x``, made of y, in nanomaggies.
        """
        generator = torch.Generator().manual_seed(seed)
        return {
            to: self.translator.translated(batch[of].float(), way, generator=generator, noise=noise)
            for way, (of, to) in DIRECTIONS.items()
        }

    def validation_step(self, batch, batch_idx):
        """Median relative error of paired stamps, both ways, and of plain interpolation."""
        made = {"": self.translated(batch, noise=False), "_resampled": resampled(batch)}
        wanted = truths(batch)
        errors = ((f"{to}{row}", relative_error(images[to], wanted[to])) for row, images in made.items() for to in "xy")
        values = {f"val/{name}": error.median() for name, error in errors}
        values["val/mean"] = (values["val/x"] + values["val/y"]) / 2
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(batch["x"]))
