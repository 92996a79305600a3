"""Speed of the networks, in training and in use, in one run: ``astrogan bench networks``.

All rows see the same batches: three bands of 256 x 256 pixels. A training step is forward, loss, backward and the
optimiser's; restored megapixels are pixels of one band plane of the image (not times its bands). What the restoration
network is given, a bank of Wiener estimates, counts as its own time. Set ``OMP_NUM_THREADS`` to choose the threads;
absolute times depend on the machine, and the ratios are what counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from astrogan.exceptions import InputError

__all__ = ["Net", "default_nets", "main", "run"]

BANDS, SIZE, FWHM = 3, 256, 4.0
REFERENCE = "unet256"
_PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Net:
    """One row of the table: how a network is made, trained by a step, and used.

    Parameters
    ----------
    name : str
        Label.
    build : callable
        ``build(device)`` gives the network's state, of any kind; its ``parameters()`` are counted where it has them.
    step : callable
        ``step(state, batch)`` does one whole training step. ``batch`` is a dict of tensors: ``data`` and ``truth``
        (n, band, y, x) in units of the noise.
    infer : callable
        ``infer(state, batch)`` gives the restored images; called without gradients.
    """

    name: str
    build: Callable[[str], Any]
    step: Callable[[Any, dict], Any]
    infer: Callable[[Any, dict], Any]


def run(*, repeats=3, nets=None, precisions=None, batch=1, size=SIZE, device="cpu", reference=REFERENCE, seed=0):
    """Time training and use of all networks, alternating; the fastest of ``repeats`` runs counts.

    Parameters
    ----------
    repeats : int
        Runs of each row, after one that is not counted.
    nets : sequence of `Net`, optional
        Default: `default_nets`.
    precisions : sequence of str, optional
        Of "fp32" and "bf16" (automatic mixed precision). Default: both, bf16 only where the processor computes in it.
    batch, size : int
        Images a batch, and their edge in pixels, a multiple of 256 for the U-Net.
    device : str
        As torch names it.
    reference : str
        Name of the network that the ratios are over.
    seed : int
        Of the images.

    Returns
    -------
    `~astropy.table.Table`
        ``network``, ``precision``, ``parameters`` (millions), ``gmac`` (billions of multiply-adds of convolutions and
        matrix products a megapixel), ``steps_per_s``, ``mpix_per_s``, and both over those of the reference at the same
        precision (``steps_over``, ``mpix_over``; NaN where it is not among the rows).

    Raises
    ------
    InputError
        If a precision is unknown or a number is less than one.
    """
    import torch
    from astropy.table import Table

    nets = default_nets() if nets is None else list(nets)
    precisions = _available(device) if precisions is None else tuple(precisions)
    for name in precisions:
        if name not in _PRECISIONS:
            raise InputError(f"precisions={precisions!r}: {name!r} must be one of {', '.join(_PRECISIONS)}")
    for name, value in (("repeats", repeats), ("batch", batch), ("size", size)):
        if value < 1:
            raise InputError(f"{name}={value!r} must be at least 1")
    images = _batch(batch, size, device, seed)
    with torch.random.fork_rng():  # initial weights and dropout must not depend on, or change, the caller's
        torch.manual_seed(seed)
        states = {net.name: net.build(device) for net in nets}
        times = _times(nets, states, images, precisions, repeats, device)
    table = Table(
        names=("network", "precision", "parameters", "gmac", *_SPEEDS, "steps_over", "mpix_over"),
        dtype=(str, str, *6 * [float]),
    )
    megapixels = batch * size**2 / 1e6
    for net in nets:
        cost = _count_macs(net, states[net.name], images) / megapixels
        for precision in precisions:
            own, other = (times.get((name, precision)) for name in (net.name, reference))
            ratios = [np.nan, np.nan] if other is None else [b / a for a, b in zip(own, other, strict=True)]
            speeds = [1 / own[0], megapixels / own[1]]
            table.add_row((net.name, precision, _count_parameters(states[net.name]), cost, *speeds, *ratios))
    for name, digits in zip(table.colnames[2:], (2, 1, 3, 3, 2, 2), strict=True):
        table[name].info.format = f".{digits}f"
    table.meta["caption"] = (
        f"Batches of {batch} x {BANDS} x {size} x {size} on {device}, {torch.get_num_threads()} threads; "
        f"ratios over {reference} at the same precision."
    )
    return table


_SPEEDS = ("steps_per_s", "mpix_per_s")


def _times(nets, states, images, precisions, repeats, device):
    """{(network, precision): [seconds a step, seconds a restoration]}."""
    best = {}
    for repeat in range(repeats + 1):
        for precision in precisions:
            for net in nets:
                seconds = (
                    _seconds(lambda net=net: net.step(states[net.name], images), precision, device),
                    _seconds(lambda net=net: net.infer(states[net.name], images), precision, device, train=False),
                )
                if repeat:
                    known = best.setdefault((net.name, precision), [np.inf, np.inf])
                    best[net.name, precision] = [min(pair) for pair in zip(known, seconds, strict=True)]
    return best


def _seconds(function, precision, device, train=True):
    import torch

    kind = torch.device(device).type
    cast = torch.autocast(kind, torch.bfloat16) if precision == "bf16" else nullcontext()
    wait = torch.cuda.synchronize if kind == "cuda" else (lambda: None)
    with cast, torch.set_grad_enabled(train):
        wait()
        start = time.perf_counter()
        function()
        wait()
        return time.perf_counter() - start


def _batch(n, size, device, seed):
    """Blobs in noise, in its units."""
    import torch

    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2
    blob = 50 * np.exp(-np.hypot(x, y) / (size / 16))
    truth = np.broadcast_to(blob, (n, BANDS, size, size)).astype(np.float32)
    data = truth + rng.standard_normal(truth.shape, np.float32)
    return {name: torch.from_numpy(array.copy()).to(device) for name, array in (("data", data), ("truth", truth))}


def _count_parameters(state):
    """Millions of numbers that training changes."""
    parts = state.values() if isinstance(state, dict) else [state]
    networks = [part for part in parts if hasattr(part, "parameters")]
    return sum(p.numel() for network in networks for p in network.parameters()) / 1e6


def _count_macs(net, state, images):
    """Billions of multiply-adds of one restoration, as torch counts them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.infer(state, images)
    return counter.get_total_flops() / 2 / 1e9


