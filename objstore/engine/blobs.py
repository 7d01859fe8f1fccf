"""Where the blobs of a store are: large binary values, each a file of its own.

A blob that nobody has committed is a file in `blobs/tmp`. Its transaction renames it into its directory of the
journal, as `o<oid>.blob`, and syncs it there before it commits. The flusher renames it to where it stays:
`o<oid>.<tid>.blob`, in the subdirectory of `blobs` that the home would have for the object's files; both
directories are synced before the mark `flushed` advances. `path` does the same earlier for one blob, so that the
path it gives stays valid; whoever renames a blob that is renamed already has nothing to do.

So the file of a committed blob has one of two names, and gets the second while it may be looked for. Who looks for
the first and then for the second finds it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from io import RawIOBase
from threading import Lock
from typing import NamedTuple, TypeVar
from zlib import crc32

from objstore.contracts import Filesystem, Format, WritableFile
from objstore.engine.homefiles import Batch, remove_tree
from objstore.engine.journal import Waiting
from objstore.engine.lookup import Lookup
from objstore.errors import BlobMissingError, ReadOnlyError, UsageError
from objstore.formats.layouts import (
    BlobName,
    HomeDirectory,
    blob_name,
    is_temporary_blob_name,
    object_directory,
    parse_blob_name,
    temporary_blob_name,
    waiting_blob_name,
)
from objstore.ids import NO_TID, Oid, Tid
from objstore.revisions import BlobFacts

_PIECE = 2**20
"""How many bytes are read at a time."""

T = TypeVar("T")


class BlobRevision(NamedTuple):
    """The blob that an object had at `tid`, until a transaction replaced it."""

    oid: Oid
    tid: Tid
    replaced: Tid


class Blobs:
    """A `contracts.BlobFiles`, and what flushing does with them."""

    def __init__(
        self,
        directory: HomeDirectory,
        format: Format,
        lookup: Lookup,
        new_token: Callable[[], bytes],
        *,
        read_only: bool,
    ) -> None:
        self._directory = directory
        self._format = format
        self._lookup = lookup
        self._filesystem = lookup.journal.filesystem
        self._new_token = new_token
        self._read_only = read_only
        self._outdated: list[BlobRevision] = []
        self._lock = Lock()  # a leaf: guards that list
        self._sure: set[str] = set()  # directories that are durable, with all above them

    @property
    def read_only(self) -> bool:
        """Whether nothing is written."""
        return self._read_only

    # --- temporary files ---

    def temporary(self) -> str:
        path = self._fresh()
        self._filesystem.create(path).close()
        return path

    def _fresh(self) -> str:
        """The path of a temporary file that is not there."""
        if self._read_only:
            raise ReadOnlyError(f"the store {self._directory.path}")
        place = self._made(self._directory.temporary_blobs)
        return f"{place}/{temporary_blob_name(self._new_token())}"

    def _made(self, place: str) -> str:
        """A directory for temporary files, which is there now."""
        if not self._filesystem.exists(place):
            directory = self._directory
            for each in (directory.blobs, directory.temporary_blobs, place):
                with contextlib.suppress(FileExistsError):
                    self._filesystem.make_directory(each)
        return place

    def zodb_directory(self) -> str:
        """A directory, known to the system, for files that ZODB makes, and gives away by `take`.

        Raises ReadOnlyError.
        What is forgotten there goes when the store is recovered.
        """
        if self._read_only:
            raise ReadOnlyError(f"the store {self._directory.path}")
        return self._filesystem.outside(self._made(self._directory.temporary_zodb_blobs))

    def take(self, outside: str) -> str:
        is_own = _is_below(outside, self._directory.path)
        if is_own and not _is_below(outside, self._directory.temporary_zodb_blobs):
            raise UsageError(f"{outside} is a file of the store itself; copy it, and give the copy away")
        path = self.temporary()
        try:
            self._filesystem.take(outside, path)
        except BaseException:
            self.discard(path)
            raise
        return path

    def copied(self, path: str) -> str:
        fresh = self._fresh()
        try:
            self._filesystem.copy(path, fresh)
        except BaseException:
            self.discard(fresh)
            raise
        return fresh

    def copied_committed(self, oid: Oid, tid: Tid) -> str:
        return self._found(oid, tid, self.copied)

    def open(self, path: str, mode: str) -> RawIOBase:
        return self._filesystem.open_file(path, mode)

    def outside(self, path: str) -> str:
        return self._filesystem.outside(path)

    def discard(self, path: str) -> None:
        with contextlib.suppress(OSError):
            self._filesystem.unlink(path)

    def facts(self, path: str) -> BlobFacts:
        """Length and checksum of a file, all of which is read."""
        return facts_of(self._filesystem, path)

    # --- committed ones ---

    def open_committed(self, oid: Oid, tid: Tid) -> RawIOBase:
        return self._found(oid, tid, lambda path: self._filesystem.open_file(path, "r"))

    def committed_facts(self, oid: Oid, tid: Tid) -> BlobFacts:
        """Length and checksum of a committed blob, all of which is read. Raises BlobMissingError, OSError."""
        return self._found(oid, tid, self.facts)

    def size(self, oid: Oid, tid: Tid) -> int:
        """The length of a committed blob. Raises BlobMissingError, OSError."""
        return self._found(oid, tid, self._filesystem.size)

    def path(self, oid: Oid, tid: Tid) -> str:
        waiting = self._waiting(oid, tid)
        if waiting is not None and not self._read_only:
            self._make_sure([self.place(oid)])
            self._move(waiting, oid)
        return self._found(oid, tid, self._shown)

    def _shown(self, path: str) -> str:
        self._filesystem.size(path)  # raises where there is no such file
        if not self._read_only:
            self._filesystem.protect(path)
        return self._filesystem.outside(path)

    def _found(self, oid: Oid, tid: Tid, use: Callable[[str], T]) -> T:
        """Use the file of a committed blob, wherever it is at this moment. Raises BlobMissingError."""
        waiting = self._waiting(oid, tid)
        if waiting is not None:
            with contextlib.suppress(FileNotFoundError):
                return use(f"{waiting.path}/{waiting_blob_name(oid)}")
        try:
            return use(self.final_path(oid, tid))
        except FileNotFoundError as error:
            raise BlobMissingError(oid, tid=tid) from error

    def _waiting(self, oid: Oid, tid: Tid) -> Waiting | None:
        """The transaction of the journal that wrote a blob."""
        waiting = self._lookup.index.transaction(tid)
        return waiting if waiting is not None and oid in waiting.blobs else None

    def place(self, oid: Oid) -> str:
        """The directory of an object's blobs."""
        return blob_place(self._directory, self._format, oid)

    def final_path(self, oid: Oid, tid: Tid) -> str:
        """Where the blob of a revision stays."""
        return f"{self.place(oid)}/{blob_name(oid, tid)}"

    def has_some(self) -> bool:
        """Whether there is a committed blob."""
        waiting = self._lookup.index.transactions()
        return any(each.blobs for each in waiting) or any(True for _ in self.there())

    # --- flushing ---

    def keep(self, wanted: Iterable[tuple[Waiting, Collection[Oid]]]) -> None:
        """Move blobs of transactions from the journal to where they stay. Durable on return. May be repeated.

        1. The directories are made, and made durable, because what is renamed into one that is lost is lost;
        2. the files are renamed; 3. the directories they came from and went to are synced. After a crash in
        between each is in one place or in the other.
        """
        moves = [(waiting, oid) for waiting, oids in wanted for oid in sorted(oids)]
        self._make_sure({self.place(oid) for _, oid in moves})
        for waiting, oid in moves:
            self._move(waiting, oid)
        for directory in sorted({self.place(oid) for _, oid in moves} | {waiting.path for waiting, _ in moves}):
            self._filesystem.sync_directory(directory)

    def _make_sure(self, directories: Iterable[str]) -> None:
        """Make directories, durably."""
        missing = sorted(set(directories) - self._sure)
        if missing:
            changes = Batch(self._filesystem, self._directory.path)
            for directory in missing:
                changes.keep(directory)
            changes.finish()
            self._sure.update(missing)

    def _move(self, waiting: Waiting, oid: Oid) -> None:
        """Rename a blob to where it stays, unless somebody has."""
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.rename(f"{waiting.path}/{waiting_blob_name(oid)}", self.final_path(oid, waiting.tid))

    def drop(self, outdated: list[BlobRevision], horizon: Tid) -> None:
        """Remove what was superseded (Minimal), once what supersedes it is flushed and no snapshot is older.

        What is to wait is remembered until the next call. What a crash makes forgotten, a pack finds.
        """
        with self._lock:
            known = self._outdated + [each for each in outdated if each.tid != NO_TID]
            due = [each for each in known if each.replaced <= horizon]
            self._outdated = [each for each in known if each.replaced > horizon]
        for each in due:
            self.discard(self.final_path(each.oid, each.tid))

    # --- packing ---

    def there(self) -> Iterator[tuple[Oid, Tid, int]]:
        """The blobs that are where they stay, with their sizes, those of an object together."""
        for place, (oid, tid) in blob_files(self._filesystem, self._directory):
            if place == self.place(oid):
                with contextlib.suppress(FileNotFoundError):  # removed this moment
                    yield oid, tid, self._filesystem.size(f"{place}/{blob_name(oid, tid)}")

    def remove(self, blobs: Iterable[tuple[Oid, Tid]]) -> int:
        """Remove blobs from where they stay. Durable on return; the bytes that became free."""
        changes = Batch(self._filesystem, self._directory.path)
        freed = sum(changes.unlink(self.place(oid), blob_name(oid, tid)) for oid, tid in blobs)
        changes.finish()
        return freed


