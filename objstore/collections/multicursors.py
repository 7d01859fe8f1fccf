"""Cursors over a MultiMap: the verbs of LMDB for keys that have several values.

A MultiMap is a set of (key, value) pairs, so this moves among the pairs, told of keys: `(key,)` is lower than all
pairs of a key, and `(key, TOP)` greater.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Self

from objstore.collections.cursors import Cursor
from objstore.collections.entrycursors import EntryCursor
from objstore.collections.spans import TOP, UNBOUNDED, Prefix, Span
from objstore.errors import UsageError

_NO_ORDER: Final[Any] = object


def pair_span(span: Span) -> Span:
    """The pairs whose keys are in a span."""
    low, high = span.low, span.high
    return Span(
        low if low is UNBOUNDED else (low, TOP) if span.low_open else (low,),
        high if high is UNBOUNDED else (high,) if span.high_open else (high, TOP),
    )


class MultiMapCursor(EntryCursor):
    """A place among the pairs of a MultiMap; `MultiMap.cursor` makes one. All is told at `Place`, save here.

    A move that is to stay with the key, and finds nothing there, says False and does not move.
    """

    _beyond = TOP

    def __init__(self, pairs: Cursor, reverse: bool = False) -> None:
        if not isinstance(pairs, Cursor):
            raise UsageError("a cursor over a MultiMap is made with its method cursor()")
        self._pairs = pairs
        self._reverse = reverse

    # --- where it is ---

    def _place(self) -> Cursor:
        return self._pairs

    def _beginning(self, key: Any) -> tuple[Any, ...]:
        return (key,)

    def key(self) -> Any:
        return self._pairs.key()[0]

    def value(self) -> Any:
        return self._pairs.key()[1]

    def item(self) -> tuple[Any, Any]:
        key, value = self._pairs.key()
        return key, value

    # --- moves ---

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

    def set_key_dup(self, key: Any, value: Any) -> bool:
        """Go to exactly this value of this key; whether it is there."""
        return self._pairs.seek((key, value))

    def set_range_dup(self, key: Any, value: Any) -> bool:
        """Go to this value of this key, or else to its next higher one; whether there is one."""
        return self._seek_within(pair_span(Span(key, key)), (key, value))

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

    def _narrowed(self, span: Span, prefix: Prefix | None, reverse: bool) -> Self:
        return type(self)(self._pairs.within(pair_span(span.beginning(prefix))), reverse)

    def count_dup(self) -> int:
        """How many values the key has that it stands on; 0 where it stands on none."""
        return self._pairs.within(pair_span(Span(self.key(), self.key()))).count() if self.positioned else 0

    def iternext_dup(self, keys: bool = False, values: bool = True) -> Iterator[Any]:
        """From where it stands to the last value of the key: values, or keys or both."""
        return self._along(self.next_dup, keys, values)

    def iternext_nodup(self, keys: bool = True, values: bool = False) -> Iterator[Any]:
        """From where it stands, or the first, the first pair of each key: keys, or values or both."""
        return self._along(self.next_nodup, keys, values)

    def _given(self, keys: bool, values: bool) -> Any:
        pair = self._pairs.remembered
        return pair if keys and values else pair[1] if values else pair[0]

    # --- its end ---

    def close(self) -> None:
        self._pairs.close()

    def __repr__(self) -> str:
        return f"{self._pairs!r}"


def require_ordered(*values: Any) -> None:
    """Raises TypeError for what has no order, as BTrees do for keys."""
    for each in values:
        kind: Any = type(each)
        if each is None or kind.__lt__ is _NO_ORDER.__lt__:  # from Python 3.13 on None has an `__lt__` of its own
            raise TypeError(f"keys and values of a MultiMap are kept in order, and {each!r} has none")
