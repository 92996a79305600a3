"""One backend for each way to break the contract."""

import numpy as np

from astrogan.api import BackendSpec, Estimate, hookimpl


class _Base:
    halo = 0

    def __call__(self, observation, *, rng):
        return Estimate(self.spoil(np.array(observation.data)))


class WrongShape(_Base):
    def spoil(self, data):
        return data[:, :-1]


class NotFinite(_Base):
    def spoil(self, data):
        data[0, 0, 0] = np.nan
        return data


class WrongType(_Base):
    def spoil(self, data):
        return data.astype(int)


class Mutates(_Base):
    def __call__(self, observation, *, rng):
        observation.data[...] = 0
        return Estimate(observation.data)


class Raises(_Base):
    def spoil(self, data):
        raise ZeroDivisionError("something inside")


class BareArray(_Base):
    def __call__(self, observation, *, rng):
        return np.array(observation.data)


class GlobalRandom(_Base):
    def spoil(self, data):
        return data + np.random.normal(size=data.shape).astype("f4")


class Erases(_Base):
    """Divides the flux away, as instance normalisation does."""

    def spoil(self, data):
        return data / np.abs(data).max(initial=1e-30)


class ShortHalo(_Base):
    """Uses its neighbours and says that it does not."""

    def spoil(self, data):
        return sum(np.roll(data, shift, axis=2) for shift in range(-5, 6)) / 11


NAMES = {
    "wrong-shape": "WrongShape",
    "not-finite": "NotFinite",
    "wrong-type": "WrongType",
    "mutates": "Mutates",
    "raises": "Raises",
    "bare-array": "BareArray",
    "global-random": "GlobalRandom",
    "erases": "Erases",
    "short-halo": "ShortHalo",
}


@hookimpl
def astrogan_backends():
    return [BackendSpec("restorer", name, f"astrogan_misbehaving:{cls}") for name, cls in NAMES.items()]
