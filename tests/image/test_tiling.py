import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrogan.api import Estimate, Observation
from astrogan.exceptions import BackendError, InputError, PSFError
from astrogan.image.tiling import available_cores, plan_tiles, run_tiled, single_torch_thread


def observation(shape=(2, 90, 130), seed=0, **changes):
    rng = np.random.default_rng(seed)
    return Observation(rng.normal(size=shape), variance=np.ones(shape), **changes)


class BoxMean:
    """The mean over a box, clipped at the image's border: what a tile must reproduce exactly."""

    halo = 3
    tile_size = 40

    def __init__(self):
        self.shapes = []

    def __call__(self, observation, *, rng):
        self.shapes.append(observation.shape)
        data = observation.data.astype(np.float64)
        _, ny, nx = data.shape
        out = np.empty_like(data)
        for y in range(ny):
            for x in range(nx):
                box = data[:, max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
                out[:, y, x] = box.mean(axis=(1, 2))
        return Estimate(out, info={"pixels": ny * nx, "method": "box"})


class Returns:
    """A backend that gives back whatever it was made with."""

    halo = 0
    tile_size = 64

    def __init__(self, make):
        self.make = make

    def __call__(self, observation, *, rng):
        return self.make(observation, rng)


def run(backend, image=None, seed=0, **options):
    return run_tiled(backend, observation() if image is None else image, rng=np.random.default_rng(seed), **options)


@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.one_of(st.integers(1, 200), st.tuples(st.integers(1, 200), st.integers(1, 200))),
    st.integers(-1, 40),
)
def test_cores_cover_the_image_once(shape, tile, halo):
    tiles = plan_tiles(shape, tile, halo)
    hits = np.zeros(shape, int)
    indices = np.arange(shape[0] * shape[1]).reshape(shape)
    for t in tiles:
        hits[t.core] += 1
        assert np.array_equal(indices[t.outer][t.inner], indices[t.core])
        for core, outer, size in zip(t.core, t.outer, shape, strict=True):
            if halo >= 0:
                whole = outer == slice(0, size)
                assert whole or outer == slice(max(core.start - halo, 0), min(core.stop + halo, size))
    assert (hits == 1).all()
    for axis in (0, 1):
        lengths = {t.core[axis].stop - t.core[axis].start for t in tiles}
        assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("n", [1024, 4096, 1000])
def test_cores_divide_evenly(n):
    lengths = [t.core[1].stop - t.core[1].start for t in plan_tiles((100, n), 320, 32)]
    assert len(lengths) == round(n / 256)
    assert max(lengths) - min(lengths) <= 1


def test_a_wide_halo_widens_the_tile_and_few_slivers_are_joined():
    assert len(plan_tiles((1000, 1000), 64, 50)) == 100  # cores of two halos, not of one pixel
    assert len(plan_tiles((100, 1024), 320, 43)) == 4  # five would be narrower than needed
    assert len(plan_tiles((500, 500), 64, -1)) == 1
    assert len(plan_tiles((64, 64), 64, 10)) == 1


def test_tile_knows_its_centre_and_where_it_was_cut():
    tiles = plan_tiles((100, 200), (100, 100), 0)
    assert [t.center for t in tiles] == [(49.5, 49.5), (149.5, 49.5)]
    assert tiles[0].cuts((100, 200)) == ((False, False), (False, True))
    assert tiles[1].cuts((100, 200)) == ((False, False), (True, False))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (((0, 5), 10, 1), "shape_yx"),
        (((5,), 10, 1), "shape_yx"),
        (((5, 5), 0, 1), "tile"),
        (((5, 5), (3, 2.5), 1), "tile"),
        (((5, 5), 10, -2), "halo"),
        (((5, 5), 10, 1.0), "halo"),
    ],
)
def test_plan_refuses(arguments, word):
    with pytest.raises(InputError, match=word):
        plan_tiles(*arguments)


def test_tiles_equal_the_whole_image():
    image = observation()
    whole = BoxMean()(image, rng=None).data.astype(np.float32)
    for tile in (None, 20, 37, 200):
        estimate = run(BoxMean(), image, tile=tile)
        assert estimate.data.dtype == np.float32
        assert np.array_equal(estimate.data, whole)


def test_a_small_image_or_halo_minus_one_takes_one_call():
    backend = BoxMean()
    run(backend, observation((1, 40, 40)))
    assert backend.shapes == [(1, 40, 40)]
    backend = BoxMean()
    backend.halo = -1
    run(backend)
    assert backend.shapes == [(2, 90, 130)]


def test_halo_for_wins_over_halo():
    class Asks(BoxMean):
        def halo_for(self, observation):
            return 5

    backend = Asks()
    run(backend, observation((1, 40, 200)), workers=1)
    assert {shape[2] for shape in backend.shapes} == {34, 33, 39, 38}


def test_each_tile_has_its_own_generator_whatever_the_workers():
    def make(o, rng):
        time.sleep(0.001 * rng.random())
        return Estimate(rng.standard_normal(o.shape))

    results = [run(Returns(make), seed=4, tile=20, workers=w).data for w in (1, 2, 5)]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    assert not np.array_equal(results[0], run(Returns(make), seed=5, tile=20).data)
    assert abs(np.corrcoef(results[0][0, :20, :20].ravel(), results[0][0, 20:40, :20].ravel())[0, 1]) < 0.2


