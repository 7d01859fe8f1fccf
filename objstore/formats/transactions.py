"""The transaction codecs: details as bytes, and the file that a transaction is in the journal.

`docs/format/transaction.md` is the specification. Details stand alone in the home of a Full store
(`t<tid>`), and within a journal file, where they carry the transaction's token in place of the tid, because
they are written before the tid is known.

A journal file is: a header of fixed size; the records; the table of where they stand; the details. The
header is written last, and commits: it says which transaction this is, and has the checksum of all the rest.
It also says how long all of it is, because a recycled file may be longer than what it holds now.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Sequence
from itertools import accumulate, compress, pairwise
from typing import NamedTuple
from zlib import crc32

from objstore.errors import CorruptionError
from objstore.ids import Oid, Tid
from objstore.revisions import Details, Transaction

DETAILS_MAGIC, FILE_MAGIC = b"oT", b"oJ"
VERSION, FILE_VERSION = 1, 2

_DETAILS = struct.Struct(">2sBx8s8sIIII")  # then user, description, extension, oids, checksum of all
_FILE = struct.Struct(">2sBx8s8s8s8sIQQII")  # the last number is the checksum of the header before it
_CRC = struct.Struct(">I")
FILE_HEADER_SIZE = _FILE.size
_TEXT = ("utf-8", "surrogateescape")
"""Bytes that are no UTF-8, as Python 2 has written them, come back as they were."""
_DEAD = 1 << 63
"""Marks the size of a record that was written and then replaced by another of the same file."""
_BLOB = 1 << 62
"""Marks the size of a record whose blob stands beside the file."""


def encode_details(transaction: Transaction) -> bytes:
    """A transaction's details and the oids it wrote, as bytes."""
    details = transaction.details
    user, description = details.user.encode(*_TEXT), details.description.encode(*_TEXT)
    head = _DETAILS.pack(
        DETAILS_MAGIC,
        VERSION,
        transaction.tid,
        transaction.previous,
        len(user),
        len(description),
        len(details.extension),
        len(transaction.oids),
    )
    body = b"".join((head, user, description, details.extension, *transaction.oids))
    return body + _CRC.pack(crc32(body))


def decode_details(buffer: bytes, path: str = "<bytes>") -> Transaction:
    """The transaction of a buffer that holds nothing else. Raises `CorruptionError`."""
    if len(buffer) < _DETAILS.size + _CRC.size:
        raise CorruptionError(path, "a transaction's details are cut off")
    magic, version, tid, previous, *sizes, count = _DETAILS.unpack_from(buffer)
    if magic != DETAILS_MAGIC:
        raise CorruptionError(path, "these are no transaction's details")
    if version != VERSION:
        raise CorruptionError(path, f"transaction version {version}; this objstore reads {VERSION}")
    if len(buffer) != _DETAILS.size + sum(sizes) + 8 * count + _CRC.size:
        raise CorruptionError(path, "a transaction's details have the wrong length", tid=Tid(tid))
    if crc32(buffer[: -_CRC.size]) != _CRC.unpack_from(buffer, len(buffer) - _CRC.size)[0]:
        raise CorruptionError(path, "the checksum of a transaction's details is wrong", tid=Tid(tid))
    ends = [_DETAILS.size]
    for size in sizes:
        ends.append(ends[-1] + size)
    user, description, extension = (buffer[start:end] for start, end in pairwise(ends))
    oids = tuple(Oid(buffer[at : at + 8]) for at in range(ends[-1], len(buffer) - _CRC.size, 8))
    details = Details(user.decode(*_TEXT), description.decode(*_TEXT), extension)
    return Transaction(Tid(tid), Tid(previous), details, oids)


def verified_tid(buffer: memoryview, path: str) -> int:
    """The tid, as a number, of details that a buffer holds and nothing else; they are verified, but not decoded.

    Raises `CorruptionError`.
    """
    end = len(buffer) - _CRC.size
    if end < _DETAILS.size or crc32(buffer[:end]) != _CRC.unpack_from(buffer, end)[0]:
        raise CorruptionError(path, "the checksum of a transaction's details is wrong")
    if bytes(buffer[:3]) != DETAILS_MAGIC + bytes((VERSION,)):
        raise CorruptionError(path, "these are no transaction's details, or of another version")
    return int.from_bytes(buffer[4:12])


# --- the journal file --------------------------------------------------------------------------------


