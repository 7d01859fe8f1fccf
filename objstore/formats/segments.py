"""The segment codec: many entries in one immutable file, with a sorted index. `docs/format/segment.md`
is its specification.

A segment of *revisions* holds records of one bucket, sorted by oid and tid; one of *details* holds the
details of transactions, sorted by tid. Behind the entries stands the index: packed little-endian arrays,
which are looked up where they lie, by bisection, so that opening a segment loads nothing. A table of 257
positions, one for each value of the oid's second-lowest byte and the end, narrows the bisection.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from itertools import accumulate, compress, pairwise
from typing import Final, NamedTuple
from zlib import crc32

from objstore.contracts import WritableFile
from objstore.errors import CorruptionError
from objstore.ids import Oid, Tid, number, oid_from, tid_from

MAGIC: Final = b"oS"
VERSION: Final = 1
BUCKET_BITS: Final = 16
LOW_MASK: Final = (1 << BUCKET_BITS) - 1
SLOTS: Final = 256
"""How many values the second-lowest byte of an oid has."""
_SLOTS: Final = SLOTS + 1

_FOOTER = struct.Struct(">2sBBQ8s8sQQII")
"""Magic, version, kind, bucket, first tid, last tid, count, where the index begins, the checksum of the
index, and that of the footer before it."""
FOOTER_SIZE: Final = _FOOTER.size
_CRC = struct.Struct(">I")
_WRITE_SIZE: Final = 2**20
_JOINED_SIZE: Final = 16 * 2**20
_STRETCH: Final = 2**14
"""So many entries are copied at a time."""


class Kind(IntEnum):
    """What a segment holds."""

    REVISIONS = 1
    DETAILS = 2


_KINDS: Final = frozenset(Kind)


def bucket_of(oid: Oid) -> int:
    """The bucket that an object belongs to: 65,536 neighbouring oids share one."""
    return number(oid) >> BUCKET_BITS


def low_of(oid: Oid) -> int:
    """Which of its bucket's objects an object is."""
    return (oid[6] << 8) | oid[7]


def oid_in(bucket: int, low: int) -> Oid:
    """The oid of a bucket's object."""
    return oid_from((bucket << BUCKET_BITS) | low)


class Footer(NamedTuple):
    """The last bytes of a segment: what it holds and where its index begins."""

    kind: Kind
    bucket: int
    first: Tid
    last: Tid
    entries: int
    index_at: int
    index_crc: int

    def encode(self) -> bytes:
        fields = (self.kind, self.bucket, self.first, self.last, self.entries, self.index_at, self.index_crc)
        head = _FOOTER.pack(MAGIC, VERSION, *fields, 0)[: -_CRC.size]
        return head + _CRC.pack(crc32(head))


def decode_footer(buffer: bytes | memoryview, path: str) -> Footer:
    """The footer of a segment, verified. Raises `CorruptionError`."""
    if len(buffer) < FOOTER_SIZE:
        raise CorruptionError(path, "a segment is cut off")
    tail = bytes(buffer[len(buffer) - FOOTER_SIZE :])
    magic, version, kind, bucket, first, last, count, index_at, index_crc, crc = _FOOTER.unpack(tail)
    if magic != MAGIC:
        raise CorruptionError(path, "this is no segment, or its end is cut off")
    if version != VERSION:
        raise CorruptionError(path, f"segment version {version}; this objstore reads {VERSION}")
    if crc32(tail[: -_CRC.size]) != crc:
        raise CorruptionError(path, "the checksum of a segment's footer is wrong")
    if kind not in _KINDS:
        raise CorruptionError(path, f"a segment of kind {kind}; this objstore reads {sorted(_KINDS)}")
    footer = Footer(Kind(kind), bucket, Tid(first), Tid(last), count, index_at, index_crc)
    if index_at + _index_size(footer) + FOOTER_SIZE != len(buffer):
        raise CorruptionError(path, "a segment has the wrong length")
    return footer


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def _index_size(footer: Footer) -> int:
    arrays = 16 * footer.entries + 8  # one offset more than entries: where the last one ends
    if footer.kind is Kind.REVISIONS:
        arrays += 4 * _SLOTS + 4 + _padded(2 * footer.entries)
    return arrays


# --- writing -----------------------------------------------------------------------------------------


class Stretch(NamedTuple):
    """Entries that follow each other: the low part of the oid, the tid and the size of each (low is 0 for
    details), and their bytes in parts, which need not begin where the entries do.
    """

    lows: Sequence[int]
    tids: Sequence[int]
    sizes: Sequence[int]
    parts: Sequence[bytes | memoryview]
    release: Callable[[], None] | None = None
    """Called when some of the parts were written, where looking at them takes memory."""


