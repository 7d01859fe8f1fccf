"""The blobs of an adopted storage, as `contracts.BlobFiles`.

A storage of ZODB's names a directory for what is not committed, takes a file from there over by renaming it, and
gives paths of what is committed. Where it keeps those in a cache (ZEO, RelStorage), a path is good for as long as
the cache keeps the file; what is open stays readable.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from typing import Any

from ZODB.blob import BlobStorageMixin
from ZODB.interfaces import IBlobStorage
from ZODB.POSException import POSKeyError

from objstore.compat.adopted.reading import Reading
from objstore.errors import BlobMissingError, ReadOnlyError, UsageError
from objstore.ids import Oid, Tid
from objstore.machine.posix import PosixFilesystem

REMEDY = "open it with a directory for blobs, as `blobstorage_dir` in the URL of a file names one"


class AdoptedBlobs:
    """A `contracts.BlobFiles`. May be used by any thread."""

    def __init__(self, reading: Reading, *, read_only: bool) -> None:
        self._reading = reading
        self._read_only = read_only
        self._filesystem = PosixFilesystem()

    # --- temporary files ---

    def temporary(self) -> str:
        if self._read_only:
            raise ReadOnlyError(f"the store {self._reading.name}")
        directory = os.path.abspath(self._reading.storage.temporaryDirectory())
        path: str
        descriptor, path = tempfile.mkstemp(prefix="objstore-", suffix=".tmp", dir=directory)
        os.close(descriptor)
        return path

    def take(self, outside: str) -> str:
        path = self.temporary()
        place = os.path.realpath(os.path.dirname(os.path.dirname(path)))
        try:
            if os.path.realpath(outside).startswith(place + os.sep):
                raise UsageError(f"{outside} is a file of the store itself; copy it, and give the copy away")
            self._filesystem.take(outside, path)
        except BaseException:
            self.discard(path)
            raise
        return path

    def copied(self, path: str) -> str:
        with self.open(path, "r") as source:
            return self._written(source)

    def copied_committed(self, oid: Oid, tid: Tid) -> str:
        with self.open_committed(oid, tid) as source:
            return self._written(source)

    def _written(self, source: RawIOBase) -> str:
        path = self.temporary()
        try:
            with self.open(path, "w") as target:
                shutil.copyfileobj(source, target)
        except BaseException:
            self.discard(path)
            raise
        return path

    def again(self, path: str) -> str:
        """Another name for a temporary file, or a copy of it: to be given away where that may be in vain."""
        fresh = self.temporary()
        os.unlink(fresh)
        try:
            os.link(path, fresh)
        except OSError:
            return self.copied(path)
        return fresh

    def open(self, path: str, mode: str) -> RawIOBase:
        return self._filesystem.open_file(path, mode)

    def outside(self, path: str) -> str:
        return path

    def discard(self, path: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(path)

    # --- committed ones ---

    def open_committed(self, oid: Oid, tid: Tid) -> RawIOBase:
        with self._asked(oid, tid) as storage:
            found: RawIOBase = storage.openCommittedBlobFile(oid, tid).detach()
            return found

    def path(self, oid: Oid, tid: Tid) -> str:
        with self._asked(oid, tid) as storage:
            return str(storage.loadBlob(oid, tid))

    def has_some(self) -> bool:
        """Whether there surely is one. A cache may hold those of other databases, so it says nothing."""
        storage = self._reading.storage
        if not isinstance(storage, BlobStorageMixin):
            return False
        return any(os.listdir(path) for _, path in storage.fshelper.listOIDs())

    @contextmanager
    def _asked(self, oid: Oid, tid: Tid) -> Iterator[Any]:
        with self._reading.newest() as storage:
            try:
                yield storage
            except (POSKeyError, AssertionError) as error:  # RelStorage asserts that there is one on its server
                raise BlobMissingError(oid, tid=tid) from error


def has_blobs(storage: Any) -> bool:
    """Whether a storage was opened such that it keeps blobs. A ZEO's client needs a directory for that."""
    if not IBlobStorage.providedBy(storage):
        return False
    return getattr(storage, "__dict__", {}).get("fshelper", storage) is not None
