"""Large fields a blend at a time: which sources touch, what each group sees, and all of them in parallel.

A *blend* is a group of sources whose pixels touch, along an edge or at a corner. A deblender whose sources depend on
nothing but their own blend (see `~astrogan.api.DeblenderBackend`) sees a small cut-out for each, so a field of
thousands of sources takes the time and memory of its blends.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np

from astrogan.api import Blend, Observation, Separation, Template
from astrogan.exceptions import AstroganWarning, BackendError, InputError
from astrogan.image.mask import fill_invalid
from astrogan.image.tiling import available_cores, single_torch_thread

__all__ = ["group_blends", "solve_blends"]

_MARGIN = 4

# Every pixel of a stand-in template is at least this part of the noise, so that no light of the source is left over.
_FLOOR = 1e-3

_CONNECTED = np.ones((3, 3), bool)


def group_blends(observation, positions, labels, margin=_MARGIN, smallest=1):
    """Divide the sources of an image into blends.

    Parameters
    ----------
    observation : `~astrogan.api.Observation`
    positions : array_like
        (source, 2), each row (x, y) in 0-based pixels inside the image.
    labels : array_like of int
        (y, x); ``i + 1`` where a pixel belongs to source ``i``, 0 elsewhere. A source without any gets the pixel of its
        position where that is free.
    margin : int, optional
        Pixels of context around a blend's labels; cut-outs end at the image's border.
    smallest : int, optional
        Least edge of a cut-out in pixels, where the image is as large.

    Returns
    -------
    list of (`~astrogan.api.Blend`, `numpy.ndarray`, tuple)
        The blend; the indices of its sources, in the order of its positions; (y, x) of its first pixel in the image.
        In the order of the blends' first labelled pixels, row by row.

    Raises
    ------
    InputError
        If labels, positions and observation do not agree.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogan.api import Observation
    >>> from astrogan.image.blends import group_blends
    >>> labels = np.array([[1, 1, 2, 0, 0, 0, 3]])
    >>> image = Observation(np.ones((1, 1, 7)))
    >>> [members.tolist() for _, members, _ in group_blends(image, [(0, 0), (2, 0), (6, 0)], labels, margin=1)]
    [[0, 1], [2]]
    """
    plan = _plan(observation, positions, labels, margin, smallest)
    return [(_cut(observation, plan, part), part.members, part.origin) for part in plan.parts]


def solve_blends(
    backend,
    observation: Observation,
    positions,
    *,
    rng: np.random.Generator,
    workers: int | None = 1,
    psf_at: Callable[[float, float], np.ndarray] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Separation:
    """Run a deblender that has ``detect`` and ``separate`` over an image, a blend at a time.

    Parameters
    ----------
    backend : `~astrogan.api.DeblenderBackend`
        With ``detect(observation, positions)`` and ``separate(blend, *, rng)``; ``margin``, where it has that.
    observation : `~astrogan.api.Observation`
        The image.
    positions : array_like or None
        (source, 2), each row (x, y); `None` to detect.
    rng : `numpy.random.Generator`
        Every blend gets a generator of its own, keyed by its place among the blends.
    workers : int, optional
        Threads; `None` for one a core. Neither it nor the order of the positions changes a bit of the result.
    psf_at : callable, optional
        ``psf_at(x, y)`` gives the PSF (band, k, k) at a pixel position; a blend uses that of its middle.
    progress : callable, optional
        ``progress(done, total)`` in sources, called from the calling thread as blends are finished.

    Returns
    -------
    `~astrogan.api.Separation`
        Templates in the order of the positions, the labels as segmentation, and in ``info`` the number of ``blends``,
        the number of sources of the ``largest_blend``, and of the ``failed_blends`` if there are any.

    Raises
    ------
    BackendError
        If the backend returns something else than the contract says.
    InputError
        If ``workers`` is not a positive integer.

    Warns
    -----
    AstroganWarning
        If ``separate`` raised a numerical error. The sources of such blends have the image on their own labels for
        templates, and the flag ``Template.FAILED``.
    """
    if workers is not None and (not isinstance(workers, Integral) or isinstance(workers, bool) or workers < 1):
        raise InputError(f"workers={workers!r} must be a positive integer or None")
    if positions is not None:
        positions = np.asarray(positions, np.float64).reshape(-1, 2)
        if not len(positions):
            return Separation((), np.zeros(observation.shape[1:], np.int32))
    positions, labels, info = _detected(backend, observation, positions)
    room = int(getattr(backend, "margin", _MARGIN)), int(getattr(backend, "min_size", 1))
    plan = _plan(observation, positions, labels, *room)
    job = _Job(backend, observation, plan, psf_at, seed=int(rng.integers(2**63)))
    templates, failures = job.run(workers or available_cores(), progress)
    info |= {"blends": len(plan.parts), "largest_blend": max((len(p.members) for p in plan.parts), default=0)}
    if failures:
        info["failed_blends"] = len(failures)
        _warn(backend, plan, failures)
    return Separation(tuple(templates), plan.labels, info)


def _detected(backend, observation, positions):
    """(positions, labels, info) of the backend's ``detect``, whatever the order of the positions."""
    order = None if positions is None else np.lexsort(positions.T)
    found = backend.detect(observation, None if order is None else positions[order])
    who = _label(backend)
    if not hasattr(found, "labels") or not hasattr(found, "positions"):
        raise BackendError(f"{who}: detect returned {type(found).__name__}; it must have labels and positions")
    labels, places = np.asarray(found.labels), np.asarray(found.positions, np.float64).reshape(-1, 2)
    if labels.shape != observation.shape[1:] or labels.dtype.kind not in "iu":
        raise BackendError(
            f"{who}: detect returned labels of shape {labels.shape} and dtype {labels.dtype}; expected integers of "
            f"shape {observation.shape[1:]}"
        )
    if labels.size and not (labels.min() >= 0 and labels.max() <= len(places)):
        raise BackendError(
            f"{who}: detect returned labels from {labels.min()} to {labels.max()} for {len(places)} positions"
        )
    info = dict(getattr(found, "info", None) or {})
    if order is None:
        return places, labels, info
    if len(places) != len(positions):
        raise BackendError(f"{who}: detect returned {len(places)} positions for {len(positions)}")
    numbers = np.concatenate([[0], order + 1]).astype(np.int32)
    return positions, numbers[labels], info


