"""Moving transactions from one store to another, as they are.

Oids, tids, records, blobs, deletions, what an undo brought back, user, description and extension are the same in
the target. Nothing is unpickled, so what Python 2 has written is moved as well. In this order: 1. the target is
empty, or what it has last is in the source too: else the move is refused; 2. transactions after that are committed
to the target one by one, in the order of their tids; 3. that is repeated for what came to the source meanwhile,
until nothing does; 4. if asked for, both are compared.

A move that was interrupted goes on where it stood when it is begun anew: each transaction is in the target
whole, or not at all, and none is there without those before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from objstore.compat.adopted.datafile import Unread
from objstore.compat.adopted.pending import AdoptedRestoration
from objstore.compat.moving.blobs import BlobMover, is_blob
from objstore.compat.moving.committing import Committer
from objstore.compat.moving.places import AnyStore
from objstore.compat.moving.sources import MovedRecord, MovedTransaction, source_of
from objstore.compat.moving.verifying import Difference, Verification
from objstore.contracts import History, Progress
from objstore.engine.pending import Pending
from objstore.errors import CorruptionError, SerializationError, UsageError
from objstore.ids import NO_TID, Tid

STEP = 100
"""After so many transactions progress is told."""
ROUNDS = 10
"""How often what came meanwhile is fetched: a source that is written to faster than it is read never ends."""


@dataclass(frozen=True, slots=True)
class MoveReport:
    """What a move did. `after` is the newest transaction that was in the target before."""

    source: str
    target: str
    after: Tid
    upto: Tid
    """The newest transaction of the source that the target has now."""
    transactions: int
    revisions: int
    bytes: int
    """Of the records."""
    blobs: int
    blob_bytes: int
    missing_blobs: int
    """Blobs that the source has lost. Their records were moved."""
    empty: int
    """Transactions of the source without any record, which are left out."""
    verified: int | None
    """How many revisions were compared; None where that was not asked for."""
    seconds: float
    differences: list[Difference] = field(default_factory=list)
    """The first that were found, none where source and target are the same."""
    unread: Unread | None = None
    """What could not be read of the source's file, behind all that was moved."""


class Mover:
    """One move, from a store to another, both opened and closed by the caller."""

    def __init__(
        self,
        source: AnyStore,
        target: AnyStore,
        *,
        current: bool = False,
        since: Tid | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`current` leaves out what is superseded, as it is where the target keeps no history.

        `since` is the newest transaction of the target: giving it does without looking for it in the source, which
        may have packed it away. Nor is it a difference then that the target has more, up to there.
        """
        self._from = source
        self._source = source_of(source)
        self._written = source_of(target)
        self._target = target
        self._blobs = BlobMover(source, target)
        self._current = current or target.history_mode is History.MINIMAL
        self._since = since
        self._progress = progress or _silent
        self._transactions = self._revisions = self._bytes = self._empty = 0
        self.moved_upto = NO_TID
        """The newest transaction that this move has committed."""

    @property
    def transactions(self) -> int:
        """How many transactions this move has committed."""
        return self._transactions

    def run(self, *, verify: bool = False) -> MoveReport:
        """Move. Raises UsageError where the target has something else, and what reading and writing raise.

        What was moved until then stays in the target.
        """
        start = perf_counter()
        if self._source.name == self._written.name:
            raise UsageError(f"{self._source.name} cannot be moved into itself")
        packed_before = self._from.packed_upto()
        after = done = self._where_to_begin()
        self._blobs.require_able()
        for _ in range(ROUNDS):
            upto = self._source.last_tid()
            if upto <= done:
                break
            self._move(done, upto)
            done = upto
        compared, differences = None, []
        if verify:
            packed = partial(self._packed_away, packed_before)
            verification = Verification(self._source, self._written, done, self._progress, packed)
            differences = verification.current() if self._current else verification.history()
            compared = verification.compared
        return MoveReport(
            source=self._source.name,
            target=self._written.name,
            after=after,
            upto=done,
            transactions=self._transactions,
            revisions=self._revisions,
            bytes=self._bytes,
            blobs=self._blobs.moved,
            blob_bytes=self._blobs.bytes,
            missing_blobs=self._blobs.missing,
            empty=self._empty,
            verified=compared,
            seconds=perf_counter() - start,
            differences=differences,
            unread=self._source.unread(),
        )

    def _packed_away(self, before: Tid) -> Tid:
        """Up to where the source may lack what was moved, because it was packed.

        That was before `since`, or else during the move, at whose beginning it was packed up to `before`.
        """
        packed = self._from.packed_upto()
        return max(self._since or NO_TID, packed if packed != before else NO_TID)

    def _where_to_begin(self) -> Tid:
        """The newest transaction that both have. Raises UsageError."""
        last = self._target.last_tid()
        if self._since is not None and self._since != last:
            raise UsageError(
                f"{self._written.name} ends at {last.hex()}, not at {self._since.hex()}: what was committed "
                "between would be missing, or be there twice; leave --since out to continue where it ends"
            )
        if last != NO_TID and self._since is None and not self._source.has(last):
            raise UsageError(
                f"{self._written.name} is not empty, and ends with transaction {last.hex()}, which "
                f"{self._source.name} has not: it is no earlier state of it. Name an empty place; or, if it is "
                f"one and the source was packed since, say --since {last.hex()}"
            )
        return last

    def _move(self, after: Tid, upto: Tid) -> None:
        moving = self._source.current if self._current else self._source.transactions
        with Committer(self._target) as committer:
            for moved in moving(after, upto):
                self._commit(moved, committer)
                if self._transactions % STEP == 0:
                    self._progress("moving transactions", self._transactions, None)

    def _commit(self, moved: MovedTransaction, committer: Committer) -> None:
        pending = self._target.restore(moved.tid, moved.details)
        count = 0
        voted = False
        try:
            for record in moved.records:
                self._store(pending, moved.tid, record)
                count += 1
                self._bytes += len(record.data or b"")
            if not count:
                self._empty += 1
                return
            pending.vote()
            voted = True
        finally:
            if not voted:
                pending.abort()
        committer.finish(pending)
        self.moved_upto = moved.tid
        self._transactions += 1
        self._revisions += count

    def _store(self, pending: Pending | AdoptedRestoration, tid: Tid, record: MovedRecord) -> None:
        """Write a record, and its blob where there is one. Raises CorruptionError where it makes no sense."""
        try:
            self._store_whole(pending, tid, record)
        except SerializationError as error:
            reason = f"the record cannot be followed: {error}"
            raise CorruptionError(self._source.name, reason, oid=record.oid, tid=tid) from error

    def _store_whole(self, pending: Pending | AdoptedRestoration, tid: Tid, record: MovedRecord) -> None:
        oid, data, references = record.oid, record.data, record.references
        copy = self._blobs.copied(oid, tid) if is_blob(data) else None
        if data is None or copy is None:
            pending.store(oid, NO_TID, data, references, record.copied_from)
            return
        files, path = copy
        try:
            pending.store_blob(oid, NO_TID, data, references, path, record.copied_from)
        except BaseException:
            files.discard(path)
            raise


def _silent(phase: str, done: int, total: int | None) -> None:
    """Tell nobody."""
