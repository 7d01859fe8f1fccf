"""The journal: committed transactions that are not yet flushed, each a directory with one file.

A transaction is written into `working_<token>_temp/t`, synced there, and committed by renaming the
directory to `working_<tid>_<previous tid>_done`. The rename is durable, and with it all renames before it,
once the journal's directory has been synced.

A flushed transaction's directory is recycled as `spare_<token>`: writing over a file that has its blocks
already saves the creation, and the sync of its size. The header says how much of such a file is meant, and
each record carries the token of its transaction, so that nobody takes old bytes for new or new for old.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

from objstore.contracts import Filesystem
from objstore.errors import CorruptionError
from objstore.formats import layouts, records
from objstore.formats.transactions import (
    FILE_HEADER_SIZE,
    FileHeader,
    Place,
    decode_header,
    decode_tail,
    encode_tail,
)
from objstore.ids import NO_TID, Oid, Tid
from objstore.revisions import Details, Revision, RevisionSummary, Transaction

MAX_SPARES = 512
MAX_SPARE_SIZE = 64 * 2**10
"""A file longer than this many bytes is removed rather than kept for reuse."""
BLOCK = 4096
"""Files are padded to this, so that a recycled one seldom has to grow."""


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """A transaction written and synced, but not committed."""

    path: str
    token: bytes
    header: FileHeader
    transaction: Transaction
    places: list[Place]


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A committed transaction in the journal."""

    path: str
    header: FileHeader
    transaction: Transaction
    places: list[Place]

    @property
    def tid(self) -> Tid:
        return self.transaction.tid

    @property
    def size(self) -> int:
        """Bytes of its file that are meant."""
        return self.header.end


