"""GalaxyGAN as published (Schawinski et al. 2017), flaws included."""

from __future__ import annotations

import numbers
import os
import threading

import numpy as np

from astrogan.api import Estimate, Observation
from astrogan.backends._jpeg import through_jpeg
from astrogan.backends.gan._device import device_of, exact_matmul
from astrogan.backends.gan._network import built
from astrogan.exceptions import InputError
from astrogan.image.stretch import GalaxyGAN2017Stretch

__all__ = ["GalaxyGAN2017"]

_REDUCTION = 256  # the network halves the image eight times


class GalaxyGAN2017:
    """Restore with the GAN of Schawinski et al. (2017, MNRAS 467, L110), step by step as its authors did.

    It exists to reproduce that paper, from weights that the recipe ``galaxygan2017`` trains; none are shipped. For
    anything else use the backend ``nafnet``. The steps, and what is wrong with them:

    1. The flux in nanomaggies is clipped to [-0.1, 4]. Brighter pixels are lost for good (they are flagged), and
       noise below -0.1 is cut off, which lifts the sky of noisy images.
    2. u = (x + 0.1) / 4.1, y = asinh(10 u) / 3. The network therefore depends on the unit of the flux.
    3. Only with ``jpeg``: 8-bit JPEG with chroma subsampling, read back.
    4. The image is resized to 256 x 256 pixels, by means over areas. The paper's stamps have 424, so detail below 1.66
       pixels is gone; and its training images were resized to 286 and cropped, so that galaxies at test time are 12 %
       smaller than any the network has seen.
    5. A U-Net with dropout and batch normalisation by the image's own statistics, both still on. Results are
       stochastic (``rng`` decides), and a pixel depends on all others; the image cannot be cut into tiles.
    6. Back to [0, 1], to the size of the image, to linear flux.

    Parameters
    ----------
    weights : str or path
        Name or path of weights for this backend, see `astrogan.weights.load_weights`. They are read at the first call.
    size : int, optional
        Pixels along an edge of what the network sees, a multiple of 256. The authors' is 256.
    stochastic : bool, optional
        False switches dropout off and takes the running statistics of training: the result is repeatable without
        ``rng`` (not what the authors did).
    jpeg : bool, optional
        Whether the input goes through a JPEG, as the authors' did.
    quality : int, optional
        Of the JPEG.
    nanomaggy : float, optional
        One nanomaggy in the unit of the data.
    device : str, optional
        "auto" (CUDA where there is one, else the CPU) or a device of torch.

    Raises
    ------
    InputError
        If an option is out of range or no weights are named, and at the call, if the image has not three bands or the
        weights are for another backend.
    CheckpointError
        At the call, if the weights are damaged.

    Notes
    -----
    Where it differs from the authors' programs (``roou.m`` and the Torch7 version of pix2pix):

    - Floats all the way, unless ``jpeg``: theirs were 8-bit JPEGs of quality 75, and so were their results.
    - Their JPEG held the degraded and the original image side by side; here it holds the image alone.
    - Their results stayed at 256 x 256 pixels and were compared there. Going back to the image's own pixels (linear
      interpolation, borders aligned) is an addition, without which there would be no result of the input's shape.
      Images that are smaller than ``size`` are enlarged in the same way; theirs never were. An oblong image is squeezed
      into the square, as their program would have done.
    - Channels are in the order of the bands given, i, r, g in the paper; theirs were reversed on the way in and back
      on the way out.
    - Batch statistics are those of one image, as theirs; the innermost level of the network then has one value a
      channel, whose normalisation is a constant (unless the weights were trained with ``bottleneck_norm=False``).
    - Convolutions have no biases; theirs were set to zero before each update.
    - Initial weights are drawn from the same distributions, in torch's order, so that no run can repeat theirs.
    - Dropout's masks are drawn on the CPU, so that a seed gives the same ones on every device.

    The result has no variance: nothing in the method says how far it can be trusted.

    Examples
    --------
    >>> from astrogan.backends.gan.galaxygan2017 import GalaxyGAN2017
    >>> GalaxyGAN2017("RUN/galaxygan2017.safetensors")
    GalaxyGAN2017(weights='RUN/galaxygan2017.safetensors', size=256, stochastic=True, jpeg=False)
    """

    bands = 3
    halo = -1
    needs_psf = False
    needs_variance = False
    keeps_psf = False

    def __init__(
        self, weights=None, *, size=256, stochastic=True, jpeg=False, quality=75, nanomaggy=1.0, device="auto"
    ):
        if weights is None:
            raise InputError(
                "weights=None: no weights of galaxygan2017 are shipped; train them with "
                "'astrogan train galaxygan2017 --data ... --out RUN' and give weights='RUN/galaxygan2017.safetensors'"
            )
        if not isinstance(weights, str | os.PathLike):
            raise InputError(f"weights={weights!r} must be a name or a path")
        for name, value, most in (("size", size, None), ("quality", quality, 95)):
            _check_whole(name, value, most)
        if size % _REDUCTION:
            raise InputError(f"size={size!r} must be a multiple of {_REDUCTION}")
        for name, value in (("stochastic", stochastic), ("jpeg", jpeg)):
            if not isinstance(value, bool | np.bool_):
                raise InputError(f"{name}={value!r} must be True or False")
        real = isinstance(nanomaggy, numbers.Real) and not isinstance(nanomaggy, bool)
        if not real or not np.isfinite(nanomaggy) or nanomaggy <= 0:
            raise InputError(f"nanomaggy={nanomaggy!r} must be a positive number")
        if not isinstance(device, str):
            raise InputError(f"device={device!r} must be 'auto' or the name of a device of torch, e.g. 'cpu'")
        self.weights = os.fspath(weights)
        self.size = int(size)
        self.stochastic = bool(stochastic)
        self.jpeg = bool(jpeg)
        self.quality = int(quality)
        self.nanomaggy = float(nanomaggy)
        self.device = device
        self._forget()

    def __repr__(self):
        return (
            f"GalaxyGAN2017(weights={self.weights!r}, size={self.size}, stochastic={self.stochastic}, jpeg={self.jpeg})"
        )

    def __getstate__(self):
        """Options only: the network is read again where the copy is used."""
        return {key: value for key, value in vars(self).items() if key not in ("_loaded", "_lock")}

    def __setstate__(self, state):
        vars(self).update(state)
        self._forget()

    def _forget(self):
        self._loaded = None
        self._lock = threading.Lock()

    def __call__(self, observation: Observation, *, rng) -> Estimate:
        """Restore the observation.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
            Data (3, y, x), sky subtracted, in units of ``nanomaggy``.
        rng : `numpy.random.Generator`
            Drawn from once where ``stochastic``.

        Returns
        -------
        `~astrogan.api.Estimate`
            ``flags``: pixels brighter than 4 nanomaggies. ``info``: ``weights`` (name), ``sha256`` (first 12 digits),
            ``clipped`` (part of the pixels that the clip changed).

        Raises
        ------
        InputError
            If there are not three bands, or the weights are for another backend.
        CheckpointError
            If the weights are damaged.
        """
        if len(observation.data) != self.bands:
            raise InputError(
                f"image has {len(observation.data)} bands; galaxygan2017 was made for three (i, r, g): give "
                "three bands, or use the backend nafnet"
            )
        net, facts = self._network()
        stretch = GalaxyGAN2017Stretch()
        flux = observation.data / np.float32(self.nanomaggy)
        stretched = stretch.forward(flux)
        if self.jpeg:
            stretched = through_jpeg(stretched, self.quality)
        restored = stretch.inverse(self._restored(net, stretched, rng)) * np.float32(self.nanomaggy)
        bright = flux > stretch.high
        clipped = float(np.mean(bright | (flux < stretch.low)))
        return Estimate(restored, flags=bright, info=facts | {"clipped": clipped})

    def _restored(self, net, stretched, rng):
        """Steps 4 to 6 but for the stretch: (3, y, x) in [0, 1] to the same."""
        import torch

        from astrogan.nn.pix2pix import from_network_range, resize, to_network_range

        masks = torch.Generator().manual_seed(int(rng.integers(2**63))) if self.stochastic else None
        device = next(net.parameters()).device
        # a copy: torch cannot wrap an array that must not be written
        image = torch.from_numpy(np.array(stretched, np.float32)).to(device)
        with torch.inference_mode(), exact_matmul(device):
            seen = to_network_range(resize(image, self.size))[None]
            answer = from_network_range(net(seen, stochastic=self.stochastic, generator=masks)[0])
            return resize(answer, tuple(image.shape[1:])).cpu().numpy()

    def _network(self):
        """(network on its device, facts for ``info``), read once."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self):
        from astrogan.nn.pix2pix import UNet256
        from astrogan.weights import load_weights

        weights = load_weights(self.weights)
        net = built(weights, self.weights, "galaxygan2017", UNet256)
        _check_bands(self.weights, net.architecture)
        net.eval().requires_grad_(False)
        return net.to(device_of(self.device)), {"weights": weights.name, "sha256": weights.sha256[:12]}


def _check_whole(name, value, most):
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1 or (most is not None and value > most):
        raise InputError(f"{name}={value!r} must be an integer of at least 1" + (f", at most {most}" if most else ""))


def _check_bands(weights, architecture):
    bands = architecture["in_bands"], architecture["out_bands"]
    if bands != 2 * (GalaxyGAN2017.bands,):
        raise InputError(f"weights={weights!r} take {bands[0]} bands to {bands[1]}; this backend needs 3 and 3")
