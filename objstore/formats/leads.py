"""The references of many records at once, from their headers and leads: what marking asks of a segment.

Nothing is made for a record but what it refers to. All that is read is verified: header and lead against
their checksums, oid and tid against what the index says. Where a header does not tell the references, they are
found in the data, by `pickles.references` where the caller has no other way.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from zlib import crc32

from objstore.errors import CorruptionError, SerializationError
from objstore.formats import pickles, records
from objstore.ids import oid_from, tid_from

_HEADER: Final = struct.Struct(">4sI4xQQ8xI4xI")
"""Magic, version and flags together; count of references; oid; tid; checksum of the lead; that of the header."""
_CHECKED: Final = records.HEADER_SIZE - 4
_PLAIN: Final = records.MAGIC + bytes((records.VERSION, records.REFERENCES_KNOWN))


def references_at(
    buffer: memoryview,
    places: Iterable[tuple[int, int, int]],
    path: str,
    extracted: Callable[[bytes], bytes] = pickles.references,
) -> Iterator[tuple[int, bytes]]:
    """Of the records at places (offset, oid, tid), those that refer to anything: oid, and packed references.

    Raises `CorruptionError`.
    """
    unpack, size = _HEADER.unpack_from, records.HEADER_SIZE
    end = len(buffer) - size
    for offset, oid, tid in places:
        if offset > end:
            raise CorruptionError(path, "a record's header is cut off", offset=offset)
        kind, count, found_oid, found_tid, lead_crc, crc = unpack(buffer, offset)
        if (
            kind == _PLAIN
            and found_oid == oid
            and found_tid == tid
            and crc32(buffer[offset : offset + _CHECKED]) == crc
        ):
            if not count:
                continue
            lead = bytes(buffer[offset + size : offset + size + 8 * count])
            if len(lead) == 8 * count and crc32(lead) == lead_crc:
                yield oid, lead
                continue
        found = _slowly(buffer, offset, oid, tid, path, extracted)
        if found:
            yield oid, found


def _slowly(
    buffer: memoryview, offset: int, oid: int, tid: int, path: str, extracted: Callable[[bytes], bytes]
) -> bytes:
    """The same of one record, of any kind; or what is wrong with it."""
    summary = records.Header(buffer, offset, path).summary(buffer, offset, path)
    if (summary.oid, summary.tid) != (oid_from(oid), tid_from(tid)):
        raise CorruptionError(
            path, "another record stands in its place", offset=offset, oid=oid_from(oid), tid=tid_from(tid)
        )
    if summary.references is not None or summary.deleted:
        return summary.references or b""
    data = records.decode(buffer, offset, path).data
    try:
        return extracted(data or b"")
    except SerializationError as error:
        raise CorruptionError(path, str(error), offset=offset, oid=summary.oid, tid=summary.tid) from error
