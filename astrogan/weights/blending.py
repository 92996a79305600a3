"""Weights between two of the same architecture, e.g. one trained for fidelity and one for sharpness."""

from __future__ import annotations

import numbers

from astrogan.exceptions import InputError
from astrogan.weights.card import validate_card

__all__ = ["blend", "blend_card"]


def blend(a, b, alpha):
    """Interpolate between the weights of two networks of the same architecture.

    Parameters
    ----------
    a, b : `Weights`, or mapping of str to torch.Tensor
        Never changed. Two `Weights` must also have the same backend, architecture, bands and stretch.
    alpha : float
        Share of ``b``, from 0 (``a``, exactly) to 1 (``b``, exactly).

    Returns
    -------
    dict of str to torch.Tensor
        ``(1 - alpha) a + alpha b``, computed in float64 and of the dtype of ``a``; new tensors. What is not floating
        (counters) is taken from the one with the larger share, from ``a`` at one half.

    Raises
    ------
    InputError
        If ``alpha`` is outside 0 to 1, or the two do not match; the message names the first difference.

    Notes
    -----
    It makes sense for networks that were trained from the same start [1]_: between independent ones lies nothing.

    References
    ----------
    .. [1] X. Wang et al., 2019, "Deep network interpolation for continuous imagery effect transition", CVPR.

    Examples
    --------
    >>> import torch
    >>> from astrogan.weights import blend
    >>> blend({"bias": torch.zeros(2)}, {"bias": torch.ones(2)}, 0.25)
    {'bias': tensor([0.2500, 0.2500])}
    """
    alpha = _share(alpha)
    if hasattr(a, "card") and hasattr(b, "card"):
        _check_cards(a.card, b.card)
    a, b = getattr(a, "tensors", a), getattr(b, "tensors", b)
    _check_tensors(a, b)
    return {name: _between(a[name], b[name], alpha) for name in a}


def blend_card(a, b, alpha, name):
    """The card of a blend.

    Parameters
    ----------
    a, b : `Weights`
        The parents.
    alpha : float
        Share of ``b``.
    name : str
        Name of the blend: small letters, digits and hyphens.

    Returns
    -------
    dict
        With both parents and their checksums. Ranges are those that both have seen. Metrics and calibration are left
        out, since they were measured on other weights, and the notes say so.

    Raises
    ------
    InputError
        As for `blend`, or if ``name`` is no name.
    """
    alpha = _share(alpha)
    _check_cards(a.card, b.card)
    same = {key: a.card[key] for key in ("backend", "role", "architecture", "bands", "stretch")}
    return validate_card(
        same
        | {
            "name": name,
            "band_names": a.card["band_names"] if a.card["band_names"] == b.card["band_names"] else None,
            "ranges": _common_ranges(a.card["ranges"], b.card["ranges"]),
            "data": a.card["data"] + [row for row in b.card["data"] if row not in a.card["data"]],
            "parents": [
                {"name": a.name, "sha256": a.sha256, "share": 1 - alpha},
                {"name": b.name, "sha256": b.sha256, "share": alpha},
            ],
            "licence": _both(a.card["licence"], b.card["licence"]),
            "citation": _both(a.card["citation"], b.card["citation"]),
            "notes": f"Blend of {a.name} and {b.name} with alpha={alpha:g}. Metrics and calibration of the parents "
            "do not carry over: none were measured for the blend.",
        }
    )


def _share(alpha):
    if isinstance(alpha, bool) or not isinstance(alpha, numbers.Real) or not 0 <= alpha <= 1:
        raise InputError(f"alpha={alpha!r} must be a number from 0 to 1, e.g. 0.5")
    return float(alpha)


def _check_cards(a, b):
    for key in ("backend", "role", "bands", "stretch"):
        if a[key] != b[key]:
            raise InputError(f"a and b cannot be blended: {key} is {a[key]!r} and {b[key]!r}")
    first, second = a["architecture"], b["architecture"]
    for key in sorted({*first, *second}):
        if key not in first or key not in second or first[key] != second[key]:
            values = [repr(part[key]) if key in part else "not given" for part in (first, second)]
            raise InputError(f"a and b cannot be blended: architecture {key!r} is {values[0]} and {values[1]}")


def _check_tensors(a, b):
    for which, other, tensors in (("b", a, b), ("a", b, a)):
        missing = next((name for name in other if name not in tensors), None)
        if missing is not None:
            raise InputError(f"a and b cannot be blended: {which} has no tensor {missing!r}")
    for name in a:
        for what in ("shape", "dtype"):
            first, second = (getattr(tensors[name], what) for tensors in (a, b))
            if first != second:
                first, second = (tuple(v) if what == "shape" else v for v in (first, second))
                raise InputError(f"a and b cannot be blended: {what} of tensor {name!r} is {first} and {second}")


def _between(a, b, alpha):
    if alpha in (0, 1) or not a.is_floating_point():
        return (a if alpha <= 0.5 else b).detach().clone()
    return ((1 - alpha) * a.detach().double() + alpha * b.detach().to(a.device).double()).to(a.dtype)


def _common_ranges(a, b):
    """What both have seen; a quantity that only one names, or where they do not meet, is left out."""
    common = {key: [max(a[key][0], b[key][0]), min(a[key][1], b[key][1])] for key in a if key in b}
    return {key: value for key, value in common.items() if value[0] <= value[1]}


def _both(a, b):
    return "; ".join(dict.fromkeys(text for text in (a, b) if text))