def _available(device):
    if str(device) != "cpu":
        return _PRECISIONS
    from astrogan.backends.gan._device import processor_flags

    return _PRECISIONS if processor_flags() & {"avx512_bf16", "amx_bf16"} else ("fp32",)


# ---- the networks ----------------------------------------------------------------------------------------------------


def default_nets():
    """The restoration network, and pix2pix's U-Net alone and with its discriminator.

    Returns
    -------
    list of Net
        ``nafnet``, ``unet256`` (generator, trained with L1 alone), ``pix2pix`` (with its discriminator: the whole step
        of the GalaxyGAN paper; in use it is the same as the U-Net).
    """
    return [
        Net("nafnet", _build_nafnet, _step_nafnet, _infer_nafnet),
        Net("unet256", _build_unet, _step_unet, _infer_unet),
        Net("pix2pix", _build_pix2pix, _step_pix2pix, _infer_unet),
    ]


def _adam(network, **options):
    import torch

    return torch.optim.Adam(network.parameters(), **options)


def _build_nafnet(device):
    import torch

    from astrogan.image.psf import gaussian_psf
    from astrogan.nn.filters import wiener_bank
    from astrogan.nn.nafnet import RestorationNAFNet

    network = RestorationNAFNet(bands=BANDS).to(device)
    bank = wiener_bank(torch.from_numpy(np.array(gaussian_psf(FWHM))), network.balances, network.radius)
    return {
        "network": network,
        "optimiser": torch.optim.AdamW(network.parameters(), 1e-3, betas=(0.9, 0.9)),
        "bank": bank[None, None].to(device),
    }


def _infer_nafnet(state, batch):
    import torch

    from astrogan.nn.filters import apply_bank

    data = batch["data"]
    with torch.autocast(data.device.type, enabled=False), torch.no_grad():
        estimates = apply_bank(data, state["bank"])
    fwhm = data.new_full(data.shape[:2], FWHM)
    return state["network"](data, torch.ones_like(data), fwhm, estimates)


def _step_nafnet(state, batch):
    mean, spread = _infer_nafnet(state, batch)
    error = (mean - batch["truth"]).abs()
    # The width of the error has a branch of its own, that is trained along.
    _descend(state["optimiser"], error.mean() + (error.detach() - spread).abs().mean())


def _build_unet(device):
    from astrogan.nn.pix2pix import UNet256

    network = UNet256(BANDS, BANDS).to(device)
    return {
        "network": network,
        "optimiser": _adam(network, lr=2e-4, betas=(0.5, 0.999)),
        "generator": _generator(device),
    }


def _generator(device):
    import torch

    return torch.Generator(device).manual_seed(0)


def _infer_unet(state, batch):
    """As its authors use it: dropout and the batch's own statistics."""
    return state["network"](_squeezed(batch["data"]), stochastic=True, generator=state["generator"])


def _squeezed(images):
    """Images in [-1, 1], as pix2pix wants them."""
    return (images / 50).clamp(-1, 1)


def _step_unet(state, batch):
    restored = _infer_unet(state, batch)
    _descend(state["optimiser"], 100 * (restored - _squeezed(batch["truth"])).abs().mean())


def _build_pix2pix(device):
    from astrogan.nn.pix2pix import PatchGAN

    state = _build_unet(device)
    critic = PatchGAN(2 * BANDS).to(device)
    return state | {"critic": critic, "critic_optimiser": _adam(critic, lr=2e-4, betas=(0.5, 0.999))}


def _step_pix2pix(state, batch):
    import torch

    seen, truth, critic = _squeezed(batch["data"]), _squeezed(batch["truth"]), state["critic"]
    restored = _infer_unet(state, batch)
    real, made = critic(torch.cat([seen, truth], 1)), critic(torch.cat([seen, restored.detach()], 1))
    _descend(state["critic_optimiser"], 0.5 * (_against(real, 1.0) + _against(made, 0.0)))
    fooled = _against(critic(torch.cat([seen, restored], 1)), 1.0)
    _descend(state["optimiser"], fooled + 100 * (restored - truth).abs().mean())


def _against(logits, wanted):
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(logits, logits.new_full(logits.shape, wanted))


def _descend(optimiser, loss):
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def main(arguments=None) -> None:
    """Print the table.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m astrogan.bench.networks", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="+", choices=_PRECISIONS)
    table = run(**vars(parser.parse_args(arguments)))
    print("\n".join(table.pformat(max_lines=-1, max_width=-1)))
    print(table.meta["caption"])


if __name__ == "__main__":
    main()
