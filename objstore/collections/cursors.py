"""Cursors: places among the keys of a BTree, a TreeSet, or whatever else keeps keys in order.

    with Cursor(tree, prefix="a") as cursor:
        for name, person in cursor:
            if person.left:
                cursor.delete()

A cursor holds no node of the tree but remembers a key, and finds its place by it with each move. So the tree may
change, by this cursor or by anything else, by rollbacks and new snapshots too: a move always goes to the key that
is next now. Where the key that it stood on is deleted it stands in the gap, and moves on from there to either
side.
"""

from __future__ import annotations

from typing import Any, Final, Self

from objstore.collections.arguments import whole
from objstore.collections.places import Place, Relation, not_a_relation
from objstore.collections.shapes import MISSING, SAMPLES, Estimate, estimate, highest, lowest, number
from objstore.collections.spans import UNBOUNDED, Prefix, Span, span_of
from objstore.errors import ClosedError, UsageError

_BEFORE: Final = -1
_ON: Final = 0
_AFTER: Final = 1


class Cursor(Place):
    """A place among the keys of `tree`, within a span of them. Used by one thread at a time, as the tree is.

    `min`, `max`, `excludemin` and `excludemax` are those of `BTree.keys`; None is no end, and an end that is not
    given cannot be left out. `prefix` keeps to the keys that begin with a text, with bytes, or with the items of a
    tuple. The verbs are told at `Place`.
    """

    def __init__(
        self,
        tree: Any,
        min: Any = None,
        max: Any = None,
        excludemin: bool = False,
        excludemax: bool = False,
        *,
        prefix: Prefix | None = None,
        reverse: bool = False,
    ) -> None:
        """Raises UsageError where `tree` keeps no keys in order, and where the span makes no sense."""
        if not all(hasattr(tree, name) for name in ("keys", "minKey", "maxKey")):
            raise UsageError(f"a cursor moves in a BTree or TreeSet, not in {type(tree).__name__}")
        self._tree = tree
        self._mapping = hasattr(tree, "values")
        self._span = span_of(min, max, excludemin, excludemax).beginning(prefix)
        self._reverse = reverse
        self._key: Any = UNBOUNDED
        self._side = _BEFORE
        self._closed = False

    # --- where it is ---

    @property
    def positioned(self) -> bool:
        self._require_open()
        return self._side == _ON and self._key is not UNBOUNDED and self._key in self._tree

    def key(self) -> Any:
        if not self.positioned:
            raise UsageError("the cursor stands on no key; move it, and look at what the move returned")
        return self._key

    def value(self) -> Any:
        if not self._mapping:
            raise UsageError("a set has no values; ask for the key")
        return self._tree[self.key()]

    def item(self) -> tuple[Any, Any]:
        value = self.value()
        return self._key, value

    @property
    def remembered(self) -> Any:
        """The key at which it looks for its place, whether that is there or not; UNBOUNDED before any move."""
        self._require_open()
        return self._key

    # --- moves ---

    def first(self) -> bool:
        return self._go(lowest(self._open_tree(), self._span), UNBOUNDED, _BEFORE)

    def last(self) -> bool:
        return self._go(highest(self._open_tree(), self._span), UNBOUNDED, _AFTER)

    def next(self) -> bool:
        key = self._key
        if key is UNBOUNDED:
            return self.first()
        span = self._span.upwards(key, self._side != _BEFORE)
        return self._go(lowest(self._open_tree(), span), key, _BEFORE if self._side == _BEFORE else _AFTER)

    def prev(self) -> bool:
        key = self._key
        if key is UNBOUNDED:
            return self.last()
        span = self._span.downwards(key, self._side != _AFTER)
        return self._go(highest(self._open_tree(), span), key, _AFTER if self._side == _AFTER else _BEFORE)

    def seek(self, key: Any, relation: Relation = "==") -> bool:
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
        raise not_a_relation(relation)

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

    def _narrowed(self, span: Span, prefix: Prefix | None, reverse: bool) -> Self:
        made = self.within(span.beginning(prefix))
        made._reverse = reverse
        return made

    def within(self, span: Span) -> Self:
        """Another cursor, on no key, in what a span has in common with that of this one."""
        made = type(self)(self._open_tree(), reverse=self._reverse)
        made._span = self._span & span
        return made

    def copy(self, span: Span | None = None) -> Self:
        """Another cursor, at the same place, within a span or all of this one's."""
        made = self.within(span or self._span)
        made._key, made._side = self._key, self._side
        return made

    def count(self) -> int:
        return number(self._open_tree(), self._span)

    def estimate(self, samples: int = SAMPLES) -> Estimate:
        if whole("samples", samples) < 2:
            raise UsageError(f"samples is 2 or more, not {samples}")
        return estimate(self._open_tree(), self._span, samples)

    def _given(self, keys: bool, values: bool) -> Any:
        if not values or not self._mapping:
            return self._key
        return (self._key, self._tree[self._key]) if keys else self._tree[self._key]

    # --- its end ---

    def close(self) -> None:
        self._closed = True
        self._tree = None

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
