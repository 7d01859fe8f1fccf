"""The record codec: one revision of one object as bytes. `docs/format/record.md` is its specification.

A record is the same wherever it stands, but that in a journal file, which is synced before the tid is known,
the tid field holds the transaction's token. Between header and data stands what is known of the data, called
the lead here: it has a checksum of its own, so that packing may rely on references without reading data.
"""

from __future__ import annotations

import struct
from zlib import crc32

from objstore.errors import CorruptionError, RecordTooLargeError
from objstore.ids import Oid, Tid
from objstore.revisions import BlobFacts, Revision, RevisionSummary

MAGIC = b"oR"
VERSION = 1
DELETED, COPIED, REFERENCES_KNOWN, BLOB = 1, 2, 4, 8
MAX_DATA = 2**32 - 1
"""The largest record in bytes."""

_FIELDS = struct.Struct(">2sBBII8s8s8sII")
"""All of the header but its own checksum: magic, version, flags, count of references, size of the data, oid,
tid, previous tid, the checksum of the lead, and that of the data."""
_CRC = struct.Struct(">I")
_BLOB = struct.Struct(">QI")
BLOB_SIZE = _BLOB.size
"""Bytes that the lead has for the length and the checksum of a blob."""
HEADER_SIZE = _FIELDS.size + _CRC.size
_HEADER = struct.Struct(_FIELDS.format + "I")
"""All of the header."""


def encode(revision: Revision, tid: Tid | None = None) -> bytes:
    """A revision as bytes, at another tid than its own if one is given. Raises `RecordTooLargeError`."""
    data = revision.data
    if data is not None and len(data) > MAX_DATA:
        raise RecordTooLargeError(revision.oid, len(data), MAX_DATA)
    at = revision.tid if tid is None else tid
    lead = (revision.references, revision.copied_from, revision.blob)
    return encoded(revision.oid, at, revision.previous, data, *lead)


def encoded(
    oid: Oid,
    tid: Tid,
    previous: Tid,
    data: bytes | None,
    references: bytes | None,
    copied_from: Tid | None,
    blob: BlobFacts | None = None,
) -> bytes:
    """As `encode`, of a revision that is given by its parts, and is not too large."""
    flags, count, lead = 0, 0, b""
    if copied_from is not None:
        flags, lead = COPIED, copied_from
    if blob is not None:
        flags |= BLOB
        lead += _BLOB.pack(*blob)
    if references is not None:
        flags |= REFERENCES_KNOWN
        count = len(references) // 8
        lead += references
    if data is None:
        flags |= DELETED
        data = b""
    fields = _FIELDS.pack(MAGIC, VERSION, flags, count, len(data), oid, tid, previous, crc32(lead), crc32(data))
    return b"".join((fields, _CRC.pack(crc32(fields)), lead, data))