class Journal:
    """The directory of transactions. Its methods do one step each; the order of steps is the callers'."""

    def __init__(self, filesystem: Filesystem, path: str) -> None:
        self.filesystem = filesystem
        self.path = path
        self._spares: list[str] = []  # append and pop are atomic, so it needs no lock

    # --- writing ---

    def write(self, token: bytes, durable: Tid, details: Details, revisions: Sequence[Revision]) -> Draft:
        """Write a transaction and make it durable, but for its name: one fdatasync, and one fsync of its
        directory unless that is a recycled one. Raises OSError; nothing is left then.
        """
        encoded = [records.encode(revision, Tid(token)) for revision in revisions]
        oids = tuple(revision.oid for revision in revisions)
        transaction = Transaction(Tid(token), NO_TID, details, oids)
        tail = encode_tail(transaction, [len(record) for record in encoded])
        body = b"".join([*encoded, tail])
        end = FILE_HEADER_SIZE + len(body)
        header = FileHeader(token, durable, len(encoded), end - len(tail), end, crc32(body))
        places = []
        offset = FILE_HEADER_SIZE
        for record in encoded:
            places.append(Place(offset, len(record)))
            offset += len(record)
        path = f"{self.path}/{layouts.temp_name(token)}"
        try:
            self._write_file(path, b"".join((header.encode(), body, bytes(-end % BLOCK))))
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to report; recovery drops the rest
                self._remove(path)
            raise
        return Draft(path, token, header, transaction, places)

    def _write_file(self, path: str, content: bytes) -> None:
        name = f"{path}/{layouts.TRANSACTION_FILE}"
        recycled = self._take_spare(path)
        if not recycled:
            self.filesystem.make_directory(path)
        with self.filesystem.open_existing(name) if recycled else self.filesystem.create(name) as file:
            file.write(content)
            file.sync()
        if not recycled:
            self.filesystem.sync_directory(path)

    def _take_spare(self, path: str) -> bool:
        while self._spares:
            try:
                self.filesystem.rename(self._spares.pop(), path)
            except (IndexError, FileNotFoundError):  # another thread took the last, or somebody removed it
                continue
            return True
        return False

    def commit(self, draft: Draft, tid: Tid, previous: Tid) -> Waiting:
        """Give a draft its name. Durable after the next `sync`. Raises OSError; it is a draft still then."""
        path = f"{self.path}/{layouts.done_name(tid, previous)}"
        self.filesystem.rename(draft.path, path)
        transaction = replace(draft.transaction, tid=tid, previous=previous)
        return Waiting(path, draft.header, transaction, draft.places)

    def sync(self) -> None:
        """Make every name in the journal durable."""
        self.filesystem.sync_directory(self.path)

    # --- reading ---

    def adopt(self, name: layouts.DoneName) -> Waiting:
        """Read a committed transaction's header, table and details, verified. Raises CorruptionError."""
        path = f"{self.path}/{layouts.done_name(name.tid, name.previous)}"
        file = f"{path}/{layouts.TRANSACTION_FILE}"
        try:
            header = decode_header(self.filesystem.read_at(file, 0, FILE_HEADER_SIZE), file)
            tail = self.filesystem.read_at(file, header.tail, header.end - header.tail)
        except FileNotFoundError as error:
            raise CorruptionError(file, "a committed transaction's file is missing", tid=name.tid) from error
        transaction, places = decode_tail(tail, header, file)
        return Waiting(path, header, replace(transaction, tid=name.tid, previous=name.previous), places)

    def revision(self, waiting: Waiting, oid: Oid, place: Place) -> Revision:
        """One revision, verified. Raises CorruptionError or OSError, also where the file was recycled."""
        path = f"{waiting.path}/{layouts.TRANSACTION_FILE}"
        buffer = self.filesystem.read_at(path, place.offset, place.size)
        return self._verified(records.decode(buffer, 0, path), waiting, oid, place, path)

    def revisions(self, waiting: Waiting) -> list[Revision]:
        """All revisions of a transaction, in its order, with the checksum of the whole verified."""
        path = f"{waiting.path}/{layouts.TRANSACTION_FILE}"
        content = self.filesystem.read_at(path, 0, waiting.size)
        header = decode_header(content, path)
        if header != waiting.header or crc32(memoryview(content)[FILE_HEADER_SIZE:]) != header.body_crc:
            raise CorruptionError(path, "the checksum of a transaction is wrong", tid=waiting.tid)
        return [
            self._verified(records.decode(content, place.offset, path), waiting, oid, place, path)
            for oid, place in zip(waiting.transaction.oids, waiting.places, strict=True)
        ]

    def _verified(self, revision: Revision, waiting: Waiting, oid: Oid, place: Place, path: str) -> Revision:
        if revision.oid != oid or revision.tid != waiting.header.token:
            raise CorruptionError(
                path, "another record stands in its place", offset=place.offset, oid=oid, tid=waiting.tid
            )
        return replace(revision, tid=waiting.tid)

    def summary(self, waiting: Waiting, oid: Oid, place: Place) -> RevisionSummary:
        """One revision without its data. Raises as `revision` does."""
        path = f"{waiting.path}/{layouts.TRANSACTION_FILE}"
        header = records.Header(self.filesystem.read_at(path, place.offset, records.HEADER_SIZE), 0, path)
        if header.oid != oid or header.tid != waiting.header.token:
            raise CorruptionError(
                path, "another record stands in its place", offset=place.offset, oid=oid, tid=waiting.tid
            )
        lead = self.filesystem.read_at(path, place.offset, header.summary_size)
        return replace(header.summary(lead, 0, path), tid=waiting.tid)

    # --- letting go ---

    def discard(self, draft: Draft) -> None:
        """Remove a draft. Raises OSError; recovery drops what stays."""
        self._remove(draft.path)

    def recycle(self, path: str, size: int, token: bytes) -> None:
        """Let go of a flushed transaction's directory, keeping it for reuse where that pays."""
        if size <= MAX_SPARE_SIZE and len(self._spares) < MAX_SPARES:
            spare = f"{self.path}/{layouts.spare_name(token)}"
            self.filesystem.rename(path, spare)
            self._spares.append(spare)
        else:
            self._remove(path)

    def keep_spare(self, name: layouts.SpareName) -> None:
        """Use, or remove, a spare directory that was found at opening."""
        path = f"{self.path}/{layouts.spare_name(name.token)}"
        whole = self.filesystem.exists(f"{path}/{layouts.TRANSACTION_FILE}")
        if whole and len(self._spares) < MAX_SPARES:
            self._spares.append(path)
        else:
            self._remove(path)

    def remove(self, name: str) -> None:
        """Remove a directory of this name with all it holds."""
        self._remove(f"{self.path}/{name}")

    def _remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            for entry in self.filesystem.entries(path):
                self.filesystem.unlink(f"{path}/{entry.name}")
            self.filesystem.remove_directory(path)
