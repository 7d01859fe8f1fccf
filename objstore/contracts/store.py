"""What the floors above know of a storage: `Store`, `View`, `PendingTransaction`; and what a pack asks of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from objstore.contracts.home import Format, History, Home
from objstore.ids import Oid, Tid
from objstore.revisions import Details, Revision, RevisionSummary, Transaction


class StoreOptions(NamedTuple):
    """How a store is opened. `history` and `format` are None where the caller takes what is there.

    Volumes are in bytes, times in seconds. The flusher moves a batch once `flush_transactions` or
    `flush_bytes` wait, or the oldest has waited for `flush_age`. Past `journal_limit` commits wait for it;
    what a snapshot holds back in Minimal does not count. There a snapshot is given up past `pin_limit`: the volume
    that was committed since, and waits for it in the journal or is kept for it in the home.
    `background=False` leaves flushing to `Store.flush`. `exclusive` lets nobody else have the store open, to read
    or to write. `force` opens it on a filesystem whose locks and syncs cannot be trusted, at one's own risk.
    """

    history: History | None = None
    format: Format | None = None
    create: bool = True
    read_only: bool = False
    background: bool = True
    flush_transactions: int = 256
    flush_bytes: int = 8 * 2**20
    flush_age: float = 5.0
    journal_limit: int = 64 * 2**20
    pin_limit: int = 1024 * 2**20
    flush_on_close: bool = True
    exclusive: bool = False
    force: bool = False


class Conflict(NamedTuple):
    """An object that two transactions changed: what resolving it needs.

    `old` is the record that both started from, `committed` the one that is current, `new` the one that is
    to be stored. `serial` and `committed_serial` are the tids of the first two.
    """

    oid: Oid
    serial: Tid
    committed_serial: Tid
    old: bytes
    committed: bytes
    new: bytes


Resolver = Callable[[Conflict], tuple[bytes, bytes]]
"""Gives the merged record and its packed references, or raises `errors.ConflictError`."""


class View(Protocol):
    """A reader's snapshot: of all there is, what has a tid <= `snapshot`. Used by one thread at a time."""

    @property
    def snapshot(self) -> Tid:
        """The tid up to which this view sees."""

    def load(self, oid: Oid) -> tuple[bytes, Tid]:
        """The record of an object and its serial.

        Raises POSKeyError where the snapshot has no such object or it was deleted, SnapshotTooOldError
        where the snapshot was given up, CorruptionError where the disk does not give what was written.
        """

    def advance(self) -> frozenset[Oid] | None:
        """Move the snapshot to the newest durable transaction.

        Returns the oids that transactions other than those committed through this view have changed since
        (they must leave the caches before anything is read), or None for "any": forget everything. A view
        of the past stays where it is and returns an empty set.
        """

    def close(self) -> None:
        """Let go of the snapshot. Closing twice is allowed."""


class PendingTransaction(Protocol):
    """A transaction being written: store and check, then vote, then finish; or abort, at any time.

    Nothing that can reasonably fail is left for `finish`. Used by one thread at a time.
    """

    def store(
        self,
        oid: Oid,
        serial: Tid,
        data: bytes | None,
        references: bytes | None,
        copied_from: Tid | None = None,
        *,
        opaque: bool = False,
    ) -> None:
        """Write an object's record, changed from the revision `serial` (NO_TID for a new object).

        `data` None deletes. `references` are packed oids, None to have them extracted from `data`. That is left
        undone for a record that is `opaque`, as an encrypted one: none are known then, and who packs has to
        read it. Storing an oid twice replaces the first. Raises RecordTooLargeError, SerializationError.
        """

    def check_current(self, oid: Oid, serial: Tid) -> None:
        """Make `vote` fail with ReadConflictError if anybody changed this object after `serial`."""

    def undo(self, tid: Tid) -> frozenset[Oid]:
        """Write what undoes the transaction `tid`; the oids that this writes.

        Later changes to its objects are resolved, or refused with UndoError. Raises HistoryMissingError
        where the store keeps no history that far back. Several can be undone, the newest first.
        """

    def vote(self) -> frozenset[Oid]:
        """Make all of it durable but for the rename that commits, and keep other writers out from here on.

        Returns the oids that were resolved: their objects must be loaded anew. Raises ConflictError and its
        kin, StorageFullError, StorageError; the transaction is then to be aborted.
        """

    def finish(self) -> Tid:
        """Commit. On return the transaction survives a power cut, whole, and others may see it."""

    def abort(self) -> None:
        """Give it up. Nothing of it stays. Aborting twice, or after a finish, does nothing."""


class PackReport(NamedTuple):
    """What a pack did, or would do (`dry_run`)."""

    upto: Tid
    """The time packed to: revisions superseded by then were dropped."""
    dry_run: bool
    objects_removed: int
    revisions_removed: int
    """Revisions dropped, those of the removed objects included."""
    transactions_removed: int
    bytes_freed: int
    objects_kept: int
    seconds: float
    blobs_removed: int = 0
    """Blobs of the revisions removed, and those that an interrupted pack has left."""


class PackOptions(NamedTuple):
    """What a pack keeps, beside what was not superseded.

    `collect` removes objects that nothing leads to; without it an object goes only when it was deleted. The newest
    `protect` transactions are kept whole, whatever the time packed to: by them replication finds where it stands.
    `references` gives the packed references of a record of which they are not known (see `store`), and raises
    SerializationError where it cannot.
    """

    collect: bool = True
    protect: int = 2
    references: Callable[[bytes], bytes] | None = None


Progress = Callable[[str, int, int | None], None]
"""Called with a phase's name, how many steps of it are done, and how many there are, if known."""


