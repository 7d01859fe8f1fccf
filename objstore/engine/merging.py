"""Merging segments: which are due, and what the merged one holds.

Size-tiered merging, as in log-structured merge trees (O'Neil et al. 1996; the tiers are those of Cassandra):
a segment's tier grows with the logarithm of its size to the base 4. Only neighbours are merged, so a segment
counts for the tier of the largest among itself and all newer ones; as soon as four count for the same tier,
they become one, with all that is newer. So a bucket has at most three segments for each tier, and a byte is
written again about once for each tier that it climbs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from objstore.engine.segmentdir import Entries
from objstore.formats.segments import SLOTS, Kind, Segment, Stretch

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


class _Piece(NamedTuple):
    """Some neighbouring entries of a segment, at least one."""

    segment: Segment
    start: int
    end: int

    def key(self, at: int) -> tuple[int, int]:
        """What the entry at a position is sorted by."""
        return self.segment.lows_of(at, at + 1)[0], self.segment.tids[at]


def merged(segments: Sequence[Segment], droppable_upto: int | None = None) -> Entries:
    """The entries of several segments in order, each once.

    With `droppable_upto`, a revision that a later one with a tid up to that supersedes is left out.
    """
    for pieces in _aligned(segments):
        if droppable_upto is None and _follow_each_other(pieces):
            for piece in pieces:
                yield from piece.segment.stretches(piece.start, piece.end)
        else:
            yield _interleaved(pieces, droppable_upto)


def _aligned(segments: Sequence[Segment]) -> Iterator[list[_Piece]]:
    """The entries in groups, of which each comes before the next: so much is sorted at a time."""
    if segments[0].footer.kind is Kind.DETAILS:
        groups = [[_Piece(segment, 0, len(segment)) for segment in segments]]
    else:
        groups = [[_Piece(segment, *segment.slot(number)) for segment in segments] for number in range(SLOTS)]
    for group in groups:
        pieces = [piece for piece in group if piece.start < piece.end]
        if pieces:
            yield pieces


def _follow_each_other(pieces: Sequence[_Piece]) -> bool:
    return all(older.key(older.end - 1) < newer.key(newer.start) for older, newer in pairwise(pieces))


def _interleaved(pieces: Sequence[_Piece], droppable_upto: int | None) -> Stretch:
    lows: list[int] = []
    tids: list[int] = []
    entries: list[bytes] = []
    for segment, start, end in pieces:
        lows += segment.lows_of(start, end)
        tids += segment.tids[start:end]
        entries += segment.entries(start, end)
    keys = [low << 64 | tid for low, tid in zip(lows, tids, strict=True)]
    order = _kept(sorted(range(len(keys)), key=keys.__getitem__), keys, lows, tids, droppable_upto)
    parts = [entries[at] for at in order]
    return Stretch([lows[at] for at in order], [tids[at] for at in order], list(map(len, parts)), parts)


def _kept(
    order: list[int], keys: Sequence[int], lows: Sequence[int], tids: Sequence[int], droppable_upto: int | None
) -> list[int]:
    """The positions of an order that stay: one of those that are the same, and not what is superseded."""
    if droppable_upto is None and len(set(keys)) == len(keys):
        return order
    kept: list[int] = []
    for at in order:
        if kept:
            last = kept[-1]
            if keys[last] == keys[at]:
                continue
            if droppable_upto is not None and lows[last] == lows[at] and tids[at] <= droppable_upto:
                kept.pop()
        kept.append(at)
    return kept
