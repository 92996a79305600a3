"""A source that goes on where an image is damaged: it is named, counted and replaced, up to a limit."""

from __future__ import annotations

import logging

import numpy as np

from astrogan.exceptions import AstroganError, ImageReadError
from astrogan.train.sources.base import Source

__all__ = ["Watched", "check_damage", "log_damage"]

_FAULTS = (AstroganError, OSError, ValueError, SyntaxError, EOFError)
_NAMED = 5


class Watched(Source):
    """Another source's images; in place of one that cannot be read comes the next.

    What is replaced depends on the image alone, so that a batch stays a function of its step. Each damaged image is
    logged once (``astrogan.train``) and counted in ``damaged``.

    Parameters
    ----------
    source : Source
    max_damaged : float, optional
        More damaged images than this part of all are an error; one is borne unless it is 0.

    Attributes
    ----------
    damaged : dict
        Object's name and number, to what is wrong with it, of all that were met in this process.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.exceptions import ImageReadError
    >>> from astrogan.train.sources import Sample, Source, Watched
    >>> class Second(Source):
    ...     def __len__(self):
    ...         return 2
    ...
    ...     def load(self, i):
    ...         if i == 0:
    ...             raise ImageReadError("the file ends too early")
    ...         return Sample(np.ones((1, 8, 8), np.float32))
    ...
    ...     def name(self, i):
    ...         return f"galaxy {i}"
    ...
    ...     describe = None
    >>> source = Watched(Second(), max_damaged=0.5)
    >>> source.load(0).data.shape, source.damaged
    ((1, 8, 8), {'galaxy 0 (0)': 'the file ends too early'})
    """

    def __init__(self, source, max_damaged=0.05):
        self.source, self.bands = source, source.bands
        self.max_damaged = float(max_damaged)
        self.damaged, self._new = {}, []

    def __len__(self):
        return len(self.source)

    def name(self, i):
        """Name of the object in image ``i``, damaged or not."""
        return self.source.name(i)

    def draw(self, rng):
        """Number of an image, as the source draws it."""
        return self.source.draw(rng)

    def describe(self):
        """The source's description."""
        return self.source.describe()

    def load(self, i):
        """Image ``i`` as a `Sample`, or the next that can be read."""
        i = self._checked(i)
        for number in (*range(i, len(self)), *range(i)):
            try:
                return _sound(self.source.load(number))
            except _FAULTS as error:
                self._note(number, error)
        raise ImageReadError(f"none of the {len(self)} images can be read; the last: {self._new[-1:]}")

    def reports(self):
        """Damaged images, (name, fault) each, that were met since the last call."""
        new, self._new = self._new, []
        return new

    def _note(self, number, error):
        key, fault = f"{self.source.name(number)} ({number})", str(error) or type(error).__name__
        if key in self.damaged:
            return
        self.damaged[key] = fault
        self._new.append((key, fault))
        log_damage(key, fault)
        try:
            check_damage(self.damaged, len(self), self.max_damaged)
        except ImageReadError as limit:
            raise limit from error


def _sound(sample):
    if not np.isfinite(sample.data).all():
        raise ImageReadError("it holds values that are not finite")
    return sample


def log_damage(name, fault):
    """Say in the log that an image is left out.

    Parameters
    ----------
    name : str
        Of the image.
    fault : str or Exception
        What is wrong with it.
    """
    logging.getLogger("astrogan.train").warning("image %r is damaged and left out: %s", name, fault)


def check_damage(damaged, count, part):
    """Raise where more images are damaged than allowed.

    Parameters
    ----------
    damaged : dict
        Name to fault.
    count : int
        Images in all.
    part : float
        That may be damaged; one may, unless it is 0.

    Raises
    ------
    ImageReadError
        Naming the first of them.
    """
    if len(damaged) <= (max(1, int(part * count)) if part > 0 else 0):
        return
    named = "; ".join(f"{name}: {fault}" for name, fault in list(damaged.items())[:_NAMED])
    more = f"; and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
    raise ImageReadError(
        f"{len(damaged)} of {count} images are damaged, more than max_damaged={part:g} allows ({named}{more}); "
        "get the data again, or raise max_damaged in the recipe"
    )
