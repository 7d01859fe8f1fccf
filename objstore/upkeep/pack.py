"""Packing: drop the revisions that were superseded by a time, and the objects that nothing leads to.

It goes on while others read and commit, in this order:

1. everything is flushed, and `limit` is fixed: from here on no reader has a snapshot before it;
2. *read*: the headers of all objects are read, so an unreadable one stops the pack while nothing is gone;
3. *mark*: what can be reached is marked, from the roots, over the references of all kept revisions. Kept
   are an object's newest revision with a tid <= `limit`, those after it, and those of the two newest
   transactions, which replication must find. Roots are oid 0, and whatever has a revision after `limit`,
   in one of these two transactions, or in the journal;
4. *publish*: with writers held for a moment, what was committed since is marked, and all that is still not
   marked is doomed: a commit that mentions it is refused from here on;
5. in Full, the details of transactions up to `limit` are read: those of which no revision stays are to go;
6. the time is recorded, and only now things are removed: revisions and objects, bucket by bucket, then
   details.

Nothing that somebody may reach is lost. Let a live object's kept revision refer to X when step 4 ends. It
was committed before its object was last visited, and the visit saw it, or after that; then its transaction
is among those that `PackTarget.changed` told of, and the object was visited again: under the writer lock
no transaction is left that it has not told of. So X is marked. A revision committed later does not mention
what is doomed, and nothing else goes.

A crash, or an error, before 6 leaves everything as it was. In 6 it leaves less of what was to go, and the
next pack finds the rest: whatever is doomed is unreachable then as well.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter

from objstore.contracts import History, PackReport, PackTarget, Progress, Removal
from objstore.errors import CorruptionError, SerializationError, StorageError
from objstore.formats import pickles, records
from objstore.ids import NO_TID, ROOT, Oid, Tid, number, oid_from, oid_numbers, tid_from
from objstore.revisions import RevisionSummary
from objstore.upkeep.reachable import CHUNK_BITS, Marker, OidSet
from objstore.upkeep.tidset import TidSet

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
PROTECTED = 2
"""How many of the newest transactions are kept whole, whatever the time packed to."""


@dataclass(frozen=True, slots=True)
class PackLimits:
    """How much a pack does at a time, which bounds the memory it takes and the time for which writers wait.

    `step` objects between two calls of the progress function; `batch` objects and revisions to remove at a
    time, but for the revisions of one object; details of `details` transactions; `moment` objects to visit
    while writers are held, and `patience` tries to get by with that.
    """

    step: int = 1_000
    batch: int = 250_000
    details: int = 100_000
    moment: int = 1_000
    patience: int = 20


DEFAULT_LIMITS = PackLimits()


def pack(
    target: PackTarget,
    upto: Tid,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    limits: PackLimits = DEFAULT_LIMITS,
) -> PackReport:
    """Pack a store to `upto`, or as far as live snapshots allow. A `contracts.Packer`.

    In a dry run `bytes_freed` is the size of the records: what the disk would give back depends on the
    format. Raises CorruptionError where something cannot be read, and then has removed nothing; StorageError
    where something cannot be removed; OSError where there is no room. The next pack completes what an error
    interrupts.
    """
    return _Pack(target, upto, dry_run, progress or _silent, limits).run()


def _silent(phase: str, done: int, total: int | None) -> None:
    """Tell nobody."""


class Doomed:
    """The objects that packs have removed, or are removing: what `PackTarget.doom` is given."""

    def __init__(self, oids: OidSet) -> None:
        self.oids = oids

    def __call__(self, oid: Oid) -> bool:
        return number(oid) in self.oids


@dataclass(slots=True)
class _Counts:
    """What was removed."""

    objects: int = 0
    revisions: int = 0
    transactions: int = 0
    freed: int = 0


class _Pack:
    """One run."""

    def __init__(
        self, target: PackTarget, upto: Tid, dry_run: bool, progress: Progress, limits: PackLimits
    ) -> None:
        self._target = target
        self._home = target.home
        self._full = target.home.history is History.FULL
        self._upto = upto
        self._limit = NO_TID
        self._protected: frozenset[Tid] = frozenset()
        self._dry_run = dry_run
        self._progress = progress
        self._limits = limits
        self._seen = OidSet()  # what the home has anything of
        self._superseded = OidSet()  # what has revisions that nobody may need
        self._marker = Marker(self._references)
        self._needed = TidSet()  # transactions up to the limit of which a revision stays
        self._counts = _Counts()

    def run(self) -> PackReport:
        start = perf_counter()
        target, counts = self._target, self._counts
        target.flush()
        self._limit = target.begin_pack(self._upto)
        self._protected = frozenset(target.last_tids(PROTECTED))
        waiting = array("Q", (number(summary.oid) for summary in target.waiting()))
        self._read()
        for at in waiting:
            self._marker.add(at)
        self._marker.add(number(ROOT))
        self._mark()
        doomed, transactions = self._decide()
        try:
            self._remove(doomed, transactions)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            raise StorageError(
                f"{error.filename or target.name}: {error.strerror or error}; the pack has stopped here. Nothing "
                "is lost that anything refers to; remove the cause and pack again"
            ) from error
        return PackReport(
            upto=self._limit,
            dry_run=self._dry_run,
            objects_removed=counts.objects,
            revisions_removed=counts.revisions,
            transactions_removed=counts.transactions,
            bytes_freed=counts.freed,
            objects_kept=len(self._seen) - len(doomed),
            seconds=perf_counter() - start,
        )

    # --- reading ---

    def _divided(
        self, summaries: Iterable[RevisionSummary]
    ) -> tuple[list[RevisionSummary], list[RevisionSummary]]:
        """The revisions of an object (given newest first) that are kept, and the others."""
        limit, protected = self._limit, self._protected
        kept, dropped = [], []
        settled = False
        for summary in summaries:
            tid = summary.tid
            if tid > limit:
                kept.append(summary)
            elif not settled:
                settled = True
                kept.append(summary)
            elif tid in protected:
                kept.append(summary)
            else:
                dropped.append(summary)
        return kept, dropped

    def _read(self) -> None:
        """Read the headers of all that the home has, and find the roots there."""
        home, limit, protected = self._home, self._limit, self._protected
        for done, oid in enumerate(home.oids()):
            if done % self._limits.step == 0:
                self._progress("reading", done, None)
            at = number(oid)
            self._seen.add(at)
            kept, dropped = self._divided(home.summaries(oid))
            if dropped and self._full:
                self._superseded.add(at)
            # The newest one tells: transactions after the limit, and the protected ones, are the newest.
            if kept and (kept[0].tid > limit or kept[0].tid in protected):
                self._marker.add(at)
        self._progress("reading", len(self._seen), len(self._seen))

    def _mark(self) -> None:
        marker = self._marker
        while not marker.run(self._limits.step):
            self._progress("marking", marker.visits, None)
        self._progress("marking", marker.visits, None)

    def _references(self, at: int) -> bytes:
        """The references of an object's kept revisions, wherever they stand at this moment."""
        found = []
        for summary in self._divided(self._target.committed(oid_from(at)))[0]:
            if summary.tid <= self._limit:
                self._needed.add(number(summary.tid))
            if summary.references:
                found.append(summary.references)
            elif summary.references is None and not summary.deleted:
                found.append(self._extracted(summary))
        return found[0] if len(found) == 1 else b"".join(found)

    def _extracted(self, summary: RevisionSummary) -> bytes:
        """The references of a record whose header does not tell them."""
        oid, tid = summary.oid, summary.tid
        revision = self._target.load(oid, tid)
        if revision is None or revision.data is None or revision.tid != tid:
            if any(found.tid == tid for found in self._target.committed(oid)):
                raise CorruptionError(self._target.name, "a revision is gone", oid=oid, tid=tid)
            return b""  # a flush has just replaced it, in Minimal; what replaced it waited in the journal
        try:
            return pickles.references(revision.data)
        except SerializationError as error:
            raise CorruptionError(self._target.name, str(error), oid=oid, tid=tid) from error

    # --- publishing ---

    def _decide(self) -> tuple[OidSet, array[int]]:
        """Settle which objects and which transactions go, and record that. On an error none is doomed."""
        before = self._target.doomed
        try:
            doomed = self._publish()
            transactions = self._transactions_to_go() if self._full else array("Q")
            if not self._dry_run:
                self._target.record_pack(self._limit)
        except BaseException:
            if not self._dry_run:
                self._target.doom(before)
            raise
        return doomed, transactions

    def _publish(self) -> OidSet:
        """Doom what cannot be reached, at a moment when nobody commits; which objects these are."""
        target, marker = self._target, self._marker
        patience = self._limits.patience
        while True:
            self._revisit(target.changed())
            self._mark()
            if self._dry_run:
                return self._seen - marker.live
            with target.writers_held():
                self._revisit(target.changed())
                if marker.run(self._limits.moment if patience > 0 else None):
                    doomed = self._seen - marker.live
                    earlier = target.doomed
                    before = earlier.oids if isinstance(earlier, Doomed) else OidSet()
                    target.doom(Doomed((before | doomed) - marker.live))
                    return doomed
            patience -= 1

    def _revisit(self, changed: bytes) -> None:
        for at in oid_numbers(changed):
            self._marker.revisit(at)

    def _transactions_to_go(self) -> array[int]:
        gone = array("Q")
        needed = self._needed.descending()
        next_needed = next(needed, None)
        for done, transaction in enumerate(self._home.transactions(self._limit)):
            if done % self._limits.step == 0:
                self._progress("reading transactions", done, None)
            tid = number(transaction.tid)
            while next_needed is not None and next_needed > tid:
                next_needed = next(needed, None)
            if tid != next_needed and transaction.tid not in self._protected:
                gone.append(tid)
        return gone

    # --- removing ---

    def _remove(self, doomed: OidSet, transactions: array[int]) -> None:
        counts = self._counts
        total = len(doomed | self._superseded)
        done = 0
        for batch in self._batches(doomed):
            self._progress("removing", done, total)
            if not self._dry_run:
                counts.freed += self._home.remove(batch)
            done += len(batch)
        self._progress("removing", total, total)
        if self._full:
            self._remove_transactions(transactions)

    def _remove_transactions(self, transactions: array[int]) -> None:
        counts = self._counts
        for at in range(0, len(transactions), self._limits.details):
            self._progress("removing transactions", at, len(transactions))
            if not self._dry_run:
                tids = [tid_from(tid) for tid in transactions[at : at + self._limits.details]]
                counts.freed += self._home.remove_transactions(tids)
        counts.transactions = len(transactions)
        self._progress("removing transactions", len(transactions), len(transactions))

    def _batches(self, doomed: OidSet) -> Iterator[list[Removal]]:
        """What goes, in the order of oids; where a batch is full enough it ends with a bucket."""
        batch: list[Removal] = []
        size = 0
        bucket = -1
        for at in doomed | self._superseded:
            if size >= self._limits.batch or (at >> CHUNK_BITS != bucket and size >= self._limits.batch // 4):
                yield batch
                batch, size = [], 0
            bucket = at >> CHUNK_BITS
            removal = self._removal(at, whole=at in doomed)
            if removal is not None:
                batch.append(removal)
                size += 1 + len(removal.tids)
        if batch:
            yield batch

    def _removal(self, at: int, *, whole: bool) -> Removal | None:
        oid = oid_from(at)
        kept, dropped = self._divided(self._home.summaries(oid))
        if whole:
            dropped += kept
        elif not dropped:  # a home that drops by itself what is superseded was faster
            return None
        counts = self._counts
        counts.objects += whole
        counts.revisions += len(dropped)
        if self._dry_run:
            counts.freed += sum(map(_record_size, dropped))
        return Removal(oid, () if whole else tuple(summary.tid for summary in reversed(dropped)), whole)


def _record_size(summary: RevisionSummary) -> int:
    """Bytes of a revision's record."""
    copied = 8 if summary.copied_from is not None else 0
    return records.HEADER_SIZE + copied + len(summary.references or b"") + summary.size
