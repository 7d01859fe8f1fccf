"""What the structure of a BTree tells without walking it: the key before another, and about how many there are.

BTrees find the first key of a range, and the last one of a closed range; the last one before a key, and counts,
cost them a walk over the leaves. Here both are read off the nodes, whose states are children and the keys
between them, alternating; only the nodes on the way are loaded.

The number of keys in a range is estimated as D. E. Knuth estimates the size of a search tree ("Estimating the
efficiency of backtrack programs", 1975): a node is as large as one of its children times their number. The two
ends of the range are followed to their leaves and counted there; what lies between is sampled.
"""

from __future__ import annotations

import enum
import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

from objstore.collections.spans import UNBOUNDED, Span, lower
from objstore.errors import CorruptionError

SAMPLES: Final = 16
"""Paths to leaves that an estimate follows for each level of the tree. What has no more leaves is counted."""


class _Missing(enum.Enum):
    MISSING = "MISSING"


MISSING: Final = _Missing.MISSING
"""In place of a key that was not found. None is a key."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """About how many keys there are. `exact` says whether all were counted; else nine of ten estimates or more are
    no further off than `margin`.

    That is twice the standard error of the samples. They may happen to agree where leaves that were not looked
    at differ, as after deletes, so it is never less than if one sample more had been empty: of what was told by
    samples, two parts in one more than their number.
    """

    count: int
    margin: int
    exact: bool


def keys_in(tree: Any, span: Span) -> Any:
    """The keys in a span of which no end is None: see `narrowed`."""
    low, high, low_open, high_open = span
    return tree.keys(None if low is UNBOUNDED else low, None if high is UNBOUNDED else high, low_open, high_open)


def narrowed(tree: Any, span: Span) -> Span | None:
    """The same keys of a tree without an end at None, which BTrees take for no end; None where there are none."""
    if span.low is not None and span.high is not None:
        return span
    if span.high is None:
        if span.high_open or None not in span:
            return None
        return Span(None, None) if has_none(tree) else None
    # Without a lower end, leaving out the end leaves out the first key, whichever it is.
    return Span(UNBOUNDED, span.high, span.low_open and has_none(tree), span.high_open)


def has_none(tree: Any) -> bool:
    """Whether None is a key."""
    return None in tree


def lowest(tree: Any, span: Span) -> Any:
    """The first key of a span, MISSING where there is none. Raises CorruptionError where it is outside.

    A leaf knows the one that comes next. In a damaged tree that may be one of before, and who goes on from key to
    key would be led round for ever.
    """
    within = narrowed(tree, span)
    if within is None:
        return MISSING
    if within.high is None:
        return None
    low, high, low_open, high_open = within  # no calls here: cursors come by with each move
    if low is UNBOUNDED:
        for key in keys_in(tree, within):
            return key
        return MISSING
    for key in tree.keys(low, None if high is UNBOUNDED else high, low_open, high_open):
        if key is None or (not low < key if low_open else key < low):
            raise damaged(tree, low, key)
        return key
    return MISSING


def damaged(tree: Any, key: Any, following: Any) -> CorruptionError:
    """What is raised where one key comes behind another that it should not."""
    return CorruptionError(
        f"the tree {type(tree).__qualname__}",
        f"behind the key {key!r} comes {following!r}, and going on might never end. tree._check() and "
        "BTrees.check.check(tree) tell what is wrong. Make a new tree of its items: Cursor(tree, reverse=True) "
        "gives all that are found by their keys",
        oid=getattr(tree, "_p_oid", None),
    )


def highest(tree: Any, span: Span) -> Any:
    """The last key of a span, MISSING where there is none."""
    within = narrowed(tree, span)
    if within is None or not tree:
        return MISSING
    if within.high is None:
        return None
    if within.high_open:
        key = last_before(tree, within.high)
    else:
        try:
            key = tree.maxKey(*(() if within.high is UNBOUNDED else (within.high,)))
        except ValueError:  # every key is higher
            return MISSING
    return key if key is not MISSING and span.below(key) else MISSING


def number(tree: Any, span: Span) -> int:
    """How many keys there are in a span. Loads every leaf of it."""
    within = narrowed(tree, span)
    if within is None:
        return 0
    return 1 if within.high is None else len(keys_in(tree, within))


# --- nodes -------------------------------------------------------------------------------------------


class _Node(NamedTuple):
    """An inner node: its children, and the lowest keys that those after the first may have."""

    children: Sequence[Any]
    separators: Sequence[Any]


def _node(tree: Any, kind: type[Any]) -> _Node | None:
    """The node as such; None where it is a leaf, or a tree that has not grown out of its only leaf."""
    state: Any = tree.__getstate__() if type(tree) is kind else None
    if state is None or len(state) == 1:
        return None
    return _Node(state[0][::2], state[0][1::2])


def _leaf(tree: Any) -> Any:
    """The leaf that is all of what is no node. Trees with one leaf do for it only where nothing comes after them:
    an inner node whose only leaf is not stored looks like one, and counts on to the end of the tree around it.
    """
    first = getattr(tree, "_firstbucket", None)
    return tree if first is None else first


def _is_tree(tree: Any) -> bool:
    """Whether it has nodes; buckets and sets are leaves by themselves."""
    return hasattr(tree, "_firstbucket")


def last_before(tree: Any, key: Any) -> Any:
    """The last key that is lower than another, which is not None; MISSING where there is none."""
    return _last_before(tree, key, type(tree) if _is_tree(tree) else type(None))


def _last_before(tree: Any, key: Any, kind: type) -> Any:
    node = _node(tree, kind)
    if node is None:
        keys = tree.keys(max=key, excludemax=True)
        return keys[len(keys) - 1] if keys else MISSING
    for at in range(bisect_left(node.separators, key), -1, -1):
        found = _last_before(node.children[at], key, kind)
        if found is not MISSING:
            return found
    return MISSING


def estimate(tree: Any, span: Span, samples: int = SAMPLES) -> Estimate:
    """About how many keys there are in a span; exactly how many, if few leaves hold them.

    It loads the nodes on the way to the ends of the span, and on up to `samples` ways for each level of the tree.
    """
    within = narrowed(tree, span)
    if within is None:
        return Estimate(0, 0, True)
    if within.high is None:
        return Estimate(1, 0, True)
    if not _is_tree(tree):
        return Estimate(number(tree, within), 0, True)
    if UNBOUNDED not in (within.low, within.high) and lower(within.high, within.low):
        return Estimate(0, 0, True)
    sampler = _Sampler(type(tree), samples)
    mean, variance = sampler.within(tree, within)
    error = max(variance**0.5, sampler.sampled / (samples + 1))
    return Estimate(round(mean), math.ceil(2 * error), not sampler.sampled)


class _Sampler:
    """Estimates as pairs of mean and variance, from the same paths each time for the same tree."""

    def __init__(self, kind: type, samples: int) -> None:
        self._kind = kind
        self._samples = samples
        self.sampled = 0.0
        """How many of the keys were not counted, but told by samples."""
        self._random = random.Random(0)  # noqa: S311 - nobody gains by foreseeing which leaves are counted

    def within(self, tree: Any, span: Span) -> tuple[float, float]:
        """Of the keys of a subtree that lie in a span."""
        node = _node(tree, self._kind)
        if node is None:
            return len(keys_in(_leaf(tree), span)), 0.0
        first, last = 0, len(node.children) - 1
        if span.low is not UNBOUNDED:
            first = bisect_right(node.separators, span.low)
        if span.high is not UNBOUNDED:
            last = bisect_right(node.separators, span.high)
        if first == last:
            return self.within(node.children[first], span)
        low = self.within(node.children[first], Span(low=span.low, low_open=span.low_open))
        high = self.within(node.children[last], Span(high=span.high, high_open=span.high_open))
        between = self._between(node.children[first + 1 : last])
        return low[0] + high[0] + between[0], low[1] + high[1] + between[1]

    def _between(self, children: Sequence[Any]) -> tuple[float, float]:
        """Of all keys below some neighbours: each is followed where they are few, else some of them."""
        if len(children) <= self._samples:
            paths = max(self._samples // max(len(children), 1), 2)
            parts = [self._subtree(child, paths) for child in children]
            return sum(mean for mean, _ in parts), sum(variance for _, variance in parts)
        step = len(children) / self._samples  # one of each of so many stretches, so that none goes unseen
        starts = [round(step * at) for at in range(self._samples + 1)]
        chosen = [children[self._random.randrange(*stretch)] for stretch in pairwise(starts)]
        sizes = [self._path(child) for child in chosen]
        mean, variance = _moments(sizes)
        unseen = 1 - len(sizes) / len(children) if _node(chosen[0], self._kind) is None else 1.0
        self.sampled += mean * len(children)
        return mean * len(children), variance * len(children) ** 2 * unseen

    def _subtree(self, tree: Any, paths: int) -> tuple[float, float]:
        """Of all keys below a node, by so many paths to leaves, or all of them."""
        node = _node(tree, self._kind)
        if node is None:
            return len(_leaf(tree)), 0.0
        if len(node.children) <= paths:
            parts = [self._subtree(child, paths // len(node.children)) for child in node.children]
            return sum(mean for mean, _ in parts), sum(variance for _, variance in parts)
        mean, variance = _moments([self._path(tree) for _ in range(max(paths, 2))])
        self.sampled += mean
        return mean, variance

    def _path(self, tree: Any) -> float:
        """How large a subtree would be if all of it were as on one path to a leaf, chosen by chance."""
        factor = 1.0
        node = _node(tree, self._kind)
        while node is not None:
            factor *= len(node.children)
            tree = self._random.choice(node.children)
            node = _node(tree, self._kind)
        return factor * len(_leaf(tree))


def _moments(sizes: Sequence[float]) -> tuple[float, float]:
    """The mean of some sizes, and the variance of that mean."""
    mean = sum(sizes) / len(sizes)
    return mean, sum((size - mean) ** 2 for size in sizes) / (len(sizes) - 1) / len(sizes)
