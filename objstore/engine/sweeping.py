"""What a pack does with the segments of one bucket: tell what it keeps of them, and what that refers to.

Which revisions go is found from the index alone, an array at a time. `Terms` say it: kept are an object's
newest revision with a tid <= `limit`, those after it, and those of the `protected` transactions. In Minimal
only whole objects go: what is superseded is dropped by merges.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from itertools import compress
from sys import byteorder
from typing import NamedTuple

from objstore.formats import pickles
from objstore.formats.leads import references_at
from objstore.formats.segments import BUCKET_BITS, LOW_MASK, Segment
from objstore.ids import Tid, number


class Terms(NamedTuple):
    """Which revisions a pack keeps of the objects that stay; `full` is false in a Minimal home.

    `extracted` finds the references of a record whose header does not tell them.
    """

    limit: Tid
    protected: frozenset[Tid]
    full: bool
    extracted: Callable[[bytes], bytes] = pickles.references


class Plan(NamedTuple):
    """What goes of a bucket, and what stays. `rewritten` is the size of the largest segment that is to be made
    anew, `tids` are those up to the limit of which a revision stays.
    """

    objects: int
    revisions: int
    bytes: int
    rewritten: int
    tids: set[int]


class Outline:
    """The objects of a bucket, the roots among them, and what the kept revisions refer to.

    A root has a revision after the limit or in a protected transaction. References are packed arrays, so that
    an object that refers to nothing takes a byte, and a reference eight.
    """

    __slots__ = ("_ends", "_owners", "_targets", "_with", "lows", "roots")

    def __init__(self, lows: set[int], roots: set[int], references: Iterable[tuple[int, bytes]]) -> None:
        self.lows = lows
        self.roots = roots
        self._owners = array("H")
        self._ends = array("Q")
        self._targets = array("Q")
        self._with = bytearray(LOW_MASK + 1)
        for oid, packed in sorted(references):
            self._targets.frombytes(packed)
            low = oid & LOW_MASK
            if self._owners and self._owners[-1] == low:
                self._ends[-1] = len(self._targets)
            else:
                self._owners.append(low)
                self._ends.append(len(self._targets))
                self._with[low] = 1
        if byteorder == "little":
            self._targets.byteswap()

    @property
    def size(self) -> int:
        """Bytes that it takes, but for the sets."""
        return len(self._with) + sum(
            len(each) * each.itemsize for each in (self._owners, self._ends, self._targets)
        )

    def targets(self, numbers: Iterable[int]) -> array[int]:
        """The numbers of all objects that some of its objects refer to."""
        found = array("Q")
        referring = self._with
        for at in numbers:
            low = at & LOW_MASK
            if referring[low]:
                position = bisect_left(self._owners, low)
                start = self._ends[position - 1] if position else 0
                found += self._targets[start : self._ends[position]]
        return found


def outlined(bucket: int, segments: Sequence[Segment], terms: Terms) -> Outline:
    """The outline of a bucket. Raises CorruptionError where the header of a kept revision cannot be read."""
    lows: set[int] = set()
    roots: set[int] = set()
    limit, protected = number(terms.limit), set(map(number, terms.protected))
    for segment in segments:
        there = segment.lows_of(0, len(segment))
        lows.update(there)
        if number(segment.last) >= min(limit + 1, *protected, limit + 1):
            roots.update(
                low for low, tid in zip(there, segment.tids, strict=True) if tid > limit or tid in protected
            )
    masks = kept(segments, terms, frozenset(), superseded=True)
    references = [
        pair
        for segment, mask in zip(segments, masks, strict=True)
        for pair in references_at(segment.buffer, _places(bucket, segment, mask), segment.path, terms.extracted)
    ]
    return Outline(lows, roots, references)


def _places(bucket: int, segment: Segment, mask: bytearray) -> Iterator[tuple[int, int, int]]:
    base = bucket << BUCKET_BITS
    count = len(segment)
    oids = [base + low for low in segment.lows_of(0, count)]
    return compress(zip(segment.offsets(), oids, segment.tids, strict=True), mask)


def kept(
    segments: Sequence[Segment], terms: Terms, doomed: Set[int], *, superseded: bool | None = None
) -> list[bytearray]:
    """For each segment (the oldest first) a mask: 1 for each entry that stays, 0 for each that goes.

    `doomed` are objects of which everything goes. `superseded` says whether what was superseded goes; if not
    said, that depends on the history mode.
    """
    if not (terms.full if superseded is None else superseded):
        return [bytearray(low not in doomed for low in segment.lows_of(0, len(segment))) for segment in segments]
    limit, protected = number(terms.limit), set(map(number, terms.protected))
    settled = set(doomed)
    masks = []
    for segment in reversed(segments):
        count = len(segment)
        mask = bytearray(count)
        lows, tids = segment.lows_of(0, count), segment.tids
        if number(segment.last) <= limit:
            newest = dict(zip(lows, range(count), strict=True))  # the last one of an object counts
        else:
            newest = {}
            for at, (low, tid) in enumerate(zip(lows, tids, strict=True)):
                if tid <= limit:
                    newest[low] = at
                elif low not in doomed:
                    mask[at] = 1
        for low in newest.keys() - settled:
            mask[newest[low]] = 1
        settled |= newest.keys()
        if protected and number(segment.last) >= min(protected):
            for at, tid in enumerate(tids):
                if tid in protected and lows[at] not in doomed:
                    mask[at] = 1
        masks.append(mask)
    return masks[::-1]


_OPPOSITE = bytes((1, 0)) + bytes(254)


def planned(segments: Sequence[Segment], terms: Terms, doomed: Set[int]) -> Plan:
    """What goes of a bucket of which some objects are doomed."""
    revisions = size = rewritten = 0
    tids: set[int] = set()
    gone: set[int] = set()
    limit = number(terms.limit)
    for segment, mask in zip(segments, kept(segments, terms, doomed), strict=True):
        count = mask.count(0)
        if terms.full:
            tids.update(compress(segment.tids, mask))
        if not count:
            continue
        revisions += count
        dropped = sum(compress(segment.sizes(0, len(segment)), mask.translate(_OPPOSITE)))
        size += dropped
        if count < len(segment):
            rewritten = max(rewritten, segment.size - dropped)
        gone.update(doomed & set(segment.lows_of(0, len(segment))))
    return Plan(len(gone), revisions, size, rewritten, {tid for tid in tids if tid <= limit})
