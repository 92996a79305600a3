"""What can be said of a row."""

from __future__ import annotations

import enum

__all__ = ["RowFlag"]


class RowFlag(enum.IntFlag):
    """Bits of the column ``flags``: what became of a row of a catalog.

    Attributes
    ----------
    NO_POSITION
        1: its position is masked or not finite. No stamp.
    OUTSIDE
        2: no pixel of the stamp lies in the image. No stamp.
    PARTLY_OUTSIDE
        4: some pixels of the stamp lie outside the image; they are NaN and masked.
    NO_VALID_PIXEL
        8: all pixels of the stamp are masked or not finite in the image. No stamp.
    UNREADABLE
        16: its image cannot be read; the column ``error`` says why. No stamp.
    FAILED
        32: the method failed on it; the column ``error`` says why. No stamp.
    WORKER_DIED
        64: the process that worked on it was killed, every time. No stamp.
    MASKED
        128: some pixels of the stamp that lie in the image are masked in the result.
    UNTRUSTED
        256: the method itself does not trust some pixels, or they are brighter than what it was trained on.
    OUT_OF_RANGE
        512: the stamp is a factor 1.5 or more outside what a learned method was trained on.

    Examples
    --------
    >>> from astrogan.catalogs import RowFlag
    >>> RowFlag(132)
    <RowFlag.PARTLY_OUTSIDE|MASKED: 132>
    >>> RowFlag.NO_STAMP & RowFlag.FAILED == RowFlag.FAILED
    True
    """

    NO_POSITION = 1
    OUTSIDE = 2
    PARTLY_OUTSIDE = 4
    NO_VALID_PIXEL = 8
    UNREADABLE = 16
    FAILED = 32
    WORKER_DIED = 64
    MASKED = 128
    UNTRUSTED = 256
    OUT_OF_RANGE = 512

    NO_STAMP = 1 | 2 | 8 | 16 | 32 | 64


def status_of(flags):
    """Words for the column ``status``."""
    names = [flag.name.lower().replace("_", " ") for flag in RowFlag if flag != RowFlag.NO_STAMP and flags & flag]
    return ", ".join(names) or "ok"
