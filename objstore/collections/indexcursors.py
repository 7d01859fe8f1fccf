"""Cursors over a collection: the verbs of LMDB for members in the order of an index.

The tree of an index has encoded keys, with the member's id at their end, or, in a unique index, as their value.
So this moves among its entries, told of values in the user's terms: all entries of a value lie from its key up to
the key with `BEYOND` at its end. The same holds for what begins with the first parts of a compound one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Never, Self

from persistent import Persistent

from objstore.collections.conditions import begins_with
from objstore.collections.cursors import Cursor
from objstore.collections.entrycursors import EntryCursor
from objstore.collections.keys import BEYOND, Key, decode, encode, encode_parts
from objstore.collections.members import Built, Members
from objstore.collections.spans import UNBOUNDED, Prefix, Span
from objstore.errors import UsageError


def entry_span(span: Span, parts: int) -> Span:
    """The entries, in an index of so many parts, of the values in a span. Raises KeyTypeError."""
    low, high = span.low, span.high
    if low is not UNBOUNDED:
        key = encode_parts(low, parts)
        low = (*key, BEYOND) if span.low_open else key
    if high is not UNBOUNDED:
        key = encode_parts(high, parts)
        high = key if span.high_open else (*key, BEYOND)
    return Span(low, high, high_open=True)


def entry_prefix_span(prefix: Prefix, parts: int) -> Span:
    """The entries of the values that begin so. Raises UsageError, KeyTypeError."""
    if parts > 1:
        key = encode_parts(prefix, parts)
        return Span(key, (*key, BEYOND), high_open=True)
    if isinstance(prefix, tuple):
        rank, items = encode(prefix)
        return Span((rank, items), (rank, (*items, BEYOND)), high_open=True)
    if not isinstance(prefix, str | bytes):
        raise UsageError(f"a prefix is a str, bytes or a tuple, not {prefix!r}")
    [(first, end)] = begins_with(prefix).spans(parts)
    return Span(first, end, high_open=True)


class IndexCursor(EntryCursor):
    """A place among a collection's members; `Collection.cursor` makes one. All is told at `Place`, save here.

    Members that have the same value are items of their own, in the order of their ids; a multi-valued index has a
    member once for each of its values. The first parts alone of a compound value stand for all that begin with
    them. A move raises UsageError where the index was dropped meanwhile, and KeyTypeError for what cannot be a
    value of the index.
    """

    _beyond = BEYOND

    def __init__(
        self,
        find_members: Callable[[], tuple[Members, Any]],
        remove: Callable[[Persistent, int], None],
        name: str,
        span: Span,
        reverse: bool = False,
    ) -> None:
        """`span` is of the index's entries. Raises UsageError where there is no index of this name."""
        self._find_members = find_members
        self._remove = remove
        self._name = name
        self._span = span
        self._reverse = reverse
        self._tree: Any = self._built().tree
        self._at = Cursor(self._tree).within(span)

    def _built(self) -> Built:
        members, _ = self._find_members()
        return members.named(self._name)

    def _place(self) -> Cursor:
        """The place among the entries. An index that was dropped and added anew has another tree."""
        place = self._at.remembered  # raises ClosedError
        tree = self._built().tree
        if tree is not self._tree:
            self._tree, self._at = tree, Cursor(tree).within(self._span)
            if place is not UNBOUNDED:
                self._at.seek(place)
        return self._at

    def _beginning(self, key: Any) -> Key:
        return encode_parts(key, len(self._built().definition.on))

    # --- where it is ---

    def key(self) -> Any:
        """The value that the index has: a tuple in a compound one. Raises UsageError where it stands on none.

        A part that the member does not have is None in it, and one that is a member of a collection is its id.
        """
        return self._value_in(self._place().key())

    def value(self) -> Any:
        return self._member_in(self._place().key())[1]

    def item(self) -> tuple[Any, Any]:
        entry = self._place().key()
        return self._value_in(entry), self._member_in(entry)[1]

    def _value_in(self, entry: Key) -> Any:
        return decode(entry if self._built().definition.unique else entry[:-1])

    def _member_in(self, entry: Key) -> tuple[int, Any]:
        """The id of the member that has an entry, and itself."""
        members, _ = self._find_members()
        built = members.named(self._name)
        member = built.tree[entry] if built.definition.unique else entry[-1]
        return member, members.by_id[member]

    # --- changes ---

    def put(self, *_: Any, **__: Any) -> Never:
        """Raises UsageError: what a member is found by is of its own attributes."""
        raise UsageError("a cursor puts nothing into an index: add an object with collection.add(obj)")

    def replace(self, *_: Any, **__: Any) -> Never:
        """Raises UsageError: as `put`."""
        raise UsageError(
            "a cursor replaces no member: change the object, and the indexes follow at commit, "
            "or remove it and add another with collection.add(obj)"
        )

    def delete(self) -> bool:
        """Remove the member that it stands on from the collection; whether it stood on one.

        All indexes follow. It then stands in the gap.
        """
        if not self.positioned:
            return False
        member, obj = self._member_in(self._at.remembered)
        self._remove(obj, member)
        return True

    # --- many ---

    def _narrowed(self, span: Span, prefix: Prefix | None, reverse: bool) -> Self:
        self._place()
        parts = len(self._built().definition.on)
        within = self._span & entry_span(span, parts)
        if prefix is not None:
            within &= entry_prefix_span(prefix, parts)
        return type(self)(self._find_members, self._remove, self._name, within, reverse)

    def copy(self) -> Self:
        """Another cursor, at the same place."""
        place = self._place()
        made = type(self)(self._find_members, self._remove, self._name, self._span, self._reverse)
        made._at = place.copy()
        return made

    def _given(self, keys: bool, values: bool) -> Any:
        entry = self._at.remembered
        if not values:
            return self._value_in(entry)
        obj = self._member_in(entry)[1]
        return (self._value_in(entry), obj) if keys else obj

    # --- its end ---

    def close(self) -> None:
        self._at.close()
        self._tree = None

    def __repr__(self) -> str:
        return f"<objstore cursor along index {self._name or 'key'}>"
