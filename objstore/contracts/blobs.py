"""What the object layer knows of where blobs are kept: `BlobFiles`, and who has them, `BlobStore`.

A store that keeps no blobs is a `contracts.Store` and no `BlobStore`.
"""

from __future__ import annotations

from io import RawIOBase
from typing import Protocol, runtime_checkable

from objstore.ids import Oid, Tid


class TemporaryFiles(Protocol):
    """Files for what nobody has committed. Paths are their own; `outside` gives one that the system knows.

    A file belongs to who made it, until it is given away or discarded. May be used by any thread. Raises OSError
    where the system refuses something.
    """

    def temporary(self) -> str:
        """Make an empty temporary file. Raises ReadOnlyError."""

    def take(self, outside: str) -> str:
        """Make a file of the system a temporary one: rename it, or copy and remove it where that is impossible.

        Raises ReadOnlyError, UsageError for a file of the store itself.
        """

    def copied(self, path: str) -> str:
        """A temporary file with the content of another."""

    def open(self, path: str, mode: str) -> RawIOBase:
        """Open a temporary file: "r", "r+", or "w", which empties it."""

    def outside(self, path: str) -> str:
        """The path of a temporary file as the system knows it."""

    def discard(self, path: str) -> None:
        """Remove a temporary file, if it is there. Raises nothing."""


class BlobFiles(TemporaryFiles, Protocol):
    """The files of a store's blobs: temporary ones, and those that are committed.

    What a process that was killed has left of the first goes when the store is recovered.
    """

    def copied_committed(self, oid: Oid, tid: Tid) -> str:
        """A temporary file with the content of a committed blob. Raises BlobMissingError, ReadOnlyError."""

    def open_committed(self, oid: Oid, tid: Tid) -> RawIOBase:
        """Open the blob of a revision for reading. What is open stays readable. Raises BlobMissingError."""

    def path(self, oid: Oid, tid: Tid) -> str:
        """A path, known to the system, of the blob of a revision, which nobody may change.

        It stays valid for as long as the revision is kept; of a store that is open for reading only, until
        somebody flushes it. Raises BlobMissingError.
        """


@runtime_checkable
class BlobSink(Protocol):
    """Where records with blobs go: a pending transaction, or the savepoints' store."""

    def store_blob(
        self,
        oid: Oid,
        serial: Tid,
        data: bytes,
        references: bytes | None,
        path: str,
        copied_from: Tid | None = None,
    ) -> None:
        """Write a blob's record, as `PendingTransaction.store` does, and take over the temporary file `path`.

        `copied_from` means something in a transaction that is restored.
        """


@runtime_checkable
class BlobStore(Protocol):
    """A store that keeps blobs; its pending transactions are `BlobSink`s."""

    @property
    def blobs(self) -> BlobFiles: ...
