"""The persistent parts of a collection, and the one way in which members move in its indexes.

Every member has an id, which its record keeps: oids change where objects are imported elsewhere, ids do not. What
a member is indexed under is kept by its id, so that the old keys can be taken out when it has new ones already.
Whatever is refused is refused before anything is changed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, NamedTuple

from persistent import Persistent

from objstore.collections.indexes import Index, Slot
from objstore.collections.keys import Key, decode, ids_of, is_whole
from objstore.collections.tally import Tally
from objstore.collections.trees import IdTree
from objstore.errors import ImmutableKeyError, IndexingError, UniqueError, UsageError
from objstore.ids import number
from objstore.objects.broken import is_stand_in, name_of

Entry = tuple[Slot, ...]
"""The keys of one member, in every index; empty where there is no index any more."""

_OID_BITS = 40
_FRESH = 1 << (_OID_BITS - 1)
"""Ids of members that have no oid yet begin here, those made of oids end here."""


class Built(NamedTuple):
    """An index of a collection, with its keys. `name` is "" for the one by which it has its members."""

    name: str
    definition: Index
    tree: Any

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return self.name or "key"

    def holder(self, key: Key) -> int | None:
        """Which id has a key, in a unique index."""
        found: int | None = self.tree.get(key)
        return found

    def insert(self, key: Key, member: int) -> None:
        """Have a key for a member. It may be there already."""
        if self.definition.unique:
            self.tree[key] = member
        else:
            self.tree.insert((*key, member))

    def remove(self, key: Key, member: int) -> None:
        """Have it no more. It may be gone already, or be another's by now."""
        if not self.definition.unique:
            self.tree.discard((*key, member))
        elif self.tree.get(key) == member:
            del self.tree[key]

    def has(self, key: Key, member: int) -> bool:
        """Whether a member has a key."""
        return self.tree.get(key) == member if self.definition.unique else (*key, member) in self.tree


class Move(NamedTuple):
    """A member on its way from one entry to another; the id is None as long as it has none."""

    obj: Persistent
    member: int | None
    old: Entry
    new: Entry