@dataclass(frozen=True)
class _Part:
    """A blend before it is cut out: its number, sources, and box."""

    number: int
    members: np.ndarray
    box: tuple[slice, slice]

    @property
    def origin(self):
        return self.box[0].start, self.box[1].start

    @property
    def centre(self):
        y, x = self.box
        return 0.5 * (x.start + x.stop - 1), 0.5 * (y.start + y.stop - 1)


@dataclass(frozen=True)
class _Plan:
    """The blends of an image; ``group`` and ``rank`` give, by label, the blend's number and the label inside it."""

    positions: np.ndarray
    labels: np.ndarray
    group: np.ndarray
    rank: np.ndarray
    parts: list[_Part]


def _plan(observation, positions, labels, margin, smallest):
    positions, labels = _checked(observation, positions, labels, margin)
    labels = _with_all_pixels(labels, positions)
    group, first = _groups(labels, positions)
    # Sorted by place, so that the order of the positions is no information for the backend.
    order = np.lexsort((positions[:, 0], positions[:, 1], group[1:]))
    members = np.split(order, np.cumsum(np.bincount(group[1:] - 1, minlength=len(first)))[:-1]) if len(first) else []
    rank = np.zeros(len(positions) + 1, np.int32)
    for indices in members:
        rank[indices + 1] = np.arange(1, len(indices) + 1)
    boxes = _boxes(labels, group, positions, members, margin, smallest)
    parts = [_Part(i + 1, indices, box) for i, (indices, box) in enumerate(zip(members, boxes, strict=True))]
    return _Plan(positions, labels, group, rank, parts)


def _checked(observation, positions, labels, margin):
    positions, labels = np.asarray(positions, np.float64).reshape(-1, 2), np.asarray(labels)
    if labels.shape != observation.shape[1:] or labels.dtype.kind not in "iu":
        raise InputError(
            f"labels has shape {labels.shape} and dtype {labels.dtype}; it must be integers of the image's shape, "
            f"{observation.shape[1:]}"
        )
    if not (labels.min() >= 0 and labels.max() <= len(positions)):
        raise InputError(f"labels run from {labels.min()} to {labels.max()}; there are {len(positions)} positions")
    if not isinstance(margin, Integral) or margin < 0:
        raise InputError(f"margin={margin!r} must be a number of pixels >= 0, e.g. {_MARGIN}")
    if not np.isfinite(positions).all():
        raise InputError("positions are not all finite; leave such sources out")
    return positions, labels


