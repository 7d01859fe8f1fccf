"""Routes: which keys the nodes of a BTree lead to which leaf, and where an undo may not bring older ones back.

A node has its children, and between them the lowest keys that each may have. BTrees change these where a leaf
is split, but also where it loses its first key, or all of them. What is put there afterwards goes into the leaf
before or behind it, and nothing of the node is written. To undo the earlier change alone would bring back a
node that leads elsewhere: the later keys would be there, and not be found. So it is refused where a leaf that
is to have fewer keys again has changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

from objstore.contracts import Store
from objstore.errors import ClassNotAllowedError, UndoError
from objstore.ids import NO_TID, Oid, Tid
from objstore.objects.classes import ClassFinder
from objstore.objects.reading import RecordUnpickler, split_class

_FIRST: Final = 0
_LAST: Final = -1


class _End:
    """In place of a key: the child has all keys on this side that the node has."""


_END: Final = _End()


class _Route(NamedTuple):
    """A child and the keys that are looked for there: from one, included, up to another, excluded."""

    child: Oid
    low: Any
    high: Any


class Routes:
    """Reads routes from the records of a store."""

    def __init__(self, store: Store, finder: ClassFinder) -> None:
        self._store = store
        self._finder = finder

    def require_safe_undo(self, oids: Collection[Oid], tid: Tid, undone: Collection[Tid]) -> dict[Oid, Tid]:
        """The leaves, with their serials, that must not change before `tid` is undone, which wrote these oids.

        `undone` are the transactions that are undone with it. Raises UndoError where one was changed already.
        """
        nodes = {oid: routes for oid in oids if (routes := self._routes(oid, tid))}
        if not nodes:
            return {}
        since = _joined(nodes)
        before = _joined({oid: self._routes(oid, self._store.revision(oid, tid).previous) for oid in oids})
        found = {}
        for child, edge in _narrowed(since, before):
            leaf, serial = self._unchanged(child, edge, tid, undone)
            if leaf not in oids:
                found[leaf] = serial
        return found

    def _unchanged(self, oid: Oid, edge: int, tid: Tid, undone: Collection[Tid]) -> tuple[Oid, Tid]:
        """The first or last leaf from a child on, and its serial. Raises UndoError where it is not as at `tid`."""
        while True:
            serials = (summary.tid for summary in self._store.summaries(oid))
            newest = then = next(serials)
            while then > tid:
                if then not in undone:
                    raise UndoError(tid, "a later transaction changed keys that would not be found any more", oid)
                then = next(serials)
            routes = self._routes(oid, then)
            if not routes:
                return oid, newest
            oid = routes[edge].child

    def _routes(self, oid: Oid, tid: Tid) -> list[_Route]:
        """Those of a revision; none of what is no node, or not known to be one, or was not there yet."""
        data = self._store.revision(oid, tid).data if tid != NO_TID else None
        if data is None:
            return []
        unpickler = RecordUnpickler(data, self._finder, _oid_in, oid)
        try:
            cls, _ = split_class(unpickler.load(), self._finder, oid)
            state = unpickler.load() if hasattr(cls, "_firstbucket") else None
        except ClassNotAllowedError:
            return []
        if state is None or len(state) == 1:  # empty, or all of it in one leaf, which is in the record
            return []
        children, separators = state[0][::2], state[0][1::2]
        ends = pairwise((_END, *separators, _END))
        return [_Route(child, low, high) for child, (low, high) in zip(children, ends, strict=True)]


def _joined(nodes: Mapping[Oid, list[_Route]]) -> dict[Oid, _Route]:
    """The routes through some nodes to what lies below all of these, by where they end."""
    inner = {route.child for routes in nodes.values() for route in routes}
    through = [_Route(oid, _END, _END) for oid in nodes if oid not in inner]
    found = {}
    while through:
        node, first, last = through.pop()
        for child, low, high in nodes[node]:
            route = _Route(child, first if low is _END else low, last if high is _END else high)
            if nodes.get(child):
                through.append(route)
            else:
                found[child] = route
    return found


def _narrowed(since: Mapping[Oid, _Route], before: Mapping[Oid, _Route]) -> Iterator[tuple[Oid, int]]:
    """What had fewer keys before than since then, and on which side."""
    for child in since.keys() & before.keys():
        (_, low, high), (_, low_before, high_before) = since[child], before[child]
        if low_before is not _END and (low is _END or _is_less(low, low_before)):
            yield child, _FIRST
        if high_before is not _END and (high is _END or _is_less(high_before, high)):
            yield child, _LAST


def _oid_in(reference: Any) -> Any:
    """The oid in a persistent id. Children are referred to with their classes; nothing else is looked at."""
    return Oid(reference[0]) if isinstance(reference, tuple) else reference


def _is_less(key: Any, other: Any) -> bool:
    """Whether a key is lower than another; also where nobody can tell, as of None and of references."""
    try:
        return bool(key < other)
    except TypeError:
        return True
