"""Values whose bytes are known, and how they are written: what the tests of the formats share."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from objstore.contracts import Format, History
from objstore.engine.drafts import Draft
from objstore.engine.journal import Journal, Waiting
from objstore.errors import CorruptionError
from objstore.formats import layouts, records, segments
from objstore.formats.segments import Kind, SegmentWriter
from objstore.formats.settings import Settings
from objstore.formats.transactions import encode_details
from objstore.ids import NO_TID, Tid, number, oid_from, pack_oids, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.revisions import BlobFacts, Details, Revision, Transaction

MASKS = (0x01, 0x80, 0xFF)
TOKEN = bytes.fromhex("a1b2c3d400000001")
FIRST, SECOND = tid_from(0x03F0_0000_1111_1111), tid_from(0x03F0_0001_2222_2222)
TWO = pack_oids([oid_from(7), oid_from(9)])
RECORD = Revision(oid_from(0x1_0203), SECOND, FIRST, b"a pickle, two pickles", TWO)
DELETED = Revision(oid_from(0x1_0203), SECOND, FIRST, None, None)
COPIED = Revision(oid_from(0x1_FFFF), SECOND, FIRST, b"as it was", b"", copied_from=FIRST)
BLOB = Revision(
    oid_from(0x1_FFFF), SECOND, FIRST, b"a blob", b"", copied_from=FIRST, blob=BlobFacts(5 * 2**30, 0xCAFE)
)
EMPTY = Revision(oid_from(1), SECOND, NO_TID, b"", None)
BY_ADA = Transaction(SECOND, FIRST, Details("ada", "näht", b'{"a": 1}'), (oid_from(0x1_0203), oid_from(0x1_FFFF)))
SETTINGS = Settings(History.FULL, Format.SEGMENTED, "6f1d1c1e-5a86-4d3c-9a58-0c8a8f2b7a10")
EXAMPLES = [RECORD, DELETED, COPIED, BLOB, EMPTY]


def add(draft: Draft, revision: Revision) -> None:
    """Add a revision to a transaction that is being written."""
    known = (revision.references, revision.copied_from, revision.blob)
    draft.add(revision.oid, revision.previous, revision.data, *known)


def journal_file(revisions: list[Revision], details: Details) -> tuple[MemoryFilesystem, Journal, str]:
    """A journal with one committed transaction, and the path of its file."""
    filesystem = MemoryFilesystem()
    journal = Journal(filesystem, "")
    draft = journal.begin(TOKEN, details)
    for revision in revisions:
        add(draft, revision)
    draft.complete()
    journal.name(draft, SECOND, FIRST)
    waiting = journal.commit(draft, details, SECOND, FIRST, FIRST)
    return filesystem, journal, f"{waiting.path}/t"


def adopted(journal: Journal) -> Waiting:
    """Its transaction, as recovery reads it."""
    name = layouts.done_name(SECOND, FIRST)
    header = journal.header(name)
    if header is None:
        raise CorruptionError(name, "nothing was committed here")
    return journal.adopt(name, header, whole=False)


def segment_bytes(kind: Kind, bucket: int, entries: list[tuple[int, int, bytes]], first: Tid, last: Tid) -> bytes:
    filesystem = MemoryFilesystem()
    with filesystem.create("/s") as file:
        writer = SegmentWriter(file, kind, bucket)
        for entry in entries:
            writer.add(*entry)
        size = writer.finish(first, last)
    content = filesystem.read("/s")
    assert len(content) == size
    return content


def revision_segment() -> bytes:
    older = RECORD._replace(tid=FIRST, previous=NO_TID, data=b"odd")
    entries = [
        (segments.low_of(revision.oid), number(revision.tid), records.encode(revision))
        for revision in (older, RECORD, COPIED)
    ]
    return segment_bytes(Kind.REVISIONS, 1, entries, FIRST, SECOND)


def details_segment() -> bytes:
    before = BY_ADA._replace(tid=FIRST, previous=NO_TID)
    entries = [(0, number(found.tid), encode_details(found)) for found in (before, BY_ADA)]
    return segment_bytes(Kind.DETAILS, 0, entries, FIRST, SECOND)


def damaged(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The content with each single byte changed, in several ways."""
    for at, mask in product(range(len(content)), MASKS):
        changed = bytearray(content)
        changed[at] ^= mask
        yield at, bytes(changed)


def put(filesystem: MemoryFilesystem, path: str, content: bytes) -> None:
    if filesystem.exists(path):
        filesystem.unlink(path)
    with filesystem.create(path) as file:
        file.write(content)
