"""The segmented home: flushed revisions in immutable segments, many to a file, bucket by bucket.

A flush writes one segment into each bucket that it touches, and in Full one of the transactions' details. A
lookup asks the bucket's segments, newest first. When a bucket has too many, `maintain` merges them; in
Minimal that drops what a revision at or below the horizon supersedes.

Readers take no lock: they hold the tuple of segments that was current when they began.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from threading import Lock

from objstore.contracts import Filesystem, Finding, History, Removal
from objstore.engine.merging import due, merged
from objstore.engine.segmentdir import Entries, SegmentDirectory
from objstore.engine.segmentscan import find_damage, listed_buckets
from objstore.errors import CorruptionError
from objstore.formats import records
from objstore.formats.layouts import DETAILS_DIRECTORY, bucket_directory
from objstore.formats.segments import Kind, Segment, bucket_of, low_of, oid_in
from objstore.formats.transactions import decode_details, encode_details
from objstore.ids import Oid, Tid, number
from objstore.revisions import Revision, RevisionSummary, Transaction

MAX_OPEN_BUCKETS = 128
"""How many buckets' segments are kept open; each open segment takes a descriptor."""


@dataclass(slots=True)
class SegmentCounters:
    """What was written since the store was opened, in bytes."""

    flushed_bytes: int = 0
    merged_bytes: int = 0
    merges: int = 0


