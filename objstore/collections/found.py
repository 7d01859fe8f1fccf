"""What is found: looked for when it is looked at, and loaded object by object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from objstore.collections.conditions import Condition
from objstore.collections.indexes import keys_reader
from objstore.collections.keys import Key
from objstore.collections.members import Members
from objstore.collections.planning import Plan, check, index_on, plan
from objstore.collections.sources import Everything
from objstore.collections.walking import ascending, descending
from objstore.errors import NotOneError, ScanError, UsageError

Order = str | Iterable[str]
"""Names of attributes or indexes, in their order; "-" before one is from the last to the first."""

_AHEAD = 64
"""How many records are read in one pass, at most."""


class Field(NamedTuple):
    """One of the things that a result is ordered by."""

    name: str
    backwards: bool


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
        if (limit is not None and limit < 0) or offset < 0:
            raise UsageError("limit and offset are 0 or more")
        self._find_members = find_members
        self._condition = condition
        names = [order] if isinstance(order, str) else list(order)
        self._order = [Field(name.removeprefix("-"), name.startswith("-")) for name in names]
        self._limit = limit
        self._offset = offset
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
        ids = self._walk(members, made) or self._sorted(members, jar, made)
        end = None if self._limit is None else self._offset + self._limit
        return islice(ids, self._offset, end) if self._offset or end is not None else ids

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
        lines = made.lines()
        if self._order:
            lines.append(self._explain_order(members, made))
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
            for field in self._order:
                if index_on(members, field.name)[0] is None:
                    raise ScanError(f"the order by {field.name}")
        return made

    # --- in order ---

    def _walk(self, members: Members, made: Plan) -> Iterator[int] | None:
        """In the order of an index, without looking at more than is wanted; None where sorting is better."""
        position = self._walkable(members, made)
        if position is None:
            return None
        ids = self._along(members, position)
        if self._is_everything(made):
            return ids
        passes = check(members, self._condition).passes
        return (each for each in ids if each in members.by_id and passes(each))

    def _walkable(self, members: Members, made: Plan) -> int | None:
        """The position of an index to walk along, if that is the shorter way."""
        if len(self._order) != 1:
            return None
        position, _ = index_on(members, self._order[0].name)
        if position is None or self._is_everything(made):
            return position
        if self._limit is None:
            return None
        about = max(made.source.estimate, 1)
        steps = (self._limit + self._offset) * members.tally.members / about
        return position if steps < about else None

    def _is_everything(self, made: Plan) -> bool:
        return not made.checks and isinstance(made.source, Everything)

    def _along(self, members: Members, position: int) -> Iterator[int]:
        """All ids in the order of an index, at the end those that it does not have."""
        built = members.built[position]
        if built is None:
            return
        tree = built.tree
        keys = descending(tree) if self._order[0].backwards else ascending(tree)
        missing = members.tally.members
        if built.definition.unique:
            ids: Iterator[int] = (member for key in keys if (member := tree.get(key)) is not None)
        else:
            ids = (key[-1] for key in keys)
        for each in ids:
            missing -= 1
            yield each
        if missing > 0:
            entries = members.entries
            yield from (
                each for each in self._ids_from(members.by_id) if each in entries and not entries[each][position]
            )

    def _ids_from(self, tree: Any) -> Iterator[int]:
        return descending(tree) if self._order and self._order[0].backwards else ascending(tree)

    def _sorted(self, members: Members, jar: Any, made: Plan) -> Iterator[int]:
        if not self._order and self._is_everything(made):
            return ascending(members.by_id)
        ids = made.source.ids()
        if not self._order:
            return _passing(members, jar, made, ids)
        found = list(_passing(members, jar, made, ids))
        if self._order[0].backwards:
            found.reverse()
        for field in reversed(self._order):  # sorting keeps the order of what is equal
            found = _sorted_by(members, found, field)
        return iter(found)

    def _explain_order(self, members: Members, made: Plan) -> str:
        position = self._walkable(members, made)
        if position is not None:
            built = members.built[position]
            return f"in the order of index {built.title if built is not None else ''}, as far as is asked for"
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


def _sorted_by(members: Members, ids: list[int], field: Field) -> list[int]:
    """Members by one field; those without it come last, whichever way."""
    key_of = _key_reader(members, field.name)
    keyed: list[tuple[Key, int]] = []
    without = []
    for each in ids:
        key = key_of(each)
        if key is None:
            without.append(each)
        else:
            keyed.append((key, each))
    keyed.sort(key=lambda pair: pair[0], reverse=field.backwards)
    return [*(each for _, each in keyed), *without]


def _key_reader(members: Members, name: str) -> Callable[[int], Key | None]:
    position, parts = index_on(members, name)
    if position is not None:
        entries = members.entries

        def held(member: int) -> Key | None:
            slot = entries[member][position]
            return slot[0] if slot else None

        return held
    read, by_id = keys_reader(parts, multiple=False), members.by_id

    def of_object(member: int) -> Key | None:
        slot = read(by_id[member])
        return slot[0] if slot else None

    return of_object
