"""Packing: drop the revisions that were superseded by a time, and the objects that nothing leads to.

It goes on while others read and commit, in this order:

1. everything is flushed, and `limit` is fixed: from here on no reader has a snapshot before it;
2. *read*: the headers of all objects are read, so an unreadable one stops the pack while nothing is gone; in
   the segmented format those of all kept revisions, with what they refer to;
3. *mark*: what can be reached is marked, from the roots, over the references of all kept revisions. Kept
   are an object's newest revision with a tid <= `limit`, those after it, and those of the two newest
   transactions (`PackOptions.protect` of them), which replication must find. Roots are oid 0, and whatever
   has a revision after `limit`, in one of these two transactions, or in the journal; all that was not
   deleted, where garbage is not collected;
4. *publish*: with writers held for a moment, what was committed since is marked, and all that is still not
   marked is doomed: a commit that mentions it is refused from here on;
5. in Full, the details of transactions up to `limit` are read: those of which no revision stays are to go;
   and the disk must have room for what removing writes before it removes;
6. the time is recorded, and only now things are removed: revisions and objects, bucket by bucket, then
   blobs of which no revision is there, then details.

Nothing that somebody may reach is lost. Let a live object's kept revision refer to X when step 4 ends. It
was committed before its object was last visited, and the visit saw it, or after that; then its transaction
is among those that `PackTarget.changed` told of, and the object was visited again: under the writer lock
no transaction is left that it has not told of. So X is marked. A revision committed later does not mention
what is doomed, and nothing else goes.

What is doomed stays so until the store is closed, also if a later pack marks it. That one may be to an earlier
time, and keep superseded revisions that are still there: what they refer to may be gone.

A crash, or an error, before 6 leaves everything as it was. In 6 it leaves less of what was to go, and the
next pack finds the rest: whatever is doomed is unreachable then as well.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterable, Iterator
from time import perf_counter

from objstore.contracts import History, PackOptions, PackReport, PackTarget, Progress
from objstore.engine.segmented import SegmentedHome
from objstore.errors import CorruptionError, SerializationError, StorageError
from objstore.formats import pickles
from objstore.ids import ROOT, Oid, Tid, number, oid_from, oid_numbers, tid_from
from objstore.revisions import RevisionSummary
from objstore.upkeep.blobs import remove_blobs
from objstore.upkeep.bybucket import ByBucket
from objstore.upkeep.byobject import ByObject, divided
from objstore.upkeep.packing import Counts, Ground, Job, PackLimits
from objstore.upkeep.reachable import OidSet

__all__ = ["DEFAULT_LIMITS", "PROTECTED", "Doomed", "PackLimits", "pack"]

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
PROTECTED = PackOptions().protect
"""How many of the newest transactions are kept whole, whatever the time packed to, where nothing else is said."""
DEFAULT_LIMITS = PackLimits()


def pack(
    target: PackTarget,
    upto: Tid,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    options: PackOptions | None = None,
    limits: PackLimits = DEFAULT_LIMITS,
) -> PackReport:
    """Pack a store to `upto`, or as far as live snapshots allow. A `contracts.Packer`.

    In a dry run `bytes_freed` is the size of the records: what the disk would give back depends on the format.
    Raises CorruptionError where something cannot be read, and StorageFullError where the disk has no room for
    the largest segment that is to be written anew, and then has removed nothing; StorageError where something
    cannot be removed; OSError where room runs out. The next pack completes what an error interrupts.
    """
    return _Pack(target, upto, dry_run, progress or _silent, limits, options or PackOptions()).run()


def _no_references(data: bytes) -> bytes:  # noqa: ARG001 - as `pickles.references`
    return b""


def _silent(phase: str, done: int, total: int | None) -> None:
    """Tell nobody."""


class Doomed:
    """The objects that packs have removed, or are removing: what `PackTarget.doom` is given."""

    def __init__(self, oids: OidSet) -> None:
        self.oids = oids

    def __call__(self, oid: Oid) -> bool:
        return number(oid) in self.oids

    def __iter__(self) -> Iterator[int]:
        return iter(self.oids)


class _Pack:
    """One run."""

    def __init__(
        self,
        target: PackTarget,
        upto: Tid,
        dry_run: bool,
        progress: Progress,
        limits: PackLimits,
        options: PackOptions,
    ) -> None:
        self._start = perf_counter()
        self._target = target
        target.flush()
        limit = target.begin_pack(upto)
        protected = frozenset(target.last_tids(options.protect))
        extracted = options.references or pickles.references
        if not options.collect:  # what anything refers to does not count
            extracted = _no_references
        full = target.home.history is History.FULL
        self._job = Job(target, limit, protected, full, dry_run, limits, progress, Counts(), extracted)
        self._collects = options.collect
        home = target.home
        self._ground: Ground
        if isinstance(home, SegmentedHome):
            self._ground = ByBucket(self._job, home, self._references_now)
        else:
            self._ground = ByObject(self._job, self._references)
        self._marker = self._ground.marker

    def run(self) -> PackReport:
        job, counts = self._job, self._job.counts
        waiting = array("Q", (number(summary.oid) for summary in job.target.waiting()))
        self._ground.read()
        for at in waiting:
            self._marker.revisit(at)
        self._marker.add(number(ROOT))
        if not self._collects:
            self._keep_all()
        self._mark()
        doomed, transactions = self._decide()
        try:
            self._ground.remove(doomed)
            remove_blobs(job, doomed)
            if job.full:
                self._remove_transactions(transactions)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            raise StorageError(
                f"{error.filename or job.target.name}: {error.strerror or error}; the pack has stopped here. "
                "Nothing is lost that anything refers to; remove the cause and pack again"
            ) from error
        return PackReport(
            upto=job.limit,
            dry_run=job.dry_run,
            objects_removed=counts.objects,
            revisions_removed=counts.revisions,
            transactions_removed=counts.transactions,
            bytes_freed=counts.freed,
            objects_kept=len(self._ground.seen) - len(doomed),
            seconds=perf_counter() - self._start,
            blobs_removed=counts.blobs,
        )

    # --- marking ---

    def _keep_all(self) -> None:
        """Make a root of each object, but of those that were deleted by the limit."""
        job = self._job
        for done, at in enumerate(self._ground.seen):
            if done % job.limits.step == 0:
                job.progress("keeping", done, len(self._ground.seen))
            newest = next(iter(job.target.committed(oid_from(at))), None)
            if newest is None or not newest.deleted or newest.tid > job.limit or newest.tid in job.protected:
                self._marker.add(at)

    def _mark(self) -> None:
        marker, progress = self._marker, self._job.progress
        while not marker.run(self._job.limits.step):
            progress("marking", marker.visits, None)
        progress("marking", marker.visits, None)

    def _references_now(self, at: int) -> bytes:
        """The references of an object's kept revisions, wherever they stand at this moment."""
        job = self._job
        return self._references(divided(job.target.committed(oid_from(at)), job.limit, job.protected)[0])

    def _references(self, summaries: Iterable[RevisionSummary]) -> bytes:
        found = []
        for summary in summaries:
            if summary.references:
                found.append(summary.references)
            elif summary.references is None and not summary.deleted:
                found.append(self._extracted(summary))
        return found[0] if len(found) == 1 else b"".join(found)

    def _extracted(self, summary: RevisionSummary) -> bytes:
        """The references of a record whose header does not tell them."""
        target, oid, tid = self._target, summary.oid, summary.tid
        revision = target.load(oid, tid)
        if revision is None or revision.data is None or revision.tid != tid:
            if any(found.tid == tid for found in target.committed(oid)):
                raise CorruptionError(target.name, "a revision is gone", oid=oid, tid=tid)
            return b""  # a flush has just replaced it, in Minimal; what replaced it waited in the journal
        try:
            return self._job.extracted(revision.data)
        except SerializationError as error:
            raise CorruptionError(target.name, str(error), oid=oid, tid=tid) from error

    # --- publishing ---

    def _decide(self) -> tuple[OidSet, array[int]]:
        """Settle which objects and which transactions go, and record that. On an error none is doomed."""
        job, ground, target = self._job, self._ground, self._target
        before = target.doomed
        try:
            doomed = self._publish()
            transactions = ground.transactions_to_go(doomed) if job.full else array("Q")
            if not job.dry_run:
                ground.require_room(doomed)
                target.record_pack(job.limit)
        except BaseException:
            if not job.dry_run:
                target.doom(before)
            raise
        return doomed, transactions

    def _publish(self) -> OidSet:
        """Doom what cannot be reached, at a moment when nobody commits; which objects these are."""
        target, marker, limits = self._target, self._marker, self._job.limits
        patience = limits.patience
        while True:
            self._revisit(target.changed())
            self._mark()
            if self._job.dry_run:
                return self._ground.seen - marker.live
            with target.writers_held():
                self._revisit(target.changed())
                if marker.run(limits.moment if patience > 0 else None):
                    doomed = self._ground.seen - marker.live
                    earlier = target.doomed
                    before = OidSet(earlier) if isinstance(earlier, Iterable) else OidSet()
                    target.doom(Doomed(before | doomed))
                    return doomed
            patience -= 1

    def _revisit(self, changed: bytes) -> None:
        for at in oid_numbers(changed):
            self._marker.revisit(at)

    # --- removing ---

    def _remove_transactions(self, transactions: array[int]) -> None:
        job, size = self._job, self._job.limits.details
        for at in range(0, len(transactions), size):
            job.progress("removing transactions", at, len(transactions))
            if not job.dry_run:
                tids = [tid_from(tid) for tid in transactions[at : at + size]]
                job.counts.freed += self._target.home.remove_transactions(tids)
        job.counts.transactions = len(transactions)
        job.progress("removing transactions", len(transactions), len(transactions))