def _is_below(path: str, directory: str) -> bool:
    """Whether a file is in a directory, whatever links lead there."""
    return os.path.realpath(path).startswith(os.path.realpath(directory) + os.sep)


def blob_place(directory: HomeDirectory, format: Format, oid: Oid) -> str:
    """The directory of an object's blobs."""
    below = object_directory(format, oid)
    return f"{directory.blobs}/{below}" if below else directory.blobs


def facts_of(filesystem: Filesystem, path: str) -> BlobFacts:
    """Length and checksum of a file, all of which is read. Raises OSError."""
    with filesystem.open_file(path, "r") as file:
        return copied_facts(file, None)


def copied_facts(source: RawIOBase, target: WritableFile | None) -> BlobFacts:
    """Length and checksum of what is left of a file, which is copied to another one. Raises OSError."""
    size = crc = 0
    buffer = bytearray(_PIECE)
    while count := source.readinto(buffer):
        piece = memoryview(buffer)[:count]
        size += count
        crc = crc32(piece, crc)
        if target is not None:
            target.write(piece)
    return BlobFacts(size, crc)


def sweep_temporaries(filesystem: Filesystem, directory: HomeDirectory) -> None:
    """Remove what processes have left that ended before they could commit it. Nobody has the store open now."""
    with contextlib.suppress(OSError):
        for entry in filesystem.entries(directory.temporary_blobs):
            if is_temporary_blob_name(entry.name) and not entry.is_directory:
                filesystem.unlink(f"{directory.temporary_blobs}/{entry.name}")
        remove_tree(filesystem, directory.temporary_zodb_blobs)


def blob_files(filesystem: Filesystem, directory: HomeDirectory) -> Iterator[tuple[str, BlobName]]:
    """Each file in `blobs` that has the name of a blob: its directory and that name. Those of one directory are
    in the order of oids and tids."""
    for place, name in _files(filesystem, directory.blobs):
        found = parse_blob_name(name)
        if found is not None:
            yield place, found


def _files(filesystem: Filesystem, path: str) -> Iterator[tuple[str, str]]:
    try:
        entries = sorted(filesystem.entries(path), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_directory:
            yield from _files(filesystem, f"{path}/{entry.name}")
        else:
            yield path, entry.name
