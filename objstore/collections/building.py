"""Indexes made of what is there already: of a full collection, in batches, and all of them anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from persistent import Persistent

from objstore.collections.keys import Key, decode
from objstore.collections.members import Built, Entry, Members, require_class
from objstore.collections.walking import ascending
from objstore.contracts import Progress
from objstore.errors import POSKeyError, UniqueError
from objstore.objects.following import followers, set_followers

BATCH = 10_000
"""After how many members a savepoint is made."""
Relying = Callable[[Persistent], object]
"""Is told of each object that was looked at: the commit fails if another transaction has changed it."""


class Batches:
    """After so many members: a savepoint, so that memory is bounded."""

    def __init__(self, phase: str, total: int, size: int | None, jar: Any, progress: Progress | None) -> None:
        self._phase = phase
        self._total = total
        self._size = size
        self._jar = jar
        self._progress = progress
        self._done = 0

    def one(self) -> None:
        """One more is done."""
        self._done += 1
        if self._size and self._done % self._size == 0:
            if self._jar is not None:
                self._jar.transaction_manager.savepoint(optimistic=True)
            self._tell()

    def end(self) -> None:
        """All are done."""
        if not self._size or self._done % self._size or not self._done:
            self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._phase, self._done, self._total)


def fill(members: Members, position: int, rely: Relying, batches: Batches) -> None:
    """Put all members into a new, empty index. Raises UniqueError, KeyTypeError, IndexingError; it is of no
    use then.

    Entries may have something at its position from an index that was dropped: that counts for nothing. A savepoint
    in between lets changed members move, also in this index and before their turn, which does no harm.
    """
    built = members.built[position]
    if built is None:
        return
    for member in ascending(members.by_id):
        obj = members.by_id[member]
        rely(obj)
        obj._p_activate()
        require_class(built.title, obj)
        slot = built.definition.slot(obj)
        if built.definition.unique:
            _require_free(members, built, slot, member, obj)
        for key in slot:
            built.insert(key, member)
        entry = members.entries[member]
        entry += ((),) * (position - len(entry))
        members.entries[member] = (*entry[:position], slot, *entry[position + 1 :])
        batches.one()
    batches.end()


def _require_free(members: Members, built: Built, slot: tuple[Key, ...], member: int, obj: Persistent) -> None:
    for key in slot:
        holder = built.holder(key)
        if holder is not None and holder != member:
            raise UniqueError(built.title, decode(key), members.by_id[holder], obj)


def rebuild(follower: Any, members: Members, rely: Relying, progress: Progress | None) -> int:
    """Make all indexes and entries anew, of the objects alone; how many members there are.

    Members whose objects are gone are dropped. All keys are held in memory meanwhile, because nothing is
    changed if two members have one key. Raises UniqueError, KeyTypeError.
    """
    total = len(members.by_id)
    batches = Batches("reading", total, 1000, None, progress)
    entries: dict[int, Entry] = {}
    gone: list[int] = []
    for member in ascending(members.by_id):
        obj = members.by_id[member]
        try:
            obj._p_activate()
        except POSKeyError:
            gone.append(member)
            continue
        rely(obj)
        entries[member] = members.entry_of(obj)
        batches.one()
    batches.end()
    keys = {
        position: _keys(members, built, position, entries)
        for position, built in enumerate(members.built)
        if built is not None
    }
    for member in gone:
        del members.by_id[member]
    for position, built in enumerate(members.built):
        if built is not None:
            built.tree.clear()
            built.tree.update(sorted(keys[position]))
    members.entries.clear()
    members.entries.update(entries)
    for member in entries:
        _follow(follower, members.by_id[member], member)
    members.tally.members = len(entries)
    return len(entries)


def _keys(members: Members, built: Built, position: int, entries: dict[int, Entry]) -> list[Any]:
    """What the tree of an index is to hold."""
    pairs = ((key, member) for member, entry in entries.items() for key in entry[position])
    if not built.definition.unique:
        return [(*key, member) for key, member in pairs]
    holders: dict[Key, int] = {}
    for key, member in pairs:
        holder = holders.setdefault(key, member)
        if holder != member:
            raise UniqueError(built.title, decode(key), members.by_id[holder], members.by_id[member])
    return list(holders.items())


def _follow(follower: Any, obj: Persistent, member: int) -> None:
    pairs = followers(obj)
    mine = [token for each, token in pairs if each is follower]
    if mine != [member]:
        set_followers(obj, (*((each, token) for each, token in pairs if each is not follower), (follower, member)))
