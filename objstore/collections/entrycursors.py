"""Cursors over trees whose keys say more than the key that is looked for: it is only what they begin with.

So a key may have several entries. The pairs of a MultiMap are such entries, and so are the keys of an index, with
the ids of members at their ends. All entries of a key lie from its beginning, a tuple, up to that with `_beyond`
at its end.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from objstore.collections.cursors import Cursor
from objstore.collections.places import Place, Relation, not_a_relation
from objstore.collections.shapes import SAMPLES, Estimate
from objstore.collections.spans import Span


class EntryCursor(Place):
    """A place among entries, moved by a `Cursor` over the tree that has them."""

    _beyond: Any
    """Comes after all that an entry has behind a beginning."""

    @abstractmethod
    def _place(self) -> Cursor:
        """The place among the entries. Raises ClosedError."""

    @abstractmethod
    def _beginning(self, key: Any) -> tuple[Any, ...]:
        """What the entries of a key begin with."""

    @property
    def positioned(self) -> bool:
        return self._place().positioned

    def first(self) -> bool:
        return self._place().first()

    def last(self) -> bool:
        return self._place().last()

    def next(self) -> bool:
        return self._place().next()

    def prev(self) -> bool:
        return self._place().prev()

    def seek(self, key: Any, relation: Relation = "==") -> bool:
        place, beginning = self._place(), self._beginning(key)
        match relation:
            case "==":
                return self._seek_within(Span(beginning, (*beginning, self._beyond)), beginning)
            case ">=":
                return place.seek(beginning, ">=")
            case ">":
                return place.seek((*beginning, self._beyond), ">=")
            case "<=":
                return place.seek((*beginning, self._beyond), "<=")
            case "<":
                return place.seek(beginning, "<")
        raise not_a_relation(relation)

    def _seek_within(self, span: Span, entry: tuple[Any, ...]) -> bool:
        """Go to the first entry of a span that is at or after another, or else to where that would be."""
        place = self._place()
        among = place.within(span)
        return place.seek(among.key() if among.seek(entry, ">=") else entry)

    def count(self) -> int:
        return self._place().count()

    def estimate(self, samples: int = SAMPLES) -> Estimate:
        return self._place().estimate(samples)
