"""Every error that objstore raises on purpose, in one tree.

    ObjstoreError
    |- OpenError                      the store cannot be opened
    |  |- StoreMissingError           there is none at the path, and none was asked for
    |  |- NotAStoreError              the path holds something else
    |  |- StoreLockedError            another process owns it
    |  |- NetworkFilesystemError      its locks and syncs cannot be trusted
    |  |- StoreMismatchError          it exists, but not as asked for
    |  |- FormatVersionError          a newer objstore wrote it
    |  `- LockProtocolError           processes of another version have it open
    |- UsageError                     the call does not fit the store or its state
    |  |- ReadOnlyError
    |  |- ClosedError
    |  |- ForkedConnectionError       it was opened before the process forked
    |  |- ThreadMismatchError         it belongs to another thread
    |  |- HistoryMissingError         Minimal keeps no history, or it was packed away
    |  |- MissingAbilityError         the storage below cannot do this
    |  |- UndoError                   later changes are in the way
    |  |- NotMemberError (KeyError)   a collection has no such member
    |  |- NotOneError (LookupError)   none was found, or several, where there should be one
    |  |- ScanError                   no index serves a condition, and scanning was not allowed
    |  `- BlobError                   the blob is open, or has uncommitted data
    |- DataError                      an object cannot be had, or not be stored
    |  |- POSKeyError (KeyError)      there is no such object in this snapshot
    |  |  `- BlobMissingError         the object is there, its blob is not
    |  |- ClassNotAllowedError        `allowed_classes` does not name its class
    |  |- SerializationError          the object, or its record, does not fit the format
    |  |- RecordTooLargeError
    |  |- BrokenModifiedError         an object whose class is missing cannot be changed
    |  |- KeyTypeError (TypeError)    a value that has no order cannot be a key
    |  `- IndexingError               a collection cannot hold an object as it is
    |     |- UniqueError              another has its key in a unique index
    |     `- ImmutableKeyError        its key in an immutable index was changed
    |- TransientStoreError (TransientError)    try the transaction again
    |  |- ConflictError               another transaction changed what this one changed
    |  |  |- ReadConflictError        or what it relied on having read
    |  |  `- DanglingReferenceError   or packed away what it refers to
    |  |- SnapshotTooOldError         the snapshot was kept for too long
    |  `- StoreUnavailableError       the server of the store cannot be reached
    `- StorageError                   the disk, or what stands on it
       |- StorageFullError
       |- StorageFailedError          a write failed in a way that only reopening clears
       `- CorruptionError             the bytes are not what was written

Each carries fields beside its message, and each class has the exit code that the command line ends with.
"""

from __future__ import annotations

from typing import Any

from transaction.interfaces import TransientError

from objstore.ids import Oid, Tid, tid_moment


class ObjstoreError(Exception):
    """The root of the tree. `exit_code` is what a command ends with that meets such an error.

    Errors can be pickled, as when a process of a pool raises one, fields and all.
    """

    exit_code = 2

    def __reduce__(self) -> tuple[Any, ...]:
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(cls: type[ObjstoreError], args: tuple[Any, ...], fields: dict[str, Any]) -> ObjstoreError:
    """An error as it was, which was made of other arguments than it keeps."""
    error = cls.__new__(cls, *args)
    error.__dict__.update(fields)
    return error


# --- opening -----------------------------------------------------------------------------------------


