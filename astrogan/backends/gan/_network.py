"""A network with its weights, read where it is first needed and shared by all threads."""

from __future__ import annotations

import os
import threading

from astrogan.backends.gan._device import device_of
from astrogan.exceptions import InputError

__all__ = ["LazyNetwork", "built"]


class LazyNetwork:
    """Weights for one backend, and the network that they belong to.

    Parameters
    ----------
    weights : str or path
        Name or path, see `astrogan.weights.load_weights`.
    backend : str
        Whose weights they must be.
    build : callable
        ``build(**architecture)`` gives the network.
    device : str
        See `device_of`.
    check : callable, optional
        ``check(network, card, weights)`` raises an error where the backend cannot use what the card says.

    Notes
    -----
    A copy made by pickle reads the weights again.
    """

    def __init__(self, weights, backend, build, device="auto", check=None):
        self.weights, self.backend, self.build, self.device = os.fspath(weights), backend, build, device
        self.check = check
        self._forget()

    def __getstate__(self):
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    def __setstate__(self, state):
        vars(self).update(state)
        self._forget()

    def _forget(self):
        self._loaded, self._lock = None, threading.Lock()

    def get(self):
        """(network, `~astrogan.weights.Weights`), read once.

        Raises
        ------
        InputError
            If the weights are for another backend.
        CheckpointError
            If they are damaged or do not fit.
        """
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self):
        from astrogan.weights import load_weights

        device = device_of(self.device)
        weights = load_weights(self.weights)
        network = built(weights, self.weights, self.backend, self.build)
        if self.check is not None:
            self.check(network, weights.card, self.weights)
        return network.eval().requires_grad_(False).to(device), weights


def built(weights, given, backend, build):
    """The network of a card, with its weights.

    Parameters
    ----------
    weights : `~astrogan.weights.Weights`
    given : str
        How the user named them.
    backend : str
        Whose they must be.
    build : callable
        ``build(**architecture)`` gives the network.

    Raises
    ------
    InputError
        If the weights are for another backend.
    CheckpointError
        If the tensors do not fit the card's architecture.
    """
    from astrogan.weights._network import fitted

    if weights.card.get("backend") != backend:
        raise InputError(
            f"weights={given!r} are for the backend {weights.card.get('backend')!r}; give some for {backend!r} "
            "(astrogan weights list), or train them (astrogan train --list)"
        )
    return fitted(build, weights.card["architecture"], weights.tensors, given)
