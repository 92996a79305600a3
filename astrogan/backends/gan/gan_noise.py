"""Noise learned by contest: an emulator of each band's noise against a discriminator with a Fourier branch."""

from __future__ import annotations

import numpy as np

from astrogan.backends.classic._amplitudes import Amplitudes, matrix_root
from astrogan.backends.classic._noise_fit import (
    kernel_of_spectrum,
    latent_correlation,
    measure,
    sampling_covariance,
    spectrum_of_autocorrelation,
)
from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.exceptions import CheckpointError, InputError

__all__ = ["GANNoise"]

_SIZE = 7

# What a file of weights has beside the network, with how many axes, each of the bands.
_EXTRA = {"scale": 1, "deviates": 2, "planes": 2, "slope": 1}


class GANNoise(CorrelatedNoise):
    """Gaussian noise whose filter and amplitudes a network learned against another.

    For each band a scalar deviate becomes the image's amplitude through a small network, and a white plane is filtered
    with a symmetric 7 x 7 kernel, as in Lin et al. (2021, arXiv:2101.07389; their figure 2 e and f). `fit` trains both
    against a discriminator that sees the image and its Fourier transform.

    What differs from the paper, unless ``published=True`` is given to `fit`: training begins from the closed form
    (`~astrogan.backends.classic.correlated_noise.CorrelatedNoise`) rather than from random weights; images are in
    units of each band's noise; the deviates of the bands are correlated as measured, and so are the white planes; one
    discriminator sees all bands together; it has no high-pass filter, which is blind on both axes of the Fourier
    plane; the transform is orthonormal; the emulator is averaged over the steps.

    Parameters
    ----------
    weights : str or path, optional
        Name or path of weights that its method ``save`` wrote. Default: no network, a kernel typical of a resampled
        stack.

    Raises
    ------
    CheckpointError
        If the weights are damaged or for another backend.

    Notes
    -----
    A symmetric kernel cannot have correlations that differ between x and y; the closed form can.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.backends.gan.gan_noise import GANNoise
    >>> GANNoise().sample((2, 32, 32), sigma=[1.0, 3.0], rng=np.random.default_rng(0)).shape
    (2, 32, 32)
    """

    def __init__(self, weights=None):
        super().__init__()
        self.net = self.scale = self.deviate_correlation = None
        self.history = []
        if weights is not None:
            self._load(weights)

    @classmethod
    def fit(
        cls,
        images,
        mask=None,
        *,
        signal=None,
        law="auto",
        steps=250,
        batch=None,
        width=None,
        published=False,
        rng=0,
        device="cpu",
        progress=None,
    ):
        """Train on images.

        Parameters
        ----------
        images, mask, signal, law
            As in `~astrogan.backends.classic.correlated_noise.CorrelatedNoise.fit`. Where pixels are masked, they are
            zero in the noise that is made, too.
        steps : int
            Updates of each of the two networks; 0 leaves the closed form as it is.
        batch : int, optional
            Images, or crops of 64 x 64 pixels of larger ones, to an update. Default: 16, and 24 with ``published``.
        width : int, optional
            Channels of the discriminator. Default: 8, and 64 with ``published``.
        published : bool
            Train as in the paper: random start, a discriminator for each band with its fixed high-pass filter and a
            transform that is not normalised, one unit for all bands, amplitudes of each band on their own. The paper
            takes 60,000 steps.
        rng : int or `numpy.random.Generator`
            Seed of the weights, the batches and the noise.
        device : str
            Of torch.
        progress : callable, optional
            ``progress(step, losses)`` after each step.

        Returns
        -------
        GANNoise
            With the losses of each step in ``history``.

        Raises
        ------
        InputError
            If an argument is out of range, or the images cannot be used.
        """
        for name, value, low in (("steps", steps, 0), ("batch", batch, 1), ("width", width, 1)):
            if value is not None and (not isinstance(value, int | np.integer) or value < low):
                raise InputError(f"{name}={value!r} must be an integer of at least {low}")
        from astrogan.backends.gan._noise_contest import Sky

        generator = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
        measured = measure(images, mask, signal, _SIZE)
        noise = cls()
        noise._begin(measured, law, published, generator)
        sky = Sky(measured, noise.scale, batch or (24 if published else 16), generator)
        width = width or (64 if published else 8)
        noise._train(sky, steps, width, published, generator, device, progress)
        noise._adopt(measured.by_band)
        return noise

    def draw_sigma(self, bands, rng):
        """Standard deviations on blank sky for one image, drawn for all bands together.

        Parameters
        ----------
        bands : int
        rng : `numpy.random.Generator`

        Returns
        -------
        `numpy.ndarray`
            (band,).
        """
        if self.net is None:
            return super().draw_sigma(bands, rng)
        deviates = rng.standard_normal(bands)
        if self.kernel.ndim == 2:
            return self._levels_at(deviates[:, np.newaxis])[:, 0]
        if bands != len(self.scale):
            raise InputError(f"the network has {len(self.scale)} bands; the shape asks for {bands}")
        return self._levels_at((matrix_root(self.deviate_correlation) @ deviates)[np.newaxis])[0]

    def save(self, path, card=None, *, overwrite=False):
        """Write the weights and their card.

        Parameters
        ----------
        path : path
            ``NAME.safetensors``.
        card : dict, optional
            What else the card should say; see `astrogan.weights.validate_card`.
        overwrite : bool
            Whether existing files are replaced.

        Returns
        -------
        str
            SHA-256 of the file of tensors.

        Raises
        ------
        InputError
            If nothing was trained, or the card cannot be used.
        """
        import torch

        from astrogan.weights import save_weights

        if self.net is None:
            raise InputError("there is no network to save; train one with GANNoise.fit")
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        correlation = np.eye(len(self.scale)) if self.band_correlation is None else self.band_correlation
        extra = {"scale": self.scale, "deviates": self.deviate_correlation, "planes": correlation}
        if self.signal_slope is not None:
            extra["slope"] = np.atleast_1d(self.signal_slope)
        tensors |= {name: torch.as_tensor(np.array(array), dtype=torch.float32) for name, array in extra.items()}
        architecture = {"bands": self.net.bands, "width": self.net.width, "size": self.net.size}
        fixed = {
            "backend": "gan",
            "role": "noise",
            "architecture": architecture | {"by_band": self.kernel.ndim == 3},
            "bands": self.net.bands,
        }
        return save_weights(path, tensors, (card or {}) | fixed, overwrite=overwrite)

    def _load(self, weights):
        from astrogan.nn.noise_gan import NoiseEmulator
        from astrogan.weights import load_weights
        from astrogan.weights._network import fitted

        loaded = load_weights(weights)
        if (loaded.card["role"], loaded.card["backend"]) != ("noise", "gan"):
            raise CheckpointError(
                f"weights={weights!r} are for the {loaded.card['role']} {loaded.card['backend']!r}; this is the noise "
                "backend 'gan'"
            )
        options = dict(loaded.card["architecture"])
        by_band = bool(options.pop("by_band", True))
        tensors = dict(loaded.tensors)
        extra = {name: tensors.pop(name).double().numpy() for name in _EXTRA if name in tensors}
        own = {name.removeprefix("net."): tensor for name, tensor in tensors.items()}
        self.net = fitted(NoiseEmulator, options, own, weights)
        try:
            _check_extra(extra, self.net.bands)
            self.scale, self._slope = extra["scale"], extra.get("slope")
            self.deviate_correlation, self._planes = extra["deviates"], extra["planes"]
            self._adopt(by_band)
        except ValueError as error:
            raise CheckpointError(f"weights={str(weights)!r} do not fit the card's architecture: {error}") from error

    def _begin(self, measured, law, published, generator):
        """The emulator before training: the closed form, or, as published, random weights."""
        bands = measured.stds.shape[1]
        size = _SIZE
        kernels = kernel_of_spectrum(spectrum_of_autocorrelation(measured.autocorrelation), size)
        kernels = _symmetric(kernels)
        kernels /= np.sqrt((kernels**2).sum(axis=(1, 2), keepdims=True))
        self._slope = measured.slope
        self.net = _seeded_emulator(bands, generator)
        if published:
            self.scale = np.full(bands, float(np.max(measured.sigma)))
            self.deviate_correlation = self._planes = np.eye(bands)
            return
        amplitudes = Amplitudes.fit(measured.stds, sampling_covariance(measured, kernels), law)
        if amplitudes is None:
            amplitudes = Amplitudes(np.log(measured.stds[0]), np.zeros(bands), np.eye(bands))
        self.scale = np.exp(amplitudes.mean)
        self.deviate_correlation = amplitudes.correlation
        self._planes = latent_correlation(measured.cross, kernels)
        _set_closed_form(self.net, kernels, amplitudes, self.scale)

    def _train(self, sky, steps, width, published, generator, device, progress):
        from astrogan.backends.gan._device import device_of
        from astrogan.backends.gan._noise_contest import Contest

        device = device_of(device)
        roots = [matrix_root(m) for m in (self.deviate_correlation, self._planes)]
        contest = Contest(self.net, roots, width, published, generator, device, steps)
        for step in range(steps):
            losses = contest.step(*sky.batch())
            self.history.append(losses)
            if progress is not None:
                progress(step + 1, losses)
        self.net = contest.result()

    def _adopt(self, by_band):
        """Take kernel, level and correlations from the network."""
        kernels = self.net.symmetric_kernel().detach().cpu().double().numpy()[:, 0]
        # Level of the mean square over the law of the amplitude.
        nodes, weights = np.polynomial.hermite_e.hermegauss(24)
        levels = self._levels_at(np.repeat(nodes[:, np.newaxis], len(self.scale), axis=1))
        sigma = np.sqrt((weights[:, np.newaxis] * levels**2).sum(axis=0) / weights.sum())
        one = slice(None) if by_band else 0
        CorrelatedNoise.__init__(
            self,
            kernels[one],
            sigma=sigma[one],
            signal_slope=None if self._slope is None else self._slope[one],
            band_correlation=self._planes if by_band else None,
        )

    def _levels_at(self, deviates):
        """Standard deviations (n, band) of deviates (n, band)."""
        import torch

        with torch.no_grad():
            amplitude = self.net.amplitude(torch.as_tensor(deviates, dtype=torch.float32)).double().numpy()
            norm = self.net.symmetric_kernel().double().square().sum((1, 2, 3)).sqrt().numpy()
        return amplitude * norm * self.scale