class SegmentWriter:
    """Writes a segment from its entries in order: by oid and tid, or by tid. Holds only the index."""

    def __init__(self, file: WritableFile, kind: Kind, bucket: int = 0) -> None:
        self._file = file
        self._kind = kind
        self._bucket = bucket
        self._lows = array("H")
        self._tids = array("Q")
        self._offsets = array("Q")
        self._size = 0
        self._parts: list[bytes | memoryview] = []
        self._unwritten = 0
        self._release: Callable[[], None] | None = None

    @property
    def count(self) -> int:
        """How many entries were added."""
        return len(self._tids)

    def add(self, low: int, tid: int, entry: bytes | memoryview) -> None:
        """Add an entry; `low` is 0 for details."""
        self.extend(Stretch((low,), (tid,), (len(entry),), (entry,)))

    def extend(self, stretch: Stretch) -> None:
        """Add the entries of a stretch."""
        self._lows.extend(stretch.lows)
        self._tids.extend(stretch.tids)
        self._offsets.extend(accumulate(stretch.sizes, initial=self._size))
        end = self._offsets.pop()
        self._parts += stretch.parts
        self._release = stretch.release
        self._unwritten += end - self._size
        self._size = end
        if self._unwritten >= _WRITE_SIZE:
            self._flush()

    def _flush(self) -> None:
        """Write what is there, together; but not so much at a time that joining it would take much memory."""
        parts, self._parts = self._parts, []
        if self._unwritten > _JOINED_SIZE:
            pending: list[bytes | memoryview] = []
            size = 0
            for part in parts:
                pending.append(part)
                size += len(part)
                if size >= _WRITE_SIZE:
                    self._file.write(b"".join(pending) if len(pending) > 1 else part)
                    pending, size = [], 0
                    if self._release is not None:
                        self._release()
            parts = pending
        if parts:
            self._file.write(b"".join(parts))
        self._unwritten = 0

    def finish(self, first: Tid, last: Tid) -> int:
        """Write index and footer for transactions from `first` to `last`, and sync. The bytes written."""
        padding = bytes(_padded(self._size) - self._size)
        index = self._index()
        index_at = self._size + len(padding)
        footer = Footer(self._kind, self._bucket, first, last, self.count, index_at, crc32(index))
        ending = (padding, index, footer.encode())
        self._parts += ending
        self._unwritten += sum(map(len, ending))
        self._flush()
        self._file.sync()
        return index_at + len(index) + FOOTER_SIZE

    def _index(self) -> bytes:
        parts = [_little(self._tids), _little(self._offsets), struct.pack("<Q", self._size)]
        if self._kind is Kind.REVISIONS:
            lows = _little(self._lows)
            parts += [self._fanout(), lows, bytes(_padded(len(lows)) - len(lows))]
        return b"".join(parts)

    def _fanout(self) -> bytes:
        starts = [bisect_left(self._lows, slot << 8) for slot in range(_SLOTS - 1)]
        return struct.pack(f"<{_SLOTS + 1}I", *starts, self.count, 0)


def _little(values: array[int]) -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


# --- reading -----------------------------------------------------------------------------------------


