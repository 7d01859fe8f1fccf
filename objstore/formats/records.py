"""The record codec: one revision of one object as bytes. `docs/format/record.md` is its specification.

A record is the same wherever it stands. In a journal file, which is synced before the tid is known, the tid
field holds the transaction's token; `with_tid` puts the tid in and recomputes the checksum of the header
only. The checksum of the body is computed once, when the record is made, and travels with it.
"""

from __future__ import annotations

import struct
from zlib import crc32

from objstore.errors import CorruptionError, RecordTooLargeError
from objstore.ids import Oid, Tid
from objstore.revisions import Revision, RevisionSummary

MAGIC = b"oR"
VERSION = 1
DELETED, COPIED, REFERENCES_KNOWN = 1, 2, 4
MAX_DATA = 2**32 - 1
"""The largest record in bytes."""

_FIELDS = struct.Struct(">2sBBII8s8s8sI")  # all of the header but its own checksum, the last four bytes
_CRC = struct.Struct(">I")
HEADER_SIZE = _FIELDS.size + _CRC.size
_TID_AT = 20


def encode(revision: Revision, tid: Tid | None = None) -> bytes:
    """A revision as bytes, at another tid than its own if one is given. Raises `RecordTooLargeError`."""
    data = revision.data
    if data is not None and len(data) > MAX_DATA:
        raise RecordTooLargeError(revision.oid, len(data), MAX_DATA)
    flags = 0
    body = b""
    if revision.copied_from is not None:
        flags |= COPIED
        body = revision.copied_from
    references = 0
    if revision.references is not None:
        flags |= REFERENCES_KNOWN
        references = len(revision.references) // 8
        body += revision.references
    if data is None:
        flags |= DELETED
    else:
        body += data
    fields = _FIELDS.pack(
        MAGIC,
        VERSION,
        flags,
        references,
        len(data) if data is not None else 0,
        revision.oid,
        revision.tid if tid is None else tid,
        revision.previous,
        crc32(body),
    )
    return fields + _CRC.pack(crc32(fields)) + body


def with_tid(record: bytes, tid: Tid) -> bytes:
    """The same record at another tid."""
    fields = record[:_TID_AT] + tid + record[_TID_AT + 8 : _FIELDS.size]
    return fields + _CRC.pack(crc32(fields)) + record[HEADER_SIZE:]


class Header:
    """The header of a record, verified against its checksum."""

    __slots__ = ("_crc", "_flags", "body_size", "data_size", "oid", "previous", "reference_size", "tid")

    reference_size: int
    data_size: int
    body_size: int

    def __init__(self, buffer: bytes | memoryview, offset: int, path: str) -> None:
        """Read a header from `buffer` at `offset`; `path` is for messages. Raises `CorruptionError`."""
        if len(buffer) - offset < HEADER_SIZE:
            raise CorruptionError(path, "a record's header is cut off", offset=offset)
        magic, version, flags, references, size, oid, tid, previous, crc = _FIELDS.unpack_from(buffer, offset)
        if magic != MAGIC:
            raise CorruptionError(path, "no record begins here", offset=offset)
        if version != VERSION:
            raise CorruptionError(path, f"record version {version}; this objstore reads {VERSION}", offset=offset)
        end = offset + _FIELDS.size
        if crc32(buffer[offset:end]) != _CRC.unpack_from(buffer, end)[0]:
            raise CorruptionError(path, "the checksum of a record's header is wrong", offset=offset)
        self._flags = flags
        self._crc = crc
        self.oid, self.tid, self.previous = Oid(oid), Tid(tid), Tid(previous)
        self.reference_size = 8 * references
        self.data_size = size
        self.body_size = (8 if flags & COPIED else 0) + self.reference_size + size

    @property
    def size(self) -> int:
        """Bytes of the whole record."""
        return HEADER_SIZE + self.body_size

    @property
    def lead_size(self) -> int:
        """Bytes of the record up to its data: what `summary` needs."""
        return HEADER_SIZE + self.body_size - self.data_size

    def _lead(self, buffer: bytes | memoryview, at: int) -> tuple[Tid | None, bytes | None, int]:
        copied = None
        if self._flags & COPIED:
            copied = Tid(bytes(buffer[at : at + 8]))
            at += 8
        references = None
        if self._flags & REFERENCES_KNOWN:
            references = bytes(buffer[at : at + self.reference_size])
            at += self.reference_size
        return copied, references, at

    def revision(self, buffer: bytes | memoryview, offset: int, path: str) -> Revision:
        """The revision whose record begins at `offset`, verified. Raises `CorruptionError`."""
        start = offset + HEADER_SIZE
        end = start + self.body_size
        if len(buffer) < end:
            raise CorruptionError(path, "a record is cut off", offset=offset, oid=self.oid, tid=self.tid)
        if crc32(buffer[start:end]) != self._crc:
            raise CorruptionError(
                path, "the checksum of a record is wrong", offset=offset, oid=self.oid, tid=self.tid
            )
        copied, references, at = self._lead(buffer, start)
        data = None if self._flags & DELETED else bytes(buffer[at:end])
        return Revision(self.oid, self.tid, self.previous, data, references, copied)

    def summary(self, buffer: bytes | memoryview, offset: int, path: str) -> RevisionSummary:
        """The revision without its data, from a buffer that may end after `lead_size` bytes.

        Only the header is verified: the checksum of the body cannot be, without the data.
        """
        if len(buffer) < offset + self.lead_size:
            raise CorruptionError(path, "a record is cut off", offset=offset, oid=self.oid, tid=self.tid)
        copied, references, _ = self._lead(buffer, offset + HEADER_SIZE)
        deleted = bool(self._flags & DELETED)
        return RevisionSummary(self.oid, self.tid, self.previous, self.data_size, deleted, references, copied)


def decode(buffer: bytes | memoryview, offset: int = 0, path: str = "<bytes>") -> Revision:
    """The revision whose record begins at `offset`, verified. Raises `CorruptionError`."""
    return Header(buffer, offset, path).revision(buffer, offset, path)