class OpenError(ObjstoreError):
    """The store at `path` cannot be opened."""

    exit_code = 3

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class StoreMissingError(OpenError):
    """There is no store at `path`, and the call did not ask to create one."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "there is no store here; create one with create=True or `objstore init`")


class NotAStoreError(OpenError):
    """`path` holds something that is not a store, so none is created over it."""


class StoreLockedError(OpenError):
    """Others have the store open, and one of them, or this call, wants it alone.

    `pids` are their processes, none where nobody knows; `pid` is the first of them.
    """

    def __init__(self, path: str, *pids: int | None) -> None:
        self.pids = tuple(pid for pid in pids if pid is not None)
        self.pid = self.pids[0] if self.pids else None
        who = ", ".join(f"process {pid}" for pid in self.pids) or "another process"
        have = "have" if len(self.pids) > 1 else "has"
        super().__init__(path, f"{who} {have} this store open; close it there, or wait until that has ended")


class NetworkFilesystemError(OpenError):
    """The store is on a filesystem of another machine, where locks and syncs cannot be trusted."""

    def __init__(self, path: str, kind: str) -> None:
        super().__init__(
            path,
            f"it is on a network filesystem ({kind}), whose locks and syncs cannot be trusted: two hosts could "
            "write at once, and a power cut could lose what was committed. Move it to a local disk; force=True "
            "opens it nevertheless",
        )


class StoreMismatchError(OpenError):
    """The store exists, but with another history mode or format than the call asked for."""


class FormatVersionError(OpenError):
    """The store was written in a version of the format that this objstore does not read."""


# --- calls -------------------------------------------------------------------------------------------


class LockProtocolError(OpenError):
    """Processes that have the store open speak another version of the lock protocol than this objstore."""

    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(
            path,
            f"the processes that have this store open use version {found} of the lock protocol, this one uses "
            f"{known}; run one version of objstore in all of them",
        )


class UsageError(ObjstoreError):
    """The call does not fit the store, or its state."""


class ReadOnlyError(UsageError):
    """The store was opened for reading, or the connection shows the past."""

    def __init__(self, what: str = "the store", remedy: str = "open it for writing to change it") -> None:
        super().__init__(f"{what} was opened read-only; {remedy}")


class ClosedError(UsageError):
    """The database, or the connection, was closed."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is closed")


