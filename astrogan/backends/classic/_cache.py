"""A bounded cache of arrays that threads can share."""

from __future__ import annotations

import threading
from collections import OrderedDict

__all__ = ["Cache"]


class Cache:
    """A small thread-safe cache of arrays by key, oldest out first, bounded in bytes."""

    def __init__(self, max_bytes: int = 256 * 2**20):
        self.max_bytes = max_bytes
        self._items: OrderedDict = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key, make):
        """The value under ``key``; ``make()`` is called for a new one, outside the lock."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key][0]
        value = make()
        size = sum(getattr(part, "nbytes", 0) for part in (value if isinstance(value, tuple) else (value,)))
        with self._lock:
            if key not in self._items:
                self._items[key] = (value, size)
                self._bytes += size
            while self._bytes > self.max_bytes and len(self._items) > 1:
                self._bytes -= self._items.popitem(last=False)[1][1]
            return self._items[key][0] if key in self._items else value

    def __getstate__(self):
        return {"max_bytes": self.max_bytes}

    def __setstate__(self, state):
        self.__init__(**state)
