"""The journal: committed transactions that are not yet flushed, each a directory with one file.

A transaction is written into `spare_<token>/t` or, where there is none to be used again, into
`working_<token>_temp/t` (see `drafts`). It is committed by renaming the directory to
`working_<tid>_<previous tid>_done` and writing the file's header, which says the same; and it is durable once
the file was synced, and all transactions before it are durable.

A flushed transaction's directory is recycled as `spare_<token>`: writing over a file that has its blocks
already saves the creation, and the syncs of its names. So a commit costs one sync. A crash may take back the
rename of a recycled directory: what counts is the header, under whatever name. It says how much of such a
file is meant, and each record carries the token of its transaction, so that nobody takes old bytes for new or
new for old.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple
from zlib import crc32

from objstore.contracts import Filesystem, WritableFile
from objstore.engine.drafts import BLOCK, Draft
from objstore.errors import CorruptionError
from objstore.formats import layouts, records
from objstore.formats.recordruns import RecordRun
from objstore.formats.transactions import (
    FILE_HEADER_SIZE,
    FileHeader,
    decode_header,
    decode_tail,
)
from objstore.ids import Oid, Tid
from objstore.revisions import Details, Revision, RevisionSummary, Transaction

MAX_SPARES = 512
MAX_SPARE_SIZE = 2**20
"""A file longer than this many bytes is removed rather than kept for reuse."""
LASTING_SPARE_SIZE = 64 * 2**10
"""A longer one is not kept beyond the time for which the store is open."""
MAX_SPARE_BYTES = 32 * 2**20
"""A longer one is kept only while all of them have no more together."""
MAPPED_SIZE = 2**20
"""A file with more than this many bytes is mapped to be flushed, so that its size costs no memory."""

VERIFIED_AT_ONCE = 32 * 2**20
"""How many bytes of such a file are in memory when it is read."""


class Waiting(NamedTuple):
    """A committed transaction in the journal: record `at` is that of the oid `at`, and stands at its offset."""

    path: str
    header: FileHeader
    transaction: Transaction
    offsets: Sequence[int]
    sizes: Sequence[int]
    blobs: frozenset[Oid] = frozenset()
    """The objects whose blobs it wrote: files of its directory, until a flush moves them."""
    content: bytes | None = None
    """What its file holds, if this process has written it a moment ago and keeps it in memory."""

    @property
    def tid(self) -> Tid:
        return self.transaction.tid

    @property
    def size(self) -> int:
        """Bytes of its file that are meant."""
        return self.header.end


class Journal:
    """The directory of transactions. Its methods do one step each; the order of steps is the callers'."""

    def __init__(self, filesystem: Filesystem, path: str, prefix: bytes = b"") -> None:
        """`prefix` is what the tokens of this process begin with: a spare belongs to the process whose token
        it has.
        """
        self.filesystem = filesystem
        self.path = path
        self._prefix = prefix
        self._strange = False  # whether others may have made spares for this process
        self._has_long = False  # whether there may be spares that do not last
        # Directories to be used again, and how much room their files have at least. Append and pop are atomic.
        self._spares: list[tuple[str, int]] = []
        self._mine: set[str] = set()  # these, and those that a transaction is being written into
        self._rooms: dict[bytes, int] = {}  # what long files have, by the token of who is written over them

    # --- writing ---

    def begin(self, token: bytes, details: Details) -> Draft:
        """A directory and a file for a transaction to be written into. Raises OSError; nothing is left then."""
        if not self._spares and self._strange:
            self._find_spares()
        while self._spares:
            try:
                path, room = self._spares.pop()
                if room > LASTING_SPARE_SIZE:
                    self._rooms[token] = room
                return Draft(self.filesystem, path, token, details, self._open(path), recycled=True, room=room)
            except (IndexError, FileNotFoundError):  # another thread took the last, or somebody removed it
                continue
        path = f"{self.path}/{layouts.temp_name(token)}"
        try:
            self.filesystem.make_directory(path)
            file = self.filesystem.create(f"{path}/{layouts.TRANSACTION_FILE}")
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to report; recovery drops the rest
                self._remove(path)
            raise
        return Draft(self.filesystem, path, token, details, file, recycled=False)

    def look_for_spares(self) -> None:
        """Another process has flushed: it has left what was this one's for this one."""
        self._strange = True

    def _find_spares(self) -> None:
        self._strange = False
        for entry in self.filesystem.entries(self.path):
            name = layouts.parse_journal_name(entry.name)
            if isinstance(name, layouts.SpareName) and name.token.startswith(self._prefix):
                self._keep(f"{self.path}/{entry.name}", 0)

    def _keep(self, path: str, room: int) -> None:
        if path not in self._mine:
            self._mine.add(path)
            self._spares.append((path, room))

    def _open(self, path: str) -> WritableFile:
        return self.filesystem.open_existing(f"{path}/{layouts.TRANSACTION_FILE}")

    def name(self, draft: Draft, tid: Tid, previous: Tid) -> None:
        """Give a draft its last name. Raises OSError; it has the one before still then."""
        path = f"{self.path}/{layouts.done_name(tid, previous)}"
        draft.is_named = True
        try:
            self.filesystem.rename(draft.path, path)
        except OSError:
            draft.is_named = False
            raise
        self._mine.discard(draft.path)
        draft.path = path

    def commit(self, draft: Draft, details: Details, tid: Tid, previous: Tid, durable: Tid) -> Waiting:
        """Commit a draft that was named. Durable after `Draft.sync`, if all before it are.

        Raises OSError: nobody can say then whether it is committed.
        """
        header = draft.seal(tid, previous, durable)
        transaction = Transaction(tid, previous, details, draft.oids)
        return Waiting(draft.path, header, transaction, *draft.places, frozenset(draft.blobs), draft.content)

    def sync(self) -> None:
        """Make every name in the journal durable."""
        self.filesystem.sync_directory(self.path)

    # --- reading ---

    def header(self, name: str) -> FileHeader | None:
        """What the file in a directory of this name says; None where nothing was committed in it.

        Raises CorruptionError where there is something else than a header.
        """
        file = f"{self.path}/{name}/{layouts.TRANSACTION_FILE}"
        try:
            content = self.filesystem.read_at(file, 0, FILE_HEADER_SIZE)
        except FileNotFoundError:
            return None
        return decode_header(content, file) if any(content) else None

    def adopt(self, name: str, header: FileHeader, *, whole: bool) -> Waiting:
        """Read a committed transaction's table and details, verified; all of the file if asked for the `whole`.

        Raises CorruptionError.
        """
        path = f"{self.path}/{name}"
        file = f"{path}/{layouts.TRANSACTION_FILE}"
        try:
            tail = self.filesystem.read_at(file, header.tail, header.end - header.tail)
            waiting = Waiting(path, header, *decode_tail(tail, header, file))
            if whole:
                self._content(waiting)
        except FileNotFoundError as error:  # who only looks at a journal that is in use
            raise CorruptionError(file, "a committed transaction's file is missing", tid=header.tid) from error
        return waiting

    def adopt_named(self, tid: Tid, previous: Tid, *, whole: bool = False) -> Waiting:
        """Read a transaction that has its last name. Raises as `adopt` does, also where the file is another's."""
        name = layouts.done_name(tid, previous)
        header = self.header(name)
        if header is None or (header.tid, header.previous) != (tid, previous):
            raise CorruptionError(f"{self.path}/{name}", "its file holds another transaction", tid=tid)
        return self.adopt(name, header, whole=whole)

    def sync_named(self, tid: Tid, previous: Tid) -> None:
        """Make a transaction durable that another process has written, with its name. Raises OSError."""
        path = f"{self.path}/{layouts.done_name(tid, previous)}"
        with self._open(path) as file:
            file.sync()
        self.filesystem.sync_directory(path)
        self.sync()

    def settle(self, waiting: Waiting, *, sync: bool) -> Waiting:
        """Give an adopted transaction its last name, and, if asked to, make all of it durable but that name."""
        path = f"{self.path}/{layouts.done_name(waiting.tid, waiting.transaction.previous)}"
        if waiting.path != path:
            self.filesystem.rename(waiting.path, path)
        if sync:
            with self._open(path) as file:
                file.sync()
            self.filesystem.sync_directory(path)
        return waiting._replace(path=path)

    def revision(self, waiting: Waiting, at: int) -> Revision:
        """One revision, verified. Raises CorruptionError or OSError, also where the file was recycled."""
        path = f"{waiting.path}/{layouts.TRANSACTION_FILE}"
        record = self._part(waiting, path, waiting.offsets[at], waiting.sizes[at])
        revision = records.decode(record, 0, path)
        _require_its_own(revision, waiting, at, path)
        return revision._replace(tid=waiting.tid)

    def _part(self, waiting: Waiting, path: str, offset: int, size: int) -> bytes:
        """Some bytes of a transaction's file, from memory where they are kept."""
        if waiting.content is not None:
            return waiting.content[offset : offset + size]
        return self.filesystem.read_at(path, offset, size)

    def revisions(self, waiting: Waiting) -> list[Revision]:
        """All revisions of a transaction, in its order, with the checksum of the whole verified."""
        return list(self.records(waiting))

    def records(self, waiting: Waiting) -> RecordRun:
        """The same as records that can be moved as they are. The checksum of the whole is verified at once,
        that of a record when it is decoded. The file must stay for as long as anything of this is held.
        """
        path = f"{waiting.path}/{layouts.TRANSACTION_FILE}"
        content, release = self._content(waiting)
        oids, token = waiting.transaction.oids, waiting.header.token
        return RecordRun(path, content, waiting.offsets, waiting.sizes, oids, token, waiting.tid, release)

    def _content(self, waiting: Waiting) -> tuple[bytes | memoryview, Callable[[], None] | None]:
        """All of a transaction's file that is meant, verified; and what lets go of the memory that it takes."""
        if waiting.content is not None:
            return waiting.content, None  # it was never read
        path = f"{waiting.path}/{layouts.TRANSACTION_FILE}"
        content: bytes | memoryview
        if waiting.size <= MAPPED_SIZE:
            content, release = self.filesystem.read_at(path, 0, waiting.size), None
        else:
            content = self.filesystem.map(path)[: waiting.size]
            release = partial(self.filesystem.release, content)
        crc = 0
        for start in range(FILE_HEADER_SIZE, len(content), VERIFIED_AT_ONCE):
            crc = crc32(memoryview(content)[start : start + VERIFIED_AT_ONCE], crc)
            if release is not None:
                release()
        if (
            decode_header(bytes(content[:FILE_HEADER_SIZE]), path) != waiting.header
            or crc != waiting.header.body_crc
        ):
            raise CorruptionError(path, "the checksum of a transaction is wrong", tid=waiting.tid)
        return content, release

    def summary(self, waiting: Waiting, at: int) -> RevisionSummary:
        """One revision without its data. Raises as `revision` does."""
        path, offset = f"{waiting.path}/{layouts.TRANSACTION_FILE}", waiting.offsets[at]
        header = records.Header(self._part(waiting, path, offset, records.HEADER_SIZE), 0, path)
        _require_its_own(header, waiting, at, path)
        lead = self._part(waiting, path, offset, header.summary_size)
        return header.summary(lead, 0, path)._replace(tid=waiting.tid)

    # --- letting go ---

    def discard(self, draft: Draft) -> None:
        """Let go of a draft; its directory is used again if it was before. Raises OSError.

        One that was named may be committed: it stays as it is.
        """
        draft.close()
        room = self._rooms.pop(draft.token, 0)
        if draft.is_named:
            return
        if draft.recycled and draft.size <= MAX_SPARE_SIZE:
            draft.remove_blobs()
            self._spares.append((draft.path, room))
        else:
            self._remove(draft.path)

    def recycle(self, waiting: Waiting) -> None:
        """Let go of a flushed transaction's directory, keeping it for reuse where that pays.

        One that had blobs is removed, with those that nobody wants any more.
        """
        size, token = waiting.size, waiting.header.token
        room = max(size + -size % BLOCK, self._rooms.pop(token, 0))
        is_mine = token.startswith(self._prefix)
        if self._has_place(room, is_mine=is_mine) and not waiting.blobs:
            spare = f"{self.path}/{layouts.spare_name(token)}"
            self.filesystem.rename(waiting.path, spare)
            if is_mine:
                self._keep(spare, room)
        else:
            self._remove(waiting.path)

    def _has_place(self, size: int, *, is_mine: bool) -> bool:
        """Whether one more spare is kept, whose file is so long. A long one of another process is not: that would
        not know of it when it closes.
        """
        if size > MAX_SPARE_SIZE or len(self._spares) >= MAX_SPARES:
            return False
        if size <= LASTING_SPARE_SIZE:
            return True
        self._has_long |= is_mine
        return is_mine and sum(room for _, room in list(self._spares)) + size <= MAX_SPARE_BYTES

    def trim(self) -> None:
        """Remove the spares whose files are long, before the store is closed. One that cannot be removed stays."""
        while self._has_long and self._spares:
            path, _ = self._spares.pop()
            with contextlib.suppress(OSError):
                if self.filesystem.size(f"{path}/{layouts.TRANSACTION_FILE}") > LASTING_SPARE_SIZE:
                    self._remove(path)

    def keep_spare(self, name: layouts.SpareName) -> None:
        """Use, or remove, a spare directory that was found at opening."""
        path = f"{self.path}/{layouts.spare_name(name.token)}"
        names = {entry.name for entry in self.filesystem.entries(path)}
        if layouts.TRANSACTION_FILE in names and len(self._spares) < MAX_SPARES:
            for each in names:  # blobs of a transaction that was never committed
                if layouts.parse_waiting_blob_name(each) is not None:
                    self.filesystem.unlink(f"{path}/{each}")
            self._keep(path, 0)
        else:
            self._remove(path)

    def remove(self, name: str) -> None:
        """Remove a directory of this name with all it holds."""
        self._remove(f"{self.path}/{name}")

    def _remove(self, path: str) -> None:
        self._mine.discard(path)
        with contextlib.suppress(FileNotFoundError):
            for entry in self.filesystem.entries(path):
                self.filesystem.unlink(f"{path}/{entry.name}")
            self.filesystem.remove_directory(path)


def _require_its_own(found: Revision | records.Header, waiting: Waiting, at: int, path: str) -> None:
    """Raises CorruptionError where a record is not the one that a transaction has written there."""
    oid = waiting.transaction.oids[at]
    if found.oid != oid or found.tid != waiting.header.token:
        reason = "another record stands in its place"
        raise CorruptionError(path, reason, offset=waiting.offsets[at], oid=oid, tid=waiting.tid)
