"""The flusher: moves transactions from the journal to the home, in batches, behind everybody's back.

A batch: 1. choose transactions, oldest first, that are durable (in Minimal, where the home holds one revision
of an object: that no snapshot is older than); 2. rename their blobs to where these stay, and sync both
directories; read the transactions, verified; in Minimal drop what a later one of the batch supersedes; 3.
write them into the home, which syncs all it touched; 4. advance the mark `flushed`, and tell other processes;
5. forget them in the journal's index; 6. recycle their directories, and in Minimal remove blobs that were
superseded. A crash before 4 leaves transactions to flush again, which changes nothing; after 4 directories
that recovery lets go of.

An error leaves everything in the journal, where it is safe. It is kept, and raised to the next who commits;
then the flusher tries again. Where the disk was full, that caller first looks whether it still is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from threading import Condition, Lock, Thread

from objstore.contracts import History, StoreOptions
from objstore.engine.blobs import BlobRevision, Blobs
from objstore.engine.commits import Commits
from objstore.engine.failures import storage_error
from objstore.engine.journal import Waiting
from objstore.engine.lookup import Lookup
from objstore.engine.marks import FLUSHED, Marks
from objstore.engine.membership import Counted
from objstore.engine.pinned import Pinned
from objstore.engine.snapshots import Snapshots
from objstore.errors import StorageError, StorageFullError
from objstore.ids import NO_TID, Oid, Tid
from objstore.revisions import Revision, Transaction

_LOOK = 0.1
"""Seconds between looks of who waits for room at what other processes have flushed."""
_SAFE = "what was committed before is safe"


class FlushCounters:
    """What the flusher has done since the store was opened."""

    def __init__(self) -> None:
        self.batches = 0
        self.transactions = 0
        self.revisions = 0
        self.superseded = 0
        """Revisions that never reached the home, because a later one of their batch replaced them."""
        self.waits = 0
        """Commits that waited for room in the journal."""
        self.failures = 0
        self.snapshots_expired = 0


class Flusher:
    """Flushes a store, in a thread of its own (`options.background`) and whenever `flush` is called."""

    def __init__(
        self,
        lookup: Lookup,
        commits: Commits,
        snapshots: Snapshots,
        marks: Marks,
        options: StoreOptions,
        changing: Counted,
        pinned: Pinned,
        blobs: Blobs,
    ) -> None:
        """`changing` is held while the home is changed, and keeps the flushers of other processes away."""
        self._changing = changing
        self._blobs = blobs
        self.catch_up: Callable[[], None] = lambda: None
        """Takes over what other processes have committed and flushed."""
        self.flushed_to: Callable[[Tid], None] = lambda _tid: None
        """Tells other processes."""
        self.counters = FlushCounters()
        self._lookup = lookup
        self._commits = commits
        self._snapshots = snapshots
        self._marks = marks
        self._options = options
        self._full = lookup.home.history is History.FULL
        self._held_back = not lookup.home.keeps_superseded  # what snapshots need must wait in the journal
        self._is_pinned = not self._full and not self._held_back  # or it stays in the home
        self._pinned = pinned
        self._lock = Lock()  # rank 2: one flush at a time; held, nothing moves out of the journal
        self._wake = Condition(Lock())  # a leaf: guards the fields below
        self._stopping = False
        self._callers = 0  # who wants the lock besides the thread, which lets them go first
        self._error: StorageError | None = None
        self._thread: Thread | None = None

    @property
    def flushed(self) -> Tid:
        """The home holds every transaction up to this one."""
        return Tid(self._marks.get(FLUSHED))

    # --- the thread ---

    def start(self) -> None:
        if self._options.background:
            self._thread = Thread(target=self._run, name="objstore-flusher", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; what waits stays in the journal."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            aged = False
            with self._wake:
                if not self._stopping and (self._callers or not self._is_urgent()):
                    aged = not self._wake.wait(self._options.flush_age)
                if self._stopping:
                    return
                if self._callers:
                    continue
            try:
                with self._lock, self._changing.held(blocking=False) as is_ours:
                    if is_ours:  # else another process does it
                        self._flush(everything=aged)
                if not is_ours:
                    with self._wake:
                        self._wake.wait(_LOOK)
                    self.catch_up()
            except StorageError as error:
                self._keep(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait for the flusher must hear it
                self._keep(StorageError(f"{self._lookup.journal.path}: the flusher failed: {error!r}"))

    def _keep(self, error: StorageError) -> None:
        """Keep an error for the next caller, and rest before the next try."""
        with self._wake:
            self._error = error
            self._wake.notify_all()
            if not self._stopping:
                self._wake.wait(self._options.flush_age)

    def _is_urgent(self) -> bool:
        index, options = self._lookup.index, self._options
        volume = index.bytes >= min(options.flush_bytes, options.journal_limit)
        return (volume or index.count >= options.flush_transactions) and self._bound() > self.flushed

    def notify(self) -> None:
        """A transaction was committed: wake the thread if enough waits."""
        if self._thread is not None and self._is_urgent():
            with self._wake:
                self._wake.notify_all()

    def raise_failure(self) -> None:
        """Raise, once, what the flusher met since the last call.

        A disk that was full may have room by now, so then flushing is tried again, and its error counts.
        """
        if self._error is not None:
            with self._wake:
                error, self._error = self._error, None
            if isinstance(error, StorageFullError):
                self.flush()
            elif error is not None:
                raise error

    def wait_for_room(self) -> None:
        """Return once the journal may take another transaction. Raises what keeps it from being flushed.

        What snapshots hold back does not make anybody wait: past `pin_limit` they lose it.
        """
        index = self._lookup.index
        if index.bytes <= self._options.journal_limit:
            return
        if self._held_back and index.bytes > self._options.pin_limit:
            self.counters.snapshots_expired += self._snapshots.expire(self._newest_kept())
        if self._flushable() <= self._options.journal_limit:
            return
        self.counters.waits += 1
        if self._thread is None:
            self.flush()
            return
        with self._wake:
            self._wake.notify_all()
            while not self._stopping and self._flushable() > self._options.journal_limit:
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                self._wake.wait(_LOOK)
                self.catch_up()

    def _flushable(self) -> int:
        """Bytes that wait and that no snapshot holds back."""
        bound = self._bound()
        index = self._lookup.index
        return index.bytes if bound >= self._commits.durable else index.bytes_upto(bound)

    def _newest_kept(self) -> Tid:
        """The tid that snapshots must reach for half of `pin_limit` to stay in the journal."""
        kept = 0
        for waiting in reversed(self._lookup.index.transactions()):
            kept += waiting.size
            if kept > self._options.pin_limit // 2:
                return min(waiting.tid, self._commits.durable)
        return NO_TID

    # --- flushing ---

    def _bound(self) -> Tid:
        return self._snapshots.horizon() if self._held_back else self._commits.durable

    def flush(self) -> None:
        """Flush everything that may be flushed now. Raises StorageError; what was not flushed waits."""
        with self.paused():
            self._flush()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While inside, nothing moves out of the journal."""
        with self._wake:
            self._callers += 1
        try:
            with self._lock, self._changing.held():
                yield
        finally:
            with self._wake:
                self._callers -= 1
                self._wake.notify_all()

    def _flush(self, *, everything: bool = True) -> None:
        """Flush what may be flushed; if not `everything`, for as long as so much waits that it is urgent.

        What came in while a batch was written is little: flushed at once it would make small segments, all to
        be merged.
        """
        self.catch_up()
        horizon = self._expired_to(self._snapshots.horizon())
        self._commits.forget(horizon)
        bound = self._bound()
        try:
            while batch := self._choose(bound):
                self._flush_batch(batch, horizon)
                with self._wake:
                    self._wake.notify_all()
                if not everything and not self._is_urgent():
                    break
        except OSError as error:
            self.counters.failures += 1
            raise storage_error(self._lookup.journal.path, error, _SAFE) from error
        except StorageError:
            self.counters.failures += 1
            raise

    def _expired_to(self, horizon: Tid) -> Tid:
        """The horizon once those have lost their snapshots who keep too much of the home from being merged."""
        if not self._is_pinned:
            return horizon
        self._pinned.met(self.flushed)
        bound = self._pinned.too_old(horizon)
        if bound is None:
            return horizon
        self.counters.snapshots_expired += self._snapshots.expire(bound)
        return self._snapshots.horizon()

    def _choose(self, bound: Tid) -> list[Waiting]:
        batch: list[Waiting] = []
        volume = 0
        for waiting in self._lookup.index.transactions():
            if waiting.tid > bound or len(batch) == self._options.flush_transactions:
                break
            if batch and volume + waiting.size > self._options.flush_bytes:
                break
            batch.append(waiting)
            volume += waiting.size
        return batch

    def _flush_batch(self, batch: list[Waiting], horizon: Tid) -> None:
        newest = self._newest(batch, horizon)
        with_blobs = [waiting for waiting in batch if waiting.blobs]
        self._blobs.keep(
            (waiting, [oid for oid in waiting.blobs if newest.get(oid, NO_TID) <= waiting.tid])
            for waiting in with_blobs
        )
        outdated = [] if self._full else [each for waiting in with_blobs for each in self._outdated(waiting)]
        self._lookup.home.apply(self._surviving(batch, newest))
        self._marks.advance(FLUSHED, batch[-1].tid)
        self.flushed_to(batch[-1].tid)
        self._pinned.add(batch[-1].tid, sum(waiting.size for waiting in batch))
        self._lookup.index.remove_upto(batch[-1].tid)
        self.counters.batches += 1
        self.counters.transactions += len(batch)
        for waiting in batch:
            # Failing to recycle loses nothing: opening lets go of what the mark says is flushed.
            with contextlib.suppress(OSError):
                self._lookup.journal.recycle(waiting)
        self._blobs.drop(outdated, horizon)
        self._lookup.home.maintain(horizon)

    def _newest(self, batch: list[Waiting], horizon: Tid) -> dict[Oid, Tid]:
        """Minimal: which transaction of a batch supersedes, for everybody, what earlier ones wrote of objects."""
        if self._full:
            return {}
        seen = (waiting for waiting in batch if waiting.tid <= horizon)
        return {oid: waiting.tid for waiting in seen for oid in waiting.transaction.oids}

    def _outdated(self, waiting: Waiting) -> Iterator[BlobRevision]:
        """The blobs that those of a transaction supersede."""
        oids = waiting.transaction.oids
        for at in (at for at, oid in enumerate(oids) if oid in waiting.blobs):
            yield BlobRevision(oids[at], self._lookup.journal.summary(waiting, at).previous, waiting.tid)

    def _surviving(
        self, batch: list[Waiting], newest: dict[Oid, Tid]
    ) -> Iterator[tuple[Transaction, Sequence[Revision]]]:
        """The transactions of a batch, in Minimal without what a later one of it supersedes for everybody."""
        for waiting in batch:
            tid, oids = waiting.tid, waiting.transaction.oids
            survivors: Sequence[int] = range(len(oids))
            if not self._full:
                survivors = [at for at, oid in enumerate(oids) if newest.get(oid, NO_TID) <= tid]
                self.counters.superseded += len(oids) - len(survivors)
            self.counters.revisions += len(survivors)
            if not survivors:  # nothing of it is wanted, so it is not even read
                yield waiting.transaction, ()
                continue
            run = self._lookup.journal.records(waiting)
            yield waiting.transaction, run if len(survivors) == len(oids) else run.chosen(survivors)
