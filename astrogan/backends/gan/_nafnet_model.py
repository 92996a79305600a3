"""The network of `astrogan.backends.gan.nafnet` on a device, with its card and the filters for the PSFs seen last."""

from __future__ import annotations

import threading

import numpy as np

from astrogan.backends.gan._device import compiled
from astrogan.exceptions import CheckpointError

__all__ = ["PERCEPTUAL", "Models", "check_card"]

PERCEPTUAL = "-perceptual"

_MOST = 1e20  # within single precision, squared
_REMEDY = "get the pair of files again, or train with this version"


class _Model:
    """A network on a device with its card, and the filters made for the PSFs seen last."""

    def __init__(self, name, perceptual, device, precision, fused):
        import torch

        from astrogan.nn.nafnet import FoldedNAFNet
        from astrogan.weights import blend, load_weights

        weights = load_weights(name)
        check_card(weights.card, name)
        tensors, self.sha256, self.companion = weights.tensors, weights.sha256, ""
        scale = _scale(weights.card)
        if perceptual > 0:
            other = load_weights(_companion(weights.path))
            check_card(other.card, other.path)
            tensors = blend(weights, other, perceptual)
            scale = (1 - perceptual) * scale + perceptual * _scale(other.card)
            self.companion = f"{other.name} {other.sha256[:12]}"
        self.name, self.device = weights.name, torch.device(device)
        self.card = weights.card
        self.net = FoldedNAFNet(_network(weights.card, tensors, name).to(self.device), getattr(torch, precision))
        self.run = compiled(self.net, _example(self.net, self.device)) if fused else self.net
        self.scale = torch.as_tensor(scale, dtype=torch.float32, device=self.device)
        self._banks, self._lock = {}, threading.Lock()

    def bank(self, kernels):
        """(band, filter, k, k) on the device."""
        import torch

        from astrogan.nn.filters import wiener_bank

        banks = []
        for kernel in kernels:
            key = (kernel.shape, kernel.tobytes())
            with self._lock:
                bank = self._banks.get(key)
            if bank is None:
                bank = wiener_bank(torch.from_numpy(kernel), self.net.balances, self.net.radius)
                with self._lock:
                    if len(self._banks) > 64:
                        self._banks.clear()
                    self._banks[key] = bank
            banks.append(bank)
        return torch.stack(banks).to(self.device)


class Models:
    """Networks that have been loaded, and cards that have been read; shared by the copies of a backend."""

    def __init__(self):
        self._models, self._cards, self._names = {}, {}, None
        self._lock = threading.Lock()

    def card(self, name):
        """The card of weights for this backend."""
        from astrogan.weights import read_card

        with self._lock:
            if name not in self._cards:
                card = read_card(name)
                check_card(card, name)
                self._cards[name] = card
            return self._cards[name]

    def shipped(self):
        """The cards of all weights that can be found by name, but for those that are there to be blended."""
        from astrogan.weights import list_weights

        with self._lock:
            if self._names is None:
                names = list_weights(backend="nafnet")
                self._names = tuple(name for name in names if not name.endswith(PERCEPTUAL))
        return [self.card(name) for name in self._names]

    def get(self, name, perceptual, device, precision, fused):
        with self._lock:
            key = (name, perceptual, str(device), precision, fused)
            if key not in self._models:
                self._models[key] = _Model(name, perceptual, device, precision, fused)
            return self._models[key]

    def __deepcopy__(self, memo):
        return Models()

    def __getstate__(self):
        return {}

    def __setstate__(self, state):
        self.__init__()


def check_card(card, name):
    """Refuse a card of another backend, or one with values that a restoration would fail at."""
    if card["backend"] != "nafnet":
        raise CheckpointError(f"weights={str(name)!r} are for the backend {card['backend']!r}, not nafnet")
    if card["bands"] is None:
        raise CheckpointError(f"weights={str(name)!r}: the card has no number of bands; {_REMEDY}")
    for quantity in card["ranges"].keys() & {"fwhm", "peak_snr"}:
        low, high = card["ranges"][quantity]
        if not 0 <= low <= high or not 0 < high < _MOST:
            raise CheckpointError(
                f"weights={str(name)!r}: the card's range of {quantity}, [{low!r}, {high!r}], is none of positive "
                f"numbers; {_REMEDY}"
            )
    scales = np.size(_scale(card))
    if scales not in (1, card["bands"]):
        raise CheckpointError(
            f"weights={str(name)!r}: the card's calibration has {scales} scales for {card['bands']} bands; {_REMEDY}"
        )


def _scale(card):
    """Factor on the predicted width, (band or 1, 1, 1); one where the card has no calibration."""
    return np.reshape((card["calibration"] or {}).get("scale", 1.0), (-1, 1, 1))


def _network(card, tensors, name):
    """The network that a card describes, with its tensors."""
    from astrogan.nn.nafnet import RestorationNAFNet
    from astrogan.weights._network import fitted

    net = fitted(RestorationNAFNet, card["architecture"], tensors, name)
    if net.bands != card["bands"]:
        raise CheckpointError(
            f"weights={str(name)!r} do not fit their card: it says {card['bands']} bands, the network has {net.bands}"
        )
    return net.requires_grad_(False).eval()


def _example(net, device):
    """Inputs of the network's ``forward`` on which it can be tried."""
    import torch

    image = torch.ones(1, net.bands, 8 * net.stride, 12 * net.stride, device=device)
    estimates = image[:, :, None].expand(-1, -1, len(net.balances), -1, -1).contiguous()
    return image, image.clone(), torch.full((1, net.bands), 3.0, device=device), estimates


def _companion(path):
    """The perceptual weights beside those of fidelity."""
    return path.with_name(f"{path.stem}{PERCEPTUAL}{path.suffix}")
