"""Cursors over a MultiMap: the verbs of LMDB for keys that have several values.

A MultiMap is a set of (key, value) pairs, so this is a `Cursor` over the pairs, told of keys: `(key,)` is lower
than all pairs of a key, and `(key, TOP)` greater.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

from objstore.collections.cursors import Cursor, Relation
from objstore.collections.shapes import SAMPLES, Estimate
from objstore.collections.spans import TOP, UNBOUNDED, Span, prefix_span, span_of
from objstore.errors import UsageError

_NO_ORDER: Final[Any] = object


def pair_span(span: Span) -> Span:
    """The pairs whose keys are in a span."""
    low, high = span.low, span.high
    return Span(
        low if low is UNBOUNDED else (low, TOP) if span.low_open else (low,),
        high if high is UNBOUNDED else (high,) if span.high_open else (high, TOP),
    )


class MultiMapCursor:
    """A place among the pairs of a MultiMap; `MultiMap.cursor` makes one. All is told at `Cursor`, save here.

    A move that is to stay with the key, and finds nothing there, says False and does not move.
    """

    def __init__(self, pairs: Cursor, reverse: bool = False) -> None:
        if not isinstance(pairs, Cursor):
            raise UsageError("a cursor over a MultiMap is made with its method cursor()")
        self._pairs = pairs
        self._reverse = reverse

    # --- where it is ---

    @property
    def positioned(self) -> bool:
        """Whether it stands on a pair, and that is there."""
        return self._pairs.positioned

    def key(self) -> Any:
        """The key. Raises UsageError where it stands on none."""
        return self._pairs.key()[0]

    def value(self) -> Any:
        """The value. Raises UsageError where it stands on none."""
        return self._pairs.key()[1]

    def item(self) -> tuple[Any, Any]:
        """Both."""
        key, value = self._pairs.key()
        return key, value

    # --- moves ---

    def first(self) -> bool:
        """Go to the first value of the first key; whether there is one."""
        return self._pairs.first()

    def last(self) -> bool:
        """Go to the last value of the last key; whether there is one."""
        return self._pairs.last()

    def next(self) -> bool:
        """Go to the next value, of this key or the next; whether there is one."""
        return self._pairs.next()

    def prev(self) -> bool:
        """Go to the value before, of this key or the one before; whether there is one."""
        return self._pairs.prev()

    previous = prev

    def next_dup(self) -> bool:
        """Go to the next value of this key; whether there is one."""
        return self._within_key(Cursor.next)

    def prev_dup(self) -> bool:
        """Go to the value before of this key; whether there is one."""
        return self._within_key(Cursor.prev)

    def first_dup(self) -> bool:
        """Go to the first value of this key; whether there is one."""
        return self._within_key(Cursor.first)

    def last_dup(self) -> bool:
        """Go to the last value of this key; whether there is one."""
        return self._within_key(Cursor.last)

    def next_nodup(self) -> bool:
        """Go to the first value of the next key; whether there is one."""
        place = self._pairs.remembered
        return self._pairs.first() if place is UNBOUNDED else self._pairs.seek((place[0], TOP), ">=")

    def prev_nodup(self) -> bool:
        """Go to the last value of the key before; whether there is one."""
        place = self._pairs.remembered
        return self._pairs.last() if place is UNBOUNDED else self._pairs.seek((place[0],), "<=")

    def seek(self, key: Any, relation: Relation = "==") -> bool:
        """Go to a key, or to the nearest one that is `>=`, `>`, `<=` or `<` it; whether there is one.

        To its first value, or to its last one for `<=` and `<`.
        """
        match relation:
            case "==":
                return self._nearest(Span(key, key), (key,))
            case ">=":
                return self._pairs.seek((key,), ">=")
            case ">":
                return self._pairs.seek((key, TOP), ">=")
            case "<=":
                return self._pairs.seek((key, TOP), "<=")
            case "<":
                return self._pairs.seek((key,), "<=")
        raise UsageError(f"a relation is one of == >= > <= <, not {relation!r}")

    def set_key(self, key: Any) -> bool:
        """Go to the first value of exactly this key: `seek(key)`."""
        return self.seek(key)

    def set_range(self, key: Any) -> bool:
        """Go to the first value of this key, or else of the next higher one: `seek(key, ">=")`."""
        return self.seek(key, ">=")

    def set_key_dup(self, key: Any, value: Any) -> bool:
        """Go to exactly this value of this key; whether it is there."""
        return self._pairs.seek((key, value))

    def set_range_dup(self, key: Any, value: Any) -> bool:
        """Go to this value of this key, or else to its next higher one; whether there is one."""
        return self._nearest(Span(key, key), (key, value))

    def _nearest(self, keys: Span, pair: tuple[Any, ...]) -> bool:
        """Go to the first pair from `pair` on whose key is in a span; if there is none to where it would be."""
        found = self._pairs.within(pair_span(keys))
        if found.seek(pair, ">="):
            return self._pairs.seek(found.key())
        return self._pairs.seek(pair)

    def _within_key(self, move: Any) -> bool:
        """Make a move among the values of the key at which it stands, or stood until that was deleted."""
        place = self._pairs.remembered
        if place is UNBOUNDED:
            return False
        among = self._pairs.copy(pair_span(Span(place[0], place[0])))
        return move(among) and self._pairs.seek(among.key())

    # --- changes ---

    def put(self, key: Any, value: Any) -> bool:
        """Put a value under a key, and go there; whether it was not there.

        Raises UsageError where the key is outside the span, TypeError for what has no order.
        """
        require_ordered(key, value)
        return self._pairs.put((key, value))

    def replace(self, value: Any) -> Any:
        """Put another value in place of the one that it stands on, and go there; the value that was there.

        Raises UsageError where it stands on none, TypeError for what has no order.
        """
        key, old = self.item()
        require_ordered(key, value)
        self._pairs.delete()
        self._pairs.put((key, value))
        return old

    def delete(self, dupdata: bool = False) -> bool:
        """Delete the value that it stands on, or with `dupdata` all values of its key; whether it stood on one."""
        if not self.positioned:
            return False
        if not dupdata:
            return self._pairs.delete()
        among = self._pairs.within(pair_span(Span(self.key(), self.key())))
        while among.next():
            among.delete()
        return True

    # --- many ---

    def range(
        self,
        min: Any = None,
        max: Any = None,
        excludemin: bool = False,
        excludemax: bool = False,
        *,
        prefix: str | bytes | tuple[Any, ...] | None = None,
        reverse: bool | None = None,
    ) -> MultiMapCursor:
        """Another cursor, in what a span of keys has in common with that of this one."""
        span = span_of(min, max, excludemin, excludemax)
        if prefix is not None:
            span &= prefix_span(prefix)
        backwards = self._reverse if reverse is None else reverse
        return MultiMapCursor(self._pairs.within(pair_span(span)), backwards)

    def prefix(self, prefix: str | bytes | tuple[Any, ...]) -> MultiMapCursor:
        """Another cursor, among the keys that begin so: `range(prefix=prefix)`."""
        return self.range(prefix=prefix)

    def count_dup(self) -> int:
        """How many values the key has that it stands on; 0 where it stands on none."""
        return self._pairs.within(pair_span(Span(self.key(), self.key()))).count() if self.positioned else 0

    def count(self) -> int:
        """How many pairs there are in the span. Loads every leaf that holds one."""
        return self._pairs.count()

    def estimate(self, samples: int = SAMPLES) -> Estimate:
        """About how many pairs there are in the span, from a few nodes: see `Cursor.estimate`."""
        return self._pairs.estimate(samples)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Pairs, from where it stands, or else from the first (the last with `reverse`). It goes along."""
        return self.iterprev() if self._reverse else self.iternext()

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return self.iternext() if self._reverse else self.iterprev()

    def iternext(self, keys: bool = True, values: bool = True) -> Iterator[Any]:
        """From where it stands, or the first, to the last: pairs, or keys or values alone."""
        return self._along(self.next, keys, values)

    def iterprev(self, keys: bool = True, values: bool = True) -> Iterator[Any]:
        """From where it stands, or the last, to the first: pairs, or keys or values alone."""
        return self._along(self.prev, keys, values)

    def iternext_dup(self, keys: bool = False, values: bool = True) -> Iterator[Any]:
        """From where it stands to the last value of the key: values, or keys or both."""
        return self._along(self.next_dup, keys, values)

    def iternext_nodup(self, keys: bool = True, values: bool = False) -> Iterator[Any]:
        """From where it stands, or the first, the first pair of each key: keys, or values or both."""
        return self._along(self.next_nodup, keys, values)

    def _along(self, move: Any, keys: bool, values: bool) -> Iterator[Any]:
        more = self.positioned or move()
        while more:
            pair = self._pairs.remembered
            yield pair if keys and values else pair[0] if keys else pair[1]
            more = move()

    # --- its end ---

    def close(self) -> None:
        """Let go of the map. Closing twice is allowed; what is done with it afterwards raises ClosedError."""
        self._pairs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{self._pairs!r}"


def require_ordered(*values: Any) -> None:
    """Raises TypeError for what has no order, as BTrees do for keys."""
    for each in values:
        kind: Any = type(each)
        if each is None or kind.__lt__ is _NO_ORDER.__lt__:  # from Python 3.13 on None has an `__lt__` of its own
            raise TypeError(f"keys and values of a MultiMap are kept in order, and {each!r} has none")