class ForkedConnectionError(UsageError):
    """A connection, or a transaction, was used in a child that was forked after it was opened."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} was opened before this process was forked; open a connection in the child: its database "
            "opens the store anew by itself"
        )


class ThreadMismatchError(UsageError):
    """A connection that was opened with `check_threads` was used by another thread."""

    def __init__(self, owner: str, user: str) -> None:
        super().__init__(
            f"a connection that was opened in thread {owner} was used in thread {user}; open one in each thread"
        )


class HistoryMissingError(UsageError):
    """The past that was asked for is not kept: the store is Minimal, or packed to a later time."""


class MissingAbilityError(UsageError):
    """The storage `name`, which was not made by objstore, cannot do what was asked for: `ability` says what."""

    def __init__(self, name: str, ability: str, remedy: str = "") -> None:
        super().__init__(f"{name} cannot {ability}{'; ' if remedy else ''}{remedy}")
        self.name = name
        self.ability = ability


class UndoError(UsageError):
    """A transaction cannot be undone. `tid` names it; `oid` the object in the way, where there is one."""

    exit_code = 4

    def __init__(self, tid: Tid, reason: str, oid: Oid | None = None) -> None:
        where = f", object {oid.hex()}" if oid is not None else ""
        super().__init__(f"transaction {tid.hex()} cannot be undone{where}: {reason}")
        self.tid = tid
        self.oid = oid
        self.reason = reason


class BlobError(UsageError):
    """A blob cannot be used like this now: it is open, or has uncommitted data, or belongs to another library."""


# --- objects -----------------------------------------------------------------------------------------


class DataError(ObjstoreError):
    """An object cannot be had, or cannot be stored."""


class POSKeyError(DataError, KeyError):
    """There is no object `oid` in this snapshot.

    `referrer` is the oid of an object that refers to it, where that is known, and `tid` the snapshot.
    """

    exit_code = 5

    def __init__(self, oid: Oid, referrer: Oid | None = None, tid: Tid | None = None) -> None:
        super().__init__(oid)
        self.oid = oid
        self.referrer = referrer
        self.tid = tid

    def __str__(self) -> str:
        text = f"no object {self.oid.hex()}"
        if self.tid is not None:
            text += f" in the snapshot of {self.tid.hex()}"
        if self.referrer is not None:
            text += f"; object {self.referrer.hex()} refers to it"
        return text


class BlobMissingError(POSKeyError):
    """The record of a blob is there, but its data are not: `tid` is that of the revision."""

    exit_code = 7

    def __str__(self) -> str:
        at = f" of transaction {self.tid.hex()}" if self.tid is not None else ""
        return f"the data of blob {self.oid.hex()}{at} are missing; `objstore check` lists all that is"


class ClassNotAllowedError(DataError):
    """Loading `oid` would import `class_name`, which `allowed_classes` does not name."""

    def __init__(self, class_name: str, oid: Oid | None) -> None:
        where = f"object {oid.hex()}" if oid is not None else "a record"
        super().__init__(f"{where} needs {class_name}, which allowed_classes does not permit")
        self.class_name = class_name
        self.oid = oid


class SerializationError(DataError):
    """An object cannot be written as a record, or a record not be read as an object."""

    def __init__(self, reason: str, oid: Oid | None = None, class_name: str | None = None) -> None:
        where = " ".join(part for part in (class_name, oid.hex() if oid is not None else None) if part)
        super().__init__(f"{where}: {reason}" if where else reason)
        self.oid = oid
        self.class_name = class_name


class RecordTooLargeError(DataError):
    """A record of `size` bytes is larger than `limit`, the most that a record may have."""

    def __init__(self, oid: Oid, size: int, limit: int) -> None:
        super().__init__(
            f"object {oid.hex()} has a record of {size:,} bytes; the limit is {limit:,}: "
            "split the object, or keep large binary values in blobs"
        )
        self.oid = oid
        self.size = size
        self.limit = limit


class BrokenModifiedError(DataError, TypeError):
    """An object whose class cannot be imported was changed. It can only be read and kept as it is."""

    def __init__(self, class_name: str, oid: Oid | None = None) -> None:
        super().__init__(f"the class {class_name} cannot be imported, so its objects cannot be changed")
        self.class_name = class_name
        self.oid = oid


def _named(obj: object) -> str:
    oid = getattr(obj, "_p_oid", None)
    return f"{type(obj).__name__} {oid.hex()}" if oid is not None else f"a new {type(obj).__name__}"


class IndexingError(DataError):
    """A collection cannot hold an object, or not as it has become. `index` names what stands against it."""

    exit_code = 4

    def __init__(self, index: str, reason: str) -> None:
        super().__init__(f"index {index!r}: {reason}")
        self.index = index
        self.reason = reason


class UniqueError(IndexingError):
    """Two objects have one key in a unique index: `holder` has it, `other` wants it too. `key` is the value."""

    def __init__(self, index: str, key: object, holder: object, other: object) -> None:
        super().__init__(index, f"{_named(other)} has the key {key!r}, which {_named(holder)} has already")
        self.key = key
        self.holder = holder
        self.other = other


class ImmutableKeyError(IndexingError):
    """The key of `obj` in an immutable index was changed from `old` to `new`."""

    def __init__(self, index: str, obj: object, old: object, new: object) -> None:
        super().__init__(
            index,
            f"the key of {_named(obj)} was changed from {old!r} to {new!r}, and is immutable; remove the object, "
            "change it, and add it anew",
        )
        self.obj = obj
        self.old = old
        self.new = new


class KeyTypeError(DataError, TypeError):
    """`value` cannot be a key of an index."""

    def __init__(self, value: object, reason: str) -> None:
        super().__init__(f"{type(value).__name__} cannot be a key: {reason}")
        self.value = value
        self.reason = reason


class NotMemberError(UsageError, KeyError):
    """There is no such member in a collection. `key` is what was looked for: a key, or an object."""

    def __init__(self, key: object) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"the collection has no member {self.key!r}"


class NotOneError(UsageError, LookupError):
    """Of what was to be found once, there is nothing, or there are several: `several` says which."""

    exit_code = 4

    def __init__(self, what: str, *, several: bool) -> None:
        super().__init__(f"{'more than one member' if several else 'no member'} of the collection: {what}")
        self.several = several


class ScanError(UsageError):
    """A condition has no index, and looking at every object was not allowed. `condition` is its text."""

    def __init__(self, condition: str) -> None:
        super().__init__(f"no index serves {condition}; add one with add_index, or find it with scan=True")
        self.condition = condition


# --- transactions ------------------------------------------------------------------------------------


class TransientStoreError(ObjstoreError, TransientError):
    """The transaction failed, but trying it again may succeed. `DB.run` does so by itself."""

    exit_code = 4


class ConflictError(TransientStoreError):
    """Another transaction changed object `oid` since this one read it.

    `class_name` is dotted, or None where it is not known. `serial` is the revision that this transaction
    started from, `committed` the one that is current.
    """

    what = "was changed by another transaction"

    def __init__(
        self, oid: Oid, serial: Tid, committed: Tid, class_name: str | None = None, reason: str = ""
    ) -> None:
        super().__init__(oid, serial, committed, class_name, reason)
        self.oid = oid
        self.serial = serial
        self.committed = committed
        self.class_name = class_name
        self.reason = reason

    def __str__(self) -> str:
        name = f" ({self.class_name})" if self.class_name else ""
        text = (
            f"object {self.oid.hex()}{name} {self.what}: started from {self.serial.hex()}, "
            f"current is {self.committed.hex()}"
        )
        return f"{text}; {self.reason}" if self.reason else text


class ReadConflictError(ConflictError):
    """Another transaction changed an object that this one relied on (`Connection.readCurrent`)."""

    what = "was relied on by this transaction and changed by another"


class DanglingReferenceError(ConflictError):
    """The transaction refers to `oid`, which a pack removed because nothing referred to it any more."""

    what = "was removed by a pack while this transaction made a reference to it"


class SnapshotTooOldError(TransientStoreError):
    """A connection kept its snapshot for longer than the store may hold old revisions back."""

    def __init__(self, snapshot: Tid) -> None:
        super().__init__(
            f"the snapshot of {tid_moment(snapshot).isoformat()} was given up because too much was written "
            "since; begin the transaction again, or raise pin_limit"
        )
        self.snapshot = snapshot


class StoreUnavailableError(TransientStoreError):
    """The server of the store `name` cannot be reached, or did not answer in time."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}; begin the transaction again when its server can be reached")
        self.name = name


