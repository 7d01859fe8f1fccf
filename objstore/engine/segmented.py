"""The segmented home: flushed revisions in immutable segments, many to a file, bucket by bucket.

A lookup asks the bucket's segments, newest first. Readers take no lock: they hold the tuple of segments that
was current when they began.

A flush writes one segment into each bucket that it touches, and in Full one of the transactions' details: 1.
directories are made where they are missing; 2. the segments are written and synced, and renamed; 3. the
directories are synced, new ones' parents too; 4. readers are shown all of it. A crash before 4 leaves
segments of transactions later than the mark `flushed`, which do not count and which the next flush sweeps.
When a bucket has too many segments, `maintain` merges them; in Minimal that drops what a revision at or below
the horizon supersedes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence, Set
from functools import partial
from itertools import groupby
from threading import Lock
from typing import TYPE_CHECKING

from objstore.contracts import Filesystem, Finding, History, Removal
from objstore.engine.buckets import DETAILS, OpenBuckets, Others
from objstore.engine.gathering import Gathered
from objstore.engine.merging import due, merged
from objstore.engine.segmentdir import SegmentDirectory
from objstore.engine.segmentscan import find_damage, listed_buckets
from objstore.errors import CorruptionError
from objstore.formats import records
from objstore.formats.layouts import DETAILS_DIRECTORY, SegmentName
from objstore.formats.recordruns import encoded
from objstore.formats.segments import BUCKET_BITS, LOW_MASK, Kind, Segment, bucket_of, low_of, oid_in
from objstore.formats.transactions import decode_details, verified_tid
from objstore.ids import Oid, Tid, number
from objstore.later import Later
from objstore.revisions import Revision, RevisionSummary, Transaction

if TYPE_CHECKING:
    from objstore.engine import sweeping
else:
    sweeping = Later("objstore.engine.sweeping")

_ROOM_LEFT = 8 * 2**20
"""Bytes of the disk that a merge leaves to those who commit meanwhile."""


class SegmentCounters:
    """What was written since the store was opened, in bytes."""

    def __init__(self) -> None:
        self.flushed_bytes = 0
        self.merged_bytes = 0
        self.merges = 0
        self.merges_put_off = 0
        """Merges for which there was no room."""


class SegmentedHome:
    """A `contracts.Home` of the format `segmented`, in either history mode.

    `flushed` is the newest transaction of which the home is known to hold everything: segments that begin
    later were written by a flush that did not come to its end, and do not count.
    """

    def __init__(
        self, filesystem: Filesystem, path: str, history: History, flushed: Tid, others: Others | None = None
    ) -> None:
        self.counters = SegmentCounters()
        self._filesystem = filesystem
        self._path = path
        self._history = history
        self._buckets = OpenBuckets(filesystem, path, flushed, others)
        self._crowded: set[int] = set()
        self._changing = Lock()  # one flush, merge or removal at a time; the lock of `_buckets` comes after it

    @property
    def history(self) -> History:
        return self._history

    @property
    def keeps_superseded(self) -> bool:
        """Several revisions of an object may stand here, in Minimal too, until they are merged."""
        return True

    def prepare(self) -> None:
        with contextlib.suppress(FileExistsError):
            self._filesystem.make_directory(f"{self._path}/{DETAILS_DIRECTORY}")
        self._filesystem.sync_directory(self._path)

    # --- looking up ---

    def _segments(self, oid: Oid) -> Iterator[Segment]:
        """Where an object's revisions may be, the newest first."""
        return reversed(self._buckets.get(bucket_of(oid)).segments)

    def _details(self) -> Iterator[Segment]:
        return reversed(self._buckets.get(DETAILS).segments)

    def current(self, oid: Oid) -> Tid | None:
        low = low_of(oid)
        for segment in self._segments(oid):
            run = segment.run(low)
            if run:
                return segment.tid(run[-1])
        return None

    def load(self, oid: Oid, upto: Tid) -> Revision | None:
        low, bound = low_of(oid), number(upto)
        for segment in self._segments(oid):
            at = segment.find(low, bound)
            if at >= 0:
                revision = records.decode(segment.buffer, segment.offset(at), segment.path)
                if revision.oid != oid or number(revision.tid) != segment.tids[at]:
                    raise _misplaced(segment, at, oid)
                return revision
        return None

    def record(self, oid: Oid, upto: Tid) -> tuple[bytes | None, Tid] | None:
        place = number(oid)
        low, bound = place & LOW_MASK, number(upto)
        for segment in reversed(self._buckets.get(place >> BUCKET_BITS).segments):
            at = segment.find(low, bound)
            if at >= 0:
                found = records.data_of(bytes(segment.entry(at)), oid)
                if found is None or number(found[1]) != segment.tids[at]:
                    revision = self.load(oid, upto)  # says what is wrong
                    return (revision.data, revision.tid) if revision is not None else None
                return found
        return None

    def revision(self, oid: Oid, tid: Tid) -> Revision | None:
        found = self.load(oid, tid)
        return found if found is not None and found.tid == tid else None

    def summaries(self, oid: Oid) -> Iterator[RevisionSummary]:
        low = low_of(oid)
        told = None
        for segment in self._segments(oid):
            for at in reversed(segment.run(low)):
                if told is None or segment.tids[at] < told:
                    told = segment.tids[at]
                    yield _summary(segment, at, oid)

    def oids(self) -> Iterator[Oid]:
        for bucket in listed_buckets(self._filesystem, self._path):
            lows: set[int] = set()
            for segment in self._buckets.get(bucket).segments:
                lows |= segment.lows()
            for low in sorted(lows):
                yield oid_in(bucket, low)

    def transaction(self, tid: Tid) -> Transaction | None:
        wanted = number(tid)
        for segment in self._details():
            at = segment.find_tid(wanted)
            if at >= 0 and segment.tids[at] == wanted:
                return _transaction(segment, at)
        return None

    def transactions(self, upto: Tid) -> Iterator[Transaction]:
        bound = number(upto)
        for segment in self._details():
            for at in range(segment.find_tid(bound), -1, -1):
                if segment.tids[at] <= bound:
                    bound = segment.tids[at] - 1
                    yield _transaction(segment, at)

    # --- flushing ---

    def apply(self, batch: Iterable[tuple[Transaction, Sequence[Revision]]]) -> None:
        tids: list[Tid] = []
        gathered = Gathered()
        for transaction, revisions in batch:
            tids.append(transaction.tid)
            if self._history is History.FULL:
                gathered.add_details(transaction)
            gathered.add(encoded(revisions, transaction.tid))
        if tids:
            with self._changing:
                self._add(gathered, tids[0], tids[-1])

    def _add(self, gathered: Gathered, first: Tid, last: Tid) -> None:
        to_sync: set[str] = set()
        written: list[tuple[int, str]] = []
        for bucket, stretch in gathered.by_bucket():
            with self._buckets.held(bucket) as directory:
                to_sync |= self._make(directory)
                new = directory.write(first, last, 0, [stretch])
                if new is not None:
                    path, size = new
                    written.append((bucket, path))
                    self.counters.flushed_bytes += size
                    if due([*(segment.size for segment in directory.segments), size]):
                        self._crowded.add(bucket)
        for place in sorted(to_sync):
            self._filesystem.sync_directory(place)
        self._buckets.show(written, last)

    def _make(self, directory: SegmentDirectory) -> set[str]:
        """Make a bucket's directory where it is missing; which directories' names are to be made durable."""
        to_sync = {directory.path}
        if not directory.segments:  # else its own name is durable, as its segments are
            at = self._path
            for part in directory.path[len(self._path) + 1 :].split("/"):
                # Also where it is there: the process that made it may not have lived to sync the name.
                to_sync.add(at)
                at = f"{at}/{part}"
                with contextlib.suppress(FileExistsError):
                    self._filesystem.make_directory(at)
        return to_sync

    def maintain(self, horizon: Tid) -> None:
        """Merge the segments of buckets that have got too many. Nothing depends on it but speed and room.

        For a moment a merge takes as much room as what it merges. Where that would fill the disk under those who
        commit, it waits for the next flush of its bucket.
        """
        with self._changing:
            while self._crowded:
                with self._buckets.held(self._crowded.pop()) as directory:
                    while count := due([segment.size for segment in directory.segments]):
                        segments = directory.segments[-count:]
                        room = self._filesystem.free_bytes(self._path)
                        if room < sum(segment.size for segment in segments) + _ROOM_LEFT:
                            self.counters.merges_put_off += 1
                            break
                        self._merge(directory, segments, horizon)

    def _merge(self, directory: SegmentDirectory, segments: tuple[Segment, ...], horizon: Tid) -> None:
        superseded = self._history is History.MINIMAL and directory.kind is Kind.REVISIONS
        droppable = number(horizon) if superseded else None
        written, _ = directory.replace(segments, lambda: merged(segments, droppable))
        self.counters.merged_bytes += written
        self.counters.merges += 1

    # --- packing ---

    def remove(self, removals: Sequence[Removal]) -> int:
        freed = 0
        by_bucket = groupby(sorted(removals, key=lambda removal: removal.oid), lambda found: bucket_of(found.oid))
        for bucket, found in by_bucket:
            doomed: dict[int, set[int] | None] = {}
            for removal in found:
                tids = doomed.setdefault(low_of(removal.oid), set())
                if removal.whole:
                    doomed[low_of(removal.oid)] = None
                elif tids is not None:
                    tids.update(map(number, removal.tids))
            freed += self._remove(bucket, doomed)
        return freed

    def remove_transactions(self, tids: Sequence[Tid]) -> int:
        return self._remove(DETAILS, {0: {number(tid) for tid in tids}})

    def _remove(self, bucket: int, doomed: dict[int, set[int] | None]) -> int:
        with self._changing, self._buckets.held(bucket) as directory:
            # Oldest first, so that what stays is never a resurrection.
            return sum(_without(directory, segment, doomed) for segment in directory.segments)

    # --- packing, bucket by bucket ---

    def buckets(self) -> Iterator[int]:
        """The buckets that have a directory, in order."""
        return listed_buckets(self._filesystem, self._path)

    def outline(self, bucket: int, terms: sweeping.Terms) -> sweeping.Outline:
        """What a bucket holds and refers to. Raises CorruptionError."""
        with self._passing(bucket):
            return sweeping.outlined(bucket, self._buckets.get(bucket).segments, terms)

    def plan(self, bucket: int, terms: sweeping.Terms, doomed: Set[int]) -> sweeping.Plan:
        """What `sweep` would do."""
        with self._passing(bucket):
            return sweeping.planned(self._buckets.get(bucket).segments, terms, doomed)

    def sweep(self, bucket: int, terms: sweeping.Terms, doomed: Set[int]) -> int:
        """Remove from a bucket what the terms do not keep, all of the doomed objects (given by their lows), and
        what interrupted runs have left. Durable on return; the bytes that became free.
        """
        with self._passing(bucket), self._changing, self._buckets.held(bucket) as directory:
            directory.sweep()
            segments = directory.segments
            return sum(
                directory.replace((segment,), partial(segment.chosen, mask))[1]
                for segment, mask in zip(segments, sweeping.kept(segments, terms, doomed), strict=True)
                if 0 in mask
            )

    @contextlib.contextmanager
    def _passing(self, bucket: int) -> Iterator[None]:
        """A pack passes through all buckets: one that it has left must not stay in memory."""
        try:
            yield
        finally:
            self._buckets.forget(bucket)

    def tidy(self, bucket: int) -> None:
        """Remove what interrupted runs have left in a bucket."""
        with self._changing, self._buckets.held(bucket) as directory:
            directory.sweep()

    def free_bytes(self) -> int:
        """How much may still be written where the home is."""
        return self._filesystem.free_bytes(self._path)

    def transaction_tids(self, upto: Tid) -> Iterator[int]:
        """The tids <= `upto` of which the details are kept, as numbers, newest first. The details are verified."""
        bound = number(upto)
        for segment in self._details():
            for at in range(segment.find_tid(bound), -1, -1):
                if segment.tids[at] <= bound:
                    tid = verified_tid(segment.entry(at), segment.path)
                    if tid != segment.tids[at]:
                        raise CorruptionError(
                            segment.path, "another transaction's details stand in their place", tid=segment.tid(at)
                        )
                    bound = tid - 1
                    yield tid

    def refresh(self, flushed: Tid) -> None:
        self._buckets.refresh(flushed)

    # --- checking ---

    def findings(self) -> Iterator[Finding]:
        return find_damage(self._filesystem, self._path, self._settled)

    def _settled(self, directory: SegmentDirectory) -> tuple[list[SegmentName], list[str]]:
        """A directory's segments and leftovers, at a moment when nothing changes."""
        with self._changing:
            return directory.survey(self._buckets.flushed)

    # --- the end ---

    def close(self) -> None:
        self._buckets.close()


