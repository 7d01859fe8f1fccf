"""The store: journal, home, flusher and readers' snapshots, behind the contracts of the floors above.

`DirectoryStore` is a `contracts.Store` and a `contracts.PackTarget`. Locks, in the order in which they are
taken: the writer lock, the flusher's, the sync of the journal, the readers' table, then leaves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from threading import Lock

from objstore.contracts import (
    Filesystem,
    History,
    Home,
    Packer,
    PackOptions,
    PackReport,
    Progress,
    Resolver,
    StoreOptions,
    View,
)
from objstore.engine.blobs import Blobs
from objstore.engine.commits import Commits
from objstore.engine.dooms import Dooms
from objstore.engine.failures import storage_error
from objstore.engine.flusher import Flusher
from objstore.engine.homes import home_statistics
from objstore.engine.journal import Journal
from objstore.engine.lookup import Lookup
from objstore.engine.marks import FLUSHED, OIDS, PACKED, Marks
from objstore.engine.membership import Counted, Membership
from objstore.engine.oids import Oids
from objstore.engine.peers import OtherProcesses, Peers
from objstore.engine.pending import Pending, Workshop
from objstore.engine.pinned import Pinned
from objstore.engine.snapshots import Snapshots
from objstore.engine.standing import Standing
from objstore.engine.views import StoreView
from objstore.engine.waiting import WaitingIndex
from objstore.errors import (
    ClosedError,
    ForkedConnectionError,
    HistoryMissingError,
    ObjstoreError,
    POSKeyError,
    ReadOnlyError,
    StorageError,
    UsageError,
)
from objstore.formats.layouts import HomeDirectory
from objstore.formats.settings import Settings
from objstore.ids import MAX_TID, NO_TID, Oid, Tid, number, tid_from, tid_moment
from objstore.machine.board import PAST
from objstore.revisions import Details, Revision, RevisionSummary, Transaction


class DirectoryStore:
    """A store in a directory, made by `engine.opening.open_store`. May be used by any thread."""

    def __init__(
        self,
        directory: HomeDirectory,
        settings: Settings,
        options: StoreOptions,
        *,
        membership: Membership,
        journal: Journal,
        marks: Marks,
        home: Home,
        standing: Standing,
        others: OtherProcesses,
        packer: Packer,
        clock: Callable[[], float],
        new_token: Callable[[], bytes],
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.journal = journal
        self.recovered = standing.found
        self._options = options
        self._marks = marks
        self._home = home
        self._packer = packer
        index = WaitingIndex()
        for waiting in standing.found.waiting:
            index.add(waiting)
        self._lookup = Lookup(journal, index, home)
        self._membership = membership
        self._commits = Commits(standing, journal.path, membership)
        self._snapshots = Snapshots(self._commits, membership)
        self._blobs = Blobs(directory, settings.format, self._lookup, new_token, read_only=options.read_only)
        self._changing = Counted(membership.flush)
        pinned = Pinned(membership.board.words, options.pin_limit)
        self._flusher = Flusher(
            self._lookup, self._commits, self._snapshots, marks, options, self._changing, pinned, self._blobs
        )
        self._oids = Oids(marks, membership.claims)
        self._peers = Peers(membership, self._commits, self._lookup, marks, standing, follows=others.is_live)
        self._connect(others)
        self._workshop = Workshop(
            self._lookup,
            self._commits,
            self._flusher,
            self._oids,
            clock,
            new_token,
            self.packed_upto,
            self._peers.publish,
            Dooms(membership.board, journal.filesystem, directory.doomed),
            self._blobs,
        )
        self._packing = Lock()  # held by the one pack, or copy, that runs
        self._closed = False
        if not options.read_only:
            self._flusher.start()

    def _connect(self, others: OtherProcesses) -> None:
        """Let each part follow what other processes do."""
        peers, commits = self._peers, self._commits
        others.peers = peers
        commits.writer.entered = peers.entered_writer
        commits.rescue = peers.rescue
        self._changing.entered, self._changing.left = peers.entered_home, peers.left_home
        self._flusher.catch_up = self._snapshots.catch_up = self._lookup.catch_up = peers.catch_up
        self._flusher.flushed_to = peers.flushed

    # --- facts ---

    @property
    def name(self) -> str:
        return self.directory.path

    @property
    def filesystem(self) -> Filesystem:
        return self.journal.filesystem

    @property
    def home(self) -> Home:
        return self._home

    @property
    def history_mode(self) -> History:
        return self.settings.history

    @property
    def read_only(self) -> bool:
        return self._options.read_only

    @property
    def in_use(self) -> bool:
        """Whether it is open for writing, here or in another process."""
        return not self.read_only or self._membership.has_writer

    def last_tid(self) -> Tid:
        self._peers.catch_up()
        return self._commits.durable

    def packed_upto(self) -> Tid:
        self._peers.catch_up()
        return Tid(self._marks.get(PACKED))

    def unreserved_oid(self) -> Oid:
        """The first oid that was never reserved: every object that is committed has a lower one."""
        self._marks.read()  # other processes reserve too
        return Oid(self._marks.get(OIDS))

    def statistics(self) -> Mapping[str, int | float | str]:
        counters = self._flusher.counters
        return {
            "history": self.settings.history.value,
            "format": self.settings.format.value,
            "identity": self.settings.identity,
            "last_tid": self._commits.durable.hex(),
            "flushed_tid": self._flusher.flushed.hex(),
            "packed_tid": self.packed_upto().hex(),
            "horizon_tid": self._snapshots.horizon().hex(),
            "snapshots": self._snapshots.count,
            "snapshots_expired": counters.snapshots_expired,
            "journal_transactions": self._lookup.index.count,
            "journal_bytes": self._lookup.index.bytes,
            "journal_waits": counters.waits,
            "journal_syncs": self._commits.syncs,
            "flush_batches": counters.batches,
            "flushed_transactions": counters.transactions,
            "flushed_revisions": counters.revisions,
            "superseded_revisions": counters.superseded,
            "flush_failures": counters.failures,
            **home_statistics(self._home),
        }

    # --- reading ---

    def view(self, at: Tid | None = None) -> View:
        self._require_open()
        if at is None or at >= self._commits.durable:
            return self._new_view(at)
        if self.history_mode is History.MINIMAL:
            raise HistoryMissingError("a Minimal store keeps no past; create it with history='full' for that")
        view = self._new_view(at)
        # Asked once the snapshot is in the table: a pack that begins now respects it.
        if at < self._being_packed():
            self._pass_over_dead_pack()
        bound = max(self.packed_upto(), self._being_packed())
        if at < bound:
            view.close()
            raise HistoryMissingError(f"history was packed to {tid_moment(bound).isoformat()}")
        return view

    def _being_packed(self) -> Tid:
        """How far a pack goes that runs in any process."""
        return tid_from(self._membership.board.words[PAST])

    def _pass_over_dead_pack(self) -> None:
        """If the pack that the board tells of has died, forget it: the mark `packed` tells what it had removed."""
        try:
            self._begin_exclusively()
        except UsageError:
            return
        try:
            self._marks.read()
            self._membership.board.words[PAST] = 0
        finally:
            self._end_exclusively()

    def _new_view(self, at: Tid | None) -> StoreView:
        return StoreView(self._lookup, self._commits, self._snapshots, at, self._membership)

    def revision(self, oid: Oid, tid: Tid) -> Revision:
        self._require_open()
        revision = None
        if tid <= self._commits.durable:
            # A walk from the newest on passes by what an interrupted pack has left; later there is no such thing.
            find = self._lookup.revision if tid > self.packed_upto() else self._lookup.load
            revision = find(oid, tid)
        if revision is None or revision.tid != tid:
            raise POSKeyError(oid, tid=tid)
        return revision

    def summaries(self, oid: Oid) -> Iterator[RevisionSummary]:
        self._require_open()
        some = False
        for summary in self._lookup.summaries(oid, self._commits.durable):
            some = True
            yield summary
        if not some:
            raise POSKeyError(oid)

    @property
    def blobs(self) -> Blobs:
        self._require_open()
        return self._blobs

    def transaction(self, tid: Tid) -> Transaction | None:
        self._require_open()
        return self._lookup.transaction(tid) if tid <= self._commits.durable else None

    def transactions(self, upto: Tid | None = None) -> Iterator[Transaction]:
        self._require_open()
        durable = self._commits.durable
        return self._lookup.transactions(durable if upto is None else min(upto, durable))

    # --- writing ---

    def new_oid(self) -> Oid:
        if self._closed or self._membership.is_forked or self._options.read_only:
            self._require_writable()
        try:
            return self._oids.new()
        except OSError as error:
            raise storage_error(self.directory.marks, error) from error

    def begin(self, details: Details, view: View, resolver: Resolver, *, any_serials: bool = False) -> Pending:
        self._require_able()
        if not isinstance(view, StoreView):
            raise UsageError("a transaction begins on a view of the same store")
        return Pending(self._workshop, details, view, resolver, any_serials=any_serials)

    def restore(self, tid: Tid, details: Details) -> Pending:
        self._require_able()
        if not NO_TID < tid < MAX_TID:
            raise UsageError(f"{tid.hex()} is no tid that a transaction can have")
        self._peers.catch_up()
        return Pending(self._workshop, details, None, restored=tid)

    def _require_able(self) -> None:
        """Raises what keeps transactions from being written."""
        self._require_writable()
        self._commits.require_sound()
        self._flusher.raise_failure()

    def flush(self) -> None:
        self._require_writable()
        self._flusher.raise_failure()
        self._flusher.flush()

    def _require_open(self) -> None:
        if self._membership.is_forked:
            raise ForkedConnectionError(f"the store {self.name}")
        if self._closed:
            raise ClosedError(f"the store {self.name}")

    def _require_writable(self) -> None:
        self._require_open()
        if self.read_only:
            raise ReadOnlyError(f"the store {self.name}")

    # --- packing ---

    def pack(
        self,
        upto: Tid,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        options: PackOptions | None = None,
    ) -> PackReport:
        self._require_writable()
        self._begin_exclusively()
        try:
            with self._changing.held():  # flushing for all goes on, but by this process
                return self._packer(self, upto, dry_run=dry_run, progress=progress, options=options)
        except OSError as error:
            raise storage_error(self.name, error) from error
        finally:
            self._membership.board.words[PAST] = 0
            self._commits.unwatch()
            self._end_exclusively()

    def _begin_exclusively(self) -> None:
        busy = UsageError(f"the store {self.name} is being packed or copied already; wait until that has ended")
        if not self._packing.acquire(blocking=False):
            raise busy
        if not self._membership.pack.acquire(blocking=False):
            self._packing.release()
            raise busy

    def _end_exclusively(self) -> None:
        self._membership.pack.release()
        self._packing.release()

    @contextlib.contextmanager
    def unpacked(self) -> Iterator[None]:
        """While inside, no pack begins. Raises UsageError where one runs."""
        self._require_open()
        self._begin_exclusively()
        try:
            yield
        finally:
            self._end_exclusively()

    def begin_pack(self, upto: Tid) -> Tid:
        self._commits.require_sound()
        self._commits.watch()
        # First the bound for new views, then the horizon of those that are there: no view slips between.
        bound, words = min(upto, self._flusher.flushed), self._membership.board.words
        words[PAST] = number(bound)
        bound = min(bound, self._snapshots.horizon())
        words[PAST] = number(bound)
        return bound

    def last_tids(self, count: int) -> list[Tid]:
        tids: list[Tid] = []
        for transaction in self.transactions():
            if len(tids) == count:
                break
            tids.append(transaction.tid)
        return tids

    def waiting(self) -> Iterator[RevisionSummary]:
        with self._flusher.paused():
            found = [
                self.journal.summary(waiting, at)
                for waiting in self._lookup.index.transactions()
                for at in range(len(waiting.offsets))
            ]
        return iter(found)

    def changed(self) -> bytes:
        self._commits.require_sound()
        return self._commits.watched()

    def committed(self, oid: Oid) -> Iterator[RevisionSummary]:
        return self._lookup.summaries(oid, MAX_TID)

    def load(self, oid: Oid, upto: Tid) -> Revision | None:
        return self._lookup.load(oid, upto)

    def blobs_there(self) -> Iterator[tuple[Oid, Tid, int]]:
        return self._blobs.there()

    def remove_blobs(self, blobs: Sequence[tuple[Oid, Tid]]) -> int:
        return self._blobs.remove(blobs)

    def writers_held(self) -> AbstractContextManager[object]:
        return self._commits.writer.held()

    @property
    def doomed(self) -> Callable[[Oid], bool] | None:
        return self._workshop.dooms.current

    def doom(self, is_doomed: Callable[[Oid], bool] | None) -> None:
        self._workshop.dooms.tell(is_doomed)

    def record_pack(self, upto: Tid) -> None:
        if upto != NO_TID:
            self._marks.advance(PACKED, upto)
            self._peers.changed_home()

    # --- the end ---

    def close(self) -> None:
        """Flush what waits (`flush_on_close`), stop the flusher and let go of the lock.

        What was committed is durable before. Raises what kept it from being flushed, after having closed.
        """
        if self._closed or self._membership.is_forked:
            return
        self._closed = True
        failure: ObjstoreError | None = None
        self._flusher.stop()
        try:
            if not self.read_only:
                if self._options.flush_on_close:
                    self._flush_unless_others_do()
                self.journal.trim()
        except StorageError as error:
            failure = error
        finally:
            self._home.close()
            self._membership.close()
        if failure is not None:
            raise failure

    def _flush_unless_others_do(self) -> None:
        """Who packs, or flushes, flushes for all: closing does not wait for that."""
        with self._changing.held(blocking=False) as is_ours:
            if is_ours:
                self._flusher.flush()

    @property
    def flushed(self) -> Tid:
        """The home holds every transaction up to this one."""
        return Tid(self._marks.get(FLUSHED))
