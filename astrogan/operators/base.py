"""What all operators share: a backend by name, a random generator, and errors that say whose fault it is."""

from __future__ import annotations

import math
import numbers
import warnings

import numpy as np

from astrogan.exceptions import (
    AstroganError,
    BackendError,
    ImageTooSmallError,
    InputError,
    OutOfRangeWarning,
    UncertaintyWarning,
)
from astrogan.image.prepare import prepare
from astrogan.plugins import load_backend

__all__ = ["Operator", "as_generator"]


def as_generator(rng):
    """A `numpy.random.Generator` from a seed, or the generator itself.

    Parameters
    ----------
    rng : int, `numpy.random.SeedSequence` or `numpy.random.Generator`

    Returns
    -------
    `numpy.random.Generator`

    Raises
    ------
    InputError
        If it is none of these; `None` is refused so that results can be repeated.

    Examples
    --------
    >>> from astrogan.operators.base import as_generator
    >>> int(as_generator(3).integers(100)) == int(as_generator(3).integers(100))
    True
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, np.random.SeedSequence):
        return np.random.default_rng(rng)
    if isinstance(rng, numbers.Integral) and not isinstance(rng, bool) and rng >= 0:
        return np.random.default_rng(int(rng))
    raise InputError(f"rng={rng!r} must be a non-negative integer seed or a numpy.random.Generator")


# A factor of 1.5 beyond the ranges of the training: less is no news, since ranges are those of a sample.
_FAR = math.log(1.5)

_READING = ("unit", "hdu", "uncertainty", "uncertainty_type", "mask", "saturation", "pixel_scale", "max_pixels")


class Operator:
    """A configured operation: set up once, called on any number of images.

    Parameters
    ----------
    backend : str or object
        A name, ``"distribution:name"``, or an instance.
    **options
        Keyword arguments for the backend.

    Attributes
    ----------
    backend : object
        The backend's instance.
    backend_name : str
        ``"distribution:name"``.
    """

    role = ""
    operation = ""

    def __init__(self, backend, **options):
        self.backend, self.backend_name, self.backend_version = load_backend(self.role, backend, options)
        self.options = options
        self._warned = False
        self._warned_of_range = False

    def __repr__(self):
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"{type(self).__name__}({self.backend_name!r}{options})"

    def _needs(self, what):
        return bool(getattr(self.backend, f"needs_{what}", False))

    def _read(self, image, reading, *, psf, needs_psf, needs_variance):
        """`prepare` with the reading keywords of a call; a misspelt one is named before anything is read."""
        unknown = sorted(set(reading) - set(_READING))
        if unknown:
            raise InputError(
                f"{unknown[0]}={reading[unknown[0]]!r} is no keyword of a call; these say how the image is read: "
                f"{', '.join(_READING)}; options of the backend are given when the operator is made"
            )
        default = getattr(self.backend, "psf_default", None)
        return prepare(
            image, psf=psf, needs_psf=needs_psf, needs_variance=needs_variance, psf_default=default, **reading
        )

    def _check_size(self, shape):
        smallest = int(getattr(self.backend, "min_size", 1))
        if min(shape[-2:]) < smallest:
            raise ImageTooSmallError(
                f"image is {shape[-2]} x {shape[-1]} pixels; "
                f"{self.backend_name} needs at least {smallest} along each axis"
            )

    def _run(self, function, *args, **keywords):
        """Call the backend; what is not astrogan's own error becomes one that names the backend."""
        try:
            return function(*args, **keywords)
        except AstroganError:
            raise
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:
            raise BackendError(f"{self.role} {self.backend_name!r} failed: {type(error).__name__}: {error}") from error

    def _check_estimate(self, estimate, shape):
        """Hold a backend's `~astrogan.api.Estimate` to the contract."""
        for name in ("data", "variance", "flags"):
            if not hasattr(estimate, name):
                raise BackendError(
                    f"{self.role} {self.backend_name!r} returned {type(estimate).__name__}; it must return an Estimate"
                )
            array = getattr(estimate, name)
            if array is None and name != "data":
                continue
            array = np.asarray(array)
            if array.shape != tuple(shape):
                raise BackendError(
                    f"{self.role} {self.backend_name!r} returned {name} of shape {array.shape}; expected {tuple(shape)}"
                )
            if name != "flags" and not (array.dtype.kind == "f" and np.isfinite(array).all()):
                raise BackendError(
                    f"{self.role} {self.backend_name!r} returned {name} of dtype {array.dtype} "
                    "that is not all finite floats"
                )
        if estimate.variance is not None and (np.asarray(estimate.variance) < 0).any():
            raise BackendError(f"{self.role} {self.backend_name!r} returned a negative variance")
        return estimate

    def _notes(self, rng, info=None):
        notes = {"AGVERS": _version(), "AGOP": self.operation, "AGBACK": self.backend_name}
        if self.backend_version:
            notes["AGBVERS"] = self.backend_version
        if self.options:
            notes["AGOPTS"] = self.options
        if isinstance(rng, numbers.Integral):
            notes["AGSEED"] = int(rng)
        if info:
            # What was measured is not worth 17 digits, and a header line is short.
            notes["AGINFO"] = {key: float(f"{v:.6g}") if isinstance(v, float) else v for key, v in info.items()}
            if "weights" in info:
                notes["AGWEIGHT"] = f"{info['weights']} {str(info.get('sha256', ''))[:12]}".strip()
        return notes

    def _warn_no_uncertainty(self, had, variance):
        """Once an operator: the input's uncertainty does not carry over, and a copy of it would be wrong."""
        if had and variance is None and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.backend_name} gives no uncertainty: the result's is None",
                UncertaintyWarning,
                stacklevel=3,
            )

    def _warn_out_of_range(self, observation, info):
        """Once an operator: a learned method was asked for what it has never seen."""
        score = info.get("out_of_range", 0.0)
        if self._warned_of_range or not isinstance(score, numbers.Real) or not score > _FAR:
            return
        self._warned_of_range = True
        report = self._run(self.backend.range_report, observation) if hasattr(self.backend, "range_report") else {}
        outside = [
            f"{quantity}={value:.3g} where it knows {low:.3g} to {high:.3g}"
            for quantity, (value, low, high) in report.items()
            if value < low or value > high
        ]
        warnings.warn(
            f"{self.backend_name}: the image is a factor {_factor(score)} outside what it was trained on"
            f"{': ' if outside else ''}{', '.join(outside)}; compare with a classic method (richardson-lucy, wiener), "
            "or give weights= trained on such images",
            OutOfRangeWarning,
            stacklevel=3,
        )


def _factor(score):
    return f"{math.exp(score):.1f}" if score < 7 else "of more than 1000"


def _version():
    import astrogan

    return astrogan.__version__
