"""Parts of `astrogan.bench.performance`: Richardson-Lucy, the Wiener filter, total variation, degradation."""

from __future__ import annotations

import numpy as np

from astrogan.bench._performance_figures import Target, absent, faster, installed, seconds_row, smaller
from astrogan.bench._timing import best_of
from astrogan.image.tiling import DEFAULT_TILE

__all__ = ["degradation", "rl", "rl_stamps", "tv", "wiener"]

_SPEEDS = {256: (1.8, None), 1024: (4.5, 9.0), 4096: (9.0, 18.0)}
"""By edge in pixels: how many times scikit-image is asked for, plain and with momentum at equal likelihood."""
_STAMP, _STAMPS, _ITERATIONS = 128, 16, 30


def rl(job):
    """Richardson-Lucy beside scikit-image, and beside the four transforms an iteration of the whole image."""
    from astrogan.bench import richardson_lucy

    for pixels in (256, 1024, 4096) if job.full else (256, 1024):
        size, repeats = job.size(pixels), 1 if pixels > 2048 else job.repeats
        job.say(f"rl  {size} x {size}")
        table = richardson_lucy.run(sizes=(size,), repeats=repeats, seed=job.seed, clock=job.clock)
        rows = {row["method"]: row for row in table}
        ours, theirs, bound = (1e-3 * float(rows[n]["best_ms"]) for n in ("astrogan", "skimage", "fft-bound"))
        momentum, iterations = rows["astrogan-nesterov"], int(rows["astrogan-nesterov"]["iterations"])
        plain, accelerated = _SPEEDS[pixels]
        difference = float(rows["astrogan"]["difference"])
        exact = "" if np.isnan(difference) else f"tiles differ from the whole image by {difference:.0e} of the peak"
        yield faster("rl", f"{size}², scikit-image", ours, theirs, plain, notes=exact)
        if pixels >= 1024:
            limit = 1.0 if pixels == 1024 else None
            case = f"{size}², FFTs of the whole image alone"
            yield seconds_row("rl", case, ours, bound, limit or 1.0, notes="ours over theirs")
        case = f"{size}², momentum, {iterations} iterations, equal likelihood"
        yield faster("rl", case, 1e-3 * float(momentum["best_ms"]), theirs, accelerated)
        memory = [float(rows[name]["memory"]) for name in ("astrogan", "skimage")]
        case = f"{size}², memory beyond the input"
        yield smaller("rl", case, *memory, 1.3 if pixels == 4096 else None, unit="images", notes="ours over theirs")
        if pixels == 1024:
            yield _threaded_peer(job, size, ours)


def _threaded_peer(job, size, ours):
    """scikit-image with scipy's transforms on all cores."""
    import scipy.fft

    from astrogan.bench.richardson_lucy import _scene, _theirs
    from astrogan.image.tiling import available_cores

    data, psf = _scene(size, 41, job.seed)

    def threaded():
        with scipy.fft.set_workers(available_cores()):
            _theirs(data, psf, _ITERATIONS)

    seconds = best_of({"threaded": threaded}, 1, clock=job.clock)
    return faster("rl", f"{size}², scikit-image, FFTs on all cores", ours, seconds["threaded"])


def rl_stamps(job):
    """Many stamps that share a PSF: a batch beside a loop."""
    from astrogan.api import Observation
    from astrogan.bench.richardson_lucy import _backend, _scene, _theirs

    size = job.size(_STAMP)
    stamps = [_scene(size, 41, job.seed + k)[0] for k in range(_STAMPS)]
    psf = _scene(size, 41, job.seed)[1]
    observations = [Observation(stamp[None], psf=psf[None]) for stamp in stamps]
    backend = _backend(_ITERATIONS)

    def batch(workers):
        backend.batch(observations, rngs=_generators(len(stamps)), workers=workers)

    def one_by_one():
        for observation in observations:
            backend(observation, rng=np.random.default_rng(0))

    def theirs():
        for stamp in stamps:
            _theirs(stamp, psf, _ITERATIONS)

    functions = {"one": lambda: batch(1), "all": lambda: batch(None), "loop": one_by_one, "skimage": theirs}
    seconds = {name: s / len(stamps) for name, s in best_of(functions, job.repeats, clock=job.clock).items()}
    case = f"{size}² stamps"
    yield faster("rl-stamps", f"{case}, batch, one thread, scikit-image", seconds["one"], seconds["skimage"])
    yield faster("rl-stamps", f"{case}, batch, all cores, scikit-image", seconds["all"], seconds["skimage"])
    yield faster("rl-stamps", f"{case}, batch, one thread, one by one", seconds["one"], seconds["loop"])


def _generators(count):
    return [np.random.default_rng(k) for k in range(count)]


def wiener(job):
    """The Wiener filter with its kernel cached, beside scikit-image's."""
    from astrogan.bench.wiener import compare

    for pixels in (256, 1024, 4096) if job.full else (256, 1024):
        size, repeats = job.size(pixels), job.repeats if pixels > 2048 else 5 * job.repeats
        row = compare(size, repeats=repeats, seed=job.seed, clock=job.clock)
        notes = f"differs by {row['difference']:.0e} of the peak away from the edges"
        times = 1e-3 * row["astrogan_ms"], 1e-3 * row["skimage_ms"]
        yield faster("wiener", f"{size}², one thread, scikit-image", *times, 3.0, notes=notes)
        if size > DEFAULT_TILE:  # smaller images are one tile
            seconds = _wiener_by_tiles(size, repeats, job)
            yield faster("wiener", f"{size}², tiles on all cores, scikit-image", seconds, times[1])


