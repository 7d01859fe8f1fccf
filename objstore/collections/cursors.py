"""Cursors: places among the keys of a BTree, a TreeSet, or whatever else keeps keys in order.

    with Cursor(tree, prefix="a") as cursor:
        for name, person in cursor:
            if person.left:
                cursor.delete()

The verbs are those of LMDB: first, last, next, prev, set_key, set_range, key, value, item, put, replace, delete.
A cursor holds no node of the tree but remembers a key, and finds its place by it with each move. So the tree may
change, by this cursor or by anything else, by rollbacks and new snapshots too: a move always goes to the key that
is next now. Where the key that it stood on is deleted it stands in the gap, and moves on from there to either
side.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Literal, Self

from objstore.collections.arguments import whole
from objstore.collections.shapes import MISSING, SAMPLES, Estimate, estimate, highest, lowest, number
from objstore.collections.spans import UNBOUNDED, Span, prefix_span, span_of
from objstore.errors import ClosedError, UsageError

Relation = Literal["==", ">=", ">", "<=", "<"]

_BEFORE: Final = -1
_ON: Final = 0
_AFTER: Final = 1


class Cursor:
    """A place among the keys of `tree`, within a span of them. Used by one thread at a time, as the tree is.

    `min`, `max`, `excludemin` and `excludemax` are those of `BTree.keys`; None is no end, and an end that is not
    given cannot be left out. `prefix` keeps to the keys that begin with a text, with bytes, or with the items of a
    tuple. With `reverse` iterating goes from the last key to the first; the verbs do not change.

    It begins on no key: `next` goes to the first then, and `prev` to the last. A move that finds no key says
    False, and leaves the cursor past the end, from where it can be moved back, or on to a key that was added
    meanwhile.
    """

    def __init__(
        self,
        tree: Any,
        min: Any = None,
        max: Any = None,
        excludemin: bool = False,
        excludemax: bool = False,
        *,
        prefix: str | bytes | tuple[Any, ...] | None = None,
        reverse: bool = False,
    ) -> None:
        """Raises UsageError where `tree` keeps no keys in order, and where the span makes no sense."""
        if not all(hasattr(tree, name) for name in ("keys", "minKey", "maxKey")):
            raise UsageError(f"a cursor moves in a BTree or TreeSet, not in {type(tree).__name__}")
        self._tree = tree
        self._mapping = hasattr(tree, "values")
        self._span = span_of(min, max, excludemin, excludemax)
        if prefix is not None:
            self._span &= prefix_span(prefix)
        self._reverse = reverse
        self._key: Any = UNBOUNDED
        self._side = _BEFORE
        self._closed = False

    # --- where it is ---

    @property
    def positioned(self) -> bool:
        """Whether it stands on a key, and that is there."""
        self._require_open()
        return self._side == _ON and self._key is not UNBOUNDED and self._key in self._tree

    def key(self) -> Any:
        """The key that it stands on. Raises UsageError where it stands on none."""
        if not self.positioned:
            raise UsageError("the cursor stands on no key; move it, and look at what the move returned")
        return self._key

    def value(self) -> Any:
        """The value of that key. Raises UsageError, also where the tree is a set."""
        if not self._mapping:
            raise UsageError("a set has no values; ask for the key")
        return self._tree[self.key()]

    def item(self) -> tuple[Any, Any]:
        """Key and value."""
        value = self.value()
        return self._key, value

    @property
    def remembered(self) -> Any:
        """The key at which it looks for its place, whether that is there or not; UNBOUNDED before any move."""
        self._require_open()
        return self._key

    # --- moves ---

    def first(self) -> bool:
        """Go to the first key; whether there is one."""
        return self._go(lowest(self._open_tree(), self._span), UNBOUNDED, _BEFORE)

    def last(self) -> bool:
        """Go to the last key; whether there is one."""
        return self._go(highest(self._open_tree(), self._span), UNBOUNDED, _AFTER)

    def next(self) -> bool:
        """Go to the next higher key; whether there is one."""
        key = self._key
        if key is UNBOUNDED:
            return self.first()
        span = self._span.upwards(key, self._side != _BEFORE)
        return self._go(lowest(self._open_tree(), span), key, _BEFORE if self._side == _BEFORE else _AFTER)

    def prev(self) -> bool:
        """Go to the next lower key; whether there is one."""
        key = self._key
        if key is UNBOUNDED:
            return self.last()
        span = self._span.downwards(key, self._side != _AFTER)
        return self._go(highest(self._open_tree(), span), key, _AFTER if self._side == _AFTER else _BEFORE)

    previous = prev

    def seek(self, key: Any, relation: Relation = "==") -> bool:
        """Go to a key, or to the nearest one that is `>=`, `>`, `<=` or `<` it; whether there is one.

        Where there is none it stands in the gap where the key would be: `next` and `prev` go to its neighbours.
        Raises TypeError where the tree cannot compare the key with its own.
        """
        tree = self._open_tree()
        match relation:
            case "==":
                within = key in self._span
                return self._go(key if within and key in tree else MISSING, key, _ON if within else _BEFORE)
            case ">=" | ">":
                span = self._span.upwards(key, relation == ">")
                return self._go(lowest(tree, span), key, _AFTER if relation == ">" else _BEFORE)
            case "<=" | "<":
                span = self._span.downwards(key, relation == "<")
                return self._go(highest(tree, span), key, _BEFORE if relation == "<" else _AFTER)
        raise UsageError(f"a relation is one of == >= > <= <, not {relation!r}")

    def set_key(self, key: Any) -> bool:
        """Go to exactly this key: `seek(key)`."""
        return self.seek(key)

    def set_range(self, key: Any) -> bool:
        """Go to this key, or else to the next higher one: `seek(key, ">=")`."""
        return self.seek(key, ">=")

    def _go(self, found: Any, key: Any, side: int) -> bool:
        """Stand on a key that was found; else at `side` of `key`."""
        if found is MISSING:
            self._key, self._side = key, side
            return False
        self._key, self._side = found, _ON
        return True

    # --- changes ---

    def put(self, key: Any, value: Any = None, overwrite: bool = True) -> bool:
        """Store a value under a key, or add a key to a set, and go there; whether anything was stored.

        Nothing is where `overwrite` is false, or the tree a set, and the key was there. Raises UsageError where
        the key is outside the span.
        """
        tree = self._open_tree()
        if key not in self._span:
            raise UsageError(f"the key {key!r} is outside the span of the cursor")
        if not self._mapping:
            stored = bool(tree.insert(key))
        elif overwrite:
            tree[key] = value
            stored = True
        else:
            stored = bool(tree.insert(key, value))
        self._key, self._side = key, _ON
        return stored

    def replace(self, value: Any) -> Any:
        """Store another value under the key that it stands on; the value that was there. Raises UsageError."""
        key, old = self.item()
        self._tree[key] = value
        return old

    def delete(self) -> bool:
        """Delete the key that it stands on; whether it stood on one. It then stands in the gap."""
        if not self.positioned:
            return False
        if self._mapping:
            del self._tree[self._key]
        else:
            self._tree.remove(self._key)
        return True

    # --- many keys ---

    def range(
        self,
        min: Any = None,
        max: Any = None,
        excludemin: bool = False,
        excludemax: bool = False,
        *,
        prefix: str | bytes | tuple[Any, ...] | None = None,
        reverse: bool | None = None,
    ) -> Cursor:
        """Another cursor, in what a span has in common with that of this one."""
        backwards = self._reverse if reverse is None else reverse
        made = Cursor(self._open_tree(), min, max, excludemin, excludemax, prefix=prefix, reverse=backwards)
        return made.within(self._span)

    def within(self, span: Span) -> Cursor:
        """Another cursor, on no key, in what a span has in common with that of this one."""
        made = Cursor(self._open_tree(), reverse=self._reverse)
        made._span = self._span & span
        return made

    def copy(self, span: Span | None = None) -> Cursor:
        """Another cursor, at the same place, within a span or all of this one's."""
        made = self.within(span or self._span)
        made._key, made._side = self._key, self._side
        return made

    def prefix(self, prefix: str | bytes | tuple[Any, ...]) -> Cursor:
        """Another cursor, among the keys that begin so: `range(prefix=prefix)`."""
        return self.range(prefix=prefix)

    def count(self) -> int:
        """How many keys there are in the span. Loads every leaf that holds one."""
        return number(self._open_tree(), self._span)

    def estimate(self, samples: int = SAMPLES) -> Estimate:
        """About how many keys there are in the span, from a few nodes: see `collections.shapes`.

        Raises UsageError where `samples` is no whole number, or less than 2.
        """
        if whole("samples", samples) < 2:
            raise UsageError(f"samples is 2 or more, not {samples}")
        return estimate(self._open_tree(), self._span, samples)

    def __iter__(self) -> Iterator[Any]:
        """Items, or the keys of a set, from where it stands, or else from the first (the last with `reverse`).

        The cursor goes along, so it may change or delete what was just given.
        """
        return self.iterprev() if self._reverse else self.iternext()

    def __reversed__(self) -> Iterator[Any]:
        return self.iternext() if self._reverse else self.iterprev()

    def iternext(self, keys: bool = True, values: bool = True) -> Iterator[Any]:
        """From where it stands, or the first, to the last: items, or keys or values alone; of a set the keys."""
        more = self.positioned or self.next()
        while more:
            yield self._given(keys, values)
            more = self.next()

    def iterprev(self, keys: bool = True, values: bool = True) -> Iterator[Any]:
        """From where it stands, or the last, to the first: items, or keys or values alone; of a set the keys."""
        more = self.positioned or self.prev()
        while more:
            yield self._given(keys, values)
            more = self.prev()

    def _given(self, keys: bool, values: bool) -> Any:
        if not values or not self._mapping:
            return self._key
        return (self._key, self._tree[self._key]) if keys else self._tree[self._key]

    # --- its end ---

    def close(self) -> None:
        """Let go of the tree. Closing twice is allowed; what is done with it afterwards raises ClosedError."""
        self._closed = True
        self._tree = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "closed" if self._closed else f"at {self._key!r}" if self._key is not UNBOUNDED else "on no key"
        return f"<objstore cursor {where}>"

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError("the cursor")

    def _open_tree(self) -> Any:
        self._require_open()
        return self._tree


def cursor(collection: Any, *arguments: Any, **options: Any) -> Any:
    """A cursor over a BTree or TreeSet, or over what offers one by a method `cursor`: a Collection, a MultiMap.

    Raises UsageError where there can be none.
    """
    own = getattr(collection, "cursor", None)
    return own(*arguments, **options) if callable(own) else Cursor(collection, *arguments, **options)
