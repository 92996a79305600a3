"""Blends as two papers on learned deblending made them: of pictures, where the brighter pixel hides the other.

That is not how light adds up, and a method trained on such blends learns another problem; see
`astrogan.simulate.blends` for blends that add up. Here a picture is stretched to [0, 1], shape (3, y, x).
"""

from __future__ import annotations

import numbers

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["add_noise", "branched_blend", "paper_blend", "paper_segments"]

RULES = ("mean", "maximum")


def paper_blend(first, second, *, shift=50, rule="mean"):
    """Two pictures as one, the second moved to the right, the brighter pixel kept (Usaid et al. 2019, section 2.2).

    Parameters
    ----------
    first, second : array-like
        Pictures in [0, 1], (3, y, x), of one shape, each with its galaxy in the middle.
    shift : int, optional
        Pixels by which the second moves to the right (to the left where negative). What comes in from the other side
        is empty: zero.
    rule : {"mean", "maximum"}, optional
        Which is brighter: by the mean of the three colours, the pixel being taken whole (as the authors' program
        does), or in each colour (as their text reads). Where both are as bright it is the first.

    Returns
    -------
    `numpy.ndarray`
        (3, y, x), of the type of ``first``.

    Raises
    ------
    InputError
        If shapes differ or an argument cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.simulate.paper_blends import paper_blend
    >>> first = np.full((3, 1, 4), 0.2)
    >>> second = np.broadcast_to([0.9, 0.1, 0.5, 0.3], (3, 1, 4))
    >>> paper_blend(first, second, shift=1)[0]
    array([[0.2, 0.9, 0.2, 0.5]])
    """
    first, second, _ = _checked(first, second, shift, rule)
    second = _moved(second, shift)
    if rule == "maximum":
        return np.maximum(first, second)
    # Sums, not means: they are exact where the colours are, and a tie is then one.
    return np.where(first.sum(axis=0) >= second.sum(axis=0), first, second)


def paper_segments(blended, first, second, *, rule="mean", shift=50):
    """Which pixels of a blend each picture keeps: the inverse of the rule that made it (Usaid et al. 2019).

    Parameters
    ----------
    blended : array-like
        What `paper_blend` gave, with or without noise, (3, y, x).
    first, second : array-like
        The pictures that it was made of, the second not yet moved.
    rule : {"mean", "maximum"}, optional
        That of the blend.
    shift : int, optional
        That of the blend.

    Returns
    -------
    first_mask, second_mask : `numpy.ndarray` of bool
        (3, y, x), each other's complements; ``blended * first_mask`` is the segmented first galaxy. With
        ``rule="mean"`` the three planes of a mask are the same. A pixel is the picture's that it is closer to; the
        first's where it is as close to both. The second's mask is in the frame of the blend.

    Raises
    ------
    InputError
        If shapes differ or an argument cannot be used.
    """
    first, second, blended = _checked(first, second, shift, rule, blended)
    second = _moved(second, shift)
    off_first, off_second = np.abs(blended - first), np.abs(blended - second)
    if rule == "mean":
        off_first, off_second = (np.broadcast_to(o.sum(axis=0), o.shape) for o in (off_first, off_second))
    mask = off_first <= off_second
    return mask, ~mask


def add_noise(image, sigma, rng, *, clip=True):
    """A picture with Gaussian noise.

    Parameters
    ----------
    image : array-like
        In [0, 1], any shape.
    sigma : float
        Standard deviation.
    rng : `numpy.random.Generator`
        Where the noise comes from.
    clip : bool, optional
        Whether values stay in [0, 1].

    Returns
    -------
    `numpy.ndarray`
        The shape and type of ``image``, float32 where that is of integers.

    Raises
    ------
    InputError
        If ``sigma`` is negative or not a number.
    """
    if isinstance(sigma, bool) or not isinstance(sigma, numbers.Real) or not 0 <= sigma < np.inf:
        raise InputError(f"sigma={sigma!r} must be a number >= 0")
    image = _floating(image)
    noisy = image + rng.normal(scale=sigma, size=image.shape).astype(image.dtype)
    return np.clip(noisy, 0, 1) if clip else noisy