def _pixels(positions, shape):
    """(y, x) of the pixel that each position lies in."""
    return tuple(np.clip(np.floor(positions[:, ::-1] + 0.5).astype(np.intp), 0, np.array(shape) - 1).T)


def _with_all_pixels(labels, positions):
    """Labels in which a source without any has its position's pixel, where that is free."""
    labels = np.array(labels, np.int32)
    bare = np.flatnonzero(np.bincount(labels.ravel(), minlength=len(positions) + 1)[1:] == 0)
    if len(bare):
        bare = bare[np.lexsort(positions[bare].T)][::-1]  # of several in a pixel the first place gets it
        pixels = tuple(axis[bare] for axis in _pixels(positions, labels.shape))
        labels[pixels] = np.where(labels[pixels] == 0, bare + 1, labels[pixels])
    return labels


def _groups(labels, positions):
    """The blend's number (from 1) of each label (0 for label 0), and each blend's first pixel as a flat index."""
    from scipy.ndimage import label
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(positions)
    if not count:
        return np.zeros(1, np.int32), np.empty(0, np.intp)
    regions, n_regions = label(labels > 0, _CONNECTED)
    lit = np.flatnonzero(labels)
    # A source joins the regions that hold its pixels (several, if its label is torn) or its position.
    pixels = _pixels(positions, labels.shape)
    inside = np.flatnonzero(regions[pixels])
    source = np.concatenate([labels.ravel()[lit] - 1, inside])
    region = np.concatenate([regions.ravel()[lit], regions[pixels][inside]]) - 1
    pairs = np.unique(source.astype(np.int64) * n_regions + region)
    source, region = np.divmod(pairs, n_regions)
    size = count + n_regions
    graph = coo_array((np.ones(len(pairs), np.int8), (source, count + region)), shape=(size, size))
    component = connected_components(graph, directed=False)[1][:count]
    # Numbered by their first pixels, whatever numbers the sources have.
    n_components = component.max() + 1
    first = np.zeros(n_components, np.intp)
    first[component[labels.ravel()[lit[::-1]] - 1]] = lit[::-1]
    order = np.argsort(first)
    number = np.empty(n_components, np.int32)
    number[order] = np.arange(1, n_components + 1)
    return np.concatenate([[0], number[component]]).astype(np.int32), first[order]


def _boxes(labels, group, positions, members, margin, smallest):
    """(rows, columns) of each blend: its labels and positions, and what is asked for around, inside the image."""
    from scipy.ndimage import find_objects

    boxes = []
    for found, indices in zip(find_objects(group[labels], max_label=len(members)), members, strict=True):
        at = _pixels(positions[indices], labels.shape)
        axes = zip(found, at, labels.shape, strict=True)
        boxes.append(tuple(_widened(extent, pixels, margin, smallest, size) for extent, pixels, size in axes))
    return boxes