# --- disk --------------------------------------------------------------------------------------------


class StorageError(ObjstoreError):
    """The disk, or what stands on it, is not as it should be."""

    exit_code = 6


class StorageFullError(StorageError):
    """There was no room to write. `outcome` says what that means; the store goes on as soon as there is room."""

    def __init__(self, path: str, reason: str, outcome: str = "nothing was changed") -> None:
        super().__init__(f"{path}: {reason}; {outcome}, make room and try again")
        self.path = path


class StorageFailedError(StorageError):
    """A write failed such that nobody can say what is on the disk. Reading goes on, writing does not."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}; writing has stopped, reopen the store to recover")
        self.path = path


class CorruptionError(StorageError):
    """Bytes at `path` (from `offset`, where that is known) are not what was written; or a BTree, which it names,
    does not hang together.
    """

    exit_code = 7

    def __init__(
        self, path: str, reason: str, *, offset: int | None = None, oid: Oid | None = None, tid: Tid | None = None
    ) -> None:
        at = f" at byte {offset}" if offset is not None else ""
        what = "".join(
            f", {kind} {identity.hex()}" for kind, identity in (("object", oid), ("tid", tid)) if identity
        )
        super().__init__(f"{path}{at}{what}: {reason}")
        self.path = path
        self.offset = offset
        self.oid = oid
        self.tid = tid
        self.reason = reason
