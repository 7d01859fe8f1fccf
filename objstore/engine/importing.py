"""A store that is made from another one's transactions: it is whole at the end, and no store until then.

In this order:

1. HOME, `locks` and `config` are made, and the lock is taken;
2. `config/settings.toml.copying` is written, synced and renamed, and its directories are synced. While it is
   there, HOME is an unfinished copy: opening refuses it, and the next copy begins anew;
3. what an earlier copy has left of home, journal and marks is removed, and its removal synced;
4. the other directories are made, and synced;
5. transactions are applied to the home, in the order of their tids, each batch durable before the next, and the
   blobs of a batch before it;
6. the marks are advanced: `flushed`, `oids`, and `packed` where history begins later;
7. `settings.toml.copying` is renamed to `settings.toml`, and its directory synced.

A crash before 2 leaves the beginnings of an empty store, as an interrupted creation does; from 2 until 7 an
unfinished copy. The rename of 7 is what makes it a store, and all else is durable by then.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from io import RawIOBase

from objstore.contracts import FileLock, Filesystem, Format, History, Home
from objstore.engine.blobs import blob_place, copied_facts, facts_of
from objstore.engine.creation import (
    ensure_directory,
    lock_store,
    new_identity,
    require_beginnings,
    undone_on_error,
    write_settings,
)
from objstore.engine.failures import storage_error
from objstore.engine.homefiles import Batch, remove_tree
from objstore.engine.homes import make_home
from objstore.engine.marks import FLUSHED, OIDS, PACKED, Marks
from objstore.errors import CorruptionError, OpenError
from objstore.formats.layouts import HomeDirectory, blob_name
from objstore.formats.settings import Settings
from objstore.ids import NO_TID, Oid, Tid
from objstore.revisions import BlobFacts, Revision, Transaction


class Import:
    """A store that is being made, by one thread. Ends with `finish` or `abandon`."""

    def __init__(
        self, directory: HomeDirectory, settings: Settings, filesystem: Filesystem, lock: FileLock
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._filesystem = filesystem
        self._lock = lock
        self._last = NO_TID
        self._home = self._fresh_home()

    def _fresh_home(self) -> Home:
        settings = self._settings
        return make_home(self._filesystem, self._directory.home, settings.history, settings.format, self._last)

    def prepare(self) -> None:
        """Steps 3 and 4."""
        directory, filesystem = self._directory, self._filesystem
        places = (directory.journal, directory.marks, directory.home, directory.blobs)
        for place in places:
            remove_tree(filesystem, place)
        filesystem.sync_directory(directory.path)  # what was there must not come back into the new one
        for place in places[:3]:
            ensure_directory(filesystem, place)
        self._home.prepare()
        for place in (directory.journal, directory.home, directory.locks, directory.path):
            filesystem.sync_directory(place)

    def apply(self, batch: Sequence[tuple[Transaction, Sequence[Revision]]]) -> None:
        """Take transactions over, later than those before. Durable on return."""
        if batch:
            self._home.apply(batch)
            self._last = batch[-1][0].tid
            self._home.maintain(self._last)

    def take_blobs(self, blobs: Iterable[tuple[Oid, Tid, BlobFacts, RawIOBase]]) -> None:
        """Write blobs, each of which is read from an open file. Durable on return.

        Raises CorruptionError where one has not the length and checksum that it should have.
        """
        changes = Batch(self._filesystem, self._directory.path)
        for oid, tid, facts, source in blobs:
            directory = blob_place(self._directory, self._settings.format, oid)
            changes.keep(directory)
            path = f"{directory}/{blob_name(oid, tid)}"
            with source, self._filesystem.create(path) as file:
                found = copied_facts(source, file)
                file.sync()
            if found != facts:
                raise CorruptionError(path, "the source of this blob is not what was written", oid=oid, tid=tid)
        changes.finish()

    def blob_facts(self, oid: Oid, tid: Tid) -> BlobFacts | None:
        """Length and checksum of a blob that was written; None where it is missing."""
        try:
            place = blob_place(self._directory, self._settings.format, oid)
            return facts_of(self._filesystem, f"{place}/{blob_name(oid, tid)}")
        except FileNotFoundError:
            return None

    def written(self) -> Home:
        """The home as another process would find it, to be compared with what was meant."""
        return self._fresh_home()

    def finish(self, flushed: Tid, unreserved: Oid, packed: Tid) -> None:
        """Make it a store whose newest transaction is `flushed`, and let go of it. Durable on return.

        `unreserved` is the first oid that new objects may have, `packed` the time before which there is no
        history.
        """
        directory, filesystem = self._directory, self._filesystem
        marks = Marks(filesystem, directory.marks)
        marks.advance(FLUSHED, flushed)
        marks.advance(OIDS, unreserved)
        if packed != NO_TID:
            marks.advance(PACKED, packed)
        self._home.close()
        filesystem.rename(directory.unfinished, directory.settings)
        filesystem.sync_directory(directory.config)
        self._lock.close()

    def abandon(self) -> None:
        """Give it up: what was written is removed as far as that is possible, and the directory stays marked."""
        directory, filesystem = self._directory, self._filesystem
        self._home.close()
        try:
            if not filesystem.exists(directory.settings):
                for place in (directory.home, directory.blobs, directory.journal, directory.marks):
                    with contextlib.suppress(OSError):
                        remove_tree(filesystem, place)
        finally:
            self._lock.close()


def begin_import(path: str, history: History, format: Format, filesystem: Filesystem) -> Import:
    """Begin a store at `path` (absolute): a directory that is not there yet, or empty, or an unfinished copy.

    Raises OpenError and its kin where there is something else, StorageError where it cannot be made.
    """
    directory = HomeDirectory(path)
    require_place(path, filesystem)
    try:
        ensure_directory(filesystem, path)
        filesystem.sync_directory(os.path.dirname(path))
        ensure_directory(filesystem, directory.locks)
        lock = lock_store(directory, filesystem, shared=False)
    except OSError as error:
        raise storage_error(path, error) from error
    settings = Settings(history, format, new_identity())
    with undone_on_error(path, lock.close):
        require_place(path, filesystem)  # another process may have been first
        ensure_directory(filesystem, directory.config)
        write_settings(directory, settings, directory.unfinished, filesystem)
        filesystem.sync_directory(path)
        made = Import(directory, settings, filesystem, lock)
    with undone_on_error(path, made.abandon):
        made.prepare()
    return made


def require_place(path: str, filesystem: Filesystem) -> None:
    """Raises OpenError, or NotAStoreError, where no store can be made from a copy."""
    directory = HomeDirectory(path)
    parent = os.path.dirname(path)
    try:
        if not filesystem.exists(parent):
            raise OpenError(path, f"the directory {parent} does not exist; make it first")
        if not filesystem.exists(path):
            return
        if filesystem.exists(directory.settings):
            raise OpenError(path, "there is a store here already; it was left as it is, name another place")
        require_beginnings(directory, filesystem)
    except OSError as error:
        raise OpenError(path, error.strerror or str(error)) from error