def _widened(extent, pixels, margin, smallest, size):
    start, stop = min(extent.start, int(pixels.min())), max(extent.stop, int(pixels.max()) + 1)
    margin = max(margin, -((stop - start - smallest) // 2))
    start, stop = start - margin, stop + margin
    if stop - start < 2 * smallest:  # what the border cuts off a small one is added on the other side
        start, stop = min(start, size - smallest), max(stop, smallest)
    return slice(max(start, 0), min(stop, size))


def _cut(observation, plan, part, psf_at=None):
    """The `Blend` of a part."""
    labels = plan.labels[part.box]
    group = plan.group[labels]
    other = (group > 0) & (group != part.number)
    crop = observation.crop(*part.box, psf=None if psf_at is None else psf_at(*part.centre))
    if other.any():
        valid = crop.valid & ~other
        crop = crop.replace(data=_refilled(crop.data, valid, ~other), valid=valid)
    mine = np.where(group == part.number, plan.rank[labels], 0)
    positions = plan.positions[part.members] - part.origin[::-1]
    return Blend(crop, positions, mine)


def _refilled(data, valid, own):
    """Data without what other blends have in it; a band without a valid pixel is filled from its own fillings."""
    return np.stack([fill_invalid(plane, good if good.any() else own) for plane, good in zip(data, valid, strict=True)])


class _Job:
    """The blends of one image being worked on."""

    def __init__(self, backend, observation, plan, psf_at, seed):
        self.backend = backend
        self.observation = observation
        self.plan = plan
        self.psf_at = psf_at
        self.seed = seed

    def run(self, workers, progress):
        """Templates in the order of the positions, and what went wrong as {blend's number: error}."""
        parts = self.plan.parts
        templates, failures, done = [None] * len(self.plan.positions), {}, 0
        for part, (found, error) in self._solved(min(workers, len(parts))):
            for i, template in zip(part.members, found, strict=True):
                templates[i] = template
            if error is not None:
                failures[part.number] = error
            done += len(part.members)
            if progress is not None:
                progress(done, len(templates))
        return templates, failures

    def _solved(self, workers):
        """(part, result) as they are finished."""
        parts = self.plan.parts
        if workers <= 1:
            yield from ((part, self._solve(part)) for part in parts)
            return
        # The largest first: else the others may be waiting for it at the end.
        parts = sorted(parts, key=lambda p: (p.box[0].stop - p.box[0].start) * (p.box[1].stop - p.box[1].start))
        pool = ThreadPoolExecutor(workers, thread_name_prefix="astrogan-blend")
        try:
            futures = {pool.submit(self._solve, part): part for part in reversed(parts)}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            # On an error or an interrupt the blends not yet begun are dropped.
            pool.shutdown(cancel_futures=True)

    def _solve(self, part):
        """(templates in the image's pixels, error or None) of one blend."""
        blend = _cut(self.observation, self.plan, part, self.psf_at)
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(part.number,)))
        error = None
        try:
            with single_torch_thread():
                found = self.backend.separate(blend, rng=rng)
        except Exception as raised:
            if not _numerical(raised):
                raise
            found, error = _stand_ins(blend), raised
        return self._moved(part, blend, found), error

    def _moved(self, part, blend, found):
        found = tuple(found) if hasattr(found, "__iter__") else (found,)
        if len(found) != len(part.members) or not all(isinstance(t, Template) for t in found):
            raise BackendError(
                f"{_label(self.backend)}: separate returned {len(found)} objects for {len(part.members)} positions; "
                "it must return a Template for each"
            )
        y, x = part.origin
        moved = []
        for i, local, template in zip(part.members, blend.positions, found, strict=True):
            same = tuple(template.position) == tuple(local)
            at = self.plan.positions[i] if same else np.add(template.position, (x, y))
            origin = (int(template.origin[0]) + y, int(template.origin[1]) + x)
            moved.append(replace(template, origin=origin, position=tuple(map(float, at))))
        return moved


def _numerical(error):
    """Whether an error says that numbers went wrong, not that code is."""
    torch_linalg = getattr(sys.modules.get("torch"), "linalg", None)
    kinds = (np.linalg.LinAlgError, ArithmeticError, getattr(torch_linalg, "LinAlgError", ()))
    return isinstance(error, kinds)


def _stand_ins(blend):
    """The image on each source's own labels: what a watershed gives."""
    observation = blend.observation
    floor = _FLOOR * _noise(observation)
    templates = []
    for j, (x, y) in enumerate(blend.positions):
        mine = blend.labels == j + 1
        rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
        if not len(rows):
            rows, columns = ((axis[0], axis[0]) for axis in _pixels(np.array([[x, y]]), mine.shape))
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        data = np.maximum(observation.data[:, *box], floor[:, None, None]) * mine[box]
        templates.append(
            Template(
                (int(rows[0]), int(columns[0])),
                data.astype(np.float32),
                (float(x), float(y)),
                flags=Template.FAILED,
            )
        )
    return tuple(templates)


def _noise(observation):
    """A standard deviation for each band; never zero."""
    if observation.variance is None:
        scale = np.abs(observation.data).mean(axis=(1, 2))
    else:
        pairs = zip(observation.variance, observation.valid, strict=True)
        scale = np.sqrt([np.median(v[good]) if good.any() else 0.0 for v, good in pairs])
    return np.where(scale > 0, scale, 1.0)


def _warn(backend, plan, failures):
    """One warning, whatever the number of blends."""
    number = min(failures)
    error = failures[number]
    part = plan.parts[number - 1]
    x, y = plan.positions[part.members[0]]
    warnings.warn(
        f"{_label(backend)} failed on {len(failures)} of {len(plan.parts)} blends, the first at (x, y) = ({x:.1f}, "
        f"{y:.1f}): {type(error).__name__}: {error}; their sources hold the image on their own segments and are "
        "flagged FAILED",
        AstroganWarning,
        stacklevel=3,
    )


def _label(backend):
    return f"deblender {getattr(backend, 'name', None) or type(backend).__name__!r}"
