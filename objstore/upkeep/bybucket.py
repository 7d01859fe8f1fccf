"""Packing a segmented home bucket by bucket.

A bucket is read once, from the first segment to the last; what its objects refer to is kept in packed arrays,
as far as `PackLimits.outlines` goes, and read again where it is needed after that. Marking asks for many
objects of a bucket at a time. Then each bucket of which anything goes is swept by itself: a segment at a time
is made anew without it, and those of which nothing goes stay as they are.

What a bucket told holds for what was committed before it was read. Whatever the journal held before that, or
was committed since, is visited by itself.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable

from objstore.engine.buckets import DETAILS
from objstore.engine.segmented import SegmentedHome
from objstore.engine.sweeping import Outline, Plan, Terms
from objstore.errors import StorageFullError
from objstore.ids import number, oid_numbers
from objstore.upkeep.packing import Job
from objstore.upkeep.reachable import CHUNK_BITS, BucketMarker, OidSet
from objstore.upkeep.tidset import TidSet

_FEW = 100
"""For so many objects a bucket that was forgotten is not read again: they are visited by themselves."""


class ByBucket:
    """A `Ground` of a segmented home. `references_of` tells what an object refers to at this moment."""

    def __init__(self, job: Job, home: SegmentedHome, references_of: Callable[[int], bytes]) -> None:
        self.seen = OidSet()
        self.marker = BucketMarker(self._targets, references_of)
        self._references_of = references_of
        self._job = job
        self._home = home
        self._terms = Terms(job.limit, job.protected, job.full, job.extracted)
        self._outlines: dict[int, Outline] = {}
        self._size = 0  # of the outlines
        self._plans: dict[int, Plan] | None = None
        self._needed = TidSet()

    # --- reading and marking ---

    def read(self) -> None:
        done = 0
        for bucket in self._home.buckets():
            self._job.progress("reading", done, None)
            outline = self._outline(bucket)
            self.seen.add_lows(bucket, outline.lows)
            base = bucket << CHUNK_BITS
            for low in outline.roots:
                self.marker.add(base + low)
            done += len(outline.lows)
            outline.lows, outline.roots = set(), set()
        self._job.progress("reading", done, done)

    def _outline(self, bucket: int) -> Outline:
        outline = self._home.outline(bucket, self._terms)
        self._outlines[bucket] = outline
        self._size += outline.size
        while self._size > self._job.limits.outlines and len(self._outlines) > 1:
            self._size -= self._outlines.pop(next(iter(self._outlines))).size
        return outline

    def _targets(self, bucket: int, numbers: list[int]) -> Iterable[int]:
        outline = self._outlines.get(bucket)
        if outline is None:
            if len(numbers) <= _FEW:
                return oid_numbers(b"".join(map(self._references_of, numbers)))
            outline = self._outline(bucket)
            outline.lows, outline.roots = set(), set()
        return outline.targets(numbers)

    # --- deciding ---

    def _planned(self, doomed: OidSet) -> dict[int, Plan]:
        if self._plans is None:
            self._outlines.clear()
            self._plans = {}
            for bucket in self._home.buckets():
                plan = self._home.plan(bucket, self._terms, doomed.lows(bucket))
                self._needed.update(plan.tids)
                plan.tids.clear()
                self._plans[bucket] = plan
        return self._plans

    def transactions_to_go(self, doomed: OidSet) -> array[int]:
        self._planned(doomed)
        gone = array("Q")
        needed = self._needed.descending()
        next_needed = next(needed, None)
        protected = set(map(number, self._job.protected))
        for done, tid in enumerate(self._home.transaction_tids(self._job.limit)):
            if done % self._job.limits.step == 0:
                self._job.progress("reading transactions", done, None)
            while next_needed is not None and next_needed > tid:
                next_needed = next(needed, None)
            if tid != next_needed and tid not in protected:
                gone.append(tid)
        return gone

    def require_room(self, doomed: OidSet) -> None:
        needed = max((plan.rewritten for plan in self._planned(doomed).values()), default=0)
        free = self._home.free_bytes()
        if needed > free:
            raise StorageFullError(
                self._job.target.name,
                f"packing writes a segment anew before it removes the old one, which takes {needed:,} bytes, and "
                f"there is room for {free:,}",
            )

    # --- removing ---

    def remove(self, doomed: OidSet) -> None:
        job, counts = self._job, self._job.counts
        plans = self._planned(doomed)
        total = sum(plan.revisions for plan in plans.values())
        done = 0
        for bucket, plan in plans.items():
            if plan.revisions:
                job.progress("removing", done, total)
            counts.objects += plan.objects
            counts.revisions += plan.revisions
            done += plan.revisions
            if job.dry_run:
                counts.freed += plan.bytes
            elif plan.revisions:
                counts.freed += self._home.sweep(bucket, self._terms, doomed.lows(bucket))
            else:
                self._home.tidy(bucket)
        if not job.dry_run:
            self._home.tidy(DETAILS)
        job.progress("removing", total, total)
