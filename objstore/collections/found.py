"""What is found: looked for when it is looked at, and loaded object by object."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from objstore.collections.arguments import whole
from objstore.collections.conditions import Condition
from objstore.collections.members import Members
from objstore.collections.ordering import Field, Way, in_order, way_along
from objstore.collections.planning import Plan, check, index_on, plan
from objstore.collections.walking import ascending
from objstore.errors import NotOneError, ScanError, UsageError

Order = str | Iterable[str]
"""Names of attributes or indexes, in their order; "-" before one is from the last to the first."""

_AHEAD = 64
"""How many records are read in one pass, at most."""


class Found:
    """The members for which a condition holds. Each time it is looked at, they are looked for anew.

    It has no `len`, which `list` would ask for first, and so look twice: see `count`.
    May be iterated over while the collection changes: what has been removed by its turn is left out.
    """

    def __init__(
        self,
        find_members: Callable[[], tuple[Members, Any]],
        condition: Condition,
        *,
        order: Order,
        limit: int | None,
        offset: int,
        scan: bool,
    ) -> None:
        self._limit = None if limit is None else whole("limit", limit)
        self._offset = whole("offset", offset)
        if (self._limit is not None and self._limit < 0) or self._offset < 0:
            raise UsageError("limit and offset are 0 or more")
        self._find_members = find_members
        self._condition = condition
        names = [order] if isinstance(order, str) else list(order)
        self._order = [Field(name.removeprefix("-"), name.startswith("-")) for name in names]
        self._scan = scan

    # --- looking ---

    def __iter__(self) -> Iterator[Any]:
        """The objects. Raises ScanError, KeyTypeError."""
        members, jar = self._find_members()
        return (obj for _, obj in _read_ahead(members, jar, self.ids()))

    def ids(self) -> Iterator[int]:
        """The ids of the members, in order. No object is loaded but to check it. Raises as iterating does."""
        members, jar = self._find_members()
        made = self._plan(members)
        way = self._way(members, made)
        ids = self._along(members, way) if way is not None else self._sorted(members, jar, made)
        if self._limit is None and not self._offset:
            return ids
        end = None if self._limit is None else min(self._offset + self._limit, sys.maxsize)  # islice takes no more
        return islice(ids, min(self._offset, sys.maxsize), end)

    def count(self) -> int:
        """How many there are. Raises ScanError, KeyTypeError."""
        if self._limit is not None or self._offset:
            return sum(1 for _ in self.ids())
        members, jar = self._find_members()
        made = self._plan(members)
        ids = made.source.ids()
        return sum(1 for _ in _passing(members, jar, made, ids)) if made.checks else len(ids)

    def exists(self) -> bool:
        """Whether there is any. Raises ScanError, KeyTypeError."""
        if self._limit is None and not self._offset:
            members, _ = self._find_members()
            made = self._plan(members)
            if not made.checks:
                return made.source.exists()
        return next(self.ids(), None) is not None

    def __bool__(self) -> bool:
        return self.exists()

    def first(self, default: Any = None) -> Any:
        """The first, or the default where there is none. Raises ScanError, KeyTypeError."""
        return next(iter(self), default)

    def one(self) -> Any:
        """The only one. Raises NotOneError where there is none, or there are several; ScanError, KeyTypeError."""
        found = list(islice(self, 2))
        if len(found) != 1:
            raise NotOneError(str(self._condition), several=bool(found))
        return found[0]

    def explain(self) -> str:
        """What looking does, a line each: which indexes it uses, and for which conditions it has none."""
        members, _ = self._find_members()
        made = plan(members, self._condition)
        way = self._way(members, made)
        if way is not None:
            lines = way.lines()
            if way.left is not None:
                lines.append(check(members, way.left).line())
        else:
            lines = [*made.lines(), *([self._explain_sorting(members)] if self._order else [])]
        if self._limit is not None or self._offset:
            lines.append(f"skip {self._offset}, then at most {'all' if self._limit is None else self._limit}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<found where {self._condition}>"

    def _plan(self, members: Members) -> Plan:
        made = plan(members, self._condition)
        if not self._scan:
            for text in made.unserved:
                raise ScanError(text)
            for field in self._order if self._way(members, made) is None else ():
                if index_on(members, field.name)[0] is None:
                    raise ScanError(f"the order by {field.name}")
        return made

    # --- in order ---

    def _way(self, members: Members, made: Plan) -> Way | None:
        limit = None if self._limit is None else self._limit + self._offset
        return way_along(members, made, self._condition, self._order, limit)

    def _along(self, members: Members, way: Way) -> Iterator[int]:
        """In the order of an index, without looking at more than is wanted."""
        if way.left is None:
            return way.ids(members)
        passes = check(members, way.left).passes
        return (each for each in way.ids(members) if each in members.by_id and passes(each))

    def _sorted(self, members: Members, jar: Any, made: Plan) -> Iterator[int]:
        if not self._order and made.is_everything:
            return ascending(members.by_id)
        ids = _passing(members, jar, made, made.source.ascending())
        return iter(in_order(members, list(ids), self._order)) if self._order else ids

    def _explain_sorting(self, members: Members) -> str:
        texts = []
        for field in self._order:
            position, _ = index_on(members, field.name)
            how = "by what the indexes have" if position is not None else "by every object: no index has it"
            texts.append(f"{field.name}{' backwards' if field.backwards else ''} ({how})")
        return f"sorted by {', '.join(texts)}"


def _read_ahead(members: Members, jar: Any, ids: Iterable[int]) -> Iterator[tuple[int, Any]]:
    """Ids and their objects, whose records are read several at once. What is gone by its turn is left out."""
    left, size, get = iter(ids), 1, members.by_id.get
    while taken := list(islice(left, size)):
        chunk = [(each, obj) for each in taken if (obj := get(each)) is not None]
        if len(chunk) > 1 and jar is not None:
            jar.prefetch([obj for _, obj in chunk])
        yield from chunk
        size = min(4 * size, _AHEAD)


def _passing(members: Members, jar: Any, made: Plan, ids: Iterable[int]) -> Iterator[int]:
    """What passes the checks that need objects."""
    if not made.checks:
        return iter(ids)
    tests = [check.passes for check in made.checks]
    found = _read_ahead(members, jar, ids)
    return (each for each, _ in found if each in members.by_id and all(test(each) for test in tests))
