"""A persistent map whose keys have several values each, in order.

It is one set of (key, value) pairs, in a TreeSet: so values come sorted, as in LMDB's dupsort databases, and two
transactions that add different values under one key, also a new one, merge as all insertions into BTrees do. Two
that add to the same leaf when that is full, so that it is split, conflict, as they do in any BTree.

ZODB reads the records: the class is found if objstore is installed; the pairs are in any case an OOTreeSet in the
attribute `_pairs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from BTrees.OOBTree import OOTreeSet
from persistent import Persistent

from objstore.collections.cursors import Cursor
from objstore.collections.multicursors import MultiMapCursor, pair_span, require_ordered
from objstore.collections.shapes import Estimate, keys_in
from objstore.collections.spans import Prefix, Span


class MultiMap(Persistent):
    """Keys with values. Both are compared with `<`: they are text, bytes, numbers, dates, tuples of such.

    A value is under a key once or not at all. `min`, `max`, `excludemin` and `excludemax` are ends of the keys, as
    in BTrees. What is returned by `keys`, `values` and `items` is found as it is asked for, whatever is changed
    meanwhile.
    """

    def __init__(self, pairs: Iterable[tuple[Any, Any]] = ()) -> None:
        self._pairs = OOTreeSet()
        self.update(pairs)

    # --- changes ---

    def add(self, key: Any, value: Any) -> bool:
        """Put a value under a key; whether it was not there. Raises TypeError for what has no order."""
        require_ordered(key, value)
        return bool(self._pairs.add((key, value)))

    def update(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Add many."""
        for key, value in pairs:
            self.add(key, value)

    def remove(self, key: Any, value: Any) -> None:
        """Take a value away from a key. Raises KeyError where it is not there."""
        self._pairs.remove((key, value))

    def discard(self, key: Any, value: Any) -> bool:
        """Take a value away from a key; whether it was there."""
        found = self.has(key, value)
        if found:
            self.remove(key, value)
        return found

    def removeall(self, key: Any) -> int:
        """Take all values away from a key; how many there were."""
        pairs = list(self._of(key))
        for pair in pairs:
            self._pairs.remove(pair)
        return len(pairs)

    def clear(self) -> None:
        """Take everything away."""
        self._pairs.clear()

    # --- one key ---

    def __contains__(self, key: Any) -> bool:
        """Whether the key has a value."""
        return any(True for _ in self._of(key))

    def has(self, key: Any, value: Any) -> bool:
        """Whether the key has this value."""
        return (key, value) in self._pairs

    def __getitem__(self, key: Any) -> list[Any]:
        """The values of a key, in order. Raises KeyError where it has none."""
        values = self.getall(key)
        if not values:
            raise KeyError(key)
        return values

    def getall(self, key: Any) -> list[Any]:
        """The values of a key, in order; none where it has none."""
        return [value for _, value in self._of(key)]

    def get(self, key: Any, default: Any = None) -> Any:
        """The lowest value of a key."""
        return next((value for _, value in self._of(key)), default)

    def count(self, key: Any) -> int:
        """How many values a key has."""
        return len(self._of(key))

    # --- all of them ---

    def keys(
        self, min: Any = None, max: Any = None, excludemin: bool = False, excludemax: bool = False
    ) -> Iterator[Any]:
        """The keys, each once."""
        return self.cursor(min, max, excludemin, excludemax).iternext_nodup()

    def values(
        self, min: Any = None, max: Any = None, excludemin: bool = False, excludemax: bool = False
    ) -> Iterator[Any]:
        """The values, by key."""
        return self.cursor(min, max, excludemin, excludemax).iternext(keys=False)

    def items(
        self, min: Any = None, max: Any = None, excludemin: bool = False, excludemax: bool = False
    ) -> Iterator[tuple[Any, Any]]:
        """Pairs of key and value."""
        return self.cursor(min, max, excludemin, excludemax).iternext()

    def minKey(self) -> Any:
        """The first key. Raises ValueError where there is none."""
        return self._pairs.minKey()[0]

    def maxKey(self) -> Any:
        """The last key. Raises ValueError where there is none."""
        return self._pairs.maxKey()[0]

    def cursor(
        self,
        min: Any = None,
        max: Any = None,
        excludemin: bool = False,
        excludemax: bool = False,
        *,
        prefix: Prefix | None = None,
        reverse: bool = False,
    ) -> MultiMapCursor:
        """A place among the pairs; the arguments are those of `Cursor`, and about keys."""
        everywhere = MultiMapCursor(Cursor(self._pairs))
        return everywhere.range(min, max, excludemin, excludemax, prefix=prefix, reverse=reverse)

    def estimate(
        self, min: Any = None, max: Any = None, excludemin: bool = False, excludemax: bool = False
    ) -> Estimate:
        """About how many pairs there are, from a few nodes: see `Cursor.estimate`."""
        return self.cursor(min, max, excludemin, excludemax).estimate()

    def __iter__(self) -> Iterator[Any]:
        return self.keys()

    def __len__(self) -> int:
        """How many pairs there are. Loads every leaf."""
        return len(self._pairs)

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {hex(id(self))}>"

    def _of(self, key: Any) -> Any:
        """The pairs of a key."""
        return keys_in(self._pairs, pair_span(Span(key, key)))