def test_psf_of_each_tile_is_that_at_its_centre():
    def psf_at(x, y):
        psf = np.zeros((2, 3, 3), np.float32)
        psf[:, 1, 1] = 1 - x / 1000
        psf[:, 0, 0] = x / 1000
        return psf

    def make(o, rng):
        return Estimate(np.broadcast_to(o.psf[:, :1, :1], o.shape).astype(np.float32))

    image = observation(psf=np.full((2, 3, 3), 1 / 9))
    out = run(Returns(make), image, tile=65, psf_at=psf_at).data
    assert np.allclose(out[:, :, 0], 32.0e-3)
    assert np.allclose(out[:, :, -1], 97.0e-3)
    assert np.allclose(run(Returns(make), image, tile=200, psf_at=psf_at).data, 64.5e-3)


def test_several_tiles_in_one_call_with_their_cuts():
    calls = []

    class Pairs:
        halo = 2
        tile_size = 30
        tiles_per_call = 2

        def for_image(self, observation):
            self.mean = float(observation.data.mean())
            return self

        def __call__(self, observation, *, rng):
            return Estimate(observation.data.copy())

        def call_tiles(self, observations, *, cuts, rngs):
            calls.append((len(observations), cuts, len(rngs)))
            return [Estimate(o.data - np.float32(self.mean)) for o in observations]

    image = observation((1, 30, 130))
    out = run(Pairs(), image, workers=1).data
    assert np.array_equal(out, image.data - np.float32(image.data.mean()))
    assert [n for n, _, _ in calls] == [2, 2, 1]
    assert calls[0][1] == [((False, False), (False, True)), ((False, False), (True, True))]
    assert calls[2][1] == [((False, False), (True, False))]


def test_variance_flags_and_info_are_put_together():
    def make(o, rng):
        info = {"method": "m", "level": float(o.shape[2]), "count": 3, "done": True}
        return Estimate(o.data.copy(), variance=o.variance * 2, flags=o.data > 0, info=info)

    image = observation()
    estimate = run(Returns(make), image)
    assert np.array_equal(estimate.data, image.data)
    assert np.array_equal(estimate.variance, 2 * image.variance)
    assert np.array_equal(estimate.flags, image.data > 0)
    assert estimate.info["method"] == "m"
    assert estimate.info["count"] == 3
    assert estimate.info["done"] is True
    assert estimate.info["level"] == pytest.approx(130 / 3)


def test_progress_is_called_in_the_calling_thread():
    seen = []
    caller = threading.get_ident()
    run(BoxMean(), progress=lambda done, total: seen.append((done, total, threading.get_ident() == caller)))
    assert seen[-1][0] == seen[-1][1] == len(seen)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert all(same for _, _, same in seen)
    seen.clear()
    run(BoxMean(), observation((1, 9, 9)), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]


@pytest.mark.parametrize("tile", [None, 500])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda o, rng: o.data, "must return an astrogan.api.Estimate"),
        (lambda o, rng: Estimate(o.data[:, 1:]), "shape"),
        (lambda o, rng: Estimate(o.data.astype(int)), "type int64"),
        (lambda o, rng: Estimate(np.full(o.shape, np.nan)), "not finite"),
        (lambda o, rng: Estimate(o.data, variance=-o.variance), "negative"),
        (lambda o, rng: Estimate(o.data, flags=o.data), "flags of type"),
        (lambda o, rng: o.data.__setitem__(0, 0), "read-only"),
        (lambda o, rng: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_misbehaving_backend_is_named(make, words, tile):
    with pytest.raises(BackendError, match="Returns") as caught:
        run(Returns(make), tile=tile)
    assert words in str(caught.value)


def test_own_errors_pass_unchanged():
    def make(o, rng):
        raise PSFError("psf=None: give one")

    with pytest.raises(PSFError, match="^psf=None: give one$"):
        run(Returns(make))


def test_variance_for_some_tiles_only_is_refused():
    def make(o, rng):
        return Estimate(o.data, variance=o.variance if o.shape[2] == 44 else None)

    with pytest.raises(BackendError, match="variance for some tiles"):
        run(Returns(make))


def test_wrong_halo_is_refused():
    backend = BoxMean()
    backend.halo = 2.5
    with pytest.raises(BackendError, match="halo 2.5"):
        run(backend)


@pytest.mark.parametrize("name", ["tile", "workers"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_wrong_options_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name}={value}"):
        run(BoxMean(), **{name: value})


def test_after_an_error_the_tiles_left_are_dropped():
    calls = []

    def make(o, rng):
        calls.append(1)
        time.sleep(0.005)  # time for the main thread to see the first error, on however busy a machine
        raise ValueError("no")

    with pytest.raises(BackendError):
        run(Returns(make), observation((1, 400, 400)), tile=10, workers=1)
    assert len(calls) < 1600 // 4


def test_single_torch_thread_leaves_the_count_as_it_was():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with single_torch_thread():
            assert torch.get_num_threads() == 1
            other = []
            thread = threading.Thread(target=lambda: other.append(torch.get_num_threads()))
            thread.start()
            thread.join()
            assert other == [2]
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), single_torch_thread():
            raise KeyError
        assert torch.get_num_threads() == 2
        inside = []
        run(Returns(lambda o, rng: (inside.append(torch.get_num_threads()), Estimate(o.data))[1]), workers=3)
        assert set(inside) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_available_cores_is_positive():
    assert available_cores() >= 1
