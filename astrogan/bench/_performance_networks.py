"""Parts of `astrogan.bench.performance`: networks in use, in training, and on a mosaic."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from astrogan.bench._performance_figures import Figure, Target, absent, faster, installed, machine_has
from astrogan.bench._timing import CLOCKS, best_of

__all__ = ["inference", "mosaic", "training"]

_NO_GAIN = 1.15  # what is asked for where the processor has no unit for bfloat16


# ---- in use ---------------------------------------------------------------------------------------------------------


def inference(job):
    """The shipped restoration network in its quick forms beside the plain module: float32, eager."""
    import torch

    from astrogan.bench import networks
    from astrogan.nn.nafnet import FoldedNAFNet

    network, inputs = _shipped(job)
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        unet = networks._build_unet("cpu")
    batch = {"data": inputs[0].expand(-1, networks.BANDS, -1, -1).contiguous()}
    forms = {"plain": network, "folded fp32": FoldedNAFNet(network)}
    if machine_has("amx") or machine_has("avx512_bf16"):
        forms["folded bf16"] = FoldedNAFNet(network, torch.bfloat16)
    functions = {name: lambda form=form: _forward(form, *inputs) for name, form in forms.items()}
    functions["unet"] = lambda: _forward(networks._infer_unet, unet, batch)
    seconds = best_of(functions, job.repeats, clock=job.clock)
    case = f"{inputs[0].shape[-1]}², {network.bands} band{'s' if network.bands > 1 else ''}"
    yield from _inference_rows(case, seconds)
    yield _onnx(job, case, inputs, seconds["plain"])
    yield _stamps_together(job)
    if job.full:
        yield _compiled(job, case, network, inputs)


_WEIGHTS = "nafnet-linear"


def _shipped(job):
    """The network that comes with the package, as a plain module, and an image for it with its estimates."""
    import torch

    from astrogan.bench import networks
    from astrogan.nn.nafnet import RestorationNAFNet
    from astrogan.weights import load_weights

    weights = load_weights(_WEIGHTS)
    network = RestorationNAFNet(**weights.card["architecture"]).eval().requires_grad_(False)
    network.load_state_dict(weights.tensors)
    data = networks._batch(1, job.size(256, multiple=256), "cpu", job.seed)["data"][:, : network.bands].contiguous()
    estimates = data[:, :, None].expand(-1, -1, len(network.balances), -1, -1).contiguous()
    fwhm = torch.full(data.shape[:2], networks.FWHM)
    return network, (data, torch.ones_like(data), fwhm, estimates)


def _inference_rows(case, seconds):
    yield faster("inference", f"{case}, folded fp32, eager fp32", seconds["folded fp32"], seconds["plain"])
    if "folded bf16" in seconds:
        label = f"{case}, folded bf16, eager fp32"
        yield faster("inference", label, seconds["folded bf16"], seconds["plain"], 3.5, needs="amx")
    else:
        nan, reason = float("nan"), "not applicable: no bfloat16"
        yield Figure("inference", f"{case}, folded bf16", "ms", nan, nan, nan, Target(3.5, needs="amx"), met=reason)
    # What precision="auto" takes.
    amx = machine_has("amx")
    form = "folded bf16" if amx or machine_has("avx512_bf16") else "folded fp32"
    bound = 3.5 if amx else _NO_GAIN
    label, notes = f"{case}, precision auto, eager fp32", f"{form}; the target {'with' if amx else 'without'} AMX"
    yield faster("inference", label, seconds[form], seconds["plain"], bound, notes=notes)
    label = f"{case}, folded fp32, U-Net of pix2pix fp32"
    yield faster("inference", label, seconds["folded fp32"], seconds["unet"], notes="the U-Net has three bands")


def _forward(function, *arguments):
    import torch

    with torch.inference_mode():
        return function(*arguments)


def _onnx(job, case, inputs, plain):
    """ONNX Runtime with the same network."""
    case = f"{case}, ONNX Runtime fp32, eager fp32"
    for package in ("onnxruntime", "onnx", "onnxscript"):
        if not installed(package):
            return absent("inference", case, package)
    import onnxruntime

    from astrogan.weights import export_onnx

    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(_WEIGHTS, Path(folder) / "network.onnx")
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = ("data", "noise", "fwhm", "estimates")
    arrays = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    seconds = best_of({"onnx": lambda: session.run(None, arrays)}, job.repeats, clock=job.clock)
    return faster("inference", case, seconds["onnx"], plain)


def _stamps_together(job, count=16):
    """Stamps that share a PSF through the network in one pass, beside one after the other."""
    from astrogan.api import Observation
    from astrogan.backends.gan.nafnet import NAFNet
    from astrogan.image.psf import gaussian_psf

    size, rng = job.size(64, multiple=8), np.random.default_rng(job.seed)
    psf, noise = np.asarray(gaussian_psf(3.0, size=21))[None], np.ones((1, size, size), np.float32)
    scenes = rng.normal(size=(count, 1, size, size)).astype(np.float32)
    stamps = [Observation(scene, variance=noise, psf=psf) for scene in scenes]
    backend = NAFNet(_WEIGHTS, device="cpu")
    functions = {"batch": lambda: backend.batch(stamps), "loop": lambda: [backend(stamp) for stamp in stamps]}
    seconds = {name: s / count for name, s in best_of(functions, job.repeats, clock=job.clock).items()}
    case = f"{count} stamps of {size}², batch, one by one"
    return faster("inference", case, seconds["batch"], seconds["loop"], unit="ms a stamp")


def _compiled(job, case, network, inputs):
    """What ``compile=True`` makes of the quickest form, beside that form; minutes to set up."""
    import torch

    from astrogan.backends.gan._device import compiled
    from astrogan.exceptions import MissingDependencyError
    from astrogan.nn.nafnet import FoldedNAFNet

    short = machine_has("amx") or machine_has("avx512_bf16")
    form, name = FoldedNAFNet(network, torch.bfloat16 if short else torch.float32), "bf16" if short else "fp32"
    start = CLOCKS[job.clock]()
    try:
        fused = compiled(form, inputs)
    except MissingDependencyError:
        return absent("inference", f"{case}, folded {name} compiled", "a C++ compiler")
    setup = CLOCKS[job.clock]() - start
    functions = {"ours": lambda: _forward(fused, *inputs), "theirs": lambda: _forward(form, *inputs)}
    seconds = best_of(functions, job.repeats, clock=job.clock)
    label = f"{case}, folded {name} compiled, not compiled"
    return faster("inference", label, seconds["ours"], seconds["theirs"], notes=f"{setup:.0f} s to set up")


# ---- in training ----------------------------------------------------------------------------------------------------


def training(job):
    """A training step of the restoration network beside one of pix2pix with its discriminator, on the same pixels."""
    import torch

    from astrogan.bench import networks

    count, size = (4, 256) if job.scale >= 1 else (1, 256)  # as many pixels as 16 stamps of 128
    batch = networks._batch(count, size, "cpu", job.seed)
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        ours, theirs = networks._build_nafnet("cpu"), networks._build_pix2pix("cpu")
        ours["network"].to(memory_format=torch.channels_last)
        functions = {
            "nafnet fp32": lambda: _step(networks._step_nafnet, ours, batch, None),
            "pix2pix fp32": lambda: _step(networks._step_pix2pix, theirs, batch, None),
        }
        if machine_has("amx") or machine_has("avx512_bf16"):
            functions["nafnet bf16"] = lambda: _step(networks._step_nafnet, ours, batch, torch.bfloat16)
        seconds = best_of(functions, job.repeats, clock=job.clock)
    notes = "as many pixels as 16 stamps of 128"
    for name in ("nafnet fp32", "nafnet bf16"):
        if name in seconds:
            case = f"{count} x {size}², {name}, pix2pix fp32"
            yield faster("training", case, seconds[name], seconds["pix2pix fp32"], 3.5, needs="amx", notes=notes)


def _step(step, state, batch, dtype):
    import torch

    with contextlib.nullcontext() if dtype is None else torch.autocast("cpu", dtype):
        step(state, batch)


# ---- on a mosaic ----------------------------------------------------------------------------------------------------

_WARM = 256  # edge of the part on which imports, threads and filters are made before it counts
_TIMEOUT = 3600


def mosaic(job):
    """A learned restoration of one band by tiles, streamed where that is there, beside the whole image at once."""
    size = job.size(8192 if job.full else 2048)
    with tempfile.TemporaryDirectory() as folder:
        _write_scene(folder, size, job.seed)
        found = {}
        for method in ("whole", "tiles", "streamed"):
            job.say(f"mosaic  {method}")
            found[method] = _measured(folder, method, job.clock)
    whole = found["whole"]
    for method in ("tiles", "streamed"):
        label = {"tiles": "tiles, in memory", "streamed": "tiles, FITS to FITS"}[method]
        if "why" in found[method]:
            yield _failed(f"{size}², {label}", found[method]["why"])
            continue
        yield from _mosaic_rows(f"{size}², {label}", found[method], whole, streamed=method == "streamed")


def _mosaic_rows(case, ours, whole, *, streamed):
    nan = float("nan")
    own, other = ours["seconds"], whole.get("seconds", nan)
    notes = "ours over the whole image at once, fp32" + (f"; whole: {whole['why']}" if "why" in whole else "")
    target = Target(0.35, least=False, needs="amx") if streamed else None
    yield Figure("mosaic", f"{case}, time", "s", own, other, own / other, target, notes)
    memory, others = ours["megabytes"], whole.get("megabytes", nan)
    target = Target(300, least=False, of="ours") if streamed else None
    yield Figure("mosaic", f"{case}, memory beyond the input", "MB", memory, others, memory / others, target, notes)


def _failed(case, why):
    nan = float("nan")
    return Figure("mosaic", case, "", nan, nan, nan, notes=why, met="not measured")


def _write_scene(folder, size, seed):
    from astropy.io import fits

    from astrogan.bench.richardson_lucy import _scene

    data, psf = _scene(size, 41, seed)
    fits.writeto(Path(folder) / "in.fits", data, fits.Header([("BUNIT", "adu")]))
    np.save(Path(folder) / "psf.npy", psf)


def _measured(folder, method, clock):
    """{"seconds", "megabytes"} of one restoration in processes of their own, or {"why"}.

    Where memory is to be that in use, and not what malloc keeps for later, tensors come and go with system calls,
    which take longer than the work: so time is that of another run. The whole image's tensors do so anyhow.
    """
    found = _run_apart(folder, method, clock, {})
    if method == "whole" or "why" in found:
        return found
    frugal = _run_apart(folder, method, clock, {"MALLOC_MMAP_THRESHOLD_": "65536"})  # with glibc
    return found | {"megabytes": frugal["megabytes"]} if "megabytes" in frugal else frugal


def _run_apart(folder, method, clock, environment):
    command = [sys.executable, "-m", "astrogan.bench._performance_networks", str(folder), method, clock]
    try:
        done = subprocess.run(  # noqa: S603 - our own code
            command, env=os.environ | environment, capture_output=True, text=True, check=True, timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return {"why": f"more than {_TIMEOUT} s"}
    except subprocess.CalledProcessError as error:
        return {"why": (error.stderr.strip().splitlines() or [f"ended with code {error.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def _report(folder, method, clock):
    """What one restoration needs, in this process."""
    from astrogan.bench._deblending_field import _memory

    call = {"whole": _whole, "tiles": _tiles, "streamed": _streamed}[method](Path(folder))
    with contextlib.suppress(OSError):  # where there is no such file the peak is that of the process's whole life
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew
    before, start = _memory("VmRSS"), CLOCKS[clock]()
    call()
    seconds = CLOCKS[clock]() - start
    return {"seconds": seconds, "megabytes": max(_memory("VmHWM") - before, 0) / 1e6}


def _observation(folder):
    from astropy.io import fits

    from astrogan.api import Observation

    data, psf = fits.getdata(folder / "in.fits").astype(np.float32)[None], np.load(folder / "psf.npy")[None]
    return Observation(data, variance=np.ones_like(data), psf=psf)


def _backend(quick):
    """The restoration network as it comes, or in the form that is quickest on this processor."""
    from astrogan.backends.gan.nafnet import NAFNet

    return NAFNet(precision="auto" if quick else "float32", device="cpu")


def _warmed(backend, observation, **options):
    """A function that restores the observation, after a part of it has been restored."""
    from astrogan.image.tiling import run_tiled

    part = slice(0, _WARM)
    settled = backend.for_image(observation)
    run_tiled(settled, observation.crop(part, part), rng=np.random.default_rng(0))
    return lambda: run_tiled(settled, observation, rng=np.random.default_rng(0), **options)


def _whole(folder):
    observation = _observation(folder)
    return _warmed(_backend(quick=False), observation, tile=max(observation.shape))


def _tiles(folder):
    return _warmed(_backend(quick=True), _observation(folder))


def _streamed(folder):
    from astrogan.operators.restorer import Restorer

    if not hasattr(Restorer, "process"):
        raise SystemExit("there is no Restorer.process")
    from astropy.io import fits
    from astropy.nddata import CCDData

    restorer = Restorer(_backend(quick=True), psf=np.load(folder / "psf.npy"))
    with fits.open(folder / "in.fits", memmap=True) as file:
        part = CCDData(file[0].section[:_WARM, :_WARM], unit="adu")
    restorer(part)
    options = {"overwrite": True} if "overwrite" in inspect.signature(restorer.process).parameters else {}
    return lambda: restorer.process(folder / "in.fits", folder / "out.fits", **options)


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    print(json.dumps(_report(*sys.argv[1:4])))