def _summary(segment: Segment, at: int, oid: Oid) -> RevisionSummary:
    offset = segment.offset(at)
    summary = records.Header(segment.buffer, offset, segment.path).summary(segment.buffer, offset, segment.path)
    if summary.oid != oid or number(summary.tid) != segment.tids[at]:
        raise _misplaced(segment, at, oid)
    return summary


def _transaction(segment: Segment, at: int) -> Transaction:
    return decode_details(bytes(segment.entry(at)), segment.path)


def _misplaced(segment: Segment, at: int, oid: Oid) -> CorruptionError:
    return CorruptionError(
        segment.path,
        "another record stands in its place",
        offset=segment.offset(at),
        oid=oid,
        tid=segment.tid(at),
    )


def _without(directory: SegmentDirectory, segment: Segment, doomed: dict[int, set[int] | None]) -> int:
    """Rewrite a segment without what is doomed, if it holds any of that; the bytes that became free."""
    mask = bytearray(b"\1") * len(segment)
    for low, tids in doomed.items():
        for at in segment.run(low) if directory.kind is Kind.REVISIONS else range(len(segment)):
            if tids is None or segment.tids[at] in tids:
                mask[at] = 0
    if 0 not in mask:
        return 0
    return directory.replace((segment,), lambda: segment.chosen(mask))[1]