class FileHeader(NamedTuple):
    """The first `FILE_HEADER_SIZE` bytes of a journal file that was committed; zeros before.

    `token` is unlike that of any other transaction; the records carry it as their tid. `tid` and `previous`
    are those of the transaction and of the one before. `durable` is the newest transaction that was known to
    be durable when this one was committed: recovery needs it to tell a tail that was never acknowledged from
    damage. `records` is how many there are, `tail` where they end and table and details begin, `end` where all
    ends. `body_crc` is the checksum of all between the header and `end`.
    """

    token: bytes
    tid: Tid
    previous: Tid
    durable: Tid
    records: int
    tail: int
    end: int
    body_crc: int

    def encode(self) -> bytes:
        ids = (self.token, self.tid, self.previous, self.durable)
        sizes = (self.records, self.tail, self.end)
        head = _FILE.pack(FILE_MAGIC, FILE_VERSION, *ids, *sizes, self.body_crc, 0)[: -_CRC.size]
        return head + _CRC.pack(crc32(head))


def decode_header(buffer: bytes, path: str = "<bytes>") -> FileHeader:
    """The header of a journal file, verified. Raises `CorruptionError`, also where it was not committed."""
    if len(buffer) < FILE_HEADER_SIZE:
        raise CorruptionError(path, "a journal file is cut off", offset=0)
    magic, version, token, tid, previous, durable, count, tail, end, body_crc, crc = _FILE.unpack_from(buffer)
    if magic != FILE_MAGIC:
        raise CorruptionError(path, "this is no journal file, or none that was committed", offset=0)
    if version != FILE_VERSION:
        raise CorruptionError(path, f"journal version {version}; this objstore reads {FILE_VERSION}", offset=0)
    if crc32(buffer[: FILE_HEADER_SIZE - _CRC.size]) != crc:
        raise CorruptionError(path, "the checksum of a journal file's header is wrong", offset=0)
    return FileHeader(token, Tid(tid), Tid(previous), Tid(durable), count, tail, end, body_crc)


def encode_tail(
    transaction: Transaction, sizes: list[int], dead: Container[int] = (), blobs: Container[int] = ()
) -> bytes:
    """The table (the sizes of the records, in order, and its checksum) and the details.

    `dead` are the positions of records that do not count; the transaction's oids are those of the others. `blobs`
    are the positions of those that have a blob.
    """
    if dead or blobs:
        marks = ((_DEAD if at in dead else 0) | (_BLOB if at in blobs else 0) for at in range(len(sizes)))
        sizes = [size | mark for size, mark in zip(sizes, marks, strict=True)]
    table = struct.pack(f">{len(sizes)}Q", *sizes)
    return table + _CRC.pack(crc32(table)) + encode_details(transaction)


def decode_tail(
    buffer: bytes, header: FileHeader, path: str
) -> tuple[Transaction, Sequence[int], Sequence[int], frozenset[Oid]]:
    """The transaction, the offsets and sizes of its records in the order of its oids, and which have blobs."""
    if len(buffer) != header.end - header.tail or len(buffer) < 8 * header.records + _CRC.size:
        raise CorruptionError(path, "a journal file's table is cut off", offset=header.tail)
    table = buffer[: 8 * header.records]
    if crc32(table) != _CRC.unpack_from(buffer, len(table))[0]:
        raise CorruptionError(path, "the checksum of a journal file's table is wrong", offset=header.tail)
    sizes: Sequence[int] = struct.unpack(f">{header.records}Q", table)
    dead: Container[int] = ()
    marked: list[int] = []
    if max(sizes, default=0) >= _BLOB:
        dead = {at for at, size in enumerate(sizes) if size & _DEAD}
        marked = [size & _BLOB for at, size in enumerate(sizes) if at not in dead]
        sizes = [size & ~(_DEAD | _BLOB) for size in sizes]
    offsets = list(accumulate(sizes, initial=FILE_HEADER_SIZE))
    end = offsets.pop()
    if dead:
        offsets = [offset for at, offset in enumerate(offsets) if at not in dead]
        sizes = [size for at, size in enumerate(sizes) if at not in dead]
    written = decode_details(buffer[len(table) + _CRC.size :], path)
    if end != header.tail or len(written.oids) != len(offsets) or written.tid != header.token:
        raise CorruptionError(path, "a journal file's table does not fit its records", offset=header.tail)
    blobs = frozenset(compress(written.oids, marked))
    return Transaction(header.tid, header.previous, written.details, written.oids), offsets, sizes, blobs