class Segment:
    """A segment being read: its arrays over the bytes of the file, wherever these are.

    Raises `CorruptionError` where footer or index are not what was written. Entries are verified by those
    who decode them.
    """

    __slots__ = ("_lows", "_offsets", "_starts", "buffer", "footer", "path", "tids")

    def __init__(self, path: str, buffer: memoryview) -> None:
        self.path = path
        self.buffer = buffer
        self.footer = footer = decode_footer(buffer, path)
        index = buffer[footer.index_at : len(buffer) - FOOTER_SIZE]
        if crc32(index) != footer.index_crc:
            raise CorruptionError(path, "the checksum of a segment's index is wrong", offset=footer.index_at)
        size = 8 * footer.entries
        self.tids = _array(index[:size], "Q")
        self._offsets = _array(index[size : 2 * size + 8], "Q")
        at = 2 * size + 8
        if footer.kind is Kind.REVISIONS:
            self._starts = _array(index[at : at + 4 * _SLOTS], "I")
            at += 4 * _SLOTS + 4
            self._lows = _array(index[at : at + 2 * footer.entries], "H")

    @property
    def first(self) -> Tid:
        return self.footer.first

    @property
    def last(self) -> Tid:
        return self.footer.last

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.buffer)

    def __len__(self) -> int:
        return self.footer.entries

    def find(self, low: int, upto: int) -> int:
        """The position of the newest revision of an object with tid <= `upto`; -1 where there is none."""
        slot = low >> 8
        start, end = self._starts[slot], self._starts[slot + 1]
        if start == end:
            return -1
        lows = self._lows
        # Where the oids of the slot follow each other, with a revision each, the position can be told.
        at = start + low - lows[start]
        if not start <= at < end or lows[at] != low or (at + 1 < end and lows[at + 1] == low):
            at = bisect_right(lows, low, start, end) - 1
            if at < start or lows[at] != low:
                return -1
        if self.tids[at] <= upto:  # the newest that there is
            return at
        start = bisect_left(lows, low, start, at)
        at = bisect_right(self.tids, upto, start, at) - 1
        return at if at >= start else -1

    def find_tid(self, upto: int) -> int:
        """The position of the newest transaction with tid <= `upto`, in a segment of details; -1 for none."""
        return bisect_right(self.tids, upto) - 1

    def run(self, low: int) -> range:
        """The positions of an object's revisions, oldest first."""
        start, end = self._starts[low >> 8], self._starts[(low >> 8) + 1]
        return range(bisect_left(self._lows, low, start, end), bisect_right(self._lows, low, start, end))

    def low(self, at: int) -> int:
        """Which of the bucket's objects the revision at a position is of."""
        return self._lows[at]

    def lows(self) -> set[int]:
        """Which of the bucket's objects it has revisions of."""
        return set(self._lows)

    def offset(self, at: int) -> int:
        """Where the entry at a position begins."""
        return self._offsets[at]

    def entry(self, at: int) -> memoryview:
        """The bytes of the entry at a position."""
        return self.buffer[self._offsets[at] : self._offsets[at + 1]]

    def slot(self, number: int) -> tuple[int, int]:
        """The first position of the entries whose low begins with this byte, and that behind the last."""
        return self._starts[number], self._starts[number + 1]

    def tid(self, at: int) -> Tid:
        return tid_from(self.tids[at])

    # --- many entries at a time ---

    def lows_of(self, start: int, end: int) -> Sequence[int]:
        """Of the entries from one position to another: which objects they are of; zeros for details."""
        if self.footer.kind is Kind.REVISIONS:
            return self._lows[start:end]
        return bytes(end - start)

    def offsets(self) -> Sequence[int]:
        """Where each entry begins."""
        return self._offsets[: len(self)]

    def entries(self, start: int, end: int) -> list[bytes]:
        """Copies of the entries from one position to another."""
        ends = self._offsets[start : end + 1]
        begin = ends[0]
        content = bytes(self.buffer[begin : ends[-1]])
        return [content[first - begin : last - begin] for first, last in pairwise(ends)]

    def sizes(self, start: int, end: int) -> list[int]:
        """How many bytes the entries from one position to another have."""
        return [last - first for first, last in pairwise(self._offsets[start : end + 1])]

    def stretches(self, start: int, end: int) -> Iterator[Stretch]:
        """The entries from one position to another, as they stand."""
        for first in range(start, end, _STRETCH):
            last = min(first + _STRETCH, end)
            part = self.buffer[self._offsets[first] : self._offsets[last]]
            yield Stretch(self.lows_of(first, last), self.tids[first:last], self.sizes(first, last), (part,))

    def chosen(self, mask: bytes | bytearray) -> Iterator[Stretch]:
        """The entries for which a mask, of a byte for each, has 1 and not 0."""
        offsets, buffer = self._offsets, self.buffer
        for first in range(0, len(mask), _STRETCH):
            some = mask[first : first + _STRETCH]
            last = first + len(some)
            parts = []
            end = 0
            while (start := some.find(1, end)) >= 0:
                end = some.find(0, start)
                end = end if end >= 0 else len(some)
                parts.append(buffer[offsets[first + start] : offsets[first + end]])
            lows, tids, sizes = (
                list(compress(values, some))
                for values in (self.lows_of(first, last), self.tids[first:last], self.sizes(first, last))
            )
            yield Stretch(lows, tids, sizes, parts)


def _array(part: memoryview, code: str) -> memoryview:
    if sys.byteorder == "big":
        values = array(code, part.tobytes())
        values.byteswap()
        return memoryview(values)
    return part.cast(code)  # type: ignore[call-overload, no-any-return]  # the codes are among its own
