"""The records of one transaction, one after the other, to be moved without being decoded.

Whoever reads the sequence gets revisions, each verified as it is decoded. Who only moves records takes their
bytes: in the journal they carry the transaction's token in place of the tid, so of each the header is made
anew, and the rest is a slice of what was read.

The checksum of a header at another tid needs no second look at it. A CRC is linear: that of two messages of
the same length differs by what depends on their difference alone, and all headers of a transaction differ by
the same, the tid in place of the token. So a header that was damaged stays known to be.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, overload
from zlib import crc32

from objstore.errors import CorruptionError
from objstore.formats import records
from objstore.ids import Oid, Tid
from objstore.revisions import Revision

_HEADER = struct.Struct(">12s8s8s16sI")
"""A record's header around its tid: what is before the oid, oid, tid, what is behind, the checksum."""
_LOOKED_AT = 32 * 2**20
"""How many bytes of a buffer are looked at until its memory is let go of."""
_BEFORE, _BEHIND = bytes(20), bytes(16)


class RecordRun(Sequence[Revision]):
    """Records at `offsets` of a buffer, of `sizes`, as revisions of `tid`. In the buffer they carry `token`.

    `path` is for messages; `release` lets go of the memory that looking at the buffer has taken. Raises
    CorruptionError where a record is damaged, or another one than is expected.
    """

    __slots__ = ("_buffer", "_offsets", "_path", "_token", "oids", "release", "sizes", "tid")

    def __init__(
        self,
        path: str,
        buffer: bytes | memoryview,
        offsets: Sequence[int],
        sizes: Sequence[int],
        oids: Sequence[Oid],
        token: bytes,
        tid: Tid,
        release: Callable[[], None] | None = None,
    ) -> None:
        self._path = path
        self._buffer = buffer
        self._offsets = offsets
        self._token = token
        self.sizes = sizes
        self.oids = oids
        self.tid = tid
        self.release = release

    def __len__(self) -> int:
        return len(self.oids)

    @overload
    def __getitem__(self, at: int) -> Revision: ...

    @overload
    def __getitem__(self, at: slice) -> list[Revision]: ...

    def __getitem__(self, at: int | slice) -> Revision | list[Revision]:
        if isinstance(at, slice):
            return [self[position] for position in range(*at.indices(len(self)))]
        oid, offset = self.oids[at], self._offsets[at]
        revision = records.decode(self._buffer, offset, self._path)
        if revision.oid != oid or revision.tid != self._token:
            raise self._misplaced(oid, offset)
        return revision._replace(tid=self.tid)

    def chosen(self, positions: Sequence[int]) -> RecordRun:
        """A run of some of the records."""
        oids = [self.oids[at] for at in positions]
        sizes = [self.sizes[at] for at in positions]
        offsets = [self._offsets[at] for at in positions]
        return RecordRun(self._path, self._buffer, offsets, sizes, oids, self._token, self.tid, self.release)

    def parts(self) -> tuple[list[bytes], list[bytes] | list[memoryview]]:
        """The headers of the records, at the tid, and what follows each. Their data is not verified."""
        buffer, token, tid = self._buffer, self._token, self.tid
        unpack, pack, size = _HEADER.unpack_from, _HEADER.pack, records.HEADER_SIZE
        difference = crc32(_BEFORE + token + _BEHIND) ^ crc32(_BEFORE + tid + _BEHIND)
        release, due = self.release, _LOOKED_AT
        heads = []
        rests: list[Any] = []
        for oid, offset, length in zip(self.oids, self._offsets, self.sizes, strict=True):
            before, found, carried, behind, crc = unpack(buffer, offset)
            if found != oid or carried != token:
                raise self._misplaced(oid, offset)
            if release is not None and offset >= due:
                release()
                due = offset + _LOOKED_AT
            heads.append(pack(before, oid, tid, behind, crc ^ difference))
            rests.append(buffer[offset + size : offset + length])
        return heads, rests

    def _misplaced(self, oid: Oid, offset: int) -> CorruptionError:
        return CorruptionError(
            self._path, "another record stands in its place", offset=offset, oid=oid, tid=self.tid
        )


def encoded(revisions: Sequence[Revision], tid: Tid) -> RecordRun:
    """Revisions of one transaction as a run."""
    if isinstance(revisions, RecordRun):
        return revisions
    made = [records.encode(revision) for revision in revisions]
    sizes = [len(record) for record in made]
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end += size
    oids = [revision.oid for revision in revisions]
    return RecordRun("<bytes>", b"".join(made), offsets, sizes, oids, tid, tid)
