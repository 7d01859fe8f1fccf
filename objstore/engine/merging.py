"""Merging segments: which are due, and what the merged one holds.

Size-tiered merging, as in log-structured merge trees (O'Neil et al. 1996; the tiers are those of Cassandra):
a segment's tier grows with the logarithm of its size to the base 4. Only neighbours are merged, so a segment
counts for the tier of the largest among itself and all newer ones; as soon as four count for the same tier,
they become one, with all that is newer. So a bucket has at most three segments for each tier, and a byte is
written again about once for each tier that it climbs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from objstore.engine.segmentdir import Entries
from objstore.formats.segments import Kind, Segment

FAN = 4
SMALLEST_TIER = 64 * 2**10
"""Segments of up to this many bytes are of the lowest tier."""


def tier(size: int) -> int:
    """The tier of a segment of this many bytes."""
    return max(0, (size // SMALLEST_TIER).bit_length() + 1) // 2


def due(sizes: Sequence[int]) -> int:
    """How many of the newest segments (`sizes` has the newest last) are to be merged now; 0 for none."""
    level, newer = 0, 0  # the tier that counts, and how many segments count for lower ones
    for at, size in enumerate(reversed(sizes)):
        if tier(size) > level:
            if at - newer >= FAN:
                return at
            level, newer = tier(size), at
    return len(sizes) if len(sizes) - newer >= FAN else 0


def merged(segments: Sequence[Segment], droppable_upto: int | None = None) -> Entries:
    """The entries of several segments in order, each once.

    With `droppable_upto`, a revision that a later one with a tid up to that supersedes is left out.
    """
    streams = [_entries(segment, index) for index, segment in enumerate(segments)]
    previous: tuple[int, int] | None = None
    held: tuple[int, int, memoryview] | None = None
    for low, tid, index, at in heapq.merge(*streams):
        if (low, tid) == previous:
            continue
        previous = (low, tid)
        if held is not None and not (held[0] == low and droppable_upto is not None and tid <= droppable_upto):
            yield held
        held = (low, tid, segments[index].entry(at))
    if held is not None:
        yield held


def _entries(segment: Segment, index: int) -> Iterator[tuple[int, int, int, int]]:
    revisions = segment.footer.kind is Kind.REVISIONS
    for at in range(len(segment)):
        yield (segment.low(at) if revisions else 0), segment.tids[at], index, at
