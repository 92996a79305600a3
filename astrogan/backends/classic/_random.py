"""Random numbers for noise: numpy's distributions, drawn a few times faster for whole images.

Everything is seeded from the `numpy.random.Generator` that the caller passes, so the same generator in the same state
gives the same noise.
"""

from __future__ import annotations

import numpy as np

__all__ = ["poisson", "quick_generator", "standard_normal"]

# Bytes of the blocks that are worked on: they stay in the processor's first caches, and temporary arrays of this size
# are cheap (larger ones, the operating system maps anew each time).
_BLOCK_BYTES = 2**16

_TWO_32 = np.float32(2.0**-32)
_LARGE_MEAN = 10.0


def standard_normal(shape, rng, out=None):
    """Unit normal deviates, float32, by the Box-Muller transform.

    The transform works on whole arrays, so it is a few times faster than `numpy.random.Generator`, which draws one
    deviate after the other. They reach 6.6 sigma. ``out`` is a C-contiguous float32 array to write to.
    """
    out = np.empty(shape, np.float32) if out is None else out
    flat = out.reshape(-1)
    stream = _stream(rng)
    step = 3 * _BLOCK_BYTES // 4  # deviates; the temporary arrays hold two bytes for each
    for start in range(0, flat.size, step):
        _fill_normal(flat[start : start + step], stream)
    return out


def _fill_normal(out, stream):
    """Pairs of deviates from a radius of 32 random bits and an angle of 16.

    Up to the order of 65536 all moments of either deviate are as if the angle were continuous; only the directions that
    a pair can have are discrete.
    """
    half = (out.size + 1) // 2
    bits = stream.random_raw((6 * half + 7) // 8)
    radius = bits.view(np.uint32)[:half].astype(np.float32)
    radius *= _TWO_32
    radius += _TWO_32 / 2
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle = bits.view(np.uint16)[2 * half : 3 * half].astype(np.float32)
    angle *= np.float32(2 * np.pi / 2**16)
    np.multiply(np.cos(angle), radius, out=out[:half])
    rest = out.size - half
    np.multiply(np.sin(angle, out=angle)[:rest], radius[:rest], out=out[half:])


def poisson(mean, rng, *, noise=False, out=None):
    """Poisson deviates, exact: float64 counts or, with ``noise``, float32 counts minus the mean.

    Means from ten on by normal deviates with a correction (Ahrens & Dieter 1982, ACM Transactions on Mathematical
    Software 8, 163; algorithm PD), on whole arrays and two to three times faster than one by one. A normal deviate,
    rounded down, is kept with probability min(1, p / q), where p is the Poisson and q the rounded normal probability;
    the few that are not kept are replaced by deviates from the normalised excess of p over q. Smaller means numpy
    draws.
    """
    mean = np.asarray(mean)
    if out is None:
        out = np.empty(mean.shape, np.float32 if noise else np.float64)
    stream = _stream(rng)
    small = mean < _LARGE_MEAN
    if not small.any():
        _fill_poisson(out.reshape(-1), mean.reshape(-1), stream, noise)
        return out
    few, many = mean[small], mean[~small]
    out[small] = np.random.Generator(stream).poisson(few) - (few if noise else 0)
    large = np.empty(many.shape, out.dtype)
    _fill_poisson(large, many, stream, noise)
    out[~small] = large
    return out


def _fill_poisson(out, mean, stream, noise):
    uniform = np.random.Generator(stream)
    unsure, guesses, luck = [np.empty(0, int)], [np.empty(0)], [np.empty(0, np.float32)]
    step = _BLOCK_BYTES // 8
    for start in range(0, mean.size, step):
        block = slice(start, start + step)
        lam = mean[block].astype(np.float64)
        k = _normal_guess(lam, stream)
        np.floor(k, out=k)
        u = uniform.random(lam.size, dtype=np.float32)
        below = lam - k
        (where,) = np.nonzero(_in_doubt(below, lam, u))
        unsure.append(where + start)
        guesses.append(k[where])
        luck.append(u[where])
        out[block] = np.negative(below, out=below) if noise else k
    unsure = np.concatenate(unsure)
    lost = unsure[_refused(np.concatenate(guesses), mean[unsure].astype(np.float64), np.concatenate(luck))]
    lam = mean[lost].astype(np.float64)
    out[lost] = _excess(lam, uniform) - (lam if noise else 0)


def _normal_guess(mean, stream):
    normal = np.empty(mean.size, np.float32)
    _fill_normal(normal, stream)
    guess = np.sqrt(mean)
    guess *= normal
    guess += mean
    return guess


def _in_doubt(below, mean, u):
    """Where a rounded normal deviate, so much below the mean, is not kept without computing p / q.

    Down to two below the mean, p is larger than q; farther down 1 - below**3 / (6 mean**2) is less than p / q.
    """
    bound = below * below
    bound *= below
    return (below >= 2.1484) & (6 * mean * mean * u < bound)


def _refused(k, mean, u):
    """Which of the deviates in doubt are not kept."""
    poisson_p, normal_p = _probabilities(k, mean)
    return (k < 0) | ((1 - u) * normal_p > poisson_p)


def _excess(mean, uniform):
    """Deviates from the excess of the Poisson over the rounded normal probability, by rejection."""
    out = np.empty_like(mean)
    left = np.arange(mean.size)
    while left.size:
        lam = mean[left]
        exponential = uniform.exponential(size=left.size)
        u = uniform.uniform(-1, 1, size=left.size)
        t = 1.8 + np.copysign(exponential, u)
        k = np.floor(lam + np.sqrt(lam) * t)
        poisson_p, normal_p = _probabilities(k, lam)
        kept = (t > -0.6744) & (0.1069 / lam * np.abs(u) <= (poisson_p - normal_p) * np.exp(exponential))
        out[left[kept]] = k[kept]
        left = left[~kept]
    return out


def _probabilities(k, mean):
    """Of ``k`` under a Poisson law, and under a normal one of the same mean and variance, rounded down."""
    from scipy.special import gammaln, ndtr

    root = np.sqrt(mean)
    known = np.maximum(k, 0.0)
    poisson_p = np.where(k >= 0, np.exp(known * np.log(mean) - mean - gammaln(known + 1)), 0.0)
    low, high = (k - mean) / root, (k + 1 - mean) / root
    # Differences of the distribution function keep their digits in the lower tail only.
    upper = low > 0
    low, high = np.where(upper, -high, low), np.where(upper, -low, high)
    return poisson_p, ndtr(high) - ndtr(low)


def _stream(rng):
    """A bit generator of the quickest kind, seeded by the caller's generator unless that has one itself."""
    if isinstance(rng.bit_generator, np.random.SFC64):
        return rng.bit_generator
    return np.random.SFC64(rng.integers(0, 2**32, size=4, dtype=np.uint32))


def quick_generator(rng):
    """A generator seeded by ``rng``, for many short draws."""
    return np.random.Generator(_stream(rng))
