"""What a connection's transaction has changed so far, from its first change until it commits or aborts.

An object is *named* when it has got its oid but was not written yet, *created* once it was written for the
first time in this transaction, *modified* if it was there before. Whatever happens, an abort leaves each
modified object without its state, to be loaded anew, and each new one without oid and connection, as it was
before it met this transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from persistent import Persistent, PickleCache

from objstore.contracts import BlobSink, PendingTransaction
from objstore.errors import SerializationError, UsageError
from objstore.ids import NO_TID, Oid, Tid
from objstore.objects.blobs import Blob
from objstore.objects.broken import name_of
from objstore.objects.following import tell_followers
from objstore.objects.savepoints import Mark, SavepointStore
from objstore.objects.serialize import LostState, ObjectWriter, WritersJar

T = TypeVar("T")
_lost = LostState()


class Sink(Protocol):
    """Where records go: the pending transaction, or the savepoints' store."""

    def store(self, oid: Oid, serial: Tid, data: bytes, references: bytes | None) -> None: ...


class Changes:
    """The changes of one connection. Used by one thread at a time."""

    def __init__(
        self, jar: WritersJar, cache: PickleCache, savepoint_memory: int, discard: Callable[[str], None]
    ) -> None:
        """`discard` removes the data of a blob that a savepoint had."""
        self._jar = jar
        self._discard_blob = discard
        self._cache = cache
        self._memory = savepoint_memory
        self._writer = ObjectWriter(jar)
        self._registered: list[Persistent] = []
        self.named: dict[Oid, Persistent] = {}
        """The new objects that were not written yet."""
        self._within: dict[int, Persistent] = {}  # BTrees by the id of a leaf that was written within them
        self._again: list[Persistent] = []  # those of them whose leaf has got a record of its own since
        self._created: set[Oid] = set()
        self._modified: set[Oid] = set()
        self._resolved: frozenset[Oid] = frozenset()
        self.read_current: dict[Oid, Tid] = {}
        self.savepoints: SavepointStore | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to commit or to abort."""
        return bool(self._registered or self.named or self._created or self._modified or self.savepoints)

    # --- as the application works ---

    def begin(self) -> None:
        """A transaction begins: drop what none has committed or aborted, and what the last one relied on.

        Changes are left over where they were refused: some classes change before they ask.
        """
        if self:
            self.abort()
        self.read_current.clear()

    def register(self, obj: Persistent) -> None:
        """An object was changed for the first time since it was loaded or written."""
        if obj._p_oid not in self.named:
            self._registered.append(obj)

    def name(self, obj: Persistent, oid: Oid) -> None:
        """Adopt a new object. It counts as changed, so that no cache drops its only state."""
        if self._within and (tree := self._within.pop(id(obj), None)) is not None:
            self._again.append(tree)
        self.named[oid] = obj
        obj._p_oid = oid
        obj._p_jar = self._jar
        obj._p_changed = True

    def note_created(self, oid: Oid) -> None:
        """A record of a new object was written without the object."""
        self._created.add(oid)

    # --- writing ---

    def write(self, sink: Sink, *, settle: bool) -> int:
        """Write every change and every new object that changed ones refer to; how many were written.

        Who follows them is told before, and may change more.
        Objects that were written in this call are not written twice, though they were changed meanwhile; if
        `settle`, they count as unchanged from then on. Raises SerializationError and what the sink and the
        objects raise; the transaction is then to be aborted.
        """
        named, registered, cache = self.named, self._registered, self._cache
        tell_followers(self._jar, registered, named)
        created, modified, read_current = self._created, self._modified, self.read_current
        serialize, store, estimate = self._writer.serialize, sink.store, cache.update_object_size_estimation
        written: set[Oid] = set()
        within, again = self._within, self._again
        within.clear()
        again.clear()
        at = 0
        while named or at < len(registered) or again:  # all may grow meanwhile
            if named:
                oid, obj = named.popitem()
                created.add(oid)
                cache[oid] = obj
                serial = NO_TID
            elif again:
                obj = again.pop()
                oid = obj._p_oid
                serial = NO_TID if oid in created else obj._p_serial
            else:
                obj = registered[at]
                at += 1
                if obj._p_jar is not self._jar:
                    reason = "it was changed here, but belongs to another connection by now"
                    raise SerializationError(reason, obj._p_oid, name_of(type(obj)))
                oid = obj._p_oid
                if not obj._p_changed or (oid in written and not settle):
                    continue
                if oid in created:
                    serial = NO_TID
                else:
                    modified.add(oid)
                    serial = obj._p_serial
            data, references = serialize(obj)
            if (leaf := _only_leaf(obj)) is not None:
                within[id(leaf)] = obj
            if type(obj) is Blob:
                self._store_blob(sink, oid, serial, obj, data)
            else:
                store(oid, serial, data, references)
            size = len(data)
            estimate(oid, size)
            obj._p_estimated_size = size
            if read_current:
                read_current.pop(oid, None)
            if settle:
                obj._p_changed = False
            written.add(oid)
        within.clear()
        if settle:
            registered.clear()
        return len(written)

    def _store_blob(self, sink: Sink, oid: Oid, serial: Tid, blob: Blob, data: bytes) -> None:
        """Write a blob: its working file is taken over."""
        taking = _blob_sink(sink)
        path = blob._p_blob_hand_over()
        try:
            taking.store_blob(oid, serial, data, b"", path)
        except BaseException:
            self._discard_blob(path)
            raise

    def write_all(self, pending: PendingTransaction) -> int:
        """Write everything to a pending transaction, what savepoints hold included; how many records.

        What was only read, and must be current, is checked too.
        """
        if self.savepoints is None:
            count = self.write(pending, settle=False)
        else:
            self.write(self.savepoints, settle=True)
            for oid, (serial, data, references, blob) in self.savepoints.all():
                if blob is not None:
                    _blob_sink(pending).store_blob(oid, serial, data, references, blob)
                else:
                    pending.store(oid, serial, data, references)
                if oid not in self._created:
                    self._modified.add(oid)
            count = len(self.savepoints)
        for oid, serial in self.read_current.items():
            pending.check_current(oid, serial)
        return count

    # --- savepoints ---

    def savepoint(self) -> Mark:
        """Write every change to the savepoints' store; the moment to roll back to."""
        store = self.temporary()
        self.write(store, settle=True)
        return store.mark()

    def temporary(self) -> SavepointStore:
        """The savepoints' store, made if need be."""
        if self.savepoints is None:
            self.savepoints = SavepointStore(self._memory, self._discard_blob)
        return self.savepoints

    def added(self, add: Callable[[], T]) -> T:
        """Do something that adds to the savepoints' store; if it fails, nothing of it stays."""
        mark = self.savepoint()
        try:
            return add()
        except BaseException:
            self.rollback(mark)
            raise

    def rollback(self, mark: Mark) -> None:
        """Take back every change after a savepoint."""
        store = self.temporary()
        changed = store.rollback(mark)
        gone = {oid for oid in changed if oid in self._created and oid not in store}
        self._disown_named()
        self._disown_created(gone)
        self._created -= gone
        self._modified.difference_update(oid for oid in changed if oid not in store)
        self._invalidate(changed - gone)
        self._forget_registered()
        self._writer.forget()

    # --- the end ---

    def resolved(self, oids: frozenset[Oid]) -> None:
        """These were merged with what others committed: what is in memory is not what is stored."""
        if oids:
            self._resolved = oids
            self._invalidate(oids)

    def committed(self, tid: Tid) -> None:
        """All of it was committed at `tid`."""
        cached, resolved = self._cache.get, self._resolved
        for oids in (self._modified, self._created):
            for oid in oids:
                obj = cached(oid)
                if obj is not None and obj._p_changed is not None and oid not in resolved:
                    obj._p_changed = False
                    obj._p_serial = tid
        self._invalidate(resolved)  # again: who looked at them since the vote saw the past
        self._reset()

    def abort(self) -> None:
        """Give all of it up, but for what was relied on: rolling back a savepoint may come to this too.

        Aborting twice is allowed.
        """
        self._disown_named()
        self._disown_created(self._created)
        written = set(self.savepoints.oids()) if self.savepoints is not None else set()
        self._invalidate((self._modified | written) - self._created)
        self._forget_registered()
        self._reset()

    def _reset(self) -> None:
        self._writer.forget()
        self._registered.clear()
        self._created.clear()
        self._modified.clear()
        self._resolved = frozenset()
        if self.savepoints is not None:
            self.savepoints.close()
            self.savepoints = None

    def _forget_registered(self) -> None:
        """Drop the state of what was changed and not disowned."""
        self._invalidate(Oid(obj._p_oid) for obj in self._registered if obj._p_jar is self._jar)
        self._registered.clear()

    def _invalidate(self, oids: Iterable[Oid]) -> None:
        outdated = list(oids)  # a list, because the cache empties what it is given
        if outdated:
            self._cache.invalidate(outdated)

    def _disown_named(self) -> None:
        while self.named:
            _, obj = self.named.popitem()
            _disown(obj)

    def _disown_created(self, oids: Iterable[Oid]) -> None:
        for oid in list(oids):
            obj = self._cache.get(oid)
            if obj is not None:
                del self._cache[oid]
                _disown(obj)


