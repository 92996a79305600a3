"""Intensity stretches: linear flux to what a network or an eye likes, and back.

A stretch has ``forward(x)``, ``inverse(y)`` and ``lossless``. All but `GalaxyGAN2017Stretch` with its clip are exactly
invertible and clip nothing, whatever the sign and size of the flux.
"""

from __future__ import annotations

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["AsinhSigmaStretch", "GalaxyGAN2017Stretch", "LinearStretch", "stretch_from_dict"]


def _as_float(x):
    """Floating array in native byte order (float32 stays float32) for the result, and its float64 twin."""
    x = np.asarray(x)
    dtype = np.float32 if x.dtype.newbyteorder("=") in (np.float32, np.float16) else np.float64
    return x.astype(np.float64), dtype


def _per_band(value, name):
    """A positive number, or an array of one positive number per band."""
    value = np.asarray(value, dtype=np.float64)
    if value.ndim > 1 or value.size == 0 or not (np.isfinite(value) & (value > 0)).all():
        raise InputError(f"{name}={value.tolist()!r} must be a positive number, or one per band")
    return value


def _shaped(value, x, name):
    """``value`` ready to multiply ``x``: a scalar as it is, one per band along the first axis of (band, y, x)."""
    if value.ndim == 0:
        return value
    if x.ndim < 3 or x.shape[-3] != len(value):
        raise InputError(f"{name} holds {len(value)} bands; the image has shape {x.shape}, not (band, y, x) of those")
    return value[:, None, None]


class _Stretch:
    """Equality, representation and cards for stretches, from their parameters."""

    name = ""
    lossless = True

    def _parameters(self):
        return {}

    def to_dict(self):
        """The stretch as plain numbers and strings, for model cards; `stretch_from_dict` reads it back."""
        return {"stretch": self.name, **self._parameters()}

    @classmethod
    def from_dict(cls, card):
        """The stretch that `to_dict` described."""
        stretch = stretch_from_dict(card)
        if not isinstance(stretch, cls):
            raise InputError(f"card={card!r} describes a {type(stretch).__name__}, not a {cls.__name__}")
        return stretch

    def __eq__(self, other):
        return type(self) is type(other) and self.to_dict() == other.to_dict()

    def __hash__(self):
        return hash(repr(self))

    def __repr__(self):
        inside = ", ".join(f"{k}={v!r}" for k, v in self._parameters().items())
        return f"{type(self).__name__}({inside})"


class LinearStretch(_Stretch):
    """Linear: y = (x - offset) / scale.

    Parameters
    ----------
    scale : float or array_like, optional
        Flux that becomes one; one number, or one per band.
    offset : float, optional
        Flux that becomes zero.

    Examples
    --------
    >>> from astrogan.image.stretch import LinearStretch
    >>> LinearStretch(scale=2.0).forward(3.0)
    np.float64(1.5)
    """

    name = "linear"

    def __init__(self, scale=1.0, offset=0.0):
        self.scale = _per_band(scale, "scale")
        if np.ndim(offset) or not np.isfinite(offset):
            raise InputError(f"offset={offset!r} must be a finite number")
        self.offset = float(offset)

    def _parameters(self):
        return {"scale": self.scale.tolist(), "offset": self.offset}

    def forward(self, x):
        """Linear flux to stretched."""
        x, dtype = _as_float(x)
        return ((x - self.offset) / _shaped(self.scale, x, "scale")).astype(dtype)[()]

    def inverse(self, y):
        """Stretched to linear flux."""
        y, dtype = _as_float(y)
        return (y * _shaped(self.scale, y, "scale") + self.offset).astype(dtype)[()]


