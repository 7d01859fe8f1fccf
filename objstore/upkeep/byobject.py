"""Packing any home object by object, through nothing but `contracts.Home`."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator

from objstore.contracts import Removal
from objstore.formats import records
from objstore.ids import Tid, number, oid_from
from objstore.revisions import RevisionSummary
from objstore.upkeep.packing import Job
from objstore.upkeep.reachable import CHUNK_BITS, Marker, OidSet
from objstore.upkeep.tidset import TidSet

Divided = tuple[list[RevisionSummary], list[RevisionSummary]]


def divided(summaries: Iterable[RevisionSummary], limit: Tid, protected: frozenset[Tid]) -> Divided:
    """The revisions of an object (given newest first) that are kept, and the others."""
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


class ByObject:
    """A `Ground` of any home. `references_of` tells what a list of revisions refers to."""

    def __init__(self, job: Job, references_of: Callable[[Iterable[RevisionSummary]], bytes]) -> None:
        self.seen = OidSet()
        self.marker = Marker(self._references)
        self._job = job
        self._home = job.target.home
        self._references_of = references_of
        self._superseded = OidSet()  # what has revisions that nobody may need
        self._needed = TidSet()  # transactions up to the limit of which a revision stays

    # --- reading and marking ---

    def read(self) -> None:
        job, home, limit, protected = self._job, self._home, self._job.limit, self._job.protected
        for done, oid in enumerate(home.oids()):
            if done % job.limits.step == 0:
                job.progress("reading", done, None)
            at = number(oid)
            self.seen.add(at)
            kept, dropped = divided(home.summaries(oid), limit, protected)
            if dropped and job.full:
                self._superseded.add(at)
            # The newest one tells: transactions after the limit, and the protected ones, are the newest.
            if kept and (kept[0].tid > limit or kept[0].tid in protected):
                self.marker.add(at)
        job.progress("reading", len(self.seen), len(self.seen))

    def _references(self, at: int) -> bytes:
        """The references of an object's kept revisions, wherever they stand at this moment."""
        job = self._job
        kept, _ = divided(job.target.committed(oid_from(at)), job.limit, job.protected)
        for summary in kept:
            if summary.tid <= job.limit:
                self._needed.add(number(summary.tid))
        return self._references_of(kept)

    # --- deciding ---

    def transactions_to_go(self, doomed: OidSet) -> array[int]:  # noqa: ARG002 - found while marking
        job = self._job
        gone = array("Q")
        needed = self._needed.descending()
        next_needed = next(needed, None)
        for done, transaction in enumerate(self._home.transactions(job.limit)):
            if done % job.limits.step == 0:
                job.progress("reading transactions", done, None)
            tid = number(transaction.tid)
            while next_needed is not None and next_needed > tid:
                next_needed = next(needed, None)
            if tid != next_needed and transaction.tid not in job.protected:
                gone.append(tid)
        return gone

    def require_room(self, doomed: OidSet) -> None:
        """Removing files takes no room."""

    # --- removing ---

    def remove(self, doomed: OidSet) -> None:
        job = self._job
        total = len(doomed | self._superseded)
        done = 0
        for batch in self._batches(doomed):
            job.progress("removing", done, total)
            if not job.dry_run:
                job.counts.freed += self._home.remove(batch)
            done += len(batch)
        job.progress("removing", total, total)

    def _batches(self, doomed: OidSet) -> Iterator[list[Removal]]:
        """What goes, in the order of oids; where a batch is full enough it ends with a bucket."""
        batch: list[Removal] = []
        size = 0
        bucket = -1
        limit = self._job.limits.batch
        for at in doomed | self._superseded:
            if size >= limit or (at >> CHUNK_BITS != bucket and size >= limit // 4):
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
        kept, dropped = divided(self._home.summaries(oid), self._job.limit, self._job.protected)
        if whole:
            dropped += kept
        elif not dropped:  # a home that drops by itself what is superseded was faster
            return None
        counts = self._job.counts
        counts.objects += whole
        counts.revisions += len(dropped)
        if self._job.dry_run:
            counts.freed += sum(map(_record_size, dropped))
        return Removal(oid, () if whole else tuple(summary.tid for summary in reversed(dropped)), whole)


def _record_size(summary: RevisionSummary) -> int:
    """Bytes of a revision's record."""
    copied = 8 if summary.copied_from is not None else 0
    copied += records.BLOB_SIZE if summary.blob is not None else 0
    return records.HEADER_SIZE + copied + len(summary.references or b"") + summary.size