class PackTarget(Protocol):
    """What a store offers to the one that packs it."""

    @property
    def name(self) -> str:
        """For messages: the path."""

    @property
    def home(self) -> Home:
        """Where the revisions are."""

    def flush(self) -> None:
        """Move everything that may move from the journal to the home."""

    def begin_pack(self, upto: Tid) -> Tid:
        """How far a pack to `upto` may go now: never past a live snapshot, nor past what was flushed.

        From here on nobody is given a view of an earlier time, until the pack ends, and what is changed is
        kept for `changed`. Raises StorageFailedError where an earlier commit has failed, so that nobody can
        say what is committed.
        """

    def last_tids(self, count: int) -> list[Tid]:
        """The tids of the newest durable transactions, newest first: what replication must find."""

    def waiting(self) -> Iterator[RevisionSummary]:
        """The revisions that the journal holds at this moment, committed and not yet in the home."""

    def changed(self) -> bytes:
        """The oids, packed, that were written by transactions committed since `begin_pack`, or since the
        last call. With writers held these are all. Raises StorageFailedError as `begin_pack` does."""

    def committed(self, oid: Oid) -> Iterator[RevisionSummary]:
        """An object's revisions in journal and home, newest first, those included that are not yet durable."""

    def load(self, oid: Oid, upto: Tid) -> Revision | None:
        """The newest of these revisions with tid <= `upto`; None where there is none."""

    def writers_held(self) -> AbstractContextManager[object]:
        """While inside, no transaction commits. For moments, not for work."""

    def blobs_there(self) -> Iterator[tuple[Oid, Tid, int]]:
        """The blobs that are no longer in the journal, with their sizes, those of an object together."""

    def remove_blobs(self, blobs: Sequence[tuple[Oid, Tid]]) -> int:
        """Remove blobs. Durable on return; the bytes that became free."""

    @property
    def doomed(self) -> Callable[[Oid], bool] | None:
        """What an earlier pack gave to `doom`, so that the next can add to it."""

    def doom(self, is_doomed: Callable[[Oid], bool] | None) -> None:
        """From here on refuse to commit a reference to, or a record of, an object that is doomed.

        Called with writers held, to add to it. It stays in force when the pack has ended, because
        applications may hold removed objects in their caches. None takes it back. What is iterable, by the
        numbers of oids, holds in all processes. Raises OSError.
        """

    def record_pack(self, upto: Tid) -> None:
        """Remember durably that history before `upto` is gone. Called before the first removal."""


class Packer(Protocol):
    """Drops what nobody may need any more. `upkeep.pack.pack` is the one there is."""

    def __call__(
        self,
        target: PackTarget,
        upto: Tid,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        options: PackOptions | None = None,
    ) -> PackReport: ...


class Store(Protocol):
    """A storage as the object layer sees it. Its methods may be called from any thread."""

    @property
    def name(self) -> str:
        """For messages, and for ordering data managers: the path."""

    @property
    def history_mode(self) -> History: ...

    @property
    def read_only(self) -> bool: ...

    def last_tid(self) -> Tid:
        """The newest durable transaction; NO_TID in an empty store."""

    def new_oid(self) -> Oid:
        """An oid that nobody had before and nobody else will have, also after a crash."""

    def view(self, at: Tid | None = None) -> View:
        """A view of the newest durable state, or a fixed one of everything with a tid <= `at`.

        Raises HistoryMissingError where the past at `at` is not kept.
        """

    def begin(
        self, details: Details, view: View, resolver: Resolver, *, any_serials: bool = False
    ) -> PendingTransaction:
        """Begin to write, on the ground of what `view` shows.

        With `any_serials` what is changed, or checked, need not be what the view shows: `vote` then compares each
        serial with what is current. One of an object that is not here, as it stands in another store below this
        one, is taken for that of a new object.

        Raises ReadOnlyError, ClosedError, StorageError where the flusher or an earlier commit has failed.
        """

    def restore(self, tid: Tid, details: Details) -> PendingTransaction:
        """Begin to write a transaction that was committed elsewhere, under the tid that it has there.

        It is written as any other (`store`, `vote`, `finish` or `abort`), is as durable, and others see it as
        soon. But its records are taken as they come: the serials given to `store` do not count, each record
        follows the newest revision that its object has here, and nothing conflicts. `copied_from` is kept where
        the same data is here at that tid, and is forgotten where not. Nothing can be undone or checked in it
        (UsageError). Without records it commits nothing.

        Raises UsageError where `tid` is not later than the newest transaction that is here; so does `vote`, where
        one came in between. Else as `begin` does.
        """

    def revision(self, oid: Oid, tid: Tid) -> Revision:
        """One revision. Raises POSKeyError where there is none, or none any more."""

    def summaries(self, oid: Oid) -> Iterator[RevisionSummary]:
        """An object's durable revisions, newest first. Raises POSKeyError where it has none."""

    def transaction(self, tid: Tid) -> Transaction | None:
        """The details of one durable transaction; None where they are not kept."""

    def transactions(self, upto: Tid | None = None) -> Iterator[Transaction]:
        """The durable transactions, newest first, from `upto` (inclusive) on back, as far as they are kept."""

    def packed_upto(self) -> Tid:
        """The time that history was packed to; NO_TID where it never was. What is older cannot be undone."""

    def pack(
        self,
        upto: Tid,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        options: PackOptions | None = None,
    ) -> PackReport:
        """Drop what was superseded by `upto` and what nothing refers to. Raises UsageError where another
        pack runs, ReadOnlyError, CorruptionError (before anything was removed)."""

    def flush(self) -> None:
        """Move everything that may move from the journal to the home now. Raises what the flusher met."""

    def statistics(self) -> Mapping[str, int | float | str]:
        """Facts and counters, named in `docs/reference`."""

    def close(self) -> None:
        """Stop, and let go of the files. What was committed is durable before; closing twice is allowed."""
