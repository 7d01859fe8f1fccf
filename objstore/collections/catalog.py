"""Which indexes of a collection can serve what: found out once, and looked up for each search."""

from __future__ import annotations

from collections.abc import Iterable

from objstore.collections.indexes import Part
from objstore.collections.members import Built

Parts = tuple[Part, ...]


class Catalog:
    """The indexes of one collection, by what they are on."""

    def __init__(self, built: Iterable[Built | None]) -> None:
        self._named: dict[str, Built] = {}
        self._exact: dict[tuple[Parts, bool], list[Built]] = {}
        self._whole: dict[tuple[Parts, bool], int] = {}
        self._compound: dict[Part, list[Built]] = {}
        self.of_keys: list[Built] = []
        """Partial indexes on the key, which every member has."""
        by_key: Parts | None = None
        for position, each in enumerate(built):
            if each is None:
                continue
            definition = each.definition
            shape = (definition.on, definition.multiple)
            by_key = by_key or definition.on
            if each.name:
                self._named[each.name] = each
            self._exact.setdefault(shape, []).append(each)
            if definition.where is None:
                self._whole.setdefault(shape, position)
            elif definition.on == by_key:
                self.of_keys.append(each)
            if len(definition.on) > 1:
                self._compound.setdefault(definition.on[0], []).append(each)

    def named(self, name: str) -> Built | None:
        """The index of a name."""
        return self._named.get(name)

    def exact(self, parts: Parts, *, multiple: bool) -> list[Built]:
        """The indexes on just these parts, partial ones too."""
        return self._exact.get((parts, multiple), [])

    def whole(self, parts: Parts, *, multiple: bool) -> int | None:
        """The position of an index on just these parts that has every member which has them."""
        return self._whole.get((parts, multiple))

    def beginning(self, parts: Iterable[Part]) -> list[Built]:
        """The compound indexes whose first part is one of these."""
        return [built for part in parts for built in self._compound.get(part, ())] if self._compound else []
