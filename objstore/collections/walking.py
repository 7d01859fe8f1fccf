"""Going over the trees of a collection: lazily, so that it may change meanwhile; and guessing without going."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from objstore.collections.keys import BEYOND, Key
from objstore.collections.shapes import damaged

_FIRST_CHUNK, _LARGEST_CHUNK = 16, 1024
LEAF = 20
"""How many keys a leaf of a tree has, about."""


def ascending(tree: Any, low: Any = None, high: Any = None) -> Iterator[Any]:
    """The keys of a tree from `low`, included, up to `high`, excluded.

    Raises CorruptionError where there would be no end to them.
    """
    size, exclude = _FIRST_CHUNK, False
    while True:
        chunk = list(islice(tree.keys(low, high, excludemin=exclude, excludemax=high is not None), size))
        if exclude and chunk and not low < chunk[-1]:
            raise damaged(tree, low, chunk[-1])
        yield from chunk
        if len(chunk) < size:
            return
        low, exclude, size = chunk[-1], True, min(2 * size, _LARGEST_CHUNK)


def descending(tree: Any, low: Any = None, high: Any = None) -> Iterator[Any]:
    """The keys of a tree below `high`, excluded, down to `low`, included."""
    while chunk := _last_below(tree, high):
        for key in reversed(chunk):
            if low is not None and key < low:
                return
            yield key
        high = chunk[0]


def _last_below(tree: Any, high: Any) -> list[Any]:
    """The keys below `high` in the last leaf that has any."""
    state = tree.__getstate__()
    if state is None:
        return []
    if len(state) == 1:
        return _leaf_below(tree, high)
    children, separators = state[0][::2], state[0][1::2]
    inner = type(children[0]) is type(tree)
    at = len(separators) if high is None else bisect_left(separators, high)
    for child in reversed(children[: at + 1]):
        if found := _last_below(child, high) if inner else _leaf_below(child, high):
            return found
    return []


def _leaf_below(leaf: Any, high: Any) -> list[Any]:
    return list(leaf.keys(None, high, excludemax=high is not None))


def count_about(tree: Any, low: Key, high: Key) -> int:
    """About how many keys a tree has from `low` to `high`: exactly, where they are few; read from few nodes."""
    state = tree.__getstate__()
    if state is None:
        return 0
    if len(state) == 1:  # all of it is in one leaf
        return _count(tree, low, high)
    children, separators = state[0][::2], state[0][1::2]
    first, last = bisect_right(separators, low), bisect_left(separators, high)
    inner = type(children[first]) is type(tree)
    count: Callable[[Any, Key, Key], int] = count_about if inner else _count
    if first == last:
        return count(children[first], low, high)
    found = count(children[first], low, (BEYOND,)) + count(children[last], (), high)
    between = children[first + 1 : last]
    if between and inner:
        some = between[:: len(between) // 3 or 1]
        found += len(between) * sum(map(_size_about, some)) // len(some)
    elif between:
        found += len(between) * (len(children[first]) + len(children[last])) // 2
    return found


def _count(leaf: Any, low: Key, high: Key) -> int:
    return len(leaf.keys(low, high, excludemax=True))


def _size_about(tree: Any) -> int:
    """How many keys a tree has, about."""
    state = tree.__getstate__()
    if state is None or len(state) == 1:
        return LEAF
    children = state[0][::2]
    return len(children) * (_size_about(children[0]) if type(children[0]) is type(tree) else LEAF)
