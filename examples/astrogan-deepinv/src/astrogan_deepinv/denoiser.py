"""A restorer that lets a denoiser of deepinv do the work."""

import inspect
import threading

import numpy as np

from astrogan.api import Estimate
from astrogan.exceptions import InputError


class DeepinvDenoiser:
    """Denoise each band with a model of ``deepinv.models``, in units of the band's noise.

    deepinv's denoisers are made for pictures from 0 to 1 with noise of a known level. A band is divided by its noise
    (the median over its valid pixels) times ``peak``, so that the noise of the picture is 1 / ``peak``, which is what
    the denoiser is told; the result is multiplied by the same. The unit of flux therefore does not matter. What the
    PSF took away stays away: this is denoising, no deconvolution.

    Parameters
    ----------
    model : str or `torch.nn.Module`, optional
        Name of a class in ``deepinv.models``, such as ``"TVDenoiser"``, ``"WaveletDenoiser"`` or ``"DRUNet"``; or a
        model of your own that is called as ``model(picture, sigma)`` with (1, 1, y, x).
    strength : float, optional
        Factor on the level that the denoiser is told; below 1 it smooths less.
    peak : float, optional
        What becomes 1 in the picture, in units of the noise. Networks know levels of noise up to 0.2 or so; brighter
        pixels than ``peak`` are not clipped, but are new to them.
    weights : path, optional
        The model's ``state_dict`` in safetensors. Networks by name need it: nothing is ever downloaded.
    options : dict, optional
        Keyword arguments of the model's class.

    Raises
    ------
    InputError
        If an argument cannot be used.

    Notes
    -----
    There is no uncertainty, since denoisers give none. The whole image is denoised at once.
    """

    needs_variance = True
    keeps_psf = True
    halo = -1

    def __init__(self, model="TVDenoiser", strength=1.0, peak=20.0, weights=None, options=None):
        for name, value in (("strength", strength), ("peak", peak)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
                raise InputError(f"{name}={value!r} must be a positive number, e.g. 1.0")
        self.model, self.strength, self.peak = model, float(strength), float(peak)
        self.weights, self.options = weights, dict(options or {})
        if isinstance(model, str):
            self._check_class()
        self._forget()

    def _check_class(self):
        cls = _class_of(self.model)
        known = inspect.signature(cls).parameters
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise InputError(f"options names {', '.join(unknown)}; {self.model} takes {', '.join(known)}")
        if "pretrained" in known and self.weights is None:
            raise InputError(f"model={self.model!r} needs weights=, a safetensors file: nothing is downloaded")

    def _forget(self):
        self._built, self._lock = None, threading.Lock()

    def __getstate__(self):
        """Worker processes build a model that has a name themselves; a lock cannot be sent."""
        return {name: value for name, value in vars(self).items() if name not in ("_built", "_lock")}

    def __setstate__(self, state):
        vars(self).update(state)
        self._forget()

    def __call__(self, observation, *, rng):
        """Denoise one observation; nothing here is random, so ``rng`` is not used."""
        scale = self.peak * _noise(observation)[:, None, None]
        with self._lock:  # iterative denoisers keep their last step in the model
            planes = [self._denoised(plane) for plane in observation.data / scale]
        info = {"model": self._name(), "strength": self.strength}
        return Estimate((np.stack(planes) * scale).astype(np.float32), info=info)

    def _denoised(self, plane):
        import torch

        model = self._denoiser()
        if hasattr(model, "restart"):
            model.restart = True  # not from where the last image ended
        argument = "ths" if "ths" in inspect.signature(model.forward).parameters else "sigma"
        picture = torch.from_numpy(plane.astype(np.float32))[None, None]
        with torch.no_grad():
            return model(picture, **{argument: self.strength / self.peak})[0, 0].numpy()

    def _name(self):
        return self.model if isinstance(self.model, str) else type(self.model).__name__

    def _denoiser(self):
        if self._built is None:
            self._built = (self._build() if isinstance(self.model, str) else self.model).eval()
        return self._built

    def _build(self):
        cls = _class_of(self.model)
        known = inspect.signature(cls).parameters
        # Astronomical bands come one at a time; these are networks for three colours if nobody says so.
        own = {"pretrained": None, "in_channels": 1, "out_channels": 1}
        model = cls(**({name: value for name, value in own.items() if name in known} | self.options))
        if self.weights is not None:
            from safetensors.torch import load_file

            model.load_state_dict(load_file(self.weights))
        return model


def _noise(observation):
    """(band,): the median standard deviation of the valid pixels, one where there are none."""
    pairs = zip(observation.variance, observation.valid, strict=True)
    return np.array([np.sqrt(np.median(v[use])) if use.any() else 1.0 for v, use in pairs], np.float32)


def _class_of(name):
    import deepinv.models

    cls = getattr(deepinv.models, name, None)
    # Client is one that sends the image to a server.
    if not (isinstance(cls, type) and issubclass(cls, deepinv.models.Denoiser)) or name == "Client":
        raise InputError(f"model={name!r} is no denoiser of deepinv.models; there are TVDenoiser, DRUNet and others")
    return cls