class SegmentedHome:
    """A `contracts.Home` of the format `segmented`, in either history mode.

    `flushed` is the newest transaction of which the home is known to hold everything: segments that begin
    later were written by a flush that did not come to its end, and do not count.
    """

    def __init__(self, filesystem: Filesystem, path: str, history: History, flushed: Tid) -> None:
        self.counters = SegmentCounters()
        self._filesystem = filesystem
        self._path = path
        self._history = history
        self._flushed = flushed
        self._buckets: dict[int, SegmentDirectory] = {}
        self._details = SegmentDirectory(filesystem, f"{path}/{DETAILS_DIRECTORY}", Kind.DETAILS, 0)
        self._details_open = False
        self._crowded: set[SegmentDirectory] = set()
        self._opening = Lock()  # a leaf: guards the opening of directories
        self._changing = Lock()  # one flush, merge or removal at a time; taken before `_opening`

    @property
    def history(self) -> History:
        return self._history

    @property
    def keeps_superseded(self) -> bool:
        """Several revisions of an object may stand here, in Minimal too, until they are merged."""
        return True

    def prepare(self) -> None:
        self._make(DETAILS_DIRECTORY)
        self._filesystem.sync_directory(self._path)

    # --- looking up ---

    def _bucket(self, bucket: int) -> SegmentDirectory:
        directory = self._buckets.get(bucket)
        if directory is not None:
            return directory
        with self._opening:
            directory = self._buckets.get(bucket)
            if directory is None:
                path = f"{self._path}/{bucket_directory(bucket)}"
                directory = SegmentDirectory(self._filesystem, path, Kind.REVISIONS, bucket)
                directory.open(self._flushed)
                self._buckets[bucket] = directory
            return directory

    def _transactions(self) -> SegmentDirectory:
        if not self._details_open:
            with self._opening:
                if not self._details_open:
                    self._details.open(self._flushed)
                    self._details_open = True
        return self._details

    def current(self, oid: Oid) -> Tid | None:
        low = low_of(oid)
        for segment in reversed(self._bucket(bucket_of(oid)).segments):
            run = segment.run(low)
            if run:
                return segment.tid(run[-1])
        return None

    def load(self, oid: Oid, upto: Tid) -> Revision | None:
        low, bound = low_of(oid), number(upto)
        for segment in reversed(self._bucket(bucket_of(oid)).segments):
            at = segment.find(low, bound)
            if at >= 0:
                revision = records.decode(segment.buffer, segment.offset(at), segment.path)
                if revision.oid != oid or number(revision.tid) != segment.tids[at]:
                    raise _misplaced(segment, at, oid)
                return revision
        return None

    def summaries(self, oid: Oid) -> Iterator[RevisionSummary]:
        low = low_of(oid)
        told = None
        for segment in reversed(self._bucket(bucket_of(oid)).segments):
            for at in reversed(segment.run(low)):
                if told is None or segment.tids[at] < told:
                    told = segment.tids[at]
                    yield _summary(segment, at, oid)

    def oids(self) -> Iterator[Oid]:
        for bucket in listed_buckets(self._filesystem, self._path):
            lows: set[int] = set()
            for segment in self._bucket(bucket).segments:
                lows |= segment.lows()
            for low in sorted(lows):
                yield oid_in(bucket, low)

    def transaction(self, tid: Tid) -> Transaction | None:
        wanted = number(tid)
        for segment in reversed(self._transactions().segments):
            at = segment.find_tid(wanted)
            if at >= 0 and segment.tids[at] == wanted:
                return _details(segment, at)
        return None

    def transactions(self, upto: Tid) -> Iterator[Transaction]:
        bound = number(upto)
        for segment in reversed(self._transactions().segments):
            for at in range(segment.find_tid(bound), -1, -1):
                if segment.tids[at] <= bound:
                    bound = segment.tids[at] - 1
                    yield _details(segment, at)

    # --- flushing ---

    def apply(self, batch: Iterable[tuple[Transaction, Sequence[Revision]]]) -> None:
        tids: list[Tid] = []
        details: list[tuple[int, int, bytes]] = []
        entries: dict[int, list[tuple[int, int, bytes]]] = {}
        for transaction, revisions in batch:
            tids.append(transaction.tid)
            tid = number(transaction.tid)
            if self._history is History.FULL:
                details.append((0, tid, encode_details(transaction)))
            for revision in revisions:
                entry = (low_of(revision.oid), tid, records.encode(revision))
                entries.setdefault(bucket_of(revision.oid), []).append(entry)
        if not tids:
            return
        with self._changing:
            written = [(self._bucket(bucket), sorted(found)) for bucket, found in sorted(entries.items())]
            if details:
                written.append((self._transactions(), details))
            self._append(written, tids[0], tids[-1])
            self._flushed = max(self._flushed, tids[-1])  # for buckets that are opened again

    def _append(
        self, written: list[tuple[SegmentDirectory, list[tuple[int, int, bytes]]]], first: Tid, last: Tid
    ) -> None:
        made: set[str] = set()
        for directory, _ in written:
            made |= self._make(directory.path[len(self._path) + 1 :])
        paths = []
        for directory, entries in written:
            before = directory.written
            paths.append((directory, directory.write(first, last, 0, entries)))
            self.counters.flushed_bytes += directory.written - before
        for path in sorted(made | {directory.path for directory, _ in written}):
            self._filesystem.sync_directory(path)
        for directory, new in paths:
            if new is not None:
                directory.append(new)
                self._crowded.add(directory)

    def _make(self, relative: str) -> set[str]:
        """Make a directory below the home; the directories that have got a new name and are to be synced."""
        changed = set()
        at = self._path
        for part in relative.split("/"):
            below = f"{at}/{part}"
            if not self._filesystem.exists(below):
                self._filesystem.make_directory(below)
                changed.add(at)
            at = below
        return changed

    def maintain(self, horizon: Tid) -> None:
        """Merge the segments of buckets that have got too many. Nothing depends on it but speed and room."""
        with self._changing:
            while self._crowded:
                directory = self._crowded.pop()
                count = due([segment.size for segment in directory.segments])
                if count:
                    self._merge(directory, directory.segments[-count:], horizon)
            if len(self._buckets) > MAX_OPEN_BUCKETS:
                self._buckets.clear()  # who reads keeps what it holds; the others open theirs again

    def _merge(self, directory: SegmentDirectory, segments: tuple[Segment, ...], horizon: Tid) -> None:
        superseded = self._history is History.MINIMAL and directory.kind is Kind.REVISIONS
        droppable = number(horizon) if superseded else None
        before = directory.written
        directory.replace(segments, lambda: merged(segments, droppable))
        self.counters.merged_bytes += directory.written - before
        self.counters.merges += 1

    # --- packing ---

    def remove(self, removals: Sequence[Removal]) -> int:
        freed = 0
        by_bucket = groupby(sorted(removals, key=lambda removal: removal.oid), lambda found: bucket_of(found.oid))
        for bucket, found in by_bucket:
            doomed = {
                low_of(removal.oid): None if removal.whole else {number(tid) for tid in removal.tids}
                for removal in found
            }
            with self._changing:
                directory = self._bucket(bucket)
                for segment in directory.segments:  # oldest first, so that what stays is never a resurrection
                    freed += _without(directory, segment, doomed)
        return freed

    def remove_transactions(self, tids: Sequence[Tid]) -> int:
        doomed: dict[int, set[int] | None] = {0: {number(tid) for tid in tids}}
        with self._changing:
            directory = self._transactions()
            return sum(_without(directory, segment, doomed) for segment in directory.segments)

    # --- checking ---

    def findings(self) -> Iterator[Finding]:
        return find_damage(self._filesystem, self._path, self._flushed)


def _summary(segment: Segment, at: int, oid: Oid) -> RevisionSummary:
    offset = segment.offset(at)
    summary = records.Header(segment.buffer, offset, segment.path).summary(segment.buffer, offset, segment.path)
    if summary.oid != oid or number(summary.tid) != segment.tids[at]:
        raise _misplaced(segment, at, oid)
    return summary


def _details(segment: Segment, at: int) -> Transaction:
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

    def is_doomed(at: int) -> bool:
        tids = doomed.get(low_at(at), ())
        return tids is None or segment.tids[at] in tids

    low_at = segment.low if directory.kind is Kind.REVISIONS else lambda _: 0
    positions = range(len(segment))
    if not any(is_doomed(at) for at in positions):
        return 0

    def kept() -> Entries:
        return ((low_at(at), segment.tids[at], segment.entry(at)) for at in positions if not is_doomed(at))

    return directory.replace((segment,), kept)
