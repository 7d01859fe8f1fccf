"""A transaction while it is written: a directory of the journal, with its file open.

1. Records are added, as the transaction stores them; past `CHUNK` bytes they are written, so a transaction of any
   size needs little memory.
2. `complete` writes the rest, with table and details. Room on the disk was allocated before each write, so a full
   disk shows here, and the place of the header holds zeros. Where a recycled file has the room already, nothing
   is written yet.
3. More may be added still, as when a conflict was resolved; a record that replaces one of the same object
   makes that one dead. Then it is completed again.
4. `seal` writes the header, which commits, and what was not written yet. It goes over bytes that the file has
   already.
5. `sync` makes it durable: one sync of the file where the directory is a recycled one, so that its names are
   durable already; else two more, of the new directory and of the journal.

A crash before 4 leaves a file that says nothing; between 4 and the end of 5 the transaction may be there or
not, whole in the first case, because the header has the checksum of all the rest.
"""

from __future__ import annotations

from zlib import crc32

from objstore.contracts import Filesystem, WritableFile
from objstore.formats import records
from objstore.formats.layouts import TRANSACTION_FILE, waiting_blob_name
from objstore.formats.transactions import FILE_HEADER_SIZE, FileHeader, encode_tail
from objstore.ids import NO_TID, Oid, Tid
from objstore.revisions import BlobFacts, Details, Revision, Transaction

CHUNK = 2**20
"""How many bytes of records are kept back before they are written."""
BLOCK = 4096
"""Files are padded to this, so that a recycled one seldom has to grow."""