def _check_extra(extra, bands):
    """Refuse other shapes than those of the bands, and levels that are none."""
    for name, axes in _EXTRA.items():
        if name not in extra and name != "slope":
            raise ValueError(f"tensor {name!r} is missing")
        if name in extra and extra[name].shape != axes * (bands,):
            raise ValueError(f"tensor {name!r} has shape {extra[name].shape}, not {axes * (bands,)}")
    if not (extra["scale"] > 0).all():
        raise ValueError("tensor 'scale' must be positive")


def _seeded_emulator(bands, generator):
    from astrogan.backends.gan._noise_contest import seeded
    from astrogan.nn.noise_gan import NoiseEmulator

    with seeded(generator):
        return NoiseEmulator(bands, size=_SIZE)


def _symmetric(kernels):
    turned = sum(np.rot90(kernels, k, (1, 2)) for k in range(4)) / 4
    return (turned + turned[:, :, ::-1]) / 2


def _set_closed_form(net, kernels, amplitudes, scale, iterations=60):
    """Give the emulator the measured kernel, and its amplitude the measured law, by a regression."""
    import torch

    z = np.repeat(np.linspace(-3.5, 3.5, 71)[:, np.newaxis], net.bands, axis=1)
    wanted = torch.as_tensor(amplitudes.at(z) / scale, dtype=torch.float32)
    weight = torch.as_tensor(np.exp(-(z**2) / 2) + 0.02, dtype=torch.float32)
    deviates = torch.as_tensor(z, dtype=torch.float32)
    with torch.no_grad():
        net.kernel.copy_(torch.as_tensor(kernels[:, np.newaxis], dtype=torch.float32))
    layers = [*net.weights, *net.biases]
    optimiser = torch.optim.LBFGS(layers, max_iter=iterations, line_search_fn="strong_wolfe")

    def miss():
        optimiser.zero_grad()
        loss = (weight * (torch.log(net.amplitude(deviates)) - torch.log(wanted)) ** 2).mean() * 1e3
        loss.backward(inputs=layers)
        return loss

    optimiser.step(miss)
