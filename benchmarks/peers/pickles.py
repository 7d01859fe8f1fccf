"""Sessions of the stores that keep one pickle an object: the cache of objects is a dict, as small as can be.

They do less than an object database: no references, no ghosts, no snapshots. That is why they are here, to
show what these cost.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from things import PlainItem

Pair = tuple[int, bytes]


class PickleTable(Protocol):
    """Pickles by key, for one thread."""

    def put(self, pairs: Sequence[Pair]) -> None:
        """Store these, and commit."""

    def delete(self, keys: Sequence[int]) -> None:
        """Remove these, and commit."""

    def get(self, key: int) -> bytes:
        """One of them."""

    def all(self) -> Iterable[bytes]:
        """All of them, in the order of their keys."""

    def close(self) -> None:
        """Let go of it."""


class PickleSession:
    """A session over a table of pickles."""

    def __init__(self, table: PickleTable) -> None:
        self._table = table
        self._held: Sequence[int] = ()
        self._loaded: dict[int, PlainItem] = {}

    def add(self, keys: Sequence[int]) -> None:
        self._table.put([_pickled(key, PlainItem(key)) for key in keys])

    def remove(self, keys: Sequence[int]) -> None:
        self._table.delete(keys)

    def hold(self, keys: Sequence[int]) -> None:
        self._held = keys

    def change(self, number: int) -> None:
        pairs = []
        for key, item in self._items():
            item.number = number
            pairs.append(_pickled(key, item))
        self._table.put(pairs)

    def read(self) -> int:
        return sum(item.number for _, item in self._items())

    def scan(self) -> int:
        return sum(pickle.loads(data).number for data in self._table.all())

    def forget(self) -> None:
        self._loaded.clear()

    def close(self) -> None:
        self._table.close()

    def _items(self) -> Iterator[tuple[int, PlainItem]]:
        loaded = self._loaded
        for key in self._held:
            item = loaded.get(key)
            if item is None:
                item = loaded[key] = pickle.loads(self._table.get(key))
            yield key, item


def _pickled(key: int, item: PlainItem) -> Pair:
    return key, pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
