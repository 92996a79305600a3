"""What the conformance kit needs for deblenders."""

from __future__ import annotations

import numpy as np

from astrogan.api import Separation, Template

__all__ = ["assert_separation", "difference", "frames", "overlapping_pair"]


def assert_separation(result, observation, count):
    """Hold a result to the contract of `~astrogan.api.Separation`."""
    assert isinstance(result, Separation), f"returned {type(result).__name__}; it must be a Separation"
    assert len(result.templates) == count, f"{len(result.templates)} templates for {count} positions"
    bands, height, width = observation.shape
    for template in result.templates:
        y0, x0 = template.origin
        _, h, w = template.data.shape
        assert len(template.data) == bands, f"a template has {len(template.data)} bands; the image has {bands}"
        assert 0 <= y0 <= height - h, f"a template's box leaves the image along y: {y0} + {h} > {height}"
        assert 0 <= x0 <= width - w, f"a template's box leaves the image along x: {x0} + {w} > {width}"
        assert np.isfinite(template.data).all(), "a template is not all finite"
        assert (template.data >= 0).all(), "a template is negative somewhere"
        for name, shape in (("variance", template.data.shape), ("flux_variance", (bands,))):
            array = getattr(template, name)
            if array is not None:
                assert np.shape(array) == shape, f"{name} of a template has shape {np.shape(array)}; expected {shape}"
                assert np.isfinite(array).all(), f"{name} of a template is not all finite"
                assert (np.asarray(array) >= 0).all(), f"{name} of a template is negative somewhere"
        known = Template.FAILED | Template.NOFIT
        assert not template.flags & ~known, f"flags of a template are {template.flags}; only {known} has a meaning"


def overlapping_pair(observation):
    """``observation`` with two overlapping sources amid a dark sky instead, and where they are."""
    shape = observation.shape
    rng = np.random.default_rng(4)
    positions = np.array([[24.3, 22.1], [30.6, 24.8]])
    y, x = np.mgrid[: shape[1], : shape[2]]
    scene = sum(f * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 9) for f, (a, b) in zip((100, 60), positions, strict=True))
    return observation.replace(data=scene + rng.normal(size=shape)), positions


def frames(separation, observation):
    """Each template in the frame of the image: (source, band, y, x)."""
    out = np.zeros((len(separation.templates), *observation.shape))
    for frame, template in zip(out, separation.templates, strict=True):
        (y, x), (_, height, width) = template.origin, np.shape(template.data)
        frame[:, y : y + height, x : x + width] = template.data
    return out


def difference(one, other):
    """The largest difference, as part of the largest value."""
    return np.abs(one - other).max(initial=0) / max(np.abs(one).max(initial=0), 1e-30)
