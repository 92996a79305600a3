"""Errors and warnings that astrogan raises on purpose.

Every message names the argument, the value that was given and what to do about it. `AstroganError` is the base
of all errors, so ``except AstroganError`` catches what the library says and nothing that is a bug in it. Each class
also derives from the built-in that a caller would expect (`ValueError`, `OSError`, ...), so code that does not know
astrogan still does the right thing.

Messages quote what stands in files, and files come from anywhere: as text they have escapes in place of characters that
a terminal would act on.
"""

from astrogan._text import visible

__all__ = [
    "AstroganError",
    "AstroganWarning",
    "BackendError",
    "BackendNotFoundError",
    "CheckpointError",
    "DuplicateBackendError",
    "ImageReadError",
    "ImageTooSmallError",
    "ImageWriteError",
    "InputError",
    "MissingDependencyError",
    "OutOfRangeWarning",
    "PSFError",
    "PSFWarning",
    "PluginError",
    "PluginWarning",
    "RangeWarning",
    "UncertaintyWarning",
    "UnitError",
    "WCSError",
]


class AstroganError(Exception):
    """Base of every error that astrogan raises on purpose."""

    def __str__(self):
        return visible(super().__str__())


class InputError(AstroganError, ValueError):
    """An argument has a value that cannot be used: wrong shape, wrong range, contradictory."""


class UnitError(InputError):
    """A unit is missing, unknown, or does not convert to the one needed."""


class WCSError(InputError):
    """A WCS is missing where the sky is needed, or is not celestial."""


class PSFError(InputError):
    """A PSF is missing, or is not a PSF: negative sum, not finite, larger than the image."""


class ImageTooSmallError(InputError):
    """The image has fewer pixels along an axis than the method needs; the message gives the minimum."""


class ImageReadError(AstroganError, OSError):
    """A file is missing, truncated, larger than ``max_pixels``, or holds no image."""


class ImageWriteError(AstroganError, OSError):
    """A file could not be written; what was there before is untouched."""


class BackendError(AstroganError, RuntimeError):
    """A backend broke its contract (shape, dtype, NaN, changed its input) or failed inside."""


class BackendNotFoundError(AstroganError, LookupError):
    """No backend of that name and role is installed; the message lists what is."""


class PluginError(AstroganError, RuntimeError):
    """A plugin could not be loaded; raised when one of its backends is asked for."""


class DuplicateBackendError(PluginError):
    """Two distributions register the same name and role; ``"distribution:name"`` says which is meant."""


class MissingDependencyError(AstroganError, ImportError):
    """An optional package is needed; the message gives the command that installs it."""


class CheckpointError(AstroganError, RuntimeError):
    """A weight or checkpoint file is damaged, or is not what its card says."""


class AstroganWarning(UserWarning):
    """Base of every warning that astrogan gives on purpose."""

    def __str__(self):
        return visible(super().__str__())


class PluginWarning(AstroganWarning):
    """A plugin is broken and was set aside; the others go on."""


class UncertaintyWarning(AstroganWarning):
    """The input has an uncertainty and the method gives none: the output's is `None`, never a copy."""


class PSFWarning(AstroganWarning):
    """A PSF was changed on its way to the pixel grid (trimmed, re-centred, resampled) or had to be estimated."""


class RangeWarning(AstroganWarning):
    """Values lie outside the range that a method or a container is valid for."""


class OutOfRangeWarning(RangeWarning):
    """An image lies outside what a learned method was trained on; the message names the quantity and the range."""
