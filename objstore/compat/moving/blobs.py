"""Blobs on their way: their bytes lie beside the records, in a file for each revision.

A blob is copied to a temporary file of the target, which the transaction takes over with the record.
"""

from __future__ import annotations

import shutil
from hashlib import sha256

from objstore.compat.adopted import AdoptedStore
from objstore.compat.moving.places import AnyStore
from objstore.contracts import BlobFiles
from objstore.errors import BlobMissingError, MissingAbilityError
from objstore.formats import pickles
from objstore.ids import Oid, Tid

PIECE = 2**20


def keeps_blobs(store: AnyStore) -> bool:
    """Whether a store was opened such that it keeps blobs."""
    return store.keeps_blobs if isinstance(store, AdoptedStore) else True


def is_blob(data: bytes | None) -> bool:
    """Whether a record is that of a blob."""
    return data is not None and pickles.is_blob(data)


class BlobMover:
    """Copies blobs from a store to another."""

    def __init__(self, source: AnyStore, target: AnyStore) -> None:
        self._source = source
        self._target = target
        self.moved = self.bytes = 0
        self.missing = 0
        """Blobs that the source has lost: their records are moved."""

    def require_able(self) -> None:
        """Raises MissingAbilityError where it is known by now that the target cannot take what the source has."""
        if not keeps_blobs(self._target) and _surely_has_blobs(self._source):
            raise self._no_place()

    def _no_place(self) -> MissingAbilityError:
        return MissingAbilityError(
            self._target.name,
            f"keep blobs, and {self._source.name} has some",
            "name a directory for them, by --blobs or in the URL",
        )

    def copied(self, oid: Oid, tid: Tid) -> tuple[BlobFiles, str] | None:
        """A temporary file of the target with a blob's data; None where the source has lost them.

        Raises MissingAbilityError where one of both was opened without blobs.
        """
        if not keeps_blobs(self._source):
            raise MissingAbilityError(
                self._source.name,
                f"give away object {oid.hex()}, a blob, without the files of its blobs",
                "name their directory, by --blobs or in the URL",
            )
        if not keeps_blobs(self._target):
            raise self._no_place()
        files = self._target.blobs
        try:
            source = self._source.blobs.open_committed(oid, tid)
        except BlobMissingError:
            self.missing += 1
            return None
        with source:
            path = files.temporary()
            try:
                with files.open(path, "w") as target:
                    shutil.copyfileobj(source, target, PIECE)
                    self.bytes += target.tell()
            except BaseException:
                files.discard(path)
                raise
        self.moved += 1
        return files, path


def blob_digest(store: AnyStore, oid: Oid, tid: Tid) -> bytes | None:
    """A digest of a blob's data; None where they are missing."""
    if not keeps_blobs(store):
        return None
    try:
        file = store.blobs.open_committed(oid, tid)
    except BlobMissingError:
        return None
    found = sha256()
    with file:
        while piece := file.read(PIECE):
            found.update(piece)
    return found.digest()


def _surely_has_blobs(store: AnyStore) -> bool:
    """Whether there is a blob, as far as that can be told without reading everything."""
    return store.blobs.has_some() if keeps_blobs(store) else False
