"""What all cursors have in common: the verbs that each has in its own way, and those that follow from them.

The verbs are those of LMDB: first, last, next, prev, set_key, set_range, key, value, item, put, replace, delete.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Literal, Self

from objstore.collections.shapes import SAMPLES, Estimate
from objstore.collections.spans import Prefix, Span, span_of
from objstore.errors import UsageError

Relation = Literal["==", ">=", ">", "<=", "<"]


def not_a_relation(relation: object) -> UsageError:
    """What is raised for another relation."""
    return UsageError(f"a relation is one of == >= > <= <, not {relation!r}")


class Place(ABC):
    """A place among items that are in the order of their keys, within a span of these.

    It begins on no item: `next` goes to the first then, and `prev` to the last. A move that finds no item says
    False, and leaves the cursor past the end, from where it can be moved back, or on to one that was added
    meanwhile. With `reverse` iterating goes from the last item to the first; the verbs do not change.
    """

    _reverse: bool

    # --- where it is ---

    @property
    @abstractmethod
    def positioned(self) -> bool:
        """Whether it stands on an item, and that is there."""

    @abstractmethod
    def key(self) -> Any:
        """The key of the item that it stands on. Raises UsageError where it stands on none."""

    @abstractmethod
    def value(self) -> Any:
        """The value of that item. Raises UsageError where it stands on none, or there are keys only."""

    @abstractmethod
    def item(self) -> tuple[Any, Any]:
        """Key and value. Raises UsageError as `value` does."""

    # --- moves ---

    @abstractmethod
    def first(self) -> bool:
        """Go to the first item; whether there is one."""

    @abstractmethod
    def last(self) -> bool:
        """Go to the last item; whether there is one."""

    @abstractmethod
    def next(self) -> bool:
        """Go to the next item; whether there is one."""

    @abstractmethod
    def prev(self) -> bool:
        """Go to the item before; whether there is one."""

    def previous(self) -> bool:
        """As `prev`."""
        return self.prev()

    @abstractmethod
    def seek(self, key: Any, relation: Relation = "==") -> bool:
        """Go to a key, or to the nearest one that is `>=`, `>`, `<=` or `<` it; whether there is one.

        Of several items with one key to the first, or to the last for `<=` and `<`. Where there is none it stands
        in the gap where the key would be: `next` and `prev` go to its neighbours. Raises UsageError for another
        relation, TypeError for what cannot be compared with the keys.
        """

    def set_key(self, key: Any) -> bool:
        """Go to exactly this key: `seek(key)`."""
        return self.seek(key)

    def set_range(self, key: Any) -> bool:
        """Go to this key, or else to the next higher one: `seek(key, ">=")`."""
        return self.seek(key, ">=")

    # --- many items ---

    def range(
        self,
        min: Any = None,
        max: Any = None,
        excludemin: bool = False,
        excludemax: bool = False,
        *,
        prefix: Prefix | None = None,
        reverse: bool | None = None,
    ) -> Self:
        """Another cursor, on no item, in what a span of keys has in common with that of this one.

        Raises UsageError where the span makes no sense.
        """
        backwards = self._reverse if reverse is None else reverse
        return self._narrowed(span_of(min, max, excludemin, excludemax), prefix, backwards)

    @abstractmethod
    def _narrowed(self, span: Span, prefix: Prefix | None, reverse: bool) -> Self:
        """Another cursor, in what a span of keys, and a prefix, have in common with the span of this one."""

    def prefix(self, prefix: Prefix) -> Self:
        """Another cursor, among the keys that begin so: `range(prefix=prefix)`."""
        return self.range(prefix=prefix)

    @abstractmethod
    def count(self) -> int:
        """How many items there are in the span. Loads every leaf that holds one."""

    @abstractmethod
    def estimate(self, samples: int = SAMPLES) -> Estimate:
        """About how many items there are in the span, from a few nodes: see `collections.shapes`.

        Raises UsageError where `samples` is no whole number, or less than 2.
        """

    def __iter__(self) -> Iterator[Any]:
        """Items, from where it stands, or else from the first (the last with `reverse`); of a set the keys.

        The cursor goes along, so it may change or delete what was just given.
        """
        return self.iterprev() if self._reverse else self.iternext()

    def __reversed__(self) -> Iterator[Any]:
        return self.iternext() if self._reverse else self.iterprev()

    def iternext(self, keys: bool = True, values: bool = True) -> Iterator[Any]:
        """From where it stands, or the first, to the last: items, or keys or values alone; of a set the keys."""
        return self._along(self.next, keys, values)

    def iterprev(self, keys: bool = True, values: bool = True) -> Iterator[Any]:
        """From where it stands, or the last, to the first: items, or keys or values alone; of a set the keys."""
        return self._along(self.prev, keys, values)

    def _along(self, move: Callable[[], bool], keys: bool, values: bool) -> Iterator[Any]:
        more = self.positioned or move()
        while more:
            yield self._given(keys, values)
            more = move()

    @abstractmethod
    def _given(self, keys: bool, values: bool) -> Any:
        """What iterating gives of the item that was just moved to."""

    # --- its end ---

    @abstractmethod
    def close(self) -> None:
        """Let go of what it moves in. Closing twice is allowed; what is done afterwards raises ClosedError."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
