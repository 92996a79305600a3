"""Training of GalaxyGAN (Schawinski et al. 2017, MNRAS 467, L110): pix2pix, a BCE adversarial loss and 100 times L1."""

from __future__ import annotations

from contextlib import contextmanager

import lightning
import numpy as np
import torch
from torch.nn import functional

from astrogan.exceptions import InputError
from astrogan.nn.pix2pix import PatchGAN, UNet256, resize

__all__ = [
    "GANStep",
    "GalaxyGAN2017Module",
    "discriminator_loss",
    "dropout_generator",
    "generator_loss",
    "training_crop",
]


def training_crop(degraded, original, rng, *, load=286, size=256):
    """Resize a pair, crop the same random part of both, and mirror it left to right half of the time.

    Parameters
    ----------
    degraded, original : `torch.Tensor`
        (..., y, x) of the same y and x, 424 in the paper, stretched.
    rng : `numpy.random.Generator`
        Drawn from three times a call.
    load : int, optional
        Pixels along an edge after resizing, see `~astrogan.nn.pix2pix.resize`.
    size : int, optional
        Pixels along an edge of the crop. The authors' offsets, which are kept, run from 1 to ``load - size``: never 0.

    Returns
    -------
    tuple of `torch.Tensor`
        Both, (..., size, size).

    Raises
    ------
    InputError
        If the images differ in size, or ``load`` is less than ``size``.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from astrogan.train.gan import training_crop
    >>> pair = torch.zeros(3, 424, 424), torch.ones(3, 424, 424)
    >>> [tuple(image.shape) for image in training_crop(*pair, np.random.default_rng(0))]
    [(3, 256, 256), (3, 256, 256)]
    """
    if degraded.shape[-2:] != original.shape[-2:]:
        raise InputError(
            f"original has shape {tuple(original.shape)}, degraded {tuple(degraded.shape)}: (y, x) must agree"
        )
    if load < size:
        raise InputError(f"load={load!r} must be at least size={size!r}")
    spare = load - size
    y, x = (int(rng.integers(min(1, spare), spare, endpoint=True)) for _ in range(2))
    mirror = bool(rng.random() > 0.5)
    return tuple(_crop(image, load, y, x, size, mirror) for image in (degraded, original))


def _crop(image, load, y, x, size, mirror):
    part = resize(image, load)[..., y : y + size, x : x + size]
    return (part.flip(-1) if mirror else part).contiguous()


def dropout_generator(seed, step, rank=0):
    """The `torch.Generator` that a step's dropout draws from: the same for the same numbers, resumed or not.

    Parameters
    ----------
    seed : int
        Of the run.
    step : int
        Batches done before this one.
    rank : int, optional
        Of the process, where several train together.

    Returns
    -------
    `torch.Generator`
        On the CPU.

    Examples
    --------
    >>> import torch
    >>> from astrogan.train.gan import dropout_generator
    >>> draws = [torch.rand(2, generator=dropout_generator(0, step)) for step in (5, 5, 6)]
    >>> torch.equal(draws[0], draws[1]), torch.equal(draws[0], draws[2])
    (True, False)
    """
    words = np.random.SeedSequence((seed, step, rank)).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


def discriminator_loss(real, fake):
    """Half the binary cross entropy of real pairs taken for real plus that of fake ones taken for fake.

    Parameters
    ----------
    real, fake : `torch.Tensor`
        Logits of the discriminator.

    Returns
    -------
    `torch.Tensor`
        A number; ln 2 where the discriminator cannot tell.
    """
    return (_cross_entropy(real, 1.0) + _cross_entropy(fake, 0.0)) / 2


def generator_loss(logits, fake, original, l1_weight=100.0):
    """Binary cross entropy of fake pairs taken for real, plus the weighted mean absolute error.

    Parameters
    ----------
    logits : `torch.Tensor`
        Of the discriminator for the fake pairs.
    fake, original : `torch.Tensor`
        What the generator made, and what it should have made.
    l1_weight : float, optional
        Of the absolute error, in the range [-1, 1] of the networks.

    Returns
    -------
    total, adversarial, l1 : `torch.Tensor`
        Numbers; ``total = adversarial + l1_weight * l1``.
    """
    adversarial, l1 = _cross_entropy(logits, 1.0), functional.l1_loss(fake, original)
    return adversarial + l1_weight * l1, adversarial, l1


def _cross_entropy(logits, label):
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


class GANStep:
    """The two losses of a training step, without a loop or an optimiser.

    Parameters
    ----------
    generator : `~astrogan.nn.pix2pix.UNet256`
    discriminator : `~astrogan.nn.pix2pix.PatchGAN`
    l1_weight : float, optional
        Of the mean absolute error.

    Examples
    --------
    >>> import torch
    >>> from astrogan.nn.pix2pix import PatchGAN, UNet256
    >>> from astrogan.train.gan import GANStep, dropout_generator
    >>> step = GANStep(UNet256(width=2), PatchGAN(width=2))
    >>> degraded = original = torch.zeros(1, 3, 256, 256)
    >>> fake = step.fake(degraded, dropout_generator(0, 0))
    >>> loss, adversarial, l1 = step.generator_loss(degraded, original, fake)
    >>> torch.allclose(loss, adversarial + 100 * l1)
    True
    """

    def __init__(self, generator, discriminator, l1_weight=100.0):
        self.generator = generator
        self.discriminator = discriminator
        self.l1_weight = float(l1_weight)

    def fake(self, degraded, dropout):
        """What the generator makes of ``degraded`` with the dropout that a `torch.Generator` gives."""
        return self.generator(degraded, generator=dropout)

    def discriminator_loss(self, degraded, original, fake):
        """Loss of the discriminator; nothing of it reaches the generator.

        Parameters
        ----------
        degraded, original, fake : `torch.Tensor`
            (n, 3, y, x) in [-1, 1].

        Returns
        -------
        `torch.Tensor`
        """
        return discriminator_loss(self._judge(degraded, original), self._judge(degraded, fake.detach()))

    def generator_loss(self, degraded, original, fake):
        """Loss of the generator; nothing of it reaches the discriminator.

        Parameters
        ----------
        degraded, original, fake : `torch.Tensor`
            (n, 3, y, x) in [-1, 1].

        Returns
        -------
        total, adversarial, l1 : `torch.Tensor`
        """
        with _frozen(self.discriminator):
            logits = self._judge(degraded, fake)
        return generator_loss(logits, fake, original, self.l1_weight)

    def _judge(self, degraded, image):
        return self.discriminator(torch.cat([degraded, image], 1))