class AsinhSigmaStretch(_Stretch):
    r"""Inverse hyperbolic sine in units of the noise: :math:`y = \mathrm{asinh}(x / (a \sigma))`.

    Linear for :math:`|x| \ll a\sigma`, logarithmic beyond, odd, and invertible for every x (Lupton, Gunn & Szalay
    1999, AJ 118, 1406). The arithmetic is float64 inside; what is left of the error in float32 is the rounding of
    ``y``: relative :math:`6\times10^{-8}\,y` in flux, below 1e-6 up to :math:`4\times10^6 a\sigma`.

    Parameters
    ----------
    sigma : float or array_like
        Background noise (standard deviation), in the unit of the image; one number, or one per band.
    softening : float, optional
        ``a``: where the stretch turns from linear to logarithmic, in sigma.

    Raises
    ------
    InputError
        If a parameter is not positive, or the image's bands do not agree with ``sigma``.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.image.stretch import AsinhSigmaStretch
    >>> stretch = AsinhSigmaStretch(sigma=0.1)
    >>> flux = np.array([-1.0, 0.0, 1000.0])
    >>> np.allclose(stretch.inverse(stretch.forward(flux)), flux, rtol=1e-12)
    True
    """

    name = "asinh-sigma"

    def __init__(self, sigma, softening=1.0):
        self.sigma = _per_band(sigma, "sigma")
        self.softening = float(_per_band(softening, "softening"))

    def _parameters(self):
        return {"sigma": self.sigma.tolist(), "softening": self.softening}

    def forward(self, x):
        """Linear flux to stretched."""
        x, dtype = _as_float(x)
        x /= self.softening * _shaped(self.sigma, x, "sigma")
        return np.arcsinh(x).astype(dtype)[()]

    def inverse(self, y):
        """Stretched to linear flux."""
        y, dtype = _as_float(y)
        return (np.sinh(y) * (self.softening * _shaped(self.sigma, y, "sigma"))).astype(dtype)[()]


class GalaxyGAN2017Stretch(_Stretch):
    """The stretch of Schawinski et al. (2017, MNRAS 467, L110): y = asinh(10 u) / 3 with u = (x + 0.1) / 4.1.

    Fluxes are in nanomaggies and clipped to [-0.1, 4] first, so that y runs from 0 to 0.9994. The clip loses what is
    outside: ``lossless`` is False, and `inverse` gives back the clipped flux. It is here to reproduce that paper; use
    `AsinhSigmaStretch` otherwise.

    Parameters
    ----------
    clip : bool, optional
        False leaves the clip out, which makes the stretch invertible everywhere (but it is not the paper's then).

    Examples
    --------
    >>> from astrogan.image.stretch import GalaxyGAN2017Stretch
    >>> stretch = GalaxyGAN2017Stretch()
    >>> round(float(stretch.forward(100.0)), 4)
    0.9994
    >>> round(float(stretch.inverse(stretch.forward(100.0))), 4), stretch.lossless
    (4.0, False)
    """

    name = "galaxygan2017"
    low, high = -0.1, 4.0

    def __init__(self, clip=True):
        self.clip = bool(clip)

    @property
    def lossless(self):
        """Whether ``inverse(forward(x))`` is ``x`` for every x."""
        return not self.clip

    def _parameters(self):
        return {"clip": self.clip}

    def forward(self, x):
        """Flux in nanomaggies to stretched."""
        x, dtype = _as_float(x)
        if self.clip:
            x = np.clip(x, self.low, self.high)
        u = (x - self.low) / (self.high - self.low)
        return (np.arcsinh(10 * u) / 3).astype(dtype)[()]

    def inverse(self, y):
        """Stretched to flux in nanomaggies: u = sinh(3 y) / 10, x = 4.1 u - 0.1; nothing is clipped on the way back."""
        y, dtype = _as_float(y)
        u = np.sinh(3 * y) / 10
        return (u * (self.high - self.low) + self.low).astype(dtype)[()]


_STRETCHES = {cls.name: cls for cls in (LinearStretch, AsinhSigmaStretch, GalaxyGAN2017Stretch)}


def stretch_from_dict(card):
    """The stretch that ``to_dict`` described, whatever its class.

    Parameters
    ----------
    card : dict
        ``{"stretch": name, **parameters}``.

    Returns
    -------
    LinearStretch, AsinhSigmaStretch or GalaxyGAN2017Stretch

    Raises
    ------
    InputError
        If the name or a parameter is unknown.

    Examples
    --------
    >>> from astrogan.image.stretch import LinearStretch, stretch_from_dict
    >>> stretch_from_dict(LinearStretch(scale=2.0).to_dict())
    LinearStretch(scale=2.0, offset=0.0)
    """
    if not isinstance(card, dict):
        raise InputError(f"card={card!r} must be a dict with the name of a stretch and its parameters")
    parameters = dict(card)
    name = parameters.pop("stretch", None)
    if not isinstance(name, str) or name not in _STRETCHES:
        raise InputError(f"stretch={name!r} is unknown; use one of {', '.join(sorted(_STRETCHES))}")
    try:
        return _STRETCHES[name](**parameters)
    except InputError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"card={card!r} does not describe a {name} stretch: {error}") from None