def _wiener_by_tiles(size, repeats, job):
    """Seconds of the same filter as a restorer applies it."""
    from astrogan.api import Observation
    from astrogan.backends.classic.wiener import Wiener
    from astrogan.bench.wiener import _scene
    from astrogan.image.tiling import run_tiled

    image, psf = _scene(size, job.seed)
    observation, backend = Observation(image[None], psf=psf[None]), Wiener(0.01, slope=4.0)
    tiles = lambda: run_tiled(backend, observation, rng=np.random.default_rng(0))  # noqa: E731
    return best_of({"tiles": tiles}, repeats, clock=job.clock)["tiles"]


def tv(job):
    """Total-variation denoising to the energy that scikit-image's method reaches in 50 iterations."""
    from skimage.restoration import denoise_tv_chambolle

    from astrogan.api import Observation
    from astrogan.backends.classic.tv import TotalVariation
    from astrogan.bench.richardson_lucy import _scene

    weight = 1.0
    for pixels in (256, 1024) if job.full else (256,):
        size = job.size(pixels)
        data = np.minimum(_scene(size, 41, job.seed)[0], 50)
        observation = Observation(data[None], variance=np.ones_like(data)[None])
        theirs = lambda data=data: denoise_tv_chambolle(data, weight, eps=0, max_num_iter=50)  # noqa: E731
        wanted = _energy(theirs(), data, weight)

        def ours(iterations, observation=observation):
            return TotalVariation(weight, iterations=iterations)(observation).data[0]

        enough = next(
            (n for n in (2, 4, 6, 8, 10, 15, 20, 30, 50, 80) if _energy(ours(n), data, weight) <= wanted), 150
        )
        functions = {"ours": lambda n=enough: ours(n), "theirs": theirs}
        seconds = best_of(functions, job.repeats, clock=job.clock)
        notes = f"{enough} iterations reach the energy of their 50"
        yield faster("tv", f"{size}², scikit-image, equal energy", seconds["ours"], seconds["theirs"], notes=notes)


def _energy(image, data, weight):
    """What both minimise: half the squared misfit and the isotropic total variation, forward differences."""
    image = image.astype(np.float64)
    slopes = [np.diff(image, axis=axis, append=np.take(image, [-1], axis=axis)) for axis in (0, 1)]
    return float(0.5 * np.sum((image - data) ** 2) + weight * np.sum(np.hypot(*slopes)))


def degradation(job):
    """Stamps made worse, beside astropy, GalSim and deepinv, on one thread."""
    from astrogan.bench import degradation as bench

    with _one_thread():
        count = max(2, round(64 * job.scale))
        table = bench.run(repeats=job.repeats, stamps=count, peer_stamps=max(1, count // 10), clock=job.clock)
        yield from _degradation_rows({(row["method"], row["noise"]): row for row in table})
        yield _deepinv(job, count)


def _degradation_rows(rows):
    targets = {
        ("Gaussian", "astropy"): 25.0,
        ("Gaussian", "galsim"): 40.0,
        ("Poisson", "astropy"): 6.0,
    }
    for method, label in (("astrogan", "Gaussian PSF"), ("astrogan, Moffat PSF", "Moffat PSF")):
        for noise in ("none", "Gaussian", "Poisson"):
            for peer in ("astropy", "galsim"):
                bound = targets.get((noise, peer)) if method == "astrogan" else None
                case = f"{label}, noise {noise}, {peer}"
                other = rows.get((peer, "none" if noise == "none" else "Poisson"))
                if other is None:
                    yield absent("degradation", case, peer)
                    continue
                seconds = [1 / float(row["stamps_per_s"]) for row in (rows[method, noise], other)]
                yield faster("degradation", case, *seconds, bound, unit="ms a stamp")


def _deepinv(job, count):
    """Convolution alone, as deepinv's circular blur does it with the whole batch."""
    case = "Gaussian PSF, noise none, deepinv (circular)"
    if not installed("deepinv"):
        return absent("degradation", case, "deepinv", Target(1.3))
    import torch
    from deepinv.physics import BlurFFT

    from astrogan.backends.classic.physical_degrader import PhysicalDegrader
    from astrogan.bench.degradation import _FWHM, _KERNEL, SHAPE
    from astrogan.image.psf import gaussian_psf

    psf = gaussian_psf(_FWHM, size=_KERNEL)
    stamps = np.random.default_rng(job.seed).random((count, *SHAPE), np.float32)
    tensor, degrader = torch.from_numpy(stamps), PhysicalDegrader(psf)
    blur = BlurFFT(img_size=SHAPE, filter=torch.from_numpy(np.array(psf))[None, None], device="cpu")
    functions = {
        "ours": lambda: degrader.batch(stamps, rng=np.random.default_rng(0)),
        "theirs": lambda: blur(tensor),
    }
    seconds = {name: s / count for name, s in best_of(functions, job.repeats, clock=job.clock).items()}
    return faster("degradation", case, seconds["ours"], seconds["theirs"], 1.3, unit="ms a stamp")


def _one_thread():
    import torch  # noqa: F401  single_torch_thread does nothing before torch is there

    from astrogan.image.tiling import single_torch_thread

    return single_torch_thread()
