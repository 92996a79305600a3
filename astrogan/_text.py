"""Text from files of strangers, made fit for a terminal."""

from __future__ import annotations

import re

__all__ = ["visible"]

# Control characters of both sets, which terminals act on; characters without a shape that turn the direction of
# writing or begin a line; and halves of surrogate pairs, which cannot be printed at all. Line feed and tab are left.
_HIDDEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text):
    r"""Text in which nothing is hidden and nothing moves the cursor: such characters become escapes.

    Parameters
    ----------
    text : str
        Line feeds and tabs are left as they are.

    Returns
    -------
    str

    Examples
    --------
    >>> from astrogan._text import visible
    >>> print(visible("a title\x1b[2J"))
    a title\x1b[2J
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
