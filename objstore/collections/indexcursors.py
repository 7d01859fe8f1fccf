"""Cursors over a collection: the verbs of LMDB for members in the order of an index.

The tree of an index has encoded keys, with the member's id at their end, or, in a unique index, as their value.
So this is a `Cursor` over that tree, told of values in the user's terms: all entries of a value lie from its key
up to the key with `BEYOND` at its end. The same holds for what begins with the first parts of a compound one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Never, Self

from persistent import Persistent

from objstore.collections.conditions import begins_with
from objstore.collections.cursors import Cursor, Relation
from objstore.collections.keys import BEYOND, Key, decode, encode, encode_parts
from objstore.collections.members import Built, Members
from objstore.collections.shapes import SAMPLES, Estimate
from objstore.collections.spans import UNBOUNDED, Span, span_of
from objstore.errors import UsageError

Prefix = str | bytes | tuple[Any, ...]


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
        return _beginning(encode_parts(prefix, parts))
    if isinstance(prefix, tuple):
        rank, items = encode(prefix)
        return Span((rank, items), (rank, (*items, BEYOND)), high_open=True)
    if not isinstance(prefix, str | bytes):
        raise UsageError(f"a prefix is a str, bytes or a tuple, not {prefix!r}")
    [(first, end)] = begins_with(prefix).spans(parts)
    return Span(first, end, high_open=True)


def _beginning(key: Key) -> Span:
    """All that begins with a key."""
    return Span(key, (*key, BEYOND), high_open=True)


class IndexCursor:
    """A place among a collection's members; `Collection.cursor` makes one. All is told at `Cursor`, save here.

    Members that have the same value are items of their own, in the order of their ids; a multi-valued index has a
    member once for each of its values. The first parts alone of a compound value stand for all that begin with
    them. A move raises UsageError where the index was dropped meanwhile.
    """

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

    def _key_of(self, value: Any) -> Key:
        return encode_parts(value, len(self._built().definition.on))

    # --- where it is ---

    @property
    def positioned(self) -> bool:
        """Whether it stands on a member, and that is there with the same value."""
        return self._place().positioned

    def key(self) -> Any:
        """The value that the index has: a tuple in a compound one. Raises UsageError where it stands on none.

        A part that the member does not have is None in it, and one that is a member of a collection is its id.
        """
        return self._value_in(self._place().key())

    def value(self) -> Any:
        """The member. Raises UsageError where it stands on none."""
        return self._member_in(self._place().key())[1]

    def item(self) -> tuple[Any, Any]:
        """Both. Raises UsageError where it stands on none."""
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

    # --- moves ---

    def first(self) -> bool:
        """Go to the first member; whether there is one."""
        return self._place().first()

    def last(self) -> bool:
        """Go to the last member; whether there is one."""
        return self._place().last()

    def next(self) -> bool:
        """Go to the next member, of this value or the next; whether there is one."""
        return self._place().next()

    def prev(self) -> bool:
        """Go to the member before, of this value or the one before; whether there is one."""
        return self._place().prev()

    previous = prev

    def seek(self, key: Any, relation: Relation = "==") -> bool:
        """Go to a value, or to the nearest one that is `>=`, `>`, `<=` or `<` it; whether there is one.

        To the first member that has it, or to the last one for `<=` and `<`. Where there is none it stands in the
        gap. Raises KeyTypeError for what cannot be a value of the index, UsageError for another relation.
        """
        place, found = self._place(), self._key_of(key)
        match relation:
            case "==":
                among = place.within(_beginning(found))
                return place.seek(among.key() if among.first() else found)
            case ">=":
                return place.seek(found, ">=")
            case ">":
                return place.seek((*found, BEYOND), ">=")
            case "<=":
                return place.seek((*found, BEYOND), "<=")
            case "<":
                return place.seek(found, "<")
        raise UsageError(f"a relation is one of == >= > <= <, not {relation!r}")

    def set_key(self, key: Any) -> bool:
        """Go to the first member with exactly this value: `seek(key)`. Raises KeyTypeError."""
        return self.seek(key)

    def set_range(self, key: Any) -> bool:
        """Go to the first member with this value, or else the next higher one: `seek(key, ">=")`."""
        return self.seek(key, ">=")

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

    def range(
        self,
        min: Any = None,
        max: Any = None,
        excludemin: bool = False,
        excludemax: bool = False,
        *,
        prefix: Prefix | None = None,
        reverse: bool | None = None,
    ) -> IndexCursor:
        """Another cursor, in what a span of values has in common with that of this one.

        Raises UsageError where the span makes no sense, KeyTypeError.
        """
        self._place()
        parts = len(self._built().definition.on)
        span = self._span & entry_span(span_of(min, max, excludemin, excludemax), parts)
        if prefix is not None:
            span &= entry_prefix_span(prefix, parts)
        backwards = self._reverse if reverse is None else reverse
        return IndexCursor(self._find_members, self._remove, self._name, span, backwards)

    def prefix(self, prefix: Prefix) -> IndexCursor:
        """Another cursor, among the values that begin so: `range(prefix=prefix)`."""
        return self.range(prefix=prefix)

    def copy(self) -> IndexCursor:
        """Another cursor, at the same place."""
        place = self._place()
        made = IndexCursor(self._find_members, self._remove, self._name, self._span, self._reverse)
        made._at = place.copy()
        return made

    def count(self) -> int:
        """How many items there are in the span. Loads every leaf of the index that holds one."""
        return self._place().count()

    def estimate(self, samples: int = SAMPLES) -> Estimate:
        """About how many items there are in the span, from a few nodes: see `Cursor.estimate`."""
        return self._place().estimate(samples)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Items, from where it stands, or else from the first (the last with `reverse`). It goes along."""
        return self.iterprev() if self._reverse else self.iternext()

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return self.iternext() if self._reverse else self.iterprev()

    def iternext(self, keys: bool = True, values: bool = True) -> Iterator[Any]:
        """From where it stands, or the first, to the last: items, or the index's values or members alone."""
        return self._along(self.next, keys, values)

    def iterprev(self, keys: bool = True, values: bool = True) -> Iterator[Any]:
        """From where it stands, or the last, to the first: items, or the index's values or members alone."""
        return self._along(self.prev, keys, values)

    def _along(self, move: Callable[[], bool], keys: bool, values: bool) -> Iterator[Any]:
        more = self.positioned or move()
        while more:
            entry = self._at.remembered
            value = self._value_in(entry) if keys or not values else None
            obj = self._member_in(entry)[1] if values else None
            yield value if not values else (value, obj) if keys else obj
            more = move()

    # --- its end ---

    def close(self) -> None:
        """Let go of the index. Closing twice is allowed; what is done with it afterwards raises ClosedError."""
        self._at.close()
        self._tree = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<objstore cursor along index {self._name or 'key'}>"