def branched_blend(first, second, rng, *, crop=240, factor=3, shift=(10, 50)):
    """A blend as the branched GAN was trained on (Reiman & Gohre 2019, MNRAS 485, 2617, section 2).

    Parameters
    ----------
    first, second : array-like
        Pictures in [0, 1], (3, y, x), at least ``crop`` pixels along each axis.
    rng : `numpy.random.Generator`
        How the second is turned, scaled and moved.
    crop : int, optional
        Edge of the middle part that is kept, in pixels.
    factor : int, optional
        By how much that is then made coarser.
    shift : sequence of int, optional
        Range of the second's move along each axis in pixels of the original, to either side.

    Returns
    -------
    blended, first, second : `numpy.ndarray`
        (3, n, n) with n = ``crop // factor``, float32. The second is where the blend has it; the brighter of both is
        kept in each colour.

    Raises
    ------
    InputError
        If a picture is too small or an argument cannot be used.

    Notes
    -----
    The second is mirrored along each axis by lot, turned by any angle, scaled by exp(U(-1, 0.5)) and moved, in one
    interpolation about the middle of the picture; what comes from outside is empty. Coarser pixels are means.
    """
    pictures = [_floating(first), _floating(second)]
    for name, picture in zip(("first", "second"), pictures, strict=True):
        if picture.ndim != 3 or min(picture.shape[1:]) < crop:
            raise InputError(f"{name} has shape {picture.shape}; it must be (3, y, x) of at least {crop} pixels")
    if crop < 1 or factor < 1 or crop % factor:
        raise InputError(f"crop={crop!r} must be a positive multiple of factor={factor!r}")
    low, high = shift
    if not 0 <= low <= high:
        raise InputError(f"shift={shift!r} must be two numbers >= 0, the smaller first")
    mirror = np.where(rng.uniform(size=2) < 0.5, -1.0, 1.0)
    angle, scale = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-1.0, 0.5))
    move = rng.uniform(low, high, 2) * rng.choice([-1, 1], 2)
    one, two = _middle(pictures[0], crop), _transformed(pictures[1], mirror, angle, scale, move, crop)
    one, two = (p.reshape(len(p), crop // factor, factor, crop // factor, factor).mean(axis=(2, 4)) for p in (one, two))
    one, two = one.astype(np.float32), two.astype(np.float32)
    return np.maximum(one, two), one, two


def _transformed(picture, mirror, angle, scale, move, crop):
    """The middle of a picture mirrored, turned, scaled about its middle and moved (y, x)."""
    from scipy.ndimage import affine_transform, gaussian_filter

    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = mirror[:, None] * rotation.T / scale  # from places in the output to places in the picture
    middle_in, middle_out = (np.array(picture.shape[1:]) - 1) / 2, np.full(2, (crop - 1) / 2)
    offset = middle_in - back @ (middle_out + move)
    # A smaller picture has fewer pixels: without this its finest detail would turn into noise.
    blur = 0.5 * np.sqrt(max(1 / scale**2 - 1, 0))
    planes = [gaussian_filter(plane, blur) if blur > 0 else plane for plane in picture]
    return np.clip([affine_transform(p, back, offset, (crop, crop), order=1, mode="constant") for p in planes], 0, 1)


def _middle(picture, size):
    y, x = ((n - size) // 2 for n in picture.shape[1:])
    return picture[:, y : y + size, x : x + size]


def _moved(picture, shift):
    """A picture moved to the right by whole pixels; empty where it was not."""
    moved = np.zeros_like(picture)
    width = picture.shape[2]
    if abs(shift) < width:
        moved[:, :, max(shift, 0) : width + min(shift, 0)] = picture[:, :, max(-shift, 0) : width - max(shift, 0)]
    return moved


def _floating(image):
    image = np.asarray(image)
    return image if image.dtype in (np.float32, np.float64) else image.astype(np.float32)


def _checked(first, second, shift, rule, blended=None):
    first, second = _floating(first), _floating(second)
    if first.ndim != 3 or len(first) != 3 or first.shape != second.shape:
        raise InputError(f"first and second have shapes {first.shape} and {second.shape}; both must be one (3, y, x)")
    if blended is not None:
        blended = _floating(blended)
        if blended.shape != first.shape:
            raise InputError(f"blended has shape {blended.shape}; it must be that of first, {first.shape}")
    if isinstance(shift, bool) or not isinstance(shift, numbers.Integral):
        raise InputError(f"shift={shift!r} must be an integer, in pixels")
    if rule not in RULES:
        raise InputError(f"rule={rule!r} must be one of {', '.join(RULES)}")
    return first, second, blended
