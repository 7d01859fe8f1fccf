"""A collection: persistent objects by key, with secondary indexes that follow the objects.

All of it is ordinary persistent objects and BTrees (see `trees`):

    by_id    LOBTree   id -> object
    entries  LOBTree   id -> what it is indexed under: for each index a tuple of keys
    built    the indexes, each a definition and a tree; the first is that of the keys
    tally    how many there are

A member carries the collection among its followers (`objects.following`), so that the indexes follow at the
next savepoint or commit, whoever changed it and by whatever path. Two transactions that add, remove or change
different members merge. One that changes the set of indexes, or rebuilds them, relies on every object that it has
looked at, and every other relies on the set of indexes being the one that it knows.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from persistent import Persistent

from objstore.collections import building, verifying
from objstore.collections.conditions import Condition, where
from objstore.collections.found import Found, Order
from objstore.collections.indexcursors import IndexCursor
from objstore.collections.indexes import Index, as_index
from objstore.collections.keys import Key, NamesMembers, bounds, decode, encode_parts
from objstore.collections.members import Built, Members, Move
from objstore.collections.spans import Prefix, Span
from objstore.collections.tally import Tally
from objstore.collections.trees import IdTree
from objstore.collections.verifying import Misfit
from objstore.collections.walking import ascending
from objstore.contracts import Progress
from objstore.errors import NotMemberError, UsageError
from objstore.ids import NO_TID
from objstore.objects.following import FOLLOWERS, followers, set_followers


class Collection(Persistent, NamesMembers):
    """Persistent objects by key, and what finds them by other attributes. See `docs/collections.md`."""

    _v_members: Members | None = None

    def __init__(self, key: Any, indexes: Mapping[str, Any] | None = None) -> None:
        """An empty collection. `key` and the values of `indexes` are each an `Index` or what one is on.

        Keys are unique. Raises UsageError.
        """
        by_key = as_index(key)
        if by_key.multiple or by_key.where is not None:
            raise UsageError("every member has one key: the index of the keys is neither multi-valued nor partial")
        by_key = Index(by_key.on, unique=True, immutable=by_key.immutable)
        self._by_id = IdTree()
        self._entries = IdTree()
        self._tally = Tally()
        self._built: tuple[Built | None, ...] = (Built("", by_key, by_key.new_tree()),)
        self._salt = secrets.randbits(22)  # so that the ids of two collections differ
        for name, index in (indexes or {}).items():
            self._add_built(name, as_index(index))

    @property
    def _members(self) -> Members:
        members = self._v_members
        if members is None:
            members = Members(self._by_id, self._entries, self._tally, self._built, self._salt)
            self._v_members = members
        return members

    # --- members ---

    def add(self, obj: Persistent) -> None:
        """Take an object in, or, where it is a member already, index it as it is now.

        Raises UniqueError, ImmutableKeyError, KeyTypeError, IndexingError where it has no key; nothing has
        changed then.
        """
        self._admit(obj)

    def _admit(self, obj: Persistent) -> bool:
        """As `add`; whether it was no member before."""
        if not isinstance(obj, Persistent):
            raise UsageError(f"a collection is of persistent objects, not of {type(obj).__name__}")
        pairs = followers(obj)
        known = self._id_of(obj, pairs)
        if known is not None:
            self._move([(obj, known)])
            return False
        members = self._members
        entry = members.entry_of(obj)
        ways = members.require_fit([Move(obj, None, (), entry)])[1:] if members.is_taken(entry) else []
        self._rely()
        member = members.new_id(obj, pairs, self._p_jar)
        set_followers(obj, (*(pair for pair in pairs if pair[0] is not self), (self, member)))
        try:
            members.make(ways)
            members.insert(member, entry)
        except BaseException:
            members.make([way._replace(old=way.new, new=way.old) for way in ways])
            set_followers(obj, pairs)
            raise
        self._by_id[member] = obj
        self._tally.change(1)
        return True

    def update(self, objects: Iterable[Persistent]) -> None:
        """Take many objects in; if one cannot be taken, none is. Raises what `add` raises."""
        added: list[Persistent] = []
        try:
            added.extend(obj for obj in objects if self._admit(obj))
        except BaseException:
            for obj in reversed(added):
                self.remove(obj)
            raise

    def remove(self, obj: Persistent) -> None:
        """Let a member go, also one whose class cannot be imported. Raises NotMemberError."""
        self._remove(obj, self._require_member(obj))

    def discard(self, obj: Persistent) -> None:
        """Let an object go, if it is a member."""
        member = self._member_id(obj)
        if member is not None:
            self._remove(obj, member)

    def pop(self, key: Any) -> Persistent:
        """Let the member with a key go, and return it. Raises NotMemberError."""
        obj = self[key]
        self.remove(obj)
        return obj

    def clear(self) -> None:
        """Let all members go."""
        for obj in list(self._by_id.values()):
            self.remove(obj)

    def _remove(self, obj: Persistent, member: int) -> None:
        members = self._members
        self._rely()
        set_followers(obj, tuple(pair for pair in followers(obj) if pair[0] is not self))
        members.remove(member)
        del self._by_id[member]
        self._tally.change(-1)

    def reindex(self, obj: Persistent) -> None:
        """Let the indexes follow a member now, not only at the next savepoint or commit.

        Raises NotMemberError, UniqueError, ImmutableKeyError, KeyTypeError; nothing has changed then.
        """
        self._move([(obj, self._require_member(obj))])

    def follow(self, changed: list[tuple[Persistent, Any]]) -> None:
        """What `objects.following` calls: let the indexes follow members before these are written."""
        self._move([(obj, member) for obj, member in changed if self.is_named(obj, member)])

    def _move(self, changed: list[tuple[Persistent, int]]) -> None:
        if changed:
            self._rely()
            members = self._members
            moves = [move for obj, member in changed if (move := members.move_of(obj, member)) is not None]
            if moves and members.make(members.require_fit(moves)):
                self._tally.change(0)

    def _rely(self) -> None:
        """Rely on the indexes: if another transaction adds or drops one meanwhile, this one is to fail."""
        if self._p_jar is not None:
            self._p_jar.readCurrent(self)

    def __getstate__(self) -> Any:
        """The state. Members of a collection that is not stored yet could change unseen: they are followed now."""
        if self._p_serial == NO_TID:
            pairs = [(obj, member) for member, obj in self._by_id.items() if obj._p_jar is None or obj._p_changed]
            self._move(pairs)
        return super().__getstate__()

    def _id_of(self, obj: Persistent, pairs: Iterable[tuple[Any, Any]]) -> int | None:
        """The id of a member, None for what is none. `pairs` are who follows it."""
        for follower, member in pairs:
            if follower is self and self.is_named(obj, member):
                return int(member)
        return self._id_by_key(obj)

    def _id_by_key(self, obj: Persistent) -> int | None:
        """The id of a member that has no `_objstore_followers`: it has no place for it, or has lost it."""
        attributes = getattr(obj, "__dict__", None)
        if attributes is None or (obj._p_jar is not None and FOLLOWERS not in attributes):
            by_key = self._members.by_key
            for key in by_key.definition.slot(obj):
                member = by_key.holder(key)
                if member is not None and self._by_id.get(member) is obj:
                    return member
        return None

    def _member_id(self, obj: object) -> int | None:
        return self._id_of(obj, followers(obj)) if isinstance(obj, Persistent) else None

    def _require_member(self, obj: object) -> int:
        member = self._member_id(obj)
        if member is None:
            raise NotMemberError(obj)
        return member

    # --- by key ---

    def __getitem__(self, key: Any) -> Any:
        """The member with a key. Raises NotMemberError, KeyTypeError."""
        member = self._holder(key)
        if member is None:
            raise NotMemberError(key)
        return self._by_id[member]

    def get(self, key: Any, default: Any = None) -> Any:
        """The member with a key, or the default. Raises KeyTypeError."""
        member = self._holder(key)
        return default if member is None else self._by_id[member]

    def _holder(self, key: Any) -> int | None:
        by_key = self._members.by_key
        return by_key.holder(encode_parts(key, len(by_key.definition.on)))

    def __contains__(self, key: Any) -> bool:
        return self._holder(key) is not None

    def __delitem__(self, key: Any) -> None:
        self.remove(self[key])

    def __len__(self) -> int:
        return self._tally.members

    def __iter__(self) -> Iterator[Any]:
        return self.keys()

    def keys(self, min: Any = None, max: Any = None) -> Iterator[Any]:
        """The keys in order, from `min` up to `max`, both included; None is no bound."""
        return (decode(key) for key in self._keys(min, max))

    def values(self, min: Any = None, max: Any = None) -> Iterator[Any]:
        """The members in the order of their keys."""
        return (obj for _, obj in self.items(min, max))

    def items(self, min: Any = None, max: Any = None) -> Iterator[tuple[Any, Any]]:
        """Keys and members, in the order of the keys."""
        for key in self._keys(min, max):
            member = self._members.by_key.holder(key)
            if member is not None:  # it may have been removed since
                yield decode(key), self._by_id[member]

    def _keys(self, low: Any, high: Any) -> Iterator[Key]:
        by_key = self._members.by_key
        return ascending(by_key.tree, *bounds(low, high, len(by_key.definition.on)))

    # --- indexes ---

    @property
    def indexes(self) -> dict[str, Index]:
        """The definitions of the indexes by name. That of the keys is `key_index`."""
        return {built.name: built.definition for built in self._built if built is not None and built.name}

    @property
    def key_index(self) -> Index:
        """The definition of the index of the keys."""
        return self._members.by_key.definition

    def add_index(
        self, name: str, index: Any, *, progress: Progress | None = None, batch: int | None = building.BATCH
    ) -> None:
        """Add an index and put all members into it.

        After every `batch` members a savepoint bounds the memory (None makes none), and `progress` is called,
        with the phase, how many are done, and how many there are. Conflicts with every other transaction
        that changes members or indexes meanwhile. Raises UsageError, UniqueError, KeyTypeError, and IndexingError
        where the class of a member cannot be imported; there is no index then.
        """
        before = self._built
        position = self._add_built(name, as_index(index))
        self._renew()
        batches = building.Batches(f"index {name}", len(self), batch, self._p_jar, progress)
        try:
            building.fill(self._members, position, self._relying(), batches)
        except BaseException:
            self._set_built(before)
            raise

    def drop_index(self, name: str) -> None:
        """Drop an index. Raises UsageError where there is none."""
        if name not in self.indexes:
            raise UsageError(f"there is no index {name!r}, only {', '.join(self.indexes) or 'that of the keys'}")
        self._set_built(tuple(None if each is not None and each.name == name else each for each in self._built))
        self._renew()

    def verify(self) -> Iterator[Misfit]:
        """Compare the indexes to the objects, as they are now; what does not fit. Nothing is written."""
        return verifying.verify(self, self._members)

    def rebuild(self, *, progress: Progress | None = None) -> int:
        """Make all indexes anew, of the objects alone; how many members there are.

        Members whose objects are gone are dropped. Raises UniqueError, KeyTypeError, IndexingError; nothing has
        changed then.
        """
        count = building.rebuild(self, self._members, self._relying(), progress)
        self._renew()
        return count

    def _add_built(self, name: str, index: Index) -> int:
        if not isinstance(name, str) or not name:
            raise UsageError(f"an index is named by a text, not by {name!r}")
        if name in self.indexes:
            raise UsageError(f"there is an index {name!r} already; drop it first, or choose another name")
        built = Built(name, index, index.new_tree())
        free = [position for position, each in enumerate(self._built) if each is None]
        position = free[0] if free else len(self._built)
        self._set_built((*self._built[:position], built, *self._built[position + 1 :]))
        return position

    def _set_built(self, built: tuple[Built | None, ...]) -> None:
        self._built = built
        self._v_members = None

    def _renew(self) -> None:
        """Make this transaction one that is merged with no other that changes the collection."""
        self._p_changed = True
        self._tally.renew()

    def _relying(self) -> building.Relying:
        jar = self._p_jar
        return jar.readCurrent if jar is not None else _rely_on_nothing

    # --- finding ---

    def find(
        self,
        *conditions: Condition | Mapping[str, Any],
        order: Order = (),
        limit: int | None = None,
        offset: int = 0,
        scan: bool = True,
        **attributes: Any,
    ) -> Found:
        """The members for which all conditions hold; they are looked for when the result is looked at.

        `order` names attributes or indexes, those with a "-" before them descending. Without it the order is
        undefined but the same each time. With `scan=False` a condition or an order that no index serves raises
        ScanError. Raises UsageError, KeyTypeError.
        """
        wanted = where(*conditions, **attributes)
        return Found(self._find_members, wanted, order=order, limit=limit, offset=offset, scan=scan)

    def _find_members(self) -> tuple[Members, Any]:
        return self._members, self._p_jar

    def one(self, *conditions: Condition | Mapping[str, Any], scan: bool = True, **attributes: Any) -> Any:
        """The only member for which the conditions hold. Raises NotOneError, ScanError."""
        return self.find(*conditions, scan=scan, **attributes).one()

    def exists(self, *conditions: Condition | Mapping[str, Any], scan: bool = True, **attributes: Any) -> bool:
        """Whether the conditions hold for any member. Raises ScanError."""
        return self.find(*conditions, scan=scan, **attributes).exists()

    def count(self, *conditions: Condition | Mapping[str, Any], scan: bool = True, **attributes: Any) -> int:
        """For how many members the conditions hold. Raises ScanError."""
        return self.find(*conditions, scan=scan, **attributes).count()

    def cursor(
        self,
        index: str | None = None,
        min: Any = None,
        max: Any = None,
        excludemin: bool = False,
        excludemax: bool = False,
        *,
        prefix: Prefix | None = None,
        reverse: bool = False,
    ) -> IndexCursor:
        """A place among the members in the order of an index, by its name; None is that of the keys.

        The others are those of `Cursor`, and about the index's values. Raises UsageError where there is no such
        index or the span makes no sense, KeyTypeError.
        """
        everywhere = IndexCursor(self._find_members, self._remove, index or "", Span())
        return everywhere.range(min, max, excludemin, excludemax, prefix=prefix, reverse=reverse)

    # --- the trees, for who walks them ---

    @property
    def by_id(self) -> Any:
        """The `LOBTree` of the members by their ids. To be read only."""
        return self._by_id

    def tree(self, name: str = "") -> Any:
        """The tree of an index, by default that of the keys, to be read only.

        A unique index has an `OLBTree` from keys to ids, another an `OOTreeSet` of keys with the id at their
        ends; `objstore.collections.keys` says what keys are. Raises UsageError.
        """
        return self._members.named(name).tree


def _rely_on_nothing(_obj: Persistent) -> None:
    """In a collection that is not stored, nothing can change meanwhile."""
