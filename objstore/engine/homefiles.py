"""What the homes with a file for each revision have in common: writing files whole, finding and reading them.

A file is written under a temporary name, synced, and renamed, so that under its real name it is whole or
not there. Names are durable once `Batch.finish` has synced the directories; until the mark `flushed` has
advanced, the journal has everything, and a crash leaves nothing but files to write again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from objstore.contracts import Filesystem, Format, Home
from objstore.errors import CorruptionError
from objstore.formats import records
from objstore.formats.layouts import (
    TEMPORARY,
    HomeName,
    TransactionName,
    object_directory,
    parse_home_name,
    transaction_directory,
)
from objstore.ids import Oid, Tid
from objstore.revisions import Revision, RevisionSummary


class Batch:
    """Files that become durable together. Paths are below `root`, which exists."""

    def __init__(self, filesystem: Filesystem, root: str) -> None:
        self._filesystem = filesystem
        self._root = root
        self._known = {root}
        self._touched: set[str] = set()

    def write(self, directory: str, name: str, content: bytes) -> None:
        """Write a file whole, replacing one of that name, into a directory that is made where it is missing."""
        self._make(directory)
        path = f"{directory}/{name}"
        temporary = path + TEMPORARY
        with contextlib.suppress(FileNotFoundError):  # left by a flush that was interrupted
            self._filesystem.unlink(temporary)
        try:
            with self._filesystem.create(temporary) as file:
                file.write(content)
                file.sync()
            self._filesystem.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                self._filesystem.unlink(temporary)
            raise
        self._touched.add(directory)

    def keep(self, directory: str) -> None:
        """Make durable what is in a directory already: who wrote it may not have lived to sync the names."""
        self._make(directory)
        self._touched.add(directory)

    def unlink(self, directory: str, name: str) -> int:
        """Remove a file, if it is there; the bytes that become free."""
        path = f"{directory}/{name}"
        try:
            size = self._filesystem.allocated_bytes(path)
            self._filesystem.unlink(path)
        except FileNotFoundError:
            size = 0
        # Touched also where it was gone: who removed it may not have lived to sync the directory.
        if size or self._filesystem.exists(directory):
            self._touched.add(directory)
        return size

    def _make(self, directory: str) -> None:
        if directory in self._known:
            return
        parent = directory.rpartition("/")[0]
        self._make(parent)
        with contextlib.suppress(FileExistsError):
            self._filesystem.make_directory(directory)
        # Touched also where it was there: the process that made it may not have lived to sync the name.
        self._touched.add(parent)
        self._known.add(directory)

    def finish(self) -> None:
        """Make the names durable: of what was written and removed, and of the directories that were made."""
        for directory in sorted(self._touched):
            self._filesystem.sync_directory(directory)
        self._touched.clear()


def is_outdated(home: Home, oid: Oid, tid: Tid) -> bool:
    """Whether a revision is newer than the one that a home has as the current one of its object."""
    try:
        current = home.current(oid)
    except CorruptionError:  # what cannot be read any more is best replaced by what can
        return True
    return current is None or current < tid


class HomeFiles:
    """The files of a home in a classic format: where each belongs, and what it holds."""

    def __init__(self, filesystem: Filesystem, path: str, format: Format) -> None:
        self.filesystem = filesystem
        self.path = path
        self.format = format

    def batch(self) -> Batch:
        """Changes of this home's files that become durable together."""
        return Batch(self.filesystem, self.path)

    def directory(self, oid: Oid) -> str:
        """Where an object's files belong."""
        return self.below(object_directory(self.format, oid))

    def details_directory(self, tid: Tid) -> str:
        """Where a transaction's details belong."""
        return self.below(transaction_directory(self.format, tid))

    def place(self, name: HomeName) -> str:
        """The directory that a file of this name belongs into."""
        return self.details_directory(name.tid) if isinstance(name, TransactionName) else self.directory(name.oid)

    def below(self, directory: str) -> str:
        """A subdirectory of the home; "" is the home itself."""
        return f"{self.path}/{directory}" if directory else self.path

    def names(
        self, below: str = "", *, newest_first: bool = False, deep: bool = True
    ) -> Iterator[tuple[str, HomeName]]:
        """The directory and the name of every file of a home below a subdirectory.

        Each directory's are sorted, and read when reached. Where a directory is not the file's `place`, it is a
        copy that somebody made. With `deep` False, of the files in the subdirectory itself.
        """
        for directory, name in _files(self.filesystem, self.below(below), newest_first, deep):
            meant = parse_home_name(name)
            if meant is not None:
                yield directory, meant

    def content(self, path: str) -> bytes | None:
        """What a file holds; None where there is no file."""
        try:
            return self.filesystem.read(path)
        except FileNotFoundError:
            return None

    def revision(self, path: str, oid: Oid, tid: Tid | None = None) -> Revision | None:
        """The revision in a file, verified; None where there is no file. `tid` None takes any."""
        content = self.content(path)
        if content is None:
            return None
        header = records.Header(content, 0, path)
        revision = header.revision(content, 0, path)
        self._require(path, revision, oid, tid)
        if len(content) != header.size:
            raise CorruptionError(path, "there are bytes behind the record", offset=header.size, oid=oid, tid=tid)
        return revision

    def summary(self, path: str, oid: Oid, tid: Tid | None = None) -> RevisionSummary | None:
        """The revision in a file without its data; None where there is no file."""
        try:
            lead = self.filesystem.read_at(path, 0, records.HEADER_SIZE + 512)
            header = records.Header(lead, 0, path)
            if header.summary_size > len(lead):
                lead = self.filesystem.read_at(path, 0, header.summary_size)
        except FileNotFoundError:
            return None
        summary = header.summary(lead, 0, path)
        self._require(path, summary, oid, tid)
        return summary

    def _require(self, path: str, found: Revision | RevisionSummary, oid: Oid, tid: Tid | None) -> None:
        if found.oid != oid or (tid is not None and found.tid != tid):
            raise CorruptionError(path, "the file holds another revision than its name says", oid=oid, tid=tid)


def _files(filesystem: Filesystem, path: str, newest_first: bool, deep: bool) -> Iterator[tuple[str, str]]:
    entries = sorted(filesystem.entries(path), key=lambda entry: entry.name, reverse=newest_first)
    for entry in entries:
        if entry.is_directory and deep:
            yield from _files(filesystem, f"{path}/{entry.name}", newest_first, deep)
        elif not entry.is_directory:
            yield path, entry.name


def remove_tree(filesystem: Filesystem, path: str) -> None:
    """Remove a directory and all that is below, if it is there. Not durable before its parent is synced."""
    try:
        entries = filesystem.entries(path)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_directory:
            remove_tree(filesystem, f"{path}/{entry.name}")
        else:
            filesystem.unlink(f"{path}/{entry.name}")
    filesystem.remove_directory(path)