class Header:
    """The header of a record, verified against its checksum."""

    __slots__ = (
        "_data_crc",
        "_flags",
        "_lead_crc",
        "_references_at",
        "data_size",
        "lead_size",
        "oid",
        "previous",
        "tid",
    )

    lead_size: int
    data_size: int

    def __init__(self, buffer: bytes | memoryview, offset: int, path: str) -> None:
        """Read a header from `buffer` at `offset`; `path` is for messages. Raises `CorruptionError`."""
        if len(buffer) - offset < HEADER_SIZE:
            raise CorruptionError(path, "a record's header is cut off", offset=offset)
        magic, version, flags, references, size, oid, tid, previous, lead_crc, data_crc = _FIELDS.unpack_from(
            buffer, offset
        )
        if magic != MAGIC:
            raise CorruptionError(path, "no record begins here", offset=offset)
        if version != VERSION:
            raise CorruptionError(path, f"record version {version}; this objstore reads {VERSION}", offset=offset)
        end = offset + _FIELDS.size
        if crc32(buffer[offset:end]) != _CRC.unpack_from(buffer, end)[0]:
            raise CorruptionError(path, "the checksum of a record's header is wrong", offset=offset)
        self._flags = flags
        self._lead_crc, self._data_crc = lead_crc, data_crc
        self.oid, self.tid, self.previous = Oid(oid), Tid(tid), Tid(previous)
        self._references_at = (8 if flags & COPIED else 0) + (BLOB_SIZE if flags & BLOB else 0)
        self.lead_size = self._references_at + 8 * references
        self.data_size = size

    @property
    def size(self) -> int:
        """Bytes of the whole record."""
        return HEADER_SIZE + self.lead_size + self.data_size

    @property
    def summary_size(self) -> int:
        """Bytes of the record up to its data: what `summary` needs."""
        return HEADER_SIZE + self.lead_size

    def _lead(
        self, buffer: bytes | memoryview, offset: int, path: str
    ) -> tuple[bytes | None, Tid | None, BlobFacts | None]:
        """What is known of the data, verified: its references, the tid that it was copied from, and its blob."""
        start = offset + HEADER_SIZE
        lead = bytes(buffer[start : start + self.lead_size])
        if len(lead) < self.lead_size:
            raise self._damage(path, "a record is cut off", offset)
        if crc32(lead) != self._lead_crc:
            raise self._damage(path, "the checksum of a record's references is wrong", offset)
        copied = Tid(lead[:8]) if self._flags & COPIED else None
        at = self._references_at
        blob = BlobFacts(*_BLOB.unpack_from(lead, at - BLOB_SIZE)) if self._flags & BLOB else None
        return lead[at:] if self._flags & REFERENCES_KNOWN else None, copied, blob

    def _damage(self, path: str, reason: str, offset: int) -> CorruptionError:
        return CorruptionError(path, reason, offset=offset, oid=self.oid, tid=self.tid)

    def revision(self, buffer: bytes | memoryview, offset: int, path: str) -> Revision:
        """The revision whose record begins at `offset`, verified. Raises `CorruptionError`."""
        known = self._lead(buffer, offset, path)
        start = offset + self.summary_size
        data = bytes(buffer[start : start + self.data_size])
        if len(data) < self.data_size:
            raise self._damage(path, "a record is cut off", offset)
        if crc32(data) != self._data_crc:
            raise self._damage(path, "the checksum of a record is wrong", offset)
        deleted = self._flags & DELETED
        return Revision(self.oid, self.tid, self.previous, None if deleted else data, *known)

    def summary(self, buffer: bytes | memoryview, offset: int, path: str) -> RevisionSummary:
        """The revision without its data, from a buffer that may end after `summary_size` bytes.

        Verified as far as it goes: damage of the data alone is not seen. Raises `CorruptionError`.
        """
        known = self._lead(buffer, offset, path)
        deleted = bool(self._flags & DELETED)
        return RevisionSummary(self.oid, self.tid, self.previous, self.data_size, deleted, *known)


def data_of(record: bytes, oid: Oid) -> tuple[bytes | None, Tid] | None:
    """Data (None where the object was deleted) and tid of a whole record of an object, all of it verified.

    This is what every load asks, so it makes nothing else. None where anything is wrong: `decode` says what.
    """
    if len(record) < HEADER_SIZE:
        return None
    magic, version, flags, references, size, found, tid, _, lead_crc, data_crc, crc = _HEADER.unpack_from(record)
    start = HEADER_SIZE + 8 * references
    if flags & COPIED:
        start += 8
    if flags & BLOB:
        start += BLOB_SIZE
    data = record[start:]
    if (
        magic != MAGIC
        or version != VERSION
        or found != oid
        or size != len(data)
        or crc32(record[: _FIELDS.size]) != crc
        or crc32(data) != data_crc
        or crc32(record[HEADER_SIZE:start]) != lead_crc
    ):
        return None
    return None if flags & DELETED else data, tid


def decode(buffer: bytes | memoryview, offset: int = 0, path: str = "<bytes>") -> Revision:
    """The revision whose record begins at `offset`, verified. Raises `CorruptionError`."""
    return Header(buffer, offset, path).revision(buffer, offset, path)