@contextmanager
def _frozen(module):
    """Parameters of a module without gradients, for as long as its output is computed."""
    wanted = [p for p in module.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


class GalaxyGAN2017Module(lightning.LightningModule):
    """GalaxyGAN as a Lightning module: one step of the discriminator, then one of the generator, for each batch.

    A batch is a dict of ``"degraded"`` and ``"original"``, (n, bands, 256, 256), stretched, in [-1, 1]. The authors
    trained with one image a batch for 20 epochs.

    Parameters
    ----------
    width, ndf : int, optional
        Channels of the first level of generator and discriminator.
    l1_weight : float, optional
        Of the mean absolute error in the generator's loss.
    lr : float, optional
        Learning rate of both optimisers (Adam, betas 0.5 and 0.999), constant.
    seed : int, optional
        Of the initial weights and of the dropout. Dropout depends on it and on the number of the step alone, so that a
        resumed run continues as if it had not been interrupted.
    bands : int, optional
        Of both images.
    dropout : float, optional
        Probability of the generator's dropout.
    bottleneck_norm : bool, optional
        As for `~astrogan.nn.pix2pix.UNet256`.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    Lightning's ``global_step`` and ``max_steps`` count the steps of both optimisers: two a batch. It cannot clip
    gradients of manual optimisation, and the recipe clips none.

    Differences from the authors' program: the generator's gradient comes from the discriminator after its step (theirs
    mixed the activations from before it with the weights after it); the halved loss of the discriminator is halved in
    its gradient too, which Adam does not notice (theirs only printed it halved); convolutions have no biases (theirs
    were kept at zero); Adam adds its epsilon after the bias correction, Torch7's before.

    Examples
    --------
    >>> from astrogan.train.gan import GalaxyGAN2017Module
    >>> module = GalaxyGAN2017Module(width=2, ndf=2)
    >>> module.architecture["width"], sorted(module.generator_state())[0]
    (2, 'decoder.0.conv.weight')
    """

    def __init__(
        self, width=64, ndf=64, l1_weight=100.0, lr=2e-4, seed=0, *, bands=3, dropout=0.5, bottleneck_norm=True
    ):
        super().__init__()
        for name, value in (("l1_weight", l1_weight), ("lr", lr)):
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"{name}={value!r} must be a number of at least 0")
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = UNet256(bands, bands, width, dropout, bottleneck_norm=bottleneck_norm, seed=seed)
        self.discriminator = PatchGAN(2 * bands, ndf, seed=seed + 1)

    @property
    def architecture(self):
        """Keyword arguments of `~astrogan.nn.pix2pix.UNet256` for the card of the weights."""
        return dict(self.generator.architecture)

    def generator_state(self):
        """The generator's weights and running statistics: what restoring needs.

        Returns
        -------
        dict of `torch.Tensor`
            Copies, on the CPU.
        """
        return {key: value.detach().cpu().clone() for key, value in self.generator.state_dict().items()}

    def forward(self, degraded, *, stochastic=None, generator=None):
        """As `~astrogan.nn.pix2pix.UNet256.forward`.

        Parameters
        ----------
        degraded : `torch.Tensor`
            (n, bands, y, x) in [-1, 1].
        stochastic, generator
            See there.

        Returns
        -------
        `torch.Tensor`
        """
        return self.generator(degraded, stochastic=stochastic, generator=generator)

    def training_step(self, batch, batch_idx):
        """One step of the discriminator and one of the generator.

        Parameters
        ----------
        batch : dict of `torch.Tensor`
            ``"degraded"`` and ``"original"``, (n, bands, 256, 256) in [-1, 1].
        batch_idx : int
            Not used: what is random depends on the number of steps done since the beginning of the run.
        """
        degraded, original = batch["degraded"], batch["original"]
        to_generator, to_discriminator = self.optimizers()
        step = GANStep(self.generator, self.discriminator, self.hparams.l1_weight)
        # each of the two optimisers counts as a step
        fake = step.fake(degraded, dropout_generator(self.hparams.seed, self.global_step // 2, self.global_rank))

        d_loss = step.discriminator_loss(degraded, original, fake)
        self._update(to_discriminator, d_loss)
        g_loss, adversarial, l1 = step.generator_loss(degraded, original, fake)
        self._update(to_generator, g_loss)

        losses = {"loss/g_gan": adversarial, "loss/l1": l1, "loss/d": d_loss}
        for name, value in losses.items():
            self.log(name, value.detach(), batch_size=len(degraded))

    def _update(self, optimizer, loss):
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def configure_optimizers(self):
        """Adam for the generator and Adam for the discriminator, in that order."""
        return [
            torch.optim.Adam(net.parameters(), lr=self.hparams.lr, betas=(0.5, 0.999))
            for net in (self.generator, self.discriminator)
        ]