_has_leaves: dict[type, bool] = {}
"""Of classes that were written whether they are BTrees or TreeSets."""


def _only_leaf(obj: Persistent) -> Any:
    """The leaf that was written within a BTree, since it is the only one and has no oid; None where there is none.

    If that gets an oid later, because another leaf or the tree around refers to it, what it was written within is
    a part of a larger tree. It would be there twice, so that part has to be written again. (ZODB does not, and has
    a damaged tree then: "Bucket next pointer is damaged".)
    """
    cls = type(obj)
    known = _has_leaves.get(cls)
    if known is None:
        # Of the class: an object may say yes to any attribute.
        known = _has_leaves[cls] = hasattr(cls, "_firstbucket")
    if not known:
        return None
    leaf: Any = obj._firstbucket
    return leaf if leaf is not None and leaf._p_oid is None else None


class Savepoint:
    """A moment in a transaction that it can be rolled back to."""

    def __init__(self, changes: Changes, mark: Mark) -> None:
        self._changes = changes
        self._mark = mark

    def rollback(self) -> None:
        """Take back what was changed since."""
        self._changes.rollback(self._mark)


def _blob_sink(sink: object) -> BlobSink:
    if not isinstance(sink, BlobSink):
        raise UsageError("the store keeps no blobs")
    return sink


def _disown(obj: Persistent) -> None:
    """Make an object as new as it was. A ghost has lost its state, so it becomes one that says so."""
    if obj._p_changed is None:
        del obj._p_jar
        obj._p_jar = _lost
        return
    obj._p_changed = False
    del obj._p_jar
    del obj._p_oid
    obj._p_serial = NO_TID