class Draft:
    """A transaction that was not committed yet. Used by one thread at a time."""

    def __init__(
        self,
        filesystem: Filesystem,
        path: str,
        token: bytes,
        details: Details,
        file: WritableFile,
        *,
        recycled: bool,
        room: int = 0,
    ) -> None:
        """`room` is how many bytes a recycled file is known to have."""
        self.path = path
        self.is_named = False
        """Whether it has its last name, or is about to get it."""
        self.token = token
        self._filesystem = filesystem
        self._details = details
        self._file = file
        self.recycled = recycled
        self._room = room
        self._whole = b""  # all that is meant and the padding, where it was never written in parts
        self._is_out = False  # whether it was written, but for the header
        self._chunks: list[bytes] = [bytes(FILE_HEADER_SIZE)]  # what was added and not written
        self._held = FILE_HEADER_SIZE  # bytes of them
        self._written = 0  # where they belong
        self._crc = 0  # of the records that were written
        self._tail = FILE_HEADER_SIZE  # where the next record will begin
        self._first = 0  # which record is the first that was not written
        self._sizes: list[int] = []
        self._offsets: list[int] = []
        self._at: dict[Oid, int] = {}  # which of them is an object's
        self._dead: set[int] = set()
        self.blobs: set[Oid] = set()
        """The objects whose blobs stand beside the file."""
        self._blob_sources: set[str] = set()  # directories that blobs came from, since they were last synced
        self._end = 0
        self._body_crc = 0

    # --- writing ---

    def add(
        self,
        oid: Oid,
        previous: Tid,
        data: bytes | None,
        references: bytes | None,
        copied_from: Tid | None,
        blob: BlobFacts | None = None,
        *,
        keeps_blob: bool = False,
    ) -> None:
        """Add a record, in place of an earlier one of the same object, whose blob goes unless it is kept.

        Raises OSError.
        """
        record = records.encoded(oid, Tid(self.token), previous, data, references, copied_from, blob)
        size, at = len(record), self._at
        if oid in at:
            self._dead.add(at.pop(oid))
            if oid in self.blobs and not keeps_blob:
                self.blobs.remove(oid)
                self._filesystem.unlink(self._blob_path(oid))
        at[oid] = len(self._sizes)
        self._sizes.append(size)
        self._offsets.append(self._tail)
        self._chunks.append(record)
        self._tail += size
        self._held += size
        if self._held >= CHUNK:
            self._write()

    def take_blob(self, oid: Oid, path: str) -> None:
        """Move the file of a blob, whose record was just added, to where it belongs. Raises OSError."""
        self._filesystem.rename(path, self._blob_path(oid))
        self.blobs.add(oid)
        self._blob_sources.add(path.rpartition("/")[0])

    def _blob_path(self, oid: Oid) -> str:
        return f"{self.path}/{waiting_blob_name(oid)}"

    def sync_blobs(self) -> None:
        """Make the blobs durable, with their names in this directory, if there are any. Raises OSError."""
        if not self._blob_sources:
            return
        for oid in sorted(self.blobs):
            with self._filesystem.open_existing(self._blob_path(oid)) as file:
                file.sync()
        for directory in (self.path, *sorted(self._blob_sources)):
            self._filesystem.sync_directory(directory)
        self._blob_sources.clear()

    def remove_blobs(self) -> None:
        """Remove what was taken, because the directory is to be used for another transaction. Raises OSError."""
        for oid in self.blobs:
            self._filesystem.unlink(self._blob_path(oid))
        self.blobs.clear()

    def complete(self) -> None:
        """Write all of it, but for the header; or nothing, if there is room for it. Raises OSError."""
        transaction = Transaction(Tid(self.token), NO_TID, self._details, self.oids)
        ending = encode_tail(transaction, self._sizes, self._dead, {self._at[oid] for oid in self.blobs})
        self._end = self._tail + len(ending)
        if self._written:
            self._write(ending)
            return
        self._whole = self._joined(ending)
        self._body_crc = crc32(memoryview(self._whole)[FILE_HEADER_SIZE : self._end])
        self._is_out = self._end > self._room
        if self._is_out:
            self._file.allocate(len(self._whole))
            self._file.write_at(0, self._whole)

    def _joined(self, ending: bytes) -> bytes:
        """What is held back; with an ending, padded."""
        padding = bytes(-self._end % BLOCK) if ending else b""
        return b"".join((*self._chunks, ending, padding))

    def _write(self, ending: bytes = b"") -> None:
        """Write the records that are held back; with an ending, to where the next record will overwrite it."""
        content = self._joined(ending)
        self._file.allocate(self._written + len(content))
        self._file.write_at(self._written, content)
        begin = 0 if self._written else FILE_HEADER_SIZE
        self._crc = crc32(memoryview(content)[begin : self._held], self._crc)
        self._body_crc = crc32(ending, self._crc)
        self._written += self._held
        self._held = 0
        self._whole = b""
        self._first = len(self._sizes)
        self._chunks.clear()

    # --- what it holds ---

    @property
    def content(self) -> bytes | None:
        """Once it is sealed all that its file holds, where that was not so much that it was written in parts."""
        return self._whole or None

    @property
    def size(self) -> int:
        """Bytes of its file that are meant, once it is complete."""
        return self._end

    @property
    def oids(self) -> tuple[Oid, ...]:
        """The objects that it has records of, in the order of the records."""
        return tuple(self._at)

    @property
    def places(self) -> tuple[list[int], list[int]]:
        """Where the records of these objects begin, and how large they are."""
        if not self._dead:
            return self._offsets, self._sizes
        alive = self._at.values()
        return [self._offsets[at] for at in alive], [self._sizes[at] for at in alive]

    def read(self, oid: Oid) -> Revision:
        """A record that was added, at the token. Raises CorruptionError, OSError."""
        at, file = self._at[oid], f"{self.path}/{TRANSACTION_FILE}"
        if at >= self._first:
            return records.decode(self._chunks[at - self._first + (0 if self._written else 1)], 0, file)
        return records.decode(self._filesystem.read_at(file, self._offsets[at], self._sizes[at]), 0, file)

    # --- committing ---

    def seal(self, tid: Tid, previous: Tid, durable: Tid) -> FileHeader:
        """Write the header. Raises OSError: nobody can say then whether it is written."""
        header = FileHeader(
            self.token, tid, previous, durable, len(self._sizes), self._tail, self._end, self._body_crc
        )
        start = header.encode()
        if self._whole:
            self._whole = start + self._whole[FILE_HEADER_SIZE:]
        self._file.write_at(0, start if self._is_out else self._whole or start)
        return header

    def sync(self) -> None:
        """Make it durable, with its name. May be repeated. Raises OSError: nobody can say then whether it is."""
        self._file.sync()
        if not self.recycled:
            self._filesystem.sync_directory(self.path)
            self._filesystem.sync_directory(self.path.rpartition("/")[0])

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
