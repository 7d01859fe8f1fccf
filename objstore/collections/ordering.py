"""Members in order: along an index that has them in it, or sorted.

By one field the order is that of keys. What does not have the field comes last, whichever way; what is equal is in
the order of the ids, in the direction of the first field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from objstore.collections.conditions import Condition
from objstore.collections.indexes import keys_reader
from objstore.collections.keys import BEYOND, MISSING, Key
from objstore.collections.members import Built, Members
from objstore.collections.planning import Plan, index_on, scope
from objstore.collections.walking import ascending, count_about, descending


class Field(NamedTuple):
    """One of the things that a result is ordered by."""

    name: str
    backwards: bool


class Way(NamedTuple):
    """A walk along an index: all of it, or what has the first parts in common."""

    built: Built
    position: int | None
    """Where the index has its keys in an entry, if the walk is along all of it."""
    prefix: Key
    backwards: bool
    left: Condition | None
    """What is to be checked of all that is met, if anything is."""

    def lines(self) -> list[str]:
        """What it does, for people."""
        last = self.built.definition.on[-1]
        within = f", within {len(self.prefix) // 2} of its parts" if self.prefix else ""
        backwards = " backwards" if self.backwards else ""
        return [
            f"along index {self.built.title}{within}, in the order of {last}{backwards}, as far as is asked for"
        ]

    def ids(self, members: Members) -> Iterator[int]:
        """The ids that are met, and at the end those of members that do not have the field."""
        position = self.position
        if position is None:
            missing = (*self.prefix, *MISSING[:1])
            present = (*self.prefix, MISSING[0] + 1)
            yield from self._between(present, (*self.prefix, BEYOND))
            yield from self._between(missing, present)
            return
        left = members.tally.members
        for each in self._between(None, None):
            left -= 1
            yield each
        if left > 0:
            entries, walk = members.entries, descending if self.backwards else ascending
            for each in walk(members.by_id):
                if each in entries and not entries[each][position]:
                    yield each

    def _between(self, low: Key | None, high: Key | None) -> Iterator[int]:
        tree = self.built.tree
        keys = (descending if self.backwards else ascending)(tree, low, high)
        if self.built.definition.unique:
            return (member for key in keys if (member := tree.get(key)) is not None)
        return (key[-1] for key in keys)


def way_along(
    members: Members, made: Plan, condition: Condition, fields: list[Field], limit: int | None
) -> Way | None:
    """The walk to take for one field, if there is one that is shorter than to look all up and sort."""
    if len(fields) != 1:
        return None
    [field] = fields
    position, parts = index_on(members, field.name)
    if len(parts) == 1 and not made.is_everything:
        found = scope(members, condition, parts[0])
        if found is not None:
            size = count_about(found.built.tree, found.prefix, (*found.prefix, BEYOND))
            if found.left is None or _is_short(made, size, limit):
                return Way(found.built, None, found.prefix, field.backwards, found.left)
    built = members.built[position] if position is not None else None
    if position is None or built is None:
        return None
    if made.is_everything or _is_short(made, members.tally.members, limit):
        return Way(built, position, (), field.backwards, None if made.is_everything else condition)
    return None


def _is_short(made: Plan, size: int, limit: int | None) -> bool:
    """Whether so many are found on a walk of this size before all would have been looked up."""
    if limit is None:
        return False
    about = max(made.source.estimate, 1)
    return limit * size < about * about


def in_order(members: Members, ids: list[int], fields: list[Field]) -> list[int]:
    """Sort the ids of members by fields. Raises KeyTypeError."""
    ids = sorted(ids, reverse=fields[0].backwards)
    for field in reversed(fields):  # sorting keeps the order of what is equal
        ids = _sorted_by(members, ids, field)
    return ids


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
