"""Small HTML tables for notebooks: text only, everything escaped."""

from __future__ import annotations

from html import escape
from itertools import islice

__all__ = ["html_table", "paragraph"]


def html_table(columns, most=None):
    """An HTML table.

    Parameters
    ----------
    columns : dict
        {heading: cells}, in order; cells are written as they print.
    most : int, optional
        Rows that are shown at most.

    Returns
    -------
    str
    """
    head = "".join(f"<th>{escape(str(name))}</th>" for name in columns)
    lines = islice(zip(*columns.values(), strict=True), most)
    rows = ("".join(f"<td>{escape(str(cell))}</td>" for cell in line) for line in lines)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def paragraph(text):
    """A paragraph of plain text."""
    return f"<p>{escape(str(text))}</p>"
