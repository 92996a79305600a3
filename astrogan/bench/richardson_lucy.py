"""Richardson-Lucy beside scikit-image's, in one run: ``astrogan bench richardson-lucy``.

All rows restore the same float32 image, a field of stars and galaxies in noise, with the same Moffat PSF. Beside them
stands the time that four real FFTs of the whole padded image take an iteration, with whichever of torch and scipy, and
of one thread and all cores, is the quickest: an untiled method that does nothing but its transforms cannot beat it.
Absolute times depend on the machine; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from astrogan.bench._timing import CLOCKS, alternate

__all__ = ["main", "run"]

_FWHM = 4.0
_LARGEST_WHOLE = 2048  # edge up to which the tiles are checked against the whole image
# Run in a process of its own. Where there is no /proc the peak is that of the process's whole life.
_MEMORY = """
import resource, sys
import numpy as np
from astrogan.api import Observation
from astrogan.bench.richardson_lucy import _backend, _ours, _theirs

def memory(field):
    try:
        with open("/proc/self/status") as file:
            return 1024 * next(int(line.split()[1]) for line in file if line.startswith(field))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

data, psf, iterations, method = np.load(sys.argv[1]), np.load(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
observation = Observation(data[None], psf=psf[None])
call = {
    "skimage": lambda o: _theirs(o.data[0], psf, iterations),
    "astrogan": lambda o: _ours(_backend(iterations), o),
}[method]
call(observation.crop(slice(0, 400), slice(0, 400)))  # imports, threads, cached transfer functions
try:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
except OSError:
    pass
before = memory("VmRSS")
result = call(observation)
print((memory("VmHWM") - before) / data.nbytes)
"""


def run(*, sizes=(256, 1024), iterations=30, psf_size=41, repeats=3, memory=True, seed=0, clock="wall"):
    """Time all rows, alternating.

    Parameters
    ----------
    sizes : sequence of int
        Edges of the square images in pixels.
    iterations : int
        Iterations of the textbook method; the accelerated row does as many as it needs to reach the same likelihood.
    psf_size : int
        Edge of the PSF in pixels, odd.
    repeats : int
        Runs of each row, after one that is not counted.
    memory : bool
        Whether to measure memory, in processes of their own.
    seed : int
        Seed of the image.
    clock : {'wall', 'cpu'}
        Time on the wall, or that of all cores that the process has used.

    Returns
    -------
    `~astropy.table.Table`
        ``size``, ``method``, ``iterations``; ``best_ms`` and ``median_ms`` over the repeats; ``times_skimage`` (how
        many times faster than scikit-image) and ``of_fft_bound`` (time over that of the FFTs alone), both of the best
        runs, with ``median_times_skimage`` of the medians; ``difference``, the largest one between tiles and the
        whole image over its peak; ``memory``, what the call needs at its peak beyond its input, in images, the result
        included.
    """
    from astropy.table import Table

    rows = []
    for size in sizes:
        rows += _compare(int(size), iterations, psf_size, repeats, memory, seed, clock)
    table = Table(rows=rows)
    for name in table.colnames:
        if table[name].dtype.kind == "f":
            table[name].format = ".1e" if name == "difference" else ".2f"
    return table


def _compare(size, iterations, psf_size, repeats, memory, seed, clock):
    from astrogan.api import Observation

    data, psf = _scene(size, psf_size, seed)
    observation = Observation(data[None], psf=psf[None])
    fewer = _equal_likelihood(iterations, psf_size, seed)
    plain, accelerated = _backend(iterations), _backend(fewer, "nesterov")
    methods = {
        "skimage": (iterations, lambda: _theirs(data, psf, iterations)),
        "fft-bound": (iterations, _fft_bound(size + psf_size - 1, iterations)),
        "astrogan": (iterations, lambda: _ours(plain, observation)),
        "astrogan-nesterov": (fewer, lambda: _ours(accelerated, observation)),
    }
    times = alternate({name: function for name, (_, function) in methods.items()}, repeats, clock=clock)
    best = {name: 1e3 * float(values.min()) for name, values in times.items()}
    median = {name: 1e3 * float(np.median(values)) for name, values in times.items()}
    difference = dict.fromkeys(methods, np.nan)
    if size <= _LARGEST_WHOLE:
        difference["astrogan"] = _difference(plain, observation)
        difference["astrogan-nesterov"] = _difference(accelerated, observation)
    needed = dict.fromkeys(methods, np.nan)
    if memory:
        needed |= {name: _memory(data, psf, iterations, name) for name in ("skimage", "astrogan")}
    return [
        {
            "size": size,
            "method": name,
            "iterations": methods[name][0],
            "best_ms": best[name],
            "median_ms": median[name],
            "times_skimage": best["skimage"] / best[name],
            "median_times_skimage": median["skimage"] / median[name],
            "of_fft_bound": best[name] / best["fft-bound"],
            "difference": difference[name],
            "memory": needed[name],
        }
        for name in methods
    ]


def _scene(size, psf_size, seed):
    """Stars and galaxies of one unit of noise on a sky of zero, float32, and a Moffat PSF of FWHM 4 pixels."""
    from scipy.signal import fftconvolve

    rng = np.random.default_rng(seed)
    offset = np.arange(psf_size) - psf_size // 2
    scale = 0.5 * _FWHM / np.sqrt(2 ** (1 / 3) - 1)
    psf = (1 + (offset[:, None] ** 2 + offset**2) / scale**2) ** -3.0
    psf = (psf / psf.sum()).astype(np.float32)
    image = np.zeros((size, size), np.float32)
    stars = max(size * size // 2000, 1)
    np.add.at(image, tuple(rng.integers(0, size, (2, stars))), np.minimum(100 * rng.pareto(1.0, stars), 1e5))
    y, x = np.mgrid[-30:31, -30:31]
    disc = np.exp(-np.hypot(y, x) / 4)
    for _ in range(stars // 4):
        row, column = rng.integers(0, max(size - 61, 1), 2)
        part = image[row : row + 61, column : column + 61]
        part += 20 * rng.random() * disc[: part.shape[0], : part.shape[1]]
    image = fftconvolve(image, psf, mode="same") + rng.standard_normal(image.shape, np.float32)
    return image.astype(np.float32), psf


def _backend(iterations, acceleration=None):
    from astrogan.backends.classic.richardson_lucy import RichardsonLucy

    return RichardsonLucy(iterations, acceleration=acceleration)


def _ours(backend, observation):
    from astrogan.image.tiling import run_tiled

    return run_tiled(backend, observation, rng=np.random.default_rng(0))


def _theirs(data, psf, iterations):
    from skimage.restoration import richardson_lucy

    # It wants positive data.
    return richardson_lucy(data + np.float32(10), psf, num_iter=iterations, clip=False)


def _difference(backend, observation) -> float:
    whole = backend(observation, rng=np.random.default_rng(0)).data
    return float(np.abs(_ours(backend, observation).data - whole).max() / np.abs(whole).max())


def _equal_likelihood(iterations, psf_size, seed) -> int:
    """The accelerated iterations that reach the Poisson likelihood of so many plain ones."""
    from scipy.signal import fftconvolve

    from astrogan.api import Observation

    data, psf = _scene(256, psf_size, seed)
    observation = Observation(data[None], psf=psf[None])
    inner = slice(psf_size, -psf_size)

    def misfit(backend):
        estimate = backend(observation, rng=np.random.default_rng(0))
        background = estimate.info["background"]
        model = fftconvolve(estimate.data[0].astype(float) + background, psf, mode="same")[inner, inner]
        counts = np.maximum(data[inner, inner] + background, 0)
        return float(np.sum(model - counts * np.log(model)))

    wanted = misfit(_backend(iterations))
    fewer = 1
    while fewer < iterations and misfit(_backend(fewer, "nesterov")) > wanted:
        fewer += 1
    return fewer


def _fft_bound(size, iterations):
    """A function that does four real FFTs an iteration and nothing else, in the quickest way found."""
    import scipy.fft
    import torch

    from astrogan.backends.classic._fourier import good_size
    from astrogan.image.tiling import available_cores, single_torch_thread

    def with_torch(image, axes):
        tensor, n = torch.from_numpy(image), len(image)
        if not axes:
            return lambda: torch.fft.irfft2(torch.fft.rfft2(tensor), s=(n, n))
        forth = lambda: torch.fft.fft(torch.fft.rfft(tensor), dim=0)  # noqa: E731 - one line, used once
        return lambda: torch.fft.irfft(torch.fft.ifft(forth(), dim=0), n=n)

    def with_one_torch_thread(image, axes):
        pair = with_torch(image, axes)

        def alone():
            with single_torch_thread():
                pair()

        return alone

    def with_scipy(image, workers):
        forth = lambda: scipy.fft.rfft2(image, workers=workers)  # noqa: E731 - one line, used once
        return lambda: scipy.fft.irfft2(forth(), s=image.shape, workers=workers, overwrite_x=True)

    pairs = []
    for n in {scipy.fft.next_fast_len(size, real=True), good_size(size)}:
        image = np.random.default_rng(0).random((n, n), np.float32)
        pairs += [make(image, axes) for make in (with_torch, with_one_torch_thread) for axes in (False, True)]
        pairs += [with_scipy(image, workers) for workers in (1, available_cores())]
    quickest = min(pairs, key=_time_of_one)

    def bound():
        for _ in range(2 * iterations):
            quickest()

    return bound


def _time_of_one(function) -> float:
    function()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def _memory(data, psf, iterations, method) -> float:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "data.npy", Path(folder) / "psf.npy"]
        for path, array in zip(files, (data, psf), strict=True):
            np.save(path, array)
        # Fewer iterations need the same memory.
        command = [sys.executable, "-c", _MEMORY, *map(str, files), str(min(iterations, 3)), method]
        # With glibc: freed blocks go back at once, so that what is counted is in use and not kept for later.
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
        result = subprocess.run(  # noqa: S603 - our own code
            command, env=environment, capture_output=True, text=True, check=True
        )
    return float(result.stdout)


def main(arguments=None) -> None:
    """Print the table.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m astrogan.bench.richardson_lucy", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--psf-size", type=int, default=41)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="do not measure memory")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    options = vars(parser.parse_args(arguments))
    print("\n".join(run(**options).pformat(max_lines=-1, max_width=-1)))


if __name__ == "__main__":
    main()