class Members:
    """What a collection's parts do together. Made by the collection for each of its calls, or kept by it."""

    __slots__ = ("_readers", "built", "by_id", "catalog", "entries", "salt", "tally")

    def __init__(
        self, by_id: IdTree, entries: IdTree, tally: Tally, built: tuple[Built | None, ...], salt: int
    ) -> None:
        self.by_id = by_id
        self.entries = entries
        self.tally = tally
        self.built = built
        self.salt = salt
        self.catalog: object = None
        """Kept for `planning`."""
        self._readers = [each.definition.slot_reader() if each is not None else None for each in built]

    @property
    def by_key(self) -> Built:
        """The index of the keys by which the collection has its members."""
        first = self.built[0]
        if first is None:
            raise UsageError("this collection has lost the index of its keys")
        return first

    def named(self, name: str) -> Built:
        """The index of a name, "" for that of the keys. Raises UsageError."""
        for built in self.built:
            if built is not None and built.name == name:
                return built
        raise UsageError(f"there is no index {name!r}")

    # --- ids ---

    def new_id(self, obj: Persistent, pairs: Iterable[tuple[Any, Any]], jar: Any) -> int:
        """An id for a new member: of another collection that has it, made of its oid, or by chance.

        Neighbours of one process get neighbouring ids, so that a transaction changes few leaves of the trees;
        those of two processes do not. Objects that are not stored yet are, if the collection is. `pairs` are
        its followers.
        """
        if jar is not None and obj._p_jar is not jar:
            jar.add(obj)
        for known in ids_of(obj, pairs):
            if known not in self.by_id:
                return known
        low = number(obj._p_oid) % _FRESH if obj._p_oid is not None else _FRESH + len(self.by_id) % _FRESH
        member = (self.salt << _OID_BITS) | low
        while member in self.by_id:
            member = secrets.randbelow(2**62)
        return member

    # --- coming and going ---

    def is_taken(self, entry: Entry) -> bool:
        """Whether a member has one of these keys in a unique index."""
        for built, slot in zip(self.built, entry, strict=False):
            if slot and built is not None and built.definition.unique:
                tree = built.tree
                if slot[0] in tree or (len(slot) > 1 and any(key in tree for key in slot)):
                    return True
        return False

    def insert(self, member: int, entry: Entry) -> None:
        """Have a member in every index. If it fails in the middle, in none."""
        try:
            for built, slot in zip(self.built, entry, strict=False):
                if slot and built is not None:
                    if built.definition.unique:
                        for key in slot:
                            built.tree[key] = member
                    else:
                        insert = built.tree.insert
                        for key in slot:
                            insert((*key, member))
            self.entries[member] = entry
        except BaseException:
            self._take_out(member, entry)
            raise

    def remove(self, member: int) -> None:
        """Have a member in no index any more. If it fails in the middle, in all."""
        entry = self.entries[member]
        try:
            self._take_out(member, entry)
            del self.entries[member]
        except BaseException:
            self.insert(member, entry)
            raise

    def _take_out(self, member: int, entry: Entry) -> None:
        for built, slot in zip(self.built, entry, strict=False):
            if built is not None:
                for key in slot:
                    built.remove(key, member)

    # --- moving ---

    def entry_of(self, obj: Persistent) -> Entry:
        """The keys that an object has as it is now. Raises KeyTypeError, IndexingError, and others.

        Functions and properties raise what they will.
        """
        entry = tuple([read(obj) if read is not None else () for read in self._readers])
        if not entry[0] or not is_whole(entry[0][0]):
            require_class("key", obj)
            parts = ", ".join(map(str, self.by_key.definition.on))
            raise IndexingError("key", f"a {type(obj).__name__} without {parts} has no key")
        return entry

    def move_of(self, obj: Persistent, member: int) -> Move | None:
        """From what a member is indexed under to what it is to be indexed under; None where that is the same."""
        new, old = self.entry_of(obj), self.entries[member]
        return Move(obj, member, old, new) if new != old else None

    def require_fit(self, moves: list[Move]) -> list[Move]:
        """Refuse moves that break a rule; else the moves, with those of members that have to make way for them.

        These were changed in this transaction too, and will give up a key that another takes.
        Raises UniqueError, ImmutableKeyError.
        """
        moves = list(moves)
        moving = {move.member for move in moves}
        given_up = {(at, key) for move in moves for at, key in self._given_up(move)}
        taken: dict[tuple[int, Key], Persistent] = {}
        for move in moves:  # which may grow
            self._require_mutable(move)
            for at, key in self._taken(move):
                built = self.built[at]
                if built is None or not built.definition.unique:
                    continue
                other = taken.setdefault((at, key), move.obj)
                if other is not move.obj:
                    raise UniqueError(built.title, decode(key), other, move.obj)
                holder = built.holder(key)
                if holder is None or holder == move.member or (at, key) in given_up:
                    continue
                obj = self.by_id[holder]
                way = self.move_of(obj, holder) if holder not in moving and _is_changed(obj) else None
                if way is None or (at, key) not in (lost := set(self._given_up(way))):
                    raise UniqueError(built.title, decode(key), obj, move.obj)
                moves.append(way)
                moving.add(holder)
                given_up |= lost
        return moves

    def _require_mutable(self, move: Move) -> None:
        if move.old != move.new:
            for built, (old, new) in zip(self.built, _pairs(move), strict=False):
                if built is not None and built.definition.immutable and old and old != new:
                    raise ImmutableKeyError(built.title, move.obj, _told(old), _told(new))

    def _given_up(self, move: Move) -> Iterable[tuple[int, Key]]:
        for at, (old, new) in enumerate(_pairs(move)):
            if old != new:
                yield from ((at, key) for key in old if key not in new)

    def _taken(self, move: Move) -> Iterable[tuple[int, Key]]:
        for at, (old, new) in enumerate(_pairs(move)):
            if old != new:
                yield from ((at, key) for key in new if key not in old)

    def make(self, moves: list[Move]) -> int:
        """Make moves that fit; how many changed anything. If it fails in the middle, all is as it was before."""
        done: list[tuple[Built, Key, int, bool]] = []
        count = 0
        try:
            for removing in (True, False):  # a key may go from one member to another
                for move in moves:
                    for at, key in self._given_up(move) if removing else self._taken(move):
                        built, member = self.built[at], move.member
                        if built is not None and member is not None:
                            (built.remove if removing else built.insert)(key, member)
                            done.append((built, key, member, removing))
            for move in moves:
                if move.old != move.new:
                    self.entries[move.member] = move.new
                    count += 1
        except BaseException:
            for built, key, member, removed in reversed(done):
                (built.insert if removed else built.remove)(key, member)
            raise
        return count


def require_class(index: str, obj: Persistent) -> None:
    """Raises IndexingError for a stand-in: without its class nobody knows what an object is indexed under."""
    if is_stand_in(type(obj)):
        which = f"object {obj._p_oid.hex()}" if obj._p_oid is not None else "a new object"
        raise IndexingError(
            index, f"{which} has no keys, because its class {name_of(type(obj))} cannot be imported"
        )


def _pairs(move: Move) -> Iterable[tuple[Slot, Slot]]:
    """What a member had and has in each index. An entry may be from before an index was added."""
    missing = len(move.new) - len(move.old)
    return zip((*move.old, *((),) * missing), move.new, strict=False)


def _is_changed(obj: Persistent) -> bool:
    return obj._p_jar is None or bool(obj._p_changed)


def _told(slot: Slot) -> Any:
    values = [decode(key) for key in slot]
    return values[0] if len(values) == 1 else values
